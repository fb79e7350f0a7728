//! The phases of a reload: read, parse and validate beside what runs, then hand over to the
//! topology, which builds what is new and changes to it whole or not at all.

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

/// The longest that each of reading and building may take: a file system may hang.
const LIMIT: Duration = Duration::from_secs(30);

/// How to reload.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the files held before they were read for the start.
    pub seen: Look,
    /// How often files are looked at, besides being watched; none when they are not watched.
    pub watch: Option<Duration>,
    /// The longest that what was removed or replaced may go on delivering.
    pub drain_limit: Duration,
}

/// The signal that asks for a reload.
pub struct Hangup(Signal);

/// Waits for reasons to reload, and reloads.
pub struct Reloader {
    drain_limit: Duration,
    hangup: Hangup,
    requests: mpsc::Receiver<Request>,
    watch: Option<Watch>,
    /// What the files held when they were last read.
    seen: Look,
    reading: Option<JoinHandle<Reading>>,
    board: Arc<Board>,
}

/// A reason to reload, and who waits for the outcome.
#[must_use = "whoever waits hears that the process ends when it is dropped"]
struct Asked {
    trigger: Trigger,
    waiting: Vec<Request>,
}

impl Hangup {
    /// Listens for SIGHUP, which ends the process no longer. What comes before there is a runtime
    /// to hear of it is heard by that one.
    ///
    /// # Errors
    ///
    /// Fails when the system refuses it.
    pub fn listen() -> io::Result<Self> {
        // Handlers belong to the process, but only a runtime installs them.
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let _inside = runtime.enter();
        signal(SignalKind::hangup()).map(Self)
    }
}

impl Reloader {
    /// A reloader of what runs, and how to ask it.
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

    /// Reloads whenever there is a reason to. Cancelled at any time, it leaves the old or the new
    /// configuration running, and nothing in between.
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
                // An error says that nobody waits any longer.
                let _ = waiting.send(report.clone());
            }
        }
    }

    /// Waits until there is a reason to reload. Can be cancelled.
    async fn asked(&mut self) -> Asked {
        let mut asked = tokio::select! {
            _ = self.hangup.0.recv() => Asked::by(Trigger::Signal),
            Some(request) = self.requests.recv() => Asked {
                trigger: Trigger::Request,
                waiting: vec![request],
            },
            () = changed(&mut self.watch, &self.seen) => Asked::by(Trigger::File),
        };
        // Whoever has asked by now is answered by a reload that reads the files from now on.
        while let Ok(request) = self.requests.try_recv() {
            asked.waiting.push(request);
        }
        asked
    }

    /// Reads, parses and validates the files, or says why that cannot be done now. Can be
    /// cancelled.
    async fn read(&mut self) -> Result<Result<Loaded, Vec<Diagnostic>>, String> {
        if self
            .reading
            .as_ref()
            .is_some_and(|reading| !reading.is_finished())
        {
            return Err("the files are still being read for the reload before".to_owned());
        }
        let seen = self.seen.clone();
        let (looked, mut look) = oneshot::channel();
        // A thread of its own, since files may be slow.
        let reading = self.reading.insert(tokio::task::spawn_blocking(move || {
            // Before they are read: what changes in between is noticed later.
            let seen = seen.again();
            let options = LoadOptions::default();
            // Nobody listens any more when the limit is over: the files are looked at again then.
            let _ = looked.send(seen.clone());
            config::read(seen.patterns(), &ProcessEnvironment, options)
        }));
        let reading = timeout(LIMIT, reading).await;
        if let Ok(look) = look.try_recv() {
            // Whatever comes of it: the same content is not read again for another result.
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

    /// Changes what runs to what was read, or leaves it as it is.
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
        // Nothing can fail from here on, nor is anything awaited.
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

/// What a new configuration changes that only a start can set.
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

/// Refuses a reload for a reason that is not in the configuration.
fn unavailable(reason: &str) -> Outcome {
    Outcome::refused(Cause::NotBuilt, &[Diagnostic::error(reason)])
}
