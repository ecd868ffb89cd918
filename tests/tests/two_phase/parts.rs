//! How many cards a hold takes, of which pools, and where they go that are not committed.

use std::collections::{BTreeMap, HashSet};

use croupier_client::{OrderId, OrderOutcome, OrderStep, Refusal};
use croupier_tests::Store;

use super::shop::{End, LONG, SHORT, Shop, counts_of, refusal_of, repeated, verified};

/// In how many slabs how many cards of it lie.
fn cards_by_slab(outcome: &OrderOutcome) -> BTreeMap<u32, usize> {
    let cards = &outcome.issued().expect("it has cards").cards;
    let mut by_slab = BTreeMap::new();
    for card in cards {
        *by_slab.entry(card.card.slab).or_default() += 1;
    }
    by_slab
}

#[tokio::test]
async fn what_is_not_committed_goes_back_and_no_more_than_is_held_is_committed() {
    let shop = Shop::open(Store::new(), 42, 20).await;
    let mut stock = [20, 0, 0, 0];
    let id = shop.reserve(5, LONG).await;
    assert_eq!(shop.counts().await, [15, 5, 0, 0]);
    for quantity in [6, 4_000] {
        let answer = shop.ask(OrderStep::commit(id).quantity(quantity)).await;
        assert_eq!(refusal_of(&answer), Some(Refusal::NotSoManyHeld));
        assert_eq!(shop.counts().await, [15, 5, 0, 0]);
    }
    let cards = shop.client.commit_part(id, 2).await.expect("two of five");
    assert_eq!(cards.cards.len(), 2);
    stock[0] -= 2;
    stock[2] += 2;
    assert_eq!(shop.counts().await, stock);

    let too_many = OrderId::new_v7();
    let answer = shop.ask(shop.reserve_of(too_many, 19, LONG)).await;
    assert_eq!(refusal_of(&answer), Some(Refusal::OutOfStock));
    assert_eq!(shop.look_up(too_many).await, None);
    assert_eq!(shop.counts().await, stock);
    // A refusal leaves no trace: the id may try again, and all may be held by one.
    let answer = shop.ask(shop.reserve_of(too_many, 18, LONG)).await;
    assert_eq!(refusal_of(&answer), None);
    assert_eq!(shop.counts().await, [0, 18, 2, 0]);
    for step in [
        shop.issue_of(OrderId::new_v7(), 1),
        shop.reserve_of(OrderId::new_v7(), 1, LONG),
    ] {
        let answer = shop.ask(step).await;
        assert_eq!(refusal_of(&answer), Some(Refusal::OutOfStock));
    }
    let all = shop.client.commit(too_many).await.expect("all are held");
    assert_eq!(shop.counts().await, [0, 0, 20, 0]);
    let all = all.cards.iter().chain(&cards.cards);
    let all: HashSet<_> = all.map(|card| card.card).collect();
    assert_eq!(all.len(), 20, "no card twice");
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 20, 0]);
}

#[tokio::test]
async fn a_hold_takes_from_several_pools_and_gives_back_to_the_same() {
    // Slab 1: five cards of the pool main. Slab 2: three of vip.
    let mut shop = Shop::open(Store::new(), 43, 5).await;
    shop.restock("vip", 3).await;
    let routes = "[[rule]]\npools = [\"vip\", \"main\"]\n";
    shop.client.routes_load(routes).await.expect("a table");

    for round in 0..4 {
        let what = format!("round {round}");
        let id = shop.reserve(5, LONG).await;
        let rest = shop.reserve(3, LONG).await;
        assert_eq!(shop.counts().await, [0, 8, 0, 0], "{what}");
        if round == 1 {
            shop = shop.reopened(End::Kill).await;
        }
        if round == 2 {
            shop = shop.reopened(End::Stop).await;
        }
        shop.client.cancel(id).await.expect("it is held");
        assert_eq!(shop.counts().await, [5, 3, 0, 0], "{what}");
        // Those that came back are vip's three and two others; the other hold has the rest.
        let issued = shop.reserve(4, SHORT).await;
        shop.expire(issued).await;
        shop.client.cancel(rest).await.expect("it is held");
        assert_eq!(shop.counts().await, [8, 0, 0, 0], "{what}");
    }
    let part = shop.reserve(5, LONG).await;
    let part = shop.ask(OrderStep::commit(part).quantity(2)).await;
    assert_eq!(cards_by_slab(&part), [(2, 2)].into());
    assert_eq!(shop.counts().await, [6, 0, 2, 0]);
    let both = shop.reserve(3, LONG).await;
    shop = shop.reopened(End::Kill).await;
    let both = shop.ask(OrderStep::commit(both)).await;
    assert_eq!(cards_by_slab(&both), [(1, 2), (2, 1)].into());
    let last = shop.reserve(3, LONG).await;
    let last = shop.ask(OrderStep::commit(last)).await;
    assert_eq!(cards_by_slab(&last), [(1, 3)].into());
    assert_eq!(shop.counts().await, [0, 0, 8, 0]);
    shop.server.stop().ok();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 8, 0]);
}

#[tokio::test]
async fn a_hold_takes_from_four_pools_at_most() {
    let mut shop = Shop::open(Store::new(), 44, 1).await;
    for pool in ["b", "c", "d", "e"] {
        shop.restock(pool, 1).await;
    }
    let routes = "[[rule]]\npools = [\"main\", \"b\", \"c\", \"d\", \"e\"]\n";
    shop.client.routes_load(routes).await.expect("a table");
    let five = OrderId::new_v7();
    let answer = shop.ask(shop.reserve_of(five, 5, LONG)).await;
    assert_eq!(refusal_of(&answer), Some(Refusal::OutOfStock));
    assert_eq!(
        (shop.look_up(five).await, shop.counts().await[0]),
        (None, 5)
    );
    let four = shop.reserve(4, LONG).await;
    assert_eq!(shop.counts().await, [1, 4, 0, 0]);
    shop = shop.reopened(End::Kill).await;
    let answer = shop.ask(OrderStep::commit(four)).await;
    assert_eq!(cards_by_slab(&answer).len(), 4);
    shop.issue(1).await;
    assert_eq!(shop.counts().await, [0, 0, 5, 0]);
}

#[tokio::test]
async fn a_partial_issue_takes_what_there_is_once() {
    let mut shop = Shop::open(Store::new(), 47, 7).await;
    shop.restock("vip", 2).await;
    let id = OrderId::new_v7();
    let part = |quantity| shop.issue_of(id, quantity).partial();
    let steps = [
        part(12),
        part(11),
        shop.issue_of(id, 12),
        shop.issue_of(id, 9),
    ];
    let first = shop.ask(steps[0]).await;
    let cards = &first.issued().expect("nine of twelve").cards;
    assert_eq!(cards.len(), 9);
    assert_eq!(shop.counts().await, [0, 0, 9, 0]);
    let none = shop
        .ask(shop.issue_of(OrderId::new_v7(), 2).partial())
        .await;
    assert_eq!(refusal_of(&none), Some(Refusal::OutOfStock));

    // With stock there is nothing partial about it, and an order stays what it was.
    shop.restock("main", 5).await;
    let enough = OrderId::new_v7();
    let answer = shop.ask(shop.issue_of(enough, 3).partial()).await;
    assert_eq!(answer.issued().expect("three").cards.len(), 3);
    // One card of two.
    let one = OrderId::new_v7();
    shop.issue(1).await;
    let single = shop.ask(shop.issue_of(one, 2).partial()).await;
    assert_eq!(single.issued().expect("the last").cards.len(), 1);
    let stood = shop.counts().await;
    assert_eq!(stood, [0, 0, 14, 0]);
    for end in [None, Some(End::Kill), Some(End::Stop), Some(End::Kill)] {
        if let Some(end) = end {
            shop = shop.reopened(end).await;
        }
        for (step, answer) in [(steps[0], &first), (steps[2], &first)] {
            assert_eq!(shop.ask(step).await, repeated(answer), "{end:?}");
        }
        for step in [steps[1], steps[3]] {
            let refusal = refusal_of(&shop.ask(step).await);
            assert_eq!(refusal, Some(Refusal::OrderIdReused), "{end:?}");
        }
        let again = shop.ask(shop.issue_of(one, 2)).await;
        assert_eq!(again, repeated(&single), "{end:?}");
        let other = shop.ask(shop.issue_of(one, 1)).await;
        assert_eq!(refusal_of(&other), Some(Refusal::OrderIdReused), "{end:?}");
        assert_eq!(shop.look_up(id).await.as_ref(), Some(&first), "{end:?}");
        assert_eq!(shop.counts().await, stood);
    }
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), stood);
}

#[tokio::test]
async fn a_partial_hold_takes_what_there_is_once() {
    let mut shop = Shop::open(Store::new(), 48, 7).await;
    shop.restock("vip", 2).await;
    let id = OrderId::new_v7();
    let part = |quantity| shop.reserve_of(id, quantity, LONG).partial();
    let steps = [
        part(12),
        part(11),
        shop.reserve_of(id, 12, LONG),
        shop.reserve_of(id, 9, LONG),
    ];
    let first = shop.ask(steps[0]).await;
    let OrderOutcome::Held(held) = &first else {
        panic!("{first:?}");
    };
    assert_eq!(held.quantity, 9, "nine of twelve");
    assert_eq!(shop.counts().await, [0, 9, 0, 0]);
    let none = shop.reserve_of(OrderId::new_v7(), 2, LONG).partial();
    let none = shop.ask(none).await;
    assert_eq!(refusal_of(&none), Some(Refusal::OutOfStock));
    for end in [None, Some(End::Kill), Some(End::Stop), Some(End::Kill)] {
        if let Some(end) = end {
            shop = shop.reopened(end).await;
        }
        for step in [steps[0], steps[2]] {
            assert_eq!(shop.ask(step).await, repeated(&first), "{end:?}");
        }
        for step in [steps[1], steps[3]] {
            let refusal = refusal_of(&shop.ask(step).await);
            assert_eq!(refusal, Some(Refusal::OrderIdReused), "{end:?}");
        }
        let more = shop.ask(OrderStep::commit(id).quantity(10)).await;
        assert_eq!(refusal_of(&more), Some(Refusal::NotSoManyHeld), "{end:?}");
        assert_eq!(shop.counts().await, [0, 9, 0, 0]);
    }
    // An extension changes nothing about that.
    shop.client.extend(id, 1, LONG * 2).await.expect("once");
    assert_eq!(shop.ask(steps[0]).await, repeated(&first));
    let all = shop.client.commit(id).await.expect("all that it holds");
    assert_eq!(all.cards.len(), 9);
    assert_eq!(shop.counts().await, [0, 0, 9, 0]);

    shop.restock("main", 3).await;
    // With stock there is nothing partial about it; what is given back is there for the next.
    for (asks, holds) in [(3, 3), (4, 3)] {
        let id = OrderId::new_v7();
        let answer = shop.ask(shop.reserve_of(id, asks, LONG).partial()).await;
        let OrderOutcome::Held(held) = &answer else {
            panic!("{answer:?}");
        };
        assert_eq!(held.quantity, holds);
        shop.client.cancel(id).await.expect("it is held");
        assert_eq!(shop.counts().await, [3, 0, 9, 0]);
    }
    let short = OrderId::new_v7();
    shop.ask(shop.reserve_of(short, 5, SHORT).partial()).await;
    shop.expire(short).await;
    let late = shop.client.commit(short).await.expect("others are free");
    assert_eq!(late.cards.len(), 3, "as many as it held");
    assert_eq!(shop.counts().await, [0, 0, 12, 0]);
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 12, 0]);
}

#[tokio::test]
async fn a_partial_hold_takes_from_three_pools_at_most() {
    let mut shop = Shop::open(Store::new(), 49, 1).await;
    for pool in ["b", "c", "d"] {
        shop.restock(pool, 1).await;
    }
    let routes = "[[rule]]\npools = [\"main\", \"b\", \"c\", \"d\"]\n";
    shop.client.routes_load(routes).await.expect("a table");
    let id = OrderId::new_v7();
    let answer = shop.ask(shop.reserve_of(id, 4, LONG).partial()).await;
    assert!(matches!(&answer, OrderOutcome::Held(held) if held.quantity == 3));
    assert_eq!(shop.counts().await, [1, 3, 0, 0]);
    shop = shop.reopened(End::Kill).await;
    let answer = shop.ask(OrderStep::commit(id)).await;
    assert_eq!(cards_by_slab(&answer).len(), 3);
    shop.issue(1).await;
    assert_eq!(shop.counts().await, [0, 0, 4, 0]);
}
