//! Whatever is written is read back, and no bytes from outside make a reader panic.

use bytes::BytesMut;
use croupier_protocol::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

prop_compose! {
    fn step_item()(
        order_id: u128, sku: u32, quantity: u16, priority: u8, flags: u8, deadline_ms: u32, ttl_ms: u32, key: u128, some: u16,
    ) -> StepItem {
        let order_id = OrderId::from_u128(order_id);
        let holder = if flags & STEP_FLAG_HOLDER == 0 { Holder::NONE } else { Holder::from_u128(key) };
        let tag = if flags & STEP_FLAG_TAG == 0 { 0 } else { some };
        StepItem { order_id, sku: SkuId(sku), quantity, priority, flags, deadline_ms, ttl_ms, holder, tag }
    }
}

prop_compose! {
    fn card()(slab: u32, slot: u32, generation: u16, secret in vec(any::<u8>(), 0..80)) -> Card {
        Card { card: CardRef { slab, slot, generation }, secret: secret.into() }
    }
}

fn outcome() -> impl Strategy<Value = (u32, OrderOutcome)> {
    let issued = (
        any::<u128>(),
        any::<u64>(),
        any::<u32>(),
        any::<bool>(),
        vec(card(), 0..6),
    )
        .prop_map(|(order_id, lsn, sku, repeat, cards)| {
            let order_id = OrderId::from_u128(order_id);
            let order = IssuedOrder {
                order_id,
                lsn: Lsn(lsn),
                sku: SkuId(sku),
                repeat,
                cards,
            };
            (sku, OrderOutcome::Issued(order))
        });
    let refused = (
        any::<u128>(),
        any::<u32>(),
        0..Refusal::ALL.len(),
        any::<u32>(),
    )
        .prop_map(|(order_id, sku, refusal, retry_after_ms)| {
            let refusal = Refusal::ALL[refusal];
            (
                sku,
                OrderOutcome::Refused {
                    order_id: OrderId::from_u128(order_id),
                    refusal,
                    retry_after_ms,
                },
            )
        });
    prop_oneof![issued, held(), refused]
}

/// An order with a hold, or with one that has ended.
fn held() -> impl Strategy<Value = (u32, OrderOutcome)> {
    let order = (
        any::<u128>(),
        any::<u64>(),
        any::<u32>(),
        any::<u16>(),
        any::<bool>(),
    );
    let hold = option::of((any::<u64>(), any::<u16>()));
    (order, hold, any::<bool>()).prop_map(
        |((order_id, lsn, sku, quantity, repeat), hold, cancelled)| {
            let order = HeldOrder {
                order_id: OrderId::from_u128(order_id),
                lsn: Lsn(lsn),
                sku: SkuId(sku),
                quantity,
                repeat,
                hold: hold.map(|(ends_unix_ms, extensions)| Hold {
                    ends_unix_ms,
                    extensions,
                }),
            };
            let outcome = match (hold, cancelled) {
                (Some(_), false) => OrderOutcome::Held(order),
                (Some(_), true) => OrderOutcome::Waiting(order),
                (None, true) => OrderOutcome::Cancelled(order),
                (None, false) => OrderOutcome::Expired(order),
            };
            (sku, outcome)
        },
    )
}

fn put_outcome(out: &mut BytesMut, sku: u32, outcome: &OrderOutcome) {
    match outcome {
        OrderOutcome::Issued(order) => {
            let mut writer =
                IssuedWriter::begin(out, order.order_id, order.lsn, order.sku, order.repeat);
            for (index, card) in order.cards.iter().enumerate() {
                let secret = card.secret.as_bytes();
                if index % 2 == 0 {
                    writer.put_card(card.card, secret);
                } else {
                    let open = |out: &mut BytesMut| {
                        out.extend_from_slice(secret);
                        Ok::<_, ()>(secret.len())
                    };
                    writer.put_card_with(card.card, open).unwrap();
                }
            }
            writer.finish();
        }
        OrderOutcome::Held(order) => put_hold(out, STATUS_HELD, order),
        OrderOutcome::Waiting(order) => put_hold(out, STATUS_WAITING, order),
        OrderOutcome::Cancelled(order) => put_hold(out, STATUS_CANCELLED, order),
        OrderOutcome::Expired(order) => put_hold(out, STATUS_EXPIRED, order),
        OrderOutcome::Refused {
            order_id,
            refusal,
            retry_after_ms,
        } => {
            put_refused(out, *order_id, SkuId(sku), *refusal, *retry_after_ms);
        }
    }
}

fn amount() -> impl Strategy<Value = Option<i64>> {
    option::of(i64::MIN + 1..=i64::MAX)
}

type Row = (u64, u64, Option<i64>, Option<i64>, Vec<u8>, Vec<u8>);

fn row() -> impl Strategy<Value = Row> {
    (
        any::<u64>(),
        any::<u64>(),
        amount(),
        amount(),
        vec(any::<u8>(), 0..300),
        vec(any::<u8>(), 0..300),
    )
}

fn as_row((line, expires_at_s, premium_e4, cost_e4, label, secret): &Row) -> ImportRow<'_> {
    ImportRow {
        line: *line,
        expires_at_s: *expires_at_s,
        premium_e4: *premium_e4,
        cost_e4: *cost_e4,
        label: &label[..label.len().min(LABEL_BYTES_MAX)],
        secret,
    }
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..20).prop_map(String::from_iter)
}

fn check_control<T: ControlBody + PartialEq + std::fmt::Debug>(
    value: T,
) -> Result<(), TestCaseError> {
    let mut body = BytesMut::new();
    encode_control(&value, &mut body);
    prop_assert_eq!(decode_control::<T>(&body), Ok(value));
    for shorter in 0..body.len() {
        // Only where a last field may be left out, and then it is.
        if let Ok(read) = decode_control::<T>(&body[..shorter]) {
            let mut again = BytesMut::new();
            encode_control(&read, &mut again);
            prop_assert_eq!(&again[..], &body[..shorter]);
        }
    }
    Ok(())
}

fn kind() -> impl Strategy<Value = Kind> {
    (0..Kind::ALL.len()).prop_map(|index| Kind::ALL[index])
}

proptest! {
    #[test]
    fn steps(items in vec(step_item(), 0..20)) {
        let mut body = BytesMut::new();
        items.iter().for_each(|item| item.encode_into(&mut body));
        let read = step_items(&body, items.len() as u16).unwrap();
        prop_assert_eq!(read.len(), items.len());
        prop_assert_eq!(read.collect::<Vec<_>>(), items);
    }

    #[test]
    fn look_up(ids in vec(any::<u128>(), 0..20)) {
        let mut body = BytesMut::new();
        ids.iter().for_each(|id| put_lookup(&mut body, OrderId::from_u128(*id)));
        let read: Vec<_> = lookup_items(&body, ids.len() as u16).unwrap().map(OrderId::as_u128).collect();
        prop_assert_eq!(read, ids);
    }

    #[test]
    fn answers(outcomes in vec(outcome(), 0..8)) {
        let mut body = BytesMut::new();
        outcomes.iter().for_each(|(sku, outcome)| put_outcome(&mut body, *sku, outcome));
        let read = order_items(&body, outcomes.len() as u16).unwrap();
        prop_assert_eq!(&read, &outcomes.iter().map(|(_, outcome)| outcome.clone()).collect::<Vec<_>>());
        for (view, (sku, outcome)) in OrderItems::new(&body, outcomes.len() as u16).zip(&outcomes) {
            let view = view.unwrap();
            prop_assert_eq!(view.head.sku, SkuId(*sku));
            prop_assert_eq!(view.head.order_id, outcome.order_id());
            prop_assert_eq!(outcome.issued().cloned(), outcome.clone().into_issued());
            let Some(order) = outcome.issued() else {
                prop_assert_eq!(view.cards().len(), 0);
                continue;
            };
            prop_assert_eq!(view.cards().len(), order.cards.len());
            for ((card, secret), expect) in view.cards().zip(&order.cards) {
                prop_assert_eq!(card, expect.card);
                prop_assert_eq!(secret, expect.secret.as_bytes());
            }
        }
        for shorter in 0..body.len() {
            prop_assert!(order_items(&body[..shorter], outcomes.len() as u16).is_err());
        }
    }

    #[test]
    fn rows(import: u64, rows in vec(row(), 0..8)) {
        let mut body = BytesMut::new();
        put_import_id(&mut body, import);
        for row in &rows {
            let before = body.len();
            as_row(row).encode_into(&mut body);
            prop_assert_eq!(body.len() - before, as_row(row).encoded_bytes());
        }
        let (read_import, read) = import_rows(&body, rows.len() as u16).unwrap();
        prop_assert_eq!(read_import, import);
        prop_assert_eq!(read.collect::<Result<Vec<_>, _>>().unwrap(), rows.iter().map(as_row).collect::<Vec<_>>());
    }

    #[test]
    fn small_fixed_bodies(a: u16, b: u16, c: u32, d: u32, e: u32, f: u32, g: u64, store_id: [u8; 16]) {
        let mut body = BytesMut::new();
        let hello = Hello { version_min: a, version_max: b, features: g };
        hello.encode_into(&mut body);
        prop_assert_eq!(Hello::decode(&body.split()), Ok(hello));
        let reply = HelloReply {
            version: a,
            frame_bytes_max: c,
            features: g,
            store_id,
            orders_per_frame_max: d,
            orders_in_flight_max: e,
            quantity_max: f,
        };
        reply.encode_into(&mut body);
        prop_assert_eq!(HelloReply::decode(&body.split()), Ok(reply));
        let rows = ImportRowsReply { import: g, rows_received: u64::from(c) };
        rows.encode_into(&mut body);
        prop_assert_eq!(ImportRowsReply::decode(&body.split()), Ok(rows));
        let end = ImportEnd { import: g };
        end.encode_into(&mut body);
        prop_assert_eq!(ImportEnd::decode(&body), Ok(end));
    }

    #[test]
    fn refused_and_fault(number in 0..12_usize, retry_after_ms: u32, text in text()) {
        let mut body = BytesMut::new();
        let refused = RefusedBody { refusal: Refusal::ALL[number], retry_after_ms, text: text.clone() };
        refused.encode_into(&mut body);
        prop_assert_eq!(RefusedBody::decode(&body.split()), Ok(refused));
        let fault = FaultBody { fault: FaultCode::ALL[number], text };
        fault.encode_into(&mut body);
        prop_assert_eq!(FaultBody::decode(&body), Ok(fault));
    }

    #[test]
    fn control_of_skus(name in text(), sku: u32, lsn: u64, counts: [u64; 5], rows in 0..5_usize) {
        check_control(SkuCreate { name: name.clone() })?;
        check_control(SkuCreateReply { sku, lsn })?;
        check_control(SkuSet {
            name: name.clone(),
            deal_order: (sku & 1 == 0).then_some(sku as u16),
            hold_share_max_percent: (lsn & 1 == 0).then_some(lsn as u16),
            holder: Trailing((rows > 2).then_some(HolderCap { cards_max: (sku & 2 == 0).then_some(sku), window_ms: Some(lsn) })),
        })?;
        check_control(SkuSetReply {
            sku,
            lsn,
            deal_order: sku as u16,
            hold_share_max_percent: lsn as u16,
            holder: Trailing((rows > 2).then_some(HolderCap::default())),
        })?;
        check_control(SkuListReply { skus: vec![SkuRow { sku, name: name.clone() }; rows] })?;
        check_control(Stock { name: (rows > 2).then(|| name.clone()) })?;
        let [free, held, issued, void, imported] = counts;
        check_control(StockReply { rows: vec![StockRow { sku, name: name.clone(), free, held, issued, void, imported }; rows] })?;
        let cards = vec![CardPlace { slab: sku, slot: !sku, generation: rows as u16 }; rows];
        let order = (rows > 3).then(|| lsn.to_le_bytes().repeat(2).try_into().unwrap());
        check_control(MoveCards { to: rows as u16, issued: rows > 1, sku: Some(name), batch: None, cards, order })?;
        check_control(MoveCardsReply { moved: free, lsn })?;
        let card = (rows > 1).then_some(CardPlace { slab: sku, slot: !sku, generation: 1 });
        let label = (rows < 4).then(|| lsn.to_string());
        let ttl_ms = (rows > 2).then_some(sku);
        check_control(Pick { order: [rows as u8; 16], sku, quantity: rows as u16, ttl_ms, card, label, holder: Trailing((rows & 1 == 0).then_some([7; 16])) })?;
        check_control(ListOrders { holder: [rows as u8; 16], after: lsn, limit: sku })?;
        let order = OrderRow { order: [rows as u8; 16], sku, quantity: rows as u16, state: 3, lsn };
        check_control(OrderList { rows: vec![order; rows], next: (rows > 1).then_some(lsn) })?;
    }

    #[test]
    fn control_of_imports(
        sku in text(), create_sku: bool, batch in option::of(text()), pool in option::of(text()),
        number: u64, id: u32, reason: u16, rejections in vec((any::<u64>(), any::<u16>()), 0..9),
    ) {
        let label = sku.clone();
        let begin = ImportBegin { sku, create_sku, batch, pool, max_uses: MaxUses::from_u32(id) };
        let mut body = BytesMut::new();
        encode_control(&begin, &mut body);
        prop_assert_eq!(decode_control::<ImportBegin>(&body), Ok(begin.clone()));
        // A body that ends before the uses is one, too.
        check_control(ImportBegin { max_uses: MaxUses::default(), ..begin })?;
        check_control(ImportBeginReply { import: number, sku: id })?;
        check_control(ImportEndReply {
            batch: id,
            label,
            lsn: number,
            accepted: number,
            slabs: id,
            counts: vec![ReasonCount { reason, count: number }],
            rejections: rejections.into_iter().map(|(line, reason)| RejectedLine { line, reason }).collect(),
        })?;
    }

    #[test]
    fn control_of_servers(toml in text(), number: u64, id: u32, warnings in vec(text(), 0..4), store_id: [u8; 16]) {
        let (version, other) = ((id & 1 == 0).then_some(id), (id & 2 == 0).then_some(!id));
        check_control(RoutesLoad { toml: toml.clone(), expect: Trailing(version) })?;
        check_control(RoutesShow { version: Trailing(other) })?;
        check_control(RoutesRollback { to: version, expect: other })?;
        let row = RouteRow { version: id, lsn: number, unix_ms: !number, bytes: !id, rules: id / 2, same_as: other };
        check_control(RoutesHistoryReply { rows: vec![row; warnings.len()] })?;
        let settings = CanarySettings {
            share: version.map(|share| share as u16),
            step: None,
            until: Some(9),
            minimum_sample: other,
            p99_ratio: version,
            step_time_ms: Some(number),
        };
        let group = CanaryGroup { orders: id, failed: !id, p50_us: 3, p99_us: id / 3 };
        let step = CanaryStep { lsn: number, unix_ms: !number, deed: 1, reason: 2, share: 5, groups: vec![group.clone(); 2] };
        check_control(CanaryStart { toml: toml.clone(), settings: settings.clone() })?;
        check_control(CanaryStartReply { version: id, lsn: number, share: 5, warnings: warnings.clone() })?;
        check_control(CanaryChangeReply { version: id, lsn: number, share: 0 })?;
        check_control(CanaryStatusReply {
            version: id,
            in_force: !id,
            under_way: id % 2 == 0,
            settings,
            next_look: 4,
            groups: vec![group; warnings.len()],
            steps: vec![step; warnings.len()],
        })?;
        check_control(RoutesLoadReply { version: id, lsn: number, warnings })?;
        check_control(RoutesShowReply { version: id, toml: toml.clone() })?;
        check_control(RoutesStatusReply {
            version: id,
            load: id,
            lanes: 1,
            cores: 2,
            log: 3,
            marks: vec![RouteMark { at: id, passed: id % 2 == 0, flips: number }],
            rules: vec![RouteRule { name: toml.clone(), orders: number }],
        })?;
        check_control(ServerInfoReply {
            version: toml.clone(),
            store_id,
            epoch: number,
            cores: id,
            durable_lsn: number,
            uptime_ms: number,
            sync: toml,
            routes: id,
            orders: number,
        })?;
    }

    #[test]
    fn control_of_the_feed(numbers: [u64; 5], sku: u32, half: u16, order: Option<[u8; 16]>, text in text(), rows in 0..5_usize) {
        check_control(Feed {
            from: numbers[0],
            skus: vec![sku; rows],
            kinds: vec![half; rows],
            facts_max: sku,
            wait_ms: !sku,
        })?;
        let [next, end, lsn, quantity, number] = numbers;
        let run = CardRun { slab: sku, slot: !sku, count: sku / 2, generation: half };
        let row = FeedRow {
            lsn,
            unix_ms: !lsn,
            kind: half,
            sku,
            order,
            quantity,
            cards: vec![run; rows],
            batch: !sku,
            pool: text.clone(),
            text,
            how: !half,
            number,
        };
        check_control(FeedReply { next, end, facts: vec![row; rows] })?;
    }

    #[test]
    fn frames(kind in kind(), flags: u16, count: u16, request_id: u64, body in vec(any::<u8>(), 0..300)) {
        let mut wire = BytesMut::new();
        let mut writer = FrameWriter::begin(&mut wire, kind, request_id);
        writer.body().extend_from_slice(&body);
        writer.set_flags(flags);
        writer.set_count(count);
        let length = writer.finish() as u32;
        wire.extend_from_slice(b"the next frame");
        let header = peek(&wire, FRAME_BYTES_MAX_DEFAULT).unwrap().unwrap();
        prop_assert_eq!(header, FrameHeader { kind, flags, count, request_id, length });
        prop_assert_eq!(header.body_of(&wire), &body[..]);
    }

    #[test]
    fn the_codec_reads_what_it_wrote_in_any_pieces(
        bodies in vec(vec(any::<u8>(), 0..200), 1..6), pieces in vec(1..50_usize, 1..20),
    ) {
        let mut codec = FrameCodec::default();
        let header = FrameHeader { kind: Kind::Ping, flags: 0, count: 3, request_id: 9, length: 0 };
        let mut wire = BytesMut::new();
        for body in &bodies {
            codec.encode(Frame { header, body: body.clone().into() }, &mut wire).unwrap();
        }
        let (mut src, mut read) = (BytesMut::new(), Vec::new());
        for bytes in pieces.iter().cycle() {
            if wire.is_empty() {
                break;
            }
            src.extend_from_slice(&wire.split_to((*bytes).min(wire.len())));
            while let Some(frame) = codec.decode(&mut src).unwrap() {
                prop_assert_eq!(frame.header, FrameHeader { length: frame.header.length, ..header });
                read.push(frame.body.to_vec());
            }
        }
        prop_assert_eq!(read, bodies);
        prop_assert!(codec.decode_eof(&mut src).unwrap().is_none());
    }

    #[test]
    fn readers_survive_any_bytes(bytes in vec(any::<u8>(), 0..400), count in 0..5_u16) {
        let _ = peek(&bytes, FRAME_BYTES_MAX_DEFAULT);
        let _ = step_items(&bytes, count).map(Iterator::count);
        let _ = lookup_items(&bytes, count).map(Iterator::count);
        let _ = order_items(&bytes, count);
        let _ = import_rows(&bytes, count).map(|(_, rows)| rows.count());
        let _ = RefusedBody::decode(&bytes);
        let _ = FaultBody::decode(&bytes);
        let _ = decode_control::<ImportEndReply>(&bytes);
        let _ = decode_control::<ServerInfoReply>(&bytes);
        let _ = decode_control::<ImportBegin>(&bytes);
    }
}

#[test]
fn a_row_above_its_limits_is_cut_to_one_byte_above_them() {
    let secret = vec![b'x'; 100_000];
    let mut body = BytesMut::new();
    put_import_id(&mut body, 1);
    let row = ImportRow {
        label: &secret,
        ..ImportRow::new(1, &secret)
    };
    row.encode_into(&mut body);
    assert_eq!(row.encoded_bytes(), ImportRow::BYTES_MAX);
    let (_, mut rows) = import_rows(&body, 1).unwrap();
    let read = rows.next().unwrap().unwrap();
    assert_eq!(
        (read.label.len(), read.secret.len()),
        (LABEL_BYTES_MAX + 1, SECRET_BYTES_MAX + 1)
    );
}

#[test]
fn the_codec_refuses_to_write_what_nobody_would_read() {
    let header = FrameHeader {
        kind: Kind::Ping,
        flags: 0,
        count: 0,
        request_id: 9,
        length: 0,
    };
    let mut wire = BytesMut::new();
    let error = FrameCodec {
        frame_bytes_max: 30,
    }
    .encode(
        Frame {
            header,
            body: vec![0; 7].into(),
        },
        &mut wire,
    );
    assert!(matches!(
        error,
        Err(CodecError::Frame(FrameError::TooLong {
            length: 31,
            max: 30
        }))
    ));
    assert!(wire.is_empty());
}

#[test]
fn the_codec_makes_room_for_one_frame_and_no_more() {
    let mut src = BytesMut::from(&60_000_u32.to_le_bytes()[..]);
    assert!(FrameCodec::default().decode(&mut src).unwrap().is_none());
    assert!(src.capacity() >= 60_000 && src.capacity() < 200_000);
    let mut src = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
    assert!(FrameCodec::default().decode(&mut src).is_err());
    assert!(src.capacity() < 200_000);
}
