//! Where a core's thread runs: on its own CPU while it has much to do, wherever the system likes while it has little.
//!
//! Pinned, many connections find their lines in one cache, and the cores do not come in each other's way. But a lone
//! client's request then often wakes one CPU, and its answer another, which costs more than all we do for the order; left
//! to the system, the thread wakes beside its client.

use std::cell::Cell;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Orders a second above which a thread is pinned; it is let go below half of that.
const PIN_ABOVE_ORDERS: u64 = 20_000;

/// Where one core's thread may run.
pub struct Placement {
    own: usize,
    allowed: CpuSet,
    is_pinned: Cell<bool>,
    orders: Cell<u64>,
}

impl Placement {
    /// Of the calling thread, whose own CPU is `own`; `None` when the system does not say where it may run.
    pub fn new(own: usize) -> Option<Placement> {
        let allowed = sched_getaffinity(None);
        let allowed = allowed.inspect_err(|error| tracing::warn!(%error, "cannot pin threads"));
        Some(Placement {
            own,
            allowed: allowed.ok()?,
            is_pinned: Cell::new(false),
            orders: Cell::new(0),
        })
    }

    /// Orders were dealt here.
    pub fn dealt(&self, orders: usize) {
        self.orders.set(self.orders.get() + orders as u64);
    }

    /// Once a second: pins the thread or lets it go, by what it has dealt since the last time.
    pub fn settle(&self) {
        let orders = self.orders.take();
        let bound = PIN_ABOVE_ORDERS / if self.is_pinned.get() { 2 } else { 1 };
        let pin = orders > bound;
        if pin == self.is_pinned.replace(pin) {
            return;
        }
        let set = if pin {
            let mut own = CpuSet::new();
            own.set(self.own);
            own
        } else {
            self.allowed
        };
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::warn!(cpu = self.own, pin, %error, "cannot place a core's thread");
        }
    }
}
