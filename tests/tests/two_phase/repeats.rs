//! The same step again, over kills and folds: the first answer; another one under the same id: none.

use std::collections::HashSet;
use std::time::Duration;

use croupier_client::{Order, OrderId, OrderOutcome, OrderStep, Refusal, SkuId};
use croupier_tests::Store;

use super::shop::{End, LONG, SHORT, Shop, counts_of, refusal_of, repeated, verified};

/// Steps and what was answered first; whatever is refused is refused again.
type Given = Vec<(OrderStep, OrderOutcome)>;

/// Orders in all states, with steps that were taken and steps that are other ones under the same id.
async fn all_kinds(shop: &Shop) -> (Given, Vec<(OrderStep, Refusal)>) {
    let mut given = Given::new();
    let mut other = Vec::new();
    let id = || OrderId::new_v7();
    let ten = |minutes: u64| Duration::from_secs(60 * minutes);

    let issued = id();
    let step = shop.issue_of(issued, 2);
    given.push((step, shop.ask(step).await));
    other.push((shop.issue_of(issued, 1), Refusal::OrderIdReused));

    let held = id();
    let reserve = shop.reserve_of(held, 3, LONG);
    given.push((reserve, shop.ask(reserve).await));
    let unknown = OrderStep::reserve(Order::new(held, SkuId(2)).quantity(3), LONG);
    other.extend([
        (shop.reserve_of(held, 3, ten(10)), Refusal::OrderIdReused),
        (shop.reserve_of(held, 2, LONG), Refusal::OrderIdReused),
        (unknown, Refusal::OrderIdReused),
        (shop.issue_of(held, 3), Refusal::OrderIdReused),
        (OrderStep::commit(held).quantity(4), Refusal::NotSoManyHeld),
    ]);

    // The first end is told again although there is a later one.
    let extended = id();
    for step in [
        shop.reserve_of(extended, 3, ten(10)),
        OrderStep::extend(extended, 1, LONG),
    ] {
        given.push((step, shop.ask(step).await));
    }
    other.extend([
        (
            OrderStep::extend(extended, 1, ten(10)),
            Refusal::OrderIdReused,
        ),
        (
            OrderStep::extend(extended, 2, LONG),
            Refusal::NoExtensionLeft,
        ),
        (shop.reserve_of(extended, 3, LONG), Refusal::OrderIdReused),
    ]);

    for (quantity, same, others) in [
        (0, [0, 3], [1, 2]),
        (3, [0, 3], [1, 4]),
        (2, [2, 2], [0, 3]),
        (1, [1, 1], [0, 3]),
    ] {
        for late in [false, true] {
            let id = match late {
                true => shop.expired(3).await,
                false => shop.reserve(3, LONG).await,
            };
            let commit = |quantity| OrderStep::commit(id).quantity(quantity);
            let answer = shop.ask(commit(quantity)).await;
            assert_eq!(refusal_of(&answer), None);
            for quantity in same {
                given.push((commit(quantity), answer.clone()));
                given.push((commit(quantity).only_held(), answer.clone()));
            }
            other.extend(others.map(|quantity| (commit(quantity), Refusal::OrderIdReused)));
            other.push((OrderStep::cancel(id), Refusal::AlreadyCommitted));
        }
    }

    let cancelled = shop.reserve(2, LONG).await;
    let cancel = OrderStep::cancel(cancelled);
    given.push((cancel, shop.ask(cancel).await));
    other.push((OrderStep::commit(cancelled), Refusal::AlreadyCancelled));

    let expired = shop.expired(2).await;
    other.extend([
        (OrderStep::commit(expired).only_held(), Refusal::Expired),
        (OrderStep::extend(expired, 1, LONG), Refusal::Expired),
        (shop.reserve_of(expired, 2, SHORT), Refusal::Expired),
        (
            OrderStep::commit(expired).quantity(3),
            Refusal::NotSoManyHeld,
        ),
        (OrderStep::commit(id()), Refusal::OrderNotFound),
    ]);
    assert!(given.iter().all(|(_, first)| refusal_of(first).is_none()));
    (given, other)
}

#[tokio::test]
async fn a_step_repeated_is_answered_as_first_over_kills_and_folds_and_others_are_refused() {
    let mut shop = Shop::open(Store::new(), 41, 200).await;
    shop.client.sku_create("t").await.expect("another SKU");
    let (given, other) = all_kinds(&shop).await;
    let ids: HashSet<OrderId> = given.iter().map(|(step, _)| step.order.order_id).collect();
    let ids: Vec<OrderId> = ids.into_iter().collect();
    let stands = shop.client.orders(&ids).await.expect("look-ups");
    let stock = shop.counts().await;
    for end in [None, Some(End::Kill), Some(End::Stop), Some(End::Kill)] {
        if let Some(end) = end {
            shop = shop
                .reopened_after(end, |store| {
                    let verified = verified(store);
                    assert_eq!(counts_of(&verified), stock, "{end:?}");
                    let folded = verified["checkpoint_orders"].as_u64();
                    assert!(end == End::Kill || folded > Some(10), "{verified}");
                })
                .await;
        }
        let again = shop.client.orders(&ids).await.expect("look-ups");
        assert_eq!(again, stands, "{end:?}");
        for (step, first) in &given {
            let answer = shop.ask(*step).await;
            assert_eq!(answer, repeated(first), "after {end:?}: {step:?}");
        }
        for (step, refusal) in &other {
            let answer = shop.ask(*step).await;
            assert_eq!(refusal_of(&answer), Some(*refusal), "{end:?}: {step:?}");
        }
        assert_eq!(shop.counts().await, stock, "{end:?}");
    }
}
