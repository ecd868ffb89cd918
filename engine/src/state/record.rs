//! Records: the facts of the log, as docs/wal-format.md draws them. Pure: words in, words out.
//!
//! Records are built as `u64` words because that is what the ring moves; on disk they are little-endian bytes.

use croupier_protocol::{ChannelCause, DealOrder, HOLDER_CARDS_MAX_LIMIT, HOLDER_WINDOW_MS_MAX};

use super::canary::CanaryFact;
use super::channels::Standing;
use super::reused::Reused;
use crate::card::{CardStatus, Cause};
use crate::slab::Added;

mod read;

pub use read::{Placed, are_orders, decode, records};
use read::{u16_at, u32_at, unknown_flags};

/// Bytes of a unit, the grain of LSNs.
pub const RECORD_UNIT_BYTES: usize = 64;
const UNIT_WORDS: usize = RECORD_UNIT_BYTES / 8;

/// Cards of one order that lie side by side in one slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub slab: u32,
    pub slot: u32,
    pub count: u32,
    pub generation: u16,
}

/// Runs of an order: given as they are by a dealer, or as bytes by a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs<'a> {
    Given(&'a [Run]),
    Read(&'a [u8]),
}

const RUN_BYTES: usize = 16;

impl<'a> Runs<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Runs::Given(runs) => runs.len(),
            Runs::Read(bytes) => bytes.len() / RUN_BYTES,
        }
    }

    /// An order always has at least one; a damaged one may not.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after the other, in the order they were dealt.
    pub fn iter(self) -> impl Iterator<Item = Run> + 'a {
        (0..self.len()).map(move |index| match self {
            Runs::Given(runs) => runs[index],
            Runs::Read(bytes) => {
                let run = &bytes[index * RUN_BYTES..][..RUN_BYTES];
                Run {
                    slab: u32_at(run, 0),
                    slot: u32_at(run, 4),
                    count: u32_at(run, 8),
                    generation: u16_at(run, 12),
                }
            }
        })
    }
}

/// How an order came to its cards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// At once.
    #[default]
    Issue = 0,
    /// From its hold.
    Commit = 1,
    /// When its hold had expired.
    LateCommit = 2,
    /// At once, when it had waited for stock.
    Filled = 3,
    /// At once, fewer than it asked for.
    Part = 4,
}

impl TryFrom<u8> for Way {
    type Error = String;

    fn try_from(flags: u8) -> Result<Way, String> {
        match flags {
            0 => Ok(Way::Issue),
            1 => Ok(Way::Commit),
            2 => Ok(Way::LateCommit),
            3 => Ok(Way::Filled),
            4 => Ok(Way::Part),
            _ => Err(unknown_flags(flags)),
        }
    }
}

/// Which cards went to which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued<'a> {
    pub order_id: u128,
    /// For whom it is; 0: nobody is named.
    pub holder: u128,
    pub sku: u32,
    /// Who asked; 0 until there are identities.
    pub principal: u32,
    pub quantity: u16,
    pub priority: u8,
    pub lane: u8,
    pub way: Way,
    /// How many cards fewer than it held, or asked for.
    pub fewer: u16,
    pub runs: Runs<'a>,
}

impl<'a> Issued<'a> {
    /// Its cards, slab and slot, in the order they were dealt.
    pub fn cards(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.runs
            .iter()
            .flat_map(|run| (run.slot..run.slot + run.count).map(move |slot| (run.slab, slot)))
    }
}

/// Most pools that a hold has credits from.
pub const HOLD_POOLS_MAX: usize = 4;

/// Credits of a hold by pool: index in the SKU, and how many. Behind the last there are zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credits(pub [(u16, u16); HOLD_POOLS_MAX]);

impl Credits {
    /// Pools and their credits, in the order they were taken.
    pub fn iter(self) -> impl Iterator<Item = (u16, u16)> {
        self.0.into_iter().filter(|(_, credits)| *credits > 0)
    }

    /// All credits.
    pub fn sum(self) -> u64 {
        self.iter().map(|(_, credits)| u64::from(credits)).sum()
    }

    pub(super) fn words(self) -> [u64; 2] {
        let [a, b, c, d] = self
            .0
            .map(|(pool, credits)| u64::from(pool) | u64::from(credits) << 16);
        [a | b << 32, c | d << 32]
    }

    pub(super) fn from_words([first, second]: [u64; 2]) -> Credits {
        let part = |word: u64| (word as u16, (word >> 16) as u16);
        Credits([
            part(first),
            part(first >> 32),
            part(second),
            part(second >> 32),
        ])
    }
}

/// Cards put by for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    pub order_id: u128,
    /// For whom it is; 0: nobody is named.
    pub holder: u128,
    pub sku: u32,
    /// Who asked; 0 until there are identities.
    pub principal: u32,
    pub quantity: u16,
    pub priority: u8,
    pub lane: u8,
    /// From the record's time on, in milliseconds.
    pub ttl_ms: u32,
    /// It had waited for stock.
    pub filled: bool,
    /// How many cards fewer than it asked for.
    pub fewer: u16,
    /// From one pool less than others if there are fewer.
    pub credits: Credits,
    /// Slab and slot, if it is bound: then it has one credit, of that card's pool.
    pub card: Option<(u32, u32)>,
}

/// An order that waits for stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backordered {
    pub order_id: u128,
    /// For whom it is; 0: nobody is named.
    pub holder: u128,
    pub sku: u32,
    /// Who asked; 0 until there are identities.
    pub principal: u32,
    pub quantity: u16,
    pub priority: u8,
    pub lane: u8,
    /// Of the hold that it is to become; 0: it is to be issued.
    pub ttl_ms: u32,
    /// When it waits no longer.
    pub ends_unix_ms: u64,
    /// What route tables can tell it by; 0: nothing.
    pub tag: u16,
}

/// How an order that no channel could fill yet has fared: docs/channels.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Attempts that have failed.
    pub attempts: u16,
    /// Number of a [`RetryCause`](croupier_protocol::RetryCause): why the last one has; 0: none has.
    pub cause: u8,
    /// No channel is asked any more.
    pub is_buried: bool,
    /// When the next attempt is made; 0: at once, or never.
    pub again_unix_ms: u64,
}

impl Tried {
    /// In the place of the credits that the order does not have yet.
    pub(in crate::state) fn words(self) -> [u64; 2] {
        let first = u64::from(self.attempts)
            | u64::from(self.cause) << 16
            | u64::from(self.is_buried) << 24;
        [first, self.again_unix_ms]
    }

    pub(in crate::state) fn of_words([first, again_unix_ms]: [u64; 2]) -> Tried {
        Tried {
            attempts: first as u16,
            cause: (first >> 16) as u8,
            is_buried: first >> 24 & 1 != 0,
            again_unix_ms,
        }
    }
}

/// An order that waits was tried in vain by channels, or is to be tried again: docs/channels.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retried {
    pub order_id: u128,
    pub sku: u32,
    /// Who asked; 0: the dispatcher.
    pub principal: u32,
    /// How it stands from now on.
    pub tried: Tried,
}

/// More time for a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    pub order_id: u128,
    pub sku: u32,
    pub principal: u32,
    /// Which extension of the hold this is, from 1.
    pub nth: u16,
    /// From the record's time on, in milliseconds.
    pub ttl_ms: u32,
}

/// Why a hold has ended without cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Release {
    Cancelled = 1,
    Expired = 2,
}

/// A hold, or a wait for stock, that has ended without cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    pub order_id: u128,
    /// For whom it is; 0: nobody is named.
    pub holder: u128,
    pub sku: u32,
    pub principal: u32,
    /// Cards that were held, or waited for.
    pub quantity: u16,
    pub why: Release,
    /// It was to be issued, and has waited in vain: only issues repeat it.
    pub was_issue: bool,
}

/// What an order has ended as: what order files keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<'a> {
    Issued(Issued<'a>),
    Released(Released),
}

impl<'a> Ended<'a> {
    /// For whom it was; 0: nobody is named.
    pub fn holder(&self) -> u128 {
        match self {
            Ended::Issued(issued) => issued.holder,
            Ended::Released(released) => released.holder,
        }
    }

    /// The end that a fact tells, if it tells one.
    pub fn of(fact: &Fact<'a>) -> Option<Ended<'a>> {
        match fact {
            Fact::Issued(issued) => Some(Ended::Issued(*issued)),
            Fact::Released(released) => Some(Ended::Released(*released)),
            _ => None,
        }
    }

    pub fn order_id(&self) -> u128 {
        match self {
            Ended::Issued(issued) => issued.order_id,
            Ended::Released(released) => released.order_id,
        }
    }
}

/// Cards that go from one status to another, all of one SKU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved<'a> {
    pub sku: u32,
    pub from: CardStatus,
    pub to: CardStatus,
    pub cause: Cause,
    pub runs: Runs<'a>,
}

/// How many cards of a SKU a holder may get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cap {
    /// Most cards; 0: as many as there are.
    pub cards_max: u32,
    /// Within any time of this length, in milliseconds.
    pub window_ms: u64,
}

impl Cap {
    /// Whether it can be meant.
    fn check(self) -> Result<(), String> {
        let Cap {
            cards_max,
            window_ms,
        } = self;
        let needs_window = cards_max > 0 && window_ms == 0;
        if cards_max > HOLDER_CARDS_MAX_LIMIT || window_ms > HOLDER_WINDOW_MS_MAX || needs_window {
            return Err(format!("{cards_max} cards of a holder in {window_ms} ms"));
        }
        Ok(())
    }
}

/// How a SKU is sold from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkuSet {
    pub sku: u32,
    pub deal_order: DealOrder,
    /// How much of what is free and held may be held at once, in per cent; 100: all of it.
    pub hold_share_max_percent: u8,
    pub cap: Cap,
}

impl SkuSet {
    /// How a SKU is sold of which nothing else was said.
    pub fn default_of(sku: u32) -> SkuSet {
        SkuSet {
            sku,
            deal_order: DealOrder::Fifo,
            hold_share_max_percent: 100,
            cap: Cap::default(),
        }
    }

    /// From the numbers of a record or a checkpoint.
    pub fn of_numbers(sku: u32, deal_order: u16, percent: u16, cap: Cap) -> Result<SkuSet, String> {
        let deal_order = DealOrder::try_from(deal_order).map_err(|_| {
            format!(
                "deal order {deal_order}, which this version does not know: use a newer croupier"
            )
        })?;
        if percent > 100 {
            return Err(format!("{percent} per cent of a SKU's cards"));
        }
        cap.check()?;
        Ok(SkuSet {
            sku,
            deal_order,
            hold_share_max_percent: percent as u8,
            cap,
        })
    }
}

/// What is common to all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub unix_ms: u64,
    /// Version of the route table in force.
    pub route_table: u32,
}

/// One fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    Started {
        epoch: u64,
        version: &'a str,
    },
    SkuCreated {
        sku: u32,
        name: &'a str,
    },
    SkuSet(SkuSet),
    SlabAdded {
        slab: u32,
        sku: u32,
        batch: u32,
        pool: u16,
        cards: u32,
        class_bytes: u32,
        header_hash: [u8; 32],
        /// It has no cards yet, but room for so many.
        grows: bool,
    },
    BatchSealed {
        batch: u32,
        sku: u32,
        pool: u16,
        cards: u64,
        slabs: u32,
        label: &'a str,
        pool_name: &'a str,
    },
    SlabReused(Reused),
    Issued(Issued<'a>),
    Reserved(Reserved),
    Extended(Extended),
    Released(Released),
    Backordered(Backordered),
    Retried(Retried),
    CardsMoved(Moved<'a>),
    CardsAdded(Added),
    RoutesLoaded {
        version: u32,
        toml: &'a str,
    },
    /// How a channel that is outside stands from now on.
    ChannelChanged {
        name: &'a str,
        standing: Standing,
        cause: ChannelCause,
        ejections: u16,
    },
    Canary(CanaryFact<'a>),
}

/// A fact with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub stamp: Stamp,
    pub fact: Fact<'a>,
}

const KIND_STARTED: u8 = 1;
const KIND_SKU_CREATED: u8 = 2;
const KIND_SLAB_ADDED: u8 = 3;
const KIND_BATCH_SEALED: u8 = 4;
const KIND_ISSUED: u8 = 5;
const KIND_ROUTES_LOADED: u8 = 6;
const KIND_CARDS_MOVED: u8 = 7;
const KIND_RESERVED: u8 = 8;
const KIND_EXTENDED: u8 = 9;
const KIND_RELEASED: u8 = 10;
const KIND_BACKORDERED: u8 = 11;
const KIND_SKU_SET: u8 = 12;
const KIND_SLAB_REUSED: u8 = 13;
const KIND_CARDS_ADDED: u8 = 14;
const KIND_RETRIED: u8 = 15;
const KIND_CHANNEL_CHANGED: u8 = 16;
const KIND_CANARY: u8 = 17;

/// Flag of a SlabAdded record: the slab grows.
const FLAG_GROWS: u8 = 1;

/// Flag of a SlabReused record: the card is dealt without end.
const FLAG_UNLIMITED: u8 = 1;
/// Flag of a Reserved record: the order had waited for stock.
const FLAG_FILLED: u8 = 1;
/// Flag of a Reserved record: the order got fewer cards than it asked for.
const FLAG_PART: u8 = 2;
/// Flag of a Reserved record: the order holds one card, and the record says which.
const FLAG_BOUND: u8 = 4;
/// Flag of a Released record: the order was to be issued.
const FLAG_WAS_ISSUE: u8 = 1;
/// Flag of a Retried record: the order is buried.
const FLAG_BURIED: u8 = 1;
/// Flag of a Backordered record: the order has a tag.
const FLAG_TAG: u8 = 1;

/// Flag of every record that names a holder, or says what holders may get.
const FLAG_HOLDER: u8 = 0x80;

/// Most cards of one order that a record can tell.
pub const QUANTITY_LIMIT: u16 = 4000;

/// Runs that the key of a holder takes the place of.
pub const fn key_runs(holder: u128) -> usize {
    if holder == 0 { 0 } else { 1 }
}

/// Units of a record about an order that names no cards.
pub const fn about_units(holder: u128) -> usize {
    1 + key_runs(holder)
}

/// Units of an Issued record with `runs` runs, the key of a holder counted as one.
pub const fn issued_units(runs: usize) -> usize {
    if runs <= 1 {
        1
    } else {
        1 + (runs - 1).div_ceil(RECORD_UNIT_BYTES / RUN_BYTES)
    }
}

/// Bytes of a CardsMoved record before its runs.
const MOVED_HEAD_BYTES: usize = 32;

/// Most runs of a CardsMoved record of at most `units` units.
pub const fn moved_runs_max(units: u64) -> usize {
    (units as usize * RECORD_UNIT_BYTES - MOVED_HEAD_BYTES) / RUN_BYTES
}

/// Units of a CardsMoved record with `runs` runs.
pub const fn moved_units(runs: usize) -> usize {
    (MOVED_HEAD_BYTES + runs * RUN_BYTES).div_ceil(RECORD_UNIT_BYTES)
}

fn head_word(kind: u8, units: usize, route_table: u32) -> u64 {
    u64::from(kind) | (units as u64) << 16 | u64::from(route_table) << 32
}

/// Appends an Issued record to `out`; returns its units. The hot one: no bytes in between.
pub fn put_issued(out: &mut Vec<u64>, stamp: Stamp, issued: &Issued<'_>) -> usize {
    let runs = issued.runs.len();
    let units = issued_units(runs + key_runs(issued.holder));
    let flags = issued.way as u8 | flag_of(issued.holder);
    let [id_high, id_low] = id_words(issued.order_id);
    let begin = out.len();
    out.extend_from_slice(&[
        head_word(KIND_ISSUED, units, stamp.route_table) | u64::from(flags) << 8,
        stamp.unix_ms,
        id_high,
        id_low,
        u64::from(issued.sku) | u64::from(issued.principal) << 32,
        u64::from(issued.quantity)
            | (runs as u64) << 16
            | u64::from(issued.priority) << 32
            | u64::from(issued.lane) << 40
            | u64::from(issued.fewer) << 48,
    ]);
    if issued.holder != 0 {
        out.extend_from_slice(&id_words(issued.holder));
    }
    for run in issued.runs.iter() {
        out.push(u64::from(run.slab) | u64::from(run.slot) << 32);
        out.push(u64::from(run.count) | u64::from(run.generation) << 32);
    }
    out.resize(begin + units * UNIT_WORDS, 0);
    units
}

fn flag_of(holder: u128) -> u8 {
    if holder == 0 { 0 } else { FLAG_HOLDER }
}

/// An id as it lies in a record: in text order.
fn id_words(id: u128) -> [u64; 2] {
    [((id >> 64) as u64).swap_bytes(), (id as u64).swap_bytes()]
}

/// Whose a record is.
struct About {
    id: u128,
    holder: u128,
    sku: u32,
    principal: u32,
}

/// Appends a record about an order that names no cards: what comes behind the SKU. Returns its units.
fn put_about(
    out: &mut Vec<u64>,
    (kind, flags): (u8, u8),
    stamp: Stamp,
    about: About,
    rest: [u64; 3],
) -> usize {
    let units = about_units(about.holder);
    let flags = flags | flag_of(about.holder);
    let [id_high, id_low] = id_words(about.id);
    let head = head_word(kind, units, stamp.route_table) | u64::from(flags) << 8;
    let sku = u64::from(about.sku) | u64::from(about.principal) << 32;
    out.extend_from_slice(&[head, stamp.unix_ms, id_high, id_low, sku]);
    out.extend_from_slice(&rest);
    if about.holder != 0 {
        let [key_high, key_low] = id_words(about.holder);
        out.extend_from_slice(&[key_high, key_low, 0, 0, 0, 0, 0, 0]);
    }
    units
}

/// Appends a Reserved record to `out`; returns its units.
pub fn put_reserved(out: &mut Vec<u64>, stamp: Stamp, reserved: &Reserved) -> usize {
    let what = u64::from(reserved.quantity)
        | u64::from(reserved.priority) << 16
        | u64::from(reserved.lane) << 24
        | u64::from(reserved.ttl_ms) << 32;
    let [first, mut second] = reserved.credits.words();
    let mut flags = if reserved.filled { FLAG_FILLED } else { 0 };
    if reserved.fewer > 0 {
        flags |= FLAG_PART;
        assert_eq!(second >> 32, 0, "that place is for the number");
        second |= u64::from(reserved.fewer) << 48;
    }
    if let Some((slab, slot)) = reserved.card {
        flags |= FLAG_BOUND;
        assert_eq!(second, 0, "that place is for the card");
        second = u64::from(slab) | u64::from(slot) << 32;
    }
    let about = About {
        id: reserved.order_id,
        holder: reserved.holder,
        sku: reserved.sku,
        principal: reserved.principal,
    };
    let kind = (KIND_RESERVED, flags);
    put_about(out, kind, stamp, about, [what, first, second])
}

/// Appends a Backordered record to `out`; returns its units.
pub fn put_backordered(out: &mut Vec<u64>, stamp: Stamp, backordered: &Backordered) -> usize {
    let what = u64::from(backordered.quantity)
        | u64::from(backordered.priority) << 16
        | u64::from(backordered.lane) << 24
        | u64::from(backordered.ttl_ms) << 32;
    let about = About {
        id: backordered.order_id,
        holder: backordered.holder,
        sku: backordered.sku,
        principal: backordered.principal,
    };
    let tag = backordered.tag;
    let rest = [what, backordered.ends_unix_ms, tag.into()];
    let flags = if tag == 0 { 0 } else { FLAG_TAG };
    put_about(out, (KIND_BACKORDERED, flags), stamp, about, rest)
}

/// Appends a Retried record to `out`; returns its units.
pub fn put_retried(out: &mut Vec<u64>, stamp: Stamp, retried: &Retried) -> usize {
    let tried = retried.tried;
    let about = About {
        id: retried.order_id,
        holder: 0,
        sku: retried.sku,
        principal: retried.principal,
    };
    let what = u64::from(tried.attempts) | u64::from(tried.cause) << 16;
    let flags = if tried.is_buried { FLAG_BURIED } else { 0 };
    let rest = [what, tried.again_unix_ms, 0];
    put_about(out, (KIND_RETRIED, flags), stamp, about, rest)
}

/// Appends an Extended record to `out`; returns its units.
pub fn put_extended(out: &mut Vec<u64>, stamp: Stamp, extended: &Extended) -> usize {
    let what = u64::from(extended.nth) | u64::from(extended.ttl_ms) << 32;
    let about = About {
        id: extended.order_id,
        holder: 0,
        sku: extended.sku,
        principal: extended.principal,
    };
    put_about(out, (KIND_EXTENDED, 0), stamp, about, [what, 0, 0])
}

/// Appends a Released record to `out`; returns its units.
pub fn put_released(out: &mut Vec<u64>, stamp: Stamp, released: &Released) -> usize {
    let what = u64::from(released.quantity) | (released.why as u64) << 16;
    let about = About {
        id: released.order_id,
        holder: released.holder,
        sku: released.sku,
        principal: released.principal,
    };
    let flags = if released.was_issue {
        FLAG_WAS_ISSUE
    } else {
        0
    };
    put_about(out, (KIND_RELEASED, flags), stamp, about, [what, 0, 0])
}

fn put_canary(body: &mut Vec<u8>, canary: &CanaryFact<'_>) {
    let step = &canary.step;
    body.extend_from_slice(&canary.version.to_le_bytes());
    let (deed, reason) = (step.deed.as_u16() as u8, step.reason.as_u16() as u8);
    body.extend_from_slice(&[deed, reason, step.share, 0]);
    for figures in &step.groups {
        for word in figures.words() {
            body.extend_from_slice(&word.to_le_bytes());
        }
    }
    body.extend_from_slice(&[0; 8]);
    if let Some((settings, toml)) = &canary.start {
        for word in settings.words(toml.len() as u32) {
            body.extend_from_slice(&word.to_le_bytes());
        }
        body.extend_from_slice(toml.as_bytes());
    }
}

impl Record<'_> {
    /// Appends the record to `out` as words; returns its units.
    pub fn put(&self, out: &mut Vec<u64>) -> usize {
        match &self.fact {
            Fact::Issued(issued) => return put_issued(out, self.stamp, issued),
            Fact::Reserved(reserved) => return put_reserved(out, self.stamp, reserved),
            Fact::Extended(extended) => return put_extended(out, self.stamp, extended),
            Fact::Released(released) => return put_released(out, self.stamp, released),
            Fact::Backordered(waits) => return put_backordered(out, self.stamp, waits),
            Fact::Retried(retried) => return put_retried(out, self.stamp, retried),
            _ => {}
        }
        let mut body: Vec<u8> = Vec::with_capacity(RECORD_UNIT_BYTES);
        let kind = self.put_body(&mut body);
        let units = (16 + body.len()).div_ceil(RECORD_UNIT_BYTES);
        body.resize(units * RECORD_UNIT_BYTES - 16, 0);
        let flags = match &self.fact {
            Fact::SkuSet(set) if set.cap != Cap::default() => FLAG_HOLDER,
            Fact::SlabReused(reused) if reused.view.unlimited => FLAG_UNLIMITED,
            Fact::SlabAdded { grows: true, .. } => FLAG_GROWS,
            _ => 0,
        };
        let head = head_word(kind, units, self.stamp.route_table);
        out.push(head | u64::from(flags) << 8);
        out.push(self.stamp.unix_ms);
        out.extend(
            body.chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes"))),
        );
        units
    }

    fn put_body(&self, body: &mut Vec<u8>) -> u8 {
        match self.fact {
            Fact::Started { epoch, version } => {
                body.extend_from_slice(&epoch.to_le_bytes());
                body.extend_from_slice(&version.as_bytes()[..version.len().min(40)]);
                KIND_STARTED
            }
            Fact::SkuCreated { sku, name } => {
                body.extend_from_slice(&sku.to_le_bytes());
                body.extend_from_slice(&(name.len() as u16).to_le_bytes());
                body.extend_from_slice(&[0; 2]);
                body.extend_from_slice(name.as_bytes());
                KIND_SKU_CREATED
            }
            Fact::SkuSet(set) => {
                body.extend_from_slice(&set.sku.to_le_bytes());
                body.extend_from_slice(&set.deal_order.as_u16().to_le_bytes());
                body.extend_from_slice(&u16::from(set.hold_share_max_percent).to_le_bytes());
                body.extend_from_slice(&u64::from(set.cap.cards_max).to_le_bytes());
                body.extend_from_slice(&set.cap.window_ms.to_le_bytes());
                KIND_SKU_SET
            }
            Fact::SlabAdded {
                slab,
                sku,
                batch,
                pool,
                cards,
                class_bytes,
                header_hash,
                grows: _,
            } => {
                for word in [slab, sku, batch, u32::from(pool), cards, class_bytes] {
                    body.extend_from_slice(&word.to_le_bytes());
                }
                body.resize(48, 0);
                body.extend_from_slice(&header_hash);
                KIND_SLAB_ADDED
            }
            Fact::BatchSealed {
                batch,
                sku,
                pool,
                cards,
                slabs,
                label,
                pool_name,
            } => {
                body.extend_from_slice(&batch.to_le_bytes());
                body.extend_from_slice(&sku.to_le_bytes());
                for half in [pool, label.len() as u16, pool_name.len() as u16, 0] {
                    body.extend_from_slice(&half.to_le_bytes());
                }
                body.extend_from_slice(&cards.to_le_bytes());
                body.extend_from_slice(&slabs.to_le_bytes());
                body.extend_from_slice(&[0; 4]);
                body.extend_from_slice(label.as_bytes());
                body.extend_from_slice(pool_name.as_bytes());
                KIND_BATCH_SEALED
            }
            Fact::SlabReused(reused) => {
                for word in reused.words() {
                    body.extend_from_slice(&word.to_le_bytes());
                }
                KIND_SLAB_REUSED
            }
            Fact::CardsAdded(added) => {
                let [slots, sealed, prints] = added.crcs;
                let Added {
                    slab,
                    sku,
                    batch,
                    first,
                    cards,
                    ..
                } = added;
                for word in [slab, sku, batch, first, cards, slots, sealed, prints] {
                    body.extend_from_slice(&word.to_le_bytes());
                }
                KIND_CARDS_ADDED
            }
            Fact::RoutesLoaded { version, toml } => {
                body.extend_from_slice(&version.to_le_bytes());
                body.extend_from_slice(&(toml.len() as u32).to_le_bytes());
                body.extend_from_slice(toml.as_bytes());
                KIND_ROUTES_LOADED
            }
            Fact::ChannelChanged {
                name,
                standing,
                cause,
                ejections,
            } => {
                let number = standing.number().as_u16();
                for half in [number, cause.as_u16(), ejections, name.len() as u16] {
                    body.extend_from_slice(&half.to_le_bytes());
                }
                body.extend_from_slice(&standing.until_unix_ms().to_le_bytes());
                body.extend_from_slice(name.as_bytes());
                KIND_CHANNEL_CHANGED
            }
            Fact::Canary(canary) => {
                put_canary(body, &canary);
                KIND_CANARY
            }
            Fact::CardsMoved(moved) => {
                body.extend_from_slice(&moved.sku.to_le_bytes());
                body.extend_from_slice(&[moved.from as u8, moved.to as u8, moved.cause as u8, 0]);
                body.extend_from_slice(&(moved.runs.len() as u16).to_le_bytes());
                body.resize(MOVED_HEAD_BYTES - 16, 0);
                for run in moved.runs.iter() {
                    for word in [run.slab, run.slot, run.count, u32::from(run.generation)] {
                        body.extend_from_slice(&word.to_le_bytes());
                    }
                }
                KIND_CARDS_MOVED
            }
            Fact::Issued(_)
            | Fact::Reserved(_)
            | Fact::Extended(_)
            | Fact::Released(_)
            | Fact::Retried(_)
            | Fact::Backordered(_) => unreachable!("put as words"),
        }
    }
}

#[cfg(test)]
mod tests;
