//! `croupier retry`: orders that no channel could fill yet.

use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand};
use croupier_client::{Client, RetryCause, RetryListReply, RetryRow, RetryTo, RetryWhich};
use croupier_protocol::{OrderId, Priority};

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::print::{Facts, Rows};
use super::records::rfc3339;

/// See and move orders that wait for another attempt of their channels, or have used them up
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier retry list --buried
  croupier retry kick --sku steam-50
  croupier retry bury --order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10
  croupier retry drain --all --buried")]
pub(super) struct RetryArgs {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Show which orders no channel could fill yet, since when and why
    #[command(after_help = "Example:\n  croupier retry list --sku steam-50 --buried")]
    List(ListArgs),
    /// Ask the channels at once, from the first attempt on; also for orders that are buried
    #[command(after_help = "Example:\n  croupier retry kick --all --buried")]
    Kick(MoveArgs),
    /// Ask no channel any more; the orders wait on for stock that comes otherwise
    #[command(
        after_help = "Example:\n  croupier retry bury --order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10"
    )]
    Bury(MoveArgs),
    /// Cancel the orders
    #[command(after_help = "Example:\n  croupier retry drain --sku steam-50 --buried")]
    Drain(MoveArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only those of this SKU
    #[arg(long, value_name = "NAME")]
    sku: Option<String>,
    #[command(flatten)]
    which: BuriedArgs,
    /// Show at most so many; 0 shows only how many there are
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct BuriedArgs {
    /// Only those that have used up their attempts
    #[arg(long, conflicts_with = "retrying")]
    buried: bool,
    /// Only those that wait for another attempt
    #[arg(long)]
    retrying: bool,
}

impl BuriedArgs {
    fn is_buried(&self) -> Option<bool> {
        match (self.buried, self.retrying) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").args(["order", "sku", "all"]).required(true))]
struct MoveArgs {
    /// This order; may be given several times
    #[arg(long, value_name = "ID")]
    order: Vec<OrderId>,
    /// All of this SKU that no channel could fill
    #[arg(long, value_name = "NAME")]
    sku: Option<String>,
    /// All that no channel could fill
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: BuriedArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: RetryArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    match args.deed {
        Deed::List(args) => list(&args, globals)?,
        Deed::Kick(args) => change(RetryTo::Kick, "kicked", args, globals)?,
        Deed::Bury(args) => change(RetryTo::Bury, "buried", args, globals)?,
        Deed::Drain(args) => change(RetryTo::Drain, "drained", args, globals)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ListArgs, globals: &Globals) -> Result<(), CliError> {
    let mut rows = Rows::new(false);
    let mut orders = Vec::new();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let totals = args.server.run(async |client| {
        let names = names(&client).await?;
        let mut after = 0;
        loop {
            // 0 would be as many as fit.
            let limit = u32::try_from(left.clamp(1, 1000)).unwrap_or(1000);
            let sku = args.sku.as_deref();
            let buried = args.which.is_buried();
            let page = client.retries(sku, buried, after, limit).await?;
            for row in &page.rows {
                if left == 0 {
                    break;
                }
                left -= 1;
                let facts = facts(row, &names);
                match globals.json {
                    true => orders.push(facts.into_json()),
                    false => rows.put_text(&facts.into_line())?,
                }
            }
            match page.next.filter(|_| left > 0) {
                Some(next) => after = next,
                None => return Ok(page),
            }
        }
    })?;
    rows.end()?;
    if globals.json {
        let oldest = (totals.oldest_unix_ms != 0).then(|| rfc3339(totals.oldest_unix_ms));
        return Facts::default()
            .with("waiting", totals.waiting)
            .with("retrying", totals.retrying)
            .with("buried", totals.buried)
            .with("oldest_since", oldest)
            .with("orders", orders)
            .print(true);
    }
    eprintln!("{}", sentence(&totals));
    Ok(())
}

async fn names(client: &Client) -> Result<Vec<(u32, String)>, CliError> {
    let skus = client.sku_list().await?;
    Ok(skus.into_iter().map(|sku| (sku.sku, sku.name)).collect())
}

fn facts(row: &RetryRow, names: &[(u32, String)]) -> Facts {
    let name = names.iter().find(|(sku, _)| *sku == row.sku);
    let name = name.map_or_else(|| format!("#{}", row.sku), |(_, name)| name.clone());
    let priority = u8::try_from(row.priority).ok();
    let priority = priority.and_then(|number| Priority::try_from(number).ok());
    let cause = RetryCause::try_from(row.cause).ok();
    let again = (row.again_unix_ms != 0).then(|| rfc3339(row.again_unix_ms));
    Facts::default()
        .with("order", OrderId::from_bytes(row.order).to_string())
        .with("sku", name)
        .with("quantity", row.quantity)
        .with_some("priority", priority.map(Priority::name))
        .with("state", if row.buried { "buried" } else { "retrying" })
        .with("attempts", row.attempts)
        .with_some("cause", cause.map(RetryCause::name))
        .with_some("again_at", again)
        .with("waits_since", rfc3339(row.since_unix_ms))
        .with("ends_at", rfc3339(row.ends_unix_ms))
}

fn sentence(totals: &RetryListReply) -> String {
    let RetryListReply {
        waiting,
        retrying,
        buried,
        oldest_unix_ms,
        ..
    } = totals;
    let oldest = match oldest_unix_ms {
        0 => String::new(),
        since => format!("; the oldest waits since {}", rfc3339(*since)),
    };
    format!("{waiting} orders wait: {retrying} for another attempt, {buried} are buried{oldest}")
}

fn change(
    to: RetryTo,
    done: &'static str,
    args: MoveArgs,
    globals: &Globals,
) -> Result<(), CliError> {
    let buried = args.which.is_buried();
    let which = match args.order.is_empty() {
        false => RetryWhich::Orders(args.order),
        true => RetryWhich::All {
            sku: args.sku,
            buried,
        },
    };
    let server = &args.server;
    let reply = server.run(async |client| Ok(client.move_retries(to, &which).await?))?;
    Facts::default()
        .with(done, reply.moved)
        .with("lsn", reply.lsn)
        .print(globals.json)
}
