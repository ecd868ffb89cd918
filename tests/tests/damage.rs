//! Whole files that are missing, too many, exchanged or older than the rest: each is refused with its name, or mended
//! with a report, or changes no answer. Flipped bits and single sectors are the business of `croupier-corrupt`; starts.rs
//! has what happens to a file by itself.

use std::fs;
use std::path::PathBuf;

use croupier_client::{Client, Order, OrderId, SkuId};
use croupier_tests::{Mint, Oracle, Store};

/// Orders dealt before each of the copies is made.
const ORDERS: usize = 30;

/// One store at several times of its life, and another life of it.
struct Lives {
    /// With one slab and one checkpoint.
    early: Store,
    /// As `early`, with other orders in the same number behind it, and a checkpoint.
    other: Store,
    /// As `early`, with more orders, another slab, a second checkpoint, and a log that has left its first segment.
    late: Store,
    /// What `late` must know.
    oracle: Oracle,
    sku: SkuId,
}

impl Lives {
    async fn live() -> Self {
        let store = Store::new()
            .with("--checkpoint-segments", 100_000)
            .with("--cores", 1);
        let oracle = Oracle::new();
        let server = store.serve();
        let client = server.client().await;
        let cards = Mint::new(60).secrets(3000, 24);
        let sku = oracle
            .import(&client, "s", &cards)
            .await
            .expect("an import");
        deal(&oracle, &client, sku, ORDERS).await;
        drop(client);
        server.stop().ok();
        let (early, other) = (store.copy(), store.copy());
        go_on(&other, &oracle.fork(), sku).await;
        go_on(&store, &oracle, sku).await;

        let server = store.serve();
        let client = server.client().await;
        let more = Mint::new(61).secrets(100, 24);
        oracle.import(&client, "t", &more).await.expect("an import");
        // A block an order.
        while store.files("wal", ".seg").len() < 4 {
            deal(&oracle, &client, sku, 20).await;
        }
        deal(&oracle, &client, sku, ORDERS).await;
        server.kill();
        Self {
            early,
            other,
            late: store,
            oracle,
            sku,
        }
    }
}

async fn deal(oracle: &Oracle, client: &Client, sku: SkuId, orders: usize) {
    for _ in 0..orders {
        let order = Order::new(OrderId::new_v7(), sku);
        oracle.deal(client, order).await;
    }
}

/// Some orders more, and a clean stop.
async fn go_on(store: &Store, oracle: &Oracle, sku: SkuId) {
    let server = store.serve();
    let client = server.client().await;
    deal(oracle, &client, sku, ORDERS).await;
    drop(client);
    server.stop().ok();
}

/// What must come of it.
enum Expect {
    /// Exit code 3, and these words.
    Refused(Vec<String>),
    /// A start says these words, and every answer is as before.
    Told(Vec<String>),
    /// Every answer is as before.
    Same,
}

use Expect::{Refused, Same, Told};

fn name_of(path: &std::path::Path) -> String {
    let name = path.file_name().expect("a file has a name");
    name.to_string_lossy().into_owned()
}

fn nth(store: &Store, dir: &str, nth: usize) -> PathBuf {
    store.files(dir, "")[nth].clone()
}

/// Puts a file of another copy in place of the file with the same name.
fn put_back(from: &Store, to: &Store, inside: &str) {
    fs::copy(from.path(inside), to.path(inside)).expect("a file can be copied");
}

fn put_back_all(from: &Store, to: &Store, dir: &str) {
    for file in to.files(dir, "") {
        fs::remove_file(file).expect("it is there");
    }
    for file in from.files(dir, "") {
        fs::copy(&file, to.path(dir).join(name_of(&file))).expect("a file can be copied");
    }
}

fn swap(one: &std::path::Path, other: &std::path::Path) {
    let kept = one.with_extension("kept");
    for (from, to) in [(one, kept.as_path()), (other, one), (&kept, other)] {
        fs::rename(from, to).expect("a file can be renamed");
    }
}

/// What is done to a copy of `late`.
type Damage = fn(&Lives, &Store) -> Expect;

const CASES: &[(&str, Damage)] = &[
    ("a segment as it was before it was left", |lives, store| {
        let path = nth(store, "wal", 0);
        fs::copy(nth(&lives.early, "wal", 0), &path).expect("a file can be copied");
        Refused(vec![name_of(&path), "offset".into()])
    }),
    ("a segment of another life of the store", |lives, store| {
        let path = nth(store, "wal", 0);
        fs::copy(nth(&lives.other, "wal", 0), &path).expect("a file can be copied");
        Refused(vec![name_of(&path), "offset".into()])
    }),
    (
        "an old segment under the number of the newest",
        |_, store| {
            let path = nth(store, "wal", 1);
            fs::copy(nth(store, "wal", 0), &path).expect("a file can be copied");
            Refused(vec![name_of(&path), "number".into()])
        },
    ),
    ("the newest segment and a spare exchanged", |_, store| {
        let path = nth(store, "wal", 1);
        swap(&path, &nth(store, "wal", 2));
        Refused(vec![name_of(&path), "number".into()])
    }),
    ("a blank segment in place of the newest", |_, store| {
        let (path, spare) = (nth(store, "wal", 1), nth(store, "wal", 2));
        fs::copy(spare, &path).expect("a file can be copied");
        Refused(vec![name_of(&path), "number".into()])
    }),
    ("a spare once more behind a gap", |_, store| {
        let path = store.path("wal/wal-0000000000000009.seg");
        fs::copy(nth(store, "wal", 2), path).expect("a file can be copied");
        Refused(vec!["wal-0000000000000005.seg".into(), "missing".into()])
    }),
    ("all segments from the newest on missing", |_, store| {
        let path = nth(store, "wal", 1);
        for path in &store.files("wal", "")[1..] {
            fs::remove_file(path).expect("it is there");
        }
        Refused(vec![name_of(&path), "missing".into()])
    }),
    ("no segment at all", |_, store| {
        let path = nth(store, "wal", 0);
        for path in store.files("wal", "") {
            fs::remove_file(path).expect("it is there");
        }
        Refused(vec![name_of(&path), "missing".into()])
    }),
    ("spares missing", |_, store| {
        for path in &store.files("wal", "")[2..] {
            fs::remove_file(path).expect("it is there");
        }
        Same
    }),
    ("files of no known name in the log", |_, store| {
        let segment = nth(store, "wal", 1);
        for name in ["wal-0000000000000002.seg.bak", "wal-000000000000000A.seg"] {
            fs::copy(&segment, store.path("wal").join(name)).expect("a file can be copied");
        }
        Same
    }),
    ("CURRENT as it was", |lives, store| {
        put_back(&lives.early, store, "CURRENT");
        Refused(vec![
            name_of(&nth(&lives.early, "checkpoints", 0)),
            "missing".into(),
        ])
    }),
    ("CURRENT and its checkpoint as they were", |lives, store| {
        put_back(&lives.early, store, "CURRENT");
        put_back_all(&lives.early, store, "checkpoints");
        Refused(vec![
            name_of(&nth(&lives.early, "orders", 0)),
            "missing".into(),
        ])
    }),
    (
        "all of an older checkpoint, and the log still there from it on",
        |lives, store| {
            put_back(&lives.early, store, "CURRENT");
            put_back_all(&lives.early, store, "checkpoints");
            put_back_all(&lives.early, store, "orders");
            Same
        },
    ),
    (
        "an older checkpoint under the name of the newest",
        |lives, store| {
            let path = nth(store, "checkpoints", 0);
            fs::copy(nth(&lives.early, "checkpoints", 0), &path).expect("a file can be copied");
            Refused(vec![name_of(&path), "offset 32".into()])
        },
    ),
    ("a checkpoint of another life", |lives, store| {
        put_back_all(&lives.other, store, "checkpoints");
        put_back(&lives.other, store, "CURRENT");
        Refused(vec!["orders".into(), "offset".into()])
    }),
    ("an older checkpoint beside the newest", |lives, store| {
        let older = nth(&lives.early, "checkpoints", 0);
        fs::copy(&older, store.path("checkpoints").join(name_of(&older)))
            .expect("a file can be copied");
        Same
    }),
    (
        "an older order file under the name of the newest",
        |lives, store| {
            let path = nth(store, "orders", 0);
            fs::copy(nth(&lives.early, "orders", 0), &path).expect("a file can be copied");
            Refused(vec![name_of(&path), "bytes".into()])
        },
    ),
    (
        "an order file of another life, of the same name and length",
        |lives, store| {
            let (path, other) = (nth(store, "orders", 0), nth(&lives.other, "orders", 0));
            assert_eq!(name_of(&path), name_of(&other));
            fs::copy(other, &path).expect("a file can be copied");
            Refused(vec!["orders".into(), "another copy".into()])
        },
    ),
    ("an order file that no checkpoint names", |lives, store| {
        let older = nth(&lives.early, "orders", 0);
        fs::copy(&older, store.path("orders").join(name_of(&older))).expect("a file can be copied");
        Same
    }),
    ("two slabs exchanged", |_, store| {
        let path = nth(store, "slabs", 0);
        swap(&path, &nth(store, "slabs", 1));
        Refused(vec![name_of(&path)])
    }),
    ("a slab once more under a free number", |_, store| {
        let copy = store.path("slabs/slab-00000077.slab");
        fs::copy(nth(store, "slabs", 0), copy).expect("a file can be copied");
        Told(vec!["slab-00000077.slab".into(), "removed".into()])
    }),
    ("half a slab", |_, store| {
        let bytes = fs::read(nth(store, "slabs", 0)).expect("a file can be read");
        let half = store.path("slabs/slab-00000078.slab.partial");
        fs::write(half, &bytes[..bytes.len() / 2]).expect("a file can be written");
        Told(vec!["slab-00000078.slab.partial".into(), "removed".into()])
    }),
    ("drafts", |_, store| {
        for draft in ["wal/draft-7.tmp", "orders/draft-7.tmp", "CURRENT.tmp"] {
            fs::write(store.path(draft), "half").expect("a file can be written");
        }
        Same
    }),
    ("no lock", |_, store| {
        fs::remove_file(store.path("LOCK")).expect("it is there");
        Same
    }),
    ("bytes in the lock", |_, store| {
        fs::write(store.path("LOCK"), "somebody").expect("a file can be written");
        Same
    }),
];

#[tokio::test]
async fn files_that_do_not_belong_together_are_refused_or_change_nothing() {
    let lives = Lives::live().await;
    for (what, damage) in CASES {
        let store = lives.late.copy();
        let expect = damage(&lives, &store);
        let before = store.tree();
        let words = match &expect {
            Refused(words) | Told(words) => words.iter().map(String::as_str).collect(),
            Same => Vec::new(),
        };
        if let Refused(_) = expect {
            let refused = store.serve_refused();
            eprintln!("{what}: {}", refused.stderr.trim());
            refused.fails(3, &words);
            store.wal("verify", &[]).fails(3, &words);
            assert_eq!(store.tree(), before, "{what}: nothing is changed");
            continue;
        }
        Oracle::verify(&store);
        assert_eq!(store.tree(), before, "{what}: verify changes nothing");
        let server = store.serve();
        let log = server.log_with("recovered");
        for word in words {
            assert!(log.contains(word), "{what}: no {word:?} in\n{log}");
        }
        let (oracle, client) = (lives.oracle.fork(), server.client().await);
        oracle.check_all(&client).await;
        oracle.ask_all_again(&client).await;
        deal(&oracle, &client, lives.sku, 3).await;
        oracle.check_all(&client).await;
        drop(client);
        server.stop().ok();
        oracle.check_disk(&store);
        assert_eq!(store.files("checkpoints", "").len(), 1, "{what}");
    }
}
