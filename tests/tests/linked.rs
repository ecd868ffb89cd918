//! Orders that are linked: all of a chain get their cards, or none does and nothing is left behind.

use std::sync::Arc;
use std::time::Duration;

use croupier_client::{
    Client, Error, LINKED_ORDERS_MAX, Order, OrderId, OrderOutcome, OrderStep, Refusal, SkuId,
};
use croupier_tests::{Mint, Oracle, Server, Store, scaled};

use crate::stock::import;

const LONG: Duration = Duration::from_secs(3600);

/// A served store with two SKUs.
struct Shop {
    store: Store,
    server: Server,
    client: Client,
    skus: [SkuId; 2],
}

impl Shop {
    async fn open(mint: u16, cards: [usize; 2]) -> Shop {
        let store = Store::new();
        let server = store.serve();
        let client = server.client().await;
        let mut mint = Mint::new(mint);
        let [many, few] = cards.map(|cards| mint.secrets(cards, 20));
        let skus = [
            import(&client, "many", &many).await,
            import(&client, "few", &few).await,
        ];
        Shop {
            store,
            server,
            client,
            skus,
        }
    }

    async fn killed(self) -> Shop {
        let Shop {
            store,
            server,
            skus,
            ..
        } = self;
        server.kill();
        let server = store.serve();
        let client = server.client().await;
        Shop {
            store,
            server,
            client,
            skus,
        }
    }

    fn order(&self, sku: usize, quantity: u16) -> Order {
        Order::new(OrderId::new_v7(), self.skus[sku]).quantity(quantity)
    }

    /// Free, held and issued of each SKU.
    async fn counts(&self) -> [[u64; 3]; 2] {
        let rows = self.client.stock(None).await.expect("stock is answered");
        [0, 1].map(|nth| [rows[nth].free, rows[nth].held, rows[nth].issued])
    }

    async fn ask(&self, steps: &[OrderStep]) -> Vec<OrderOutcome> {
        let answered = self.client.steps(steps).await;
        answered.expect("the server answers")
    }

    async fn none_stands(&self, orders: &[Order]) {
        for order in orders {
            let found = self.client.order(order.order_id).await;
            assert_eq!(found.expect("look-ups are answered"), None);
        }
    }
}

/// The orders as one chain.
fn chain(orders: &[Order], ttl: Option<Duration>) -> Vec<OrderStep> {
    let step = |order: &Order| match ttl {
        None => OrderStep::issue(*order),
        Some(ttl) => OrderStep::reserve(*order, ttl),
    };
    let mut steps: Vec<_> = orders.iter().map(step).collect();
    let last = steps.len() - 1;
    for step in &mut steps[..last] {
        *step = step.linked();
    }
    steps
}

/// In short what became of each.
fn words(outcomes: &[OrderOutcome]) -> Vec<String> {
    let word = |outcome: &OrderOutcome| match outcome {
        OrderOutcome::Issued(order) if order.repeat => "issued again".to_owned(),
        OrderOutcome::Issued(_) => "issued".to_owned(),
        OrderOutcome::Held(order) if order.repeat => "held again".to_owned(),
        OrderOutcome::Held(_) => "held".to_owned(),
        OrderOutcome::Refused { refusal, .. } => refusal.name().to_owned(),
        other => format!("{other:?}"),
    };
    outcomes.iter().map(word).collect()
}

#[tokio::test]
async fn a_chain_that_cannot_be_had_takes_nothing_and_says_why() {
    let shop = Shop::open(81, [10, 2]).await;
    let known = shop.order(0, 1);
    shop.client.issue(known).await.expect("there is stock");
    let before = shop.counts().await;
    let (many, few) = (shop.order(0, 2), shop.order(1, 2));
    let nobodys = Order::new(OrderId::new_v7(), SkuId(9));
    let late = |order: Order| order.deadline(Duration::ZERO);
    let (zero, huge) = (few.quantity(0), few.quantity(1001));
    // Each may be had; together they have more records than an append.
    let wide: Vec<Order> = (0..64).map(|_| shop.order(0, 100)).collect();
    let reused = Order {
        sku: shop.skus[1],
        ..known
    };
    let cases: [(&str, Vec<Order>, &[&str]); 9] = [
        (
            "sold out",
            vec![many, few.quantity(3)],
            &["LinkedRefused", "OutOfStock"],
        ),
        (
            "first",
            vec![few.quantity(3), many],
            &["OutOfStock", "LinkedRefused"],
        ),
        (
            "together",
            vec![few, shop.order(1, 1)],
            &["LinkedRefused", "OutOfStock"],
        ),
        (
            "no SKU",
            vec![many, nobodys],
            &["LinkedRefused", "UnknownSku"],
        ),
        ("none", vec![many, zero], &["LinkedRefused", "QuantityZero"]),
        (
            "many",
            vec![many, huge],
            &["LinkedRefused", "QuantityTooLarge"],
        ),
        (
            "a known one",
            vec![many, known],
            &["LinkedRefused", "issued again"],
        ),
        (
            "an id in use",
            vec![many, reused, few],
            &["LinkedRefused", "OrderIdReused", "LinkedRefused"],
        ),
        ("wide", wide.clone(), &[]),
    ];
    for (what, orders, expect) in &cases {
        let told = words(&shop.ask(&chain(orders, None)).await);
        if expect.is_empty() {
            assert_eq!(
                told.iter()
                    .filter(|word| *word == "QuantityTooLarge")
                    .count(),
                1
            );
            assert_eq!(
                told.iter().filter(|word| *word == "LinkedRefused").count(),
                63
            );
        } else {
            assert_eq!(told, *expect, "{what}");
        }
        assert_eq!(shop.counts().await, before, "{what}");
    }
    shop.none_stands(&[many, few, nobodys]).await;
    shop.none_stands(&wide).await;
    // Late is late for all of them; a deadline of nothing is sent as a millisecond.
    let told = words(&shop.ask(&chain(&[many, late(few)], None)).await);
    let in_time = ["issued", "issued"];
    assert!(
        told == in_time || told == ["LinkedRefused", "DeadlineExceeded"],
        "{told:?}"
    );
    if told != in_time {
        // The ids are as free as before.
        let told = words(&shop.ask(&chain(&[few, many], None)).await);
        assert_eq!(told, in_time);
    }
    assert_eq!(shop.counts().await, [[7, 0, 3], [0, 0, 2]]);
    shop.server.stop().ok();
}

#[tokio::test]
async fn a_chain_that_makes_no_sense_is_refused_whole() {
    let shop = Shop::open(82, [100, 100]).await;
    let [a, b] = [shop.order(0, 1), shop.order(1, 1)];
    let good = || chain(&[a, b], None);
    let mut open = good();
    open[1] = open[1].linked();
    let mut partial = good();
    partial[1] = partial[1].partial();
    let mut waits = good();
    waits[0] = waits[0].wait(croupier_client::Wait::Told, LONG);
    let long: Vec<Order> = (0..=LINKED_ORDERS_MAX).map(|_| shop.order(0, 1)).collect();
    let cases = [
        ("open", open),
        ("one", vec![OrderStep::issue(a).linked()]),
        ("an id twice", chain(&[a, a.quantity(2)], None)),
        ("a part", partial),
        ("waits", waits),
        ("long", chain(&long, None)),
    ];
    for (what, steps) in cases {
        let told = words(&shop.ask(&steps).await);
        assert!(
            told.iter().all(|word| word == "LinkInvalid"),
            "{what}: {told:?}"
        );
    }
    // Only what begins an order is linked.
    let commits = [
        OrderStep::commit(a.order_id).linked(),
        OrderStep::commit(b.order_id),
    ];
    let told = words(&shop.ask(&commits).await);
    assert_eq!(told, ["UnsupportedFlag", "OrderNotFound"]);
    shop.none_stands(&[a, b]).await;
    assert_eq!(shop.counts().await, [[100, 0, 0], [100, 0, 0]]);

    // Lone orders and chains in one frame are each for themselves.
    let (lone, none) = (shop.order(0, 1), shop.order(1, 101));
    let mut steps = vec![OrderStep::issue(lone)];
    steps.extend(chain(&[shop.order(0, 1), none], None));
    steps.extend(good());
    steps.extend(chain(&long[1..], None));
    let told = words(&shop.ask(&steps).await);
    let expect = ["issued", "LinkedRefused", "OutOfStock", "issued", "issued"];
    assert_eq!(told[..5], expect);
    assert!(told[5..].iter().all(|word| word == "issued"), "{told:?}");
    assert_eq!(shop.counts().await, [[34, 0, 66], [99, 0, 1]]);
}

#[tokio::test]
async fn a_chain_stands_as_it_was_over_every_end() {
    let mut shop = Shop::open(83, [10, 10]).await;
    let orders = [shop.order(0, 2), shop.order(1, 3), shop.order(0, 1)];
    let first = shop
        .client
        .issue_linked(&orders)
        .await
        .expect("all of them");
    assert!(first.iter().all(|order| !order.repeat));
    assert_eq!(
        first.iter().map(|order| order.cards.len()).sum::<usize>(),
        6
    );
    for end in 0..3 {
        shop = shop.killed().await;
        let mut again = shop.client.issue_linked(&orders).await.expect("the same");
        assert!(again.iter().all(|order| order.repeat), "{end}");
        again.iter_mut().for_each(|order| order.repeat = false);
        assert_eq!(again, first, "{end}");
        // Alone, in another order, and with a new one: each is what it was, and the new one is not taken in.
        let alone = shop.client.issue(orders[1]).await.expect("it stands");
        assert_eq!(alone.cards, first[1].cards);
        let turned = [orders[2], orders[0], orders[1]];
        let turned = shop.client.issue_linked(&turned).await.expect("they stand");
        assert_eq!(turned[0].cards, first[2].cards);
        let fresh = shop.order(0, 1);
        let told = words(&shop.ask(&chain(&[orders[0], fresh], None)).await);
        assert_eq!(told, ["issued again", "LinkedRefused"]);
        let error = shop.client.issue_linked(&[orders[0], fresh]).await;
        let is_about = matches!(error, Err(Error::Refused { order_id: Some(id), refusal, .. })
            if id == fresh.order_id && refusal == Refusal::LinkedRefused);
        assert!(is_about, "{error:?}");
        shop.none_stands(&[fresh]).await;
        assert_eq!(shop.counts().await, [[7, 0, 3], [7, 0, 3]]);
    }
    // One that is refused is named.
    let (few, many) = (shop.order(1, 8), shop.order(0, 1));
    let error = shop.client.issue_linked(&[many, few]).await;
    let is_about = matches!(error, Err(Error::Refused { order_id: Some(id), refusal, .. })
        if id == few.order_id && refusal == Refusal::OutOfStock);
    assert!(is_about, "{error:?}");
    shop.server.stop().ok();
    shop.store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn a_basket_is_held_whole_and_committed_one_by_one() {
    let mut shop = Shop::open(84, [5, 2]).await;
    let orders = [shop.order(0, 3), shop.order(1, 2), shop.order(0, 2)];
    let held = shop.client.reserve_linked(&orders, LONG).await;
    let held = held.expect("there is as much");
    assert_eq!(shop.counts().await, [[0, 5, 0], [0, 2, 0]]);
    let more = [shop.order(0, 1), shop.order(1, 1)];
    let told = words(&shop.ask(&chain(&more, Some(LONG))).await);
    assert_eq!(
        told.iter().filter(|word| *word == "OutOfStock").count(),
        1,
        "{told:?}"
    );
    shop.none_stands(&more).await;
    shop = shop.killed().await;
    assert_eq!(shop.counts().await, [[0, 5, 0], [0, 2, 0]]);
    let mut again = shop
        .client
        .reserve_linked(&orders, LONG)
        .await
        .expect("they stand");
    assert!(again.iter().all(|order| order.repeat));
    again.iter_mut().for_each(|order| order.repeat = false);
    assert_eq!(again, held);
    // From here on each is an order of its own.
    shop.client
        .commit_part(orders[0].order_id, 2)
        .await
        .expect("two of three");
    shop.client
        .cancel(orders[1].order_id)
        .await
        .expect("it is held");
    assert_eq!(shop.counts().await, [[1, 2, 2], [2, 0, 0]]);
    let told = words(&shop.ask(&chain(&orders, Some(LONG))).await);
    assert_eq!(told, ["AlreadyCommitted", "AlreadyCancelled", "held again"]);
    let told = words(&shop.ask(&chain(&more, Some(LONG))).await);
    assert_eq!(told, ["held", "held"]);
    let bad = [shop.order(1, 1), shop.order(1, 1)];
    let told = words(&shop.ask(&chain(&bad, Some(LONG * 10_000))).await);
    assert_eq!(told, ["TtlInvalid", "LinkedRefused"]);
    shop.client.commit(orders[2].order_id).await.expect("both");
    assert_eq!(shop.counts().await, [[0, 1, 4], [1, 1, 0]]);
    shop.server.stop().ok();
    shop.store.wal("verify", &[]).ok();
}

/// Many want the same few ids at once, in chains of either order and alone: no two wait for each other, every chain is whole, and
/// the ids of those that got nothing are free. There is enough for all at once: who finds the last card in the hands of one that
/// is just being refused is refused, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_that_want_the_same_ids_at_once_get_all_or_none() {
    let (rounds, _) = scaled((60, 0), (1000, 0));
    let shop = Shop::open(85, [rounds * 12, rounds * 6]).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(shop.server.client().await);
    }
    let mut issued = 0;
    for _ in 0..rounds {
        let [a, b, c] = [shop.order(0, 1), shop.order(1, 1), shop.order(0, 2)];
        let asked: [Vec<Order>; 6] = [
            vec![a, b, c],
            vec![c, b, a],
            vec![b, a, c],
            vec![b, c],
            vec![b],
            vec![a, b, c],
        ];
        let asking = clients.iter().zip(asked).map(|(client, orders)| {
            let client = client.clone();
            tokio::spawn(async move {
                let outcomes = client.steps(&chain(&orders, None)).await;
                words(&outcomes.expect("a server that lives"))
            })
        });
        let mut told = Vec::new();
        for asking in asking.collect::<Vec<_>>() {
            told.push(asking.await.expect("nobody panics"));
        }
        let ids = [a, b, c].map(|order| order.order_id);
        let found = shop.client.orders(&ids).await;
        let found = found.expect("look-ups are answered");
        let stands = [0, 1, 2].map(|nth: usize| found[nth].issued().is_some());
        // Whoever came first has all that it asked for; the rest repeats that, or is not dealt.
        let possible = [[true; 3], [false, true, true], [false, true, false]];
        assert!(possible.contains(&stands), "{stands:?}: {told:?}");
        let firsts = told
            .iter()
            .flatten()
            .filter(|word| *word == "issued")
            .count();
        let dealt = stands.iter().filter(|stands| **stands).count();
        assert_eq!(firsts, dealt, "each is dealt once: {told:?}");
        for words in &told {
            assert!(
                words.iter().all(
                    |word| ["issued", "issued again", "LinkedRefused"].contains(&word.as_str())
                ),
                "{told:?}"
            );
            let fresh = words.iter().filter(|word| *word == "issued").count();
            assert!(fresh == 0 || fresh == words.len(), "{told:?}");
        }
        issued += dealt as u64;
        // What is left over may be had.
        for (order, stands) in [a, b, c].into_iter().zip(stands) {
            let outcome = shop.client.issue(order).await.expect("there is stock");
            assert_eq!(outcome.repeat, stands);
            issued += u64::from(!stands);
        }
    }
    assert_eq!(issued, 3 * rounds as u64);
    let counts = shop.counts().await;
    assert_eq!(counts[1], [5 * rounds as u64, 0, rounds as u64]);
    assert_eq!(counts[0][2], 3 * rounds as u64);
    shop.server.stop().ok();
    shop.store.wal("verify", &[]).ok();
}

/// The last cards are wanted by many chains at once, until the server is killed; what stands then are whole chains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_leaves_whole_chains() {
    let (cards, ends) = scaled((3000, 3), (30_000, 20));
    let (store, oracle) = (Store::new(), Arc::new(Oracle::new()));
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(86);
    let secrets = [0, 1].map(|_| mint.secrets(cards, 20));
    let many = oracle.import(&client, "many", &secrets[0]).await;
    let few = oracle.import(&client, "few", &secrets[1]).await;
    let mut shop = Shop {
        store,
        server,
        client,
        skus: [many, few].map(|sku| sku.expect("an import")),
    };
    let mut chains: Vec<Vec<Order>> = Vec::new();
    for end in 0..ends {
        let client = shop.server.builder().retries(0).build().await;
        let client = client.expect("it is served");
        let buyers: Vec<_> = (0..8u16)
            .map(|buyer| {
                let (client, oracle) = (client.clone(), oracle.clone());
                let skus = shop.skus;
                tokio::spawn(async move {
                    let mut asked = Vec::new();
                    for round in (0..1000u16).cycle() {
                        let order = |nth: u16| {
                            let sku = skus[usize::from(nth + buyer) % 2];
                            Order::new(OrderId::new_v7(), sku).quantity(1 + (nth + round) % 4)
                        };
                        let orders: Vec<_> = (0..2 + buyer % 4).map(order).collect();
                        let steps = chain(&orders, None);
                        let asks = oracle.ask_linked(&steps);
                        asked.push(orders);
                        match client.steps(&steps).await {
                            Ok(outcomes) => {
                                for (ask, outcome) in asks.iter().zip(&outcomes) {
                                    oracle.book(ask, outcome);
                                }
                            }
                            Err(_) => {
                                asks.iter().for_each(|ask| oracle.lost(ask));
                                return asked;
                            }
                        }
                    }
                    unreachable!("the server is killed")
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(40 + 30 * end as u64)).await;
        shop = shop.killed().await;
        for buyer in buyers {
            chains.extend(buyer.await.expect("nobody panics"));
        }
        for orders in &chains {
            let ids: Vec<_> = orders.iter().map(|order| order.order_id).collect();
            let outcomes = shop
                .client
                .orders(&ids)
                .await
                .expect("look-ups are answered");
            let stands = outcomes.iter().filter(|outcome| outcome.issued().is_some());
            let stands = stands.count();
            assert!(stands == 0 || stands == ids.len(), "{stands} of {orders:?}");
        }
    }
    assert!(oracle.acknowledged().len() > 10, "somebody has bought");
    let counts = shop.counts().await;
    assert_eq!(counts.map(|[_, held, _]| held), [0, 0]);
    oracle.check_all(&shop.client).await;
    shop.server.stop().ok();
    oracle.check_disk(&shop.store);
}

#[tokio::test]
async fn the_command_line_deals_a_basket() {
    let shop = Shop::open(87, [5, 2]).await;
    let run = |args: &[&str]| shop.server.croupier(args);
    let first = run(&["issue", "--linked", "many:2", "few", "--json"])
        .ok()
        .json();
    let ids = [0, 1].map(|nth| first[nth]["order_id"].as_str().expect("an id").to_owned());
    let of =
        |nth: usize| [&first[nth]["sku"], &first[nth]["quantity"]].map(|what| what.to_string());
    assert_eq!([of(0), of(1)], [["\"many\"", "2"], ["\"few\"", "1"]]);
    let [many, few] = [format!("many:2={}", ids[0]), format!("few={}", ids[1])];
    let again = run(&["issue", "--linked", &many, &few, "--json"])
        .ok()
        .json();
    assert_eq!(again[0]["repeat"], true);
    assert_eq!(again[1]["cards"], first[1]["cards"]);
    let shown = run(&["issue", "--linked", &many, &few]).ok().stdout;
    assert!(
        shown.contains(&ids[0]) && shown.contains(&ids[1]),
        "{shown}"
    );
    run(&["issue", "--linked", "many", "few:2"]).fails(1, &["few", "no order got anything"]);
    let held = run(&[
        "reserve", "--linked", "many:2", "few:1", "--ttl", "1h", "--json",
    ]);
    let held = held.ok().json();
    assert_eq!(held[0]["state"], "held");
    assert_eq!(held[1]["quantity"], 1);
    run(&["reserve", "--linked", "many:1", "few:1"]).fails(1, &["few"]);
    let id = held[0]["order_id"].as_str().expect("an id");
    run(&["commit", id]).ok();
    assert_eq!(shop.counts().await, [[1, 0, 4], [0, 1, 1]]);
    for args in [
        &["issue", "--linked", "many"][..],
        &["issue", "--linked", "many", "few", "--sku", "many"],
        &["issue", "--linked", "many", "few", "--quantity", "2"],
        &["issue", "--linked", "many", "few", "--partial"],
        &["issue", "--linked", "many", "few", "--wait", "1s"],
        &["issue", "--linked", "many:70000", "few"],
        &["issue"],
    ] {
        let done = run(args);
        assert_eq!(done.code, Some(2), "{done}");
    }
    let none = run(&["issue", "--linked", "many", "nothing"]);
    none.fails(1, &["nothing"]);
}
