//! Every record as bytes and back; damage that must be told.

use croupier_protocol::{CanaryDeed, CanaryReason};

use super::*;
use crate::canary::Settings;
use crate::state::canary::{Figures, Step};
use crate::state::reused::View;

fn bytes_of(record: &Record<'_>) -> Vec<u8> {
    let mut words = Vec::new();
    let units = record.put(&mut words);
    assert_eq!(words.len(), units * UNIT_WORDS);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn every_kind_round_trips() {
    let stamp = Stamp {
        unix_ms: 1_700_000_000_123,
        route_table: 7,
    };
    let facts = [
        Fact::Started {
            epoch: 3,
            version: "0.1.0",
        },
        Fact::SkuSet(SkuSet {
            sku: 3,
            deal_order: DealOrder::Random,
            hold_share_max_percent: 40,
            cap: Cap::default(),
        }),
        Fact::SkuSet(SkuSet {
            cap: Cap {
                cards_max: 7,
                window_ms: 1 << 33,
            },
            ..SkuSet::default_of(4)
        }),
        Fact::SkuCreated { sku: 1, name: "x" },
        Fact::SkuCreated {
            sku: 2,
            name: "一二三四五六七八九十一二三四五六七八九十",
        },
        Fact::SlabAdded {
            slab: 9,
            sku: 1,
            batch: 4,
            pool: 2,
            cards: 99,
            class_bytes: 48,
            header_hash: [5; 32],
            grows: false,
        },
        Fact::SlabAdded {
            slab: 10,
            sku: 1,
            batch: 5,
            pool: 2,
            cards: 4096,
            class_bytes: 48,
            header_hash: [6; 32],
            grows: true,
        },
        Fact::CardsAdded(Added {
            slab: 10,
            sku: 1,
            batch: 5,
            first: 1,
            cards: 4095,
            crcs: [1, u32::MAX, 3],
        }),
        Fact::BatchSealed {
            batch: 4,
            sku: 1,
            pool: 0,
            cards: 99,
            slabs: 1,
            label: "双十一",
            pool_name: "main",
        },
        Fact::SlabReused(Reused {
            slab: 12,
            sku: 1,
            batch: 4,
            pool: 2,
            class_bytes: 48,
            view: View {
                of: 9,
                first: 7,
                cards: 1,
                uses: 1 << 20,
                unlimited: true,
                closed: false,
            },
        }),
        Fact::ChannelChanged {
            name: "alpha",
            standing: Standing::Ejected {
                until_unix_ms: 0x0102_0304_0506_0708,
            },
            cause: ChannelCause::ProbeFailed,
            ejections: 7,
        },
        Fact::ChannelChanged {
            name: "一二三四五六七八九十一二三四五六七八九十",
            standing: Standing::Probing,
            cause: ChannelCause::EjectionOver,
            ejections: 0,
        },
        Fact::RoutesLoaded {
            version: 3,
            toml: "[[rule]]\nlane = \"vip\"\n# and so on, over more than a unit",
        },
        Fact::Canary(canary(CanaryDeed::Started, 5)),
        Fact::Canary(canary(CanaryDeed::Promoted, 10)),
        Fact::Canary(canary(CanaryDeed::InForce, 100)),
    ];
    for fact in facts {
        let record = Record { stamp, fact };
        let bytes = bytes_of(&record);
        assert_eq!(decode(&bytes), Ok((record, bytes.len())));
        for unit in bytes.chunks(RECORD_UNIT_BYTES) {
            assert!(
                unit.iter().any(|&byte| byte != 0),
                "the reader tells torn sectors by zeros"
            );
        }
    }
}

#[test]
fn orders_of_any_number_of_runs_round_trip() {
    for count in [1usize, 2, 4, 5, 6, 9, 250] {
        let runs: Vec<Run> = (0..count as u32)
            .map(|n| Run {
                slab: n,
                slot: n * 7,
                count: 1 + n % 3,
                generation: 0,
            })
            .collect();
        let issued = Issued {
            order_id: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            holder: 0,
            sku: 3,
            principal: 0,
            quantity: count as u16,
            priority: 2,
            lane: 1,
            way: Way::Issue,
            fewer: 0,
            runs: Runs::Given(&runs),
        };
        let stamp = Stamp {
            unix_ms: 5,
            route_table: 1,
        };
        let bytes = bytes_of(&Record {
            stamp,
            fact: Fact::Issued(issued),
        });
        assert_eq!(bytes.len(), issued_units(count) * RECORD_UNIT_BYTES);
        let (record, _) = decode(&bytes).unwrap();
        let Fact::Issued(read) = record.fact else {
            panic!("an order")
        };
        assert_eq!(read.runs.iter().collect::<Vec<_>>(), runs);
        assert_eq!(
            (read.order_id, read.sku, read.quantity),
            (issued.order_id, 3, count as u16)
        );
        assert_eq!(
            bytes[16..32],
            (1..=16).collect::<Vec<u8>>(),
            "the id lies in text order"
        );
    }
}

#[test]
fn what_happens_to_holds_round_trips_byte_by_byte() {
    let stamp = Stamp {
        unix_ms: 5,
        route_table: 1,
    };
    let order_id = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
    let run = [Run {
        slab: 1,
        slot: 2,
        count: 2,
        generation: 0,
    }];
    let issued = |way| {
        Fact::Issued(Issued {
            order_id,
            holder: 0,
            sku: 3,
            principal: 0,
            quantity: 2,
            priority: 2,
            lane: 1,
            way,
            fewer: 1,
            runs: Runs::Given(&run),
        })
    };
    let (ttl_ms, sku, principal) = (900_000, 3, 0);
    let reserved = Reserved {
        order_id,
        holder: 0,
        sku,
        principal,
        quantity: 7,
        priority: 2,
        lane: 1,
        ttl_ms,
        filled: false,
        fewer: 0,
        credits: Credits([(0, 4), (2, 3), (0, 0), (0, 0)]),
        card: None,
    };
    let extended = Extended {
        order_id,
        sku,
        principal,
        nth: 1,
        ttl_ms,
    };
    let released = |why| {
        Fact::Released(Released {
            order_id,
            holder: 0,
            sku,
            principal,
            quantity: 7,
            why,
            was_issue: false,
        })
    };
    // Kind and flags, and what stands at 40: docs/wal-format.md.
    let backordered = Backordered {
        order_id,
        holder: 0,
        sku,
        principal,
        quantity: 7,
        priority: 2,
        lane: 1,
        ttl_ms,
        ends_unix_ms: 0x0102_0304_0506_0708,
        tag: 0,
    };
    let waited_in_vain = Fact::Released(Released {
        order_id,
        holder: 0,
        sku,
        principal,
        quantity: 7,
        why: Release::Expired,
        was_issue: true,
    });
    let bound = Reserved {
        quantity: 1,
        credits: Credits([(2, 1), (0, 0), (0, 0), (0, 0)]),
        card: Some((9, 17)),
        ..reserved
    };
    let retried = Fact::Retried(Retried {
        order_id,
        sku,
        principal,
        tried: Tried {
            attempts: 10,
            cause: 3,
            is_buried: true,
            again_unix_ms: 0x0102_0304_0506_0708,
        },
    });
    let rows: [(Fact<'_>, [u8; 2], [u8; 8]); 14] = [
        (issued(Way::Commit), [5, 1], [2, 0, 1, 0, 2, 1, 1, 0]),
        (issued(Way::LateCommit), [5, 2], [2, 0, 1, 0, 2, 1, 1, 0]),
        (issued(Way::Filled), [5, 3], [2, 0, 1, 0, 2, 1, 1, 0]),
        (issued(Way::Part), [5, 4], [2, 0, 1, 0, 2, 1, 1, 0]),
        (
            Fact::Reserved(reserved),
            [8, 0],
            [7, 0, 2, 1, 0xa0, 0xbb, 0x0d, 0],
        ),
        (
            Fact::Reserved(Reserved {
                fewer: 3,
                ..reserved
            }),
            [8, 2],
            [7, 0, 2, 1, 0xa0, 0xbb, 0x0d, 0],
        ),
        (
            Fact::Reserved(bound),
            [8, 4],
            [1, 0, 2, 1, 0xa0, 0xbb, 0x0d, 0],
        ),
        (
            Fact::Reserved(Reserved {
                filled: true,
                ..reserved
            }),
            [8, 1],
            [7, 0, 2, 1, 0xa0, 0xbb, 0x0d, 0],
        ),
        (
            Fact::Backordered(backordered),
            [11, 0],
            [7, 0, 2, 1, 0xa0, 0xbb, 0x0d, 0],
        ),
        (waited_in_vain, [10, 1], [7, 0, 2, 0, 0, 0, 0, 0]),
        (retried, [15, 1], [10, 0, 3, 0, 0, 0, 0, 0]),
        (
            Fact::Extended(extended),
            [9, 0],
            [1, 0, 0, 0, 0xa0, 0xbb, 0x0d, 0],
        ),
        (
            released(Release::Cancelled),
            [10, 0],
            [7, 0, 1, 0, 0, 0, 0, 0],
        ),
        (
            released(Release::Expired),
            [10, 0],
            [7, 0, 2, 0, 0, 0, 0, 0],
        ),
    ];
    for (fact, kind, at_40) in rows {
        let bytes = bytes_of(&Record { stamp, fact });
        assert_eq!(bytes.len(), RECORD_UNIT_BYTES);
        let (read, _) = decode(&bytes).unwrap();
        // Cards that were read lie in bytes.
        if !matches!(fact, Fact::Issued(_)) {
            assert_eq!(read, Record { stamp, fact });
        }
        let mut again = Vec::new();
        read.put(&mut again);
        let again: Vec<u8> = again.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(again, bytes);
        assert_eq!((&bytes[..2], &bytes[40..48]), (&kind[..], &at_40[..]));
        assert_eq!(bytes[16..32], (1..=16).collect::<Vec<u8>>());
        assert!(!are_orders(&bytes), "only issues may go in any order");
    }
    let parts = bytes_of(&Record {
        stamp,
        fact: Fact::Reserved(reserved),
    });
    assert_eq!(parts[48..56], [0, 0, 4, 0, 2, 0, 3, 0]);
    let until = bytes_of(&Record {
        stamp,
        fact: Fact::Backordered(backordered),
    });
    assert_eq!(until[48..56], [8, 7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn a_channel_changes_as_the_page_says() {
    let stamp = Stamp {
        unix_ms: 5,
        route_table: 7,
    };
    let fact = Fact::ChannelChanged {
        name: "alpha",
        standing: Standing::Ejected { until_unix_ms: 9 },
        cause: ChannelCause::FailurePercentage,
        ejections: 3,
    };
    let bytes = bytes_of(&Record { stamp, fact });
    assert_eq!(bytes.len(), RECORD_UNIT_BYTES);
    assert_eq!(bytes[..2], [16, 0]);
    assert_eq!(
        bytes[16..32],
        [2, 0, 2, 0, 3, 0, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(&bytes[32..37], b"alpha");
    let damaged = |at: usize, byte: u8| {
        let mut damaged = bytes.clone();
        damaged[at] = byte;
        decode(&damaged).unwrap_err()
    };
    for (at, byte, word) in [
        (1, 1, "flags"),
        (16, 1, "not ejected"),
        (16, 4, "newer croupier"),
        (18, 0, "newer croupier"),
        (18, 8, "newer croupier"),
        (22, 33, "beyond its record"),
    ] {
        let error = damaged(at, byte);
        assert!(error.contains(word), "{at}: {error}");
    }
}

#[test]
fn moves_of_any_number_of_runs_round_trip_and_ways_that_no_card_goes_are_refused() {
    let stamp = Stamp {
        unix_ms: 5,
        route_table: 1,
    };
    let bytes_of_move = |from, to, runs: &[Run]| {
        let moved = Moved {
            sku: 3,
            from,
            to,
            cause: Cause::Operator,
            runs: Runs::Given(runs),
        };
        bytes_of(&Record {
            stamp,
            fact: Fact::CardsMoved(moved),
        })
    };
    for count in [1usize, 2, 3, 6, 7, moved_runs_max(16)] {
        let runs: Vec<Run> = (0..count as u32)
            .map(|n| Run {
                slab: n + 1,
                slot: n * 7,
                count: 1 + n % 3,
                generation: 0,
            })
            .collect();
        let bytes = bytes_of_move(CardStatus::Free, CardStatus::Void, &runs);
        assert!(bytes.len() <= 16 * RECORD_UNIT_BYTES);
        let Fact::CardsMoved(read) = decode(&bytes).unwrap().0.fact else {
            panic!("a move")
        };
        assert_eq!(read.runs.iter().collect::<Vec<_>>(), runs);
        assert_eq!((read.sku, read.from), (3, CardStatus::Free));
        let head = [3, 0, 0, 0, 1, 4, 1, 0, count as u8, 0];
        assert_eq!(bytes[16..26], head, "docs/wal-format.md, byte by byte");
        assert_eq!(bytes[32..44], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }
    let run = Run {
        slab: 1,
        slot: 0,
        count: 1,
        generation: 0,
    };
    for (from, to) in [
        (CardStatus::Void, CardStatus::Free),
        (CardStatus::Issued, CardStatus::Free),
        (CardStatus::Free, CardStatus::Issued),
        (CardStatus::Free, CardStatus::Free),
    ] {
        let refused = decode(&bytes_of_move(from, to, &[run])).unwrap_err();
        assert!(refused.contains("no card goes that way"), "{refused}");
    }
}

#[test]
fn what_is_not_known_is_named() {
    let mut bytes = bytes_of(&Record {
        stamp: Stamp {
            unix_ms: 0,
            route_table: 0,
        },
        fact: Fact::Started {
            epoch: 1,
            version: "x",
        },
    });
    bytes[0] = 99;
    assert!(decode(&bytes).unwrap_err().contains("kind 99"));
    bytes[0] = KIND_STARTED;
    bytes[1] = 1;
    assert!(decode(&bytes).unwrap_err().contains("flags"));
    bytes[2] = 0;
    assert!(decode(&bytes).is_err());
    assert!(decode(&[]).is_err());
}

/// With the key of a holder a record is what it is without, and longer by the key.
#[test]
fn records_name_holders_behind_their_fixed_part() {
    let key = 0x1112_1314_1516_1718_191a_1b1c_1d1e_1f20;
    let stamp = Stamp {
        unix_ms: 5,
        route_table: 1,
    };
    let runs: Vec<Run> = (0..6)
        .map(|slot| Run {
            slab: 1,
            slot: 3 * slot,
            count: 2,
            generation: 0,
        })
        .collect();
    let facts = |holder, runs| {
        let (order_id, sku, principal, quantity) = (7, 3, 0, 12);
        let issued = Issued {
            order_id,
            holder,
            sku,
            principal,
            quantity,
            priority: 2,
            lane: 1,
            way: Way::Commit,
            fewer: 1,
            runs,
        };
        let reserved = Reserved {
            order_id,
            holder,
            sku,
            principal,
            quantity,
            priority: 2,
            lane: 1,
            ttl_ms: 9,
            filled: false,
            fewer: 3,
            credits: Credits([(0, 4), (2, 8), (0, 0), (0, 0)]),
            card: None,
        };
        let released = Released {
            order_id,
            holder,
            sku,
            principal,
            quantity,
            why: Release::Expired,
            was_issue: true,
        };
        let backordered = Backordered {
            order_id,
            holder,
            sku,
            principal,
            quantity,
            priority: 2,
            lane: 1,
            ttl_ms: 0,
            ends_unix_ms: 77,
            tag: 0,
        };
        [
            (Fact::Issued(issued), 48),
            (Fact::Reserved(reserved), 64),
            (Fact::Released(released), 64),
            (Fact::Backordered(backordered), 64),
        ]
    };
    let units = |fact: &Fact<'_>, holder| match fact {
        Fact::Issued(_) => issued_units(6 + key_runs(holder)),
        _ => about_units(holder),
    };
    let given = Runs::Given(&runs);
    for ((without, at), (with, _)) in facts(0, given).into_iter().zip(facts(key, given)) {
        let plain = bytes_of(&Record {
            stamp,
            fact: without,
        });
        let named = bytes_of(&Record { stamp, fact: with });
        assert_eq!(plain.len(), units(&without, 0) * RECORD_UNIT_BYTES);
        assert_eq!(named.len(), units(&with, key) * RECORD_UNIT_BYTES);
        assert_eq!((named[0], named[1]), (plain[0], plain[1] | 0x80));
        assert_eq!(named[4..at], plain[4..at]);
        assert_eq!(named[at..at + 16], key.to_be_bytes());
        let (record, length) = decode(&named).unwrap();
        assert_eq!(length, named.len());
        match (record.fact, with) {
            (Fact::Issued(read), Fact::Issued(issued)) => {
                assert!(read.runs.iter().eq(issued.runs.iter()));
                let runs = given;
                assert_eq!(Issued { runs, ..read }, issued);
            }
            (read, fact) => assert_eq!(read, fact),
        }
        let mut nobody = named.clone();
        nobody[at..at + 16].fill(0);
        assert!(decode(&nobody).unwrap_err().contains("zero"));
    }
    // The flag, and no room for a key.
    let mut short = bytes_of(&Record {
        stamp,
        fact: facts(0, given)[1].0,
    });
    short[1] |= 0x80;
    assert!(decode(&short).unwrap_err().contains("shorter"));
}

#[test]
fn a_view_lies_as_the_page_says() {
    let reused = Reused {
        slab: 0x0101,
        sku: 0x0202,
        batch: 0x0303,
        pool: 0x0404,
        class_bytes: 0x0909,
        view: View {
            of: 0x0505,
            first: 0x0606,
            cards: 1,
            uses: 0x0808,
            unlimited: true,
            closed: false,
        },
    };
    let stamp = Stamp {
        unix_ms: 0,
        route_table: 0,
    };
    let fact = Fact::SlabReused(reused);
    let bytes = bytes_of(&Record { stamp, fact });
    assert_eq!((bytes.len(), bytes[0], bytes[1]), (64, 13, 1));
    let words: Vec<u32> = (16..64).step_by(4).map(|at| u32_at(&bytes, at)).collect();
    let expect = [
        0x0101, 0x0202, 0x0303, 0x0404, 0x0505, 0x0606, 1, 0x0808, 0x0909, 0, 0, 0,
    ];
    assert_eq!(words, expect);
    let mut other = bytes.clone();
    other[1] = 2;
    assert!(decode(&other).unwrap_err().contains("flags"));
}

fn canary(deed: CanaryDeed, share: u8) -> CanaryFact<'static> {
    let group = |from| Figures::of_words([from, from + 1, from + 2, from + 3]);
    let settings = Settings {
        step: 6,
        until: 49,
        minimum_sample: 0x0707,
        ratio: 0x2828,
        step_time_ms: 0x0100_0909,
        ..Settings::default()
    };
    let toml = "[[rule]]\n# a canary";
    CanaryFact {
        version: 0x0303,
        step: Step {
            deed,
            reason: CanaryReason::Operator,
            share,
            groups: [group(0x10), group(0x20)],
        },
        start: (deed == CanaryDeed::Started).then_some((settings, toml)),
    }
}

#[test]
fn a_canary_lies_as_the_page_says() {
    let stamp = Stamp {
        unix_ms: 0,
        route_table: 2,
    };
    let bytes = |fact| {
        let fact = Fact::Canary(fact);
        bytes_of(&Record { stamp, fact })
    };
    let step = bytes(canary(CanaryDeed::RolledBack, 0));
    assert_eq!((step.len(), step[0], step[1]), (64, 17, 0));
    let words: Vec<u32> = (16..64).step_by(4).map(|at| u32_at(&step, at)).collect();
    let expect = [
        0x0303,
        0x0000_0106,
        0x10,
        0x11,
        0x12,
        0x13,
        0x20,
        0x21,
        0x22,
        0x23,
        0,
        0,
    ];
    assert_eq!(words, expect);
    let start = bytes(canary(CanaryDeed::Started, 5));
    assert_eq!((start.len(), u32_at(&start, 20)), (128, 0x0005_0101));
    let words: Vec<u32> = (64..88).step_by(4).map(|at| u32_at(&start, at)).collect();
    assert_eq!(words, [0x3106, 0x0707, 0x2828, 19, 0x0100_0909, 0]);
    assert_eq!(start[88..88 + 19], *b"[[rule]]\n# a canary");
    for (at, byte, word) in [
        (20, 9, "deed"),
        (21, 9, "reason"),
        (66, 1, "newer"),
        (73, 0, "P99"),
        (76, 200, "reaches"),
    ] {
        let mut other = start.clone();
        other[at] = byte;
        let error = decode(&other).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    let mut short = step.clone();
    short[20] = CanaryDeed::Started.as_u16() as u8;
    assert!(decode(&short).unwrap_err().contains("settings"));
}
