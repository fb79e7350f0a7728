//! A storm of edits, valid and invalid ones, of the running program's file, while senders of the
//! test and a real Prometheus write through it. `make test` installs Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use serde_json::{Value, json};

use metrifold_engine::config::parse_str;
use metrifold_testing::edits::{edit, file, post, reloads, replace, topology};
use metrifold_testing::peers::{Prometheus, Samples, now, until_same};
use metrifold_testing::{
    Deadline, Endpoint, Load, Metrifold, PATIENCE, Random, free_address, until_so,
};

const SEED: u64 = 11;
const EDITS: usize = 200;
/// Number of scrapes that must happen during the storm.
const SCRAPES: f64 = 12.0;

/// Sinks, in the order of their endpoints.
const NAMES: [&str; 3] = ["must", "receiver", "may"];

/// A configuration that can be edited in many ways, all of which deliver everything sent to two
/// addresses to three endpoints, unchanged and once.
#[derive(Clone)]
struct Edited {
    addresses: [SocketAddr; 2],
    urls: [String; 3],
    /// Whether the two sources have swapped their addresses.
    swapped: bool,
    sources: [usize; 2],
    source_keys: [usize; 2],
    /// A transform in front of all sinks.
    shared: Option<usize>,
    /// A transform in front of each sink.
    own: [Option<usize>; 3],
    /// The required sinks change their names. The optional one keeps its name, since a removed sink
    /// delivers its batches on its own.
    names: [usize; 2],
    sink_keys: [usize; 3],
    sink_types: [bool; 3],
    /// Unconnected sources and sinks.
    aside: BTreeSet<usize>,
}

impl Edited {
    fn edit(&mut self, random: &mut Random) {
        let (two, three, n) = (random.below(2), random.below(3), random.below(5));
        match random.below(11) {
            0 => self.swapped = !self.swapped,
            1 => self.sources[two] = n,
            2 => self.source_keys[two] = n,
            3 => self.shared = None,
            4 => self.shared = Some(n),
            5 => self.own[three] = None,
            6 => self.own[three] = Some(n),
            7 => self.names[two] = n,
            8 => self.sink_keys[three] = n,
            9 => self.sink_types[three] = !self.sink_types[three],
            _ => {
                if !self.aside.remove(&n) {
                    self.aside.insert(n);
                }
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut inputs = Vec::new();
        for (at, name) in ["a", "b"].into_iter().enumerate() {
            let id = format!("{name}{}", self.sources[at]);
            text += &source(&id, self.addresses[at ^ usize::from(self.swapped)]);
            text += &format!("max_labels_per_series = {}\n", 40 + self.source_keys[at]);
            inputs.push(id);
        }
        if let Some(n) = self.shared {
            inputs = vec![transform(&mut text, format!("shared{n}"), &inputs)];
        }
        for (at, name) in NAMES.into_iter().enumerate() {
            let kind = ["remote_write", "thanos"][usize::from(self.sink_types[at])];
            let id = format!("{name}{}", self.names.get(at).copied().unwrap_or_default());
            let inputs = match self.own[at] {
                None => inputs.clone(),
                Some(n) => vec![transform(&mut text, format!("{name}_t{n}"), &inputs)],
            };
            text += &format!(
                "[sinks.{id}]\ntype = \"{kind}\"\ninputs = {inputs:?}\nendpoint = \"{}\"\ntimeout = \"{}s\"\nrequired = {}\n",
                self.urls[at],
                60 + self.sink_keys[at],
                at < 2
            );
        }
        for n in &self.aside {
            text += &source(&format!("aside{n}"), self.addresses[0]);
            text += &format!("path = \"/aside/{n}\"\n");
            text += &format!(
                "[sinks.void{n}]\ntype = \"blackhole\"\ninputs = [\"aside{n}\", \"{}\"]\n",
                inputs[0]
            );
        }
        text
    }

    /// An invalid edit: the text, and the status that refuses it.
    fn spoilt(&self, random: &mut Random, taken: SocketAddr) -> (String, u16) {
        let text = self.text();
        match random.below(6) {
            0 => (
                text[..random.below(text.len())].to_owned() + "\n[broken",
                422,
            ),
            1 => (text.replace("timeout = \"", "timeout = \"x"), 422),
            2 => (text.replace("endpoint = ", "endpont = "), 422),
            3 => (text + "inputs = [\"nobody\"]\n[sinks.odd]\n", 422),
            4 => (text + &source("taken", taken), 409),
            _ => {
                let url = "https://127.0.0.1:1/write";
                let tls = "tls = { ca_file = \"missing.crt\" }";
                let input = format!("a{}", self.sources[0]);
                let sink = format!(
                    "[sinks.tls]\ntype = \"remote_write\"\ninputs = [{input:?}]\nendpoint = {url:?}\n{tls}\n"
                );
                (text + &sink, 422)
            }
        }
    }
}

fn source(id: &str, address: SocketAddr) -> String {
    format!("[sources.{id}]\ntype = \"remote_write\"\naddress = \"{address}\"\n")
}

/// Adds a transform that reads every series and changes none.
fn transform(text: &mut String, id: String, inputs: &[String]) -> String {
    *text += &format!(
        "[transforms.{id}]\ntype = \"relabel\"\ninputs = {inputs:?}\nrules = [{{ regex = \"no_{id}\", action = \"labeldrop\" }}]\n"
    );
    id
}

/// The graph as the topology shows it, without counters.
fn graph(child: &Metrifold) -> Value {
    let topology = topology(child);
    let components = topology["components"].as_array().unwrap();
    let part = |part: &Value| json!([part["id"], part["kind"], part["type"], part["required"]]);
    let parts: Vec<Value> = components.iter().map(part).collect();
    json!([topology["config_hash"], topology["edges"], parts])
}

/// Times of each series in order of arrival, by all labels.
fn came(endpoint: &Endpoint) -> BTreeMap<Vec<(String, String)>, Vec<i64>> {
    let mut came: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for seen in endpoint.seen() {
        for series in seen.series() {
            let times = series.times();
            came.entry(series.labels.clone()).or_default().extend(times);
        }
    }
    came
}

#[test]
fn a_storm_of_edits_costs_neither_senders_nor_a_prometheus_anything() {
    let receiver = Prometheus::start("");
    let endpoints = [Endpoint::healthy(), Endpoint::healthy()];
    let mut edited = Edited {
        addresses: [free_address(), free_address()],
        urls: [endpoints[0].url(), receiver.write_url(), endpoints[1].url()],
        swapped: false,
        sources: [0, 0],
        source_keys: [0, 0],
        shared: None,
        own: [None; 3],
        names: [0, 0],
        sink_keys: [0; 3],
        sink_types: [false; 3],
        aside: BTreeSet::new(),
    };
    let mut child = Metrifold::start(&edited.text());
    let hash = |child: &Metrifold, edited: &Edited| {
        format!("{:016x}", {
            let text = child.complete(&edited.text());
            parse_str("test.toml", &text, &|_: &str| None)
                .unwrap()
                .config
                .hash
        })
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();

    let started = now();
    let before = (1000.0 * started) as i64;
    let [a, b] = edited.addresses;
    let load = Load::start(before, &[a, b, a, b, a, b, a, b]);
    let sender = Prometheus::start(&format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
         remote_write:\n  - url: http://{a}/api/v1/write\n    \
         queue_config: {{ batch_send_deadline: 100ms, max_shards: 4 }}\n\
         scrape_configs:\n  - job_name: prometheus\n    static_configs: [{{ targets: [SELF] }}]\n"
    ));
    let scrapes = || {
        let count = sender.value("count_over_time(up[5m])", now());
        count.unwrap_or_default()
    };

    let mut random = Random(SEED);
    let (mut refused, storm) = (0, Instant::now());
    let mut edits = 0;
    let what = format!("{EDITS} edits are made and {SCRAPES} scrapes have come");
    let deadline = Deadline::within(3 * PATIENCE, &what);
    while edits < EDITS || scrapes() < SCRAPES {
        deadline.check();
        load.acknowledged();
        edits += 1;
        if random.chance(25) {
            let mut wrong = edited.clone();
            wrong.edit(&mut random);
            let (text, mut status) = wrong.spoilt(&mut random, taken);
            if random.chance(10) {
                // It may be missing already.
                let _ = fs::remove_file(file(&child));
                status = 422;
            } else {
                replace(&child, &text);
            }
            let answer = post(&child);
            assert_eq!(answer.status, status, "{text}\n{}", answer.text());
            refused += 1;
            continue;
        }
        for _ in 0..=random.below(3) {
            edited.edit(&mut random);
        }
        match random.below(2) {
            0 => edit(&child, &edited.text()),
            _ => replace(&child, &edited.text()),
        }
        match random.below(10) {
            // The next edit may come before the reload.
            0 => child.signal("HUP"),
            1 => {}
            2 => {
                let hash = hash(&child, &edited);
                until_so("the edit is noticed", || {
                    topology(&child)["config_hash"] == hash
                });
            }
            _ => {
                let answer = post(&child);
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    }
    edited.edit(&mut random);
    replace(&child, &edited.text());
    assert_eq!(post(&child).status, 200);
    assert_eq!(topology(&child)["config_hash"], hash(&child, &edited));
    let (storm, acknowledged) = (storm.elapsed(), load.acknowledged());
    // Asserts that everything was acknowledged at the first attempt, on one connection each.
    let sent = load.stop();
    println!(
        "{edits} edits in {storm:.1?}: {} applied, {} refused; {acknowledged} requests acknowledged, {} scrapes",
        reloads(&child, "applied"),
        reloads(&child, "refused"),
        scrapes()
    );
    assert!(refused > EDITS / 8 && reloads(&child, "refused") >= f64::from(refused as u32));
    assert!(reloads(&child, "applied") > 50.0);

    // Every acknowledged sample arrived at each sink once and in order.
    for endpoint in &endpoints {
        // The optional sink may still be delivering samples that the required ones have
        // acknowledged.
        until_so("the last samples are there", || {
            let arrived = endpoint.arrived();
            sent.iter()
                .all(|sent| arrived.contains(&(sent.name.clone(), sent.last)))
        });
        let came = came(endpoint);
        for sent in &sent {
            let labels = vec![("__name__".to_owned(), sent.name.clone())];
            let all: Vec<i64> = (before + 1..=sent.last).collect();
            assert!(came[&labels] == all, "{}: {:?}", sent.name, came[&labels]);
        }
        for (labels, times) in came {
            assert!(times.is_sorted_by(|a, b| a < b), "{labels:?}: {times:?}");
        }
    }
    let expected: Samples = sent
        .iter()
        .map(|sent| {
            let labels = [("__name__".to_owned(), sent.name.clone())].into();
            let samples = (before + 1..=sent.last).map(|time| (time, time as f64));
            (labels, samples.collect())
        })
        .collect();
    let end = now().max(sent.iter().map(|sent| sent.last).max().unwrap() as f64 / 1000.0);
    let seconds = (end - started).ceil() as u32 + 5;
    let what = "what the senders sent";
    until_same(what, 0.0, || {
        let selector = "{__name__=~\"series.*\"}";
        let found = receiver.samples(selector, seconds, end);
        (found, expected.clone())
    });

    // Prometheus lost no sample, and did not even have to retry.
    let end = now();
    let seconds = (end - started).ceil() as u32 + 60;
    let all = "{job=\"prometheus\"}";
    let found = until_same("what Prometheus scraped", 0.0, || {
        let expected = sender.samples(all, seconds, end);
        (receiver.samples(all, seconds, end), expected)
    });
    assert!(found.len() > 300, "only {} series", found.len());
    for metric in ["samples_failed_total", "samples_retried_total"] {
        let total = format!("sum(prometheus_remote_storage_{metric})");
        assert_eq!(sender.value(&total, end), Some(0.0), "{metric}");
    }
    drop(sender);

    // The running graph is the one that a start would build.
    let ran = graph(&child);
    child.signal("TERM");
    assert!(child.wait().success(), "{}", child.log());
    assert!(!child.log().contains("panicked"), "{}", child.log());
    child.start_again();
    assert_eq!(graph(&child), ran);
}
