//! The table of docs/orders.md, read backwards: in which states may a step have been answered so?
//!
//! A new step, or a new state, is a row here and an arm in the book that keeps it.

use croupier_client::{OrderOutcome, Refusal, Step, Wait};

use super::Ask;

/// Some of the states that an order may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct States(u16);

impl States {
    pub(super) const NO: Self = Self(0);
    /// There is no such order.
    pub(super) const NONE: Self = Self(1);
    pub(super) const HELD: Self = Self(2);
    /// By an issue, also one that has waited.
    pub(super) const ISSUED: Self = Self(4);
    /// By a commit, late or not.
    pub(super) const COMMITTED: Self = Self(8);
    pub(super) const CANCELLED: Self = Self(16);
    pub(super) const EXPIRED: Self = Self(32);
    /// For stock, to be issued or held.
    pub(super) const WAITING: Self = Self(64);
    /// It was to be issued, and was cancelled while it waited.
    pub(super) const VAINLY_CANCELLED: Self = Self(128);
    /// It was to be issued, and has waited until its time was up.
    pub(super) const VAINLY_EXPIRED: Self = Self(256);
    pub(super) const ANY: Self = Self(511);
    /// Whatever it was to be.
    pub(super) const ALL_CANCELLED: Self = Self::CANCELLED.or(Self::VAINLY_CANCELLED);
    pub(super) const ALL_EXPIRED: Self = Self::EXPIRED.or(Self::VAINLY_EXPIRED);

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// These, if it is so.
    pub(super) const fn when(self, so: bool) -> Self {
        if so { self } else { Self::NO }
    }

    pub(super) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What was known of an order when something was asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    /// It has waited for stock, at least.
    Waiting,
    /// It has been held, at least.
    Held,
    Issued,
    Cancelled,
    Expired,
}

impl Known {
    /// The states that an order may have come to since.
    pub(super) const fn onwards(self) -> States {
        match self {
            Self::Nothing => States::ANY,
            Self::Waiting => States::WAITING
                .or(States::HELD)
                .or(States::ISSUED)
                .or(States::COMMITTED)
                .or(States::ALL_CANCELLED)
                .or(States::ALL_EXPIRED),
            Self::Held => States::HELD
                .or(States::COMMITTED)
                .or(States::CANCELLED)
                .or(States::EXPIRED),
            Self::Issued => States::ISSUED.or(States::COMMITTED),
            Self::Cancelled => States::ALL_CANCELLED,
            Self::Expired => States::ALL_EXPIRED.or(States::COMMITTED),
        }
    }
}

/// The states in which this may be the answer.
pub(super) fn states_that_say(ask: &Ask, outcome: &OrderOutcome) -> States {
    use States as S;
    // Its own: the step has the numbers of the order, or is none that has any.
    let (asked, own) = (&ask.step, ask.own);
    let step = asked.step;
    let begins = matches!(step, Step::Issue | Step::Reserve);
    match outcome {
        // Whoever began it and stayed gets what it has become, without the mark.
        OrderOutcome::Issued(order) => match (step, order.repeat) {
            (Step::Issue, false) => S::NONE.when(own),
            (Step::Issue, true) => S::ISSUED.when(own),
            (Step::Commit, false) => S::HELD.or(S::EXPIRED.when(!asked.only_held)),
            (Step::Commit, true) => S::COMMITTED,
            _ => S::NO,
        },
        OrderOutcome::Held(order) => match (step, order.repeat) {
            (Step::Reserve, false) => S::NONE.when(own),
            (Step::Reserve, true) => S::HELD.when(own),
            (Step::Extend, _) => S::HELD,
            _ => S::NO,
        },
        // An ask that may not wait is told so, too, if its order does.
        OrderOutcome::Waiting(order) => match order.repeat {
            false => S::NONE.when(begins && own && ask.may_wait()),
            true => S::WAITING.when(begins && own),
        },
        OrderOutcome::Cancelled(order) => match (step, order.repeat) {
            (Step::Cancel, false) => S::HELD.or(S::WAITING),
            (Step::Cancel, true) => S::ALL_CANCELLED,
            _ => S::NO,
        },
        // Only a look-up says so.
        OrderOutcome::Expired(_) => S::NO,
        OrderOutcome::Refused { refusal, .. } => states_that_refuse(ask, *refusal),
    }
}

fn states_that_refuse(ask: &Ask, refusal: Refusal) -> States {
    use States as S;
    let (asked, own) = (&ask.step, ask.own);
    let step = asked.step;
    let begins = matches!(step, Step::Issue | Step::Reserve);
    let vainly = S::VAINLY_CANCELLED.or(S::VAINLY_EXPIRED);
    match refusal {
        Refusal::OrderNotFound => S::NONE.when(!begins),
        // Of those that are linked it is told to who is not there.
        Refusal::LinkedRefused => S::NONE.when(begins),
        // A late commit is dealt as an issue.
        Refusal::HolderCardsReached => match step {
            Step::Issue | Step::Reserve => S::NONE,
            Step::Commit => S::EXPIRED,
            Step::Cancel | Step::Extend => S::NO,
        },
        Refusal::HolderHoldsReached => {
            S::NONE.when(begins && (step == Step::Reserve || ask.may_wait()))
        }
        Refusal::OutOfStock => S::NONE.when(begins && asked.wait == Wait::No),
        Refusal::StillWaiting => S::WAITING.when(matches!(step, Step::Commit | Step::Extend)),
        Refusal::WaitInvalid => S::NONE.when(begins && asked.wait != Wait::No),
        Refusal::OrderIdReused => match step {
            Step::Issue => S::HELD
                .or(S::ISSUED.or(S::WAITING).when(!own))
                .or(S::COMMITTED)
                .or(S::CANCELLED)
                .or(S::EXPIRED),
            Step::Reserve => S::ISSUED.or(S::HELD.or(S::WAITING).when(!own)).or(vainly),
            Step::Commit => S::ISSUED.or(S::COMMITTED).or(vainly),
            Step::Cancel => S::ISSUED,
            Step::Extend => S::ISSUED.or(S::HELD).or(vainly),
        },
        Refusal::AlreadyCommitted => {
            S::COMMITTED.when(matches!(step, Step::Reserve | Step::Cancel | Step::Extend))
        }
        Refusal::AlreadyCancelled => match step {
            Step::Issue => S::VAINLY_CANCELLED,
            Step::Reserve | Step::Commit | Step::Extend => S::CANCELLED,
            Step::Cancel => S::NO,
        },
        Refusal::Expired => match step {
            Step::Issue => S::VAINLY_EXPIRED,
            Step::Cancel => S::ALL_EXPIRED,
            Step::Reserve | Step::Commit | Step::Extend => S::EXPIRED,
        },
        // There is no extension before the first, whatever the order.
        Refusal::NoExtensionLeft if asked.nth == 0 => S::ANY.when(step == Step::Extend),
        Refusal::NoExtensionLeft => S::HELD.when(step == Step::Extend),
        Refusal::NotSoManyHeld => S::HELD.or(S::EXPIRED).when(step == Step::Commit),
        // Said only where something would have changed.
        Refusal::DeadlineExceeded | Refusal::DiskFull => match step {
            Step::Issue | Step::Reserve => S::NONE,
            Step::Commit => S::HELD.or(S::EXPIRED),
            Step::Cancel => S::HELD.or(S::WAITING),
            Step::Extend => S::HELD,
        },
        _ => S::ANY,
    }
}
