//! Orders that are linked: all of a *chain* get their cards, or none does. docs/orders.md.
//!
//! A chain is read from the items of one frame, waits as one in a queue of its core beside the lanes, and is dealt as one: by
//! one append, which is never split over blocks, so that a crash leaves all of it or nothing. Within a turn its orders stand
//! one behind the other, and each but the last is marked.

use crossbeam_queue::ArrayQueue;
use croupier_protocol::{
    LINKED_ORDERS_MAX, Refusal, STEP_FLAG_LINKED, STEP_FLAG_PARTIAL, STEP_FLAG_STAY,
    STEP_FLAG_WAIT, Step, StepItem,
};

use crate::order::{Order, Ticket};

/// Orders of a chain, each with its lane.
pub type Chain = Box<[(u8, Order)]>;

/// An order of a chain as it was asked for: the item, its deadline in Unix milliseconds, where its answer goes.
pub type Asked = (StepItem, u64, Ticket);

/// Whether an item may begin a chain; of other steps the flag is one that nobody knows.
pub fn begins_chain(step: Step, item: &StepItem) -> bool {
    matches!(step, Step::Issue | Step::Reserve) && item.flags & STEP_FLAG_LINKED != 0
}

/// The chain that `asked` is: as many items of a frame as are linked, and the one behind, if there is one. The error is what
/// each of them is refused as.
pub fn chain_of(
    step: Step,
    asked: &[Asked],
    mut lane_of: impl FnMut(&Order) -> Result<usize, Refusal>,
) -> Result<Chain, Vec<Refusal>> {
    if !is_chain(asked) {
        return Err(vec![Refusal::LinkInvalid; asked.len()]);
    }
    let read = |(item, deadline_unix_ms, ticket): &Asked| {
        let link = item.flags & STEP_FLAG_LINKED;
        let alone = StepItem {
            flags: item.flags & !STEP_FLAG_LINKED,
            ..*item
        };
        let order = Order::of_item(step, &alone, *deadline_unix_ms, *ticket)?;
        let lane = lane_of(&order)? as u8;
        let flags = order.flags | link;
        Ok((lane, Order { flags, ..order }))
    };
    let orders: Vec<Result<_, Refusal>> = asked.iter().map(read).collect();
    if orders.iter().all(Result::is_ok) {
        return Ok(orders.into_iter().flatten().collect());
    }
    let refusals = orders.into_iter().map(|order| match order {
        Ok(_) => Refusal::LinkedRefused,
        Err(refusal) => refusal,
    });
    Err(refusals.collect())
}

/// Whether all that is linked may be one chain.
fn is_chain(asked: &[Asked]) -> bool {
    let Some(((last, ..), linked)) = asked.split_last() else {
        return false;
    };
    let alone = STEP_FLAG_WAIT | STEP_FLAG_STAY | STEP_FLAG_PARTIAL;
    let mut ids: Vec<_> = asked.iter().map(|(item, ..)| item.order_id).collect();
    ids.sort_unstable();
    last.flags & STEP_FLAG_LINKED == 0
        && !linked.is_empty()
        && asked.len() <= LINKED_ORDERS_MAX
        && asked.iter().all(|(item, ..)| item.flags & alone == 0)
        && ids.windows(2).all(|pair| pair[0] != pair[1])
}

/// How many of `orders` are the chain that begins with the first; 0: that is not linked.
pub fn linked(orders: &[(u8, Order)]) -> usize {
    match orders
        .iter()
        .take_while(|(_, order)| order.is_linked())
        .count()
    {
        0 => 0,
        linked => linked + 1,
    }
}

/// Chains of one core that wait to be dealt.
pub struct Chains(ArrayQueue<Chain>);

impl Chains {
    /// As many of the longest as a lane of `lane_orders_max` has room for, one at least.
    pub fn new(lane_orders_max: usize) -> Chains {
        Chains(ArrayQueue::new(
            (lane_orders_max / LINKED_ORDERS_MAX).max(1),
        ))
    }

    /// Puts one in; gives it back when there is no room.
    pub fn push(&self, chain: Chain) -> Result<(), Chain> {
        self.0.push(chain)
    }

    /// The one that came first.
    pub fn pop(&self) -> Option<Chain> {
        self.0.pop()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use croupier_protocol::{OrderId, SkuId};

    use super::*;

    const LINK: u8 = STEP_FLAG_LINKED;

    /// Items of these ids and flags.
    fn asked(items: &[(u128, u8)]) -> Vec<Asked> {
        let item = |&(id, flags): &(u128, u8)| {
            let item = StepItem::one(OrderId::from_u128(id), SkuId(1));
            let item = StepItem { flags, ..item };
            (item, u64::MAX, Ticket::single(0, 0))
        };
        items.iter().map(item).collect()
    }

    fn check(items: &[(u128, u8)], expect: Result<usize, &[Refusal]>) {
        let lane = |order: &Order| match order.id {
            99 => Err(Refusal::UnknownSku),
            _ => Ok(1),
        };
        let chain = chain_of(Step::Issue, &asked(items), lane);
        let read = chain.map(|chain| {
            assert_eq!(linked(&chain), chain.len(), "{items:?}");
            chain.len()
        });
        let expect = expect.map_err(<[Refusal]>::to_vec);
        assert_eq!(read, expect, "{items:?}");
    }

    #[test]
    fn a_chain_is_read_whole_or_refused_whole() {
        use Refusal::{LinkInvalid, LinkedRefused, OrderIdZero, UnknownSku, UnsupportedFlag};
        check(&[(1, LINK), (2, 0)], Ok(2));
        check(&[(1, LINK), (2, LINK), (3, 0)], Ok(3));
        check(&[(1, LINK)], Err(&[LinkInvalid]));
        check(&[(1, LINK), (2, LINK)], Err(&[LinkInvalid; 2]));
        check(&[(1, LINK), (1, 0)], Err(&[LinkInvalid; 2]));
        for flag in [STEP_FLAG_WAIT, STEP_FLAG_STAY, STEP_FLAG_PARTIAL] {
            check(&[(1, LINK | flag), (2, 0)], Err(&[LinkInvalid; 2]));
            check(&[(1, LINK), (2, flag)], Err(&[LinkInvalid; 2]));
        }
        check(&[(0, LINK), (2, 0)], Err(&[OrderIdZero, LinkedRefused]));
        check(&[(1, LINK), (99, 0)], Err(&[LinkedRefused, UnknownSku]));
        check(&[(0, LINK), (99, 0)], Err(&[OrderIdZero, UnknownSku]));
        check(
            &[(1, LINK), (2, 64)],
            Err(&[LinkedRefused, UnsupportedFlag]),
        );
        let mut long: Vec<_> = (1..=64).map(|id| (id, LINK)).collect();
        long[63].1 = 0;
        check(&long, Ok(64));
        long.insert(0, (65, LINK));
        check(&long, Err(&[LinkInvalid; 65]));
    }
}
