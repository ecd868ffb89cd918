//! How a SKU is sold.

use crate::numbered::numbered;

numbered! {
    /// In which order the cards of a SKU are dealt: docs/cards.md.
    DealOrder: u16, "deal order" {
        Fifo = 1, "fifo", "what was imported first goes first";
        Lifo = 2, "lifo", "what was imported last goes first";
        Random = 3, "random", "any";
        ExpiryFirst = 4, "expiry-first", "what expires first goes first";
    }
}
