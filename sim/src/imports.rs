//! Imports with stand-ins for slabs: files that are made and named as slabs are, with facts instead of sealed cards.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use croupier_engine::disk::Disk;
use croupier_engine::engine::Engine;
use croupier_engine::error::EngineError;
use croupier_engine::slab::growing::holds;
use croupier_engine::slab::layout::HEADER_BYTES;
use croupier_engine::slab::{SlabHeader, claim, slab_file_name};
use croupier_engine::state::record::Fact;
use croupier_engine::state::{Reused, SlabBody, SlabFacts, SlabSource, State};
use croupier_engine::uses::{Imported, views_of};
use croupier_protocol::MaxUses;

use crate::world::EPOCH_MS;

/// The size class that stand-ins say they have.
const CLASS_BYTES: u32 = 32;

/// The secret of a card, as the oracle expects it.
pub fn secret_of(slab: u32, slot: u32) -> Vec<u8> {
    format!("secret {slab}:{slot}").into_bytes()
}

/// When the cards of a slab expire, in Unix seconds; 0 = never, and nothing if none ever does. In one slab of six cards do, within
/// a minute, or days, for clocks that jump.
fn expiries(slab: u32, cards: u32) -> Box<[u64]> {
    let most_s = match slab % 12 {
        1 => 2 * 24 * 3600,
        7 => 60,
        _ => return Box::default(),
    };
    let expires_at_s = |slot: u32| {
        let mut dice = fastrand::Rng::with_seed(u64::from(slab) << 32 | u64::from(slot / 3));
        match dice.u32(0..3) {
            0 => 0,
            _ => EPOCH_MS / 1000 + dice.u64(1..most_s),
        }
    };
    (0..cards).map(expires_at_s).collect()
}

fn contents(slab: u32, sku: u32, cards: u32) -> Vec<u8> {
    let mut bytes =
        format!("stand-in for slab {slab} of SKU {sku} with {cards} cards\n").into_bytes();
    // More than a sector, so that it can be torn.
    bytes.resize(1500, slab as u8 | 1);
    bytes
}

/// Where slabs come from in a simulation.
pub struct StandIns {
    /// The disk they are on.
    pub disk: Disk,
    /// The directory they are in.
    pub dir: PathBuf,
}

impl SlabSource for StandIns {
    fn body(&self, facts: &SlabFacts) -> Result<SlabBody, EngineError> {
        let path = self.dir.join(slab_file_name(facts.slab));
        if facts.grown.is_some() {
            return self.growing(&path, facts);
        }
        let mut found = vec![0; 2000];
        let got = self
            .disk
            .open_read(&path)
            .and_then(|file| file.read_at(0, &mut found))
            .map_err(|_| EngineError::damage(&path, 0, "the slab is missing"))?;
        if found[..got] != contents(facts.slab, facts.sku, facts.cards) {
            return Err(EngineError::damage(&path, 0, "not what was written"));
        }
        let words = 0..claim::words_for(facts.cards);
        Ok(SlabBody::Bits(
            words.map(|_| AtomicU64::new(0)).collect(),
            expiries(facts.slab, facts.cards),
        ))
    }
}

impl StandIns {
    /// A slab that grows is a real one, but for its bits. That it has what the log says is seen behind the log.
    fn growing(&self, path: &Path, facts: &SlabFacts) -> Result<SlabBody, EngineError> {
        let damage = |what: &str| EngineError::damage(path, 0, what);
        let mut head = vec![0; HEADER_BYTES];
        let read = self.disk.open_read(path);
        let got = read.and_then(|file| file.read_at(0, &mut head));
        got.map_err(|_| damage("the slab is missing"))?;
        let header = SlabHeader::parse(&head).map_err(|fault| damage(&fault.to_string()))?;
        if !header.grows || header.identity.slab != facts.slab || header.layout.cards != facts.cards
        {
            return Err(damage("not what was written"));
        }
        let SlabBody::Bits(words, _) = SlabBody::bits(facts.cards) else {
            unreachable!("they are bits")
        };
        Ok(SlabBody::Bits(words, expiries(facts.slab, facts.cards)))
    }
}

/// Slabs that grow have in their files what the log says of them.
///
/// # Panics
/// If one has not.
pub fn check_grown(disk: &Disk, dir: &Path, state: &State) {
    for slab in state.catalog.load().slabs.iter().flatten() {
        if let Some(grown) = slab.grown() {
            let path = dir.join(slab_file_name(slab.facts.slab));
            let room = (slab.facts.cards, slab.facts.class_bytes);
            let held = holds(disk, &path, room, &grown);
            assert!(
                held.expect("it is there"),
                "slab {} has not what the log says",
                slab.facts.slab
            );
        }
    }
}

/// Uses of a card that is dealt without end, at first and in the end.
pub const USES_AHEAD: u32 = 6;
pub const USES_AHEAD_MAX: u32 = 40;

/// One import: its slabs, and the facts that make them count.
pub struct Import {
    pub sku: u32,
    pub batch: u32,
    pub slabs: Vec<(u32, u32)>,
    /// Of cards that are dealt more than once.
    pub views: Vec<Reused>,
    pub label: String,
    pub pool: u16,
    pub pool_name: String,
}

impl Import {
    /// Takes numbers for slabs of `cards` cards each.
    pub fn begin(
        engine: &Engine,
        sku: u32,
        pool_name: &str,
        cards: &[u32],
        max_uses: MaxUses,
    ) -> Import {
        // Relaxed: only uniqueness matters.
        let batch = engine.batch_ids.fetch_add(1, Ordering::Relaxed);
        let slabs = cards.iter().map(|&cards| {
            let slab = engine.slab_ids.fetch_add(1, Ordering::Relaxed);
            (slab, cards)
        });
        let slabs: Vec<(u32, u32)> = slabs.collect();
        let catalog = engine.state.catalog.load();
        let pools = catalog
            .sku(sku)
            .expect("a SKU that was made")
            .pools
            .load_full();
        let pool = pools.iter().position(|pool| pool.name == pool_name);
        let pool = pool.unwrap_or(pools.len()) as u16;
        let imported = Imported { sku, batch, pool };
        let of: Vec<_> = slabs
            .iter()
            .map(|&(slab, cards)| (slab, cards, CLASS_BYTES))
            .collect();
        let number = || engine.slab_ids.fetch_add(1, Ordering::Relaxed);
        let views = views_of(imported, max_uses, &of, USES_AHEAD, number);
        Import {
            sku,
            batch,
            slabs,
            views: views.unwrap_or_else(|refused| panic!("few cards: {}", refused.text)),
            label: format!("batch-{batch}"),
            pool,
            pool_name: pool_name.into(),
        }
    }

    /// Uses of its cards in all, as the facts say.
    pub fn uses(&self) -> u64 {
        let views = self.views.iter().filter_map(|reused| reused.view.slots());
        self.cards() + views.map(u64::from).sum::<u64>()
    }

    /// Cards in all.
    pub fn cards(&self) -> u64 {
        self.slabs.iter().map(|(_, cards)| u64::from(*cards)).sum()
    }

    /// Secrets of all cards.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        let slots = |&(slab, cards): &(u32, u32)| (0..cards).map(move |slot| secret_of(slab, slot));
        self.slabs.iter().flat_map(slots).collect()
    }

    /// Makes the files, durable.
    pub fn write(&self, engine: &Engine) -> std::io::Result<()> {
        let disk = &engine.store.disk;
        let dir = engine.store.paths.slabs();
        for &(slab, cards) in &self.slabs {
            let mut draft = disk.draft(&dir)?;
            draft.write_all(&contents(slab, self.sku, cards))?;
            draft.publish(&dir.join(slab_file_name(slab)))?;
        }
        Ok(())
    }

    /// Removes the files of an import that was refused, as well as it can.
    pub fn undo(&self, engine: &Engine) {
        let dir = engine.store.paths.slabs();
        for (slab, _) in &self.slabs {
            let _ = engine.store.disk.remove(&dir.join(slab_file_name(*slab)));
        }
    }

    /// The facts, in the order in which they are logged.
    pub fn facts(&self) -> Vec<Fact<'_>> {
        let slabs = self.slabs.iter().map(|&(slab, cards)| Fact::SlabAdded {
            slab,
            sku: self.sku,
            batch: self.batch,
            pool: self.pool,
            cards,
            class_bytes: CLASS_BYTES,
            header_hash: [slab as u8; 32],
            grows: false,
        });
        let mut facts: Vec<_> = slabs.collect();
        facts.extend(self.views.iter().copied().map(Fact::SlabReused));
        facts.push(Fact::BatchSealed {
            batch: self.batch,
            sku: self.sku,
            pool: self.pool,
            cards: self.uses(),
            slabs: (self.slabs.len() + self.views.len()) as u32,
            label: &self.label,
            pool_name: &self.pool_name,
        });
        facts
    }
}
