//! What is asked of an order, from its first step to its last. A new kind of step is a line of [`COURSES`] and a function
//! that plans it; the oracle's table says how it may be answered.

use std::collections::VecDeque;
use std::time::Duration;

use croupier_client::{Holder, Order, OrderId, OrderStep, Priority, SkuId, Wait};

use crate::Dice;

/// Holds that are meant to end by themselves end within this time.
pub const SHORT_TTL_MAX: Duration = Duration::from_millis(3000);
/// Holds that are not outlive any history.
const LONG_TTL: Duration = Duration::from_secs(24 * 3600);
/// Orders that wait for stock in vain do so for this time at most, unless they are to hold cards for a short time: those
/// wait no longer than that, so that all are over soon after the last was asked for.
const LONG_WAIT: Duration = Duration::from_secs(600);
/// How long after its time a hold is taken for expired.
const LAPSE: Duration = Duration::from_millis(20);

/// Customers who are named, by numbers below this one: so few that many orders of one are under way at a time.
const HOLDERS: u64 = 8;

/// A step that is to be asked.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// What.
    pub step: OrderStep,
    /// How long after the answer to the one before it.
    pub after: Duration,
    /// Nobody else may ask it: its order is not there yet.
    pub alone: bool,
}

/// Steps of one order, each to be asked when the one before is answered.
pub type Course = VecDeque<Planned>;

/// Plans steps of one order.
struct Planner<'d> {
    order: Order,
    dice: &'d mut Dice,
    course: Course,
    /// Of its hold; zero of an order without one.
    ttl: Duration,
    /// What is waited before the next step.
    gap: Duration,
}

type Plans = fn(&mut Planner<'_>);

/// Courses and how often they are taken.
const COURSES: [(u64, Plans); 15] = [
    (40, |plan| plan.issue()),
    (6, |plan| {
        plan.issue();
        plan.issue();
    }),
    (6, |plan| {
        plan.issue();
        plan.wrong();
    }),
    (10, |plan| {
        plan.reserve_long();
        plan.commit();
    }),
    (4, |plan| {
        plan.reserve_long();
        plan.commit_part();
        plan.commit_part();
    }),
    // It may or may not come in time.
    (6, |plan| {
        plan.reserve_short();
        plan.commit();
        plan.commit();
    }),
    (4, |plan| {
        plan.reserve_short();
        plan.lapse();
        plan.commit();
    }),
    (3, |plan| {
        plan.reserve_short();
        plan.lapse();
        plan.commit_only_held();
        plan.wrong();
    }),
    (6, |plan| {
        plan.reserve_long();
        plan.cancel();
    }),
    (4, |plan| {
        plan.reserve_short();
        plan.cancel();
        plan.wrong();
        plan.cancel();
    }),
    (4, |plan| {
        plan.reserve_long();
        plan.commit();
        plan.wrong();
    }),
    (4, |plan| {
        plan.reserve_long();
        plan.wrong();
        plan.extend(1);
        plan.extend(2);
        plan.commit();
    }),
    (3, |plan| {
        plan.reserve_short();
        plan.extend(1);
        plan.lapse();
        plan.wrong();
    }),
    (2, |plan| {
        plan.follows_nothing();
        plan.reserve_long();
        plan.commit();
    }),
    (1, |plan| plan.reserve_long()),
];

/// The longest time that an issue or a reserve may wait.
pub fn patience(step: &OrderStep) -> Duration {
    let is_short = !step.ttl.is_zero() && step.ttl < LONG_TTL;
    if is_short { SHORT_TTL_MAX } else { LONG_WAIT }
}

/// A new order, and all that will be asked of it.
pub fn course(id: OrderId, skus: &[SkuId], dice: &mut Dice) -> Course {
    let quantity = *dice.one_of(&[1, 1, 1, 1, 1, 2, 2, 3, 4, 5]);
    let priority = *dice.one_of(&Priority::ALL);
    let order = Order::new(id, *dice.one_of(skus))
        .quantity(quantity)
        .priority(priority);
    let order = match dice.once_in(3) {
        true => order.holder(Holder::from_u128(dice.within(1..HOLDERS).into())),
        false => order,
    };
    let all: u64 = COURSES.iter().map(|(often, _)| often).sum();
    let mut at = dice.within(0..all);
    let (_, plans) = COURSES
        .iter()
        .find(|(often, _)| {
            let here = at < *often;
            at = at.saturating_sub(*often);
            here
        })
        .expect("it is below their sum");
    let mut planner = Planner {
        order,
        dice,
        course: Course::new(),
        ttl: Duration::ZERO,
        gap: Duration::ZERO,
    };
    plans(&mut planner);
    planner.course
}

impl Planner<'_> {
    fn then(&mut self, mut step: OrderStep) {
        step.order.priority = self.order.priority;
        if step.wait == Wait::No && self.dice.once_in(16) {
            step.order.deadline = Some(Duration::from_millis(self.dice.within(1..60)));
        }
        self.course.push_back(Planned {
            step,
            after: std::mem::take(&mut self.gap),
            alone: false,
        });
    }

    /// An issue or a reserve: some may wait for stock, and a few of them stay for the answer. Until when, is no number of
    /// theirs: the next try may have another.
    fn begins(&mut self, mut step: OrderStep) {
        if self.dice.once_in(3) {
            let wait = match self.dice.once_in(32) {
                true => Wait::Stay,
                false => Wait::Told,
            };
            let short = self.short();
            let longest = patience(&step);
            let within = match longest < LONG_WAIT || self.dice.once_in(3) {
                true => short,
                false => Duration::from_millis(self.dice.within(1000..longest.as_millis() as u64)),
            };
            step = step.wait(wait, within);
        } else if self.dice.once_in(6) {
            // Fewer will do.
            step = step.partial();
        }
        self.then(step);
    }

    fn id(&self) -> OrderId {
        self.order.order_id
    }

    fn issue(&mut self) {
        self.begins(OrderStep::issue(self.order));
    }

    fn reserve_long(&mut self) {
        self.ttl = LONG_TTL;
        self.begins(OrderStep::reserve(self.order, self.ttl));
    }

    fn reserve_short(&mut self) {
        self.ttl = self.short();
        self.begins(OrderStep::reserve(self.order, self.ttl));
    }

    /// Many are over at once, some last.
    fn short(&mut self) -> Duration {
        let most = SHORT_TTL_MAX.as_millis() as u64;
        let most = *self.dice.one_of(&[4, 40, 400, most]);
        Duration::from_millis(self.dice.within(1..most))
    }

    /// Waits until the hold is over.
    fn lapse(&mut self) {
        self.gap = self.ttl + LAPSE;
    }

    fn commit(&mut self) {
        self.then(OrderStep::commit(self.id()));
    }

    fn commit_part(&mut self) {
        let part = self.dice.within(1..u64::from(self.order.quantity) + 1) as u16;
        self.then(OrderStep::commit(self.id()).quantity(part));
    }

    fn commit_only_held(&mut self) {
        self.then(OrderStep::commit(self.id()).only_held());
    }

    fn cancel(&mut self) {
        self.then(OrderStep::cancel(self.id()));
    }

    fn extend(&mut self, nth: u16) {
        if self.ttl < LONG_TTL {
            self.ttl = self.short();
        }
        self.then(OrderStep::extend(self.id(), nth, self.ttl));
    }

    /// A step that must be refused whatever the order has become, or does no harm: caller's mistakes.
    fn wrong(&mut self) {
        let id = self.id();
        let other = self.order.quantity(self.order.quantity + 1);
        let is_hold = !self.ttl.is_zero();
        let step = match self.dice.within(0..7) {
            0 => OrderStep::commit(id).quantity(other.quantity),
            1 => OrderStep::extend(id, 9, LONG_TTL),
            2 => OrderStep::reserve(other, LONG_TTL),
            3 => OrderStep::issue(other),
            // Of an order that stands already.
            4 if is_hold => OrderStep::reserve(self.order, self.ttl),
            5 if is_hold => OrderStep::extend(id, 1, self.ttl),
            _ => OrderStep::extend(id, 0, LONG_TTL),
        };
        self.then(step);
    }

    /// A step of an order that is not there.
    fn follows_nothing(&mut self) {
        let id = self.id();
        let step = match self.dice.within(0..3) {
            0 => OrderStep::commit(id),
            1 => OrderStep::cancel(id),
            _ => OrderStep::extend(id, 1, LONG_TTL),
        };
        self.then(step);
        if let Some(last) = self.course.back_mut() {
            last.alone = true;
        }
    }
}
