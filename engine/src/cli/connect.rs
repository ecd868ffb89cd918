//! The way to a server: `--server`, a runtime, a client.

use clap::Args;
use croupier_client::{Client, Error};
use tokio::runtime::{Builder, Runtime};

use super::error::CliError;

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// The server to ask
    #[arg(
        long,
        env = "CROUPIER_SERVER",
        value_name = "URL",
        default_value = "croupier://127.0.0.1:7733"
    )]
    #[arg(hide_env_values = true)]
    pub(super) server: String,
}

impl ServerArgs {
    /// Connects, does `work` with the client, and waits for the end of it.
    pub(super) fn run<T>(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        runtime()?.block_on(async { work(Client::connect(&self.server).await?).await })
    }
}

/// One worker besides the calling thread: it drives the connection while a command parses a file or waits for stdin.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|source| CliError::System {
            what: "cannot start the runtime",
            source,
        })
}

/// The name of a SKU by its number, for answers that carry the number only.
pub(super) async fn sku_name(
    client: &Client,
    sku: croupier_protocol::SkuId,
) -> Result<String, Error> {
    let skus = client.sku_list().await?;
    let row = skus.into_iter().find(|row| row.sku == sku.0);
    Ok(row.map_or_else(|| format!("#{sku}"), |row| row.name))
}
