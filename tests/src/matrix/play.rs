//! One run of a scene under strace: what the client saw, what the server did, and which system calls there were.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use croupier_client::{
    Client, DEFAULT_TTL, Error, ImportRow, Job, JobFailure, Order, OrderId, OrderOutcome,
    OrderStep, SkuId, Wait,
};

use super::scene::{Act, Begin, Scene};
use super::stage::{SECRET_BYTES, SEGMENT_BYTES, Staged, store_in};
use super::strace::{Attached, Orders, log_of, thread};
use super::trace::{self, Call, Spot};
use super::{Fault, Problem};
use crate::{Mint, Oracle, PATIENCE, Server, Store, croupier_under};

/// A kill that does not come within this is taken for one that does not come.
const KILLED_WITHIN: Duration = Duration::from_secs(1);
/// A server whose log cannot be written is to be gone within this, also on a busy machine.
const ENDED_WITHIN: Duration = Duration::from_secs(20);
/// Starts after which a way of writing the log that is not the wanted one is put up with.
const STARTS: u32 = 20;
/// What makes cards, and what of; it is asked once.
const CHANNEL: &str = "maker";
const MADE: &str = "made";
const MAKER: &str = r#"
[retry]
attempts = 1

[outlier]
max_ejection_percent = 100

[[channel]]
name = "maker"
kind = "issuer"
timeout = "1h"

[[rule]]
sku = ["made"]
channels = ["maker"]

[[rule]]
"#;
/// An order waits for cards as long as any run lasts.
const LONG: Duration = Duration::from_secs(3600);
/// An order that is in line is a job within this.
const JOB_WITHIN: Duration = Duration::from_secs(2);
/// Background work that a script does not wait for has ended after this.
const SETTLED_AFTER: Duration = Duration::from_millis(20);

/// A run that is over; its server is, too, unless the fault did not end it.
#[derive(Debug)]
pub struct Played {
    /// The store as the run left it.
    pub store: Store,
    /// What is known of it.
    pub oracle: Oracle,
    /// The first thing that a client saw and would not have seen without the fault.
    pub saw: String,
    /// What became of the process.
    pub did: Did,
    /// What it logged.
    pub log: String,
    /// A server that goes on, still traced.
    pub alive: Option<(Server, Option<Attached>)>,
    trace: PathBuf,
    root: PathBuf,
}

/// What became of a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Did {
    /// It goes on.
    WentOn,
    /// It ended before it listened; with its exit code, or none for a signal.
    NotStarted(Option<i32>),
    /// It ended by itself.
    Ended(Option<i32>),
    /// It ended because it was asked to.
    Stopped(Option<i32>),
}

impl Played {
    /// The system calls of the run. All of them once the server is gone.
    ///
    /// # Panics
    /// If there is no trace.
    pub fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(&self.trace).expect("strace writes a trace");
        trace::read(&text, &self.root.display().to_string())
    }
}

/// Plays a scene in `root`, which nobody else uses.
///
/// # Errors
/// If strace does not do its part.
///
/// # Panics
/// If an answer cannot be, or something hangs.
pub async fn play(
    scene: &Scene,
    staged: Option<&Staged>,
    root: &Path,
    orders: &Orders<'_>,
) -> Result<Played, Problem> {
    let (store, oracle) = match staged {
        Some(staged) => staged.copy_to(root),
        None => {
            let store = store_in(root);
            let _ = fs::remove_dir_all(store.dir());
            (store, Oracle::new())
        }
    };
    let store = store.with("--checkpoint-segments", scene.checkpoint_segments);
    let mut played = Played {
        store,
        oracle,
        saw: "nothing".to_owned(),
        did: Did::WentOn,
        log: String::new(),
        alive: None,
        trace: orders.trace.clone(),
        root: root.to_owned(),
    };
    let segments = played.store.files("wal", ".seg");
    let (mut server, attached) = match scene.begin {
        Begin::Init => {
            let done = croupier_under(&orders.wrapper(), played.store.init_args(SEGMENT_BYTES));
            if done.code != Some(0) {
                played.saw = "init fails".to_owned();
            }
            played.did = Did::Ended(done.code);
            played.log = done.stderr;
            return Ok(played);
        }
        Begin::Launch(_) => match Server::start_under(&orders.wrapper(), &played.store) {
            Ok(server) => (server, None),
            Err(done) => {
                played.saw = "nobody to ask".to_owned();
                played.did = Did::NotStarted(done.code);
                played.log = done.stderr;
                return Ok(played);
            }
        },
        Begin::Attach(_) => {
            let mut server = played.store.serve();
            for _ in 0..STARTS {
                if log_of(server.pid()) == Some(orders.log) {
                    break;
                }
                server.kill();
                // Without what that start has written.
                (_, _) = staged.expect("what serves has a stage").copy_to(root);
                server = played.store.serve();
            }
            // It counts from the segment that is in use when it begins.
            let _ = thread(server.pid(), "croupier-fold");
            tokio::time::sleep(SETTLED_AFTER).await;
            let attached = orders.attach(server.pid())?;
            (server, Some(attached))
        }
    };
    let staged = staged.expect("what serves has a stage");
    let mut script = Script {
        store: &played.store,
        oracle: &played.oracle,
        sku: staged.sku,
        first: staged.first,
        segments,
        saw: None,
    };
    let mut stop = false;
    if let Some(client) = script.client(&server).await {
        for act in scene.acts {
            stop |= *act == Act::Stop;
            if stop || !script.act(*act, &client, &mut server).await {
                break;
            }
        }
    }
    let saw = script.saw.take();
    played.saw = saw.unwrap_or(played.saw);
    if stop && server.is_alive() {
        let done = server.stop();
        played.did = Did::Stopped(done.code);
        played.log = done.stderr;
    } else {
        tokio::time::sleep(SETTLED_AFTER).await;
        // A kill that is due may still come, and a server that can write no more takes a moment to say so.
        let due_within = if server.stderr().contains("the log's writer has failed") {
            ENDED_WITHIN
        } else {
            due_within(orders, &played.saw)
        };
        let begun = Instant::now();
        while server.is_alive() && begun.elapsed() < due_within {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if server.is_alive() {
            played.log = server.stderr();
            played.alive = Some((server, attached));
            return Ok(played);
        }
        let done = server.wait();
        played.did = Did::Ended(done.code);
        played.log = done.stderr;
    }
    if let Some(attached) = attached {
        attached.finish();
    }
    Ok(played)
}

/// How long to wait for an end that may be near.
fn due_within(orders: &Orders<'_>, saw: &str) -> Duration {
    match orders.fault {
        None => Duration::ZERO,
        Some((Fault::Kill, _)) => KILLED_WITHIN,
        Some((_, spot)) if ends_the_writer(spot) && saw != "nothing" => ENDED_WITHIN,
        Some(_) if saw == "nothing" || saw.starts_with("import refused") => Duration::ZERO,
        Some(_) => KILLED_WITHIN,
    }
}

/// Rule 8: an error that this thread meets is the end.
pub fn ends_the_writer(spot: &Spot) -> bool {
    spot.thread == "croupier-log"
}

/// A connection that does not try again: what it does not know, the oracle does.
pub async fn connect(server: &Server) -> Result<Client, Error> {
    server
        .builder()
        .call_timeout(PATIENCE)
        .retries(0)
        .build()
        .await
}

struct Script<'a> {
    store: &'a Store,
    oracle: &'a Oracle,
    sku: SkuId,
    first: Order,
    /// Segments at the beginning.
    segments: Vec<PathBuf>,
    saw: Option<String>,
}

impl Script<'_> {
    async fn client(&mut self, server: &Server) -> Option<Client> {
        match connect(server).await {
            Ok(client) => Some(client),
            Err(error) => {
                self.see(&error);
                None
            }
        }
    }

    /// False when the script is over, because there is nobody left to ask.
    async fn act(&mut self, act: Act, client: &Client, server: &mut Server) -> bool {
        let new = |sku| Order::new(OrderId::new_v7(), sku);
        match act {
            Act::Orders(count) => {
                for _ in 0..count {
                    if !self.issue(client, &[new(self.sku)]).await {
                        return false;
                    }
                }
                true
            }
            Act::Batch(count) => {
                let orders: Vec<_> = (0..count).map(|_| new(self.sku)).collect();
                self.issue(client, &orders).await
            }
            Act::Repeat => self.issue(client, &[self.first]).await,
            Act::Holds => {
                let [kept, part, over] = [1, 3, 2].map(|quantity| new(self.sku).quantity(quantity));
                let steps = [
                    OrderStep::reserve(kept, DEFAULT_TTL),
                    OrderStep::reserve(part, DEFAULT_TTL),
                    OrderStep::reserve(over, DEFAULT_TTL),
                    OrderStep::commit(part.order_id).quantity(2),
                    OrderStep::extend(over.order_id, 1, DEFAULT_TTL),
                    OrderStep::cancel(over.order_id),
                ];
                for step in steps {
                    if !self.step(client, step).await {
                        return false;
                    }
                }
                true
            }
            Act::Outside => self.outside(client).await,
            Act::CreateSku(name) => match self.oracle.create_sku(client, name).await {
                Ok(_) => true,
                Err(error) => self.see(&error),
            },
            Act::Import(sku, cards) => {
                let secrets = Mint::new(61).secrets(cards, SECRET_BYTES);
                match self.oracle.try_import(client, sku, &secrets).await {
                    Ok(_) => true,
                    Err(error) => self.see(&error),
                }
            }
            Act::AwaitSegment => {
                let last = self.segments.last().cloned();
                self.wait(server, |script, _| {
                    script.store.files("wal", ".seg").last().cloned() > last
                })
            }
            Act::AwaitCheckpoint => self.wait(server, |_, server| {
                let log = server.stderr();
                log.contains("checkpoint made") || log.contains("no checkpoint could be made")
            }),
            Act::Stop => unreachable!("the one who plays the script stops the server"),
        }
    }

    async fn outside(&mut self, client: &Client) -> bool {
        if let Err(error) = client.routes_load(MAKER).await {
            return self.see(&error);
        }
        let sku = match self.oracle.create_sku(client, MADE).await {
            Ok(sku) => sku,
            Err(error) => return self.see(&error),
        };
        let [made, buried] = [(); 2].map(|()| Order::new(OrderId::new_v7(), sku).quantity(2));
        let mut mint = Mint::new(63);
        if !self
            .step(client, OrderStep::issue(made).wait(Wait::Told, LONG))
            .await
        {
            return false;
        }
        let Some(job) = (match self.job(client, made).await {
            Ok(job) => job,
            Err(goes_on) => return goes_on,
        }) else {
            return true;
        };
        for _ in 0..2 {
            if !self
                .deliver(client, (&job, sku), &mint.secrets(1, SECRET_BYTES))
                .await
            {
                return false;
            }
        }
        if !self.filled(client, made).await {
            return false;
        }
        // Late: stock.
        if !self
            .deliver(client, (&job, sku), &mint.secrets(1, SECRET_BYTES))
            .await
        {
            return false;
        }
        if !self
            .step(client, OrderStep::issue(buried).wait(Wait::Told, LONG))
            .await
        {
            return false;
        }
        match self.job(client, buried).await {
            Ok(None) => {}
            Ok(Some(job)) => {
                let failure = JobFailure::for_good("not ours");
                if let Err(error) = client.fail_job(CHANNEL, &job, &failure).await {
                    return self.see(&error);
                }
            }
            Err(goes_on) => return goes_on,
        }
        match client.eject_channel(CHANNEL, None).await {
            Ok(_) => true,
            Err(error) => self.see(&error),
        }
    }

    /// The job for an order; `None`: it is not in line, as a fault has kept it from being. `Err`: whether there is still somebody to
    /// ask.
    async fn job(&mut self, client: &Client, order: Order) -> Result<Option<Job>, bool> {
        match client.take_jobs(CHANNEL, "matrix", 1, JOB_WITHIN).await {
            Ok(jobs) => {
                let job = jobs.into_iter().next();
                assert!(job.iter().all(|job| job.id == order.order_id), "{job:?}");
                Ok(job)
            }
            Err(error) => Err(self.see(&error)),
        }
    }

    async fn deliver(
        &mut self,
        client: &Client,
        (job, sku): (&Job, SkuId),
        secrets: &[Vec<u8>],
    ) -> bool {
        self.oracle.delivers(MADE, sku, secrets);
        let rows = (1..).zip(secrets);
        let rows: Vec<_> = rows
            .map(|(line, secret)| ImportRow::new(line, secret))
            .collect();
        match client.deliver_job(CHANNEL, job, &rows, false).await {
            Ok(delivery) => {
                assert_eq!(delivery.accepted, secrets.len() as u64, "{delivery:?}");
                self.oracle
                    .delivered(MADE, secrets.iter().map(Vec::as_slice));
                true
            }
            Err(error) => {
                self.oracle
                    .delivery_failed(MADE, secrets.len() as u64, &error);
                self.see(&error)
            }
        }
    }

    /// Waits until an order has its cards, or cannot be filled as things are; false: there is nobody left to ask.
    async fn filled(&mut self, client: &Client, order: Order) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < JOB_WITHIN {
            match client.order(order.order_id).await {
                Ok(Some(OrderOutcome::Waiting(_))) => {}
                Ok(_) => break,
                Err(error) => return self.see(&error),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }

    /// Waits for something that the server does in the background; a server that ends does nothing more.
    fn wait(&self, server: &mut Server, over: impl Fn(&Self, &Server) -> bool) -> bool {
        let begun = Instant::now();
        while !over(self, server) {
            if !server.is_alive() {
                return false;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "it never happens\n{}",
                server.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    async fn issue(&mut self, client: &Client, orders: &[Order]) -> bool {
        let asks: Vec<_> = orders.iter().map(|&order| self.oracle.ask(order)).collect();
        match client.issue_many(orders).await {
            Ok(outcomes) => {
                for (ask, outcome) in asks.iter().zip(&outcomes) {
                    self.oracle.book(ask, outcome);
                    if let OrderOutcome::Refused { refusal, .. } = outcome {
                        self.saw
                            .get_or_insert_with(|| format!("order refused: {}", refusal.name()));
                    }
                }
                true
            }
            Err(error) => {
                if let Error::OutcomeUnknown { .. } = error {
                    asks.iter().for_each(|ask| self.oracle.lost(ask));
                }
                self.see(&error)
            }
        }
    }

    async fn step(&mut self, client: &Client, step: OrderStep) -> bool {
        let ask = self.oracle.ask_step(step);
        match client.steps(&[step]).await {
            Ok(outcomes) => {
                let outcome = &outcomes[0];
                self.oracle.book(&ask, outcome);
                if let OrderOutcome::Refused { refusal, .. } = outcome {
                    self.saw
                        .get_or_insert_with(|| format!("order refused: {}", refusal.name()));
                }
                true
            }
            Err(error) => {
                if let Error::OutcomeUnknown { .. } = error {
                    self.oracle.lost(&ask);
                }
                self.see(&error)
            }
        }
    }

    /// Notes an error that a client may see; true if there is still somebody to ask.
    fn see(&mut self, error: &Error) -> bool {
        let (saw, alive) = match error {
            Error::OutcomeUnknown { .. } => ("outcome unknown".to_owned(), false),
            Error::Unreachable { .. } => ("not reachable".to_owned(), false),
            Error::Closed { .. } => ("connection lost".to_owned(), false),
            Error::Refused { refusal, .. } => (format!("import refused: {}", refusal.name()), true),
            other => panic!("an error that no fault of a disk explains: {other}"),
        };
        self.saw.get_or_insert(saw);
        alive
    }
}
