//! Callers who pick their cards: by place, because stand-ins for slabs have no labels.

use std::time::Duration;

use croupier_client::{
    CardRef, HeldOrder, IssuedOrder, Order, OrderId, OrderOutcome, OrderStep, SkuId, Step,
};
use croupier_engine::state::State;
use croupier_protocol::{CardPlace, Holder, Pick, Refusal, Trailing};

use super::World;
use crate::plan::Feature;

/// Picks that may be asked for again.
const KEPT_MAX: usize = 16;

impl World {
    /// Somebody picks a card: it is issued, or bound to a hold that others then go on with.
    pub(super) fn pick(&mut self) -> bool {
        let Some(node) = &self.node else { return false };
        if !self.plan.has(Feature::Picks) || node.engine.log.failure().is_some() {
            return false;
        }
        let engine = node.engine.clone();
        let known = self.dice.choice(&self.picks).copied();
        let again = known.filter(|_| self.dice.u32(0..3) == 0);
        let Some((step, card)) = again.or_else(|| self.new_pick()) else {
            return false;
        };
        let id = step.order.order_id;
        let pick = Pick {
            order: id.to_bytes(),
            sku: step.order.sku.0,
            quantity: 1,
            ttl_ms: (step.step == Step::Reserve).then_some(step.ttl.as_millis() as u32),
            card: Some(CardPlace {
                slab: card.slab,
                slot: card.slot,
                generation: card.generation,
            }),
            label: None,
            holder: Trailing(step.order.holder.map(Holder::to_bytes)),
        };
        self.tally.picks += 1;
        let ask = self.oracle.ask_step(step);
        let done = engine.pick(&pick);
        self.note(|| format!("{card} is picked by {step:?}: {done:?}"));
        // These images are older than what the oracle is about to hear.
        self.crash_copies();
        let outcome = match done {
            // After a failure of the log nobody knows; a repeat or the restart tells.
            Err(refused) if refused.refusal == Refusal::StoreFailed => {
                self.oracle.lost(&ask);
                self.accounts.pick_in_doubt(&step, self.now_ms());
                return true;
            }
            Err(refused) => OrderOutcome::Refused {
                order_id: id,
                refusal: refused.refusal,
                retry_after_ms: 0,
            },
            Ok(outcome) => {
                let node = self.node.as_ref().expect("it has just answered");
                node.translate(&outcome)
            }
        };
        self.oracle.book(&ask, &outcome);
        let (open_max, now_ms) = (self.plan.holder_holds_max.into(), self.now_ms());
        let state = &engine.state;
        match &outcome {
            OrderOutcome::Refused {
                refusal: refusal @ (Refusal::HolderCardsReached | Refusal::HolderHoldsReached),
                ..
            } => self
                .accounts
                .pick_refused(state, open_max, now_ms, &step, *refusal),
            OrderOutcome::Issued(IssuedOrder {
                lsn, repeat: false, ..
            })
            | OrderOutcome::Held(HeldOrder {
                lsn, repeat: false, ..
            }) => self
                .accounts
                .picked(state, open_max, (&step, lsn.0), now_ms),
            _ => {}
        }
        match outcome {
            OrderOutcome::Issued(issued) => {
                let cards: Vec<_> = issued.cards.iter().map(|card| card.card).collect();
                assert_eq!(cards.len(), 1);
                check_pick(&engine.state, card, cards[0]);
            }
            OrderOutcome::Held(held) => {
                let index = &engine.state.index;
                let settled = index.get(index.hash(id.as_u128()));
                let hold = settled.and_then(|settled| index.hold(settled));
                let bound = hold.and_then(|hold| hold.card);
                let (slab, slot) = bound.expect("it has just been bound");
                let bound = CardRef {
                    slab,
                    slot,
                    generation: 0,
                };
                check_pick(&engine.state, card, bound);
                self.oracle.bound(id, bound);
                if !held.repeat {
                    self.callers.go_on_with(step);
                }
            }
            _ => {}
        }
        true
    }

    fn new_pick(&mut self) -> Option<(OrderStep, CardRef)> {
        let node = self.node.as_ref()?;
        let catalog = node.engine.state.catalog.load_full();
        let slabs: Vec<_> = catalog.slabs.iter().flatten().collect();
        let facts = self.dice.choice(&slabs)?.facts;
        let card = CardRef {
            slab: facts.slab,
            slot: self.dice.u32(0..facts.cards),
            generation: 0,
        };
        let id = OrderId::from_u128(self.dice.u128(1..));
        let order = self.callers.of_holder(Order::new(id, SkuId(facts.sku)));
        let holds = self.plan.has(Feature::Holds) && self.dice.u32(0..3) > 0;
        let step = if holds {
            let ttl_ms = match self.dice.u32(0..3) {
                0 => 3_600_000,
                _ => self.dice.u64(1..300),
            };
            OrderStep::reserve(order, Duration::from_millis(ttl_ms))
        } else {
            OrderStep::issue(order)
        };
        if self.picks.len() == KEPT_MAX {
            self.picks.remove(0);
        }
        self.picks.push((step, card));
        Some((step, card))
    }
}

/// Who picks a card gets it, or another use of it if that one is taken.
fn check_pick(state: &State, picked: CardRef, got: CardRef) {
    let catalog = state.catalog.load();
    let id = |card: CardRef| catalog.slab(card.slab).map(|slab| slab.card_id(card.slot));
    assert_eq!(id(picked), id(got), "{picked} is picked, and {got} is got");
}
