//! The model of orders that wait for channels which are outside: docs/routes-history.md.
//!
//! Pure: orders in the order of their times in, figures out; how long a job takes follows from the order's id, so two tables that give
//! an order to the same channel have it take the same time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use croupier_protocol::Priority;

use super::figures::{Depth, Figures, Lane, Waits};
use super::tables::Channel;
use crate::route::{Balance, ToAsk, better_of_two, mix};

/// Most orders that wait for a place at a time: of more it is only known how many there were.
pub const QUEUED_MAX: usize = 1 << 20;
/// Salt of the draw of a latency. It has nothing to do with those that weights and samples are drawn by.
const LATENCY_SALT: u64 = 0x6c61_7465_6e63_7900;

/// How long jobs of a channel take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Latency {
    /// Nothing is known: as long as they may.
    #[default]
    Unknown,
    /// One of these, in milliseconds, sorted; there is one at least.
    Recorded(Vec<u64>),
    /// So many milliseconds, as somebody has said.
    Said(u64),
}

/// An order that channels are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub id: u128,
    pub priority: Priority,
    pub lane: Priority,
}

/// What a model came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By the number of the channel.
    pub channels: Vec<Figures>,
    pub lanes: [Figures; 4],
    /// How long a job takes that nothing is known of, by the number of the channel, in milliseconds.
    pub timeouts_ms: Vec<u64>,
    /// Orders that found neither a place nor room in the queue.
    pub over: u64,
    /// Orders that were in the queue at the end: none of their channels came back.
    pub left: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Queues {
    /// By the number of the channel.
    latencies: Arc<[Latency]>,
    servers: Vec<Server>,
    groups: Vec<Group>,
    /// By the numbers of their channels, sorted.
    group_of: HashMap<Box<[Channel]>, usize>,
    /// End, number of the order, channel and lane of the jobs under way.
    jobs: BinaryHeap<Reverse<(u64, u64, Channel, u8)>>,
    lanes: [Lane; 4],
    queued: usize,
    queued_max: usize,
    /// Orders so far.
    came: u64,
    /// When the first order came.
    begun_ms: Option<u64>,
    now_ms: u64,
    over: u64,
}

#[derive(Clone, Debug, Default)]
struct Server {
    places: u32,
    timeout_ms: u64,
    /// Mean of its latencies, for who asks the one with the least.
    mean_ms: f64,
    is_out: bool,
    jobs: u64,
    jobs_most: u64,
    queued: Depth,
    waits: Waits,
    /// In which it is.
    groups: Vec<usize>,
}

/// Orders that wait for a place at any of the same channels.
#[derive(Debug)]
struct Group {
    channels: Box<[Channel]>,
    /// By priority.
    lines: [VecDeque<Queued>; 4],
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    /// The number of the order.
    nth: u64,
    came_ms: u64,
    /// Chooses the latency.
    draw: u64,
    lane: Priority,
}

impl Queues {
    /// With nobody in it.
    pub fn new(latencies: Arc<[Latency]>) -> Queues {
        Queues::of_room(latencies, QUEUED_MAX)
    }

    fn of_room(latencies: Arc<[Latency]>, queued_max: usize) -> Queues {
        Queues {
            servers: vec![Server::default(); latencies.len()],
            latencies,
            groups: Vec::new(),
            group_of: HashMap::new(),
            jobs: BinaryHeap::new(),
            lanes: Default::default(),
            queued: 0,
            queued_max,
            came: 0,
            begun_ms: None,
            now_ms: 0,
            over: 0,
        }
    }

    /// A table says so of a channel: before orders by that table.
    pub fn set(&mut self, channel: Channel, places: u32, timeout_ms: u32) {
        let at = usize::from(channel);
        if self.servers.len() <= at {
            self.servers.resize_with(at + 1, Server::default);
        }
        let mean_ms = match self.latencies.get(at) {
            Some(Latency::Recorded(sorted)) => {
                sorted.iter().sum::<u64>() as f64 / sorted.len() as f64
            }
            Some(Latency::Said(ms)) => *ms as f64,
            Some(Latency::Unknown) | None => timeout_ms.into(),
        };
        let server = &mut self.servers[at];
        server.timeout_ms = timeout_ms.into();
        server.mean_ms = mean_ms;
        let grows = places > server.places;
        server.places = places;
        if grows {
            self.fill(channel);
        }
    }

    /// A channel is out from then on, or is not.
    pub fn stands(&mut self, at_ms: u64, channel: Channel, is_out: bool) {
        self.pass(at_ms);
        let Some(server) = self.servers.get_mut(usize::from(channel)) else {
            return;
        };
        server.is_out = is_out;
        self.fill(channel);
    }

    /// An order gets its cards at once.
    pub fn at_once(&mut self, at_ms: u64, lane: Priority) {
        self.begin(at_ms);
        self.lanes[lane.as_index()].note(0);
    }

    /// An order comes for which channels are asked, each of which was [set](Self::set). One with a time before that of the last
    /// came then.
    pub fn arrive(&mut self, at_ms: u64, arrival: &Arrival, to_ask: &ToAsk) {
        self.begin(at_ms);
        self.pass(at_ms);
        let channels = self.in_order(arrival.id, to_ask);
        let order = Queued {
            nth: self.came,
            came_ms: self.now_ms,
            draw: mix(arrival.id, LATENCY_SALT),
            lane: arrival.lane,
        };
        self.came += 1;
        let first = channels.iter().copied().find(|&one| self.has_room(one));
        if first.is_none() && self.queued >= self.queued_max {
            self.over += 1;
            return;
        }
        self.lanes[arrival.lane.as_index()].comes(self.now_ms);
        match first {
            Some(channel) => self.start(channel, order),
            None => self.queue(channels, arrival.priority, order),
        }
    }

    /// All jobs end; what that came to.
    pub fn finish(&mut self) -> Outcome {
        self.pass(u64::MAX);
        let (begun, end) = (self.begun_ms.unwrap_or_default(), self.now_ms);
        let channel = |server: &Server| {
            let waits = server.waits.figures();
            Figures {
                outside: waits.orders,
                jobs_most: Some(server.jobs_most),
                depth: Some(server.queued.peak(begun, end)),
                ..waits
            }
        };
        Outcome {
            channels: self.servers.iter().map(channel).collect(),
            lanes: self.lanes.each_ref().map(|lane| lane.figures(begun, end)),
            timeouts_ms: self.servers.iter().map(|one| one.timeout_ms).collect(),
            over: self.over,
            left: self.queued as u64,
        }
    }

    fn begin(&mut self, at_ms: u64) {
        self.begun_ms.get_or_insert(at_ms.max(self.now_ms));
    }

    /// Jobs end that end until then.
    fn pass(&mut self, to_ms: u64) {
        while let Some(&Reverse((end_ms, _, channel, lane))) = self.jobs.peek()
            && end_ms <= to_ms
        {
            self.jobs.pop();
            self.now_ms = end_ms;
            self.servers[usize::from(channel)].jobs -= 1;
            self.lanes[usize::from(lane)].leaves(end_ms, true);
            self.fill(channel);
        }
        // The end of all times is none.
        if to_ms != u64::MAX {
            self.now_ms = self.now_ms.max(to_ms);
        }
    }

    /// The channels of an order as it asks them: as the dispatcher has it.
    fn in_order(&self, id: u128, to_ask: &ToAsk) -> Vec<Channel> {
        let mut all = Vec::new();
        for stage in &to_ask.stages {
            let first = match to_ask.balance {
                // They come as the table has chosen.
                Balance::Weights => 0,
                Balance::LeastLatency => {
                    better_of_two(stage, (id, 0), |nth| self.load(stage[nth].0))
                }
            };
            let (before, after) = stage.split_at(first);
            all.extend(after.iter().chain(before).map(|(channel, _)| *channel));
        }
        all
    }

    /// How long an order would wait there, about, in milliseconds.
    fn load(&self, channel: Channel) -> f64 {
        let server = &self.servers[usize::from(channel)];
        server.mean_ms * (1.0 + server.jobs as f64 / f64::from(server.places.max(1)))
    }

    fn has_room(&self, channel: Channel) -> bool {
        let server = &self.servers[usize::from(channel)];
        !server.is_out && server.jobs < server.places.into()
    }

    /// A channel gets a job now.
    fn start(&mut self, channel: Channel, order: Queued) {
        let at = usize::from(channel);
        let server = &mut self.servers[at];
        let took_ms = match self.latencies.get(at) {
            Some(Latency::Recorded(sorted)) => {
                sorted[((u128::from(order.draw) * sorted.len() as u128) >> 64) as usize]
            }
            Some(Latency::Said(ms)) => *ms,
            Some(Latency::Unknown) | None => server.timeout_ms,
        };
        let end_ms = self.now_ms.saturating_add(took_ms);
        server.jobs += 1;
        server.jobs_most = server.jobs_most.max(server.jobs);
        let wait_ms = end_ms - order.came_ms;
        server.waits.note(wait_ms);
        self.lanes[order.lane.as_index()].note(wait_ms);
        let lane = order.lane.as_index() as u8;
        let job = (end_ms, order.nth, channel, lane);
        self.jobs.push(Reverse(job));
    }

    /// An order waits for a place at any of these.
    fn queue(&mut self, mut channels: Vec<Channel>, priority: Priority, order: Queued) {
        channels.sort_unstable();
        let known = self.group_of.get(&channels[..]).copied();
        let at = known.unwrap_or_else(|| self.add_group(channels.into()));
        let group = &mut self.groups[at];
        group.lines[priority.as_index()].push_back(order);
        for channel in &group.channels {
            self.servers[usize::from(*channel)].queued.up(self.now_ms);
        }
        self.queued += 1;
    }

    fn add_group(&mut self, channels: Box<[Channel]>) -> usize {
        let at = self.groups.len();
        for channel in &channels {
            self.servers[usize::from(*channel)].groups.push(at);
        }
        self.group_of.insert(channels.clone(), at);
        self.groups.push(Group {
            channels,
            lines: Default::default(),
        });
        at
    }

    /// A channel may have room: the first of those who wait for it get it.
    fn fill(&mut self, channel: Channel) {
        while self.has_room(channel) {
            let groups = self.servers[usize::from(channel)].groups.iter();
            let first = groups.filter_map(|&at| {
                let lines = self.groups[at].lines.iter().enumerate();
                let first = |(priority, line): (usize, &VecDeque<Queued>)| {
                    Some((priority, line.front()?.nth, at))
                };
                lines.filter_map(first).next()
            });
            let Some((priority, _, at)) = first.min() else {
                return;
            };
            let group = &mut self.groups[at];
            let Some(order) = group.lines[priority].pop_front() else {
                return;
            };
            for one in &group.channels {
                self.servers[usize::from(*one)].queued.down(self.now_ms);
            }
            self.queued -= 1;
            self.start(channel, order);
        }
    }
}

#[cfg(test)]
mod tests;
