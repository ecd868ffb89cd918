//! Makes requests: decides what the next frame asks for and encodes it.

use bytes::BytesMut;
use croupier_protocol::{FrameWriter, Holder, Kind, SkuId, Step, StepItem, put_lookup};

use super::Plan;
use super::in_flight::{Asked, InFlight};
use crate::recorder::Operation;
use crate::workload::{mix64, random_below};

/// Issued orders that lookups choose from; a power of two.
const RECENT_ORDERS: usize = 1 << 15;

/// One thread's maker of requests.
#[derive(Debug)]
pub struct Sender<'a> {
    plan: &'a Plan,
    next_sequence: u64,
    random: u64,
    /// A ring of the latest orders that were answered; unused in a mix without lookups.
    recent: Vec<Asked>,
    recent_count: usize,
}

/// What became of an attempt to make a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is encoded and in the table.
    Request,
    /// The stock cannot fill it: the run is over.
    NoStock,
}

impl<'a> Sender<'a> {
    /// A maker whose sequence numbers no other thread uses.
    pub fn new(plan: &'a Plan, thread: usize) -> Self {
        Self {
            plan,
            next_sequence: plan.first_sequence + ((thread as u64) << 40),
            random: mix64(plan.seed ^ mix64(thread as u64)),
            recent: if plan.mix.lookup > 0 {
                vec![Asked::default(); RECENT_ORDERS]
            } else {
                Vec::new()
            },
            recent_count: 0,
        }
    }

    /// Encodes the next request. The table must have room.
    #[inline]
    pub fn make(&mut self, in_flight: &mut InFlight, out: &mut BytesMut, intended_ns: u64) -> Made {
        if self.plan.mix.lookup > 0 && self.recent_count > 0 && self.next_is_lookup() {
            self.make_lookup(in_flight, out, intended_ns);
            return Made::Request;
        }
        match self.plan.holding {
            None => self.make_new(
                Operation::Issue,
                Step::Issue,
                |_| 0,
                in_flight,
                out,
                intended_ns,
            ),
            Some(_) => {
                let workload = &self.plan.workload;
                let ttl_ms = |sequence| workload.ttl_ms(sequence);
                self.make_new(
                    Operation::Reserve,
                    Step::Reserve,
                    ttl_ms,
                    in_flight,
                    out,
                    intended_ns,
                )
            }
        }
    }

    fn next_is_lookup(&mut self) -> bool {
        self.random = self.random.wrapping_add(1);
        self.plan.mix.is_lookup(mix64(self.random))
    }

    #[inline]
    fn make_new(
        &mut self,
        operation: Operation,
        step: Step,
        ttl_ms: impl Fn(u64) -> u32,
        in_flight: &mut InFlight,
        out: &mut BytesMut,
        intended_ns: u64,
    ) -> Made {
        let Plan {
            batch,
            workload,
            budget,
            priority,
            ..
        } = self.plan;
        let first = self.next_sequence;
        let end = first + u64::from(*batch);
        for sequence in first..end {
            if !budget.take(workload.sku_index(sequence), workload.quantity) {
                return Made::NoStock;
            }
        }
        self.next_sequence = end;
        let request_id = in_flight.open(operation, intended_ns, first, *batch);
        let mut frame = FrameWriter::begin(out, step.kind(), request_id);
        for sequence in first..end {
            let item = StepItem {
                order_id: workload.order_id(sequence),
                sku: workload.sku_id(workload.sku_index(sequence)),
                quantity: workload.quantity,
                priority: *priority,
                flags: 0,
                deadline_ms: 0,
                ttl_ms: ttl_ms(sequence),
                holder: Holder::NONE,
                tag: 0,
            };
            let item = item.of_holder(workload.holder(sequence));
            item.encode_into(frame.body());
        }
        frame.set_count(*batch);
        frame.finish();
        Made::Request
    }

    /// True if a reserve that is answered is to be followed by its commit.
    #[inline]
    pub fn commits(&self) -> bool {
        self.plan.holding.is_some_and(|holding| holding.commit)
    }

    /// Encodes the commit of `orders` orders that hold cards; the table knows which.
    #[inline]
    pub fn make_commit(
        &mut self,
        in_flight: &mut InFlight,
        out: &mut BytesMut,
        request_id: u64,
        orders: u16,
    ) {
        let workload = &self.plan.workload;
        let mut frame = FrameWriter::begin(out, Kind::Commit, request_id);
        for asked in &in_flight.asked(request_id)[..usize::from(orders)] {
            let item = StepItem {
                order_id: workload.order_id(asked.sequence),
                sku: SkuId(0),
                quantity: workload.quantity,
                priority: self.plan.priority,
                flags: 0,
                deadline_ms: 0,
                ttl_ms: 0,
                holder: Holder::NONE,
                tag: 0,
            };
            item.encode_into(frame.body());
        }
        frame.set_count(orders);
        frame.finish();
    }

    fn make_lookup(&mut self, in_flight: &mut InFlight, out: &mut BytesMut, intended_ns: u64) {
        let known = self.recent_count.min(RECENT_ORDERS);
        let orders = usize::from(self.plan.batch).min(known) as u16;
        let from = random_below(mix64(self.random) >> 32, known as u32) as usize;
        let request_id = in_flight.open(Operation::LookUp, intended_ns, 0, orders);
        let mut frame = FrameWriter::begin(out, Kind::LookUp, request_id);
        for (index, asked) in in_flight.asked(request_id)[..usize::from(orders)]
            .iter_mut()
            .enumerate()
        {
            *asked = self.recent[(from + index) % known];
            put_lookup(frame.body(), self.plan.workload.order_id(asked.sequence));
        }
        frame.set_count(orders);
        frame.finish();
    }

    /// True if answers have to be remembered for lookups.
    #[inline]
    pub fn wants_answers(&self) -> bool {
        !self.recent.is_empty()
    }

    /// Remembers an order that was issued.
    #[inline]
    pub fn remember(&mut self, sequence: u64, fingerprint: u64) {
        self.recent[self.recent_count % RECENT_ORDERS] = Asked {
            sequence,
            earlier: fingerprint,
        };
        self.recent_count += 1;
    }
}
