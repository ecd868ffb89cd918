//! One number for the whole state: two states with the same digest hold the same cards, orders and answers.

use aws_lc_rs::digest::{Context, SHA256};

use super::added::{grown_of, grown_words};
use super::apply::{Snapshot, State, StateSeed};
use super::channels::Known;
use super::index::{OrderIndex, OrderState, Settled};
use super::record::{Cap, Ended, Release, Way};
use super::reused::views_of;

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

/// A holder as what goes into the digest of an order before all else, in the place of two cards; nothing of one that names none.
fn key_cards(holder: u128) -> impl Iterator<Item = (u32, u32)> {
    let card = |at: u32| ((holder >> (at + 32)) as u32, (holder >> at) as u32);
    let cards = (holder != 0).then_some([card(64), card(0)]);
    cards.into_iter().flatten()
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

/// What else of an order goes into its digest.
#[derive(Clone, Copy)]
enum More {
    Nothing,
    /// It had waited to be issued, and got nothing.
    WasIssue,
    /// It was issued fewer cards than this.
    Asked(u16),
}

/// What goes into the digest of an order before its cards: how it has ended, as a card of slab 0, which no store has.
/// Nothing of one that was issued at once.
fn mark_of(state: OrderState, quantity: u16, more: More) -> Option<(u32, u32)> {
    let more = match more {
        More::Nothing => 0,
        More::WasIssue => 1 << 24,
        More::Asked(asked) => u32::from(asked) << 20,
    };
    let mark = (0, state as u32 | u32::from(quantity) << 8 | more);
    (state != OrderState::Issued).then_some(mark)
}

/// The LSN that goes into the digest of an order: none of an expired one, which may be committed late, so that what it was
/// can be taken out of the sum again.
fn lsn_of(state: OrderState, lsn: u64) -> u64 {
    if state == OrderState::Expired { 0 } else { lsn }
}

/// How an order stands after a fact that ends it, and the number of its cards.
pub(crate) fn state_after(ended: &Ended<'_>) -> (OrderState, u16) {
    match ended {
        Ended::Issued(issued) => {
            let state = match (issued.way, issued.fewer) {
                (Way::Issue | Way::Filled, _) => OrderState::Issued,
                (Way::Part, _) => OrderState::IssuedPart,
                (Way::Commit | Way::LateCommit, 0) => OrderState::Committed,
                (Way::Commit | Way::LateCommit, _) => OrderState::CommittedPart,
            };
            (state, issued.quantity)
        }
        Ended::Released(released) => {
            let state = match released.why {
                Release::Cancelled => OrderState::Cancelled,
                Release::Expired => OrderState::Expired,
            };
            (state, released.quantity)
        }
    }
}

impl StateSeed {
    /// Adds an order that has ended; a late commit takes the place of the expired order.
    pub(crate) fn add(&mut self, lsn: u64, ended: &Ended<'_>) {
        let (state, quantity) = state_after(ended);
        let id = ended.order_id();
        let more = match ended {
            Ended::Released(released) if released.was_issue => More::WasIssue,
            Ended::Issued(issued) if issued.way == Way::Part => {
                More::Asked(issued.quantity + issued.fewer)
            }
            _ => More::Nothing,
        };
        let holder = ended.holder();
        let mark = key_cards(holder).chain(mark_of(state, quantity, more));
        let lsn = lsn_of(state, lsn);
        let digest = match ended {
            Ended::Issued(issued) => order_digest(id, lsn, mark.chain(issued.cards())),
            Ended::Released(_) => order_digest(id, lsn, mark),
        };
        self.orders = self.orders.wrapping_add(1);
        self.orders_sum = self.orders_sum.wrapping_add(digest);
        if let Ended::Issued(issued) = ended
            && issued.way == Way::LateCommit
        {
            let mark = mark_of(
                OrderState::Expired,
                issued.quantity + issued.fewer,
                More::Nothing,
            );
            let before = order_digest(id, 0, key_cards(holder).chain(mark));
            // Wrapping: the sums of several readers are joined, and one may see the late commit alone.
            self.orders = self.orders.wrapping_sub(1);
            self.orders_sum = self.orders_sum.wrapping_sub(before);
        }
    }

    /// Adds an order as the index knows it.
    pub(crate) fn add_settled(
        &mut self,
        index: &OrderIndex,
        id: u128,
        holder: u128,
        settled: Settled,
    ) {
        let cards = index.cards(settled);
        let more = match settled.state {
            OrderState::IssuedPart => More::Asked(index.asked(settled)),
            OrderState::Cancelled | OrderState::Expired => match index.released(settled) {
                Some(row) if row.was_issue => More::WasIssue,
                _ => More::Nothing,
            },
            _ => More::Nothing,
        };
        let mark = mark_of(settled.state, settled.quantity, more);
        let mark = key_cards(holder).chain(mark);
        let lsn = lsn_of(settled.state, settled.lsn);
        self.orders += 1;
        self.orders_sum = self
            .orders_sum
            .wrapping_add(order_digest(id, lsn, mark.chain(cards)));
    }

    /// Adds what others have added.
    pub(crate) fn join(&mut self, more: StateSeed) {
        self.orders = self.orders.wrapping_add(more.orders);
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
    for set in &snapshot.settings {
        for word in [
            set.sku,
            set.deal_order.as_u16().into(),
            set.hold_share_max_percent.into(),
        ] {
            context.update(&word.to_le_bytes());
        }
        if set.cap != Cap::default() {
            context.update(&set.cap.cards_max.to_le_bytes());
            context.update(&set.cap.window_ms.to_le_bytes());
        }
    }
    for (slab, view) in views_of(snapshot.slabs.iter().map(|(facts, _)| facts)) {
        for word in view.words(slab) {
            context.update(&word.to_le_bytes());
        }
    }
    for (slab, grown) in grown_of(snapshot.slabs.iter().map(|(facts, _)| facts)) {
        for word in grown_words(slab, &grown) {
            context.update(&word.to_le_bytes());
        }
    }
    for held in &snapshot.held {
        held.words().iter().for_each(|word| {
            context.update(&word.to_le_bytes());
        });
        if held.holder != 0 {
            context.update(&held.holder.to_be_bytes());
        }
    }
    context.update(&snapshot.routes.version().to_le_bytes());
    if !snapshot.routes.is_plain() {
        for table in snapshot.routes.kept() {
            context.update(&table.version.to_le_bytes());
            context.update(&table.lsn.to_le_bytes());
            context.update(&table.unix_ms.to_le_bytes());
            text(&mut context, &table.toml);
        }
    }
    for Known { lsn, change } in snapshot.channels.kept() {
        text(&mut context, &change.channel);
        for half in [
            change.standing.number().as_u16(),
            change.cause.as_u16(),
            change.ejections,
        ] {
            context.update(&half.to_le_bytes());
        }
        for word in [change.standing.until_unix_ms(), *lsn, change.unix_ms] {
            context.update(&word.to_le_bytes());
        }
    }
    if let Some(canary) = snapshot.canaries.last() {
        for word in canary.words() {
            context.update(&word.to_le_bytes());
        }
        text(&mut context, &canary.toml);
    }
    context.update(&orders.orders.to_le_bytes());
    context.update(&orders.orders_sum.to_le_bytes());
    Digest(context.finish().as_ref().try_into().expect("32 bytes"))
}
