//! Orders in two phases: what each step sends, what its answer becomes, and what a lost answer means.

use std::time::Duration;

use croupier_client::{
    Client, DEFAULT_TTL, Error, HeldOrder, Order, OrderId, OrderOutcome, OrderStep, Priority,
    ProtocolError, Refusal, SkuId, Step,
};
use croupier_protocol::*;

use crate::peer::{Conn, Peer, put_dealt, secret_of};

const ENDS: u64 = 1_893_456_000_000;

fn held(order_id: OrderId, extensions: Option<u16>) -> HeldOrder {
    HeldOrder {
        order_id,
        lsn: Lsn(9),
        sku: SkuId(7),
        quantity: 3,
        repeat: false,
        hold: extensions.map(|extensions| Hold {
            ends_unix_ms: ENDS,
            extensions,
        }),
    }
}

/// The next frame, which asks for one step of this kind.
async fn one_step(conn: &mut Conn, kind: Kind) -> (FrameHeader, StepItem) {
    let (header, items) = conn.steps(kind).await;
    let [item] = items[..] else {
        panic!("one item: {items:?}")
    };
    (header, item)
}

/// A good answer to a step.
async fn answer(conn: &mut Conn, header: FrameHeader, item: &StepItem) {
    let put = |out: &mut _| match Step::of_kind(header.kind).unwrap() {
        Step::Issue | Step::Commit => put_dealt(out, item.order_id, true),
        Step::Reserve => put_hold(out, STATUS_HELD, &held(item.order_id, Some(0))),
        Step::Extend => put_hold(out, STATUS_HELD, &held(item.order_id, Some(item.quantity))),
        Step::Cancel => put_hold(out, STATUS_CANCELLED, &held(item.order_id, None)),
    };
    conn.reply(header, 1, 0, put).await;
}

/// What a call says of the order that it is about.
async fn call(client: &Client, step: Step, id: OrderId) -> Result<(), Error> {
    match step {
        Step::Issue => client.issue(Order::new(id, SkuId(7))).await.map(drop),
        Step::Reserve => {
            let order = Order::new(id, SkuId(7)).quantity(3);
            client.reserve(order, DEFAULT_TTL).await.map(drop)
        }
        Step::Commit => client.commit_part(id, 2).await.map(drop),
        Step::Cancel => client.cancel(id).await.map(drop),
        Step::Extend => client.extend(id, 1, DEFAULT_TTL).await.map(drop),
    }
}

#[tokio::test]
async fn each_step_is_sent_as_written_and_its_answer_comes_back() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let id = OrderId::new_v7();
    let order = Order::new(id, SkuId(7))
        .quantity(3)
        .priority(Priority::Vip)
        .deadline(Duration::from_secs(1));
    let script = async {
        let (header, item) = one_step(&mut conn, Kind::Reserve).await;
        assert!((1..=1000).contains(&item.deadline_ms));
        let expect = StepItem {
            quantity: 3,
            priority: Priority::Vip as u8,
            deadline_ms: item.deadline_ms,
            ttl_ms: 900_000,
            ..StepItem::one(id, SkuId(7))
        };
        assert_eq!(item, expect);
        answer(&mut conn, header, &item).await;

        let (header, item) = one_step(&mut conn, Kind::Extend).await;
        let expect = StepItem {
            quantity: 2,
            ttl_ms: 1_500,
            ..StepItem::of(id)
        };
        assert_eq!(item, expect);
        answer(&mut conn, header, &item).await;

        let (header, item) = one_step(&mut conn, Kind::Cancel).await;
        assert_eq!(item, StepItem::of(id));
        answer(&mut conn, header, &item).await;

        for (quantity, flags) in [(0, 0), (2, 0), (1, STEP_FLAG_ONLY_HELD)] {
            let (header, item) = one_step(&mut conn, Kind::Commit).await;
            let expect = StepItem {
                quantity,
                flags,
                ..StepItem::of(id)
            };
            assert_eq!(item, expect);
            answer(&mut conn, header, &item).await;
        }
    };
    let calls = async {
        let reserved = client.reserve(order, DEFAULT_TTL).await.unwrap();
        assert_eq!(reserved, held(id, Some(0)));
        let longer = client.extend(id, 2, Duration::from_millis(1_500)).await;
        assert_eq!(longer.unwrap(), held(id, Some(2)));
        assert_eq!(client.cancel(id).await.unwrap(), held(id, None));
        for issued in [
            client.commit(id).await.unwrap(),
            client.commit_part(id, 2).await.unwrap(),
            client.commit_only_held(id, 1).await.unwrap(),
        ] {
            assert!(issued.order_id == id && issued.repeat);
            let secret = issued.cards[0].secret.as_bytes();
            assert_eq!(secret, secret_of(id).as_bytes());
        }
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn steps_of_several_kinds_go_in_a_frame_for_each_run_of_a_kind() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let ids: Vec<_> = (0..6).map(|_| OrderId::new_v7()).collect();
    let order = |index: usize| Order::new(ids[index], SkuId(7));
    let steps = [
        OrderStep::reserve(order(0), DEFAULT_TTL),
        OrderStep::reserve(order(1), DEFAULT_TTL),
        OrderStep::commit(ids[2]),
        OrderStep::cancel(ids[3]),
        OrderStep::issue(order(4)),
        OrderStep::reserve(order(5), DEFAULT_TTL),
    ];
    let script = async {
        let mut frames = Vec::new();
        for kind in [
            Kind::Reserve,
            Kind::Commit,
            Kind::Cancel,
            Kind::Issue,
            Kind::Reserve,
        ] {
            frames.push(conn.steps(kind).await);
        }
        let (first, two) = frames.remove(0);
        assert_eq!(two.len(), 2);
        // The last is answered first.
        for (header, items) in frames.iter().rev() {
            assert_eq!(items.len(), 1);
            answer(&mut conn, *header, &items[0]).await;
        }
        let put = |out: &mut _| {
            put_hold(out, STATUS_HELD, &held(ids[0], Some(0)));
            put_refused(out, ids[1], SkuId(7), Refusal::OutOfStock, 0);
        };
        conn.reply(first, 2, 0, put).await;
    };
    let (outcomes, ()) = tokio::join!(client.steps(&steps), script);
    let outcomes = outcomes.unwrap();
    let answered: Vec<_> = outcomes.iter().map(OrderOutcome::order_id).collect();
    assert_eq!(answered, ids);
    assert_eq!(outcomes[0], OrderOutcome::Held(held(ids[0], Some(0))));
    assert!(matches!(
        outcomes[1],
        OrderOutcome::Refused {
            refusal: Refusal::OutOfStock,
            ..
        }
    ));
    assert!(outcomes[2].issued().is_some() && outcomes[4].issued().is_some());
    assert_eq!(outcomes[3], OrderOutcome::Cancelled(held(ids[3], None)));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_numbers() {
    for step in Step::ALL {
        let peer = Peer::bind().await;
        let (client, mut conn) = peer.connected(peer.builder()).await;
        let id = OrderId::new_v7();
        let script = async {
            let (_, item) = one_step(&mut conn, step.kind()).await;
            drop(conn);
            let mut conn = peer.accept().await;
            let (header, again) = one_step(&mut conn, step.kind()).await;
            assert_eq!(again, item);
            answer(&mut conn, header, &again).await;
            conn
        };
        let (answered, _conn) = tokio::join!(call(&client, step, id), script);
        answered.unwrap();
    }
}

#[tokio::test]
async fn a_step_that_was_sent_and_never_answered_is_unknown() {
    for step in Step::ALL {
        let peer = Peer::bind().await;
        let (client, mut conn) = peer.connected(peer.builder().retries(0)).await;
        let id = OrderId::new_v7();
        let script = async {
            one_step(&mut conn, step.kind()).await;
            drop(conn);
        };
        let (answered, ()) = tokio::join!(call(&client, step, id), script);
        let error = answered.unwrap_err();
        assert!(
            matches!(&error, Error::OutcomeUnknown { count: 1, first, .. } if *first == id),
            "{step:?}: {error}"
        );
    }
}

#[tokio::test]
async fn a_refusal_that_tells_how_the_order_stands_settles_an_earlier_try() {
    for (step, refusal) in [
        (Step::Reserve, Refusal::AlreadyCommitted),
        (Step::Reserve, Refusal::TtlInvalid),
        (Step::Commit, Refusal::AlreadyCancelled),
        (Step::Commit, Refusal::Expired),
        (Step::Commit, Refusal::NotSoManyHeld),
        (Step::Cancel, Refusal::OrderNotFound),
        (Step::Extend, Refusal::NoExtensionLeft),
    ] {
        let peer = Peer::bind().await;
        let (client, mut conn) = peer.connected(peer.builder()).await;
        let id = OrderId::new_v7();
        let script = async {
            one_step(&mut conn, step.kind()).await;
            drop(conn);
            let mut conn = peer.accept().await;
            let (header, item) = one_step(&mut conn, step.kind()).await;
            conn.refuse(header, &[item], refusal, 0).await;
            conn
        };
        let (answered, _conn) = tokio::join!(call(&client, step, id), script);
        let error = answered.unwrap_err();
        assert_eq!(error.refusal(), Some(refusal), "{step:?}: {error}");
        let Error::Refused { order_id, .. } = error else {
            unreachable!("it is a refusal")
        };
        assert_eq!(order_id, Some(id));
    }
}

#[tokio::test]
async fn a_store_that_failed_leaves_the_step_unknown() {
    for step in Step::ALL {
        let peer = Peer::bind().await;
        let (client, mut conn) = peer.connected(peer.builder()).await;
        let script = async {
            let (header, item) = one_step(&mut conn, step.kind()).await;
            conn.refuse(header, &[item], Refusal::StoreFailed, 0).await;
        };
        let id = OrderId::new_v7();
        let (answered, ()) = tokio::join!(call(&client, step, id), script);
        let error = answered.unwrap_err();
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_to_the_step_is_told_and_leaves_it_unknown() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let id = OrderId::new_v7();
    let script = async {
        let (header, item) = one_step(&mut conn, Kind::Reserve).await;
        conn.deal(header, &[item], false).await;
        let (header, _) = one_step(&mut conn, Kind::Cancel).await;
        let put = |out: &mut _| put_hold(out, STATUS_EXPIRED, &held(id, None));
        conn.reply(header, 1, 0, put).await;
    };
    let calls = async {
        for step in [Step::Reserve, Step::Cancel] {
            let error = call(&client, step, id).await.unwrap_err();
            let Error::OutcomeUnknown { cause, .. } = error else {
                panic!("{error}")
            };
            let expect = ProtocolError::WrongOutcome {
                kind: step.kind(),
                order_id: id,
            };
            assert!(
                matches!(&*cause, Error::Protocol(found) if *found == expect),
                "{cause}"
            );
        }
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn a_look_up_tells_how_an_order_stands() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let id = OrderId::new_v7();
    let states = [
        (STATUS_HELD, OrderOutcome::Held(held(id, Some(1)))),
        (STATUS_CANCELLED, OrderOutcome::Cancelled(held(id, None))),
        (STATUS_EXPIRED, OrderOutcome::Expired(held(id, None))),
    ];
    let script = async {
        for (status, outcome) in &states {
            let (header, _) = conn.expect(Kind::LookUp).await;
            let (OrderOutcome::Held(order)
            | OrderOutcome::Cancelled(order)
            | OrderOutcome::Expired(order)) = outcome
            else {
                unreachable!("all have a hold, or had one")
            };
            let put = |out: &mut _| put_hold(out, *status, order);
            conn.reply(header, 1, 0, put).await;
        }
        let (header, _) = conn.expect(Kind::LookUp).await;
        conn.reply(header, 1, 0, |out| put_dealt(out, id, false))
            .await;
        let (header, _) = conn.expect(Kind::LookUp).await;
        let put = |out: &mut _| put_refused(out, id, SkuId(0), Refusal::OrderNotFound, 0);
        conn.reply(header, 1, 0, put).await;
    };
    let calls = async {
        for (_, outcome) in &states {
            assert_eq!(client.order(id).await.unwrap().as_ref(), Some(outcome));
        }
        let issued = client.order(id).await.unwrap().expect("it is there");
        assert_eq!(issued.into_issued().unwrap().order_id, id);
        assert_eq!(client.order(id).await.unwrap(), None);
    };
    tokio::join!(calls, script);
}
