//! Scrapes that somebody asks for, beside those of a pool: the same targets, requests and rules.

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

/// Scrapes targets when it is asked to.
pub struct OnRequest {
    settings: Arc<Settings>,
    particulars: Arc<dyn Particulars>,
    fetcher: Fetcher,
}

/// A target that can be scraped.
#[derive(Clone, Debug)]
pub struct Candidate(Arc<ScrapeTarget>);

/// A page that was asked for.
#[derive(Debug)]
pub struct RequestedPage(Page);

/// Why there is no page.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct NoPage {
    /// The kind of reason.
    pub why: Why,
    text: String,
}

/// A kind of reason why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It did not come in time.
    Late,
    /// There is no room for it at the moment.
    NoRoom,
    /// The target is to blame, or what lies on the way to it.
    Target,
}

impl OnRequest {
    /// Builds it: reads certificates and secrets.
    ///
    /// # Errors
    ///
    /// Fails when one of them cannot be used.
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

    /// What becomes of discovered targets, in their order: none of one that a rule drops, and the
    /// reason why another one cannot be scraped.
    pub fn candidates(&self, discovered: &[Target]) -> Vec<Option<Result<Candidate, String>>> {
        let made = target::make(&self.settings, &*self.particulars, discovered);
        let made = made.into_iter().map(|(_, made)| match made {
            Ok(target) => Some(Ok(Candidate(target))),
            Err(reason) if reason == BY_RULE => None,
            Err(reason) => Some(Err(reason)),
        });
        made.collect()
    }

    /// Gets a target's page, with headers besides those of every scrape or in the place of one.
    ///
    /// # Errors
    ///
    /// Fails when the page does not come, or cannot be read.
    pub async fn page(
        &self,
        of: &Candidate,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<RequestedPage, NoPage> {
        let ask = Ask { timeout, headers };
        let fetched = self.fetcher.fetch(&self.settings, &of.0, &ask).await;
        Ok(RequestedPage(fetched?))
    }

    /// Whether rules change what is on a target's page.
    pub fn has_rules(&self, of: &Candidate) -> bool {
        self.settings.metric_rules.is_some() || of.0.own.metric_rules.is_some()
    }

    /// Adds a page to a merged one; its series get these labels, which are sorted by name.
    ///
    /// # Errors
    ///
    /// Fails when the page is not in its format, or beyond a limit.
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
    /// The labels of its series.
    pub fn labels(&self) -> &Labels {
        &self.0.labels
    }
}

impl RequestedPage {
    /// What is on it, uncompressed.
    pub fn text(&self) -> &Bytes {
        &self.0.text
    }

    /// The format that it is in.
    pub fn format(&self) -> Format {
        self.0.format
    }

    /// What its server said that it is.
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
