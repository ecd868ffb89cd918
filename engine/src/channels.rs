//! Channels that are no local stock: cards are fetched for orders that wait. The page is docs/channels.md.
//!
//! [`dispatcher`] says which channel is asked for which order, [`fleet`] which channels may be asked: both are pure. Here is
//! what they stand on: the orders in line, the workers that wait for jobs, the records. One thread follows it all; whoever
//! delivers or fails a job does so on the cold path. A dealer only says that an order has joined a line.

pub mod dispatcher;
pub mod fleet;
pub mod status;
pub mod upstream;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_queue::SegQueue;
use croupier_protocol::{
    DeliverJob, DeliverJobReply, EndJob, EndJobReply, FRAME_HEADER_BYTES, ImportRow, JOB_FLAG_ALL,
    JOB_REASON_BYTES_MAX, JOBS_MAX, JOBS_WAIT_MS_MAX, JobRow, JobState, NAME_BYTES_MAX, Name,
    Priority, Refusal, RejectedLine, TakeJobs, TakeJobsReply, WORKER_NAME_BYTES_MAX,
};
use tokio::sync::oneshot;

use crate::engine::{Engine, Refused};
use crate::route::{Asked, InForce, RouteTable, ToAsk};
use crate::routing::{Followed, followed};
use crate::state::Catalog;
use crate::state::index::{OrderIndex, OrderState};
use dispatcher::{Connection, Deed, Dispatcher, Ending, JobFor, NoOffer, Wanted, World};
use fleet::{Change, Fleet};

/// How often it is looked whether the table or the load has changed, if nothing else happens.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where the jobs of a TakeJobsReply begin in its frame, and how long one is at most, in bytes.
const JOBS_AT_BYTES: usize = FRAME_HEADER_BYTES + 4 + 8;
const JOB_BYTES: usize = 16 + 4 + 8 + NAME_BYTES_MAX + 2 + 8;

/// What an offer is answered with, in time.
pub type Answer = oneshot::Receiver<TakeJobsReply>;

/// The channels of a store.
pub struct Channels {
    inner: Mutex<Inner>,
    /// Whoever has it records changes, so that they are in the order in which they came.
    recording: Mutex<()>,
    /// Connections that have ended, of workers.
    gone: SegQueue<Connection>,
    connections: AtomicU64,
    bell: Bell,
}

struct Inner {
    dispatcher: Dispatcher,
    /// Who is answered, by the number of its offer.
    answers: HashMap<u64, (Connection, oneshot::Sender<TakeJobsReply>)>,
    offers: u64,
    /// How channels stand otherwise than before, to be recorded.
    changes: VecDeque<Change>,
    /// What the dispatcher goes by.
    followed: Followed,
}

/// Wakes the thread that follows.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    lock: Mutex<()>,
    told: Condvar,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // With the lock, so that nobody goes to sleep between a look and this.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.told.notify_one();
        }
    }

    /// Waits until it is rung, at most for so long.
    fn wait(&self, limit: Duration) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.rung.load(Ordering::Acquire) {
            let waited = self.told.wait_timeout(lock, limit);
            lock = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(lock);
        // A swap: what was told before the ring is seen.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// What the dispatcher asks of the engine, at one moment.
struct Now<'e> {
    tables: Arc<InForce>,
    unix_ms: u64,
    catalog: Arc<Catalog>,
    index: &'e OrderIndex,
}

impl World for Now<'_> {
    fn to_ask(&self, wanted: &Wanted) -> Option<ToAsk> {
        let sku = self.catalog.sku(wanted.sku)?;
        let asked = Asked {
            sku: wanted.sku,
            priority: Priority::try_from(wanted.priority).ok()?,
            quantity: wanted.quantity,
            holder: wanted.holder,
            tag: wanted.tag,
            id: wanted.id,
        };
        let table = self.tables.table_of(wanted.id);
        let to_ask = table.to_ask(&sku.name, &asked, table.moment(self.unix_ms))?;
        // The dispatcher goes by the table in force, which has all channels of the one on trial.
        match Arc::ptr_eq(table, &self.tables.table) {
            true => Some(to_ask),
            false => to_ask.of_channels(table.outside(), self.tables.table.outside()),
        }
    }

    fn waits(&self, wanted: &Wanted) -> bool {
        let order = self.index.order_of(wanted.row);
        order.is_some_and(|(id, settled)| {
            id == wanted.id && settled.lsn == wanted.lsn && settled.state == OrderState::Waiting
        })
    }

    fn is_buried(&self, wanted: &Wanted) -> bool {
        let hold = || {
            let (_, settled) = self.index.order_of(wanted.row)?;
            self.index.hold(settled)?.waits
        };
        self.waits(wanted) && hold().is_some_and(|waits| waits.tried.is_buried)
    }

    fn sku_name(&self, sku: u32) -> Option<String> {
        self.catalog.sku(sku).map(|sku| sku.name.clone())
    }
}

impl Channels {
    /// Those of a store in which nobody has asked for anything since the start.
    pub fn new(fleet: Fleet, table: &RouteTable) -> Channels {
        Channels {
            inner: Mutex::new(Inner {
                dispatcher: Dispatcher::new(fleet, table.retry()),
                answers: HashMap::new(),
                offers: 0,
                changes: VecDeque::new(),
                followed: Followed::default(),
            }),
            recording: Mutex::default(),
            gone: SegQueue::new(),
            connections: AtomicU64::new(1),
            bell: Bell::default(),
        }
    }

    /// A number for a connection, or another worker.
    pub fn connection(&self) -> Connection {
        // Relaxed: only uniqueness matters.
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// A worker's connection has ended.
    pub fn gone(&self, connection: Connection) {
        self.gone.push(connection);
        self.bell.ring();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Follows orders, workers and time until told to end: the body of a thread.
    pub fn follow_channels(self: &Arc<Engine>, is_over: impl Fn() -> bool) {
        self.watch_lines();
        while !is_over() {
            let next = self.follow_channels_once();
            let now = self.store.disk.unix_ms();
            let pause = next.map_or(LOOK_EVERY, |next| {
                Duration::from_millis(next.saturating_sub(now)).min(LOOK_EVERY)
            });
            self.channels.bell.wait(pause);
        }
    }

    /// Has orders that join lines be told to the dispatcher. First, so that none joins unseen.
    pub fn watch_lines(self: &Arc<Engine>) {
        let weak = Arc::downgrade(self);
        let ring = move || {
            if let Some(engine) = weak.upgrade() {
                engine.channels.bell.ring();
            }
        };
        self.state.desk.on_join(Box::new(ring));
    }

    /// One round of following; when the next is due at the latest, in Unix milliseconds.
    pub fn follow_channels_once(&self) -> Option<u64> {
        let mut inner = self.channels.inner();
        let now = self.store.disk.unix_ms();
        let world = self.world(now);
        let table = &world.tables.table;
        let followed = followed(&world.tables, now);
        let is_new = std::mem::replace(&mut inner.followed, followed) != followed;
        if is_new {
            inner.dispatcher.adopt(now, table);
            if !table.outside().is_empty() {
                for (_, settled, hold) in self.state.index.open_holds() {
                    if hold.waits.is_some() {
                        self.tell_wanted(&mut inner, now, (settled.row(), settled.lsn), &world);
                    }
                }
            }
        }
        while let Some(connection) = self.channels.gone.pop() {
            inner.answers.retain(|_, (of, _)| *of != connection);
            inner.dispatcher.gone(now, connection, &world);
        }
        while let Some(joined) = self.state.desk.next_joined() {
            if !table.outside().is_empty() {
                self.tell_wanted(&mut inner, now, joined, &world);
            }
        }
        inner.dispatcher.tick(now, &world);
        if self.draining.load(Ordering::Relaxed) {
            // Whoever waits for jobs is told that there will be none.
            inner.answers.clear();
        }
        let deeds = inner.do_gives(&self.channels);
        let next = inner.dispatcher.next_unix_ms();
        drop(inner);
        self.note(deeds);
        next
    }

    /// Has the dispatcher go by a table that has just been put in force or on trial: a worker of one of its channels may be quicker than
    /// the thread that follows.
    fn follow_tables(&self, now: u64) {
        let told = |all: Followed| all.map(|one| one.map(|(version, share, _)| (version, share)));
        let known = self.channels.inner().followed;
        if told(known) != told(followed(&self.routes.both(), now)) {
            self.follow_channels_once();
        }
    }

    fn world(&self, now: u64) -> Now<'_> {
        Now {
            tables: self.routes.both(),
            unix_ms: now,
            catalog: self.state.catalog.load_full(),
            index: &self.state.index,
        }
    }

    fn tell_wanted(&self, inner: &mut Inner, now: u64, (row, lsn): (u64, u64), world: &Now<'_>) {
        let index = &self.state.index;
        let Some((id, settled)) = index.order_of(row) else {
            return;
        };
        // First: of an order that waits no longer there is no hold to be looked for.
        if settled.state != OrderState::Waiting || settled.lsn != lsn {
            return;
        }
        let Some(hold) = index.hold(settled) else {
            return;
        };
        let Some(waits) = hold.waits else { return };
        let wanted = Wanted {
            id,
            row,
            lsn,
            sku: hold.sku,
            quantity: waits.quantity,
            priority: waits.priority,
            tag: waits.tag,
            holder: self.state.holders.of(id),
            ends_unix_ms: hold.ends_unix_ms,
            tried: waits.tried,
        };
        inner.dispatcher.wanted(now, wanted, world);
    }

    /// Records what is to be recorded.
    fn note(&self, deeds: Vec<Deed>) {
        if !self.channels.inner().changes.is_empty() {
            self.record_changes();
        }
        let notes = deeds.iter().filter_map(|deed| match deed {
            Deed::Note { wanted, tried } => Some((wanted.row, wanted.lsn, *tried)),
            _ => None,
        });
        let notes: Vec<_> = notes.collect();
        if !notes.is_empty()
            && let Err(refused) = self.note_tried(notes.into_iter())
        {
            // They are tried again as they were before; nothing is lost by it.
            tracing::warn!(why = %refused.text, "attempts for orders that wait could not be recorded");
        }
        let buried = deeds.iter().filter_map(|deed| match deed {
            Deed::Note { wanted, tried } => tried.is_buried.then_some(wanted.row),
            _ => None,
        });
        let mut buried = buried.peekable();
        if buried.peek().is_some() {
            let now = self.store.disk.unix_ms();
            let world = self.world(now);
            self.channels.inner().dispatcher.noted(now, buried, &world);
        }
    }

    /// A worker's offer: answered as soon as there are jobs.
    pub fn take_jobs(&self, connection: Connection, asked: &TakeJobs) -> Result<Answer, Refused> {
        let invalid = |text: String| Err(Refused::because(Refusal::JobInvalid, text));
        if !(1..=JOBS_MAX).contains(&asked.jobs_max) {
            return invalid(format!(
                "a worker takes 1 to {JOBS_MAX} jobs at a time, not {}",
                asked.jobs_max
            ));
        }
        if asked.worker.len() > WORKER_NAME_BYTES_MAX {
            return invalid(format!(
                "a worker's name has at most {WORKER_NAME_BYTES_MAX} bytes"
            ));
        }
        if let Some(refusal) = self.cannot_record() {
            return Err(Refused::plain(refusal));
        }
        let (tell, told) = oneshot::channel();
        let now = self.store.disk.unix_ms();
        self.follow_tables(now);
        let world = self.world(now);
        let mut inner = self.channels.inner();
        inner.offers += 1;
        let number = inner.offers;
        let until = now + u64::from(asked.wait_ms.min(JOBS_WAIT_MS_MAX));
        // The answer is one frame.
        let frame_bytes = self.config.frame_bytes_max as usize - JOBS_AT_BYTES;
        let room = asked.jobs_max.min((frame_bytes / JOB_BYTES).max(1) as u32);
        let offer = (number, room, until);
        let offered = inner
            .dispatcher
            .offer(now, &asked.channel, connection, offer, &world);
        match offered {
            Ok(()) => {}
            Err(NoOffer::UnknownChannel) => return Err(self.unknown_channel(&asked.channel)),
            Err(NoOffer::TooManyWorkers) => {
                return Err(Refused::plain(Refusal::TooManyWorkers));
            }
        }
        inner.answers.insert(number, (connection, tell));
        let deeds = inner.do_gives(&self.channels);
        drop(inner);
        self.note(deeds);
        self.channels.bell.ring();
        Ok(told)
    }

    fn unknown_channel(&self, name: &str) -> Refused {
        let table = self.routes.load();
        let known = table.outside().iter().map(|one| one.name.as_str());
        let known: Vec<&str> = known.collect();
        let text = match known.is_empty() {
            true => format!(
                "{name:?}: the route table in force has no issuers: add a [[channel]] of kind issuer"
            ),
            false => format!(
                "{name:?} is no issuer of the route table in force: it has {}",
                known.join(", ")
            ),
        };
        Refused::because(Refusal::ChannelUnknown, text)
    }

    /// Cards for a job: stock first, whatever becomes of the job.
    pub fn deliver_job(
        &self,
        asked: &DeliverJob<'_>,
        rows: &[ImportRow<'_>],
    ) -> Result<DeliverJobReply, Refused> {
        if asked.flags & !JOB_FLAG_ALL != 0 {
            return Err(Refused::plain(Refusal::UnsupportedFlag));
        }
        let id = u128::from_be_bytes(asked.job);
        let job = self.channels.inner().dispatcher.job(asked.channel, id);
        let pool = self.pool_of_channel(asked.channel)?;
        let sku = self.state.sku_by_name(asked.sku);
        if let (Some(job), Some(sku)) = (&job, sku)
            && job.sku != sku
        {
            let catalog = self.state.catalog.load();
            let wanted = catalog.sku(job.sku).map_or("", |sku| &sku.name);
            let text = format!(
                "the job is for SKU {wanted:?}, and the delivery names {:?}: nothing changed",
                asked.sku
            );
            return Err(Refused::because(Refusal::JobOther, text));
        }
        let first = job.map(|JobFor { row, lsn, .. }| (row, lsn));
        let delivered = self.deliver_for(asked.sku, Some(&pool), rows, first)?;
        let now = self.store.disk.unix_ms();
        self.follow_tables(now);
        let world = self.world(now);
        let mut inner = self.channels.inner();
        let (state, missing) = inner.dispatcher.delivered(
            now,
            (asked.channel, id),
            delivered.accepted,
            asked.flags & JOB_FLAG_ALL != 0,
            &world,
        );
        let deeds = inner.do_gives(&self.channels);
        drop(inner);
        self.note(deeds);
        self.channels.bell.ring();
        let rejections = delivered.rejections.into_iter();
        Ok(DeliverJobReply {
            lsn: delivered.lsn,
            accepted: delivered.accepted,
            rejections: rejections
                .map(|(line, reason)| RejectedLine {
                    line,
                    reason: reason.as_u16(),
                })
                .collect(),
            job: state.as_u16(),
            missing,
        })
    }

    /// Where cards of a channel go: also of one that has gone out of the table since.
    fn pool_of_channel(&self, channel: &str) -> Result<String, Refused> {
        let table = self.routes.load();
        let outside = table.outside().iter().find(|one| one.name == channel);
        if let Some(outside) = outside {
            return Ok(outside.pool.clone());
        }
        let known = self.channels.inner().dispatcher.pool(channel);
        known.ok_or_else(|| self.unknown_channel(channel))
    }

    /// A worker extends a job, or fails it.
    pub fn end_job(&self, asked: &EndJob) -> Result<EndJobReply, Refused> {
        let invalid = |text: &str| Err(Refused::because(Refusal::JobInvalid, text));
        if asked.reason.len() > JOB_REASON_BYTES_MAX {
            return invalid("a reason has at most 256 bytes");
        }
        let ending = match (asked.what, asked.extend_ms) {
            (1, 0) => return invalid("a job is extended by 1 ms or more"),
            (1, extend_ms) => Ending::Extend(extend_ms),
            (2, _) => Ending::Fail,
            (3, _) => Ending::FailForGood,
            _ => return invalid("a job is extended (1), failed (2) or failed for good (3)"),
        };
        Name::new(&asked.channel).map_err(|_| self.unknown_channel(&asked.channel))?;
        let now = self.store.disk.unix_ms();
        self.follow_tables(now);
        let world = self.world(now);
        let mut inner = self.channels.inner();
        let job = (asked.channel.as_str(), u128::from_be_bytes(asked.job));
        let (state, lease_ms) = inner
            .dispatcher
            .end(now, job, asked.attempt, ending, &world);
        let deeds = inner.do_gives(&self.channels);
        drop(inner);
        if state == JobState::Over && !asked.reason.is_empty() {
            tracing::debug!(channel = %asked.channel, reason = %asked.reason, "a job has failed");
        }
        self.note(deeds);
        self.channels.bell.ring();
        Ok(EndJobReply {
            job: state.as_u16(),
            lease_ms,
        })
    }
}

impl Inner {
    /// Answers offers, and keeps how channels stand; tells what else is to be done.
    fn do_gives(&mut self, channels: &Channels) -> Vec<Deed> {
        let mut rest = Vec::new();
        for deed in self.dispatcher.take_deeds() {
            let (offer, lease_ms, jobs) = match deed {
                Deed::Give {
                    offer,
                    lease_ms,
                    jobs,
                } => (offer, lease_ms, jobs),
                Deed::Change(change) => {
                    self.changes.push_back(change);
                    continue;
                }
                Deed::Note { .. } => {
                    rest.push(deed);
                    continue;
                }
            };
            let jobs = jobs.into_iter().map(|job| JobRow {
                job: job.id.to_be_bytes(),
                attempt: job.attempt,
                sku: job.sku_name,
                quantity: job.quantity,
                ends_unix_ms: job.ends_unix_ms,
            });
            let reply = TakeJobsReply {
                lease_ms,
                jobs: jobs.collect(),
            };
            if let Some((connection, answer)) = self.answers.remove(&offer)
                && answer.send(reply).is_err()
            {
                // It has gone meanwhile; perhaps that was told before its offer was here.
                channels.gone(connection);
            }
        }
        rest
    }
}
