//! Channels that are outside: what a table says of them, and which of them an order may be asked of. docs/channels.md.

use super::conditions::{Asked, glob, globs_meet, mix};
use super::table::{Moment, RouteTable, Rule};

/// Where a channel that is outside has its cards from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Workers that attach.
    Issuer,
    /// Another server. `sku_prefix` stands before our name of a SKU in its name.
    Upstream { url: String, sku_prefix: String },
}

/// A channel that is outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    pub name: String,
    pub source: Source,
    /// Where what it delivers becomes stock.
    pub pool: String,
    /// Names and patterns of what it may be asked for, one at least.
    pub skus: Vec<String>,
    /// Lease of a job.
    pub timeout_ms: u32,
    /// Most jobs that it has at a time.
    pub jobs_max: u32,
    pub outlier: Outlier,
}

/// When a channel is taken out, and for how long. Each is 0 for off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    pub consecutive_failures: u32,
    pub failure_percentage: u32,
    pub slow_call_ms: u32,
    pub slow_percentage: u32,
    pub window_ms: u32,
    pub request_volume: u32,
    pub base_ejection_ms: u32,
    pub max_ejection_ms: u32,
    pub probes: u32,
}

impl Default for Outlier {
    fn default() -> Outlier {
        Outlier {
            consecutive_failures: 5,
            failure_percentage: 50,
            slow_call_ms: 2_000,
            slow_percentage: 50,
            window_ms: 10_000,
            request_volume: 20,
            base_ejection_ms: 30_000,
            max_ejection_ms: 300_000,
            probes: 3,
        }
    }
}

/// How often and for how long it is tried to get the cards of an accepted order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Before the second attempt.
    pub base_ms: u32,
    /// Most before any.
    pub cap_ms: u32,
    /// Then the order is buried.
    pub attempts: u16,
    /// An accepted order that names no deadline ends then.
    pub keep_ms: u64,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            base_ms: 1_000,
            cap_ms: 100_000,
            attempts: 10,
            keep_ms: 24 * 60 * 60 * 1000,
        }
    }
}

/// How one of several outside channels is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// By weight and the order's id.
    Weights,
    /// The better of two that are drawn by weight.
    LeastLatency,
}

/// The outside channels that an order may be asked of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToAsk {
    /// In the order they are asked by weights: which of [`RouteTable::outside`], and its weight. No stage is empty, no channel is twice.
    pub stages: Vec<Vec<(u16, u32)>>,
    pub balance: Balance,
}

impl ToAsk {
    /// The same channels as another table numbers them, by their names; those that it has not are left out. `None`: none is left.
    pub fn of_channels(self, ours: &[Outside], others: &[Outside]) -> Option<ToAsk> {
        let number = |(one, weight): (u16, u32)| {
            let name = &ours[usize::from(one)].name;
            let at = others.iter().position(|other| other.name == *name)?;
            Some((at as u16, weight))
        };
        let stages = self.stages.into_iter();
        let stages = stages.map(|stage| stage.into_iter().filter_map(number).collect());
        let stages: Vec<Vec<_>> = stages.filter(|stage: &Vec<_>| !stage.is_empty()).collect();
        (!stages.is_empty()).then_some(ToAsk {
            stages,
            balance: self.balance,
        })
    }
}

/// The better of two members of a stage, of channels and their weights, that are drawn by weight for an order: its place. `asks`: how often
/// the order was asked for before; `load` tells of a place about how long it would wait there.
pub(crate) fn better_of_two(
    members: &[(u16, u32)],
    (id, asks): (u128, u32),
    load: impl Fn(usize) -> f64,
) -> usize {
    if members.len() < 2 {
        return 0;
    }
    let draw = mix(id, 2 + u64::from(asks));
    let one = drawn(members, draw);
    let mut others = members.to_vec();
    others.remove(one);
    let other = drawn(&others, mix(id, draw));
    let other = other + usize::from(other >= one);
    if load(other) < load(one) { other } else { one }
}

/// Which member a number chooses, by weight.
fn drawn(members: &[(u16, u32)], number: u64) -> usize {
    let all: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut at = ((u128::from(number) * u128::from(all)) >> 64) as u64;
    let is_here = |(_, weight): &(u16, u32)| {
        let weight = u64::from(*weight);
        let here = at < weight;
        at = at.saturating_sub(weight);
        here
    };
    members.iter().position(is_here).unwrap_or_default()
}

/// The outside channels of a rule, and what it takes orders of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// Which of [`RouteTable::outside`]: those that it names, or if there are none, those that the ones it names overflow to.
    pub channels: Vec<u16>,
    /// Names and patterns of SKUs.
    pub skus: &'a [String],
}

impl Outside {
    /// Whether it may be asked for a SKU.
    pub fn sells(&self, sku: &str) -> bool {
        self.skus.iter().any(|pattern| glob(pattern, sku))
    }
}

impl RouteTable {
    /// The channels that are outside.
    pub fn outside(&self) -> &[Outside] {
        &self.outside
    }

    /// The first of its outside channels that another table has not, or not with the same source and pool.
    pub fn channel_not_in(&self, other: &RouteTable) -> Option<&Outside> {
        let same = |one: &Outside, other: &Outside| {
            (&one.name, &one.source, &one.pool) == (&other.name, &other.source, &other.pool)
        };
        let is_there = |one: &&Outside| other.outside.iter().any(|other| same(one, other));
        self.outside.iter().find(|one| !is_there(one))
    }

    /// What it says of accepted orders.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// The largest share of the outside channels that is taken out at a time.
    pub fn max_ejection_percent(&self) -> u32 {
        self.max_ejection_percent
    }

    /// The outside channels that an order's rule names and that sell its SKU, with overflows that are in force; `None`: no rule takes
    /// it, or there are none.
    pub fn to_ask(&self, sku: &str, asked: &Asked, moment: Moment) -> Option<ToAsk> {
        let rule = self.rule_of(sku, asked, moment)?;
        let way = self.rules[rule].way_of(asked.id);
        let stages = self.stages_to_ask(rule, way, sku, moment);
        (!stages.is_empty()).then_some(ToAsk {
            stages,
            balance: self.rules[rule].balance,
        })
    }

    /// The outside channels of each rule that comes to any.
    pub fn chains(&self) -> Vec<Chain<'_>> {
        let of = |channel: u16| self.channels[usize::from(channel)].outside;
        let chain = |rule| {
            let Rule { chain, skus, .. }: &Rule = rule;
            let named = || chain.iter().flat_map(|stage| &stage.members);
            let mut channels: Vec<u16> = named().filter_map(|&(channel, _)| of(channel)).collect();
            if channels.is_empty() {
                let all = named().flat_map(|&(channel, _)| {
                    std::iter::successors(Some(channel), |&one| self.overflow_of(one))
                });
                channels = all.filter_map(of).collect();
                channels.sort_unstable();
                channels.dedup();
            }
            (!channels.is_empty()).then_some(Chain { channels, skus })
        };
        self.rules.iter().filter_map(chain).collect()
    }

    /// Most time in ms that an order of a SKU which finds no stock is accepted for when this rule takes it; 0: it is not.
    pub(super) fn accepts_ms(&self, rule: usize, sku: &str, moment: Moment) -> u64 {
        // Whichever is asked first, they are the same.
        match self.stages_to_ask(rule, 0, sku, moment).is_empty() {
            true => 0,
            false => self.retry.keep_ms,
        }
    }

    /// The outside channels of a rule, stage by stage, each beginning with the one that is first on a way. Of a channel that overflows just now, `to` has its place and its weight,
    /// and it stands in a stage behind.
    fn stages_to_ask(
        &self,
        rule: usize,
        way: usize,
        sku: &str,
        moment: Moment,
    ) -> Vec<Vec<(u16, u32)>> {
        let mut stages: Vec<Vec<(u16, u32)>> = Vec::new();
        if self.outside.is_empty() {
            return stages;
        }
        let rule = &self.rules[rule];
        for (first, stage) in rule.firsts(way).into_iter().zip(&rule.chain) {
            let before = stages.len();
            for (channel, weight) in stage.from(first) {
                let mut channels = Vec::new();
                self.ask(channel, moment, &mut channels);
                let is_earlier = |one: u16| {
                    stages[..before]
                        .iter()
                        .flatten()
                        .any(|&(other, _)| other == one)
                };
                let outside = channels
                    .into_iter()
                    .filter_map(|channel| self.channels[usize::from(channel)].outside)
                    .filter(|&one| self.outside[usize::from(one)].sells(sku) && !is_earlier(one));
                let outside: Vec<u16> = outside.collect();
                for (nth, one) in outside.into_iter().enumerate() {
                    if stages.len() == before + nth {
                        stages.push(Vec::new());
                    }
                    // How far behind one stands follows from itself alone, so it is in this stage or in none.
                    let stage = &mut stages[before + nth];
                    match stage.iter_mut().find(|(known, _)| *known == one) {
                        Some((_, known)) => *known = known.saturating_add(weight),
                        None => stage.push((one, weight)),
                    }
                }
            }
        }
        stages
    }

    /// Whether a channel may be asked for a SKU that a rule takes; one of local stock always may.
    pub(super) fn may_be_asked(&self, channel: usize, rule: &Rule) -> bool {
        let Some(outside) = self.channels[channel].outside else {
            return true;
        };
        let skus = &self.outside[usize::from(outside)].skus;
        let meets = |pattern: &String| rule.skus.iter().any(|other| globs_meet(pattern, other));
        skus.iter().any(meets)
    }
}
