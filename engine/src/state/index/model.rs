use loom::thread;

use super::*;

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
                            index.put_many(row, 7, 40, CARDS.into_iter());
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
