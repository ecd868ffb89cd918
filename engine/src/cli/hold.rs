//! `croupier reserve`, `commit`, `cancel` and `extend`: an order in two phases.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use croupier_client::{Client, DEFAULT_TTL, Order, OrderOutcome};
use croupier_protocol::{HeldOrder, OrderId, Priority, SkuId};

use super::Globals;
use super::connect::{ServerArgs, sku_name};
use super::error::CliError;
use super::holder::HolderArgs;
use super::issue::WaitArgs;
use super::linked::LinkedArgs;
use super::order::{CANCELLED, HELD, WAITING, print_held, print_order};
use super::pick::PickArgs;

/// Put cards of a SKU by for a while, under an order id
///
/// No secret is shown, and no card is bound unless you pick one: `commit` does that, `cancel` gives the cards back, and when the
/// time is up the server does. Asking again with the same order id, quantity and time gets the same answer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier reserve --sku steam-50
  croupier reserve --sku steam-50 --quantity 3 --ttl 2h --json
  croupier reserve --linked steam-50:2 gift-100 --ttl 2h
  croupier reserve --sku steam-50 --card 3:17 --bind now
  croupier reserve --sku steam-50 --order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10")]
pub(super) struct ReserveArgs {
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
    /// How long the hold lasts from now, as 90s, 15m or 1h30m [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,
    /// vip, standard, bulk or background
    #[arg(long, value_name = "P", default_value_t = Priority::Standard)]
    priority: Priority,
    /// Hold fewer cards if there are not so many; fail only if there is none
    #[arg(long, conflicts_with = "wait")]
    partial: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    pick: PickArgs,
    #[command(flatten)]
    holder: HolderArgs,
    /// When the card is bound: "commit", or "now", which goes with --card and --label, and they with it [default: commit]
    #[arg(long, value_name = "WHEN")]
    bind: Option<Bind>,
    #[command(flatten)]
    server: ServerArgs,
}

/// When cards are bound to a reserve.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Bind {
    Commit,
    Now,
}

/// Turn an order's hold into cards and print their secrets
///
/// Asking again gets the same cards again. What is not committed goes back to stock. If the hold has expired, the order
/// gets other cards of the SKU if enough are free.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier commit 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10
  croupier commit 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10 --quantity 2 --only-held --json")]
pub(super) struct CommitArgs {
    /// The order's id, as UUID text
    order: OrderId,
    /// How many of the held cards; 0 stands for all [default: all]
    #[arg(long, value_name = "N")]
    quantity: Option<u16>,
    /// Refuse if the hold has expired, even if there are other cards
    #[arg(long)]
    only_held: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// End an order's hold and give its cards back to stock
///
/// There is no way back: the order id is used up.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croupier cancel 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10")]
pub(super) struct CancelArgs {
    /// The order's id, as UUID text
    order: OrderId,
    #[command(flatten)]
    server: ServerArgs,
}

/// Give an order's hold more time
///
/// The hold lasts the given time from now. The server limits how often a hold can be extended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier extend 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10
  croupier extend 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10 --nth 1 --ttl 30m")]
pub(super) struct ExtendArgs {
    /// The order's id, as UUID text
    order: OrderId,
    /// Which extension of this hold it is, from 1; with it the command can be repeated safely [default: the next one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    nth: Option<u16>,
    /// How long the hold lasts from now, as 90s, 15m or 1h30m [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn reserve(args: ReserveArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let ttl = args.ttl.unwrap_or(DEFAULT_TTL);
    let pick = args.pick.of(args.quantity)?;
    let text = match (&pick, args.bind == Some(Bind::Now)) {
        (Some(_), false) => {
            Some("a reserve that picks its card binds it at once: say so with --bind now")
        }
        (None, true) => Some(
            "--bind now is for a card that you pick: say which with --card or --label; others are bound by the commit",
        ),
        _ => None,
    };
    if let Some(text) = text {
        return Err(CliError::Usage(text.into()));
    }
    let Some(name) = &args.sku else {
        let linked = &args.linked;
        linked.run(
            &args.server,
            args.priority,
            Some(ttl),
            &args.holder,
            globals,
        )?;
        return Ok(ExitCode::SUCCESS);
    };
    let order_id = args.order.unwrap_or_else(OrderId::new_v7);
    let order = args.server.run(async |client| {
        let sku = client.sku_id(name).await?;
        let order = Order::new(order_id, sku)
            .quantity(args.quantity)
            .priority(args.priority);
        let order = args.holder.of(order);
        let named = |error| {
            CliError::of_step(error, order_id, || {
                format!(
                    "reserve --sku '{}' --order {order_id} --quantity {} --ttl {}ms{}{}{}{}{}",
                    name,
                    args.quantity,
                    ttl.as_millis(),
                    if args.partial { " --partial" } else { "" },
                    args.wait.words(),
                    args.pick.words(),
                    if pick.is_some() { " --bind now" } else { "" },
                    args.holder.words(),
                )
            })
        };
        if let Some(pick) = &pick {
            let held = client.reserve_card(order, ttl, pick).await;
            return held.map(Some).map_err(named);
        }
        let Some(within) = args.wait.wait else {
            let held = if args.partial {
                client.reserve_part(order, ttl).await
            } else {
                client.reserve(order, ttl).await
            };
            return match held {
                Err(croupier_client::Error::Accepted { waits }) => {
                    print_held(WAITING, &waits, name, globals.json)?;
                    Ok(None)
                }
                held => held.map(Some).map_err(named),
            };
        };
        let outcome = client.reserve_or_wait(order, ttl, within).await;
        match outcome.map_err(named)? {
            OrderOutcome::Held(held) => Ok(Some(held)),
            OrderOutcome::Waiting(waits) => {
                if args.wait.ends_waiting(&waits, name, globals)? {
                    return Ok(None);
                }
                let held = client.reserve_waiting(order, ttl, within).await;
                // Asked twice, but by one command.
                let repeat = waits.repeat;
                let once = |held| HeldOrder { repeat, ..held };
                held.map(|held| Some(once(held))).map_err(named)
            }
            outcome => Err(CliError::Failed(format!("the server answers {outcome:?}"))),
        }
    })?;
    if let Some(order) = order {
        print_held(HELD, &order, name, globals.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn commit(args: CommitArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let quantity = args.quantity.unwrap_or(0);
    let (order, sku) = args.server.run(async |client| {
        let committed = if args.only_held {
            client.commit_only_held(args.order, quantity).await
        } else {
            client.commit_part(args.order, quantity).await
        };
        let order = committed.map_err(|error| {
            CliError::of_step(error, args.order, || {
                let only_held = if args.only_held { " --only-held" } else { "" };
                format!("commit {} --quantity {quantity}{only_held}", args.order)
            })
        })?;
        let sku = name_or_number(&client, order.sku).await;
        Ok((order, sku))
    })?;
    print_order(&order, &sku, globals.json)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn cancel(args: CancelArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let (order, sku) = args.server.run(async |client| {
        let order = client.cancel(args.order).await.map_err(|error| {
            CliError::of_step(error, args.order, || format!("cancel {}", args.order))
        })?;
        let sku = name_or_number(&client, order.sku).await;
        Ok((order, sku))
    })?;
    print_held(CANCELLED, &order, &sku, globals.json)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn extend(args: ExtendArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let ttl = args.ttl.unwrap_or(DEFAULT_TTL);
    let (order, sku) = args.server.run(async |client| {
        let nth = match args.nth {
            Some(nth) => nth,
            None => next_extension(&client, args.order).await?,
        };
        let extended = client.extend(args.order, nth, ttl).await;
        let order = extended.map_err(|error| {
            CliError::of_step(error, args.order, || {
                let ttl_ms = ttl.as_millis();
                format!("extend {} --nth {nth} --ttl {ttl_ms}ms", args.order)
            })
        })?;
        let sku = name_or_number(&client, order.sku).await;
        Ok((order, sku))
    })?;
    print_held(HELD, &order, &sku, globals.json)?;
    Ok(ExitCode::SUCCESS)
}

/// The extension that a hold would have next. Of an order without a hold any number will do: the server says why not.
async fn next_extension(client: &Client, order_id: OrderId) -> Result<u16, CliError> {
    let hold = match client.order(order_id).await? {
        Some(OrderOutcome::Held(order)) => order.hold,
        _ => None,
    };
    Ok(hold.map_or(1, |hold| hold.extensions.saturating_add(1)))
}

/// The name of a SKU for what has been done already: no failure may hide that.
async fn name_or_number(client: &Client, sku: SkuId) -> String {
    sku_name(client, sku)
        .await
        .unwrap_or_else(|_| format!("#{sku}"))
}

/// Reads how long a hold lasts: whole milliseconds, as many as can be sent.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    let read: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write it like 90s, 15m, 1h30m or 500ms".to_owned())?;
    match read.as_millis() {
        ..=0 => Err("a hold lasts at least 1 ms".to_owned()),
        ms if ms <= i128::from(u32::MAX) => Ok(read.unsigned_abs()),
        _ => Err("a hold lasts at most 49 days".to_owned()),
    }
}
