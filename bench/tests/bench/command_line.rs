//! Flags, exit codes and files of the real binary.

use std::process::{Command, Output};

use crate::toy::{Lie, Toy};

fn bench(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_croupier-bench"))
        .args(flags)
        .output()
        .expect("the binary runs")
}

#[test]
fn flags_that_make_no_sense_are_usage_errors() {
    for (flags, words) in [
        ("run --rate 0", "must be above 0"),
        ("run --duration 0s", "longer than 0"),
        ("run --duration soon", "write it like 30s"),
        ("run --closed --rate 5", "cannot be used with"),
        ("run --mix lookup=1", "needs some issue"),
        ("run --mix issue=9,reserve=1", "say --two-phase"),
        ("run --ttl 5s", "--two-phase"),
        (
            "run --two-phase --mix issue=1,lookup=1",
            "cannot be used with",
        ),
        ("run --two-phase --ttl 0s", "longer than 0"),
        ("run --hot-share 2", "from 0 to 1"),
        ("run --hot-share 0.5", "--skus 2"),
        ("run --connections 0", "0"),
        ("run --batch 0", "0"),
        ("run --connections 2 --threads 3", "--connections"),
        ("run --plot picture.png", ".svg"),
        ("run --server http://x", "croupier://host:port"),
        ("run --priority urgent", "urgent"),
        ("scale --cards 0", "no number above 0"),
        ("scale --cards many", "write it like"),
        ("scale --skus 1m", "65,536 at most"),
        ("scale --axes time", "invalid value"),
        ("scale --plot growth.png", ".svg"),
        ("scale --axes holds --plot growth.svg", "not holds"),
        ("scale --axes holds,lanes --plot growth.svg", "not holds"),
        ("scale --axes lanes --lanes 1m", "100,000"),
        ("scale --hold-ttl-min 9s --hold-ttl-max 8s", "is above"),
        ("scene --rate 1000000", "100,000"),
        ("scene --stock-share 1", "--stock-share"),
        ("scene --lease 6ms", "half of a lease"),
        ("scene --balance fair", "invalid value"),
        ("sell", "unrecognized"),
    ] {
        let output = bench(&flags.split(' ').collect::<Vec<_>>());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags}: {stderr}");
        assert!(stderr.contains(words), "{flags}: {stderr}");
    }
}

#[test]
fn limits_of_the_server_are_usage_errors_too() {
    let toy = Toy::start(Lie::None);
    for (flags, words) in [
        ("--batch 2000", "this server takes 1000 orders"),
        ("--batch 8189", "start it with --frame-bytes-max"),
        ("--quantity 101", "100 cards an order at most"),
        (
            "--closed --pipeline 60000 --batch 10",
            "65536 orders in flight",
        ),
        ("--cards 0", "no SKU bench-00000"),
    ] {
        let flags: Vec<&str> = ["run", "--server", &toy.url]
            .into_iter()
            .chain(flags.split(' '))
            .collect();
        let output = bench(&flags);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(words), "{flags:?}: {stderr}");
    }
}

#[test]
fn nobody_listening_is_exit_code_4() {
    let output = bench(&["run", "--server", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("is a server running there?"),
        "{output:?}"
    );
}

#[test]
fn a_missing_server_binary_is_named() {
    let output = bench(&["run", "--croupier", "/nowhere/croupier"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no croupier binary at /nowhere/croupier"),
        "{output:?}"
    );
}

#[test]
fn json_and_files_are_written() {
    let toy = Toy::start(Lie::None);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (hgrm, svg) = (
        directory.path().join("run.hgrm"),
        directory.path().join("run.svg"),
    );
    let output = bench(&[
        "run",
        "--server",
        &toy.url,
        "--rate",
        "2000",
        "--duration",
        "500ms",
        "--warmup",
        "0",
        "--json",
        "--hgrm",
        hgrm.to_str().expect("UTF-8"),
        "--plot",
        svg.to_str().expect("UTF-8"),
    ]);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("standard output is JSON");
    assert_eq!(report["verdict"]["pass"], true);
    assert_eq!(report["oracle"]["violations"], 0);
    assert!(
        report["steps"][0]["operations"][0]["latency"]["p99_us"]
            .as_f64()
            .expect("a number")
            > 0.0
    );
    assert!(
        std::fs::read_to_string(hgrm)
            .expect("it was written")
            .contains("Total count")
    );
    assert!(
        std::fs::read_to_string(svg)
            .expect("it was written")
            .starts_with("<svg")
    );
}

#[test]
fn a_failed_run_is_exit_code_1_and_says_why() {
    let toy = Toy::start(Lie::CardTwice);
    let flags = [
        "run",
        "--server",
        &toy.url,
        "--closed",
        "--connections",
        "2",
        "--pipeline",
        "4",
        "--cards",
        "20000",
    ];
    let output = bench(&flags);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.contains("FAIL") && stdout.contains("was issued twice"),
        "{stdout}"
    );
}
