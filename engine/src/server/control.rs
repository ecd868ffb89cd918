//! The cold requests: SKUs, stock, imports, routes. Each runs on a cold thread while its connection waits, so that they
//! hold nobody else up.

use std::rc::Rc;
use std::sync::Arc;

use croupier_protocol::{
    BatchList, CanaryStart, CardMove, CardRef, ChannelMove, ChannelsStatusReply, ControlBody,
    Deliver, DeliverReply, FLAG_MORE, FaultCode, FindSecret, HolderCap, ImportBegin,
    ImportBeginReply, ImportEnd, ImportEndReply, ImportRow, ImportRowsReply, Kind, ListBatches,
    ListCards, ListOrders, MoveCards, MoveCardsReply, OrderId, Pick, Refusal, RejectedLine,
    RetryList, RetryMove, RoutesHistoryReply, RoutesLoad, RoutesLoadReply, RoutesRollback,
    RoutesShow, SkuCreate, SkuCreateReply, SkuListReply, SkuRow, SkuSet, SkuSetReply, Stock,
    StockReply, Trailing, decode_control, encode_control, import_rows,
};

use super::connection::{Connection, Job};
use super::core::Core;
use crate::engine::{Engine, Refused};
use crate::intake::Intake;
use crate::moves::{Done, Selection};
use crate::state::record::Cap;
use crate::tables::Loaded;

/// The import of a connection, if one is open.
#[derive(Default)]
pub struct Imports {
    open: Option<Box<Intake>>,
}

/// Rows of a listing in one frame: with the longest names they stay below the smallest frame limit.
const LISTED_PER_FRAME: usize = 60;
/// Batches in one frame: they have two names.
const BATCHES_PER_FRAME: usize = 30;
/// Channels in one frame.
const CHANNELS_PER_FRAME: usize = 15;
/// Rejected lines in one frame.
const REJECTIONS_PER_FRAME: usize = 500;

/// Runs a request and writes its reply.
pub async fn run(core: &Core, connection: &Rc<Connection>, imports: &mut Imports, job: Job) {
    let id = job.request_id;
    let done = match job.kind {
        Kind::ImportBegin => begin(core, connection, imports, &job).await,
        Kind::ImportRows => rows(core, connection, imports, job).await,
        Kind::ImportEnd => end(core, connection, imports, &job).await,
        Kind::Pick => pick(core, connection, &job).await,
        _ => {
            let engine = core.engine.clone();
            match cold(core, move || plain(&engine, &job)).await {
                Ok(frames) => {
                    write_pages(connection, id, frames);
                    Ok(())
                }
                Err(refused) => Err(refused),
            }
        }
    };
    if let Err(refused) = done {
        connection.refuse(id, refused.refusal, &refused.text);
    }
}

/// Runs blocking work on a cold thread.
pub(super) async fn cold<T: Send + 'static>(
    core: &Core,
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    match core.cold.spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Refused::because(
            Refusal::StoreFailed,
            format!("a cold thread broke down: {error}"),
        )),
    }
}

/// The frames of a reply: kind and bodies.
type Pages = (Kind, Vec<bytes::BytesMut>);

fn write_pages(connection: &Connection, request_id: u64, (kind, pages): Pages) {
    let last = pages.len() - 1;
    for (nth, page) in pages.into_iter().enumerate() {
        let flags = if nth < last { FLAG_MORE } else { 0 };
        connection.put_frame(kind, request_id, flags, |out| out.extend_from_slice(&page));
    }
}

fn page<T: ControlBody>(value: &T) -> bytes::BytesMut {
    let mut body = bytes::BytesMut::new();
    encode_control(value, &mut body);
    body
}

/// At least one page, also of nothing.
fn pages<T, B: ControlBody>(
    rows: Vec<T>,
    per_page: usize,
    body: impl Fn(Vec<T>) -> B,
) -> Vec<bytes::BytesMut> {
    let mut rows = rows.into_iter().peekable();
    let mut pages = Vec::new();
    loop {
        pages.push(page(&body(rows.by_ref().take(per_page).collect())));
        if rows.peek().is_none() {
            return pages;
        }
    }
}

fn loaded_page((version, lsn, warnings): Loaded) -> bytes::BytesMut {
    page(&RoutesLoadReply {
        version,
        lsn,
        warnings,
    })
}

fn decode<T: ControlBody>(job: &Job) -> Result<T, Refused> {
    decode_control(&job.body).map_err(|error| Refused::because(Refusal::Malformed, error))
}

fn sku_set(engine: &Engine, asked: &SkuSet) -> Result<SkuSetReply, Refused> {
    let cap = asked.holder.0.unwrap_or_default();
    let (order, share) = (asked.deal_order, asked.hold_share_max_percent);
    let says_nothing = order.is_none() && share.is_none() && cap == HolderCap::default();
    let (set, lsn) = if says_nothing {
        (engine.sku_settings(&asked.name)?, 0)
    } else {
        refuse_when_draining(engine)?;
        engine.sku_set(&asked.name, order, share, cap)?
    };
    let cap = HolderCap {
        cards_max: Some(set.cap.cards_max),
        window_ms: Some(set.cap.window_ms),
    };
    Ok(SkuSetReply {
        sku: set.sku,
        lsn,
        deal_order: set.deal_order.as_u16(),
        hold_share_max_percent: set.hold_share_max_percent.into(),
        // Clients that know no caps read what is sold without one.
        holder: Trailing((set.cap != Cap::default()).then_some(cap)),
    })
}

fn plain(engine: &Engine, job: &Job) -> Result<Pages, Refused> {
    Ok(match job.kind {
        Kind::ServerInfo => (Kind::ServerInfoReply, vec![page(&engine.info())]),
        Kind::SkuCreate => {
            let asked: SkuCreate = decode(job)?;
            refuse_when_draining(engine)?;
            let (sku, lsn) = engine.sku_create(&asked.name)?;
            (
                Kind::SkuCreateReply,
                vec![page(&SkuCreateReply { sku, lsn })],
            )
        }
        Kind::SkuList => {
            let rows = engine
                .sku_list()
                .into_iter()
                .map(|(sku, name)| SkuRow { sku, name })
                .collect();
            (
                Kind::SkuListReply,
                pages(rows, LISTED_PER_FRAME, |skus| SkuListReply { skus }),
            )
        }
        Kind::SkuSet => {
            let asked: SkuSet = decode(job)?;
            (Kind::SkuSetReply, vec![page(&sku_set(engine, &asked)?)])
        }
        Kind::Stock => {
            let asked: Stock = decode(job)?;
            let rows = engine.stock(asked.name.as_deref())?;
            (
                Kind::StockReply,
                pages(rows, LISTED_PER_FRAME, |rows| StockReply { rows }),
            )
        }
        Kind::MoveCards => {
            let asked: MoveCards = decode(job)?;
            refuse_when_draining(engine)?;
            let (selection, card_move) = selection_of(&asked)?;
            let Done { moved, lsn } = engine.move_cards(&selection, card_move, asked.issued)?;
            (
                Kind::MoveCardsReply,
                vec![page(&MoveCardsReply { moved, lsn })],
            )
        }
        Kind::FindSecret => {
            let asked = FindSecret::decode(&job.body)
                .map_err(|error| Refused::because(Refusal::Malformed, error))?;
            (
                Kind::FindSecretReply,
                vec![page(&engine.find_secret(&asked)?)],
            )
        }
        Kind::ListCards => {
            let asked: ListCards = decode(job)?;
            (
                Kind::ListCardsReply,
                vec![page(&engine.list_cards(&asked)?)],
            )
        }
        Kind::ListOrders => {
            let asked: ListOrders = decode(job)?;
            (
                Kind::ListOrdersReply,
                vec![page(&engine.list_orders(&asked)?)],
            )
        }
        Kind::ListBatches => {
            let asked: ListBatches = decode(job)?;
            let rows = engine.list_batches(asked.sku.as_deref())?;
            (
                Kind::ListBatchesReply,
                pages(rows, BATCHES_PER_FRAME, |rows| BatchList { rows }),
            )
        }
        Kind::Deliver => (Kind::DeliverReply, vec![page(&deliver(engine, job)?)]),
        Kind::RetryList => {
            let asked: RetryList = decode(job)?;
            (Kind::RetryListReply, vec![page(&engine.retries(&asked)?)])
        }
        Kind::RetryMove => {
            let asked: RetryMove = decode(job)?;
            refuse_when_draining(engine)?;
            let reply = engine.move_retries(&asked)?;
            (Kind::RetryMoveReply, vec![page(&reply)])
        }
        Kind::RoutesLoad => {
            let asked: RoutesLoad = decode(job)?;
            refuse_when_draining(engine)?;
            let loaded = engine.routes_load(&asked.toml, asked.expect.0)?;
            (Kind::RoutesLoadReply, vec![loaded_page(loaded)])
        }
        Kind::RoutesRollback => {
            let asked: RoutesRollback = decode(job)?;
            refuse_when_draining(engine)?;
            let loaded = engine.routes_rollback(asked.to, asked.expect)?;
            (Kind::RoutesRollbackReply, vec![loaded_page(loaded)])
        }
        Kind::RoutesShow => {
            let asked: RoutesShow = decode(job)?;
            let reply = engine.routes_show(asked.version.0)?;
            (Kind::RoutesShowReply, vec![page(&reply)])
        }
        Kind::RoutesStatus => (Kind::RoutesStatusReply, vec![page(&engine.routes_status())]),
        Kind::ChannelMove => {
            let asked: ChannelMove = decode(job)?;
            refuse_when_draining(engine)?;
            (
                Kind::ChannelMoveReply,
                vec![page(&engine.move_channel(&asked)?)],
            )
        }
        Kind::ChannelsStatus => (
            Kind::ChannelsStatusReply,
            pages(engine.channels_status(), CHANNELS_PER_FRAME, |rows| {
                ChannelsStatusReply { rows }
            }),
        ),
        Kind::RoutesHistory => {
            let rows = engine.routes_history();
            let reply = RoutesHistoryReply { rows };
            (Kind::RoutesHistoryReply, vec![page(&reply)])
        }
        Kind::CanaryStart => {
            let asked: CanaryStart = decode(job)?;
            refuse_when_draining(engine)?;
            let reply = engine.canary_start(&asked.toml, &asked.settings)?;
            (Kind::CanaryStartReply, vec![page(&reply)])
        }
        Kind::CanaryStatus => (Kind::CanaryStatusReply, vec![page(&engine.canary_status())]),
        Kind::CanaryAbort => {
            refuse_when_draining(engine)?;
            let reply = engine.canary_abort()?;
            (Kind::CanaryAbortReply, vec![page(&reply)])
        }
        Kind::CanaryResume => {
            refuse_when_draining(engine)?;
            let reply = engine.canary_resume()?;
            (Kind::CanaryResumeReply, vec![page(&reply)])
        }
        other => {
            return Err(Refused::because(
                Refusal::Malformed,
                format!("{other:?} is no request"),
            ));
        }
    })
}

fn deliver(engine: &Engine, job: &Job) -> Result<DeliverReply, Refused> {
    let malformed = |error| Refused::because(Refusal::Malformed, error);
    let (asked, rows) = Deliver::decode(&job.body, job.count).map_err(malformed)?;
    let rows: Result<Vec<ImportRow<'_>>, _> = rows.collect();
    let pool = (!asked.pool.is_empty()).then_some(asked.pool);
    let delivered = engine.deliver(asked.sku, pool, &rows.map_err(malformed)?)?;
    let rejections = delivered.rejections.iter();
    Ok(DeliverReply {
        lsn: delivered.lsn,
        accepted: delivered.accepted,
        rejections: rejections
            .map(|&(line, reason)| RejectedLine {
                line,
                reason: reason.as_u16(),
            })
            .collect(),
    })
}

/// Which cards a request means, and what is to become of them.
fn selection_of(asked: &MoveCards) -> Result<(Selection, CardMove), Refused> {
    let invalid = |text: &str| Refused::because(Refusal::SelectionInvalid, text);
    let card_move = CardMove::try_from(asked.to)
        .map_err(|error| Refused::because(Refusal::SelectionInvalid, error))?;
    let cards: Vec<CardRef> = asked
        .cards
        .iter()
        .map(|card| CardRef {
            slab: card.slab,
            slot: card.slot,
            generation: card.generation,
        })
        .collect();
    let selection = match (&asked.sku, &asked.order) {
        (Some(sku), None) if cards.is_empty() => Selection::Stock {
            sku: sku.clone(),
            batch: asked.batch.clone(),
        },
        _ if asked.batch.is_some() => return Err(invalid("a batch is one of a SKU: say which")),
        (None, Some(order)) if cards.is_empty() => Selection::Order(OrderId::from_bytes(*order)),
        (None, None) if !cards.is_empty() => Selection::Cards(cards),
        _ => return Err(Refused::plain(Refusal::SelectionInvalid)),
    };
    Ok((selection, card_move))
}

fn refuse_when_draining(engine: &Engine) -> Result<(), Refused> {
    match engine.cannot_record() {
        Some(refusal) => Err(Refused::plain(refusal)),
        None => Ok(()),
    }
}

async fn pick(core: &Core, connection: &Connection, job: &Job) -> Result<(), Refused> {
    let asked: Pick = decode(job)?;
    let engine = core.engine.clone();
    let outcome = cold(core, move || engine.pick(&asked)).await?;
    connection.put_order(core, Kind::PickReply, job.request_id, outcome);
    Ok(())
}

async fn begin(
    core: &Core,
    connection: &Connection,
    imports: &mut Imports,
    job: &Job,
) -> Result<(), Refused> {
    if imports.open.is_some() {
        return Err(Refused::plain(Refusal::ImportOpen));
    }
    let asked: ImportBegin = decode(job)?;
    let engine: Arc<Engine> = core.engine.clone();
    connection.importing.set(true);
    let intake = cold(core, move || Intake::begin(&engine, &asked).map(Box::new)).await?;
    let reply = ImportBeginReply {
        import: intake.id,
        sku: intake.sku,
    };
    imports.open = Some(intake);
    connection.put_frame(Kind::ImportBeginReply, job.request_id, 0, |out| {
        encode_control(&reply, out)
    });
    Ok(())
}

/// The open import of that id, taken out.
fn take(imports: &mut Imports, import: u64) -> Result<Box<Intake>, Refused> {
    match imports.open.take() {
        Some(intake) if intake.id == import => Ok(intake),
        other => {
            imports.open = other;
            Err(Refused::plain(Refusal::NoImport))
        }
    }
}

/// A failed row ends the import: it is dropped and leaves nothing behind.
async fn rows(
    core: &Core,
    connection: &Connection,
    imports: &mut Imports,
    job: Job,
) -> Result<(), Refused> {
    let request_id = job.request_id;
    let (import, _) = match import_rows(&job.body, job.count) {
        Ok(read) => read,
        Err(error) => {
            connection.fault(request_id, FaultCode::Malformed, &error.to_string());
            return Ok(());
        }
    };
    let mut intake = take(imports, import)?;
    let intake = cold(core, move || {
        let (_, rows) = import_rows(&job.body, job.count).expect("it was read before");
        for row in rows {
            intake.push(row.map_err(|error| Refused::because(Refusal::Malformed, error))?)?;
        }
        Ok(intake)
    })
    .await?;
    let reply = ImportRowsReply {
        import,
        rows_received: intake.rows,
    };
    imports.open = Some(intake);
    connection.put_frame(Kind::ImportRowsReply, request_id, 0, |out| {
        reply.encode_into(out)
    });
    Ok(())
}

async fn end(
    core: &Core,
    connection: &Connection,
    imports: &mut Imports,
    job: &Job,
) -> Result<(), Refused> {
    let asked = match ImportEnd::decode(&job.body) {
        Ok(asked) => asked,
        Err(error) => {
            connection.fault(job.request_id, FaultCode::Malformed, &error.to_string());
            return Ok(());
        }
    };
    let intake = take(imports, asked.import)?;
    let engine = core.engine.clone();
    let mut report = cold(core, move || intake.finish(&engine)).await?;
    let rejections: Vec<RejectedLine> = std::mem::take(&mut report.rejections);
    let bodies = pages(rejections, REJECTIONS_PER_FRAME, |rejections| {
        ImportEndReply {
            rejections,
            ..report.clone()
        }
    });
    write_pages(connection, job.request_id, (Kind::ImportEndReply, bodies));
    Ok(())
}
