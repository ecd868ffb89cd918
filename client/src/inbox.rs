//! What has arrived and is not read yet. It holds secrets, so every byte is wiped once it is read, and no copy is left
//! behind when it grows.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

/// What an inbox holds at first, and shrinks back to.
const BYTES_FIRST: usize = 64 * 1024;

/// A growing buffer of received bytes.
pub(crate) struct Inbox {
    /// `..start` is read (and wiped), `start..end` is received, `end..` is free.
    bytes: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Zeroizing::new(vec![0; BYTES_FIRST]),
            start: 0,
            end: 0,
        }
    }

    /// What has been received and not consumed.
    pub(crate) fn received(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Wipes the first `bytes` received bytes.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.bytes[self.start..self.start + bytes].fill(0);
        self.start += bytes;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > BYTES_FIRST {
                *self = Self::new();
            }
        }
    }

    /// Receives more, with room for a frame of `frame_bytes` in all. `Ok(0)` is the end of the stream.
    ///
    /// Cancellation-safe: a read that is dropped has received nothing.
    pub(crate) async fn receive(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        frame_bytes: usize,
    ) -> io::Result<usize> {
        self.make_room(frame_bytes);
        let received = from.read(&mut self.bytes[self.end..]).await?;
        self.end += received;
        Ok(received)
    }

    fn make_room(&mut self, frame_bytes: usize) {
        let have = self.end - self.start;
        if frame_bytes > self.bytes.len() {
            // A new allocation, not a growing one: the old bytes are wiped as they are dropped.
            let mut larger = Zeroizing::new(vec![0; frame_bytes.next_power_of_two()]);
            larger[..have].copy_from_slice(self.received());
            self.bytes = larger;
            (self.start, self.end) = (0, have);
        } else if self.end == self.bytes.len() || self.start + frame_bytes > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.bytes[have..self.end].fill(0);
            (self.start, self.end) = (0, have);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn receive_all(inbox: &mut Inbox, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let have = inbox.received().len();
            inbox.receive(&mut bytes, have + 1).await.unwrap();
        }
    }

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_and_are_wiped() {
        let mut inbox = Inbox::new();
        let stream: Vec<u8> = (0..300_000_u32)
            .map(|index| (index % 251) as u8 + 1)
            .collect();
        let mut read = 0;
        for piece in stream.chunks(40_000) {
            receive_all(&mut inbox, piece).await;
            let consume = inbox.received().len().min(33_333);
            assert_eq!(inbox.received()[..consume], stream[read..read + consume]);
            inbox.consume(consume);
            read += consume;
            let (start, end) = (inbox.start, inbox.end);
            assert!(
                inbox.bytes[..start]
                    .iter()
                    .chain(&inbox.bytes[end..])
                    .all(|byte| *byte == 0)
            );
        }
        assert_eq!(inbox.received(), &stream[read..]);
        inbox.consume(stream.len() - read);
        assert_eq!(
            (inbox.bytes.len(), inbox.received().len()),
            (BYTES_FIRST, 0)
        );
    }

    #[tokio::test]
    async fn there_is_room_for_the_frame_that_was_announced() {
        let mut inbox = Inbox::new();
        receive_all(&mut inbox, &[7; 100]).await;
        inbox.consume(60);
        inbox.make_room(BYTES_FIRST);
        assert_eq!((inbox.start, inbox.received()), (0, &[7; 40][..]));
        inbox.make_room(BYTES_FIRST + 1);
        assert_eq!(
            (inbox.bytes.len(), inbox.received()),
            (2 * BYTES_FIRST, &[7; 40][..])
        );
    }
}
