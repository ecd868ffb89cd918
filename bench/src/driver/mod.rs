//! Sends the orders and reads the answers: a few threads, each with its connections, one epoll and no runtime.
//!
//! The generator shares the machine with the server, so it must cost little: whole pipelines are encoded into one
//! write, answers are judged where the kernel put them, the clock is read once per read, and nothing is allocated per
//! order. Open and closed loop differ only in when a request is sent: at its intended time, or when a slot is free.

mod desk;
mod in_flight;
pub(crate) mod poller;
mod sender;
pub(crate) mod wire;
mod worker;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::machine::cpu_seconds;
use crate::oracle::Oracle;
use crate::progress::{Gauge, Progress};
use crate::recorder::{Recorder, Window};
use crate::schedule::Arrivals;
use crate::stock::{Budget, SecretShape};
use crate::workload::{Holding, Mix, Workload};

use worker::Worker;

/// Between the start of the threads and the first order, so that all of them are there.
const LEAD_TIME: Duration = Duration::from_millis(20);

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pacing {
    /// As soon as one before it is answered.
    Closed,
    /// At intended times, whatever the answers do.
    Open {
        /// All threads together.
        orders_per_s: f64,
        /// How the times follow each other.
        arrivals: Arrivals,
    },
}

/// What the threads are to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// When requests are sent.
    pub pacing: Pacing,
    /// Orders in a request.
    pub batch: u16,
    /// Requests of one connection that may await their answer.
    pub in_flight_max: usize,
    /// Shares of operations.
    pub mix: Mix,
    /// Orders are reserved, not issued.
    pub holding: Option<Holding>,
    /// The number of the priority all orders have.
    pub priority: u8,
    /// Loaded, judged and not counted.
    pub warmup: Duration,
    /// Loaded, judged and counted.
    pub duration: Duration,
    /// How long answers are waited for when nothing is sent any more.
    pub drain: Duration,
    /// Decides mix and arrivals.
    pub seed: u64,
    /// Threads that share the connections.
    pub threads: usize,
    /// What is ordered.
    pub workload: Arc<Workload>,
    /// How secrets look.
    pub shape: SecretShape,
    /// What the stock is good for.
    pub budget: Arc<Budget>,
    /// SKUs of the workload.
    pub skus: usize,
    /// The first sequence number; a run of several steps gives each one numbers of its own.
    pub first_sequence: u64,
    /// The server's process, if its CPU time can be read.
    pub server_pid: Option<u32>,
}

/// What came of it.
#[derive(Debug)]
pub struct Driven {
    /// Counts and latencies.
    pub recorder: Recorder,
    /// The run ended early because its stock was used up.
    pub stock_used_up: bool,
    /// Cores that this process kept busy in the counted window.
    pub generator_cores: f64,
    /// Cores that the server kept busy in the counted window.
    pub server_cores: Option<f64>,
}

/// The run's clock: nanoseconds since it began, the same for all threads.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time now.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// What the threads of one run share.
#[derive(Debug)]
struct Shared {
    clock: Clock,
    /// Nothing new is sent from here on. Moved forward by the thread that finds the stock used up.
    stop_ns: AtomicU64,
    stock_used_up: AtomicBool,
    /// A thread failed: the rest give up too.
    failed: AtomicBool,
}

/// Drives `streams` (each has said Hello) as planned, and returns when all is answered or given up: the figures, and
/// the judge of all answers.
pub fn drive(
    plan: &Plan,
    streams: Vec<TcpStream>,
    progress: &mut Progress,
) -> Result<(Driven, Oracle), BenchError> {
    assert!(!streams.is_empty() && plan.threads >= 1);
    let threads = plan.threads.min(streams.len());
    let clock = Clock::start();
    let start_ns = clock.now_ns() + LEAD_TIME.as_nanos() as u64;
    let measure_ns = start_ns + plan.warmup.as_nanos() as u64;
    let end_ns = measure_ns + plan.duration.as_nanos() as u64;
    let shared = Shared {
        clock,
        stop_ns: AtomicU64::new(end_ns),
        stock_used_up: AtomicBool::new(false),
        failed: AtomicBool::new(false),
    };
    let window = match plan.pacing {
        Pacing::Closed => Window::Received,
        Pacing::Open { .. } => Window::Intended,
    };
    let mut by_thread: Vec<Vec<(usize, TcpStream)>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, stream) in streams.into_iter().enumerate() {
        by_thread[number % threads].push((number, stream));
    }
    let gauges: Vec<Gauge> = (0..threads).map(|_| Gauge::default()).collect();

    thread::scope(|scope| {
        let mut handles = Vec::with_capacity(threads);
        for (thread, streams) in by_thread.into_iter().enumerate() {
            let (shared, gauge) = (&shared, &gauges[thread]);
            let recorder = Recorder::new(window, measure_ns, end_ns);
            handles.push(scope.spawn(move || {
                let share = worker::Share {
                    thread,
                    threads,
                    start_ns,
                };
                let result = Worker::new(plan, shared, share, streams, recorder)
                    .and_then(|worker| worker.run(gauge));
                if result.is_err() {
                    // Relaxed: only a hint to stop; the error itself goes through `join`.
                    shared.failed.store(true, Ordering::Relaxed);
                }
                result
            }));
        }
        let cores = watch(plan, &shared, &gauges, progress, measure_ns, || {
            handles.iter().all(|handle| handle.is_finished())
        });
        let mut results = handles
            .into_iter()
            .map(|handle| handle.join().expect("a worker does not panic"));
        let (mut recorder, mut oracle) = results.next().expect("there is at least one thread")?;
        for result in results {
            let (other_recorder, other_oracle) = result?;
            recorder.absorb(other_recorder);
            oracle.absorb(other_oracle);
        }
        // Relaxed: every thread that stored it has been joined.
        let stock_used_up = shared.stock_used_up.load(Ordering::Relaxed);
        let driven = Driven {
            recorder,
            stock_used_up,
            generator_cores: cores.0.unwrap_or(0.0),
            server_cores: cores.1,
        };
        Ok((driven, oracle))
    })
}

/// Draws progress and measures the cores that generator and server keep busy, until `finished`.
fn watch(
    plan: &Plan,
    shared: &Shared,
    gauges: &[Gauge],
    progress: &mut Progress,
    measure_ns: u64,
    finished: impl Fn() -> bool,
) -> (Option<f64>, Option<f64>) {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let own_pid = std::process::id();
    let sample = || {
        (
            shared.clock.now_ns(),
            cpu_seconds(own_pid),
            plan.server_pid.and_then(cpu_seconds),
        )
    };
    let (mut first, mut last) = (None, None);
    while !finished() {
        thread::sleep(LOOK_EVERY);
        progress.show(gauges);
        let now_ns = shared.clock.now_ns();
        if first.is_none() && now_ns >= measure_ns {
            first = Some(sample());
        }
        // Relaxed: a moment's delay only moves the sample.
        if last.is_none() && now_ns >= shared.stop_ns.load(Ordering::Relaxed) {
            last = Some(sample());
        }
    }
    let (Some(first), Some(last)) = (first, last.or_else(|| Some(sample()))) else {
        return (None, None);
    };
    let seconds = last.0.saturating_sub(first.0) as f64 / 1e9;
    let cores = |from: Option<f64>, to: Option<f64>| {
        Some((to? - from?) / seconds).filter(|cores| cores.is_finite())
    };
    (cores(first.1, last.1), cores(first.2, last.2))
}
