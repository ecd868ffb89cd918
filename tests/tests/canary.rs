//! Canaries of route tables: an equal one comes into force, a worse one is rolled back by itself, and nothing else may change the
//! table meanwhile.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use croupier_client::{
    CanarySettings, Client, ImportRow, Order, OrderId, OrderOutcome, Refusal, SkuId,
};
use croupier_tests::{Mint, Oracle, Server, Store, eventually};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const IN_FORCE: &str = "[[rule]]\npools = [\"main\"]\n";
/// The same for every order, and another text.
const EQUAL: &str = "# equal\n[[rule]]\npools = [\"main\"]\n";
/// No SKU has that pool.
const EMPTY: &str = "[[rule]]\npools = [\"empty\"]\n";
/// Orders of one priority have no route.
const GAPS: &str = "[[rule]]\nquantity = \"2-\"\n";

/// A server with a table in force and cards, and a directory for tables.
struct Scene {
    store: Store,
    server: Server,
    client: Client,
    oracle: Oracle,
    sku: SkuId,
    dir: TempDir,
}

impl Scene {
    async fn new(cards: usize) -> Scene {
        let (store, oracle) = (
            Store::new().with("--checkpoint-segments", 100_000),
            Oracle::new(),
        );
        let server = store.serve();
        let client = server.client().await;
        let secrets = Mint::new(91).secrets(cards, 24);
        let sku = oracle.import(&client, "s", &secrets).await;
        client.routes_load(IN_FORCE).await.expect("a table");
        Scene {
            store,
            server,
            client,
            oracle,
            sku: sku.expect("an import"),
            dir: TempDir::new().expect("a temporary directory"),
        }
    }

    fn file(&self, text: &str) -> String {
        let path = self.dir.path().join("new.toml");
        fs::write(&path, text).expect("a file can be written");
        path.display().to_string()
    }

    fn start(&self, text: &str, more: &[&str]) -> croupier_tests::Done {
        let file = self.file(text);
        let args = [&["canary", "start", &file, "--json"], more].concat();
        self.server.croupier(&args)
    }

    fn status(&self) -> Value {
        self.server
            .croupier(&["canary", "status", "--json"])
            .ok()
            .json()
    }

    /// Orders until the canary is over; returns how it ended and why. One that pauses goes on.
    async fn run(&self) -> (String, String) {
        loop {
            let orders: Vec<Order> = (0..40)
                .map(|_| Order::new(OrderId::new_v7(), self.sku))
                .collect();
            let outcomes = self.oracle.issue(&self.client, &orders).await;
            outcomes.expect("a server that lives");
            let status = self.client.canary_status().await.expect("an answer");
            if !status.under_way {
                let last = &self.status()["steps"];
                let last = last.as_array().and_then(|steps| steps.last());
                let word = |field: &str| last.and_then(|step| step[field].as_str());
                let words = word("deed").zip(word("reason")).expect("two words");
                return (words.0.to_owned(), words.1.to_owned());
            }
            if status.steps.last().is_some_and(|step| step.deed == 3) {
                self.client.canary_resume().await.expect("it is paused");
            }
        }
    }
}

/// Few orders, and a limit of latencies that no stall of a busy machine reaches.
const QUICK: [&str; 8] = [
    "--minimum-sample",
    "20",
    "--p99-ratio",
    "10",
    "--share",
    "25",
    "--step",
    "25",
];

#[tokio::test]
async fn an_equal_table_comes_into_force_by_itself() {
    let scene = Scene::new(100_000).await;
    let started = scene.start(EQUAL, &QUICK).ok().json();
    assert_eq!(
        (&started["version"], &started["share_percent"]),
        (&2.into(), &25.into())
    );
    assert_eq!(scene.run().await, ("in-force".into(), "no-worse".into()));
    let status = scene.status();
    assert_eq!(
        (&status["version"], &status["in_force"]),
        (&2.into(), &2.into())
    );
    let steps = status["steps"].as_array().expect("steps");
    let last = steps.last().expect("the last");
    for group in ["canary", "baseline"] {
        assert!(last[group]["orders"].as_u64() >= Some(20), "{last}");
        assert!(last[group]["p99_us"].as_u64() > Some(0), "{last}");
    }
    scene.server.croupier(&["canary", "status"]).ok();
    let history = scene.client.routes_history().await.expect("the history");
    assert_eq!(
        (history[0].version, Some(history[0].lsn)),
        (2, last["lsn"].as_u64())
    );
    let shown = scene.client.routes_show().await.expect("a table");
    assert_eq!((shown.version, shown.toml.as_str()), (2, EQUAL));
    // And back.
    let back = scene.client.routes_rollback(None, Default::default()).await;
    assert_eq!(back.expect("the one before").version, 3);
    scene.oracle.check_all(&scene.client).await;
    scene.server.stop().ok();
    let records = scene.store.records();
    let since: Vec<u64> = records
        .iter()
        .filter(|record| record["kind"] == "Canary")
        .map(|record| record["lsn"].as_u64().expect("a number"))
        .collect();
    // Between its start and its end both tables dealt.
    let (begin, end) = (since[0], since[since.len() - 1]);
    let versions: HashSet<u64> = records
        .iter()
        .filter(|record| record["kind"] == "Issued")
        .filter(|record| {
            record["lsn"]
                .as_u64()
                .is_some_and(|lsn| begin < lsn && lsn < end)
        })
        .filter_map(|record| record["routes_version"].as_u64())
        .collect();
    assert_eq!(versions, HashSet::from([1, 2]));
    scene.store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn a_worse_table_is_rolled_back_by_itself() {
    for worse in [EMPTY, GAPS] {
        let scene = Scene::new(100_000).await;
        scene.start(worse, &["--p99-ratio", "10"]).ok();
        assert_eq!(scene.run().await, ("rolled-back".into(), "failures".into()));
        let status = scene.status();
        let last = status["steps"].as_array().and_then(|steps| steps.last());
        let last = last.expect("the last");
        assert_eq!(last["share_percent"], 0);
        assert!(last["canary"]["failed"].as_u64() > Some(5), "{last}");
        assert_eq!(last["baseline"]["failed"], 0, "{last}");
        // At once: long before the minimum sample.
        assert!(last["canary"]["orders"].as_u64() < Some(2000), "{last}");
        let orders: Vec<Order> = (0..200)
            .map(|_| Order::new(OrderId::new_v7(), scene.sku))
            .collect();
        let outcomes = scene.oracle.issue(&scene.client, &orders).await;
        for outcome in outcomes.expect("answered") {
            assert!(matches!(outcome, OrderOutcome::Issued(_)), "{outcome:?}");
        }
        let shown = scene.client.routes_show().await.expect("a table");
        assert_eq!((shown.version, shown.toml.as_str()), (1, IN_FORCE));
        scene.oracle.check_all(&scene.client).await;
        scene.server.stop().ok();
        scene.store.wal("verify", &[]).ok();
    }
}

#[tokio::test]
async fn what_cannot_be_changes_nothing() {
    let scene = Scene::new(10).await;
    let server = &scene.server;
    server
        .croupier(&["canary", "abort"])
        .fails(1, &["NoCanary"]);
    server
        .croupier(&["canary", "resume"])
        .fails(1, &["NoCanary"]);
    let none = scene.status();
    assert_eq!(
        (&none["state"], &none["in_force"]),
        (&"none".into(), &1.into())
    );
    let bad = "[[rule]]\n\n[[rule]]\nlane = \"fast\"\n";
    scene
        .start(bad, &[])
        .fails(1, &["RoutesInvalid", "line 4", "fast"]);
    scene.start(IN_FORCE, &[]).fails(1, &["CanarySame"]);
    for (flag, value, word) in [
        ("--share", "0", "0 %"),
        ("--share", "51", "51 %"),
        ("--until", "60", "60 %"),
        ("--step", "0", "0 %"),
        ("--minimum-sample", "19", "19 orders"),
        ("--p99-ratio", "0.9", "0.9"),
        ("--step-time", "10ms", "10 ms"),
    ] {
        let refused = scene.start(EQUAL, &[flag, value]);
        refused.fails(1, &["CanaryInvalid", word]);
    }
    scene
        .start(EQUAL, &["--step-time", "soon"])
        .fails(2, &["30s"]);
    assert_eq!(scene.status(), none);

    scene.start(EQUAL, &[]).ok();
    let before = scene.status();
    let table = scene.file("# third\n[[rule]]\n");
    for args in [
        &["canary", "start", &table][..],
        &["routes", "load", &table],
        &["routes", "rollback"],
    ] {
        server
            .croupier(args)
            .fails(1, &["CanaryRunning", "route table 2", "abort"]);
    }
    server
        .croupier(&["canary", "resume"])
        .fails(1, &["NoCanary", "not paused"]);
    assert_eq!(scene.status(), before);
    let aborted = server.croupier(&["canary", "abort", "--json"]).ok().json();
    assert_eq!(
        (&aborted["version"], &aborted["share_percent"]),
        (&2.into(), &0.into())
    );
    assert_eq!(scene.status()["state"], "aborted");
    // Its version is not given again.
    let loaded = server.croupier(&["routes", "load", &table, "--json"]).ok();
    assert_eq!(loaded.json()["version"], 3);
    let history = scene.client.routes_history().await.expect("the history");
    let versions: Vec<u32> = history.iter().map(|row| row.version).collect();
    assert_eq!(versions, [3, 1, 0]);
}

#[tokio::test]
async fn a_canary_goes_on_after_a_crash_and_a_stop() {
    let mut scene = Scene::new(2_000).await;
    scene
        .start(GAPS, &["--minimum-sample", "50000", "--share", "50"])
        .ok();
    let before = scene.status();
    let file = scene.dir.path().join("routes.toml");
    fs::write(&file, "# of the file\n[[rule]]\n").expect("a file can be written");
    scene.store = scene.store.with("--routes", file.display());
    for crash in [true, false] {
        match crash {
            true => drop(scene.server.kill()),
            false => drop(scene.server.stop().ok()),
        }
        scene.server = scene.store.serve();
        scene.client = scene.server.client().await;
        let after = scene.status();
        for field in [
            "version",
            "share_percent",
            "under_way",
            "steps",
            "in_force",
            "p99_ratio",
        ] {
            assert_eq!(after[field], before[field], "{field}");
        }
        assert_eq!(after["canary"]["orders"], 0, "an empty sample");
        // The file waits for the end of the canary.
        assert!(scene.server.stderr().contains("is a canary"));
        scene.server.signal(Signal::HUP);
        scene.server.log_with("stays");
        // It deals: half of these orders have no route by its table.
        let orders: Vec<Order> = (0..100)
            .map(|_| Order::new(OrderId::new_v7(), scene.sku))
            .collect();
        let refused = |outcomes: &[OrderOutcome]| {
            let no_route = |outcome: &&OrderOutcome| {
                let refusal = Refusal::NoRoute;
                matches!(outcome, OrderOutcome::Refused { refusal: found, .. } if *found == refusal)
            };
            outcomes.iter().filter(no_route).count()
        };
        let first = scene
            .oracle
            .issue(&scene.client, &orders)
            .await
            .expect("answered");
        assert!((20..80).contains(&refused(&first)), "{}", refused(&first));
        // The same orders as before, and only these.
        let again = scene
            .oracle
            .issue(&scene.client, &orders)
            .await
            .expect("answered");
        let are_refused = |outcomes: &[OrderOutcome]| -> Vec<bool> {
            let one = |outcome: &OrderOutcome| matches!(outcome, OrderOutcome::Refused { .. });
            outcomes.iter().map(one).collect()
        };
        assert_eq!(are_refused(&first), are_refused(&again));
        let seen = eventually("the orders are seen", || {
            let status = scene.status();
            (status["canary"]["orders"].as_u64() > Some(0)).then_some(status)
        });
        assert_eq!(seen["canary"]["orders"], seen["canary"]["failed"]);
    }
    scene.server.croupier(&["canary", "abort"]).ok();
    scene.server.signal(Signal::HUP);
    eventually("the file's table is in force", || {
        let shown = scene.server.croupier(&["routes", "show"]).ok();
        shown.stdout.contains("of the file").then_some(())
    });
    scene.oracle.check_all(&scene.client).await;
    scene.server.stop().ok();
    scene.store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn orders_that_wait_are_filled_by_the_table_of_their_group() {
    const ORDERS: usize = 40;
    let store = Store::new().with("--checkpoint-segments", 100_000);
    let server = store.serve();
    let client = server.client().await;
    let sku = client.sku_create("s").await.expect("a SKU");
    client.routes_load(IN_FORCE).await.expect("a table");
    let settings = CanarySettings {
        share: Some(50),
        minimum_sample: Some(50_000),
        ..CanarySettings::default()
    };
    let vip = "[[rule]]\npools = [\"vip\"]\n";
    client.canary_start(vip, &settings).await.expect("a canary");
    // The core sees it with the first turn.
    let first = Order::new(OrderId::new_v7(), sku);
    client.issue(first).await.expect_err("no stock");
    let orders: Vec<Order> = (0..ORDERS)
        .map(|_| Order::new(OrderId::new_v7(), sku))
        .collect();
    let hour = Duration::from_secs(3600);
    for order in &orders {
        let told = client.issue_or_wait(*order, hour).await.expect("it waits");
        assert!(matches!(told, OrderOutcome::Waiting(_)), "{told:?}");
    }
    for pool in ["vip", "main"] {
        let secrets: Vec<String> = (0..ORDERS).map(|n| format!("{pool} {n}")).collect();
        let rows: Vec<_> = (1..)
            .zip(&secrets)
            .map(|(line, secret)| ImportRow::new(line, secret.as_bytes()))
            .collect();
        let delivered = client.deliver("s", Some(pool), &rows).await;
        assert_eq!(delivered.expect("stock").accepted, ORDERS as u64);
    }
    for order in &orders {
        client.issue_waiting(*order, hour).await.expect("its card");
    }
    let status = eventually("all of them are seen", || {
        let status = server.croupier(&["canary", "status", "--json"]).ok().json();
        let orders = |group: &str| status[group]["orders"].as_u64().expect("a number");
        let all = orders("canary") + orders("baseline");
        // The first of all may have come before the core saw the canary.
        (all >= ORDERS as u64).then_some(status)
    });
    assert!(status["canary"]["orders"].as_u64() > Some(5), "{status}");
    server.stop().ok();
    let records = store.records();
    let number = |record: &Value, field: &str| record[field].as_u64().expect("a number");
    let slabs: HashSet<u64> = records
        .iter()
        .filter(|record| record["kind"] == "SlabAdded" && number(record, "pool_id") > 0)
        .map(|record| number(record, "slab"))
        .collect();
    let mut versions = HashSet::new();
    for record in records.iter().filter(|record| record["kind"] == "Issued") {
        let is_vip = slabs.contains(&number(&record["cards"][0], "slab"));
        let version = number(record, "routes_version");
        assert_eq!(version, 1 + u64::from(is_vip), "{record}");
        versions.insert(version);
    }
    assert_eq!(versions.len(), 2);
    store.wal("verify", &[]).ok();
}
