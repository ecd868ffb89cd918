//! `croupier init`: makes a data directory.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Globals;
use super::engine_seam;
use super::error::CliError;
use super::print::{self, Facts};

/// Make a data directory with its key file
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  croupier init --data /var/lib/croupier --key-file /etc/croupier/key"
)]
pub(super) struct InitArgs {
    #[command(flatten)]
    store: StoreArgs,
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

pub(super) fn run(args: InitArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let StoreArgs { data, key_file } = args.store;
    let store_id = engine_seam::init(&data, key_file.as_deref())?;
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
