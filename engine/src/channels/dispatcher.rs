//! Which channel is asked for which order, and what becomes of that: docs/channels.md.
//!
//! Pure: events and `now` in, deeds out; no clock, no I/O, no chance but what hashes of order ids give. A simulator can run
//! it. What is durable of an order is not here: it waits in its line whatever the dispatcher thinks, whatever is delivered is
//! stock before the dispatcher hears of it, and after a restart it begins with nothing but the orders that wait.

mod asking;

use std::collections::{BTreeSet, HashMap, VecDeque};

use croupier_protocol::{JobState, RetryCause};

use asking::sorted;

use super::fleet::{Change, Fleet, JobEnd};
use crate::route::{Outside, Retry, RouteTable, ToAsk};
use crate::state::record::Tried;

/// Jobs under way at a time.
const JOBS_UNDER_WAY_MAX: usize = 65_536;
/// Jobs that are over and still known, so that what comes late is told from what nobody asked for.
const LATE_MAX: usize = 65_536;
/// Orders that are not worth a sweep.
const ORDERS_UNSWEPT: usize = 1024;
/// When an order comes again whose burial could not be recorded.
const BURY_AGAIN_MS: u64 = 1_000;
/// Workers of one channel.
const WORKERS_MAX: usize = 64;
/// Longest lease of a job, with all extensions.
const LEASE_MAX_MS: u64 = 3_600_000;
/// After a delivery: how long the order is given to get its cards before it is asked for again.
const LOOK_AFTER_MS: u64 = 100;
/// Most that this time grows to, doubling.
const LOOK_AFTER_MAX_MS: u64 = 12_800;

/// An order in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub id: u128,
    /// Its row of the order index; no other order has it.
    pub row: u64,
    /// Of the record by which it waits.
    pub lsn: u64,
    pub sku: u32,
    pub quantity: u16,
    pub priority: u8,
    pub tag: u16,
    pub holder: u128,
    pub ends_unix_ms: u64,
    pub tried: Tried,
}

/// What the dispatcher asks of the rest.
pub trait World {
    /// The outside channels that may be asked for an order, by the route table in force; `None`: it is no order of theirs.
    fn to_ask(&self, wanted: &Wanted) -> Option<ToAsk>;

    /// Whether it is still in line.
    fn waits(&self, wanted: &Wanted) -> bool;

    /// Whether it is in line, and recorded as buried.
    fn is_buried(&self, wanted: &Wanted) -> bool;

    /// Name of a SKU.
    fn sku_name(&self, sku: u32) -> Option<String>;
}

/// A worker: the connection that it speaks over.
pub type Connection = u64;

/// A job as a worker gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The order's id.
    pub id: u128,
    /// How often the order has been asked for, from 1.
    pub attempt: u32,
    pub sku: u32,
    pub sku_name: String,
    pub quantity: u16,
    pub ends_unix_ms: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// An offer is answered; no jobs: its time is over.
    Give {
        offer: u64,
        lease_ms: u32,
        jobs: Vec<Job>,
    },
    /// How an order has fared is to be recorded.
    Note { wanted: Wanted, tried: Tried },
    /// How a channel stands is to be recorded.
    Change(Change),
}

/// Why an offer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoOffer {
    UnknownChannel,
    TooManyWorkers,
}

/// How a job ends by its worker's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Not yet: it is extended by so many milliseconds from now.
    Extend(u32),
    Fail,
    FailForGood,
}

/// For which order a delivery is, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobFor {
    pub sku: u32,
    pub row: u64,
    pub lsn: u64,
}

/// What is counted of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub filled: u64,
    pub failed: u64,
    pub timed_out: u64,
    /// Deliveries for jobs that were over, or unknown.
    pub late: u64,
    pub cards: u64,
}

/// How a channel does, for reports.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelNow {
    pub name: String,
    pub workers: u32,
    /// Jobs that workers offer to take.
    pub room: u32,
    /// Jobs under way.
    pub jobs: u32,
    /// Orders that wait for room here.
    pub ready: u32,
    pub counts: Counts,
}

/// A worker's offer of room.
struct Offer {
    number: u64,
    connection: Connection,
    room: u32,
    until: u64,
    /// Given in this round.
    jobs: Vec<Job>,
}

#[derive(Default)]
struct Channel {
    name: String,
    /// Where its cards go.
    pool: String,
    /// As the table in force has it; `None`: it has not.
    lease_ms: Option<u32>,
    jobs_max: u32,
    workers: BTreeSet<Connection>,
    offers: VecDeque<Offer>,
    /// Orders that wait for room, by priority and place in line.
    ready: BTreeSet<(u8, u64, u64)>,
    jobs: u32,
    counts: Counts,
}

impl Channel {
    fn room(&self) -> u32 {
        let offered: u32 = self
            .offers
            .iter()
            .map(|offer| offer.room - offer.jobs.len() as u32)
            .sum();
        offered.min(self.jobs_max.saturating_sub(self.jobs))
    }
}

/// Number of a channel, for the life of the dispatcher.
type Number = u16;

/// An order that is the dispatcher's affair.
struct Entry {
    wanted: Wanted,
    now: Stage,
    /// Channels that have failed it in this attempt.
    failed: Vec<Number>,
    /// Channels that have failed it for good.
    for_good: Vec<Number>,
    /// Why the last of them has.
    cause: RetryCause,
    /// How often it was asked for.
    asks: u32,
    /// How often cards came for it that others have got.
    looks: u32,
    /// It comes again before its time: an attempt in which nobody is asked does not count.
    is_early: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// In no list.
    Open,
    /// Waits for room of these channels.
    Ready(Vec<Number>),
    /// A channel has a job for it.
    Asked(Number),
    /// It is looked at again then.
    Later(u64),
    /// That it is buried is being recorded; then it is forgotten.
    Buried,
}

/// A job that is known here.
struct Given {
    row: u64,
    lsn: u64,
    sku: u32,
    attempt: u32,
    quantity: u16,
    /// Cards that came.
    got: u64,
    connection: Connection,
    given_ms: u64,
    lease_until: u64,
    is_over: bool,
}

/// See the module.
pub struct Dispatcher {
    retry: Retry,
    fleet: Fleet,
    channels: Vec<Channel>,
    by_name: HashMap<String, Number>,
    /// By place in `RouteTable::outside` of the table in force.
    in_table: Vec<Number>,
    /// By row.
    orders: HashMap<u64, Entry>,
    /// How many of them there may be before those are swept out that wait no more.
    sweep_at: usize,
    later: BTreeSet<(u64, u64)>,
    jobs: HashMap<(u128, Number), Given>,
    under_way: usize,
    leases: BTreeSet<(u64, u128, Number)>,
    over: VecDeque<(u128, Number)>,
    deeds: Vec<Deed>,
}

impl Dispatcher {
    /// Begins with what is known of channels.
    pub fn new(fleet: Fleet, retry: Retry) -> Dispatcher {
        Dispatcher {
            retry,
            fleet,
            channels: Vec::new(),
            by_name: HashMap::new(),
            in_table: Vec::new(),
            orders: HashMap::new(),
            sweep_at: ORDERS_UNSWEPT,
            later: BTreeSet::new(),
            jobs: HashMap::new(),
            under_way: 0,
            leases: BTreeSet::new(),
            over: VecDeque::new(),
            deeds: Vec::new(),
        }
    }

    /// Another table is in force, or other marks of it are passed: every order that waits is to be told again behind this.
    pub fn adopt(&mut self, now: u64, table: &RouteTable) {
        self.fleet.adopt(now, table);
        self.retry = table.retry();
        for channel in &mut self.channels {
            channel.lease_ms = None;
        }
        let outside = table.outside();
        self.in_table = outside.iter().map(|one| self.number_of(one)).collect();
        // Where they wait for room may be no channel of theirs any more.
        let rows: Vec<u64> = self.orders.keys().copied().collect();
        for row in rows {
            if let Some(entry) = self.orders.get(&row)
                && matches!(entry.now, Stage::Ready(_))
            {
                self.unready(row);
                self.set_later(row, now);
            }
        }
    }

    fn number_of(&mut self, outside: &Outside) -> Number {
        let next = self.channels.len() as Number;
        let number = *self.by_name.entry(outside.name.clone()).or_insert(next);
        if number == next {
            self.channels.push(Channel {
                name: outside.name.clone(),
                ..Channel::default()
            });
        }
        let channel = &mut self.channels[usize::from(number)];
        channel.pool.clone_from(&outside.pool);
        channel.lease_ms = Some(outside.timeout_ms);
        channel.jobs_max = outside.jobs_max;
        number
    }

    /// An order waits. It may have been told before.
    pub fn wanted(&mut self, now: u64, wanted: Wanted, world: &impl World) {
        if let Some(entry) = self.orders.get_mut(&wanted.row) {
            // Told again, after a table or an operator has changed something.
            let kicked = entry.wanted.tried != wanted.tried;
            entry.wanted = wanted;
            if kicked && wanted.tried == Tried::default() {
                // From the beginning: who sells it again is not asked in vain.
                entry.failed.clear();
                entry.for_good.clear();
            }
            if !kicked && !matches!(entry.now, Stage::Open) {
                return;
            }
            if matches!(entry.now, Stage::Asked(_)) {
                return;
            }
            self.leave_lists(wanted.row);
        } else {
            if world.to_ask(&wanted).is_none() {
                return;
            }
            let entry = Entry {
                wanted,
                now: Stage::Open,
                failed: Vec::new(),
                for_good: Vec::new(),
                cause: RetryCause::NoChannel,
                asks: u32::from(wanted.tried.attempts),
                looks: 0,
                is_early: false,
            };
            self.orders.insert(wanted.row, entry);
        }
        let tried = wanted.tried;
        if tried.is_buried {
            // If somebody digs it out, it is told again.
            self.forget(wanted.row);
        } else if tried.again_unix_ms > now {
            self.set_later(wanted.row, tried.again_unix_ms);
        } else {
            self.ask(now, wanted.row, world);
        }
    }

    /// A worker has room. Its number is the caller's, and comes back in [`Deed::Give`].
    pub fn offer(
        &mut self,
        now: u64,
        channel: &str,
        connection: Connection,
        (number, room, until): (u64, u32, u64),
        world: &impl World,
    ) -> Result<(), NoOffer> {
        let at = self.by_name.get(channel).copied();
        let at = at.filter(|&at| self.channels[usize::from(at)].lease_ms.is_some());
        let at = at.ok_or(NoOffer::UnknownChannel)?;
        let channel = &mut self.channels[usize::from(at)];
        let is_new = !channel.workers.contains(&connection);
        if is_new && channel.workers.len() >= WORKERS_MAX {
            return Err(NoOffer::TooManyWorkers);
        }
        let is_first = channel.workers.is_empty();
        channel.workers.insert(connection);
        channel.offers.push_back(Offer {
            number,
            connection,
            room,
            until,
            jobs: Vec::new(),
        });
        if is_first {
            self.wake(now, world);
        }
        self.fill(now, at, world);
        Ok(())
    }

    /// A connection has ended: what it had is asked of others.
    pub fn gone(&mut self, now: u64, connection: Connection, world: &impl World) {
        for at in 0..self.channels.len() as Number {
            let channel = &mut self.channels[usize::from(at)];
            if !channel.workers.remove(&connection) {
                continue;
            }
            channel
                .offers
                .retain(|offer| offer.connection != connection);
            let its = |(key, given): (&(u128, Number), &Given)| {
                (key.1 == at && given.connection == connection && !given.is_over).then_some(*key)
            };
            let keys: Vec<_> = self.jobs.iter().filter_map(its).collect();
            for key in sorted(keys) {
                self.end_job(now, key, JobEnd::WorkerGone);
                self.again(now, key, RetryCause::WorkerGone, world);
            }
            if self.channels[usize::from(at)].workers.is_empty() {
                self.ask_others(now, at, world);
            }
        }
    }

    /// Where the cards of a channel go that is, or was, in the table.
    pub fn pool(&self, channel: &str) -> Option<String> {
        let at = *self.by_name.get(channel)?;
        Some(self.channels[usize::from(at)].pool.clone())
    }

    /// For which order a job of a channel is.
    pub fn job(&self, channel: &str, id: u128) -> Option<JobFor> {
        let at = *self.by_name.get(channel)?;
        let given = self.jobs.get(&(id, at))?;
        Some(JobFor {
            sku: given.sku,
            row: given.row,
            lsn: given.lsn,
        })
    }

    /// So many cards were delivered for a job, and are stock; `all`: nothing more comes. Tells how the job stands, and how many
    /// cards it still wants.
    pub fn delivered(
        &mut self,
        now: u64,
        (channel, id): (&str, u128),
        cards: u64,
        all: bool,
        world: &impl World,
    ) -> (JobState, u16) {
        let Some(&at) = self.by_name.get(channel) else {
            return (JobState::Unknown, 0);
        };
        self.channels[usize::from(at)].counts.cards += cards;
        let key = (id, at);
        let Some(given) = self.jobs.get_mut(&key) else {
            self.channels[usize::from(at)].counts.late += 1;
            return (JobState::Unknown, 0);
        };
        given.got += cards;
        let (got, quantity) = (given.got, given.quantity);
        if given.is_over {
            self.channels[usize::from(at)].counts.late += u64::from(cards > 0);
            let done = got >= u64::from(quantity);
            return (if done { JobState::Done } else { JobState::Over }, 0);
        }
        let missing = u64::from(quantity).saturating_sub(got) as u16;
        if missing == 0 {
            self.end_job(now, key, JobEnd::Filled);
            self.look_after(now, key);
            self.divert_if_out(now, at, world);
            self.fill(now, at, world);
            (JobState::Done, 0)
        } else if all {
            self.end_job(now, key, JobEnd::Failed);
            self.again(now, key, RetryCause::TooFew, world);
            self.fill(now, at, world);
            (JobState::Over, missing)
        } else {
            (JobState::UnderWay, missing)
        }
    }

    /// A worker ends a job, or extends it. Tells how the job stands, and its lease from now in milliseconds.
    pub fn end(
        &mut self,
        now: u64,
        (channel, id): (&str, u128),
        attempt: u32,
        ending: Ending,
        world: &impl World,
    ) -> (JobState, u32) {
        let Some(&at) = self.by_name.get(channel) else {
            return (JobState::Unknown, 0);
        };
        let key = (id, at);
        let Some(given) = self.jobs.get_mut(&key) else {
            return (JobState::Unknown, 0);
        };
        if given.is_over || given.attempt != attempt {
            return (JobState::Over, 0);
        }
        match ending {
            Ending::Extend(extend_ms) => {
                let until = (now + u64::from(extend_ms)).min(given.given_ms + LEASE_MAX_MS);
                let before = std::mem::replace(&mut given.lease_until, until);
                self.leases.remove(&(before, id, at));
                self.leases.insert((until, id, at));
                (JobState::UnderWay, until.saturating_sub(now) as u32)
            }
            Ending::Fail => {
                self.end_job(now, key, JobEnd::Failed);
                self.again(now, key, RetryCause::Failed, world);
                self.fill(now, at, world);
                (JobState::Over, 0)
            }
            Ending::FailForGood => {
                let row = given.row;
                self.end_job(now, key, JobEnd::FailedForGood);
                if let Some(entry) = self.orders.get_mut(&row) {
                    entry.for_good.push(at);
                }
                self.again(now, key, RetryCause::ForGood, world);
                self.fill(now, at, world);
                (JobState::Over, 0)
            }
        }
    }

    /// The time has gone on: leases and offers end, orders come again, ejections are over.
    pub fn tick(&mut self, now: u64, world: &impl World) {
        let changes = self.fleet.tick(now);
        let restored: Vec<String> = changes.iter().map(|one| one.channel.clone()).collect();
        self.deeds.extend(changes.into_iter().map(Deed::Change));
        while let Some(&(until, id, at)) = self.leases.first()
            && until <= now
        {
            self.end_job(now, (id, at), JobEnd::TimedOut);
            self.again(now, (id, at), RetryCause::TimedOut, world);
            self.fill(now, at, world);
        }
        if !restored.is_empty() {
            self.wake(now, world);
            for name in restored {
                if let Some(&at) = self.by_name.get(&name) {
                    self.fill(now, at, world);
                }
            }
        }
        while let Some(&(at, row)) = self.later.first()
            && at <= now
        {
            self.later.remove(&(at, row));
            if let Some(entry) = self.orders.get_mut(&row) {
                entry.now = Stage::Open;
                self.ask(now, row, world);
            }
        }
        for channel in &mut self.channels {
            let over = |offer: &Offer| offer.until <= now && offer.jobs.is_empty();
            for offer in channel.offers.iter().filter(|offer| over(offer)) {
                self.deeds.push(Deed::Give {
                    offer: offer.number,
                    lease_ms: 0,
                    jobs: Vec::new(),
                });
            }
            channel.offers.retain(|offer| !over(offer));
        }
        self.sweep(world);
    }

    /// What was to be recorded of orders by [`Deed::Note`] is, or could not be.
    pub fn noted(&mut self, now: u64, rows: impl IntoIterator<Item = u64>, world: &impl World) {
        for row in rows {
            let Some(entry) = self.orders.get_mut(&row) else {
                continue;
            };
            if entry.now != Stage::Buried {
                continue;
            }
            if !world.waits(&entry.wanted) || world.is_buried(&entry.wanted) {
                self.forget(row);
            } else {
                entry.wanted.tried.is_buried = false;
                self.set_later(row, now + BURY_AGAIN_MS);
            }
        }
    }

    /// An operator has taken a channel out, or put it back.
    pub fn moved(&mut self, now: u64, channel: &str, world: &impl World) {
        let Some(&at) = self.by_name.get(channel) else {
            return;
        };
        self.divert_if_out(now, at, world);
        if self.fleet.may_ask(channel) {
            self.wake(now, world);
            self.fill(now, at, world);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_unix_ms(&self) -> Option<u64> {
        let lease = self.leases.first().map(|(until, ..)| *until);
        let later = self.later.first().map(|(at, _)| *at);
        let offers = self.channels.iter().flat_map(|channel| &channel.offers);
        let offer = offers.map(|offer| offer.until).min();
        let all = [lease, later, offer, self.fleet.next_unix_ms()];
        all.into_iter().flatten().min()
    }

    /// What is to be done since the last time.
    pub fn take_deeds(&mut self) -> Vec<Deed> {
        for channel in &mut self.channels {
            for offer in channel.offers.iter_mut().filter(|o| !o.jobs.is_empty()) {
                self.deeds.push(Deed::Give {
                    offer: offer.number,
                    lease_ms: channel.lease_ms.unwrap_or_default(),
                    jobs: std::mem::take(&mut offer.jobs),
                });
                offer.room = 0;
            }
            channel.offers.retain(|offer| offer.room > 0);
        }
        std::mem::take(&mut self.deeds)
    }

    /// How the channels do.
    pub fn channels(&self) -> Vec<ChannelNow> {
        let now = |channel: &Channel| ChannelNow {
            name: channel.name.clone(),
            workers: channel.workers.len() as u32,
            room: channel.room(),
            jobs: channel.jobs,
            ready: channel.ready.len() as u32,
            counts: channel.counts,
        };
        let known = self.channels.iter();
        known
            .filter(|one| one.lease_ms.is_some())
            .map(now)
            .collect()
    }

    /// What is known of how they stand.
    pub fn fleet(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    /// Orders that are looked after.
    pub fn orders(&self) -> usize {
        self.orders.len()
    }

    /// Jobs under way.
    pub fn jobs(&self) -> usize {
        self.under_way
    }
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;
