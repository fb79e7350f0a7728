//! Stages whose sinks disagree about a batch.

use bytes::Bytes;

use metrifold_codec::SeriesMut;
use metrifold_codec::remote_write::messages::v1;
use metrifold_codec::remote_write::{CompanionBounds, Limits};
use metrifold_codec::testing::{compress, leaves_v1};
use metrifold_model::{Kind, Origin};
use metrifold_queue::QueueConfig;
use metrifold_telemetry::Telemetry;

use super::super::{EdgeConfig, Form, Input, Pass, Plan, Transform};
use super::*;

/// A sink's own transform.
#[derive(Debug)]
enum Own {
    Refuses,
    Panics,
    /// Drops the series named `a`.
    Drops,
}

struct Dropping;

impl Pass for Dropping {
    fn series(&mut self, series: &mut SeriesMut<'_>) -> bool {
        series.value_at(0) != b"a"
    }

    fn reason(&self) -> &'static str {
        "relabel"
    }
}

impl Transform for Own {
    fn plan(&self, _batch: &mut Batch) -> Result<Plan<'_>, Rejection> {
        match self {
            Self::Refuses => Err(Rejection::invalid("not for me")),
            Self::Panics => panic!("as ordered"),
            Self::Drops => Ok(Plan::Pass(Box::new(Dropping))),
        }
    }
}

struct Sinks {
    telemetry: Telemetry,
    output: Output,
    inputs: Vec<Input>,
}

/// Sinks that a source sends to without a transform in between.
fn sinks(all: Vec<(&str, bool, Option<Own>)>) -> Sinks {
    let telemetry = Telemetry::new();
    let mut stage = Stage::default();
    let mut inputs = Vec::new();
    for (id, required, own) in all {
        let config = EdgeConfig {
            required,
            queue: QueueConfig::default(),
            form: Form::AsReceived,
            checks_series: false,
            companions: CompanionBounds::NOTHING,
        };
        let own = own.map(|own| Arc::new(own) as Arc<dyn Transform>);
        let metrics = telemetry.component(id, Kind::Sink, "test");
        let edge = Edge::new(id.into(), config, own, metrics, None, None).unwrap();
        edge.take_over(None);
        stage.entry.push(Target::Edge(stage.edges.len()));
        stage.edges.push(edge.clone());
        inputs.push(Input(edge));
    }
    let output = Output {
        stage: Arc::new(ArcSwap::from_pointee(stage)),
        metrics: telemetry.component("in", Kind::Source, "test"),
    };
    Sinks {
        telemetry,
        output,
        inputs,
    }
}

fn body(names: &[&str]) -> Bytes {
    let series = names.iter().map(|name| v1::TimeSeries {
        labels: vec![v1::Label {
            name: "__name__".into(),
            value: (*name).into(),
        }],
        samples: vec![v1::Sample {
            value: 1.0,
            timestamp: 1,
        }],
        ..Default::default()
    });
    let request = v1::WriteRequest {
        timeseries: series.collect(),
        metadata: vec![],
    };
    compress(&request).into()
}

fn batch(names: &[&str]) -> Batch {
    let origin = Arc::new(Origin::internal("in".into()));
    Batch::from_body(Version::V1, body(names), Limits::default(), origin)
}

impl Sinks {
    /// The sink's metrics: received batches, received samples and dropped samples.
    fn meters(&self, id: &str) -> [u64; 3] {
        let page = self.telemetry.render();
        let of = |metric: &str| {
            let lines = page.lines().filter(|line| {
                line.starts_with(metric) && line.contains(&format!("component_id=\"{id}\""))
            });
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum::<f64>() as u64
        };
        [
            of("metrifold_component_received_batches_total"),
            of("metrifold_component_received_samples_total"),
            of("metrifold_component_discarded_samples_total"),
        ]
    }

    /// The names of the series in the sink's next delivery.
    async fn next(&self, sink: usize) -> Vec<String> {
        let mut delivery = self.inputs[sink].recv().await.unwrap();
        let series = leaves_v1(delivery.batch.arena().unwrap());
        delivery.delivered();
        let names = series
            .into_iter()
            .map(|(labels, _)| labels["__name__"].clone());
        names.collect()
    }
}

#[tokio::test]
async fn a_sink_has_received_nothing_of_a_batch_that_a_later_one_refuses() {
    for own in [Own::Refuses, Own::Panics] {
        let sinks = sinks(vec![("first", true, None), ("second", true, Some(own))]);
        let sent = sinks.output.send(batch(&["a", "b"]), Needs::Count).await;
        assert!(sent.is_err());
        assert_eq!(sinks.meters("first"), [0, 0, 0]);
        assert_eq!(sinks.meters("second"), [0, 0, 0]);
    }
}

#[tokio::test]
async fn an_optional_sinks_own_transform_costs_the_others_nothing() {
    for own in [Own::Refuses, Own::Panics] {
        let sinks = sinks(vec![("first", false, Some(own)), ("second", true, None)]);
        let sent = sinks.output.send(batch(&["a", "b"]), Needs::Count).await;
        sent.unwrap();
        assert_eq!(sinks.meters("first"), [1, 2, 2]);
        assert_eq!(sinks.meters("second"), [1, 2, 0]);
        assert_eq!(sinks.next(1).await, ["a", "b"]);
    }
}

#[tokio::test]
async fn a_sinks_own_transform_counts_what_came_and_what_it_drops() {
    for others in [0, 1] {
        let mut all = vec![("first", true, Some(Own::Drops))];
        all.extend((0..others).map(|_| ("second", true, None)));
        let sinks = sinks(all);
        let seen = sinks.output.send(batch(&["a", "b"]), Needs::Nothing).await;
        assert_eq!(seen.unwrap().counts.unwrap().samples, 2);
        assert_eq!(sinks.meters("first"), [1, 2, 1]);
        assert_eq!(sinks.next(0).await, ["b"]);
        // Nothing of this batch is left.
        let seen = sinks.output.send(batch(&["a"]), Needs::Nothing).await;
        assert_eq!(seen.unwrap().counts.unwrap().samples, 1);
        assert_eq!(sinks.meters("first"), [2, 3, 2]);
    }
}

#[tokio::test]
async fn what_a_source_asks_for_is_done_where_no_sink_needs_it() {
    let sinks = sinks(vec![("only", true, None)]);
    let sent = sinks.output.send(batch(&["a"]), Needs::Nothing).await;
    assert_eq!(sent.unwrap().counts, None);
    let sent = sinks.output.send(batch(&["a", ""]), Needs::Count).await;
    assert_eq!(sent.unwrap().counts.unwrap().series, 2);
    let seen = sinks.output.send(batch(&["a", ""]), Needs::Check).await;
    let seen = seen.unwrap();
    assert_eq!((seen.counts.unwrap().series, seen.invalid.series()), (1, 1));
}
