//! Requests of the feed: read on a cold thread, waited for without one, beside whatever else their connection asks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use croupier_protocol::{
    FEED_WAIT_MS_MAX, FRAME_HEADER_BYTES, Feed, FeedReply, Kind, Refusal, decode_control,
    encode_control,
};
use tokio::time::{Instant, sleep};

use super::connection::{Connection, Job};
use super::control::cold;
use super::core::Core;
use crate::engine::{Engine, Refused};
use crate::feed::{self, Filter, Place, Room};

/// Requests of one connection that are answered at a time.
const FEEDS_MAX: usize = 16;
/// How often a request that waits looks whether there is anything new.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The feeds of a connection.
#[derive(Default)]
pub struct Feeds {
    running: Cell<usize>,
    /// Where the last pages ended, the newest last: there may be several readers behind one connection.
    places: RefCell<Vec<Place>>,
}

impl Feeds {
    /// The place where a page ended that told to go on from there. Kept, for somebody else may go on from there, too.
    fn place_of(&self, next: u64) -> Option<Place> {
        let places = self.places.borrow();
        places.iter().find(|place| place.next == next).copied()
    }

    fn keep(&self, place: Place) {
        let mut places = self.places.borrow_mut();
        places.retain(|kept| kept.next != place.next);
        if places.len() == FEEDS_MAX {
            places.remove(0);
        }
        places.push(place);
    }
}

/// Answers a request as soon as there is something to tell.
pub fn start(core: &Rc<Core>, connection: &Rc<Connection>, job: Job) {
    let running = &connection.feeds.running;
    if running.get() == FEEDS_MAX {
        let text = format!("at most {FEEDS_MAX} requests of the feed a connection at a time");
        return connection.refuse(job.request_id, Refusal::Busy, &text);
    }
    running.set(running.get() + 1);
    let (core, connection) = (core.clone(), connection.clone());
    tokio::task::spawn_local(async move {
        let answer = answer(&core, &connection, &job).await;
        let running = &connection.feeds.running;
        running.set(running.get() - 1);
        if connection.is_gone() {
            return;
        }
        match answer {
            Ok(reply) => connection.put_frame(Kind::FeedReply, job.request_id, 0, |out| {
                encode_control(&reply, out);
            }),
            Err(refused) => connection.refuse(job.request_id, refused.refusal, &refused.text),
        }
        connection.flush();
    });
}

async fn answer(core: &Core, connection: &Connection, job: &Job) -> Result<FeedReply, Refused> {
    let asked: Feed =
        decode_control(&job.body).map_err(|error| Refused::because(Refusal::Malformed, error))?;
    let engine = &core.engine;
    let until = Instant::now() + Duration::from_millis(asked.wait_ms.min(FEED_WAIT_MS_MAX).into());
    let body_bytes = engine.config.frame_bytes_max as usize - FRAME_HEADER_BYTES;
    let room = Room::of(asked.facts_max, body_bytes);
    let filter = Arc::new(Filter::of(&asked));
    let (mut from, mut place) = (asked.from, connection.feeds.place_of(asked.from));
    loop {
        let (page, end) = {
            let (engine, filter) = (engine.clone(), filter.clone());
            cold(core, move || {
                feed::read(&engine, from, place, &filter, room)
            })
            .await?
        };
        // What a filter leaves out may be much: with time to wait the next piece is read at once.
        (from, place) = (page.next, end);
        if !page.facts.is_empty() || Instant::now() >= until || connection.is_gone() {
            if let Some(place) = place {
                connection.feeds.keep(place);
            }
            return Ok(page);
        }
        while engine.log.durable() <= from && Instant::now() < until && !connection.is_gone() {
            refuse_when_ending(engine)?;
            sleep(LOOK_EVERY).await;
        }
    }
}

/// There will be nothing new: whoever waits for it is told so.
fn refuse_when_ending(engine: &Engine) -> Result<(), Refused> {
    if engine.log.failure().is_some() {
        return Err(Refused::plain(Refusal::StoreFailed));
    }
    if engine.draining.load(Ordering::Relaxed) {
        return Err(Refused::plain(Refusal::ShuttingDown));
    }
    Ok(())
}
