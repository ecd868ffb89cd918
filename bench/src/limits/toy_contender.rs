//! A toy server as a contender: a process of its own, loaded by the same driver as the engine.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use croupier_protocol::{Priority, SkuId};

use super::durable_file::SyncMethod;
use super::toy::SECRET_BYTES;
use crate::contest::{Contender, Round, RoundLength, Shape, settle};
use crate::control::Control;
use crate::driver::{Plan, drive};
use crate::embedded::{ChildServer, START_TIMEOUT, await_address};
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::StepReport;
use crate::stock::{Budget, SecretShape};
use crate::workload::{Mix, Workload};

/// A running toy.
#[derive(Debug)]
pub struct Toy {
    name: &'static str,
    process: ChildServer,
    address: String,
    rounds: u64,
}

impl Toy {
    /// What the one that only frames is called.
    pub const FRAMES: &'static str = "frames";
    /// What the one that frames and group-commits is called.
    pub const FRAMES_AND_COMMITS: &'static str = "frames + commit";

    /// Starts one; with a method it commits to a file in `directory`.
    pub fn start(directory: &Path, commit: Option<SyncMethod>) -> Result<Self, BenchError> {
        let name = if commit.is_some() {
            Self::FRAMES_AND_COMMITS
        } else {
            Self::FRAMES
        };
        let log_path = directory.join(if commit.is_some() {
            "commit.stderr"
        } else {
            "frames.stderr"
        });
        let own_path = std::env::current_exe().map_err(BenchError::io("find this executable"))?;
        let mut command = Command::new(own_path);
        command.arg("toy");
        if let Some(method) = commit {
            command
                .arg("--log")
                .arg(directory.join("toy.log"))
                .args(["--sync", method.flag()]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log_path).map_err(BenchError::io("create a toy's log"))?)
            .spawn()
            .map_err(BenchError::io("start a toy server"))?;
        let mut process = ChildServer::new("toy server", child);
        let address = await_address(&mut process, &log_path, START_TIMEOUT)?;
        Ok(Self {
            name,
            process,
            address,
            rounds: 0,
        })
    }
}

impl Contender for Toy {
    fn name(&self) -> &str {
        self.name
    }

    fn round(&mut self, shape: Shape, length: RoundLength) -> Result<Round, BenchError> {
        settle();
        let step = length.step();
        let budget = Arc::new(Budget::new(1));
        // A toy's stock does not end.
        budget.add(0, i64::MAX as u64);
        let plan = Plan {
            pacing: step.pacing,
            batch: 1,
            in_flight_max: shape.pipeline as usize,
            mix: Mix::ISSUE_ONLY,
            holding: None,
            priority: Priority::Standard as u8,
            warmup: step.warmup,
            duration: step.duration,
            drain: Duration::from_secs(15),
            seed: 1,
            threads: 1,
            workload: Arc::new(Workload::new(
                1,
                u128::from(self.rounds),
                vec![SkuId(1)],
                0.0,
                1,
            )),
            shape: SecretShape::new(u128::from(self.rounds), SECRET_BYTES),
            budget,
            skus: 1,
            first_sequence: 0,
            server_pid: Some(self.process.pid()),
        };
        self.rounds += 1;
        let connections = 0..shape.connections;
        let streams = connections
            .map(|_| Control::connect(&self.address).map(Control::into_stream))
            .collect::<Result<_, _>>()?;
        let what = format!("{}, {shape}", self.name);
        let (driven, oracle) = drive(&plan, streams, &mut Progress::new(what))?;
        if oracle.report().violations > 0 {
            let detail = oracle.report().details.join("; ");
            return Err(BenchError::Peer {
                peer: self.name.into(),
                detail,
            });
        }
        Round::of(self.name, &StepReport::new(step, driven))
    }
}
