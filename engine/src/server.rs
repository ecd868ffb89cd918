//! The server: sockets, cores, and the life of the process around one engine.
//!
//! The only place that knows sockets and wire messages. Reading order: `core` (a thread's body: accepting, dealing,
//! answering), `connection` (bytes in, bytes out), `translate` (wire ⇄ domain), `control` (the cold requests).

pub mod connection;
pub mod control;
pub mod core;
pub mod feed;
pub mod ops;
mod placement;
pub mod translate;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::clock::{self, Clocks};
use crate::config::{Config, Cores};
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _};
use crate::expiry::Swept;
use crate::recovery::Report;
use crate::route::RouteTable;
use crate::state::Digest;
use crate::wal::log::Subscriber;
use core::CoreShared;

/// How long a stop waits for the last answers to go out. New orders are refused all the while, so a caller that keeps
/// sending would otherwise hold it up.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// How often the checkpointer looks for sealed segments.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked whether cards expire.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// How often it is said again that they cannot be taken out.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What a clean stop did.
#[derive(Debug)]
pub struct StopReport {
    /// State digest at the end.
    pub digest: Digest,
    /// Orders of the store.
    pub orders: u64,
    /// The LSN after the last record.
    pub end_lsn: u64,
    pub took: Duration,
}

/// A wake-up that threads wait for.
#[derive(Default)]
struct Flag {
    set: Mutex<bool>,
    told: Condvar,
}

impl Flag {
    fn raise(&self) {
        *self.set.lock().expect("no one panics with this lock") = true;
        self.told.notify_all();
    }

    /// Waits at most `limit`; true when raised.
    fn wait(&self, limit: Duration) -> bool {
        let set = self.set.lock().expect("no one panics with this lock");
        *self
            .told
            .wait_timeout_while(set, limit, |set| !*set)
            .expect("no one panics with this lock")
            .0
    }
}

/// A running server.
pub struct Server {
    engine: Arc<Engine>,
    cores: Arc<[Arc<CoreShared>]>,
    listen: SocketAddr,
    ops: SocketAddr,
    recovered: Report,
    stop: Arc<AtomicBool>,
    halted: Arc<Flag>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    cold: Mutex<Option<tokio::runtime::Runtime>>,
}

/// Recovers the store of `config`, starts every thread and returns once it listens.
pub fn start(config: Config) -> Result<Server, EngineError> {
    let cpus = allowed_cpus();
    let count = match config.cores {
        Cores::All => cpus.len() as u32,
        Cores::N(count) => count,
    };
    let cores: Arc<[Arc<CoreShared>]> = (0..count)
        .map(|_| Arc::new(CoreShared::new(config.lane_orders_max as usize)))
        .collect();
    let subscribers: Vec<Arc<Subscriber>> =
        cores.iter().map(|core| core.subscriber.clone()).collect();
    // Before the store is touched: a route table that will not do, or a taken port, changes nothing on disk.
    if let Some(path) = &config.routes {
        let text = std::fs::read_to_string(path).at("read", path)?;
        let parsed = RouteTable::parse(0, &text);
        parsed.map_err(|error| EngineError::Routes {
            path: path.clone(),
            what: error.to_string(),
        })?;
    }
    let (listeners, listen) = core::listen(config.listen, count)?;
    let (ops_listener, ops) = ops::listen(config.ops)?;
    let (engine, recovered) = Engine::open(config, count, subscribers)?;
    let engine = Arc::new(engine);
    if engine.config.routes.is_some() {
        engine.reload_routes()?;
    }
    let aside = Aside::of(&cpus, count);
    let cold = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(16)
        .thread_name("croupier-cold")
        .on_thread_start({
            let aside = aside.clone();
            move || aside.go()
        })
        .enable_all()
        .build()
        .at("start the cold threads for", &engine.config.data)?;
    let stop = Arc::new(AtomicBool::new(false));
    let halted = Arc::new(Flag::default());
    cold.spawn(ops::serve(ops_listener, engine.clone(), cores.clone()));
    let mut threads = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        let body = core::Body {
            index: index as u16,
            cpu: cpus[index % cpus.len()],
            engine: engine.clone(),
            cores: cores.clone(),
            listener,
            cold: cold.handle().clone(),
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("croupier-{index}"))
            .spawn(move || body.run());
        threads.push(thread.at("start a core's thread for", &engine.config.data)?);
    }
    threads.push(spawn_checkpointer(&engine, &halted, aside.clone())?);
    threads.push(spawn_sweeper(&engine, &halted, aside.clone())?);
    threads.push(spawn_keeper(&engine, &stop, aside)?);
    Ok(Server {
        engine,
        cores,
        listen,
        ops,
        recovered,
        stop,
        halted,
        threads: Mutex::new(threads),
        cold: Mutex::new(Some(cold)),
    })
}

/// CPUs this process may run on.
fn allowed_cpus() -> Vec<usize> {
    let set = sched_getaffinity(None);
    let cpus: Vec<usize> = set
        .map(|set| {
            (0..CpuSet::MAX_CPU)
                .filter(|&cpu| set.is_set(cpu))
                .collect()
        })
        .unwrap_or_default();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// The thread that makes memory for orders to come.
fn spawn_keeper(
    engine: &Arc<Engine>,
    stop: &Arc<AtomicBool>,
    aside: Aside,
) -> Result<JoinHandle<()>, EngineError> {
    let (state, stop) = (engine.state.clone(), stop.clone());
    std::thread::Builder::new()
        .name("croupier-room".into())
        .spawn(move || {
            aside.go();
            be_nice(5);
            state.index.keep_room(|| stop.load(Ordering::Acquire));
        })
        .at("start the keeper of room for", &engine.config.data)
}

/// Where threads run that no order waits for: on CPUs that are no core's, if there are any. A core that waits for the disk
/// leaves its CPU to others for a moment, and the system lets whoever takes it have it for milliseconds.
#[derive(Clone)]
struct Aside(Option<CpuSet>);

impl Aside {
    /// `cpus`: those of this process, the first of which are the cores'.
    fn of(cpus: &[usize], cores: u32) -> Aside {
        let rest = cpus.get(cores as usize..).unwrap_or_default();
        let mut set = CpuSet::new();
        rest.iter().for_each(|&cpu| set.set(cpu));
        Aside((!rest.is_empty()).then_some(set))
    }

    /// Has the calling thread run there.
    fn go(&self) {
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

fn spawn_checkpointer(
    engine: &Arc<Engine>,
    halted: &Arc<Flag>,
    aside: Aside,
) -> Result<JoinHandle<()>, EngineError> {
    let (engine, halted) = (engine.clone(), halted.clone());
    let dir = engine.config.data.clone();
    let body = move || {
        aside.go();
        // Orders come first; the fold still gets a third of a core that is wanted by both.
        be_nice(5);
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
    };
    std::thread::Builder::new()
        .name("croupier-fold".into())
        .spawn(body)
        .at("start the checkpointer for", &dir)
}

/// The thread that takes cards out of stock before they expire.
fn spawn_sweeper(
    engine: &Arc<Engine>,
    halted: &Arc<Flag>,
    aside: Aside,
) -> Result<JoinHandle<()>, EngineError> {
    let (engine, halted) = (engine.clone(), halted.clone());
    let dir = engine.config.data.clone();
    let body = move || {
        aside.go();
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
    };
    std::thread::Builder::new()
        .name("croupier-expiry".into())
        .spawn(body)
        .at("start the sweep of expired cards for", &dir)
}

impl Server {
    /// Where orders come in.
    pub fn local_addr(&self) -> SocketAddr {
        self.listen
    }

    /// Where operators ask.
    pub fn ops_addr(&self) -> SocketAddr {
        self.ops
    }

    /// What the start read.
    pub fn recovered(&self) -> &Report {
        &self.recovered
    }

    /// The engine, for embedding.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Reads the configured route table again; the new version, or `None` when it is in force already.
    pub fn reload_routes(&self) -> Result<Option<u32>, EngineError> {
        self.engine.reload_routes()
    }

    /// Blocks until the log's writer has failed; then says why. `None` when the server was stopped instead.
    pub fn wait_failed(&self) -> Option<EngineError> {
        loop {
            if let Some(why) = self.engine.log.failure() {
                return Some(EngineError::WriterFailed(why.into()));
            }
            if self.halted.wait(Duration::from_millis(100)) {
                return None;
            }
        }
    }

    /// Refuses new orders, answers those in flight, ends every thread, makes the log durable and a checkpoint of it.
    pub fn stop(&self) -> Result<StopReport, EngineError> {
        let begun = Instant::now();
        self.engine.draining.store(true, Ordering::Relaxed);
        self.cores.iter().for_each(|core| core.notify.notify_one());
        while begun.elapsed() < DRAIN_WAIT && self.cores.iter().any(|core| core.is_busy()) {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.stop.store(true, Ordering::Release);
        self.halted.raise();
        self.engine.state.index.call_keeper();
        self.cores.iter().for_each(|core| core.notify.notify_one());
        for thread in self
            .threads
            .lock()
            .expect("no one panics with this lock")
            .drain(..)
        {
            if thread.join().is_err() {
                return Err(EngineError::WriterFailed("a core's thread panicked".into()));
            }
        }
        self.engine.end_moves();
        if let Some(cold) = self
            .cold
            .lock()
            .expect("no one panics with this lock")
            .take()
        {
            cold.shutdown_timeout(Duration::from_secs(2));
        }
        self.engine.log.stop()?;
        // No one deals any more: what was folded must be what is live.
        let folded = self.engine.fold(true)?;
        let digest = self.engine.digest();
        if let Some(folded) = &folded
            && folded.digest != digest
        {
            let what = format!(
                "the live state ({digest}) is not what the log says ({})",
                folded.digest
            );
            return Err(EngineError::damage(&self.engine.config.data, 0, what));
        }
        let orders = self.engine.state.orders().orders;
        Ok(StopReport {
            digest,
            orders,
            end_lsn: self.engine.log.end(),
            took: begun.elapsed(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever ends after a failed write holds the last handle within a runtime of its own, where tokio lets no other
        // runtime be dropped: it panics, and the exit code says nothing any more.
        let cold = self.cold.get_mut().ok().and_then(Option::take);
        if let Some(cold) = cold {
            cold.shutdown_background();
        }
    }
}
