//! What must hold after a fault, whatever it was: the store starts again without faults, and the oracle finds that nothing
//! acknowledged is lost, nothing is dealt twice, what was refused left no trace, counts add up, and log, replay and copy
//! come to one digest.

use std::fs;

use croupier_client::{Order, OrderId, OrderOutcome, SkuId};

use super::Fault;
use super::play::{Did, Played, connect, ends_the_writer};
use super::stage::{SECRET_BYTES, SEGMENT_BYTES};
use super::trace::Spot;
use crate::{Mint, Oracle, Server, Store, croupier};

/// Judges a run into which a fault was put, and mends the store. Returns what the server did, in words.
///
/// # Panics
/// If a rule is broken.
pub async fn judge(sku: Option<SkuId>, fault: Fault, spot: &Spot, played: &mut Played) -> String {
    let did = match played.alive.take() {
        Some((server, attached)) => {
            assert_ne!(fault, Fault::Kill, "a kill was due, and the server lives");
            assert!(
                !ends_the_writer(spot),
                "the log's writer met an error, and the server goes on (rule 8)"
            );
            played.log = server.stderr();
            healthy(&server, played, sku.expect("what serves has cards")).await;
            // Half of them end as a crash would end them, so that the stop mends nothing.
            match fault {
                Fault::Enospc => {
                    server.stop().ok();
                }
                _ => {
                    server.kill();
                }
            }
            if let Some(attached) = attached {
                attached.finish();
            }
            "goes on".to_owned()
        }
        None => ended(fault, spot, played),
    };
    if sku.is_some() {
        recover(&played.store, &played.oracle, sku).await;
    } else {
        after_init(played).await;
    }
    said(did, fault, &played.log)
}

/// A process that has ended: by the kill, or by itself with an exit code that says why.
fn ended(fault: Fault, spot: &Spot, played: &Played) -> String {
    let (what, code) = match played.did {
        Did::WentOn => unreachable!("it has ended"),
        Did::NotStarted(code) => ("does not start, exit code", code),
        Did::Ended(code) => ("exits with", code),
        Did::Stopped(code) => ("stops, exit code", code),
    };
    match (fault, code) {
        (Fault::Kill, None) => "is killed".to_owned(),
        (Fault::Kill, code) => panic!("it was to be killed, and {what} {code:?}"),
        (_, Some(0)) if matches!(played.did, Did::Stopped(_)) || spot.syscall == "unlink" => {
            format!("{what} 0")
        }
        (_, Some(1)) => format!("{what} 1"),
        (_, code) => panic!(
            "{what} {code:?}, which is no answer to an error of the disk\n{}",
            played.log
        ),
    }
}

/// A server that goes on deals, and all it says is true.
async fn healthy(server: &Server, played: &Played, sku: SkuId) {
    let client = connect(server)
        .await
        .expect("a server that lives takes connections");
    played.oracle.check_all(&client).await;
    deal(&client, &played.oracle, sku).await;
}

async fn deal(client: &croupier_client::Client, oracle: &Oracle, sku: SkuId) {
    let order = Order::new(OrderId::new_v7(), sku);
    match oracle.issue(client, &[order]).await.as_deref() {
        Some([OrderOutcome::Issued(_)]) => {}
        other => panic!("a healthy server was to deal an order: {other:?}"),
    }
}

/// Starts the store without faults and checks all there is to check.
async fn recover(store: &Store, oracle: &Oracle, sku: Option<SkuId>) {
    let server = store.serve();
    let client = connect(&server)
        .await
        .expect("a server that lives takes connections");
    oracle.check_all(&client).await;
    oracle.ask_all_again(&client).await;
    if let Some(sku) = sku {
        deal(&client, oracle, sku).await;
    }
    oracle.check_all(&client).await;
    drop(client);
    server.stop().ok();
    oracle.check_disk(store);
}

/// An init that did not end well has made a store, or something that is none and can be removed.
async fn after_init(played: &Played) {
    let store = &played.store;
    let again = croupier(store.init_args(SEGMENT_BYTES));
    let is_store = store.path("store").exists();
    if again.code != Some(0) {
        let words = if is_store {
            "already a data directory"
        } else {
            "empty"
        };
        let again = again.fails(1, &[words]);
        if !is_store {
            let refused = store.serve_refused();
            assert!(matches!(refused.code, Some(1 | 2)), "{refused}");
            fs::remove_dir_all(store.dir()).expect("it can be removed");
            croupier(store.init_args(SEGMENT_BYTES)).ok();
        }
        drop(again);
    }
    let server = store.serve();
    let client = connect(&server)
        .await
        .expect("a server that lives takes connections");
    let secrets = Mint::new(62).secrets(10, SECRET_BYTES);
    let sku = played.oracle.import(&client, "cards", &secrets).await;
    deal(&client, &played.oracle, sku.expect("nobody disturbs")).await;
    drop(client);
    server.stop().ok();
    recover(store, &played.oracle, sku).await;
}

/// Adds whether the operator was told.
fn said(did: String, fault: Fault, log: &str) -> String {
    if fault == Fault::Kill || !did.starts_with("goes") && !did.ends_with(" 0") {
        return did;
    }
    let complains = |line: &&str| line.contains(" ERROR ") || line.contains(" WARN ");
    let told = |line: &str| {
        let told = [
            "cannot make the next log segment",
            "no checkpoint could be made",
            "cannot remove",
        ];
        told.iter().find(|told| line.contains(**told)).copied()
    };
    match log.lines().rfind(complains) {
        None => format!("{did}, and says nothing"),
        Some(line) => match told(line) {
            Some(told) => format!("{did}, says \"{told} …\""),
            None => format!("{did}, with a warning"),
        },
    }
}
