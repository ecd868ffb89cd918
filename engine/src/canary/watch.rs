//! What a core keeps of the orders that are measured: when each came, until its answer may leave.
//!
//! Orders of neither group are not kept, and cost a hash of their id while a table is on trial; without one, a branch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use croupier_protocol::Refusal;

use crate::order::{Outcome, Verdict};
use crate::route::{Fate, Trial};

/// Orders of a core that are measured at a time.
const UNDER_WAY_MAX: usize = 4096;

/// One core's.
pub struct Watch {
    core: usize,
    trial: Option<Arc<Trial>>,
    /// When orders came, by id.
    under_way: HashMap<u128, Instant>,
}

impl Watch {
    /// That of a core, by index.
    pub fn new(core: usize) -> Watch {
        Watch {
            core,
            trial: None,
            under_way: HashMap::new(),
        }
    }

    /// Looks at another trial from now on, or at none; orders of the one before are forgotten.
    #[inline]
    pub fn follow(&mut self, trial: Option<&Arc<Trial>>) {
        let is_same = match (trial, &self.trial) {
            (None, None) => true,
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            _ => false,
        };
        if !is_same {
            self.begin(trial.cloned());
        }
    }

    #[cold]
    fn begin(&mut self, trial: Option<Arc<Trial>>) {
        self.under_way = match trial {
            // Room for all of them and for those that are gone: it never grows.
            Some(_) => HashMap::with_capacity(2 * UNDER_WAY_MAX),
            None => HashMap::new(),
        };
        self.trial = trial;
    }

    /// An order has come that asks for cards.
    #[inline]
    pub fn came(&mut self, id: u128, now: impl FnOnce() -> Instant) {
        if let Some(trial) = &self.trial
            && trial.group_of(id).is_some()
            && self.under_way.len() < UNDER_WAY_MAX
        {
            self.under_way.entry(id).or_insert_with(now);
        }
    }

    /// An answer may leave.
    #[inline]
    pub fn answered(&mut self, outcome: &Outcome, now: impl FnOnce() -> Instant) {
        let Some(trial) = &self.trial else { return };
        let Some(group) = trial.group_of(outcome.id) else {
            return;
        };
        let Some(came) = self.under_way.remove(&outcome.id) else {
            return;
        };
        let fate = match outcome.verdict {
            Verdict::Issued {
                settled,
                repeat: false,
            } => Some(settled.quantity),
            Verdict::Held {
                quantity,
                repeat: false,
                ..
            } => Some(quantity),
            Verdict::Refused { refusal, .. } if is_failure(refusal) => None,
            // What it asked for was there before, is not there yet, or is nothing that a table has to do with.
            _ => return,
        };
        let fate = fate.map_or(Fate::Failed, |cards| {
            let ns = now().saturating_duration_since(came).as_nanos() as u64;
            Fate::Served {
                ns: ns / u64::from(cards.max(1)),
            }
        });
        trial.saw(self.core, outcome.id, group, fate);
    }
}

/// Whether a route table may be to blame for a refusal.
fn is_failure(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::OutOfStock | Refusal::NoRoute | Refusal::Busy | Refusal::DeadlineExceeded
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::order::Ticket;
    use crate::route::{DEFAULT_ROUTES, Group, RouteTable, Sighting};

    fn trial() -> Arc<Trial> {
        let table = RouteTable::parse(1, DEFAULT_ROUTES).unwrap();
        Arc::new(Trial::new(Arc::new(table), 50, 0, 2))
    }

    fn told(id: u128, verdict: Verdict) -> Outcome {
        Outcome {
            ticket: Ticket::single(0, 0),
            id,
            sku: 1,
            verdict,
        }
    }

    fn seen(trial: &Trial) -> Vec<Sighting> {
        let mut all = Vec::new();
        trial.gather(|seen| all.push(seen));
        all
    }

    #[test]
    fn an_order_is_measured_from_when_it_came_to_its_first_answer() {
        let (trial, begun) = (trial(), Instant::now());
        let mut watch = Watch::new(1);
        let held = |id, repeat| {
            let hold = croupier_protocol::Hold {
                ends_unix_ms: 0,
                extensions: 0,
            };
            told(
                id,
                Verdict::Held {
                    lsn: 1,
                    quantity: 4,
                    hold,
                    repeat,
                },
            )
        };
        let at = |ms| move || begun + Duration::from_millis(ms);
        watch.came(7, at(0));
        watch.answered(&held(7, false), at(4));
        assert_eq!(seen(&trial), [], "no trial is followed");
        watch.follow(Some(&trial));
        watch.came(7, at(10));
        watch.came(7, at(11));
        watch.answered(&held(7, false), at(18));
        watch.answered(&held(7, false), at(30));
        watch.came(8, at(20));
        watch.answered(&held(8, true), at(21));
        for refusal in [Refusal::OutOfStock, Refusal::UnknownSku] {
            watch.came(9, at(20));
            watch.answered(&told(9, Verdict::refused(refusal, 0)), at(21));
        }
        let all: Vec<_> = seen(&trial).into_iter().map(|seen| seen.fate).collect();
        assert_eq!(all, [Fate::Served { ns: 2_000_000 }, Fate::Failed]);
        watch.came(10, at(30));
        watch.follow(None);
        watch.follow(Some(&trial));
        watch.answered(&held(10, false), at(31));
        assert_eq!(seen(&trial), [], "it came before");
    }

    #[test]
    fn groups_are_of_a_size_and_only_grow() {
        let table = Arc::new(RouteTable::parse(1, DEFAULT_ROUTES).unwrap());
        let share = |share| Trial::new(table.clone(), share, 0, 1);
        let (small, large) = (share(5), share(50));
        let mut counts = [0, 0];
        for id in (0..100_000).map(|id: u128| id << 64 | id) {
            match small.group_of(id) {
                Some(Group::Canary) => counts[0] += 1,
                Some(Group::Baseline) => counts[1] += 1,
                None => {}
            }
            let then = large.group_of(id);
            assert!(small.group_of(id).is_none_or(|group| then == Some(group)));
            assert!(then.is_some());
        }
        for count in counts {
            assert!((4_600..5_400).contains(&count), "{counts:?}");
        }
    }
}
