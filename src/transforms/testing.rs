//! Helpers for the tests of transforms: batches from labels, and their outcome.

use std::sync::Arc;

use prost::Message;

use metrifold_codec::Batch;
use metrifold_codec::remote_write::Limits;
use metrifold_codec::remote_write::messages::v1;
pub(super) use metrifold_codec::testing::{Labels, labels};
use metrifold_codec::testing::{compress, decompress};
use metrifold_engine::planes::metrics::{Emitter, Plan, Transform};
use metrifold_model::Version;
use metrifold_model::{Origin, Rejection};

/// Output, tenant, series with their indexes, and count of metadata.
pub(super) type Emission = (usize, Option<String>, Vec<(Labels, usize)>, usize);

/// Everything that a transform emitted and dropped.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) emitted: Vec<Emission>,
    pub(super) dropped: Vec<(&'static str, u64)>,
}

pub(super) fn request(series: &[Labels], metadata: &[&str]) -> Vec<u8> {
    let timeseries = series
        .iter()
        .enumerate()
        .map(|(number, labels)| v1::TimeSeries {
            labels: labels
                .iter()
                .map(|(name, value)| v1::Label {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            samples: vec![v1::Sample {
                value: number as f64,
                timestamp: 1,
            }],
            ..Default::default()
        });
    let metadata = metadata.iter().map(|family| v1::MetricMetadata {
        metric_family_name: (*family).into(),
        ..Default::default()
    });
    compress(&v1::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: metadata.collect(),
    })
}

pub(super) fn batch(series: &[Labels], metadata: &[&str], origin: Origin) -> Batch {
    let body = request(series, metadata);
    Batch::from_body(
        Version::V1,
        body.into(),
        Limits::default(),
        Arc::new(origin),
    )
}

pub(super) fn origin() -> Origin {
    Origin::internal("test".into())
}

/// Executes a transform's plan as a stage does.
fn run(
    transform: &dyn Transform,
    mut batch: Batch,
    out: &mut Emitter<'_>,
) -> Result<(), Rejection> {
    match transform.plan(&mut batch)? {
        Plan::Keep => out.emit(batch),
        Plan::Split(split) => return split(batch, out),
        Plan::Pass(mut pass) => {
            batch.decode()?;
            let before = batch.counts().unwrap();
            let mut reason = "";
            batch.edit(|arena| {
                arena.retain(|series| {
                    let keeps = pass.series(series);
                    if !keeps {
                        reason = pass.reason();
                    }
                    keeps
                });
            })?;
            let after = batch.counts().unwrap();
            if after != before {
                out.dropped(reason, before.saturating_sub(after));
            }
            pass.finish()?;
            if before.is_empty() || !after.is_empty() {
                out.emit(batch);
            }
        }
    }
    Ok(())
}

/// Applies a transform; returns the emitted batches and their contents.
pub(super) fn apply(
    transform: &dyn Transform,
    batch: Batch,
) -> Result<(Vec<Batch>, Outcome), Rejection> {
    let mut batches = Vec::new();
    let mut dropped = Vec::new();
    run(
        transform,
        batch,
        &mut Emitter::new(
            &mut |output, batch| batches.push((output, batch)),
            &mut |reason, lost| dropped.push((reason, lost.all_samples() + lost.metadata)),
        ),
    )?;
    let mut emitted = Vec::new();
    for (output, batch) in &batches {
        let body = batch.clone().body(Version::V1).unwrap();
        let request = v1::WriteRequest::decode(&decompress(&body)[..]).unwrap();
        let series = request.timeseries.into_iter().map(|series| {
            let labels = series.labels.into_iter();
            let labels = labels.map(|label| (label.name, label.value)).collect();
            (labels, series.samples[0].value as usize)
        });
        let tenant = batch.tenant().map(|tenant| tenant.to_string());
        emitted.push((*output, tenant, series.collect(), request.metadata.len()));
    }
    let batches = batches.into_iter().map(|(_, batch)| batch).collect();
    Ok((batches, Outcome { emitted, dropped }))
}
