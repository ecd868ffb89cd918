//! The end of a run, when nothing fails any more: whoever has accepted an order gets it its cards.
//!
//! Workers of all channels take what they are given and deliver it at once. So every order that waits for a channel is filled
//! soon, but for those that are buried; and of these, those that an operator has asked for again.

use std::collections::BTreeSet;

use croupier_client::OrderId;
use croupier_engine::engine::Engine;
use croupier_protocol::{ChannelMove, HolderCap, JobRow, RetryMove};

use super::retries::fared;
use super::workers::{CHANNELS, ISSUERS};
use super::{World, count_turn, retries};
use crate::callers::OUTSIDE_TAG;
use crate::node::{Node, View};
use crate::plan::Feature;

/// How long it may take, by the simulated clock.
const CALM_US_MAX: u64 = 120_000_000;
/// Most that passes at once meanwhile.
const CALM_STEP_US: u64 = 5_000;
/// Jobs that a worker offers to take at a time, and for how long.
const ROOM: u32 = 8;
const OFFERED_MS: u32 = 50;

/// How the end of a run goes.
#[derive(Default)]
pub(super) struct Calm {
    /// Since when all is made ready for it, in microseconds.
    since_us: Option<u64>,
    /// Orders that were buried and have been asked for again.
    kicked: BTreeSet<u128>,
    /// Nobody is owed anything.
    is_over: bool,
    /// The clock has gone back while the server ran.
    is_back: bool,
}

impl Calm {
    /// The clock has gone back.
    pub(super) fn clock_went_back(&mut self) {
        self.is_back = true;
    }
}

impl World {
    /// The end of a run: nothing fails any more, everybody gets an answer or gives up, and everything is looked at.
    pub(super) fn go_home(&mut self) {
        self.log_waits_until_us = 0;
        self.note(|| "the end begins".into());
        self.disk.drop_faults();
        self.is_full = false;
        self.disk.set_full(false);
        let mut patience = 200_000;
        while !self.callers.are_idle() || self.node.is_none() || self.is_anybody_owed() {
            patience -= 1;
            assert!(patience > 0, "somebody waits for ever");
            self.now_us += 20;
            self.disk.set_unix_ms(self.now_ms());
            let did = if self.node.is_none() {
                self.restart()
            } else if patience % 4 == 0 && self.serve_calmly()
                || patience % 64 == 1 && (self.sweep() || self.add_uses())
            {
                true
            } else {
                self.small_step(false)
            };
            self.after_step();
            if !did {
                self.wait();
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        let now_ms = self.now_ms();
        let mut node = self.node.take().expect("it has started");
        let mut answered = Vec::new();
        // Orders whose callers gave up may still be under way.
        let accepted = &mut self.tally.channels.accepted;
        node.settle(now_ms, &mut answered, |node| {
            *accepted += count_turn(&mut self.accounts, node, &self.plan);
        });
        if node.engine.cannot_record().is_none() {
            node.check_lines(now_ms);
            self.oracle.move_under_way();
            node.engine.sweep_expired(now_ms).expect("the log takes it");
            node.check_stock(now_ms);
            node.settle(now_ms, &mut answered, |node| {
                count_turn(&mut self.accounts, node, &self.plan);
            });
            self.crash_copies();
            self.oracle.move_over(&View(&node.engine.state), None);
        }
        self.crash_copies();
        self.oracle.settle_orders(|id| node.look_up(id));
        self.oracle.judge(&View(&node.engine.state));
        let live = node.engine.digest();
        let holders = node.engine.state.holders.all();
        let engine = node.engine.clone();
        node.stop(now_ms)
            .expect("a disk that does not fail lets it stop");
        let fared = retries::fared(&engine);
        let _ = self.disk.take_images();
        let node = Node::start(&self.disk, &self.plan).expect("a stopped store starts");
        assert_eq!(
            node.engine.digest(),
            live,
            "the same state after a stop and a start"
        );
        assert_eq!(
            node.engine.state.holders.all(),
            holders,
            "the same holders after a stop and a start"
        );
        retries::same(&fared, &retries::fared(&node.engine));
        self.tally.capped = self.accounts.refused;
        self.tally.channels.buried = self.buried.len() as u64;
        self.oracle.judge(&View(&node.engine.state));
        self.tally.simulated_us = self.now_us + self.skew_ms * 1000;
        self.tally.changes = self.disk.changes();
    }

    /// Until when time may pass while somebody is owed something, in microseconds: workers look after their offers meanwhile.
    pub(super) fn calm_until_us(&self) -> Option<u64> {
        let is_on = self.calm.since_us.is_some() && self.is_anybody_owed();
        is_on.then_some(self.now_us + CALM_STEP_US)
    }

    /// Whether an order may still be filled by a channel.
    pub(super) fn is_anybody_owed(&self) -> bool {
        self.plan.has(Feature::Channels) && !self.calm.is_over
    }

    /// Workers answer everything, and the dispatcher follows. Whether there was anything to do.
    ///
    /// # Panics
    /// If an order that was accepted waits for ever.
    pub(super) fn serve_calmly(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Channels) || engine.cannot_record().is_some() {
            return false;
        }
        let Some(since_us) = self.calm.since_us else {
            let is_ready = self.calm_down(&engine);
            self.calm.since_us = is_ready.then_some(self.now_us);
            return true;
        };
        self.follow_channels();
        if self.answer_jobs() {
            return true;
        }
        self.look_who_is_owed(&engine, since_us);
        false
    }

    /// Has all orders that wait for channels be asked for again, of workers that are well. False: not all of it is done.
    fn calm_down(&mut self, engine: &Engine) -> bool {
        if self.calm.is_back {
            // What was to be done some milliseconds later is to be done in days now, and only an operator can know it.
            self.note(|| "the process is killed, for the clock has gone back".into());
            self.die();
            self.restart_us = self.now_us;
            return false;
        }
        self.note(|| "all workers answer everything from now on".into());
        self.workers.all_go(engine);
        // None may be under way.
        let _ = engine.canary_abort();
        self.crash_copies();
        let loaded = engine.routes_load(ISSUERS, None).map(|_| ());
        self.crash_copies();
        let restored = CHANNELS.iter().try_for_each(|&channel| {
            let asked = ChannelMove {
                channel: channel.into(),
                what: 2,
                for_ms: 0,
            };
            engine.move_channel(&asked).map(|_| ())
        });
        self.crash_copies();
        let shared = self.skus.iter().try_for_each(|(_, name)| {
            let set = engine.sku_set(name, None, Some(100), HolderCap::default());
            set.map(|_| ())
        });
        self.crash_copies();
        if let Err(refused) = loaded.and(restored).and(shared) {
            self.note(|| format!("not yet: {}", refused.text));
            self.die_waiting(&refused);
            return false;
        }
        for channel in CHANNELS {
            self.attach_to(engine, channel);
        }
        self.kick_some(engine)
    }

    /// Of those that are buried every other one is asked for again, and all that a clock which has gone back has left for days.
    fn kick_some(&mut self, engine: &Engine) -> bool {
        self.look_at_retries(engine);
        let soon_ms = self.now_ms() + 1_000;
        let mut kicked: Vec<_> = fared(engine).into_values().collect();
        kicked.retain(|row| match row.buried {
            true => self.dice.bool(),
            false => row.again_unix_ms > soon_ms,
        });
        let asked = RetryMove {
            what: 1,
            orders: kicked.iter().map(|row| row.order).collect(),
            ..RetryMove::default()
        };
        let ids = kicked.iter().map(|row| u128::from_be_bytes(row.order));
        self.calm.kicked = ids.collect();
        self.move_these(engine, &asked, &kicked);
        self.engine().is_some()
    }

    /// Whether there was something to answer.
    fn answer_jobs(&mut self) -> bool {
        let mut did = false;
        for at in 0..self.workers.count() {
            let Some(engine) = self.engine() else {
                return true;
            };
            let Some((channel, jobs)) = self.workers.ask(&engine, at, ROOM, OFFERED_MS) else {
                continue;
            };
            self.tally.channels.jobs += jobs.len() as u64;
            for job in jobs {
                did = true;
                check_job(&engine, &job);
                let count = job.quantity.into();
                self.deliver_for(&engine, channel, &job, &job.sku, count, true);
            }
        }
        did
    }

    fn look_who_is_owed(&mut self, engine: &Engine, since_us: u64) {
        let mut owed = None;
        for (id, settled, hold) in engine.state.index.open_holds() {
            let Some(waits) = hold.waits.filter(|waits| waits.tag == OUTSIDE_TAG) else {
                continue;
            };
            let was_kicked = self.calm.kicked.contains(&id);
            assert!(
                !(was_kicked && waits.tried.is_buried),
                "{} is buried again: {settled:?} {waits:?}",
                OrderId::from_u128(id)
            );
            if !waits.tried.is_buried {
                owed = Some((OrderId::from_u128(id), settled, waits));
            }
        }
        let is_late = self.now_us > since_us + CALM_US_MAX;
        assert!(!is_late || owed.is_none(), "{owed:?} waits for ever");
        self.calm.is_over = owed.is_none();
    }
}

/// No channel is asked for an order that is buried.
fn check_job(engine: &Engine, job: &JobRow) {
    let index = &engine.state.index;
    let id = u128::from_be_bytes(job.job);
    let settled = index.get(index.hash(id));
    let hold = settled.and_then(|settled| index.hold(settled));
    let tried = hold.and_then(|hold| hold.waits).map(|waits| waits.tried);
    assert!(
        tried.is_none_or(|tried| !tried.is_buried),
        "{job:?} is given to a worker, and its order is {tried:?}"
    );
}
