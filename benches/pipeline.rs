//! Cost of transforms, and of a batch on its way from body to body.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

// Registers the components.
use metrifold as _;
use metrifold_codec::Batch;
use metrifold_codec::remote_write::{CompressionChoice, Limits};
use metrifold_engine::config;
use metrifold_engine::planes::metrics::{Plan, Transform};
use metrifold_model::{Origin, Version};
use metrifold_telemetry::Telemetry;

#[path = "support/payload.rs"]
mod payload;

const CONFIG: &str = r#"
[sources.in]
type = "internal_metrics"

[transforms.tenant]
type = "tenant"
inputs = ["in"]
from = [{ value = "team-a" }]
label = "tenant_id"

[transforms.clean]
type = "relabel"
inputs = ["tenant"]
rules = [
  { source_labels = ["__name__"], regex = "go_gc_.*", action = "drop" },
  { regex = "endpoint", action = "labeldrop" },
]

[transforms.rewrite]
type = "relabel"
inputs = ["clean"]
rules = [{ source_labels = ["pod"], regex = "(.*)-[0-9a-f]+-[0-9a-f]+", target_label = "workload" }]

[sinks.out]
type = "blackhole"
inputs = ["rewrite"]
"#;

fn transform(name: &str) -> Arc<dyn Transform> {
    let loaded = config::parse_str("bench.toml", CONFIG, &|_: &str| None).unwrap();
    let node = &loaded.config.transforms[name];
    let telemetry = Telemetry::new();
    let cx = metrifold_engine::component::BuildContext {
        access: metrifold_access::Gate::default(),
        discovery: metrifold_discovery::Handles::default(),
        id: name.into(),
        listeners: metrifold_http::Listeners::new(),
        dead_letters: metrifold_engine::dead_letters::Stores::new(None),
        memory: metrifold_engine::memory::Budget::default(),
        shared: metrifold_base::Shared::default(),
        reports: Default::default(),
        metrics: telemetry.component(name, metrifold_model::Kind::Transform, &node.type_name),
        telemetry,
    };
    let build = node.config.ports().metrics.unwrap();
    build.build(&cx).unwrap()
}

fn apply(transform: &dyn Transform, mut batch: Batch) -> Batch {
    match transform.plan(&mut batch).unwrap() {
        Plan::Pass(mut pass) => batch.edit(|arena| arena.retain(|series| pass.series(series))),
        other => panic!("{other:?}"),
    }
    .unwrap();
    batch
}

fn pipeline(c: &mut Criterion) {
    let body = Bytes::from(payload::body(0, 0));
    let origin = Arc::new(Origin::internal("bench".into()));
    let arrive = || Batch::from_body(Version::V1, body.clone(), Limits::default(), origin.clone());
    let decoded = || {
        let mut batch = arrive();
        batch.decode().unwrap();
        batch
    };
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(payload::SERIES as u64));
    group.measurement_time(Duration::from_secs(3));
    for (title, name) in [
        ("tenant: write a label", "tenant"),
        ("relabel: drop a family, drop a label", "clean"),
        ("relabel: replace with groups", "rewrite"),
    ] {
        let transform = transform(name);
        group.bench_function(title, |b| {
            b.iter_batched(
                decoded,
                |batch| apply(&*transform, black_box(batch)),
                BatchSize::LargeInput,
            );
        });
    }
    let choice = CompressionChoice::default();
    let (tenant, clean) = (transform("tenant"), transform("clean"));
    group.bench_function("decode, tenant, relabel, encode", |b| {
        b.iter(|| {
            let batch = apply(&*tenant, arrive());
            let mut batch = apply(&*clean, batch);
            batch.settle(Version::V1, &choice).unwrap();
            batch.body(Version::V1).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
