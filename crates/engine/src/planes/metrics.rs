//! The plane of batches: stages of transforms, and an edge with a queue in front of every sink.

mod edge;
mod needs;
mod relabel;
mod sink;
mod source;
mod stage;
mod transform;

pub use edge::{Delivery, Input, Run, Trouble};
pub(crate) use edge::{Edge, Ending};
pub use needs::Needs;
pub use relabel::Relabel;
pub use sink::{Form, Sink};
pub use source::Source;
pub(crate) use stage::{Node, Stage, Target};
pub use stage::{Output, Seen, SendError};
pub use transform::{Emitter, Pass, Plan, Split, Transform};
