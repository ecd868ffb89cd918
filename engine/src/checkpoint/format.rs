//! The checkpoint file: docs/checkpoint-format.md in code.

use std::io::Write as _;
use std::path::Path;

use crate::disk::Disk;
use crate::error::{EngineError, IoContext as _};
use crate::slab::Grown;
use crate::state::added::{grown_of, grown_words};
use crate::state::apply::{SkuSnapshot, Snapshot};
use crate::state::channels::{Change, Channels, Known, Standing, cause_of};
use crate::state::held::HeldFact;
use crate::state::record::{Cap, SkuSet, Tried};
use crate::state::reused::{View, views_of};
use crate::state::{Batch, Canaries, Canary, Digest, RouteTables, SlabFacts, StateSeed, TableFact};
use crate::wal::Position;
use crate::wal::format::{StoreId, crc32c};

const MAGIC: [u8; 8] = *b"CRPRCKPT";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 192;
/// Feature bit: the body ends with marks.
const FEATURE_MARKS: u64 = 1;
/// Feature bit: then orders that hold cards.
const FEATURE_HELD: u64 = 2;
/// Feature bit: some of them hold no cards and wait for stock.
const FEATURE_WAITING: u64 = 4;
/// Some of them hold fewer cards than they asked for.
const FEATURE_PARTS: u64 = 8;
/// Feature bit: at the end of the body are the settings of SKUs.
const FEATURE_SETTINGS: u64 = 16;
/// Some of them hold a card that is bound.
const FEATURE_BOUND: u64 = 32;
/// At the end of the body are what holders may get of SKUs, and the holders of orders that hold cards.
const FEATURE_HOLDERS: u64 = 64;
/// Feature bit: at the end of the body are views.
const FEATURE_VIEWS: u64 = 128;
/// Feature bit: at the end of the body are the route tables that were in force.
const FEATURE_TABLES: u64 = 256;
/// Feature bit: at the end of the body is how far slabs have grown.
const FEATURE_GROWN: u64 = 512;
/// Some orders that wait for stock have a tag.
const FEATURE_TAGS: u64 = 1024;
/// Some orders that wait for stock were tried in vain.
const FEATURE_TRIED: u64 = 2048;
/// Feature bit: at the end of the body is how channels stand.
const FEATURE_CHANNELS: u64 = 4096;
/// At the end of the body is the last canary.
const FEATURE_CANARY: u64 = 8192;
/// All that this version knows.
const FEATURES: u64 = FEATURE_MARKS
    | FEATURE_HELD
    | FEATURE_WAITING
    | FEATURE_PARTS
    | FEATURE_SETTINGS
    | FEATURE_BOUND
    | FEATURE_HOLDERS
    | FEATURE_VIEWS
    | FEATURE_TABLES
    | FEATURE_GROWN
    | FEATURE_TAGS
    | FEATURE_TRIED
    | FEATURE_CHANNELS
    | FEATURE_CANARY;

/// One file of orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFile {
    pub name: String,
    pub first_lsn: u64,
    pub end_lsn: u64,
    pub rows: u64,
    pub file_bytes: u64,
}

/// A checkpoint as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where reading the log goes on.
    pub end: Position,
    pub orders: StateSeed,
    pub digest: Digest,
    pub snapshot: Snapshot,
    pub files: Vec<OrderFile>,
    pub created_unix_ms: u64,
}

fn checkpoint_name(end_lsn: u64) -> String {
    format!("ckpt-{end_lsn:016x}.ckpt")
}

/// Whether `name` is what [`write()`] calls a checkpoint.
pub fn is_checkpoint_name(name: &str) -> bool {
    let digits = name
        .strip_prefix("ckpt-")
        .and_then(|rest| rest.strip_suffix(".ckpt"));
    digits.is_some_and(|digits| {
        digits.len() == 16
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    /// The high half first, as ids lie here.
    fn key(&mut self, key: u128) {
        self.u64((key >> 64) as u64);
        self.u64(key as u64);
    }
    fn text(&mut self, text: &str) {
        self.u16(text.len() as u16);
        self.bytes(text.as_bytes());
    }
    fn long_text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes(text.as_bytes());
    }
    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Out, &T)) {
        self.u32(items.len() as u32);
        items.iter().for_each(|item| each(self, item));
    }
    fn slab(&mut self, facts: &SlabFacts) {
        self.u32(facts.slab);
        self.u32(facts.sku);
        self.u32(facts.batch);
        self.u16(facts.pool);
        self.u32(facts.cards);
        self.u32(facts.class_bytes);
        self.bytes(&facts.header_hash);
    }
}

fn encode_body(snapshot: &Snapshot, files: &[OrderFile]) -> Vec<u8> {
    let mut out = Out::default();
    out.list(&snapshot.skus, |out, sku| {
        out.u32(sku.sku);
        out.text(&sku.name);
        out.list(&sku.pools, |out, pool| out.text(pool));
    });
    out.list(&snapshot.batches, |out, batch| {
        out.u32(batch.batch);
        out.u32(batch.sku);
        out.u16(batch.pool);
        out.u64(batch.cards);
        out.text(&batch.label);
        out.u64(batch.sealed_unix_ms);
    });
    out.list(&snapshot.slabs, |out, (facts, words)| {
        out.slab(facts);
        out.list(words, |out, word| out.u64(*word));
    });
    out.list(&snapshot.unsealed, |out, facts| out.slab(facts));
    let in_force = snapshot.routes.in_force();
    out.u32(snapshot.routes.version());
    out.long_text(in_force.map_or("", |table| &table.toml));
    out.list(files, |out, file| {
        out.text(&file.name);
        for word in [file.first_lsn, file.end_lsn, file.rows, file.file_bytes] {
            out.u64(word);
        }
    });
    // Only if there are any: without them the file is one that older versions read.
    if !snapshot.marks.is_empty() {
        out.list(&snapshot.marks, |out, (slab, status, words)| {
            out.u32(*slab);
            out.u16(*status as u16);
            out.list(words, |out, word| out.u64(*word));
        });
    }
    if !snapshot.held.is_empty() {
        out.list(&snapshot.held, |out, fact| {
            fact.words().iter().for_each(|word| out.u64(*word));
        });
    }
    let settings = settings_of(snapshot);
    if !settings.is_empty() {
        out.list(&settings, |out, set| {
            out.u32(set.sku);
            out.u16(set.deal_order.as_u16());
            out.u16(set.hold_share_max_percent.into());
        });
    }
    if has_holders(snapshot) {
        out.list(&caps_of(snapshot), |out, (sku, cap)| {
            out.u32(*sku);
            out.u32(cap.cards_max);
            out.u64(cap.window_ms);
        });
        let held = snapshot.held.iter().filter(|fact| fact.holder != 0);
        out.list(&held.collect::<Vec<_>>(), |out, fact| {
            out.key(fact.order_id);
            out.key(fact.holder);
        });
    }
    let views = views(snapshot);
    if !views.is_empty() {
        out.list(&views, |out, (slab, view)| {
            view.words(*slab).iter().for_each(|word| out.u32(*word));
        });
    }
    if !snapshot.routes.is_plain() {
        let version = snapshot.routes.version();
        out.list(snapshot.routes.kept(), |out, table| {
            out.u32(table.version);
            out.u64(table.lsn);
            out.u64(table.unix_ms);
            // The text of the one in force stands above.
            out.long_text(if table.version == version {
                ""
            } else {
                &table.toml
            });
        });
    }
    let grown = grown(snapshot);
    if !grown.is_empty() {
        out.list(&grown, |out, (slab, grown)| {
            grown_words(*slab, grown)
                .iter()
                .for_each(|word| out.u32(*word));
        });
    }
    if !snapshot.channels.is_empty() {
        let all: Vec<&Known> = snapshot.channels.kept().collect();
        out.list(&all, |out, Known { lsn, change }| {
            out.text(&change.channel);
            out.u16(change.standing.number().as_u16());
            out.u16(change.cause.as_u16());
            out.u16(change.ejections);
            out.u64(change.standing.until_unix_ms());
            out.u64(*lsn);
            out.u64(change.unix_ms);
        });
    }
    if let Some(canary) = snapshot.canaries.last() {
        canary.words().iter().for_each(|word| out.u32(*word));
        out.bytes(canary.toml.as_bytes());
    }
    out.0
}

/// Settings that are not those of a SKU of which nothing was said, but for caps.
fn settings_of(snapshot: &Snapshot) -> Vec<SkuSet> {
    let all = snapshot.settings.iter().map(|set| SkuSet {
        cap: Cap::default(),
        ..*set
    });
    all.filter(|set| *set != SkuSet::default_of(set.sku))
        .collect()
}

fn caps_of(snapshot: &Snapshot) -> Vec<(u32, Cap)> {
    let all = snapshot.settings.iter().map(|set| (set.sku, set.cap));
    all.filter(|(_, cap)| *cap != Cap::default()).collect()
}

fn has_holders(snapshot: &Snapshot) -> bool {
    let held = snapshot.held.iter().any(|fact| fact.holder != 0);
    held || !caps_of(snapshot).is_empty()
}

/// Those of sealed batches and those of others, in this order.
fn views(snapshot: &Snapshot) -> Vec<(u32, View)> {
    let sealed = snapshot.slabs.iter().map(|(facts, _)| facts);
    views_of(sealed.chain(&snapshot.unsealed)).collect()
}

/// How far slabs have grown, those of sealed batches first.
fn grown(snapshot: &Snapshot) -> Vec<(u32, Grown)> {
    let sealed = snapshot.slabs.iter().map(|(facts, _)| facts);
    grown_of(sealed.chain(&snapshot.unsealed)).collect()
}

fn features_of(snapshot: &Snapshot) -> u64 {
    let bit = |is_there: bool, feature| if is_there { feature } else { 0 };
    let waits = snapshot.held.iter().any(|fact| fact.hold.waits.is_some());
    let parts = snapshot.held.iter().any(|fact| fact.hold.fewer > 0);
    let bound = snapshot.held.iter().any(|fact| fact.hold.card.is_some());
    let waiting = snapshot.held.iter().filter_map(|fact| fact.hold.waits);
    let tags = waiting.clone().any(|waits| waits.tag != 0);
    let tried = waiting
        .into_iter()
        .any(|waits| waits.tried != Tried::default());
    bit(!snapshot.marks.is_empty(), FEATURE_MARKS)
        | bit(!snapshot.held.is_empty(), FEATURE_HELD)
        | bit(waits, FEATURE_WAITING)
        | bit(parts, FEATURE_PARTS)
        | bit(!settings_of(snapshot).is_empty(), FEATURE_SETTINGS)
        | bit(bound, FEATURE_BOUND)
        | bit(has_holders(snapshot), FEATURE_HOLDERS)
        | bit(!views(snapshot).is_empty(), FEATURE_VIEWS)
        | bit(!snapshot.routes.is_plain(), FEATURE_TABLES)
        | bit(!grown(snapshot).is_empty(), FEATURE_GROWN)
        | bit(tags, FEATURE_TAGS)
        | bit(tried, FEATURE_TRIED)
        | bit(!snapshot.channels.is_empty(), FEATURE_CHANNELS)
        | bit(snapshot.canaries.last().is_some(), FEATURE_CANARY)
}

/// Writes the checkpoint file, durable, and returns its name.
pub fn write(
    disk: &Disk,
    dir: &Path,
    store_id: StoreId,
    checkpoint: &Checkpoint,
) -> Result<String, EngineError> {
    let body = encode_body(&checkpoint.snapshot, &checkpoint.files);
    let mut head = Out::default();
    head.bytes(&MAGIC);
    head.u16(VERSION);
    head.u16(0);
    head.u32(HEADER_BYTES as u32);
    head.bytes(&store_id);
    for word in [
        checkpoint.end.lsn,
        checkpoint.snapshot.epoch.max(checkpoint.end.epoch),
        checkpoint.end.block - 1,
        checkpoint.end.seq,
        checkpoint.end.offset,
    ] {
        head.u64(word);
    }
    head.bytes(&checkpoint.end.prev_hash);
    head.u64(checkpoint.orders.orders);
    head.bytes(&checkpoint.orders.orders_sum.to_le_bytes());
    head.bytes(&checkpoint.digest.0);
    head.u64(body.len() as u64);
    head.u64(features_of(&checkpoint.snapshot));
    head.u64(checkpoint.created_unix_ms);
    head.u32(crc32c(&body));
    let crc = crc32c(&head.0);
    head.u32(crc);
    assert_eq!(
        head.0.len(),
        HEADER_BYTES,
        "docs/checkpoint-format.md: 192 bytes"
    );

    let name = checkpoint_name(checkpoint.end.lsn);
    let path = dir.join(&name);
    let written = disk.draft(dir).and_then(|mut draft| {
        draft.write_all(&head.0)?;
        draft.write_all(&body)?;
        draft.publish(&path)
    });
    written.at("write", &path)?;
    Ok(name)
}

/// A cursor over bytes that says where it ran out.
struct In<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> In<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self
            .at
            .checked_add(count)
            .filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            format!(
                "{count} bytes needed at {}, {} there",
                self.at,
                self.bytes.len() - self.at
            )
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("take gives what was asked"))
    }
    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    fn key(&mut self) -> Result<u128, String> {
        Ok(u128::from(self.u64()?) << 64 | u128::from(self.u64()?))
    }
    fn string(&mut self, bytes: usize) -> Result<String, String> {
        let text = std::str::from_utf8(self.take(bytes)?).map_err(|_| "a text is not UTF-8")?;
        Ok(text.into())
    }
    fn text(&mut self) -> Result<String, String> {
        let bytes = self.u16()?.into();
        self.string(bytes)
    }
    fn long_text(&mut self) -> Result<String, String> {
        let bytes = self.u32()? as usize;
        self.string(bytes)
    }
    fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let count = self.u32()? as usize;
        // No item is smaller than two bytes: a count beyond that is damage, not a reason to allocate.
        if count > self.bytes.len() / 2 {
            return Err(format!(
                "a list of {count} items in {} bytes",
                self.bytes.len()
            ));
        }
        (0..count).map(|_| each(self)).collect()
    }
    fn slab(&mut self) -> Result<SlabFacts, String> {
        Ok(SlabFacts {
            slab: self.u32()?,
            sku: self.u32()?,
            batch: self.u32()?,
            pool: self.u16()?,
            cards: self.u32()?,
            class_bytes: self.u32()?,
            header_hash: self.array()?,
            // Views, and how far slabs have grown, are told behind all slabs.
            view: None,
            grown: None,
        })
    }
}

fn decode_body(
    bytes: &[u8],
    epoch: u64,
    features: u64,
) -> Result<(Snapshot, Vec<OrderFile>), String> {
    let mut body = In { bytes, at: 0 };
    let skus = body.list(|body| {
        Ok(SkuSnapshot {
            sku: body.u32()?,
            name: body.text()?,
            pools: body.list(In::text)?,
        })
    })?;
    let batches = body.list(|body| {
        Ok(Batch {
            batch: body.u32()?,
            sku: body.u32()?,
            pool: body.u16()?,
            cards: body.u64()?,
            label: body.text()?,
            sealed_unix_ms: body.u64()?,
        })
    })?;
    let mut slabs = body.list(|body| {
        let facts = body.slab()?;
        let words = body.list(In::u64)?;
        if words.len() != crate::slab::claim::words_for(facts.cards) {
            return Err(format!(
                "slab {} has {} words for {} cards",
                facts.slab,
                words.len(),
                facts.cards
            ));
        }
        Ok((facts, words))
    })?;
    let mut unsealed = body.list(In::slab)?;
    let in_force = (body.u32()?, body.long_text()?);
    let files = body.list(|body| {
        Ok(OrderFile {
            name: body.text()?,
            first_lsn: body.u64()?,
            end_lsn: body.u64()?,
            rows: body.u64()?,
            file_bytes: body.u64()?,
        })
    })?;
    let marks = if features & FEATURE_MARKS == 0 {
        Vec::new()
    } else {
        body.list(|body| {
            let slab = body.u32()?;
            let status = u8::try_from(body.u16()?).map_err(|_| "a status beyond 255")?;
            Ok((slab, status.try_into()?, body.list(In::u64)?))
        })?
    };
    let mut held = if features & FEATURE_HELD == 0 {
        Vec::new()
    } else {
        body.list(|body| {
            let mut words = [0; HeldFact::WORDS];
            for word in &mut words {
                *word = body.u64()?;
            }
            Ok(HeldFact::from_words(words))
        })?
    };
    let mut settings = if features & FEATURE_SETTINGS == 0 {
        Vec::new()
    } else {
        body.list(|body| {
            let (sku, order, percent) = (body.u32()?, body.u16()?, body.u16()?);
            SkuSet::of_numbers(sku, order, percent, Cap::default())
        })?
    };
    if features & FEATURE_HOLDERS != 0 {
        decode_holders(&mut body, &mut settings, &mut held)?;
    }
    if features & FEATURE_VIEWS != 0 {
        let views = body.list(|body| {
            let mut words = [0; 6];
            for word in &mut words {
                *word = body.u32()?;
            }
            View::of_words(words)
        })?;
        let sealed = slabs.iter_mut().map(|(facts, _)| facts);
        tell_views(sealed.chain(&mut unsealed), &views)?;
    }
    let routes = decode_tables(&mut body, in_force, features & FEATURE_TABLES != 0)?;
    if features & FEATURE_GROWN != 0 {
        let grown = body.list(|body| {
            let (slab, cards) = (body.u32()?, body.u32()?);
            let crcs = [body.u32()?, body.u32()?, body.u32()?];
            Ok((slab, Grown { cards, crcs }))
        })?;
        let sealed = slabs.iter_mut().map(|(facts, _)| facts);
        tell_grown(sealed.chain(&mut unsealed), &grown)?;
    }
    let channels = match features & FEATURE_CHANNELS {
        0 => Channels::default(),
        _ => decode_channels(&mut body)?,
    };
    let canaries = if features & FEATURE_CANARY == 0 {
        Canaries::default()
    } else {
        Canaries::of_last(Canary::read(&mut body, In::u32, In::string)?)?
    };
    if body.at != bytes.len() {
        return Err(format!("{} bytes are left over", bytes.len() - body.at));
    }
    Ok((
        Snapshot {
            skus,
            batches,
            slabs,
            marks,
            settings,
            held,
            unsealed,
            routes,
            channels,
            canaries,
            epoch,
        },
        files,
    ))
}

/// Tells slabs how far they have grown. Each must be there, in the order of the list.
fn tell_grown<'f>(
    mut slabs: impl Iterator<Item = &'f mut SlabFacts>,
    all: &[(u32, Grown)],
) -> Result<(), String> {
    for (slab, grown) in all {
        let facts = slabs.find(|facts| facts.slab == *slab);
        let facts = facts.filter(|facts| facts.view.is_none() && grown.cards <= facts.cards);
        let facts = facts.ok_or_else(|| format!("slab {slab} has not grown as it says"))?;
        facts.grown = Some(*grown);
    }
    Ok(())
}

/// Reads what stands of holders, and puts it to the settings and the held orders.
fn decode_holders(
    body: &mut In<'_>,
    settings: &mut Vec<SkuSet>,
    held: &mut [HeldFact],
) -> Result<(), String> {
    let caps = body.list(|body| {
        let (sku, cards_max, window_ms) = (body.u32()?, body.u32()?, body.u64()?);
        let cap = Cap {
            cards_max,
            window_ms,
        };
        let set = SkuSet::default_of(sku);
        let (order, percent) = (set.deal_order.as_u16(), set.hold_share_max_percent.into());
        SkuSet::of_numbers(sku, order, percent, cap)
    })?;
    for set in caps {
        match settings.binary_search_by_key(&set.sku, |other| other.sku) {
            Ok(at) => settings[at].cap = set.cap,
            Err(at) => settings.insert(at, set),
        }
    }
    let holders = body.list(|body| Ok((body.key()?, body.key()?)))?;
    for (id, holder) in holders {
        let at = held.binary_search_by_key(&id, |fact| fact.order_id);
        let at = at.map_err(|_| "an order of a holder, which is not there")?;
        held[at].holder = holder;
    }
    Ok(())
}

/// How channels stand.
fn decode_channels(body: &mut In<'_>) -> Result<Channels, String> {
    let kept = body.list(|body| {
        let channel = body.text()?;
        let (standing, cause, ejections) = (body.u16()?, body.u16()?, body.u16()?);
        let (until_unix_ms, lsn, unix_ms) = (body.u64()?, body.u64()?, body.u64()?);
        let change = Change {
            channel,
            standing: Standing::of_numbers(standing, until_unix_ms)?,
            cause: cause_of(cause)?,
            ejections,
            unix_ms,
        };
        Ok(Known { lsn, change })
    })?;
    Channels::of_kept(kept)
}

/// The tables that are kept. `version` and `toml` are those of the one in force; without a list it is all that is known.
fn decode_tables(
    body: &mut In<'_>,
    (version, toml): (u32, String),
    are_listed: bool,
) -> Result<RouteTables, String> {
    let mut kept = if are_listed {
        body.list(|body| {
            Ok(TableFact {
                version: body.u32()?,
                lsn: body.u64()?,
                unix_ms: body.u64()?,
                toml: body.long_text()?.into(),
            })
        })?
    } else if version == 0 {
        Vec::new()
    } else {
        vec![TableFact {
            version,
            lsn: 0,
            unix_ms: 0,
            toml: "".into(),
        }]
    };
    match kept.last_mut() {
        Some(last) if last.version == version && last.toml.is_empty() => last.toml = toml.into(),
        None if version == 0 && toml.is_empty() => {}
        _ => return Err(format!("route table {version} is not the last one kept")),
    }
    RouteTables::of_kept(kept)
}

/// Views stand in the order of their slabs: each is told to its own.
fn tell_views<'s>(
    slabs: impl Iterator<Item = &'s mut SlabFacts>,
    views: &[(u32, View)],
) -> Result<(), String> {
    let mut views = views.iter().peekable();
    for facts in slabs {
        if let Some((_, view)) = views.next_if(|(slab, _)| *slab == facts.slab) {
            facts.view = Some(*view);
        }
    }
    match views.next() {
        Some((slab, _)) => Err(format!("view {slab} is not among the slabs")),
        None => Ok(()),
    }
}

/// Reads a checkpoint from bytes; the error says offset and reason.
pub fn decode(bytes: &[u8], store_id: StoreId) -> Result<Checkpoint, (u64, String)> {
    let head_bytes = bytes
        .get(..HEADER_BYTES)
        .ok_or((0, format!("shorter than {HEADER_BYTES} bytes")))?;
    let whole = |fault: String| (0, fault);
    let mut head = In {
        bytes: head_bytes,
        at: 0,
    };
    if head.array::<8>().map_err(whole)? != MAGIC {
        return Err((0, "not a checkpoint (wrong magic)".into()));
    }
    let stored = u32::from_le_bytes(head_bytes[HEADER_BYTES - 4..].try_into().expect("4 bytes"));
    if stored != crc32c(&head_bytes[..HEADER_BYTES - 4]) {
        return Err((
            HEADER_BYTES as u64 - 4,
            "the header's checksum is wrong".into(),
        ));
    }
    let (version, flags, header_bytes) = (
        head.u16().map_err(whole)?,
        head.u16().map_err(whole)?,
        head.u32().map_err(whole)?,
    );
    if version != VERSION || flags != 0 || header_bytes != HEADER_BYTES as u32 {
        return Err((
            8,
            format!(
                "checkpoint version {version}: this program knows version {VERSION}; use a newer croupier"
            ),
        ));
    }
    if head.array::<16>().map_err(whole)? != store_id {
        return Err((16, "the checkpoint belongs to another store".into()));
    }
    let mut parse = || -> Result<_, String> {
        let (lsn, epoch, folded) = (head.u64()?, head.u64()?, head.u64()?);
        let block = folded
            .checked_add(1)
            .ok_or("there is no block after the last one folded")?;
        let (seq, offset, prev_hash) = (head.u64()?, head.u64()?, head.array()?);
        let end = Position {
            seq,
            offset,
            block,
            lsn,
            epoch,
            prev_hash,
        };
        let orders = StateSeed {
            orders: head.u64()?,
            orders_sum: u128::from_le_bytes(head.array()?),
        };
        let (digest, body_bytes) = (Digest(head.array()?), head.u64()?);
        let (features, created_unix_ms, body_crc) = (head.u64()?, head.u64()?, head.u32()?);
        Ok((
            end,
            orders,
            digest,
            body_bytes,
            features,
            created_unix_ms,
            body_crc,
        ))
    };
    let (end, orders, digest, body_bytes, features, created_unix_ms, body_crc) =
        parse().map_err(whole)?;
    if features & !FEATURES != 0 {
        return Err((
            168,
            format!("features {features:#x} that this program does not know; use a newer croupier"),
        ));
    }
    let body = &bytes[HEADER_BYTES..];
    if body.len() as u64 != body_bytes {
        return Err((
            160,
            format!(
                "the body has {} bytes, the header says {body_bytes}",
                body.len()
            ),
        ));
    }
    if crc32c(body) != body_crc {
        return Err((HEADER_BYTES as u64, "the body's checksum is wrong".into()));
    }
    let (snapshot, files) =
        decode_body(body, end.epoch, features).map_err(|what| (HEADER_BYTES as u64, what))?;
    Ok(Checkpoint {
        end,
        orders,
        digest,
        snapshot,
        files,
        created_unix_ms,
    })
}

/// Reads and checks a checkpoint file.
pub fn read(disk: &Disk, path: &Path, store_id: StoreId) -> Result<Checkpoint, EngineError> {
    let reader = super::needed(path, disk.open_read(path))?;
    let mut bytes = vec![0; reader.bytes() as usize];
    let got = reader.read_at(0, &mut bytes).at("read", path)?;
    bytes.truncate(got);
    let checkpoint = decode(&bytes, store_id)
        .map_err(|(offset, what)| EngineError::damage(path, offset, what))?;
    if !path.ends_with(checkpoint_name(checkpoint.end.lsn)) {
        return Err(EngineError::damage(
            path,
            32,
            "it is the checkpoint of another LSN than the one in its name",
        ));
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests;
