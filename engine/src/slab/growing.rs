//! Slabs that grow: cards that come one by one, a few durable slots at a time.
//!
//! A [`Grower`] makes the file, whole and full of zeros, and appends to it; nobody else ever does. A slot is sealed once
//! only (DESIGN, rule 9): after a restart, or a write that failed or may have, the rest of the slab's slots stay empty for
//! ever, and the next card goes into a new slab. So whoever has a grower drops it at the first error.
//!
//! It blocks. It knows no log: what it returns is what a `CardsAdded` record says, and the slots count once that is
//! durable.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use crc_fast::{CrcAlgorithm, Digest};
use croupier_protocol::ImportRow;
use zerocopy::IntoBytes;

use super::file::slab_file_name;
use super::header::{SectionCrcs, SlabHeader, SlabIdentity};
use super::ingest::IngestError;
use super::layout::{
    AMOUNT_NONE, PRINT_ENTRY_BYTES, PrintEntry, SLOT_ENTRY_BYTES, Section, SlabLayout,
    SlotEntryRaw, TAG_BYTES,
};
use super::sealing::SlabSealer;
use super::vault::{Fingerprint, Vault};
use crate::disk::{Disk, OpenFile};
use crate::limits::{GROWING_SLAB_CARDS_MAX, GROWING_SLAB_SEALED_BYTES_MAX};

/// The sections that grow with the cards, in the order of their checksums.
const GROWING: [Section; 3] = [Section::Slots, Section::Sealed, Section::Prints];

/// How far a slab has grown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grown {
    /// Slots that have cards, from the first on.
    pub cards: u32,
    /// CRC-32C of these slots' part of the slot table, the sealed slots and the fingerprints.
    pub crcs: [u32; 3],
}

/// Cards that have come into a slab that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    pub slab: u32,
    pub sku: u32,
    /// Of the slab, which is one of its own.
    pub batch: u32,
    /// The slot of the first of them: those before it have come before.
    pub first: u32,
    pub cards: u32,
    /// As in [`Grown`], these cards included.
    pub crcs: [u32; 3],
}

/// A card that is new.
pub struct NewCard<'a> {
    pub print: Fingerprint,
    /// Its label is not kept.
    pub row: ImportRow<'a>,
}

/// How many slots a growing slab of a class is made with.
pub fn growing_cards_max(class_bytes: u32) -> u32 {
    let slot_bytes = class_bytes + TAG_BYTES as u32;
    (GROWING_SLAB_SEALED_BYTES_MAX / slot_bytes).clamp(1, GROWING_SLAB_CARDS_MAX)
}

/// Writes one growing slab.
pub struct Grower {
    disk: Disk,
    path: PathBuf,
    file: Box<dyn OpenFile>,
    identity: SlabIdentity,
    layout: SlabLayout,
    header_hash: [u8; 32],
    sealer: SlabSealer,
    filled: u32,
    digests: [Digest; 3],
}

impl Grower {
    /// Makes the file of a slab with room for `cards` cards, durable under its name. Nothing counts before a record names it.
    pub fn create(
        disk: &Disk,
        dir: &Path,
        vault: &Vault,
        identity: SlabIdentity,
        (cards, class_bytes): (u32, u32),
    ) -> Result<Grower, IngestError> {
        let path = dir.join(slab_file_name(identity.slab));
        if disk.open_read(&path).is_ok() {
            return Err(IngestError::SlabExists { path });
        }
        let layout = SlabLayout::of(cards, class_bytes, 0);
        let bound = SlabHeader::bound_bytes(&identity, &layout);
        let key = vault.new_key(&bound)?;
        let wrapped_key = vault.wrap(&key, &bound)?;
        let header = SlabHeader {
            identity,
            layout,
            crcs: SectionCrcs::default(),
            wrapped_key,
            expires_from_s: None,
            grows: true,
        };
        let header = header.to_bytes();
        let made = disk
            .create_zeroed(&path, &header[..], layout.file_bytes)
            .and_then(|()| disk.open_growing(&path));
        let file = made.map_err(|source| {
            // Without a record it is nothing; the next start removes what is left of it.
            let _ = disk.remove(&path);
            IngestError::of_disk("make", &path, layout.file_bytes, source)
        })?;
        let mut header_hash = [0; 32];
        header_hash.copy_from_slice(digest::digest(&digest::SHA256, &header[..]).as_ref());
        let (store_id, slab) = (identity.store_id, identity.slab);
        Ok(Grower {
            disk: disk.clone(),
            path,
            file,
            identity,
            layout,
            header_hash,
            sealer: SlabSealer::new(key, store_id, slab, class_bytes, cards),
            filled: 0,
            digests: [CrcAlgorithm::Crc32Iscsi; 3].map(Digest::new),
        })
    }

    /// Whose slab it is.
    pub fn identity(&self) -> &SlabIdentity {
        &self.identity
    }

    /// Slots in all.
    pub fn cards(&self) -> u32 {
        self.layout.cards
    }

    /// The size class of its slots.
    pub fn class_bytes(&self) -> u32 {
        self.layout.class_bytes
    }

    /// SHA-256 of its header.
    pub fn header_hash(&self) -> [u8; 32] {
        self.header_hash
    }

    /// Slots that are left.
    pub fn room(&self) -> u32 {
        self.layout.cards - self.filled
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, of which no record tells, as well as it can: the next start removes what stays.
    pub fn remove(&self) {
        let _ = self.disk.remove(&self.path);
    }

    /// Writes cards into the next slots, durable. At least one and at most as many as there is [room](Self::room) for, all of
    /// the slab's class. After an error nobody knows what is written: the grower is to be dropped.
    pub fn append(&mut self, cards: &[NewCard<'_>]) -> Result<Added, IngestError> {
        let added = cards.len() as u32;
        assert!((1..=self.room()).contains(&added), "cards that fit");
        let first = self.filled;
        // Before anything is written: these slots are used up, whatever comes of it.
        self.filled += added;
        let parts = self.seal(first, cards);
        let need_bytes = self.layout.file_bytes;
        let fault = |op, source| IngestError::of_disk(op, &self.path, need_bytes, source);
        for ((section, bytes), digest) in GROWING.into_iter().zip(&parts).zip(&mut self.digests) {
            digest.update(bytes);
            let offset = self.layout.part(section, first).end;
            let written = self.file.write_at(offset, bytes);
            written.map_err(|source| fault("write", source))?;
        }
        let synced = self.file.sync();
        synced.map_err(|source| fault("sync", source))?;
        let [slots, sealed, prints] = &self.digests;
        Ok(Added {
            slab: self.identity.slab,
            sku: self.identity.sku,
            batch: self.identity.batch,
            first,
            cards: added,
            crcs: [slots, sealed, prints].map(|digest| digest.finalize() as u32),
        })
    }

    /// What these cards add to each section.
    fn seal(&self, first: u32, cards: &[NewCard<'_>]) -> [Vec<u8>; 3] {
        let slot_bytes = self.layout.slot_bytes();
        let mut slots = Vec::with_capacity(cards.len() * SLOT_ENTRY_BYTES);
        let mut sealed = vec![0; cards.len() * slot_bytes];
        let mut prints = Vec::with_capacity(cards.len() * PRINT_ENTRY_BYTES);
        let taken = self.sealer.take(cards.len() as u32);
        let mut range = taken.expect("there is room");
        assert_eq!(range.slots(), first..first + cards.len() as u32);
        let places = sealed.chunks_exact_mut(slot_bytes);
        for ((slot, card), place) in (first..).zip(cards).zip(places) {
            range.seal_next(card.row.secret, place);
            let entry = SlotEntryRaw {
                expires_at_s: card.row.expires_at_s.into(),
                premium_e4: card.row.premium_e4.unwrap_or(AMOUNT_NONE).into(),
                cost_e4: card.row.cost_e4.unwrap_or(AMOUNT_NONE).into(),
                label_offset: 0.into(),
                label_bytes: 0.into(),
                reserved: 0.into(),
            };
            slots.extend_from_slice(entry.as_bytes());
            let print = PrintEntry {
                fingerprint: card.print.0,
                slot: slot.into(),
                reserved: 0.into(),
            };
            prints.extend_from_slice(print.as_bytes());
        }
        [slots, sealed, prints]
    }
}

/// Reads what is filled of a growing slab's file and compares it with what is said of it, without opening it as a slab: for
/// disks that cannot be mapped. False: it is not that.
#[cfg(any(test, feature = "testing"))]
pub fn holds(
    disk: &Disk,
    path: &Path,
    (cards, class_bytes): (u32, u32),
    grown: &Grown,
) -> std::io::Result<bool> {
    let layout = SlabLayout::of(cards, class_bytes, 0);
    let reader = disk.open_read(path)?;
    for (section, crc) in GROWING.into_iter().zip(grown.crcs) {
        let part = layout.part(section, grown.cards);
        let mut bytes = vec![0; (part.end - part.start) as usize];
        let got = reader.read_at(part.start, &mut bytes)?;
        if got < bytes.len() || super::layout::crc32c(&bytes) != crc {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;
