//! A raw connection, for those who do not keep to the protocol. Every read has a limit.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use bytes::BytesMut;
use croupier_protocol::{
    ControlBody, FRAME_BYTES_MAX_LIMIT, FaultBody, FrameHeader, FrameWriter, Hello, HelloReply,
    Kind, OrderId, OrderOutcome, RefusedBody, SkuId, Step, StepItem, decode_control, order_items,
    peek,
};

use crate::PATIENCE;

/// A frame whose body is written by `body`.
pub fn frame(kind: Kind, request_id: u64, count: u16, body: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    frame_with_flags(kind, request_id, count, 0, body)
}

/// A frame with header flags.
pub fn frame_with_flags(
    kind: Kind,
    request_id: u64,
    count: u16,
    flags: u16,
    body: impl FnOnce(&mut BytesMut),
) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut writer = FrameWriter::begin(&mut out, kind, request_id);
    body(writer.body());
    writer.set_count(count);
    writer.set_flags(flags);
    writer.finish();
    out.to_vec()
}

/// An order for one card, to be changed at will.
pub fn item(sku: SkuId) -> StepItem {
    StepItem::one(OrderId::new_v7(), sku)
}

/// An Issue of these items.
///
/// # Panics
/// If there are more than a frame can count.
pub fn issue_frame(request_id: u64, items: &[StepItem]) -> Vec<u8> {
    step_frame(Step::Issue, request_id, items)
}

/// A frame that asks for this step of these items.
///
/// # Panics
/// If there are more than a frame can count.
pub fn step_frame(step: Step, request_id: u64, items: &[StepItem]) -> Vec<u8> {
    let count = u16::try_from(items.len()).expect("a frame counts to 65535");
    frame(step.kind(), request_id, count, |out| {
        items.iter().for_each(|item| item.encode_into(out));
    })
}

/// A connection without manners.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    arrived: Vec<u8>,
}

impl Wire {
    /// Connects and says nothing.
    ///
    /// # Panics
    /// If nobody listens.
    pub fn dial(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("somebody listens");
        stream.set_nodelay(true).expect("a socket option");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket option");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a socket option");
        Self {
            stream,
            arrived: Vec::new(),
        }
    }

    /// Connects and says Hello.
    ///
    /// # Panics
    /// If that is not answered.
    pub fn greeted(addr: SocketAddr) -> (Self, HelloReply) {
        let mut wire = Self::dial(addr);
        wire.send(&Self::hello());
        let (header, body) = wire.reply();
        assert_eq!(header.kind, Kind::HelloReply);
        (wire, HelloReply::decode(&body).expect("a HelloReply"))
    }

    /// The Hello of a well-behaved client.
    pub fn hello() -> Vec<u8> {
        frame(Kind::Hello, 1, 0, |out| Hello::default().encode_into(out))
    }

    /// Another handle on the same connection: one to write, one to read.
    ///
    /// # Panics
    /// If there are no descriptors left.
    pub fn split(&self) -> TcpStream {
        self.stream.try_clone().expect("a descriptor")
    }

    /// Sends bytes, whatever they are. A peer that has closed already is no error: its reply tells why.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next frame, or `None` at the end of the stream.
    ///
    /// # Panics
    /// If neither comes, or something that is no frame.
    pub fn try_reply(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        loop {
            let read = peek(&self.arrived, FRAME_BYTES_MAX_LIMIT).expect("a server sends frames");
            if let Some(header) = read {
                let body = header.body_of(&self.arrived).to_vec();
                self.arrived.drain(..header.length as usize);
                return Some((header, body));
            }
            let mut some = [0; 16 << 10];
            match self.stream.read(&mut some) {
                Ok(0) => return None,
                Ok(got) => self.arrived.extend_from_slice(&some[..got]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame and no end within {PATIENCE:?}: {error}"),
            }
        }
    }

    /// The next frame.
    ///
    /// # Panics
    /// If the connection was closed instead.
    #[track_caller]
    pub fn reply(&mut self) -> (FrameHeader, Vec<u8>) {
        self.try_reply()
            .expect("a reply, but the connection was closed")
    }

    /// The whole reply to a request: the bodies of its frames, which must be all of this kind.
    ///
    /// # Panics
    /// If something else comes.
    #[track_caller]
    pub fn pages(&mut self, kind: Kind, request_id: u64) -> Vec<(FrameHeader, Vec<u8>)> {
        let mut pages = Vec::new();
        loop {
            let (header, body) = self.reply();
            if header.kind == Kind::Refused {
                panic!("{:?} where {kind:?} was due", RefusedBody::decode(&body));
            }
            assert_eq!((header.kind, header.request_id), (kind, request_id));
            pages.push((header, body));
            if !header.more() {
                return pages;
            }
        }
    }

    /// The control value that answers a request.
    ///
    /// # Panics
    /// If something else comes.
    #[track_caller]
    pub fn control<T: ControlBody>(&mut self, kind: Kind, request_id: u64) -> T {
        let pages = self.pages(kind, request_id);
        decode_control(&pages[0].1).expect("a body of that kind")
    }

    /// The outcomes that answer steps or a LookUp.
    ///
    /// # Panics
    /// If something else comes.
    #[track_caller]
    pub fn outcomes(&mut self, kind: Kind, request_id: u64) -> Vec<OrderOutcome> {
        let pages = self.pages(kind, request_id);
        let outcomes = pages
            .iter()
            .flat_map(|(header, body)| order_items(body, header.count).expect("OrderItems"));
        outcomes.collect()
    }

    /// Sends orders and returns what became of them.
    #[track_caller]
    pub fn issue(&mut self, items: &[StepItem]) -> Vec<OrderOutcome> {
        self.step(Step::Issue, items)
    }

    /// Sends this step of these items and returns what became of them.
    #[track_caller]
    pub fn step(&mut self, step: Step, items: &[StepItem]) -> Vec<OrderOutcome> {
        self.send(&step_frame(step, 77, items));
        self.outcomes(step.kind().reply_of(), 77)
    }

    /// The refusal of a request as a whole.
    ///
    /// # Panics
    /// If something else comes.
    #[track_caller]
    pub fn refused(&mut self, request_id: u64) -> RefusedBody {
        let (header, body) = self.reply();
        assert_eq!(
            (header.kind, header.request_id),
            (Kind::Refused, request_id)
        );
        RefusedBody::decode(&body).expect("a Refused")
    }

    /// The Fault, the request id it carries, and after it the end of the connection.
    ///
    /// # Panics
    /// If something else comes.
    #[track_caller]
    pub fn fault(&mut self) -> (FaultBody, u64) {
        let (header, body) = self.reply();
        assert_eq!(header.kind, Kind::Fault);
        let fault = FaultBody::decode(&body).expect("a Fault");
        assert!(self.try_reply().is_none(), "a Fault is the last word");
        (fault, header.request_id)
    }

    /// True if the connection still answers.
    pub fn answers(&mut self) -> bool {
        self.send(&frame(Kind::Ping, 4711, 0, |out| {
            out.extend_from_slice(b"still there?")
        }));
        let Some((header, body)) = self.try_reply() else {
            return false;
        };
        (header.kind, header.request_id, &body[..]) == (Kind::PingReply, 4711, b"still there?")
    }
}
