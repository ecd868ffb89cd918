//! When a card expires: `YYYY-MM-DD` (good through that day, UTC) or RFC 3339.

use jiff::civil::{Date, date};
use jiff::fmt::temporal::{Pieces, PiecesOffset};

/// Unix seconds of the last second of a date, or of an instant; `None` when `text` is neither.
///
/// 0 means "never" in a row, so an instant before 1970 becomes 1: long expired, as it should be.
pub fn parse_s(text: &str) -> Option<u64> {
    let instant_s = if is_date_shaped(text) {
        midnight_s(text.parse().ok()?) + 86_399
    } else {
        rfc3339_s(text)?
    };
    Some(u64::try_from(instant_s).unwrap_or(0).max(1))
}

fn is_date_shaped(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-'
}

fn midnight_s(day: Date) -> i64 {
    day.duration_since(date(1970, 1, 1)).as_secs()
}

/// Added up from its pieces, because jiff's own instants end one day before 9999-12-31, which files like for "never".
/// jiff also reads other spellings of ISO 8601; what does not begin with a dashed date is better asked about.
fn rfc3339_s(text: &str) -> Option<i64> {
    if !text.get(..10).is_some_and(is_date_shaped) {
        return None;
    }
    let pieces = Pieces::parse(text).ok()?;
    if pieces.time_zone_annotation().is_some() {
        return None;
    }
    let offset_s = match pieces.offset()? {
        PiecesOffset::Zulu => 0,
        PiecesOffset::Numeric(offset) => offset.offset().seconds(),
        _ => return None,
    };
    let time = pieces.time()?;
    let of_day_s =
        i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    Some(midnight_s(pieces.date()) + of_day_s - i64::from(offset_s))
}

/// The last text and what it came to: a file repeats few dates over many lines.
#[derive(Debug, Default)]
pub struct ExpiryMemo {
    text: String,
    expires_at_s: Option<u64>,
}

impl ExpiryMemo {
    /// [`parse_s`] for a field of a file: blank is `Some(0)`, never.
    pub fn parse_s(&mut self, field: &str) -> Option<u64> {
        let text = field.trim_ascii();
        if text.is_empty() {
            return Some(0);
        }
        if text != self.text {
            self.expires_at_s = parse_s(text);
            // Kept only when short, so that a huge field is not held on to.
            self.text.clear();
            self.text.push_str(if text.len() <= 64 { text } else { "" });
        }
        self.expires_at_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_instants() {
        let mut memo = ExpiryMemo::default();
        let mut check = |text: &str, expect: Option<u64>| {
            assert_eq!(memo.parse_s(text), expect, "{text:?}");
            assert_eq!(memo.parse_s(text), expect, "{text:?} again");
        };
        check("", Some(0));
        check("2028-01-01", Some(1_830_383_999));
        check(" 2028-01-01 ", Some(1_830_383_999));
        check("2028-02-29", Some(1_835_481_599));
        check("2027-02-29", None);
        check("2028-06-30T23:59:59Z", Some(1_846_022_399));
        check("2028-06-30T23:59:59+08:00", Some(1_845_993_599));
        check("2028-06-30T23:59:59.999Z", Some(1_846_022_399));
        check("2028-06-30 23:59:59Z", Some(1_846_022_399));
        check("1969-12-31", Some(1));
        check("1969-01-01T00:00:00Z", Some(1));
        check("9999-12-31", Some(253_402_300_799));
        check("9999-12-31T23:59:59Z", Some(253_402_300_799));
        for text in [
            "31/31/2028",
            "2028/01/01",
            "20280101",
            "2028-13-01",
            "2028-1-1",
            "2028-06-30T23:59:59",
            "20280630T235959Z",
            "never",
            "1830383999",
            "二〇二八年",
            "2028-01-0一",
        ] {
            check(text, None);
        }
        check(&"9".repeat(100_000), None);
    }
}
