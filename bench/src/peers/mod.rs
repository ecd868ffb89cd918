//! `croupier-bench peers`: other databases on the same work, side by side in one run.
//!
//! The same stock, new orders of one card each, the same connections and pipelines, alternating rounds. A peer that is
//! not installed is named and left out.

mod judge;
mod postgres;
mod programs;
mod redis;
mod report;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub use report::PeersReport;

use self::postgres::{Locking, Postgres, Programs, Store};
use self::redis::{Redis, Sync};
use crate::contest::{Contender, Croupier, RoundLength, Shape, contest};
use crate::embedded::{directory_default, temporary_directory};
use crate::error::BenchError;
use crate::machine::{FileSystem, Machine};
use crate::run::ServerArgs;
use crate::stock::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};
use crate::units;

/// Who can take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// This project.
    Croupier,
    /// Redis, Lua, synced before every answer.
    RedisAlways,
    /// Redis, Lua, synced every second: not durable when it answers.
    RedisEverysec,
    /// PostgreSQL, FOR UPDATE SKIP LOCKED.
    PgSkip,
    /// PostgreSQL, FOR UPDATE.
    PgForUpdate,
}

/// Flags of `croupier-bench peers`.
#[derive(Debug, Clone, Args)]
pub struct PeersArgs {
    #[command(flatten)]
    /// The Croupier that takes part.
    pub server: ServerArgs,
    /// Who takes part
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "croupier,redis-always,redis-everysec,pg-skip,pg-for-update"
    )]
    pub peers: Vec<Peer>,
    /// Connections x pipeline; several as 50x128,50x1
    #[arg(long, value_delimiter = ',', default_value = "50x128")]
    pub shape: Vec<Shape>,
    /// Rounds of every peer in every shape
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Seconds that a round is measured; it ends earlier when the stock is used up
    #[arg(long, default_value = "5", value_parser = units::duration)]
    pub seconds: Duration,
    /// Warm-up of every round
    #[arg(long, default_value = "500ms", value_parser = units::duration_or_zero)]
    pub warmup: Duration,
    /// Cards that every peer has in stock when a round begins
    #[arg(long, default_value_t = 4_000_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    pub cards: u64,
    /// Orders that PostgreSQL is given in a round at most
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub pg_orders: u64,
    /// Bytes of a secret
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(SECRET_BYTES_MIN as i64..=SECRET_BYTES_MAX as i64))]
    pub secret_bytes: u16,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Everybody who takes part, and who does not.
#[derive(Default)]
struct Field {
    contenders: Vec<Box<dyn Contender>>,
    descriptions: Vec<String>,
    skipped: Vec<String>,
    postgres: Option<Rc<RefCell<Store>>>,
}

/// Runs all rounds.
pub fn run(args: &PeersArgs) -> Result<PeersReport, BenchError> {
    let parent = args.server.dir.clone().unwrap_or_else(directory_default);
    // Declared first and therefore dropped last: the peers live in it.
    let directory = temporary_directory(&parent)?;
    let mut field = Field::default();
    let mut peers = Vec::new();
    for &peer in &args.peers {
        if !peers.contains(&peer) {
            peers.push(peer);
            field.add(peer, args, directory.path())?;
        }
    }
    if field.contenders.is_empty() {
        return Err(BenchError::Usage(format!(
            "nobody is left to compare: {}",
            field.skipped.join("; ")
        )));
    }
    let length = RoundLength {
        warmup: args.warmup,
        measured: args.seconds,
    };
    let standings = contest(&mut field.contenders, &args.shape, args.rounds, length)?;
    Ok(PeersReport {
        machine: Machine::detect(),
        file_system: FileSystem::of(directory.path()),
        cards: args.cards,
        secret_bytes: args.secret_bytes,
        rounds: args.rounds,
        length,
        contenders: field.descriptions,
        skipped: field.skipped,
        standings,
    })
}

impl Field {
    fn add(&mut self, peer: Peer, args: &PeersArgs, directory: &Path) -> Result<(), BenchError> {
        match peer {
            Peer::Croupier => {
                let croupier = Croupier::start(&args.server, args.secret_bytes, args.cards)?;
                self.take_part(croupier.description(), croupier);
            }
            Peer::RedisAlways => self.add_redis(Sync::Always, args, directory)?,
            Peer::RedisEverysec => self.add_redis(Sync::Everysec, args, directory)?,
            Peer::PgSkip => self.add_postgres(Locking::SkipLocked, args, directory)?,
            Peer::PgForUpdate => self.add_postgres(Locking::ForUpdate, args, directory)?,
        }
        Ok(())
    }

    fn take_part(&mut self, description: String, contender: impl Contender + 'static) {
        self.descriptions.push(description);
        self.contenders.push(Box::new(contender));
    }

    fn add_redis(
        &mut self,
        sync: Sync,
        args: &PeersArgs,
        directory: &Path,
    ) -> Result<(), BenchError> {
        if let Err(missing) = Redis::installed() {
            self.skipped
                .push(format!("redis ({sync:?}): {}", missing.0));
            return Ok(());
        }
        let redis = Redis::start(directory, sync, usize::from(args.secret_bytes), args.cards)?;
        self.take_part(redis.description(), redis);
        Ok(())
    }

    fn add_postgres(
        &mut self,
        locking: Locking,
        args: &PeersArgs,
        directory: &Path,
    ) -> Result<(), BenchError> {
        let store = match &self.postgres {
            Some(store) => store.clone(),
            None => match Programs::find() {
                Err(missing) => {
                    self.skipped
                        .push(format!("postgresql ({locking:?}): {}", missing.0));
                    return Ok(());
                }
                Ok(programs) => {
                    let connections = args
                        .shape
                        .iter()
                        .map(|shape| shape.connections)
                        .max()
                        .unwrap_or(1);
                    let secret_bytes = usize::from(args.secret_bytes);
                    let store =
                        Store::start(&programs, directory, connections, secret_bytes, args.cards)?;
                    self.postgres.insert(Rc::new(RefCell::new(store))).clone()
                }
            },
        };
        let postgres = Postgres::new(store, locking, args.pg_orders);
        self.take_part(postgres.description(), postgres);
        Ok(())
    }
}
