//! The engine: one open store with everything that serves it, and the deeds of the cold path.
//!
//! Cold deeds (SKUs, imports, routes, reports) block; they run on threads of their own, never on a dealer's turn. Each
//! that changes something appends a record, waits until it is durable, and only then applies it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use croupier_protocol::{HolderCap, Name, Refusal, ServerInfoReply, StockRow};

use crate::canary::Watched;
use crate::channels::fleet::Fleet;
use crate::channels::{self, Channels};
use crate::checkpoint;
use crate::config::{Config, Sync};
use crate::delivery::Docks;
use crate::disk::SyncMethod;
use crate::error::EngineError;
use crate::expiry::AllUpcoming;
use crate::finds::Owners;
use crate::limits::GROWING_SLAB_CARDS_MAX;
use crate::recovery::{self, Report};
use crate::route::{DEFAULT_ROUTES, Load, RouteCell, RouteTable};
use crate::routing::Followed;
use crate::state::index::{IndexView, Spread};
use crate::state::record::{Cap, Fact, Record, SkuSet, Stamp};
use crate::state::{Digest, Hand, SlabSource, State};
use crate::store::Store;
use crate::tables::Loaded;
use crate::uses::Looked;
use crate::wal::log::{APPEND_UNITS_MAX, Drive, Subscriber};
use crate::wal::ring::{UNIT_BYTES, UNIT_WORDS};
use crate::wal::{Log, LogOptions};

/// Most SKUs of a store.
pub const SKUS_MAX: u32 = 1 << 20;
/// How long a cold deed waits for room in the ring before it says `Busy`.
pub(crate) const ROOM_WAIT: Duration = Duration::from_secs(5);

/// A refusal of a cold deed, with a sentence for people.
#[derive(Debug)]
pub struct Refused {
    pub refusal: Refusal,
    pub text: String,
}

impl Refused {
    /// A refusal whose own sentence is enough.
    pub fn plain(refusal: Refusal) -> Refused {
        Refused {
            refusal,
            text: refusal.to_string(),
        }
    }

    /// A refusal with more to say.
    pub fn because(refusal: Refusal, text: impl std::fmt::Display) -> Refused {
        Refused {
            refusal,
            text: text.to_string(),
        }
    }
}

/// One open store.
pub struct Engine {
    pub config: Config,
    pub store: Store,
    pub state: Arc<State>,
    pub log: Log,
    pub routes: RouteCell,
    pub cores: u32,
    started: Instant,
    /// New orders are refused: the server is about to stop.
    pub draining: AtomicBool,
    /// The number of the next slab.
    pub slab_ids: Arc<AtomicU32>,
    /// The number of the next batch.
    pub batch_ids: AtomicU32,
    pub(crate) import_ids: AtomicU64,
    /// SKUs into which somebody imports: one import a SKU at a time, so that duplicates are found.
    pub(crate) importing: Mutex<HashSet<u32>>,
    /// One cold deed at a time; the view is for those that deal.
    pub(crate) cold: Mutex<IndexView>,
    folding: Mutex<()>,
    /// One move at a time, so that a card stays what the move found it to be.
    pub(crate) moving: Mutex<()>,
    /// Which order has which card, gathered when somebody asks.
    pub(crate) owners: Mutex<Owners>,
    /// Which cards expire next, for the sweep.
    pub(crate) upcoming: Mutex<AllUpcoming>,
    /// Which SKUs had uses enough.
    pub(crate) looked: Mutex<Looked>,
    pub(crate) load: Load,
    /// The canary under way, and what was seen of it.
    pub(crate) canary: Mutex<Option<Watched>>,
    pub(crate) followed: Mutex<Followed>,
    /// Channels that are no local stock.
    pub channels: Channels,
    /// Where deliveries come in.
    pub(crate) docks: Docks,
    /// Most cards of a slab that grows.
    pub(crate) growing_cards_max: u32,
}

/// What an engine stands on, besides its store.
pub struct Ground {
    /// Where the bodies of slabs come from.
    pub slabs: Box<dyn SlabSource>,
    /// How the order index spreads ids.
    pub spread: Spread,
    /// Who moves the log on.
    pub drive: Drive,
    /// Most units of one append to the log.
    pub append_units_max: u64,
    /// Most cards of a slab that grows.
    pub growing_cards_max: u32,
    /// Woken when what they wait for is durable.
    pub subscribers: Vec<Arc<Subscriber>>,
}

/// Facts that are in the log and not yet known to be durable. They count once [`Engine::finish`] has applied them.
#[must_use = "facts that are never finished are in the log and not in the state"]
pub struct Begun<'e, 'f> {
    facts: &'f [Fact<'f>],
    stamp: Stamp,
    /// The LSN of each fact.
    lsns: Vec<u64>,
    /// One cold deed at a time, so that the state sees them in the log's order.
    _turn: MutexGuard<'e, IndexView>,
}

impl Begun<'_, '_> {
    /// LSN of the last fact.
    pub(crate) fn last(&self) -> u64 {
        self.lsns.last().copied().unwrap_or_default()
    }
}

impl Engine {
    /// Opens, recovers and tidies the store of `config` and begins a new epoch in its log.
    pub fn open(
        config: Config,
        cores: u32,
        subscribers: Vec<Arc<Subscriber>>,
    ) -> Result<(Engine, Report), EngineError> {
        let store = Store::open(&config.data, config.key_file.as_deref())?;
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        let ground = Ground {
            slabs: store.mapped_slabs(),
            spread: Spread::seeded([high, low]),
            drive: Drive::Threads,
            append_units_max: APPEND_UNITS_MAX,
            growing_cards_max: GROWING_SLAB_CARDS_MAX,
            subscribers,
        };
        Engine::start(config, store, cores, ground)
    }

    /// As [`open`](Self::open), for a store that is open already.
    pub fn start(
        config: Config,
        store: Store,
        cores: u32,
        ground: Ground,
    ) -> Result<(Engine, Report), EngineError> {
        let recovered = recovery::recover(&store, ground.slabs, ground.spread)?;
        for deed in recovery::tidy(&store, &recovered)? {
            tracing::warn!("{deed}");
        }
        let (state, tail, report) = (recovered.state, recovered.tail, recovered.report);
        let epoch = state.ledger().epoch.max(tail.end.epoch) + 1;
        let options = LogOptions {
            store_id: store.store_id,
            dir: store.paths.wal(),
            segment_bytes: segment_bytes(&store, &tail)?,
            ring_bytes: 0,
            epoch,
            sync: match config.sync {
                _ if config.unsafe_no_sync => Some(SyncMethod::UnsafeNone),
                Sync::Auto => None,
                Sync::Direct => Some(SyncMethod::Direct),
                Sync::Fdatasync => Some(SyncMethod::Fdatasync),
            },
            writers: u64::from(cores) + 1,
            append_units_max: ground.append_units_max,
            drive: ground.drive,
        };
        let options = LogOptions {
            ring_bytes: ring_bytes(&config, &options)?,
            ..options
        };
        let log = Log::open(
            store.disk.clone(),
            options,
            tail.end,
            tail.last_segment,
            ground.subscribers,
        )?;
        let (slab_max, batch_max, routes, canaries) = {
            let ledger = state.ledger();
            let (routes, canaries) = (ledger.routes.clone(), ledger.canaries.clone());
            (ledger.slab_max, ledger.batch_max, routes, canaries)
        };
        let text = routes
            .in_force()
            .map_or(DEFAULT_ROUTES, |table| &table.toml);
        let parse = |version, text: &str| {
            RouteTable::parse(version, text).map_err(|error| {
                let what = format!("the recorded route table: {error}");
                EngineError::damage(&store.paths.current(), 0, what)
            })
        };
        let table = parse(routes.version(), text)?;
        let canary = canaries.under_way();
        let canary = canary.map(|canary| parse(canary.version, &canary.toml));
        let canary = canary.transpose()?;
        state.begin_arranging();
        let known = channels::status::known(&state);
        let engine = Engine {
            cores,
            started: Instant::now(),
            draining: AtomicBool::new(false),
            slab_ids: Arc::new(AtomicU32::new(slab_max + 1)),
            batch_ids: AtomicU32::new(batch_max + 1),
            import_ids: AtomicU64::new(1),
            importing: Mutex::default(),
            cold: Mutex::new(IndexView::new(&state.index)),
            folding: Mutex::default(),
            moving: Mutex::default(),
            owners: Mutex::default(),
            upcoming: Mutex::default(),
            looked: Mutex::default(),
            load: Load::default(),
            canary: Mutex::default(),
            followed: Mutex::default(),
            channels: Channels::new(Fleet::restored(&known), &table),
            docks: Docks::default(),
            growing_cards_max: ground.growing_cards_max,
            routes: RouteCell::new(table),
            config,
            store,
            state: Arc::new(state),
            log,
        };
        engine.put_on_trial(canary.map(Arc::new));
        let started = Fact::Started {
            epoch,
            version: env!("CARGO_PKG_VERSION"),
        };
        match engine.record(&[started]) {
            Ok(_) => {}
            Err(refused) if refused.refusal == Refusal::DiskFull => {
                tracing::error!("{}", refused.text);
            }
            Err(refused) => return Err(EngineError::WriterFailed(refused.text)),
        }
        Ok((engine, report))
    }

    /// Appends facts, waits until they are durable, applies them. Returns the LSN of the last.
    pub fn record(&self, facts: &[Fact<'_>]) -> Result<u64, Refused> {
        let begun = self.begin(facts)?;
        self.finish(begun)
    }

    /// Appends a record of an order that a cold deed has claimed, to be applied right away, as dealers do. Returns its LSN. The
    /// caller has the turn of cold deeds.
    pub(crate) fn append_fact(&self, fact: Fact<'_>) -> Result<u64, Refused> {
        let stamp = self.stamp();
        let mut words = Vec::new();
        Record { stamp, fact }.put(&mut words);
        self.append(&words)
    }

    /// A number that no slab has.
    pub(crate) fn next_slab(&self) -> u32 {
        // Relaxed: only uniqueness matters.
        self.slab_ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            unix_ms: self.store.disk.unix_ms(),
            route_table: self.routes.load().version(),
        }
    }

    /// Appends facts, as one batch if they fit one. Other cold deeds wait until these are finished.
    pub fn begin<'f>(&self, facts: &'f [Fact<'f>]) -> Result<Begun<'_, 'f>, Refused> {
        let turn = self.lock(&self.cold);
        let stamp = self.stamp();
        let mut words = Vec::new();
        // Where in its batch each record begins, in units.
        let mut in_batch = Vec::new();
        let mut lsns = Vec::with_capacity(facts.len());
        for fact in facts {
            let before = words.len();
            Record { stamp, fact: *fact }.put(&mut words);
            if (words.len() / UNIT_WORDS) as u64 > self.log.append_units_max() {
                let rest = words.split_off(before);
                let first = self.append(&words)?;
                lsns.extend(in_batch.drain(..).map(|at| first + at));
                words = rest;
                in_batch.push(0);
            } else {
                in_batch.push((before / UNIT_WORDS) as u64);
            }
        }
        let first = self.append(&words)?;
        lsns.extend(in_batch.drain(..).map(|at| first + at));
        Ok(Begun {
            facts,
            stamp,
            lsns,
            _turn: turn,
        })
    }

    /// Waits until begun facts are durable and applies them. Returns the LSN of the last.
    pub fn finish(&self, begun: Begun<'_, '_>) -> Result<u64, Refused> {
        let last = *begun.lsns.last().expect("there are facts");
        self.log
            .wait_durable(last)
            .map_err(|error| Refused::because(Refusal::StoreFailed, error))?;
        let mut hand = Hand::new(&self.state);
        for (fact, &lsn) in begun.facts.iter().zip(&begun.lsns) {
            if let Fact::CardsMoved(moved) = fact {
                // Whoever began it has looked, and taken what is to be taken.
                self.state.apply_moved(moved);
                continue;
            }
            let record = Record {
                stamp: begun.stamp,
                fact: *fact,
            };
            if let Err(unfit) = self.state.apply(lsn, &record, &mut hand) {
                // It is durable, so it stands; a server that cannot follow its log must not go on beside it.
                self.log
                    .fail(&format!("a durable record cannot be applied: {unfit}"));
                return Err(Refused::because(Refusal::StoreFailed, unfit));
            }
        }
        Ok(last)
    }

    /// Appends records of a cold deed, one append; waits for room. The caller has the turn of cold deeds.
    pub(crate) fn append(&self, words: &[u64]) -> Result<u64, Refused> {
        let begun = Instant::now();
        loop {
            if let Some(why) = self.log.failure() {
                return Err(Refused::because(Refusal::StoreFailed, why));
            }
            if self.log.is_full() {
                return Err(Refused::plain(Refusal::DiskFull));
            }
            if self.log.has_room()
                && let Some(lsn) = self.log.append(words)
            {
                return Ok(lsn);
            }
            if begun.elapsed() > ROOM_WAIT || !self.log.wait_for_progress() {
                return Err(Refused::plain(Refusal::Busy));
            }
        }
    }

    /// Makes a SKU; its number and the record's LSN.
    pub fn sku_create(&self, name: &str) -> Result<(u32, u64), Refused> {
        let name =
            Name::new(name).map_err(|error| Refused::because(Refusal::NameInvalid, error))?;
        let _one_at_a_time = self.lock(&self.importing);
        if let Some(sku) = self.state.sku_by_name(name.as_str()) {
            return Err(Refused::because(
                Refusal::SkuExists,
                format!("SKU {:?} exists; its number is {sku}", name.as_str()),
            ));
        }
        let sku = self.state.catalog.load().skus.len() as u32 + 1;
        if sku > SKUS_MAX {
            return Err(Refused::plain(Refusal::TooManySkus));
        }
        self.log.tend();
        let lsn = self.record(&[Fact::SkuCreated {
            sku,
            name: name.as_str(),
        }])?;
        Ok((sku, lsn))
    }

    /// How a SKU is sold.
    pub fn sku_settings(&self, name: &str) -> Result<SkuSet, Refused> {
        let sku = self.state.sku_by_name(name);
        let sku = sku.ok_or_else(|| unknown_sku(name))?;
        let catalog = self.state.catalog.load();
        let settings = catalog.sku(sku).map(|sku| sku.settings());
        settings.ok_or_else(|| unknown_sku(name))
    }

    /// Says how a SKU is sold from now on: the number of a deal order, a share in per cent, and what a holder may get. What is
    /// `None` stays. Tells the record's LSN.
    pub fn sku_set(
        &self,
        name: &str,
        deal_order: Option<u16>,
        hold_share_max_percent: Option<u16>,
        cap: HolderCap,
    ) -> Result<(SkuSet, u64), Refused> {
        let _one_at_a_time = self.lock(&self.importing);
        let was = self.sku_settings(name)?;
        let set = SkuSet::of_numbers(
            was.sku,
            deal_order.unwrap_or(was.deal_order.as_u16()),
            hold_share_max_percent.unwrap_or(was.hold_share_max_percent.into()),
            Cap {
                cards_max: cap.cards_max.unwrap_or(was.cap.cards_max),
                window_ms: cap.window_ms.unwrap_or(was.cap.window_ms),
            },
        );
        let set = set.map_err(|_| Refused::plain(Refusal::SettingInvalid))?;
        self.log.tend();
        let lsn = self.record(&[Fact::SkuSet(set)])?;
        // Orders that wait may hold more now.
        self.state.call_desk();
        Ok((set, lsn))
    }

    /// Numbers and names of all SKUs.
    pub fn sku_list(&self) -> Vec<(u32, String)> {
        self.state
            .catalog
            .load()
            .skus
            .iter()
            .map(|sku| (sku.sku, sku.name.clone()))
            .collect()
    }

    /// Counts of one SKU or of all.
    pub fn stock(&self, name: Option<&str>) -> Result<Vec<StockRow>, Refused> {
        let catalog = self.state.catalog.load();
        let only = match name {
            None => None,
            Some(name) => Some(
                self.state
                    .sku_by_name(name)
                    .ok_or_else(|| unknown_sku(name))?,
            ),
        };
        let rows = catalog
            .skus
            .iter()
            .filter(|sku| only.is_none_or(|only| sku.sku == only))
            .map(|sku| sku.row());
        Ok(rows.collect())
    }

    /// Puts another route table in force. `expect` is the version that must be in force before, if it matters.
    pub fn routes_load(&self, text: &str, expect: Option<u32>) -> Result<Loaded, Refused> {
        let _one_at_a_time = self.lock(&self.importing);
        self.expect_routes(expect)?;
        self.put_in_force(text)
    }

    /// The rest of a load. The caller has the turn of those who load tables.
    pub(crate) fn put_in_force(&self, text: &str) -> Result<Loaded, Refused> {
        self.refuse_beside_canary()?;
        let version = self.next_table();
        let table = RouteTable::parse(version, text)
            .map_err(|error| Refused::because(Refusal::RoutesInvalid, error))?;
        let warnings = table.warnings(Some(&self.state.catalog.load()));
        // A full disk is seen before the record, and not while it is waited for.
        self.log.tend();
        let lsn = self.record(&[Fact::RoutesLoaded {
            version,
            toml: text,
        }])?;
        // At once, and not only when the load is measured again.
        table.marks().begin(self.load.now().smoothed);
        self.routes.swap(Arc::new(table));
        // Orders that wait may have other pools now.
        self.state.call_desk();
        tracing::info!(version, "another route table is in force");
        Ok((version, lsn, warnings))
    }

    /// Reads the route table of the configuration and puts it in force unless it is already. A canary that was under way before
    /// goes on: `at_start` the table is left out then, else that is an error.
    pub fn reload_routes(&self, at_start: bool) -> Result<Option<u32>, EngineError> {
        let Some(path) = &self.config.routes else {
            return Err(EngineError::Config("no route table is configured: start with --routes FILE, or use `croupier routes load`".into()));
        };
        let text = std::fs::read_to_string(path).map_err(|source| EngineError::Io {
            path: path.clone(),
            op: "read",
            source,
        })?;
        if text == self.routes.load().text() {
            return Ok(None);
        }
        if let (true, Err(refused)) = (at_start, self.refuse_beside_canary()) {
            tracing::warn!(path = %path.display(), "the route table is not read: {}", refused.text);
            return Ok(None);
        }
        match self.routes_load(&text, None) {
            Ok((version, _, warnings)) => {
                for warning in warnings {
                    tracing::warn!(path = %path.display(), "{warning}");
                }
                Ok(Some(version))
            }
            Err(refused) => Err(EngineError::Routes {
                path: path.clone(),
                what: refused.text,
            }),
        }
    }

    /// What server this is.
    pub fn info(&self) -> ServerInfoReply {
        ServerInfoReply {
            version: env!("CARGO_PKG_VERSION").into(),
            store_id: self.store.store_id,
            epoch: self.log.epoch(),
            cores: self.cores,
            durable_lsn: self.log.durable() - 1,
            uptime_ms: self.started.elapsed().as_millis() as u64,
            sync: self.log.sync_method().name().into(),
            routes: self.routes.load().version(),
            orders: self.state.index.len_hint(),
        }
    }

    /// Why nothing new can be dealt just now.
    pub fn cannot_record(&self) -> Option<Refusal> {
        if self.log.failure().is_some() {
            Some(Refusal::StoreFailed)
        } else if self.draining.load(Ordering::Relaxed) {
            Some(Refusal::ShuttingDown)
        } else if self.log.is_full() {
            Some(Refusal::DiskFull)
        } else {
            None
        }
    }

    /// Folds sealed segments into a checkpoint; `all`: the whole log, which nobody writes any more.
    pub fn fold(&self, all: bool) -> Result<Option<checkpoint::Folded>, EngineError> {
        let _one_at_a_time = self.lock(&self.folding);
        let stop = if all {
            u64::MAX
        } else {
            self.log.segment_in_use()
        };
        checkpoint::fold(
            &self.store.disk,
            &self.store.paths,
            self.store.store_id,
            stop,
        )
    }

    /// The oldest segment of the log that has not been folded away; the one in use if that cannot be told.
    pub fn first_segment(&self) -> u64 {
        let segments = crate::wal::reader::list_segments(&self.store.disk, &self.store.paths.wal());
        let first = segments.ok().and_then(|all| all.first().copied());
        first.unwrap_or_else(|| self.log.segment_in_use())
    }

    /// The digest of the live state. Only when no order is in flight.
    pub fn digest(&self) -> Digest {
        self.state.digest()
    }

    pub(crate) fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        mutex
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(crate) fn unknown_sku(name: &str) -> Refused {
    Refused::because(
        Refusal::UnknownSku,
        format!(
            "no SKU is called {name:?}: `croupier sku create {name}` makes it, `import --create-sku` too"
        ),
    )
}

/// The size that the store's segments have; it is chosen when the store is made.
fn segment_bytes(store: &Store, tail: &crate::wal::Tail) -> Result<u64, EngineError> {
    let path = crate::wal::segments::segment_path(&store.paths.wal(), tail.end.seq);
    let file = store
        .disk
        .open_read(&path)
        .map_err(|source| EngineError::Io {
            path,
            op: "open",
            source,
        })?;
    Ok(file.bytes())
}

/// The ring takes what is configured, but at most a quarter of a segment: what it holds must always fit what is kept free
/// for it at the end of the log.
fn ring_bytes(config: &Config, options: &LogOptions) -> Result<u64, EngineError> {
    let most = options.segment_bytes / 4;
    let bytes = 1 << config.ring_bytes.min(most).ilog2();
    let least = options.append_units_max * UNIT_BYTES as u64 * options.writers;
    if bytes < least {
        return Err(EngineError::Config(format!(
            "ring_bytes would be {bytes} (of {} configured, at most a quarter of a segment of {} bytes), but {} cores need \
             {least}: use fewer cores, or a store made with larger segments",
            config.ring_bytes,
            options.segment_bytes,
            options.writers - 1
        )));
    }
    Ok(bytes)
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
pub mod fixture;
#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;
