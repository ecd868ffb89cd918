//! Every state and every step: docs/orders.md, cell by cell.

use croupier_client::{CardMove, OrderId, OrderOutcome, OrderStep, Refusal};
use croupier_tests::Store;

use super::shop::{LONG, SHORT, Shop, counts_of, refusal_of, repeated, verified};

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    None,
    Held,
    Issued,
    /// Fewer cards than it asked for, at once.
    IssuedPart,
    /// By a commit of all that was held.
    Committed,
    /// By a commit of a part.
    CommittedPart,
    /// By a commit that found the hold expired.
    CommittedLate,
    Cancelled,
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Issue,
    Reserve,
    Commit,
    CommitOnlyHeld,
    Cancel,
    Extend,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Issued,
    Held,
    Cancelled,
    /// The answer to the same step before, marked.
    Again,
    Refused(Refusal),
}

const ASKED: [Asked; 6] = [
    Asked::Issue,
    Asked::Reserve,
    Asked::Commit,
    Asked::CommitOnlyHeld,
    Asked::Cancel,
    Asked::Extend,
];

/// The table of docs/orders.md, with enough cards; the steps in the order of [`ASKED`].
const TABLE: [(State, [Answer; 6]); 9] = {
    use Answer::{Again, Cancelled, Held, Issued, Refused};
    use Refusal::{AlreadyCancelled, AlreadyCommitted, Expired, OrderIdReused, OrderNotFound};
    const REUSED: Answer = Refused(OrderIdReused);
    const MISSING: Answer = Refused(OrderNotFound);
    const COMMITTED: Answer = Refused(AlreadyCommitted);
    const CANCELLED: Answer = Refused(AlreadyCancelled);
    const EXPIRED: Answer = Refused(Expired);
    const BY_COMMIT: [Answer; 6] = [REUSED, COMMITTED, Again, Again, COMMITTED, COMMITTED];
    [
        (
            State::None,
            [Issued, Held, MISSING, MISSING, MISSING, MISSING],
        ),
        (
            State::Held,
            [REUSED, Again, Issued, Issued, Cancelled, Held],
        ),
        (
            State::Issued,
            [Again, REUSED, REUSED, REUSED, REUSED, REUSED],
        ),
        (
            State::IssuedPart,
            [Again, REUSED, REUSED, REUSED, REUSED, REUSED],
        ),
        (State::Committed, BY_COMMIT),
        (State::CommittedPart, BY_COMMIT),
        (State::CommittedLate, BY_COMMIT),
        (
            State::Cancelled,
            [REUSED, CANCELLED, CANCELLED, CANCELLED, Again, CANCELLED],
        ),
        (
            State::Expired,
            [REUSED, EXPIRED, Issued, EXPIRED, EXPIRED, EXPIRED],
        ),
    ]
};

/// What the table says where no card is free.
fn sold_out(state: State, asked: Asked, answer: Answer) -> Answer {
    match (state, asked) {
        (State::None, Asked::Issue | Asked::Reserve) => Answer::Refused(Refusal::OutOfStock),
        (State::Expired, Asked::Commit) => Answer::Refused(Refusal::Expired),
        _ => answer,
    }
}

/// Cards of an order of the table.
const QUANTITY: u16 = 3;

/// The step with the numbers of an order of the table.
fn step_of(shop: &Shop, state: State, asked: Asked, id: OrderId) -> OrderStep {
    let ttl = match state {
        State::Expired | State::CommittedLate => SHORT,
        _ => LONG,
    };
    let commit = OrderStep::commit(id).quantity(match state {
        State::CommittedPart => 2,
        _ => 0,
    });
    match asked {
        Asked::Issue if state == State::IssuedPart => shop.issue_of(id, 1_000).partial(),
        Asked::Issue => shop.issue_of(id, QUANTITY),
        Asked::Reserve => shop.reserve_of(id, QUANTITY, ttl),
        Asked::Commit => commit,
        Asked::CommitOnlyHeld => commit.only_held(),
        Asked::Cancel => OrderStep::cancel(id),
        Asked::Extend => OrderStep::extend(id, 1, LONG),
    }
}

/// Brings an order into a state; tells the answers on the way.
async fn bring(shop: &Shop, state: State, id: OrderId) -> Vec<(Asked, OrderOutcome)> {
    let steps: &[Asked] = match state {
        State::None => &[],
        State::Held | State::Expired => &[Asked::Reserve],
        State::Issued | State::IssuedPart => &[Asked::Issue],
        State::Committed | State::CommittedPart | State::CommittedLate => {
            &[Asked::Reserve, Asked::Commit]
        }
        State::Cancelled => &[Asked::Reserve, Asked::Cancel],
    };
    let mut answers = Vec::new();
    for &asked in steps {
        let answer = shop.ask(step_of(shop, state, asked, id)).await;
        assert_eq!(refusal_of(&answer), None, "{state:?} by {asked:?}");
        let late = matches!(state, State::Expired | State::CommittedLate);
        if asked == Asked::Reserve && late {
            shop.expire(id).await;
        }
        answers.push((asked, answer));
    }
    answers
}

#[tokio::test]
async fn every_state_has_an_answer_to_every_step() {
    let mut shop = Shop::open(Store::new(), 40, 900).await;
    let cards = i64::from(QUANTITY);
    for is_sold_out in [false, true] {
        for (state, row) in TABLE {
            for (asked, answer) in ASKED.into_iter().zip(row) {
                let expected = match is_sold_out {
                    false => answer,
                    true => sold_out(state, asked, answer),
                };
                let what = format!("{asked:?} of {state:?}, sold out: {is_sold_out}");
                let id = OrderId::new_v7();
                let first = bring(&shop, state, id).await;
                if state == State::IssuedPart {
                    // It has taken all there was.
                    shop.restock("main", 1_000).await;
                }
                if is_sold_out {
                    shop.move_all(CardMove::Suspend).await;
                }
                let (stock, stood) = (shop.counts().await, shop.look_up(id).await);
                let answer = shop.ask(step_of(&shop, state, asked, id)).await;
                let stands = shop.look_up(id).await;
                // Of free, held and issued cards.
                let mut changed = [0; 3];
                match (expected, &answer) {
                    (Answer::Issued, OrderOutcome::Issued(order)) => {
                        assert_eq!(order.cards.len(), cards as usize, "{what}");
                        assert_eq!((order.sku, order.repeat), (shop.sku, false), "{what}");
                        changed[2] = cards;
                        changed[usize::from(state == State::Held)] = -cards;
                    }
                    (Answer::Held, OrderOutcome::Held(order)) => {
                        let hold = order.hold.expect("a hold");
                        let extensions = u16::from(asked == Asked::Extend);
                        assert_eq!(hold.extensions, extensions, "{what}");
                        assert_eq!((order.quantity, order.repeat), (QUANTITY, false), "{what}");
                        assert_eq!(order.sku, shop.sku, "{what}");
                        if state == State::None {
                            changed = [-cards, cards, 0];
                        }
                    }
                    (Answer::Cancelled, OrderOutcome::Cancelled(order)) => {
                        assert_eq!((order.quantity, order.repeat), (QUANTITY, false), "{what}");
                        assert_eq!((order.sku, order.hold), (shop.sku, None), "{what}");
                        changed = [cards, -cards, 0];
                    }
                    (Answer::Again, answer) => {
                        // A commit is the same whether or not it would take other cards.
                        let same = match asked {
                            Asked::CommitOnlyHeld => Asked::Commit,
                            asked => asked,
                        };
                        let first = first.iter().find(|(step, _)| *step == same);
                        let (_, first) = first.expect("it was asked before");
                        assert_eq!(*answer, repeated(first), "{what}");
                    }
                    (Answer::Refused(refusal), answer) => {
                        assert_eq!(refusal_of(answer), Some(refusal), "{what}");
                    }
                    (_, other) => panic!("{what}: {other:?}"),
                }
                match expected {
                    Answer::Again | Answer::Refused(_) => assert_eq!(stands, stood, "{what}"),
                    // What was just answered.
                    _ => assert_eq!(stands.as_ref(), Some(&answer), "{what}"),
                }
                let now = shop.counts().await;
                for ((before, after), by) in stock.into_iter().zip(now).zip(changed) {
                    assert_eq!(
                        after as i64 - before as i64,
                        by,
                        "{what}: {stock:?} {now:?}"
                    );
                }
                if is_sold_out {
                    shop.move_all(CardMove::Resume).await;
                }
            }
        }
    }
    let stock = shop.counts().await;
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), stock);
}
