//! Frames as a `tokio-util` codec, for whoever prefers a stream of owned frames to bytes in place.

use std::io;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio_util::codec::{Decoder, Encoder};

use crate::frame::{FrameError, FrameHeader, peek};
use crate::frame_writer::FrameWriter;
use crate::limits::{FRAME_BYTES_MAX_DEFAULT, FRAME_HEADER_BYTES};

/// One whole frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The header. `length` is computed when the frame is encoded, whatever it says here.
    pub header: FrameHeader,
    /// The bytes after the header.
    pub body: Bytes,
}

/// Shows the header and the size of the body: a body may hold secrets.
impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// Why a stream of frames ended.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The transport failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Cuts a stream of bytes into [`Frame`]s, and the other way round.
#[derive(Debug, Clone, Copy)]
pub struct FrameCodec {
    /// The longest frame that is accepted, in bytes, either way.
    pub frame_bytes_max: u32,
}

impl Default for FrameCodec {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
        }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        let Some(header) = peek(src, self.frame_bytes_max)? else {
            // The length was checked against the limit above, so this reserves no more than one frame.
            if let Some(length) = src.first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                src.reserve(length.saturating_sub(src.len()));
            }
            return Ok(None);
        };
        let mut frame = src.split_to(header.length as usize).freeze();
        let body = frame.split_off(FRAME_HEADER_BYTES);
        Ok(Some(Frame { header, body }))
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: &Frame, dst: &mut BytesMut) -> Result<(), CodecError> {
        let length = FRAME_HEADER_BYTES + frame.body.len();
        if length > self.frame_bytes_max as usize {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            return Err(FrameError::TooLong {
                length,
                max: self.frame_bytes_max,
            }
            .into());
        }
        let mut writer = FrameWriter::begin(dst, frame.header.kind, frame.header.request_id);
        writer.set_count(frame.header.count);
        writer.set_flags(frame.header.flags);
        writer.body().extend_from_slice(&frame.body);
        writer.finish();
        Ok(())
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: Frame, dst: &mut BytesMut) -> Result<(), CodecError> {
        self.encode(&frame, dst)
    }
}
