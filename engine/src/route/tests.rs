//! Tables: what they say about orders, and what is no table.

mod outside;

use std::collections::BTreeMap;

use croupier_protocol::Priority;

use super::{Asked, DEFAULT_ROUTES, Moment, ROUTES_BYTES_MAX, RULE_WAYS_MAX, RouteTable, Target};

fn table(text: &str) -> RouteTable {
    RouteTable::parse(3, text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn asked(id: u128) -> Asked {
    Asked {
        id,
        holder: 0,
        sku: 1,
        priority: Priority::Standard,
        quantity: 1,
        tag: 0,
    }
}

/// Rule, lane and pools of an order.
fn way(table: &RouteTable, sku: &str, asked: &Asked) -> Option<(usize, Priority, Vec<String>)> {
    let target = table.route(sku, asked, table.moment(0));
    target.map(|Target { rule, lane, pools }| (rule, lane, pools.unwrap_or_default()))
}

fn rule_of(table: &RouteTable, sku: &str, asked: &Asked) -> Option<usize> {
    way(table, sku, asked).map(|(rule, ..)| rule)
}

#[test]
fn the_first_rule_that_matches_wins() {
    let table = table(
        "[[rule]]\nsku = \"steam-*\"\npriority = [\"vip\"]\nlane = \"vip\"\npools = [\"reserve\", \"main\"]\n\
         [[rule]]\nsku = \"steam-*\"\nlane = \"bulk\"\n[[rule]]\nsku = [\"a\", \"b-*\"]\n",
    );
    let vip = Asked {
        priority: Priority::Vip,
        ..asked(1)
    };
    let pools = vec!["reserve".to_owned(), "main".to_owned()];
    assert_eq!(
        way(&table, "steam-5", &vip),
        Some((0, Priority::Vip, pools))
    );
    assert_eq!(
        way(&table, "steam-5", &asked(1)),
        Some((1, Priority::Bulk, vec![]))
    );
    assert_eq!(
        way(&table, "b-1", &vip),
        Some((2, Priority::Vip, vec![])),
        "the lane of its priority"
    );
    assert_eq!(way(&table, "other", &vip), None);
    assert_eq!(rule_of(&self::table(DEFAULT_ROUTES), "any", &vip), Some(0));
}

#[test]
fn rules_ask_of_the_order_what_they_say() {
    let table = table(
        "[[rule]]\ntag = [7, 9]\n[[rule]]\nquantity = \"10-\"\n[[rule]]\nholder = \"named\"\n[[rule]]\n",
    );
    for (order, rule) in [
        (asked(1), 3),
        (Asked { tag: 8, ..asked(1) }, 3),
        (
            Asked {
                tag: 9,
                quantity: 10,
                holder: 5,
                ..asked(1)
            },
            0,
        ),
        (
            Asked {
                quantity: 10,
                holder: 5,
                ..asked(1)
            },
            1,
        ),
        (
            Asked {
                quantity: 9,
                holder: 5,
                ..asked(1)
            },
            2,
        ),
    ] {
        assert_eq!(rule_of(&table, "s", &order), Some(rule), "{order:?}");
    }
}

const WEIGHTED: &str = "[[channel]]\nname = \"a\"\n[[channel]]\nname = \"b\"\npools = [\"b1\", \"b2\"]\n\
    [[channel]]\nname = \"c\"\n[[rule]]\nchannels = [{ a = 80, b = 20 }, \"c\"]\n";

#[test]
fn weights_share_orders_out_and_leave_no_channel_out() {
    let table = table(WEIGHTED);
    let (mut first, all) = (0, 20_000);
    for id in 1..=all {
        let (_, _, pools) = way(&table, "s", &asked(id)).expect("a way");
        match pools[0].as_str() {
            "a" => {
                assert_eq!(pools, ["a", "b1", "b2", "c"]);
                first += 1;
            }
            _ => assert_eq!(pools, ["b1", "b2", "a", "c"]),
        }
        let again = way(&table, "s", &asked(id)).expect("a way");
        assert_eq!(again.2, pools, "a retry goes the same way");
    }
    assert!((15_700..16_300).contains(&first), "{first} of {all}");
}

#[test]
fn weights_of_one_item_of_a_chain_do_not_depend_on_those_of_another() {
    let channels =
        ["a", "b", "c", "d", "e"].map(|name| format!("[[channel]]\nname = \"{name}\"\n"));
    let rule = "[[rule]]\nchannels = [{ a = 3, b = 1 }, \"e\", { c = 1000000, d = 1000000 }]\n";
    let table = table(&(channels.concat() + rule));
    let mut taken = BTreeMap::new();
    for id in 1..=20_000 {
        let (_, _, pools) = way(&table, "s", &asked(id)).expect("a way");
        assert_eq!((pools.len(), pools[2].as_str()), (5, "e"));
        *taken.entry(pools[0].clone() + &pools[3]).or_insert(0) += 1;
    }
    for (firsts, share) in [("ac", 7500), ("ad", 7500), ("bc", 2500), ("bd", 2500)] {
        let orders = taken.get(firsts).copied().unwrap_or(0);
        assert!((share - 250..share + 250).contains(&orders), "{taken:?}");
    }
}

#[test]
fn marks_and_overflows_follow_the_load() {
    let table = table(
        "[load]\nhysteresis = 0.2\n[[channel]]\nname = \"a\"\noverflow = { when = \"load > 0.80\", to = \"b\" }\n\
         [[channel]]\nname = \"b\"\noverflow = { when = \"load > 0.9\", to = \"c\" }\n[[channel]]\nname = \"c\"\n\
         [[rule]]\nwhen = \"load > 0.95\"\nlane = \"background\"\nchannels = [\"c\"]\n[[rule]]\nchannels = [\"a\"]\n",
    );
    for (load, rule, pools) in [
        (0.0, 1, &["a"][..]),
        (0.81, 1, &["b", "a"]),
        (0.91, 1, &["c", "b", "a"]),
        (0.96, 0, &["c"]),
        (0.76, 0, &["c"]),
        (0.74, 1, &["c", "b", "a"]),
        (0.69, 1, &["b", "a"]),
        (0.59, 1, &["a"]),
    ] {
        table.marks().follow(load);
        let (by, _, to) = way(&table, "s", &asked(1)).expect("a way");
        assert_eq!(
            (by, to),
            (rule, pools.iter().map(|&pool| pool.into()).collect()),
            "{load}"
        );
    }
    let flips: Vec<u64> = table.marks().now().iter().map(|mark| mark.flips).collect();
    assert_eq!(flips, [2, 2, 2]);
}

#[test]
fn times_are_those_of_the_moment() {
    let table = table("utc_offset = \"+08:00\"\n[[rule]]\ntime = \"08:00-09:00\"\n[[rule]]\n");
    let at = |unix_ms| {
        table
            .route("s", &asked(1), table.moment(unix_ms))
            .map(|to| to.rule)
    };
    assert_eq!(
        (at(0), at(3_599_999), at(3_600_000)),
        (Some(0), Some(0), Some(1))
    );
    assert_ne!(table.moment(0), Moment::default());
}

#[test]
fn bad_tables_are_told_by_line_and_reason() {
    let many_ways = {
        let members = |from: u32| {
            let all: Vec<String> = (from..from + 5).map(|nth| format!("c{nth} = 1")).collect();
            format!("{{ {} }}", all.join(", "))
        };
        let channels = (0..15).map(|nth| format!("[[channel]]\nname = \"c{nth}\"\n"));
        let channels: String = channels.collect();
        let rule = format!(
            "[[rule]]\nchannels = [{}, {}, {}]\n",
            members(0),
            members(5),
            members(10)
        );
        const { assert!(5 * 5 * 5 > RULE_WAYS_MAX) };
        format!("{channels}{rule}")
    };
    let cycle = "[[channel]]\nname = \"x\"\n[[channel]]\nname = \"a\"\noverflow = { when = \"load > 0.8\", to = \"b\" }\n\
        [[channel]]\nname = \"b\"\noverflow = { when = \"load > 0.8\", to = \"a\" }\n[[rule]]\n";
    for (text, line, word) in [
        ("", 1, "missing field"),
        ("rule = []", 1, "1 to"),
        ("[[rule]]\nsku = 5", 2, "a name or a list of names"),
        ("[[rule]]\n\n[[rule]]\nlane = \"fast\"", 4, "fast"),
        ("[[rule]]\npriority = [\"vip\",\n\"vop\"]", 3, "vop"),
        ("[[rule]]\nspeed = 1", 2, "unknown field"),
        ("[[rule]]\nsku = \"\"", 2, "sku"),
        ("[[rule]]\nsku = []", 2, "sku"),
        ("[[rule]]\npools = [\" x\"]", 2, "pool"),
        ("[[rule]]\npools = [\"x\", \"x\"]", 2, "twice"),
        ("[[rule]\n", 1, ""),
        ("[[rule]]\nquantity = \"5-2\"", 2, "5-2"),
        ("[[rule]]\nholder = \"10%\"", 2, "share"),
        ("[[rule]]\ntag = [0]", 2, "tag"),
        ("[[rule]]\ntag = []", 2, "tag"),
        ("[[rule]]\ntag = [70000]", 2, "65535"),
        ("[[rule]]\ntime = \"8-9\"", 2, "22:00-06:00"),
        ("[[rule]]\ndays = []", 2, "days"),
        ("[[rule]]\ndays = [\"someday\"]", 2, "someday"),
        ("[[rule]]\nwhen = \"load < 0.8\"", 2, "load > 0.80"),
        ("[[rule]]\nwhen = \"load > 1\"", 2, "load > 0.80"),
        ("[[rule]]\nchannels = [\"x\"]", 2, "no channel called \"x\""),
        ("[[rule]]\nchannels = []", 2, "without channels"),
        (
            "[[channel]]\nname = \"x\"\n[[rule]]\nchannels = [\"x\", \"x\"]",
            4,
            "twice",
        ),
        (
            "[[channel]]\nname = \"x\"\n[[rule]]\nchannels = [\"x\"]\npools = [\"x\"]",
            4,
            "not both",
        ),
        (
            "[[channel]]\nname = \"x\"\n[[rule]]\nchannels = [{ x = 0 }]",
            4,
            "weight",
        ),
        (
            "[[channel]]\nname = \"x\"\n[[rule]]\nchannels = [{ x = 1.5 }]",
            4,
            "weight",
        ),
        (
            "[[channel]]\nname = \"x\"\n[[rule]]\nchannels = [{}]",
            4,
            "weights",
        ),
        (
            "[[channel]]\nname = \"x\"\n[[rule]]\nchannels = [7]",
            4,
            "a channel's name",
        ),
        (
            "[[channel]]\nname = \"x\"\n[[channel]]\nname = \"x\"\n[[rule]]",
            4,
            "two channels",
        ),
        ("[[channel]]\nname = \"\"\n[[rule]]", 2, "name of a channel"),
        (
            "[[channel]]\nname = \"x\"\nkind = \"magic\"\n[[rule]]",
            3,
            "magic",
        ),
        (
            "[[channel]]\nname = \"x\"\npools = []\n[[rule]]",
            2,
            "without pools",
        ),
        (
            "[[channel]]\nname = \"x\"\noverflow = { when = \"load > 0.8\", to = \"y\" }\n[[rule]]",
            3,
            "\"y\"",
        ),
        (cycle, 3, "a → b → a"),
        (&many_ways, 31, "125 ways"),
        ("utc_offset = \"8\"\n[[rule]]", 1, "offset"),
        ("[load]\nsmoothing = \"soon\"\n[[rule]]", 2, "smoothing"),
        ("[load]\nsmoothing = \"-1s\"\n[[rule]]", 2, "smoothing"),
        ("[load]\nhysteresis = 0.9\n[[rule]]", 2, "hysteresis"),
    ] {
        let error = RouteTable::parse(1, text).expect_err(text);
        assert!(error.reason.contains(word), "{text:?}: {error}");
        assert_eq!(error.line, line, "{text:?}: {error}");
    }
    assert!(RouteTable::parse(1, &format!("#{}\n[[rule]]", "x".repeat(ROUTES_BYTES_MAX))).is_err());
}

#[test]
fn a_table_has_so_many_ways_at_most() {
    let channels: String = (0..8)
        .map(|nth| format!("[[channel]]\nname = \"c{nth}\"\n"))
        .collect();
    let group = |from: u32| format!("{{ c{from} = 1, c{} = 1 }}", from + 1);
    let rule = format!(
        "[[rule]]\nquantity = \"2\"\nchannels = [{}, {}, {}, {}]\n",
        group(0),
        group(2),
        group(4),
        group(6)
    );
    let rules = |count: usize| format!("{channels}{}", rule.repeat(count));
    assert!(RouteTable::parse(1, &rules(255)).is_ok());
    let error = RouteTable::parse(1, &rules(256)).expect_err("4,096 ways");
    assert!(error.reason.contains("4096 ways"), "{error}");
}

#[test]
fn what_looks_like_a_mistake_is_warned_of() {
    for (text, expect) in [
        (
            "[[rule]]\n[[rule]]\nsku = \"x\"\n",
            "rule 2 can never match: rule 1 takes all its orders",
        ),
        (
            "[[rule]]\nquantity = \"1-5\"\n[[rule]]\nquantity = \"2\"\ntag = [3]\n[[rule]]\n",
            "rule 2 can never match: rule 1 takes all its orders",
        ),
        ("[[rule]]\nsku = \"x\"\n", "NoRoute"),
        ("[[rule]]\nquantity = \"1-\"\n", "NoRoute"),
        (
            "[[channel]]\nname = \"spare\"\n[[rule]]\n",
            "no rule uses channel \"spare\"",
        ),
    ] {
        let warnings = table(text).warnings(None);
        assert!(
            warnings.len() == 1 && warnings[0].contains(expect),
            "{warnings:?}"
        );
    }
    assert!(table(WEIGHTED).warnings(None).is_empty());
    let both_times = "[[rule]]\nwhen = \"load > 0.5\"\n[[rule]]\ndays = [\"sat\"]\n[[rule]]\n";
    assert!(table(both_times).warnings(None).is_empty());
}
