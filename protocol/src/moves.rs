//! What cards are, and what operators do to them.

use crate::numbered::numbered;

numbered! {
    /// A way that cards go: docs/cards.md.
    CardMove: u16, "card move" {
        Suspend = 1, "suspend", "out of sale for a while";
        Resume = 2, "resume", "back into sale";
        Void = 3, "void", "out of sale for good";
    }
}

numbered! {
    /// What a card is just now: docs/cards.md. The numbers are those of the log.
    CardStatus: u16, "card status" {
        Free = 1, "free", "for sale";
        Issued = 2, "issued", "an order has it, or is just getting it";
        Suspended = 3, "suspended", "out of sale for a while";
        Void = 4, "void", "out of sale for good";
    }
}
