//! Who can be spared: which channels sell what is asked of a channel when it is out.

use std::collections::BTreeSet;

use crate::route::{Chain, RouteTable, glob, globs_meet};

/// What a table asks of its outside channels: for each of them, sets of others. Who may leave has a healthy one in each.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// By number of the channel; a set is a bit for each channel of the table, of which there are 256 at most.
    others: Vec<Vec<Set>>,
}

/// Channels by their numbers.
pub(super) type Set = [u64; 4];

/// Adds a channel.
pub(super) fn put(set: &mut Set, channel: usize) {
    set[channel / 64] |= 1 << (channel % 64);
}

impl Spare {
    pub fn of(table: &RouteTable) -> Spare {
        let outside = table.outside();
        let mut others = vec![BTreeSet::new(); outside.len()];
        for Chain { channels, skus } in table.chains() {
            for &channel in &channels {
                for sold in &outside[usize::from(channel)].skus {
                    for asked in skus.iter().filter(|asked| globs_meet(asked, sold)) {
                        // A pattern that matches another's text matches all that the other does.
                        let sells_it = |by: &String| glob(by, asked) || glob(by, sold);
                        let mut set = Set::default();
                        channels
                            .iter()
                            .map(|&other| usize::from(other))
                            .filter(|&other| other != usize::from(channel))
                            .filter(|&other| outside[other].skus.iter().any(sells_it))
                            .for_each(|other| put(&mut set, other));
                        others[usize::from(channel)].insert(set);
                    }
                }
            }
        }
        Spare {
            others: others
                .into_iter()
                .map(|sets| sets.into_iter().collect())
                .collect(),
        }
    }

    /// Whether a channel can be out when just those are healthy, of which it may be one.
    pub fn can_spare(&self, channel: usize, healthy: &Set) -> bool {
        let has_one = |set: &Set| set.iter().zip(healthy).any(|(one, other)| one & other != 0);
        self.others[channel].iter().all(has_one)
    }
}
