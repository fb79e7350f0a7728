//! The ledger of a sink of metrics balances, however its batches end: everything sent to the sink
//! is delivered, dropped or queued.

use metrifold::api::ledger::{Balance, Ledgers, Row};
use metrifold_model::{Kind, Signal};
use metrifold_testing::series::{Series, integer_histogram};
use metrifold_testing::{Seen, Sender, body, one, until_so};

use crate::each;
use crate::recipes::{Arrives, Recipe};
use crate::rig::{Place, Rig};

/// A way in which a batch ends, or stays queued.
pub struct Way {
    what: &'static str,
    /// Further keys of the sink.
    keys: &'static str,
    /// Series of the one batch that is sent.
    series: fn() -> Vec<Series>,
    /// The endpoint's answer, for sinks that have one.
    endpoint: fn(&Seen) -> u16,
    /// Status that the sender gets.
    status: u16,
    /// Samples in the final ledger.
    delivered: i64,
    dropped: i64,
    queued: i64,
    /// The only reason for which samples are dropped.
    reason: &'static str,
    /// Whether the program restarts before the ledger is read.
    restart: bool,
}

const DELIVERED: Way = Way {
    what: "delivered",
    keys: "",
    series: three,
    endpoint: |_| 204,
    status: 204,
    delivered: 3,
    dropped: 0,
    queued: 0,
    reason: "",
    restart: false,
};

/// Ways of a sink that accepts everything.
pub const ALL: &[Way] = &[DELIVERED];

/// Ways of a sink that sends remote write.
pub const REMOTE_WRITE: &[Way] = &[
    DELIVERED,
    Way {
        what: "refused for content",
        endpoint: |_| 400,
        status: 400,
        delivered: 0,
        dropped: 3,
        reason: "refused",
        ..DELIVERED
    },
    Way {
        what: "refused in part",
        endpoint: |seen| match seen.series().iter().any(|it| it.name() == "b") {
            true => 400,
            false => 204,
        },
        status: 400,
        delivered: 2,
        dropped: 1,
        reason: "refused",
        ..DELIVERED
    },
    Way {
        what: "too old",
        keys: "required = false\nretry.max_age = \"50ms\"",
        endpoint: |_| 503,
        delivered: 0,
        dropped: 3,
        reason: "too_old",
        ..DELIVERED
    },
    Way {
        what: "kept in memory while the endpoint is down",
        keys: "required = false",
        endpoint: |_| 503,
        delivered: 0,
        queued: 3,
        ..DELIVERED
    },
    Way {
        what: "kept on disk while the endpoint is down, over a shutdown",
        keys: "queue = { type = \"disk\" }",
        endpoint: |_| 503,
        delivered: 0,
        queued: 3,
        restart: true,
        ..DELIVERED
    },
];

/// Ways of a sink that is scraped.
pub const EXPORTER: &[Way] = &[
    DELIVERED,
    Way {
        what: "too many series",
        keys: "max_series = 1",
        delivered: 1,
        dropped: 2,
        reason: "too_many_series",
        ..DELIVERED
    },
    Way {
        what: "a native histogram",
        series: || {
            vec![
                one("a", 1),
                Series::named("h").histogram(integer_histogram(1)),
            ]
        },
        delivered: 1,
        dropped: 1,
        reason: "native_histogram",
        ..DELIVERED
    },
];

fn three() -> Vec<Series> {
    ["a", "b", "c"].map(|name| one(name, 1)).into()
}

fn sink_of_metrics(recipe: &Recipe) -> crate::Case {
    match (recipe.plane, recipe.kind) {
        (Signal::Metrics, Kind::Sink) => Ok(()),
        _ => Err("it has no ledger"),
    }
}

#[test]
fn the_ledger_balances_for_every_way_a_batch_can_end() {
    each(|recipe| {
        sink_of_metrics(recipe)?;
        assert!(!recipe.ways.is_empty(), "give its recipe ways");
        for way in recipe.ways {
            println!("{}: {}", recipe.title(), way.what);
            ends(recipe, way);
        }
        Ok(())
    });
}

fn ends(recipe: &'static Recipe, way: &Way) {
    let mut rig = Rig::start_with(recipe, way.keys, "count_samples = true");
    rig.place.endpoint.now(way.endpoint);
    let answer = Sender::new(rig.ingest).write(&body(&(way.series)()));
    assert_eq!(answer.status, way.status, "{}", answer.text());
    if way.restart {
        // The batch is on disk: a shutdown does not wait for the endpoint.
        let status = rig.terminate();
        assert!(status.success(), "{status}");
        rig.start_again();
    }
    let expected = [way.delivered, way.dropped, way.queued];
    until_so(&format!("{}: {expected:?}", way.what), || {
        let ledgers = ledgers(&rig);
        samples(&ledgers.sinks[0].total)[1..] == expected
    });
    let ledgers = ledgers(&rig);
    let total = &ledgers.sinks[0].total;
    assert_eq!(ledgers.balances, Balance::Known(true), "{total:?}");
    let sent: i64 = expected.iter().sum();
    assert_eq!(samples(total)[0], sent, "{total:?}");
    let reasons = total.dropped.iter();
    let reasons: Vec<_> = reasons.filter(|(_, amount)| amount.samples > 0).collect();
    assert!(
        reasons.iter().all(|(reason, _)| *reason == way.reason),
        "{reasons:?}"
    );
}

#[test]
fn what_only_memory_has_when_the_endpoint_is_down_at_the_end_is_told() {
    each(|recipe| {
        sink_of_metrics(recipe)?;
        if recipe.arrives != Arrives::Endpoint {
            return Err("nothing keeps it from delivering");
        }
        let place = Place::new();
        place.endpoint.now(|_| 503);
        let keys = format!("{}\nrequired = false", (recipe.keys)(&place));
        let config = place.config(recipe, &keys, "");
        let limit = ["--shutdown-limit", "100ms"];
        let mut rig = Rig::run(place, recipe, &config, &limit, std::process::Stdio::null());
        for number in 1..=3 {
            assert!(rig.feed(number));
        }
        let status = rig.terminate();
        assert_eq!(status.code(), Some(1), "{}", rig.log());
        // The number of batches in the log line depends on what is in flight at that moment.
        rig.until_logged("left undelivered sink=subject");
        Ok(())
    });
}

fn ledgers(rig: &Rig) -> Ledgers {
    serde_json::from_slice(&rig.get("/api/v1/ledger").body).unwrap()
}

/// Received, delivered, dropped and queued samples.
fn samples(row: &Row) -> [i64; 4] {
    let dropped = row.dropped.values().map(|amount| amount.samples).sum();
    let [received, delivered, queued] =
        [row.received, row.delivered, row.queued].map(|amount| amount.samples);
    [received, delivered, dropped, queued]
}
