//! Every limit of the wire, in one place, each with its unit in its name.
//!
//! A server may be configured below or above a `…_DEFAULT`; what it chose is in its `HelloReply`. The other limits
//! are part of the format and the same everywhere.

/// Bytes of a frame header: a frame is never shorter.
pub const FRAME_HEADER_BYTES: usize = 24;
/// The longest frame a server accepts unless it is configured otherwise.
pub const FRAME_BYTES_MAX_DEFAULT: u32 = 64 * 1024;
/// The longest frame this version allows at all; what a client must be ready to read.
pub const FRAME_BYTES_MAX_LIMIT: u32 = 16 * 1024 * 1024;

/// The longest secret of one card.
pub const SECRET_BYTES_MAX: usize = 4096;
/// The longest label of one card.
pub const LABEL_BYTES_MAX: usize = 256;
/// The longest name of a SKU, a batch or a pool.
pub const NAME_BYTES_MAX: usize = 64;

/// Cards one order may ask for unless the server is configured otherwise.
pub const QUANTITY_MAX_DEFAULT: u32 = 1000;
/// Orders in one Issue or LookUp frame unless the server is configured otherwise: what fits a default frame.
pub const ORDERS_PER_FRAME_MAX_DEFAULT: u32 =
    (FRAME_BYTES_MAX_DEFAULT - FRAME_HEADER_BYTES as u32) / 32;
/// Orders of one connection that may await their reply unless the server is configured otherwise.
pub const ORDERS_IN_FLIGHT_MAX_DEFAULT: u32 = 65_536;

/// Orders that may be linked: all of them get their cards, or none does. Fewer than two are no chain.
pub const LINKED_ORDERS_MAX: usize = 64;

/// How often a card may be dealt, unless it is on without end.
pub const USES_MAX: u32 = 65_536;
/// Cards of one import that may be dealt without end.
pub const UNLIMITED_CARDS_MAX: u64 = 64;

/// Most rows of one Deliver.
pub const DELIVERY_ROWS_MAX: usize = 1024;

/// Most jobs that a worker takes at a time.
pub const JOBS_MAX: u32 = 4096;
/// The longest that a server waits for a job, in milliseconds.
pub const JOBS_WAIT_MS_MAX: u32 = 60_000;
/// The longest name of a worker, in bytes.
pub const WORKER_NAME_BYTES_MAX: usize = 64;
/// The longest reason of a job that fails, in bytes.
pub const JOB_REASON_BYTES_MAX: usize = 256;

/// ImportRows frames a client may have unanswered.
pub const IMPORT_FRAMES_IN_FLIGHT_MAX: usize = 16;
/// Rejected lines that an import lists; beyond it they are only counted.
pub const REJECTIONS_LISTED_MAX: usize = 1_000_000;

/// A connection that has not said Hello within this many milliseconds is closed.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;
/// A frame that was begun must be whole within this many milliseconds.
pub const FRAME_TIMEOUT_MS: u64 = 30_000;

// An OrderItem is never split: the longest frame must have room for the largest order, whatever its secrets.
const _: () = assert!(
    FRAME_HEADER_BYTES + 48 + QUANTITY_MAX_DEFAULT as usize * (12 + SECRET_BYTES_MAX)
        <= FRAME_BYTES_MAX_LIMIT as usize
);

/// Most cards that one MoveCards may name one by one.
pub const CARDS_NAMED_MAX: usize = 1000;

/// Most facts in one page of the feed.
pub const FEED_FACTS_MAX: u32 = 1000;
/// The longest that a server waits for a fact of the feed, in milliseconds.
pub const FEED_WAIT_MS_MAX: u32 = 30_000;

/// Most orders in one page of a holder's.
pub const ORDERS_LISTED_MAX: u32 = 1000;
/// The longest window in which the cards of a holder are counted, in milliseconds: ten years.
pub const HOLDER_WINDOW_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// The largest cap on cards of a holder.
pub const HOLDER_CARDS_MAX_LIMIT: u32 = 10_000_000;
