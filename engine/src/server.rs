//! The server: sockets, cores, and the life of the process around one engine.
//!
//! The only place that knows sockets and wire messages. Reading order: `core` (a thread's body: accepting, dealing,
//! answering), `connection` (bytes in, bytes out), `translate` (wire ⇄ domain), `control` (the cold requests), `background` (threads that
//! no order waits for).

mod background;
pub mod connection;
pub mod control;
pub mod core;
pub mod feed;
mod jobs;
mod metrics;
pub mod ops;
mod placement;
pub mod translate;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::channels::upstream;
use crate::config::{Config, Cores};
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _};
use crate::recovery::Report;
use crate::route::RouteTable;
use crate::state::Digest;
use crate::wal::log::Subscriber;
use background::{Aside, Background};
use core::CoreShared;

/// How long a stop waits for the last answers to go out. New orders are refused all the while, so a caller that keeps
/// sending would otherwise hold it up.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

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
        engine.reload_routes(true)?;
    }
    let background = Background {
        engine: engine.clone(),
        cores: cores.clone(),
        stop: Arc::default(),
        halted: Arc::default(),
        aside: Aside::of(&cpus, count),
    };
    let cold = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(16)
        .thread_name("croupier-cold")
        .on_thread_start({
            let aside = background.aside.clone();
            move || aside.go()
        })
        .enable_all()
        .build()
        .at("start the cold threads for", &engine.config.data)?;
    cold.spawn(ops::serve(ops_listener, engine.clone(), cores.clone()));
    cold.spawn(upstream::follow(engine.clone()));
    let mut threads = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        let body = core::Body {
            index: index as u16,
            cpu: cpus[index % cpus.len()],
            engine: engine.clone(),
            cores: cores.clone(),
            listener,
            cold: cold.handle().clone(),
            stop: background.stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("croupier-{index}"))
            .spawn(move || body.run());
        threads.push(thread.at("start a core's thread for", &engine.config.data)?);
    }
    background.spawn_all(&mut threads)?;
    let Background { stop, halted, .. } = background;
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
        self.engine.reload_routes(false)
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
