//! `croupier issue`: one order, its cards on stdout.

use std::process::ExitCode;

use clap::Args;
use croupier_client::Order;
use croupier_protocol::{OrderId, Priority};

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::order::print_order;

/// Deal cards of a SKU under an order id and print their secrets
///
/// Asking again with the same order id gets the same cards again, and no others.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier issue --sku steam-50
  croupier issue --sku steam-50 --quantity 3 --priority vip --json
  croupier issue --sku steam-50 --order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10")]
pub(super) struct IssueArgs {
    /// The SKU's name
    #[arg(long, value_name = "NAME")]
    sku: String,
    /// The order's id, as UUID text [default: a new UUIDv7]
    #[arg(long, value_name = "ID")]
    order: Option<OrderId>,
    /// How many cards
    #[arg(long, value_name = "N", default_value_t = 1)]
    quantity: u16,
    /// vip, standard, bulk or background
    #[arg(long, value_name = "P", default_value_t = Priority::Standard)]
    priority: Priority,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: IssueArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let order_id = args.order.unwrap_or_else(OrderId::new_v7);
    let order = args.server.run(async |client| {
        let sku = client.sku_id(&args.sku).await?;
        let order = Order::new(order_id, sku)
            .quantity(args.quantity)
            .priority(args.priority);
        client.issue(order).await.map_err(|error| {
            CliError::of_step(error, order_id, || {
                format!(
                    "issue --sku '{}' --order {order_id} --quantity {}",
                    args.sku, args.quantity
                )
            })
        })
    })?;
    print_order(&order, &args.sku, globals.json)?;
    Ok(ExitCode::SUCCESS)
}
