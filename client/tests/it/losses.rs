//! Connections that are lost, servers that are silent or gone: what is tried again, and what the caller is told.

use std::time::{Duration, Instant};

use croupier_client::{Client, Error, Order, OrderOutcome, Refusal, SkuId};
use croupier_protocol::{FaultCode, Kind, SkuCreateReply, SkuListReply, StockReply};

use crate::calls::orders;
use crate::peer::{Peer, put_dealt};

#[track_caller]
fn cause_of_unknown(result: Result<impl std::fmt::Debug, Error>, orders: &[Order]) -> Error {
    match result {
        Err(Error::OutcomeUnknown {
            count,
            first,
            cause,
        }) => {
            assert_eq!((count, first), (orders.len(), orders[0].order_id));
            *cause
        }
        other => panic!("the outcome is unknown, but the client says {other:?}"),
    }
}

#[tokio::test]
async fn an_order_is_sent_again_with_its_id_after_a_lost_connection() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let order = orders(1)[0];
    let script = async {
        let (_, items) = conn.issue().await;
        drop(conn);
        let mut conn = peer.accept().await;
        let (header, again) = conn.issue().await;
        assert_eq!(again, items);
        conn.deal(header, &again, true).await;
        conn
    };
    let (issued, _conn) = tokio::join!(client.issue(order), script);
    assert!(issued.unwrap().repeat);
}

#[tokio::test]
async fn all_calls_that_wait_on_a_lost_connection_move_to_one_new_one() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let orders = orders(3);
    let script = async {
        for _ in 0..3 {
            conn.issue().await;
        }
        drop(conn);
        let mut conn = peer.accept().await;
        for _ in 0..3 {
            let (header, items) = conn.issue().await;
            conn.deal(header, &items, false).await;
        }
        assert!(peer.is_left_alone().await);
        conn
    };
    let (a, b, c, _conn) = tokio::join!(
        client.issue(orders[0]),
        client.issue(orders[1]),
        client.issue(orders[2]),
        script
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_costs_no_try() {
    let peer = Peer::bind().await;
    let (client, conn) = peer.connected(peer.builder().retries(0)).await;
    drop(conn);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let serve = async { peer.accept().await.serve().await };
    tokio::select! {
        issued = client.issue(orders(1)[0]) => assert!(issued.is_ok()),
        () = serve => panic!("the client keeps its connection"),
    }
}

#[tokio::test]
async fn an_order_that_was_sent_and_never_answered_is_unknown() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder().retries(1)).await;
    let orders = orders(2);
    let script = async {
        conn.issue().await;
        drop(conn);
        let mut conn = peer.accept().await;
        conn.issue().await;
    };
    let (result, ()) = tokio::join!(client.issue_many(&orders), script);
    let cause = cause_of_unknown(result, &orders);
    assert!(matches!(cause, Error::Closed { .. }), "{cause}");
    assert!(peer.is_left_alone().await, "one retry was allowed");
}

#[tokio::test]
async fn an_order_whose_server_never_comes_back_is_unknown() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let orders = orders(1);
    let script = async {
        conn.issue().await;
        drop(conn);
        drop(peer);
    };
    let (result, ()) = tokio::join!(client.issue_many(&orders), script);
    let cause = cause_of_unknown(result, &orders);
    assert!(
        matches!(cause, Error::Closed { .. }),
        "never `nothing was sent`: {cause}"
    );
}

#[tokio::test]
async fn a_reply_that_never_comes_ends_the_call_and_not_the_connection() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer
        .connected(peer.builder().call_timeout(Duration::from_millis(200)))
        .await;
    let orders = orders(2);
    let called = Instant::now();
    let (result, late) = tokio::join!(client.issue_many(&orders[..1]), conn.issue());
    assert!((200..2000).contains(&called.elapsed().as_millis()));
    let cause = cause_of_unknown(result, &orders[..1]);
    assert!(
        matches!(
            cause,
            Error::TimedOut {
                after_ms: 200,
                sent: true
            }
        ),
        "{cause}"
    );
    let script = async {
        let (header, items) = conn.issue().await;
        // The reply that nobody waits for any more comes first.
        conn.deal(late.0, &late.1, false).await;
        conn.deal(header, &items, false).await;
    };
    let (issued, ()) = tokio::join!(client.issue(orders[1]), script);
    assert_eq!(issued.unwrap().order_id, orders[1].order_id);
}

#[tokio::test]
async fn a_server_that_stays_silent_is_given_up() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer
        .connected(peer.builder().call_timeout(Duration::from_millis(1200)))
        .await;
    let orders = orders(2);
    let (result, _) = tokio::join!(client.issue(orders[0]), conn.issue());
    cause_of_unknown(result, &orders[..1]);
    let serve = async { peer.accept().await.serve().await };
    tokio::select! {
        issued = client.issue(orders[1]) => assert!(issued.is_ok()),
        () = serve => panic!("the client keeps its new connection"),
    }
    assert!(conn.is_closed().await);
}

#[tokio::test]
async fn a_refusal_that_says_nothing_about_an_earlier_try_leaves_it_unknown() {
    for refusal in [
        Refusal::Busy,
        Refusal::DeadlineExceeded,
        Refusal::StoreFailed,
    ] {
        for whole in [false, true] {
            let peer = Peer::bind().await;
            let (client, mut conn) = peer.connected(peer.builder()).await;
            let orders = orders(1);
            let script = async {
                conn.issue().await;
                drop(conn);
                let mut conn = peer.accept().await;
                let (header, items) = conn.issue().await;
                match whole {
                    true => conn.refuse_whole(header, refusal, 60_000, "").await,
                    false => conn.refuse(header, &items, refusal, 60_000).await,
                }
                conn
            };
            let (result, _conn) = tokio::join!(client.issue(orders[0]), script);
            assert_eq!(cause_of_unknown(result, &orders).refusal(), Some(refusal));
        }
    }
}

#[tokio::test]
async fn a_refusal_by_the_dealer_settles_an_earlier_try() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let script = async {
        conn.issue().await;
        drop(conn);
        let mut conn = peer.accept().await;
        let (header, items) = conn.issue().await;
        conn.refuse(header, &items, Refusal::OutOfStock, 0).await;
        conn
    };
    let (result, _conn) = tokio::join!(client.issue(orders(1)[0]), script);
    assert_eq!(result.unwrap_err().refusal(), Some(Refusal::OutOfStock));
}

#[tokio::test]
async fn a_store_that_failed_leaves_the_order_unknown() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let orders = orders(1);
    let script = async {
        let (header, items) = conn.issue().await;
        conn.refuse(header, &items, Refusal::StoreFailed, 0).await;
    };
    let (result, ()) = tokio::join!(client.issue(orders[0]), script);
    assert_eq!(
        cause_of_unknown(result, &orders).refusal(),
        Some(Refusal::StoreFailed)
    );
}

#[tokio::test]
async fn what_was_answered_stands_when_the_rest_cannot_be_asked_again() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder().retries(0)).await;
    let orders = orders(2);
    let script = async {
        let (header, items) = conn.issue().await;
        let put = |out: &mut _| {
            put_dealt(out, items[0].order_id, false);
            croupier_protocol::put_refused(out, items[1].order_id, SkuId(7), Refusal::Busy, 50);
        };
        conn.reply(header, 2, 0, put).await;
        drop(conn);
        drop(peer);
    };
    let (outcomes, ()) = tokio::join!(client.issue_many(&orders), script);
    let outcomes = outcomes.unwrap();
    assert!(matches!(outcomes[0], OrderOutcome::Issued(_)));
    assert!(matches!(
        outcomes[1],
        OrderOutcome::Refused {
            refusal: Refusal::Busy,
            ..
        }
    ));
}

#[tokio::test]
async fn some_frames_answered_and_some_not_is_unknown_for_all() {
    let mut peer = Peer::bind().await;
    peer.hello.orders_per_frame_max = 1;
    let (client, mut conn) = peer.connected(peer.builder().retries(0)).await;
    let orders = orders(2);
    let script = async {
        let (header, items) = conn.issue().await;
        conn.issue().await;
        conn.deal(header, &items, false).await;
        drop(conn);
    };
    let (result, ()) = tokio::join!(client.issue_many(&orders), script);
    assert!(matches!(
        cause_of_unknown(result, &orders),
        Error::Closed { .. }
    ));
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_says_where() {
    let peer = Peer::bind().await;
    let url = peer.url();
    drop(peer);
    let error = Client::connect(&url).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(url.strip_prefix("croupier://").unwrap()),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_has_gone_since_is_unreachable_and_nothing_was_sent() {
    let peer = Peer::bind().await;
    let (client, conn) = peer.connected(peer.builder().retries(1)).await;
    drop((conn, peer));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let orders = orders(3);
    assert!(matches!(
        client.issue(orders[0]).await,
        Err(Error::Unreachable { .. })
    ));
    assert!(matches!(
        client.issue_many(&orders).await,
        Err(Error::Unreachable { .. })
    ));
    assert!(matches!(
        client.sku_create("a").await,
        Err(Error::Unreachable { .. })
    ));
}

#[tokio::test]
async fn a_handshake_that_never_comes_is_unreachable() {
    let peer = Peer::bind().await;
    let builder = peer.builder().connect_timeout(Duration::from_millis(50));
    let (result, _conn) = tokio::join!(builder.build(), peer.accept_silently());
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(
        error.to_string().contains("no handshake within 50 ms"),
        "{error}"
    );
}

#[tokio::test]
async fn many_calls_share_one_failed_try_to_connect() {
    let peer = Peer::bind().await;
    let builder = peer
        .builder()
        .connect_timeout(Duration::from_millis(200))
        .retries(0);
    let (client, conn) = peer.connected(builder).await;
    drop(conn);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The peer's backlog takes connections, and nobody shakes hands.
    let called = Instant::now();
    let calls: Vec<_> = orders(20)
        .into_iter()
        .map(|order| {
            let client = client.clone();
            tokio::spawn(async move { client.issue(order).await })
        })
        .collect();
    for call in calls {
        assert!(matches!(
            call.await.unwrap(),
            Err(Error::Unreachable { .. })
        ));
    }
    assert!(
        called.elapsed() < Duration::from_millis(1000),
        "{:?}",
        called.elapsed()
    );
}

#[tokio::test]
async fn a_call_that_found_no_connection_in_time_sent_nothing() {
    let peer = Peer::bind().await;
    let builder = peer.builder().call_timeout(Duration::from_millis(100));
    let (client, conn) = peer.connected(builder).await;
    drop(conn);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = client.issue(orders(1)[0]).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TimedOut {
                after_ms: 100,
                sent: false
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("nothing was sent"), "{error}");
}

#[tokio::test]
async fn reads_are_repeated_and_changes_are_not() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let script = async {
        conn.expect(Kind::Stock).await;
        drop(conn);
        let mut conn = peer.accept().await;
        let (header, _) = conn.expect(Kind::Stock).await;
        conn.control(header, 0, &StockReply::default()).await;

        conn.expect(Kind::SkuCreate).await;
        drop(conn);
        let mut conn = peer.accept().await;
        conn.expect(Kind::RoutesLoad).await;
        drop(conn);
        let mut conn = peer.accept().await;
        let (header, _) = conn.expect(Kind::SkuList).await;
        conn.control(header, 0, &SkuListReply::default()).await;
        conn
    };
    let calls = async {
        assert!(client.stock(None).await.unwrap().is_empty());
        assert!(matches!(
            client.sku_create("a").await,
            Err(Error::Closed { .. })
        ));
        assert!(matches!(
            client.routes_load("").await,
            Err(Error::Closed { .. })
        ));
        assert!(client.sku_list().await.unwrap().is_empty());
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn changes_that_were_never_sent_are_tried_again() {
    let peer = Peer::bind().await;
    let builder = peer.builder().connect_timeout(Duration::from_millis(100));
    let (client, conn) = peer.connected(builder).await;
    drop(conn);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let script = async {
        // The first new connection dies in the handshake, the second one lives.
        drop(peer.accept_silently().await);
        let mut conn = peer.accept().await;
        let (header, _) = conn.expect(Kind::SkuCreate).await;
        conn.control(header, 0, &SkuCreateReply { sku: 4, lsn: 1 })
            .await;
        conn
    };
    let (created, _conn) = tokio::join!(client.sku_create("a"), script);
    assert_eq!(created.unwrap(), SkuId(4));
}

#[tokio::test]
async fn a_fault_ends_the_connection_and_is_told() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let orders = orders(1);
    let script = async {
        conn.expect(Kind::Ping).await;
        conn.fault(FaultCode::Malformed, "a body of 3 bytes").await;
        let mut conn = peer.accept().await;
        conn.issue().await;
        conn.fault(FaultCode::UnsupportedFlag, "flag 2").await;
        // These pass, so the call is tried again.
        let mut conn = peer.accept().await;
        conn.expect(Kind::Ping).await;
        conn.fault(FaultCode::TooManyConnections, "").await;
        let mut conn = peer.accept().await;
        let (header, _) = conn.expect(Kind::Ping).await;
        conn.reply(header, 0, 0, |_| {}).await;
        conn
    };
    let calls = async {
        let error = client.ping().await.unwrap_err();
        assert!(
            matches!(
                &error,
                Error::Fault {
                    code: FaultCode::Malformed,
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            error.to_string().contains("Malformed: a body of 3 bytes"),
            "{error}"
        );
        let cause = cause_of_unknown(client.issue(orders[0]).await, &orders);
        assert!(
            matches!(
                cause,
                Error::Fault {
                    code: FaultCode::UnsupportedFlag,
                    ..
                }
            ),
            "{cause}"
        );
        client.ping().await.unwrap();
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn an_order_is_never_sent_again_to_another_store() {
    let mut peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    peer.hello.store_id = [8; 16];
    let orders = orders(1);
    let script = async {
        conn.issue().await;
        drop(conn);
        assert!(peer.accept().await.is_closed().await);
    };
    let (result, ()) = tokio::join!(client.issue(orders[0]), script);
    let cause = cause_of_unknown(result, &orders);
    assert!(
        cause.to_string().contains("another store answers"),
        "{cause}"
    );
}
