//! A route table on trial for a share of orders sends them to channels of its own choice.

use std::cell::RefCell;
use std::collections::HashSet;

use croupier_client::{CanarySettings, OrderId, Refusal};

use super::market::{Hand, Market};
use crate::moves::refusal_of;

fn issuer(name: &str, pool: &str) -> String {
    format!(
        r#"
[[channel]]
name = "{name}"
kind = "issuer"
pool = "{pool}"
timeout = "60s"
outlier = {{ consecutive_failures = 0, failure_percentage = 0, slow_percentage = 0 }}
"#
    )
}

/// A table of these channels, in this order; all orders go to `to`.
fn table(channels: &[&str], to: &str) -> String {
    let all = channels.iter().map(|name| issuer(name, name));
    format!(
        "{}[[rule]]\nchannels = [\"{to}\"]\n",
        all.collect::<String>()
    )
}

const HALF: CanarySettings = CanarySettings {
    share: Some(50),
    step: None,
    until: None,
    minimum_sample: Some(50_000),
    p99_ratio: None,
    step_time_ms: None,
};

/// Works for a channel, and notes whose orders it was asked for.
async fn work(market: &Market, hand: &Hand, asked: &RefCell<HashSet<OrderId>>) {
    loop {
        let job = hand.job().await;
        asked.borrow_mut().insert(job.id);
        hand.deliver(&job, &market.secrets(1), true).await;
    }
}

#[tokio::test]
async fn orders_of_a_canary_are_asked_of_its_channels_and_all_others_of_those_in_force() {
    const ORDERS: usize = 24;
    let market = Market::open(2_090).await;
    let in_force = table(&["alpha", "beta"], "alpha");
    let loaded = market.client.routes_load(&in_force).await;
    assert_eq!(loaded.expect("a table").version, 2);
    // It numbers the channels otherwise.
    let on_trial = table(&["beta", "alpha"], "beta");
    let started = market.client.canary_start(&on_trial, &HALF).await;
    assert_eq!(started.expect("a canary").version, 3);

    let hands = (market.hand("alpha").await, market.hand("beta").await);
    let asked: [RefCell<HashSet<OrderId>>; 2] = Default::default();
    let orders = async {
        let mut orders = Vec::new();
        for _ in 0..ORDERS {
            orders.push(market.want(1).await);
        }
        market.all_filled().await;
        orders
    };
    let orders = tokio::select! {
        () = work(&market, &hands.0, &asked[0]) => unreachable!("it has no end"),
        () = work(&market, &hands.1, &asked[1]) => unreachable!("it has no end"),
        orders = orders => orders,
    };
    // Each of them was asked of one channel.
    let [alpha, beta] = asked.map(RefCell::into_inner);
    assert!(alpha.is_disjoint(&beta));
    let all: HashSet<OrderId> = alpha.union(&beta).copied().collect();
    assert_eq!(all, orders.into_iter().collect());
    assert!(!alpha.is_empty() && !beta.is_empty());

    // What the channels took is what is measured, of both groups alike.
    super::market::until("all of them are seen", async || {
        let status = market.client.canary_status().await.expect("an answer");
        let seen: u32 = status.groups.iter().map(|group| group.orders).sum();
        seen == ORDERS as u32
    })
    .await;
    let aborted = market.client.canary_abort().await;
    assert_eq!(aborted.expect("it was under way").version, 3);
    let Market {
        store,
        server,
        client,
        oracle,
        ..
    } = market;
    oracle.check_all(&client).await;
    server.stop().ok();
    for record in store.records() {
        let kind = record["kind"].as_str().expect("a word");
        if let "Backordered" | "Issued" = kind {
            let id = record["order_id"].as_str().expect("an id");
            let is_canary = beta.iter().any(|order| order.to_string() == id);
            assert_eq!(
                record["routes_version"],
                2 + u64::from(is_canary),
                "{record}"
            );
        }
    }
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn orders_in_line_are_asked_of_others_when_a_canary_begins_and_when_it_ends() {
    let market = Market::open(2_091).await;
    let in_force = table(&["alpha", "beta"], "alpha");
    market.client.routes_load(&in_force).await.expect("a table");
    let mut orders = HashSet::new();
    for _ in 0..24 {
        orders.insert(market.want(1).await);
    }
    let on_trial = table(&["beta", "alpha"], "beta");
    let started = market.client.canary_start(&on_trial, &HALF).await;
    started.expect("a canary");
    // Only orders of the canary come here.
    let beta = market.hand("beta").await;
    let job = beta.job().await;
    assert!(orders.remove(&job.id));
    beta.deliver(&job, &market.secrets(1), true).await;
    market.filled(job.id).await;
    market.client.canary_abort().await.expect("it is under way");
    // And now nobody's do: all that are left go where the table in force says.
    let alpha = market.hand("alpha").await;
    while !orders.is_empty() {
        let job = alpha.job().await;
        orders.remove(&job.id);
        alpha.deliver(&job, &market.secrets(1), true).await;
    }
    market.all_filled().await;
    market.close().await;
}

#[tokio::test]
async fn a_canary_whose_channels_are_not_in_force_is_refused() {
    let market = Market::open(2_092).await;
    let in_force = table(&["alpha", "beta"], "alpha");
    market.client.routes_load(&in_force).await.expect("a table");
    let new = table(&["alpha", "gamma"], "gamma");
    let elsewhere = table(&["alpha"], "alpha") + &issuer("beta", "other");
    let upstream = table(&["alpha"], "alpha")
        + "[[channel]]\nname = \"beta\"\nkind = \"upstream\"\nurl = \"croupier://127.0.0.1:1\"\n";
    for (table, channel) in [(new, "gamma"), (elsewhere, "beta"), (upstream, "beta")] {
        let refused = market.client.canary_start(&table, &HALF).await;
        let error = refused.expect_err("a channel that is not in force");
        assert!(error.to_string().contains(channel), "{error}");
        assert_eq!(refusal_of(Err::<(), _>(error)), Refusal::CanaryChannel);
    }
    let status = market.client.canary_status().await.expect("an answer");
    assert_eq!((status.version, status.in_force), (0, 2));
    // Fewer of them will do.
    let fewer = table(&["beta"], "beta");
    let started = market.client.canary_start(&fewer, &HALF).await;
    assert_eq!(started.expect("a canary").version, 3);
    market.close().await;
}
