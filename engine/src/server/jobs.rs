//! Workers of channels: their offers wait without a thread, and their deliveries are many at a time. docs/channels.md.

use std::cell::Cell;
use std::rc::Rc;

use croupier_protocol::{
    DeliverJob, EndJob, ImportRow, Kind, Refusal, TakeJobs, TakeJobsReply, decode_control,
    encode_control,
};

use super::connection::{Connection, Job};
use super::control::cold;
use super::core::Core;
use crate::engine::{Engine, Refused};

/// Offers of one connection that are open at a time.
const OFFERS_MAX: usize = 16;
/// Deliveries of one connection that are on their way at a time; more wait behind them.
const DELIVERIES_MAX: usize = 256;

/// What a connection has to do with channels.
#[derive(Default)]
pub struct Jobs {
    /// Its number as a worker; 0: it is none.
    worker: Cell<u64>,
    offers: Cell<usize>,
    deliveries: Cell<usize>,
}

impl Jobs {
    /// Whether another delivery has to wait.
    pub fn is_full(&self) -> bool {
        self.deliveries.get() >= DELIVERIES_MAX
    }

    /// The connection has ended.
    pub fn end(&self, engine: &Engine) {
        match self.worker.get() {
            0 => {}
            worker => engine.channels.gone(worker),
        }
    }
}

/// Answers a request of a worker, beside whatever else its connection asks.
pub fn start(core: &Rc<Core>, connection: &Rc<Connection>, job: Job) {
    let jobs = &connection.worker;
    let count = match job.kind {
        Kind::TakeJobs => &jobs.offers,
        _ => &jobs.deliveries,
    };
    if job.kind == Kind::TakeJobs && count.get() == OFFERS_MAX {
        let text = format!("at most {OFFERS_MAX} open offers a connection");
        return connection.refuse(job.request_id, Refusal::Busy, &text);
    }
    count.set(count.get() + 1);
    let (core, connection) = (core.clone(), connection.clone());
    tokio::task::spawn_local(async move {
        let (kind, request_id) = (job.kind, job.request_id);
        let answer = answer(&core, &connection, job).await;
        let jobs = &connection.worker;
        let count = match kind {
            Kind::TakeJobs => &jobs.offers,
            _ => &jobs.deliveries,
        };
        count.set(count.get() - 1);
        if connection.is_gone() {
            return;
        }
        match answer {
            Ok(body) => connection.put_frame(kind.reply_of(), request_id, 0, |out| {
                out.extend_from_slice(&body);
            }),
            Err(refused) => connection.refuse(request_id, refused.refusal, &refused.text),
        }
        connection.flush();
        // A delivery that waited for this one may come now.
        connection.look();
    });
}

async fn answer(
    core: &Core,
    connection: &Connection,
    job: Job,
) -> Result<bytes::BytesMut, Refused> {
    let mut body = bytes::BytesMut::new();
    let engine = core.engine.clone();
    match job.kind {
        Kind::TakeJobs => {
            let asked: TakeJobs = decode_control(&job.body)
                .map_err(|error| Refused::because(Refusal::Malformed, error))?;
            let worker = &connection.worker.worker;
            if worker.get() == 0 {
                worker.set(engine.channels.connection());
            }
            let worker = worker.get();
            let told = cold(core, move || engine.take_jobs(worker, &asked)).await?;
            let reply = match told.await {
                Ok(reply) => reply,
                // The dispatcher has ended.
                Err(_) => match core.engine.cannot_record() {
                    Some(refusal) => return Err(Refused::plain(refusal)),
                    None => TakeJobsReply::default(),
                },
            };
            encode_control(&reply, &mut body);
        }
        Kind::EndJob => {
            let asked: EndJob = decode_control(&job.body)
                .map_err(|error| Refused::because(Refusal::Malformed, error))?;
            let reply = cold(core, move || engine.end_job(&asked)).await?;
            encode_control(&reply, &mut body);
        }
        _ => {
            let reply = cold(core, move || deliver(&engine, &job)).await?;
            encode_control(&reply, &mut body);
        }
    }
    Ok(body)
}

fn deliver(engine: &Engine, job: &Job) -> Result<croupier_protocol::DeliverJobReply, Refused> {
    let malformed = |error| Refused::because(Refusal::Malformed, error);
    let (asked, rows) = DeliverJob::decode(&job.body, job.count).map_err(malformed)?;
    let rows: Result<Vec<ImportRow<'_>>, _> = rows.collect();
    engine.deliver_job(&asked, &rows.map_err(malformed)?)
}
