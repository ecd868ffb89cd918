//! One core: a thread with its own listener, its connections and its dealer, on one single-threaded runtime.
//!
//! Connections read frames and put orders into the lanes; the dealing loop deals a batch, hands the answers that have
//! become durable to their connections, and writes once per connection and round. Only lanes, inbox and handed sockets
//! are reached from other cores, and all three are lock-free.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use croupier_protocol::{FRAME_TIMEOUT_MS, FaultCode, HELLO_TIMEOUT_MS};
use tokio::sync::Notify;

use super::connection::{self, Connection, Table};
use super::placement::Placement;
use crate::canary::watch::Watch;
use crate::clock::unix_ms;
use crate::dealer::{Append, Dealer, OrderLimits};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::order::{Order, Outcome};
use crate::turns::{Pick, Queues, SHORT_TURN_ORDERS_MAX, TAKE_ABOVE_ORDERS, Turns};
use crate::wal::Log;
use crate::wal::log::Subscriber;
use crate::wal::ring::UNIT_WORDS;

/// Sockets on their way to another core.
const HANDED_MAX: usize = 1024;
/// Units of the log that a core commits itself: a few orders of few cards.
const FEW_UNITS: usize = 4;
/// How often timeouts are looked at.
const TICK: Duration = Duration::from_secs(1);
/// A connection that takes nothing for so long is closed.
const WRITE_STALL_TICKS: u64 = 60;
/// How long a core with holds that are over waits before it looks again whether it can record that.
const UNABLE_PAUSE: Duration = Duration::from_millis(100);
/// Listen backlog.
const BACKLOG: i32 = 4096;

/// What other threads see of a core.
pub struct CoreShared {
    pub queues: Queues,
    /// Connections accepted by another core and handed to this one.
    handed: ArrayQueue<std::net::TcpStream>,
    handed_notify: Notify,
    pub notify: Arc<Notify>,
    pub subscriber: Arc<Subscriber>,
    idle: AtomicBool,
    busy: AtomicBool,
    connections: AtomicUsize,
    /// For how long this core's thread has had something to do, in nanoseconds.
    wanted_ns: AtomicU64,
}

impl CoreShared {
    pub fn new(lane_orders_max: usize) -> CoreShared {
        let notify = Arc::new(Notify::new());
        let wake = notify.clone();
        CoreShared {
            queues: Queues::new(lane_orders_max),
            handed: ArrayQueue::new(HANDED_MAX),
            handed_notify: Notify::new(),
            notify,
            subscriber: Subscriber::new(move || wake.notify_one()),
            idle: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            wanted_ns: AtomicU64::new(0),
        }
    }

    /// For how long this core's thread has run or waited for a CPU, in nanoseconds, as of the last [`MEASURE_EVERY`].
    pub fn wanted_ns(&self) -> u64 {
        self.wanted_ns.load(Ordering::Relaxed)
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether orders wait or answers are owed.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) || !self.queues.is_empty()
    }
}

impl AsRef<Queues> for Arc<CoreShared> {
    fn as_ref(&self) -> &Queues {
        &self.queues
    }
}

/// Takes the port once per core.
pub fn listen(addr: SocketAddr, cores: u32) -> Result<(Vec<TcpListener>, SocketAddr), EngineError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let fault = |source| EngineError::Listen {
        addr,
        flag: "--listen",
        source,
    };
    let bind = |addr: SocketAddr, shared: bool| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    // Unshared first: a port that somebody else shares with us would otherwise go unnoticed.
    let probe = bind(addr, false).map_err(fault)?;
    probe.listen(1).map_err(fault)?;
    let local = probe
        .local_addr()
        .map_err(fault)?
        .as_socket()
        .expect("an internet address");
    drop(probe);
    let listeners = (0..cores)
        .map(|_| {
            let socket = bind(local, true)?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect::<io::Result<_>>()
        .map_err(fault)?;
    Ok((listeners, local))
}

/// All a core's thread needs.
pub struct Body {
    pub index: u16,
    /// The CPU of this core; others share it if there are more cores than CPUs.
    pub cpu: usize,
    pub engine: Arc<Engine>,
    pub cores: Arc<[Arc<CoreShared>]>,
    pub listener: TcpListener,
    pub cold: tokio::runtime::Handle,
    pub stop: Arc<AtomicBool>,
}

impl Body {
    /// The thread's whole life. A panic here is a broken promise to somebody: it ends the writer, and with it the
    /// process, instead of leaving a core silent.
    pub fn run(self) {
        let engine = self.engine.clone();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.serve())).is_err() {
            engine.log.fail("a core's thread panicked");
        }
    }

    fn serve(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "a core has no runtime"),
        };
        runtime.block_on(async move {
            let core = Rc::new(Core::new(&self));
            tokio::task::spawn_local(accept(core.clone(), self.listener));
            tokio::task::spawn_local(tick(core.clone()));
            tokio::task::spawn_local(measure(core.clone()));
            // A task like those of the connections, which go before it when it yields.
            let dealing = tokio::task::spawn_local(async move { core.deal(&self.stop).await });
            dealing.await.expect("a panic ends the thread");
        });
    }
}

/// What only this core's thread touches.
pub struct Core {
    pub index: u16,
    pub engine: Arc<Engine>,
    pub shared: Arc<CoreShared>,
    cores: Arc<[Arc<CoreShared>]>,
    pub cold: tokio::runtime::Handle,
    pub dealer: RefCell<Dealer>,
    /// Orders that are measured.
    watch: RefCell<Watch>,
    pub table: RefCell<Table>,
    /// Connections with something to write.
    dirty: RefCell<Vec<Rc<Connection>>>,
    /// What sockets are read into; shared, because only one reads at a time.
    pub scratch: RefCell<Box<[u8]>>,
    placement: Option<Placement>,
    /// Turns are short just now, and little is read before each ([`Turns::is_hurried`]).
    hurried: Cell<bool>,
    /// Connections that have something to read and must wait, in the order in which they came.
    gate: RefCell<VecDeque<Rc<Connection>>>,
    /// Seconds since the core began.
    pub ticks: Cell<u64>,
}

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 256 << 10;
/// Orders, of one card and a frame each, read from a socket at a time while turns are short.
const HURRIED_READ_ORDERS: usize = 128;
const HURRIED_READ_BYTES: usize = HURRIED_READ_ORDERS
    * (croupier_protocol::FRAME_HEADER_BYTES + croupier_protocol::StepItem::BYTES);

impl Core {
    fn new(body: &Body) -> Core {
        let limits = OrderLimits::of(&body.engine.config);
        let state = body.engine.state.clone();
        let mut dealer = Dealer::new(state, &body.engine.routes, limits);
        dealer.adopt(body.index.into(), body.cores.len());
        if body.index == 0 {
            let shared = body.cores[0].clone();
            let ring = move || shared.notify.notify_one();
            body.engine.state.desk.on_call(Box::new(ring));
        }
        Core {
            index: body.index,
            engine: body.engine.clone(),
            shared: body.cores[usize::from(body.index)].clone(),
            cores: body.cores.clone(),
            cold: body.cold.clone(),
            dealer: RefCell::new(dealer),
            watch: RefCell::new(Watch::new(body.index.into())),
            table: RefCell::default(),
            dirty: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_BYTES].into()),
            placement: Placement::new(body.cpu),
            hurried: Cell::new(false),
            gate: RefCell::default(),
            ticks: Cell::new(0),
        }
    }

    /// Marks a connection to be written at the end of this round.
    pub fn mark_dirty(&self, connection: &Rc<Connection>) {
        if !connection.dirty.replace(true) {
            self.dirty.borrow_mut().push(connection.clone());
        }
    }

    /// An order that asks for cards has come.
    pub fn came(&self, order: &Order) {
        if !order.follows() {
            self.watch.borrow_mut().came(order.id, Instant::now);
        }
    }

    /// Hands a verdict to its connection, if that is still there.
    pub fn answer(&self, outcome: &Outcome) {
        self.watch.borrow_mut().answered(outcome, Instant::now);
        let connection = self
            .table
            .borrow()
            .get(outcome.ticket.connection, outcome.ticket.use_of_slot);
        if let Some(connection) = connection {
            connection.answer(self, outcome);
            self.mark_dirty(&connection);
        }
    }

    /// Answers at once what is durable, and the rest when it is.
    pub fn answer_when_durable(&self, outcome: Outcome) {
        if outcome.lsn() < self.engine.log.durable() {
            self.answer(&outcome);
        } else {
            self.shared.queues.inbox.push(outcome);
        }
    }

    fn flush(&self) {
        for connection in self.dirty.borrow_mut().drain(..) {
            connection.dirty.set(false);
            connection.flush();
        }
    }

    /// The dealing loop; ends when `stop` is set.
    async fn deal(&self, stop: &AtomicBool) {
        let mut turns = Turns::new(self.index, TAKE_ABOVE_ORDERS);
        while !stop.load(Ordering::Acquire) {
            self.shared.busy.store(true, Ordering::Release);
            let log = &self.engine.log;
            let answered = turns.answer_durable(&self.cores, log, |outcome| self.answer(outcome));
            // Before the turn: it takes its time, and these answers have waited long enough.
            self.flush();
            let near = NearLog::new(log);
            let picked = self.turn(&mut turns, &near);
            self.flush();
            near.commit(self.hurried.get() || !turns.has_more() && self.shared.queues.is_empty());
            if self.hurried.get() {
                // Before more is read: most is durable already.
                turns.answer_durable(&self.cores, log, |outcome| self.answer(outcome));
                self.flush();
            }
            let goes_on = answered || picked == Pick::Batch || turns.has_deferred();
            // Who sleeps is woken by those who read.
            self.open_gate(!goes_on);
            if goes_on {
                // Deferred: another core is just dealing the same ids; it needs a moment, not a system call.
                tokio::task::yield_now().await;
                continue;
            }
            if picked == Pick::NoRoom || turns.oldest_awaited().is_some() {
                self.await_durable(turns.oldest_awaited()).await;
                continue;
            }
            // SeqCst on both sides: whoever has put something in afterwards sees that this core is idle.
            self.shared.idle.store(true, Ordering::SeqCst);
            if self.shared.queues.is_empty() {
                // Who stops waits until nobody stays here.
                let stays = self.dealer.borrow().has_staying();
                self.shared.busy.store(stays, Ordering::Release);
                self.rest().await;
            }
            self.shared.idle.store(false, Ordering::SeqCst);
        }
    }

    /// Sleeps until anything happens, or the time of a hold is up.
    async fn rest(&self) {
        let next = self.dealer.borrow().next_end_unix_ms();
        let happens = self.shared.notify.notified();
        match next {
            None => happens.await,
            Some(next) => {
                let mut left = Duration::from_millis(next.saturating_sub(unix_ms()));
                if self.engine.cannot_record().is_some() {
                    // What is due stays so; nobody says when that ends.
                    left = left.max(UNABLE_PAUSE);
                }
                // Either way the next round looks at everything.
                let _ = tokio::time::timeout(left, happens).await;
            }
        }
    }

    /// Sleeps until what the oldest answer waits for is durable, or anything else happens. Without such an answer any
    /// progress of the log will do: it makes room.
    async fn await_durable(&self, oldest: Option<u64>) {
        let log = &self.engine.log;
        let wanted = oldest.unwrap_or_else(|| log.durable());
        self.shared.subscriber.want(wanted);
        if log.durable() <= wanted
            && log.failure().is_none()
            && (oldest.is_some() || !log.has_room())
        {
            self.shared.notify.notified().await;
        }
    }

    /// Bytes that a connection with something to read may read now; `None`: it waits at the gate.
    ///
    /// As long as orders of the highest lane come while others wait, no more is read than the next turn takes, but for
    /// connections that bring orders of the highest: else these would be seen only when everything there is has been read.
    pub fn admit(&self, connection: &Rc<Connection>) -> Option<usize> {
        if !self.hurried.get() || connection.is_urgent() {
            return Some(READ_BYTES);
        }
        let mut gate = self.gate.borrow_mut();
        // In the order in which they came.
        if connection.is_admitted.replace(false)
            || gate.is_empty() && self.shared.queues.lanes.depth() < SHORT_TURN_ORDERS_MAX
        {
            return Some(HURRIED_READ_BYTES);
        }
        gate.push_back(connection.clone());
        None
    }

    /// Lets connections in that wait at the gate, as many as bring orders for a turn, or all of them.
    fn open_gate(&self, all: bool) {
        let mut gate = self.gate.borrow_mut();
        let waiting = self.shared.queues.lanes.depth();
        let many = if self.hurried.get() && !all {
            SHORT_TURN_ORDERS_MAX
                .saturating_sub(waiting)
                .div_ceil(HURRIED_READ_ORDERS)
        } else {
            usize::MAX
        };
        let many = many.min(gate.len());
        for connection in gate.drain(..many) {
            connection.is_admitted.set(true);
            connection.look();
        }
    }

    /// Deals one batch, if there is one and the log has room for it.
    fn turn(&self, turns: &mut Turns, near: &NearLog<'_>) -> Pick {
        let log = &self.engine.log;
        let mut dealer = self.dealer.borrow_mut();
        let now = unix_ms();
        let due = dealer.units_due(now, self.engine.cannot_record());
        let picked = turns.pick(&self.cores, log, now, due);
        self.hurried.set(turns.is_hurried(now));
        near.hurried.set(self.hurried.get());
        if picked == Pick::Batch {
            let refusal = self.engine.cannot_record();
            if let Some(placement) = &self.placement {
                placement.dealt(turns.picked());
            }
            turns.deal(&mut dealer, now, near, refusal);
            self.watch.borrow_mut().follow(dealer.trial());
            drop(dealer);
            let away = turns.sort_out(&self.cores, |outcome| self.answer(outcome));
            self.wake_others(away);
        }
        picked
    }

    /// Wakes cores whose orders were dealt here, and an idle one when more waits here than one turn takes.
    fn wake_others(&self, away: u64) {
        if away != 0 {
            let homes = self
                .cores
                .iter()
                .enumerate()
                .filter(|(index, _)| away & (1 << (index % 64)) != 0);
            homes.for_each(|(_, home)| home.notify.notify_one());
        }
        if self.cores.len() > 1 && self.shared.queues.lanes.depth() > TAKE_ABOVE_ORDERS {
            let idle = self
                .cores
                .iter()
                .find(|core| core.idle.swap(false, Ordering::SeqCst));
            if let Some(core) = idle {
                core.notify.notify_one();
            }
        }
    }
}

/// The log as a core's dealer sees it. What many orders append wakes the committer at once, so that it writes while the
/// core goes on. What a few append the core commits itself, when it has done with them, if the committer sleeps: waking
/// it, and being woken by it, would take longer than a core has other things to do.
struct NearLog<'l> {
    log: &'l Log,
    is_left: Cell<bool>,
    /// While turns are short, the core commits whatever it appends: a thread that it woke might have to wait for its CPU.
    hurried: Cell<bool>,
}

impl<'l> NearLog<'l> {
    fn new(log: &'l Log) -> NearLog<'l> {
        NearLog {
            log,
            is_left: Cell::new(false),
            hurried: Cell::new(false),
        }
    }

    /// `here`: this core has nothing else to deal.
    fn commit(self, here: bool) {
        if self.is_left.get() && here {
            self.log.commit_here();
        } else if self.is_left.get() {
            self.log.wake_committer();
        }
    }
}

impl Append for NearLog<'_> {
    fn append(&self, units: &[u64]) -> Option<u64> {
        if units.len() > FEW_UNITS * UNIT_WORDS && !self.hurried.get() {
            return self.log.append(units);
        }
        self.is_left.set(true);
        self.log.append_quietly(units)
    }

    fn units_max(&self) -> usize {
        self.log.append_units_max() as usize
    }
}

/// Accepts connections and takes those that other cores hand over.
async fn accept(core: Rc<Core>, listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a core cannot accept connections"),
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(stream) = hand_over(&core, stream) {
                        open(&core, stream);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of descriptors, most likely: without a pause this would spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = core.shared.handed_notify.notified() => {
                while let Some(stream) = core.shared.handed.pop() {
                    core.shared.connections.fetch_sub(1, Ordering::Relaxed);
                    if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                        open(&core, stream);
                    }
                }
            }
        }
    }
}

/// Gives the connection to the core with the fewest, unless that is this one.
fn hand_over(core: &Core, stream: tokio::net::TcpStream) -> Option<tokio::net::TcpStream> {
    let least = core
        .cores
        .iter()
        .min_by_key(|other| other.connections())
        .expect("at least this core");
    if Arc::ptr_eq(least, &core.shared) || least.connections() + 1 > core.shared.connections() {
        return Some(stream);
    }
    let Ok(stream) = stream.into_std() else {
        return None;
    };
    // Counted at once, so that a burst does not go all to one core.
    least.connections.fetch_add(1, Ordering::Relaxed);
    match least.handed.push(stream) {
        Ok(()) => {
            least.handed_notify.notify_one();
            None
        }
        Err(stream) => {
            least.connections.fetch_sub(1, Ordering::Relaxed);
            tokio::net::TcpStream::from_std(stream).ok()
        }
    }
}

/// Begins to serve a connection on this core.
fn open(core: &Rc<Core>, stream: tokio::net::TcpStream) {
    let open_now: usize = core.cores.iter().map(|other| other.connections()).sum();
    let too_many = open_now >= core.engine.config.connections_max as usize;
    // Without it every small answer would wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_keepalive(true);
    core.shared.connections.fetch_add(1, Ordering::Relaxed);
    let (connection, read) = core.table.borrow_mut().open(stream, core.ticks.get());
    let core = core.clone();
    tokio::task::spawn_local(async move {
        if too_many {
            connection.fault(
                0,
                FaultCode::TooManyConnections,
                "this server has as many connections as it may",
            );
        }
        connection::serve(&core, &connection, read).await;
        core.table.borrow_mut().close(&connection);
        core.shared.connections.fetch_sub(1, Ordering::Relaxed);
    });
}

/// For how long the calling thread has run, or waited for a CPU that others had, in nanoseconds.
fn wanted_ns() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut numbers = told
        .split_whitespace()
        .map_while(|word| word.parse::<u64>().ok());
    if let (Some(ran), Some(waited)) = (numbers.next(), numbers.next()) {
        return ran + waited;
    }
    // A system that does not count what threads wait.
    let ran = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    ran.tv_sec as u64 * 1_000_000_000 + ran.tv_nsec as u64
}

/// How often a core says how much it has had to do, and the load is made of that.
pub const MEASURE_EVERY: Duration = Duration::from_millis(100);

/// Says how long this core's thread has had something to do: only the thread itself can ask without much ado.
async fn measure(core: Rc<Core>) {
    let mut every = tokio::time::interval(MEASURE_EVERY);
    // One that comes late is not made up for.
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        core.shared.wanted_ns.store(wanted_ns(), Ordering::Relaxed);
    }
}

/// Once a second: closes connections that let the server wait.
async fn tick(core: Rc<Core>) {
    let mut every = tokio::time::interval(TICK);
    loop {
        every.tick().await;
        let now = core.ticks.get() + 1;
        core.ticks.set(now);
        if let Some(placement) = &core.placement {
            placement.settle();
        }
        let connections: Vec<_> = core.table.borrow().iter().cloned().collect();
        for connection in connections {
            let hello =
                !connection.greeted.get() && now - connection.opened_tick > HELLO_TIMEOUT_MS / 1000;
            let partial = connection
                .partial_since
                .get()
                .is_some_and(|since| now - since > FRAME_TIMEOUT_MS / 1000);
            if hello {
                connection.fault(0, FaultCode::TimedOut, "no Hello within 10 s");
            } else if partial {
                connection.fault(
                    0,
                    FaultCode::TimedOut,
                    "a frame was begun and not finished within 30 s",
                );
            } else if connection
                .stalled_since
                .get()
                .is_some_and(|since| now - since > WRITE_STALL_TICKS)
            {
                connection.abort();
            }
        }
    }
}
