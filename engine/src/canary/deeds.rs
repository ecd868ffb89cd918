//! What operators and time do to the canary of a running store.

use std::sync::Arc;
use std::time::Duration;

use croupier_protocol::{
    CanaryChangeReply, CanaryDeed, CanaryGroup, CanaryReason, CanarySettings, CanaryStartReply,
    CanaryStatusReply, CanaryStep, Refusal,
};

use super::Settings;
use super::course::{Course, Verdict, figures_of};
use crate::engine::{Engine, Refused};
use crate::route::{RouteTable, Trial};
use crate::state::Canary;
use crate::state::canary::{CanaryFact, Figures, Step};
use crate::state::record::Fact;

/// A canary under way, as the thread sees it that judges it.
pub struct Watched {
    trial: Arc<Trial>,
    course: Course,
    /// What is to be recorded.
    decided: Option<Verdict>,
}

impl Watched {
    fn figures(&self) -> [Figures; 2] {
        let samples = self.course.samples();
        [figures_of(&samples.canary), figures_of(&samples.baseline)]
    }
}

impl Engine {
    /// Begins to try a route table on a share of orders.
    pub fn canary_start(
        &self,
        toml: &str,
        asked: &CanarySettings,
    ) -> Result<CanaryStartReply, Refused> {
        let _one_at_a_time = self.lock(&self.importing);
        self.refuse_beside_canary()?;
        let settings =
            Settings::of(asked).map_err(|why| Refused::because(Refusal::CanaryInvalid, why))?;
        let version = self.next_table();
        let table = RouteTable::parse(version, toml)
            .map_err(|error| Refused::because(Refusal::RoutesInvalid, error))?;
        let in_force = self.routes.load();
        if toml == in_force.text() {
            return Err(Refused::plain(Refusal::CanarySame));
        }
        if let Some(channel) = table.channel_not_in(&in_force) {
            let text = format!(
                "channel {:?} is outside, and route table {} has none of this name with the same source and pool: load a table that has it, \
                 which no rule need name, and then start the canary",
                channel.name,
                in_force.version()
            );
            return Err(Refused::because(Refusal::CanaryChannel, text));
        }
        let warnings = table.warnings(Some(&self.state.catalog.load()));
        let step = Step {
            deed: CanaryDeed::Started,
            reason: CanaryReason::Operator,
            share: settings.share,
            groups: Default::default(),
        };
        let lsn = self.record_canary(version, step, Some((settings, toml)))?;
        table.marks().begin(self.load.now().smoothed);
        self.put_on_trial(Some(Arc::new(table)));
        Ok(CanaryStartReply {
            version,
            lsn,
            share: settings.share.into(),
            warnings,
        })
    }

    /// Ends the canary; all orders go by the table in force.
    pub fn canary_abort(&self) -> Result<CanaryChangeReply, Refused> {
        let _one_at_a_time = self.lock(&self.importing);
        let canary = self.canary_under_way()?;
        self.change_canary(canary.version, CanaryDeed::Aborted, 0)
    }

    /// Begins the step of a paused canary again.
    pub fn canary_resume(&self) -> Result<CanaryChangeReply, Refused> {
        let _one_at_a_time = self.lock(&self.importing);
        let canary = self.canary_under_way()?;
        if !canary.is_paused() {
            let text = format!("canary {} is not paused: it goes on", canary.version);
            return Err(Refused::because(Refusal::NoCanary, text));
        }
        self.change_canary(canary.version, CanaryDeed::Resumed, canary.share())
    }

    /// How the last canary does, or did.
    pub fn canary_status(&self) -> CanaryStatusReply {
        let in_force = self.routes.load().version();
        let canaries = self.state.ledger().canaries.clone();
        let Some(canary) = canaries.last() else {
            return CanaryStatusReply {
                in_force,
                ..CanaryStatusReply::default()
            };
        };
        let (mut groups, mut next_look) = (Vec::new(), 0);
        let watched = self.lock(&self.canary);
        if let Some(watched) = watched.as_ref().filter(|_| canary.is_under_way()) {
            groups = watched.figures().map(group_of).into();
            next_look = watched.course.next_look() as u32;
        }
        drop(watched);
        CanaryStatusReply {
            version: canary.version,
            in_force,
            under_way: canary.is_under_way(),
            settings: settings_of(&canary.settings),
            next_look,
            groups,
            steps: steps_of(canary),
        }
    }

    /// Judges the canary by what was seen of it; to be called several times a second, `passed` after the last time.
    pub fn follow_canary(&self, passed: Duration) {
        if self.routes.trial().is_none() || self.cannot_record().is_some() {
            return;
        }
        let (trial, verdict, groups) = {
            let mut watched = self.lock(&self.canary);
            let Some(Watched {
                trial,
                course,
                decided,
            }) = &mut *watched
            else {
                return;
            };
            if decided.is_none() {
                trial.gather(|seen| course.see(&seen));
                *decided = course.judge(passed.as_millis() as u64);
            }
            match (*decided, &*watched) {
                (Some(verdict), Some(now)) => (now.trial.clone(), verdict, now.figures()),
                _ => return,
            }
        };
        let _one_at_a_time = self.lock(&self.importing);
        let trial_now = self.routes.trial();
        // Somebody may have ended it meanwhile.
        if trial_now.is_some_and(|now| Arc::ptr_eq(&now, &trial))
            && let Err(refused) = self.carry_out(&trial, verdict, groups)
        {
            tracing::error!(
                "the verdict on the canary cannot be recorded: {}",
                refused.text
            );
        }
    }

    /// Refuses while a canary is under way.
    pub(crate) fn refuse_beside_canary(&self) -> Result<(), Refused> {
        match self.state.ledger().canaries.under_way() {
            None => Ok(()),
            Some(canary) => Err(Refused::because(
                Refusal::CanaryRunning,
                format!(
                    "route table {} is a canary for {} % of orders: abort it first (`croupier canary abort`), or wait for its end",
                    canary.version,
                    canary.share()
                ),
            )),
        }
    }

    /// The version of the next table, whether it is loaded or a canary.
    pub(crate) fn next_table(&self) -> u32 {
        let ledger = self.state.ledger();
        ledger.routes.version().max(ledger.canaries.version()) + 1
    }

    /// Has orders dealt by the canary that the state tells of, or by none. `table`: its table, unless it is on trial already.
    pub(crate) fn put_on_trial(&self, table: Option<Arc<RouteTable>>) {
        let canaries = self.state.ledger().canaries.clone();
        let table = table.or_else(|| self.routes.trial().map(|trial| trial.table.clone()));
        let trial = canaries.under_way().zip(table).map(|(canary, table)| {
            let since = canary.since_unix_ms();
            let cores = self.cores as usize;
            let trial = Arc::new(Trial::new(table, canary.share(), since, cores));
            (canary, trial)
        });
        *self.lock(&self.canary) = trial.as_ref().map(|(canary, trial)| Watched {
            trial: trial.clone(),
            course: Course::new(
                canary.settings,
                canary.share(),
                canary.is_paused(),
                canary.samples(),
            ),
            decided: None,
        });
        self.routes.put_on_trial(trial.map(|(_, trial)| trial));
        // Orders that wait may have other pools now.
        self.state.call_desk();
    }

    fn canary_under_way(&self) -> Result<Canary, Refused> {
        let canaries = self.state.ledger().canaries.clone();
        let canary = canaries.under_way().cloned();
        canary.ok_or_else(|| Refused::plain(Refusal::NoCanary))
    }

    /// An operator's deed. The caller has the turn of those who load tables.
    fn change_canary(
        &self,
        version: u32,
        deed: CanaryDeed,
        share: u8,
    ) -> Result<CanaryChangeReply, Refused> {
        let watched = self.lock(&self.canary).as_ref().map(Watched::figures);
        let step = Step {
            deed,
            reason: CanaryReason::Operator,
            share,
            groups: watched.unwrap_or_default(),
        };
        let lsn = self.record_canary(version, step, None)?;
        self.put_on_trial(None);
        Ok(CanaryChangeReply {
            version,
            lsn,
            share: share.into(),
        })
    }

    /// Records a verdict, and does what it says. The caller has the turn of those who load tables.
    fn carry_out(
        &self,
        trial: &Trial,
        verdict: Verdict,
        groups: [Figures; 2],
    ) -> Result<(), Refused> {
        let (deed, reason, share) = match verdict {
            Verdict::Promote(Some(share)) => (CanaryDeed::Promoted, CanaryReason::NoWorse, share),
            Verdict::Promote(None) => (CanaryDeed::InForce, CanaryReason::NoWorse, 100),
            Verdict::Pause(reason) => (CanaryDeed::Paused, reason, trial.share),
            Verdict::RollBack(reason) => (CanaryDeed::RolledBack, reason, 0),
        };
        let step = Step {
            deed,
            reason,
            share,
            groups,
        };
        self.record_canary(trial.table.version(), step, None)?;
        if deed == CanaryDeed::InForce {
            self.routes.swap(trial.table.clone());
        }
        self.put_on_trial(None);
        Ok(())
    }

    fn record_canary(
        &self,
        version: u32,
        step: Step,
        start: Option<(Settings, &str)>,
    ) -> Result<u64, Refused> {
        // A full disk is seen before the record, and not while it is waited for.
        self.log.tend();
        let fact = CanaryFact {
            version,
            step,
            start,
        };
        let lsn = self.record(&[Fact::Canary(fact)])?;
        let (deed, reason, share) = (step.deed.name(), step.reason.name(), step.share);
        tracing::info!(version, deed, reason, share, "canary of a route table");
        Ok(lsn)
    }
}

fn settings_of(settings: &Settings) -> CanarySettings {
    CanarySettings {
        share: Some(settings.share.into()),
        step: Some(settings.step.into()),
        until: Some(settings.until.into()),
        minimum_sample: Some(settings.minimum_sample),
        p99_ratio: Some(settings.ratio),
        step_time_ms: Some(settings.step_time_ms),
    }
}

fn group_of(figures: Figures) -> CanaryGroup {
    CanaryGroup {
        orders: figures.orders,
        failed: figures.failed,
        p50_us: figures.p50_us,
        p99_us: figures.p99_us,
    }
}

fn steps_of(canary: &Canary) -> Vec<CanaryStep> {
    let steps = canary.steps.iter().map(|fact| CanaryStep {
        lsn: fact.lsn,
        unix_ms: fact.unix_ms,
        deed: fact.step.deed.as_u16(),
        reason: fact.step.reason.as_u16(),
        share: fact.step.share.into(),
        groups: fact.step.groups.map(group_of).into(),
    });
    steps.collect()
}
