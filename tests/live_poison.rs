//! One bad series among good ones, on its way to a real Prometheus, which stores nothing of a
//! request that it refuses. `make test` installs it.

mod support;

use http::Method;

use metrifold_engine::dead_letters::Listing;

use support::http as client;
use support::model::{self, Series, to_v1};
use support::peers::{Prometheus, now};
use support::process::Metrifold;

struct Gateway {
    metrifold: Metrifold,
    receiver: Prometheus,
    _data: tempfile::TempDir,
}

impl Gateway {
    async fn start() -> Self {
        let receiver = Prometheus::start("").await;
        let data = tempfile::tempdir().unwrap();
        let config = r#"
            data_dir = "DATA"

            [sources.ingest]
            type = "remote_write"
            address = "{ingest}"

            [sinks.prometheus]
            type = "remote_write"
            inputs = ["ingest"]
            endpoint = "RECEIVER"
            "#
        .replace("RECEIVER", &receiver.write_url())
        .replace("DATA", data.path().to_str().unwrap());
        Self {
            metrifold: Metrifold::start(&config).await,
            receiver,
            _data: data,
        }
    }

    async fn write(&self, series: &[Series]) -> client::Reply {
        let url = format!("{}/api/v1/write", self.metrifold.ingest);
        let headers = [("content-encoding", "snappy")];
        let body = model::body(&to_v1(series));
        client::send(Method::POST, &url, &headers, body).await
    }

    /// The names of the series that are dead letters, once there are so many.
    async fn letters(&self, count: usize) -> Vec<String> {
        let url = format!("{}/api/v1/dead-letters", self.metrifold.api);
        let limit = std::time::Duration::from_secs(30);
        support::process::wait("the letters", limit, async || {
            let listing = client::get(&url).await;
            let listing: Listing = serde_json::from_slice(&listing.body).unwrap();
            let series = listing.letters.iter().flat_map(|letter| &letter.series);
            let name = |labels: &str| labels.split('{').next().unwrap().to_owned();
            let mut names: Vec<_> = series.map(|series| name(&series.labels)).collect();
            names.sort();
            (names.len() == count).then_some(names)
        })
        .await
    }
}

#[tokio::test]
async fn prometheus_gets_all_but_the_samples_that_it_does_not_take() {
    let gateway = Gateway::start().await;
    let time = (now() * 1e3) as i64;
    let at = |time: i64, value: f64| -> Vec<Series> {
        let series = |n| Series::named(&format!("m{n:03}")).sample(value, time);
        (0..200).map(series).collect()
    };
    let reply = gateway.write(&at(time - 2000, 1.0)).await;
    assert_eq!(reply.status, 204, "{}", reply.text());

    // Two are out of order, and one has another value for the same time.
    let mut series = at(time, 2.0);
    series[20] = Series::named("m020").sample(3.0, time - 3000);
    series[21] = Series::named("m021").sample(3.0, time - 4000);
    series[150] = Series::named("m150").sample(3.0, time - 2000);
    let reply = gateway.write(&series).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(gateway.letters(3).await, ["m020", "m021", "m150"]);
    for n in 0..200 {
        let expected = if [20, 21, 150].contains(&n) { 1.0 } else { 2.0 };
        let name = format!("m{n:03}");
        let value = gateway.receiver.value(&name, time as f64 / 1e3).await;
        assert_eq!(value, Some(expected), "{name}");
    }
}

#[tokio::test]
async fn several_samples_of_a_series_beside_a_bad_one_are_stored_all() {
    let gateway = Gateway::start().await;
    let time = (now() * 1e3) as i64;
    let reply = gateway
        .write(&[Series::named("bad").sample(1.0, time)])
        .await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    let several = Series::named("several");
    let series = [
        several.sample(1.0, time - 1000).sample(2.0, time),
        Series::named("bad").sample(2.0, time - 1000),
        Series::named("good").sample(1.0, time),
    ];
    assert_eq!(gateway.write(&series).await.status, 400);
    assert_eq!(gateway.letters(1).await, ["bad"]);
    let at = time as f64 / 1e3;
    let stored = gateway.receiver.samples("several", 60, at).await;
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 2);
    assert_eq!(gateway.receiver.value("good", at).await, Some(1.0));
}
