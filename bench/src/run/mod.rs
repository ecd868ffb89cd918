//! `croupier-bench run`: loads one server and says how it did.
//!
//! Server, stock, load, look-ups of the sample, report: in this order, and nothing of it overlaps.

mod args;
mod stocking;
mod target;

use std::sync::Arc;
use std::time::Duration;

use croupier_protocol::{FRAME_HEADER_BYTES, HelloReply, IssueItem};

pub use args::{Mode, RunArgs, ServerArgs, Step};
pub use target::Target;

use crate::driver::{Driven, Pacing, Plan, drive};
use crate::error::BenchError;
use crate::machine::Machine;
use crate::oracle::{Oracle, OracleReport};
use crate::progress::Progress;
use crate::report::{LoadFacts, RunReport, StepReport, Verdict};
use crate::stock::SecretShape;
use crate::workload::Workload;

use stocking::{Stocking, open_orders};

/// Requests an open loop lets one connection have in flight, unless the server's limit is lower.
const OPEN_IN_FLIGHT_MAX: usize = 4096;
/// Length of the closed loop that finds out how much stock a closed loop needs.
const PROBE: Duration = Duration::from_millis(700);
/// Orders the probe has stock for.
const PROBE_ORDERS: f64 = 1_000_000.0;
/// A warm server is faster than a probed one.
const PROBE_MARGIN: f64 = 1.5;

/// A run and all it needs.
struct Run<'a> {
    args: &'a RunArgs,
    target: &'a Target,
    stocking: Stocking<'a>,
    run_id: u128,
    in_flight_max: usize,
    next_sequence: u64,
    oracle: Option<Oracle>,
}

/// Loads the server that the flags name and reports.
pub fn run(args: &RunArgs) -> Result<RunReport, BenchError> {
    args.check()?;
    let target = Target::open(&args.server)?;
    target.explain(run_against(args, &target))
}

/// As [`run`], with a server that is there already.
pub fn run_against(args: &RunArgs, target: &Target) -> Result<RunReport, BenchError> {
    let mut control = target.control()?;
    let limits = *control.limits();
    let in_flight_max = check_limits(args, &limits)?;
    let server = control.server_info()?;
    let run_id = uuid::Uuid::new_v4().as_u128();
    let shape = SecretShape::new(run_id, usize::from(args.secret_bytes));
    let stocking = Stocking::new(args, control, shape)?;
    let mut run = Run {
        args,
        target,
        stocking,
        run_id,
        in_flight_max,
        next_sequence: 0,
        oracle: None,
    };

    run.stock_up()?;
    let mut steps = Vec::new();
    for step in args.steps() {
        steps.push(run.step(step)?);
    }
    let mut control = target.control()?;
    let oracle = match run.oracle.as_mut() {
        Some(oracle) => {
            oracle.look_samples_up(&mut control)?;
            oracle.report().clone()
        }
        None => OracleReport::default(),
    };
    let verdict = Verdict::of(&steps, &oracle, args.p99_limit());
    Ok(RunReport {
        machine: Machine::detect(),
        server: target.facts(&server),
        load: LoadFacts::new(args, run.run_id),
        import: run.stocking.report(),
        steps,
        oracle,
        verdict,
    })
}

impl Run<'_> {
    fn stock_up(&mut self) -> Result<(), BenchError> {
        let args = self.args;
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

    /// A short closed loop, to know how many orders the real one will issue.
    fn probe(&mut self) -> Result<f64, BenchError> {
        self.stocking.import_for(PROBE_ORDERS)?;
        let probe = Step {
            pacing: Pacing::Closed,
            warmup: Duration::ZERO,
            duration: PROBE,
        };
        let driven = self.drive(probe, "probe")?;
        let mut recorder = driven.recorder;
        let issued = recorder.operation(crate::recorder::Operation::Issue).orders;
        let per_s = issued as f64 / recorder.measured_s();
        let [step] = self.args.steps()[..] else {
            unreachable!("a closed loop is one step")
        };
        let in_flight = self.args.connections() * self.in_flight_max * usize::from(self.args.batch);
        Ok(
            per_s * PROBE_MARGIN * (step.warmup + step.duration).as_secs_f64()
                + 2.0 * in_flight as f64,
        )
    }

    fn step(&mut self, step: Step) -> Result<StepReport, BenchError> {
        let what = match step.pacing {
            Pacing::Closed => "closed loop".to_string(),
            Pacing::Open { orders_per_s, .. } => format!(
                "open loop, {} orders/s",
                crate::units::grouped(orders_per_s as u64)
            ),
        };
        let driven = self.drive(step, &what)?;
        Ok(StepReport::new(step, driven))
    }

    fn drive(&mut self, step: Step, what: &str) -> Result<Driven, BenchError> {
        let args = self.args;
        let workload = Workload::new(
            args.seed,
            self.run_id,
            self.stocking.sku_ids().to_vec(),
            args.hot_share,
            args.quantity,
        );
        let plan = Plan {
            pacing: step.pacing,
            batch: args.batch,
            in_flight_max: self.in_flight_max,
            mix: args.mix,
            priority: args.priority as u8,
            warmup: step.warmup,
            duration: step.duration,
            drain: args.drain,
            seed: args.seed,
            threads: usize::from(args.threads),
            workload: Arc::new(workload),
            shape: self.stocking.shape().clone(),
            budget: self.stocking.budget(),
            skus: args.skus as usize,
            first_sequence: self.next_sequence,
            server_pid: self.target.pid(),
        };
        // Threads use the bits from 40 on, see `Sender`; steps those from 52 on.
        self.next_sequence += 1 << 52;
        let streams = self.target.streams(args.connections())?;
        let (driven, oracle) = drive(&plan, streams, &mut Progress::new(what))?;
        match self.oracle.as_mut() {
            Some(all) => all.absorb(oracle),
            None => self.oracle = Some(oracle),
        }
        Ok(driven)
    }
}

/// Compares what is asked for with what the server allows; returns how many requests a connection may have in flight.
fn check_limits(args: &RunArgs, limits: &HelloReply) -> Result<usize, BenchError> {
    let usage = |text| Err(BenchError::Usage(text));
    let batch = usize::from(args.batch);
    let frame_bytes = FRAME_HEADER_BYTES + batch * IssueItem::BYTES;
    if batch > limits.orders_per_frame_max as usize || frame_bytes > limits.frame_bytes_max as usize
    {
        return usage(format!(
            "--batch {batch} makes a frame of {frame_bytes} bytes; this server takes {} orders and {} bytes at most",
            limits.orders_per_frame_max, limits.frame_bytes_max
        ));
    }
    if u32::from(args.quantity) > limits.quantity_max {
        return usage(format!(
            "--quantity {}: this server issues {} cards an order at most",
            args.quantity, limits.quantity_max
        ));
    }
    let allowed = limits.orders_in_flight_max as usize / batch;
    let wanted = args.pipeline as usize;
    match args.mode() {
        Mode::Closed if wanted > allowed => usage(format!(
            "--pipeline {wanted} × --batch {batch}: this server lets a connection have {} orders in flight at most",
            limits.orders_in_flight_max
        )),
        Mode::Closed => Ok(wanted),
        Mode::Open | Mode::Sweep => Ok(OPEN_IN_FLIGHT_MAX.min(allowed).max(1)),
    }
}
