//! Deliveries: cards that come one by one, or a few at a time, become stock. The page is docs/cards.md.
//!
//! Whatever is delivered is durable before it is answered: first the slots of a slab that grows, then the record that says
//! they are there. Those that come for a SKU while one is being written are gathered into the next write: who gets hold of
//! the SKU's *dock* takes in all that waits there. It blocks, so it belongs on the cold path.
//!
//! # What is known of a secret
//!
//! A card that is in stock, or was, is rejected as a duplicate, so a delivery that comes twice does no harm. What imports
//! brought is looked up in the sorted fingerprints of their slabs, what was delivered in a set in memory. Both change under
//! the dock's lock alone: an import writes its record under it, behind a last look at what was delivered meanwhile
//! ([`Engine::seal`]). So of two that bring the same card the one whose record comes later sees the other's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use croupier_protocol::{DELIVERY_ROWS_MAX, ImportRow, Name, Refusal, RejectReason};
use zeroize::Zeroizing;

use crate::engine::{Engine, Refused, unknown_sku};
use crate::intake::ingest_refusal;
use crate::slab::header::SlabIdentity;
use crate::slab::ingest::fault_of;
use crate::slab::layout::{CLASS_BYTES, class_index};
use crate::slab::{
    Added, Fingerprint, Grower, IngestError, NewCard, Slab, SlabError, growing_cards_max,
};
use crate::state::apply::MAIN_POOL;
use crate::state::record::Fact;

/// What became of a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Of the last record that says so; 0: no card was new.
    pub lsn: u64,
    /// Cards that are stock now.
    pub accepted: u64,
    /// Line and reason of the other rows, in their order.
    pub rejections: Vec<(u64, RejectReason)>,
}

/// A row that waits to be written. Its secret is wiped when it goes.
struct Row {
    line: u64,
    expires_at_s: u64,
    premium_e4: Option<i64>,
    cost_e4: Option<i64>,
    has_label: bool,
    secret: Zeroizing<Vec<u8>>,
}

impl Row {
    fn of(row: &ImportRow<'_>) -> Row {
        Row {
            line: row.line,
            expires_at_s: row.expires_at_s,
            premium_e4: row.premium_e4,
            cost_e4: row.cost_e4,
            has_label: !row.label.is_empty(),
            secret: Zeroizing::new(row.secret.to_vec()),
        }
    }

    fn as_import(&self) -> ImportRow<'_> {
        ImportRow {
            line: self.line,
            expires_at_s: self.expires_at_s,
            premium_e4: self.premium_e4,
            cost_e4: self.cost_e4,
            label: &[],
            secret: &self.secret,
        }
    }

    /// Why it cannot become a card, whatever there is.
    fn fault(&self, now_s: u64) -> Option<RejectReason> {
        // A delivered card has none: it would be lost.
        let label = self.has_label.then_some(RejectReason::LabelTooLong);
        fault_of(&self.as_import(), now_s).or(label)
    }
}

/// One delivery on its way.
struct Parcel {
    pool: String,
    rows: Vec<Row>,
    /// Row and LSN of the order that it is for.
    first: Option<(u64, u64)>,
    outcome: Mutex<Option<Result<Delivered, Refused>>>,
}

/// Where deliveries of a SKU come in.
#[derive(Default)]
pub struct Dock {
    waiting: Mutex<Vec<Arc<Parcel>>>,
    /// Who has it writes.
    hands: Mutex<Hands>,
    /// Fingerprints of all cards that were delivered, once somebody had to know. For a moment only: an import asks card by card.
    delivered: Mutex<HashSet<[u8; 16]>>,
    /// The import into the SKU, if one is under way. For a moment only: also who goes away without ending it comes here.
    import: Mutex<Option<ImportUnderWay>>,
}

/// All docks, by SKU.
pub(crate) type Docks = Mutex<HashMap<u32, Arc<Dock>>>;

/// What only one has at a time.
#[derive(Default)]
pub(crate) struct Hands {
    /// The delivered cards of slabs that were there at the start are known.
    has_gathered: bool,
    /// Slabs of imports whose fingerprints have been checked.
    prints_checked: HashSet<u32>,
    /// What this process writes, by pool and class.
    growers: HashMap<(u16, u32), Grower>,
}

/// What deliveries and an import of the same SKU have to know of each other.
struct ImportUnderWay {
    /// The pool that it is going to make, if it does.
    new_pool: Option<String>,
    /// Cards that were delivered since it began.
    since: u64,
}

/// What becomes of a row.
enum Fate {
    Rejected(RejectReason),
    /// It is a card of that part.
    Card(usize),
    /// It is the same as a card of that part.
    Same(usize, RejectReason),
}

/// New cards of one pool and class, which become stock at once.
struct Part<'p> {
    pool: &'p str,
    class_bytes: u32,
    cards: Vec<NewCard<'p>>,
}

impl Dock {
    /// Whether a card was delivered.
    pub(crate) fn has(&self, print: &[u8; 16]) -> bool {
        self.known().contains(print)
    }

    fn add(&self, prints: impl Iterator<Item = [u8; 16]>) {
        self.known().extend(prints);
    }

    fn known(&self) -> MutexGuard<'_, HashSet<[u8; 16]>> {
        let known = self.delivered.lock();
        known.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Engine {
    /// The dock of a SKU.
    pub(crate) fn dock(&self, sku: u32) -> Arc<Dock> {
        self.lock(&self.docks).entry(sku).or_default().clone()
    }

    /// Makes cards stock of a SKU and pool (`None`: `main`), each on its own: of those that cannot be, or are known already,
    /// the reply tells why. Blocks until all are durable.
    ///
    /// # Errors
    /// The refusal. Of cards of different lengths some may be stock then, and are rejected as duplicates when the same
    /// delivery comes again.
    pub fn deliver(
        &self,
        sku: &str,
        pool: Option<&str>,
        rows: &[ImportRow<'_>],
    ) -> Result<Delivered, Refused> {
        self.deliver_for(sku, pool, rows, None)
    }

    /// As [`deliver`](Self::deliver); an order that waits, by its row and LSN, is looked at before its line.
    pub(crate) fn deliver_for(
        &self,
        sku: &str,
        pool: Option<&str>,
        rows: &[ImportRow<'_>],
        first: Option<(u64, u64)>,
    ) -> Result<Delivered, Refused> {
        if let Some(refusal) = self.cannot_record() {
            return Err(Refused::plain(refusal));
        }
        if rows.len() > DELIVERY_ROWS_MAX {
            let text = format!("a delivery has at most {DELIVERY_ROWS_MAX} rows");
            return Err(Refused::because(Refusal::DeliveryInvalid, text));
        }
        let pool = Name::new(pool.unwrap_or(MAIN_POOL))
            .map_err(|error| Refused::because(Refusal::NameInvalid, error))?;
        let number = self.state.sku_by_name(sku);
        let number = number.ok_or_else(|| unknown_sku(sku))?;
        let dock = self.dock(number);
        let parcel = Arc::new(Parcel {
            pool: pool.as_str().into(),
            rows: rows.iter().map(Row::of).collect(),
            first,
            outcome: Mutex::default(),
        });
        self.lock(&dock.waiting).push(parcel.clone());
        let mut hands = self.lock(&dock.hands);
        // Somebody may have taken it in meanwhile.
        if self.lock(&parcel.outcome).is_none() {
            let parcels = std::mem::take(&mut *self.lock(&dock.waiting));
            self.take_in(&dock, &mut hands, number, &parcels);
        }
        drop(hands);
        let outcome = self.lock(&parcel.outcome).take();
        outcome.expect("whoever takes parcels in settles them")
    }

    /// Takes in what waits, and settles each.
    fn take_in(&self, dock: &Dock, hands: &mut Hands, sku: u32, parcels: &[Arc<Parcel>]) {
        let settled = self.sort(dock, hands, sku, parcels).map(|(parts, fates)| {
            // Before the stock calls the desk.
            for (row, lsn) in parcels.iter().filter_map(|parcel| parcel.first) {
                self.state.desk.prefer(sku, row, lsn);
            }
            let written: Vec<Result<u64, Refused>> = parts
                .iter()
                .map(|part| self.write_part(dock, hands, sku, part))
                .collect();
            (fates, written)
        });
        for (nth, parcel) in parcels.iter().enumerate() {
            let outcome = match &settled {
                Ok((fates, written)) => outcome_of(parcel, &fates[nth], written),
                Err(refused) => Err(again(refused)),
            };
            *self.lock(&parcel.outcome) = Some(outcome);
        }
    }

    /// Says of each row what it is, and puts the new cards together by pool and class.
    fn sort<'p>(
        &self,
        dock: &Dock,
        hands: &mut Hands,
        sku: u32,
        parcels: &'p [Arc<Parcel>],
    ) -> Result<(Vec<Part<'p>>, Vec<Vec<Fate>>), Refused> {
        self.gather(dock, hands, sku)?;
        let now_s = self.store.disk.unix_ms() / 1000;
        let fingerprinter = self.store.vault.fingerprinter(sku);
        let mut parts: Vec<Part<'p>> = Vec::new();
        let mut by_kind: BTreeMap<(&str, u32), usize> = BTreeMap::new();
        // The parcel that brought it, and its part.
        let mut new: HashMap<[u8; 16], (usize, usize)> = HashMap::new();
        let mut fates = Vec::with_capacity(parcels.len());
        for (nth, parcel) in parcels.iter().enumerate() {
            let mut of_parcel = Vec::with_capacity(parcel.rows.len());
            for row in &parcel.rows {
                if let Some(reason) = row.fault(now_s) {
                    of_parcel.push(Fate::Rejected(reason));
                    continue;
                }
                let class = class_index(row.secret.len()).expect("its length was checked");
                let class_bytes = CLASS_BYTES[class];
                let print = fingerprinter.of(&row.secret);
                if let Some(&(by, part)) = new.get(&print.0) {
                    let reason = match by == nth {
                        true => RejectReason::DuplicateInFile,
                        false => RejectReason::DuplicateInStock,
                    };
                    of_parcel.push(Fate::Same(part, reason));
                } else if dock.has(&print.0) || self.is_imported(hands, sku, class_bytes, print)? {
                    of_parcel.push(Fate::Rejected(RejectReason::DuplicateInStock));
                } else {
                    let kind = (parcel.pool.as_str(), class_bytes);
                    let part = *by_kind.entry(kind).or_insert_with(|| {
                        parts.push(Part {
                            pool: kind.0,
                            class_bytes,
                            cards: Vec::new(),
                        });
                        parts.len() - 1
                    });
                    new.insert(print.0, (nth, part));
                    let row = row.as_import();
                    parts[part].cards.push(NewCard { print, row });
                    of_parcel.push(Fate::Card(part));
                }
            }
            fates.push(of_parcel);
        }
        Ok((parts, fates))
    }

    /// Learns what was delivered before this process began.
    fn gather(&self, dock: &Dock, hands: &mut Hands, sku: u32) -> Result<(), Refused> {
        if hands.has_gathered {
            return Ok(());
        }
        let catalog = self.state.catalog.load_full();
        let slabs = catalog.slabs.iter().flatten();
        for slab in slabs.filter(|slab| slab.facts.sku == sku) {
            let (Some(mapped), Some(grown)) = (slab.mapped(), slab.grown()) else {
                continue;
            };
            mapped.verify_grown_prints(&grown).map_err(damaged)?;
            let prints = mapped.fingerprints().iter();
            dock.add(prints.map(|entry| entry.fingerprint));
        }
        hands.has_gathered = true;
        Ok(())
    }

    /// Whether an import brought a card.
    fn is_imported(
        &self,
        hands: &mut Hands,
        sku: u32,
        class_bytes: u32,
        print: Fingerprint,
    ) -> Result<bool, Refused> {
        let catalog = self.state.catalog.load();
        let slabs = catalog.slabs.iter().flatten().filter_map(|slab| {
            let ours = slab.facts.sku == sku && slab.facts.class_bytes == class_bytes;
            slab.mapped().filter(|mapped| ours && !mapped.grows())
        });
        for slab in slabs {
            // A damaged fingerprint would let in what is there.
            if hands.prints_checked.insert(slab.id())
                && let Err(error) = slab.verify_prints()
            {
                hands.prints_checked.remove(&slab.id());
                return Err(damaged(error));
            }
            if slab.find(print).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes all cards of a part stock. Tells the LSN of the last record.
    fn write_part(
        &self,
        dock: &Dock,
        hands: &mut Hands,
        sku: u32,
        part: &Part<'_>,
    ) -> Result<u64, Refused> {
        let pool = self.pool_of(dock, sku, part.pool)?;
        let most = self.growing_room(part.class_bytes) as usize;
        let mut lsn = 0;
        // As many as make one record of one slab, or two: they are stock all at once.
        for cards in part.cards.chunks(most) {
            lsn = self.write_cards(hands, sku, (pool, part.pool), part.class_bytes, cards)?;
            dock.add(cards.iter().map(|card| card.print.0));
            if let Some(import) = &mut *self.lock(&dock.import) {
                import.since += cards.len() as u64;
            }
        }
        Ok(lsn)
    }

    /// The number of a pool, which may be the next one.
    fn pool_of(&self, dock: &Dock, sku: u32, name: &str) -> Result<u16, Refused> {
        let catalog = self.state.catalog.load();
        let sku = catalog.sku(sku).expect("it was just found");
        let pools = sku.pools.load();
        if let Some(at) = pools.iter().position(|pool| pool.name == name) {
            return Ok(at as u16);
        }
        let import = self.lock(&dock.import);
        let new_pool = import
            .as_ref()
            .and_then(|import| import.new_pool.as_deref());
        match new_pool {
            // It has that number already.
            Some(other) if other != name => {
                let text = format!(
                    "an import is just making pool {other:?} of this SKU: deliver into pool {name:?}, which is new as well, when that is done"
                );
                Err(Refused::because(Refusal::TooManyImports, text))
            }
            _ => Ok(pools.len() as u16),
        }
    }

    fn write_cards(
        &self,
        hands: &mut Hands,
        sku: u32,
        (pool, pool_name): (u16, &str),
        class_bytes: u32,
        cards: &[NewCard<'_>],
    ) -> Result<u64, Refused> {
        let key = (pool, class_bytes);
        // Back only if all goes well: see `slab::growing`.
        let last = hands.growers.remove(&key);
        let mut slabs: Vec<Grower> = last.into_iter().filter(|slab| slab.room() > 0).collect();
        let old = slabs.len();
        let added = self.write_slots(sku, pool, class_bytes, &mut slabs, cards);
        let added = added.map_err(|error| {
            undo(&slabs[old..]);
            ingest_refusal(error)
        })?;
        let labels: Vec<String> = slabs.iter().map(label_of).collect();
        let mut facts = Vec::with_capacity(7);
        for (nth, (slab, added)) in slabs.iter().zip(added).enumerate() {
            if nth >= old {
                facts.extend(made(slab, &labels[nth], pool_name));
            }
            facts.push(Fact::CardsAdded(added));
        }
        self.log.tend();
        let lsn = self.record(&facts).inspect_err(|refused| {
            // Of a record that may stand after all the file is needed.
            if refused.refusal != Refusal::StoreFailed {
                undo(&slabs[old..]);
            }
        })?;
        if let Some(last) = slabs.pop() {
            hands.growers.insert(key, last);
        }
        Ok(lsn)
    }

    /// Writes cards into the slabs, of which the last has room, and into new ones behind it.
    fn write_slots(
        &self,
        sku: u32,
        pool: u16,
        class_bytes: u32,
        slabs: &mut Vec<Grower>,
        mut cards: &[NewCard<'_>],
    ) -> Result<Vec<Added>, IngestError> {
        let mut added = Vec::new();
        while !cards.is_empty() {
            if slabs.last().is_none_or(|slab| slab.room() == 0) {
                slabs.push(self.new_grower(sku, pool, class_bytes)?);
            }
            let slab = slabs.last_mut().expect("there is one");
            let (now, later) = cards.split_at(cards.len().min(slab.room() as usize));
            added.push(slab.append(now)?);
            cards = later;
        }
        Ok(added)
    }

    /// How many slots a new slab gets.
    fn growing_room(&self, class_bytes: u32) -> u32 {
        growing_cards_max(class_bytes).min(self.growing_cards_max)
    }

    fn new_grower(&self, sku: u32, pool: u16, class_bytes: u32) -> Result<Grower, IngestError> {
        // Relaxed: only uniqueness matters.
        let batch = self
            .batch_ids
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let identity = SlabIdentity {
            store_id: self.store.store_id,
            slab: self.next_slab(),
            sku,
            batch,
            pool,
            created_unix_ms: self.store.disk.unix_ms(),
        };
        let (store, room) = (&self.store, self.growing_room(class_bytes));
        let dir = store.paths.slabs();
        Grower::create(
            &store.disk,
            &dir,
            &store.vault,
            identity,
            (room, class_bytes),
        )
    }
}

fn label_of(slab: &Grower) -> String {
    format!("deliveries-{}", slab.identity().batch)
}

/// The facts that make an empty slab known: a batch of its own.
fn made<'f>(slab: &Grower, label: &'f str, pool_name: &'f str) -> [Fact<'f>; 2] {
    let identity = slab.identity();
    let (sku, batch, pool) = (identity.sku, identity.batch, identity.pool);
    let added = Fact::SlabAdded {
        slab: identity.slab,
        sku,
        batch,
        pool,
        cards: slab.cards(),
        class_bytes: slab.class_bytes(),
        header_hash: slab.header_hash(),
        grows: true,
    };
    let sealed = Fact::BatchSealed {
        batch,
        sku,
        pool,
        cards: 0,
        slabs: 1,
        label,
        pool_name,
    };
    [added, sealed]
}

/// Removes slabs that no record names, as well as it can: the next start removes what stays.
fn undo(slabs: &[Grower]) {
    for slab in slabs {
        slab.remove();
    }
}

fn damaged(error: SlabError) -> Refused {
    ingest_refusal(IngestError::Slab(error))
}

fn again(refused: &Refused) -> Refused {
    Refused {
        refusal: refused.refusal,
        text: refused.text.clone(),
    }
}

/// The error is that of the first part that one of its rows is in.
fn outcome_of(
    parcel: &Parcel,
    fates: &[Fate],
    written: &[Result<u64, Refused>],
) -> Result<Delivered, Refused> {
    let mut delivered = Delivered::default();
    for (row, fate) in parcel.rows.iter().zip(fates) {
        let (part, reason) = match fate {
            Fate::Rejected(reason) => (None, Some(*reason)),
            Fate::Card(part) => (Some(*part), None),
            Fate::Same(part, reason) => (Some(*part), Some(*reason)),
        };
        if let Some(part) = part {
            let lsn = written[part].as_ref().map_err(again)?;
            delivered.lsn = delivered.lsn.max(*lsn);
        }
        match reason {
            Some(reason) => delivered.rejections.push((row.line, reason)),
            None => delivered.accepted += 1,
        }
    }
    Ok(delivered)
}

impl Engine {
    /// An import into a SKU begins: from here on it is told what is delivered. `new_pool`: the pool that it is going to make.
    pub(crate) fn import_begins(
        &self,
        sku: u32,
        new_pool: impl FnOnce() -> Option<String>,
    ) -> Result<Arc<Dock>, Refused> {
        let dock = self.dock(sku);
        let mut hands = self.lock(&dock.hands);
        self.gather(&dock, &mut hands, sku)?;
        *self.lock(&dock.import) = Some(ImportUnderWay {
            new_pool: new_pool(),
            since: 0,
        });
        drop(hands);
        Ok(dock)
    }

    /// The import into a SKU is over.
    pub(crate) fn import_ends(&self, sku: u32) {
        let dock = self.dock(sku);
        *self.lock(&dock.import) = None;
    }

    /// Records an import, unless one of its cards was delivered since it looked. Nobody delivers meanwhile.
    pub(crate) fn seal(
        &self,
        dock: &Dock,
        slabs: &[Slab],
        facts: &[Fact<'_>],
    ) -> Result<u64, Refused> {
        let _nobody_delivers = self.lock(&dock.hands);
        let import = self.lock(&dock.import).take();
        let delivered = import.map_or(0, |import| import.since);
        // What was delivered before has been rejected already.
        let cards = match delivered {
            0 => 0,
            _ => {
                let prints = slabs.iter().flat_map(|slab| slab.fingerprints());
                prints.filter(|entry| dock.has(&entry.fingerprint)).count()
            }
        };
        match cards {
            0 => self.record(facts),
            cards => {
                let text = format!(
                    "{cards} of its cards were delivered while it was under way: import again, and they are rejected as duplicates"
                );
                Err(Refused::because(Refusal::DeliveredMeanwhile, text))
            }
        }
    }
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;
