//! One connection of a toy server: a read is a batch, and its answers leave in one write.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use croupier_protocol::{
    CardRef, FRAME_BYTES_MAX_DEFAULT, FrameHeader, FrameWriter, HelloReply, IssuedWriter, Kind,
    Lsn, ORDERS_IN_FLIGHT_MAX_DEFAULT, ORDERS_PER_FRAME_MAX_DEFAULT, QUANTITY_MAX_DEFAULT,
    ServerInfoReply, StepItem, encode_control, peek, step_items,
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::SECRET_BYTES;
use super::committer::RECORD_BYTES;
use super::core::Core;

/// The same in every answer: nothing is dealt here.
const SECRET: [u8; SECRET_BYTES] = [b'x'; SECRET_BYTES];

/// A connection.
#[derive(Debug)]
pub struct Session {
    write: OwnedWriteHalf,
    out: RefCell<BytesMut>,
    /// Up to where `out` may leave when a record number is durable: (record number, bytes since the mark before).
    marks: RefCell<VecDeque<(u64, usize)>>,
    /// Bytes of `out` that may leave now.
    free: Cell<usize>,
    /// A task waits for the socket to take more.
    blocked: Cell<bool>,
    /// It is in its core's list.
    pub waits: Cell<bool>,
}

impl Session {
    /// Takes charge of a connection.
    pub fn open(core: &Rc<Core>, stream: std::net::TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let (read, write) = TcpStream::from_std(stream)?.into_split();
        let session = Rc::new(Self {
            write,
            out: RefCell::default(),
            marks: RefCell::default(),
            free: Cell::new(0),
            blocked: Cell::new(false),
            waits: Cell::new(false),
        });
        tokio::task::spawn_local(session.read_all(core.clone(), read));
        Ok(())
    }

    async fn read_all(self: Rc<Self>, core: Rc<Core>, mut read: OwnedReadHalf) {
        let mut partial = Vec::new();
        while let Ok(true) =
            poll_fn(|context| self.poll_batch(context, &core, &mut read, &mut partial)).await
        {
        }
    }

    /// One read and its answers; false at the end of the stream.
    fn poll_batch(
        self: &Rc<Self>,
        context: &mut Context<'_>,
        core: &Rc<Core>,
        read: &mut OwnedReadHalf,
        partial: &mut Vec<u8>,
    ) -> Poll<io::Result<bool>> {
        let mut scratch = core.scratch.borrow_mut();
        scratch[..partial.len()].copy_from_slice(partial);
        let mut buffer = ReadBuf::new(&mut scratch);
        buffer.set_filled(partial.len());
        match Pin::new(read).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => {}
            other => return other.map_ok(|()| false),
        }
        let filled = buffer.filled();
        if filled.len() == partial.len() {
            return Poll::Ready(Ok(false));
        }
        let mut rest = filled;
        let mut records = core.records.borrow_mut();
        records.clear();
        let mut out = self.out.borrow_mut();
        let before = out.len();
        while let Some(header) = peek(rest, FRAME_BYTES_MAX_DEFAULT).map_err(io::Error::other)? {
            answer(core, &header, header.body_of(rest), &mut out, &mut records)?;
            rest = &rest[header.length as usize..];
        }
        let answered = out.len() - before;
        drop(out);
        partial.clear();
        partial.extend_from_slice(rest);
        match &core.queue {
            Some(queue) if !records.is_empty() => {
                let record = queue.append(&records);
                self.marks.borrow_mut().push_back((record, answered));
                core.await_durable(queue, self, record);
            }
            _ => {
                self.free.set(self.free.get() + answered);
                self.flush();
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Lets answers leave whose records are durable; true if others still wait.
    pub fn release(self: &Rc<Self>, durable: u64) -> bool {
        let mut marks = self.marks.borrow_mut();
        while let Some((_, bytes)) = marks.pop_front_if(|(record, _)| *record <= durable) {
            self.free.set(self.free.get() + bytes);
        }
        if self.free.get() > 0 {
            self.flush();
        }
        !marks.is_empty()
    }

    /// Writes what may leave, as far as the socket takes it.
    fn flush(self: &Rc<Self>) {
        if self.blocked.get() || self.try_flush().is_none_or(|all| all) {
            return;
        }
        self.blocked.set(true);
        let session = self.clone();
        tokio::task::spawn_local(async move {
            while session.try_flush() == Some(false) && session.write.writable().await.is_ok() {}
            session.blocked.set(false);
        });
    }

    /// `None` if the connection is lost; its reader will notice.
    fn try_flush(&self) -> Option<bool> {
        let mut out = self.out.borrow_mut();
        while self.free.get() > 0 {
            match self.write.try_write(&out[..self.free.get()]) {
                Ok(written) => {
                    out.advance(written);
                    self.free.set(self.free.get() - written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(false),
                Err(_) => return None,
            }
        }
        if out.is_empty() {
            out.clear();
        }
        Some(true)
    }
}

/// One frame: orders are answered with made-up cards, and each leaves a record.
fn answer(
    core: &Core,
    header: &FrameHeader,
    body: &[u8],
    out: &mut BytesMut,
    records: &mut BytesMut,
) -> io::Result<()> {
    let mut frame = FrameWriter::begin(out, header.kind.reply_of(), header.request_id);
    match header.kind {
        Kind::Issue => {
            for item in step_items(body, header.count).map_err(io::Error::other)? {
                let slot = core.next_slot.get();
                core.next_slot.set(slot.wrapping_add(1));
                let card = CardRef {
                    slab: core.slab,
                    slot,
                    generation: 0,
                };
                let lsn = Lsn(u64::from(slot) + 1);
                let mut order =
                    IssuedWriter::begin(frame.body(), item.order_id, lsn, item.sku, false);
                order.put_card(card, &SECRET);
                order.finish();
                if core.queue.is_some() {
                    put_record(records, &item, slot);
                }
            }
            frame.set_count(header.count);
        }
        Kind::Hello => HelloReply {
            version: 1,
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            features: 0,
            store_id: [0; 16],
            orders_per_frame_max: ORDERS_PER_FRAME_MAX_DEFAULT,
            orders_in_flight_max: ORDERS_IN_FLIGHT_MAX_DEFAULT,
            quantity_max: QUANTITY_MAX_DEFAULT,
        }
        .encode_into(frame.body()),
        Kind::ServerInfo => {
            encode_control(
                &ServerInfoReply {
                    version: "toy".into(),
                    ..Default::default()
                },
                frame.body(),
            );
        }
        kind => return Err(io::Error::other(format!("a toy does not know {kind:?}"))),
    }
    frame.finish();
    Ok(())
}

fn put_record(records: &mut BytesMut, item: &StepItem, slot: u32) {
    let mut record = [0; RECORD_BYTES];
    record[..16].copy_from_slice(&item.order_id.to_bytes());
    record[16..20].copy_from_slice(&item.sku.0.to_le_bytes());
    record[20..24].copy_from_slice(&slot.to_le_bytes());
    records.extend_from_slice(&record);
}
