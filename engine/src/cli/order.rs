//! `croupier order ID`, and how an order looks (the commands that change one print the same).

use std::process::ExitCode;

use clap::Args;
use croupier_protocol::{HeldOrder, IssuedOrder, OrderId, OrderOutcome};
use serde_json::{Value, json};

use super::Globals;
use super::connect::{ServerArgs, sku_name};
use super::error::CliError;
use super::print::{self, Facts, Grid};
use super::records::rfc3339;

/// Show what became of an order: its cards, or how its hold stands
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croupier order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10")]
pub(super) struct OrderArgs {
    /// The order's id, as UUID text
    id: OrderId,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: OrderArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    args.server.run(async |client| {
        let found = client.order(args.id).await?;
        let (state, order) = match found.ok_or(CliError::NoSuchOrder(args.id))? {
            OrderOutcome::Issued(order) => {
                let sku = sku_name(&client, order.sku).await?;
                return print_order(&order, &sku, globals.json);
            }
            OrderOutcome::Held(order) => (HELD, order),
            OrderOutcome::Cancelled(order) => (CANCELLED, order),
            OrderOutcome::Expired(order) => (EXPIRED, order),
            OrderOutcome::Waiting(order) => (WAITING, order),
            // The client makes an error of it.
            OrderOutcome::Refused { refusal, .. } => {
                return Err(CliError::Failed(refusal.to_string()));
            }
        };
        let sku = sku_name(&client, order.sku).await?;
        print_held(state, &order, &sku, globals.json)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `state` of an order, in JSON and for people.
pub(super) const HELD: &str = "held";
pub(super) const CANCELLED: &str = "cancelled";
pub(super) const EXPIRED: &str = "expired";
pub(super) const WAITING: &str = "waiting";

/// An order that holds cards, or did.
pub(super) fn print_held(
    state: &'static str,
    order: &HeldOrder,
    sku: &str,
    as_json: bool,
) -> Result<(), CliError> {
    held_facts(state, order, sku, as_json).print(as_json)
}

/// Numbers that say again what a name or a time says are for programs.
pub(super) fn held_facts(
    state: &'static str,
    order: &HeldOrder,
    sku: &str,
    as_json: bool,
) -> Facts {
    let mut facts = Facts::default()
        .with("order_id", order.order_id.to_string())
        .with("state", state)
        .with("lsn", order.lsn.0)
        .with("sku", sku)
        .with("quantity", order.quantity)
        .with("repeat", order.repeat);
    if as_json {
        facts = facts.with("sku_id", order.sku.0);
    }
    let Some(hold) = order.hold else { return facts };
    if as_json {
        facts = facts.with("ends_unix_ms", hold.ends_unix_ms);
    }
    let facts = facts.with("ends_at", rfc3339(hold.ends_unix_ms));
    match state {
        WAITING => facts,
        _ => facts.with("extensions", hold.extensions),
    }
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
        "order_id": order.order_id.to_string(), "state": "issued", "lsn": order.lsn.0, "sku": sku, "sku_id": order.sku.0,
        "repeat": order.repeat, "quantity": order.cards.len(), "cards": cards,
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
