//! An issue or a reserve under an id that is known: docs/orders.md has the table.

use croupier_protocol::planted::{self, Bug};
use croupier_protocol::{Hold as Told, Refusal, Step};

use super::holds::{Answer, decided};
use super::{Dealer, outcome};
use crate::order::{FLAG_FIRST, Order, Outcome, Verdict};
use crate::state::index::{OrderState, Settled};

impl Dealer {
    /// The answer to an issue or a reserve under an id that is known: the same again, or a refusal when it was another
    /// order. One that is just changing comes again.
    pub(super) fn tell_known(
        &mut self,
        now: u64,
        cannot_record: Option<Refusal>,
        (lane, order): (u8, &Order),
        settled: Settled,
        out: &mut Vec<Outcome>,
    ) {
        let answer = match self.state.holders.try_of(order.id) {
            None => return self.deferred.push((lane, *order)),
            Some(holder) if holder == order.holder => None,
            Some(_) => Some(decided(Refusal::OrderIdReused, settled)),
        };
        let answer = answer.unwrap_or_else(|| match (settled.state, order.step) {
            (OrderState::Waiting, _) => self.wait_again(order, settled),
            (_, Step::Issue) => self.issue_again(order, settled),
            _ => self.reserve_again(order, settled),
        });
        match answer {
            Answer::Told(verdict @ Verdict::Waiting { .. }) => {
                // As the ask that it repeats: if its route may have it wait, it stays.
                let order = &self.accepted(now, order);
                self.tell_waiting(now, cannot_record, (lane, order), verdict, out);
            }
            Answer::Told(verdict) => out.push(outcome(order, verdict)),
            Answer::Later | Answer::Change => self.deferred.push((lane, *order)),
        }
    }

    fn issue_again(&mut self, order: &Order, settled: Settled) -> Answer {
        if matches!(settled.state, OrderState::Cancelled | OrderState::Expired) {
            return self.ended_again(order, settled);
        }
        let first = self.state.index.cards(settled).next();
        let sku = first.and_then(|(slab, _)| {
            let catalog = self.resolver.catalog();
            catalog.slab(slab).map(|slab| slab.facts.sku)
        });
        let is_issued = matches!(settled.state, OrderState::Issued | OrderState::IssuedPart);
        let asked = self.state.index.asked(settled);
        let same = is_issued && sku == Some(order.sku) && asked == order.quantity;
        let ignored = planted::is(Bug::IgnoreIdReuse) && is_issued;
        if !same && !ignored {
            return decided(Refusal::OrderIdReused, settled);
        }
        Answer::Told(Verdict::Issued {
            settled,
            repeat: order.flags & FLAG_FIRST == 0,
        })
    }

    /// The answer to an issue or a reserve of an order that has ended without cards.
    fn ended_again(&self, order: &Order, settled: Settled) -> Answer {
        let Some(row) = self.state.index.released(settled) else {
            return Answer::Later;
        };
        let was = if row.was_issue {
            Step::Issue
        } else {
            Step::Reserve
        };
        let refusal = match settled.state {
            _ if order.step != was => Refusal::OrderIdReused,
            OrderState::Cancelled => Refusal::AlreadyCancelled,
            _ => Refusal::Expired,
        };
        decided(refusal, settled)
    }

    fn reserve_again(&self, order: &Order, settled: Settled) -> Answer {
        match settled.state {
            OrderState::Issued | OrderState::IssuedPart => decided(Refusal::OrderIdReused, settled),
            OrderState::Committed | OrderState::CommittedPart => {
                decided(Refusal::AlreadyCommitted, settled)
            }
            OrderState::Cancelled | OrderState::Expired => self.ended_again(order, settled),
            OrderState::Waiting => Answer::Later,
            OrderState::Held => {
                let Some(hold) = self.state.index.hold(settled) else {
                    return Answer::Later;
                };
                let asked = (order.sku, order.quantity, order.ttl_ms);
                if asked != (hold.sku, hold.asked(), hold.ttl_ms) {
                    return decided(Refusal::OrderIdReused, settled);
                }
                // As it was told first, whatever extensions have made of it.
                Answer::Told(Verdict::Held {
                    lsn: hold.reserved_lsn,
                    quantity: settled.quantity,
                    hold: Told {
                        ends_unix_ms: hold.first_end_unix_ms(),
                        extensions: 0,
                    },
                    repeat: order.flags & FLAG_FIRST == 0,
                })
            }
        }
    }
}
