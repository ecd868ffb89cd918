//! Logs: to stderr, filtered by `--log`, else `RUST_LOG`, else the command's default.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::error::CliError;

pub(super) fn start(flag: Option<&str>, default: &str) -> Result<(), CliError> {
    let environment = std::env::var(EnvFilter::DEFAULT_ENV)
        .ok()
        .filter(|filter| !filter.is_empty());
    let (source, filter) = match (flag, &environment) {
        (Some(filter), _) => ("--log", filter),
        (None, Some(filter)) => (EnvFilter::DEFAULT_ENV, filter.as_str()),
        (None, None) => ("the default", default),
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        CliError::Usage(format!("{source} is no log filter: {error}; try \"info\""))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(())
}
