//! One frame of every kind, byte for byte. The bytes in `golden/frames-v1.txt` were made by another encoder and never
//! change: a difference is a broken client in the field, not a file to renew.

use bytes::BytesMut;
use croupier_protocol::*;

const REQUEST_ID: u64 = 0x0102_0304_0506_0708;
const STORE_ID: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The frames of the file, by kind name.
fn golden() -> Vec<(String, Vec<u8>)> {
    let mut frames: Vec<(String, Vec<u8>)> = Vec::new();
    for line in include_str!("golden/frames-v1.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        match line.strip_prefix("  ") {
            Some(hex) => frames
                .last_mut()
                .expect("a name comes first")
                .1
                .extend(bytes_of(hex)),
            None => frames.push((line.to_owned(), Vec::new())),
        }
    }
    frames
}

fn bytes_of(hex: &str) -> impl Iterator<Item = u8> + '_ {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
}

fn order_id() -> OrderId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

fn other_order_id() -> OrderId {
    OrderId::from_u128(order_id().as_u128() + 1)
}

fn step_items_example() -> [StepItem; 2] {
    let vip = StepItem {
        order_id: order_id(),
        sku: SkuId(7),
        quantity: 2,
        priority: Priority::Vip as u8,
        flags: 0,
        deadline_ms: 250,
        ttl_ms: 0,
        holder: Holder::NONE,
        tag: 0,
    };
    let standard = StepItem {
        order_id: other_order_id(),
        sku: SkuId(8),
        quantity: 1,
        priority: Priority::Standard as u8,
        flags: 0,
        deadline_ms: 0,
        ttl_ms: 0,
        holder: Holder::NONE,
        tag: 0,
    };
    [vip, standard]
}

/// Of each step after Issue: its items.
fn later_steps_example() -> [(Step, Vec<StepItem>); 4] {
    let [vip, standard] = step_items_example();
    let reserved = vec![
        StepItem {
            ttl_ms: 900_000,
            ..vip
        },
        StepItem {
            ttl_ms: 1,
            ..standard
        },
    ];
    let committed = vec![
        StepItem {
            flags: STEP_FLAG_ONLY_HELD,
            ..StepItem::of(order_id())
        },
        StepItem {
            quantity: 2,
            ..StepItem::of(other_order_id())
        },
    ];
    let extended = StepItem {
        quantity: 1,
        ttl_ms: 900_000,
        ..StepItem::of(order_id())
    };
    [
        (Step::Reserve, reserved),
        (Step::Commit, committed),
        (Step::Cancel, vec![StepItem::of(order_id())]),
        (Step::Extend, vec![extended]),
    ]
}

fn held_example(lsn: u64, extensions: u16) -> HeldOrder {
    HeldOrder {
        order_id: order_id(),
        lsn: Lsn(lsn),
        sku: SkuId(7),
        quantity: 2,
        repeat: false,
        hold: Some(Hold {
            ends_unix_ms: 1_893_456_000_000,
            extensions,
        }),
    }
}

fn cards_example() -> [Card; 2] {
    [
        Card {
            card: CardRef {
                slab: 3,
                slot: 1000,
                generation: 1,
            },
            secret: b"AAAA-001".to_vec().into(),
        },
        Card {
            card: CardRef {
                slab: 3,
                slot: 1001,
                generation: 0,
            },
            secret: "卡#2".as_bytes().to_vec().into(),
        },
    ]
}

fn rows_example() -> [ImportRow<'static>; 2] {
    [
        ImportRow {
            line: 1,
            expires_at_s: 1_893_456_000,
            premium_e4: Some(-2500),
            cost_e4: Some(495_000),
            label: b"blue",
            secret: b"AAAA-001",
        },
        ImportRow::new(2, b"AAAA-002"),
    ]
}

fn refused_example(
    sku: u32,
    refusal: Refusal,
    retry_after_ms: u32,
) -> (OrderOutcome, impl Fn(&mut BytesMut)) {
    let outcome = OrderOutcome::Refused {
        order_id: other_order_id(),
        refusal,
        retry_after_ms,
    };
    (outcome, move |out: &mut BytesMut| {
        put_refused(out, other_order_id(), SkuId(sku), refusal, retry_after_ms)
    })
}

fn issued_example() -> (OrderOutcome, impl Fn(&mut BytesMut)) {
    let cards = cards_example();
    let outcome = OrderOutcome::Issued(IssuedOrder {
        order_id: order_id(),
        lsn: Lsn(42),
        sku: SkuId(7),
        repeat: true,
        cards: cards.to_vec(),
    });
    let write = move |out: &mut BytesMut| {
        let [by_copy, in_place] = &cards;
        let mut writer = IssuedWriter::begin(out, order_id(), Lsn(42), SkuId(7), true);
        writer.put_card(by_copy.card, by_copy.secret.as_bytes());
        writer
            .put_card_with(in_place.card, |out| {
                out.extend_from_slice(in_place.secret.as_bytes());
                Ok::<_, ()>(in_place.secret.as_bytes().len())
            })
            .unwrap();
        writer.finish();
    };
    (outcome, write)
}

/// Encodes one frame, compares it with the golden one, and hands the golden body to `decode`.
#[track_caller]
fn check(
    kind: Kind,
    count: u16,
    flags: u16,
    encode: impl Fn(&mut BytesMut),
    decode: impl Fn(&[u8]),
) {
    let name = format!("{kind:?}");
    let expect = golden()
        .into_iter()
        .find(|(golden, _)| *golden == name)
        .expect("every kind is in the file")
        .1;
    let request_id = if kind == Kind::Fault { 0 } else { REQUEST_ID };

    let mut wire = BytesMut::from(&b"before"[..]);
    let mut writer = FrameWriter::begin(&mut wire, kind, request_id);
    encode(writer.body());
    writer.set_count(count);
    writer.set_flags(flags);
    assert_eq!(writer.finish(), expect.len());
    assert_eq!(hex(&wire[6..]), hex(&expect), "{name}");

    let header = peek(&expect, FRAME_BYTES_MAX_DEFAULT).unwrap().unwrap();
    assert_eq!(
        header,
        FrameHeader {
            kind,
            flags,
            count,
            request_id,
            length: expect.len() as u32
        }
    );
    decode(header.body_of(&expect));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn check_control<T: ControlBody + PartialEq + std::fmt::Debug>(kind: Kind, flags: u16, value: T) {
    check(
        kind,
        0,
        flags,
        |out| encode_control(&value, out),
        |body| assert_eq!(decode_control::<T>(body).as_ref(), Ok(&value)),
    );
}

#[track_caller]
fn check_bytes(kind: Kind, body: &[u8]) {
    check(
        kind,
        0,
        0,
        |out| out.extend_from_slice(body),
        |golden| assert_eq!(golden, body),
    );
}

#[test]
fn every_kind_is_in_the_file_once() {
    let names: Vec<_> = golden().into_iter().map(|(name, _)| name).collect();
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| format!("{kind:?}")).collect();
    assert_eq!(names, kinds);
}

#[test]
fn handshake_and_ping() {
    let hello = Hello::default();
    check(
        Kind::Hello,
        0,
        0,
        |out| hello.encode_into(out),
        |body| assert_eq!(Hello::decode(body), Ok(hello)),
    );
    let reply = HelloReply {
        version: PROTOCOL_VERSION,
        frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
        features: 0,
        store_id: STORE_ID,
        orders_per_frame_max: ORDERS_PER_FRAME_MAX_DEFAULT,
        orders_in_flight_max: ORDERS_IN_FLIGHT_MAX_DEFAULT,
        quantity_max: QUANTITY_MAX_DEFAULT,
    };
    check(
        Kind::HelloReply,
        0,
        0,
        |out| reply.encode_into(out),
        |body| assert_eq!(HelloReply::decode(body), Ok(reply)),
    );
    check_bytes(Kind::Ping, b"ping");
    check_bytes(Kind::PingReply, b"ping");
}

#[test]
fn issue_and_look_up() {
    let items = step_items_example();
    check(
        Kind::Issue,
        2,
        0,
        |out| items.iter().for_each(|item| item.encode_into(out)),
        |body| assert_eq!(step_items(body, 2).unwrap().collect::<Vec<_>>(), items),
    );
    let ids = [order_id(), other_order_id()];
    check(
        Kind::LookUp,
        2,
        0,
        |out| ids.iter().for_each(|id| put_lookup(out, *id)),
        |body| assert_eq!(lookup_items(body, 2).unwrap().collect::<Vec<_>>(), ids),
    );
}

#[test]
fn issue_reply_and_look_up_reply() {
    let (issued, put_issued) = issued_example();
    let (busy, put_busy) = refused_example(8, Refusal::Busy, 15);
    check(
        Kind::IssueReply,
        2,
        0,
        |out| {
            put_issued(out);
            put_busy(out);
        },
        |body| {
            assert_eq!(
                order_items(body, 2).unwrap(),
                [issued.clone(), busy.clone()]
            )
        },
    );
    let (not_found, put_not_found) = refused_example(0, Refusal::OrderNotFound, 0);
    check(Kind::LookUpReply, 1, 0, put_not_found, |body| {
        assert_eq!(
            order_items(body, 1).unwrap(),
            std::slice::from_ref(&not_found)
        );
    });
}

#[test]
fn the_later_steps() {
    for (step, items) in later_steps_example() {
        let count = items.len() as u16;
        check(
            step.kind(),
            count,
            0,
            |out| items.iter().for_each(|item| item.encode_into(out)),
            |body| assert_eq!(step_items(body, count).unwrap().collect::<Vec<_>>(), items),
        );
    }
}

#[test]
fn replies_to_the_later_steps() {
    let (out_of_stock, put_out_of_stock) = refused_example(8, Refusal::OutOfStock, 0);
    let held = held_example(42, 0);
    check(
        Kind::ReserveReply,
        2,
        0,
        |out| {
            put_hold(out, STATUS_HELD, &held);
            put_out_of_stock(out);
        },
        |body| {
            let expect = [OrderOutcome::Held(held), out_of_stock.clone()];
            assert_eq!(order_items(body, 2).unwrap(), expect);
        },
    );
    let (issued, put_issued) = issued_example();
    let (too_many, put_too_many) = refused_example(8, Refusal::NotSoManyHeld, 0);
    check(
        Kind::CommitReply,
        2,
        0,
        |out| {
            put_issued(out);
            put_too_many(out);
        },
        |body| {
            let expect = [issued.clone(), too_many.clone()];
            assert_eq!(order_items(body, 2).unwrap(), expect);
        },
    );
    let cancelled = HeldOrder {
        repeat: true,
        hold: None,
        ..held_example(43, 0)
    };
    check(
        Kind::CancelReply,
        1,
        0,
        |out| put_hold(out, STATUS_CANCELLED, &cancelled),
        |body| {
            let expect = [OrderOutcome::Cancelled(cancelled)];
            assert_eq!(order_items(body, 1).unwrap(), expect);
        },
    );
    let (none_left, put_none_left) = refused_example(8, Refusal::NoExtensionLeft, 0);
    let longer = held_example(44, 1);
    check(
        Kind::ExtendReply,
        2,
        0,
        |out| {
            put_hold(out, STATUS_HELD, &longer);
            put_none_left(out);
        },
        |body| {
            let expect = [OrderOutcome::Held(longer), none_left.clone()];
            assert_eq!(order_items(body, 2).unwrap(), expect);
        },
    );
}

#[test]
fn skus_and_stock() {
    let name = || "gift-50".to_owned();
    check_control(Kind::SkuCreate, 0, SkuCreate { name: name() });
    check_control(Kind::SkuCreateReply, 0, SkuCreateReply { sku: 7, lsn: 42 });
    let set = SkuSet {
        name: name(),
        deal_order: Some(DealOrder::ExpiryFirst.as_u16()),
        hold_share_max_percent: None,
        holder: Trailing(None),
    };
    check_control(Kind::SkuSet, 0, set.clone());
    let cap = HolderCap {
        cards_max: Some(2),
        window_ms: None,
    };
    let capped = SkuSet {
        holder: Trailing(Some(cap)),
        ..set.clone()
    };
    check_tail(&set, &capped, &[1, 2, 0, 0, 0, 0]);
    let reply = SkuSetReply {
        sku: 7,
        lsn: 42,
        deal_order: 4,
        hold_share_max_percent: 100,
        holder: Trailing(None),
    };
    check_control(Kind::SkuSetReply, 0, reply);
    check_bytes(Kind::SkuList, b"");
    let skus = vec![
        SkuRow {
            sku: 7,
            name: name(),
        },
        SkuRow {
            sku: 8,
            name: "卡".to_owned(),
        },
    ];
    check_control(Kind::SkuListReply, FLAG_MORE, SkuListReply { skus });
    check_control(Kind::Stock, 0, Stock { name: Some(name()) });
    let row = StockRow {
        sku: 7,
        name: name(),
        free: 1,
        held: 2,
        issued: 3,
        void: 4,
        imported: 10,
    };
    check_control(Kind::StockReply, 0, StockReply { rows: vec![row] });
    let card = CardPlace {
        slab: 1,
        slot: 2,
        generation: 3,
    };
    let moves = MoveCards {
        to: CardMove::Void.as_u16(),
        issued: true,
        sku: None,
        batch: None,
        cards: vec![card],
        order: Some([9; 16]),
    };
    check_control(Kind::MoveCards, 0, moves);
    let moved = MoveCardsReply { moved: 1, lsn: 40 };
    check_control(Kind::MoveCardsReply, 0, moved);
}

#[test]
fn picks() {
    let by_place = Pick {
        order: order_id().to_bytes(),
        sku: 7,
        quantity: 1,
        ttl_ms: Some(900_000),
        card: Some(CardPlace {
            slab: 3,
            slot: 17,
            generation: 0,
        }),
        label: None,
        holder: Trailing(None),
    };
    check_control(Kind::Pick, 0, by_place.clone());
    let named = Pick {
        holder: Trailing(Some([9; 16])),
        ..by_place.clone()
    };
    check_tail(&by_place, &named, &[9; 16]);
    let bound = HeldOrder {
        order_id: order_id(),
        lsn: Lsn(45),
        sku: SkuId(7),
        quantity: 1,
        repeat: false,
        hold: Some(Hold {
            ends_unix_ms: 1_893_456_000_000,
            extensions: 0,
        }),
    };
    check(
        Kind::PickReply,
        1,
        0,
        |out| put_hold(out, STATUS_HELD, &bound),
        |body| {
            let expect = [OrderOutcome::Held(bound)];
            assert_eq!(order_items(body, 1).unwrap(), expect);
        },
    );
}

/// A body with its last field is the one without it, and these bytes behind. One byte more or less is an error.
fn check_tail<T: ControlBody + PartialEq + std::fmt::Debug>(without: &T, with: &T, tail: &[u8]) {
    let (mut plain, mut longer) = (BytesMut::new(), BytesMut::new());
    encode_control(without, &mut plain);
    encode_control(with, &mut longer);
    assert_eq!(longer[..], [&plain[..], tail].concat()[..]);
    assert_eq!(&decode_control::<T>(&longer).unwrap(), with);
    assert!(decode_control::<T>(&longer[..longer.len() - 1]).is_err());
    longer.extend_from_slice(&[0]);
    assert!(decode_control::<T>(&longer).is_err());
}

#[test]
fn orders_of_holders() {
    let asked = ListOrders {
        holder: [9; 16],
        after: 40,
        limit: 100,
    };
    check_control(Kind::ListOrders, 0, asked);
    let row = OrderRow {
        order: order_id().to_bytes(),
        sku: 7,
        quantity: 2,
        state: STATUS_HELD.into(),
        lsn: 41,
    };
    let list = OrderList {
        rows: vec![row],
        next: Some(41),
    };
    check_control(Kind::ListOrdersReply, 0, list);
    // The key of a holder stands behind its item; others stay as they are.
    let [vip, standard] = step_items_example();
    let named = vip.of_holder(Holder::from_bytes([9; 16]));
    let mut body = BytesMut::new();
    for item in [named, standard, named] {
        item.encode_into(&mut body);
    }
    let mut bytes = BytesMut::new();
    for item in [vip, standard, vip] {
        item.encode_into(&mut bytes);
    }
    let mut expect = bytes.to_vec();
    (expect[23], expect[64 + 23]) = (STEP_FLAG_HOLDER, STEP_FLAG_HOLDER);
    expect.splice(96..96, [9; 16]);
    expect.splice(32..32, [9; 16]);
    assert_eq!(body[..], expect[..]);
    let read: Vec<_> = step_items(&body, 3).unwrap().collect();
    assert_eq!(read, [named, standard, named]);
    assert_eq!((named.bytes(), standard.bytes()), (48, 32));
    // A tag comes behind the key.
    let mut tagged = BytesMut::new();
    named.tagged(0x0102).encode_into(&mut tagged);
    standard.tagged(3).encode_into(&mut tagged);
    let mut both = [&body[..48], &[2, 1], &body[48..80], &[3, 0]].concat();
    (both[23], both[50 + 23]) = (STEP_FLAG_HOLDER | STEP_FLAG_TAG, STEP_FLAG_TAG);
    assert_eq!(tagged[..], both[..]);
    let read: Vec<_> = step_items(&tagged, 2).unwrap().collect();
    assert_eq!(read, [named.tagged(0x0102), standard.tagged(3)]);
    assert_eq!((read[0].bytes(), read[1].bytes()), (50, 34));
    for length in 0..body.len() {
        assert!(step_items(&body[..length], 3).is_err(), "{length} bytes");
    }
    for count in [0, 1, 2, 4] {
        assert!(step_items(&body, count).is_err(), "{count} items");
    }
    // As long as two items without keys, and one says that it has one.
    assert!(step_items(&[&body[..32], &body[..32]].concat(), 2).is_err());
}

#[test]
fn look_ups_of_cards() {
    let find = FindSecret {
        sku: SkuId(7),
        secret: "卡密".as_bytes(),
    };
    check(
        Kind::FindSecret,
        0,
        0,
        |out| find.encode_into(out),
        |body| assert_eq!(FindSecret::decode(body), Ok(find)),
    );
    let place = CardPlace {
        slab: 1,
        slot: 2,
        generation: 3,
    };
    let row = CardRow {
        slab: 1,
        slot: 2,
        generation: 3,
        sku: 7,
        batch: 4,
        status: CardStatus::Issued.as_u16(),
        expires_at_s: 1_846_022_399,
        order: Some([9; 16]),
        lsn: 40,
    };
    let mut list = CardList {
        rows: vec![row],
        next: None,
    };
    check_control(Kind::FindSecretReply, 0, list.clone());
    list.next = Some(place.clone());
    check_control(Kind::ListCardsReply, 0, list);
    let asked = ListCards {
        sku: Some("gift-50".to_owned()),
        batch: Some("b".to_owned()),
        cards: vec![place.clone()],
        status: CardStatus::Issued.as_u16(),
        after: Some(place),
    };
    check_control(Kind::ListCards, 0, asked);
    let asked = ListBatches {
        sku: Some("gift-50".to_owned()),
    };
    check_control(Kind::ListBatches, 0, asked);
    let row = BatchRow {
        batch: 4,
        sku: 7,
        label: "b".to_owned(),
        pool: "main".to_owned(),
        cards: 10,
        sealed_unix_ms: 5,
        free: 4,
        suspended: 3,
        issued: 2,
        void: 1,
    };
    check_control(Kind::ListBatchesReply, 0, BatchList { rows: vec![row] });
}

#[test]
fn deliver() {
    let rows = rows_example();
    let names = Deliver {
        sku: "gift-50",
        pool: "vip",
    };
    check(
        Kind::Deliver,
        2,
        0,
        |out| names.encode_into(&rows, out),
        |body| {
            let (decoded, read) = Deliver::decode(body, 2).unwrap();
            assert_eq!(decoded, names);
            assert_eq!(read.collect::<Result<Vec<_>, _>>().unwrap(), rows);
        },
    );
    let reply = DeliverReply {
        lsn: 43,
        accepted: 1,
        rejections: vec![RejectedLine {
            line: 2,
            reason: RejectReason::DuplicateInStock.as_u16(),
        }],
    };
    check_control(Kind::DeliverReply, 0, reply);
}

#[test]
fn jobs() {
    let take = TakeJobs {
        channel: "alpha".to_owned(),
        worker: "alpha-1".to_owned(),
        jobs_max: 16,
        wait_ms: 20_000,
    };
    check_control(Kind::TakeJobs, 0, take);
    let job = JobRow {
        job: [9; 16],
        attempt: 1,
        sku: "gift-50".to_owned(),
        quantity: 2,
        ends_unix_ms: 1_800_000_000_000,
    };
    let jobs = TakeJobsReply {
        lease_ms: 5000,
        jobs: vec![job],
    };
    check_control(Kind::TakeJobsReply, 0, jobs);
    let rows = rows_example();
    let names = DeliverJob {
        job: [9; 16],
        attempt: 1,
        flags: JOB_FLAG_ALL,
        sku: "gift-50",
        channel: "alpha",
    };
    check(
        Kind::DeliverJob,
        2,
        0,
        |out| names.encode_into(&rows, out),
        |body| {
            let (decoded, read) = DeliverJob::decode(body, 2).unwrap();
            assert_eq!(decoded, names);
            assert_eq!(read.collect::<Result<Vec<_>, _>>().unwrap(), rows);
        },
    );
    let reply = DeliverJobReply {
        lsn: 43,
        accepted: 1,
        rejections: vec![RejectedLine {
            line: 2,
            reason: RejectReason::DuplicateInStock.as_u16(),
        }],
        job: JobState::UnderWay.as_u16(),
        missing: 1,
    };
    check_control(Kind::DeliverJobReply, 0, reply);
    let end = EndJob {
        channel: "alpha".to_owned(),
        job: [9; 16],
        attempt: 1,
        what: 2,
        extend_ms: 0,
        reason: "sold out".to_owned(),
    };
    check_control(Kind::EndJob, 0, end);
    let reply = EndJobReply {
        job: JobState::Over.as_u16(),
        lease_ms: 0,
    };
    check_control(Kind::EndJobReply, 0, reply);
}

#[test]
fn retries() {
    let list = RetryList {
        sku: Some("gift-50".to_owned()),
        buried: Some(true),
        after: 0,
        limit: 100,
    };
    check_control(Kind::RetryList, 0, list);
    let row = RetryRow {
        order: [9; 16],
        sku: 7,
        quantity: 2,
        priority: 1,
        attempts: 10,
        buried: true,
        cause: RetryCause::TimedOut.as_u16(),
        again_unix_ms: 0,
        since_unix_ms: 1_800_000_000_000,
        ends_unix_ms: 1_800_000_100_000,
    };
    let rows = RetryListReply {
        rows: vec![row],
        next: Some(5),
        waiting: 9,
        retrying: 4,
        buried: 1,
        oldest_unix_ms: 1_800_000_000_000,
    };
    check_control(Kind::RetryListReply, 0, rows);
    let moves = RetryMove {
        what: 1,
        orders: vec![[9; 16]],
        sku: None,
        buried: None,
    };
    check_control(Kind::RetryMove, 0, moves);
    check_control(
        Kind::RetryMoveReply,
        0,
        RetryMoveReply { moved: 1, lsn: 44 },
    );
}

#[test]
fn import() {
    let begin = ImportBegin {
        sku: "gift-50".to_owned(),
        create_sku: true,
        batch: Some("may".to_owned()),
        pool: None,
        max_uses: MaxUses::default(),
    };
    check_control(Kind::ImportBegin, 0, begin);
    check_control(
        Kind::ImportBeginReply,
        0,
        ImportBeginReply { import: 9, sku: 7 },
    );
    let rows = rows_example();
    check(
        Kind::ImportRows,
        2,
        0,
        |out| {
            put_import_id(out, 9);
            rows.iter().for_each(|row| row.encode_into(out));
        },
        |body| {
            let (import, decoded) = import_rows(body, 2).unwrap();
            assert_eq!(import, 9);
            assert_eq!(decoded.collect::<Result<Vec<_>, _>>().unwrap(), rows);
        },
    );
    let reply = ImportRowsReply {
        import: 9,
        rows_received: 2,
    };
    check(
        Kind::ImportRowsReply,
        0,
        0,
        |out| reply.encode_into(out),
        |body| assert_eq!(ImportRowsReply::decode(body), Ok(reply)),
    );
    let end = ImportEnd { import: 9 };
    check(
        Kind::ImportEnd,
        0,
        0,
        |out| end.encode_into(out),
        |body| assert_eq!(ImportEnd::decode(body), Ok(end)),
    );
    let reason = RejectReason::DuplicateInStock.as_u16();
    let report = ImportEndReply {
        batch: 5,
        label: "may".to_owned(),
        lsn: 43,
        accepted: 1,
        slabs: 1,
        counts: vec![ReasonCount { reason, count: 1 }],
        rejections: vec![RejectedLine { line: 2, reason }],
    };
    check_control(Kind::ImportEndReply, 0, report);
}

#[test]
fn routes_and_server_info() {
    let toml = || "version = 1\n".to_owned();
    let expect = Trailing(None);
    check_control(
        Kind::RoutesLoad,
        0,
        RoutesLoad {
            toml: toml(),
            expect,
        },
    );
    let warnings = vec!["rule 2 is never reached".to_owned()];
    check_control(
        Kind::RoutesLoadReply,
        0,
        RoutesLoadReply {
            version: 1,
            lsn: 44,
            warnings,
        },
    );
    let version = Trailing(None);
    check_control(Kind::RoutesShow, 0, RoutesShow { version });
    check_bytes(Kind::RoutesHistory, b"");
    let row = |version, same_as| RouteRow {
        version,
        lsn: 44,
        unix_ms: 1_800_000_000_000,
        bytes: 12,
        rules: 2,
        same_as,
    };
    let rows = vec![row(3, Some(1)), row(2, None)];
    check_control(Kind::RoutesHistoryReply, 0, RoutesHistoryReply { rows });
    let back = RoutesRollback {
        to: Some(1),
        expect: Some(3),
    };
    check_control(Kind::RoutesRollback, 0, back);
    let loaded = RoutesLoadReply {
        version: 4,
        lsn: 45,
        warnings: Vec::new(),
    };
    check_control(Kind::RoutesRollbackReply, 0, loaded);
    check_control(
        Kind::RoutesShowReply,
        0,
        RoutesShowReply {
            version: 1,
            toml: toml(),
        },
    );
    let feed = Feed {
        from: 812,
        skus: vec![7],
        kinds: vec![FeedKind::Issued.as_u16()],
        facts_max: 100,
        wait_ms: 1000,
    };
    check_control(Kind::Feed, 0, feed);
    let row = FeedRow {
        lsn: 813,
        unix_ms: 1_800_000_000_000,
        kind: FeedKind::Issued.as_u16(),
        sku: 7,
        order: Some([9; 16]),
        quantity: 2,
        cards: vec![CardRun {
            slab: 1,
            slot: 2,
            count: 2,
            generation: 3,
        }],
        batch: 4,
        pool: "main".to_owned(),
        text: "may".to_owned(),
        how: IssueWay::Commit.as_u16(),
        number: 1,
    };
    let page = FeedReply {
        next: 814,
        end: 820,
        facts: vec![row],
    };
    check_control(Kind::FeedReply, 0, page);
    check_bytes(Kind::RoutesStatus, b"");
    let mark = RouteMark {
        at: 8000,
        passed: true,
        flips: 3,
    };
    let rule = RouteRule {
        name: "vip".to_owned(),
        orders: 41,
    };
    let status = RoutesStatusReply {
        version: 1,
        load: 8123,
        lanes: 12,
        cores: 8500,
        log: 7,
        marks: vec![mark],
        rules: vec![rule],
    };
    check_control(Kind::RoutesStatusReply, 0, status);
    check_bytes(Kind::ChannelsStatus, b"");
    let row = ChannelRow {
        name: "alpha".to_owned(),
        kind: ChannelKind::Issuer.as_u16(),
        pool: "main".to_owned(),
        standing: ChannelStanding::Ejected.as_u16(),
        cause: ChannelCause::ConsecutiveFailures.as_u16(),
        ejections: 2,
        since_unix_ms: 1_800_000_000_000,
        until_unix_ms: 1_800_000_060_000,
        workers: 3,
        room: 100,
        jobs: 7,
        ready: 9,
        filled: 1_000,
        failed: 5,
        timed_out: 6,
        late: 1,
        cards: 2_000,
        mean_us: 12_345,
        p99_us: 99_000,
    };
    check_control(
        Kind::ChannelsStatusReply,
        0,
        ChannelsStatusReply { rows: vec![row] },
    );
    let asked = ChannelMove {
        channel: "alpha".to_owned(),
        what: 1,
        for_ms: 60_000,
    };
    check_control(Kind::ChannelMove, 0, asked);
    let stands = ChannelMoveReply {
        lsn: 42,
        standing: ChannelStanding::Ejected.as_u16(),
        until_unix_ms: 1_800_000_060_000,
    };
    check_control(Kind::ChannelMoveReply, 0, stands);
    canary();
    check_bytes(Kind::ServerInfo, b"");
    let info = ServerInfoReply {
        version: "0.1.0".to_owned(),
        store_id: STORE_ID,
        epoch: 3,
        cores: 2,
        durable_lsn: 42,
        uptime_ms: 60_000,
        sync: "dsync".to_owned(),
        routes: 1,
        orders: 41,
    };
    check_control(Kind::ServerInfoReply, 0, info);
}

fn canary() {
    let settings = CanarySettings {
        share: Some(5),
        step: None,
        until: Some(50),
        minimum_sample: Some(2000),
        p99_ratio: Some(10_500),
        step_time_ms: Some(3_600_000),
    };
    let start = CanaryStart {
        toml: "version = 1\n".to_owned(),
        settings: settings.clone(),
    };
    check_control(Kind::CanaryStart, 0, start);
    let started = CanaryStartReply {
        version: 8,
        lsn: 46,
        share: 5,
        warnings: vec!["rule 2 is never reached".to_owned()],
    };
    check_control(Kind::CanaryStartReply, 0, started);
    check_bytes(Kind::CanaryStatus, b"");
    let group = |orders, failed| CanaryGroup {
        orders,
        failed,
        p50_us: 210,
        p99_us: 2_100,
    };
    let step = CanaryStep {
        lsn: 47,
        unix_ms: 1_800_000_000_000,
        deed: CanaryDeed::Promoted.as_u16(),
        reason: CanaryReason::NoWorse.as_u16(),
        share: 10,
        groups: vec![group(2000, 3), group(2013, 4)],
    };
    let status = CanaryStatusReply {
        version: 8,
        in_force: 7,
        under_way: true,
        settings,
        next_look: 125,
        groups: vec![group(17, 0), group(18, 1)],
        steps: vec![step],
    };
    check_control(Kind::CanaryStatusReply, 0, status);
    check_bytes(Kind::CanaryAbort, b"");
    check_bytes(Kind::CanaryResume, b"");
    let changed = |share| CanaryChangeReply {
        version: 8,
        lsn: 48,
        share,
    };
    check_control(Kind::CanaryAbortReply, 0, changed(0));
    check_control(Kind::CanaryResumeReply, 0, changed(10));
}

#[test]
fn refused_and_fault() {
    let refused = RefusedBody {
        refusal: Refusal::TooManyOrders,
        retry_after_ms: 0,
        text: "at most 2047 orders a frame".to_owned(),
    };
    check(
        Kind::Refused,
        0,
        0,
        |out| refused.encode_into(out),
        |body| assert_eq!(RefusedBody::decode(body).as_ref(), Ok(&refused)),
    );
    let fault = FaultBody {
        fault: FaultCode::BadChecksum,
        text: "damaged".to_owned(),
    };
    check(
        Kind::Fault,
        0,
        0,
        |out| fault.encode_into(out),
        |body| assert_eq!(FaultBody::decode(body).as_ref(), Ok(&fault)),
    );
}
