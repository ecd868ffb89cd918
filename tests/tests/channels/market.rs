//! A served store whose only SKU comes from issuers, and the hands that work for them.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use croupier_client::{
    Client, ImportRow, Job, JobDelivery, Order, OrderId, OrderOutcome, OrderStep, Rejection, SkuId,
    Wait,
};
use croupier_protocol::RejectReason;
use croupier_tests::{Mint, Oracle, PATIENCE, Server, Store};

/// Longer than any test.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// What everything is sold as.
pub(super) const SKU: &str = "gift";

/// Two issuers, the second asked when the first has failed; leases of the first of so long; attempts follow each other soon, and for as
/// long as any test lasts.
pub(super) fn table(lease: &str) -> String {
    format!(
        r#"
[retry]
base = "10ms"
cap = "1s"
attempts = 100

[outlier]
max_ejection_percent = 100

[[channel]]
name = "alpha"
kind = "issuer"
timeout = "{lease}"
jobs = 4096
outlier = {{ consecutive_failures = 0, failure_percentage = 0, slow_percentage = 0 }}

[[channel]]
name = "beta"
kind = "issuer"
timeout = "60s"
outlier = {{ consecutive_failures = 0, failure_percentage = 0, slow_percentage = 0 }}

[[rule]]
channels = ["alpha", "beta"]
"#
    )
}

/// A served store.
pub(super) struct Market {
    pub(super) store: Store,
    pub(super) server: Server,
    pub(super) client: Client,
    pub(super) sku: SkuId,
    pub(super) oracle: Arc<Oracle>,
    mint: Arc<Mutex<Mint>>,
}

impl Market {
    /// With the two issuers of [`table`], whose leases outlast any test.
    pub(super) async fn open(mint: u16) -> Self {
        Self::with(mint, &table("1h")).await
    }

    pub(super) async fn with(mint: u16, table: &str) -> Self {
        Self::on(Store::new(), mint, table).await
    }

    /// On a port that stays the same when the server is killed: for workers that connect again.
    pub(super) async fn on_a_port(mint: u16, table: &str) -> Self {
        // Nobody else gets it that soon: the system gives ports out in turn.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        Self::at(port.expect("a port is free"), mint, table).await
    }

    /// On that port.
    pub(super) async fn at(addr: SocketAddr, mint: u16, table: &str) -> Self {
        Self::on(Store::new().with("--listen", addr), mint, table).await
    }

    async fn on(store: Store, mint: u16, table: &str) -> Self {
        let server = store.serve();
        let client = server.client().await;
        let oracle = Arc::new(Oracle::new());
        let sku = oracle.create_sku(&client, SKU).await.expect("a SKU");
        let loaded = client.routes_load(table).await.expect("a table");
        assert_eq!(loaded.warnings, [""; 0]);
        let mint = Arc::new(Mutex::new(Mint::new(mint)));
        Self {
            store,
            server,
            client,
            sku,
            oracle,
            mint,
        }
    }

    /// Kills the server and starts it again.
    pub(super) async fn killed(self) -> Self {
        self.server.kill();
        let server = self.store.serve();
        let client = server.client().await;
        Self {
            server,
            client,
            ..self
        }
    }

    /// Somebody who works for a channel, over a connection of their own.
    pub(super) async fn hand(&self, channel: &'static str) -> Hand {
        Hand {
            client: self.server.client_without_retries().await,
            channel,
            sku: self.sku,
            oracle: Arc::clone(&self.oracle),
        }
    }

    /// Secrets that nobody else has.
    pub(super) fn secrets(&self, count: usize) -> Vec<Vec<u8>> {
        self.mint.lock().expect("no mint panics").secrets(count, 20)
    }

    /// What makes secrets, for whoever outlives this.
    pub(super) fn mint(&self) -> Arc<Mutex<Mint>> {
        Arc::clone(&self.mint)
    }

    /// An order that is accepted: there is no stock for it.
    pub(super) async fn want(&self, quantity: u16) -> OrderId {
        let order = Order::new(OrderId::new_v7(), self.sku).quantity(quantity);
        let outcome = self.ask(order).await;
        assert!(matches!(outcome, OrderOutcome::Waiting(_)), "{outcome:?}");
        order.order_id
    }

    /// An order that is accepted, or has cards at once where there are some left over.
    pub(super) async fn order(&self, quantity: u16) {
        let order = Order::new(OrderId::new_v7(), self.sku).quantity(quantity);
        let outcome = self.ask(order).await;
        let is_taken = matches!(outcome, OrderOutcome::Waiting(_) | OrderOutcome::Issued(_));
        assert!(is_taken, "{outcome:?}");
    }

    /// Asks for an order, which may wait.
    pub(super) async fn ask(&self, order: Order) -> OrderOutcome {
        let step = OrderStep::issue(order).wait(Wait::Told, LONG);
        let ask = self.oracle.ask_step(step);
        let mut outcomes = self.client.steps(&[step]).await.expect("it is answered");
        let outcome = outcomes.pop().expect("one answer");
        self.oracle.book(&ask, &outcome);
        outcome
    }

    /// The secrets of an order, once it has its cards.
    pub(super) async fn filled(&self, id: OrderId) -> Vec<Vec<u8>> {
        let mut secrets = Vec::new();
        until("the order is filled", async || {
            self.oracle.look_up(&self.client, &[id]).await;
            match self.client.order(id).await.expect("look-ups are answered") {
                Some(OrderOutcome::Issued(issued)) => {
                    let cards = issued.cards.iter();
                    secrets = cards.map(|card| card.secret.as_bytes().to_vec()).collect();
                    true
                }
                _ => false,
            }
        })
        .await;
        secrets
    }

    pub(super) async fn still_waits(&self, id: OrderId) -> bool {
        let found = self.client.order(id).await.expect("look-ups are answered");
        matches!(found, Some(OrderOutcome::Waiting(_)))
    }

    /// All orders that were accepted have their cards.
    pub(super) async fn all_filled(&self) {
        until("all orders are filled", async || {
            self.oracle.look_up_all(&self.client).await;
            let (waited, filled) = self.oracle.waited();
            waited == filled
        })
        .await;
    }

    /// Cards that are free.
    pub(super) async fn free(&self) -> u64 {
        crate::stock::stock(&self.client).await.free
    }

    /// Books, server and disk agree.
    pub(super) async fn close(self) {
        self.oracle.check_all(&self.client).await;
        self.oracle.check_lines(&self.client).await;
        self.server.stop().ok();
        self.oracle.check_disk(&self.store);
    }
}

/// Who works for a channel, call by call.
pub(super) struct Hand {
    pub(super) client: Client,
    channel: &'static str,
    sku: SkuId,
    oracle: Arc<Oracle>,
}

impl Hand {
    /// Takes jobs as soon as there are some.
    pub(super) async fn take(&self, jobs_max: u32) -> Vec<Job> {
        let minute = Duration::from_secs(60);
        let taken = self
            .client
            .take_jobs(self.channel, "hand", jobs_max, minute);
        let jobs = taken.await.expect("an offer is answered");
        assert!(!jobs.is_empty(), "a minute, and no job");
        jobs
    }

    /// The next job.
    pub(super) async fn job(&self) -> Job {
        let mut jobs = self.take(1).await;
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    /// Delivers cards, and keeps the books: what is accepted, and what is known already, is stock.
    pub(super) async fn deliver(&self, job: &Job, secrets: &[Vec<u8>], all: bool) -> JobDelivery {
        self.oracle.delivers(&job.sku, self.sku, secrets);
        let rows: Vec<_> = (0..)
            .zip(secrets)
            .map(|(line, secret)| ImportRow::new(line, secret))
            .collect();
        let delivered = self.client.deliver_job(self.channel, job, &rows, all);
        let delivery = delivered.await.expect("a delivery is answered");
        let known = delivery.accepted + delivery.rejections.len() as u64;
        assert_eq!(known, secrets.len() as u64, "{delivery:?}");
        let duplicate = |row: &Rejection| {
            matches!(
                row.reason,
                RejectReason::DuplicateInStock | RejectReason::DuplicateInFile
            )
        };
        assert!(delivery.rejections.iter().all(duplicate), "{delivery:?}");
        let all = secrets.iter().map(Vec::as_slice);
        self.oracle.delivered(&job.sku, all);
        delivery
    }
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {PATIENCE:?}: {what}");
}
