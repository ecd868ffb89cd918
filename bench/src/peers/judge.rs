//! The oracle of peers: they know no card references, so a secret alone has to say that it is a card of this run and
//! that nobody else has it; and a sample of orders is asked for again.

use std::sync::Arc;

use croupier_protocol::{OrderId, SkuId};

use crate::bitmap::Bitmap;
use crate::error::BenchError;
use crate::stock::{SECRET_BYTES_MAX, SecretReading, SecretShape};
use crate::workload::Workload;

/// One order in this many is asked for again.
const SAMPLE_EVERY: u64 = 1000;
/// Orders asked for again at most.
const SAMPLES_MAX: usize = 2000;

/// What a peer is asked for, and whether its answers can be true.
#[derive(Debug)]
pub struct Judge {
    peer: &'static str,
    workload: Arc<Workload>,
    shape: SecretShape,
    next_sequence: u64,
    next_card: u32,
    delivered: Bitmap,
    samples: Vec<(OrderId, Vec<u8>)>,
}

impl Judge {
    /// A judge of a run of its own.
    pub fn new(peer: &'static str, secret_bytes: usize) -> Self {
        let run_id = uuid::Uuid::new_v4().as_u128();
        Self {
            peer,
            workload: Arc::new(Workload::new(1, run_id, vec![SkuId(1)], 0.0, 1)),
            shape: SecretShape::new(run_id, secret_bytes),
            next_sequence: 0,
            next_card: 0,
            delivered: Bitmap::default(),
            samples: Vec::new(),
        }
    }

    /// A new order: its sequence number, and its id.
    #[inline]
    pub fn next_order(&mut self) -> (u64, OrderId) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        (sequence, self.workload.order_id(sequence))
    }

    /// A new card to import: its number, and its secret.
    pub fn next_card<'a>(&mut self, room: &'a mut [u8; SECRET_BYTES_MAX]) -> (u32, &'a [u8]) {
        let number = self.next_card;
        self.next_card += 1;
        self.shape.write(0, number, room);
        (number, &room[..self.shape.bytes()])
    }

    /// Judges an answer to a new order.
    #[inline]
    pub fn judge(&mut self, sequence: u64, secret: &[u8]) -> Result<(), BenchError> {
        match self.shape.read(secret) {
            SecretReading::Ours { number, .. } if number >= self.next_card => {
                Err(self.wrong("a card that was never imported"))
            }
            SecretReading::Ours { number, .. } if !self.delivered.insert(number) => {
                Err(self.wrong("a card for the second time"))
            }
            SecretReading::Ours { .. } => {
                if sequence.is_multiple_of(SAMPLE_EVERY) && self.samples.len() < SAMPLES_MAX {
                    self.samples
                        .push((self.workload.order_id(sequence), secret.to_vec()));
                }
                Ok(())
            }
            SecretReading::Foreign | SecretReading::Damaged => {
                Err(self.wrong("a secret that was never imported"))
            }
        }
    }

    /// Orders to ask for again, and what has to come back.
    pub fn take_samples(&mut self) -> Vec<(OrderId, Vec<u8>)> {
        std::mem::take(&mut self.samples)
    }

    /// An answer that cannot be true.
    #[cold]
    pub fn wrong(&self, what: &str) -> BenchError {
        BenchError::Peer {
            peer: self.peer.into(),
            detail: format!("it delivered {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_imported_cards_count_and_only_once() {
        let mut judge = Judge::new("peer", 32);
        let mut room = [0; SECRET_BYTES_MAX];
        let (_, secret) = judge.next_card(&mut room);
        let secret = secret.to_vec();
        let mut later = [0; SECRET_BYTES_MAX];
        judge.shape.write(0, 1, &mut later);
        assert!(
            judge.judge(0, &later[..32]).is_err(),
            "that card was not imported yet"
        );
        assert!(judge.judge(0, b"something else").is_err());
        assert!(judge.judge(0, &secret).is_ok());
        assert!(judge.judge(1, &secret).is_err(), "that card is gone");
        assert_eq!(judge.take_samples().len(), 1);
    }
}
