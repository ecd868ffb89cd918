//! Requests that are well formed and must be refused: the reason is exact, and nothing is changed by them.

use std::collections::HashSet;
use std::time::Duration;

use croupier_client::{
    Client, ImportOptions, Order, OrderId, OrderOutcome, Priority, Refusal, SkuId,
};
use croupier_protocol::{
    ImportBegin, ImportBeginReply, ImportEndReply, ImportRow, Kind, RefusedBody, StepItem,
    encode_control, put_import_id, put_lookup,
};
use croupier_tests::{Mint, Oracle, PATIENCE, Server, Store, Wire, frame, issue_frame, item};

async fn stocked(store: &Store, cards: usize) -> (Server, Client, Oracle, SkuId) {
    let (server, oracle) = (store.serve(), Oracle::new());
    let client = server.client().await;
    let sku = oracle
        .import(&client, "s", &Mint::new(11).secrets(cards, 24))
        .await
        .expect("an import");
    (server, client, oracle, sku)
}

fn refusal_of(outcome: &OrderOutcome) -> Option<Refusal> {
    match outcome {
        OrderOutcome::Issued(_) => None,
        OrderOutcome::Refused { refusal, .. } => Some(*refusal),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refused_order_says_why_takes_nothing_and_may_try_again() {
    let store = Store::new().with("--quantity-max", 50);
    let (server, client, oracle, sku) = stocked(&store, 100).await;
    let mut wire = Wire::greeted(server.addr()).0;
    let known = oracle
        .deal(&client, Order::new(OrderId::new_v7(), sku).quantity(2))
        .await;
    let before = (
        client.stock(None).await.expect("answered"),
        client.server_info().await.expect("answered").durable_lsn,
    );

    let good = || item(sku);
    let same_id = StepItem {
        order_id: known.order_id,
        quantity: 2,
        ..good()
    };
    let cases = [
        (
            "unknown SKU",
            StepItem {
                sku: SkuId(99),
                ..good()
            },
            Refusal::UnknownSku,
        ),
        (
            "SKU zero",
            StepItem {
                sku: SkuId(0),
                ..good()
            },
            Refusal::UnknownSku,
        ),
        (
            "the largest SKU",
            StepItem {
                sku: SkuId(u32::MAX),
                ..good()
            },
            Refusal::UnknownSku,
        ),
        (
            "quantity zero",
            StepItem {
                quantity: 0,
                ..good()
            },
            Refusal::QuantityZero,
        ),
        (
            "quantity above the limit",
            StepItem {
                quantity: 51,
                ..good()
            },
            Refusal::QuantityTooLarge,
        ),
        (
            "the largest quantity",
            StepItem {
                quantity: u16::MAX,
                ..good()
            },
            Refusal::QuantityTooLarge,
        ),
        (
            "order id zero",
            StepItem {
                order_id: OrderId::from_u128(0),
                ..good()
            },
            Refusal::OrderIdZero,
        ),
        (
            "unknown priority",
            StepItem {
                priority: 4,
                ..good()
            },
            Refusal::UnknownPriority,
        ),
        (
            "the largest priority",
            StepItem {
                priority: 255,
                ..good()
            },
            Refusal::UnknownPriority,
        ),
        (
            "a flag",
            StepItem { flags: 1, ..good() },
            Refusal::UnsupportedFlag,
        ),
        (
            "a known id with another quantity",
            StepItem {
                quantity: 1,
                ..same_id
            },
            Refusal::OrderIdReused,
        ),
        (
            "a known id with a larger quantity",
            StepItem {
                quantity: 3,
                ..same_id
            },
            Refusal::OrderIdReused,
        ),
    ];
    for (what, bad, expect) in cases {
        // Alone, and among good ones that must not suffer (repeats, so that they change nothing either).
        let alone = wire.issue(&[bad]);
        assert_eq!(
            alone.iter().map(refusal_of).collect::<Vec<_>>(),
            [Some(expect)],
            "{what}"
        );
        let among = wire.issue(&[same_id, bad, same_id]);
        assert_eq!(
            among.iter().map(refusal_of).collect::<Vec<_>>(),
            [None, Some(expect), None],
            "{what}"
        );
        for outcome in among {
            assert!(outcome.order_id() == bad.order_id || outcome.order_id() == known.order_id);
            if let OrderOutcome::Issued(again) = outcome {
                assert_eq!(
                    (again.repeat, &again.cards, again.lsn),
                    (true, &known.cards, known.lsn)
                );
            }
        }
        if bad.order_id != known.order_id {
            assert_eq!(
                client.order(bad.order_id).await.expect("answered"),
                None,
                "{what} left a trace"
            );
        }
    }
    let after = (
        client.stock(None).await.expect("answered"),
        client.server_info().await.expect("answered").durable_lsn,
    );
    assert_eq!(before, after, "refusals change nothing and write nothing");

    // The ids that were refused are as good as new.
    for (what, bad, expect) in cases {
        if bad.order_id.is_zero() || expect == Refusal::OrderIdReused {
            continue;
        }
        let order = Order::new(bad.order_id, sku).quantity(3);
        assert!(!oracle.deal(&client, order).await.repeat, "{what}");
    }
    oracle.ask_all_again(&client).await;
    oracle.check_all(&client).await;
    server.stop().ok();
    oracle.check_disk(&store);
}

#[tokio::test]
async fn a_known_id_with_another_sku_is_refused_and_priority_and_deadline_may_differ() {
    let store = Store::new();
    let (server, client, oracle, sku) = stocked(&store, 10).await;
    let other = oracle
        .import(&client, "other", &Mint::new(12).secrets(10, 24))
        .await
        .expect("an import");
    let id = OrderId::new_v7();
    let first = oracle.deal(&client, Order::new(id, sku)).await;
    let reused = client
        .issue(Order::new(id, other))
        .await
        .expect_err("another SKU");
    assert_eq!(reused.refusal(), Some(Refusal::OrderIdReused));
    for priority in Priority::ALL {
        let order = Order::new(id, sku)
            .priority(priority)
            .deadline(Duration::from_millis(1));
        let again = oracle.deal(&client, order).await;
        assert_eq!(
            (again.repeat, again.lsn, again.cards),
            (true, first.lsn, first.cards.clone())
        );
    }
    server.kill();
    let server = store.serve();
    let client = server.client().await;
    let reused = client
        .issue(Order::new(id, other))
        .await
        .expect_err("another SKU, also after a restart");
    assert_eq!(reused.refusal(), Some(Refusal::OrderIdReused));
    oracle.ask_all_again(&client).await;
    oracle.check_all(&client).await;
}

#[tokio::test]
async fn out_of_stock_leaves_no_trace_and_the_id_succeeds_after_an_import() {
    let store = Store::new();
    let (server, client, oracle, sku) = stocked(&store, 3).await;
    let orders: Vec<_> = (0..5).map(|_| Order::new(OrderId::new_v7(), sku)).collect();
    let outcomes = oracle.issue(&client, &orders).await.expect("answered");
    let out: Vec<_> = outcomes
        .iter()
        .filter(|outcome| refusal_of(outcome) == Some(Refusal::OutOfStock))
        .collect();
    assert_eq!(out.len(), 2, "{outcomes:?}");
    oracle.check_all(&client).await;
    oracle
        .import(&client, "s", &Mint::new(13).secrets(2, 24))
        .await
        .expect("an import");
    for outcome in out {
        assert!(
            !oracle
                .deal(&client, Order::new(outcome.order_id(), sku))
                .await
                .repeat
        );
    }
    let rows = oracle.check_all(&client).await;
    assert_eq!((rows[0].free, rows[0].issued), (0, 5));
    server.stop().ok();
    oracle.check_disk(&store);
}

#[tokio::test]
async fn a_frame_with_too_many_orders_is_refused_whole() {
    let store = Store::new().with("--orders-in-flight-max", 100);
    let (server, _client, _oracle, sku) = stocked(&store, 500).await;
    let (mut wire, hello) = Wire::greeted(server.addr());
    assert_eq!(hello.orders_per_frame_max, 100);
    let items: Vec<_> = (0..101).map(|_| item(sku)).collect();
    wire.send(&issue_frame(5, &items));
    assert_eq!(wire.refused(5).refusal, Refusal::TooManyOrders);
    let ids =
        |out: &mut bytes::BytesMut| items.iter().for_each(|item| put_lookup(out, item.order_id));
    wire.send(&frame(Kind::LookUp, 6, 101, ids));
    assert_eq!(wire.refused(6).refusal, Refusal::TooManyOrders);
    // As many as are allowed are dealt, and so is none.
    assert!(
        wire.issue(&items[..100])
            .iter()
            .all(|outcome| refusal_of(outcome).is_none())
    );
    assert!(wire.issue(&[]).is_empty());
    assert_eq!(wire.issue(&items[100..]).len(), 1);
}

#[tokio::test]
async fn an_order_that_no_frame_can_answer_is_refused_before_anything_is_taken() {
    let (store, oracle) = (Store::new(), Oracle::new());
    let server = store.serve();
    let client = server.client().await;
    let sku = oracle
        .import(&client, "long", &Mint::new(14).secrets(100, 4096))
        .await
        .expect("an import");
    let large = Order::new(OrderId::new_v7(), sku).quantity(16);
    let outcomes = oracle.issue(&client, &[large]).await.expect("answered");
    assert_eq!(refusal_of(&outcomes[0]), Some(Refusal::QuantityTooLarge));
    oracle
        .deal(&client, Order::new(OrderId::new_v7(), sku).quantity(15))
        .await;
    // Many such answers in one request come in several frames.
    let orders: Vec<_> = (0..5)
        .map(|_| Order::new(OrderId::new_v7(), sku).quantity(15))
        .collect();
    let outcomes = oracle.issue(&client, &orders).await.expect("answered");
    assert!(
        outcomes.iter().all(|outcome| refusal_of(outcome).is_none()),
        "{outcomes:?}"
    );
    oracle.check_all(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_comes_too_late_to_be_dealt_is_refused_and_takes_nothing() {
    let store = Store::new().with("--cores", 1);
    let (server, client, oracle, sku) = stocked(&store, 60_000).await;
    let known = oracle
        .deal(&client, Order::new(OrderId::new_v7(), sku))
        .await
        .order_id;
    let heavy = vec![
        StepItem {
            order_id: known,
            ..item(sku)
        };
        2000
    ];
    let mut late = Vec::new();
    let begun = std::time::Instant::now();
    // A queue is needed for an order to be late: load, until one was.
    while late.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no order was ever late");
        // Never read from, and little enough for the buffers in between.
        let mut flood: Vec<_> = (0..8).map(|_| Wire::greeted(server.addr()).0).collect();
        for (request, wire) in (0..10).flat_map(|request| (0..8).map(move |wire| (request, wire))) {
            flood[wire].send(&issue_frame(request, &heavy));
        }
        let deadline = Duration::from_millis(1);
        let orders: Vec<_> = (0..50)
            .map(|_| {
                Order::new(OrderId::new_v7(), sku)
                    .priority(Priority::Background)
                    .deadline(deadline)
            })
            .collect();
        let outcomes = oracle.issue(&client, &orders).await.expect("answered");
        let is_late =
            |outcome: &&OrderOutcome| refusal_of(outcome) == Some(Refusal::DeadlineExceeded);
        late.extend(outcomes.iter().filter(is_late).map(OrderOutcome::order_id));
    }
    oracle.check_all(&client).await;
    for id in late {
        assert!(
            !oracle.deal(&client, Order::new(id, sku)).await.repeat,
            "a refusal leaves no trace"
        );
    }
    oracle.check_all(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_asked_on_eight_connections_at_once_is_dealt_once() {
    let store = Store::new();
    let (server, client, oracle, sku) = stocked(&store, 1000).await;
    let oracle = std::sync::Arc::new(oracle);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(server.client().await);
    }
    for round in 0..50 {
        let orders: Vec<_> = (0..4)
            .map(|_| Order::new(OrderId::new_v7(), sku).quantity(1 + round % 3))
            .collect();
        let mut asks = Vec::new();
        for client in &clients {
            let (client, oracle, orders) = (client.clone(), oracle.clone(), orders.clone());
            asks.push(tokio::spawn(async move {
                oracle.issue(&client, &orders).await.expect("answered")
            }));
        }
        let (mut first, mut cards) = (0, HashSet::new());
        for ask in asks {
            for outcome in ask.await.expect("no panic") {
                let OrderOutcome::Issued(issued) = outcome else {
                    panic!("{outcome:?}")
                };
                first += usize::from(!issued.repeat);
                cards.extend(issued.cards.iter().map(|card| card.card));
            }
        }
        assert_eq!(
            first,
            orders.len(),
            "one of the eight was the first for each order"
        );
        assert_eq!(cards.len(), orders.len() * usize::from(orders[0].quantity));
    }
    // The same id twice in one frame.
    let twice = item(sku);
    let mut wire = Wire::greeted(server.addr()).0;
    let outcomes = wire.issue(&[twice, twice]);
    let [OrderOutcome::Issued(one), OrderOutcome::Issued(two)] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert_eq!((&one.cards, one.lsn), (&two.cards, two.lsn));
    assert_eq!(usize::from(one.repeat) + usize::from(two.repeat), 1);
    oracle.look_up_all(&client).await;
}

#[tokio::test]
async fn names_that_are_none_are_refused() {
    let store = Store::new();
    let (server, client, oracle, _) = stocked(&store, 1).await;
    let long = "n".repeat(65);
    for name in [
        "",
        " ",
        "a\tb",
        "a\nb",
        " a",
        "a ",
        "\u{7f}",
        &long,
        &"卡".repeat(22),
    ] {
        let refusal = client
            .sku_create(name)
            .await
            .expect_err("no name")
            .refusal();
        assert_eq!(refusal, Some(Refusal::NameInvalid), "{name:?}");
        let options = |sku: &str| ImportOptions {
            sku: sku.to_owned(),
            create_sku: true,
            ..ImportOptions::default()
        };
        let named = [
            options(name),
            ImportOptions {
                batch: Some(name.to_owned()),
                ..options("new")
            },
            ImportOptions {
                pool: Some(name.to_owned()),
                ..options("new")
            },
        ];
        for options in named {
            let error = client.import(options.clone()).await.expect_err("no name");
            assert_eq!(error.refusal(), Some(Refusal::NameInvalid), "{options:?}");
        }
    }
    let error = client.sku_create("s").await.expect_err("there is one");
    assert_eq!(error.refusal(), Some(Refusal::SkuExists));
    for name in [
        "n".repeat(64),
        "卡密 – gift".to_owned(),
        "a b/c\"d'é".to_owned(),
    ] {
        let id = client.sku_create(&name).await.expect("a name");
        assert_eq!(client.sku_id(&name).await.expect("it is there"), id);
        assert_eq!(
            client.stock(Some(&name)).await.expect("answered")[0].imported,
            0
        );
    }
    assert_eq!(
        client
            .stock(Some("nobody"))
            .await
            .expect_err("unknown")
            .refusal(),
        Some(Refusal::UnknownSku)
    );
    let names = |rows: Vec<croupier_client::SkuRow>| {
        rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
    };
    let before = names(client.sku_list().await.expect("answered"));
    assert!(
        !before.contains(&"new".to_owned()),
        "a refused import makes no SKU"
    );
    server.kill();
    let server = store.serve();
    let client = server.client().await;
    assert_eq!(names(client.sku_list().await.expect("answered")), before);
    oracle.check_all(&client).await;
}

fn begin(wire: &mut Wire, sku: &str) {
    let begin = ImportBegin {
        sku: sku.to_owned(),
        create_sku: true,
        ..ImportBegin::default()
    };
    wire.send(&frame(Kind::ImportBegin, 30, 0, |out| {
        encode_control(&begin, out)
    }));
}

fn send_row(wire: &mut Wire, import: u64, secret: &[u8]) {
    wire.send(&frame(Kind::ImportRows, 31, 1, |out| {
        put_import_id(out, import);
        ImportRow::new(1, secret).encode_into(out);
    }));
}

fn end(wire: &mut Wire, import: u64) {
    wire.send(&frame(Kind::ImportEnd, 32, 0, |out| {
        put_import_id(out, import)
    }));
}

#[tokio::test]
async fn imports_out_of_turn_are_refused_and_the_open_one_goes_on() {
    let store = Store::new();
    let (server, client, oracle, sku) = stocked(&store, 1).await;
    let (mut one, mut two) = (
        Wire::greeted(server.addr()).0,
        Wire::greeted(server.addr()).0,
    );
    let mut mint = Mint::new(15);
    let secrets = mint.secrets(2, 30);

    send_row(&mut one, 1, &secrets[0]);
    assert_eq!(
        one.refused(31).refusal,
        Refusal::NoImport,
        "rows without an import"
    );
    end(&mut one, 1);
    assert_eq!(
        one.refused(32).refusal,
        Refusal::NoImport,
        "the end of no import"
    );

    begin(&mut one, "s");
    let import = one.control::<ImportBeginReply>(Kind::ImportBeginReply, 30);
    assert_eq!(import.sku, sku.0);
    begin(&mut one, "another");
    assert_eq!(
        one.refused(30).refusal,
        Refusal::ImportOpen,
        "one import a connection"
    );
    begin(&mut two, "s");
    assert_eq!(
        two.refused(30).refusal,
        Refusal::TooManyImports,
        "one import a SKU"
    );
    send_row(&mut one, import.import + 7, &secrets[0]);
    assert_eq!(
        one.refused(31).refusal,
        Refusal::NoImport,
        "rows of another import"
    );
    send_row(&mut two, import.import, &secrets[0]);
    assert_eq!(
        two.refused(31).refusal,
        Refusal::NoImport,
        "rows of somebody else's import"
    );
    end(&mut two, import.import);
    assert_eq!(
        two.refused(32).refusal,
        Refusal::NoImport,
        "the end of somebody else's import"
    );

    for secret in &secrets {
        send_row(&mut one, import.import, secret);
        one.pages(Kind::ImportRowsReply, 31);
    }
    assert_eq!(
        client.stock(None).await.expect("answered")[0].imported,
        1,
        "nothing is visible before the end"
    );
    end(&mut one, import.import);
    let report = one.control::<ImportEndReply>(Kind::ImportEndReply, 32);
    assert_eq!((report.accepted, report.slabs), (2, 1));
    oracle.imported("s", sku, &secrets);
    end(&mut one, import.import);
    assert_eq!(
        one.refused(32).refusal,
        Refusal::NoImport,
        "an import ends once"
    );
    begin(&mut two, "s");
    let empty = two.control::<ImportBeginReply>(Kind::ImportBeginReply, 30);
    end(&mut two, empty.import);
    let report = two.control::<ImportEndReply>(Kind::ImportEndReply, 32);
    assert_eq!(
        (report.accepted, report.lsn, report.batch),
        (0, 0, 0),
        "an import of nothing writes nothing"
    );
    oracle.check_all(&client).await;
    server.stop().ok();
    oracle.check_disk(&store);
}

#[tokio::test]
async fn too_many_imports_at_once_are_refused_until_one_ends() {
    let store = Store::new();
    let server = store.serve();
    let mut open = Vec::new();
    let refused = loop {
        let mut wire = Wire::greeted(server.addr()).0;
        begin(&mut wire, &format!("s{}", open.len()));
        let (header, body) = wire.reply();
        if header.kind == Kind::Refused {
            break RefusedBody::decode(&body).expect("a Refused");
        }
        assert_eq!(header.kind, Kind::ImportBeginReply);
        open.push(wire);
        assert!(open.len() < 1000, "there must be a limit");
    };
    assert_eq!(refused.refusal, Refusal::TooManyImports);
    assert!(refused.retry_after_ms > 0, "it says when to come again");
    open.pop();
    // The client comes again, within the time of its call.
    let options = ImportOptions {
        sku: "new".to_owned(),
        create_sku: true,
        ..ImportOptions::default()
    };
    let client = server.client().await;
    client.import(options).await.expect("room for one more");
}
