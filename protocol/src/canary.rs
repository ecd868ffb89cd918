//! The words of canaries: docs/canary.md.

use crate::numbered::numbered;

numbered! {
    /// What became of a canary.
    CanaryDeed: u16, "deed of a canary" {
        Started = 1, "started", "a route table is a canary";
        Promoted = 2, "promoted", "its share has grown";
        Paused = 3, "paused", "its share stays until somebody decides";
        Resumed = 4, "resumed", "its step begins again";
        InForce = 5, "in-force", "its table is in force for all orders";
        RolledBack = 6, "rolled-back", "it was worse, and is over";
        Aborted = 7, "aborted", "somebody has ended it";
    }
}

numbered! {
    /// Why that became of a canary.
    CanaryReason: u16, "reason of a canary's verdict" {
        Operator = 1, "operator", "somebody said so";
        NoWorse = 2, "no-worse", "it is no worse than the baseline";
        Failures = 3, "failures", "more of its orders were refused";
        FewerAnswers = 4, "fewer-answers", "fewer of its orders were answered";
        Slower = 5, "slower", "its latencies are larger";
        SlowTail = 6, "slow-tail", "its P99 is larger than it may be";
        TooFewOrders = 7, "too-few-orders", "its time was up before there were enough orders";
        Inconclusive = 8, "inconclusive", "the largest sample does not tell";
    }
}

impl CanaryDeed {
    /// Whether the canary is over.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::InForce | Self::RolledBack | Self::Aborted)
    }
}
