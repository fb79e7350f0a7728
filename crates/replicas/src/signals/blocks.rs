//! Prometheus' list of its blocks, `/api/v1/status/tsdb/blocks` (since 3.6).

use serde::Deserialize;

use super::{MOST_SPANS, Span, join};

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    blocks: Vec<Block>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    min_time: i64,
    max_time: i64,
    #[serde(default)]
    stats: Stats,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    #[serde(default)]
    num_samples: u64,
}

/// Periods and number of samples of the blocks. `None` if the body is not such a list.
pub(crate) fn blocks(body: &[u8]) -> Option<(Vec<Span>, f64)> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let blocks = answer.data.blocks;
    let samples = blocks
        .iter()
        .map(|block| block.stats.num_samples as f64)
        .sum();
    let spans = blocks.iter().map(|block| Span {
        start: block.min_time,
        end: block.max_time,
    });
    let mut spans = join(spans.collect(), 0);
    // The newest spans are kept.
    let extra = spans.len().saturating_sub(MOST_SPANS);
    spans.drain(..extra);
    Some((spans, samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_where_the_data_is() {
        let body = br#"{"status":"success","data":{"blocks":[
            {"ulid":"A","minTime":0,"maxTime":7200000,"stats":{"numSamples":10,"numSeries":1}},
            {"ulid":"B","minTime":14400000,"maxTime":21600000,"stats":{"numSamples":5}},
            {"ulid":"C","minTime":7200000,"maxTime":9000000,"version":1}]}}"#;
        let (spans, samples) = blocks(body).unwrap();
        assert_eq!(samples, 15.0);
        let expected = [(0, 9_000_000), (14_400_000, 21_600_000)];
        assert_eq!(spans, expected.map(|(start, end)| Span { start, end }));
        let (spans, samples) = blocks(br#"{"status":"success","data":{"blocks":[]}}"#).unwrap();
        assert_eq!((spans.len(), samples), (0, 0.0));
        for other in [&b"404 page not found"[..], b"{}", b"[]", b""] {
            assert!(blocks(other).is_none());
        }
    }
}
