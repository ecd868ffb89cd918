//! Holds that get more time.

use std::time::Duration;

use croupier_client::{OrderId, OrderOutcome, OrderStep, Refusal};
use croupier_tests::Store;

use super::shop::{LONG, SHORT, Shop, counts_of, refusal_of, verified};

#[tokio::test]
async fn a_hold_is_extended_as_often_as_the_server_says_and_never_shortened() {
    for most in [0, 1, 3] {
        let store = Store::new()
            .with("--hold-extensions-max", most)
            .with("--hold-ttl-max-ms", 3_600_000);
        let shop = Shop::open(store, 45 + most, 10).await;
        let refused = async |step| refusal_of(&shop.ask(step).await);
        let id = shop.reserve(1, LONG / 4).await;
        let first = shop.look_up(id).await;
        let Some(OrderOutcome::Held(held)) = &first else {
            panic!("{first:?}");
        };
        let mut ends = held.hold.expect("a hold").ends_unix_ms;
        for nth in 1..=most {
            for other in [nth + 1, nth + 2, u16::MAX] {
                let step = OrderStep::extend(id, other, LONG);
                assert_eq!(refused(step).await, Some(Refusal::NoExtensionLeft), "{nth}");
            }
            let too_long = OrderStep::extend(id, nth, LONG + Duration::from_millis(1));
            assert_eq!(refused(too_long).await, Some(Refusal::TtlInvalid), "{nth}");
            // The second asks for less than there is.
            let ttl = [LONG / 2, SHORT, LONG][usize::from(nth) - 1];
            let held = shop.client.extend(id, nth, ttl).await.expect("the next");
            let hold = held.hold.expect("a hold");
            assert_eq!((hold.extensions, held.repeat), (nth, false));
            match ttl == SHORT {
                true => assert_eq!(hold.ends_unix_ms, ends, "it is not shortened"),
                false => assert!(hold.ends_unix_ms > ends, "it is longer"),
            }
            ends = hold.ends_unix_ms;
            if nth > 1 {
                let before =
                    OrderStep::extend(id, nth - 1, [LONG / 2, SHORT][usize::from(nth) - 2]);
                let refusal = refused(before).await;
                assert_eq!(
                    refusal,
                    Some(Refusal::NoExtensionLeft),
                    "only the last is known"
                );
            }
            let again = shop.client.extend(id, nth, ttl).await.expect("a repeat");
            assert_eq!(
                (again.lsn, again.hold, again.repeat),
                (held.lsn, held.hold, true)
            );
        }
        let step = OrderStep::extend(id, most + 1, LONG);
        assert_eq!(
            refused(step).await,
            Some(Refusal::NoExtensionLeft),
            "{most}"
        );

        for ttl_ms in [3_600_001, u32::MAX] {
            let ttl = Duration::from_millis(ttl_ms.into());
            let step = shop.reserve_of(OrderId::new_v7(), 1, ttl);
            assert_eq!(refused(step).await, Some(Refusal::TtlInvalid));
        }
        // An extension that came in time keeps a hold beyond its first end. The machine decides what is in time.
        let mut ttl = Duration::from_millis(100);
        if most > 0 {
            loop {
                let id = shop.reserve(1, ttl).await;
                let answer = shop.ask(OrderStep::extend(id, 1, LONG)).await;
                if refusal_of(&answer) == Some(Refusal::Expired) {
                    ttl *= 2;
                    continue;
                }
                let other = shop.reserve(1, ttl).await;
                shop.expire(other).await;
                assert_eq!(shop.look_up(id).await, Some(answer));
                break;
            }
        }
        let stock = shop.counts().await;
        shop.server.kill();
        assert_eq!(counts_of(&verified(&shop.store)), stock);
    }
}
