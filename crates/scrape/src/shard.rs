//! The shard of targets that one of several instances scrapes.

use std::fmt;
use std::str::FromStr;

use metrifold_base::keys::{Shape, Shaped};
use metrifold_base::{Problems, keys};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

keys! {
    /// Part of the targets that is scraped.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ShardKeys {
        /// Index of this process, from 0: a number, or a text that is a number or ends with a hyphen and a number, such as `"${CF_INSTANCE_INDEX}"` or the name of a StatefulSet's pod.
        index: Index = required(0),
        /// Number of processes that divide the targets, from 1 to 10000.
        count: u32 = required(2),
    }
}

/// The number of an instance, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index(u32);

impl Shaped for Index {
    const SHAPE: Shape = Shape::Either(&<u32 as Shaped>::SHAPE, &Shape::Text);
}

impl FromStr for Index {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.rsplit('-').next().unwrap_or_default();
        let parsed = digits.parse().map(Self);
        parsed.map_err(|_| {
            format!("{text:?} is not the number of an instance, and does not end with one")
        })
    }
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IndexVisitor;
        impl Visitor<'_> for IndexVisitor {
            type Value = Index;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of an instance, from 0")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Index, E> {
                let number = u32::try_from(number);
                number
                    .map(Index)
                    .map_err(|_| E::custom("is not a number from 0"))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Index, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(IndexVisitor)
    }
}

impl ShardKeys {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if !(1..=10_000).contains(&self.count) {
            problems.at("shard.count", "must be from 1 to 10000");
        } else if self.index.0 >= self.count {
            let problem = problems.at("shard.index", "must be below shard.count");
            problem.help("instances are counted from 0");
        }
    }

    /// Whether the target whose labels have this hash belongs to this instance.
    pub(crate) fn has(&self, hash: u64) -> bool {
        self.owner(hash) == u64::from(self.index.0)
    }

    /// Index of the instance to which the target whose labels have this hash belongs.
    pub(crate) fn owner(&self, hash: u64) -> u64 {
        hash % u64::from(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_a_number_or_ends_with_one() {
        for (text, index) in [("0", 0), ("12", 12), ("metrifold-3", 3), ("a-b-10", 10)] {
            assert_eq!(text.parse(), Ok(Index(index)), "{text}");
        }
        for wrong in ["", "a", "a-", "3a", "1.5"] {
            assert!(wrong.parse::<Index>().is_err(), "{wrong:?}");
        }
        let keys: ShardKeys = toml::from_str("index = \"x-1\"\ncount = 3").unwrap();
        assert_eq!((keys.index, keys.count), (Index(1), 3));
        assert!(
            (0..9)
                .map(|hash| keys.has(hash))
                .eq((0..9).map(|hash| hash % 3 == 1))
        );
    }
}
