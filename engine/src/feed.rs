//! The change feed: pages of durable facts, read from the files of the log (docs/feed.md).
//!
//! Nothing is kept for a reader but its [`Place`], and that only to save looking for it. The end of the log is being written
//! while it is read, so a page looks at nothing that was not durable before its files were opened.

use std::io;

use croupier_protocol::{
    CardRun, FEED_FACTS_MAX, Feed, FeedKind, FeedReply, FeedRow, HoldEnd, IssueWay, Refusal,
};

use crate::disk::{Disk, Window};
use crate::engine::{Engine, Refused};
use crate::error::{EngineError, IoContext as _};
use crate::state::record::{Fact, Placed, Record, Release, Runs, Way, records};
use crate::wal::format::{BLOCK_HEADER_BYTES, BlockHeader, SEGMENT_HEADER_BYTES, block_bytes};
use crate::wal::reader::list_segments;
use crate::wal::segments::segment_path;
use crate::wal::{BlockReader, Position};

/// Bytes of the log that one page may read; behind them it ends, with facts or without.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Which facts are told.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Sorted; empty = all.
    skus: Vec<u32>,
    /// A bit for the number of each kind that is told.
    kinds: u64,
}

impl Filter {
    /// What a request asks for. Numbers of SKUs and kinds that there are not match nothing: a caller may be newer than this
    /// server.
    pub fn of(asked: &Feed) -> Filter {
        let mut skus = asked.skus.clone();
        skus.sort_unstable();
        let bits = asked.kinds.iter().map(|kind| bit(*kind));
        let kinds = if asked.kinds.is_empty() {
            u64::MAX
        } else {
            bits.fold(0, |all, bit| all | bit)
        };
        Filter { skus, kinds }
    }

    /// Facts of no SKU pass every choice of SKUs.
    fn passes(&self, row: &FeedRow) -> bool {
        let sku = row.sku == 0 || self.skus.is_empty() || self.skus.binary_search(&row.sku).is_ok();
        sku && self.kinds & bit(row.kind) != 0
    }
}

fn bit(kind: u16) -> u64 {
    1_u64.checked_shl(kind.into()).unwrap_or(0)
}

/// How much a page holds.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    facts: usize,
    bytes: usize,
}

impl Room {
    /// For a request that wants at most `facts_max` facts (0 = as many as fit), in a body of `body_bytes`.
    pub fn of(facts_max: u32, body_bytes: usize) -> Room {
        let facts = match facts_max {
            0 => FEED_FACTS_MAX,
            most => most.min(FEED_FACTS_MAX),
        };
        Room {
            facts: facts as usize,
            bytes: body_bytes - REPLY_BYTES,
        }
    }
}

/// How often a page is looked for and read: a fold may come between, but not again and again.
const READ_TRIES: u32 = 3;

/// Bytes of a FeedReply without facts.
const REPLY_BYTES: usize = 24;
/// Bytes of a row without order, cards and texts.
const ROW_BYTES: usize = 69;
const ORDER_BYTES: usize = 16;
const RUN_BYTES: usize = 14;

fn bytes_of(row: &FeedRow) -> usize {
    ROW_BYTES
        + row.order.map_or(0, |_| ORDER_BYTES)
        + row.cards.len() * RUN_BYTES
        + row.pool.len()
        + row.text.len()
}

/// Where a page ended: the next one begins there without searching.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The first LSN that has not been looked at.
    pub next: u64,
    /// Before the block that has it.
    block: Position,
}

/// A page, and where it ended, if that is a place between or in blocks that there are.
pub type Page = (FeedReply, Option<Place>);

/// Reads a page of the facts that pass `filter`, from the LSN `from` on (0 = the oldest there is). `place`: where an earlier
/// page ended that told to go on from there. Blocks: for the cold path.
///
/// # Errors
/// `FeedTooOld` if what `from` names has been folded, `FeedAhead` if it is beyond the end, `StoreFailed` if the log cannot be
/// read.
pub fn read(
    engine: &Engine,
    from: u64,
    place: Option<Place>,
    filter: &Filter,
    room: Room,
) -> Result<Page, Refused> {
    // Before anything is opened: all below is on the disk, whole, and nothing else is looked at.
    let durable = engine.log.durable();
    if from > durable {
        return Err(Refused::because(
            Refusal::FeedAhead,
            format!("LSN {from} is beyond the end of the log, which goes on with {durable}"),
        ));
    }
    let place = place.filter(|place| place.next == from);
    if from == durable {
        return Ok((empty(durable, durable), place));
    }
    if let Some(place) = place {
        // A fold may have removed its segment: then the same is looked for from the beginning.
        if let Ok(page) = read_from(engine, durable, place, filter, room) {
            return Ok(page);
        }
    }
    let mut tries_left = READ_TRIES;
    loop {
        tries_left -= 1;
        let place = match find(engine, from, durable) {
            Ok(Found::At(place)) => place,
            Ok(Found::Nothing) => return Ok((empty(durable, durable), None)),
            Ok(Found::Folded { oldest }) => return Err(too_old(from, oldest)),
            Err(error) => return Err(failed(&error)),
        };
        match read_from(engine, durable, place, filter, room) {
            Ok(page) => return Ok(page),
            Err(error) if tries_left == 0 => return Err(failed(&error)),
            // Folded since it was found: what there is now is looked for anew.
            Err(_) => {}
        }
    }
}

fn empty(next: u64, end: u64) -> FeedReply {
    FeedReply {
        next,
        end,
        facts: Vec::new(),
    }
}

fn too_old(from: u64, oldest: u64) -> Refused {
    Refused::because(
        Refusal::FeedTooOld,
        format!("LSN {from} has been folded into a checkpoint: go on from LSN {oldest}"),
    )
}

fn failed(error: &EngineError) -> Refused {
    tracing::error!(%error, "the feed cannot read the log");
    Refused::because(
        Refusal::StoreFailed,
        format!("the log cannot be read: {error}"),
    )
}

fn read_from(
    engine: &Engine,
    durable: u64,
    place: Place,
    filter: &Filter,
    room: Room,
) -> Result<Page, EngineError> {
    let (store, wal) = (&engine.store, engine.store.paths.wal());
    let mut page = empty(place.next, durable);
    let (mut bytes, mut read_bytes) = (0, 0);
    let mut reader = BlockReader::open(store.disk.clone(), &wal, store.store_id, place.block)?;
    while reader.position().lsn < durable && read_bytes < READ_BYTES_MAX {
        let block = match reader.next() {
            Ok(Some(block)) => block,
            Ok(None) => {
                let (at, what) = (reader.position(), "the log ends before what is durable");
                return Err(EngineError::damage(
                    &segment_path(&wal, at.seq),
                    at.offset,
                    what,
                ));
            }
            // The segment that comes next may have been folded away meanwhile: the next page finds out.
            Err(_) if page.next > place.next => break,
            Err(error) => return Err(error),
        };
        read_bytes += block_bytes(block.body.len()) as u64;
        let before = Position::before(&block.header, block.seq, block.offset);
        for placed in records(block.body, block.header.first_lsn) {
            let placed = placed.map_err(|(at, what)| {
                let offset = block.offset + (BLOCK_HEADER_BYTES + at) as u64;
                EngineError::damage(&segment_path(&wal, block.seq), offset, what)
            })?;
            if placed.lsn >= place.next
                && let Some(row) = told(&placed, filter, room)
            {
                bytes += bytes_of(&row);
                if bytes > room.bytes || page.facts.len() == room.facts {
                    let place = Place {
                        next: page.next,
                        block: before,
                    };
                    return Ok((page, Some(place)));
                }
                page.facts.push(row);
            }
            // Of a record before the one that was asked for the end may count: an LSN can be in the middle of it.
            page.next = page.next.max(placed.end_lsn());
        }
    }
    let place = Place {
        next: page.next,
        block: reader.position(),
    };
    Ok((page, Some(place)))
}

enum Found {
    At(Place),
    /// The oldest segment has nothing durable yet, and nothing before was asked for.
    Nothing,
    /// It is not in the log any more, which begins with `oldest`.
    Folded {
        oldest: u64,
    },
}

/// Looks for the block that has `from`, which is below `durable`: first for its segment, from the newest back, because most
/// readers keep up, then from header to header.
fn find(engine: &Engine, from: u64, durable: u64) -> Result<Found, EngineError> {
    let (disk, wal) = (&engine.store.disk, engine.store.paths.wal());
    // The first block of the oldest segment that was looked at and is not blank.
    let mut oldest = None;
    for seq in list_segments(disk, &wal)?.into_iter().rev() {
        let mut blocks = match Blocks::open(disk, engine, seq) {
            Ok(blocks) => blocks,
            // Folded since it was listed, and so are those before it.
            Err(EngineError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                break;
            }
            Err(error) => return Err(error),
        };
        let Some(first) = blocks.next(durable)? else {
            continue;
        };
        if from == 0 || from < first.lsn {
            oldest = Some(first);
            continue;
        }
        // `from` is in this segment: in one behind it, that would have been found first.
        let mut at = first;
        while let Some(next) = blocks.next(durable)? {
            if next.lsn > from {
                break;
            }
            at = next;
        }
        return Ok(Found::At(Place {
            next: from,
            block: at,
        }));
    }
    Ok(match oldest {
        Some(block) if from == 0 => Found::At(Place {
            next: block.lsn,
            block,
        }),
        Some(block) => Found::Folded { oldest: block.lsn },
        None if from == 0 => Found::Nothing,
        None => Found::Folded { oldest: durable },
    })
}

/// The blocks of one segment by their headers alone: to find a place, not to believe what is there.
struct Blocks {
    window: Window,
    path: std::path::PathBuf,
    seq: u64,
    offset: u64,
}

impl Blocks {
    fn open(disk: &Disk, engine: &Engine, seq: u64) -> Result<Blocks, EngineError> {
        let path = segment_path(&engine.store.paths.wal(), seq);
        let window = disk.open_window(&path).at("open", &path)?;
        Ok(Blocks {
            window,
            path,
            seq,
            offset: SEGMENT_HEADER_BYTES as u64,
        })
    }

    /// Before the next block that has records and begins below `durable`.
    fn next(&mut self, durable: u64) -> Result<Option<Position>, EngineError> {
        let got = self.window.get(self.offset, BLOCK_HEADER_BYTES);
        let head = got.at("read", &self.path)?;
        // Beyond what is durable anything may lie here: nothing, or half of a block that is being written.
        let header = BlockHeader::decode(head).ok();
        let Some(header) = header.filter(|header| header.first_lsn < durable) else {
            return Ok(None);
        };
        let position = Position::before(&header, self.seq, self.offset);
        self.offset += block_bytes(header.body_bytes as usize) as u64;
        Ok(Some(position))
    }
}

/// A record as the feed tells it, if it does and the filter lets it pass.
fn told(placed: &Placed<'_>, filter: &Filter, room: Room) -> Option<FeedRow> {
    let mut row = row_of(&placed.record)?;
    (row.lsn, row.unix_ms) = (placed.lsn, placed.record.stamp.unix_ms);
    if bytes_of(&row) > room.bytes {
        row.cards = Vec::new();
    }
    filter.passes(&row).then_some(row)
}

/// `None`: not in the feed.
fn row_of(record: &Record<'_>) -> Option<FeedRow> {
    Some(match record.fact {
        Fact::Started { epoch, version } => FeedRow {
            text: version.into(),
            number: epoch,
            ..of_kind(FeedKind::Started)
        },
        Fact::SkuCreated { sku, name } => FeedRow {
            sku,
            text: name.into(),
            ..of_kind(FeedKind::SkuCreated)
        },
        // Its cards count once their batch is sealed.
        Fact::SlabAdded { .. } | Fact::SlabReused(_) => return None,
        Fact::CardsAdded(added) => FeedRow {
            sku: added.sku,
            batch: added.batch,
            quantity: added.cards.into(),
            cards: vec![CardRun {
                count: added.cards,
                ..card_of((added.slab, added.first))
            }],
            ..of_kind(FeedKind::CardsAdded)
        },
        Fact::BatchSealed {
            batch,
            sku,
            cards,
            label,
            pool_name,
            ..
        } => FeedRow {
            sku,
            batch,
            quantity: cards,
            pool: pool_name.into(),
            text: label.into(),
            ..of_kind(FeedKind::BatchSealed)
        },
        Fact::Issued(issued) => FeedRow {
            cards: cards_of(issued.runs),
            how: match issued.way {
                Way::Issue => IssueWay::AtOnce,
                Way::Commit => IssueWay::Commit,
                Way::LateCommit => IssueWay::LateCommit,
                Way::Filled => IssueWay::Filled,
                Way::Part => IssueWay::Part,
            }
            .as_u16(),
            number: issued.fewer.into(),
            ..of_order(
                FeedKind::Issued,
                issued.order_id,
                issued.sku,
                issued.quantity,
            )
        },
        Fact::Reserved(reserved) => FeedRow {
            cards: reserved.card.map(card_of).into_iter().collect(),
            number: reserved.ttl_ms.into(),
            ..of_order(
                FeedKind::Reserved,
                reserved.order_id,
                reserved.sku,
                reserved.quantity,
            )
        },
        Fact::Backordered(waits) => FeedRow {
            number: waits.ends_unix_ms,
            ..of_order(
                FeedKind::Backordered,
                waits.order_id,
                waits.sku,
                waits.quantity,
            )
        },
        Fact::Retried(retried) => FeedRow {
            how: retried.tried.cause.into(),
            number: retried.tried.again_unix_ms,
            ..of_order(
                FeedKind::Retried,
                retried.order_id,
                retried.sku,
                retried.tried.attempts,
            )
        },
        Fact::Extended(extended) => FeedRow {
            number: extended.ttl_ms.into(),
            ..of_order(
                FeedKind::Extended,
                extended.order_id,
                extended.sku,
                extended.nth,
            )
        },
        Fact::Released(released) => FeedRow {
            how: match released.why {
                Release::Cancelled => HoldEnd::Cancelled,
                Release::Expired => HoldEnd::Expired,
            }
            .as_u16(),
            ..of_order(
                FeedKind::Released,
                released.order_id,
                released.sku,
                released.quantity,
            )
        },
        Fact::CardsMoved(moved) => FeedRow {
            sku: moved.sku,
            quantity: moved.runs.iter().map(|run| u64::from(run.count)).sum(),
            cards: cards_of(moved.runs),
            how: u16::from(moved.from as u8) << 8 | u16::from(moved.to as u8),
            number: moved.cause as u64,
            ..of_kind(FeedKind::CardsMoved)
        },
        Fact::SkuSet(set) => FeedRow {
            sku: set.sku,
            how: set.deal_order.as_u16(),
            number: set.hold_share_max_percent.into(),
            ..of_kind(FeedKind::SkuSet)
        },
        Fact::RoutesLoaded { version, .. } => FeedRow {
            number: version.into(),
            ..of_kind(FeedKind::RoutesLoaded)
        },
        Fact::ChannelChanged {
            name,
            standing,
            cause,
            ejections,
        } => FeedRow {
            text: name.into(),
            quantity: ejections.into(),
            how: standing.number().as_u16() << 8 | cause.as_u16(),
            number: standing.until_unix_ms(),
            ..of_kind(FeedKind::ChannelChanged)
        },
        Fact::Canary(canary) => FeedRow {
            number: canary.version.into(),
            how: canary.step.deed.as_u16() << 8 | canary.step.reason.as_u16(),
            quantity: canary.step.share.into(),
            ..of_kind(FeedKind::Canary)
        },
    })
}

fn of_kind(kind: FeedKind) -> FeedRow {
    FeedRow {
        kind: kind.as_u16(),
        ..FeedRow::default()
    }
}

fn of_order(kind: FeedKind, order_id: u128, sku: u32, quantity: u16) -> FeedRow {
    FeedRow {
        sku,
        order: Some(order_id.to_be_bytes()),
        quantity: quantity.into(),
        ..of_kind(kind)
    }
}

fn card_of((slab, slot): (u32, u32)) -> CardRun {
    CardRun {
        slab,
        slot,
        count: 1,
        generation: 0,
    }
}

fn cards_of(runs: Runs<'_>) -> Vec<CardRun> {
    let runs = runs.iter().map(|run| CardRun {
        slab: run.slab,
        slot: run.slot,
        count: run.count,
        generation: run.generation,
    });
    runs.collect()
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests {
    use super::*;
    use croupier_protocol::encode_control;

    #[test]
    fn a_page_is_as_long_as_it_is_thought_to_be() {
        let rows = [
            FeedRow::default(),
            FeedRow {
                order: Some([1; 16]),
                cards: vec![CardRun::default(); 3],
                pool: "main".into(),
                text: "卡密".into(),
                ..FeedRow::default()
            },
        ];
        let bytes = REPLY_BYTES + rows.iter().map(bytes_of).sum::<usize>();
        let page = FeedReply {
            facts: rows.into(),
            ..FeedReply::default()
        };
        let mut body = bytes::BytesMut::new();
        encode_control(&page, &mut body);
        assert_eq!(body.len(), bytes);
    }

    #[test]
    fn numbers_that_are_no_kind_and_no_sku_match_nothing() {
        let filter = |skus: &[u32], kinds: &[u16]| {
            Filter::of(&Feed {
                skus: skus.into(),
                kinds: kinds.into(),
                ..Feed::default()
            })
        };
        let issued = of_order(FeedKind::Issued, 1, 7, 1);
        let started = of_kind(FeedKind::Started);
        assert!(filter(&[], &[]).passes(&issued));
        assert!(filter(&[9, 7], &[5, 1]).passes(&issued));
        assert!(filter(&[9], &[]).passes(&started));
        assert!(!filter(&[9], &[]).passes(&issued));
        assert!(!filter(&[], &[64, 69, 1000]).passes(&issued));
        assert!(!filter(&[], &[69]).passes(&started));
    }
}
