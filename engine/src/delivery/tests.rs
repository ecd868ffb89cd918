//! Deliveries into a real store, beside imports and beside each other; and into one whose disk fails.

use std::path::Path;
use std::thread;

use croupier_protocol::{ImportBegin, MaxUses};
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::engine::fixture;
use crate::error::EngineError;
use crate::intake::Intake;
use crate::recovery;
use crate::state::StockCounts;
use crate::store::{self, BitsOnly};

const SKU: &str = "steam-50";

struct Shop {
    dir: TempDir,
    engine: Arc<Engine>,
}

fn start(dir: &Path) -> Result<Arc<Engine>, EngineError> {
    let config = Config {
        ring_bytes: 1 << 20,
        ..Config::new(dir)
    };
    Engine::open(config, 1, Vec::new()).map(|(engine, _)| Arc::new(engine))
}

impl Shop {
    fn open() -> Shop {
        let dir = tempfile::tempdir().unwrap();
        store::init(dir.path(), None, 4 << 20).unwrap();
        let engine = start(dir.path()).unwrap();
        engine.sku_create(SKU).unwrap();
        Shop { dir, engine }
    }

    fn again(self) -> Shop {
        let Shop { dir, engine } = self;
        let digest = engine.digest();
        drop(engine);
        let verified = recovery::verify(dir.path(), None).unwrap();
        assert_eq!(verified.digest, digest);
        let engine = start(dir.path()).unwrap();
        assert_eq!(engine.digest(), digest);
        Shop { dir, engine }
    }

    fn deliver(&self, secrets: &[String]) -> Delivered {
        deliver(&self.engine, secrets).unwrap()
    }

    fn begin_import(&self) -> Intake {
        let asked = ImportBegin {
            sku: SKU.into(),
            create_sku: false,
            batch: None,
            pool: None,
            max_uses: MaxUses::default(),
        };
        Intake::begin(&self.engine, &asked).unwrap()
    }

    fn import(&self, secrets: &[String]) -> (u64, u64) {
        let mut intake = self.begin_import();
        push(&mut intake, secrets);
        let reply = intake.finish(&self.engine).unwrap();
        let rejected = reply.counts.iter().map(|count| count.count);
        (reply.accepted, rejected.sum())
    }

    fn stock(&self) -> StockCounts {
        stock(&self.engine)
    }
}

fn stock(engine: &Engine) -> StockCounts {
    engine.state.catalog.load().sku(1).unwrap().stock()
}

fn push(intake: &mut Intake, secrets: &[String]) {
    for (line, secret) in (1..).zip(secrets) {
        intake
            .push(ImportRow::new(line, secret.as_bytes()))
            .unwrap();
    }
}

fn deliver(engine: &Engine, secrets: &[String]) -> Result<Delivered, Refused> {
    let rows = (1..).zip(secrets);
    let rows: Vec<_> = rows
        .map(|(line, secret)| ImportRow::new(line, secret.as_bytes()))
        .collect();
    engine.deliver(SKU, None, &rows)
}

fn secrets(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("card {number:08}")).collect()
}

const IN_STOCK: RejectReason = RejectReason::DuplicateInStock;

#[test]
fn what_is_delivered_is_stock_once_however_often_it_comes() {
    let shop = Shop::open();
    let first = shop.deliver(&secrets(0..3));
    assert_eq!((first.accepted, first.rejections.len()), (3, 0));
    assert!(first.lsn > 0 && first.lsn < shop.engine.log.durable());
    let again = shop.deliver(&secrets(2..4));
    assert_eq!((again.accepted, again.rejections), (1, vec![(1, IN_STOCK)]));
    let same = [secrets(9..10), secrets(9..10), vec![String::new()]].concat();
    let same = shop.deliver(&same);
    let told = [
        (2, RejectReason::DuplicateInFile),
        (3, RejectReason::EmptySecret),
    ];
    assert_eq!((same.accepted, &same.rejections[..]), (1, &told[..]));
    assert_eq!(shop.deliver(&secrets(0..4)).lsn, 0);
    assert_eq!((shop.stock().free, shop.stock().imported), (5, 5));
    // A label would be lost, and one that has expired would not be sold.
    let row = |label, expires_at_s, secret| ImportRow {
        label,
        expires_at_s,
        ..ImportRow::new(7, secret)
    };
    let rows = [row(b"a", 0, b"x"), row(b"", 9, b"y")];
    let told = shop.engine.deliver(SKU, None, &rows).unwrap();
    let reasons = [RejectReason::LabelTooLong, RejectReason::Expired];
    assert_eq!(told.rejections, reasons.map(|reason| (7, reason)));
    // The next process knows all of that, and writes a slab of its own.
    let shop = shop.again();
    assert_eq!(shop.deliver(&secrets(0..4)).rejections.len(), 4);
    assert_eq!(shop.deliver(&secrets(4..5)).accepted, 1);
    let batches = shop.engine.list_batches(Some(SKU)).unwrap();
    let cards: Vec<u64> = batches.iter().map(|batch| batch.cards).collect();
    assert_eq!(cards, [5, 1]);
    assert_eq!(batches[1].label, "deliveries-2");
}

#[test]
fn slabs_are_filled_to_their_ends_and_followed_by_others() {
    let shop = Shop::open();
    for at in (0..9000).step_by(1000) {
        assert_eq!(shop.deliver(&secrets(at..at + 1000)).accepted, 1000);
    }
    let long: Vec<String> = secrets(0..10).iter().map(|short| short.repeat(9)).collect();
    let mixed = [long, secrets(9000..9001)].concat();
    assert_eq!(shop.deliver(&mixed).accepted, 11);
    let slabs = |shop: &Shop| {
        let catalog = shop.engine.state.catalog.load();
        let slabs = catalog.slabs.iter().flatten();
        let all = slabs.map(|slab| (slab.facts.class_bytes, slab.cards()));
        all.collect::<Vec<_>>()
    };
    assert_eq!(slabs(&shop), [(32, 4096), (32, 4096), (32, 809), (128, 10)]);
    let shop = shop.again();
    assert_eq!(shop.stock().free, 9011);
    shop.engine.fold(true).unwrap();
    let shop = shop.again();
    assert_eq!(shop.deliver(&mixed).accepted, 0);
    let too_many = deliver(&shop.engine, &secrets(0..1025)).unwrap_err();
    assert_eq!(too_many.refusal, Refusal::DeliveryInvalid);
}

#[test]
fn many_deliver_at_once_and_each_card_is_there_once() {
    let shop = Shop::open();
    let accepted: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let engine = &shop.engine;
                scope.spawn(move || {
                    // Each card comes twice, from two of them.
                    let begin = thread / 2 * 100;
                    let cards = begin..begin + 100;
                    let each = cards.map(|card| deliver(engine, &secrets(card..card + 1)).unwrap());
                    each.map(|delivered| delivered.accepted).sum::<u64>()
                })
            })
            .collect();
        let each = threads.into_iter().map(|thread| thread.join().unwrap());
        each.sum()
    });
    assert_eq!(accepted, 400);
    assert_eq!((shop.stock().free, shop.stock().imported), (400, 400));
    assert_eq!(shop.again().stock().free, 400);
}

#[test]
fn imports_and_deliveries_know_each_others_cards() {
    let shop = Shop::open();
    assert_eq!(shop.import(&secrets(0..10)), (10, 0));
    let rejected = shop.deliver(&secrets(5..15)).rejections;
    assert_eq!(
        rejected,
        (1..=5).map(|line| (line, IN_STOCK)).collect::<Vec<_>>()
    );
    assert_eq!(shop.import(&secrets(10..20)), (5, 5));
    let shop = shop.again();
    assert_eq!(shop.import(&secrets(0..30)), (10, 20));
    assert_eq!(shop.deliver(&secrets(0..31)).accepted, 1);
}

#[test]
fn an_import_takes_its_time_and_deliveries_do_not_wait_for_it() {
    let shop = Shop::open();
    // Delivered before the import looks, which is when its rows are written.
    let mut intake = shop.begin_import();
    push(&mut intake, &secrets(0..10));
    assert_eq!(shop.deliver(&secrets(5..12)).accepted, 7);
    let reply = intake.finish(&shop.engine).unwrap();
    assert_eq!((reply.accepted, reply.rejections.len()), (5, 5));
    // Delivered behind that look.
    let dock = shop.engine.import_begins(1, || None).unwrap();
    let facts = fixture::batch_of(77, 1);
    let slab = {
        let catalog = shop.engine.state.catalog.load();
        catalog.slab(2).unwrap().mapped().unwrap().path().to_owned()
    };
    let slab = [Slab::open(&slab, &shop.engine.store.vault, None).unwrap()];
    assert!(!slab[0].grows() && slab[0].cards() == 5);
    shop.deliver(&secrets(20..30));
    // As if the import were bringing what it has brought, and these were delivered just now.
    let print = shop.engine.store.vault.fingerprint(1, b"card 00000003");
    dock.add([print.0].into_iter());
    let digest = shop.engine.digest();
    let refused = shop.engine.seal(&dock, &slab, &facts).unwrap_err();
    assert_eq!(refused.refusal, Refusal::DeliveredMeanwhile);
    assert!(
        refused.text.starts_with("1 of its cards"),
        "{}",
        refused.text
    );
    assert_eq!(shop.engine.digest(), digest);
    shop.engine.import_ends(1);
}

#[test]
fn a_large_import_whose_cards_are_delivered_meanwhile_changes_nothing() {
    let shop = Shop::open();
    let mut intake = shop.begin_import();
    // Enough for a slab to be written before the end.
    let many: Vec<String> = (0..17_000)
        .map(|number| format!("{number:04096}"))
        .collect();
    push(&mut intake, &many);
    let delivered = shop.deliver(&many[..1]);
    assert_eq!(delivered.accepted, 1);
    let refused = intake.finish(&shop.engine).unwrap_err();
    assert_eq!(refused.refusal, Refusal::DeliveredMeanwhile);
    let slabs = std::fs::read_dir(shop.dir.path().join("slabs")).unwrap();
    assert_eq!(slabs.count(), 1);
    assert_eq!(shop.stock().imported, 1);
    assert_eq!(shop.import(&many[..20]), (19, 1));
}

#[test]
fn two_that_make_a_pool_at_the_same_time_do_not_make_it_twice() {
    let shop = Shop::open();
    let asked = ImportBegin {
        sku: SKU.into(),
        create_sku: false,
        batch: None,
        pool: Some("vip".into()),
        max_uses: MaxUses::default(),
    };
    let mut intake = Intake::begin(&shop.engine, &asked).unwrap();
    push(&mut intake, &secrets(0..2));
    let into = |pool| {
        let row = ImportRow::new(1, b"x");
        shop.engine.deliver(SKU, Some(pool), &[row])
    };
    assert_eq!(into("other").unwrap_err().refusal, Refusal::TooManyImports);
    assert_eq!(into("vip").unwrap().accepted, 1);
    assert_eq!(intake.finish(&shop.engine).unwrap().accepted, 2);
    let row = ImportRow::new(1, b"y");
    let other = shop.engine.deliver(SKU, Some("other"), &[row]);
    assert_eq!(other.unwrap().accepted, 1);
    let sku = shop.engine.state.catalog.load().sku(1).unwrap().clone();
    let free: Vec<u64> = sku
        .pools
        .load()
        .iter()
        .map(|pool| pool.available())
        .collect();
    assert_eq!(free, [0, 3, 1]);
}

/// Delivers on a disk of which a change fails, and again afterwards; tells whether it had failed.
fn with_fault(change: u64, errno: Errno) -> bool {
    let disk = fixture::new_disk();
    let engine = fixture::start(&disk, BitsOnly).unwrap();
    engine.sku_create(SKU).unwrap();
    deliver(&engine, &secrets(0..2)).unwrap();
    disk.fail(change..change + 1, errno);
    // As many as do not fit the slab: another one is made.
    let many: Vec<String> = secrets(2..5000);
    let mut accepted = 2;
    let mut failed = false;
    for part in many.chunks(1000) {
        match deliver(&engine, part) {
            Ok(delivered) => accepted += delivered.accepted,
            Err(refused) => {
                failed = true;
                let told = [Refusal::DiskFull, Refusal::StoreFailed];
                assert!(told.contains(&refused.refusal), "{}", refused.text);
            }
        }
    }
    disk.drop_faults();
    assert_eq!(stock(&engine).free, accepted, "change {change}");
    let has_log = engine.log.failure().is_none();
    if has_log {
        for part in many.chunks(1000) {
            accepted += deliver(&engine, part).unwrap().accepted;
        }
        assert_eq!(accepted, 5000, "change {change}");
    }
    drop(engine);
    let engine = fixture::start(&disk, BitsOnly).unwrap();
    let now = stock(&engine).free;
    assert!(
        now == accepted || !has_log && now > accepted,
        "change {change}"
    );
    for slab in engine.state.catalog.load().slabs.iter().flatten() {
        let grown = slab.grown().unwrap();
        let name = crate::slab::slab_file_name(slab.facts.slab);
        let path = Path::new("/store/slabs").join(name);
        let room = (slab.facts.cards, slab.facts.class_bytes);
        let disk = disk.disk();
        assert!(crate::slab::growing::holds(&disk, &path, room, &grown).unwrap());
    }
    failed
}

#[test]
fn a_disk_that_fails_at_any_change_leaves_what_was_acknowledged() {
    for errno in [Errno::IO, Errno::NOSPC] {
        let failed = (0..40).filter(|&change| with_fault(change, errno));
        assert!(failed.count() > 10);
    }
}
