//! The dispatcher against a world that is a few lists.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::route::Asked;
use croupier_protocol::Priority;

/// Two issuers, the first with 3 in 4 of the orders, then a third.
const TABLE: &str = r#"
[retry]
base = "1s"
cap = "4s"
attempts = 3

[outlier]
max_ejection_percent = 100

[[channel]]
name = "alpha"
kind = "issuer"
timeout = "5s"
jobs = 4
outlier = { consecutive_failures = 0, failure_percentage = 0, slow_percentage = 0 }

[[channel]]
name = "beta"
kind = "issuer"
timeout = "5s"
jobs = 4096
outlier = { consecutive_failures = 0, failure_percentage = 0, slow_percentage = 0 }

[[channel]]
name = "gamma"
kind = "issuer"
skus = ["gift-*"]
timeout = "9s"
outlier = { consecutive_failures = 0, failure_percentage = 0, slow_percentage = 0 }

[[rule]]
channels = [{ alpha = 75, beta = 25 }, "gamma"]
"#;

struct Town {
    table: RouteTable,
    waiting: BTreeSet<u64>,
    /// Recorded as such.
    buried: BTreeSet<u64>,
}

impl World for Town {
    fn to_ask(&self, wanted: &Wanted) -> Option<ToAsk> {
        let asked = Asked {
            id: wanted.id,
            holder: wanted.holder,
            sku: wanted.sku,
            priority: Priority::try_from(wanted.priority).expect("one of four"),
            quantity: wanted.quantity,
            tag: wanted.tag,
        };
        let name = self.sku_name(wanted.sku)?;
        self.table.to_ask(&name, &asked, self.table.moment(0))
    }

    fn waits(&self, wanted: &Wanted) -> bool {
        self.waiting.contains(&wanted.row)
    }

    fn is_buried(&self, wanted: &Wanted) -> bool {
        self.buried.contains(&wanted.row)
    }

    fn sku_name(&self, sku: u32) -> Option<String> {
        ["gift-50", "steam"]
            .get(sku as usize - 1)
            .map(|name| (*name).to_owned())
    }
}

struct Scene {
    town: Town,
    dispatcher: Dispatcher,
    now: u64,
    offers: u64,
}

impl Scene {
    fn new() -> Scene {
        Scene::of(TABLE)
    }

    fn of(text: &str) -> Scene {
        let table = RouteTable::parse(1, text).expect("a table");
        let mut dispatcher = Dispatcher::new(Fleet::default(), table.retry());
        dispatcher.adopt(0, &table);
        Scene {
            town: Town {
                table,
                waiting: BTreeSet::new(),
                buried: BTreeSet::new(),
            },
            dispatcher,
            now: 1_000,
            offers: 0,
        }
    }

    fn order(&mut self, row: u64) -> u128 {
        self.order_of(row, 1, 1, 1)
    }

    fn order_of(&mut self, row: u64, sku: u32, priority: u8, quantity: u16) -> u128 {
        self.town.waiting.insert(row);
        let wanted = self.wanted(row, sku, priority, quantity);
        self.dispatcher.wanted(self.now, wanted, &self.town);
        wanted.id
    }

    fn wanted(&self, row: u64, sku: u32, priority: u8, quantity: u16) -> Wanted {
        Wanted {
            id: 0xabcd_0000 + u128::from(row),
            row,
            lsn: 10 * row,
            sku,
            quantity,
            priority,
            tag: 0,
            holder: 0,
            ends_unix_ms: 1_000_000,
            tried: Tried::default(),
        }
    }

    fn offer(&mut self, channel: &str, connection: Connection, room: u32) -> u64 {
        self.offers += 1;
        let offer = (self.offers, room, self.now + 20_000);
        self.dispatcher
            .offer(self.now, channel, connection, offer, &self.town)
            .expect("it is a channel");
        self.offers
    }

    /// Orders that wait for room of a channel.
    fn ready(&self, channel: &str) -> u32 {
        let channels = self.dispatcher.channels();
        let known = channels.iter().find(|one| one.name == channel);
        known.expect("it is a channel").ready
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.dispatcher.tick(self.now, &self.town);
    }

    /// Who was given what, by offer, and how orders have fared, by row.
    fn deeds(&mut self) -> (BTreeMap<u64, Vec<u128>>, BTreeMap<u64, Tried>) {
        let (mut given, mut tried) = (BTreeMap::new(), BTreeMap::new());
        for deed in self.dispatcher.take_deeds() {
            match deed {
                Deed::Give { offer, jobs, .. } => {
                    let ids = jobs.iter().map(|job| job.id).collect();
                    given.insert(offer, ids);
                }
                Deed::Note { wanted, tried: how } => {
                    tried.insert(wanted.row, how);
                }
                Deed::Change(_) => {}
            }
        }
        (given, tried)
    }

    fn deliver(&mut self, channel: &str, id: u128, cards: u64, all: bool) -> (JobState, u16) {
        let town = &self.town;
        self.dispatcher
            .delivered(self.now, (channel, id), cards, all, town)
    }

    fn end(&mut self, channel: &str, id: u128, attempt: u32, ending: Ending) -> JobState {
        let town = &self.town;
        let (state, _) = self
            .dispatcher
            .end(self.now, (channel, id), attempt, ending, town);
        state
    }

    fn jobs(&mut self) -> Vec<u128> {
        let (given, _) = self.deeds();
        given.into_values().flatten().collect()
    }
}

#[test]
fn an_offer_is_answered_with_the_jobs_there_are_and_one_in_vain_when_its_time_is_over() {
    let mut scene = Scene::new();
    let first = scene.offer("gamma", 1, 2);
    assert_eq!(scene.deeds().0, BTreeMap::new());
    let ids = [scene.order(1), scene.order(2), scene.order(3)];
    // The third waits for room.
    assert_eq!(
        scene.deeds().0,
        BTreeMap::from([(first, ids[..2].to_vec())])
    );
    let second = scene.offer("gamma", 1, 2);
    assert_eq!(scene.deeds().0, BTreeMap::from([(second, vec![ids[2]])]));
    let third = scene.offer("gamma", 1, 1);
    scene.pass(20_000);
    let (given, _) = scene.deeds();
    assert_eq!(given[&third], Vec::<u128>::new());
}

#[test]
fn weights_choose_the_first_and_room_goes_before_waiting() {
    let mut scene = Scene::new();
    scene.offer("alpha", 1, 4096);
    scene.offer("beta", 2, 4096);
    for row in 1..=1000 {
        scene.order(row);
    }
    let channels = scene.dispatcher.channels();
    // Alpha takes four at a time; whoever would have asked it asks beta.
    assert_eq!((channels[0].jobs, channels[1].jobs), (4, 996));
    assert_eq!(scene.deeds().0.len(), 2);
    let mut wide = Scene::of(&TABLE.replace("jobs = 4\n", "jobs = 4096\n"));
    wide.offer("alpha", 1, 4096);
    wide.offer("beta", 2, 4096);
    for row in 1..=1000 {
        wide.order(row);
    }
    let alpha = wide.dispatcher.channels()[0].jobs;
    assert!((700..800).contains(&alpha), "{alpha} of 1000 by 75 %");
}

#[test]
fn who_waits_for_room_goes_by_priority_and_then_by_place() {
    let mut scene = Scene::new();
    scene.offer("gamma", 1, 1);
    scene.order(1);
    let low = scene.order_of(2, 1, 3, 1);
    let late = scene.order_of(4, 1, 0, 1);
    let early = scene.order_of(3, 1, 0, 1);
    scene.deeds();
    let mut got = Vec::new();
    for _ in 0..3 {
        scene.offer("gamma", 1, 1);
        got.extend(scene.jobs());
    }
    assert_eq!(got, [early, late, low]);
}

#[test]
fn cards_end_a_job_when_they_are_enough_and_too_few_send_the_order_on() {
    let mut scene = Scene::new();
    let id = {
        scene.offer("beta", 2, 9);
        scene.order_of(1, 2, 1, 3)
    };
    assert_eq!(scene.jobs(), [id]);
    assert_eq!(scene.deliver("beta", id, 1, false), (JobState::UnderWay, 2));
    assert_eq!(scene.deliver("beta", id, 1, true), (JobState::Over, 1));
    // Nobody else sells it: that was the attempt.
    let (_, tried) = scene.deeds();
    assert_eq!(tried[&1].attempts, 1);
    assert_eq!(tried[&1].cause, RetryCause::TooFew.as_u16() as u8);
    // What still comes is late, and told to be enough when it is.
    assert_eq!(scene.deliver("beta", id, 1, false), (JobState::Done, 0));
    assert_eq!(scene.dispatcher.channels()[1].counts.late, 1);
    assert_eq!(scene.deliver("beta", 7, 1, false), (JobState::Unknown, 0));
    assert_eq!(
        scene.deliver("nobody", id, 1, false),
        (JobState::Unknown, 0)
    );
}

#[test]
fn a_lease_that_ends_sends_the_order_to_the_next_channel_and_late_cards_are_known_as_late() {
    let mut scene = Scene::new();
    scene.offer("beta", 2, 9);
    let id = scene.order(1);
    assert_eq!(scene.jobs(), [id]);
    scene.offer("gamma", 3, 9);
    scene.pass(4_999);
    assert!(scene.jobs().is_empty());
    scene.pass(1);
    assert_eq!(scene.jobs(), [id]);
    assert_eq!(scene.deliver("beta", id, 1, true), (JobState::Done, 0));
    assert_eq!(scene.end("beta", id, 1, Ending::Fail), JobState::Over);
    let channels = scene.dispatcher.channels();
    assert_eq!(channels[1].counts.timed_out, 1);
    assert_eq!(channels[1].counts.late, 1);
    assert_eq!(scene.deliver("gamma", id, 1, true), (JobState::Done, 0));
    // The order got its card: nobody is asked again.
    scene.town.waiting.clear();
    scene.pass(10_000);
    assert!(scene.jobs().is_empty());
    assert_eq!(scene.dispatcher.orders(), 0);
    assert_eq!(scene.dispatcher.jobs(), 0);
}

#[test]
fn an_extended_lease_goes_on_but_never_longer_than_an_hour() {
    let mut scene = Scene::new();
    scene.offer("beta", 2, 9);
    let id = scene.order_of(1, 2, 1, 1);
    scene.jobs();
    assert_eq!(scene.end("beta", id, 2, Ending::Extend(9)), JobState::Over);
    scene.pass(4_000);
    assert_eq!(
        scene.end("beta", id, 1, Ending::Extend(60_000)),
        JobState::UnderWay
    );
    scene.pass(59_000);
    assert_eq!(scene.dispatcher.jobs(), 1);
    let town = &scene.town;
    let (_, lease_ms) =
        scene
            .dispatcher
            .end(scene.now, ("beta", id), 1, Ending::Extend(u32::MAX), town);
    assert_eq!(u64::from(lease_ms), LEASE_MAX_MS - 63_000);
    scene.pass(u64::from(lease_ms));
    assert_eq!(scene.dispatcher.jobs(), 0);
}

#[test]
fn a_worker_that_goes_leaves_its_jobs_to_others() {
    let mut scene = Scene::new();
    scene.offer("beta", 2, 9);
    let ids = [scene.order(1), scene.order(2)];
    assert_eq!(scene.jobs(), ids);
    scene.offer("gamma", 3, 9);
    scene.dispatcher.gone(scene.now, 2, &scene.town);
    assert_eq!(scene.jobs(), ids);
    assert_eq!(scene.dispatcher.channels()[1].workers, 0);
    assert_eq!(scene.dispatcher.jobs(), 2);
    // Nobody is left: it was an attempt.
    scene.dispatcher.gone(scene.now, 3, &scene.town);
    let (_, tried) = scene.deeds();
    assert_eq!(tried.len(), 2);
}

#[test]
fn attempts_pause_longer_each_time_and_then_the_order_is_buried() {
    let mut scene = Scene::new();
    scene.order(1);
    let mut before = 0;
    for (attempt, pause) in [(1, 1_000), (2, 2_000)] {
        let (_, tried) = scene.deeds();
        let tried = tried[&1];
        assert_eq!((tried.attempts, tried.is_buried), (attempt, false));
        assert_eq!(tried.cause, RetryCause::NoChannel.as_u16() as u8);
        let after = tried.again_unix_ms - scene.now;
        assert!((pause * 3 / 4..=pause * 5 / 4).contains(&after), "{after}");
        assert!(after > before);
        before = after;
        scene.pass(after);
    }
    let (_, tried) = scene.deeds();
    let end = Tried {
        attempts: 3,
        cause: RetryCause::NoChannel.as_u16() as u8,
        is_buried: true,
        again_unix_ms: 0,
    };
    assert_eq!(tried[&1], end);
    // A worker is no reason to ask for it again.
    scene.offer("gamma", 3, 9);
    scene.pass(100_000);
    assert!(scene.jobs().is_empty());
    // An operator is.
    let kicked = scene.wanted(1, 1, 1, 1);
    scene.offer("gamma", 3, 9);
    scene.dispatcher.wanted(scene.now, kicked, &scene.town);
    assert_eq!(scene.jobs(), [kicked.id]);
}

#[test]
fn orders_that_found_no_channel_come_at_once_when_there_is_one_by_priority() {
    let mut scene = Scene::new();
    for row in 1..=100 {
        scene.order_of(row, 1, (row % 4) as u8, 1);
    }
    assert_eq!(scene.deeds().1.len(), 100);
    scene.offer("gamma", 3, 4096);
    let (given, tried) = scene.deeds();
    assert!(tried.is_empty());
    let rows: Vec<u64> = given[&1]
        .iter()
        .map(|id| (id - 0xabcd_0000) as u64)
        .collect();
    let mut sorted = rows.clone();
    sorted.sort_by_key(|row| (row % 4, *row));
    assert_eq!(rows, sorted);
    assert_eq!(rows.len(), 100);
}

#[test]
fn a_channel_that_comes_and_goes_uses_up_no_attempts() {
    let mut scene = Scene::new();
    scene.offer("gamma", 3, 1);
    scene.order(1);
    scene.jobs();
    for row in 2..=9 {
        scene.order(row);
    }
    scene.dispatcher.gone(scene.now, 3, &scene.town);
    let (_, tried) = scene.deeds();
    assert!(tried.values().all(|tried| tried.attempts == 1));
    for connection in 4..20 {
        scene.offer("gamma", connection, 1);
        scene.dispatcher.gone(scene.now, connection, &scene.town);
        let (_, tried) = scene.deeds();
        // Only the one that it had.
        assert!(tried.len() <= 1, "{tried:?}");
    }
}

/// An order that all channels have failed for good.
fn failed_for_good(scene: &mut Scene) -> u128 {
    scene.offer("beta", 2, 9);
    scene.offer("gamma", 3, 9);
    scene.offer("alpha", 1, 9);
    let id = scene.order(1);
    for attempt in 1..=3 {
        assert_eq!(scene.jobs(), [id]);
        let Some(&(_, at)) = scene
            .dispatcher
            .jobs
            .iter()
            .find_map(|(key, given)| (!given.is_over).then_some(key))
        else {
            panic!("one of them has it");
        };
        let name = scene.dispatcher.channels[usize::from(at)].name.clone();
        assert_eq!(
            scene.end(&name, id, attempt, Ending::FailForGood),
            JobState::Over
        );
    }
    id
}

#[test]
fn what_all_channels_fail_for_good_is_buried_at_once() {
    let mut scene = Scene::new();
    let id = failed_for_good(&mut scene);
    let (_, tried) = scene.deeds();
    assert!(tried[&1].is_buried && tried[&1].attempts == 1);
    // It is known until that is recorded, and asked for again if it cannot be.
    assert_eq!(scene.dispatcher.orders(), 1);
    scene.dispatcher.noted(scene.now, [1], &scene.town);
    scene.offer("beta", 2, 9);
    scene.pass(BURY_AGAIN_MS);
    let (given, tried) = scene.deeds();
    assert!(given.values().all(Vec::is_empty) && tried[&1].is_buried);
    scene.town.buried.insert(1);
    scene.dispatcher.noted(scene.now, [1], &scene.town);
    assert_eq!(scene.dispatcher.orders(), 0);
    // Until an operator has it asked for again.
    let kicked = scene.wanted(1, 1, 1, 1);
    scene.dispatcher.wanted(scene.now, kicked, &scene.town);
    assert_eq!(scene.jobs(), [id]);
}

#[test]
fn an_order_that_is_kicked_before_its_burial_is_known_asks_all_channels_again() {
    let mut scene = Scene::new();
    let id = failed_for_good(&mut scene);
    scene.deeds();
    scene.offer("gamma", 3, 9);
    let kicked = scene.wanted(1, 1, 1, 1);
    scene.dispatcher.wanted(scene.now, kicked, &scene.town);
    scene.dispatcher.noted(scene.now, [1], &scene.town);
    assert_eq!(scene.jobs(), [id]);
}

#[test]
fn orders_that_wait_no_more_are_swept_out() {
    let mut scene = Scene::new();
    // Nobody takes a job, so that none is ever looked at.
    scene.offer("gamma", 3, 1);
    for row in 1..=ORDERS_UNSWEPT as u64 - 1 {
        scene.order(row);
        if row % 2 == 0 {
            scene.town.waiting.remove(&row);
        }
    }
    scene.pass(1);
    assert_eq!(scene.dispatcher.orders(), ORDERS_UNSWEPT - 1);
    scene.order(ORDERS_UNSWEPT as u64);
    scene.pass(1);
    let waiting = ORDERS_UNSWEPT / 2 + 1;
    assert_eq!(scene.dispatcher.orders(), waiting);
    assert_eq!(scene.ready("gamma"), waiting as u32 - 1);
}

#[test]
fn an_order_whose_cards_others_got_is_asked_for_again() {
    let mut scene = Scene::new();
    scene.offer("beta", 2, 9);
    let id = scene.order_of(1, 2, 1, 1);
    assert_eq!(scene.jobs(), [id]);
    assert_eq!(scene.deliver("beta", id, 1, true), (JobState::Done, 0));
    scene.offer("beta", 2, 9);
    scene.pass(LOOK_AFTER_MS);
    assert_eq!(scene.jobs(), [id]);
    assert_eq!(scene.deeds().1, BTreeMap::new());
}

#[test]
fn limits_hold() {
    let mut scene = Scene::new();
    for connection in 0..WORKERS_MAX as u64 {
        scene.offer("gamma", connection, 1);
    }
    let offer = (9_999, 1, scene.now + 1);
    let town = &scene.town;
    let no = scene.dispatcher.offer(scene.now, "gamma", 999, offer, town);
    assert_eq!(no, Err(NoOffer::TooManyWorkers));
    let no = scene.dispatcher.offer(scene.now, "delta", 999, offer, town);
    assert_eq!(no, Err(NoOffer::UnknownChannel));
}

#[test]
fn another_table_takes_a_channel_away_and_its_cards_are_known_all_the_same() {
    let mut scene = Scene::new();
    scene.offer("beta", 2, 9);
    let ids = [scene.order(1), scene.order(2)];
    assert_eq!(scene.jobs(), ids);
    let text = TABLE.replace("{ alpha = 75, beta = 25 }, ", "");
    let text = text.replace("name = \"beta\"", "name = \"delta\"");
    scene.town.table = RouteTable::parse(2, &text).expect("a table");
    scene.dispatcher.adopt(scene.now, &scene.town.table);
    assert_eq!(scene.dispatcher.pool("beta").as_deref(), Some("beta"));
    assert_eq!(scene.deliver("beta", ids[0], 1, true), (JobState::Done, 0));
    scene.offer("gamma", 3, 9);
    scene.pass(5_000);
    assert_eq!(
        scene.jobs().len(),
        2,
        "one was got by nobody it seems, the other is out of time"
    );
}
