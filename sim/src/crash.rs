//! Crashes on copies: an image of the disk is torn as a power cut would tear it, recovered, and judged.

use std::panic::{AssertUnwindSafe, catch_unwind};

use croupier_engine::checkpoint;
use croupier_engine::disk::memory::{Image, MemoryDisk};
use croupier_engine::error::EngineError;
use croupier_engine::recovery::{self, Recovered};
use croupier_tests::Oracle;
use fastrand::Rng;

use crate::imports::check_grown;
use crate::node::{Node, View, root, slabs_on, spread, store_on};
use crate::plan::{Feature, Plan};

/// Crashes tried before each change of the disk.
const CRASHES_PER_CHANGE: u32 = 2;

/// What crashing has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Crashes {
    /// Copies that were recovered and judged.
    pub tried: u64,
    /// Of these: with something torn or reordered that was not synced.
    pub torn: u64,
    /// Of these: while a crashed copy started, by depth 2 and 3.
    pub nested: [u64; 2],
    /// Of these: folded whole, digests compared.
    pub folded: u64,
    /// Flipped bits that were told as damage.
    pub flips_told: u64,
    /// Flipped bits that changed nothing.
    pub flips_harmless: u64,
}

impl Crashes {
    /// Adds what another run came to.
    pub fn add(&mut self, other: &Crashes) {
        self.tried += other.tried;
        self.torn += other.torn;
        self.nested[0] += other.nested[0];
        self.nested[1] += other.nested[1];
        self.folded += other.folded;
        self.flips_told += other.flips_told;
        self.flips_harmless += other.flips_harmless;
    }
}

/// Tries crashes.
pub struct Crasher {
    plan: Plan,
    dice: Rng,
    pub crashes: Crashes,
}

/// Whether what was not synced has landed: nothing, everything, or any part of it.
pub fn landing(dice: &mut Rng) -> impl FnMut() -> bool {
    let percent = *dice
        .choice([0, 0, 10, 50, 50, 90, 100].as_slice())
        .expect("some");
    let mut dice = dice.fork();
    move || dice.u32(0..100) < percent
}

impl Crasher {
    pub fn new(plan: &Plan) -> Crasher {
        Crasher {
            plan: plan.clone(),
            dice: plan.dice(2),
            crashes: Crashes::default(),
        }
    }

    /// Crashes at every image.
    ///
    /// # Panics
    /// If a recovered state is not what the oracle accepts.
    pub fn crash_at(&mut self, images: &[Image], oracle: &Oracle) {
        for image in images {
            for _ in 0..CRASHES_PER_CHANGE {
                let disk = image.crash(landing(&mut self.dice));
                self.recover(&disk, oracle, 1);
            }
        }
    }

    /// Recovers a copy, judges it, and sometimes goes on with it.
    fn recover(&mut self, disk: &MemoryDisk, oracle: &Oracle, depth: usize) {
        self.crashes.tried += 1;
        if depth > 1 {
            self.crashes.nested[depth - 2] += 1;
        }
        let recovered = self.read(disk).unwrap_or_else(|error| {
            panic!("a store that was only crashed does not start: {error}")
        });
        if recovered.report.torn_bytes > 0 {
            self.crashes.torn += 1;
        }
        recovered.state.drop_unsealed();
        check_grown(&disk.disk(), &root().join("slabs"), &recovered.state);
        oracle.judge(&View(&recovered.state));
        let digest = recovered.state.digest();
        if self.plan.has(Feature::Flips) && self.dice.u32(0..8) == 0 {
            self.flip(disk, oracle);
        }
        // What is built on a torn tail is what goes wrong most easily: all long ones, and some others.
        let one_in = match recovered.report.torn_bytes {
            0 => 12,
            1..=4096 => 3,
            _ => 1,
        };
        if depth < 3 && self.plan.has(Feature::Recrashes) && self.dice.u32(0..one_in) == 0 {
            self.start_again(disk, oracle, depth);
        } else if self.dice.u32(0..12) == 0 {
            self.fold(disk, &recovered, digest, oracle);
        }
    }

    fn read(&self, disk: &MemoryDisk) -> Result<Recovered, EngineError> {
        recovery::recover(&store_on(disk), slabs_on(disk), spread(&self.plan))
    }

    /// Starts the copy for real and crashes at every change the start makes.
    fn start_again(&mut self, disk: &MemoryDisk, oracle: &Oracle, depth: usize) {
        disk.keep_images();
        let node = Node::start(disk, &self.plan)
            .unwrap_or_else(|error| panic!("a store that recovers does not start: {error}"));
        oracle.judge(&View(&node.engine.state));
        drop(node);
        for image in disk.take_images() {
            let again = image.crash(landing(&mut self.dice));
            self.recover(&again, oracle, depth + 1);
        }
    }

    /// Folds all of the copy's log: the digest is that of the recovered state, and what the checkpoint holds too.
    fn fold(
        &mut self,
        disk: &MemoryDisk,
        recovered: &Recovered,
        digest: croupier_engine::state::Digest,
        oracle: &Oracle,
    ) {
        let store = store_on(disk);
        recovery::tidy(&store, recovered).expect("a disk that does not fail is tidied");
        let folded = checkpoint::fold(&store.disk, &store.paths, store.store_id, u64::MAX)
            .unwrap_or_else(|error| panic!("a log that is read is not folded: {error}"));
        let Some(folded) = folded else { return };
        self.crashes.folded += 1;
        assert_eq!(folded.digest, digest, "checkpoint and replay");
        let again = self
            .read(disk)
            .unwrap_or_else(|error| panic!("behind its checkpoint: {error}"));
        again.state.drop_unsealed();
        assert_eq!(
            again.state.digest(),
            digest,
            "recovered from the checkpoint"
        );
        oracle.judge(&View(&again.state));
    }

    /// Flips a bit of a copy: it is told as damage, or nothing is different.
    fn flip(&mut self, disk: &MemoryDisk, oracle: &Oracle) {
        let copy = disk.copy();
        let files = copy.files();
        let Some(path) = self.dice.choice(&files) else {
            return;
        };
        let bytes = copy.contents(path).expect("a file that is listed").len() as u64;
        if bytes == 0 {
            return;
        }
        // Anywhere, or where the file's last words are: what was written last is what is mistaken most easily.
        let bit = match last_used(&copy, path) {
            Some(last) if self.dice.bool() => {
                let from = last.saturating_sub(self.dice.u64(0..600));
                from * 8 + self.dice.u64(0..8)
            }
            _ => self.dice.u64(0..bytes * 8),
        };
        copy.flip(path, bit);
        let recovered = match self.read(&copy) {
            Ok(recovered) => recovered,
            Err(_) => {
                self.crashes.flips_told += 1;
                return;
            }
        };
        recovered.state.drop_unsealed();
        oracle.judge(&View(&recovered.state));
        self.crashes.flips_harmless += 1;
    }
}

/// The last byte of a file that is not zero.
fn last_used(disk: &MemoryDisk, path: &std::path::Path) -> Option<u64> {
    let bytes = disk.contents(path).ok()?;
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map(|at| at as u64)
}

/// Runs something that may find a violation, and returns it as text.
pub fn caught<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "a panic without words".into())
    })
}
