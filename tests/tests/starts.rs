//! Starts that must be refused, with the reason, the file and the place, and without a byte changed on disk; and the
//! one kind of damage that a start mends: a write that a crash cut short.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use croupier_client::{Order, OrderId, OrderOutcome, SkuId};
use croupier_tests::{Mint, Oracle, Store, croupier};

const SECTOR_BYTES: usize = 512;
/// Orders of the last block of the log.
const TAIL_ORDERS: usize = 200;

/// A store with a past, to be copied and damaged.
struct Past {
    store: Store,
    /// What it must know, but for the orders of `tail`.
    oracle: Oracle,
    /// The orders of the last block.
    tail: Vec<Order>,
    sku: SkuId,
}

/// Killed with several segments in its log and no checkpoint.
fn crashed() -> Arc<Past> {
    static PAST: Mutex<Weak<Past>> = Mutex::new(Weak::new());
    shared(&PAST, || with_runtime(make_crashed()))
}

/// Its checkpoint holds most of it, and the log behind that the rest.
fn folded() -> Arc<Past> {
    static PAST: Mutex<Weak<Past>> = Mutex::new(Weak::new());
    shared(&PAST, || with_runtime(make_folded(crashed())))
}

/// Made once for all tests that run at the same time, and removed with the last of them.
fn shared<T>(place: &Mutex<Weak<T>>, make: impl FnOnce() -> T) -> Arc<T> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    place.upgrade().unwrap_or_else(|| {
        let made = Arc::new(make());
        *place = Arc::downgrade(&made);
        made
    })
}

fn with_runtime<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    // On a thread of its own: the caller may be on a runtime already.
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    std::thread::spawn(move || runtime().block_on(work))
        .join()
        .expect("a store with a past")
}

async fn make_crashed() -> Past {
    let store = Store::new()
        .with("--checkpoint-segments", 100_000)
        .with("--cores", 1);
    let (server, oracle) = (store.serve(), Oracle::new());
    let client = server.client().await;
    let sku = oracle
        .import(&client, "s", &Mint::new(40).secrets(5000, 24))
        .await
        .expect("an import");
    oracle
        .import(&client, "t", &Mint::new(41).secrets(500, 200))
        .await
        .expect("an import");
    // A block an order: enough to leave the first segment and the second.
    while store.files("wal", ".seg").len() < 5 {
        oracle
            .deal(&client, Order::new(OrderId::new_v7(), sku))
            .await;
    }
    let tail: Vec<_> = (0..TAIL_ORDERS)
        .map(|_| Order::new(OrderId::new_v7(), sku))
        .collect();
    let outcomes = client.issue_many(&tail).await.expect("answered");
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, OrderOutcome::Issued(_)))
    );
    server.kill();
    Past {
        store,
        oracle,
        tail,
        sku,
    }
}

async fn make_folded(crashed: Arc<Past>) -> Past {
    let (store, oracle) = (crashed.store.copy(), crashed.oracle.fork());
    {
        let server = store.serve();
        let client = server.client().await;
        oracle
            .issue(&client, &crashed.tail)
            .await
            .expect("answered");
        server.stop().ok();
    }
    let server = store.serve();
    let client = server.client().await;
    oracle
        .deal(&client, Order::new(OrderId::new_v7(), crashed.sku))
        .await;
    server.kill();
    Past {
        store,
        oracle,
        tail: Vec::new(),
        sku: crashed.sku,
    }
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("a file can be read");
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).expect("a file can be written");
}

fn truncate(path: &Path, less: u64) {
    let file = fs::File::options()
        .write(true)
        .open(path)
        .expect("a file can be opened");
    let bytes = file.metadata().expect("it has a length").len();
    file.set_len(bytes - less).expect("a file can be cut");
}

fn zero(path: &Path, from: usize, to: usize) {
    let mut bytes = fs::read(path).expect("a file can be read");
    bytes[from..to].fill(0);
    fs::write(path, bytes).expect("a file can be written");
}

/// A block of the log, found by the page that describes it.
#[derive(Debug, Clone)]
struct Block {
    path: PathBuf,
    offset: usize,
    /// Header and body.
    bytes: usize,
    is_last_of_segment: bool,
}

fn blocks(store: &Store) -> Vec<Block> {
    let mut blocks = Vec::new();
    for path in store.files("wal", ".seg") {
        let segment = fs::read(&path).expect("a file can be read");
        let mut offset = 4096;
        while offset < segment.len() && segment[offset..].starts_with(b"CRPRBLK1") {
            let body =
                u32::from_le_bytes(segment[offset + 104..][..4].try_into().expect("four bytes"))
                    as usize;
            let is_last_of_segment = segment[offset + 10] & 1 != 0;
            blocks.push(Block {
                path: path.clone(),
                offset,
                bytes: 128 + body,
                is_last_of_segment,
            });
            offset += (128 + body).next_multiple_of(4096);
        }
    }
    blocks
}

fn last_block(store: &Store) -> Block {
    let last = blocks(store).pop().expect("a log with a block");
    assert!(
        last.bytes >= 128 + TAIL_ORDERS * 64,
        "the last block is that of the tail: {last:?}"
    );
    last
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .expect("a file has a name")
        .to_string_lossy()
        .into_owned()
}

/// Damages a copy; returns the words that the refusal must have.
type Damage = fn(&Store) -> Vec<String>;

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

fn slab(store: &Store, nth: usize) -> PathBuf {
    store.files("slabs", ".slab")[nth].clone()
}

fn in_block(block: &Block, at: usize) -> Vec<String> {
    flip(&block.path, block.offset + at);
    vec![name_of(&block.path), format!("offset {}", block.offset)]
}

#[track_caller]
fn check_refused(what: &str, past: &Past, code: i32, damage: Damage, in_verify: bool) {
    let store = past.store.copy();
    let expect = damage(&store);
    let expect: Vec<_> = expect.iter().map(String::as_str).collect();
    let before = store.tree();
    let started = store.serve_refused();
    eprintln!("{what}: {}", started.stderr.trim());
    started.fails(code, &expect);
    assert_eq!(
        store.tree(),
        before,
        "{what}: a refused start changes nothing"
    );
    if in_verify {
        store.wal("verify", &[]).fails(code, &expect);
        assert_eq!(store.tree(), before, "{what}: verify changes nothing");
    }
}

#[test]
fn a_damaged_slab_stops_the_start() {
    let (crashed, folded, _other) = (crashed(), folded(), other_store());
    let cases: [(&str, Damage); 9] = [
        ("the claim bit of a sold card set in the file", |store| {
            flip(&slab(store, 0), 4096);
            vec![name_of(&slab(store, 0))]
        }),
        ("the claim bit of a free card set in the file", |store| {
            flip(&slab(store, 0), 4096 + 4900 / 8);
            vec![name_of(&slab(store, 0))]
        }),
        ("truncated", |store| {
            truncate(&slab(store, 0), 1);
            vec![name_of(&slab(store, 0)), "bytes long".into()]
        }),
        ("truncated to its header", |store| {
            let bytes = fs::metadata(slab(store, 1)).expect("it is there").len();
            truncate(&slab(store, 1), bytes - 100);
            vec![name_of(&slab(store, 1))]
        }),
        ("flipped bit in the header", |store| {
            flip(&slab(store, 0), 48);
            vec![name_of(&slab(store, 0)), "offset".into()]
        }),
        ("flipped bit in the wrapped key", |store| {
            flip(&slab(store, 0), 170);
            vec![name_of(&slab(store, 0)), "offset".into()]
        }),
        ("missing", |store| {
            let path = slab(store, 1);
            fs::remove_file(&path).expect("it is there");
            vec![name_of(&path)]
        }),
        ("another store's", |store| {
            let other = other_store();
            fs::copy(slab(&other, 0), slab(store, 0)).expect("a file can be copied");
            vec![name_of(&slab(store, 0))]
        }),
        ("another slab of this store", |store| {
            fs::copy(slab(store, 1), slab(store, 0)).expect("a file can be copied");
            vec![name_of(&slab(store, 0))]
        }),
    ];
    for (what, damage) in cases {
        check_refused(what, &crashed, 3, damage, true);
        check_refused(what, &folded, 3, damage, true);
    }
}

/// Another store, with a slab and a log.
fn other_store() -> Arc<Store> {
    static OTHER: Mutex<Weak<Store>> = Mutex::new(Weak::new());
    shared(&OTHER, || {
        let store = Store::new();
        let file = store.dir().with_file_name("cards.txt");
        let cards: Vec<_> = Mint::new(42)
            .secrets(100, 24)
            .into_iter()
            .map(|card| [card, b"\n".to_vec()].concat())
            .collect();
        fs::write(&file, cards.concat()).expect("a file can be written");
        let server = store.serve();
        server
            .croupier(&[
                "import",
                "--create-sku",
                "--sku",
                "s",
                &file.display().to_string(),
            ])
            .ok();
        server.kill();
        store
    })
}

#[test]
fn a_flipped_bit_in_the_cards_is_found_by_verify() {
    let past = crashed();
    for at in [10_000, 100_000, 300_000] {
        let store = past.store.copy();
        let path = slab(&store, 0);
        flip(&path, at);
        let before = store.tree();
        store
            .wal("verify", &[])
            .fails(3, &[&name_of(&path), "offset"]);
        assert_eq!(store.tree(), before);
    }
}

#[test]
fn a_damaged_log_stops_the_start() {
    let (past, _other) = (crashed(), other_store());
    let cases: [(&str, Damage); 14] = [
        ("segment missing in the middle", |store| {
            let path = &store.files("wal", ".seg")[1];
            fs::remove_file(path).expect("it is there");
            vec![name_of(path), "missing".into()]
        }),
        ("first segment missing", |store| {
            let path = &store.files("wal", ".seg")[0];
            fs::remove_file(path).expect("it is there");
            words(["missing"])
        }),
        ("segment truncated", |store| {
            let path = &store.files("wal", ".seg")[1];
            truncate(path, 4096);
            vec![name_of(path)]
        }),
        ("flipped bit in a segment's header", |store| {
            let path = &store.files("wal", ".seg")[1];
            flip(path, 33);
            vec![name_of(path), "offset 0".into()]
        }),
        ("flipped bit in a spare segment's header", |store| {
            let path = store.files("wal", ".seg").pop().expect("a spare");
            flip(&path, 33);
            vec![name_of(&path), "offset 0".into()]
        }),
        ("a byte in a spare segment", |store| {
            let path = store.files("wal", ".seg").pop().expect("a spare");
            flip(&path, 500_000);
            vec![name_of(&path), "offset".into()]
        }),
        ("another store's segment", |store| {
            fs::copy(
                &other_store().files("wal", ".seg")[0],
                &store.files("wal", ".seg")[0],
            )
            .expect("a file can be copied");
            words(["another store"])
        }),
        ("flipped bit in the body of an early block", |store| {
            in_block(&blocks(store)[7], 140)
        }),
        ("flipped bit in the header of an early block", |store| {
            in_block(&blocks(store)[7], 64)
        }),
        ("flipped bit in the magic of an early block", |store| {
            in_block(&blocks(store)[7], 0)
        }),
        ("an early block of zeros", |store| {
            let block = &blocks(store)[7];
            zero(&block.path, block.offset, block.offset + 4096);
            vec![name_of(&block.path), format!("offset {}", block.offset)]
        }),
        (
            "flipped bit in the block that leads to the next segment",
            |store| {
                let block = blocks(store)
                    .into_iter()
                    .find(|block| block.is_last_of_segment);
                in_block(&block.expect("a segment that was left"), 50)
            },
        ),
        ("flipped bit in the body of the last block", |store| {
            in_block(&last_block(store), 1000)
        }),
        ("flipped bit in the header of the last block", |store| {
            in_block(&last_block(store), 56)
        }),
    ];
    for (what, damage) in cases {
        check_refused(what, &past, 3, damage, true);
    }
}

#[test]
fn a_damaged_checkpoint_stops_the_start() {
    let past = folded();
    let cases: [(&str, Damage); 10] = [
        ("CURRENT missing", |store| {
            fs::remove_file(store.path("CURRENT")).expect("it is there");
            words(["CURRENT", "missing"])
        }),
        ("CURRENT of garbage", |store| {
            fs::write(store.path("CURRENT"), "../../etc/passwd\n").expect("a file can be written");
            words(["CURRENT"])
        }),
        ("CURRENT empty", |store| {
            fs::write(store.path("CURRENT"), "").expect("a file can be written");
            words(["CURRENT"])
        }),
        ("flipped bit in the checkpoint's header", |store| {
            flip(&store.files("checkpoints", ".ckpt")[0], 40);
            words(["ckpt-", "offset"])
        }),
        ("flipped bit in the checkpoint's body", |store| {
            flip(&store.files("checkpoints", ".ckpt")[0], 400);
            words(["ckpt-", "offset"])
        }),
        ("checkpoint truncated", |store| {
            truncate(&store.files("checkpoints", ".ckpt")[0], 1);
            words(["ckpt-"])
        }),
        ("checkpoint missing", |store| {
            fs::remove_file(&store.files("checkpoints", ".ckpt")[0]).expect("it is there");
            words(["ckpt-"])
        }),
        ("flipped bit in an order file's header", |store| {
            flip(&store.files("orders", ".run")[0], 20);
            words(["orders-", "offset"])
        }),
        ("flipped bit in an order file's rows", |store| {
            flip(&store.files("orders", ".run")[0], 5000);
            words(["orders-", "offset"])
        }),
        ("order file missing", |store| {
            fs::remove_file(&store.files("orders", ".run")[0]).expect("it is there");
            words(["orders-"])
        }),
    ];
    for (what, damage) in cases {
        check_refused(what, &past, 3, damage, true);
    }
}

#[test]
fn a_key_that_is_lost_wrong_or_open_to_all_stops_the_start() {
    let (past, _other) = (crashed(), other_store());
    fn mode(store: &Store, mode: u32) {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(store.path("store.key"), permissions).expect("a mode can be set");
    }
    let cases: [(&str, i32, Damage); 6] = [
        ("lost", 1, |store| {
            fs::remove_file(store.path("store.key")).expect("it is there");
            words(["key file", "store.key", "missing"])
        }),
        ("another store's", 1, |store| {
            fs::copy(other_store().path("store.key"), store.path("store.key"))
                .expect("a file can be copied");
            words(["key file belongs to store", "--key-file"])
        }),
        ("readable by all", 1, |store| {
            mode(store, 0o644);
            words(["store.key", "chmod 600"])
        }),
        ("readable by the group", 1, |store| {
            mode(store, 0o640);
            words(["store.key", "chmod 600"])
        }),
        ("flipped bit", 3, |store| {
            flip(&store.path("store.key"), 30);
            words(["store.key", "offset"])
        }),
        ("flipped bit in the store file", 3, |store| {
            flip(&store.path("store"), 20);
            words(["store", "offset"])
        }),
    ];
    for (what, code, damage) in cases {
        check_refused(what, &past, code, damage, true);
    }
}

#[tokio::test]
async fn a_key_kept_elsewhere_opens_the_store() {
    let past = crashed();
    let store = past.store.copy();
    let elsewhere = store.dir().with_file_name("the.key");
    fs::rename(store.path("store.key"), &elsewhere).expect("a file can be moved");
    let store = store.with("--key-file", elsewhere.display());
    let server = store.serve();
    let oracle = past.oracle.fork();
    let client = server.client().await;
    oracle.look_up_all(&client).await;
    oracle.issue(&client, &past.tail).await.expect("answered");
    oracle.check_all(&client).await;
}

#[test]
fn a_directory_that_is_no_store_is_refused() {
    let parent = crashed().store.copy();
    let at = |name: &str| Store::at(parent.dir().with_file_name(name));
    let missing = at("missing");
    missing
        .serve_refused()
        .fails(1, &["missing", "not a data directory", "croupier init"]);
    assert!(!missing.dir().exists(), "a refused start makes nothing");
    let strange = at("strange");
    fs::create_dir(strange.dir()).expect("a directory can be made");
    fs::write(strange.path("letter.txt"), "hello").expect("a file can be written");
    let file = at("file");
    fs::write(file.dir(), "hello").expect("a file can be written");
    for store in [&strange, &file] {
        store.serve_refused().fails(1, &["not a data directory"]);
        store.wal("verify", &[]).fails(1, &["not a data directory"]);
        store.wal("dump", &[]).fails(1, &["not a data directory"]);
    }
    assert_eq!(
        fs::read_dir(strange.dir()).expect("it is there").count(),
        1,
        "a refused start makes nothing"
    );

    // A store is made once, and not on top of something else.
    let init = |store: &Store| croupier(["init", "--data", &store.dir().display().to_string()]);
    let before = parent.tree();
    init(&parent).fails(1, &["already a data directory"]);
    assert_eq!(parent.tree(), before);
    init(&strange).fails(1, &["not empty"]);
    let strange_dir = strange.dir().display().to_string();
    parent
        .wal("replay", &["--into", &strange_dir])
        .fails(1, &["not empty"]);
    assert_eq!(fs::read_dir(strange.dir()).expect("it is there").count(), 1);
    assert_eq!(parent.tree(), before);
}

#[test]
fn a_store_that_is_served_is_locked() {
    let store = Store::new();
    let server = store.serve();
    store
        .serve_refused()
        .fails(1, &["in use by another croupier", "Stop that one"]);
    for what in ["dump", "verify", "replay"] {
        store
            .wal(what, &[])
            .fails(1, &["in use by another croupier"]);
    }
    assert!(server.croupier(&["ping"]).ok().stderr.is_empty());
    server.kill();
    store.serve();
}

#[test]
fn a_taken_port_is_told_with_its_flag_and_changes_nothing() {
    let store = crashed().store.copy();
    let before = store.tree();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it has one").to_string();
    let other = Store::new().serve();
    for addr in [port, other.addr().to_string()] {
        for flag in ["--listen", "--ops"] {
            let store = store.copy().with(flag, &addr);
            store
                .serve_refused()
                .fails(1, &["cannot listen on", &addr, flag]);
            assert_eq!(store.tree(), before, "{flag} {addr}");
        }
    }
    store
        .copy()
        .with("--listen", "203.0.113.7:7733")
        .serve_refused()
        .fails(1, &["203.0.113.7", "--listen"]);
    assert!(other.croupier(&["ping"]).ok().stderr.is_empty());
}

#[test]
fn settings_that_cannot_be_are_usage_errors_that_name_them() {
    let store = crashed().store.copy();
    let before = store.tree();
    let flags = [
        ("--listen", "nowhere", "--listen"),
        ("--listen", "127.0.0.1", "--listen"),
        ("--cores", "0", "cores"),
        ("--cores", "many", "cores"),
        ("--wal-segment-bytes", "1000", "wal_segment_bytes"),
        ("--ring-bytes", "1", "ring_bytes"),
        ("--ring-bytes", "65536", "ring_bytes"),
        ("--quantity-max", "0", "quantity_max"),
        ("--quantity-max", "65536", "quantity_max"),
        ("--frame-bytes-max", "100", "frame_bytes_max"),
        ("--frame-bytes-max", "16777217", "frame_bytes_max"),
        ("--lane-orders-max", "0", "lane_orders_max"),
        ("--connections-max", "0", "connections_max"),
        ("--orders-in-flight-max", "0", "orders_in_flight_max"),
        ("--checkpoint-segments", "0", "checkpoint_segments"),
        ("--checkpoint-segments", "-1", "-1"),
        ("--hold-ttl-max-ms", "0", "hold_ttl_max_ms"),
        ("--hold-ttl-max-ms", "4294967296", "4294967296"),
        ("--hold-extensions-max", "32769", "hold_extensions_max"),
        ("--hold-extensions-max", "-1", "-1"),
        ("--log", "=[", "--log"),
        ("--colour", "red", "--colour"),
    ];
    for (flag, value, word) in flags {
        let store = store.copy().with(flag, value);
        store.serve_refused().fails(2, &[word]);
        assert_eq!(store.tree(), before, "{flag} {value}");
    }
    let file = store.dir().with_file_name("croupier.toml");
    let files = [
        ("quantity = 5\n", "quantity"),
        ("quantity_max = \"five\"\n", "quantity_max"),
        ("\ncores = 0\n", "line 2"),
        ("listen = \"nowhere\"\n", "listen"),
        ("listen = \n", "line 1"),
        ("quantity_max = 0\n", "quantity_max is 0"),
        ("hold_ttl_max_ms = 0\n", "hold_ttl_max_ms is 0"),
        (
            "hold_extensions_max = 40000\n",
            "hold_extensions_max is 40000",
        ),
    ];
    let configured = store.copy().with("--config", file.display());
    for (text, word) in files {
        fs::write(&file, text).expect("a file can be written");
        configured.serve_refused().fails(2, &[word]);
    }
    fs::remove_file(&file).expect("it is there");
    configured
        .serve_refused()
        .fails(2, &["croupier.toml", "cannot read"]);
    let routes = store.copy().with("--routes", "/nowhere/routes.toml");
    routes.serve_refused().fails(1, &["/nowhere/routes.toml"]);
    assert_eq!(
        routes.tree(),
        before,
        "a route table that is not there changes nothing"
    );
    fs::write(&file, "[[rule]]\nlane = \"fast\"\n").expect("a file can be written");
    let routes = store.copy().with("--routes", file.display());
    routes.serve_refused().fails(1, &["line 2", "fast"]);
    assert_eq!(
        routes.tree(),
        before,
        "a route table that is refused changes nothing"
    );
}

#[tokio::test]
async fn a_torn_tail_is_reported_and_mended_and_nothing_else_is_lost() {
    let past = crashed();
    let block = last_block(&past.store);
    let sectors = block.bytes.div_ceil(SECTOR_BYTES);
    // Sectors of the last write that never reached the disk, and whether anything of it did.
    let cases = [
        ("the first", 0..1, true),
        ("one in the middle", sectors / 2..sectors / 2 + 1, true),
        ("the last", sectors - 1..sectors, true),
        ("all but the first", 1..sectors, true),
        ("all but the last", 0..sectors - 1, true),
        ("all", 0..sectors, false),
    ];
    for (what, lost, is_torn) in cases {
        let (store, oracle) = (past.store.copy(), past.oracle.fork());
        let path = store.path("wal").join(name_of(&block.path));
        let at = |sector: usize| block.offset + sector * SECTOR_BYTES;
        zero(&path, at(lost.start), at(lost.end));
        let before = store.tree();
        let report = Oracle::verify(&store);
        assert_eq!(report.torn_bytes > 0, is_torn, "{what}: {report:?}");
        assert_eq!(
            store.tree(),
            before,
            "{what}: verify and replay change nothing"
        );

        let server = store.serve();
        let log = server.log_with("recovered");
        assert_eq!(log.contains("cut short"), is_torn, "{what}\n{log}");
        let place = format!("offset {}", block.offset);
        assert_eq!(log.contains(&place), is_torn, "{what}\n{log}");
        let client = server.client().await;
        oracle.check_all(&client).await;
        for order in &past.tail {
            assert_eq!(
                client.order(order.order_id).await.expect("answered"),
                None,
                "{what}: a cut write is no order"
            );
        }
        // They were never acknowledged as far as this disk knows: asked again, they are dealt, on top of what was mended.
        let outcomes = oracle.issue(&client, &past.tail).await.expect("answered");
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, OrderOutcome::Issued(issued) if !issued.repeat)),
            "{what}"
        );
        drop(client);
        server.kill();
        let server = store.serve();
        let log = server.log_with("recovered");
        assert!(
            !log.contains("cut short"),
            "{what}: mended is mended\n{log}"
        );
        let client = server.client().await;
        oracle.check_all(&client).await;
        drop(client);
        server.stop().ok();
        oracle.check_disk(&store);
    }
}

#[tokio::test]
async fn a_first_checkpoint_that_a_crash_cut_short_is_no_damage() {
    let past = crashed();
    let made = past.store.copy();
    made.serve().stop().ok();
    let checkpoint = made.files("checkpoints", ".ckpt")[0].clone();
    let orders = made.files("orders", ".run")[0].clone();
    let half = |path: &Path| {
        let bytes = fs::read(path).expect("a file can be read");
        bytes[..bytes.len() / 2].to_vec()
    };
    let whole = |path: &Path| fs::read(path).expect("a file can be read");
    let tmp = |path: &Path| format!("{}.tmp", name_of(path));
    // How far it came, in the order in which a checkpoint is made; nothing of the log is gone before all of it.
    let cases = [
        (
            "orders begun",
            vec![(format!("orders/{}", tmp(&orders)), half(&orders))],
        ),
        (
            "orders written",
            vec![(format!("orders/{}", name_of(&orders)), whole(&orders))],
        ),
        (
            "checkpoint begun",
            vec![
                (format!("orders/{}", name_of(&orders)), whole(&orders)),
                (
                    format!("checkpoints/{}", tmp(&checkpoint)),
                    half(&checkpoint),
                ),
            ],
        ),
        (
            "checkpoint written",
            vec![
                (format!("orders/{}", name_of(&orders)), whole(&orders)),
                (
                    format!("checkpoints/{}", name_of(&checkpoint)),
                    whole(&checkpoint),
                ),
                ("CURRENT.tmp".to_owned(), b"ckpt".to_vec()),
            ],
        ),
    ];
    for (what, left) in cases {
        eprintln!("{what}");
        let (store, oracle) = (past.store.copy(), past.oracle.fork());
        for (path, bytes) in left {
            fs::write(store.path(path), bytes).expect("a file can be written");
        }
        Oracle::verify(&store);
        let server = store.serve();
        let client = server.client().await;
        oracle.look_up_all(&client).await;
        let outcomes = oracle.issue(&client, &past.tail).await;
        assert_eq!(outcomes.map(|outcomes| outcomes.len()), Some(TAIL_ORDERS));
        oracle.check_all(&client).await;
        drop(client);
        server.stop().ok();
        oracle.check_disk(&store);
        assert_eq!(store.files("checkpoints", "").len(), 1, "{what}");
        assert_eq!(store.files("orders", "").len(), 1, "{what}");
    }
}

#[tokio::test]
async fn what_was_refused_for_damage_starts_again_once_the_file_is_restored() {
    let past = folded();
    let store = past.store.copy();
    let path = slab(&store, 0);
    let whole = fs::read(&path).expect("a file can be read");
    truncate(&path, 4096);
    store.serve_refused().fails(3, &[&name_of(&path)]);
    fs::write(&path, whole).expect("a file can be written");
    let server = store.serve();
    let (oracle, client) = (past.oracle.fork(), server.client().await);
    oracle.check_all(&client).await;
    oracle.ask_all_again(&client).await;
    oracle.check_all(&client).await;
    drop(client);
    server.stop().ok();
    oracle.check_disk(&store);
}
