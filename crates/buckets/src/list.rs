//! Lists of objects, page by page, in which a key that cannot be one costs nothing but itself.

use object_store::list::{PaginatedListOptions, PaginatedListResult};
use object_store::{Error, ObjectMeta, path};

use metrifold_rules::store::Listed;

use super::{Bucket, Failed};

/// The most keys of a page, which is what S3 gives.
const PAGE: usize = 1000;
/// The most objects of a list.
const MAX_OBJECTS: usize = 1_000_000;
/// The most keys of a list that cannot be keys.
const MAX_BROKEN: usize = 100;

/// The objects whose keys begin so.
pub(super) fn all(bucket: &Bucket, prefix: &str) -> Result<Vec<Listed>, Failed> {
    let folder = format!("{}{prefix}", bucket.prefix);
    let mut found = Vec::new();
    let mut broken = 0;
    let mut next = PaginatedListOptions {
        max_keys: Some(PAGE),
        ..PaginatedListOptions::default()
    };
    // The last key that was seen; none while pages follow each other by their tokens.
    let mut after: Option<String> = None;
    loop {
        let most = next.max_keys.unwrap_or(PAGE);
        match page(bucket, &folder, next.clone()) {
            Ok(page) => {
                let objects = &page.result.objects;
                if let Some(last) = objects.iter().map(|meta| meta.location.as_ref()).max() {
                    after = after.map(|_| last.to_owned());
                }
                found.extend(objects.iter().filter_map(|meta| listed(bucket, meta)));
                if found.len() > MAX_OBJECTS {
                    let reason = format!("it holds more than {MAX_OBJECTS} objects");
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
            // A page with a key such as `a//b` cannot be read: it is halved until that key is alone.
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
                        });
                        Some(path)
                    }
                    _ => start,
                };
                let max_keys = if most == 1 { PAGE } else { most / 2 };
                // An empty one is in front of all keys.
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

/// The key of the last object that was found, in full.
fn last_of(bucket: &Bucket, found: &[Listed]) -> Option<String> {
    let last = found.iter().map(|listed| &listed.key).max()?;
    Some(format!("{}{last}", bucket.prefix))
}

/// An object of a list, unless it is empty: one that was removed, or stands for a folder.
fn listed(bucket: &Bucket, meta: &ObjectMeta) -> Option<Listed> {
    if meta.size == 0 {
        return None;
    }
    let key = meta.location.as_ref().strip_prefix(&bucket.prefix)?;
    let stamp = match &meta.e_tag {
        Some(tag) => tag.clone(),
        None => format!("{}-{}", meta.last_modified.timestamp_micros(), meta.size),
    };
    Some(Listed {
        key: key.to_owned(),
        stamp,
    })
}

fn other(reason: String) -> Error {
    Error::Generic {
        store: "bucket",
        source: reason.into(),
    }
}
