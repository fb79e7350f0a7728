//! The phases of a reload: read, parse and validate beside the running graph, then hand over to the
//! topology, which builds new components and switches to them whole or not at all.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use metrifold_base::BuildError;
use metrifold_files::{Look, Watch};

use super::board::Board;
use super::follower::Follower;
use super::outcome::{Cause, Outcome, Report, Trigger, findings};
use super::requests::{Request, Requests};
use crate::config;
use crate::config::{Config, Diagnostic, LoadOptions, Loaded, ProcessEnvironment, Reading};
use crate::topology::Running;

/// Limit on reading and on building, each: a file system may hang.
const LIMIT: Duration = Duration::from_secs(30);

/// Settings of the reloader.
#[derive(Clone, Debug)]
pub struct Options {
    /// Content of the files before they were read for the start.
    pub seen: Look,
    /// Interval at which files are polled, besides being watched; `None` disables watching and
    /// polling.
    pub watch: Option<Duration>,
    /// The most time for which removed and replaced components may go on delivering.
    pub drain_limit: Duration,
}

/// Stream of SIGHUPs, each of which triggers a reload.
pub struct Hangup(Signal);

/// Waits for triggers of a reload, and reloads.
pub struct Reloader {
    drain_limit: Duration,
    hangup: Hangup,
    requests: mpsc::Receiver<Request>,
    watch: Option<Watch>,
    /// Content of the files when they were last read.
    seen: Look,
    reading: Option<JoinHandle<Reading>>,
    board: Arc<Board>,
}

/// A trigger, with the requests that wait for the report.
#[must_use = "whoever waits hears that the process ends when it is dropped"]
struct Asked {
    trigger: Trigger,
    waiting: Vec<Request>,
}

impl Hangup {
    /// Listens for SIGHUP, which from now on does not end the process. Signals that arrive before
    /// the main runtime starts are received by it later.
    ///
    /// # Errors
    ///
    /// Fails when the system refuses it.
    pub fn listen() -> io::Result<Self> {
        // The handler belongs to the process, but only a runtime can install it.
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let _inside = runtime.enter();
        signal(SignalKind::hangup()).map(Self)
    }
}

impl Reloader {
    /// A reloader of the running configuration, and the handle to request reloads.
    pub fn new(options: Options, hangup: Hangup, board: Arc<Board>) -> (Self, Requests) {
        let (requests, receiver) = Requests::new();
        let reloader = Self {
            drain_limit: options.drain_limit,
            hangup,
            requests: receiver,
            watch: options.watch.map(Watch::new),
            seen: options.seen.with(board.config().files()),
            reading: None,
            board,
        };
        (reloader, requests)
    }

    /// Reloads at every trigger. Cancelling it at any time leaves either the old or the new
    /// configuration running, never a mixture.
    pub async fn run(&mut self, running: &mut Running, follower: &mut impl Follower) -> Infallible {
        loop {
            let asked = self.asked().await;
            let started = Instant::now();
            let outcome = match self.read().await {
                Ok(Ok(loaded)) => self.change(loaded, running, follower).await,
                Ok(Err(found)) => Outcome::refused(Cause::Invalid, &found),
                Err(reason) => unavailable(&reason),
            };
            let report = Arc::new(Report {
                trigger: asked.trigger,
                time: SystemTime::now(),
                took: started.elapsed(),
                outcome,
            });
            self.board.tell(report.clone());
            for waiting in asked.waiting {
                // Sending fails if the requester has stopped waiting.
                let _ = waiting.send(report.clone());
            }
        }
    }

    /// Waits for the next trigger. Cancel-safe.
    async fn asked(&mut self) -> Asked {
        let mut asked = tokio::select! {
            _ = self.hangup.0.recv() => Asked::by(Trigger::Signal),
            Some(request) = self.requests.recv() => Asked {
                trigger: Trigger::Request,
                waiting: vec![request],
            },
            () = changed(&mut self.watch, &self.seen) => Asked::by(Trigger::File),
        };
        // All requests that have arrived are answered by one reload, which reads the files after
        // them.
        while let Ok(request) = self.requests.try_recv() {
            asked.waiting.push(request);
        }
        asked
    }

    /// Reads, parses and validates the files; the outer error says why they cannot be read now.
    /// Cancel-safe.
    async fn read(&mut self) -> Result<Result<Loaded, Vec<Diagnostic>>, String> {
        if self
            .reading
            .as_ref()
            .is_some_and(|reading| !reading.is_finished())
        {
            return Err("the previous reload is still reading the files".to_owned());
        }
        let (seen, running) = (self.seen.clone(), self.board.config());
        let (looked, mut look) = oneshot::channel();
        // A blocking thread: files may be slow.
        let reading = self.reading.insert(tokio::task::spawn_blocking(move || {
            // Taken before the files are read, so that a change in between is noticed later.
            let seen = seen.again();
            let options = LoadOptions::default();
            // The receiver is gone if the limit has passed: the files are compared again then.
            let _ = looked.send(seen.clone());
            let running = Some((&*running, seen.named()));
            config::read_beside(seen.patterns(), &ProcessEnvironment, options, running)
        }));
        let reading = timeout(LIMIT, reading).await;
        if let Ok(look) = look.try_recv() {
            // Stored whatever the result is: the same content would give the same result.
            self.seen = look;
        }
        match reading {
            Ok(Ok(reading)) => {
                self.seen = self.seen.clone().with(reading.files);
                Ok(reading.outcome)
            }
            Ok(Err(error)) => Err(format!("reading the files failed: {error}")),
            Err(_) => Err(format!("the files could not be read within {LIMIT:?}")),
        }
    }

    /// Applies the configuration that was read, or leaves the running one as it is.
    async fn change(
        &self,
        loaded: Loaded,
        running: &mut Running,
        follower: &mut impl Follower,
    ) -> Outcome {
        let Loaded {
            config,
            warnings,
            places,
        } = loaded;
        let config = Arc::new(config);
        let refused = |cause, mut errors: Vec<Diagnostic>| {
            errors.extend(warnings.iter().cloned());
            Outcome::refused(cause, &errors)
        };
        if let Some(error) = needs_restart(&self.board.config(), &config) {
            let error = at(error, places.data_dir.as_ref());
            return refused(Cause::Invalid, vec![error]);
        }
        let prepared = match follower.prepare(&config) {
            Ok(prepared) => prepared,
            Err(error) => {
                let error = Diagnostic::error(format!("api: {error}"));
                return refused(Cause::NotBuilt, vec![at(error, places.tables.get("api"))]);
            }
        };
        let build = running.reload(config.clone(), self.drain_limit);
        let changes = match timeout(LIMIT, build).await {
            Ok(Ok(changes)) => changes,
            Err(_) => {
                let reason = format!("the components could not be built within {LIMIT:?}");
                return unavailable(&reason);
            }
            Ok(Err(errors)) => {
                let error = |(id, error): (Arc<str>, BuildError)| {
                    let place = places.components.get(&id);
                    let place = place.or_else(|| places.tables.get(&*id));
                    at(Diagnostic::error(format!("{id}: {error}")), place)
                };
                let errors = errors.into_iter().map(error).collect();
                return refused(Cause::NotBuilt, errors);
            }
        };
        // Nothing below can fail or awaits.
        follower.commit(prepared);
        self.board.runs(config);
        let warnings = findings(&warnings);
        if changes.is_empty() {
            Outcome::Unchanged {
                before: self.board.noticed(),
                warnings,
            }
        } else {
            Outcome::Applied {
                changes: changes.to_string(),
                warnings,
            }
        }
    }
}

impl Asked {
    fn by(trigger: Trigger) -> Self {
        Self {
            trigger,
            waiting: Vec::new(),
        }
    }
}

async fn changed(watch: &mut Option<Watch>, seen: &Look) {
    match watch {
        Some(watch) => watch.changed(seen).await,
        None => std::future::pending().await,
    }
}

/// Error if the new configuration changes a key that only a start can set.
fn needs_restart(old: &Config, new: &Config) -> Option<Diagnostic> {
    if old.data_dir == new.data_dir {
        return None;
    }
    let help = match &old.data_dir {
        Some(path) => format!("restart metrifold, or write data_dir = {path:?} again"),
        None => "restart metrifold, or remove it again".to_owned(),
    };
    let message = "`data_dir` cannot be changed while metrifold runs";
    Some(Diagnostic::error(message).with_help(help))
}

fn at(error: Diagnostic, place: Option<&config::Place>) -> Diagnostic {
    match place {
        Some(place) => error.at(place.clone()),
        None => error,
    }
}

/// Refuses a reload for a reason outside the configuration.
fn unavailable(reason: &str) -> Outcome {
    Outcome::refused(Cause::NotBuilt, &[Diagnostic::error(reason)])
}
