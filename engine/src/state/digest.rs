//! One number for the whole state: two states with the same digest hold the same cards, orders and answers.

use aws_lc_rs::digest::{Context, SHA256};

use super::apply::{Snapshot, State, StateSeed};

/// SHA-256 over the state, as docs/checkpoint-format.md lists it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The digest of one order: its id, its LSN and its cards. Not cryptographic: it finds mistakes, and the log's hash chain
/// finds forgers.
fn order_digest(id: u128, lsn: u64, cards: impl Iterator<Item = (u32, u32)>) -> u128 {
    let mut low = fold(
        id as u64 ^ DIGEST_KEYS[0],
        (id >> 64) as u64 ^ DIGEST_KEYS[1],
    );
    let mut high = fold(lsn ^ DIGEST_KEYS[2], low ^ DIGEST_KEYS[3]);
    for (slab, slot) in cards {
        let card = u64::from(slab) << 32 | u64::from(slot);
        low = fold(card ^ DIGEST_KEYS[0], high ^ DIGEST_KEYS[3]);
        high = fold(card ^ DIGEST_KEYS[1], low ^ DIGEST_KEYS[2]);
    }
    u128::from(high) << 64 | u128::from(low)
}

/// The first 256 bits of the fraction of π.
const DIGEST_KEYS: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
];

/// Both halves of a product, xored.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl StateSeed {
    /// Adds an order.
    pub(crate) fn add(&mut self, id: u128, lsn: u64, cards: impl Iterator<Item = (u32, u32)>) {
        self.orders += 1;
        self.orders_sum = self.orders_sum.wrapping_add(order_digest(id, lsn, cards));
    }

    /// Adds what others have added.
    pub(crate) fn join(&mut self, more: StateSeed) {
        self.orders += more.orders;
        self.orders_sum = self.orders_sum.wrapping_add(more.orders_sum);
    }
}

impl State {
    /// The digest of this state. Only when no order is in flight.
    pub fn digest(&self) -> Digest {
        digest_of(&self.snapshot(), self.orders())
    }
}

/// The digest of a state given as plain values.
pub fn digest_of(snapshot: &Snapshot, orders: StateSeed) -> Digest {
    let mut context = Context::new(&SHA256);
    let text = |context: &mut Context, text: &str| {
        context.update(&(text.len() as u32).to_le_bytes());
        context.update(text.as_bytes());
    };
    for sku in &snapshot.skus {
        context.update(&sku.sku.to_le_bytes());
        text(&mut context, &sku.name);
        for pool in &sku.pools {
            text(&mut context, pool);
        }
    }
    for batch in &snapshot.batches {
        for word in [batch.batch, batch.sku, u32::from(batch.pool)] {
            context.update(&word.to_le_bytes());
        }
        context.update(&batch.cards.to_le_bytes());
        text(&mut context, &batch.label);
    }
    for (facts, words) in &snapshot.slabs {
        for word in [facts.slab, facts.sku, u32::from(facts.pool), facts.cards] {
            context.update(&word.to_le_bytes());
        }
        for word in words {
            context.update(&word.to_le_bytes());
        }
    }
    for (slab, status, words) in &snapshot.marks {
        context.update(&slab.to_le_bytes());
        context.update(&[*status as u8]);
        for word in words {
            context.update(&word.to_le_bytes());
        }
    }
    context.update(&snapshot.routes.version.to_le_bytes());
    context.update(&orders.orders.to_le_bytes());
    context.update(&orders.orders_sum.to_le_bytes());
    Digest(context.finish().as_ref().try_into().expect("32 bytes"))
}
