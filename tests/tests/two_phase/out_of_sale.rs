//! Holds beside cards that are suspended or void.

use std::time::Duration;

use croupier_client::{CardMove, CardSelection, Error, OrderStep, Refusal};
use croupier_tests::Store;

use super::shop::{End, LONG, Shop, counts_of, refusal_of, verified};

#[tokio::test]
async fn cards_out_of_sale_leave_holds_what_they_were_promised() {
    let mut shop = Shop::open(Store::new(), 56, 50).await;
    let commit = shop.reserve(5, LONG).await;
    let cancel = shop.reserve(4, LONG).await;
    let expire = shop.reserve(3, Duration::from_millis(100)).await;
    let void = CardSelection::Order(commit);
    for issued in [false, true] {
        let answer = shop.client.move_cards(&void, CardMove::Void, issued).await;
        let Err(Error::Refused { refusal, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(refusal, Refusal::OrderNotFound, "it has no cards yet");
    }
    shop.expire(expire).await;
    assert_eq!(shop.counts().await, [41, 9, 0, 0]);
    assert_eq!(shop.move_all(CardMove::Suspend).await, 41);
    assert_eq!(shop.counts().await, [0, 50, 0, 0]);
    shop = shop.reopened(End::Kill).await;
    let late = shop.ask(OrderStep::commit(expire)).await;
    assert_eq!(refusal_of(&late), Some(Refusal::Expired), "none is free");
    let cards = shop.client.commit(commit).await.expect("promised").cards;
    assert_eq!(cards.len(), 5);
    assert_eq!(shop.counts().await, [0, 45, 5, 0]);
    // What a hold gives back is free, although the SKU was suspended before.
    shop.client.cancel(cancel).await.expect("it is held");
    assert_eq!(shop.counts().await, [4, 41, 5, 0]);
    shop.issue(4).await;
    shop = shop.reopened(End::Stop).await;
    assert_eq!(shop.move_all(CardMove::Resume).await, 41);
    assert_eq!(shop.counts().await, [41, 0, 9, 0]);

    // A recall with an open hold: its cards stay promised.
    let held = shop.reserve(2, LONG).await;
    assert_eq!(shop.move_all(CardMove::Void).await, 39);
    assert_eq!(shop.counts().await, [0, 2, 9, 39]);
    shop.client.commit(held).await.expect("promised");
    assert_eq!(shop.counts().await, [0, 0, 11, 39]);
    let void = CardSelection::Order(held);
    let moved = shop.client.move_cards(&void, CardMove::Void, true).await;
    assert_eq!(moved.expect("it has cards").moved, 2);
    let again = shop.client.commit(held).await.expect("it keeps its answer");
    assert!(again.repeat);
    assert_eq!(shop.counts().await, [0, 0, 9, 41]);
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 9, 41]);
}
