//! What holders have, counted along from the records: an account of its own beside the engine's.
//!
//! After every turn the new records are looked at. Nobody may have been dealt more than the caps allow, and nobody may have been
//! refused who had less: turns do not overlap here, so both can be told exactly. Which orders are open is asked of the index,
//! which others judge.

use std::collections::HashMap;

use croupier_client::{OrderStep, Step};
use croupier_engine::state::State;
use croupier_engine::state::record::{Fact, Way, records};
use croupier_protocol::Refusal;

use crate::callers::may_wait;

/// What a turn has come to.
pub struct Turn {
    pub now_ms: u64,
    /// LSN of its first record, and all of them.
    pub lsn: u64,
    pub words: Vec<u64>,
    /// What it has refused for a holder's sake.
    pub refused: Vec<(OrderStep, Refusal)>,
}

/// An order of a holder.
struct Begun {
    id: u128,
    sku: u32,
}

/// Cards of a holder.
struct Dealt {
    id: u128,
    /// 0: not known.
    lsn: u64,
    sku: u32,
    unix_ms: u64,
    cards: u64,
}

#[derive(Default)]
struct Account {
    begun: Vec<Begun>,
    dealt: Vec<Dealt>,
}

/// What a turn has freed.
#[derive(Default)]
struct Freed {
    cards: HashMap<(u128, u32), u64>,
    open: HashMap<u128, u64>,
}

/// All holders.
#[derive(Default)]
pub struct Accounts {
    by_holder: HashMap<u128, Account>,
    /// Orders that were refused for a holder's sake.
    pub refused: u64,
}

impl Accounts {
    fn account(&mut self, holder: u128) -> &mut Account {
        self.by_holder.entry(holder).or_default()
    }

    /// Cards of a SKU that count now.
    fn cards(&self, state: &State, holder: u128, sku: u32, window_ms: u64, now_ms: u64) -> u64 {
        let Some(account) = self.by_holder.get(&holder) else {
            return 0;
        };
        let dealt = account.dealt.iter();
        let dealt = dealt.filter(|dealt| dealt.sku == sku && dealt.unix_ms + window_ms > now_ms);
        let dealt: u64 = dealt.map(|dealt| dealt.cards).sum();
        let held = account.begun.iter().filter(|begun| begun.sku == sku);
        dealt + held.map(|begun| held_of(state, begun.id)).sum::<u64>()
    }

    fn open(&self, state: &State, holder: u128) -> u64 {
        let begun = self.by_holder.get(&holder).map(|account| &account.begun);
        let open = begun.into_iter().flatten();
        open.filter(|begun| held_of(state, begun.id) > 0).count() as u64
    }

    /// After a start: what is not known any more has never been.
    pub fn restart(&mut self, state: &State) {
        let index = &state.index;
        for account in self.by_holder.values_mut() {
            let known = |id| index.get(index.hash(id));
            account.begun.retain(|begun| known(begun.id).is_some());
            account.dealt.retain_mut(|dealt| {
                let order = known(dealt.id).filter(|order| order.state.has_cards());
                if dealt.lsn == 0 {
                    dealt.lsn = order.map_or(0, |order| order.lsn);
                }
                order.is_some_and(|order| order.lsn == dealt.lsn)
            });
        }
    }

    /// After a turn.
    ///
    /// # Panics
    /// If a holder has more than it may, or was refused what it may have.
    pub fn turn(&mut self, state: &State, open_max: u64, turn: &Turn) {
        let bytes: Vec<u8> = turn
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let (mut freed, mut new) = (Freed::default(), Vec::new());
        for placed in records(&bytes, turn.lsn) {
            let placed = placed.expect("a dealer's own record");
            self.record(
                placed.lsn,
                &placed.record.fact,
                turn.now_ms,
                &mut freed,
                &mut new,
            );
        }
        for (holder, sku, opens) in new {
            self.check(state, open_max, (holder, sku, opens), turn.now_ms);
        }
        for (step, refusal) in &turn.refused {
            self.check_refused(state, open_max, turn.now_ms, &freed, step, *refusal);
        }
    }

    fn record(
        &mut self,
        lsn: u64,
        fact: &Fact<'_>,
        unix_ms: u64,
        freed: &mut Freed,
        new: &mut Vec<(u128, u32, bool)>,
    ) {
        match fact {
            Fact::Issued(issued) if issued.holder != 0 => {
                let (id, holder, sku) = (issued.order_id, issued.holder, issued.sku);
                let account = self.account(holder);
                account.dealt.push(Dealt {
                    id,
                    lsn,
                    sku,
                    unix_ms,
                    cards: issued.quantity.into(),
                });
                match issued.way {
                    Way::Issue | Way::Part => {
                        account.begun.push(Begun { id, sku });
                        new.push((holder, sku, false));
                    }
                    Way::LateCommit => new.push((holder, sku, false)),
                    Way::Commit | Way::Filled => {
                        *freed.cards.entry((holder, sku)).or_default() += u64::from(issued.fewer);
                        *freed.open.entry(holder).or_default() += 1;
                    }
                }
            }
            Fact::Reserved(reserved) if reserved.holder != 0 => {
                let (id, sku) = (reserved.order_id, reserved.sku);
                self.account(reserved.holder).begun.push(Begun { id, sku });
                new.push((reserved.holder, sku, true));
            }
            Fact::Backordered(waits) if waits.holder != 0 => {
                let (id, sku) = (waits.order_id, waits.sku);
                self.account(waits.holder).begun.push(Begun { id, sku });
                new.push((waits.holder, sku, true));
            }
            Fact::Released(released) if released.holder != 0 => {
                let whose = (released.holder, released.sku);
                *freed.cards.entry(whose).or_default() += u64::from(released.quantity);
                *freed.open.entry(released.holder).or_default() += 1;
            }
            _ => {}
        }
    }

    /// A card has been picked: issued by a record, or held.
    ///
    /// # Panics
    /// As [`Accounts::turn`].
    pub fn picked(
        &mut self,
        state: &State,
        open_max: u64,
        (step, lsn): (&OrderStep, u64),
        now_ms: u64,
    ) {
        let Some(holder) = step.order.holder else {
            return;
        };
        let (holder, id, sku) = (
            holder.as_u128(),
            step.order.order_id.as_u128(),
            step.order.sku.0,
        );
        let account = self.account(holder);
        account.begun.push(Begun { id, sku });
        if step.step == Step::Issue {
            account.dealt.push(Dealt {
                id,
                lsn,
                sku,
                unix_ms: now_ms,
                cards: 1,
            });
        }
        let opens = step.step == Step::Reserve;
        self.check(state, open_max, (holder, sku, opens), now_ms);
    }

    /// Whether a card has been picked is not known: the next start tells.
    pub fn pick_in_doubt(&mut self, step: &OrderStep, now_ms: u64) {
        let id = step.order.order_id.as_u128();
        let Some(holder) = step.order.holder.filter(|_| self.find(id).is_none()) else {
            return;
        };
        let sku = step.order.sku.0;
        let account = self.account(holder.as_u128());
        account.begun.push(Begun { id, sku });
        if step.step == Step::Issue {
            account.dealt.push(Dealt {
                id,
                lsn: 0,
                sku,
                unix_ms: now_ms,
                cards: 1,
            });
        }
    }

    /// A pick has been refused for its holder's sake.
    ///
    /// # Panics
    /// If that was wrong.
    pub fn pick_refused(
        &mut self,
        state: &State,
        open_max: u64,
        now_ms: u64,
        step: &OrderStep,
        refusal: Refusal,
    ) {
        self.check_refused(state, open_max, now_ms, &Freed::default(), step, refusal);
    }

    fn check(
        &self,
        state: &State,
        open_max: u64,
        (holder, sku, opens): (u128, u32, bool),
        now_ms: u64,
    ) {
        let catalog = state.catalog.load();
        let cap = catalog.sku(sku).expect("it was ordered").cap();
        let has = self.cards(state, holder, sku, cap.window_ms, now_ms);
        assert!(
            cap.cards_max == 0 || has <= cap.cards_max.into(),
            "holder {holder:x} has {has} cards of SKU {sku}, and may have {cap:?}"
        );
        let open = self.open(state, holder);
        assert!(
            !opens || open_max == 0 || open <= open_max,
            "holder {holder:x} has {open} open orders, and may have {open_max}"
        );
    }

    fn check_refused(
        &mut self,
        state: &State,
        open_max: u64,
        now_ms: u64,
        freed: &Freed,
        step: &OrderStep,
        refusal: Refusal,
    ) {
        self.refused += 1;
        // What others of its chain had taken is not known here.
        if step.linked {
            return;
        }
        let (holder, sku, quantity) = match step.step {
            Step::Commit => {
                let id = step.order.order_id.as_u128();
                let (holder, begun) = self.find(id).expect("its order has a holder");
                let index = &state.index;
                let all = index.get(index.hash(id)).map_or(0, |order| order.quantity);
                let quantity = match step.order.quantity {
                    0 => all,
                    some => some,
                };
                (holder, begun.sku, quantity)
            }
            _ => {
                let holder = step.order.holder.expect("it is refused for its sake");
                (holder.as_u128(), step.order.sku.0, step.order.quantity)
            }
        };
        match refusal {
            Refusal::HolderHoldsReached => {
                let opens = step.step == Step::Reserve || may_wait(step);
                let more = freed.open.get(&holder).copied().unwrap_or(0);
                let open = self.open(state, holder) + more;
                assert!(
                    opens && open_max > 0 && open >= open_max,
                    "{step:?} is refused: holder {holder:x} has {open} open orders of {open_max}"
                );
            }
            _ => {
                let catalog = state.catalog.load();
                let cap = catalog.sku(sku).expect("it was ordered").cap();
                let more = freed.cards.get(&(holder, sku)).copied().unwrap_or(0);
                let has = self.cards(state, holder, sku, cap.window_ms, now_ms) + more;
                let least = if step.partial { 1 } else { quantity.into() };
                assert!(
                    cap.cards_max > 0 && has + least > cap.cards_max.into(),
                    "{step:?} is refused: holder {holder:x} has {has} cards, and may have {cap:?}"
                );
            }
        }
    }

    fn find(&self, id: u128) -> Option<(u128, &Begun)> {
        let mut accounts = self.by_holder.iter();
        accounts.find_map(|(&holder, account)| {
            let begun = account.begun.iter().find(|begun| begun.id == id)?;
            Some((holder, begun))
        })
    }
}

/// Cards that an order holds or waits for.
fn held_of(state: &State, id: u128) -> u64 {
    let order = state.index.get(state.index.hash(id));
    let open = order.filter(|order| order.state.has_hold());
    open.map_or(0, |order| order.quantity.into())
}
