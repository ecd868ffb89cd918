//! Frames, written in place: the header is put down first and patched when the body is known.

use bytes::BytesMut;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::frame::{CHECKED_FROM, FRAME_MAGIC, FRAME_VERSION, HeaderLayout, Kind, crc32c};
use crate::limits::{FRAME_BYTES_MAX_LIMIT, FRAME_HEADER_BYTES};

/// One frame being written at the end of a buffer. Dropped before [`FrameWriter::finish`], it leaves the buffer as
/// it was (and wipes what it wrote, for a body may hold secrets).
#[must_use = "a frame that is not finished is taken back"]
#[derive(Debug)]
pub struct FrameWriter<'a> {
    out: &'a mut BytesMut,
    /// Where the frame begins in `out`. Whoever appends through `body` never cuts `out` below `start` + header.
    start: usize,
    count: u16,
    flags: u16,
    finished: bool,
}

impl<'a> FrameWriter<'a> {
    /// Puts a header down; the body is what is appended to [`FrameWriter::body`] from now on.
    #[inline]
    pub fn begin(out: &'a mut BytesMut, kind: Kind, request_id: u64) -> Self {
        let start = out.len();
        let header = HeaderLayout {
            length: U32::ZERO,
            checksum: U32::ZERO,
            magic: FRAME_MAGIC,
            version: FRAME_VERSION,
            kind: kind as u8,
            flags: U16::ZERO,
            count: U16::ZERO,
            request_id: U64::new(request_id),
        };
        out.extend_from_slice(header.as_bytes());
        Self {
            out,
            start,
            count: 0,
            flags: 0,
            finished: false,
        }
    }

    /// The buffer, to append the body to. Only append, or cut off what was appended since.
    #[inline]
    pub fn body(&mut self) -> &mut BytesMut {
        self.out
    }

    /// Says how many items the body holds.
    #[inline]
    pub fn set_count(&mut self, count: u16) {
        self.count = count;
    }

    /// Sets the header flags, for example [`crate::FLAG_MORE`].
    #[inline]
    pub fn set_flags(&mut self, flags: u16) {
        self.flags = flags;
    }

    /// Bytes of the frame so far, header included.
    #[inline]
    #[allow(
        clippy::len_without_is_empty,
        reason = "a frame has at least its header"
    )]
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Patches length, count, flags and checksum, and returns the length in bytes.
    ///
    /// # Panics
    /// If the frame is longer than any peer may accept ([`FRAME_BYTES_MAX_LIMIT`]), or if the buffer was cut below
    /// the header: both are bugs of the caller, and bytes sent on would be misread.
    #[inline]
    pub fn finish(mut self) -> usize {
        let frame = &mut self.out[self.start..];
        let length = frame.len();
        assert!(
            length <= FRAME_BYTES_MAX_LIMIT as usize,
            "a frame of {length} bytes is longer than any may be"
        );
        let (header, _) = HeaderLayout::mut_from_prefix(frame)
            .expect("the header that begin wrote is still there");
        header.length = U32::new(length as u32);
        header.flags = U16::new(self.flags);
        header.count = U16::new(self.count);
        let checksum = crc32c(&frame[CHECKED_FROM..]);
        frame[4..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        self.finished = true;
        length
    }
}

impl Drop for FrameWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            take_back(self.out, self.start);
        }
    }
}

/// Cuts `out` down to `len` and wipes what was cut off.
pub(crate) fn take_back(out: &mut BytesMut, len: usize) {
    if let Some(cut) = out.get_mut(len..) {
        zeroize::Zeroize::zeroize(cut);
        out.truncate(len);
    }
}

const _: () = assert!(
    CHECKED_FROM == 8 && FRAME_HEADER_BYTES == 24,
    "finish patches the checksum at 4..8"
);
