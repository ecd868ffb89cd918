//! What the server says of its channels, asked again and again while the scene is played.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use croupier_client::{ChannelStanding as Standing, Client};
use tokio::time::{Instant, sleep};

use super::CHANNELS;
use super::load::Phases;
use crate::driver::Clock;

/// Between two looks: nothing is known more exactly than this.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Another standing of a channel than at the look before.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    at_ns: u64,
    channel: usize,
    standing: Standing,
}

/// All turns of all channels, in their order.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    turns: Vec<Turn>,
    now: [Option<Standing>; CHANNELS.len()],
}

impl Seen {
    fn look(&mut self, at_ns: u64, standings: [Option<Standing>; CHANNELS.len()]) {
        for (channel, standing) in standings.into_iter().enumerate() {
            if let Some(standing) = standing.filter(|_| self.now[channel] != standing) {
                self.now[channel] = Some(standing);
                self.turns.push(Turn {
                    at_ns,
                    channel,
                    standing,
                });
            }
        }
    }

    fn turns_of(&self, channel: usize) -> impl DoubleEndedIterator<Item = &Turn> {
        let turns = self.turns.iter();
        turns.filter(move |turn| turn.channel == channel)
    }

    /// How often a channel was ejected.
    pub fn ejections(&self, channel: usize) -> usize {
        let ejected = |turn: &&Turn| turn.standing == Standing::Ejected;
        self.turns_of(channel).filter(ejected).count()
    }

    /// How long after it fell ill a channel was ejected, in nanoseconds; `None`: not before it got well.
    pub fn ejected_after_ns(&self, channel: usize, phases: &Phases) -> Option<u64> {
        let is_ill = phases.during_ns..phases.after_ns;
        let ejected = self
            .turns_of(channel)
            .find(|turn| turn.standing == Standing::Ejected && is_ill.contains(&turn.at_ns))?;
        Some(ejected.at_ns - phases.during_ns)
    }

    /// How long after it got well a channel that was ejected was healthy for the rest of the scene, in nanoseconds.
    pub fn recovered_after_ns(&self, channel: usize, phases: &Phases) -> Option<u64> {
        let last = self.turns_of(channel).next_back()?;
        let recovered = last.standing == Standing::Healthy && self.ejections(channel) > 0;
        recovered.then(|| last.at_ns.saturating_sub(phases.after_ns))
    }

    fn all_are_well(&self) -> bool {
        let is_well = |standing: &Option<Standing>| *standing == Some(Standing::Healthy);
        self.now.iter().all(is_well)
    }
}

/// Looks, and remembers what it has seen.
#[derive(Debug, Clone)]
pub struct Watch {
    clock: Clock,
    seen: Arc<Mutex<Seen>>,
}

impl Watch {
    /// Has seen nothing.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            seen: Arc::default(),
        }
    }

    /// Looks for ever.
    pub async fn run(self, client: Client) {
        loop {
            // A look that fails is followed by others.
            if let Some(standings) = standings(&client).await {
                let at_ns = self.clock.now_ns();
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.look(at_ns, standings);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Everything so far.
    pub fn seen(&self) -> Seen {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Waits until all channels are healthy, for so long at most.
    pub async fn until_all_are_well(&self, within: Duration) {
        let until = Instant::now() + within;
        while !self.seen().all_are_well() && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
    }
}

/// How the channels of the scene stand now.
async fn standings(client: &Client) -> Option<[Option<Standing>; CHANNELS.len()]> {
    let rows = client.channels().await.ok()?;
    Some(CHANNELS.map(|(name, _)| {
        let row = rows.iter().find(|row| row.name == name)?;
        Standing::try_from(row.standing).ok()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejection_counts_from_the_illness_and_recovery_from_its_end() {
        use Standing::{Ejected, Healthy, Probing};
        let phases = Phases {
            begin_ns: 0,
            before_ns: 0,
            during_ns: 100,
            after_ns: 200,
            end_ns: 300,
        };
        let mut seen = Seen::default();
        for (at_ns, standing) in [
            (10, Healthy),
            (20, Healthy),
            (120, Ejected),
            (150, Probing),
            (160, Ejected),
            (210, Probing),
            (220, Healthy),
        ] {
            seen.look(at_ns, [Some(standing), Some(Healthy), None]);
        }
        assert_eq!(seen.ejections(0), 2);
        assert_eq!(seen.ejected_after_ns(0, &phases), Some(20));
        assert_eq!(seen.recovered_after_ns(0, &phases), Some(20));
        seen.look(230, [None, Some(Ejected), None]);
        assert_eq!(
            seen.ejected_after_ns(1, &phases),
            None,
            "it was well by then"
        );
        seen.look(240, [None, Some(Healthy), None]);
        assert_eq!(seen.recovered_after_ns(1, &phases), Some(40));
        let seen = Seen::default();
        assert_eq!(seen.ejections(1), 0);
        assert_eq!(seen.ejected_after_ns(1, &phases), None);
        assert_eq!(seen.recovered_after_ns(1, &phases), None);
        assert!(!seen.all_are_well(), "one was never seen");
    }
}
