use loom::thread;

use super::*;
use crate::state::record::Credits;

const GONE: ReleasedRow = ReleasedRow {
    sku: 1,
    was_issue: false,
};
const CARDS: [(u32, u32); 2] = [(1, 2), (3, 4)];

/// Growth is not in here: loom cannot see through the pointers of `arc_swap`. It is in `crate::models`.
#[test]
fn one_of_two_claims_wins_and_whoever_sees_it_sees_its_cards() {
    crate::sync::model("index: two claims and a look", Some(3), || {
        let spread = Spread {
            seed: [1, 2],
            shards: 1,
        };
        let index = Arc::new(OrderIndex::new(0, spread));
        let claimers: Vec<_> = (0..2)
            .map(|_| {
                let index = index.clone();
                thread::spawn(move || {
                    let mut view = IndexView::new(&index);
                    match view.claim(index.hash(7), None) {
                        Claim::Ours(place) => {
                            let row = index.take_rows(1);
                            index.put_many(row, 7, 40, OrderState::Issued, CARDS.into_iter());
                            view.publish(place, row);
                            1
                        }
                        Claim::InFlight => 0,
                        Claim::Known(settled) => {
                            assert!(index.cards(settled).eq(CARDS));
                            0
                        }
                    }
                })
            })
            .collect();
        let mut view = IndexView::new(&index);
        if let Look::Known(settled) = view.look(index.hash(7)) {
            assert_eq!(settled.lsn, 40);
            assert!(index.cards(settled).eq(CARDS));
        }
        let winners: usize = claimers
            .into_iter()
            .map(|claimer| claimer.join().unwrap())
            .sum();
        assert_eq!(winners, 1, "one of them deals");
        assert!(index.get(index.hash(7)).is_some());
    });
}

/// A commit and the end of its time want the same hold, and a reader looks at it: one of the two has it, and the reader sees
/// the hold as it was, or nothing of it.
#[test]
fn one_of_two_changes_gets_a_hold_and_a_reader_sees_it_whole_or_not_at_all() {
    crate::sync::model("index: two changes of a hold and a reader", Some(3), || {
        let spread = Spread {
            seed: [1, 2],
            shards: 1,
        };
        let index = Arc::new(OrderIndex::new(0, spread));
        let hold = Hold {
            sku: 1,
            credits: Credits([(0, 2), (0, 0), (0, 0), (0, 0)]),
            card: None,
            waits: None,
            fewer: 0,
            reserved_lsn: 40,
            reserved_unix_ms: 5,
            ttl_ms: 6,
            extensions: 0,
            extended_ttl_ms: 0,
            ends_unix_ms: 11,
        };
        let mut view = IndexView::new(&index);
        let Claim::Ours(place) = view.claim(index.hash(7), None) else {
            unreachable!("nobody else is there")
        };
        let row = index.take_rows(1);
        let seen = index.put_held(&mut view.places, row, 7, 40, &hold);
        view.publish(place, row);
        let changes: Vec<_> = [None, Some(OrderState::Expired)]
            .into_iter()
            .map(|released| {
                let index = index.clone();
                thread::spawn(move || {
                    let Some(claimed) = index.claim_order(seen) else {
                        return 0;
                    };
                    match released {
                        None => {
                            let longer = hold.extended(8, 20);
                            index.change_hold(claimed, 41, &longer);
                        }
                        Some(state) => {
                            let places = &mut Places::default();
                            index.end_without(places, claimed, 42, state, GONE);
                        }
                    }
                    1
                })
            })
            .collect();
        if let Look::Known(settled) = index.look(index.hash(7)) {
            match (settled.state, settled.lsn) {
                (OrderState::Held, 40) => {
                    assert!(index.hold(settled).is_none_or(|seen| seen == hold));
                }
                (OrderState::Held, 41) => {
                    assert_eq!(index.hold(settled), Some(hold.extended(8, 20)));
                }
                (OrderState::Expired, 42) => assert_eq!(index.released(settled), Some(GONE)),
                other => panic!("{other:?}"),
            }
        }
        let changed: usize = changes
            .into_iter()
            .map(|change| change.join().unwrap())
            .sum();
        assert_eq!(changed, 1, "one of them has it");
    });
}

/// Two want the same two ids, all or none, in the order of their numbers; a third wants one of them alone. Both ids are looked for
/// from the same slot on. Who cannot have both gives the first up: then it is as free as before, whoever has gone past its slot.
#[test]
fn ids_that_go_together_are_claimed_all_or_none() {
    crate::sync::model("index: two chains and a lone order", Some(3), || {
        let spread = Spread {
            seed: [1, 2],
            shards: 1,
        };
        // As large as not to grow.
        let index = Arc::new(OrderIndex::new(9, spread));
        let start = |id| index.shards[0].load().start(index.hash(id).tag);
        let first = 1;
        let second = (2..).find(|&id| start(id) == start(first)).expect("one");
        let asked = [vec![first, second], vec![first, second], vec![second]];
        let claimers = asked.map(|ids| {
            let index = index.clone();
            thread::spawn(move || take_all(&index, &ids))
        });
        let [one, other, lone] = claimers.map(|claimer| claimer.join().unwrap());
        let is_known = |id| index.get(index.hash(id)).is_some();
        assert!(!(one && other), "one chain has its first id");
        assert!(!(lone && (one || other)), "one of them has the second id");
        assert_eq!(
            is_known(first),
            one || other,
            "who has not both has neither"
        );
        assert_eq!(is_known(second), one || other || lone);
        // What nobody has, anybody may have now.
        for id in [first, second] {
            let was_known = is_known(id);
            assert_eq!(take_all(&index, &[id]), !was_known);
            assert!(is_known(id));
        }
        assert_eq!((index.len(), index.len_hint()), (2, 2));
    });
}

/// Claims all of `ids` and settles them, or gives them up; tells which.
fn take_all(index: &Arc<OrderIndex>, ids: &[u128]) -> bool {
    let mut view = IndexView::new(index);
    let mut places = Vec::new();
    for &id in ids {
        match view.claim(index.hash(id), None) {
            Claim::Ours(place) => places.push(place),
            Claim::InFlight | Claim::Known(_) => {
                places.into_iter().for_each(|place| view.give_up(place));
                return false;
            }
        }
    }
    for (place, &id) in places.into_iter().zip(ids) {
        let row = index.take_rows(1);
        index.put_one(row, id, 40 + id as u64, (1, 1));
        view.publish(place, row);
    }
    true
}
