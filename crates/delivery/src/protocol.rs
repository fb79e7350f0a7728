//! Which version of remote write a sink sends.

use metrifold_base::words;

words! {
    /// Which version of remote write an endpoint is spoken to in.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Protocol {
        /// The version in which a batch arrived; 1.0 once the endpoint has shown that it does not
        /// take 2.0.
        Auto = "auto",
        /// Always 1.0.
        V1 = "1.0",
        /// Always 2.0.
        V2 = "2.0",
    }
}
