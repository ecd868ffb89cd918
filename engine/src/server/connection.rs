//! One connection: bytes in, frames, orders into lanes; answers into bytes, bytes out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use bytes::{Buf as _, BytesMut};
use croupier_protocol::{
    FaultBody, FaultCode, FrameHeader, FrameWriter, Hello, HelloReply, Kind, OrderItemHead,
    PROTOCOL_VERSION, Refusal, RefusedBody, Step, StepItem, lookup_items, peek, step_items,
};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use zeroize::Zeroize as _;

use super::control;
use super::core::Core;
use super::feed;
use super::jobs;
use super::translate;
use crate::clock::unix_ms;
use crate::dealer::{self, RETRY_AFTER_MS};
use crate::linked::{self, begins_chain};
use crate::order::{Order, Outcome, SINGLE, Ticket, Verdict};

/// While more than this waits to be written, nothing more is read.
const OUT_BYTES_HIGH: usize = 1 << 20;
/// An empty output buffer larger than this is given back.
const OUT_BYTES_KEPT: usize = 256 << 10;
/// Cold requests that a connection may have waiting: as many as import frames may be unanswered.
const JOBS_MAX: usize = croupier_protocol::IMPORT_FRAMES_IN_FLIGHT_MAX;

/// The connections of one core.
#[derive(Default)]
pub struct Table {
    slots: Vec<(u32, Option<Rc<Connection>>)>,
    free: Vec<u32>,
}

impl Table {
    pub fn open(&mut self, stream: TcpStream, tick: u64) -> (Rc<Connection>, OwnedReadHalf) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.0 = place.0.wrapping_add(1);
        let (read, write) = stream.into_split();
        let connection = Rc::new(Connection {
            slot,
            use_of_slot: place.0,
            write,
            out: RefCell::default(),
            wake: Notify::new(),
            in_flight: Cell::new(0),
            full: Cell::new(false),
            importing: Cell::new(false),
            requests: RefCell::default(),
            jobs: RefCell::default(),
            feeds: feed::Feeds::default(),
            worker: jobs::Jobs::default(),
            greeted: Cell::new(false),
            closing: Cell::new(false),
            dead: Cell::new(false),
            dirty: Cell::new(false),
            opened_tick: tick,
            partial_since: Cell::new(None),
            stalled_since: Cell::new(None),
            tick: Cell::new(tick),
            lane: Cell::new(0),
            is_admitted: Cell::new(false),
        });
        place.1 = Some(connection.clone());
        (connection, read)
    }

    pub fn close(&mut self, connection: &Connection) {
        self.slots[connection.slot as usize].1 = None;
        self.free.push(connection.slot);
    }

    pub fn get(&self, slot: u32, use_of_slot: u32) -> Option<Rc<Connection>> {
        let (current, connection) = self.slots.get(slot as usize)?;
        if *current == use_of_slot {
            connection.clone()
        } else {
            None
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rc<Connection>> {
        self.slots
            .iter()
            .filter_map(|(_, connection)| connection.as_ref())
    }
}

/// A request of several orders, or of look-ups, until all its answers are there.
struct Request {
    kind: Kind,
    request_id: u64,
    outcomes: Vec<Outcome>,
    missing: usize,
}

impl Default for Request {
    fn default() -> Request {
        Request {
            kind: Kind::IssueReply,
            request_id: 0,
            outcomes: Vec::new(),
            missing: 0,
        }
    }
}

#[derive(Default)]
struct Requests {
    slots: Vec<Request>,
    free: Vec<u32>,
}

/// A cold request, with its body.
pub struct Job {
    pub kind: Kind,
    pub request_id: u64,
    pub count: u16,
    pub body: Vec<u8>,
}

impl Drop for Job {
    fn drop(&mut self) {
        if matches!(
            self.kind,
            Kind::ImportRows | Kind::FindSecret | Kind::Deliver | Kind::DeliverJob
        ) {
            self.body.zeroize();
        }
    }
}

/// An open connection.
pub struct Connection {
    slot: u32,
    use_of_slot: u32,
    write: OwnedWriteHalf,
    out: RefCell<BytesMut>,
    /// Something changed that the connection's task must look at.
    wake: Notify,
    /// Orders and look-ups that are not answered yet.
    in_flight: Cell<u32>,
    /// The next frame waits until answers have gone out.
    full: Cell<bool>,
    /// An import has been opened here, or a secret looked up: what is read holds secrets.
    pub importing: Cell<bool>,
    requests: RefCell<Requests>,
    jobs: RefCell<VecDeque<Job>>,
    pub feeds: feed::Feeds,
    pub worker: jobs::Jobs,
    pub greeted: Cell<bool>,
    /// Nothing more is read; closed when everything is written.
    closing: Cell<bool>,
    /// Closed without further ado.
    dead: Cell<bool>,
    pub dirty: Cell<bool>,
    pub opened_tick: u64,
    pub partial_since: Cell<Option<u64>>,
    pub stalled_since: Cell<Option<u64>>,
    tick: Cell<u64>,
    /// Where its last order went.
    lane: Cell<usize>,
    /// It has waited at the core's gate, and may read once.
    pub is_admitted: Cell<bool>,
}

/// What parsing came to.
struct Parsed {
    /// Bytes of the frames that were taken.
    used: usize,
}

impl Connection {
    /// Says why and closes once that is written.
    pub fn fault(&self, request_id: u64, fault: FaultCode, text: &str) {
        if self.closing.replace(true) {
            return;
        }
        let mut out = self.out.borrow_mut();
        let mut frame = FrameWriter::begin(&mut out, Kind::Fault, request_id);
        FaultBody {
            fault,
            text: text.into(),
        }
        .encode_into(frame.body());
        frame.finish();
        drop(out);
        self.flush();
        self.wake.notify_one();
    }

    /// Its orders are of the highest lane, or it has had none yet.
    pub fn is_urgent(&self) -> bool {
        self.lane.get() == 0
    }

    /// Has the connection's task look at everything.
    pub fn look(&self) {
        self.wake.notify_one();
    }

    /// Closes at once.
    pub fn abort(&self) {
        self.dead.set(true);
        self.wake.notify_one();
    }

    /// Nobody will read an answer any more.
    pub fn is_gone(&self) -> bool {
        self.dead.get() || self.closing.get()
    }

    /// Writes what is there as far as the socket takes it; wipes what was written.
    pub fn flush(&self) {
        let mut out = self.out.borrow_mut();
        while !out.is_empty() {
            match self.write.try_write(&out) {
                Ok(0) => break,
                Ok(written) => {
                    // What was written held secrets.
                    out[..written].zeroize();
                    self.stalled_since.set(None);
                    if written == out.len() {
                        out.clear();
                        if out.capacity() > OUT_BYTES_KEPT {
                            *out = BytesMut::new();
                        }
                        return;
                    }
                    out.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stalled_since.get().is_none() {
                        self.stalled_since.set(Some(self.tick.get()));
                    }
                    self.wake.notify_one();
                    return;
                }
                Err(_) => {
                    out.as_mut().zeroize();
                    out.clear();
                    drop(out);
                    self.abort();
                    return;
                }
            }
        }
    }

    /// Takes a verdict on one of this connection's orders.
    pub fn answer(&self, core: &Core, outcome: &Outcome) {
        let state = &core.engine.state;
        let frame_bytes_max = core.engine.config.frame_bytes_max as usize;
        let mut dealer = core.dealer.borrow_mut();
        let catalog = dealer.catalog();
        if outcome.ticket.request_slot == SINGLE {
            translate::put_single(
                &mut self.out.borrow_mut(),
                state,
                catalog,
                outcome,
                frame_bytes_max,
            );
            self.landed(1);
            return;
        }
        let mut requests = self.requests.borrow_mut();
        let slot = outcome.ticket.request_slot;
        let request = &mut requests.slots[slot as usize];
        request.outcomes[usize::from(outcome.ticket.index)] = *outcome;
        request.missing -= 1;
        if request.missing == 0 {
            let head = (request.kind, request.request_id);
            translate::put_many(
                &mut self.out.borrow_mut(),
                state,
                catalog,
                head,
                &request.outcomes,
                frame_bytes_max,
            );
            self.landed(request.outcomes.len() as u32);
            request.outcomes.clear();
            requests.free.push(slot);
        }
    }

    /// So many orders less are in flight; lets a connection that was full go on.
    fn landed(&self, orders: u32) {
        self.in_flight.set(self.in_flight.get() - orders);
        if self.full.replace(false) {
            self.wake.notify_one();
        }
    }

    /// Writes one frame.
    pub fn put_frame(
        &self,
        kind: Kind,
        request_id: u64,
        flags: u16,
        body: impl FnOnce(&mut BytesMut),
    ) {
        let mut out = self.out.borrow_mut();
        let mut frame = FrameWriter::begin(&mut out, kind, request_id);
        body(frame.body());
        frame.set_flags(flags);
        frame.finish();
    }

    /// Answers a cold request about an order; secrets are opened into the frame.
    pub fn put_order(&self, core: &Core, kind: Kind, request_id: u64, outcome: Outcome) {
        let engine = &core.engine;
        translate::put_many(
            &mut self.out.borrow_mut(),
            &engine.state,
            &engine.state.catalog.load(),
            (kind, request_id),
            &[outcome],
            engine.config.frame_bytes_max as usize,
        );
    }

    /// Refuses a request as a whole.
    pub fn refuse(&self, request_id: u64, refusal: Refusal, text: &str) {
        let retry_after_ms = if refusal.retryable() {
            RETRY_AFTER_MS
        } else {
            0
        };
        let body = RefusedBody {
            refusal,
            retry_after_ms,
            text: text.into(),
        };
        self.put_frame(Kind::Refused, request_id, 0, |out| body.encode_into(out));
    }

    /// Takes every whole frame at the start of `bytes`.
    fn parse(self: &Rc<Self>, core: &Core, bytes: &[u8]) -> Parsed {
        let frame_bytes_max = core.engine.config.frame_bytes_max;
        let mut used = 0;
        while !self.closing.get() {
            let header = match peek(&bytes[used..], frame_bytes_max) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    self.fault(error.request_id(), error.fault_code(), &error.to_string());
                    break;
                }
            };
            let body = header.body_of(&bytes[used..]);
            if !self.has_room_for(core, &header) {
                self.full.set(true);
                return Parsed { used };
            }
            self.take(core, &header, body);
            used += header.length as usize;
        }
        Parsed { used }
    }

    fn has_room_for(&self, core: &Core, header: &FrameHeader) -> bool {
        match header.kind {
            Kind::Issue
            | Kind::Reserve
            | Kind::Commit
            | Kind::Cancel
            | Kind::Extend
            | Kind::LookUp => {
                let after = self.in_flight.get() + u32::from(header.count);
                self.in_flight.get() == 0 || after <= core.engine.config.orders_in_flight_max
            }
            Kind::Hello | Kind::Ping => true,
            _ => self.jobs.borrow().len() < JOBS_MAX,
        }
    }

    fn take(self: &Rc<Self>, core: &Core, header: &FrameHeader, body: &[u8]) {
        if header.flags != 0 {
            return self.fault(
                header.request_id,
                FaultCode::UnsupportedFlag,
                "a request has flags this version does not know",
            );
        }
        if header.kind == Kind::Hello {
            return self.hello(core, header, body);
        }
        if !self.greeted.get() {
            return self.fault(
                header.request_id,
                FaultCode::HelloExpected,
                "the first frame must be Hello",
            );
        }
        if matches!(
            header.kind,
            Kind::FindSecret | Kind::Deliver | Kind::DeliverJob
        ) {
            self.importing.set(true);
        }
        if let Some(step) = Step::of_kind(header.kind) {
            return self.take_steps(core, step, header, body);
        }
        match header.kind {
            Kind::LookUp => self.look_up(core, header, body),
            Kind::Ping => {
                self.put_frame(Kind::PingReply, header.request_id, 0, |out| {
                    out.extend_from_slice(body)
                });
                core.mark_dirty(self);
                core.shared.notify.notify_one();
            }
            Kind::ServerInfo
            | Kind::SkuCreate
            | Kind::SkuList
            | Kind::SkuSet
            | Kind::Stock
            | Kind::MoveCards
            | Kind::FindSecret
            | Kind::ListCards
            | Kind::ListBatches
            | Kind::ListOrders
            | Kind::Pick
            | Kind::Deliver
            | Kind::TakeJobs
            | Kind::DeliverJob
            | Kind::EndJob
            | Kind::RetryList
            | Kind::RetryMove
            | Kind::ImportBegin
            | Kind::ImportRows
            | Kind::ImportEnd
            | Kind::RoutesLoad
            | Kind::RoutesShow
            | Kind::RoutesStatus
            | Kind::ChannelsStatus
            | Kind::ChannelMove
            | Kind::RoutesHistory
            | Kind::RoutesRollback
            | Kind::CanaryStart
            | Kind::CanaryStatus
            | Kind::CanaryAbort
            | Kind::CanaryResume
            | Kind::Feed => self.jobs.borrow_mut().push_back(Job {
                kind: header.kind,
                request_id: header.request_id,
                count: header.count,
                body: body.to_vec(),
            }),
            reply => self.fault(
                header.request_id,
                FaultCode::UnknownKind,
                &format!("{reply:?} is no request"),
            ),
        }
    }

    fn hello(&self, core: &Core, header: &FrameHeader, body: &[u8]) {
        if self.greeted.get() {
            return self.fault(
                header.request_id,
                FaultCode::HelloTwice,
                "Hello was said before",
            );
        }
        let hello = match Hello::decode(body) {
            Ok(hello) => hello,
            Err(error) => {
                return self.fault(header.request_id, FaultCode::Malformed, &error.to_string());
            }
        };
        let Some(version) = hello.common_version() else {
            let text = format!("this server speaks version {PROTOCOL_VERSION}");
            return self.fault(header.request_id, FaultCode::UnsupportedVersion, &text);
        };
        self.greeted.set(true);
        let config = &core.engine.config;
        let reply = HelloReply {
            version,
            frame_bytes_max: config.frame_bytes_max,
            features: 0,
            store_id: core.engine.store.store_id,
            orders_per_frame_max: orders_per_frame_max(core),
            orders_in_flight_max: config.orders_in_flight_max,
            quantity_max: config.quantity_max,
        };
        self.put_frame(Kind::HelloReply, header.request_id, 0, |out| {
            reply.encode_into(out)
        });
        self.flush();
    }

    /// Opens a place where the answers of a request are gathered.
    fn gather(&self, kind: Kind, request_id: u64, orders: u16) -> u32 {
        let mut requests = self.requests.borrow_mut();
        let slot = requests.free.pop().unwrap_or_else(|| {
            requests.slots.push(Request::default());
            requests.slots.len() as u32 - 1
        });
        let request = &mut requests.slots[slot as usize];
        (request.kind, request.request_id, request.missing) = (kind, request_id, orders.into());
        // Each is overwritten by its answer before any is told.
        let verdict = Verdict::refused(Refusal::StoreFailed, 0);
        let unknown = Outcome {
            ticket: self.ticket(0, 0, slot, 0),
            id: 0,
            sku: 0,
            verdict,
        };
        request.outcomes.resize(orders.into(), unknown);
        slot
    }

    fn ticket(&self, core: u16, index: u16, request_slot: u32, request_id: u64) -> Ticket {
        Ticket {
            core,
            index,
            connection: self.slot,
            use_of_slot: self.use_of_slot,
            request_slot,
            request_id,
        }
    }

    fn take_steps(self: &Rc<Self>, core: &Core, step: Step, header: &FrameHeader, body: &[u8]) {
        let items = match step_items(body, header.count) {
            Ok(items) => items,
            Err(error) => {
                return self.fault(header.request_id, FaultCode::Malformed, &error.to_string());
            }
        };
        let Some(request_slot) = self.open_request(core, header.kind.reply_of(), header) else {
            return;
        };
        let mut now = None;
        let mut deadline = |item: &StepItem| match item.deadline_ms {
            0 => u64::MAX,
            // One clock read for all deadlines of a frame.
            after => *now.get_or_insert_with(unix_ms) + u64::from(after),
        };
        let mut items = items.enumerate();
        while let Some((index, item)) = items.next() {
            let ticket = self.ticket(core.index, index as u16, request_slot, header.request_id);
            let (id, sku) = (item.order_id.as_u128(), item.sku.0);
            let deadline_unix_ms = deadline(&item);
            let taken = Order::of_item(step, &item, deadline_unix_ms, ticket)
                .and_then(|order| self.enqueue(core, order));
            if let Err(refusal) = taken {
                // A linked item is none that is taken alone.
                if begins_chain(step, &item) {
                    let ticket = |index| Ticket { index, ..ticket };
                    let behind = std::iter::from_fn(|| items.next());
                    let all = std::iter::once((index, item)).chain(behind);
                    let asked = |(index, item)| (item, deadline(&item), ticket(index as u16));
                    self.take_chain(core, step, all.map(asked));
                    continue;
                }
                answer_refused(core, ticket, (id, sku), refusal);
            }
        }
        core.shared.notify.notify_one();
    }

    /// Takes the chain that the next items are.
    #[cold]
    fn take_chain(&self, core: &Core, step: Step, items: impl Iterator<Item = linked::Asked>) {
        let mut asked = Vec::new();
        for next in items {
            let goes_on = begins_chain(step, &next.0);
            asked.push(next);
            if !goes_on {
                break;
            }
        }
        let chain = linked::chain_of(step, &asked, |order| {
            core.came(order);
            let lane = core.dealer.borrow_mut().lane_of(order)?;
            self.lane.set(lane);
            Ok(lane)
        });
        let chains = &core.shared.queues.chains;
        let queued = chain.and_then(|chain| {
            let full = |_| vec![Refusal::Busy; asked.len()];
            chains.push(chain).map_err(full)
        });
        for (refusal, (item, _, ticket)) in queued.err().into_iter().flatten().zip(&asked) {
            let what = (item.order_id.as_u128(), item.sku.0);
            answer_refused(core, *ticket, what, refusal);
        }
    }

    fn enqueue(&self, core: &Core, order: Order) -> Result<(), Refusal> {
        core.came(&order);
        let lane = core.dealer.borrow_mut().lane_of(&order)?;
        self.lane.set(lane);
        core.shared
            .queues
            .lanes
            .push(lane, order)
            .map_err(|_| Refusal::Busy)
    }

    /// Counts a request as in flight; `None` when it has been answered already.
    fn open_request(self: &Rc<Self>, core: &Core, kind: Kind, header: &FrameHeader) -> Option<u32> {
        if u32::from(header.count) > orders_per_frame_max(core) {
            let most = orders_per_frame_max(core);
            self.refuse(
                header.request_id,
                Refusal::TooManyOrders,
                &format!("at most {most} orders a frame"),
            );
        } else if header.count == 0 {
            self.put_frame(kind, header.request_id, 0, |_| ());
        } else {
            self.in_flight
                .set(self.in_flight.get() + u32::from(header.count));
            let single = header.count == 1 && kind == Kind::IssueReply;
            return Some(if single {
                SINGLE
            } else {
                self.gather(kind, header.request_id, header.count)
            });
        }
        core.mark_dirty(self);
        core.shared.notify.notify_one();
        None
    }

    fn look_up(self: &Rc<Self>, core: &Core, header: &FrameHeader, body: &[u8]) {
        let ids = match lookup_items(body, header.count) {
            Ok(ids) => ids,
            Err(error) => {
                return self.fault(header.request_id, FaultCode::Malformed, &error.to_string());
            }
        };
        let Some(request_slot) = self.open_request(core, Kind::LookUpReply, header) else {
            return;
        };
        let index = &core.engine.state.index;
        for (nth, id) in ids.enumerate() {
            let id = id.as_u128();
            let ticket = self.ticket(core.index, nth as u16, request_slot, header.request_id);
            let (sku, verdict) = dealer::holds::look_up(index, id);
            core.answer_when_durable(Outcome {
                ticket,
                id,
                sku,
                verdict,
            });
        }
        core.shared.notify.notify_one();
    }
}

/// Refuses an order that has not been taken in.
fn answer_refused(core: &Core, ticket: Ticket, (id, sku): (u128, u32), refusal: Refusal) {
    let retry_after_ms = if refusal.retryable() {
        RETRY_AFTER_MS
    } else {
        0
    };
    core.answer(&Outcome {
        ticket,
        id,
        sku,
        verdict: Verdict::refused(refusal, retry_after_ms),
    });
}

fn orders_per_frame_max(core: &Core) -> u32 {
    let config = &core.engine.config;
    let by_request = (config.frame_bytes_max as usize - croupier_protocol::FRAME_HEADER_BYTES) / 32;
    // An answer that is refused takes more than its request; several frames may carry it.
    (by_request as u32)
        .min(config.orders_in_flight_max)
        .min(u16::MAX.into())
}

const _: () = assert!(OrderItemHead::BYTES == 48);

/// Serves a connection until either side closes it.
pub async fn serve(core: &Rc<Core>, connection: &Rc<Connection>, read: OwnedReadHalf) {
    let mut imports = control::Imports::default();
    converse(core, connection, read, &mut imports).await;
    connection.dead.set(true);
    connection.worker.end(&core.engine);
    // Removing the files of an import that was cut short is not for a dealer's thread.
    core.cold.spawn_blocking(move || drop(imports));
}

async fn converse(
    core: &Rc<Core>,
    connection: &Rc<Connection>,
    mut read: OwnedReadHalf,
    imports: &mut control::Imports,
) {
    // What has been read and is not a whole frame yet, or waits for room.
    let mut partial = BytesMut::new();
    while !connection.dead.get() {
        connection.tick.set(core.ticks.get());
        loop {
            let is_free = |job: &Job| !is_delivery(job.kind) || !connection.worker.is_full();
            // One delivery too many waits here, and with it what comes behind.
            let Some(job) = connection
                .jobs
                .borrow_mut()
                .pop_front_if(|job| is_free(job))
            else {
                break;
            };
            match job.kind {
                // It may wait for long, and nothing else waits for it.
                Kind::Feed => feed::start(core, connection, job),
                Kind::TakeJobs | Kind::DeliverJob | Kind::EndJob => {
                    jobs::start(core, connection, job);
                }
                _ => control::run(core, connection, imports, job).await,
            }
            connection.flush();
            // There is room for another cold request now; the next parse finds out whether that is enough.
            connection.full.set(false);
        }
        let has_output = !connection.out.borrow().is_empty();
        if connection.closing.get() && !has_output {
            return linger(connection, &mut read).await;
        }
        if !connection.full.get() && !partial.is_empty() && !connection.closing.get() {
            let parsed = connection.parse(core, &partial);
            consume(connection, core, &mut partial, parsed.used);
            if parsed.used > 0 {
                continue;
            }
        }
        let may_read = !connection.full.get()
            && !connection.closing.get()
            && connection.out.borrow().len() < OUT_BYTES_HIGH;
        tokio::select! {
            biased;
            () = connection.wake.notified() => {}
            writable = connection.write.writable(), if has_output => match writable {
                Ok(()) => connection.flush(),
                Err(_) => return,
            },
            got = read_some(core, connection, &mut read, &mut partial), if may_read => match got {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            },
        }
    }
}

fn is_delivery(kind: Kind) -> bool {
    matches!(kind, Kind::DeliverJob | Kind::EndJob)
}

/// Lets the peer read the last words before the connection is reset by what it still sends.
async fn linger(connection: &Connection, read: &mut OwnedReadHalf) {
    use tokio::io::AsyncReadExt as _;
    let _ = socket2::SockRef::from(connection.write.as_ref()).shutdown(std::net::Shutdown::Write);
    let mut sink = [0; 4096];
    let drain = async { while matches!(read.read(&mut sink).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(std::time::Duration::from_millis(500), drain).await;
}

/// Reads once and takes the whole frames of what came; false at the end of the stream.
async fn read_some(
    core: &Core,
    connection: &Rc<Connection>,
    read: &mut OwnedReadHalf,
    partial: &mut BytesMut,
) -> io::Result<bool> {
    std::future::poll_fn(|context| {
        // Looked at before anything is read: only who has something to read waits at the gate.
        std::task::ready!(read.as_ref().poll_read_ready(context))?;
        let Some(bytes_max) = core.admit(connection) else {
            return std::task::Poll::Pending;
        };
        let mut scratch = core.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch[..bytes_max]);
        std::task::ready!(Pin::new(&mut *read).poll_read(context, &mut buffer))?;
        let got = buffer.filled_mut();
        if got.is_empty() {
            return std::task::Poll::Ready(Ok(false));
        }
        if partial.is_empty() {
            let parsed = connection.parse(core, got);
            partial.extend_from_slice(&got[parsed.used..]);
            note_partial(connection, core, partial.is_empty());
        } else {
            partial.extend_from_slice(got);
            let parsed = connection.parse(core, partial);
            consume(connection, core, partial, parsed.used);
        }
        if connection.importing.get() {
            // Rows carry secrets.
            got.zeroize();
        }
        std::task::Poll::Ready(Ok(true))
    })
    .await
}

/// Drops what has been taken from the front of `partial`.
fn consume(connection: &Connection, core: &Core, partial: &mut BytesMut, used: usize) {
    if connection.importing.get() {
        partial[..used].zeroize();
    }
    partial.advance(used);
    if partial.is_empty() {
        // Gives back what a large frame has taken.
        *partial = BytesMut::new();
    }
    note_partial(connection, core, partial.is_empty());
}

/// Keeps the time since when a frame is unfinished, for the time-out.
fn note_partial(connection: &Connection, core: &Core, whole: bool) {
    let waits_for_us = connection.full.get();
    connection
        .partial_since
        .set((!whole && !waits_for_us).then(|| core.ticks.get()));
}
