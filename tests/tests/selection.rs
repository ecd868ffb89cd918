//! Which card goes next, and how many may be held: docs/cards.md, over restarts, imports and moves.

use std::collections::HashSet;
use std::time::Duration;

use croupier_client::{
    CardMove, CardRef, CardSelection, Client, DealOrder, Error, ImportOptions, ImportRow, Order,
    OrderId, OrderOutcome, Refusal, SkuId, SkuSettings,
};
use croupier_tests::{Mint, Store, unix_ms};

use super::moves::refusal_of;
use super::stock::{counts, import_batch, stock};

const LONG: Duration = Duration::from_secs(3600);

/// Imports cards of the SKU `s`, each with when it expires, in days from now; 0 = never.
async fn import_expiring(client: &Client, mint: &mut Mint, days: &[u64]) -> SkuId {
    let options = ImportOptions {
        sku: "s".into(),
        create_sku: true,
        ..ImportOptions::default()
    };
    let mut import = client.import(options).await.expect("an import begins");
    let sku = import.sku();
    for (line, &days) in (1..).zip(days) {
        let secret = mint.secret(20);
        let expires_at_s = match days {
            0 => 0,
            days => unix_ms() / 1000 + days * 24 * 3600,
        };
        let row = ImportRow {
            expires_at_s,
            ..ImportRow::new(line, &secret)
        };
        import.push(row).await.expect("a row is taken");
    }
    import.finish().await.expect("an import ends");
    sku
}

/// Where the next cards are, dealt one by one.
async fn next(client: &Client, sku: SkuId, count: usize) -> Vec<(u32, u32)> {
    let mut places = Vec::new();
    for _ in 0..count {
        let order = Order::new(OrderId::new_v7(), sku);
        let issued = client.issue(order).await.expect("there is a card");
        let CardRef { slab, slot, .. } = issued.cards[0].card;
        places.push((slab, slot));
    }
    places
}

#[tokio::test]
async fn cards_are_dealt_in_the_order_that_is_set_also_after_a_restart() {
    let store = Store::new().with("--cores", 2);
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(80);
    let sku = import_expiring(&client, &mut mint, &[30, 5, 0, 9, 30, 5, 0, 9]).await;
    assert_eq!(
        next(&client, sku, 2).await,
        [(1, 0), (1, 1)],
        "as they came"
    );
    let set = client
        .sku_set(
            "s",
            &SkuSettings::default().deal_order(DealOrder::ExpiryFirst),
        )
        .await
        .expect("it is set");
    assert!(set.lsn > 0);
    assert_eq!(next(&client, sku, 2).await, [(1, 5), (1, 3)]);
    // What comes now is older, and younger.
    import_expiring(&client, &mut mint, &[2, 40]).await;
    assert_eq!(next(&client, sku, 2).await, [(2, 0), (1, 7)]);
    server.kill();
    let server = store.serve();
    let client = server.client().await;
    assert_eq!(next(&client, sku, 1).await, [(1, 4)]);
    assert_eq!(next(&client, sku, 3).await, [(2, 1), (1, 2), (1, 6)]);

    client
        .sku_set("s", &SkuSettings::default().deal_order(DealOrder::Lifo))
        .await
        .expect("it is set");
    import_batch(&client, "s", "b", &mint.secrets(3, 20)).await;
    import_batch(&client, "s", "c", &mint.secrets(3, 20)).await;
    assert_eq!(next(&client, sku, 2).await, [(4, 2), (4, 1)]);
    server.stop().ok();
    let server = store.serve();
    let client = server.client().await;
    let settings = client.sku_settings("s").await.expect("it is told");
    assert_eq!(
        (settings.deal_order, settings.hold_share_max_percent),
        (DealOrder::Lifo.as_u16(), 100)
    );
    assert_eq!(next(&client, sku, 2).await, [(4, 0), (3, 2)]);
    client
        .sku_set("s", &SkuSettings::default().deal_order(DealOrder::Fifo))
        .await
        .expect("it is set");
    assert_eq!(next(&client, sku, 2).await, [(3, 0), (3, 1)]);
    let none = client.issue(Order::new(OrderId::new_v7(), sku)).await;
    assert_eq!(refusal_of(none), Refusal::OutOfStock);
    server.stop().ok();
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn at_random_every_card_is_dealt_once_and_not_as_they_came() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(81);
    let sku = import_batch(&client, "s", "a", &mint.secrets(300, 20)).await;
    client
        .sku_set("s", &SkuSettings::default().deal_order(DealOrder::Random))
        .await
        .expect("it is set");
    // A tenth leaves and comes back, and is dealt all the same.
    let cards: Vec<CardRef> = (0..30)
        .map(|nth| CardRef {
            slab: 1,
            slot: nth * 10,
            generation: 0,
        })
        .collect();
    let cards = CardSelection::Cards(cards);
    let mut places = next(&client, sku, 1).await;
    let suspended = client.move_cards(&cards, CardMove::Suspend, false).await;
    let back = match suspended {
        Ok(done) => done.moved,
        Err(Error::Refused { .. }) => 0,
        Err(error) => panic!("{error}"),
    };
    places.extend(next(&client, sku, 100).await);
    if back > 0 {
        let resumed = client.move_cards(&cards, CardMove::Resume, false).await;
        assert_eq!(resumed.expect("they are suspended").moved, 30);
    }
    places.extend(next(&client, sku, 199).await);
    let different: HashSet<_> = places.iter().collect();
    assert_eq!(different.len(), 300, "no card twice");
    let rising = places.windows(2).filter(|two| two[0] < two[1]).count();
    assert!((90..210).contains(&rising), "{rising} of 299 rise");
    let steps: HashSet<_> = places
        .windows(2)
        .map(|two| i64::from(two[1].1) - i64::from(two[0].1))
        .collect();
    assert!(
        steps.len() > 100,
        "{} different steps from card to card",
        steps.len()
    );
    assert_eq!(counts(&stock(&client).await), [0, 0, 300, 0]);
}

#[tokio::test]
async fn no_more_than_the_share_is_held_and_what_waits_is_held_when_there_is_room() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(82);
    let sku = import_batch(&client, "s", "a", &mint.secrets(10, 20)).await;
    client
        .sku_set("s", &SkuSettings::default().hold_share_max_percent(30))
        .await
        .expect("it is set");
    let order = |quantity| Order::new(OrderId::new_v7(), sku).quantity(quantity);
    let too_many = client.reserve(order(4), LONG).await;
    assert_eq!(refusal_of(too_many), Refusal::HoldShareReached);
    let two = order(2);
    client.reserve(two, LONG).await.expect("two of three");
    let again = client.reserve(two, LONG).await.expect("a repeat");
    assert!(again.repeat);
    let too_many = client.reserve(order(2), LONG).await;
    assert_eq!(refusal_of(too_many), Refusal::HoldShareReached);
    let part = order(5);
    let third = client.reserve_part(part, LONG).await.expect("the third");
    assert_eq!(third.quantity, 1, "of five");
    assert_eq!(counts(&stock(&client).await), [7, 3, 0, 0]);
    let none = client.reserve_part(order(5), LONG).await;
    assert_eq!(refusal_of(none), Refusal::HoldShareReached);
    client.cancel(part.order_id).await.expect("it is held");
    let one = order(1);
    client.reserve(one, LONG).await.expect("the third again");
    assert_eq!(counts(&stock(&client).await), [7, 3, 0, 0]);
    client
        .issue(order(1))
        .await
        .expect("issues are not held up");
    client.cancel(one.order_id).await.expect("it is held");
    let other = client.reserve(order(1), LONG).await;
    assert_eq!(
        refusal_of(other),
        Refusal::HoldShareReached,
        "30 % of nine are two"
    );

    // All is gone: what waits then is held as far as the share goes.
    client.issue(order(7)).await.expect("the rest");
    let waits = [order(2), order(2)];
    for order in waits {
        let outcome = client.reserve_or_wait(order, LONG, LONG).await;
        let refused = matches!(
            outcome,
            Ok(OrderOutcome::Waiting(_)) | Err(Error::Refused { .. })
        );
        assert!(refused, "{outcome:?}");
    }
    client.commit(two.order_id).await.expect("it is held");
    assert_eq!(counts(&stock(&client).await), [0, 0, 10, 0]);
    let waiting = order(2);
    client
        .reserve_or_wait(waiting, LONG, LONG)
        .await
        .expect_err("nothing of nothing may be held");
    client
        .sku_set("s", &SkuSettings::default().hold_share_max_percent(100))
        .await
        .expect("it is set");
    let waiting = [order(2), order(2)];
    for order in waiting {
        let outcome = client.reserve_or_wait(order, LONG, LONG).await;
        assert!(matches!(outcome, Ok(OrderOutcome::Waiting(_))));
    }
    client
        .sku_set("s", &SkuSettings::default().hold_share_max_percent(50))
        .await
        .expect("it is set");
    import_batch(&client, "s", "b", &mint.secrets(4, 20)).await;
    let held = async |order: Order| {
        let known = client.order(order.order_id).await.expect("an answer");
        matches!(known, Some(OrderOutcome::Held(_)))
    };
    let first = client.reserve_waiting(waiting[0], LONG, LONG).await;
    first.expect("half of four are two");
    assert!(!held(waiting[1]).await);
    // An order that waits keeps its place, also before those that would not be held.
    client
        .commit(waiting[0].order_id)
        .await
        .expect("it is held");
    import_batch(&client, "s", "c", &mint.secrets(2, 20)).await;
    let second = client.reserve_waiting(waiting[1], LONG, LONG).await;
    second.expect("half of four again");
    assert_eq!(counts(&stock(&client).await), [2, 2, 12, 0]);
    server.stop().ok();
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_and_change_nothing() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    client.sku_create("s").await.expect("a SKU");
    let nobody = client
        .sku_set("t", &SkuSettings::default().deal_order(DealOrder::Lifo))
        .await;
    assert_eq!(refusal_of(nobody), Refusal::UnknownSku);
    let too_much = client
        .sku_set(
            "s",
            &SkuSettings::default()
                .deal_order(DealOrder::Lifo)
                .hold_share_max_percent(101),
        )
        .await;
    assert_eq!(refusal_of(too_much), Refusal::SettingInvalid);
    let settings = client.sku_settings("s").await.expect("it is told");
    assert_eq!(
        (
            settings.lsn,
            settings.deal_order,
            settings.hold_share_max_percent
        ),
        (0, 1, 100)
    );

    let set = server.croupier(&["sku", "set", "s", "--selection", "random", "--json"]);
    assert_eq!(set.ok().json()["selection"], "random");
    let set = server.croupier(&["sku", "set", "s", "--hold-share-max", "25"]);
    set.ok();
    let shown = server.croupier(&["sku", "show", "s", "--json"]).ok().json();
    assert_eq!(
        (&shown["selection"], &shown["hold_share_max_percent"]),
        (&"random".into(), &25.into())
    );
    server
        .croupier(&["sku", "set", "s", "--selection", "best"])
        .fails(2, &["fifo, lifo, random or expiry-first"]);
    server
        .croupier(&["sku", "set", "s"])
        .fails(2, &["--selection"]);
    server.kill();
    let records: Vec<_> = store
        .records()
        .into_iter()
        .filter(|record| record["kind"] == "SkuSet")
        .collect();
    assert_eq!(records.len(), 2, "{records:?}");
}
