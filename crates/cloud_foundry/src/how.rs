//! How an application is scraped, as a selector and its annotations say.

use metrifold_base::Period;

/// Settings of scraping an application, which its annotations can change.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) paths: Vec<String>,
    pub(crate) scheme: &'static str,
    pub(crate) port: Option<u16>,
    /// Whether the application itself names the port, so that a route to another one is of no use.
    /// Otherwise the port is that of internal routes, and a preference among the others, as in
    /// Promregator.
    pub(crate) only_port: bool,
    pub(crate) interval: Option<Period>,
    pub(crate) timeout: Option<Period>,
}

/// A selector's verdict on an application that it matches: the settings, or the reason why the
/// application cannot be scraped.
pub(crate) type Verdict = Result<How, String>;

/// For each selector, the indexes of the applications that it matches, and its verdicts.
pub(crate) type Judged = Vec<Vec<(usize, Verdict)>>;
