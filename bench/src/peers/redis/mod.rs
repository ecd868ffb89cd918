//! Redis as a shop would use it: a list of cards, a hash of orders, and one Lua script that makes the pair of them
//! idempotent. Durable by its append-only file.

mod load;
mod resp;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use self::load::{Load, OrderCommand};
use self::resp::{Reply, put_array_head, put_command, put_word, take};
use super::judge::Judge;
use super::programs::{NotInstalled, find, free_port, version_of};
use crate::contest::{Contender, Round, RoundLength, Shape, nothing_measured, settle};
use crate::embedded::{ChildServer, last_words};
use crate::error::BenchError;
use crate::machine::cpu_seconds;
use crate::progress::Progress;
use crate::recorder::Operation;
use crate::report::Latency;
use crate::stock::SECRET_BYTES_MAX;

/// The same order id returns the same card; a new one takes the next card from the list.
const ISSUE_SCRIPT: &str = "\
local dealt = redis.call('HGET', KEYS[2], ARGV[1])
if dealt then return dealt end
local card = redis.call('LPOP', KEYS[1])
if not card then return redis.error_reply('OUTOFSTOCK') end
redis.call('HSET', KEYS[2], ARGV[1], card)
return card
";
const STOCK_KEY: &str = "stock";
const ORDERS_KEY: &str = "orders";
/// Cards in one RPUSH.
const CARDS_PER_PUSH: u64 = 1000;
const START_TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Within this much `everysec` has synced what it wrote; the next contender is not to pay for it.
const EVERYSEC_SETTLES: Duration = Duration::from_millis(1200);

/// When the append-only file is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before every answer.
    Always,
    /// Once a second: up to a second of answered orders is lost in a crash.
    Everysec,
}

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    name: &'static str,
    sync: Sync,
    process: ChildServer,
    address: String,
    command: OrderCommand,
    judge: Judge,
    cards: u64,
    version: String,
}

impl Redis {
    /// Whether it is installed.
    pub fn installed() -> Result<(), NotInstalled> {
        find("redis-server", &[]).map(|_| ())
    }

    /// Starts one in `directory`; each round begins with `cards` in stock.
    pub fn start(
        directory: &Path,
        sync: Sync,
        secret_bytes: usize,
        cards: u64,
    ) -> Result<Self, BenchError> {
        let (name, fsync) = match sync {
            Sync::Always => ("redis-always", "always"),
            Sync::Everysec => ("redis-everysec", "everysec"),
        };
        let program = find("redis-server", &[]).map_err(|missing| BenchError::NotStarted {
            program: name.into(),
            detail: missing.0,
        })?;
        let directory = directory.join(name);
        std::fs::create_dir(&directory).map_err(BenchError::io("make a directory for Redis"))?;
        let log_path = directory.join("redis.log");
        let log = File::create(&log_path).map_err(BenchError::io("create a log for Redis"))?;
        let port = free_port()?;
        let child = Command::new(&program)
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "yes",
            ])
            .args([
                "--appendfsync",
                fsync,
                "--auto-aof-rewrite-percentage",
                "0",
                "--daemonize",
                "no",
            ])
            .arg("--dir")
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .map_err(BenchError::io(format!("run {}", program.display())))?;
        let mut process = ChildServer::new(name, child);
        let address = format!("127.0.0.1:{port}");
        let mut client = await_client(&mut process, &address, &log_path)?;
        let script_sha = client.text(&[b"SCRIPT", b"LOAD", ISSUE_SCRIPT.as_bytes()])?;
        Ok(Self {
            name,
            sync,
            process,
            address,
            command: OrderCommand::new(&script_sha, STOCK_KEY, ORDERS_KEY),
            judge: Judge::new(name, secret_bytes),
            cards,
            version: short_version(&version_of(&program)),
        })
    }

    /// Version and durability, for the header.
    pub fn description(&self) -> String {
        let fsync = match self.sync {
            Sync::Always => "always",
            Sync::Everysec => "everysec (NOT durable before it answers)",
        };
        format!("{}: {}, Lua, appendfsync {fsync}", self.name, self.version)
    }

    fn top_up(&mut self) -> Result<u64, BenchError> {
        let mut client = Client::connect(&self.address)?;
        let stock = client.integer(&[b"LLEN", STOCK_KEY.as_bytes()])? as u64;
        let mut missing = self.cards.saturating_sub(stock);
        let mut progress = Progress::new(format!("{}: import of {missing} cards", self.name));
        let mut room = [0; SECRET_BYTES_MAX];
        while missing > 0 {
            progress.say(|| format!("{missing} to go"));
            let count = missing.min(CARDS_PER_PUSH);
            let mut command = BytesMut::new();
            put_array_head(&mut command, count as usize + 2);
            put_word(&mut command, b"RPUSH");
            put_word(&mut command, STOCK_KEY.as_bytes());
            for _ in 0..count {
                put_word(&mut command, self.judge.next_card(&mut room).1);
            }
            client.send(&command)?;
            client.reply(|_| ())?;
            missing -= count;
        }
        Ok(stock.max(self.cards))
    }
}

impl Contender for Redis {
    fn name(&self) -> &str {
        self.name
    }

    fn round(&mut self, shape: Shape, length: RoundLength) -> Result<Round, BenchError> {
        let stock = self.top_up()?;
        settle();
        let streams = (0..shape.connections)
            .map(|_| TcpStream::connect(&self.address))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| BenchError::Unreachable {
                address: self.address.clone(),
                source,
            })?;
        let _progress = Progress::new(format!("{}, {shape}", self.name));
        let pid = self.process.pid();
        let begun = (Instant::now(), cpu_seconds(pid));
        let pipeline = shape.pipeline as usize;
        let load = Load::new(
            &self.command,
            &mut self.judge,
            streams,
            pipeline,
            stock,
            length,
        )?;
        let mut recorder = load.run()?;
        let busy_s = cpu_seconds(pid).zip(begun.1).map(|(now, then)| now - then);
        let server_cores = busy_s.map(|busy_s| busy_s / begun.0.elapsed().as_secs_f64());
        if self.sync == Sync::Everysec {
            std::thread::sleep(EVERYSEC_SETTLES);
        }
        let measured_s = recorder.measured_s();
        let (unanswered, stock_used_up) = (recorder.unanswered, recorder.ended_in_warmup());
        let issue = recorder.operation(Operation::Issue);
        if unanswered > 0 {
            let detail = format!("{unanswered} orders were never answered");
            return Err(BenchError::Peer {
                peer: self.name.into(),
                detail,
            });
        }
        if issue.orders == 0 || stock_used_up {
            return Err(nothing_measured(self.name, stock_used_up));
        }
        let latency = Latency::of(&issue.latency);
        Ok(Round {
            orders: issue.orders,
            measured_s,
            per_s: issue.orders as f64 / measured_s,
            latency,
            server_cores,
        })
    }

    fn finish(&mut self) -> Result<(), BenchError> {
        let mut client = Client::connect(&self.address)?;
        for (id, secret) in self.judge.take_samples() {
            let again = client.bulk(&[b"HGET", ORDERS_KEY.as_bytes(), &id.to_bytes()])?;
            if again != secret {
                return Err(self.judge.wrong("another card when it was asked again"));
            }
        }
        Ok(())
    }
}

/// `Redis server v=7.0.15 sha=… malloc=…` → `Redis server v=7.0.15`
fn short_version(text: &str) -> String {
    text.split(" sha=").next().unwrap_or_default().to_string()
}

fn await_client(
    process: &mut ChildServer,
    address: &str,
    log_path: &Path,
) -> Result<Client, BenchError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match Client::connect(address) {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= deadline || process.ended().is_some() => {
                let detail = format!("{error}; {}", last_words(log_path));
                return Err(BenchError::NotStarted {
                    program: process.name().into(),
                    detail,
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A blocking connection, for what is not measured.
struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Client {
    fn connect(address: &str) -> Result<Self, BenchError> {
        let unreachable = |source| BenchError::Unreachable {
            address: address.to_string(),
            source,
        };
        let stream = TcpStream::connect(address).map_err(unreachable)?;
        stream
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(Self {
            stream,
            inbox: Vec::new(),
        })
    }

    fn send(&mut self, command: &[u8]) -> Result<(), BenchError> {
        self.stream
            .write_all(command)
            .map_err(BenchError::io("send a command to Redis"))
    }

    fn call<T>(
        &mut self,
        words: &[&[u8]],
        read: impl FnOnce(Reply<'_>) -> T,
    ) -> Result<T, BenchError> {
        let mut command = BytesMut::new();
        put_command(&mut command, words);
        self.send(&command)?;
        self.reply(read)
    }

    fn reply<T>(&mut self, read: impl FnOnce(Reply<'_>) -> T) -> Result<T, BenchError> {
        let peer_error = |detail: String| BenchError::Peer {
            peer: "redis".into(),
            detail,
        };
        let mut chunk = [0; 4096];
        loop {
            if let Some((reply, length)) =
                take(&self.inbox).map_err(|error| peer_error(error.to_string()))?
            {
                if let Reply::Error(text) = reply {
                    return Err(peer_error(String::from_utf8_lossy(text).into_owned()));
                }
                let value = read(reply);
                self.inbox.drain(..length);
                return Ok(value);
            }
            match self
                .stream
                .read(&mut chunk)
                .map_err(BenchError::io("await a reply of Redis"))?
            {
                0 => return Err(peer_error("it closed the connection".into())),
                got => self.inbox.extend_from_slice(&chunk[..got]),
            }
        }
    }

    fn bulk(&mut self, words: &[&[u8]]) -> Result<Vec<u8>, BenchError> {
        self.call(words, |reply| match reply {
            Reply::Bulk(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        })
    }

    fn text(&mut self, words: &[&[u8]]) -> Result<String, BenchError> {
        Ok(String::from_utf8_lossy(&self.bulk(words)?).into_owned())
    }

    fn integer(&mut self, words: &[&[u8]]) -> Result<i64, BenchError> {
        self.call(words, |reply| match reply {
            Reply::Integer(number) => number,
            _ => 0,
        })
    }
}
