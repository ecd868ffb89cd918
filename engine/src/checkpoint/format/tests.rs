//! Checkpoints that are written are read again, and what is no checkpoint is told.

use super::*;
use croupier_protocol::{CanaryDeed, CanaryReason, ChannelCause, DealOrder};

use crate::canary::Settings;
use crate::card::CardStatus;
use crate::state::canary::{Figures, Step, StepFact};
use crate::state::index::{Hold, Waits};
use crate::state::moved::SlabMarks;
use crate::state::record::Credits;

/// Tables of version, LSN and text.
fn tables(kept: &[(u32, u64, &str)]) -> RouteTables {
    let kept = kept.iter().map(|&(version, lsn, toml)| TableFact {
        version,
        lsn,
        unix_ms: 3 * lsn,
        toml: toml.into(),
    });
    RouteTables::of_kept(kept.collect()).unwrap()
}

/// A canary of that table; without one it is over.
fn canary(toml: &str) -> Canaries {
    let fact = |lsn, deed, share| StepFact {
        lsn,
        unix_ms: lsn << 40,
        step: Step {
            deed,
            reason: CanaryReason::Slower,
            share,
            groups: [Figures::of_words([1, 2, 3, 4]), Figures::default()],
        },
    };
    let mut steps = vec![fact(9, CanaryDeed::Started, 5)];
    if toml.is_empty() {
        steps.push(fact(11, CanaryDeed::RolledBack, 0));
    }
    let canary = Canary {
        version: 7,
        settings: Settings::default(),
        toml: toml.into(),
        forgotten: 0,
        steps,
    };
    Canaries::of_last(canary).unwrap()
}

fn sample(marks: Vec<SlabMarks>, held: Vec<HeldFact>) -> Checkpoint {
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
    let snapshot = Snapshot {
        skus: vec![SkuSnapshot {
            sku: 1,
            name: "卡".into(),
            pools: vec!["main".into()],
        }],
        batches: vec![Batch {
            batch: 2,
            sku: 1,
            pool: 0,
            cards: 70,
            label: "b".into(),
            sealed_unix_ms: 7,
        }],
        slabs: vec![(facts, vec![5, 1])],
        marks,
        settings: Vec::new(),
        held,
        unsealed: vec![SlabFacts { slab: 4, ..facts }],
        routes: tables(&[(2, 0, "x")]),
        channels: Channels::default(),
        canaries: Canaries::default(),
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

#[test]
fn round_trip_and_every_flipped_bit_is_seen() {
    round_trip(&sample(Vec::new(), Vec::new()), 0);
    let marks = [CardStatus::Suspended, CardStatus::Void].map(|status| (3, status, vec![4, 1]));
    round_trip(&sample(marks.to_vec(), Vec::new()), FEATURE_MARKS);
    let fact = HeldFact {
        order_id: 9 << 64 | 7,
        holder: 0,
        lsn: 12,
        hold: Hold {
            waits: None,
            fewer: 0,
            sku: 1,
            credits: Credits([(0, 3), (2, 1), (0, 0), (0, 0)]),
            card: None,
            reserved_lsn: 11,
            reserved_unix_ms: 5,
            ttl_ms: 6,
            extensions: 1,
            extended_ttl_ms: 8,
            ends_unix_ms: 13,
        },
    };
    let held = vec![
        fact.clone(),
        HeldFact {
            lsn: 13,
            ..fact.clone()
        },
    ];
    round_trip(&sample(Vec::new(), held.clone()), FEATURE_HELD);
    round_trip(
        &sample(marks.into(), held.clone()),
        FEATURE_MARKS | FEATURE_HELD,
    );
    let mut waits = held;
    waits[1].hold.credits = Credits::default();
    // One that waits has not been extended.
    waits[1].hold.extensions = 0;
    waits[1].hold.waits = Some(Waits {
        quantity: 4000,
        priority: 3,
        tag: 0,
        tried: Tried::default(),
    });
    round_trip(
        &sample(Vec::new(), waits.clone()),
        FEATURE_HELD | FEATURE_WAITING,
    );
    let mut tagged = waits.clone();
    if let Some(waits) = &mut tagged[1].hold.waits {
        waits.tag = 77;
    }
    round_trip(
        &sample(Vec::new(), tagged),
        FEATURE_HELD | FEATURE_WAITING | FEATURE_TAGS,
    );
    let mut tried = waits.clone();
    if let Some(waits) = &mut tried[1].hold.waits {
        waits.tried = Tried {
            attempts: 10,
            cause: 3,
            is_buried: true,
            again_unix_ms: 1_800_000_000_000,
        };
    }
    round_trip(
        &sample(Vec::new(), tried),
        FEATURE_HELD | FEATURE_WAITING | FEATURE_TRIED,
    );
    waits[0].hold.fewer = 3996;
    round_trip(
        &sample(Vec::new(), waits.clone()),
        FEATURE_HELD | FEATURE_WAITING | FEATURE_PARTS,
    );
    let mut set = sample(Vec::new(), Vec::new());
    set.snapshot.settings = vec![SkuSet {
        sku: 1,
        deal_order: DealOrder::Lifo,
        hold_share_max_percent: 30,
        cap: Cap::default(),
    }];
    round_trip(&set, FEATURE_SETTINGS);
    let cap = Cap {
        cards_max: 3,
        window_ms: 1 << 33,
    };
    set.snapshot.settings[0].cap = cap;
    round_trip(&set, FEATURE_SETTINGS | FEATURE_HOLDERS);
    set.snapshot.settings = vec![SkuSet {
        cap,
        ..SkuSet::default_of(1)
    }];
    round_trip(&set, FEATURE_HOLDERS);
    let mut named = fact.clone();
    named.holder = 5 << 64 | 3;
    let other = HeldFact {
        order_id: fact.order_id + 1,
        ..fact.clone()
    };
    let held_named = sample(Vec::new(), vec![named, other]);
    round_trip(&held_named, FEATURE_HELD | FEATURE_HOLDERS);
    let mut viewed = sample(Vec::new(), Vec::new());
    let view = View {
        of: 3,
        first: 1,
        cards: 35,
        uses: 2,
        unlimited: false,
        closed: false,
    };
    let facts = SlabFacts {
        slab: 5,
        header_hash: [0; 32],
        view: Some(view),
        ..viewed.snapshot.slabs[0].0
    };
    viewed.snapshot.slabs.push((facts, vec![1 << 63, 32]));
    let view = View {
        unlimited: true,
        closed: true,
        ..view
    };
    viewed.snapshot.unsealed.push(SlabFacts {
        slab: 6,
        view: Some(view),
        ..facts
    });
    round_trip(&viewed, FEATURE_VIEWS);
    let mut routed = sample(Vec::new(), Vec::new());
    routed.snapshot.routes = RouteTables::default();
    round_trip(&routed, 0);
    for kept in [&[(1, 4, "x")][..], &[(7, 0, "x"), (8, 5, "y"), (9, 7, "x")]] {
        routed.snapshot.routes = tables(kept);
        round_trip(&routed, FEATURE_TABLES);
    }
    let mut known = sample(Vec::new(), Vec::new());
    let channel = |(name, lsn, standing): (&str, u64, Standing)| Known {
        lsn,
        change: Change {
            channel: name.into(),
            standing,
            cause: ChannelCause::ConsecutiveFailures,
            ejections: 3,
            unix_ms: 3 * lsn,
        },
    };
    let until_unix_ms = 1 << 40;
    let standings = [
        ("a", 5, Standing::Healthy),
        ("b", 4, Standing::Ejected { until_unix_ms }),
        ("卡", 6, Standing::Probing),
    ];
    known.snapshot.channels = Channels::of_kept(standings.map(channel).into()).unwrap();
    round_trip(&known, FEATURE_CHANNELS);
    let mut on_trial = known;
    for toml in ["a canary", ""] {
        on_trial.snapshot.canaries = canary(toml);
        round_trip(&on_trial, FEATURE_CHANNELS | FEATURE_CANARY);
    }
    on_trial.snapshot.channels = Channels::default();
    round_trip(&on_trial, FEATURE_CANARY);
    let mut growing = sample(Vec::new(), Vec::new());
    let grown = |cards| {
        let crcs = [7, 8, 9];
        Some(Grown { cards, crcs })
    };
    growing.snapshot.slabs[0].0.grown = grown(70);
    growing.snapshot.unsealed[0].grown = grown(0);
    round_trip(&growing, FEATURE_GROWN);
    let mut more = growing.clone();
    more.snapshot.slabs[0].0.grown = grown(71);
    let body = encode_body(&more.snapshot, &more.files);
    let decoded = decode_body(&body, 0, FEATURE_GROWN);
    assert_eq!(decoded.unwrap_err(), "slab 3 has not grown as it says");
    waits.truncate(1);
    waits[0].hold.fewer = 0;
    waits[0].hold.credits = Credits([(2, 1), (0, 0), (0, 0), (0, 0)]);
    waits[0].hold.card = Some((3, 69));
    round_trip(&sample(Vec::new(), waits), FEATURE_HELD | FEATURE_BOUND);
}

fn round_trip(sample: &Checkpoint, features: u64) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::real();
    let name = write(&disk, dir.path(), [7; 16], sample).unwrap();
    assert!(is_checkpoint_name(&name));
    let path = dir.path().join(name);
    assert_eq!(read(&disk, &path, [7; 16]).unwrap(), *sample);
    assert!(read(&disk, &path, [8; 16]).is_err(), "another store's");
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[168..176], features.to_le_bytes());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&flipped, [7; 16]).is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(decode(&bytes[..cut], [7; 16]).is_err(), "cut at {cut}");
    }
}
