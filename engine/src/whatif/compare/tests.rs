//! Facts of a log through both models.

use super::*;
use crate::state::StateSeed;
use crate::state::record::{Backordered, Issued, Run, Runs};
use crate::store::BitsOnly;
use crate::whatif::Tally;
use crate::whatif::figures::Figures;
use croupier_protocol::ChannelCause;

const RECORDED: &str = "[[channel]]\nname = \"alpha\"\nkind = \"issuer\"\njobs = 1\n[[rule]]\nchannels = [\"alpha\"]\n";
const OTHER: &str = "[[channel]]\nname = \"alpha\"\nkind = \"issuer\"\njobs = 2\n\
                     [[channel]]\nname = \"gamma\"\nkind = \"upstream\"\nurl = \"croupier://h:1\"\ntimeout = \"700ms\"\n\
                     [[rule]]\npriority = [\"bulk\"]\nchannels = [\"gamma\"]\nlane = \"background\"\n\
                     [[rule]]\nchannels = [\"alpha\"]\n";

/// SKU 1 has the pools main and alpha, with slab 1 in main and slab 2 in alpha.
fn names() -> Names {
    let pools = ["main", "alpha"].map(str::to_owned).into();
    Names {
        skus: vec![("s".to_owned(), pools)],
        slabs: vec![None, Some(0), Some(1)],
    }
}

fn waits(id: u128, priority: Priority) -> Fact<'static> {
    let lane = priority.as_index() as u8;
    Fact::Backordered(Backordered {
        order_id: id,
        holder: 0,
        sku: 1,
        principal: 0,
        quantity: 1,
        priority: lane,
        lane,
        ttl_ms: 0,
        ends_unix_ms: 9_000_000,
        tag: 0,
    })
}

fn issued(id: u128, way: Way, runs: &[Run]) -> Fact<'_> {
    Fact::Issued(Issued {
        order_id: id,
        holder: 0,
        sku: 1,
        principal: 0,
        quantity: 1,
        priority: 1,
        lane: 1,
        way,
        fewer: 0,
        runs: Runs::Given(runs),
    })
}

fn run(slab: u32) -> [Run; 1] {
    [Run {
        slab,
        slot: 0,
        count: 1,
        generation: 0,
    }]
}

/// The comparison that these facts come to; the error of what is said.
fn compare(
    other: &str,
    said: &[Said],
    facts: &[(u64, Fact<'_>)],
) -> Result<Option<Comparison>, EngineError> {
    let state = State::counting(Box::new(BitsOnly), StateSeed::default());
    let table = Arc::new(RouteTable::parse(0, other).unwrap());
    let names = names();
    let stamp = |unix_ms: u64| Stamp {
        unix_ms,
        route_table: 1,
    };
    let models = Models::of(&state, &table, said, |observe| {
        for (unix_ms, fact) in facts {
            observe(&names, stamp(*unix_ms), fact, true).unwrap();
        }
        Ok(())
    })?;
    let Some(mut models) = models else {
        return Ok(None);
    };
    let mut tally = Tally::default();
    for (unix_ms, fact) in facts {
        models.learn(*unix_ms, fact);
        let mut from = Vec::new();
        let came = match fact {
            Fact::Backordered(waits) => Came::waits(waits),
            Fact::Issued(issued) if issued.way == Way::Issue => {
                names.pools_of(issued.runs, &mut from).unwrap();
                Came::issued(issued)
            }
            _ => continue,
        };
        let order = names.order(*unix_ms, &came, &from).unwrap();
        let sent = tally.add(&table, &order);
        models.add(&order, 1, &sent);
    }
    Ok(Some(models.end()))
}

fn said(channel: &str, latency_ms: u64) -> Said {
    Said {
        channel: channel.to_owned(),
        latency_ms,
    }
}

#[test]
fn both_tables_go_through_the_same_model() {
    let (main, alpha) = (run(1), run(2));
    let (standard, bulk) = (Priority::Standard, Priority::Bulk);
    let loaded = Fact::RoutesLoaded {
        version: 1,
        toml: RECORDED,
    };
    let facts = [
        (500, loaded),
        // Spare stock of alpha, and an order by a route that the other table does not know.
        (600, issued(1, Way::Issue, &alpha)),
        (700, issued(2, Way::Issue, &main)),
        (1_000, waits(3, standard)),
        (1_000, waits(4, standard)),
        (1_000, waits(5, bulk)),
        (1_100, issued(3, Way::Filled, &alpha)),
        (1_200, issued(4, Way::Filled, &alpha)),
        (1_300, issued(5, Way::Filled, &alpha)),
    ];
    let compared = compare(OTHER, &[], &facts).unwrap().unwrap();
    let alpha = compared.channels["alpha"];
    let waits = |of: Figures| (of.orders, of.p50_ms, of.most_ms);
    // Each job took 100 ms: with one place the model is what happened.
    assert_eq!(waits(alpha.recorded), (3, 200, 300));
    assert_eq!(waits(alpha.before), (3, 200, 300));
    // That of main asks alpha now, and has its card before the others come.
    assert_eq!(waits(alpha.after), (3, 100, 100));
    assert_eq!(alpha.after.jobs_most, Some(2));
    let gamma = compared.channels["gamma"];
    assert_eq!(waits(gamma.before), (0, 0, 0));
    assert_eq!(waits(gamma.after), (1, 700, 700));
    let [_, standard, bulk, background] = compared.lanes;
    assert_eq!(waits(standard.recorded), (4, 0, 200));
    assert_eq!(waits(standard.before), (4, 0, 200));
    assert_eq!(waits(standard.after), (4, 100, 100));
    assert_eq!(
        (waits(bulk.recorded), waits(bulk.before)),
        ((1, 300, 300), (1, 300, 300))
    );
    assert_eq!((bulk.after.orders, background.after.orders), (0, 1));
    let assumed = Assumed {
        channel: "gamma".to_owned(),
        latency_ms: 700,
        is_said: false,
    };
    assert_eq!(compared.assumed, [assumed]);
    let [warning] = &compared.warnings()[..] else {
        panic!("{:?}", compared.warnings());
    };
    assert!(
        warning.contains("gamma") && warning.contains("--latency gamma=MS"),
        "{warning}"
    );
    // What is said of a channel counts in both tables.
    let says = [said("gamma", 20), said("alpha", 10)];
    let compared = compare(OTHER, &says, &facts).unwrap().unwrap();
    assert_eq!(waits(compared.channels["gamma"].after), (1, 20, 20));
    assert_eq!(waits(compared.channels["alpha"].before), (3, 20, 30));
    assert_eq!(compared.assumed.len(), 2);
    assert!(compared.warnings().is_empty());
}

#[test]
fn an_ejection_that_was_recorded_holds_in_both_models() {
    let alpha = run(2);
    let standing = |standing| Fact::ChannelChanged {
        name: "alpha",
        standing,
        cause: ChannelCause::ConsecutiveFailures,
        ejections: 1,
    };
    let facts = [
        (
            500,
            Fact::RoutesLoaded {
                version: 1,
                toml: RECORDED,
            },
        ),
        (900, waits(1, Priority::Vip)),
        (950, issued(1, Way::Filled, &alpha)),
        (
            1_000,
            standing(Standing::Ejected {
                until_unix_ms: 2_000,
            }),
        ),
        (1_100, waits(2, Priority::Vip)),
        (2_000, standing(Standing::Probing)),
        (2_050, issued(2, Way::Filled, &alpha)),
    ];
    let compared = compare(RECORDED, &[said("alpha", 50)], &facts)
        .unwrap()
        .unwrap();
    let Compared {
        recorded,
        before,
        after,
    } = compared.channels["alpha"];
    assert_eq!((recorded.most_ms, before), (950, after));
    assert_eq!((before.orders, before.p50_ms, before.most_ms), (2, 50, 950));
    assert_eq!(compared.left, [0, 0]);
}

#[test]
fn orders_without_a_channel_are_in_no_figure() {
    let plain = "[[rule]]\n";
    assert_eq!(
        compare(plain, &[], &[(1, waits(1, Priority::Vip))]).unwrap(),
        None
    );
    // The version of the record is not known.
    let compared = compare(OTHER, &[], &[(1, waits(1, Priority::Vip))]).unwrap();
    let compared = compared.unwrap();
    assert_eq!((compared.table_unknown, compared.for_stock), (1, [0, 0]));
    assert_eq!(compared.channels["alpha"].after.orders, 1);
    let before = "[[rule]]\nsku = \"other\"\n[[rule]]\n";
    let loaded = Fact::RoutesLoaded {
        version: 1,
        toml: before,
    };
    let facts = [(1, loaded), (2, waits(1, Priority::Vip))];
    let compared = compare(OTHER, &[], &facts).unwrap().unwrap();
    assert_eq!((compared.table_unknown, compared.for_stock), (0, [1, 0]));
}

#[test]
fn what_is_said_of_no_channel_is_refused() {
    for (table, says, words) in [
        ("[[rule]]\n", &[said("alpha", 1)][..], "there is none"),
        (OTHER, &[said("beta", 1)], "name one of alpha, gamma"),
        (OTHER, &[said("alpha", 1), said("alpha", 2)], "given twice"),
    ] {
        let error = compare(table, says, &[]).unwrap_err().to_string();
        assert!(
            error.contains("--latency") && error.contains(words),
            "{error}"
        );
    }
}
