//! Rows that did not become cards: all counted, the first million listed.

use std::collections::BTreeMap;

use croupier_protocol::{REJECTIONS_LISTED_MAX, RejectReason};

#[derive(Default)]
pub(super) struct Rejections {
    pub(super) counts: BTreeMap<RejectReason, u64>,
    listed: Vec<(u64, RejectReason)>,
}

impl Rejections {
    pub(super) fn note(&mut self, line: u64, reason: RejectReason) {
        *self.counts.entry(reason).or_default() += 1;
        if self.listed.len() < REJECTIONS_LISTED_MAX {
            self.listed.push((line, reason));
        }
    }

    /// By line.
    pub(super) fn take_listed(&mut self) -> Vec<(u64, RejectReason)> {
        let mut listed = std::mem::take(&mut self.listed);
        listed.sort_unstable();
        listed
    }
}
