//! Engines for tests: on a disk in memory, with slabs that are stand-ins, driven in steps.

use std::path::Path;
use std::sync::Arc;

use super::{Engine, Ground};
use crate::config::{Config, Sync};
use crate::disk::memory::MemoryDisk;
use crate::error::EngineError;
use crate::limits::GROWING_SLAB_CARDS_MAX;
use crate::slab::{KeyFile, Vault};
use crate::state::SlabSource;
use crate::state::index::Spread;
use crate::state::record::Fact;
use crate::store::Store;
use crate::wal::log::{APPEND_UNITS_MAX, Drive};
use crate::wal::segments::make_segment;

pub const STORE: [u8; 16] = [7; 16];
const ROOT: &str = "/store";
const SEGMENT_BYTES: u64 = 1 << 20;

/// A disk with an empty store.
pub fn new_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let wal = Path::new(ROOT).join("wal");
    make_segment(&disk.disk(), &wal, STORE, 1, SEGMENT_BYTES).unwrap();
    disk
}

/// Starts the store of a disk, for one core.
pub fn start(disk: &MemoryDisk, slabs: impl SlabSource + 'static) -> Result<Engine, EngineError> {
    let vault = Arc::new(Vault::new(&KeyFile::unsaved(STORE)));
    let config = Config {
        sync: Sync::Fdatasync,
        ..Config::new(ROOT)
    };
    let ground = Ground {
        slabs: Box::new(slabs),
        spread: Spread {
            seed: [1, 2],
            shards: 4,
        },
        drive: Drive::Steps,
        append_units_max: APPEND_UNITS_MAX,
        growing_cards_max: GROWING_SLAB_CARDS_MAX,
        subscribers: Vec::new(),
    };
    let store = Store::on(disk.disk(), Path::new(ROOT), vault);
    Engine::start(config, store, 1, ground).map(|(engine, _)| engine)
}

/// An import into the first SKU, as a batch of one slab, both of this number.
pub fn batch_of(batch: u32, cards: u32) -> [Fact<'static>; 2] {
    batch_in((0, "main"), batch, cards)
}

/// As [`batch_of`], into a pool of the SKU: its index, and its name.
pub fn batch_in(
    (pool, pool_name): (u16, &'static str),
    batch: u32,
    cards: u32,
) -> [Fact<'static>; 2] {
    let added = Fact::SlabAdded {
        slab: batch,
        sku: 1,
        batch,
        pool,
        cards,
        class_bytes: 32,
        header_hash: [1; 32],
        grows: false,
    };
    let sealed = Fact::BatchSealed {
        batch,
        sku: 1,
        pool,
        cards: cards.into(),
        slabs: 1,
        label: "a",
        pool_name,
    };
    [added, sealed]
}
