//! Imports: rows in frames, frames under way, one end; and what is left of an import that goes wrong.

use std::time::Duration;

use croupier_client::{
    Client, Error, Import, ImportOptions, ImportRow, Lsn, Refusal, RejectReason, Rejection,
    RejectionCount, SkuId,
};
use croupier_protocol::*;

use crate::peer::{Conn, Peer};

fn options() -> ImportOptions {
    ImportOptions {
        sku: "gift".to_owned(),
        create_sku: true,
        batch: Some("may".to_owned()),
        pool: None,
        max_uses: MaxUses::Times(5),
    }
}

/// An import that is open, and its connection.
async fn open(peer: &Peer, client: &Client) -> (Import, Conn) {
    let script = async {
        let mut conn = peer.accept().await;
        let (header, body) = conn.expect(Kind::ImportBegin).await;
        let begin = ImportBegin {
            sku: "gift".to_owned(),
            create_sku: true,
            batch: Some("may".to_owned()),
            pool: None,
            max_uses: MaxUses::Times(5),
        };
        assert_eq!(decode_control(&body), Ok(begin));
        conn.control(header, 0, &ImportBeginReply { import: 5, sku: 7 })
            .await;
        conn
    };
    let (import, conn) = tokio::join!(client.import(options()), script);
    let import = import.unwrap();
    assert_eq!(import.sku(), SkuId(7));
    (import, conn)
}

/// Takes one ImportRows frame, checks the line numbers, and returns what acknowledges it.
async fn rows(conn: &mut Conn, received: &mut u64) -> (FrameHeader, ImportRowsReply) {
    let (header, body) = conn.expect(Kind::ImportRows).await;
    assert!(header.length <= FRAME_BYTES_MAX_DEFAULT);
    let (import, rows) = import_rows(&body, header.count).unwrap();
    assert_eq!(import, 5);
    for row in rows {
        *received += 1;
        assert_eq!(row.unwrap().line, *received);
    }
    (
        header,
        ImportRowsReply {
            import: 5,
            rows_received: *received,
        },
    )
}

async fn push(import: &mut Import, lines: std::ops::RangeInclusive<u64>) -> Result<(), Error> {
    let secret = [b's'; 1000];
    for line in lines {
        import.push(ImportRow::new(line, &secret)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn rows_are_framed_acknowledged_and_reported() {
    let peer = Peer::bind().await;
    let (client, _conn) = peer.connected(peer.builder()).await;
    let (mut import, mut conn) = open(&peer, &client).await;
    let script = async {
        let mut received = 0;
        while received < 200 {
            let (header, reply) = rows(&mut conn, &mut received).await;
            conn.reply(header, 0, 0, |out| reply.encode_into(out)).await;
        }
        let (header, body) = conn.expect(Kind::ImportEnd).await;
        assert_eq!(ImportEnd::decode(&body), Ok(ImportEnd { import: 5 }));
        let page = |lines: &[u64]| ImportEndReply {
            batch: 3,
            label: "may".to_owned(),
            lsn: 44,
            accepted: 197,
            slabs: 1,
            counts: vec![ReasonCount {
                reason: 7,
                count: 3,
            }],
            rejections: lines
                .iter()
                .map(|line| RejectedLine {
                    line: *line,
                    reason: 7,
                })
                .collect(),
        };
        conn.control(header, FLAG_MORE, &page(&[1, 2])).await;
        conn.control(header, 0, &page(&[9])).await;
        conn
    };
    let calls = async {
        push(&mut import, 1..=200).await.unwrap();
        import.finish().await.unwrap()
    };
    let (report, mut conn) = tokio::join!(calls, script);
    let reason = RejectReason::DuplicateInStock;
    assert_eq!(
        (report.batch, report.label.as_str(), report.lsn),
        (3, "may", Lsn(44))
    );
    assert_eq!((report.accepted, report.slabs), (197, 1));
    assert_eq!(report.counts, [RejectionCount { reason, count: 3 }]);
    assert_eq!(
        report.rejections,
        [1, 2, 9].map(|line| Rejection { line, reason })
    );
    assert!(conn.is_closed().await);
}

#[tokio::test]
async fn no_more_than_sixteen_frames_are_unanswered() {
    let peer = Peer::bind().await;
    let (client, _conn) = peer.connected(peer.builder()).await;
    let (mut import, mut conn) = open(&peer, &client).await;
    let script = async {
        let (mut received, mut replies) = (0, Vec::new());
        for _ in 0..IMPORT_FRAMES_IN_FLIGHT_MAX {
            replies.push(rows(&mut conn, &mut received).await);
        }
        assert!(conn.hears_nothing().await);
        let (header, reply) = replies.remove(0);
        conn.reply(header, 0, 0, |out| reply.encode_into(out)).await;
        rows(&mut conn, &mut received).await;
        assert!(conn.hears_nothing().await);
        reply.rows_received
    };
    let acknowledged = tokio::select! {
        pushed = push(&mut import, 1..=5000) => panic!("it waits: {pushed:?}"),
        acknowledged = script => acknowledged,
    };
    assert_eq!(import.rows_acknowledged(), acknowledged);
    assert!(acknowledged > 0);
}

#[tokio::test]
async fn an_import_that_is_dropped_closes_its_connection_and_no_other() {
    let peer = Peer::bind().await;
    let (client, mut shared) = peer.connected(peer.builder()).await;
    let (mut import, mut conn) = open(&peer, &client).await;
    push(&mut import, 1..=3).await.unwrap();
    drop(import);
    assert!(conn.is_closed().await);
    let script = async {
        let (header, _) = shared.expect(Kind::Ping).await;
        shared.reply(header, 0, 0, |_| {}).await;
    };
    tokio::join!(async { client.ping().await.unwrap() }, script);
}

#[tokio::test]
async fn an_import_may_be_refused_at_its_beginning() {
    let peer = Peer::bind().await;
    let (client, _conn) = peer.connected(peer.builder()).await;
    let script = async {
        let mut conn = peer.accept().await;
        let (header, _) = conn.expect(Kind::ImportBegin).await;
        conn.refuse_whole(header, Refusal::TooManyImports, 5, "")
            .await;
        let (header, _) = conn.expect(Kind::ImportBegin).await;
        conn.refuse_whole(header, Refusal::NameInvalid, 0, "the batch label is empty")
            .await;
        assert!(conn.is_closed().await);
    };
    let (result, ()) = tokio::join!(client.import(options()), script);
    let error = result.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::NameInvalid));
    assert!(
        error.to_string().contains("the batch label is empty"),
        "{error}"
    );
}

#[tokio::test]
async fn an_import_that_failed_stays_failed() {
    let peer = Peer::bind().await;
    let (client, _conn) = peer.connected(peer.builder()).await;
    let (mut import, mut conn) = open(&peer, &client).await;
    let script = async {
        let (header, _) = rows(&mut conn, &mut 0).await;
        conn.refuse_whole(header, Refusal::DiskFull, 0, "").await;
        while conn.try_request().await.is_some() {}
    };
    let calls = async {
        let error = push(&mut import, 1..=5000).await.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::DiskFull));
        assert!(matches!(
            push(&mut import, 1..=5000).await,
            Err(Error::Closed { .. })
        ));
        assert!(matches!(import.finish().await, Err(Error::Closed { .. })));
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn a_lost_connection_ends_an_import() {
    let peer = Peer::bind().await;
    let (client, _conn) = peer.connected(peer.builder()).await;
    let (mut import, mut conn) = open(&peer, &client).await;
    let script = async {
        let mut received = 0;
        let (header, reply) = rows(&mut conn, &mut received).await;
        conn.reply(header, 0, 0, |out| reply.encode_into(out)).await;
        conn.expect(Kind::ImportEnd).await;
        drop(conn);
    };
    let calls = async {
        push(&mut import, 1..=3).await.unwrap();
        import.finish().await.unwrap_err()
    };
    let (error, ()) = tokio::join!(calls, script);
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    assert!(peer.is_left_alone().await, "an import is never tried again");
}

#[tokio::test]
async fn a_push_that_is_dropped_did_not_add_its_row() {
    let peer = Peer::bind().await;
    let (client, _conn) = peer.connected(peer.builder()).await;
    let (mut import, mut conn) = open(&peer, &client).await;
    let mut line = 0;
    let secret = [b's'; 1000];
    // Until all sixteen frames are under way and a push has to wait.
    while tokio::time::timeout(
        Duration::from_millis(200),
        import.push(ImportRow::new(line + 1, &secret)),
    )
    .await
    .is_ok()
    {
        line += 1;
    }
    let script = async {
        let mut received = 0;
        while received < line + 1 {
            let (header, reply) = rows(&mut conn, &mut received).await;
            conn.reply(header, 0, 0, |out| reply.encode_into(out)).await;
        }
        let (header, _) = conn.expect(Kind::ImportEnd).await;
        conn.control(
            header,
            0,
            &ImportEndReply {
                accepted: received,
                ..ImportEndReply::default()
            },
        )
        .await;
    };
    let calls = async {
        import
            .push(ImportRow::new(line + 1, &secret))
            .await
            .unwrap();
        import.finish().await.unwrap()
    };
    let (report, ()) = tokio::join!(calls, script);
    assert_eq!(report.accepted, line + 1);
}

#[tokio::test]
async fn secrets_of_an_import_are_not_shown() {
    let peer = Peer::bind().await;
    let (client, _conn) = peer.connected(peer.builder()).await;
    let (mut import, _import_conn) = open(&peer, &client).await;
    import.push(ImportRow::new(1, b"HUSH")).await.unwrap();
    assert!(!format!("{import:?} {client:?}").contains("HUSH"));
    assert!(!format!("{import:?}").contains("72, 85, 83, 72"));
}
