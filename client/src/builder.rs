//! How a client is set up: where the server is, how long to wait, how often to try.

use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::url::ServerUrl;

/// What the builder leaves behind, read by everything that waits or tries.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Host and port.
    pub(crate) addr: String,
    pub(crate) call_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) retries: u32,
    /// Never zero.
    pub(crate) in_flight_max: u32,
}

/// Sets a [`Client`] up.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn build() -> Result<(), croupier_client::Error> {
/// let client = croupier_client::Client::builder()
///     .server("croupier://cards.internal")?
///     .call_timeout(Duration::from_millis(500))
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ClientBuilder {
    settings: Settings,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            settings: Settings {
                addr: "127.0.0.1:7733".to_owned(),
                call_timeout: Duration::from_secs(10),
                connect_timeout: Duration::from_secs(3),
                retries: 5,
                in_flight_max: 16_384,
            },
        }
    }
}

impl ClientBuilder {
    /// Where the server is: `croupier://HOST[:PORT][?call_timeout_ms=N&connect_timeout_ms=N&retries=N]`. What the
    /// URL sets, a later method may set anew. Default: `croupier://127.0.0.1:7733`.
    ///
    /// # Errors
    /// [`Error::BadUrl`] says what is wrong with it.
    pub fn server(mut self, url: &str) -> Result<Self, Error> {
        let url: ServerUrl = url.parse()?;
        let settings = &mut self.settings;
        settings.addr = url.addr;
        settings.call_timeout = url.call_timeout.unwrap_or(settings.call_timeout);
        settings.connect_timeout = url.connect_timeout.unwrap_or(settings.connect_timeout);
        settings.retries = url.retries.unwrap_or(settings.retries);
        Ok(self)
    }

    /// How long one call may take, all its tries together. Default: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.settings.call_timeout = timeout;
        self
    }

    /// How long one try to connect may take, handshake included. Default: 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How often a call is tried again after a lost connection. Default: 5.
    pub fn retries(mut self, retries: u32) -> Self {
        self.settings.retries = retries;
        self
    }

    /// How many orders (a call of any other kind counts as one) may await their reply; a further call waits until
    /// there is room. Default: 16,384.
    pub fn in_flight_max(mut self, orders: usize) -> Self {
        self.settings.in_flight_max = u32::try_from(orders).unwrap_or(u32::MAX).clamp(1, 1 << 24);
        self
    }

    /// Connects, once.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if nobody answers, [`Error::Fault`] or [`Error::Protocol`] if somebody else does.
    pub async fn build(self) -> Result<Client, Error> {
        Client::from_settings(self.settings).await
    }
}
