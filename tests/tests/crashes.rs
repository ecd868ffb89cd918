//! Load, `kill -9`, restart, again and again: nothing that was acknowledged is lost, nothing is dealt twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use croupier_client::{Order, OrderId, Priority, SkuId};
use croupier_tests::{Dice, Mint, Oracle, Server, Store, eventually, scaled};

const SKUS: [&str; 4] = ["steam-50", "gift-100", "卡密-20", "rare"];
/// Bytes of the secrets of each SKU: several size classes.
const SECRET_BYTES: [usize; 4] = [18, 40, 90, 300];
const LOADERS: usize = 6;
/// Orders that other connections may ask for at the same time.
const SHARED_MAX: usize = 64;

/// What the tasks of a round share.
struct Round {
    oracle: Arc<Oracle>,
    skus: Vec<SkuId>,
    over: AtomicBool,
    /// The newest orders: somebody else asks for them too.
    shared: Mutex<Vec<Order>>,
    mint: Mutex<Mint>,
}

impl Round {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// New orders, orders that somebody else is just asking for, and orders that were answered long ago.
    fn orders(&self, dice: &mut Dice, old: &[Order]) -> Vec<Order> {
        let mut shared = self.shared.lock().expect("no loader panics with it");
        let orders = (0..dice.within(1..24)).map(|_| match dice.within(0..8) {
            0 if !old.is_empty() => *dice.one_of(old),
            1 | 2 if !shared.is_empty() => *dice.one_of(&shared),
            _ => {
                let quantity = if dice.once_in(4) {
                    dice.within(1..21)
                } else {
                    1
                };
                let priority = *dice.one_of(&Priority::ALL);
                let sku = *dice.one_of(&self.skus);
                let order = Order::new(OrderId::new_v7(), sku)
                    .quantity(quantity as u16)
                    .priority(priority);
                if shared.len() == SHARED_MAX {
                    shared.remove(0);
                }
                shared.push(order);
                order
            }
        });
        orders.collect()
    }
}

async fn load(round: Arc<Round>, server: ClientOf, mut dice: Dice, old: Arc<Vec<Order>>) {
    while !round.is_over() {
        let orders = round.orders(&mut dice, &old);
        if round.oracle.issue(&server.client, &orders).await.is_none() {
            return;
        }
    }
}

async fn import(round: Arc<Round>, server: ClientOf, mut dice: Dice) {
    while !round.is_over() {
        let sku = dice.within(0..SKUS.len() as u64) as usize;
        let count = dice.within(100..2000) as usize;
        let secrets = round
            .mint
            .lock()
            .expect("no importer panics with it")
            .secrets(count, SECRET_BYTES[sku]);
        if round
            .oracle
            .try_import(&server.client, SKUS[sku], &secrets)
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn watch(round: Arc<Round>, server: ClientOf) {
    while !round.is_over() {
        let Ok(rows) = server.client.stock(None).await else {
            return;
        };
        for row in rows {
            assert_eq!(
                row.free + row.held + row.issued + row.void,
                row.imported,
                "{row:?}"
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct ClientOf {
    client: croupier_client::Client,
}

async fn client_of(server: &Server) -> ClientOf {
    ClientOf {
        client: server.client_without_retries().await,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Stop,
}

/// A round of load that ends in a kill or a stop, both in the middle of it.
async fn round(
    server: Server,
    oracle: &Arc<Oracle>,
    skus: &[SkuId],
    mint: Mint,
    dice: &mut Dice,
    end: End,
) -> Mint {
    let round = Arc::new(Round {
        oracle: oracle.clone(),
        skus: skus.to_vec(),
        over: AtomicBool::new(false),
        shared: Mutex::default(),
        mint: Mutex::new(mint),
    });
    let old = Arc::new(oracle.acknowledged());
    let mut tasks = Vec::new();
    for _ in 0..LOADERS {
        let loader = load(
            round.clone(),
            client_of(&server).await,
            dice.fork(),
            old.clone(),
        );
        tasks.push(tokio::spawn(loader));
    }
    tasks.push(tokio::spawn(import(
        round.clone(),
        client_of(&server).await,
        dice.fork(),
    )));
    tasks.push(tokio::spawn(watch(round.clone(), client_of(&server).await)));
    tokio::time::sleep(Duration::from_millis(dice.within(100..700))).await;
    let ended = tokio::task::spawn_blocking(move || match end {
        End::Kill => server.kill(),
        End::Stop => server.stop().ok().stderr,
    });
    let log = ended.await.expect("the server ends");
    round.over.store(true, Ordering::Relaxed);
    for task in tasks {
        if let Err(broken) = task.await {
            eprintln!("--- stderr of the server\n{log}");
            std::panic::resume_unwind(broken.into_panic());
        }
    }
    let round = Arc::into_inner(round).expect("every task has ended");
    round.mint.into_inner().expect("no importer panicked")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_load_and_kill_lose_nothing_and_deal_nothing_twice() {
    let mut dice = Dice::rolled("crash rounds");
    let (oracle, mut store) = (Arc::new(Oracle::new()), Store::new());
    let mut mint = Mint::new(3);
    let mut skus = Vec::new();
    {
        let server = store.serve();
        let client = server.client().await;
        for (sku, bytes) in SKUS.iter().zip(SECRET_BYTES) {
            let cards = if *sku == "rare" { 50 } else { 2000 };
            let id = oracle
                .import(&client, sku, &mint.secrets(cards, bytes))
                .await;
            skus.push(id.expect("an import that nobody disturbs"));
        }
    }
    for number in 0..scaled(10, 100) {
        store.set("--cores", Some(dice.within(1..4).to_string()));
        let server = store.serve();
        let client = server.client().await;
        oracle.check_all(&client).await;
        if number % 4 == 3 {
            oracle.ask_all_again(&client).await;
        }
        let end = if number % 5 == 4 {
            End::Stop
        } else {
            End::Kill
        };
        mint = round(server, &oracle, &skus, mint, &mut dice, end).await;
        eprintln!("round {number}: {} cards dealt", oracle.cards_dealt());
    }

    // As the last crash left it, with what was in doubt.
    let crashed = Oracle::verify(&store);
    let server = store.serve();
    let client = server.client().await;
    oracle.check_all(&client).await;
    oracle.ask_all_again(&client).await;
    oracle.check_all(&client).await;
    server.stop().ok();
    let stopped = oracle.check_disk(&store);
    assert!(stopped.orders >= crashed.orders);
    assert_eq!(stopped.records, 0, "a clean stop folds all of the log");

    let folded = store.files("checkpoints", ".ckpt").len() == 1 && store.path("CURRENT").exists();
    let rolled = store
        .files("wal", ".seg")
        .first()
        .is_some_and(|first| !first.ends_with("wal-0000000000000001.seg"));
    assert!(
        folded && rolled,
        "the rounds were to roll segments and make checkpoints"
    );
    eventually("nothing temporary is left", || {
        store.files("slabs", ".partial").is_empty().then_some(())
    });
}
