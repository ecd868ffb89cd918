//! Workers of channels: they take jobs, and deliver, fail, dawdle, lie and vanish.

use croupier_client::SkuId;
use croupier_engine::channels::Answer;
use croupier_engine::channels::dispatcher::Connection;
use croupier_engine::engine::{Engine, Refused};
use croupier_protocol::{
    DeliverJob, EndJob, ImportRow, JOB_FLAG_ALL, JobRow, JobState, Refusal, TakeJobs,
};

use super::World;
use super::operators::places;
use crate::plan::Feature;

/// A table, in few words so that it fits the shortest append as the others do, whose orders with tag 4 are asked of workers; only orders that may wait have it.
pub(super) const ISSUERS: &str = r#"[retry]
base="5ms"
cap="40ms"
attempts=3
keep="2s"
[outlier]
max_ejection_percent=60
[[channel]]
name="alpha"
kind="issuer"
timeout="2ms"
outlier={consecutive_failures=2,base_ejection_time="10ms",probes=1}
[[channel]]
name="beta"
kind="issuer"
pool="vip"
timeout="20ms"
jobs=2
[[channel]]
name="gamma"
kind="issuer"
skus=["gift*"]
timeout="200ms"
[[rule]]
tag=[4]
channels=[{alpha=2,beta=1},"gamma"]
balance="least-latency"
[[rule]]
"#;

const CHANNELS: [&str; 4] = ["alpha", "beta", "gamma", "nobody"];
/// Workers at a time.
const WORKERS_MAX: usize = 6;
/// Jobs that somebody keeps, to be late with.
const KEPT_MAX: usize = 30;

/// All workers, and what they have.
#[derive(Default)]
pub(super) struct Workers {
    all: Vec<Worker>,
    kept: Vec<(&'static str, JobRow)>,
    /// The last delivery: SKU, channel and secrets.
    last: Option<(String, &'static str, Vec<String>)>,
    pub jobs: u64,
    pub late: u64,
}

struct Worker {
    channel: &'static str,
    connection: Connection,
    offer: Option<Answer>,
}

impl Workers {
    /// The server is gone: what was asked of it is lost, what they have is not.
    pub(super) fn disconnected(&mut self) {
        self.all.clear();
        // A simulated store keeps no fingerprints over a restart.
        self.last = None;
    }
}

impl World {
    /// The dispatcher follows what has happened.
    pub(super) fn follow_channels(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Channels) {
            return false;
        }
        engine.follow_channels_once();
        self.crash_copies();
        true
    }

    /// A worker does something, or a new one comes.
    pub(super) fn work(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Channels) || engine.cannot_record().is_some() {
            return false;
        }
        let table = engine.routes.load();
        if table.outside().is_empty() && self.dice.u32(0..6) == 0 {
            let loaded = engine.routes_load(ISSUERS, None);
            self.note(|| format!("a table with issuers: {loaded:?}"));
            self.crash_copies();
            return true;
        }
        if self.workers.all.len() < 2 {
            self.attach(&engine);
            return true;
        }
        match self.dice.u32(0..12) {
            0 if self.workers.all.len() < WORKERS_MAX => self.attach(&engine),
            1 if !self.workers.all.is_empty() && self.dice.u32(0..4) == 0 => {
                let at = self.dice.usize(0..self.workers.all.len());
                let worker = self.workers.all.swap_remove(at);
                self.note(|| format!("a worker of {} goes", worker.channel));
                engine.channels.gone(worker.connection);
            }
            2..6 => self.take_jobs(&engine),
            _ => self.finish_job(&engine),
        }
        true
    }

    fn attach(&mut self, engine: &Engine) {
        let channel = *self.dice.choice(CHANNELS.as_slice()).expect("some");
        self.workers.all.push(Worker {
            channel,
            connection: engine.channels.connection(),
            offer: None,
        });
    }

    fn take_jobs(&mut self, engine: &Engine) {
        let workers = self.workers.all.len();
        if workers == 0 {
            return;
        }
        let worker = &mut self.workers.all[self.dice.usize(0..workers)];
        if let Some(offer) = &mut worker.offer {
            let Ok(reply) = offer.try_recv() else { return };
            worker.offer = None;
            self.workers.jobs += reply.jobs.len() as u64;
            let channel = worker.channel;
            for job in reply.jobs {
                if self.workers.kept.len() < KEPT_MAX {
                    self.workers.kept.push((channel, job));
                }
            }
            return;
        }
        let asked = TakeJobs {
            channel: worker.channel.into(),
            worker: "sim".into(),
            jobs_max: self.dice.u32(1..6),
            wait_ms: self.dice.u32(0..50),
        };
        match engine.take_jobs(worker.connection, &asked) {
            Ok(offer) => worker.offer = Some(offer),
            Err(refused) => assert!(
                matches!(
                    refused.refusal,
                    Refusal::ChannelUnknown | Refusal::StoreFailed | Refusal::DiskFull
                ),
                "{}",
                refused.text
            ),
        }
    }

    /// Something becomes of a job that somebody has: in time or late.
    fn finish_job(&mut self, engine: &Engine) {
        if self.workers.kept.is_empty() {
            return self.deliver_again(engine);
        }
        let at = self.dice.usize(0..self.workers.kept.len());
        let (channel, job) = self.workers.kept[at].clone();
        let (count, all) = match self.dice.u32(0..16) {
            0 => return self.end_job(engine, channel, &job, 1),
            1 => return self.end_job(engine, channel, &job, 2),
            2 => return self.end_job(engine, channel, &job, 3),
            3 => return self.deliver_again(engine),
            4 => return self.deliver_other(engine, channel, &job),
            5 => (1, self.dice.bool()),
            6 => (u32::from(job.quantity) + 2, true),
            _ => (job.quantity.into(), true),
        };
        if self.dice.u32(0..8) > 0 {
            self.workers.kept.swap_remove(at);
        }
        // So that it is one record.
        let count = count.min(40);
        self.deliver_for(engine, channel, &job, &job.sku, count, all);
    }

    /// Cards of a SKU for a job; the oracle is told as of any delivery.
    fn deliver_for(
        &mut self,
        engine: &Engine,
        channel: &'static str,
        job: &JobRow,
        sku_name: &str,
        count: u32,
        all: bool,
    ) {
        let known = self.skus.iter().find(|(_, name)| *name == sku_name);
        let Some(&(sku, name)) = known else { return };
        let nth = self.tally.steps;
        let secrets: Vec<String> = (0..count).map(|card| format!("{nth} {card}")).collect();
        let places = places(engine, sku, count);
        let told = deliver(engine, channel, job, name, &secrets, all);
        self.note(|| format!("{channel} delivers {count} of {name} for {job:?}: {told:?}"));
        let refused = told.as_ref().err().map(|refused| refused.refusal);
        if matches!(refused, Some(Refusal::JobOther | Refusal::ChannelUnknown)) {
            return;
        }
        self.oracle
            .delivery_under_way(name, SkuId(sku), count.into(), &places);
        // These images are older than what the oracle is about to hear.
        self.crash_copies();
        match told {
            Ok((accepted, state)) => {
                assert_eq!(accepted, u64::from(count), "all are new");
                self.tally.delivered += accepted;
                let is_late = matches!(state, JobState::Over | JobState::Unknown);
                self.workers.late += u64::from(is_late);
                self.workers.last = Some((name.into(), channel, secrets));
                self.oracle.import_over(name, true);
            }
            // Nobody knows; the restart tells.
            Err(refused) if refused.refusal == Refusal::StoreFailed && self.engine().is_none() => {}
            Err(refused) if self.die_waiting(&refused) => {}
            Err(_) => self.oracle.import_over(name, false),
        }
    }

    /// The same cards once more.
    fn deliver_again(&mut self, engine: &Engine) {
        let Some((name, channel, secrets)) = self.workers.last.clone() else {
            return;
        };
        let job = JobRow {
            job: self.dice.u128(..).to_be_bytes(),
            ..JobRow::default()
        };
        if let Ok((accepted, _)) = deliver(engine, channel, &job, &name, &secrets, true) {
            assert_eq!(accepted, 0, "{secrets:?} of {name} are there already");
        }
    }

    /// Cards of another SKU than the job's: refused if the job is known, and stock of that SKU if not.
    fn deliver_other(&mut self, engine: &Engine, channel: &'static str, job: &JobRow) {
        let others = self.skus.iter().filter(|(_, name)| *name != job.sku);
        let others: Vec<&'static str> = others.map(|(_, name)| *name).collect();
        let Some(&name) = self.dice.choice(&others) else {
            return;
        };
        self.deliver_for(engine, channel, job, name, 1, true);
    }

    fn end_job(&mut self, engine: &Engine, channel: &str, job: &JobRow, what: u16) {
        let asked = EndJob {
            channel: channel.into(),
            job: job.job,
            attempt: job.attempt,
            what,
            extend_ms: if what == 1 { self.dice.u32(1..30) } else { 0 },
            reason: "sim".into(),
        };
        let ended = engine.end_job(&asked);
        self.note(|| format!("{channel} ends {job:?} as {what}: {ended:?}"));
        self.crash_copies();
    }
}

/// How many cards are new, and how the job stands.
fn deliver(
    engine: &Engine,
    channel: &str,
    job: &JobRow,
    sku: &str,
    secrets: &[String],
    all: bool,
) -> Result<(u64, JobState), Refused> {
    let rows = (1..).zip(secrets);
    let rows: Vec<_> = rows
        .map(|(line, secret)| ImportRow::new(line, secret.as_bytes()))
        .collect();
    let asked = DeliverJob {
        job: job.job,
        attempt: job.attempt,
        flags: if all { JOB_FLAG_ALL } else { 0 },
        sku,
        channel,
    };
    let reply = engine.deliver_job(&asked, &rows)?;
    let state = JobState::try_from(reply.job).expect("a state that there is");
    Ok((reply.accepted, state))
}
