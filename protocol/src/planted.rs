//! Bugs planted on purpose, to see that the tests find them. None is in a build without the feature `planted`, nor in one
//! without debug assertions, so no release has any.
//!
//! `CROUPIER_PLANTED=name` chooses one; without it nothing is different. `.ci/planted` runs every layer against each.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $layer:expr;)+) => {
        /// A bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $doc])+ $name,)+
        }

        /// Every bug: its name, and the layer that must find it.
        pub const BUGS: &[(Bug, &str, Layer)] = &[$((Bug::$name, $text, $layer),)+];
    };
}

use Layer::{Client, Engine, Loom, Sim};

/// What finds a bug. With the words that are in the name of a test that does, so that no others need run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The simulator.
    Sim,
    /// The model checker.
    Loom(&'static str),
    /// The tests of the engine's parts.
    Engine(&'static str),
    /// The tests of the client against a peer that misbehaves.
    Client(&'static str),
}

impl Layer {
    /// Its name, and the words; none for the simulator.
    pub fn name_and_test(self) -> (&'static str, &'static str) {
        match self {
            Layer::Sim => ("Sim", ""),
            Layer::Loom(test) => ("Loom", test),
            Layer::Engine(test) => ("Engine", test),
            Layer::Client(test) => ("Client", test),
        }
    }
}

bugs! {
    /// A block counts as durable when it is taken from the ring.
    AckBeforeSync = "ack-before-sync", Sim;
    /// A block is written and not synced.
    SkipBlockSync = "skip-block-sync", Sim;
    /// A write that failed is tried again, and then believed (rule 8).
    RetryFailedWrite = "retry-failed-write", Sim;
    /// The block that ends a segment is not synced.
    SkipLastSync = "skip-last-sync", Sim;
    /// A new segment gets its name before its contents are synced.
    SkipSegmentSync = "skip-segment-sync", Sim;
    /// Names are never synced.
    SkipDirectorySync = "skip-directory-sync", Sim;
    /// A checkpoint's files get their names before their contents are synced.
    SkipDraftSync = "skip-draft-sync", Sim;
    /// A start trusts what it read from a cache.
    TrustCacheAtStart = "trust-cache-at-start", Sim;
    /// A start does not zero a torn tail.
    KeepTornTail = "keep-torn-tail", Sim;
    /// Segments go before the checkpoint that replaces them is in force.
    RemoveBeforeSwitch = "remove-before-switch", Sim;
    /// The log is cut at any checksum that does not match.
    TruncateOnDamage = "truncate-on-damage", Sim;
    /// A slot is given back before there is a record of it.
    ReleaseBeforeRecord = "release-before-record", Sim;
    /// A repeat is answered although the first answer's record is not durable.
    RepeatBeforeDurable = "repeat-before-durable", Sim;
    /// Another order under a known id gets the old order's cards.
    IgnoreIdReuse = "ignore-id-reuse", Sim;
    /// Credits that a turn did not need are not given back.
    LoseCredits = "lose-credits", Sim;
    /// Credits are given back twice.
    GiveCreditsTwice = "give-credits-twice", Sim;
    /// A turn counts on room in the ring that other cores may take first.
    ForgetOtherWriters = "forget-other-writers", Engine("engine::tests::room_in_the_log");
    /// A checkpoint forgets orders of many cards.
    FoldForgets = "fold-forgets", Sim;
    /// An import's cards are dropped when the start that follows recovers.
    DropSealedImports = "drop-sealed-imports", Sim;
    /// The answer tells one card fewer than the record.
    ShortAnswer = "short-answer", Sim;
    /// Order files that were joined go before the checkpoint that lists the joined one is in force.
    RemoveJoinedEarly = "remove-joined-early", Sim;
    /// A card that is made void goes back to where dealers find it.
    SellVoid = "sell-void", Sim;
    /// Cards that are dealt more than once are dealt once too often.
    UseOnceMore = "use-once-more", Sim;
    /// A checkpoint does not hold which cards without end are void.
    ReopenEndless = "reopen-endless", Sim;
    /// Dealers do not look whether cards have expired that are still in stock.
    DealExpired = "deal-expired", Sim;
    /// A checkpoint does not hold which cards are out of sale.
    ForgetMarks = "forget-marks", Sim;
    /// A checkpoint does not hold which orders hold cards.
    ForgetHolds = "forget-holds", Sim;
    /// A commit gives all cards of its hold back, those that it took too.
    GiveHoldBack = "give-hold-back", Sim;
    /// A caller is told how an order has ended although that is not durable.
    TellEndEarly = "tell-end-early", Sim;
    /// Whoever comes takes stock that orders wait for.
    OvertakeLine = "overtake-line", Engine("engine::tests::stock_that_comes");
    /// A start does not know when the cards of holders were dealt.
    ForgetHolderOnReplay = "forget-holder-on-replay", Sim;
    /// The orders of a chain for which there is stock are dealt without the one for which there is none.
    SplitChain = "split-chain", Sim;
    /// Orders that wait are filled last come, first served.
    FillOutOfTurn = "fill-out-of-turn", Engine("engine::tests::stock_that_comes");
    /// Stock that holds give back does not call the desk.
    ForgetToCall = "forget-to-call", Sim;
    /// A slot is claimed by a load and a store instead of one atomic step.
    ClaimInTwoSteps = "claim-in-two-steps", Loom("slab::claim::model");
    /// A batch is shown to the committer before its words are there.
    StampBeforeWords = "stamp-before-words", Loom("wal::ring::model");
    /// The sleeper does not look once more before it sleeps.
    LostWakeUp = "lost-wake-up", Loom("wal::bell::model::no_wake_up");
    /// A core that wrote a block in the committer's place does not look whether more has come.
    LeaveBehind = "leave-behind", Loom("wal::bell::model::who_works");
    /// An order that holds cards is claimed for a change by a load and a store instead of one atomic step.
    ChangeInTwoSteps = "change-in-two-steps", Loom("index::model::one_of_two_changes");
    /// A claimed slot of the order index that is given up is as empty as before.
    GiveUpToEmpty = "give-up-to-empty", Loom("index::model::ids_that_go_together");
    /// Two slots of a slab share a nonce.
    NonceReuse = "nonce-reuse", Engine("slab::sealing");
    /// Claim bits of a slab's file are believed (rule 2).
    TrustMappedBits = "trust-mapped-bits", Engine("slab::file");
    /// A block need not carry the hash of the one before it.
    IgnoreChain = "ignore-chain", Engine("wal::reader_tests");
    /// A lost order is asked for again under another id.
    RetryWithNewId = "retry-with-new-id", Client("losses");
}

/// Whether a bug is planted in this process. Always false, and free, in a build that cannot have any.
#[inline(always)]
pub fn is(bug: Bug) -> bool {
    #[cfg(all(feature = "planted", debug_assertions))]
    return chosen() == Some(bug);
    #[cfg(not(all(feature = "planted", debug_assertions)))]
    {
        let _ = bug;
        false
    }
}

#[cfg(all(feature = "planted", debug_assertions))]
fn chosen() -> Option<Bug> {
    static CHOSEN: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("CROUPIER_PLANTED").ok()?;
        let found = BUGS.iter().find(|(_, text, _)| *text == name);
        Some(
            found
                .unwrap_or_else(|| panic!("no planted bug is called {name:?}"))
                .0,
        )
    })
}
