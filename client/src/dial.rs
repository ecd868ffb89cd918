//! Making a connection: TCP, then Hello.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use croupier_protocol::{
    FRAME_BYTES_MAX_LIMIT, FaultBody, FrameWriter, Hello, HelloReply, Kind, PROTOCOL_VERSION, peek,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::builder::Settings;
use crate::error::{Cause, ProtocolError};
use crate::inbox::Inbox;
use crate::link::{Link, ServedLink, bad_body, run};

/// The request id of Hello; those of requests begin at 1.
const HELLO_REQUEST_ID: u64 = 0;

/// What is put by for queued frames, at most: beyond it a queue grows as it needs.
const OUT_BYTES_FIRST_MAX: usize = 2 * 1024 * 1024;

/// Connects, says Hello, and leaves a task behind that serves the link. `out_frames`: full frames to put room by for,
/// so that frames with secrets are not copied to and fro while a queue grows.
pub(crate) async fn dial(settings: &Settings, out_frames: usize) -> Result<Arc<Link>, Cause> {
    let Ok(shaken) = timeout(settings.connect_timeout, shake_hands(&settings.addr)).await else {
        let after_ms = settings.connect_timeout.as_millis();
        let error = io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no handshake within {after_ms} ms"),
        );
        return Err(Cause::unreachable(error));
    };
    let (stream, hello, inbox) = shaken?;
    let out_bytes = (out_frames * hello.frame_bytes_max as usize).min(OUT_BYTES_FIRST_MAX);
    let link = Arc::new(Link::new(hello, out_bytes));
    tracing::debug!(addr = %settings.addr, "connected");
    tokio::spawn(run(stream, ServedLink(Arc::clone(&link)), inbox));
    Ok(link)
}

async fn shake_hands(addr: &str) -> Result<(TcpStream, HelloReply, Inbox), Cause> {
    let mut stream = TcpStream::connect(addr).await.map_err(Cause::unreachable)?;
    // Requests are written whole: there is nothing to wait for (RFC 896).
    stream.set_nodelay(true).map_err(Cause::unreachable)?;
    let mut hello = BytesMut::new();
    let mut writer = FrameWriter::begin(&mut hello, Kind::Hello, HELLO_REQUEST_ID);
    Hello::default().encode_into(writer.body());
    writer.finish();
    stream.write_all(&hello).await.map_err(Cause::unreachable)?;

    let mut inbox = Inbox::new();
    loop {
        if let Some(reply) = hello_reply(&mut inbox)? {
            return Ok((stream, reply, inbox));
        }
        let frame_bytes = inbox.received().len() + 1;
        if inbox
            .receive(&mut stream, frame_bytes)
            .await
            .map_err(Cause::unreachable)?
            == 0
        {
            let error = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed before the handshake",
            );
            return Err(Cause::unreachable(error));
        }
    }
}

fn hello_reply(inbox: &mut Inbox) -> Result<Option<HelloReply>, Cause> {
    let received = inbox.received();
    let Some(header) =
        peek(received, FRAME_BYTES_MAX_LIMIT).map_err(|error| Cause::Protocol(error.into()))?
    else {
        return Ok(None);
    };
    let body = header.body_of(received);
    match header.kind {
        Kind::HelloReply => {
            let mut reply =
                HelloReply::decode(body).map_err(|error| bad_body(header.kind, error))?;
            if reply.version != PROTOCOL_VERSION {
                return Err(Cause::Protocol(ProtocolError::UnofferedVersion {
                    found: reply.version,
                }));
            }
            // More than the format allows is never sent, whatever a server says it takes.
            reply.frame_bytes_max = reply.frame_bytes_max.min(FRAME_BYTES_MAX_LIMIT);
            inbox.consume(header.length as usize);
            Ok(Some(reply))
        }
        Kind::Fault => {
            let FaultBody { fault: code, text } =
                FaultBody::decode(body).map_err(|error| bad_body(header.kind, error))?;
            Err(Cause::Fault { code, text })
        }
        found => Err(Cause::Protocol(ProtocolError::UnexpectedKind {
            expected: Kind::HelloReply,
            found,
        })),
    }
}
