//! What is ordered: order ids, SKUs, quantities and the mix, all computed from a sequence number.
//!
//! Nothing is kept per order. Whoever knows an order's sequence number knows its id and its SKU, so the driver keeps
//! one number for a whole frame and the oracle recomputes what must come back.

use croupier_protocol::{Holder, OrderId, SkuId};

/// Shares of operations, by frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Weight of Issue.
    pub issue: u32,
    /// Weight of LookUp (of orders that this run issued before).
    pub lookup: u32,
}

impl Mix {
    /// Only Issue.
    pub const ISSUE_ONLY: Self = Self {
        issue: 1,
        lookup: 0,
    };

    /// Reads `issue=90,lookup=10`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut mix = Self {
            issue: 0,
            lookup: 0,
        };
        for part in text.split(',') {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("write {part:?} as name=weight, as issue=90"))?;
            let weight: u32 = weight
                .trim()
                .parse()
                .ok()
                .filter(|&weight| weight <= 1_000_000)
                .ok_or_else(|| format!("the weight of {name} is a whole number up to 1000000"))?;
            match name.trim() {
                "issue" => mix.issue = weight,
                "lookup" => mix.lookup = weight,
                step @ ("reserve" | "commit") => {
                    return Err(format!(
                        "{step} is not for a mix, which is made of issue and lookup: say --two-phase for a reserve and a commit of every order"
                    ));
                }
                other => {
                    return Err(format!(
                        "unknown operation {other:?}: known are issue and lookup"
                    ));
                }
            }
        }
        if mix.issue == 0 {
            return Err(
                "a mix needs some issue: lookups ask for orders that the run issued".into(),
            );
        }
        Ok(mix)
    }

    /// The share of frames that issue, from 0 to 1.
    pub fn issue_share(&self) -> f64 {
        f64::from(self.issue) / f64::from(self.issue + self.lookup)
    }

    /// True if a frame with this random number is a lookup.
    #[inline]
    pub fn is_lookup(&self, random: u64) -> bool {
        self.lookup != 0 && random_below(random, self.issue + self.lookup) >= self.issue
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "issue={},lookup={}", self.issue, self.lookup)
    }
}

/// Orders that are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// How long their holds last at least, in milliseconds.
    pub ttl_ms_min: u32,
    /// And at most.
    pub ttl_ms_max: u32,
    /// Whether a commit follows each answer; else the holds are left to themselves.
    pub commit: bool,
}

/// Scrambles 64 bits so that every input has an output of its own: the finaliser of SplitMix64 (Steele, Lea, Flood:
/// Fast splittable pseudorandom number generators, 2014).
#[inline]
pub const fn mix64(input: u64) -> u64 {
    let mut bits = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Maps a random number evenly to `0..limit`.
#[inline]
pub const fn random_below(random: u64, limit: u32) -> u32 {
    (((random & 0xffff_ffff) * limit as u64) >> 32) as u32
}

/// The orders of one run.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Scrambles sequence numbers into the first half of order ids: every sequence number has a half of its own.
    id_key_high: u64,
    id_key_low: u64,
    sku_key: u64,
    /// The SKU an order names, by its index in the run; index 0 is the hot one.
    skus: Vec<SkuId>,
    /// A random `u32` below this orders the hot SKU.
    hot_below: u64,
    /// Cards per order.
    pub quantity: u16,
    holder_key: u64,
    /// So many holders; 0: no order names one.
    holders: u32,
    ttl_key: u64,
    /// How long holds last at least, and by how many milliseconds they differ.
    ttl_ms_min: u32,
    ttl_ms_spread: u32,
}

impl Workload {
    /// Orders that depend on `seed` alone in what they ask for, and on `seed` and `run_id` in their ids: the same
    /// seed in another run asks for the same SKUs under new ids.
    ///
    /// # Panics
    /// If `skus` is empty.
    pub fn new(seed: u64, run_id: u128, skus: Vec<SkuId>, hot_share: f64, quantity: u16) -> Self {
        assert!(!skus.is_empty(), "a workload orders at least one SKU");
        Self {
            id_key_high: mix64(seed ^ (run_id >> 64) as u64),
            id_key_low: mix64(mix64(seed) ^ run_id as u64),
            sku_key: mix64(seed ^ 0x5eed),
            skus,
            hot_below: (hot_share * 4_294_967_296.0) as u64,
            quantity,
            holder_key: mix64(seed ^ 0x401d),
            holders: 0,
            ttl_key: mix64(seed ^ 0x771),
            ttl_ms_min: 0,
            ttl_ms_spread: 0,
        }
    }

    /// The same orders, each of one of so many holders; the seed decides. 0: of nobody.
    #[must_use]
    pub fn with_holders(self, holders: u32) -> Self {
        Self { holders, ..self }
    }

    /// For whom an order is.
    #[inline]
    pub fn holder(&self, sequence: u64) -> Holder {
        if self.holders == 0 {
            return Holder::NONE;
        }
        let number = random_below(mix64(sequence ^ self.holder_key), self.holders);
        // A key is never all zeros.
        Holder::from_u128((u128::from(mix64(self.holder_key)) << 64) | (u128::from(number) + 1))
    }

    /// The same orders, reserved for a time within `holding`; the seed decides, order by order.
    #[must_use]
    pub fn with_holding(self, holding: &Holding) -> Self {
        Self {
            ttl_ms_min: holding.ttl_ms_min,
            ttl_ms_spread: holding.ttl_ms_max.saturating_sub(holding.ttl_ms_min),
            ..self
        }
    }

    /// How long the hold of an order lasts, in milliseconds.
    #[inline]
    pub fn ttl_ms(&self, sequence: u64) -> u32 {
        let spread = self.ttl_ms_spread.saturating_add(1);
        self.ttl_ms_min + random_below(mix64(sequence ^ self.ttl_key), spread)
    }

    /// The order id of a sequence number; no two share one.
    #[inline]
    pub fn order_id(&self, sequence: u64) -> OrderId {
        let high = mix64(sequence ^ self.id_key_high);
        let low = mix64(high ^ self.id_key_low);
        OrderId::from_u128((high as u128) << 64 | low as u128)
    }

    /// The index of the SKU that a sequence number orders.
    #[inline]
    pub fn sku_index(&self, sequence: u64) -> usize {
        let count = self.skus.len() as u32;
        if count == 1 {
            return 0;
        }
        let random = mix64(sequence ^ self.sku_key);
        if self.hot_below == 0 {
            return random_below(random, count) as usize;
        }
        if (random >> 32) < self.hot_below {
            0
        } else {
            1 + random_below(random, count - 1) as usize
        }
    }

    /// The numeric id of the SKU at an index.
    #[inline]
    pub fn sku_id(&self, index: usize) -> SkuId {
        self.skus[index]
    }

    /// The share of orders that name the SKU at an index.
    pub fn sku_share(skus: usize, hot_share: f64, index: usize) -> f64 {
        match (skus, index) {
            (1, _) => 1.0,
            (_, _) if hot_share == 0.0 => 1.0 / skus as f64,
            (_, 0) => hot_share,
            _ => (1.0 - hot_share) / (skus - 1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn workload(seed: u64, run_id: u128, skus: u32, hot_share: f64) -> Workload {
        Workload::new(seed, run_id, (1..=skus).map(SkuId).collect(), hot_share, 1)
    }

    #[test]
    fn ids_are_unique_in_a_run_and_between_runs() {
        let mut seen = HashSet::new();
        for (seed, run_id) in [(1, 1), (1, 2), (2, 1)] {
            let workload = workload(seed, run_id, 1, 0.0);
            for sequence in (0..10_000).chain((1 << 48)..(1 << 48) + 1000) {
                assert!(
                    seen.insert(workload.order_id(sequence)),
                    "seed {seed} run {run_id} sequence {sequence}"
                );
            }
        }
    }

    #[test]
    fn the_seed_alone_decides_what_is_ordered() {
        let (one, other) = (workload(7, 1, 100, 0.3), workload(7, 2, 100, 0.3));
        assert!((0..1000).all(|sequence| one.sku_index(sequence) == other.sku_index(sequence)));
    }

    #[test]
    fn holders_are_as_many_as_asked_for_and_the_seeds() {
        let of = |seed, run_id, count| workload(seed, run_id, 1, 0.0).with_holders(count);
        let keys = |workload: &Workload| {
            let all = (0..10_000).map(|sequence| workload.holder(sequence).as_u128());
            all.collect::<HashSet<_>>()
        };
        assert_eq!(keys(&of(7, 1, 0)), [0].into());
        let five = keys(&of(7, 1, 5));
        assert_eq!(five.len(), 5);
        assert!(!five.contains(&0));
        assert_eq!(five, keys(&of(7, 2, 5)));
        assert!(five.is_disjoint(&keys(&of(8, 1, 5))));
    }

    #[test]
    fn times_to_live_are_within_bounds_and_the_seeds() {
        let holding = Holding {
            ttl_ms_min: 5_000,
            ttl_ms_max: 5_009,
            commit: false,
        };
        let of = |seed, run_id| workload(seed, run_id, 1, 0.0).with_holding(&holding);
        let (one, same, other) = (of(7, 1), of(7, 2), of(8, 1));
        let mut counts = [0; 10];
        for sequence in 0..10_000 {
            let ttl_ms = one.ttl_ms(sequence);
            assert_eq!(ttl_ms, same.ttl_ms(sequence));
            counts[(ttl_ms - 5_000) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (900..1_100).contains(count)),
            "{counts:?}"
        );
        assert!((0..100).any(|sequence| one.ttl_ms(sequence) != other.ttl_ms(sequence)));
    }

    #[test]
    fn shares_come_out_as_asked() {
        for (skus, hot_share) in [(1, 0.0), (10, 0.0), (10, 0.8), (3, 0.5)] {
            let workload = workload(3, 9, skus, hot_share);
            let mut counts = vec![0u32; skus as usize];
            let orders = 200_000;
            (0..orders).for_each(|sequence| counts[workload.sku_index(sequence)] += 1);
            for (index, &count) in counts.iter().enumerate() {
                let expected = Workload::sku_share(skus as usize, hot_share, index) * orders as f64;
                assert!(
                    (f64::from(count) - expected).abs() < expected * 0.05 + 10.0,
                    "{skus} {hot_share} {index}: {count}"
                );
            }
        }
    }

    #[test]
    fn mixes() {
        assert_eq!(
            Mix::parse("issue=90,lookup=10"),
            Ok(Mix {
                issue: 90,
                lookup: 10
            })
        );
        assert_eq!(Mix::parse("issue=1"), Ok(Mix::ISSUE_ONLY));
        for bad in [
            "",
            "issue",
            "issue=-1",
            "lookup=5",
            "sell=5,issue=1",
            "issue=1,reserve=1",
            "issue=0",
        ] {
            assert!(Mix::parse(bad).is_err(), "{bad:?} was taken for a mix");
        }
        let mix = Mix {
            issue: 3,
            lookup: 1,
        };
        let lookups = (0..100_000u64).filter(|&n| mix.is_lookup(mix64(n))).count();
        assert!((24_000..26_000).contains(&lookups), "{lookups}");
    }
}
