//! Canaries: an operator begins and ends them, and what is seen of orders decides about them.

use std::time::Duration;

use croupier_engine::engine::Engine;
use croupier_engine::route::{Fate, Group};
use croupier_protocol::{CanaryDeed, CanarySettings, Refusal};

use super::World;
use super::operators::ROUTES;
use crate::plan::Feature;

impl World {
    /// A canary begins, goes on or ends.
    pub(super) fn canary(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Routes) {
            return false;
        }
        check(&engine);
        match self.dice.u32(0..8) {
            0 | 1 => self.start_canary(&engine),
            2 => {
                let aborted = engine.canary_abort();
                self.note(|| format!("the canary is aborted: {aborted:?}"));
            }
            3 => {
                let resumed = engine.canary_resume();
                self.note(|| format!("the canary goes on: {resumed:?}"));
            }
            _ => self.judge_canary(&engine),
        }
        if self.engine().is_some() {
            check(&engine);
        }
        true
    }

    fn start_canary(&mut self, engine: &Engine) {
        let before = engine.canary_status();
        let table = *self.dice.choice(ROUTES.as_slice()).expect("some");
        let share = self.dice.choice([5, 20, 50].as_slice()).copied();
        let settings = CanarySettings {
            share,
            step: self.dice.bool().then_some(50),
            minimum_sample: Some(20),
            step_time_ms: Some(1_000),
            ..CanarySettings::default()
        };
        let started = engine.canary_start(table, &settings);
        self.note(|| format!("a canary: {started:?}"));
        match started {
            Ok(started) => {
                self.tally.canaries[0] += 1;
                assert!(!before.under_way, "one at a time");
                assert!(started.version > before.version.max(before.in_force));
                assert_eq!(Some(started.share), share);
            }
            Err(refused) => {
                let is_beside = refused.refusal == Refusal::CanaryRunning;
                assert_eq!(is_beside, before.under_way, "{}", refused.text);
            }
        }
    }

    /// Orders are seen, as good or bad as chance likes, and time passes.
    fn judge_canary(&mut self, engine: &Engine) {
        let Some(trial) = engine.routes.trial() else {
            return;
        };
        let worse = self.dice.u32(0..3) == 0;
        for _ in 0..self.dice.u32(0..300) {
            let group = match self.dice.bool() {
                true => Group::Canary,
                false => Group::Baseline,
            };
            let fails = worse && group == Group::Canary && self.dice.bool();
            let ns = self.dice.u64(1_000..2_000);
            let fate = match fails {
                true => Fate::Failed,
                false => Fate::Served { ns },
            };
            let id = self.dice.u128(..);
            trial.saw(self.dice.usize(0..4), id, group, fate);
        }
        let passed = Duration::from_millis(self.dice.u64(1..400));
        let before = engine.canary_status().steps.len();
        engine.follow_canary(passed);
        let after = engine.canary_status();
        let last = after.steps.last().map(|step| step.deed);
        if after.steps.len() > before {
            let deed = last.and_then(|deed| CanaryDeed::try_from(deed).ok());
            self.tally.canaries[1] += u64::from(deed == Some(CanaryDeed::InForce));
            self.tally.canaries[2] += u64::from(deed == Some(CanaryDeed::RolledBack));
            self.note(|| format!("a verdict on the canary: {deed:?}"));
        }
    }
}

/// Orders are dealt as the state says.
///
/// # Panics
/// If they are not.
pub(super) fn check(engine: &Engine) {
    let status = engine.canary_status();
    let trial = engine.routes.trial();
    let dealt = trial.map(|trial| (trial.table.version(), u16::from(trial.share)));
    let share = status.steps.last().map_or(0, |step| step.share);
    let told = status.under_way.then_some((status.version, share));
    assert_eq!(
        dealt, told,
        "the canary that deals is the one that is known"
    );
    let ledger = engine.state.ledger();
    assert_eq!(ledger.routes.version(), engine.routes.load().version());
}
