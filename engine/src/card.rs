//! What a card is just now, and which ways lead from there: docs/cards.md in code.

/// What a card is just now. The numbers are those of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CardStatus {
    /// For sale.
    Free = 1,
    /// An order has it, or is just getting it.
    Issued = 2,
    /// Out of sale for a while.
    Suspended = 3,
    /// Out of sale for good.
    Void = 4,
}

impl CardStatus {
    /// As people say it.
    pub const fn name(self) -> &'static str {
        match self {
            CardStatus::Free => "free",
            CardStatus::Issued => "issued",
            CardStatus::Suspended => "suspended",
            CardStatus::Void => "void",
        }
    }
}

impl TryFrom<u8> for CardStatus {
    type Error = String;

    fn try_from(number: u8) -> Result<CardStatus, String> {
        use CardStatus::*;
        let found = [Free, Issued, Suspended, Void]
            .into_iter()
            .find(|status| *status as u8 == number);
        found.ok_or_else(|| {
            format!("card status {number}, which this version does not know: use a newer croupier")
        })
    }
}

/// Why a card moves. The numbers are those of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// An operator said so.
    Operator = 1,
    /// They were about to expire.
    Expired = 2,
}

impl Cause {
    /// As people say it.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Operator => "operator",
            Cause::Expired => "expired",
        }
    }
}

impl TryFrom<u8> for Cause {
    type Error = String;

    fn try_from(number: u8) -> Result<Cause, String> {
        match number {
            1 => Ok(Cause::Operator),
            2 => Ok(Cause::Expired),
            _ => Err(format!(
                "cause {number} of a move, which this version does not know: use a newer croupier"
            )),
        }
    }
}

/// Whether a record may move cards this way. All else that becomes of cards is the orders' doing.
pub const fn is_move(from: CardStatus, to: CardStatus) -> bool {
    use CardStatus::{Free, Issued, Suspended, Void};
    matches!(
        (from, to),
        (Free, Suspended | Void) | (Suspended, Free | Void) | (Issued, Void)
    )
}
