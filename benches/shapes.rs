//! Cost of the way from body to body for loads of every shape, beside the minimum of work on the
//! same bodies: in one thread, without a network. Nanoseconds per series, as the median of many
//! rounds that alternate, so that other load of the machine affects all alike.
//!
//! `METRIFOLD_BENCH_SEED` repeats a run, `METRIFOLD_BENCH_ONLY` names one load, and
//! `METRIFOLD_BENCH_CAPTURED` a folder of bodies that a real sender sent: files `*.v1` and `*.v2`.
//! `METRIFOLD_BENCH_CASE` runs one of the cases of [`CASES`] alone, for a profiler, and
//! `METRIFOLD_BENCH_ROUNDS` more or fewer rounds.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;

use metrifold_base::Problems;
use metrifold_codec::remote_write::messages::v1;
use metrifold_codec::remote_write::{Limits, count};
use metrifold_codec::{Batch, Label, Name, SeriesMut};
use metrifold_expr::relabel::{Program, RuleConfig, Scratch, Validation};
use metrifold_model::{Origin, Version};

#[path = "support/limit.rs"]
mod limit;
#[path = "support/shapes.rs"]
mod shapes;

use limit::Limit;
use shapes::{FAMILY, Generator, LABEL, Shape};

/// The program's allocator: buffers of batches are allocated and freed all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERIES: usize = 2_000;
const ROUNDS: usize = 160;
/// Measured cases, in the order of execution.
const CASES: [&str; 8] = [
    "limit1", "edit1", "count1", "limit2", "edit2", "count2", "up", "down",
];

/// Bodies of one load, in both versions, and the series of each.
struct Load {
    name: String,
    v1: Vec<Bytes>,
    v2: Vec<Bytes>,
    series: Vec<f64>,
}

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seed = shapes::seed();
    println!("seed {seed}; nanoseconds per series, and times the limit of the same bodies");
    let mut loads: Vec<Load> = Shape::ALL.map(|shape| generated(shape, seed)).into();
    if let Some(folder) = std::env::var_os("METRIFOLD_BENCH_CAPTURED") {
        loads.push(captured(Path::new(&folder)));
    }
    let only = std::env::var("METRIFOLD_BENCH_ONLY").ok();
    println!(
        "{:<22} {:>5} {:>5} | {:>5} {:>11} {:>6} {:>6} | {:>5} {:>11} {:>6} | {:>11} {:>11}",
        "load",
        "raw",
        "wire",
        "1.0",
        "edit",
        "out",
        "count",
        "2.0",
        "edit",
        "count",
        "1.0 to 2.0",
        "2.0 to 1.0"
    );
    for load in &loads {
        if only.as_ref().is_none_or(|only| load.name.contains(only)) {
            measure(load);
        }
    }
}

fn generated(shape: Shape, seed: u64) -> Load {
    let generator = Generator {
        shape,
        seed,
        series: SERIES,
    };
    let requests: Vec<_> = (0..4)
        .map(|round| generator.request(round % 2, round))
        .collect();
    Load {
        name: shape.name().into(),
        v1: requests
            .iter()
            .map(|request| shapes::compressed(request).into())
            .collect(),
        v2: requests
            .iter()
            .map(|request| shapes::compressed(&shapes::as_v2(request)).into())
            .collect(),
        series: vec![SERIES as f64; requests.len()],
    }
}

/// A captured load; in the version that was not captured, the same series.
fn captured(folder: &Path) -> Load {
    let mut requests = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        if file.extension().is_some_and(|extension| extension == "v1") {
            let raw = snap::raw::Decoder::new()
                .decompress_vec(&std::fs::read(file).unwrap())
                .unwrap();
            let request = v1::WriteRequest::decode(&*raw).unwrap();
            if request.timeseries.len() > 300 {
                requests.push(request);
            }
        }
    }
    requests.truncate(64);
    Load {
        name: "captured".into(),
        series: requests
            .iter()
            .map(|request| request.timeseries.len() as f64)
            .collect(),
        v1: requests
            .iter()
            .map(|request| shapes::compressed(request).into())
            .collect(),
        v2: requests
            .iter()
            .map(|request| shapes::compressed(&shapes::as_v2(request)).into())
            .collect(),
    }
}

/// The edit of the benchmarks, done by the transforms `tenant` and `relabel`.
struct Edit {
    program: Program,
    scratch: Scratch,
    tenant: Name,
    label: Option<Label>,
    hint: usize,
}

impl Edit {
    fn new() -> Self {
        let rules = format!(
            r#"[{{"source_labels":["__name__"],"regex":"{FAMILY}","action":"drop"}},{{"regex":"{LABEL}","action":"labeldrop"}}]"#
        );
        let rules: Vec<RuleConfig> = serde_json::from_str(&rules).unwrap();
        let program = Program::compile(
            &rules,
            Validation::default(),
            "rules",
            &mut Problems::new(true),
        );
        let program = program.unwrap();
        Self {
            scratch: program.scratch(),
            program,
            tenant: Name::new("tenant_id"),
            label: None,
            hint: 0,
        }
    }

    fn begin(&mut self) {
        self.scratch.begin();
        self.label = None;
    }

    fn series(&mut self, series: &mut SeriesMut<'_>) -> bool {
        let label = *self
            .label
            .get_or_insert_with(|| series.push_label(&self.tenant, b"team-a"));
        let place = series.position(&self.tenant, &mut self.hint);
        series.set_label_at(place, label);
        self.program.run(series, &mut self.scratch)
    }
}

fn edited(version: Version, body: &Bytes, edit: &mut Edit, origin: &Arc<Origin>) -> Bytes {
    let mut batch = Batch::from_body(version, body.clone(), Limits::default(), origin.clone());
    edit.begin();
    if batch.is_rewritable() {
        batch.rewrite(|series| edit.series(series)).unwrap();
    } else {
        batch
            .edit(|arena| arena.retain(|series| edit.series(series)))
            .unwrap();
    }
    batch.body(version).unwrap()
}

fn converted(from: Version, to: Version, body: &Bytes, origin: &Arc<Origin>) -> Bytes {
    let mut batch = Batch::from_body(from, body.clone(), Limits::default(), origin.clone());
    batch.body(to).unwrap()
}

fn measure(load: &Load) {
    let origin = Arc::new(Origin::internal("bench".into()));
    let mut edit = Edit::new();
    let mut limit = Limit::new();
    let mut times: [Vec<f64>; CASES.len()] = Default::default();
    let only = std::env::var("METRIFOLD_BENCH_CASE").ok();
    let mut time = |case: usize, series: f64, work: &mut dyn FnMut()| {
        if only.as_ref().is_some_and(|only| only != CASES[case]) {
            return times[case].push(f64::NAN);
        }
        let started = Instant::now();
        work();
        times[case].push(started.elapsed().as_nanos() as f64 / series);
    };
    let rounds = std::env::var("METRIFOLD_BENCH_ROUNDS");
    let rounds = rounds.ok().and_then(|rounds| rounds.parse().ok());
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let first = &load.v1[round % load.v1.len()];
        let second = &load.v2[round % load.v2.len()];
        let series = load.series[round % load.series.len()];
        let limits = Limits::default();
        time(0, series, &mut || {
            let len = limit.read(first, false);
            limit.write(len);
        });
        time(1, series, &mut || {
            drop(black_box(edited(Version::V1, first, &mut edit, &origin)))
        });
        time(2, series, &mut || {
            drop(black_box(count(Version::V1, first, &limits)))
        });
        time(3, series, &mut || {
            let len = limit.read(second, true);
            limit.write(len);
        });
        time(4, series, &mut || {
            drop(black_box(edited(Version::V2, second, &mut edit, &origin)))
        });
        time(5, series, &mut || {
            drop(black_box(count(Version::V2, second, &limits)))
        });
        time(6, series, &mut || {
            drop(black_box(converted(
                Version::V1,
                Version::V2,
                first,
                &origin,
            )))
        });
        time(7, series, &mut || {
            drop(black_box(converted(
                Version::V2,
                Version::V1,
                second,
                &origin,
            )))
        });
    }
    let [limit1, edit1, count1, limit2, edit2, count2, up, down] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    let out = edited(Version::V1, &load.v1[0], &mut edit, &origin);
    let raw = snap::raw::decompress_len(&load.v1[0]).unwrap();
    println!(
        "{:<22} {:>5.0} {:>5.1} | {limit1:>5.0} {edit1:>5.0} {:>5.2} {:>6.1} {count1:>6.0} | {limit2:>5.0} {edit2:>5.0} {:>5.2} {count2:>6.0} | {up:>5.0} {:>5.2} {down:>5.0} {:>5.2}",
        load.name,
        raw as f64 / load.series[0],
        load.v1[0].len() as f64 / load.series[0],
        edit1 / limit1,
        out.len() as f64 / load.series[0],
        edit2 / limit2,
        up / (limit1 + limit2),
        down / (limit1 + limit2),
    );
}
