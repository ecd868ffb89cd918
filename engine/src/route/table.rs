//! A validated table: rules, channels, and what both say about an order.

use std::time::Duration;

use croupier_protocol::Priority;

use super::conditions::{Asked, OfOrder, Times, glob, mix};
use super::load::Marks;
use super::{Balance, Outside, Retry};
use crate::state::Catalog;
use std::sync::atomic::{AtomicU64, Ordering};

/// A validated table. Immutable but for what it counts, and for which marks the load has passed.
#[derive(Debug)]
pub struct RouteTable {
    pub(super) version: u32,
    pub(super) text: String,
    pub(super) rules: Vec<Rule>,
    pub(super) channels: Vec<Channel>,
    /// Those of them that are outside.
    pub(super) outside: Vec<Outside>,
    pub(super) retry: Retry,
    /// Largest share of the outside channels that is taken out at a time, in per cent.
    pub(super) max_ejection_percent: u32,
    /// Times that rules ask about, each once.
    pub(super) times: Vec<Times>,
    pub(super) marks: Marks,
    /// Time constant of the load.
    pub(super) smoothing: Duration,
    /// SKU, priority and the moment alone decide.
    pub(super) is_plain: bool,
    /// Orders dealt by each rule.
    pub(super) counts: Box<[AtomicU64]>,
}

#[derive(Debug)]
pub(super) struct Rule {
    /// "" = it has none.
    pub name: String,
    /// Empty: all.
    pub priorities: Vec<Priority>,
    /// Patterns, one at least.
    pub skus: Vec<String>,
    /// Which of the table's times; `None` = at any.
    pub time: Option<u8>,
    /// Which of the table's marks must be passed.
    pub mark: Option<u8>,
    pub of_order: OfOrder,
    /// `None`: the lane of the order's priority.
    pub lane: Option<Priority>,
    /// In the order they are asked; empty: all pools of the SKU.
    pub chain: Vec<Stage>,
    /// Which outside channel of a stage is asked first.
    pub balance: Balance,
    /// [`ends_of`] the chain.
    pub ends: Vec<u64>,
}

/// Channels of which one is asked first and the others after it, by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    /// Which of the table's channels, and its weight.
    pub members: Vec<(u16, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    /// "" = pools that a rule names.
    pub name: String,
    /// Names of pools of local stock, in the order they are tried.
    pub pools: Vec<String>,
    /// While this mark is passed, that channel is asked first.
    pub overflow: Option<(u8, u16)>,
    /// Which of the table's outside channels it is; `None`: local stock.
    pub outside: Option<u16>,
}

/// What rules ask of the moment: which of a table's marks are passed and which of its times it is, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub(super) marks: u64,
    pub(super) times: u64,
}

/// Where an order goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Number of the rule, from 0.
    pub rule: usize,
    pub lane: Priority,
    /// Names of pools in the order they are tried; `None`: all, in the order they were made.
    pub pools: Option<Vec<String>>,
}

/// How many orders a rule has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    pub name: String,
    pub orders: u64,
}

impl Stage {
    /// All members and their weights, that one first.
    pub(super) fn from(&self, first: usize) -> impl Iterator<Item = (u16, u32)> + '_ {
        let (before, after) = self.members.split_at(first);
        after.iter().chain(before).copied()
    }
}

impl Rule {
    /// Ways that orders can go by it: which channel of each stage is asked first.
    pub(super) fn ways(&self) -> usize {
        self.chain.iter().map(|stage| stage.members.len()).product()
    }

    /// Which of them an order goes.
    #[inline]
    pub(super) fn way_of(&self, id: u128) -> usize {
        match &self.ends[..] {
            [] => 0,
            [end] => usize::from(share_of(id) >= *end),
            ends => {
                let share = share_of(id);
                ends.partition_point(|&end| end <= share)
            }
        }
    }

    /// Which member of each stage is asked first on a way.
    pub(super) fn firsts(&self, way: usize) -> Vec<usize> {
        let mut firsts = vec![0; self.chain.len()];
        let mut left = way;
        for (first, stage) in firsts.iter_mut().zip(&self.chain).rev() {
            *first = left % stage.members.len();
            left /= stage.members.len();
        }
        firsts
    }

    /// Whether SKU, priority and moment are right.
    pub(super) fn may_take(&self, sku: &str, priority: Priority, moment: Moment) -> bool {
        let is_in = |which: Option<u8>, bits: u64| which.is_none_or(|which| bits >> which & 1 != 0);
        (self.priorities.is_empty() || self.priorities.contains(&priority))
            && is_in(self.time, moment.times)
            && is_in(self.mark, moment.marks)
            && self.skus.iter().any(|pattern| glob(pattern, sku))
    }

    fn is_catch_all(&self) -> bool {
        self.priorities.is_empty()
            && self.skus.iter().any(|sku| sku == "*")
            && (self.time, self.mark) == (None, None)
            && self.of_order.is_any()
    }

    /// Whether every order that `other` takes is taken by this one.
    fn covers(&self, other: &Rule) -> bool {
        let priorities = self.priorities.is_empty()
            || (!other.priorities.is_empty()
                && other
                    .priorities
                    .iter()
                    .all(|one| self.priorities.contains(one)));
        let has = |sku: &String| self.skus.iter().any(|own| own == "*" || own == sku);
        let always = |ours: Option<u8>, theirs: Option<u8>| ours.is_none() || ours == theirs;
        priorities
            && other.skus.iter().all(has)
            && always(self.time, other.time)
            && always(self.mark, other.mark)
            && self.of_order.covers(&other.of_order)
    }
}

/// Where an order stands among all, as far as weights go: evenly over all numbers.
fn share_of(id: u128) -> u64 {
    mix(id, 1)
}

/// Which [share](share_of) of the orders goes each of the ways through a chain: up to where, the last but for it.
pub(super) fn ends_of(chain: &[Stage]) -> Vec<u64> {
    let mut ends = vec![1 << 64];
    for Stage { members } in chain {
        let all: u128 = members.iter().map(|(_, weight)| u128::from(*weight)).sum();
        let mut begin = 0;
        let mut parts = Vec::with_capacity(ends.len() * members.len());
        for end in ends {
            let mut weights = 0;
            for (_, weight) in members {
                weights += u128::from(*weight);
                // Rounded up: shares are whole numbers, and those below the end are in it.
                parts.push(begin + ((end - begin) * weights).div_ceil(all));
            }
            begin = end;
        }
        ends = parts;
    }
    ends.pop();
    // Only the last is as large as that.
    ends.into_iter().map(|end: u128| end as u64).collect()
}

impl RouteTable {
    /// What is allowed but looks like a mistake; with a catalog also names that stand for nothing in it.
    pub fn warnings(&self, catalog: Option<&Catalog>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let number = index + 1;
            if let Some(above) = self.rules[..index]
                .iter()
                .position(|above| above.covers(rule))
            {
                warnings.push(format!(
                    "rule {number} can never match: rule {} takes all its orders",
                    above + 1
                ));
            }
            if let Some(catalog) = catalog {
                self.warn_of_names(rule, number, catalog, &mut warnings);
            }
        }
        self.warn_of_channels(&mut warnings);
        if !self.rules.iter().any(Rule::is_catch_all) {
            warnings.push(
                "no rule takes all orders: those that match none are refused as NoRoute".into(),
            );
        }
        warnings
    }

    /// Warns of channels that no order comes to.
    fn warn_of_channels(&self, warnings: &mut Vec<String>) {
        let mut used = vec![false; self.channels.len()];
        let mut asked = vec![false; self.channels.len()];
        for rule in &self.rules {
            let firsts = rule.chain.iter().flat_map(|stage| &stage.members);
            for &(channel, _) in firsts {
                let all =
                    std::iter::successors(Some(channel), |&channel| self.overflow_of(channel));
                for channel in all.map(usize::from) {
                    used[channel] = true;
                    asked[channel] = asked[channel] || self.may_be_asked(channel, rule);
                }
            }
        }
        for (channel, (used, asked)) in self.channels.iter().zip(used.into_iter().zip(asked)) {
            let name = &channel.name;
            if !used {
                warnings.push(format!("no rule uses channel {name:?}"));
            } else if !asked {
                warnings.push(format!(
                    "channel {name:?} is never asked for a card: no rule that uses it takes orders of its skus"
                ));
            }
        }
    }

    fn warn_of_names(
        &self,
        rule: &Rule,
        number: usize,
        catalog: &Catalog,
        warnings: &mut Vec<String>,
    ) {
        let of = |pattern: &String| catalog.skus.iter().any(|sku| glob(pattern, &sku.name));
        for pattern in rule.skus.iter().filter(|pattern| !of(pattern)) {
            warnings.push(format!("rule {number}: no SKU is called {pattern:?} yet"));
        }
        let skus = catalog
            .skus
            .iter()
            .filter(|sku| rule.skus.iter().any(|pattern| glob(pattern, &sku.name)));
        let known: Vec<_> = skus.map(|sku| sku.pools.load()).collect();
        let is_known = |name: &str| {
            known
                .iter()
                .any(|pools| pools.iter().any(|pool| pool.name == name))
        };
        let stages = rule.chain.iter().flat_map(|stage| &stage.members);
        let channels = stages.map(|&(channel, _)| &self.channels[usize::from(channel)]);
        // The pool of an outside channel is made by what it delivers.
        let pools = channels
            .filter(|channel| channel.outside.is_none())
            .flat_map(|channel| &channel.pools);
        for pool in pools.filter(|pool| !is_known(pool)) {
            warnings.push(format!("rule {number}: no pool is called {pool:?} yet"));
        }
    }

    /// Version, as every order's record carries it.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The text it was made from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The marks that its rules and channels ask about.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// How fast the load follows what is measured.
    pub fn smoothing(&self) -> Duration {
        self.smoothing
    }

    /// What its rules ask of this moment.
    pub fn moment(&self, unix_ms: u64) -> Moment {
        let times = self.times.iter().enumerate();
        Moment {
            marks: self.marks.passed(),
            times: times.fold(0, |bits, (at, times)| {
                bits | u64::from(times.hold(unix_ms)) << at
            }),
        }
    }

    /// Notes that a rule has taken so many orders.
    pub(super) fn count(&self, rule: usize, orders: u64) {
        // Relaxed: for reports.
        self.counts[rule].fetch_add(orders, Ordering::Relaxed);
    }

    /// How many orders each rule has taken since the table is in force, or since the start.
    pub fn rule_counts(&self) -> Vec<RuleCount> {
        let all = self.rules.iter().zip(&self.counts);
        all.map(|(rule, count)| RuleCount {
            name: rule.name.clone(),
            orders: count.load(Ordering::Relaxed),
        })
        .collect()
    }

    /// Where an order goes at such a moment; `None`: no rule takes it. For who resolves few: dealers have a [`super::Resolver`].
    pub fn route(&self, sku: &str, asked: &Asked, moment: Moment) -> Option<Target> {
        let at = self.rule_of(sku, asked, moment)?;
        let way = self.rules[at].way_of(asked.id);
        Some(self.target(at, way, asked.priority, moment))
    }

    /// The number of the rule that takes an order at such a moment, from 0.
    pub(super) fn rule_of(&self, sku: &str, asked: &Asked, moment: Moment) -> Option<usize> {
        let is_right =
            |rule: &Rule| rule.may_take(sku, asked.priority, moment) && rule.of_order.holds(asked);
        self.rules.iter().position(is_right)
    }

    /// Where orders go that take this way by this rule.
    pub(super) fn target(
        &self,
        rule: usize,
        way: usize,
        priority: Priority,
        moment: Moment,
    ) -> Target {
        let ours = &self.rules[rule];
        let mut channels = Vec::new();
        for (first, stage) in ours.firsts(way).into_iter().zip(&ours.chain) {
            for (channel, _) in stage.from(first) {
                self.ask(channel, moment, &mut channels);
            }
        }
        let mut pools: Vec<String> = Vec::new();
        for channel in channels {
            for pool in &self.channels[usize::from(channel)].pools {
                if !pools.contains(pool) {
                    pools.push(pool.clone());
                }
            }
        }
        Target {
            rule,
            lane: ours.lane.unwrap_or(priority),
            pools: (!ours.chain.is_empty()).then_some(pools),
        }
    }

    /// Adds a channel, behind the one it overflows to.
    pub(super) fn ask(&self, channel: u16, moment: Moment, into: &mut Vec<u16>) {
        // No longer than there are channels: a table with a cycle is none.
        if let Some((mark, to)) = self.channels[usize::from(channel)].overflow
            && moment.marks >> mark & 1 != 0
        {
            self.ask(to, moment, into);
        }
        if !into.contains(&channel) {
            into.push(channel);
        }
    }

    pub(super) fn overflow_of(&self, channel: u16) -> Option<u16> {
        let overflow = self.channels[usize::from(channel)].overflow;
        overflow.map(|(_, to)| to)
    }
}
