//! `croupier sku create|list`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use croupier_client::{DealOrder, SkuSetReply};
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
    /// Say how a SKU is sold: which card goes first, and how many may be held
    #[command(after_help = "\
Examples:
  croupier sku set steam-50 --selection expiry-first
  croupier sku set steam-50 --hold-share-max 50     (at most half of what is free and held may be held)")]
    Set {
        /// Its name
        name: String,
        /// Which card is dealt next
        #[arg(long, value_name = "ORDER", value_parser = deal_order, required_unless_present = "hold_share_max")]
        selection: Option<DealOrder>,
        /// How much of what is free and held may be held at once, in per cent; 100 is all of it
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u16).range(0..=100))]
        hold_share_max: Option<u16>,
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
    Facts::default()
        .with("sku", name)
        .with("sku_id", set.sku)
        .with("selection", selection)
        .with("hold_share_max_percent", set.hold_share_max_percent)
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
            server,
        } => {
            let set = server
                .run(async |client| Ok(client.sku_set(&name, selection, hold_share_max).await?))?;
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
