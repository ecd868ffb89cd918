//! A server of the bench's own: the real `croupier` binary, in a process and a directory of its own.
//!
//! Its own process, so that its CPU time, its memory and its crash are not the bench's.

mod child;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use child::{ChildServer, START_TIMEOUT, await_address, last_words};

use crate::control::Control;
use crate::error::BenchError;
use crate::machine::FileSystem;

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

/// A `croupier serve` and its directory; dropping it stops the one and removes the other.
#[derive(Debug)]
pub struct EmbeddedServer {
    // Declared before the directory, so that the process is gone before its files are.
    process: Option<ChildServer>,
    directory: TempDir,
    binary: PathBuf,
    serve_args: Vec<String>,
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
    /// Makes a store, serves it on a free port of 127.0.0.1 and waits until it answers.
    pub fn start(options: &EmbeddedOptions) -> Result<Self, BenchError> {
        let binary = find_binary(options.binary.as_deref())?;
        let directory =
            temporary_directory(&options.parent.clone().unwrap_or_else(directory_default))?;
        init(&binary, &directory.path().join("data"))?;
        let mut server = Self {
            process: None,
            directory,
            binary,
            serve_args: options.serve_args.clone(),
            address: String::new(),
        };
        server.serve(START_TIMEOUT)?;
        Ok(server)
    }

    /// Serves the store again, on another port; returns how long it took until it answered.
    ///
    /// # Panics
    /// If it is being served.
    pub fn serve(&mut self, timeout: Duration) -> Result<Duration, BenchError> {
        assert!(self.process.is_none(), "one process serves a store");
        let log_path = self.log_path();
        let log = File::create(&log_path).map_err(BenchError::io("create the server's log"))?;
        let begun = Instant::now();
        let child = Command::new(&self.binary)
            .arg("serve")
            .arg("--data")
            .arg(self.data())
            .args(["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0"])
            .args(&self.serve_args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(BenchError::io(format!("run {}", self.binary.display())))?;
        let mut process = ChildServer::new("croupier serve", child);
        self.address = await_address(&mut process, &log_path, timeout)?;
        self.process = Some(process);
        Control::connect(&self.address)?;
        Ok(begun.elapsed())
    }

    /// Asks the process to stop in good order and waits for it; returns how long that took.
    pub fn stop(&mut self, timeout: Duration) -> Result<Duration, BenchError> {
        let begun = Instant::now();
        let mut process = self.process.take().expect("it is being served");
        match process.stop(timeout) {
            Some(status) if status.success() => Ok(begun.elapsed()),
            status => Err(BenchError::NotStopped {
                program: process.name().into(),
                detail: format!(
                    "{}; {}",
                    status.map_or("killed".into(), |status| status.to_string()),
                    self.last_words()
                ),
            }),
        }
    }

    /// Kills the process, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Host and port it listens on.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id, for its CPU time and its memory.
    ///
    /// # Panics
    /// If it is not being served.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it is being served").pid()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What its files lie on.
    pub fn file_system(&self) -> FileSystem {
        FileSystem::of(self.directory.path())
    }

    /// Hands the records of the store's log to `read`, as `croupier wal dump --json` prints them.
    ///
    /// # Panics
    /// If it is being served.
    pub fn dump_log<T>(
        &self,
        read: impl FnOnce(BufReader<ChildStdout>) -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        assert!(self.process.is_none(), "a log that is served goes on");
        let mut child = Command::new(&self.binary)
            .args(["wal", "dump", "--json", "--data"])
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(BenchError::io(format!("run {}", self.binary.display())))?;
        let stdout = child.stdout.take().expect("it was started with a pipe");
        let result = read(BufReader::new(stdout));
        let status = child
            .wait()
            .map_err(BenchError::io("wait for croupier wal dump"))?;
        let result = result?;
        if status.success() {
            return Ok(result);
        }
        Err(BenchError::Unexpected {
            request: "croupier wal dump",
            detail: status.to_string(),
        })
    }

    /// What the latest process has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its last words, for an error that happened in its presence.
    pub fn last_words(&self) -> String {
        last_words(&self.log_path())
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
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
