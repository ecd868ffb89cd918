//! Callers: the client's own decisions about retries ([`Tries`]), without its sockets.

use std::collections::{BTreeMap, BTreeSet};

use croupier_client::testing::{Resend, Tries, leaves_doubt};
use croupier_client::{
    Holder, Order, OrderId, OrderOutcome, OrderStep, Priority, Refusal, SkuId, Step, Wait,
};
use croupier_tests::{Ask, Oracle};
use fastrand::Rng;

use crate::network::{Letter, Link, Network};
use crate::node::QUANTITY_MAX;
use crate::plan::{Feature, Plan};

/// Calls that a caller has open at once.
const CALLS_MAX: usize = 10;
/// Orders that others may ask for at the same time.
const SHARED_MAX: usize = 24;
/// How many holders there are.
const HOLDERS: u128 = 4;
/// Retries of a call, and its time.
const RETRIES: u32 = 6;
const CALL_TIMEOUT_US: u64 = 5_000_000;
/// The tag of orders whose cards may come from outside.
pub const OUTSIDE_TAG: u16 = 4;

/// Whether an order may wait for stock: it says so, or it may be accepted.
pub fn may_wait(step: &OrderStep) -> bool {
    step.wait != Wait::No || is_accepted(step)
}

/// Whether an order is accepted though it does not say that it waits, where the routes have a channel for it.
fn is_accepted(step: &OrderStep) -> bool {
    let begins = matches!(step.step, Step::Issue | Step::Reserve);
    begins && step.order.tag == OUTSIDE_TAG && !step.partial && !step.linked
}

struct Call {
    asks: Vec<Ask>,
    /// Places in `asks` that this try asks for, and what came of them.
    asked: Vec<usize>,
    outcomes: Vec<Option<OrderOutcome>>,
    tries: Tries,
    try_number: u32,
    link: Option<Link>,
    /// When the next try is due, when none is under way.
    due_us: Option<u64>,
    give_up_us: u64,
    /// An attempt at another order under a known id: must be refused.
    abuse: bool,
}

struct Caller {
    link: Option<Link>,
    calls: BTreeSet<u64>,
}

/// All callers of a run.
pub struct Callers {
    callers: Vec<Caller>,
    calls: BTreeMap<u64, Call>,
    owners: BTreeMap<u64, usize>,
    shared: Vec<Order>,
    /// Orders that were answered with cards.
    answered: Vec<Order>,
    /// Reserves that were sent, for others to go on with.
    reserves: Vec<OrderStep>,
    /// Chains that others may ask for at the same time.
    chains: Vec<Vec<OrderStep>>,
    next_call: u64,
    next_link: u32,
    dice: Rng,
    plan: Plan,
    /// Answers with cards, first ones and repeats.
    pub issued: u64,
    pub repeats: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Answers that told of a hold.
    pub holds: u64,
    /// Answers that an order waits.
    pub waits: u64,
}

impl Callers {
    pub fn new(plan: &Plan) -> Callers {
        Callers {
            callers: (0..plan.callers)
                .map(|_| Caller {
                    link: None,
                    calls: BTreeSet::new(),
                })
                .collect(),
            calls: BTreeMap::new(),
            owners: BTreeMap::new(),
            shared: Vec::new(),
            answered: Vec::new(),
            reserves: Vec::new(),
            chains: Vec::new(),
            next_call: 0,
            next_link: 0,
            dice: plan.dice(1),
            plan: plan.clone(),
            issued: 0,
            repeats: 0,
            refused: 0,
            unknown: 0,
            holds: 0,
            waits: 0,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.callers.len()
    }

    /// Whether nobody waits for anything.
    pub fn are_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// When something is due without anything arriving.
    pub fn next_us(&self) -> Option<u64> {
        let due = self
            .calls
            .values()
            .map(|call| call.due_us.unwrap_or(call.give_up_us));
        due.min()
    }

    /// One thing a caller does: begins a call for one of `skus` (none: begins nothing), or tries one again.
    pub fn step(
        &mut self,
        index: usize,
        now_us: u64,
        skus: &[u32],
        server_is_up: bool,
        oracle: &Oracle,
        network: &mut Network,
    ) -> bool {
        let mine: Vec<u64> = self.callers[index].calls.iter().copied().collect();
        for number in mine {
            let call = &self.calls[&number];
            if call.give_up_us <= now_us {
                self.lose(number, oracle);
                return true;
            }
            if call.due_us.is_some_and(|due| due <= now_us) {
                self.send(index, number, now_us, server_is_up, oracle, network);
                return true;
            }
        }
        if skus.is_empty() || self.callers[index].calls.len() >= CALLS_MAX {
            return false;
        }
        // Few begin anything while there is no server, or nothing would be left to happen while there is one.
        if !server_is_up && self.dice.u32(0..50) != 0 {
            return false;
        }
        self.begin(index, now_us, skus, oracle);
        true
    }

    fn begin(&mut self, index: usize, now_us: u64, skus: &[u32], oracle: &Oracle) {
        let abuse = !self.answered.is_empty() && self.dice.u32(0..24) == 0;
        let mut asks: Vec<Ask> = Vec::new();
        if abuse {
            let known = *self.dice.choice(&self.answered).expect("not empty");
            let other = match self.plan.has(Feature::Holders) && self.dice.bool() {
                // Of somebody else, or of nobody.
                true => Order {
                    holder: match known.holder {
                        None => Some(Holder::from_u128(1)),
                        Some(_) => None,
                    },
                    ..known
                },
                false => known.quantity(known.quantity % QUANTITY_MAX + 1),
            };
            asks.push(Ask::unbooked(other));
        } else if self.plan.has(Feature::Links) && self.dice.u32(0..6) == 0 {
            asks.extend(oracle.ask_linked(&self.chain(skus)));
        } else {
            let most = if self.dice.u32(0..8) == 0 { 20 } else { 4 };
            for _ in 0..self.dice.usize(1..=most) {
                let holds = self.plan.has(Feature::Holds) && self.dice.u32(0..6) == 0;
                let step = if holds {
                    self.hold_step(skus)
                } else {
                    let step = OrderStep::issue(self.order(skus));
                    let part = self.plan.has(Feature::Quantities) && self.dice.u32(0..6) == 0;
                    if part { step.partial() } else { step }
                };
                let id = step.order.order_id;
                if asks.iter().any(|ask| ask.order().order_id == id) {
                    continue;
                }
                asks.push(match is_accepted(&step) {
                    true => oracle.ask_accepted(step),
                    false => oracle.ask_step(step),
                });
            }
        }
        // Who asks for what comes from outside does not stay for ever, or nobody would have time for anything else.
        let is_accepted = asks.iter().any(|ask| is_accepted(&ask.step));
        let timeout_us = match is_accepted && self.dice.u32(0..4) > 0 {
            true => self.dice.u64(10_000..100_000),
            false => CALL_TIMEOUT_US,
        };
        let number = self.next_call;
        self.next_call += 1;
        let call = Call {
            asked: (0..asks.len()).collect(),
            outcomes: vec![None; asks.len()],
            asks,
            tries: Tries::seeded(RETRIES, Resend::Safe, self.dice.u64(..)),
            try_number: 0,
            link: None,
            due_us: Some(now_us),
            give_up_us: now_us + timeout_us,
            abuse,
        };
        self.calls.insert(number, call);
        self.owners.insert(number, index);
        self.callers[index].calls.insert(number);
    }

    /// A step of an order in two phases: a new one, or the next, or the same again, of one that somebody has begun.
    fn hold_step(&mut self, skus: &[u32]) -> OrderStep {
        let known = self.dice.choice(&self.reserves).copied();
        let Some(begun) = known.filter(|_| self.dice.u32(0..5) > 1) else {
            let order = Order {
                order_id: OrderId::from_u128(self.dice.u128(1..)),
                ..self.order(skus)
            };
            // Most end while others are under way; some outlive the run.
            let ttl_ms = match self.dice.u32(0..4) {
                0 => 3_600_000,
                1 => self.dice.u64(1..3),
                _ => self.dice.u64(1..200),
            };
            let mut step = OrderStep::reserve(order, std::time::Duration::from_millis(ttl_ms));
            if self.plan.has(Feature::Waits) && self.dice.u32(0..3) > 0 {
                // Most of what sells a SKU out are those who would wait.
                let order = match self.plan.has(Feature::Quantities) && self.dice.bool() {
                    true => order.quantity(self.dice.u16(1..QUANTITY_MAX)),
                    false => order,
                };
                step = match self.dice.u32(0..3) {
                    0 => step.quantity(order.quantity),
                    _ => OrderStep::issue(order),
                };
                let wait = match self.dice.u32(0..4) {
                    0 => Wait::Stay,
                    _ => Wait::Told,
                };
                let within_ms = match self.dice.u32(0..4) {
                    0 => 3_600_000,
                    1 => self.dice.u64(1..3),
                    _ => self.dice.u64(1..500),
                };
                step = step.wait(wait, std::time::Duration::from_millis(within_ms));
                if self.plan.has(Feature::Channels) && self.dice.u32(0..4) > 0 {
                    // Its cards come from outside, where the routes say so.
                    step.order = step.order.tag(OUTSIDE_TAG);
                }
            } else if self.plan.has(Feature::Quantities) && self.dice.u32(0..3) == 0 {
                step = step.quantity(self.dice.u16(1..QUANTITY_MAX)).partial();
            }
            self.go_on_with(step);
            return step;
        };
        let id = begun.order.order_id;
        let quantity = begun.order.quantity;
        match self.dice.u32(0..8) {
            0 => begun,
            1 => OrderStep::cancel(id),
            2 => {
                let ttl_ms = self.dice.u64(1..300);
                let nth = self.dice.u16(1..3);
                OrderStep::extend(id, nth, std::time::Duration::from_millis(ttl_ms))
            }
            3 => OrderStep::commit(id).quantity(self.dice.u16(1..=quantity)),
            4 => OrderStep::commit(id).only_held(),
            _ => OrderStep::commit(id),
        }
    }

    /// A chain: of new orders, with one among them now and then that somebody else asks for, or one that was asked for before.
    fn chain(&mut self, skus: &[u32]) -> Vec<OrderStep> {
        if !self.chains.is_empty() && self.plan.has(Feature::Duplicates) && self.dice.u32(0..3) == 0
        {
            return self.dice.choice(&self.chains).expect("not empty").clone();
        }
        let holds = self.plan.has(Feature::Holds) && self.dice.u32(0..3) == 0;
        let ttl = std::time::Duration::from_millis(self.dice.u64(1..2000));
        let mut steps: Vec<OrderStep> = Vec::new();
        for _ in 0..self.dice.usize(2..6) {
            let order = self.order(skus);
            let order = Order {
                deadline: None,
                // The last of a chain may be asked for again alone, and nobody has booked that it may be accepted.
                tag: order.tag % OUTSIDE_TAG,
                ..order
            };
            if steps
                .iter()
                .all(|step| step.order.order_id != order.order_id)
            {
                steps.push(if holds {
                    // Nobody else reserves what others issue.
                    let order_id = OrderId::from_u128(self.dice.u128(1..));
                    OrderStep::reserve(Order { order_id, ..order }, ttl)
                } else {
                    OrderStep::issue(order)
                });
            }
        }
        if let [linked @ .., _] = &mut steps[..] {
            linked.iter_mut().for_each(|step| *step = step.linked());
        }
        for &step in steps.iter().filter(|_| holds) {
            // For others to commit, cancel or extend.
            if self.reserves.len() == SHARED_MAX {
                self.reserves.remove(0);
            }
            self.reserves.push(OrderStep {
                linked: false,
                ..step
            });
        }
        if self.chains.len() == SHARED_MAX {
            self.chains.remove(0);
        }
        self.chains.push(steps.clone());
        steps
    }

    /// An order that somebody has begun, for others to go on with.
    pub fn go_on_with(&mut self, begun: OrderStep) {
        if self.reserves.len() == SHARED_MAX {
            self.reserves.remove(0);
        }
        self.reserves.push(begun);
    }

    /// The order, of a holder now and then.
    pub fn of_holder(&mut self, order: Order) -> Order {
        if !self.plan.has(Feature::Holders) || self.dice.bool() {
            return order;
        }
        order.holder(Holder::from_u128(self.dice.u128(1..=HOLDERS)))
    }

    fn order(&mut self, skus: &[u32]) -> Order {
        let again = self.plan.has(Feature::Duplicates);
        match self.dice.u32(0..10) {
            0 if again && !self.answered.is_empty() => {
                *self.dice.choice(&self.answered).expect("not empty")
            }
            1 | 2 if again && !self.shared.is_empty() => {
                *self.dice.choice(&self.shared).expect("not empty")
            }
            _ => {
                let id = OrderId::from_u128(self.dice.u128(1..));
                let sku = *self.dice.choice(skus).expect("not empty");
                let quantity = match self.dice.u32(0..12) {
                    // Turns of many records are what makes cores compete for room in the log.
                    0 | 1 if self.plan.has(Feature::Quantities) => self.dice.u16(1..QUANTITY_MAX),
                    2..=4 if self.plan.has(Feature::Quantities) => self.dice.u16(1..6),
                    _ => 1,
                };
                let mut order = Order::new(id, SkuId(sku))
                    .quantity(quantity)
                    .priority(*self.dice.choice(Priority::ALL.as_slice()).expect("some"));
                let tag = match self.plan.has(Feature::Channels) && self.dice.u32(0..4) > 0 {
                    true => OUTSIDE_TAG,
                    false => self.dice.u16(0..OUTSIDE_TAG),
                };
                // Orders that wait count for their holders: few are of any, or caps would leave nobody waiting.
                if tag != OUTSIDE_TAG || self.dice.u32(0..4) == 0 {
                    order = self.of_holder(order);
                }
                order = order.tag(tag);
                if self.dice.u32(0..16) == 0 {
                    order = order.deadline(std::time::Duration::from_millis(self.dice.u64(1..40)));
                }
                if self.shared.len() == SHARED_MAX {
                    self.shared.remove(0);
                }
                self.shared.push(order);
                order
            }
        }
    }

    fn send(
        &mut self,
        index: usize,
        number: u64,
        now_us: u64,
        server_is_up: bool,
        oracle: &Oracle,
        network: &mut Network,
    ) {
        if !server_is_up {
            self.no_answer(number, now_us, false, oracle);
            return;
        }
        let link = match self.callers[index].link {
            Some(link) => link,
            None => {
                self.next_link += 1;
                let link = Link {
                    number: self.next_link,
                    core: self.dice.u16(0..self.plan.cores),
                };
                self.callers[index].link = Some(link);
                link
            }
        };
        let call = self.calls.get_mut(&number).expect("it is open");
        call.link = Some(link);
        call.due_us = None;
        call.try_number += 1;
        let orders = call.asked.iter().map(|&place| call.asks[place].step);
        let letter = Letter::Orders {
            call: number,
            try_number: call.try_number,
            orders: orders.collect(),
        };
        network.post(now_us, link, true, letter);
    }

    /// A try has no answer.
    fn no_answer(&mut self, number: u64, now_us: u64, sent: bool, oracle: &Oracle) {
        let vanishes = self.plan.has(Feature::Vanishing) && self.dice.u32(0..12) == 0;
        let call = self.calls.get_mut(&number).expect("it is open");
        // Outcomes of a reply that did not come whole are thrown away, as a client does.
        call.link = None;
        for &place in &call.asked {
            call.outcomes[place] = None;
        }
        match call.tries.lost(sent, true) {
            Some(wait) if !vanishes => call.due_us = Some(now_us + wait.as_micros() as u64),
            _ => self.lose(number, oracle),
        }
    }

    /// The call ends without knowing what became of its orders.
    fn lose(&mut self, number: u64, oracle: &Oracle) {
        let call = self.close(number);
        self.unknown += call.asks.len() as u64;
        if !call.abuse {
            call.asks.iter().for_each(|ask| oracle.lost(ask));
        }
    }

    fn close(&mut self, number: u64) -> Call {
        let owner = self.owners.remove(&number).expect("it is open");
        self.callers[owner].calls.remove(&number);
        self.calls.remove(&number).expect("it is open")
    }

    /// An outcome has arrived.
    pub fn outcome(
        &mut self,
        now_us: u64,
        number: u64,
        try_number: u32,
        index: u16,
        outcome: OrderOutcome,
        oracle: &Oracle,
    ) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        if call.try_number != try_number || call.due_us.is_some() {
            return;
        }
        let place = call.asked[usize::from(index)];
        assert!(call.outcomes[place].is_none(), "one answer to one question");
        call.outcomes[place] = Some(outcome);
        if call
            .asked
            .iter()
            .any(|&place| call.outcomes[place].is_none())
        {
            return;
        }
        // Those that the server was too busy for are asked again, the others are done.
        let patient = |outcome: &Option<OrderOutcome>| match outcome {
            Some(OrderOutcome::Refused {
                refusal,
                retry_after_ms,
                ..
            }) if refusal.retryable() => Some((*refusal, *retry_after_ms)),
            _ => None,
        };
        let again: Vec<usize> = (0..call.asks.len())
            .filter(|&place| patient(&call.outcomes[place]).is_some())
            .collect();
        let longest = again
            .iter()
            .filter_map(|&place| patient(&call.outcomes[place]))
            .max_by_key(|(_, ms)| *ms);
        if let Some((refusal, ms)) = longest
            && let Some(wait) = call.tries.refused(refusal, ms)
            && now_us + (wait.as_micros() as u64) < call.give_up_us
        {
            for &place in &again {
                call.outcomes[place] = None;
            }
            call.asked = again;
            call.due_us = Some(now_us + wait.as_micros() as u64);
            return;
        }
        self.book(number, oracle);
    }

    fn book(&mut self, number: u64, oracle: &Oracle) {
        let call = self.close(number);
        for (ask, outcome) in call.asks.iter().zip(&call.outcomes) {
            let outcome = outcome.as_ref().expect("all are answered");
            match outcome {
                OrderOutcome::Issued(issued) => {
                    assert!(
                        !call.abuse,
                        "{} was dealt again as another order",
                        ask.order().order_id
                    );
                    if issued.repeat {
                        self.repeats += 1;
                    } else {
                        self.issued += 1;
                    }
                    if ask.is_plain() {
                        self.answered.push(ask.order());
                    }
                    oracle.book(ask, outcome);
                }
                OrderOutcome::Refused { refusal, .. } => {
                    self.refused += 1;
                    if call.abuse {
                        assert!(
                            matches!(refusal, Refusal::OrderIdReused | Refusal::StoreFailed)
                                || refusal.retryable(),
                            "another order under a known id: {refusal:?}"
                        );
                    } else if call.tries.in_doubt() && leaves_doubt(*refusal) {
                        self.unknown += 1;
                        oracle.lost(ask);
                    } else {
                        oracle.book(ask, outcome);
                    }
                }
                OrderOutcome::Waiting(_) => {
                    assert!(!call.abuse, "{outcome:?} to an issue");
                    self.waits += 1;
                    oracle.book(ask, outcome);
                }
                OrderOutcome::Held(_) | OrderOutcome::Cancelled(_) | OrderOutcome::Expired(_) => {
                    assert!(!call.abuse, "{outcome:?} to an issue");
                    self.holds += 1;
                    oracle.book(ask, outcome);
                }
            }
        }
    }

    /// A connection is lost, and everybody on it knows.
    pub fn link_lost(&mut self, lost: impl Fn(Link) -> bool, now_us: u64, oracle: &Oracle) {
        for caller in &mut self.callers {
            caller.link = caller.link.filter(|link| !lost(*link));
        }
        let numbers: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.due_us.is_none() && call.link.is_some_and(&lost))
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            self.no_answer(number, now_us, true, oracle);
        }
    }

    /// Connections that are open.
    pub fn links(&self) -> Vec<Link> {
        self.callers
            .iter()
            .filter_map(|caller| caller.link)
            .collect()
    }

    /// Whether answers on this link have a reader.
    pub fn has_link(&self, number: u32) -> Option<Link> {
        self.callers
            .iter()
            .filter_map(|caller| caller.link)
            .find(|link| link.number == number)
    }
}
