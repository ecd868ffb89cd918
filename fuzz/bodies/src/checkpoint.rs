//! Checkpoint files.

use std::path::Path;

use croupier_engine::canary::Settings;
use croupier_engine::card::CardStatus;
use croupier_engine::checkpoint::format::{Checkpoint, OrderFile, decode, write};
use croupier_engine::disk::memory::MemoryDisk;
use croupier_engine::slab::Grown;
use croupier_engine::state::apply::{SkuSnapshot, Snapshot};
use croupier_engine::state::canary::{Figures, Step, StepFact};
use croupier_engine::state::channels::{Change, Known, Standing};
use croupier_engine::state::held::HeldFact;
use croupier_engine::state::index::{Hold, Waits};
use croupier_engine::state::record::{Cap, Credits, SkuSet, Tried};
use croupier_engine::state::{
    Batch, Canaries, Canary, Channels, Digest, RouteTables, SlabFacts, StateSeed, TableFact, View,
};
use croupier_engine::wal::Position;
use croupier_engine::wal::format::{StoreId, crc32c};
use croupier_protocol::{CanaryDeed, CanaryReason, ChannelCause, DealOrder};

pub(crate) const STORE: StoreId = *b"store of a fuzz!";
const HEADER_BYTES: usize = 192;

/// A file as it is; then its first bytes as changes to a good header, and the rest as the body behind it.
pub fn checkpoint(data: &[u8]) {
    check(data);
    let Some((edits, body)) = data.split_at_checked(6) else {
        return;
    };
    let mut file = sample_bytes()[..HEADER_BYTES].to_vec();
    crate::edits::apply(&mut file, edits);
    file.extend_from_slice(body);
    file[160..168].copy_from_slice(&(body.len() as u64).to_le_bytes());
    file[184..188].copy_from_slice(&crc32c(body).to_le_bytes());
    let header_crc = crc32c(&file[..HEADER_BYTES - 4]);
    file[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&header_crc.to_le_bytes());
    check(&file);
}

/// What was read can be written, and is then the same.
fn check(bytes: &[u8]) {
    match decode(bytes, STORE) {
        Ok(read) => assert_eq!(decode(&written(&read), STORE).as_ref(), Ok(&read)),
        Err((offset, what)) => {
            assert!(offset <= bytes.len().max(HEADER_BYTES) as u64 && !what.is_empty())
        }
    }
}

fn written(checkpoint: &Checkpoint) -> Vec<u8> {
    let disk = MemoryDisk::new();
    let shared = disk.disk();
    let dir = Path::new("/checkpoints");
    let name = write(&shared, dir, STORE, checkpoint).expect("there is room in memory");
    disk.contents(&dir.join(name))
        .expect("it has just been written")
}

pub(crate) fn sample_bytes() -> Vec<u8> {
    written(&sample())
}

fn sample() -> Checkpoint {
    let facts = SlabFacts {
        slab: 3,
        sku: 1,
        batch: 2,
        pool: 0,
        cards: 70,
        class_bytes: 48,
        header_hash: [9; 32],
        view: None,
        grown: None,
    };
    let viewed = SlabFacts {
        slab: 4,
        header_hash: [0; 32],
        view: Some(View {
            of: 3,
            first: 0,
            cards: 35,
            uses: 2,
            unlimited: false,
            closed: false,
        }),
        ..facts
    };
    let hold = Hold {
        sku: 1,
        credits: Credits([(0, 3), (1, 1), (0, 0), (0, 0)]),
        card: None,
        waits: None,
        fewer: 0,
        reserved_lsn: 11,
        reserved_unix_ms: 5,
        ttl_ms: 6,
        extensions: 1,
        extended_ttl_ms: 8,
        ends_unix_ms: 13,
    };
    let tables = [(2, 0), (3, 5)].map(|(version, lsn)| TableFact {
        version,
        lsn,
        unix_ms: lsn,
        toml: "[[rule]]\n".into(),
    });
    let step = |lsn, deed, share| StepFact {
        lsn,
        unix_ms: 7,
        step: Step {
            deed,
            reason: CanaryReason::Operator,
            share,
            groups: [Figures::default(); 2],
        },
    };
    let canary = Canary {
        version: 5,
        settings: Settings::default(),
        toml: "[[rule]]\n# canary\n".into(),
        forgotten: 0,
        steps: vec![
            step(6, CanaryDeed::Started, 5),
            step(8, CanaryDeed::Paused, 5),
        ],
    };
    let snapshot = Snapshot {
        skus: vec![
            SkuSnapshot {
                sku: 1,
                name: "卡密".into(),
                pools: vec!["main".into(), "vip".into()],
            },
            SkuSnapshot {
                sku: 2,
                name: "steam-50".into(),
                pools: vec!["main".into()],
            },
        ],
        batches: vec![Batch {
            batch: 2,
            sku: 1,
            pool: 0,
            cards: 70 + 70,
            label: "双十一".into(),
            sealed_unix_ms: 7,
        }],
        slabs: vec![(facts, vec![5, 1]), (viewed, vec![3, 0])],
        marks: vec![
            (3, CardStatus::Suspended, vec![4, 0]),
            (3, CardStatus::Void, vec![0, 1]),
        ],
        settings: vec![SkuSet {
            sku: 1,
            deal_order: DealOrder::Lifo,
            hold_share_max_percent: 30,
            cap: Cap {
                cards_max: 2,
                window_ms: 1000,
            },
        }],
        held: vec![
            HeldFact {
                order_id: 9 << 64 | 7,
                holder: 0,
                lsn: 12,
                hold,
            },
            HeldFact {
                order_id: 9 << 64 | 8,
                holder: 5,
                lsn: 14,
                hold: Hold {
                    credits: Credits::default(),
                    card: None,
                    waits: Some(Waits {
                        quantity: 3,
                        priority: 2,
                        tag: 77,
                        tried: Tried {
                            attempts: 3,
                            cause: 3,
                            is_buried: true,
                            again_unix_ms: 5,
                        },
                    }),
                    ..hold
                },
            },
        ],
        unsealed: vec![SlabFacts {
            slab: 5,
            batch: 3,
            grown: Some(Grown::default()),
            ..facts
        }],
        routes: RouteTables::of_kept(tables.into()).expect("versions grow"),
        channels: Channels::of_kept(vec![Known {
            lsn: 7,
            change: Change {
                channel: "alpha".into(),
                standing: Standing::Ejected {
                    until_unix_ms: 1_700_000_030_000,
                },
                cause: ChannelCause::ProbeFailed,
                ejections: 2,
                unix_ms: 1_700_000_000_000,
            },
        }])
        .expect("one with a name"),
        canaries: Canaries::of_last(canary).expect("it can be"),
        epoch: 6,
    };
    let files = vec![OrderFile {
        name: "orders-1".into(),
        first_lsn: 1,
        end_lsn: 9,
        rows: 3,
        file_bytes: 99,
    }];
    let end = Position {
        seq: 4,
        offset: 4096,
        block: 12,
        lsn: 9,
        epoch: 6,
        prev_hash: [3; 32],
    };
    let orders = StateSeed {
        orders: 3,
        orders_sum: 1 << 100,
    };
    Checkpoint {
        end,
        orders,
        digest: Digest([8; 32]),
        snapshot,
        files,
        created_unix_ms: 5,
    }
}
