//! Cards that a caller picks, by place or by label: issued at once, or bound to a hold.

use std::time::Duration;

use croupier_client::{
    CardMove, CardPick, CardRef, CardSelection, CardStatus, Error, HeldOrder, ImportOptions,
    ImportRow, IssuedOrder, Order, OrderId, OrderOutcome, OrderStep, Refusal, SkuId,
};
use croupier_tests::{Mint, Store};

use super::shop::{End, LONG, SHORT, Shop, counts_of, refusal_of, until, verified};

fn at(slot: u32) -> CardRef {
    CardRef {
        slab: 1,
        slot,
        generation: 0,
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> Refusal {
    match answer {
        Err(Error::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    }
}

impl Shop {
    async fn take(&self, id: OrderId, pick: &CardPick) -> Result<IssuedOrder, Error> {
        self.client.issue_card(Order::new(id, self.sku), pick).await
    }

    async fn bind(&self, id: OrderId, card: u32) -> Result<HeldOrder, Error> {
        self.bind_for(id, card, LONG).await
    }

    async fn bind_for(&self, id: OrderId, card: u32, ttl: Duration) -> Result<HeldOrder, Error> {
        let order = Order::new(id, self.sku);
        let pick = CardPick::Card(at(card));
        self.client.reserve_card(order, ttl, &pick).await
    }

    async fn status(&self, slot: u32) -> CardStatus {
        let which = CardSelection::Cards(vec![at(slot)]);
        let listed = self.client.list_cards(&which, None, None).await;
        let (rows, _) = listed.expect("the card is there");
        CardStatus::try_from(rows[0].status).expect("a status")
    }

    async fn move_card(&self, slot: u32, card_move: CardMove) -> Result<u64, Error> {
        let which = CardSelection::Cards(vec![at(slot)]);
        let moved = self.client.move_cards(&which, card_move, false).await;
        moved.map(|moved| moved.moved)
    }
}

fn place_of(order: &IssuedOrder) -> CardRef {
    assert_eq!(order.cards.len(), 1);
    order.cards[0].card
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Free,
    Issued,
    /// Bound to a hold.
    Bound,
    Suspended,
    Void,
}

/// What a pick of a card comes to, issued or bound: docs/orders.md.
const TABLE: [(State, Option<Refusal>); 5] = [
    (State::Free, None),
    (State::Issued, Some(Refusal::CardIssued)),
    (State::Bound, Some(Refusal::CardIssued)),
    (State::Suspended, Some(Refusal::CardNotInState)),
    (State::Void, Some(Refusal::CardNotInState)),
];

#[tokio::test]
async fn every_state_of_a_card_has_an_answer_to_every_pick() {
    let shop = Shop::open(Store::new(), 80, 100).await;
    let mut slots = (0..100).rev();
    for (state, refusal) in TABLE {
        for bound in [false, true] {
            let what = format!("a card that is {state:?}, bound {bound}");
            let slot = slots.next().expect("there are some");
            let card = CardPick::Card(at(slot));
            match state {
                State::Free => {}
                State::Issued => drop(shop.take(OrderId::new_v7(), &card).await.expect(&what)),
                State::Bound => drop(shop.bind(OrderId::new_v7(), slot).await.expect(&what)),
                State::Suspended | State::Void => {
                    let card_move = match state {
                        State::Void => CardMove::Void,
                        _ => CardMove::Suspend,
                    };
                    let moved = shop.move_card(slot, card_move).await;
                    assert_eq!(moved.expect(&what), 1);
                }
            }
            let before = shop.counts().await;
            let id = OrderId::new_v7();
            let mut after = before;
            let answer = match bound {
                false => {
                    after[2] += 1;
                    shop.take(id, &card).await.map(|order| {
                        assert_eq!(
                            (place_of(&order), order.repeat),
                            (at(slot), false),
                            "{what}"
                        );
                    })
                }
                true => {
                    after[1] += 1;
                    shop.bind(id, slot).await.map(|held| {
                        assert_eq!((held.quantity, held.repeat), (1, false), "{what}");
                    })
                }
            };
            after[0] -= 1;
            match refusal {
                None => {
                    answer.expect(&what);
                    assert_eq!(shop.counts().await, after, "{what}");
                }
                Some(refusal) => {
                    assert_eq!(refused(answer), refusal, "{what}");
                    assert_eq!(shop.counts().await, before, "{what}");
                    assert_eq!(shop.look_up(id).await, None, "{what}: it left a trace");
                }
            }
        }
    }
    let stock = shop.counts().await;
    shop.server.stop().ok();
    assert_eq!(counts_of(&verified(&shop.store)), stock);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_changes_nothing() {
    let store = Store::new().with("--hold-ttl-max-ms", 10_000);
    let shop = Shop::open(store, 81, 10).await;
    let (id, sku) = (OrderId::new_v7(), shop.sku);
    let one = Order::new(id, sku);
    let card = |slab, slot, generation| {
        CardPick::Card(CardRef {
            slab,
            slot,
            generation,
        })
    };
    let label = |bytes: usize| CardPick::Label("x".repeat(bytes));
    let cases = [
        (one.quantity(2), card(1, 0, 0), Refusal::PickInvalid),
        (one.quantity(0), card(1, 0, 0), Refusal::PickInvalid),
        (one, label(0), Refusal::PickInvalid),
        (one, label(257), Refusal::PickInvalid),
        (one, label(256), Refusal::OutOfStock),
        (one, card(1, 10, 0), Refusal::UnknownCard),
        (one, card(2, 0, 0), Refusal::UnknownCard),
        (one, card(u32::MAX, u32::MAX, 0), Refusal::UnknownCard),
        (one, card(1, 0, 1), Refusal::UnknownCard),
        (Order::new(id, SkuId(2)), card(1, 0, 0), Refusal::UnknownSku),
        (
            Order::new(OrderId::from_u128(0), sku),
            card(1, 0, 0),
            Refusal::OrderIdZero,
        ),
    ];
    for (order, pick, refusal) in cases {
        let answer = shop.client.issue_card(order, &pick).await;
        assert_eq!(refused(answer), refusal, "{order:?} {pick:?}");
        let answer = shop.client.reserve_card(order, SHORT, &pick).await;
        assert_eq!(refused(answer), refusal, "{order:?} {pick:?}");
    }
    for ttl_ms in [0, 10_001] {
        let ttl = Duration::from_millis(ttl_ms);
        assert_eq!(
            refused(shop.bind_for(id, 0, ttl).await),
            Refusal::TtlInvalid
        );
    }
    let other = {
        let mint = &mut Mint::new(181);
        crate::stock::import(&shop.client, "other", &mint.secrets(1, 20)).await
    };
    let answer = shop
        .client
        .issue_card(Order::new(id, other), &card(1, 0, 0))
        .await;
    assert_eq!(refused(answer), Refusal::UnknownCard, "another SKU's");
    assert_eq!(shop.counts().await, [10, 0, 0, 0]);
    assert_eq!(shop.look_up(id).await, None);

    let usage = |args: &[&str], word: &str| {
        shop.server.croupier(args).fails(2, &[word]);
    };
    usage(
        &["issue", "--sku", "s", "--card", "1:0", "--label", "x"],
        "--label",
    );
    usage(
        &["issue", "--sku", "s", "--card", "1:0", "--quantity", "2"],
        "--quantity",
    );
    usage(
        &["issue", "--sku", "s", "--card", "1:0", "--wait", "1h"],
        "--wait",
    );
    usage(
        &["issue", "--sku", "s", "--label", "x", "--partial"],
        "--partial",
    );
    usage(&["issue", "--sku", "s", "--card", "x"], "slab:slot");
    usage(&["reserve", "--sku", "s", "--card", "1:0"], "--bind now");
    usage(&["reserve", "--sku", "s", "--bind", "now"], "--card");
    usage(&["reserve", "--sku", "s", "--bind", "later"], "later");
    assert_eq!(shop.counts().await, [10, 0, 0, 0]);
}

#[tokio::test]
async fn a_pick_by_label_gets_a_free_card_that_has_it() {
    let mut shop = Shop::open(Store::new(), 82, 5).await;
    let secrets = Mint::new(182).secrets(4, 20);
    let options = ImportOptions {
        sku: "s".into(),
        ..ImportOptions::default()
    };
    let mut import = shop.client.import(options).await.expect("an import");
    for ((line, secret), label) in (1..).zip(&secrets).zip(["VIP-1", "pair", "pair", "贵宾"]) {
        let row = ImportRow {
            label: label.as_bytes(),
            ..ImportRow::new(line, secret)
        };
        import.push(row).await.expect("a row");
    }
    import.finish().await.expect("it is sellable");
    let label = |text: &str| CardPick::Label(text.into());
    let vip = OrderId::new_v7();
    let first = shop.take(vip, &label("VIP-1")).await.expect("it is free");
    assert_eq!(first.cards[0].secret.as_bytes(), secrets[0]);
    let json = ["--label", "贵宾", "--json"];
    let args = [["issue", "--sku", "s"], json].concat();
    let dealt = shop.server.croupier(&args).ok().json();
    let secret = String::from_utf8(secrets[3].clone()).expect("text");
    assert_eq!(dealt["cards"][0]["secret"], secret);
    let pair = [OrderId::new_v7(), OrderId::new_v7()];
    let (one, other) = (
        shop.take(pair[0], &label("pair"))
            .await
            .expect("it is free"),
        shop.take(pair[1], &label("pair")).await.expect("the other"),
    );
    assert_ne!(place_of(&one), place_of(&other));
    for gone in ["pair", "VIP-1", "贵宾", "VIP-", "nobody"] {
        let answer = shop.take(OrderId::new_v7(), &label(gone)).await;
        assert_eq!(refused(answer), Refusal::OutOfStock, "{gone}");
    }
    for end in [End::Kill, End::Stop] {
        let again = shop.take(vip, &label("VIP-1")).await.expect("a repeat");
        assert_eq!((again.repeat, &again.cards), (true, &first.cards));
        let by_place = CardPick::Card(place_of(&first));
        assert!(shop.take(vip, &by_place).await.expect("the same").repeat);
        let answer = shop.take(vip, &label("pair")).await;
        assert_eq!(refused(answer), Refusal::OrderIdReused, "{end:?}");
        shop = shop.reopened(end).await;
    }
}

#[tokio::test]
async fn repeats_of_a_pick_are_told_the_same_over_kills_and_stops() {
    let mut shop = Shop::open(Store::new(), 83, 40).await;
    let (issued, held) = (OrderId::new_v7(), OrderId::new_v7());
    let card = CardPick::Card(at(30));
    let first = shop.take(issued, &card).await.expect("it is free");
    let hold = shop.bind(held, 31).await.expect("it is free");
    let plain = shop.issue(1).await;
    let waits = shop.reserve(1, LONG).await;
    for end in [End::Kill, End::Stop, End::Kill] {
        let again = shop.take(issued, &card).await.expect("a repeat");
        assert_eq!(
            (again.lsn, &again.cards, again.repeat),
            (first.lsn, &first.cards, true)
        );
        let again = shop.bind(held, 31).await.expect("a repeat");
        assert_eq!(
            (again.lsn, again.hold, again.repeat),
            (hold.lsn, hold.hold, true)
        );
        // Other orders under these ids.
        for id in [issued, held, plain, waits] {
            let other = CardPick::Card(at(35));
            assert_eq!(refused(shop.take(id, &other).await), Refusal::OrderIdReused);
            assert_eq!(refused(shop.bind(id, 35).await), Refusal::OrderIdReused);
        }
        let longer = shop.bind_for(held, 31, LONG * 2).await;
        assert_eq!(refused(longer), Refusal::OrderIdReused);
        assert_eq!(shop.counts().await, [36, 2, 2, 0]);
        shop = shop
            .reopened_after(end, |store| {
                assert_eq!(counts_of(&verified(store)), [36, 2, 2, 0]);
            })
            .await;
    }
}

#[tokio::test]
async fn a_bound_card_is_committed_given_back_or_extended_over_kills_and_folds() {
    let mut shop = Shop::open(Store::new(), 84, 30).await;
    let [commit, cancel, late, stays] = [(); 4].map(|()| OrderId::new_v7());
    for (id, slot) in [(commit, 20), (cancel, 21), (stays, 23)] {
        shop.bind(id, slot).await.expect("it is free");
    }
    for end in [End::Stop, End::Kill] {
        assert_eq!(shop.counts().await, [27, 3, 0, 0]);
        // What is bound is nobody else's, however many are asked for.
        let answer = shop.ask(shop.issue_of(OrderId::new_v7(), 28)).await;
        assert_eq!(refusal_of(&answer), Some(Refusal::OutOfStock));
        shop = shop.reopened(end).await;
    }
    let extended = shop.client.extend(stays, 1, LONG * 2).await;
    assert_eq!(extended.expect("it is held").quantity, 1);
    let committed = shop.client.commit(commit).await.expect("it is held");
    assert_eq!(place_of(&committed), at(20));
    shop.client.cancel(cancel).await.expect("it is held");
    assert_eq!(shop.counts().await, [28, 1, 1, 0]);
    let again = CardPick::Card(at(21));
    shop.take(OrderId::new_v7(), &again)
        .await
        .expect("free again");
    // One ends by itself, and is for others then; its order may still get another card.
    shop.bind_for(late, 22, SHORT).await.expect("it is free");
    shop.expire(late).await;
    assert_eq!(shop.counts().await, [27, 1, 2, 0]);
    shop.take(OrderId::new_v7(), &CardPick::Card(at(22)))
        .await
        .expect("free again");
    let other = shop.client.commit(late).await.expect("there are others");
    assert_ne!(place_of(&other), at(22));
    // All others are issued: the bound one is still there for its order.
    shop.issue(25).await;
    assert_eq!(shop.counts().await, [0, 1, 29, 0]);
    shop = shop.reopened(End::Stop).await;
    let last = shop.client.commit_only_held(stays, 0).await;
    assert_eq!(place_of(&last.expect("it is held")), at(23));
    assert_eq!(shop.counts().await, [0, 0, 30, 0]);
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 30, 0]);
}

#[tokio::test]
async fn bound_holds_that_a_kill_has_left_open_expire_after_the_start() {
    let mut shop = Shop::open(Store::new(), 85, 10).await;
    for end in [End::Kill, End::Stop] {
        let id = OrderId::new_v7();
        let ttl = Duration::from_millis(200);
        shop.bind_for(id, 5, ttl).await.expect("it is free");
        shop = shop.reopened(end).await;
        shop.expire(id).await;
        assert_eq!(shop.counts().await, [10, 0, 0, 0]);
        assert_eq!(shop.status(5).await, CardStatus::Free, "{end:?}");
    }
    // A card that comes back behind dealers is found by them.
    shop.bind_for(OrderId::new_v7(), 0, SHORT)
        .await
        .expect("it is free");
    until("it is back", async || shop.counts().await[0] == 10).await;
    shop.issue(10).await;
    assert_eq!(shop.counts().await, [0, 0, 10, 0]);
}

#[tokio::test]
async fn of_those_who_pick_one_card_exactly_one_gets_it_beside_dealers() {
    let shop = Shop::open(Store::new(), 86, 1_000).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(shop.server.client().await);
    }
    let mut picked = 0;
    for slot in (700..1_000).step_by(3) {
        let pick = CardPick::Card(at(slot));
        let order = || Order::new(OrderId::new_v7(), shop.sku);
        let plain = shop.issue_of(OrderId::new_v7(), 2);
        let (a, b, c, d, plain) = tokio::join!(
            clients[0].issue_card(order(), &pick),
            clients[1].issue_card(order(), &pick),
            clients[2].reserve_card(order(), LONG, &pick),
            clients[3].reserve_card(order(), LONG, &pick),
            shop.ask(plain),
        );
        assert!(plain.issued().is_some(), "{plain:?}");
        let answers = [a.map(drop), b.map(drop), c.map(drop), d.map(drop)];
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(won, 1, "{answers:?}");
        for lost in answers.into_iter().filter(Result::is_err) {
            assert_eq!(refused(lost), Refusal::CardIssued);
        }
        picked += 1;
    }
    // Of one order that is asked for at once there is one answer, and its repeats.
    let order = Order::new(OrderId::new_v7(), shop.sku);
    let pick = CardPick::Card(at(999));
    let asks = clients.iter().map(|client| client.issue_card(order, &pick));
    let mut first = 0;
    for answer in futures(asks).await {
        let issued = answer.expect("it is free, or theirs");
        assert_eq!(place_of(&issued), at(999));
        first += u32::from(!issued.repeat);
    }
    assert_eq!(first, 1);
    let [free, held, issued, _] = shop.counts().await;
    assert_eq!(
        (free + held + issued, held + issued),
        (1_000, picked * 3 + 1)
    );
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store))[0], free);
}

/// All of them, side by side.
async fn futures<T: Send>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (asked, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(answer) = asked.as_mut().poll(context)
            {
                *done = Some(answer);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn moves_leave_a_bound_card_and_promises_come_before_picks() {
    let shop = Shop::open(Store::new(), 87, 10).await;
    let held = OrderId::new_v7();
    shop.bind(held, 4).await.expect("it is free");
    for card_move in [CardMove::Suspend, CardMove::Resume, CardMove::Void] {
        let answer = shop.move_card(4, card_move).await;
        assert_eq!(refused(answer), Refusal::CardIssued, "{card_move:?}");
    }
    let which = CardSelection::Order(held);
    let answer = shop.client.move_cards(&which, CardMove::Void, true).await;
    assert_eq!(refused(answer), Refusal::OrderNotFound, "it has none yet");
    assert_eq!(shop.move_all(CardMove::Suspend).await, 9);
    assert_eq!(shop.counts().await, [0, 10, 0, 0]);
    assert_eq!(shop.move_all(CardMove::Resume).await, 9);
    let all = CardSelection::Sku("s".into());
    shop.issue(1).await;
    let moved = shop.client.move_cards(&all, CardMove::Void, true).await;
    assert_eq!(moved.expect("a SKU").moved, 9, "all but the bound one");
    let committed = shop.client.commit(held).await.expect("promised");
    assert_eq!(place_of(&committed), at(4));
    assert_eq!(shop.counts().await, [0, 0, 1, 9]);

    // All free cards are promised: a pick gets none of them, although it is free.
    let shop = Shop::open(Store::new(), 88, 3).await;
    let holds = shop.reserve(3, LONG).await;
    let pick = CardPick::Card(at(1));
    let id = OrderId::new_v7();
    assert_eq!(refused(shop.take(id, &pick).await), Refusal::OutOfStock);
    shop.client.cancel(holds).await.expect("it is held");
    shop.take(id, &pick).await.expect("it is not promised now");
}

#[tokio::test]
async fn an_order_that_waits_gets_the_card_that_a_bound_hold_gives_back() {
    let shop = Shop::open(Store::new(), 89, 1).await;
    let held = OrderId::new_v7();
    shop.bind(held, 0).await.expect("it is free");
    let waits = Order::new(OrderId::new_v7(), shop.sku);
    let told = shop.client.issue_or_wait(waits, LONG).await;
    assert!(matches!(told, Ok(OrderOutcome::Waiting(_))), "{told:?}");
    shop.client.cancel(held).await.expect("it is held");
    let filled = shop.client.issue_waiting(waits, LONG).await;
    assert_eq!(place_of(&filled.expect("there is a card")), at(0));
}

#[tokio::test]
async fn picks_on_the_command_line_and_in_the_log() {
    let shop = Shop::open(Store::new(), 90, 9).await;
    let id = OrderId::new_v7().to_string();
    let args = [
        "reserve", "--sku", "s", "--order", &id, "--card", "1:7", "--bind", "now", "--json",
    ];
    let held = shop.server.croupier(&args).ok().json();
    assert_eq!(
        (&held["state"], &held["quantity"]),
        (&"held".into(), &1.into())
    );
    assert_eq!(shop.server.croupier(&args).ok().json()["repeat"], true);
    let committed = shop.server.croupier(&["commit", &id, "--json"]).ok().json();
    assert_eq!(committed["cards"][0]["card"], "1:7.0");
    let issued = ["issue", "--sku", "s", "--card", "1:8.0", "--json"];
    let issued = shop.server.croupier(&issued).ok().json();
    assert_eq!(issued["cards"][0]["card"], "1:8.0");
    shop.server
        .croupier(&["issue", "--sku", "s", "--card", "1:8"])
        .fails(1, &["1:8.0"]);
    let fed = shop.server.croupier(&["feed", "--json"]).ok().stdout;
    let told = fed.lines().find(|line| line.contains("\"reserved\""));
    assert!(
        told.is_some_and(|line| line.contains("\"slot\":7")),
        "{told:?}"
    );
    let step = OrderStep::cancel(id.parse().expect("an id"));
    assert_eq!(
        refusal_of(&shop.ask(step).await),
        Some(Refusal::AlreadyCommitted)
    );
    shop.server.kill();
    let records = shop.store.records();
    let reserved = records.iter().find(|record| record["kind"] == "Reserved");
    let card = &reserved.expect("it was reserved")["card"];
    assert_eq!((&card["slab"], &card["slot"]), (&1.into(), &7.into()));
}
