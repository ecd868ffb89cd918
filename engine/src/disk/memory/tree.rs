//! Files and names as a disk in memory has them: what is seen, what is certain, and what lies between the two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::PAGE_BYTES;
use crate::wal::format::SECTOR_BYTES;

/// Pages; `None` is a page of zeros.
#[derive(Clone, Default)]
pub(super) struct Bytes {
    pub(super) pages: Vec<Option<Arc<[u8; PAGE_BYTES]>>>,
    pub(super) bytes: usize,
}

impl Bytes {
    pub(super) fn set_len(&mut self, bytes: usize) {
        if bytes < self.bytes {
            // What is cut off must not show again when the file grows.
            self.bytes = bytes;
            self.pages.truncate(bytes.div_ceil(PAGE_BYTES));
            let kept = bytes % PAGE_BYTES;
            if kept != 0
                && let Some(Some(page)) = self.pages.last_mut()
            {
                Arc::make_mut(page)[kept..].fill(0);
            }
        }
        self.bytes = bytes;
        self.pages.resize(bytes.div_ceil(PAGE_BYTES), None);
    }

    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.set_len(self.bytes.max(offset + bytes.len()));
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let within = at % PAGE_BYTES;
            let (some, more) = rest.split_at((PAGE_BYTES - within).min(rest.len()));
            let page = &mut self.pages[at / PAGE_BYTES];
            if page.is_some() || some.iter().any(|byte| *byte != 0) {
                let page = page.get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
                Arc::make_mut(page)[within..within + some.len()].copy_from_slice(some);
            }
            at += some.len();
            rest = more;
        }
    }

    pub(super) fn get(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let from = offset.min(self.bytes);
        let got = (self.bytes - from).min(buffer.len());
        let mut at = 0;
        while at < got {
            let within = (from + at) % PAGE_BYTES;
            let some = (PAGE_BYTES - within).min(got - at);
            let to = &mut buffer[at..at + some];
            match &self.pages[(from + at) / PAGE_BYTES] {
                Some(page) => to.copy_from_slice(&page[within..within + some]),
                None => to.fill(0),
            }
            at += some;
        }
        got
    }

    pub(super) fn all(&self) -> Vec<u8> {
        let mut all = vec![0; self.bytes];
        self.get(0, &mut all);
        all
    }
}

#[derive(Clone)]
pub(super) enum Unsynced {
    Write(usize, Arc<[u8]>),
    Length(usize),
}

/// A file without a name: whoever has it open keeps it.
#[derive(Clone, Default)]
pub(super) struct Node {
    /// As readers see it.
    pub(super) seen: Bytes,
    /// As it is on the disk for sure.
    pub(super) durable: Bytes,
    /// What makes one of the other, in order.
    pub(super) unsynced: Vec<Unsynced>,
    /// What a failed sync was to make durable: possible for as long as nothing else is certain there, certain never.
    pub(super) limbo: Vec<Unsynced>,
}

impl Node {
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.seen.put(offset as usize, bytes);
        self.unsynced
            .push(Unsynced::Write(offset as usize, bytes.into()));
    }

    pub(super) fn set_len(&mut self, bytes: u64) {
        self.seen.set_len(bytes as usize);
        self.unsynced.push(Unsynced::Length(bytes as usize));
    }

    pub(super) fn sync(&mut self) {
        if self.limbo.is_empty() {
            self.durable = self.seen.clone();
            self.unsynced.clear();
            return;
        }
        for change in std::mem::take(&mut self.unsynced) {
            self.certain(&change);
        }
    }

    /// A change is on the disk. What a sync before has left undecided in the same place cannot come any more.
    pub(super) fn certain(&mut self, change: &Unsynced) {
        land(&mut self.durable, change, &mut |_| true);
        let certain = match change {
            Unsynced::Write(offset, bytes) => *offset..offset + bytes.len(),
            Unsynced::Length(bytes) => *bytes..usize::MAX,
        };
        let replaces_length = matches!(change, Unsynced::Length(_));
        for undecided in std::mem::take(&mut self.limbo) {
            match undecided {
                Unsynced::Length(_) if replaces_length => {}
                Unsynced::Length(_) => self.limbo.push(undecided),
                Unsynced::Write(offset, bytes) => {
                    let end = offset + bytes.len();
                    let mut keep = |from: usize, to: usize| {
                        if from < to {
                            let part = bytes[from - offset..to - offset].into();
                            self.limbo.push(Unsynced::Write(from, part));
                        }
                    };
                    keep(offset, end.min(certain.start));
                    keep(offset.max(certain.end), end);
                }
            }
        }
    }

    pub(super) fn sync_failed(&mut self) {
        let changes = std::mem::take(&mut self.unsynced);
        self.limbo.extend(changes);
    }
}

/// Brings a change to the disk, as far as its sectors land.
pub(super) fn land(durable: &mut Bytes, change: &Unsynced, landed: &mut dyn FnMut(usize) -> bool) {
    match change {
        Unsynced::Length(bytes) => {
            if landed(0) {
                durable.set_len(*bytes);
            }
        }
        Unsynced::Write(offset, bytes) => {
            for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if landed(number) {
                    durable.put(offset + number * SECTOR_BYTES, sector);
                }
            }
        }
    }
}

/// A change of names in one directory.
#[derive(Clone)]
pub(super) enum Naming {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl Naming {
    pub(super) fn dir(&self) -> &Path {
        let (Naming::Add(path, _) | Naming::Remove(path) | Naming::Rename(path, _, _)) = self;
        parent(path)
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Naming::Add(path, node) => {
                names.insert(path.clone(), *node);
            }
            Naming::Remove(path) => {
                names.remove(path);
            }
            Naming::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Files and names, certain and not. Cheap to clone: what two clones have in common is shared.
#[derive(Clone, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) names: BTreeMap<PathBuf, usize>,
    pub(super) durable_names: BTreeMap<PathBuf, usize>,
    pub(super) namings: Vec<Naming>,
}

impl Tree {
    pub(super) fn node(&mut self, node: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[node])
    }

    pub(super) fn add(&mut self, node: Node) -> usize {
        self.nodes.push(Arc::new(node));
        self.nodes.len() - 1
    }

    pub(super) fn crash(&self, landed: &mut dyn FnMut() -> bool) -> Tree {
        let mut names = self.durable_names.clone();
        for naming in &self.namings {
            if landed() {
                naming.apply(&mut names);
            }
        }
        // Files without a name are gone; the rest move together.
        let mut nodes = Vec::with_capacity(names.len());
        for number in names.values_mut() {
            let before = &self.nodes[*number];
            *number = nodes.len();
            if before.limbo.is_empty() && before.unsynced.is_empty() {
                nodes.push(before.clone());
                continue;
            }
            let mut durable = before.durable.clone();
            for change in before.limbo.iter().chain(&before.unsynced) {
                land(&mut durable, change, &mut |_| landed());
            }
            nodes.push(Arc::new(Node {
                seen: durable.clone(),
                durable,
                ..Node::default()
            }));
        }
        Tree {
            nodes,
            durable_names: names.clone(),
            names,
            namings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_sync_left_undecided_stays_so_only_where_nothing_newer_is_certain() {
        let mut node = Node::default();
        node.write(0, &[1; 3 * SECTOR_BYTES]);
        node.sync_failed();
        assert_eq!(node.durable.bytes, 0);
        node.write(SECTOR_BYTES as u64, &[2; SECTOR_BYTES]);
        node.sync();
        let mut tree = Tree::default();
        let path = PathBuf::from("/file");
        let number = tree.add(node);
        tree.names.insert(path.clone(), number);
        tree.durable_names.insert(path, number);
        for (lands, first, bytes) in [(false, 0, 2), (true, 1, 3)] {
            let crashed = tree.crash(&mut || lands);
            let seen = crashed.nodes[0].seen.all();
            assert_eq!(seen.len(), bytes * SECTOR_BYTES);
            let sectors: Vec<u8> = seen.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
            assert_eq!(sectors, [first, 2, 1][..bytes]);
        }
        // Whatever comes behind the end is gone with it.
        let node = tree.node(number);
        node.set_len(0);
        node.sync();
        assert!(tree.crash(&mut || true).nodes[0].seen.all().is_empty());
    }
}
