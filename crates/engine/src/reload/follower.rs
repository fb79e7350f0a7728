//! What is served beside the graph and follows the same configuration, such as the admin API.

use metrifold_base::BuildError;

use crate::config::Config;

/// Follows a configuration in the phases of a reload: all that can fail is done before the graph
/// changes, and undone by dropping it.
pub trait Follower {
    /// The state that was prepared for the new configuration and is not in force yet.
    type Prepared;

    /// Makes ready what a configuration asks for, beside what is served now.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be had; nothing has changed then.
    fn prepare(&self, config: &Config) -> Result<Self::Prepared, BuildError>;

    /// Puts what was prepared in the place of what is served. Cannot fail.
    fn commit(&mut self, prepared: Self::Prepared);
}
