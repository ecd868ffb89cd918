//! What `strace` wrote: which thread called what on which file of the store, in order.
//!
//! Read from `strace -y -Y -s 0`: descriptors come with their paths and threads with their names, so no table of open
//! files is kept here.

use std::collections::HashMap;

/// The system calls that change what is on disk, or make it stay there. `openat` and `mmap` are looked at more closely:
/// see [`Call::is_write`].
pub const WRITE_PATH: &str = "write,pwrite64,writev,pwritev,pwritev2,fdatasync,fsync,sync_file_range,msync,fallocate,\
     truncate,ftruncate,rename,renameat,renameat2,link,linkat,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,open,creat,\
     openat,mmap,chmod,fchmod,fchmodat,copy_file_range,sendfile";

/// One system call on a file of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Number of the thread; of one that is traced alone, zero.
    pub tid: u32,
    /// Name of the thread; of one that is traced alone, empty.
    pub thread: String,
    /// Its name.
    pub name: String,
    /// Paths below the traced directory, relative to it, in the order of the arguments.
    pub paths: Vec<String>,
    /// It opens a file to write to it.
    writes: bool,
    /// The fault was put in here: an error was made up, or the process died in front of it.
    pub hit: bool,
}

impl Call {
    /// The same, taken for one on the write path.
    #[must_use]
    pub fn as_write(mut self) -> Self {
        self.writes = true;
        self
    }

    /// Whether it is on the write path. Opening for reading is not, nor is a mapping of anything but the store's files.
    pub fn is_write(&self) -> bool {
        match self.name.as_str() {
            "openat" | "open" => self.writes,
            _ => true,
        }
    }
}

/// The calls on files below `root`, in the order in which they began.
pub fn read(trace: &str, root: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for line in trace.lines() {
        match resumed(line) {
            Some((tid, name)) => {
                let begun = |call: &&mut Call| call.tid == tid && call.name == name;
                if let Some(call) = calls.iter_mut().rev().find(begun) {
                    call.hit |= was_hit(line);
                }
            }
            None => calls.extend(call(line, root)),
        }
    }
    calls
}

/// The fault shows at the end of a line: an error that strace made up, or a call from which nobody came back.
fn was_hit(line: &str) -> bool {
    line.ends_with("(INJECTED)") || line.ends_with(") = ?")
}

/// The second half of a call that strace had to tell in two.
fn resumed(line: &str) -> Option<(u32, &str)> {
    let (tid, _, rest) = who(line);
    let (name, _) = rest.strip_prefix("<... ")?.split_once(" resumed>")?;
    Some((tid, name))
}

fn call(line: &str, root: &str) -> Option<Call> {
    let (tid, thread, rest) = who(line);
    let (name, args) = rest.split_once('(')?;
    let known = |name: &str| WRITE_PATH.split(',').any(|known| known.trim() == name);
    if !known(name) {
        return None;
    }
    let paths = paths(args, root);
    if paths.is_empty() {
        return None;
    }
    let writes = ["O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC"];
    Some(Call {
        tid,
        thread: thread.to_owned(),
        name: name.to_owned(),
        paths,
        writes: writes.iter().any(|flag| args.contains(flag)),
        hit: was_hit(line),
    })
}

/// `1234<name> rest`, or only the rest.
fn who(line: &str) -> (u32, &str, &str) {
    let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Ok(tid) = line[..digits].parse() else {
        return (0, "", line);
    };
    let rest = &line[digits..];
    match rest
        .strip_prefix('<')
        .and_then(|named| named.split_once('>'))
    {
        Some((name, rest)) => (tid, name, rest.trim_start()),
        None => (tid, "", rest.trim_start()),
    }
}

fn paths(args: &str, root: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in args.match_indices(root) {
        // A descriptor's path stands in <>, an argument in "". The working directory of a relative call is neither ours
        // nor below us.
        let end = match args[..at].chars().next_back() {
            Some('<') => '>',
            Some('"') => '"',
            _ => continue,
        };
        let path = &args[at + root.len()..];
        let path = &path[..path.find(end).unwrap_or(path.len())];
        let path = path.trim_start_matches('/').to_owned();
        if !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// A system call on the write path that a fault can be put into, told so that it is found again in another run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spot {
    /// Name of the thread.
    pub thread: String,
    /// The system call.
    pub syscall: String,
    /// Its first path, relative to the root.
    pub path: String,
    /// The how many'th call of that name on that path by that thread, from 1, counting all that strace counts.
    pub nth: u32,
    /// The how many'th call of that name by that thread on any path, from 1.
    pub nth_of_thread: u32,
}

/// Every spot of a counting run.
pub fn spots(calls: &[Call]) -> Vec<Spot> {
    let mut by_path: HashMap<(u32, &str, &str), u32> = HashMap::new();
    let mut by_thread: HashMap<(u32, &str), u32> = HashMap::new();
    let mut spots = Vec::new();
    for call in calls {
        let of_thread = by_thread.entry((call.tid, &call.name)).or_default();
        *of_thread += 1;
        for path in &call.paths {
            *by_path.entry((call.tid, &call.name, path)).or_default() += 1;
        }
        if call.is_write() {
            spots.push(Spot {
                thread: call.thread.clone(),
                syscall: call.name.clone(),
                path: call.paths[0].clone(),
                nth: by_path[&(call.tid, call.name.as_str(), call.paths[0].as_str())],
                nth_of_thread: *of_thread,
            });
        }
    }
    spots
}

/// What a path is to the store; drafts and half-made files are told from finished ones.
pub fn file_kind(path: &str) -> &'static str {
    let Some(inside) = path.strip_prefix(super::DATA_DIR) else {
        return "dir above the store";
    };
    let inside = inside.trim_start_matches('/');
    let inside = inside.strip_suffix("(deleted)").unwrap_or(inside);
    let (dir, name) = inside.split_once('/').unwrap_or(("", inside));
    let unfinished = name.ends_with(".tmp") || name.ends_with(".partial");
    match (dir, name) {
        ("", "") => "store dir",
        ("", "wal") => "wal dir",
        ("", "slabs") => "slabs dir",
        ("", "checkpoints") => "checkpoints dir",
        ("", "orders") => "orders dir",
        ("", "LOCK") => "LOCK",
        ("", "CURRENT") => "CURRENT",
        ("", name) if name.starts_with("store.key") => "key",
        ("", name) if name.starts_with("store") => "store file",
        ("", _) => "CURRENT draft",
        ("wal", _) if unfinished => "wal segment .tmp",
        ("wal", _) => "wal segment",
        ("slabs", _) if unfinished => "slab .partial",
        ("slabs", _) => "slab",
        ("checkpoints", _) if unfinished => "checkpoint draft",
        ("checkpoints", _) => "checkpoint",
        ("orders", _) if unfinished => "order file draft",
        ("orders", _) => "order file",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
20<start> openat(AT_FDCWD</elsewhere>, \"/r/data/LOCK\", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 12</r/data/LOCK>
20<start> openat(AT_FDCWD</elsewhere>, \"/r/data/wal\", O_RDONLY|O_CLOEXEC) = 13</r/data/wal>
21<croupier-segs> pwrite64(14</r/data/wal/wal-2.seg.tmp>, \"\"..., 524288, 4096 <unfinished ...>
22<croupier-log> pwrite64(13</r/data/wal/wal-1.seg>, \"\"..., 4096, 4096) = -1 EIO (Input/output error) (INJECTED)
21<croupier-segs> <... pwrite64 resumed>) = -1 ENOSPC (No space left on device) (INJECTED)
22<croupier-log> write(2<pipe:[1]>, \"\"..., 20) = 20
21<croupier-segs> rename(\"/r/data/wal/wal-2.seg.tmp\", \"/r/data/wal/wal-2.seg\") = ?
21<croupier-segs> +++ killed by SIGKILL +++
";

    #[test]
    fn calls_on_the_stores_files_are_read_and_nothing_else() {
        let calls = read(TRACE, "/r");
        let told: Vec<_> = calls
            .iter()
            .map(|call| {
                (
                    call.thread.as_str(),
                    call.name.as_str(),
                    call.paths[0].as_str(),
                    call.hit,
                )
            })
            .collect();
        let expect = [
            ("start", "openat", "data/LOCK", false),
            ("start", "openat", "data/wal", false),
            ("croupier-segs", "pwrite64", "data/wal/wal-2.seg.tmp", true),
            ("croupier-log", "pwrite64", "data/wal/wal-1.seg", true),
            ("croupier-segs", "rename", "data/wal/wal-2.seg.tmp", true),
        ];
        assert_eq!(told, expect);
        assert_eq!(calls[4].paths[1], "data/wal/wal-2.seg");
        let spots = spots(&calls);
        assert_eq!(spots.len(), 4, "a directory opened to be read is no write");
        assert_eq!((spots[0].nth, spots[0].nth_of_thread), (1, 1));
    }

    #[test]
    fn kinds() {
        let check = |path: &str, expect: &str| assert_eq!(file_kind(path), expect, "{path}");
        check("", "dir above the store");
        check("data", "store dir");
        check("data/wal/wal-0000000000000002.seg.tmp", "wal segment .tmp");
        check("data/draft-2.tmp", "CURRENT draft");
        check("data/store.key.partial", "key");
        check("data/slabs/slab-00000001.slab.partial", "slab .partial");
    }
}
