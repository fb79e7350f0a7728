//! The router: sends requests to a random instance of a route, or to the one named in a header. As
//! a proxy, it also plays the container network, in which internal routes lead to instances.

use super::state::{Process, State};
use crate::endpoint::{Does, Reply, Seen};

pub(super) fn answer(state: &mut State, seen: &Seen) -> Does {
    let (host, path) = match seen.path.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or((rest, "/"), |at| rest.split_at(at)),
        None => (seen.header("host").unwrap_or_default(), seen.path.as_str()),
    };
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    if name.ends_with(".inside") {
        return internal(state, name, port, path).into();
    }
    external(state, seen, name, path).into()
}

fn external(state: &mut State, seen: &Seen, name: &str, path: &str) -> Reply {
    let whole = format!("{name}{path}");
    let under = |url: &str| {
        let rest = whole.strip_prefix(url);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    let routes = state.routes.iter().filter(|route| under(&route.url));
    let Some(route) = routes.max_by_key(|route| route.url.len()).cloned() else {
        let text = format!("404 Not Found: Requested route ('{name}') does not exist.\n");
        return refused(404, "unknown_route").body(text);
    };
    let rest = whole[route.url.len()..].to_owned();
    let leads = |process: &&Process| {
        let mut destinations = route.destinations.iter();
        destinations.any(|(app, kind, _)| *app == process.app && *kind == process.process_type)
    };
    let endpoints = state.processes.iter().filter(leads);
    let endpoints: Vec<(String, String, u32)> = endpoints
        .flat_map(|process| {
            let running = process.instances.iter().filter(|it| it.state == "RUNNING");
            running.map(|it| (process.app.clone(), process.guid.clone(), it.index))
        })
        .collect();
    let random = state.number() as usize;
    let (app, process) = match route.service {
        // The route service gets the request first, and drops the header when it forwards it.
        true => (None, None),
        false => (
            seen.header("x-cf-app-instance"),
            seen.header("x-cf-process-instance")
                .filter(|_| state.manner.process_header),
        ),
    };
    let found = match (app, process) {
        (Some(app), _) => {
            let Some((guid, index)) = app.split_once(':').filter(|it| is_instance(*it)) else {
                return refused(400, "invalid_cf_app_instance_header");
            };
            // If two processes have this GUID and index, the one registered last gets the request.
            let mut all = endpoints.iter().rev();
            all.find(|it| it.0 == guid && it.2.to_string() == index)
        }
        (None, Some(process)) => {
            let (guid, index) = process.split_once(':').unwrap_or((process, ""));
            let mut all = endpoints.iter();
            all.find(|it| it.1 == guid && (index.is_empty() || it.2.to_string() == index))
        }
        (None, None) if endpoints.is_empty() => return refused(503, "no_endpoints"),
        (None, None) => endpoints.get(random % endpoints.len()),
    };
    match found {
        Some((app, process, index)) => page(app, process, *index, &rest),
        None => refused(400, "unknown_route"),
    }
}

/// Plays the network's name server and the instance.
fn internal(state: &State, name: &str, port: &str, path: &str) -> Reply {
    let (index, host) = name.split_once('.').unwrap_or(("", name));
    let route = state.routes.iter().find(|route| route.url == host);
    let Some(route) = route.filter(|_| port == "8080") else {
        return Reply::new(502).body("no such host, or nobody listens at the port");
    };
    let mut processes = state.processes.iter().rev().filter(|process| {
        let mut destinations = route.destinations.iter();
        destinations.any(|(app, kind, _)| *app == process.app && *kind == process.process_type)
    });
    let found = processes.find_map(|process| {
        let mut instances = process.instances.iter();
        let found = instances.find(|it| it.index.to_string() == index && it.state == "RUNNING")?;
        Some((process, found.index))
    });
    match found {
        Some((process, index)) => page(&process.app, &process.guid, index, path),
        None => Reply::new(502).body("no such host"),
    }
}

fn refused(status: u16, error: &str) -> Reply {
    Reply::new(status).header("X-Cf-RouterError", error)
}

fn is_instance((guid, index): (&str, &str)) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let hex = |part: &str| part.bytes().all(|it| it.is_ascii_hexdigit());
    let guid = guid.split('-').map(|part| (part.len(), hex(part)));
    let good = guid.eq(lengths.map(|length| (length, true)));
    good && !index.is_empty() && index.bytes().all(|it| it.is_ascii_digit())
}

/// The page of an instance.
fn page(app: &str, process: &str, index: u32, path: &str) -> Reply {
    let path = path.split('?').next().unwrap_or_default();
    let text = format!(
        "# TYPE instance_info gauge\n\
         instance_info{{app=\"{app}\",process=\"{process}\",index=\"{index}\",path=\"{path}\"}} 1\n"
    );
    Reply::new(200)
        .header("content-type", "text/plain; version=0.0.4; charset=utf-8")
        .body(text)
}
