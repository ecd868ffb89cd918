//! The closed loop against Redis: as the one against Croupier, with another protocol. Replies come in order, so what
//! is in flight is a queue.

use std::collections::VecDeque;
use std::net::TcpStream;

use bytes::BytesMut;

use super::resp::{Reply, put_array_head, put_word, take};
use crate::contest::RoundLength;
use crate::driver::Clock;
use crate::driver::poller::Poller;
use crate::driver::wire::Wire;
use crate::error::BenchError;
use crate::peers::judge::Judge;
use crate::recorder::{Operation, Recorder, Window};

const SCRATCH_BYTES: usize = 256 * 1024;
/// Longest wait for a socket before the clock is looked at.
const SLEEP_NS_MAX: u64 = 50_000_000;
/// How long replies are waited for when nothing is sent any more.
const DRAIN_NS: u64 = 15_000_000_000;

/// What is sent for an order: everything but the order id is the same each time.
#[derive(Debug)]
pub struct OrderCommand {
    before_id: BytesMut,
}

impl OrderCommand {
    /// `EVALSHA <sha> 2 <stock> <orders> <order id>`.
    pub fn new(script_sha: &str, stock: &str, orders: &str) -> Self {
        let mut before_id = BytesMut::new();
        put_array_head(&mut before_id, 6);
        for word in ["EVALSHA", script_sha, "2", stock, orders] {
            put_word(&mut before_id, word.as_bytes());
        }
        Self { before_id }
    }

    #[inline]
    fn put(&self, out: &mut BytesMut, id: [u8; 16]) {
        out.extend_from_slice(&self.before_id);
        out.extend_from_slice(b"$16\r\n");
        out.extend_from_slice(&id);
        out.extend_from_slice(b"\r\n");
    }
}

struct Connection {
    wire: Wire,
    /// When each order in flight was sent, and its sequence number.
    in_flight: VecDeque<(u64, u64)>,
}

/// The loop and what it needs.
pub struct Load<'a> {
    command: &'a OrderCommand,
    judge: &'a mut Judge,
    connections: Vec<Connection>,
    pipeline: usize,
    poller: Poller,
    clock: Clock,
    recorder: Recorder,
    /// Orders that the stock still fills.
    stock: u64,
    stop_ns: u64,
    out: BytesMut,
    scratch: Vec<u8>,
}

impl<'a> Load<'a> {
    /// Takes charge of connections.
    pub fn new(
        command: &'a OrderCommand,
        judge: &'a mut Judge,
        streams: Vec<TcpStream>,
        pipeline: usize,
        stock: u64,
        length: RoundLength,
    ) -> Result<Self, BenchError> {
        let poller = Poller::new().map_err(BenchError::io("make an epoll"))?;
        let mut connections = Vec::with_capacity(streams.len());
        for (index, stream) in streams.into_iter().enumerate() {
            let wire = Wire::new(stream)
                .and_then(|wire| poller.add(&wire.stream, index).map(|()| wire))
                .map_err(|source| BenchError::ConnectionLost {
                    connection: index,
                    source,
                })?;
            connections.push(Connection {
                wire,
                in_flight: VecDeque::with_capacity(pipeline),
            });
        }
        let clock = Clock::start();
        let start_ns = clock.now_ns() + length.warmup.as_nanos() as u64;
        let stop_ns = start_ns + length.measured.as_nanos() as u64;
        Ok(Self {
            command,
            judge,
            connections,
            pipeline,
            poller,
            clock,
            recorder: Recorder::new(Window::Received, start_ns, stop_ns),
            stock,
            stop_ns,
            out: BytesMut::with_capacity(SCRATCH_BYTES),
            scratch: vec![0; SCRATCH_BYTES],
        })
    }

    /// Sends, reads and judges until the time or the stock is used up and all is answered.
    pub fn run(mut self) -> Result<Recorder, BenchError> {
        (0..self.connections.len()).try_for_each(|index| self.refill(index))?;
        loop {
            let in_flight: usize = self
                .connections
                .iter()
                .map(|connection| connection.in_flight.len())
                .sum();
            let now_ns = self.clock.now_ns();
            let stopped = now_ns >= self.stop_ns;
            if stopped && (in_flight == 0 || now_ns >= self.stop_ns + DRAIN_NS) {
                self.recorder.unanswered = in_flight as u64;
                self.recorder.end_ns = self.recorder.end_ns.min(self.stop_ns);
                return Ok(self.recorder);
            }
            self.poller
                .wait(SLEEP_NS_MAX)
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
    }

    /// An order for every free place of a connection.
    fn refill(&mut self, index: usize) -> Result<(), BenchError> {
        let now_ns = self.clock.now_ns();
        let connection = &mut self.connections[index];
        if now_ns >= self.stop_ns || connection.wire.is_backed_up() {
            return Ok(());
        }
        while connection.in_flight.len() < self.pipeline {
            if self.stock == 0 {
                self.stop_ns = now_ns;
                break;
            }
            self.stock -= 1;
            let (sequence, id) = self.judge.next_order();
            self.command.put(&mut self.out, id.to_bytes());
            connection.in_flight.push_back((now_ns, sequence));
        }
        let all = connection.wire.send(&mut self.out).and_then(|all| {
            if !all {
                self.poller
                    .watch_writes(&connection.wire.stream, index, true)?;
            }
            Ok(())
        });
        all.map_err(|source| BenchError::ConnectionLost {
            connection: index,
            source,
        })
    }

    fn flush(&mut self, index: usize) -> Result<(), BenchError> {
        let wire = &mut self.connections[index].wire;
        let all = wire.flush().and_then(|all| {
            if all {
                self.poller.watch_writes(&wire.stream, index, false)?;
            }
            Ok(all)
        });
        match all.map_err(|source| BenchError::ConnectionLost {
            connection: index,
            source,
        })? {
            true => self.refill(index),
            false => Ok(()),
        }
    }

    fn receive(&mut self, index: usize) -> Result<(), BenchError> {
        let Connection { wire, in_flight } = &mut self.connections[index];
        let filled =
            wire.receive(&mut self.scratch)
                .map_err(|source| BenchError::ConnectionLost {
                    connection: index,
                    source,
                })?;
        let Some(filled) = filled else {
            return Ok(());
        };
        let received_ns = self.clock.now_ns();
        let mut rest = &self.scratch[..filled];
        while let Some((reply, length)) =
            take(rest).map_err(|error| redis_error(&error.to_string()))?
        {
            let (sent_ns, sequence) = in_flight
                .pop_front()
                .ok_or_else(|| redis_error("a reply came that nobody asked for"))?;
            match reply {
                Reply::Bulk(secret) => self.judge.judge(sequence, secret)?,
                other => {
                    return Err(redis_error(&format!(
                        "an order was answered with {other:?}"
                    )));
                }
            }
            self.recorder
                .answered(Operation::Issue, sent_ns, received_ns, 1);
            rest = &rest[length..];
        }
        wire.keep(rest);
        self.refill(index)
    }
}

#[cold]
fn redis_error(detail: &str) -> BenchError {
    BenchError::Peer {
        peer: "redis".into(),
        detail: detail.into(),
    }
}
