//! `croupier issue`: one order, its cards on stdout.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use croupier_client::{Order, OrderOutcome};
use croupier_protocol::{HeldOrder, IssuedOrder, OrderId, Priority};

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::hold::ttl;
use super::holder::HolderArgs;
use super::linked::LinkedArgs;
use super::order::{WAITING, print_held, print_order};
use super::pick::PickArgs;
use super::records::rfc3339;

/// What an order does that finds no stock.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// If there is no stock, wait for some, at most for so long, as 90s, 15m or 1h30m; the order keeps its place in the line
    /// whatever becomes of this command
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    pub(super) wait: Option<Duration>,
    /// Do not stay until there is stock: print that the order waits, and end
    #[arg(long, requires = "wait")]
    pub(super) detach: bool,
}

impl WaitArgs {
    /// The same as words of a command.
    pub(super) fn words(&self) -> String {
        let wait = self
            .wait
            .map(|wait| format!(" --wait {}ms", wait.as_millis()));
        wait.unwrap_or_default()
    }

    /// Whether the answer is that the order waits.
    pub(super) fn ends_waiting(
        &self,
        order: &HeldOrder,
        sku: &str,
        globals: &Globals,
    ) -> Result<bool, CliError> {
        if self.detach {
            print_held(WAITING, order, sku, globals.json)?;
        } else if !globals.json {
            let until = order.hold.map_or(0, |hold| hold.ends_unix_ms);
            eprintln!(
                "order {} waits for stock of {sku} until {}; it goes on waiting if you stop this command",
                order.order_id,
                rfc3339(until)
            );
        }
        Ok(self.detach)
    }
}

/// Deal cards of a SKU under an order id and print their secrets
///
/// Asking again with the same order id gets the same cards again, and no others.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier issue --sku steam-50
  croupier issue --sku steam-50 --quantity 3 --priority vip --json
  croupier issue --sku steam-50 --wait 1h
  croupier issue --linked steam-50:2 gift-100
  croupier issue --sku steam-50 --label VIP-0001
  croupier issue --sku steam-50 --order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10")]
pub(super) struct IssueArgs {
    /// The SKU's name
    #[arg(long, value_name = "NAME", required_unless_present = "linked")]
    sku: Option<String>,
    #[command(flatten)]
    linked: LinkedArgs,
    /// The order's id, as UUID text [default: a new UUIDv7]
    #[arg(long, value_name = "ID")]
    order: Option<OrderId>,
    /// How many cards
    #[arg(long, value_name = "N", default_value_t = 1)]
    quantity: u16,
    /// vip, standard, bulk or background
    #[arg(long, value_name = "P", default_value_t = Priority::Standard)]
    priority: Priority,
    /// Take fewer cards if there are not so many; fail only if there is none
    #[arg(long, conflicts_with = "wait")]
    partial: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    pick: PickArgs,
    #[command(flatten)]
    holder: HolderArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: IssueArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let Some(name) = &args.sku else {
        let linked = &args.linked;
        linked.run(&args.server, args.priority, None, &args.holder, globals)?;
        return Ok(ExitCode::SUCCESS);
    };
    let order_id = args.order.unwrap_or_else(OrderId::new_v7);
    let pick = args.pick.of(args.quantity)?;
    let order = args.server.run(async |client| {
        let sku = client.sku_id(name).await?;
        let order = Order::new(order_id, sku)
            .quantity(args.quantity)
            .priority(args.priority);
        let order = args.holder.of(order);
        let named = |error| {
            CliError::of_step(error, order_id, || {
                format!(
                    "issue --sku '{}' --order {order_id} --quantity {}{}{}{}{}",
                    name,
                    args.quantity,
                    if args.partial { " --partial" } else { "" },
                    args.wait.words(),
                    args.pick.words(),
                    args.holder.words()
                )
            })
        };
        if let Some(pick) = &pick {
            let issued = client.issue_card(order, pick).await;
            return issued.map(Some).map_err(named);
        }
        let Some(within) = args.wait.wait else {
            let issued = if args.partial {
                client.issue_part(order).await
            } else {
                client.issue(order).await
            };
            return match issued {
                // Its cards come from outside, and have not come in the time of a call.
                Err(croupier_client::Error::Accepted { waits }) => {
                    print_held(WAITING, &waits, name, globals.json)?;
                    Ok(None)
                }
                issued => issued.map(Some).map_err(named),
            };
        };
        let waits = match client.issue_or_wait(order, within).await.map_err(named)? {
            OrderOutcome::Waiting(waits) => waits,
            outcome => return Ok(outcome.into_issued()),
        };
        if args.wait.ends_waiting(&waits, name, globals)? {
            return Ok(None);
        }
        let issued = client.issue_waiting(order, within).await.map_err(named)?;
        // Asked twice, but by one command.
        Ok(Some(IssuedOrder {
            repeat: waits.repeat,
            ..issued
        }))
    })?;
    if let Some(order) = order {
        print_order(&order, name, globals.json)?;
    }
    Ok(ExitCode::SUCCESS)
}
