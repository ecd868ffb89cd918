//! One number for the whole state: two states with the same digest hold the same cards, orders and answers.

use aws_lc_rs::digest::{Context, SHA256, digest};

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

/// The digest of one order: its id, its LSN and its cards.
fn order_digest(id: u128, lsn: u64, cards: impl Iterator<Item = (u32, u32)>) -> u128 {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&lsn.to_le_bytes());
    for (slab, slot) in cards {
        bytes.extend_from_slice(&slab.to_le_bytes());
        bytes.extend_from_slice(&slot.to_le_bytes());
    }
    u128::from_le_bytes(digest(&SHA256, &bytes).as_ref()[..16].try_into().expect("16 of 32"))
}

impl State {
    /// All orders: those in the index and those a checkpoint has counted before. Only when none is in flight.
    pub fn orders(&self) -> StateSeed {
        let mut all = self.seed;
        self.index.for_each(|id, settled| {
            all.orders += 1;
            all.orders_sum = all.orders_sum.wrapping_add(order_digest(id, settled.lsn, self.index.cards(settled)));
        });
        all
    }

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
    context.update(&snapshot.routes.version.to_le_bytes());
    context.update(&orders.orders.to_le_bytes());
    context.update(&orders.orders_sum.to_le_bytes());
    Digest(context.finish().as_ref().try_into().expect("32 bytes"))
}
