//! What records say of orders that waited for channels, and how long these took: docs/routes-history.md.
//!
//! Pure: facts in, in the order of the log.

use std::collections::{BinaryHeap, HashMap, VecDeque};

use croupier_protocol::Priority;

use super::figures::{Figures, Lane, Waits};
use super::queues::Latency;
use super::tables::{Channel, Known};
use crate::route::{Asked, ToAsk, mix};
use crate::state::record::Retried;

/// Most latencies of a channel that are kept.
pub const LATENCIES_MAX: usize = 4096;
/// Salt of the hash that chooses them.
const SAMPLE_SALT: u64 = 0x7361_6d70_6c65_0000;

/// See the module.
#[derive(Debug, Default)]
pub struct Observed {
    /// Orders in line, by id.
    open: HashMap<u128, Open>,
    /// Channels that orders may be asked of, each such list once.
    chains: Vec<Box<[Channel]>>,
    chain_of: HashMap<Box<[Channel]>, u32>,
    /// By the number of the channel.
    channels: Vec<Seen>,
    lanes: [Lane; 4],
    /// When the server was last started.
    started_ms: u64,
    /// First and last time of what is counted.
    begun_ms: Option<u64>,
    end_ms: u64,
    /// Orders that waited, and were dealt by a table that is not known any more.
    table_unknown: u64,
}

/// An order in line.
#[derive(Clone, Copy, Debug)]
struct Open {
    came_ms: u64,
    /// When its attempt began, and the one before that.
    tried_ms: [u64; 2],
    /// Its channels; `None`: it has none.
    chain: Option<u32>,
    /// By place in the chain: the channel certainly had a place when the order came.
    had_place: u64,
    lane: Priority,
    is_buried: bool,
    is_counted: bool,
}

#[derive(Debug, Default)]
struct Seen {
    /// Orders in line that may be asked of it.
    in_line: u64,
    /// When the last orders had cards from it, as many as it has places.
    filled_ms: VecDeque<u64>,
    /// Those with the lowest hashes, and their latencies.
    sample: BinaryHeap<(u64, u64)>,
    waits: Waits,
}

/// An order that came and waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    pub asked: Asked,
    pub sku: &'a str,
    pub lane: Priority,
    pub unix_ms: u64,
    /// It is one of those that the what-if looks at.
    pub is_counted: bool,
}

impl Observed {
    /// An order that is looked at got its cards at once.
    pub fn at_once(&mut self, unix_ms: u64, lane: Priority) {
        self.count_at(unix_ms);
        self.lanes[lane.as_index()].note(0);
    }

    /// An order waits; with the table that it was dealt by, if that is known.
    pub fn waits(&mut self, order: &Waiting<'_>, table: Option<&Known>) {
        let Waiting {
            asked,
            sku,
            unix_ms,
            ..
        } = *order;
        if order.is_counted {
            self.table_unknown += u64::from(table.is_none());
        }
        let asks = table.and_then(|known| Some((known, known.to_ask(sku, &asked, unix_ms)?)));
        let chain = asks.as_ref().map(|(_, to_ask)| self.chain_of(to_ask));
        let mut had_place = 0;
        if let (Some((known, _)), Some(chain)) = (asks, chain) {
            had_place = self.join(known, chain);
            if order.is_counted {
                self.count_at(unix_ms);
                self.lanes[order.lane.as_index()].comes(unix_ms);
            }
        }
        let open = Open {
            came_ms: unix_ms,
            tried_ms: [unix_ms; 2],
            chain,
            had_place,
            lane: order.lane,
            is_buried: false,
            is_counted: order.is_counted,
        };
        self.open.insert(asked.id, open);
    }

    /// The order joins those that may be asked of these channels: which of them have a place for it.
    fn join(&mut self, known: &Known, chain: u32) -> u64 {
        let mut had_place = 0;
        for (nth, &channel) in self.chains[chain as usize].iter().enumerate() {
            let seen = seen(&mut self.channels, channel);
            let places = places_of(known, channel);
            if nth < 64 && seen.in_line < places as u64 {
                had_place |= 1 << nth;
            }
            seen.in_line += 1;
        }
        had_place
    }

    fn chain_of(&mut self, to_ask: &ToAsk) -> u32 {
        let all = to_ask.stages.iter().flatten();
        let chain: Box<[Channel]> = all.map(|(channel, _)| *channel).collect();
        if let Some(&known) = self.chain_of.get(&chain) {
            return known;
        }
        let number = self.chains.len() as u32;
        self.chains.push(chain.clone());
        self.chain_of.insert(chain, number);
        number
    }

    /// An attempt for an order has failed, or another is to be made.
    pub fn retried(&mut self, unix_ms: u64, retried: &Retried) {
        let Some(open) = self.open.get_mut(&retried.order_id) else {
            return;
        };
        let next_ms = unix_ms.max(retried.tried.again_unix_ms);
        open.tried_ms = [open.tried_ms[1], next_ms];
        open.had_place = 0;
        open.is_buried = retried.tried.is_buried;
    }

    /// The server was started: what is in line is asked again.
    pub fn started(&mut self, unix_ms: u64) {
        self.started_ms = unix_ms;
    }

    /// An order waits no more, and has no cards.
    pub fn ended(&mut self, unix_ms: u64, id: u128) {
        self.leave(unix_ms, id, false);
    }

    /// An order that waited has cards now: names of the pools that they are from, with how many; and the table in force.
    pub fn filled(&mut self, unix_ms: u64, id: u128, from: &[(&str, u64)], table: Option<&Known>) {
        let Some(open) = self.leave(unix_ms, id, true) else {
            return;
        };
        let wait_ms = unix_ms.saturating_sub(open.came_ms);
        if open.is_counted && open.chain.is_some() {
            self.lanes[open.lane.as_index()].note(wait_ms);
        }
        let chain = open.chain.map(|chain| &self.chains[chain as usize][..]);
        let chain = chain.unwrap_or_default();
        let Some((known, channel)) =
            table.and_then(|known| Some((known, filler(known, from, chain)?)))
        else {
            return;
        };
        let at = chain.iter().position(|&one| one == channel);
        let had_place = at.is_some_and(|at| at < 64 && open.had_place >> at & 1 != 0);
        let places = places_of(known, channel);
        let seen = seen(&mut self.channels, channel);
        let began_ms = began(&open, self.started_ms, unix_ms, had_place, seen, places);
        seen.note_filled(unix_ms, places);
        if open.is_counted {
            seen.waits.note(wait_ms);
            if !open.is_buried {
                seen.keep(mix(id, SAMPLE_SALT), unix_ms.saturating_sub(began_ms));
            }
        }
    }

    /// Takes an order out of line.
    fn leave(&mut self, unix_ms: u64, id: u128, is_filled: bool) -> Option<Open> {
        let open = self.open.remove(&id)?;
        if let Some(chain) = open.chain {
            for &channel in &self.chains[chain as usize] {
                let seen = seen(&mut self.channels, channel);
                seen.in_line = seen.in_line.saturating_sub(1);
            }
            if open.is_counted {
                self.lanes[open.lane.as_index()].leaves(unix_ms, is_filled);
                self.end_ms = self.end_ms.max(unix_ms);
            }
        }
        Some(open)
    }

    fn count_at(&mut self, unix_ms: u64) {
        self.begun_ms.get_or_insert(unix_ms);
        self.end_ms = self.end_ms.max(unix_ms);
    }

    /// How long jobs of so many channels take, as far as is known.
    pub fn latencies(&self, channels: usize) -> Vec<Latency> {
        let of = |channel: usize| match self.channels.get(channel) {
            Some(seen) if !seen.sample.is_empty() => {
                let mut sorted: Vec<u64> = seen.sample.iter().map(|(_, ms)| *ms).collect();
                sorted.sort_unstable();
                Latency::Recorded(sorted)
            }
            _ => Latency::Unknown,
        };
        (0..channels).map(of).collect()
    }

    /// What was recorded of a channel.
    pub fn channel(&self, channel: Channel) -> Figures {
        let waits = self.channels.get(usize::from(channel));
        let waits = waits.map(|seen| seen.waits.figures()).unwrap_or_default();
        Figures {
            outside: waits.orders,
            ..waits
        }
    }

    /// What was recorded of a lane.
    pub fn lane(&self, lane: Priority) -> Figures {
        let begun = self.begun_ms.unwrap_or_default();
        self.lanes[lane.as_index()].figures(begun, self.end_ms)
    }

    /// Orders that waited, and were dealt by a table that is not known any more.
    pub fn table_unknown(&self) -> u64 {
        self.table_unknown
    }
}

impl Seen {
    fn note_filled(&mut self, unix_ms: u64, places: usize) {
        self.filled_ms.push_back(unix_ms);
        while self.filled_ms.len() > places {
            self.filled_ms.pop_front();
        }
    }

    fn keep(&mut self, hash: u64, latency_ms: u64) {
        self.sample.push((hash, latency_ms));
        if self.sample.len() > LATENCIES_MAX {
            self.sample.pop();
        }
    }
}

fn seen(channels: &mut Vec<Seen>, channel: Channel) -> &mut Seen {
    let at = usize::from(channel);
    if channels.len() <= at {
        channels.resize_with(at + 1, Seen::default);
    }
    &mut channels[at]
}

/// Most jobs that a channel of a table has at a time.
fn places_of(known: &Known, channel: Channel) -> usize {
    let found = known.outside().find(|(one, _)| *one == channel);
    found.map_or(1, |(_, outside)| outside.jobs_max as usize)
}

/// The channel into whose pool the cards of an order had come, or most of them. Of several with one pool, the first that it asks.
fn filler(known: &Known, from: &[(&str, u64)], chain: &[Channel]) -> Option<Channel> {
    let of_pool = |pool: &str| {
        let all = || known.outside().filter(|(_, one)| one.pool == pool);
        let asked = chain
            .iter()
            .find(|&&one| all().any(|(other, _)| other == one));
        asked.copied().or_else(|| Some(all().next()?.0))
    };
    let mut most = None;
    for &(pool, cards) in from {
        if let Some(channel) = of_pool(pool)
            && most.is_none_or(|(_, known)| cards > known)
        {
            most = Some((channel, cards));
        }
    }
    most.map(|(channel, _)| channel)
}

/// When the job began that has filled an order at `filled_ms`, as far as records tell.
fn began(
    open: &Open,
    started_ms: u64,
    filled_ms: u64,
    had_place: bool,
    seen: &Seen,
    places: usize,
) -> u64 {
    // Cards that come before the next attempt are of the one before.
    let [before, last] = open.tried_ms;
    let tried = if last <= filled_ms { last } else { before };
    let asked = tried.max(started_ms);
    let is_as_it_came = had_place && started_ms <= open.came_ms;
    if is_as_it_came || seen.filled_ms.len() < places {
        return asked;
    }
    let place_came = seen.filled_ms.front().copied().unwrap_or_default();
    asked.max(place_came)
}

#[cfg(test)]
mod tests;
