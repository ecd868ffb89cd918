//! Lanes: the bounded, lock-free queues of one core, one per priority, and the policy that picks from them.
//!
//! The queues are multi-producer and multi-consumer, so that an idle core can take from a busy one.

use crossbeam_queue::ArrayQueue;

use crate::order::Order;

/// Lanes a core has: one per priority.
pub const LANES: usize = 4;

/// Of every 15 orders picked while all lanes have some, these many are from each: the lowest still moves.
const WEIGHTS: [usize; LANES] = [8, 4, 2, 1];

/// How many orders of weight one are picked from a lane in a row.
const GRAIN: usize = 16;

/// One core's lanes.
pub struct Lanes {
    queues: [ArrayQueue<Order>; LANES],
}

impl Lanes {
    /// Lanes of `orders_max` orders each.
    pub fn new(orders_max: usize) -> Lanes {
        Lanes {
            queues: std::array::from_fn(|_| ArrayQueue::new(orders_max)),
        }
    }

    /// Puts an order into a lane; gives it back when the lane is full.
    pub fn push(&self, lane: usize, order: Order) -> Result<(), Order> {
        self.queues[lane].push(order)
    }

    /// Orders waiting, by lane.
    pub fn depths(&self) -> [usize; LANES] {
        std::array::from_fn(|lane| self.queues[lane].len())
    }

    /// Orders waiting in all lanes.
    pub fn depth(&self) -> usize {
        self.depths().iter().sum()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(ArrayQueue::is_empty)
    }

    /// Picks up to `most` orders by weight, with the lane each came from, as long as `fits` says so. An order that does
    /// not fit is handed to `fits` once only: it must be kept by it.
    pub fn pick(&self, most: usize, mut each: impl FnMut(usize, Order) -> Picked) {
        let mut left = most;
        while left > 0 {
            let mut any = false;
            for (lane, weight) in WEIGHTS.iter().enumerate() {
                for _ in 0..(weight * GRAIN).min(left) {
                    let Some(order) = self.queues[lane].pop() else {
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

    fn order(id: u128) -> Order {
        let ticket = Ticket::single(0, 0);
        Order::issue(id, 1, 1, ticket)
    }

    #[test]
    fn every_lane_moves_by_its_weight_and_in_order() {
        let lanes = Lanes::new(1000);
        for lane in 0..LANES {
            (0..1000).for_each(|id| lanes.push(lane, order(id)).unwrap());
        }
        let mut picked = [0u128; LANES];
        lanes.pick(15 * GRAIN * 2, |lane, order| {
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
        let mut count = 0;
        lanes.pick(100, |_, _| {
            count += 1;
            Picked::More
        });
        assert_eq!(count, 10);
        assert!(lanes.is_empty());
    }
}
