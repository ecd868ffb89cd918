//! The two workers that come with Croupier, over kills of the server: that of the client crate, and that of docs/examples in Python.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use croupier_client::{Issuer, Job, JobCard, JobFailure};
use croupier_tests::{PATIENCE, scaled};
use rustix::process::{Pid, Signal, kill_process};

use super::market::{Market, SKU, table, until};

/// What all workers of a test have made.
type Made = Arc<Mutex<Vec<Vec<u8>>>>;

/// A worker of the client crate that fails every fifth job, keeps every seventh beyond its lease, and brings too few or too many now and then.
async fn unreliable(market: &Market, channel: &str, made: &Made) -> Issuer {
    let client = market.server.client().await;
    let (oracle, mint, sku) = (Arc::clone(&market.oracle), market.mint(), market.sku);
    let made = Arc::clone(made);
    let asked = Arc::new(AtomicU64::new(0));
    let make = move |job: Job| {
        let (oracle, mint) = (Arc::clone(&oracle), Arc::clone(&mint));
        let (made, asked) = (Arc::clone(&made), Arc::clone(&asked));
        async move {
            let nth = asked.fetch_add(1, Ordering::Relaxed);
            match nth {
                _ if nth % 5 == 4 => return Err(JobFailure::for_now("no answer")),
                _ if nth % 7 == 6 => tokio::time::sleep(Duration::from_millis(120)).await,
                _ => {}
            }
            let count = match nth % 11 {
                9 => job.quantity - 1,
                10 => job.quantity + 1,
                _ => job.quantity,
            };
            let cards = mint
                .lock()
                .expect("no mint panics")
                .secrets(count.into(), 20);
            oracle.delivers(SKU, sku, &cards);
            made.lock().expect("nobody panics").extend(cards.clone());
            Ok(cards.into_iter().map(JobCard::from).collect())
        }
    };
    Issuer::builder(client, channel)
        .jobs_max(16)
        .wait(Duration::from_millis(500))
        .extend_up_to(Duration::ZERO)
        .start(make)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreliable_workers_fill_every_order_over_kills() {
    let mut market = Market::on_a_port(2_120, &table("60ms")).await;
    let made = Made::default();
    let mut workers = Vec::new();
    for channel in ["alpha", "alpha", "beta"] {
        workers.push(unreliable(&market, channel, &made).await);
    }
    for round in 0..scaled(3, 10) {
        for nth in 0..40 {
            market.order(1 + (nth % 3) as u16).await;
        }
        if round % 2 == 0 {
            market = market.killed().await;
        }
    }
    market.all_filled().await;
    let mut cards = 0;
    for worker in workers {
        let report = worker.stop(PATIENCE).await;
        assert!(report.error.is_none(), "{report:?}");
        assert_eq!(report.undelivered.len(), 0, "{report:?}");
        cards += report.counts.cards + report.counts.rejected;
    }
    // Each was delivered until the server had it, perhaps more than once.
    let made = made.lock().expect("nobody panics").clone();
    assert!(cards >= made.len() as u64);
    let made = made.iter().map(Vec::as_slice);
    market.oracle.delivered(SKU, made);
    market.close().await;
}

/// A Python worker. Dropped, it is killed.
struct Python(Child);

impl Python {
    /// `None` where there is no Python.
    fn start(market: &Market, more: &[&str]) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/issuer.py");
        let mut command = Command::new("python3");
        command
            .arg(script)
            .args(["alpha", "--server", &market.server.url()])
            .args(more);
        let started = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match started {
            Ok(child) => Some(Self(child)),
            Err(error) => {
                eprintln!("left out: python3 cannot be run ({error})");
                None
            }
        }
    }

    /// Ends it in good order; what it said on stdout.
    fn stop(mut self) -> String {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::INT).expect("a child can be signalled");
        let (stdout, stderr) = (self.0.stdout.take(), self.0.stderr.take());
        let said = std::io::read_to_string(stdout.expect("piped")).expect("a text");
        let log = std::io::read_to_string(stderr.expect("piped")).expect("a text");
        let status = self.0.wait().expect("a child can be waited for");
        assert!(status.success(), "{status}: {said}\n{log}");
        assert!(!log.contains("Traceback"), "{log}");
        said
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_in_python_fills_every_order_over_a_kill() {
    let mut market = Market::on_a_port(2_121, &table("300ms")).await;
    let codes = market.secrets(400);
    market.oracle.delivers(SKU, market.sku, &codes);
    let file = market.store.path("codes.txt");
    let lines = codes.iter().flat_map(|code| [&code[..], b"\n"].concat());
    std::fs::write(&file, lines.collect::<Vec<u8>>()).expect("a file can be written");
    let file = file.display().to_string();
    // Longer than a lease, so that leases are extended; the other channel has nobody.
    let args = [
        "--file",
        &file,
        "--jobs",
        "8",
        "--delay",
        "0.4",
        "--fail-share",
        "0.2",
    ];
    let Some(python) = Python::start(&market, &args) else {
        return;
    };
    for round in 0..2 {
        for nth in 0..12 {
            market.order(1 + (nth % 3)).await;
        }
        if round == 0 {
            until("it delivers", async || {
                market.oracle.look_up_all(&market.client).await;
                market.oracle.waited().1 > 0
            })
            .await;
            market = market.killed().await;
        }
    }
    market.all_filled().await;
    let said = python.stop();
    let count = |what: &str| -> u64 {
        let part = said
            .split(", ")
            .find(|part| part.trim_end().ends_with(what));
        let number = part.and_then(|part| part.split(' ').next());
        number
            .and_then(|number| number.parse().ok())
            .expect("a count")
    };
    assert!(count("failed") > 0 && count("cards") > 0, "{said}");
    // It takes code after code, and each is delivered until the server has it.
    let stock = crate::stock::stock(&market.client).await;
    assert!(
        count("cards") + count("rejected") >= stock.imported,
        "{said}"
    );
    assert!(stock.imported >= 48);
    let stocked = codes[..stock.imported as usize].iter();
    market.oracle.delivered(SKU, stocked.map(Vec::as_slice));
    std::fs::remove_file(&file).expect("it is there");
    market.close().await;
}

#[tokio::test]
async fn a_worker_in_python_of_no_channel_is_told_so() {
    let market = Market::with(2_122, "[[rule]]\n").await;
    let Some(mut python) = Python::start(&market, &[]) else {
        return;
    };
    let log = std::io::read_to_string(python.0.stderr.take().expect("piped"));
    assert_eq!(python.0.wait().expect("it ends").code(), Some(1));
    assert!(log.expect("a text").contains("refused as 55"));
    market.server.stop().ok();
}
