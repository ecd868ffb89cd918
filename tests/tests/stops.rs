//! Stops in good order, hasty stops, and what the next start finds; and how the log is synced.

use std::sync::Arc;
use std::time::Duration;

use croupier_client::{Order, OrderId};
use croupier_tests::{Mint, Oracle, Server, Store};
use rustix::process::Signal;

/// Load until the server is gone; the caller signals it meanwhile.
async fn under_load(
    server: Server,
    oracle: &Arc<Oracle>,
    sku: croupier_client::SkuId,
    signals: &[Signal],
) -> croupier_tests::Done {
    let mut loaders = Vec::new();
    for _ in 0..4 {
        let (client, oracle) = (server.client_without_retries().await, oracle.clone());
        loaders.push(tokio::spawn(async move {
            loop {
                let orders = [(); 8].map(|()| Order::new(OrderId::new_v7(), sku));
                if oracle.issue(&client, &orders).await.is_none() {
                    return;
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    signals.iter().for_each(|&signal| server.signal(signal));
    let done = tokio::task::spawn_blocking(|| server.wait())
        .await
        .expect("the server ends");
    for loader in loaders {
        loader.await.expect("a loader does not panic");
    }
    done
}

async fn stocked(store: &Store, oracle: &Oracle) -> (Server, croupier_client::SkuId) {
    let server = store.serve();
    let client = server.client().await;
    let sku = oracle
        .import(&client, "s", &Mint::new(10).secrets(60_000, 20))
        .await
        .expect("an import");
    (server, sku)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_drains_and_the_next_start_reads_only_the_checkpoint() {
    for signal in [Signal::INT, Signal::TERM] {
        let (store, oracle) = (Store::new(), Arc::new(Oracle::new()));
        let (server, sku) = stocked(&store, &oracle).await;
        let stopped = under_load(server, &oracle, sku, &[signal]).await.ok();
        assert!(
            stopped.stderr.contains("stopping") && stopped.stderr.contains("stopped"),
            "{stopped}"
        );
        let report = Oracle::verify(&store);
        assert_eq!(
            (report.records, report.torn_bytes),
            (0, 0),
            "a clean stop folds all of the log"
        );
        assert!(
            stopped.stderr.contains(&report.digest),
            "the digest of the stop is that of the disk\n{stopped}"
        );

        let server = store.serve();
        let log = server.log_with("recovered records=");
        assert!(log.contains("recovered records=0 "), "{log}");
        let client = server.client().await;
        oracle.check_all(&client).await;
        oracle.ask_all_again(&client).await;
        oracle.check_all(&client).await;
        server.stop().ok();
        oracle.check_disk(&store);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once_and_loses_nothing() {
    let (store, oracle) = (Store::new(), Arc::new(Oracle::new()));
    let (server, sku) = stocked(&store, &oracle).await;
    let done = under_load(
        server,
        &oracle,
        sku,
        &[Signal::INT, Signal::TERM, Signal::INT],
    )
    .await;
    // Whether the first one was quicker is chance; that it ends, and what it leaves, is not.
    assert!(matches!(done.code, Some(0 | 1)), "{done}");
    let server = store.serve();
    let client = server.client().await;
    oracle.check_all(&client).await;
    oracle.ask_all_again(&client).await;
    oracle.check_all(&client).await;
    server.stop().ok();
    oracle.check_disk(&store);
}

#[tokio::test]
async fn stops_and_starts_without_load_change_nothing() {
    let (store, oracle) = (Store::new(), Oracle::new());
    let (server, sku) = stocked(&store, &oracle).await;
    let client = server.client().await;
    for _ in 0..50 {
        oracle
            .deal(&client, Order::new(OrderId::new_v7(), sku))
            .await;
    }
    drop(client);
    server.stop().ok();
    let first = oracle.check_disk(&store);
    for cores in [1, 3, 2] {
        let server = store.copy().with("--cores", cores).serve();
        let client = server.client().await;
        assert_eq!(client.server_info().await.expect("answered").cores, cores);
        oracle.check_all(&client).await;
    }
    for _ in 0..3 {
        store.serve().stop().ok();
        let report = oracle.check_disk(&store);
        assert_eq!(report.digest, first.digest);
    }
}

#[tokio::test]
async fn the_server_says_how_it_syncs_and_only_a_flag_weakens_it() {
    let store = Store::new();
    let server = store.serve();
    let info = server.croupier(&["info", "--json"]).ok().json();
    let sync = info["sync"].as_str().expect("a text").to_owned();
    assert!(
        ["fdatasync", "O_DIRECT|O_DSYNC"].contains(&sync.as_str()),
        "{info}"
    );
    let client = server.client().await;
    assert_eq!(client.server_info().await.expect("answered").sync, sync);
    drop(client);
    server.stop().ok();

    let unsafe_store = store.copy().with_switch("--unsafe-no-sync");
    let server = unsafe_store.serve();
    let info = server.croupier(&["info", "--json"]).ok().json();
    assert!(
        info["sync"]
            .as_str()
            .is_some_and(|sync| sync.contains("UNSAFE")),
        "{info}"
    );
    server.stop().ok();

    // Neither a file nor the environment can: it has to be typed.
    let file = store.dir().with_file_name("croupier.toml");
    std::fs::write(&file, "unsafe_no_sync = true\n").expect("a file can be written");
    store
        .copy()
        .with("--config", file.display())
        .serve_refused()
        .fails(2, &["unsafe_no_sync"]);
}
