//! The version of remote write that a sink sends.

use metrifold_base::words;

words! {
    /// Version of remote write in which a sink sends.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Protocol {
        /// The version in which a batch arrived; 1.0 once the endpoint has shown that it does not
        /// accept 2.0.
        Auto = "auto",
        /// Always 1.0.
        V1 = "1.0",
        /// Always 2.0.
        V2 = "2.0",
    }
}
