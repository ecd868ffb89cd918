//! How many instructions an order takes on its way through one core, for `.ci/instructions`.
//!
//! The real parts in their real order, without threads, sockets and a disk: frames are read, orders wait in a lane, the
//! dealer deals a turn, records go through the ring and are taken out of it as by the committer, and every card is opened
//! into its answer. Everything that could differ from run to run (ids, seed, time) is fixed, so the count is the same to
//! a few parts in a thousand, on whatever machine: unlike a time.
//!
//! Under callgrind only [`measured_orders`] is counted. By itself the program tells the time. `croupier-instructions [ORDERS]
//! [plain|routed]`: by the built-in table, or by one whose rules have to look at every order.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use bytes::BytesMut;
use croupier_engine::dealer::{Append, Dealer, OrderLimits, TURN_ORDERS_MAX};
use croupier_engine::error::EngineError;
use croupier_engine::lanes::{Lanes, Picked};
use croupier_engine::limits::SLAB_CARDS_MAX;
use croupier_engine::order::{Order, Outcome, Ticket, Verdict};
use croupier_engine::route::{DEFAULT_ROUTES, RouteCell, RouteTable};
use croupier_engine::server::translate;
use croupier_engine::slab::{Ingest, IngestLimits, IngestPlan, KeyFile, Slab, Vault};
use croupier_engine::state::index::Spread;
use croupier_engine::state::record::{Fact, Record, Stamp};
use croupier_engine::state::{Hand, SlabBody, SlabFacts, SlabSource, State};
use croupier_engine::wal::ring::{Ring, UNIT_BYTES};
use croupier_protocol::{
    FRAME_BYTES_MAX_DEFAULT, FRAME_HEADER_BYTES, FrameWriter, ImportRow, Kind, OrderId, SkuId,
    Step, StepItem, peek, step_items,
};

/// Orders that nobody counts: buffers have found their size, and lines their cache.
const WARMUP_ORDERS: u64 = 16 * READ_ORDERS;
/// Orders that are counted, if no other number is given.
const ORDERS_DEFAULT: u64 = 64 * READ_ORDERS;
/// Frames of one order each that one read from a connection brings: a pipeline of 128 over eight connections.
const READ_ORDERS: u64 = TURN_ORDERS_MAX as u64;
const NOW_UNIX_MS: u64 = 1_800_000_000_000;
const STORE_ID: [u8; 16] = *b"instructions    ";
const SECRET_BYTES: usize = 32;
const REQUEST_BYTES: usize = FRAME_HEADER_BYTES + StepItem::BYTES;

/// Every order is asked for tag, quantity and holder, and sent one of two ways, by weight. There is no pool `spare`.
const RICH_ROUTES: &str = r#"
[[channel]]
name = "main"
[[channel]]
name = "spare"
[[rule]]
tag = [7]
channels = ["spare", "main"]
[[rule]]
quantity = "10-"
lane = "background"
[[rule]]
holder = "0%-10%"
channels = ["spare", "main"]
[[rule]]
channels = [{ main = 80, spare = 20 }]
"#;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let orders = match std::env::args().nth(1).filter(|text| !text.is_empty()) {
        Some(text) => text.parse::<u64>()?.next_multiple_of(READ_ORDERS),
        None => ORDERS_DEFAULT,
    };
    let routes = match std::env::args().nth(2).as_deref() {
        None | Some("plain") => DEFAULT_ROUTES,
        Some("routed") => RICH_ROUTES,
        Some(other) => return Err(format!("{other:?} is no table: use plain or routed").into()),
    };
    // The stock is one slab.
    if WARMUP_ORDERS + orders > SLAB_CARDS_MAX.into() {
        return Err(format!("{orders} orders are too many for one slab").into());
    }
    let dir = std::env::temp_dir().join(format!("croupier-instructions-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let outcome = run(&dir, orders, routes);
    std::fs::remove_dir_all(&dir)?;
    outcome
}

fn run(dir: &std::path::Path, orders: u64, routes: &str) -> Result<()> {
    let slab = Arc::new(stock(dir, WARMUP_ORDERS + orders)?);
    let mut core = Core::new(&slab, routes)?;
    let warmup = requests(0..WARMUP_ORDERS);
    let counted = requests(WARMUP_ORDERS..WARMUP_ORDERS + orders);
    core.serve(&warmup);
    let begun = Instant::now();
    measured_orders(&mut core, &counted);
    let ns = begun.elapsed().as_nanos() as u64 / orders;
    assert_eq!(
        core.answered,
        WARMUP_ORDERS + orders,
        "every order was dealt"
    );
    println!("orders {orders}");
    println!("ns_per_order {ns}");
    Ok(())
}

/// What is counted. Never inlined, or callgrind would not find it.
#[inline(never)]
fn measured_orders(core: &mut Core, requests: &[u8]) {
    core.serve(requests);
}

/// A slab of `cards` cards in `dir`.
fn stock(dir: &std::path::Path, cards: u64) -> Result<Slab> {
    let key = KeyFile::create(&dir.join("store.key"), STORE_ID)?;
    let vault = Arc::new(Vault::new(&key));
    let plan = IngestPlan {
        dir: dir.to_owned(),
        store_id: STORE_ID,
        sku: 1,
        pool: 0,
        batch: 1,
        now_unix_ms: NOW_UNIX_MS,
        limits: IngestLimits::default(),
    };
    let mut ingest = Ingest::begin(vault, plan, Vec::new(), Arc::new(AtomicU32::new(1)));
    for number in 0..cards {
        let secret = format!("{number:0SECRET_BYTES$}");
        ingest.push(ImportRow::new(number + 1, secret.as_bytes()))?;
    }
    let slab = ingest.finish()?.slabs.pop();
    Ok(slab.ok_or("no card was accepted")?)
}

/// Frames of one order each, as callers send them.
fn requests(numbers: std::ops::Range<u64>) -> BytesMut {
    let mut out = BytesMut::with_capacity(numbers.clone().count() * REQUEST_BYTES);
    for number in numbers {
        let mut frame = FrameWriter::begin(&mut out, Kind::Issue, number);
        let id = u128::from(number + 1) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let item = StepItem::one(OrderId::from_u128(id), SkuId(1));
        item.encode_into(frame.body());
        frame.set_count(1);
        frame.finish();
    }
    out
}

/// The ring, as the dealer sees the log.
struct Log(Ring);

impl Append for Log {
    fn append(&self, units: &[u64]) -> Option<u64> {
        self.0.append(units)
    }

    fn units_max(&self) -> usize {
        TURN_ORDERS_MAX
    }
}

/// The one slab of the state.
struct OneSlab(Arc<Slab>);

impl SlabSource for OneSlab {
    fn body(&self, _: &SlabFacts) -> std::result::Result<SlabBody, EngineError> {
        Ok(SlabBody::Mapped(self.0.clone()))
    }
}

/// A state that has the slab in stock.
fn state(slab: &Arc<Slab>) -> Result<State> {
    let source = Box::new(OneSlab(slab.clone()));
    let state = State::new(source, 0, Spread::seeded([1, 2]));
    let stamp = Stamp {
        unix_ms: NOW_UNIX_MS,
        route_table: 0,
    };
    let facts = [
        Fact::SkuCreated {
            sku: 1,
            name: "card",
        },
        Fact::SlabAdded {
            slab: slab.id(),
            sku: 1,
            batch: 1,
            pool: 0,
            cards: slab.cards(),
            class_bytes: slab.class_bytes(),
            header_hash: slab.header_hash(),
            grows: false,
        },
        Fact::BatchSealed {
            batch: 1,
            sku: 1,
            pool: 0,
            cards: slab.cards().into(),
            slabs: 1,
            label: "",
            pool_name: "main",
        },
    ];
    let mut hand = Hand::new(&state);
    for (lsn, fact) in (1..).zip(facts) {
        state.apply(lsn, &Record { stamp, fact }, &mut hand)?;
    }
    Ok(state)
}

/// One core without its sockets.
struct Core {
    state: Arc<State>,
    lanes: Lanes,
    dealer: Dealer,
    log: Log,
    /// How far the records have been taken out of the ring.
    taken: u64,
    block: Vec<u8>,
    turn: Vec<(u8, Order)>,
    outcomes: Vec<Outcome>,
    out: BytesMut,
    answered: u64,
}

impl Core {
    fn new(slab: &Arc<Slab>, routes: &str) -> Result<Core> {
        let state = Arc::new(state(slab)?);
        let routes = RouteCell::new(RouteTable::parse(0, routes)?);
        let limits = OrderLimits {
            quantity_max: 1000,
            ..OrderLimits::default()
        };
        Ok(Core {
            dealer: Dealer::new(state.clone(), &routes, limits),
            state,
            lanes: Lanes::new(1 << 16),
            log: Log(Ring::new(1 << 14, 1)),
            taken: 1,
            block: vec![0; READ_ORDERS as usize * UNIT_BYTES],
            turn: Vec::new(),
            outcomes: Vec::new(),
            out: BytesMut::with_capacity(1 << 20),
            answered: 0,
        })
    }

    /// All requests, a turn after the other.
    fn serve(&mut self, requests: &[u8]) {
        for read in requests.chunks(READ_ORDERS as usize * REQUEST_BYTES) {
            self.receive(read);
            self.deal();
            self.commit();
            self.answer();
        }
    }

    /// Frames into lanes.
    fn receive(&mut self, mut bytes: &[u8]) {
        self.dealer.refresh();
        while let Some(header) = peek(bytes, FRAME_BYTES_MAX_DEFAULT).expect("frames are right") {
            let items = step_items(header.body_of(bytes), header.count).expect("bodies are right");
            for item in items {
                let ticket = Ticket::single(0, header.request_id);
                let order = Order::of_item(Step::Issue, &item, u64::MAX, ticket);
                let order = order.expect("orders are right");
                let lane = self.dealer.lane_of(&order).expect("the SKU has a lane");
                self.lanes.push(lane, order).expect("the lane has room");
            }
            bytes = &bytes[header.length as usize..];
        }
    }

    /// One turn of the dealer.
    fn deal(&mut self) {
        let turn = &mut self.turn;
        turn.clear();
        self.lanes.mark(NOW_UNIX_MS);
        self.lanes
            .pick(NOW_UNIX_MS, TURN_ORDERS_MAX, |lane, order| {
                turn.push((lane as u8, order));
                Picked::More
            });
        self.dealer
            .turn(NOW_UNIX_MS, &self.log, None, turn, &mut self.outcomes);
    }

    /// What the committer does with the ring, but for the disk.
    fn commit(&mut self) {
        self.taken = self.log.0.take(self.taken, &mut self.block);
        self.log.0.release_to(self.taken);
    }

    /// Verdicts into frames, every card opened.
    fn answer(&mut self) {
        let catalog = self.dealer.catalog().clone();
        self.out.clear();
        for outcome in self.outcomes.drain(..) {
            assert!(
                matches!(outcome.verdict, Verdict::Issued { repeat: false, .. }),
                "there is stock for everyone"
            );
            let frame_bytes_max = FRAME_BYTES_MAX_DEFAULT as usize;
            translate::put_single(
                &mut self.out,
                &self.state,
                &catalog,
                &outcome,
                frame_bytes_max,
            );
            self.answered += 1;
        }
        std::hint::black_box(&self.out);
    }
}
