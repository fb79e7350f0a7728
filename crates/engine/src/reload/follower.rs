//! A service beside the graph that follows the same configuration, such as the admin API.

use metrifold_base::BuildError;

use crate::config::Config;

/// Follows a configuration in the phases of a reload: every step that can fail happens before the
/// graph changes, and dropping its result undoes it.
pub trait Follower {
    /// The state that was prepared for the new configuration and is not in force yet.
    type Prepared;

    /// Prepares the state that a configuration asks for, beside the one that is in force.
    ///
    /// # Errors
    ///
    /// Fails when a resource, such as an address, is not available; nothing has changed then.
    fn prepare(&self, config: &Config) -> Result<Self::Prepared, BuildError>;

    /// Puts the prepared state in force. Cannot fail.
    fn commit(&mut self, prepared: Self::Prepared);
}
