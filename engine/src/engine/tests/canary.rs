//! What is seen of orders of a canary, and of its baseline, that no stock was there for.

use super::*;
use crate::route::{Fate, Group, Sighting};
use croupier_protocol::CanarySettings;

/// What finds no stock is accepted.
const CHANNELS: &str =
    "[[channel]]\nname = \"main\"\nkind = \"issuer\"\n[[rule]]\nchannels = [\"main\"]\n";
const NOW: u64 = 1_000_000;
const ORDERS: u64 = 40;

#[test]
fn an_accepted_order_counts_from_when_it_waits_to_when_it_is_filled() {
    let (disk, readable) = new_store();
    let engine = start(&disk, &readable).unwrap();
    engine.sku_create("steam-50").unwrap();
    engine.routes_load(CHANNELS, None).unwrap();
    let settings = CanarySettings {
        share: Some(50),
        ..CanarySettings::default()
    };
    let on_trial = "# the same\n".to_owned() + CHANNELS;
    engine.canary_start(&on_trial, &settings).unwrap();
    let trial = engine.routes.trial().unwrap();

    let mut core = Core::new(&engine);
    let order = |id: u64, quantity| Order::issue(id.into(), 1, quantity, Ticket::single(0, id));
    for id in 0..ORDERS {
        // Every fourth has no time to wait until there are cards.
        let deadline_unix_ms = if id % 4 == 3 { NOW + 50 } else { u64::MAX };
        core.push(Order {
            deadline_unix_ms,
            ..order(id + 1, 2)
        });
    }
    // The index is small and grows, so some come again.
    let waiting = || engine.state.index.open_holds().count();
    while waiting() < ORDERS as usize {
        // Nobody is told so soon that it waits.
        assert!(core.turn(NOW).is_empty());
    }
    (0..4).for_each(|_| drop(core.turn(NOW + 51)));
    engine.record(&fixture::batch_of(1, 100)).unwrap();
    while waiting() > 0 {
        core.turn(NOW + 700);
    }

    let mut all: Vec<Sighting> = Vec::new();
    trial.gather(|seen| all.push(seen));
    assert_eq!(all.len(), ORDERS as usize);
    let of = |fate| move |seen: &&Sighting| seen.fate == fate;
    assert_eq!(all.iter().filter(of(Fate::Failed)).count(), 10);
    // For each of two cards.
    let filled: Vec<_> = all
        .iter()
        .filter(of(Fate::Filled { ns: 350_000_000 }))
        .collect();
    assert_eq!(filled.len(), 30);
    for group in [Group::Canary, Group::Baseline] {
        assert!(filled.iter().any(|seen| seen.group == group));
    }
}
