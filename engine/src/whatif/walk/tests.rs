//! How records of the log and of order files count.

use super::*;
use crate::route::{DEFAULT_ROUTES, RouteTable};
use crate::state::record::{Backordered, Credits, Release, Released, Reserved, Run, Runs};
use crate::whatif::Count;

/// SKU 1 has the pools main and vip, with slab 1 in main and slab 3 in vip.
fn names() -> Names {
    let pools = ["main", "vip"].map(str::to_owned).into();
    Names {
        skus: vec![("s".to_owned(), pools)],
        slabs: vec![None, Some(0), None, Some(1)],
    }
}

fn walk(table: &RouteTable, span: Span) -> Walk<'_> {
    Walk {
        table,
        names: names(),
        span,
        from: Vec::new(),
        models: None,
        report: Report::default(),
    }
}

fn run(slab: u32, count: u32) -> Run {
    Run {
        slab,
        slot: 0,
        count,
        generation: 0,
    }
}

fn issued(way: Way, runs: &[Run]) -> Issued<'_> {
    Issued {
        order_id: 7,
        holder: 0,
        sku: 1,
        principal: 0,
        quantity: runs.iter().map(|run| run.count as u16).sum(),
        priority: 2,
        lane: 1,
        way,
        fewer: 0,
        runs: Runs::Given(runs),
    }
}

fn reserved() -> Reserved {
    Reserved {
        order_id: 7,
        holder: 0,
        sku: 1,
        principal: 0,
        quantity: 4,
        priority: 0,
        lane: 0,
        ttl_ms: 9,
        filled: false,
        fewer: 0,
        credits: Credits([(1, 3), (0, 1), (0, 0), (0, 0)]),
        card: None,
    }
}

fn waits() -> Backordered {
    Backordered {
        order_id: 7,
        holder: 0,
        sku: 1,
        principal: 0,
        quantity: 5,
        priority: 3,
        lane: 3,
        ttl_ms: 0,
        ends_unix_ms: 9,
        tag: 0,
    }
}

fn released() -> Released {
    Released {
        order_id: 7,
        holder: 0,
        sku: 1,
        principal: 0,
        quantity: 4,
        why: Release::Expired,
        was_issue: false,
    }
}

fn stamp(unix_ms: u64) -> Stamp {
    Stamp {
        unix_ms,
        route_table: 1,
    }
}

fn count(orders: u64, cards: u64) -> Count {
    Count { orders, cards }
}

#[test]
fn an_order_of_the_log_counts_where_it_came() {
    let table = RouteTable::parse(1, DEFAULT_ROUTES).unwrap();
    let mut walk = walk(&table, Span::default());
    let runs = [run(3, 1), run(1, 2), run(3, 4)];
    let bound = Reserved {
        card: Some((1, 0)),
        ..reserved()
    };
    let filled = Reserved {
        filled: true,
        ..reserved()
    };
    let facts = [
        Fact::Issued(issued(Way::Issue, &runs)),
        Fact::Issued(issued(Way::Part, &runs[..1])),
        Fact::Reserved(reserved()),
        Fact::Backordered(waits()),
        // Steps of orders that have come, and what is no order.
        Fact::Issued(issued(Way::Commit, &runs)),
        Fact::Issued(issued(Way::LateCommit, &runs)),
        Fact::Issued(issued(Way::Filled, &runs)),
        Fact::Reserved(filled),
        Fact::Released(released()),
        Fact::SkuCreated { sku: 1, name: "s" },
        Fact::Reserved(bound),
    ];
    for (lsn, fact) in (10..).zip(&facts) {
        walk.logged(lsn, stamp(100 + lsn), fact).unwrap();
    }
    let Report { tally, .. } = &walk.report;
    assert_eq!(tally.all, count(4, 7 + 1 + 4 + 5));
    let before = tally.lanes.map(|lane| lane.before);
    let expect = [count(1, 4), count(2, 8), count(0, 0), count(1, 5)];
    assert_eq!(before, expect);
    // Runs of one pool are one place that an order has its cards from.
    assert_eq!(tally.pools["main"].before, count(2, 3));
    assert_eq!(tally.pools["vip"].before, count(3, 9));
    assert_eq!((walk.report.left_out, walk.report.picked), (0, 1));
    let ends = (walk.report.first, walk.report.last);
    assert_eq!(ends, (Some((10, 110)), Some((13, 113))));
}

#[test]
fn of_what_is_folded_away_only_orders_that_were_dealt_at_once_count() {
    let table = RouteTable::parse(1, DEFAULT_ROUTES).unwrap();
    let mut walk = walk(&table, Span::default());
    let runs = [run(1, 2)];
    let ways = [
        Way::Issue,
        Way::Part,
        Way::Commit,
        Way::LateCommit,
        Way::Filled,
    ];
    for way in ways {
        let ended = Ended::Issued(issued(way, &runs));
        walk.ended(5, 6, &ended).unwrap();
    }
    walk.ended(5, 6, &Ended::Released(released())).unwrap();
    assert_eq!(walk.report.tally.all, count(2, 4));
    // The commit, the one that had waited, and the one that expired; its late commit is a row of the same order.
    assert_eq!(walk.report.left_out, 3);
}

#[test]
fn both_ends_of_a_span_count() {
    let table = RouteTable::parse(1, DEFAULT_ROUTES).unwrap();
    let (lsn, time) = (Point::Lsn, Point::UnixMs);
    for (from, until, orders) in [
        (None, None, 5),
        (Some(lsn(12)), None, 3),
        (None, Some(lsn(12)), 3),
        (Some(lsn(12)), Some(lsn(12)), 1),
        (Some(time(112)), Some(time(113)), 2),
        (Some(lsn(13)), Some(time(112)), 0),
    ] {
        let span = Span { from, until };
        let mut walk = walk(&table, span);
        for at in 10..15 {
            let came = Fact::Backordered(waits());
            walk.logged(at, stamp(100 + at), &came).unwrap();
        }
        assert_eq!(walk.report.tally.all.orders, orders, "{span:?}");
    }
}

#[test]
fn records_that_cannot_be_are_told() {
    let table = RouteTable::parse(1, DEFAULT_ROUTES).unwrap();
    let mut walk = walk(&table, Span::default());
    let (good, bad) = ([run(1, 1)], [run(2, 1)]);
    for (fact, words) in [
        (issued(Way::Issue, &bad), "slab 2, which is not there"),
        (
            Issued {
                sku: 2,
                ..issued(Way::Issue, &good)
            },
            "SKU 2, which is not there",
        ),
        (
            Issued {
                lane: 4,
                ..issued(Way::Issue, &good)
            },
            "priority or lane 4",
        ),
    ] {
        let error = walk.logged(1, stamp(1), &Fact::Issued(fact)).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(walk.report, Report::default());
}
