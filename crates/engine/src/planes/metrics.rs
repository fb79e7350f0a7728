//! The plane of batches: stages of transforms, and an edge with a queue in front of every sink.

mod edge;
mod held;
mod needs;
mod plane;
mod relabel;
mod stage;
#[cfg(feature = "testing")]
pub mod testing;
mod transform;

pub use edge::{Delivery, Edge, EdgeConfig, Form, Input, Run, Trouble};
pub use held::LimitPass;
pub use metrifold_queue::RunBound;
pub use needs::Needs;
pub use plane::Metrics;
pub use relabel::Relabel;
pub use stage::{Output, Seen, SendError, Stage};
pub use transform::{Emitter, Pass, Plan, Split, Told, Transform};
