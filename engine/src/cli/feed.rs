//! `croupier feed`: what happens in a store, a line a fact.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use croupier_client::{
    CardRun, Client, Error, FeedEvent, FeedFact, FeedKind, FeedOptions, Lsn, Refusal, RetryCause,
    SkuId,
};
use serde_json::{Value, json};

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::print::{self, Facts};
use super::records::{rfc3339, until};

/// Tell what happens in the store: its durable facts, in order, never a secret
///
/// Ends with the newest fact, unless --follow is given. With --json each line is one object.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier feed --json
  croupier feed --follow --from 812
  croupier feed --sku steam-50 --kind issued --kind released")]
pub(super) struct FeedArgs {
    /// The LSN to go on from; 0 is the oldest fact there is
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    from: u64,
    /// Only facts of this SKU, and those of none; may be given several times
    #[arg(long, value_name = "NAME")]
    sku: Vec<String>,
    /// Only facts of this kind; may be given several times
    #[arg(long, value_name = "KIND", value_parser = kind_parser())]
    kind: Vec<FeedKind>,
    /// Go on as facts come
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    server: ServerArgs,
}

fn kind_parser() -> impl clap::builder::TypedValueParser<Value = FeedKind> {
    use clap::builder::TypedValueParser as _;
    let names = FeedKind::ALL.map(FeedKind::name);
    clap::builder::PossibleValuesParser::new(names).map(|name| {
        let kind = FeedKind::ALL.into_iter().find(|kind| kind.name() == name);
        kind.expect("one of the possible values")
    })
}

/// How long a request that follows waits.
const WAIT: Duration = Duration::from_secs(20);

pub(super) fn run(args: FeedArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    args.server.run(async |client| {
        let mut skus = Vec::new();
        for name in &args.sku {
            skus.push(client.sku_id(name).await?);
        }
        let options = FeedOptions {
            from: Lsn(args.from),
            skus,
            kinds: args.kind,
            facts_max: 0,
            wait: if args.follow { WAIT } else { Duration::ZERO },
        };
        let names = Names::default();
        tell(client, options, names, args.follow, globals.json).await
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn tell(
    client: Client,
    mut options: FeedOptions,
    mut names: Names,
    follow: bool,
    as_json: bool,
) -> Result<(), CliError> {
    // Facts that come while this runs are for the next time, or it might never end.
    let mut last = None;
    loop {
        let page = client.feed(&options).await;
        let page = page.map_err(|error| broken_off(error, options.from))?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        for fact in &page.facts {
            let sku = match fact.event.sku() {
                Some(sku) => Some((sku, names.of(&client, sku, &fact.event).await)),
                None => None,
            };
            let facts = facts(fact, sku, as_json);
            let line = if as_json {
                facts.into_json().to_string()
            } else {
                print::shown(&facts.into_line())
            };
            writeln!(out, "{line}").map_err(print::stdout_error)?;
        }
        out.flush().map_err(print::stdout_error)?;
        options.from = page.next;
        let last = *last.get_or_insert(page.end);
        if !follow && page.next >= last {
            return Ok(());
        }
    }
}

fn broken_off(error: Error, next: Lsn) -> CliError {
    match error.refusal() {
        // From there it does not go on.
        Some(Refusal::FeedTooOld | Refusal::FeedAhead) => error.into(),
        _ => CliError::Feed {
            next: next.0,
            error,
        },
    }
}

/// Names of SKUs, as far as they have been met.
#[derive(Default)]
struct Names(HashMap<SkuId, String>);

impl Names {
    /// `#7` where it cannot be told: a name is a comfort, and no reason to stop.
    async fn of(&mut self, client: &Client, sku: SkuId, event: &FeedEvent) -> String {
        if let FeedEvent::SkuCreated { name, .. } = event {
            self.0.insert(sku, name.clone());
        }
        if !self.0.contains_key(&sku)
            && let Ok(rows) = client.sku_list().await
        {
            self.0
                .extend(rows.into_iter().map(|row| (SkuId(row.sku), row.name)));
        }
        let name = self.0.get(&sku).cloned();
        name.unwrap_or_else(|| format!("#{sku}"))
    }
}

/// A fact as named values. Numbers that say again what a name says are for programs.
fn facts(fact: &FeedFact, sku: Option<(SkuId, String)>, as_json: bool) -> Facts {
    let mut common = Facts::default()
        .with("lsn", fact.lsn.0)
        .with("at", rfc3339(fact.unix_ms))
        .with("kind", fact.event.kind().name());
    if let Some((id, name)) = sku {
        common = common.with("sku", name);
        if as_json {
            common = common.with("sku_id", id.0);
        }
    }
    match &fact.event {
        FeedEvent::Started { epoch, version } => common
            .with("epoch", *epoch)
            .with("version", version.as_str()),
        // Its name is told above.
        FeedEvent::SkuCreated { .. } => common,
        FeedEvent::SkuSet {
            deal_order,
            hold_share_max_percent,
            ..
        } => common
            .with("selection", deal_order.name())
            .with("hold_share_max_percent", *hold_share_max_percent),
        FeedEvent::BatchSealed {
            batch,
            label,
            pool,
            cards,
            ..
        } => common
            .with("batch", label.as_str())
            .with("batch_id", *batch)
            .with("pool", pool.as_str())
            .with("quantity", *cards),
        FeedEvent::CardsAdded {
            batch,
            quantity,
            cards,
            ..
        } => common
            .with("batch_id", *batch)
            .with("quantity", *quantity)
            .with("cards", places(cards, as_json)),
        FeedEvent::Issued {
            order_id,
            quantity,
            cards,
            way,
            fewer,
            ..
        } => common
            .with("order_id", order_id.to_string())
            .with("quantity", *quantity)
            .with("way", way.name())
            .with("fewer", *fewer)
            .with("cards", places(cards, as_json)),
        FeedEvent::RoutesLoaded { version } => common.with("version", *version),
        FeedEvent::ChannelChanged {
            channel,
            standing,
            cause,
            ejections,
            until_unix_ms,
        } => common
            .with("channel", channel.clone())
            .with("standing", standing.name())
            .with("cause", cause.name())
            .with("ejections", *ejections)
            .with_some("until", until(*until_unix_ms)),
        FeedEvent::Canary {
            version,
            deed,
            reason,
            share_percent,
        } => common
            .with("version", *version)
            .with("deed", deed.name())
            .with("reason", reason.name())
            .with("share_percent", *share_percent),
        FeedEvent::CardsMoved {
            quantity,
            cards,
            from,
            to,
            cause,
            ..
        } => common
            .with("quantity", *quantity)
            .with("from", from.name())
            .with("to", to.name())
            .with("cause", cause.name())
            .with("cards", places(cards, as_json)),
        FeedEvent::Reserved {
            order_id,
            quantity,
            ttl,
            cards,
            ..
        } => {
            let facts = common
                .with("order_id", order_id.to_string())
                .with("quantity", *quantity)
                .with("ttl_ms", ms(*ttl));
            match cards[..] {
                [] => facts,
                _ => facts.with("cards", places(cards, as_json)),
            }
        }
        FeedEvent::Extended {
            order_id, nth, ttl, ..
        } => common
            .with("order_id", order_id.to_string())
            .with("extension", *nth)
            .with("ttl_ms", ms(*ttl)),
        FeedEvent::Released {
            order_id,
            quantity,
            end,
            ..
        } => common
            .with("order_id", order_id.to_string())
            .with("quantity", *quantity)
            .with("why", end.name()),
        FeedEvent::Backordered {
            order_id,
            quantity,
            ends_unix_ms,
            ..
        } => common
            .with("order_id", order_id.to_string())
            .with("quantity", *quantity)
            .with("ends_unix_ms", *ends_unix_ms)
            .with("ends_at", rfc3339(*ends_unix_ms)),
        FeedEvent::Retried {
            order_id,
            attempts,
            cause,
            again_unix_ms,
            ..
        } => common
            .with("order_id", order_id.to_string())
            .with("attempts", *attempts)
            .with_some("cause", cause.map(RetryCause::name))
            .with_some(
                "again_at",
                (*again_unix_ms != 0).then(|| rfc3339(*again_unix_ms)),
            ),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// For programs as in `wal dump`; for people `3:17`, or `3:17+4` for that card and the four behind it.
fn places(cards: &[CardRun], as_json: bool) -> Value {
    let runs = cards.iter().map(|run| {
        let CardRun {
            slab,
            slot,
            count,
            generation,
        } = run;
        if as_json {
            json!({ "slab": slab, "slot": slot, "count": count, "generation": generation })
        } else {
            let generation = match generation {
                0 => String::new(),
                _ => format!(".{generation}"),
            };
            let more = match count {
                1 => String::new(),
                _ => format!("+{}", count - 1),
            };
            Value::from(format!("{slab}:{slot}{generation}{more}"))
        }
    });
    let runs: Vec<Value> = runs.collect();
    if as_json {
        return Value::from(runs);
    }
    let texts = runs.iter().filter_map(Value::as_str);
    Value::from(texts.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use croupier_client::{IssueWay, OrderId};

    #[test]
    fn a_fact_for_people_and_for_programs() {
        let run = |slot, count, generation| CardRun {
            slab: 3,
            slot,
            count,
            generation,
        };
        let fact = FeedFact {
            lsn: Lsn(812),
            unix_ms: 1_846_022_399_050,
            event: FeedEvent::Issued {
                order_id: OrderId::from_u128(7),
                sku: SkuId(4),
                quantity: 3,
                cards: vec![run(9, 2, 0), run(17, 1, 1)],
                way: IssueWay::Commit,
                fewer: 1,
            },
        };
        let named = || Some((SkuId(4), "steam-50".to_owned()));
        assert_eq!(
            facts(&fact, named(), false).into_line(),
            "lsn=812 at=2028-06-30T23:59:59.050Z kind=issued sku=steam-50 \
             order_id=00000000-0000-0000-0000-000000000007 quantity=3 way=commit fewer=1 cards=3:9+1,3:17.1"
        );
        let expect = json!({
            "lsn": 812, "at": "2028-06-30T23:59:59.050Z", "kind": "issued", "sku": "steam-50", "sku_id": 4,
            "order_id": "00000000-0000-0000-0000-000000000007", "quantity": 3, "way": "commit", "fewer": 1,
            "cards": [
                { "slab": 3, "slot": 9, "count": 2, "generation": 0 },
                { "slab": 3, "slot": 17, "count": 1, "generation": 1 },
            ],
        });
        assert_eq!(facts(&fact, named(), true).into_json(), expect);
    }
}
