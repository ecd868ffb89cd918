//! What a table says of channels that are outside, of retries, and of ejections. docs/channels.md.

use std::ops::RangeInclusive;

use croupier_client::ClientBuilder;
use croupier_protocol::Name;
use serde::Deserialize;
use toml::Spanned;

use super::super::{Outlier, Outside, Retry, Source};
use super::channels::{ChannelText, Kind};
use super::{At as _, Fault, duration, patterns};

const SECOND_MS: u64 = 1000;
const HOUR_MS: u64 = 60 * 60 * SECOND_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Most jobs that a channel may have at a time.
const JOBS_MAX: u32 = 4096;
/// Most patterns in a channel's `skus`.
const PATTERNS_MAX: usize = 64;
/// Most attempts to get an order's cards.
const ATTEMPTS_MAX: u16 = 100;
/// Most days that an accepted order may wait.
const KEEP_DAYS_MAX: u64 = 30;
/// Largest count of jobs that outlier detection may ask for.
const COUNT_MAX: u32 = 1_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutlierText {
    consecutive_failures: Option<Spanned<i64>>,
    failure_percentage: Option<Spanned<i64>>,
    slow_call: Option<Spanned<String>>,
    slow_percentage: Option<Spanned<i64>>,
    window: Option<Spanned<String>>,
    request_volume: Option<Spanned<i64>>,
    base_ejection_time: Option<Spanned<String>>,
    max_ejection_time: Option<Spanned<String>>,
    probes: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryText {
    base: Option<Spanned<String>>,
    cap: Option<Spanned<String>>,
    attempts: Option<Spanned<i64>>,
    keep: Option<Spanned<String>>,
}

/// `[outlier]`: what is said of all channels together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EjectionText {
    max_ejection_percent: Option<Spanned<i64>>,
}

/// A channel that is outside. Of its name and its keys it is known that they are right ones.
pub(super) fn read(text: &ChannelText, kind: Kind) -> Result<Outside, Fault> {
    let name = text.name.get_ref();
    let timeout = ms(&text.timeout, "timeout", 1..=HOUR_MS)?;
    let jobs = number(&text.jobs, "jobs", 1..=JOBS_MAX)?;
    Ok(Outside {
        name: name.clone(),
        source: match kind {
            Kind::Upstream => upstream(text)?,
            _ => Source::Issuer,
        },
        pool: match &text.pool {
            None => name.clone(),
            Some(pool) => named(pool, "pool")?,
        },
        skus: skus(text)?,
        timeout_ms: timeout.map_or(5_000, |ms| ms as u32),
        jobs_max: jobs.unwrap_or(256),
        outlier: match &text.outlier {
            None => Outlier::default(),
            Some(text) => outlier(text.get_ref())?,
        },
    })
}

fn skus(text: &ChannelText) -> Result<Vec<String>, Fault> {
    let Some(skus) = &text.skus else {
        return Ok(vec!["*".into()]);
    };
    let found = patterns("skus", skus)?;
    if found.len() > PATTERNS_MAX {
        let reason = format!(
            "skus has {} patterns, at most {PATTERNS_MAX} are allowed: use * for what they have in common",
            found.len()
        );
        return Err(Fault(skus.span().start, reason));
    }
    Ok(found)
}

fn upstream(text: &ChannelText) -> Result<Source, Fault> {
    let Some(url) = &text.url else {
        let reason = "an upstream is another server: say which, as url = \"croupier://HOST:7733\"";
        return Err(Fault(text.name.span().start, reason.into()));
    };
    // The text is not repeated: somebody may have put a password into it.
    let read = ClientBuilder::default().server(url.get_ref());
    read.map(drop)
        .map_err(|error| format!("url is no server: {error}"))
        .at(url.span().start)?;
    Ok(Source::Upstream {
        url: url.get_ref().clone(),
        sku_prefix: match &text.sku_prefix {
            None => String::new(),
            Some(prefix) => sku_prefix(prefix)?,
        },
    })
}

/// What stands before our name of a SKU, which may be empty.
fn sku_prefix(text: &Spanned<String>) -> Result<String, Fault> {
    let prefix = text.get_ref();
    // With any SKU behind it, it is a name.
    Name::new(&format!("{prefix}x"))
        .map_err(|error| format!("{prefix:?} cannot begin the name of a SKU: {error}"))
        .at(text.span().start)?;
    Ok(prefix.clone())
}

fn outlier(text: &OutlierText) -> Result<Outlier, Fault> {
    let usual = Outlier::default();
    let count = |text, key, usual| Ok(number(text, key, 0..=COUNT_MAX)?.unwrap_or(usual));
    let percent = |text, key, usual| Ok(number(text, key, 0..=100)?.unwrap_or(usual));
    let time =
        |text, key, most_ms, usual| Ok(ms(text, key, 0..=most_ms)?.map_or(usual, |ms| ms as u32));
    let found = Outlier {
        consecutive_failures: count(
            &text.consecutive_failures,
            "consecutive_failures",
            usual.consecutive_failures,
        )?,
        failure_percentage: percent(
            &text.failure_percentage,
            "failure_percentage",
            usual.failure_percentage,
        )?,
        slow_call_ms: time(&text.slow_call, "slow_call", HOUR_MS, usual.slow_call_ms)?,
        slow_percentage: percent(
            &text.slow_percentage,
            "slow_percentage",
            usual.slow_percentage,
        )?,
        window_ms: time(&text.window, "window", HOUR_MS, usual.window_ms)?,
        request_volume: count(&text.request_volume, "request_volume", usual.request_volume)?,
        base_ejection_ms: time(
            &text.base_ejection_time,
            "base_ejection_time",
            DAY_MS,
            usual.base_ejection_ms,
        )?,
        max_ejection_ms: time(
            &text.max_ejection_time,
            "max_ejection_time",
            DAY_MS,
            usual.max_ejection_ms,
        )?,
        probes: count(&text.probes, "probes", usual.probes)?,
    };
    if found.max_ejection_ms != 0 && found.max_ejection_ms < found.base_ejection_ms {
        let reason = "max_ejection_time is at least base_ejection_time, which is 30s if nothing else is said; 0s: no end to it";
        let places = [&text.max_ejection_time, &text.base_ejection_time];
        let said = places.into_iter().flatten().next();
        // One of both was said, or they were the usual ones.
        return Err(Fault(
            said.map_or(0, |said| said.span().start),
            reason.into(),
        ));
    }
    Ok(found)
}

/// What `[retry]` says, or the usual.
pub(super) fn retry(text: Option<&RetryText>) -> Result<Retry, Fault> {
    let usual = Retry::default();
    let Some(text) = text else { return Ok(usual) };
    let base = ms(&text.base, "base", 1..=HOUR_MS)?;
    let cap = ms(&text.cap, "cap", 1..=DAY_MS)?;
    let attempts = number(&text.attempts, "attempts", 1..=ATTEMPTS_MAX.into())?;
    let keep = ms(&text.keep, "keep", 1..=KEEP_DAYS_MAX * DAY_MS)?;
    let found = Retry {
        base_ms: base.map_or(usual.base_ms, |ms| ms as u32),
        cap_ms: cap.map_or(usual.cap_ms, |ms| ms as u32),
        attempts: attempts.map_or(usual.attempts, |attempts| attempts as u16),
        keep_ms: keep.unwrap_or(usual.keep_ms),
    };
    if found.cap_ms < found.base_ms {
        let reason = "cap is at least base, which is 1s if nothing else is said";
        let said = [&text.cap, &text.base].into_iter().flatten().next();
        return Err(Fault(
            said.map_or(0, |said| said.span().start),
            reason.into(),
        ));
    }
    Ok(found)
}

/// What `[outlier]` says, or the usual.
pub(super) fn max_ejection_percent(text: Option<&EjectionText>) -> Result<u32, Fault> {
    let Some(text) = text else { return Ok(50) };
    let percent = number(&text.max_ejection_percent, "max_ejection_percent", 0..=100)?;
    Ok(percent.unwrap_or(50))
}

fn named(text: &Spanned<String>, what: &str) -> Result<String, Fault> {
    let name = text.get_ref();
    Name::new(name)
        .map_err(|error| format!("{name:?} cannot be the name of a {what}: {error}"))
        .at(text.span().start)?;
    Ok(name.clone())
}

fn number(
    text: &Option<Spanned<i64>>,
    key: &str,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let found = u32::try_from(*text.get_ref()).ok();
    let found = found.filter(|number| range.contains(number));
    let found = found.ok_or_else(|| {
        let (from, to) = (range.start(), range.end());
        let off = if *from == 0 { "; 0: off" } else { "" };
        format!(
            "{key} is a number from {from} to {to}{off}, not {}",
            text.get_ref()
        )
    });
    found.at(text.span().start).map(Some)
}

/// Milliseconds of a time as "500ms" or "2s". A range that begins with 0 has that for *off*.
fn ms(
    text: &Option<Spanned<String>>,
    key: &str,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let found = duration(text.get_ref());
    let found = found.and_then(|time| {
        let ms = u64::try_from(time.as_millis()).ok()?;
        // Less than a millisecond is not none.
        let is_right = range.contains(&ms) && (ms > 0 || time.is_zero());
        is_right.then_some(ms)
    });
    let found = found.ok_or_else(|| {
        let most = match range.end() / HOUR_MS {
            1 => "an hour".to_owned(),
            24 => "a day".to_owned(),
            hours => format!("{} days", hours / 24),
        };
        let least = match range.start() {
            0 => "; 0s: off",
            _ => ", at least 1ms",
        };
        format!(
            "{key} is a time of at most {most}{least}, as \"500ms\" or \"5s\", not {:?}",
            text.get_ref()
        )
    });
    found.at(text.span().start).map(Some)
}
