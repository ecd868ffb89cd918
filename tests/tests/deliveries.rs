//! Cards that are delivered: docs/cards.md. They are there once they are acknowledged, and there once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use croupier_client::{
    Client, DeliverReply, Error, ImportOptions, ImportRow, Order, OrderId, OrderOutcome, Refusal,
    SkuId,
};
use croupier_protocol::RejectReason;
use croupier_tests::{Dice, PATIENCE, Store, leaked, scaled};

use super::moves::refusal_of;
use super::stock::{counts, import, stock};

const IN_STOCK: u16 = RejectReason::DuplicateInStock as u16;

fn secrets(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers
        .map(|number| format!("delivered-{number:09}").into_bytes())
        .collect()
}

async fn try_deliver(client: &Client, secrets: &[Vec<u8>]) -> Result<DeliverReply, Error> {
    let rows = (1..).zip(secrets);
    let rows: Vec<_> = rows
        .map(|(line, secret)| ImportRow::new(line, secret))
        .collect();
    client.deliver("s", None, &rows).await
}

async fn deliver(client: &Client, secrets: &[Vec<u8>]) -> u64 {
    let reply = try_deliver(client, secrets).await.expect("it is taken in");
    reply.accepted
}

/// Deals everything; the secrets, of which none comes twice.
async fn deal_all(client: &Client, sku: SkuId) -> HashSet<Vec<u8>> {
    let mut dealt = HashSet::new();
    loop {
        let order = Order::new(OrderId::new_v7(), sku);
        match client.issue(order).await {
            Ok(issued) => {
                let secret = issued.cards[0].secret.as_bytes().to_vec();
                assert!(dealt.insert(secret), "a card is dealt twice");
            }
            Err(Error::Refused {
                refusal: Refusal::OutOfStock,
                ..
            }) => return dealt,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn delivered_cards_are_sold_looked_up_and_rejected_when_they_come_again() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let unknown = try_deliver(&client, &secrets(0..1)).await;
    assert_eq!(refusal_of(unknown), Refusal::UnknownSku);
    let sku = client.sku_create("s").await.expect("a SKU");
    assert_eq!(deliver(&client, &secrets(0..5)).await, 5);
    let again = try_deliver(&client, &secrets(3..7)).await.expect("told");
    let told: Vec<_> = again
        .rejections
        .iter()
        .map(|row| (row.line, row.reason))
        .collect();
    assert_eq!(
        (again.accepted, told),
        (2, vec![(1, IN_STOCK), (2, IN_STOCK)])
    );
    assert_eq!(counts(&stock(&client).await), [7, 0, 0, 0]);
    let found = client.find_secret(Some(sku), &secrets(5..6)[0]).await;
    let found = found.expect("answered");
    assert_eq!((found.len(), found[0].slot), (1, 5));
    let rows: Vec<_> = (0..1025).map(|line| ImportRow::new(line, b"x")).collect();
    let too_many = client.deliver("s", None, &rows).await;
    assert_eq!(refusal_of(too_many), Refusal::DeliveryInvalid);
    let label = ImportRow {
        label: b"lost",
        ..ImportRow::new(9, b"x")
    };
    let reply = client
        .deliver("s", Some("vip"), &[label])
        .await
        .expect("told");
    assert_eq!(
        reply.rejections[0].reason,
        RejectReason::LabelTooLong as u16
    );
    let no_name = client.deliver("s", Some("a\nb"), &[]).await;
    assert_eq!(refusal_of(no_name), Refusal::NameInvalid);
    assert_eq!(
        deal_all(&client, sku).await,
        secrets(0..7).into_iter().collect()
    );
    let log = server.kill();
    assert_eq!(leaked(&secrets(0..7), log.as_bytes()), None);
    let server = store.serve();
    let client = server.client().await;
    assert_eq!(deliver(&client, &secrets(0..8)).await, 1);
    assert_eq!(counts(&stock(&client).await), [1, 0, 7, 0]);
    server.stop().ok();
    assert_eq!(store.wal("verify", &[]).ok().json()["imported"], 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_card_is_there_once_after_kills() {
    let store = Store::new();
    let mut dice = Dice::rolled("deliveries");
    let mut acknowledged = HashSet::new();
    let mut sent = HashSet::new();
    let mut next = 0;
    for round in 0..scaled(4, 12) {
        let server = store.serve();
        let client = server.client().await;
        if round == 0 {
            client.sku_create("s").await.expect("a SKU");
        }
        let (to, mut told) = tokio::sync::mpsc::channel(1024);
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let mine: Vec<Vec<Vec<u8>>> = (0..200)
                .map(|_| {
                    let count = dice.within(1..6);
                    // Some have been sent before.
                    let from = next - dice.within(0..3).min(next);
                    next = from + count;
                    secrets(from..next)
                })
                .collect();
            sent.extend(mine.iter().flatten().cloned());
            let (client, to) = (server.client().await, to.clone());
            tasks.push(tokio::spawn(async move {
                for cards in mine {
                    let Ok(reply) = try_deliver(&client, &cards).await else {
                        return;
                    };
                    assert!(reply.rejections.iter().all(|row| row.reason == IN_STOCK));
                    // What is rejected is there as well.
                    let _ = to.send(cards).await;
                }
            }));
        }
        drop(to);
        let enough = dice.within(20..200);
        for _ in 0..enough {
            match told.recv().await {
                Some(cards) => acknowledged.extend(cards),
                None => break,
            }
        }
        server.kill();
        // Nobody answers any more.
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        while let Some(cards) = told.recv().await {
            acknowledged.extend(cards);
        }
    }
    let server = store.serve();
    let client = server.client().await;
    let sku = client.sku_id("s").await.expect("it is there");
    let dealt = deal_all(&client, sku).await;
    assert!(acknowledged.len() > 100);
    assert!(
        acknowledged.is_subset(&dealt),
        "an acknowledged card is lost"
    );
    assert!(dealt.is_subset(&sent));
    assert_eq!(stock(&client).await.imported, dealt.len() as u64);
    server.stop().ok();
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn orders_that_wait_are_filled_by_what_is_delivered_in_their_order() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let sku = client.sku_create("s").await.expect("a SKU");
    let mut line = Vec::new();
    for _ in 0..3 {
        let order = Order::new(OrderId::new_v7(), sku);
        let waits = client.issue_or_wait(order, Duration::from_secs(600)).await;
        assert!(matches!(waits, Ok(OrderOutcome::Waiting(_))), "{waits:?}");
        line.push(order.order_id);
    }
    assert_eq!(deliver(&client, &secrets(0..2)).await, 2);
    let of = async |id| client.order(id).await.expect("answered");
    for (id, secret) in line.iter().zip(secrets(0..2)) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !matches!(of(*id).await, Some(OrderOutcome::Issued(_))) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        waited.await.expect("it is filled");
        let issued = of(*id).await.and_then(OrderOutcome::into_issued);
        let issued = issued.expect("it was just now");
        assert_eq!(issued.cards[0].secret.as_bytes(), &secret[..]);
    }
    assert!(matches!(of(line[2]).await, Some(OrderOutcome::Waiting(_))));
    assert_eq!(counts(&stock(&client).await), [0, 0, 2, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_and_deliveries_of_the_same_cards_side_by_side_bring_each_once() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let sku = import(&client, "s", &secrets(0..10)).await;
    let all = Arc::new(secrets(0..2000));
    let importer = {
        let (client, all) = (server.client().await, all.clone());
        tokio::spawn(async move {
            let mut accepted = 0;
            for part in all.chunks(500) {
                let options = ImportOptions {
                    sku: "s".into(),
                    ..ImportOptions::default()
                };
                let mut import = client.import(options).await.expect("it begins");
                for (line, secret) in (1..).zip(part) {
                    import
                        .push(ImportRow::new(line, secret))
                        .await
                        .expect("a row");
                }
                match import.finish().await {
                    Ok(report) => accepted += report.accepted,
                    Err(error) => {
                        let refused = refusal_of::<()>(Err(error));
                        assert_eq!(refused, Refusal::DeliveredMeanwhile);
                    }
                }
            }
            accepted
        })
    };
    let mut delivered = 0;
    for part in all.chunks(20) {
        delivered += deliver(&client, part).await;
    }
    let imported = importer.await.expect("no panic");
    assert_eq!(10 + imported + delivered, 2000);
    assert_eq!(stock(&client).await.imported, 2000);
    let dealt = deal_all(&client, sku).await;
    assert_eq!(dealt, all.iter().cloned().collect());
}

#[tokio::test]
async fn the_command_delivers_lines_and_says_what_became_of_them() {
    let store = Store::new();
    let server = store.serve();
    let file = store.path("keys.txt");
    std::fs::write(&file, "one\ntwo\n\ntwo\n").expect("a file");
    let path = file.to_str().expect("a name");
    let args = ["deliver", "--sku", "s", path, "--json"];
    server.croupier(&args).fails(1, &["no SKU is called"]);
    let made = ["deliver", "--sku", "s", "--create-sku", path, "--json"];
    let told = server.croupier(&made).ok().json();
    assert_eq!(
        (&told["accepted"], &told["rejected"]),
        (&2.into(), &1.into())
    );
    let rejected = &told["rejections"][0];
    assert_eq!(
        (&rejected["line"], &rejected["reason"]),
        (&4.into(), &"duplicate_in_file".into())
    );
    server.croupier(&made).fails(1, &[]);
    let client = server.client().await;
    assert_eq!(stock(&client).await.free, 2);
}
