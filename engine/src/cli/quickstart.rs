//! `croupier quickstart`: everything at once, told as a short story, and then it keeps serving.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use croupier_client::{Client, Error, ImportOptions, Order};
use croupier_protocol::{ImportRow, IssuedOrder, OrderId, Refusal};
use serde_json::json;
use uuid::Uuid;

use super::Globals;
use super::connect::runtime;
use super::engine_seam;
use super::error::CliError;
use super::order::order_json;
use super::print;
use super::serve::{SettingsArgs, keep_serving, start};
use super::signals::Signals;
use crate::config::LISTEN_DEFAULT;

/// The SKU that this command sells.
const SKU: &str = "quickstart-demo";
/// With fewer free cards than this it imports some.
const FREE_MIN: u64 = 10;
/// How many it imports.
const CARDS: usize = 100;

/// Make a store, serve it, stock it, deal a card, and keep serving until Ctrl-C
///
/// Works again on the directory it made. Takes the settings of serve.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croupier quickstart --data /tmp/try")]
pub(super) struct QuickstartArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(args: QuickstartArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let config = args.settings.load()?;
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let data = config.data.display().to_string();
        let made = engine_seam::init_if_absent(&config)?;
        let server = start(config, &mut signals).await?;
        let url = format!("croupier://{}", reachable(server.local_addr()));
        let story = Story {
            data,
            made,
            url,
            ops: server.ops_addr(),
            deal: deal(server.local_addr()).await?,
        };
        if globals.json {
            print::line(&story.json().to_string())?
        } else {
            print::line(&story.text())?
        }
        Ok(keep_serving(server, signals).await)
    })
}

/// An address to connect to for one that was listened on: "any" is no address to call.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    addr
}

/// What happened at the table.
struct Deal {
    imported: u64,
    order: IssuedOrder,
    took: Duration,
    again: bool,
    free: u64,
}

/// The whole life of a card, through the client that everyone uses.
async fn deal(addr: SocketAddr) -> Result<Deal, CliError> {
    let client = Client::connect(&format!("croupier://{}", reachable(addr))).await?;
    let imported = if free(&client).await? < FREE_MIN {
        import(&client).await?
    } else {
        0
    };
    let sku = client.sku_id(SKU).await?;
    let begin = Instant::now();
    let order = client.issue(Order::new(OrderId::new_v7(), sku)).await?;
    let took = begin.elapsed();
    let again = client.order(order.order_id).await?.is_some_and(|found| {
        found
            .issued()
            .is_some_and(|found| found.cards == order.cards)
    });
    let free = free(&client).await?;
    Ok(Deal {
        imported,
        order,
        took,
        again,
        free,
    })
}

async fn free(client: &Client) -> Result<u64, CliError> {
    match client.stock(Some(SKU)).await {
        Ok(rows) => Ok(rows.iter().map(|row| row.free).sum()),
        Err(Error::Refused {
            refusal: Refusal::UnknownSku,
            ..
        }) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

async fn import(client: &Client) -> Result<u64, CliError> {
    let options = ImportOptions {
        sku: SKU.to_owned(),
        create_sku: true,
        batch: Some("quickstart".to_owned()),
        ..ImportOptions::default()
    };
    let mut import = client.import(options).await?;
    for line in 1..=CARDS as u64 {
        import
            .push(ImportRow::new(line, demo_code(Uuid::new_v4()).as_bytes()))
            .await?;
    }
    Ok(import.finish().await?.accepted)
}

/// `DEMO-XXXXX-XXXXX-XXXXX` in an alphabet without look-alikes: 75 random bits.
fn demo_code(random: Uuid) -> String {
    const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
    let mut code = "DEMO".to_owned();
    // The low five bits of each byte but the one with the version in it.
    let random = random.into_bytes();
    for (at, byte) in random[..6].iter().chain(&random[7..]).enumerate() {
        if at % 5 == 0 {
            code.push('-');
        }
        code.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    code
}

struct Story {
    data: String,
    made: bool,
    url: String,
    ops: SocketAddr,
    deal: Deal,
}

impl Story {
    fn text(&self) -> String {
        let Deal {
            imported,
            order,
            took,
            again,
            free,
        } = &self.deal;
        let card = order.cards.first();
        let secret = card
            .map(|card| card.secret.to_string_lossy().into_owned())
            .unwrap_or_default();
        let stock = match imported {
            0 => format!("{free} cards of {SKU} are free"),
            some => format!("{some} demo cards imported into {SKU}, {free} are free now"),
        };
        let again = if *again {
            "looked up by the same id: the same card"
        } else {
            "looked up: ANOTHER ANSWER"
        };
        let server = if self.url == format!("croupier://{LISTEN_DEFAULT}") {
            String::new()
        } else {
            format!(" --server {}", self.url)
        };
        let mut text = String::new();
        let mut say = |what: &str, words: &str| {
            writeln!(text, "  {what:<8} {words}").expect("memory takes text")
        };
        say(
            "store",
            &format!(
                "{} ({})",
                self.data,
                if self.made {
                    "made just now"
                } else {
                    "opened again"
                }
            ),
        );
        say("stock", &stock);
        say("order", &order.order_id.to_string());
        say(
            "card",
            &format!(
                "{secret}   durable at lsn {} after {} µs",
                order.lsn,
                took.as_micros()
            ),
        );
        say("again", again);
        let me = called_as();
        format!(
            "listening on {}\n\n{text}\nIn another terminal:\n  \
             {me} stock{server}\n  \
             {me} issue{server} --sku {SKU}\n  \
             {me} order{server} {}\n  \
             {me} import{server} --sku my-keys --create-sku keys.txt\n\n\
             Ctrl-C stops the server; the next start finds everything as it was.",
            self.url, order.order_id
        )
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "listening": self.url, "ops": format!("http://{}", self.ops), "data": self.data, "made": self.made,
            "imported": self.deal.imported, "free": self.deal.free, "looked_up": self.deal.again,
            "order": order_json(&self.deal.order, SKU),
        })
    }
}

/// How this program was called, so that the commands shown can be pasted: `cargo run` calls it by a path.
fn called_as() -> String {
    std::env::args()
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "croupier".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_codes_are_random_in_every_place() {
        let codes: Vec<String> = (0..2000).map(|_| demo_code(Uuid::new_v4())).collect();
        for code in &codes {
            assert_eq!(
                (code.len(), &code[..5], code.matches('-').count()),
                (22, "DEMO-", 3),
                "{code}"
            );
        }
        for at in (5..22).filter(|at| !matches!(at, 10 | 16)) {
            let seen: std::collections::HashSet<u8> =
                codes.iter().map(|code| code.as_bytes()[at]).collect();
            assert_eq!(seen.len(), 32, "place {at}");
        }
    }

    #[test]
    fn any_address_is_called_by_the_loopback() {
        for (listened, called) in [
            ("0.0.0.0:7", "127.0.0.1:7"),
            ("[::]:7", "[::1]:7"),
            ("10.0.0.1:7", "10.0.0.1:7"),
        ] {
            assert_eq!(
                reachable(listened.parse().expect("an address")).to_string(),
                called
            );
        }
    }
}
