//! The change feed: what is asked, what is made of the answer, and where a reader goes on.

use std::time::Duration;

use croupier_client::{Error, FeedEvent, FeedOptions, HoldEnd, Lsn, OrderId, ProtocolError, SkuId};
use croupier_protocol::*;

use crate::peer::Peer;

fn released(lsn: u64, how: u16) -> FeedRow {
    FeedRow {
        lsn,
        unix_ms: 5,
        kind: FeedKind::Released.as_u16(),
        sku: 7,
        order: Some(OrderId::from_u128(9).to_bytes()),
        quantity: 2,
        how,
        ..FeedRow::default()
    }
}

fn page(next: u64, facts: Vec<FeedRow>) -> FeedReply {
    FeedReply {
        next,
        end: 90,
        facts,
    }
}

#[tokio::test]
async fn a_reader_asks_from_where_it_is_and_stays_there_on_errors() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let mut feed = client.follow(FeedOptions {
        from: Lsn(3),
        skus: vec![SkuId(7)],
        facts_max: 4,
        wait: Duration::from_secs(3600),
        ..FeedOptions::default()
    });
    let script = async {
        let replies = [
            page(20, vec![released(12, 2)]),
            page(30, vec![]),
            page(40, vec![released(31, 3)]),
        ];
        for (from, reply) in [3, 20, 30].into_iter().zip(&replies) {
            let (header, body) = conn.expect(Kind::Feed).await;
            let asked = Feed {
                from,
                skus: vec![7],
                // Those that this client can read.
                kinds: FeedKind::ALL.map(FeedKind::as_u16).into(),
                facts_max: 4,
                wait_ms: FEED_WAIT_MS_MAX,
            };
            assert_eq!(decode_control(&body), Ok(asked));
            conn.control(header, 0, reply).await;
        }
        let (header, _) = conn.expect(Kind::Feed).await;
        conn.refuse_whole(header, Refusal::FeedTooOld, 0, "go on from LSN 77")
            .await;
    };
    let calls = async {
        let facts = feed.next().await.unwrap();
        assert_eq!(facts.len(), 1);
        assert_eq!((facts[0].lsn, facts[0].unix_ms), (Lsn(12), 5));
        let expect = FeedEvent::Released {
            order_id: OrderId::from_u128(9),
            sku: SkuId(7),
            quantity: 2,
            end: HoldEnd::Expired,
        };
        assert_eq!(facts[0].event, expect);
        assert_eq!(feed.next().await.unwrap(), []);
        assert_eq!(feed.position(), Lsn(30));
        let unknown = feed.next().await.unwrap_err();
        let Error::Protocol(ProtocolError::UnknownNumber(number)) = unknown else {
            panic!("{unknown}")
        };
        assert_eq!(number.found, 3);
        let refused = feed.next().await.unwrap_err();
        assert_eq!(refused.refusal(), Some(Refusal::FeedTooOld));
        assert!(refused.to_string().contains("LSN 77"));
        assert_eq!(feed.position(), Lsn(30));
    };
    tokio::join!(calls, script);
}
