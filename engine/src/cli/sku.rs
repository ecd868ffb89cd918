//! `croupier sku create|list`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use croupier_client::{DealOrder, HolderCap, SkuSetReply, SkuSettings};
use croupier_protocol::HOLDER_WINDOW_MS_MAX;
use serde_json::{Value, json};

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::print::{self, Facts, Grid};

/// Make SKUs and list them
#[derive(Debug, Args)]
pub(super) struct SkuArgs {
    #[command(subcommand)]
    command: SkuCommand,
}

#[derive(Debug, Subcommand)]
enum SkuCommand {
    /// Make a SKU
    #[command(after_help = "Example:\n  croupier sku create steam-50")]
    Create {
        /// 1 to 64 bytes, no control characters
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Say how a SKU is sold: which card goes first, how many may be held, and how many a holder may get
    #[command(after_help = "\
Examples:
  croupier sku set steam-50 --selection expiry-first
  croupier sku set steam-50 --hold-share-max 50     (at most half of what is free and held may be held)
  croupier sku set steam-50 --holder-cards-max 2 --holder-window 24h")]
    Set {
        /// Its name
        name: String,
        /// Which card is dealt next
        #[arg(long, value_name = "ORDER", value_parser = deal_order, required_unless_present_any = ["hold_share_max", "holder_cards_max", "holder_window"])]
        selection: Option<DealOrder>,
        /// How much of what is free and held may be held at once, in per cent; 100 is all of it
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u16).range(0..=100))]
        hold_share_max: Option<u16>,
        /// How many cards a holder may get within the window; 0 is as many as there are
        #[arg(long, value_name = "N")]
        holder_cards_max: Option<u32>,
        /// The time in which the cards of a holder are counted, as 90s, 15m or 24h
        #[arg(long, value_name = "TIME", value_parser = window_ms)]
        holder_window: Option<u64>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show how a SKU is sold
    #[command(after_help = "Example:\n  croupier sku show steam-50 --json")]
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the SKUs with their numbers
    #[command(after_help = "Example:\n  croupier sku list --json")]
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
}

fn deal_order(text: &str) -> Result<DealOrder, String> {
    let found = DealOrder::ALL
        .into_iter()
        .find(|order| order.name() == text);
    found.ok_or_else(|| "a selection is fifo, lifo, random or expiry-first".into())
}

fn settings(name: &str, set: &SkuSetReply) -> Facts {
    let order = DealOrder::try_from(set.deal_order);
    let selection = order.map_or_else(|_| set.deal_order.to_string(), |order| order.name().into());
    let facts = Facts::default()
        .with("sku", name)
        .with("sku_id", set.sku)
        .with("selection", selection)
        .with("hold_share_max_percent", set.hold_share_max_percent);
    match set.holder.0 {
        Some(cap) => facts
            .with("holder_cards_max", cap.cards_max.unwrap_or(0))
            .with("holder_window_ms", cap.window_ms.unwrap_or(0)),
        None => facts,
    }
}

/// Reads the time in which cards are counted, in whole milliseconds.
fn window_ms(text: &str) -> Result<u64, String> {
    let read: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write it like 90s, 15m or 24h".to_owned())?;
    match u64::try_from(read.as_millis()) {
        Ok(ms @ 1..=HOLDER_WINDOW_MS_MAX) => Ok(ms),
        _ => Err("a window is 1 ms to ten years long".to_owned()),
    }
}

pub(super) fn run(args: SkuArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    match args.command {
        SkuCommand::Create { name, server } => {
            let sku = server.run(async |client| Ok(client.sku_create(&name).await?))?;
            Facts::default()
                .with("sku", name)
                .with("sku_id", sku.0)
                .print(globals.json)?;
        }
        SkuCommand::Set {
            name,
            selection,
            hold_share_max,
            holder_cards_max,
            holder_window,
            server,
        } => {
            let changed = SkuSettings {
                deal_order: selection,
                hold_share_max_percent: hold_share_max,
                holder_cap: HolderCap {
                    cards_max: holder_cards_max,
                    window_ms: holder_window,
                },
            };
            let set = server.run(async |client| Ok(client.sku_set(&name, &changed).await?))?;
            settings(&name, &set)
                .with("lsn", set.lsn)
                .print(globals.json)?;
        }
        SkuCommand::Show { name, server } => {
            let set = server.run(async |client| Ok(client.sku_settings(&name).await?))?;
            settings(&name, &set).print(globals.json)?;
        }
        SkuCommand::List { server } => {
            let skus = server.run(async |client| Ok(client.sku_list().await?))?;
            if globals.json {
                let rows: Vec<Value> = skus
                    .iter()
                    .map(|row| json!({ "sku": row.name, "sku_id": row.sku }))
                    .collect();
                print::json(&rows)?;
            } else {
                let mut grid = Grid::new(&["sku", ">id"]);
                for row in skus {
                    grid.row([row.name, row.sku.to_string()]);
                }
                grid.print()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
