//! Each lie of the toy server is found, and a run against an honest one passes.

use clap::Parser;
use croupier_bench::error::BenchError;
use croupier_bench::report::RunReport;
use croupier_bench::run::{RunArgs, run};

use crate::toy::{Lie, Toy};

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    run: RunArgs,
}

fn bench(lie: Lie, flags: &str) -> Result<RunReport, BenchError> {
    let toy = Toy::start(lie);
    let words = ["bench", "--server", &toy.url]
        .into_iter()
        .chain(flags.split_whitespace());
    run(&Flags::try_parse_from(words)
        .expect("the flags are valid")
        .run)
}

const CLOSED: &str =
    "--closed --connections 4 --pipeline 8 --cards 60000 --duration 5s --warmup 0s";

fn passes(flags: &str) -> RunReport {
    let report = bench(Lie::None, flags).unwrap_or_else(|error| panic!("{flags}: {error}"));
    assert!(report.verdict.pass, "{flags}: {report}");
    assert!(report.oracle.sampled > 0, "{flags}: {report}");
    assert_eq!(report.oracle.cards_foreign, 0);
    report
}

#[test]
fn an_honest_server_passes() {
    for flags in [
        CLOSED.to_string(),
        format!("{CLOSED} --batch 10 --threads 2"),
        format!("{CLOSED} --quantity 3 --skus 7 --hot-share 0.5"),
        format!("{CLOSED} --mix issue=60,lookup=40 --batch 3"),
        "--closed --connections 2 --pipeline 4 --duration 300ms --warmup 100ms".to_string(),
        "--rate 3000 --duration 1s --warmup 200ms".to_string(),
        "--rate 5000 --arrivals poisson --duration 1s --warmup 0s --mix issue=1,lookup=1 --threads 2".to_string(),
        "--rate 20000 --batch 50 --duration 1s --warmup 0s".to_string(),
        format!("{CLOSED} --two-phase"),
        format!("{CLOSED} --two-phase --batch 10 --quantity 3 --skus 7 --threads 2 --ttl 5s"),
        "--rate 3000 --two-phase --duration 1s --warmup 200ms".to_string(),
    ] {
        passes(&flags);
    }
}

#[test]
fn a_closed_loop_ends_with_its_stock_and_an_open_one_with_its_time() {
    let report = passes(CLOSED);
    assert!(
        report.steps[0].stock_used_up && report.steps[0].measured_s < 4.9,
        "{report}"
    );
    assert!(report.oracle.orders == 60_000, "{report}");
    let report = passes("--rate 4000 --duration 1s --warmup 0s");
    let issued = report.steps[0].operations[0].orders;
    assert!(
        (3999..=4001).contains(&issued),
        "{issued} orders at 4,000/s for a second"
    );
}

#[test]
fn pairs_are_counted_once_and_take_as_long_as_both_steps() {
    let report = passes(&format!("{CLOSED} --two-phase --batch 3"));
    let step = &report.steps[0];
    let [pair, reserve, commit] = &step.operations[..] else {
        panic!("{report}");
    };
    assert_eq!((pair.orders, commit.orders), (60_000, 60_000), "{report}");
    assert_eq!(reserve.orders, 60_000, "{report}");
    assert_eq!(report.oracle.orders, 120_000, "{report}");
    assert_eq!(step.throughput_per_s, pair.per_s);
    let steps_us = reserve.latency.mean_us + commit.latency.mean_us;
    assert!(
        (pair.latency.mean_us / steps_us - 1.0).abs() < 0.01,
        "{report}"
    );
}

#[test]
fn refused_steps_fail_a_run_and_the_rest_goes_on() {
    for (lie, name) in [(Lie::Busy, "Busy"), (Lie::LosesHold, "OrderNotFound")] {
        let report = bench(lie, &format!("{CLOSED} --two-phase --batch 5"))
            .unwrap_or_else(|error| panic!("{lie:?}: {error}"));
        assert!(!report.verdict.pass, "{lie:?}: {report}");
        assert!(report.steps[0].refused[name] > 0, "{lie:?}: {report}");
        assert_eq!(report.steps[0].unanswered, 0, "{lie:?}: {report}");
        assert_eq!(report.oracle.violations, 0, "{lie:?}: {report}");
    }
}

#[test]
fn a_sweep_measures_each_rate() {
    let report = passes("--sweep 500,1000,2000 --duration 500ms --warmup 0s");
    let orders: Vec<u64> = report
        .steps
        .iter()
        .map(|step| step.operations[0].orders)
        .collect();
    assert_eq!(orders.len(), 3);
    for (orders, expected) in orders.iter().zip([250u64, 500, 1000]) {
        assert!(
            orders.abs_diff(expected) <= 1,
            "{orders} where {expected} were due"
        );
    }
}

#[test]
fn every_lie_is_found() {
    for (lie, flags, words) in [
        (Lie::CardTwice, "", "was issued twice"),
        (Lie::SecretTwice, "", "was delivered twice"),
        (Lie::SecretDamaged, "", "not as it was imported"),
        (
            Lie::CardMissing,
            "--quantity 2",
            "asked for 2 cards and got 1",
        ),
        (
            Lie::WrongOrder,
            "",
            "answered for order 00000000-0000-0000-0000-000000000005",
        ),
        (Lie::Repeat, "", "answered as a repeat"),
        (Lie::NoLsn, "", "without an LSN"),
        (Lie::AnswerTwice, "", "not in flight"),
        (Lie::Forgets, "", "was refused"),
        (Lie::LookUpDiffers, "", "had other cards or other secrets"),
        (
            Lie::LookUpDiffers,
            "--mix issue=1,lookup=1",
            "had other cards or another LSN",
        ),
        (Lie::OtherSku, "--skus 2", "got a secret of number"),
        (Lie::CardTwice, "--two-phase", "was issued twice"),
        (Lie::Repeat, "--two-phase", "answered as a repeat"),
        (Lie::ReserveIssues, "--two-phase", "was to be reserved"),
        (
            Lie::HoldsTooFew,
            "--two-phase --quantity 2",
            "asked for 2 cards and got 1",
        ),
        (Lie::CommitsEarlier, "--two-phase", "and committed at LSN 1"),
    ] {
        let report = bench(lie, &format!("{CLOSED} {flags}"))
            .unwrap_or_else(|error| panic!("{lie:?}: {error}"));
        assert!(
            !report.verdict.pass && report.oracle.violations > 0,
            "{lie:?} was not found: {report}"
        );
        let found = report
            .oracle
            .details
            .iter()
            .any(|detail| detail.contains(words));
        assert!(found, "{lie:?}: {:?}", report.oracle.details);
    }
}

#[test]
fn a_card_given_to_two_threads_is_found_when_they_are_merged() {
    let report = bench(Lie::CardTwice, &format!("{CLOSED} --threads 4")).expect("the run ends");
    assert!(report.oracle.violations > 0, "{report}");
}

#[test]
fn refusals_and_silence_fail_a_run() {
    for (lie, words) in [
        (Lie::Busy, "orders were refused"),
        (Lie::BusyFrame, "orders were refused"),
    ] {
        let report = bench(lie, CLOSED).unwrap_or_else(|error| panic!("{lie:?}: {error}"));
        assert!(
            !report.verdict.pass && report.verdict.reasons[0].contains(words),
            "{lie:?}: {report}"
        );
        assert!(report.steps[0].refused["Busy"] > 0);
        assert_eq!(report.oracle.violations, 0, "a refusal is no lie: {report}");
    }
    let report = bench(
        Lie::Silence,
        "--rate 5000 --duration 1s --warmup 0s --drain 1s",
    )
    .expect("the run ends");
    assert_eq!(report.steps[0].unanswered, 1, "{report}");
    assert!(!report.verdict.pass);
}

#[test]
fn a_server_that_hangs_up_ends_the_run_with_an_error() {
    match bench(Lie::Hangs, CLOSED) {
        Err(BenchError::ConnectionLost { .. }) => {}
        other => panic!("{other:?}"),
    }
}
