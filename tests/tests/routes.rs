//! Route tables: checked, loaded, shown, refused by line, and swapped under load without an order noticing.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use croupier_client::{Order, OrderId, OrderOutcome, Priority, Refusal};
use croupier_tests::{Mint, Oracle, Store, croupier, eventually, scaled};
use rustix::process::Signal;
use tempfile::TempDir;

/// A table that takes every order, and is another text for every number.
fn table(number: usize) -> String {
    let lane = Priority::ALL[number % 4].name();
    format!("# {number}\n[[rule]]\nsku = \"s\"\nlane = \"{lane}\"\n\n[[rule]]\n")
}

const BAD_TABLES: [(&str, &[&str]); 6] = [
    (
        "[[rule]]\n\n[[rule]]\nlane = \"fast\"\n",
        &["line 3", "fast"],
    ),
    (
        "[[rule]]\nspeed = 1\n",
        &["line 2", "unknown field", "speed"],
    ),
    (
        "[[rule]]\npriority = [\"vip\", \"vop\"]\n",
        &["line 1", "vop"],
    ),
    ("rule = []\n", &["line 1", "1 to"]),
    ("", &["line 1"]),
    ("[[rule]\n", &["line 1"]),
];

#[tokio::test]
async fn tables_are_checked_loaded_and_shown_and_bad_ones_change_nothing() {
    let (store, dir) = (Store::new(), TempDir::new().expect("a temporary directory"));
    let server = store.serve();
    let file = dir.path().join("routes.toml");
    let path = file.display().to_string();
    let write = |text: &str| fs::write(&file, text).expect("a file can be written");

    let built_in = server.croupier(&["routes", "show", "--json"]).ok().json();
    write(&table(1));
    croupier(["routes", "check", &path]).ok();
    let loaded = server
        .croupier(&["routes", "load", &path, "--json"])
        .ok()
        .json();
    let version = loaded["version"].as_u64().expect("a number");
    assert!(version > built_in["version"].as_u64().expect("a number"));
    assert!(loaded["lsn"].as_u64() > Some(0));
    for (bad, words) in BAD_TABLES {
        write(bad);
        croupier(["routes", "check", &path]).fails(1, words);
        server
            .croupier(&["routes", "load", &path])
            .fails(1, &[words, &["RoutesInvalid"]].concat());
    }
    write(&format!("#{}\n[[rule]]\n", "x".repeat(48 << 10)));
    croupier(["routes", "check", &path]).fails(1, &["bytes"]);
    croupier(["routes", "check", "/nowhere/routes.toml"]).fails(1, &["/nowhere/routes.toml"]);
    let shown = server.croupier(&["routes", "show", "--json"]).ok().json();
    assert_eq!(
        (shown["version"].as_u64(), shown["toml"].as_str()),
        (Some(version), Some(table(1).as_str()))
    );
    let info = server.croupier(&["info", "--json"]).ok().json();
    assert_eq!(info["routes_version"], version);

    write("[[rule]]\nsku = \"gone-*\"\n");
    let warned = croupier(["routes", "check", "--json", &path]).ok().json();
    assert!(
        warned["warnings"][0]
            .as_str()
            .is_some_and(|text| text.contains("NoRoute")),
        "{warned}"
    );

    // It is part of the state: a crash and a clean stop keep it.
    server.kill();
    let server = store.serve();
    assert_eq!(
        server.croupier(&["routes", "show", "--json"]).ok().json(),
        shown
    );
    server.stop().ok();
    let server = store.serve();
    assert_eq!(
        server.croupier(&["routes", "show", "--json"]).ok().json(),
        shown
    );
}

#[tokio::test]
async fn an_order_without_a_route_is_refused_and_repeats_are_answered_all_the_same() {
    let (store, oracle) = (Store::new(), Oracle::new());
    let server = store.serve();
    let client = server.client().await;
    let sku = oracle
        .import(&client, "s", &Mint::new(20).secrets(50, 24))
        .await
        .expect("an import");
    let routed = Order::new(OrderId::new_v7(), sku);
    oracle.deal(&client, routed).await;
    client
        .routes_load("[[rule]]\npriority = [\"vip\"]\n")
        .await
        .expect("a table");
    let order = Order::new(OrderId::new_v7(), sku);
    let outcomes = oracle.issue(&client, &[order]).await.expect("answered");
    assert!(
        matches!(
            outcomes[0],
            OrderOutcome::Refused {
                refusal: Refusal::NoRoute,
                ..
            }
        ),
        "{outcomes:?}"
    );
    assert!(
        oracle.deal(&client, routed).await.repeat,
        "an order id is for ever, whatever the routes"
    );
    assert!(
        !oracle
            .deal(&client, order.priority(Priority::Vip))
            .await
            .repeat
    );
    oracle.check_all(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_lose_no_order_and_every_record_carries_its_version() {
    let swaps = scaled(50, 1000);
    let store = Store::new().with("--checkpoint-segments", 100_000);
    let (server, oracle) = (store.serve(), Arc::new(Oracle::new()));
    let client = server.client().await;
    let sku = oracle
        .import(
            &client,
            "s",
            &Mint::new(21).secrets(scaled(100_000, 1_000_000), 20),
        )
        .await
        .expect("an import");
    let first = client
        .routes_load(&table(0))
        .await
        .expect("a table")
        .version;
    let over = Arc::new(AtomicBool::new(false));
    let mut loaders = Vec::new();
    for _ in 0..4 {
        let (client, oracle, over) = (server.client().await, oracle.clone(), over.clone());
        loaders.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let orders = Priority::ALL
                    .map(|priority| Order::new(OrderId::new_v7(), sku).priority(priority));
                for outcome in oracle
                    .issue(&client, &orders)
                    .await
                    .expect("a server that lives")
                {
                    assert!(matches!(outcome, OrderOutcome::Issued(_)), "{outcome:?}");
                }
            }
        }));
    }
    let mut versions = HashSet::from([u64::from(first)]);
    for number in 1..=swaps {
        versions.insert(
            client
                .routes_load(&table(number))
                .await
                .expect("a table")
                .version
                .into(),
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    over.store(true, Ordering::Relaxed);
    for loader in loaders {
        loader.await.expect("a loader does not panic");
    }
    oracle.check_all(&client).await;
    drop(client);
    server.kill();

    let mut seen: HashMap<u64, usize> = HashMap::new();
    for record in store.records() {
        if record["kind"] == "Issued" {
            *seen
                .entry(record["routes_version"].as_u64().expect("a number"))
                .or_default() += 1;
        }
    }
    assert_eq!(
        versions.len(),
        swaps + 1,
        "every swap has a version of its own"
    );
    assert_eq!(
        seen.values().sum::<usize>(),
        oracle.acknowledged().len(),
        "every order has its record"
    );
    assert!(
        seen.keys().all(|version| versions.contains(version)),
        "{seen:?}"
    );
    assert!(
        seen.len() > swaps / 4,
        "the load was to meet many of the tables, it met {}",
        seen.len()
    );
    oracle.check_disk(&store);
}

#[tokio::test]
async fn sighup_reads_the_table_again_and_keeps_the_old_one_when_it_is_bad() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("routes.toml");
    let write = |text: &str| fs::write(&file, text).expect("a file can be written");
    write(&table(1));
    let store = Store::new().with("--routes", file.display());
    let server = store.serve();
    let client = server.client().await;
    let first = client.routes_show().await.expect("answered");
    assert_eq!(first.toml, table(1));
    // The same table is no change.
    server.signal(Signal::HUP);
    eventually("the signal is noticed", || {
        server
            .stderr()
            .contains("is the one in force")
            .then_some(())
    });
    write(&table(2));
    server.signal(Signal::HUP);
    eventually("another table is in force", || {
        server
            .stderr()
            .contains(&format!("version={}", first.version + 1))
            .then_some(())
    });
    assert_eq!(client.routes_show().await.expect("answered").toml, table(2));
    write("[[rule]]\nlane = \"fast\"\n");
    server.signal(Signal::HUP);
    eventually("the bad table is reported", || {
        server.stderr().contains("fast").then_some(())
    });
    assert!(server.stderr().contains("line 1"), "{}", server.stderr());
    assert_eq!(client.routes_show().await.expect("answered").toml, table(2));
    assert_eq!(
        client.routes_show().await.expect("answered").version,
        first.version + 1
    );
}
