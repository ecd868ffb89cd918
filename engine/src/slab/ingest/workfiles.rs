//! The files of an unfinished import: made under partial names, published together, or removed together.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::IngestError;
use crate::disk::Disk;
use crate::slab::durable::{PARTIAL_SUFFIX, create_new, partial_path, rename_new, sync_dir};
use crate::slab::file::{slab_file_name, slab_of_file_name};

/// Removes what interrupted imports left in `dir`: partial slabs, and slabs that no record names. To be called before
/// the first import of a start, with the log replayed to its end. Returns what was removed, for the log.
///
/// Files whose names are not those of slabs are left alone.
pub fn remove_leftovers(
    disk: &Disk,
    dir: &Path,
    is_recorded: impl Fn(u32) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for name in disk.list(dir)? {
        let leftover = match name.strip_suffix(PARTIAL_SUFFIX) {
            Some(finished) => slab_of_file_name(finished).is_some(),
            None => slab_of_file_name(&name).is_some_and(|slab| !is_recorded(slab)),
        };
        if leftover {
            let path = dir.join(name);
            disk.remove(&path)?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// A slab that is being written.
pub(super) struct Workfile {
    pub(super) file: File,
    /// The name it will have.
    pub(super) path: PathBuf,
    /// The name it has.
    pub(super) partial: PathBuf,
}

pub(super) struct Workfiles {
    dir: PathBuf,
    /// Partial and final name of every file this import is responsible for.
    names: Vec<(PathBuf, PathBuf)>,
    /// How many of them, from the front, have their final name.
    renamed: usize,
}

impl Workfiles {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            names: Vec::new(),
            renamed: 0,
        }
    }

    /// Makes the file of a slab, which must not exist under either name.
    pub(super) fn create(&mut self, slab: u32) -> Result<Workfile, IngestError> {
        let path = self.dir.join(slab_file_name(slab));
        let partial = partial_path(&path);
        if path.symlink_metadata().is_ok() {
            return Err(IngestError::SlabExists { path });
        }
        let file = create_new(&partial, 0o600).map_err(|fault| match fault.source.kind() {
            io::ErrorKind::AlreadyExists => IngestError::SlabExists {
                path: partial.clone(),
            },
            _ => fault.into(),
        })?;
        self.names.push((partial.clone(), path.clone()));
        Ok(Workfile {
            file,
            path,
            partial,
        })
    }

    /// Gives all files their final names, durably. Afterwards this import is no longer responsible for them.
    pub(super) fn publish(&mut self) -> Result<(), IngestError> {
        if self.names.is_empty() {
            return Ok(());
        }
        for (partial, path) in &self.names[self.renamed..] {
            rename_new(partial, path)?;
            self.renamed += 1;
        }
        sync_dir(&self.dir)?;
        self.names.clear();
        self.renamed = 0;
        Ok(())
    }

    /// Removes every file, as well as it can: what stays is dropped at the next start, as no record names it.
    pub(super) fn remove(&mut self) {
        for (index, (partial, path)) in self.names.iter().enumerate() {
            let name: &Path = if index < self.renamed { path } else { partial };
            let _ = fs::remove_file(name);
        }
        if !self.names.is_empty() {
            let _ = sync_dir(&self.dir);
        }
        self.names.clear();
        self.renamed = 0;
    }
}
