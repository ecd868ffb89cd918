//! Cards out of sale and back: docs/cards.md, by named cards, batches, SKUs and orders, under load and over crashes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use croupier_client::{
    CardMove, CardRef, CardSelection, Client, Error, Order, OrderId, OrderOutcome, Refusal, SkuId,
};
use croupier_tests::{Mint, Server, Store};

use super::stock::{counts, import_batch, stock};

/// A server with one batch, `a`, of the SKU `s`.
async fn stocked(mint: u16, cards: usize) -> (Store, Server, Client, SkuId) {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let sku = import_batch(&client, "s", "a", &Mint::new(mint).secrets(cards, 20)).await;
    (store, server, client, sku)
}

async fn issue(client: &Client, sku: SkuId) -> Result<(OrderId, CardRef), Refusal> {
    let id = OrderId::new_v7();
    let outcomes = client.issue_many(&[Order::new(id, sku)]).await;
    match &outcomes.expect("the server answers")[..] {
        [OrderOutcome::Issued(issued)] => Ok((id, issued.cards[0].card)),
        [OrderOutcome::Refused { refusal, .. }] => Err(*refusal),
        other => panic!("{other:?}"),
    }
}

pub(super) fn refusal_of<T: std::fmt::Debug>(answer: Result<T, Error>) -> Refusal {
    match answer {
        Err(Error::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Status {
    Free,
    Suspended,
    Issued,
    Void,
}

/// Status, move, whether issued cards go too, and what becomes of it: the table of docs/cards.md.
const TABLE: [(Status, CardMove, bool, Result<Status, Refusal>); 16] = {
    use CardMove as Move;
    use Refusal::{CardIssued, CardNotInState};
    use Status::*;
    [
        (Free, Move::Suspend, false, Ok(Suspended)),
        (Free, Move::Resume, false, Err(CardNotInState)),
        (Free, Move::Void, false, Ok(Void)),
        (Free, Move::Void, true, Ok(Void)),
        (Suspended, Move::Suspend, false, Err(CardNotInState)),
        (Suspended, Move::Resume, false, Ok(Free)),
        (Suspended, Move::Void, false, Ok(Void)),
        (Suspended, Move::Void, true, Ok(Void)),
        (Issued, Move::Suspend, false, Err(CardIssued)),
        (Issued, Move::Resume, false, Err(CardIssued)),
        (Issued, Move::Void, false, Err(CardIssued)),
        (Issued, Move::Void, true, Ok(Void)),
        (Void, Move::Suspend, false, Err(CardNotInState)),
        (Void, Move::Resume, false, Err(CardNotInState)),
        (Void, Move::Void, false, Err(CardNotInState)),
        (Void, Move::Void, true, Err(CardNotInState)),
    ]
};

#[tokio::test]
async fn every_status_has_an_answer_to_every_move() {
    let (store, server, client, sku) = stocked(1, 200).await;
    // Dealers take the lowest slots first.
    let mut free = (0..200).rev().map(|slot| CardRef {
        slab: 1,
        slot,
        generation: 0,
    });
    let place = |status: Status| match status {
        Status::Free => 0,
        Status::Suspended => 1,
        Status::Issued => 2,
        Status::Void => 3,
    };
    for (status, card_move, issued, outcome) in TABLE {
        let what = format!("{card_move:?} of a card that is {status:?}, issued {issued}");
        let card = match status {
            Status::Issued => issue(&client, sku).await.expect("there are cards").1,
            _ => free.next().expect("there are cards"),
        };
        let first = match status {
            Status::Suspended => Some(CardMove::Suspend),
            Status::Void => Some(CardMove::Void),
            Status::Free | Status::Issued => None,
        };
        let which = CardSelection::Cards(vec![card]);
        if let Some(first) = first {
            let moved = client.move_cards(&which, first, false).await.expect(&what);
            assert_eq!(moved.moved, 1, "{what}");
        }
        let before = counts(&stock(&client).await);
        // Beside a card that could go: all or none.
        let beside = free.next().expect("there are cards");
        if card_move == CardMove::Resume {
            let beside = CardSelection::Cards(vec![beside]);
            let suspended = client.move_cards(&beside, CardMove::Suspend, false).await;
            suspended.expect("a free card");
        }
        let both = CardSelection::Cards(vec![beside, card]);
        let answer = client.move_cards(&both, card_move, issued).await;
        let mut expected = before.map(|count| count as i64);
        let (beside_from, beside_to) = match card_move {
            CardMove::Suspend => (Status::Free, Status::Suspended),
            CardMove::Resume => (Status::Suspended, Status::Free),
            CardMove::Void => (Status::Free, Status::Void),
        };
        if card_move == CardMove::Resume {
            expected[place(Status::Free)] -= 1;
            expected[place(Status::Suspended)] += 1;
        }
        match outcome {
            Ok(to) => {
                let done = answer.expect(&what);
                assert_eq!(done.moved, 2, "{what}");
                assert!(done.lsn > 0);
                for (from, to) in [(status, to), (beside_from, beside_to)] {
                    expected[place(from)] -= 1;
                    expected[place(to)] += 1;
                }
            }
            Err(refusal) => assert_eq!(refusal_of(answer), refusal, "{what}"),
        }
        let after = counts(&stock(&client).await).map(|count| count as i64);
        assert_eq!(after, expected, "{what}: free, held, issued, void");
    }
    drop(server);
    let verified = store.wal("verify", &[]).ok().json();
    assert_eq!(verified["ok"], true);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_changes_nothing() {
    let (_store, server, client, _) = stocked(2, 5).await;
    let card = |slab, slot, generation| {
        CardSelection::Cards(vec![CardRef {
            slab,
            slot,
            generation,
        }])
    };
    let sku = |sku: &str| CardSelection::Sku(sku.into());
    let batch = |sku: &str, label: &str| CardSelection::Batch {
        sku: sku.into(),
        label: label.into(),
    };
    let cases = [
        (sku("t"), CardMove::Void, false, Refusal::UnknownSku),
        (
            batch("s", "b"),
            CardMove::Void,
            false,
            Refusal::UnknownBatch,
        ),
        (card(1, 5, 0), CardMove::Void, false, Refusal::UnknownCard),
        (card(2, 0, 0), CardMove::Void, false, Refusal::UnknownCard),
        (card(1, 0, 1), CardMove::Void, false, Refusal::UnknownCard),
        (
            CardSelection::Cards(Vec::new()),
            CardMove::Void,
            false,
            Refusal::SelectionInvalid,
        ),
        (
            CardSelection::Cards(vec![CardRef::default(); 1001]),
            CardMove::Void,
            false,
            Refusal::SelectionInvalid,
        ),
        (
            CardSelection::Order(OrderId::new_v7()),
            CardMove::Void,
            true,
            Refusal::OrderNotFound,
        ),
        (sku("s"), CardMove::Suspend, true, Refusal::SelectionInvalid),
        (sku("s"), CardMove::Resume, true, Refusal::SelectionInvalid),
    ];
    for (which, card_move, issued, refusal) in cases {
        let answer = client.move_cards(&which, card_move, issued).await;
        assert_eq!(refusal_of(answer), refusal, "{which:?}");
    }
    assert_eq!(counts(&stock(&client).await), [5, 0, 0, 0]);

    let none = server.croupier(&["resume", "--sku", "s", "--all"]).ok();
    assert!(none.stdout.contains("no card"), "{none}");
    server
        .croupier(&["void", "--sku", "s"])
        .fails(2, &["--batch", "--all"]);
    server
        .croupier(&["void", "--card", "x"])
        .fails(2, &["slab:slot"]);
    server.croupier(&["suspend"]).fails(2, &["--sku", "--card"]);
    let order = OrderId::new_v7().to_string();
    server
        .croupier(&["void", "--order", &order])
        .fails(2, &["--issued"]);
    let done = server
        .croupier(&["suspend", "--card", "1:4", "--card", "1:3.0", "--json"])
        .ok()
        .json();
    assert_eq!(done["moved"], 2);
    assert_eq!(counts(&stock(&client).await), [3, 2, 0, 0]);
}

#[tokio::test]
async fn a_batch_out_of_sale_stays_so_over_kills_and_stops_and_orders_keep_their_answers() {
    let store = Store::new();
    let mut server = store.serve();
    let mut client = server.client().await;
    let mut mint = Mint::new(3);
    let sku = import_batch(&client, "s", "a", &mint.secrets(100, 20)).await;
    import_batch(&client, "s", "b", &mint.secrets(50, 20)).await;
    let batch = |label: &str| CardSelection::Batch {
        sku: "s".into(),
        label: label.into(),
    };
    let mut orders = Vec::new();
    for _ in 0..20 {
        orders.push(issue(&client, sku).await.expect("there are cards"));
    }
    let suspended = client
        .move_cards(&batch("a"), CardMove::Suspend, false)
        .await;
    let suspended = suspended.expect("a batch").moved;
    assert_eq!(
        counts(&stock(&client).await),
        [130 - suspended, suspended, 20, 0]
    );
    let of_a: HashSet<CardRef> = orders.iter().map(|(_, card)| *card).collect();
    assert_eq!(
        suspended,
        100 - of_a.iter().filter(|card| card.slab == 1).count() as u64
    );

    for round in 0..3 {
        // As it was left: by a kill, by another one, by a stop that folds.
        let left = counts(&stock(&client).await);
        if round < 2 {
            server.kill();
        } else {
            server.stop().ok();
        }
        store.wal("verify", &[]).ok();
        server = store.serve();
        client = server.client().await;
        assert_eq!(counts(&stock(&client).await), left, "round {round}");
        match round {
            0 => {
                // Only the other batch is dealt, to its end.
                while let Ok((id, card)) = issue(&client, sku).await {
                    assert_eq!(card.slab, 2, "a suspended card was dealt");
                    orders.push((id, card));
                }
                assert_eq!(issue(&client, sku).await, Err(Refusal::OutOfStock));
                let resumed = client
                    .move_cards(&batch("a"), CardMove::Resume, false)
                    .await;
                assert_eq!(resumed.expect("a batch").moved, suspended);
                for _ in 0..30 {
                    orders.push(issue(&client, sku).await.expect("they are back"));
                }
            }
            1 => {
                let void = client.move_cards(&batch("a"), CardMove::Void, true).await;
                assert_eq!(void.expect("a batch").moved, 100);
                let of_b = orders.iter().filter(|(_, card)| card.slab == 2).count() as u64;
                assert_eq!(counts(&stock(&client).await), [0, 0, of_b, 100]);
            }
            _ => {}
        }
    }
    assert_eq!(issue(&client, sku).await, Err(Refusal::OutOfStock));
    for (id, card) in orders {
        let found = client.order(id).await.expect("a look-up");
        let order = found
            .and_then(OrderOutcome::into_issued)
            .expect("it stands");
        assert_eq!(order.cards[0].card, card);
    }
    let (id, _) = {
        import_batch(&client, "s", "c", &mint.secrets(3, 20)).await;
        issue(&client, sku).await.expect("there are cards again")
    };
    let void = server
        .croupier(&["void", "--order", &id.to_string(), "--issued", "--json"])
        .ok();
    assert_eq!(void.json()["moved"], 1);
    let answer = client
        .move_cards(&CardSelection::Order(id), CardMove::Void, true)
        .await;
    assert_eq!(refusal_of(answer), Refusal::CardNotInState);
    server.stop().ok();
    let records = store.wal("dump", &[]).ok().json();
    let last = records.as_array().expect("records").iter().rev();
    let moved = last
        .into_iter()
        .find(|record| record["kind"] == "CardsMoved");
    let moved = moved.expect("the last move is in the log");
    assert_eq!(
        (&moved["from"], &moved["to"], &moved["cause"]),
        (&"issued".into(), &"void".into(), &"operator".into())
    );
}

/// While callers order as fast as they can: after the answer to a suspend nothing is dealt, and after the answer to a resume
/// something is.
#[tokio::test]
async fn under_load_a_suspended_sku_deals_nothing_until_it_is_resumed() {
    let (store, server, client, sku) = stocked(4, 60_000).await;
    let over = Arc::new(AtomicBool::new(false));
    let loaders: Vec<_> = (0..4)
        .map(|_| {
            let (over, addr) = (over.clone(), server.builder());
            tokio::spawn(async move {
                let client = addr.build().await.expect("a connection");
                let mut cards = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let orders = [(); 16].map(|()| Order::new(OrderId::new_v7(), sku));
                    for outcome in client.issue_many(&orders).await.expect("an answer") {
                        match outcome {
                            OrderOutcome::Issued(issued) => cards.push(issued.cards[0].card),
                            OrderOutcome::Refused { refusal, .. } => {
                                assert!(matches!(refusal, Refusal::OutOfStock | Refusal::Busy));
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
                cards
            })
        })
        .collect();
    let all = CardSelection::Sku("s".into());
    for _ in 0..20 {
        let suspended = client.move_cards(&all, CardMove::Suspend, false).await;
        let suspended = suspended.expect("a SKU").moved;
        assert_eq!(
            issue(&client, sku).await.map(|_| ()),
            Err(Refusal::OutOfStock)
        );
        let row = stock(&client).await;
        assert_eq!((row.free, row.held), (0, suspended));
        let resumed = client.move_cards(&all, CardMove::Resume, false).await;
        assert_eq!(resumed.expect("a SKU").moved, suspended);
        if suspended > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    // A recall while it is sold: what was just being sold is found, too.
    let void = client.move_cards(&all, CardMove::Void, true).await;
    assert_eq!(void.expect("a SKU").moved, 60_000);
    over.store(true, Ordering::Relaxed);
    let mut dealt = HashSet::new();
    for loader in loaders {
        for card in loader.await.expect("a loader does not panic") {
            assert!(dealt.insert(card), "{card} went to two orders");
        }
    }
    assert!(!dealt.is_empty());
    assert_eq!(counts(&stock(&client).await), [0, 0, 0, 60_000]);
    server.kill();
    store.wal("verify", &[]).ok();
}

/// A stop while a move of many records is under way: the server stops in good order, what was written stands, and the same
/// request goes on with the rest.
#[tokio::test]
async fn a_stop_in_the_middle_of_a_move_leaves_what_was_written_and_the_rest_to_the_next() {
    let (store, mut server, mut client, _) = stocked(5, 60_000).await;
    let all = CardSelection::Sku("s".into());
    // Every second card: as many runs as there can be, and so many records.
    for from in (0..60_000).step_by(2_000) {
        let cards = (from..from + 2_000).step_by(2).map(|slot| CardRef {
            slab: 1,
            slot,
            generation: 0,
        });
        let cards = CardSelection::Cards(cards.collect());
        let moved = client.move_cards(&cards, CardMove::Suspend, false).await;
        assert_eq!(moved.expect("free cards").moved, 1_000);
    }
    for round in 0..8 {
        let mover = client.clone();
        let (all_of_it, back) = (all.clone(), round % 2 == 0);
        let to = if back {
            CardMove::Resume
        } else {
            CardMove::Suspend
        };
        let before = counts(&stock(&client).await);
        let moving = tokio::spawn(async move { mover.move_cards(&all_of_it, to, false).await });
        tokio::time::sleep(std::time::Duration::from_micros(500 * round)).await;
        server.stop().ok();
        match moving.await.expect("a call does not panic") {
            Ok(_) => {}
            Err(error) => {
                let known = matches!(
                    error,
                    Error::Refused {
                        refusal: Refusal::ShuttingDown,
                        ..
                    } | Error::OutcomeUnknown { .. }
                        | Error::Closed { .. }
                        | Error::Unreachable { .. }
                        | Error::TimedOut { .. }
                );
                assert!(known, "{error}");
            }
        }
        store.wal("verify", &[]).ok();
        server = store.serve();
        client = server.client().await;
        let after = counts(&stock(&client).await);
        assert_eq!(before[0] + before[1], after[0] + after[1], "round {round}");
        // The rest.
        let rest = client.move_cards(&all, to, false).await.expect("a SKU");
        let gone = usize::from(!back);
        assert_eq!(rest.moved, if back { after[1] } else { after[0] });
        assert_eq!(counts(&stock(&client).await)[gone], 60_000);
    }
}
