//! Who acts next: one thread, one clock, any order that chance likes.

mod calm;
mod canaries;
mod operators;
mod pickers;
mod retries;
mod workers;

use std::collections::BTreeSet;

use croupier_client::{CardRef, OrderOutcome, OrderStep};
use croupier_engine::disk::memory::MemoryDisk;
use croupier_engine::error::EngineError;
use croupier_engine::order::Outcome;
use croupier_tests::Oracle;
use fastrand::Rng;
use rustix::io::Errno;

use crate::callers::Callers;
use crate::crash::{Crasher, landing};
use crate::holders::Accounts;
use crate::network::{Letter, Link, Network};
use crate::node::{self, Node, View};
use crate::plan::{Feature, Plan};

pub use workers::Channelled;

/// Where a simulation's clock begins: 2026-01-01.
pub const EPOCH_MS: u64 = 1_767_225_600_000;
/// Steps that a server whose log has failed still gets before its process ends.
const FAREWELL_STEPS: u32 = 40;
/// SKUs of a simulated shop.
const SKUS: [&str; 3] = ["steam-50", "gift-100", "卡密-20"];

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub steps: u64,
    pub simulated_us: u64,
    pub changes: u64,
    pub starts: u64,
    pub power_cuts: u64,
    pub kills: u64,
    pub stops: u64,
    pub log_failures: u64,
    pub folds: u64,
    pub imports: u64,
    /// Cards that were delivered.
    pub delivered: u64,
    pub channels: Channelled,
    pub moves: u64,
    /// Cards that expired in stock, and holds that ended because of it.
    pub expired: [u64; 2],
    pub picks: u64,
    /// Canaries that were begun, came into force, and were rolled back.
    pub canaries: [u64; 3],
    /// Orders that were refused because their holders had as much as they may.
    pub capped: u64,
    /// Uses that cards without end have got besides the first.
    pub uses: u64,
}

/// Holds what a turn has come to against the caps of holders. Tells how many orders wait for channels by it.
fn count_turn(accounts: &mut Accounts, node: &mut Node, plan: &Plan) -> u64 {
    let Some(turn) = node.take_turn() else {
        return 0;
    };
    accounts.turn(&node.engine.state, plan.holder_holds_max.into(), &turn);
    retries::accepted(&node.engine, &turn)
}

/// Everything there is.
pub struct World {
    plan: Plan,
    now_us: u64,
    /// What the wall clock is off by.
    skew_ms: u64,
    disk: MemoryDisk,
    node: Option<Node>,
    restart_us: u64,
    farewell: Option<u32>,
    is_full: bool,
    /// Until then the disk is busy, and the log waits.
    log_waits_until_us: u64,
    /// Links that are lost: what comes from there or would go there is dropped.
    dead_links: BTreeSet<u32>,
    network: Network,
    callers: Callers,
    oracle: Oracle,
    crasher: Crasher,
    dice: Rng,
    faults: Rng,
    skus: Vec<(u32, &'static str)>,
    accounts: Accounts,
    /// Picks that were asked for, to be asked for again.
    picks: Vec<(OrderStep, CardRef)>,
    workers: workers::Workers,
    calm: calm::Calm,
    /// Orders that were seen buried.
    buried: BTreeSet<[u8; 16]>,
    /// The last record of a channel that was counted.
    channels_seen: u64,
    /// How orders had fared with channels when the server stopped in good order.
    fared: Option<retries::Fared>,
    pub tally: Tally,
    trace: Option<Vec<String>>,
}

impl World {
    /// A new shop on an empty disk.
    pub fn new(plan: &Plan, traced: bool) -> World {
        let disk = MemoryDisk::new();
        disk.set_unix_ms(EPOCH_MS);
        node::init(&disk, plan);
        disk.keep_images();
        if traced {
            disk.keep_journal();
        }
        World {
            now_us: 0,
            skew_ms: 0,
            disk,
            node: None,
            restart_us: 0,
            farewell: None,
            is_full: false,
            log_waits_until_us: 0,
            dead_links: Default::default(),
            network: Network::new(plan.dice(3)),
            callers: Callers::new(plan),
            oracle: Oracle::new(),
            crasher: Crasher::new(plan),
            dice: plan.dice(4),
            faults: plan.dice(5),
            skus: Vec::new(),
            accounts: Accounts::default(),
            picks: Vec::new(),
            workers: workers::Workers::default(),
            calm: calm::Calm::default(),
            buried: BTreeSet::new(),
            channels_seen: 0,
            fared: None,
            tally: Tally::default(),
            trace: traced.then(Vec::new),
            plan: plan.clone(),
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let now_us = self.now_us;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now_us:>10} µs  {}", what()));
        }
    }

    /// What happened, and what the disk saw last.
    pub fn trace(&self) -> (Vec<String>, Vec<String>) {
        (self.trace.clone().unwrap_or_default(), self.disk.journal())
    }

    /// What crashing has come to.
    pub fn crashes(&self) -> crate::crash::Crashes {
        self.crasher.crashes
    }

    /// Answers with cards for the first time, repeats, refusals, outcomes never known, answers about holds, and that an order waits.
    pub fn answers(&self) -> [u64; 6] {
        let callers = &self.callers;
        [
            callers.issued,
            callers.repeats,
            callers.refused,
            callers.unknown,
            callers.holds,
            callers.waits,
        ]
    }

    fn now_ms(&self) -> u64 {
        EPOCH_MS + self.skew_ms + self.now_us / 1000
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// On every violation.
    pub fn run(&mut self) {
        for _ in 0..self.plan.steps_max {
            self.step();
        }
        self.go_home();
    }

    fn step(&mut self) {
        self.tally.steps += 1;
        self.now_us += self.dice.u64(1..60);
        self.disk.set_unix_ms(self.now_ms());
        self.mishap();
        let did = match self.dice.u32(0..400) {
            0 => self.fold(),
            1..5 => self.import(),
            5 if self.dice.bool() => self.set_sku(),
            5 if self.dice.bool() => self.load_routes(),
            5 => self.load_changes(),
            6 => self.make_sku(),
            40..42 => self.canary(),
            42..44 => self.operate_channels(),
            310..330 => self.follow_channels(),
            380..383 => self.deliver_cards(),
            395..399 => self.pick(),
            399 => self.move_cards(),
            386..395 => self.sweep(),
            383..386 => self.add_uses(),
            7..40 if self.node.is_none() => self.restart(),
            // Nothing happens without one.
            7..20 if self.skus.is_empty() => self.make_sku(),
            // Whoever is chosen may have nothing to do.
            _ => (0..6).any(|_| self.small_step(true)),
        };
        self.after_step();
        if self.plan.has(Feature::Channels) {
            self.work();
            self.after_step();
        }
        if !did {
            self.wait();
        }
    }

    /// Nothing to do just now: time passes until there is. Not while something is under way inside the server: there only
    /// chance makes it wait.
    fn wait(&mut self) {
        if self.is_busy() {
            return;
        }
        // What has joined a line may be told now.
        let is_followed = self.follow_channels();
        if is_followed && self.is_busy() {
            return;
        }
        let next = [
            is_followed.then(|| self.next_for_channels_us()).flatten(),
            self.calm_until_us(),
            self.network.next_us(),
            self.callers.next_us(),
            self.node.is_none().then_some(self.restart_us),
            // One that is over already waits for something else.
            self.node
                .as_ref()
                .and_then(Node::next_end_ms)
                .map(|ends| ends.saturating_sub(EPOCH_MS + self.skew_ms) * 1000)
                .filter(|&ends_us| ends_us > self.now_us),
        ];
        if let Some(next) = next.into_iter().flatten().min() {
            self.now_us = self.now_us.max(next);
        }
    }

    /// Whether something is under way inside the server.
    fn is_busy(&self) -> bool {
        self.node.as_ref().is_some_and(|node| {
            !node.is_idle() || node.engine.log.durable() < node.engine.log.end()
        })
    }

    /// When the dispatcher or a worker has something to do.
    fn next_for_channels_us(&self) -> Option<u64> {
        let begin_ms = EPOCH_MS + self.skew_ms;
        let next_ms = self.workers.next_ms();
        let next_us = next_ms.map(|next_ms| next_ms.saturating_sub(begin_ms) * 1000);
        [next_us, self.workers.next_us()]
            .into_iter()
            .flatten()
            .min()
    }

    /// A letter, a caller, a core or the log: what happens all the time.
    fn small_step(&mut self, may_begin: bool) -> bool {
        let cores = self
            .node
            .as_ref()
            .map_or(0, |_| usize::from(self.plan.cores));
        let callers = self.callers.count();
        let actor = self.dice.usize(0..6 + callers + 2 * cores);
        match actor {
            0 | 1 => self.deliver(),
            2 => self
                .node
                .as_ref()
                .is_some_and(|node| node.engine.log.take_block()),
            3 | 4 if self.log_waits_until_us > self.now_us => false,
            3 | 4 => self
                .node
                .as_ref()
                .is_some_and(|node| node.engine.log.take_block() && node.engine.log.write_block()),
            5 => {
                self.node
                    .as_ref()
                    .is_some_and(|node| node.engine.log.make_segment())
                    && self.dice.u32(0..8) == 0
            }
            _ if actor < 6 + callers => {
                let known = self.skus.iter().filter(|_| may_begin);
                let skus: Vec<u32> = known.map(|(sku, _)| *sku).collect();
                let is_up = self.node.is_some();
                self.callers.step(
                    actor - 6,
                    self.now_us,
                    &skus,
                    is_up,
                    &self.oracle,
                    &mut self.network,
                )
            }
            _ => self.step_core((actor - 6 - callers) / 2),
        }
    }

    fn step_core(&mut self, index: usize) -> bool {
        let now_ms = self.now_ms();
        let mut answered = Vec::new();
        let Some(node) = &mut self.node else {
            return false;
        };
        let did = node.step_core(index, now_ms, &mut answered);
        self.tally.channels.accepted += count_turn(&mut self.accounts, node, &self.plan);
        answered
            .iter()
            .for_each(|outcome| node.check_expiry(outcome));
        let told: Vec<_> = answered
            .iter()
            .map(|outcome| (*outcome, node.translate(outcome)))
            .collect();
        for (outcome, words) in told {
            self.tell(&outcome, words);
        }
        did
    }

    fn tell(&mut self, outcome: &Outcome, words: OrderOutcome) {
        self.note(|| format!("core {} answers {words:?}", outcome.ticket.core));
        if self.dead_links.contains(&outcome.ticket.connection) {
            return;
        }
        let link = Link {
            number: outcome.ticket.connection,
            core: outcome.ticket.core,
        };
        let letter = Letter::Outcome {
            call: outcome.ticket.request_id,
            try_number: outcome.ticket.request_slot,
            index: outcome.ticket.index,
            outcome: words,
        };
        self.network.post(self.now_us, link, false, letter);
    }

    fn deliver(&mut self) -> bool {
        let Some((link, letter)) = self.network.arrived(self.now_us) else {
            return false;
        };
        match letter {
            Letter::Orders {
                call,
                try_number,
                orders,
            } => {
                if self.dead_links.contains(&link.number) {
                    return true;
                }
                let now_ms = self.now_ms();
                let mut index = 0;
                // An order, or all that are linked.
                for chain in orders.chunk_by(|step, _| step.linked) {
                    self.note(|| {
                        format!(
                            "core {} takes in call {call} try {try_number}: {chain:?}",
                            link.core
                        )
                    });
                    let Some(node) = &mut self.node else {
                        return true;
                    };
                    let taken = node.take_in(link, call, try_number, index, now_ms, chain);
                    let refusals = taken.err().into_iter().flatten();
                    for (index, (order, refusal)) in (index..).zip(chain.iter().zip(refusals)) {
                        let outcome = OrderOutcome::Refused {
                            order_id: order.order.order_id,
                            refusal,
                            retry_after_ms: if refusal.retryable() { 20 } else { 0 },
                        };
                        let letter = Letter::Outcome {
                            call,
                            try_number,
                            index,
                            outcome,
                        };
                        self.network.post(self.now_us, link, false, letter);
                    }
                    index += chain.len() as u16;
                }
            }
            Letter::Outcome {
                call,
                try_number,
                index,
                outcome,
            } => {
                self.note(|| format!("call {call} try {try_number} hears {outcome:?}"));
                self.callers
                    .outcome(self.now_us, call, try_number, index, outcome, &self.oracle);
            }
            Letter::Lost => {
                self.note(|| format!("{link:?} is lost, and its caller knows"));
                self.callers
                    .link_lost(|other| other == link, self.now_us, &self.oracle);
            }
        }
        true
    }

    /// Faults that come from outside, by chance.
    fn mishap(&mut self) {
        let has = |feature| self.plan.has(feature);
        match self.faults.u32(0..3000) {
            0..2 if has(Feature::PowerCuts) && self.node.is_some() => {
                let change = self.faults.u64(0..40);
                let percent = self.faults.u32(0..=100);
                let seed = self.faults.u64(..);
                self.note(|| format!("the power will go at the {change}-th change from now"));
                self.disk.cut_power(change, move |sector| {
                    Rng::with_seed(seed ^ sector as u64).u32(0..100) < percent
                });
            }
            2..4 if has(Feature::Kills) && self.node.is_some() => {
                self.tally.kills += 1;
                self.note(|| "the process is killed".into());
                self.die();
            }
            4 if has(Feature::Stops) && self.node.is_some() => self.stop(),
            5..8 if has(Feature::Eio) => {
                let from = self.faults.u64(0..30);
                let count = *self.faults.choice([1, 1, 3].as_slice()).expect("some");
                self.note(|| format!("EIO for {count} changes, from the {from}-th from now"));
                self.disk.fail(from..from + count, Errno::IO);
            }
            8 if has(Feature::Enospc) => {
                let from = self.faults.u64(0..30);
                self.note(|| format!("ENOSPC for a change, the {from}-th from now"));
                self.disk.fail(from..from + 1, Errno::NOSPC);
            }
            9..11 if has(Feature::Enospc) => {
                self.is_full = !self.is_full;
                let is_full = self.is_full;
                self.note(|| format!("the disk is full: {is_full}"));
                self.disk.set_full(is_full);
            }
            11..15 if has(Feature::ClockJumps) => {
                let hours = self.faults.u64(0..48);
                // Forwards, or back to where it began.
                self.skew_ms = if self.faults.bool() {
                    self.skew_ms + hours * 3_600_000
                } else {
                    self.calm.clock_went_back();
                    0
                };
                self.note(|| "the clock jumps".into());
            }
            // The disk is slow for a while: the ring fills up.
            25..85 => self.log_waits_until_us = self.now_us + self.faults.u64(1_000..20_000),
            15..25 if has(Feature::Resets) => {
                let links = self.callers.links();
                if let Some(link) = self.faults.choice(&links).copied() {
                    self.note(|| format!("{link:?} is reset"));
                    self.lose_links(&[link]);
                }
            }
            _ => {}
        }
    }

    /// Links are lost: what was on its way to the server is gone, what was on its way back may still come.
    fn lose_links(&mut self, links: &[Link]) {
        for &link in links {
            if !self.dead_links.insert(link.number) {
                continue;
            }
            if self.faults.bool() {
                self.network.lose(|other| other == link);
            }
            self.network.post(self.now_us, link, false, Letter::Lost);
        }
    }

    /// After every step: crashes on copies; and what the step has led to.
    fn after_step(&mut self) {
        self.crash_copies();
        if self.disk.power_is_off() {
            self.tally.power_cuts += 1;
            self.note(|| "the power is gone".into());
            self.die();
            self.lose_power();
            return;
        }
        let failed = self
            .node
            .as_ref()
            .is_some_and(|node| node.engine.log.failure().is_some());
        if failed {
            let left = self.farewell.get_or_insert(FAREWELL_STEPS);
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.tally.log_failures += 1;
                self.note(|| "the log has failed, the process ends".into());
                self.die();
            }
        }
    }

    fn crash_copies(&mut self) {
        let images = self.disk.take_images();
        if !images.is_empty() {
            self.crasher.crash_at(&images, &self.oracle);
        }
    }

    fn lose_power(&mut self) {
        let crashed = self.disk.crash(landing(&mut self.faults));
        crashed.keep_images();
        crashed.set_full(self.is_full);
        self.disk = crashed;
    }

    /// The process is gone; its connections with it.
    fn die(&mut self) {
        if let Some(node) = self.node.take() {
            self.tally.changes = self.disk.changes();
            drop(node);
        }
        self.farewell = None;
        self.workers.disconnected();
        self.calm = calm::Calm::default();
        let links = self.callers.links();
        self.lose_links(&links);
        self.restart_us = self.now_us + self.faults.u64(1_000..3_000_000);
    }

    /// Tries to start the server.
    fn restart(&mut self) -> bool {
        if self.node.is_some() || self.restart_us > self.now_us {
            return false;
        }
        let started = Node::start(&self.disk, &self.plan);
        // Crashes during the start: before the oracle hears what it has made certain.
        self.crash_copies();
        match started {
            Ok(node) => {
                self.tally.starts += 1;
                self.note(|| "the server starts".into());
                self.accounts.restart(&node.engine.state);
                self.oracle.settle_orders(|id| node.look_up(id));
                let rows = node::stock(&node.engine.state);
                self.oracle.settle_imports(&rows);
                self.oracle.growth_over(&rows);
                self.oracle.move_over(&View(&node.engine.state), None);
                self.oracle.judge(&View(&node.engine.state));
                if let Some(before) = self.fared.take() {
                    retries::same(&before, &retries::fared(&node.engine));
                }
                self.skus = SKUS
                    .iter()
                    .filter_map(|name| Some((node.engine.state.sku_by_name(name)?, *name)))
                    .collect();
                self.node = Some(node);
            }
            Err(error @ (EngineError::Damage { .. } | EngineError::NotAStore(_))) => {
                panic!("a store that was only crashed does not start: {error}")
            }
            // The disk fails or has no room just now.
            Err(error) => {
                self.note(|| format!("the server does not start: {error}"));
                self.restart_us = self.now_us + self.faults.u64(1_000..3_000_000);
            }
        }
        true
    }

    /// Stops in good order, and starts again later.
    fn stop(&mut self) {
        let now_ms = self.now_ms();
        let Some(node) = self.node.take() else { return };
        self.note(|| "the server is stopped".into());
        self.tally.stops += 1;
        let engine = node.engine.clone();
        match node.stop(now_ms) {
            Ok(answered) => {
                let is_whole = engine.log.durable() >= engine.log.end();
                self.fared = is_whole.then(|| retries::fared(&engine));
                for (outcome, words) in answered {
                    self.tell(&outcome, words);
                }
            }
            Err(EngineError::Damage { path, what, .. }) => {
                panic!("at a stop: {}: {what}", path.display())
            }
            Err(error) => self.note(|| format!("the stop fails: {error}")),
        }
        self.die();
    }
}
