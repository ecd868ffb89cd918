//! A server of the bench's own: the real `croupier` binary, in a process and a directory of its own.
//!
//! Its own process, so that its CPU time, its memory and its crash are not the bench's.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::error::BenchError;
use crate::machine::FileSystem;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a log that an error quotes.
const LAST_WORDS_BYTES: usize = 2000;

/// Where temporary stores lie unless `--dir` says otherwise: the system's temporary directory, or `/var/tmp` where
/// that one lives in memory and a sync would cost nothing.
pub fn directory_default() -> PathBuf {
    let temporary = std::env::temp_dir();
    let disk = Path::new("/var/tmp");
    if !FileSystem::of(&temporary).durable && disk.is_dir() {
        disk.to_path_buf()
    } else {
        temporary
    }
}

/// A temporary directory below `parent`, removed at the end.
pub fn temporary_directory(parent: &Path) -> Result<TempDir, BenchError> {
    tempfile::Builder::new()
        .prefix("croupier-bench-")
        .tempdir_in(parent)
        .map_err(BenchError::io(format!(
            "make a temporary directory in {}",
            parent.display()
        )))
}

/// The `croupier` binary: the given one, or the one beside this executable.
pub fn find_binary(given: Option<&Path>) -> Result<PathBuf, BenchError> {
    let path = match given {
        Some(path) => path.to_path_buf(),
        None => std::env::current_exe()
            .map_err(BenchError::io("find this executable"))?
            .with_file_name(format!("croupier{}", std::env::consts::EXE_SUFFIX)),
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(BenchError::NoServerBinary { path })
    }
}

/// A child process that is stopped when it goes out of scope: asked first, killed after a while.
#[derive(Debug)]
pub struct ChildServer {
    child: Child,
    name: &'static str,
}

impl ChildServer {
    /// Takes charge of a child.
    pub fn new(name: &'static str, child: Child) -> Self {
        Self { child, name }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its name, for errors.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its standard output, once.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    fn stop(&mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // It may have ended by itself; then there is nobody to ask.
            let _ = kill_process(pid, Signal::TERM);
        }
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => return,
            }
        }
        eprintln!(
            "{} did not stop within {} s and was killed",
            self.name,
            STOP_TIMEOUT.as_secs()
        );
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.stop();
        }
    }
}

/// A running `croupier serve` and its directory; dropping it stops the one and removes the other.
#[derive(Debug)]
pub struct EmbeddedServer {
    // Declared before the directory, so that the process is gone before its files are.
    process: ChildServer,
    directory: TempDir,
    address: String,
}

/// How to start an embedded server.
#[derive(Debug, Clone, Default)]
pub struct EmbeddedOptions {
    /// The binary; `None` = the one beside this executable.
    pub binary: Option<PathBuf>,
    /// Where the temporary directory is made; `None` = [`directory_default`].
    pub parent: Option<PathBuf>,
    /// Further arguments of `croupier serve`.
    pub serve_args: Vec<String>,
}

impl EmbeddedServer {
    /// Makes a store, serves it on a free port of 127.0.0.1 and waits until it listens.
    pub fn start(options: &EmbeddedOptions) -> Result<Self, BenchError> {
        let binary = find_binary(options.binary.as_deref())?;
        let directory =
            temporary_directory(&options.parent.clone().unwrap_or_else(directory_default))?;
        let data = directory.path().join("data");
        let log_path = directory.path().join("server.log");
        init(&binary, &data)?;

        let log = File::create(&log_path).map_err(BenchError::io("create the server's log"))?;
        let child = Command::new(&binary)
            .arg("serve")
            .arg("--data")
            .arg(&data)
            .args(["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0"])
            .args(&options.serve_args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(BenchError::io(format!("run {}", binary.display())))?;
        let mut process = ChildServer::new("croupier serve", child);
        let address = await_address(&mut process, &log_path)?;
        Ok(Self {
            process,
            directory,
            address,
        })
    }

    /// Host and port it listens on.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id, for its CPU time.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What its files lie on.
    pub fn file_system(&self) -> FileSystem {
        FileSystem::of(self.directory.path())
    }

    /// Its last words, for an error that happened in its presence.
    pub fn last_words(&self) -> String {
        last_words(&self.directory.path().join("server.log"))
    }
}

fn init(binary: &Path, data: &Path) -> Result<(), BenchError> {
    let output = Command::new(binary)
        .arg("init")
        .arg("--data")
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::io(format!("run {}", binary.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let detail = format!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Err(BenchError::NotStarted {
        program: "croupier init".into(),
        detail,
    })
}

/// Waits for the line `listening on croupier://A:P`, and goes on reading afterwards so that the pipe never fills.
pub fn await_address(process: &mut ChildServer, log_path: &Path) -> Result<String, BenchError> {
    let stdout = process
        .take_stdout()
        .expect("the server was started with a pipe");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(url) = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix("croupier://"))
            {
                // Nobody waits for a second address.
                let _ = sender.send(url.to_string());
            }
        }
    });
    receiver.recv_timeout(START_TIMEOUT).map_err(|_| {
        let state = match process.ended() {
            Some(status) => status.to_string(),
            None => format!("nothing heard for {} s", START_TIMEOUT.as_secs()),
        };
        BenchError::NotStarted {
            program: process.name().into(),
            detail: format!("{state}; {}", last_words(log_path)),
        }
    })
}

/// The end of a log file, as one quotable text.
pub fn last_words(log_path: &Path) -> String {
    let log = std::fs::read(log_path).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(LAST_WORDS_BYTES)..];
    match String::from_utf8_lossy(tail).trim() {
        "" => "its log is empty".into(),
        words => format!("the end of its log:\n{words}"),
    }
}
