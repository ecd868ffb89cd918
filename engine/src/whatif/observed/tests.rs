//! Orders of the log, and what they tell of channels.

use super::*;
use crate::state::record::{Fact, Tried};
use crate::whatif::tables::Tables;

const TABLE: &str = "[[channel]]\nname = \"alpha\"\nkind = \"issuer\"\njobs = 1\n\
                     [[channel]]\nname = \"beta\"\nkind = \"issuer\"\npool = \"b\"\njobs = 2\n\
                     [[rule]]\nsku = \"a*\"\nchannels = [\"alpha\"]\n\
                     [[rule]]\nsku = \"b\"\nchannels = [\"beta\", \"alpha\"]\n\
                     [[rule]]\n";
const ALPHA: usize = 0;
const BETA: usize = 1;

struct Log {
    tables: Tables,
    observed: Observed,
}

impl Log {
    fn new() -> Log {
        let mut tables = Tables::default();
        tables.learn(&Fact::RoutesLoaded {
            version: 1,
            toml: TABLE,
        });
        let observed = Observed::default();
        Log { tables, observed }
    }

    fn waits(&mut self, unix_ms: u64, id: u128, sku: &str) {
        let waiting = Waiting {
            asked: Asked {
                id,
                holder: 0,
                sku: 1,
                priority: Priority::Standard,
                quantity: 2,
                tag: 0,
            },
            sku,
            lane: Priority::Bulk,
            unix_ms,
            is_counted: unix_ms < 100_000,
        };
        self.observed.waits(&waiting, self.tables.get(1));
    }

    fn filled(&mut self, unix_ms: u64, id: u128, from: &[(&str, u64)]) {
        self.observed.filled(unix_ms, id, from, self.tables.get(1));
    }

    fn retried(&mut self, unix_ms: u64, id: u128, again_unix_ms: u64, is_buried: bool) {
        let tried = Tried {
            attempts: 1,
            cause: 1,
            is_buried,
            again_unix_ms,
        };
        let retried = Retried {
            order_id: id,
            sku: 1,
            principal: 0,
            tried,
        };
        self.observed.retried(unix_ms, &retried);
    }

    /// Latencies of a channel.
    fn of(&self, channel: usize) -> Vec<u64> {
        match &self.observed.latencies(2)[channel] {
            Latency::Recorded(sorted) => sorted.clone(),
            _ => Vec::new(),
        }
    }
}

#[test]
fn queueing_at_one_place_is_taken_out() {
    let mut log = Log::new();
    log.waits(1_000, 1, "a");
    log.waits(1_000, 2, "a");
    log.waits(1_010, 3, "a");
    log.filled(1_100, 1, &[("alpha", 2)]);
    log.filled(1_220, 2, &[("alpha", 2)]);
    log.waits(1_230, 4, "a");
    log.filled(1_300, 3, &[("alpha", 2)]);
    // The place is free from 1300 on.
    log.filled(1_390, 4, &[("alpha", 2)]);
    assert_eq!(log.of(ALPHA), [80, 90, 100, 120]);
    let recorded = log.observed.channel(0);
    assert_eq!(
        (recorded.orders, recorded.p50_ms, recorded.most_ms),
        (4, 160, 290)
    );
    let lane = log.observed.lane(Priority::Bulk);
    assert_eq!((lane.orders, lane.outside, lane.p50_ms), (4, 4, 160));
    let depth = lane.depth.unwrap();
    assert_eq!((depth.most, depth.most_at_ms), (3, 1_010));
}

#[test]
fn an_order_that_found_a_place_counts_whole_even_when_others_overtake_it() {
    let mut log = Log::new();
    log.waits(1_000, 1, "b");
    for nth in 0..5 {
        log.waits(1_100 + nth * 100, 10 + u128::from(nth), "b");
        log.filled(1_150 + nth * 100, 10 + u128::from(nth), &[("b", 2)]);
    }
    log.filled(2_000, 1, &[("b", 2)]);
    assert_eq!(log.of(BETA), [50, 50, 50, 50, 50, 1_000]);
}

#[test]
fn the_channel_is_the_one_whose_pool_most_cards_are_from() {
    let mut log = Log::new();
    log.waits(1_000, 1, "b");
    log.filled(1_007, 1, &[("main", 5), ("b", 1), ("alpha", 2)]);
    assert_eq!((log.of(ALPHA), log.of(BETA)), (vec![7], vec![]));
    // Stock that came fills it: it waited for channels, but it is no latency of any.
    log.waits(1_000, 2, "b");
    log.filled(1_050, 2, &[("main", 2)]);
    // Nobody was asked.
    log.waits(1_000, 3, "c");
    log.filled(1_060, 3, &[("main", 2)]);
    assert_eq!((log.of(ALPHA), log.of(BETA)), (vec![7], vec![]));
    let lane = log.observed.lane(Priority::Bulk);
    assert_eq!((lane.orders, lane.outside), (2, 2));
    // Its table does not ask that channel, but another has since.
    log.waits(1_000, 4, "c");
    log.filled(1_080, 4, &[("b", 2)]);
    assert_eq!(log.of(BETA), [80]);
}

#[test]
fn a_latency_begins_with_the_last_attempt_or_start() {
    let mut log = Log::new();
    log.waits(1_000, 1, "b");
    log.retried(1_500, 1, 2_500, false);
    log.filled(2_540, 1, &[("b", 2)]);
    assert_eq!(log.of(BETA), [40]);
    // Late cards of the attempt before fill it.
    log.waits(3_000, 2, "b");
    log.retried(3_500, 2, 4_500, false);
    log.filled(3_600, 2, &[("b", 2)]);
    assert_eq!(log.of(BETA), [40, 600]);
    log.waits(5_000, 3, "b");
    log.observed.started(60_000);
    log.filled(60_005, 3, &[("b", 2)]);
    assert_eq!(log.of(BETA), [5, 40, 600]);
    // Nobody is asked for one that is buried, unless it is kicked.
    log.waits(61_000, 4, "b");
    log.retried(61_500, 4, 0, true);
    log.waits(61_000, 5, "b");
    log.retried(61_500, 5, 0, true);
    log.retried(62_000, 5, 0, false);
    log.filled(62_011, 4, &[("b", 2)]);
    log.filled(62_012, 5, &[("b", 2)]);
    assert_eq!(log.of(BETA), [5, 12, 40, 600]);
}

#[test]
fn orders_that_end_or_do_not_count_tell_nothing() {
    let mut log = Log::new();
    log.waits(1_000, 1, "a");
    log.observed.ended(1_200, 1);
    log.filled(1_300, 1, &[("alpha", 2)]);
    // Behind what is looked at, and one that came before the log.
    log.waits(100_000, 2, "a");
    log.filled(100_010, 2, &[("alpha", 2)]);
    log.filled(100_010, 3, &[("alpha", 2)]);
    log.retried(100_010, 3, 0, false);
    assert!(log.of(ALPHA).is_empty());
    let figures = log.observed.lane(Priority::Bulk);
    assert_eq!((figures.orders, figures.depth.unwrap().most), (0, 1));
    assert_eq!(log.observed.table_unknown(), 0);
}

#[test]
fn a_sample_is_bounded_and_even() {
    let mut log = Log::new();
    for id in 0..20_000 {
        let at = id as u64 * 4;
        log.waits(at, id, "a");
        log.filled(at + 1 + id as u64 % 2, id, &[("alpha", 2)]);
    }
    let sample = log.of(ALPHA);
    assert_eq!(sample.len(), LATENCIES_MAX);
    let ones = sample.iter().filter(|ms| **ms == 1).count();
    assert!(ones.abs_diff(LATENCIES_MAX / 2) < 300, "{ones}");
    assert!(log.observed.open.is_empty());
}
