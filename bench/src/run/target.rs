//! The server under load: somebody else's, or one that the bench started.

use std::net::TcpStream;

use croupier_protocol::ServerInfoReply;
use uuid::Uuid;

use super::args::ServerArgs;
use crate::control::Control;
use crate::embedded::EmbeddedServer;
use crate::error::BenchError;
use crate::report::ServerFacts;

/// A server that answers.
#[derive(Debug)]
pub struct Target {
    address: String,
    embedded: Option<EmbeddedServer>,
    pid: Option<u32>,
}

impl Target {
    /// The server that the flags name, started if they name none.
    pub fn open(args: &ServerArgs) -> Result<Self, BenchError> {
        match &args.server {
            Some(address) => Ok(Self {
                address: address.clone(),
                embedded: None,
                pid: None,
            }),
            None => {
                let server = EmbeddedServer::start(&args.embedded())?;
                Ok(Self {
                    address: server.address().to_string(),
                    pid: Some(server.pid()),
                    embedded: Some(server),
                })
            }
        }
    }

    /// A server of the bench's own that somebody else stops and starts.
    pub fn lent(server: &EmbeddedServer) -> Self {
        Self {
            address: server.address().to_string(),
            embedded: None,
            pid: Some(server.pid()),
        }
    }

    /// A control connection.
    pub fn control(&self) -> Result<Control, BenchError> {
        Control::connect(&self.address)
    }

    /// Connections for the driver; each has said Hello.
    pub fn streams(&self, count: usize) -> Result<Vec<TcpStream>, BenchError> {
        (0..count)
            .map(|_| self.control().map(Control::into_stream))
            .collect()
    }

    /// The process, if it is the bench's own.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Adds the server's last words to an error, if the server is the bench's own.
    pub fn explain<T>(&self, result: Result<T, BenchError>) -> Result<T, BenchError> {
        if let (Err(_), Some(server)) = (&result, &self.embedded) {
            eprintln!("the server said: {}", server.last_words());
        }
        result
    }

    /// What the report says about it.
    pub fn facts(&self, info: &ServerInfoReply) -> ServerFacts {
        ServerFacts {
            address: self.address.clone(),
            embedded: self.embedded.is_some(),
            version: info.version.clone(),
            durability: info.sync.clone(),
            cores: info.cores,
            store_id: Uuid::from_bytes(info.store_id).to_string(),
            file_system: self.embedded.as_ref().map(EmbeddedServer::file_system),
        }
    }
}
