//! A caller: many calls under way at once, each a frame of steps of one kind, and what became of them told to the oracle.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use croupier_client::{
    Client, Error, OrderId, OrderOutcome, OrderStep, Refusal, SkuId, Step, Wait,
};
use tokio::task::JoinSet;

use super::course::{Course, Planned, course, patience};
use super::watch::Watch;
use crate::{Ask, Dice, Glance, Oracle, judge_chain};

/// Calls that a caller has under way.
const CALLS_MAX: usize = 6;
/// Asks of one call.
const ASKS_MAX: usize = 128;
/// Steps that everybody may ask, too.
const SHARED_MAX: usize = 256;
/// Orders that are looked up now and then.
const RECENT_MAX: usize = 1024;
/// When an order that found no stock tries again.
const NO_STOCK_WAIT: Duration = Duration::from_millis(150);
/// Steps, look-ups, and those who stay for their answer.
const LANES: usize = Step::ALL.len() + 2;
const LANE_LOOK_UP: usize = LANES - 2;
const LANE_STAY: usize = LANES - 1;
/// Calls of those who stay, which take seconds, and asks that are kept for them: more do not stay.
const STAY_CALLS_MAX: usize = 2;
const STAY_ASKS_MAX: usize = 2 * ASKS_MAX;
/// How often an order that waits is asked for again before it is left to itself.
const AGAIN_MAX: u8 = 8;
/// Longest time between two of these.
const AGAIN_WAIT_MS: u64 = 400;
/// One new order in so many begins a chain, of so many orders at most.
const LINKED_ONCE_IN: u64 = 12;
const LINKED_MAX: u64 = 6;

/// What all callers share.
#[derive(Debug)]
pub struct Floor {
    /// The books.
    pub oracle: Arc<Oracle>,
    /// What was seen.
    pub watch: Arc<Watch>,
    /// What is sold.
    pub skus: Vec<SkuId>,
    /// Orders to be begun in all.
    pub orders: u64,
    /// Orders that were begun.
    pub begun: AtomicU64,
    /// Steps that are just being asked by somebody.
    pub shared: Mutex<Vec<OrderStep>>,
}

/// What is to be asked.
#[derive(Debug, Clone, Copy)]
enum What {
    Step(OrderStep),
    LookUp(OrderId),
}

#[derive(Debug, Clone, Copy)]
struct Task {
    what: What,
    /// Its answer brings the next step of its order.
    leads: bool,
    /// Nobody else may ask it.
    alone: bool,
    /// How often it was answered that its order waits.
    again: u8,
}

impl Task {
    fn lane(&self) -> usize {
        match self.what {
            What::Step(step) if step.wait == Wait::Stay => LANE_STAY,
            What::Step(step) => step.step as usize,
            What::LookUp(_) => LANE_LOOK_UP,
        }
    }

    fn step(&self) -> Option<OrderStep> {
        match self.what {
            What::Step(step) => Some(step),
            What::LookUp(_) => None,
        }
    }

    /// Whether it may be one of a chain.
    fn may_be_linked(&self, step: &OrderStep) -> bool {
        let begins = matches!(step.step, Step::Issue | Step::Reserve);
        begins && self.leads && !self.alone && step.wait == Wait::No && !step.partial
    }

    /// Whether it is linked with the next one.
    fn is_linked(&self) -> bool {
        self.step().is_some_and(|step| step.linked)
    }

    fn link(&mut self) {
        if let What::Step(step) = &mut self.what {
            step.linked = true;
        }
    }

    /// As it is asked by somebody who has no time.
    fn in_haste(mut self) -> Self {
        if let What::Step(step) = &mut self.what
            && step.wait == Wait::Stay
        {
            step.wait = Wait::Told;
        }
        self
    }
}

/// What was booked when it was sent.
#[derive(Debug)]
enum Booked {
    Step(Ask),
    LookUp(Glance),
}

type Sent = Vec<(Task, Booked)>;

/// What a caller is to do while a server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Ask again what was not answered, and nothing else.
    Settle,
    /// Go on until all is done, or the server is gone.
    GoOn,
}

/// A caller, with all that it has begun.
#[derive(Debug)]
pub struct Caller {
    floor: Arc<Floor>,
    dice: Dice,
    ready: [VecDeque<Task>; LANES],
    /// By when it is due, and then by number.
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed: HashMap<u64, Task>,
    delays: u64,
    /// What comes next of each order.
    courses: HashMap<OrderId, Course>,
    /// Asked, and not answered when the server was gone.
    unanswered: Vec<Task>,
    recent: VecDeque<OrderId>,
    /// Calls under way of those who stay.
    staying: usize,
    /// The server does not answer any more.
    gone: bool,
}

impl Caller {
    /// A caller who has begun nothing.
    pub fn new(floor: Arc<Floor>, dice: Dice) -> Self {
        Self {
            floor,
            dice,
            ready: Default::default(),
            later: BinaryHeap::new(),
            delayed: HashMap::new(),
            delays: 0,
            courses: HashMap::new(),
            unanswered: Vec::new(),
            recent: VecDeque::new(),
            staying: 0,
            gone: false,
        }
    }

    /// Asks through this client until the deed is done, or nobody answers any more.
    pub async fn call(&mut self, client: &Client, deed: Deed) {
        self.gone = false;
        for task in std::mem::take(&mut self.unanswered) {
            self.at_once(task.in_haste());
        }
        let mut calls = JoinSet::new();
        loop {
            while calls.len() < CALLS_MAX && !self.gone {
                if deed == Deed::GoOn {
                    self.take_due();
                    self.begin_orders();
                }
                let Some(sent) = self.next_call() else { break };
                let client = client.clone();
                calls.spawn(async move {
                    let answered = ask(&client, &sent).await;
                    (sent, answered)
                });
            }
            if calls.is_empty() {
                match self.later.peek() {
                    Some(Reverse((due, _))) if deed == Deed::GoOn && !self.gone => {
                        tokio::time::sleep_until((*due).into()).await;
                        continue;
                    }
                    _ => break,
                }
            }
            let has_room = deed == Deed::GoOn && calls.len() < CALLS_MAX && !self.gone;
            let next = self.later.peek().filter(|_| has_room);
            let due = next.map_or_else(far_off, |Reverse((due, _))| *due);
            let call = tokio::select! {
                call = calls.join_next() => call,
                () = tokio::time::sleep_until(due.into()) => continue,
            };
            let call = call.expect("some are under way");
            let (sent, answered) = call.expect("a call does not panic");
            let stayed = sent.iter().any(|(task, _)| task.lane() == LANE_STAY);
            self.staying -= usize::from(stayed);
            self.answered(sent, answered, deed);
        }
        for lane in &mut self.ready {
            self.unanswered.extend(lane.drain(..));
        }
    }

    /// True if everything was asked and answered.
    pub fn is_done(&self) -> bool {
        let begun = self.floor.begun.load(Ordering::Relaxed) >= self.floor.orders;
        begun && self.unanswered.is_empty() && self.later.is_empty()
    }

    fn take_due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, number))) = self.later.peek().copied() {
            if due > now {
                return;
            }
            self.later.pop();
            if let Some(task) = self.delayed.remove(&number) {
                self.at_once(task);
            }
        }
    }

    fn at_once(&mut self, mut task: Task) {
        // Who comes again comes alone.
        if let What::Step(step) = &mut task.what {
            step.linked = false;
        }
        if self.ready[LANE_STAY].len() >= STAY_ASKS_MAX {
            task = task.in_haste();
        }
        self.ready[task.lane()].push_back(task);
    }

    fn plan(&mut self, task: Task, after: Duration) {
        if after.is_zero() {
            return self.at_once(task);
        }
        self.delays += 1;
        self.delayed.insert(self.delays, task);
        self.later
            .push(Reverse((Instant::now() + after, self.delays)));
    }

    /// Begins orders until a frame is full.
    fn begin_orders(&mut self) {
        let floor = Arc::clone(&self.floor);
        while self.ready[..LANE_STAY]
            .iter()
            .all(|lane| lane.len() < ASKS_MAX)
        {
            if floor.begun.load(Ordering::Relaxed) >= floor.orders
                || floor.begun.fetch_add(1, Ordering::Relaxed) >= floor.orders
            {
                return;
            }
            let number = u128::from(self.dice.next()) << 64 | u128::from(self.dice.next());
            let id = OrderId::from_u128(number.max(1));
            let planned = course(id, &floor.skus, &mut self.dice);
            self.courses.insert(id, planned);
            self.go_on(id);
            if self.dice.once_in(8) {
                self.look_up(id);
            }
        }
    }

    /// Looks up an order that was begun a while ago, or is just being asked.
    fn look_up(&mut self, id: OrderId) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
        let nth = self.dice.within(0..self.recent.len() as u64) as usize;
        let what = What::LookUp(self.recent[nth]);
        self.plan(follower(what), Duration::ZERO);
    }

    /// Plans the next step of an order, perhaps twice.
    fn go_on(&mut self, id: OrderId) {
        let Some(course) = self.courses.get_mut(&id) else {
            return;
        };
        let Some(Planned { step, after, alone }) = course.pop_front() else {
            self.courses.remove(&id);
            return;
        };
        let what = What::Step(step);
        let leads = true;
        let again = 0;
        if !alone && self.dice.once_in(12) {
            self.floor.watch.seen().duplicates += 1;
            self.plan(follower(what), after);
        }
        let task = Task {
            what,
            leads,
            alone,
            again,
        };
        self.plan(task, after);
    }

    /// The fullest lane's asks, and what somebody else is just asking.
    fn next_call(&mut self) -> Option<Sent> {
        let may_stay = self.staying < STAY_CALLS_MAX;
        let lanes = if may_stay { LANES } else { LANE_STAY };
        let lane = (0..lanes).max_by_key(|&lane| self.ready[lane].len())?;
        let asks = self.ready[lane].len().min(ASKS_MAX);
        if asks == 0 {
            return None;
        }
        self.staying += usize::from(lane == LANE_STAY);
        let mut tasks: Vec<Task> = self.ready[lane].drain(..asks).collect();
        self.share(&tasks);
        self.link(&mut tasks);
        let oracle = &self.floor.oracle;
        let mut sent = Vec::with_capacity(tasks.len());
        for chain in tasks.chunk_by(|task, _| task.is_linked()) {
            if let [first, _, ..] = chain {
                debug_assert!(first.is_linked());
                let steps: Vec<OrderStep> = chain.iter().filter_map(Task::step).collect();
                let asks = oracle.ask_linked(&steps).into_iter().map(Booked::Step);
                sent.extend(chain.iter().copied().zip(asks));
                continue;
            }
            sent.extend(chain.iter().map(|&task| {
                let booked = match task.what {
                    What::Step(step) => Booked::Step(oracle.ask_step(step)),
                    What::LookUp(id) => Booked::LookUp(oracle.glance(id)),
                };
                (task, booked)
            }));
        }
        Some(sent)
    }

    /// Links some of the new orders that stand side by side in a call.
    fn link(&mut self, tasks: &mut [Task]) {
        let mut at = 0;
        while at < tasks.len() {
            let most = match self.dice.once_in(LINKED_ONCE_IN) {
                true => self.dice.within(2..LINKED_MAX + 1) as usize,
                false => 1,
            };
            let mut ids = HashSet::new();
            let fit = |task: &&Task| {
                let step = task.step().filter(|step| task.may_be_linked(step));
                step.is_some_and(|step| ids.insert(step.order.order_id))
            };
            let linked = tasks[at..].iter().take(most).take_while(fit).count();
            let (chain, _) = tasks[at..].split_at_mut(linked.max(1));
            if let [before @ .., _] = chain {
                before.iter_mut().for_each(Task::link);
            }
            at += chain.len();
        }
    }

    fn share(&mut self, tasks: &[Task]) {
        let mut shared = self.floor.shared.lock().expect("nobody panics with it");
        let mut taken = 0;
        for task in tasks {
            let What::Step(step) = task.what else { return };
            if !task.leads || task.alone || !self.dice.once_in(24) {
                continue;
            }
            if shared.len() == SHARED_MAX {
                let nth = self.dice.within(0..SHARED_MAX as u64) as usize;
                let other = follower(What::Step(shared.swap_remove(nth))).in_haste();
                self.ready[other.lane()].push_back(other);
                taken += 1;
            }
            shared.push(step);
        }
        drop(shared);
        self.floor.watch.seen().duplicates += taken;
    }

    /// Tells the oracle what became of a call, and plans what comes next.
    fn answered(&mut self, sent: Sent, answered: Result<Vec<OrderOutcome>, Error>, deed: Deed) {
        let floor = Arc::clone(&self.floor);
        let outcomes = match answered {
            Ok(outcomes) => outcomes,
            Err(error) => {
                self.gone = true;
                if matches!(error, Error::Protocol(_) | Error::Refused { .. }) {
                    floor.watch.found(format!("a call failed: {error}"));
                }
                floor.watch.seen().unanswered += sent.len() as u64;
                for (task, booked) in sent {
                    if let Booked::Step(ask) = booked {
                        floor.oracle.lost(&ask);
                    }
                    self.unanswered.push(task);
                }
                return;
            }
        };
        let mut left = &outcomes[..];
        for chain in sent.chunk_by(|(task, _), _| task.is_linked()) {
            let (answers, rest) = left.split_at(chain.len().min(left.len()));
            left = rest;
            if chain.len() > 1 {
                floor.watch.seen().chains += 1;
                floor.watch.check(|| judge_chain(answers));
            }
        }
        for ((task, booked), outcome) in sent.iter().zip(&outcomes) {
            let oracle = &floor.oracle;
            floor.watch.check(|| match booked {
                Booked::Step(ask) => oracle.book(ask, outcome),
                Booked::LookUp(glance) => oracle.glanced(glance, outcome),
            });
            self.follow(task, outcome, deed);
        }
        let mut seen = floor.watch.seen();
        for ((task, _), outcome) in sent.iter().zip(&outcomes) {
            let (said, repeat) = said(outcome);
            let asked = match task.what {
                What::Step(step) => step.step.name(),
                What::LookUp(_) => "look-up",
            };
            *seen.answers.entry((asked, said)).or_default() += 1;
            seen.repeats += u64::from(repeat);
        }
    }

    /// What comes after this answer.
    fn follow(&mut self, task: &Task, outcome: &OrderOutcome, deed: Deed) {
        let (What::Step(step), true) = (task.what, task.leads) else {
            return;
        };
        let id = step.order.order_id;
        let refusal = match outcome {
            OrderOutcome::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        };
        let begins = matches!(step.step, Step::Issue | Step::Reserve);
        if begins && matches!(outcome, OrderOutcome::Waiting(_)) {
            return self.waits(task, id);
        }
        match refusal {
            Some(Refusal::ShuttingDown | Refusal::StoreFailed | Refusal::Busy) => {
                self.gone |= refusal != Some(Refusal::Busy);
                self.unanswered.push(*task);
            }
            Some(Refusal::DeadlineExceeded) => {
                let mut step = step;
                // Who waits needs one.
                step.order.deadline = (step.wait != Wait::No).then(|| patience(&step));
                let what = What::Step(step);
                self.plan(Task { what, ..*task }, Duration::ZERO);
            }
            Some(Refusal::OutOfStock) if deed == Deed::GoOn && self.dice.once_in(3) => {
                let mut step = step;
                // Who takes a part does not wait.
                if begins && !step.partial && self.dice.once_in(3) {
                    step = step.wait(Wait::Told, patience(&step));
                }
                let what = What::Step(step);
                self.plan(Task { what, ..*task }, NO_STOCK_WAIT);
            }
            // Another one of its chain cannot be had.
            Some(Refusal::LinkedRefused) => self.plan(*task, Duration::ZERO),
            // There is no order to go on with.
            Some(Refusal::OutOfStock) if begins => drop(self.courses.remove(&id)),
            _ => self.go_on(id),
        }
    }

    /// What comes after the answer that an order waits: the same step again a few times, or the next one all the same.
    fn waits(&mut self, task: &Task, id: OrderId) {
        if self.dice.once_in(6) {
            return self.go_on(id);
        }
        if task.again == AGAIN_MAX {
            self.courses.remove(&id);
            return;
        }
        let after = Duration::from_millis(self.dice.within(1..AGAIN_WAIT_MS));
        let again = task.again + 1;
        self.plan(Task { again, ..*task }, after);
    }
}

fn far_off() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn follower(what: What) -> Task {
    Task {
        what,
        leads: false,
        alone: false,
        again: 0,
    }
}

async fn ask(client: &Client, sent: &Sent) -> Result<Vec<OrderOutcome>, Error> {
    let steps = sent.iter().filter_map(|(task, _)| match task.what {
        What::Step(step) => Some(step),
        What::LookUp(_) => None,
    });
    let steps: Vec<_> = steps.collect();
    if !steps.is_empty() {
        return client.steps(&steps).await;
    }
    let ids = sent.iter().filter_map(|(task, _)| match task.what {
        What::Step(_) => None,
        What::LookUp(id) => Some(id),
    });
    client.orders(&ids.collect::<Vec<_>>()).await
}

/// What an answer says, in a word, and whether it is marked as a repeat.
pub fn said(outcome: &OrderOutcome) -> (&'static str, bool) {
    match outcome {
        OrderOutcome::Issued(issued) => ("issued", issued.repeat),
        OrderOutcome::Held(held) => ("held", held.repeat),
        OrderOutcome::Cancelled(held) => ("cancelled", held.repeat),
        OrderOutcome::Waiting(held) => ("waiting", held.repeat),
        OrderOutcome::Expired(_) => ("expired", false),
        OrderOutcome::Refused { refusal, .. } => (refusal.name(), false),
    }
}
