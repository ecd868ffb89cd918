//! The stores that scenes begin with: made once with the real binary, then copied for every run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use croupier_client::{Client, Order, OrderId, SkuId};

use super::DATA_DIR;
use super::scene::{STAGES, Stage};
use crate::store::copy_tree;
use crate::{Mint, Oracle, Server, Store, croupier, eventually};

/// The smallest there are: they fill soon.
pub const SEGMENT_BYTES: u64 = 1 << 20;
const RING_BYTES: u64 = 128 << 10;
const PAGE_BYTES: u64 = 4096;
/// Cards of the SKU that every stage has: more than two segments of orders.
const CARDS: usize = 900;
/// Bytes of a secret.
pub const SECRET_BYTES: usize = 24;
/// Orders that a log on the brink has room for, after the record of the next start.
const BRINK_ORDERS: u64 = 2;

/// A store to begin with, and what is known of it.
#[derive(Debug)]
pub struct Staged {
    /// Its directory, to be copied.
    pub dir: PathBuf,
    /// Its books.
    pub oracle: Oracle,
    /// The SKU of its cards.
    pub sku: SkuId,
    /// Its first order.
    pub first: Order,
}

/// The store in a directory, with the flags of all scenes.
pub fn store_in(root: &Path) -> Store {
    Store::at(root.join(DATA_DIR))
        .with("--cores", 1)
        .with("--ring-bytes", RING_BYTES)
        .with("--checkpoint-segments", 1000)
}

/// Makes every stage below `root`.
///
/// # Panics
/// If that fails: without a fault everything must work.
pub async fn make_all(root: &Path) -> BTreeMap<Stage, Staged> {
    let mut made: BTreeMap<Stage, Staged> = BTreeMap::new();
    for stage in STAGES {
        let home = root.join(format!("{stage:?}"));
        let staged = match stage {
            Stage::Plain => plain(&home).await,
            Stage::Brink => brink(begin(&made[&Stage::Plain], &home)).await,
            Stage::FoldedBrink => folded_brink(begin(&made[&Stage::Brink], &home)).await,
            Stage::Rolled => rolled(begin(&made[&Stage::FoldedBrink], &home)).await,
            Stage::Torn => torn(begin(&made[&Stage::FoldedBrink], &home)).await,
            Stage::FewSpares => few_spares(begin(&made[&Stage::Plain], &home)),
        };
        made.insert(stage, staged);
    }
    made
}

impl Staged {
    /// A copy of the store below `root`, and of its books.
    pub fn copy_to(&self, root: &Path) -> (Store, Oracle) {
        let store = store_in(root);
        if store.dir().exists() {
            fs::remove_dir_all(store.dir()).expect("a directory can be removed");
        }
        copy_tree(&self.dir, store.dir());
        (store, self.oracle.fork())
    }
}

/// A stage in the making.
struct Making {
    store: Store,
    oracle: Oracle,
    sku: SkuId,
    first: Order,
}

impl Making {
    fn done(self) -> Staged {
        let Self {
            store,
            oracle,
            sku,
            first,
        } = self;
        Staged {
            dir: store.dir().to_owned(),
            oracle,
            sku,
            first,
        }
    }

    async fn order(&self, client: &Client) {
        self.oracle
            .deal(client, Order::new(OrderId::new_v7(), self.sku))
            .await;
    }
}

fn begin(from: &Staged, home: &Path) -> Making {
    let (store, oracle) = from.copy_to(home);
    Making {
        store,
        oracle,
        sku: from.sku,
        first: from.first,
    }
}

async fn plain(home: &Path) -> Staged {
    let (store, oracle) = (store_in(home), Oracle::new());
    fs::create_dir_all(home).expect("a directory can be made");
    croupier(store.init_args(SEGMENT_BYTES)).ok();
    let server = store.serve();
    let client = server.client().await;
    let secrets = Mint::new(60).secrets(CARDS, SECRET_BYTES);
    let sku = oracle
        .import(&client, "cards", &secrets)
        .await
        .expect("nobody disturbs");
    let first = Order::new(OrderId::new_v7(), sku);
    oracle.deal(&client, first).await;
    let making = Making {
        store,
        oracle,
        sku,
        first,
    };
    for _ in 0..3 {
        making.order(&client).await;
    }
    with_spares(&making.store, server);
    making.done()
}

/// Waits for the spare segments, so that making them is no part of any scene that begins here; then ends by a kill.
fn with_spares(store: &Store, server: Server) {
    let in_use = segment_in_use(store);
    eventually("two spare segments", || {
        let segments = store.files("wal", ".seg");
        let at = segments.iter().position(|path| *path == in_use)?;
        (segments.len() >= at + 3).then_some(())
    });
    // The last one's directory is still to be synced.
    std::thread::sleep(Duration::from_millis(50));
    server.kill();
}

async fn brink(making: Making) -> Staged {
    let server = making.store.serve();
    let client = server.client().await;
    fill(&making, &client).await;
    with_spares(&making.store, server);
    making.done()
}

/// Orders until the next segment is near: each is a page, so are the start that follows and the end mark of a segment.
async fn fill(making: &Making, client: &Client) {
    let pages = SEGMENT_BYTES / PAGE_BYTES;
    let brink = pages - 1 - 1 - BRINK_ORDERS;
    while last_block(&segment_in_use(&making.store)).expect("blocks") + 1 < brink {
        making.order(client).await;
    }
}

async fn folded_brink(mut making: Making) -> Staged {
    making
        .store
        .set("--checkpoint-segments", Some("1".to_owned()));
    let server = making.store.serve();
    let client = server.client().await;
    for _ in 0..2 * BRINK_ORDERS {
        making.order(&client).await;
    }
    server.log_with("checkpoint made");
    fill(&making, &client).await;
    with_spares(&making.store, server);
    making.done()
}

async fn rolled(making: Making) -> Staged {
    let server = making.store.serve();
    let client = server.client().await;
    for _ in 0..2 * BRINK_ORDERS {
        making.order(&client).await;
    }
    with_spares(&making.store, server);
    making.done()
}

/// The newest block loses its second sector, as if a power cut had; files of every kind lie about unfinished.
async fn torn(making: Making) -> Staged {
    let server = making.store.serve();
    let client = server.client().await;
    // Nobody has heard of these, so they are not booked: their block is about to be lost.
    let unheard: Vec<_> = (0..10)
        .map(|_| Order::new(OrderId::new_v7(), making.sku))
        .collect();
    client.issue_many(&unheard).await.expect("nobody disturbs");
    with_spares(&making.store, server);
    let segment = segment_in_use(&making.store);
    let block = last_block(&segment).expect("blocks") * PAGE_BYTES;
    let file = fs::File::options()
        .write(true)
        .open(&segment)
        .expect("a segment");
    file.write_all_at(&[0; 512], block + 512)
        .expect("it can be written");
    let unfinished = [
        "draft-0.tmp",
        "orders/draft-1.tmp",
        "checkpoints/draft-2.tmp",
        "wal/wal-00000000000000ff.seg.tmp",
        "slabs/slab-000000f0.slab.partial",
        "slabs/slab-000000f1.slab",
    ];
    for name in unfinished {
        fs::write(making.store.path(name), b"cut short").expect("a file can be written");
    }
    making.done()
}

fn few_spares(making: Making) -> Staged {
    let segments = making.store.files("wal", ".seg");
    fs::remove_file(segments.last().expect("segments")).expect("a file can be removed");
    making.done()
}

/// The newest segment that has a block.
fn segment_in_use(store: &Store) -> PathBuf {
    let segments = store.files("wal", ".seg");
    let used = segments
        .into_iter()
        .rev()
        .find(|path| last_block(path).is_some());
    used.expect("a store that was served has a block")
}

/// Page of the last block of a segment: what docs/wal-format.md tells is enough to find it.
fn last_block(segment: &Path) -> Option<u64> {
    let bytes = fs::read(segment).expect("a segment can be read");
    let pages = bytes.chunks(PAGE_BYTES as usize);
    pages
        .enumerate()
        .filter(|(_, page)| page.starts_with(b"CRPRBLK1"))
        .map(|(at, _)| at as u64)
        .next_back()
}
