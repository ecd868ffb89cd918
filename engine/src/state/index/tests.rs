use super::*;

fn new(seed: [u64; 2]) -> (Arc<OrderIndex>, IndexView) {
    let index = Arc::new(OrderIndex::new(0, Spread::seeded(seed)));
    let view = IndexView::new(&index);
    (index, view)
}

fn claim(view: &mut IndexView, id: u128) -> Claim {
    let hashed = view.index.hash(id);
    view.claim(hashed, None)
}

fn settle(view: &mut IndexView, place: Place, id: u128, lsn: u64, card: (u32, u32)) {
    let row = view.index.take_rows(1);
    view.index.put_one(row, id, lsn, card);
    view.publish(place, row);
}

fn put(view: &mut IndexView, id: u128, lsn: u64) {
    let Claim::Ours(place) = claim(view, id) else {
        panic!("{id} is new")
    };
    let card = ((id >> 3) as u32, id as u32);
    settle(view, place, id, lsn, card);
}

#[test]
fn an_id_is_claimed_once_and_then_known_for_ever() {
    let (index, mut view) = new([1, 2]);
    let Claim::Ours(place) = claim(&mut view, 7) else {
        panic!()
    };
    assert!(matches!(claim(&mut view, 7), Claim::InFlight));
    assert!(matches!(view.look(index.hash(7)), Look::InFlight));
    assert!(matches!(view.look(index.hash(8)), Look::Absent(Some(_))));
    settle(&mut view, place, 7, 40, (3, 9));
    let Claim::Known(settled) = claim(&mut view, 7) else {
        panic!()
    };
    assert_eq!((settled.lsn, settled.quantity), (40, 1));
    assert_eq!(index.cards(settled).collect::<Vec<_>>(), [(3, 9)]);
}

#[test]
fn many_cards_keep_their_order() {
    let (index, mut view) = new([1, 2]);
    for id in 1..=200u128 {
        let cards: Vec<_> = (0..1000).map(|n| (id as u32, n ^ 1)).collect();
        let Claim::Ours(place) = claim(&mut view, id) else {
            panic!()
        };
        let row = index.take_rows(1);
        index.put_many(
            row,
            id,
            id as u64,
            OrderState::Issued,
            cards.iter().copied(),
        );
        view.publish(place, row);
        assert_eq!(
            index
                .cards(index.get(index.hash(id)).unwrap())
                .collect::<Vec<_>>(),
            cards
        );
    }
}

#[test]
fn it_grows_without_losing_anything_and_stays_small() {
    let (index, mut view) = new([3, 4]);
    let count = 1_000_000u64;
    for n in 0..count {
        put(&mut view, u128::from(n) << 64 | 5, n + 1);
    }
    for n in 0..count {
        let id = u128::from(n) << 64 | 5;
        assert_eq!(
            index.get(index.hash(id)).map(|settled| settled.lsn),
            Some(n + 1),
            "{id}"
        );
    }
    assert_eq!(index.len(), count);
    let per_order = index.memory_bytes() as f64 / count as f64;
    assert!(per_order <= 48.0, "{per_order} bytes an order");
}

#[test]
fn claims_that_stay_open_over_a_growth_are_never_lost_or_given_twice() {
    let (_, mut view) = new([5, 6]);
    let mut open = Vec::new();
    let mut deferred = 0;
    for id in 0..200_000u128 {
        match claim(&mut view, id) {
            Claim::Ours(place) => open.push((place, id)),
            Claim::InFlight => deferred += 1,
            Claim::Known(_) => panic!("{id} was never settled"),
        }
    }
    assert!(deferred > 0, "the shards could not hold them all unsettled");
    for &(_, id) in &open {
        assert!(matches!(claim(&mut view, id), Claim::InFlight));
    }
    let settled: Vec<u128> = open.iter().map(|&(_, id)| id).collect();
    for (place, id) in open {
        settle(&mut view, place, id, 1, (0, 0));
    }
    for id in settled {
        assert!(matches!(claim(&mut view, id), Claim::Known(_)));
    }
}

#[test]
fn racing_threads_agree_on_one_winner_for_every_id() {
    let index = Arc::new(OrderIndex::new(0, Spread::seeded([7, 8])));
    let ids = 60_000u128;
    let winners: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let index = &index;
                scope.spawn(move || {
                    let (mut won, mut view) = (0, IndexView::new(index));
                    for id in 0..ids {
                        loop {
                            let hashed = index.hash(id);
                            let seen = match view.look(hashed) {
                                Look::Absent(seen) => seen,
                                _ => None,
                            };
                            match view.claim(hashed, seen) {
                                Claim::Ours(place) => {
                                    let row = index.take_rows(1);
                                    let card = (thread as u32, id as u32);
                                    index.put_one(row, id, id as u64 + 1, card);
                                    view.publish(place, row);
                                    won += 1;
                                    break;
                                }
                                Claim::InFlight => std::hint::spin_loop(),
                                Claim::Known(settled) => {
                                    assert_eq!(settled.lsn, id as u64 + 1);
                                    break;
                                }
                            }
                        }
                    }
                    won
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(winners.iter().sum::<u64>(), ids as u64);
    assert_eq!(index.len(), ids as u64);
}
