//! The three issuers: workers of the client crate, whose suppliers do as they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use croupier_client::{Client, Issuer, IssuerReport, Job, JobCard, JobFailure};
use serde::Serialize;
use tokio::time::sleep;

use super::{CHANNELS, SceneArgs, of_client};
use crate::error::BenchError;
use crate::stock::{SECRET_BYTES_MAX, SecretShape};

/// Index of the issuers' SKU in the workload.
pub const ISSUED_SKU_INDEX: u16 = 1;
/// How often whoever hangs looks whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is the matter with an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Illness {
    /// It takes jobs and does nothing, until it is well.
    Hangs,
    /// It takes ten times as long.
    Slow,
    /// It delivers a quarter of a lease after the lease.
    Late,
}

impl Illness {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hangs => "hangs",
            Self::Slow => "10 × slower",
            Self::Late => "after its lease",
        }
    }
}

/// Makes all issuers ill, or well.
#[derive(Debug, Clone)]
pub struct Switches(Arc<AtomicBool>);

impl Switches {
    /// From now on each does what is the matter with it.
    pub fn fall_ill(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// From now on all are well.
    pub fn get_well(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    // Relaxed, everywhere: nothing else is told by it.
    fn are_ill(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One supplier.
struct Supplier {
    nth: u32,
    illness: Illness,
    delay: Duration,
    lease: Duration,
    shape: SecretShape,
    made: AtomicU32,
    switches: Switches,
}

impl Supplier {
    async fn make(&self, job: &Job) -> Result<Vec<JobCard>, JobFailure> {
        match (self.switches.are_ill(), self.illness) {
            (false, _) => sleep(self.delay).await,
            (true, Illness::Slow) => sleep(self.delay * 10).await,
            (true, Illness::Late) => sleep(self.lease + self.lease / 4).await,
            (true, Illness::Hangs) => {
                while self.switches.are_ill() {
                    sleep(LOOK_EVERY).await;
                }
            }
        }
        Ok((0..job.quantity).map(|_| self.card()).collect())
    }

    fn card(&self) -> JobCard {
        let number = self.made.fetch_add(1, Ordering::Relaxed) * CHANNELS.len() as u32 + self.nth;
        let mut secret = [0; SECRET_BYTES_MAX];
        self.shape.write(ISSUED_SKU_INDEX, number, &mut secret);
        secret[..self.shape.bytes()].to_vec().into()
    }
}

/// Which channel has made a card, by the number in its secret.
pub fn maker(number: u32) -> usize {
    number as usize % CHANNELS.len()
}

/// What one issuer has done.
#[derive(Debug)]
pub struct Supplied {
    /// Cards that it has made.
    pub made: u64,
    /// What its worker says.
    pub report: IssuerReport,
}

/// All of them.
pub struct Suppliers {
    all: Vec<(Arc<Supplier>, Issuer)>,
    switches: Switches,
}

impl Suppliers {
    /// Connects them, each over a connection of its own; they work in this runtime.
    pub async fn start(
        args: &SceneArgs,
        address: &str,
        shape: &SecretShape,
    ) -> Result<Self, BenchError> {
        let switches = Switches(Arc::new(AtomicBool::new(false)));
        let url = format!("croupier://{address}");
        let mut all = Vec::new();
        for (nth, (name, illness)) in (0..).zip(CHANNELS) {
            let client = Client::connect(&url).await.map_err(of_client("connect"))?;
            let supplier = Arc::new(Supplier {
                nth,
                illness,
                delay: args.delay,
                lease: args.lease,
                shape: shape.clone(),
                made: AtomicU32::new(0),
                switches: switches.clone(),
            });
            let making = Arc::clone(&supplier);
            let issuer = Issuer::builder(client, name)
                .jobs_max(args.jobs)
                .wait(Duration::from_secs(1))
                .extend_up_to(Duration::ZERO)
                .start(move |job| {
                    let supplier = Arc::clone(&making);
                    async move { supplier.make(&job).await }
                });
            all.push((supplier, issuer));
        }
        Ok(Self { all, switches })
    }

    /// What makes them ill.
    pub fn switches(&self) -> Switches {
        self.switches.clone()
    }

    /// They finish what is under way, and say what they have done.
    pub async fn stop(self, within: Duration) -> Vec<Supplied> {
        let mut supplied = Vec::new();
        for (supplier, issuer) in self.all {
            let report = issuer.stop(within).await;
            let made = supplier.made.load(Ordering::Relaxed).into();
            supplied.push(Supplied { made, report });
        }
        supplied
    }
}
