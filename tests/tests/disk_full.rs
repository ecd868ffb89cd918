//! A full disk: nothing new is taken, all that is known is answered, nobody dies, and it ends when there is room.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use croupier_client::{Client, Error, Order, OrderId, OrderOutcome, Refusal, SkuId};
use croupier_tests::{Mint, Oracle, PATIENCE, SEGMENT_BYTES, Server, Store, Tmpfs};

const DISK_BYTES: u64 = 48 << 20;
/// A disk that has been full for so long is: the log has tried again to get room, more than once.
const FULL_FOR: Duration = Duration::from_millis(1500);

async fn one(oracle: &Oracle, client: &Client, sku: SkuId) -> Option<Refusal> {
    let outcomes = oracle
        .issue(client, &[Order::new(OrderId::new_v7(), sku)])
        .await
        .expect("a server that lives");
    match &outcomes[0] {
        OrderOutcome::Issued(_) => None,
        OrderOutcome::Refused { refusal, .. } => Some(*refusal),
        other => panic!("{other:?}"),
    }
}

/// Tries until an order is dealt: a store needs a moment to see that there is room.
async fn dealt_again(oracle: &Oracle, client: &Client, sku: SkuId) {
    let begun = Instant::now();
    while let Some(refusal) = one(oracle, client, sku).await {
        assert_eq!(refusal, Refusal::DiskFull);
        assert!(
            begun.elapsed() < PATIENCE,
            "there is room, and no order is dealt"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_import_that_does_not_fit_is_refused_and_leaves_nothing() {
    let Some(disk) = Tmpfs::mount(DISK_BYTES) else {
        return;
    };
    let (store, oracle) = (Store::at(disk.path().join("data")).init(), Oracle::new());
    let mut server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(30);
    let sku = oracle
        .import(&client, "s", &mint.secrets(500, 40))
        .await
        .expect("an import");
    let slabs = store.files("slabs", "");
    // The log keeps the room that it has made sure of; an import of some 5 MB does not fit into 1 MB.
    let filler = disk.fill(1 << 20);
    let secrets = mint.secrets(20_000, 150);
    for _ in 0..3 {
        let refused = oracle
            .try_import(&client, "s", &secrets)
            .await
            .expect_err("there is no room");
        let Error::Refused { refusal, text, .. } = &refused else {
            panic!("{refused}")
        };
        assert_eq!(*refusal, Refusal::DiskFull, "{text}");
        assert!(text.contains("free some disk"), "{text}");
        assert_eq!(store.files("slabs", ""), slabs, "what was begun is removed");
        assert_eq!(
            one(&oracle, &client, sku).await,
            None,
            "what is there is sold"
        );
    }
    assert!(server.is_alive());
    oracle.check_all(&client).await;
    disk.free(&filler);
    oracle
        .import(&client, "s", &secrets)
        .await
        .expect("there is room now");
    oracle.check_all(&client).await;
    drop(client);
    server.stop().ok();
    oracle.check_disk(&store);
}

/// Fills the disk and deals until the log has no room left, and gets none by trying again: what a segment that could not
/// be made gives back is taken too. The file to remove afterwards.
async fn fill_up(
    disk: &Tmpfs,
    server: &Server,
    oracle: &Oracle,
    client: &Client,
    sku: SkuId,
) -> PathBuf {
    let begun = Instant::now();
    let (mut full_since, mut dealt, mut refused) = (None, 0, 0);
    loop {
        let filler = disk.fill(0);
        match one(oracle, client, sku).await {
            Some(Refusal::DiskFull) => {
                refused += 1;
                let since = *full_since.get_or_insert_with(Instant::now);
                if since.elapsed() > FULL_FOR {
                    return filler;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Some(other) => panic!("{other:?}"),
            None => {
                dealt += 1;
                full_since = None;
            }
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "the disk is full, and yet {dealt} orders were dealt, {refused} refused\n{}",
            server.stderr()
        );
    }
}

#[tokio::test]
async fn a_disk_that_fills_while_serving_stops_new_orders_and_nothing_else() {
    let Some(disk) = Tmpfs::mount(DISK_BYTES) else {
        return;
    };
    // Without folds: they need room too, and give room back.
    let store = Store::at(disk.path().join("data"))
        .with("--checkpoint-segments", 1000)
        .init();
    let (mut server, oracle) = (store.serve(), Oracle::new());
    let client = server.client().await;
    let sku = oracle
        .import(&client, "s", &Mint::new(31).secrets(40_000, 24))
        .await
        .expect("an import");
    assert_eq!(one(&oracle, &client, sku).await, None);
    for round in 0..2 {
        let filler = fill_up(&disk, &server, &oracle, &client, sku).await;
        // Known orders are looked up and repeated, and whatever else is only read.
        oracle.look_up_all(&client).await;
        oracle.ask_all_again(&client).await;
        oracle.check_all(&client).await;
        assert_eq!(
            client
                .sku_create("new")
                .await
                .expect_err("no room")
                .refusal(),
            Some(Refusal::DiskFull)
        );
        assert!(client.sku_list().await.is_ok() && client.server_info().await.is_ok());
        assert_eq!(one(&oracle, &client, sku).await, Some(Refusal::DiskFull));
        assert!(server.is_alive(), "round {round}");
        disk.free(&filler);
        dealt_again(&oracle, &client, sku).await;
        assert!(
            store.files("wal", ".seg").len() as u64 * SEGMENT_BYTES < DISK_BYTES,
            "the test fills the disk by itself"
        );
    }
    oracle.check_all(&client).await;
    assert!(server.is_alive());
    drop(client);
    server.stop().ok();
    oracle.check_disk(&store);
}

#[tokio::test]
async fn a_store_on_a_full_disk_starts_and_answers_what_it_knows() {
    let Some(disk) = Tmpfs::mount(DISK_BYTES) else {
        return;
    };
    let store = Store::at(disk.path().join("data"))
        .with("--checkpoint-segments", 1000)
        .init();
    let (server, oracle) = (store.serve(), Oracle::new());
    let client = server.client().await;
    let sku = oracle
        .import(&client, "s", &Mint::new(32).secrets(40_000, 24))
        .await
        .expect("an import");
    let filler = fill_up(&disk, &server, &oracle, &client, sku).await;
    drop(client);
    server.kill();

    let mut server = store.serve();
    let client = server.client().await;
    oracle.check_all(&client).await;
    oracle.ask_all_again(&client).await;
    assert!(server.is_alive());
    disk.free(&filler);
    dealt_again(&oracle, &client, sku).await;
    oracle.check_all(&client).await;
    drop(client);
    server.stop().ok();
    oracle.check_disk(&store);
}

#[tokio::test]
async fn a_stop_on_a_full_disk_loses_nothing() {
    let Some(disk) = Tmpfs::mount(DISK_BYTES) else {
        return;
    };
    let store = Store::at(disk.path().join("data"))
        .with("--checkpoint-segments", 1000)
        .init();
    let (server, oracle) = (store.serve(), Oracle::new());
    let client = server.client().await;
    let sku = oracle
        .import(&client, "s", &Mint::new(33).secrets(40_000, 24))
        .await
        .expect("an import");
    let filler = fill_up(&disk, &server, &oracle, &client, sku).await;
    drop(client);
    // The checkpoint has no room: it says so, and the log is whole all the same.
    let done = server.stop();
    assert!(matches!(done.code, Some(0 | 1)), "{done}");
    disk.free(&filler);
    let server = store.serve();
    let client = server.client().await;
    oracle.check_all(&client).await;
    dealt_again(&oracle, &client, sku).await;
    oracle.check_all(&client).await;
    drop(client);
    server.stop().ok();
    oracle.check_disk(&store);
}
