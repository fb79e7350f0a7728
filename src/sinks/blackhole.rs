//! Takes everything and keeps nothing: for trying things out and for measuring.
//!
//! Delivery: a batch is delivered once it has been taken. Limits: none but the queue's.

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError, Shutdown, keys};
use metrifold_engine::component::{BuildContext, ComponentInfo, SinkConfig};
use metrifold_engine::planes::metrics::{Form, Input, Sink};
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
        summary: "Takes everything and keeps nothing.",
        keys: BlackholeConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "blackhole")]
impl SinkConfig for BlackholeConfig {
    fn form(&self) -> Form {
        Form::AsReceived
    }

    fn validate(&self, _problems: &mut Problems) {}

    fn build(&self, _cx: &BuildContext) -> Result<Box<dyn Sink>, BuildError> {
        Ok(Box::new(Blackhole))
    }
}

struct Blackhole;

impl Sink for Blackhole {
    fn run(self: Box<Self>, input: Input, _shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            while let Some(delivery) = input.recv().await {
                delivery.delivered();
            }
            Ok(())
        })
    }
}
