//! Peers that do not speak the protocol, or not this one: nothing is guessed, and nothing that was sent is forgotten.

use bytes::BytesMut;
use croupier_client::{Error, ProtocolError};
use croupier_protocol::*;

use crate::calls::orders;
use crate::peer::{Conn, Peer, put_dealt};

#[tokio::test]
async fn a_web_server_is_told_from_a_croupier() {
    let peer = Peer::bind().await;
    let (result, ()) = tokio::join!(peer.builder().build(), async {
        let mut conn = peer.accept_silently().await;
        conn.request().await;
        conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let error = result.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Protocol(ProtocolError::Frame(FrameError::TooLong { .. }))
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_handshake_may_go_wrong_in_many_ways() {
    let hello = |version| HelloReply {
        version,
        frame_bytes_max: 1,
        features: 0,
        store_id: [0; 16],
        orders_per_frame_max: 1,
        orders_in_flight_max: 1,
        quantity_max: 1,
    };
    type Script = Box<dyn Fn(&mut BytesMut)>;
    let table: [(Kind, Script, &str); 4] = [
        (
            Kind::PingReply,
            Box::new(|_| {}),
            "a PingReply came where HelloReply was due",
        ),
        (
            Kind::HelloReply,
            Box::new(|_| {}),
            "HelloReply cannot be read",
        ),
        (
            Kind::HelloReply,
            Box::new(move |out| hello(2).encode_into(out)),
            "chose protocol version 2",
        ),
        (
            Kind::Fault,
            Box::new(|out| {
                FaultBody {
                    fault: FaultCode::UnsupportedVersion,
                    text: "only 3".to_owned(),
                }
                .encode_into(out);
            }),
            "closed the connection as UnsupportedVersion: only 3",
        ),
    ];
    for (kind, encode, says) in table {
        let peer = Peer::bind().await;
        let (result, ()) = tokio::join!(peer.builder().build(), async {
            let mut conn = peer.accept_silently().await;
            conn.request().await;
            conn.frame(kind, 0, 0, 0, encode).await;
        });
        let error = result.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// One order is sent, `answer` answers it, and the client finds `expect` wrong with it.
async fn check(answer: impl AsyncFnOnce(&mut Conn, FrameHeader, Vec<StepItem>), expect: &str) {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let order = orders(1)[0];
    let script = async {
        let (header, items) = conn.issue().await;
        answer(&mut conn, header, items).await;
    };
    let (result, ()) = tokio::join!(client.issue(order), script);
    let error = result.unwrap_err();
    let Error::OutcomeUnknown { first, cause, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*first, order.order_id);
    assert!(matches!(**cause, Error::Protocol(_)), "{cause}");
    assert!(cause.to_string().contains(expect), "{cause}");
    // It is not tried again, and the next call gets a connection of its own unless only this reply was wrong.
    assert!(peer.is_left_alone().await);
}

#[tokio::test]
async fn replies_may_be_wrong_in_many_ways() {
    check(
        async |conn, _, _| conn.send(b"garbage").await,
        "frame length",
    )
    .await;
    check(
        async |conn, _, _| conn.send(b"\x18\0\0\0\0\0\0\0XX").await,
        "\"CR\" should be",
    )
    .await;
    check(
        async |conn, header, items| {
            let mut wire = BytesMut::new();
            let mut writer = FrameWriter::begin(&mut wire, Kind::IssueReply, header.request_id);
            put_dealt(writer.body(), items[0].order_id, false);
            writer.set_count(1);
            writer.finish();
            *wire.last_mut().unwrap() ^= 1;
            conn.send(&wire).await;
        },
        "damaged on its way",
    )
    .await;
    check(
        async |conn, header, _| {
            conn.frame(Kind::StockReply, header.request_id, 0, 0, |_| {})
                .await
        },
        "a StockReply came where IssueReply was due",
    )
    .await;
    check(
        async |conn, _, items| {
            conn.frame(Kind::IssueReply, 99, 1, 0, |out| {
                put_dealt(out, items[0].order_id, false)
            })
            .await;
        },
        "a reply to request 99",
    )
    .await;
    check(
        async |conn, header, _| conn.reply(header, 1, 0, |_| {}).await,
        "IssueReply cannot be read",
    )
    .await;
    check(
        async |conn, header, _| conn.reply(header, 0, 0, |_| {}).await,
        "0 answers to 1 items",
    )
    .await;
    check(
        async |conn, header, _| {
            conn.reply(header, 1, 0, |out| {
                put_dealt(out, OrderId::from_u128(5), false)
            })
            .await;
        },
        "an answer to order 00000000-0000-0000-0000-000000000005",
    )
    .await;
    check(
        async |conn, header, _| {
            conn.frame(Kind::Refused, header.request_id, 0, 0, |_| {})
                .await
        },
        "Refused cannot be read",
    )
    .await;
}

#[tokio::test]
async fn frames_that_come_in_crumbs_or_in_one_piece_are_the_same() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let orders = orders(3);
    let script = async {
        let mut wire = BytesMut::new();
        for _ in 0..3 {
            let (header, items) = conn.issue().await;
            let mut writer = FrameWriter::begin(&mut wire, Kind::IssueReply, header.request_id);
            put_dealt(writer.body(), items[0].order_id, false);
            writer.set_count(1);
            writer.finish();
        }
        for crumb in wire.chunks(7) {
            conn.send(crumb).await;
            tokio::task::yield_now().await;
        }
    };
    let (a, b, c, ()) = tokio::join!(
        client.issue(orders[0]),
        client.issue(orders[1]),
        client.issue(orders[2]),
        script
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
}

#[tokio::test]
async fn a_reply_of_a_server_with_longer_frames_is_read() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let order = orders(1)[0].quantity(1000);
    let secret = [b'x'; SECRET_BYTES_MAX];
    let script = async {
        let (header, items) = conn.issue().await;
        let put = |out: &mut BytesMut| {
            let mut writer = IssuedWriter::begin(out, items[0].order_id, Lsn(1), SkuId(7), false);
            (0..1000).for_each(|slot| {
                writer.put_card(
                    CardRef {
                        slab: 1,
                        slot,
                        generation: 0,
                    },
                    &secret,
                )
            });
            writer.finish();
        };
        conn.reply(header, 1, 0, put).await;
    };
    let (issued, ()) = tokio::join!(client.issue(order), script);
    let issued = issued.unwrap();
    assert_eq!(issued.cards.len(), 1000);
    assert!(
        issued
            .cards
            .iter()
            .all(|card| card.secret.as_bytes() == secret)
    );
}

#[tokio::test]
async fn a_request_longer_than_the_server_takes_is_not_sent() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let error = client.routes_load(&"x".repeat(70_000)).await.unwrap_err();
    let Error::Protocol(ProtocolError::RequestTooLong { bytes, max }) = error else {
        panic!("{error}")
    };
    assert_eq!(
        (bytes, max),
        (FRAME_HEADER_BYTES + 8 + 70_000, FRAME_BYTES_MAX_DEFAULT)
    );
    assert!(conn.hears_nothing().await);
}
