//! A disk that fails a write of the log: one case of the crash matrix, so that every run of the tests has seen it.

use croupier_tests::matrix::run::{Plan, run};
use croupier_tests::matrix::{Fault, Log, Phase, Problem};

#[test]
fn a_server_that_cannot_write_its_log_refuses_and_exits_with_1() {
    let plan = Plan {
        phases: vec![Phase::Load],
        faults: vec![Fault::Eio],
        logs: vec![Log::Direct],
        sample: 1,
        seed: 1,
        jobs: 1,
        only: Some("#2 of data/wal/".to_owned()),
    };
    let findings = match run(&plan, &|_| {}) {
        Ok(findings) => findings,
        Err(problem @ Problem::NoStrace(_)) => {
            eprintln!("SKIPPED: {problem}");
            return;
        }
        Err(problem) => panic!("{problem}"),
    };
    let report = croupier_tests::matrix::report::Report::new(&findings);
    let (broken, missed) = (report.broken(), report.missed());
    assert_eq!((broken, missed), (0, 0), "{}", report.text());
    assert!(!findings.judged.is_empty());
}
