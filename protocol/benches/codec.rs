//! What a frame costs: reading 128 orders, and writing their answers.
//!
//! `cargo bench --package croupier-protocol --bench codec`

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use croupier_protocol::{
    CardRef, FRAME_BYTES_MAX_DEFAULT, FrameWriter, IssuedWriter, Kind, Lsn, OrderId, SkuId,
    StepItem, peek, step_items,
};

/// Orders of a frame.
const ORDERS: u16 = 128;
/// A gift code of usual length.
const SECRET: &[u8] = b"GIFT-4F7K-9QXT-2MZB-7HRD-WPLN-53CV-A8EJ-";

fn order_id(number: u16) -> OrderId {
    OrderId::from_u128(u128::from(number) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn put_request(out: &mut BytesMut) {
    let mut frame = FrameWriter::begin(out, Kind::Issue, 1);
    for number in 0..ORDERS {
        let item = StepItem::one(order_id(number), SkuId(1));
        item.encode_into(frame.body());
    }
    frame.set_count(ORDERS);
    frame.finish();
}

fn put_answer(out: &mut BytesMut) {
    let mut frame = FrameWriter::begin(out, Kind::IssueReply, 1);
    for number in 0..ORDERS {
        let (lsn, sku) = (Lsn(number.into()), SkuId(1));
        let mut order = IssuedWriter::begin(frame.body(), order_id(number), lsn, sku, false);
        let card = CardRef {
            slab: 1,
            slot: number.into(),
            generation: 0,
        };
        order.put_card(card, SECRET);
        order.finish();
    }
    frame.set_count(ORDERS);
    frame.finish();
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(ORDERS.into()));

    let mut request = BytesMut::new();
    put_request(&mut request);
    group.bench_function("peek and decode an Issue frame of 128 orders", |bencher| {
        bencher.iter(|| {
            let header = peek(black_box(&request), FRAME_BYTES_MAX_DEFAULT)
                .expect("the frame is right")
                .expect("the frame is whole");
            let items = step_items(header.body_of(&request), header.count)
                .expect("the body is as long as its count says");
            items.for_each(|item| {
                black_box(item);
            });
        });
    });

    // A server writes into a buffer that it has had for a while.
    let mut answer = BytesMut::with_capacity(FRAME_BYTES_MAX_DEFAULT as usize);
    group.bench_function("encode its answer, 40 bytes a card", |bencher| {
        bencher.iter(|| {
            answer.clear();
            put_answer(&mut answer);
            black_box(&answer);
        });
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
