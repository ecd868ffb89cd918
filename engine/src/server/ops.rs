//! The operators' port: HTTP for probes and scrapers. Never on a dealer's turn.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::core::CoreShared;
use super::metrics::metrics;
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
            let _ = tokio::time::timeout(REQUEST_WAIT, answer(&mut stream, engine, cores)).await;
        });
    }
}

async fn answer(
    stream: &mut tokio::net::TcpStream,
    engine: Arc<Engine>,
    cores: Arc<[Arc<CoreShared>]>,
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
        // Whoever counts what waits looks at all of it.
        "/metrics" => match tokio::task::spawn_blocking(move || metrics(&engine, &cores)).await {
            Ok(text) => ("200 OK", text),
            Err(error) => ("500 Internal Server Error", format!("{error}\n")),
        },
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
