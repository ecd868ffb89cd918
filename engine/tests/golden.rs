//! Files of format version 1, kept as they were written: `golden/` is a store's log, checkpoint and orders, and the checkpoint of
//! the same log as it is written since the tables that were in force are kept. If a test here fails, stores in the field can no longer be read, or a reader in another language can no longer read ours: that
//! takes a new version of the format, its page in `docs/`, and files of its own beside these.
//!
//! `cargo test -p croupier-engine --test golden -- --ignored` writes them anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use croupier_engine::checkpoint::format::{self, Checkpoint, OrderFile};
use croupier_engine::checkpoint::{OrderFileReader, OrderFileWriter, apply_block};
use croupier_engine::disk::Disk;
use croupier_engine::state::apply::Snapshot;
use croupier_engine::state::index::Spread;
use croupier_engine::state::record::{Fact, Issued, Record, Run, Runs, Stamp, Way};
use croupier_engine::state::{Digest, Replay, RouteTables, State, TableFact};
use croupier_engine::store::BitsOnly;
use croupier_engine::wal::format::{
    BLOCK_HEADER_BYTES, BLOCK_LAST, BlockHeader, SegmentHeader, StoreId, block_bytes, block_hash,
    crc32c,
};
use croupier_engine::wal::segments::segment_path;
use croupier_engine::wal::{BlockReader, Position};

const STORE: StoreId = *b"golden store 001";
const SEGMENT_BYTES: u64 = 5 * 4096;
const UNIX_MS: u64 = 1_767_225_600_000;
/// The state after the last record, as every version that keeps tables must find it in the log.
const DIGEST: &str = "045fa7f0ca330e2adc34fc641ded8ac950ac7644016dea93fbfc97b18ec42a09";
/// The state of the checkpoint that knows of no table but the one in force.
const DIGEST_WITHOUT_TABLES: &str =
    "8935e038c106c37d88c9920d9b9f24437655b224f61a575505150a63ebc237eb";
/// What is written today.
const DIRS: [&str; 3] = ["wal", "orders", "checkpoints-tables"];
const CHECKPOINT: &str = "ckpt-000000000000000d.ckpt";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn disk() -> Disk {
    Disk::real()
}

fn bytes_of(fact: Fact<'_>) -> Vec<u8> {
    let mut words = Vec::new();
    let stamp = Stamp {
        unix_ms: UNIX_MS,
        route_table: 1,
    };
    Record { stamp, fact }.put(&mut words);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn order(number: u8, priority: u8, runs: &[Run]) -> Vec<u8> {
    let order_id =
        u128::from_be_bytes(*b"\x01\x9b\x70\x00\0\0\x70\0\x80\0golden") + u128::from(number);
    let quantity = runs.iter().map(|run| run.count as u16).sum();
    let runs = Runs::Given(runs);
    bytes_of(Fact::Issued(Issued {
        order_id,
        holder: 0,
        sku: 1,
        principal: 0,
        quantity,
        priority,
        lane: 1,
        way: Way::Issue,
        fewer: 0,
        runs,
    }))
}

fn run(slot: u32, count: u32) -> Run {
    Run {
        slab: 1,
        slot,
        count,
        generation: 0,
    }
}

/// The records of each block. Blocks 1, 2 and a LAST are in the first segment, the last one is in the second.
fn blocks() -> [Vec<u8>; 3] {
    let cold = [
        Fact::Started {
            epoch: 1,
            version: "0.1.0",
        },
        Fact::SkuCreated {
            sku: 1,
            name: "卡密",
        },
        Fact::SlabAdded {
            slab: 1,
            sku: 1,
            batch: 1,
            pool: 0,
            cards: 200,
            class_bytes: 48,
            header_hash: [0xa5; 32],
            grows: false,
        },
        Fact::BatchSealed {
            batch: 1,
            sku: 1,
            pool: 0,
            cards: 200,
            slabs: 1,
            label: "双十一",
            pool_name: "main",
        },
        Fact::RoutesLoaded {
            version: 1,
            toml: "[[rule]]\nsku = \"*\"\nlane = \"standard\"\npools = [\"main\"]\n",
        },
    ];
    let scattered: Vec<Run> = (1..=6).map(|n| run(10 * n, 2)).collect();
    [
        cold.into_iter().flat_map(bytes_of).collect(),
        [order(1, 0, &[run(0, 1)]), order(2, 1, &scattered)].concat(),
        order(3, 3, &[run(100, 3)]),
    ]
}

/// The log as bytes, and where it ends.
fn log() -> ([Vec<u8>; 2], Position) {
    let segment = |seq| {
        let header = SegmentHeader {
            store_id: STORE,
            seq,
            segment_bytes: SEGMENT_BYTES,
            created_unix_ms: UNIX_MS,
        };
        let mut bytes = header.encode();
        bytes.resize(SEGMENT_BYTES as usize, 0);
        bytes
    };
    let mut segments = [segment(1), segment(2)];
    let mut at = Position {
        epoch: 1,
        ..Position::START
    };
    let [first, second, third] = blocks();
    for (flags, body) in [
        (0, first),
        (0, second),
        (BLOCK_LAST, Vec::new()),
        (0, third),
    ] {
        let header = BlockHeader {
            flags,
            store_id: STORE,
            epoch: at.epoch,
            block: at.block,
            first_lsn: at.lsn,
            end_lsn: at.lsn + (body.len() / 64) as u64,
            durable_lsn: at.lsn,
            prev_hash: at.prev_hash,
            body_bytes: body.len() as u32,
            body_crc: crc32c(&body),
            unix_ms: UNIX_MS,
        };
        let used = BLOCK_HEADER_BYTES + body.len();
        let block = &mut segments[at.seq as usize - 1][at.offset as usize..][..used];
        header.encode(block);
        block[BLOCK_HEADER_BYTES..].copy_from_slice(&body);
        let offset = at.offset + block_bytes(body.len()) as u64;
        let (block, lsn, prev_hash) = (at.block + 1, header.end_lsn, block_hash(block));
        at = match flags {
            BLOCK_LAST => Position {
                seq: at.seq + 1,
                offset: 4096,
                block,
                lsn,
                prev_hash,
                ..at
            },
            _ => Position {
                offset,
                block,
                lsn,
                prev_hash,
                ..at
            },
        };
    }
    (segments, at)
}

/// The state that the log in `dir` leads to, and where it ends.
fn replay(dir: &Path) -> (State, Position) {
    let state = State::new(Box::new(BitsOnly), 0, Spread::seeded([1, 1]));
    let mut reader = BlockReader::open(disk(), dir, STORE, Position::START).unwrap();
    let mut replay = Replay::new(&state);
    while let Some(block) = reader.next().unwrap() {
        let path = segment_path(dir, block.seq);
        apply_block(&mut replay, &path, &block, |_, _| Ok(())).unwrap();
    }
    drop(replay);
    (state, reader.position())
}

/// The orders of the log with their LSNs.
fn orders() -> Vec<(u64, Vec<u8>)> {
    let [cold, two, one] = blocks();
    let lsn = 1 + cold.len() as u64 / 64;
    let (first, second) = two.split_at(64);
    vec![
        (lsn, first.to_vec()),
        (lsn + 1, second.to_vec()),
        (lsn + (two.len() / 64) as u64, one),
    ]
}

fn write_orders(dir: &Path) -> OrderFile {
    let mut writer = OrderFileWriter::begin(&disk(), dir, STORE).unwrap();
    for (lsn, record) in orders() {
        writer.put(lsn, &record).unwrap();
    }
    writer.publish(1, log().1.lsn).unwrap().unwrap()
}

/// Writes all files with today's code.
fn write_all(dir: &Path) {
    for sub in DIRS {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for (seq, bytes) in (1..).zip(log().0) {
        std::fs::write(segment_path(&dir.join("wal"), seq), bytes).unwrap();
    }
    let file = write_orders(&dir.join("orders"));
    let (state, end) = replay(&dir.join("wal"));
    let checkpoint = Checkpoint {
        end,
        orders: state.orders(),
        digest: state.digest(),
        snapshot: state.snapshot(),
        files: vec![file],
        created_unix_ms: UNIX_MS,
    };
    format::write(&disk(), &dir.join(DIRS[2]), STORE, &checkpoint).unwrap();
}

/// All files below `dir`, by their path in it.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for sub in DIRS {
        for entry in std::fs::read_dir(dir.join(sub)).unwrap() {
            let path = entry.unwrap().path();
            found.insert(
                path.strip_prefix(dir).unwrap().to_owned(),
                std::fs::read(&path).unwrap(),
            );
        }
    }
    found
}

#[test]
#[ignore = "writes the golden files"]
fn write_golden_files() {
    write_all(&golden());
    println!("digest {}", replay(&golden().join("wal")).0.digest());
}

#[test]
fn what_is_written_today_is_what_was_written_then() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path());
    let (then, today) = (files(&golden()), files(dir.path()));
    assert_eq!(
        then.keys().collect::<Vec<_>>(),
        today.keys().collect::<Vec<_>>()
    );
    for (path, bytes) in then {
        assert!(
            bytes == today[&path],
            "{} is written otherwise",
            path.display()
        );
    }
}

#[test]
fn the_log_is_read_as_it_was_meant() {
    let (state, end) = replay(&golden().join("wal"));
    assert_eq!(end, log().1);
    assert_eq!(state.digest().to_string(), DIGEST);
    let ledger = state.ledger();
    assert_eq!(
        (
            ledger.epoch,
            ledger.routes.version(),
            ledger.batches[&1].label.as_str()
        ),
        (1, 1, "双十一")
    );
    drop(ledger);
    let catalog = state.catalog.load();
    let stock = catalog
        .sku(state.sku_by_name("卡密").unwrap())
        .unwrap()
        .stock();
    assert_eq!((stock.imported, stock.free), (200, 200 - 1 - 12 - 3));
}

#[test]
fn the_orders_are_read_as_they_were_meant() {
    let bytes = std::fs::read_dir(golden().join("orders"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let listed = OrderFile {
        name: bytes.file_name().into_string().unwrap(),
        first_lsn: 1,
        end_lsn: log().1.lsn,
        rows: 3,
        file_bytes: bytes.metadata().unwrap().len(),
    };
    let mut reader =
        OrderFileReader::open(&disk(), &golden().join("orders"), STORE, &listed).unwrap();
    let mut found = Vec::new();
    reader
        .for_each(|lsn, record| {
            found.push((lsn, record.to_vec()));
            Ok(())
        })
        .unwrap();
    assert_eq!(found, orders());
}

/// Reads a checkpoint of the log, which leads to a state of this digest.
fn read_checkpoint(dir: &str, digest: &str) -> Snapshot {
    let path = golden().join(dir).join(CHECKPOINT);
    let read = format::read(&disk(), &path, STORE).unwrap();
    let (from_log, end) = replay(&golden().join("wal"));
    assert_eq!((read.end, read.created_unix_ms), (end, UNIX_MS));
    assert_eq!(read.digest.to_string(), digest);
    assert_eq!(read.orders, from_log.orders());
    let restored = State::counting(Box::new(BitsOnly), read.orders);
    restored.restore(read.snapshot.clone()).unwrap();
    let restored: Digest = restored.digest();
    assert_eq!(restored.to_string(), digest);
    read.snapshot
}

#[test]
fn the_checkpoint_is_read_as_it_was_meant() {
    let from_log = replay(&golden().join("wal")).0.snapshot();
    // A checkpoint and the log tell the same state.
    assert_eq!(read_checkpoint("checkpoints-tables", DIGEST), from_log);
}

#[test]
fn a_checkpoint_from_before_tables_were_kept_knows_the_one_in_force() {
    let from_log = replay(&golden().join("wal")).0.snapshot();
    let read = read_checkpoint("checkpoints", DIGEST_WITHOUT_TABLES);
    let table = TableFact {
        lsn: 0,
        unix_ms: 0,
        ..from_log.routes.kept()[0].clone()
    };
    let expect = Snapshot {
        routes: RouteTables::of_kept(vec![table]).unwrap(),
        ..from_log
    };
    assert_eq!(read, expect);
}
