//! Route tables: checked, loaded, shown, refused by line, and swapped under load without an order noticing.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use croupier_client::{
    Client, Error, Order, OrderId, OrderOutcome, Priority, Refusal, SkuId, holder_of,
};
use croupier_protocol::{STEP_FLAG_TAG, Step, StepItem};
use croupier_tests::{
    Mint, Oracle, PATIENCE, Server, Store, Wire, croupier, eventually, item, scaled,
};
use rustix::process::Signal;
use tempfile::TempDir;

use super::moves::refusal_of;
use super::stock::import_into;

/// A table that takes every order, and is another text for every number.
fn table(number: usize) -> String {
    let lane = Priority::ALL[number % 4].name();
    format!("# {number}\n[[rule]]\nsku = \"s\"\nlane = \"{lane}\"\n\n[[rule]]\n")
}

const BAD_TABLES: [(&str, &[&str]); 6] = [
    (
        "[[rule]]\n\n[[rule]]\nlane = \"fast\"\n",
        &["line 4", "fast"],
    ),
    (
        "[[rule]]\nspeed = 1\n",
        &["line 2", "unknown field", "speed"],
    ),
    (
        "[[rule]]\npriority = [\"vip\", \"vop\"]\n",
        &["line 2", "vop"],
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

/// The history as the command prints it, the newest first: version, `same_as`, and whether it is in force.
fn history(server: &Server) -> Vec<(u64, Option<u64>, bool)> {
    let rows = server
        .croupier(&["routes", "history", "--json"])
        .ok()
        .json();
    let rows = rows.as_array().expect("an array").iter().map(|row| {
        let version = row["version"].as_u64().expect("a number");
        let is_known = version > 0;
        assert_eq!(row["lsn"].as_u64().is_some(), is_known, "{row}");
        assert_eq!(row["at"].as_str().is_some(), is_known, "{row}");
        let in_force = row["in_force"].as_bool().expect("yes or no");
        (version, row["same_as"].as_u64(), in_force)
    });
    rows.collect()
}

#[tokio::test]
async fn one_can_go_back_to_a_table_that_was_in_force_over_crashes_and_folds() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    assert_eq!(history(&server), [(0, None, true)]);
    server
        .croupier(&["routes", "rollback"])
        .fails(1, &["RoutesVersionUnknown", "before the built-in one"]);
    let built_in = client.routes_show().await.expect("answered").toml;

    for number in 1..=2 {
        client.routes_load(&table(number)).await.expect("a table");
    }
    let back = server.croupier(&["routes", "rollback", "--json"]).ok();
    assert_eq!(back.json()["version"], 3);
    assert_eq!(client.routes_show().await.expect("answered").toml, table(1));
    // The one before it is the one that it replaced.
    server.croupier(&["routes", "rollback"]).ok();
    assert_eq!(client.routes_show().await.expect("answered").toml, table(2));
    server.croupier(&["routes", "rollback", "0"]).ok();
    let shown = client.routes_show().await.expect("answered");
    assert_eq!((shown.version, &shown.toml), (5, &built_in));
    let expect = [
        (5, Some(0), true),
        (4, Some(2), false),
        (3, Some(1), false),
        (2, None, false),
        (1, None, false),
        (0, None, false),
    ];
    assert_eq!(history(&server), expect);
    let json = server
        .croupier(&["routes", "history", "--json"])
        .ok()
        .json();
    assert_eq!(json[4]["bytes"], table(1).len());
    assert_eq!(json[4]["rules"], 2);
    let text = server.croupier(&["routes", "history"]).ok().stdout;
    for word in ["in force", "built in", "same as", "20"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    for (version, toml) in [("0", built_in), ("2", table(2)), ("3", table(1))] {
        let shown = server.croupier(&["routes", "show", "--version", version]);
        assert_eq!(shown.ok().stdout.trim_end(), toml.trim_end(), "{version}");
    }
    for args in [&["rollback", "6"][..], &["show", "--version", "6"]] {
        server
            .croupier(&[&["routes"], args].concat())
            .fails(1, &["RoutesVersionUnknown", "1 to 5"]);
    }

    // After a crash the log tells all of it, and after a clean stop the checkpoint.
    server.kill();
    let server = store.serve();
    let rows = || server.croupier(&["routes", "history", "--json"]).ok();
    assert_eq!(rows().json(), json);
    server.stop().ok();
    let server = store.serve();
    let rows = server.croupier(&["routes", "history", "--json"]).ok();
    assert_eq!(rows.json(), json);
    server.croupier(&["routes", "rollback", "1"]).ok();
    assert_eq!(
        history(&server)[..2],
        [(6, Some(3), true), (5, Some(0), false)]
    );
}

#[tokio::test]
async fn a_change_that_expects_another_table_changes_nothing() {
    let (store, dir) = (Store::new(), TempDir::new().expect("a temporary directory"));
    let server = store.serve();
    let file = dir.path().join("routes.toml");
    let path = file.display().to_string();
    fs::write(&file, table(1)).expect("a file can be written");
    let load = |expect: &str| server.croupier(&["routes", "load", &path, "--expect", expect]);
    load("0").ok();
    let before = history(&server);
    for done in [
        load("0"),
        server.croupier(&["routes", "rollback", "--expect", "2"]),
        server.croupier(&["routes", "rollback", "0", "--expect", "0"]),
    ] {
        done.fails(1, &["RoutesChanged", "route table 1 is in force"]);
        assert_eq!(history(&server), before);
    }
    load("1").ok();
    server
        .croupier(&["routes", "rollback", "--expect", "2"])
        .ok();
    assert_eq!(history(&server)[0], (3, Some(0), true));
}

#[tokio::test]
async fn as_many_tables_are_kept_as_the_page_says() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    // As long as a table may be.
    let table = |number: usize| format!("[[rule]]\n#{number:06}{}\n", "x".repeat((48 << 10) - 17));
    for number in 1..=70 {
        client.routes_load(&table(number)).await.expect("a table");
    }
    let versions = |server: &Server| -> Vec<u64> {
        history(server)
            .into_iter()
            .map(|(version, ..)| version)
            .collect()
    };
    let expect: Vec<u64> = (7..=70).rev().chain([0]).collect();
    assert_eq!(versions(&server), expect);
    server
        .croupier(&["routes", "rollback", "6"])
        .fails(1, &["RoutesVersionUnknown", "7 to 70"]);
    let oldest = client.routes_show_version(7).await.expect("it is kept");
    assert_eq!(oldest.toml, table(7));
    // All of them are in a checkpoint, too.
    server.stop().ok();
    let server = store.serve();
    assert_eq!(versions(&server), expect);
    store_is_whole(server, &store);
}

/// Stops the server, and looks at what it leaves.
fn store_is_whole(server: Server, store: &Store) {
    server.stop().ok();
    store.wal("verify", &[]).ok();
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
    write("[[rule]]\n\n[[rule]]\nlane = \"fast\"\n");
    server.signal(Signal::HUP);
    let path = file.display().to_string();
    let told = [&path, "line 4", "\"fast\"", "the table in force stays"];
    eventually("the bad table is reported, with line and reason", || {
        let log = server.stderr();
        let mut lines = log.lines();
        // One line says all of it; quotes in it may be escaped.
        let line = lines.find(|line| line.contains("fast"))?.replace('\\', "");
        told.iter().all(|word| line.contains(word)).then_some(())
    });
    assert_eq!(history(&server)[0].0, u64::from(first.version) + 1);
    assert_eq!(client.routes_show().await.expect("answered").toml, table(2));
    assert_eq!(
        client.routes_show().await.expect("answered").version,
        first.version + 1
    );
}

/// Two pools of the SKU `s`, each with so many cards; slab 1 is `main`, slab 2 `spare`.
async fn two_pools(client: &Client, cards: usize) -> SkuId {
    let mut mint = Mint::new(23);
    let sku = import_into(client, "s", "main", &mint.secrets(cards, 20)).await;
    import_into(client, "s", "spare", &mint.secrets(cards, 20)).await;
    sku
}

const BY_ORDER: &str = r#"
[[channel]]
name = "main"

[[channel]]
name = "spare"

[[rule]]
name = "tagged"
tag = [7, 8]
channels = ["spare"]

[[rule]]
name = "many"
quantity = "3-"
lane = "background"
channels = ["spare", "main"]

[[rule]]
name = "known"
holder = "named"
channels = ["main"]

[[rule]]
name = "rest"
channels = [{ main = 1, spare = 1 }]
"#;

/// From which slabs the cards of an order are.
async fn slabs_of(client: &Client, order: Order) -> Vec<u32> {
    let issued = client.issue(order).await.expect("there are cards");
    let mut slabs: Vec<u32> = issued.cards.iter().map(|card| card.card.slab).collect();
    slabs.dedup();
    slabs
}

#[tokio::test]
async fn rules_tell_orders_by_tag_quantity_and_holder_and_share_them_out() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let sku = two_pools(&client, 40).await;
    client.routes_load(BY_ORDER).await.expect("a table");
    let new = || Order::new(OrderId::new_v7(), sku);
    let holder = holder_of("anna").expect("a key");
    for (order, slabs) in [
        (new().tag(7), &[2][..]),
        (new().tag(8).quantity(5), &[2]),
        (new().quantity(3).holder(holder), &[2]),
        (new().holder(holder), &[1]),
        (new().holder(holder).tag(9), &[1]),
    ] {
        assert_eq!(slabs_of(&client, order).await, slabs, "{order:?}");
    }
    // Repeats are answered whatever they say besides.
    let order = new().tag(7);
    assert_eq!(slabs_of(&client, order).await, [2]);
    assert_eq!(slabs_of(&client, order.tag(0)).await, [2]);
    // All in one frame: orders of one turn that go different ways.
    let orders: Vec<Order> = (0..8)
        .map(|nth| new().tag(if nth % 2 == 0 { 7 } else { 0 }).holder(holder))
        .collect();
    let outcomes = client.issue_many(&orders).await.expect("an answer");
    for (nth, outcome) in outcomes.into_iter().enumerate() {
        let issued = outcome.into_issued().expect("there are cards");
        let slab = if nth % 2 == 0 { 2 } else { 1 };
        assert_eq!(issued.cards[0].card.slab, slab, "order {nth}");
    }
    // Weights: by id, so each goes one way; the other channel is asked when one has none.
    let mut dealt = [0; 3];
    for _ in 0..60 {
        let slabs = slabs_of(&client, new()).await;
        dealt[slabs[0] as usize] += 1;
    }
    assert!(dealt[1] > 5 && dealt[2] > 5, "{dealt:?}");
    let none = client.issue(new()).await;
    assert_eq!(refusal_of(none), Refusal::OutOfStock);

    let status = server.croupier(&["routes", "status", "--json"]).ok().json();
    let orders = |rule: usize| status["rules"][rule]["orders"].as_u64();
    let taken = [Some(7), Some(1), Some(6), Some(60)];
    assert_eq!([0, 1, 2, 3].map(orders), taken, "{status}");
    assert_eq!(status["rules"][3]["name"], "rest");
    server.croupier(&["routes", "status"]).ok();
    let printed = server.croupier(&["issue", "--sku", "s", "--tag", "7"]);
    printed.fails(1, &["OutOfStock"]);
    server.stop().ok();
    let lanes: Vec<_> = store
        .records()
        .into_iter()
        .filter(|record| record["kind"] == "Issued" && record["quantity"] == 3)
        .map(|record| record["lane"].as_u64())
        .collect();
    assert_eq!(lanes, [Some(3)]);
}

#[tokio::test]
async fn an_order_that_waits_keeps_its_tag() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let sku = client.sku_create("s").await.expect("a SKU");
    client.routes_load(BY_ORDER).await.expect("a table");
    let within = std::time::Duration::from_secs(3600);
    let tagged = Order::new(OrderId::new_v7(), sku).tag(7);
    let waits = client.issue_or_wait(tagged, within).await;
    assert!(matches!(waits, Ok(OrderOutcome::Waiting(_))), "{waits:?}");
    let mut mint = Mint::new(24);
    import_into(&client, "s", "main", &mint.secrets(3, 20)).await;
    // From the log; then from a checkpoint.
    server.kill();
    let server = store.serve();
    server.stop().ok();
    let server = store.serve();
    let client = server.client().await;
    let waits = client.issue_or_wait(tagged, within).await;
    assert!(matches!(waits, Ok(OrderOutcome::Waiting(_))), "{waits:?}");
    import_into(&client, "s", "spare", &mint.secrets(1, 20)).await;
    let issued = client.issue_waiting(tagged, PATIENCE).await;
    assert_eq!(issued.expect("it is filled").cards[0].card.slab, 2);
    server.kill();
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn a_mark_is_passed_when_the_load_is_above() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let sku = two_pools(&client, 5).await;
    // Whoever serves runs a little, and no load is smoothed to the whole of it within an hour's time constant.
    let text = "[load]\nsmoothing = \"1h\"\nhysteresis = 0.5\n[[channel]]\nname = \"main\"\noverflow = { when = \"load > 0\", to = \"spare\" }\n\
        [[channel]]\nname = \"spare\"\n[[rule]]\nname = \"never\"\nwhen = \"load > 0.99999\"\npools = [\"none\"]\n[[rule]]\nname = \"all\"\nchannels = [\"main\"]\n";
    client.routes_load(text).await.expect("a table");
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = client.routes_status().await.expect("it is told");
        if status.marks.iter().any(|mark| mark.at == 0 && mark.passed) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{status:?}");
    }
    let order = Order::new(OrderId::new_v7(), sku);
    assert_eq!(slabs_of(&client, order).await, [2], "it overflows");
    let status = client.routes_status().await.expect("it is told");
    let taken: Vec<u64> = status.rules.iter().map(|rule| rule.orders).collect();
    assert_eq!(taken, [0, 1]);
}

const OUTSIDE: &str = "[[channel]]\nname = \"north\"\nkind = \"upstream\"\nurl = \"croupier://127.0.0.1:9\"\njobs = 7\n\
    [[channel]]\nname = \"alpha\"\nkind = \"issuer\"\npool = \"spare\"\n\
    [[rule]]\nchannels = [{ alpha = 60, north = 40 }]\nbalance = \"least-latency\"\n";

#[tokio::test]
async fn channels_that_are_outside_are_shown_and_what_is_in_their_pools_is_dealt() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    assert_eq!(client.channels().await.expect("an answer"), []);
    server.croupier(&["channels"]).ok();
    let sku = two_pools(&client, 2).await;
    let bad = OUTSIDE.replace("jobs = 7", "jobs = 0");
    match client.routes_load(&bad).await {
        Err(Error::Refused { refusal, text, .. }) => {
            assert_eq!(refusal, Refusal::RoutesInvalid);
            assert!(text.contains("line 5") && text.contains("4096"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.channels().await.expect("an answer"), []);
    client.routes_load(OUTSIDE).await.expect("a table");
    let order = Order::new(OrderId::new_v7(), sku);
    assert_eq!(slabs_of(&client, order).await, [2], "that of alpha");

    let rows = client.channels().await.expect("an answer");
    let told = rows
        .iter()
        .map(|row| (row.name.as_str(), row.kind, row.standing));
    let told: Vec<_> = told.collect();
    assert_eq!(told, [("alpha", 2, 1), ("north", 3, 1)]);
    let shown = server.croupier(&["channels", "--json"]).ok().json();
    assert_eq!(shown[0]["pool"], "spare");
    assert_eq!(shown[1]["kind"], "upstream");
    for row in [&shown[0], &shown[1]] {
        assert_eq!(
            (row["standing"].as_str(), row["cause"].is_null()),
            (Some("healthy"), true)
        );
    }
    server.croupier(&["channels"]).ok();
    server.kill();
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn an_operator_takes_a_channel_out_and_puts_it_back() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    client.routes_load(OUTSIDE).await.expect("a table");
    let moved = client.eject_channel("alpha", None).await.expect("done");
    assert_eq!((moved.standing, moved.until_unix_ms), (2, u64::MAX));
    let hour = Some(std::time::Duration::from_secs(3600));
    let other = client.eject_channel("north", hour).await.expect("done");
    assert!(other.lsn > moved.lsn && other.standing == 2);
    let none = client.eject_channel("gamma", None).await;
    assert_eq!(refusal_of(none), Refusal::ChannelUnknown);
    // From the log, and then from a checkpoint.
    server.kill();
    let server = store.serve();
    server.stop().ok();
    let server = store.serve();
    let client = server.client().await;
    let rows = client.channels().await.expect("an answer");
    let told = rows
        .iter()
        .map(|row| (row.standing, row.cause, row.until_unix_ms));
    let told: Vec<_> = told.collect();
    assert_eq!(told, [(2, 7, u64::MAX), (2, 7, other.until_unix_ms)]);

    let shown = server
        .croupier(&["channels", "restore", "alpha", "--json"])
        .ok()
        .json();
    assert_eq!(
        (shown["standing"].as_str(), shown["until"].is_null()),
        (Some("healthy"), true)
    );
    server
        .croupier(&["channels", "eject", "gamma", "--for", "5m"])
        .fails(1, &["ChannelUnknown", "north, alpha"]);
    server
        .croupier(&["channels", "eject", "alpha", "--for", "0s"])
        .fails(2, &["10m"]);
    let shown = server.croupier(&["channels", "--json"]).ok().json();
    let cause = |nth: usize| {
        (
            shown[nth]["standing"].as_str(),
            shown[nth]["cause"].as_str(),
        )
    };
    assert_eq!(cause(0), (Some("healthy"), Some("operator")));
    assert_eq!(cause(1), (Some("ejected"), Some("operator")));
    server.croupier(&["channels"]).ok();
    server.croupier(&["feed", "--kind", "channel-changed"]).ok();
    server.stop().ok();
    store.wal("verify", &[]).ok();
}

#[test]
fn a_tag_is_a_number_that_an_order_may_have() {
    let store = Store::new();
    let server = store.serve();
    let (mut wire, _) = Wire::greeted(server.addr());
    let plain = item(SkuId(1));
    let refused = |item: StepItem, refusal| OrderOutcome::Refused {
        order_id: item.order_id,
        refusal,
        retry_after_ms: 0,
    };
    let zero = StepItem {
        flags: STEP_FLAG_TAG,
        ..plain
    };
    let flag = Refusal::UnsupportedFlag;
    assert_eq!(wire.issue(&[zero]), [refused(zero, flag)]);
    for step in [Step::Commit, Step::Cancel, Step::Extend] {
        let tagged = plain.tagged(7);
        assert_eq!(
            wire.step(step, &[tagged]),
            [refused(tagged, flag)],
            "{step:?}"
        );
    }
    let unknown = wire.issue(&[plain.tagged(u16::MAX), plain]);
    assert_eq!(unknown[0], refused(plain, Refusal::UnknownSku));
    for bad in ["0", "65536", "x"] {
        server
            .croupier(&["issue", "--sku", "s", "--tag", bad])
            .fails(2, &["--tag"]);
    }
}
