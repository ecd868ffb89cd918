//! A slab that is open: checked, mapped, its key at hand.
//!
//! Knows one file. It does not know which of its cards are sold: claim words are handed out as they are, and set from
//! checkpoint and log by others. Next: [`crate::slab::claim`] for taking, [`crate::slab::ingest`] for how it is made.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use bytes::BytesMut;
use croupier_protocol::planted::{self, Bug};
use thiserror::Error;
use zerocopy::FromBytes;

use super::durable::IoFault;
use super::growing::Grown;
use super::header::{HeaderFault, SectionCrcs, SlabHeader};
use super::layout::{AMOUNT_NONE, HEADER_BYTES, PrintEntry, Section, SlotEntryRaw, crc32c};
use super::mapped::{MapPlan, MappedFile};
use super::prints;
use super::sealing::{SealError, SlabOpener};
use super::vault::{Fingerprint, Vault};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What the log says about a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectSlab {
    /// Its number.
    pub id: u32,
    /// SHA-256 of its header.
    pub header_hash: [u8; 32],
}

/// One card's entry in the slot table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotEntry<'a> {
    /// Unix seconds; 0 = never.
    pub expires_at_s: u64,
    /// Ten-thousandths of the currency unit.
    pub premium_e4: Option<i64>,
    /// Ten-thousandths of the currency unit.
    pub cost_e4: Option<i64>,
    /// For people; may be empty.
    pub label: &'a str,
}

/// The file name of a slab.
pub fn slab_file_name(slab: u32) -> String {
    format!("slab-{slab:08x}.slab")
}

/// The number in a slab's file name; `None` when it is not the name of a finished slab.
pub fn slab_of_file_name(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("slab-")?.strip_suffix(".slab")?;
    let slab = u32::from_str_radix(digits, 16).ok()?;
    (slab_file_name(slab) == name).then_some(slab)
}

/// An open slab.
pub struct Slab {
    path: PathBuf,
    header: SlabHeader,
    header_hash: [u8; 32],
    opener: SlabOpener,
    mapped: MappedFile,
    sealed: Range<usize>,
    /// Slots before this one are written for good; all of a slab that does not grow.
    filled: AtomicU32,
}

impl Slab {
    /// Opens and checks everything that is cheap to check: see the format page. Sections are checked by
    /// [`Slab::verify_sections`], a sealed slot proves itself when it is opened.
    pub fn open(path: &Path, vault: &Vault, expect: Option<ExpectSlab>) -> Result<Self, SlabError> {
        let file = File::open(path).map_err(IoFault::at("open", path))?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let slab = Self::from_file(&file, path, vault)?;
        if slab_of_file_name(name) != Some(slab.id()) {
            return Err(SlabError::WrongName {
                path: path.to_owned(),
                slab: slab.id(),
            });
        }
        match expect {
            Some(expect) if expect.id != slab.id() || expect.header_hash != slab.header_hash => {
                Err(SlabError::NotTheLogs {
                    path: path.to_owned(),
                    expected: expect.id,
                    found: slab.id(),
                })
            }
            _ => Ok(slab),
        }
    }

    /// All of `open` but the file's name, which an unfinished slab does not have yet. `path` is for errors.
    pub(super) fn from_file(file: &File, path: &Path, vault: &Vault) -> Result<Self, SlabError> {
        let (header, header_hash) = read_header(file, path)?;
        let (identity, layout) = (header.identity, header.layout);
        let path_owned = || path.to_owned();
        let found = file.metadata().map_err(IoFault::at("look at", path))?.len();
        if found != layout.file_bytes {
            return Err(SlabError::WrongLength {
                path: path_owned(),
                found,
                expected: layout.file_bytes,
            });
        }
        if identity.store_id != vault.store_id() {
            return Err(SlabError::OtherStore { path: path_owned() });
        }
        let key = vault
            .unwrap(
                &header.wrapped_key,
                &SlabHeader::bound_bytes(&identity, &layout),
            )
            .map_err(|_| SlabError::WrongKey { path: path_owned() })?;
        let plan = MapPlan {
            file_bytes: layout.file_bytes,
            claims_offset: layout.claims_offset,
            claim_words: layout.claim_words(),
        };
        let mapped = MappedFile::map(file, &plan).map_err(IoFault::at("map", path))?;
        let opener = SlabOpener::new(&key, identity.store_id, identity.slab, layout.class_bytes);
        let sealed = in_memory(layout.section(Section::Sealed));
        let filled = if header.grows { 0 } else { layout.cards };
        let slab = Self {
            path: path_owned(),
            header,
            header_hash,
            opener,
            mapped,
            sealed,
            filled: filled.into(),
        };
        // Claims begin as the file has them: a bit set there would be taken for a card that somebody has.
        let claims = slab.header.layout.section(Section::Claims);
        slab.verify_zero("file's", Section::Claims, claims)?;
        Ok(slab)
    }

    /// Its number, unique in the store.
    pub fn id(&self) -> u32 {
        self.header.identity.slab
    }

    /// What its cards are.
    pub fn sku(&self) -> u32 {
        self.header.identity.sku
    }

    /// The import it came with.
    pub fn batch(&self) -> u32 {
        self.header.identity.batch
    }

    /// The pool of stock it belongs to.
    pub fn pool(&self) -> u16 {
        self.header.identity.pool
    }

    /// How many cards it has; of one that grows, how many it has room for.
    pub fn cards(&self) -> u32 {
        self.header.layout.cards
    }

    /// Whether its cards come one by one.
    pub fn grows(&self) -> bool {
        self.header.grows
    }

    /// How many of its slots have cards.
    #[inline]
    pub fn filled(&self) -> u32 {
        // Acquire pairs with the Release of `grow_to`: what is in these slots is there.
        self.filled.load(Ordering::Acquire)
    }

    /// Slots before `cards` are written for good: the log says so. More than there are slots: panics.
    pub fn grow_to(&self, cards: u32) {
        assert!(cards <= self.cards() && self.grows());
        self.filled.fetch_max(cards, Ordering::Release);
    }

    /// The size class of its slots.
    pub fn class_bytes(&self) -> u32 {
        self.header.layout.class_bytes
    }

    /// Everything the header says.
    pub fn header(&self) -> &SlabHeader {
        &self.header
    }

    /// SHA-256 of the header: what binds the file into the log.
    pub fn header_hash(&self) -> [u8; 32] {
        self.header_hash
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One bit a slot, 1 = taken. Private to this process and zero after opening.
    #[inline]
    pub fn claim_words(&self) -> &[AtomicU64] {
        self.mapped.claim_words()
    }

    /// Appends the secret of `slot` to `out`: see [`SlabOpener::open`].
    #[inline]
    pub fn open_secret(&self, slot: u32, out: &mut BytesMut) -> Result<usize, SealError> {
        match self.sealed_slot(slot) {
            Some(sealed) => self.opener.open(slot, sealed, out),
            None => Err(SealError::NoSuchSlot {
                slab: self.id(),
                slot,
                cards: self.cards(),
            }),
        }
    }

    /// Begins to fetch a sealed slot from memory, for an `open_secret` that comes soon.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        self.mapped
            .prefetch(self.sealed.start + slot as usize * self.header.layout.slot_bytes());
    }

    #[inline]
    fn sealed_slot(&self, slot: u32) -> Option<&[u8]> {
        if slot >= self.filled() {
            return None;
        }
        let slot_bytes = self.header.layout.slot_bytes();
        let first = self.sealed.start + slot as usize * slot_bytes;
        Some(self.mapped.bytes(first..first + slot_bytes))
    }

    /// When the card of `slot` expires, in Unix seconds; 0 = never. `slot` is below [`Slab::filled`], or this panics.
    #[inline]
    pub fn expires_at_s(&self, slot: u32) -> u64 {
        self.slots()[slot as usize].expires_at_s.get()
    }

    /// When the first of its cards expires, in Unix seconds; 0 = none does. Of a slab whose header does not say so its slot
    /// table is read.
    pub fn expires_from_s(&self) -> u64 {
        match self.header.expires_from_s {
            Some(expires_from_s) => expires_from_s,
            None => self.first_expiry_s(),
        }
    }

    fn first_expiry_s(&self) -> u64 {
        let expiries = self.slots().iter().map(|slot| slot.expires_at_s.get());
        expiries.filter(|&expires| expires != 0).min().unwrap_or(0)
    }

    /// The slot table's entry. An error tells a damaged table, or a slot the slab does not have.
    pub fn entry(&self, slot: u32) -> Result<SlotEntry<'_>, SlabError> {
        let damaged = || SlabError::EntryDamaged {
            path: self.path.clone(),
            slot,
        };
        let raw = self.slots().get(slot as usize).ok_or_else(damaged)?;
        let first = raw.label_offset.get() as usize;
        let end = first + usize::from(raw.label_bytes.get());
        let label = self
            .section(Section::Labels)
            .get(first..end)
            .ok_or_else(damaged)?;
        let amount = |raw: i64| (raw != AMOUNT_NONE).then_some(raw);
        Ok(SlotEntry {
            expires_at_s: raw.expires_at_s.get(),
            premium_e4: amount(raw.premium_e4.get()),
            cost_e4: amount(raw.cost_e4.get()),
            label: std::str::from_utf8(label).map_err(|_| damaged())?,
        })
    }

    /// The slot that holds the secret of this fingerprint, sold or not.
    pub fn find(&self, fingerprint: Fingerprint) -> Option<u32> {
        let all = self.fingerprints();
        if !self.grows() {
            return prints::find(all, fingerprint);
        }
        let found = all.iter().find(|entry| entry.fingerprint == fingerprint.0);
        found.map(|entry| entry.slot.get())
    }

    /// All fingerprints, sorted; of a slab that grows in the order of the slots.
    pub fn fingerprints(&self) -> &[PrintEntry] {
        <[PrintEntry]>::ref_from_bytes(self.section(Section::Prints))
            .expect("the layout makes it a whole number of entries")
    }

    fn slots(&self) -> &[SlotEntryRaw] {
        <[SlotEntryRaw]>::ref_from_bytes(self.section(Section::Slots))
            .expect("the layout makes it a whole number of entries")
    }

    /// What is filled of a section.
    fn section(&self, section: Section) -> &[u8] {
        let layout = &self.header.layout;
        let range = layout.part(section, self.filled());
        self.mapped.bytes(in_memory(range))
    }

    /// As [`verify_sections`](Self::verify_sections), of a slab that grows: what the log says of it is compared with what is
    /// filled.
    pub fn verify_grown(&self, grown: &Grown) -> Result<(), SlabError> {
        let [slots, sealed, prints] = grown.crcs;
        self.verify(&SectionCrcs {
            slots,
            sealed,
            prints,
            labels: 0,
        })
    }

    /// Reads the whole file and compares every section with its checksum; claim words and gaps must be zero.
    pub fn verify_sections(&self) -> Result<(), SlabError> {
        self.verify(&self.header.crcs)
    }

    fn verify(&self, crcs: &SectionCrcs) -> Result<(), SlabError> {
        let mut gap_begin = HEADER_BYTES as u64;
        for section in Section::ALL {
            let range = self.header.layout.section(section);
            self.verify_zero("gap before", section, gap_begin..range.start)?;
            gap_begin = range.end;
            match section {
                Section::Claims => self.verify_zero("file's", section, range)?,
                Section::Slots => {
                    self.verify_crc(section, crcs.slots)?;
                    self.verify_expiry()?;
                }
                Section::Sealed => self.verify_crc(section, crcs.sealed)?,
                Section::Prints => self.verify_crc(section, crcs.prints)?,
                Section::Labels => self.verify_crc(section, crcs.labels)?,
            }
        }
        self.verify_zero(
            "gap after",
            Section::Labels,
            gap_begin..self.header.layout.file_bytes,
        )
    }

    /// A header that told too late a time would let expired cards be dealt.
    fn verify_expiry(&self) -> Result<(), SlabError> {
        let (told, found) = (self.expires_from_s(), self.first_expiry_s());
        if told == found {
            return Ok(());
        }
        let path = self.path.clone();
        Err(SlabError::ExpiryDiffers { path, told, found })
    }

    /// Compares the fingerprints with their checksum: before an import relies on them to find duplicates.
    pub fn verify_prints(&self) -> Result<(), SlabError> {
        self.verify_crc(Section::Prints, self.header.crcs.prints)
    }

    /// As [`verify_prints`](Self::verify_prints), of a slab that grows.
    pub fn verify_grown_prints(&self, grown: &Grown) -> Result<(), SlabError> {
        self.verify_crc(Section::Prints, grown.crcs[2])
    }

    fn verify_crc(&self, section: Section, expected: u32) -> Result<(), SlabError> {
        let range = self.header.layout.part(section, self.filled());
        let found = crc32c(self.section(section));
        if found == expected {
            return Ok(());
        }
        let path = self.path.clone();
        Err(SlabError::SectionDamaged {
            path,
            section: section.name(),
            range,
            found,
            expected,
        })
    }

    fn verify_zero(
        &self,
        place: &'static str,
        section: Section,
        range: Range<u64>,
    ) -> Result<(), SlabError> {
        let bytes = self.mapped.bytes(in_memory(range.clone()));
        let is_trusted = planted::is(Bug::TrustMappedBits) && section == Section::Claims;
        match bytes.iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(_) if is_trusted => Ok(()),
            Some(at) => {
                let (path, offset) = (self.path.clone(), range.start + at as u64);
                Err(SlabError::NotZero {
                    path,
                    place,
                    section: section.name(),
                    offset,
                })
            }
        }
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Slab({}, {} cards, {})",
            self.id(),
            self.cards(),
            self.path.display()
        )
    }
}

/// Offsets of a file that is mapped fit the address space.
fn in_memory(range: Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// Read before the file is mapped: only a right header says how long the file has to be.
fn read_header(file: &File, path: &Path) -> Result<(SlabHeader, [u8; 32]), SlabError> {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; HEADER_BYTES];
    let mut filled = 0;
    while filled < HEADER_BYTES {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(IoFault::at("read", path)(error).into()),
        }
    }
    let header = SlabHeader::parse(&bytes[..filled]).map_err(|fault| SlabError::Header {
        path: path.to_owned(),
        fault,
    })?;
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
    Ok((header, hash))
}

/// Why a slab cannot be used. Each says which file, where in it and what to do.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum SlabError {
    #[error("slab {}: {fault}; restore it from a copy", path.display())]
    Header { path: PathBuf, fault: HeaderFault },
    #[error(
        "slab {}: {found} bytes long, its header says {expected}: it was cut off or added to; restore it from a copy",
        path.display()
    )]
    WrongLength {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error("slab {}: offset 16: it belongs to another store; put it back where it came from", path.display())]
    OtherStore { path: PathBuf },
    #[error("slab {}: it is slab {slab}, which is called {}: it was renamed; give it its name back", path.display(), slab_file_name(*slab))]
    WrongName { path: PathBuf, slab: u32 },
    #[error(
        "slab {}: it is slab {found} with another header than the one the log recorded for slab {expected}; restore the slab that belongs to this log",
        path.display()
    )]
    NotTheLogs {
        path: PathBuf,
        expected: u32,
        found: u32,
    },
    #[error("slab {}: offset 152: its key does not unwrap: wrong key file or damage; check --key-file", path.display())]
    WrongKey { path: PathBuf },
    #[error(
        "slab {}: offset {}: the {section} up to {} give checksum {found:#010x}, recorded is {expected:#010x}; restore it from a copy",
        path.display(), range.start, range.end
    )]
    SectionDamaged {
        path: PathBuf,
        section: &'static str,
        range: Range<u64>,
        found: u32,
        expected: u32,
    },
    #[error("slab {}: offset {offset}: the {place} {section} is not zero; restore it from a copy", path.display())]
    NotZero {
        path: PathBuf,
        place: &'static str,
        section: &'static str,
        offset: u64,
    },
    #[error(
        "slab {}: offset 212: the first card expires at {told} by the header and at {found} by the slot table; restore it from a copy",
        path.display()
    )]
    ExpiryDiffers {
        path: PathBuf,
        told: u64,
        found: u64,
    },
    #[error("slab {}: slot {slot}: no such entry, or a damaged one; run `croupier wal verify`", path.display())]
    EntryDamaged { path: PathBuf, slot: u32 },
    #[error(transparent)]
    Io(#[from] IoFault),
}

#[cfg(test)]
mod tests;
