//! Calls that go well, or are refused: every kind, in and out of order, in one frame and in many.

use std::time::Duration;

use croupier_client::{
    Client, Error, Order, OrderId, OrderOutcome, Priority, ProtocolError, Refusal, RoutesOptions,
    SkuId,
};
use croupier_protocol::*;

use crate::peer::{Peer, put_dealt, secret_of};

pub fn orders(count: usize) -> Vec<Order> {
    (0..count)
        .map(|_| Order::new(OrderId::new_v7(), SkuId(7)))
        .collect()
}

#[tokio::test]
async fn an_order_is_sent_as_written_and_its_card_comes_back() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let order_id = OrderId::new_v7();
    let order = Order::new(order_id, SkuId(7))
        .quantity(2)
        .priority(Priority::Bulk)
        .deadline(Duration::from_secs(1));
    let script = async {
        let (header, items) = conn.issue().await;
        let [item] = items[..] else {
            panic!("one item: {items:?}")
        };
        assert_eq!(
            (item.order_id, item.sku, item.quantity, item.priority),
            (order_id, SkuId(7), 2, 2)
        );
        assert!((1..=1000).contains(&item.deadline_ms) && item.flags == 0 && header.flags == 0);
        conn.deal(header, &items, true).await;
    };
    let (issued, ()) = tokio::join!(client.issue(order), script);
    let issued = issued.unwrap();
    assert_eq!(
        (issued.order_id, issued.lsn, issued.sku, issued.repeat),
        (order_id, Lsn(9), SkuId(7), true)
    );
    assert_eq!(
        issued.cards[0].secret.as_bytes(),
        secret_of(order_id).as_bytes()
    );
}

#[tokio::test]
async fn replies_come_in_any_order() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let [first, second] = orders(2)[..] else {
        unreachable!()
    };
    let script = async {
        let (header_1, items_1) = conn.issue().await;
        let (header_2, items_2) = conn.issue().await;
        conn.deal(header_2, &items_2, false).await;
        conn.deal(header_1, &items_1, false).await;
    };
    let (issued_1, issued_2, ()) = tokio::join!(client.issue(first), client.issue(second), script);
    assert_eq!(issued_1.unwrap().order_id, first.order_id);
    assert_eq!(issued_2.unwrap().order_id, second.order_id);
}

#[tokio::test]
async fn many_orders_are_cut_by_the_servers_limit_and_pages_are_joined() {
    let mut peer = Peer::bind().await;
    peer.hello.orders_per_frame_max = 4;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let orders = orders(10);
    let script = async {
        let mut frames = Vec::new();
        for _ in 0..3 {
            frames.push(conn.issue().await);
        }
        assert_eq!(
            frames
                .iter()
                .map(|(_, items)| items.len())
                .collect::<Vec<_>>(),
            [4, 4, 2]
        );
        // Pages of two frames are interleaved with those of another.
        let pages = |header: FrameHeader| (header, header.kind.reply_of());
        for half in 0..2 {
            for (header, items) in &frames[..2] {
                let (header, kind) = pages(*header);
                let flags = if half == 0 { FLAG_MORE } else { 0 };
                let put = |out: &mut _| {
                    items[half * 2..][..2]
                        .iter()
                        .for_each(|i| put_dealt(out, i.order_id, false))
                };
                conn.frame(kind, header.request_id, 2, flags, put).await;
            }
        }
        let (header, items) = &frames[2];
        conn.refuse(*header, items, Refusal::OutOfStock, 0).await;
    };
    let (outcomes, ()) = tokio::join!(client.issue_many(&orders), script);
    let outcomes = outcomes.unwrap();
    let ids: Vec<_> = outcomes.iter().map(OrderOutcome::order_id).collect();
    assert_eq!(
        ids,
        orders
            .iter()
            .map(|order| order.order_id)
            .collect::<Vec<_>>()
    );
    assert!(
        outcomes[..8]
            .iter()
            .all(|outcome| matches!(outcome, OrderOutcome::Issued(_)))
    );
    let out_of_stock = |outcome: &OrderOutcome| {
        matches!(
            outcome,
            OrderOutcome::Refused {
                refusal: Refusal::OutOfStock,
                ..
            }
        )
    };
    assert!(outcomes[8..].iter().all(out_of_stock));
}

#[tokio::test]
async fn nothing_is_asked_about_no_orders() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    assert!(client.issue_many(&[]).await.unwrap().is_empty());
    assert!(client.orders(&[]).await.unwrap().is_empty());
    assert!(conn.hears_nothing().await);
}

#[tokio::test]
async fn a_refusal_is_an_error_with_its_reason() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let order = orders(1)[0];
    let script = async {
        let (header, items) = conn.issue().await;
        conn.refuse(header, &items, Refusal::OutOfStock, 0).await;
        let (header, _) = conn.issue().await;
        conn.refuse_whole(header, Refusal::TooManyOrders, 0, "at most none")
            .await;
    };
    let calls = async {
        let error = client.issue(order).await.unwrap_err();
        let Error::Refused {
            order_id, refusal, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (*order_id, *refusal),
            (Some(order.order_id), Refusal::OutOfStock)
        );
        assert!(
            error
                .to_string()
                .starts_with("refused as OutOfStock: fewer cards are free"),
            "{error}"
        );
        let error = client.issue(order).await.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::TooManyOrders));
        assert!(error.to_string().contains("at most none"), "{error}");
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn busy_is_tried_again_and_only_for_those_that_were_refused() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let orders = orders(3);
    let script = async {
        let (header, items) = conn.issue().await;
        let put = |out: &mut _| {
            put_dealt(out, items[0].order_id, false);
            put_refused(out, items[1].order_id, items[1].sku, Refusal::Busy, 10);
            put_dealt(out, items[2].order_id, false);
        };
        conn.reply(header, 3, 0, put).await;
        // Then the server is too busy for the whole frame.
        let (header, again) = conn.issue().await;
        assert_eq!(again, [items[1]]);
        conn.refuse_whole(header, Refusal::ShuttingDown, 5, "")
            .await;
        let (header, again) = conn.issue().await;
        assert_eq!(again, [items[1]]);
        conn.deal(header, &again, false).await;
    };
    let (outcomes, ()) = tokio::join!(client.issue_many(&orders), script);
    for (outcome, order) in outcomes.unwrap().iter().zip(&orders) {
        assert!(
            matches!(outcome, OrderOutcome::Issued(issued) if issued.order_id == order.order_id)
        );
    }
}

#[tokio::test]
async fn busy_for_longer_than_the_call_may_take_is_a_refusal() {
    let peer = Peer::bind().await;
    let builder = peer.builder().call_timeout(Duration::from_millis(100));
    let (client, mut conn) = peer.connected(builder).await;
    let script = async {
        let (header, items) = conn.issue().await;
        conn.refuse(header, &items, Refusal::Busy, 10_000).await;
    };
    let (outcome, ()) = tokio::join!(client.issue(orders(1)[0]), script);
    assert!(matches!(
        outcome,
        Err(Error::Refused {
            refusal: Refusal::Busy,
            retry_after_ms: 10_000,
            ..
        })
    ));
}

#[tokio::test]
async fn a_dropped_call_leaves_the_connection_usable() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let orders = orders(2);
    let dropped = tokio::select! {
        _ = client.issue(orders[0]) => panic!("nobody answers yet"),
        request = conn.issue() => request,
    };
    let script = async {
        let (header, items) = conn.issue().await;
        conn.deal(dropped.0, &dropped.1, false).await;
        conn.deal(header, &items, false).await;
    };
    let (issued, ()) = tokio::join!(client.issue(orders[1]), script);
    assert_eq!(issued.unwrap().order_id, orders[1].order_id);
    assert!(peer.is_left_alone().await);
}

#[tokio::test]
async fn no_more_orders_are_under_way_than_allowed() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder().in_flight_max(2)).await;
    let orders = orders(5);
    let script = async {
        for left in [2, 2, 1] {
            let (header, items) = conn.issue().await;
            assert_eq!(items.len(), left);
            assert!(conn.hears_nothing().await);
            conn.deal(header, &items, false).await;
        }
    };
    let (outcomes, ()) = tokio::join!(client.issue_many(&orders), script);
    assert_eq!(outcomes.unwrap().len(), 5);
}

#[tokio::test]
async fn look_ups() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let ids = [OrderId::new_v7(), OrderId::new_v7()];
    let script = async {
        for _ in 0..2 {
            let (header, body) = conn.expect(Kind::LookUp).await;
            let asked: Vec<_> = lookup_items(&body, header.count).unwrap().collect();
            let put = |out: &mut _| {
                for id in &asked {
                    match *id == ids[0] {
                        true => put_dealt(out, *id, false),
                        false => put_refused(out, *id, SkuId(0), Refusal::OrderNotFound, 0),
                    }
                }
            };
            conn.reply(header, header.count, 0, put).await;
        }
        let (header, _) = conn.expect(Kind::LookUp).await;
        conn.reply(header, 1, 0, |out| {
            put_refused(out, ids[0], SkuId(7), Refusal::CardDamaged, 0)
        })
        .await;
    };
    let calls = async {
        let outcomes = client.orders(&ids).await.unwrap();
        assert!(matches!(&outcomes[0], OrderOutcome::Issued(issued) if issued.order_id == ids[0]));
        assert!(matches!(
            &outcomes[1],
            OrderOutcome::Refused {
                refusal: Refusal::OrderNotFound,
                ..
            }
        ));
        assert_eq!(client.order(ids[1]).await.unwrap(), None);
        assert_eq!(
            client.order(ids[0]).await.unwrap_err().refusal(),
            Some(Refusal::CardDamaged)
        );
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn skus_are_listed_in_pages_and_remembered() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let row = |sku: u32, name: &str| SkuRow {
        sku,
        name: name.to_owned(),
    };
    let script = async {
        let (header, body) = conn.expect(Kind::SkuList).await;
        assert!(body.is_empty());
        conn.control(
            header,
            FLAG_MORE,
            &SkuListReply {
                skus: vec![row(1, "a"), row(2, "b")],
            },
        )
        .await;
        conn.control(
            header,
            0,
            &SkuListReply {
                skus: vec![row(3, "c")],
            },
        )
        .await;
        // The unknown name asks once more; the known ones do not.
        let (header, _) = conn.expect(Kind::SkuList).await;
        conn.control(
            header,
            0,
            &SkuListReply {
                skus: vec![row(1, "a")],
            },
        )
        .await;
        assert!(conn.hears_nothing().await);
    };
    let calls = async {
        assert_eq!(client.sku_id("c").await.unwrap(), SkuId(3));
        assert_eq!(client.clone().sku_id("b").await.unwrap(), SkuId(2));
        let error = client.sku_id("z").await.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::UnknownSku));
        assert_eq!(client.sku_id("a").await.unwrap(), SkuId(1));
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn the_other_calls() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let stock = StockRow {
        sku: 1,
        name: "a".to_owned(),
        free: 5,
        ..StockRow::default()
    };
    let row = RouteRow {
        version: 3,
        same_as: Some(1),
        ..RouteRow::default()
    };
    let info = ServerInfoReply {
        version: "0.1.0".to_owned(),
        cores: 2,
        ..ServerInfoReply::default()
    };
    let script = async {
        let (header, body) = conn.expect(Kind::SkuCreate).await;
        assert_eq!(
            decode_control(&body),
            Ok(SkuCreate {
                name: "a".to_owned()
            })
        );
        conn.control(header, 0, &SkuCreateReply { sku: 1, lsn: 2 })
            .await;
        let (header, body) = conn.expect(Kind::Stock).await;
        assert_eq!(
            decode_control(&body),
            Ok(Stock {
                name: Some("a".to_owned())
            })
        );
        conn.control(
            header,
            0,
            &StockReply {
                rows: vec![stock.clone()],
            },
        )
        .await;
        let (header, body) = conn.expect(Kind::Ping).await;
        conn.reply(header, 0, 0, |out| out.extend_from_slice(&body))
            .await;
        let (header, _) = conn.expect(Kind::ServerInfo).await;
        conn.control(header, 0, &info).await;
        let (header, body) = conn.expect(Kind::RoutesLoad).await;
        assert_eq!(
            decode_control(&body),
            Ok(RoutesLoad {
                toml: "x = 1".to_owned(),
                expect: Trailing(None),
            })
        );
        conn.control(
            header,
            0,
            &RoutesLoadReply {
                version: 3,
                ..RoutesLoadReply::default()
            },
        )
        .await;
        let shown = RoutesShowReply {
            version: 3,
            toml: "x = 1".to_owned(),
        };
        let (header, body) = conn.expect(Kind::RoutesShow).await;
        // What a client said that knew no versions.
        assert!(body.is_empty());
        conn.control(header, 0, &shown).await;
        for version in [3, 2] {
            let (header, body) = conn.expect(Kind::RoutesShow).await;
            let version = Trailing(Some(version));
            assert_eq!(decode_control(&body), Ok(RoutesShow { version }));
            conn.control(header, 0, &shown).await;
        }
        let (header, _) = conn.expect(Kind::RoutesHistory).await;
        let rows = vec![row.clone()];
        conn.control(header, 0, &RoutesHistoryReply { rows }).await;
        let (header, body) = conn.expect(Kind::RoutesRollback).await;
        let back = RoutesRollback {
            to: Some(0),
            expect: Some(3),
        };
        assert_eq!(decode_control(&body), Ok(back));
        let loaded = RoutesLoadReply {
            version: 4,
            ..RoutesLoadReply::default()
        };
        conn.control(header, 0, &loaded).await;
        let (header, body) = conn.expect(Kind::RoutesLoad).await;
        let load = RoutesLoad {
            toml: "y".to_owned(),
            expect: Trailing(Some(4)),
        };
        assert_eq!(decode_control(&body), Ok(load));
        conn.control(header, 0, &loaded).await;
    };
    let calls = async {
        assert_eq!(client.sku_create("a").await.unwrap(), SkuId(1));
        assert_eq!(
            client.stock(Some("a")).await.unwrap(),
            std::slice::from_ref(&stock)
        );
        assert!(client.ping().await.unwrap() < Duration::from_secs(5));
        assert_eq!(client.server_info().await.unwrap(), info);
        assert_eq!(client.routes_load("x = 1").await.unwrap().version, 3);
        assert_eq!(client.routes_show().await.unwrap().toml, "x = 1");
        assert_eq!(client.routes_show_version(3).await.unwrap().version, 3);
        // A server that is so old that it has not read which.
        let error = client.routes_show_version(2).await.unwrap_err();
        let (asked, answered) = (2, 3);
        let wrong = ProtocolError::WrongTable { asked, answered };
        assert_eq!(error.to_string(), Error::Protocol(wrong).to_string());
        assert_eq!(
            client.routes_history().await.unwrap(),
            std::slice::from_ref(&row)
        );
        let options = RoutesOptions::expect(3);
        let back = client.routes_rollback(Some(0), options).await.unwrap();
        assert_eq!(back.version, 4);
        let options = RoutesOptions::expect(4);
        client.routes_load_with("y", options).await.unwrap();
    };
    tokio::join!(calls, script);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_from_many_tasks_each_get_their_own_card() {
    let peer = Peer::bind().await;
    let (client, conn) = peer.connected(peer.builder().in_flight_max(50)).await;
    let server = tokio::spawn(conn.serve());
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for order in orders(50) {
                    let issued = client.issue(order).await.unwrap();
                    assert_eq!(
                        issued.cards[0].secret.to_string_lossy(),
                        secret_of(order.order_id)
                    );
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    drop(client);
    server.await.unwrap();
}

#[tokio::test]
async fn the_connection_closes_with_the_last_handle() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let clone = client.clone();
    drop(client);
    assert!(conn.hears_nothing().await);
    drop(clone);
    assert!(conn.is_closed().await);
}

#[test]
fn a_handle_outlives_the_runtime_it_was_made_in() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let server = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let peer = server.block_on(Peer::bind());
    let builder = peer.builder();
    server.spawn(async move {
        loop {
            let conn = peer.accept().await;
            tokio::spawn(conn.serve());
        }
    });
    let first = runtime();
    let client: Client = first.block_on(builder.build()).unwrap();
    // It takes the task that served the connection with it.
    drop(first);
    let order = orders(1)[0];
    assert_eq!(
        runtime().block_on(client.issue(order)).unwrap().order_id,
        order.order_id
    );
}
