//! PostgreSQL as a shop would use it: a table of cards, a table of orders with a unique order id, one short function
//! that deals in one transaction. `FOR UPDATE` is what such shops run on; `SKIP LOCKED` is what they are advised to.

mod cluster;
mod load;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::runtime::LocalRuntime;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

pub use cluster::Programs;

use self::cluster::Cluster;
use super::judge::Judge;
use crate::contest::{Contender, Round, RoundLength, Shape, nothing_measured, settle};
use crate::error::BenchError;
use crate::progress::Progress;
use crate::recorder::Operation;
use crate::report::Latency;
use crate::stock::SECRET_BYTES_MAX;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Cards in one INSERT.
const CARDS_PER_INSERT: u64 = 20_000;

/// How a free card is found and locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// The next free card; whoever comes later waits for it, finds it taken, and looks again.
    ForUpdate,
    /// The next free card that nobody else is dealing with.
    SkipLocked,
}

impl Locking {
    fn clause(self) -> &'static str {
        match self {
            Self::ForUpdate => "FOR UPDATE",
            Self::SkipLocked => "FOR UPDATE SKIP LOCKED",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ForUpdate => "pg-for-update",
            Self::SkipLocked => "pg-skip",
        }
    }

    fn function(self) -> &'static str {
        match self {
            Self::ForUpdate => "issue_for_update",
            Self::SkipLocked => "issue_skip_locked",
        }
    }

    /// The same order id returns the same card; a new one takes the first free card. Two at once under one id: the
    /// unique key refuses the second one, whose transaction takes nothing.
    fn create_function(self) -> String {
        format!(
            "CREATE FUNCTION {}(wanted uuid) RETURNS text LANGUAGE plpgsql AS $$
             DECLARE
               dealt bigint;
               delivered text;
             BEGIN
               SELECT card.secret INTO delivered FROM orders JOIN card ON card.id = orders.card_id
                 WHERE orders.order_id = wanted;
               IF FOUND THEN RETURN delivered; END IF;
               LOOP
                 SELECT id, secret INTO dealt, delivered FROM card WHERE free ORDER BY id LIMIT 1 {};
                 EXIT WHEN FOUND;
                 PERFORM 1 FROM card WHERE free LIMIT 1;
                 IF NOT FOUND THEN RAISE EXCEPTION 'out of stock'; END IF;
               END LOOP;
               UPDATE card SET free = false WHERE id = dealt;
               INSERT INTO orders (order_id, card_id) VALUES (wanted, dealt);
               RETURN delivered;
             END $$;",
            self.function(),
            self.clause()
        )
    }
}

const CREATE_TABLES: &str = "
    CREATE TABLE card (id bigint PRIMARY KEY, secret text NOT NULL, free boolean NOT NULL DEFAULT true);
    CREATE INDEX card_free ON card (id) WHERE free;
    CREATE TABLE orders (order_id uuid PRIMARY KEY, card_id bigint NOT NULL UNIQUE);";

/// One server, and the stock that both ways of locking deal from.
#[derive(Debug)]
pub struct Store {
    runtime: LocalRuntime,
    cluster: Cluster,
    client: Client,
    judge: Judge,
    cards: u64,
    version: String,
}

/// PostgreSQL with one way of locking.
#[derive(Debug)]
pub struct Postgres {
    store: Rc<RefCell<Store>>,
    locking: Locking,
    orders_max: u64,
}

fn failed(error: &tokio_postgres::Error) -> BenchError {
    let detail = match error.as_db_error() {
        Some(server) => server.to_string(),
        None => error.to_string(),
    };
    BenchError::Peer {
        peer: "postgresql".into(),
        detail,
    }
}

impl Store {
    /// Starts a server below `directory`; each round begins with `cards` in stock.
    pub fn start(
        programs: &Programs,
        directory: &Path,
        connections: u32,
        secret_bytes: usize,
        cards: u64,
    ) -> Result<Self, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default())
            .map_err(BenchError::io("make a runtime"))?;
        let mut cluster = Cluster::start(programs, directory, connections)?;
        let client = runtime.block_on(await_client(&mut cluster))?;
        runtime
            .block_on(async {
                client.batch_execute(CREATE_TABLES).await?;
                client
                    .batch_execute(&Locking::ForUpdate.create_function())
                    .await?;
                client
                    .batch_execute(&Locking::SkipLocked.create_function())
                    .await
            })
            .map_err(|error| failed(&error))?;
        let judge = Judge::new("postgresql", secret_bytes);
        Ok(Self {
            runtime,
            cluster,
            client,
            judge,
            cards,
            version: programs.version(),
        })
    }

    fn top_up(&mut self) -> Result<u64, BenchError> {
        let Self {
            runtime,
            client,
            judge,
            cards,
            ..
        } = self;
        runtime
            .block_on(async {
                let row = client.query_one("SELECT count(*) FROM card WHERE free", &[]).await?;
                let stock = row.get::<_, i64>(0) as u64;
                let mut missing = cards.saturating_sub(stock);
                let mut progress = Progress::new(format!("postgresql: import of {missing} cards"));
                let mut room = [0; SECRET_BYTES_MAX];
                while missing > 0 {
                    progress.say(|| format!("{missing} to go"));
                    let count = missing.min(CARDS_PER_INSERT);
                    let (mut ids, mut secrets) = (Vec::new(), Vec::new());
                    for _ in 0..count {
                        let (number, secret) = judge.next_card(&mut room);
                        ids.push(i64::from(number));
                        secrets.push(String::from_utf8_lossy(secret).into_owned());
                    }
                    let insert = "INSERT INTO card (id, secret) SELECT * FROM unnest($1::bigint[], $2::text[])";
                    client.execute(insert, &[&ids, &secrets]).await?;
                    missing -= count;
                }
                // Dead rows and unsettled pages of the round before are not this round's burden.
                for statement in ["VACUUM ANALYZE card", "VACUUM ANALYZE orders", "CHECKPOINT"] {
                    client.batch_execute(statement).await?;
                }
                Ok(stock.max(*cards))
            })
            .map_err(|error: tokio_postgres::Error| failed(&error))
    }

    fn round(
        &mut self,
        locking: Locking,
        orders_max: u64,
        shape: Shape,
        length: RoundLength,
    ) -> Result<Round, BenchError> {
        let stock = self.top_up()?;
        settle();
        let _progress = Progress::new(format!("{}, {shape}", locking.name()));
        let port = self.cluster.port();
        let ended = load::run(
            &self.runtime,
            &mut self.judge,
            load::Plan {
                port,
                function: locking.function(),
                shape,
                length,
                stock,
                orders_max,
            },
        );
        // Transactions that nobody waits for any more are not left to the next contender.
        let hang_up = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let hung_up = self.runtime.block_on(self.client.batch_execute(hang_up));
        let mut recorder = ended?;
        hung_up.map_err(|error| failed(&error))?;
        let measured_s = recorder.measured_s();
        let stock_used_up = recorder.ended_in_warmup();
        let issue = recorder.operation(Operation::Issue);
        if issue.orders == 0 || stock_used_up {
            return Err(nothing_measured(locking.name(), stock_used_up));
        }
        Ok(Round {
            orders: issue.orders,
            measured_s,
            per_s: issue.orders as f64 / measured_s,
            latency: Latency::of(&issue.latency),
            server_cores: None,
        })
    }

    fn ask_samples_again(&mut self, locking: Locking) -> Result<(), BenchError> {
        let Self {
            runtime,
            client,
            judge,
            ..
        } = self;
        let samples = judge.take_samples();
        let ask = format!("SELECT {}($1)", locking.function());
        for (id, secret) in samples {
            let row = runtime
                .block_on(client.query_one(&ask, &[&Uuid::from_u128(id.as_u128())]))
                .map_err(|error| failed(&error))?;
            if row.get::<_, &str>(0).as_bytes() != secret {
                return Err(judge.wrong("another card when it was asked again"));
            }
        }
        Ok(())
    }
}

impl Postgres {
    /// One way of locking on a server that both may share; a round ends after `orders_max` orders at the latest.
    pub fn new(store: Rc<RefCell<Store>>, locking: Locking, orders_max: u64) -> Self {
        Self {
            store,
            locking,
            orders_max,
        }
    }

    /// Version and locking, for the header.
    pub fn description(&self) -> String {
        let version = &self.store.borrow().version;
        let (name, clause) = (self.locking.name(), self.locking.clause());
        format!(
            "{name}: {version}, {clause}, synchronous_commit on, at most {} orders a round",
            self.orders_max
        )
    }
}

impl Contender for Postgres {
    fn name(&self) -> &str {
        self.locking.name()
    }

    fn round(&mut self, shape: Shape, length: RoundLength) -> Result<Round, BenchError> {
        self.store
            .borrow_mut()
            .round(self.locking, self.orders_max, shape, length)
    }

    fn finish(&mut self) -> Result<(), BenchError> {
        self.store.borrow_mut().ask_samples_again(self.locking)
    }
}

/// A connection, driven on the runtime that this is called on.
async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user("bench")
        .dbname("postgres")
        .connect_timeout(Duration::from_secs(10));
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        // Whoever uses the client hears of a lost connection there.
        let _ = connection.await;
    });
    Ok(client)
}

async fn await_client(cluster: &mut Cluster) -> Result<Client, BenchError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match connect(cluster.port()).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= deadline || cluster.has_ended() => {
                let detail = format!("{error}; {}", cluster.last_words());
                return Err(BenchError::NotStarted {
                    program: "postgres".into(),
                    detail,
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
