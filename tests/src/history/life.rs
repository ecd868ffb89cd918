//! One life of a server: it starts, what was not answered is asked again, everything is checked while it rests, the history
//! goes on, and it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use croupier_client::{CardSelection, Client, Error};

use super::End;
use super::caller::{Caller, Deed, Floor};
use super::course::SHORT_TTL_MAX;
use super::operator::{Operator, SKUS, list};
use super::watch::joined;
use crate::{Dice, Server, Store};

/// Answers that are asked again after a start, and when all is done.
const SAMPLE: usize = 10_000;
const SAMPLE_LAST: usize = 100_000;
/// Asks of one call of a sample.
const CHUNK: usize = 500;
/// Holds that are over may still be written down.
const LAPSE: Duration = Duration::from_millis(500);
/// Between two looks at how far the history is.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a server goes on after the order at which it is to end.
const JITTER_MS: u64 = 25;

/// Everybody who talks to servers.
#[derive(Debug)]
pub struct People {
    /// Who asks for cards.
    pub callers: Vec<Caller>,
    /// Who brings them.
    pub operator: Operator,
    /// What they share.
    pub floor: Arc<Floor>,
}

/// A served store, and connections to it.
pub struct Life {
    server: Option<Server>,
    clients: Vec<Client>,
    admin: Client,
    /// How long the start took.
    pub started_in: Duration,
}

impl Life {
    /// Starts a server and connects everybody to it.
    pub async fn begin(store: &Store, callers: usize) -> Self {
        let begun = Instant::now();
        let server = store.serve();
        let started_in = begun.elapsed();
        let mut clients = Vec::new();
        for _ in 0..callers {
            clients.push(server.client_without_retries().await);
        }
        Self {
            admin: server.client_without_retries().await,
            server: Some(server),
            clients,
            started_in,
        }
    }

    /// The connection of who is no caller.
    pub fn admin(&self) -> &Client {
        &self.admin
    }

    /// Everybody asks again what was not answered; then all is checked that can be of a server that rests.
    pub async fn settle(&self, people: &mut People, dice: &mut Dice) {
        self.call(people, Deed::Settle).await;
        let settled = people.operator.settle(&self.admin).await;
        heard(people, settled);
        self.check(people, dice, SAMPLE).await;
        let again = people.operator.import_again(&self.admin).await;
        heard(people, again);
    }

    /// The history goes on until so many orders were begun, and then the server ends: what it has logged. The last one goes
    /// on until all is done, and lives.
    pub async fn go_on(
        &mut self,
        people: &mut People,
        begun: u64,
        end: End,
        dice: &mut Dice,
        tell: &dyn Fn(u64),
    ) -> String {
        let jitter = Duration::from_millis(dice.within(0..JITTER_MS));
        let (floor, over) = (Arc::clone(&people.floor), AtomicBool::new(false));
        let all_done = AtomicBool::new(false);
        let server = match end {
            End::Last => None,
            End::Kill | End::Stop => self.server.take(),
        };
        let ending = async {
            loop {
                let now = floor.begun.load(Ordering::Relaxed).min(floor.orders);
                tell(now);
                let done = all_done.load(Ordering::Relaxed);
                if done || (end != End::Last && now >= begun) {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let log = match server {
                Some(server) => {
                    tokio::time::sleep(jitter).await;
                    joined(tokio::task::spawn_blocking(move || end_of(server, end))).await
                }
                None => String::new(),
            };
            over.store(true, Ordering::Relaxed);
            log
        };
        let People {
            callers, operator, ..
        } = people;
        let calls = async {
            *callers = call_all(std::mem::take(callers), &self.clients, Deed::GoOn).await;
            all_done.store(true, Ordering::Relaxed);
        };
        let ((), (), log) = tokio::join!(calls, operator.work(&self.admin, &over), ending);
        log
    }

    /// After the last order: stock comes once more for some of those who wait, short waits and short holds end, and then
    /// everything is checked of every order and of every card.
    pub async fn finish(&self, people: &mut People, dice: &mut Dice) {
        let restocked = people.operator.last(&self.admin).await;
        heard(people, restocked);
        // Who has waited as long as that may hold cards as long again.
        tokio::time::sleep(2 * SHORT_TTL_MAX + LAPSE).await;
        let Floor { oracle, watch, .. } = &*people.floor;
        watch.check_async(oracle.look_up_all(&self.admin)).await;
        self.check(people, dice, SAMPLE_LAST).await;
        for (sku, _) in SKUS {
            let cards = list(&self.admin, &CardSelection::Sku(sku.to_owned())).await;
            if let Ok(rows) = &cards {
                watch.check(|| oracle.check_cards(rows));
            }
            heard(people, cards);
        }
    }

    /// Ends in good order: what it has logged.
    pub async fn stop(mut self) -> String {
        let server = self.server.take().expect("it lives");
        joined(tokio::task::spawn_blocking(move || {
            end_of(server, End::Stop)
        }))
        .await
    }

    async fn call(&self, people: &mut People, deed: Deed) {
        let callers = std::mem::take(&mut people.callers);
        people.callers = call_all(callers, &self.clients, deed).await;
    }

    /// What is in doubt is looked up; the stock must add up; answers that were given before must be given again.
    async fn check(&self, people: &People, dice: &mut Dice, sample: usize) {
        let Floor { oracle, watch, .. } = &*people.floor;
        let checked = async {
            let in_doubt = oracle.unsettled();
            oracle.look_up(&self.admin, &in_doubt).await;
            oracle.check_lines(&self.admin).await;
            oracle.check_stock(&self.admin).await;
        };
        watch.check_async(checked).await;
        let steps = oracle.sample(sample, dice);
        {
            let mut seen = watch.seen();
            seen.checks[0] += 1;
            seen.checks[2] += steps.len() as u64;
        }
        for chunk in steps.chunks(CHUNK) {
            let asks: Vec<_> = chunk.iter().map(|&step| oracle.ask_step(step)).collect();
            let ids: Vec<_> = chunk.iter().map(|step| step.order.order_id).collect();
            match self.admin.steps(chunk).await {
                Ok(outcomes) => {
                    for (ask, outcome) in asks.iter().zip(&outcomes) {
                        watch.check(|| oracle.book(ask, outcome));
                    }
                }
                Err(error) => {
                    asks.iter().for_each(|ask| oracle.lost(ask));
                    watch.found(format!("a sample was not answered: {error}"));
                }
            }
            watch.check_async(oracle.look_up(&self.admin, &ids)).await;
        }
    }
}

/// All callers at once.
async fn call_all(callers: Vec<Caller>, clients: &[Client], deed: Deed) -> Vec<Caller> {
    let mut calling = Vec::new();
    for (mut caller, client) in callers.into_iter().zip(clients) {
        let client = client.clone();
        calling.push(tokio::spawn(async move {
            caller.call(&client, deed).await;
            caller
        }));
    }
    let mut callers = Vec::new();
    for caller in calling {
        callers.push(joined(caller).await);
    }
    callers
}

/// A server that rests answers.
fn heard<T>(people: &People, answered: Result<T, Error>) {
    if let Err(error) = answered {
        people.floor.watch.found(format!("not answered: {error}"));
    }
}

fn end_of(server: Server, end: End) -> String {
    match end {
        End::Kill => server.kill(),
        End::Stop | End::Last => server.stop().ok().stderr,
    }
}
