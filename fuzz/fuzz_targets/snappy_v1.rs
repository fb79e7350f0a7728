//! Bodies of remote write 1.0: both checks of the compression agree, and what can be decoded can
//! be edited and encoded in both versions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metrifold::protocol::{Version, snappy};

#[path = "../codec.rs"]
mod codec;

fuzz_target!(|data: &[u8]| {
    if let Ok(declared) = snappy::declared_len(data, codec::LIMITS.decoded_bytes) {
        let mut out = vec![0; declared];
        let decompressed = snappy::decompress(data, &mut out);
        assert_eq!(snappy::check(data).is_ok(), decompressed.is_ok());
    }
    codec::body(Version::V1, data);
    codec::protobuf(Version::V1, data);
});
