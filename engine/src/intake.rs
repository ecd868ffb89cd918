//! Imports: from rows that arrive to cards that are sold, all or nothing (DESIGN, rule 12).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use croupier_protocol::{
    ImportBegin, ImportEndReply, ImportRow, MaxUses, Name, ReasonCount, Refusal, RejectedLine,
};

use crate::clock::unix_ms;
use crate::delivery::Dock;
use crate::engine::{Engine, Refused, unknown_sku};
use crate::slab::{Ingest, IngestError, IngestPlan, Ingested, IsDelivered};
use crate::state::Pool;
use crate::state::apply::MAIN_POOL;
use crate::state::record::Fact;
use crate::uses::{Imported, check_max_uses, views_of};

/// Imports at once.
pub const IMPORTS_MAX: usize = 8;

/// An import under way. Dropped before it is finished it leaves nothing behind.
pub struct Intake {
    pub id: u64,
    pub sku: u32,
    batch: u32,
    label: String,
    pool: u16,
    pool_name: String,
    max_uses: MaxUses,
    ingest: Ingest,
    dock: Arc<Dock>,
    pub rows: u64,
    _turn: ImportTurn,
}

/// The right to import into a SKU, given back when dropped.
struct ImportTurn {
    engine: Arc<Engine>,
    sku: u32,
}

impl Drop for ImportTurn {
    fn drop(&mut self) {
        self.engine.import_ends(self.sku);
        self.engine.lock(&self.engine.importing).remove(&self.sku);
    }
}

/// As a refusal: nothing has changed.
pub(crate) fn ingest_refusal(error: IngestError) -> Refused {
    tracing::error!(%error, "cards could not be taken in, and nothing is left behind");
    let refusal = match &error {
        IngestError::DiskFull { .. } => Refusal::DiskFull,
        IngestError::Io(fault) if fault.is_disk_full() => Refusal::DiskFull,
        _ => Refusal::StoreFailed,
    };
    Refused::because(refusal, error)
}

impl Intake {
    /// Opens an import.
    pub fn begin(engine: &Arc<Engine>, asked: &ImportBegin) -> Result<Intake, Refused> {
        if let Some(refusal) = engine.cannot_record() {
            return Err(Refused::plain(refusal));
        }
        let name = |text: &str| {
            Name::new(text)
                .map(|name| name.as_str().to_owned())
                .map_err(|error| Refused::because(Refusal::NameInvalid, error))
        };
        check_max_uses(asked.max_uses)?;
        let sku_name = name(&asked.sku)?;
        let label = asked.batch.as_deref().map(name).transpose()?;
        let pool_name = asked
            .pool
            .as_deref()
            .map(name)
            .transpose()?
            .unwrap_or_else(|| MAIN_POOL.into());
        let sku = match engine.state.sku_by_name(&sku_name) {
            Some(sku) => sku,
            None if asked.create_sku => engine.sku_create(&sku_name)?.0,
            None => return Err(unknown_sku(&sku_name)),
        };
        let turn = take_turn(engine, sku)?;
        let batch = engine.batch_ids.fetch_add(1, Ordering::Relaxed);
        let (mut pool, mut pools) = (0, 0);
        let dock = engine.import_begins(sku, || {
            let catalog = engine.state.catalog.load();
            let known = catalog.sku(sku).expect("it was just found").pools.load();
            pools = known.len();
            let is_ours = |known: &Arc<Pool>| known.name == pool_name;
            pool = known.iter().position(is_ours).unwrap_or(pools);
            (pool == pools).then(|| pool_name.clone())
        })?;
        let catalog = engine.state.catalog.load();
        let existing = catalog
            .slabs
            .iter()
            .flatten()
            .filter(|slab| slab.facts.sku == sku && slab.facts.grown.is_none());
        let plan = IngestPlan {
            dir: engine.store.paths.slabs(),
            store_id: engine.store.store_id,
            sku,
            pool: pool as u16,
            batch,
            now_unix_ms: unix_ms(),
            limits: Default::default(),
        };
        let existing = existing.filter_map(|slab| slab.mapped().cloned()).collect();
        let delivered = dock.clone();
        let is_delivered: IsDelivered = Arc::new(move |print| delivered.has(print));
        Ok(Intake {
            id: engine.import_ids.fetch_add(1, Ordering::Relaxed),
            sku,
            batch,
            label: label.unwrap_or_else(|| format!("batch-{batch}")),
            pool: pool as u16,
            pool_name,
            max_uses: asked.max_uses,
            ingest: Ingest::begin(
                engine.store.vault.clone(),
                plan,
                existing,
                engine.slab_ids.clone(),
            )
            .beside(is_delivered),
            dock,
            rows: 0,
            _turn: turn,
        })
    }

    /// Takes a row.
    pub fn push(&mut self, row: ImportRow<'_>) -> Result<(), Refused> {
        self.rows += 1;
        self.ingest.push(row).map_err(ingest_refusal)
    }

    /// Makes all accepted cards sellable, by one durable record.
    pub fn finish(self, engine: &Engine) -> Result<ImportEndReply, Refused> {
        let Intake {
            sku,
            batch,
            label,
            pool,
            pool_name,
            max_uses,
            ingest,
            dock,
            _turn,
            ..
        } = self;
        let ingested = ingest.finish().map_err(ingest_refusal)?;
        let mut reply = ImportEndReply {
            label: label.clone(),
            accepted: ingested.accepted,
            slabs: ingested.slabs.len() as u32,
            counts: ingested
                .counts
                .iter()
                .map(|(reason, &count)| ReasonCount {
                    reason: *reason as u16,
                    count,
                })
                .collect(),
            rejections: ingested
                .rejections
                .iter()
                .map(|&(line, reason)| RejectedLine {
                    line,
                    reason: reason as u16,
                })
                .collect(),
            ..ImportEndReply::default()
        };
        if ingested.accepted == 0 {
            return Ok(reply);
        }
        let imported = Imported { sku, batch, pool };
        let slabs = ingested.slabs.iter();
        let slabs: Vec<_> = slabs
            .map(|slab| (slab.id(), slab.cards(), slab.class_bytes()))
            .collect();
        let ahead = engine.config.uses_ahead;
        let views = views_of(imported, max_uses, &slabs, ahead, || engine.next_slab());
        let views = match views {
            Ok(views) => views,
            Err(refused) => return Err(undo(ingested, refused)),
        };
        let uses = views
            .iter()
            .filter_map(|reused| reused.view.slots())
            .map(u64::from);
        let uses = ingested.accepted + uses.sum::<u64>();
        let mut facts: Vec<Fact<'_>> = ingested
            .slabs
            .iter()
            .map(|slab| Fact::SlabAdded {
                slab: slab.id(),
                sku,
                batch,
                pool,
                cards: slab.cards(),
                class_bytes: slab.class_bytes(),
                header_hash: slab.header_hash(),
                grows: false,
            })
            .collect();
        facts.extend(views.iter().copied().map(Fact::SlabReused));
        facts.push(Fact::BatchSealed {
            batch,
            sku,
            pool,
            cards: uses,
            slabs: (ingested.slabs.len() + views.len()) as u32,
            label: &label,
            pool_name: &pool_name,
        });
        match engine.seal(&dock, &ingested.slabs, &facts) {
            Ok(lsn) => {
                (reply.batch, reply.lsn) = (batch, lsn);
                tracing::info!(batch, %label, sku, cards = reply.accepted, "import sealed");
                Ok(reply)
            }
            Err(refused) => Err(undo(ingested, refused)),
        }
    }
}

/// Removes the slabs of a batch whose record was refused; not when the record may stand in the log after all.
fn undo(ingested: Ingested, refused: Refused) -> Refused {
    if refused.refusal != Refusal::StoreFailed
        && let Err(error) = ingested.discard()
    {
        tracing::warn!(%error, "slabs of a refused import stay until the next start");
    }
    refused
}

fn take_turn(engine: &Arc<Engine>, sku: u32) -> Result<ImportTurn, Refused> {
    let mut importing = engine.lock(&engine.importing);
    if importing.len() >= IMPORTS_MAX || importing.contains(&sku) {
        let why = if importing.contains(&sku) {
            "somebody is importing into this SKU"
        } else {
            "too many imports at once"
        };
        return Err(Refused::because(
            Refusal::TooManyImports,
            format!("{why}: try again when that is done"),
        ));
    }
    importing.insert(sku);
    Ok(ImportTurn {
        engine: engine.clone(),
        sku,
    })
}
