//! A worker of an issuer: `cargo run -p croupier-client --example issuer -- CHANNEL [OPTION…]`.
//!
//! It makes a code for each card that is wanted, or takes the next line of a file, and delivers it. The other options make it as slow
//! and unreliable as suppliers are. It ends with Ctrl-C, and finishes what is under way.
//!
//! * `--server URL`: default `croupier://127.0.0.1:7733`
//! * `--worker NAME`: default the channel's name
//! * `--jobs N`: most jobs at a time; default 16
//! * `--file FILE`: codes, one on a line; when it is used up, jobs fail
//! * `--delay MS`: how long a job takes
//! * `--fail-share F`: share of jobs that fail for now, 0 to 1

use std::io::{BufRead as _, BufReader};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use croupier_client::{Client, Error, Issuer, IssuerReport, Job, JobCard, JobFailure, OrderId};

/// How long jobs under way have at the end.
const PATIENCE: Duration = Duration::from_secs(30);

struct Options {
    channel: String,
    server: String,
    worker: String,
    jobs: u32,
    file: Option<String>,
    delay: Duration,
    fail_share: f64,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let channel = args.next().filter(|channel| !channel.starts_with("--"));
        let channel = channel.ok_or("usage: issuer CHANNEL [--server URL] [--worker NAME] [--jobs N] [--file FILE] [--delay MS] [--fail-share F]")?;
        let mut options = Self {
            server: "croupier://127.0.0.1:7733".to_owned(),
            worker: channel.clone(),
            channel,
            jobs: 16,
            file: None,
            delay: Duration::ZERO,
            fail_share: 0.0,
        };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or(format!("{flag} needs a value"))?;
            let number = || format!("{flag} needs a number, not {value:?}");
            match &flag[..] {
                "--server" => options.server = value,
                "--worker" => options.worker = value,
                "--file" => options.file = Some(value),
                "--jobs" => options.jobs = value.parse().map_err(|_| number())?,
                "--delay" => {
                    options.delay = Duration::from_millis(value.parse().map_err(|_| number())?);
                }
                "--fail-share" => options.fail_share = value.parse().map_err(|_| number())?,
                _ => return Err(format!("there is no option {flag}")),
            }
        }
        Ok(options)
    }
}

/// Where codes come from.
enum Codes {
    /// Made as they are wanted. Never the same twice: one that is stock already fills nobody's order.
    Made,
    File(Mutex<BufReader<std::fs::File>>),
}

impl Codes {
    fn open(path: Option<&str>) -> Result<Self, String> {
        let Some(path) = path else {
            return Ok(Self::Made);
        };
        let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
        Ok(Self::File(Mutex::new(BufReader::new(file))))
    }

    /// `None`: there are no more.
    fn next(&self) -> Option<JobCard> {
        let Self::File(file) = self else {
            return Some(OrderId::new_v7().to_string().into());
        };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = String::new();
        let read = file.read_line(&mut line).ok()?;
        let code = line.trim_end_matches(['\r', '\n']).to_owned();
        (read > 0).then(|| code.into())
    }
}

/// The supplier behind the worker.
struct Supplier {
    codes: Codes,
    delay: Duration,
    fail_share: f64,
    asked: AtomicU64,
}

impl Supplier {
    async fn make(&self, job: &Job) -> Result<Vec<JobCard>, JobFailure> {
        tokio::time::sleep(self.delay).await;
        // Evenly spread: the n-th fails when n × share passes a whole number.
        let nth = self.asked.fetch_add(1, Ordering::Relaxed);
        let failed = |jobs: u64| (jobs as f64 * self.fail_share) as u64;
        if failed(nth + 1) > failed(nth) {
            return Err(JobFailure::for_now("the supplier does not answer"));
        }
        let cards: Vec<_> = (0..job.quantity).map_while(|_| self.codes.next()).collect();
        match cards.is_empty() {
            // What there is is delivered, also if it is not enough.
            false => Ok(cards),
            true => Err(JobFailure::for_now("the supplier is sold out")),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let codes = match Codes::open(options.file.as_deref()) {
        Ok(codes) => codes,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match work(options, codes).await {
        Ok(report) => told(&report),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if matches!(error, Error::Unreachable { .. }) {
                4
            } else {
                1
            })
        }
    }
}

async fn work(options: Options, codes: Codes) -> Result<IssuerReport, Error> {
    let client = Client::connect(&options.server).await?;
    let supplier = Arc::new(Supplier {
        codes,
        delay: options.delay,
        fail_share: options.fail_share,
        asked: AtomicU64::new(0),
    });
    let issuer = Issuer::builder(client, options.channel)
        .worker(options.worker)
        .jobs_max(options.jobs)
        .start(move |job| {
            let supplier = Arc::clone(&supplier);
            async move { supplier.make(&job).await }
        });
    tokio::select! {
        () = issuer.ended() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(issuer.stop(PATIENCE).await)
}

fn told(report: &IssuerReport) -> ExitCode {
    let counts = &report.counts;
    println!(
        "{} jobs, {} cards delivered, {} rejected, {} jobs failed, {} over before they were done",
        counts.jobs, counts.cards, counts.rejected, counts.failed, counts.late
    );
    for undelivered in &report.undelivered {
        eprintln!("not delivered: {undelivered}");
    }
    match &report.error {
        None => ExitCode::SUCCESS,
        Some(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
