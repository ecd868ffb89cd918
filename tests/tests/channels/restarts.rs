//! The server is killed while orders are accepted and jobs are out: orders are asked for again, and what is delivered is stock.

use croupier_client::{Job, JobState};
use croupier_tests::scaled;

use super::market::Market;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_orders_are_asked_for_again_after_a_kill_and_old_deliveries_are_stock() {
    let mut market = Market::open(2_100).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(market.want(1).await);
    }
    let alpha = market.hand("alpha").await;
    let mut jobs = Vec::new();
    while jobs.len() < ids.len() {
        jobs.extend(alpha.take(64).await);
    }
    // Two have delivered before; of one the answer is lost with the server, as far as the worker knows.
    let cards = market.secrets(2);
    alpha.deliver(&jobs[0], &cards[..1], true).await;
    alpha.deliver(&jobs[1], &cards[1..], true).await;
    market = market.killed().await;
    for id in &ids {
        let outcome = market.client.order(*id).await.expect("it is answered");
        assert!(outcome.is_some(), "{id} was accepted");
    }
    let alpha = market.hand("alpha").await;
    let again = alpha.deliver(&jobs[1], &cards[1..], true).await;
    assert_eq!((again.accepted, again.rejections.len()), (0, 1));
    // A job of before: nobody knows it, and its cards fill the line.
    let late = alpha.deliver(&jobs[2], &market.secrets(1), true).await;
    assert_eq!(late.accepted, 1);
    assert_ne!(late.state, JobState::UnderWay);
    market = market.killed().await;
    let alpha = market.hand("alpha").await;
    let mut left: std::collections::HashSet<_> = Default::default();
    loop {
        market.oracle.look_up_all(&market.client).await;
        let (waited, filled) = market.oracle.waited();
        if waited == filled {
            break;
        }
        for job in alpha.take(3).await {
            assert!(ids.contains(&job.id), "{job:?}");
            left.insert(job.id);
            alpha.deliver(&job, &market.secrets(1), true).await;
        }
        market.oracle.look_up_all(&market.client).await;
    }
    assert!(left.len() <= 7, "three had cards already: {left:?}");
    market.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_after_kill_nothing_is_lost_and_nothing_is_dealt_twice() {
    let mut market = Market::open(2_101).await;
    let mut old: Vec<(Job, Vec<Vec<u8>>)> = Vec::new();
    for round in 0..scaled(4, 15) {
        for _ in 0..8 {
            market.order(1 + (round % 3) as u16).await;
        }
        let (alpha, beta) = (market.hand("alpha").await, market.hand("beta").await);
        // Jobs of earlier lives are delivered, some of this one are, others are kept for the next.
        for (job, cards) in old.drain(..) {
            alpha.deliver(&job, &cards, true).await;
        }
        let soon = std::time::Duration::from_millis(500);
        let jobs = alpha.client.take_jobs("alpha", "a", 5, soon).await;
        let jobs = jobs.expect("an offer is answered");
        for (nth, job) in jobs.into_iter().enumerate() {
            let cards = market.secrets(job.quantity.into());
            match nth % 3 {
                0 => {
                    alpha.deliver(&job, &cards, true).await;
                }
                1 => old.push((job, cards)),
                _ => {
                    let failure = croupier_client::JobFailure::for_now("later");
                    let _ = alpha.client.fail_job("alpha", &job, &failure).await;
                }
            }
        }
        drop((alpha, beta));
        market = market.killed().await;
    }
    let alpha = market.hand("alpha").await;
    loop {
        market.oracle.look_up_all(&market.client).await;
        let (waited, filled) = market.oracle.waited();
        if waited == filled {
            break;
        }
        let soon = std::time::Duration::from_millis(200);
        let jobs = alpha.client.take_jobs("alpha", "a", 64, soon).await;
        for job in jobs.expect("an offer is answered") {
            let cards = market.secrets(job.quantity.into());
            alpha.deliver(&job, &cards, true).await;
        }
    }
    market.close().await;
}
