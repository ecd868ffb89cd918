//! One loaded socket: what could not be written yet, and what has not arrived whole yet. It knows no protocol.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use bytes::{Buf, BytesMut};

/// A non-blocking socket.
#[derive(Debug)]
pub struct Wire {
    /// Non-blocking.
    pub stream: TcpStream,
    /// Bytes the socket had no room for; while there are any, later ones queue behind them.
    pending: BytesMut,
    /// The beginning of a message whose rest has not arrived.
    partial: Vec<u8>,
}

impl Wire {
    /// Takes charge of a stream.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            pending: BytesMut::new(),
            partial: Vec::new(),
        })
    }

    /// Writes `out` and empties it, in one system call as a rule. True if all of it is in the kernel's hands.
    #[inline]
    pub fn send(&mut self, out: &mut BytesMut) -> io::Result<bool> {
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(out);
            out.clear();
            return Ok(false);
        }
        let written = write_some(&mut self.stream, out)?;
        if written < out.len() {
            self.pending.extend_from_slice(&out[written..]);
        }
        out.clear();
        Ok(self.pending.is_empty())
    }

    /// Writes what was left over. True if nothing is left over now.
    pub fn flush(&mut self) -> io::Result<bool> {
        let written = write_some(&mut self.stream, &self.pending)?;
        self.pending.advance(written);
        Ok(self.pending.is_empty())
    }

    /// True while bytes wait for the socket.
    #[inline]
    pub fn is_backed_up(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Reads once into `scratch`, behind the message that was begun before. Returns how much of `scratch` is filled;
    /// `None` if there was nothing to read.
    #[inline]
    pub fn receive(&mut self, scratch: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let kept = self.partial.len();
        if scratch.len() < kept * 2 {
            // Only a message longer than half the scratch gets here; the next read then has as much room again.
            scratch.resize(kept * 2, 0);
        }
        scratch[..kept].copy_from_slice(&self.partial);
        loop {
            match self.stream.read(&mut scratch[kept..]) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server closed the connection",
                    ));
                }
                Ok(read) => return Ok(Some(kept + read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the beginning of a message until its rest arrives.
    #[inline]
    pub fn keep(&mut self, partial: &[u8]) {
        self.partial.clear();
        self.partial.extend_from_slice(partial);
    }
}

fn write_some(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<usize> {
    let length = bytes.len();
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length - bytes.len())
}
