//! What a seed decides before anything happens.

use fastrand::Rng;

/// Things that may happen in a run. A shrinker leaves them out one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// More than one core.
    Cores,
    /// Orders that somebody has asked for before, or is just asking for.
    Duplicates,
    /// Orders of several cards.
    Quantities,
    /// Connections that are lost.
    Resets,
    /// Callers that go away without waiting.
    Vanishing,
    /// Power cuts.
    PowerCuts,
    /// Processes that are killed; the disk keeps what it has seen.
    Kills,
    /// Stops in good order.
    Stops,
    /// Changes of the disk that fail with EIO.
    Eio,
    /// A disk that fills up, and changes that fail with ENOSPC.
    Enospc,
    /// Flipped bits, on copies.
    Flips,
    /// A clock that jumps.
    ClockJumps,
    /// Checkpoints.
    Folds,
    /// Imports after the first.
    Imports,
    /// Other route tables.
    Routes,
    /// Operators who take cards out of sale and put them back.
    Moves,
    /// Crashes while a crashed copy starts.
    Recrashes,
    /// Orders in two phases.
    Holds,
    /// Orders that wait for stock.
    Waits,
    /// SKUs that are sold in other ways.
    Settings,
    /// Orders that are linked, all or none.
    Links,
    /// Callers who pick their cards.
    Picks,
    /// Orders that name holders, who have caps.
    Holders,
    /// Cards that are dealt more than once.
    Uses,
    /// Cards that come one by one.
    Deliveries,
    /// Channels outside, and their workers.
    Channels,
}

/// All of them, in the order in which a shrinker tries to do without.
pub const FEATURES: [Feature; 26] = [
    Feature::Settings,
    Feature::Holders,
    Feature::Flips,
    Feature::ClockJumps,
    Feature::Routes,
    Feature::Moves,
    Feature::Links,
    Feature::Picks,
    Feature::Uses,
    Feature::Channels,
    Feature::Deliveries,
    Feature::Waits,
    Feature::Holds,
    Feature::Enospc,
    Feature::Eio,
    Feature::Stops,
    Feature::Vanishing,
    Feature::Quantities,
    Feature::Resets,
    Feature::Duplicates,
    Feature::Cores,
    Feature::Imports,
    Feature::Folds,
    Feature::Kills,
    Feature::PowerCuts,
    Feature::Recrashes,
];

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// Steps of the world after which everybody goes home.
    pub steps_max: u64,
    features: u32,
    /// Cores of the server.
    pub cores: u16,
    /// Callers at once.
    pub callers: usize,
    /// Most units of one append: small, so that turns are cut.
    pub append_units_max: u64,
    /// Bytes of a segment: small, so that the log rolls.
    pub segment_bytes: u64,
    /// Orders a lane takes: small, so that it is full.
    pub lane_orders_max: usize,
    /// Tables of the order index: few, so that they grow.
    pub index_shards: usize,
    /// Blocks are written through, instead of synced.
    pub sync_direct: bool,
    /// Most open holds and waiting orders of a holder; 0: any number.
    pub holder_holds_max: u32,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, steps_max: u64) -> Plan {
        let mut dice = Rng::with_seed(seed ^ 0x5eed);
        let cores = dice.u16(1..=3);
        // One run in two does without some things, so that each is also seen alone.
        let mut features = u32::MAX;
        if dice.bool() {
            features = dice.u32(..) | dice.u32(..);
        }
        // Where there are channels most orders are theirs: everything else is to have runs of its own.
        if dice.u32(0..3) > 0 {
            features &= !(1 << Feature::Channels as u32);
        }
        // The ring is a quarter of a segment and must take an append of every core and of the cold path.
        // At least one order of as many cards as any may have, all of them apart.
        let append_units_max = *dice.choice([11, 16, 24].as_slice()).expect("some");
        let quarter = ((u64::from(cores) + 1) * append_units_max * 64).next_power_of_two();
        let segment_bytes = (quarter * 4).max(16 << 10) << dice.u32(0..2);
        Plan {
            seed,
            // What is asked of channels makes the log longer, and so every recovery of a copy: shorter runs instead.
            steps_max: match features & 1 << Feature::Channels as u32 {
                0 => steps_max,
                _ => steps_max / 2,
            },
            features,
            cores: if features & 1 << Feature::Cores as u32 == 0 {
                1
            } else {
                cores
            },
            callers: dice.usize(1..=5),
            append_units_max,
            segment_bytes,
            lane_orders_max: *dice.choice([2, 8, 64].as_slice()).expect("some"),
            index_shards: *dice.choice([1, 2, 4].as_slice()).expect("some"),
            sync_direct: dice.bool(),
            holder_holds_max: *dice.choice([0, 2, 5].as_slice()).expect("some"),
        }
    }

    /// Whether this may happen.
    pub fn has(&self, feature: Feature) -> bool {
        self.features & 1 << feature as u32 != 0
    }

    /// The same run without something.
    #[must_use]
    pub fn without(&self, feature: Feature) -> Plan {
        let mut plan = self.clone();
        plan.features &= !(1 << feature as u32);
        if feature == Feature::Cores {
            plan.cores = 1;
        }
        plan
    }

    /// A source of chance of its own for each concern, so that leaving one out changes the others as little as possible.
    pub fn dice(&self, concern: u64) -> Rng {
        Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ concern)
    }

    /// For people: what may happen.
    pub fn describe(&self) -> String {
        let names: Vec<_> = FEATURES
            .iter()
            .filter(|feature| self.has(**feature))
            .map(|feature| format!("{feature:?}"))
            .collect();
        format!(
            "{} cores, {} callers, {} units an append, segments of {} KiB, lanes of {}, {} index tables, {}; {}",
            self.cores,
            self.callers,
            self.append_units_max,
            self.segment_bytes >> 10,
            self.lane_orders_max,
            self.index_shards,
            if self.sync_direct {
                "O_DSYNC"
            } else {
                "fdatasync"
            },
            names.join(" ")
        )
    }
}
