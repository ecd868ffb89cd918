//! What stops a command, what it prints, and which exit code it becomes.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use croupier_client::Error as ClientError;
use croupier_protocol::{OrderId, Refusal};
use serde_json::{Value, json};

use super::print;
use crate::config::ConfigError;
use crate::error::EngineError;
use crate::import::FileError;

/// Refused, or failed.
pub(super) const FAILED: u8 = 1;
/// The command line or the configuration makes no sense.
pub(super) const USAGE: u8 = 2;
/// No server answers there.
pub(super) const NOT_REACHABLE: u8 = 4;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Sent and not answered: the caller must ask again, under the same id.
    #[error(
        "{error}\nThe outcome of order {order_id} is unknown. Ask again; it is done at most once:\n  croupier {again}"
    )]
    OutcomeUnknown {
        order_id: OrderId,
        /// The command that asks again, without the program's name.
        again: String,
        error: ClientError,
    },
    /// The feed broke off. What was told stays told, and the rest can be had from `next` on.
    #[error("{error}\nGo on from LSN {next}: croupier feed --from {next}")]
    Feed { next: u64, error: ClientError },
    /// A delivery broke off. What was accepted stays.
    #[error(
        "{error}\n{accepted} cards were delivered before that. Deliver all of it again: what is there is rejected as a duplicate"
    )]
    Deliver { accepted: u64, error: ClientError },
    #[error("there is no order {0}; the id is free")]
    NoSuchOrder(OrderId),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: FileError },
    #[error("cannot {op} {}: {source}", path.display())]
    Path {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("{what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    /// Nobody reads stdout any more (`croupier wal dump | head`): no error to anyone.
    #[error("stdout was closed")]
    StdoutClosed,
}

impl CliError {
    /// What stopped a step of an order; `again` is the command that asks again if its outcome is unknown.
    pub(super) fn of_step(
        error: ClientError,
        order_id: OrderId,
        again: impl FnOnce() -> String,
    ) -> Self {
        match error {
            ClientError::OutcomeUnknown { .. } => CliError::OutcomeUnknown {
                order_id,
                again: again(),
                error,
            },
            error => error.into(),
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            CliError::Client(error)
            | CliError::Feed { error, .. }
            | CliError::Deliver { error, .. } => match error {
                ClientError::Unreachable { .. } | ClientError::TimedOut { sent: false, .. } => {
                    NOT_REACHABLE
                }
                ClientError::BadUrl { .. } => USAGE,
                _ => FAILED,
            },
            CliError::OutcomeUnknown { .. } | CliError::NoSuchOrder(_) => FAILED,
            CliError::Engine(EngineError::Config(_)) => USAGE,
            CliError::Engine(error) => error.exit_code(),
            CliError::Config(_) | CliError::Usage(_) => USAGE,
            CliError::File { error, .. } => match error {
                FileError::NoSuchColumn { .. }
                | FileError::NoSecretColumn { .. }
                | FileError::SecretNeedsCsv { .. } => USAGE,
                _ => FAILED,
            },
            CliError::Path { .. } | CliError::Failed(_) | CliError::System { .. } => FAILED,
            CliError::StdoutClosed => 0,
        }
    }

    /// A stable word for scripts: a refusal's own name where there is one.
    fn name(&self) -> &'static str {
        match self {
            CliError::Client(error)
            | CliError::Feed { error, .. }
            | CliError::Deliver { error, .. } => match error {
                ClientError::Refused { refusal, .. } => refusal.name(),
                ClientError::OutcomeUnknown { .. } => "OutcomeUnknown",
                ClientError::Accepted { .. } => "Accepted",
                ClientError::Unreachable { .. } => "Unreachable",
                ClientError::BadUrl { .. } => "Usage",
                _ => "Client",
            },
            CliError::OutcomeUnknown { .. } => "OutcomeUnknown",
            CliError::NoSuchOrder(_) => Refusal::OrderNotFound.name(),
            CliError::Usage(_) => "Usage",
            CliError::Config(_) | CliError::Engine(EngineError::Config(_)) => "Config",
            CliError::Engine(error) if error.exit_code() == 3 => "Damage",
            CliError::Engine(_) => "Engine",
            CliError::File { .. } => "File",
            CliError::Path { .. } | CliError::System { .. } => "System",
            CliError::Failed(_) => "Failed",
            CliError::StdoutClosed => "StdoutClosed",
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let mut error =
            json!({ "name": self.name(), "text": self.to_string(), "exit_code": self.exit_code() });
        match self {
            CliError::Client(ClientError::Refused {
                order_id,
                retry_after_ms,
                ..
            }) => {
                error["retry_after_ms"] = json!(retry_after_ms);
                if let Some(order_id) = order_id {
                    error["order_id"] = json!(order_id.to_string());
                }
            }
            CliError::OutcomeUnknown { order_id, .. } | CliError::NoSuchOrder(order_id) => {
                error["order_id"] = json!(order_id.to_string());
            }
            CliError::Feed { next, .. } => error["next"] = json!(next),
            CliError::Deliver { accepted, .. } => error["accepted"] = json!(accepted),
            _ => {}
        }
        json!({ "error": error })
    }

    /// Prints the error (stderr; with `json` also as an object on stdout) and gives the exit code.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        if !matches!(self, CliError::StdoutClosed) {
            eprintln!("error: {self}");
            if json && matches!(self, CliError::Feed { .. }) {
                // The last line of a stream of them.
                let _ = print::line(&self.to_json().to_string());
            } else if json {
                let _ = print::json(&self.to_json());
            }
        }
        ExitCode::from(self.exit_code())
    }
}
