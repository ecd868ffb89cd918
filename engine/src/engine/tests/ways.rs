//! Orders that go different ways: dealt together where these come to the same pools, and filled each from its own.

use super::*;
use crate::route::{Asked, Router};
use crate::state::index::OrderState::{self, Issued, Waiting};

/// Orders with the tag 7 are dealt from a pool of their own, all others from `main`.
const APART: &str = "[[rule]]\ntag = [7]\npools = [\"down\"]\n[[rule]]\npools = [\"main\"]\n";
/// All are dealt from `main`, by one rule or the other.
const TOGETHER: &str = "[[rule]]\ntag = [7]\npools = [\"main\"]\n[[rule]]\npools = [\"main\"]\n";
const NOW: u64 = 1_000_000;

/// A store with one SKU, both of whose pools are sold out.
fn sold_out(routes: &str) -> Engine {
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    engine.routes_load(APART, None).unwrap();
    deliver(&engine, "main", 1, 1);
    deliver(&engine, "down", 2, 1);
    let mut core = Core::new(&engine);
    core.push(order(1, 0));
    core.push(order(2, 7));
    assert_eq!(core.turn(NOW).len(), 2);
    assert_eq!([1, 2].map(|id| state_of(&engine, id)), [Issued; 2]);
    engine.routes_load(routes, None).unwrap();
    engine
}

/// Cards come into a pool of the SKU, as a batch of that number.
fn deliver(engine: &Engine, pool: &'static str, batch: u32, cards: u32) {
    let index = u16::from(pool != "main");
    let batch = fixture::batch_in((index, pool), batch, cards);
    engine.record(&batch).unwrap();
}

fn order(id: u64, tag: u16) -> Order {
    Order::issue(id.into(), 1, 1, Ticket::single(0, id)).tagged(tag)
}

fn waits(id: u64, tag: u16, quantity: u16) -> Order {
    Order {
        flags: croupier_protocol::STEP_FLAG_WAIT,
        deadline_unix_ms: NOW + 1000,
        quantity,
        ..order(id, tag)
    }
}

fn state_of(engine: &Engine, id: u128) -> OrderState {
    let index = &engine.state.index;
    index.get(index.hash(id)).unwrap().state
}

impl Core<'_> {
    /// Has orders wait, in this order.
    fn wait_in_line(&mut self, orders: impl Iterator<Item = Order>) {
        let (mut asked, mut told) = (0, 0);
        for order in orders {
            self.push(order);
            asked += 1;
        }
        // The index is small and grows, so some come again: after the others of their turn.
        while told < asked {
            let answered = self.turn(NOW);
            let waits = |outcome: &Outcome| matches!(outcome.verdict, Verdict::Waiting { .. });
            assert!(answered.iter().all(waits), "{answered:?}");
            told += answered.len();
        }
    }

    /// Has the index grow, so that no order comes again for that.
    fn turns(&mut self, turns: usize) {
        (0..turns).for_each(|_| drop(self.turn(NOW)));
    }
}

#[test]
fn orders_of_a_way_without_stock_cost_those_of_another_nothing() {
    const STUCK: u64 = 3000;
    const OTHERS: u64 = 40;
    let engine = sold_out(APART);
    let mut core = Core::new(&engine);
    core.wait_in_line((0..STUCK).map(|nth| waits(10_000 + nth, 7, 1)));
    for id in 100..100 + OTHERS {
        core.wait_in_line(std::iter::once(waits(id, 0, 1)));
    }
    // The first card has the line sorted.
    deliver(&engine, "main", 3, 1);
    core.turns(2);
    let looks = core.dealer.desk_looks();
    for nth in 1..OTHERS {
        let id = 100 + u128::from(nth);
        assert_eq!(
            [id - 1, id].map(|id| state_of(&engine, id)),
            [Issued, Waiting]
        );
        deliver(&engine, "main", 3 + nth as u32, 1);
        core.turns(1);
    }
    assert_eq!(
        core.dealer.desk_looks() - looks,
        OTHERS - 1,
        "one look a card"
    );
    let stuck = (0..STUCK).map(|nth| state_of(&engine, 10_000 + u128::from(nth)));
    assert!(stuck.into_iter().all(|state| state == Waiting));
    // Theirs comes, too.
    deliver(&engine, "down", 1000, 2);
    core.turns(1);
    let stuck = (0..STUCK).map(|nth| state_of(&engine, 10_000 + u128::from(nth)));
    assert_eq!(stuck.filter(|state| *state == Issued).count(), 2);
}

#[test]
fn orders_that_no_stock_is_enough_for_are_passed_over_at_once() {
    let engine = sold_out(APART);
    let mut core = Core::new(&engine);
    core.wait_in_line((0..1000).map(|nth| waits(10_000 + nth, 0, 5)));
    core.wait_in_line((0..4).map(|nth| waits(100 + nth, 0, 1)));
    deliver(&engine, "main", 3, 1);
    core.turns(1);
    let looks = core.dealer.desk_looks();
    for nth in 0..3 {
        deliver(&engine, "main", 4 + nth, 1);
        core.turns(1);
    }
    assert_eq!(core.dealer.desk_looks() - looks, 3);
    assert_eq!(
        [100, 101, 102, 103].map(|id| state_of(&engine, id)),
        [Issued; 4]
    );
    deliver(&engine, "main", 10, 9);
    core.turns(1);
    let large = (0..1000).map(|nth| state_of(&engine, 10_000 + nth));
    assert_eq!(large.filter(|state| *state == Issued).count(), 1);
    core.push(order(3, 0));
    let answered = core.turn(NOW);
    let is_issued = matches!(answered[0].verdict, Verdict::Issued { .. });
    assert!(
        is_issued,
        "what nobody in line can use is for anybody: {answered:?}"
    );
}

#[test]
fn a_line_is_sorted_anew_when_the_ways_change_and_nobody_overtakes_meanwhile() {
    // More than a turn sorts.
    const WAIT: u64 = 5000;
    let engine = sold_out(APART);
    let mut core = Core::new(&engine);
    for nth in 0..WAIT {
        // Every other goes the way that has no stock.
        core.push(waits(10_000 + nth, if nth % 2 == 0 { 7 } else { 0 }, 1));
    }
    core.turns(40);
    let lsn_of = |nth: u64| {
        let index = &engine.state.index;
        index.get(index.hash(u128::from(10_000 + nth))).unwrap().lsn
    };
    let mut line: Vec<u64> = (0..WAIT).collect();
    line.sort_unstable_by_key(|&nth| lsn_of(nth));
    let states = |nths: &[u64]| -> Vec<OrderState> {
        let nths = nths.iter();
        nths.map(|nth| state_of(&engine, u128::from(10_000 + nth)))
            .collect()
    };
    let odd: Vec<u64> = line.iter().copied().filter(|nth| nth % 2 == 1).collect();
    deliver(&engine, "main", 3, 2);
    core.push(order(3, 0));
    let mut answered = Vec::new();
    while answered.is_empty() {
        answered = core.turn(NOW);
    }
    let is_refused = matches!(answered[0].verdict, Verdict::Refused { .. });
    assert!(is_refused, "it came last: {answered:?}");
    assert_eq!(states(&odd[..3]), [Issued, Issued, Waiting]);

    line.retain(|nth| !odd[..2].contains(nth));
    engine.routes_load(TOGETHER, None).unwrap();
    deliver(&engine, "main", 4, 3);
    core.push(order(4, 0));
    let answered = (0..4).flat_map(|_| core.turn(NOW)).collect::<Vec<_>>();
    let is_refused = matches!(answered[0].verdict, Verdict::Refused { .. });
    assert!(is_refused, "it came last: {answered:?}");
    assert_eq!(states(&line[..4]), [Issued, Issued, Issued, Waiting]);
}

#[test]
fn an_order_that_cards_were_got_for_comes_first_if_there_are_enough_then() {
    let engine = sold_out(APART);
    let mut core = Core::new(&engine);
    let line = [(10, 1), (11, 1), (12, 1), (13, 2)];
    for (id, quantity) in line {
        core.wait_in_line(std::iter::once(waits(id, 0, quantity)));
    }
    let places = line.map(|(id, _)| {
        let index = &engine.state.index;
        let settled = index.get(index.hash(id.into())).unwrap();
        (settled.row(), settled.lsn)
    });
    let sku = engine.state.catalog.load().sku(1).unwrap().clone();
    let prefer = |id: usize| {
        let (row, lsn) = places[id - 10];
        sku.line.prefer(row, lsn);
    };
    let states = || line.map(|(id, _)| state_of(&engine, id.into()));
    prefer(12);
    deliver(&engine, "main", 3, 1);
    core.turns(1);
    assert_eq!(states(), [Waiting, Waiting, Issued, Waiting]);
    // Too few for it: they go as they would.
    prefer(13);
    deliver(&engine, "main", 4, 1);
    core.turns(1);
    assert_eq!(states(), [Issued, Waiting, Issued, Waiting]);
    // It has had its turn, and one that does not wait has none.
    prefer(10);
    deliver(&engine, "main", 5, 1);
    core.turns(1);
    assert_eq!(states(), [Issued, Issued, Issued, Waiting]);
    deliver(&engine, "main", 6, 2);
    core.turns(1);
    assert_eq!(states(), [Issued; 4]);
}

#[test]
fn ways_that_come_to_the_same_pools_are_one_and_rules_count_their_own() {
    const RICH: &str = "[[channel]]\nname = \"main\"\n[[channel]]\nname = \"spare\"\n[[rule]]\ntag = [7]\nlane = \"bulk\"\n\
        channels = [\"spare\", \"main\"]\n[[rule]]\nchannels = [{ main = 80, spare = 20 }]\n";
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    deliver(&engine, "main", 1, 1000);
    engine.routes_load(RICH, None).unwrap();
    let mut resolver = Router::new(&engine.routes, &engine.state.catalog);
    resolver.refresh(NOW);
    let numbering = resolver.numbering();
    let ask = |id: u64| order(id, if id.is_multiple_of(3) { 7 } else { 0 }).asked();
    let ways = |resolver: &mut Router| -> BTreeMap<Vec<String>, (u16, Vec<Asked>)> {
        let mut ways = BTreeMap::new();
        for asked in (1..=300).map(ask) {
            let way = resolver.way(&asked);
            assert_eq!(way.rule, u16::from(asked.tag == 0));
            let pools = &resolver.resolve(&asked).unwrap().pools;
            let names = pools.iter().map(|pool| pool.name.clone()).collect();
            let (known, orders) = ways.entry(names).or_insert((way.way, Vec::new()));
            assert_eq!(*known, way.way);
            orders.push(asked);
        }
        ways
    };
    let one = ways(&mut resolver);
    assert!(one.into_keys().eq([vec!["main".to_owned()]]));

    let mut core = Core::new(&engine);
    (1..=300).for_each(|id| core.push(order(id, ask(id).tag)));
    let mut issued = 0;
    while issued < 300 {
        issued += core.turn(NOW).len();
    }
    let counts = || -> Vec<u64> {
        let counts = engine.routes.load().rule_counts();
        counts.iter().map(|rule| rule.orders).collect()
    };
    assert_eq!(counts(), [100, 200]);

    // More cards of a pool that is known change no way, another pool does.
    deliver(&engine, "main", 2, 10);
    resolver.refresh(NOW);
    assert_eq!(resolver.numbering(), numbering);
    deliver(&engine, "spare", 3, 10);
    resolver.refresh(NOW);
    assert_ne!(resolver.numbering(), numbering);
    let two = ways(&mut resolver);
    let firsts = two.values().map(|(way, _)| *way);
    assert_eq!(firsts.clone().count(), 2);
    assert_ne!(firsts.clone().min(), firsts.max());
    let spare = &two[&vec!["spare".to_owned(), "main".to_owned()]].1;
    let by_weight = spare.iter().filter(|asked| asked.tag == 0).count();
    assert_eq!(spare.len() - by_weight, 100);
    assert!((20..60).contains(&by_weight), "{by_weight} of 200");
}
