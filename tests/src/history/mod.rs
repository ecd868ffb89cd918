//! A long random history: many callers take every step that there is, in any order, repeated and retried, while operators
//! import and move cards, and the real server is killed and stopped in between. The one [`Oracle`](crate::Oracle) hears
//! all of it.
//!
//! Reading order: [`course`] (what is asked of an order: a new step is added there), [`caller`] (who asks),
//! [`operator`] (imports and moves), [`life`] (a server from its start to its end), [`run`] (all of its lives),
//! [`kept_log`] (the whole log, for a replay from its first record), [`watch`] (what was found), [`report`].

pub mod caller;

pub mod course;

pub mod kept_log;

pub mod life;

pub mod operator;

pub mod report;

pub mod run;

pub mod watch;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Orders to be begun.
    pub orders: u64,
    /// Who begin them, all at once.
    pub callers: usize,
    /// How often the server is killed.
    pub kills: usize,
    /// What chance does, as far as threads allow.
    pub seed: u64,
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By SIGKILL, in the middle of it.
    Kill,
    /// In good order, in the middle of it.
    Stop,
    /// In good order, when all is done.
    Last,
}
