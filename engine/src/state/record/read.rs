//! Records out of bytes: docs/wal-format.md.

use croupier_protocol::{CanaryDeed, CanaryReason, RetryCause};

use super::{
    Backordered, Cap, Credits, Extended, FLAG_BOUND, FLAG_BURIED, FLAG_FILLED, FLAG_GROWS,
    FLAG_HOLDER, FLAG_PART, FLAG_TAG, FLAG_UNLIMITED, FLAG_WAS_ISSUE, Fact, Issued,
    KIND_BACKORDERED, KIND_BATCH_SEALED, KIND_CANARY, KIND_CARDS_ADDED, KIND_CARDS_MOVED,
    KIND_CHANNEL_CHANGED, KIND_EXTENDED, KIND_ISSUED, KIND_RELEASED, KIND_RESERVED, KIND_RETRIED,
    KIND_ROUTES_LOADED, KIND_SKU_CREATED, KIND_SKU_SET, KIND_SLAB_ADDED, KIND_SLAB_REUSED,
    KIND_STARTED, MOVED_HEAD_BYTES, Moved, RECORD_UNIT_BYTES, RUN_BYTES, Record, Release, Released,
    Reserved, Retried, Runs, SkuSet, Stamp, Tried, Way, key_runs,
};
use crate::canary::Settings;
use crate::card::is_move;
use crate::slab::Added;
use crate::state::canary::{CanaryFact, Figures, Step};
use crate::state::channels::{Standing, cause_of};
use crate::state::reused::Reused;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn text(bytes: &[u8], at: usize, len: usize) -> Result<&str, String> {
    let part = bytes
        .get(at..at + len)
        .ok_or("a name reaches beyond its record")?;
    std::str::from_utf8(part).map_err(|_| "a name is not UTF-8".into())
}

pub(super) fn unknown_flags(flags: u8) -> String {
    format!("record flags {flags:#x}, which this version does not know: use a newer croupier")
}

/// Reads the record at the start of `bytes`; returns it and its bytes. The error says what is wrong.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), String> {
    if bytes.len() < RECORD_UNIT_BYTES {
        return Err("a record is cut short".into());
    }
    let len = usize::from(u16_at(bytes, 2)) * RECORD_UNIT_BYTES;
    if len == 0 || len > bytes.len() {
        return Err(format!("a record of {len} bytes in {} bytes", bytes.len()));
    }
    let whole = &bytes[..len];
    // Those of an Issued record are numbers of their own.
    let flags = match whole[0] {
        KIND_ISSUED => u8::MAX,
        KIND_RESERVED => FLAG_FILLED | FLAG_PART | FLAG_BOUND | FLAG_HOLDER,
        KIND_RELEASED => FLAG_WAS_ISSUE | FLAG_HOLDER,
        KIND_BACKORDERED => FLAG_TAG | FLAG_HOLDER,
        KIND_RETRIED => FLAG_BURIED,
        KIND_SKU_SET => FLAG_HOLDER,
        KIND_SLAB_REUSED => FLAG_UNLIMITED,
        KIND_SLAB_ADDED => FLAG_GROWS,
        _ => 0,
    };
    if whole[1] & !flags != 0 {
        return Err(unknown_flags(whole[1]));
    }
    let stamp = Stamp {
        route_table: u32_at(whole, 4),
        unix_ms: u64_at(whole, 8),
    };
    let fact = decode_fact(whole)?;
    Ok((Record { stamp, fact }, len))
}

/// Whether all records of a block's body are orders that were issued at once, as far as can be told without reading them:
/// these may be applied in any order.
pub fn are_orders(body: &[u8]) -> bool {
    let mut at = 0;
    while let Some(head) = body.get(at..at + 4) {
        let at_once = [KIND_ISSUED, Way::Issue as u8];
        if [head[0], head[1] & !FLAG_HOLDER] != at_once || u16_at(head, 2) == 0 {
            return false;
        }
        at += usize::from(u16_at(head, 2)) * RECORD_UNIT_BYTES;
    }
    true
}

/// A record in its place in a block's body.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    pub lsn: u64,
    /// Offset in the body.
    pub at: usize,
    pub bytes: &'a [u8],
    pub record: Record<'a>,
}

impl Placed<'_> {
    /// LSN of the record behind this one.
    pub fn end_lsn(&self) -> u64 {
        self.lsn + (self.bytes.len() / RECORD_UNIT_BYTES) as u64
    }
}

/// The records of a block's body, whose first has `first_lsn`. An error says at which offset and what, and is the last.
pub fn records(
    body: &[u8],
    first_lsn: u64,
) -> impl Iterator<Item = Result<Placed<'_>, (usize, String)>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= body.len() {
            return None;
        }
        let here = at;
        Some(match decode(&body[here..]) {
            Ok((record, bytes)) => {
                at += bytes;
                Ok(Placed {
                    lsn: first_lsn + (here / RECORD_UNIT_BYTES) as u64,
                    at: here,
                    bytes: &body[here..at],
                    record,
                })
            }
            Err(what) => {
                at = body.len();
                Err((here, what))
            }
        })
    })
}

fn id_of(whole: &[u8]) -> u128 {
    u128::from_be_bytes(whole[16..32].try_into().expect("16 bytes"))
}

/// The tag of a Backordered record; 0: it has none.
fn tag_of(whole: &[u8]) -> Result<u16, String> {
    match (whole[1] & FLAG_TAG != 0, u16_at(whole, TAG_AT)) {
        (false, _) => Ok(0),
        (true, 0) => Err("an order has a tag of zeros".into()),
        (true, tag) => Ok(tag),
    }
}

const TAG_AT: usize = 56;

/// The holder that a record names, if its flags say so, by its key at `at`.
fn holder_of(whole: &[u8], at: usize) -> Result<u128, String> {
    if whole[1] & FLAG_HOLDER == 0 {
        return Ok(0);
    }
    let key = whole.get(at..at + 16);
    let key = key.ok_or("a record is shorter than the key of its holder")?;
    match u128::from_be_bytes(key.try_into().expect("16 bytes")) {
        0 => Err("a record names a holder whose key is zero".into()),
        holder => Ok(holder),
    }
}

/// Where the key of a holder is, in a record that names no cards.
const KEY_AT: usize = RECORD_UNIT_BYTES;

fn decode_fact(whole: &[u8]) -> Result<Fact<'_>, String> {
    let at_least_two_units = || {
        (whole.len() >= 2 * RECORD_UNIT_BYTES)
            .then_some(())
            .ok_or("a SlabAdded is cut short")
    };
    Ok(match whole[0] {
        KIND_STARTED => {
            let version = text(whole, 24, 40)?;
            Fact::Started {
                epoch: u64_at(whole, 16),
                version: version.trim_end_matches('\0'),
            }
        }
        KIND_SKU_CREATED => Fact::SkuCreated {
            sku: u32_at(whole, 16),
            name: text(whole, 24, u16_at(whole, 20).into())?,
        },
        KIND_SKU_SET => Fact::SkuSet(SkuSet::of_numbers(
            u32_at(whole, 16),
            u16_at(whole, 20),
            u16_at(whole, 22),
            match whole[1] & FLAG_HOLDER {
                0 => Cap::default(),
                _ => Cap {
                    cards_max: u32_at(whole, 24),
                    window_ms: u64_at(whole, 32),
                },
            },
        )?),
        KIND_SLAB_ADDED => {
            at_least_two_units()?;
            Fact::SlabAdded {
                slab: u32_at(whole, 16),
                sku: u32_at(whole, 20),
                batch: u32_at(whole, 24),
                pool: u16_at(whole, 28),
                cards: u32_at(whole, 32),
                class_bytes: u32_at(whole, 36),
                header_hash: whole[64..96].try_into().expect("32 bytes"),
                grows: whole[1] & FLAG_GROWS != 0,
            }
        }
        KIND_SLAB_REUSED => {
            let words = std::array::from_fn(|at| u32_at(whole, 16 + 4 * at));
            Fact::SlabReused(Reused::of_words(words, whole[1] & FLAG_UNLIMITED != 0))
        }
        KIND_BATCH_SEALED => {
            let label_bytes = usize::from(u16_at(whole, 26));
            Fact::BatchSealed {
                batch: u32_at(whole, 16),
                sku: u32_at(whole, 20),
                pool: u16_at(whole, 24),
                cards: u64_at(whole, 32),
                slabs: u32_at(whole, 40),
                label: text(whole, 48, label_bytes)?,
                pool_name: text(whole, 48 + label_bytes, u16_at(whole, 28).into())?,
            }
        }
        KIND_ISSUED => {
            let runs = usize::from(u16_at(whole, 42));
            let holder = holder_of(whole, 48)?;
            let at = 48 + key_runs(holder) * RUN_BYTES;
            let bytes = whole
                .get(at..at + runs * RUN_BYTES)
                .ok_or("an Issued record is shorter than its runs")?;
            Fact::Issued(Issued {
                order_id: id_of(whole),
                holder,
                sku: u32_at(whole, 32),
                principal: u32_at(whole, 36),
                quantity: u16_at(whole, 40),
                priority: whole[44],
                lane: whole[45],
                way: (whole[1] & !FLAG_HOLDER).try_into()?,
                fewer: u16_at(whole, 46),
                runs: Runs::Read(bytes),
            })
        }
        KIND_RESERVED => {
            let flags = whole[1] & !FLAG_HOLDER;
            let (first, mut second) = (u64_at(whole, 48), u64_at(whole, 56));
            let mut fewer = 0;
            if flags & FLAG_PART != 0 {
                fewer = (second >> 48) as u16;
                if fewer == 0 || second >> 32 & 0xffff != 0 || flags & FLAG_FILLED != 0 {
                    return Err("a Reserved record of a part is no such record".into());
                }
                second &= u64::from(u32::MAX);
            }
            let mut card = None;
            if flags & FLAG_BOUND != 0 {
                if flags != FLAG_BOUND || first >> 16 != 1 {
                    return Err("a Reserved record of a bound card is no such record".into());
                }
                card = Some((second as u32, (second >> 32) as u32));
                second = 0;
            }
            Fact::Reserved(Reserved {
                order_id: id_of(whole),
                holder: holder_of(whole, KEY_AT)?,
                sku: u32_at(whole, 32),
                principal: u32_at(whole, 36),
                quantity: u16_at(whole, 40),
                priority: whole[42],
                lane: whole[43],
                ttl_ms: u32_at(whole, 44),
                filled: flags & FLAG_FILLED != 0,
                fewer,
                credits: Credits::from_words([first, second]),
                card,
            })
        }
        KIND_EXTENDED => Fact::Extended(Extended {
            order_id: id_of(whole),
            sku: u32_at(whole, 32),
            principal: u32_at(whole, 36),
            nth: u16_at(whole, 40),
            ttl_ms: u32_at(whole, 44),
        }),
        KIND_RELEASED => Fact::Released(Released {
            order_id: id_of(whole),
            holder: holder_of(whole, KEY_AT)?,
            sku: u32_at(whole, 32),
            principal: u32_at(whole, 36),
            quantity: u16_at(whole, 40),
            why: match whole[42] {
                1 => Release::Cancelled,
                2 => Release::Expired,
                other => {
                    return Err(format!(
                        "a hold ends for a reason {other} that there is not"
                    ));
                }
            },
            was_issue: whole[1] & FLAG_WAS_ISSUE != 0,
        }),
        KIND_BACKORDERED => Fact::Backordered(Backordered {
            order_id: id_of(whole),
            holder: holder_of(whole, KEY_AT)?,
            sku: u32_at(whole, 32),
            principal: u32_at(whole, 36),
            quantity: u16_at(whole, 40),
            priority: whole[42],
            lane: whole[43],
            ttl_ms: u32_at(whole, 44),
            ends_unix_ms: u64_at(whole, 48),
            tag: tag_of(whole)?,
        }),
        KIND_RETRIED => Fact::Retried(Retried {
            order_id: id_of(whole),
            sku: u32_at(whole, 32),
            principal: u32_at(whole, 36),
            tried: Tried {
                attempts: u16_at(whole, 40),
                cause: match RetryCause::try_from(u16::from(whole[42])) {
                    Ok(_) => whole[42],
                    Err(_) if whole[42] == 0 => 0,
                    Err(_) => {
                        return Err(format!(
                            "an attempt fails for a cause {} that there is not",
                            whole[42]
                        ));
                    }
                },
                is_buried: whole[1] & FLAG_BURIED != 0,
                again_unix_ms: u64_at(whole, 48),
            },
        }),
        KIND_CARDS_MOVED => {
            let runs = usize::from(u16_at(whole, 24));
            let bytes = whole
                .get(MOVED_HEAD_BYTES..MOVED_HEAD_BYTES + runs * RUN_BYTES)
                .ok_or("a CardsMoved record is shorter than its runs")?;
            let moved = Moved {
                sku: u32_at(whole, 16),
                from: whole[20].try_into()?,
                to: whole[21].try_into()?,
                cause: whole[22].try_into()?,
                runs: Runs::Read(bytes),
            };
            if !is_move(moved.from, moved.to) {
                return Err(format!(
                    "cards go from {} to {}, and no card goes that way",
                    moved.from.name(),
                    moved.to.name()
                ));
            }
            Fact::CardsMoved(moved)
        }
        KIND_CARDS_ADDED => Fact::CardsAdded(Added {
            slab: u32_at(whole, 16),
            sku: u32_at(whole, 20),
            batch: u32_at(whole, 24),
            first: u32_at(whole, 28),
            cards: u32_at(whole, 32),
            crcs: [36, 40, 44].map(|at| u32_at(whole, at)),
        }),
        KIND_ROUTES_LOADED => {
            let toml = text(whole, 24, u32_at(whole, 20) as usize)?;
            Fact::RoutesLoaded {
                version: u32_at(whole, 16),
                toml,
            }
        }
        KIND_CHANNEL_CHANGED => Fact::ChannelChanged {
            name: text(whole, 32, u16_at(whole, 22).into())?,
            standing: Standing::of_numbers(u16_at(whole, 16), u64_at(whole, 24))?,
            cause: cause_of(u16_at(whole, 18))?,
            ejections: u16_at(whole, 20),
        },
        KIND_CANARY => Fact::Canary(canary_of(whole)?),
        kind => {
            return Err(format!(
                "record kind {kind}, which this version does not know: use a newer croupier"
            ));
        }
    })
}

fn canary_of(whole: &[u8]) -> Result<CanaryFact<'_>, String> {
    let newer = |what| format!("{what}: use a newer croupier");
    let figures = |at: usize| Figures::of_words([0, 4, 8, 12].map(|word| u32_at(whole, at + word)));
    let step = Step {
        deed: CanaryDeed::try_from(u16::from(whole[20])).map_err(newer)?,
        reason: CanaryReason::try_from(u16::from(whole[21])).map_err(newer)?,
        share: whole[22],
        groups: [figures(24), figures(40)],
    };
    let start = if step.deed == CanaryDeed::Started {
        let words = whole.get(64..64 + 4 * Settings::WORDS);
        let words = words.ok_or("a canary starts without its settings")?;
        let mut all = [0; Settings::WORDS];
        for (word, at) in all.iter_mut().zip((0..).step_by(4)) {
            *word = u32_at(words, at);
        }
        let (settings, toml_bytes) = Settings::of_words(step.share, all)?;
        let toml = text(whole, 64 + words.len(), toml_bytes as usize)?;
        Some((settings, toml))
    } else {
        None
    };
    Ok(CanaryFact {
        version: u32_at(whole, 16),
        step,
        start,
    })
}
