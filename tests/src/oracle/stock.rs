//! The books of SKUs: imports, and what the stock must come to.

use std::collections::{HashMap, HashSet};

use croupier_client::{
    Client, Error, ImportOptions, ImportReport, ImportRow, OrderId, Refusal, SkuId, StockRow,
};

use super::Oracle;

#[derive(Debug, Clone, Default)]
pub(super) struct SkuBook {
    pub(super) id: Option<SkuId>,
    pub(super) imported: u64,
    /// Making it was acknowledged.
    pub(super) made: bool,
    /// Cards of an import whose end was sent and not answered.
    pub(super) in_doubt: Option<u64>,
    /// It has cards that are dealt without end.
    pub(super) endless: bool,
    /// Cards that were delivered, and are stock.
    delivered: HashSet<Box<[u8]>>,
}

impl Oracle {
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
        self.try_import_batch(client, sku, None, secrets).await
    }

    /// As [`Oracle::try_import`], under a label; `None`: the server's choice.
    ///
    /// # Errors
    /// Those of the client.
    pub async fn try_import_batch(
        &self,
        client: &Client,
        sku: &str,
        label: Option<String>,
        secrets: &[Vec<u8>],
    ) -> Result<(SkuId, ImportReport), Error> {
        let options = ImportOptions {
            sku: sku.to_owned(),
            create_sku: true,
            batch: label,
            ..ImportOptions::default()
        };
        let mut import = client.import(options).await?;
        let id = import.sku();
        self.books().skus.entry(sku.to_owned()).or_default().id = Some(id);
        for (line, secret) in (1..).zip(secrets) {
            import.push(ImportRow::new(line, secret)).await?;
        }
        // From here on they may be sold, before we hear of it.
        self.books().cards.sellable(sku, secrets);
        match import.finish().await {
            Ok(report) => {
                let mut books = self.books();
                books.skus.entry(sku.to_owned()).or_default().imported += report.accepted;
                Ok((id, report))
            }
            Err(error) => {
                self.delivery_failed(sku, secrets.len() as u64, &error);
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
        books.cards.sellable(sku, secrets);
        let book = books.skus.entry(sku.to_owned()).or_default();
        book.id = Some(id);
        book.imported += secrets.len() as u64;
    }

    /// Books cards that are about to be delivered: they may be sold before we hear of it.
    pub fn delivers(&self, sku: &str, id: SkuId, secrets: &[Vec<u8>]) {
        let mut books = self.books();
        books.cards.sellable(sku, secrets);
        books.skus.entry(sku.to_owned()).or_default().id = Some(id);
    }

    /// Books that these cards are stock: by the delivery that was answered now, or by one before whose answer was lost.
    pub fn delivered<'a>(&self, sku: &str, secrets: impl IntoIterator<Item = &'a [u8]>) {
        let mut books = self.books();
        let book = books.skus.entry(sku.to_owned()).or_default();
        let new = secrets.into_iter().map(Into::into);
        let new = new.filter(|secret| book.delivered.insert(Box::clone(secret)));
        book.imported += new.count() as u64;
    }

    /// Books that so many cards were brought and that the answer was an error: they may be stock.
    ///
    /// # Panics
    /// If others of the SKU are in doubt already.
    pub fn delivery_failed(&self, sku: &str, cards: u64, error: &Error) {
        let certain =
            matches!(error, Error::Refused { refusal, .. } if *refusal != Refusal::StoreFailed);
        if certain {
            return;
        }
        let mut books = self.books();
        let book = books.skus.entry(sku.to_owned()).or_default();
        assert_eq!(
            book.in_doubt, None,
            "one import of a SKU at a time may be in doubt"
        );
        book.in_doubt = Some(cards);
    }

    /// Compares the stock with the books; settles imports that were in doubt. Call it after
    /// [`Oracle::look_up_all`]. Orders that wait may be filled meanwhile. Returns the rows.
    ///
    /// # Panics
    /// If they differ.
    pub async fn check_stock(&self, client: &Client) -> Vec<StockRow> {
        let line = self.look_lines_up(client).await;
        let rows = client.stock(None).await.expect("stock is answered");
        // Who waits still has waited all the time.
        let left: HashSet<OrderId> = {
            let still: HashSet<_> = self.look_lines_up(client).await.into_iter().collect();
            line.into_iter().filter(|id| !still.contains(id)).collect()
        };
        let mut books = self.books();
        let mut dealt: HashMap<SkuId, u64> = HashMap::new();
        for booked in books
            .orders
            .values()
            .filter(|booked| booked.answer.is_some())
        {
            *dealt.entry(booked.sku).or_default() += booked.cards();
        }
        let mut held: HashMap<SkuId, (u64, u64)> = HashMap::new();
        // Cards of orders that had them not yet, perhaps.
        let mut late: HashMap<SkuId, u64> = HashMap::new();
        for order in books.in_two_phases() {
            let (least, most) = held.entry(order.sku).or_default();
            *dealt.entry(order.sku).or_default() += order.dealt;
            if left.contains(&order.id) {
                *late.entry(order.sku).or_default() += order.dealt;
                // Its hold may have begun and ended meanwhile.
                *most += if order.is_issue { 0 } else { order.quantity };
            } else if order.wants == 0 {
                *least += order.held_least;
                *most += order.held_most;
            }
        }
        // A card that was taken back from its buyer counts as void.
        for (_, sku) in books.void_of_orders() {
            *dealt.entry(sku).or_default() -= 1;
        }
        for row in &rows {
            let StockRow {
                sku,
                name,
                free,
                held: held_now,
                issued,
                void,
                imported,
            } = row;
            assert_eq!(free + held_now + issued + void, *imported, "{row:?}");
            let dealt = dealt.get(&SkuId(*sku)).copied().unwrap_or(0);
            let late = late.get(&SkuId(*sku)).copied().unwrap_or(0);
            assert!(
                (dealt - late..=dealt).contains(issued),
                "{name}: {issued} cards issued, and {dealt} were told, {late} of them just now"
            );
            let (least, most) = held.get(&SkuId(*sku)).copied().unwrap_or_default();
            assert!(
                *held_now >= least,
                "{name}: {least} cards are promised to holds"
            );
            books.check_out_of_sale(row, least, most);
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
}
