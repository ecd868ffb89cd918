//! Many at once want all there is: each card goes to one of them, and then there is none.

use std::sync::Arc;

use croupier_client::{Order, OrderId, OrderOutcome, Refusal};
use croupier_tests::{Mint, Oracle, Store, scaled};

/// Orders of a connection under way at once.
const AT_ONCE: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_take_exactly_all_cards_of_a_sku() {
    let (connections, cards) = scaled((50, 10_000), (200, 100_000));
    let (store, oracle) = (Store::new(), Arc::new(Oracle::new()));
    let server = store.serve();
    let client = server.client().await;
    let secrets = Mint::new(2).secrets(cards, 24);
    let sku = oracle
        .import(&client, "hot", &secrets)
        .await
        .expect("an import");
    let mut buyers = Vec::new();
    for _ in 0..connections {
        let (client, oracle) = (server.client().await, oracle.clone());
        buyers.push(tokio::spawn(async move {
            loop {
                let orders = [(); AT_ONCE].map(|()| Order::new(OrderId::new_v7(), sku));
                let outcomes = oracle
                    .issue(&client, &orders)
                    .await
                    .expect("a server that lives");
                let refused = outcomes.iter().filter_map(|outcome| match outcome {
                    OrderOutcome::Issued(_) => None,
                    OrderOutcome::Refused { refusal, .. } => Some(*refusal),
                    other => panic!("{other:?}"),
                });
                let refused: Vec<_> = refused.collect();
                if !refused.is_empty() {
                    return refused;
                }
            }
        }));
    }
    for buyer in buyers {
        for refusal in buyer.await.expect("a buyer does not panic") {
            assert_eq!(refusal, Refusal::OutOfStock);
        }
    }
    assert_eq!(oracle.cards_dealt(), cards);
    let rows = oracle.check_all(&client).await;
    assert_eq!((rows[0].free, rows[0].issued), (0, cards as u64));
    let one_more = oracle
        .issue(&client, &[Order::new(OrderId::new_v7(), sku)])
        .await;
    let out = OrderOutcome::Refused {
        order_id: one_more.as_ref().expect("answered")[0].order_id(),
        refusal: Refusal::OutOfStock,
        retry_after_ms: 0,
    };
    assert_eq!(one_more.as_deref(), Some(&[out][..]));

    drop(client);
    server.kill();
    let server = store.serve();
    let client = server.client().await;
    oracle.check_all(&client).await;
    server.stop().ok();
    oracle.check_disk(&store);
}

#[tokio::test]
async fn the_last_cards_go_to_the_orders_that_fit_them() {
    let (store, oracle) = (Store::new(), Oracle::new());
    let server = store.serve();
    let client = server.client().await;
    let sku = oracle
        .import(&client, "few", &Mint::new(4).secrets(7, 24))
        .await
        .expect("an import");
    let order = |quantity| Order::new(OrderId::new_v7(), sku).quantity(quantity);
    for (quantity, fits) in [(8, false), (5, true), (3, false), (2, true), (1, false)] {
        let outcomes = oracle
            .issue(&client, &[order(quantity)])
            .await
            .expect("answered");
        let issued = matches!(outcomes[0], OrderOutcome::Issued(_));
        assert_eq!(issued, fits, "{quantity} cards: {outcomes:?}");
    }
    oracle.check_all(&client).await;
    oracle
        .import(&client, "few", &Mint::new(5).secrets(3, 24))
        .await
        .expect("an import");
    let outcomes = oracle
        .issue(&client, &[order(2), order(2), order(1)])
        .await
        .expect("answered");
    let issued: Vec<_> = outcomes
        .iter()
        .map(|outcome| matches!(outcome, OrderOutcome::Issued(_)))
        .collect();
    assert_eq!(
        issued,
        [true, false, true],
        "in the order in which they were asked"
    );
    oracle.check_all(&client).await;
}
