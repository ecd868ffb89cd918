//! The last canary of a route table, as its records tell it: docs/canary.md.

use std::sync::Arc;

use croupier_protocol::{CanaryDeed, CanaryReason};

use super::routes::TableFact;
use crate::canary::Settings;

/// Most records of a canary that are kept: the first, and the last ones.
pub const STEPS_KEPT_MAX: usize = 64;

/// What was seen of a group of orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub orders: u32,
    pub failed: u32,
    /// Of latencies per card, in microseconds; 0: there were none.
    pub p50_us: u32,
    pub p99_us: u32,
}

impl Figures {
    pub fn words(self) -> [u32; 4] {
        [self.orders, self.failed, self.p50_us, self.p99_us]
    }

    pub fn of_words([orders, failed, p50_us, p99_us]: [u32; 4]) -> Figures {
        Figures {
            orders,
            failed,
            p50_us,
            p99_us,
        }
    }
}

/// What became of a canary, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub deed: CanaryDeed,
    pub reason: CanaryReason,
    /// Of all orders, in per cent, from then on; 100: its table is in force, 0: it is over.
    pub share: u8,
    /// What was seen until then, of the canary and of the baseline.
    pub groups: [Figures; 2],
}

/// A step that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepFact {
    pub lsn: u64,
    pub unix_ms: u64,
    pub step: Step,
}

/// A record about a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryFact<'a> {
    /// Version of its table.
    pub version: u32,
    pub step: Step,
    /// Of the record with which it begins.
    pub start: Option<(Settings, &'a str)>,
}

/// A canary, under way or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    pub version: u32,
    pub settings: Settings,
    /// Its table; empty when it is over.
    pub toml: Arc<str>,
    /// Records of it that are forgotten, behind the first.
    pub forgotten: u32,
    /// Its records, at least the first.
    pub steps: Vec<StepFact>,
}

impl Canary {
    fn last(&self) -> &StepFact {
        self.steps.last().expect("it has begun")
    }

    /// Whether it is not over.
    pub fn is_under_way(&self) -> bool {
        !self.last().step.deed.is_end()
    }

    /// Whether it waits for somebody.
    pub fn is_paused(&self) -> bool {
        self.last().step.deed == CanaryDeed::Paused
    }

    /// Of all orders, in per cent.
    pub fn share(&self) -> u8 {
        self.last().step.share
    }

    /// When its last record was made, in Unix milliseconds.
    pub fn since_unix_ms(&self) -> u64 {
        self.last().unix_ms
    }

    /// Records of it so far: each begins a sample.
    pub fn samples(&self) -> u32 {
        self.forgotten + self.steps.len() as u32
    }

    /// All but its text as words: of a checkpoint, and of the digest of a state.
    pub fn words(&self) -> Vec<u32> {
        let head = [self.version, self.settings.share.into(), self.forgotten];
        let mut words = head.to_vec();
        words.extend(self.settings.words(self.toml.len() as u32));
        words.push(self.steps.len() as u32);
        for StepFact { lsn, unix_ms, step } in &self.steps {
            words.extend([*lsn as u32, (lsn >> 32) as u32]);
            words.extend([*unix_ms as u32, (unix_ms >> 32) as u32]);
            let how = [step.deed.as_u16(), step.reason.as_u16(), step.share.into()];
            words.extend(how.map(u32::from));
            words.extend(step.groups.iter().flat_map(|figures| figures.words()));
        }
        words
    }

    /// From such words, one after the other, and the text behind them, of which `text` is told the bytes. The error says what
    /// cannot be.
    pub fn read<In>(
        from: &mut In,
        mut word: impl FnMut(&mut In) -> Result<u32, String>,
        text: impl FnOnce(&mut In, usize) -> Result<String, String>,
    ) -> Result<Canary, String> {
        let mut next = || word(from);
        let (version, share, forgotten) = (next()?, next()?, next()?);
        let share = u8::try_from(share).map_err(|_| format!("{share} % is no share"))?;
        let mut all = [0; Settings::WORDS];
        for one in &mut all {
            *one = next()?;
        }
        let (settings, toml_bytes) = Settings::of_words(share, all)?;
        let count = next()?;
        if count as usize > STEPS_KEPT_MAX {
            return Err(format!("{count} records of a canary"));
        }
        let mut steps = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let mut long = || Ok::<_, String>(u64::from(next()?) | u64::from(next()?) << 32);
            let (lsn, unix_ms) = (long()?, long()?);
            let mut short =
                || u16::try_from(next()?).map_err(|_| "a number of a canary".to_owned());
            let newer = |what| format!("{what}: use a newer croupier");
            let deed = CanaryDeed::try_from(short()?).map_err(newer)?;
            let reason = CanaryReason::try_from(short()?).map_err(newer)?;
            let share = u8::try_from(short()?).map_err(|_| "a share beyond 255")?;
            let mut figures =
                || Ok::<_, String>(Figures::of_words([next()?, next()?, next()?, next()?]));
            let groups = [figures()?, figures()?];
            steps.push(StepFact {
                lsn,
                unix_ms,
                step: Step {
                    deed,
                    reason,
                    share,
                    groups,
                },
            });
        }
        Ok(Canary {
            version,
            settings,
            toml: text(from, toml_bytes as usize)?.into(),
            forgotten,
            steps,
        })
    }

    fn push(&mut self, step: StepFact) {
        if self.steps.len() == STEPS_KEPT_MAX {
            self.steps.remove(1);
            self.forgotten = self.forgotten.saturating_add(1);
        }
        self.steps.push(step);
    }

    /// Whether records could have told it so.
    fn check(&self) -> Result<(), String> {
        let Some((first, rest)) = self.steps.split_first() else {
            return Err(format!("canary {} has no record", self.version));
        };
        let begins = first.step.deed == CanaryDeed::Started;
        let ends = rest
            .iter()
            .rev()
            .skip(1)
            .any(|fact| fact.step.deed.is_end());
        let again = rest
            .iter()
            .any(|fact| fact.step.deed == CanaryDeed::Started);
        let full = self.steps.len() > STEPS_KEPT_MAX;
        if !begins || ends || again || full || self.is_under_way() == self.toml.is_empty() {
            return Err(format!("what is kept of canary {} cannot be", self.version));
        }
        self.steps
            .iter()
            .try_for_each(|fact| check_share(&fact.step))
    }
}

/// Whether a share goes with what became of the canary.
fn check_share(step: &Step) -> Result<(), String> {
    let is_right = match step.deed {
        CanaryDeed::InForce => step.share == 100,
        CanaryDeed::RolledBack | CanaryDeed::Aborted => step.share == 0,
        _ => (1..=crate::canary::settings::SHARE_MAX).contains(&step.share),
    };
    match is_right {
        true => Ok(()),
        false => Err(format!(
            "a canary is {} with {} %",
            step.deed.name(),
            step.share
        )),
    }
}

/// What is known of canaries: of the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canaries(Option<Canary>);

impl Canaries {
    /// That of a checkpoint. The error says what in it cannot be.
    pub fn of_last(last: Canary) -> Result<Canaries, String> {
        last.settings.checked()?;
        last.check()?;
        Ok(Canaries(Some(last)))
    }

    /// The last one.
    pub fn last(&self) -> Option<&Canary> {
        self.0.as_ref()
    }

    /// The one that is under way.
    pub fn under_way(&self) -> Option<&Canary> {
        self.0.as_ref().filter(|canary| canary.is_under_way())
    }

    /// The last version that a canary had; 0: there was none.
    pub fn version(&self) -> u32 {
        self.0.as_ref().map_or(0, |canary| canary.version)
    }

    /// A record says what became of a canary. `in_force`: the version of the table in force. Returns the table that the record puts in
    /// force. The error says why it cannot be.
    pub(super) fn put(
        &mut self,
        (lsn, unix_ms): (u64, u64),
        fact: &CanaryFact<'_>,
        in_force: u32,
    ) -> Result<Option<TableFact>, String> {
        let CanaryFact {
            version,
            step,
            start,
        } = *fact;
        check_share(&step)?;
        let step = StepFact { lsn, unix_ms, step };
        if let Some((settings, toml)) = start {
            if self.under_way().is_some() || version <= in_force.max(self.version()) {
                return Err(format!(
                    "canary {version} starts beside another, or too late"
                ));
            }
            let begun = Canary {
                version,
                settings,
                toml: toml.into(),
                forgotten: 0,
                steps: vec![step],
            };
            *self = Canaries::of_last(begun)?;
            return Ok(None);
        }
        let canary = self.0.as_mut().filter(|canary| canary.is_under_way());
        let canary = canary.filter(|canary| canary.version == version);
        let canary = canary.ok_or_else(|| format!("canary {version} is not under way"))?;
        if step.step.deed == CanaryDeed::Started {
            return Err(format!("canary {version} starts twice"));
        }
        canary.push(step);
        if canary.is_under_way() {
            return Ok(None);
        }
        let toml = std::mem::take(&mut canary.toml);
        let in_force = step.step.deed == CanaryDeed::InForce;
        Ok(in_force.then_some(TableFact {
            version,
            lsn,
            unix_ms,
            toml,
        }))
    }

    /// Whether a table may be put in force otherwise, as that version.
    pub(super) fn allow(&self, version: u32) -> Result<(), String> {
        if self.under_way().is_some() || version <= self.version() {
            let canary = self.version();
            return Err(format!(
                "route table {version} comes beside canary {canary}, or behind it"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(version: u32, deed: CanaryDeed, share: u8) -> CanaryFact<'static> {
        let started = deed == CanaryDeed::Started;
        CanaryFact {
            version,
            step: Step {
                deed,
                reason: CanaryReason::Operator,
                share,
                groups: [Figures::default(); 2],
            },
            start: started.then(|| (Settings::default(), "a")),
        }
    }

    #[test]
    fn one_comes_into_force_with_its_version_and_text() {
        let mut canaries = Canaries::default();
        let put = |canaries: &mut Canaries, lsn, fact| canaries.put((lsn, 7), &fact, 3);
        assert_eq!(
            put(&mut canaries, 1, fact(5, CanaryDeed::Started, 5)),
            Ok(None)
        );
        let canary = canaries.under_way().unwrap();
        assert_eq!(
            (canary.share(), &*canary.toml, canary.samples()),
            (5, "a", 1)
        );
        canaries.allow(6).unwrap_err();
        let promoted = fact(5, CanaryDeed::Promoted, 10);
        assert_eq!(put(&mut canaries, 2, promoted), Ok(None));
        assert_eq!(canaries.under_way().unwrap().share(), 10);
        let table = put(&mut canaries, 9, fact(5, CanaryDeed::InForce, 100)).unwrap();
        let table = table.unwrap();
        assert_eq!((table.version, table.lsn, &*table.toml), (5, 9, "a"));
        assert_eq!(canaries.under_way(), None);
        assert_eq!(canaries.last().unwrap().steps.len(), 3);
        canaries.allow(5).unwrap_err();
        canaries.allow(6).unwrap();
    }

    #[test]
    fn what_cannot_be_changes_nothing() {
        let mut canaries = Canaries::default();
        let refuse = |canaries: &mut Canaries, fact, in_force| {
            let before = canaries.clone();
            canaries.put((1, 1), &fact, in_force).unwrap_err();
            assert_eq!(*canaries, before);
        };
        refuse(&mut canaries, fact(5, CanaryDeed::Promoted, 10), 3);
        refuse(&mut canaries, fact(3, CanaryDeed::Started, 5), 3);
        refuse(&mut canaries, fact(4, CanaryDeed::Started, 51), 3);
        canaries
            .put((1, 1), &fact(4, CanaryDeed::Started, 5), 3)
            .unwrap();
        refuse(&mut canaries, fact(5, CanaryDeed::Started, 5), 3);
        refuse(&mut canaries, fact(5, CanaryDeed::Promoted, 10), 3);
        refuse(&mut canaries, fact(4, CanaryDeed::RolledBack, 5), 3);
        refuse(&mut canaries, fact(4, CanaryDeed::InForce, 50), 3);
        refuse(&mut canaries, fact(4, CanaryDeed::Paused, 0), 3);
        canaries
            .put((1, 1), &fact(4, CanaryDeed::Aborted, 0), 3)
            .unwrap();
        refuse(&mut canaries, fact(4, CanaryDeed::Started, 5), 3);
        refuse(&mut canaries, fact(4, CanaryDeed::Aborted, 0), 3);
    }

    #[test]
    fn the_first_record_and_the_last_ones_are_kept() {
        let mut canaries = Canaries::default();
        let deeds = [CanaryDeed::Paused, CanaryDeed::Resumed];
        canaries
            .put((1, 1), &fact(4, CanaryDeed::Started, 5), 3)
            .unwrap();
        for (lsn, deed) in (2..=200).zip(deeds.into_iter().cycle()) {
            canaries.put((lsn, 1), &fact(4, deed, 5), 3).unwrap();
        }
        let canary = canaries.last().unwrap();
        assert_eq!(
            (canary.steps.len(), canary.samples()),
            (STEPS_KEPT_MAX, 200)
        );
        let lsns: Vec<u64> = canary.steps.iter().map(|fact| fact.lsn).collect();
        assert!(lsns.into_iter().eq(std::iter::once(1).chain(138..=200)));
        assert_eq!(Canaries::of_last(canary.clone()), Ok(canaries));
    }
}
