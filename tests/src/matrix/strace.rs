//! How `strace` is run: around a command from its first instruction on, or on a server that listens already; and where in
//! it a fault is put.
//!
//! strace counts the calls of each thread by themselves, and a fault meant for the third write of one thread meets the
//! third write of another that comes first. So a fault is aimed at one *file* (`-P`), which one thread works on at a
//! time; or, where the thread is there already and has a name of its own, at one *thread* (attached to alone).

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::trace::{Spot, WRITE_PATH};
use super::{Fault, Log, Problem};
use crate::PATIENCE;

/// Threads that are there as soon as a server listens, and that live as long as it does.
pub const LASTING: [&str; 3] = ["croupier-log", "croupier-segs", "croupier-fold"];

const NAMED_WITHIN: Duration = Duration::from_secs(5);

/// What strace is to do.
#[derive(Debug, Clone)]
pub struct Orders<'a> {
    /// Where it writes what it saw.
    pub trace: PathBuf,
    /// The directory that paths of spots are relative to.
    pub root: &'a Path,
    /// How the log is to be written. A server chooses the faster way at its start; one that chose otherwise is started
    /// anew.
    pub log: Log,
    /// `None`: nothing to be put in, a counting run.
    pub fault: Option<(Fault, &'a Spot)>,
}

impl Orders<'_> {
    fn flags(&self, aimed_at_thread: bool) -> Vec<OsString> {
        let mut flags: Vec<OsString> = ["-y", "-Y", "-s", "0", "-e", "signal=none", "-o"]
            .map(OsString::from)
            .into();
        flags.push(self.trace.clone().into());
        let Some((fault, spot)) = self.fault else {
            flags.extend([
                "-e".into(),
                format!("trace={WRITE_PATH}").replace(' ', "").into(),
            ]);
            return flags;
        };
        let Spot {
            syscall,
            nth,
            nth_of_thread,
            ..
        } = spot;
        let nth = if aimed_at_thread { nth_of_thread } else { nth };
        let how = match fault {
            Fault::Kill => "signal=KILL",
            Fault::Eio => "error=EIO",
            Fault::Enospc => "error=ENOSPC",
        };
        flags.extend(["-e".into(), format!("trace={syscall}").into()]);
        flags.extend([
            "-e".into(),
            format!("inject={syscall}:{how}:when={nth}").into(),
        ]);
        if !aimed_at_thread {
            flags.extend(["-P".into(), self.root.join(&spot.path).into()]);
        }
        flags
    }

    /// The wrapper of a command that is to be traced from its first instruction on. The command stays the child.
    pub fn wrapper(&self) -> Vec<OsString> {
        let head = ["strace", "-D", "-f"].map(OsString::from);
        head.into_iter().chain(self.flags(false)).collect()
    }

    /// Attaches to a server that listens.
    ///
    /// # Errors
    /// If strace cannot.
    pub fn attach(&self, pid: u32) -> Result<Attached, Problem> {
        let lasting = self.fault.map(|(_, spot)| spot.thread.as_str());
        let lasting = lasting.filter(|name| LASTING.contains(name));
        let mut command = Command::new("strace");
        match lasting {
            Some(name) => {
                let tid = thread(pid, name).ok_or_else(|| Problem::NoThread(name.to_owned()))?;
                command
                    .args(["-p", &tid.to_string()])
                    .args(self.flags(true));
            }
            None => {
                command
                    .args(["-f", "-p", &pid.to_string()])
                    .args(self.flags(false));
            }
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Problem::NoStrace)?;
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        while !said.contains(" attached") {
            if stderr.read_line(&mut said).map_err(Problem::NoStrace)? == 0 {
                let _ = child.wait();
                return Err(Problem::NotAttached(said));
            }
        }
        // Its later words ("detached") are nobody's business, but the pipe must not fill.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Ok(Attached { child })
    }
}

/// A strace at work on a server.
#[derive(Debug)]
pub struct Attached {
    child: Child,
}

impl Attached {
    /// Waits until the server is gone and all of the trace is written.
    pub fn finish(mut self) {
        let _ = crate::command::ended(&mut self.child, PATIENCE);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Number of a process's thread of that name. A thread names itself, which may be a moment after it is wanted.
pub fn thread(pid: u32, name: &str) -> Option<u32> {
    let begun = Instant::now();
    loop {
        let found = thread_now(pid, name);
        if found.is_some() || begun.elapsed() > NAMED_WITHIN {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn thread_now(pid: u32, name: &str) -> Option<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks.flatten().find_map(|task| {
        let comm = fs::read_to_string(task.path().join("comm")).ok()?;
        let tid = task.file_name().to_str()?.parse().ok()?;
        (comm.trim_end() == name).then_some(tid)
    })
}

/// How a server that listens writes its log: told by the flags of its open segment.
pub fn log_of(pid: u32) -> Option<Log> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    open.flatten().find_map(|fd| {
        let target = fs::read_link(fd.path()).ok()?;
        target.to_str().filter(|path| path.ends_with(".seg"))?;
        let number = fd.file_name().into_string().ok()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
        // Folding reads segments, too.
        let writes = flags & OFlags::WRONLY.bits() != 0;
        let direct = flags & OFlags::DIRECT.bits() != 0;
        writes.then_some(if direct { Log::Direct } else { Log::Fdatasync })
    })
}
