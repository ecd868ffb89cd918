//! How flags with units are read: durations, shares, lists.

use std::time::Duration;

/// Longest duration any flag takes: a day.
pub const DURATION_S_MAX: u64 = 86_400;

/// Reads `30s`, `1m30s`, `500ms`, or a bare number of seconds; zero is refused.
pub fn duration(text: &str) -> Result<Duration, String> {
    let read = duration_or_zero(text)?;
    if read.is_zero() {
        return Err("a duration must be longer than 0".into());
    }
    Ok(read)
}

/// As [`duration`], with zero allowed.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let read = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => text
            .parse::<jiff::SignedDuration>()
            .map_err(|error| format!("write it like 30s, 1m30s or 500ms ({error})"))
            .and_then(|signed| {
                Duration::try_from(signed).map_err(|_| "a duration cannot be negative".into())
            })?,
    };
    if read > Duration::from_secs(DURATION_S_MAX) {
        return Err(format!("at most {DURATION_S_MAX} seconds"));
    }
    Ok(read)
}

/// Reads a rate in orders a second; must be above 0 and at most 100 million.
pub fn rate_per_s(text: &str) -> Result<f64, String> {
    let digits: String = text.chars().filter(|&c| c != '_').collect();
    let rate: f64 = digits
        .parse()
        .map_err(|_| "a rate is a number of orders a second, as 1500".to_string())?;
    if !(rate.is_finite() && rate > 0.0) {
        return Err("a rate must be above 0 orders a second".into());
    }
    if rate > 1e8 {
        return Err("a rate above 100,000,000 orders a second is not supported".into());
    }
    Ok(rate)
}

/// Reads a whole number above 0, as `100000`, `100k`, `10m` or `1_000`.
pub fn count(text: &str) -> Result<u64, String> {
    let digits: String = text.trim().chars().filter(|&c| c != '_').collect();
    let (digits, unit) = match digits.to_ascii_lowercase() {
        text if text.ends_with('k') => (text[..text.len() - 1].to_string(), 1_000),
        text if text.ends_with('m') => (text[..text.len() - 1].to_string(), 1_000_000),
        text => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("{text:?} is no number above 0: write it like 1000, 100k or 10m"))
}

/// Reads a share between 0 and 1.
pub fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text
        .parse()
        .map_err(|_| "a share is a number from 0 to 1, as 0.8".to_string())?;
    if !(0.0..=1.0).contains(&share) {
        return Err("a share is a number from 0 to 1, as 0.8".into());
    }
    Ok(share)
}

/// Groups a whole number's digits: 1234567 → `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds as microseconds with a sensible number of decimals.
pub fn micros(ns: u64) -> String {
    let us = ns as f64 / 1e3;
    if us >= 100.0 {
        grouped(us.round() as u64)
    } else {
        format!("{us:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2.5"), Ok(Duration::from_millis(2500)));
        assert_eq!(duration_or_zero("0"), Ok(Duration::ZERO));
        for bad in ["0", "0s", "-1s", "-3", "soon", "", "2d", "1e99"] {
            assert!(duration(bad).is_err(), "{bad:?} was taken for a duration");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(rate_per_s("1500"), Ok(1500.0));
        assert_eq!(rate_per_s("1_500_000"), Ok(1_500_000.0));
        for bad in ["0", "-5", "NaN", "inf", "fast", "1e9"] {
            assert!(rate_per_s(bad).is_err(), "{bad:?} was taken for a rate");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(count("100k"), Ok(100_000));
        assert_eq!(count("10M"), Ok(10_000_000));
        assert_eq!(count("1_000"), Ok(1000));
        for bad in [
            "",
            "0",
            "k",
            "1.5m",
            "-1",
            "99999999999999999999",
            "99999999999999m",
        ] {
            assert!(count(bad).is_err(), "{bad:?} was taken for a number");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(share("0.5"), Ok(0.5));
        for bad in ["1.1", "-0.1", "NaN", "half"] {
            assert!(share(bad).is_err(), "{bad:?} was taken for a share");
        }
    }

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
