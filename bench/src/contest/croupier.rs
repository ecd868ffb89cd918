//! Croupier as a contender: the real binary, loaded and judged as by `croupier-bench run`.

use std::rc::Rc;

use super::{Contender, Round, RoundLength, Shape, settle};
use crate::error::BenchError;
use crate::run::{RunArgs, ServerArgs, Session, Target};

/// A server and its stock.
#[derive(Debug)]
pub struct Croupier {
    target: Rc<Target>,
    session: Session,
    cards: u64,
    version: String,
    durability: String,
}

impl Croupier {
    /// What it is called in tables.
    pub const NAME: &'static str = "croupier";

    /// The server that the flags name, started if they name none; each round begins with `cards` in stock.
    pub fn start(server: &ServerArgs, secret_bytes: u16, cards: u64) -> Result<Self, BenchError> {
        let target = Rc::new(Target::open(server)?);
        let args = RunArgs::for_contest(server.clone(), secret_bytes);
        let info = target.control()?.server_info()?;
        let session = target.explain(Session::open(args, target.clone()))?;
        Ok(Self {
            target,
            session,
            cards,
            version: info.version,
            durability: info.sync,
        })
    }

    /// Version and durability mode, for the header.
    pub fn description(&self) -> String {
        format!("croupier {}, {}", self.version, self.durability)
    }

    fn try_round(&mut self, shape: Shape, length: RoundLength) -> Result<Round, BenchError> {
        self.session.reshape(shape.connections, shape.pipeline);
        self.session.top_up(self.cards)?;
        settle();
        Round::of(Self::NAME, &self.session.step(length.step())?)
    }
}

impl Contender for Croupier {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn round(&mut self, shape: Shape, length: RoundLength) -> Result<Round, BenchError> {
        let round = self.try_round(shape, length);
        self.target.explain(round)
    }

    fn finish(&mut self) -> Result<(), BenchError> {
        let oracle = self.session.look_samples_up()?;
        if oracle.violations == 0 {
            return Ok(());
        }
        let detail = format!(
            "{} answers were wrong: {}",
            oracle.violations,
            oracle.details.join("; ")
        );
        Err(BenchError::Peer {
            peer: Self::NAME.into(),
            detail,
        })
    }
}
