//! A server in memory that speaks enough of the protocol for a run, correctly or with one kind of lie.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Buf, BytesMut};
use croupier_protocol::*;

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// Issues one card to two orders.
    CardTwice,
    /// Delivers one secret under two card references.
    SecretTwice,
    /// Changes a byte of a secret.
    SecretDamaged,
    /// Gives one card too few.
    CardMissing,
    /// Names another order.
    WrongOrder,
    /// Calls a new order a repeat.
    Repeat,
    /// Issues without an LSN.
    NoLsn,
    /// Refuses an order as Busy.
    Busy,
    /// Refuses a whole frame as Busy.
    BusyFrame,
    /// Never answers a request.
    Silence,
    /// Answers a request twice.
    AnswerTwice,
    /// Forgets an order, which a lookup finds out.
    Forgets,
    /// Looks up another secret than was issued.
    LookUpDiffers,
    /// Delivers a card of another SKU.
    OtherSku,
    /// Closes the connection.
    Hangs,
    /// Answers a reserve with cards.
    ReserveIssues,
    /// Puts by one card too few.
    HoldsTooFew,
    /// Commits at an earlier place of the log than it reserved.
    CommitsEarlier,
    /// Refuses a commit: the hold is gone.
    LosesHold,
}

/// Orders that go well before the lie is told, and lies are told again after as many.
const LIE_EVERY: u64 = 1500;

type Cards = Vec<(CardRef, Vec<u8>)>;

#[derive(Default)]
struct Store {
    skus: Vec<(String, Vec<Vec<u8>>)>,
    next_card: Vec<usize>,
    orders: HashMap<OrderId, (SkuId, u64, Cards)>,
    /// What open holds were made with.
    holds: HashMap<OrderId, StepItem>,
    last: Option<(CardRef, Vec<u8>)>,
}

/// A listening server; it ends with the process.
pub struct Toy {
    pub url: String,
}

struct Shared {
    store: Mutex<Store>,
    lie: Lie,
    orders: AtomicU64,
    lied: AtomicBool,
}

impl Toy {
    pub fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("croupier://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            lie,
            orders: AtomicU64::new(0),
            lied: AtomicBool::new(false),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    // The bench hangs up in the middle of some tests; then this connection is done.
                    let _ = Session {
                        stream,
                        shared,
                        out: BytesMut::new(),
                        import: None,
                    }
                    .serve();
                });
            }
        });
        Self { url }
    }
}

struct Session {
    stream: TcpStream,
    shared: Arc<Shared>,
    out: BytesMut,
    import: Option<(usize, Vec<Vec<u8>>)>,
}

impl Session {
    fn serve(&mut self) -> std::io::Result<()> {
        let mut inbox = BytesMut::new();
        let mut chunk = vec![0; 1 << 18];
        self.stream.set_nodelay(true)?;
        loop {
            while let Some(header) =
                peek(&inbox, FRAME_BYTES_MAX_DEFAULT).expect("the bench sends whole frames")
            {
                let body = inbox.split_to(header.length as usize);
                if !self.answer(&header, header.body_of(&body)) {
                    return Ok(());
                }
            }
            self.stream.write_all(&self.out)?;
            self.out.clear();
            match self.stream.read(&mut chunk)? {
                0 => return Ok(()),
                read => inbox.extend_from_slice(&chunk[..read]),
            }
        }
    }

    fn frame(
        &mut self,
        header: &FrameHeader,
        kind: Kind,
        count: u16,
        fill: impl FnOnce(&mut BytesMut),
    ) {
        let mut frame = FrameWriter::begin(&mut self.out, kind, header.request_id);
        frame.set_count(count);
        fill(frame.body());
        frame.finish();
    }

    fn answer(&mut self, header: &FrameHeader, body: &[u8]) -> bool {
        let shared = self.shared.clone();
        let mut store = shared.store.lock().expect("no session panics");
        match header.kind {
            Kind::Hello => self.frame(header, Kind::HelloReply, 0, |out| {
                HelloReply {
                    version: 1,
                    frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
                    features: 0,
                    store_id: [7; 16],
                    orders_per_frame_max: 1000,
                    orders_in_flight_max: 65_536,
                    quantity_max: 100,
                }
                .encode_into(out);
            }),
            Kind::ServerInfo => {
                let info = ServerInfoReply {
                    version: "toy".into(),
                    cores: 1,
                    sync: "none: a toy".into(),
                    ..Default::default()
                };
                self.frame(header, Kind::ServerInfoReply, 0, |out| {
                    encode_control(&info, out)
                });
            }
            Kind::SkuList => {
                let rows = store.skus.iter().zip(1..);
                let skus = rows
                    .map(|((name, _), sku)| SkuRow {
                        sku,
                        name: name.clone(),
                    })
                    .collect();
                self.frame(header, Kind::SkuListReply, 0, |out| {
                    encode_control(&SkuListReply { skus }, out)
                });
            }
            Kind::ImportBegin => {
                let begin: ImportBegin =
                    decode_control(body).expect("the bench sends what it should");
                let index = store
                    .skus
                    .iter()
                    .position(|(name, _)| *name == begin.sku)
                    .unwrap_or_else(|| {
                        store.skus.push((begin.sku, Vec::new()));
                        store.next_card.push(0);
                        store.skus.len() - 1
                    });
                self.import = Some((index, Vec::new()));
                let reply = ImportBeginReply {
                    import: 5,
                    sku: index as u32 + 1,
                };
                self.frame(header, Kind::ImportBeginReply, 0, |out| {
                    encode_control(&reply, out)
                });
            }
            Kind::ImportRows => {
                let (_, rows) =
                    import_rows(body, header.count).expect("the bench sends what it should");
                let (_, cards) = self.import.as_mut().expect("an import is open");
                cards.extend(rows.map(|row| row.expect("rows are whole").secret.to_vec()));
                let reply = ImportRowsReply {
                    import: 5,
                    rows_received: cards.len() as u64,
                };
                self.frame(header, Kind::ImportRowsReply, 0, |out| {
                    reply.encode_into(out)
                });
            }
            Kind::ImportEnd => {
                let (index, cards) = self.import.take().expect("an import is open");
                let reply = ImportEndReply {
                    batch: 1,
                    lsn: 1,
                    accepted: cards.len() as u64,
                    slabs: 1,
                    ..Default::default()
                };
                store.skus[index].1.extend(cards);
                self.frame(header, Kind::ImportEndReply, 0, |out| {
                    encode_control(&reply, out)
                });
            }
            Kind::Issue => return self.issue(header, body, &mut store),
            Kind::Reserve => self.reserve(header, body, &mut store),
            Kind::Commit => self.commit(header, body, &mut store),
            Kind::LookUp => self.look_up(header, body, &store),
            kind => panic!("the bench sent {kind:?}"),
        }
        true
    }

    /// True if this order is one to lie about.
    fn lies(&self, lie: Lie) -> bool {
        let orders = self.shared.orders.load(Ordering::Relaxed);
        let once = matches!(lie, Lie::Silence | Lie::Hangs);
        self.shared.lie == lie
            && orders.is_multiple_of(LIE_EVERY)
            && !(once && self.shared.lied.swap(true, Ordering::Relaxed))
    }

    fn issue(&mut self, header: &FrameHeader, body: &[u8], store: &mut Store) -> bool {
        let items: Vec<StepItem> = step_items(body, header.count)
            .expect("the bench sends what it should")
            .collect();
        let mut answers = BytesMut::new();
        let mut twice = false;
        for item in &items {
            self.shared.orders.fetch_add(1, Ordering::Relaxed);
            if self.lies(Lie::Hangs) {
                return false;
            }
            if self.lies(Lie::Silence) {
                return true;
            }
            if self.lies(Lie::BusyFrame) {
                let refused = RefusedBody {
                    refusal: Refusal::Busy,
                    retry_after_ms: 5,
                    text: String::new(),
                };
                self.frame(header, Kind::Refused, 0, |out| refused.encode_into(out));
                return true;
            }
            twice |= self.lies(Lie::AnswerTwice);
            self.deal(item, store, &mut answers);
        }
        for _ in 0..1 + u32::from(twice) {
            self.frame(header, Kind::IssueReply, header.count, |out| {
                out.extend_from_slice(&answers)
            });
        }
        true
    }

    fn reserve(&mut self, header: &FrameHeader, body: &[u8], store: &mut Store) {
        let mut answers = BytesMut::new();
        for item in step_items(body, header.count).expect("the bench sends what it should") {
            let orders = self.shared.orders.fetch_add(1, Ordering::Relaxed) + 1;
            if self.lies(Lie::Busy) {
                put_refused(&mut answers, item.order_id, item.sku, Refusal::Busy, 5);
                continue;
            }
            if self.lies(Lie::ReserveIssues) {
                put_issued(&mut answers, item.order_id, orders, item.sku, false, &[]);
            } else {
                let held = HeldOrder {
                    order_id: item.order_id,
                    lsn: Lsn(orders),
                    sku: item.sku,
                    quantity: item.quantity - u16::from(self.lies(Lie::HoldsTooFew)),
                    repeat: false,
                    hold: Some(Hold {
                        ends_unix_ms: item.ttl_ms.into(),
                        extensions: 0,
                    }),
                };
                put_hold(&mut answers, STATUS_HELD, &held);
            }
            store.holds.insert(item.order_id, item);
        }
        self.frame(header, Kind::ReserveReply, header.count, |out| {
            out.extend_from_slice(&answers)
        });
    }

    fn commit(&mut self, header: &FrameHeader, body: &[u8], store: &mut Store) {
        let mut answers = BytesMut::new();
        for item in step_items(body, header.count).expect("the bench sends what it should") {
            self.shared.orders.fetch_add(1, Ordering::Relaxed);
            match store.holds.remove(&item.order_id) {
                Some(held) if !self.lies(Lie::LosesHold) => {
                    assert_eq!(item.quantity, held.quantity, "the bench names it");
                    self.deal(&held, store, &mut answers);
                }
                _ => put_refused(
                    &mut answers,
                    item.order_id,
                    SkuId(0),
                    Refusal::OrderNotFound,
                    0,
                ),
            }
        }
        self.frame(header, Kind::CommitReply, header.count, |out| {
            out.extend_from_slice(&answers)
        });
    }

    fn deal(&mut self, item: &StepItem, store: &mut Store, out: &mut BytesMut) {
        if self.lies(Lie::Busy) {
            return put_refused(out, item.order_id, item.sku, Refusal::Busy, 5);
        }
        let mut cards = Vec::new();
        for _ in 0..item.quantity {
            let index = item.sku.0 as usize - 1;
            let slot = store.next_card[index];
            let Some(secret) = store.skus[index].1.get(slot) else {
                return put_refused(out, item.order_id, item.sku, Refusal::OutOfStock, 0);
            };
            let card = CardRef {
                slab: item.sku.0,
                slot: slot as u32,
                generation: 0,
            };
            cards.push((card, secret.clone()));
            store.next_card[index] += 1;
        }
        let mut order_id = item.order_id;
        let lsn = if self.lies(Lie::NoLsn) {
            0
        } else if self.lies(Lie::CommitsEarlier) {
            1
        } else {
            self.shared.orders.load(Ordering::Relaxed)
        };
        if let Some(last) = store.last.clone() {
            if self.lies(Lie::CardTwice) {
                cards[0] = last;
            } else if self.lies(Lie::SecretTwice) {
                cards[0].1 = last.1;
            }
        }
        if self.lies(Lie::SecretDamaged) {
            cards[0].1[20] ^= 1;
        }
        if self.lies(Lie::CardMissing) {
            cards.pop();
        }
        if self.lies(Lie::WrongOrder) {
            order_id = OrderId::from_u128(5);
        }
        if self.lies(Lie::OtherSku) {
            cards[0]
                .1
                .clone_from(&store.skus[item.sku.0 as usize % store.skus.len()].1[9]);
        }
        let repeat = self.lies(Lie::Repeat);
        put_issued(out, order_id, lsn, item.sku, repeat, &cards);
        store.last = cards.first().cloned().or(store.last.take());
        if self.shared.lie == Lie::LookUpDiffers {
            cards[0].1[22] ^= 1;
        }
        if self.shared.lie != Lie::Forgets {
            store.orders.insert(item.order_id, (item.sku, lsn, cards));
        }
    }

    fn look_up(&mut self, header: &FrameHeader, body: &[u8], store: &Store) {
        let mut out = BytesMut::new();
        let mut ids = lookup_items(body, header.count)
            .expect("the bench sends what it should")
            .peekable();
        // Two frames where there are two answers, so that the bench sees one that is continued.
        let half = header.count / 2;
        for (place, id) in (0u16..).zip(ids.by_ref()) {
            match store.orders.get(&id) {
                Some((sku, lsn, cards)) => put_issued(&mut out, id, *lsn, *sku, false, cards),
                None => put_refused(&mut out, id, SkuId(0), Refusal::OrderNotFound, 0),
            }
            if place + 1 == half {
                let mut frame =
                    FrameWriter::begin(&mut self.out, Kind::LookUpReply, header.request_id);
                frame.set_flags(FLAG_MORE);
                frame.set_count(half);
                frame.body().extend_from_slice(&out.split());
                frame.finish();
            }
        }
        let count = header.count - half;
        self.frame(header, Kind::LookUpReply, count, |body| {
            body.extend_from_slice(out.chunk());
        });
    }
}

fn put_issued(
    out: &mut BytesMut,
    id: OrderId,
    lsn: u64,
    sku: SkuId,
    repeat: bool,
    cards: &[(CardRef, Vec<u8>)],
) {
    let mut writer = IssuedWriter::begin(out, id, Lsn(lsn), sku, repeat);
    cards
        .iter()
        .for_each(|(card, secret)| writer.put_card(*card, secret));
    writer.finish();
}
