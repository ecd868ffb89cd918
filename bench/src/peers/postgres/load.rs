//! The closed loop against PostgreSQL: each place of a pipeline is a task that orders again and again; the client
//! library pipelines what the tasks of one connection ask for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::runtime::LocalRuntime;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::{connect, failed};
use crate::contest::{RoundLength, Shape};
use crate::driver::Clock;
use crate::error::BenchError;
use crate::peers::judge::Judge;
use crate::recorder::{Operation, Recorder, Window};

/// One round.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of 127.0.0.1.
    pub port: u16,
    /// What deals.
    pub function: &'static str,
    /// Connections and tasks on each.
    pub shape: Shape,
    /// Warm-up and measured time.
    pub length: RoundLength,
    /// Orders that can be filled.
    pub stock: u64,
    /// Orders that are measured at most.
    pub orders_max: u64,
}

/// What the tasks share; all run on one thread.
struct Shared {
    judge: RefCell<Judge>,
    recorder: RefCell<Recorder>,
    /// Orders that the stock still fills.
    stock_left: Cell<u64>,
    /// Answers that are still to be measured.
    orders_left: Cell<u64>,
    stop_ns: Cell<u64>,
    clock: Clock,
}

/// Runs one round. Orders that are not answered when its time is up are left alone.
pub fn run(runtime: &LocalRuntime, judge: &mut Judge, plan: Plan) -> Result<Recorder, BenchError> {
    // The tasks need the judge for themselves while they live; it comes back at the end.
    let lent = std::mem::replace(
        judge,
        Judge::new("postgresql", crate::stock::SECRET_BYTES_MIN),
    );
    let clock = Clock::start();
    let shared = Rc::new(Shared {
        judge: RefCell::new(lent),
        recorder: RefCell::new(Recorder::new(Window::Received, 0, u64::MAX)),
        stock_left: Cell::new(plan.stock),
        orders_left: Cell::new(plan.orders_max),
        stop_ns: Cell::new(u64::MAX),
        clock,
    });
    let ended = runtime.block_on(round(plan, shared.clone()));
    let shared = Rc::into_inner(shared).expect("all tasks have ended");
    *judge = shared.judge.into_inner();
    let mut recorder = shared.recorder.into_inner();
    recorder.end_ns = recorder.end_ns.min(shared.stop_ns.get());
    ended.map(|()| recorder)
}

async fn round(plan: Plan, shared: Rc<Shared>) -> Result<(), BenchError> {
    let ask = format!("SELECT {}($1)", plan.function);
    let mut clients = Vec::new();
    for _ in 0..plan.shape.connections {
        let client = connect(plan.port).await.map_err(|error| failed(&error))?;
        let statement = client.prepare(&ask).await.map_err(|error| failed(&error))?;
        clients.push((Rc::new(client), statement));
    }
    let start_ns = shared.clock.now_ns() + plan.length.warmup.as_nanos() as u64;
    let stop_ns = start_ns + plan.length.measured.as_nanos() as u64;
    *shared.recorder.borrow_mut() = Recorder::new(Window::Received, start_ns, stop_ns);
    shared.stop_ns.set(stop_ns);

    let mut tasks = JoinSet::new();
    for (client, statement) in &clients {
        for _ in 0..plan.shape.pipeline {
            tasks.spawn_local(order_again_and_again(
                shared.clone(),
                client.clone(),
                statement.clone(),
            ));
        }
    }
    let all_ordered = async {
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a task neither panics nor is cancelled")?;
        }
        Ok(())
    };
    let length = plan.length.warmup + plan.length.measured;
    let ended = tokio::time::timeout(length, all_ordered)
        .await
        .unwrap_or(Ok(()));
    tasks.shutdown().await;
    ended
}

async fn order_again_and_again(
    shared: Rc<Shared>,
    client: Rc<Client>,
    statement: Statement,
) -> Result<(), BenchError> {
    loop {
        let sent_ns = shared.clock.now_ns();
        if sent_ns >= shared.stop_ns.get() {
            return Ok(());
        }
        let Some(left) = shared.stock_left.get().checked_sub(1) else {
            shared.stop_ns.set(sent_ns);
            return Ok(());
        };
        shared.stock_left.set(left);
        let (sequence, id) = shared.judge.borrow_mut().next_order();
        let row = client
            .query_one(&statement, &[&Uuid::from_u128(id.as_u128())])
            .await
            .map_err(|error| failed(&error))?;
        let received_ns = shared.clock.now_ns();
        shared
            .judge
            .borrow_mut()
            .judge(sequence, row.get::<_, &str>(0).as_bytes())?;
        shared.count(sent_ns, received_ns);
    }
}

impl Shared {
    /// Counts an answer; the round is over when enough are.
    fn count(&self, sent_ns: u64, received_ns: u64) {
        let mut recorder = self.recorder.borrow_mut();
        if received_ns >= recorder.start_ns && received_ns < self.stop_ns.get() {
            recorder.answered(Operation::Issue, sent_ns, received_ns, 1);
            self.orders_left.set(self.orders_left.get() - 1);
            if self.orders_left.get() == 0 {
                self.stop_ns.set(received_ns);
            }
        }
    }
}
