//! What is delivered for a job: enough, too few, too many, twice, of another SKU, for nobody.

use croupier_client::{ImportRow, Job, JobState, Order, OrderId, OrderOutcome, Refusal};

use super::market::{LONG, Market, SKU};
use crate::moves::refusal_of;

#[tokio::test]
async fn an_order_that_finds_no_stock_is_a_job_and_has_what_is_delivered_for_it() {
    let market = Market::open(2_000).await;
    let alpha = market.hand("alpha").await;
    let id = market.want(2).await;
    let job = alpha.job().await;
    assert_eq!(
        (job.id, &job.sku[..], job.quantity, job.attempt),
        (id, SKU, 2, 1)
    );
    assert!(job.ends_unix_ms > croupier_tests::unix_ms());
    let cards = market.secrets(2);
    let delivery = alpha.deliver(&job, &cards, true).await;
    assert_eq!((delivery.accepted, delivery.state), (2, JobState::Done));
    assert!(delivery.lsn.0 > 0);
    let mut filled = market.filled(id).await;
    filled.sort();
    let mut expect = cards.clone();
    expect.sort();
    assert_eq!(filled, expect);
    // The same delivery again, for a job that is done: nothing is new.
    let again = alpha.deliver(&job, &cards, true).await;
    assert_eq!((again.accepted, again.lsn.0), (0, 0));
    assert_ne!(again.state, JobState::UnderWay);
    market.close().await;
}

#[tokio::test]
async fn callers_that_do_not_say_wait_are_answered_when_the_cards_are_there() {
    let market = Market::open(2_001).await;
    let alpha = market.hand("alpha").await;
    let order = Order::new(OrderId::new_v7(), market.sku);
    let held = Order::new(OrderId::new_v7(), market.sku);
    let works = async {
        for _ in 0..2 {
            let job = alpha.job().await;
            alpha.deliver(&job, &market.secrets(1), true).await;
        }
    };
    let (issued, held, ()) = tokio::join!(
        market.client.issue(order),
        market.client.reserve(held, LONG),
        works
    );
    let issued = issued.expect("it is filled");
    assert_eq!((issued.cards.len(), issued.order_id), (1, order.order_id));
    assert_eq!(held.expect("it is held").quantity, 1);
    // Asked again it is what it was.
    let again = market.client.issue(order).await.expect("it stands");
    assert!(again.repeat);
    assert_eq!(again.cards, issued.cards);
    let row = crate::stock::stock(&market.client).await;
    assert_eq!(crate::stock::counts(&row), [0, 1, 1, 0]);
    market.server.stop().ok();
}

#[tokio::test]
async fn cards_come_one_by_one_and_the_reply_says_how_many_are_missing() {
    let market = Market::open(2_002).await;
    let alpha = market.hand("alpha").await;
    let id = market.want(3).await;
    let job = alpha.job().await;
    for missing in [2, 1] {
        let delivery = alpha.deliver(&job, &market.secrets(1), false).await;
        assert_eq!(
            (delivery.state, delivery.missing),
            (JobState::UnderWay, missing)
        );
    }
    assert!(market.still_waits(id).await);
    let last = alpha.deliver(&job, &market.secrets(1), false).await;
    assert_eq!((last.state, last.missing), (JobState::Done, 0));
    assert_eq!(market.filled(id).await.len(), 3);
    market.close().await;
}

#[tokio::test]
async fn too_few_fails_the_job_and_what_came_stays() {
    let market = Market::open(2_003).await;
    let (alpha, beta) = (market.hand("alpha").await, market.hand("beta").await);
    let id = market.want(3).await;
    let job = alpha.job().await;
    let few = alpha.deliver(&job, &market.secrets(1), true).await;
    assert_eq!((few.accepted, few.state), (1, JobState::Over));
    assert_eq!(market.free().await, 1);
    // None at all is too few as well, of any channel.
    let next = beta.job().await;
    assert_eq!(next.id, id);
    assert_eq!(beta.deliver(&next, &[], true).await.state, JobState::Over);
    let third = alpha.job().await;
    assert_eq!((third.id, third.attempt), (id, 3));
    alpha.deliver(&third, &market.secrets(3), true).await;
    assert_eq!(market.filled(id).await.len(), 3);
    assert_eq!(market.free().await, 1);
    market.close().await;
}

#[tokio::test]
async fn too_many_are_stock_and_twice_the_same_is_one() {
    let market = Market::open(2_004).await;
    let alpha = market.hand("alpha").await;
    let first = market.want(2).await;
    let job = alpha.job().await;
    let many = alpha.deliver(&job, &market.secrets(5), true).await;
    assert_eq!((many.accepted, many.state), (5, JobState::Done));
    assert_eq!(market.filled(first).await.len(), 2);
    assert_eq!(market.free().await, 3);
    // What is there is dealt without asking anybody.
    let order = Order::new(OrderId::new_v7(), market.sku).quantity(3);
    let outcome = market.ask(order).await;
    assert!(matches!(outcome, OrderOutcome::Issued(_)), "{outcome:?}");

    let second = market.want(2).await;
    let job = alpha.job().await;
    assert_eq!(job.id, second);
    let one = market.secrets(1);
    let twice = [one[0].clone(), one[0].clone()];
    let delivery = alpha.deliver(&job, &twice, false).await;
    assert_eq!((delivery.accepted, delivery.missing), (1, 1));
    let again = alpha.deliver(&job, &one, false).await;
    assert_eq!((again.accepted, again.missing), (0, 1));
    assert_eq!(again.state, JobState::UnderWay);
    assert!(market.still_waits(second).await);
    alpha.deliver(&job, &market.secrets(1), true).await;
    assert_eq!(market.filled(second).await.len(), 2);
    market.close().await;
}

#[tokio::test]
async fn a_delivery_for_another_sku_than_the_jobs_changes_nothing() {
    let market = Market::open(2_005).await;
    let alpha = market.hand("alpha").await;
    let other = market.client.sku_create("other").await.expect("a SKU");
    market.oracle.imported("other", other, &[]);
    let id = market.want(1).await;
    let job = alpha.job().await;
    let cards = market.secrets(1);
    let rows = [ImportRow::new(1, &cards[0])];
    let wrong = Job {
        sku: "other".into(),
        ..job.clone()
    };
    let refused = alpha.client.deliver_job("alpha", &wrong, &rows, true).await;
    assert_eq!(refusal_of(refused), Refusal::JobOther);
    let unknown = Job {
        sku: "nothing".into(),
        id: OrderId::new_v7(),
        ..job.clone()
    };
    let refused = alpha.client.deliver_job("alpha", &unknown, &rows, true);
    assert_eq!(refusal_of(refused.await), Refusal::UnknownSku);
    assert_eq!(market.free().await, 0);
    assert!(market.still_waits(id).await);
    // It is still the worker's, and the very same cards will do.
    let delivery = alpha.deliver(&job, &cards, true).await;
    assert_eq!((delivery.accepted, delivery.state), (1, JobState::Done));
    assert_eq!(market.filled(id).await, cards);
    market.close().await;
}

#[tokio::test]
async fn what_another_channel_delivers_for_a_job_is_stock_and_fills_the_line() {
    let market = Market::open(2_007).await;
    let (alpha, beta) = (market.hand("alpha").await, market.hand("beta").await);
    let id = market.want(1).await;
    let job = alpha.job().await;
    // It may have had the job before a restart: nobody can tell, and no card is lost.
    let cards = market.secrets(1);
    let delivery = beta.deliver(&job, &cards, true).await;
    assert_eq!((delivery.accepted, delivery.state), (1, JobState::Unknown));
    assert_eq!(market.filled(id).await, cards);
    market.close().await;
}

#[tokio::test]
async fn what_comes_for_a_job_that_nobody_knows_is_stock_and_fills_the_line() {
    let market = Market::open(2_006).await;
    let alpha = market.hand("alpha").await;
    let made_up = Job {
        id: OrderId::new_v7(),
        attempt: 7,
        sku: SKU.into(),
        quantity: 1,
        ends_unix_ms: 0,
        lease: LONG,
    };
    let delivery = alpha.deliver(&made_up, &market.secrets(2), true).await;
    assert_eq!((delivery.accepted, delivery.state), (2, JobState::Unknown));
    assert_eq!(market.free().await, 2);
    // For whoever waits, as any stock: the job of the order that it fills is not wanted any more.
    let id = market.want(3).await;
    let job = alpha.job().await;
    alpha.deliver(&made_up, &market.secrets(1), true).await;
    assert_eq!(market.filled(id).await.len(), 3);
    let late = alpha.deliver(&job, &market.secrets(3), true).await;
    assert_eq!(late.accepted, 3);
    assert_ne!(late.state, JobState::UnderWay);
    assert_eq!(market.free().await, 3);
    market.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_ask_and_its_repeat_stay_until_the_cards_are_there() {
    let market = Market::open(2_019).await;
    let alpha = market.hand("alpha").await;
    let order = Order::new(OrderId::new_v7(), market.sku);
    let ask = market.oracle.ask(order);
    market.oracle.lost(&ask);
    let (first, second) = (market.server.client().await, market.server.client().await);
    let first = tokio::spawn(async move { first.issue(order).await });
    let job = alpha.job().await;
    let second = tokio::spawn(async move { second.issue(order).await });
    // So that it is there before the cards are, mostly.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    alpha.deliver(&job, &market.secrets(1), true).await;
    let first = first.await.expect("no panic").expect("its cards");
    let second = second.await.expect("no panic").expect("its cards");
    assert_eq!(first.cards, second.cards);
    market.close().await;
}
