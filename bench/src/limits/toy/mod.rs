//! Servers without an engine: they frame, or frame and group-commit, the bytes that a one-card order has.
//!
//! What they can do is what is left for an engine to lose. They are built as one: a pinned thread per core with a
//! single-threaded runtime, whole reads taken as batches, one write per connection and wake, and one thread that
//! commits whatever is ready as one block. They deal nothing, remember nothing and check nothing but frames.
//!
//! They run in a process of their own (`croupier-bench toy`, a hidden subcommand), as the engine does.

mod committer;
mod core;
mod session;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::durable_file::{DurableFile, SyncMethod};
use crate::error::BenchError;

/// Bytes of the log file, which is written over and over.
const LOG_BYTES: u64 = 256 << 20;
/// Bytes of the secret in every answer.
pub const SECRET_BYTES: usize = 32;

/// Flags of the hidden subcommand.
#[derive(Debug, Clone, Args)]
pub struct ToyArgs {
    /// Commits to this file, which is made; without it nothing is committed
    #[arg(long)]
    log: Option<PathBuf>,
    /// How blocks are made durable
    #[arg(long, value_enum, default_value = "direct")]
    sync: SyncMethod,
}

/// Serves on a free port of 127.0.0.1, says `listening on croupier://…` on standard output, and ends with the process.
pub fn serve(args: &ToyArgs) -> Result<(), BenchError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (bells, bodies): (Vec<_>, Vec<_>) = (0..cores).map(core::channel).unzip();
    let queue = match &args.log {
        None => None,
        Some(path) => {
            let file = DurableFile::create(path, LOG_BYTES, args.sync)
                .map_err(BenchError::io(format!("make {}", path.display())))?;
            Some(committer::start(
                file,
                bells.iter().map(|bell| bell.durable.clone()).collect(),
            ))
        }
    };
    for body in bodies {
        let queue = queue.clone();
        std::thread::Builder::new()
            .name("toy-core".into())
            .spawn(move || body.run(queue))
            .map_err(BenchError::io("start a thread"))?;
    }
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .map_err(BenchError::io("listen"))?;
    println!(
        "listening on croupier://{}",
        listener.local_addr().map_err(BenchError::io("listen"))?
    );
    // Connections go round, so that each core has as many as the next.
    for bell in bells.iter().cycle() {
        match listener.accept() {
            Ok((stream, _)) => bell.hand_over(stream),
            Err(error) => {
                eprintln!("cannot accept: {error}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    Ok(())
}

/// What a core is told from outside.
#[derive(Debug)]
pub(crate) struct Bell {
    streams: tokio::sync::mpsc::Sender<std::net::TcpStream>,
    durable: Arc<core::Wake>,
}

impl Bell {
    fn hand_over(&self, stream: std::net::TcpStream) {
        // A core that has ended closes the stream by dropping it.
        let _ = self.streams.blocking_send(stream);
    }
}
