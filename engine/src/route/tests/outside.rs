//! Channels that are outside: what is said of them, what is no table, and which of them an order is asked of.

use super::super::{Balance, Outlier, Outside, Retry, RouteTable, Source};
use super::{Asked, asked, table, way};

/// The names of the channels that an order of a SKU is asked of, stage by stage, with their weights.
fn asks<'a>(table: &'a RouteTable, sku: &str, asked: &Asked) -> Vec<Vec<(&'a str, u32)>> {
    let found = table.to_ask(sku, asked, table.moment(0));
    let named =
        |&(nth, weight): &(u16, u32)| (table.outside()[usize::from(nth)].name.as_str(), weight);
    let stages = found.into_iter().flat_map(|found| found.stages);
    stages
        .map(|stage| stage.iter().map(named).collect())
        .collect()
}

#[test]
fn all_that_can_be_said_of_a_channel() {
    let table = table(
        "[retry]\nbase = \"500ms\"\ncap = \"1m\"\nattempts = 3\nkeep = \"2h\"\n[outlier]\nmax_ejection_percent = 30\n\
         [[channel]]\nname = \"local\"\n[[channel]]\nname = \"alpha\"\nkind = \"issuer\"\n\
         [[channel]]\nname = \"north\"\nkind = \"upstream\"\npool = \"far\"\nskus = [\"a\", \"b-*\"]\ntimeout = \"1m 30s\"\n\
         jobs = 7\nurl = \"croupier://10.0.0.7\"\nsku_prefix = \"n/\"\n\
         outlier = { consecutive_failures = 0, failure_percentage = 20, slow_call = \"3s\", slow_percentage = 10, window = \"1m\", \
         request_volume = 5, base_ejection_time = \"10s\", max_ejection_time = \"0s\", probes = 1 }\n[[rule]]\n",
    );
    assert_eq!(
        table.retry(),
        Retry {
            base_ms: 500,
            cap_ms: 60_000,
            attempts: 3,
            keep_ms: 7_200_000
        }
    );
    assert_eq!(table.max_ejection_percent(), 30);
    let usual = Outside {
        name: "alpha".into(),
        source: Source::Issuer,
        pool: "alpha".into(),
        skus: vec!["*".into()],
        timeout_ms: 5_000,
        jobs_max: 256,
        outlier: Outlier::default(),
    };
    let said = Outside {
        name: "north".into(),
        source: Source::Upstream {
            url: "croupier://10.0.0.7".into(),
            sku_prefix: "n/".into(),
        },
        pool: "far".into(),
        skus: vec!["a".into(), "b-*".into()],
        timeout_ms: 90_000,
        jobs_max: 7,
        outlier: Outlier {
            consecutive_failures: 0,
            failure_percentage: 20,
            slow_call_ms: 3_000,
            slow_percentage: 10,
            window_ms: 60_000,
            request_volume: 5,
            base_ejection_ms: 10_000,
            max_ejection_ms: 0,
            probes: 1,
        },
    };
    assert_eq!(table.outside(), [usual, said]);
    let plain = self::table("[[rule]]\n");
    assert_eq!(
        (plain.retry(), plain.max_ejection_percent()),
        (Retry::default(), 50)
    );
    assert!(plain.outside().is_empty());
}

const THREE: &str = "[[channel]]\nname = \"steam\"\n[[channel]]\nname = \"alpha\"\nkind = \"issuer\"\npool = \"a1\"\n\
    [[channel]]\nname = \"beta\"\nkind = \"issuer\"\nskus = [\"psn-*\"]\n";

#[test]
fn an_order_is_asked_of_the_outside_channels_of_its_rule() {
    let table = table(&format!(
        "{THREE}[[rule]]\ntag = [1]\nbalance = \"least-latency\"\nchannels = [\"steam\", {{ alpha = 60, beta = 40 }}]\n\
         [[rule]]\ntag = [2]\nchannels = [\"beta\", {{ steam = 1, alpha = 2 }}]\n\
         [[rule]]\ntag = [3]\nchannels = [\"steam\"]\n[[rule]]\ntag = [4]\n"
    ));
    let tagged = |tag| Asked { tag, ..asked(1) };
    for (tag, sku, expect) in [
        (1, "psn-5", vec![vec![("alpha", 60), ("beta", 40)]]),
        (1, "steam-5", vec![vec![("alpha", 60)]]),
        (2, "psn-5", vec![vec![("beta", 1)], vec![("alpha", 2)]]),
        (2, "steam-5", vec![vec![("alpha", 2)]]),
        (3, "psn-5", vec![]),
        (4, "psn-5", vec![]),
        (5, "psn-5", vec![]),
    ] {
        assert_eq!(asks(&table, sku, &tagged(tag)), expect, "{tag} {sku}");
        let rule = usize::from(tag) - 1;
        let accepts_ms = match rule {
            0..4 => table.accepts_ms(rule, sku, table.moment(0)),
            _ => 0,
        };
        assert_eq!(accepts_ms > 0, !expect.is_empty(), "{tag} {sku}");
    }
    let balance = |tag| {
        let found = table.to_ask("psn-5", &tagged(tag), table.moment(0));
        found.map(|found| found.balance)
    };
    assert_eq!(balance(1), Some(Balance::LeastLatency));
    assert_eq!((balance(2), balance(3)), (Some(Balance::Weights), None));
    // What they delivered is dealt as any stock.
    let pools = way(&table, "steam-5", &tagged(1)).expect("a way").2;
    assert!(pools == ["steam", "a1", "beta"] || pools == ["steam", "beta", "a1"]);
}

#[test]
fn outside_channels_overflow_as_others_do() {
    let when =
        |at: &str, to: &str| format!("overflow = {{ when = \"load > {at}\", to = \"{to}\" }}");
    let issuer = |name: &str, more: &str| {
        format!("[[channel]]\nname = \"{name}\"\nkind = \"issuer\"\n{more}\n")
    };
    let channels = [
        issuer("a", &when("0.5", "b")),
        issuer("b", ""),
        issuer("c", &when("0.6", "spare")),
        format!("[[channel]]\nname = \"spare\"\n{}\n", when("0.7", "d")),
        issuer("d", "skus = [\"s\"]"),
    ];
    let table = table(&format!(
        "[load]\nhysteresis = 0.0\n{}[[rule]]\nchannels = [{{ a = 60, b = 40 }}, \"c\"]\n",
        channels.concat()
    ));
    for (load, sku, expect) in [
        (0.0, "s", vec![vec![("a", 60), ("b", 40)], vec![("c", 1)]]),
        (
            0.55,
            "s",
            vec![vec![("b", 100)], vec![("a", 60)], vec![("c", 1)]],
        ),
        (
            0.65,
            "s",
            vec![vec![("b", 100)], vec![("a", 60)], vec![("c", 1)]],
        ),
        (
            0.75,
            "s",
            vec![
                vec![("b", 100)],
                vec![("a", 60)],
                vec![("d", 1)],
                vec![("c", 1)],
            ],
        ),
        (
            0.75,
            "t",
            vec![vec![("b", 100)], vec![("a", 60)], vec![("c", 1)]],
        ),
    ] {
        table.marks().follow(load);
        assert_eq!(asks(&table, sku, &asked(1)), expect, "{load} {sku}");
    }
}

#[test]
fn what_is_no_outside_channel_is_told_by_line_and_reason() {
    let issuer = |line: &str| {
        format!(
            "[[channel]]\nname = \"x\"\nkind = \"issuer\"\n{line}\n[[rule]]\nchannels = [\"x\"]\n"
        )
    };
    let upstream = |line: &str| {
        format!(
            "[[channel]]\nname = \"x\"\nkind = \"upstream\"\n{line}\n[[rule]]\nchannels = [\"x\"]\n"
        )
    };
    let stock =
        |line: &str| format!("[[channel]]\nname = \"x\"\nkind = \"stock\"\n{line}\n[[rule]]\n");
    let retry = |line: &str| format!("[retry]\n\n\n{line}\n[[rule]]\n");
    for (text, line, word) in [
        (
            stock("pool = \"p\""),
            4,
            "pool is a key of issuers and upstreams",
        ),
        (stock("jobs = 5"), 4, "jobs is a key of"),
        (stock("outlier = {}"), 4, "outlier is a key of"),
        (
            stock("url = \"croupier://a\""),
            4,
            "url is a key of upstreams",
        ),
        (issuer("pools = [\"p\"]"), 4, "has one, pool ="),
        (upstream("pools = [\"p\"]"), 4, "has one, pool ="),
        (issuer("sku_prefix = \"a\""), 4, "this is an issuer"),
        (issuer("pool = \" p\""), 4, "name of a pool"),
        (issuer("skus = []"), 4, "skus is a name or a pattern"),
        (
            issuer(&format!("skus = [{}]", "\"a\", ".repeat(65))),
            4,
            "65 patterns",
        ),
        (issuer("timeout = \"0s\""), 4, "at least 1ms"),
        (issuer("timeout = \"1us\""), 4, "at least 1ms"),
        (issuer("timeout = \"61m\""), 4, "at most an hour"),
        (issuer("timeout = \"-5s\""), 4, "at most an hour"),
        (issuer("timeout = 5"), 4, "string"),
        (issuer("jobs = 0"), 4, "from 1 to 4096"),
        (issuer("jobs = 4097"), 4, "from 1 to 4096"),
        (issuer("jobs = -1"), 4, "not -1"),
        (
            issuer("outlier = { failure_percentage = 101 }"),
            4,
            "from 0 to 100",
        ),
        (
            issuer("outlier = { window = \"2h\" }"),
            4,
            "at most an hour; 0s: off",
        ),
        (issuer("outlier = { window = \"1us\" }"), 4, "window"),
        (issuer("outlier = { probes = -1 }"), 4, "0: off, not -1"),
        (issuer("outlier = { prober = 1 }"), 4, "unknown field"),
        (
            issuer("outlier = { max_ejection_time = \"10s\" }"),
            4,
            "at least base_ejection_time",
        ),
        (
            issuer("outlier = { base_ejection_time = \"2h\" }"),
            4,
            "at least base_ejection_time",
        ),
        (
            issuer("overflow = { when = \"load > 0.5\", to = \"x\" }"),
            1,
            "x → x",
        ),
        (upstream(""), 2, "say which"),
        (upstream("url = \"http://a\""), 4, "croupier://HOST"),
        (upstream("url = \"croupier://u:hush@a\""), 4, "password"),
        (
            upstream("url = \"croupier://a\"\nsku_prefix = \" a\""),
            5,
            "begin the name of a SKU",
        ),
        (
            upstream(&format!(
                "url = \"croupier://a\"\nsku_prefix = \"{}\"",
                "a".repeat(64)
            )),
            5,
            "64 bytes",
        ),
        (retry("base = \"0s\""), 4, "base is a time"),
        (retry("cap = \"25h\""), 4, "at most a day"),
        (retry("cap = \"500ms\""), 4, "cap is at least base"),
        (retry("base = \"2m\""), 4, "cap is at least base"),
        (retry("attempts = 0"), 4, "from 1 to 100"),
        (retry("attempts = 101"), 4, "from 1 to 100"),
        (retry("keep = \"31d\""), 4, "keep is a time"),
        (retry("keep = \"745h\""), 4, "at most 30 days"),
        (retry("kept = \"1h\""), 4, "unknown field"),
        (
            "[outlier]\nmax_ejection_percent = 101\n[[rule]]".into(),
            2,
            "from 0 to 100",
        ),
        ("[outlier]\nprobes = 3\n[[rule]]".into(), 2, "unknown field"),
        ("[[rule]]\nbalance = \"weights\"".into(), 2, "name channels"),
        (
            "[[rule]]\npools = [\"x\"]\nbalance = \"weights\"".into(),
            3,
            "name channels",
        ),
        (issuer("") + "balance = \"luck\"", 7, "least-latency"),
    ] {
        let error = RouteTable::parse(1, &text).expect_err(&text);
        let shown = error.to_string();
        assert!(
            shown.contains(word) && !shown.contains("hush"),
            "{text:?}: {error}"
        );
        assert_eq!(error.line, line, "{text:?}: {error}");
    }
}

#[test]
fn channels_that_are_never_asked_are_warned_of() {
    for (rules, expect) in [
        (
            "[[rule]]\nsku = \"steam-*\"\nchannels = [\"beta\"]\n[[rule]]\nchannels = [\"alpha\", \"steam\"]\n",
            true,
        ),
        (
            "[[rule]]\nsku = [\"steam-*\", \"*-5\"]\nchannels = [\"beta\"]\n[[rule]]\nchannels = [\"alpha\", \"steam\"]\n",
            false,
        ),
        (
            "[[rule]]\nchannels = [\"alpha\", \"beta\", \"steam\"]\n",
            false,
        ),
    ] {
        let warnings = table(&format!("{THREE}{rules}")).warnings(None);
        let is_told = |warning: &String| warning.contains("channel \"beta\" is never asked");
        assert_eq!(warnings.len(), usize::from(expect), "{warnings:?}");
        assert_eq!(warnings.iter().any(is_told), expect, "{warnings:?}");
    }
}
