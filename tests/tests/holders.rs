//! Holders: how many cards and holds each may have, over restarts and folds; and whose orders are whose. docs/orders.md.

use std::time::Duration;

use croupier_client::{
    CardPick, Client, Error, Holder, HolderCap, Order, OrderId, OrderOutcome, OrderStep, Refusal,
    SkuId, SkuSettings, Wait, holder_of,
};
use croupier_protocol::{
    FaultCode, Kind, Pick, STEP_FLAG_HOLDER, Step, StepItem, Trailing, encode_control,
};
use croupier_tests::{Mint, Server, Store, Wire, frame, item};

use crate::moves::refusal_of;
use crate::stock::{import, import_batch};

const LONG: Duration = Duration::from_secs(3600);
const HOUR_MS: u64 = 3_600_000;
const ANNA: Holder = Holder::from_u128(7);
const BERTA: Holder = Holder::from_u128(8);

/// A served store with a SKU of many cards, `s`.
struct Shop {
    store: Store,
    server: Server,
    client: Client,
    sku: SkuId,
}

impl Shop {
    async fn open(mint: u16, store: Store) -> Shop {
        let server = store.serve();
        let client = server.client().await;
        let secrets = Mint::new(mint).secrets(200, 20);
        let sku = import(&client, "s", &secrets).await;
        Shop {
            store,
            server,
            client,
            sku,
        }
    }

    /// At most so many cards for a holder in an hour.
    async fn cap(&self, cards_max: u32) {
        self.set_cap(Some(cards_max), Some(HOUR_MS)).await;
    }

    async fn set_cap(&self, cards_max: Option<u32>, window_ms: Option<u64>) {
        let settings = SkuSettings {
            holder_cap: HolderCap {
                cards_max,
                window_ms,
            },
            ..SkuSettings::default()
        };
        let set = self.client.sku_set("s", &settings).await;
        set.expect("it is set");
    }

    fn order(&self, holder: Holder, quantity: u16) -> Order {
        Order::new(OrderId::new_v7(), self.sku)
            .quantity(quantity)
            .holder(holder)
    }

    async fn issue(&self, holder: Holder, quantity: u16) -> Result<Order, Refusal> {
        let order = self.order(holder, quantity);
        self.take(OrderStep::issue(order)).await.map(|_| order)
    }

    async fn reserve(&self, holder: Holder, quantity: u16) -> Result<Order, Refusal> {
        let order = self.order(holder, quantity);
        let step = OrderStep::reserve(order, LONG);
        self.take(step).await.map(|_| order)
    }

    async fn take(&self, step: OrderStep) -> Result<OrderOutcome, Refusal> {
        let answered = self.client.steps(&[step]).await;
        match answered.expect("the server answers").remove(0) {
            OrderOutcome::Refused { refusal, .. } => Err(refusal),
            outcome => Ok(outcome),
        }
    }

    async fn killed(self) -> Shop {
        self.server.kill();
        Shop::again(self.store, self.sku).await
    }

    /// Stopped in good order: all of its log is folded.
    async fn stopped(self) -> Shop {
        self.server.stop().ok();
        self.store.wal("verify", &[]).ok();
        Shop::again(self.store, self.sku).await
    }

    async fn again(store: Store, sku: SkuId) -> Shop {
        let server = store.serve();
        let client = server.client().await;
        Shop {
            store,
            server,
            client,
            sku,
        }
    }
}

const CARDS: Result<Order, Refusal> = Err(Refusal::HolderCardsReached);
const HOLDS: Result<Order, Refusal> = Err(Refusal::HolderHoldsReached);

#[tokio::test]
async fn a_holder_gets_so_many_cards_and_no_more_whatever_happens_to_the_server() {
    let mut shop = Shop::open(90, Store::new().with("--cores", 2)).await;
    // What was dealt before the cap counts.
    shop.issue(ANNA, 2).await.expect("there is no cap");
    shop.cap(10).await;
    shop.issue(ANNA, 1).await.expect("three of ten");
    let held = shop.reserve(ANNA, 3).await.expect("six of ten");
    let parted = shop.reserve(ANNA, 4).await.expect("ten of ten");
    for round in 0..3 {
        assert_eq!(shop.issue(ANNA, 1).await, CARDS, "round {round}");
        assert_eq!(shop.reserve(ANNA, 1).await, CARDS, "round {round}");
        shop = match round {
            0 => shop.killed().await,
            1 => shop.stopped().await,
            _ => shop,
        };
    }
    let client = &shop.client;
    // Others are not concerned, nor is who names nobody.
    shop.issue(BERTA, 10).await.expect("another holder");
    assert_eq!(shop.issue(BERTA, 1).await, CARDS);
    let nobody = Order::new(OrderId::new_v7(), shop.sku).quantity(20);
    client.issue(nobody).await.expect("nobody has a cap");
    // A hold that ends gives back, a commit does not; a part gives back the rest.
    client.cancel(held.order_id).await.expect("it is held");
    shop.issue(ANNA, 3).await.expect("three are free again");
    let committed = client.commit_part(parted.order_id, 1).await;
    committed.expect("it is held");
    assert_eq!(shop.issue(ANNA, 4).await, CARDS);
    shop.issue(ANNA, 3).await.expect("three more");
    for round in 0..3 {
        assert_eq!(shop.issue(ANNA, 1).await, CARDS, "round {round}");
        shop = match round {
            0 => shop.stopped().await,
            1 => shop.killed().await,
            _ => shop,
        };
    }
    // More may be had; less takes nothing back; 0 is no cap.
    shop.cap(12).await;
    shop.issue(ANNA, 2).await.expect("twelve");
    shop.cap(1).await;
    assert_eq!(shop.issue(ANNA, 1).await, CARDS);
    shop.set_cap(Some(0), None).await;
    shop.issue(ANNA, 30).await.expect("there is no cap");
    shop.server.stop().ok();
    shop.store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn windows_slide_and_no_window_has_more_than_the_cap() {
    const CAP: usize = 3;
    const WINDOW_MS: u64 = 1000;
    let shop = Shop::open(91, Store::new().with("--cores", 2)).await;
    shop.set_cap(Some(CAP as u32), Some(WINDOW_MS)).await;
    let mut got = 0;
    let mut refused = 0;
    while got < 4 * CAP {
        match shop.client.issue(shop.order(ANNA, 1)).await {
            Ok(_) => got += 1,
            Err(Error::Refused {
                refusal: Refusal::HolderCardsReached,
                retry_after_ms,
                ..
            }) => {
                refused += 1;
                assert!((1..=WINDOW_MS as u32).contains(&retry_after_ms));
                tokio::time::sleep(Duration::from_millis(retry_after_ms.into())).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
    shop.server.kill();
    let times: Vec<u64> = shop
        .store
        .records()
        .iter()
        .filter(|record| record["kind"] == "Issued")
        .map(|record| {
            assert_eq!(record["holder"], "00000000-0000-0000-0000-000000000007");
            unix_ms_of(record["at"].as_str().expect("a time"))
        })
        .collect();
    assert_eq!(times.len(), 4 * CAP);
    for four in times.windows(CAP + 1) {
        assert!(four[CAP] - four[0] >= WINDOW_MS, "{four:?}");
    }
}

/// Milliseconds of a day, of a time like 2026-11-22T04:14:01.315Z: enough to compare times of one test.
fn unix_ms_of(at: &str) -> u64 {
    let (day, time) = at.split_once('T').expect("a time");
    let day: u64 = day
        .rsplit('-')
        .next()
        .expect("a day")
        .parse()
        .expect("a number");
    let parts = time.trim_end_matches('Z').split([':', '.']);
    let parts: Vec<u64> = parts.map(|part| part.parse().expect("a number")).collect();
    let [hours, minutes, seconds, ms] = parts[..] else {
        panic!("{at}");
    };
    (((day * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + ms
}

#[tokio::test]
async fn a_holder_has_so_many_open_holds_and_waiting_orders() {
    let mut shop = Shop::open(92, Store::new().with("--holder-holds-max", 2)).await;
    let first = shop.reserve(ANNA, 1).await.expect("one of two");
    let second = shop.reserve(ANNA, 1).await.expect("two of two");
    assert_eq!(shop.reserve(ANNA, 1).await, HOLDS);
    shop = shop.killed().await;
    assert_eq!(shop.reserve(ANNA, 1).await, HOLDS);
    shop.issue(ANNA, 1).await.expect("an issue is no hold");
    shop.reserve(BERTA, 1).await.expect("another holder");
    shop.client
        .cancel(first.order_id)
        .await
        .expect("it is held");
    let third = shop.reserve(ANNA, 190).await.expect("two again");
    shop = shop.stopped().await;
    assert_eq!(shop.reserve(ANNA, 1).await, HOLDS);
    shop.client
        .commit(second.order_id)
        .await
        .expect("it is held");
    // Of those who wait: 6 cards are free.
    let waits = |quantity| {
        let step = OrderStep::issue(shop.order(ANNA, quantity));
        step.wait(Wait::Told, LONG)
    };
    let waiting = shop.take(waits(9)).await;
    assert!(
        matches!(waiting, Ok(OrderOutcome::Waiting(_))),
        "{waiting:?}"
    );
    assert_eq!(
        shop.take(waits(9)).await,
        Err(Refusal::HolderHoldsReached),
        "one that waits counts"
    );
    shop.take(waits(1)).await.expect("there is stock for it");
    shop.client
        .cancel(third.order_id)
        .await
        .expect("it is held");
    // What was cancelled fills the one that waits: neither is open any more.
    let filled = async || {
        let known = shop.client.orders_of(ANNA, 0, 0).await;
        let (rows, _) = known.expect("they are listed");
        rows.iter().all(|row| row.state == 1 || row.state == 4)
    };
    while !filled().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shop.reserve(ANNA, 1).await.expect("none is open");
    shop.server.stop().ok();
}

#[tokio::test]
async fn what_waits_counts_and_is_filled_whatever_the_cap_is_then() {
    let shop = Shop::open(93, Store::new()).await;
    shop.cap(5).await;
    let all = Order::new(OrderId::new_v7(), shop.sku).quantity(200);
    let issued = shop.client.issue(all).await;
    issued.expect("all there are");
    let wait = |order| OrderStep::issue(order).wait(Wait::Told, LONG);
    let order = shop.order(ANNA, 3);
    let waiting = shop.take(wait(order)).await;
    assert!(
        matches!(waiting, Ok(OrderOutcome::Waiting(_))),
        "{waiting:?}"
    );
    // Refused for the cap, not told to wait.
    assert_eq!(
        shop.take(wait(shop.order(ANNA, 3))).await,
        Err(Refusal::HolderCardsReached)
    );
    let hold = shop.order(ANNA, 2);
    let step = OrderStep::reserve(hold, LONG).wait(Wait::Told, LONG);
    shop.take(step).await.expect("it waits, too");
    let shop = shop.killed().await;
    shop.cap(1).await;
    let more = Mint::new(94).secrets(20, 20);
    import_batch(&shop.client, "s", "more", &more).await;
    let got = shop.client.issue_waiting(order, LONG).await;
    assert_eq!(got.expect("it is filled").cards.len(), 3);
    let held = shop.client.reserve_waiting(hold, LONG, LONG).await;
    assert_eq!(held.expect("it is filled").quantity, 2);
    assert_eq!(shop.issue(ANNA, 1).await, CARDS);
    shop.client.commit(hold.order_id).await.expect("it is held");
    let shop = shop.stopped().await;
    shop.cap(6).await;
    assert_eq!(shop.issue(ANNA, 2).await, CARDS, "five of six");
    shop.issue(ANNA, 1).await.expect("six of six");
}

#[tokio::test]
async fn a_late_commit_counts_as_an_issue() {
    let shop = Shop::open(95, Store::new()).await;
    shop.cap(3).await;
    let order = shop.order(ANNA, 2);
    let short = Duration::from_millis(1);
    shop.take(OrderStep::reserve(order, short))
        .await
        .expect("it holds");
    let expired = async || {
        let known = shop.client.order(order.order_id).await;
        matches!(known, Ok(Some(OrderOutcome::Expired(_))))
    };
    while !expired().await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let other = shop
        .issue(ANNA, 2)
        .await
        .expect("what expired counts no longer");
    let late = shop.client.commit(order.order_id).await;
    assert_eq!(refusal_of(late), Refusal::HolderCardsReached);
    let shop = shop.killed().await;
    let late = shop.client.commit(order.order_id).await;
    assert_eq!(refusal_of(late), Refusal::HolderCardsReached);
    let late = shop.client.commit_part(order.order_id, 1).await;
    assert_eq!(late.expect("a part may be had").cards.len(), 1);
    assert_eq!(shop.issue(ANNA, 1).await, CARDS);
    let shop = shop.stopped().await;
    assert_eq!(shop.issue(ANNA, 1).await, CARDS);
    let again = shop.client.issue(other).await.expect("a repeat");
    assert!(again.repeat);
}

#[tokio::test]
async fn partial_orders_get_what_the_cap_leaves() {
    let shop = Shop::open(96, Store::new()).await;
    shop.cap(5).await;
    let order = shop.order(ANNA, 8);
    let issued = shop.client.issue_part(order).await.expect("a part");
    assert_eq!(issued.cards.len(), 5);
    let again = shop.client.issue(order).await.expect("the same again");
    assert!(again.repeat && again.cards.len() == 5);
    let none = shop.client.issue_part(shop.order(ANNA, 8)).await;
    assert_eq!(refusal_of(none), Refusal::HolderCardsReached);
    let held = shop.client.reserve_part(shop.order(BERTA, 9), LONG).await;
    let held = held.expect("a part");
    assert_eq!(held.quantity, 5);
    let committed = shop.client.commit(held.order_id).await;
    assert_eq!(committed.expect("it is held").cards.len(), 5);
    let none = shop.client.reserve_part(shop.order(BERTA, 1), LONG).await;
    assert_eq!(refusal_of(none), Refusal::HolderCardsReached);
}

#[tokio::test]
async fn chains_are_within_the_caps_of_their_holders_or_leave_nothing() {
    let shop = Shop::open(97, Store::new().with("--holder-holds-max", 2)).await;
    shop.cap(4).await;
    let orders = |quantities: [u16; 2], holders: [Holder; 2]| {
        let both = quantities.into_iter().zip(holders);
        let both = both.map(|(quantity, holder)| shop.order(holder, quantity));
        both.collect::<Vec<_>>()
    };
    let too_many = orders([2, 3], [ANNA, ANNA]);
    let none = shop.client.issue_linked(&too_many).await;
    match none {
        Err(Error::Refused {
            refusal: Refusal::HolderCardsReached,
            order_id,
            ..
        }) => assert_eq!(order_id, Some(too_many[1].order_id)),
        other => panic!("{other:?}"),
    }
    let two = orders([4, 4], [ANNA, BERTA]);
    let issued = shop.client.issue_linked(&two).await;
    issued.expect("nothing was left of the other");
    let again = shop.client.issue_linked(&two).await.expect("a repeat");
    assert!(again.iter().all(|order| order.repeat));
    let (carla, dora) = (Holder::from_u128(9), Holder::from_u128(10));
    let three = [1, 1, 1].map(|quantity| shop.order(carla, quantity));
    let held = shop.client.reserve_linked(&three, LONG).await;
    assert_eq!(refusal_of(held), Refusal::HolderHoldsReached);
    let held = shop.client.reserve_linked(&three[..2], LONG).await;
    held.expect("two of two");
    // Without stock nothing is taken from the caps either.
    let empty = shop.client.sku_create("empty").await.expect("a SKU");
    let with_empty = [
        shop.order(dora, 4),
        Order {
            sku: empty,
            ..shop.order(dora, 1)
        },
    ];
    let none = shop.client.issue_linked(&with_empty).await;
    assert_eq!(refusal_of(none), Refusal::OutOfStock);
    shop.issue(dora, 4).await.expect("four of four");
}

#[tokio::test]
async fn picks_are_within_the_caps_of_their_holders() {
    let shop = Shop::open(98, Store::new().with("--holder-holds-max", 1)).await;
    shop.cap(2).await;
    let card = |slot| {
        CardPick::Card(croupier_client::CardRef {
            slab: 1,
            slot,
            generation: 0,
        })
    };
    let order = shop.order(ANNA, 1);
    shop.client
        .issue_card(order, &card(7))
        .await
        .expect("it is free");
    let again = shop.client.issue_card(order, &card(7)).await;
    assert!(again.expect("a repeat").repeat);
    let other = shop.client.issue_card(order.holder(BERTA), &card(7)).await;
    assert_eq!(refusal_of(other), Refusal::OrderIdReused);
    // What fails gives back.
    let taken = shop.client.issue_card(shop.order(ANNA, 1), &card(7)).await;
    assert_eq!(refusal_of(taken), Refusal::CardIssued);
    let bound = shop.order(ANNA, 1);
    let held = shop.client.reserve_card(bound, LONG, &card(8)).await;
    held.expect("two of two");
    let more = shop.client.issue_card(shop.order(ANNA, 1), &card(9)).await;
    assert_eq!(refusal_of(more), Refusal::HolderCardsReached);
    let shop = shop.killed().await;
    shop.cap(3).await;
    let more = shop
        .client
        .reserve_card(shop.order(ANNA, 1), LONG, &card(9))
        .await;
    assert_eq!(refusal_of(more), Refusal::HolderHoldsReached);
    shop.client
        .commit(bound.order_id)
        .await
        .expect("it is held");
    let more = shop
        .client
        .reserve_card(shop.order(ANNA, 1), LONG, &card(9))
        .await;
    more.expect("three of three");
    assert_eq!(shop.issue(ANNA, 1).await, CARDS);
}

#[tokio::test]
async fn the_holder_is_a_part_of_what_is_ordered() {
    let mut shop = Shop::open(99, Store::new()).await;
    let reused = Err(Refusal::OrderIdReused);
    let issued = shop.issue(ANNA, 1).await.expect("a card");
    let held = shop.reserve(ANNA, 1).await.expect("a hold");
    let done = shop.reserve(ANNA, 1).await.expect("a hold");
    shop.client.commit(done.order_id).await.expect("it is held");
    let gone = shop.reserve(ANNA, 1).await.expect("a hold");
    shop.client.cancel(gone.order_id).await.expect("it is held");
    let nobodys = Order::new(OrderId::new_v7(), shop.sku);
    shop.client.issue(nobodys).await.expect("a card");
    for round in 0..3 {
        let reserve = |order| OrderStep::reserve(order, LONG);
        let rows = [
            (OrderStep::issue(issued), None),
            (reserve(held), None),
            (reserve(done), Some(Refusal::AlreadyCommitted)),
            (reserve(gone), Some(Refusal::AlreadyCancelled)),
        ];
        for (step, refused) in rows {
            let own = shop.take(step).await.err();
            assert_eq!(own, refused, "round {round}: {step:?}");
            for other in [Some(BERTA), None] {
                let order = Order {
                    holder: other,
                    ..step.order
                };
                let step = OrderStep { order, ..step };
                assert_eq!(shop.take(step).await.map(drop), reused, "{round}: {step:?}");
            }
        }
        let named = OrderStep::issue(nobodys.holder(ANNA));
        assert_eq!(shop.take(named).await.map(drop), reused);
        shop.take(OrderStep::issue(nobodys))
            .await
            .expect("a repeat");
        shop = match round {
            0 => shop.killed().await,
            1 => shop.stopped().await,
            _ => shop,
        };
    }
    // Steps that follow name nobody.
    shop.client.commit(held.order_id).await.expect("it is held");
}

#[tokio::test]
async fn the_orders_of_a_holder_are_listed_page_by_page() {
    let mut shop = Shop::open(100, Store::new().with("--cores", 2)).await;
    let mut mine = Vec::new();
    for nth in 0..25 {
        let order = match nth % 5 {
            0 => shop.reserve(ANNA, 2).await,
            _ => shop.issue(ANNA, 1).await,
        };
        mine.push(order.expect("there is stock").order_id);
        shop.issue(BERTA, 1).await.expect("there is stock");
    }
    shop.client.cancel(mine[0]).await.expect("it is held");
    shop.client.commit(mine[5]).await.expect("it is held");
    // Both have newer records now.
    let mut expect: Vec<OrderId> = mine.clone();
    expect.retain(|id| ![mine[0], mine[5]].contains(id));
    expect.extend([mine[0], mine[5]]);
    for round in 0..3 {
        let mut listed = Vec::new();
        let mut after = 0;
        loop {
            let page = shop.client.orders_of(ANNA, after, 4).await;
            let (rows, next) = page.expect("they are listed");
            assert!(rows.len() <= 4 && rows.is_sorted_by_key(|row| row.lsn));
            listed.extend(rows);
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        let ids = listed.iter().map(|row| OrderId::from_bytes(row.order));
        assert_eq!(ids.collect::<Vec<_>>(), expect, "round {round}");
        for row in &listed {
            let id = OrderId::from_bytes(row.order);
            let known = shop.client.order(id).await.expect("it is answered");
            let (state, lsn, quantity) = match known.expect("it is there") {
                OrderOutcome::Issued(order) => (1, order.lsn, order.cards.len()),
                OrderOutcome::Held(order) => (3, order.lsn, order.quantity.into()),
                OrderOutcome::Cancelled(order) => (4, order.lsn, order.quantity.into()),
                other => panic!("{other:?}"),
            };
            let told = (row.state, row.lsn, usize::from(row.quantity), row.sku);
            assert_eq!(told, (state, lsn.0, quantity, shop.sku.0));
        }
        let nobody = shop.client.orders_of(Holder::from_u128(99), 0, 0).await;
        assert_eq!(nobody.expect("it is answered"), (Vec::new(), None));
        shop = match round {
            0 => shop.killed().await,
            1 => shop.stopped().await,
            _ => shop,
        };
    }
    let zero = shop.client.orders_of(Holder::NONE, 0, 0).await;
    assert_eq!(refusal_of(zero), Refusal::HolderInvalid);
}

#[tokio::test]
async fn the_command_line_names_holders_by_texts() {
    let shop = Shop::open(101, Store::new()).await;
    let run = |args: &[&str]| shop.server.croupier(args);
    let set = run(&[
        "sku",
        "set",
        "s",
        "--holder-cards-max",
        "3",
        "--holder-window",
        "24h",
        "--json",
    ]);
    let set = set.ok().json();
    assert_eq!(set["holder_cards_max"], 3);
    assert_eq!(set["holder_window_ms"], 86_400_000);
    let issued = run(&["issue", "--sku", "s", "--holder", "customer 4711", "--json"]);
    let issued = issued.ok().json();
    let key = holder_of("customer 4711").expect("a text").to_string();
    let held = run(&[
        "reserve",
        "--sku",
        "s",
        "--holder",
        &key,
        "--quantity",
        "2",
        "--json",
    ]);
    held.ok();
    for more in [
        &["issue", "--sku", "s", "--holder", "customer 4711"][..],
        &[
            "issue",
            "--linked",
            "s:1",
            "s:1",
            "--holder",
            "customer 4711",
        ],
        &[
            "issue",
            "--sku",
            "s",
            "--card",
            "1:99",
            "--holder",
            "customer 4711",
        ],
    ] {
        run(more).fails(1, &["as many cards"]);
    }
    let listed = run(&["orders", "--holder", "customer 4711", "--json"])
        .ok()
        .json();
    assert_eq!(listed[0]["order_id"], issued["order_id"]);
    assert_eq!(
        (
            &listed[0]["state"],
            &listed[1]["state"],
            &listed[1]["quantity"]
        ),
        (&"issued".into(), &"held".into(), &2.into())
    );
    let one = run(&["orders", "--holder", &key, "--limit", "1"]).ok();
    assert_eq!(one.stdout.lines().count(), 1);
    run(&["issue", "--sku", "s", "--holder", ""]).fails(2, &["1 to 256 bytes"]);
    let zero = "00000000-0000-0000-0000-000000000000";
    run(&["issue", "--sku", "s", "--holder", zero]).fails(2, &["not zero"]);
    run(&["sku", "set", "s", "--holder-window", "11000000000s"]).fails(2, &["ten years"]);
    shop.server.kill();
    let dump = shop.store.wal("dump", &[]).ok().stdout;
    assert!(dump.contains(&key) && !dump.contains("4711"), "{dump}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let shop = Shop::open(102, Store::new()).await;
    let cap = |cards_max, window_ms| SkuSettings {
        holder_cap: HolderCap {
            cards_max,
            window_ms,
        },
        ..SkuSettings::default()
    };
    for bad in [
        cap(Some(3), None),
        cap(Some(3), Some(0)),
        cap(Some(10_000_001), Some(1)),
        cap(None, Some(1 << 40)),
    ] {
        let set = shop.client.sku_set("s", &bad).await;
        assert_eq!(refusal_of(set), Refusal::SettingInvalid, "{bad:?}");
    }
    let settings = shop.client.sku_settings("s").await.expect("it is told");
    assert_eq!((settings.lsn, settings.holder.0), (0, None));

    let (mut wire, _) = Wire::greeted(shop.server.addr());
    let plain = item(shop.sku);
    let unnamed = StepItem {
        flags: STEP_FLAG_HOLDER,
        ..plain
    };
    let refused = |refusal| OrderOutcome::Refused {
        order_id: plain.order_id,
        refusal,
        retry_after_ms: 0,
    };
    let outcomes = wire.issue(&[unnamed]);
    assert_eq!(outcomes, [refused(Refusal::HolderInvalid)]);
    for step in [Step::Commit, Step::Cancel, Step::Extend] {
        let outcomes = wire.step(step, &[plain.of_holder(ANNA)]);
        assert_eq!(outcomes, [refused(Refusal::UnsupportedFlag)], "{step:?}");
    }
    let pick = Pick {
        order: plain.order_id.to_bytes(),
        sku: shop.sku.0,
        quantity: 1,
        label: Some("x".into()),
        holder: Trailing(Some([0; 16])),
        ..Pick::default()
    };
    wire.send(&frame(Kind::Pick, 3, 0, |out| encode_control(&pick, out)));
    assert_eq!(wire.refused(3).refusal, Refusal::HolderInvalid);
    // A key that is cut off, and a byte too many.
    for cut in [-1, 1] {
        let (mut wire, _) = Wire::greeted(shop.server.addr());
        let mut body = bytes::BytesMut::new();
        plain.of_holder(ANNA).encode_into(&mut body);
        body.resize((body.len() as i64 + cut) as usize, 0);
        wire.send(&frame(Kind::Issue, 4, 1, |out| {
            out.extend_from_slice(&body)
        }));
        assert_eq!(wire.fault().0.fault, FaultCode::Malformed);
    }
    let found = shop.client.order(plain.order_id).await;
    assert_eq!(found.expect("it is answered"), None);
}

#[tokio::test]
async fn the_same_order_by_many_at_once_is_dealt_once_and_counted_once() {
    let shop = Shop::open(103, Store::new().with("--cores", 2)).await;
    shop.cap(20).await;
    let orders: Vec<Order> = (0..40).map(|_| shop.order(ANNA, 1)).collect();
    let mut asks = Vec::new();
    for nth in 0..4 {
        let client = shop.server.client().await;
        let mut orders = orders.clone();
        orders.rotate_left(10 * nth);
        asks.push(tokio::spawn(async move {
            let outcomes = client.issue_many(&orders).await;
            outcomes.expect("the server answers")
        }));
    }
    let mut dealt = std::collections::BTreeSet::new();
    for ask in asks {
        for outcome in ask.await.expect("nobody panics") {
            match outcome {
                OrderOutcome::Issued(order) => {
                    dealt.insert(order.order_id);
                }
                OrderOutcome::Refused { refusal, .. } => {
                    assert_eq!(refusal, Refusal::HolderCardsReached);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(dealt.len(), 20);
    let (rows, _) = shop.client.orders_of(ANNA, 0, 0).await.expect("listed");
    assert_eq!(rows.len(), 20);
}
