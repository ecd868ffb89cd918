//! Cases that can be computed by hand.

use super::*;
use crate::route::{Asked, RouteTable};
use crate::whatif::figures::Peak;
use crate::whatif::tables::Tables;

/// Channels that take so long for every job.
fn said(ms: &[u64]) -> Arc<[Latency]> {
    ms.iter().map(|ms| Latency::Said(*ms)).collect()
}

/// With so many places each.
fn queues(ms: &[u64], places: &[u32]) -> Queues {
    let mut queues = Queues::new(said(ms));
    for (channel, places) in (0..).zip(places) {
        queues.set(channel, *places, 5_000);
    }
    queues
}

/// A chain of single channels.
fn chain(channels: &[Channel]) -> ToAsk {
    ToAsk {
        stages: channels.iter().map(|one| vec![(*one, 1)]).collect(),
        balance: Balance::Weights,
    }
}

fn order(id: u128, priority: Priority) -> Arrival {
    Arrival {
        id,
        priority,
        lane: priority,
    }
}

fn standard(id: u128) -> Arrival {
    order(id, Priority::Standard)
}

fn peak(most: u64, most_at_ms: u64, mean_e3: u64) -> Option<Peak> {
    Some(Peak {
        most,
        most_at_ms,
        mean_e3,
    })
}

#[test]
fn at_one_place_orders_wait_for_those_before_them() {
    let mut queues = queues(&[100], &[1]);
    for (id, at_ms) in [(1, 1_000), (2, 1_000), (3, 1_050)] {
        queues.arrive(at_ms, &standard(id), &chain(&[0]));
    }
    let outcome = queues.finish();
    let expect = Figures {
        orders: 3,
        outside: 3,
        jobs_most: Some(1),
        // 1 for 50 ms, 2 for 50 ms, 1 for 100 ms, of 300 ms.
        depth: peak(2, 1_050, 833),
        p50_ms: 200,
        p99_ms: 250,
        most_ms: 250,
    };
    assert_eq!(outcome.channels, [expect]);
    let lane = Figures {
        jobs_most: None,
        // 2 for 50, 3 for 50, 2 for 100, 1 for 100.
        depth: peak(3, 1_050, 1_833),
        ..expect
    };
    assert_eq!(outcome.lanes[Priority::Standard.as_index()], lane);
    assert_eq!(outcome.lanes[Priority::Vip.as_index()].orders, 0);
    assert_eq!((outcome.over, outcome.left), (0, 0));
}

#[test]
fn with_places_enough_nobody_queues_and_cards_at_once_wait_for_nothing() {
    let mut queues = queues(&[100], &[2]);
    queues.at_once(900, Priority::Standard);
    for (id, at_ms) in [(1, 1_000), (2, 1_000), (3, 1_100)] {
        queues.arrive(at_ms, &standard(id), &chain(&[0]));
    }
    let outcome = queues.finish();
    let alpha = outcome.channels[0];
    assert_eq!((alpha.orders, alpha.jobs_most), (3, Some(2)));
    assert_eq!((alpha.depth, alpha.p99_ms), (peak(0, 0, 0), 100));
    let lane = outcome.lanes[Priority::Standard.as_index()];
    // 2 for 100 ms, 1 for 100 ms, over 300 ms.
    assert_eq!(
        (lane.orders, lane.outside, lane.depth),
        (4, 3, peak(2, 1_000, 1_000))
    );
    assert_eq!((lane.p50_ms, lane.most_ms), (100, 100));
}

#[test]
fn a_full_channel_is_passed_over_and_then_the_first_that_has_room_is_taken() {
    let mut queues = queues(&[100, 30], &[1, 1]);
    // The first goes to 0, the second to 1, the third to 1 when that is free.
    for id in 1..=3 {
        queues.arrive(1_000, &standard(id), &chain(&[0, 1]));
    }
    let outcome = queues.finish();
    let [alpha, beta] = outcome.channels[..] else {
        panic!("{outcome:?}");
    };
    assert_eq!((alpha.orders, alpha.most_ms), (1, 100));
    assert_eq!((beta.orders, beta.p50_ms, beta.most_ms), (2, 30, 60));
    // It waited for a place of both.
    assert_eq!(
        (alpha.depth, beta.depth),
        (peak(1, 1_000, 300), peak(1, 1_000, 300))
    );
}

#[test]
fn higher_priorities_get_the_next_place_and_then_who_came_first() {
    let mut queues = queues(&[10], &[1]);
    let (vip, bulk) = (Priority::Vip, Priority::Bulk);
    for (id, priority) in [(1, bulk), (2, bulk), (3, vip), (4, bulk), (5, vip)] {
        // Groups do not matter: it is one channel.
        queues.arrive(1_000, &order(id, priority), &chain(&[0]));
    }
    let outcome = queues.finish();
    let [vip, bulk] = [vip, bulk].map(|lane| outcome.lanes[lane.as_index()]);
    assert_eq!((vip.orders, vip.p50_ms, vip.most_ms), (2, 20, 30));
    assert_eq!((bulk.orders, bulk.p50_ms, bulk.most_ms), (3, 40, 50));
}

#[test]
fn a_channel_that_is_out_takes_no_jobs_until_it_is_back() {
    let mut queues = queues(&[10, 10], &[1, 1]);
    queues.stands(900, 0, true);
    queues.arrive(1_000, &standard(1), &chain(&[0]));
    queues.arrive(1_000, &standard(2), &chain(&[0, 1]));
    queues.stands(1_500, 0, false);
    queues.stands(1_600, 1, true);
    queues.arrive(1_700, &standard(3), &chain(&[1]));
    // Nobody has heard of it.
    queues.stands(1_700, 9, true);
    let outcome = queues.finish();
    let [alpha, beta] = outcome.channels[..] else {
        panic!("{outcome:?}");
    };
    assert_eq!((alpha.orders, alpha.p50_ms), (1, 510));
    assert_eq!((beta.orders, beta.p50_ms), (1, 10));
    let lane = outcome.lanes[Priority::Standard.as_index()];
    assert_eq!((lane.orders, lane.outside, outcome.left), (2, 2, 1));
}

#[test]
fn more_places_of_another_table_are_taken_at_once() {
    let mut queues = queues(&[100], &[1]);
    for id in 1..=3 {
        queues.arrive(1_000, &standard(id), &chain(&[0]));
    }
    queues.arrive(1_050, &standard(4), &chain(&[0]));
    queues.set(0, 4, 5_000);
    let alpha = queues.finish().channels[0];
    assert_eq!(
        (alpha.jobs_most, alpha.p50_ms, alpha.most_ms),
        (Some(4), 100, 150)
    );
}

#[test]
fn who_finds_no_place_in_the_queue_is_counted_and_no_more() {
    let mut queues = Queues::of_room(said(&[10]), 1);
    queues.set(0, 1, 5_000);
    for id in 1..=4 {
        queues.arrive(1_000, &standard(id), &chain(&[0]));
    }
    let outcome = queues.finish();
    assert_eq!((outcome.over, outcome.channels[0].orders), (2, 2));
}

#[test]
fn without_latencies_jobs_last_as_long_as_they_may() {
    let mut queues = Queues::new(vec![Latency::Unknown].into());
    queues.set(0, 1, 700);
    // Not known when the latencies were.
    queues.set(3, 1, 800);
    queues.arrive(5, &standard(1), &chain(&[0]));
    queues.arrive(5, &standard(2), &chain(&[3]));
    // An order of before is one of now.
    queues.arrive(4, &standard(3), &chain(&[0]));
    let outcome = queues.finish();
    assert_eq!(outcome.channels[0].most_ms, 1_400);
    assert_eq!(outcome.channels[3].most_ms, 800);
    assert_eq!(outcome.timeouts_ms[3], 800);
}

#[test]
fn latencies_are_drawn_evenly_and_the_same_for_an_order_at_any_time() {
    let latencies: Arc<[Latency]> = vec![Latency::Recorded(vec![10, 20, 30, 40])].into();
    let run = |times: u64| {
        let mut queues = Queues::new(latencies.clone());
        queues.set(0, 4_096, 5_000);
        for id in 0..4_000 {
            queues.arrive(times * id, &standard(id.into()), &chain(&[0]));
        }
        queues.finish().channels[0]
    };
    let (one, other) = (run(1), run(7));
    assert_eq!((one.p50_ms, one.p99_ms, one.orders), (20, 40, 4_000));
    let waits = |of: Figures| (of.p50_ms, of.p99_ms, of.most_ms);
    assert_eq!(waits(one), waits(other));
    assert_eq!(run(3), run(3));
}

/// The first channel of every order is that whose pool its route looks in first.
#[test]
fn weights_send_an_order_where_its_route_does() {
    let toml = "[[channel]]\nname = \"a\"\nkind = \"issuer\"\n[[channel]]\nname = \"b\"\nkind = \"issuer\"\n\
                [[channel]]\nname = \"c\"\nkind = \"issuer\"\n[[rule]]\nchannels = [{ a = 60, b = 30, c = 10 }]\n";
    let table = Arc::new(RouteTable::parse(1, toml).unwrap());
    let mut tables = Tables::default();
    let known = tables.known(table.clone()).unwrap();
    let mut queues = queues(&[1; 3], &[4_096; 3]);
    let names = ["a", "b", "c"];
    let mut shares = [0; 3];
    for id in 0..2_000 {
        let asked = Asked {
            id: u128::from(mix(id, 99)),
            holder: 0,
            sku: 1,
            priority: Priority::Standard,
            quantity: 1,
            tag: 0,
        };
        let target = table.route("s", &asked, table.moment(0)).unwrap();
        let to_ask = known.to_ask("s", &asked, 0).unwrap();
        let order = queues.in_order(asked.id, &to_ask);
        let order: Vec<&str> = order.iter().map(|one| names[usize::from(*one)]).collect();
        assert_eq!(order, target.pools.unwrap());
        queues.arrive(0, &standard(asked.id), &to_ask);
    }
    let outcome = queues.finish();
    for (share, figures) in shares.iter_mut().zip(&outcome.channels) {
        *share = figures.orders;
    }
    assert_eq!(shares.iter().sum::<u64>(), 2_000);
    for (share, expect) in shares.into_iter().zip([1_200, 600, 200]) {
        assert!(share.abs_diff(expect) < 100, "{shares:?}");
    }
}

#[test]
fn least_latency_asks_the_better_of_two() {
    let mut queues = queues(&[10, 1_000], &[64, 64]);
    let to_ask = ToAsk {
        stages: vec![vec![(0, 50), (1, 50)]],
        balance: Balance::LeastLatency,
    };
    for id in 0..100 {
        queues.arrive(100 * id, &standard(id.into()), &to_ask);
    }
    let outcome = queues.finish();
    assert_eq!(
        (outcome.channels[0].orders, outcome.channels[1].orders),
        (100, 0)
    );
}
