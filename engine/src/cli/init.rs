//! `croupier init`: makes a data directory.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Globals;
use super::engine_seam;
use super::error::CliError;
use super::print::{self, Facts};
use crate::config::{Config, Layer};

/// Make a data directory with its key file
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  croupier init --data /var/lib/croupier --key-file /etc/croupier/key"
)]
pub(super) struct InitArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    segment: SegmentArgs,
}

/// Which store, for commands that work on a stopped one.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreArgs {
    /// The data directory
    #[arg(long, env = "CROUPIER_DATA", value_name = "DIR", default_value = crate::config::DATA_DEFAULT)]
    #[arg(hide_env_values = true)]
    pub(super) data: PathBuf,
    /// The key file [default: in the data directory]
    #[arg(
        long,
        env = "CROUPIER_KEY_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) key_file: Option<PathBuf>,
}

/// How large the first segment of a new store's log is.
#[derive(Debug, Clone, Args)]
pub(super) struct SegmentArgs {
    /// Size of one segment of the new store's log [default: 67108864]
    #[arg(
        long,
        env = "CROUPIER_WAL_SEGMENT_BYTES",
        value_name = "BYTES",
        hide_env_values = true
    )]
    wal_segment_bytes: Option<u64>,
}

impl SegmentArgs {
    /// The settings of a new store, checked as those of a server are.
    pub(super) fn load(self, store: StoreArgs) -> Result<Config, CliError> {
        let layer = Layer {
            data: Some(store.data),
            key_file: store.key_file,
            wal_segment_bytes: self.wal_segment_bytes,
            ..Layer::default()
        };
        Ok(Config::from_layers(layer, Layer::default())?)
    }
}

pub(super) fn run(args: InitArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let config = args.segment.load(args.store)?;
    let store_id = engine_seam::init(&config)?;
    let data = &config.data;
    if globals.json {
        Facts::default()
            .with("data", data.display().to_string())
            .with("store_id", store_id)
            .print(true)?;
    } else {
        print::line(&format!(
            "{}: a new data directory (store {store_id})\n\
             Keep a copy of its key file apart from it: without the key no card in it can be read.\n\
             Next: croupier serve --data {}",
            data.display(),
            data.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
