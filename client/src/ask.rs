//! Asking about many orders at once: the steps of an order and a LookUp differ in their items, not in how they are asked.

use std::time::Duration;

use bytes::BytesMut;
use croupier_protocol::planted::{self, Bug};
use croupier_protocol::{
    FRAME_HEADER_BYTES, HelloReply, Holder, Kind, OrderId, OrderOutcome, Pick, Refusal, Step,
    StepItem, encode_control, order_items, put_lookup,
};
use tokio::time::Instant;

use crate::call::{Caller, Deadline, Failure, Resend};
use crate::error::{Cause, Error, ProtocolError};
use crate::link::{Lost, ReplyFrame, Request};
use crate::order::{Order, OrderStep, Wait};
use crate::retry::{Backoff, join_all};

/// How long a server keeps an answer back at most.
const STAY: Duration = Duration::from_secs(5);
/// Cards that the items of one frame may ask for in all, so that its reply stays within what is kept of a reply, whatever the size
/// of the secrets.
const CARDS_PER_FRAME_MAX: usize = 16_384;
/// Order ids in one LookUp, for the same reason: each may have a thousand cards.
const LOOKUP_IDS_PER_FRAME_MAX: usize = 64;
/// What a commit of all held cards counts for, which does not say how many they are: as many go in one frame as look-ups.
const CARDS_OF_COMMIT_ALL: usize = CARDS_PER_FRAME_MAX / LOOKUP_IDS_PER_FRAME_MAX;

/// One item of a request that is answered by OrderItems.
pub(crate) trait Item: Copy + Sync {
    /// True if what is asked changes orders: then they are in doubt while no answer can be had.
    const CHANGES: bool;
    /// Bytes of one item.
    const BYTES: usize;
    /// Items in one frame, whatever the server allows.
    const PER_FRAME_MAX: usize;

    /// The kind of the request. Items of several kinds go in several frames.
    fn kind(&self) -> Kind;

    fn order_id(&self) -> OrderId;

    /// Bytes of this item.
    fn bytes(&self) -> usize {
        Self::BYTES
    }

    /// How many cards the answer may hold, as far as the item says.
    fn cards(&self) -> usize;

    /// Whether the next item must go in the same frame.
    fn is_linked(&self) -> bool {
        false
    }

    /// Whether the answer may be kept back while the order waits.
    fn stays(&self) -> bool {
        false
    }

    /// Appends the item. `started` is when the call was.
    fn put(&self, out: &mut BytesMut, started: Instant);
}

impl Item for Order {
    const CHANGES: bool = true;
    const BYTES: usize = StepItem::BYTES;
    const PER_FRAME_MAX: usize = u16::MAX as usize;

    fn kind(&self) -> Kind {
        Kind::Issue
    }

    fn order_id(&self) -> OrderId {
        self.order_id
    }

    fn bytes(&self) -> usize {
        bytes_of(self)
    }

    fn cards(&self) -> usize {
        usize::from(self.quantity)
    }

    fn put(&self, out: &mut BytesMut, started: Instant) {
        OrderStep::issue(*self).put(out, started);
    }
}

impl Item for OrderStep {
    const CHANGES: bool = true;
    const BYTES: usize = StepItem::BYTES;
    const PER_FRAME_MAX: usize = u16::MAX as usize;

    fn kind(&self) -> Kind {
        self.step.kind()
    }

    fn order_id(&self) -> OrderId {
        self.order.order_id
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.order)
    }

    fn cards(&self) -> usize {
        match (self.step, self.order.quantity) {
            (Step::Reserve | Step::Cancel | Step::Extend, _) => 0,
            (Step::Commit, 0) => CARDS_OF_COMMIT_ALL,
            (Step::Issue | Step::Commit, quantity) => usize::from(quantity),
        }
    }

    fn is_linked(&self) -> bool {
        self.linked
    }

    fn stays(&self) -> bool {
        self.wait == Wait::Stay
    }

    fn put(&self, out: &mut BytesMut, started: Instant) {
        let waited = started.elapsed();
        let mut item = self.item(waited);
        // A first try has not waited, a later one has.
        if planted::is(Bug::RetryWithNewId) && waited.as_millis() > 4 {
            item.order_id = OrderId::from_u128(item.order_id.as_u128() + 1);
        }
        item.encode_into(out);
    }
}

fn bytes_of(order: &Order) -> usize {
    let tag = if order.tag == 0 { 0 } else { size_of::<u16>() };
    StepItem::BYTES + order.holder.map_or(0, |_| Holder::BYTES) + tag
}

impl Item for OrderId {
    const CHANGES: bool = false;
    const BYTES: usize = 16;
    const PER_FRAME_MAX: usize = LOOKUP_IDS_PER_FRAME_MAX;

    fn kind(&self) -> Kind {
        Kind::LookUp
    }

    fn order_id(&self) -> OrderId {
        *self
    }

    fn cards(&self) -> usize {
        0
    }

    fn put(&self, out: &mut BytesMut, _: Instant) {
        put_lookup(out, *self);
    }
}

/// Why there are no outcomes, before it is known whose words to use.
pub(crate) enum AskFailure {
    Failed(Failure),
    /// The last try was refused in a way that says nothing about an earlier one, whose answer was lost.
    Doubt(Refusal, u32),
}

impl Caller {
    /// Asks about all items, in as many frames as it takes, all at once.
    pub(crate) async fn ask<T: Item>(&self, items: &[T]) -> Result<Vec<OrderOutcome>, Error> {
        let stays = items.iter().any(T::stays);
        let longer = if stays { STAY } else { Duration::ZERO };
        let deadline = self.deadline_after(longer);
        let started = Instant::now();
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let chunks = match items {
            [_] => vec![items],
            _ => self.chunks(items, deadline).await?,
        };
        if let [chunk] = chunks[..] {
            return self
                .ask_chunk(chunk, started, deadline)
                .await
                .map_err(|failure| self.error(chunk, failure));
        }
        let asked = chunks
            .iter()
            .map(|chunk| self.ask_chunk(chunk, started, deadline));
        let mut outcomes = Vec::with_capacity(items.len());
        let mut failed = None;
        for (chunk, asked) in chunks.iter().zip(join_all(asked).await) {
            match asked {
                Ok(answered) => outcomes.extend(answered),
                Err(failure) => failed = worse(failed, self.error(chunk, failure)),
            }
        }
        match failed {
            None => Ok(outcomes),
            // An error that says that nothing happened would be wrong about the orders that were answered.
            Some(error) if T::CHANGES && !outcomes.is_empty() => Err(unknown(items, error)),
            Some(error) => Err(error),
        }
    }

    /// Asks for one card that the caller picks: a request of its own kind, and else as `step`, which says its SKU, id and times.
    pub(crate) async fn pick(&self, step: OrderStep, body: &Pick) -> Result<OrderOutcome, Error> {
        let items = [step];
        let request = Request {
            kind: Kind::Pick,
            count: 0,
            encode: |out: &mut BytesMut| encode_control(body, out),
        };
        let called = self
            .call(&request, 1, Resend::Safe, self.deadline())
            .await
            .map_err(AskFailure::Failed)
            .and_then(|(frames, in_doubt)| {
                let mut outcomes = read_outcomes(&items, &frames).map_err(|error| {
                    AskFailure::Failed(Failure::NoAnswer(Lost {
                        cause: Cause::Protocol(error),
                        sent: true,
                    }))
                })?;
                // As many as were asked for: they have been counted.
                match outcomes.remove(0) {
                    OrderOutcome::Refused {
                        refusal,
                        retry_after_ms,
                        ..
                    } if in_doubt && leaves_doubt(refusal) => {
                        Err(AskFailure::Doubt(refusal, retry_after_ms))
                    }
                    outcome => Ok(outcome),
                }
            });
        called.map_err(|failure| self.error(&items, failure))
    }

    /// Cuts items into what the server takes in one frame.
    async fn chunks<'a, T: Item>(
        &self,
        items: &'a [T],
        deadline: Deadline,
    ) -> Result<Vec<&'a [T]>, Error> {
        let limits = self.limits(deadline).await?;
        let frame_bytes = (limits.frame_bytes_max as usize).saturating_sub(FRAME_HEADER_BYTES);
        let count_max = (limits.orders_per_frame_max as usize)
            .min(frame_bytes / items.iter().map(T::bytes).max().unwrap_or(T::BYTES))
            .min(T::PER_FRAME_MAX)
            .min(self.settings.in_flight_max as usize)
            .max(1);
        Ok(cut(items, count_max))
    }

    /// What the server of the moment allows. Waits for a connection as a call does.
    async fn limits(&self, deadline: Deadline) -> Result<HelloReply, Error> {
        let mut backoff = Backoff::new();
        let mut retries_left = self.settings.retries;
        loop {
            let cause = match tokio::time::timeout_at(deadline.at, self.link()).await {
                Ok(Ok(link)) => return Ok(link.hello),
                Ok(Err(cause)) => cause,
                Err(_) => deadline.cause(),
            };
            if !(cause.passes() && retries_left > 0 && deadline.wait(backoff.wait()).await) {
                return Err(cause.into_error(&self.settings.addr, false));
            }
            retries_left -= 1;
        }
    }

    /// Asks about the items of one frame, and again about those that the server was too busy for.
    async fn ask_chunk<T: Item>(
        &self,
        items: &[T],
        started: Instant,
        deadline: Deadline,
    ) -> Result<Vec<OrderOutcome>, AskFailure> {
        let mut backoff = Backoff::new();
        let (mut outcomes, mut in_doubt) = self.ask_once(items, started, deadline).await?;
        loop {
            let again: Vec<usize> = (0..items.len())
                .filter(|index| retry_after_ms(&outcomes[*index]).is_some())
                .collect();
            let longest_ms = again
                .iter()
                .filter_map(|index| retry_after_ms(&outcomes[*index]))
                .max();
            let Some(longest_ms) = longest_ms else { break };
            if !deadline.wait(backoff.wait_advised(longest_ms)).await {
                break;
            }
            let asked: Vec<T> = again.iter().map(|index| items[*index]).collect();
            match self.ask_once(&asked, started, deadline).await {
                Ok((answered, doubt)) => {
                    in_doubt |= doubt;
                    for (index, outcome) in again.into_iter().zip(answered) {
                        outcomes[index] = outcome;
                    }
                }
                Err(failure) if failure.in_doubt() => return Err(failure),
                // This try came to nothing, so what was answered before it stands.
                Err(_) => break,
            }
        }
        if in_doubt && T::CHANGES {
            for outcome in &outcomes {
                if let OrderOutcome::Refused {
                    refusal,
                    retry_after_ms,
                    ..
                } = outcome
                    && leaves_doubt(*refusal)
                {
                    return Err(AskFailure::Doubt(*refusal, *retry_after_ms));
                }
            }
        }
        Ok(outcomes)
    }

    /// The outcomes of one frame, and whether an earlier try of it was sent and its answer lost.
    async fn ask_once<T: Item>(
        &self,
        items: &[T],
        started: Instant,
        deadline: Deadline,
    ) -> Result<(Vec<OrderOutcome>, bool), AskFailure> {
        let encode = |out: &mut BytesMut| items.iter().for_each(|item| item.put(out, started));
        // A chunk has at least one item, all are of one kind, and never more than the count of a frame can say.
        let request = Request {
            kind: items[0].kind(),
            count: items.len() as u16,
            encode,
        };
        let (frames, in_doubt) = self
            .call(&request, items.len(), Resend::Safe, deadline)
            .await
            .map_err(AskFailure::Failed)?;
        match read_outcomes(items, &frames) {
            Ok(outcomes) => Ok((outcomes, in_doubt)),
            Err(error) => Err(AskFailure::Failed(Failure::NoAnswer(Lost {
                cause: Cause::Protocol(error),
                sent: true,
            }))),
        }
    }

    /// Says it in the caller's words: for steps that may have been taken, that their outcome is unknown.
    fn error<T: Item>(&self, items: &[T], failure: AskFailure) -> Error {
        let in_doubt = failure.in_doubt();
        let error = match failure {
            AskFailure::Failed(failure) => failure.into_error(&self.settings.addr),
            AskFailure::Doubt(refusal, retry_after_ms) => Error::Refused {
                order_id: None,
                refusal,
                retry_after_ms,
                text: refusal.to_string(),
            },
        };
        if in_doubt && T::CHANGES {
            unknown(items, error)
        } else {
            error
        }
    }
}

impl AskFailure {
    /// True if steps may have been taken all the same.
    fn in_doubt(&self) -> bool {
        match self {
            Self::Failed(Failure::NoAnswer(lost)) => lost.sent,
            Self::Failed(Failure::Refused { refused, in_doubt }) => {
                refused.refusal == Refusal::StoreFailed
                    || (*in_doubt && leaves_doubt(refused.refusal))
            }
            Self::Doubt(..) => true,
        }
    }
}

/// `items` are never none. An error that already says so keeps its cause, and now is about all of them.
fn unknown<T: Item>(items: &[T], error: Error) -> Error {
    let cause = match error {
        Error::OutcomeUnknown { cause, .. } => cause,
        other => Box::new(other),
    };
    Error::OutcomeUnknown {
        count: items.len(),
        first: items[0].order_id(),
        cause,
    }
}

/// Of two failures of one call, the one that the caller must hear of.
fn worse(so_far: Option<Error>, error: Error) -> Option<Error> {
    match (so_far, error) {
        (
            Some(Error::OutcomeUnknown {
                count,
                first,
                cause,
            }),
            Error::OutcomeUnknown { count: more, .. },
        ) => Some(Error::OutcomeUnknown {
            count: count + more,
            first,
            cause,
        }),
        (None, error) | (Some(_), error @ Error::OutcomeUnknown { .. }) => Some(error),
        (so_far, _) => so_far,
    }
}

/// A refusal that a server gives before it looks whether it knows the order: it says nothing about an earlier try. Every
/// other would have been given to the earlier try as well, or says how the order has ended.
pub const fn leaves_doubt(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Busy
            | Refusal::DeadlineExceeded
            | Refusal::DiskFull
            | Refusal::ShuttingDown
            | Refusal::StoreFailed
            | Refusal::TooManyOrders
    )
}

/// The server's advice, if the same item may be sent again.
fn retry_after_ms(outcome: &OrderOutcome) -> Option<u32> {
    match outcome {
        OrderOutcome::Refused {
            refusal,
            retry_after_ms,
            ..
        } if refusal.retryable() => Some(*retry_after_ms),
        _ => None,
    }
}

/// As few pieces as hold items of one kind, at most `count_max` of them and `CARDS_PER_FRAME_MAX` cards each (a single
/// item, and those that are linked, may be more: the server judges that).
fn cut<T: Item>(items: &[T], count_max: usize) -> Vec<&[T]> {
    let mut chunks = Vec::with_capacity(items.len() / count_max + 1);
    let (mut start, mut cards, mut index) = (0, 0, 0);
    while index < items.len() {
        let linked = &items[index..index + linked(&items[index..])];
        let more: usize = linked.iter().map(T::cards).sum();
        let end = index + linked.len();
        let full = end - start > count_max || cards + more > CARDS_PER_FRAME_MAX;
        if index > start && (full || linked[0].kind() != items[start].kind()) {
            chunks.push(&items[start..index]);
            (start, cards) = (index, 0);
        }
        cards += more;
        index = end;
    }
    chunks.push(&items[start..]);
    chunks
}

/// How many of the first items must go in one frame: those that are linked, and the one behind; else one. A link to an item of
/// another kind is none: the server says so.
fn linked<T: Item>(items: &[T]) -> usize {
    let is_linked = |pair: &[T]| pair[0].is_linked() && pair[0].kind() == pair[1].kind();
    let links = items.windows(2).take_while(|pair| is_linked(pair));
    links.count() + 1
}

/// The answers in all frames of a reply, each to the order in its place.
fn read_outcomes<T: Item>(
    items: &[T],
    frames: &[ReplyFrame],
) -> Result<Vec<OrderOutcome>, ProtocolError> {
    let mut outcomes = Vec::new();
    for ReplyFrame { header, body } in frames {
        let answered = order_items(body, header.count).map_err(|error| ProtocolError::Body {
            kind: header.kind,
            error,
        })?;
        if outcomes.is_empty() {
            outcomes = answered;
        } else {
            outcomes.extend(answered);
        }
    }
    if outcomes.len() != items.len() {
        return Err(ProtocolError::WrongCount {
            asked: items.len(),
            answered: outcomes.len(),
        });
    }
    for (item, outcome) in items.iter().zip(&outcomes) {
        let (asked, answered) = (item.order_id(), outcome.order_id());
        if asked != answered {
            return Err(ProtocolError::WrongOrder { asked, answered });
        }
        if !answers(item.kind(), outcome) {
            return Err(ProtocolError::WrongOutcome {
                kind: item.kind(),
                order_id: asked,
            });
        }
    }
    Ok(outcomes)
}

/// True if what is asked by this kind may be answered so.
fn answers(kind: Kind, outcome: &OrderOutcome) -> bool {
    match outcome {
        OrderOutcome::Issued(_) => matches!(kind, Kind::Issue | Kind::Commit | Kind::LookUp),
        OrderOutcome::Held(_) => matches!(kind, Kind::Reserve | Kind::Extend | Kind::LookUp),
        OrderOutcome::Cancelled(_) => matches!(kind, Kind::Cancel | Kind::LookUp),
        OrderOutcome::Expired(_) => kind == Kind::LookUp,
        OrderOutcome::Waiting(_) => matches!(kind, Kind::Issue | Kind::Reserve | Kind::LookUp),
        OrderOutcome::Refused { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use croupier_protocol::SkuId;

    use super::*;

    fn sizes(quantities: &[u16], count_max: usize) -> Vec<usize> {
        let orders: Vec<_> = quantities
            .iter()
            .map(|quantity| Order::new(OrderId::from_u128(1), SkuId(1)).quantity(*quantity))
            .collect();
        cut(&orders, count_max)
            .into_iter()
            .map(<[Order]>::len)
            .collect()
    }

    #[test]
    fn items_are_cut_by_count_and_by_cards() {
        assert_eq!(sizes(&[1; 1], 10), [1]);
        assert_eq!(sizes(&[1; 10], 10), [10]);
        assert_eq!(sizes(&[1; 21], 10), [10, 10, 1]);
        assert_eq!(sizes(&[16_384, 1, 16_383, 1], 10), [1, 2, 1]);
        assert_eq!(sizes(&[65_535, 65_535], 10), [1, 1]);
    }

    #[test]
    fn items_are_cut_where_the_kind_changes() {
        let id = OrderId::from_u128(1);
        let issue = OrderStep::issue(Order::new(id, SkuId(1)));
        let (commit, cancel) = (OrderStep::commit(id), OrderStep::cancel(id));
        let sizes = |steps: &[OrderStep]| -> Vec<usize> {
            cut(steps, 100).into_iter().map(<[_]>::len).collect()
        };
        assert_eq!(sizes(&[issue, issue, cancel, issue]), [2, 1, 1]);
        assert_eq!(sizes(&[cancel; 3]), [3]);
        // A commit that does not say how many cards it is for counts for many.
        assert_eq!(sizes(&[commit; 65]), [64, 1]);
        assert_eq!(sizes(&[commit.quantity(1); 65]), [65]);
    }

    #[test]
    fn what_is_linked_is_never_cut() {
        let order = Order::new(OrderId::from_u128(1), SkuId(1));
        let (lone, link) = (OrderStep::issue(order), OrderStep::issue(order).linked());
        let hold = OrderStep::reserve(order, std::time::Duration::from_secs(1));
        let sizes = |steps: &[OrderStep]| -> Vec<usize> {
            cut(steps, 3).into_iter().map(<[_]>::len).collect()
        };
        assert_eq!(sizes(&[lone, lone, link, lone]), [2, 2]);
        assert_eq!(sizes(&[lone, link, lone, lone]), [3, 1]);
        assert_eq!(sizes(&[lone, link, link, link, lone, lone]), [1, 4, 1]);
        assert_eq!(sizes(&[link, lone, link, lone, link]), [2, 3]);
        assert_eq!(sizes(&[link, hold]), [1, 1]);
        let many = |step: OrderStep| step.quantity(10_000);
        assert_eq!(sizes(&[lone, many(link), many(lone), lone]), [1, 2, 1]);
    }

    #[test]
    fn a_refusal_leaves_doubt_only_if_the_order_was_not_looked_at() {
        let doubtful: Vec<_> = Refusal::ALL
            .into_iter()
            .filter(|refusal| leaves_doubt(*refusal))
            .collect();
        let expect = [
            Refusal::Busy,
            Refusal::DeadlineExceeded,
            Refusal::DiskFull,
            Refusal::ShuttingDown,
            Refusal::StoreFailed,
            Refusal::TooManyOrders,
        ];
        assert_eq!(doubtful, expect);
    }

    #[test]
    fn an_unknown_outcome_is_what_the_caller_hears_of() {
        let unknown = |count| Error::OutcomeUnknown {
            count,
            first: OrderId::from_u128(1),
            cause: Box::new(Error::BadUrl { why: String::new() }),
        };
        let plain = || Error::TimedOut {
            after_ms: 1,
            sent: false,
        };
        let count_of = |error| match error {
            Some(Error::OutcomeUnknown { count, .. }) => count,
            _ => 0,
        };
        assert_eq!(count_of(worse(None, plain())), 0);
        assert_eq!(count_of(worse(Some(plain()), unknown(2))), 2);
        assert_eq!(count_of(worse(Some(unknown(2)), plain())), 2);
        assert_eq!(count_of(worse(Some(unknown(2)), unknown(3))), 5);
    }

    #[test]
    fn the_deadline_that_is_sent_is_what_is_left_of_it() {
        let sent = |deadline: std::time::Duration, started| {
            let mut out = BytesMut::new();
            Order::new(OrderId::from_u128(1), SkuId(1))
                .deadline(deadline)
                .put(&mut out, started);
            StepItem::decode(out[..].try_into().unwrap()).deadline_ms
        };
        use std::time::Duration;
        let now = Instant::now();
        assert!((900..=1000).contains(&sent(Duration::from_secs(1), now)));
        assert_eq!(sent(Duration::ZERO, now), 1);
        assert_eq!(sent(Duration::MAX, now), u32::MAX);
        std::thread::sleep(Duration::from_millis(20));
        assert!((1..=980).contains(&sent(Duration::from_secs(1), now)));
        assert_eq!(sent(Duration::from_millis(5), now), 1);
    }
}
