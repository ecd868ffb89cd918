//! Deals one card: `cargo run -p croupier-client --example deal -- SKU [croupier://HOST:PORT [ORDER-ID]]`.
//!
//! Run it twice with the same order id, and it prints the same card.

use std::process::ExitCode;

use croupier_client::{Client, Error, Order, OrderId};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(sku) = args.first() else {
        eprintln!("usage: deal SKU [croupier://HOST:PORT [ORDER-ID]]");
        return ExitCode::from(2);
    };
    let url = args
        .get(1)
        .map_or("croupier://127.0.0.1:7733", String::as_str);
    let order_id = match args.get(2).map(|text| text.parse()) {
        None => OrderId::new_v7(),
        Some(Ok(order_id)) => order_id,
        Some(Err(error)) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match deal(url, sku, order_id).await {
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

async fn deal(url: &str, sku: &str, order_id: OrderId) -> Result<(), Error> {
    let client = Client::connect(url).await?;
    let sku = client.sku_id(sku).await?;
    // A shop keeps the id before it asks. After `OutcomeUnknown`, or a crash, it asks again with the same one.
    let issued = client.issue(Order::new(order_id, sku)).await?;
    let dealt = if issued.repeat {
        "dealt before"
    } else {
        "dealt"
    };
    eprintln!("order {}: {dealt}, record {}", issued.order_id, issued.lsn);
    for card in &issued.cards {
        println!("{}", card.secret.to_string_lossy());
    }
    Ok(())
}
