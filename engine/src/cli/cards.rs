//! `croupier cards` and `batches`: what became of cards, and who got them.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use croupier_client::{CardRow, CardSelection, CardStatus, Client};
use croupier_protocol::{CardRef, OrderId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::print::{self, Grid, Rows};
use super::records::rfc3339;

/// Show what became of cards: which are free, and which order got the others
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").args(["sku", "card", "order", "secret_file"]).required(true).multiple(true))]
#[command(after_help = "\
Examples:
  croupier cards --sku steam-50 --batch 2026-11-21-a --status issued
  croupier cards --card 3:17
  croupier cards --secret-file -      (a secret on each line of stdin: who got it?)")]
pub(super) struct CardsArgs {
    /// Cards of this SKU; with --secret-file: look only there
    #[arg(long, value_name = "NAME", conflicts_with_all = ["card", "order"])]
    sku: Option<String>,
    /// Only those of the batch with this label
    #[arg(
        long,
        value_name = "LABEL",
        requires = "sku",
        conflicts_with = "secret_file"
    )]
    batch: Option<String>,
    /// This card, as slab:slot; may be given several times
    #[arg(long, value_name = "CARD", conflicts_with = "order")]
    card: Vec<CardRef>,
    /// The cards of this order
    #[arg(long, value_name = "ID")]
    order: Option<OrderId>,
    /// The cards that have these secrets, one on each line of a file; - is stdin. (Not as an argument: others could read it)
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["card", "order"])]
    secret_file: Option<PathBuf>,
    /// Only those that are just now free, issued, suspended or void
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<CardStatus>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Show the batches that have been imported
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croupier batches --sku steam-50")]
pub(super) struct BatchesArgs {
    /// Only those of this SKU
    #[arg(long, value_name = "NAME")]
    sku: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

fn status(text: &str) -> Result<CardStatus, String> {
    CardStatus::ALL
        .into_iter()
        .find(|status| status.name() == text)
        .ok_or_else(|| "a status is free, issued, suspended or void".into())
}

pub(super) fn cards(args: CardsArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let mut rows = Rows::new(globals.json);
    args.server.run(async |client| match &args.secret_file {
        Some(file) => by_secret(&client, &args, file, &mut rows).await,
        None => by_place(&client, &args, &mut rows).await,
    })?;
    rows.end()?;
    Ok(ExitCode::SUCCESS)
}

async fn by_place(client: &Client, args: &CardsArgs, rows: &mut Rows) -> Result<(), CliError> {
    let which = match (&args.sku, &args.batch, args.order) {
        (Some(sku), Some(label), _) => CardSelection::Batch {
            sku: sku.clone(),
            label: label.clone(),
        },
        (Some(sku), None, _) => CardSelection::Sku(sku.clone()),
        (None, _, Some(id)) => CardSelection::Order(id),
        (None, ..) => CardSelection::Cards(args.card.clone()),
    };
    pages(client, &which, args.status, None, rows).await
}

async fn pages(
    client: &Client,
    which: &CardSelection,
    status: Option<CardStatus>,
    line: Option<u64>,
    rows: &mut Rows,
) -> Result<(), CliError> {
    let mut after = None;
    loop {
        let (page, next) = client.list_cards(which, status, after).await?;
        for card in &page {
            put(card, line, rows)?;
        }
        match next {
            Some(_) => after = next,
            None => return Ok(()),
        }
    }
}

async fn by_secret(
    client: &Client,
    args: &CardsArgs,
    file: &PathBuf,
    rows: &mut Rows,
) -> Result<(), CliError> {
    let fault = |source| CliError::Path {
        op: "read",
        path: file.clone(),
        source,
    };
    let mut secrets = Zeroizing::new(Vec::new());
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut secrets).map_err(fault)?;
    } else {
        *secrets = std::fs::read(file).map_err(fault)?;
    }
    let sku = match &args.sku {
        Some(name) => Some(client.sku_id(name).await?),
        None => None,
    };
    for (line, secret) in (1..).zip(secrets.split(|&byte| byte == b'\n')) {
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.is_empty() {
            continue;
        }
        let (found, has_more) = client.find_secret_page(sku, secret).await?;
        if found.is_empty() {
            put_unknown(line, rows)?;
        }
        if has_more {
            let place = |card: &CardRow| CardRef {
                slab: card.slab,
                slot: card.slot,
                generation: card.generation,
            };
            let cards = CardSelection::Cards(found.iter().map(place).collect());
            pages(client, &cards, args.status, Some(line), rows).await?;
            continue;
        }
        let wanted = |card: &&CardRow| {
            args.status
                .is_none_or(|status| card.status == status.as_u16())
        };
        for card in found.iter().filter(wanted) {
            put(card, Some(line), rows)?;
        }
    }
    Ok(())
}

fn put(card: &CardRow, line: Option<u64>, rows: &mut Rows) -> Result<(), CliError> {
    let status = CardStatus::try_from(card.status).map_or("unknown", CardStatus::name);
    let place = format!("{}:{}.{}", card.slab, card.slot, card.generation);
    let order = card.order.map(|id| OrderId::from_bytes(id).to_string());
    let expires = (card.expires_at_s > 0).then(|| rfc3339(card.expires_at_s.saturating_mul(1000)));
    if !rows.is_json() {
        let line = line.map_or(String::new(), |line| format!("line {line}: "));
        let batch = card.batch;
        let order = order.map_or(String::new(), |order| {
            format!(" order {order} lsn {}", card.lsn)
        });
        let expires = expires.map_or(String::new(), |at| format!(" expires {at}"));
        return rows.put_text(&format!(
            "{line}{place} {status} batch {batch}{order}{expires}"
        ));
    }
    let mut value = json!({
        "card": place, "status": status, "sku_id": card.sku, "batch_id": card.batch, "order_id": order,
        "lsn": (card.lsn > 0).then_some(card.lsn), "expires_at": expires,
    });
    if let Some(line) = line {
        value["line"] = line.into();
    }
    rows.put_json(&value)
}

fn put_unknown(line: u64, rows: &mut Rows) -> Result<(), CliError> {
    if rows.is_json() {
        rows.put_json(&json!({ "line": line, "card": Value::Null }))
    } else {
        rows.put_text(&format!("line {line}: no card has this secret"))
    }
}

pub(super) fn batches(args: BatchesArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let (batches, skus) = args.server.run(async |client| {
        let batches = client.batches(args.sku.as_deref()).await?;
        Ok((batches, client.sku_list().await?))
    })?;
    let name = |sku: u32| {
        let row = skus.iter().find(|row| row.sku == sku);
        row.map_or_else(|| format!("#{sku}"), |row| row.name.clone())
    };
    if globals.json {
        let rows: Vec<Value> = batches
            .iter()
            .map(|row| {
                json!({
                    "batch_id": row.batch, "batch": row.label, "sku": name(row.sku), "sku_id": row.sku,
                    "pool": row.pool, "sealed_at": rfc3339(row.sealed_unix_ms), "cards": row.cards,
                    "free": row.free, "suspended": row.suspended, "issued": row.issued, "void": row.void,
                })
            })
            .collect();
        print::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut grid = Grid::new(&[
        ">id",
        "batch",
        "sku",
        "pool",
        "sealed at",
        ">cards",
        ">free",
        ">suspended",
        ">issued",
        ">void",
    ]);
    for row in batches {
        let counts = [row.cards, row.free, row.suspended, row.issued, row.void];
        let head = [
            row.batch.to_string(),
            row.label,
            name(row.sku),
            row.pool,
            rfc3339(row.sealed_unix_ms),
        ];
        grid.row(
            head.into_iter()
                .chain(counts.map(|count| count.to_string())),
        );
    }
    grid.print()?;
    Ok(ExitCode::SUCCESS)
}
