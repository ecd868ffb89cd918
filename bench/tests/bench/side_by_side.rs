//! `limits` and `peers`, small: that they run, count and leave nothing behind.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(directory: &Path, flags: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_croupier-bench"))
        .args(flags.split(' '))
        .arg("--dir")
        .arg(directory)
        .output()
        .expect("the binary runs")
}

fn report(directory: &Path, flags: &str) -> Value {
    let output = bench(directory, flags);
    assert!(
        output.status.success(),
        "{flags}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("standard output is JSON")
}

fn assert_empty(directory: &Path) {
    let left: Vec<_> = directory.read_dir().expect("it is there").collect();
    assert!(left.is_empty(), "{left:?} was left behind");
}

#[test]
fn limits_measure_disk_loopback_and_toys() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let flags = "limits --no-engine --shape 1x1,3x7 --rounds 2 --duration 500ms --json";
    let report = report(directory.path(), flags);
    assert!(report["loopback"]["p50_us"].as_f64().expect("a number") > 0.0);
    assert!(
        report["sync"].as_array().expect("a list").len() >= 5,
        "{report}"
    );
    let standings = report["standings"].as_array().expect("a list");
    assert_eq!(standings.len(), 4, "two toys in two shapes");
    for standing in standings {
        assert!(
            standing["per_s"].as_f64().expect("a number") > 0.0,
            "{standing}"
        );
        assert_eq!(standing["rounds"].as_array().expect("a list").len(), 2);
    }
    assert_eq!(report["engine_skipped"], "--no-engine");
    assert_empty(directory.path());
}

#[test]
fn limits_are_printed_for_people_too() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = bench(
        directory.path(),
        "limits --croupier /nowhere --shape 1x1 --rounds 1 --duration 1s",
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for words in [
        "left out: no croupier binary at /nowhere",
        "frames + commit",
        "One byte over the loopback",
    ] {
        assert!(stdout.contains(words), "{words:?} is not in\n{stdout}");
    }
}

#[test]
fn peers_that_are_installed_deal_every_card_once_and_the_rest_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let flags = "peers --peers redis-always,redis-everysec,pg-skip,pg-for-update --shape 2x4 --rounds 2 \
                 --seconds 300ms --warmup 50ms --cards 100000 --pg-orders 300 --json";
    let output = bench(directory.path(), flags);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && stderr.contains("is not installed") {
        eprintln!("nothing to test: {stderr}");
        return;
    }
    assert!(output.status.success(), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("standard output is JSON");
    let (standings, skipped) = (&report["standings"], &report["skipped"]);
    let count = |list: &Value| list.as_array().expect("a list").len();
    assert_eq!(count(standings) + count(skipped), 4, "{report}");
    for standing in standings.as_array().expect("a list") {
        let per_s = standing["per_s"].as_f64().expect("a number");
        assert!(per_s > 1.0 && per_s < 1e7, "{standing}");
    }
    assert_empty(directory.path());
}

#[test]
fn a_peer_that_is_not_installed_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_croupier-bench"))
        .args(["peers", "--peers", "redis-always"])
        .env("PATH", "/nowhere")
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("redis-server is not installed"),
        "{output:?}"
    );
}

#[test]
fn shapes_and_counts_that_make_no_sense_are_usage_errors() {
    for flags in [
        "limits --shape 50",
        "limits --rounds 0",
        "peers --shape 0x5",
        "peers --peers oracle",
        "peers --seconds 0",
    ] {
        let output = bench(Path::new("/tmp"), flags);
        assert_eq!(output.status.code(), Some(2), "{flags}: {output:?}");
    }
}
