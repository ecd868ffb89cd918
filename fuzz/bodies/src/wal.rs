//! The log: what a start finds in its last segment.

use std::path::PathBuf;

use croupier_engine::canary::Settings;
use croupier_engine::card::{CardStatus, Cause};
use croupier_engine::disk::memory::MemoryDisk;
use croupier_engine::slab::Added;
use croupier_engine::state::canary::{CanaryFact, Figures, Step};
use croupier_engine::state::channels::Standing;
use croupier_engine::state::record::{
    Backordered, Cap, Credits, Extended, Fact, Issued, Moved, Record, Release, Released, Reserved,
    Retried, Run, Runs, SkuSet, Stamp, Tried, decode,
};
use croupier_engine::state::{Reused, View};
use croupier_engine::wal::format::{
    BLOCK_HEADER_BYTES, BlockHeader, SEGMENT_HEADER_BYTES, SegmentHeader, block_bytes, block_hash,
    crc32c,
};
use croupier_engine::wal::segments::segment_path;
use croupier_engine::wal::{BlockReader, Position};
use croupier_protocol::{CanaryDeed, CanaryReason, ChannelCause, DealOrder};

use crate::checkpoint::STORE;
use crate::edits;
use crate::orders::issued;

const SEGMENT_BYTES: usize = 48 << 10;

/// A segment with a few good blocks, and their places.
struct Image {
    bytes: Vec<u8>,
    /// Offset and body of each block.
    blocks: Vec<(usize, Vec<u8>)>,
    end: Position,
}

impl Image {
    /// Adds a block; `change` may spoil its header, which then still has a correct checksum.
    fn push(&mut self, body: &[u8], change: impl FnOnce(&mut BlockHeader)) {
        let mut header = BlockHeader {
            flags: 0,
            store_id: STORE,
            epoch: self.end.epoch,
            block: self.end.block,
            first_lsn: self.end.lsn,
            end_lsn: self.end.lsn + (body.len() / 64) as u64,
            durable_lsn: self.end.lsn,
            prev_hash: self.end.prev_hash,
            body_bytes: body.len() as u32,
            body_crc: crc32c(body),
            unix_ms: 1_700_000_000_000,
        };
        change(&mut header);
        let offset = self.end.offset as usize;
        let used = BLOCK_HEADER_BYTES + body.len();
        header.encode(&mut self.bytes[offset..]);
        self.bytes[offset + BLOCK_HEADER_BYTES..offset + used].copy_from_slice(body);
        self.end.block += 1;
        self.end.lsn = header.end_lsn;
        self.end.prev_hash = block_hash(&self.bytes[offset..offset + used]);
        self.end.offset += block_bytes(body.len()) as u64;
        self.blocks.push((offset, body.to_vec()));
    }

    fn left_bytes(&self) -> usize {
        SEGMENT_BYTES - self.end.offset as usize
    }
}

fn record(fact: Fact<'_>) -> Vec<u8> {
    let mut words = Vec::new();
    Record {
        stamp: Stamp {
            unix_ms: 1_700_000_000_000,
            route_table: 1,
        },
        fact,
    }
    .put(&mut words);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(crate) fn cold_records() -> Vec<Vec<u8>> {
    let facts = [
        Fact::Started {
            epoch: 1,
            version: "0.1.0",
        },
        Fact::SkuCreated {
            sku: 1,
            name: "卡密",
        },
        Fact::SkuSet(SkuSet {
            sku: 1,
            deal_order: DealOrder::ExpiryFirst,
            hold_share_max_percent: 50,
            cap: Cap {
                cards_max: 2,
                window_ms: 86_400_000,
            },
        }),
        Fact::SlabAdded {
            slab: 1,
            sku: 1,
            batch: 1,
            pool: 0,
            cards: 99,
            class_bytes: 48,
            header_hash: [5; 32],
            grows: false,
        },
        Fact::SlabAdded {
            slab: 3,
            sku: 1,
            batch: 2,
            pool: 0,
            cards: 70,
            class_bytes: 48,
            header_hash: [6; 32],
            grows: true,
        },
        Fact::Retried(Retried {
            order_id: 7,
            sku: 1,
            principal: 0,
            tried: Tried {
                attempts: 10,
                cause: 3,
                is_buried: true,
                again_unix_ms: 0,
            },
        }),
        Fact::CardsAdded(Added {
            slab: 3,
            sku: 1,
            batch: 2,
            first: 0,
            cards: 2,
            crcs: [7, 8, 9],
        }),
        Fact::SlabReused(Reused {
            slab: 2,
            sku: 1,
            batch: 1,
            pool: 0,
            class_bytes: 48,
            view: View {
                of: 1,
                first: 9,
                cards: 30,
                uses: 4,
                unlimited: false,
                closed: false,
            },
        }),
        Fact::BatchSealed {
            batch: 1,
            sku: 1,
            pool: 0,
            cards: 99 + 120,
            slabs: 2,
            label: "双十一",
            pool_name: "main",
        },
        Fact::CardsMoved(Moved {
            sku: 1,
            from: CardStatus::Free,
            to: CardStatus::Void,
            cause: Cause::Operator,
            runs: Runs::Given(&[Run {
                slab: 1,
                slot: 7,
                count: 3,
                generation: 0,
            }]),
        }),
        Fact::Reserved(Reserved {
            order_id: 7,
            holder: 0,
            sku: 1,
            principal: 0,
            quantity: 7,
            priority: 1,
            lane: 1,
            ttl_ms: 900_000,
            filled: true,
            fewer: 0,
            credits: Credits([(0, 4), (2, 3), (0, 0), (0, 0)]),
            card: None,
        }),
        Fact::Extended(Extended {
            order_id: 7,
            sku: 1,
            principal: 0,
            nth: 1,
            ttl_ms: 900_000,
        }),
        Fact::Released(Released {
            order_id: 7,
            holder: 0,
            sku: 1,
            principal: 0,
            quantity: 7,
            why: Release::Expired,
            was_issue: true,
        }),
        Fact::Backordered(Backordered {
            order_id: 8,
            holder: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            sku: 1,
            principal: 0,
            quantity: 2,
            priority: 3,
            lane: 3,
            ttl_ms: 900_000,
            ends_unix_ms: 1_700_000_900_000,
            tag: 77,
        }),
        Fact::ChannelChanged {
            name: "alpha",
            standing: Standing::Ejected {
                until_unix_ms: 1_700_000_030_000,
            },
            cause: ChannelCause::ConsecutiveFailures,
            ejections: 2,
        },
        Fact::RoutesLoaded {
            version: 2,
            toml: "[[rule]]\n# a table that takes more than one unit, so that it is cut\n",
        },
        Fact::Canary(canary(CanaryDeed::Started, 5)),
        Fact::Canary(canary(CanaryDeed::RolledBack, 0)),
    ];
    facts.into_iter().map(record).collect()
}

fn canary(deed: CanaryDeed, share: u8) -> CanaryFact<'static> {
    let group = Figures {
        orders: 9,
        failed: 2,
        p50_us: 3,
        p99_us: 4,
    };
    CanaryFact {
        version: 3,
        step: Step {
            deed,
            reason: CanaryReason::Failures,
            share,
            groups: [group; 2],
        },
        start: (deed == CanaryDeed::Started).then(|| (Settings::default(), "[[rule]]\n# canary\n")),
    }
}

fn image() -> Image {
    let header = SegmentHeader {
        store_id: STORE,
        seq: 1,
        segment_bytes: SEGMENT_BYTES as u64,
        created_unix_ms: 1_700_000_000_000,
    };
    let mut bytes = header.encode();
    bytes.resize(SEGMENT_BYTES, 0);
    let mut image = Image {
        bytes,
        blocks: Vec::new(),
        end: Position {
            epoch: 1,
            ..Position::START
        },
    };
    image.push(&cold_records().concat(), |_| ());
    image.push(&issued(1).repeat(9), |_| ());
    image.push(&[issued(30), issued(1)].concat(), |_| ());
    image
}

/// The first byte says what the rest is: bytes behind the last block, changes to a good segment, or the body of a block
/// with correct checksums. Then a record, as it is.
pub fn wal(data: &[u8]) {
    let [choice, rest @ ..] = data else { return };
    let mut image = image();
    let good = image.blocks.clone();
    match choice % 3 {
        0 => {
            let tail = &rest[..rest.len().min(image.left_bytes())];
            let offset = image.end.offset as usize;
            image.bytes[offset..offset + tail.len()].copy_from_slice(tail);
            let blocks = read(&image.bytes);
            if let Some(blocks) = blocks {
                assert_eq!(blocks[..3], good, "what was acknowledged is not cut");
            }
        }
        1 => {
            let end = image.end.offset as usize;
            let changed = edits::apply(&mut image.bytes[..end], rest);
            if let Some(blocks) = read(&image.bytes) {
                let same = blocks.len().min(good.len());
                assert_eq!(blocks[..same], good[..same], "a changed record");
                assert!(
                    changed != 1,
                    "one changed byte among the blocks is never passed over"
                );
            }
        }
        _ => {
            let Some((spoil, body)) = rest.split_at_checked(6) else {
                return;
            };
            let body = &body[..body.len().min(image.left_bytes() - BLOCK_HEADER_BYTES)];
            image.push(body, |header| spoil_header(header, spoil));
            if let Some(blocks) = read(&image.bytes) {
                assert_eq!(blocks[..3], good);
            }
        }
    }
    records(rest);
}

/// Each pair of bytes adds the second to the field that the first names.
fn spoil_header(header: &mut BlockHeader, spoil: &[u8]) {
    for pair in spoil.chunks_exact(2) {
        let by = u64::from(pair[1]);
        match pair[0] {
            1 => header.flags ^= u16::from(pair[1]),
            2 => header.epoch = header.epoch.wrapping_sub(by),
            3 => header.block += by,
            4 => header.first_lsn = header.first_lsn.wrapping_sub(by),
            5 => header.end_lsn += by,
            6 => header.durable_lsn += by,
            7 => header.body_bytes = header.body_bytes.wrapping_sub(u32::from(pair[1])),
            8 => header.body_crc ^= u32::from(pair[1]),
            9 => header.prev_hash[0] ^= pair[1],
            10 => header.store_id[0] ^= pair[1],
            _ => {}
        }
    }
}

/// The blocks, or `None` when the reader says that something is wrong: then it must name the file.
fn read(segment: &[u8]) -> Option<Vec<(usize, Vec<u8>)>> {
    let (disk, dir) = (MemoryDisk::new(), PathBuf::from("/wal"));
    disk.put(&segment_path(&dir, 1), segment);
    let told = |error: croupier_engine::error::EngineError| {
        assert!(error.to_string().contains("wal-"), "{error}");
    };
    let mut reader = BlockReader::open(disk.disk(), &dir, STORE, Position::START)
        .map_err(told)
        .ok()?;
    let mut blocks = Vec::new();
    while let Some(block) = reader.next().map_err(told).ok()? {
        records(block.body);
        blocks.push((block.offset as usize, block.body.to_vec()));
    }
    let tail = reader.tail().expect("the reader has reached the end");
    if let Some(torn) = &tail.torn {
        let range = torn.offset as usize..(torn.offset + torn.bytes) as usize;
        assert_eq!(torn.offset, tail.end.offset);
        assert!(
            range.len().is_multiple_of(4096)
                && range.end <= segment.len()
                && range.start >= SEGMENT_HEADER_BYTES
        );
    }
    Some(blocks)
}

/// Records until the first that is none.
fn records(mut bytes: &[u8]) {
    while let Ok((record, used)) = decode(bytes) {
        assert!(used >= 64 && used <= bytes.len());
        let mut words = Vec::new();
        record.put(&mut words);
        let again: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (read, _) = decode(&again).expect("what was read can be written");
        match (read.fact, record.fact) {
            (Fact::Issued(read), Fact::Issued(issued)) => {
                assert_eq!(issued.runs.iter().count(), issued.runs.len());
                assert!(read.runs.iter().eq(issued.runs.iter()));
                let runs = Runs::Given(&[]);
                assert_eq!(Issued { runs, ..read }, Issued { runs, ..issued });
            }
            (Fact::CardsMoved(read), Fact::CardsMoved(moved)) => {
                assert!(read.runs.iter().eq(moved.runs.iter()));
                let runs = Runs::Given(&[]);
                assert_eq!(Moved { runs, ..read }, Moved { runs, ..moved });
            }
            (read, fact) => assert_eq!(read, fact),
        }
        bytes = &bytes[used..];
    }
}
