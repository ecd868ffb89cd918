//! Cards that come one by one, as a state sees them; additions that cannot be.

use super::*;
use crate::card::CardStatus;
use crate::slab::claim;
use crate::state::digest::digest_of;
use crate::state::index::Spread;
use crate::state::record::{Fact, Record, Stamp};
use crate::state::{Hand, StateSeed};
use crate::store::BitsOnly;

const ROOM: u32 = 100;

fn state() -> State {
    let spread = Spread {
        seed: [1, 2],
        shards: 1,
    };
    State::new(Box::new(BitsOnly), 0, spread)
}

fn slab(slab: u32, grows: bool) -> [Fact<'static>; 2] {
    let added = Fact::SlabAdded {
        slab,
        sku: 1,
        batch: slab,
        pool: 0,
        cards: ROOM,
        class_bytes: 48,
        header_hash: [1; 32],
        grows,
    };
    let sealed = Fact::BatchSealed {
        batch: slab,
        sku: 1,
        pool: 0,
        cards: if grows { 0 } else { ROOM.into() },
        slabs: 1,
        label: "a",
        pool_name: "main",
    };
    [added, sealed]
}

fn added(slab: u32, first: u32, cards: u32) -> Fact<'static> {
    let crcs = [first, cards, 7];
    Fact::CardsAdded(Added {
        slab,
        sku: 1,
        batch: slab,
        first,
        cards,
        crcs,
    })
}

fn apply(state: &State, facts: &[Fact<'_>]) -> Result<(), String> {
    let mut hand = Hand::new(state);
    let stamp = Stamp {
        unix_ms: 1,
        route_table: 0,
    };
    facts.iter().try_for_each(|&fact| {
        let record = Record { stamp, fact };
        let applied = state.apply(1, &record, &mut hand);
        applied.map_err(|unfit| unfit.to_string())
    })
}

fn with_slab() -> State {
    let state = state();
    apply(&state, &[Fact::SkuCreated { sku: 1, name: "s" }]).unwrap();
    apply(&state, &slab(1, true)).unwrap();
    state
}

fn statuses(state: &State) -> Vec<Vec<u32>> {
    let catalog = state.catalog.load();
    let slab = catalog.slab(1).unwrap();
    let all = [CardStatus::Free, CardStatus::Issued];
    let slots = all.map(|status| claim::slots_in(slab.slots_that_are(status)).collect());
    slots.to_vec()
}

#[test]
fn what_is_not_there_is_nothing_to_anybody_and_what_comes_is_free() {
    let state = with_slab();
    let stock = || state.catalog.load().sku(1).unwrap().stock();
    let pool = state.catalog.load().sku(1).unwrap().pools.load()[0].clone();
    assert_eq!((stock().free, stock().imported), (0, 0));
    assert_eq!(statuses(&state), [[0; 0]; 2]);
    apply(&state, &[added(1, 0, 3), added(1, 3, 1)]).unwrap();
    assert_eq!((stock().free, stock().imported), (4, 4));
    assert_eq!(statuses(&state), [vec![0, 1, 2, 3], vec![]]);
    assert_eq!(pool.take_credits(9), 4);
    let catalog = state.catalog.load();
    let slab = catalog.slab(1).unwrap();
    let (mut cursor, mut got) = (0, Vec::new());
    claim::take_in(slab.words(), ROOM, &mut cursor, 2, 9, |slot| got.push(slot));
    assert_eq!(got, [0, 1, 2, 3]);
    assert_eq!(statuses(&state), [vec![], vec![0, 1, 2, 3]]);
    assert_eq!(state.ledger().batches[&1].cards, 4);
}

#[test]
fn a_checkpoint_holds_how_far_it_has_grown() {
    let facts = [added(1, 0, 3), added(1, 3, 60)];
    let state = with_slab();
    apply(&state, &facts).unwrap();
    let (snapshot, orders) = (state.snapshot(), state.orders());
    let again = self::state();
    again.restore(snapshot.clone()).unwrap();
    assert_eq!(again.snapshot(), snapshot);
    assert_eq!(again.digest(), state.digest());
    let counted = State::counting(Box::new(BitsOnly), StateSeed::default());
    counted.restore(snapshot.clone()).unwrap();
    for state in [&again, &counted, &state] {
        apply(state, &[added(1, 63, 37)]).unwrap();
    }
    assert_eq!(counted.snapshot(), state.snapshot());
    assert_eq!(digest_of(&again.snapshot(), orders), state.digest());
    let mut fewer = snapshot.clone();
    fewer.slabs[0].0.grown = Some(Grown {
        cards: 62,
        ..fewer.slabs[0].0.grown.unwrap()
    });
    let told = self::state().restore(fewer).unwrap_err().to_string();
    assert_eq!(told, "slab 1 has free cards that are not there");
}

#[test]
fn additions_that_cannot_be_are_told() {
    let check = |before: &[Fact<'_>], fact, expect: &str| {
        let state = with_slab();
        apply(&state, &slab(2, false)).unwrap();
        apply(&state, before).unwrap();
        let digest = state.digest();
        let told = apply(&state, &[fact]).unwrap_err();
        assert!(told.contains(expect), "{told}");
        assert_eq!(state.digest(), digest);
    };
    check(&[], added(3, 0, 1), "which is not there");
    check(&[], added(2, 0, 1), "does not grow");
    check(&[], added(1, 1, 1), "do not follow");
    let Fact::CardsAdded(one) = added(1, 0, 1) else {
        unreachable!("it is one")
    };
    let other = "of another SKU or batch";
    check(&[], Fact::CardsAdded(Added { sku: 2, ..one }), other);
    check(&[], Fact::CardsAdded(Added { batch: 2, ..one }), other);
    check(&[], added(1, 0, 0), "no room");
    check(&[], added(1, 0, 101), "no room");
    check(&[added(1, 0, 100)], added(1, 100, 1), "no room");
    check(&[added(1, 0, 2)], added(1, 0, 2), "do not follow");
}
