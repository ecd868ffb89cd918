//! `croupier sku create|list`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
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
    /// List the SKUs with their numbers
    #[command(after_help = "Example:\n  croupier sku list --json")]
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
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
