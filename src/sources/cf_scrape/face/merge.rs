//! `/metrics`: the pages of all instances merged into one, each sample with the labels of its
//! instance.

use std::collections::VecDeque;
use std::sync::Arc;

use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use metrifold_http::{Request, Response, answer};
use metrifold_scrape::{Candidate, Merged};

use super::single::{UP, UP_HELP};
use super::{Face, Failed, RETRY_AFTER, TEXT, page};

/// Labels of a target that a program that pulls sets on the merged page itself.
const OF_THE_PAGE: [&str; 2] = ["instance", "job"];

impl Face {
    pub(super) async fn merged(self: Arc<Self>, request: Request) -> Response {
        let catalogue = self.catalogue().await;
        let mut waiting: VecDeque<usize> = (0..catalogue.entries.len()).collect();
        if waiting.is_empty() {
            let text = "there are no instances";
            return answer::text(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        let deadline = self.deadline(&request);
        let through = self.through(&request);
        drop(request);
        // Half of the time is left to the scrapes.
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(_turn) = timeout(left / 2, self.merging.acquire()).await else {
            let text = "the pages of all instances are being merged for another request";
            return answer::retry_after(StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER, text);
        };
        let most = self.keys.max_page_bytes.bytes();
        let mut merged = Merged::default();
        // Dropping the set with this request cancels the scrapes.
        let mut scrapes = JoinSet::new();
        let mut at_once = self.keys.max_scrapes;
        loop {
            while scrapes.len() < at_once
                && let Some(place) = waiting.pop_front()
            {
                let (face, catalogue) = (self.clone(), catalogue.clone());
                let through = through.clone();
                scrapes.spawn(async move {
                    let entry = &catalogue.entries[place];
                    let page = match &entry.candidate {
                        Ok(candidate) => {
                            let page = face.scrape(candidate, Some(TEXT), through, deadline);
                            page.await.map(|page| (candidate.clone(), page))
                        }
                        Err(reason) => Err(Failed(StatusCode::BAD_GATEWAY, reason.clone())),
                    };
                    (place, page)
                });
            }
            let Some(done) = scrapes.join_next().await else {
                break;
            };
            let Ok((place, page)) = done else { continue };
            if let Err(Failed(StatusCode::SERVICE_UNAVAILABLE, _)) = page
                && !scrapes.is_empty()
            {
                // There is no room for so many pages. Fewer at a time leave enough.
                at_once = scrapes.len();
                waiting.push_back(place);
                continue;
            }
            let entry = &catalogue.entries[place];
            let labels = match &entry.candidate {
                Ok(candidate) => labels(candidate),
                Err(_) => public(entry.discovered.iter()),
            };
            let up = match page {
                Ok((candidate, page)) => {
                    let merge = self
                        .parts
                        .scrapes
                        .merge(&candidate, &labels, &page, &mut merged);
                    merge.is_ok()
                }
                Err(_) => false,
            };
            merged.push(UP, UP_HELP, &labels, f64::from(u8::from(up)));
            if merged.bytes() > most {
                let text = format!("all pages are more than {most} bytes: see max_page_bytes");
                return answer::text(StatusCode::SERVICE_UNAVAILABLE, &text);
            }
        }
        page(TEXT, merged.finish().into())
    }
}

/// The labels that the samples of a target get.
fn labels(candidate: &Candidate) -> Vec<(&str, &str)> {
    public(candidate.labels().iter())
}

fn public<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    labels
        .filter(|(name, _)| !name.starts_with("__") && !OF_THE_PAGE.contains(name))
        .collect()
}
