//! What operators do to a running server: SKUs, imports, moves of cards, routes, folds. Each deed says whether it was one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use croupier_client::{CardMove, CardRef, SkuId};
use croupier_engine::engine::{Engine, Refused};
use croupier_engine::error::EngineError;
use croupier_engine::moves::Selection;
use croupier_engine::route::LoadParts;
use croupier_engine::slab::claim;
use croupier_engine::state::State;
use croupier_engine::state::channels::{Change, NO_END, Standing};
use croupier_protocol::{ChannelCause, HolderCap, ImportRow, MaxUses, Refusal};

use super::{SKUS, World};
use crate::imports::{Import, USES_AHEAD, secret_of};
use crate::node::{View, stock};
use crate::plan::Feature;

/// Route tables that are put in force: all lanes and pools the words allow.
pub(super) const ROUTES: [&str; 4] = [
    "[[rule]]\nlane = \"standard\"\n",
    "[[rule]]\npriority = [\"vip\"]\nlane = \"vip\"\npools = [\"vip\", \"main\"]\n[[rule]]\nlane = \"bulk\"\n",
    "[[rule]]\nsku = \"steam*\"\nlane = \"background\"\npools = [\"main\"]\n[[rule]]\nlane = \"vip\"\npools = [\"main\", \"vip\"]\n",
    r#"
        [load]
        smoothing = "0s"
        [[channel]]
        name = "main"
        overflow = { when = "load > 0.5", to = "vip" }
        [[channel]]
        name = "vip"
        [[rule]]
        tag = [1]
        lane = "vip"
        channels = ["vip", "main"]
        [[rule]]
        tag = [2]
        channels = ["main"]
        [[rule]]
        when = "load > 0.7"
        quantity = "2-"
        lane = "background"
        [[rule]]
        holder = "0%-50%"
        channels = [{ main = 3, vip = 1 }]
        [[rule]]
    "#,
];

impl World {
    pub(super) fn engine(&self) -> Option<Arc<Engine>> {
        let node = self.node.as_ref()?;
        node.engine
            .log
            .failure()
            .is_none()
            .then(|| node.engine.clone())
    }

    pub(super) fn fold(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Folds) {
            return false;
        }
        self.tally.folds += 1;
        let folded = engine.fold(false);
        self.note(|| {
            format!(
                "a fold: {:?}",
                folded
                    .as_ref()
                    .map(|folded| folded.as_ref().map(|folded| folded.end))
            )
        });
        if let Err(EngineError::Damage {
            path, what, offset, ..
        }) = folded
        {
            panic!(
                "a fold found damage: {} at {offset}: {what}",
                path.display()
            );
        }
        true
    }

    pub(super) fn make_sku(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        let Some(name) = SKUS.get(self.skus.len()) else {
            return false;
        };
        match engine.sku_create(name) {
            Ok((sku, _)) => {
                self.skus.push((sku, name));
                let cap = self.holder_cap();
                let set = engine.sku_set(name, None, None, cap);
                self.note(|| format!("{name} has a cap for holders: {set:?}"));
            }
            // It may have been made by an attempt whose outcome nobody knows.
            Err(refused) => self.note(|| format!("SKU {name}: {}", refused.text)),
        }
        true
    }

    /// How much holders may get, or nothing new.
    fn holder_cap(&mut self) -> HolderCap {
        if !self.plan.has(Feature::Holders) {
            return HolderCap::default();
        }
        HolderCap {
            cards_max: self.dice.choice([0, 3, 10, 60].as_slice()).copied(),
            window_ms: self
                .dice
                .choice([20, 200, 2_000, 3_600_000].as_slice())
                .copied(),
        }
    }

    /// Another deal order, or another share that may be held.
    pub(super) fn set_sku(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Settings) {
            return false;
        }
        let Some(&(_, name)) = self.dice.choice(&self.skus) else {
            return false;
        };
        let order = self.dice.bool().then(|| self.dice.u16(1..=4));
        let share = self.dice.choice([30, 60, 100].as_slice()).copied();
        let cap = match self.dice.u32(0..4) {
            0 => self.holder_cap(),
            _ => HolderCap::default(),
        };
        let set = engine.sku_set(name, order, share, cap);
        self.note(|| format!("{name} is sold otherwise: {set:?}"));
        true
    }

    /// The load is another one, for the route table to follow.
    pub(super) fn load_changes(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Routes) {
            return false;
        }
        let parts = LoadParts {
            cores: f64::from(self.dice.u32(0..=10)) / 10.0,
            ..LoadParts::default()
        };
        engine.follow_load(self.now_ms(), parts, Duration::from_millis(100));
        self.note(|| format!("the load is {}", parts.cores));
        true
    }

    pub(super) fn load_routes(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Routes) {
            return false;
        }
        if self.dice.u32(0..4) == 0 {
            return self.change_channel(&engine);
        }
        let before = engine.routes_history();
        let expect = self.dice.bool().then_some(before[0].version);
        let (deed, done) = match self.dice.u32(0..3) {
            0 => ("back", engine.routes_rollback(None, expect)),
            1 => {
                let to = self.dice.choice(&before).map(|row| row.version);
                ("back to one", engine.routes_rollback(to, expect))
            }
            _ => {
                let issuers = self.plan.has(Feature::Channels) && self.dice.bool();
                let table = match issuers {
                    true => super::workers::ISSUERS,
                    false => *self.dice.choice(ROUTES.as_slice()).expect("some"),
                };
                ("other routes", engine.routes_load(table, expect))
            }
        };
        self.note(|| format!("{deed}: {done:?}"));
        match done {
            Ok((version, lsn, _)) => {
                let after = engine.routes_history();
                assert_eq!((version, lsn), (after[0].version, after[0].lsn));
                // Canaries have versions, too.
                assert!(version > before[0].version);
                assert_eq!(engine.routes.load().version(), version);
                let kept = before.len().min(after.len() - 1);
                assert!(
                    before[..kept - 1] == after[1..kept],
                    "the history is another"
                );
            }
            Err(refused) => {
                let nothing_before = refused.refusal == Refusal::RoutesVersionUnknown;
                assert!(!nothing_before || deed == "back", "{}", refused.text);
                let ours = [Refusal::RoutesInvalid, Refusal::RoutesChanged];
                assert!(!ours.contains(&refused.refusal), "{}", refused.text);
            }
        }
        true
    }

    /// A channel stands otherwise than before.
    fn change_channel(&mut self, engine: &Engine) -> bool {
        let until_unix_ms = self.now_ms() + self.dice.u64(0..1000);
        let standings = [
            Standing::Healthy,
            Standing::Ejected { until_unix_ms },
            Standing::Ejected {
                until_unix_ms: NO_END,
            },
            Standing::Probing,
        ];
        let channel = self.dice.choice(["a", "b", "c"]).expect("some");
        let change = Change {
            channel: channel.into(),
            standing: *self.dice.choice(&standings).expect("some"),
            cause: *self.dice.choice(&ChannelCause::ALL).expect("some"),
            ejections: self.dice.u16(0..5),
            unix_ms: 0,
        };
        let done = engine.record_channel(&change);
        self.note(|| format!("{change:?}: {done:?}"));
        if done.is_ok() {
            let known = engine.known_channels();
            let now = known.iter().find(|known| known.channel == channel);
            let now = now.expect("it is known");
            let unix_ms = now.unix_ms;
            assert_eq!(*now, Change { unix_ms, ..change });
        }
        true
    }

    /// An operator takes cards out of sale, or puts them back.
    pub(super) fn move_cards(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Moves) {
            return false;
        }
        let Some(selection) = self.selection(&engine) else {
            return false;
        };
        let card_move = *self
            .dice
            .choice(CardMove::ALL.as_slice())
            .expect("there are some");
        let issued = card_move == CardMove::Void && self.dice.bool();
        self.tally.moves += 1;
        self.oracle.move_under_way();
        let done = engine.move_cards(&selection, card_move, issued);
        self.note(|| format!("{card_move:?} of {selection:?}, issued {issued}: {done:?}"));
        // These images are older than what the oracle is about to hear.
        self.crash_copies();
        let state = View(&engine.state);
        match done {
            Ok(done) => self.oracle.move_over(&state, Some(done.moved)),
            // After a failure of the log nobody knows; the restart tells.
            Err(refused) if refused.refusal == Refusal::StoreFailed => {}
            // Of many records the first may be written, if it is the log that refuses.
            Err(refused) => {
                let no_room = matches!(refused.refusal, Refusal::DiskFull | Refusal::Busy);
                let is_half = no_room && !is_all_or_none(&engine.state, &selection);
                self.oracle.move_over(&state, (!is_half).then_some(0));
            }
        }
        true
    }

    /// Cards that expire leave stock.
    pub(super) fn sweep(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        let now_ms = self.now_ms();
        if !engine.is_sweep_due(now_ms) || engine.cannot_record().is_some() {
            return false;
        }
        self.oracle.move_under_way();
        let swept = engine.sweep_expired(now_ms);
        self.note(|| format!("a sweep: {swept:?}"));
        // These images are older than what the oracle is about to hear.
        self.crash_copies();
        match swept {
            Err(refused) if refused.refusal == Refusal::StoreFailed => return true,
            Ok(swept) => {
                self.tally.expired[0] += swept.cards;
                self.tally.expired[1] += swept.holds;
            }
            Err(_) => {}
        }
        self.oracle.move_over(&View(&engine.state), None);
        true
    }

    /// Cards that are dealt without end get more uses.
    pub(super) fn add_uses(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if engine.cannot_record().is_some() {
            return false;
        }
        self.oracle.growth_under_way();
        let before = engine.state.catalog.load().slabs.len();
        let added = engine.add_uses(self.now_ms());
        check_new_views(&engine.state, before);
        self.note(|| format!("more uses: {added:?}"));
        // These images are older than what the oracle is about to hear.
        self.crash_copies();
        match added {
            Err(refused) if refused.refusal == Refusal::StoreFailed => return true,
            Ok(uses) => self.tally.uses += uses,
            Err(_) => {}
        }
        self.oracle.growth_over(&stock(&engine.state));
        added.is_ok_and(|uses| uses > 0)
    }

    fn selection(&mut self, engine: &Engine) -> Option<Selection> {
        let &(sku, name) = self.dice.choice(&self.skus)?;
        let catalog = engine.state.catalog.load();
        let slabs: Vec<_> = catalog
            .slabs
            .iter()
            .flatten()
            .filter(|slab| slab.facts.sku == sku)
            .map(|slab| (slab.facts.slab, slab.facts.cards))
            .collect();
        let labels: Vec<String> = engine
            .state
            .ledger()
            .batches
            .values()
            .filter(|batch| batch.sku == sku)
            .map(|batch| batch.label.clone())
            .collect();
        Some(match self.dice.u32(0..8) {
            0 => Selection::Stock {
                sku: name.into(),
                batch: None,
            },
            1 | 2 => Selection::Stock {
                sku: name.into(),
                batch: Some(self.dice.choice(&labels)?.clone()),
            },
            3 | 4 => {
                let mut orders = self.oracle.acknowledged();
                // A seed does the same again.
                orders.sort_unstable_by_key(|order| order.order_id);
                Selection::Order(self.dice.choice(&orders)?.order_id)
            }
            _ => {
                // So few that their records fit the shortest append.
                let mut cards = Vec::new();
                for _ in 0..self.dice.usize(1..=3) {
                    let &(slab, slots) = self.dice.choice(&slabs)?;
                    cards.push(CardRef {
                        slab,
                        slot: self.dice.u32(0..slots + 1),
                        generation: 0,
                    });
                }
                Selection::Cards(cards)
            }
        })
    }

    /// An import, with others acting between its append and its end.
    pub(super) fn import(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if self.tally.imports > 1 && !self.plan.has(Feature::Imports) {
            return false;
        }
        let Some(&(sku, name)) = self.dice.choice(&self.skus) else {
            return false;
        };
        self.tally.imports += 1;
        let max_uses = match self.dice.u32(0..6) {
            0 if self.plan.has(Feature::Uses) => MaxUses::Unlimited,
            1 | 2 if self.plan.has(Feature::Uses) => MaxUses::Times(self.dice.u32(2..=5)),
            _ => MaxUses::default(),
        };
        let most = match max_uses {
            MaxUses::Times(1) => 200,
            // Few, so that all of their uses are dealt.
            MaxUses::Times(_) => 20,
            MaxUses::Unlimited => 3,
        };
        let cards: Vec<u32> = (0..self.dice.usize(1..=3))
            .map(|_| self.dice.u32(1..most))
            .collect();
        let pool = *self
            .dice
            .choice(["main", "main", "vip"].as_slice())
            .expect("some");
        let import = Import::begin(&engine, sku, pool, &cards, max_uses);
        let (all, secrets) = (import.cards(), import.secrets());
        self.note(|| format!("import of {all} cards into {name}, to be dealt {max_uses} times"));
        let id = SkuId(sku);
        match max_uses {
            MaxUses::Times(1) => self.oracle.import_under_way(name, id, &secrets),
            MaxUses::Times(times) => {
                let uses = all * u64::from(times);
                self.oracle
                    .reusable_under_way(name, id, &secrets, Some(times), uses);
            }
            MaxUses::Unlimited => {
                let uses = all * (1 + u64::from(USES_AHEAD));
                self.oracle
                    .reusable_under_way(name, id, &secrets, None, uses);
            }
        }
        if let Err(error) = import.write(&engine) {
            self.note(|| format!("it fails: {error}"));
            import.undo(&engine);
            self.oracle.import_over(name, false);
            return true;
        }
        let facts = import.facts();
        let begun = engine.begin(&facts);
        self.crash_copies();
        let begun = match begun {
            Ok(begun) => begun,
            Err(refused) => {
                self.note(|| format!("it is refused: {}", refused.text));
                // After a failure of the log nobody knows; the restart tells.
                if refused.refusal != Refusal::StoreFailed {
                    import.undo(&engine);
                    self.oracle.import_over(name, false);
                }
                return true;
            }
        };
        for _ in 0..self.dice.u32(0..30) {
            self.small_step(true);
            self.crash_copies();
        }
        let finished = engine.finish(begun);
        // These images are older than what the oracle is about to hear.
        self.crash_copies();
        match finished {
            Ok(_) => self.oracle.import_over(name, true),
            Err(refused) => {
                self.note(|| format!("its end is not known: {}", refused.text));
                self.die_waiting(&refused);
            }
        }
        true
    }

    /// A deed that waits for a log which cannot go on just now, for want of room on the disk, would wait for longer than this one
    /// thread can: the process ends, and the restart tells what became of it. Whether it was one.
    pub(super) fn die_waiting(&mut self, refused: &Refused) -> bool {
        let waits = refused.refusal == Refusal::StoreFailed
            && refused.text.contains("nobody to wait for")
            && self.engine().is_some();
        if waits {
            self.note(|| "the process is killed, for it would wait for ever".into());
            self.tally.kills += 1;
            self.die();
        }
        waits
    }
}

impl World {
    /// Cards that are delivered: a few, at most as many as become stock by one record.
    pub(super) fn deliver_cards(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Deliveries) || engine.cannot_record().is_some() {
            return false;
        }
        let Some(&(sku, name)) = self.dice.choice(&self.skus) else {
            return false;
        };
        let count = match self.dice.u32(0..4) {
            0 => self.dice.u32(1..60),
            _ => self.dice.u32(1..4),
        };
        let pool = *self
            .dice
            .choice(["main", "main", "vip"].as_slice())
            .expect("some");
        let nth = self.tally.steps;
        let secrets: Vec<String> = (0..count).map(|card| format!("{nth} {card}")).collect();
        let rows = (1..).zip(&secrets);
        let rows: Vec<_> = rows
            .map(|(line, secret)| ImportRow::new(line, secret.as_bytes()))
            .collect();
        let places = places(&engine, sku, count);
        let told = engine.deliver(name, Some(pool), &rows);
        self.note(|| format!("{count} cards of {name} are delivered: {told:?}"));
        self.oracle
            .delivery_under_way(name, SkuId(sku), count.into(), &places);
        // These images are older than what the oracle is about to hear.
        self.crash_copies();
        match told {
            Ok(delivered) => {
                assert_eq!(delivered.accepted, u64::from(count), "all are new");
                self.tally.delivered += delivered.accepted;
                self.oracle.import_over(name, true);
            }
            // Nobody knows; the restart tells.
            Err(refused) if refused.refusal == Refusal::StoreFailed && self.engine().is_none() => {}
            Err(refused) if self.die_waiting(&refused) => {}
            Err(_) => self.oracle.import_over(name, false),
        }
        true
    }
}

/// The secrets of all places where so many cards may come, as the stand-ins know them.
pub(super) fn places(engine: &Engine, sku: u32, count: u32) -> Vec<Vec<u8>> {
    let catalog = engine.state.catalog.load();
    let ours = catalog.slabs.iter().flatten();
    let ours = ours.filter(|slab| slab.facts.sku == sku && slab.grown().is_some());
    let known = ours.map(|slab| (slab.facts.slab, slab.cards()));
    let next = engine.slab_ids.load(Ordering::Relaxed);
    let all = known.chain((next..next + 2).map(|slab| (slab, 0)));
    let slots = all.flat_map(|(slab, from)| (from..from + count).map(move |slot| (slab, slot)));
    slots.map(|(slab, slot)| secret_of(slab, slot)).collect()
}

/// Whether a move of these cards goes as a whole, also where there is no room in the log for all of it.
fn is_all_or_none(state: &State, selection: &Selection) -> bool {
    let catalog = state.catalog.load();
    let is_dealt_once = |card: &CardRef| {
        let slab = catalog.slab(card.slab);
        slab.is_none_or(|slab| !slab.is_reusable())
    };
    match selection {
        Selection::Stock { .. } => false,
        Selection::Cards(cards) => cards.iter().all(is_dealt_once),
        Selection::Order(_) => true,
    }
}

/// No card gets more uses of which an unused one was made void. `from`: the number of the first view that may be new.
fn check_new_views(state: &State, from: usize) {
    let catalog = state.catalog.load();
    let new: Vec<_> = catalog.slabs.iter().skip(from).flatten().collect();
    if new.is_empty() {
        return;
    }
    let (dealt, _) = state.dealt(|_| true);
    for slab in new {
        let card = slab.card_id(0);
        for uses in catalog.slabs_with(card.0) {
            let has_order = |slot| claim::has(&dealt[&uses.facts.slab], slot);
            let mut slots = uses.slots_of(card, 0);
            let void = slots.find(|&slot| uses.void.has(slot) && !has_order(slot));
            let (of, slot) = card;
            assert_eq!(void, None, "card {of}:{slot} is void and gets more uses");
        }
    }
}
