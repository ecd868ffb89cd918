//! How fast rows become durable slabs, and how fast a secret is opened again.
//!
//! `cargo run --release --example ingest_speed [ROWS [SECRET_BYTES [DIR]]]`

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use croupier_engine::slab::{
    Ingest, IngestLimits, IngestPlan, IngestTimes, Ingested, KeyFile, Slab, Vault,
};
use croupier_protocol::ImportRow;

const STORE_ID: [u8; 16] = *b"ingest_speed    ";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let rows: u64 = args.next().map_or(Ok(1_000_000), |rows| rows.parse())?;
    let secret_bytes: usize = args.next().map_or(Ok(26), |bytes| bytes.parse())?;
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("ingest_speed-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let outcome = run(rows, secret_bytes, &dir);
    std::fs::remove_dir_all(&dir)?;
    outcome
}

fn run(
    rows: u64,
    secret_bytes: usize,
    dir: &std::path::Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let key = KeyFile::create(&dir.join("store.key"), STORE_ID)?;
    let vault = Arc::new(Vault::new(&key));
    let slab_ids = Arc::new(AtomicU32::new(1));
    let mut stock: Vec<Arc<Slab>> = Vec::new();
    for round in 0..3 {
        let plan = IngestPlan {
            dir: dir.to_owned(),
            store_id: STORE_ID,
            sku: 1,
            pool: 0,
            batch: round,
            now_unix_ms: 1,
            limits: IngestLimits::default(),
        };
        let secrets = secrets(rows * u64::from(round), rows, secret_bytes);
        let begun = Instant::now();
        let mut ingest = Ingest::begin(vault.clone(), plan, stock.clone(), slab_ids.clone());
        for (line, secret) in (1..).zip(secrets.chunks_exact(secret_bytes)) {
            let label = b"";
            ingest.push(ImportRow {
                line,
                expires_at_s: 0,
                premium_e4: None,
                cost_e4: None,
                label,
                secret,
            })?;
        }
        let done = ingest.finish()?;
        report(round, rows, begun.elapsed(), &done);
        assert_eq!(done.accepted, rows);
        stock.extend(done.slabs.into_iter().map(Arc::new));
    }
    open_speed(&stock[0])
}

/// Distinct secrets, one after the other: the number in base 16, with letters that look like a code's.
fn secrets(first: u64, rows: u64, secret_bytes: usize) -> Vec<u8> {
    let mut secrets = Vec::with_capacity(rows as usize * secret_bytes);
    for number in first..first + rows {
        let text = format!(
            "{:0>width$X}",
            u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            width = secret_bytes
        );
        secrets.extend_from_slice(&text.as_bytes()[text.len() - secret_bytes..]);
    }
    secrets
}

fn report(round: u32, rows: u64, whole: Duration, done: &Ingested) {
    let IngestTimes {
        fingerprint,
        dedupe,
        seal_and_write,
        sync,
    } = done.times;
    let rest = whole - fingerprint - dedupe - seal_and_write - sync;
    let ns = |time: Duration| time.as_nanos() as u64 / rows;
    println!(
        "round {round}: {:>9.0} rows/s; ns a row: {} in all = push and rest {} + fingerprint {} + dedupe {} \
         + seal and write {} + wait for the disk {}",
        rows as f64 / whole.as_secs_f64(),
        ns(whole),
        ns(rest),
        ns(fingerprint),
        ns(dedupe),
        ns(seal_and_write),
        ns(sync),
    );
}

fn open_speed(slab: &Slab) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = BytesMut::with_capacity(64 << 10);
    for pass in ["first", "again"] {
        let begun = Instant::now();
        for slot in 0..slab.cards() {
            out.clear();
            slab.prefetch((slot + 4).min(slab.cards() - 1));
            black_box(slab.open_secret(slot, &mut out)?);
        }
        println!(
            "open, {pass}: {} ns a secret",
            begun.elapsed().as_nanos() as u64 / u64::from(slab.cards())
        );
    }
    Ok(())
}
