//! One store being loaded: its stock, its sequence numbers and its oracle, over one or several measured stretches.

use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use croupier_protocol::{FRAME_HEADER_BYTES, HelloReply, Priority, StepItem};

use super::args::{Mode, RunArgs, Step};
use super::stocking::{Stocking, open_orders};
use super::target::Target;
use crate::driver::{Driven, Pacing, Plan, drive};
use crate::error::BenchError;
use crate::oracle::{Oracle, OracleReport};
use crate::progress::Progress;
use crate::recorder::Operation;
use crate::report::{ImportReport, StepReport};
use crate::stock::{Budget, SecretShape};
use crate::workload::{Holding, Workload};

/// Requests an open loop lets one connection have in flight, unless the server's limit is lower.
const OPEN_IN_FLIGHT_MAX: usize = 4096;
/// Length of the closed loop that finds out how much stock a closed loop needs.
const PROBE: Duration = Duration::from_millis(700);
/// Cards the probe has in stock.
const PROBE_CARDS: f64 = 1_000_000.0;
/// Cards imported at most for a closed loop that names no number; it ends early when they are dealt.
const CLOSED_CARDS_MAX: f64 = 100_000_000.0;
/// A warm server is faster than a probed one.
const PROBE_MARGIN: f64 = 1.5;

/// A server, and all that one run knows of what it was asked.
#[derive(Debug)]
pub struct Session {
    args: Rc<RunArgs>,
    target: Rc<Target>,
    stocking: Stocking,
    run_id: u128,
    limits: HelloReply,
    next_sequence: u64,
    oracle: Option<Oracle>,
    holding: Option<Holding>,
}

/// One of several loads that run at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// When it sends, and for how long.
    pub step: Step,
    /// The priority of all its orders.
    pub priority: Priority,
    /// Its connections.
    pub connections: u32,
    /// Frames that each of them keeps in flight in a closed loop.
    pub pipeline: u32,
    /// How nice its threads are, 0 to 19: a generator that takes the CPU from the server in the middle of another load's orders
    /// is measured with them.
    pub nice: u8,
}

/// For this thread, and for those that it starts.
fn be_nice(nice: u8) -> Result<(), BenchError> {
    let me = rustix::thread::gettid();
    rustix::process::setpriority_process(Some(me), nice.into())
        .map_err(|error| BenchError::io("set the niceness of a load")(error.into()))
}

impl Session {
    /// Compares the flags with what the server allows; nothing is imported yet.
    pub fn open(args: RunArgs, target: Rc<Target>) -> Result<Self, BenchError> {
        let control = target.control()?;
        let limits = *control.limits();
        for step in args.steps() {
            in_flight_max(&args, step.pacing, &limits)?;
        }
        let run_id = uuid::Uuid::new_v4().as_u128();
        let shape = SecretShape::new(run_id, usize::from(args.secret_bytes));
        let holding = args.holding();
        let args = Rc::new(args);
        let stocking = Stocking::new(args.clone(), control, shape)?;
        Ok(Self {
            args,
            target,
            stocking,
            run_id,
            limits,
            next_sequence: 0,
            oracle: None,
            holding,
        })
    }

    /// The run's part of order ids and secrets.
    pub fn run_id(&self) -> u128 {
        self.run_id
    }

    /// The stock imported so far.
    pub fn imported(&self) -> ImportReport {
        self.stocking.report()
    }

    /// Goes on with another number of connections and another pipeline.
    pub fn reshape(&mut self, connections: u32, pipeline: u32) {
        let mut args = RunArgs::clone(&self.args);
        (args.connections, args.pipeline) = (Some(connections), Some(pipeline));
        self.args = Rc::new(args);
    }

    /// Goes on with orders that are reserved, or issued as usual.
    pub fn hold(&mut self, holding: Option<Holding>) {
        self.holding = holding;
    }

    /// Goes on with the same store behind another process: it was stopped, or crashed, and was started anew.
    pub fn follow(&mut self, target: Rc<Target>) -> Result<(), BenchError> {
        self.stocking.reconnect(target.control()?);
        self.target = target;
        Ok(())
    }

    /// Imports what the flags ask for, or what the run needs.
    pub fn stock_up(&mut self) -> Result<(), BenchError> {
        let args = self.args.clone();
        match (args.cards, args.mode()) {
            (Some(0), _) => self.stocking.use_what_is_there(),
            (Some(cards), _) => self.stocking.import_evenly(cards),
            (None, Mode::Closed) => {
                let orders = self.probe()?;
                self.stocking.import_for(orders)
            }
            (None, _) => self
                .stocking
                .import_for(open_orders(&args.steps(), args.mix.issue_share())),
        }
    }

    /// Imports as many cards of the only SKU as are missing from `cards`.
    pub fn top_up(&mut self, cards: u64) -> Result<(), BenchError> {
        assert_eq!(self.args.skus, 1, "contests order one SKU");
        let missing = cards.saturating_sub(self.stocking.budget().left(0));
        if missing > 0 {
            self.stocking.import_evenly(missing)
        } else {
            Ok(())
        }
    }

    /// A short closed loop, to know how many orders the real one will issue.
    fn probe(&mut self) -> Result<f64, BenchError> {
        let quantity = f64::from(self.args.quantity);
        self.stocking.import_for(PROBE_CARDS / quantity)?;
        let probe = Step {
            pacing: Pacing::Closed,
            warmup: Duration::ZERO,
            duration: PROBE,
        };
        let budget = self.stocking.budget();
        let mut recorder = self.drive(probe, "probe", budget)?.recorder;
        let whole = if self.holding.is_some() {
            Operation::Pair
        } else {
            Operation::Issue
        };
        let issued = recorder.operation(whole).orders;
        let per_s = issued as f64 / recorder.measured_s();
        let [step] = self.args.steps()[..] else {
            unreachable!("a closed loop is one step")
        };
        let in_flight =
            self.args.connections() * self.args.pipeline() as usize * usize::from(self.args.batch);
        let loaded_s = (step.warmup + step.duration).as_secs_f64();
        let orders = per_s * PROBE_MARGIN * loaded_s + 2.0 * in_flight as f64;
        Ok(orders.min(CLOSED_CARDS_MAX / quantity))
    }

    /// Loads, judges and measures one stretch.
    pub fn step(&mut self, step: Step) -> Result<StepReport, BenchError> {
        let budget = self.stocking.budget();
        self.step_within(step, budget)
    }

    /// As [`Session::step`], with so many orders of the only SKU at most.
    pub fn step_of(&mut self, step: Step, orders: u64) -> Result<StepReport, BenchError> {
        assert_eq!(self.args.skus, 1, "a number of orders is one of one SKU");
        let cards = orders * u64::from(self.args.quantity);
        let budget = self.stocking.budget().split(cards);
        self.step_within(step, Arc::new(budget))
    }

    /// Several loads at the same time on the same stock, each with threads of its own; one report for each.
    pub fn steps_at_once(&mut self, streams: &[Stream]) -> Result<Vec<StepReport>, BenchError> {
        let budget = self.stocking.budget();
        let mut loads = Vec::with_capacity(streams.len());
        for stream in streams {
            let mut args = RunArgs::clone(&self.args);
            args.priority = stream.priority;
            (args.connections, args.pipeline) = (Some(stream.connections), Some(stream.pipeline));
            let plan = self.plan(&args, stream.step, budget.clone())?;
            loads.push((plan, self.target.streams(args.connections())?));
        }
        let results: Vec<_> = thread::scope(|scope| {
            let mut threads = Vec::with_capacity(streams.len());
            for ((plan, connections), stream) in loads.into_iter().zip(streams) {
                let mut progress = match threads.is_empty() {
                    true => Progress::new("loads at the same time"),
                    false => Progress::hidden(),
                };
                threads.push(scope.spawn(move || {
                    if stream.nice > 0 {
                        be_nice(stream.nice)?;
                    }
                    drive(&plan, connections, &mut progress)
                }));
            }
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a driver does not panic"))
                .collect()
        });
        let mut reports = Vec::with_capacity(streams.len());
        for (stream, result) in streams.iter().zip(results) {
            let (driven, oracle) = result?;
            self.absorb(oracle);
            reports.push(StepReport::new(stream.step, driven));
        }
        Ok(reports)
    }

    fn step_within(&mut self, step: Step, budget: Arc<Budget>) -> Result<StepReport, BenchError> {
        let what = match step.pacing {
            Pacing::Closed => "closed loop".to_string(),
            Pacing::Open { orders_per_s, .. } => {
                format!(
                    "open loop, {} orders/s",
                    crate::units::grouped(orders_per_s as u64)
                )
            }
        };
        let driven = self.drive(step, &what, budget)?;
        Ok(StepReport::new(step, driven))
    }

    fn drive(&mut self, step: Step, what: &str, budget: Arc<Budget>) -> Result<Driven, BenchError> {
        let args = self.args.clone();
        let plan = self.plan(&args, step, budget)?;
        let streams = self.target.streams(args.connections())?;
        let (driven, oracle) = drive(&plan, streams, &mut Progress::new(what))?;
        self.absorb(oracle);
        Ok(driven)
    }

    fn absorb(&mut self, oracle: Oracle) {
        match self.oracle.as_mut() {
            Some(all) => all.absorb(oracle),
            None => self.oracle = Some(oracle),
        }
    }

    /// What a driver is to do; sequence numbers are its own.
    fn plan(
        &mut self,
        args: &RunArgs,
        step: Step,
        budget: Arc<Budget>,
    ) -> Result<Plan, BenchError> {
        let holding = self.holding;
        let sku_ids = self.stocking.sku_ids().to_vec();
        let workload = Workload::new(
            args.seed,
            self.run_id,
            sku_ids,
            args.hot_share,
            args.quantity,
        )
        .with_holders(args.holders);
        let workload = match &holding {
            Some(holding) => workload.with_holding(holding),
            None => workload,
        };
        let plan = Plan {
            pacing: step.pacing,
            batch: args.batch,
            in_flight_max: in_flight_max(args, step.pacing, &self.limits)?,
            mix: args.mix,
            holding,
            priority: args.priority as u8,
            warmup: step.warmup,
            duration: step.duration,
            drain: args.drain,
            seed: args.seed,
            threads: usize::from(args.threads),
            workload: Arc::new(workload),
            shape: self.stocking.shape().clone(),
            budget,
            skus: args.skus as usize,
            first_sequence: self.next_sequence,
            server_pid: self.target.pid(),
        };
        // Threads use the bits from 40 on, see `Sender`; steps those from 48 on.
        self.next_sequence += 1 << 48;
        Ok(plan)
    }

    /// Cards that orders were answered with so far.
    pub fn cards_judged(&self) -> u64 {
        self.oracle
            .as_ref()
            .map_or(0, |oracle| oracle.report().cards)
    }

    /// Looks the sampled orders up again; what the oracle concludes in the end.
    pub fn look_samples_up(&mut self) -> Result<OracleReport, BenchError> {
        let Some(oracle) = self.oracle.as_mut() else {
            return Ok(OracleReport::default());
        };
        oracle.look_samples_up(&mut self.target.control()?)?;
        Ok(oracle.report().clone())
    }
}

/// Compares what is asked for with what the server allows; returns how many requests a connection may have in flight.
fn in_flight_max(args: &RunArgs, pacing: Pacing, limits: &HelloReply) -> Result<usize, BenchError> {
    let usage = |text| Err(BenchError::Usage(text));
    let batch = usize::from(args.batch);
    let frame_bytes = FRAME_HEADER_BYTES + batch * StepItem::BYTES;
    if batch > limits.orders_per_frame_max as usize || frame_bytes > limits.frame_bytes_max as usize
    {
        return usage(format!(
            "--batch {batch} makes a frame of {frame_bytes} bytes; this server takes {} orders and {} bytes at most: start it with --frame-bytes-max {}, or say a smaller --batch",
            limits.orders_per_frame_max,
            limits.frame_bytes_max,
            args.answer_bytes_max().max(frame_bytes)
        ));
    }
    if u32::from(args.quantity) > limits.quantity_max {
        return usage(format!(
            "--quantity {}: this server issues {} cards an order at most",
            args.quantity, limits.quantity_max
        ));
    }
    let allowed = limits.orders_in_flight_max as usize / batch;
    let wanted = args.pipeline() as usize;
    match pacing {
        Pacing::Closed if wanted > allowed => usage(format!(
            "--pipeline {wanted} × --batch {batch}: this server lets a connection have {} orders in flight at most",
            limits.orders_in_flight_max
        )),
        Pacing::Closed => Ok(wanted),
        Pacing::Open { .. } => Ok(OPEN_IN_FLIGHT_MAX.min(allowed).max(1)),
    }
}
