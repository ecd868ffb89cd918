//! `--holder` of `croupier issue` and `reserve`, and `croupier orders`: for whom orders are.

use std::process::ExitCode;

use clap::Args;
use croupier_client::{HOLDER_TEXT_BYTES_MAX, Holder, Order, OrderRow, holder_of};
use croupier_protocol::{
    ORDERS_LISTED_MAX, OrderId, STATUS_CANCELLED, STATUS_EXPIRED, STATUS_HELD, STATUS_ISSUED,
    STATUS_WAITING,
};
use serde_json::json;

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::order::{CANCELLED, EXPIRED, HELD, WAITING};
use super::print::Rows;

/// For whom an order is, and what else route tables can tell it by.
#[derive(Debug, Args)]
pub(super) struct HolderArgs {
    /// For whom it is: a customer's number or name, or a UUID; the server counts what each holder has
    #[arg(long, value_name = "KEY", value_parser = holder)]
    holder: Option<Holder>,
    /// A number from 1 to 65535 that rules of the route table can ask for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with_all = ["card", "label"])]
    tag: Option<u16>,
}

impl HolderArgs {
    /// The order, with its holder and tag if it has them.
    pub(super) fn of(&self, order: Order) -> Order {
        let order = order.tag(self.tag.unwrap_or(0));
        self.holder.map_or(order, |holder| order.holder(holder))
    }

    /// The same as words of a command: the key says as much as the text.
    pub(super) fn words(&self) -> String {
        let holder = self.holder.map(|holder| format!(" --holder {holder}"));
        let tag = self.tag.map(|tag| format!(" --tag {tag}"));
        [holder, tag].into_iter().flatten().collect()
    }
}

fn holder(text: &str) -> Result<Holder, String> {
    holder_of(text).ok_or_else(|| {
        format!(
            "a holder is a UUID that is not zero, or a text of 1 to {HOLDER_TEXT_BYTES_MAX} bytes"
        )
    })
}

/// Show the orders of a holder, the oldest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier orders --holder 'customer 4711'
  croupier orders --holder 'customer 4711' --limit 10 --after 1048 --json")]
pub(super) struct OrdersArgs {
    /// Whose: a text or a UUID, as the orders named it
    #[arg(long, value_name = "KEY", value_parser = holder)]
    holder: Holder,
    /// At most so many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only those whose last record is behind this place in the log
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    after: u64,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn orders(args: OrdersArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let mut rows = Rows::new(globals.json);
    args.server.run(async |client| {
        let skus = client.sku_list().await?;
        let name = |sku: u32| {
            let row = skus.iter().find(|row| row.sku == sku);
            row.map_or_else(|| format!("#{sku}"), |row| row.name.clone())
        };
        let (mut after, mut left) = (args.after, args.limit.unwrap_or(u64::MAX));
        loop {
            let most = left.min(ORDERS_LISTED_MAX.into()) as u32;
            let (page, next) = client.orders_of(args.holder, after, most).await?;
            for order in &page {
                put(order, &name(order.sku), &mut rows)?;
            }
            left = left.saturating_sub(page.len() as u64);
            match next {
                Some(next) if left > 0 => after = next,
                _ => return Ok(()),
            }
        }
    })?;
    rows.end()?;
    Ok(ExitCode::SUCCESS)
}

fn put(order: &OrderRow, sku: &str, rows: &mut Rows) -> Result<(), CliError> {
    let id = OrderId::from_bytes(order.order);
    let state = state(order.state);
    if !rows.is_json() {
        let (quantity, lsn) = (order.quantity, order.lsn);
        return rows.put_text(&format!("order {id} {state} {quantity} of {sku} lsn {lsn}"));
    }
    rows.put_json(&json!({
        "order_id": id.to_string(), "state": state, "lsn": order.lsn, "sku": sku, "sku_id": order.sku,
        "quantity": order.quantity,
    }))
}

fn state(number: u16) -> &'static str {
    match u8::try_from(number) {
        Ok(STATUS_ISSUED) => "issued",
        Ok(STATUS_HELD) => HELD,
        Ok(STATUS_CANCELLED) => CANCELLED,
        Ok(STATUS_EXPIRED) => EXPIRED,
        Ok(STATUS_WAITING) => WAITING,
        _ => "unknown",
    }
}
