//! `croupier order ID`, and how an issued order looks (`issue` prints the same).

use std::process::ExitCode;

use clap::Args;
use croupier_protocol::{IssuedOrder, OrderId};
use serde_json::{Value, json};

use super::Globals;
use super::connect::{ServerArgs, sku_name};
use super::error::CliError;
use super::print::{self, Grid};

/// Show an order that was issued, with its cards
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croupier order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10")]
pub(super) struct OrderArgs {
    /// The order's id, as UUID text
    id: OrderId,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: OrderArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let (order, sku) = args.server.run(async |client| {
        let Some(order) = client.order(args.id).await? else {
            return Err(CliError::NoSuchOrder(args.id));
        };
        let sku = sku_name(&client, order.sku).await?;
        Ok((order, sku))
    })?;
    print_order(&order, &sku, globals.json)?;
    Ok(ExitCode::SUCCESS)
}

/// An issued order and its secrets, on stdout: the one place where they belong.
pub(super) fn print_order(order: &IssuedOrder, sku: &str, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return print::json(&order_json(order, sku));
    }
    let repeat = if order.repeat {
        ", dealt before: the same cards again"
    } else {
        ""
    };
    print::line(&format!(
        "order {}\nlsn   {}\nsku   {}{repeat}",
        order.order_id,
        order.lsn,
        print::shown(sku)
    ))?;
    let mut grid = Grid::new(&["card", "secret"]);
    for card in &order.cards {
        let secret = match std::str::from_utf8(card.secret.as_bytes()) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("0x{}", hex(card.secret.as_bytes())),
        };
        grid.row([card.card.to_string(), secret]);
    }
    grid.print()
}

pub(super) fn order_json(order: &IssuedOrder, sku: &str) -> Value {
    let cards: Vec<Value> = order
        .cards
        .iter()
        .map(|card| match std::str::from_utf8(card.secret.as_bytes()) {
            Ok(text) => json!({ "card": card.card.to_string(), "secret": text }),
            Err(_) => {
                json!({ "card": card.card.to_string(), "secret_hex": hex(card.secret.as_bytes()) })
            }
        })
        .collect();
    json!({
        "order_id": order.order_id.to_string(), "lsn": order.lsn.0, "sku": sku, "sku_id": order.sku.0,
        "repeat": order.repeat, "quantity": order.cards.len(), "cards": cards,
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
