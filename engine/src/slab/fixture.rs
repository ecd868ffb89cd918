//! A store for tests: a directory, a key, and imports into it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::BytesMut;
use croupier_protocol::ImportRow;
use tempfile::TempDir;

use super::ingest::{Ingest, IngestLimits, IngestPlan, Ingested};
use super::{KeyFile, Slab, Vault};

pub const STORE_ID: [u8; 16] = *b"store of a test!";
pub const NOW_S: u64 = 1_700_000_000;

pub struct Store {
    dir: TempDir,
    pub vault: Arc<Vault>,
    pub slab_ids: Arc<AtomicU32>,
}

impl Store {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyFile::create(&dir.path().join("store.key"), STORE_ID).unwrap();
        std::fs::create_dir(dir.path().join("slabs")).unwrap();
        Self {
            vault: Arc::new(Vault::new(&key)),
            slab_ids: Arc::new(AtomicU32::new(1)),
            dir,
        }
    }

    pub fn slabs_dir(&self) -> PathBuf {
        self.dir.path().join("slabs")
    }

    pub fn plan(&self) -> IngestPlan {
        IngestPlan {
            dir: self.slabs_dir(),
            store_id: STORE_ID,
            sku: 7,
            pool: 2,
            batch: 3,
            now_unix_ms: NOW_S * 1000,
            limits: IngestLimits {
                workers: 2,
                ..IngestLimits::default()
            },
        }
    }

    /// With at most so many cards a slab.
    pub fn plan_of(&self, slab_cards_max: u32) -> IngestPlan {
        let mut plan = self.plan();
        plan.limits.slab_cards_max = slab_cards_max;
        plan
    }

    pub fn begin(&self, plan: IngestPlan, existing: &[Arc<Slab>]) -> Ingest {
        Ingest::begin(
            self.vault.clone(),
            plan,
            existing.to_vec(),
            self.slab_ids.clone(),
        )
    }

    /// Imports secrets as lines 1, 2, …
    pub fn import<S: AsRef<[u8]>>(
        &self,
        plan: IngestPlan,
        existing: &[Arc<Slab>],
        secrets: &[S],
    ) -> Ingested {
        let mut ingest = self.begin(plan, existing);
        for (line, secret) in (1..).zip(secrets) {
            ingest.push(row(line, secret.as_ref())).unwrap();
        }
        ingest.finish().unwrap()
    }

    /// One slab of these secrets.
    pub fn slab<S: AsRef<[u8]>>(&self, secrets: &[S]) -> Slab {
        let mut done = self.import(self.plan(), &[], secrets);
        assert_eq!(done.slabs.len(), 1);
        done.slabs.remove(0)
    }

    /// The names in the directory of slabs.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.slabs_dir()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// A row with nothing but a secret.
pub fn row(line: u64, secret: &[u8]) -> ImportRow<'_> {
    ImportRow {
        line,
        expires_at_s: 0,
        premium_e4: None,
        cost_e4: None,
        label: b"",
        secret,
    }
}

pub fn secrets_of(slab: &Slab) -> Vec<Vec<u8>> {
    let open = |slot| {
        let mut out = BytesMut::new();
        let length = slab.open_secret(slot, &mut out).unwrap();
        assert_eq!(length, out.len());
        out.to_vec()
    };
    (0..slab.cards()).map(open).collect()
}
