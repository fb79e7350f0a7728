//! Bodies of remote write 2.0: what can be decoded can be edited and encoded in both versions.
#![no_main]

use libfuzzer_sys::fuzz_target;

use metrifold_model::Version;

#[path = "../codec.rs"]
mod codec;

fuzz_target!(|data: &[u8]| {
    codec::body(Version::V2, data);
    codec::protobuf(Version::V2, data);
});
