//! Where the command line meets the store: with `records`, the only files of it that name the engine's modules.
//!
//! Everything here is thin: call, and turn what comes back into what a command prints.

use std::path::Path;
use std::sync::Arc;

use super::error::CliError;
use super::order::hex;
use super::print::Facts;
use super::records;
use super::wal::Point;
use super::what_if::Latency;
use crate::config::Config;
use crate::error::EngineError;
use crate::recovery::{self, ReplayReport, VerifyReport};
use crate::route::RouteTable;
use crate::server::{self, StopReport};
use crate::state::Catalog;
use crate::store;
use crate::whatif::compare::Said;
use crate::whatif::walk;

pub(super) use crate::server::Server;
pub(super) use crate::tables::rule_names;
pub(super) use crate::whatif::compare::{Assumed, Comparison};
pub(super) use crate::whatif::figures::{Compared, Figures, Peak};
pub(super) use crate::whatif::walk::Report;
pub(super) use crate::whatif::{Change, Count};

/// Makes a data directory; the store's id as text.
pub(super) fn init(config: &Config) -> Result<String, EngineError> {
    let store_id = store::init(
        &config.data,
        config.key_file.as_deref(),
        config.wal_segment_bytes,
    )?;
    Ok(hex(&store_id))
}

/// Makes the data directory unless it is one; true if it was made.
pub(super) fn init_if_absent(config: &Config) -> Result<bool, EngineError> {
    match init(config) {
        Ok(_) => Ok(true),
        Err(EngineError::AlreadyAStore(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Recovers the store and listens; blocks until both are done.
pub(super) fn start(config: Config) -> Result<Server, EngineError> {
    let server = server::start(config)?;
    let recovered = server.recovered();
    tracing::info!(
        records = recovered.records,
        checkpoint_orders = recovered.checkpoint_orders,
        torn_bytes = recovered.torn_bytes,
        took = ?recovered.took,
        "recovered"
    );
    Ok(server)
}

/// Drains, syncs, checkpoints; blocks until that is done.
pub(super) fn stop(server: &Server) -> Result<(), EngineError> {
    let StopReport {
        digest,
        orders,
        end_lsn,
        took,
    } = server.stop()?;
    tracing::info!(orders, end_lsn, %digest, ?took, "stopped");
    Ok(())
}

/// Reads a route table: its warnings, or what is wrong with it.
pub(super) fn routes_check(file: &Path, toml: &str) -> Result<Vec<String>, EngineError> {
    let table = RouteTable::parse(0, toml).map_err(|error| EngineError::Routes {
        path: file.to_owned(),
        what: error.to_string(),
    })?;
    Ok(table.warnings(None))
}

/// Checks everything; damage is an error (exit code 3), else what was found.
pub(super) fn verify(data: &Path, key_file: Option<&Path>) -> Result<Facts, CliError> {
    // Recovery begins at the checkpoint; what is older and still there is evidence, and has to be whole too.
    let mut log_records: u64 = 0;
    records::walk(data, key_file, 0, None, &mut |_, _| {
        log_records += 1;
        Ok(())
    })?;
    let VerifyReport {
        orders,
        records,
        checkpoint_orders,
        skus,
        slabs,
        counts,
        end_lsn,
        torn_bytes,
        digest,
        took,
    } = recovery::verify(data, key_file)?;
    Ok(Facts::default()
        .with("ok", true)
        .with("skus", skus)
        .with("slabs", slabs)
        .with("imported", counts.imported)
        .with("free", counts.free)
        .with("held", counts.held)
        .with("issued", counts.issued)
        .with("void", counts.void)
        .with("orders", orders)
        .with("checkpoint_orders", checkpoint_orders)
        .with("log_records", log_records)
        .with("records_since_checkpoint", records)
        .with("end_lsn", end_lsn)
        .with("torn_bytes", torn_bytes)
        .with("digest", digest.to_string())
        .with("took_ms", took.as_millis() as u64))
}

/// Which orders a what-if looks at.
#[derive(Debug, Clone)]
pub(super) struct WhatIf<'a> {
    pub(super) data: &'a Path,
    pub(super) key_file: Option<&'a Path>,
    /// Where the table is from, and its text.
    pub(super) table: (&'a Path, &'a str),
    pub(super) from: Option<Point>,
    pub(super) until: Option<Point>,
    /// How long channels take.
    pub(super) latencies: &'a [Latency],
}

/// Runs the recorded orders of a stopped store through another table. `progress` is told bytes done and bytes in all.
pub(super) fn what_if(
    asked: &WhatIf<'_>,
    progress: impl FnMut(u64, u64),
) -> Result<walk::Report, EngineError> {
    let (path, toml) = asked.table;
    let table = RouteTable::parse(0, toml).map_err(|error| EngineError::Routes {
        path: path.to_owned(),
        what: error.to_string(),
    })?;
    let point = |point: Point| match point {
        Point::Lsn(lsn) => walk::Point::Lsn(lsn),
        Point::UnixMs(ms) => walk::Point::UnixMs(ms),
    };
    let span = walk::Span {
        from: asked.from.map(point),
        until: asked.until.map(point),
    };
    let said = asked.latencies.iter().map(|one| Said {
        channel: one.channel.clone(),
        latency_ms: one.ms.into(),
    });
    let said: Vec<Said> = said.collect();
    let warn = |table: &RouteTable, catalog: &Catalog| table.warnings(Some(catalog));
    let (data, table) = (asked.data, Arc::new(table));
    walk::replay(data, asked.key_file, &table, &said, warn, span, progress)
}

/// Rebuilds the state up to `until`: what it came to, with its digest.
pub(super) fn replay(
    config: &Config,
    until: Option<Point>,
    into: Option<&Path>,
) -> Result<Facts, CliError> {
    let (data, key_file) = (&config.data, config.key_file.as_deref());
    let until = match until {
        None => recovery::Until::End,
        Some(Point::Lsn(lsn)) => recovery::Until::Lsn(lsn),
        Some(Point::UnixMs(ms)) => recovery::Until::UnixMs(ms),
    };
    let ReplayReport {
        records,
        orders,
        end_lsn,
        digest,
        into,
        took,
    } = recovery::replay(data, key_file, until, into, config.wal_segment_bytes)?;
    Ok(Facts::default()
        .with("orders", orders)
        .with("records", records)
        .with("end_lsn", end_lsn)
        .with("digest", digest.to_string())
        .with("into", into.map(|into| into.display().to_string()))
        .with("took_ms", took.as_millis() as u64))
}
