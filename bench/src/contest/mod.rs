//! Several servers on the same work in one run: rounds alternate, so that whatever else the machine does meets all of
//! them, and medians are compared.

mod croupier;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

pub use croupier::Croupier;

use crate::error::BenchError;
use crate::report::{Latency, StepReport};
use crate::run::Step;

/// Connections × orders that each of them keeps in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Connections.
    pub connections: u32,
    /// Orders in flight on each.
    pub pipeline: u32,
}

/// Above this a shape is taken for a typing mistake.
const CONNECTIONS_MAX: u32 = 10_000;
const PIPELINE_MAX: u32 = 65_536;

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once(['x', '×'])
            .and_then(|(connections, pipeline)| {
                Some((
                    connections.trim().parse().ok()?,
                    pipeline.trim().parse().ok()?,
                ))
            });
        match parts {
            Some((connections @ 1..=CONNECTIONS_MAX, pipeline @ 1..=PIPELINE_MAX)) => Ok(Self {
                connections,
                pipeline,
            }),
            _ => Err(format!(
                "write a shape as connections x pipeline, as 50x128 (at most {CONNECTIONS_MAX}x{PIPELINE_MAX})"
            )),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.connections, self.pipeline)
    }
}

/// How long a round is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RoundLength {
    /// Loaded and not counted.
    pub warmup: Duration,
    /// Loaded and counted; less when the stock is used up.
    pub measured: Duration,
}

impl RoundLength {
    /// A closed loop of this length.
    pub fn step(&self) -> Step {
        Step {
            pacing: crate::driver::Pacing::Closed,
            warmup: self.warmup,
            duration: self.measured,
        }
    }
}

/// What one contender did in one round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Orders answered with cards.
    pub orders: u64,
    /// Seconds they took.
    pub measured_s: f64,
    /// The same, a second.
    pub per_s: f64,
    /// From sending to answer.
    pub latency: Latency,
    /// Cores that its process kept busy, if that could be read.
    pub server_cores: Option<f64>,
}

impl Round {
    /// A measured stretch of the driver, which must not hold a refusal or a silence.
    pub fn of(name: &str, step: &StepReport) -> Result<Self, BenchError> {
        let refused: u64 = step.refused.values().sum();
        match step.operations.first() {
            None => Err(nothing_measured(name, step.stock_used_up)),
            Some(issue) if refused == 0 && step.unanswered == 0 => Ok(Self {
                orders: issue.orders,
                measured_s: step.measured_s,
                per_s: issue.per_s,
                latency: issue.latency,
                server_cores: step.server_cores,
            }),
            Some(_) => Err(BenchError::Peer {
                peer: name.to_string(),
                detail: format!(
                    "orders refused: {:?}, never answered: {}",
                    step.refused, step.unanswered
                ),
            }),
        }
    }
}

/// A round in which no order was answered after the warm-up.
pub fn nothing_measured(name: &str, stock_used_up: bool) -> BenchError {
    let detail = if stock_used_up {
        "the stock was used up in the warm-up: say more --cards or less --warmup"
    } else {
        "no order was answered within the round: say more --seconds"
    };
    BenchError::Peer {
        peer: name.to_string(),
        detail: detail.to_string(),
    }
}

/// A server that takes part.
pub trait Contender {
    /// What it is called in tables.
    fn name(&self) -> &str;
    /// One round; whatever it needs beforehand (stock above all) is not measured.
    fn round(&mut self, shape: Shape, length: RoundLength) -> Result<Round, BenchError>;
    /// Checks at the end what could not be checked before.
    fn finish(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
}

/// One contender's rounds in one shape.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// The contender.
    pub name: String,
    /// Connections and pipeline.
    pub shape: Shape,
    /// In the order in which they were run.
    pub rounds: Vec<Round>,
    /// Median over the rounds.
    pub per_s: f64,
    /// Median over the rounds.
    pub p50_us: f64,
    /// Median over the rounds.
    pub p99_us: f64,
    /// Median over the rounds.
    pub server_cores: Option<f64>,
}

/// Lets all contenders run `rounds` rounds in every shape, one after the other.
pub fn contest(
    contenders: &mut [Box<dyn Contender>],
    shapes: &[Shape],
    rounds: u32,
    length: RoundLength,
) -> Result<Vec<Standing>, BenchError> {
    let mut standings = Vec::new();
    for &shape in shapes {
        let mut results: Vec<Vec<Round>> = vec![Vec::new(); contenders.len()];
        for round in 0..rounds as usize {
            // Each round begins with another contender, so that none always follows the same one.
            for turn in 0..contenders.len() {
                let index = (turn + round) % contenders.len();
                results[index].push(contenders[index].round(shape, length)?);
            }
        }
        let named = contenders.iter().zip(results);
        standings.extend(
            named.map(|(contender, rounds)| Standing::new(contender.name(), shape, rounds)),
        );
    }
    contenders
        .iter_mut()
        .try_for_each(|contender| contender.finish())?;
    Ok(standings)
}

impl Standing {
    fn new(name: &str, shape: Shape, rounds: Vec<Round>) -> Self {
        let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            name: name.to_string(),
            shape,
            per_s: of(|round| round.per_s),
            p50_us: of(|round| round.latency.p50_us),
            p99_us: of(|round| round.latency.p99_us),
            server_cores: rounds
                .iter()
                .map(|round| round.server_cores)
                .collect::<Option<Vec<f64>>>()
                .filter(|cores| !cores.is_empty())
                .map(median),
            rounds,
        }
    }

    /// The standing of a contender in a shape.
    pub fn find<'a>(standings: &'a [Self], name: &str, shape: Shape) -> Option<&'a Self> {
        standings
            .iter()
            .find(|standing| standing.name == name && standing.shape == shape)
    }
}

/// Lets the disk finish what was written before, so that nobody pays for what another one left.
pub fn settle() {
    rustix::fs::sync();
}

/// The middle one; of an even number, the mean of the two in the middle. NaN of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => figures[count / 2],
        count => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!(
            "50x128".parse(),
            Ok(Shape {
                connections: 50,
                pipeline: 128
            })
        );
        assert_eq!(
            "1×1".parse(),
            Ok(Shape {
                connections: 1,
                pipeline: 1
            })
        );
        for bad in ["", "50", "0x1", "1x0", "x", "50x", "1e3x1", "99999x1"] {
            assert!(
                bad.parse::<Shape>().is_err(),
                "{bad:?} was taken for a shape"
            );
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    struct Fake(&'static str, f64, Vec<Shape>);

    impl Contender for Fake {
        fn name(&self) -> &str {
            self.0
        }

        fn round(&mut self, shape: Shape, _: RoundLength) -> Result<Round, BenchError> {
            self.2.push(shape);
            let latency = Latency::of(&crate::recorder::latency_histogram());
            let per_s = self.1 * self.2.len() as f64;
            Ok(Round {
                orders: 1,
                measured_s: 1.0,
                per_s,
                latency,
                server_cores: None,
            })
        }
    }

    #[test]
    fn every_contender_runs_every_round_of_every_shape() {
        let shapes: Vec<Shape> = ["1x1", "2x2"]
            .map(|text| text.parse().expect("it is a shape"))
            .into();
        let length = RoundLength {
            warmup: Duration::ZERO,
            measured: Duration::from_secs(1),
        };
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(Fake("a", 1.0, vec![])),
            Box::new(Fake("b", 10.0, vec![])),
        ];
        let standings = contest(&mut contenders, &shapes, 3, length).expect("fakes do not fail");
        assert_eq!(standings.len(), 4);
        assert!(standings.iter().all(|standing| standing.rounds.len() == 3));
        let of = |name, shape| {
            Standing::find(&standings, name, shape)
                .expect("it took part")
                .per_s
        };
        assert_eq!((of("a", shapes[0]), of("b", shapes[1])), (2.0, 50.0));
    }
}
