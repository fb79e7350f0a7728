//! Settings of single targets that labels cannot carry, because they are secret or not text.

use std::fmt::Debug;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use metrifold_discovery::Target;
use metrifold_expr::relabel::Program;
use metrifold_http::{Client, Credentials};

/// Supplies the settings of single targets. Asked whenever a target is new or its labels change.
pub trait Particulars: Send + Sync {
    /// The target's own settings, from its labels as discovered, and the inlet that it came from, by
    /// its place in the pool's list.
    ///
    /// # Errors
    ///
    /// Fails when the target must not be scraped without such settings, for example when its
    /// credentials are missing. It is then shown as dropped, with the reason.
    fn of(&self, discovered: &Target, inlet: usize) -> Result<Own, String>;
}

/// Settings of a target that replace or extend its pool's.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Headers in addition to those of every scrape, or replacing them, sent only to the target's own
    /// server. A map would take ten times the memory.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Finds further headers at every scrape, for which the server may have to be asked first.
    pub find_header: Option<Arc<dyn FindHeader>>,
    /// Credentials that replace the pool's.
    pub credentials: Option<Credentials>,
    /// Finds credentials that replace these and the pool's at every scrape.
    pub find_credentials: Option<Arc<dyn FindCredentials>>,
    /// Client that replaces the pool's.
    pub client: Option<Client>,
    /// Rules over its series that run before the pool's.
    pub metric_rules: Option<Arc<Program>>,
    /// Gauges reported with each of its scrapes, in addition to `up` and its like.
    pub gauges: Option<Arc<dyn Gauges>>,
}

/// Finds the credentials of a target, which may be known later than the target, or change.
pub trait FindCredentials: Send + Sync + Debug {
    /// The credentials.
    ///
    /// # Errors
    ///
    /// Fails while there are none. The scrape then fails, and no request is sent.
    fn find(&self) -> Result<Credentials, String>;
}

/// Finds a header of a target that depends on what its server supports.
pub trait FindHeader: Send + Sync + Debug {
    /// The header to ask the server with, if it is not known what it supports.
    fn question(&self) -> Option<(HeaderName, HeaderValue)>;

    /// Takes the server's answer to the question.
    fn answered(&self, answer: &http::response::Parts);

    /// The header to scrape with.
    fn find(&self) -> (HeaderName, HeaderValue);
}

/// Values about a target from another origin than its page, such as its memory usage.
pub trait Gauges: Send + Sync + Debug {
    /// The current values, each with the name of its series, whose labels are the target's.
    fn values(&self) -> Vec<(&'static str, f64)>;
}

/// Particulars that are empty for every target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Particulars for Plain {
    fn of(&self, _discovered: &Target, _inlet: usize) -> Result<Own, String> {
        Ok(Own::default())
    }
}
