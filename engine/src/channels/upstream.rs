//! Upstream channels: another server is a worker that orders there what is wanted here, under the order's own id. docs/channels.md.
//!
//! The same id makes it safe to ask again: after a time-out, a lost connection, a crash of either side, the same cards come, and
//! those that have arrived are duplicates. Only if all that comes is known already, because others here have got it, another
//! id is asked for, which follows from the order's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use croupier_client::{Client, Error, IssuedOrder, Order, OrderId};
use croupier_protocol::{
    DeliverJob, EndJob, FindSecret, ImportRow, JOB_REASON_BYTES_MAX, JobRow, Priority, Refusal,
    SkuId, TakeJobs,
};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use crate::engine::{Engine, Refused};
use crate::route::{Outside, Source};

/// How often it is looked whether the table in force names other upstreams.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long an upstream that cannot be reached is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long an offer stays open.
const WAIT_MS: u32 = 10_000;
/// How long cards may be in stock before others are asked for, and how often that is looked at.
const STOCK_LOOKS: u32 = 20;
const STOCK_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Orders that are tried there for one of ours, if all cards of those before are known here.
const IDS_MAX: u8 = 8;

/// An upstream, as the table names it.
#[derive(Clone, PartialEq, Eq)]
struct Upstream {
    channel: String,
    url: String,
    sku_prefix: String,
    timeout: Duration,
    jobs_max: u32,
}

impl Upstream {
    fn of(outside: &Outside) -> Option<Upstream> {
        let Source::Upstream { url, sku_prefix } = &outside.source else {
            return None;
        };
        Some(Upstream {
            channel: outside.name.clone(),
            url: url.clone(),
            sku_prefix: sku_prefix.clone(),
            timeout: Duration::from_millis(outside.timeout_ms.into()),
            jobs_max: outside.jobs_max,
        })
    }
}

/// Keeps a worker for every upstream of the table in force.
pub async fn follow(engine: Arc<Engine>) {
    let mut running: HashMap<String, (Upstream, JoinHandle<()>)> = HashMap::new();
    loop {
        let table = engine.routes.load();
        let wanted: HashMap<String, Upstream> = table
            .outside()
            .iter()
            .filter_map(Upstream::of)
            .map(|upstream| (upstream.channel.clone(), upstream))
            .collect();
        running.retain(|channel, (upstream, task)| {
            let stays = wanted.get(channel) == Some(upstream) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for (channel, upstream) in wanted {
            running.entry(channel).or_insert_with(|| {
                let task = tokio::spawn(serve(engine.clone(), upstream.clone()));
                (upstream, task)
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What its worker goes by when it is dropped: its connection has ended.
struct Attached {
    engine: Arc<Engine>,
    connection: u64,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.engine.channels.gone(self.connection);
    }
}

/// Takes jobs for an upstream while it can be reached.
async fn serve(engine: Arc<Engine>, upstream: Upstream) {
    let mut said = false;
    loop {
        match reach(&engine, &upstream).await {
            Ok(client) => {
                said = false;
                let attached = Attached {
                    connection: engine.channels.connection(),
                    engine: engine.clone(),
                };
                let why = take(&engine, &upstream, &client, attached.connection).await;
                drop(attached);
                tracing::warn!(channel = %upstream.channel, %why, "an upstream takes no jobs for now");
            }
            Err(why) if !said => {
                said = true;
                tracing::warn!(channel = %upstream.channel, url = %upstream.url, %why, "an upstream cannot be asked");
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn reach(engine: &Engine, upstream: &Upstream) -> Result<Client, String> {
    let builder = Client::builder().server(&upstream.url);
    let client = builder
        .map_err(|error| error.to_string())?
        .call_timeout(upstream.timeout)
        .build()
        .await
        .map_err(|error| error.to_string())?;
    let info = client
        .server_info()
        .await
        .map_err(|error| error.to_string())?;
    if info.store_id == engine.store.store_id {
        return Err("it is this very node: an upstream is another server".into());
    }
    Ok(client)
}

/// Takes jobs until the upstream cannot be reached; tells why.
async fn take(
    engine: &Arc<Engine>,
    upstream: &Upstream,
    client: &Client,
    connection: u64,
) -> String {
    let room = Arc::new(Semaphore::new(upstream.jobs_max as usize));
    let lost = Arc::new(Notify::new());
    loop {
        // At least one; the rest of the room goes with it.
        let Ok(first) = room.clone().acquire_owned().await else {
            return "it is over".into();
        };
        let asked = TakeJobs {
            channel: upstream.channel.clone(),
            worker: upstream.url.chars().take(32).collect(),
            jobs_max: 1 + room.available_permits() as u32,
            wait_ms: WAIT_MS,
        };
        drop(first);
        let offered = blocking(engine, move |engine| engine.take_jobs(connection, &asked)).await;
        let told = match offered {
            Ok(told) => told,
            Err(refused) => return refused.text,
        };
        let reply = tokio::select! {
            reply = told => reply,
            () = lost.notified() => return "it cannot be reached".into(),
        };
        let Ok(reply) = reply else {
            return "there are no more jobs here".into();
        };
        for job in reply.jobs {
            let Ok(permit) = room.clone().acquire_owned().await else {
                return "it is over".into();
            };
            let (engine, upstream) = (engine.clone(), upstream.clone());
            let (client, lost) = (client.clone(), lost.clone());
            tokio::spawn(async move {
                if !fill(&engine, &upstream, &client, job).await {
                    lost.notify_one();
                }
                drop(permit);
            });
        }
    }
}

/// Runs work that waits for the disk.
async fn blocking<T: Send + 'static>(
    engine: &Arc<Engine>,
    work: impl FnOnce(&Engine) -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    let engine = engine.clone();
    let done = tokio::task::spawn_blocking(move || work(&engine)).await;
    done.unwrap_or_else(|error| {
        let text = format!("a cold thread broke down: {error}");
        Err(Refused::because(Refusal::StoreFailed, text))
    })
}

/// Orders there what a job wants; false: the upstream cannot be reached.
async fn fill(engine: &Arc<Engine>, upstream: &Upstream, client: &Client, job: JobRow) -> bool {
    for nth in 0..IDS_MAX {
        let issued = match order(upstream, client, &job, nth).await {
            Ok(issued) => issued,
            Err(error) => {
                let reached = !matches!(error, Error::Unreachable { .. });
                fail(engine, upstream, &job, what_of(&error), &error.to_string()).await;
                return reached;
            }
        };
        let issued = Arc::new(issued);
        let come = issued.clone();
        let (channel, wanted) = (upstream.channel.clone(), job.clone());
        let delivered = blocking(engine, move |engine| {
            let (issued, job) = (come, wanted);
            let rows = issued.cards.iter().zip(1..);
            let rows: Vec<ImportRow<'_>> = rows
                .map(|(card, line)| ImportRow::new(line, card.secret.as_bytes()))
                .collect();
            let asked = DeliverJob {
                job: job.job,
                attempt: job.attempt,
                // Too few of it are a failure only once nothing more comes.
                flags: 0,
                sku: &job.sku,
                channel: &channel,
            };
            engine.deliver_job(&asked, &rows)
        });
        match delivered.await {
            Ok(reply) if reply.missing == 0 => return true,
            Ok(reply) => {
                let lines = reply.rejections.iter().map(|rejected| rejected.line);
                match known(engine, &job, &issued, lines.collect()).await {
                    Known::Ours => return true,
                    Known::Others => {}
                }
            }
            Err(refused) => {
                tracing::error!(channel = %upstream.channel, why = %refused.text, "cards of an upstream could not be stored: they are asked for again under the same id");
                return true;
            }
        }
    }
    let why = "what it sells for this order is here already";
    fail(engine, upstream, &job, 2, why).await;
    true
}

/// Who has cards that have come and were here already.
enum Known {
    /// The order that they are for.
    Ours,
    /// Other orders; or nobody, and it is not enough.
    Others,
}

/// Waits until cards that were here already are with somebody: those that a crash left in stock are dealt as soon as the line is
/// looked at, and the order that they are for needs no others then.
async fn known(
    engine: &Arc<Engine>,
    job: &JobRow,
    issued: &Arc<IssuedOrder>,
    lines: Vec<u64>,
) -> Known {
    for _ in 0..STOCK_LOOKS {
        let (issued, lines, wanted) = (issued.clone(), lines.clone(), job.clone());
        let found = blocking(engine, move |engine| {
            let sku = engine.state.sku_by_name(&wanted.sku).unwrap_or_default();
            let mut found = Vec::new();
            for line in lines {
                let Some(card) = issued.cards.get((line as usize).wrapping_sub(1)) else {
                    continue;
                };
                let secret = card.secret.as_bytes();
                let sku = SkuId(sku);
                found.extend(engine.find_secret(&FindSecret { sku, secret })?.rows);
            }
            Ok(found)
        });
        let found = found.await.unwrap_or_default();
        if found.iter().any(|card| card.order == Some(job.job)) {
            return Known::Ours;
        }
        if found.iter().all(|card| card.order.is_some()) {
            return Known::Others;
        }
        tokio::time::sleep(STOCK_LOOK_EVERY).await;
    }
    Known::Others
}

async fn order(
    upstream: &Upstream,
    client: &Client,
    job: &JobRow,
    nth: u8,
) -> Result<IssuedOrder, Error> {
    let sku = client
        .sku_id(&format!("{}{}", upstream.sku_prefix, job.sku))
        .await?;
    let order = Order::new(id_there(job.job, nth), sku)
        .quantity(job.quantity)
        .priority(Priority::Standard);
    client.issue(order).await
}

/// Under which id an order is asked for there: its own, and then others that follow from it.
fn id_there(job: [u8; 16], nth: u8) -> OrderId {
    if nth == 0 {
        return OrderId::from_bytes(job);
    }
    let mut named = digest::Context::new(&digest::SHA256);
    named.update(b"croupier upstream");
    named.update(&job);
    named.update(&[nth]);
    let mut id = [0; 16];
    id.copy_from_slice(&named.finish().as_ref()[..16]);
    OrderId::from_bytes(
        uuid::Builder::from_custom_bytes(id)
            .into_uuid()
            .into_bytes(),
    )
}

/// How a job fails by such an error: 2 for now, 3 for good.
fn what_of(error: &Error) -> u16 {
    let is_for_good = matches!(
        error,
        Error::Refused {
            refusal: Refusal::UnknownSku
                | Refusal::QuantityTooLarge
                | Refusal::OrderIdReused
                | Refusal::NoRoute
                | Refusal::AlreadyCancelled
                | Refusal::Expired,
            ..
        }
    );
    if is_for_good { 3 } else { 2 }
}

async fn fail(engine: &Arc<Engine>, upstream: &Upstream, job: &JobRow, what: u16, why: &str) {
    let mut reason = why.to_owned();
    reason.truncate(reason.floor_char_boundary(JOB_REASON_BYTES_MAX));
    let asked = EndJob {
        channel: upstream.channel.clone(),
        job: job.job,
        attempt: job.attempt,
        what,
        extend_ms: 0,
        reason,
    };
    let ended = blocking(engine, move |engine| engine.end_job(&asked)).await;
    if let Err(refused) = ended {
        tracing::warn!(why = %refused.text, "a job of an upstream could not be failed");
    }
}
