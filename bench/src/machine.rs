//! What the figures were measured on.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

/// The machine, as far as it explains a figure.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processor model.
    pub cpu: String,
    /// Cores this process may use; the server under test shares them.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Kernel release.
    pub kernel: String,
    /// Operating system and architecture.
    pub os: String,
}

impl Machine {
    /// Looks around; what cannot be read is "unknown".
    pub fn detect() -> Self {
        let line_of = |path: &str, key: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_string())
        };
        let memory_kib = line_of("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0);
        Self {
            cpu: line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_kib / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".into(), |text| text.trim().to_string()),
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, {} cores, {} MiB, kernel {} ({})",
            self.cpu, self.cores, self.memory_mib, self.kernel, self.os
        )
    }
}

/// What a directory lies on, and whether "durable" means anything there.
#[derive(Debug, Clone, Serialize)]
pub struct FileSystem {
    /// Its type, as in `/proc/mounts`.
    pub kind: String,
    /// False on file systems that live in memory.
    pub durable: bool,
}

impl FileSystem {
    /// The file system that holds `directory`, by the longest mount point above it.
    pub fn of(directory: &Path) -> Self {
        let directory = directory
            .canonicalize()
            .unwrap_or_else(|_| directory.to_path_buf());
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let kind = mounts
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ').skip(1);
                Some((fields.next()?, fields.next()?))
            })
            .filter(|(mount_point, _)| directory.starts_with(mount_point))
            .max_by_key(|(mount_point, _)| mount_point.len())
            .map_or("unknown", |(_, kind)| kind);
        Self {
            kind: kind.to_string(),
            durable: !matches!(kind, "tmpfs" | "ramfs"),
        }
    }
}

/// CPU time that a process has used so far, in seconds, from `/proc/<pid>/stat`.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold anything, so fields are counted from the last parenthesis: utime and stime are the
    // 12th and 13th after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory that a process has in RAM just now.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Memory {
    /// All of it.
    pub resident_bytes: u64,
    /// What is the process's own: heap, stacks, pages of private mappings that were written to.
    pub anonymous_bytes: u64,
    /// Pages of files (slabs) that are mapped and happen to be in memory; the kernel takes them back when it needs them.
    pub file_bytes: u64,
}

/// The memory of a process, from `/proc/<pid>/status`.
pub fn memory_of(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib << 10)
    };
    Some(Memory {
        resident_bytes: bytes("VmRSS:")?,
        anonymous_bytes: bytes("RssAnon:")?,
        file_bytes: bytes("RssFile:")? + bytes("RssShmem:")?,
    })
}

/// Memory that new work could have without swapping.
pub fn memory_available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// Bytes that may still be written to the file system of a directory.
pub fn disk_free_bytes(directory: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

/// Open files that [`raise_file_limit`] has come to.
pub fn files_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Lets this process, and the servers it starts, open as many files as the system allows at most: thousands of
/// connections are more than the usual limit.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, connecting says what is missing.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_and_file_system_are_known() {
        assert!(cpu_seconds(std::process::id()).is_some());
        assert_eq!(FileSystem::of(Path::new("/proc")).kind, "proc");
        assert!(Machine::detect().cores >= 1);
        let memory = memory_of(std::process::id()).expect("own memory is known");
        assert!(memory.resident_bytes >= memory.anonymous_bytes && memory.anonymous_bytes > 0);
        assert!(memory_available_bytes().is_some() && files_max() > 0);
        assert!(disk_free_bytes(Path::new("/proc")).is_some());
    }
}
