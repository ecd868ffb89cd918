//! One command of the binary, run to its end: exit code, stdout, stderr.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;
use crate::binary::binary;

/// What a command left behind.
#[derive(Debug)]
pub struct Done {
    /// The command, for messages.
    pub what: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
}

impl Done {
    /// Stdout as one JSON value.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{self}\nno JSON on stdout: {error}"),
        }
    }

    /// Checks that it did what it was asked.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Checks that it failed with this exit code and said all of `words` on stderr.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in\n{self}");
        }
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            what,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "{what}\nexit code {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

/// The binary with nothing but these arguments: no setting leaks in from the environment.
pub(crate) fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    wrapped(&[], args)
}

/// As [`command`], run by a program that runs another; `wrapper` are its name and arguments.
pub(crate) fn wrapped<A: AsRef<OsStr>>(
    wrapper: &[OsString],
    args: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = match wrapper {
        [] => Command::new(binary()),
        [program, before @ ..] => {
            let mut command = Command::new(program);
            command.args(before).arg(binary());
            command
        }
    };
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CROUPIER_") || name_text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command to its end.
///
/// # Panics
/// If it does not end.
pub fn croupier<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Done {
    run(command(args))
}

/// As [`croupier`], run by a program that runs another; `wrapper` are its name and arguments.
///
/// # Panics
/// If it does not end.
pub fn croupier_under<A: AsRef<OsStr>>(
    wrapper: &[OsString],
    args: impl IntoIterator<Item = A>,
) -> Done {
    run(wrapped(wrapper, args))
}

fn run(mut command: Command) -> Done {
    let what = format!("{command:?}");
    let mut child = command.spawn().expect("the binary starts");
    let stdout = drained(child.stdout.take().expect("piped"));
    let stderr = drained(child.stderr.take().expect("piped"));
    let status = ended(&mut child, PATIENCE);
    let (stdout, stderr) = (joined(stdout), joined(stderr));
    let Some(status) = status else {
        panic!("{what} did not end within {PATIENCE:?}\n--- stderr\n{stderr}");
    };
    Done {
        what,
        code: status.code(),
        stdout,
        stderr,
    }
}

fn drained(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(text: JoinHandle<String>) -> String {
    text.join().expect("a reader of a pipe does not panic")
}

/// Waits for the end of a child; kills it when that takes too long.
pub(crate) fn ended(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if begun.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}
