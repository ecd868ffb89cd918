//! A served store with one SKU, and what is asked of it over and over.

use std::time::Duration;

use croupier_client::{
    CardMove, CardSelection, Client, Order, OrderId, OrderOutcome, OrderStep, Refusal, SkuId,
};
use croupier_tests::{Mint, PATIENCE, SEGMENT_BYTES, Server, Store};
use serde_json::Value;
use tempfile::TempDir;

use crate::stock::{counts, import, import_into, stock};

/// Longer than any test.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// Over before anybody looks.
pub(super) const SHORT: Duration = Duration::from_millis(3);

/// A served store with one SKU.
pub(super) struct Shop {
    pub(super) store: Store,
    pub(super) server: Server,
    pub(super) client: Client,
    pub(super) sku: SkuId,
    mint: Mint,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    Kill,
    /// In good order, with a checkpoint.
    Stop,
}

impl Shop {
    pub(super) async fn open(store: Store, mint: u16, cards: usize) -> Shop {
        let server = store.serve();
        let client = server.client().await;
        let mut mint = Mint::new(mint);
        let sku = import(&client, "s", &mint.secrets(cards, 20)).await;
        Shop {
            store,
            server,
            client,
            sku,
            mint,
        }
    }

    pub(super) async fn reopened(self, end: End) -> Shop {
        self.reopened_after(end, |_| {}).await
    }

    /// Ends the server, has a look at the store, and serves it again.
    pub(super) async fn reopened_after(self, end: End, look: impl FnOnce(&Store)) -> Shop {
        let Shop {
            store,
            server,
            sku,
            mint,
            ..
        } = self;
        match end {
            End::Kill => drop(server.kill()),
            End::Stop => drop(server.stop().ok()),
        }
        look(&store);
        let server = store.serve();
        let client = server.client().await;
        Shop {
            store,
            server,
            client,
            sku,
            mint,
        }
    }

    pub(super) async fn restock(&mut self, pool: &str, cards: usize) {
        let secrets = self.mint.secrets(cards, 20);
        import_into(&self.client, "s", pool, &secrets).await;
    }

    /// Free, held, issued, void.
    pub(super) async fn counts(&self) -> [u64; 4] {
        counts(&stock(&self.client).await)
    }

    pub(super) async fn ask(&self, step: OrderStep) -> OrderOutcome {
        let answered = self.client.steps(&[step]).await;
        answered
            .expect("the server answers")
            .pop()
            .expect("one answer")
    }

    pub(super) async fn reserve(&self, quantity: u16, ttl: Duration) -> OrderId {
        let id = OrderId::new_v7();
        let outcome = self.ask(self.reserve_of(id, quantity, ttl)).await;
        assert!(matches!(outcome, OrderOutcome::Held(_)), "{outcome:?}");
        id
    }

    pub(super) async fn issue(&self, quantity: u16) -> OrderId {
        let id = OrderId::new_v7();
        let outcome = self.ask(self.issue_of(id, quantity)).await;
        assert!(matches!(outcome, OrderOutcome::Issued(_)), "{outcome:?}");
        id
    }

    pub(super) fn issue_of(&self, id: OrderId, quantity: u16) -> OrderStep {
        OrderStep::issue(Order::new(id, self.sku).quantity(quantity))
    }

    pub(super) fn reserve_of(&self, id: OrderId, quantity: u16, ttl: Duration) -> OrderStep {
        OrderStep::reserve(Order::new(id, self.sku).quantity(quantity), ttl)
    }

    pub(super) async fn look_up(&self, id: OrderId) -> Option<OrderOutcome> {
        self.client.order(id).await.expect("look-ups are answered")
    }

    pub(super) async fn is_expired(&self, id: OrderId) -> bool {
        matches!(self.look_up(id).await, Some(OrderOutcome::Expired(_)))
    }

    pub(super) async fn expire(&self, id: OrderId) {
        until("the hold has expired", async || self.is_expired(id).await).await;
    }

    pub(super) async fn expired(&self, quantity: u16) -> OrderId {
        let id = self.reserve(quantity, SHORT).await;
        self.expire(id).await;
        id
    }

    pub(super) async fn move_all(&self, card_move: CardMove) -> u64 {
        let all = CardSelection::Sku("s".into());
        let moved = self.client.move_cards(&all, card_move, false).await;
        moved.expect("there is the SKU").moved
    }
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {PATIENCE:?}: {what}");
}

pub(super) fn refusal_of(outcome: &OrderOutcome) -> Option<Refusal> {
    match outcome {
        OrderOutcome::Refused { refusal, .. } => Some(*refusal),
        _ => None,
    }
}

/// The same answer, marked as that of a step that had been taken before.
pub(super) fn repeated(outcome: &OrderOutcome) -> OrderOutcome {
    let mut outcome = outcome.clone();
    match &mut outcome {
        OrderOutcome::Issued(order) => order.repeat = true,
        OrderOutcome::Held(order)
        | OrderOutcome::Cancelled(order)
        | OrderOutcome::Waiting(order) => order.repeat = true,
        OrderOutcome::Expired(_) | OrderOutcome::Refused { .. } => {}
    }
    outcome
}

/// Verifies a stopped store, replays it into another, and returns what the first said.
pub(super) fn verified(store: &Store) -> Value {
    let verified = store.wal("verify", &[]).ok().json();
    let root = TempDir::with_prefix("croupier-replay-").expect("a temporary directory");
    let into = root.path().join("copy");
    let (path, bytes) = (into.display().to_string(), SEGMENT_BYTES.to_string());
    let args = ["--into", &path, "--wal-segment-bytes", &bytes];
    let replayed = store.wal("replay", &args).ok().json();
    let copied = Store::at(into).wal("verify", &[]).ok().json();
    assert_eq!(verified["digest"], replayed["digest"], "the replay");
    for what in [
        "digest", "orders", "imported", "free", "held", "issued", "void",
    ] {
        assert_eq!(verified[what], copied[what], "{what} of the copy");
    }
    verified
}

pub(super) fn counts_of(verified: &Value) -> [u64; 4] {
    ["free", "held", "issued", "void"].map(|what| verified[what].as_u64().expect("a count"))
}
