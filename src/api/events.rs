//! Reloads and state changes of components as server-sent events.
//!
//! Events never wait for a listener: one that reads too slowly is disconnected, and reads the
//! topology when it connects again.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use http::StatusCode;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};

use metrifold_engine::reload::{Report, Trigger};
use metrifold_http::{Event, Response, answer};
use metrifold_telemetry::{State, StateChange, Telemetry};

use super::{RETRY_AFTER, Status};

/// Path of the events.
pub(super) const EVENTS: &str = "/api/v1/events";

/// Most listeners at once.
const LISTENERS_MAX: usize = 64;

/// Most events that a listener may lag behind.
const BEHIND_MAX: usize = 256;

/// State changes of components, for all listeners.
pub(super) struct Feed {
    states: broadcast::Sender<StateChange>,
    places: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Reload<'a> {
    /// Seconds since the epoch.
    time: u64,
    trigger: Trigger,
    outcome: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct ComponentState<'a> {
    id: &'a str,
    kind: &'static str,
    r#type: &'a str,
    state: State,
}

impl Feed {
    /// A feed of the state changes of the components of `telemetry`.
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let states = broadcast::Sender::new(BEHIND_MAX);
        let tell = states.clone();
        telemetry.watch_states(move |change| {
            // An error means that nobody listens.
            let _ = tell.send(change);
        });
        Self {
            states,
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
        }
    }
}

/// Answers with a stream of events.
pub(super) fn listen(status: &Status) -> Response {
    let Ok(place) = Arc::clone(&status.feed.places).try_acquire_owned() else {
        let text = format!("there are {LISTENERS_MAX} listeners for events already");
        return answer::retry_after(StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER, &text);
    };
    let (tell, events) = mpsc::channel(BEHIND_MAX);
    let reloads = status.board.follow();
    let states = status.feed.states.subscribe();
    tokio::spawn(forward(reloads, states, tell, place));
    answer::events(events)
}

/// Forwards events to one listener until it disconnects or lags too far behind.
async fn forward(
    mut reloads: broadcast::Receiver<Arc<Report>>,
    mut states: broadcast::Receiver<StateChange>,
    tell: mpsc::Sender<Event>,
    _place: OwnedSemaphorePermit,
) {
    loop {
        let event = tokio::select! {
            () = tell.closed() => return,
            report = reloads.recv() => report.map(|report| reload(&report)),
            change = states.recv() => change.map(|change| component(&change)),
        };
        match event {
            Ok(event) => {
                if tell.try_send(event).is_err() {
                    return;
                }
            }
            // Dropping `tell` ends the answer.
            Err(RecvError::Lagged(_) | RecvError::Closed) => return,
        }
    }
}

fn reload(report: &Report) -> Event {
    let time = report.time.duration_since(UNIX_EPOCH);
    event(
        "reload",
        &Reload {
            time: time.map_or(0, |since| since.as_secs()),
            trigger: report.trigger,
            outcome: report.outcome.name(),
            text: &report.outcome.to_string(),
        },
    )
}

fn component(change: &StateChange) -> Event {
    event(
        "component",
        &ComponentState {
            id: &change.id,
            kind: change.kind.as_str(),
            r#type: &change.type_name,
            state: change.state,
        },
    )
}

fn event(name: &'static str, data: &impl Serialize) -> Event {
    // Serializing strings and numbers cannot fail.
    let data = serde_json::to_string(data).unwrap_or_default();
    Event { name, data }
}

#[cfg(test)]
mod tests {
    use metrifold_model::Kind;

    use super::*;

    fn change(id: &str) -> StateChange {
        StateChange {
            id: id.into(),
            kind: Kind::Sink,
            type_name: "thanos".into(),
            state: State::Restarting,
        }
    }

    #[tokio::test]
    async fn whoever_does_not_keep_up_is_cut_off_and_gives_its_place_up() {
        let states = broadcast::Sender::new(2);
        let reloads = broadcast::Sender::new(2);
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let (tell, mut events) = mpsc::channel(1);
        let telling = tokio::spawn(forward(
            reloads.subscribe(),
            states.subscribe(),
            tell,
            place,
        ));
        states.send(change("a")).unwrap();
        let first = events.recv().await.unwrap();
        let data = r#"{"id":"a","kind":"sink","type":"thanos","state":"restarting"}"#;
        assert_eq!((first.name, first.data.as_str()), ("component", data));
        // One more event fits; the next does not.
        for id in ["b", "c"] {
            states.send(change(id)).unwrap();
        }
        telling.await.unwrap();
        assert!(events.recv().await.is_some());
        assert_eq!(events.recv().await, None);
        assert_eq!(places.available_permits(), 1);
    }
}
