//! Lanes: groups of batches that must not overtake each other.
//!
//! A lane's id is stored with each record, so every version of the program must compute the same
//! one on every machine: it is SipHash-2-4 with a zero key over the bytes that
//! `docs/queue-format.md` lists. The tests below compare it with fixed values.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use metrifold_model::Tenant;

/// A group of items that must not overtake each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Tenant of the items.
    pub tenant: Option<Tenant>,
    /// Id of the lane; items of one tenant and id leave in order.
    pub id: u64,
    /// Whether the next item of the lane waits until this one is done. Not needed if the sender
    /// waits for this one before it sends the next.
    pub holds: bool,
}

/// The key by which batches of a tenant are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderedBy<'a> {
    /// A key that the source has set, such as a scraped target.
    Key(&'a str),
    /// The sender's address.
    Peer(IpAddr),
    /// The source itself, if there is no sender.
    Source(&'a str),
}

impl OrderedBy<'_> {
    /// The id of the lane of a tenant's batches with this key.
    pub fn lane_id(self, tenant: Option<&str>) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(0, 0);
        match self {
            Self::Key(key) => put(&mut hasher, b'k', key.as_bytes()),
            Self::Peer(IpAddr::V4(address)) => put(&mut hasher, b'p', &address.octets()),
            Self::Peer(IpAddr::V6(address)) => put(&mut hasher, b'p', &address.octets()),
            Self::Source(source) => put(&mut hasher, b's', source.as_bytes()),
        }
        put(&mut hasher, b't', tenant.unwrap_or_default().as_bytes());
        hasher.finish()
    }
}

/// Hashes a tag, the length as four little-endian bytes, and the bytes.
fn put(hasher: &mut SipHasher24, tag: u8, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    hasher.write(&[tag]);
    hasher.write(&length.to_le_bytes());
    hasher.write(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These ids are stored on disks: a change of one would break the order of the records there.
    #[test]
    fn lane_ids_on_disk_do_not_change() {
        let v4 = OrderedBy::Peer("10.0.0.7".parse().unwrap());
        let v6 = OrderedBy::Peer("2001:db8::7".parse().unwrap());
        let ids = [
            v4.lane_id(None),
            v4.lane_id(Some("acme")),
            v6.lane_id(Some("acme")),
            OrderedBy::Source("own").lane_id(None),
            OrderedBy::Source("own").lane_id(Some("acme")),
            OrderedBy::Key("http://10.0.0.7/metrics").lane_id(Some("acme")),
        ];
        // Computed with an independent implementation.
        let golden = [
            0x779c_b1d3_87a5_6f06,
            0x9e79_2097_d7c2_9735,
            0xedb8_890c_1dfc_66c2,
            0x499a_9154_c144_642e,
            0x2f41_1492_3423_344b,
            0x5ce1_4059_f08f_5538,
        ];
        assert_eq!(ids, golden);
    }

    #[test]
    fn keys_peers_sources_and_tenants_are_told_apart() {
        let ids = [
            OrderedBy::Key("a").lane_id(None),
            OrderedBy::Source("a").lane_id(None),
            OrderedBy::Key("").lane_id(Some("a")),
            OrderedBy::Peer("97.0.0.0".parse().unwrap()).lane_id(None),
            OrderedBy::Key("at").lane_id(None),
            OrderedBy::Key("a").lane_id(Some("t")),
        ];
        for (place, id) in ids.iter().enumerate() {
            assert!(!ids[place + 1..].contains(id), "{place}: {ids:?}");
        }
    }
}
