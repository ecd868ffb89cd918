//! Urgent orders beside as many as a core can take of all lanes: everybody is answered, those who leave hold nobody up.

use std::sync::Arc;

use croupier_client::{Order, OrderId, OrderOutcome, Priority};
use croupier_protocol::StepItem;
use croupier_tests::{Mint, Oracle, Store, Wire, issue_frame, item, scaled};

/// Orders of a frame of those that are not urgent.
const FRAME_ORDERS: usize = 400;

fn is_issued(outcome: &OrderOutcome) -> bool {
    matches!(outcome, OrderOutcome::Issued(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_orders_hold_nobody_up_and_neither_do_those_who_leave() {
    let (rounds, urgent) = scaled((20, 300), (200, 3000));
    let lanes = [Priority::Standard, Priority::Bulk, Priority::Background];
    let (store, oracle) = (Store::new(), Arc::new(Oracle::new()));
    let server = store.serve();
    let client = server.client().await;
    let burst = 64;
    let cards = (lanes.len() * 2 * rounds + 1) * FRAME_ORDERS + urgent + rounds * burst;
    let secrets = Mint::new(6).secrets(cards, 24);
    let sku = oracle
        .import(&client, "hot", &secrets)
        .await
        .expect("an import");
    let mut callers = Vec::new();
    for priority in lanes.into_iter().chain(lanes) {
        let (client, oracle) = (server.client().await, oracle.clone());
        callers.push(tokio::spawn(async move {
            for _ in 0..rounds {
                let order = |()| Order::new(OrderId::new_v7(), sku).priority(priority);
                let outcomes = oracle.issue(&client, &[(); FRAME_ORDERS].map(order)).await;
                let outcomes = outcomes.expect("a server that lives");
                assert!(outcomes.iter().all(is_issued), "{priority:?}");
            }
        }));
    }
    let (vip, told) = (server.client().await, oracle.clone());
    callers.push(tokio::spawn(async move {
        for _ in 0..urgent {
            let order = Order::new(OrderId::new_v7(), sku).priority(Priority::Vip);
            let outcomes = told
                .issue(&vip, &[order])
                .await
                .expect("a server that lives");
            assert!(is_issued(&outcomes[0]), "{outcomes:?}");
        }
    }));
    // They say much, and are gone before any of it may have been read.
    let addr = server.addr();
    let leavers = tokio::task::spawn_blocking(move || {
        for _ in 0..rounds {
            let (mut wire, _) = Wire::greeted(addr);
            let of_bulk = |_| StepItem {
                priority: Priority::Bulk as u8,
                ..item(sku)
            };
            let orders: Vec<_> = (0..burst).map(of_bulk).collect();
            wire.send(&issue_frame(1, &orders));
        }
    });
    for caller in callers {
        caller.await.expect("a caller does not panic");
    }
    leavers.await.expect("a leaver does not panic");
    let order = |()| Order::new(OrderId::new_v7(), sku).priority(Priority::Bulk);
    let outcomes = oracle.issue(&client, &[(); FRAME_ORDERS].map(order)).await;
    let outcomes = outcomes.expect("a server that lives");
    assert!(outcomes.iter().all(is_issued));
    server.stop().ok();
    Oracle::verify(&store);
}
