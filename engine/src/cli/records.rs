//! The records of a stopped store's log: read from the oldest that is there, and shown.

use std::path::Path;

use croupier_protocol::{OrderId, Priority, RetryCause};
use serde_json::{Value, json};

use super::error::CliError;
use super::order::hex;
use super::print::Facts;
use super::wal::Point;
use crate::checkpoint;
use crate::error::EngineError;
use crate::state::canary::{CanaryFact, Figures};
use crate::state::channels::NO_END;
use crate::state::record::{
    Cap, Fact, Issued, RECORD_UNIT_BYTES, Record, Release, Released, Run, Way, decode,
};
use crate::store::Store;
use crate::wal::BlockReader;
use crate::wal::segments::segment_path;

/// Gives every record from `from` to `until` to `put`, which may say that enough is enough.
pub(super) fn walk(
    data: &Path,
    key_file: Option<&Path>,
    from: u64,
    until: Option<Point>,
    put: &mut dyn FnMut(u64, &Record<'_>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let store = Store::open(data, key_file)?;
    let wal = store.paths.wal();
    let made = checkpoint::load_current(&store.disk, &store.paths, store.store_id)?;
    let oldest = checkpoint::oldest_block(&store, made.as_ref())?;
    let mut reader = BlockReader::open(store.disk.clone(), &wal, store.store_id, oldest)?;
    while let Some(block) = reader.next()? {
        let mut at = 0;
        while at < block.body.len() {
            let lsn = block.header.first_lsn + (at / RECORD_UNIT_BYTES) as u64;
            let (record, bytes) = decode(&block.body[at..]).map_err(|what| {
                EngineError::damage(&segment_path(&wal, block.seq), block.offset, what)
            })?;
            let past = match until {
                None => false,
                Some(Point::Lsn(last)) => lsn > last,
                Some(Point::UnixMs(last)) => record.stamp.unix_ms > last,
            };
            if past {
                return Ok(());
            }
            if lsn >= from {
                put(lsn, &record)?;
            }
            at += bytes;
        }
    }
    Ok(())
}

/// A record as named facts; a word of docs/wal-format.md says its kind. There are no secrets in the log.
pub(super) fn facts(lsn: u64, record: &Record<'_>) -> Facts {
    let common = Facts::default()
        .with("lsn", lsn)
        .with("at", rfc3339(record.stamp.unix_ms))
        .with("routes_version", record.stamp.route_table);
    match record.fact {
        Fact::Started { epoch, version } => common
            .with("kind", "Started")
            .with("epoch", epoch)
            .with("version", version),
        Fact::SkuCreated { sku, name } => common
            .with("kind", "SkuCreated")
            .with("sku_id", sku)
            .with("sku", name),
        Fact::SkuSet(set) => common
            .with("kind", "SkuSet")
            .with("sku_id", set.sku)
            .with("selection", set.deal_order.name())
            .with("hold_share_max_percent", set.hold_share_max_percent)
            .with_some(
                "holder_cards_max",
                (set.cap != Cap::default()).then_some(set.cap.cards_max),
            )
            .with_some(
                "holder_window_ms",
                (set.cap != Cap::default()).then_some(set.cap.window_ms),
            ),
        Fact::SlabAdded {
            slab,
            sku,
            batch,
            pool,
            cards,
            class_bytes,
            header_hash,
            grows,
        } => common
            .with("kind", "SlabAdded")
            .with("slab", slab)
            .with("sku_id", sku)
            .with("batch_id", batch)
            .with("pool_id", pool)
            .with("cards", cards)
            .with("class_bytes", class_bytes)
            .with("header_hash", hex(&header_hash))
            .with_some("grows", grows.then_some(true)),
        Fact::CardsAdded(added) => common
            .with("kind", "CardsAdded")
            .with("slab", added.slab)
            .with("sku_id", added.sku)
            .with("batch_id", added.batch)
            .with("first", added.first)
            .with("cards", added.cards)
            .with("crcs", hex(&added.crcs.map(u32::to_be_bytes).concat())),
        Fact::SlabReused(reused) => common
            .with("kind", "SlabReused")
            .with("slab", reused.slab)
            .with("sku_id", reused.sku)
            .with("batch_id", reused.batch)
            .with("pool_id", reused.pool)
            .with("of", reused.view.of)
            .with("first", reused.view.first)
            .with("cards", reused.view.cards)
            .with("uses", reused.view.uses)
            .with("unlimited", reused.view.unlimited)
            .with("class_bytes", reused.class_bytes),
        Fact::BatchSealed {
            batch,
            sku,
            pool,
            cards,
            slabs,
            label,
            pool_name,
        } => common
            .with("kind", "BatchSealed")
            .with("batch_id", batch)
            .with("sku_id", sku)
            .with("pool_id", pool)
            .with("cards", cards)
            .with("slabs", slabs)
            .with("batch", label)
            .with("pool", pool_name),
        Fact::Issued(issued) => issued_facts(common.with("kind", "Issued"), &issued),
        Fact::Reserved(reserved) => {
            let credits = reserved.credits.iter();
            let credits = credits.map(|(pool, cards)| json!({ "pool_id": pool, "cards": cards }));
            let facts = common
                .with("kind", "Reserved")
                .with("order_id", order_id(reserved.order_id))
                .with_some("holder", holder(reserved.holder))
                .with("sku_id", reserved.sku)
                .with("quantity", reserved.quantity)
                .with("priority", priority(reserved.priority))
                .with("lane", reserved.lane)
                .with("ttl_ms", reserved.ttl_ms)
                .with("credits", credits.collect::<Vec<Value>>());
            if let Some((slab, slot)) = reserved.card {
                return facts.with(
                    "card",
                    json!({ "slab": slab, "slot": slot, "generation": 0 }),
                );
            }
            match (reserved.filled, reserved.fewer) {
                (true, _) => facts.with("filled", true),
                (false, 0) => facts,
                (false, fewer) => facts.with("partial", true).with("fewer", fewer),
            }
        }
        Fact::Backordered(waits) => common
            .with("kind", "Backordered")
            .with("order_id", order_id(waits.order_id))
            .with_some("holder", holder(waits.holder))
            .with("sku_id", waits.sku)
            .with("quantity", waits.quantity)
            .with("priority", priority(waits.priority))
            .with("lane", waits.lane)
            .with("ttl_ms", waits.ttl_ms)
            .with("ends_unix_ms", waits.ends_unix_ms)
            .with("ends_at", rfc3339(waits.ends_unix_ms))
            .with_some("tag", (waits.tag != 0).then_some(waits.tag)),
        Fact::Retried(retried) => common
            .with("kind", "Retried")
            .with("order_id", order_id(retried.order_id))
            .with("sku_id", retried.sku)
            .with("attempts", retried.tried.attempts)
            .with("cause", cause(retried.tried.cause))
            .with("buried", retried.tried.is_buried)
            .with_some(
                "again_at",
                (retried.tried.again_unix_ms != 0).then(|| rfc3339(retried.tried.again_unix_ms)),
            ),
        Fact::Extended(extended) => common
            .with("kind", "Extended")
            .with("order_id", order_id(extended.order_id))
            .with("sku_id", extended.sku)
            .with("extension", extended.nth)
            .with("ttl_ms", extended.ttl_ms),
        Fact::Released(released) => released_facts(common, &released),
        Fact::CardsMoved(moved) => common
            .with("kind", "CardsMoved")
            .with("sku_id", moved.sku)
            .with("from", moved.from.name())
            .with("to", moved.to.name())
            .with("cause", moved.cause.name())
            .with("cards", moved.runs.iter().map(run).collect::<Vec<Value>>()),
        Fact::RoutesLoaded { version, toml } => common
            .with("kind", "RoutesLoaded")
            .with("version", version)
            .with("toml", toml),
        Fact::ChannelChanged {
            name,
            standing,
            cause,
            ejections,
        } => common
            .with("kind", "ChannelChanged")
            .with("channel", name)
            .with("standing", standing.number().name())
            .with("cause", cause.name())
            .with("ejections", ejections)
            .with_some("until", until(standing.until_unix_ms())),
        Fact::Canary(canary) => canary_facts(common, &canary),
    }
}

fn issued_facts(common: Facts, issued: &Issued<'_>) -> Facts {
    let runs: Vec<Value> = issued.runs.iter().map(run).collect();
    let facts = common
        .with("order_id", order_id(issued.order_id))
        .with_some("holder", holder(issued.holder))
        .with("sku_id", issued.sku)
        .with("quantity", issued.quantity)
        .with("priority", priority(issued.priority))
        .with("lane", issued.lane)
        .with("cards", runs);
    match issued.way {
        Way::Issue => facts,
        Way::Commit => facts.with("commit", "held").with("fewer", issued.fewer),
        Way::Part => facts.with("partial", true).with("fewer", issued.fewer),
        Way::Filled => facts.with("filled", true),
        Way::LateCommit => facts.with("commit", "late").with("fewer", issued.fewer),
    }
}

fn released_facts(common: Facts, released: &Released) -> Facts {
    let facts = common
        .with("kind", "Released")
        .with("order_id", order_id(released.order_id))
        .with_some("holder", holder(released.holder))
        .with("sku_id", released.sku)
        .with("quantity", released.quantity)
        .with(
            "why",
            match released.why {
                Release::Cancelled => "cancelled",
                Release::Expired => "expired",
            },
        );
    match released.was_issue {
        true => facts.with("was_issue", true),
        false => facts,
    }
}

/// Until when a channel is ejected, if it is and that ends.
pub(super) fn until(unix_ms: u64) -> Option<String> {
    (unix_ms != 0 && unix_ms != NO_END).then(|| rfc3339(unix_ms))
}

fn canary_facts(common: Facts, canary: &CanaryFact<'_>) -> Facts {
    let CanaryFact {
        version,
        step,
        start,
    } = canary;
    let group = |figures: &Figures| {
        json!({
            "orders": figures.orders, "failed": figures.failed, "p50_us": figures.p50_us, "p99_us": figures.p99_us,
        })
    };
    let facts = common
        .with("kind", "Canary")
        .with("version", *version)
        .with("deed", step.deed.name())
        .with("reason", step.reason.name())
        .with("share_percent", step.share)
        .with("canary", group(&step.groups[0]))
        .with("baseline", group(&step.groups[1]));
    match start {
        None => facts,
        Some((settings, toml)) => facts
            .with("step_percent", settings.step)
            .with("until_percent", settings.until)
            .with("minimum_sample", settings.minimum_sample)
            .with("p99_ratio", settings.limit())
            .with("step_time_ms", settings.step_time_ms)
            .with("toml", *toml),
    }
}

/// A holder's key, if one is named.
fn holder(key: u128) -> Option<String> {
    (key != 0).then(|| order_id(key))
}

fn order_id(id: u128) -> String {
    OrderId::from_u128(id).to_string()
}

fn priority(number: u8) -> Value {
    match Priority::try_from(number) {
        Ok(priority) => Value::from(priority.name()),
        Err(_) => Value::from(number),
    }
}

fn cause(number: u8) -> Value {
    match RetryCause::try_from(u16::from(number)) {
        Ok(cause) => Value::from(cause.name()),
        Err(_) => Value::Null,
    }
}

/// Cards that lie side by side: the first one's slot and how many.
fn run(run: Run) -> Value {
    let Run {
        slab,
        slot,
        count,
        generation,
    } = run;
    json!({ "slab": slab, "slot": slot, "count": count, "generation": generation })
}

/// An instant as people read it, in UTC.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    let instant = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    instant.map_or_else(
        || format!("{unix_ms} ms"),
        |instant| format!("{instant:.3}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::{Runs, Stamp};

    #[test]
    fn an_order_as_facts() {
        let runs = [Run {
            slab: 3,
            slot: 9,
            count: 2,
            generation: 0,
        }];
        let issued = Issued {
            order_id: 7,
            holder: 0,
            sku: 4,
            principal: 0,
            quantity: 2,
            priority: 0,
            lane: 1,
            way: Way::Issue,
            fewer: 0,
            runs: Runs::Given(&runs),
        };
        let record = Record {
            stamp: Stamp {
                unix_ms: 1_846_022_399_050,
                route_table: 5,
            },
            fact: Fact::Issued(issued),
        };
        let expect = json!({
            "lsn": 12, "at": "2028-06-30T23:59:59.050Z", "routes_version": 5, "kind": "Issued",
            "order_id": "00000000-0000-0000-0000-000000000007", "sku_id": 4, "quantity": 2, "priority": "vip",
            "lane": 1, "cards": [{ "slab": 3, "slot": 9, "count": 2, "generation": 0 }],
        });
        assert_eq!(facts(12, &record).into_json(), expect);
    }
}
