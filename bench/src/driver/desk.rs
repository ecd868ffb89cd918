//! One thread's desk: every answer comes here, is matched with its request, judged and counted.
//!
//! It is apart from the connections so that an answer can be read in place while its connection is borrowed.

use std::io;

use bytes::BytesMut;
use croupier_protocol::{FaultBody, FrameHeader, Kind, OrderItemView, OrderItems, RefusedBody};

use super::in_flight::{Asked, InFlight};
use super::sender::Sender;
use crate::error::BenchError;
use crate::oracle::{Judged, Oracle, Violation, fingerprint};
use crate::recorder::{Operation, Recorder};

/// What answers are handled with.
#[derive(Debug)]
pub struct Desk<'a> {
    /// Makes commits, and remembers answers for lookups.
    pub sender: Sender<'a>,
    /// The judge.
    pub oracle: Oracle,
    /// The figures.
    pub recorder: Recorder,
    /// Steps of orders answered with cards or a hold, warm-up included.
    pub answered: u64,
    /// Orders refused, warm-up included.
    pub refused: u64,
    /// Requests in flight on all connections.
    pub in_flight: usize,
    /// Numbers of this thread's connections in the whole run, for errors.
    pub numbers: Vec<usize>,
}

impl Desk<'_> {
    /// The error of a connection that broke.
    #[cold]
    pub fn lost(&self, index: usize, source: io::Error) -> BenchError {
        BenchError::ConnectionLost {
            connection: self.numbers[index],
            source,
        }
    }

    /// One frame from the server; what follows from it at once goes to `out`.
    #[inline]
    pub fn handle(
        &mut self,
        index: usize,
        in_flight: &mut InFlight,
        header: &FrameHeader,
        body: &[u8],
        received_ns: u64,
        out: &mut BytesMut,
    ) -> Result<(), BenchError> {
        if header.kind == Kind::Fault {
            let fault = FaultBody::decode(body)?;
            let text = format!("{}: {}", fault.fault.name(), fault.text);
            return Err(BenchError::Fault {
                connection: self.numbers[index],
                text,
            });
        }
        let Some(slot) = in_flight.get(header.request_id) else {
            self.oracle.violation(&Violation::NotAsked {
                request_id: header.request_id,
            });
            return Ok(());
        };
        let slot = *slot;
        let answers = match (header.kind, slot.operation) {
            (kind, operation) if kind == operation.reply() => header.count,
            (Kind::Refused, operation) => {
                let refused = RefusedBody::decode(body)?;
                let orders = slot.orders - slot.answered;
                self.recorder
                    .refused(operation, refused.refusal.as_u16(), orders.into());
                self.refused += u64::from(orders);
                self.close(in_flight, header.request_id);
                return Ok(());
            }
            (kind, operation) => {
                let request = operation.name();
                return Err(BenchError::Unexpected {
                    request,
                    detail: format!("a frame of kind {kind:?}"),
                });
            }
        };
        let answered = u32::from(slot.answered) + u32::from(answers);
        let complete = !header.more();
        if answered > u32::from(slot.orders) || (complete && answered < u32::from(slot.orders)) {
            self.oracle.violation(&Violation::WrongCount {
                asked: slot.orders,
                answered,
            });
            self.close(in_flight, header.request_id);
            return Ok(());
        }
        let mut granted = 0;
        for (place, item) in (u64::from(slot.answered)..).zip(OrderItems::new(body, header.count)) {
            let item = item?;
            let judged = match slot.operation {
                Operation::Issue => self.judge_issue(slot.first_sequence + place, &item),
                Operation::LookUp => {
                    let asked = in_flight.asked(header.request_id)[place as usize];
                    self.oracle
                        .judge_lookup(asked.sequence, asked.earlier, &item)
                }
                Operation::Reserve => self.judge_reserve(
                    in_flight,
                    header.request_id,
                    slot.first_sequence + place,
                    &item,
                ),
                Operation::Commit | Operation::Pair => {
                    let asked = in_flight.asked(header.request_id)[place as usize];
                    self.oracle
                        .judge_commit(asked.sequence, asked.earlier, &item)
                }
            };
            match judged {
                Judged::Granted => granted += 1,
                Judged::Refused(number) => {
                    self.refused += 1;
                    self.recorder.refused(slot.operation, number, 1);
                }
            }
        }
        self.answered += granted;
        if granted > 0 {
            self.recorder
                .answered(slot.operation, slot.intended_ns, received_ns, granted);
            if slot.operation == Operation::Commit {
                let begun_ns = in_flight.begun_ns(header.request_id);
                self.recorder
                    .answered(Operation::Pair, begun_ns, received_ns, granted);
            }
        }
        if complete && slot.operation == Operation::Reserve && self.sender.commits() {
            match in_flight.commit(header.request_id, received_ns) {
                Some((commit, orders)) => self.sender.make_commit(in_flight, out, commit, orders),
                None => self.in_flight -= 1,
            }
        } else if complete {
            self.close(in_flight, header.request_id);
        } else if let Some(slot) = in_flight.get(header.request_id) {
            slot.answered = answered as u16;
        }
        Ok(())
    }

    #[inline]
    fn judge_issue(&mut self, sequence: u64, item: &OrderItemView<'_>) -> Judged {
        let judged = self.oracle.judge_issue(sequence, item);
        if judged == Judged::Granted && self.sender.wants_answers() {
            self.sender.remember(sequence, fingerprint(item));
        }
        judged
    }

    #[inline]
    fn judge_reserve(
        &mut self,
        in_flight: &mut InFlight,
        request_id: u64,
        sequence: u64,
        item: &OrderItemView<'_>,
    ) -> Judged {
        let judged = self.oracle.judge_reserve(sequence, item);
        if judged == Judged::Granted && self.sender.commits() {
            let earlier = item.head.lsn.0;
            in_flight.hold(request_id, Asked { sequence, earlier });
        }
        judged
    }

    #[inline]
    fn close(&mut self, in_flight: &mut InFlight, request_id: u64) {
        in_flight.close(request_id);
        self.in_flight -= 1;
    }
}
