//! The reasons to say no: refusals of requests, reasons of rejected import lines, faults of connections.
//!
//! All three are closed and their numbers are permanent: a number is never given another meaning. The tables here
//! equal those of `docs/wire-format.md`, and a test reads the page to make sure.

use crate::numbered::numbered;

numbered! {
    /// A domain reason to refuse an order or a request. Nothing was changed by what was refused.
    Refusal: u16, "refusal" {
        UnknownSku = 1, "UnknownSku", "there is no such SKU: create it, or import with create-sku";
        QuantityZero = 2, "QuantityZero", "the quantity must be at least 1";
        QuantityTooLarge = 3, "QuantityTooLarge", "the quantity is above the server's limit, or more than one frame can answer: split the order";
        OrderIdZero = 4, "OrderIdZero", "an order id of all zeros is not allowed: choose another id";
        OrderIdReused = 5, "OrderIdReused", "this id belongs to an order of another kind, SKU, quantity or holder: use a new id";
        OutOfStock = 6, "OutOfStock", "fewer cards are free than were asked for: import more, or ask for fewer";
        Busy = 7, "Busy", "the lane is full: try again after the given time";
        DeadlineExceeded = 8, "DeadlineExceeded", "the order was not dealt in time and nothing was taken: try again with the same id";
        OrderNotFound = 9, "OrderNotFound", "there is no order of this id";
        SkuExists = 10, "SkuExists", "a SKU of this name exists: use it, or choose another name";
        NameInvalid = 11, "NameInvalid", "a name is 1 to 64 bytes without control characters or white space at its ends";
        UnknownPriority = 12, "UnknownPriority", "the priority must be 0 (vip), 1 (standard), 2 (bulk) or 3 (background)";
        UnsupportedFlag = 13, "UnsupportedFlag", "a flag bit is set that this version does not know: send 0";
        DiskFull = 14, "DiskFull", "there is no room for the log or for slabs and nothing was taken: free some disk, then try again";
        ShuttingDown = 15, "ShuttingDown", "the server is shutting down: try again after the given time";
        StoreFailed = 16, "StoreFailed", "the disk failed a write: a server whose log it was stops; restart it, then ask again with the same ids";
        TooManyOrders = 17, "TooManyOrders", "more orders in one frame than the server takes: send several frames";
        NoImport = 18, "NoImport", "this connection has no open import of that id: begin one first";
        ImportOpen = 19, "ImportOpen", "this connection already has an open import: end it first";
        ImportTooFast = 20, "ImportTooFast", "more than 16 ImportRows frames are unanswered: wait for replies";
        RoutesInvalid = 21, "RoutesInvalid", "the route table was not accepted and nothing changed: mend the line that the text names";
        TooManySkus = 22, "TooManySkus", "the store's limit of SKUs is reached";
        TooManyImports = 23, "TooManyImports", "too many imports at once: try again after the given time";
        Malformed = 24, "Malformed", "the body cannot be read as its kind: the text says where";
        NoRoute = 25, "NoRoute", "no rule of the route table takes this order: add one";
        CardDamaged = 26, "CardDamaged", "a sealed card did not open, so its slab is damaged; the order stands: tell the operator";
        UnknownCard = 27, "UnknownCard", "there is no such card: a card is slab:slot.generation, as orders show it";
        UnknownBatch = 28, "UnknownBatch", "the SKU has no batch of this label";
        CardIssued = 29, "CardIssued", "an order has this card: only void with `issued` takes it, and nothing brings it back";
        CardNotInState = 30, "CardNotInState", "the card is not in a state from which this can be done";
        SelectionInvalid = 31, "SelectionInvalid", "say which cards: a SKU, a SKU and one of its batches, at most 1000 cards, or an order";
        AlreadyCommitted = 32, "AlreadyCommitted", "the order has its cards: look it up";
        AlreadyCancelled = 33, "AlreadyCancelled", "the order was cancelled and got nothing: use a new id";
        Expired = 34, "Expired", "the hold, or the wait for stock, is over, and there is no other card for it: use a new id";
        NoExtensionLeft = 35, "NoExtensionLeft", "the hold has been extended as often as it may be, or this extension is not the next one";
        TtlInvalid = 36, "TtlInvalid", "a hold lasts at least 1 ms and at most as long as the server's hold_ttl_max_ms";
        NotSoManyHeld = 37, "NotSoManyHeld", "the order holds fewer cards than are to be committed: commit what it holds, or a part";
        FeedTooOld = 38, "FeedTooOld", "the log before that LSN has been folded into a checkpoint: go on from the LSN that the text names, or from 0";
        FeedAhead = 39, "FeedAhead", "the log does not reach to that LSN: it is one of another store, or of this one before it was put back";
        StillWaiting = 40, "StillWaiting", "the order waits for stock: ask again when it has its cards, or cancel it";
        WaitInvalid = 41, "WaitInvalid", "an order that may wait needs a deadline, at most the server's wait_max_ms from now";
        LinkedRefused = 42, "LinkedRefused", "another order of the chain was refused, or stands already, so nothing was taken: look which";
        LinkInvalid = 43, "LinkInvalid", "a chain has 2 to 64 orders of different ids, none of which waits or takes a part, and ends within its frame";
        HoldShareReached = 44, "HoldShareReached", "as many of the SKU's cards are held as may be at once: try again when a hold has ended, or issue";
        SettingInvalid = 45, "SettingInvalid", "a deal order is 1 fifo, 2 lifo, 3 random or 4 expiry-first; a share is 0 to 100 per cent; a cap on cards needs a window, of ten years at most";
        PickInvalid = 46, "PickInvalid", "a pick is of one card, by its place or by its label: say one of them, and no quantity but 1";
        HolderCardsReached = 47, "HolderCardsReached", "the holder has as many cards of the SKU, in its window, as it may have: try again when the first of them are that old";
        HolderHoldsReached = 48, "HolderHoldsReached", "the holder has as many open holds and waiting orders as it may have: end one";
        HolderInvalid = 49, "HolderInvalid", "the key of a holder is 16 bytes, not all of them zero";
        MaxUsesInvalid = 50, "MaxUsesInvalid", "a card is dealt 1 to 65536 times, or without end: then an import has at most 64 cards; and no slab more than 67108864 uses";
        RoutesVersionUnknown = 51, "RoutesVersionUnknown", "that route table is not kept: the text names the versions that are";
        RoutesChanged = 52, "RoutesChanged", "another route table is in force than was expected, and nothing changed: look at it, then load again";
        DeliveryInvalid = 53, "DeliveryInvalid", "a delivery has at most 1024 rows, of one SKU and one pool";
        DeliveredMeanwhile = 54, "DeliveredMeanwhile", "cards of the import were delivered while it was under way: import again, and they are rejected as duplicates";
        ChannelUnknown = 55, "ChannelUnknown", "the route table in force has no issuer of this name: add a channel of kind issuer, or name another";
        JobOther = 56, "JobOther", "the delivery names another SKU than its job, and nothing changed: name that of the job";
        JobInvalid = 57, "JobInvalid", "a worker takes 1 to 4096 jobs at a time; a job is extended by 1 ms or more, or failed, with a reason of 256 bytes at most";
        TooManyWorkers = 58, "TooManyWorkers", "the channel has as many workers as it may have: let one go, or take more jobs with one";
        RetryInvalid = 59, "RetryInvalid", "say what is to be done, kick, bury or drain, and with which orders: a SKU's, those named, at most 1000, or all";
        CanaryRunning = 64, "CanaryRunning", "a canary is under way, and nothing changed: abort it first, or wait for its end";
        NoCanary = 65, "NoCanary", "no canary is under way, or none that this can be done to: see its status";
        CanarySame = 66, "CanarySame", "the table is the one in force, and nothing changed: there is nothing to compare";
        CanaryInvalid = 67, "CanaryInvalid", "the settings of the canary cannot be meant, and nothing changed: the text says which and why";
        CanaryChannel = 68, "CanaryChannel", "the table has a channel outside that the one in force has not, or with another source or pool, and nothing changed: load a table that has it first";
    }
}

impl Refusal {
    /// True if the very same request, sent again after `retry_after_ms`, may well be accepted.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Busy | Self::ShuttingDown | Self::TooManyImports)
    }
}

numbered! {
    /// How a job of a channel stands, as its worker is told.
    JobState: u16, "job state" {
        Done = 1, "done", "the job has what it asked for";
        UnderWay = 2, "under way", "the job wants more";
        Over = 3, "over", "the job has failed, or its lease is over: what was delivered is stock";
        Unknown = 4, "unknown", "no such job was given out here, or long ago: what was delivered is stock";
    }
}

numbered! {
    /// Why no channel has filled an order.
    RetryCause: u16, "cause" {
        NoChannel = 1, "no_channel", "no channel of its route takes part: none has a worker, or all are ejected";
        Failed = 2, "failed", "a worker has failed the job";
        TimedOut = 3, "timed_out", "the lease of the job ran out";
        WorkerGone = 4, "worker_gone", "the worker that had the job has gone";
        TooFew = 5, "too_few", "fewer cards were delivered than the job asked for";
        ForGood = 6, "for_good", "every channel of its route has failed it for good";
        Operator = 7, "operator", "an operator has buried it";
    }
}

numbered! {
    /// What a channel is.
    ChannelKind: u16, "kind" {
        Stock = 1, "stock", "pools of local stock";
        Issuer = 2, "issuer", "workers outside, which make or buy cards";
        Upstream = 3, "upstream", "another server";
    }
}

numbered! {
    /// How a channel that is outside stands.
    ChannelStanding: u16, "standing" {
        Healthy = 1, "healthy", "the channel is asked as the route table says";
        Ejected = 2, "ejected", "the channel is not asked for a while";
        Probing = 3, "probing", "the channel is asked for a few cards, to see whether it is well";
    }
}

numbered! {
    /// Why a channel stands as it does.
    ChannelCause: u16, "cause" {
        ConsecutiveFailures = 1, "consecutive_failures", "so many jobs in a row have failed or timed out";
        FailurePercentage = 2, "failure_percentage", "too large a share of its jobs has failed";
        SlowPercentage = 3, "slow_percentage", "too large a share of its jobs was slow";
        ProbeFailed = 4, "probe_failed", "a job that it was tried with has failed, or was slow";
        EjectionOver = 5, "ejection_over", "the time of its ejection is over";
        ProbesFilled = 6, "probes_filled", "it has done the jobs that it was tried with";
        Operator = 7, "operator", "an operator has said so";
    }
}

numbered! {
    /// Why a line of an import was not accepted.
    RejectReason: u16, "reject reason" {
        EmptySecret = 1, "empty_secret", "the secret is empty";
        TooLong = 2, "too_long", "the secret is longer than 4096 bytes";
        InvalidUtf8 = 3, "invalid_utf8", "the line is not valid UTF-8";
        WrongColumnCount = 4, "wrong_column_count", "the line has another number of columns than the header";
        BadExpiry = 5, "bad_expiry", "the expiry is not a date or time that can be read";
        DuplicateInFile = 6, "duplicate_in_file", "an earlier line of this import has the same secret";
        DuplicateInStock = 7, "duplicate_in_stock", "a card with the same secret was imported before";
        Expired = 8, "expired", "the card has already expired";
        BadAmount = 9, "bad_amount", "the amount is not a number that can be read";
        LabelTooLong = 10, "label_too_long", "the label is longer than 256 bytes";
        BadQuoting = 11, "bad_quoting", "a quote is opened and never closed";
    }
}

numbered! {
    /// Why a connection was closed.
    FaultCode: u16, "fault" {
        FrameTooShort = 1, "FrameTooShort", "a frame's length was below the 24 bytes of its header";
        FrameTooLong = 2, "FrameTooLong", "a frame was longer than frame_bytes_max";
        BadMagic = 3, "BadMagic", "these bytes are not a Croupier frame: is this the right port?";
        UnsupportedVersion = 4, "UnsupportedVersion", "the two sides share no protocol version: upgrade the older one";
        BadChecksum = 5, "BadChecksum", "a frame was damaged on its way";
        UnknownKind = 6, "UnknownKind", "a frame was of a kind that this version does not know";
        HelloExpected = 7, "HelloExpected", "a request came before Hello";
        HelloTwice = 8, "HelloTwice", "Hello was said twice on one connection";
        TimedOut = 9, "TimedOut", "no Hello within 10 s, or a frame begun and not finished within 30 s";
        TooManyConnections = 10, "TooManyConnections", "the server has no room for another connection: use fewer, or try later";
        Malformed = 11, "Malformed", "a fixed body was shorter or longer than its count says";
        UnsupportedFlag = 12, "UnsupportedFlag", "a header flag was set that a client may not set";
    }
}
