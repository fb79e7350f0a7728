//! Decompression of pages, bounded by a limit on the result.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use crate::error::{Cause, ScrapeError};

/// Values of `Accept-Encoding`, with and without compression.
#[cfg(feature = "zstd")]
pub(crate) const COMPRESSED: &str = "zstd,gzip";
#[cfg(not(feature = "zstd"))]
pub(crate) const COMPRESSED: &str = "gzip";
pub(crate) const PLAIN: &str = "identity";

/// The largest window that a zstd frame may ask for: 8 MiB, as for HTTP in general.
#[cfg(feature = "zstd")]
const WINDOW_LOG_MAX: u32 = 23;

/// Decompresses a body with this `Content-Encoding` into a page below `limit` bytes.
pub(crate) fn decode(
    body: Bytes,
    encoding: Option<&[u8]>,
    limit: usize,
) -> Result<Bytes, ScrapeError> {
    let failed = |error: std::io::Error| {
        ScrapeError::new(
            Cause::Format,
            format_args!("cannot be decompressed: {error}"),
        )
    };
    let encoding = encoding.unwrap_or_default().trim_ascii();
    #[cfg(feature = "zstd")]
    if encoding.eq_ignore_ascii_case(b"zstd") {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(&*body).map_err(failed)?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
        return read(decoder, limit, failed);
    }
    if encoding.eq_ignore_ascii_case(b"gzip") {
        read(MultiGzDecoder::new(&*body), limit, failed)
    } else if compresses(encoding) {
        let encoding = String::from_utf8_lossy(&encoding[..encoding.len().min(50)]);
        let text = format!("has the encoding {encoding:?}, which was not asked for");
        Err(ScrapeError::new(Cause::Format, text))
    } else {
        // None, or one such as `identity` or, by mistake, `utf-8`.
        check(body.len(), limit)?;
        Ok(body)
    }
}

/// Whether an encoding, or one of several, is one of those that HTTP has for compression.
fn compresses(encoding: &[u8]) -> bool {
    let mut encodings = encoding.split(|byte| *byte == b',');
    encodings.any(|it| {
        let known: [&[u8]; 7] = [
            b"br",
            b"compress",
            b"deflate",
            b"gzip",
            b"x-compress",
            b"x-gzip",
            b"zstd",
        ];
        known
            .iter()
            .any(|known| it.trim_ascii().eq_ignore_ascii_case(known))
    })
}

fn read(
    decoder: impl Read,
    limit: usize,
    failed: impl Fn(std::io::Error) -> ScrapeError,
) -> Result<Bytes, ScrapeError> {
    let mut page = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    decoder.take(most).read_to_end(&mut page).map_err(failed)?;
    check(page.len(), limit)?;
    Ok(page.into())
}

/// As in Prometheus, a page of exactly the limit is too large.
fn check(length: usize, limit: usize) -> Result<(), ScrapeError> {
    match length >= limit {
        true => Err(too_large(limit)),
        false => Ok(()),
    }
}

pub(crate) fn too_large(limit: usize) -> ScrapeError {
    let text = format!("the page has {limit} bytes or more: see body_size_limit");
    ScrapeError::new(Cause::BodySize, text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn a_page_is_what_was_compressed_and_never_more_than_allowed() {
        let page = b"a 1\n".repeat(1000);
        let zstd = Bytes::from(zstd::encode_all(&*page, 1).unwrap());
        for (body, encoding) in [
            (gzip(&page), &b"gzip"[..]),
            (zstd, b"zstd"),
            (page.clone().into(), b"identity"),
            (page.clone().into(), b""),
            // Some servers name a character set here by mistake, which is no encoding.
            (page.clone().into(), b"UTF-8"),
        ] {
            let read = decode(body.clone(), Some(encoding), 4001).unwrap();
            assert_eq!(read, page);
            let error = decode(body, Some(encoding), 4000).unwrap_err();
            assert_eq!(error.cause, Cause::BodySize);
        }
        for wrong in [b"gzip", b"zstd"] {
            let body = Bytes::from_static(b"neither");
            let error = decode(body, Some(wrong), 4000).unwrap_err();
            assert_eq!(error.cause, Cause::Format);
        }
        for unwanted in [&b"br"[..], b"Deflate", b"identity, gzip"] {
            let error = decode(Bytes::new(), Some(unwanted), 1).unwrap_err();
            assert_eq!(error.cause, Cause::Format);
        }
    }
}
