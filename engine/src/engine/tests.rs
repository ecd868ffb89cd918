//! An engine whose slabs cannot be read just when it needs them.

mod canary;
mod ways;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use croupier_protocol::Priority;

use crate::dealer::{Dealer, OrderLimits, TURN_ORDERS_MAX};
use crate::disk::memory::MemoryDisk;
use crate::order::{Order, Outcome, Ticket, Verdict};
use crate::state::index::OrderState;
use crate::state::{SlabBody, SlabFacts};
use crate::store::BitsOnly;
use crate::turns::{Pick, Queues, TAKE_ABOVE_ORDERS, Turns};

/// Slabs that can be read while the switch is on.
struct Switched(Arc<AtomicBool>);

impl SlabSource for Switched {
    fn body(&self, facts: &SlabFacts) -> Result<SlabBody, EngineError> {
        if self.0.load(Ordering::SeqCst) {
            return BitsOnly.body(facts);
        }
        Err(EngineError::Io {
            path: "/store/slabs/slab-00000001.slab".into(),
            op: "map",
            source: std::io::ErrorKind::OutOfMemory.into(),
        })
    }
}

/// A disk with an empty store, and the switch of its slabs.
fn new_store() -> (MemoryDisk, Arc<AtomicBool>) {
    (fixture::new_disk(), Arc::new(AtomicBool::new(true)))
}

fn start(disk: &MemoryDisk, readable: &Arc<AtomicBool>) -> Result<Engine, EngineError> {
    fixture::start(disk, Switched(readable.clone()))
}

fn import(engine: &Engine, cards: u32) -> Result<u64, Refused> {
    import_batch(engine, 1, cards)
}

/// As a batch of one slab, both of this number.
fn import_batch(engine: &Engine, batch: u32, cards: u32) -> Result<u64, Refused> {
    engine.record(&fixture::batch_of(batch, cards))
}

#[test]
fn an_import_that_is_durable_and_cannot_be_followed_ends_the_writer_and_stands_after_a_restart() {
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    readable.store(false, Ordering::SeqCst);
    let refused = import(&engine, 5).unwrap_err();
    assert_eq!(refused.refusal, Refusal::StoreFailed);
    let why = engine
        .log
        .failure()
        .expect("a server beside its log must not go on");
    assert!(why.contains("slab-00000001"), "{why}");
    assert_eq!(engine.cannot_record(), Some(Refusal::StoreFailed));
    drop(engine);

    // A slab that cannot be read just now is no damage of the log that names it.
    match start(&disk, &readable).map(|_| ()) {
        Err(error @ EngineError::Io { .. }) => assert_eq!(error.exit_code(), 1),
        other => panic!("{other:?}"),
    }
    readable.store(true, Ordering::SeqCst);
    let engine = start(&disk, &readable).unwrap();
    assert_eq!(engine.stock(None).unwrap()[0].free, 5);
}

#[test]
fn segments_sealed_before_a_start_count_towards_the_next_checkpoint() {
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    let table = "# a comment that fills segments\n".repeat(500) + DEFAULT_ROUTES;
    while engine.log.segment_in_use() < 3 {
        engine.routes_load(&table, None).unwrap();
    }
    drop(engine);
    let engine = start(&disk, &readable).unwrap();
    assert_eq!(
        (engine.first_segment(), engine.log.segment_in_use()),
        (1, 3)
    );
    engine.fold(false).unwrap().expect("two sealed segments");
    assert_eq!(engine.first_segment(), 3);
}

#[test]
fn how_channels_stand_is_known_after_restarts_and_folds() {
    use crate::state::channels::{Change, Standing};
    use croupier_protocol::ChannelCause;

    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    assert!(engine.known_channels().is_empty());
    let until_unix_ms = 1 << 41;
    let changes = [
        ("b", Standing::Healthy),
        ("a", Standing::Probing),
        ("b", Standing::Ejected { until_unix_ms }),
    ];
    for (nth, (name, standing)) in (1..).zip(changes) {
        let change = Change {
            channel: name.into(),
            standing,
            cause: ChannelCause::ProbeFailed,
            ejections: nth,
            // That of the record counts.
            unix_ms: 0,
        };
        assert!(engine.record_channel(&change).unwrap() > 0);
    }
    let known = engine.known_channels();
    let told: Vec<_> = known
        .iter()
        .map(|one| (one.channel.as_str(), one.standing, one.ejections))
        .collect();
    let expect = [
        ("a", Standing::Probing, 2),
        ("b", Standing::Ejected { until_unix_ms }, 3),
    ];
    assert_eq!(told, expect);
    drop(engine);
    let engine = start(&disk, &readable).unwrap();
    assert_eq!(engine.known_channels(), known);
    let table = "# a comment that fills segments\n".repeat(500) + DEFAULT_ROUTES;
    while engine.log.segment_in_use() < 3 {
        engine.routes_load(&table, None).unwrap();
    }
    engine.fold(false).unwrap().expect("two sealed segments");
    drop(engine);
    let engine = start(&disk, &readable).unwrap();
    assert!(engine.first_segment() > 1, "it comes from a checkpoint");
    assert_eq!(engine.known_channels(), known);
}

#[test]
fn the_feed_tells_what_is_durable_while_segments_roll_and_are_folded() {
    use crate::feed::{self, Filter, Room};
    use croupier_protocol::{Feed, FeedKind, FeedRow};

    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    let (filter, room) = (Filter::of(&Feed::default()), Room::of(0, 8 << 10));
    let read = |from, place| feed::read(&engine, from, place, &filter, room);
    let is_table = |fact: &FeedRow| fact.kind == FeedKind::RoutesLoaded.as_u16();
    let (mut versions, mut next, mut place) = (Vec::new(), 0, None);
    let first = read(0, None).unwrap().1;
    let table = "# a comment that fills segments\n".repeat(500) + DEFAULT_ROUTES;
    while engine.log.segment_in_use() < 4 {
        let version = versions.len() as u32 + 1;
        let fact = [Fact::RoutesLoaded {
            version,
            toml: &table,
        }];
        let begun = engine.begin(&fact).unwrap();
        // In the log, and not durable.
        let (page, end) = read(next, place).unwrap();
        assert!(!page.facts.iter().any(is_table), "{page:?}");
        assert_eq!(page.next, page.end);
        (next, place) = (page.next, end);
        engine.finish(begun).unwrap();
        let (page, end) = read(next, place).unwrap();
        // The place only saves the search.
        assert_eq!(read(next, None).unwrap().0, page);
        let told = page.facts.iter().filter(|fact| is_table(fact));
        versions.extend(told.map(|fact| fact.number));
        (next, place) = (page.next, end);
        assert_eq!(versions.last(), Some(&version.into()));
    }
    assert!(versions.iter().copied().eq(1..=versions.len() as u64));

    engine.fold(false).unwrap().expect("three sealed segments");
    assert_eq!(engine.first_segment(), 4);
    let (page, _) = read(0, None).unwrap();
    let oldest = page.facts[0].lsn;
    assert!(is_table(&page.facts[0]));
    for (from, place) in [(1, None), (oldest - 1, None), (first.unwrap().next, first)] {
        let refused = read(from, place).unwrap_err();
        assert_eq!(refused.refusal, Refusal::FeedTooOld);
        assert!(refused.text.ends_with(&format!("LSN {oldest}")));
    }
    assert_eq!(read(oldest, None).unwrap().0, page);
    // Who has kept up goes on, though the segment of its place may be gone.
    engine.sku_create("s").unwrap();
    let (page, _) = read(next, place).unwrap();
    assert_eq!((page.facts.len(), &page.facts[0].text[..]), (1, "s"));
    assert_eq!(
        read(page.end + 1, None).unwrap_err().refusal,
        Refusal::FeedAhead
    );
}

/// Nobody writes blocks here, so the ring fills up.
#[test]
fn room_in_the_log_for_one_writer_is_room_for_all_that_see_it() {
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    let turn = vec![1; APPEND_UNITS_MAX as usize * UNIT_WORDS];
    // The ring takes an even number of turns: now there will be one left over.
    engine.log.append(&turn).unwrap();
    let mut rounds = 0;
    while engine.log.has_room() {
        // The core and the cold path have both looked before either appends.
        for writer in ["the core", "the cold path"] {
            assert!(engine.log.append(&turn).is_some(), "{writer} finds none");
        }
        rounds += 1;
    }
    assert!(rounds > 0);
}

/// One core of an engine, without its server.
struct Core<'e> {
    engine: &'e Engine,
    queues: [Arc<Queues>; 1],
    turns: Turns,
    dealer: Dealer,
}

impl<'e> Core<'e> {
    fn new(engine: &'e Engine) -> Core<'e> {
        let limits = OrderLimits::default();
        let mut dealer = Dealer::new(engine.state.clone(), &engine.routes, limits);
        dealer.adopt(0, 1);
        Core {
            engine,
            queues: [Arc::new(Queues::new(8 * TURN_ORDERS_MAX))],
            turns: Turns::new(0, TAKE_ABOVE_ORDERS),
            dealer,
        }
    }

    fn push(&mut self, order: Order) {
        self.dealer.refresh();
        let lane = self.dealer.lane_of(&order).unwrap();
        assert!(self.queues[0].lanes.push(lane, order).is_ok());
    }

    /// A turn, and everything that is in the log made durable and answered.
    fn turn(&mut self, now_unix_ms: u64) -> Vec<Outcome> {
        self.turn_unless(now_unix_ms, None)
    }

    /// As [`turn`](Self::turn), perhaps while nothing new can be dealt.
    fn turn_unless(&mut self, now_unix_ms: u64, cannot_record: Option<Refusal>) -> Vec<Outcome> {
        let (log, mut answered) = (&self.engine.log, Vec::new());
        let due = self.dealer.units_due(now_unix_ms, cannot_record);
        if self.turns.pick(&self.queues, log, now_unix_ms, due) == Pick::Batch {
            let dealer = &mut self.dealer;
            self.turns.deal(dealer, now_unix_ms, log, cannot_record);
            let answer = |outcome: &Outcome| answered.push(*outcome);
            self.turns.sort_out(&self.queues, answer);
        }
        log.make_segment();
        while log.take_block() {
            log.write_block();
            log.make_segment();
        }
        let answer = |outcome: &Outcome| answered.push(*outcome);
        self.turns.answer_durable(&self.queues, log, answer);
        answered
    }
}

#[test]
fn holds_end_in_time_though_every_turn_is_full() {
    const HOLDS: u64 = 1000;
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    import(&engine, 60_000).unwrap();
    let mut core = Core::new(&engine);
    let order = |id: u64| Order::issue(id.into(), 1, 1, Ticket::single(0, id));
    for id in 1..=HOLDS {
        core.push(Order {
            step: croupier_protocol::Step::Reserve,
            ttl_ms: 5,
            ..order(id)
        });
    }
    // The index is small and grows, so some come again.
    let mut held = 0;
    while held < HOLDS {
        let answered = core.turn(1_000_000);
        let is_held = |outcome: &&Outcome| matches!(outcome.verdict, Verdict::Held { .. });
        held += answered.iter().filter(is_held).count() as u64;
    }

    let mut ids = HOLDS..;
    for now in 1_000_010..1_000_018 {
        while core.queues[0].lanes.depth() < 2 * TURN_ORDERS_MAX {
            core.push(order(ids.next().unwrap() + 1));
        }
        core.turn(now);
    }
    assert_eq!(engine.state.index.open_holds().count(), 0);
}

#[test]
fn stock_that_comes_goes_to_those_who_wait_first_come_first_served_within_a_priority() {
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    import(&engine, 1).unwrap();
    let mut core = Core::new(&engine);
    let now = 1_000_000;
    let order = |id: u64, priority, quantity| Order {
        priority,
        ..Order::issue(id.into(), 1, quantity, Ticket::single(0, id))
    };
    let waits = |id, priority, quantity| Order {
        flags: croupier_protocol::STEP_FLAG_WAIT,
        deadline_unix_ms: now + 1000,
        ..order(id, priority, quantity)
    };
    let verdicts = |answered: Vec<Outcome>| -> Vec<(u128, &str)> {
        let words = answered.iter().map(|outcome| {
            let word = match outcome.verdict {
                Verdict::Issued { .. } => "issued",
                Verdict::Waiting { .. } => "waits",
                Verdict::Refused {
                    refusal: Refusal::OutOfStock,
                    ..
                } => "out of stock",
                _ => "else",
            };
            (outcome.id, word)
        });
        words.collect()
    };
    core.push(order(1, Priority::Standard, 1));
    assert_eq!(verdicts(core.turn(now)), [(1, "issued")]);
    let line = [
        waits(11, Priority::Bulk, 1),
        waits(12, Priority::Bulk, 1),
        waits(13, Priority::Standard, 1),
        waits(14, Priority::Standard, 3),
        waits(15, Priority::Standard, 1),
    ];
    for order in line {
        core.push(order);
        let id = order.id;
        assert_eq!(verdicts(core.turn(now)), [(id, "waits")]);
    }
    core.push(order(2, Priority::Vip, 1));
    assert_eq!(verdicts(core.turn(now)), [(2, "out of stock")]);

    // Somebody comes before the desk has looked: it comes again, and there is nothing left.
    import_batch(&engine, 2, 3).unwrap();
    core.push(order(3, Priority::Vip, 1));
    assert_eq!(verdicts(core.turn(now)), []);
    assert_eq!(verdicts(core.turn(now)), [(3, "out of stock")]);
    let state_of = |id: u128| {
        let index = &engine.state.index;
        let settled = index.get(index.hash(id)).unwrap();
        (settled.state, settled.lsn)
    };
    use crate::state::index::OrderState::{Issued, Waiting};
    let states = [11, 12, 13, 14, 15].map(|id| state_of(id).0);
    assert_eq!(states, [Issued, Waiting, Issued, Waiting, Issued]);
    let lsns = [13, 15, 11].map(|id| state_of(id).1);
    assert!(lsns.is_sorted(), "{lsns:?}");

    // What nobody who waits can use is for anybody.
    import_batch(&engine, 3, 3).unwrap();
    core.turn(now);
    assert_eq!(state_of(14).0, Issued);
    assert_eq!(state_of(12).0, Waiting);
    core.push(waits(16, Priority::Standard, 9));
    core.turn(now);
    import_batch(&engine, 4, 3).unwrap();
    core.turn(now);
    assert_eq!(state_of(12).0, Issued);
    core.push(order(4, Priority::Bulk, 2));
    assert_eq!(verdicts(core.turn(now)), [(4, "issued")]);
    let row = engine.stock(None).unwrap().remove(0);
    assert_eq!((row.free, row.issued, row.imported), (0, 10, 10));
}

#[test]
fn who_stays_is_answered_after_a_while_and_when_nothing_new_can_be_dealt() {
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    let mut core = Core::new(&engine);
    let now = 1_000_000;
    let stays = |request| Order {
        flags: croupier_protocol::STEP_FLAG_WAIT | croupier_protocol::STEP_FLAG_STAY,
        deadline_unix_ms: now + 60_000,
        ..Order::issue(7, 1, 1, Ticket::single(0, request))
    };
    let told = |answered: Vec<Outcome>| -> Vec<(u64, bool)> {
        let told = answered.iter().map(|outcome| match outcome.verdict {
            Verdict::Waiting { repeat, .. } => (outcome.ticket.request_id, repeat),
            _ => panic!("{outcome:?}"),
        });
        told.collect()
    };
    core.push(stays(1));
    assert_eq!(told(core.turn(now)), []);
    core.push(stays(2));
    assert_eq!(told(core.turn(now + 1)), []);
    // Let go in one turn, and dealt in the next. Only the first ask has the order wait.
    for (later, expected) in [
        (4_999, &[][..]),
        (5_000, &[]),
        (5_000, &[(1, false)]),
        (5_001, &[]),
        (5_001, &[(2, true)]),
    ] {
        assert_eq!(told(core.turn(now + later)), expected, "{later} ms later");
    }
    core.push(stays(3));
    assert_eq!(told(core.turn(now + 6_000)), []);
    let cannot = Some(Refusal::ShuttingDown);
    assert_eq!(told(core.turn_unless(now + 6_000, cannot)), []);
    assert_eq!(told(core.turn_unless(now + 6_000, cannot)), [(3, true)]);
    assert!(!core.dealer.has_staying());
}

#[test]
fn turns_are_short_while_an_order_of_the_highest_lane_comes_now_and_then() {
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    import(&engine, 60_000).unwrap();
    let mut core = Core::new(&engine);
    let mut ids = 1..;
    let mut picked = |core: &mut Core<'_>, now: u64, vip: bool| {
        while core.queues[0].lanes.depth() < 2 * TURN_ORDERS_MAX {
            let id: u64 = ids.next().unwrap();
            let order = Order::issue(id.into(), 1, 1, Ticket::single(0, id));
            let priority = Priority::Bulk;
            core.push(Order { priority, ..order });
        }
        let waited = core.queues[0].lanes.depth() + usize::from(vip);
        if vip {
            let id = ids.next().unwrap();
            let order = Order::issue(id.into(), 1, 1, Ticket::single(0, id));
            let priority = Priority::Vip;
            core.push(Order { priority, ..order });
        }
        core.turns.pick(&core.queues, &core.engine.log, now, 0);
        // Others may come again.
        let picked = waited - core.queues[0].lanes.depth();
        // Deals what was picked, and makes it durable.
        core.turns
            .deal(&mut core.dealer, now, &core.engine.log, None);
        core.turns.sort_out(&core.queues, |_| {});
        while core.engine.log.take_block() {
            core.engine.log.write_block();
            core.engine.log.make_segment();
        }
        picked
    };
    // The index is small at first, and many come again while it grows.
    for _ in 0..40 {
        picked(&mut core, 900_000, false);
    }
    let (long, short, quick) = (257..=1024, 34..=256, 1..=33);
    for (now, vip, turn) in [
        (1_000_000, false, &long),
        (1_000_001, true, &long),
        (1_000_002, false, &short),
        (1_000_100, true, &quick),
        // No two quick ones follow each other.
        (1_000_100, true, &short),
        (1_000_101, true, &quick),
        (1_000_200, false, &short),
        (1_000_201, false, &long),
        // A clock that is set back hurries nobody.
        (999_000, false, &long),
    ] {
        let picked = picked(&mut core, now, vip);
        assert!(turn.contains(&picked), "{picked} at {now}");
    }
}

/// An order that comes again alone in a turn, and one in line that wants more than the rest of it: every other turn is for each.
#[test]
fn an_order_in_line_gets_its_room_beside_one_that_comes_again_and_again() {
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    let mut core = Core::new(&engine);
    let limits = OrderLimits {
        quantity_max: 4000,
        ..OrderLimits::default()
    };
    core.dealer = Dealer::new(engine.state.clone(), &engine.routes, limits);
    core.dealer.adopt(0, 1);
    let now = 1_000_000;
    // Each is larger than what the other leaves of a turn.
    let [waits, other] = [3000, 2000]
        .map(|quantity| Order::issue(quantity.into(), 1, quantity, Ticket::single(0, 0)));
    core.push(Order {
        flags: croupier_protocol::STEP_FLAG_WAIT,
        deadline_unix_ms: now + 1000,
        ..waits
    });
    core.turn(now);
    import(&engine, 3000).unwrap();
    core.push(other);
    let turns = (0..6).flat_map(|_| core.turn(now));
    assert_eq!(turns.count(), 1, "it is told that there is no stock");
    let index = &engine.state.index;
    let settled = index.get(index.hash(waits.id)).unwrap();
    assert_eq!(settled.state, OrderState::Issued);
}

/// Chains that fill a turn each, beside lone orders that fill turns as well: every other turn is for each, small chains go with
/// lone orders, and all is dealt whole.
#[test]
fn chains_and_lone_orders_leave_each_other_room() {
    use croupier_protocol::STEP_FLAG_LINKED;
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    import(&engine, 60_000).unwrap();
    let mut core = Core::new(&engine);
    let order = |id: u64, quantity| Order::issue(id.into(), 1, quantity, Ticket::single(0, id));
    let chain = |first: u64, orders: u64, quantity| -> crate::linked::Chain {
        let linked = |id| Order {
            flags: STEP_FLAG_LINKED * u8::from(id + 1 < first + orders),
            ..order(id, quantity)
        };
        (first..first + orders).map(|id| (1, linked(id))).collect()
    };
    (1..=6000).for_each(|id| core.push(order(id, 1)));
    // 960 of the 1,024 units of a turn, and two.
    for (first, orders, quantity) in [(10_000, 64, 57), (20_000, 64, 57), (30_000, 2, 1)] {
        assert!(
            core.queues[0]
                .chains
                .push(chain(first, orders, quantity))
                .is_ok()
        );
    }
    let (mut whole, mut all_lone, mut had_large) = (BTreeMap::new(), 0, false);
    // The index is small and grows, so some come again.
    for now in 1.. {
        let (mut chained, mut lone) = (BTreeMap::new(), 0);
        for outcome in core.turn(now) {
            let is_new = matches!(outcome.verdict, Verdict::Issued { repeat: false, .. });
            assert!(is_new, "{outcome:?}");
            match outcome.id as u64 / 10_000 {
                0 => lone += 1,
                chain => *chained.entry(chain).or_insert(0) += 1,
            }
        }
        let has_large = chained.values().any(|&orders| orders == 64);
        assert!(!(has_large && had_large), "one turn in two");
        assert!(lone > 0, "at {now}: {chained:?}");
        (all_lone, had_large) = (all_lone + lone, has_large);
        whole.extend(chained);
        if whole.len() == 3 {
            break;
        }
    }
    assert_eq!(
        whole.into_iter().collect::<Vec<_>>(),
        [(1, 64), (2, 64), (3, 2)]
    );
    while all_lone < 6000 {
        all_lone += core.turn(100).len();
    }
    // One with more records than a turn.
    assert!(core.queues[0].chains.push(chain(40_000, 64, 65)).is_ok());
    let stock = || engine.state.catalog.load().sku(1).unwrap().stock();
    let before = stock();
    let refused = core.turn(101);
    let is_large = |outcome: &&Outcome| {
        let large = Refusal::QuantityTooLarge;
        matches!(outcome.verdict, Verdict::Refused { refusal, .. } if refusal == large)
    };
    let large = refused.iter().filter(is_large).count();
    assert_eq!((refused.len(), large), (64, 1));
    assert_eq!((stock(), before.issued), (before, 6000 + 2 * 64 * 57 + 2));
}
