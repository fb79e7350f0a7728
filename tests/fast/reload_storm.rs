//! Many reloads in a row under load lose nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use metrifold_testing::{Deadline, Endpoint, Load, Random, free_address};

use crate::in_process::Live;

/// A configuration that can be edited in many ways without a change of its meaning.
#[derive(Clone, Debug)]
struct Edited {
    address: SocketAddr,
    urls: [String; 2],
    source: usize,
    source_key: usize,
    /// Transform in front of each sink.
    transforms: [Option<usize>; 2],
    required: usize,
    sink_keys: [usize; 2],
    sink_types: [bool; 2],
}

impl Edited {
    fn edit(&mut self, random: &mut Random) {
        let at = random.below(2);
        let n = random.below(5);
        match random.below(7) {
            0 => self.source = n,
            1 => self.source_key = n,
            2 => self.transforms[at] = None,
            3 => self.transforms[at] = Some(n),
            4 => self.required = n,
            5 => self.sink_keys[at] = n,
            _ => self.sink_types[at] = !self.sink_types[at],
        }
    }

    fn text(&self) -> String {
        let source = format!("in{}", self.source);
        let mut text = format!(
            "[sources.{source}]\ntype = \"remote_write\"\naddress = \"{}\"\nmax_labels_per_series = {}\n",
            self.address,
            10 + self.source_key
        );
        // The optional sink keeps its name, since a removed sink delivers its batches on its own.
        let names = [format!("must{}", self.required), "may".to_owned()];
        for (at, name) in names.iter().enumerate() {
            let input = match self.transforms[at] {
                None => source.clone(),
                Some(n) => {
                    let id = format!("t{at}x{n}");
                    text += &format!(
                        "[transforms.{id}]\ntype = \"relabel\"\ninputs = [\"{source}\"]\nrules = [{{ target_label = \"via\", replacement = \"{n}\" }}]\n"
                    );
                    id
                }
            };
            let kind = ["remote_write", "thanos"][usize::from(self.sink_types[at])];
            text += &format!(
                "[sinks.{name}]\ntype = \"{kind}\"\ninputs = [\"{input}\"]\nendpoint = \"{}\"\ntimeout = \"{}s\"\nrequired = {}\n",
                self.urls[at],
                60 + self.sink_keys[at],
                at == 0
            );
        }
        text
    }
}

/// Times of each series, in order of arrival.
fn by_series(samples: Vec<(String, i64)>) -> BTreeMap<String, Vec<i64>> {
    let mut series: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (name, time) in samples {
        series.entry(name).or_default().push(time);
    }
    series
}

#[test]
fn two_hundred_reloads_under_load_lose_double_and_reorder_nothing() {
    let endpoints = [Endpoint::healthy(), Endpoint::healthy()];
    let mut edited = Edited {
        address: free_address(),
        urls: [endpoints[0].url(), endpoints[1].url()],
        source: 0,
        source_key: 0,
        transforms: [None, None],
        required: 0,
        sink_keys: [0, 0],
        sink_types: [false, false],
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut live = Live::start(&edited.text());
    let load = Load::start(0, &[edited.address; 4]);
    let mut random = Random(7);
    let (mut applied, mut refused) = (0, 0);
    // The load must run during all reloads.
    let deadline = Deadline::new("200 reloads are applied and 1,000 requests acknowledged");
    while applied < 200 || load.acknowledged() < 1000 {
        deadline.check();
        if random.chance(20) {
            let mut wrong = edited.clone();
            wrong.edit(&mut random);
            wrong.address = taken.local_addr().unwrap();
            live.try_reload(&wrong.text()).unwrap_err();
            refused += 1;
            continue;
        }
        for _ in 0..=random.below(3) {
            edited.edit(&mut random);
        }
        live.reload(&edited.text());
        applied += 1;
    }
    let sent = load.stop();
    assert_eq!(live.stop(), []);
    assert!(refused > 20, "{refused}");
    let arrived = endpoints.map(|endpoint| by_series(endpoint.arrived()));
    for sent in sent {
        let all: Vec<i64> = (1..=sent.last).collect();
        for (at, arrived) in arrived.iter().enumerate() {
            assert_eq!(arrived[&sent.name], all, "{} at {at}", sent.name);
        }
    }
}
