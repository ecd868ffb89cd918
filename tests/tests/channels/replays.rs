//! What-if: orders that waited for workers, run through another table.

use std::fs;
use std::time::Duration;

use croupier_tests::{Done, Store, croupier};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::market::Market;

const SERVED: &str = "[[channel]]\nname = \"alpha\"\nkind = \"issuer\"\njobs = 2\ntimeout = \"1h\"\n\
                      [[rule]]\nchannels = [\"alpha\"]\n";
/// Orders of more than one card go to a channel of which nothing is known.
const ASKED: &str = "[[channel]]\nname = \"alpha\"\nkind = \"issuer\"\njobs = 3\n\
                     [[channel]]\nname = \"gamma\"\nkind = \"issuer\"\ntimeout = \"700ms\"\n\
                     [[rule]]\nquantity = \"2-\"\nchannels = [\"gamma\"]\nlane = \"bulk\"\n\
                     [[rule]]\nchannels = [\"alpha\"]\n";

fn replay(store: &Store, table: &str, more: &[&str]) -> Done {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("asked.toml");
    fs::write(&file, table).expect("a file can be written");
    let (data, file) = (
        store.dir().display().to_string(),
        file.display().to_string(),
    );
    let args = ["routes", "replay", "--data", &data, "--table", &file];
    croupier(args.iter().chain(more))
}

/// How many orders a channel or a lane has: recorded, before, after.
fn orders(of: &Value) -> [u64; 3] {
    ["recorded", "before", "after"].map(|side| of[side]["orders"].as_u64().expect("a number"))
}

#[tokio::test]
async fn what_workers_took_is_what_a_what_if_runs_other_tables_with() {
    let market = Market::with(2_140, SERVED).await;
    let alpha = market.hand("alpha").await;
    for quantity in [1, 1, 1, 2, 1, 3] {
        market.want(quantity).await;
    }
    for nth in 0..6 {
        let job = alpha.job().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        // The last brings one that the next order gets at once.
        let cards = usize::from(job.quantity) + usize::from(nth == 5);
        alpha.deliver(&job, &market.secrets(cards), true).await;
    }
    market.all_filled().await;
    market.order(1).await;
    assert_eq!(market.free().await, 0);
    market.oracle.check_all(&market.client).await;
    drop((alpha, market.client));
    market.server.stop().ok();
    let store = market.store;

    let before = store.tree();
    let report = replay(&store, ASKED, &["--json"]).ok().json();
    let waits = &report["waits"];
    let channels = waits["channels"].as_array().expect("an array");
    let names: Vec<&Value> = channels.iter().map(|one| &one["channel"]).collect();
    assert_eq!(names, ["alpha", "gamma"], "{waits}");
    assert_eq!(orders(&channels[0]), [6, 6, 4], "{waits}");
    assert_eq!(orders(&channels[1]), [0, 0, 2], "{waits}");
    let jobs = |side: &str| channels[0][side]["jobs_most"].as_u64();
    assert!(jobs("before") <= Some(2) && jobs("after") <= Some(3));
    assert_eq!(jobs("recorded"), None);
    // Two at a time have a place: the others wait, whatever a job takes.
    let lanes = waits["lanes"].as_array().expect("an array");
    assert_eq!(lanes[1]["lane"], "standard");
    assert_eq!(orders(&lanes[1]), [7, 7, 5], "{waits}");
    assert_eq!(orders(&lanes[2]), [0, 0, 2], "{waits}");
    for side in ["recorded", "before"] {
        assert_eq!(lanes[1][side]["outside"], 6);
        assert!(lanes[1][side]["depth_most"].as_u64() <= Some(6));
    }
    // A pool that is made by what is delivered is none that is not there.
    assert_eq!(report["no_pool"]["orders"], 0, "{report}");
    let assumed = json!([{ "channel": "gamma", "latency_ms": 700, "from": "timeout" }]);
    assert_eq!(waits["assumed"], assumed);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("--latency gamma=MS"), "{warnings}");
    assert_eq!(waits["for_stock"], json!({ "before": 0, "after": 0 }));

    // Neither clock nor chance is in it, and nothing is changed.
    let again = replay(&store, ASKED, &["--json"]).ok().json();
    assert_eq!(again, report);
    let same = replay(&store, SERVED, &["--json"]).ok().json();
    for of in ["channels", "lanes"] {
        for of in same["waits"][of].as_array().expect("an array") {
            assert_eq!(of["before"], of["after"], "{same}");
        }
    }
    let said = ["--latency", "gamma=250", "--json"];
    let said = replay(&store, ASKED, &said).ok().json();
    let gamma = &said["waits"]["channels"][1]["after"];
    assert_eq!(
        (&gamma["p50_ms"], &gamma["p99_ms"]),
        (&json!(250), &json!(250))
    );
    let assumed = json!([{ "channel": "gamma", "latency_ms": 250, "from": "said" }]);
    assert_eq!(said["waits"]["assumed"], assumed);
    assert!(!said["warnings"].to_string().contains("gamma"), "{said}");

    let text = replay(&store, ASKED, &[]).ok();
    for words in [
        "channel",
        "recorded",
        "most queued",
        "most waiting",
        "P99 ms",
        "+/−",
    ] {
        assert!(text.stdout.contains(words), "{words}: {text}");
    }
    assert!(text.stderr.contains("upper bounds"), "{text}");
    let words = ["delta", "name one of alpha, gamma"];
    replay(&store, ASKED, &["--latency", "delta=5"]).fails(2, &words);
    let twice = ["--latency", "gamma=5", "--latency", "gamma=6"];
    replay(&store, ASKED, &twice).fails(2, &["gamma", "twice"]);
    for wrong in ["gamma", "gamma=soon", "gamma=-1", "=5", "gamma=3600001"] {
        replay(&store, ASKED, &["--latency", wrong]).fails(2, &["NAME=MS"]);
    }
    assert_eq!(store.tree(), before);
}

#[tokio::test]
async fn without_channels_there_is_nobody_to_wait_for() {
    let market = Market::with(2_141, "[[rule]]\n").await;
    market.want(1).await;
    drop(market.client);
    market.server.stop().ok();
    let report = replay(&market.store, "[[rule]]\n", &["--json"]).ok().json();
    assert_eq!(
        (&report["orders"], &report["waits"]),
        (&json!(1), &Value::Null)
    );
    let alpha = ["--latency", "alpha=5"];
    replay(&market.store, "[[rule]]\n", &alpha).fails(2, &["alpha", "there is none"]);
    // A channel would have been asked for it.
    let report = replay(&market.store, SERVED, &["--json"]).ok().json();
    let waits = &report["waits"];
    assert_eq!(waits["for_stock"], json!({ "before": 1, "after": 0 }));
    assert_eq!(orders(&waits["channels"][0]), [0, 0, 1]);
}
