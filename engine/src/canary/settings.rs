//! What an operator says when a canary starts.

use croupier_protocol::CanarySettings;

/// Fewest and most orders of a group from which a table may be promoted.
pub const MINIMUM_SAMPLE: std::ops::RangeInclusive<u32> = 20..=50_000;
/// Largest share: there must be an equal baseline.
pub const SHARE_MAX: u8 = 50;
/// How long a step may take, in milliseconds.
pub const STEP_TIME_MS: std::ops::RangeInclusive<u64> = 1000..=30 * 24 * 3_600_000;
/// A ratio of one, in ten-thousandths.
const ONE: u32 = 10_000;

/// How a canary goes. Shares are in per cent of all orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// That it begins with.
    pub share: u8,
    /// By how much it grows.
    pub step: u8,
    /// The largest before all.
    pub until: u8,
    /// Orders that each group has at least when the share grows.
    pub minimum_sample: u32,
    /// How much slower the canary may be, in ten-thousandths.
    pub ratio: u32,
    /// How long a step may take, in milliseconds.
    pub step_time_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            share: 5,
            step: 5,
            until: SHARE_MAX,
            minimum_sample: 2000,
            ratio: 10_500,
            step_time_ms: 3_600_000,
        }
    }
}

impl Settings {
    /// Those that were asked for; what was not said is as by default. The error says what cannot be.
    pub fn of(asked: &CanarySettings) -> Result<Settings, String> {
        let default = Settings::default();
        let per_cent = |asked: Option<u16>, default: u8| match asked {
            None => Ok(default),
            Some(asked) => u8::try_from(asked).map_err(|_| format!("{asked} % is no share")),
        };
        let share = per_cent(asked.share, default.share)?;
        Settings {
            share,
            step: per_cent(asked.step, default.step)?,
            until: per_cent(asked.until, default.until.max(share))?,
            minimum_sample: asked.minimum_sample.unwrap_or(default.minimum_sample),
            ratio: asked.p99_ratio.unwrap_or(default.ratio),
            step_time_ms: asked.step_time_ms.unwrap_or(default.step_time_ms),
        }
        .checked()
    }

    /// The same, if it can be meant.
    pub fn checked(self) -> Result<Settings, String> {
        let Settings {
            share,
            step,
            until,
            minimum_sample,
            ratio,
            step_time_ms,
        } = self;
        if !(1..=SHARE_MAX).contains(&share) || !(share..=SHARE_MAX).contains(&until) {
            return Err(format!(
                "a share of {share} % that grows to {until} %: it begins with 1 to {SHARE_MAX} %, and grows to {SHARE_MAX} % at most"
            ));
        }
        if !(1..=SHARE_MAX).contains(&step) {
            return Err(format!(
                "steps of {step} %: a share grows by 1 to {SHARE_MAX} % at a time"
            ));
        }
        if !MINIMUM_SAMPLE.contains(&minimum_sample) {
            let (least, most) = (MINIMUM_SAMPLE.start(), MINIMUM_SAMPLE.end());
            return Err(format!(
                "a minimum sample of {minimum_sample} orders: say {least} to {most}"
            ));
        }
        if !(ONE..=10 * ONE).contains(&ratio) {
            let ratio = f64::from(ratio) / f64::from(ONE);
            return Err(format!("a P99 ratio of {ratio}: say 1 to 10"));
        }
        if !STEP_TIME_MS.contains(&step_time_ms) {
            return Err(format!(
                "a step time of {step_time_ms} ms: say 1 s to 30 days"
            ));
        }
        Ok(self)
    }

    /// Words of them in records and checkpoints.
    pub const WORDS: usize = 6;

    /// As words, which have room for the bytes of a text. The share is told elsewhere.
    pub fn words(&self, toml_bytes: u32) -> [u32; Settings::WORDS] {
        [
            u32::from(self.step) | u32::from(self.until) << 8,
            self.minimum_sample,
            self.ratio,
            toml_bytes,
            self.step_time_ms as u32,
            (self.step_time_ms >> 32) as u32,
        ]
    }

    /// From such words, with the bytes of the text. The error says what cannot be.
    pub fn of_words(share: u8, words: [u32; Settings::WORDS]) -> Result<(Settings, u32), String> {
        let [shares, minimum_sample, ratio, toml_bytes, low, high] = words;
        if shares >> 16 != 0 {
            return Err(
                "settings of a canary that this version does not know: use a newer croupier".into(),
            );
        }
        let settings = Settings {
            share,
            step: shares as u8,
            until: (shares >> 8) as u8,
            minimum_sample,
            ratio,
            step_time_ms: u64::from(high) << 32 | u64::from(low),
        };
        Ok((settings.checked()?, toml_bytes))
    }

    /// The limit of latencies as a factor.
    pub fn limit(&self) -> f64 {
        f64::from(self.ratio) / f64::from(ONE)
    }

    /// The share after that one; `None`: all orders.
    pub fn share_after(&self, share: u8) -> Option<u8> {
        (share < self.until).then(|| share.saturating_add(self.step).min(self.until))
    }

    /// In how many steps it comes to all orders.
    pub fn steps(&self) -> u32 {
        1 + u32::from(self.until - self.share).div_ceil(u32::from(self.step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_to_the_last_one() {
        let settings = Settings::default();
        let shares = std::iter::successors(Some(5), |&share| settings.share_after(share));
        let shares: Vec<u8> = shares.collect();
        assert_eq!(shares, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]);
        assert_eq!(settings.steps() as usize, shares.len());
        let some = Settings {
            share: 7,
            step: 20,
            until: 30,
            ..settings
        };
        let shares = std::iter::successors(Some(7), |&share| some.share_after(share));
        assert_eq!(shares.collect::<Vec<u8>>(), [7, 27, 30]);
        assert_eq!(some.steps(), 3);
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        let asked = |change: fn(&mut CanarySettings)| {
            let mut asked = CanarySettings::default();
            change(&mut asked);
            Settings::of(&asked)
        };
        assert_eq!(asked(|_| ()), Ok(Settings::default()));
        let one = asked(|asked| (asked.share, asked.until) = (Some(50), None)).unwrap();
        assert_eq!((one.share, one.until, one.steps()), (50, 50, 1));
        let bad: [fn(&mut CanarySettings); 12] = [
            |asked| asked.share = Some(0),
            |asked| asked.share = Some(51),
            |asked| asked.share = Some(300),
            |asked| asked.until = Some(4),
            |asked| asked.until = Some(51),
            |asked| asked.step = Some(0),
            |asked| asked.minimum_sample = Some(19),
            |asked| asked.minimum_sample = Some(50_001),
            |asked| asked.p99_ratio = Some(9_999),
            |asked| asked.p99_ratio = Some(100_001),
            |asked| asked.step_time_ms = Some(999),
            |asked| asked.step_time_ms = Some(u64::MAX),
        ];
        for bad in bad {
            asked(bad).unwrap_err();
        }
    }
}
