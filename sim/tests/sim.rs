//! The simulator itself: the same seed does the same, and a few seeds of every kind find nothing.

use std::process::Command;

use croupier_sim::plan::{FEATURES, Feature, Plan};
use croupier_sim::run::{run, trace};

#[test]
fn a_seed_does_the_same_again() {
    for seed in [1, 2, 77] {
        let plan = Plan::new(seed, 1200);
        let (first, second) = (trace(&plan), trace(&plan));
        assert_eq!(first.0, second.0, "seed {seed}: what happened");
        assert_eq!(first.1, second.1, "seed {seed}: what the disk saw");
        assert_eq!(first.2, Ok(()));
    }
}

#[test]
fn seeds_find_nothing_and_everything_happens() {
    let (mut issued, mut crashes, mut power_cuts, mut repeats) = (0, 0, 0, 0);
    for seed in 100..130 {
        let done = run(&Plan::new(seed, 1500))
            .unwrap_or_else(|found| panic!("seed {seed}, step {}: {}", found.step, found.what));
        issued += done.answers[0];
        repeats += done.answers[1];
        crashes += done.crashes.tried;
        power_cuts += done.tally.power_cuts;
    }
    assert!(issued > 100 && repeats > 10 && crashes > 1000 && power_cuts > 0);
}

#[test]
fn without_any_trouble_orders_are_dealt() {
    let troubles = FEATURES.into_iter().filter(|feature| {
        !matches!(
            feature,
            Feature::Imports | Feature::Cores | Feature::Quantities
        )
    });
    let plan = troubles.fold(Plan::new(5, 3000), |plan, feature| plan.without(feature));
    let done = run(&plan).unwrap_or_else(|found| panic!("{}", found.what));
    assert_eq!(done.tally.starts, 1);
    assert!(done.answers[0] > 20, "{done:?}");
}

#[test]
fn the_command_line_runs_a_seed_and_tells_what_came_of_it() {
    let sim = || Command::new(env!("CARGO_BIN_EXE_croupier-sim"));
    let done = sim().args(["--seed", "9", "--json"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(told["violations"], 0);
    assert!(told["crashes"]["tried"].as_u64().unwrap() > 10, "{told}");
    let wrong = sim().args(["--budget", "soon"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("90s or 10m"));
}
