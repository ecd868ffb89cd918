//! Power cuts under load: a store on a disk that logs what was made durable when, cut at many moments, and the one
//! [`Oracle`] for each disk that such a cut may leave.
//!
//! Wants to be root on a machine of its own: see `tests/power-cut`, which boots one. A cut is a mark in the write log
//! ([`write_log`]); what was acknowledged before the mark was set must be on the disk of that moment.

pub mod write_log;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use croupier_client::{Client, Order, OrderId, SkuId};
use thiserror::Error;

use crate::matrix::stage::{SEGMENT_BYTES, store_in};
use crate::{Dice, Mint, Oracle, Store, croupier};
use write_log::WriteLog;

/// Name of the device that logs.
const DEVICE: &str = "croupier-cut";
const LOADERS: usize = 3;
const SECRET_BYTES: usize = 24;
const CARDS_AT_FIRST: usize = 30_000;
/// Cards of each import while orders are dealt.
const CARDS_MORE: usize = 200;

/// Disks and numbers of a run, as they are given on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// The disk that the store lies on; all on it is lost
    #[arg(long, value_name = "DEVICE")]
    pub disk: PathBuf,
    /// The disk that the log of writes goes to; all on it is lost
    #[arg(long, value_name = "DEVICE")]
    pub log: PathBuf,
    /// A disk as large as the first, for what a cut leaves; all on it is lost
    #[arg(long, value_name = "DEVICE")]
    pub scratch: PathBuf,
    /// Where file systems may be mounted
    #[arg(long, value_name = "DIR")]
    pub mounts: PathBuf,
    /// How many cuts
    #[arg(long, default_value_t = 50)]
    pub cuts: usize,
    /// Of all that is random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Serve with --unsafe-no-sync: then orders must get lost, or these cuts would show nothing
    #[arg(long)]
    pub unsafe_no_sync: bool,
}

/// Why there are no power cuts.
#[derive(Debug, Error)]
pub enum Problem {
    /// A program of the system that does not do its part.
    #[error("{what}: {why}")]
    Tool {
        /// The command.
        what: String,
        /// What it said.
        why: String,
    },
    /// A disk that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The disk.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl Problem {
    fn disk(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        |source| Self::Disk {
            path: path.to_owned(),
            source,
        }
    }
}

/// A cut whose disk was checked.
#[derive(Debug, Clone, Copy)]
pub struct Checked {
    /// Orders that were acknowledged before the cut.
    pub acknowledged: usize,
    /// Orders that stand after it.
    pub found: usize,
    /// Sectors that were on their way.
    pub sectors_in_flight: u64,
    /// Those of them that the disk kept.
    pub sectors_kept: u64,
}

/// Orders and imports while the power is cut again and again; the books as each cut leaves them.
///
/// # Errors
/// If a tool or disk does not do its part.
///
/// # Panics
/// If an answer cannot be.
pub async fn load_and_cut(plan: &Plan) -> Result<Vec<Oracle>, Problem> {
    let mut dice = Dice::new(plan.seed);
    let sectors = tool("blockdev", &["--getsz", &text(&plan.disk)])?;
    let (disk, log) = (text(&plan.disk), text(&plan.log));
    let table = format!("0 {} log-writes {disk} {log}", sectors.trim());
    tool("dmsetup", &["create", DEVICE, "--table", &table])?;
    let device = format!("/dev/mapper/{DEVICE}");
    tool(
        "mkfs.ext4",
        &[
            "-q",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            &device,
        ],
    )?;
    let home = plan.mounts.join("live");
    mounted(Path::new(&device), &home)?;

    let mut store = store_in(&home).with("--checkpoint-segments", 1);
    if plan.unsafe_no_sync {
        store = store.with_switch("--unsafe-no-sync");
    }
    croupier(store.init_args(SEGMENT_BYTES)).ok();
    let server = store.serve();
    let client = server.client().await;
    let (oracle, mut mint) = (Arc::new(Oracle::new()), Mint::new(70));
    let secrets = mint.secrets(CARDS_AT_FIRST, SECRET_BYTES);
    let sku = oracle
        .import(&client, "cards", &secrets)
        .await
        .expect("nobody disturbs");
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..LOADERS {
        let client = server.client().await;
        let loader = load(oracle.clone(), client, sku, dice.fork(), over.clone());
        tasks.push(tokio::spawn(loader));
    }
    tasks.push(tokio::spawn(import(
        oracle.clone(),
        client,
        mint,
        over.clone(),
    )));
    let cutter = server.client().await;
    let mut books = Vec::new();
    for number in 0..plan.cuts {
        tokio::time::sleep(Duration::from_millis(dice.within(30..300))).await;
        let before = oracle.fork();
        let mark = format!("cut-{number}");
        let marked = tokio::task::spawn_blocking(move || {
            tool("dmsetup", &["message", DEVICE, "0", "mark", &mark])
        });
        marked.await.expect("no panic")?;
        // A flush that began after the mark has now ended it: what the log has between the two was asked before here.
        oracle
            .deal(&cutter, Order::new(OrderId::new_v7(), sku))
            .await;
        books.push(Oracle::cut(&before, &oracle.fork()));
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("answers are as they must be");
    }
    server.kill();
    tool("umount", &[&text(&home)])?;
    tool("dmsetup", &["remove", DEVICE])?;
    Ok(books)
}

async fn load(
    oracle: Arc<Oracle>,
    client: Client,
    sku: SkuId,
    mut dice: Dice,
    over: Arc<AtomicBool>,
) {
    while !over.load(Ordering::Relaxed) {
        let new =
            |dice: &mut Dice| Order::new(OrderId::new_v7(), sku).quantity(dice.within(1..3) as u16);
        let orders: Vec<_> = (0..dice.within(1..8)).map(|_| new(&mut dice)).collect();
        oracle.issue(&client, &orders).await;
    }
}

/// Each into a SKU of its own, so that at most one import of a SKU is ever in doubt.
async fn import(oracle: Arc<Oracle>, client: Client, mut mint: Mint, over: Arc<AtomicBool>) {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let secrets = mint.secrets(CARDS_MORE, SECRET_BYTES);
        oracle
            .import(&client, &format!("more-{number}"), &secrets)
            .await;
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The disks of all cuts, one after the other.
#[derive(Debug)]
pub struct Disks {
    log: WriteLog,
    disk: Vec<u8>,
    /// Entries that `disk` has.
    replayed: usize,
    dice: Dice,
}

impl Disks {
    /// Reads the log.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn open(plan: &Plan) -> Result<Self, Problem> {
        let log = WriteLog::open(&plan.log).map_err(Problem::disk(&plan.log))?;
        let bytes = tool("blockdev", &["--getsize64", &text(&plan.disk)])?;
        let bytes: usize = bytes.trim().parse().expect("a tool prints a number");
        Ok(Self {
            log,
            disk: vec![0; bytes],
            replayed: 0,
            dice: Dice::new(plan.seed),
        })
    }

    /// Writes what the cut of that number leaves to the scratch disk, serves it, and judges it.
    ///
    /// # Errors
    /// If a tool or disk does not do its part.
    ///
    /// # Panics
    /// If something acknowledged is lost, or dealt twice, or anything else is not as it must be.
    pub async fn check(
        &mut self,
        plan: &Plan,
        number: usize,
        oracle: &Oracle,
    ) -> Result<Checked, Problem> {
        let home = plan.mounts.join("cut");
        // A check that broke has left it mounted, on the disk that is about to be written.
        let _ = tool("umount", &["--quiet", &text(&home)]);
        let mark = format!("cut-{number}");
        let marked = |entry: &write_log::Entry| entry.mark.as_deref() == Some(&mark);
        let at = self
            .log
            .entries
            .iter()
            .position(marked)
            .expect("every cut left a mark");
        let replay = self.log.replay(self.replayed, at, &mut self.disk);
        replay.map_err(Problem::disk(&plan.log))?;
        self.replayed = at;
        let mut left = self.disk.clone();
        let kept = self.log.keep_some(at, &mut left, &mut self.dice);
        let (sectors_kept, sectors_in_flight) = kept.map_err(Problem::disk(&plan.log))?;
        let write = || {
            let scratch = File::options().write(true).open(&plan.scratch)?;
            scratch.write_all_at(&left, 0)?;
            (&scratch).flush()?;
            scratch.sync_all()
        };
        write().map_err(Problem::disk(&plan.scratch))?;
        drop(left);

        mounted(&plan.scratch, &home)?;
        let acknowledged = oracle.acknowledged().len();
        judge(&store_in(&home), oracle).await;
        tool("umount", &[&text(&home)])?;
        let found = oracle.acknowledged().len();
        Ok(Checked {
            acknowledged,
            found,
            sectors_in_flight,
            sectors_kept,
        })
    }
}

async fn judge(store: &Store, oracle: &Oracle) {
    let server = store.serve();
    let client = server.client().await;
    oracle.check_all(&client).await;
    // Stopped before anything is asked anew, so that log, replay and copy are those of the cut.
    drop(client);
    server.stop().ok();
    oracle.check_disk(store);
}

/// Mounts a disk.
fn mounted(disk: &Path, at: &Path) -> Result<(), Problem> {
    fs::create_dir_all(at).map_err(Problem::disk(at))?;
    tool("mount", &["-t", "ext4", &text(disk), &text(at)]).map(drop)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn tool(name: &str, args: &[&str]) -> Result<String, Problem> {
    let what = format!("{name} {}", args.join(" "));
    let failed = |why: String| Problem::Tool {
        what: what.clone(),
        why,
    };
    let run = Command::new(name).args(args).output();
    let done = run.map_err(|error| failed(error.to_string()))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(failed(String::from_utf8_lossy(&done.stderr).into_owned())),
    }
}
