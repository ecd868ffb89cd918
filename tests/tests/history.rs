//! A short piece of what `croupier-history` does for a million orders.

use croupier_tests::history::{Plan, run::run};
use croupier_tests::{Dice, scaled};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_history_with_kills_keeps_every_promise() {
    let plan = Plan {
        orders: scaled(20_000, 200_000),
        callers: 8,
        kills: scaled(3, 12),
        seed: Dice::rolled("history").next(),
    };
    let findings = run(&plan, &|_| {}).await;
    let seen = &findings.seen;
    assert!(
        seen.violated == 0,
        "{} violations; the store is kept in {:?}:\n{}",
        seen.violated,
        findings.kept,
        seen.violations.join("\n")
    );
    assert_eq!(findings.orders, plan.orders);
    assert_eq!(findings.ends[0], plan.kills as u64);
    let answered = |asked, said| seen.answers.contains_key(&(asked, said));
    for (asked, said) in [
        ("issue", "issued"),
        ("issue", "OutOfStock"),
        ("reserve", "held"),
        ("commit", "issued"),
        ("commit", "Expired"),
        ("cancel", "cancelled"),
        ("extend", "held"),
        ("issue", "waiting"),
        ("reserve", "waiting"),
        ("commit", "StillWaiting"),
        ("look-up", "issued"),
    ] {
        assert!(answered(asked, said), "no {asked} was answered {said}");
    }
    assert!(0 < findings.filled && findings.filled < findings.waited);
    assert!(findings.replayed.is_some_and(|records| records > 0));
}
