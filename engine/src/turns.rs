//! One core's turns, without sockets and clocks: which orders are dealt next, who answers them, and when.
//!
//! A core goes round: what has become durable is answered ([`Turns::answer_durable`]), a batch is picked from the lanes
//! ([`Turns::pick`]), dealt ([`Turns::deal`]), and what came of it is answered, kept until it is durable, or handed to the
//! core that owes the answer ([`Turns::sort_out`]). The server does that on a thread per core, a simulation on one thread for
//! all of them, in any order it likes. Only [`Queues`] are reached from other cores, and they are lock-free.

use std::collections::VecDeque;

use crossbeam_queue::SegQueue;
use croupier_protocol::Refusal;
use croupier_protocol::planted::{self, Bug};

use crate::dealer::{Append, Dealer, TURN_ORDERS_MAX, units_at_most};
use crate::lanes::{LANES, Lanes, Picked};
use crate::linked::{Chain, Chains};
use crate::order::{Order, Outcome, Verdict};
use crate::wal::Log;

/// Most orders of a turn while it matters to orders of the highest lane how long one takes: what comes in the middle of a turn
/// waits for its end.
pub const SHORT_TURN_ORDERS_MAX: usize = 256;
/// Orders of lower lanes in a *quick* turn, which is made for a few orders of the highest one while turns are short. No two
/// follow each other, so that the lower lanes pay little for them.
const QUICK_TURN_ORDERS: usize = 32;
/// One in so many orders and units of a turn is for chains, but for one that is larger itself; the turn after that takes none.
const CHAIN_SHARE: usize = 4;
/// Turns are short for so long after an order that would have wished them so: the next one comes unannounced.
const SHORT_TURNS_MS: u64 = 100;

/// An idle core takes from a core that has more than this waiting.
pub const TAKE_ABOVE_ORDERS: usize = 256;

/// One in so many units of a turn is kept for what is due without orders (holds whose time is up, orders that waited): else
/// full turns would leave it no room.
const DUE_SHARE: usize = 4;

/// What other cores reach of a core.
pub struct Queues {
    /// Orders that wait to be dealt.
    pub lanes: Lanes,
    /// Chains that wait to be dealt; other cores leave them alone.
    pub chains: Chains,
    /// Verdicts on this core's orders that another core has dealt. Bounded by the orders in flight.
    pub inbox: SegQueue<Outcome>,
    /// On the core that keeps the desk: orders of other cores that are to be answered when they wait no longer. Bounded by
    /// the orders in flight.
    pub staying: SegQueue<(u8, Order)>,
}

impl Queues {
    /// Empty ones; each lane takes `lane_orders_max` orders.
    pub fn new(lane_orders_max: usize) -> Queues {
        Queues {
            lanes: Lanes::new(lane_orders_max),
            chains: Chains::new(lane_orders_max),
            inbox: SegQueue::new(),
            staying: SegQueue::new(),
        }
    }

    /// Whether nothing waits in them.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
            && self.chains.is_empty()
            && self.inbox.is_empty()
            && self.staying.is_empty()
    }
}

/// What came of looking for orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// There is a batch to deal.
    Batch,
    Nothing,
    /// Orders wait, and the ring is full.
    NoRoom,
}

/// What a core carries from turn to turn.
pub struct Turns {
    index: u16,
    take_above_orders: usize,
    /// When a turn last took the highest lane's only orders, and left others waiting.
    hurried_unix_ms: u64,
    /// The last turn was a quick one.
    was_quick: bool,
    orders: Vec<(u8, Order)>,
    outcomes: Vec<Outcome>,
    /// Dealt, and not yet durable: oldest first.
    waiting: VecDeque<Outcome>,
    /// To be dealt again: another core holds the id, or the turn had no room for it.
    deferred: VecDeque<(u8, Order)>,
    /// Chains to be dealt again, or that the turn had no room for.
    chains: VecDeque<Chain>,
    /// The last turn had a chain that was larger than a turn's share.
    had_large_chain: bool,
    /// What `dealer.take_deferred` brings.
    again: Vec<(u8, Order)>,
    /// What `dealer.take_staying` brings.
    staying: Vec<(u8, Order)>,
    /// Picked, but too large for the rest of that turn.
    held_back: Option<(u8, Order)>,
    /// The last turn was for what is due only, which wants more room than its share.
    was_for_due: bool,
}

impl Turns {
    /// For core `index`, which takes from another core when more than `take_above_orders` wait there.
    pub fn new(index: u16, take_above_orders: usize) -> Turns {
        Turns {
            index,
            take_above_orders,
            hurried_unix_ms: 0,
            was_quick: false,
            orders: Vec::new(),
            outcomes: Vec::new(),
            waiting: VecDeque::new(),
            deferred: VecDeque::new(),
            chains: VecDeque::new(),
            had_large_chain: false,
            again: Vec::new(),
            staying: Vec::new(),
            held_back: None,
            was_for_due: false,
        }
    }

    /// Orders that must come again although nothing new arrives.
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty() || !self.chains.is_empty()
    }

    /// Orders that wait for the next turn.
    pub fn has_more(&self) -> bool {
        self.has_deferred() || self.held_back.is_some()
    }

    /// Whether turns are short just now: orders of the highest lane come, and others wait.
    pub fn is_hurried(&self, now_unix_ms: u64) -> bool {
        // A clock that was set back hurries nobody.
        let since = now_unix_ms.checked_sub(self.hurried_unix_ms);
        since.is_some_and(|ms| ms < SHORT_TURNS_MS)
    }

    /// The LSN that the oldest answer waits for.
    pub fn oldest_awaited(&self) -> Option<u64> {
        self.waiting.front().map(Outcome::lsn)
    }

    /// Whether orders or answers are under way on this core.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.has_more()
    }

    /// Answers everything that has become durable; refuses what never will. Returns whether anything was answered.
    pub fn answer_durable(
        &mut self,
        queues: &[impl AsRef<Queues>],
        log: &Log,
        mut answer: impl FnMut(&Outcome),
    ) -> bool {
        let inbox = &queues[usize::from(self.index)].as_ref().inbox;
        while let Some(outcome) = inbox.pop() {
            self.waiting.push_back(outcome);
        }
        if self.waiting.is_empty() {
            return false;
        }
        // The failure first: what was durable before it is answered all the same.
        let failed = log.failure().is_some();
        let durable = log.durable();
        let mut any = false;
        while let Some(outcome) = self.waiting.front() {
            if outcome.lsn() < durable {
                answer(outcome);
            } else if failed {
                let verdict = Verdict::refused(Refusal::StoreFailed, 0);
                answer(&Outcome {
                    verdict,
                    ..*outcome
                });
            } else {
                break;
            }
            self.waiting.pop_front();
            any = true;
        }
        any
    }

    /// Picks a batch from this core's lanes, or from those of a busy core, if the log has room for one. `due`: units of it
    /// that are wanted for what there is to do even without orders; 0: nothing. `now_unix_ms` ages the lanes.
    pub fn pick(
        &mut self,
        queues: &[impl AsRef<Queues>],
        log: &Log,
        now_unix_ms: u64,
        due: usize,
    ) -> Pick {
        let own = queues[usize::from(self.index)].as_ref();
        while let Some(asked) = own.staying.pop() {
            self.deferred.push_back(asked);
        }
        let lanes = &own.lanes;
        if !log.has_room() && log.failure().is_none() {
            let waits = !lanes.is_empty() || !own.chains.is_empty() || self.has_more() || due > 0;
            return if waits { Pick::NoRoom } else { Pick::Nothing };
        }
        let mut units_max = log.append_units_max() as usize;
        // Every other turn is for nothing else: an order that stock is not for until a line has been looked at comes again and
        // again, and would leave no room for the order in line that is to be filled; nor would holds that end with their steps.
        self.was_for_due = due > units_max / DUE_SHARE && !self.was_for_due;
        if due >= units_max || self.was_for_due {
            return Pick::Batch;
        }
        if due > 0 {
            units_max -= due.max(units_max / DUE_SHARE);
        }
        lanes.mark(now_unix_ms);
        self.pick_chains(&own.chains, now_unix_ms, units_max);
        self.pick_from(lanes, now_unix_ms, units_max);
        if self.orders.is_empty() {
            let busy = queues.iter().enumerate().find(|(index, other)| {
                *index != usize::from(self.index)
                    && other.as_ref().lanes.depth() > self.take_above_orders
            });
            if let Some((_, busy)) = busy {
                self.pick_from(&busy.as_ref().lanes, now_unix_ms, units_max);
            }
        }
        if self.orders.is_empty() && due == 0 {
            Pick::Nothing
        } else {
            Pick::Batch
        }
    }

    /// Picks chains, those first that come again.
    fn pick_chains(&mut self, waiting: &Chains, now_unix_ms: u64, units_max: usize) {
        if std::mem::take(&mut self.had_large_chain) {
            return;
        }
        let orders_max = if self.is_hurried(now_unix_ms) {
            SHORT_TURN_ORDERS_MAX
        } else {
            TURN_ORDERS_MAX
        };
        let mut units = 0;
        while let Some(chain) = self.chains.pop_front().or_else(|| waiting.pop()) {
            units += units_of(&chain);
            let orders = self.orders.len() + chain.len();
            let fits = units <= units_max / CHAIN_SHARE && orders <= orders_max / CHAIN_SHARE;
            if !fits && !self.orders.is_empty() {
                return self.chains.push_front(chain);
            }
            self.orders.extend_from_slice(&chain);
            if !fits {
                self.had_large_chain = true;
                return;
            }
        }
    }

    fn pick_from(&mut self, lanes: &Lanes, now_unix_ms: u64, units_max: usize) {
        let chained = self.orders.len();
        let mut units = units_of(&self.orders);
        // One order alone may be larger than a turn.
        if let Some((_, order)) = &self.held_back
            && (self.orders.is_empty() || units + units_at_most(order) <= units_max)
        {
            units += units_at_most(order);
            self.orders.extend(self.held_back.take());
        }
        if self.held_back.is_some() {
            return;
        }
        while let Some((_, order)) = self.deferred.front()
            && (self.orders.is_empty() || units + units_at_most(order) <= units_max)
        {
            units += units_at_most(order);
            self.orders.extend(self.deferred.pop_front());
        }
        if !self.deferred.is_empty() {
            return;
        }
        let hurried = self.is_hurried(now_unix_ms);
        let urgent = lanes.depths()[0];
        self.was_quick = hurried && !self.was_quick && (1..QUICK_TURN_ORDERS).contains(&urgent);
        let turn_orders_max = if self.was_quick {
            chained + urgent + QUICK_TURN_ORDERS
        } else if hurried {
            SHORT_TURN_ORDERS_MAX
        } else {
            TURN_ORDERS_MAX
        };
        let most = turn_orders_max
            .min(units_max)
            .saturating_sub(self.orders.len());
        let (orders, held_back) = (&mut self.orders, &mut self.held_back);
        let [highest, lower @ ..] = lanes.pick(now_unix_ms, most, |lane, order| {
            units += units_at_most(&order);
            if units > units_max {
                *held_back = Some((lane as u8, order));
                return Picked::Enough;
            }
            orders.push((lane as u8, order));
            Picked::More
        });
        // Where the highest lane is full itself, its orders wait for others of their own, and short turns would help nobody.
        // Short turns find fewer waiting: connections are let in as there is room for what they bring.
        let lower: u64 = lower.iter().sum();
        let [highest_left, lower_left @ ..] = lanes.depths();
        let others =
            lower_left != [0; LANES - 1] || hurried && lower >= SHORT_TURN_ORDERS_MAX as u64 / 4;
        if highest > 0 && highest_left == 0 && others {
            self.hurried_unix_ms = now_unix_ms;
        }
    }

    /// Orders of the batch that was picked.
    pub fn picked(&self) -> usize {
        self.orders.len()
    }

    /// Deals the batch that was picked. `cannot_record`: why nothing new can be dealt just now.
    pub fn deal(
        &mut self,
        dealer: &mut Dealer,
        now_unix_ms: u64,
        log: &impl Append,
        cannot_record: Option<Refusal>,
    ) {
        dealer.turn(
            now_unix_ms,
            log,
            cannot_record,
            &self.orders,
            &mut self.outcomes,
        );
        dealer.take_deferred(&mut self.again);
        self.deferred.extend(self.again.drain(..));
        dealer.take_deferred_chains(&mut self.chains);
        dealer.take_staying(&mut self.staying);
        self.orders.clear();
    }

    /// What came of the batch that was dealt last, until it is sorted out.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Answers what needs no record, keeps what waits for one, and hands other cores what they owe the answer to. Returns
    /// these cores as bits, by index modulo 64: they must be woken.
    pub fn sort_out(
        &mut self,
        queues: &[impl AsRef<Queues>],
        mut answer: impl FnMut(&Outcome),
    ) -> u64 {
        let mut away = 0;
        for asked in self.staying.drain(..) {
            queues[0].as_ref().staying.push(asked);
            away |= 1;
        }
        for outcome in self.outcomes.drain(..) {
            if outcome.ticket.core != self.index {
                let home = &queues[usize::from(outcome.ticket.core)];
                home.as_ref().inbox.push(outcome);
                away |= 1 << (outcome.ticket.core % 64);
            } else if outcome.lsn() == 0
                || planted::is(Bug::RepeatBeforeDurable) && is_repeat(&outcome)
            {
                answer(&outcome);
            } else {
                self.waiting.push_back(outcome);
            }
        }
        away
    }
}

fn units_of(orders: &[(u8, Order)]) -> usize {
    orders.iter().map(|(_, order)| units_at_most(order)).sum()
}

/// Only a planted bug asks.
fn is_repeat(outcome: &Outcome) -> bool {
    matches!(outcome.verdict, Verdict::Issued { repeat: true, .. })
}
