//! The parts of the order's way, each by itself: claim, ring, index, and the seal of a card.
//!
//! `cargo bench --package croupier-engine --bench parts [-- FILTER]`. Figures of one core in whose caches the parts lie, but
//! for the large index; what the parts cost together, `croupier-bench limits` shows.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use croupier_engine::slab::claim;
use croupier_engine::slab::sealing::{SlabOpener, SlabSealer};
use croupier_engine::slab::vault::SlabKey;
use croupier_engine::state::index::{Claim, IndexView, Look, OrderIndex, Spread};
use croupier_engine::wal::ring::{Ring, UNIT_BYTES, UNIT_WORDS};

/// Slots of a whole slab.
const SLAB_SLOTS: u32 = 1 << 20;
/// Cards that a turn takes at once.
const TURN_CARDS: u32 = 128;

fn claims(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("claim");
    let words: Vec<AtomicU64> = (0..claim::words_for(SLAB_SLOTS))
        .map(|_| AtomicU64::new(0))
        .collect();
    group.throughput(Throughput::Elements(TURN_CARDS.into()));
    let mut cursor = 0;
    group.bench_function("take 128 from a full slab", |bencher| {
        bencher.iter(|| {
            if cursor + 2 > words.len() {
                words
                    .iter()
                    .for_each(|word| word.store(0, Ordering::Relaxed));
                cursor = 0;
            }
            take(&words, &mut cursor, TURN_CARDS)
        });
    });

    // One card is left in every 64th word, as after a long sale.
    group.throughput(Throughput::Elements(1));
    let fill = |words: &[AtomicU64]| {
        for (index, word) in words.iter().enumerate() {
            word.store(u64::MAX << u32::from(index % 64 == 0), Ordering::Relaxed);
        }
    };
    fill(&words);
    let mut cursor = 0;
    group.bench_function("take 1 from a nearly empty slab", |bencher| {
        bencher.iter(|| {
            if cursor + 65 > words.len() {
                fill(&words);
                cursor = 0;
            }
            take(&words, &mut cursor, 1)
        });
    });
    group.finish();
}

fn take(words: &[AtomicU64], cursor: &mut usize, want: u32) {
    let to = words.len();
    let got = claim::take_in(words, SLAB_SLOTS, cursor, to, want, |slot| {
        black_box(slot);
    });
    assert_eq!(got, want);
}

fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    for records in [1, 16, 256] {
        let ring = Ring::new(1 << 14, 1);
        let batch = vec![7; records * UNIT_WORDS];
        let mut block = vec![0; records * UNIT_BYTES];
        let mut at = 1;
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(format!("append {records} and take them"), |bencher| {
            bencher.iter(|| {
                ring.append(black_box(&batch)).expect("it was emptied");
                at = ring.take(at, &mut block);
                ring.release_to(at);
                black_box(&block);
            });
        });
    }
    group.finish();
}

/// Ids as callers make them up: without order.
fn id(number: u64) -> u128 {
    u128::from(number) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835
}

fn insert(index: &OrderIndex, view: &mut IndexView, number: u64) {
    let hashed = index.hash(id(number));
    let Look::Absent(seen) = view.look(hashed) else {
        panic!("every id is inserted once")
    };
    let Claim::Ours(place) = view.claim(hashed, seen) else {
        panic!("nobody else claims")
    };
    let row = index.take_rows(1);
    index.put_one(row, id(number), number + 1, (1, number as u32));
    view.publish(place, row);
}

fn index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    for orders in [100_000, 10_000_000] {
        let index = Arc::new(OrderIndex::new(orders, Spread::seeded([1, 2])));
        let mut view = IndexView::new(&index);
        (0..orders).for_each(|number| insert(&index, &mut view, number));
        index_of(&mut group, orders, &index, &mut view);
    }
    group.finish();
}

fn index_of(
    group: &mut BenchmarkGroup<'_, WallTime>,
    orders: u64,
    index: &OrderIndex,
    view: &mut IndexView,
) {
    let mut at = 0;
    group.bench_function(format!("look up one of {orders}"), |bencher| {
        bencher.iter(|| {
            // A stride that visits all of them, so that no line is warm by chance.
            at = (at + 7_919) % orders;
            match view.look(index.hash(id(at))) {
                Look::Known(settled) => black_box(settled),
                _ => panic!("it was inserted"),
            }
        });
    });
    let mut next = orders;
    group.bench_function(
        format!("insert beside {orders}, growth included"),
        |bencher| {
            bencher.iter(|| {
                insert(index, view, next);
                next += 1;
            });
        },
    );
}

fn seal(criterion: &mut Criterion) {
    const CLASS_BYTES: u32 = 48;
    const SEALED_BYTES: usize = CLASS_BYTES as usize + 16;
    const CARDS: u32 = 1 << 12;
    const SECRET: [u8; 40] = [b'7'; 40];
    let store = [1; 16];
    let sealer = || {
        let key = SlabKey::generate().expect("the system has random bytes");
        SlabSealer::new(key, store, 1, CLASS_BYTES, CARDS)
    };

    let mut group = criterion.benchmark_group("card of 40 bytes");
    group.throughput(Throughput::Elements(CARDS.into()));
    let mut sealed = vec![0; SEALED_BYTES];
    group.bench_function("seal, a slab's worth", |bencher| {
        // No slot of a key is ever sealed twice: every pass has a key of its own, made outside of the measurement.
        bencher.iter_batched_ref(
            sealer,
            |sealer| {
                let mut range = sealer.take(CARDS).expect("the slab is new");
                (0..CARDS).for_each(|_| range.seal_next(black_box(&SECRET), &mut sealed));
            },
            BatchSize::LargeInput,
        );
    });

    let (opener, slots) = sealed_slab(store, CLASS_BYTES, SEALED_BYTES, &SECRET);
    let mut out = BytesMut::with_capacity(1 << 10);
    let mut slot = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("open", |bencher| {
        bencher.iter(|| {
            slot = (slot + 1) % slots.len();
            out.clear();
            let opened = opener.open(slot as u32, &slots[slot], &mut out);
            opened.expect("it was sealed under this key")
        });
    });
    group.finish();
}

/// Sealed slots, and the opener of the same key.
fn sealed_slab(
    store: [u8; 16],
    class_bytes: u32,
    sealed_bytes: usize,
    secret: &[u8],
) -> (SlabOpener, Vec<Vec<u8>>) {
    let key = SlabKey::generate().expect("the system has random bytes");
    let opener = SlabOpener::new(&key, store, 1, class_bytes);
    let sealer = SlabSealer::new(key, store, 1, class_bytes, 64);
    let mut range = sealer.take(64).expect("the slab is new");
    let seal = |_| {
        let mut sealed = vec![0; sealed_bytes];
        range.seal_next(secret, &mut sealed);
        sealed
    };
    (opener, (0..64).map(seal).collect())
}

criterion_group!(benches, claims, ring, index, seal);
criterion_main!(benches);
