//! A running server: started on a free port, waited for, listened to, killed or stopped.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use croupier_client::{Client, ClientBuilder};
use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;
use crate::command::{Done, command, croupier, ended, wrapped};
use crate::store::Store;

/// A server. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    what: String,
    child: Child,
    addr: SocketAddr,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a server and waits until it listens.
    ///
    /// # Panics
    /// If it does not; with what it said.
    #[track_caller]
    pub fn start(store: &Store) -> Self {
        match Self::launch(command(store.serve_args())) {
            Ok(server) => server,
            Err(done) => panic!("it does not listen: {done}"),
        }
    }

    /// As [`Server::start`], under a program that runs another: `wrapper` are its name and arguments. What it becomes
    /// must be the server itself, or signals go astray. A server that ends instead of listening is no failure here.
    ///
    /// # Errors
    /// How it ended.
    ///
    /// # Panics
    /// If it neither listens nor ends.
    pub fn start_under(wrapper: &[OsString], store: &Store) -> Result<Self, Done> {
        Self::launch(wrapped(wrapper, store.serve_args()))
    }

    fn launch(mut command: Command) -> Result<Self, Done> {
        let what = format!("{command:?}");
        let mut child = command.spawn().expect("the binary starts");
        let stderr = Arc::new(Mutex::new(String::new()));
        let log = gathered(child.stderr.take().expect("piped"), stderr.clone());
        let (listens, heard) = mpsc::channel();
        let stdout = child.stdout.take().expect("piped");
        let out = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("listening on croupier://") {
                    let _ = listens.send(url.to_owned());
                }
            }
        });
        let said = heard.recv_timeout(PATIENCE);
        let said = said.ok().and_then(|addr| addr.parse().ok());
        let server = Self {
            what,
            child,
            addr: said.unwrap_or(SocketAddr::from(([0; 4], 0))),
            stderr,
            readers: vec![log, out],
        };
        if said.is_none() {
            return Err(server.wait());
        }
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens, as clients write it.
    pub fn url(&self) -> String {
        format!("croupier://{}", self.addr)
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no reader panics").clone()
    }

    /// What it has logged, once that includes `line`: the log comes through a pipe of its own, and may come later than
    /// what it is about.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    pub fn log_with(&self, line: &str) -> String {
        eventually(&format!("the log says {line:?}"), || {
            Some(self.stderr()).filter(|log| log.contains(line))
        })
    }

    /// True while the process runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// A client that tries again, as most will.
    pub async fn client(&self) -> Client {
        self.connect(self.builder().call_timeout(PATIENCE)).await
    }

    /// A client that takes the first answer or none: what it does not know, the oracle does.
    pub async fn client_without_retries(&self) -> Client {
        self.connect(self.builder().call_timeout(PATIENCE).retries(0))
            .await
    }

    /// A client to be set up further.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder().server(&self.url()).expect("a URL")
    }

    async fn connect(&self, builder: ClientBuilder) -> Client {
        match builder.build().await {
            Ok(client) => client,
            Err(error) => panic!("{error}\n--- stderr of the server\n{}", self.stderr()),
        }
    }

    /// A command of the binary that asks this server.
    pub fn croupier(&self, args: &[&str]) -> Done {
        let url = self.url();
        croupier(args.iter().chain(&["--server", &url]))
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled");
    }

    /// The end by SIGKILL: nothing is written, synced or said any more. Returns its log.
    pub fn kill(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.end_readers();
        self.stderr()
    }

    /// The end in good order: SIGINT, then its exit is waited for.
    #[track_caller]
    pub fn stop(self) -> Done {
        self.signal(Signal::INT);
        self.wait()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn wait(mut self) -> Done {
        let status = ended(&mut self.child, PATIENCE);
        self.end_readers();
        let stderr = self.stderr();
        let Some(status) = status else {
            panic!(
                "{} did not end within {PATIENCE:?}\n--- stderr\n{stderr}",
                self.what
            );
        };
        Done {
            what: self.what.clone(),
            code: status.code(),
            stdout: String::new(),
            stderr,
        }
    }

    fn end_readers(&mut self) {
        if self.is_alive() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end_readers();
        if thread::panicking() {
            eprintln!("--- stderr of {}\n{}", self.what, self.stderr());
        }
    }
}

fn gathered(mut pipe: impl Read + Send + 'static, text: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(got @ 1..) = pipe.read(&mut some) {
            text.lock()
                .expect("no reader panics")
                .push_str(&String::from_utf8_lossy(&some[..got]));
        }
    })
}

/// Waits until `look` finds what it looks for.
///
/// # Panics
/// If that does not happen.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}
