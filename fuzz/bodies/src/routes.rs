//! Route tables, as operators write them.

use croupier_engine::route::RouteTable;
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
    for sku in ["", "a", "steam-50", "卡密", "****"] {
        for priority in Priority::ALL {
            let _ = table.resolve(sku, priority);
        }
    }
}
