//! The operators' port: HTTP for probes and scrapers. Never on a dealer's turn.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use croupier_protocol::{CanaryGroup, ChannelRow, StockRow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::core::CoreShared;
use crate::engine::Engine;
use crate::error::EngineError;

/// Most bytes of a request that are looked at.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Operators' connections at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a request may take to arrive.
const REQUEST_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Takes the port.
pub fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), EngineError> {
    let fault = |source| EngineError::Listen {
        addr,
        flag: "--ops",
        source,
    };
    let listener = TcpListener::bind(addr).map_err(fault)?;
    listener.set_nonblocking(true).map_err(fault)?;
    let local = listener.local_addr().map_err(fault)?;
    Ok((listener, local))
}

/// Answers `/healthz`, `/readyz` and `/metrics` until the runtime ends.
pub async fn serve(listener: TcpListener, engine: Arc<Engine>, cores: Arc<[Arc<CoreShared>]>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the operators' port does not serve"),
    };
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        let (engine, cores) = (engine.clone(), cores.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = tokio::time::timeout(REQUEST_WAIT, answer(&mut stream, &engine, &cores)).await;
        });
    }
}

async fn answer(
    stream: &mut tokio::net::TcpStream,
    engine: &Engine,
    cores: &[Arc<CoreShared>],
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&request);
    let path = line.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = match path {
        "/healthz" | "/readyz" => match engine.cannot_record() {
            None => ("200 OK", "ok\n".to_owned()),
            Some(refusal) => ("503 Service Unavailable", format!("{refusal}\n")),
        },
        "/metrics" => ("200 OK", metrics(engine, cores)),
        _ => (
            "404 Not Found",
            "try /healthz, /readyz or /metrics\n".to_owned(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// The figures of the moment in the text format that scrapers read.
fn metrics(engine: &Engine, cores: &[Arc<CoreShared>]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, rows: &[(String, u64)]| {
        let _ = writeln!(
            text,
            "# HELP croupier_{name} {help}\n# TYPE croupier_{name} gauge"
        );
        for (labels, value) in rows {
            let _ = writeln!(text, "croupier_{name}{labels} {value}");
        }
    };
    let label = |name: &str| {
        let name = name.replace('\\', "\\\\").replace('"', "\\\"");
        name.replace('\n', "\\n")
    };
    let info = engine.info();
    gauge(
        "orders",
        "Orders dealt since the store was made.",
        &[(String::new(), info.orders)],
    );
    gauge(
        "durable_lsn",
        "Everything up to this record is on stable storage.",
        &[(String::new(), info.durable_lsn)],
    );
    gauge(
        "log_end_lsn",
        "The record that comes next.",
        &[(String::new(), engine.log.end())],
    );
    gauge(
        "route_table_version",
        "The route table in force.",
        &[(String::new(), info.routes.into())],
    );
    let routes = engine.routes_status();
    let parts = [
        ("smoothed", routes.load),
        ("lanes", routes.lanes),
        ("cores", routes.cores),
        ("log", routes.log),
    ];
    gauge(
        "load_ten_thousandths",
        "The load that route tables ask about, and its parts.",
        &parts.map(|(part, load)| (format!("{{part=\"{part}\"}}"), load.into())),
    );
    let flips = routes.marks.iter().map(|mark| {
        let at = f64::from(mark.at) / 10_000.0;
        (format!("{{load=\"{at}\"}}"), mark.flips)
    });
    gauge(
        "route_flips",
        "How often the load has passed a mark of the route table, or passed it no more.",
        &flips.collect::<Vec<_>>(),
    );
    let taken = (1..).zip(&routes.rules).map(|(number, rule): (u32, _)| {
        let name = label(&rule.name);
        (
            format!("{{rule=\"{number}\",name=\"{name}\"}}"),
            rule.orders,
        )
    });
    gauge(
        "route_orders",
        "Orders that a rule of the route table has taken.",
        &taken.collect::<Vec<_>>(),
    );
    let channels = engine.channels_status();
    let mut of_channels = |name: &str, help: &str, count: fn(&ChannelRow) -> u64| {
        let rows = channels.iter().map(|row| {
            let labels = format!("{{channel=\"{}\"}}", label(&row.name));
            (labels, count(row))
        });
        gauge(name, help, &rows.collect::<Vec<_>>());
    };
    of_channels(
        "channel_standing",
        "How a channel stands: 1 healthy, 2 ejected, 3 probing.",
        |row| row.standing.into(),
    );
    of_channels(
        "channel_ejections",
        "How often in a row a channel was ejected.",
        |row| row.ejections.into(),
    );
    of_channels("channel_workers", "Workers of a channel.", |row| {
        row.workers.into()
    });
    of_channels("channel_jobs", "Jobs of a channel under way.", |row| {
        row.jobs.into()
    });
    of_channels(
        "channel_ready",
        "Orders that wait for room of a channel.",
        |row| row.ready.into(),
    );
    of_channels("channel_filled", "Jobs that a channel has filled.", |row| {
        row.filled
    });
    of_channels("channel_failed", "Jobs that a channel has failed.", |row| {
        row.failed
    });
    of_channels(
        "channel_timed_out",
        "Jobs of a channel whose lease ran out.",
        |row| row.timed_out,
    );
    of_channels(
        "channel_late",
        "Deliveries of a channel for jobs that were over, or unknown.",
        |row| row.late,
    );
    of_channels(
        "channel_cards",
        "Cards that a channel has delivered.",
        |row| row.cards,
    );
    of_channels(
        "channel_mean_us",
        "Mean time of jobs that a channel has filled, in microseconds.",
        |row| row.mean_us,
    );
    let canary = engine.canary_status();
    let share = canary.steps.last().filter(|_| canary.under_way);
    gauge(
        "canary_share_percent",
        "Orders that the canary of a route table deals; 0 = none is under way.",
        &[(String::new(), share.map_or(0, |step| step.share.into()))],
    );
    gauge(
        "canary_version",
        "The last route table that was a canary; 0 = none was.",
        &[(String::new(), canary.version.into())],
    );
    let mut groups = |name: &str, help: &str, figure: fn(&CanaryGroup) -> u32| {
        let both = ["canary", "baseline"].into_iter().zip(&canary.groups);
        let rows = both.map(|(name, group)| {
            let labels = format!("{{group=\"{name}\"}}");
            (labels, figure(group).into())
        });
        gauge(name, help, &rows.collect::<Vec<_>>());
    };
    groups(
        "canary_orders",
        "Orders of a group that were measured in this step.",
        |group| group.orders,
    );
    groups(
        "canary_failed",
        "Those of them that were refused for reasons that a table may be to blame for.",
        |group| group.failed,
    );
    groups(
        "canary_p50_us",
        "Median latency of the others per card, in microseconds.",
        |group| group.p50_us,
    );
    groups(
        "canary_p99_us",
        "Latency per card that one of them in a hundred exceeds, in microseconds.",
        |group| group.p99_us,
    );
    gauge(
        "refusing",
        "1 while new orders are refused.",
        &[(String::new(), engine.cannot_record().is_some().into())],
    );
    gauge(
        "holds_open",
        "About how many orders hold cards.",
        &[(String::new(), engine.state.index.held_hint() as u64)],
    );
    let catalog = engine.state.catalog.load();
    let waiting = catalog.skus.iter().map(|sku| sku.line.orders()).sum();
    gauge(
        "orders_waiting",
        "Orders that wait for stock.",
        &[(String::new(), waiting)],
    );
    let lanes = ["vip", "standard", "bulk", "background"];
    let depths: Vec<_> = cores
        .iter()
        .enumerate()
        .flat_map(|(core, shared)| {
            let depths = shared.queues.lanes.depths();
            lanes.iter().zip(depths).map(move |(lane, depth)| {
                (format!("{{core=\"{core}\",lane=\"{lane}\"}}"), depth as u64)
            })
        })
        .collect();
    gauge("lane_orders", "Orders waiting in a lane.", &depths);
    let connections: Vec<_> = cores
        .iter()
        .enumerate()
        .map(|(core, shared)| (format!("{{core=\"{core}\"}}"), shared.connections() as u64))
        .collect();
    gauge("connections", "Open connections.", &connections);
    if let Ok(rows) = engine.stock(None) {
        let mut cards = |name: &str, help: &str, count: fn(&StockRow) -> u64| {
            let rows = rows.iter().map(|row| {
                let labels = format!("{{sku=\"{}\"}}", label(&row.name));
                (labels, count(row))
            });
            gauge(name, help, &rows.collect::<Vec<_>>());
        };
        cards("stock_free", "Free cards.", |row| row.free);
        cards(
            "stock_held",
            "Cards that are suspended, or promised to holds.",
            |row| row.held,
        );
        cards("stock_issued", "Cards issued.", |row| row.issued);
        cards("stock_void", "Cards out of sale for good.", |row| row.void);
    }
    text
}
