//! Every way in which bytes can be wrong, as tables: what comes in, which error comes out.

use bytes::BytesMut;
use croupier_protocol::*;

fn frame(kind: Kind, body: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    let mut writer = FrameWriter::begin(&mut wire, kind, 5);
    writer.body().extend_from_slice(body);
    writer.finish();
    wire
}

/// A good Ping with the byte at `offset` replaced, and the checksum set right again if asked for.
fn bent(offset: usize, byte: u8, checksum_mended: bool) -> BytesMut {
    let mut wire = frame(Kind::Ping, b"abc");
    wire[offset] = byte;
    if checksum_mended {
        let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &wire[8..]) as u32;
        wire[4..8].copy_from_slice(&checksum.to_le_bytes());
    }
    wire
}

#[test]
fn frame_errors() {
    let good = frame(Kind::Ping, b"abc");
    let found = u32::from_le_bytes(good[4..8].try_into().unwrap());
    let expected = {
        let bent = bent(26, b'x', true);
        u32::from_le_bytes(bent[4..8].try_into().unwrap())
    };
    let table: &[(&[u8], FrameError, FaultCode)] = &[
        (
            &23_u32.to_le_bytes(),
            FrameError::TooShort { length: 23 },
            FaultCode::FrameTooShort,
        ),
        (
            &101_u32.to_le_bytes(),
            FrameError::TooLong {
                length: 101,
                max: 100,
            },
            FaultCode::FrameTooLong,
        ),
        (
            b"GET / HTTP/1.1\r\n",
            FrameError::TooLong {
                length: 0x2054_4547,
                max: 100,
            },
            FaultCode::FrameTooLong,
        ),
        (
            &bent(8, b'X', true)[..9],
            FrameError::BadMagic { found: *b"X\0" },
            FaultCode::BadMagic,
        ),
        (
            &bent(9, b'X', true)[..10],
            FrameError::BadMagic { found: *b"CX" },
            FaultCode::BadMagic,
        ),
        (
            &bent(9, b'X', true),
            FrameError::BadMagic { found: *b"CX" },
            FaultCode::BadMagic,
        ),
        (
            &bent(10, 2, true)[..11],
            FrameError::UnsupportedVersion { found: 2 },
            FaultCode::UnsupportedVersion,
        ),
        (
            &bent(10, 2, true),
            FrameError::UnsupportedVersion { found: 2 },
            FaultCode::UnsupportedVersion,
        ),
        (
            &bent(26, b'x', false),
            FrameError::BadChecksum { expected, found },
            FaultCode::BadChecksum,
        ),
        (
            &bent(11, 4, true),
            FrameError::UnknownKind {
                found: 4,
                request_id: 5,
            },
            FaultCode::UnknownKind,
        ),
    ];
    for (wire, error, fault) in table {
        assert_eq!(peek(wire, 100), Err(*error));
        assert_eq!(error.fault_code(), *fault);
        assert_eq!(
            error.request_id(),
            if *fault == FaultCode::UnknownKind {
                5
            } else {
                0
            }
        );
    }
}

#[test]
fn a_frame_is_waited_for_byte_by_byte() {
    let wire = frame(Kind::Ping, b"abc");
    for have in 0..wire.len() {
        assert_eq!(
            peek(&wire[..have], FRAME_BYTES_MAX_DEFAULT),
            Ok(None),
            "{have} bytes"
        );
    }
    let header = peek(&wire, wire.len() as u32).unwrap().unwrap();
    assert_eq!(header.body_of(&wire), b"abc");
}

#[test]
fn a_flipped_bit_is_never_read_as_another_frame() {
    let wire = frame(Kind::Issue, &[7; 32]);
    for bit in 0..wire.len() * 8 {
        let mut bent = wire.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(
            !matches!(peek(&bent, FRAME_BYTES_MAX_DEFAULT), Ok(Some(_))),
            "bit {bit}"
        );
    }
}

/// `OrderItem` with one card of three bytes, with the byte at `offset` replaced.
fn bent_order(offset: usize, byte: u8) -> BytesMut {
    let mut body = BytesMut::new();
    let mut writer = IssuedWriter::begin(&mut body, OrderId::from_u128(1), Lsn(2), SkuId(3), false);
    writer.put_card(CardRef::default(), b"abc");
    writer.finish();
    body[offset] = byte;
    body
}

fn bent_refused(number: u8) -> BytesMut {
    let mut body = BytesMut::new();
    put_refused(&mut body, OrderId::from_u128(1), SkuId(3), Refusal::Busy, 0);
    body[26] = number;
    body
}

fn control<T: ControlBody>(value: &T) -> BytesMut {
    let mut body = BytesMut::new();
    encode_control(value, &mut body);
    body
}

fn sku_create(name: &str) -> BytesMut {
    control(&SkuCreate {
        name: name.to_owned(),
    })
}

fn replaced(mut body: BytesMut, offset: usize, byte: u8) -> BytesMut {
    body[offset] = byte;
    body
}

#[track_caller]
fn check<T>(read: Result<T, BodyError>, offset: usize, need: usize, have: usize, what: &str) {
    let error = read.err().unwrap_or_else(|| panic!("{what}: was read"));
    assert_eq!(
        (error.what, error.offset, error.need, error.have),
        (what, offset, need, have)
    );
    assert_eq!(
        error.to_string(),
        format!("{what} at offset {offset} of the body: need {need}, have {have}")
    );
}

#[test]
fn errors_of_fixed_bodies() {
    check(Hello::decode(&[0; 15]), 0, 16, 15, "Hello");
    check(Hello::decode(&[0; 17]), 0, 16, 17, "Hello");
    check(HelloReply::decode(&[]), 0, 48, 0, "HelloReply");
    check(
        ImportRowsReply::decode(&[0; 3]),
        0,
        16,
        3,
        "ImportRowsReply",
    );
    check(ImportEnd::decode(&[0; 9]), 0, 8, 9, "ImportEnd");
    check(RefusedBody::decode(&[1; 7]), 0, 8, 7, "Refused");
    check(
        RefusedBody::decode(&[99, 0, 0, 0, 0, 0, 0, 0]),
        0,
        Refusal::ALL.len(),
        99,
        "number of a refusal",
    );
    check(FaultBody::decode(&[1; 7]), 0, 8, 7, "Fault");
    check(
        FaultBody::decode(&[99, 0, 0, 0, 0, 0, 0, 0]),
        0,
        12,
        99,
        "number of a fault",
    );
}

#[test]
fn errors_of_orders() {
    check(
        step_items(&[0; 63], 2).map(drop),
        0,
        64,
        63,
        "steps of orders",
    );
    check(
        step_items(&[0; 32], 0).map(drop),
        0,
        0,
        32,
        "steps of orders",
    );
    check(
        lookup_items(&[0; 33], 2).map(drop),
        0,
        32,
        33,
        "order ids of LookUp",
    );
}

#[test]
fn errors_of_answers() {
    let good = bent_order(16, 2);
    assert_eq!(good.len(), 63);
    assert!(order_items(&good, 1).is_ok());
    check(order_items(&good, 2), 63, 48, 0, "OrderItem");
    check(order_items(&good, 0), 0, 0, 63, "end of the body");
    check(order_items(&good[..47], 1), 0, 48, 47, "OrderItem");
    check(order_items(&good[..62], 1), 48, 15, 14, "cards of an order");
    check(
        order_items(&bent_order(24, 0), 1),
        24,
        6,
        0,
        "status of an order",
    );
    check(
        order_items(&bent_order(24, 7), 1),
        24,
        6,
        7,
        "status of an order",
    );
    check(
        order_items(&bent_order(36, 2), 1),
        63,
        12,
        0,
        "head of a card",
    );
    check(
        order_items(&bent_order(36, 0), 1),
        48,
        0,
        15,
        "end of the body",
    );
    check(
        order_items(&bent_order(58, 4), 1),
        60,
        4,
        3,
        "secret of a card",
    );
    check(
        order_items(&bent_order(58, 2), 1),
        62,
        0,
        1,
        "end of the body",
    );
    check(
        order_items(&bent_refused(0), 1),
        26,
        Refusal::ALL.len(),
        0,
        "number of a refusal",
    );
    check(
        order_items(&bent_refused(99), 1),
        26,
        Refusal::ALL.len(),
        99,
        "number of a refusal",
    );
}

/// An order that holds cards, with the byte at `offset` replaced.
fn bent_hold(offset: usize, byte: u8) -> BytesMut {
    let order = HeldOrder {
        order_id: OrderId::from_u128(1),
        lsn: Lsn(2),
        sku: SkuId(3),
        quantity: 4,
        repeat: false,
        hold: Some(Hold {
            ends_unix_ms: 5,
            extensions: 6,
        }),
    };
    let mut body = BytesMut::new();
    put_hold(&mut body, STATUS_HELD, &order);
    body[offset] = byte;
    body
}

#[test]
fn errors_of_holds() {
    let good = bent_hold(24, STATUS_HELD);
    assert_eq!(good.len(), OrderItemHead::BYTES + Hold::BYTES);
    assert!(order_items(&good, 1).is_ok());
    check(order_items(&good[..63], 1), 48, 16, 15, "cards of an order");
    check(order_items(&good[..48], 1), 48, 16, 0, "cards of an order");
    // Fewer bytes than a hold has, and more.
    let short = &bent_hold(40, 15)[..63];
    check(order_items(short, 1), 48, 16, 15, "hold of an order");
    let long = [&bent_hold(40, 17)[..], &[0]].concat();
    check(order_items(&long, 1), 64, 0, 1, "end of the body");
    // A hold has no cards, and what has ended has no hold.
    check(
        order_items(&bent_hold(36, 1), 1),
        64,
        12,
        0,
        "head of a card",
    );
    for status in [STATUS_REFUSED, STATUS_CANCELLED, STATUS_EXPIRED] {
        let bent = bent_hold(24, status);
        check(order_items(&bent, 1), 48, 0, 16, "end of the body");
    }
    for status in [0, 7, 255] {
        let bent = bent_hold(24, status);
        let have = usize::from(status);
        check(order_items(&bent, 1), 24, 6, have, "status of an order");
    }
    // What is reserved is ignored.
    assert_eq!(
        order_items(&bent_hold(63, 1), 1).unwrap(),
        order_items(&good, 1).unwrap()
    );
}

#[test]
fn an_iterator_that_failed_yields_nothing_more() {
    assert_eq!(OrderItems::new(&[0; 10], 3).count(), 1);
    assert_eq!(import_rows(&[0; 10], 3).unwrap().1.count(), 1);
}

#[test]
fn errors_of_rows() {
    let mut body = BytesMut::new();
    put_import_id(&mut body, 1);
    ImportRow {
        label: b"ab",
        ..ImportRow::new(1, b"xyz")
    }
    .encode_into(&mut body);
    let read = |body: &[u8], count| {
        import_rows(body, count)?
            .1
            .collect::<Result<Vec<_>, _>>()
            .map(drop)
    };
    assert_eq!(read(&body, 1), Ok(()));
    check(read(&body[..7], 1), 0, 8, 7, "import id");
    check(read(&body[..47], 1), 8, 40, 39, "head of a row");
    check(read(&body[..49], 1), 48, 2, 1, "label of a row");
    check(read(&body[..52], 1), 50, 3, 2, "secret of a row");
    check(read(&body, 2), 53, 40, 0, "head of a row");
    check(read(&body, 0), 8, 0, 45, "end of the body");
}

#[test]
fn errors_of_control_bodies() {
    let read = |body: &[u8]| decode_control::<SkuCreate>(body).map(drop);
    let good = sku_create("gift");
    assert_eq!(read(&good), Ok(()));
    check(read(&good[..7]), 0, 8, 7, "SkuCreate");
    check(read(&good[..11]), 8, 4, 3, "SkuCreate");
    check(
        read(&[&good[..], b"!"].concat()),
        12,
        0,
        1,
        "end of the body",
    );
    check(
        read(&replaced(good.clone(), 9, 0xff)),
        12,
        2,
        1,
        "valid UTF-8 in the text that ends here, in bytes,",
    );
    check(
        read(&replaced(good, 6, 1)),
        8,
        4,
        usize::MAX,
        "length of a list or text",
    );

    let begin = control(&ImportBegin {
        sku: "a".to_owned(),
        create_sku: true,
        batch: None,
        pool: None,
        max_uses: MaxUses::default(),
    });
    let read = |body: &[u8]| decode_control::<ImportBegin>(body).map(drop);
    assert_eq!(read(&begin), Ok(()));
    check(
        read(&replaced(begin.clone(), 9, 2)),
        10,
        1,
        2,
        "bool before here",
    );
    check(
        read(&replaced(begin, 10, 7)),
        11,
        1,
        7,
        "option before here",
    );
}

#[test]
fn forty_bytes_cannot_ask_for_the_memory_of_a_frame() {
    // A list that claims more items than its frame could hold is refused before it is allocated.
    let mut body = BytesMut::new();
    body.extend_from_slice(&(1_u64 << 20).to_le_bytes());
    body.extend_from_slice(&[0; 32]);
    assert_eq!(
        decode_control::<StockReply>(&body).unwrap_err().what,
        "length of a list or text"
    );
}

#[test]
fn what_is_not_finished_is_taken_back() {
    let mut out = BytesMut::with_capacity(256);
    out.extend_from_slice(b"before");
    let mut frame = FrameWriter::begin(&mut out, Kind::IssueReply, 1);
    let mut order =
        IssuedWriter::begin(frame.body(), OrderId::from_u128(1), Lsn(2), SkuId(3), false);
    order.put_card(CardRef::default(), b"kept");
    let failed = order.put_card_with(CardRef::default(), |out| {
        out.extend_from_slice(b"half a sec");
        Err("damaged")
    });
    assert_eq!(failed, Err("damaged"));
    assert_eq!(order.len(), OrderItemHead::BYTES + Card::HEAD_BYTES + 4);
    drop(order);
    assert_eq!(frame.len(), FRAME_HEADER_BYTES);
    drop(frame);
    assert_eq!(&out[..], b"before");
}

#[test]
fn secrets_are_not_shown() {
    let secret = || Secret::from(b"HUSH-1234".to_vec());
    let body = {
        let mut body = BytesMut::new();
        let mut writer =
            IssuedWriter::begin(&mut body, OrderId::from_u128(1), Lsn(2), SkuId(3), false);
        writer.put_card(CardRef::default(), secret().as_bytes());
        writer.finish();
        body.freeze()
    };
    let header = FrameHeader {
        kind: Kind::IssueReply,
        flags: 0,
        count: 1,
        request_id: 1,
        length: 0,
    };
    let view = OrderItems::new(&body, 1).next().unwrap().unwrap();
    let shown = [
        format!("{:?}", secret()),
        format!("{:?}", order_items(&body, 1).unwrap()),
        format!("{:?}", ImportRow::new(1, b"HUSH-1234")),
        format!(
            "{:?}",
            Frame {
                header,
                body: body.clone()
            }
        ),
        format!("{view:?}"),
    ];
    for text in shown {
        assert!(!text.contains("HUSH"), "{text}");
        // Debug of bytes would show them as numbers.
        assert!(!text.contains("72, 85, 83, 72"), "{text}");
    }
}

#[test]
fn what_an_import_says_of_uses_is_there_or_not() {
    let body = |max_uses| {
        control(&ImportBegin {
            sku: "a".to_owned(),
            create_sku: true,
            batch: None,
            pool: None,
            max_uses,
        })
    };
    let once = body(MaxUses::default());
    let read = |body: &[u8]| decode_control::<ImportBegin>(body).map(|begin| begin.max_uses);
    // As programs that know nothing of it write and read it.
    assert_eq!(read(&once), Ok(MaxUses::Times(1)));
    let five = body(MaxUses::Times(5));
    assert_eq!(five[..once.len()], once[..]);
    assert_eq!(five[once.len()..], 5u32.to_le_bytes());
    assert_eq!(read(&five), Ok(MaxUses::Times(5)));
    assert_eq!(read(&body(MaxUses::Unlimited)), Ok(MaxUses::Unlimited));
    for cut in once.len() + 1..five.len() {
        assert!(read(&five[..cut]).is_err(), "{cut} of {} bytes", five.len());
    }
    assert!(read(&[&five[..], &[0]].concat()).is_err());
    let once = [&once[..], &1u32.to_le_bytes()].concat();
    assert!(read(&once).is_err(), "a body has one form");
}
