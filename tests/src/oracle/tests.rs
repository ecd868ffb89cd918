//! The oracle itself: answers that must not be are found, and the same histories without them are not.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use croupier_client::{
    Card, CardRef, CardRow, CardStatus, HeldOrder, Hold, IssuedOrder, Lsn, Order, OrderId,
    OrderOutcome, OrderStep, Refusal, SkuId, Wait,
};

use super::Oracle;
use crate::unix_ms;

const SKU: SkuId = SkuId(1);
const ID: OrderId = OrderId::from_u128(1);
const OTHER: OrderId = OrderId::from_u128(2);
const HOUR: Duration = Duration::from_secs(3600);

/// What is asked, and how it is answered; `None`: a look-up.
type Said = (Option<OrderStep>, OrderOutcome);

fn card(slot: u32) -> CardRef {
    CardRef {
        slab: 1,
        slot,
        generation: 0,
    }
}

fn secret(slot: u32) -> Vec<u8> {
    format!("secret-{slot}").into_bytes()
}

fn issued(id: OrderId, lsn: u64, slot: u32, repeat: bool) -> OrderOutcome {
    let cards = vec![Card {
        card: card(slot),
        secret: secret(slot).into(),
    }];
    OrderOutcome::Issued(IssuedOrder {
        order_id: id,
        lsn: Lsn(lsn),
        sku: SKU,
        repeat,
        cards,
    })
}

fn told(lsn: u64, repeat: bool, ends_unix_ms: Option<u64>) -> HeldOrder {
    let hold = ends_unix_ms.map(|ends_unix_ms| Hold {
        ends_unix_ms,
        extensions: 0,
    });
    HeldOrder {
        order_id: ID,
        lsn: Lsn(lsn),
        sku: SKU,
        quantity: 1,
        repeat,
        hold,
    }
}

fn held(lsn: u64, repeat: bool, ends_unix_ms: u64) -> OrderOutcome {
    OrderOutcome::Held(told(lsn, repeat, Some(ends_unix_ms)))
}

fn waiting(lsn: u64, repeat: bool, ends_unix_ms: u64) -> OrderOutcome {
    OrderOutcome::Waiting(told(lsn, repeat, Some(ends_unix_ms)))
}

fn refused(refusal: Refusal) -> OrderOutcome {
    OrderOutcome::Refused {
        order_id: ID,
        refusal,
        retry_after_ms: 0,
    }
}

fn issue(id: OrderId) -> OrderStep {
    OrderStep::issue(Order::new(id, SKU))
}

fn reserve() -> OrderStep {
    OrderStep::reserve(Order::new(ID, SKU), HOUR)
}

fn later() -> u64 {
    unix_ms() + HOUR.as_millis() as u64
}

fn heard(oracle: &Oracle, (step, outcome): &Said) {
    match step {
        Some(step) => oracle.book(&oracle.ask_step(*step), outcome),
        None => oracle.glanced(&oracle.glance(outcome.order_id()), outcome),
    }
}

/// All that is said can be, but for the last: that only if `fine`.
#[track_caller]
fn check(fine: bool, said: &[Said]) {
    let oracle = Oracle::timed();
    let secrets: Vec<_> = (0..10).map(secret).collect();
    oracle.imported("s", SKU, &secrets);
    let (last, first) = said.split_last().expect("something is said");
    first.iter().for_each(|said| heard(&oracle, said));
    let heard = panic::catch_unwind(AssertUnwindSafe(|| heard(&oracle, last)));
    assert_eq!(heard.is_ok(), fine, "{said:?}");
}

#[test]
fn an_answer_stays_and_only_the_first_is_not_marked() {
    let ask = Some(issue(ID));
    let first = (ask, issued(ID, 7, 1, false));
    check(true, &[first.clone(), (ask, issued(ID, 7, 1, true))]);
    check(false, &[first.clone(), (ask, issued(ID, 7, 1, false))]);
    check(false, &[first.clone(), (ask, issued(ID, 8, 1, true))]);
    check(false, &[first.clone(), (ask, issued(ID, 7, 2, true))]);
    check(false, &[first.clone(), (ask, refused(Refusal::OutOfStock))]);
    check(true, &[first.clone(), (ask, refused(Refusal::Busy))]);
    check(true, &[first.clone(), (None, issued(ID, 7, 1, false))]);
    check(false, &[first, (None, refused(Refusal::OrderNotFound))]);
}

#[test]
fn a_card_has_one_order_one_secret_and_was_imported() {
    let (ask, other) = (Some(issue(ID)), Some(issue(OTHER)));
    let first = (ask, issued(ID, 7, 1, false));
    check(true, &[first.clone(), (other, issued(OTHER, 8, 2, false))]);
    check(false, &[first, (other, issued(OTHER, 8, 1, false))]);
    check(false, &[(ask, issued(ID, 7, 11, false))]);
}

#[test]
fn what_is_new_has_a_later_lsn_than_what_was_told() {
    let (ask, other) = (Some(issue(ID)), Some(issue(OTHER)));
    let first = (ask, issued(ID, 7, 1, false));
    check(false, &[first, (other, issued(OTHER, 6, 2, false))]);
}

#[test]
fn a_hold_does_not_end_before_its_time() {
    let commit = Some(OrderStep::commit(ID).only_held());
    let open = (Some(reserve()), held(7, false, later()));
    let over = (Some(reserve()), held(7, false, unix_ms()));
    let expired = OrderOutcome::Expired(told(8, false, None));
    check(false, &[open.clone(), (commit, refused(Refusal::Expired))]);
    check(false, &[open.clone(), (None, expired.clone())]);
    check(true, &[over.clone(), (commit, refused(Refusal::Expired))]);
    check(true, &[over, (None, expired)]);
    check(true, &[open, (commit, issued(ID, 8, 1, false))]);
}

#[test]
fn steps_are_answered_as_the_table_says() {
    let open = (Some(reserve()), held(7, false, later()));
    let (commit, cancel) = (Some(OrderStep::commit(ID)), Some(OrderStep::cancel(ID)));
    let cancelled = |repeat| OrderOutcome::Cancelled(told(8, repeat, None));
    // Nobody has asked for a cancel, or for a commit.
    check(
        false,
        &[open.clone(), (commit, refused(Refusal::AlreadyCancelled))],
    );
    check(
        false,
        &[open.clone(), (cancel, refused(Refusal::AlreadyCommitted))],
    );
    check(false, &[open.clone(), (None, issued(ID, 8, 1, false))]);
    check(
        false,
        &[open.clone(), (commit, refused(Refusal::OrderNotFound))],
    );
    check(
        false,
        &[open.clone(), (Some(issue(ID)), issued(ID, 8, 1, false))],
    );
    check(
        true,
        &[
            open.clone(),
            (Some(issue(ID)), refused(Refusal::OrderIdReused)),
        ],
    );
    let ended = [open, (cancel, cancelled(false))];
    let then = |said: Said| [&ended[..], &[said]].concat();
    check(true, &then((cancel, cancelled(true))));
    check(false, &then((cancel, cancelled(false))));
    check(true, &then((commit, refused(Refusal::AlreadyCancelled))));
    check(false, &then((commit, issued(ID, 9, 1, false))));
    check(false, &then((None, held(7, false, later()))));
    // Of an order that was never begun.
    check(true, &[(commit, refused(Refusal::OrderNotFound))]);
    check(false, &[(commit, issued(ID, 7, 1, false))]);
}

#[test]
fn an_order_that_waits_is_filled_cancelled_or_expired() {
    let ends = later();
    let (plain, ask) = (issue(ID), issue(ID).wait(Wait::Told, HOUR));
    let first = (Some(ask), waiting(7, false, ends));
    let over = (Some(ask), waiting(7, false, unix_ms()));
    let (commit, cancel) = (OrderStep::commit(ID), OrderStep::cancel(ID));
    let cancelled = (Some(cancel), OrderOutcome::Cancelled(told(8, false, None)));
    let expired = OrderOutcome::Expired(told(8, false, None));
    for (fine, step, outcome) in [
        (true, Some(ask), waiting(7, true, ends)),
        (true, Some(plain), waiting(7, true, ends)),
        (false, Some(ask), waiting(7, false, ends)),
        (false, Some(ask), waiting(7, true, ends + 1)),
        (true, Some(ask), issued(ID, 8, 1, true)),
        (false, Some(ask), issued(ID, 8, 1, false)),
        (false, Some(ask), issued(ID, 6, 1, true)),
        (false, Some(plain), refused(Refusal::OutOfStock)),
        (true, Some(commit), refused(Refusal::StillWaiting)),
        (false, Some(cancel), refused(Refusal::StillWaiting)),
        (true, Some(commit), refused(Refusal::OrderIdReused)),
        (false, Some(ask), refused(Refusal::Expired)),
        (false, Some(ask), refused(Refusal::AlreadyCancelled)),
        (true, Some(reserve()), refused(Refusal::OrderIdReused)),
        (true, None, issued(ID, 8, 1, false)),
        (false, None, held(8, false, ends)),
        (false, None, expired.clone()),
    ] {
        check(fine, &[first.clone(), (step, outcome)]);
    }
    let ended = [first, cancelled];
    let then = |step, outcome| [&ended[..], &[(step, outcome)]].concat();
    check(true, &then(Some(ask), refused(Refusal::AlreadyCancelled)));
    check(true, &then(Some(commit), refused(Refusal::OrderIdReused)));
    check(
        false,
        &then(Some(commit), refused(Refusal::AlreadyCancelled)),
    );
    check(false, &then(None, waiting(7, false, ends)));
    check(false, &then(None, issued(ID, 9, 1, false)));
    check(true, &[over.clone(), (None, expired.clone())]);
    check(
        true,
        &[over.clone(), (Some(ask), refused(Refusal::Expired))],
    );
    // It was to be issued: nothing was held that a late commit could be for.
    let late = [
        over,
        (None, expired),
        (Some(commit), issued(ID, 9, 1, false)),
    ];
    check(false, &late);
}

#[test]
fn a_reserve_that_waits_is_held_from_then_on() {
    let (ends, ask) = (later(), reserve().wait(Wait::Told, HOUR));
    let first = (Some(ask), waiting(7, false, ends));
    let filled = (Some(ask), held(8, true, ends + 1));
    check(true, &[first.clone(), filled.clone()]);
    check(false, &[first.clone(), (Some(ask), held(6, true, ends))]);
    check(false, &[first.clone(), (None, issued(ID, 8, 1, false))]);
    let then = |said| [first.clone(), filled.clone(), said];
    check(false, &then((None, waiting(7, false, ends))));
    check(
        true,
        &then((Some(OrderStep::commit(ID)), issued(ID, 9, 1, false))),
    );
    // Without leave to wait it is held or refused; with it, it finds stock or waits.
    check(false, &[(Some(reserve()), waiting(7, false, ends))]);
    check(true, &[(Some(reserve()), refused(Refusal::OutOfStock))]);
    check(false, &[(Some(ask), refused(Refusal::OutOfStock))]);
}

#[test]
fn whoever_has_stayed_gets_what_it_has_become_and_another_try_may_wait() {
    let stay = Some(issue(ID).wait(Wait::Stay, HOUR));
    let none = (Some(issue(ID)), refused(Refusal::OutOfStock));
    check(true, &[none.clone(), (stay, issued(ID, 8, 1, false))]);
    check(true, &[none, (stay, waiting(7, false, later()))]);
    let first = (Some(issue(ID)), issued(ID, 7, 1, false));
    check(true, &[first.clone(), (stay, issued(ID, 7, 1, true))]);
    check(false, &[first.clone(), (stay, issued(ID, 7, 1, false))]);
    check(false, &[first, (stay, waiting(8, false, later()))]);
}

#[test]
fn an_answer_that_was_lost_may_be_either_way_and_then_stays() {
    let oracle = Oracle::timed();
    oracle.imported("s", SKU, &[secret(1)]);
    heard(&oracle, &(Some(reserve()), held(7, false, later())));
    let lost = oracle.ask_step(OrderStep::commit(ID));
    oracle.lost(&lost);
    assert_eq!(oracle.unsettled(), [ID]);
    heard(&oracle, &(None, issued(ID, 8, 1, false)));
    let not_there = (None, refused(Refusal::OrderNotFound));
    let gone = panic::catch_unwind(AssertUnwindSafe(|| heard(&oracle, &not_there)));
    assert!(gone.is_err(), "its cards were seen");
}

#[test]
fn a_part_that_was_lost_may_be_what_another_try_that_may_wait_gets() {
    for part in [true, false] {
        let oracle = Oracle::timed();
        oracle.imported("s", SKU, &[secret(1)]);
        let two = OrderStep::issue(Order::new(ID, SKU).quantity(2));
        let first = if part { two.partial() } else { two };
        oracle.lost(&oracle.ask_step(first));
        let again = (Some(two.wait(Wait::Told, HOUR)), issued(ID, 7, 1, true));
        let heard = panic::catch_unwind(AssertUnwindSafe(|| heard(&oracle, &again)));
        assert_eq!(heard.is_ok(), part);
    }
}

#[test]
fn a_secret_goes_to_as_many_orders_as_it_may_and_each_use_to_one() {
    // Slots of the three uses that are told, and whether the last may be.
    let check = |max_uses: Option<u32>, slots: [u32; 3], fine: bool| {
        let oracle = Oracle::timed();
        oracle.reusable_under_way("s", SKU, &[secret(1)], max_uses, 9);
        let told = (1..).zip(slots).map(|(nth, slot)| {
            let id = OrderId::from_u128(nth);
            let cards = vec![Card {
                card: card(slot),
                secret: secret(1).into(),
            }];
            let order = IssuedOrder {
                order_id: id,
                lsn: Lsn(nth as u64),
                sku: SKU,
                repeat: false,
                cards,
            };
            (Some(issue(id)), OrderOutcome::Issued(order))
        });
        let told: Vec<Said> = told.collect();
        told[..2].iter().for_each(|said| heard(&oracle, said));
        let last = panic::catch_unwind(AssertUnwindSafe(|| heard(&oracle, &told[2])));
        assert_eq!(last.is_ok(), fine, "{max_uses:?}, {slots:?}");
    };
    check(Some(3), [1, 2, 3], true);
    check(Some(2), [1, 2, 3], false);
    check(Some(3), [1, 2, 2], false);
    check(None, [1, 2, 3], true);
}

#[test]
fn a_card_out_of_sale_is_not_dealt() {
    for (lsn, fine) in [(19, true), (21, false)] {
        let oracle = Oracle::timed();
        oracle.imported("s", SKU, &[secret(1)]);
        oracle.moving([card(1)]);
        let row = CardRow {
            slab: 1,
            slot: 1,
            sku: SKU.0,
            status: CardStatus::Suspended.as_u16(),
            ..CardRow::default()
        };
        oracle.moved(&[row], Some(Lsn(20)));
        let dealt = (Some(issue(ID)), issued(ID, lsn, 1, false));
        let heard = panic::catch_unwind(AssertUnwindSafe(|| heard(&oracle, &dealt)));
        assert_eq!(heard.is_ok(), fine, "at {lsn}");
    }
}
