//! `--linked` of `croupier issue` and `croupier reserve`: orders of several SKUs at once, all or none.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use croupier_client::{Client, Error, LINKED_ORDERS_MAX, Order};
use croupier_protocol::{OrderId, Priority};
use serde_json::Value;

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::holder::HolderArgs;
use super::order::{HELD, held_facts, order_json, print_order};
use super::print;

/// What to ask for instead of one SKU.
#[derive(Debug, Args)]
pub(super) struct LinkedArgs {
    /// Several orders, all of which get their cards or none does: for each a SKU's name, how many cards of it [default: 1], and
    /// its order's id, as UUID text [default: a new UUIDv7]
    #[arg(long, value_name = "NAME[:N][=ID]", num_args = 1.., conflicts_with_all = ["sku", "order", "quantity", "partial", "wait"])]
    pub(super) linked: Vec<Line>,
}

/// One of the orders, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    sku: String,
    quantity: u16,
    order_id: Option<OrderId>,
}

impl FromStr for Line {
    type Err = String;

    /// What cannot be an id or a number is part of the name.
    fn from_str(text: &str) -> Result<Line, String> {
        let with_id = text.rsplit_once('=').and_then(|(what, id)| {
            let id: OrderId = id.parse().ok()?;
            Some((what, Some(id)))
        });
        let (what, order_id) = with_id.unwrap_or((text, None));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (sku, quantity) = match what.rsplit_once(':') {
            Some((sku, quantity)) if is_number(quantity) => {
                let read = quantity.parse();
                (
                    sku,
                    read.map_err(|_| format!("{quantity} cards are too many"))?,
                )
            }
            _ => (what, 1),
        };
        if sku.is_empty() {
            return Err("the SKU's name is missing".to_owned());
        }
        let sku = sku.to_owned();
        Ok(Line {
            sku,
            quantity,
            order_id,
        })
    }
}

/// An order of a chain, and its SKU's name.
type Named = (Order, String);

impl LinkedArgs {
    /// Asks for all of them, and prints each as it would be printed alone. `ttl`: to be reserved for so long.
    pub(super) fn run(
        &self,
        server: &ServerArgs,
        priority: Priority,
        ttl: Option<Duration>,
        holder: &HolderArgs,
        globals: &Globals,
    ) -> Result<(), CliError> {
        if !(2..=LINKED_ORDERS_MAX).contains(&self.linked.len()) {
            let what = format!("--linked takes 2 to {LINKED_ORDERS_MAX} orders");
            return Err(CliError::Usage(what));
        }
        let answers = server.run(async |client| {
            let named = self.named(&client, priority, holder).await?;
            let orders: Vec<Order> = named.iter().map(|(order, _)| *order).collect();
            match ttl {
                None => {
                    let issued = client.issue_linked(&orders).await;
                    let options = holder.words();
                    let issued = issued.map_err(|error| said(error, "issue", &options, &named))?;
                    Ok(Answers::Issued(issued, named))
                }
                Some(ttl) => {
                    let held = client.reserve_linked(&orders, ttl).await;
                    let options = format!(" --ttl {}ms{}", ttl.as_millis(), holder.words());
                    let held = held.map_err(|error| said(error, "reserve", &options, &named))?;
                    Ok(Answers::Held(held, named))
                }
            }
        })?;
        answers.print(globals.json)
    }

    async fn named(
        &self,
        client: &Client,
        priority: Priority,
        holder: &HolderArgs,
    ) -> Result<Vec<Named>, CliError> {
        let mut named = Vec::with_capacity(self.linked.len());
        for line in &self.linked {
            let sku = client.sku_id(&line.sku).await?;
            let id = line.order_id.unwrap_or_else(OrderId::new_v7);
            let order = Order::new(id, sku)
                .quantity(line.quantity)
                .priority(priority);
            named.push((holder.of(order), line.sku.clone()));
        }
        Ok(named)
    }
}

/// What stopped the command, with the SKU of the order that is to blame, or the command that asks again.
fn said(error: Error, command: &str, options: &str, named: &[Named]) -> CliError {
    match error {
        Error::Refused {
            order_id: Some(id),
            refusal,
            retry_after_ms,
            text,
        } => {
            let blamed = named.iter().find(|(order, _)| order.order_id == id);
            let sku = blamed.map_or("", |(_, sku)| sku);
            CliError::Client(Error::Refused {
                order_id: Some(id),
                refusal,
                retry_after_ms,
                text: format!("{sku}: {text}; no order got anything"),
            })
        }
        error => {
            let first = named.first().map(|(order, _)| order.order_id);
            CliError::of_step(error, first.unwrap_or_default(), || {
                let lines = named.iter().map(|(order, sku)| {
                    let (quantity, id) = (order.quantity, order.order_id);
                    format!(" '{sku}:{quantity}={id}'")
                });
                let lines: String = lines.collect();
                format!("{command}{options} --linked{lines}")
            })
        }
    }
}

/// What all of them got.
enum Answers {
    Issued(Vec<croupier_protocol::IssuedOrder>, Vec<Named>),
    Held(Vec<croupier_protocol::HeldOrder>, Vec<Named>),
}

impl Answers {
    fn print(&self, as_json: bool) -> Result<(), CliError> {
        if as_json {
            let all: Vec<Value> = match self {
                Answers::Issued(orders, named) => {
                    let all = orders.iter().zip(named);
                    all.map(|(order, (_, sku))| order_json(order, sku))
                        .collect()
                }
                Answers::Held(orders, named) => {
                    let all = orders.iter().zip(named);
                    let json = |order, sku| held_facts(HELD, order, sku, true).into_json();
                    all.map(|(order, (_, sku))| json(order, sku)).collect()
                }
            };
            return print::json(&all);
        }
        match self {
            Answers::Issued(orders, named) => {
                let mut all = orders.iter().zip(named);
                all.try_for_each(|(order, (_, sku))| print_order(order, sku, false))
            }
            Answers::Held(orders, named) => {
                let mut all = orders.iter().zip(named);
                all.try_for_each(|(order, (_, sku))| {
                    held_facts(HELD, order, sku, false).print(false)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_and_what_can_be_told_from_its_end() {
        let id: OrderId = "01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10".parse().unwrap();
        let check = |text: &str, expect: Result<(&str, u16, Option<OrderId>), &str>| {
            let read = text.parse::<Line>();
            let read = read
                .as_ref()
                .map(|line| (line.sku.as_str(), line.quantity, line.order_id));
            assert_eq!(read.map_err(String::as_str), expect, "{text}");
        };
        check("steam-50", Ok(("steam-50", 1, None)));
        check("steam-50:3", Ok(("steam-50", 3, None)));
        check("a:b", Ok(("a:b", 1, None)));
        check("a:3:1", Ok(("a:3", 1, None)));
        check("a=b", Ok(("a=b", 1, None)));
        check("a:", Ok(("a:", 1, None)));
        check(&format!("a={id}"), Ok(("a", 1, Some(id))));
        check(&format!("a:2={id}"), Ok(("a", 2, Some(id))));
        check(&format!("a={id}:2"), Ok((&format!("a={id}"), 2, None)));
        check("a:65536", Err("65536 cards are too many"));
        check(":2", Err("the SKU's name is missing"));
        check("", Err("the SKU's name is missing"));
    }
}
