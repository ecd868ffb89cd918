//! What operators do to cards.

use crate::numbered::numbered;

numbered! {
    /// A way that cards go: docs/cards.md.
    CardMove: u16, "card move" {
        Suspend = 1, "suspend", "out of sale for a while";
        Resume = 2, "resume", "back into sale";
        Void = 3, "void", "out of sale for good";
    }
}
