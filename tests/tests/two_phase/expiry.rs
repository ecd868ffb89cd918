//! Holds whose time is up, and commits that come after that.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use croupier_client::{OrderId, OrderOutcome, OrderStep, Refusal};
use croupier_tests::{Dice, Store, scaled};

use super::shop::{End, LONG, Shop, counts_of, refusal_of, repeated, until, verified};

/// Unix milliseconds of a time as the log is printed, `2028-06-30T23:59:59.050Z`.
fn unix_ms(text: &str) -> u64 {
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().expect("digits");
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // Years begin in March, so that the leap day is their last.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // Those before 1970.
    let days = days - 719_468;
    let seconds = (days * 24 + number(11, 13)) * 3600 + number(14, 16) * 60 + number(17, 19);
    seconds * 1000 + number(20, 23)
}

#[tokio::test]
async fn thousands_of_holds_expire_each_in_its_time_and_give_everything_back() {
    let holds = scaled(20_000, 200_000);
    let mut dice = Dice::rolled("holds that expire");
    // Nothing is folded, so that the whole log can be read.
    let store = Store::new().with("--checkpoint-segments", 1_000);
    let shop = Shop::open(store, 49, holds + 2_000).await;
    let mut ends: HashMap<OrderId, u64> = HashMap::new();
    let mut issued = 0;
    while ends.len() < holds {
        let mut steps: Vec<OrderStep> = (0..500)
            .map(|_| {
                let ttl = Duration::from_millis(dice.within(1..3_001));
                shop.reserve_of(OrderId::new_v7(), 1, ttl)
            })
            .collect();
        // Those of the batch before, if they are not over yet.
        let extended = ends.keys().take(100);
        let ttl = Duration::from_millis(dice.within(1..3_001));
        steps.extend(extended.map(|id| OrderStep::extend(*id, 1, ttl)));
        if ends.len().is_multiple_of(1_000) {
            steps.extend((0..20).map(|_| shop.issue_of(OrderId::new_v7(), 1)));
        }
        for outcome in shop.client.steps(&steps).await.expect("answers") {
            match outcome {
                OrderOutcome::Held(order) => {
                    let end = order.hold.expect("a hold").ends_unix_ms;
                    let before = ends.insert(order.order_id, end);
                    assert!(before <= Some(end), "an extension never shortens");
                }
                OrderOutcome::Issued(_) => issued += 1,
                OrderOutcome::Refused { refusal, .. } => assert!(
                    matches!(
                        refusal,
                        Refusal::Expired | Refusal::NoExtensionLeft | Refusal::OrderIdReused
                    ),
                    "{refusal:?}"
                ),
                other => panic!("{other:?}"),
            }
        }
    }
    let imported = (holds + 2_000) as u64;
    let over = [imported - issued, 0, issued, 0];
    until("all holds are over", async || shop.counts().await == over).await;
    let ids: Vec<OrderId> = ends.keys().copied().collect();
    let stand = shop.client.orders(&ids).await.expect("look-ups");
    let is_expired = |outcome: &OrderOutcome| matches!(outcome, OrderOutcome::Expired(_));
    assert!(stand.iter().all(is_expired));

    shop.server.kill();
    let mut released = HashSet::new();
    for record in shop.store.records() {
        if record["kind"] != "Released" {
            continue;
        }
        assert_eq!(record["why"], "expired");
        let id: OrderId = record["order_id"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .expect("an id");
        let at = unix_ms(record["at"].as_str().expect("a time"));
        assert!(at >= ends[&id], "{record}: the hold ends at {}", ends[&id]);
        assert!(released.insert(id), "{id} expires twice");
    }
    assert_eq!(released.len(), ends.len());
    assert_eq!(counts_of(&verified(&shop.store)), over);
}

#[tokio::test]
async fn holds_that_a_kill_has_left_open_expire_after_the_start() {
    let mut shop = Shop::open(Store::new(), 50, 100).await;
    for end in [End::Kill, End::Stop] {
        let soon = Duration::from_millis(400);
        let mut open = Vec::new();
        for _ in 0..10 {
            // Over while the server is down, and some time after it is up again.
            open.push(shop.reserve(1, Duration::from_millis(1)).await);
            open.push(shop.reserve(2, soon).await);
        }
        let stays = shop.reserve(3, LONG).await;
        shop = shop
            .reopened_after(end, |_| std::thread::sleep(Duration::from_millis(20)))
            .await;
        for id in open {
            shop.expire(id).await;
        }
        assert_eq!(shop.counts().await, [97, 3, 0, 0], "{end:?}");
        shop.client.cancel(stays).await.expect("it is held");
        assert_eq!(shop.counts().await, [100, 0, 0, 0], "{end:?}");
    }
    shop.server.stop().ok();
    assert_eq!(counts_of(&verified(&shop.store)), [100, 0, 0, 0]);
}

#[tokio::test]
async fn a_late_commit_gets_other_cards_if_there_are_enough() {
    let mut shop = Shop::open(Store::new(), 51, 6).await;
    let late = shop.expired(3).await;
    let other = shop.expired(3).await;
    let part = shop.expired(3).await;
    let only_held = OrderStep::commit(late).only_held();
    assert_eq!(
        refusal_of(&shop.ask(only_held).await),
        Some(Refusal::Expired)
    );
    assert_eq!(shop.counts().await, [6, 0, 0, 0]);
    let first = shop.ask(OrderStep::commit(late)).await;
    assert_eq!(first.issued().map(|order| order.cards.len()), Some(3));
    assert_eq!(shop.counts().await, [3, 0, 3, 0]);
    // One too few: neither is it taken nor lost.
    shop.issue(1).await;
    for _ in 0..3 {
        let answer = shop.ask(OrderStep::commit(other)).await;
        assert_eq!(refusal_of(&answer), Some(Refusal::Expired));
        assert!(shop.is_expired(other).await);
        assert_eq!(shop.counts().await, [2, 0, 4, 0]);
    }
    let answer = shop.ask(OrderStep::commit(part).quantity(2)).await;
    assert_eq!(answer.issued().map(|order| order.cards.len()), Some(2));
    assert_eq!(shop.counts().await, [0, 0, 6, 0]);
    shop = shop.reopened(End::Stop).await;
    let answer = shop.ask(OrderStep::commit(other)).await;
    assert_eq!(refusal_of(&answer), Some(Refusal::Expired));
    shop.restock("main", 3).await;
    let only_held = OrderStep::commit(other).only_held();
    assert_eq!(
        refusal_of(&shop.ask(only_held).await),
        Some(Refusal::Expired)
    );
    let answer = shop.ask(OrderStep::commit(other)).await;
    assert_eq!(answer.issued().map(|order| order.cards.len()), Some(3));
    for end in [End::Kill, End::Stop, End::Kill] {
        shop = shop.reopened(end).await;
        let again = shop.ask(OrderStep::commit(other)).await;
        assert_eq!(again, repeated(&answer), "{end:?}");
        let again = shop.ask(OrderStep::commit(late)).await;
        assert_eq!(again, repeated(&first), "{end:?}");
        assert_eq!(shop.counts().await, [0, 0, 9, 0]);
    }
    shop.server.stop().ok();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 9, 0]);
}
