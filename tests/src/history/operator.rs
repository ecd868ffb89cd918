//! The operator: imports batches while orders run, and takes cards out of sale and puts them back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use croupier_client::{
    CardMove, CardRef, CardRow, CardSelection, CardStatus, Client, Error, SkuId, StockRow,
};

use super::caller::Floor;
use crate::{Dice, Mint};

/// What is sold, and bytes of a secret: several size classes.
pub const SKUS: [(&str, usize); 5] = [
    ("steam-50", 18),
    ("gift-100", 40),
    ("卡密-20", 24),
    ("card-7", 90),
    ("rare", 18),
];
/// Sells out again and again.
const RARE: &str = "rare";
/// Of each SKU, before the first order.
const FIRST_BATCHES: usize = 4;
/// A SKU of fewer cards than so many batches gets another one.
const LOW_BATCHES: u64 = 2;
/// Between two looks at the stock.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Cards that are named one by one in a move.
const NAMED_MAX: u64 = 40;

/// A batch whose import was begun.
#[derive(Debug, Clone)]
struct Batch {
    sku: &'static str,
    label: String,
    /// Kept until it is known that they are there.
    secrets: Vec<Vec<u8>>,
}

/// What an operator remembers from one server to the next.
#[derive(Debug)]
pub struct Operator {
    floor: Arc<Floor>,
    dice: Dice,
    mint: Mint,
    /// Cards of a usual batch.
    batch_cards: u64,
    batches: Vec<(&'static str, String)>,
    /// One whose end was not answered.
    cut_off: Option<Batch>,
    /// What is suspended, to be resumed.
    suspended: Vec<CardSelection>,
    /// A move that was not answered.
    in_doubt: Option<CardSelection>,
}

impl Operator {
    /// One who has done nothing.
    pub fn new(floor: Arc<Floor>, dice: Dice, batch_cards: u64) -> Self {
        Self {
            floor,
            dice,
            mint: Mint::new(77),
            batch_cards,
            batches: Vec::new(),
            cut_off: None,
            suspended: Vec::new(),
            in_doubt: None,
        }
    }

    /// Works on this floor from now on.
    pub fn moves_to(&mut self, floor: Arc<Floor>) {
        self.floor = floor;
    }

    /// The first batches of every SKU: their ids, as often as they are to be sold.
    ///
    /// # Panics
    /// If they are refused.
    pub async fn open(&mut self, client: &Client) -> Vec<SkuId> {
        let mut ids = Vec::new();
        for (sku, _) in SKUS {
            for _ in 0..FIRST_BATCHES {
                let id = self.import(client, sku).await;
                ids.push(id.expect("a server that nobody disturbs imports"));
            }
            if sku == RARE {
                ids.truncate(ids.len() + 1 - FIRST_BATCHES);
            }
        }
        ids
    }

    /// Works until it is over, or the server is gone.
    pub async fn work(&mut self, client: &Client, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            if self.look(client).await.is_err() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self, client: &Client) -> Result<(), Error> {
        let rows = client.stock(None).await?;
        for row in &rows {
            let sum = row.free + row.held + row.issued + row.void;
            let watch = &self.floor.watch;
            watch.check(|| assert_eq!(sum, row.imported, "{row:?}"));
        }
        // One thing at a time: imports are long, and moves are to come between.
        if self.dice.once_in(2) {
            return self.move_some(client).await;
        }
        let low = |row: &StockRow| match row.name == RARE {
            true => row.free == 0 && row.imported < self.rare_due(),
            false => row.free < LOW_BATCHES * self.batch_cards,
        };
        let lowest = rows
            .iter()
            .filter(|row| low(row))
            .min_by_key(|row| row.free);
        let sku = lowest.and_then(|row| SKUS.iter().find(|(sku, _)| *sku == row.name));
        if let Some((sku, _)) = sku {
            self.import(client, sku).await?;
        }
        Ok(())
    }

    /// How many cards there should be of what sells out: fewer than are asked for.
    fn rare_due(&self) -> u64 {
        let begun = self.floor.begun.load(Ordering::Relaxed);
        begun.min(self.floor.orders) / 10
    }

    /// The last batch of what sells out, when nobody asks any more.
    ///
    /// # Errors
    /// Those of the client.
    pub async fn last(&mut self, client: &Client) -> Result<(), Error> {
        self.import(client, RARE).await.map(drop)
    }

    async fn import(&mut self, client: &Client, sku: &'static str) -> Result<SkuId, Error> {
        let usual = self.batch_cards;
        let cards = match sku {
            RARE => usual.div_ceil(20),
            _ => self.dice.within(usual / 2..usual + usual / 2 + 1),
        };
        let (_, bytes) = SKUS.iter().find(|(name, _)| *name == sku).expect("one");
        let batch = Batch {
            sku,
            label: format!("batch-{}", self.batches.len()),
            secrets: self.mint.secrets(cards as usize, *bytes),
        };
        self.batches.push((sku, batch.label.clone()));
        self.send(client, batch).await
    }

    /// Imports a batch, all or nothing of which must come to be there.
    async fn send(&mut self, client: &Client, batch: Batch) -> Result<SkuId, Error> {
        let Floor { oracle, watch, .. } = &*self.floor;
        let label = Some(batch.label.clone());
        let cards = batch.secrets.len() as u64;
        watch.seen().imports[0] += 1;
        match oracle
            .try_import_batch(client, batch.sku, label, &batch.secrets)
            .await
        {
            Ok((id, report)) => {
                watch.seen().imports[2] += report.accepted;
                let whole = [0, cards].contains(&report.accepted);
                watch.check(|| assert!(whole, "a part of an import: {:?}", report.counts));
                Ok(id)
            }
            Err(error) => {
                watch.seen().imports[1] += 1;
                self.cut_off = Some(batch);
                Err(error)
            }
        }
    }

    async fn move_some(&mut self, client: &Client) -> Result<(), Error> {
        let (sku, label) = self.dice.one_of(&self.batches).clone();
        let sku = sku.to_owned();
        let batch = CardSelection::Batch { sku, label };
        let back = self.dice.within(0..6);
        match back {
            0 => self.move_all(client, batch, CardMove::Suspend, false).await,
            1 | 2 if !self.suspended.is_empty() => {
                let nth = self.dice.within(0..self.suspended.len() as u64) as usize;
                let which = self.suspended.swap_remove(nth);
                self.move_all(client, which, CardMove::Resume, false).await
            }
            3 => {
                let which = self.some(client, &batch, CardStatus::Issued).await?;
                self.move_all(client, which, CardMove::Void, true).await
            }
            4 => {
                let which = self.some(client, &batch, CardStatus::Free).await?;
                self.move_all(client, which, CardMove::Void, false).await
            }
            _ => {
                let which = self.some(client, &batch, CardStatus::Free).await?;
                self.move_all(client, which, CardMove::Suspend, false).await
            }
        }
    }

    /// A few cards of a batch that have this status just now.
    async fn some(
        &mut self,
        client: &Client,
        batch: &CardSelection,
        status: CardStatus,
    ) -> Result<CardSelection, Error> {
        let (rows, _) = client.list_cards(batch, Some(status), None).await?;
        let most = self.dice.within(1..NAMED_MAX) as usize;
        let skip = self.dice.within(0..rows.len() as u64 / 2 + 1) as usize;
        // Of an issued card somebody must know that it is.
        let known = |row: &&CardRow| status != CardStatus::Issued || row.order.is_some();
        let cards = rows.iter().skip(skip).filter(known).take(most).map(place);
        Ok(CardSelection::Cards(cards.collect()))
    }

    async fn move_all(
        &mut self,
        client: &Client,
        which: CardSelection,
        card_move: CardMove,
        issued: bool,
    ) -> Result<(), Error> {
        if matches!(&which, CardSelection::Cards(cards) if cards.is_empty()) {
            return Ok(());
        }
        let floor = Arc::clone(&self.floor);
        let before = list(client, &which).await?;
        floor.oracle.moving(before.iter().map(place));
        self.in_doubt = Some(which.clone());
        let (since, moved) = match client.move_cards(&which, card_move, issued).await {
            Ok(done) => (Some(done.lsn), done.moved),
            // Of cards named one by one, some may be an order's by now.
            Err(Error::Refused { .. }) => (None, 0),
            Err(error) => return Err(error),
        };
        {
            let mut seen = floor.watch.seen();
            let counts = seen.moves.entry(card_move.name()).or_default();
            counts[0] += 1;
            counts[1] += moved;
        }
        self.tell(client, &which, since).await?;
        if card_move == CardMove::Suspend && moved > 0 {
            self.suspended.push(which);
        }
        Ok(())
    }

    /// Tells the oracle how cards stand that may have been moved.
    async fn tell(
        &mut self,
        client: &Client,
        which: &CardSelection,
        since: Option<u64>,
    ) -> Result<(), Error> {
        let rows = list(client, which).await?;
        let since = since.filter(|&lsn| lsn > 0).map(croupier_client::Lsn);
        let Floor { oracle, watch, .. } = &*self.floor;
        watch.check(|| oracle.moved(&rows, since));
        self.in_doubt = None;
        Ok(())
    }

    /// Finds out what became of what was not answered. Nobody else may use the server.
    ///
    /// # Errors
    /// Those of the client.
    pub async fn settle(&mut self, client: &Client) -> Result<(), Error> {
        if let Some(which) = self.in_doubt.clone() {
            self.tell(client, &which, None).await?;
            if self.suspended.iter().all(|known| *known != which) {
                self.suspended.push(which);
            }
        }
        Ok(())
    }

    /// Sends the import again that was cut off; what of it is there already must be rejected. The books know by now
    /// whether it is.
    ///
    /// # Errors
    /// Those of the client.
    pub async fn import_again(&mut self, client: &Client) -> Result<(), Error> {
        match self.cut_off.take() {
            Some(batch) => self.send(client, batch).await.map(drop),
            None => Ok(()),
        }
    }
}

/// All cards of a selection, as they stand.
///
/// # Errors
/// Those of the client.
pub async fn list(client: &Client, which: &CardSelection) -> Result<Vec<CardRow>, Error> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = client.list_cards(which, None, after).await?;
        rows.extend(page);
        match next {
            Some(next) => after = Some(next),
            None => return Ok(rows),
        }
    }
}

fn place(row: &CardRow) -> CardRef {
    CardRef {
        slab: row.slab,
        slot: row.slot,
        generation: row.generation,
    }
}
