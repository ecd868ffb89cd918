//! `croupier stock`: how many cards of which SKU.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::print::{self, Grid};

/// Show how many cards of each SKU are free, held, issued and void
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croupier stock --sku steam-50 --json")]
pub(super) struct StockArgs {
    /// Only this SKU
    #[arg(long, value_name = "NAME")]
    sku: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: StockArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let rows = args
        .server
        .run(async |client| Ok(client.stock(args.sku.as_deref()).await?))?;
    if globals.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "sku": row.name, "sku_id": row.sku, "free": row.free, "held": row.held,
                    "issued": row.issued, "void": row.void, "imported": row.imported,
                })
            })
            .collect();
        print::json(&rows)?;
    } else {
        let mut grid = Grid::new(&[
            "sku",
            ">id",
            ">free",
            ">held",
            ">issued",
            ">void",
            ">imported",
        ]);
        for row in rows {
            let counts = [row.free, row.held, row.issued, row.void, row.imported];
            grid.row(
                [row.name, row.sku.to_string()]
                    .into_iter()
                    .chain(counts.map(|count| count.to_string())),
            );
        }
        grid.print()?;
    }
    Ok(ExitCode::SUCCESS)
}
