//! `croupier serve`: runs a server until it is asked to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;

use super::Globals;
use super::connect::runtime;
use super::engine_seam::{self, Server};
use super::error::CliError;
use super::print;
use super::signals::{Asked, Signals};
use crate::config::{Config, Layer};

/// How long a server that can write no more stays to say so.
const FAREWELL: Duration = Duration::from_millis(250);

/// Serve a data directory until Ctrl-C or SIGTERM
///
/// Every setting may also stand in the environment (CROUPIER_LISTEN …) or in the file of --config (listen = "…"); a
/// flag wins over the environment, and that over the file. SIGHUP reads the route table again. The first Ctrl-C or
/// SIGTERM stops in good order (drain, sync, checkpoint), a second one at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier serve --data /var/lib/croupier --listen 0.0.0.0:7733
  croupier serve --config croupier.toml --cores 2")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Flags, environment and file: all that a server's settings come from.
#[derive(Debug, Args)]
pub(super) struct SettingsArgs {
    #[command(flatten)]
    layer: Layer,
    /// A TOML file with settings
    #[arg(
        long,
        env = "CROUPIER_CONFIG",
        value_name = "FILE",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    /// Answer before the log is on stable storage: faster, and a crash loses orders that were acknowledged
    #[arg(long)]
    unsafe_no_sync: bool,
}

impl SettingsArgs {
    pub(super) fn load(self) -> Result<Config, CliError> {
        let mut config = Config::load(self.layer, self.config.as_deref())?;
        config.unsafe_no_sync = self.unsafe_no_sync;
        Ok(config)
    }
}

impl ServeArgs {
    pub(super) fn load(self) -> Result<Config, CliError> {
        self.settings.load()
    }
}

pub(super) fn run(args: ServeArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let config = args.load()?;
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let server = start(config, &mut signals).await?;
        announce(&server, globals.json)?;
        Ok(keep_serving(server, signals).await)
    })
}

/// Starts the server on a thread of its own: recovery may take a while, and Ctrl-C must not wait for it.
pub(super) async fn start(config: Config, signals: &mut Signals) -> Result<Arc<Server>, CliError> {
    let started = on_thread("start", move || engine_seam::start(config))?;
    tokio::select! {
        started = started => Ok(Arc::new(ended(started)??)),
        () = signals.stop() => Err(CliError::Failed("stopped before it served".to_owned())),
    }
}

/// The line that scripts wait for.
fn announce(server: &Server, as_json: bool) -> Result<(), CliError> {
    let (listening, ops) = (
        format!("croupier://{}", server.local_addr()),
        format!("http://{}", server.ops_addr()),
    );
    if as_json {
        print::line(&json!({ "listening": listening, "ops": ops }).to_string())
    } else {
        print::line(&format!("listening on {listening}"))
    }
}

/// Serves until it is asked to stop (then stops in good order) or the log cannot be written any more. What goes wrong
/// is said on stderr only: stdout has had its one value.
pub(super) async fn keep_serving(server: Arc<Server>, signals: Signals) -> ExitCode {
    match until_stopped(server, signals).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(false),
    }
}

async fn until_stopped(server: Arc<Server>, mut signals: Signals) -> Result<(), CliError> {
    let mut failed = {
        let server = Arc::clone(&server);
        on_thread("watch", move || server.wait_failed())?
    };
    loop {
        let asked = tokio::select! {
            why = &mut failed => match ended(why)? {
                Some(error) => {
                    // Every order in flight is being refused: let those answers leave.
                    tokio::time::sleep(FAREWELL).await;
                    return Err(error.into());
                }
                None => break,
            },
            asked = signals.next() => asked,
        };
        match asked {
            Asked::Reload => reload(Arc::clone(&server)).await?,
            Asked::Stop => break,
        }
    }
    tracing::info!("stopping; once more to stop at once");
    let stopped = on_thread("stop", move || engine_seam::stop(&server))?;
    tokio::select! {
        stopped = stopped => {
            ended(stopped)??;
            Ok(())
        }
        () = signals.stop() => {
            Err(CliError::Failed("stopped at once; the next start recovers from the log".to_owned()))
        }
    }
}

/// A table that does not serve is reported and the one in force stays.
async fn reload(server: Arc<Server>) -> Result<(), CliError> {
    match ended(on_thread("reload", move || server.reload_routes())?.await)? {
        Ok(Some(version)) => tracing::info!(version, "another route table is in force"),
        Ok(None) => tracing::info!("the route table is the one in force"),
        Err(error) => tracing::error!("{error}"),
    }
    Ok(())
}

/// Runs blocking work beside the runtime. Unlike the runtime's own blocking pool, an exit does not wait for it.
fn on_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, CliError> {
    let (done, receiver) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || drop(done.send(work())))
        .map_err(|source| CliError::System {
            what: "cannot start a thread",
            source,
        })?;
    Ok(receiver)
}

/// A thread that ends without a result has panicked.
fn ended<T>(result: Result<T, oneshot::error::RecvError>) -> Result<T, CliError> {
    result.map_err(|_| CliError::Failed("the server broke down; its log says where".to_owned()))
}
