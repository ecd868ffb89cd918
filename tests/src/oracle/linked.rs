//! Orders that are linked: all of a chain stand, or none does.

use std::collections::{HashMap, HashSet};

use croupier_client::{OrderId, OrderOutcome, OrderStep};

use super::{Ask, Oracle};

/// The chains that were ever asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Chains {
    chains: Vec<Vec<OrderId>>,
    /// In which of them an order is.
    of: HashMap<OrderId, usize>,
    /// Orders that may stand whatever becomes of their chain: they were asked for alone, too, or in another one.
    alone: HashSet<OrderId>,
}

impl Chains {
    /// An order is asked for without a chain.
    pub(super) fn alone(&mut self, id: OrderId) {
        if self.of.contains_key(&id) {
            self.alone.insert(id);
        }
    }

    /// A chain is asked for, maybe once more; `is_known`: an order has been asked for before.
    fn begin(&mut self, ids: Vec<OrderId>, is_known: impl Fn(OrderId) -> bool) {
        let before = ids.iter().find_map(|id| self.of.get(id));
        if before.is_some_and(|&nth| self.chains[nth] == ids) {
            return;
        }
        let nth = self.chains.len();
        for &id in &ids {
            let other = self.of.insert(id, nth);
            if other.is_some() || is_known(id) {
                self.alone.insert(id);
            }
        }
        self.chains.push(ids);
    }

    /// Holds every chain against what stands.
    ///
    /// # Panics
    /// If a part of one does.
    pub(super) fn judge(&self, stands: impl Fn(OrderId) -> bool) {
        for chain in &self.chains {
            let is_dealt = |id: &&OrderId| !self.alone.contains(*id) && stands(**id);
            let Some(dealt) = chain.iter().find(is_dealt) else {
                continue;
            };
            if let Some(missing) = chain.iter().find(|id| !stands(**id)) {
                panic!("{dealt} stands, and {missing}, which is linked with it, does not");
            }
        }
    }
}

/// Holds the answers to a chain against each other.
///
/// # Panics
/// If one is dealt by it, and another is not dealt.
pub fn judge_chain(outcomes: &[OrderOutcome]) {
    let is_new = |outcome: &OrderOutcome| match outcome {
        OrderOutcome::Issued(issued) => !issued.repeat,
        OrderOutcome::Held(held) => !held.repeat,
        _ => false,
    };
    let refused = |outcome: &&OrderOutcome| matches!(outcome, OrderOutcome::Refused { .. });
    if let (true, Some(refused)) = (outcomes.iter().any(is_new), outcomes.iter().find(refused)) {
        panic!("a part of a chain was dealt, and this was not: {refused:?}");
    }
}

impl Oracle {
    /// Books steps that are about to be sent as one chain, in their order.
    ///
    /// # Panics
    /// As [`Oracle::ask_step`].
    pub fn ask_linked(&self, steps: &[OrderStep]) -> Vec<Ask> {
        let mut books = self.books();
        let books = &mut *books;
        let ids = steps.iter().map(|step| step.order.order_id);
        let (orders, held) = (&books.orders, &books.held);
        let is_known = |id| orders.contains_key(&id) || held.contains_key(&id);
        books.chains.begin(ids.collect(), is_known);
        steps
            .iter()
            .map(|&step| books.leaves(step, false))
            .collect()
    }
}
