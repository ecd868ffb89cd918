//! What the operating system asks of a running server.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;

/// One wish of the operator.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Ctrl-C or SIGTERM.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals a server listens to, from the moment this is made.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Must be called on a runtime.
    pub(super) fn listen() -> Result<Self, CliError> {
        let all = || -> io::Result<Self> {
            Ok(Signals {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hangup: signal(SignalKind::hangup())?,
            })
        };
        all().map_err(|source| CliError::System {
            what: "cannot listen to signals",
            source,
        })
    }

    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// The next wish to stop; wishes to reload are passed over.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}
