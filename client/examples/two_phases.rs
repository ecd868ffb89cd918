//! Reserves one card and commits it: `cargo run -p croupier-client --example two_phases -- SKU [croupier://HOST:PORT]`.
//!
//! Between the two a shop takes the money. What is not committed in time expires, and the card is for others again.

use std::process::ExitCode;
use std::time::Duration;

use croupier_client::{Client, Error, Order, OrderId, Refusal};

/// Time to pay.
const TTL: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(sku) = args.first() else {
        eprintln!("usage: two_phases SKU [croupier://HOST:PORT]");
        return ExitCode::from(2);
    };
    let url = args
        .get(1)
        .map_or("croupier://127.0.0.1:7733", String::as_str);
    match sell(url, sku).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if matches!(error, Error::Unreachable { .. }) {
                4
            } else {
                1
            })
        }
    }
}

async fn sell(url: &str, sku: &str) -> Result<(), Error> {
    let client = Client::connect(url).await?;
    let sku = client.sku_id(sku).await?;
    // A shop keeps the id before it asks, and asks again with the same one when it got no answer: at each step.
    let order_id = OrderId::new_v7();
    let held = client.reserve(Order::new(order_id, sku), TTL).await?;
    eprintln!("order {order_id}: {} card held", held.quantity);

    // The customer needs longer: the first extension of this hold.
    client.extend(order_id, 1, TTL).await?;

    if !is_paid(order_id) {
        client.cancel(order_id).await?;
        eprintln!("order {order_id}: cancelled");
        return Ok(());
    }
    let issued = match client.commit(order_id).await {
        Err(error) if error.refusal() == Some(Refusal::Expired) => {
            eprintln!("order {order_id}: paid too late and sold out since, give the money back");
            return Err(error);
        }
        committed => committed?,
    };
    for card in &issued.cards {
        println!("{}", card.secret.to_string_lossy());
    }
    Ok(())
}

/// Where a shop would ask its payment provider.
fn is_paid(_order_id: OrderId) -> bool {
    true
}
