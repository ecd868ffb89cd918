//! Orders that wait for stock, as far as is known: how they stand, and that none waits for what is there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use croupier_client::{Client, OrderId, SkuId};

use super::Oracle;
use super::table::Known;

/// How long the desk may take with nothing else to do.
const DESK_MAX: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Oracle {
    /// Looks up every order that waits, as far as is known; returns those that still do. No ask may be under way.
    pub(super) async fn look_lines_up(&self, client: &Client) -> Vec<OrderId> {
        let known = self.waiting();
        self.look_up(client, &known).await;
        match known.is_empty() {
            true => known,
            false => self.waiting(),
        }
    }

    fn waiting(&self) -> Vec<OrderId> {
        let books = self.books();
        let held = books.held.iter();
        let waiting = held.filter(|(_, book)| book.known() == Known::Waiting);
        waiting.map(|(&id, _)| id).collect()
    }

    /// Nobody waits for stock that is there, once the desk has had time to fill what it can. Nobody else may use the
    /// server, and orders that take cards from several pools are none of its business.
    ///
    /// # Panics
    /// If somebody does.
    pub async fn check_lines(&self, client: &Client) {
        let begun = Instant::now();
        loop {
            self.look_lines_up(client).await;
            let rows = client.stock(None).await.expect("stock is answered");
            let free: HashMap<_, _> = rows.iter().map(|row| (SkuId(row.sku), row.free)).collect();
            let waits_in_vain = self.books().in_two_phases().find(|order| {
                let free = free.get(&order.sku).copied().unwrap_or(0);
                order.wants > 0 && order.wants <= free
            });
            let Some(order) = waits_in_vain else { return };
            assert!(
                begun.elapsed() < DESK_MAX,
                "{} waits for {} cards, and there are: {rows:?}",
                order.id,
                order.wants
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Orders that were told that they wait, and how many of them were filled, as far as is known.
    pub fn waited(&self) -> (u64, u64) {
        let books = self.books();
        let waited = books.held.values().filter(|book| book.waited.is_some());
        waited.fold((0, 0), |(waited, filled), book| {
            (waited + 1, filled + u64::from(book.is_filled()))
        })
    }
}
