//! Amounts of money: decimal text to ten-thousandths of the currency unit, exactly.

/// Digits after the point that the fixed unit can hold.
const FRACTION_DIGITS: usize = 4;

/// `Some(None)` for blank text (not given), `None` when it is no amount: `-12`, `1.4` and `0.0375` are, `1,40`, `.5`,
/// `1e3` and `0.00001` are not. Digits beyond the fourth are fine while they are zeros, because nothing is rounded.
pub fn parse_e4(text: &str) -> Option<Option<i64>> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Some(None);
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for digit in whole.bytes() {
        value = push_digit(value, digit)?;
    }
    let (kept, beyond) = fraction
        .as_bytes()
        .split_at(fraction.len().min(FRACTION_DIGITS));
    for digit in kept
        .iter()
        .copied()
        .chain(std::iter::repeat_n(b'0', FRACTION_DIGITS - kept.len()))
    {
        value = push_digit(value, digit)?;
    }
    if beyond.iter().any(|digit| *digit != b'0') {
        return None;
    }
    Some(Some(if negative { -value } else { value }))
}

fn push_digit(value: i64, digit: u8) -> Option<i64> {
    let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
    value.checked_mul(10)?.checked_add(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let check = |text: &str, expect: Option<Option<i64>>| {
            assert_eq!(parse_e4(text), expect, "{text:?}")
        };
        check("", Some(None));
        check("  ", Some(None));
        check("0", Some(Some(0)));
        check("1.4", Some(Some(14_000)));
        check("20.00", Some(Some(200_000)));
        check("-0.5", Some(Some(-5_000)));
        check(" 3.0375 ", Some(Some(30_375)));
        check("3.03750", Some(Some(30_375)));
        check("3.03751", None);
        check("922337203685477.5807", Some(Some(i64::MAX)));
        check("-922337203685477.5807", Some(Some(-i64::MAX)));
        check("922337203685477.5808", None);
        for text in [
            ".5", "5.", "-", "--1", "+1", "1,40", "1e3", "¥5", "5元", "1.2.3", "½", "0x1", "1.é23",
            "1.000é",
        ] {
            check(text, None);
        }
    }
}
