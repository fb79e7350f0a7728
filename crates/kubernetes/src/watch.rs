//! Follows the objects of one kind, in one namespace or in all.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

use metrifold_base::{Backoff, Period};
use metrifold_discovery::{Failure, Reason};

use crate::config::Selectors;
use crate::transport::Health;

/// First pause after a failure; doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Time without a failure that resets the pause.
const CALM: Duration = Duration::from_secs(60);

/// Events of a watch.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// The complete list of objects.
    Listed(Vec<T>),
    /// An object was created or changed.
    Applied(T),
    /// An object was deleted.
    Deleted(T),
    /// The watch is broken.
    Failed(Failure),
    /// The watch works again, and no change was missed.
    Recovered,
}

/// Reasons to end a watcher.
enum End {
    /// The receiver of its events is gone.
    Unheard,
    /// Everything has to be listed again: the history since the last event is gone, or objects were
    /// left out.
    Expired,
}

/// Settings of a watch on one kind of object.
pub(crate) struct Watch<K> {
    pub(crate) api: Api<K>,
    pub(crate) selectors: Selectors,
    pub(crate) timeout: Period,
    pub(crate) max_objects: usize,
    pub(crate) health: Health,
}

impl<K> Watch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K: Resource<DynamicType = ()>,
{
    /// Follows the objects until the receiver is dropped.
    pub(crate) async fn follow<T: From<K>>(
        self,
        place: usize,
        tell: mpsc::Sender<(usize, Change<T>)>,
    ) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
        let mut failed = Instant::now();
        loop {
            match self.watch(place, &tell, &mut backoff, &mut failed).await {
                Ok(End::Unheard) => return,
                Ok(End::Expired) => {}
                Err(failure) => {
                    if tell.send((place, Change::Failed(failure))).await.is_err() {
                        return;
                    }
                }
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Runs one watcher, which lists the objects and follows them across failures.
    async fn watch<T: From<K>>(
        &self,
        place: usize,
        tell: &mpsc::Sender<(usize, Change<T>)>,
        backoff: &mut Backoff,
        failed: &mut Instant,
    ) -> Result<End, Failure> {
        let config = watcher::Config {
            label_selector: self.selectors.label.clone(),
            field_selector: self.selectors.field.clone(),
            // Below the five minutes that API servers allow by default.
            timeout: Some(u32::try_from(self.timeout.0.as_secs()).unwrap_or(290)),
            ..watcher::Config::default()
        };
        let mut events = pin!(watcher(self.api.clone(), config));
        let mut list = Vec::new();
        let mut silent = false;
        loop {
            let event = tokio::select! {
                () = self.health.watching(), if silent => {
                    silent = false;
                    if tell.send((place, Change::Recovered)).await.is_err() {
                        return Ok(End::Unheard);
                    }
                    continue;
                }
                () = self.health.relisting() => return Ok(End::Expired),
                event = events.next() => event,
            };
            let change = match event {
                None => return Ok(End::Unheard),
                Some(Ok(watcher::Event::Init)) => {
                    list = Vec::new();
                    continue;
                }
                Some(Ok(watcher::Event::InitApply(object))) => {
                    if list.len() >= self.max_objects {
                        let what = K::plural(&());
                        let most = self.max_objects;
                        let text = format!("there are more than {most} {what}: see max_objects");
                        return Err(Failure::new(Reason::TooLarge, text));
                    }
                    list.push(object.into());
                    continue;
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    silent = false;
                    Change::Listed(std::mem::take(&mut list))
                }
                Some(Ok(watcher::Event::Apply(object))) => Change::Applied(object.into()),
                Some(Ok(watcher::Event::Delete(object))) => Change::Deleted(object.into()),
                Some(Err(error)) => {
                    if failed.elapsed() > CALM {
                        *backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
                    }
                    *failed = Instant::now();
                    let of_transport = self.health.take_failure();
                    if let Some(failure) = explain(&error, of_transport, &K::plural(&())) {
                        silent = true;
                        // Discards answers from before the failure: they do not prove that the API
                        // server works now.
                        let _ = self.health.watching().now_or_never();
                        if tell.send((place, Change::Failed(failure))).await.is_err() {
                            return Ok(End::Unheard);
                        }
                    }
                    // The watcher would repeat the same request forever.
                    if let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = &error
                        && status.code == 410
                    {
                        return Ok(End::Expired);
                    }
                    tokio::time::sleep(backoff.next_pause()).await;
                    continue;
                }
            };
            if tell.send((place, change)).await.is_err() {
                return Ok(End::Unheard);
            }
        }
    }
}

/// Describes a failure; None if only the history of a watch expired, which causes a new list.
fn explain(error: &watcher::Error, of_transport: Option<Failure>, what: &str) -> Option<Failure> {
    let error = match error {
        watcher::Error::WatchError(status) => return explain_status(status, what),
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error,
        watcher::Error::NoResourceVersion => {
            let text = format!("the list of {what} has no resourceVersion");
            return Some(Failure::new(Reason::Invalid, text));
        }
    };
    Some(match (error, of_transport) {
        (kube::Error::Api(status), _) => return explain_status(status, what),
        (_, Some(failure)) => failure,
        (kube::Error::SerdeError(error), _) => {
            Failure::new(Reason::Invalid, format!("{what}: {error}"))
        }
        (error, None) => Failure::new(Reason::Unreachable, format!("{what}: {error}")),
    })
}

/// Describes an API server's refusal; None if only the history of a watch expired.
pub(crate) fn explain_status(status: &kube::core::Status, what: &str) -> Option<Failure> {
    let (reason, help) = match status.code {
        410 => return None,
        401 => (
            Reason::Credentials,
            ": the token or certificate is not accepted",
        ),
        403 => (
            Reason::Credentials,
            ": the service account needs get, list and watch",
        ),
        _ => (Reason::Refused, ""),
    };
    let said = match status.message.is_empty() {
        true => &status.reason,
        false => &status.message,
    };
    let text = format!("{what}: status {}: {said}{help}", status.code);
    Some(Failure::new(reason, text))
}
