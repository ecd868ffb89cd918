//! `croupier suspend`, `resume` and `void`: cards out of sale, and back.

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use croupier_client::CardSelection;
use croupier_protocol::{CardMove, CardRef, OrderId};

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::print::{self, Facts};

/// Take cards out of sale for a while
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").args(["sku", "card"]).required(true))]
#[command(after_help = "\
Examples:
  croupier suspend --sku steam-50 --batch 2026-11-21-a
  croupier suspend --card 3:17 --card 3:18")]
pub(super) struct SuspendArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Put suspended cards back into sale
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").args(["sku", "card"]).required(true))]
#[command(after_help = "Example:\n  croupier resume --sku steam-50 --batch 2026-11-21-a")]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Take cards out of sale for good
///
/// There is no way back. The answer of an order whose cards are voided stays as it is.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").args(["sku", "card", "order"]).required(true))]
#[command(after_help = "\
Examples:
  croupier void --sku steam-50 --batch 2026-11-21-a
  croupier void --sku steam-50 --batch 2026-11-21-a --issued
  croupier void --order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10 --issued")]
pub(super) struct VoidArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// The cards of this order; needs --issued
    #[arg(long, value_name = "ID", requires = "issued")]
    order: Option<OrderId>,
    /// Also cards that orders have
    #[arg(long)]
    issued: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Which cards.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("part").args(["batch", "all"]))]
struct WhichArgs {
    /// Cards of this SKU: of one batch of it (--batch), or all of them (--all)
    #[arg(long, value_name = "NAME", requires = "part")]
    sku: Option<String>,
    /// Only those of the batch with this label
    #[arg(long, value_name = "LABEL", requires = "sku")]
    batch: Option<String>,
    /// All cards of the SKU
    #[arg(long, requires = "sku")]
    all: bool,
    /// This card, as slab:slot; may be given several times, and then all or none of them go
    #[arg(long, value_name = "CARD")]
    card: Vec<CardRef>,
}

impl WhichArgs {
    fn selection(self) -> CardSelection {
        match (self.sku, self.batch) {
            (Some(sku), Some(label)) => CardSelection::Batch { sku, label },
            (Some(sku), None) => CardSelection::Sku(sku),
            (None, _) => CardSelection::Cards(self.card),
        }
    }
}

pub(super) fn suspend(args: SuspendArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let which = args.which.selection();
    run(&which, CardMove::Suspend, false, &args.server, globals)
}

pub(super) fn resume(args: ResumeArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let which = args.which.selection();
    run(&which, CardMove::Resume, false, &args.server, globals)
}

pub(super) fn void(args: VoidArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let which = match args.order {
        Some(order) => CardSelection::Order(order),
        None => args.which.selection(),
    };
    run(&which, CardMove::Void, args.issued, &args.server, globals)
}

fn run(
    which: &CardSelection,
    card_move: CardMove,
    issued: bool,
    server: &ServerArgs,
    globals: &Globals,
) -> Result<ExitCode, CliError> {
    let done =
        server.run(async |client| Ok(client.move_cards(which, card_move, issued).await?))?;
    if globals.json {
        Facts::default()
            .with("moved", done.moved)
            .with("lsn", done.lsn)
            .print(true)?;
    } else if done.moved == 0 {
        print::line("no card could go this way: `croupier stock` shows what there is")?;
    } else {
        let cards = if done.moved == 1 { "card" } else { "cards" };
        print::line(&format!(
            "{} {cards} {card_move} since lsn {}",
            done.moved, done.lsn
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
