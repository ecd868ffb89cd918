//! All lives of a history, and what their log comes to.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::caller::{Caller, Floor};
use super::kept_log::KeptLog;
use super::life::{Life, People};
use super::operator::Operator;
use super::watch::{Seen, Watch};
use super::{End, Plan};
use crate::{Dice, Oracle, Store, croupier};

/// Segments of a long history are larger: else it would do little but fold.
const LONG_ORDERS: u64 = 100_000;
const LONG_SEGMENT_BYTES: u64 = 8 << 20;
const LONG_RING_BYTES: u64 = 2 << 20;
/// Every so manieth end is a stop in good order.
const STOP_EVERY: usize = 5;
/// After every so manieth kill the store is verified and replayed before the next start.
const VERIFY_EVERY: usize = 4;

/// What came of a history.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// What was seen.
    pub seen: Seen,
    /// Orders that were begun.
    pub orders: u64,
    /// Cards that orders have got.
    pub cards: u64,
    /// Orders that were told that they wait.
    pub waited: u64,
    /// Of these, orders that had stock later: issued, or held.
    pub filled: u64,
    /// Servers killed, and stopped in good order.
    pub ends: [u64; 2],
    /// How long each start took, after a kill and after a stop.
    pub starts: [Vec<Duration>; 2],
    /// Digest of the last live state.
    pub digest: String,
    /// Digests compared: a live state or a crashed store with its replay.
    pub digests: u64,
    /// Records of the replay from the first one; `None` if a segment was not kept in time.
    pub replayed: Option<u64>,
    /// All of it.
    pub took: Duration,
    /// Load alone.
    pub load_took: Duration,
    /// Where the store is, if it was kept to be looked at.
    pub kept: Option<String>,
}

/// Lives through a history. `tell` hears how many orders were begun.
///
/// # Panics
/// If there is no place for a store.
pub async fn run(plan: &Plan, tell: &dyn Fn(u64)) -> Findings {
    let begun = Instant::now();
    let root = TempDir::with_prefix("croupier-history-").expect("a temporary directory");
    let mut findings = Findings::default();
    let watch = Arc::new(Watch::default());
    let oracle = Arc::new(Oracle::timed());
    let lived = lives(plan, &root, &oracle, &watch, &mut findings, tell);
    // A server that does not start, or not stop in good order, is a violation as others are.
    watch.check_async(lived).await;
    findings.orders = oracle.begun() as u64;
    findings.cards = oracle.cards_dealt() as u64;
    (findings.waited, findings.filled) = oracle.waited();
    findings.seen = watch.seen().clone();
    findings.took = begun.elapsed();
    if watch.is_violated() {
        findings.kept = Some(root.keep().display().to_string());
    }
    findings
}

async fn lives(
    plan: &Plan,
    root: &TempDir,
    oracle: &Arc<Oracle>,
    watch: &Arc<Watch>,
    findings: &mut Findings,
    tell: &dyn Fn(u64),
) {
    let mut dice = Dice::new(plan.seed);
    let store = store_in(root, plan);
    let log = KeptLog::begin(&store, root.path().join("unfolded"));

    let mut life = Life::begin(&store, plan.callers).await;
    let mut people = people(plan, oracle, watch, &life, &mut dice).await;
    let ends = ends(plan, &mut dice);
    for (nth, &(at, end)) in ends.iter().enumerate() {
        let load = Instant::now();
        let said = life.go_on(&mut people, at, end, &mut dice, tell).await;
        findings.load_took += load.elapsed();
        let kind = usize::from(end == End::Stop);
        findings.ends[kind] += 1;
        if end == End::Stop || nth % VERIFY_EVERY == 0 {
            verify(&store, watch, end, said, findings).await;
        }
        life = Life::begin(&store, plan.callers).await;
        findings.starts[kind].push(life.started_in);
        life.settle(&mut people, &mut dice).await;
        if watch.is_violated() {
            break;
        }
    }
    if !watch.is_violated() {
        let load = Instant::now();
        life.go_on(&mut people, u64::MAX, End::Last, &mut dice, tell)
            .await;
        findings.load_took += load.elapsed();
        life.settle(&mut people, &mut dice).await;
        life.finish(&mut people, &mut dice).await;
        let done = people.callers.iter().all(Caller::is_done);
        watch.check(|| assert!(done, "something was never answered"));
        let said = life.stop().await;
        findings.ends[1] += 1;
        finish(&store, oracle, watch, said, log, findings).await;
    }
}

fn store_in(root: &TempDir, plan: &Plan) -> Store {
    let long = plan.orders >= LONG_ORDERS;
    let store = Store::at(root.path().join("data")).with("--hold-extensions-max", 3);
    if !long {
        return store.init();
    }
    croupier(store.init_args(LONG_SEGMENT_BYTES)).ok();
    store.with("--ring-bytes", LONG_RING_BYTES)
}

async fn people(
    plan: &Plan,
    oracle: &Arc<Oracle>,
    watch: &Arc<Watch>,
    life: &Life,
    dice: &mut Dice,
) -> People {
    let floor = |skus| {
        Arc::new(Floor {
            oracle: Arc::clone(oracle),
            watch: Arc::clone(watch),
            skus,
            orders: plan.orders,
            begun: AtomicU64::new(0),
            shared: Mutex::default(),
        })
    };
    // Many come while orders run.
    let batch_cards = (plan.orders / 20).clamp(200, 50_000);
    let mut operator = Operator::new(floor(Vec::new()), dice.fork(), batch_cards);
    let floor = floor(operator.open(life.admin()).await);
    operator.moves_to(Arc::clone(&floor));
    let callers = (0..plan.callers).map(|_| Caller::new(Arc::clone(&floor), dice.fork()));
    People {
        callers: callers.collect(),
        operator,
        floor,
    }
}

/// At how many orders which end comes.
fn ends(plan: &Plan, dice: &mut Dice) -> Vec<(u64, End)> {
    let count = plan.kills + plan.kills.div_ceil(STOP_EVERY);
    let mut at: Vec<u64> = (0..count)
        .map(|_| dice.within(plan.orders / 50..plan.orders.max(2)))
        .collect();
    at.sort_unstable();
    let mut kinds = vec![End::Kill; plan.kills];
    for _ in plan.kills..count {
        let nth = dice.within(0..kinds.len() as u64 + 1) as usize;
        kinds.insert(nth, End::Stop);
    }
    at.into_iter().zip(kinds).collect()
}

/// Verifies a store that nobody serves, replays it, and compares digests: with the live one, too, if it stopped in good
/// order.
async fn verify(
    store: &Store,
    watch: &Arc<Watch>,
    end: End,
    said: String,
    findings: &mut Findings,
) {
    let own = store.view();
    let checked = watch
        .check_blocking(move || {
            let report = Oracle::verify(&own);
            if end == End::Stop {
                is_live_digest(&said, &report.digest);
            }
        })
        .await;
    findings.digests += u64::from(checked.is_some());
    watch.seen().checks[1] += 1;
}

fn is_live_digest(said: &str, digest: &str) {
    assert!(
        said.contains(digest),
        "the digest of the live state is not {digest}, that of the disk:\n{said}"
    );
}

/// The last stop: the store against the books, and all of its history from the first record.
async fn finish(
    store: &Store,
    oracle: &Arc<Oracle>,
    watch: &Arc<Watch>,
    said: String,
    log: KeptLog,
    findings: &mut Findings,
) {
    let (own, books) = (store.view(), Arc::clone(oracle));
    let checked = watch
        .check_blocking(move || {
            let report = books.check_disk(&own);
            is_live_digest(&said, &report.digest);
            let replayed = log.unfolded(&own).map(|whole| {
                let replayed = whole.wal("replay", &[]).ok().json();
                assert_eq!(
                    replayed["digest"], report.digest,
                    "the replay of all records comes to another state"
                );
                replayed["records"].as_u64().unwrap_or(0)
            });
            (report.digest, replayed)
        })
        .await;
    watch.seen().checks[1] += 1;
    if let Some((digest, replayed)) = checked {
        findings.digests += 1 + u64::from(replayed.is_some());
        findings.replayed = replayed;
        findings.digest = digest;
    }
}
