//! Leases: extended, run out, given up with their connection; and what is delivered when they are over.

use std::time::Duration;

use croupier_client::{JobState, Refusal};

use super::market::{LONG, Market, table};
use crate::moves::refusal_of;

const SHORT_LEASE: &str = "30ms";

#[tokio::test]
async fn what_comes_after_the_lease_is_stock_and_the_order_has_cards_once() {
    let market = Market::with(2_040, &table(SHORT_LEASE)).await;
    let (alpha, beta) = (market.hand("alpha").await, market.hand("beta").await);
    // The first comes late and before the other channel, so it is used.
    let id = market.want(1).await;
    let late = alpha.job().await;
    let job = beta.job().await;
    assert_eq!((job.id, late.id), (id, id));
    let cards = market.secrets(1);
    let delivery = alpha.deliver(&late, &cards, true).await;
    assert_eq!(delivery.accepted, 1);
    assert_ne!(delivery.state, JobState::UnderWay);
    assert_eq!(market.filled(id).await, cards);
    let delivery = beta.deliver(&job, &market.secrets(1), true).await;
    assert_eq!(delivery.accepted, 1);
    assert_ne!(delivery.state, JobState::UnderWay);
    assert_eq!(market.free().await, 1);

    // The second comes late and behind the other channel.
    let id = market.want(2).await;
    let late = alpha.job().await;
    let job = beta.job().await;
    let cards = market.secrets(2);
    beta.deliver(&job, &cards, true).await;
    market.filled(id).await;
    let delivery = alpha.deliver(&late, &market.secrets(2), true).await;
    assert_eq!(delivery.accepted, 2);
    assert_ne!(delivery.state, JobState::UnderWay);
    assert_eq!(market.free().await, 3);
    market.close().await;
}

#[tokio::test]
async fn a_lease_is_kept_by_extending_it() {
    let market = Market::with(2_041, &table("2s")).await;
    let alpha = market.hand("alpha").await;
    let id = market.want(1).await;
    let job = alpha.job().await;
    assert_eq!(job.lease, Duration::from_secs(2));
    let long = alpha.client.extend_job("alpha", &job, LONG / 2).await;
    let long = long.expect("it is told");
    assert_eq!(long.state, JobState::UnderWay);
    assert!(long.lease > Duration::from_secs(1000), "{long:?}");
    // Never more than an hour in all, whatever is asked.
    let most = alpha.client.extend_job("alpha", &job, LONG * 100).await;
    let most = most.expect("it is told");
    assert!(
        most.state == JobState::UnderWay && most.lease <= LONG,
        "{most:?}"
    );
    alpha.deliver(&job, &market.secrets(1), true).await;
    market.filled(id).await;
    let over = alpha.client.extend_job("alpha", &job, LONG).await;
    let over = over.expect("it is told");
    assert_ne!(over.state, JobState::UnderWay);
    assert_eq!(over.lease, Duration::ZERO);
    let none = alpha.client.extend_job("alpha", &job, Duration::ZERO).await;
    assert_eq!(refusal_of(none), Refusal::JobInvalid);
    market.close().await;
}

#[tokio::test]
async fn the_jobs_of_a_worker_that_dies_go_to_others_at_once() {
    let market = Market::open(2_042).await;
    let dead = market.hand("alpha").await;
    let (one, two) = (market.want(1).await, market.want(1).await);
    let mut jobs = dead.take(8).await;
    while jobs.len() < 2 {
        jobs.extend(dead.take(8).await);
    }
    // Leases last for an hour: nobody waits for that.
    drop(dead);
    let alpha = market.hand("alpha").await;
    for _ in 0..2 {
        let job = alpha.job().await;
        alpha.deliver(&job, &market.secrets(1), true).await;
    }
    market.filled(one).await;
    market.filled(two).await;
    market.close().await;
}

#[tokio::test]
async fn a_worker_that_is_silent_keeps_its_order_for_its_lease_and_no_longer() {
    let market = Market::with(2_043, &table(SHORT_LEASE)).await;
    let (silent, beta) = (market.hand("alpha").await, market.hand("beta").await);
    for _ in 0..20 {
        market.want(1).await;
    }
    let mut taken = 0;
    while taken < 20 {
        taken += silent.take(64).await.len();
    }
    let mut delivered = 0;
    while delivered < 20 {
        for job in beta.take(64).await {
            beta.deliver(&job, &market.secrets(1), true).await;
            delivered += 1;
        }
    }
    market.all_filled().await;
    market.close().await;
}
