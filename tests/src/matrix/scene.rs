//! The scenes of the matrix: what is done to a store while faults are put in. Each is a script that makes the same system
//! calls in every run, as one client acts and one thread does the work.

use super::Phase;

/// How the traced process begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// `croupier init` on nothing, traced from its first instruction on.
    Init,
    /// A server that is traced from its first instruction on: its start is what is looked at.
    Launch(Stage),
    /// A server that is traced once it listens.
    Attach(Stage),
}

/// The stores that scenes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Some cards, a few orders, never stopped in good order.
    Plain,
    /// As `Plain`, with a log whose next segment is three orders away.
    Brink,
    /// As `Brink`, with a checkpoint and an order file.
    FoldedBrink,
    /// As `FoldedBrink`, with orders in the segment after, and its spares made.
    Rolled,
    /// As `FoldedBrink`, left by a crash: a torn tail, and what unfinished files of every kind look like.
    Torn,
    /// As `Plain`, with a spare segment too few.
    FewSpares,
}

/// All of them, in the order in which they are made.
pub const STAGES: [Stage; 6] = [
    Stage::Plain,
    Stage::Brink,
    Stage::FoldedBrink,
    Stage::Rolled,
    Stage::Torn,
    Stage::FewSpares,
];

/// One deed of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// So many orders of one card, one after the other: as many blocks of the log.
    Orders(usize),
    /// So many orders in one request.
    Batch(usize),
    /// The first order of the store once more: its answer must be the same.
    Repeat,
    /// Three orders reserve; one is committed in part, one extended and cancelled, one stays open. Six blocks of the log.
    Holds,
    /// Makes a SKU.
    CreateSku(&'static str),
    /// Imports so many cards; the SKU is made if need be.
    Import(&'static str, usize),
    /// A table with a channel that is outside, and two orders that are asked of it: cards are delivered for the first, also when it
    /// has some already, the second is failed and buried. Then the channel is taken out.
    Outside,
    /// Waits until the segment after the spare ones is made, or trying has been reported as failed.
    AwaitSegment,
    /// Waits until a checkpoint is in force and what it folded is gone, or trying has been reported as failed.
    AwaitCheckpoint,
    /// Asks the server to stop in good order.
    Stop,
}

/// A scene.
#[derive(Debug)]
pub struct Scene {
    /// What it is called in reports.
    pub name: &'static str,
    /// The phase it belongs to.
    pub phase: Phase,
    /// How it begins.
    pub begin: Begin,
    /// Sealed segments after which the server folds them.
    pub checkpoint_segments: u32,
    /// What is done.
    pub acts: &'static [Act],
}

const NEVER: u32 = 1000;

/// Every scene.
pub const SCENES: [Scene; 15] = [
    Scene {
        name: "init",
        phase: Phase::Init,
        begin: Begin::Init,
        checkpoint_segments: NEVER,
        acts: &[],
    },
    Scene {
        name: "import into a new SKU",
        phase: Phase::Import,
        begin: Begin::Attach(Stage::Plain),
        checkpoint_segments: NEVER,
        acts: &[Act::Import("fresh", 40), Act::Orders(1)],
    },
    Scene {
        name: "import into a known SKU",
        phase: Phase::Import,
        begin: Begin::Attach(Stage::Plain),
        checkpoint_segments: NEVER,
        acts: &[Act::Orders(1), Act::Import("cards", 40), Act::Orders(1)],
    },
    Scene {
        name: "load",
        phase: Phase::Load,
        begin: Begin::Attach(Stage::Plain),
        checkpoint_segments: NEVER,
        acts: &[
            Act::Orders(4),
            Act::Repeat,
            Act::Batch(12),
            Act::CreateSku("another"),
            Act::Orders(2),
        ],
    },
    Scene {
        name: "holds",
        phase: Phase::Load,
        begin: Begin::Attach(Stage::Plain),
        checkpoint_segments: NEVER,
        acts: &[Act::Holds, Act::Orders(1)],
    },
    Scene {
        name: "channel outside",
        phase: Phase::Load,
        begin: Begin::Attach(Stage::Plain),
        checkpoint_segments: NEVER,
        acts: &[Act::Outside, Act::Orders(1)],
    },
    Scene {
        name: "segment roll",
        phase: Phase::Roll,
        begin: Begin::Attach(Stage::Brink),
        checkpoint_segments: NEVER,
        acts: &[Act::Orders(5), Act::AwaitSegment, Act::Orders(1)],
    },
    Scene {
        name: "first checkpoint",
        phase: Phase::Checkpoint,
        begin: Begin::Attach(Stage::Brink),
        checkpoint_segments: 1,
        acts: &[Act::Orders(5), Act::AwaitCheckpoint, Act::Orders(1)],
    },
    Scene {
        name: "next checkpoint",
        phase: Phase::Checkpoint,
        begin: Begin::Attach(Stage::FoldedBrink),
        checkpoint_segments: 1,
        acts: &[Act::Orders(5), Act::AwaitCheckpoint, Act::Orders(1)],
    },
    Scene {
        name: "checkpoint of holds",
        phase: Phase::Checkpoint,
        begin: Begin::Attach(Stage::FoldedBrink),
        checkpoint_segments: 1,
        acts: &[Act::Holds, Act::AwaitCheckpoint, Act::Orders(1)],
    },
    Scene {
        name: "checkpoint of channels",
        phase: Phase::Checkpoint,
        begin: Begin::Attach(Stage::FoldedBrink),
        checkpoint_segments: 1,
        acts: &[Act::Outside, Act::AwaitCheckpoint, Act::Orders(1)],
    },
    Scene {
        name: "first shutdown",
        phase: Phase::Shutdown,
        begin: Begin::Attach(Stage::Plain),
        checkpoint_segments: NEVER,
        acts: &[Act::Orders(2), Act::Stop],
    },
    Scene {
        name: "shutdown after a roll",
        phase: Phase::Shutdown,
        begin: Begin::Attach(Stage::Rolled),
        checkpoint_segments: NEVER,
        acts: &[Act::Orders(2), Act::Stop],
    },
    Scene {
        name: "recovery of what a crash left",
        phase: Phase::Recovery,
        begin: Begin::Launch(Stage::Torn),
        checkpoint_segments: NEVER,
        acts: &[Act::Repeat, Act::Orders(1)],
    },
    Scene {
        name: "recovery that makes segments",
        phase: Phase::Recovery,
        begin: Begin::Launch(Stage::FewSpares),
        checkpoint_segments: NEVER,
        acts: &[Act::AwaitSegment, Act::Repeat, Act::Orders(1)],
    },
];
