//! The books of a test: what was asked, what was answered, and what must therefore be true for ever.
//!
//! Every order is booked before it is sent ([`Oracle::ask`]) and every outcome when it arrives ([`Oracle::book`]), from
//! as many tasks at once as a test likes. What is checked at once, on every answer:
//!
//! * it is for an order that was asked, with as many cards as were asked, each an imported card of that SKU;
//! * no card and no secret goes to two orders;
//! * an order that was answered before gets the same answer, marked as a repeat; only one answer ever is not marked.
//!
//! And on demand: [`Oracle::look_up_all`] (acknowledged orders stand, refused ones left no trace, those in doubt may
//! stand), [`Oracle::ask_all_again`] (retries get what stands), [`Oracle::check_stock`] (free + held + issued + void =
//! imported), [`Oracle::check_disk`] (the log says the same, and its replay too).

mod cut;
mod held;
mod judge;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use croupier_client::{
    CardRef, Client, Error, ImportOptions, ImportReport, ImportRow, IssuedOrder, Lsn, Order,
    OrderId, OrderOutcome, OrderStep, Refusal, SkuId, Step, StockRow, Wait,
};
use tempfile::TempDir;

pub use held::Standing;
pub use judge::{OutOfSale, StateView};

use crate::store::{SEGMENT_BYTES, Store};

/// Orders looked up at a time.
const CHUNK: usize = 500;

/// A step of an order that is under way, and what was known of the order when it left.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// What is asked.
    pub step: OrderStep,
    answered_before: bool,
}

impl Ask {
    /// For an order that must not be dealt, and is in no books.
    pub fn unbooked(order: Order) -> Ask {
        Ask {
            step: OrderStep::issue(order),
            answered_before: false,
        }
    }

    /// Whether it is an issue that may not wait: an order that is dealt or leaves no trace.
    pub fn is_plain(&self) -> bool {
        is_plain(&self.step)
    }

    /// The order.
    pub fn order(&self) -> Order {
        self.step.order
    }
}

fn is_plain(step: &OrderStep) -> bool {
    step.step == Step::Issue && step.wait == Wait::No
}

/// The cards of an order, as they were first told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    lsn: Lsn,
    cards: Vec<(CardRef, Vec<u8>)>,
}

#[derive(Debug, Clone)]
struct Booked {
    sku: SkuId,
    quantity: u16,
    answer: Option<Answer>,
    /// An answer without the repeat mark has been seen.
    first_seen: bool,
    /// An ask was sent and its outcome is not known.
    in_doubt: bool,
    /// Asks whose outcome has not been booked.
    under_way: u32,
}

#[derive(Debug, Clone, Default)]
struct SkuBook {
    id: Option<SkuId>,
    imported: u64,
    /// Making it was acknowledged.
    made: bool,
    /// Cards of an import whose end was sent and not answered.
    in_doubt: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Books {
    orders: HashMap<OrderId, Booked>,
    /// Orders in two phases.
    held: HashMap<OrderId, held::HeldBook>,
    card_owners: HashMap<CardRef, OrderId>,
    secret_owners: HashMap<Vec<u8>, OrderId>,
    /// Every secret that an import may have made sellable.
    secrets: HashMap<Vec<u8>, String>,
    skus: BTreeMap<String, SkuBook>,
    /// Cards that operators have taken out of sale.
    out_of_sale: BTreeMap<CardRef, OutOfSale>,
    /// Void cards that no order had.
    never: HashSet<CardRef>,
    /// A move was begun, and whether it has happened is not known.
    move_in_doubt: bool,
}

/// What `croupier wal verify` counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskReport {
    /// State digest.
    pub digest: String,
    /// Orders issued.
    pub orders: u64,
    /// Cards ever imported.
    pub imported: u64,
    /// Cards issued.
    pub issued: u64,
    /// Cards that can be issued.
    pub free: u64,
    /// Cards that are suspended, or promised to holds.
    pub held: u64,
    /// Bytes of a write that a crash cut short.
    pub torn_bytes: u64,
    /// Records that are in the log and in no checkpoint.
    pub records: u64,
}

/// The books of one store.
#[derive(Debug, Default)]
pub struct Oracle {
    books: Mutex<Books>,
}

impl Oracle {
    /// Empty books, for an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of the books, for a copy of the store.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            books: Mutex::new(self.books().clone()),
        }
    }

    /// A broken check panics with the books open; the next one must see them all the same.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Books an order that is about to be sent.
    ///
    /// # Panics
    /// If the test asks for something else under a known id: that is to be refused, and not to be booked.
    pub fn ask(&self, order: Order) -> Ask {
        let mut books = self.books();
        let booked = books.orders.entry(order.order_id).or_insert(Booked {
            sku: order.sku,
            quantity: order.quantity,
            answer: None,
            first_seen: false,
            in_doubt: false,
            under_way: 0,
        });
        booked.under_way += 1;
        assert_eq!(
            (booked.sku, booked.quantity),
            (order.sku, order.quantity),
            "the test reuses {}",
            order.order_id
        );
        Ask {
            step: OrderStep::issue(order),
            answered_before: booked.answer.is_some(),
        }
    }

    /// Books a step that is about to be sent. The first of an order in two phases is its reserve.
    ///
    /// # Panics
    /// If the order is in no books and the step is no reserve.
    pub fn ask_step(&self, step: OrderStep) -> Ask {
        if is_plain(&step) {
            return self.ask(step.order);
        }
        let answered_before = self.books().ask_step(&step);
        Ask {
            step,
            answered_before,
        }
    }

    /// Books what became of an order.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn book(&self, ask: &Ask, outcome: &OrderOutcome) {
        let id = ask.order().order_id;
        assert_eq!(outcome.order_id(), id, "an answer to another order");
        if !ask.is_plain() {
            let mut books = self.books();
            books.step_over(&ask.step, false);
            return books.step_answered(ask, outcome);
        }
        self.books().over(id);
        match outcome {
            OrderOutcome::Issued(issued) => {
                assert!(
                    issued.repeat || !ask.answered_before,
                    "{id} was answered before, and this is not marked"
                );
                self.books().issued(issued, !issued.repeat);
            }
            OrderOutcome::Refused {
                refusal: Refusal::StoreFailed,
                ..
            } => self.books().doubt(id),
            OrderOutcome::Refused { refusal, .. } => {
                let patient = matches!(refusal, Refusal::Busy | Refusal::ShuttingDown);
                assert!(
                    patient || !ask.answered_before,
                    "{id} was answered before and is now refused: {refusal:?}"
                );
            }
            other => panic!("{other:?} to an issue"),
        }
    }

    /// Books that an order was sent and that its outcome is not known.
    pub fn lost(&self, ask: &Ask) {
        let mut books = self.books();
        if !ask.is_plain() {
            return books.step_over(&ask.step, true);
        }
        books.over(ask.order().order_id);
        books.doubt(ask.order().order_id);
    }

    /// Sends orders through a client and books what becomes of them; `None` when that is not known.
    ///
    /// # Panics
    /// On answers that cannot be, and on errors that a client should never see.
    pub async fn issue(&self, client: &Client, orders: &[Order]) -> Option<Vec<OrderOutcome>> {
        let asks: Vec<_> = orders.iter().map(|&order| self.ask(order)).collect();
        match client.issue_many(orders).await {
            Ok(outcomes) => {
                assert_eq!(outcomes.len(), orders.len());
                asks.iter()
                    .zip(&outcomes)
                    .for_each(|(ask, outcome)| self.book(ask, outcome));
                Some(outcomes)
            }
            Err(Error::OutcomeUnknown { .. }) => {
                asks.iter().for_each(|ask| self.lost(ask));
                None
            }
            Err(Error::Unreachable { .. } | Error::TimedOut { sent: false, .. }) => None,
            Err(other) => panic!("{other}"),
        }
    }

    /// As [`Oracle::issue`], for one order that must be dealt.
    ///
    /// # Panics
    /// If it is not.
    pub async fn deal(&self, client: &Client, order: Order) -> IssuedOrder {
        match self.issue(client, &[order]).await.as_deref() {
            Some([OrderOutcome::Issued(issued)]) => issued.clone(),
            other => panic!("{} was to be dealt: {other:?}", order.order_id),
        }
    }

    /// Makes the SKU if need be and imports cards, all of which must be accepted. `None`: not known whether it happened.
    ///
    /// # Panics
    /// If the import is refused.
    pub async fn import(&self, client: &Client, sku: &str, secrets: &[Vec<u8>]) -> Option<SkuId> {
        match self.try_import(client, sku, secrets).await {
            Ok((id, report)) => {
                assert_eq!(report.accepted, secrets.len() as u64, "{:?}", report.counts);
                Some(id)
            }
            Err(error @ (Error::Refused { .. } | Error::Protocol(_))) => {
                panic!("import into {sku}: {error}")
            }
            Err(_) => None,
        }
    }

    /// As [`Oracle::import`], for imports that may fail.
    ///
    /// # Errors
    /// Those of the client. Whether the cards are there is settled by [`Oracle::check_stock`].
    pub async fn try_import(
        &self,
        client: &Client,
        sku: &str,
        secrets: &[Vec<u8>],
    ) -> Result<(SkuId, ImportReport), Error> {
        let options = ImportOptions {
            sku: sku.to_owned(),
            create_sku: true,
            ..ImportOptions::default()
        };
        let mut import = client.import(options).await?;
        let id = import.sku();
        self.books().skus.entry(sku.to_owned()).or_default().id = Some(id);
        for (line, secret) in (1..).zip(secrets) {
            import.push(ImportRow::new(line, secret)).await?;
        }
        // From here on they may be sold, before we hear of it.
        self.books().sellable(sku, secrets);
        match import.finish().await {
            Ok(report) => {
                let mut books = self.books();
                books.skus.entry(sku.to_owned()).or_default().imported += report.accepted;
                Ok((id, report))
            }
            Err(error) => {
                let certain = matches!(error, Error::Refused { refusal, .. } if refusal != Refusal::StoreFailed);
                if !certain {
                    let mut books = self.books();
                    let book = books.skus.entry(sku.to_owned()).or_default();
                    assert_eq!(
                        book.in_doubt, None,
                        "one import of a SKU at a time may be in doubt"
                    );
                    book.in_doubt = Some(secrets.len() as u64);
                }
                Err(error)
            }
        }
    }

    /// Makes a SKU, which must then stay.
    ///
    /// # Errors
    /// Those of the client.
    pub async fn create_sku(&self, client: &Client, name: &str) -> Result<SkuId, Error> {
        let id = client.sku_create(name).await?;
        let mut books = self.books();
        let book = books.skus.entry(name.to_owned()).or_default();
        (book.id, book.made) = (Some(id), true);
        Ok(id)
    }

    /// Books an import that was made by other means.
    pub fn imported(&self, sku: &str, id: SkuId, secrets: &[Vec<u8>]) {
        let mut books = self.books();
        books.sellable(sku, secrets);
        let book = books.skus.entry(sku.to_owned()).or_default();
        book.id = Some(id);
        book.imported += secrets.len() as u64;
    }

    /// Looks every order up that was ever asked. No ask may be under way.
    ///
    /// # Panics
    /// If an acknowledged order is gone or another, or one that was refused stands.
    pub async fn look_up_all(&self, client: &Client) {
        let ids: Vec<_> = self.books().orders.keys().copied().collect();
        for chunk in ids.chunks(CHUNK) {
            let outcomes = client.orders(chunk).await.expect("look-ups are answered");
            let mut books = self.books();
            for (id, outcome) in chunk.iter().zip(&outcomes) {
                books.looked_up(*id, outcome);
            }
        }
        let ids: Vec<_> = self.books().held.keys().copied().collect();
        for chunk in ids.chunks(CHUNK) {
            let outcomes = client.orders(chunk).await.expect("look-ups are answered");
            let mut books = self.books();
            for (id, outcome) in chunk.iter().zip(outcomes) {
                let found = !matches!(outcome, OrderOutcome::Refused { .. });
                books.settle_one(*id, found.then_some(outcome));
            }
        }
    }

    /// Asks for every order again: those that stand must repeat their answer, those in doubt may be dealt now.
    ///
    /// # Panics
    /// If one of them is answered otherwise.
    pub async fn ask_all_again(&self, client: &Client) {
        let again = |booked: &Booked| booked.answer.is_some() || booked.in_doubt;
        let orders: Vec<_> = {
            let books = self.books();
            let orders = books.orders.iter().filter(|(_, booked)| again(booked));
            orders
                .map(|(&id, booked)| Order::new(id, booked.sku).quantity(booked.quantity))
                .collect()
        };
        for chunk in orders.chunks(CHUNK) {
            let done = self.issue(client, chunk).await;
            assert!(done.is_some(), "a server that lives answers");
        }
    }

    /// Compares the stock with the books; settles imports that were in doubt. Call it after
    /// [`Oracle::look_up_all`]. Returns the rows.
    ///
    /// # Panics
    /// If they differ.
    pub async fn check_stock(&self, client: &Client) -> Vec<StockRow> {
        let rows = client.stock(None).await.expect("stock is answered");
        let mut books = self.books();
        let mut dealt: HashMap<SkuId, u64> = HashMap::new();
        for booked in books
            .orders
            .values()
            .filter(|booked| booked.answer.is_some())
        {
            *dealt.entry(booked.sku).or_default() += u64::from(booked.quantity);
        }
        let mut promised: HashMap<SkuId, u64> = HashMap::new();
        for (sku, held, committed) in books.in_two_phases() {
            *promised.entry(sku).or_default() += held;
            *dealt.entry(sku).or_default() += committed;
        }
        for row in &rows {
            let StockRow {
                sku,
                name,
                free,
                held,
                issued,
                void,
                imported,
            } = row;
            assert_eq!(free + held + issued + void, *imported, "{row:?}");
            assert_eq!(
                *issued,
                dealt.get(&SkuId(*sku)).copied().unwrap_or(0),
                "{name}: cards issued"
            );
            let least = promised.get(&SkuId(*sku)).copied().unwrap_or(0);
            assert!(
                *held >= least,
                "{name}: {least} cards are promised to holds"
            );
            let book = books.skus.entry(name.clone()).or_default();
            assert!(
                book.id.is_none_or(|id| id.0 == *sku),
                "{name} has another id than before"
            );
            if let Some(cards) = book.in_doubt.take()
                && *imported == book.imported + cards
            {
                book.imported += cards;
            }
            assert_eq!(
                *imported, book.imported,
                "{name}: an import is all or nothing"
            );
        }
        for (name, book) in &books.skus {
            let told = book.imported > 0 || book.made;
            let there = !told || rows.iter().any(|row| row.name == *name);
            assert!(there, "{name} is gone");
        }
        rows
    }

    /// Everything that can be asked of a server that nobody else uses just now.
    pub async fn check_all(&self, client: &Client) -> Vec<StockRow> {
        self.look_up_all(client).await;
        self.check_stock(client).await
    }

    /// Verifies a stopped store, replays its log into a new directory, and compares digests. Returns what it found.
    ///
    /// # Panics
    /// If the log, its replay and the copy differ.
    #[track_caller]
    pub fn verify(store: &Store) -> DiskReport {
        let before = store.tree();
        let verified = store.wal("verify", &[]).ok().json();
        let root = TempDir::with_prefix("croupier-replay-").expect("a temporary directory");
        let into = root.path().join("copy");
        let replayed = store
            .wal(
                "replay",
                &[
                    "--into",
                    &into.display().to_string(),
                    "--wal-segment-bytes",
                    &SEGMENT_BYTES.to_string(),
                ],
            )
            .ok()
            .json();
        assert_eq!(store.tree(), before, "verify and replay change nothing");
        assert_eq!(verified["ok"], true);
        assert_eq!(
            verified["digest"], replayed["digest"],
            "a replay comes to the same state"
        );
        let copied = Store::at(into).wal("verify", &[]).ok().json();
        assert_eq!(verified["digest"], copied["digest"], "its copy too");
        for count in ["orders", "imported", "issued", "free", "skus", "slabs"] {
            assert_eq!(verified[count], copied[count], "{count} of the copy");
        }
        let count = |what: &str| {
            verified[what]
                .as_u64()
                .unwrap_or_else(|| panic!("{what}: a number in {verified}"))
        };
        let report = DiskReport {
            digest: verified["digest"].as_str().expect("a text").to_owned(),
            orders: count("orders"),
            imported: count("imported"),
            issued: count("issued"),
            free: count("free"),
            held: count("held"),
            torn_bytes: count("torn_bytes"),
            records: count("records_since_checkpoint"),
        };
        let all = report.free + report.held + report.issued + count("void");
        assert_eq!(all, report.imported, "{report:?}");
        report
    }

    /// As [`Oracle::verify`], and compares with the books; nothing may be in doubt.
    ///
    /// # Panics
    /// If they differ.
    #[track_caller]
    pub fn check_disk(&self, store: &Store) -> DiskReport {
        let report = Self::verify(store);
        let books = self.books();
        let dealt = books
            .orders
            .values()
            .filter(|booked| booked.answer.is_some());
        let (mut orders, mut cards) = dealt.fold((0, 0), |(orders, cards), booked| {
            (orders + 1, cards + u64::from(booked.quantity))
        });
        orders += books.ended_in_two_phases();
        let mut promised = 0;
        for (_, held, committed) in books.in_two_phases() {
            promised += held;
            cards += committed;
        }
        assert!(
            report.held >= promised,
            "{promised} are promised: {report:?}"
        );
        let imported: u64 = books.skus.values().map(|book| book.imported).sum();
        assert_eq!(
            (report.orders, report.issued, report.imported),
            (orders, cards, imported),
            "orders, issued, imported: disk and books"
        );
        report
    }

    /// Orders that have been acknowledged.
    pub fn acknowledged(&self) -> Vec<Order> {
        let books = self.books();
        let answered = books
            .orders
            .iter()
            .filter(|(_, booked)| booked.answer.is_some());
        answered
            .map(|(&id, booked)| Order::new(id, booked.sku).quantity(booked.quantity))
            .collect()
    }

    /// Cards that acknowledged orders have got.
    pub fn cards_dealt(&self) -> usize {
        self.books().card_owners.len()
    }

    /// Every secret that was ever sent to the store.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        self.books().secrets.keys().cloned().collect()
    }
}

impl Books {
    fn booked(&mut self, id: OrderId) -> &mut Booked {
        let booked = self.orders.get_mut(&id);
        booked.expect("it was booked when it was asked")
    }

    fn over(&mut self, id: OrderId) {
        let booked = self.booked(id);
        booked.under_way = booked.under_way.saturating_sub(1);
    }

    fn doubt(&mut self, id: OrderId) {
        self.booked(id).in_doubt = true;
    }

    fn sellable(&mut self, sku: &str, secrets: &[Vec<u8>]) {
        self.secrets.extend(
            secrets
                .iter()
                .map(|secret| (secret.clone(), sku.to_owned())),
        );
    }

    fn issued(&mut self, issued: &IssuedOrder, first: bool) {
        let IssuedOrder {
            order_id: id,
            lsn,
            sku,
            ref cards,
            ..
        } = *issued;
        let booked = self
            .orders
            .get_mut(&id)
            .unwrap_or_else(|| panic!("{id} was never asked"));
        assert_eq!(booked.sku, sku, "{id}: another SKU than asked");
        assert_eq!(
            usize::from(booked.quantity),
            cards.len(),
            "{id}: another number of cards than asked"
        );
        assert_ne!(lsn, Lsn::ZERO, "{id}: an issued order has a record");
        assert!(
            !(first && booked.first_seen),
            "{id} was dealt twice: two answers are not marked as repeats"
        );
        booked.first_seen |= first;
        let cards: Vec<_> = cards
            .iter()
            .map(|card| (card.card, card.secret.as_bytes().to_vec()))
            .collect();
        let answer = Answer { lsn, cards };
        match &booked.answer {
            Some(known) => assert_eq!(*known, answer, "{id}: another answer than before"),
            None => {
                let sku = self
                    .skus
                    .iter()
                    .find(|(_, book)| book.id == Some(sku))
                    .map(|(name, _)| name);
                for (card, secret) in &answer.cards {
                    assert_eq!(
                        self.secrets.get(secret),
                        sku,
                        "{id}: {card} is no imported card of its SKU"
                    );
                    claim(&mut self.card_owners, card, id);
                    claim(&mut self.secret_owners, secret, id);
                }
                booked.answer = Some(answer);
            }
        }
        booked.in_doubt = false;
    }

    fn looked_up(&mut self, id: OrderId, outcome: &OrderOutcome) {
        let booked = self
            .orders
            .get_mut(&id)
            .expect("only booked orders are looked up");
        match outcome {
            OrderOutcome::Issued(issued) => {
                assert!(!issued.repeat, "{id}: a look-up is no repeat");
                let may_stand = booked.answer.is_some() || booked.in_doubt;
                assert!(
                    may_stand,
                    "{id} was refused or never sent, and stands all the same"
                );
                if booked.answer.is_none() {
                    // Its own answer was lost: every one from now on is a repeat.
                    booked.first_seen = true;
                }
                self.issued(issued, false);
            }
            OrderOutcome::Refused { refusal, .. } => {
                assert_eq!(*refusal, Refusal::OrderNotFound, "{id}");
                assert!(booked.answer.is_none(), "{id} was acknowledged and is gone");
                booked.in_doubt = false;
            }
            other => panic!("{other:?} of an order that was issued"),
        }
    }
}

/// Gives `what` to an order, unless another one has it.
fn claim<K: Clone + Eq + std::hash::Hash>(owners: &mut HashMap<K, OrderId>, what: &K, id: OrderId) {
    match owners.entry(what.clone()) {
        Entry::Vacant(vacant) => {
            vacant.insert(id);
        }
        Entry::Occupied(owner) => panic!("one card for two orders, {} and {id}", owner.get()),
    }
}
