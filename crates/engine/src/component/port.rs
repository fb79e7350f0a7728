//! Ports between components and planes: the type of a port says which signal a component sends or
//! takes.

use std::path::Path;
use std::sync::Arc;

use metrifold_base::{BuildError, Problems};
use metrifold_codec::remote_write::CompanionBounds;
use metrifold_model::Signal;
use metrifold_queue::QueueConfig;

use crate::planes::metrics::{EdgeConfig, Form, Metrics, Transform};
use crate::planes::queries::Queries;
use crate::planes::rules::Rules;
use crate::planes::{Edge, Plane, Sink, Source};

use super::{BuildContext, SinkConfig};

/// Builds a source of a plane.
pub trait BuildSource<P: Plane> {
    /// Makes the source; starts nothing.
    ///
    /// # Errors
    ///
    /// Fails when a resource that the source needs is not available.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<P>>, BuildError>;
}

/// Builds a transform of a plane.
pub trait BuildTransform<P: Plane> {
    /// Reports what the plane requires of the configuration, where a transform may work in several.
    fn validate_for_plane(&self, _problems: &mut Problems) {}

    /// Makes the transform.
    ///
    /// # Errors
    ///
    /// Fails when a resource that the transform needs is not available.
    fn build(&self, cx: &BuildContext) -> Result<Arc<P::Transform>, BuildError>;
}

/// Builds a sink of a plane.
pub trait BuildSink<P: Plane> {
    /// Makes the sink; starts nothing.
    ///
    /// # Errors
    ///
    /// Fails when a resource that the sink needs is not available.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<P>>, BuildError>;
}

/// A sink of batches, with the properties that its edge is built from.
pub trait MetricsSink: BuildSink<Metrics> {
    /// Whether the sender's acknowledgement waits for this sink to have the batch.
    fn required(&self) -> bool {
        false
    }

    /// Configuration of the queue in front of the sink.
    fn queue(&self) -> QueueConfig {
        QueueConfig::default()
    }

    /// Form in which the sink takes batches at first; it may change while the sink runs.
    fn form(&self) -> Form;

    /// Whether batches must be decoded for this sink even if it reads no labels, so that their
    /// series are valid and their labels sorted.
    fn checks_series(&self) -> bool {
        false
    }

    /// Bounds on the exemplars and metadata that are kept for later batches of their series, for
    /// sinks that send 2.0.
    fn companions(&self) -> CompanionBounds {
        CompanionBounds::NOTHING
    }

    /// A transform of the sink's own, applied before its queue.
    ///
    /// # Errors
    ///
    /// Fails when a resource that the transform needs is not available.
    fn before(&self, _cx: &BuildContext) -> Result<Option<Arc<dyn Transform>>, BuildError> {
        Ok(None)
    }
}

/// The plane that a source sends in.
#[derive(Clone, Copy)]
pub enum SourcePort<'a> {
    /// Sends batches.
    Metrics(&'a dyn BuildSource<Metrics>),
    /// Sends queries.
    Queries(&'a dyn BuildSource<Queries>),
    /// Publishes rules.
    Rules(&'a dyn BuildSource<Rules>),
}

/// The planes that a transform works in.
#[derive(Clone, Copy, Default)]
pub struct TransformPorts<'a> {
    /// Builds the transform of batches.
    pub metrics: Option<&'a dyn BuildTransform<Metrics>>,
    /// Builds the transform of queries.
    pub queries: Option<&'a dyn BuildTransform<Queries>>,
    /// Builds the transform of rules.
    pub rules: Option<&'a dyn BuildTransform<Rules>>,
}

/// The plane that a sink takes from.
#[derive(Clone, Copy)]
pub enum SinkPort<'a> {
    /// Takes batches.
    Metrics(&'a dyn MetricsSink),
    /// Answers queries.
    Queries(&'a dyn BuildSink<Queries>),
    /// Takes rules.
    Rules(&'a dyn BuildSink<Rules>),
}

impl SourcePort<'_> {
    /// The signal that the source sends.
    pub fn signal(&self) -> Signal {
        match self {
            Self::Metrics(_) => Signal::Metrics,
            Self::Queries(_) => Signal::Queries,
            Self::Rules(_) => Signal::Rules,
        }
    }
}

impl TransformPorts<'_> {
    /// Whether the transform works on this signal.
    pub fn carries(&self, signal: Signal) -> bool {
        match signal {
            Signal::Metrics => self.metrics.is_some(),
            Signal::Queries => self.queries.is_some(),
            Signal::Rules => self.rules.is_some(),
        }
    }

    /// Reports what the plane of this signal requires of the configuration.
    pub(crate) fn validate(&self, signal: Signal, problems: &mut Problems) {
        match signal {
            Signal::Metrics => validate(self.metrics, problems),
            Signal::Queries => validate(self.queries, problems),
            Signal::Rules => validate(self.rules, problems),
        }
    }
}

fn validate<P: Plane>(transform: Option<&dyn BuildTransform<P>>, problems: &mut Problems) {
    if let Some(transform) = transform {
        transform.validate_for_plane(problems);
    }
}

impl SinkPort<'_> {
    /// The signal that the sink takes.
    pub fn signal(&self) -> Signal {
        match self {
            Self::Metrics(_) => Signal::Metrics,
            Self::Queries(_) => Signal::Queries,
            Self::Rules(_) => Signal::Rules,
        }
    }
}

impl dyn SinkConfig {
    /// The sink's properties for its edge, if it is a sink of batches.
    pub fn metrics(&self) -> Option<&dyn MetricsSink> {
        match self.port() {
            SinkPort::Metrics(sink) => Some(sink),
            SinkPort::Queries(_) | SinkPort::Rules(_) => None,
        }
    }
}

/// A plane that finds its components among their ports and builds them.
pub trait Buildable: Plane {
    /// The source's builder, if it is a source of this plane.
    fn source<'a>(port: SourcePort<'a>) -> Option<&'a dyn BuildSource<Self>>;

    /// The transform's builder, if it works in this plane.
    fn transform<'a>(ports: TransformPorts<'a>) -> Option<&'a dyn BuildTransform<Self>>;

    /// The sink's builder, if it is a sink of this plane.
    fn sink<'a>(port: SinkPort<'a>) -> Option<&'a dyn BuildSink<Self>>;

    /// Makes the edge into a sink of this plane. Its queue on disk, if it has one, is in `folder`.
    ///
    /// # Errors
    ///
    /// Fails when the sink is of another plane, or its queue cannot be opened.
    fn edge(
        port: SinkPort<'_>,
        cx: &BuildContext,
        predecessor: Option<&Self::Edge>,
        folder: Option<&Path>,
    ) -> Result<Arc<Self::Edge>, BuildError>;
}

/// Error for a sink that is connected in another plane than its own.
fn misplaced() -> BuildError {
    BuildError::new("inputs", "sink takes another signal")
}

impl Buildable for Metrics {
    fn source<'a>(port: SourcePort<'a>) -> Option<&'a dyn BuildSource<Self>> {
        match port {
            SourcePort::Metrics(source) => Some(source),
            SourcePort::Queries(_) | SourcePort::Rules(_) => None,
        }
    }

    fn transform<'a>(ports: TransformPorts<'a>) -> Option<&'a dyn BuildTransform<Self>> {
        ports.metrics
    }

    fn sink<'a>(port: SinkPort<'a>) -> Option<&'a dyn BuildSink<Self>> {
        match port {
            SinkPort::Metrics(sink) => Some(sink),
            SinkPort::Queries(_) | SinkPort::Rules(_) => None,
        }
    }

    fn edge(
        port: SinkPort<'_>,
        cx: &BuildContext,
        predecessor: Option<&Self::Edge>,
        folder: Option<&Path>,
    ) -> Result<Arc<Self::Edge>, BuildError> {
        let SinkPort::Metrics(sink) = port else {
            return Err(misplaced());
        };
        let config = EdgeConfig {
            required: sink.required(),
            queue: sink.queue(),
            form: sink.form(),
            checks_series: sink.checks_series(),
            companions: sink.companions(),
        };
        let (id, metrics) = (cx.id.clone(), cx.metrics.clone());
        Self::Edge::new(id, config, sink.before(cx)?, metrics, predecessor, folder)
    }
}

impl Buildable for Queries {
    fn source<'a>(port: SourcePort<'a>) -> Option<&'a dyn BuildSource<Self>> {
        match port {
            SourcePort::Queries(source) => Some(source),
            SourcePort::Metrics(_) | SourcePort::Rules(_) => None,
        }
    }

    fn transform<'a>(ports: TransformPorts<'a>) -> Option<&'a dyn BuildTransform<Self>> {
        ports.queries
    }

    fn sink<'a>(port: SinkPort<'a>) -> Option<&'a dyn BuildSink<Self>> {
        match port {
            SinkPort::Queries(sink) => Some(sink),
            SinkPort::Metrics(_) | SinkPort::Rules(_) => None,
        }
    }

    fn edge(
        port: SinkPort<'_>,
        cx: &BuildContext,
        _predecessor: Option<&Self::Edge>,
        _folder: Option<&Path>,
    ) -> Result<Arc<Self::Edge>, BuildError> {
        Self::sink(port).ok_or_else(misplaced)?;
        Ok(Arc::new(Self::Edge::new(cx.id.clone(), cx.metrics.clone())))
    }
}

impl Buildable for Rules {
    fn source<'a>(port: SourcePort<'a>) -> Option<&'a dyn BuildSource<Self>> {
        match port {
            SourcePort::Rules(source) => Some(source),
            SourcePort::Metrics(_) | SourcePort::Queries(_) => None,
        }
    }

    fn transform<'a>(ports: TransformPorts<'a>) -> Option<&'a dyn BuildTransform<Self>> {
        ports.rules
    }

    fn sink<'a>(port: SinkPort<'a>) -> Option<&'a dyn BuildSink<Self>> {
        match port {
            SinkPort::Rules(sink) => Some(sink),
            SinkPort::Metrics(_) | SinkPort::Queries(_) => None,
        }
    }

    fn edge(
        port: SinkPort<'_>,
        cx: &BuildContext,
        _predecessor: Option<&Self::Edge>,
        _folder: Option<&Path>,
    ) -> Result<Arc<Self::Edge>, BuildError> {
        Self::sink(port).ok_or_else(misplaced)?;
        Ok(Arc::new(Self::Edge::new(cx.metrics.clone())))
    }
}

/// The input of a sink of this plane.
pub(crate) type InputOf<P> = <<P as Plane>::Edge as Edge>::Input;
