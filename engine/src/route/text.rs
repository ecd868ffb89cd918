//! The text of a table, TOML, and the checks that make it one.

mod channels;
mod outside;

use std::collections::HashMap;
use std::time::Duration;

use croupier_protocol::{Name, Priority};
use serde::Deserialize;
use toml::Spanned;

use super::conditions::{Holders, OfOrder, Quantities, Times, utc_offset};
use super::load::{MARKS_MAX, Marks};
use super::table::{Channel, RouteTable, Rule, Stage, ends_of};
use super::{Balance, CHAIN_MAX, Outside, ROUTES_BYTES_MAX, RULE_WAYS_MAX, RULES_MAX, WAYS_MAX};
use channels::ChannelText;
use outside::{EjectionText, RetryText};
use std::sync::atomic::AtomicU64;

/// Why a table was not accepted: line and reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct RouteError {
    pub line: usize,
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableText {
    utc_offset: Option<Spanned<String>>,
    load: Option<LoadText>,
    retry: Option<RetryText>,
    outlier: Option<EjectionText>,
    #[serde(default)]
    channel: Vec<Spanned<ChannelText>>,
    rule: Vec<Spanned<RuleText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadText {
    smoothing: Option<Spanned<String>>,
    hysteresis: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[serde(default)]
    name: String,
    #[serde(default)]
    priority: Vec<Spanned<String>>,
    sku: Option<Spanned<OneOrMore>>,
    quantity: Option<Spanned<String>>,
    holder: Option<Spanned<String>>,
    tag: Option<Spanned<Vec<i64>>>,
    time: Option<Spanned<String>>,
    days: Option<Spanned<Vec<String>>>,
    when: Option<Spanned<String>>,
    lane: Option<Spanned<String>>,
    channels: Option<Spanned<Vec<StageText>>>,
    balance: Option<Spanned<String>>,
    #[serde(default)]
    pools: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a name or a list of names")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a channel's name, or channels with weights as { a = 80, b = 20 }"
)]
enum StageText {
    One(String),
    Weighted(toml::Table),
}

/// Where in the text something is, and what is wrong with it.
struct Fault(usize, String);

trait At<T> {
    /// The place of what was looked at.
    fn at(self, place: usize) -> Result<T, Fault>;
}

impl<T> At<T> for Result<T, String> {
    fn at(self, place: usize) -> Result<T, Fault> {
        self.map_err(|reason| Fault(place, reason))
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

impl RouteTable {
    /// Reads and checks a table as a whole.
    pub fn parse(version: u32, text: &str) -> Result<RouteTable, RouteError> {
        read(version, text).map_err(|Fault(at, reason)| RouteError {
            line: line_of(text, at),
            reason,
        })
    }
}

fn read(version: u32, text: &str) -> Result<RouteTable, Fault> {
    if text.len() > ROUTES_BYTES_MAX {
        let bytes = text.len();
        return Err(Fault(
            0,
            format!("the table has {bytes} bytes, at most {ROUTES_BYTES_MAX} are allowed"),
        ));
    }
    let parsed: TableText = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Fault(at, error.message().trim().to_owned())
    })?;
    if parsed.rule.is_empty() || parsed.rule.len() > RULES_MAX {
        let rules = parsed.rule.len();
        return Err(Fault(
            0,
            format!("a table has 1 to {RULES_MAX} [[rule]]s, here are {rules}"),
        ));
    }
    let mut draft = Draft::default();
    if let Some(offset) = &parsed.utc_offset {
        draft.utc_offset = utc_offset(offset.get_ref()).at(offset.span().start)?;
    }
    draft.channels(&parsed.channel)?;
    let mut ways = 0;
    let mut rules = Vec::with_capacity(parsed.rule.len());
    for rule in &parsed.rule {
        let at = rule.span().start;
        let rule = draft.rule(rule.get_ref(), at)?;
        ways += rule.ways();
        if ways > WAYS_MAX {
            let reason = format!(
                "this rule and those above have {ways} ways through their channels, at most {WAYS_MAX} are allowed: use fewer weights"
            );
            return Err(Fault(at, reason));
        }
        rules.push(rule);
    }
    let (smoothing, hysteresis) = load(parsed.load.as_ref())?;
    let retry = outside::retry(parsed.retry.as_ref())?;
    let max_ejection_percent = outside::max_ejection_percent(parsed.outlier.as_ref())?;
    Ok(RouteTable {
        version,
        text: text.into(),
        is_plain: rules
            .iter()
            .all(|rule| rule.of_order.is_any() && rule.ways() == 1),
        counts: rules.iter().map(|_| AtomicU64::new(0)).collect(),
        rules,
        channels: draft.channels,
        outside: draft.outside,
        retry,
        max_ejection_percent,
        times: draft.times,
        marks: Marks::new(&draft.marks, hysteresis),
        smoothing,
    })
}

fn load(text: Option<&LoadText>) -> Result<(Duration, f64), Fault> {
    let mut found = (Duration::from_secs(1), 0.1);
    if let Some(smoothing) = text.and_then(|text| text.smoothing.as_ref()) {
        let parsed = duration(smoothing.get_ref());
        let parsed = parsed.filter(|time| *time <= Duration::from_secs(3600));
        let reason = "smoothing is a time of at most an hour, as \"500ms\" or \"2s\"; 0s: none";
        found.0 = parsed
            .ok_or_else(|| reason.to_owned())
            .at(smoothing.span().start)?;
    }
    if let Some(hysteresis) = text.and_then(|text| text.hysteresis.as_ref()) {
        found.1 = *hysteresis.get_ref();
        if !(0.0..=0.5).contains(&found.1) {
            let reason = format!("hysteresis is a number from 0 to 0.5, not {}", found.1);
            return Err(Fault(hysteresis.span().start, reason));
        }
    }
    Ok(found)
}

/// A time that is not negative, as "500ms", "2s" or "1h 30m".
fn duration(text: &str) -> Option<Duration> {
    let parsed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(parsed).ok()
}

/// What is known so far of a table that is being read.
#[derive(Default)]
struct Draft {
    utc_offset: i16,
    channels: Vec<Channel>,
    outside: Vec<Outside>,
    by_name: HashMap<String, u16>,
    times: Vec<Times>,
    marks: Vec<f64>,
}

impl Draft {
    fn channel(&self, name: &str) -> Result<u16, String> {
        self.by_name.get(name).copied().ok_or_else(|| {
            format!("there is no channel called {name:?}: add a [[channel]] of this name")
        })
    }

    /// The number of the mark of "load > 0.80".
    fn mark(&mut self, when: &Spanned<String>) -> Result<u8, Fault> {
        let text = when.get_ref();
        let fault = || {
            let reason = format!(
                "{text:?} is no condition: write it as load > 0.80, of a number from 0 to below 1"
            );
            Fault(when.span().start, reason)
        };
        let mut words = text.split_whitespace();
        let (Some("load"), Some(">"), Some(number), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(fault());
        };
        let at = number.parse::<f64>().ok();
        let at = at.filter(|at| (0.0..1.0).contains(at)).ok_or_else(fault)?;
        numbered(&mut self.marks, at)
            .ok_or_else(|| format!("a table asks for at most {MARKS_MAX} different loads"))
            .at(when.span().start)
    }

    fn rule(&mut self, text: &RuleText, at: usize) -> Result<Rule, Fault> {
        let priorities = text.priority.iter().map(priority);
        let mut rule = Rule {
            name: text.name.clone(),
            priorities: priorities.collect::<Result<_, _>>()?,
            skus: skus(text)?,
            time: self.time(text)?,
            mark: text.when.as_ref().map(|when| self.mark(when)).transpose()?,
            of_order: of_order(text)?,
            lane: text.lane.as_ref().map(priority).transpose()?,
            chain: self.chain(text)?,
            balance: balance(text)?,
            ends: Vec::new(),
        };
        if rule.ways() > RULE_WAYS_MAX {
            let reason = format!(
                "there are {} ways through the channels of this rule, at most {RULE_WAYS_MAX} are allowed: use fewer weights",
                rule.ways()
            );
            return Err(Fault(at, reason));
        }
        rule.ends = ends_of(&rule.chain);
        Ok(rule)
    }

    fn time(&mut self, text: &RuleText) -> Result<Option<u8>, Fault> {
        let (time, days) = (text.time.as_ref(), text.days.as_ref());
        let at = time.map(Spanned::span).or_else(|| days.map(Spanned::span));
        let Some(at) = at else { return Ok(None) };
        if days.is_some_and(|days| days.get_ref().is_empty()) {
            return Err(Fault(at.start, "days without a day never come".into()));
        }
        let time = time.map(|time| time.get_ref().as_str());
        let days = days.map_or(&[][..], |days| days.get_ref());
        let times = Times::parse(time, days, self.utc_offset).at(at.start)?;
        numbered(&mut self.times, times)
            .ok_or_else(|| "a table asks for at most 64 different times".to_owned())
            .at(at.start)
            .map(Some)
    }

    fn chain(&mut self, text: &RuleText) -> Result<Vec<Stage>, Fault> {
        let Some(channels) = &text.channels else {
            return self.chain_of_pools(&text.pools);
        };
        let at = channels.span().start;
        let fault = |reason: &str| Err(Fault(at, reason.into()));
        if !text.pools.is_empty() {
            return fault("a rule names channels or pools, not both");
        }
        if channels.get_ref().is_empty() {
            return fault(
                "a rule without channels has no cards: name one, or leave channels out for all pools of the SKU",
            );
        }
        if channels.get_ref().len() > CHAIN_MAX {
            return Err(Fault(
                at,
                format!("a chain has at most {CHAIN_MAX} channels"),
            ));
        }
        let stages = channels
            .get_ref()
            .iter()
            .map(|stage| self.stage(stage).at(at));
        let stages: Vec<Stage> = stages.collect::<Result<_, _>>()?;
        let mut all: Vec<u16> = stages
            .iter()
            .flat_map(|stage| stage.members.iter().map(|(channel, _)| *channel))
            .collect();
        all.sort_unstable();
        if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            let name = &self.channels[usize::from(pair[0])].name;
            return Err(Fault(
                at,
                format!("channel {name:?} is named twice in this chain"),
            ));
        }
        Ok(stages)
    }

    fn stage(&self, text: &StageText) -> Result<Stage, String> {
        let weighted = match text {
            StageText::One(name) => {
                let members = vec![(self.channel(name)?, 1)];
                return Ok(Stage { members });
            }
            StageText::Weighted(weighted) => weighted,
        };
        if weighted.is_empty() || weighted.len() > CHAIN_MAX {
            return Err(format!("weights are of 1 to {CHAIN_MAX} channels"));
        }
        let member = |(name, weight): (&String, &toml::Value)| {
            let weight = weight
                .as_integer()
                .and_then(|weight| u32::try_from(weight).ok());
            let weight = weight.filter(|weight| (1..=1_000_000).contains(weight));
            let weight = weight.ok_or_else(|| {
                format!("the weight of channel {name:?} must be a number from 1 to 1,000,000; leave a channel out that is to get nothing")
            })?;
            Ok((self.channel(name)?, weight))
        };
        let members = weighted.iter().map(member);
        Ok(Stage {
            members: members.collect::<Result<_, String>>()?,
        })
    }

    /// A channel that is nothing but these pools.
    fn chain_of_pools(&mut self, names: &[Spanned<String>]) -> Result<Vec<Stage>, Fault> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let channel = Channel {
            name: String::new(),
            pools: pools(names)?,
            overflow: None,
            outside: None,
        };
        let known = self.channels.iter().position(|known| *known == channel);
        let number = known.unwrap_or_else(|| {
            self.channels.push(channel);
            self.channels.len() - 1
        });
        // No more than there are rules, and channels.
        let members = vec![(number as u16, 1)];
        Ok(vec![Stage { members }])
    }
}

/// The number of one of at most 64 different ones.
fn numbered<T: PartialEq>(all: &mut Vec<T>, one: T) -> Option<u8> {
    let at = all
        .iter()
        .position(|known| *known == one)
        .unwrap_or_else(|| {
            all.push(one);
            all.len() - 1
        });
    (at < MARKS_MAX).then_some(at as u8)
}

fn priority(name: &Spanned<String>) -> Result<Priority, Fault> {
    let text = name.get_ref();
    text.parse::<Priority>()
        .map_err(|_| format!("{text:?} is no priority: use vip, standard, bulk or background"))
        .at(name.span().start)
}

fn skus(text: &RuleText) -> Result<Vec<String>, Fault> {
    let Some(sku) = &text.sku else {
        return Ok(vec!["*".into()]);
    };
    patterns("sku", sku)
}

/// Names and patterns of SKUs, one at least. `key`: what they are said with.
fn patterns(key: &str, text: &Spanned<OneOrMore>) -> Result<Vec<String>, Fault> {
    let patterns = match text.get_ref() {
        OneOrMore::One(one) => vec![one.clone()],
        OneOrMore::More(more) => more.clone(),
    };
    let is_bad = |pattern: &String| pattern.is_empty() || pattern.len() > 64;
    if patterns.is_empty() || patterns.iter().any(is_bad) {
        let reason = format!(
            "{key} is a name or a pattern of 1 to 64 bytes, or a list of these; * stands for any characters"
        );
        return Err(Fault(text.span().start, reason));
    }
    Ok(patterns)
}

fn balance(text: &RuleText) -> Result<Balance, Fault> {
    let Some(balance) = &text.balance else {
        return Ok(Balance::Weights);
    };
    let found = match balance.get_ref().as_str() {
        "weights" => Ok(Balance::Weights),
        "least-latency" => Ok(Balance::LeastLatency),
        other => Err(format!(
            "{other:?} is no way to choose a channel: use weights or least-latency"
        )),
    };
    let found = match text.channels {
        Some(_) => found,
        None => Err(
            "balance says how one of a rule's channels is chosen: name channels, or leave balance out"
                .into(),
        ),
    };
    found.at(balance.span().start)
}

fn of_order(text: &RuleText) -> Result<OfOrder, Fault> {
    let quantities = text
        .quantity
        .as_ref()
        .map(|some| Quantities::parse(some.get_ref()).at(some.span().start));
    let holders = text
        .holder
        .as_ref()
        .map(|some| Holders::parse(some.get_ref()).at(some.span().start));
    let tags = match &text.tag {
        None => Vec::new(),
        Some(tags) => {
            let number = |&tag: &i64| u16::try_from(tag).ok().filter(|&tag| tag > 0);
            let numbers: Option<Vec<u16>> = tags.get_ref().iter().map(number).collect();
            let numbers = numbers.filter(|numbers| !numbers.is_empty());
            numbers
                .ok_or_else(|| "tag is a list of numbers from 1 to 65535".to_owned())
                .at(tags.span().start)?
        }
    };
    Ok(OfOrder {
        quantities: quantities.transpose()?,
        holders: holders.transpose()?,
        tags,
    })
}

fn pools(names: &[Spanned<String>]) -> Result<Vec<String>, Fault> {
    let mut pools: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let (at, name) = (name.span().start, name.get_ref());
        if let Err(error) = Name::new(name) {
            let reason = format!("{name:?} cannot be the name of a pool: {error}");
            return Err(Fault(at, reason));
        }
        // Elsewhere it changes nothing, and tables are in use that have that.
        if pools.last() == Some(name) {
            return Err(Fault(at, format!("pool {name:?} is named twice in a row")));
        }
        pools.push(name.clone());
    }
    Ok(pools)
}
