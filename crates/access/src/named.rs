//! The tenants that a request names.

use http::HeaderName;

use metrifold_http::access::Head;
use metrifold_model::{Rejection, RejectionKind, tenant_name};

/// Separates the names of several tenants in a header or a path, as in Mimir.
const DIVIDER: char = '|';

/// Maximum number of tenants that a request may name.
const MOST: usize = 64;

/// The tenants that a request names, each once; empty if it names none.
///
/// # Errors
///
/// Fails when a name is not valid, or when the path and a header name different tenants.
pub(crate) fn named<'a>(
    head: &Head<'a>,
    parameter: &str,
    headers: &[HeaderName],
) -> Result<Vec<&'a str>, Rejection> {
    let mut found: Option<Vec<&str>> = None;
    let param = head.params.iter().find(|(name, _)| &**name == parameter);
    let path = param.map(|(_, value)| value.as_bytes());
    let mut places: Vec<(&[u8], &str)> = path.map(|path| (path, "path")).into_iter().collect();
    for name in headers {
        let mut values = head.headers.get_all(name).iter();
        let Some(value) = values.next() else {
            continue;
        };
        // A proxy in front may have checked a different value than the one read here.
        if values.next().is_some() {
            let reason = format!("header {name} is repeated");
            return Err(Rejection::invalid(reason));
        }
        places.push((value.as_bytes(), name.as_str()));
    }
    for (value, place) in places {
        let names =
            split(value).map_err(|reason| Rejection::invalid(format!("{place}: {reason}")))?;
        match &found {
            Some(before) if *before != names => {
                let reason = "path and header name different tenants";
                return Err(Rejection::new(RejectionKind::Forbidden, reason));
            }
            _ => found = Some(names),
        }
    }
    Ok(found.unwrap_or_default())
}

fn split(value: &[u8]) -> Result<Vec<&str>, String> {
    let text =
        std::str::from_utf8(value).map_err(|_| "the tenant's name is not UTF-8".to_owned())?;
    let mut names = Vec::new();
    for name in text.split(DIVIDER) {
        let name = tenant_name::check(name.as_bytes())?;
        if names.len() >= MOST {
            return Err(format!("the request names more than {MOST} tenants"));
        }
        names.push(name);
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}
