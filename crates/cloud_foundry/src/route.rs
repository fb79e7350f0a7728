//! Choice of the route through which an application is reached.

use crate::config::RouteKind;
use crate::how::How;
use crate::metadata::{Metadata, Route};
use crate::select::{DEFAULT_PORT, Selector};

/// A chosen route with its parts.
pub(crate) struct Chosen<'a> {
    pub(crate) route: &'a Route,
    /// Host and domain.
    pub(crate) host: &'a str,
    /// Path of the route, which precedes the scraped path: empty, or without a slash at its end.
    path: &'a str,
    /// Port of the application that the route leads to.
    port: u16,
}

/// Chooses the route to a type of process. Fails with the reason if no route may be used.
pub(crate) fn choose<'a>(
    selector: &Selector,
    how: &How,
    metadata: &'a Metadata,
    app: &str,
    process_type: &str,
) -> Result<Chosen<'a>, String> {
    let leads = |route: &Route| destination(route, app, process_type).is_some();
    let fits = |route: &&Route| {
        let kind = match selector.routes {
            RouteKind::Any => true,
            RouteKind::External => !route.is_internal,
            RouteKind::Internal => route.is_internal,
        };
        kind && leads(route)
    };
    let mut candidates: Vec<&Route> = metadata.routes(app).filter(fits).collect();
    // Stable: a route service drops the header that selects an instance, so its routes come last, and
    // before these, those that name no host.
    candidates.sort_by_key(|route| (route.has_service, is_wildcard(&route.url)));
    let none = "no route leads to it: map one, for example an internal route";
    if candidates.is_empty() {
        return Err(none.to_owned());
    }
    if let (Some(port), true) = (how.port, how.only_port) {
        // An internal route leads to every port, and a destination without one may be any.
        candidates.retain(|route| {
            let to = destination(route, app, process_type).flatten();
            route.is_internal || to.is_none_or(|it| it == port)
        });
        if candidates.is_empty() {
            return Err(format!(
                "no route leads to port {port}, which its annotation names: map one to that port, or an internal route"
            ));
        }
    }
    let preferred = selector.preferred_routes.iter().find_map(|pattern| {
        let matches = |route: &&&Route| pattern.is_match(route.url.as_bytes());
        candidates.iter().find(matches)
    });
    let to_port = || {
        let port = how.port?;
        let leads = |route: &&&Route| {
            destination(route, app, process_type).is_some_and(|it| it == Some(port))
        };
        candidates.iter().find(leads)
    };
    let route = preferred.or_else(to_port).or_else(|| candidates.first());
    let route: &'a Route = route.ok_or(none)?;
    let (host, path) = match route.url.find('/') {
        Some(at) => route.url.split_at(at),
        None => (route.url.as_str(), ""),
    };
    let port = how.port.or(destination(route, app, process_type).flatten());
    Ok(Chosen {
        route,
        host,
        path: path.trim_end_matches('/'),
        port: port.unwrap_or(DEFAULT_PORT),
    })
}

/// Whether a route takes the requests for all hosts of its domain that have no route of their own.
fn is_wildcard(host: &str) -> bool {
    host.starts_with("*.")
}

/// Port of the application at a route's destination. `None` if the route does not lead to the
/// process.
fn destination(route: &Route, app: &str, process_type: &str) -> Option<Option<u16>> {
    let to = route
        .destinations
        .iter()
        .find(|to| to.app.guid.as_deref() == Some(app) && to.process_type() == process_type)?;
    Some(to.port)
}

impl Chosen<'_> {
    /// Whether the route leads to processes of another type of the application as well, whose instances
    /// have the same numbers.
    pub(crate) fn leads_to_others(&self, app: &str, process_type: &str) -> bool {
        let mut to = self.route.destinations.iter();
        to.any(|to| to.app.guid.as_deref() == Some(app) && to.process_type() != process_type)
    }

    /// Scheme and address for an instance.
    pub(crate) fn address(
        &self,
        selector: &Selector,
        how: &How,
        app: &str,
        index: u32,
    ) -> (&'static str, String) {
        if self.route.is_internal {
            return ("http", format!("{index}.{}:{}", self.host, self.port));
        }
        let mut address = match is_wildcard(self.host) {
            // Any host would do that has no route of its own, and is one to TLS and DNS.
            true => format!("{app}{}", &self.host[1..]),
            false => self.host.to_owned(),
        };
        if let Some(port) = selector.router_port {
            address.push_str(&format!(":{port}"));
        }
        (how.scheme, address)
    }

    /// The scraped path, below that of the route.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}/{}", self.path, path.trim_start_matches('/'))
    }
}
