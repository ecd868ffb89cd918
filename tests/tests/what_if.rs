//! What-if: a store that was served with one route table, and its orders run through another.

use std::fs;

use croupier_client::{DEFAULT_TTL, Order, OrderId, Priority};
use croupier_tests::{Done, Mint, Oracle, Store, croupier};
use serde_json::{Value, json};
use tempfile::TempDir;

/// `croupier routes replay` on a store, with a table of this text.
fn replay(store: &Store, table: &str, more: &[&str]) -> Done {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("new.toml");
    fs::write(&file, table).expect("a file can be written");
    let (data, file) = (
        store.dir().display().to_string(),
        file.display().to_string(),
    );
    let args = ["routes", "replay", "--data", &data, "--table", &file];
    croupier(args.iter().chain(more))
}

/// Imports so many cards into a pool of a SKU.
fn stock(server: &croupier_tests::Server, sku: &str, pool: &str, cards: usize) {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("cards.txt");
    let lines: String = (0..cards)
        .map(|n| format!("{sku}-{pool}-{n:04}\n"))
        .collect();
    fs::write(&file, lines).expect("a file can be written");
    let file = file.display().to_string();
    let args = [
        "import",
        "--sku",
        sku,
        "--create-sku",
        "--pool",
        pool,
        &file,
    ];
    server.croupier(&args).ok();
}

/// Counts of a lane or a pool: orders before and after, cards before and after.
fn counts(value: &Value) -> [u64; 4] {
    let names = [
        "orders_before",
        "orders_after",
        "cards_before",
        "cards_after",
    ];
    names.map(|name| value[name].as_u64().expect("a number"))
}

const SERVED: &str = "[[rule]]\npriority = [\"vip\"]\npools = [\"vip\", \"main\"]\n[[rule]]\n";
const ASKED: &str = "[[rule]]\nname = \"steam\"\nsku = \"steam\"\nlane = \"bulk\"\npools = [\"main\"]\n\
                     [[rule]]\nname = \"vips\"\npriority = [\"vip\"]\n\
                     [[rule]]\nsku = \"gift\"\npriority = [\"standard\"]\n";

#[tokio::test]
async fn the_orders_of_a_store_are_run_through_another_table() {
    let store = Store::new();
    let server = store.serve();
    stock(&server, "steam", "main", 10);
    stock(&server, "steam", "vip", 10);
    stock(&server, "gift", "main", 5);
    let client = server.client().await;
    client.routes_load(SERVED).await.expect("a table");
    let deal = |line: &str| {
        let args: Vec<&str> = line.split(' ').collect();
        server
            .croupier(&[&args[..], &["--json"]].concat())
            .ok()
            .json()
    };
    let first = deal("issue --sku steam --priority vip --quantity 2");
    deal("issue --sku steam --quantity 3");
    deal("issue --sku gift");
    let held = deal("reserve --sku gift --quantity 2");
    let order = held["order_id"].as_str().expect("an id");
    deal(&format!("extend {order} --nth 1"));
    deal(&format!("commit {order}"));
    deal("reserve --sku steam --card 1:7 --bind now");
    // Two are left.
    deal("issue --sku gift --priority bulk --quantity 4 --wait 1h --detach");
    replay(&store, ASKED, &[]).fails(1, &["in use by another croupier"]);
    drop(client);
    server.kill();

    let expect = |report: &Value| {
        let totals = ["orders", "cards", "picked", "left_out", "log_from_lsn"];
        let totals = totals.map(|name| report[name].as_u64().expect("a number"));
        assert_eq!(totals, [5, 12, 1, 0, 1], "{report}");
        assert_eq!(report["first_lsn"], first["lsn"]);
        let rules = json!([
            { "rule": 1, "name": "steam", "orders": 2, "cards": 5 },
            { "rule": 2, "name": "vips", "orders": 0, "cards": 0 },
            { "rule": 3, "name": "", "orders": 2, "cards": 3 },
        ]);
        assert_eq!(report["rules"], rules);
        let lanes = report["lanes"].as_array().expect("an array");
        let lanes: Vec<[u64; 4]> = lanes.iter().map(counts).collect();
        let vip = [1, 0, 2, 0];
        assert_eq!(lanes, [vip, [3, 2, 6, 3], [1, 2, 4, 5], [0; 4]], "{report}");
        let pools = report["pools"].as_array().expect("an array");
        assert_eq!(
            (&pools[0]["pool"], &pools[1]["pool"]),
            (&json!("main"), &json!("vip"))
        );
        let pools: Vec<[u64; 4]> = pools.iter().map(counts).collect();
        assert_eq!(pools, [[3, 4, 6, 8], vip], "{report}");
        for (name, orders, cards) in [
            ("other_lane", 2, 5),
            ("other_pools", 1, 2),
            ("no_pool", 0, 0),
            ("no_route", 1, 4),
        ] {
            assert_eq!(
                report[name],
                json!({ "orders": orders, "cards": cards }),
                "{name}"
            );
        }
        let by = json!([{ "sku": "gift", "priority": "bulk", "orders": 1, "cards": 4 }]);
        assert_eq!(report["no_route_by"], by);
        // There is nobody outside to wait for.
        assert_eq!(report["waits"], Value::Null);
    };
    let before = store.tree();
    expect(&replay(&store, ASKED, &["--json"]).ok().json());
    assert_eq!(store.tree(), before, "a what-if changes nothing");
    // A clean stop has folded all of it, and left the segment that was in use.
    store.serve().stop().ok();
    expect(&replay(&store, ASKED, &["--json"]).ok().json());

    // With the table that was in force nothing is otherwise.
    let same = replay(&store, SERVED, &["--json"]).ok().json();
    for name in ["other_lane", "other_pools", "no_pool", "no_route"] {
        assert_eq!(same[name]["orders"], 0, "{name}");
    }
    let lanes = same["lanes"].as_array().expect("an array");
    for [before, after, ..] in lanes.iter().map(counts) {
        assert_eq!(before, after, "{same}");
    }

    let text = replay(&store, ASKED, &[]).ok();
    for words in [
        "5 orders of 12 cards",
        "no route",
        "steam",
        "another lane",
        "−1",
        "+1",
        "picked",
    ] {
        assert!(text.stdout.contains(words), "{words}: {text}");
    }
    assert!(text.stderr.contains("no rule takes all orders"), "{text}");
}

#[tokio::test]
async fn a_what_if_looks_at_a_part_of_the_log_and_says_what_is_wrong() {
    let store = Store::new();
    let server = store.serve();
    stock(&server, "s", "main", 5);
    let lsns: Vec<u64> = (0..3)
        .map(|_| {
            let dealt = server
                .croupier(&["issue", "--sku", "s", "--json"])
                .ok()
                .json();
            dealt["lsn"].as_u64().expect("a number")
        })
        .collect();
    server.kill();
    let table = "[[rule]]\n";
    let all = replay(&store, table, &["--json"]).ok().json();
    let (first, last) = (lsns[0].to_string(), lsns[2].to_string());
    let (first_at, last_at) = (all["first_at"].as_str(), all["last_at"].as_str());
    let (first_at, last_at) = (first_at.expect("a time"), last_at.expect("a time"));
    for (span, orders) in [
        (&["--from", &last][..], 1),
        (&["--until", &first], 1),
        (&["--from", &first, "--until", &last], 3),
        (&["--from", first_at, "--until", last_at], 3),
        (&["--until", "2001-01-01T00:00:00Z"], 0),
        (&["--from", "2999-01-01T00:00:00Z"], 0),
        (&["--from", "9999999"], 0),
    ] {
        let report = replay(&store, table, &[span, &["--json"]].concat())
            .ok()
            .json();
        assert_eq!(report["orders"], orders, "{span:?}: {report}");
    }
    let none = replay(&store, table, &["--until", "0"]).ok();
    assert!(none.stdout.starts_with("no orders"), "{none}");

    replay(&store, "[[rule]]\n\n[[rule]]\nlane = \"fast\"\n", &[]).fails(1, &["line 4", "fast"]);
    replay(&store, table, &["--from", "yesterday"]).fails(2, &["RFC 3339"]);
    let nowhere = [
        "routes",
        "replay",
        "--data",
        "/nowhere",
        "--table",
        "/nowhere/new.toml",
    ];
    croupier(nowhere).fails(1, &["/nowhere/new.toml"]);
    // Damage is found as by all who read the log.
    let damaged = store.copy();
    let segment = &damaged.files("wal", ".seg")[0];
    let mut bytes = fs::read(segment).expect("a segment");
    bytes[4096 + 200] ^= 1;
    fs::write(segment, bytes).expect("a file can be written");
    replay(&damaged, table, &[]).fails(3, &["wal-"]);
}

#[tokio::test]
async fn orders_that_are_folded_away_count_as_far_as_they_are_known() {
    let store = Store::new();
    let (server, oracle) = (store.serve(), Oracle::new());
    let client = server.client().await;
    let cards = Mint::new(31).secrets(2000, 20);
    let sku = oracle
        .import(&client, "s", &cards)
        .await
        .expect("an import");
    // Four that are not dealt at once.
    for nth in 0..4 {
        let order = Order::new(OrderId::new_v7(), sku).quantity(2);
        client.reserve(order, DEFAULT_TTL).await.expect("a hold");
        match nth {
            0 => client.cancel(order.order_id).await.map(|_| ()),
            _ => client.commit(order.order_id).await.map(|_| ()),
        }
        .expect("an end");
    }
    // Lone orders take a page each: some segments are full of them.
    let dealt = 1500;
    for nth in 0..dealt {
        let priority = Priority::ALL[nth % 4];
        let order = Order::new(OrderId::new_v7(), sku).priority(priority);
        client.issue(order).await.expect("a card");
    }
    drop(client);
    server.stop().ok();

    let table = "[[rule]]\npriority = [\"vip\"]\n[[rule]]\nlane = \"background\"\n";
    let report = replay(&store, table, &["--json"]).ok().json();
    assert!(
        report["log_from_lsn"].as_u64() > report["first_lsn"].as_u64(),
        "{report}"
    );
    assert_eq!(
        (&report["orders"], &report["left_out"]),
        (&json!(dealt), &json!(4))
    );
    assert_eq!(report["rules"][0]["orders"], dealt / 4);
    assert_eq!(report["other_lane"]["orders"], dealt / 2);
    let text = replay(&store, table, &[]).ok();
    assert!(
        text.stdout
            .contains("not counted: 4 orders from before LSN"),
        "{text}"
    );
}
