//! Sweeps of a store whose slabs are stand-ins, with a clock that the test moves.

use super::*;
use crate::dealer::{Dealer, OrderLimits};
use crate::disk::memory::MemoryDisk;
use crate::engine::fixture;
use crate::error::EngineError;
use crate::moves::Selection;
use crate::order::{Order, Outcome, Ticket, Verdict};
use crate::state::{NEVER, SlabBody, SlabFacts, SlabSource};
use croupier_protocol::{CardMove, CardRef, Refusal};

const BEGIN_S: u64 = 1_700_000_000;
const CARDS: u32 = 40;

/// One card in four never expires, the others one after the other, the last slot first: ten or twenty seconds apart.
fn expires_at_s(slot: u32) -> u64 {
    match slot % 4 {
        0 => 0,
        _ => BEGIN_S + u64::from(CARDS - slot) * 10,
    }
}

struct StandIns;

impl SlabSource for StandIns {
    fn body(&self, facts: &SlabFacts) -> Result<SlabBody, EngineError> {
        let SlabBody::Bits(bits, _) = SlabBody::bits(facts.cards) else {
            unreachable!("they are bits")
        };
        let expiries = (0..facts.cards).map(expires_at_s);
        Ok(SlabBody::Bits(bits, expiries.collect()))
    }
}

struct Shop {
    disk: MemoryDisk,
    engine: Engine,
    dealer: Dealer,
}

impl Shop {
    fn start(disk: MemoryDisk) -> Shop {
        let engine = fixture::start(&disk, StandIns).unwrap();
        let limits = OrderLimits::of(&engine.config);
        let dealer = Dealer::new(engine.state.clone(), &engine.routes, limits);
        Shop {
            disk,
            engine,
            dealer,
        }
    }

    fn open() -> Shop {
        let disk = fixture::new_disk();
        disk.set_unix_ms(BEGIN_S * 1000);
        let shop = Shop::start(disk);
        shop.engine.sku_create("steam-50").unwrap();
        shop.engine.record(&fixture::batch_of(1, CARDS)).unwrap();
        shop
    }

    fn slab(&self) -> Arc<SlabState> {
        let catalog = self.engine.state.catalog.load();
        catalog.slab(1).cloned().unwrap()
    }

    fn sweep(&self, now_ms: u64) -> u64 {
        self.disk.set_unix_ms(now_ms);
        let swept = self.engine.sweep_expired(now_ms).unwrap();
        assert_eq!(swept.holds, 0);
        swept.cards
    }

    fn issue(&mut self, id: u128, now_ms: u64) -> Verdict {
        let order = Order::issue(id, 1, 1, Ticket::single(0, 0));
        let mut out: Vec<Outcome> = Vec::new();
        self.dealer.refresh();
        let log = &self.engine.log;
        self.dealer.turn(now_ms, log, None, &[(1, order)], &mut out);
        while log.take_block() && log.write_block() {}
        out.pop().unwrap().verdict
    }
}

fn refusal(verdict: Verdict) -> Option<Refusal> {
    match verdict {
        Verdict::Refused { refusal, .. } => Some(refusal),
        _ => None,
    }
}

#[test]
fn each_sweep_takes_what_expires_by_then_and_knows_the_next() {
    let shop = Shop::open();
    let mut gone = 0;
    for now_s in BEGIN_S..BEGIN_S + 10 * u64::from(CARDS) + 20 {
        let is_due = |slot: &u32| (1..=now_s + 1).contains(&expires_at_s(*slot));
        let due: Vec<u32> = (0..CARDS).filter(is_due).collect();
        let now_ms = now_s * 1000;
        assert_eq!(
            shop.engine.is_sweep_due(now_ms),
            due.len() as u64 > gone,
            "at {now_s}"
        );
        assert_eq!(shop.sweep(now_ms), due.len() as u64 - gone, "at {now_s}");
        gone = due.len() as u64;
        let slab = shop.slab();
        for slot in 0..CARDS {
            let expect = match due.contains(&slot) {
                true => CardStatus::Void,
                false => CardStatus::Free,
            };
            assert_eq!(slab.status(slot), expect, "card {slot} at {now_s}");
        }
        let next = (0..CARDS).map(expires_at_s).filter(|&s| s > now_s + 1);
        assert_eq!(slab.good_until_s(), next.min().unwrap_or(NEVER));
        assert!(slab.pool.is_good(now_ms));
    }
    assert_eq!(gone, u64::from(CARDS) * 3 / 4);
    assert_eq!(shop.slab().pool.available(), u64::from(CARDS) / 4);
}

#[test]
fn a_late_sweep_shuts_the_pool_also_after_a_start() {
    let mut shop = Shop::open();
    let last_s = expires_at_s(1);
    assert_eq!(refusal(shop.issue(1, BEGIN_S * 1000)), None);
    // Half of them have expired, and nobody has swept.
    let now_ms = (BEGIN_S + 5 * u64::from(CARDS)) * 1000;
    assert_eq!(refusal(shop.issue(2, now_ms)), Some(Refusal::Busy));
    assert_eq!(
        refusal(shop.issue(1, now_ms)),
        None,
        "it has had its card before"
    );
    drop((shop.dealer, shop.engine));
    let mut shop = Shop::start(shop.disk);
    assert_eq!(refusal(shop.issue(2, now_ms)), Some(Refusal::Busy));
    assert_eq!(shop.slab().pool.available(), u64::from(CARDS) - 1);
    assert!(shop.sweep(now_ms) > 0);
    assert_eq!(refusal(shop.issue(2, now_ms)), None);
    shop.sweep(last_s * 1000);
    let mut left = 0;
    while refusal(shop.issue(100 + left, last_s * 1000)).is_none() {
        left += 1;
    }
    // Those that never expire, but for the first that was dealt, and maybe the second.
    assert!((8..=9).contains(&left), "{left}");
}

#[test]
fn a_card_that_comes_back_late_is_seen() {
    let shop = Shop::open();
    let card = CardRef {
        slab: 1,
        slot: 1,
        generation: 0,
    };
    let cards = Selection::Cards(vec![card]);
    let begin_ms = BEGIN_S * 1000;
    let suspend = shop.engine.move_cards(&cards, CardMove::Suspend, false);
    assert_eq!(suspend.unwrap().moved, 1);
    assert_eq!(shop.sweep(begin_ms), 0);
    let resumed = shop.engine.move_cards(&cards, CardMove::Resume, false);
    assert_eq!(resumed.unwrap().moved, 1);
    let last_ms = expires_at_s(1) * 1000;
    assert!(!shop.slab().pool.is_good(last_ms));
    shop.sweep(last_ms);
    assert_eq!(shop.slab().status(1), CardStatus::Void);
    let again = shop.engine.move_cards(&cards, CardMove::Resume, false);
    assert_eq!(again.unwrap_err().refusal, Refusal::CardNotInState);
}
