//! Every step from one standing to another, what leads to it and what does not.

use super::*;
use crate::route::RouteTable;
use JobEnd::{Failed, FailedForGood, Filled, TimedOut, WorkerGone};

/// Long after whatever a table says.
const LATE_MS: u64 = 1_000_000_000;

/// A table of issuers with these keys, and its rules.
fn table(channels: &[(&str, &str)], rest: &str) -> RouteTable {
    let channel = |(name, keys): &(&str, &str)| {
        format!("[[channel]]\nname = \"{name}\"\nkind = \"issuer\"\n{keys}\n")
    };
    let channels: String = channels.iter().map(channel).collect();
    let text = format!("{channels}{rest}");
    RouteTable::parse(1, &text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

const BOTH: &str = "[[rule]]\nchannels = [\"a\", \"b\"]\n";

/// Of channels a, with these settings, and b, which one rule asks both.
fn fleet(outlier: &str) -> Fleet {
    let keys = format!("outlier = {{ {outlier} }}");
    let mut fleet = Fleet::default();
    fleet.adopt(0, &table(&[("a", &keys), ("b", "")], BOTH));
    fleet
}

/// What a change comes to: number of the standing, cause, end, ejections.
type Told = (u16, &'static str, u64, u16);

fn told(change: &Change) -> Told {
    let Change {
        standing,
        cause,
        ejections,
        ..
    } = change;
    (
        standing.number().as_u16(),
        cause.name(),
        standing.until_unix_ms(),
        *ejections,
    )
}

/// Gives channel a a job that ends.
fn job(fleet: &mut Fleet, now_ms: u64, took_ms: u64, end: JobEnd) -> Option<Change> {
    fleet.asked("a");
    fleet.ended(now_ms, "a", took_ms, end)
}

/// Gives channel a jobs that end so, a millisecond apart; tells how many had ended when it stood otherwise, and how.
fn jobs(fleet: &mut Fleet, from_ms: u64, ends: &[(JobEnd, u64)]) -> Option<(usize, Told)> {
    (1..).zip(ends).find_map(|(nth, &(end, took_ms))| {
        let change = job(fleet, from_ms + nth as u64, took_ms, end)?;
        Some((nth, told(&change)))
    })
}

fn ends(counts: &[(JobEnd, u64, usize)]) -> Vec<(JobEnd, u64)> {
    let all = counts.iter();
    all.flat_map(|&(end, took_ms, count)| vec![(end, took_ms); count])
        .collect()
}

#[test]
fn what_has_a_healthy_channel_ejected() {
    let at = LATE_MS;
    for (outlier, counts, expect) in [
        // The usual: five in a row.
        ("", &[(Failed, 1, 9)][..], Some((5, "consecutive_failures"))),
        ("", &[(TimedOut, 1, 9)], Some((5, "consecutive_failures"))),
        ("", &[(WorkerGone, 1, 9)], Some((5, "consecutive_failures"))),
        ("", &[(Failed, 1, 4), (Filled, 1, 1), (Failed, 1, 4)], None),
        (
            "",
            &[(Failed, 1, 4), (FailedForGood, 1, 1), (Failed, 1, 4)],
            None,
        ),
        ("", &[(FailedForGood, 1, 100)], None),
        (
            "consecutive_failures = 1",
            &[(Failed, 1, 1)],
            Some((1, "consecutive_failures")),
        ),
        // Shares, once there are so many.
        (
            "consecutive_failures = 0",
            &[(Failed, 1, 30)],
            Some((20, "failure_percentage")),
        ),
        (
            "consecutive_failures = 0, request_volume = 4, failure_percentage = 60",
            &[(Filled, 1, 2), (Failed, 1, 9)],
            Some((5, "failure_percentage")),
        ),
        (
            "consecutive_failures = 0, request_volume = 0",
            &[(Filled, 1, 1), (Failed, 1, 9)],
            Some((2, "failure_percentage")),
        ),
        (
            "consecutive_failures = 0, failure_percentage = 0",
            &[(Failed, 1, 100)],
            None,
        ),
        (
            "consecutive_failures = 0, window = \"0s\"",
            &[(Failed, 9_000, 100)],
            None,
        ),
        ("", &[(Filled, 2_001, 30)], Some((20, "slow_percentage"))),
        ("", &[(Filled, 2_000, 30)], None),
        (
            "slow_call = \"10ms\", slow_percentage = 20, request_volume = 10",
            &[(Filled, 10, 9), (Filled, 11, 9)],
            Some((12, "slow_percentage")),
        ),
        ("slow_call = \"0s\"", &[(Filled, 9_000, 30)], None),
        ("slow_percentage = 0", &[(Filled, 9_000, 30)], None),
        // Off.
        ("base_ejection_time = \"0s\"", &[(Failed, 1, 100)], None),
    ] {
        let mut fleet = fleet(outlier);
        let found = jobs(&mut fleet, at, &ends(counts));
        let expect = expect.map(|(nth, cause)| (nth, (2, cause, at + nth as u64 + 30_000, 1)));
        assert_eq!(found, expect, "{outlier:?} {counts:?}");
        assert_eq!(fleet.may_ask("a"), expect.is_none());
        assert!(fleet.may_ask("b") && !fleet.may_ask("c"));
    }
}

#[test]
fn a_worker_that_goes_with_many_jobs_is_one_failure() {
    let mut fleet = fleet("request_volume = 3");
    for _ in 0..100 {
        assert_eq!(job(&mut fleet, 50, 1, WorkerGone), None);
    }
    assert_eq!(job(&mut fleet, 51, 1, WorkerGone), None);
    let change = job(&mut fleet, 52, 1, WorkerGone).expect("three of three");
    assert_eq!(told(&change).1, "failure_percentage");
}

#[test]
fn what_was_long_ago_does_not_count() {
    let mut fleet = fleet("consecutive_failures = 0, request_volume = 10, window = \"1s\"");
    for nth in 0..100 {
        assert_eq!(job(&mut fleet, nth * 150, 1, Failed), None);
    }
    let found = jobs(&mut fleet, 100 * 150, &ends(&[(Failed, 1, 20)]));
    assert_eq!(found.map(|(nth, _)| nth), Some(4), "and six before");
}

/// Has channel a of the fleet ejected by one failure, and ticks to the end of that; tells when.
fn to_probing(fleet: &mut Fleet, now_ms: u64) -> u64 {
    let change = job(fleet, now_ms, 0, Failed).expect("ejected");
    let end = change.standing.until_unix_ms();
    assert_eq!(fleet.next_unix_ms(), Some(end));
    assert_eq!(fleet.tick(end - 1), []);
    assert!(!fleet.may_ask("a"));
    let [change] = &fleet.tick(end)[..] else {
        panic!("its ejection is over")
    };
    assert_eq!((told(change).0, told(change).1), (3, "ejection_over"));
    assert_eq!((fleet.tick(end), fleet.next_unix_ms()), (vec![], None));
    assert!(fleet.is_probing("a") && fleet.may_ask("a"));
    end
}

const ONE: &str = "consecutive_failures = 1";

#[test]
fn probes_decide() {
    for (end, took_ms, count, expect) in [
        (Filled, 0, 3, Some((3, (1, "probes_filled", 0, 1)))),
        (FailedForGood, 0, 3, Some((3, (1, "probes_filled", 0, 1)))),
        (Filled, 0, 2, None),
        (Failed, 0, 3, Some((1, (2, "probe_failed", 60_000, 2)))),
        (TimedOut, 0, 3, Some((1, (2, "probe_failed", 60_000, 2)))),
        (WorkerGone, 0, 3, Some((1, (2, "probe_failed", 60_000, 2)))),
    ] {
        let mut fleet = fleet(ONE);
        let since = to_probing(&mut fleet, 5_000);
        let found = jobs(&mut fleet, since, &ends(&[(end, took_ms, count)]));
        let expect = expect.map(|(nth, (standing, cause, for_ms, ejections))| {
            let until = match for_ms {
                0 => 0,
                for_ms => since + nth as u64 + for_ms,
            };
            (nth, (standing, cause, until, ejections))
        });
        assert_eq!(found, expect, "{end:?} {count}");
    }
    // Two that are filled, and one that fails; and a slow one.
    let mut fleet = fleet(ONE);
    let since = to_probing(&mut fleet, 5_000);
    let mixed = ends(&[(Filled, 0, 2), (Failed, 0, 1)]);
    let found = jobs(&mut fleet, since, &mixed);
    assert_eq!(
        found.map(|(nth, (_, cause, ..))| (nth, cause)),
        Some((3, "probe_failed"))
    );
    let mut fleet = self::fleet(ONE);
    let since = to_probing(&mut fleet, 5_000);
    let change = job(&mut fleet, since + 2_001, 2_001, Filled).expect("slow");
    assert_eq!(told(&change).1, "probe_failed");
}

#[test]
fn so_many_probes_at_a_time() {
    let mut fleet = fleet("consecutive_failures = 1, probes = 2");
    let since = to_probing(&mut fleet, 5_000);
    fleet.asked("a");
    assert!(fleet.may_ask("a"));
    fleet.asked("a");
    assert!(!fleet.may_ask("a"));
    // A job from before the ejection is no probe.
    assert_eq!(fleet.ended(since + 1, "a", 30_000, Failed), None);
    assert!(!fleet.may_ask("a"));
    assert_eq!(fleet.ended(since + 1, "a", 1, Filled), None);
    assert!(fleet.may_ask("a"));
    let change = fleet.ended(since + 2, "a", 2, Filled).expect("healthy");
    assert_eq!(told(&change), (1, "probes_filled", 0, 1));
    // And what was given as a probe or before counts no more.
    assert_eq!(fleet.ended(since + 3, "a", 3, Failed), None);
    assert!(fleet.may_ask("a"));
}

#[test]
fn without_probes_it_is_healthy_when_its_time_is_over() {
    let mut fleet = fleet("consecutive_failures = 1, probes = 0");
    job(&mut fleet, 5_000, 0, Failed).expect("ejected");
    let [change] = &fleet.tick(90_000)[..] else {
        panic!("over")
    };
    assert_eq!(told(change), (1, "ejection_over", 0, 1));
    assert!(fleet.may_ask("a"));
}

#[test]
fn ejections_grow_and_are_made_good() {
    let mut fleet = fleet("consecutive_failures = 1, probes = 1, max_ejection_time = \"80s\"");
    let mut now_ms = 1_000;
    for (nth, for_ms) in [(1, 30_000), (2, 60_000), (3, 80_000), (4, 80_000)] {
        let change = job(&mut fleet, now_ms, 0, Failed).expect("ejected");
        assert_eq!(
            (change.ejections, change.standing.until_unix_ms()),
            (nth, now_ms + for_ms)
        );
        now_ms += for_ms;
        fleet.tick(now_ms);
    }
    let ejections = |fleet: &Fleet| fleet.rows().map(|row| row.ejections).next();
    // Probing makes nothing good.
    fleet.tick(now_ms + 90_000);
    assert_eq!(ejections(&fleet), Some(4));
    now_ms += 100_000;
    assert!(job(&mut fleet, now_ms, 0, Filled).is_some());
    for (after_ms, expect) in [(0, 4), (29_999, 4), (30_000, 3), (61_000, 2)] {
        fleet.tick(now_ms + after_ms);
        assert_eq!(ejections(&fleet), Some(expect), "{after_ms}");
    }
    let change = job(&mut fleet, now_ms + 61_000, 0, Failed).expect("ejected");
    assert_eq!(change.ejections, 3);
    // Without a longest time there is none.
    let mut fleet = self::fleet("consecutive_failures = 1, max_ejection_time = \"0s\"");
    fleet.tick(u64::MAX - 1);
    let change = job(&mut fleet, 0, 0, Failed).expect("ejected");
    assert_eq!(change.standing.until_unix_ms(), u64::MAX);
}

/// Has channels fail, each once; tells which were ejected.
fn ejected<'a>(table: &RouteTable, order: &[&'a str]) -> Vec<&'a str> {
    let mut fleet = Fleet::default();
    fleet.adopt(0, table);
    let fails = |name: &&str| fleet.ended(1, name, 0, Failed).is_some();
    order.iter().copied().filter(fails).collect()
}

#[test]
fn the_last_one_of_a_chain_is_never_ejected() {
    let keys = |skus: &str| format!("outlier = {{ {ONE} }}\nskus = [{skus}]");
    let all = keys("\"*\"");
    let (steam, psn) = (keys("\"steam-*\""), keys("\"psn-*\", \"steam-5\""));
    let most = "[outlier]\nmax_ejection_percent = 100\n";
    for (channels, rules, order, expect) in [
        (
            vec![("a", &all)],
            "[[rule]]\nchannels = [\"a\"]\n",
            &["a"][..],
            &[][..],
        ),
        (vec![("a", &all), ("b", &all)], BOTH, &["a", "b"], &["a"]),
        (vec![("a", &all), ("b", &all)], BOTH, &["b", "a"], &["b"]),
        // No rule asks it.
        (
            vec![("a", &all), ("b", &all)],
            "[[rule]]\nchannels = [\"a\"]\n",
            &["a", "b"],
            &["b"],
        ),
        // Every rule must keep one.
        (
            vec![("a", &all), ("b", &all), ("c", &all)],
            "[[rule]]\nsku = \"x\"\nchannels = [\"a\", \"b\"]\n[[rule]]\nchannels = [\"b\", { c = 1 }]\n",
            &["a", "b", "c"],
            &["a", "c"],
        ),
        // So must every SKU: the other does not sell all that this one does, but all of the rule's.
        (vec![("a", &all), ("b", &steam)], BOTH, &["a", "b"], &["b"]),
        (
            vec![("a", &all), ("b", &steam)],
            "[[rule]]\nsku = \"steam-*\"\nchannels = [\"a\", \"b\"]\n",
            &["a", "b"],
            &["a"],
        ),
        (vec![("a", &steam), ("b", &psn)], BOTH, &["a", "b"], &[]),
        (
            vec![("a", &steam), ("b", &psn)],
            "[[rule]]\nsku = \"steam-5\"\nchannels = [\"a\", \"b\"]\n",
            &["b", "a"],
            &["b"],
        ),
    ] {
        let channels: Vec<(&str, &str)> = channels
            .iter()
            .map(|(name, keys)| (*name, keys.as_str()))
            .collect();
        // The table's own keys come before its channels.
        let text = table(&channels, rules).text().to_owned();
        let table = RouteTable::parse(1, &format!("{most}{text}")).unwrap();
        assert_eq!(ejected(&table, order), expect, "{text}");
    }
}

#[test]
fn so_large_a_share_is_ejected_at_most() {
    let channels = [("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")]
        .map(|(name, _)| (name, "outlier = { consecutive_failures = 1 }"));
    let rule = "[[rule]]\nchannels = [\"a\", \"b\", \"c\", \"d\", \"e\"]\n";
    for (percent, expect) in [
        (0, 0),
        (19, 0),
        (20, 1),
        (50, 2),
        (60, 3),
        (99, 4),
        (100, 4),
    ] {
        let text = table(&channels, rule).text().to_owned();
        let text = format!("[outlier]\nmax_ejection_percent = {percent}\n{text}");
        let table = RouteTable::parse(1, &text).unwrap();
        let found = ejected(&table, &["a", "b", "c", "d", "e"]);
        assert_eq!(found.len(), expect, "{percent}");
    }
}

#[test]
fn one_that_could_not_be_spared_goes_when_it_can() {
    let mut fleet = fleet(ONE);
    let other = fleet.eject_by_hand(5, "b", 2_000).expect("ejected");
    assert_eq!(told(&other), (2, "operator", 2_000, 0));
    assert_eq!(job(&mut fleet, 10, 0, Failed), None, "it is the last");
    assert!(fleet.may_ask("a"));
    fleet.restore_by_hand(20, "b").expect("restored");
    assert!(job(&mut fleet, 30, 0, Failed).is_some());
    // A probe that fails while nobody else is there: it is tried on.
    let since = fleet.next_unix_ms().expect("an end");
    fleet.eject_by_hand(since - 1, "b", NO_END);
    assert_eq!(fleet.tick(since).len(), 1);
    assert_eq!(job(&mut fleet, since, 0, Failed), None);
    assert!(fleet.is_probing("a") && fleet.may_ask("a"));
    assert_eq!(
        jobs(&mut fleet, since, &ends(&[(Filled, 0, 3)])).map(|(nth, _)| nth),
        Some(3)
    );
}

#[test]
fn operators_decide_whatever_else_is() {
    let mut fleet = fleet(ONE);
    for name in ["a", "b"] {
        let change = fleet.eject_by_hand(100, name, NO_END).expect("known");
        assert_eq!(told(&change), (2, "operator", NO_END, 0));
    }
    assert_eq!((fleet.tick(LATE_MS), fleet.next_unix_ms()), (vec![], None));
    assert!(!fleet.may_ask("a") && !fleet.may_ask("b"));
    // Nor does a table change that.
    fleet.adopt(LATE_MS, &table(&[("a", ""), ("b", "")], BOTH));
    assert_eq!(fleet.tick(LATE_MS), []);
    let change = fleet.restore_by_hand(LATE_MS, "a").expect("known");
    assert_eq!(told(&change), (1, "operator", 0, 0));
    assert!(fleet.may_ask("a"));
    assert_eq!(fleet.eject_by_hand(LATE_MS, "x", NO_END), None);
    assert_eq!(fleet.restore_by_hand(LATE_MS, "x"), None);
}

#[test]
fn what_is_known_outlives_restarts_and_tables() {
    let mut fleet = fleet(ONE);
    let ejected = job(&mut fleet, 1_000, 0, Failed).expect("ejected");
    let until = ejected.standing.until_unix_ms();
    let (two, others) = (
        table(&[("a", ""), ("b", "")], BOTH),
        "[[rule]]\nchannels = [\"c\"]\n",
    );
    let mut again = Fleet::restored([&ejected]);
    assert_eq!(
        (again.may_ask("a"), again.next_unix_ms()),
        (false, None),
        "no table yet"
    );
    again.adopt(2_000, &two);
    for fleet in [&mut fleet, &mut again] {
        assert!(!fleet.may_ask("a") && fleet.may_ask("b"));
        assert_eq!(fleet.next_unix_ms(), Some(until));
        // In a table that has it not it is none; in one that has it again it is what it was.
        fleet.adopt(3_000, &table(&[("c", "")], others));
        assert_eq!((fleet.may_ask("b"), fleet.next_unix_ms()), (false, None));
        assert_eq!(fleet.rows().map(|row| row.name).collect::<Vec<_>>(), ["c"]);
        assert_eq!(fleet.tick(until), []);
        fleet.adopt(4_000, &two);
        let [change] = &fleet.tick(until + 5)[..] else {
            panic!("over")
        };
        assert_eq!(
            (change.channel.as_str(), told(change).0, change.unix_ms),
            ("a", 3, until + 5)
        );
    }
    let probing = Change {
        standing: Standing::Probing,
        ..ejected.clone()
    };
    let mut again = Fleet::restored([&probing]);
    again.adopt(2_000, &two);
    assert_eq!(
        jobs(&mut again, 2_000, &ends(&[(Filled, 0, 9)])).map(|(nth, _)| nth),
        Some(3)
    );
    // One that is the last in the new table is tried at once.
    let mut last = Fleet::restored([&ejected]);
    last.adopt(
        2_000,
        &table(&[("a", "")], "[[rule]]\nchannels = [\"a\"]\n"),
    );
    assert_eq!(last.next_unix_ms(), Some(2_000));
    assert_eq!(last.tick(2_000).len(), 1);
    assert!(last.may_ask("a"));
}

#[test]
fn not_more_is_known_than_there_is_room_for() {
    let change = |nth: u64| Change {
        channel: format!("c{nth}"),
        standing: Standing::Healthy,
        cause: ChannelCause::ProbesFilled,
        ejections: 1,
        unix_ms: nth,
    };
    let known: Vec<Change> = (0..400).map(change).collect();
    let mut fleet = Fleet::restored(&known);
    let text = "[[rule]]\nchannels = [\"c3\"]\n";
    fleet.adopt(1_000, &table(&[("c3", "")], text));
    assert_eq!(fleet.channels.len(), 257);
    assert!(fleet.channels.contains_key("c3") && !fleet.channels.contains_key("c143"));
    assert!(fleet.channels.contains_key("c144"));
}

#[test]
fn times_of_jobs_that_were_filled() {
    let mut fleet = fleet("");
    assert_eq!(fleet.mean_ms("a"), 0.0);
    job(&mut fleet, 10, 100, Filled);
    assert_eq!(fleet.mean_ms("a"), 100.0);
    job(&mut fleet, 10, 1_000, Failed);
    job(&mut fleet, 10, 180, Filled);
    assert_eq!(fleet.mean_ms("a"), 110.0);
    let rows: Vec<_> = fleet.rows().collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (rows[0].mean_ms, rows[0].p99_ms, rows[0].cause),
        (110.0, 191, None)
    );
    assert_eq!((rows[1].mean_ms, rows[1].p99_ms), (0.0, 0));
}

#[test]
fn a_clock_that_goes_back_ejects_and_frees_nobody() {
    let mut fleet = fleet(ONE);
    let since = to_probing(&mut fleet, LATE_MS);
    fleet.asked("a");
    assert_eq!(fleet.ended(5, "a", 0, Filled), None);
    assert!(fleet.may_ask("a"));
    assert_eq!(
        jobs(&mut fleet, 5, &ends(&[(Filled, 0, 2)])).map(|(nth, _)| nth),
        Some(2)
    );
    assert_eq!(
        fleet.rows().next().map(|row| row.since_unix_ms),
        Some(since)
    );
}
