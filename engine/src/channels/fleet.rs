//! Which channels may be asked. As yet all of them: outlier detection comes here. docs/channels.md.

use std::collections::HashMap;

use crate::route::RouteTable;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    Filled,
    Failed,
    TimedOut,
    WorkerGone,
    FailedForGood,
}

/// A channel stands otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub channel: String,
}

/// All channels that are outside.
#[derive(Debug, Default)]
pub struct Fleet {
    mean_ms: HashMap<String, f64>,
}

impl Fleet {
    /// Another table is in force.
    pub fn adopt(&mut self, _now_ms: u64, _table: &RouteTable) {}

    /// Whether a job may be given to it.
    pub fn may_ask(&self, _channel: &str) -> bool {
        true
    }

    /// Whether it is tried just now.
    pub fn is_probing(&self, _channel: &str) -> bool {
        false
    }

    /// A job was given to it.
    pub fn asked(&mut self, _channel: &str) {}

    /// A job has ended that was given `took_ms` ago.
    pub fn ended(
        &mut self,
        _now_ms: u64,
        channel: &str,
        took_ms: u64,
        end: JobEnd,
    ) -> Option<Change> {
        if end == JobEnd::Filled {
            let mean = self.mean_ms.entry(channel.into()).or_insert(took_ms as f64);
            *mean += (took_ms as f64 - *mean) / 8.0;
        }
        None
    }

    /// Time has gone on.
    pub fn tick(&mut self, _now_ms: u64) -> Vec<Change> {
        Vec::new()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_unix_ms(&self) -> Option<u64> {
        None
    }

    /// Mean time of jobs that were filled, in milliseconds.
    pub fn mean_ms(&self, channel: &str) -> f64 {
        self.mean_ms.get(channel).copied().unwrap_or(0.0)
    }
}
