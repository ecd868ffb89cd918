//! Control bodies: what operators and importers say. The only module that knows bincode.
//!
//! These bodies are bincode 2 in its legacy configuration (fixed-width little-endian integers, u64 lengths); the page
//! lists them field by field, and the fields here stand in that order. None of them is on the order's way.

use bincode::config::{self, Config};
use bincode::de::read::Reader;
use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use bytes::BytesMut;

use crate::body::BodyError;
use crate::limits::{FRAME_BYTES_MAX_DEFAULT, FRAME_BYTES_MAX_LIMIT};
use crate::uses::MaxUses;

/// A body that is one bincode value.
pub trait ControlBody: Encode + Decode<()> {
    /// Its name on the wire page, for errors.
    const NAME: &'static str;
}

/// The last field of a body that came later than the body: `None` is no byte at all, so a body that does without it is the one
/// that there was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailing<T>(pub Option<T>);

impl<T> Default for Trailing<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Encode> Encode for Trailing<T> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.iter().try_for_each(|value| value.encode(encoder))
    }
}

impl<Context, T: Decode<Context>> Decode<Context> for Trailing<T> {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match decoder.reader().peek_read(1) {
            None => Ok(Self(None)),
            Some(_) => T::decode(decoder).map(|value| Self(Some(value))),
        }
    }
}

impl<'de, Context, T: BorrowDecode<'de, Context>> BorrowDecode<'de, Context> for Trailing<T> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        match decoder.reader().peek_read(1) {
            None => Ok(Self(None)),
            Some(_) => T::borrow_decode(decoder).map(|value| Self(Some(value))),
        }
    }
}

/// How many cards of a SKU a holder may get, and within which time. What is `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct HolderCap {
    /// Most cards; 0 = as many as there are.
    pub cards_max: Option<u32>,
    /// Within any time of this length, in milliseconds.
    pub window_ms: Option<u64>,
}

macro_rules! control_bodies {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })+) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl ControlBody for $name {
            const NAME: &'static str = stringify!($name);
        }
    )+ };
}

control_bodies! {
    /// Makes a SKU.
    SkuCreate {
        /// Its name: see [`crate::Name`].
        name: String,
    }

    /// The SKU was made.
    SkuCreateReply {
        /// Its numeric id.
        sku: u32,
        /// The place of the record in the log.
        lsn: u64,
    }

    /// All SKUs, or one page of them (`MORE`).
    SkuListReply {
        /// In the order of their ids.
        skus: Vec<SkuRow>,
    }

    /// One SKU of a list.
    SkuRow {
        /// Its numeric id.
        sku: u32,
        /// Its name.
        name: String,
    }

    /// Says how a SKU is sold. What is `None` stays as it is; if all is, it only asks.
    SkuSet {
        /// Its name.
        name: String,
        /// Number of a [`crate::DealOrder`].
        deal_order: Option<u16>,
        /// How much of what is free and held may be held at once, in per cent; 100 = all of it.
        hold_share_max_percent: Option<u16>,
        /// The cap on the cards of a holder.
        holder: Trailing<HolderCap>,
    }

    /// How a SKU is sold.
    SkuSetReply {
        /// Its numeric id.
        sku: u32,
        /// The place of the record in the log; 0 if nothing was said.
        lsn: u64,
        /// Number of a [`crate::DealOrder`].
        deal_order: u16,
        /// How much of what is free and held may be held at once, in per cent.
        hold_share_max_percent: u16,
        /// The cap on the cards of a holder, if there is one.
        holder: Trailing<HolderCap>,
    }

    /// Asks for counts of cards.
    Stock {
        /// Of which SKU; `None` = of every one.
        name: Option<String>,
    }

    /// Counts of cards, or one page of them (`MORE`).
    StockReply {
        /// In the order of the SKU ids.
        rows: Vec<StockRow>,
    }

    /// Counts of cards of one SKU.
    StockRow {
        /// Its numeric id.
        sku: u32,
        /// Its name.
        name: String,
        /// Cards that can be issued now.
        free: u64,
        /// Cards that are suspended, or promised to open holds.
        held: u64,
        /// Cards issued.
        issued: u64,
        /// Cards taken out of sale for good.
        void: u64,
        /// Cards ever imported.
        imported: u64,
    }

    /// Takes cards out of sale, or puts them back. Exactly one of `sku` (with or without `batch`), `cards` and `order` says
    /// which.
    MoveCards {
        /// Number of a [`crate::CardMove`].
        to: u16,
        /// Also cards that orders have; only for void.
        issued: bool,
        /// Cards of this SKU.
        sku: Option<String>,
        /// Of these, the ones of this batch.
        batch: Option<String>,
        /// Cards one by one; all or none.
        cards: Vec<CardPlace>,
        /// The cards of this order, by the 16 bytes of its id; all or none.
        order: Option<[u8; 16]>,
    }

    /// A card, by where it is.
    CardPlace {
        /// Number of the slab.
        slab: u32,
        /// Index of the slot in the slab.
        slot: u32,
        /// Generation of the slot.
        generation: u16,
    }

    /// Asks for one card of the caller's choice, at once or bound to a hold. Exactly one of `card` and `label` says which.
    Pick {
        /// The order, by the 16 bytes of its id.
        order: [u8; 16],
        /// Numeric id of the SKU.
        sku: u32,
        /// How many cards: 1. Any other number is refused, and not read as something else.
        quantity: u16,
        /// How long the hold lasts from now, in milliseconds; `None` = the card is issued at once.
        ttl_ms: Option<u32>,
        /// This card.
        card: Option<CardPlace>,
        /// Any free card of the SKU that has this label.
        label: Option<String>,
        /// For whom it is, by the 16 bytes of the key.
        holder: Trailing<[u8; 16]>,
    }

    /// What became of a delivery.
    DeliverReply {
        /// LSN of the last record that says so; 0 = no card was new.
        lsn: u64,
        /// Cards that are stock now.
        accepted: u64,
        /// The other rows, in their order.
        rejections: Vec<RejectedLine>,
    }

    /// A worker's offer of room: answered as soon as there are jobs of its channel, or when the time is over.
    TakeJobs {
        /// Of which channel.
        channel: String,
        /// What the worker is called, for people; at most 64 bytes.
        worker: String,
        /// Most jobs that it takes now, 1 … [`crate::JOBS_MAX`].
        jobs_max: u32,
        /// How long to wait for one, in milliseconds, at most [`crate::JOBS_WAIT_MS_MAX`].
        wait_ms: u32,
    }

    /// Jobs of a channel; none: there were none in that time.
    TakeJobsReply {
        /// How long the worker has them, in milliseconds from now.
        lease_ms: u32,
        /// Jobs.
        jobs: Vec<JobRow>,
    }

    /// So many cards, wanted for an order.
    JobRow {
        /// The order, by the 16 bytes of its id; also the job's.
        job: [u8; 16],
        /// Which time it is asked for, from 1: of an order that was asked for before.
        attempt: u32,
        /// Name of the SKU.
        sku: String,
        /// Cards.
        quantity: u16,
        /// When nobody wants it any more, in Unix milliseconds.
        ends_unix_ms: u64,
    }

    /// What became of cards delivered for a job.
    DeliverJobReply {
        /// LSN of the last record that says that they are stock; 0 = no card was new.
        lsn: u64,
        /// Cards that are stock now.
        accepted: u64,
        /// The other rows, in their order.
        rejections: Vec<RejectedLine>,
        /// How the job stands, by its number.
        job: u16,
        /// Cards that it still wants.
        missing: u16,
    }

    /// Extends the lease of a job, or fails it.
    EndJob {
        /// Of which channel.
        channel: String,
        /// Which, by the 16 bytes of its id.
        job: [u8; 16],
        /// As it was given.
        attempt: u32,
        /// 1 extend, 2 fail, 3 fail for good.
        what: u16,
        /// How long it is extended from now, in milliseconds; else 0.
        extend_ms: u32,
        /// Why it fails, for people; at most 256 bytes.
        reason: String,
    }

    /// How a job stands.
    EndJobReply {
        /// Its number.
        job: u16,
        /// How long its lease is from now, in milliseconds; 0: it is over.
        lease_ms: u32,
    }

    /// Asks which orders wait for another attempt, or are buried.
    RetryList {
        /// Of this SKU; `None` = of all.
        sku: Option<String>,
        /// Only those that are buried, or only those that are not.
        buried: Option<bool>,
        /// Only those behind this one: the `next` of the page before; 0 = from the first.
        after: u64,
        /// Most orders of the page; 0 = as many as fit.
        limit: u32,
    }

    /// Orders that wait for another attempt, or are buried: a page of them, and how many there are.
    RetryListReply {
        /// Orders that no channel could fill yet, in no order that means anything.
        rows: Vec<RetryRow>,
        /// Where to go on; `None` = that is all.
        next: Option<u64>,
        /// Orders that wait for stock, those below included.
        waiting: u64,
        /// Of these, those that have failed at least once and come again.
        retrying: u64,
        /// Of these, those that are buried.
        buried: u64,
        /// Since when the oldest of `retrying` and `buried` waits, in Unix milliseconds; 0 = there is none.
        oldest_unix_ms: u64,
    }

    /// An order that no channel could fill yet.
    RetryRow {
        /// The order, by the 16 bytes of its id.
        order: [u8; 16],
        /// Numeric id of the SKU.
        sku: u32,
        /// Cards.
        quantity: u16,
        /// As in a StepItem.
        priority: u16,
        /// Attempts that have failed.
        attempts: u16,
        /// No channel is asked any more.
        buried: bool,
        /// Why the last attempt failed, by its number.
        cause: u16,
        /// When the next attempt is made, in Unix milliseconds; 0 = never.
        again_unix_ms: u64,
        /// Since when it waits.
        since_unix_ms: u64,
        /// When it ends.
        ends_unix_ms: u64,
    }

    /// What is to be done with orders that no channel could fill.
    RetryMove {
        /// 1 kick: ask at once, also those that are buried; 2 bury: ask no more; 3 drain: cancel.
        what: u16,
        /// These, by the 16 bytes of their ids, at most 1000; none = all.
        orders: Vec<[u8; 16]>,
        /// Of all, those of this SKU.
        sku: Option<String>,
        /// Of all, only those that are buried, or only those that are not.
        buried: Option<bool>,
    }

    /// What was done with them.
    RetryMoveReply {
        /// Orders.
        moved: u64,
        /// LSN of the last record; 0 = nothing was to be done.
        lsn: u64,
    }

    /// Asks for the orders of a holder.
    ListOrders {
        /// Whose, by the 16 bytes of the key.
        holder: [u8; 16],
        /// Only those behind this LSN: the `next` of the page before; 0 = from the first.
        after: u64,
        /// Most orders of the page; 0 = as many as fit.
        limit: u32,
    }

    /// Orders of a holder: a page of them.
    OrderList {
        /// By LSN, the oldest first.
        rows: Vec<OrderRow>,
        /// Where to go on; `None` = that is all.
        next: Option<u64>,
    }

    /// How an order stands.
    OrderRow {
        /// The order, by the 16 bytes of its id.
        order: [u8; 16],
        /// Numeric id of the SKU.
        sku: u32,
        /// Cards that it has, holds, waits for, or has held or waited for.
        quantity: u16,
        /// As the status of an OrderItem.
        state: u16,
        /// The place of its last record in the log.
        lsn: u64,
    }

    /// The cards have been moved.
    MoveCardsReply {
        /// How many.
        moved: u64,
        /// The place of the last record in the log; 0 if no card was moved.
        lsn: u64,
    }

    /// Asks what became of cards: of those named, or of a SKU's, or of one of its batches', by place.
    ListCards {
        /// Cards of this SKU.
        sku: Option<String>,
        /// Of these, the ones of this batch.
        batch: Option<String>,
        /// Cards one by one, at most [`crate::CARDS_NAMED_MAX`].
        cards: Vec<CardPlace>,
        /// Only those of the status of this number (docs/wal-format.md); 0 = any.
        status: u16,
        /// Only those behind this one: the `next` of the page before.
        after: Option<CardPlace>,
    }

    /// What became of cards: a page of them.
    CardList {
        /// By slab and slot.
        rows: Vec<CardRow>,
        /// Where to go on; `None` = that is all. There may be no rows and more to come.
        next: Option<CardPlace>,
    }

    /// What became of a card.
    CardRow {
        /// Number of the slab.
        slab: u32,
        /// Index of the slot in the slab.
        slot: u32,
        /// Generation of the slot.
        generation: u16,
        /// Numeric id of the SKU.
        sku: u32,
        /// Numeric id of the batch.
        batch: u32,
        /// Number of the status: 1 free, 2 issued, 3 suspended, 4 void.
        status: u16,
        /// When it expires, in Unix seconds; 0 = never.
        expires_at_s: u64,
        /// The order that got it, by the 16 bytes of its id.
        order: Option<[u8; 16]>,
        /// The place of that order's record in the log; 0 = none got it.
        lsn: u64,
    }

    /// Asks for the batches of one SKU, or of all.
    ListBatches {
        /// Of which SKU; `None` = of every one.
        sku: Option<String>,
    }

    /// The batches, or one page of them (`MORE`).
    BatchList {
        /// By id.
        rows: Vec<BatchRow>,
    }

    /// One import.
    BatchRow {
        /// Numeric id.
        batch: u32,
        /// Numeric id of the SKU.
        sku: u32,
        /// Label.
        label: String,
        /// Pool that its cards joined.
        pool: String,
        /// Cards.
        cards: u64,
        /// When they were for sale, in Unix milliseconds.
        sealed_unix_ms: u64,
        /// Of these, free; those that holds have been promised are among them.
        free: u64,
        /// Suspended.
        suspended: u64,
        /// Issued.
        issued: u64,
        /// Void.
        void: u64,
    }

    /// Opens an import on this connection.
    ImportBegin {
        /// Name of the SKU.
        sku: String,
        /// Make the SKU if there is none of that name.
        create_sku: bool,
        /// Label of the batch; `None` = the server chooses one.
        batch: Option<String>,
        /// Pool that the cards join.
        pool: Option<String>,
        /// How often each card may be dealt. Not on the wire if it is once.
        max_uses: MaxUses,
    }

    /// The import is open.
    ImportBeginReply {
        /// Its id, for ImportRows and ImportEnd.
        import: u64,
        /// Numeric id of the SKU.
        sku: u32,
    }

    /// What became of an import, or one page of it (`MORE`): `rejections` continues, the rest is repeated.
    ImportEndReply {
        /// Numeric id of the batch; 0 if no line was accepted.
        batch: u32,
        /// Label of the batch.
        label: String,
        /// The place of the record in the log; 0 if no line was accepted.
        lsn: u64,
        /// Cards that are sellable now.
        accepted: u64,
        /// Slabs that hold them.
        slabs: u32,
        /// Rejected lines, counted by reason.
        counts: Vec<ReasonCount>,
        /// Rejected lines, the first [`crate::REJECTIONS_LISTED_MAX`] of them.
        rejections: Vec<RejectedLine>,
    }

    /// How many lines were rejected for one reason.
    ReasonCount {
        /// Number of a [`crate::RejectReason`].
        reason: u16,
        /// Lines.
        count: u64,
    }

    /// One rejected line.
    RejectedLine {
        /// The caller's line number.
        line: u64,
        /// Number of a [`crate::RejectReason`].
        reason: u16,
    }

    /// Puts a route table in force.
    RoutesLoad {
        /// The table.
        toml: String,
        /// The version that must be in force; `None` = whichever is.
        expect: Trailing<u32>,
    }

    /// The route table is in force.
    RoutesLoadReply {
        /// Its version.
        version: u32,
        /// The place of the record in the log.
        lsn: u64,
        /// What an operator may want to mend.
        warnings: Vec<String>,
    }

    /// Asks for a route table.
    RoutesShow {
        /// The version; 0 = the built-in table, `None` = the one in force.
        version: Trailing<u32>,
    }

    /// Puts a route table in force that was before.
    RoutesRollback {
        /// Which version; 0 = the built-in table, `None` = the last one that is another table than the one in force.
        to: Option<u32>,
        /// The version that must be in force; `None` = whichever is.
        expect: Option<u32>,
    }

    /// The route tables that were in force.
    RoutesHistoryReply {
        /// The newest first, which is the one in force; the last is the built-in one.
        rows: Vec<RouteRow>,
    }

    /// A route table that was in force.
    RouteRow {
        /// Its version; 0 = the built-in table.
        version: u32,
        /// The place of its record in the log; 0 if it has none, or that is not known.
        lsn: u64,
        /// Since when it was in force, in Unix milliseconds; 0 if that is not known.
        unix_ms: u64,
        /// Bytes of its text.
        bytes: u32,
        /// Rules.
        rules: u32,
        /// The latest version before it with the same text.
        same_as: Option<u32>,
    }

    /// A route table.
    RoutesShowReply {
        /// Its version.
        version: u32,
        /// The table.
        toml: String,
    }

    /// How loaded the server is, and what its route table makes of that: docs/routes.md. Parts of a whole are in ten-thousandths.
    RoutesStatusReply {
        /// The version of the table.
        version: u32,
        /// The load: the largest of the parts, smoothed.
        load: u32,
        /// How full the fullest lane is.
        lanes: u32,
        /// Which part of the time cores have something to do.
        cores: u32,
        /// How full the ring of the log is.
        log: u32,
        /// The loads that the table asks about.
        marks: Vec<RouteMark>,
        /// Its rules, in their order.
        rules: Vec<RouteRule>,
    }

    /// How channels do that are outside, by name: docs/channels.md.
    ChannelsStatusReply {
        /// Those of the route table in force.
        rows: Vec<ChannelRow>,
    }

    /// How a channel does. Counts are since the server began.
    ChannelRow {
        /// Its name.
        name: String,
        /// What it is, by its number.
        kind: u16,
        /// Where what it delivers becomes stock.
        pool: String,
        /// How it stands, by its number.
        standing: u16,
        /// Why, by its number; 0 = it never stood otherwise.
        cause: u16,
        /// How often in a row it was ejected.
        ejections: u16,
        /// Since when it stands so, in Unix milliseconds; 0 = ever.
        since_unix_ms: u64,
        /// Until when it is ejected; 0 = it is not; `u64::MAX` = until an operator restores it.
        until_unix_ms: u64,
        /// Workers that are attached.
        workers: u32,
        /// Jobs that they offer to take.
        room: u32,
        /// Jobs under way.
        jobs: u32,
        /// Orders that wait for room.
        ready: u32,
        /// Jobs that were filled.
        filled: u64,
        /// Jobs that have failed.
        failed: u64,
        /// Jobs whose lease ran out.
        timed_out: u64,
        /// Deliveries for jobs that were over, or unknown.
        late: u64,
        /// Cards that were delivered.
        cards: u64,
        /// Mean time of jobs that were filled, the newer ones for more, in microseconds; 0 = there were none.
        mean_us: u64,
        /// What 99 in 100 took at most that were filled lately, in microseconds; 0 = there were none.
        p99_us: u64,
    }

    /// Takes a channel that is outside out, or puts it back.
    ChannelMove {
        /// Which, by name.
        channel: String,
        /// 1 eject: it is asked no more, whatever else is; 2 restore: it is healthy.
        what: u16,
        /// For how long it is ejected, in milliseconds; 0 = until it is restored.
        for_ms: u64,
    }

    /// How the channel stands now.
    ChannelMoveReply {
        /// LSN of the record that says so.
        lsn: u64,
        /// By its number.
        standing: u16,
        /// Until when it is ejected; 0 = it is not; `u64::MAX` = until an operator restores it.
        until_unix_ms: u64,
    }

    /// A load that a route table asks about.
    RouteMark {
        /// In ten-thousandths.
        at: u32,
        /// It counts as passed just now.
        passed: bool,
        /// How often that has changed since the table is in force, or since the server began.
        flips: u64,
    }

    /// A rule of a route table.
    RouteRule {
        /// Its name; empty: it has none.
        name: String,
        /// Orders it has taken since the table is in force, or since the server began.
        orders: u64,
    }

    /// Tries a route table on a share of orders: docs/canary.md.
    CanaryStart {
        /// The table.
        toml: String,
        /// How.
        settings: CanarySettings,
    }

    /// How a canary goes. What is `None` is as by default.
    CanarySettings {
        /// Per cent of orders that it begins with.
        share: Option<u16>,
        /// Per cent of orders by which that grows.
        step: Option<u16>,
        /// The largest share before all, in per cent.
        until: Option<u16>,
        /// Orders that each group has at least when the share grows.
        minimum_sample: Option<u32>,
        /// How much slower the canary may be, in ten-thousandths: 10,500 = 1.05.
        p99_ratio: Option<u32>,
        /// How long a step may take, in milliseconds.
        step_time_ms: Option<u64>,
    }

    /// The table is a canary.
    CanaryStartReply {
        /// Its version.
        version: u32,
        /// The place of the record in the log.
        lsn: u64,
        /// Per cent of orders that it deals.
        share: u16,
        /// What an operator may want to mend.
        warnings: Vec<String>,
    }

    /// The canary was aborted, or its step begins again.
    CanaryChangeReply {
        /// Version of its table.
        version: u32,
        /// The place of the record in the log.
        lsn: u64,
        /// Per cent of orders that it deals from now on.
        share: u16,
    }

    /// How the last canary does, or did.
    CanaryStatusReply {
        /// Version of its table; 0 = there was none.
        version: u32,
        /// Version of the table in force.
        in_force: u32,
        /// It is not over.
        under_way: bool,
        /// How it goes.
        settings: CanarySettings,
        /// Of a canary under way: orders of a group at which it is looked at next.
        next_look: u32,
        /// Of a canary under way: what was seen in this step, of the canary and of the baseline.
        groups: Vec<CanaryGroup>,
        /// What became of it, the oldest first.
        steps: Vec<CanaryStep>,
    }

    /// What was seen of a group of orders.
    CanaryGroup {
        /// Orders that were answered.
        orders: u32,
        /// Those that were refused for reasons that a table may be to blame for.
        failed: u32,
        /// Median latency of the others per card, in microseconds; 0 = there are none.
        p50_us: u32,
        /// Latency that one in a hundred exceeds.
        p99_us: u32,
    }

    /// A record of a canary.
    CanaryStep {
        /// Its place in the log.
        lsn: u64,
        /// When that was, in Unix milliseconds.
        unix_ms: u64,
        /// Number of a [`crate::CanaryDeed`].
        deed: u16,
        /// Number of a [`crate::CanaryReason`].
        reason: u16,
        /// Per cent of orders that the canary deals from then on; 100 = its table is in force, 0 = it is over.
        share: u16,
        /// What was seen until then, of the canary and of the baseline.
        groups: Vec<CanaryGroup>,
    }

    /// Asks for facts of the log: docs/feed.md.
    Feed {
        /// The first LSN of interest; 0 = the oldest there is.
        from: u64,
        /// Numeric ids of the SKUs to be told of; empty = all.
        skus: Vec<u32>,
        /// Numbers of [`crate::FeedKind`]s to be told of; empty = all.
        kinds: Vec<u16>,
        /// Most facts of the page; 0 = as many as fit.
        facts_max: u32,
        /// How long to wait for a fact if there is none, in milliseconds.
        wait_ms: u32,
    }

    /// A page of the feed.
    FeedReply {
        /// The LSN to ask from next.
        next: u64,
        /// The LSN behind the newest durable fact: the page reaches the end if `next` is this.
        end: u64,
        /// In the order of their LSNs.
        facts: Vec<FeedRow>,
    }

    /// One fact of the feed. Fields that its kind does not use are 0 or empty; docs/feed.md says what they mean by kind.
    FeedRow {
        /// Its place in the log.
        lsn: u64,
        /// When the server recorded it.
        unix_ms: u64,
        /// Number of a [`crate::FeedKind`].
        kind: u16,
        /// Numeric id of the SKU; 0 if the fact is not of one.
        sku: u32,
        /// The order, by the 16 bytes of its id.
        order: Option<[u8; 16]>,
        /// How many cards; of an extension, which one it is.
        quantity: u64,
        /// The cards by place; empty if there are too many for a frame.
        cards: Vec<CardRun>,
        /// Numeric id of the batch.
        batch: u32,
        /// Name of the pool.
        pool: String,
        /// A name, a label or a version.
        text: String,
        /// How, or why.
        how: u16,
        /// A number, by kind.
        number: u64,
    }

    /// Cards that lie side by side.
    CardRun {
        /// Number of the slab.
        slab: u32,
        /// Index of the first one's slot in the slab.
        slot: u32,
        /// How many.
        count: u32,
        /// Generation of the slots.
        generation: u16,
    }

    /// What server this is and how it does.
    ServerInfoReply {
        /// Version of the server.
        version: String,
        /// Which store it serves.
        store_id: [u8; 16],
        /// How often the store was opened.
        epoch: u64,
        /// Cores that deal.
        cores: u32,
        /// All records up to here are on stable storage.
        durable_lsn: u64,
        /// Since the server was ready, in milliseconds.
        uptime_ms: u64,
        /// How the log is made durable.
        sync: String,
        /// Version of the route table in force.
        routes: u32,
        /// Orders issued since the store was made.
        orders: u64,
    }
}

impl Encode for MaxUses {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match *self {
            MaxUses::Times(1) => Ok(()),
            uses => uses.as_u32().encode(encoder),
        }
    }
}

/// Of the last field of a body only: nothing stands for once.
impl<Context> Decode<Context> for MaxUses {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match Trailing::<u32>::decode(decoder)?.0 {
            None => Ok(MaxUses::default()),
            // A body has one form.
            Some(1) => Err(DecodeError::Other("once is said by nothing")),
            Some(number) => Ok(MaxUses::from_u32(number)),
        }
    }
}

bincode::impl_borrow_decode!(MaxUses);

/// Appends a control body.
pub fn encode_control<T: ControlBody>(value: &T, out: &mut BytesMut) {
    // Encode can fail only where the writer does, and this one does not; the types above hold nothing exotic.
    bincode::encode_into_writer(value, Appender(out), config::legacy())
        .expect("these types encode into memory");
}

/// Reads a control body.
///
/// # Errors
/// If `body` is not one value of that type, to the byte, or claims to hold more than a frame can.
pub fn decode_control<T: ControlBody>(body: &[u8]) -> Result<T, BodyError> {
    // bincode counts what a list will take in memory (at most three times its bytes on the wire) against the limit
    // before it allocates. Two limits, so that forty bytes cannot ask for the memory of the longest frame.
    const SMALL: usize = 4 * FRAME_BYTES_MAX_DEFAULT as usize;
    const LARGE: usize = 4 * FRAME_BYTES_MAX_LIMIT as usize;
    if body.len() <= FRAME_BYTES_MAX_DEFAULT as usize {
        decode_limited(body, config::legacy().with_limit::<SMALL>())
    } else {
        decode_limited(body, config::legacy().with_limit::<LARGE>())
    }
}

fn decode_limited<T: ControlBody, C: Config>(body: &[u8], config: C) -> Result<T, BodyError> {
    let mut reader = OffsetReader {
        body,
        offset: 0,
        short_by: None,
    };
    match bincode::decode_from_reader::<T, _, _>(&mut reader, config) {
        Ok(value) if reader.offset == body.len() => Ok(value),
        Ok(_) => {
            let have = body.len() - reader.offset;
            Err(BodyError {
                what: "end of the body",
                offset: reader.offset,
                need: 0,
                have,
            })
        }
        Err(error) => Err(reader.body_error::<T>(&error)),
    }
}

struct Appender<'a>(&'a mut BytesMut);

impl Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// A reader that knows where it is, for the error.
struct OffsetReader<'a> {
    body: &'a [u8],
    offset: usize,
    /// Bytes that the read that failed needed.
    short_by: Option<usize>,
}

impl Reader for OffsetReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), DecodeError> {
        let rest = &self.body[self.offset..];
        let Some(next) = rest.get(..bytes.len()) else {
            self.short_by = Some(bytes.len());
            return Err(DecodeError::UnexpectedEnd {
                additional: bytes.len() - rest.len(),
            });
        };
        bytes.copy_from_slice(next);
        self.offset += bytes.len();
        Ok(())
    }

    fn peek_read(&mut self, bytes: usize) -> Option<&[u8]> {
        self.body[self.offset..].get(..bytes)
    }

    /// What has been looked at is taken: who peeks need not read.
    fn consume(&mut self, bytes: usize) {
        self.offset += bytes;
    }
}

impl OffsetReader<'_> {
    fn body_error<T: ControlBody>(&self, error: &DecodeError) -> BodyError {
        let have = self.body.len() - self.offset;
        let error_at = |what, need, have| BodyError {
            what,
            offset: self.offset,
            need,
            have,
        };
        match error {
            DecodeError::UnexpectedEnd { .. } => {
                error_at(T::NAME, self.short_by.unwrap_or(have + 1), have)
            }
            DecodeError::LimitExceeded => error_at("length of a list or text", have, usize::MAX),
            DecodeError::Utf8 { inner } => {
                let valid = inner.valid_up_to();
                error_at(
                    "valid UTF-8 in the text that ends here, in bytes,",
                    valid + 1,
                    valid,
                )
            }
            DecodeError::InvalidBooleanValue(found) => {
                error_at("bool before here", 1, usize::from(*found))
            }
            // The discriminant of an Option is the only variant these types have.
            DecodeError::UnexpectedVariant { found, .. } => {
                error_at("option before here", 1, *found as usize)
            }
            _ => error_at(T::NAME, 0, have),
        }
    }
}
