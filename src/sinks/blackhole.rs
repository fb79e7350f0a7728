//! Takes batches and discards them, for trials and measurements.
//!
//! Delivery: a batch counts as delivered once it was taken. Limits: none but the queue's.

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError, Shutdown, keys};
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, MetricsSink, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::metrics::{Form, Input, Metrics};
use metrifold_model::Kind;

keys! {
    /// Configuration of the `blackhole` sink: it has no keys.
    #[derive(Clone, Debug)]
    pub struct BlackholeConfig {}
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "blackhole",
        summary: "Discards all batches.",
        keys: BlackholeConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "blackhole")]
impl SinkConfig for BlackholeConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Metrics(self)
    }

    fn validate(&self, _problems: &mut Problems) {}
}

impl MetricsSink for BlackholeConfig {
    fn form(&self) -> Form {
        Form::AsReceived
    }
}

impl BuildSink<Metrics> for BlackholeConfig {
    fn build(&self, _cx: &BuildContext) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        Ok(Box::new(Blackhole))
    }
}

struct Blackhole;

impl Sink<Metrics> for Blackhole {
    fn run(self: Box<Self>, input: Input, _shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            while let Some(delivery) = input.recv().await {
                delivery.delivered();
            }
            Ok(())
        })
    }
}
