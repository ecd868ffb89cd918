//! No secret leaves the store but in the answer to its order: not to a file, not to a log.

use std::fs;
use std::path::Path;

use croupier_client::{Order, OrderId};
use croupier_tests::{Mint, Oracle, Store, leaked};
use tempfile::TempDir;

/// Where the first secret stands in a file below `dir`, and how many files were looked at.
fn leak_in(secrets: &[Vec<u8>], dir: &Path) -> (Option<String>, usize) {
    let mut files = 0;
    for entry in fs::read_dir(dir).expect("a directory can be listed") {
        let path = entry.expect("a directory can be listed").path();
        let found = if path.is_dir() {
            let (found, looked_at) = leak_in(secrets, &path);
            files += looked_at;
            found
        } else {
            files += 1;
            let bytes = fs::read(&path).expect("a file can be read");
            let found = leaked(secrets, &bytes);
            found.map(|offset| format!("{} at offset {offset}", path.display()))
        };
        if found.is_some() {
            return (found, files);
        }
    }
    (None, files)
}

#[track_caller]
fn check_files(secrets: &[Vec<u8>], store: &Store) {
    let (found, files) = leak_in(secrets, store.dir());
    assert_eq!(found, None, "a secret stands in a file");
    assert!(
        files >= 8,
        "store, key, slabs, log, checkpoint: {files} files"
    );
}

#[tokio::test]
async fn no_secret_is_found_in_any_file_or_log() {
    let (store, oracle) = (Store::new().with("--log", "trace"), Oracle::new());
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(9);
    let mut skus = Vec::new();
    for (name, bytes) in [("short", 16), ("middle", 60), ("long", 700)] {
        let secrets = mint.secrets(600, bytes);
        skus.push(
            oracle
                .import(&client, name, &secrets)
                .await
                .expect("an import"),
        );
    }
    // An import that is given up, and one of lines that are all rejected.
    let rejected = mint.secrets(20, 5000);
    oracle
        .try_import(&client, "short", &rejected)
        .await
        .expect("an import");
    for nth in 0..400 {
        let order =
            Order::new(OrderId::new_v7(), skus[nth % skus.len()]).quantity(1 + nth as u16 % 3);
        oracle.deal(&client, order).await;
    }
    oracle.ask_all_again(&client).await;
    let secrets = oracle.secrets();

    // The search itself: it finds what is there.
    let proof = TempDir::new().expect("a temporary directory");
    let planted = [b"....", &secrets[17][2..], b"...."].concat();
    assert_eq!(leaked(&secrets, &planted), Some(4));
    fs::write(proof.path().join("planted"), &planted).expect("a file can be written");
    assert!(leak_in(&secrets, proof.path()).0.is_some());

    check_files(&secrets, &store);
    drop(client);
    let log = server.stop().ok().stderr;
    assert!(log.contains("import sealed"), "{log}");
    assert_eq!(
        leaked(&secrets, log.as_bytes()),
        None,
        "a secret stands in the log"
    );
    check_files(&secrets, &store);

    let log = store.serve().kill();
    assert_eq!(
        leaked(&secrets, log.as_bytes()),
        None,
        "a secret stands in the log"
    );
    let dumped = store.wal("dump", &[]).ok();
    let verified = store.wal("verify", &["--log", "trace"]).ok();
    for text in [
        dumped.stdout,
        dumped.stderr,
        verified.stdout,
        verified.stderr,
    ] {
        assert_eq!(
            leaked(&secrets, text.as_bytes()),
            None,
            "a secret stands in what a command printed"
        );
    }
}
