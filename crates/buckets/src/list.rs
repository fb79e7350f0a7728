//! Listing of objects, page by page. A key that `object_store` cannot represent hides no other key.

use object_store::list::{PaginatedListOptions, PaginatedListResult};
use object_store::{Error, ObjectMeta, path};

use metrifold_rules::store::Listed;

use super::{Bucket, Failed};

/// Maximum number of keys of a page, as in S3.
const PAGE: usize = 1000;
/// Maximum number of objects of a list.
const MAX_OBJECTS: usize = 1_000_000;
/// Maximum number of invalid keys of a list.
const MAX_BROKEN: usize = 100;

/// Lists the objects whose keys have a prefix, with empty ones or without them.
pub(super) fn all(bucket: &Bucket, prefix: &str, empty: bool) -> Result<Vec<Listed>, Failed> {
    let folder = format!("{}{prefix}", bucket.prefix);
    let mut found = Vec::new();
    let mut broken = 0;
    let mut next = PaginatedListOptions {
        max_keys: Some(PAGE),
        ..PaginatedListOptions::default()
    };
    // The last key that was seen, from which the listing resumes; `None` while page tokens work.
    let mut after: Option<String> = None;
    loop {
        let most = next.max_keys.unwrap_or(PAGE);
        match page(bucket, &folder, next.clone()) {
            Ok(page) => {
                let objects = &page.result.objects;
                if let Some(last) = objects.iter().map(|meta| meta.location.as_ref()).max() {
                    after = after.map(|_| last.to_owned());
                }
                // An empty object was removed, or stands for a folder.
                let objects = objects.iter().filter(|meta| empty || meta.size > 0);
                found.extend(objects.filter_map(|meta| listed(bucket, meta)));
                if found.len() > MAX_OBJECTS {
                    let reason = format!("the store holds more than {MAX_OBJECTS} objects");
                    return Err(Failed::Error(other(reason)));
                }
                let Some(token) = page.page_token else {
                    return Ok(found);
                };
                next = PaginatedListOptions {
                    max_keys: Some((most * 2).min(PAGE)),
                    page_token: after.is_none().then_some(token),
                    offset: after.clone(),
                    ..PaginatedListOptions::default()
                };
            }
            // A page with a key such as `a//b` cannot be parsed: the page size is halved until the page
            // holds that key alone.
            Err(Failed::Error(Error::InvalidPath {
                source: path::Error::EmptySegment { path } | path::Error::BadSegment { path, .. },
            })) if broken < MAX_BROKEN => {
                let start = after.take().or_else(|| last_of(bucket, &found));
                let start = match most {
                    1 => {
                        broken += 1;
                        found.push(Listed {
                            key: path
                                .strip_prefix(&bucket.prefix)
                                .unwrap_or(&path)
                                .to_owned(),
                            stamp: String::new(),
                            problem: None,
                        });
                        Some(path)
                    }
                    _ => start,
                };
                let max_keys = if most == 1 { PAGE } else { most / 2 };
                // The empty key sorts before all others.
                after = Some(start.unwrap_or_default());
                next = PaginatedListOptions {
                    max_keys: Some(max_keys),
                    offset: after.clone().filter(|after| !after.is_empty()),
                    ..PaginatedListOptions::default()
                };
            }
            Err(error) => return Err(error),
        }
    }
}

fn page(
    bucket: &Bucket,
    folder: &str,
    options: PaginatedListOptions,
) -> Result<PaginatedListResult, Failed> {
    bucket.wait(bucket.service.list_paginated(Some(folder), options))
}

/// Full key of the last object that was found.
fn last_of(bucket: &Bucket, found: &[Listed]) -> Option<String> {
    let last = found.iter().map(|listed| &listed.key).max()?;
    Some(format!("{}{last}", bucket.prefix))
}

fn listed(bucket: &Bucket, meta: &ObjectMeta) -> Option<Listed> {
    let key = meta.location.as_ref().strip_prefix(&bucket.prefix)?;
    let stamp = match &meta.e_tag {
        Some(tag) => tag.clone(),
        None => format!("{}-{}", meta.last_modified.timestamp_micros(), meta.size),
    };
    Some(Listed {
        key: key.to_owned(),
        stamp,
        problem: None,
    })
}

fn other(reason: String) -> Error {
    Error::Generic {
        store: "bucket",
        source: reason.into(),
    }
}
