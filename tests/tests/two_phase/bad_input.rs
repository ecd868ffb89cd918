//! Steps that cannot be meant, on the wire.

use croupier_client::{OrderId, OrderOutcome, Refusal, SkuId, Step, StepItem};
use croupier_tests::{Store, Wire};

use super::shop::{LONG, Shop, counts_of, refusal_of, verified};

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_changes_nothing() {
    let store = Store::new().with("--quantity-max", 50);
    let shop = Shop::open(store, 52, 100).await;
    let held = shop.reserve(40, LONG).await;
    let (stock, stood) = (shop.counts().await, shop.look_up(held).await);
    let (mut wire, _) = Wire::greeted(shop.server.addr());
    let new = |step| StepItem {
        ttl_ms: match step {
            Step::Reserve => 60_000,
            _ => 0,
        },
        ..StepItem::one(OrderId::new_v7(), shop.sku)
    };
    let of = StepItem::of(held);
    let extend = StepItem {
        quantity: 1,
        ttl_ms: 60_000,
        ..of
    };
    let reserve = new(Step::Reserve);
    let unknown = StepItem::of(OrderId::new_v7());
    let zero = OrderId::from_u128(0);
    use Refusal::*;
    #[rustfmt::skip]
    let cases = [
        (Step::Commit, StepItem { flags: 2, ..of }, UnsupportedFlag),
        (Step::Commit, StepItem { flags: 3, ..of }, UnsupportedFlag),
        (Step::Commit, StepItem { flags: 128, ..of }, UnsupportedFlag),
        (Step::Issue, StepItem { flags: 1, ..new(Step::Issue) }, UnsupportedFlag),
        (Step::Reserve, StepItem { flags: 1, ..reserve }, UnsupportedFlag),
        (Step::Issue, StepItem { flags: 4, deadline_ms: 9, ..new(Step::Issue) }, UnsupportedFlag),
        (Step::Issue, StepItem { flags: 10, deadline_ms: 9, ..new(Step::Issue) }, UnsupportedFlag),
        (Step::Issue, StepItem { flags: 12, deadline_ms: 9, ..new(Step::Issue) }, UnsupportedFlag),
        (Step::Issue, StepItem { flags: 64, ..new(Step::Issue) }, UnsupportedFlag),
        (Step::Issue, StepItem { flags: 16, ..new(Step::Issue) }, LinkInvalid),
        (Step::Reserve, StepItem { flags: 16, ..reserve }, LinkInvalid),
        (Step::Reserve, StepItem { flags: 18, ..reserve }, LinkInvalid),
        (Step::Commit, StepItem { flags: 16, ..of }, UnsupportedFlag),
        (Step::Extend, StepItem { flags: 16, ..extend }, UnsupportedFlag),
        (Step::Issue, StepItem { flags: 2, ..new(Step::Issue) }, WaitInvalid),
        (Step::Reserve, StepItem { flags: 2, ..reserve }, WaitInvalid),
        (Step::Reserve, StepItem { flags: 2, deadline_ms: 604_800_001, ..reserve }, WaitInvalid),
        (Step::Reserve, StepItem { flags: 10, deadline_ms: 9, ..reserve }, UnsupportedFlag),
        (Step::Reserve, StepItem { flags: 12, deadline_ms: 9, ..reserve }, UnsupportedFlag),
        (Step::Commit, StepItem { flags: 8, ..of }, UnsupportedFlag),
        (Step::Cancel, StepItem { flags: 1, ..of }, UnsupportedFlag),
        (Step::Cancel, StepItem { flags: 2, ..of }, UnsupportedFlag),
        (Step::Extend, StepItem { flags: 1, ..extend }, UnsupportedFlag),
        (Step::Reserve, StepItem { quantity: 0, ..reserve }, QuantityZero),
        (Step::Reserve, StepItem { quantity: 51, ..reserve }, QuantityTooLarge),
        (Step::Reserve, StepItem { quantity: 4_001, ..reserve }, QuantityTooLarge),
        (Step::Reserve, StepItem { quantity: u16::MAX, ..reserve }, QuantityTooLarge),
        (Step::Commit, StepItem { quantity: 4_001, ..of }, QuantityTooLarge),
        (Step::Commit, StepItem { quantity: 41, ..of }, NotSoManyHeld),
        (Step::Extend, StepItem { quantity: 0, ..extend }, NoExtensionLeft),
        (Step::Extend, StepItem { quantity: 2, ..extend }, NoExtensionLeft),
        (Step::Reserve, StepItem { ttl_ms: 0, ..reserve }, TtlInvalid),
        (Step::Reserve, StepItem { ttl_ms: 86_400_001, ..reserve }, TtlInvalid),
        (Step::Extend, StepItem { ttl_ms: 0, ..extend }, TtlInvalid),
        (Step::Extend, StepItem { ttl_ms: 86_400_001, ..extend }, TtlInvalid),
        (Step::Reserve, StepItem { order_id: zero, ..reserve }, OrderIdZero),
        (Step::Commit, StepItem { order_id: zero, ..of }, OrderIdZero),
        (Step::Cancel, StepItem { order_id: zero, ..of }, OrderIdZero),
        (Step::Extend, StepItem { order_id: zero, ..extend }, OrderIdZero),
        (Step::Reserve, StepItem { sku: SkuId(0), ..reserve }, UnknownSku),
        (Step::Reserve, StepItem { sku: SkuId(2), ..reserve }, UnknownSku),
        (Step::Reserve, StepItem { priority: 4, ..reserve }, UnknownPriority),
        (Step::Commit, StepItem { priority: 4, ..of }, UnknownPriority),
        (Step::Cancel, StepItem { priority: 255, ..of }, UnknownPriority),
        (Step::Extend, StepItem { priority: 4, ..extend }, UnknownPriority),
        (Step::Commit, unknown, OrderNotFound),
        (Step::Cancel, unknown, OrderNotFound),
        (Step::Extend, StepItem { quantity: 1, ttl_ms: 1, ..unknown }, OrderNotFound),
    ];
    for (step, item, refusal) in cases {
        let answers = wire.step(step, &[item]);
        let [answer] = &answers[..] else {
            panic!("{answers:?}")
        };
        assert_eq!(refusal_of(answer), Some(refusal), "{step:?} {item:?}");
        assert_eq!(answer.order_id(), item.order_id, "{step:?} {item:?}");
        assert_eq!(shop.counts().await, stock, "{step:?} {item:?}");
        if item.order_id != held && item.order_id != zero {
            assert_eq!(shop.look_up(item.order_id).await, None, "{step:?} {item:?}");
        }
    }
    assert_eq!(shop.look_up(held).await, stood);
    assert!(wire.answers());
    drop(wire);
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), stock);
}

/// SKU and quantity mean nothing in steps of orders that must be there.
#[tokio::test]
async fn a_step_of_a_known_order_is_about_that_order_whatever_sku_it_names() {
    let shop = Shop::open(Store::new(), 53, 100).await;
    let (mut wire, _) = Wire::greeted(shop.server.addr());
    for sku in [shop.sku, SkuId(0), SkuId(77)] {
        for quantity in [1, 0] {
            let item = |order_id| StepItem {
                sku,
                quantity,
                ..StepItem::of(order_id)
            };
            let extend = |order_id| StepItem {
                sku,
                quantity: 1,
                ttl_ms: 60_000,
                ..StepItem::of(order_id)
            };
            let stock = shop.counts().await;
            for step in [Step::Commit, Step::Cancel, Step::Extend] {
                let item = match step {
                    Step::Extend => extend(OrderId::new_v7()),
                    _ => item(OrderId::new_v7()),
                };
                let answers = wire.step(step, &[item]);
                assert_eq!(
                    refusal_of(&answers[0]),
                    Some(Refusal::OrderNotFound),
                    "{step:?} {item:?}"
                );
                assert_eq!(shop.look_up(item.order_id).await, None);
            }
            assert_eq!(shop.counts().await, stock);
            let id = shop.reserve(1, LONG).await;
            let answers = wire.step(Step::Extend, &[extend(id)]);
            assert!(
                matches!(answers[..], [OrderOutcome::Held(_)]),
                "{answers:?}"
            );
            let answers = wire.step(Step::Commit, &[item(id)]);
            let [OrderOutcome::Issued(order)] = &answers[..] else {
                panic!("{answers:?}")
            };
            assert_eq!((order.sku, order.cards.len()), (shop.sku, 1));
            let id = shop.reserve(1, LONG).await;
            let answers = wire.step(Step::Cancel, &[item(id)]);
            let [OrderOutcome::Cancelled(order)] = &answers[..] else {
                panic!("{answers:?}")
            };
            assert_eq!((order.sku, order.quantity), (shop.sku, 1));
        }
    }
}
