//! `croupier canary start|status|resume|abort`: docs/canary.md.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use croupier_client::{
    CanaryChangeReply, CanaryDeed, CanaryGroup, CanaryReason, CanarySettings, CanaryStatusReply,
    CanaryStep, Client,
};
use serde_json::{Value, json};

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::print::{self, Facts, Grid};
use super::records::rfc3339;
use super::routes::{print_warnings, read};

/// Try a route table on a share of orders: it comes into force if it is no worse, and is rolled back if it is
#[derive(Debug, Args)]
pub(super) struct CanaryArgs {
    #[command(subcommand)]
    command: CanaryCommand,
}

#[derive(Debug, Subcommand)]
enum CanaryCommand {
    /// Have a share of orders dealt by a route table, and compare them with as many others
    #[command(after_help = "\
Examples:
  croupier canary start new.toml
  croupier canary start new.toml --share 1 --step 10 --minimum-sample 5000
  croupier canary start new.toml --p99-ratio 1.2 --step-time 30m --json")]
    Start {
        /// The table, a TOML file
        file: PathBuf,
        /// Per cent of orders that the table deals at first, 1 to 50 [default: 5]
        #[arg(long, value_name = "PERCENT")]
        share: Option<u16>,
        /// Per cent of orders by which that grows when the table is no worse [default: 5]
        #[arg(long, value_name = "PERCENT")]
        step: Option<u16>,
        /// The largest share, after which all orders go by the table, at most 50 [default: 50]
        #[arg(long, value_name = "PERCENT")]
        until: Option<u16>,
        /// Orders of each group that a step has at least, 20 to 50000 [default: 2000]
        #[arg(long, value_name = "N")]
        minimum_sample: Option<u32>,
        /// How many times as slow the table may be, 1 to 10 [default: 1.05]
        #[arg(long, value_name = "RATIO", value_parser = ratio)]
        p99_ratio: Option<u32>,
        /// How long a step may take before it pauses, as 30s, 15m or 2h [default: 1h]
        #[arg(long, value_name = "TIME", value_parser = step_time)]
        step_time: Option<Duration>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show how the last canary does, or did
    #[command(after_help = "\
Examples:
  croupier canary status
  croupier canary status --json")]
    Status {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Begin the step of a paused canary again
    #[command(after_help = "Example:\n  croupier canary resume")]
    Resume {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// End the canary: all orders go by the table in force
    #[command(after_help = "Example:\n  croupier canary abort")]
    Abort {
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Reads a ratio in ten-thousandths; the server says which can be meant.
fn ratio(text: &str) -> Result<u32, String> {
    let ratio = text.parse::<f64>().ok();
    let ratio = ratio.filter(|ratio| (0.0..100_000.0).contains(ratio));
    let ratio = ratio.ok_or("write it like 1.05")?;
    Ok((ratio * 10_000.0).round() as u32)
}

/// Reads how long a step may take; the server says which can be meant.
fn step_time(text: &str) -> Result<Duration, String> {
    let read: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write it like 30s, 15m or 2h".to_owned())?;
    match read.is_negative() {
        true => Err("a step does not end before it begins".to_owned()),
        false => Ok(read.unsigned_abs()),
    }
}

pub(super) fn run(args: CanaryArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    match args.command {
        CanaryCommand::Start {
            file,
            share,
            step,
            until,
            minimum_sample,
            p99_ratio,
            step_time,
            server,
        } => {
            let toml = read(&file)?;
            let settings = CanarySettings {
                share,
                step,
                until,
                minimum_sample,
                p99_ratio,
                step_time_ms: step_time
                    .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            };
            let start = async |client: Client| Ok(client.canary_start(&toml, &settings).await?);
            let started = server.run(start)?;
            if globals.json {
                Facts::default()
                    .with("version", started.version)
                    .with("lsn", started.lsn)
                    .with("share_percent", started.share)
                    .with("warnings", started.warnings)
                    .print(true)?;
            } else {
                print_warnings(&started.warnings);
                print::line(&format!(
                    "route table {} is a canary for {} % of orders since lsn {}",
                    started.version, started.share, started.lsn
                ))?;
            }
        }
        CanaryCommand::Status { server } => {
            let status = server.run(async |client| Ok(client.canary_status().await?))?;
            print_status(&status, globals.json)?;
        }
        CanaryCommand::Resume { server } => {
            let changed = server.run(async |client| Ok(client.canary_resume().await?))?;
            let CanaryChangeReply { version, share, .. } = changed;
            let text = format!("route table {version} goes on as a canary for {share} % of orders");
            print_changed(&changed, &text, globals.json)?;
        }
        CanaryCommand::Abort { server } => {
            let changed = server.run(async |client| Ok(client.canary_abort().await?))?;
            let text = format!("route table {} is a canary no more", changed.version);
            print_changed(&changed, &text, globals.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_changed(changed: &CanaryChangeReply, text: &str, as_json: bool) -> Result<(), CliError> {
    if !as_json {
        return print::line(&format!("{text}, since lsn {}", changed.lsn));
    }
    Facts::default()
        .with("version", changed.version)
        .with("lsn", changed.lsn)
        .with("share_percent", changed.share)
        .print(true)
}

/// Words of numbers; of those that a newer server has, the numbers.
fn words(step: &CanaryStep) -> (String, String) {
    let deed = CanaryDeed::try_from(step.deed).map(CanaryDeed::name);
    let reason = CanaryReason::try_from(step.reason).map(CanaryReason::name);
    (
        deed.map_or_else(|_| step.deed.to_string(), str::to_owned),
        reason.map_or_else(|_| step.reason.to_string(), str::to_owned),
    )
}

fn print_status(status: &CanaryStatusReply, as_json: bool) -> Result<(), CliError> {
    let settings = &status.settings;
    let ratio = settings.p99_ratio.map(|ratio| f64::from(ratio) / 10_000.0);
    let share = status.steps.last().map_or(0, |step| step.share);
    let state = match status.steps.last() {
        None => "none".to_owned(),
        Some(last) => words(last).0,
    };
    let facts = Facts::default()
        .with("state", state)
        .with("in_force", status.in_force);
    if status.version == 0 {
        return facts.print(as_json);
    }
    let facts = facts
        .with("version", status.version)
        .with("under_way", status.under_way)
        .with("share_percent", share)
        .with("step_percent", settings.step)
        .with("until_percent", settings.until)
        .with("minimum_sample", settings.minimum_sample)
        .with("p99_ratio", ratio)
        .with("step_time_ms", settings.step_time_ms)
        .with_some("next_look", status.under_way.then_some(status.next_look));
    if as_json {
        let steps = status.steps.iter().map(|step| {
            let (deed, reason) = words(step);
            json!({
                "lsn": step.lsn, "at": rfc3339(step.unix_ms), "deed": deed, "reason": reason, "share_percent": step.share,
                "canary": group(step.groups.first()), "baseline": group(step.groups.get(1)),
            })
        });
        return facts
            .with("canary", group(status.groups.first()))
            .with("baseline", group(status.groups.get(1)))
            .with("steps", steps.collect::<Vec<Value>>())
            .print(true);
    }
    facts.print(false)?;
    let mut grid = Grid::new(&[
        ">lsn", "at", "deed", "why", ">share", "group", ">orders", ">failed", ">p50 µs", ">p99 µs",
    ]);
    for step in &status.steps {
        let (deed, reason) = words(step);
        let share = format!("{} %", step.share);
        let head = [
            step.lsn.to_string(),
            rfc3339(step.unix_ms),
            deed,
            reason,
            share,
        ];
        put_groups(&mut grid, head, &step.groups);
    }
    if status.under_way {
        let share = format!("{share} %");
        let head = ["", "", "now", "", &share].map(str::to_owned);
        put_groups(&mut grid, head, &status.groups);
    }
    grid.print()
}

/// A row for each group, the first of which has the rest in it; one row if nothing was seen.
fn put_groups(grid: &mut Grid, head: [String; 5], groups: &[CanaryGroup]) {
    let seen = groups.iter().any(|group| group.orders > 0);
    let named = ["canary", "baseline"].into_iter().zip(groups);
    let mut head = Some(head);
    for (name, group) in named.filter(|_| seen) {
        let figures = [group.orders, group.failed, group.p50_us, group.p99_us];
        let cells = head.take().unwrap_or_default().into_iter();
        let figures = figures.map(|figure| figure.to_string());
        grid.row(cells.chain([name.to_owned()]).chain(figures));
    }
    if let Some(head) = head {
        grid.row(head.into_iter().chain(vec![String::new(); 5]));
    }
}

fn group(group: Option<&CanaryGroup>) -> Value {
    group.map_or(Value::Null, |group| {
        json!({
            "orders": group.orders, "failed": group.failed, "p50_us": group.p50_us, "p99_us": group.p99_us,
        })
    })
}
