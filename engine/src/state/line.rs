//! Orders that wait for stock, as all cores see them: docs/orders.md.
//!
//! Each SKU has a *line*. One core keeps the *desk*: it alone fills orders of the lines, in their order. Others join and
//! leave, and call the desk when stock comes. Nobody may overtake: from when stock comes until the desk has gone over the
//! line, nobody else takes of it.
//!
//! # The interleavings that matter
//!
//! * **Stock that comes while an order joins.** Who adds stock adds first and looks at the line then; who joins is counted
//!   first, and the desk looks at the stock after that. One of the two sees the other (fences on both sides).
//! * **A newcomer beside stock that comes.** The line is told before the stock is there. So whoever takes of it sees that
//!   the line is waiting for the desk, and gives back what it took.
//! * **An order that has its LSN and is not in line yet.** It was counted before its record got the LSN. The desk waits
//!   until as many are in line as were counted; meanwhile no others join, so that is soon.

use std::sync::{Arc, OnceLock};

use crossbeam_queue::SegQueue;
use croupier_protocol::planted::{self, Bug};

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// An order in line. First come, first served within a priority: they are served as they are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter {
    pub priority: u8,
    /// Of the record by which it waits.
    pub lsn: u64,
    /// Its row of the order index.
    pub row: u64,
    pub quantity: u16,
}

/// Where lines call for the desk.
#[derive(Default)]
pub struct Desk {
    /// SKUs to look at, each once.
    calls: SegQueue<u32>,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Asks that are to be answered when their orders wait no longer.
    staying: AtomicU64,
    /// Orders that have left their lines, while there are such asks.
    left: SegQueue<u128>,
    /// Holds that no dealer has made: when they end, and their rows.
    ends: SegQueue<(u64, u64)>,
    /// Orders for which cards are just coming, by SKU, row and LSN: looked at before their lines.
    preferred: SegQueue<(u32, u64, u64)>,
    /// Orders that have joined a line, by row and LSN, while somebody watches: who has cards fetched for them.
    joined: SegQueue<(u64, u64)>,
    watch: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Desk {
    /// Has `bell` rung whenever the desk is called. For who keeps it, once.
    pub fn on_call(&self, bell: Box<dyn Fn() + Send + Sync>) {
        let _ = self.bell.set(bell);
    }

    /// Has `bell` rung whenever an order joins a line. For who watches, once; what joined before is in the index.
    pub fn on_join(&self, bell: Box<dyn Fn() + Send + Sync>) {
        let _ = self.watch.set(bell);
    }

    /// Row and LSN of an order that has joined a line since somebody watches.
    pub fn next_joined(&self) -> Option<(u64, u64)> {
        self.joined.pop()
    }

    /// Tells who watches of an order in line, as if it had just joined.
    pub fn tell_joined(&self, row: u64, lsn: u64) {
        if let Some(bell) = self.watch.get() {
            self.joined.push((row, lsn));
            bell();
        }
    }

    /// Has an order, by its row and LSN, looked at before the rest of its line. Before the stock comes that calls the desk.
    pub fn prefer(&self, sku: u32, row: u64, lsn: u64) {
        self.preferred.push((sku, row, lsn));
    }

    /// The next of these.
    pub fn next_preferred(&self) -> Option<(u32, u64, u64)> {
        self.preferred.pop()
    }

    /// Whether a line calls.
    pub fn is_called(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The next SKU whose line is to be looked at.
    pub fn next_call(&self) -> Option<u32> {
        self.calls.pop()
    }

    /// An ask stays from now on. Before the look that finds out whether its order still waits.
    pub fn stay(&self) {
        self.staying.fetch_add(1, Ordering::SeqCst);
        // With that in `leave`: the look finds that the order has left, or whoever has it leave finds the ask.
        fence(Ordering::SeqCst);
    }

    /// So many asks stay no longer.
    pub fn go(&self, asks: u64) {
        self.staying.fetch_sub(asks, Ordering::SeqCst);
    }

    /// An order that has left its line while asks stayed.
    pub fn next_left(&self) -> Option<u128> {
        self.left.pop()
    }

    /// Whether there is any.
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Has the dealer that keeps the desk end a hold that no dealer has made.
    pub fn keep_end(&self, ends_unix_ms: u64, row: u64) {
        self.ends.push((ends_unix_ms, row));
        self.ring();
    }

    /// The next of these.
    pub fn next_end(&self) -> Option<(u64, u64)> {
        self.ends.pop()
    }

    /// Whether there is any.
    pub fn has_ends(&self) -> bool {
        !self.ends.is_empty()
    }

    fn leave(&self, id: u128) {
        fence(Ordering::SeqCst);
        if self.staying.load(Ordering::SeqCst) != 0 {
            self.left.push(id);
            self.ring();
        }
    }

    fn call(&self, sku: u32) {
        self.calls.push(sku);
        self.ring();
    }

    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }
}

/// The line of a SKU.
pub struct Line {
    sku: u32,
    desk: Arc<Desk>,
    /// Orders that wait, counted before they have their records.
    orders: AtomicU64,
    /// Those of them that are in line.
    joined: AtomicU64,
    /// How often stock has come while orders waited.
    grown: AtomicU64,
    /// What `grown` was when the desk last began to go over the whole line.
    looked: AtomicU64,
    /// The desk is called.
    called: AtomicBool,
    /// Orders that the desk does not know yet.
    arrivals: SegQueue<Waiter>,
}

impl Line {
    pub(super) fn new(sku: u32, desk: Arc<Desk>) -> Arc<Line> {
        Arc::new(Line {
            sku,
            desk,
            orders: AtomicU64::new(0),
            joined: AtomicU64::new(0),
            grown: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            called: AtomicBool::new(false),
            arrivals: SegQueue::new(),
        })
    }

    /// Orders that wait.
    pub fn orders(&self) -> u64 {
        // Acquire: who sees an order counted does so behind what its dealer saw before.
        self.orders.load(Ordering::Acquire)
    }

    /// Whether stock has come that the desk has not gone over yet: then nobody else takes any.
    #[inline]
    pub fn is_first(&self) -> bool {
        !planted::is(Bug::OvertakeLine)
            && self.orders() != 0
            && self.looked.load(Ordering::Acquire) != self.grown.load(Ordering::Acquire)
    }

    /// Counts orders that are to wait, before they have their records. False: the desk has to look first, and they are not
    /// counted.
    pub fn count(&self, orders: u64) -> bool {
        self.orders.fetch_add(orders, Ordering::AcqRel);
        // With that in `stock_came`: see the module, first interleaving.
        fence(Ordering::SeqCst);
        let may = !self.is_first();
        if !may {
            self.discount(orders);
        }
        may
    }

    /// Counts an order whose record is there already.
    pub(super) fn count_again(&self) {
        self.orders.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes back what was counted and does not wait after all.
    pub fn discount(&self, orders: u64) {
        self.orders.fetch_sub(orders, Ordering::AcqRel);
    }

    /// An order that was counted is in line.
    pub(super) fn join(&self, waiter: Waiter) {
        self.arrivals.push(waiter);
        // Release: whoever sees it counted finds it in line.
        self.joined.fetch_add(1, Ordering::Release);
        self.call();
        self.desk.tell_joined(waiter.row, waiter.lsn);
    }

    /// An order waits no longer; the index says so already.
    pub(super) fn leave(&self, id: u128) {
        // In this order, so that the desk never takes one that is counted and not in line for one that has left.
        self.joined.fetch_sub(1, Ordering::AcqRel);
        self.discount(1);
        self.desk.leave(id);
    }

    /// Stock is about to come; tells whether nobody else may take any until the desk has looked.
    #[inline]
    pub(crate) fn stock_comes(&self) -> bool {
        let waits = self.orders() != 0;
        if waits {
            // The stock that follows publishes it.
            self.grown.fetch_add(1, Ordering::AcqRel);
        }
        waits
    }

    /// Stock has come; `told` is what [`stock_comes`](Self::stock_comes) has told. The desk must look then, even if nobody
    /// waits any more: whoever comes next waits for that look.
    #[inline]
    pub(crate) fn stock_came(&self, told: bool) {
        fence(Ordering::SeqCst);
        if (told || self.orders() != 0) && !planted::is(Bug::ForgetToCall) {
            self.call();
        }
    }

    fn call(&self) {
        if !self.called.swap(true, Ordering::AcqRel) {
            self.desk.call(self.sku);
        }
    }

    /// For the desk, before it looks: who calls from now on calls again.
    pub fn answer_call(&self) {
        // A swap, so that what the last caller did is seen.
        self.called.swap(false, Ordering::AcqRel);
    }

    /// For the desk: an order that it does not know yet.
    pub fn next_arrival(&self) -> Option<Waiter> {
        self.arrivals.pop()
    }

    /// For the desk, before it goes over the line: what to tell when it [has](Self::end_look). `None`: an order has its LSN
    /// and is not in line yet.
    pub fn begin_look(&self) -> Option<u64> {
        let grown = self.grown.load(Ordering::Acquire);
        let counted = self.orders();
        let all = counted <= self.joined.load(Ordering::Acquire);
        all.then_some(grown)
    }

    /// For the desk: it has gone over the whole line, and what is left of the stock is for anybody.
    pub fn end_look(&self, grown: u64) {
        self.looked.store(grown, Ordering::Release);
    }
}

#[cfg(all(test, croupier_loom))]
mod model;
