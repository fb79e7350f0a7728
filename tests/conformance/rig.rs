//! The program with one component under test, `subject`, between a feeder and a place where its
//! output arrives.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

use metrifold_model::{Kind, Signal};
use metrifold_testing::config::{ingest, sink};
use metrifold_testing::{
    Does, Endpoint, Metrifold, Reply, Seen, Sender, fetch, free_address, until_so, up,
};

use crate::recipes::{Arrives, Feeds, Recipe};

/// Surroundings of the program: endpoint, address, folders.
pub struct Place {
    pub endpoint: Endpoint,
    /// Address for the component to listen on, if it does.
    pub address: SocketAddr,
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("rules")).unwrap();
        Self {
            endpoint: Endpoint::new(well),
            address: free_address(),
            folder,
        }
    }

    /// Folder of the rules that a source reads.
    pub fn rules(&self) -> PathBuf {
        self.folder.path().join("rules")
    }

    /// Folder of the rules that a sink writes.
    pub fn written(&self) -> PathBuf {
        self.folder.path().join("written")
    }

    fn printed(&self) -> PathBuf {
        self.folder.path().join("printed")
    }

    /// A configuration with these keys of the component. `around` are keys of the source that feeds
    /// it.
    pub fn config(&self, recipe: &Recipe, keys: &str, around: &str) -> String {
        let data = self.folder.path().join("data");
        let mut text = format!("data_dir = {data:?}\n");
        let mut inputs = "";
        if recipe.kind != Kind::Source {
            inputs = "inputs = [\"ingest\"]";
            text += &match recipe.plane {
                Signal::Metrics => ingest(around),
                Signal::Queries => format!(
                    "[sources.ingest]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n{around}\n"
                ),
                Signal::Rules => format!(
                    "[sources.ingest]\ntype = \"rules_file\"\nfiles = [{:?}]\n{around}\n",
                    self.rules().join("*.yaml")
                ),
            };
        }
        let (table, name) = (recipe.kind.table(), recipe.name);
        text += &format!("[{table}.subject]\ntype = {name:?}\n{inputs}\n{keys}\n");
        text += recipe.beside;
        if recipe.kind != Kind::Sink {
            let (output, url) = (recipe.output, self.endpoint.url_of(""));
            text += &match recipe.plane {
                Signal::Metrics => sink("out", output, &self.endpoint.url(), ""),
                Signal::Queries => format!(
                    "[sinks.out]\ntype = \"prometheus\"\ninputs = [{output:?}]\nendpoint = \"{url}\"\n"
                ),
                Signal::Rules => format!(
                    "[sinks.out]\ntype = \"rules_directory\"\ninputs = [{output:?}]\npath = {:?}\n",
                    self.written()
                ),
            };
        }
        text
    }

    /// Whether the unit of this number has arrived.
    pub fn has(&self, recipe: &Recipe, number: i64, subject: impl Fn(&str) -> f64) -> bool {
        match recipe.arrives {
            Arrives::Endpoint if recipe.feeds == Feeds::Itself => {
                self.endpoint.accepted().len() as i64 >= number
            }
            Arrives::Endpoint if recipe.plane == Signal::Queries => {
                let asked = format!("query={number}");
                let seen = self.endpoint.seen();
                seen.iter()
                    .any(|seen| seen.accepted && seen.path.ends_with(&asked))
            }
            Arrives::Endpoint => self.endpoint.accepted().contains(&("up".into(), number)),
            Arrives::Page => fetch(self.address, "/metrics").is_ok_and(|page| {
                let text = page.text();
                let mut shown = text.lines().filter_map(|line| line.strip_prefix("up "));
                shown.any(|value| value.parse::<f64>().unwrap() >= number as f64)
            }),
            Arrives::Printed => {
                let line = format!("up {number} {number}");
                let text = fs::read_to_string(self.printed()).unwrap();
                text.lines().any(|found| found == line)
            }
            Arrives::Folder => holds(&self.written(), &format!("rule_{number}_end")),
            Arrives::Nowhere => subject("ledger_delivered_batches_total") >= number as f64,
        }
    }
}

/// Sum of a metric over all series of a component, on a metrics page.
pub fn metric_of(page: &str, name: &str, component: &str) -> f64 {
    let label = format!("component_id=\"{component}\"");
    let lines = page
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(&label));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Whether any file in a folder contains a text.
fn holds(folder: &Path, text: &str) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => holds(&path, text),
            false => fs::read_to_string(path).is_ok_and(|found| found.contains(text)),
        }
    })
}

/// The answer of a healthy endpoint.
pub fn well(seen: &Seen) -> Reply {
    match seen.path.starts_with("/write") {
        true => Reply::new(204),
        false => Reply::new(200)
            .body(r#"{"status":"success","data":{"resultType":"scalar","result":[0,"1"]}}"#),
    }
}

/// The answer of a healthy endpoint, after it is released.
pub fn once_released(seen: &Seen) -> Does {
    Does::Hang(well(seen))
}

/// The program running a component; dereferences to its [`Metrifold`].
pub struct Rig {
    program: Metrifold,
    pub place: Place,
    recipe: &'static Recipe,
}

impl Rig {
    /// Starts the component with its required keys only.
    #[track_caller]
    pub fn start(recipe: &'static Recipe) -> Self {
        Self::start_with(recipe, "", "")
    }

    /// Starts it with further keys of its own, and of the source that feeds it.
    #[track_caller]
    pub fn start_with(recipe: &'static Recipe, more: &str, around: &str) -> Self {
        let place = Place::new();
        let keys = format!("{}\n{more}", (recipe.keys)(&place));
        let config = place.config(recipe, &keys, around);
        Self::start_in(place, recipe, &config)
    }

    /// Starts a given configuration.
    #[track_caller]
    pub fn start_in(place: Place, recipe: &'static Recipe, config: &str) -> Self {
        let stdout = File::create(place.printed()).unwrap();
        Self::run(place, recipe, config, &[], stdout.into())
    }

    /// Starts a configuration with further arguments and a given standard output. Files are not
    /// watched, so that only the test reloads.
    #[track_caller]
    pub fn run(
        place: Place,
        recipe: &'static Recipe,
        config: &str,
        arguments: &[&str],
        stdout: Stdio,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        let arguments = [&["--no-watch"], arguments].concat();
        let program = Metrifold::spawn_from(folder, &file, config, &arguments, stdout);
        Self {
            program: program.started(config),
            place,
            recipe,
        }
    }

    /// A feeder of the component.
    pub fn feeder(&self) -> Feeder {
        Feeder::new(self.program.ingest, &self.place, self.recipe)
    }

    /// Feeds the unit of this number; returns whether it was accepted.
    #[track_caller]
    pub fn feed(&self, number: i64) -> bool {
        self.feeder().feed(number)
    }

    /// Waits until the unit of this number has arrived.
    #[track_caller]
    pub fn until_arrived(&self, number: i64) {
        until_so(&format!("unit {number} has arrived"), || {
            self.has_arrived(number)
        });
    }

    pub fn has_arrived(&self, number: i64) -> bool {
        self.place
            .has(self.recipe, number, |name| self.subject(name))
    }

    /// A metric of the component.
    pub fn subject(&self, name: &str) -> f64 {
        let name = format!("metrifold_{name}");
        self.program.metric(&name, &[("component_id", "subject")])
    }

    /// Count of what went through the component, from the counter of its plane.
    pub fn passed(&self) -> f64 {
        self.subject(match (self.recipe.plane, self.recipe.kind) {
            (Signal::Metrics, Kind::Source) => "component_sent_batches_total",
            (Signal::Metrics, _) => "component_received_batches_total",
            (Signal::Queries, Kind::Source) => "source_requests_total",
            (Signal::Queries, _) => "component_queries_total",
            (Signal::Rules, _) => "component_rule_sets_total",
        })
    }
}

impl Deref for Rig {
    type Target = Metrifold;

    fn deref(&self) -> &Metrifold {
        &self.program
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Metrifold {
        &mut self.program
    }
}

/// Feeds units of data; may be used from any thread.
#[derive(Clone)]
pub struct Feeder {
    address: SocketAddr,
    rules: PathBuf,
    recipe: &'static Recipe,
}

impl Feeder {
    pub fn new(address: SocketAddr, place: &Place, recipe: &'static Recipe) -> Self {
        Self {
            address,
            rules: place.rules(),
            recipe,
        }
    }

    /// Feeds the unit of this number; returns whether it was accepted.
    pub fn feed(&self, number: i64) -> bool {
        (200..300).contains(&self.status(number))
    }

    /// Feeds the unit of this number; returns the status of the answer.
    pub fn status(&self, number: i64) -> u16 {
        match (self.recipe.feeds, self.recipe.plane) {
            (Feeds::Itself, _) => 204,
            (Feeds::Test, Signal::Metrics) => Sender::new(self.address).write(&up(number)).status,
            (Feeds::Test, Signal::Queries) => {
                let path = format!("/api/v1/query?query={number}");
                fetch(self.address, &path).unwrap().status
            }
            (Feeds::Test, Signal::Rules) => {
                let rule = format!("record: rule_{number}_end, expr: up");
                let text = format!("groups: [{{ name: g, rules: [{{ {rule} }}] }}]\n");
                // Renamed into place, so that no reader sees half of the file.
                let new = self.rules.join("new");
                fs::write(&new, text).unwrap();
                match self.recipe.name {
                    // Written to the source's store, as another process does.
                    "rules_api" | "rules_poll" => {
                        let folder = self.rules.join("metrics/rules/somebody");
                        fs::create_dir_all(&folder).unwrap();
                        fs::rename(new, folder.join("rules.yaml")).unwrap();
                    }
                    _ => fs::rename(new, self.rules.join("rules.yaml")).unwrap(),
                }
                204
            }
        }
    }
}
