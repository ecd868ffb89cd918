//! One thread of the generator: its loop.

use std::net::TcpStream;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use croupier_protocol::{FRAME_BYTES_MAX_LIMIT, peek};

use super::desk::Desk;
use super::in_flight::InFlight;
use super::poller::Poller;
use super::sender::{Made, Sender};
use super::wire::Wire;
use super::{Pacing, Plan, Shared};
use crate::error::BenchError;
use crate::oracle::Oracle;
use crate::progress::Gauge;
use crate::recorder::Recorder;
use crate::schedule::Schedule;

/// Bytes read at once; a pipeline of answers fits.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Frames put on one connection before the next one gets some, when many are due at once.
const FRAMES_PER_WRITE_MAX: usize = 128;
/// Longest sleep: how quickly a thread notices that another one failed.
const SLEEP_NS_MAX: u64 = 50_000_000;
/// Above this many frames a second a thread no longer wakes for each one, but every [`TICK_NS`].
const TICK_ABOVE_FRAMES_PER_S: f64 = 50_000.0;
/// The wait counts as latency, for latency runs from the intended time.
const TICK_NS: u64 = 50_000;

/// Which part of the run a thread has.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Its number.
    pub thread: usize,
    /// How many there are.
    pub threads: usize,
    /// When the first order may be sent.
    pub start_ns: u64,
}

/// A connection that has said Hello.
#[derive(Debug)]
struct Connection {
    wire: Wire,
    /// Requests that await their answer.
    in_flight: InFlight,
}

/// One thread of the generator.
#[derive(Debug)]
pub struct Worker<'a> {
    connections: Vec<Connection>,
    poller: Poller,
    desk: Desk<'a>,
    shared: &'a Shared,
    start_ns: u64,
    drain_ns: u64,
    /// `None` in a closed loop.
    schedule: Option<Schedule>,
    tick_ns: u64,
    /// The connection that gets the next due frame.
    next_connection: usize,
    scratch: Vec<u8>,
    out: BytesMut,
    sending: bool,
    /// Open loop: frames are due and every connection's table is full, so only an answer helps.
    stuck: bool,
}

impl<'a> Worker<'a> {
    /// Takes charge of connections.
    pub fn new(
        plan: &'a Plan,
        shared: &'a Shared,
        share: Share,
        streams: Vec<(usize, TcpStream)>,
        recorder: Recorder,
    ) -> Result<Self, BenchError> {
        let poller = Poller::new().map_err(BenchError::io("make an epoll"))?;
        let mut connections = Vec::with_capacity(streams.len());
        let mut numbers = Vec::with_capacity(streams.len());
        for (index, (number, stream)) in streams.into_iter().enumerate() {
            let asked_again = plan.mix.lookup > 0 || plan.holding.is_some();
            let in_flight = InFlight::new(plan.in_flight_max, plan.batch, asked_again);
            let wire = Wire::new(stream)
                .and_then(|wire| poller.add(&wire.stream, index).map(|()| wire))
                .map_err(|source| BenchError::ConnectionLost {
                    connection: number,
                    source,
                })?;
            connections.push(Connection { wire, in_flight });
            numbers.push(number);
        }
        let (schedule, tick_ns) = match plan.pacing {
            Pacing::Closed => (None, 0),
            Pacing::Open {
                orders_per_s,
                arrivals,
            } => {
                let frames_per_s = orders_per_s / f64::from(plan.batch) / share.threads as f64;
                let offset_gaps = share.thread as f64 / share.threads as f64;
                let seed = plan.seed ^ (share.thread as u64) << 32;
                let tick_ns = if frames_per_s > TICK_ABOVE_FRAMES_PER_S {
                    TICK_NS
                } else {
                    0
                };
                (
                    Some(Schedule::new(
                        arrivals,
                        frames_per_s,
                        share.start_ns,
                        offset_gaps,
                        seed,
                    )),
                    tick_ns,
                )
            }
        };
        Ok(Self {
            connections,
            poller,
            desk: Desk {
                sender: Sender::new(plan, share.thread),
                oracle: Oracle::new(plan.workload.clone(), plan.shape.clone(), plan.skus),
                recorder,
                answered: 0,
                refused: 0,
                in_flight: 0,
                numbers,
            },
            shared,
            start_ns: share.start_ns,
            drain_ns: plan.drain.as_nanos() as u64,
            schedule,
            tick_ns,
            next_connection: 0,
            scratch: vec![0; SCRATCH_BYTES],
            out: BytesMut::with_capacity(SCRATCH_BYTES),
            sending: true,
            stuck: false,
        })
    }

    /// Sends, reads and judges until all is answered or given up.
    pub fn run(mut self, gauge: &Gauge) -> Result<(Recorder, Oracle), BenchError> {
        self.await_start();
        if self.schedule.is_none() {
            (0..self.connections.len()).try_for_each(|index| self.refill(index))?;
        }
        loop {
            let now_ns = self.shared.clock.now_ns();
            // Relaxed, both: a turn's delay is nothing to a run.
            let stop_ns = self.shared.stop_ns.load(Ordering::Relaxed);
            if self.shared.failed.load(Ordering::Relaxed) {
                break;
            }
            if now_ns >= stop_ns {
                let all_sent = self
                    .schedule
                    .as_ref()
                    .is_none_or(|schedule| schedule.next_ns() >= stop_ns);
                self.sending &= !all_sent;
                if (!self.sending && self.desk.in_flight == 0) || now_ns >= stop_ns + self.drain_ns
                {
                    break;
                }
            }
            if self.sending && self.schedule.is_some() {
                self.send_due(now_ns, stop_ns)?;
            }
            let timeout_ns = self.sleep_ns(now_ns, stop_ns);
            self.poller
                .wait(timeout_ns)
                .map_err(BenchError::io("wait for sockets"))?;
            for event in 0..self.poller.ready_count() {
                if let Some(ready) = self.poller.ready(event) {
                    if ready.writable {
                        self.flush(ready.index)?;
                    }
                    if ready.readable {
                        self.receive(ready.index)?;
                    }
                }
            }
            gauge.set(
                self.desk.answered,
                self.desk.refused,
                self.desk.in_flight as u64,
            );
        }
        self.desk.recorder.unanswered = self
            .connections
            .iter()
            .map(|connection| connection.in_flight.orders())
            .sum();
        // Relaxed: the final value is set by then, or this thread ends with the configured one.
        self.desk.recorder.end_ns = self
            .desk
            .recorder
            .end_ns
            .min(self.shared.stop_ns.load(Ordering::Relaxed));
        Ok((self.desk.recorder, self.desk.oracle))
    }

    fn await_start(&self) {
        let now_ns = self.shared.clock.now_ns();
        std::thread::sleep(std::time::Duration::from_nanos(
            self.start_ns.saturating_sub(now_ns),
        ));
    }

    /// How long to wait for answers before something else is to be done.
    fn sleep_ns(&self, now_ns: u64, stop_ns: u64) -> u64 {
        let mut until_ns = now_ns + SLEEP_NS_MAX;
        if now_ns < stop_ns {
            until_ns = until_ns.min(stop_ns);
        }
        if let Some(schedule) = self
            .schedule
            .as_ref()
            .filter(|_| self.sending && !self.stuck)
        {
            until_ns = until_ns.min(schedule.next_ns().max(now_ns + self.tick_ns));
        }
        // The clock has gone on since: what is due within a moment is not slept for.
        until_ns.saturating_sub(self.shared.clock.now_ns())
    }

    /// Open loop: sends all that is due, whole writes to one connection after the other.
    fn send_due(&mut self, now_ns: u64, stop_ns: u64) -> Result<(), BenchError> {
        let due_ns = now_ns.min(stop_ns - 1);
        let mut full_connections = 0;
        while self.is_due(due_ns) && full_connections < self.connections.len() {
            let index = self.next_connection;
            self.next_connection = (index + 1) % self.connections.len();
            let frames = self.encode_due(index, now_ns, due_ns);
            full_connections = if frames == 0 { full_connections + 1 } else { 0 };
            self.desk.in_flight += frames;
            self.write(index)?;
        }
        self.stuck = full_connections == self.connections.len();
        Ok(())
    }

    fn is_due(&self, due_ns: u64) -> bool {
        self.sending
            && self
                .schedule
                .as_ref()
                .is_some_and(|schedule| schedule.next_ns() <= due_ns)
    }

    /// Encodes due frames for one connection, as many as one write may have; returns how many.
    fn encode_due(&mut self, index: usize, now_ns: u64, due_ns: u64) -> usize {
        let in_flight = &mut self.connections[index].in_flight;
        let schedule = self
            .schedule
            .as_mut()
            .expect("only an open loop has anything due");
        let mut frames = 0;
        while schedule.next_ns() <= due_ns && frames < FRAMES_PER_WRITE_MAX && !in_flight.is_full()
        {
            let intended_ns = schedule.next_ns();
            if self.desk.sender.make(in_flight, &mut self.out, intended_ns) == Made::NoStock {
                self.stock_used_up(now_ns);
                break;
            }
            self.desk.recorder.sent_late(intended_ns, now_ns);
            schedule.advance();
            frames += 1;
        }
        frames
    }

    /// Closed loop: a request for every free slot of a connection.
    fn refill(&mut self, index: usize) -> Result<(), BenchError> {
        // A connection whose bytes the server does not take gets no more of them, but for commits.
        if !self.sending || self.connections[index].wire.is_backed_up() {
            return self.write(index);
        }
        let now_ns = self.shared.clock.now_ns();
        let connection = &mut self.connections[index];
        while !connection.in_flight.is_full() {
            if self
                .desk
                .sender
                .make(&mut connection.in_flight, &mut self.out, now_ns)
                == Made::NoStock
            {
                self.stock_used_up(now_ns);
                break;
            }
            self.desk.in_flight += 1;
        }
        self.write(index)
    }

    #[cold]
    fn stock_used_up(&mut self, now_ns: u64) {
        self.sending = false;
        // Relaxed: whoever is late to see it finds the stock used up itself.
        self.shared.stock_used_up.store(true, Ordering::Relaxed);
        self.shared.stop_ns.fetch_min(now_ns, Ordering::Relaxed);
    }

    fn write(&mut self, index: usize) -> Result<(), BenchError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let connection = &mut self.connections[index];
        let was_backed_up = connection.wire.is_backed_up();
        let sent = connection.wire.send(&mut self.out).and_then(|all| {
            if !all && !was_backed_up {
                self.poller
                    .watch_writes(&connection.wire.stream, index, true)?;
            }
            Ok(())
        });
        sent.map_err(|source| self.desk.lost(index, source))
    }

    fn flush(&mut self, index: usize) -> Result<(), BenchError> {
        let connection = &mut self.connections[index];
        let flushed = connection.wire.flush().and_then(|all| {
            if all {
                self.poller
                    .watch_writes(&connection.wire.stream, index, false)?;
            }
            Ok(all)
        });
        let all = flushed.map_err(|source| self.desk.lost(index, source))?;
        if all && self.schedule.is_none() {
            self.refill(index)
        } else {
            Ok(())
        }
    }

    fn receive(&mut self, index: usize) -> Result<(), BenchError> {
        let connection = &mut self.connections[index];
        let filled = connection
            .wire
            .receive(&mut self.scratch)
            .map_err(|source| self.desk.lost(index, source))?;
        let Some(filled) = filled else {
            return Ok(());
        };
        let received_ns = self.shared.clock.now_ns();
        let mut rest = &self.scratch[..filled];
        while let Some(header) = peek(rest, FRAME_BYTES_MAX_LIMIT)? {
            self.desk.handle(
                index,
                &mut connection.in_flight,
                &header,
                header.body_of(rest),
                received_ns,
                &mut self.out,
            )?;
            rest = &rest[header.length as usize..];
        }
        connection.wire.keep(rest);
        if self.sending && self.schedule.is_none() {
            if received_ns >= self.shared.stop_ns.load(Ordering::Relaxed) {
                // Relaxed: as in `run`.
                self.sending = false;
            } else {
                return self.refill(index);
            }
        }
        self.write(index)
    }
}
