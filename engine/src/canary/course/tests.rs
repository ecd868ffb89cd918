use croupier_protocol::CanarySettings;
use fastrand::Rng;

use super::*;

fn settings(minimum_sample: u32) -> Settings {
    Settings::of(&CanarySettings {
        minimum_sample: Some(minimum_sample),
        ..CanarySettings::default()
    })
    .unwrap()
}

/// How a table does: the part of orders that fail, and how much slower the others are.
#[derive(Clone, Copy)]
struct Table {
    fails: f64,
    factor: f64,
    /// Factor of the slowest two hundredths alone.
    tail: f64,
}

const GOOD: Table = Table {
    fails: 0.004,
    factor: 1.0,
    tail: 1.0,
};

/// Orders as they come to a server: latencies with a heavy tail, and stalls that hit all that are under way.
struct Load {
    dice: Rng,
    stalled: u32,
    next: u64,
}

impl Load {
    fn new(seed: u64) -> Load {
        Load {
            dice: Rng::with_seed(seed),
            stalled: 0,
            next: 0,
        }
    }

    /// The next order of either group.
    fn order(&mut self, canary: Table, baseline: Table) -> Sighting {
        if self.stalled == 0 && self.dice.u32(0..3000) == 0 {
            self.stalled = self.dice.u32(5..60);
        }
        self.stalled = self.stalled.saturating_sub(1);
        let (group, table) = match self.dice.bool() {
            true => (Group::Canary, canary),
            false => (Group::Baseline, baseline),
        };
        self.next += 1;
        let fate = if self.dice.f64() < table.fails {
            Fate::Failed
        } else {
            // Log-normal about 0.2 ms, by the sum of twelve; one in forty is a write that had to wait, with no mean to speak of.
            let normal: f64 = (0..12).map(|_| self.dice.f64()).sum::<f64>() - 6.0;
            let mut ns = 200_000.0 * (0.6 * normal).exp() * table.factor;
            if self.dice.u32(0..40) == 0 {
                ns += 1_000_000.0 / self.dice.f64().max(1e-6).powf(0.8) * table.tail;
            }
            if self.stalled > 0 {
                ns += 40_000_000.0;
            }
            Fate::Served { ns: ns as u64 }
        };
        Sighting {
            group,
            id: self.next,
            fate,
        }
    }
}

/// How a canary has ended: its verdict, its share then, and the orders that were seen in all.
fn run(settings: Settings, load: &mut Load, canary: Table) -> (Verdict, u8, usize) {
    let (mut share, mut orders) = (settings.share, 0);
    for nth in 1.. {
        let mut course = Course::new(settings, share, false, nth);
        let verdict = loop {
            // As many as come between two looks of the clock.
            for _ in 0..load.dice.u32(1..200) {
                course.see(&load.order(canary, GOOD));
                orders += 1;
            }
            if let Some(verdict) = course.judge(1) {
                break verdict;
            }
        };
        match verdict {
            Verdict::Promote(Some(next)) => share = next,
            end => return (end, share, orders),
        }
    }
    unreachable!("it ends")
}

#[test]
fn of_two_hundred_equal_tables_few_are_rolled_back() {
    let (mut alarms, mut pauses, mut orders) = (0, 0, 0);
    for seed in 0..200 {
        let (end, _, seen) = run(settings(300), &mut Load::new(seed), GOOD);
        orders += seen;
        match end {
            Verdict::RollBack(_) => alarms += 1,
            Verdict::Pause(_) => pauses += 1,
            Verdict::Promote(_) => {}
        }
    }
    println!("of 200 equal tables {alarms} were rolled back and {pauses} paused; {orders} orders");
    assert!(alarms <= 10, "{alarms} false alarms");
    assert!(pauses <= 30, "{pauses} pauses");
}

#[test]
fn worse_tables_are_rolled_back_for_what_is_worse() {
    use CanaryReason::{Failures, SlowTail, Slower};
    let worse = |change: fn(&mut Table)| {
        let mut table = GOOD;
        change(&mut table);
        table
    };
    for (what, table, expect, most) in [
        (
            "all fail",
            worse(|table| table.fails = 1.0),
            Failures,
            2_000,
        ),
        (
            "some fail",
            worse(|table| table.fails = 0.1),
            Failures,
            8_000,
        ),
        (
            "twice as slow",
            worse(|table| table.factor = 2.0),
            Slower,
            8_000,
        ),
        (
            "a fifth slower",
            worse(|table| table.factor = 1.2),
            Slower,
            80_000,
        ),
        (
            "a slow tail",
            worse(|table| table.tail = 30.0),
            SlowTail,
            80_000,
        ),
    ] {
        for seed in 0..10 {
            let (end, share, orders) = run(settings(1000), &mut Load::new(seed), table);
            assert_eq!(end, Verdict::RollBack(expect), "{what}, seed {seed}");
            println!("{what}: rolled back at {share} % after {orders} orders");
            assert!(orders <= most, "{what}, seed {seed}: {orders} orders");
        }
    }
}

#[test]
fn better_tables_come_into_force() {
    let better = Table {
        fails: 0.0,
        factor: 0.5,
        tail: 0.1,
    };
    for seed in 100..110 {
        let (end, share, _) = run(settings(300), &mut Load::new(seed), better);
        assert_eq!((end, share), (Verdict::Promote(None), 50), "seed {seed}");
    }
}

fn seen(group: Group, id: u64, fate: Fate) -> Sighting {
    Sighting { group, id, fate }
}

/// Feeds a course as many orders of each group, all alike.
fn feed(course: &mut Course, canary: u64, baseline: u64) {
    for (group, orders) in [(Group::Canary, canary), (Group::Baseline, baseline)] {
        (0..orders).for_each(|id| course.see(&seen(group, id, Fate::Served { ns: 1000 + id % 7 })));
    }
}

#[test]
fn an_order_counts_once() {
    let mut course = Course::new(settings(100), 5, false, 1);
    for fate in [
        Fate::Failed,
        Fate::Failed,
        Fate::Served { ns: 1 },
        Fate::Filled { ns: 1 },
    ] {
        course.see(&seen(Group::Canary, 7, fate));
        course.see(&seen(Group::Baseline, 8, Fate::Filled { ns: 5 }));
    }
    let Samples { canary, baseline } = course.samples();
    assert_eq!((canary.failed, canary.orders()), (1, 1));
    assert_eq!((baseline.failed, baseline.orders()), (0, 1));
}

#[test]
fn shares_grow_when_both_groups_have_the_minimum() {
    let mut course = Course::new(settings(160), 45, false, 1);
    for (orders, next) in [(9, 10), (10, 40), (39, 40), (40, 160), (159, 160)] {
        let (have, _) = course.samples().orders();
        feed(&mut course, orders - have as u64, orders - have as u64);
        assert_eq!(course.judge(1), None);
        assert_eq!(course.next_look(), next, "{orders}");
    }
    feed(&mut course, 1, 1);
    assert_eq!(course.judge(1), Some(Verdict::Promote(Some(50))));
    let mut last = Course::new(settings(160), 50, false, 1);
    feed(&mut last, 160, 160);
    assert_eq!(last.judge(1), Some(Verdict::Promote(None)));
}

#[test]
fn a_canary_that_does_not_answer_is_rolled_back() {
    let mut course = Course::new(settings(160), 5, false, 1);
    feed(&mut course, 3, 80);
    let expect = Verdict::RollBack(CanaryReason::FewerAnswers);
    assert_eq!(course.judge(1), Some(expect));
    // A baseline that does not is no harm, and tells nothing.
    let mut course = Course::new(settings(160), 5, false, 1);
    feed(&mut course, 2_000, 3);
    let expect = Verdict::Pause(CanaryReason::Inconclusive);
    assert_eq!(course.judge(1), Some(expect));
}

#[test]
fn a_step_pauses_when_its_time_is_up() {
    let mut course = Course::new(settings(100), 5, false, 1);
    feed(&mut course, 50, 50);
    assert_eq!(course.judge(3_599_999), None);
    let expect = Verdict::Pause(CanaryReason::TooFewOrders);
    assert_eq!(course.judge(1), Some(expect));
}

#[test]
fn a_paused_canary_is_watched_for_harm_alone() {
    let mut course = Course::new(settings(100), 5, true, 3);
    for _ in 0..3 {
        feed(&mut course, 400, 400);
        assert_eq!(course.judge(u64::MAX), None);
        assert_eq!(course.samples().orders(), (0, 0), "another sample begins");
    }
    for id in 0..10 {
        course.see(&seen(Group::Canary, id, Fate::Failed));
    }
    feed(&mut course, 15, 25);
    assert_eq!(course.judge(0), None, "ten of 25 are too few to say");
    for id in 10..75 {
        course.see(&seen(Group::Canary, id, Fate::Failed));
    }
    feed(&mut course, 0, 75);
    let expect = Verdict::RollBack(CanaryReason::Failures);
    assert_eq!(course.judge(0), Some(expect));
}

#[test]
fn the_error_is_spent_once() {
    let settings = settings(100);
    let spent = (1..100_000).map(|nth| Course::new(settings, 5, false, nth).error());
    let all = spent.sum::<f64>() * (LOOKS.len() * TESTS) as f64;
    assert!((0.99 * ERROR..=ERROR).contains(&all), "{all}");
}
