//! Lanes: the bounded, lock-free queues of one core, one per priority, and the policy that picks from them.
//!
//! The queues are multi-producer and multi-consumer, so that an idle core can take from a busy one. Weights decide who goes
//! first; a lane that they keep waiting for long *ages*: it is picked from as if it were one of a higher priority. No order
//! carries a time for that. The owner core marks how far a lane reaches; when all of that has been taken, it marks anew.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::order::Order;

/// Lanes a core has: one per priority.
pub const LANES: usize = 4;

/// Of every 15 orders picked while all lanes have some, these many are from each: the lowest still moves.
const WEIGHTS: [usize; LANES] = [8, 4, 2, 1];

/// How many orders of weight one are picked from a lane in a row.
const GRAIN: usize = 16;

/// What waits in a lane for so long has the weight of one priority more, for twice as long of two. Far above what a turn, a
/// slow disk or a burst takes, so that weights alone decide while all lanes move; far below the seconds that a caller waits.
const AGE_MS: u64 = 100;

/// One priority's queue, and how far it was when it was marked. All relaxed: the marks steer, and publish nothing. Who reads
/// them while another core takes may be wrong by what that core takes in a turn.
struct Lane {
    queue: ArrayQueue<Order>,
    /// Orders ever taken out.
    taken: AtomicU64,
    /// What `taken` is when all that waited at the mark has been taken.
    mark: AtomicU64,
    marked_unix_ms: AtomicU64,
}

impl Lane {
    fn new(orders_max: usize) -> Lane {
        Lane {
            queue: ArrayQueue::new(orders_max),
            taken: AtomicU64::new(0),
            mark: AtomicU64::new(0),
            marked_unix_ms: AtomicU64::new(0),
        }
    }

    fn has_passed_mark(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.mark.load(Ordering::Relaxed)
    }

    fn mark_if_passed(&self, now_unix_ms: u64) {
        if self.has_passed_mark() {
            let end = self.taken.load(Ordering::Relaxed) + self.queue.len() as u64;
            self.mark.store(end, Ordering::Relaxed);
            self.marked_unix_ms.store(now_unix_ms, Ordering::Relaxed);
        }
    }

    /// By how many priorities it has aged.
    fn steps(&self, now_unix_ms: u64) -> usize {
        if self.has_passed_mark() {
            return 0;
        }
        // A clock that was set back makes nothing older.
        let waited_ms = now_unix_ms.saturating_sub(self.marked_unix_ms.load(Ordering::Relaxed));
        (waited_ms / AGE_MS).min(LANES as u64) as usize
    }
}

/// One core's lanes.
pub struct Lanes {
    lanes: [Lane; LANES],
}

impl Lanes {
    /// Lanes of `orders_max` orders each.
    pub fn new(orders_max: usize) -> Lanes {
        Lanes {
            lanes: std::array::from_fn(|_| Lane::new(orders_max)),
        }
    }

    /// Puts an order into a lane; gives it back when the lane is full.
    pub fn push(&self, lane: usize, order: Order) -> Result<(), Order> {
        self.lanes[lane].queue.push(order)
    }

    /// Orders waiting, by lane.
    pub fn depths(&self) -> [usize; LANES] {
        std::array::from_fn(|lane| self.lanes[lane].queue.len())
    }

    /// Orders waiting in all lanes.
    pub fn depth(&self) -> usize {
        self.depths().iter().sum()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.queue.is_empty())
    }

    /// Marks how far each lane reaches that has come past its last mark. For the core whose lanes they are, before it picks.
    pub fn mark(&self, now_unix_ms: u64) {
        for lane in &self.lanes {
            lane.mark_if_passed(now_unix_ms);
        }
    }

    /// Weights by lane: those of the priorities, or of the higher ones that lanes have aged to.
    fn weights(&self, now_unix_ms: u64) -> [usize; LANES] {
        std::array::from_fn(|lane| {
            WEIGHTS[lane.saturating_sub(self.lanes[lane].steps(now_unix_ms))]
        })
    }

    /// Picks up to `most` orders by weight, with the lane each came from, as long as `each` says so. The last order that is
    /// handed to `each` must be kept by it, whatever it says. Returns how many came from each lane.
    pub fn pick(
        &self,
        now_unix_ms: u64,
        most: usize,
        mut each: impl FnMut(usize, Order) -> Picked,
    ) -> [u64; LANES] {
        let weights = self.weights(now_unix_ms);
        let mut taken = [0; LANES];
        self.pick_by(&weights, most, |lane, order| {
            taken[lane] += 1;
            each(lane, order)
        });
        for (lane, &taken) in self.lanes.iter().zip(&taken) {
            if taken > 0 {
                lane.taken.fetch_add(taken, Ordering::Relaxed);
            }
        }
        taken
    }

    fn pick_by(
        &self,
        weights: &[usize; LANES],
        most: usize,
        mut each: impl FnMut(usize, Order) -> Picked,
    ) {
        let mut left = most;
        while left > 0 {
            let mut any = false;
            for (lane, weight) in weights.iter().enumerate() {
                for _ in 0..(weight * GRAIN).min(left) {
                    let Some(order) = self.lanes[lane].queue.pop() else {
                        break;
                    };
                    any = true;
                    left -= 1;
                    if each(lane, order) == Picked::Enough {
                        return;
                    }
                }
            }
            if !any {
                return;
            }
        }
    }
}

/// Whether to go on picking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picked {
    More,
    Enough,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Ticket;

    /// Orders of one round of all weights.
    const ROUND: usize = 15 * GRAIN;

    fn order(id: u128) -> Order {
        let ticket = Ticket::single(0, 0);
        Order::issue(id, 1, 1, ticket)
    }

    fn lanes(orders: [u128; LANES]) -> Lanes {
        let lanes = Lanes::new(100_000);
        for (lane, &orders) in orders.iter().enumerate() {
            (0..orders).for_each(|id| lanes.push(lane, order(id)).unwrap());
        }
        lanes
    }

    /// One turn of the owner, or of another core, which marks nothing.
    fn turn(lanes: &Lanes, now_unix_ms: u64, most: usize, owner: bool) -> [usize; LANES] {
        if owner {
            lanes.mark(now_unix_ms);
        }
        let mut picked = [0; LANES];
        lanes.pick(now_unix_ms, most, |lane, _| {
            picked[lane] += 1;
            Picked::More
        });
        picked
    }

    #[test]
    fn every_lane_moves_by_its_weight_and_in_order() {
        let lanes = lanes([1000; LANES]);
        let mut picked = [0u128; LANES];
        lanes.pick(0, ROUND * 2, |lane, order| {
            assert_eq!(order.id, picked[lane], "first in, first out");
            picked[lane] += 1;
            Picked::More
        });
        assert_eq!(picked, [256, 128, 64, 32]);
        assert_eq!(lanes.depth(), 4000 - 480);
    }

    #[test]
    fn an_idle_lane_leaves_its_share_to_the_others() {
        let lanes = Lanes::new(10);
        (0..10).for_each(|id| lanes.push(3, order(id)).unwrap());
        assert!(lanes.push(3, order(11)).is_err(), "bounded");
        assert_eq!(turn(&lanes, 0, 100, true), [0, 0, 0, 10]);
        assert!(lanes.is_empty());
    }

    /// Turns of the owner, each at a time and of as many orders as the weights say that are expected of it.
    fn check(what: &str, orders: [u128; LANES], turns: &[(u64, [usize; LANES])]) {
        let lanes = lanes(orders);
        for &(now, weights) in turns {
            let expected = weights.map(|weight| weight * GRAIN);
            let picked = turn(&lanes, now, expected.iter().sum(), true);
            assert_eq!(picked, expected, "{what}, at {now}");
        }
    }

    #[test]
    fn a_lane_that_waits_is_picked_from_as_a_higher_one() {
        check(
            "a step every AGE_MS, up to the highest",
            [5000; LANES],
            &[
                (1000, [8, 4, 2, 1]),
                (1099, [8, 4, 2, 1]),
                (1100, [8, 8, 4, 2]),
                (1199, [8, 8, 4, 2]),
                (1200, [8, 8, 8, 4]),
                (1300, [8, 8, 8, 8]),
                (9999, [8, 8, 8, 8]),
            ],
        );
        check(
            "only what waited at the mark",
            [5000, 0, 0, 64],
            &[
                (1000, [8, 0, 0, 1]),
                (1090, [8, 0, 0, 1]),
                (1100, [8, 0, 0, 2]),
                (1101, [8, 0, 0, 0]),
            ],
        );
        check(
            "a clock that is set back makes nothing older",
            [5000; LANES],
            &[
                (1000, [8, 4, 2, 1]),
                (100, [8, 4, 2, 1]),
                (1100, [8, 8, 4, 2]),
            ],
        );
    }

    #[test]
    fn a_mark_that_is_passed_is_set_anew() {
        let lanes = lanes([5000, 0, 0, 16]);
        assert_eq!(turn(&lanes, 1000, ROUND, true)[3], 16, "all that waited");
        // The lane is empty, and time goes by: nothing ages.
        assert_eq!(turn(&lanes, 2000, ROUND, true)[3], 0);
        (0..5000).for_each(|id| lanes.push(3, order(id)).unwrap());
        for (now, weight) in [(3000, 1), (3099, 1), (3100, 2)] {
            let picked = turn(&lanes, now, (8 + weight) * GRAIN, true);
            assert_eq!(picked[3], weight * GRAIN, "at {now}");
        }
    }

    #[test]
    fn what_another_core_takes_brings_a_lane_past_its_mark() {
        let lanes = lanes([0, 0, 0, 64]);
        assert_eq!(turn(&lanes, 1000, GRAIN, true), [0, 0, 0, 16]);
        assert_eq!(turn(&lanes, 1050, 48, false), [0, 0, 0, 48]);
        for lane in [0, 3] {
            (0..5000).for_each(|id| lanes.push(lane, order(id)).unwrap());
        }
        // The other core finds the mark passed, although the owner has not been there since.
        assert_eq!(turn(&lanes, 1200, 9 * GRAIN, false), [128, 0, 0, 16]);
        assert_eq!(turn(&lanes, 1200, 9 * GRAIN, true), [128, 0, 0, 16]);
        assert_eq!(turn(&lanes, 1300, 10 * GRAIN, false), [128, 0, 0, 32]);
    }
}
