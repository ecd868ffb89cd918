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

/// A table, in few words so that it fits the shortest append as the others do, whose orders with tag 4 are asked of workers.
pub(super) const ISSUERS: &str = r#"[retry]
base="1ms"
cap="1ms"
attempts=9
keep="1h"
[outlier]
max_ejection_percent=40
[[channel]]
name="a"
kind="issuer"
timeout="2ms"
outlier={consecutive_failures=9,failure_percentage=0,base_ejection_time="4ms",probes=1}
[[channel]]
name="b"
kind="issuer"
timeout="3ms"
jobs=4
[[channel]]
name="c"
kind="issuer"
pool="vip"
skus=["gift*"]
[[channel]]
name="d"
kind="issuer"
timeout="1ms"
[[channel]]
name="e"
kind="issuer"
timeout="1ms"
[[channel]]
name="f"
kind="issuer"
timeout="1ms"
[[channel]]
name="g"
kind="issuer"
timeout="1ms"
[[channel]]
name="h"
kind="issuer"
timeout="1ms"
[[rule]]
tag=[4]
channels=[{a=2,b=1},"c","d",{e=1,f=1,g=1},"h"]
balance="least-latency"
[[rule]]
"#;

/// Its channels.
pub(super) const CHANNELS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// Workers at a time.
const WORKERS_MAX: usize = 12;
/// Jobs that somebody keeps, to be late with.
const KEPT_MAX: usize = 60;
/// Things that workers do while nobody else acts, but for one that changes the disk.
const DEEDS_MAX: u32 = 24;

/// What channels that are outside have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Channelled {
    /// Jobs that workers were given.
    pub jobs: u64,
    /// Of these, those that were filled.
    pub filled: u64,
    /// Deliveries that came late.
    pub late: u64,
    /// Orders that waited for channels.
    pub accepted: u64,
    /// Orders that were seen buried.
    pub buried: u64,
    /// Orders that operators had asked for again.
    pub kicked: u64,
    /// Channels that were taken out, by themselves or by operators.
    pub ejections: u64,
}

impl Channelled {
    /// Adds what another run came to.
    pub fn add(&mut self, other: &Channelled) {
        self.jobs += other.jobs;
        self.filled += other.filled;
        self.late += other.late;
        self.accepted += other.accepted;
        self.buried += other.buried;
        self.kicked += other.kicked;
        self.ejections += other.ejections;
    }
}

/// All workers, and what they have.
#[derive(Default)]
pub(super) struct Workers {
    all: Vec<Worker>,
    kept: Vec<Kept>,
    /// How often something was delivered.
    deliveries: u64,
    /// The last delivery: SKU, channel and secrets.
    last: Option<(String, &'static str, Vec<String>)>,
    /// When the dispatcher has something to do, in Unix milliseconds.
    next_ms: Option<u64>,
}

/// A job that a worker has.
#[derive(Clone)]
struct Kept {
    channel: &'static str,
    job: JobRow,
    /// When the worker does something about it, in microseconds.
    due_us: u64,
    /// It takes its time: mostly too long, and then the cards come.
    dawdles: bool,
}

struct Worker {
    channel: &'static str,
    connection: Connection,
    offer: Option<Answer>,
}

impl Worker {
    /// The jobs that its offer has brought, if it is answered.
    fn answered(&mut self) -> Option<Vec<JobRow>> {
        let reply = self.offer.as_mut()?.try_recv().ok()?;
        self.offer = None;
        Some(reply.jobs)
    }

    fn offers(&mut self, engine: &Engine, jobs_max: u32, wait_ms: u32) {
        let asked = TakeJobs {
            channel: self.channel.into(),
            worker: "sim".into(),
            jobs_max,
            wait_ms,
        };
        match engine.take_jobs(self.connection, &asked) {
            Ok(offer) => self.offer = Some(offer),
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
}

impl Workers {
    /// The server is gone: what was asked of it is lost, what they have is not.
    pub(super) fn disconnected(&mut self) {
        self.all.clear();
        self.next_ms = None;
        // A simulated store keeps no fingerprints over a restart.
        self.last = None;
    }

    /// When the dispatcher has something to do, in Unix milliseconds.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.next_ms
    }

    /// All go, and what they had is lost.
    pub(super) fn all_go(&mut self, engine: &Engine) {
        for worker in self.all.drain(..) {
            engine.channels.gone(worker.connection);
        }
        self.kept.clear();
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// What one of them is given, if anything; it offers room as soon as it has been answered.
    pub(super) fn ask(
        &mut self,
        engine: &Engine,
        at: usize,
        jobs_max: u32,
        wait_ms: u32,
    ) -> Option<(&'static str, Vec<JobRow>)> {
        let worker = &mut self.all[at];
        if worker.offer.is_none() {
            worker.offers(engine, jobs_max, wait_ms);
        }
        let jobs = worker.answered()?;
        Some((worker.channel, jobs))
    }

    /// When a worker does something about its job, in microseconds.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.kept.iter().map(|kept| kept.due_us).min()
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
        self.workers.next_ms = engine.follow_channels_once();
        self.count_ejections(&engine);
        self.crash_copies();
        true
    }

    /// Workers do something, or new ones come: as much as happens while nobody else acts.
    pub(super) fn work(&mut self) -> bool {
        if !self.plan.has(Feature::Channels) {
            return false;
        }
        let changes = self.disk.changes();
        for _ in 0..self.dice.u32(1..=DEEDS_MAX) {
            let engine = self.engine();
            let Some(engine) = engine.filter(|engine| engine.cannot_record().is_none()) else {
                return false;
            };
            self.work_once(&engine);
            self.count_ejections(&engine);
            self.crash_copies();
            if self.disk.changes() != changes {
                break;
            }
        }
        true
    }

    fn work_once(&mut self, engine: &Engine) {
        let table = engine.routes.load();
        if table.outside().is_empty() && self.dice.u32(0..3) == 0 {
            let loaded = engine.routes_load(ISSUERS, None);
            self.note(|| format!("a table with issuers: {loaded:?}"));
            return;
        }
        if self.workers.all.len() < 8 {
            return self.attach(engine);
        }
        match self.dice.u32(0..24) {
            0 | 1 if self.workers.all.len() < WORKERS_MAX => self.attach(engine),
            2 if self.dice.u32(0..8) == 0 => {
                let at = self.dice.usize(0..self.workers.all.len());
                let worker = self.workers.all.swap_remove(at);
                self.note(|| format!("a worker of {} goes", worker.channel));
                engine.channels.gone(worker.connection);
            }
            3 | 4 => {
                self.workers.next_ms = engine.follow_channels_once();
            }
            5..13 => self.take_jobs(engine),
            _ => self.finish_job(engine),
        }
    }

    fn attach(&mut self, engine: &Engine) {
        let channel = match self.dice.u32(0..16) {
            0 => "nobody",
            _ => *self.dice.choice(CHANNELS.as_slice()).expect("some"),
        };
        self.attach_to(engine, channel);
    }

    pub(super) fn attach_to(&mut self, engine: &Engine, channel: &'static str) {
        self.workers.all.push(Worker {
            channel,
            connection: engine.channels.connection(),
            offer: None,
        });
    }

    fn take_jobs(&mut self, engine: &Engine) {
        let at = self.dice.usize(0..self.workers.all.len());
        let worker = &mut self.workers.all[at];
        if worker.offer.is_none() {
            let (jobs_max, wait_ms) = (self.dice.u32(1..6), self.dice.u32(0..50));
            return worker.offers(engine, jobs_max, wait_ms);
        }
        let Some(jobs) = worker.answered() else {
            return;
        };
        let channel = worker.channel;
        self.tally.channels.jobs += jobs.len() as u64;
        for job in jobs {
            if self.workers.kept.len() < KEPT_MAX {
                let dawdles = self.dice.u32(0..10) == 0;
                let after_us = match dawdles {
                    true => self.dice.u64(2_000..20_000),
                    false => 0,
                };
                self.workers.kept.push(Kept {
                    channel,
                    job,
                    due_us: self.now_us + after_us,
                    dawdles,
                });
            }
        }
    }

    /// Something becomes of a job that somebody has: in time or late. Most fail, for that costs nothing, and the next channel is asked.
    fn finish_job(&mut self, engine: &Engine) {
        let now_us = self.now_us;
        let is_due = |kept: &Kept| kept.due_us <= now_us;
        let Some(at) = self.workers.kept.iter().position(is_due) else {
            if self.dice.u32(0..64) == 0 {
                self.deliver_again(engine);
            }
            return;
        };
        let Kept {
            channel,
            job,
            dawdles,
            ..
        } = self.workers.kept[at].clone();
        let (count, all) = match self.dice.u32(0..64) {
            0 | 1 => {
                self.workers.kept[at].due_us += 1_000;
                return self.end_job(engine, channel, &job, 1);
            }
            2 => return self.end_job(engine, channel, &job, 3),
            3 => return self.deliver_other(engine, channel, &job),
            4 => (1, self.dice.bool()),
            5 => (u32::from(job.quantity) + 2, true),
            6..63 if !dawdles => {
                self.workers.kept.swap_remove(at);
                return self.end_job(engine, channel, &job, 2);
            }
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
    pub(super) fn deliver_for(
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
        self.workers.deliveries += 1;
        let nth = self.workers.deliveries;
        let secrets: Vec<String> = (0..count)
            .map(|card| format!("for a job {nth} {card}"))
            .collect();
        let places = places(engine, sku, count);
        let before = counts(engine);
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
            Ok(accepted) => {
                assert_eq!(accepted, u64::from(count), "all are new");
                self.tally.delivered += accepted;
                let now = counts(engine);
                self.tally.channels.filled += now.0.saturating_sub(before.0);
                self.tally.channels.late += now.1.saturating_sub(before.1);
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
        if let Ok(accepted) = deliver(engine, channel, &job, &name, &secrets, true) {
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

/// Jobs that were filled, and deliveries that came late, since the start.
fn counts(engine: &Engine) -> (u64, u64) {
    let rows = engine.channels_status().into_iter();
    rows.fold((0, 0), |(filled, late), row| {
        (filled + row.filled, late + row.late)
    })
}

/// How many cards are new.
fn deliver(
    engine: &Engine,
    channel: &str,
    job: &JobRow,
    sku: &str,
    secrets: &[String],
    all: bool,
) -> Result<u64, Refused> {
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
    JobState::try_from(reply.job).expect("a state that there is");
    Ok(reply.accepted)
}
