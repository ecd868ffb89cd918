//! Wire ⇄ domain: orders out of frames, verdicts into frames. The only place where secrets are opened.

use bytes::BytesMut;
use croupier_protocol::{
    CardRef, FLAG_MORE, FrameWriter, HeldOrder, Hold, IssuedWriter, Kind, Lsn, OrderId,
    OrderItemHead, Refusal, STATUS_CANCELLED, STATUS_EXPIRED, STATUS_HELD, STATUS_WAITING, SkuId,
    put_hold, put_refused,
};
use zeroize::Zeroize as _;

use crate::order::{Outcome, Verdict};
use crate::state::index::Settled;
use crate::state::record::Release;
use crate::state::{Catalog, State};

/// Bytes of a card without its secret.
const CARD_HEAD_BYTES: usize = 12;

/// Bytes that the answer to an order may need at most.
fn item_bytes_at_most(state: &State, catalog: &Catalog, outcome: &Outcome) -> usize {
    match outcome.verdict {
        Verdict::Refused { .. } | Verdict::Released { .. } => OrderItemHead::BYTES,
        Verdict::Held { .. } | Verdict::Waiting { .. } => OrderItemHead::BYTES + Hold::BYTES,
        Verdict::Issued { settled, .. } => {
            let cards = state.index.cards(settled).map(|(slab, _)| {
                let class = catalog
                    .slab(slab)
                    .map_or(0, |slab| slab.facts.class_bytes as usize);
                // The sealed slot with its tag is opened in place.
                CARD_HEAD_BYTES + class + 32
            });
            OrderItemHead::BYTES + cards.sum::<usize>()
        }
    }
}

/// Makes room without leaving a copy of what was there: a secret may be in it.
#[inline]
pub fn make_room(out: &mut BytesMut, more: usize) {
    if out.capacity() - out.len() < more {
        grow(out, more);
    }
}

#[cold]
fn grow(out: &mut BytesMut, more: usize) {
    let mut larger = BytesMut::with_capacity((out.len() + more).next_power_of_two());
    larger.extend_from_slice(out);
    out.as_mut().zeroize();
    *out = larger;
}

/// Answers an Issue with one order.
pub fn put_single(
    out: &mut BytesMut,
    state: &State,
    catalog: &Catalog,
    outcome: &Outcome,
    frame_bytes_max: usize,
) {
    make_room(
        out,
        croupier_protocol::FRAME_HEADER_BYTES + item_bytes_at_most(state, catalog, outcome),
    );
    let mut frame = FrameWriter::begin(out, Kind::IssueReply, outcome.ticket.request_id);
    put_item(frame.body(), state, catalog, outcome, frame_bytes_max);
    frame.set_count(1);
    frame.finish();
}

/// Answers a request with several orders, in as many frames as it takes.
pub fn put_many(
    out: &mut BytesMut,
    state: &State,
    catalog: &Catalog,
    (kind, request_id): (Kind, u64),
    outcomes: &[Outcome],
    frame_bytes_max: usize,
) {
    let mut rest = outcomes;
    loop {
        let (mut bytes, mut count) = (croupier_protocol::FRAME_HEADER_BYTES, 0);
        for outcome in rest {
            let more = item_bytes_at_most(state, catalog, outcome);
            if count > 0 && (bytes + more > frame_bytes_max || count == usize::from(u16::MAX)) {
                break;
            }
            bytes += more;
            count += 1;
        }
        make_room(out, bytes);
        let mut frame = FrameWriter::begin(out, kind, request_id);
        for outcome in &rest[..count] {
            put_item(frame.body(), state, catalog, outcome, frame_bytes_max);
        }
        rest = &rest[count..];
        frame.set_count(count as u16);
        if !rest.is_empty() {
            frame.set_flags(FLAG_MORE);
        }
        frame.finish();
        if rest.is_empty() {
            return;
        }
    }
}

fn put_item(
    body: &mut BytesMut,
    state: &State,
    catalog: &Catalog,
    outcome: &Outcome,
    frame_bytes_max: usize,
) {
    let (id, sku) = (OrderId::from_u128(outcome.id), SkuId(outcome.sku));
    let held = |lsn, quantity, repeat, hold| HeldOrder {
        order_id: id,
        lsn: Lsn(lsn),
        sku,
        quantity,
        repeat,
        hold,
    };
    match outcome.verdict {
        Verdict::Refused {
            refusal,
            retry_after_ms,
            ..
        } => put_refused(body, id, sku, refusal, retry_after_ms),
        Verdict::Held {
            lsn,
            quantity,
            hold,
            repeat,
        } => {
            let order = held(lsn, quantity, repeat, Some(hold));
            put_hold(body, STATUS_HELD, &order);
        }
        Verdict::Waiting {
            lsn,
            quantity,
            ends_unix_ms,
            repeat,
        } => {
            let hold = Hold {
                ends_unix_ms,
                extensions: 0,
            };
            let order = held(lsn, quantity, repeat, Some(hold));
            put_hold(body, STATUS_WAITING, &order);
        }
        Verdict::Released {
            lsn,
            quantity,
            why,
            repeat,
        } => {
            let status = match why {
                Release::Cancelled => STATUS_CANCELLED,
                Release::Expired => STATUS_EXPIRED,
            };
            put_hold(body, status, &held(lsn, quantity, repeat, None));
        }
        Verdict::Issued { settled, repeat } => {
            if let Err(refusal) =
                put_cards(body, state, catalog, id, settled, repeat, frame_bytes_max)
            {
                put_refused(body, id, sku, refusal, 0);
            }
        }
    }
}

/// Opens every card of an order into the frame. On an error the frame is as before, and nothing of it stays in memory.
fn put_cards(
    body: &mut BytesMut,
    state: &State,
    catalog: &Catalog,
    id: OrderId,
    settled: Settled,
    repeat: bool,
    frame_bytes_max: usize,
) -> Result<(), Refusal> {
    let mut cards = state.index.cards(settled).peekable();
    let slab_of = |number| catalog.slab(number).ok_or(Refusal::CardDamaged);
    let sku = slab_of(cards.peek().ok_or(Refusal::CardDamaged)?.0)?
        .facts
        .sku;
    let mut writer = IssuedWriter::begin(body, id, Lsn(settled.lsn), SkuId(sku), repeat);
    for (number, slot) in cards {
        let sealed = slab_of(number)?.sealed(slot);
        let (mapped, sealed_in) = sealed.ok_or(Refusal::CardDamaged)?;
        let card = CardRef {
            slab: number,
            slot,
            generation: 0,
        };
        let opened = writer.put_card_with(card, |out| mapped.open_secret(sealed_in, out));
        if let Err(error) = opened {
            tracing::error!(slab = number, slot, %error, "a card that was issued does not open");
            return Err(Refusal::CardDamaged);
        }
        if writer.len() + croupier_protocol::FRAME_HEADER_BYTES > frame_bytes_max {
            // Only after the limit was lowered: no such order is dealt.
            return Err(Refusal::QuantityTooLarge);
        }
    }
    writer.finish();
    Ok(())
}
