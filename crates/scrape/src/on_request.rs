//! Scrapes on request, outside the schedule of a pool: the same targets, requests and rules.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use metrifold_base::BuildError;
use metrifold_discovery::{Labels, Target};
use metrifold_exposition::Format;

use crate::error::{Cause, ScrapeError};
use crate::fetch::{Ask, Fetcher, Page};
use crate::merged::Merged;
use crate::particulars::Particulars;
use crate::pool::IDLE_PER_SERVER;
use crate::settings::Settings;
use crate::target::{self, BY_RULE, ScrapeTarget};

/// Scrapes targets on request.
pub struct OnRequest {
    settings: Arc<Settings>,
    particulars: Arc<dyn Particulars>,
    fetcher: Fetcher,
}

/// A target that can be scraped on request.
#[derive(Clone, Debug)]
pub struct Candidate(Arc<ScrapeTarget>);

/// A page fetched on request. It counts against `max_in_flight_bytes` until it is dropped.
#[derive(Debug)]
pub struct RequestedPage(Page);

/// Failure of a scrape on request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct NoPage {
    /// The kind of the failure.
    pub why: Why,
    text: String,
}

/// Kinds of failures of scrapes on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The page did not arrive in time.
    Late,
    /// `max_in_flight_bytes` leaves no room for the page at the moment.
    NoRoom,
    /// The target failed, or the network on the way to it.
    Target,
}

impl OnRequest {
    /// Builds the client: reads certificates and secrets.
    ///
    /// # Errors
    ///
    /// Fails when a certificate or secret cannot be used.
    pub fn build(
        settings: Arc<Settings>,
        particulars: Arc<dyn Particulars>,
    ) -> Result<Self, BuildError> {
        let keys = settings.keys().client();
        let fetcher = Fetcher {
            client: keys.client(IDLE_PER_SERVER)?,
            credentials: keys.credentials()?,
        };
        Ok(Self {
            settings,
            particulars,
            fetcher,
        })
    }

    /// The candidates for targets that came from an inlet, in the same order: `None` where a rule drops
    /// the target, an error with the reason where it cannot be scraped.
    pub fn candidates(
        &self,
        discovered: &[Target],
        inlet: usize,
    ) -> Vec<Option<Result<Candidate, String>>> {
        let made = target::make(&self.settings, &*self.particulars, discovered, inlet);
        let made = made.into_iter().map(|(_, made)| match made {
            Ok(target) => Some(Ok(Candidate(target))),
            Err(reason) if reason == BY_RULE => None,
            Err(reason) => Some(Err(reason)),
        });
        made.collect()
    }

    /// Fetches a target's page. `headers` are sent in addition to those of every scrape, or replace
    /// them.
    ///
    /// # Errors
    ///
    /// Fails when the page does not arrive, or its format is unknown.
    pub async fn page(
        &self,
        of: &Candidate,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<RequestedPage, NoPage> {
        let ask = Ask { timeout, headers };
        let fetched = self.fetcher.fetch(&self.settings, &of.0, &ask).await;
        let mut page = fetched?;
        page.count_text()?;
        Ok(RequestedPage(page))
    }

    /// Whether rules may change the series of a target's page.
    pub fn has_rules(&self, of: &Candidate) -> bool {
        self.settings.metric_rules.is_some() || of.0.own.metric_rules.is_some()
    }

    /// Adds a page to a merged one. Its series get these labels, sorted by name.
    ///
    /// # Errors
    ///
    /// Fails when the page violates its format or a limit.
    pub fn merge(
        &self,
        of: &Candidate,
        labels: &[(&str, &str)],
        page: &RequestedPage,
        into: &mut Merged,
    ) -> Result<(), NoPage> {
        Ok(into.add(&self.settings, &of.0, labels, &page.0)?)
    }
}

impl Candidate {
    /// Labels of the target's series.
    pub fn labels(&self) -> &Labels {
        &self.0.labels
    }
}

impl RequestedPage {
    /// The page, uncompressed.
    pub fn text(&self) -> &Bytes {
        &self.0.text
    }

    /// Format of the page.
    pub fn format(&self) -> Format {
        self.0.format
    }

    /// The answer's `Content-Type`.
    pub fn content_type(&self) -> Option<&HeaderValue> {
        self.0.content_type.as_ref()
    }
}

impl From<ScrapeError> for NoPage {
    fn from(error: ScrapeError) -> Self {
        let why = match error.cause {
            Cause::Timeout => Why::Late,
            Cause::Room => Why::NoRoom,
            _ => Why::Target,
        };
        Self {
            why,
            text: error.text,
        }
    }
}
