//! Slab files that are not what was written.

use std::fs;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use croupier_engine::slab::layout::{HEADER_BYTES, crc32c};
use croupier_engine::slab::{
    ExpectSlab, Ingest, IngestLimits, IngestPlan, KeyFile, Slab, SlabHeader, Vault,
};
use croupier_protocol::ImportRow;
use tempfile::TempDir;

use crate::checkpoint::STORE;
use crate::edits;

const SECRETS: [&str; 3] = ["AAAA-BBBB-1", "一二三四五", "https://example.com/r?c=3"];

/// A store with one slab, made once a process: its keys are new each time, its layout is not.
struct Store {
    dir: TempDir,
    vault: Arc<Vault>,
    name: String,
    expect: ExpectSlab,
    bytes: Vec<u8>,
}

impl Store {
    fn get() -> &'static Store {
        static STORE_OF_PROCESS: OnceLock<Store> = OnceLock::new();
        STORE_OF_PROCESS.get_or_init(Store::make)
    }

    fn make() -> Store {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = KeyFile::create(&dir.path().join("store.key"), STORE).expect("a key file");
        let vault = Arc::new(Vault::new(&key));
        let plan = IngestPlan {
            dir: dir.path().into(),
            store_id: STORE,
            sku: 1,
            pool: 0,
            batch: 1,
            now_unix_ms: 1_700_000_000_000,
            limits: IngestLimits {
                workers: 1,
                ..IngestLimits::default()
            },
        };
        let mut ingest =
            Ingest::begin(vault.clone(), plan, Vec::new(), Arc::new(AtomicU32::new(1)));
        for (line, secret) in (1..).zip(SECRETS) {
            // All are of the smallest size class, and thus in one slab.
            let row = ImportRow {
                label: "标签".as_bytes(),
                premium_e4: Some(5),
                ..ImportRow::new(line, secret.as_bytes())
            };
            ingest.push(row).expect("a good row");
        }
        let slab = ingest.finish().expect("an import").slabs.remove(0);
        let name = slab
            .path()
            .file_name()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        let expect = ExpectSlab {
            id: slab.id(),
            header_hash: slab.header_hash(),
        };
        let bytes = fs::read(slab.path()).expect("the slab");
        Store {
            dir,
            vault,
            name,
            expect,
            bytes,
        }
    }
}

/// A header as it is, and with a correct checksum; then changes to a good slab, which is opened and read.
pub fn slab(data: &[u8]) {
    header(data);
    let [choice, edits @ ..] = data else { return };
    let store = Store::get();
    let mut bytes = store.bytes.clone();
    edits::apply(&mut bytes, edits);
    if choice % 4 == 1 {
        seal_header(&mut bytes);
    }
    if choice % 4 == 2 {
        bytes.truncate(bytes.len() - usize::from(*choice));
    }
    // A directory of its own: several threads of a test may be here at once.
    let changed = tempfile::tempdir_in(store.dir.path()).expect("a directory");
    let path = changed.path().join(&store.name);
    fs::write(&path, &bytes).expect("room for a slab");
    let whole = bytes == store.bytes;
    if let Ok(slab) = Slab::open(&path, &store.vault, None) {
        read(&slab);
    }
    match Slab::open(&path, &store.vault, Some(store.expect)) {
        Ok(slab) => assert_eq!(
            slab.verify_sections().is_ok(),
            whole,
            "no changed byte is passed over"
        ),
        Err(error) => assert!(!whole && error.to_string().contains(&store.name), "{error}"),
    }
}

/// Whatever a table says, a card is either the one that was imported or an error.
fn read(slab: &Slab) {
    let mut secrets = Vec::new();
    for slot in 0..slab.cards().min(64) {
        let _ = slab.expires_at_s(slot);
        let _ = slab.entry(slot);
        let mut secret = BytesMut::new();
        if slab.open_secret(slot, &mut secret).is_ok() {
            assert!(
                SECRETS
                    .iter()
                    .any(|imported| imported.as_bytes() == &secret[..]),
                "a card nobody imported"
            );
            secrets.push(secret.to_vec());
        }
    }
    for secret in SECRETS {
        let _ = slab.find(Store::get().vault.fingerprint(1, secret.as_bytes()));
    }
    let count = secrets.len();
    secrets.sort();
    secrets.dedup();
    assert_eq!(secrets.len(), count, "one card in two slots");
}

fn header(data: &[u8]) {
    let _ = SlabHeader::parse(data);
    let mut sealed = Store::get().bytes[..HEADER_BYTES].to_vec();
    let over = data.len().min(200);
    sealed[12..12 + over].copy_from_slice(&data[..over]);
    seal_header(&mut sealed);
    if let Ok(header) = SlabHeader::parse(&sealed) {
        assert_eq!(header.to_bytes()[..], sealed, "a header has one form");
    }
}

fn seal_header(bytes: &mut [u8]) {
    let crc = crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

pub(crate) fn sample_header() -> Vec<u8> {
    Store::get().bytes[12..212].to_vec()
}
