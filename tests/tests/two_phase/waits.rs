//! Orders that wait for stock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use croupier_client::{
    CardMove, Error, Order, OrderId, OrderOutcome, OrderStep, Priority, Refusal, Wait,
};
use croupier_tests::Store;
use serde_json::Value;

use super::shop::{End, LONG, SHORT, Shop, counts_of, refusal_of, repeated, until, verified};

impl Shop {
    /// A shop that has dealt its only card.
    async fn sold_out(mint: u16) -> Shop {
        let shop = Shop::open(Store::new(), mint, 1).await;
        shop.issue(1).await;
        shop
    }

    fn waiting_issue(&self, id: OrderId, quantity: u16) -> OrderStep {
        self.issue_of(id, quantity).wait(Wait::Told, LONG)
    }

    async fn wait_in_line(&self, step: OrderStep) -> OrderId {
        let answer = self.ask(step).await;
        assert!(matches!(answer, OrderOutcome::Waiting(_)), "{answer:?}");
        step.order.order_id
    }

    /// `issued`, `held`, `waiting` or how else it stands.
    async fn stands(&self, id: OrderId) -> &'static str {
        match self.look_up(id).await {
            Some(OrderOutcome::Issued(_)) => "issued",
            Some(OrderOutcome::Held(_)) => "held",
            Some(OrderOutcome::Waiting(_)) => "waiting",
            Some(OrderOutcome::Cancelled(_)) => "cancelled",
            Some(OrderOutcome::Expired(_)) => "expired",
            other => panic!("{other:?}"),
        }
    }

    async fn until_it(&self, id: OrderId, stands: &str) {
        until(stands, async || self.stands(id).await == stands).await;
    }
}

/// How an order that waits came to where it is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Became {
    Waiting,
    Filled,
    Cancelled,
    Expired,
}

#[tokio::test]
async fn orders_that_wait_or_have_waited_have_an_answer_to_every_step() {
    use Refusal::{AlreadyCancelled, Expired, OrderIdReused, OrderNotFound, StillWaiting};
    let mut shop = Shop::sold_out(1_100).await;
    let reused = Err(OrderIdReused);
    // What became of it; whether it was to be issued (else reserved); and the answers to: issue, reserve, commit, cancel, extend.
    type Row = (Became, bool, [Result<&'static str, Refusal>; 5]);
    let waiting = Err(StillWaiting);
    let table: [Row; 8] = [
        (
            Became::Waiting,
            true,
            [Ok("again"), reused, waiting, Ok("cancelled"), waiting],
        ),
        (
            Became::Waiting,
            false,
            [reused, Ok("again"), waiting, Ok("cancelled"), waiting],
        ),
        (
            Became::Filled,
            true,
            [Ok("issued"), reused, reused, reused, reused],
        ),
        (
            Became::Filled,
            false,
            [
                reused,
                Ok("held"),
                Ok("issued"),
                Ok("cancelled"),
                Ok("held"),
            ],
        ),
        (
            Became::Cancelled,
            true,
            [
                Err(AlreadyCancelled),
                reused,
                reused,
                Ok("cancelled"),
                reused,
            ],
        ),
        (
            Became::Cancelled,
            false,
            [
                reused,
                Err(AlreadyCancelled),
                Err(AlreadyCancelled),
                Ok("cancelled"),
                Err(AlreadyCancelled),
            ],
        ),
        (
            Became::Expired,
            true,
            [Err(Expired), reused, reused, Err(Expired), reused],
        ),
        (
            Became::Expired,
            false,
            // Nothing is free, so a late commit finds nothing.
            [
                reused,
                Err(Expired),
                Err(Expired),
                Err(Expired),
                Err(Expired),
            ],
        ),
    ];
    for (became, is_issue, row) in table {
        for (nth, expected) in row.into_iter().enumerate() {
            let what = format!("{became:?}, to be issued: {is_issue}, step {nth}");
            let id = OrderId::new_v7();
            let within = match became {
                Became::Expired => SHORT,
                _ => LONG,
            };
            let [issue, reserve] = [shop.issue_of(id, 2), shop.reserve_of(id, 2, LONG)]
                .map(|step| step.wait(Wait::Told, within));
            let first = shop.ask(if is_issue { issue } else { reserve }).await;
            let OrderOutcome::Waiting(waits) = &first else {
                panic!("{what}: {first:?}");
            };
            assert_eq!(
                (waits.sku, waits.quantity, waits.repeat),
                (shop.sku, 2, false)
            );
            if became != Became::Expired {
                assert_eq!(shop.look_up(id).await.as_ref(), Some(&first), "{what}");
            }
            match became {
                Became::Waiting => {}
                Became::Filled => {
                    shop.restock("main", 2).await;
                    shop.until_it(id, if is_issue { "issued" } else { "held" })
                        .await;
                }
                Became::Cancelled => {
                    shop.ask(OrderStep::cancel(id)).await;
                }
                Became::Expired => shop.until_it(id, "expired").await,
            }
            let stood = shop.look_up(id).await;
            let step = [
                issue,
                reserve,
                OrderStep::commit(id),
                OrderStep::cancel(id),
                OrderStep::extend(id, 1, LONG),
            ][nth];
            let answer = shop.ask(step).await;
            let word = match &answer {
                answer if *answer == repeated(&first) => Ok("again"),
                OrderOutcome::Issued(_) => Ok("issued"),
                OrderOutcome::Held(_) => Ok("held"),
                OrderOutcome::Cancelled(_) => Ok("cancelled"),
                OrderOutcome::Refused { refusal, .. } => Err(*refusal),
                other => panic!("{what}: {other:?}"),
            };
            assert_eq!(word, expected, "{what}");
            if word.is_err() || word == Ok("again") {
                assert_eq!(shop.look_up(id).await, stood, "{what}");
            }
            // A step without the flag is the same step.
            let plain = OrderStep {
                wait: Wait::No,
                ..step
            };
            if nth < 2 && matches!(expected, Ok("again" | "issued" | "held")) {
                assert_eq!(shop.ask(plain).await, repeated(&answer), "{what}");
            }
            // For the next: nothing waits, nothing is held, nothing is free.
            if matches!(shop.stands(id).await, "waiting" | "held") {
                shop.ask(OrderStep::cancel(id)).await;
            }
            while shop.counts().await[0] > 0 {
                shop.issue(1).await;
            }
        }
    }
    for step in [
        OrderStep::commit(OrderId::new_v7()),
        OrderStep::extend(OrderId::new_v7(), 1, LONG),
    ] {
        assert_eq!(refusal_of(&shop.ask(step).await), Some(OrderNotFound));
    }
    let stock = shop.counts().await;
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), stock);
}

/// LSNs by which orders came in line and were filled, from the log; checks the order on the way.
fn check_line(store: &Store) -> usize {
    let dump = store.wal("dump", &[]).ok().json();
    let mut line: BTreeMap<(String, u64), (String, u64)> = BTreeMap::new();
    let mut filled = 0;
    for record in dump.as_array().expect("records") {
        let word = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let id = word("order_id");
        match record["kind"].as_str() {
            Some("Backordered") => {
                let place = (word("priority"), record["lsn"].as_u64().expect("an LSN"));
                line.insert(place, (id, record["quantity"].as_u64().expect("a number")));
            }
            Some("Issued" | "Reserved") if record["filled"] == true => {
                let found = line.iter().find(|(_, (other, _))| *other == id);
                let (place, (_, quantity)) = found.expect("it waited");
                let (place, quantity) = (place.clone(), *quantity);
                let before = line
                    .range((place.0.clone(), 0)..place.clone())
                    .find(|(_, (_, other))| *other <= quantity);
                assert_eq!(before, None, "{record} before its time");
                line.remove(&place);
                filled += 1;
            }
            Some("Released") => line.retain(|_, (other, _)| *other != id),
            _ => {}
        }
    }
    filled
}

#[tokio::test]
async fn imports_fill_the_line_in_its_order_also_after_a_restart() {
    for end in [None, Some(End::Kill), Some(End::Stop)] {
        let mut shop = Shop::sold_out(1_200).await;
        let mut line = Vec::new();
        for nth in 0..12u16 {
            let priority =
                [Priority::Bulk, Priority::Standard, Priority::Vip][usize::from(nth) % 3];
            let id = OrderId::new_v7();
            let order = Order::new(id, shop.sku)
                .quantity(1 + u16::from(nth == 4))
                .priority(priority);
            let step = match nth % 2 {
                0 => OrderStep::issue(order),
                _ => OrderStep::reserve(order, LONG),
            };
            line.push((
                priority as u8,
                nth,
                shop.wait_in_line(step.wait(Wait::Told, LONG)).await,
            ));
        }
        line.sort_unstable();
        if let Some(end) = end {
            shop = shop.reopened(end).await;
        }
        let expected = |nth: u16| {
            if nth.is_multiple_of(2) {
                "issued"
            } else {
                "held"
            }
        };
        // The fifth of these wants two cards.
        let (fifth, place) = (line[5].2, 5);
        assert_eq!(line[place].1, 4);
        for (served, (_, nth, id)) in line.iter().enumerate() {
            if served == place {
                continue;
            }
            assert_eq!(shop.stands(*id).await, "waiting");
            shop.restock("main", 1).await;
            shop.until_it(*id, expected(*nth)).await;
            // One card at a time: whoever wants two is passed over and keeps its place.
            assert_eq!(shop.stands(fifth).await, "waiting");
            assert_eq!(shop.counts().await[0], 0);
        }
        shop.restock("main", 3).await;
        shop.until_it(fifth, "issued").await;
        assert_eq!(shop.counts().await, [1, 6, 8, 0]);
        shop.server.kill();
        let verified = verified(&shop.store);
        assert_eq!(counts_of(&verified), [1, 6, 8, 0]);
        if end != Some(End::Stop) {
            assert_eq!(check_line(&shop.store), 12);
        }
    }
}

#[tokio::test]
async fn stock_that_comes_back_otherwise_goes_to_the_line_too() {
    let shop = Shop::open(Store::new(), 1_300, 6).await;
    let held = shop.reserve(2, LONG).await;
    let part = shop.reserve(2, LONG).await;
    shop.move_all(CardMove::Suspend).await;
    let mut line = Vec::new();
    for _ in 0..4 {
        let id = OrderId::new_v7();
        line.push(shop.wait_in_line(shop.waiting_issue(id, 1)).await);
    }
    shop.ask(OrderStep::cancel(held)).await;
    shop.until_it(line[1], "issued").await;
    assert_eq!(shop.stands(line[2]).await, "waiting");
    shop.ask(OrderStep::commit(part).quantity(1)).await;
    shop.until_it(line[2], "issued").await;
    assert_eq!(shop.stands(line[3]).await, "waiting");
    shop.move_all(CardMove::Resume).await;
    shop.until_it(line[3], "issued").await;
    assert_eq!(shop.counts().await, [1, 0, 5, 0]);
    // A hold that expires.
    let short = shop.reserve(1, Duration::from_millis(300)).await;
    let last = shop
        .wait_in_line(shop.waiting_issue(OrderId::new_v7(), 1))
        .await;
    shop.until_it(last, "issued").await;
    assert!(shop.is_expired(short).await);
    shop.server.kill();
    assert_eq!(counts_of(&verified(&shop.store)), [0, 0, 6, 0]);
}

#[tokio::test]
async fn whoever_stays_is_answered_when_the_order_waits_no_longer() {
    let mut shop = Shop::sold_out(1_400).await;
    let order = |quantity| Order::new(OrderId::new_v7(), shop.sku).quantity(quantity);
    let stay = |order: Order, within| {
        let client = shop.client.clone();
        tokio::spawn(async move { client.issue_waiting(order, within).await })
    };
    let [filled, cancelled, late] = [order(1), order(2), order(3)];
    let until_waits = async |order: Order| {
        until("it waits", async || {
            matches!(
                shop.look_up(order.order_id).await,
                Some(OrderOutcome::Waiting(_))
            )
        })
        .await;
    };
    let first = stay(filled, LONG);
    until_waits(filled).await;
    // Another caller of the same order stays, too.
    let again = stay(filled, LONG);
    let second = stay(cancelled, LONG);
    until_waits(cancelled).await;
    let begun = Instant::now();
    let third = stay(late, Duration::from_millis(200))
        .await
        .expect("it ends");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let refused = |answer: Result<_, Error>| match answer {
        Err(Error::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(third), Refusal::Expired);
    shop.client
        .cancel(cancelled.order_id)
        .await
        .expect("it waits");
    let second = second.await.expect("it ends");
    assert_eq!(refused(second), Refusal::AlreadyCancelled);
    shop.restock("main", 1).await;
    let [first, again] = [first, again].map(|task| async { task.await.expect("it ends") });
    let (first, again) = (first.await.expect("a card"), again.await.expect("a card"));
    assert_eq!(first.cards, again.cards);
    assert!(!first.repeat, "it was asked for once");
    assert!(again.repeat, "it had been asked for before");

    // Reservations wait as well, and hold from then on.
    let held = Order::new(OrderId::new_v7(), shop.sku);
    let client = shop.client.clone();
    let fourth = tokio::spawn(async move { client.reserve_waiting(held, LONG, LONG).await });
    until("it waits", async || {
        shop.look_up(held.order_id).await.is_some()
    })
    .await;
    shop.restock("main", 1).await;
    let fourth = fourth.await.expect("it ends").expect("a hold");
    assert_eq!(
        shop.look_up(held.order_id).await,
        Some(OrderOutcome::Held(fourth))
    );
}

#[tokio::test]
async fn nobody_stays_for_ever_nor_keeps_a_server_from_stopping() {
    let shop = Shop::sold_out(1_500).await;
    let id = OrderId::new_v7();
    let step = shop.issue_of(id, 1).wait(Wait::Stay, LONG);
    let begun = Instant::now();
    let answer = shop.ask(step).await;
    assert!(matches!(answer, OrderOutcome::Waiting(_)), "{answer:?}");
    assert!(begun.elapsed() > Duration::from_secs(2), "it has stayed");

    let client = shop.client.clone();
    let stays = tokio::spawn(async move { client.steps(&[step]).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let shop = shop.reopened(End::Stop).await;
    match stays.await.expect("it ends") {
        Ok(answers) => assert!(matches!(answers[..], [OrderOutcome::Waiting(_)])),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(shop.stands(id).await, "waiting");
}

#[tokio::test]
async fn a_wait_needs_a_deadline_that_the_server_allows() {
    let shop = Shop::open(Store::new(), 1_600, 2).await;
    let id = OrderId::new_v7();
    let week = Duration::from_secs(7 * 24 * 3600);
    let step = |wait, within| shop.issue_of(id, 1).wait(wait, within);
    let no_deadline = {
        let mut step = step(Wait::Told, LONG);
        step.order.deadline = None;
        step
    };
    for (bad, refusal) in [
        (no_deadline, Refusal::WaitInvalid),
        (
            step(Wait::Told, week + Duration::from_secs(60)),
            Refusal::WaitInvalid,
        ),
        (
            OrderStep::commit(id).wait(Wait::Told, LONG),
            Refusal::UnsupportedFlag,
        ),
    ] {
        assert_eq!(refusal_of(&shop.ask(bad).await), Some(refusal), "{bad:?}");
        assert_eq!(shop.look_up(id).await, None);
    }
    // With stock there is nothing to wait for.
    let answer = shop.ask(step(Wait::Stay, week)).await;
    assert!(matches!(answer, OrderOutcome::Issued(_)), "{answer:?}");
}

#[tokio::test]
async fn nobody_is_served_twice_or_forgotten_while_callers_race_for_trickling_stock() {
    const ORDERS: usize = 600;
    let mut shop = Shop::sold_out(1_700).await;
    let callers: Vec<_> = (0..4u64)
        .map(|caller| {
            let (client, sku) = (shop.client.clone(), shop.sku);
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for nth in 0..ORDERS / 4 {
                    let id = OrderId::new_v7();
                    let order = Order::new(id, sku).priority(Priority::ALL[nth % 4]);
                    let step = match (nth as u64 + caller) % 3 {
                        0 => OrderStep::issue(order),
                        _ => OrderStep::issue(order).wait(Wait::Told, LONG),
                    };
                    let answered = client.steps(&[step]).await.expect("it is answered");
                    match &answered[..] {
                        [OrderOutcome::Issued(_) | OrderOutcome::Waiting(_)] => ids.push(id),
                        [OrderOutcome::Refused { refusal, .. }] => {
                            assert_eq!(*refusal, Refusal::OutOfStock);
                            assert_eq!(step.wait, Wait::No);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                ids
            })
        })
        .collect();
    let mut imported = 1;
    while imported < 300 {
        shop.restock("main", 7).await;
        imported += 7;
    }
    let mut ids = Vec::new();
    for caller in callers {
        ids.extend(caller.await.expect("a caller"));
    }
    // Everybody who waits gets a card in the end.
    let waiting = async |shop: &Shop| {
        let mut waiting = 0;
        for id in &ids {
            waiting += usize::from(shop.stands(*id).await == "waiting");
        }
        waiting
    };
    let mut left = waiting(&shop).await;
    while left > 0 {
        shop.restock("main", left).await;
        imported += left;
        until("all have been served", async || {
            shop.counts().await[0] == 0 || waiting(&shop).await == 0
        })
        .await;
        left = waiting(&shop).await;
    }
    let [free, held, issued, void] = shop.counts().await;
    assert_eq!((held, void, free + issued), (0, 0, imported as u64));
    assert_eq!(issued, ids.len() as u64 + 1);
    shop.server.kill();
    check_line(&shop.store);
    assert_eq!(
        counts_of(&verified(&shop.store)),
        [free, held, issued, void]
    );
}

#[tokio::test]
async fn the_commands_wait_and_take_what_there_is() {
    let mut shop = Shop::sold_out(1_800).await;
    let issue = |more: &[&str]| {
        let args = [&["issue", "--sku", "s", "--json"], more].concat();
        shop.server.croupier(&args)
    };
    let told = issue(&["--wait", "1h", "--detach"]).ok().json();
    assert_eq!(told["state"], "waiting");
    let id: OrderId = told["order_id"].as_str().unwrap().parse().unwrap();
    let in_vain = issue(&["--wait", "50ms"]);
    assert_eq!(in_vain.code, Some(1));
    assert!(in_vain.stderr.contains("Expired"), "{}", in_vain.stderr);
    shop.restock("main", 1).await;
    shop.until_it(id, "issued").await;
    shop.restock("main", 2).await;
    let part = issue_part(&shop, 5);
    assert_eq!(
        (&part["quantity"], &part["repeat"]),
        (&2.into(), &false.into())
    );
    assert_eq!(shop.counts().await, [0, 0, 4, 0]);
}

fn issue_part(shop: &Shop, quantity: u16) -> Value {
    let quantity = quantity.to_string();
    let args = [
        "issue",
        "--sku",
        "s",
        "--json",
        "--partial",
        "--quantity",
        &quantity,
    ];
    shop.server.croupier(&args).ok().json()
}
