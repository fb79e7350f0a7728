//! By which route an application is reached.

use crate::config::RouteKind;
use crate::metadata::{Metadata, Route};
use crate::select::{DEFAULT_PORT, How, Selector};

/// A route, taken apart.
pub(crate) struct Chosen<'a> {
    pub(crate) route: &'a Route,
    /// Host and domain.
    pub(crate) host: &'a str,
    /// What stands in front of the path that is scraped: empty, or a path without a slash at its end.
    path: &'a str,
    /// The port of the application that it leads to.
    port: u16,
}

/// The route to a type of process, if there is one that may be used.
pub(crate) fn choose<'a>(
    selector: &Selector,
    how: &How,
    metadata: &'a Metadata,
    app: &str,
    process_type: &str,
) -> Option<Chosen<'a>> {
    let leads = |route: &Route| destination(route, app, process_type).is_some();
    let fits = |route: &&Route| {
        let kind = match selector.routes {
            RouteKind::Any => true,
            RouteKind::External => !route.is_internal,
            RouteKind::Internal => route.is_internal,
        };
        kind && leads(route)
    };
    let candidates: Vec<&Route> = metadata.routes(app).filter(fits).collect();
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
    let without_service = || candidates.iter().find(|route| !route.has_service);
    let route: &'a Route = preferred
        .or_else(to_port)
        .or_else(without_service)
        .or_else(|| candidates.first())?;
    let (host, path) = match route.url.find('/') {
        Some(at) => route.url.split_at(at),
        None => (route.url.as_str(), ""),
    };
    let port = how.port.or(destination(route, app, process_type)?);
    Some(Chosen {
        route,
        host,
        path: path.trim_end_matches('/'),
        port: port.unwrap_or(DEFAULT_PORT),
    })
}

/// The port of the application that a route leads to, if it leads there.
fn destination(route: &Route, app: &str, process_type: &str) -> Option<Option<u16>> {
    let to = route.destinations.iter().find(|to| {
        let process = to.app.process.as_ref();
        to.app.guid.as_deref() == Some(app)
            && process.map_or("web", |process| &process.r#type) == process_type
    })?;
    Some(to.port)
}

impl Chosen<'_> {
    /// Scheme and address of an instance.
    pub(crate) fn address(
        &self,
        selector: &Selector,
        how: &How,
        index: u32,
    ) -> (&'static str, String) {
        if self.route.is_internal {
            return ("http", format!("{index}.{}:{}", self.host, self.port));
        }
        let address = match selector.router_port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.to_owned(),
        };
        (how.scheme, address)
    }

    /// The path that is scraped, behind that of the route.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}/{}", self.path, path.trim_start_matches('/'))
    }
}
