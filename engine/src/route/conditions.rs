//! What rules ask of an order and of the moment.

use croupier_protocol::Priority;

/// What a route table is told of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: u128,
    /// Key of its holder; 0: nobody is named.
    pub holder: u128,
    pub sku: u32,
    pub priority: Priority,
    pub quantity: u16,
    /// 0: none.
    pub tag: u16,
}

/// How many cards an order may ask for; both ends are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantities {
    from: u16,
    to: u16,
}

impl Quantities {
    /// Of "3", "2-5" or "10-".
    pub(super) fn parse(text: &str) -> Result<Quantities, String> {
        let fault = || {
            format!(
                "{text:?} is no quantity: write 3, 1-5 or 10-, of numbers from 1 to 65535 that do not fall"
            )
        };
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|&number| number > 0);
        let (from, to) = match text.split_once('-') {
            None => (number(text), number(text)),
            Some((from, to)) if to.trim().is_empty() => (number(from), Some(u16::MAX)),
            Some((from, to)) => (number(from), number(to)),
        };
        let (from, to) = from.zip(to).ok_or_else(fault)?;
        if from > to {
            return Err(fault());
        }
        Ok(Quantities { from, to })
    }

    fn holds(self, quantity: u16) -> bool {
        (self.from..=self.to).contains(&quantity)
    }

    fn covers(self, other: Quantities) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

/// Parts of a whole, in hundredths of a per cent.
const WHOLE: u16 = 10_000;

/// Which holders an order may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holders {
    /// Any that is named.
    Named,
    /// None is named.
    Nobody,
    /// Those whose share is at least the first and below the second, in hundredths of a per cent.
    Share(u16, u16),
}

impl Holders {
    /// Of "named", "none" or "0%-10%".
    pub(super) fn parse(text: &str) -> Result<Holders, String> {
        let fault = || {
            format!("{text:?} tells no holders: write named, none, or a share of them as 0%-12.5%")
        };
        let share = |text: &str| {
            let number = text.trim().strip_suffix('%')?;
            let share = number.parse::<f64>().ok()? * 100.0;
            (0.0..=f64::from(WHOLE))
                .contains(&share)
                .then_some(share.round() as u16)
        };
        match text {
            "named" => Ok(Holders::Named),
            "none" => Ok(Holders::Nobody),
            _ => {
                let (from, to) = text.split_once('-').ok_or_else(fault)?;
                let (from, to) = share(from).zip(share(to)).ok_or_else(fault)?;
                if from >= to {
                    return Err(fault());
                }
                Ok(Holders::Share(from, to))
            }
        }
    }

    fn holds(self, holder: u128) -> bool {
        match self {
            Holders::Named => holder != 0,
            Holders::Nobody => holder == 0,
            Holders::Share(from, to) => holder != 0 && (from..to).contains(&share_of(holder)),
        }
    }

    fn covers(self, other: Holders) -> bool {
        match (self, other) {
            (Holders::Named, Holders::Share(..)) => true,
            (Holders::Share(from, to), Holders::Share(other_from, other_to)) => {
                from <= other_from && other_to <= to
            }
            _ => self == other,
        }
    }
}

/// Where a holder stands among all, in hundredths of a per cent: of the key alone, so the same on every node and in every table.
fn share_of(holder: u128) -> u16 {
    (mix(holder, 0) % u64::from(WHOLE)) as u16
}

/// A number of a key that has nothing to do with that of another salt. (The finalizer of SplitMix64, over both halves.)
pub(crate) fn mix(key: u128, salt: u64) -> u64 {
    let step = |mut word: u64| {
        word ^= word >> 30;
        word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word ^= word >> 27;
        word = word.wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    };
    step(step(key as u64 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ (key >> 64) as u64)
}

/// What is asked of each order itself, when SKU, priority and the moment are right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfOrder {
    pub quantities: Option<Quantities>,
    pub holders: Option<Holders>,
    /// One of these; empty: any or none.
    pub tags: Vec<u16>,
}

impl OfOrder {
    /// Whether every order will do.
    pub(super) fn is_any(&self) -> bool {
        *self == OfOrder::default()
    }

    pub(super) fn holds(&self, asked: &Asked) -> bool {
        let tags = &self.tags;
        self.quantities
            .is_none_or(|some| some.holds(asked.quantity))
            && self.holders.is_none_or(|some| some.holds(asked.holder))
            && (tags.is_empty() || tags.contains(&asked.tag))
    }

    /// Whether this holds wherever `other` does.
    pub(super) fn covers(&self, other: &OfOrder) -> bool {
        let covers_all = |ours: bool, theirs: Option<bool>| !ours || theirs.unwrap_or(false);
        let quantities = covers_all(
            self.quantities.is_some(),
            self.quantities
                .zip(other.quantities)
                .map(|(ours, theirs)| ours.covers(theirs)),
        );
        let holders = covers_all(
            self.holders.is_some(),
            self.holders
                .zip(other.holders)
                .map(|(ours, theirs)| ours.covers(theirs)),
        );
        let tags = self.tags.is_empty()
            || !other.tags.is_empty() && other.tags.iter().all(|tag| self.tags.contains(tag));
        quantities && holders && tags
    }
}

const DAY_MINUTES: u16 = 24 * 60;
const ALL_DAYS: u8 = 0x7f;
/// As they are written, from the first bit on.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Times of day on days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// Minutes of the day; the second is not in it, and may be smaller than the first: then it is one of the next day.
    from: u16,
    to: u16,
    /// A bit a day, Monday first: on which they begin.
    days: u8,
    /// Minutes that the clock is ahead of UTC.
    offset: i16,
}

impl Times {
    /// Of `time`, as "22:00-06:00", and `days`, as "sat"; at least one is given.
    pub(super) fn parse(
        time: Option<&str>,
        days: &[impl AsRef<str>],
        offset: i16,
    ) -> Result<Times, String> {
        let (from, to) = match time {
            None => (0, DAY_MINUTES),
            Some(text) => {
                let fault = || {
                    format!(
                        "{text:?} is no time of day: write it as 22:00-06:00, two different times"
                    )
                };
                let (from, to) = text.split_once('-').ok_or_else(fault)?;
                let (from, to) = minutes(from).zip(minutes(to)).ok_or_else(fault)?;
                if from == to || from == DAY_MINUTES {
                    return Err(fault());
                }
                (from, to)
            }
        };
        let mut bits = if days.is_empty() { ALL_DAYS } else { 0 };
        for day in days {
            let day = day.as_ref();
            let at = DAYS.iter().position(|known| *known == day);
            let at = at.ok_or_else(|| {
                format!("{day:?} is no day: use mon, tue, wed, thu, fri, sat or sun")
            })?;
            bits |= 1 << at;
        }
        Ok(Times {
            from,
            to,
            days: bits,
            offset,
        })
    }

    pub(super) fn hold(self, unix_ms: u64) -> bool {
        let minutes = (unix_ms / 60_000).saturating_add_signed(self.offset.into());
        let minute = (minutes % u64::from(DAY_MINUTES)) as u16;
        // 1970 began on a Thursday.
        let today = (minutes / u64::from(DAY_MINUTES) + 3) % 7;
        let is_day = |day: u64| self.days & 1 << day != 0;
        if self.from < self.to {
            return is_day(today) && (self.from..self.to).contains(&minute);
        }
        is_day(today) && minute >= self.from || is_day((today + 6) % 7) && minute < self.to
    }
}

/// Minutes of "22:00"; "24:00" is the end of the day.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= DAY_MINUTES).then_some(all)
}

/// Minutes ahead of UTC, of "+08:00" or "-03:30".
pub(super) fn utc_offset(text: &str) -> Result<i16, String> {
    let fault = || format!("{text:?} is no offset: write it as +08:00 or -03:30, at most 14 hours");
    let sign = match text.as_bytes().first() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return Err(fault()),
    };
    let minutes = minutes(&text[1..]).filter(|&minutes| minutes <= 14 * 60);
    Ok(sign * minutes.ok_or_else(fault)? as i16)
}

/// `*` stands for any characters, everything else for itself.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Whether there is a text that both patterns match.
pub(crate) fn globs_meet(one: &str, other: &str) -> bool {
    let other = other.as_bytes();
    // Where in the other one can be when so much of this one is used up; `*` may be passed over at once.
    let passes = |may: &mut [bool]| {
        for at in 0..other.len() {
            may[at + 1] |= may[at] && other[at] == b'*';
        }
    };
    let mut may = vec![false; other.len() + 1];
    may[0] = true;
    passes(&mut may);
    for &byte in one.as_bytes() {
        let mut next = vec![false; may.len()];
        for at in (0..may.len()).filter(|&at| may[at]) {
            let there = other.get(at);
            if byte == b'*' {
                next[at..].fill(true);
            } else if there == Some(&b'*') {
                next[at] = true;
            } else if there == Some(&byte) {
                next[at + 1] = true;
            }
        }
        passes(&mut next);
        may = next;
    }
    may[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_meet() {
        for (one, other, expect) in [
            ("*", "*", true),
            ("*", "a", true),
            ("a", "a", true),
            ("a", "b", false),
            ("steam-*", "*-50", true),
            ("steam-*", "psn-*", false),
            ("steam-*", "steam", false),
            ("a*b", "*c", false),
            ("a*b*c", "ab*", true),
            ("*a", "*b", false),
            ("x**y", "xy", true),
            ("a*", "*b*c", true),
        ] {
            assert_eq!(globs_meet(one, other), expect, "{one} {other}");
            assert_eq!(globs_meet(other, one), expect, "{other} {one}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, text, expect) in [
            ("*", "", true),
            ("*", "x", true),
            ("steam-*", "steam-50", true),
            ("steam-*", "xsteam-50", false),
            ("*-50", "steam-50", true),
            ("*-50", "steam-500", false),
            ("s*m*0", "steam-50", true),
            ("s*m*1", "steam-50", false),
            ("a*a", "a", false),
            ("steam", "steam", true),
            ("steam", "steam2", false),
        ] {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}");
        }
    }

    #[test]
    fn quantities() {
        for (text, within, without) in [
            ("3", &[3][..], &[2, 4][..]),
            ("2-5", &[2, 5], &[1, 6]),
            ("10-", &[10, u16::MAX], &[9]),
            (" 1 - 2 ", &[1, 2], &[3]),
        ] {
            let some = Quantities::parse(text).unwrap();
            assert!(within.iter().all(|&one| some.holds(one)), "{text}");
            assert!(!without.iter().any(|&one| some.holds(one)), "{text}");
        }
        for bad in [
            "", "-", "-5", "0", "0-3", "5-2", "x", "1-2-3", "65536", "1.5",
        ] {
            assert!(Quantities::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn holders_are_shared_out_by_their_keys() {
        let keys: Vec<u128> = (1..=20_000).map(|key| key << 40 | key).collect();
        let tenth = Holders::parse("0%-10%").unwrap();
        let rest = Holders::parse("10%-100%").unwrap();
        let in_tenth = keys.iter().filter(|&&key| tenth.holds(key)).count();
        assert!((1_800..2_200).contains(&in_tenth), "{in_tenth} of 20,000");
        assert!(keys.iter().all(|&key| tenth.holds(key) != rest.holds(key)));
        for some in [tenth, rest, Holders::Named] {
            assert!(!some.holds(0), "nobody is no holder");
        }
        assert!(Holders::Nobody.holds(0) && !Holders::Nobody.holds(1));
        // As docs/routes.md says: the same on every node, and for ever.
        assert_eq!([1, 2, u128::MAX].map(share_of), [2957, 5752, 7563]);
        for bad in [
            "", "0-10", "10%-0%", "5%-5%", "0%-101%", "-1%-5%", "x%-5%", "NaN%-5%", "10%",
        ] {
            assert!(Holders::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_of_day() {
        // 2026-11-21 is a Saturday.
        let saturday_ms = 1_795_219_200_000;
        let at = |hours: u64, minutes: u64| saturday_ms + (hours * 60 + minutes) * 60_000;
        let none: [&str; 0] = [];
        let night = Times::parse(Some("22:00-06:00"), &none, 0).unwrap();
        let late = Times::parse(Some("22:00-06:00"), &["fri"], 0).unwrap();
        let weekend = Times::parse(None, &["sat", "sun"], 0).unwrap();
        let there = Times::parse(Some("08:00-09:00"), &["sat"], 8 * 60).unwrap();
        let noon = Times::parse(Some("12:00-24:00"), &none, 0).unwrap();
        for (times, hours, minutes, expect) in [
            (night, 21, 59, false),
            (night, 22, 0, true),
            (night, 30, 0, false),
            (night, 29, 59, true),
            (late, 5, 59, true),
            (late, 6, 0, false),
            (late, 22, 0, false),
            (weekend, 0, 0, true),
            (weekend, 47, 59, true),
            (weekend, 48, 0, false),
            (there, 0, 0, true),
            (there, 0, 59, true),
            (there, 1, 0, false),
            (there, 24, 0, false),
            (noon, 23, 59, true),
            (noon, 24, 0, false),
        ] {
            assert_eq!(
                times.hold(at(hours, minutes)),
                expect,
                "{times:?} {hours}:{minutes}"
            );
        }
        for bad in [
            "",
            "22:00",
            "22:00-22:00",
            "24:00-06:00",
            "25:00-06:00",
            "9:00-10:00",
            "10:60-11:00",
            "+1:00-02:00",
        ] {
            assert!(Times::parse(Some(bad), &none, 0).is_err(), "{bad:?}");
        }
        assert!(Times::parse(None, &["saturday"], 0).is_err());
        assert_eq!(utc_offset("+08:00"), Ok(480));
        assert_eq!(utc_offset("-03:30"), Ok(-210));
        for bad in ["", "8", "08:00", "+15:00", "+8:00", "+é"] {
            assert!(utc_offset(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_covers_what() {
        let of = |quantity: &str, holder: &str, tags: &[u16]| OfOrder {
            quantities: (!quantity.is_empty()).then(|| Quantities::parse(quantity).unwrap()),
            holders: (!holder.is_empty()).then(|| Holders::parse(holder).unwrap()),
            tags: tags.into(),
        };
        for (ours, theirs, expect) in [
            (of("", "", &[]), of("3", "named", &[1]), true),
            (of("3", "", &[]), of("", "", &[]), false),
            (of("1-5", "", &[]), of("2-3", "", &[]), true),
            (of("1-5", "", &[]), of("2-6", "", &[]), false),
            (of("", "named", &[]), of("", "0%-5%", &[]), true),
            (of("", "0%-5%", &[]), of("", "named", &[]), false),
            (of("", "none", &[]), of("", "none", &[]), true),
            (of("", "", &[1, 2]), of("", "", &[2]), true),
            (of("", "", &[1]), of("", "", &[1, 2]), false),
            (of("", "", &[1]), of("", "", &[]), false),
        ] {
            assert_eq!(ours.covers(&theirs), expect, "{ours:?} {theirs:?}");
        }
    }
}
