//! Who orders: one thread, an open loop of lone orders, each timed from when it was to be sent, by phase and by who has filled it.
//!
//! An order that is answered as waiting is accepted; it is asked for again at once, under the same id, and its time runs on.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use croupier_protocol::{
    FRAME_BYTES_MAX_LIMIT, FaultBody, FrameHeader, FrameWriter, Kind, OrderItemView, OrderItems,
    Refusal, RefusedBody, STATUS_WAITING, STEP_FLAG_STAY, STEP_FLAG_WAIT, StepItem, peek,
};
use hdrhistogram::Histogram;

use super::{CHANNELS, SceneArgs, WARMUP, suppliers};
use crate::driver::Clock;
use crate::driver::poller::Poller;
use crate::driver::wire::Wire;
use crate::error::BenchError;
use crate::oracle::{Judged, Oracle, Violation};
use crate::recorder::latency_histogram;
use crate::schedule::{Arrivals, Schedule};
use crate::stock::{SecretReading, SecretShape};
use crate::workload::Workload;

/// Of an order that is asked for again; that it waits, and until when, is settled by then.
const AGAIN_DEADLINE_MS: u32 = 60_000;
/// Longest sleep.
const SLEEP_NS_MAX: u64 = 50_000_000;
const SCRATCH_BYTES: usize = 256 * 1024;

/// When what happens, in nanoseconds on the scene's clock.
#[derive(Debug, Clone, Copy)]
pub struct Phases {
    /// The first order is sent.
    pub begin_ns: u64,
    /// The first order is counted.
    pub before_ns: u64,
    /// The issuers fall ill.
    pub during_ns: u64,
    /// They are well again.
    pub after_ns: u64,
    /// The last order is sent.
    pub end_ns: u64,
}

impl Phases {
    /// When what happens if the first order is sent at `begin_ns`.
    pub fn new(args: &SceneArgs, begin_ns: u64) -> Self {
        let before_ns = begin_ns + ns(WARMUP);
        let during_ns = before_ns + ns(args.before);
        let after_ns = during_ns + ns(args.during);
        Self {
            begin_ns,
            before_ns,
            during_ns,
            after_ns,
            end_ns: after_ns + ns(args.after),
        }
    }

    /// Which of them an intended time is in; `None` before the first.
    fn of(&self, intended_ns: u64) -> Option<usize> {
        let begun = [self.before_ns, self.during_ns, self.after_ns];
        begun.iter().rposition(|&begin_ns| intended_ns >= begin_ns)
    }
}

fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// Groups of orders: from stock, from each channel, from all channels, all.
pub const GROUPS: usize = CHANNELS.len() + 3;

/// What was counted in one phase.
#[derive(Debug)]
pub struct PhaseFigures {
    /// By group, from the intended time to the answer, in nanoseconds.
    pub latency: [Histogram<u64>; GROUPS],
    /// Orders refused, by the refusal's name.
    pub refused: BTreeMap<String, u64>,
    /// Answers that said that an order waits.
    pub waiting: u64,
}

impl PhaseFigures {
    fn new() -> Self {
        Self {
            latency: std::array::from_fn(|_| latency_histogram()),
            refused: BTreeMap::new(),
            waiting: 0,
        }
    }
}

/// What was counted.
#[derive(Debug)]
pub struct Figures {
    /// Before, during, after.
    pub phases: [PhaseFigures; 3],
    /// Orders that were sent, warm-up included.
    pub sent: u64,
    /// Of those that were answered with cards: of the issuers' SKU.
    pub issued: u64,
    /// Orders that nobody has answered.
    pub unanswered: u64,
    /// From the intended to the actual sending.
    pub lateness: Histogram<u64>,
}

/// What a load leaves behind.
#[derive(Debug)]
pub struct Loaded {
    /// The figures.
    pub figures: Figures,
    /// The judge of all answers.
    pub oracle: Oracle,
}

/// An order that awaits its cards.
#[derive(Debug, Clone, Copy)]
struct Open {
    intended_ns: u64,
    connection: usize,
    /// It has been answered as waiting.
    waits: bool,
}

/// The load.
pub struct Load {
    clock: Clock,
    phases: Phases,
    drain_ns: u64,
    schedule: Schedule,
    workload: Arc<Workload>,
    shape: SecretShape,
    oracle: Oracle,
    wires: Vec<Wire>,
    poller: Poller,
    /// By sequence number, which is the request's id less one.
    open: HashMap<u64, Open>,
    next: u64,
    figures: Figures,
    scratch: Vec<u8>,
    out: BytesMut,
}

impl Load {
    /// Takes charge of connections that have said Hello.
    pub fn new(
        args: &SceneArgs,
        clock: Clock,
        phases: Phases,
        workload: Arc<Workload>,
        shape: SecretShape,
        oracle: Oracle,
        streams: Vec<TcpStream>,
    ) -> Result<Self, BenchError> {
        let poller = Poller::new().map_err(BenchError::io("make an epoll"))?;
        let mut wires = Vec::with_capacity(streams.len());
        for (connection, stream) in streams.into_iter().enumerate() {
            let wire = Wire::new(stream).and_then(|wire| {
                poller.add(&wire.stream, connection)?;
                Ok(wire)
            });
            wires.push(wire.map_err(|source| BenchError::ConnectionLost { connection, source })?);
        }
        Ok(Self {
            clock,
            phases,
            drain_ns: ns(args.drain),
            schedule: Schedule::new(
                Arrivals::Constant,
                args.rate,
                phases.begin_ns,
                0.0,
                args.seed,
            ),
            workload,
            shape,
            oracle,
            wires,
            poller,
            open: HashMap::new(),
            next: 0,
            figures: Figures {
                phases: std::array::from_fn(|_| PhaseFigures::new()),
                sent: 0,
                issued: 0,
                unanswered: 0,
                lateness: latency_histogram(),
            },
            scratch: vec![0; SCRATCH_BYTES],
            out: BytesMut::with_capacity(SCRATCH_BYTES),
        })
    }

    /// Sends all orders at their times and reads all answers, as long as the last may take.
    pub fn run(mut self) -> Result<Loaded, BenchError> {
        loop {
            let now_ns = self.clock.now_ns();
            let all_sent = self.schedule.next_ns() >= self.phases.end_ns;
            let over = now_ns >= self.phases.end_ns + self.drain_ns;
            if over || all_sent && self.open.is_empty() {
                break;
            }
            self.send_due(now_ns)?;
            let next_ns = match self.schedule.next_ns() {
                next_ns if next_ns < self.phases.end_ns => next_ns,
                _ => u64::MAX,
            };
            let until_ns = next_ns.min(now_ns + SLEEP_NS_MAX);
            let timeout_ns = until_ns.saturating_sub(self.clock.now_ns());
            self.poller
                .wait(timeout_ns)
                .map_err(BenchError::io("wait for sockets"))?;
            for event in 0..self.poller.ready_count() {
                let Some(ready) = self.poller.ready(event) else {
                    continue;
                };
                if ready.writable {
                    self.flush(ready.index)?;
                }
                if ready.readable {
                    self.receive(ready.index)?;
                }
            }
        }
        self.figures.sent = self.next;
        self.figures.unanswered = self.open.len() as u64;
        Ok(Loaded {
            figures: self.figures,
            oracle: self.oracle,
        })
    }

    fn send_due(&mut self, now_ns: u64) -> Result<(), BenchError> {
        let due_ns = now_ns.min(self.phases.end_ns - 1);
        while self.schedule.next_ns() <= due_ns {
            let intended_ns = self.schedule.next_ns();
            self.schedule.advance();
            let sequence = self.next;
            self.next += 1;
            let connection = sequence as usize % self.wires.len();
            let open = Open {
                intended_ns,
                connection,
                waits: false,
            };
            self.open.insert(sequence, open);
            if self.phases.of(intended_ns).is_some() {
                let late_ns = now_ns.saturating_sub(intended_ns).max(1);
                self.figures.lateness.saturating_record(late_ns);
            }
            self.encode(sequence, false);
            self.write(connection)?;
        }
        Ok(())
    }

    /// An order as it is sent first, or again: then its answer is kept back until it has its cards, or for five seconds.
    fn encode(&mut self, sequence: u64, again: bool) {
        let workload = &self.workload;
        let sku = workload.sku_id(workload.sku_index(sequence));
        let mut item = StepItem::one(workload.order_id(sequence), sku);
        if again {
            item.flags |= STEP_FLAG_WAIT | STEP_FLAG_STAY;
            item.deadline_ms = AGAIN_DEADLINE_MS;
        }
        let mut frame = FrameWriter::begin(&mut self.out, Kind::Issue, sequence + 1);
        item.encode_into(frame.body());
        frame.set_count(1);
        frame.finish();
    }

    fn lost(connection: usize) -> impl FnOnce(std::io::Error) -> BenchError {
        move |source| BenchError::ConnectionLost { connection, source }
    }

    fn write(&mut self, connection: usize) -> Result<(), BenchError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let wire = &mut self.wires[connection];
        let was_backed_up = wire.is_backed_up();
        let all = wire.send(&mut self.out).map_err(Self::lost(connection))?;
        if !all && !was_backed_up {
            let watched = self.poller.watch_writes(&wire.stream, connection, true);
            watched.map_err(Self::lost(connection))?;
        }
        Ok(())
    }

    fn flush(&mut self, connection: usize) -> Result<(), BenchError> {
        let wire = &mut self.wires[connection];
        if wire.flush().map_err(Self::lost(connection))? {
            let watched = self.poller.watch_writes(&wire.stream, connection, false);
            watched.map_err(Self::lost(connection))?;
        }
        Ok(())
    }

    fn receive(&mut self, connection: usize) -> Result<(), BenchError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let filled = self.wires[connection]
            .receive(&mut scratch)
            .map_err(Self::lost(connection))?;
        if let Some(filled) = filled {
            let received_ns = self.clock.now_ns();
            let mut rest = &scratch[..filled];
            while let Some(header) = peek(rest, FRAME_BYTES_MAX_LIMIT)? {
                self.answered(connection, &header, header.body_of(rest), received_ns)?;
                rest = &rest[header.length as usize..];
            }
            self.wires[connection].keep(rest);
        }
        self.scratch = scratch;
        self.write(connection)
    }

    fn answered(
        &mut self,
        connection: usize,
        header: &FrameHeader,
        body: &[u8],
        received_ns: u64,
    ) -> Result<(), BenchError> {
        let sequence = header.request_id.wrapping_sub(1);
        let open = self.open.get(&sequence).copied();
        let open = open.filter(|open| open.connection == connection);
        match (header.kind, open) {
            (Kind::Fault, _) => {
                let fault = FaultBody::decode(body)?;
                let text = format!("{}: {}", fault.fault.name(), fault.text);
                Err(BenchError::Fault { connection, text })
            }
            (_, None) => {
                let request_id = header.request_id;
                self.oracle.violation(&Violation::NotAsked { request_id });
                Ok(())
            }
            (Kind::Refused, Some(open)) => {
                let refused = RefusedBody::decode(body)?;
                self.refused(sequence, open, refused.refusal.as_u16());
                Ok(())
            }
            (Kind::IssueReply, Some(open)) if header.count == 1 && !header.more() => {
                for item in OrderItems::new(body, 1) {
                    self.judge(sequence, open, &item?, received_ns);
                }
                Ok(())
            }
            (kind, Some(_)) => Err(BenchError::Unexpected {
                request: "issue",
                detail: format!("a frame of kind {kind:?} with {} answers", header.count),
            }),
        }
    }

    fn judge(&mut self, sequence: u64, open: Open, item: &OrderItemView<'_>, received_ns: u64) {
        let phase = self.phases.of(open.intended_ns);
        if item.head.status == STATUS_WAITING {
            if let Some(phase) = phase {
                self.figures.phases[phase].waiting += 1;
            }
            self.open.insert(
                sequence,
                Open {
                    waits: true,
                    ..open
                },
            );
            self.encode(sequence, true);
            return;
        }
        let judged = match open.waits {
            false => self.oracle.judge_issue(sequence, item),
            true => self.oracle.judge_issue_again(sequence, item),
        };
        if let Judged::Refused(refusal) = judged {
            return self.refused(sequence, open, refusal);
        }
        self.open.remove(&sequence);
        let channel = self.channel_of(sequence, item);
        self.figures.issued += u64::from(channel != Some(0));
        let (Some(phase), Some(channel)) = (phase, channel) else {
            return;
        };
        let latency_ns = received_ns.saturating_sub(open.intended_ns).max(1);
        let mut record = |group: usize| {
            self.figures.phases[phase].latency[group].saturating_record(latency_ns);
        };
        record(channel);
        if channel > 0 {
            record(GROUPS - 2);
        }
        record(GROUPS - 1);
    }

    /// The group of who has filled an order, 0 = stock; `None` if that cannot be told, and then the judge has said why.
    fn channel_of(&self, sequence: u64, item: &OrderItemView<'_>) -> Option<usize> {
        if self.workload.sku_index(sequence) == 0 {
            return Some(0);
        }
        let (_, secret) = item.cards().next()?;
        match self.shape.read(secret) {
            SecretReading::Ours { number, .. } => Some(1 + suppliers::maker(number)),
            SecretReading::Foreign | SecretReading::Damaged => None,
        }
    }

    fn refused(&mut self, sequence: u64, open: Open, number: u16) {
        self.open.remove(&sequence);
        let name = Refusal::try_from(number).map_or("unknown", Refusal::name);
        // What is refused while nothing is counted is a failure all the same.
        let phase = self.phases.of(open.intended_ns).unwrap_or(0);
        let refused = &mut self.figures.phases[phase].refused;
        *refused.entry(name.to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_of_the_phase_in_which_it_was_to_be_sent() {
        let phases = Phases {
            begin_ns: 5,
            before_ns: 10,
            during_ns: 20,
            after_ns: 30,
            end_ns: 40,
        };
        let of = [9, 10, 19, 20, 30, 50].map(|ns| phases.of(ns));
        assert_eq!(of, [None, Some(0), Some(0), Some(1), Some(2), Some(2)]);
    }
}
