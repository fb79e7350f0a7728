//! Reload: another configuration without a restart, whole or not at all.
//!
//! A reload is triggered by a changed file (`metrifold_files`), by SIGHUP, or by a request (`requests`). A
//! trigger carries no content: the files are read whole afterwards, so that changes that arrive during a
//! reload are part of the next one, and only the newest content is ever applied. `reloader` goes through the
//! phases, `outcome` is the result, and `board` publishes it.

mod board;
mod follower;
mod outcome;
mod reloader;
mod requests;

pub use board::Board;
pub use follower::Follower;
pub use outcome::{Cause, Finding, Outcome, Refusal, Report, Trigger};
pub use reloader::{Hangup, Options, Reloader};
pub use requests::{Requests, Unanswered};
