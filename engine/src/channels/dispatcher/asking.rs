//! What becomes of an order that is looked at: whom it is asked of, in which order, and when again.

use super::{
    Deed, Dispatcher, Entry, Given, JOBS_UNDER_WAY_MAX, Job, LATE_MAX, LOOK_AFTER_MAX_MS,
    LOOK_AFTER_MS, Number, ORDERS_UNSWEPT, Offer, Stage, World,
};
use crate::channels::fleet::JobEnd;
use crate::route::{Balance, Retry, better_of_two, mix};
use crate::state::record::Tried;
use croupier_protocol::RetryCause;

impl Dispatcher {
    pub(super) fn stage(&mut self, row: u64, stage: Stage) {
        if let Some(entry) = self.orders.get_mut(&row) {
            entry.now = stage;
        }
    }

    pub(super) fn set_later(&mut self, row: u64, at: u64) {
        self.stage(row, Stage::Later(at));
        self.later.insert((at, row));
    }

    /// Takes an order out of whatever it is in, but for a job.
    pub(super) fn leave_lists(&mut self, row: u64) {
        if let Some(Stage::Later(at)) = self.orders.get(&row).map(|entry| entry.now.clone()) {
            self.later.remove(&(at, row));
        }
        self.unready(row);
        self.stage(row, Stage::Open);
    }

    /// Takes an order out of the lists of those that wait for room.
    pub(super) fn unready(&mut self, row: u64) {
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
    pub(super) fn forget(&mut self, row: u64) {
        self.leave_lists(row);
        self.orders.remove(&row);
    }

    /// Forgets orders that wait no more, once there may be as many of them as of others.
    pub(super) fn sweep(&mut self, world: &impl World) {
        if self.orders.len() < self.sweep_at {
            return;
        }
        // What becomes of one that somebody has a job for is seen when that is over.
        let is_gone =
            |entry: &Entry| !matches!(entry.now, Stage::Asked(_)) && !world.waits(&entry.wanted);
        let all = self.orders.iter();
        let gone: Vec<u64> = all
            .filter_map(|(&row, entry)| is_gone(entry).then_some(row))
            .collect();
        for row in gone {
            self.forget(row);
        }
        self.sweep_at = 2 * self.orders.len() + ORDERS_UNSWEPT;
    }

    /// Whether a channel takes part in an attempt for an order.
    pub(super) fn takes_part(&self, at: Number, entry: &Entry) -> bool {
        let channel = &self.channels[usize::from(at)];
        channel.lease_ms.is_some()
            && !channel.workers.is_empty()
            && !entry.failed.contains(&at)
            && !entry.for_good.contains(&at)
            // Of one that is probed the next probe may be waited for.
            && (self.fleet.may_ask(&channel.name) || self.fleet.is_probing(&channel.name))
    }

    /// The channels of a stage, in the order in which an order asks them.
    pub(super) fn in_order(
        &self,
        members: &[(u16, u32)],
        entry: &Entry,
        balance: &Balance,
    ) -> Vec<Number> {
        // Of a table that comes just now this may not be told yet; then the order is told again.
        let number = |&(at, _): &(u16, u32)| self.in_table.get(usize::from(at)).copied();
        let mut all: Vec<Number> = members.iter().filter_map(number).collect();
        // By weights they come as the table has chosen.
        if all.len() == members.len() && *balance == Balance::LeastLatency {
            let order = (entry.wanted.id, entry.asks);
            let first = better_of_two(members, order, |nth| self.load(all[nth]));
            all.rotate_left(first);
        }
        all
    }

    /// How long an order would wait there, about, in milliseconds.
    pub(super) fn load(&self, at: Number) -> f64 {
        let channel = &self.channels[usize::from(at)];
        let width = f64::from(channel.jobs + channel.room()).max(1.0);
        self.fleet.mean_ms(&channel.name) * (1.0 + f64::from(channel.jobs) / width)
    }

    /// Asks a channel for an order, or has it wait for room, or ends the attempt.
    pub(super) fn ask(&mut self, now: u64, row: u64, world: &impl World) {
        let Some(entry) = self.orders.get(&row) else {
            return;
        };
        // One that an operator has buried is told again when somebody digs it out.
        if entry.wanted.tried.is_buried || !world.waits(&entry.wanted) {
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
    pub(super) fn give(&mut self, now: u64, row: u64, at: Number, world: &impl World) {
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
    pub(super) fn end_job(&mut self, now: u64, key: (u128, Number), end: JobEnd) {
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
    pub(super) fn again(
        &mut self,
        now: u64,
        key: (u128, Number),
        cause: RetryCause,
        world: &impl World,
    ) {
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
    pub(super) fn divert_if_out(&mut self, now: u64, at: Number, world: &impl World) {
        let name = &self.channels[usize::from(at)].name;
        if !self.fleet.may_ask(name) && !self.fleet.is_probing(name) {
            self.divert(now, at, world);
        }
    }

    /// What an ejected channel has is asked of others at once, and who waits for room there.
    pub(super) fn divert(&mut self, now: u64, at: Number, world: &impl World) {
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
    pub(super) fn ask_others(&mut self, now: u64, at: Number, world: &impl World) {
        for (_, _, row) in std::mem::take(&mut self.channels[usize::from(at)].ready) {
            self.unready(row);
            self.ask(now, row, world);
        }
    }

    /// A channel may have room: the first of those who wait for it get it.
    pub(super) fn fill(&mut self, now: u64, at: Number, world: &impl World) {
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
    pub(super) fn look_after(&mut self, now: u64, key: (u128, Number)) {
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
    pub(super) fn end_attempt(&mut self, now: u64, row: u64, for_good: bool) {
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
    pub(super) fn wake(&mut self, now: u64, world: &impl World) {
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

/// In an order that does not depend on a hash table.
pub(super) fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all
}
