//! `/metrics`: the pages of all instances as one, each sample with the labels of its instance.

use std::collections::VecDeque;
use std::sync::Arc;

use http::StatusCode;
use tokio::task::JoinSet;

use metrifold_http::{Request, Response, answer};
use metrifold_scrape::{Candidate, Merged};

use super::single::{UP, UP_HELP};
use super::{Face, TEXT, page};

/// Labels of a target that those who pull give the merged page themselves.
const OF_THE_PAGE: [&str; 2] = ["instance", "job"];

impl Face {
    pub(super) async fn merged(self: Arc<Self>, request: Request) -> Response {
        let catalogue = self.catalogue();
        let mut waiting: VecDeque<usize> = (0..catalogue.entries.len()).collect();
        if waiting.is_empty() {
            let text = "there are no instances";
            return answer::text(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        let deadline = self.deadline(&request);
        drop(request);
        let most = self.keys.max_page_bytes.bytes();
        let mut merged = Merged::default();
        // Dropped with this request, and the scrapes with it.
        let mut scrapes = JoinSet::new();
        loop {
            while scrapes.len() < self.keys.max_scrapes
                && let Some(place) = waiting.pop_front()
            {
                let (face, catalogue) = (self.clone(), catalogue.clone());
                scrapes.spawn(async move {
                    let entry = &catalogue.entries[place];
                    let page = match &entry.candidate {
                        Ok(candidate) => {
                            let page = face.scrape(candidate, Some(TEXT), deadline).await;
                            page.ok().map(|page| (candidate.clone(), page))
                        }
                        Err(_) => None,
                    };
                    (place, page)
                });
            }
            let Some(done) = scrapes.join_next().await else {
                break;
            };
            let Ok((place, page)) = done else { continue };
            let entry = &catalogue.entries[place];
            let labels = match &entry.candidate {
                Ok(candidate) => labels(candidate),
                Err(_) => public(entry.discovered.iter()),
            };
            let up = match page {
                Some((candidate, page)) => {
                    let merge = self
                        .parts
                        .scrapes
                        .merge(&candidate, &labels, &page, &mut merged);
                    merge.is_ok()
                }
                None => false,
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
