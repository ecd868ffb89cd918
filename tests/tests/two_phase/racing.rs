//! Several callers and one order.

use croupier_client::{OrderId, OrderOutcome, OrderStep, Refusal};
use croupier_tests::Store;

use super::shop::{LONG, Shop, counts_of, refusal_of, verified};

/// Many callers take steps of the same orders at once: each order ends one way, and every answer says so.
#[tokio::test]
async fn callers_who_race_for_an_order_agree_on_its_end() {
    let shop = Shop::open(Store::new(), 57, 2_000).await;
    let (one, other) = (shop.server.client().await, shop.server.client().await);
    for _ in 0..20 {
        let ids: Vec<OrderId> = (0..50).map(|_| OrderId::new_v7()).collect();
        let reserves: Vec<_> = ids.iter().map(|id| shop.reserve_of(*id, 2, LONG)).collect();
        shop.client.steps(&reserves).await.expect("answers");
        let commits: Vec<_> = ids.iter().map(|id| OrderStep::commit(*id)).collect();
        let parts: Vec<_> = ids
            .iter()
            .map(|id| OrderStep::commit(*id).quantity(1))
            .collect();
        let cancels: Vec<_> = ids.iter().map(|id| OrderStep::cancel(*id)).collect();
        let (commits, parts, cancels) = tokio::join!(
            one.steps(&commits),
            other.steps(&parts),
            shop.client.steps(&cancels)
        );
        let outcomes = [commits, parts, cancels].map(|outcomes| outcomes.expect("answers"));
        for (nth, id) in ids.iter().enumerate() {
            let stands = shop.look_up(*id).await.expect("it is there");
            let answers = outcomes.each_ref().map(|outcomes| &outcomes[nth]);
            let won: Vec<_> = answers
                .iter()
                .filter(|answer| refusal_of(answer).is_none())
                .collect();
            assert_eq!(won.len(), 1, "{answers:?}");
            assert_eq!(**won[0], stands);
            for answer in answers {
                let told = matches!(
                    (refusal_of(answer), &stands),
                    (None, _)
                        | (Some(Refusal::AlreadyCancelled), OrderOutcome::Cancelled(_))
                        | (
                            Some(Refusal::AlreadyCommitted | Refusal::OrderIdReused),
                            OrderOutcome::Issued(_),
                        )
                );
                assert!(told, "{answer:?} of {stands:?}");
            }
        }
    }
    let stock = shop.counts().await;
    assert_eq!(stock[1], 0);
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), stock);
}
