//! A PostgreSQL of the bench's own: `initdb` and `postgres` from the system, in a temporary directory, as the user
//! `postgres` where the bench runs as root (PostgreSQL refuses to).

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::embedded::{ChildServer, last_words};
use crate::error::BenchError;
use crate::peers::programs::{NotInstalled, find, free_port, version_of, versioned};

/// Connections beyond those of a round: the bench's own, and what PostgreSQL keeps for itself.
const CONNECTIONS_SPARE: u32 = 20;

/// The programs, and who may run them.
#[derive(Debug)]
pub struct Programs {
    initdb: PathBuf,
    postgres: PathBuf,
    run_as: Option<(u32, u32)>,
}

impl Programs {
    /// Finds them.
    pub fn find() -> Result<Self, NotInstalled> {
        let mut directories = versioned(Path::new("/usr/lib/postgresql"), "bin");
        directories.extend([
            PathBuf::from("/usr/pgsql/bin"),
            PathBuf::from("/usr/local/pgsql/bin"),
        ]);
        let initdb = find("initdb", &directories)?;
        let postgres = find("postgres", &directories)?;
        let run_as = if rustix::process::geteuid().is_root() {
            let ids = user_ids("postgres");
            Some(ids.ok_or_else(|| {
                NotInstalled(
                    "PostgreSQL does not run as root, and there is no user postgres".into(),
                )
            })?)
        } else {
            None
        };
        Ok(Self {
            initdb,
            postgres,
            run_as,
        })
    }

    /// What it says about its version.
    pub fn version(&self) -> String {
        version_of(&self.postgres)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((user, group)) = self.run_as {
            command.uid(user).gid(group);
        }
        command.stdin(Stdio::null());
        command
    }
}

/// User and group id of a user, from `/etc/passwd`.
fn user_ids(name: &str) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let user = fields
        .into_iter()
        .find(|fields| fields.first() == Some(&name))?;
    Some((user.get(2)?.parse().ok()?, user.get(3)?.parse().ok()?))
}

/// A running server.
#[derive(Debug)]
pub struct Cluster {
    process: ChildServer,
    port: u16,
    log_path: PathBuf,
}

impl Cluster {
    /// Makes and starts one below `directory` that takes so many connections.
    pub fn start(
        programs: &Programs,
        directory: &Path,
        connections: u32,
    ) -> Result<Self, BenchError> {
        let home = directory.join("postgresql");
        fs::create_dir(&home).map_err(BenchError::io("make a directory for PostgreSQL"))?;
        if let Some((user, group)) = programs.run_as {
            chown(&home, Some(user), Some(group))
                .map_err(BenchError::io("give a directory to the user postgres"))?;
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            fs::set_permissions(directory, open)
                .map_err(BenchError::io("let the user postgres pass"))?;
        }
        let data = home.join("data");
        let output = programs
            .command(&programs.initdb)
            .args([
                "--username=bench",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--pgdata",
            ])
            .arg(&data)
            .current_dir(&home)
            .output()
            .map_err(BenchError::io("run initdb"))?;
        if !output.status.success() {
            let detail = String::from_utf8_lossy(&output.stderr).trim().to_string();
            return Err(BenchError::NotStarted {
                program: "initdb".into(),
                detail,
            });
        }
        let port = free_port()?;
        let log_path = directory.join("postgresql.log");
        let log = File::create(&log_path).map_err(BenchError::io("create a log for PostgreSQL"))?;
        let child = programs
            .command(&programs.postgres)
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string()])
            .args(settings(connections))
            .current_dir(&home)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(BenchError::io("run postgres"))?;
        Ok(Self {
            process: ChildServer::new("postgres", child),
            port,
            log_path,
        })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True when it is not running any more.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        last_words(&self.log_path)
    }
}

/// What differs from a fresh installation: who may connect, room for the cards in memory, and no checkpoint in the
/// middle of a short round. Everything about durability is as it comes: on.
fn settings(connections: u32) -> Vec<String> {
    let connections = format!("max_connections={}", connections + CONNECTIONS_SPARE);
    [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "shared_buffers=512MB",
        "max_wal_size=8GB",
    ]
    .into_iter()
    .chain(["synchronous_commit=on", "fsync=on", &connections])
    .flat_map(|setting| ["-c".to_string(), setting.to_string()])
    .collect()
}
