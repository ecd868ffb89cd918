//! Route tables, as operators write them.

use croupier_engine::route::{Asked, RouteTable};
use croupier_engine::state::Catalog;
use croupier_protocol::Priority;

/// The text of a table.
pub fn routes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let table = match RouteTable::parse(3, text) {
        Ok(table) => table,
        Err(error) => {
            assert!(
                error.line >= 1 && error.line <= 1 + text.matches('\n').count(),
                "{error}"
            );
            return;
        }
    };
    assert_eq!((table.version(), table.text()), (3, text));
    let _ = (
        table.warnings(None),
        table.warnings(Some(&Catalog::default())),
    );
    table.marks().follow(0.7);
    for sku in ["", "a", "steam-50", "卡密", "****"] {
        for priority in Priority::ALL {
            for id in 0..4 {
                let asked = Asked {
                    id,
                    holder: id * 0x0123_4567_89ab_cdef,
                    sku: 1,
                    priority,
                    quantity: id as u16 * 7 + 1,
                    tag: id as u16,
                };
                let moment = table.moment(id as u64 * 40_000_000);
                let target = table.route(sku, &asked, moment);
                let pools = target.and_then(|target| target.pools);
                assert!(
                    pools.is_none_or(|pools| !pools.is_empty()),
                    "a chain has pools"
                );
                let to_ask = table.to_ask(sku, &asked, moment);
                let stages = to_ask.map(|to_ask| to_ask.stages).unwrap_or_default();
                let mut asked_of: Vec<u16> = stages.iter().flatten().map(|one| one.0).collect();
                let all = asked_of.len();
                let sells = |&one: &u16| table.outside()[usize::from(one)].sells(sku);
                assert!(stages.iter().all(|stage| !stage.is_empty()));
                assert!(asked_of.iter().all(sells), "who does not sell is not asked");
                asked_of.sort_unstable();
                asked_of.dedup();
                assert_eq!(asked_of.len(), all, "nobody is asked twice");
            }
        }
    }
}
