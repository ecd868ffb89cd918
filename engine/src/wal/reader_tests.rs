//! The log read back after everything that can happen to it: torn writes, flipped bits, segments that are not where
//! they should be, disks that fail.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::format::{
    BLOCK_ALIGN_BYTES, BLOCK_HEADER_BYTES, BLOCK_LAST, BlockHeader, SECTOR_BYTES, StoreId,
    block_bytes, crc32c,
};
use super::log::{APPEND_UNITS_MAX, Drive, Log, LogOptions};
use super::reader::{BlockReader, Position, Tail};
use super::segments::{SPARE_SEGMENTS, make_segment, segment_path};
use crate::disk::memory::{MemoryDisk, Op, Verdict};
use crate::disk::{Disk, SyncMethod};
use crate::error::EngineError;

const STORE: StoreId = [7; 16];
const UNIT_WORDS: usize = 8;
/// The smallest that takes a whole turn in a quarter.
const SEGMENT_BYTES: u64 = 4 * block_bytes(APPEND_UNITS_MAX as usize * UNIT_WORDS * 8) as u64;
/// A block of so many units takes nearly a quarter of a segment: four fit beside header and LAST block.
const LARGE: u64 = APPEND_UNITS_MAX - 48;

fn dir() -> PathBuf {
    PathBuf::from("/wal")
}

fn segment(seq: u64) -> PathBuf {
    segment_path(&dir(), seq)
}

/// The unit at an LSN: no word of it is zero, and no two are alike.
fn unit_at(lsn: u64) -> [u64; UNIT_WORDS] {
    std::array::from_fn(|word| {
        (lsn << 8 | word as u64 | 0x80).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
    })
}

fn shared(disk: &MemoryDisk) -> Disk {
    disk.disk()
}

/// A disk with the first segment of a new log.
fn new_disk(store: StoreId) -> MemoryDisk {
    let disk = MemoryDisk::new();
    make_segment(&shared(&disk), &dir(), store, 1, SEGMENT_BYTES).unwrap();
    disk
}

fn open(disk: &MemoryDisk, store: StoreId, tail: &Tail) -> Log {
    let options = LogOptions {
        store_id: store,
        dir: dir(),
        segment_bytes: SEGMENT_BYTES,
        ring_bytes: APPEND_UNITS_MAX * 64,
        epoch: tail.end.epoch + 1,
        sync: Some(SyncMethod::Fdatasync),
        writers: 1,
        append_units_max: APPEND_UNITS_MAX,
        // What is tested here is what is on the disk, and that must not depend on how far a thread got.
        drive: Drive::Steps,
    };
    let log = Log::open(
        shared(disk),
        options,
        tail.end,
        tail.last_segment,
        Vec::new(),
    )
    .unwrap();
    make_spares(&log);
    log
}

fn make_spares(log: &Log) {
    for _ in 0..SPARE_SEGMENTS {
        log.make_segment();
    }
}

fn begin(disk: &MemoryDisk, store: StoreId) -> Log {
    open(
        disk,
        store,
        &Tail {
            end: Position::START,
            last_segment: 1,
            torn: None,
            last_block: None,
        },
    )
}

fn append(log: &Log, units: u64) -> u64 {
    let end = log.end();
    let words: Vec<u64> = (end..end + units).flat_map(unit_at).collect();
    assert_eq!(log.append(&words), Some(end));
    end
}

/// One block of `units` units, acknowledged.
fn write_block(log: &Log, units: u64) {
    log.wait_durable(append(log, units)).unwrap();
}

/// A stopped log with a block for each of `blocks`, by units.
fn written(store: StoreId, blocks: &[u64]) -> MemoryDisk {
    let disk = new_disk(store);
    let log = begin(&disk, store);
    for &units in blocks {
        write_block(&log, units);
        make_spares(&log);
    }
    log.stop().unwrap();
    disk
}

/// Where a whole block lies.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spot {
    seq: u64,
    offset: u64,
    units: u64,
}

/// Reads everything. A record that is not the one that was written fails the test: nothing may ever do that.
fn read(disk: &MemoryDisk) -> Result<(Vec<Spot>, Tail), EngineError> {
    let mut reader = BlockReader::open(shared(disk), &dir(), STORE, Position::START)?;
    let (mut spots, mut lsn) = (Vec::new(), 1);
    while let Some(block) = reader.next()? {
        assert_eq!(block.header.first_lsn, lsn);
        for unit in block.body.chunks(UNIT_WORDS * 8) {
            let expect: Vec<u8> = unit_at(lsn)
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect();
            assert_eq!(unit, expect, "the record at LSN {lsn} has changed");
            lsn += 1;
        }
        let units = block.header.end_lsn - block.header.first_lsn;
        spots.push(Spot {
            seq: block.seq,
            offset: block.offset,
            units,
        });
    }
    let tail = reader.tail().unwrap().clone();
    assert_eq!(tail.end.lsn, lsn);
    Ok((spots, tail))
}

/// Reading must stop with damage in `path` at `offset`.
fn expect_damage(disk: &MemoryDisk, path: &Path, offset: u64, case: &str) -> String {
    match read(disk) {
        Err(EngineError::Damage {
            path: found,
            offset: at,
            what,
            ..
        }) => {
            assert_eq!((found.as_path(), at), (path, offset), "{case}: {what}");
            what
        }
        Err(other) => panic!("{case}: {other}"),
        Ok((spots, tail)) => panic!("{case}: read {} blocks, {tail:?}", spots.len()),
    }
}

/// What a start does with a torn tail, and then that the log goes on: everything before and after is there.
fn goes_on(disk: &MemoryDisk, tail: &Tail, case: &str) {
    if let Some(torn) = &tail.torn {
        shared(disk)
            .zero_range(&torn.path, torn.offset, torn.bytes)
            .unwrap();
    }
    let (_, zeroed) = read(disk).unwrap();
    assert_eq!(
        zeroed,
        Tail {
            torn: None,
            ..tail.clone()
        },
        "{case}"
    );
    let log = open(disk, STORE, tail);
    write_block(&log, 5);
    let end = log.stop().unwrap().unwrap();
    assert_eq!(end.lsn, tail.end.lsn + 5, "{case}");
    assert_eq!(read(disk).unwrap().1.end, end, "{case}");
}

fn used_bytes(units: u64) -> usize {
    BLOCK_HEADER_BYTES + units as usize * UNIT_WORDS * 8
}

#[test]
fn what_is_acknowledged_is_read_back_over_many_segments_and_starts() {
    let disk = new_disk(STORE);
    let mut tail = Tail {
        end: Position::START,
        last_segment: 1,
        torn: None,
        last_block: None,
    };
    for start in 1..=4 {
        let log = open(&disk, STORE, &tail);
        for units in [1, APPEND_UNITS_MAX, 63, LARGE, 7] {
            write_block(&log, units);
        }
        let end = log.stop().unwrap().unwrap();
        let (spots, found) = read(&disk).unwrap();
        assert_eq!(found.end, end);
        assert_eq!(spots.len(), start * 5);
        assert_eq!(end.epoch, start as u64);
        tail = found;
    }
    assert!(tail.end.seq > 1, "the log has rolled");
    assert_eq!(
        read(&disk.after_power_cut()).unwrap().1,
        tail,
        "nothing of it was only in a cache"
    );
}

/// Acknowledged blocks, then one whose write the power cut tore so that only the `landed` sectors are there.
fn torn(units: u64, landed: impl Fn(usize) -> bool + Send + 'static) -> MemoryDisk {
    let disk = new_disk(STORE);
    let log = begin(&disk, STORE);
    [3, 1, 20]
        .into_iter()
        .for_each(|units| write_block(&log, units));
    disk.cut_power(0, landed);
    let lsn = append(&log, units);
    assert!(matches!(
        log.wait_durable(lsn),
        Err(EngineError::WriterFailed(_))
    ));
    drop(log);
    disk.after_power_cut()
}

fn check_torn(units: u64, landed: impl Fn(usize) -> bool + Copy + Send + 'static, case: &str) {
    let disk = torn(units, landed);
    let (spots, tail) = read(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
    let whole = (0..used_bytes(units).div_ceil(SECTOR_BYTES)).all(landed);
    let some = (0..used_bytes(units).div_ceil(SECTOR_BYTES)).any(landed);
    assert_eq!(
        spots.len(),
        if whole { 4 } else { 3 },
        "{case}: acknowledged blocks stay, a torn one goes"
    );
    assert_eq!(tail.torn.is_some(), some && !whole, "{case}");
    goes_on(&disk, &tail, case);
}

#[test]
fn a_torn_last_block_is_cut_and_nothing_else() {
    for units in [1, 6, 7, 8, 70, 130] {
        for sectors in 0..=block_bytes(units as usize * 64) / SECTOR_BYTES {
            check_torn(
                units,
                move |sector| sector < sectors,
                &format!("the first {sectors} sectors of {units} units"),
            );
        }
    }
}

#[test]
fn sectors_may_land_in_any_order() {
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for round in 0..200 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (units, set) = (1 + random % 90, random.rotate_left(round));
        let landed = move |sector: usize| set >> (sector % 64) & 1 != 0;
        check_torn(units, landed, &format!("sectors {set:#b} of {units} units"));
    }
}

#[test]
fn every_flipped_bit_of_every_block_is_told_with_its_place() {
    let disk = written(STORE, &[1, 9, 3, 62]);
    let (spots, tail) = read(&disk).unwrap();
    assert_eq!(spots.len(), 4);
    for spot in &spots {
        let used_bits = used_bytes(spot.units) as u64 * 8;
        // Of what fills up the block, one bit in nine: each bit of a byte in turn.
        let padding_bits = (used_bits..block_bytes(spot.units as usize * 64) as u64 * 8).step_by(9);
        for bit in (0..used_bits).chain(padding_bits) {
            let flip =
                |bytes: &mut Vec<u8>| bytes[(spot.offset + bit / 8) as usize] ^= 1 << (bit % 8);
            disk.tamper(&segment(1), flip);
            expect_damage(
                &disk,
                &segment(1),
                spot.offset,
                &format!("bit {bit} of {spot:?}"),
            );
            disk.tamper(&segment(1), flip);
        }
    }
    assert_eq!(read(&disk).unwrap(), (spots, tail));
}

#[test]
fn what_lies_behind_the_end_is_never_taken_for_records() {
    let disk = written(STORE, &[1, 9]);
    let (spots, tail) = read(&disk).unwrap();
    for at in [
        0,
        1,
        SECTOR_BYTES as u64 - 1,
        SECTOR_BYTES as u64,
        5000,
        40_000,
    ] {
        let copy = disk.after_power_cut();
        copy.tamper(&segment(1), |bytes| {
            bytes[(tail.end.offset + at) as usize] ^= 8
        });
        if at < SECTOR_BYTES as u64 {
            expect_damage(
                &copy,
                &segment(1),
                tail.end.offset,
                "a first sector is written whole or not at all",
            );
        } else {
            let (found, end) = read(&copy).unwrap();
            assert_eq!(
                (found, end.end),
                (spots.clone(), tail.end),
                "as if a write had been torn"
            );
            assert!(end.torn.is_some());
            goes_on(&copy, &end, "a stray bit");
        }
    }
    let spare = segment(tail.last_segment);
    disk.tamper(&spare, |bytes| bytes[77_777] = 1);
    expect_damage(
        &disk,
        &spare,
        77_777 / 4096 * 4096,
        "nothing has ever been written to a spare",
    );
}

#[test]
fn a_sector_that_landed_elsewhere_is_no_torn_write() {
    // The last block has two pages: nine sectors of records, then zeros.
    let disk = written(STORE, &[1, 70]);
    let (spots, tail) = read(&disk).unwrap();
    let block = spots[1].offset;
    let moved_to = |sector: u64| {
        let copy = disk.after_power_cut();
        copy.tamper(&segment(1), |bytes| {
            let from = block as usize + 3 * SECTOR_BYTES;
            let sector_bytes = bytes[from..from + SECTOR_BYTES].to_vec();
            bytes[from..from + SECTOR_BYTES].fill(0);
            let to = (block as usize) + sector as usize * SECTOR_BYTES;
            bytes[to..to + SECTOR_BYTES].copy_from_slice(&sector_bytes);
        });
        copy
    };
    for sector in [9, 15] {
        let what = expect_damage(&moved_to(sector), &segment(1), block, "into its own zeros");
        assert!(what.contains("checksum"), "{what}");
    }
    for sector in [16, 40] {
        let page = (block + sector * SECTOR_BYTES as u64) / 4096 * 4096;
        assert!(page >= tail.end.offset);
        expect_damage(&moved_to(sector), &segment(1), page, "behind it");
    }
}

/// A log over at least three segments with blocks in the last.
fn long_log(store: StoreId) -> MemoryDisk {
    let disk = written(store, &[LARGE; 9]);
    assert!(
        disk.contents(&segment(3)).unwrap()[BLOCK_ALIGN_BYTES] != 0,
        "the third segment is in use"
    );
    disk
}

fn is_missing(disk: &MemoryDisk, seq: u64, case: &str) {
    disk.lose(&segment(seq));
    let what = expect_damage(disk, &segment(seq), 0, case);
    assert!(what.contains("missing"), "{case}: {what}");
}

#[test]
fn a_missing_segment_is_named() {
    is_missing(&long_log(STORE), 1, "the first");
    is_missing(&long_log(STORE), 2, "one in the middle");
    let disk = long_log(STORE);
    let last = read(&disk).unwrap().1.last_segment;
    for spare in (4..=last).rev() {
        disk.lose(&segment(spare));
    }
    assert!(read(&disk).is_ok(), "spares hold nothing");
    is_missing(&disk, 3, "the one that the last LAST block points to");
}

#[test]
fn segments_that_are_not_what_their_names_say_are_named() {
    let first_page = |disk: &MemoryDisk, seq: u64, case: &str| {
        expect_damage(disk, &segment(seq), 0, case);
    };
    for (one, other) in [(1, 2), (2, 3)] {
        let disk = long_log(STORE);
        disk.swap(&segment(one), &segment(other));
        first_page(&disk, one, "swapped segments");
    }
    let disk = long_log(STORE);
    let last = read(&disk).unwrap().1.last_segment;
    disk.swap(&segment(last - 1), &segment(last));
    first_page(
        &disk,
        last - 1,
        "swapped spares: told before anything is written to them",
    );

    let disk = long_log(STORE);
    disk.put(&segment(last + 1), &disk.contents(&segment(1)).unwrap());
    first_page(&disk, last + 1, "a duplicate of the first behind the last");
    disk.lose(&segment(last + 1));
    disk.put(&segment(2), &disk.contents(&segment(1)).unwrap());
    first_page(&disk, 2, "a duplicate of the first in place of the second");

    let foreign = long_log([8; 16]);
    for seq in [1, 2, 3, last] {
        let disk = long_log(STORE);
        disk.put(&segment(seq), &foreign.contents(&segment(seq)).unwrap());
        first_page(&disk, seq, "another store's segment");
    }
    for seq in [1, 3, last] {
        let disk = long_log(STORE);
        disk.tamper(&segment(seq), |bytes| {
            bytes.truncate(bytes.len() - BLOCK_ALIGN_BYTES)
        });
        first_page(&disk, seq, "a segment that was cut off");
    }
}

#[test]
fn another_stores_blocks_under_this_stores_segment_header_are_refused() {
    let (disk, foreign) = (long_log(STORE), long_log([8; 16]));
    let blocks = foreign.contents(&segment(2)).unwrap();
    disk.tamper(&segment(2), |bytes| {
        bytes[4096..].copy_from_slice(&blocks[4096..])
    });
    let what = expect_damage(&disk, &segment(2), 4096, "blocks of another store");
    assert!(what.contains("another store"), "{what}");
}

#[test]
fn the_end_of_an_earlier_segment_is_never_a_torn_tail() {
    let disk = long_log(STORE);
    let spots = read(&disk).unwrap().0;
    for spot in spots.iter().filter(|spot| spot.seq < 3) {
        let copy = disk.after_power_cut();
        // Lost whole, as by a disk that never wrote it.
        let range =
            spot.offset as usize..spot.offset as usize + block_bytes(spot.units as usize * 64);
        copy.tamper(&segment(spot.seq), |bytes| bytes[range].fill(0));
        let what = expect_damage(
            &copy,
            &segment(spot.seq),
            spot.offset,
            "a block that is not there",
        );
        assert!(what.contains("a later one is whole"), "{what}");
    }
    let last_of_first = spots.iter().rfind(|spot| spot.seq == 1).unwrap();
    let offset = last_of_first.offset + block_bytes(last_of_first.units as usize * 64) as u64;
    disk.tamper(&segment(1), |bytes| bytes[offset as usize..].fill(0));
    expect_damage(
        &disk,
        &segment(1),
        offset,
        "no LAST block, but the log goes on",
    );
}

/// A log of one block with a header of the test's own making.
fn with_header(change: impl FnOnce(&mut BlockHeader)) -> MemoryDisk {
    let disk = written(STORE, &[2]);
    disk.tamper(&segment(1), |bytes| {
        let block = &mut bytes[4096..];
        let mut header = BlockHeader::decode(block).unwrap();
        change(&mut header);
        header.encode(block);
    });
    disk
}

#[test]
fn a_block_that_was_never_written_like_this_is_refused() {
    type Change = fn(&mut BlockHeader);
    let cases: [(&str, Change); 9] = [
        ("a LAST block with records", |header| {
            header.flags = BLOCK_LAST
        }),
        ("a flag nobody knows", |header| header.flags = 2),
        ("another store's", |header| header.store_id = [8; 16]),
        ("a block number too high", |header| header.block += 1),
        ("an LSN too high", |header| {
            header.first_lsn += 1;
            header.end_lsn += 1;
        }),
        ("a length that is not that of its LSNs", |header| {
            header.body_bytes += 64
        }),
        ("longer than its segment", |header| {
            header.end_lsn += SEGMENT_BYTES / 64;
            header.body_bytes += SEGMENT_BYTES as u32;
        }),
        ("a hash of nothing before it", |header| {
            header.prev_hash = [1; 32]
        }),
        ("a watermark ahead of itself", |header| {
            header.durable_lsn += 2
        }),
    ];
    for (case, change) in cases {
        expect_damage(&with_header(change), &segment(1), 4096, case);
    }
    assert!(read(&with_header(|header| header.body_crc = crc32c(b"other"))).is_err());
}

#[test]
fn a_failed_write_ends_the_log_for_good() {
    for errno in [Errno::IO, Errno::NOSPC] {
        let disk = new_disk(STORE);
        let log = begin(&disk, STORE);
        write_block(&log, 4);
        // One write fails; the disk is well again afterwards, and nobody may rely on that.
        disk.fail(0..1, errno);
        let lsn = append(&log, 2);
        let told = log.wait_durable(lsn).unwrap_err().to_string();
        assert!(told.contains("offset 8192"), "{told}");
        assert!(log.failure().is_some());
        let changes = disk.changes();
        let later = append(&log, 1);
        assert!(log.wait_durable(later).is_err());
        assert_eq!(
            log.durable(),
            5,
            "what was durable stays so, and nothing is added"
        );
        assert!(log.wait_durable(4).is_ok());
        assert!(matches!(log.stop(), Err(EngineError::WriterFailed(_))));
        assert_eq!(
            disk.changes(),
            changes,
            "a writer that has failed writes nothing more"
        );
        let (spots, tail) = read(&disk.after_power_cut()).unwrap();
        assert_eq!((spots.len(), tail.end.lsn), (1, 5));
    }
}

#[test]
fn a_failed_roll_ends_the_log_too() {
    let disk = new_disk(STORE);
    let log = begin(&disk, STORE);
    for _ in 0..4 {
        write_block(&log, LARGE);
    }
    disk.fail(0..1, Errno::IO);
    let failed_at = append(&log, LARGE);
    assert!(
        log.wait_durable(failed_at).is_err(),
        "the fifth block does not fit the first segment"
    );
    let (_, tail) = read(&disk).unwrap();
    assert_eq!(tail.end.lsn, failed_at);
    goes_on(
        &disk.after_power_cut(),
        &tail,
        "the LAST block was not written",
    );
}

#[test]
fn on_a_full_disk_the_log_says_so_in_time_and_goes_on_when_there_is_room() {
    let disk = new_disk(STORE);
    disk.set_full(true);
    let log = begin(&disk, STORE);
    for _ in 0..2 {
        write_block(&log, LARGE);
    }
    assert!(!log.make_segment());
    assert!(log.is_full(), "full before its last segment is");
    // What may still be under way when orders stop being taken: it fits, or it waits; it never fails.
    let mut lsns = Vec::new();
    for units in [LARGE, 40, LARGE, LARGE] {
        while log.end() + units > log.durable() + APPEND_UNITS_MAX {
            assert!(log.take_block());
            if !log.write_block() {
                assert!(!log.make_segment(), "there is no room for it");
                disk.set_full(false);
                assert!(log.make_segment());
            }
        }
        lsns.push(append(&log, units));
        assert!(log.failure().is_none());
    }
    disk.set_full(false);
    log.wait_durable(lsns[3]).unwrap();
    assert!(!log.is_full(), "it takes orders again");
    write_block(&log, LARGE);
    let end = log.stop().unwrap().unwrap();
    assert_eq!(end.seq, 2);
    assert_eq!(read(&disk).unwrap().1.end, end);
}

#[test]
fn a_sync_that_failed_makes_nothing_certain() {
    let disk = new_disk(STORE);
    let log = begin(&disk, STORE);
    write_block(&log, 4);
    disk.set_judge(|change| match change.op {
        Op::Sync => Verdict::Fail(Errno::IO),
        _ => Verdict::Go,
    });
    let lsn = append(&log, 2);
    assert!(log.wait_durable(lsn).is_err());
    drop(log);
    for landed in [false, true] {
        let crashed = disk.crash(|| landed);
        let (spots, tail) = read(&crashed).unwrap();
        assert_eq!(spots.len(), 1 + usize::from(landed), "it may stand");
        goes_on(&crashed, &tail, "after a sync that failed");
    }
}
