//! Which channel is asked for which order, and what becomes of that: docs/channels.md.
//!
//! Pure: events and `now` in, deeds out; no clock, no I/O, no chance but what hashes of order ids give. A simulator can run
//! it. What is durable of an order is not here: it waits in its line whatever the dispatcher thinks, whatever is delivered is
//! stock before the dispatcher hears of it, and after a restart it begins with nothing but the orders that wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use croupier_protocol::{JobState, RetryCause};

use super::fleet::{Change, Fleet, JobEnd};
use crate::route::{Balance, Outside, Retry, RouteTable, ToAsk, mix};
use crate::state::record::Tried;

/// Jobs under way at a time.
const JOBS_UNDER_WAY_MAX: usize = 65_536;
/// Jobs that are over and still known, so that what comes late is told from what nobody asked for.
const LATE_MAX: usize = 65_536;
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
    pub priority: u8,
    pub quantity: u16,
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
    workers: BTreeMap<Connection, u32>,
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
    Buried,
}

/// A job that is known here.
struct Given {
    row: u64,
    lsn: u64,
    sku: u32,
    priority: u8,
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
            self.stage(wanted.row, Stage::Buried);
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
        let is_new = !channel.workers.contains_key(&connection);
        if is_new && channel.workers.len() >= WORKERS_MAX {
            return Err(NoOffer::TooManyWorkers);
        }
        let is_first = channel.workers.is_empty();
        *channel.workers.entry(connection).or_default() += 1;
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
            if channel.workers.remove(&connection).is_none() {
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
            priority: given.priority,
            quantity: given.quantity,
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

    fn stage(&mut self, row: u64, stage: Stage) {
        if let Some(entry) = self.orders.get_mut(&row) {
            entry.now = stage;
        }
    }

    fn set_later(&mut self, row: u64, at: u64) {
        self.stage(row, Stage::Later(at));
        self.later.insert((at, row));
    }

    /// Takes an order out of whatever it is in, but for a job.
    fn leave_lists(&mut self, row: u64) {
        if let Some(Stage::Later(at)) = self.orders.get(&row).map(|entry| entry.now.clone()) {
            self.later.remove(&(at, row));
        }
        self.unready(row);
        self.stage(row, Stage::Open);
    }

    /// Takes an order out of the lists of those that wait for room.
    fn unready(&mut self, row: u64) {
        let Some(entry) = self.orders.get_mut(&row) else {
            return;
        };
        if let Stage::Ready(channels) = std::mem::replace(&mut entry.now, Stage::Open) {
            let place = (entry.wanted.priority, entry.wanted.lsn, row);
            for at in channels {
                self.channels[usize::from(at)].ready.remove(&place);
            }
        }
    }

    /// Forgets an order.
    fn forget(&mut self, row: u64) {
        self.leave_lists(row);
        self.orders.remove(&row);
    }

    /// Whether a channel takes part in an attempt for an order.
    fn takes_part(&self, at: Number, entry: &Entry) -> bool {
        let channel = &self.channels[usize::from(at)];
        channel.lease_ms.is_some()
            && !channel.workers.is_empty()
            && !entry.failed.contains(&at)
            && !entry.for_good.contains(&at)
            // Of one that is probed the next probe may be waited for.
            && (self.fleet.may_ask(&channel.name) || self.fleet.is_probing(&channel.name))
    }

    /// The channels of a stage, in the order in which an order asks them.
    fn in_order(&self, members: &[(u16, u32)], entry: &Entry, balance: &Balance) -> Vec<Number> {
        // Of a table that comes just now this may not be told yet; then the order is told again.
        let number = |&(at, _): &(u16, u32)| self.in_table.get(usize::from(at)).copied();
        let id = entry.wanted.id;
        let first = drawn(members, mix(id, 1));
        let mut all: Vec<Number> = members.iter().filter_map(number).collect();
        if all.len() < members.len() {
            return all;
        }
        match balance {
            Balance::Weights => all.rotate_left(first),
            Balance::LeastLatency if all.len() > 1 => {
                let draw = mix(id, 2 + u64::from(entry.asks));
                let one = drawn(members, draw);
                let mut others: Vec<_> = members.to_vec();
                others.remove(one);
                let other = drawn(&others, mix(id, draw));
                let other = other + usize::from(other >= one);
                let better = if self.load(all[other]) < self.load(all[one]) {
                    other
                } else {
                    one
                };
                all.rotate_left(better);
            }
            Balance::LeastLatency => {}
        }
        all
    }

    /// How long an order would wait there, about, in milliseconds.
    fn load(&self, at: Number) -> f64 {
        let channel = &self.channels[usize::from(at)];
        let width = f64::from(channel.jobs + channel.room()).max(1.0);
        self.fleet.mean_ms(&channel.name) * (1.0 + f64::from(channel.jobs) / width)
    }

    /// Asks a channel for an order, or has it wait for room, or ends the attempt.
    fn ask(&mut self, now: u64, row: u64, world: &impl World) {
        let Some(entry) = self.orders.get(&row) else {
            return;
        };
        if !world.waits(&entry.wanted) {
            return self.forget(row);
        }
        let Some(to_ask) = world.to_ask(&entry.wanted) else {
            return self.forget(row);
        };
        let stages = to_ask.stages.iter();
        let all: Vec<Number> = stages
            .flat_map(|stage| self.in_order(stage, entry, &to_ask.balance))
            .collect();
        let part: Vec<Number> = all
            .iter()
            .copied()
            .filter(|&at| self.takes_part(at, entry))
            .collect();
        let has_room = |at: &&Number| {
            let channel = &self.channels[usize::from(**at)];
            channel.room() > 0 && self.fleet.may_ask(&channel.name)
        };
        if part.is_empty() {
            let for_good = all.iter().all(|at| entry.for_good.contains(at));
            return self.end_attempt(now, row, for_good && !all.is_empty());
        }
        if self.under_way < JOBS_UNDER_WAY_MAX
            && let Some(&at) = part.iter().find(has_room)
        {
            return self.give(now, row, at, world);
        }
        let place = (entry.wanted.priority, entry.wanted.lsn, row);
        for &at in &part {
            self.channels[usize::from(at)].ready.insert(place);
        }
        self.stage(row, Stage::Ready(part));
    }

    /// Gives the job to the oldest offer of a channel that has room.
    fn give(&mut self, now: u64, row: u64, at: Number, world: &impl World) {
        let Some(entry) = self.orders.get(&row) else {
            return;
        };
        let wanted = entry.wanted;
        let Some(sku_name) = world.sku_name(wanted.sku) else {
            return self.forget(row);
        };
        // One that was diverted, and whose lease goes on, makes way.
        self.end_job(now, (wanted.id, at), JobEnd::TimedOut);
        let Some(entry) = self.orders.get_mut(&row) else {
            return;
        };
        let channel = &mut self.channels[usize::from(at)];
        let free = |offer: &&mut Offer| (offer.jobs.len() as u32) < offer.room;
        let Some(offer) = channel.offers.iter_mut().find(free) else {
            return;
        };
        entry.asks += 1;
        entry.now = Stage::Asked(at);
        let lease_until = now + u64::from(channel.lease_ms.unwrap_or_default());
        offer.jobs.push(Job {
            id: wanted.id,
            attempt: entry.asks,
            sku: wanted.sku,
            sku_name,
            quantity: wanted.quantity,
            ends_unix_ms: wanted.ends_unix_ms,
        });
        let given = Given {
            row,
            lsn: wanted.lsn,
            sku: wanted.sku,
            priority: wanted.priority,
            attempt: entry.asks,
            quantity: wanted.quantity,
            got: 0,
            connection: offer.connection,
            given_ms: now,
            lease_until,
            is_over: false,
        };
        channel.jobs += 1;
        self.under_way += 1;
        self.leases.insert((lease_until, wanted.id, at));
        self.fleet.asked(&channel.name);
        self.jobs.insert((wanted.id, at), given);
    }

    /// A job is over; what comes for it still is late.
    fn end_job(&mut self, now: u64, key: (u128, Number), end: JobEnd) {
        let (id, at) = key;
        let Some(given) = self.jobs.get_mut(&key).filter(|given| !given.is_over) else {
            return;
        };
        given.is_over = true;
        self.leases.remove(&(given.lease_until, id, at));
        let took_ms = now.saturating_sub(given.given_ms);
        self.under_way -= 1;
        let channel = &mut self.channels[usize::from(at)];
        channel.jobs -= 1;
        match end {
            JobEnd::Filled => channel.counts.filled += 1,
            JobEnd::TimedOut => channel.counts.timed_out += 1,
            JobEnd::Failed | JobEnd::WorkerGone | JobEnd::FailedForGood => {
                channel.counts.failed += 1;
            }
        }
        self.over.push_back(key);
        if self.over.len() > LATE_MAX
            && let Some(oldest) = self.over.pop_front()
            && self.jobs.get(&oldest).is_some_and(|given| given.is_over)
        {
            self.jobs.remove(&oldest);
        }
        let name = channel.name.clone();
        if let Some(change) = self.fleet.ended(now, &name, took_ms, end) {
            self.deeds.push(Deed::Change(change));
        }
    }

    /// An order whose job has failed is asked of others; and if that has had its channel ejected, so are the channel's others.
    fn again(&mut self, now: u64, key: (u128, Number), cause: RetryCause, world: &impl World) {
        let Some(row) = self.jobs.get(&key).map(|given| given.row) else {
            return;
        };
        let at = key.1;
        if let Some(entry) = self.orders.get_mut(&row)
            && entry.now == Stage::Asked(at)
        {
            entry.cause = cause;
            entry.failed.push(at);
            entry.now = Stage::Open;
            self.ask(now, row, world);
        }
        self.divert_if_out(now, at, world);
    }

    /// A job has ended: it may have had its channel ejected.
    fn divert_if_out(&mut self, now: u64, at: Number, world: &impl World) {
        let name = &self.channels[usize::from(at)].name;
        if !self.fleet.may_ask(name) && !self.fleet.is_probing(name) {
            self.divert(now, at, world);
        }
    }

    /// What an ejected channel has is asked of others at once, and who waits for room there.
    fn divert(&mut self, now: u64, at: Number, world: &impl World) {
        let its = |(key, given): (&(u128, Number), &Given)| {
            (key.1 == at && !given.is_over).then_some((*key, given.row))
        };
        let keys: Vec<_> = self.jobs.iter().filter_map(its).collect();
        for (key, row) in sorted(keys) {
            if let Some(entry) = self.orders.get_mut(&row)
                && entry.now == Stage::Asked(at)
            {
                // The job goes on: what it brings in time still counts for the channel.
                entry.failed.push(key.1);
                entry.cause = RetryCause::NoChannel;
                entry.now = Stage::Open;
                self.ask(now, row, world);
            }
        }
        self.ask_others(now, at, world);
    }

    /// A channel takes no part any more: who waits for room there asks others.
    fn ask_others(&mut self, now: u64, at: Number, world: &impl World) {
        for (_, _, row) in std::mem::take(&mut self.channels[usize::from(at)].ready) {
            self.unready(row);
            self.ask(now, row, world);
        }
    }

    /// A channel may have room: the first of those who wait for it get it.
    fn fill(&mut self, now: u64, at: Number, world: &impl World) {
        loop {
            let channel = &self.channels[usize::from(at)];
            let may = channel.room() > 0
                && self.under_way < JOBS_UNDER_WAY_MAX
                && self.fleet.may_ask(&channel.name);
            let Some(&(_, _, row)) = channel.ready.first().filter(|_| may) else {
                return;
            };
            self.unready(row);
            // Not `ask`: it would look at all channels again, and this one has room.
            match self.orders.get(&row) {
                Some(entry) if world.waits(&entry.wanted) => self.give(now, row, at, world),
                _ => self.forget(row),
            }
        }
    }

    /// Cards came for an order: it is looked at again in a while, and asked for again if others have got them.
    fn look_after(&mut self, now: u64, key: (u128, Number)) {
        let Some(row) = self.jobs.get(&key).map(|given| given.row) else {
            return;
        };
        let Some(entry) = self.orders.get_mut(&row) else {
            return;
        };
        if entry.now != Stage::Asked(key.1) {
            // It is asked of another by now; that goes on.
            return;
        }
        let after = LOOK_AFTER_MS << entry.looks.min(16);
        entry.looks += 1;
        entry.failed.clear();
        self.set_later(row, now + after.min(LOOK_AFTER_MAX_MS));
    }

    /// No channel has filled an order: it comes again later, or is buried.
    fn end_attempt(&mut self, now: u64, row: u64, for_good: bool) {
        let retry = self.retry;
        let Some(entry) = self.orders.get_mut(&row) else {
            return;
        };
        let before = entry.wanted.tried;
        let nobody = entry.failed.is_empty();
        if std::mem::take(&mut entry.is_early) && nobody && before.again_unix_ms > now {
            return self.set_later(row, before.again_unix_ms);
        }
        let cause = match (for_good, nobody) {
            (true, _) => RetryCause::ForGood,
            (false, true) => RetryCause::NoChannel,
            (false, false) => entry.cause,
        };
        let attempts = before.attempts.saturating_add(1);
        let is_buried = for_good || attempts >= retry.attempts;
        let again_unix_ms = match is_buried {
            true => 0,
            false => now + pause_ms(&retry, entry.wanted.id, attempts),
        };
        let tried = Tried {
            attempts,
            cause: cause.as_u16() as u8,
            is_buried,
            again_unix_ms,
        };
        entry.failed.clear();
        entry.wanted.tried = tried;
        let wanted = entry.wanted;
        self.deeds.push(Deed::Note { wanted, tried });
        match is_buried {
            true => self.stage(row, Stage::Buried),
            false => self.set_later(row, again_unix_ms),
        }
    }

    /// A channel takes part again: orders that found none come at once.
    fn wake(&mut self, now: u64, world: &impl World) {
        let none = RetryCause::NoChannel.as_u16() as u8;
        let wakes = |&&(_, row): &&(u64, u64)| {
            let entry = self.orders.get(&row);
            entry.is_some_and(|entry| entry.wanted.tried.cause == none && entry.looks == 0)
        };
        let woken: Vec<_> = self.later.iter().filter(wakes).copied().collect();
        let mut woken: Vec<_> = woken
            .into_iter()
            .filter_map(|(at, row)| {
                self.later.remove(&(at, row));
                let entry = self.orders.get_mut(&row)?;
                entry.now = Stage::Open;
                entry.is_early = at > now;
                Some((entry.wanted.priority, entry.wanted.lsn, row))
            })
            .collect();
        // The first in line go first.
        woken.sort_unstable();
        for (_, _, row) in woken {
            self.ask(now, row, world);
        }
    }
}

/// How long an order waits for its next attempt: doubled each time, and changed by up to a quarter by its id.
fn pause_ms(retry: &Retry, id: u128, attempts: u16) -> u64 {
    let doubled = u64::from(retry.base_ms) << u32::from(attempts.saturating_sub(1)).min(32);
    let pause = doubled.min(retry.cap_ms.into());
    let quarter = pause / 4;
    let jitter = match quarter {
        0 => 0,
        quarter => mix(id, 0x7265_7472_7900 + u64::from(attempts)) % (2 * quarter + 1),
    };
    pause - quarter + jitter
}

/// Which member a number chooses, by weight.
fn drawn(members: &[(u16, u32)], number: u64) -> usize {
    let all: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut at = ((u128::from(number) * u128::from(all)) >> 64) as u64;
    let is_here = |(_, weight): &(u16, u32)| {
        let weight = u64::from(*weight);
        let here = at < weight;
        at = at.saturating_sub(weight);
        here
    };
    members.iter().position(is_here).unwrap_or_default()
}

/// In an order that does not depend on a hash table.
fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;
