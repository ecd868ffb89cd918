//! Outlier detection: which channels are well, which are out for a while, and which are tried. docs/channels.md.
//!
//! Pure: no clock, no I/O, no chance. What is to outlive a restart are the [`Change`]s, each of which becomes a record; windows and means
//! begin anew.

mod spare;
mod window;

use std::collections::BTreeMap;

use croupier_protocol::ChannelCause;

use crate::route::{Outlier, RouteTable};
pub use crate::state::channels::{Change, NO_END, Standing};

use spare::{Set, Spare, put};
use window::{Times, Window};

/// Most channels that are known and that the table in force has not.
const OTHERS_MAX: usize = 256;
/// How much of a mean the newest job is.
const NEWEST_SHARE: f64 = 0.125;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    Filled,
    Failed,
    TimedOut,
    /// The worker that had it has gone. What it had besides, and is told at the same time, is the same failure.
    WorkerGone,
    /// An answer, and no failure: it does not sell that.
    FailedForGood,
}

/// All channels that are outside.
#[derive(Debug, Default)]
pub struct Fleet {
    /// The latest time that was told. It does not go back: what follows from it would not either.
    now_ms: u64,
    max_ejection_percent: u32,
    /// Channels of the table in force.
    count: usize,
    spare: Spare,
    channels: BTreeMap<String, Channel>,
}

/// How a channel does, for reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    pub name: &'a str,
    pub standing: Standing,
    /// Why it stands so; `None`: it never stood otherwise.
    pub cause: Option<ChannelCause>,
    /// How often in a row it was ejected, less what it has made good.
    pub ejections: u16,
    /// Since when it stands so; 0: ever.
    pub since_unix_ms: u64,
    /// Mean time of jobs that were filled.
    pub mean_ms: f64,
    /// What 99 in 100 jobs took at most that were filled in the last one or two windows; 0: there were none.
    pub p99_ms: u64,
}

#[derive(Debug, Default)]
struct Channel {
    /// Its place in the table in force; `None`: it has none.
    number: Option<usize>,
    rules: Outlier,
    standing: Standing,
    cause: Option<ChannelCause>,
    ejections: u16,
    since_ms: u64,
    failures_in_a_row: u32,
    /// When a worker that went was last counted as a failure.
    gone_ms: Option<u64>,
    probes_out: u32,
    probes_good: u32,
    window: Window,
    times: Times,
    /// `None`: none was filled.
    mean_ms: Option<f64>,
}

impl Channel {
    fn of_known(known: &Change) -> Channel {
        Channel {
            standing: known.standing,
            cause: Some(known.cause),
            ejections: known.ejections,
            since_ms: known.unix_ms,
            ..Channel::default()
        }
    }

    /// How often in a row it was ejected: one less for each base time that it has been healthy.
    fn ejections(&self, now_ms: u64) -> u16 {
        let base_ms = u64::from(self.rules.base_ejection_ms);
        match self.standing {
            Standing::Healthy if base_ms > 0 => {
                let made_good = now_ms.saturating_sub(self.since_ms) / base_ms;
                let left = u64::from(self.ejections).saturating_sub(made_good);
                left as u16
            }
            _ => self.ejections,
        }
    }

    /// Another time as ejected begins: its end.
    fn ejected_until(&self, now_ms: u64, ejections: u16) -> u64 {
        let all_ms = u64::from(self.rules.base_ejection_ms) * u64::from(ejections);
        let most_ms = match self.rules.max_ejection_ms {
            0 => u64::MAX,
            most_ms => most_ms.into(),
        };
        now_ms.saturating_add(all_ms.min(most_ms))
    }

    /// It stands otherwise; what was counted of it begins anew.
    fn stand(
        &mut self,
        name: &str,
        now_ms: u64,
        standing: Standing,
        cause: ChannelCause,
        ejections: u16,
    ) -> Change {
        (self.standing, self.cause) = (standing, Some(cause));
        (self.ejections, self.since_ms) = (ejections, now_ms);
        (self.failures_in_a_row, self.gone_ms) = (0, None);
        (self.probes_out, self.probes_good) = (0, 0);
        self.window = Window::default();
        Change {
            channel: name.to_owned(),
            standing,
            cause,
            ejections,
            unix_ms: now_ms,
        }
    }

    fn note_time(&mut self, now_ms: u64, took_ms: u64) {
        let took = took_ms as f64;
        let mean = self.mean_ms.get_or_insert(took);
        *mean += (took - *mean) * NEWEST_SHARE;
        self.times.note(now_ms, self.rules.window_ms, took_ms);
    }

    /// Whether this end is a failure of the channel.
    fn is_failure(&mut self, now_ms: u64, end: JobEnd) -> bool {
        match end {
            JobEnd::Filled | JobEnd::FailedForGood => false,
            JobEnd::Failed | JobEnd::TimedOut => true,
            JobEnd::WorkerGone => self.gone_ms.replace(now_ms) != Some(now_ms),
        }
    }

    /// Notes a job that ended while the channel is healthy; tells why it is to be ejected, if it is.
    fn outlies(&mut self, now_ms: u64, took_ms: u64, end: JobEnd) -> Option<ChannelCause> {
        let rules = self.rules;
        let failed = self.is_failure(now_ms, end);
        if end == JobEnd::WorkerGone && !failed {
            return None;
        }
        self.failures_in_a_row = match failed {
            true => self.failures_in_a_row.saturating_add(1),
            false => 0,
        };
        if (1..=self.failures_in_a_row).contains(&rules.consecutive_failures) {
            return Some(ChannelCause::ConsecutiveFailures);
        }
        if rules.window_ms == 0 {
            return None;
        }
        self.window
            .note(now_ms, rules.window_ms, failed, rules.is_slow(took_ms));
        let lately = self.window.sum(now_ms, rules.window_ms);
        if lately.ended < rules.request_volume {
            None
        } else if lately.has_failed(rules.failure_percentage) {
            Some(ChannelCause::FailurePercentage)
        } else if lately.is_slow(rules.slow_percentage) {
            Some(ChannelCause::SlowPercentage)
        } else {
            None
        }
    }
}

impl Outlier {
    fn is_slow(&self, took_ms: u64) -> bool {
        self.slow_call_ms > 0 && took_ms > self.slow_call_ms.into()
    }
}

impl Fleet {
    /// With what is known from records, before any table is [adopted](Fleet::adopt).
    pub fn restored<'a>(known: impl IntoIterator<Item = &'a Change>) -> Fleet {
        let channel = |known: &Change| (known.channel.clone(), Channel::of_known(known));
        Fleet {
            channels: known.into_iter().map(channel).collect(),
            ..Fleet::default()
        }
    }

    /// Another table is in force. Channels keep, by name, what is known of them. One that is ejected and is now the last that sells
    /// something is tried at the next [`tick`](Fleet::tick).
    pub fn adopt(&mut self, now_ms: u64, table: &RouteTable) {
        let now_ms = self.at(now_ms);
        self.max_ejection_percent = table.max_ejection_percent();
        self.count = table.outside().len();
        self.spare = Spare::of(table);
        for channel in self.channels.values_mut() {
            channel.number = None;
        }
        for (number, outside) in table.outside().iter().enumerate() {
            let channel = self.channels.entry(outside.name.clone()).or_default();
            (channel.number, channel.rules) = (Some(number), outside.outlier);
        }
        self.forget_others();
        let (healthy, _) = self.healthy();
        for channel in self.channels.values_mut() {
            if let (Some(number), Standing::Ejected { until_unix_ms }) =
                (channel.number, &mut channel.standing)
                && channel.cause != Some(ChannelCause::Operator)
                && !self.spare.can_spare(number, &healthy)
            {
                *until_unix_ms = now_ms.min(*until_unix_ms);
            }
        }
    }

    /// Of channels that are in no table any more so many are known; who has changed long ago is forgotten first.
    fn forget_others(&mut self) {
        let others = self.channels.iter().filter(|(_, one)| one.number.is_none());
        let mut others: Vec<(u64, String)> = others
            .map(|(name, one)| (one.since_ms, name.clone()))
            .collect();
        others.sort_unstable();
        let too_many = others.len().saturating_sub(OTHERS_MAX);
        for (_, name) in &others[..too_many] {
            self.channels.remove(name);
        }
    }

    /// Whether a job may be given to it: it is healthy, or it is probed and a probe is left.
    pub fn may_ask(&self, channel: &str) -> bool {
        self.in_table(channel)
            .is_some_and(|channel| match channel.standing {
                Standing::Healthy => true,
                Standing::Ejected { .. } => false,
                Standing::Probing => channel.probes_out < channel.rules.probes.max(1),
            })
    }

    /// Whether it is tried just now.
    pub fn is_probing(&self, channel: &str) -> bool {
        let channel = self.in_table(channel);
        channel.is_some_and(|channel| channel.standing == Standing::Probing)
    }

    fn in_table(&self, channel: &str) -> Option<&Channel> {
        let channel = self.channels.get(channel);
        channel.filter(|channel| channel.number.is_some())
    }

    /// A job was given to it.
    pub fn asked(&mut self, channel: &str) {
        if let Some(channel) = self.channels.get_mut(channel)
            && channel.standing == Standing::Probing
        {
            channel.probes_out += 1;
        }
    }

    /// A job has ended that was given `took_ms` ago. To be told once of each, also of those that a channel had when it was ejected.
    pub fn ended(
        &mut self,
        now_ms: u64,
        channel: &str,
        took_ms: u64,
        end: JobEnd,
    ) -> Option<Change> {
        let now_ms = self.at(now_ms);
        let name = channel;
        let channel = self.channels.get_mut(name)?;
        if end == JobEnd::Filled {
            channel.note_time(now_ms, took_ms);
        }
        // What was given before it stood as it does says nothing of how it does now.
        if now_ms.saturating_sub(took_ms) < channel.since_ms {
            return None;
        }
        match channel.standing {
            Standing::Ejected { .. } => None,
            Standing::Probing => {
                channel.probes_out = channel.probes_out.saturating_sub(1);
                let is_slow = channel.rules.slow_percentage > 0 && channel.rules.is_slow(took_ms);
                if channel.is_failure(now_ms, end) || is_slow {
                    channel.probes_good = 0;
                    return self.eject(now_ms, name, ChannelCause::ProbeFailed);
                }
                channel.probes_good += u32::from(end != JobEnd::WorkerGone);
                let is_well = channel.probes_good >= channel.rules.probes;
                let ejections = channel.ejections;
                is_well.then(|| {
                    channel.stand(
                        name,
                        now_ms,
                        Standing::Healthy,
                        ChannelCause::ProbesFilled,
                        ejections,
                    )
                })
            }
            Standing::Healthy => {
                let cause = channel.outlies(now_ms, took_ms, end)?;
                self.eject(now_ms, name, cause)
            }
        }
    }

    /// Takes a channel out, if it can be spared.
    fn eject(&mut self, now_ms: u64, name: &str, cause: ChannelCause) -> Option<Change> {
        let (healthy, healthy_count) = self.healthy();
        let channel = self.channels.get_mut(name)?;
        let number = channel.number?;
        // Those that are out or probed, and this one.
        let is_healthy = channel.standing == Standing::Healthy;
        let out = self.count - healthy_count + usize::from(is_healthy);
        let may_be_out = out * 100 <= self.max_ejection_percent as usize * self.count;
        let is_on = channel.rules.base_ejection_ms > 0;
        if !is_on || !may_be_out || !self.spare.can_spare(number, &healthy) {
            return None;
        }
        let ejections = channel.ejections(now_ms).saturating_add(1);
        let until_unix_ms = channel.ejected_until(now_ms, ejections);
        let standing = Standing::Ejected { until_unix_ms };
        Some(channel.stand(name, now_ms, standing, cause, ejections))
    }

    /// Takes a channel out for an operator, whether it can be spared or not; [`NO_END`]: until it is restored. `None`: the table in
    /// force has no such channel.
    pub fn eject_by_hand(&mut self, now_ms: u64, name: &str, until_unix_ms: u64) -> Option<Change> {
        self.by_hand(now_ms, name, Standing::Ejected { until_unix_ms })
    }

    /// Has a channel be healthy, whatever was before, for an operator. `None`: the table in force has no such channel.
    pub fn restore_by_hand(&mut self, now_ms: u64, name: &str) -> Option<Change> {
        self.by_hand(now_ms, name, Standing::Healthy)
    }

    fn by_hand(&mut self, now_ms: u64, name: &str, standing: Standing) -> Option<Change> {
        let now_ms = self.at(now_ms);
        let channel = self.channels.get_mut(name)?;
        channel.number?;
        let ejections = match standing {
            Standing::Healthy => 0,
            _ => channel.ejections(now_ms),
        };
        Some(channel.stand(name, now_ms, standing, ChannelCause::Operator, ejections))
    }

    /// Ejections that are over by now.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Change> {
        let now_ms = self.at(now_ms);
        let over = |(name, channel): (&String, &mut Channel)| {
            channel.end_of_ejection().filter(|&end| end <= now_ms)?;
            let standing = match channel.rules.probes {
                0 => Standing::Healthy,
                _ => Standing::Probing,
            };
            let ejections = channel.ejections;
            let cause = ChannelCause::EjectionOver;
            Some(channel.stand(name, now_ms, standing, cause, ejections))
        };
        self.channels.iter_mut().filter_map(over).collect()
    }

    /// When the next ejection is over.
    pub fn next_unix_ms(&self) -> Option<u64> {
        let ends = self.channels.values().filter_map(Channel::end_of_ejection);
        ends.min()
    }

    /// Mean time of its jobs that were filled, the newer ones for more; 0: there were none.
    pub fn mean_ms(&self, channel: &str) -> f64 {
        let channel = self.channels.get(channel);
        channel.and_then(|channel| channel.mean_ms).unwrap_or(0.0)
    }

    /// How a channel does, also one that the table in force has not; `None`: nothing is known of it.
    pub fn row(&self, channel: &str) -> Option<Row<'_>> {
        let (name, channel) = self.channels.get_key_value(channel)?;
        Some(self.row_of(name, channel))
    }

    /// Channels of the table in force, by name.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let in_table = self.channels.iter().filter(|(_, one)| one.number.is_some());
        in_table.map(|(name, channel)| self.row_of(name, channel))
    }

    fn row_of<'a>(&self, name: &'a str, channel: &Channel) -> Row<'a> {
        Row {
            name,
            standing: channel.standing,
            cause: channel.cause,
            ejections: channel.ejections(self.now_ms),
            since_unix_ms: channel.since_ms,
            mean_ms: channel.mean_ms.unwrap_or(0.0),
            p99_ms: channel.times.p99_ms(),
        }
    }

    /// Those that are healthy, and how many.
    fn healthy(&self) -> (Set, usize) {
        let mut set = Set::default();
        let all = self.channels.values();
        let healthy = all.filter(|channel| channel.standing == Standing::Healthy);
        let numbers = healthy.filter_map(|channel| channel.number);
        let count = numbers.map(|number| put(&mut set, number)).count();
        (set, count)
    }

    fn at(&mut self, now_ms: u64) -> u64 {
        self.now_ms = self.now_ms.max(now_ms);
        self.now_ms
    }
}

impl Channel {
    /// When its ejection ends, if it is ejected, in the table, and that ends.
    fn end_of_ejection(&self) -> Option<u64> {
        let until_unix_ms = match self.standing {
            Standing::Ejected { until_unix_ms } => Some(until_unix_ms),
            _ => None,
        };
        let until_unix_ms = until_unix_ms.filter(|&until| until != NO_END);
        until_unix_ms.filter(|_| self.number.is_some())
    }
}

#[cfg(test)]
mod tests;
