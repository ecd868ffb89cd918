//! A seed from begin to end, and the shortest run that still fails.

use crate::crash::{Crashes, caught};
use crate::plan::{FEATURES, Plan};
use crate::world::{Tally, World};

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub tally: Tally,
    pub crashes: Crashes,
    /// First answers with cards, repeats, refusals, outcomes never known.
    pub answers: [u64; 6],
}

/// A run that found something.
#[derive(Clone, Debug)]
pub struct Violation {
    pub plan: Plan,
    pub what: String,
    /// The step at which it was found.
    pub step: u64,
}

/// Runs a plan.
///
/// # Errors
/// What was violated.
pub fn run(plan: &Plan) -> Result<Done, Violation> {
    let mut world = World::new(plan, false);
    match caught(|| world.run()) {
        Ok(()) => Ok(Done {
            tally: world.tally,
            crashes: world.crashes(),
            answers: world.answers(),
        }),
        Err(what) => Err(Violation {
            plan: plan.clone(),
            what,
            step: world.tally.steps,
        }),
    }
}

/// Runs a plan once more and tells everything that happened, and the last changes of the disk.
pub fn trace(plan: &Plan) -> (Vec<String>, Vec<String>, Result<(), String>) {
    let mut world = World::new(plan, true);
    let ended = caught(|| world.run());
    let (trace, journal) = world.trace();
    (trace, journal, ended)
}

/// Leaves out what is not needed for a violation: steps first, then features, then steps again.
pub fn shrink(found: &Violation, mut tell: impl FnMut(&Violation)) -> Violation {
    let mut best = cut(found, &mut tell);
    for feature in FEATURES
        .into_iter()
        .filter(|feature| found.plan.has(*feature))
    {
        if let Err(still) = run(&best.plan.without(feature)) {
            best = cut(&still, &mut tell);
        }
    }
    best
}

/// Ends the run at the step that found it.
fn cut(found: &Violation, tell: &mut impl FnMut(&Violation)) -> Violation {
    let mut best = found.clone();
    let mut plan = found.plan.clone();
    plan.steps_max = found.step;
    if let Err(still) = run(&plan) {
        best = still;
    }
    tell(&best);
    best
}
