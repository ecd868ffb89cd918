//! Which card a slot of a view is, and views that cannot be.

use super::*;
use crate::state::index::Spread;
use crate::state::record::{Fact, Record, Stamp};
use crate::state::{Hand, State};
use crate::store::BitsOnly;

const VIEW: View = View {
    of: 1,
    first: 4,
    cards: 3,
    uses: 2,
    unlimited: false,
    closed: false,
};

const REUSED: Reused = Reused {
    slab: 2,
    sku: 1,
    batch: 1,
    pool: 0,
    class_bytes: 48,
    view: VIEW,
};

#[test]
fn slots_are_cards_row_by_row() {
    let cards: Vec<u32> = (0..6).map(|slot| VIEW.card(slot)).collect();
    assert_eq!(cards, [4, 5, 6, 4, 5, 6]);
    let check = |card: u32, from: u32, expect: &[u32]| {
        let slots: Vec<u32> = VIEW.slots_of(card, from).collect();
        assert_eq!(slots, expect, "card {card} from {from}");
    };
    check(4, 0, &[0, 3]);
    check(6, 0, &[2, 5]);
    check(5, 1, &[1, 4]);
    check(5, 2, &[4]);
    check(5, 5, &[]);
    check(5, u32::MAX, &[]);
    check(3, 0, &[]);
    check(7, 0, &[]);
}

fn state() -> State {
    let spread = Spread {
        seed: [1, 2],
        shards: 1,
    };
    State::new(Box::new(BitsOnly), 0, spread)
}

fn slab(slab: u32, batch: u32) -> Fact<'static> {
    Fact::SlabAdded {
        slab,
        sku: 1,
        batch,
        pool: 0,
        cards: 10,
        class_bytes: 48,
        header_hash: [1; 32],
        grows: false,
    }
}

fn sealed(batch: u32, cards: u64, slabs: u32) -> Fact<'static> {
    Fact::BatchSealed {
        batch,
        sku: 1,
        pool: 0,
        cards,
        slabs,
        label: "a",
        pool_name: "main",
    }
}

fn apply(state: &State, facts: &[Fact<'_>]) -> Result<(), String> {
    let mut hand = Hand::new(state);
    let stamp = Stamp {
        unix_ms: 1,
        route_table: 0,
    };
    let sku = Fact::SkuCreated { sku: 1, name: "s" };
    [sku].iter().chain(facts).try_for_each(|&fact| {
        let record = Record { stamp, fact };
        let applied = state.apply(1, &record, &mut hand);
        applied.map_err(|unfit| unfit.to_string())
    })
}

#[test]
fn views_that_cannot_be_are_told() {
    let check = |reused: Reused, expect: Option<&str>| {
        let slots = reused.view.slots().map_or(6, u64::from);
        let other = [slab(7, 2), sealed(2, 10, 1)];
        let ours = [
            slab(1, 1),
            Fact::SlabReused(reused),
            sealed(1, 10 + slots, 2),
        ];
        let told = apply(&state(), &[&other[..], &ours].concat()).err();
        match (told, expect) {
            (None, None) => {}
            (Some(told), Some(expect)) => assert!(told.contains(expect), "{reused:?}: {told}"),
            (told, expect) => panic!("{reused:?}: {told:?}, and not {expect:?}"),
        }
    };
    let view = |view| Reused { view, ..REUSED };
    check(REUSED, None);
    check(view(View { first: 7, ..VIEW }), None);
    let beyond = Some("cards that the slab does not have");
    check(view(View { first: 8, ..VIEW }), beyond);
    let first = u32::MAX;
    check(view(View { first, ..VIEW }), beyond);
    check(view(View { of: 2, ..VIEW }), Some("comes before it"));
    check(view(View { of: 9, ..VIEW }), Some("comes before it"));
    check(view(View { of: 7, ..VIEW }), beyond);
    let class_bytes = 32;
    check(
        Reused {
            class_bytes,
            ..REUSED
        },
        beyond,
    );
    check(Reused { slab: 0, ..REUSED }, beyond);
    let none = Some("has no slots");
    check(view(View { uses: 0, ..VIEW }), none);
    check(view(View { cards: 0, ..VIEW }), none);
    let uses = 1 << 30;
    check(view(View { uses, ..VIEW }), none);
    let unlimited = true;
    check(view(View { unlimited, ..VIEW }), Some("more slots"));
}

#[test]
fn a_view_of_a_view_is_told() {
    let twice = Reused {
        slab: 3,
        view: View {
            of: 2,
            first: 0,
            ..VIEW
        },
        ..REUSED
    };
    let facts = [
        slab(1, 1),
        Fact::SlabReused(REUSED),
        Fact::SlabReused(twice),
        sealed(1, 10 + 6 + 6, 3),
    ];
    let told = apply(&state(), &facts).unwrap_err();
    assert!(told.contains("does not have"), "{told}");
}

#[test]
fn a_batch_counts_its_views_also_those_that_come_later() {
    let state = state();
    let facts = [
        slab(1, 1),
        Fact::SlabReused(REUSED),
        sealed(1, 16, 2),
        Fact::SlabReused(Reused { slab: 9, ..REUSED }),
    ];
    apply(&state, &facts).unwrap();
    assert_eq!(state.ledger().batches[&1].cards, 22);
    assert_eq!(state.ledger().slab_max, 9);
    let row = state.catalog.load().sku(1).unwrap().row();
    assert_eq!((row.free, row.imported), (22, 22));
    let again = State::new(
        Box::new(BitsOnly),
        0,
        Spread {
            seed: [3, 4],
            shards: 1,
        },
    );
    again.restore(state.snapshot()).unwrap();
    assert_eq!(again.digest(), state.digest());
    assert_eq!(again.snapshot(), state.snapshot());
    let short = [slab(1, 1), sealed(1, 16, 2)];
    let told = apply(&self::state(), &short).unwrap_err();
    assert!(
        told.contains("is sealed with 2 slabs of 16 cards"),
        "{told}"
    );
}
