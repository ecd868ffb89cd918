//! Judges every answer of a run: the right order, the right number of cards, no card twice, no byte changed.
//!
//! Each thread has an oracle of its own; they are merged at the end, and what two of them saw is a violation too. The
//! oracle knows the workload and the shape of secrets, so it keeps one bit per slot and one per imported card, and a
//! thousandth of the secrets.

mod violation;

use std::sync::Arc;

use croupier_protocol::{
    CardRef, IssuedOrder, OrderId, OrderItemHead, OrderItemView, OrderOutcome, Refusal,
    STATUS_HELD, STATUS_REFUSED, SkuId,
};
use serde::Serialize;

pub use violation::Violation;

use crate::bitmap::{Bitmap, SLOTS_PER_SLAB_MAX, SlotSet};
use crate::control::Control;
use crate::error::BenchError;
use crate::stock::{SecretReading, SecretShape};
use crate::workload::{Workload, mix64};

/// One order in this many is kept and looked up again at the end.
pub const SAMPLE_EVERY: u64 = 1000;
/// Orders kept at most, by each thread.
pub const SAMPLES_MAX: usize = 200_000;
/// Violations that are described; beyond it they are only counted.
pub const VIOLATIONS_LISTED_MAX: usize = 20;

/// What became of one order, for the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It was answered with what it asked for (right or wrong): cards, or a hold.
    Granted,
    /// It was refused; the number of the refusal.
    Refused(u16),
}

/// What the oracle concludes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OracleReport {
    /// Answers judged.
    pub orders: u64,
    /// Cards judged.
    pub cards: u64,
    /// Cards that this run did not import: their bytes could not be judged.
    pub cards_foreign: u64,
    /// Orders looked up again at the end.
    pub sampled: u64,
    /// Promises broken.
    pub violations: u64,
    /// The first of them.
    pub details: Vec<String>,
}

impl OracleReport {
    /// Notes a violation.
    #[cold]
    pub fn violation(&mut self, violation: &Violation) {
        self.violations += 1;
        if self.details.len() < VIOLATIONS_LISTED_MAX {
            self.details.push(violation.to_string());
        }
    }

    fn absorb(&mut self, other: Self) {
        self.orders += other.orders;
        self.cards += other.cards;
        self.cards_foreign += other.cards_foreign;
        self.sampled += other.sampled;
        self.violations += other.violations;
        self.details.extend(other.details);
        self.details.truncate(VIOLATIONS_LISTED_MAX);
    }
}

/// The judge of one thread's answers.
#[derive(Debug)]
pub struct Oracle {
    workload: Arc<Workload>,
    shape: SecretShape,
    slots: SlotSet,
    /// Delivered cards by SKU index and number.
    delivered: Vec<Bitmap>,
    samples: Vec<Sample>,
    report: OracleReport,
}

/// An answer kept for the end. The bench made these secrets up, and still prints none.
#[derive(Debug)]
struct Sample {
    order_id: OrderId,
    fingerprint_bytes: Vec<u8>,
}

impl Oracle {
    /// A judge that has seen nothing.
    pub fn new(workload: Arc<Workload>, shape: SecretShape, skus: usize) -> Self {
        let delivered = std::iter::repeat_with(Bitmap::default).take(skus).collect();
        Self {
            workload,
            shape,
            slots: SlotSet::default(),
            delivered,
            samples: Vec::new(),
            report: OracleReport::default(),
        }
    }

    /// Notes a violation that the driver found.
    pub fn violation(&mut self, violation: &Violation) {
        self.report.violation(violation);
    }

    /// Judges the answer to the new order with this sequence number.
    #[inline]
    pub fn judge_issue(&mut self, sequence: u64, item: &OrderItemView<'_>) -> Judged {
        self.judge_issued(sequence, item, false)
    }

    /// As [`Oracle::judge_issue`], for an order that had been answered as waiting and was asked for again.
    pub fn judge_issue_again(&mut self, sequence: u64, item: &OrderItemView<'_>) -> Judged {
        self.judge_issued(sequence, item, true)
    }

    #[inline]
    fn judge_issued(&mut self, sequence: u64, item: &OrderItemView<'_>, before: bool) -> Judged {
        self.report.orders += 1;
        let head = &item.head;
        let order = self.workload.order_id(sequence);
        let sku_index = self.workload.sku_index(sequence);
        let asked_sku = self.workload.sku_id(sku_index);
        if let Some(judged) = self.judge_address(order, asked_sku, head) {
            return judged;
        }
        let asked = self.workload.quantity;
        if head.card_count != asked {
            self.report.violation(&Violation::WrongQuantity {
                order,
                asked,
                got: head.card_count,
            });
        }
        self.judge_record(order, head, before);
        for (card, secret) in item.cards() {
            self.judge_card(order, sku_index, card, secret);
        }
        if sequence.is_multiple_of(SAMPLE_EVERY) && self.samples.len() < SAMPLES_MAX {
            self.samples.push(Sample {
                order_id: order,
                fingerprint_bytes: card_bytes(item.cards()),
            });
        }
        Judged::Granted
    }

    /// Judges the answer to the reserve of the new order with this sequence number.
    #[inline]
    pub fn judge_reserve(&mut self, sequence: u64, item: &OrderItemView<'_>) -> Judged {
        self.report.orders += 1;
        let head = &item.head;
        let order = self.workload.order_id(sequence);
        let sku = self.workload.sku_id(self.workload.sku_index(sequence));
        if let Some(judged) = self.judge_address(order, sku, head) {
            return judged;
        }
        let asked = self.workload.quantity;
        if head.status != STATUS_HELD {
            let status = head.status;
            self.report.violation(&Violation::NotHeld { order, status });
        } else if head.held != asked {
            let got = head.held;
            self.report
                .violation(&Violation::WrongQuantity { order, asked, got });
        }
        self.judge_record(order, head, false);
        Judged::Granted
    }

    /// Judges the answer to the commit of an order whose reserve was answered with this LSN.
    #[inline]
    pub fn judge_commit(
        &mut self,
        sequence: u64,
        reserve_lsn: u64,
        item: &OrderItemView<'_>,
    ) -> Judged {
        if item.head.status == STATUS_REFUSED {
            // It names no SKU where there is no such order.
            self.report.orders += 1;
            let order = self.workload.order_id(sequence);
            let refused = self.judge_address(order, item.head.sku, &item.head);
            return refused.unwrap_or(Judged::Granted);
        }
        let judged = self.judge_issue(sequence, item);
        let lsn = item.head.lsn.0;
        if judged == Judged::Granted && lsn <= reserve_lsn {
            self.report.violation(&Violation::CommitBeforeReserve {
                order: item.head.order_id,
                lsn,
                reserve_lsn,
            });
        }
        judged
    }

    /// Whether an answer is for the order and SKU that were asked for. A refusal ends it there.
    #[inline]
    fn judge_address(
        &mut self,
        order: OrderId,
        asked_sku: SkuId,
        head: &OrderItemHead,
    ) -> Option<Judged> {
        if head.order_id != order {
            self.report.violation(&Violation::WrongOrder {
                asked: order,
                answered: head.order_id,
            });
        }
        if head.sku != asked_sku {
            self.report.violation(&Violation::WrongSku {
                order,
                asked: asked_sku,
                answered: head.sku,
            });
        }
        if head.status != STATUS_REFUSED {
            return None;
        }
        if Refusal::try_from(head.refusal).is_err() {
            self.report.violation(&Violation::UnknownRefusal {
                order,
                number: head.refusal,
            });
        }
        Some(Judged::Refused(head.refusal))
    }

    /// Whether the answer to a new step says so, and where its record is. `before`: it had been asked for already.
    #[inline]
    fn judge_record(&mut self, order: OrderId, head: &OrderItemHead, before: bool) {
        if head.is_repeat() && !before {
            self.report.violation(&Violation::NotARepeat { order });
        }
        if head.lsn.0 == 0 {
            self.report.violation(&Violation::NoLsn { order });
        }
    }

    #[inline]
    fn judge_card(&mut self, order: OrderId, sku_index: usize, card: CardRef, secret: &[u8]) {
        self.report.cards += 1;
        if card.slot >= SLOTS_PER_SLAB_MAX {
            self.report
                .violation(&Violation::SlotTooHigh { order, card });
        } else if !self.slots.insert(card.slab, card.slot) {
            self.report.violation(&Violation::CardTwice { card, order });
        }
        match self.shape.read(secret) {
            SecretReading::Ours {
                sku_index: got,
                number,
            } => {
                if usize::from(got) != sku_index {
                    self.report.violation(&Violation::SecretOfOtherSku {
                        order,
                        asked: sku_index,
                        got,
                        card,
                    });
                } else if number >= SLOTS_PER_SLAB_MAX || !self.delivered[sku_index].insert(number)
                {
                    self.report.violation(&Violation::SecretTwice {
                        sku_index: got,
                        number,
                        card,
                        order,
                    });
                }
            }
            SecretReading::Foreign => self.report.cards_foreign += 1,
            SecretReading::Damaged => self
                .report
                .violation(&Violation::SecretDamaged { card, order }),
        }
    }

    /// Judges a lookup of an order that this thread issued, whose answer had this [`fingerprint`].
    #[inline]
    pub fn judge_lookup(
        &mut self,
        sequence: u64,
        issued_fingerprint: u64,
        item: &OrderItemView<'_>,
    ) -> Judged {
        self.report.orders += 1;
        let order = self.workload.order_id(sequence);
        if item.head.order_id != order {
            self.report.violation(&Violation::WrongOrder {
                asked: order,
                answered: item.head.order_id,
            });
        }
        if item.head.status == STATUS_REFUSED {
            if item.head.refusal == Refusal::OrderNotFound.as_u16() {
                self.report.violation(&Violation::LookUpDiffers {
                    order,
                    difference: "was not found",
                });
            }
            return Judged::Refused(item.head.refusal);
        }
        if fingerprint(item) != issued_fingerprint {
            self.report.violation(&Violation::LookUpDiffers {
                order,
                difference: "had other cards or another LSN",
            });
        }
        Judged::Granted
    }

    /// Merges the judges of other threads into this one.
    pub fn absorb(&mut self, other: Self) {
        self.report.absorb(other.report);
        for (slab, slot) in self.slots.absorb(&other.slots, VIOLATIONS_LISTED_MAX) {
            self.report
                .violation(&Violation::SlotTwiceOnTwoThreads { slab, slot });
        }
        for (sku_index, (mine, theirs)) in
            self.delivered.iter_mut().zip(&other.delivered).enumerate()
        {
            for number in mine.absorb(theirs, VIOLATIONS_LISTED_MAX) {
                self.report
                    .violation(&Violation::SecretTwiceOnTwoThreads { sku_index, number });
            }
        }
        self.samples.extend(other.samples);
    }

    /// Looks the sampled orders up and compares every byte.
    pub fn look_samples_up(&mut self, control: &mut Control) -> Result<(), BenchError> {
        const ORDERS_PER_LOOKUP: usize = 1024;
        let samples = std::mem::take(&mut self.samples);
        for chunk in samples.chunks(ORDERS_PER_LOOKUP) {
            let ids: Vec<OrderId> = chunk.iter().map(|sample| sample.order_id).collect();
            for (sample, outcome) in chunk.iter().zip(control.look_up(&ids)?) {
                self.report.sampled += 1;
                if let Some(difference) = sample.difference(&outcome) {
                    self.report.violation(&Violation::LookUpDiffers {
                        order: sample.order_id,
                        difference,
                    });
                }
            }
        }
        Ok(())
    }

    /// What was concluded so far.
    pub fn report(&self) -> &OracleReport {
        &self.report
    }
}

impl Sample {
    fn difference(&self, outcome: &OrderOutcome) -> Option<&'static str> {
        match outcome {
            OrderOutcome::Refused { .. } => Some("was refused"),
            OrderOutcome::Issued(order) if order.order_id != self.order_id => {
                Some("was another order")
            }
            OrderOutcome::Issued(order) if issued_bytes(order) != self.fingerprint_bytes => {
                Some("had other cards or other secrets")
            }
            OrderOutcome::Issued(_) => None,
            OrderOutcome::Held(_)
            | OrderOutcome::Cancelled(_)
            | OrderOutcome::Expired(_)
            | OrderOutcome::Waiting(_) => Some("was not issued"),
        }
    }
}

fn issued_bytes(order: &IssuedOrder) -> Vec<u8> {
    card_bytes(
        order
            .cards
            .iter()
            .map(|card| (card.card, card.secret.as_bytes())),
    )
}

fn card_bytes<'a>(cards: impl Iterator<Item = (CardRef, &'a [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (card, secret) in cards {
        bytes.extend_from_slice(&card.slab.to_le_bytes());
        bytes.extend_from_slice(&card.slot.to_le_bytes());
        bytes.extend_from_slice(&card.generation.to_le_bytes());
        bytes.extend_from_slice(&(secret.len() as u16).to_le_bytes());
        bytes.extend_from_slice(secret);
    }
    bytes
}

/// A hash of all that a repeated answer must have in common with the first one. Not cryptographic: it guards against
/// mistakes, not against malice.
#[inline]
pub fn fingerprint(item: &OrderItemView<'_>) -> u64 {
    let mut hash = mix64(item.head.lsn.0);
    for (card, secret) in item.cards() {
        hash = mix64(hash ^ (u64::from(card.slab) << 32 | u64::from(card.slot)));
        hash = mix64(hash ^ (u64::from(card.generation) << 32 | secret.len() as u64));
        for chunk in secret.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix64(hash ^ u64::from_le_bytes(word));
        }
    }
    hash
}
