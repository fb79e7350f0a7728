//! One bad series among good ones, sent to a real Prometheus, which stores nothing of a refused
//! request. `make test` installs it.

use metrifold_engine::dead_letters::Listing;
use metrifold_testing::config::{ingest, sink};
use metrifold_testing::peers::{Prometheus, now};
use metrifold_testing::{Answer, Metrifold, Sender, Series, body, until};

struct Gateway {
    metrifold: Metrifold,
    receiver: Prometheus,
    _data: tempfile::TempDir,
}

impl Gateway {
    fn start() -> Self {
        let receiver = Prometheus::start("");
        let data = tempfile::tempdir().unwrap();
        let config = format!(
            "data_dir = {:?}\n{}{}",
            data.path(),
            ingest(""),
            sink("prometheus", "ingest", &receiver.write_url(), "")
        );
        Self {
            metrifold: Metrifold::start(&config),
            receiver,
            _data: data,
        }
    }

    fn write(&self, series: &[Series]) -> Answer {
        Sender::new(self.metrifold.ingest).write(&body(series))
    }

    /// Names of the series that are dead letters, once there are `count`.
    fn letters(&self, count: usize) -> Vec<String> {
        until(&format!("there are {count} letters"), || {
            let listing = self.metrifold.get("/api/v1/dead-letters");
            let listing: Listing = serde_json::from_slice(&listing.body).unwrap();
            let series = listing.letters.iter().flat_map(|letter| &letter.series);
            let name = |labels: &str| labels.split('{').next().unwrap().to_owned();
            let mut names: Vec<_> = series.map(|series| name(&series.labels)).collect();
            names.sort();
            (names.len() == count).then_some(names)
        })
    }
}

#[test]
fn prometheus_gets_all_but_the_samples_that_it_does_not_take() {
    let gateway = Gateway::start();
    let time = (now() * 1e3) as i64;
    let at = |time: i64, value: f64| -> Vec<Series> {
        let series = |n| Series::named(&format!("m{n:03}")).sample(value, time);
        (0..200).map(series).collect()
    };
    let reply = gateway.write(&at(time - 2000, 1.0));
    assert_eq!(reply.status, 204, "{}", reply.text());

    // Two are out of order, and one has another value for an existing timestamp.
    let mut series = at(time, 2.0);
    series[20] = Series::named("m020").sample(3.0, time - 3000);
    series[21] = Series::named("m021").sample(3.0, time - 4000);
    series[150] = Series::named("m150").sample(3.0, time - 2000);
    let reply = gateway.write(&series);
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(gateway.letters(3), ["m020", "m021", "m150"]);
    for n in 0..200 {
        let expected = if [20, 21, 150].contains(&n) { 1.0 } else { 2.0 };
        let name = format!("m{n:03}");
        let value = gateway.receiver.value(&name, time as f64 / 1e3);
        assert_eq!(value, Some(expected), "{name}");
    }
}

#[test]
fn several_samples_of_a_series_beside_a_bad_one_are_stored_all() {
    let gateway = Gateway::start();
    let time = (now() * 1e3) as i64;
    let reply = gateway.write(&[Series::named("bad").sample(1.0, time)]);
    assert_eq!(reply.status, 204, "{}", reply.text());
    let several = Series::named("several");
    let series = [
        several.sample(1.0, time - 1000).sample(2.0, time),
        Series::named("bad").sample(2.0, time - 1000),
        Series::named("good").sample(1.0, time),
    ];
    assert_eq!(gateway.write(&series).status, 400);
    assert_eq!(gateway.letters(1), ["bad"]);
    let at = time as f64 / 1e3;
    let stored = gateway.receiver.samples("several", 60, at);
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 2);
    assert_eq!(gateway.receiver.value("good", at), Some(1.0));
}
