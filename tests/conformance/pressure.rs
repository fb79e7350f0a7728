//! A sender waits for a hanging far end, unless the sink is optional.

use metrifold_model::{Kind, Signal};
use metrifold_testing::{Sender, body, one};

use crate::each;
use crate::recipes::{Arrives, Feeds, Recipe};
use crate::rig::{Place, Rig, once_released};

/// Timeout of the source, for an answer that never comes.
const LIMIT: &str = "100ms";

/// Status of the source's answer while the far end hangs.
fn answered(recipe: &'static Recipe, more: &str) -> u16 {
    let limit = |key: &str| format!("{key} = \"{LIMIT}\"");
    let rig = match (recipe.kind, recipe.plane) {
        (Kind::Source, _) => {
            let more = limit(recipe.limit.unwrap());
            Rig::start_with(recipe, &more, "")
        }
        (_, Signal::Queries) => Rig::start_with(recipe, more, &limit("timeout")),
        _ => Rig::start_with(recipe, more, &limit("acknowledge_timeout")),
    };
    rig.place.endpoint.now(once_released);
    let status = rig.feeder().status(1);
    // The far end, and nothing else, was the reason.
    rig.place.endpoint.wait_requests(1);
    rig.place.endpoint.release();
    status
}

#[test]
fn who_sends_waits_for_a_far_end_that_stands_still() {
    each(|recipe| {
        if recipe.plane == Signal::Rules {
            return Err("the newest rules take the place of those that wait");
        }
        if recipe.feeds == Feeds::Itself {
            return Err("nobody waits for it");
        }
        if recipe.arrives != Arrives::Endpoint {
            return Err("it is optional, or nothing can stand still");
        }
        let expected = match recipe.plane {
            Signal::Queries => 504,
            _ => 503,
        };
        assert_eq!(answered(recipe, ""), expected);
        Ok(())
    });
}

#[test]
fn nobody_waits_for_an_optional_sink_that_stands_still() {
    each(|recipe| {
        match (recipe.plane, recipe.kind, recipe.arrives) {
            (Signal::Metrics, Kind::Sink, Arrives::Endpoint) => {
                assert_eq!(answered(recipe, "required = false"), 204);
            }
            (Signal::Metrics, Kind::Sink, Arrives::Printed) => printed(recipe),
            (Signal::Metrics, Kind::Sink, _) => return Err("nothing can stand still"),
            _ => return Err("it cannot be optional"),
        }
        Ok(())
    });
}

/// Writes more than the buffer of a pipe that nobody reads.
fn printed(recipe: &'static Recipe) {
    let (reader, writer) = std::io::pipe().unwrap();
    let place = Place::new();
    let config = place.config(recipe, "", "");
    let rig = Rig::run(place, recipe, &config, &[], writer.into());
    let text = "x".repeat(1000);
    let series = |n: i64| one("up", n).label("n", &n.to_string()).label("text", &text);
    let mut sender = Sender::new(rig.ingest);
    for _ in 0..5 {
        let large: Vec<_> = (0..200).map(series).collect();
        assert_eq!(sender.write(&body(&large)).status, 204);
    }
    let queued = rig.metric("metrifold_queue_batches", &[("component_id", "subject")]);
    assert!(queued > 0.0, "it stands still");
    drop(reader);
}
