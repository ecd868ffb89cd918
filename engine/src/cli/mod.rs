//! The command line: what operators type, one file a command or family.
//!
//! Results go to stdout, logs and errors to stderr. Exit codes: 0 done, 1 refused or failed, 2 usage, 3 damage found,
//! 4 not reachable. Client commands speak the wire protocol through `croupier-client` like everyone else; only `init`,
//! `serve`, `quickstart` and `wal` touch a store, and they do it through [`engine_seam`].
//!
//! Start with [`Command`]; [`print`] is how results look, [`error`] is what an exit code means.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod init;
mod quickstart;
mod serve;
mod signals;

mod cards;
mod deliver;
mod feed;
mod hold;
mod holder;
mod import;
mod issue;
mod linked;
mod order;
mod pick;
mod sku;
mod stock;

mod canary;
mod channels;
mod info;
mod ping;
mod retry;
mod routes;
mod wal;
mod what_if;

mod connect;
mod engine_seam;
mod error;
mod log;
mod moves;
mod print;
mod records;

#[cfg(test)]
mod tests;

use error::CliError;

/// Deals gift codes, licence keys and prepaid cards exactly once, durably, fast.
#[derive(Debug, Parser)]
#[command(name = "croupier", version, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 done, 1 refused or failed, 2 usage, 3 damage found, 4 not reachable.

New here? Type: croupier quickstart")]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
struct Globals {
    /// Print one JSON object or array on stdout
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
    /// What to log on stderr, like "info" or "croupier_engine=debug" [default: RUST_LOG, else warn, for serve info]
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        help_heading = "Everywhere"
    )]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Quickstart(quickstart::QuickstartArgs),
    Init(init::InitArgs),
    Serve(serve::ServeArgs),
    Sku(sku::SkuArgs),
    Import(import::ImportArgs),
    Deliver(deliver::DeliverArgs),
    Issue(issue::IssueArgs),
    Reserve(hold::ReserveArgs),
    Commit(hold::CommitArgs),
    Cancel(hold::CancelArgs),
    Extend(hold::ExtendArgs),
    Order(order::OrderArgs),
    Orders(holder::OrdersArgs),
    Stock(stock::StockArgs),
    Cards(cards::CardsArgs),
    Batches(cards::BatchesArgs),
    Suspend(moves::SuspendArgs),
    Resume(moves::ResumeArgs),
    Void(moves::VoidArgs),
    Routes(routes::RoutesArgs),
    Canary(canary::CanaryArgs),
    Channels(channels::ChannelsArgs),
    Retry(retry::RetryArgs),
    Feed(feed::FeedArgs),
    Ping(ping::PingArgs),
    Info(info::InfoArgs),
    Wal(wal::WalArgs),
}

impl Command {
    fn log_default(&self) -> &'static str {
        match self {
            Command::Serve(_) => "info",
            _ => "warn",
        }
    }

    fn run(self, globals: &Globals) -> Result<ExitCode, CliError> {
        match self {
            Command::Quickstart(args) => quickstart::run(args, globals),
            Command::Init(args) => init::run(args, globals),
            Command::Serve(args) => serve::run(args, globals),
            Command::Sku(args) => sku::run(args, globals),
            Command::Import(args) => import::run(args, globals),
            Command::Deliver(args) => deliver::run(args, globals),
            Command::Issue(args) => issue::run(args, globals),
            Command::Reserve(args) => hold::reserve(args, globals),
            Command::Commit(args) => hold::commit(args, globals),
            Command::Cancel(args) => hold::cancel(args, globals),
            Command::Extend(args) => hold::extend(args, globals),
            Command::Order(args) => order::run(args, globals),
            Command::Orders(args) => holder::orders(args, globals),
            Command::Stock(args) => stock::run(args, globals),
            Command::Cards(args) => cards::cards(args, globals),
            Command::Batches(args) => cards::batches(args, globals),
            Command::Suspend(args) => moves::suspend(args, globals),
            Command::Resume(args) => moves::resume(args, globals),
            Command::Void(args) => moves::void(args, globals),
            Command::Routes(args) => routes::run(args, globals),
            Command::Canary(args) => canary::run(args, globals),
            Command::Channels(args) => channels::run(&args, globals),
            Command::Retry(args) => retry::run(args, globals),
            Command::Feed(args) => feed::run(args, globals),
            Command::Ping(args) => ping::run(args, globals),
            Command::Info(args) => info::run(args, globals),
            Command::Wal(args) => wal::run(args, globals),
        }
    }
}

/// The whole program: reads `args` (the first is the program's name), does what they say, reports on stderr.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, with exit code 0 and their text for stdout.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(error::USAGE));
        }
    };
    let done = log::start(cli.globals.log.as_deref(), cli.command.log_default())
        .and_then(|()| cli.command.run(&cli.globals));
    match done {
        Ok(code) => code,
        Err(error) => error.report(cli.globals.json),
    }
}
