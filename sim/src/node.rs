//! One running server: the real engine, its log driven in steps, and cores whose turns are taken by the world.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use croupier_client::{
    Card, CardRef, HeldOrder, Hold, IssuedOrder, Lsn, OrderId, OrderOutcome, OrderStep, Priority,
    Refusal, SkuId, Step, StockRow,
};
use croupier_engine::card::CardStatus;
use croupier_engine::config::{Config, Sync};
use croupier_engine::dealer::{Append, Dealer, OrderLimits, holds};
use croupier_engine::disk::memory::MemoryDisk;
use croupier_engine::engine::{Engine, Ground};
use croupier_engine::error::EngineError;
use croupier_engine::linked::{Asked, chain_of};
use croupier_engine::order::{Order, Outcome, Ticket, Verdict};
use croupier_engine::route::{self, Router};
use croupier_engine::slab::{KeyFile, Vault};
use croupier_engine::state::State;
use croupier_engine::state::index::{OrderState, Settled, Spread};
use croupier_engine::state::record::{HOLD_POOLS_MAX, Release};
use croupier_engine::store::Store;
use croupier_engine::turns::{Pick, Queues, Turns};
use croupier_engine::wal::Log;
use croupier_engine::wal::log::Drive;
use croupier_engine::wal::segments::make_segment;
use croupier_tests::{OutOfSale, Standing, StateView};

use crate::holders::Turn;
use crate::imports::{StandIns, USES_AHEAD, USES_AHEAD_MAX, secret_of};
use crate::network::Link;
use crate::plan::Plan;

/// Most cards of an order.
pub const QUANTITY_MAX: u16 = 40;
/// Most cards of a slab that grows: few, so that they are filled.
const GROWING_CARDS_MAX: u32 = 70;
const STORE_ID: [u8; 16] = *b"a simulated shop";

/// Where the store lies on the simulated disk.
pub fn root() -> PathBuf {
    "/store".into()
}

/// Makes a new store on an empty disk.
pub fn init(disk: &MemoryDisk, plan: &Plan) {
    let wal = root().join("wal");
    make_segment(&disk.disk(), &wal, STORE_ID, 1, plan.segment_bytes)
        .expect("an empty disk takes it");
}

/// The store on a disk.
pub fn store_on(disk: &MemoryDisk) -> Store {
    let vault = Arc::new(Vault::that_repeats(&KeyFile::unsaved(STORE_ID)));
    Store::on(disk.disk(), &root(), vault)
}

/// Where its slabs come from.
pub fn slabs_on(disk: &MemoryDisk) -> Box<StandIns> {
    Box::new(StandIns {
        disk: disk.disk(),
        dir: root().join("slabs"),
    })
}

/// How its index spreads ids.
pub fn spread(plan: &Plan) -> Spread {
    Spread {
        seed: [plan.seed | 1, !plan.seed | 1],
        shards: plan.index_shards,
    }
}

/// What a core is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Picked,
    Dealt,
}

struct Core {
    turns: Turns,
    dealer: Dealer,
    phase: Phase,
}

/// One running server.
pub struct Node {
    pub engine: Arc<Engine>,
    queues: Vec<Arc<Queues>>,
    cores: Vec<Core>,
    /// From which LSN on, and when, each turn's records are: turns do not overlap here.
    dealt: BTreeMap<u64, u64>,
    /// Orders that name holders, and commits, by call, try and place.
    asked: HashMap<(u64, u32, u16), OrderStep>,
    /// What the last turn has come to, until somebody has looked.
    turn: Option<Turn>,
}

/// The log, and what has been appended to it.
struct Spy<'l> {
    log: &'l Log,
    lsn: Cell<u64>,
    words: RefCell<Vec<u64>>,
}

impl Append for Spy<'_> {
    fn append(&self, units: &[u64]) -> Option<u64> {
        let lsn = self.log.append(units)?;
        self.lsn.set(lsn);
        self.words.borrow_mut().extend_from_slice(units);
        Some(lsn)
    }

    fn units_max(&self) -> usize {
        Append::units_max(self.log)
    }
}

impl Node {
    /// Starts the store on a disk: recovers, tidies, begins a new epoch.
    pub fn start(disk: &MemoryDisk, plan: &Plan) -> Result<Node, EngineError> {
        let config = Config {
            ring_bytes: plan.segment_bytes / 4,
            quantity_max: QUANTITY_MAX.into(),
            holder_holds_max: plan.holder_holds_max,
            uses_ahead: USES_AHEAD,
            uses_ahead_max: USES_AHEAD_MAX,
            sync: if plan.sync_direct {
                Sync::Direct
            } else {
                Sync::Fdatasync
            },
            ..Config::new(root())
        };
        let ground = Ground {
            slabs: slabs_on(disk),
            spread: spread(plan),
            drive: Drive::Steps,
            append_units_max: plan.append_units_max,
            growing_cards_max: GROWING_CARDS_MAX,
            subscribers: Vec::new(),
        };
        let limits = OrderLimits::of(&config);
        let (engine, _) = Engine::start(config, store_on(disk), plan.cores.into(), ground)?;
        let engine = Arc::new(engine);
        engine.watch_lines();
        let core = |index: u16| {
            let mut dealer = Dealer::new(engine.state.clone(), &engine.routes, limits);
            dealer.adopt(index.into(), plan.cores.into());
            Core {
                turns: Turns::new(index, 1),
                dealer,
                phase: Phase::Idle,
            }
        };
        Ok(Node {
            queues: (0..plan.cores)
                .map(|_| Arc::new(Queues::new(plan.lane_orders_max)))
                .collect(),
            cores: (0..plan.cores).map(core).collect(),
            dealt: BTreeMap::new(),
            asked: HashMap::new(),
            turn: None,
            engine,
        })
    }

    /// Takes an order in, or all of a chain, as a connection does; answers at once are refusals. `index`: of the first in its
    /// call.
    pub fn take_in(
        &mut self,
        link: Link,
        call: u64,
        try_number: u32,
        index: u16,
        now_ms: u64,
        asked: &[OrderStep],
    ) -> Result<(), Vec<Refusal>> {
        let read = |(index, asked): (u16, &OrderStep)| {
            let deadline = asked.order.deadline;
            let deadline_unix_ms =
                deadline.map_or(u64::MAX, |deadline| now_ms + deadline.as_millis() as u64);
            let ticket = Ticket {
                core: link.core,
                index,
                connection: link.number,
                use_of_slot: 0,
                request_slot: try_number,
                request_id: call,
            };
            (asked.item(Duration::ZERO), deadline_unix_ms, ticket)
        };
        let items: Vec<Asked> = (index..).zip(asked).map(read).collect();
        for (index, step) in (index..).zip(asked) {
            if step.order.holder.is_some() || step.step == Step::Commit {
                // The last of a chain is as linked as the others.
                let linked = asked.len() > 1;
                let step = OrderStep { linked, ..*step };
                self.asked.insert((call, try_number, index), step);
            }
        }
        let core = &mut self.cores[usize::from(link.core)];
        core.dealer.refresh();
        let queues = &self.queues[usize::from(link.core)];
        let step = asked[0].step;
        if let [(item, deadline_unix_ms, ticket)] = items[..] {
            let order = Order::of_item(step, &item, deadline_unix_ms, ticket);
            let queued = order.and_then(|order| {
                let lane = core.dealer.lane_of(&order)?;
                queues.lanes.push(lane, order).map_err(|_| Refusal::Busy)
            });
            return queued.map_err(|refusal| vec![refusal]);
        }
        let chain = chain_of(step, &items, |order| core.dealer.lane_of(order))?;
        let full = |_| vec![Refusal::Busy; asked.len()];
        queues.chains.push(chain).map_err(full)
    }

    /// One step of a core: answer what is durable, or one part of a turn. Returns whether it did anything.
    pub fn step_core(&mut self, index: usize, now_ms: u64, answered: &mut Vec<Outcome>) -> bool {
        let log = &self.engine.log;
        let core = &mut self.cores[index];
        match core.phase {
            Phase::Idle => {
                let any = core
                    .turns
                    .answer_durable(&self.queues, log, |outcome| answered.push(*outcome));
                let due = core.dealer.units_due(now_ms, self.engine.cannot_record());
                if core.turns.pick(&self.queues, log, now_ms, due) == Pick::Batch {
                    core.phase = Phase::Picked;
                    return true;
                }
                any
            }
            Phase::Picked => {
                // Room was seen when the batch was picked, and must still be there, whatever the others did since.
                let refusal = self.engine.cannot_record();
                self.dealt.insert(log.end(), now_ms);
                let spy = Spy {
                    log,
                    lsn: Cell::new(0),
                    words: RefCell::default(),
                };
                core.turns.deal(&mut core.dealer, now_ms, &spy, refusal);
                let refused = core.turns.outcomes().iter().filter_map(|outcome| {
                    let Verdict::Refused { refusal, .. } = outcome.verdict else {
                        return None;
                    };
                    let is_cap = matches!(
                        refusal,
                        Refusal::HolderCardsReached | Refusal::HolderHoldsReached
                    );
                    let ticket = outcome.ticket;
                    let place = (ticket.request_id, ticket.request_slot, ticket.index);
                    is_cap.then(|| (self.asked[&place], refusal))
                });
                self.turn = Some(Turn {
                    now_ms,
                    refused: refused.collect(),
                    lsn: spy.lsn.get(),
                    words: spy.words.into_inner(),
                });
                core.phase = Phase::Dealt;
                true
            }
            Phase::Dealt => {
                core.turns
                    .sort_out(&self.queues, |outcome| answered.push(*outcome));
                core.phase = Phase::Idle;
                true
            }
        }
    }

    /// What the last turn has come to, if nobody has looked yet.
    pub fn take_turn(&mut self) -> Option<Turn> {
        self.turn.take()
    }

    /// Whether nothing is under way on any core.
    pub fn is_idle(&self) -> bool {
        let can_record = self.engine.cannot_record().is_none();
        let calls = |core: &Core| can_record && core.dealer.has_calls();
        !self.cores.iter().any(calls) && self.is_at_rest()
    }

    /// Goes on until nothing is under way and everything is durable. `looked`: what to do after each step.
    pub fn settle(
        &mut self,
        now_ms: u64,
        answered: &mut Vec<Outcome>,
        mut looked: impl FnMut(&mut Node),
    ) {
        while !self.is_idle() || self.engine.log.durable() < self.engine.log.end() {
            for index in 0..self.cores.len() {
                self.step_core(index, now_ms, answered);
                looked(self);
            }
            self.engine.log.make_segment();
            if self.engine.log.take_block() {
                self.engine.log.write_block();
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        self.queues.iter().all(|queues| queues.is_empty())
            && self
                .cores
                .iter()
                .all(|core| core.phase == Phase::Idle && core.turns.is_idle())
    }

    /// The words of the protocol for an outcome.
    pub fn translate(&self, outcome: &Outcome) -> OrderOutcome {
        translate(&self.engine.state, outcome)
    }

    /// An order as a look-up tells it.
    pub fn look_up(&self, id: OrderId) -> Option<OrderOutcome> {
        look_up(&self.engine.state, id)
    }

    /// No card is dealt that has expired.
    ///
    /// # Panics
    /// If one is.
    pub fn check_expiry(&self, outcome: &Outcome) {
        let Verdict::Issued {
            settled,
            repeat: false,
        } = outcome.verdict
        else {
            return;
        };
        // One that waited was dealt by another turn than its answer's.
        let Some((_, dealt_ms)) = self.dealt.range(..=settled.lsn).next_back() else {
            return;
        };
        let state = &self.engine.state;
        let catalog = state.catalog.load();
        for (slab, slot) in state.index.cards(settled) {
            let expires_s = catalog.slab(slab).map_or(0, |slab| slab.expires_at_s(slot));
            assert!(
                expires_s == 0 || *dealt_ms < expires_s * 1000,
                "card {slab}:{slot} was dealt at {dealt_ms} ms and had expired at {expires_s} s"
            );
        }
    }

    /// After a sweep no card is free that has expired.
    ///
    /// # Panics
    /// If one is.
    pub fn check_stock(&self, now_ms: u64) {
        for slab in self.engine.state.catalog.load().slabs.iter().flatten() {
            for slot in 0..slab.cards() {
                let expires_s = slab.expires_at_s(slot);
                let is_good = expires_s == 0 || now_ms < expires_s * 1000;
                assert!(
                    is_good || slab.status(slot) != CardStatus::Free,
                    "card {}:{slot} is free and has expired",
                    slab.facts.slab
                );
            }
        }
    }

    /// Nobody waits for stock that is there.
    ///
    /// # Panics
    /// If somebody does.
    pub fn check_lines(&self, now_ms: u64) {
        let state = &self.engine.state;
        let mut resolver = Router::new(&self.engine.routes, &state.catalog);
        resolver.refresh(now_ms);
        for (id, settled, hold) in state.index.open_holds() {
            let Some(waits) = hold.waits else { continue };
            let priority = Priority::try_from(waits.priority).expect("as it came");
            let asked = route::Asked {
                id,
                holder: state.holders.try_of(id).unwrap_or(0),
                sku: hold.sku,
                priority,
                quantity: waits.quantity,
                tag: waits.tag,
            };
            let Ok(target) = resolver.resolve(&asked) else {
                continue;
            };
            let pools_max = if hold.is_issue() {
                usize::MAX
            } else {
                HOLD_POOLS_MAX
            };
            let pools = target.pools.iter().take(pools_max);
            // Not all may be held.
            let share = state.catalog.load().sku(hold.sku).map(|sku| sku.settings());
            if !hold.is_issue() && share.is_some_and(|set| set.hold_share_max_percent < 100) {
                continue;
            }
            let good = pools.filter(|pool| pool.is_good(now_ms));
            let free: u64 = good.map(|pool| pool.available()).sum();
            assert!(
                free < waits.quantity.into(),
                "{id:x} ({settled:?}) waits for {} cards, and {free} are free",
                waits.quantity
            );
        }
    }

    /// When the next hold ends, in Unix milliseconds.
    pub fn next_end_ms(&self) -> Option<u64> {
        let ends = self.cores.iter();
        ends.filter_map(|core| core.dealer.next_end_unix_ms()).min()
    }

    /// Stops in good order: what is under way is answered, the log is written, all of it folded. Returns what is left to
    /// answer.
    pub fn stop(mut self, now_ms: u64) -> Result<Vec<(Outcome, OrderOutcome)>, EngineError> {
        self.engine
            .draining
            .store(true, std::sync::atomic::Ordering::Relaxed);
        let mut answered = Vec::new();
        while !self.is_at_rest() || self.cores.iter().any(|core| core.dealer.has_staying()) {
            for index in 0..self.cores.len() {
                self.step_core(index, now_ms, &mut answered);
            }
            if self.engine.log.take_block() {
                self.engine.log.write_block();
            }
            if !self.engine.log.make_segment()
                && self.engine.log.failure().is_none()
                && self.engine.log.is_full()
            {
                break;
            }
        }
        let answered = answered
            .into_iter()
            .map(|outcome| (outcome, self.translate(&outcome)))
            .collect();
        if !self.is_idle() {
            return Ok(answered);
        }
        self.engine.log.stop()?;
        let folded = self.engine.fold(true)?;
        let live = self.engine.digest();
        if let Some(folded) = folded {
            assert_eq!(folded.digest, live, "the live state is what the log says");
        }
        Ok(answered)
    }
}

fn issued(
    state: &State,
    order_id: OrderId,
    sku: u32,
    settled: Settled,
    repeat: bool,
) -> IssuedOrder {
    let catalog = state.catalog.load();
    let cards = state.index.cards(settled).map(|(slab, slot)| {
        // A use has the secret of its card.
        let (of, card) = catalog.slab(slab).expect("its slab is there").card_id(slot);
        Card {
            card: CardRef {
                slab,
                slot,
                generation: 0,
            },
            secret: secret_of(of, card).into(),
        }
    });
    IssuedOrder {
        order_id,
        lsn: Lsn(settled.lsn),
        sku: SkuId(sku),
        repeat,
        cards: cards.collect(),
    }
}

/// The words of the protocol for an outcome.
fn translate(state: &State, outcome: &Outcome) -> OrderOutcome {
    let order_id = OrderId::from_u128(outcome.id);
    let held = |lsn, quantity, repeat, hold| HeldOrder {
        order_id,
        lsn: Lsn(lsn),
        sku: SkuId(outcome.sku),
        quantity,
        repeat,
        hold,
    };
    match outcome.verdict {
        Verdict::Issued { settled, repeat } => {
            let (slab, _) = state
                .index
                .cards(settled)
                .next()
                .expect("an order has cards");
            let catalog = state.catalog.load();
            let sku = catalog.slab(slab).expect("its slab is there").facts.sku;
            OrderOutcome::Issued(issued(state, order_id, sku, settled, repeat))
        }
        Verdict::Held {
            lsn,
            quantity,
            hold,
            repeat,
        } => OrderOutcome::Held(held(lsn, quantity, repeat, Some(hold))),
        Verdict::Waiting {
            lsn,
            quantity,
            ends_unix_ms,
            repeat,
        } => {
            let hold = Hold {
                ends_unix_ms,
                extensions: 0,
            };
            OrderOutcome::Waiting(held(lsn, quantity, repeat, Some(hold)))
        }
        Verdict::Released {
            lsn,
            quantity,
            why,
            repeat,
        } => {
            let held = held(lsn, quantity, repeat, None);
            match why {
                Release::Cancelled => OrderOutcome::Cancelled(held),
                Release::Expired => OrderOutcome::Expired(held),
            }
        }
        Verdict::Refused {
            refusal,
            retry_after_ms,
            ..
        } => OrderOutcome::Refused {
            order_id,
            refusal,
            retry_after_ms,
        },
    }
}

/// An order of a state that rests.
pub fn look_up(state: &State, id: OrderId) -> Option<OrderOutcome> {
    let (sku, verdict) = holds::look_up(&state.index, id.as_u128());
    let outcome = Outcome {
        ticket: Ticket::single(0, 0),
        id: id.as_u128(),
        sku,
        verdict,
    };
    match translate(state, &outcome) {
        OrderOutcome::Refused { refusal, .. } => {
            assert_eq!(
                refusal,
                Refusal::OrderNotFound,
                "{id}: nothing is under way"
            );
            None
        }
        known => Some(known),
    }
}

/// The stock of a state.
pub fn stock(state: &State) -> Vec<StockRow> {
    let catalog = state.catalog.load();
    catalog.skus.iter().map(|sku| sku.row()).collect()
}

/// A state as the oracle reads it.
pub struct View<'a>(pub &'a State);

impl StateView for View<'_> {
    fn standing(&self, id: OrderId) -> Option<Standing> {
        let index = &self.0.index;
        let settled = index.get(index.hash(id.as_u128()))?;
        Some(match settled.state {
            OrderState::Held => Standing::Held(settled.quantity),
            OrderState::Waiting => Standing::Waiting(settled.quantity),
            OrderState::Cancelled => Standing::Cancelled,
            OrderState::Expired => Standing::Expired,
            OrderState::Issued
            | OrderState::IssuedPart
            | OrderState::Committed
            | OrderState::CommittedPart => {
                let cards = index.cards(settled).map(|(slab, slot)| CardRef {
                    slab,
                    slot,
                    generation: 0,
                });
                Standing::Issued(Lsn(settled.lsn), cards.collect())
            }
        })
    }

    fn orders(&self) -> u64 {
        self.0.index.len()
    }

    fn stock(&self) -> Vec<StockRow> {
        stock(self.0)
    }

    fn out_of_sale(&self) -> BTreeMap<CardRef, OutOfSale> {
        let mut all = BTreeMap::new();
        for slab in self.0.catalog.load().slabs.iter().flatten() {
            for slot in 0..slab.cards() {
                let how = match slab.status(slot) {
                    CardStatus::Suspended => OutOfSale::Suspended,
                    CardStatus::Void => OutOfSale::Void,
                    CardStatus::Free | CardStatus::Issued => continue,
                };
                let card = CardRef {
                    slab: slab.facts.slab,
                    slot,
                    generation: 0,
                };
                all.insert(card, how);
            }
        }
        all
    }
}
