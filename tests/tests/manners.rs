//! Peers without manners: broken frames, silence, half sentences, floods. Each is told why, and nobody else notices.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use croupier_client::{FaultCode, Order, OrderId, OrderOutcome, Refusal, SkuId};
use croupier_protocol::{
    FLAG_MORE, FRAME_BYTES_MAX_DEFAULT, FRAME_HEADER_BYTES, Hello, ImportBegin, ImportBeginReply,
    ImportRow, Kind, RefusedBody, decode_control, encode_control, put_import_id, put_lookup,
};
use croupier_tests::{
    Dice, Mint, Oracle, Server, Store, Wire, eventually, frame, frame_with_flags, issue_frame,
    item, scaled,
};

/// A server with cards, and a connection whose manners are good: it must go on being served.
struct Table {
    store: Store,
    server: Server,
    sku: SkuId,
    bystander: Mutex<Wire>,
}

impl Table {
    fn laid(store: Store) -> Self {
        let server = store.serve();
        let oracle = Oracle::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let sku = runtime.block_on(async {
            let client = server.client().await;
            oracle
                .import(&client, "s", &Mint::new(6).secrets(30_000, 24))
                .await
                .expect("an import")
        });
        let bystander = Mutex::new(Wire::greeted(server.addr()).0);
        Self {
            store,
            server,
            sku,
            bystander,
        }
    }

    fn wire(&self) -> Wire {
        Wire::greeted(self.server.addr()).0
    }

    /// The bystander still deals and is dealt to.
    #[track_caller]
    fn check_bystander(&self, after: &str) {
        let mut bystander = self.bystander.lock().expect("no check panicked before");
        assert!(bystander.answers(), "after {after}");
        let outcomes = bystander.issue(&[item(self.sku)]);
        assert!(
            matches!(outcomes[..], [OrderOutcome::Issued(_)]),
            "after {after}: {outcomes:?}"
        );
    }

    /// What was dealt is what the log says, and all of the rest is free.
    fn close(self) {
        let Self {
            store,
            server,
            bystander,
            ..
        } = self;
        drop(bystander);
        server.stop().ok();
        Oracle::verify(&store);
    }
}

fn with_length(mut frame: Vec<u8>, length: u32) -> Vec<u8> {
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

fn with_byte(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// A frame of a kind that has no name, with a right checksum: made from one by the rules of the wire page.
fn of_kind(kind: u8) -> Vec<u8> {
    let mut frame = with_byte(frame(Kind::Ping, 9, 0, |_| {}), 11, kind);
    let crc = crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// CRC-32C, bit by bit, as the page says: not the code under test.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_broken_frame_is_answered_by_its_fault_and_harms_nobody_else() {
    let table = Table::laid(Store::new());
    let ping = || frame(Kind::Ping, 9, 0, |out| out.extend_from_slice(b"x"));
    let issue = issue_frame(9, &[item(table.sku)]);
    let hello = |min, max| {
        let hello = Hello {
            version_min: min,
            version_max: max,
            features: 0,
        };
        frame(Kind::Hello, 9, 0, |out| hello.encode_into(out))
    };
    let short_hello = frame(Kind::Hello, 9, 0, |out| out.extend_from_slice(&[0; 15]));
    let rows =
        |body: &'static [u8]| frame(Kind::ImportRows, 9, 1, |out| out.extend_from_slice(body));
    let too_long = FRAME_BYTES_MAX_DEFAULT + 1;
    // What is sent, whether after Hello, the fault, and the request id that it carries.
    let cases: Vec<(&str, bool, Vec<u8>, FaultCode, u64)> = vec![
        ("length 0", true, vec![0; 4], FaultCode::FrameTooShort, 0),
        (
            "length 23",
            true,
            23u32.to_le_bytes().into(),
            FaultCode::FrameTooShort,
            0,
        ),
        (
            "length above the limit",
            true,
            too_long.to_le_bytes().into(),
            FaultCode::FrameTooLong,
            0,
        ),
        (
            "the largest length",
            true,
            vec![0xff; 4],
            FaultCode::FrameTooLong,
            0,
        ),
        (
            "the largest length before Hello",
            false,
            vec![0xff; 4],
            FaultCode::FrameTooLong,
            0,
        ),
        (
            "wrong magic",
            true,
            with_byte(ping(), 8, b'X'),
            FaultCode::BadMagic,
            0,
        ),
        (
            "wrong magic, not whole",
            true,
            with_byte(ping(), 9, b'X')[..10].into(),
            FaultCode::BadMagic,
            0,
        ),
        (
            "wrong version",
            true,
            with_byte(ping(), 10, 2),
            FaultCode::UnsupportedVersion,
            0,
        ),
        (
            "wrong checksum",
            true,
            with_byte(ping(), 4, !ping()[4]),
            FaultCode::BadChecksum,
            0,
        ),
        (
            "a flipped bit",
            true,
            with_byte(issue.clone(), 40, !issue[40]),
            FaultCode::BadChecksum,
            0,
        ),
        (
            "unknown kind 0",
            true,
            of_kind(0),
            FaultCode::UnknownKind,
            9,
        ),
        (
            "unknown kind 99",
            true,
            of_kind(99),
            FaultCode::UnknownKind,
            9,
        ),
        (
            "a reply as a request",
            true,
            of_kind(Kind::IssueReply as u8),
            FaultCode::UnknownKind,
            9,
        ),
        (
            "a Fault as a request",
            true,
            of_kind(Kind::Fault as u8),
            FaultCode::UnknownKind,
            9,
        ),
        (
            "a request before Hello",
            false,
            issue.clone(),
            FaultCode::HelloExpected,
            9,
        ),
        (
            "a Ping before Hello",
            false,
            ping(),
            FaultCode::HelloExpected,
            9,
        ),
        (
            "a second Hello",
            true,
            hello(1, 1),
            FaultCode::HelloTwice,
            9,
        ),
        (
            "a Hello of the future",
            false,
            hello(2, 7),
            FaultCode::UnsupportedVersion,
            9,
        ),
        (
            "a Hello of no version",
            false,
            hello(1, 0),
            FaultCode::UnsupportedVersion,
            9,
        ),
        (
            "a Hello that is too short",
            false,
            short_hello,
            FaultCode::Malformed,
            9,
        ),
        (
            "HTTP",
            false,
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            FaultCode::FrameTooLong,
            0,
        ),
        (
            "TLS",
            false,
            with_length(vec![0x16; 64], 64),
            FaultCode::BadMagic,
            0,
        ),
        (
            "garbage after the handshake",
            true,
            with_length(vec![0xa5; 600], 300),
            FaultCode::BadMagic,
            0,
        ),
        (
            "MORE",
            true,
            frame_with_flags(Kind::Ping, 9, 0, FLAG_MORE, |_| {}),
            FaultCode::UnsupportedFlag,
            9,
        ),
        (
            "a flag without a name",
            true,
            frame_with_flags(Kind::Issue, 9, 0, 1 << 15, |_| {}),
            FaultCode::UnsupportedFlag,
            9,
        ),
        (
            "an Issue without its items",
            true,
            frame(Kind::Issue, 9, 3, |_| {}),
            FaultCode::Malformed,
            9,
        ),
        (
            "an Issue of half an item",
            true,
            frame(Kind::Issue, 9, 1, |out| out.extend_from_slice(&[0; 16])),
            FaultCode::Malformed,
            9,
        ),
        (
            "a LookUp with a byte too many",
            true,
            frame(Kind::LookUp, 9, 1, |out| out.extend_from_slice(&[0; 17])),
            FaultCode::Malformed,
            9,
        ),
        (
            "an ImportEnd of half an id",
            true,
            frame(Kind::ImportEnd, 9, 0, |out| out.extend_from_slice(b"1234")),
            FaultCode::Malformed,
            9,
        ),
        (
            "ImportRows of nothing",
            true,
            rows(&[]),
            FaultCode::Malformed,
            9,
        ),
    ];
    let mut wrong_ids = Vec::new();
    for (what, greet, bytes, expect, request_id) in cases {
        let mut wire = if greet {
            table.wire()
        } else {
            Wire::dial(table.server.addr())
        };
        wire.send(&bytes);
        let (fault, carries) = wire.fault();
        assert_eq!(fault.fault, expect, "{what}: {}", fault.text);
        assert!(!fault.text.is_empty(), "{what}: people want to know too");
        if carries != request_id {
            wrong_ids.push(format!("{what}: {carries}, not {request_id}"));
        }
        table.check_bystander(what);
    }
    assert!(
        wrong_ids.is_empty(),
        "a Fault carries the id of the frame that caused it:\n{}",
        wrong_ids.join("\n")
    );
    table.close();
}

#[test]
fn a_control_body_that_cannot_be_read_is_refused_and_the_connection_lives() {
    let table = Table::laid(Store::new());
    let mut wire = table.wire();
    let bodies: [(Kind, &[u8]); 7] = [
        (Kind::SkuCreate, b""),
        (Kind::SkuCreate, b"\xff\xff\xff\xff\xff\xff\xff\xffabc"),
        (Kind::SkuCreate, b"\x02\0\0\0\0\0\0\0\xff\xfe"),
        (Kind::Stock, b"\x02"),
        (Kind::Stock, b"\0extra"),
        (Kind::ImportBegin, b"\x01\0\0\0\0\0\0\0s\x07"),
        (Kind::RoutesLoad, b"\x05\0\0\0\0\0\0\0[[r"),
    ];
    for (kind, body) in bodies {
        wire.send(&frame(kind, 12, 0, |out| out.extend_from_slice(body)));
        let refused = wire.refused(12);
        assert_eq!(refused.refusal, Refusal::Malformed, "{kind:?} {body:?}");
        assert!(!refused.text.is_empty());
        assert!(wire.answers(), "{kind:?} {body:?}");
    }
    table.check_bystander("bodies that cannot be read");
    table.close();
}

#[test]
fn a_sender_of_single_bytes_is_served_like_everybody() {
    let table = Table::laid(Store::new());
    let mut wire = Wire::dial(table.server.addr());
    let order = item(table.sku);
    let frames = [
        Wire::hello(),
        issue_frame(2, &[order, item(table.sku)]),
        frame(Kind::LookUp, 3, 1, |out| put_lookup(out, order.order_id)),
        frame(Kind::Ping, 4, 0, |out| out.extend_from_slice(b"slow")),
    ];
    for byte in frames.concat() {
        wire.send(&[byte]);
        thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(wire.reply().0.kind, Kind::HelloReply);
    let mut issued = None;
    for _ in 0..3 {
        // Replies come in any order.
        let (header, body) = wire.reply();
        let outcomes = || croupier_protocol::order_items(&body, header.count).expect("OrderItems");
        match header.kind {
            Kind::IssueReply => issued = Some(outcomes()),
            Kind::LookUpReply => assert_eq!(outcomes().len(), 1),
            Kind::PingReply => assert_eq!(body, b"slow"),
            other => panic!("{other:?}"),
        }
    }
    let issued = issued.expect("the Issue was answered");
    assert!(
        issued
            .iter()
            .all(|outcome| matches!(outcome, OrderOutcome::Issued(_))),
        "{issued:?}"
    );
    table.check_bystander("a slow sender");
    table.close();
}

#[test]
fn peers_that_hang_up_in_the_middle_of_a_frame_harm_nobody() {
    let table = Table::laid(Store::new());
    let mut dice = Dice::rolled("half frames");
    let orders: Vec<_> = (0..20).map(|_| item(table.sku)).collect();
    for nth in 0..200 {
        let whole = issue_frame(nth, &orders);
        let cut = dice.within(1..whole.len() as u64) as usize;
        let mut wire = if dice.once_in(4) {
            Wire::dial(table.server.addr())
        } else {
            table.wire()
        };
        wire.send(&whole[..cut]);
        if dice.once_in(2) {
            wire.finish_sending();
        }
    }
    table.check_bystander("half frames");
    // None of those orders was whole, so none of them was dealt.
    let mut wire = table.wire();
    wire.send(&frame(Kind::LookUp, 3, orders.len() as u16, |out| {
        orders
            .iter()
            .for_each(|order| put_lookup(out, order.order_id));
    }));
    for outcome in wire.outcomes(Kind::LookUpReply, 3) {
        assert!(
            matches!(
                outcome,
                OrderOutcome::Refused {
                    refusal: Refusal::OrderNotFound,
                    ..
                }
            ),
            "{outcome:?}"
        );
    }
    table.close();
}

#[test]
fn a_thousand_connections_opened_and_dropped_leave_room_for_more() {
    const AT_ONCE: usize = 100;
    let table = Table::laid(Store::new().with("--connections-max", AT_ONCE + 10));
    for round in 0..10 {
        let wires: Vec<_> = (0..AT_ONCE)
            .map(|nth| match nth % 3 {
                0 => Wire::dial(table.server.addr()),
                // Those that have dropped may still be counted: a Fault instead of a HelloReply is no harm here.
                _ => {
                    let mut wire = Wire::dial(table.server.addr());
                    wire.send(&Wire::hello());
                    wire
                }
            })
            .collect();
        drop(wires);
        table.check_bystander(&format!("round {round}"));
    }
    eventually(
        "a new connection is served once the old ones are gone",
        || {
            let mut wire = Wire::dial(table.server.addr());
            wire.send(&Wire::hello());
            matches!(wire.try_reply(), Some((header, _)) if header.kind == Kind::HelloReply)
                .then_some(())
        },
    );
    table.close();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let table = Table::laid(Store::new().with("--connections-max", 8));
    let mut wires = Vec::new();
    let refused = eventually("the limit is reached", || {
        let mut wire = Wire::dial(table.server.addr());
        wire.send(&Wire::hello());
        let (header, body) = wire.try_reply()?;
        if header.kind == Kind::HelloReply {
            wires.push(wire);
            return None;
        }
        croupier_protocol::FaultBody::decode(&body).ok()
    });
    assert_eq!(refused.fault, FaultCode::TooManyConnections);
    assert!(wires.len() <= 8, "{} connections", wires.len());
    table.check_bystander("the limit was reached");
    drop(wires);
    eventually("there is room again", || {
        let mut wire = Wire::dial(table.server.addr());
        wire.send(&Wire::hello());
        matches!(wire.try_reply(), Some((header, _)) if header.kind == Kind::HelloReply)
            .then_some(())
    });
    table.close();
}

#[test]
fn silence_before_hello_and_half_a_frame_are_timed_out() {
    let table = Table::laid(Store::new());
    let mut silent = Wire::dial(table.server.addr());
    let mut half = scaled(None, Some(table.wire()));
    if let Some(half) = &mut half {
        half.send(&issue_frame(1, &[item(table.sku)])[..30]);
    }
    assert_eq!(silent.fault().0.fault, FaultCode::TimedOut);
    if let Some(half) = &mut half {
        assert_eq!(half.fault().0.fault, FaultCode::TimedOut);
    }
    table.check_bystander("silence");
    table.close();
}

fn begin_import(wire: &mut Wire, sku: &str) -> ImportBeginReply {
    let begin = ImportBegin {
        sku: sku.to_owned(),
        ..ImportBegin::default()
    };
    // Another import may just have been cut off, and the server not have noticed.
    eventually("an import begins", || {
        wire.send(&frame(Kind::ImportBegin, 20, 0, |out| {
            encode_control(&begin, out)
        }));
        let (header, body) = wire.reply();
        if header.kind == Kind::Refused {
            let refused = RefusedBody::decode(&body).expect("a Refused");
            assert_eq!(refused.refusal, Refusal::TooManyImports, "{}", refused.text);
            return None;
        }
        assert_eq!(header.kind, Kind::ImportBeginReply);
        Some(decode_control(&body).expect("a body of that kind"))
    })
}

fn rows_frame(import: u64, secrets: &[Vec<u8>]) -> Vec<u8> {
    frame(Kind::ImportRows, 21, secrets.len() as u16, |out| {
        put_import_id(out, import);
        for (line, secret) in (1..).zip(secrets) {
            ImportRow::new(line, secret).encode_into(out);
        }
    })
}

#[test]
fn an_import_that_is_cut_off_leaves_nothing_and_the_next_one_begins_at_once() {
    let table = Table::laid(Store::new());
    let before = table.store.files("slabs", "");
    let stock = || table.server.croupier(&["stock", "--json"]).ok().json();
    let stock_before = stock();
    let mut mint = Mint::new(8);
    for how in [
        "between frames",
        "in a frame",
        "after the end was asked for, in that frame",
    ] {
        let mut wire = table.wire();
        let import = begin_import(&mut wire, "s").import;
        for _ in 0..30 {
            wire.send(&rows_frame(import, &mint.secrets(300, 40)));
            wire.pages(Kind::ImportRowsReply, 21);
        }
        match how {
            "in a frame" => wire.send(&rows_frame(import, &mint.secrets(300, 40))[..5000]),
            "between frames" => {}
            _ => {
                let end = frame(Kind::ImportEnd, 22, 0, |out| put_import_id(out, import));
                wire.send(&end[..end.len() - 1]);
            }
        }
        drop(wire);
        // The client waits while the server notices, within the time of its call.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let client = table.server.client().await;
            let options = croupier_client::ImportOptions {
                sku: "s".to_owned(),
                ..Default::default()
            };
            drop(
                client
                    .import(options)
                    .await
                    .expect("the next import begins"),
            );
        });
        eventually("no slab files are left", || {
            (table.store.files("slabs", "") == before).then_some(())
        });
        table.check_bystander(how);
    }
    let (after, dealt) = (stock(), 3);
    assert_eq!(after[0]["imported"], stock_before[0]["imported"]);
    assert_eq!(
        after[0]["issued"],
        stock_before[0]["issued"].as_u64().expect("a number") + dealt
    );
    table.close();
}

#[test]
fn a_row_that_cannot_be_read_ends_its_import_and_leaves_nothing() {
    let table = Table::laid(Store::new());
    let before = table.store.files("slabs", "");
    let secrets = Mint::new(16).secrets(10, 40);
    for (what, cut, count) in [
        ("a row too few", 0, 11),
        ("half a row", 20, 10),
        ("a row too many", 0, 9),
    ] {
        let mut wire = table.wire();
        let import = begin_import(&mut wire, "s").import;
        wire.send(&rows_frame(import, &secrets));
        wire.pages(Kind::ImportRowsReply, 21);
        wire.send(&frame(Kind::ImportRows, 22, count, |out| {
            let body = &rows_frame(import, &secrets)[FRAME_HEADER_BYTES..];
            out.extend_from_slice(&body[..body.len() - cut]);
        }));
        assert_eq!(wire.refused(22).refusal, Refusal::Malformed, "{what}");
        wire.send(&frame(Kind::ImportEnd, 23, 0, |out| {
            put_import_id(out, import)
        }));
        assert_eq!(wire.refused(23).refusal, Refusal::NoImport, "{what}");
        eventually("no slab files are left", || {
            (table.store.files("slabs", "") == before).then_some(())
        });
        table.check_bystander(what);
    }
    table.close();
}

#[test]
fn a_peer_that_sends_and_never_reads_is_held_back_and_others_are_not() {
    let table = Table::laid(Store::new().with("--quantity-max", 1));
    let wire = table.wire();
    let orders = 25_000;
    let sent = Arc::new(AtomicU64::new(0));
    let writer = {
        let (mut stream, sku, sent) = (wire.split(), table.sku, sent.clone());
        thread::spawn(move || {
            let mut ids = Vec::new();
            for request in 0..orders / 10 {
                let items = [(); 10].map(|()| item(sku));
                ids.extend(items.map(|item| item.order_id));
                // Pings are the heavy part: they come back as they are.
                let ping = frame(Kind::Ping, u64::MAX, 0, |out| {
                    out.extend_from_slice(&[7; 16 << 10])
                });
                let both = [issue_frame(request, &items), ping].concat();
                stream
                    .write_all(&both)
                    .expect("a server that reads on once it is read from");
                sent.fetch_add(1, Ordering::Relaxed);
            }
            ids
        })
    };
    // 40 MB will not fit into any buffer: it must come to a stand.
    let stuck = {
        let mut last = u64::MAX;
        eventually("the sender is held back", || {
            let now = sent.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(300));
            (std::mem::replace(&mut last, now) == now && now > 0).then_some(now)
        })
    };
    assert!(
        stuck < orders / 10,
        "the server took all of it in without being read from"
    );
    table.check_bystander("a peer that does not read");

    let mut wire = wire;
    let (mut answered, mut pings) = (Vec::new(), 0);
    while answered.len() < orders as usize || pings < orders / 10 {
        let (header, body) = wire.reply();
        if header.kind == Kind::PingReply {
            pings += 1;
            continue;
        }
        for outcome in croupier_protocol::order_items(&body, header.count).expect("OrderItems") {
            assert!(matches!(outcome, OrderOutcome::Issued(_)), "{outcome:?}");
            answered.push(outcome.order_id());
        }
    }
    let mut asked = writer.join().expect("the writer does not panic");
    answered.sort_unstable();
    asked.sort_unstable();
    assert_eq!(answered, asked, "every order is answered once");
    table.check_bystander("a flood");
    table.close();
}

#[tokio::test]
async fn limits_of_a_connection_do_not_lose_orders() {
    let store = Store::new()
        .with("--orders-in-flight-max", 16)
        .with("--lane-orders-max", 4);
    let (server, oracle) = (store.serve(), Oracle::new());
    let client = server.client().await;
    let sku = oracle
        .import(&client, "s", &Mint::new(7).secrets(2000, 24))
        .await
        .expect("an import");
    let mut orders: Vec<_> = (0..1000)
        .map(|_| Order::new(OrderId::new_v7(), sku))
        .collect();
    // A full lane refuses as Busy, which the client waits out and the order survives.
    for _ in 0..500 {
        let outcomes = oracle.issue(&client, &orders).await.expect("answered");
        let busy = |outcome: &OrderOutcome| {
            matches!(
                outcome,
                OrderOutcome::Refused {
                    refusal: Refusal::Busy,
                    ..
                }
            )
        };
        assert!(
            outcomes
                .iter()
                .all(|outcome| busy(outcome) || matches!(outcome, OrderOutcome::Issued(_)))
        );
        let left: Vec<_> = outcomes
            .iter()
            .filter(|outcome| busy(outcome))
            .map(OrderOutcome::order_id)
            .collect();
        orders.retain(|order| left.contains(&order.order_id));
        if orders.is_empty() {
            break;
        }
    }
    assert!(
        orders.is_empty(),
        "{} orders were never dealt",
        orders.len()
    );
    oracle.check_all(&client).await;
    server.stop().ok();
    assert_eq!(oracle.check_disk(&store).orders, 1000);
}
