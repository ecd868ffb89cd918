//! The network: what is sent arrives later, in order on each connection, or never.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use croupier_client::{OrderOutcome, OrderStep};
use fastrand::Rng;

/// A connection, and which use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Its number; never used again.
    pub number: u32,
    /// The core that serves it.
    pub core: u16,
}

/// What is under way.
#[derive(Clone, Debug)]
pub enum Letter {
    /// Steps of orders of one try of a call.
    Orders {
        call: u64,
        try_number: u32,
        orders: Vec<OrderStep>,
    },
    /// What became of one of them, by its place in the call.
    Outcome {
        call: u64,
        try_number: u32,
        index: u16,
        outcome: OrderOutcome,
    },
    /// To the caller: the connection is lost.
    Lost,
}

struct Posted {
    at_us: u64,
    number: u64,
    link: Link,
    letter: Letter,
}

impl PartialEq for Posted {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Posted {}

impl PartialOrd for Posted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Posted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// Everything that is under way.
pub struct Network {
    posted: BinaryHeap<Reverse<Posted>>,
    /// By link and direction: nothing overtakes what was sent before.
    last_us: std::collections::BTreeMap<(Link, bool), u64>,
    next: u64,
    dice: Rng,
}

impl Network {
    pub fn new(dice: Rng) -> Network {
        Network {
            posted: BinaryHeap::new(),
            last_us: Default::default(),
            next: 0,
            dice,
        }
    }

    /// Sends; `to_server` or back.
    pub fn post(&mut self, now_us: u64, link: Link, to_server: bool, letter: Letter) {
        let delay_us = match self.dice.u32(0..20) {
            0 => self.dice.u64(1_000..200_000),
            _ => self.dice.u64(5..200),
        };
        let last = self.last_us.entry((link, to_server)).or_default();
        let at_us = (now_us + delay_us).max(*last + 1);
        *last = at_us;
        self.next += 1;
        self.posted.push(Reverse(Posted {
            at_us,
            number: self.next,
            link,
            letter,
        }));
    }

    /// When the next letter arrives.
    pub fn next_us(&self) -> Option<u64> {
        self.posted.peek().map(|Reverse(posted)| posted.at_us)
    }

    /// A letter that has arrived by now.
    pub fn arrived(&mut self, now_us: u64) -> Option<(Link, Letter)> {
        if self.next_us()? > now_us {
            return None;
        }
        let Reverse(posted) = self.posted.pop()?;
        Some((posted.link, posted.letter))
    }

    /// Loses everything under way on the links that `lost` names, in both directions.
    pub fn lose(&mut self, lost: impl Fn(Link) -> bool) {
        self.posted.retain(|Reverse(posted)| !lost(posted.link));
    }
}
