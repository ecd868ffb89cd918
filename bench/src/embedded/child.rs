//! A process of the bench's own, and what it says when it starts.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::BenchError;

/// How long a store of everyday size may take to answer.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take that nobody waits for any more; then it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How exactly the time of a stop is known.
const STOP_LOOK_EVERY: Duration = Duration::from_millis(2);
/// Bytes of a log that an error quotes.
const LAST_WORDS_BYTES: usize = 2000;

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

    /// Asks it to stop and waits; a process that lets itself be waited for too long is killed, and has no status.
    pub fn stop(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // It may have ended by itself; then there is nobody to ask.
            let _ = kill_process(pid, Signal::TERM);
        }
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(STOP_LOOK_EVERY),
                ended => return ended.ok().flatten(),
            }
        }
        eprintln!(
            "{} did not stop within {} s and was killed",
            self.name,
            timeout.as_secs()
        );
        self.kill();
        None
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.stop(STOP_TIMEOUT);
        }
    }
}

/// Waits for the line `listening on croupier://A:P`, and goes on reading afterwards so that the pipe never fills.
pub fn await_address(
    process: &mut ChildServer,
    log_path: &Path,
    timeout: Duration,
) -> Result<String, BenchError> {
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
    receiver.recv_timeout(timeout).map_err(|_| {
        let state = match process.ended() {
            Some(status) => status.to_string(),
            None => format!("nothing heard for {} s", timeout.as_secs()),
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
