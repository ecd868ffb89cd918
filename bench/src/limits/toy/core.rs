//! One core of a toy server: a pinned thread with a single-threaded runtime and the sessions handed to it.

use std::cell::{Cell, RefCell};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Receiver};

use super::Bell;
use super::committer::Queue;
use super::session::Session;

/// Bytes read from a socket at once.
const READ_BYTES: usize = 256 << 10;
/// Connections on their way to a core.
const HANDED_MAX: usize = 1024;

/// How the committer wakes a core: only if answers wait there, and once.
#[derive(Debug, Default)]
pub struct Wake {
    wanted: AtomicBool,
    notify: Notify,
}

impl Wake {
    /// Called when more is durable.
    pub fn ring(&self) {
        // SeqCst: see `want`.
        if self.wanted.load(Ordering::SeqCst) && self.wanted.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// The core stores this and then looks at the durable number; the committer stores that number and then looks
    /// here. Both are SeqCst, so one of them sees the other's, and no wake is lost.
    fn want(&self) {
        self.wanted.store(true, Ordering::SeqCst);
    }
}

/// What only the core's own thread touches.
#[derive(Debug)]
pub struct Core {
    /// Names the slab that this core's made-up cards are of.
    pub slab: u32,
    /// The next made-up slot.
    pub next_slot: Cell<u32>,
    /// `None` where nothing is committed.
    pub queue: Option<Arc<Queue>>,
    /// What sockets are read into; shared, because only one is read at a time.
    pub scratch: RefCell<Vec<u8>>,
    /// The records of one read.
    pub records: RefCell<BytesMut>,
    /// Sessions whose answers wait for the committer.
    waiting: RefCell<Vec<Rc<Session>>>,
    wake: Arc<Wake>,
}

impl Core {
    /// Answers of this session wait until a record number is durable.
    pub fn await_durable(&self, queue: &Queue, session: &Rc<Session>, record: u64) {
        if !session.waits.replace(true) {
            self.waiting.borrow_mut().push(session.clone());
        }
        self.wake.want();
        if queue.durable() >= record {
            self.wake.notify.notify_one();
        }
    }

    /// Writes what has become durable, once for each session.
    async fn answer_durable(self: Rc<Self>, queue: Arc<Queue>) {
        loop {
            self.wake.notify.notified().await;
            self.answer(queue.durable());
            if !self.waiting.borrow().is_empty() {
                self.wake.want();
                // What became durable in between rang nobody.
                self.answer(queue.durable());
            }
        }
    }

    fn answer(self: &Rc<Self>, durable: u64) {
        self.waiting.borrow_mut().retain(|session| {
            let waits = session.release(durable);
            session.waits.set(waits);
            waits
        });
    }
}

/// What the core's thread is made of.
pub struct Body {
    index: usize,
    streams: Receiver<TcpStream>,
    wake: Arc<Wake>,
}

/// Both ends of a core: what it is told through, and its body.
pub fn channel(index: usize) -> (Bell, Body) {
    let (sender, streams) = mpsc::channel(HANDED_MAX);
    let wake = Arc::new(Wake::default());
    (
        Bell {
            streams: sender,
            durable: wake.clone(),
        },
        Body {
            index,
            streams,
            wake,
        },
    )
}

impl Body {
    /// The thread's whole life.
    pub fn run(mut self, queue: Option<Arc<Queue>>) {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(self.index);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &cpus) {
            eprintln!("core {} is not pinned: {error}", self.index);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build_local(Default::default())
            .expect("the system has room for a runtime");
        runtime.block_on(async move {
            let core = Rc::new(Core {
                slab: self.index as u32 + 1,
                next_slot: Cell::new(0),
                queue,
                scratch: RefCell::new(vec![0; READ_BYTES]),
                records: RefCell::default(),
                waiting: RefCell::default(),
                wake: self.wake,
            });
            if let Some(queue) = core.queue.clone() {
                tokio::task::spawn_local(core.clone().answer_durable(queue));
            }
            while let Some(stream) = self.streams.recv().await {
                if let Err(error) = Session::open(&core, stream) {
                    eprintln!("a connection was lost: {error}");
                }
            }
        });
    }
}
