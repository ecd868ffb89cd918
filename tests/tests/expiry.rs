//! Cards that expire in stock: docs/cards.md. They leave it by a record before, and none is dealt afterwards, whatever holds,
//! waits for stock, is suspended or was stopped meanwhile.

use std::time::Duration;

use croupier_client::{
    CardMove, CardSelection, Client, ImportOptions, ImportRow, Order, OrderId, OrderOutcome,
    Refusal, SkuId, StockRow,
};
use croupier_tests::{Mint, Store, eventually, unix_ms};

use super::stock::counts;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// So many seconds from now: whole ones, as cards expire.
fn in_s(seconds: u64) -> u64 {
    unix_ms() / 1000 + seconds
}

/// Imports cards of the SKU `s` as one batch, each with when it expires.
async fn import(client: &Client, mint: &mut Mint, label: &str, expiries: &[u64]) -> SkuId {
    let options = ImportOptions {
        sku: "s".into(),
        create_sku: true,
        batch: Some(label.into()),
        ..ImportOptions::default()
    };
    let mut import = client.import(options).await.expect("an import begins");
    let sku = import.sku();
    for (line, &expires_at_s) in (1..).zip(expiries) {
        let secret = mint.secret(20);
        let row = ImportRow {
            expires_at_s,
            ..ImportRow::new(line, &secret)
        };
        import.push(row).await.expect("a row is taken");
    }
    let report = import.finish().await.expect("an import ends");
    assert_eq!(report.accepted, expiries.len() as u64);
    sku
}

async fn stock(client: &Client) -> [u64; 4] {
    let rows: Vec<StockRow> = client.stock(None).await.expect("stock is answered");
    counts(&rows[0])
}

/// Waits until the stock is so.
async fn until_stock(client: &Client, expect: [u64; 4]) {
    let begun = std::time::Instant::now();
    loop {
        let now = stock(client).await;
        if now == expect {
            return;
        }
        assert!(
            begun.elapsed() < croupier_tests::PATIENCE,
            "{now:?} does not become {expect:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn issue(client: &Client, sku: SkuId) -> Result<OrderOutcome, Refusal> {
    let order = Order::new(OrderId::new_v7(), sku);
    let outcome = client.issue_many(&[order]).await.expect("an answer").pop();
    match outcome.expect("one answer") {
        OrderOutcome::Refused { refusal, .. } => Err(refusal),
        other => Ok(other),
    }
}

#[tokio::test]
async fn cards_leave_stock_by_a_record_before_they_expire_and_orders_keep_theirs() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(70);
    let soon = in_s(4);
    // Some for ever, some for a year, and in between those that expire soon, at two times.
    let expiries: Vec<u64> = (0..40)
        .map(|nth| match nth % 4 {
            0 => 0,
            1 => soon,
            2 => soon + 1,
            _ => in_s(365 * 24 * 3600),
        })
        .collect();
    let sku = import(&client, &mut mint, "a", &expiries).await;
    let first = issue(&client, sku).await.expect("a card");
    let of_first = first.issued().expect("it has a card").cards[0].card;
    assert_eq!(of_first.slot, 0);
    let second = issue(&client, sku).await.expect("a card that expires soon");
    let of_second = second.issued().expect("it has a card").cards[0].card;
    assert_eq!(stock(&client).await, [38, 0, 2, 0]);
    // Nine and ten of those that expire go; the one that was dealt stays its order's.
    until_stock(&client, [19, 0, 2, 19]).await;
    let mut dealt = Vec::new();
    while let Ok(outcome) = issue(&client, sku).await {
        dealt.push(outcome.issued().expect("it has a card").cards[0].card);
    }
    assert_eq!(dealt.len(), 19);
    assert!(
        dealt.iter().all(|card| matches!(card.slot % 4, 0 | 3)),
        "one that had expired was dealt: {dealt:?}"
    );
    assert!(!dealt.contains(&of_second));

    server.kill();
    let moved: Vec<_> = store
        .records()
        .into_iter()
        .filter(|record| record["kind"] == "CardsMoved")
        .collect();
    assert!(moved.len() >= 2, "{moved:?}");
    for record in &moved {
        let way = (&record["from"], &record["to"], &record["cause"]);
        assert_eq!(way, (&"free".into(), &"void".into(), &"expired".into()));
    }
    let server = store.serve();
    let client = server.client().await;
    assert_eq!(stock(&client).await, [0, 0, 21, 19]);
    assert_eq!(issue(&client, sku).await, Err(Refusal::OutOfStock));
    server.stop().ok();
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn what_expires_while_the_server_is_down_is_not_dealt_when_it_is_back() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(71);
    let soon = in_s(2);
    let sku = import(&client, &mut mint, "a", &[soon; 50]).await;
    let one = issue(&client, sku).await.expect("a card");
    server.kill();
    eventually("they expire", || (unix_ms() > soon * 1000).then_some(()));
    let server = store.serve();
    let client = server.client().await;
    // At once, however far the sweep has come; the client asks again while it is told to.
    assert_eq!(issue(&client, sku).await, Err(Refusal::OutOfStock));
    until_stock(&client, [0, 0, 1, 49]).await;
    let again = client.order(one.order_id()).await.expect("an answer");
    let cards = |outcome: &OrderOutcome| outcome.issued().expect("it has a card").cards.clone();
    assert_eq!(cards(&again.expect("it stands")), cards(&one));
}

#[tokio::test]
async fn holds_are_kept_with_what_is_left_and_the_youngest_end_when_there_is_too_little() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(72);
    let soon = in_s(4);
    let sku = import(
        &client,
        &mut mint,
        "a",
        &[soon, 0, soon, 0, soon, 0, soon, 0],
    )
    .await;
    let mut holds = Vec::new();
    for _ in 0..6 {
        let order = Order::new(OrderId::new_v7(), sku);
        client.reserve(order, LONG).await.expect("it holds one");
        holds.push(order.order_id);
    }
    assert_eq!(stock(&client).await, [2, 6, 0, 0]);
    // Four cards go: the two free ones, and two that were promised.
    until_stock(&client, [0, 4, 0, 4]).await;
    for (nth, id) in holds.iter().enumerate() {
        let known = client
            .order(*id)
            .await
            .expect("an answer")
            .expect("it stands");
        let is_held = matches!(known, OrderOutcome::Held(_));
        let is_expired = matches!(known, OrderOutcome::Expired(_));
        assert!(
            if nth < 4 { is_held } else { is_expired },
            "{nth}: {known:?}"
        );
    }
    let refused = client.commit(holds[5]).await;
    assert_eq!(super::moves::refusal_of(refused), Refusal::Expired);
    for id in &holds[..4] {
        let issued = client.commit(*id).await.expect("it is kept");
        assert_eq!(issued.cards[0].card.slot % 2, 1, "one that does not expire");
    }
    server.kill();
    let server = store.serve();
    let client = server.client().await;
    assert_eq!(stock(&client).await, [0, 0, 4, 4]);
    server.stop().ok();
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn suspended_cards_expire_too_and_orders_that_wait_get_none_that_have() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(73);
    let soon = in_s(3);
    let sku = import(&client, &mut mint, "a", &[soon; 3]).await;
    let batch = CardSelection::Batch {
        sku: "s".into(),
        label: "a".into(),
    };
    client
        .move_cards(&batch, CardMove::Suspend, false)
        .await
        .expect("they are free");
    let order = Order::new(OrderId::new_v7(), sku);
    let waits = client.issue_or_wait(order, LONG).await;
    let waits = waits.expect("an answer");
    assert!(matches!(waits, OrderOutcome::Waiting(_)), "{waits:?}");
    until_stock(&client, [0, 0, 0, 3]).await;
    let refused = client.move_cards(&batch, CardMove::Resume, false).await;
    assert_eq!(refused.expect("none can go").moved, 0);
    let waits = client.order(order.order_id).await.expect("an answer");
    assert!(matches!(waits, Some(OrderOutcome::Waiting(_))), "{waits:?}");
    import(&client, &mut mint, "b", &[in_s(3600)]).await;
    let issued = client
        .issue_waiting(order, LONG)
        .await
        .expect("there is one now");
    assert_eq!(issued.cards.len(), 1);
    assert_eq!(stock(&client).await, [0, 0, 1, 3]);
}

/// A lead of a day: what expires sooner is not for sale at all.
#[tokio::test]
async fn a_longer_lead_takes_cards_out_earlier() {
    let day_ms = 24 * 3600 * 1000;
    let store = Store::new().with("--expiry-lead-ms", day_ms);
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(74);
    let expiries = [in_s(3600), in_s(2 * 24 * 3600), 0];
    import(&client, &mut mint, "a", &expiries).await;
    until_stock(&client, [2, 0, 0, 1]).await;
}
