//! RESP 2, as far as this bench needs it: commands out, one reply at a time in.

use bytes::BytesMut;

/// A reply, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `$5\r\nhello\r\n`
    Bulk(&'a [u8]),
    /// `$-1\r\n`
    Nil,
    /// `+OK\r\n`
    Simple(&'a [u8]),
    /// `:7\r\n`
    Integer(i64),
    /// `-ERR …\r\n`
    Error(&'a [u8]),
}

/// Bytes that are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are no RESP reply, at {:?}", String::from_utf8_lossy(.0))]
pub struct BadReply([u8; 8]);

/// Appends a command: an array of bulk strings.
pub fn put_command(out: &mut BytesMut, words: &[&[u8]]) {
    put_array_head(out, words.len());
    words.iter().for_each(|word| put_word(out, word));
}

/// Appends the head of a command of so many words.
pub fn put_array_head(out: &mut BytesMut, words: usize) {
    out.extend_from_slice(format!("*{words}\r\n").as_bytes());
}

/// Appends one word of a command.
pub fn put_word(out: &mut BytesMut, word: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// Takes the reply at the start of `bytes`: the reply and its length, `None` while it is not whole.
#[inline]
pub fn take(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, BadReply> {
    let Some(&kind) = bytes.first() else {
        return Ok(None);
    };
    let Some(line_end) = bytes.iter().position(|&byte| byte == b'\r') else {
        return Ok(None);
    };
    let line = &bytes[1..line_end];
    let after_line = line_end + 2;
    if after_line > bytes.len() {
        return Ok(None);
    }
    match kind {
        b'+' => Ok(Some((Reply::Simple(line), after_line))),
        b'-' => Ok(Some((Reply::Error(line), after_line))),
        b':' => Ok(Some((
            Reply::Integer(number(line).ok_or_else(|| bad(bytes))?),
            after_line,
        ))),
        b'$' => match number(line).ok_or_else(|| bad(bytes))? {
            -1 => Ok(Some((Reply::Nil, after_line))),
            length => {
                let length = usize::try_from(length).map_err(|_| bad(bytes))?;
                let end = after_line + length;
                Ok((end + 2 <= bytes.len())
                    .then(|| (Reply::Bulk(&bytes[after_line..end]), end + 2)))
            }
        },
        _ => Err(bad(bytes)),
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .filter(|number| (-1..1 << 40).contains(number))
}

#[cold]
fn bad(bytes: &[u8]) -> BadReply {
    let mut first = [b' '; 8];
    let length = bytes.len().min(8);
    first[..length].copy_from_slice(&bytes[..length]);
    BadReply(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_taken_when_they_are_whole() {
        for (bytes, expected) in [
            (&b"+OK\r\n"[..], Reply::Simple(b"OK")),
            (b"$5\r\nhel\rl\r\n", Reply::Bulk(b"hel\rl")),
            (b"$0\r\n\r\n", Reply::Bulk(b"")),
            (b"$-1\r\n", Reply::Nil),
            (b":42\r\n", Reply::Integer(42)),
            (b"-ERR no\r\n", Reply::Error(b"ERR no")),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(take(&bytes[..end]), Ok(None), "{bytes:?} cut at {end}");
            }
            assert_eq!(take(bytes), Ok(Some((expected, bytes.len()))));
            let two = [bytes, bytes].concat();
            assert_eq!(
                take(&two),
                Ok(Some((expected, bytes.len()))),
                "the second one waits"
            );
        }
        for bad in [&b"?\r\n"[..], b"$x\r\n", b"$-2\r\n", b":\r\n"] {
            assert!(take(bad).is_err(), "{bad:?} was taken for a reply");
        }
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut out = BytesMut::new();
        put_command(&mut out, &[b"GET", b"key"]);
        assert_eq!(&out[..], b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
    }
}
