//! How a record of the log looks: `wal dump`.

use croupier_protocol::{OrderId, Priority};
use serde_json::{Value, json};

use super::order::hex;
use super::print::Facts;
use crate::state::record::{Fact, Issued, Record, Run};

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
        Fact::SlabAdded {
            slab,
            sku,
            batch,
            pool,
            cards,
            class_bytes,
            header_hash,
        } => common
            .with("kind", "SlabAdded")
            .with("slab", slab)
            .with("sku_id", sku)
            .with("batch_id", batch)
            .with("pool_id", pool)
            .with("cards", cards)
            .with("class_bytes", class_bytes)
            .with("header_hash", hex(&header_hash)),
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
        Fact::RoutesLoaded { version, toml } => common
            .with("kind", "RoutesLoaded")
            .with("version", version)
            .with("toml", toml),
    }
}

fn issued_facts(common: Facts, issued: &Issued<'_>) -> Facts {
    let priority = match Priority::try_from(issued.priority) {
        Ok(priority) => Value::from(priority.name()),
        Err(_) => Value::from(issued.priority),
    };
    let runs: Vec<Value> = issued.runs.iter().map(run).collect();
    common
        .with("order_id", OrderId::from_u128(issued.order_id).to_string())
        .with("sku_id", issued.sku)
        .with("quantity", issued.quantity)
        .with("priority", priority)
        .with("lane", issued.lane)
        .with("cards", runs)
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

fn rfc3339(unix_ms: u64) -> String {
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
            sku: 4,
            principal: 0,
            quantity: 2,
            priority: 0,
            lane: 1,
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
