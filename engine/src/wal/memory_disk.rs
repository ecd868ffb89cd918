//! A disk in memory that keeps only what was synced, fails where it is told to, and can lose its power in the middle of
//! a write. For tests and simulations; it stands in for [`RealDisk`](super::RealDisk).
//!
//! What [`Disk`] promises to do at once (a file that appears whole, a removal) either happens or does not. A plain write
//! is torn by sectors: when the power goes, each of its 512-byte sectors is on the disk or is not.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use super::disk::{Disk, Draft, LogFile, ReadAt, SyncMethod};
use super::format::SECTOR_BYTES;

/// Which sectors of the write that was under way have reached the disk, by their number in that write.
pub type Landed = Box<dyn Fn(usize) -> bool + Send>;

/// A file without a name: whoever has it open keeps it.
#[derive(Default)]
struct Node {
    durable: Vec<u8>,
    /// Writes that were never synced: seen by readers, gone after a power cut.
    unsynced: Vec<(u64, Vec<u8>)>,
}

impl Node {
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset as usize + bytes.len();
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[offset as usize..end].copy_from_slice(bytes);
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let from = (offset as usize).min(self.durable.len());
        let got = (self.durable.len() - from).min(buffer.len());
        buffer[..got].copy_from_slice(&self.durable[from..from + got]);
        for (at, bytes) in &self.unsynced {
            let (begin, end) = (
                offset.max(*at),
                (offset + got as u64).min(at + bytes.len() as u64),
            );
            if begin < end {
                let from = &bytes[(begin - at) as usize..(end - at) as usize];
                buffer[(begin - offset) as usize..(end - offset) as usize].copy_from_slice(from);
            }
        }
        got
    }
}

type SharedNode = Arc<Mutex<Node>>;

enum Fault {
    Errno { calls: Range<u64>, errno: Errno },
    PowerCut { call: u64, landed: Landed },
}

#[derive(Default)]
struct Inner {
    names: BTreeMap<PathBuf, SharedNode>,
    /// Calls so far that change the disk.
    calls: u64,
    faults: Vec<Fault>,
    power_is_off: bool,
    is_full: bool,
}

/// What a call that changes the disk is to do.
enum Verdict {
    Go,
    /// The power goes while it is under way.
    Tear(Landed),
}

impl Inner {
    fn begin_change(&mut self) -> io::Result<Verdict> {
        if self.power_is_off {
            return Err(Errno::IO.into());
        }
        self.calls += 1;
        let now = self.calls;
        let hit = self.faults.iter().position(|fault| match fault {
            Fault::Errno { calls, .. } => calls.contains(&now),
            Fault::PowerCut { call, .. } => *call == now,
        });
        let Some(hit) = hit else {
            return Ok(Verdict::Go);
        };
        if let Fault::Errno { errno, .. } = self.faults[hit] {
            return Err(errno.into());
        }
        self.power_is_off = true;
        match self.faults.swap_remove(hit) {
            Fault::PowerCut { landed, .. } => Ok(Verdict::Tear(landed)),
            Fault::Errno { .. } => unreachable!("returned above"),
        }
    }

    /// For changes that happen at once or not at all.
    fn change_at_once(&mut self) -> io::Result<()> {
        match self.begin_change()? {
            Verdict::Go => Ok(()),
            Verdict::Tear(_) => Err(Errno::IO.into()),
        }
    }

    /// For changes that need blocks that the file does not have yet.
    fn change_with_room(&mut self) -> io::Result<()> {
        if self.is_full {
            return Err(Errno::NOSPC.into());
        }
        self.change_at_once()
    }

    /// A plain write, as much of it as lands.
    fn write(&mut self, node: &SharedNode, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let verdict = self.begin_change()?;
        let mut node = lock(node);
        let Verdict::Tear(landed) = verdict else {
            node.put(offset, bytes);
            return Ok(());
        };
        for (number, sector) in bytes
            .chunks(SECTOR_BYTES)
            .enumerate()
            .filter(|(number, _)| landed(*number))
        {
            node.put(offset + (number * SECTOR_BYTES) as u64, sector);
        }
        Err(Errno::IO.into())
    }

    fn node(&self, path: &Path) -> io::Result<SharedNode> {
        self.names
            .get(path)
            .cloned()
            .ok_or_else(|| Errno::NOENT.into())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no one panics with this lock")
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

    /// Calls so far that changed it or tried to.
    pub fn changes(&self) -> u64 {
        lock(&self.inner).calls
    }

    /// Lets the changes `calls` fail, counted from now on (the next one is 0). Nothing of them reaches the disk.
    pub fn fail(&self, calls: Range<u64>, errno: Errno) {
        let mut inner = lock(&self.inner);
        let next = inner.calls + 1;
        inner.faults.push(Fault::Errno {
            calls: next + calls.start..next.saturating_add(calls.end),
            errno,
        });
    }

    /// From now on there is no room for new files (or there is again). Writes within a file that exists go on.
    pub fn set_full(&self, is_full: bool) {
        lock(&self.inner).is_full = is_full;
    }

    /// Cuts the power in the `call`-th change from now on (the next one is 0): of a plain write the sectors `landed` says
    /// are there. Every later change fails.
    pub fn cut_power(&self, call: u64, landed: impl Fn(usize) -> bool + Send + 'static) {
        let mut inner = lock(&self.inner);
        let call = inner.calls + 1 + call;
        inner.faults.push(Fault::PowerCut {
            call,
            landed: Box::new(landed),
        });
    }

    /// What a start after a power cut finds: a new disk with only what was synced.
    pub fn after_power_cut(&self) -> MemoryDisk {
        let copy = |node: &SharedNode| {
            Arc::new(Mutex::new(Node {
                durable: lock(node).durable.clone(),
                unsynced: Vec::new(),
            }))
        };
        let names = lock(&self.inner)
            .names
            .iter()
            .map(|(path, node)| (path.clone(), copy(node)))
            .collect();
        MemoryDisk {
            inner: Arc::new(Mutex::new(Inner {
                names,
                ..Inner::default()
            })),
        }
    }

    /// All of a file, as it is on the disk.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(lock(&*lock(&self.inner).node(path)?).durable.clone())
    }

    /// Changes a file behind everybody's back.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let node = lock(&self.inner).node(path).expect("a file to tamper with");
        change(&mut lock(&node).durable);
    }

    /// Puts a file there, in place of what had the name.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let node = Node {
            durable: bytes,
            unsynced: Vec::new(),
        };
        lock(&self.inner)
            .names
            .insert(path.into(), Arc::new(Mutex::new(node)));
    }

    /// Gives each of two files the other's name.
    pub fn swap(&self, one: &Path, other: &Path) {
        let mut inner = lock(&self.inner);
        let nodes = [inner.node(one), inner.node(other)].map(|node| node.expect("a file to swap"));
        let [first, second] = nodes;
        inner.names.insert(one.into(), second);
        inner.names.insert(other.into(), first);
    }
}

struct MemoryLog {
    inner: Arc<Mutex<Inner>>,
    node: SharedNode,
    method: SyncMethod,
}

impl LogFile for MemoryLog {
    fn write_durable(&mut self, offset: u64, block: &[u8]) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        if self.method == SyncMethod::UnsafeNone {
            inner.change_at_once()?;
            lock(&self.node).unsynced.push((offset, block.to_vec()));
            return Ok(());
        }
        inner.write(&self.node, offset, block)
    }
}

struct MemoryReader {
    node: SharedNode,
}

impl ReadAt for MemoryReader {
    fn bytes(&self) -> u64 {
        lock(&self.node).durable.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(lock(&self.node).read(offset, buffer))
    }
}

struct MemoryDraft {
    inner: Arc<Mutex<Inner>>,
    bytes: Vec<u8>,
}

impl io::Write for MemoryDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.inner).change_with_room()?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Draft for MemoryDraft {
    fn publish(self: Box<Self>, path: &Path) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        inner.change_at_once()?;
        let node = Node {
            durable: self.bytes,
            unsynced: Vec::new(),
        };
        inner.names.insert(path.into(), Arc::new(Mutex::new(node)));
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn create_zeroed(&self, path: &Path, head: &[u8], bytes: u64) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        inner.change_with_room()?;
        let mut node = Node {
            durable: vec![0; bytes as usize],
            unsynced: Vec::new(),
        };
        node.put(0, head);
        inner.names.insert(path.into(), Arc::new(Mutex::new(node)));
        Ok(())
    }

    fn open_log(&self, path: &Path, method: SyncMethod) -> io::Result<Box<dyn LogFile>> {
        let node = lock(&self.inner).node(path)?;
        Ok(Box::new(MemoryLog {
            inner: self.inner.clone(),
            node,
            method,
        }))
    }

    fn draft(&self, _dir: &Path) -> io::Result<Box<dyn Draft>> {
        Ok(Box::new(MemoryDraft {
            inner: self.inner.clone(),
            bytes: Vec::new(),
        }))
    }

    fn zero_range(&self, path: &Path, offset: u64, bytes: u64) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        let node = inner.node(path)?;
        inner.write(&node, offset, &vec![0; bytes as usize])
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(MemoryReader {
            node: lock(&self.inner).node(path)?,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = lock(&self.inner);
        let inside = inner.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        inner.node(path)?;
        inner.change_at_once()?;
        inner.names.remove(path);
        Ok(())
    }
}
