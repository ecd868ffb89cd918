//! A channel that is another server: orders are asked for there under their own ids, over kills of both.

use std::collections::HashSet;
use std::net::TcpListener;

use croupier_client::{Order, OrderId, OrderOutcome, OrderStep, RetryCause, Wait};
use croupier_tests::{Mint, Server, Store, scaled};

use super::market::{LONG, Market, SKU, until};
use crate::stock::import;

/// What sells to us calls our SKU that.
const SKU_THERE: &str = "n-gift";

/// A server that sells, on a port that stays the same.
struct There {
    store: Store,
    server: Server,
    url: String,
    secrets: Vec<Vec<u8>>,
}

impl There {
    async fn with(mint: u16, cards: usize) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let store = Store::new().with("--listen", port.expect("a port is free"));
        let server = store.serve();
        let secrets = Mint::new(mint).secrets(cards, 20);
        let url = server.url();
        import(&server.client().await, SKU_THERE, &secrets).await;
        Self {
            store,
            server,
            url,
            secrets,
        }
    }

    fn killed(self) -> Self {
        self.server.kill();
        Self {
            server: self.store.serve(),
            ..self
        }
    }
}

/// One upstream that is never taken out.
fn table(url: &str) -> String {
    format!(
        r#"
[retry]
base = "20ms"
cap = "200ms"
attempts = 100

[[channel]]
name = "north"
kind = "upstream"
url = "{url}"
sku_prefix = "n-"
jobs = 8
outlier = {{ consecutive_failures = 0, failure_percentage = 0, slow_percentage = 0 }}

[[rule]]
channels = ["north"]
"#
    )
}

/// How many work for the upstream here.
async fn workers(here: &Market) -> u32 {
    let channels = here.client.channels().await.expect("an answer");
    channels.iter().map(|channel| channel.workers).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_filled_under_their_own_ids_over_kills_of_both_servers() {
    let rounds = scaled(4, 20);
    let mut there = There::with(2_130, 8 * 3 * rounds).await;
    let mut here = Market::with(2_131, &table(&there.url)).await;
    here.oracle.delivers(SKU, here.sku, &there.secrets);
    let mut ids = Vec::new();
    for round in 0..rounds {
        for nth in 0..8 {
            let id = OrderId::new_v7();
            let order = Order::new(id, here.sku).quantity(1 + nth % 3);
            let outcome = here.ask(order).await;
            let is_taken = matches!(outcome, OrderOutcome::Waiting(_) | OrderOutcome::Issued(_));
            assert!(is_taken, "{outcome:?}");
            ids.push(id);
        }
        if round % 2 == 0 {
            there = there.killed();
        } else {
            here = here.killed().await;
        }
    }
    here.all_filled().await;
    // Each order was sold once and is here: under its own id, or, if another order has got the cards of one that a kill left
    // without, under one that follows from it.
    let client = there.server.client().await;
    let (mut come, mut own) = (Vec::new(), HashSet::<OrderId>::new());
    for secret in &there.secrets {
        let [sold, is_here] =
            [&client, &here.client].map(|client| client.find_secret(None, secret));
        let sold = sold.await.expect("an answer")[0].order;
        if !is_here.await.expect("an answer").is_empty() {
            let sold = sold.expect("what is here was sold there");
            come.push(&secret[..]);
            own.extend(ids.iter().filter(|own| own.to_bytes() == sold).copied());
        }
    }
    here.oracle.delivered(SKU, come);
    assert!(2 * own.len() > ids.len(), "{} of {}", own.len(), ids.len());
    here.close().await;
    there.server.stop().ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_upstream_does_not_sell_is_buried_for_good() {
    let there = There::with(2_132, 1).await;
    let table = table(&there.url).replace("n-\"", "nobody-has-\"");
    let here = Market::with(2_133, &table).await;
    let order = Order::new(OrderId::new_v7(), here.sku);
    let step = OrderStep::issue(order).wait(Wait::Told, LONG);
    here.client.steps(&[step]).await.expect("it is answered");
    until("it is buried", async || {
        let list = here.client.retries(None, None, 0, 0).await;
        let rows = list.expect("the list is told").rows;
        let is_it = |row: &croupier_protocol::RetryRow| {
            row.buried && row.cause == RetryCause::ForGood.as_u16()
        };
        rows.iter().any(is_it)
    })
    .await;
    here.server.stop().ok();
    there.server.stop().ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_no_upstream_of_its_own() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = port.expect("a port is free");
    let table = table(&format!("croupier://{port}"));
    let here = Market::at(port, 2_134, &table).await;
    let id = here.want(1).await;
    here.server.log_with("it is this very node");
    assert_eq!(workers(&here).await, 0);
    // It waits in the retry queue, and another server takes its place.
    until("it is listed", async || {
        let list = here.client.retries(None, None, 0, 0).await;
        let rows = list.expect("the list is told").rows;
        rows.iter()
            .any(|row| row.cause == RetryCause::NoChannel.as_u16() && row.order == id.to_bytes())
    })
    .await;
    let there = There::with(2_135, 1).await;
    here.oracle.delivers(SKU, here.sku, &there.secrets);
    let other = table.replace(&format!("croupier://{port}"), &there.url);
    here.client.routes_load(&other).await.expect("a table");
    here.filled(id).await;
    let secrets = there.secrets.iter().map(Vec::as_slice);
    here.oracle.delivered(SKU, secrets);
    here.close().await;
    there.server.stop().ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_or_resets_is_no_worker_and_others_fill_its_orders() {
    // The system takes the connections, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let rude = rude.expect("a port is free");
    let [silent_at, rude_at] = [silent.local_addr(), rude.local_addr()];
    let resets = tokio::spawn(async move { while rude.accept().await.is_ok() {} });
    let there = There::with(2_136, 12).await;
    let mut channels = String::new();
    for (name, url) in [
        (
            "silent",
            format!("croupier://{}", silent_at.expect("bound")),
        ),
        ("rude", format!("croupier://{}", rude_at.expect("bound"))),
        ("north", there.url.clone()),
    ] {
        channels.push_str(&format!(
            "[[channel]]\nname = \"{name}\"\nkind = \"upstream\"\nurl = \"{url}\"\nsku_prefix = \"n-\"\n"
        ));
    }
    let rule = "[[rule]]\nchannels = [{ silent = 40, rude = 40, north = 20 }]\n";
    let here = Market::with(2_137, &format!("{channels}{rule}")).await;
    here.oracle.delivers(SKU, here.sku, &there.secrets);
    for _ in 0..12 {
        here.order(1).await;
    }
    here.all_filled().await;
    let secrets = there.secrets.iter().map(Vec::as_slice);
    here.oracle.delivered(SKU, secrets);
    assert_eq!(workers(&here).await, 1);
    here.close().await;
    resets.abort();
    drop(silent);
    there.server.stop().ok();
}
