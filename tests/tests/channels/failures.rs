//! Workers that fail jobs, for now or for good.

use croupier_client::{JobFailure, JobState, Order, OrderId, RetryCause};

use super::market::{Market, until};

#[tokio::test]
async fn a_job_that_fails_goes_to_the_next_channel_and_then_comes_again() {
    let market = Market::open(2_020).await;
    let (alpha, beta) = (market.hand("alpha").await, market.hand("beta").await);
    let id = market.want(1).await;
    let failure = JobFailure::for_now("no answer");
    let mut asked = 0;
    for _ in 0..3 {
        for (hand, channel) in [(&alpha, "alpha"), (&beta, "beta")] {
            let job = hand.job().await;
            asked += 1;
            assert_eq!((job.id, job.attempt), (id, asked));
            let ended = hand.client.fail_job(channel, &job, &failure).await;
            assert_eq!(ended.expect("it is told").state, JobState::Over);
            // Told once more, it is over as well.
            let ended = hand.client.fail_job(channel, &job, &failure).await;
            assert_ne!(ended.expect("it is told").state, JobState::UnderWay);
        }
    }
    let job = alpha.job().await;
    assert_eq!(job.attempt, 7);
    alpha.deliver(&job, &market.secrets(1), true).await;
    market.filled(id).await;
    market.close().await;
}

#[tokio::test]
async fn an_order_that_all_fail_for_good_is_buried_and_filled_by_stock_all_the_same() {
    let market = Market::open(2_021).await;
    let (alpha, beta) = (market.hand("alpha").await, market.hand("beta").await);
    let id = market.want(1).await;
    let failure = JobFailure::for_good("not ours");
    for (hand, channel) in [(&alpha, "alpha"), (&beta, "beta")] {
        let job = hand.job().await;
        let ended = hand.client.fail_job(channel, &job, &failure).await;
        assert_eq!(ended.expect("it is told").state, JobState::Over);
    }
    let listed = async || {
        let list = market.client.retries(None, None, 0, 0).await;
        list.expect("the list is told").rows
    };
    until("it is buried", async || {
        listed().await.iter().any(|row| row.buried)
    })
    .await;
    let rows = listed().await;
    assert_eq!((rows.len(), rows[0].order), (1, id.to_bytes()));
    assert_eq!(rows[0].cause, RetryCause::ForGood.as_u16());
    assert!(market.still_waits(id).await);
    // No channel is asked for it any more, but for others.
    let other = market.want(1).await;
    let job = alpha.job().await;
    assert_eq!(job.id, other);
    alpha.deliver(&job, &market.secrets(2), true).await;
    market.filled(other).await;
    market.filled(id).await;
    until("nobody is listed", async || listed().await.is_empty()).await;
    market.close().await;
}

#[tokio::test]
async fn an_order_that_is_cancelled_is_no_job_any_more() {
    let market = Market::open(2_022).await;
    let alpha = market.hand("alpha").await;
    let order = Order::new(OrderId::new_v7(), market.sku);
    let waiting = market
        .client
        .issue_or_wait(order, super::market::LONG)
        .await;
    waiting.expect("it is accepted");
    let job = alpha.job().await;
    assert_eq!(job.id, order.order_id);
    market.client.cancel(order.order_id).await.expect("it ends");
    let late = alpha.deliver(&job, &market.secrets(1), true).await;
    assert_eq!(late.accepted, 1);
    assert_ne!(late.state, JobState::UnderWay);
    assert_eq!(market.free().await, 1);
    market.server.stop().ok();
}
