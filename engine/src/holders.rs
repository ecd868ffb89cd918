//! Which orders does a holder have? docs/orders.md.
//!
//! The rows of a holder's orders are known; how each stands is in the index. So a page is all of them, by LSN, and what of that was
//! asked for: on the cold path, for a holder has orders by the dozen.

use std::thread;

use croupier_protocol::{
    FRAME_HEADER_BYTES, ListOrders, ORDERS_LISTED_MAX, OrderList, OrderRow, Refusal,
    STATUS_CANCELLED, STATUS_EXPIRED, STATUS_HELD, STATUS_ISSUED, STATUS_WAITING,
};

use crate::engine::{Engine, Refused};
use crate::state::index::{OrderState, Settled};

/// Bytes of a row in the reply, and of the reply without rows.
const ROW_BYTES: usize = 32;
const LIST_BYTES: usize = FRAME_HEADER_BYTES + 8 + 9;

impl Engine {
    /// Orders of a holder, the oldest first: by the LSN of the last record of each. One that changes meanwhile comes again, later.
    /// What is told is durable.
    pub fn list_orders(&self, asked: &ListOrders) -> Result<OrderList, Refused> {
        let holder = u128::from_be_bytes(asked.holder);
        if holder == 0 {
            return Err(Refused::plain(Refusal::HolderInvalid));
        }
        let index = &self.state.index;
        let rows = self.state.holders.rows_of(holder);
        let orders = rows.iter().filter_map(|&row| {
            let (_, settled) = index.order_of(row)?;
            (settled.lsn > asked.after).then_some((settled.lsn, row))
        });
        let mut orders: Vec<(u64, u64)> = orders.collect();
        orders.sort_unstable();
        let fits = (self.config.frame_bytes_max as usize - LIST_BYTES) / ROW_BYTES;
        let most = match asked.limit {
            0 => ORDERS_LISTED_MAX,
            limit => limit.min(ORDERS_LISTED_MAX),
        };
        let most = fits.min(most as usize);
        let next = (orders.len() > most).then(|| orders[most - 1].0);
        orders.truncate(most);
        let rows = orders.into_iter().filter_map(|(_, row)| self.told(row));
        let rows: Vec<OrderRow> = rows.collect();
        let last = rows.iter().map(|row| row.lsn).max().unwrap_or(0);
        self.log
            .wait_durable(last)
            .map_err(|error| Refused::because(Refusal::StoreFailed, error))?;
        Ok(OrderList { rows, next })
    }

    /// How the order of a row stands.
    fn told(&self, row: u64) -> Option<OrderRow> {
        loop {
            let (id, settled) = self.state.index.order_of(row)?;
            if let Some(sku) = self.sku_of(settled) {
                return Some(OrderRow {
                    order: id.to_be_bytes(),
                    sku,
                    quantity: settled.quantity,
                    state: status_of(settled.state).into(),
                    lsn: settled.lsn,
                });
            }
            // A dealer is just changing it, and that is a part of its turn.
            thread::yield_now();
        }
    }

    /// The SKU of an order; `None`: it is not any more what it was.
    fn sku_of(&self, settled: Settled) -> Option<u32> {
        let index = &self.state.index;
        if settled.state.has_cards() {
            let catalog = self.state.catalog.load();
            let (slab, _) = index.cards(settled).next()?;
            return catalog.slab(slab).map(|slab| slab.facts.sku);
        }
        if settled.state.has_hold() {
            return index.hold(settled).map(|hold| hold.sku);
        }
        index.released(settled).map(|row| row.sku)
    }
}

/// As an OrderItem tells it.
fn status_of(state: OrderState) -> u8 {
    match state {
        OrderState::Issued
        | OrderState::IssuedPart
        | OrderState::Committed
        | OrderState::CommittedPart => STATUS_ISSUED,
        OrderState::Held => STATUS_HELD,
        OrderState::Waiting => STATUS_WAITING,
        OrderState::Cancelled => STATUS_CANCELLED,
        OrderState::Expired => STATUS_EXPIRED,
    }
}
