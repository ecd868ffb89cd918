//! The words of the change feed: docs/feed.md.

use crate::numbered::numbered;

numbered! {
    /// What a fact of the feed tells. The numbers are those of the records of the log.
    FeedKind: u16, "kind of a fact" {
        Started = 1, "started", "the server began an epoch of the log";
        SkuCreated = 2, "sku-created", "a SKU was made";
        BatchSealed = 4, "batch-sealed", "a batch is for sale";
        Issued = 5, "issued", "an order has got its cards";
        RoutesLoaded = 6, "routes-loaded", "another route table is in force";
        CardsMoved = 7, "cards-moved", "cards have left the stock, or come back, otherwise than by orders";
        Reserved = 8, "reserved", "an order holds cards";
        Extended = 9, "extended", "a hold has got more time";
        Released = 10, "released", "a hold has ended without cards, or an order has waited in vain";
        Backordered = 11, "backordered", "an order waits for stock";
        SkuSet = 12, "sku-set", "a SKU is sold in another way";
        CardsAdded = 14, "cards-added", "cards were delivered, and are for sale";
        Retried = 15, "retried", "no channel could fill an order that waits, or it is to be tried again";
        ChannelChanged = 16, "channel-changed", "a channel is ejected, tried, or healthy again";
        Canary = 17, "canary", "a route table is tried on a share of orders, or what became of it";
    }
}

numbered! {
    /// How an order came to its cards.
    IssueWay: u16, "way of an issue" {
        AtOnce = 0, "at-once", "at once";
        Commit = 1, "commit", "from its hold";
        LateCommit = 2, "late-commit", "when its hold had expired";
        Filled = 3, "filled", "when it had waited for stock";
        Part = 4, "part", "at once, fewer than it asked for";
    }
}

numbered! {
    /// Why a hold has ended without cards.
    HoldEnd: u16, "end of a hold" {
        Cancelled = 1, "cancelled", "its caller gave it back";
        Expired = 2, "expired", "its time was up";
    }
}

numbered! {
    /// Why cards have moved.
    MoveCause: u16, "cause of a move" {
        Operator = 1, "operator", "an operator said so";
        Expired = 2, "expired", "they were about to expire";
    }
}
