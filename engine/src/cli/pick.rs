//! `--card` and `--label` of `croupier issue` and `reserve`: an order for the one card that its caller picks.

use clap::Args;
use croupier_client::CardPick;
use croupier_protocol::CardRef;

use super::error::CliError;

/// Which card, if the caller picks one.
#[derive(Debug, Args)]
pub(super) struct PickArgs {
    /// Just this card of the SKU, as slab:slot
    #[arg(long, value_name = "CARD", conflicts_with_all = ["label", "wait", "partial"])]
    card: Option<CardRef>,
    /// Just one card of the SKU: any free one that was imported with this label
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["wait", "partial"])]
    label: Option<String>,
}

impl PickArgs {
    /// The pick, if there is one. The error: more cards than one are asked for.
    pub(super) fn of(&self, quantity: u16) -> Result<Option<CardPick>, CliError> {
        let card = self.card.map(CardPick::Card);
        let pick = card.or_else(|| self.label.clone().map(CardPick::Label));
        if pick.is_some() && quantity != 1 {
            let text = "--card and --label pick one card: leave --quantity out, and give each card its order";
            return Err(CliError::Usage(text.into()));
        }
        Ok(pick)
    }

    /// The same as words of a command.
    pub(super) fn words(&self) -> String {
        let card = self.card.map(|card| format!(" --card {card}"));
        let label = || {
            self.label
                .as_ref()
                .map(|label| format!(" --label '{label}'"))
        };
        card.or_else(label).unwrap_or_default()
    }
}
