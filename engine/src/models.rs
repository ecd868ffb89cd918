//! Dealers, stock, index, log and committer together, under a checker that decides which of them goes next.
//!
//! Loom looks at every interleaving of a part, beside that part (`model` in `slab::claim`, `wal::ring`, `wal::bell` and
//! others). Here shuttle looks at many interleavings of the whole: two dealers with a few ids in common, stock that runs
//! out, imports in the middle, and the log's own two threads. Sizes shrink (see `croupier_shuttle` in the index and the
//! claim), so that a table grows, a ring wraps and a region ends within a handful of orders.
//!
//! ```text
//! CROUPIER_CHECKER=shuttle cargo test -p croupier-engine --lib shuttle -- --nocapture
//! ```
//!
//! `CROUPIER_SHUTTLE_ITERATIONS` says how many schedules each scheduler tries. A schedule that fails is printed;
//! `CROUPIER_SHUTTLE_REPLAY` takes it and runs it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use croupier_protocol::{Refusal, STEP_FLAG_LINKED, STEP_FLAG_WAIT};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::Mutex;
use shuttle::thread::Thread;
use shuttle::{Config, Runner, thread};

use crate::checkpoint::apply_block;
use crate::dealer::{Dealer, OrderLimits};
use crate::disk::SyncMethod;
use crate::disk::memory::MemoryDisk;
use crate::linked::Chain;
use crate::order::{Order, Outcome, Ticket, Verdict};
use crate::route::{DEFAULT_ROUTES, RouteCell, RouteTable};
use crate::state::index::{OrderState, Spread};
use crate::state::record::{Fact, Record, Stamp};
use crate::state::{Hand, Replay, State};
use crate::store::BitsOnly;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::wal::log::{Drive, Subscriber};
use crate::wal::segments::{make_segment, segment_path};
use crate::wal::{BlockReader, Log, LogOptions, Position};

const STORE: [u8; 16] = *b"under the model!";
/// Seven blocks: the log rolls in the middle of a run.
const SEGMENT_BYTES: u64 = 32 << 10;
const APPEND_UNITS_MAX: u64 = 4;
/// Two dealers, the desk and the cold path.
const WRITERS: u64 = 4;
/// A ring that two rounds fill.
const RING_UNITS: u64 = 16;
const SPREAD: Spread = Spread {
    seed: [5, 9],
    shards: 1,
};
/// SKU and cards of each slab: the first from the beginning, the others once their imports are sealed.
const STOCK: [(u32, u32); 3] = [(1, 5), (2, 3), (1, 2)];
const ITERATIONS: usize = 20_000;
/// Switches of priority that PCT places: bugs that need more are rare (Burckhardt et al., 2010).
const PCT_DEPTH: usize = 3;

/// What a dealer is asked: id, SKU, quantity. Both are asked 1, 2, 3 and 20, one of them with another quantity; SKU 1 runs
/// out for somebody.
const ASKED: [&[(u128, u32, u16)]; 2] = [
    &[
        (1, 1, 1),
        (2, 1, 1),
        (3, 1, 2),
        (10, 1, 1),
        (20, 2, 1),
        (21, 2, 2),
    ],
    &[
        (3, 1, 2),
        (2, 1, 1),
        (1, 1, 2),
        (11, 1, 1),
        (20, 2, 1),
        (22, 2, 1),
    ],
];
/// What a dealer is asked turn by turn, where several orders of a turn are linked. Of SKU 2 there is not enough for all.
const LINKED: [&[&[(u128, u32, u16)]]; 2] = [
    &[
        &[(30, 1, 1), (31, 2, 1)],
        &[(32, 1, 1)],
        &[(33, 2, 1), (34, 1, 1)],
        &[(35, 1, 1), (36, 2, 1)],
    ],
    &[
        &[(31, 2, 1), (30, 1, 1)],
        &[(34, 1, 1), (32, 1, 1)],
        &[(33, 2, 1)],
        &[(37, 2, 1), (38, 1, 1)],
    ],
];
/// Of these all stand, or none: nobody asks for one of them alone.
const WHOLE: [[u128; 2]; 3] = [[30, 31], [35, 36], [37, 38]];
/// Orders of a turn.
const TURN: usize = 2;

fn order(&(id, sku, quantity): &(u128, u32, u16), waits: bool) -> (u8, Order) {
    let ticket = Ticket::single(0, 0);
    let order = Order::issue(id, sku, quantity, ticket);
    let waiting = Order {
        flags: STEP_FLAG_WAIT,
        deadline_unix_ms: 1000,
        ..order
    };
    (0, if waits { waiting } else { order })
}

/// One run's store.
struct Shop {
    disk: MemoryDisk,
    dir: PathBuf,
    state: Arc<State>,
    log: Arc<Log>,
    routes: RouteCell,
}

impl Shop {
    fn open(subscribers: Vec<Arc<Subscriber>>) -> Self {
        let (disk, dir) = (MemoryDisk::new(), PathBuf::from("/wal"));
        make_segment(&disk.disk(), &dir, STORE, 1, SEGMENT_BYTES).unwrap();
        let options = LogOptions {
            store_id: STORE,
            dir: dir.clone(),
            segment_bytes: SEGMENT_BYTES,
            ring_bytes: RING_UNITS * 64,
            epoch: 1,
            sync: Some(SyncMethod::Fdatasync),
            writers: WRITERS,
            append_units_max: APPEND_UNITS_MAX,
            drive: Drive::Threads,
        };
        let log = Log::open(disk.disk(), options, Position::START, 1, subscribers).unwrap();
        Self {
            disk,
            dir,
            state: Arc::new(State::new(Box::new(BitsOnly), 0, SPREAD)),
            log: Arc::new(log),
            routes: RouteCell::new(RouteTable::parse(0, DEFAULT_ROUTES).unwrap()),
        }
    }

    /// As the cold path does: append, wait, apply.
    fn record(&self, facts: &[Fact<'_>]) {
        let stamp = Stamp {
            unix_ms: 1,
            route_table: 0,
        };
        for fact in facts {
            let record = Record { stamp, fact: *fact };
            let mut words = Vec::new();
            record.put(&mut words);
            let lsn = self.with_room(|| self.log.append(&words));
            self.log.wait_durable(lsn).unwrap();
            let mut hand = Hand::new(&self.state);
            self.state.apply(lsn, &record, &mut hand).unwrap();
        }
    }

    fn with_room<T>(&self, append: impl Fn() -> Option<T>) -> T {
        loop {
            if self.log.has_room()
                && let Some(appended) = append()
            {
                return appended;
            }
            thread::yield_now();
        }
    }

    fn import(&self, slab: u32) {
        let (sku, cards) = STOCK[slab as usize - 1];
        let added = Fact::SlabAdded {
            slab,
            sku,
            batch: slab,
            pool: 0,
            cards,
            class_bytes: 32,
            header_hash: [slab as u8; 32],
            grows: false,
        };
        let sealed = Fact::BatchSealed {
            batch: slab,
            sku,
            pool: 0,
            cards: cards.into(),
            slabs: 1,
            label: "b",
            pool_name: "main",
        };
        self.record(&[added, sealed]);
    }

    /// Deals everything, waits until it is durable, and asks for it all once more.
    fn deal(&self, asked: &[(u128, u32, u16)], wait: bool) -> Vec<Outcome> {
        let limits = OrderLimits {
            quantity_max: 10,
            ..OrderLimits::default()
        };
        let mut dealer = Dealer::new(self.state.clone(), &self.routes, limits);
        let mut outcomes = Vec::new();
        for _ in 0..2 {
            for turn in asked.chunks(TURN) {
                let mut orders: Vec<_> = turn.iter().map(|asked| order(asked, wait)).collect();
                while !orders.is_empty() {
                    self.with_room(|| Some(()));
                    dealer.turn(1, &*self.log, None, &orders, &mut outcomes);
                    orders.clear();
                    dealer.take_deferred(&mut orders);
                    if !orders.is_empty() {
                        thread::yield_now();
                    }
                }
            }
            let last = outcomes.iter().map(Outcome::lsn).max();
            self.log.wait_durable(last.unwrap()).unwrap();
        }
        outcomes
    }

    /// As [`deal`](Self::deal), and orders of a turn are linked.
    fn deal_linked(&self, turns: &[&[(u128, u32, u16)]]) -> Vec<Outcome> {
        let mut dealer = Dealer::new(self.state.clone(), &self.routes, OrderLimits::default());
        let mut outcomes = Vec::new();
        for _ in 0..2 {
            for turn in turns {
                let mut orders: Vec<_> = turn.iter().map(|asked| order(asked, false)).collect();
                let linked = orders.len() - 1;
                for (_, order) in &mut orders[..linked] {
                    order.flags = STEP_FLAG_LINKED;
                }
                while !orders.is_empty() {
                    self.with_room(|| Some(()));
                    dealer.turn(1, &*self.log, None, &orders, &mut outcomes);
                    let mut chains: Vec<Chain> = Vec::new();
                    dealer.take_deferred_chains(&mut chains);
                    orders = chains.into_iter().flatten().collect();
                    dealer.take_deferred(&mut orders);
                    if !orders.is_empty() {
                        thread::yield_now();
                    }
                }
            }
            if let Some(last) = outcomes.iter().map(Outcome::lsn).max() {
                self.log.wait_durable(last).unwrap();
            }
        }
        outcomes
    }

    /// Fills orders that wait, until nobody can call any more.
    fn keep_desk(&self, all_gone: &AtomicBool) {
        let mut dealer = Dealer::new(self.state.clone(), &self.routes, OrderLimits::default());
        dealer.adopt(0, 1);
        loop {
            let last = all_gone.load(Ordering::SeqCst);
            while dealer.has_calls() {
                self.with_room(|| Some(()));
                dealer.turn(1, &*self.log, None, &[], &mut Vec::new());
                thread::yield_now();
            }
            if last {
                return;
            }
            thread::yield_now();
        }
    }
}

/// What the log on the disk says: its orders by id, and the state that it gives.
fn replayed(shop: &Shop) -> (BTreeMap<u128, u64>, State) {
    let state = State::new(Box::new(BitsOnly), 0, SPREAD);
    // What was acknowledged must be there after a power cut.
    let disk = shop.disk.after_power_cut().disk();
    let mut reader = BlockReader::open(disk, &shop.dir, STORE, Position::START).unwrap();
    let mut orders = BTreeMap::new();
    let mut replay = Replay::new(&state);
    while let Some(block) = reader.next().unwrap() {
        let path = segment_path(Path::new("/wal"), block.seq);
        apply_block(&mut replay, &path, &block, |lsn, bytes| {
            let (record, _) = crate::state::record::decode(bytes).unwrap();
            let Fact::Issued(issued) = record.fact else {
                unreachable!("only orders are handed over")
            };
            let twice = orders.insert(issued.order_id, lsn);
            assert_eq!(twice, None, "order {} is in the log once", issued.order_id);
            Ok(())
        })
        .unwrap();
    }
    drop(replay);
    (orders, state)
}

/// The oracle.
fn check(shop: &Shop, outcomes: &[Outcome]) {
    let mut issued: BTreeMap<u128, (u64, Vec<(u32, u32)>)> = BTreeMap::new();
    let (mut first, mut waited) = (BTreeSet::new(), BTreeSet::new());
    for outcome in outcomes {
        match outcome.verdict {
            Verdict::Issued { settled, repeat } => {
                let cards: Vec<_> = shop.state.index.cards(settled).collect();
                let answer = (settled.lsn, cards);
                let before = issued.entry(outcome.id).or_insert_with(|| answer.clone());
                assert_eq!(*before, answer, "order {}: one answer for ever", outcome.id);
                assert!(repeat || first.insert(outcome.id), "dealt as new once");
            }
            Verdict::Held { .. } | Verdict::Released { .. } => {
                unreachable!("nobody reserves")
            }
            Verdict::Waiting { .. } => {
                waited.insert(outcome.id);
            }
            Verdict::Refused { refusal, .. } => {
                let can_be = [
                    Refusal::OutOfStock,
                    Refusal::OrderIdReused,
                    Refusal::LinkedRefused,
                ];
                assert!(can_be.contains(&refusal), "{refusal:?}");
            }
        }
    }
    let mut waits_for = Vec::new();
    for id in waited {
        let settled = shop.state.index.get(shop.state.index.hash(id)).unwrap();
        if settled.state == OrderState::Waiting {
            waits_for.push(settled);
            continue;
        }
        let cards: Vec<_> = shop.state.index.cards(settled).collect();
        let answer = (settled.lsn, cards);
        let before = issued.entry(id).or_insert_with(|| answer.clone());
        assert_eq!(*before, answer, "order {id}: one answer for ever");
        // Nobody dealt it as new: it was filled.
        first.insert(id);
    }
    for settled in waits_for {
        let hold = shop.state.index.hold(settled).unwrap();
        let free = shop
            .state
            .catalog
            .load()
            .sku(hold.sku)
            .unwrap()
            .stock()
            .free;
        assert!(
            free < hold.quantity().into(),
            "an order of {} waits, and {free} are free",
            hold.quantity()
        );
    }
    assert_eq!(first.len(), issued.len(), "every order was new to somebody");
    let mut cards: Vec<_> = issued.values().flat_map(|(_, cards)| cards).collect();
    let dealt = cards.len();
    cards.sort_unstable();
    cards.dedup();
    assert_eq!(cards.len(), dealt, "no card goes to two orders");
    let catalog = shop.state.catalog.load();
    let free: u64 = catalog.skus.iter().map(|sku| sku.stock().free).sum();
    let imported: u64 = catalog.skus.iter().map(|sku| sku.stock().imported).sum();
    let stock: u64 = STOCK.iter().map(|&(_, cards)| u64::from(cards)).sum();
    assert_eq!(imported, stock);
    assert_eq!(free + dealt as u64, imported, "free + issued = imported");
    let (logged, replayed) = replayed(shop);
    let expected: BTreeMap<_, _> = issued.iter().map(|(id, (lsn, _))| (*id, *lsn)).collect();
    assert_eq!(logged, expected, "the log has every issued order");
    assert_eq!(shop.state.digest(), replayed.digest(), "live = replayed");
}

fn play() {
    sell(false);
}

/// As [`play`], and everybody would rather wait.
fn wait_in_line() {
    sell(true);
}

fn open() -> Arc<Shop> {
    let shop = Arc::new(Shop::open(Vec::new()));
    let name = |sku| ["a", "b"][sku as usize - 1];
    for sku in [1, 2] {
        shop.record(&[Fact::SkuCreated {
            sku,
            name: name(sku),
        }]);
    }
    shop.import(1);
    shop
}

/// Chains and lone orders that want the same ids and the last cards, on two cores, while the index grows.
fn link() {
    let shop = open();
    [2, 3].into_iter().for_each(|slab| shop.import(slab));
    let dealers = LINKED.map(|turns| {
        let shop = shop.clone();
        thread::spawn(move || shop.deal_linked(turns))
    });
    let outcomes: Vec<_> = dealers
        .into_iter()
        .flat_map(|dealer| dealer.join().unwrap())
        .collect();
    shop.log.stop().unwrap();
    let index = &shop.state.index;
    for chain in WHOLE {
        let [one, other] = chain.map(|id| index.get(index.hash(id)).is_some());
        assert_eq!(one, other, "all of {chain:?} or none");
    }
    check(&shop, &outcomes);
}

fn sell(wait: bool) {
    let shop = open();
    let importer = {
        let shop = shop.clone();
        thread::spawn(move || [2, 3].map(|slab| shop.import(slab)))
    };
    let dealers = ASKED.map(|asked| {
        let shop = shop.clone();
        thread::spawn(move || shop.deal(asked, wait))
    });
    let all_gone = Arc::new(AtomicBool::new(false));
    let desk = wait.then(|| {
        let (shop, all_gone) = (shop.clone(), all_gone.clone());
        thread::spawn(move || shop.keep_desk(&all_gone))
    });
    let outcomes: Vec<_> = dealers
        .into_iter()
        .flat_map(|dealer| dealer.join().unwrap())
        .collect();
    importer.join().unwrap();
    all_gone.store(true, Ordering::SeqCst);
    if let Some(desk) = desk {
        desk.join().unwrap();
    }
    shop.log.stop().unwrap();
    check(&shop, &outcomes);
}

/// Two cores, each asleep until the log tells it that its record is durable. One that is not told sleeps for ever, which
/// the checker reports.
fn wake_up() {
    let woken: [Arc<Mutex<Option<Thread>>>; 2] = Default::default();
    let subscribers = woken.clone().map(|woken| {
        Subscriber::new(move || {
            if let Some(core) = &*woken.lock().unwrap() {
                core.unpark();
            }
        })
    });
    let shop = Arc::new(Shop::open(subscribers.to_vec()));
    let cores = [0, 1].map(|core| {
        let (shop, woken, subscriber) =
            (shop.clone(), woken[core].clone(), subscribers[core].clone());
        thread::spawn(move || {
            *woken.lock().unwrap() = Some(thread::current());
            for round in 0..3 {
                // Both ways in turns: the committer's thread writes, or the core does.
                let lsn = if (core + round) % 2 == 0 {
                    let lsn = shop.with_room(|| shop.log.append_quietly(&[1; 8]));
                    shop.log.commit_here();
                    lsn
                } else {
                    shop.with_room(|| shop.log.append(&[1; 8]))
                };
                loop {
                    subscriber.want(lsn);
                    if shop.log.durable() > lsn {
                        break;
                    }
                    thread::park();
                }
            }
        })
    });
    cores.into_iter().for_each(|core| core.join().unwrap());
    shop.log.stop().unwrap();
}

fn config() -> Config {
    let mut config = Config::new();
    // Hashing and formatting want more than the checker's default.
    config.stack_size = 256 << 10;
    config
}

fn run(name: &str, scheduler: impl Scheduler + 'static, scene: fn()) {
    let begun = std::time::Instant::now();
    let schedules = Runner::new(scheduler, config()).run(scene);
    println!("{name}: {schedules} schedules in {:.1?}", begun.elapsed());
}

fn iterations() -> usize {
    let asked = std::env::var("CROUPIER_SHUTTLE_ITERATIONS").ok();
    asked.map_or(ITERATIONS, |count| count.parse().expect("a number"))
}

#[test]
fn shuttle_at_random() {
    run("random", RandomScheduler::new(iterations()), play);
}

#[test]
fn shuttle_with_few_switches() {
    run("pct", PctScheduler::new(PCT_DEPTH, iterations()), play);
}

#[test]
fn shuttle_serves_whoever_waits() {
    let random = RandomScheduler::new(iterations());
    run("line, random", random, wait_in_line);
    let pct = PctScheduler::new(PCT_DEPTH, iterations());
    run("line, pct", pct, wait_in_line);
}

#[test]
fn shuttle_deals_chains_whole() {
    let random = RandomScheduler::new(iterations());
    run("chains, random", random, link);
    let pct = PctScheduler::new(PCT_DEPTH, iterations());
    run("chains, pct", pct, link);
}

#[test]
fn shuttle_wakes_every_core() {
    run(
        "wake-up, random",
        RandomScheduler::new(iterations()),
        wake_up,
    );
    run(
        "wake-up, pct",
        PctScheduler::new(PCT_DEPTH, iterations()),
        wake_up,
    );
}

#[test]
fn shuttle_again() {
    if let Ok(schedule) = std::env::var("CROUPIER_SHUTTLE_REPLAY") {
        shuttle::replay(play, &schedule);
    }
}
