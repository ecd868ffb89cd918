//! The quiet side of a run: handshake, server info, import, lookups at the end. One blocking connection.
//!
//! The loaded side does not go through here, see `driver`.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use croupier_protocol::{
    FRAME_BYTES_MAX_LIMIT, FaultBody, FrameHeader, FrameWriter, Hello, HelloReply,
    IMPORT_FRAMES_IN_FLIGHT_MAX, ImportBegin, ImportBeginReply, ImportEndReply, ImportRow, Kind,
    OrderId, OrderOutcome, RefusedBody, RejectReason, ServerInfoReply, SkuListReply, SkuRow, Stock,
    StockReply, StockRow, decode_control, encode_control, order_items, peek, put_import_id,
    put_lookup,
};

use crate::error::BenchError;
use crate::stock::{SECRET_BYTES_MAX, SecretShape};

/// The port a server has unless its URL says otherwise.
pub const PORT_DEFAULT: u16 = 7733;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a control answer may take: the end of a large import seals and syncs it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads `croupier://host[:port]` or `host[:port]`.
pub fn parse_url(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("croupier://").unwrap_or(url);
    if rest.contains("://") {
        return Err(format!(
            "{url:?} is not a Croupier URL: write croupier://host:port"
        ));
    }
    let address = rest.split(['?', '/']).next().unwrap_or_default();
    if address.is_empty() {
        return Err(format!("{url:?} names no host: write croupier://host:port"));
    }
    match address.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => Ok(address.to_string()),
        Some((_, port)) if !address.ends_with(']') => Err(format!("{port:?} is not a port")),
        _ => Ok(format!("{address}:{PORT_DEFAULT}")),
    }
}

/// One blocking connection that has said Hello.
#[derive(Debug)]
pub struct Control {
    stream: TcpStream,
    inbox: BytesMut,
    outbox: BytesMut,
    request_id: u64,
    limits: HelloReply,
}

/// A reply, taken off the wire.
struct Reply {
    header: FrameHeader,
    body: BytesMut,
}

/// What an import did.
#[derive(Debug, Clone, Copy)]
pub struct Imported {
    /// Numeric id of the SKU.
    pub sku: u32,
    /// Cards that are sellable now.
    pub cards: u64,
    /// From the first row sent to the durable end, in seconds.
    pub seconds: f64,
}

impl Control {
    /// Connects and shakes hands.
    pub fn connect(address: &str) -> Result<Self, BenchError> {
        let unreachable = |source| BenchError::Unreachable {
            address: address.to_string(),
            source,
        };
        let stream = connect_any(address).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        stream
            .set_read_timeout(Some(HANDSHAKE_TIMEOUT))
            .map_err(unreachable)?;
        stream
            .set_write_timeout(Some(ANSWER_TIMEOUT))
            .map_err(unreachable)?;
        let limits = HelloReply {
            version: 0,
            frame_bytes_max: FRAME_BYTES_MAX_LIMIT,
            features: 0,
            store_id: [0; 16],
            orders_per_frame_max: 0,
            orders_in_flight_max: 0,
            quantity_max: 0,
        };
        let (inbox, outbox) = (
            BytesMut::with_capacity(1 << 16),
            BytesMut::with_capacity(1 << 16),
        );
        let mut control = Self {
            stream,
            inbox,
            outbox,
            request_id: 0,
            limits,
        };
        let reply = control
            .request(Kind::Hello, "Hello", |body| {
                Hello::default().encode_into(body)
            })
            .map_err(|error| match error {
                BenchError::Io { source, .. } => unreachable(source),
                other => other,
            })?;
        control.limits = HelloReply::decode(&reply.body)?;
        control
            .stream
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(BenchError::io("set a read timeout"))?;
        Ok(control)
    }

    /// What the server allows.
    pub fn limits(&self) -> &HelloReply {
        &self.limits
    }

    /// The bare stream, for the driver: nothing is in flight on it.
    pub fn into_stream(self) -> TcpStream {
        assert!(
            self.inbox.is_empty(),
            "a server that sends unasked was noticed by `request`"
        );
        self.stream
    }

    /// Asks what server this is.
    pub fn server_info(&mut self) -> Result<ServerInfoReply, BenchError> {
        let reply = self.request(Kind::ServerInfo, "ServerInfo", |_| ())?;
        Ok(decode_control(&reply.body)?)
    }

    /// All SKUs.
    pub fn skus(&mut self) -> Result<Vec<SkuRow>, BenchError> {
        let mut skus = Vec::new();
        let mut reply = self.request(Kind::SkuList, "SkuList", |_| ())?;
        loop {
            skus.extend(decode_control::<SkuListReply>(&reply.body)?.skus);
            if !reply.header.more() {
                return Ok(skus);
            }
            reply = self.reply("SkuList", Kind::SkuListReply, reply.header.request_id)?;
        }
    }

    /// Counts of the cards of every SKU.
    pub fn stock(&mut self) -> Result<Vec<StockRow>, BenchError> {
        let mut rows = Vec::new();
        let all = Stock { name: None };
        let mut reply = self.request(Kind::Stock, "Stock", |body| encode_control(&all, body))?;
        loop {
            rows.extend(decode_control::<StockReply>(&reply.body)?.rows);
            if !reply.header.more() {
                return Ok(rows);
            }
            reply = self.reply("Stock", Kind::StockReply, reply.header.request_id)?;
        }
    }

    /// Looks orders up; the answers are in the order of the ids.
    pub fn look_up(&mut self, ids: &[OrderId]) -> Result<Vec<OrderOutcome>, BenchError> {
        let mut outcomes = Vec::with_capacity(ids.len());
        let room =
            (self.limits.frame_bytes_max as usize - croupier_protocol::FRAME_HEADER_BYTES) / 16;
        let per_frame = (self.limits.orders_per_frame_max as usize)
            .min(room)
            .clamp(1, u16::MAX.into());
        for chunk in ids.chunks(per_frame) {
            let count = chunk.len() as u16;
            let mut reply = self.request_counted(Kind::LookUp, "LookUp", count, |body| {
                chunk.iter().for_each(|&id| put_lookup(body, id));
            })?;
            loop {
                outcomes.extend(order_items(&reply.body, reply.header.count)?);
                if !reply.header.more() {
                    break;
                }
                reply = self.reply("LookUp", Kind::LookUpReply, reply.header.request_id)?;
            }
        }
        if outcomes.len() != ids.len() {
            let detail = format!("{} answers to {} orders", outcomes.len(), ids.len());
            return Err(BenchError::Unexpected {
                request: "LookUp",
                detail,
            });
        }
        Ok(outcomes)
    }

    /// Imports the cards `numbers` of one SKU, which is made if need be; `progress` hears how many are acknowledged.
    pub fn import(
        &mut self,
        sku_name: &str,
        sku_index: u16,
        numbers: std::ops::Range<u32>,
        shape: &SecretShape,
        mut progress: impl FnMut(u64),
    ) -> Result<Imported, BenchError> {
        let begun = Instant::now();
        let begin = ImportBegin {
            sku: sku_name.to_string(),
            create_sku: true,
            ..ImportBegin::default()
        };
        let reply = self.request(Kind::ImportBegin, "ImportBegin", |body| {
            encode_control(&begin, body)
        })?;
        let ImportBeginReply { import, sku } = decode_control(&reply.body)?;

        let row_bytes = ImportRow::HEAD_BYTES + shape.bytes();
        let room = self.limits.frame_bytes_max as usize - croupier_protocol::FRAME_HEADER_BYTES - 8;
        let rows_per_frame = (room / row_bytes).clamp(1, u16::MAX.into()) as u32;
        let mut unanswered = VecDeque::with_capacity(IMPORT_FRAMES_IN_FLIGHT_MAX);
        let mut next = numbers.start;
        while next < numbers.end || !unanswered.is_empty() {
            if next < numbers.end && unanswered.len() < IMPORT_FRAMES_IN_FLIGHT_MAX {
                let rows = next..numbers.end.min(next.saturating_add(rows_per_frame));
                next = rows.end;
                unanswered.push_back((
                    self.send_rows(import, sku_index, rows.clone(), shape)?,
                    rows.len(),
                ));
            } else if let Some((request_id, rows)) = unanswered.pop_front() {
                self.reply("ImportRows", Kind::ImportRowsReply, request_id)?;
                progress(rows as u64);
            }
        }
        let accepted = self.end_import(import, numbers.len() as u64)?;
        Ok(Imported {
            sku,
            cards: accepted,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    fn send_rows(
        &mut self,
        import: u64,
        sku_index: u16,
        numbers: std::ops::Range<u32>,
        shape: &SecretShape,
    ) -> Result<u64, BenchError> {
        let mut secret = [0; SECRET_BYTES_MAX];
        let count = numbers.len() as u16;
        self.send(Kind::ImportRows, "ImportRows", count, |body| {
            put_import_id(body, import);
            for number in numbers {
                shape.write(sku_index, number, &mut secret);
                ImportRow::new(u64::from(number) + 1, &secret[..shape.bytes()]).encode_into(body);
            }
        })
    }

    fn end_import(&mut self, import: u64, sent: u64) -> Result<u64, BenchError> {
        let mut reply = self.request(Kind::ImportEnd, "ImportEnd", |body| {
            put_import_id(body, import)
        })?;
        let end: ImportEndReply = decode_control(&reply.body)?;
        while reply.header.more() {
            reply = self.reply("ImportEnd", Kind::ImportEndReply, reply.header.request_id)?;
        }
        if end.accepted == sent {
            return Ok(sent);
        }
        let reasons: Vec<String> = end
            .counts
            .iter()
            .map(|row| {
                let reason =
                    RejectReason::try_from(row.reason).map_or("unknown", RejectReason::name);
                format!("{} {reason}", row.count)
            })
            .collect();
        let detail = format!(
            "{} of {sent} cards accepted, rejected: {}",
            end.accepted,
            reasons.join(", ")
        );
        Err(BenchError::Unexpected {
            request: "ImportEnd",
            detail,
        })
    }

    fn request(
        &mut self,
        kind: Kind,
        name: &'static str,
        fill: impl FnOnce(&mut BytesMut),
    ) -> Result<Reply, BenchError> {
        self.request_counted(kind, name, 0, fill)
    }

    fn request_counted(
        &mut self,
        kind: Kind,
        name: &'static str,
        count: u16,
        fill: impl FnOnce(&mut BytesMut),
    ) -> Result<Reply, BenchError> {
        let request_id = self.send(kind, name, count, fill)?;
        self.reply(name, kind.reply_of(), request_id)
    }

    fn send(
        &mut self,
        kind: Kind,
        name: &'static str,
        count: u16,
        fill: impl FnOnce(&mut BytesMut),
    ) -> Result<u64, BenchError> {
        self.request_id += 1;
        self.outbox.clear();
        let mut frame = FrameWriter::begin(&mut self.outbox, kind, self.request_id);
        fill(frame.body());
        frame.set_count(count);
        frame.finish();
        self.stream
            .write_all(&self.outbox)
            .map_err(BenchError::io(format!("send {name}")))?;
        Ok(self.request_id)
    }

    fn reply(
        &mut self,
        name: &'static str,
        expected: Kind,
        request_id: u64,
    ) -> Result<Reply, BenchError> {
        let reply = self.next_frame(name)?;
        match reply.header.kind {
            kind if kind == expected && reply.header.request_id == request_id => Ok(reply),
            Kind::Refused => {
                let refused = RefusedBody::decode(&reply.body)?;
                Err(BenchError::Refused {
                    request: name,
                    refusal: refused.refusal,
                    text: refused.text,
                })
            }
            Kind::Fault => {
                let fault = FaultBody::decode(&reply.body)?;
                Err(BenchError::Unexpected {
                    request: name,
                    detail: format!("fault {}: {}", fault.fault.name(), fault.text),
                })
            }
            kind => {
                let detail = format!(
                    "{kind:?} for request {} where {request_id} was asked",
                    reply.header.request_id
                );
                Err(BenchError::Unexpected {
                    request: name,
                    detail,
                })
            }
        }
    }

    fn next_frame(&mut self, name: &'static str) -> Result<Reply, BenchError> {
        let mut chunk = [0; 1 << 16];
        loop {
            if let Some(header) = peek(&self.inbox, FRAME_BYTES_MAX_LIMIT)? {
                let mut body = self.inbox.split_to(header.length as usize);
                body.advance(croupier_protocol::FRAME_HEADER_BYTES);
                return Ok(Reply { header, body });
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    let closed = io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server closed the connection",
                    );
                    return Err(BenchError::io(format!("await the answer to {name}"))(
                        closed,
                    ));
                }
                Ok(read) => self.inbox.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(BenchError::io(format!("await the answer to {name}"))(error));
                }
            }
        }
    }
}

fn connect_any(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()?.collect::<Vec<SocketAddr>>() {
        match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, address) in [
            ("croupier://127.0.0.1:7000", "127.0.0.1:7000"),
            ("croupier://127.0.0.1", "127.0.0.1:7733"),
            ("localhost:1", "localhost:1"),
            ("croupier://[::1]:5", "[::1]:5"),
            ("croupier://[::1]", "[::1]:7733"),
            ("croupier://host:9?retries=3", "host:9"),
        ] {
            assert_eq!(parse_url(url).as_deref(), Ok(address));
        }
        for bad in [
            "",
            "croupier://",
            "http://host:1",
            "host:port",
            "host:99999",
        ] {
            assert!(parse_url(bad).is_err(), "{bad:?} was taken for a URL");
        }
    }
}
