//! Holds that are folded into checkpoints, and go on.

use std::fs;

use croupier_client::{OrderId, OrderStep};
use croupier_tests::{Dice, Store};

use super::shop::{End, LONG, Shop, counts_of, refusal_of, until, verified};

#[tokio::test]
async fn verify_and_replay_know_holds_however_often_they_were_folded() {
    let mut dice = Dice::rolled("holds that are folded");
    let store = Store::new().with("--hold-extensions-max", 2);
    let mut shop = Shop::open(store, 54, 3_000).await;
    let mut open = Vec::new();
    let mut expired = Vec::new();
    for round in 0..8 {
        for nth in 0..40 {
            let id = shop.reserve(dice.within(1..5) as u16, LONG).await;
            // More stay open than the round ends below, however the dice fall.
            let fate = if nth < 15 { 5 } else { dice.within(0..6) };
            match fate {
                0 => drop(shop.client.cancel(id).await.expect("it is held")),
                1 => drop(shop.client.commit(id).await.expect("it is held")),
                2 => drop(shop.client.commit_part(id, 1).await.expect("it is held")),
                3 => {
                    let extended = shop.client.extend(id, 1, LONG).await;
                    extended.expect("it may be");
                    open.push(id);
                }
                _ => open.push(id),
            }
            shop.issue(1).await;
        }
        for _ in 0..5 {
            expired.push(shop.expired(2).await);
        }
        // Of rounds before, too: their records are folded.
        for _ in 0..10 {
            let id = open.swap_remove(dice.within(0..open.len() as u64) as usize);
            match dice.once_in(2) {
                true => drop(shop.client.commit(id).await.expect("it is held")),
                false => drop(shop.client.cancel(id).await.expect("it is held")),
            }
        }
        for _ in 0..3 {
            let id = expired.swap_remove(dice.within(0..expired.len() as u64) as usize);
            shop.client.commit(id).await.expect("there are other cards");
        }
        let stock = shop.counts().await;
        assert!(stock[1] > 0);
        let end = if round % 3 == 1 { End::Kill } else { End::Stop };
        shop = shop
            .reopened_after(end, |store| {
                let verified = verified(store);
                assert_eq!(counts_of(&verified), stock, "round {round}, {end:?}");
                let folded = verified["records_since_checkpoint"] == 0;
                assert_eq!(folded, end == End::Stop, "round {round}: {verified}");
            })
            .await;
        assert_eq!(shop.counts().await, stock, "round {round}, {end:?}");
    }
    for id in open {
        shop.client.commit(id).await.expect("it is held");
    }
    assert_eq!(shop.counts().await[1], 0);
}

/// Holds run through many segments that are folded while orders go on: by the size of the log, not by a stop.
#[tokio::test]
async fn holds_outlive_folds_under_way() {
    let mut shop = Shop::open(Store::new(), 55, 60_000).await;
    let mut kept = Vec::new();
    let path = shop.store.path("CURRENT");
    let current = || fs::read(&path).ok();
    let mut folded = current();
    for round in 1..=45 {
        let ids: Vec<OrderId> = (0..1_500).map(|_| OrderId::new_v7()).collect();
        let reserves: Vec<_> = ids.iter().map(|id| shop.reserve_of(*id, 1, LONG)).collect();
        let outcomes = shop.client.steps(&reserves).await.expect("answers");
        assert!(outcomes.iter().all(|outcome| refusal_of(outcome).is_none()));
        let (keep, end) = ids.split_at(10);
        kept.extend_from_slice(keep);
        let ends = end.iter().zip(0..).map(|(id, nth)| match nth % 3 {
            0 => OrderStep::commit(*id),
            _ => OrderStep::cancel(*id),
        });
        let ends: Vec<_> = ends.collect();
        let outcomes = shop.client.steps(&ends).await.expect("answers");
        assert!(outcomes.iter().all(|outcome| refusal_of(outcome).is_none()));
        // More than a segment of records since the last time.
        if round % 15 == 0 {
            until("a fold", async || current() != folded).await;
            folded = current();
        }
    }
    let stock = shop.counts().await;
    assert_eq!(stock[1], kept.len() as u64);
    shop = shop
        .reopened_after(End::Kill, |store| {
            let verified = verified(store);
            assert_eq!(counts_of(&verified), stock);
            let folded = verified["checkpoint_orders"].as_u64();
            assert!(folded > Some(1_000), "{verified}");
        })
        .await;
    for id in kept {
        let issued = shop.client.commit(id).await.expect("it is held");
        assert_eq!(issued.cards.len(), 1);
    }
    assert_eq!(shop.counts().await[1], 0);
}
