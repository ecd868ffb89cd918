//! Orders in two phases: docs/orders.md, cell by cell; repeats over crashes, quantities, extensions, expiry, late commits.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::time::Duration;

use croupier_client::{
    CardMove, CardSelection, Client, Error, Order, OrderId, OrderOutcome, OrderStep, Refusal,
    SkuId, Step, StepItem,
};
use croupier_tests::{Dice, Mint, PATIENCE, SEGMENT_BYTES, Server, Store, Wire, scaled};
use serde_json::Value;
use tempfile::TempDir;

use super::stock::{counts, import, import_into, stock};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);
/// Over before anybody looks.
const SHORT: Duration = Duration::from_millis(3);

/// A served store with one SKU.
struct Shop {
    store: Store,
    server: Server,
    client: Client,
    sku: SkuId,
    mint: Mint,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Kill,
    /// In good order, with a checkpoint.
    Stop,
}

impl Shop {
    async fn open(store: Store, mint: u16, cards: usize) -> Shop {
        let server = store.serve();
        let client = server.client().await;
        let mut mint = Mint::new(mint);
        let sku = import(&client, "s", &mint.secrets(cards, 20)).await;
        Shop {
            store,
            server,
            client,
            sku,
            mint,
        }
    }

    async fn reopened(self, end: End) -> Shop {
        self.reopened_after(end, |_| {}).await
    }

    /// Ends the server, has a look at the store, and serves it again.
    async fn reopened_after(self, end: End, look: impl FnOnce(&Store)) -> Shop {
        let Shop {
            store,
            server,
            sku,
            mint,
            ..
        } = self;
        match end {
            End::Kill => drop(server.kill()),
            End::Stop => drop(server.stop().ok()),
        }
        look(&store);
        let server = store.serve();
        let client = server.client().await;
        Shop {
            store,
            server,
            client,
            sku,
            mint,
        }
    }

    async fn restock(&mut self, pool: &str, cards: usize) {
        let secrets = self.mint.secrets(cards, 20);
        import_into(&self.client, "s", pool, &secrets).await;
    }

    /// Free, held, issued, void.
    async fn counts(&self) -> [u64; 4] {
        counts(&stock(&self.client).await)
    }

    async fn ask(&self, step: OrderStep) -> OrderOutcome {
        let answered = self.client.steps(&[step]).await;
        answered
            .expect("the server answers")
            .pop()
            .expect("one answer")
    }

    async fn reserve(&self, quantity: u16, ttl: Duration) -> OrderId {
        let id = OrderId::new_v7();
        let outcome = self.ask(self.reserve_of(id, quantity, ttl)).await;
        assert!(matches!(outcome, OrderOutcome::Held(_)), "{outcome:?}");
        id
    }

    async fn issue(&self, quantity: u16) -> OrderId {
        let id = OrderId::new_v7();
        let outcome = self.ask(self.issue_of(id, quantity)).await;
        assert!(matches!(outcome, OrderOutcome::Issued(_)), "{outcome:?}");
        id
    }

    fn issue_of(&self, id: OrderId, quantity: u16) -> OrderStep {
        OrderStep::issue(Order::new(id, self.sku).quantity(quantity))
    }

    fn reserve_of(&self, id: OrderId, quantity: u16, ttl: Duration) -> OrderStep {
        OrderStep::reserve(Order::new(id, self.sku).quantity(quantity), ttl)
    }

    async fn look_up(&self, id: OrderId) -> Option<OrderOutcome> {
        self.client.order(id).await.expect("look-ups are answered")
    }

    async fn is_expired(&self, id: OrderId) -> bool {
        matches!(self.look_up(id).await, Some(OrderOutcome::Expired(_)))
    }

    async fn expire(&self, id: OrderId) {
        until("the hold has expired", async || self.is_expired(id).await).await;
    }

    async fn expired(&self, quantity: u16) -> OrderId {
        let id = self.reserve(quantity, SHORT).await;
        self.expire(id).await;
        id
    }

    async fn move_all(&self, card_move: CardMove) -> u64 {
        let all = CardSelection::Sku("s".into());
        let moved = self.client.move_cards(&all, card_move, false).await;
        moved.expect("there is the SKU").moved
    }
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {PATIENCE:?}: {what}");
}

fn refusal_of(outcome: &OrderOutcome) -> Option<Refusal> {
    match outcome {
        OrderOutcome::Refused { refusal, .. } => Some(*refusal),
        _ => None,
    }
}

/// The same answer, marked as that of a step that had been taken before.
fn repeated(outcome: &OrderOutcome) -> OrderOutcome {
    let mut outcome = outcome.clone();
    match &mut outcome {
        OrderOutcome::Issued(order) => order.repeat = true,
        OrderOutcome::Held(order) | OrderOutcome::Cancelled(order) => order.repeat = true,
        OrderOutcome::Expired(_) | OrderOutcome::Refused { .. } => {}
    }
    outcome
}

/// In how many slabs how many cards of it lie.
fn cards_by_slab(outcome: &OrderOutcome) -> BTreeMap<u32, usize> {
    let cards = &outcome.issued().expect("it has cards").cards;
    let mut by_slab = BTreeMap::new();
    for card in cards {
        *by_slab.entry(card.card.slab).or_default() += 1;
    }
    by_slab
}

/// Verifies a stopped store, replays it into another, and returns what the first said.
fn verified(store: &Store) -> Value {
    let verified = store.wal("verify", &[]).ok().json();
    let root = TempDir::with_prefix("croupier-replay-").expect("a temporary directory");
    let into = root.path().join("copy");
    let (path, bytes) = (into.display().to_string(), SEGMENT_BYTES.to_string());
    let args = ["--into", &path, "--wal-segment-bytes", &bytes];
    let replayed = store.wal("replay", &args).ok().json();
    let copied = Store::at(into).wal("verify", &[]).ok().json();
    assert_eq!(verified["digest"], replayed["digest"], "the replay");
    for what in [
        "digest", "orders", "imported", "free", "held", "issued", "void",
    ] {
        assert_eq!(verified[what], copied[what], "{what} of the copy");
    }
    verified
}

fn counts_of(verified: &Value) -> [u64; 4] {
    ["free", "held", "issued", "void"].map(|what| verified[what].as_u64().expect("a count"))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    None,
    Held,
    Issued,
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
const TABLE: [(State, [Answer; 6]); 8] = {
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
        State::Issued => &[Asked::Issue],
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
    let shop = Shop::open(Store::new(), 40, 1_000).await;
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

/// Steps and what was answered first; whatever is refused is refused again.
type Given = Vec<(OrderStep, OrderOutcome)>;

/// Orders in all states, with steps that were taken and steps that are other ones under the same id.
async fn all_kinds(shop: &Shop) -> (Given, Vec<(OrderStep, Refusal)>) {
    let mut given = Given::new();
    let mut other = Vec::new();
    let id = || OrderId::new_v7();
    let ten = |minutes: u64| Duration::from_secs(60 * minutes);

    let issued = id();
    let step = shop.issue_of(issued, 2);
    given.push((step, shop.ask(step).await));
    other.push((shop.issue_of(issued, 1), Refusal::OrderIdReused));

    let held = id();
    let reserve = shop.reserve_of(held, 3, LONG);
    given.push((reserve, shop.ask(reserve).await));
    let unknown = OrderStep::reserve(Order::new(held, SkuId(2)).quantity(3), LONG);
    other.extend([
        (shop.reserve_of(held, 3, ten(10)), Refusal::OrderIdReused),
        (shop.reserve_of(held, 2, LONG), Refusal::OrderIdReused),
        (unknown, Refusal::OrderIdReused),
        (shop.issue_of(held, 3), Refusal::OrderIdReused),
        (OrderStep::commit(held).quantity(4), Refusal::NotSoManyHeld),
    ]);

    // The first end is told again although there is a later one.
    let extended = id();
    for step in [
        shop.reserve_of(extended, 3, ten(10)),
        OrderStep::extend(extended, 1, LONG),
    ] {
        given.push((step, shop.ask(step).await));
    }
    other.extend([
        (
            OrderStep::extend(extended, 1, ten(10)),
            Refusal::OrderIdReused,
        ),
        (
            OrderStep::extend(extended, 2, LONG),
            Refusal::NoExtensionLeft,
        ),
        (shop.reserve_of(extended, 3, LONG), Refusal::OrderIdReused),
    ]);

    for (quantity, same, others) in [
        (0, [0, 3], [1, 2]),
        (3, [0, 3], [1, 4]),
        (2, [2, 2], [0, 3]),
        (1, [1, 1], [0, 3]),
    ] {
        for late in [false, true] {
            let id = match late {
                true => shop.expired(3).await,
                false => shop.reserve(3, LONG).await,
            };
            let commit = |quantity| OrderStep::commit(id).quantity(quantity);
            let answer = shop.ask(commit(quantity)).await;
            assert_eq!(refusal_of(&answer), None);
            for quantity in same {
                given.push((commit(quantity), answer.clone()));
                given.push((commit(quantity).only_held(), answer.clone()));
            }
            other.extend(others.map(|quantity| (commit(quantity), Refusal::OrderIdReused)));
            other.push((OrderStep::cancel(id), Refusal::AlreadyCommitted));
        }
    }

    let cancelled = shop.reserve(2, LONG).await;
    let cancel = OrderStep::cancel(cancelled);
    given.push((cancel, shop.ask(cancel).await));
    other.push((OrderStep::commit(cancelled), Refusal::AlreadyCancelled));

    let expired = shop.expired(2).await;
    other.extend([
        (OrderStep::commit(expired).only_held(), Refusal::Expired),
        (OrderStep::extend(expired, 1, LONG), Refusal::Expired),
        (shop.reserve_of(expired, 2, SHORT), Refusal::Expired),
        (
            OrderStep::commit(expired).quantity(3),
            Refusal::NotSoManyHeld,
        ),
        (OrderStep::commit(id()), Refusal::OrderNotFound),
    ]);
    assert!(given.iter().all(|(_, first)| refusal_of(first).is_none()));
    (given, other)
}

#[tokio::test]
async fn a_step_repeated_is_answered_as_first_over_kills_and_folds_and_others_are_refused() {
    let mut shop = Shop::open(Store::new(), 41, 200).await;
    shop.client.sku_create("t").await.expect("another SKU");
    let (given, other) = all_kinds(&shop).await;
    let ids: HashSet<OrderId> = given.iter().map(|(step, _)| step.order.order_id).collect();
    let ids: Vec<OrderId> = ids.into_iter().collect();
    let stands = shop.client.orders(&ids).await.expect("look-ups");
    let stock = shop.counts().await;
    for end in [None, Some(End::Kill), Some(End::Stop), Some(End::Kill)] {
        if let Some(end) = end {
            shop = shop
                .reopened_after(end, |store| {
                    let verified = verified(store);
                    assert_eq!(counts_of(&verified), stock, "{end:?}");
                    let folded = verified["checkpoint_orders"].as_u64();
                    assert!(end == End::Kill || folded > Some(10), "{verified}");
                })
                .await;
        }
        let again = shop.client.orders(&ids).await.expect("look-ups");
        assert_eq!(again, stands, "{end:?}");
        for (step, first) in &given {
            let answer = shop.ask(*step).await;
            assert_eq!(answer, repeated(first), "after {end:?}: {step:?}");
        }
        for (step, refusal) in &other {
            let answer = shop.ask(*step).await;
            assert_eq!(refusal_of(&answer), Some(*refusal), "{end:?}: {step:?}");
        }
        assert_eq!(shop.counts().await, stock, "{end:?}");
    }
}

#[tokio::test]
async fn what_is_not_committed_goes_back_and_no_more_than_is_held_is_committed() {
    let shop = Shop::open(Store::new(), 42, 20).await;
    let mut stock = [20, 0, 0, 0];
    let id = shop.reserve(5, LONG).await;
    assert_eq!(shop.counts().await, [15, 5, 0, 0]);
    for quantity in [6, 4_000] {
        let answer = shop.ask(OrderStep::commit(id).quantity(quantity)).await;
        assert_eq!(refusal_of(&answer), Some(Refusal::NotSoManyHeld));
        assert_eq!(shop.counts().await, [15, 5, 0, 0]);
    }
    let cards = shop.client.commit_part(id, 2).await.expect("two of five");
    assert_eq!(cards.cards.len(), 2);
    stock[0] -= 2;
    stock[2] += 2;
    assert_eq!(shop.counts().await, stock);

    let too_many = OrderId::new_v7();
    let answer = shop.ask(shop.reserve_of(too_many, 19, LONG)).await;
    assert_eq!(refusal_of(&answer), Some(Refusal::OutOfStock));
    assert_eq!(shop.look_up(too_many).await, None);
    assert_eq!(shop.counts().await, stock);
    // A refusal leaves no trace: the id may try again, and all may be held by one.
    let answer = shop.ask(shop.reserve_of(too_many, 18, LONG)).await;
    assert_eq!(refusal_of(&answer), None);
    assert_eq!(shop.counts().await, [0, 18, 2, 0]);
    for step in [
        shop.issue_of(OrderId::new_v7(), 1),
        shop.reserve_of(OrderId::new_v7(), 1, LONG),
    ] {
        let answer = shop.ask(step).await;
        assert_eq!(refusal_of(&answer), Some(Refusal::OutOfStock));
    }
    let all = shop.client.commit(too_many).await.expect("all are held");
    assert_eq!(shop.counts().await, [0, 0, 20, 0]);
    let all = all.cards.iter().chain(&cards.cards);
    let all: HashSet<_> = all.map(|card| card.card).collect();
    assert_eq!(all.len(), 20, "no card twice");
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 20, 0]);
}

#[tokio::test]
async fn a_hold_takes_from_several_pools_and_gives_back_to_the_same() {
    // Slab 1: five cards of the pool main. Slab 2: three of vip.
    let mut shop = Shop::open(Store::new(), 43, 5).await;
    shop.restock("vip", 3).await;
    let routes = "[[rule]]\npools = [\"vip\", \"main\"]\n";
    shop.client.routes_load(routes).await.expect("a table");

    for round in 0..4 {
        let what = format!("round {round}");
        let id = shop.reserve(5, LONG).await;
        let rest = shop.reserve(3, LONG).await;
        assert_eq!(shop.counts().await, [0, 8, 0, 0], "{what}");
        if round == 1 {
            shop = shop.reopened(End::Kill).await;
        }
        if round == 2 {
            shop = shop.reopened(End::Stop).await;
        }
        shop.client.cancel(id).await.expect("it is held");
        assert_eq!(shop.counts().await, [5, 3, 0, 0], "{what}");
        // Those that came back are vip's three and two others; the other hold has the rest.
        let issued = shop.reserve(4, SHORT).await;
        shop.expire(issued).await;
        shop.client.cancel(rest).await.expect("it is held");
        assert_eq!(shop.counts().await, [8, 0, 0, 0], "{what}");
    }
    let part = shop.reserve(5, LONG).await;
    let part = shop.ask(OrderStep::commit(part).quantity(2)).await;
    assert_eq!(cards_by_slab(&part), [(2, 2)].into());
    assert_eq!(shop.counts().await, [6, 0, 2, 0]);
    let both = shop.reserve(3, LONG).await;
    shop = shop.reopened(End::Kill).await;
    let both = shop.ask(OrderStep::commit(both)).await;
    assert_eq!(cards_by_slab(&both), [(1, 2), (2, 1)].into());
    let last = shop.reserve(3, LONG).await;
    let last = shop.ask(OrderStep::commit(last)).await;
    assert_eq!(cards_by_slab(&last), [(1, 3)].into());
    assert_eq!(shop.counts().await, [0, 0, 8, 0]);
    shop.server.stop().ok();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 8, 0]);
}

#[tokio::test]
async fn a_hold_takes_from_four_pools_at_most() {
    let mut shop = Shop::open(Store::new(), 44, 1).await;
    for pool in ["b", "c", "d", "e"] {
        shop.restock(pool, 1).await;
    }
    let routes = "[[rule]]\npools = [\"main\", \"b\", \"c\", \"d\", \"e\"]\n";
    shop.client.routes_load(routes).await.expect("a table");
    let five = OrderId::new_v7();
    let answer = shop.ask(shop.reserve_of(five, 5, LONG)).await;
    assert_eq!(refusal_of(&answer), Some(Refusal::OutOfStock));
    assert_eq!(
        (shop.look_up(five).await, shop.counts().await[0]),
        (None, 5)
    );
    let four = shop.reserve(4, LONG).await;
    assert_eq!(shop.counts().await, [1, 4, 0, 0]);
    shop = shop.reopened(End::Kill).await;
    let answer = shop.ask(OrderStep::commit(four)).await;
    assert_eq!(cards_by_slab(&answer).len(), 4);
    shop.issue(1).await;
    assert_eq!(shop.counts().await, [0, 0, 5, 0]);
}

#[tokio::test]
async fn a_hold_is_extended_as_often_as_the_server_says_and_never_shortened() {
    for most in [0, 1, 3] {
        let store = Store::new()
            .with("--hold-extensions-max", most)
            .with("--hold-ttl-max-ms", 3_600_000);
        let shop = Shop::open(store, 45 + most, 10).await;
        let refused = async |step| refusal_of(&shop.ask(step).await);
        let id = shop.reserve(1, LONG / 4).await;
        let first = shop.look_up(id).await;
        let Some(OrderOutcome::Held(held)) = &first else {
            panic!("{first:?}");
        };
        let mut ends = held.hold.expect("a hold").ends_unix_ms;
        for nth in 1..=most {
            for other in [nth + 1, nth + 2, u16::MAX] {
                let step = OrderStep::extend(id, other, LONG);
                assert_eq!(refused(step).await, Some(Refusal::NoExtensionLeft), "{nth}");
            }
            let too_long = OrderStep::extend(id, nth, LONG + Duration::from_millis(1));
            assert_eq!(refused(too_long).await, Some(Refusal::TtlInvalid), "{nth}");
            // The second asks for less than there is.
            let ttl = [LONG / 2, SHORT, LONG][usize::from(nth) - 1];
            let held = shop.client.extend(id, nth, ttl).await.expect("the next");
            let hold = held.hold.expect("a hold");
            assert_eq!((hold.extensions, held.repeat), (nth, false));
            match ttl == SHORT {
                true => assert_eq!(hold.ends_unix_ms, ends, "it is not shortened"),
                false => assert!(hold.ends_unix_ms > ends, "it is longer"),
            }
            ends = hold.ends_unix_ms;
            if nth > 1 {
                let before =
                    OrderStep::extend(id, nth - 1, [LONG / 2, SHORT][usize::from(nth) - 2]);
                let refusal = refused(before).await;
                assert_eq!(
                    refusal,
                    Some(Refusal::NoExtensionLeft),
                    "only the last is known"
                );
            }
            let again = shop.client.extend(id, nth, ttl).await.expect("a repeat");
            assert_eq!(
                (again.lsn, again.hold, again.repeat),
                (held.lsn, held.hold, true)
            );
        }
        let step = OrderStep::extend(id, most + 1, LONG);
        assert_eq!(
            refused(step).await,
            Some(Refusal::NoExtensionLeft),
            "{most}"
        );

        for ttl_ms in [3_600_001, u32::MAX] {
            let ttl = Duration::from_millis(ttl_ms.into());
            let step = shop.reserve_of(OrderId::new_v7(), 1, ttl);
            assert_eq!(refused(step).await, Some(Refusal::TtlInvalid));
        }
        // An extension that came in time keeps a hold beyond its first end. The machine decides what is in time.
        let mut ttl = Duration::from_millis(100);
        if most > 0 {
            loop {
                let id = shop.reserve(1, ttl).await;
                let answer = shop.ask(OrderStep::extend(id, 1, LONG)).await;
                if refusal_of(&answer) == Some(Refusal::Expired) {
                    ttl *= 2;
                    continue;
                }
                let other = shop.reserve(1, ttl).await;
                shop.expire(other).await;
                assert_eq!(shop.look_up(id).await, Some(answer));
                break;
            }
        }
        let stock = shop.counts().await;
        shop.server.kill();
        assert_eq!(counts_of(&verified(&shop.store)), stock);
    }
}

/// Unix milliseconds of a time as the log is printed, `2028-06-30T23:59:59.050Z`.
fn unix_ms(text: &str) -> u64 {
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().expect("digits");
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // Years begin in March, so that the leap day is their last.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // Those before 1970.
    let days = days - 719_468;
    let seconds = (days * 24 + number(11, 13)) * 3600 + number(14, 16) * 60 + number(17, 19);
    seconds * 1000 + number(20, 23)
}

#[tokio::test]
async fn thousands_of_holds_expire_each_in_its_time_and_give_everything_back() {
    let holds = scaled(20_000, 200_000);
    let mut dice = Dice::rolled("holds that expire");
    // Nothing is folded, so that the whole log can be read.
    let store = Store::new().with("--checkpoint-segments", 1_000);
    let shop = Shop::open(store, 49, holds + 2_000).await;
    let mut ends: HashMap<OrderId, u64> = HashMap::new();
    let mut issued = 0;
    while ends.len() < holds {
        let mut steps: Vec<OrderStep> = (0..500)
            .map(|_| {
                let ttl = Duration::from_millis(dice.within(1..3_001));
                shop.reserve_of(OrderId::new_v7(), 1, ttl)
            })
            .collect();
        // Those of the batch before, if they are not over yet.
        let extended = ends.keys().take(100);
        let ttl = Duration::from_millis(dice.within(1..3_001));
        steps.extend(extended.map(|id| OrderStep::extend(*id, 1, ttl)));
        if ends.len().is_multiple_of(1_000) {
            steps.extend((0..20).map(|_| shop.issue_of(OrderId::new_v7(), 1)));
        }
        for outcome in shop.client.steps(&steps).await.expect("answers") {
            match outcome {
                OrderOutcome::Held(order) => {
                    let end = order.hold.expect("a hold").ends_unix_ms;
                    let before = ends.insert(order.order_id, end);
                    assert!(before <= Some(end), "an extension never shortens");
                }
                OrderOutcome::Issued(_) => issued += 1,
                OrderOutcome::Refused { refusal, .. } => assert!(
                    matches!(
                        refusal,
                        Refusal::Expired | Refusal::NoExtensionLeft | Refusal::OrderIdReused
                    ),
                    "{refusal:?}"
                ),
                other => panic!("{other:?}"),
            }
        }
    }
    let imported = (holds + 2_000) as u64;
    let over = [imported - issued, 0, issued, 0];
    until("all holds are over", async || shop.counts().await == over).await;
    let ids: Vec<OrderId> = ends.keys().copied().collect();
    let stand = shop.client.orders(&ids).await.expect("look-ups");
    let is_expired = |outcome: &OrderOutcome| matches!(outcome, OrderOutcome::Expired(_));
    assert!(stand.iter().all(is_expired));

    shop.server.kill();
    let mut released = HashSet::new();
    for record in shop.store.records() {
        if record["kind"] != "Released" {
            continue;
        }
        assert_eq!(record["why"], "expired");
        let id: OrderId = record["order_id"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .expect("an id");
        let at = unix_ms(record["at"].as_str().expect("a time"));
        assert!(at >= ends[&id], "{record}: the hold ends at {}", ends[&id]);
        assert!(released.insert(id), "{id} expires twice");
    }
    assert_eq!(released.len(), ends.len());
    assert_eq!(counts_of(&verified(&shop.store)), over);
}

#[tokio::test]
async fn holds_that_a_kill_has_left_open_expire_after_the_start() {
    let mut shop = Shop::open(Store::new(), 50, 100).await;
    for end in [End::Kill, End::Stop] {
        let soon = Duration::from_millis(400);
        let mut open = Vec::new();
        for _ in 0..10 {
            // Over while the server is down, and some time after it is up again.
            open.push(shop.reserve(1, Duration::from_millis(1)).await);
            open.push(shop.reserve(2, soon).await);
        }
        let stays = shop.reserve(3, LONG).await;
        shop = shop
            .reopened_after(end, |_| std::thread::sleep(Duration::from_millis(20)))
            .await;
        for id in open {
            shop.expire(id).await;
        }
        assert_eq!(shop.counts().await, [97, 3, 0, 0], "{end:?}");
        shop.client.cancel(stays).await.expect("it is held");
        assert_eq!(shop.counts().await, [100, 0, 0, 0], "{end:?}");
    }
    shop.server.stop().ok();
    assert_eq!(counts_of(&verified(&shop.store)), [100, 0, 0, 0]);
}

#[tokio::test]
async fn a_late_commit_gets_other_cards_if_there_are_enough() {
    let mut shop = Shop::open(Store::new(), 51, 6).await;
    let late = shop.expired(3).await;
    let other = shop.expired(3).await;
    let part = shop.expired(3).await;
    let only_held = OrderStep::commit(late).only_held();
    assert_eq!(
        refusal_of(&shop.ask(only_held).await),
        Some(Refusal::Expired)
    );
    assert_eq!(shop.counts().await, [6, 0, 0, 0]);
    let first = shop.ask(OrderStep::commit(late)).await;
    assert_eq!(first.issued().map(|order| order.cards.len()), Some(3));
    assert_eq!(shop.counts().await, [3, 0, 3, 0]);
    // One too few: neither is it taken nor lost.
    shop.issue(1).await;
    for _ in 0..3 {
        let answer = shop.ask(OrderStep::commit(other)).await;
        assert_eq!(refusal_of(&answer), Some(Refusal::Expired));
        assert!(shop.is_expired(other).await);
        assert_eq!(shop.counts().await, [2, 0, 4, 0]);
    }
    let answer = shop.ask(OrderStep::commit(part).quantity(2)).await;
    assert_eq!(answer.issued().map(|order| order.cards.len()), Some(2));
    assert_eq!(shop.counts().await, [0, 0, 6, 0]);
    shop = shop.reopened(End::Stop).await;
    let answer = shop.ask(OrderStep::commit(other)).await;
    assert_eq!(refusal_of(&answer), Some(Refusal::Expired));
    shop.restock("main", 3).await;
    let only_held = OrderStep::commit(other).only_held();
    assert_eq!(
        refusal_of(&shop.ask(only_held).await),
        Some(Refusal::Expired)
    );
    let answer = shop.ask(OrderStep::commit(other)).await;
    assert_eq!(answer.issued().map(|order| order.cards.len()), Some(3));
    for end in [End::Kill, End::Stop, End::Kill] {
        shop = shop.reopened(end).await;
        let again = shop.ask(OrderStep::commit(other)).await;
        assert_eq!(again, repeated(&answer), "{end:?}");
        let again = shop.ask(OrderStep::commit(late)).await;
        assert_eq!(again, repeated(&first), "{end:?}");
        assert_eq!(shop.counts().await, [0, 0, 9, 0]);
    }
    shop.server.stop().ok();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 9, 0]);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_changes_nothing() {
    let store = Store::new().with("--quantity-max", 50);
    let shop = Shop::open(store, 52, 100).await;
    let held = shop.reserve(40, LONG).await;
    let (stock, stood) = (shop.counts().await, shop.look_up(held).await);
    let (mut wire, _) = Wire::greeted(shop.server.addr());
    let new = |step| StepItem {
        ttl_ms: match step {
            Step::Reserve => 60_000,
            _ => 0,
        },
        ..StepItem::one(OrderId::new_v7(), shop.sku)
    };
    let of = StepItem::of(held);
    let extend = StepItem {
        quantity: 1,
        ttl_ms: 60_000,
        ..of
    };
    let reserve = new(Step::Reserve);
    let unknown = StepItem::of(OrderId::new_v7());
    let zero = OrderId::from_u128(0);
    use Refusal::*;
    #[rustfmt::skip]
    let cases = [
        (Step::Commit, StepItem { flags: 2, ..of }, UnsupportedFlag),
        (Step::Commit, StepItem { flags: 3, ..of }, UnsupportedFlag),
        (Step::Commit, StepItem { flags: 128, ..of }, UnsupportedFlag),
        (Step::Issue, StepItem { flags: 1, ..new(Step::Issue) }, UnsupportedFlag),
        (Step::Reserve, StepItem { flags: 1, ..reserve }, UnsupportedFlag),
        (Step::Cancel, StepItem { flags: 1, ..of }, UnsupportedFlag),
        (Step::Extend, StepItem { flags: 1, ..extend }, UnsupportedFlag),
        (Step::Reserve, StepItem { quantity: 0, ..reserve }, QuantityZero),
        (Step::Reserve, StepItem { quantity: 51, ..reserve }, QuantityTooLarge),
        (Step::Reserve, StepItem { quantity: 4_001, ..reserve }, QuantityTooLarge),
        (Step::Reserve, StepItem { quantity: u16::MAX, ..reserve }, QuantityTooLarge),
        (Step::Commit, StepItem { quantity: 4_001, ..of }, QuantityTooLarge),
        (Step::Commit, StepItem { quantity: 41, ..of }, NotSoManyHeld),
        (Step::Extend, StepItem { quantity: 0, ..extend }, NoExtensionLeft),
        (Step::Extend, StepItem { quantity: 2, ..extend }, NoExtensionLeft),
        (Step::Reserve, StepItem { ttl_ms: 0, ..reserve }, TtlInvalid),
        (Step::Reserve, StepItem { ttl_ms: 86_400_001, ..reserve }, TtlInvalid),
        (Step::Extend, StepItem { ttl_ms: 0, ..extend }, TtlInvalid),
        (Step::Extend, StepItem { ttl_ms: 86_400_001, ..extend }, TtlInvalid),
        (Step::Reserve, StepItem { order_id: zero, ..reserve }, OrderIdZero),
        (Step::Commit, StepItem { order_id: zero, ..of }, OrderIdZero),
        (Step::Cancel, StepItem { order_id: zero, ..of }, OrderIdZero),
        (Step::Extend, StepItem { order_id: zero, ..extend }, OrderIdZero),
        (Step::Reserve, StepItem { sku: SkuId(0), ..reserve }, UnknownSku),
        (Step::Reserve, StepItem { sku: SkuId(2), ..reserve }, UnknownSku),
        (Step::Reserve, StepItem { priority: 4, ..reserve }, UnknownPriority),
        (Step::Commit, StepItem { priority: 4, ..of }, UnknownPriority),
        (Step::Cancel, StepItem { priority: 255, ..of }, UnknownPriority),
        (Step::Extend, StepItem { priority: 4, ..extend }, UnknownPriority),
        (Step::Commit, unknown, OrderNotFound),
        (Step::Cancel, unknown, OrderNotFound),
        (Step::Extend, StepItem { quantity: 1, ttl_ms: 1, ..unknown }, OrderNotFound),
    ];
    for (step, item, refusal) in cases {
        let answers = wire.step(step, &[item]);
        let [answer] = &answers[..] else {
            panic!("{answers:?}")
        };
        assert_eq!(refusal_of(answer), Some(refusal), "{step:?} {item:?}");
        assert_eq!(answer.order_id(), item.order_id, "{step:?} {item:?}");
        assert_eq!(shop.counts().await, stock, "{step:?} {item:?}");
        if item.order_id != held && item.order_id != zero {
            assert_eq!(shop.look_up(item.order_id).await, None, "{step:?} {item:?}");
        }
    }
    assert_eq!(shop.look_up(held).await, stood);
    assert!(wire.answers());
    drop(wire);
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), stock);
}

/// SKU and quantity mean nothing in steps of orders that must be there.
#[tokio::test]
async fn a_step_of_a_known_order_is_about_that_order_whatever_sku_it_names() {
    let shop = Shop::open(Store::new(), 53, 100).await;
    let (mut wire, _) = Wire::greeted(shop.server.addr());
    for sku in [shop.sku, SkuId(0), SkuId(77)] {
        for quantity in [1, 0] {
            let item = |order_id| StepItem {
                sku,
                quantity,
                ..StepItem::of(order_id)
            };
            let extend = |order_id| StepItem {
                sku,
                quantity: 1,
                ttl_ms: 60_000,
                ..StepItem::of(order_id)
            };
            let stock = shop.counts().await;
            for step in [Step::Commit, Step::Cancel, Step::Extend] {
                let item = match step {
                    Step::Extend => extend(OrderId::new_v7()),
                    _ => item(OrderId::new_v7()),
                };
                let answers = wire.step(step, &[item]);
                assert_eq!(
                    refusal_of(&answers[0]),
                    Some(Refusal::OrderNotFound),
                    "{step:?} {item:?}"
                );
                assert_eq!(shop.look_up(item.order_id).await, None);
            }
            assert_eq!(shop.counts().await, stock);
            let id = shop.reserve(1, LONG).await;
            let answers = wire.step(Step::Extend, &[extend(id)]);
            assert!(
                matches!(answers[..], [OrderOutcome::Held(_)]),
                "{answers:?}"
            );
            let answers = wire.step(Step::Commit, &[item(id)]);
            let [OrderOutcome::Issued(order)] = &answers[..] else {
                panic!("{answers:?}")
            };
            assert_eq!((order.sku, order.cards.len()), (shop.sku, 1));
            let id = shop.reserve(1, LONG).await;
            let answers = wire.step(Step::Cancel, &[item(id)]);
            let [OrderOutcome::Cancelled(order)] = &answers[..] else {
                panic!("{answers:?}")
            };
            assert_eq!((order.sku, order.quantity), (shop.sku, 1));
        }
    }
}

#[tokio::test]
async fn verify_and_replay_know_holds_however_often_they_were_folded() {
    let mut dice = Dice::rolled("holds that are folded");
    let store = Store::new().with("--hold-extensions-max", 2);
    let mut shop = Shop::open(store, 54, 3_000).await;
    let mut open = Vec::new();
    let mut expired = Vec::new();
    for round in 0..8 {
        for _ in 0..40 {
            let id = shop.reserve(dice.within(1..5) as u16, LONG).await;
            match dice.within(0..6) {
                0 => drop(shop.client.cancel(id).await.expect("it is held")),
                1 => drop(shop.client.commit(id).await.expect("it is held")),
                2 => drop(shop.client.commit_part(id, 1).await.expect("it is held")),
                3 => {
                    let extended = shop.client.extend(id, 1, LONG).await;
                    extended.expect("it may be");
                    open.push(id);
                }
                _ => open.push(id),
            }
            shop.issue(1).await;
        }
        for _ in 0..5 {
            expired.push(shop.expired(2).await);
        }
        // Of rounds before, too: their records are folded.
        for _ in 0..10 {
            let id = open.swap_remove(dice.within(0..open.len() as u64) as usize);
            match dice.once_in(2) {
                true => drop(shop.client.commit(id).await.expect("it is held")),
                false => drop(shop.client.cancel(id).await.expect("it is held")),
            }
        }
        for _ in 0..3 {
            let id = expired.swap_remove(dice.within(0..expired.len() as u64) as usize);
            shop.client.commit(id).await.expect("there are other cards");
        }
        let stock = shop.counts().await;
        assert!(stock[1] > 0);
        let end = if round % 3 == 1 { End::Kill } else { End::Stop };
        shop = shop
            .reopened_after(end, |store| {
                let verified = verified(store);
                assert_eq!(counts_of(&verified), stock, "round {round}, {end:?}");
                let folded = verified["records_since_checkpoint"] == 0;
                assert_eq!(folded, end == End::Stop, "round {round}: {verified}");
            })
            .await;
        assert_eq!(shop.counts().await, stock, "round {round}, {end:?}");
    }
    for id in open {
        shop.client.commit(id).await.expect("it is held");
    }
    assert_eq!(shop.counts().await[1], 0);
}

/// Holds run through many segments that are folded while orders go on: by the size of the log, not by a stop.
#[tokio::test]
async fn holds_outlive_folds_under_way() {
    let mut shop = Shop::open(Store::new(), 55, 60_000).await;
    let mut kept = Vec::new();
    let path = shop.store.path("CURRENT");
    let current = || fs::read(&path).ok();
    let mut folded = current();
    for round in 1..=45 {
        let ids: Vec<OrderId> = (0..1_500).map(|_| OrderId::new_v7()).collect();
        let reserves: Vec<_> = ids.iter().map(|id| shop.reserve_of(*id, 1, LONG)).collect();
        let outcomes = shop.client.steps(&reserves).await.expect("answers");
        assert!(outcomes.iter().all(|outcome| refusal_of(outcome).is_none()));
        let (keep, end) = ids.split_at(10);
        kept.extend_from_slice(keep);
        let ends = end.iter().zip(0..).map(|(id, nth)| match nth % 3 {
            0 => OrderStep::commit(*id),
            _ => OrderStep::cancel(*id),
        });
        let ends: Vec<_> = ends.collect();
        let outcomes = shop.client.steps(&ends).await.expect("answers");
        assert!(outcomes.iter().all(|outcome| refusal_of(outcome).is_none()));
        // More than a segment of records since the last time.
        if round % 15 == 0 {
            until("a fold", async || current() != folded).await;
            folded = current();
        }
    }
    let stock = shop.counts().await;
    assert_eq!(stock[1], kept.len() as u64);
    shop = shop
        .reopened_after(End::Kill, |store| {
            let verified = verified(store);
            assert_eq!(counts_of(&verified), stock);
            let folded = verified["checkpoint_orders"].as_u64();
            assert!(folded > Some(1_000), "{verified}");
        })
        .await;
    for id in kept {
        let issued = shop.client.commit(id).await.expect("it is held");
        assert_eq!(issued.cards.len(), 1);
    }
    assert_eq!(shop.counts().await[1], 0);
}

#[tokio::test]
async fn cards_out_of_sale_leave_holds_what_they_were_promised() {
    let mut shop = Shop::open(Store::new(), 56, 50).await;
    let commit = shop.reserve(5, LONG).await;
    let cancel = shop.reserve(4, LONG).await;
    let expire = shop.reserve(3, Duration::from_millis(100)).await;
    let void = CardSelection::Order(commit);
    for issued in [false, true] {
        let answer = shop.client.move_cards(&void, CardMove::Void, issued).await;
        let Err(Error::Refused { refusal, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(refusal, Refusal::OrderNotFound, "it has no cards yet");
    }
    shop.expire(expire).await;
    assert_eq!(shop.counts().await, [41, 9, 0, 0]);
    assert_eq!(shop.move_all(CardMove::Suspend).await, 41);
    assert_eq!(shop.counts().await, [0, 50, 0, 0]);
    shop = shop.reopened(End::Kill).await;
    let late = shop.ask(OrderStep::commit(expire)).await;
    assert_eq!(refusal_of(&late), Some(Refusal::Expired), "none is free");
    let cards = shop.client.commit(commit).await.expect("promised").cards;
    assert_eq!(cards.len(), 5);
    assert_eq!(shop.counts().await, [0, 45, 5, 0]);
    // What a hold gives back is free, although the SKU was suspended before.
    shop.client.cancel(cancel).await.expect("it is held");
    assert_eq!(shop.counts().await, [4, 41, 5, 0]);
    shop.issue(4).await;
    shop = shop.reopened(End::Stop).await;
    assert_eq!(shop.move_all(CardMove::Resume).await, 41);
    assert_eq!(shop.counts().await, [41, 0, 9, 0]);

    // A recall with an open hold: its cards stay promised.
    let held = shop.reserve(2, LONG).await;
    assert_eq!(shop.move_all(CardMove::Void).await, 39);
    assert_eq!(shop.counts().await, [0, 2, 9, 39]);
    shop.client.commit(held).await.expect("promised");
    assert_eq!(shop.counts().await, [0, 0, 11, 39]);
    let void = CardSelection::Order(held);
    let moved = shop.client.move_cards(&void, CardMove::Void, true).await;
    assert_eq!(moved.expect("it has cards").moved, 2);
    let again = shop.client.commit(held).await.expect("it keeps its answer");
    assert!(again.repeat);
    assert_eq!(shop.counts().await, [0, 0, 9, 41]);
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 9, 41]);
}

/// Many callers take steps of the same orders at once: each order ends one way, and every answer says so.
#[tokio::test]
async fn callers_who_race_for_an_order_agree_on_its_end() {
    let shop = Shop::open(Store::new(), 57, 2_000).await;
    let (one, other) = (shop.server.client().await, shop.server.client().await);
    for _ in 0..20 {
        let ids: Vec<OrderId> = (0..50).map(|_| OrderId::new_v7()).collect();
        let reserves: Vec<_> = ids.iter().map(|id| shop.reserve_of(*id, 2, LONG)).collect();
        shop.client.steps(&reserves).await.expect("answers");
        let commits: Vec<_> = ids.iter().map(|id| OrderStep::commit(*id)).collect();
        let parts: Vec<_> = ids
            .iter()
            .map(|id| OrderStep::commit(*id).quantity(1))
            .collect();
        let cancels: Vec<_> = ids.iter().map(|id| OrderStep::cancel(*id)).collect();
        let (commits, parts, cancels) = tokio::join!(
            one.steps(&commits),
            other.steps(&parts),
            shop.client.steps(&cancels)
        );
        let outcomes = [commits, parts, cancels].map(|outcomes| outcomes.expect("answers"));
        for (nth, id) in ids.iter().enumerate() {
            let stands = shop.look_up(*id).await.expect("it is there");
            let answers = outcomes.each_ref().map(|outcomes| &outcomes[nth]);
            let won: Vec<_> = answers
                .iter()
                .filter(|answer| refusal_of(answer).is_none())
                .collect();
            assert_eq!(won.len(), 1, "{answers:?}");
            assert_eq!(**won[0], stands);
            for answer in answers {
                let told = matches!(
                    (refusal_of(answer), &stands),
                    (None, _)
                        | (Some(Refusal::AlreadyCancelled), OrderOutcome::Cancelled(_))
                        | (
                            Some(Refusal::AlreadyCommitted | Refusal::OrderIdReused),
                            OrderOutcome::Issued(_),
                        )
                );
                assert!(told, "{answer:?} of {stands:?}");
            }
        }
    }
    let stock = shop.counts().await;
    assert_eq!(stock[1], 0);
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), stock);
}
