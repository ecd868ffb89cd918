//! A disk in memory that keeps only what was synced, fails where it is told to, and can lose its power in the middle of
//! anything. For tests and simulations; it stands in for [`RealFs`](super::RealFs).
//!
//! What a power cut leaves of changes that were not synced is for the caller to choose ([`MemoryDisk::crash`]): of a
//! file's writes any set of 512-byte sectors, of a directory's changes of names any set, in their order. So writes are
//! torn and reordered; a sector itself is written whole or not at all. After a sync that failed, the changes it was to
//! make durable are never more than possible, whatever later syncs say (rule 8).

mod tree;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use super::{Disk, FileSystem, Open, OpenFile, PAGE_BYTES};
use tree::{Bytes, Naming, Node, Tree, Unsynced, land, parent};

/// Which sectors of the write that was under way have reached the disk, by their number in that write.
pub type Landed = Box<dyn Fn(usize) -> bool + Send>;

/// A change of the disk, as it is told to who decides what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Counted from 1, over the disk's whole life.
    pub number: u64,
    /// What is done.
    pub op: Op,
    /// To which file or directory.
    pub path: &'a Path,
}

/// Operations that change a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Op {
    Create,
    Allocate,
    Write,
    Sync,
    Rename,
    Remove,
    SyncDir,
}

/// What becomes of a change.
pub enum Verdict {
    /// It is done.
    Go,
    /// It fails, and nothing of it reaches the disk.
    Fail(Errno),
    /// The power goes before it begins.
    Cut,
    /// The power goes while it is under way; of a write these sectors are on the disk.
    Tear(Landed),
}

/// Decides over every change.
pub type Judge = Box<dyn FnMut(&Change<'_>) -> Verdict + Send>;

enum Fault {
    Errno { changes: Range<u64>, errno: Errno },
    PowerCut { change: u64, landed: Landed },
}

/// A disk as it was just before a change: what a power cut at that moment would have left can be made from it.
pub struct Image {
    tree: Tree,
    unix_ms: u64,
    /// The number of the change that came next.
    before: u64,
}

impl Image {
    /// As [`MemoryDisk::crash`].
    pub fn crash(&self, mut landed: impl FnMut() -> bool) -> MemoryDisk {
        let inner = Inner {
            tree: self.tree.crash(&mut landed),
            unix_ms: self.unix_ms,
            changes: self.before,
            ..Inner::default()
        };
        MemoryDisk {
            inner: Arc::new(Mutex::new(inner)),
        }
    }
}

#[derive(Default)]
struct Inner {
    tree: Tree,
    images: Option<Vec<Image>>,
    /// Changes so far.
    changes: u64,
    faults: Vec<Fault>,
    judge: Option<Judge>,
    power_is_off: bool,
    is_full: bool,
    unix_ms: u64,
    /// The newest changes, for traces.
    journal: Option<VecDeque<String>>,
}

/// Changes kept for traces.
const JOURNAL_MAX: usize = 60;

impl Inner {
    fn begin(&mut self, op: Op, path: &Path) -> io::Result<Option<Landed>> {
        if self.power_is_off {
            return Err(Errno::IO.into());
        }
        self.changes += 1;
        if let Some(images) = &mut self.images {
            images.push(Image {
                tree: self.tree.clone(),
                unix_ms: self.unix_ms,
                before: self.changes,
            });
        }
        let verdict = self.judge(op, path);
        if let Some(journal) = &mut self.journal {
            let fate = match &verdict {
                Verdict::Go => "",
                Verdict::Fail(_) => " fails",
                Verdict::Cut => " power cut before it",
                Verdict::Tear(_) => " power cut in it",
            };
            if journal.len() == JOURNAL_MAX {
                journal.pop_front();
            }
            journal.push_back(format!("{} {op:?} {}{fate}", self.changes, path.display()));
        }
        match verdict {
            Verdict::Go if self.is_full && matches!(op, Op::Create | Op::Allocate) => {
                Err(Errno::NOSPC.into())
            }
            Verdict::Go => Ok(None),
            Verdict::Fail(errno) => Err(errno.into()),
            Verdict::Cut => {
                self.power_is_off = true;
                Err(Errno::IO.into())
            }
            Verdict::Tear(landed) => {
                self.power_is_off = true;
                Ok(Some(landed))
            }
        }
    }

    fn judge(&mut self, op: Op, path: &Path) -> Verdict {
        let number = self.changes;
        let hit = self.faults.iter().position(|fault| match fault {
            Fault::Errno { changes, .. } => changes.contains(&number),
            Fault::PowerCut { change, .. } => *change == number,
        });
        match (hit, &mut self.judge) {
            (Some(hit), _) => match &self.faults[hit] {
                Fault::Errno { errno, .. } => Verdict::Fail(*errno),
                Fault::PowerCut { .. } => match self.faults.swap_remove(hit) {
                    Fault::PowerCut { landed, .. } => Verdict::Tear(landed),
                    Fault::Errno { .. } => unreachable!("matched above"),
                },
            },
            (None, Some(judge)) => judge(&Change { number, op, path }),
            (None, None) => Verdict::Go,
        }
    }

    /// For changes that happen at once or not at all.
    fn at_once(&mut self, op: Op, path: &Path) -> io::Result<()> {
        match self.begin(op, path)? {
            None => Ok(()),
            Some(_) => Err(Errno::IO.into()),
        }
    }

    fn sync(&mut self, node: usize, path: &Path) -> io::Result<()> {
        let went = self.at_once(Op::Sync, path);
        let is_on = !self.power_is_off;
        let node = self.tree.node(node);
        match &went {
            Ok(()) => node.sync(),
            Err(_) if is_on => node.sync_failed(),
            Err(_) => {}
        }
        went
    }

    /// What writing through does: this write becomes durable, and nothing else of the file.
    fn sync_last_write(&mut self, node: usize, path: &Path) -> io::Result<()> {
        let went = self.at_once(Op::Sync, path);
        let is_on = !self.power_is_off;
        let node = self.tree.node(node);
        let write = node.unsynced.pop().expect("it was just written");
        match &went {
            Ok(()) => node.certain(&write),
            Err(_) if is_on => node.limbo.push(write),
            Err(_) => node.unsynced.push(write),
        }
        went
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.tree.names);
        self.tree.namings.push(naming);
    }

    fn node(&self, path: &Path) -> io::Result<usize> {
        let found = self.tree.names.get(path).copied();
        found.ok_or_else(|| Errno::NOENT.into())
    }
}

/// The disk. Cloned handles are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
}

impl MemoryDisk {
    /// An empty one.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// As the store sees it.
    pub fn disk(&self) -> Disk {
        Disk::new(Arc::new(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no one panics with this lock")
    }

    /// Changes so far, those that failed included.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Sets the time that is put into headers.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        self.lock().unix_ms = unix_ms;
    }

    /// Asks `judge` about every change from now on.
    pub fn set_judge(&self, judge: impl FnMut(&Change<'_>) -> Verdict + Send + 'static) {
        self.lock().judge = Some(Box::new(judge));
    }

    /// Keeps the newest changes for [`journal`](Self::journal).
    pub fn keep_journal(&self) {
        self.lock().journal.get_or_insert_default();
    }

    /// The newest changes, oldest first.
    pub fn journal(&self) -> Vec<String> {
        self.lock().journal.iter().flatten().cloned().collect()
    }

    /// Lets the changes `changes` fail, counted from now on (the next one is 0). Nothing of them reaches the disk.
    pub fn fail(&self, changes: Range<u64>, errno: Errno) {
        let mut inner = self.lock();
        let next = inner.changes + 1;
        inner.faults.push(Fault::Errno {
            changes: next + changes.start..next.saturating_add(changes.end),
            errno,
        });
    }

    /// From now on there is no room for new files (or there is again). Writes within a file that exists go on.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Cuts the power in the `change`-th change from now on (the next one is 0): of a write the sectors `landed` says
    /// are there. Every later change fails.
    pub fn cut_power(&self, change: u64, landed: impl Fn(usize) -> bool + Send + 'static) {
        let mut inner = self.lock();
        let change = inner.changes + 1 + change;
        inner.faults.push(Fault::PowerCut {
            change,
            landed: Box::new(landed),
        });
    }

    /// Whether the power has been cut.
    pub fn power_is_off(&self) -> bool {
        self.lock().power_is_off
    }

    /// What a start after a power cut finds: a new disk with what was synced, and of everything else what `landed` says,
    /// asked once per sector and once per change of a name.
    pub fn crash(&self, mut landed: impl FnMut() -> bool) -> MemoryDisk {
        let inner = self.lock();
        MemoryDisk {
            inner: Arc::new(Mutex::new(Inner {
                tree: inner.tree.crash(&mut landed),
                unix_ms: inner.unix_ms,
                is_full: inner.is_full,
                changes: inner.changes,
                journal: inner.journal.clone(),
                ..Inner::default()
            })),
        }
    }

    /// Keeps an image of the disk before every change from now on.
    pub fn keep_images(&self) {
        self.lock().images.get_or_insert_default();
    }

    /// The images kept since the last call, oldest first.
    pub fn take_images(&self) -> Vec<Image> {
        self.lock()
            .images
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Forgets faults that were to come.
    pub fn drop_faults(&self) {
        self.lock().faults.clear();
    }

    /// As [`crash`](Self::crash), with nothing of what was not synced.
    pub fn after_power_cut(&self) -> MemoryDisk {
        self.crash(|| false)
    }

    /// A copy in which everything is durable.
    pub fn copy(&self) -> MemoryDisk {
        self.crash(|| true)
    }

    /// All files, by their names.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().tree.names.keys().cloned().collect()
    }

    /// All of a file, as it is on the disk for sure.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        Ok(inner.tree.nodes[inner.node(path)?].durable.all())
    }

    /// Changes a file behind everybody's back.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        let node = inner.node(path).expect("a file to tamper with");
        let node = inner.tree.node(node);
        let mut bytes = node.durable.all();
        change(&mut bytes);
        node.durable = Bytes::default();
        node.durable.put(0, &bytes);
        node.seen = node.durable.clone();
    }

    /// Flips one bit behind everybody's back.
    pub fn flip(&self, path: &Path, bit: u64) {
        let mut inner = self.lock();
        let node = inner.node(path).expect("a file to tamper with");
        let node = inner.tree.node(node);
        let (at, mut byte) = ((bit / 8) as usize, [0]);
        node.durable.get(at, &mut byte);
        node.durable.put(at, &[byte[0] ^ 1 << (bit % 8)]);
        node.seen = node.durable.clone();
    }

    /// Puts a file there, in place of what had the name.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut node = Node::default();
        node.durable.put(0, bytes);
        node.seen = node.durable.clone();
        let mut inner = self.lock();
        let number = inner.tree.add(node);
        inner.tree.names.insert(path.into(), number);
        inner.tree.durable_names.insert(path.into(), number);
    }

    /// Takes a file away behind everybody's back.
    pub fn lose(&self, path: &Path) {
        let mut inner = self.lock();
        inner.tree.names.remove(path);
        inner.tree.durable_names.remove(path);
    }

    /// Gives each of two files the other's name.
    pub fn swap(&self, one: &Path, other: &Path) {
        let mut inner = self.lock();
        let [first, second] = [one, other].map(|path| inner.node(path).expect("a file to swap"));
        for (path, node) in [(one, second), (other, first)] {
            inner.tree.names.insert(path.into(), node);
            inner.tree.durable_names.insert(path.into(), node);
        }
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    node: usize,
    path: PathBuf,
    how: Open,
}

impl MemoryFile {
    /// Past the page cache a real disk refuses what is not aligned, so this one does.
    fn check_aligned(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let direct = matches!(
            self.how,
            Open::ReadPages | Open::WritePages | Open::WriteDurable
        );
        let page = PAGE_BYTES as u64;
        let values = [offset, bytes.len() as u64, bytes.as_ptr().addr() as u64];
        if direct && values.iter().any(|value| !value.is_multiple_of(page)) {
            return Err(Errno::INVAL.into());
        }
        Ok(())
    }
}

impl OpenFile for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.lock().tree.nodes[self.node].seen.bytes as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.check_aligned(offset, buffer)?;
        let inner = self.disk.lock();
        Ok(inner.tree.nodes[self.node]
            .seen
            .get(offset as usize, buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_aligned(offset, bytes)?;
        let mut inner = self.disk.lock();
        let torn = inner.begin(Op::Write, &self.path)?;
        let node = inner.tree.node(self.node);
        if let Some(landed) = torn {
            let write = Unsynced::Write(offset as usize, bytes.into());
            land(&mut node.durable, &write, &mut |sector| landed(sector));
            // Nobody reads any more before the crash, and that finds this.
            node.seen = node.durable.clone();
            return Err(Errno::IO.into());
        }
        node.write(offset, bytes);
        if self.how == Open::WriteDurable {
            return inner.sync_last_write(self.node, &self.path);
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.at_once(Op::Allocate, &self.path)?;
        inner.tree.node(self.node).set_len(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.lock().sync(self.node, &self.path)
    }
}

impl FileSystem for MemoryDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn OpenFile>> {
        let mut inner = self.lock();
        let node = if how == Open::Create {
            inner.at_once(Op::Create, path)?;
            match inner.node(path) {
                Ok(node) => {
                    inner.tree.node(node).set_len(0);
                    node
                }
                Err(_) => {
                    let node = inner.tree.add(Node::default());
                    inner.name(Naming::Add(path.into(), node));
                    node
                }
            }
        } else {
            inner.node(path)?
        };
        Ok(Box::new(MemoryFile {
            disk: self.clone(),
            node,
            path: path.into(),
            how,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(parent(from), parent(to), "renamed within a directory");
        let mut inner = self.lock();
        let node = inner.node(from)?;
        inner.at_once(Op::Rename, to)?;
        inner.name(Naming::Rename(from.into(), to.into(), node));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.node(path)?;
        inner.at_once(Op::Remove, path)?;
        inner.name(Naming::Remove(path.into()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.at_once(Op::SyncDir, dir)?;
        let (here, elsewhere): (Vec<_>, Vec<_>) = std::mem::take(&mut inner.tree.namings)
            .into_iter()
            .partition(|naming| naming.dir() == dir);
        inner.tree.namings = elsewhere;
        for naming in here {
            naming.apply(&mut inner.tree.durable_names);
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.lock();
        let inside = inner
            .tree
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn unix_ms(&self) -> u64 {
        self.lock().unix_ms
    }

    fn has_threads(&self) -> bool {
        false
    }
}
