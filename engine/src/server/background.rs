//! Threads of a server that no order waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use super::Flag;
use super::core::{CoreShared, MEASURE_EVERY};
use crate::clock::{self, Clocks};
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _};
use crate::expiry::Swept;
use crate::route::LoadParts;
use crate::state::record::RECORD_UNIT_BYTES;

/// How often the checkpointer looks for sealed segments.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked whether cards expire.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether cards that are dealt without end need more uses.
const USES_EVERY: Duration = Duration::from_millis(100);
/// How often it is said again that they cannot be taken out.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How nice threads are that take much of a CPU. Orders come first; a fold still gets a third of one that is wanted by both.
const NICE: i32 = 5;

/// What these threads share.
pub struct Background {
    pub engine: Arc<Engine>,
    pub cores: Arc<[Arc<CoreShared>]>,
    /// Raised when the cores are to end.
    pub stop: Arc<AtomicBool>,
    /// Raised when everything is to end.
    pub halted: Arc<Flag>,
    pub aside: Aside,
}

impl Background {
    /// Starts all of them.
    pub fn spawn_all(&self, threads: &mut Vec<JoinHandle<()>>) -> Result<(), EngineError> {
        let (engine, halted) = (self.engine.clone(), self.halted.clone());
        threads.push(self.spawn("croupier-fold", Some(NICE), move || {
            make_checkpoints(&engine, &halted);
        })?);
        let (engine, halted) = (self.engine.clone(), self.halted.clone());
        threads.push(self.spawn("croupier-expiry", None, move || {
            sweep(&engine, &halted);
        })?);
        let (engine, halted) = (self.engine.clone(), self.halted.clone());
        threads.push(self.spawn("croupier-uses", None, move || {
            add_uses(&engine, &halted);
        })?);
        let (engine, halted) = (self.engine.clone(), self.halted.clone());
        let cores = self.cores.clone();
        threads.push(self.spawn("croupier-load", None, move || {
            measure_load(&engine, &cores, &halted);
        })?);
        let (engine, halted) = (self.engine.clone(), self.halted.clone());
        threads.push(self.spawn("croupier-channels", None, move || {
            engine.follow_channels(|| halted.wait(Duration::ZERO));
        })?);
        // Makes memory for orders to come.
        let (state, stop) = (self.engine.state.clone(), self.stop.clone());
        threads.push(self.spawn("croupier-room", Some(NICE), move || {
            state.index.keep_room(|| stop.load(Ordering::Acquire));
        })?);
        Ok(())
    }

    fn spawn(
        &self,
        name: &str,
        nice: Option<i32>,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, EngineError> {
        let (aside, engine) = (self.aside.clone(), self.engine.clone());
        let what = format!("the thread {name} panicked");
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                aside.go();
                nice.into_iter().for_each(be_nice);
                // As of a core's thread: a server that does one of its duties no more is to end, and to be started again.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
                    engine.log.fail(&what);
                }
            })
            .at("start a background thread for", &self.engine.config.data)
    }
}

/// Where threads run that no order waits for: on CPUs that are no core's, if there are any. A core that waits for the disk
/// leaves its CPU to others for a moment, and the system lets whoever takes it have it for milliseconds.
#[derive(Clone)]
pub struct Aside(Option<CpuSet>);

impl Aside {
    /// `cpus`: those of this process, the first of which are the cores'.
    pub fn of(cpus: &[usize], cores: u32) -> Aside {
        let rest = cpus.get(cores as usize..).unwrap_or_default();
        let mut set = CpuSet::new();
        rest.iter().for_each(|&cpu| set.set(cpu));
        Aside((!rest.is_empty()).then_some(set))
    }

    /// Has the calling thread run there.
    pub fn go(&self) {
        if let Some(set) = &self.0
            && let Err(error) = sched_setaffinity(None, set)
        {
            tracing::debug!(%error, "a thread runs where cores do");
        }
    }
}

/// Lets other threads go before the calling one.
fn be_nice(nice: i32) {
    let me = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(me), nice) {
        tracing::debug!(%error, nice, "a thread keeps its priority");
    }
}

/// Folds sealed segments into checkpoints.
fn make_checkpoints(engine: &Engine, halted: &Flag) {
    // Segments that were sealed before this start count, too.
    let mut folded_before = engine.first_segment();
    while !halted.wait(CHECKPOINT_EVERY) {
        let in_use = engine.log.segment_in_use();
        if in_use - folded_before < u64::from(engine.config.checkpoint_segments) {
            continue;
        }
        match engine.fold(false) {
            Ok(Some(folded)) => {
                tracing::info!(records = folded.records, orders = folded.orders, took = ?folded.took, "checkpoint made");
            }
            Ok(None) => {}
            // The store goes on without: the log simply stays longer.
            Err(error) => tracing::error!(%error, "no checkpoint could be made"),
        }
        folded_before = in_use;
    }
}

/// Takes cards out of stock before they expire.
fn sweep(engine: &Engine, halted: &Flag) {
    let mut clocks = Clocks::now();
    // What was said last, and when: a disk that stays full is no news.
    let mut said: Option<(String, Instant)> = None;
    while !halted.wait(SWEEP_EVERY) {
        let jumped_ms = clocks.jumped_ms();
        let now = clock::unix_ms();
        if !engine.is_sweep_due(now) || engine.cannot_record().is_some() {
            continue;
        }
        let what = match jumped_ms {
            Some(ahead_ms) => format!(
                "the clock has gone ahead by {} s since this server began: cards that have expired by it are not dealt, and \
                 not taken out of stock, which would be for good; set the clock right, or restart the server if it is right",
                ahead_ms / 1000
            ),
            None => match engine.sweep_expired(now) {
                Ok(swept) if swept == Swept::default() => continue,
                Ok(Swept { cards, holds }) => {
                    tracing::info!(cards, holds, "cards that expire have left stock");
                    continue;
                }
                Err(refused) => {
                    format!("cards that expire are still in stock: {}", refused.text)
                }
            },
        };
        let is_news = said.as_ref().is_none_or(|(before, since)| {
            *before != what && since.elapsed() > SAY_AGAIN / 10 || since.elapsed() > SAY_AGAIN
        });
        if is_news {
            tracing::error!("{what}");
            said = Some((what, Instant::now()));
        }
    }
}

/// Has the route table follow the load, and the canary judged.
fn measure_load(engine: &Engine, cores: &[Arc<CoreShared>], halted: &Flag) {
    let wanted = || cores.iter().map(|core| core.wanted_ns()).sum::<u64>();
    let (mut measured, mut before) = (Instant::now(), wanted());
    while !halted.wait(MEASURE_EVERY) {
        let (now, wanted_now) = (Instant::now(), wanted());
        let since = now - measured;
        let most_ns = since.as_nanos() as f64 * cores.len() as f64;
        let depths = cores.iter().flat_map(|core| core.queues.lanes.depths());
        let log = &engine.log;
        let backlog = log.end().saturating_sub(log.durable()) * RECORD_UNIT_BYTES as u64;
        let parts = LoadParts {
            lanes: depths.max().unwrap_or(0) as f64 / f64::from(engine.config.lane_orders_max),
            cores: wanted_now.saturating_sub(before) as f64 / most_ns,
            log: backlog as f64 / engine.config.ring_bytes as f64,
        };
        engine.follow_load(clock::unix_ms(), parts, since);
        engine.follow_canary(since);
        (measured, before) = (now, wanted_now);
    }
}

/// Gives cards that are dealt without end more uses.
fn add_uses(engine: &Engine, halted: &Flag) {
    let mut said: Option<Instant> = None;
    while !halted.wait(USES_EVERY) {
        if engine.cannot_record().is_some() {
            continue;
        }
        match engine.add_uses(clock::unix_ms()) {
            Ok(0) => {}
            Ok(uses) => tracing::info!(uses, "cards that are dealt without end have more uses"),
            Err(refused) if said.is_none_or(|since| since.elapsed() > SAY_AGAIN) => {
                let why = refused.text;
                tracing::error!(%why, "cards that are dealt without end have few uses left");
                said = Some(Instant::now());
            }
            Err(_) => {}
        }
    }
}
