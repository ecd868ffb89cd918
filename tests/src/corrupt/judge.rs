//! What becomes of one damage: who finds it, and is every answer still the same?

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use croupier_engine::disk::memory::MemoryDisk;
use croupier_engine::error::EngineError;
use croupier_engine::recovery;
use croupier_engine::slab::{Slab, Vault, slab_of_file_name};
use croupier_engine::state::SlabBody;
use croupier_engine::store::{BitsOnly, Store};

use super::stage::{SPREAD, SlabTruth, Stage, Truth};
use super::{Doing as _, Trouble};

/// Who saw a damage. Several may.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The start was refused.
    pub at_start: bool,
    /// `croupier wal verify`, even had the start not looked.
    pub at_verify: bool,
    /// Opening a secret, or reading the entry of its slot.
    pub at_opening: bool,
    /// The first refusal, for people.
    pub said: String,
}

/// What became of a damage.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was refused.
    Refused(Seen),
    /// The start mended it and said so; every answer is as before.
    Repaired,
    /// Nobody saw it, and every answer is as before.
    Harmless,
    /// The last block is gone as if a crash had cut it short, and the start said so.
    CutShort,
    /// The last block is gone as if a crash had come before it, which leaves nothing to be said.
    NeverWritten,
    /// An answer is another one, and nobody said so.
    Silent(String),
}

/// Damages and judges on copies of its own.
pub struct Judge<'s> {
    stage: &'s Stage,
    dir: PathBuf,
    disk: MemoryDisk,
    /// The copy in memory.
    in_memory: Store,
    /// The copy on files, when it is not just being opened anew.
    on_files: Option<Store>,
    secret: BytesMut,
}

impl<'s> Judge<'s> {
    /// `name` is that of its copy.
    pub fn new(stage: &'s Stage, name: &str) -> Result<Self, Trouble> {
        let dir = stage.copy(name)?;
        let disk = super::stage::load(&dir)?;
        Ok(Self {
            stage,
            in_memory: Store::on(disk.disk(), &dir, stage.vault.clone()),
            on_files: Some(Store::open(&dir, None).doing("open a copy")?),
            dir,
            disk,
            secret: BytesMut::new(),
        })
    }

    /// Flips a bit of a file that is read through the disk in memory, judges, and flips it back.
    pub fn flip_in_memory(&mut self, file: &Path, bit: u64) -> Outcome {
        let path = self.dir.join(file);
        self.disk.flip(&path, bit);
        let outcome = self.start_in_memory(file);
        self.disk.flip(&path, bit);
        outcome
    }

    /// Flips a bit of a real file, judges, and flips it back.
    pub fn flip_on_files(&mut self, file: &Path, bit: u64) -> Result<Outcome, Trouble> {
        let path = self.dir.join(file);
        let real = File::options().read(true).write(true).open(&path);
        let real = real.doing("open a file to damage")?;
        let (mut byte, at) = ([0], bit / 8);
        real.read_exact_at(&mut byte, at).doing("read a byte")?;
        let flipped = [byte[0] ^ 1 << (bit % 8)];
        real.write_all_at(&flipped, at).doing("flip a bit")?;
        let outcome = self.open_files(file);
        real.write_all_at(&byte, at).doing("flip a bit back")?;
        Ok(outcome)
    }

    /// Judges with other bytes in a file, and puts the right ones back.
    pub fn with_bytes(&mut self, file: &Path, bytes: &[u8]) -> Result<Outcome, Trouble> {
        let path = self.dir.join(file);
        let before = fs::read(&path).doing("read a file")?;
        if file.starts_with("slabs") {
            fs::write(&path, bytes).doing("damage a file")?;
            let outcome = self.open_files(file);
            fs::write(&path, before).doing("mend a file")?;
            return Ok(outcome);
        }
        self.disk.tamper(&path, |old| *old = bytes.to_vec());
        let outcome = self.start_in_memory(file);
        self.disk.tamper(&path, |old| *old = before);
        Ok(outcome)
    }

    /// A start over checkpoint, order files and log, as they are in memory now.
    fn start_in_memory(&self, damaged: &Path) -> Outcome {
        let recovered = match recovery::recover(&self.in_memory, Box::new(BitsOnly), SPREAD) {
            Err(error) => return refused_at_start(&error, damaged),
            Ok(recovered) => recovered,
        };
        let is_reported = recovered.report.torn_bytes > 0;
        let found = Truth::of(&recovered.state);
        if found == self.stage.truth {
            match is_reported {
                true => Outcome::Repaired,
                false => Outcome::Harmless,
            }
        } else if found == self.stage.truth_without_last_block {
            match is_reported {
                true => Outcome::CutShort,
                false => Outcome::NeverWritten,
            }
        } else {
            Outcome::Silent(format!("{}: the state is another one", damaged.display()))
        }
    }

    fn open_files(&mut self, damaged: &Path) -> Outcome {
        let name = damaged.file_name().unwrap_or_default().to_string_lossy();
        match slab_of_file_name(&name) {
            Some(number) => self.open_slab(damaged, number),
            None => self.open_store(damaged),
        }
    }

    /// Store file, key file, lock: the store is opened anew, and every card with it.
    fn open_store(&mut self, damaged: &Path) -> Outcome {
        self.on_files = None;
        let opened = Store::open(&self.dir, None);
        let outcome = match &opened {
            Err(error) => refused_at_start(error, damaged),
            Ok(store) if store.store_id != self.stage.vault.store_id() => {
                Outcome::Silent("the store has another id".into())
            }
            Ok(store) => {
                let mut all = Outcome::Harmless;
                for slab in &self.stage.slabs {
                    let path = slab_path(&self.dir, slab);
                    let opened = Slab::open(&path, &store.vault, None);
                    let opened = opened.map_err(|error| error.to_string());
                    match opened.and_then(|open| self.read(&open, slab)) {
                        Ok(()) => {}
                        Err(why) => all = Outcome::Silent(why),
                    }
                }
                all
            }
        };
        self.on_files = opened.ok();
        outcome
    }

    /// What a start, a verification and an answer make of a slab.
    fn open_slab(&mut self, damaged: &Path, number: u32) -> Outcome {
        let slab = self
            .stage
            .slabs
            .iter()
            .find(|slab| slab.facts.slab == number);
        let slab = slab.expect("every slab of the directory is in the log");
        let path = slab_path(&self.dir, slab);
        let store = match self.on_files.take() {
            Some(store) => store,
            None => match Store::open(&self.dir, None) {
                Ok(store) => store,
                Err(error) => return refused_at_start(&error, damaged),
            },
        };
        let mut seen = Seen::default();
        let mut say = |error: String| {
            if seen.said.is_empty() {
                seen.said = error;
            }
        };
        let at_start = store.mapped_slabs().body(&slab.facts);
        seen.at_start = at_start.is_err();
        if let Err(error) = &at_start {
            say(error.to_string());
        }
        // As if the slab were too large for a start to read it whole.
        let mut silent = None;
        match Slab::open(&path, &store.vault, None) {
            Err(error) => {
                seen.at_verify = true;
                say(error.to_string());
            }
            Ok(open) => {
                if let Err(error) = open.verify_sections() {
                    seen.at_verify = true;
                    say(error.to_string());
                }
                match self.read_cards(&open, slab) {
                    Ok(None) => {}
                    Ok(Some(refused)) => {
                        seen.at_opening = true;
                        say(refused);
                    }
                    Err(why) => silent = Some(why),
                }
                if silent.is_none() && !seen.at_verify && self.read(&open, slab).is_err() {
                    silent = Some("an entry or a fingerprint is another one".into());
                }
            }
        }
        if let Ok(SlabBody::Bits(..)) = at_start {
            silent = Some("a start without cards".into());
        }
        self.on_files = Some(store);
        match silent {
            Some(why) => Outcome::Silent(format!("{}: {why}", damaged.display())),
            None if seen.at_start || seen.at_verify || seen.at_opening => Outcome::Refused(seen),
            None => Outcome::Harmless,
        }
    }

    /// Opens every secret; the first refusal, or an error if one is another card's.
    fn read_cards(&mut self, open: &Slab, slab: &SlabTruth) -> Result<Option<String>, String> {
        let mut refused = None;
        for (slot, expected) in (0..).zip(&slab.secrets) {
            self.secret.clear();
            match open.open_secret(slot, &mut self.secret) {
                Ok(_) if self.secret[..] == expected[..] => {}
                Ok(_) => return Err(format!("slot {slot} opens to another secret")),
                Err(error) => refused = Some(error.to_string()),
            }
        }
        Ok(refused)
    }

    /// Compares everything that a slab tells with the truth.
    fn read(&mut self, open: &Slab, slab: &SlabTruth) -> Result<(), String> {
        if let Some(refused) = self.read_cards(open, slab)? {
            return Err(refused);
        }
        for (slot, expected) in (0..).zip(&slab.entries) {
            let entry = open.entry(slot).map_err(|error| error.to_string())?;
            let (label, expires, premium, cost) = expected;
            let is_same = entry.label == label
                && entry.expires_at_s == *expires
                && entry.premium_e4 == *premium
                && entry.cost_e4 == *cost;
            if !is_same {
                return Err(format!("the entry of slot {slot} is another one"));
            }
        }
        for (slot, secret) in (0..).zip(&slab.secrets) {
            let print = self.fingerprint(slab, secret);
            if open.find(print) != Some(slot) {
                return Err(format!("the fingerprint of slot {slot} is not found"));
            }
        }
        Ok(())
    }

    fn fingerprint(&self, slab: &SlabTruth, secret: &[u8]) -> croupier_engine::slab::Fingerprint {
        let vault: &Vault = &self.stage.vault;
        vault.fingerprint(slab.facts.sku, secret)
    }
}

/// A refusal must have a word for the file, the place in it, and what to do.
fn refused_at_start(error: &EngineError, damaged: &Path) -> Outcome {
    let said = error.to_string();
    Outcome::Refused(Seen {
        at_start: true,
        at_verify: true,
        at_opening: false,
        said: match damaged.file_name().and_then(|name| name.to_str()) {
            Some(name) if !said.contains(name) => format!("[{name} not named] {said}"),
            _ => said,
        },
    })
}

fn slab_path(dir: &Path, slab: &SlabTruth) -> PathBuf {
    dir.join("slabs")
        .join(croupier_engine::slab::slab_file_name(slab.facts.slab))
}
