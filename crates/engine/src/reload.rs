//! Reload: another configuration without a restart, whole or not at all.
//!
//! What asks for a reload is a file that has changed (`metrifold_files`), SIGHUP, or a request (`requests`).
//! All of them say only that it is time to look. The files are then read whole, so that whatever
//! came while another reload was under way is part of the next one, and only the newest content
//! is ever applied. `reloader` goes through the phases, `outcome` is what comes of them, and
//! `board` is where everybody can read it.

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
