//! The Cloud Controller's API, version 3.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::state::State;
use crate::endpoint::{Does, Reply, Seen};

/// Parameters of a query.
type Query = BTreeMap<String, String>;

/// An object with the fields that filters apply to.
struct Object {
    json: Value,
    fields: BTreeMap<&'static str, String>,
    labels: BTreeMap<String, Option<String>>,
}

/// Paths of lists, with the parameters that each accepts beside the common ones.
const LISTS: [(&str, &[&str]); 8] = [
    ("/v3/organizations", &["names", "guids", "label_selector"]),
    (
        "/v3/spaces",
        &[
            "names",
            "guids",
            "organization_guids",
            "label_selector",
            "include",
        ],
    ),
    (
        "/v3/apps",
        &[
            "names",
            "guids",
            "organization_guids",
            "space_guids",
            "label_selector",
            "include",
        ],
    ),
    (
        "/v3/processes",
        &[
            "guids",
            "types",
            "app_guids",
            "space_guids",
            "organization_guids",
            "embed",
        ],
    ),
    (
        "/v3/routes",
        &[
            "app_guids",
            "space_guids",
            "organization_guids",
            "domain_guids",
            "hosts",
            "include",
        ],
    ),
    ("/v3/domains", &["names", "guids", "organization_guids"]),
    (
        "/v3/service_route_bindings",
        &["route_guids", "service_instance_guids", "include"],
    ),
    (
        "/v3/service_credential_bindings",
        &["type", "app_guids", "service_instance_names", "include"],
    ),
];
const COMMON: [&str; 3] = ["page", "per_page", "order_by"];

pub(super) fn answer(state: &mut State, seen: &Seen) -> Does {
    if state.manner.down {
        return Does::Close;
    }
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    match path {
        "/" => return json_answer(200, &root(state)).into(),
        "/v2/info" => {
            let info = json!({
                "authorization_endpoint": state.uaa_url,
                "token_endpoint": state.uaa_url,
            });
            return json_answer(200, &info).into();
        }
        _ => {}
    }
    if let Some(refused) = unauthorized(state, seen) {
        return refused.into();
    }
    if path == "/v3/info" {
        return json_answer(200, &info(state)).into();
    }
    let (headers, within) = limit(state);
    let mut reply = match within {
        true => list_or_stats(state, path, query),
        // With the content type of text, as from the real controller.
        false => {
            let text = json!({ "errors": [{
                "code": 10013,
                "title": "CF-RateLimitExceeded",
                "detail": "Rate Limit Exceeded",
            }] });
            Reply::new(429)
                .header("content-type", "text/plain; charset=utf-8")
                .body(text.to_string())
        }
    };
    reply.headers.extend(headers);
    reply.into()
}

fn json_answer(status: u16, body: &Value) -> Reply {
    Reply::new(status)
        .header("content-type", "application/json; charset=utf-8")
        .body(body.to_string())
}

fn error(status: u16, code: u32, title: &str, detail: &str) -> Reply {
    let body = json!({ "errors": [{ "code": code, "title": title, "detail": detail }] });
    json_answer(status, &body)
}

fn root(state: &State) -> Value {
    if state.manner.without_links {
        return json!({ "links": {} });
    }
    json!({ "links": {
        "self": { "href": state.controller_url },
        "cloud_controller_v3": {
            "href": format!("{}/v3", state.controller_url),
            "meta": { "version": "3.228.0" },
        },
        "login": { "href": state.uaa_url },
        "uaa": { "href": state.uaa_url },
        "credhub": null,
    } })
}

fn info(state: &State) -> Value {
    let (limit, minutes) = state.manner.published_limit.unwrap_or_default();
    json!({ "build": "", "rate_limits": {
        "enabled": state.manner.published_limit.is_some(),
        "general_limit": limit,
        "reset_interval_in_minutes": minutes,
    } })
}

/// Refuses a request without a valid token.
fn unauthorized(state: &mut State, seen: &Seen) -> Option<Reply> {
    if let Some(left) = state.manner.revoked_in {
        state.manner.revoked_in = left.checked_sub(1);
        if left == 0 {
            state.revoke_tokens();
        }
    }
    let Some(shown) = seen.header("authorization") else {
        return Some(error(
            401,
            10002,
            "CF-NotAuthenticated",
            "Authentication error",
        ));
    };
    let token = shown
        .split_once(' ')
        .filter(|it| it.0.eq_ignore_ascii_case("bearer"));
    let good = token.and_then(|(_, token)| state.tokens.access.get(token));
    match good.is_some_and(|until| *until > Instant::now()) {
        true => None,
        false => Some(error(
            401,
            1000,
            "CF-InvalidAuthToken",
            "Invalid Auth Token",
        )),
    }
}

/// Counts a request against the rate limit. The remainder in the headers has steps of a tenth.
fn limit(state: &mut State) -> (Vec<(String, String)>, bool) {
    state.counted += 1;
    let Some(limit) = state.manner.rate_limit else {
        return (Vec::new(), true);
    };
    let now = Instant::now();
    let length = state.manner.window;
    let ended = state.window.is_none_or(|began| now >= began + length);
    if ended {
        state.window = Some(now);
        state.counted = 1;
    }
    let until = state.window.map_or(length, |began| (began + length) - now);
    let reset = SystemTime::now() + until;
    let reset = reset.duration_since(UNIX_EPOCH).unwrap_or_default();
    let step = (limit / 10).max(1);
    let left = limit.saturating_sub(state.counted) / step * step;
    let mut headers = vec![
        ("X-RateLimit-Limit".to_owned(), limit.to_string()),
        ("X-RateLimit-Remaining".to_owned(), left.to_string()),
        ("X-RateLimit-Reset".to_owned(), reset.as_secs().to_string()),
    ];
    let within = state.counted <= limit;
    if !within {
        let seconds = until.as_secs_f64().ceil() as u64;
        headers.push(("Retry-After".to_owned(), seconds.to_string()));
    }
    (headers, within)
}

fn list_or_stats(state: &State, path: &str, query: &str) -> Reply {
    let process = path.strip_prefix("/v3/processes/");
    if let Some(guid) = process.and_then(|rest| rest.strip_suffix("/stats")) {
        return stats(state, guid);
    }
    let binding = path.strip_prefix("/v3/service_credential_bindings/");
    if let Some(guid) = binding.and_then(|rest| rest.strip_suffix("/details")) {
        return binding_details(state, guid);
    }
    let Some((_, known)) = LISTS.iter().find(|(list, _)| *list == path) else {
        return error(404, 10000, "CF-NotFound", "Unknown request");
    };
    let query: Query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decode(value)))
        .collect();
    let manner = &state.manner;
    let may = |name: &str| match name {
        "embed" => manner.embeds && known.contains(&name),
        "include" => manner.includes && known.contains(&name),
        name => known.contains(&name) || COMMON.contains(&name),
    };
    let unknown: Vec<&str> = query
        .keys()
        .map(String::as_str)
        .filter(|it| !may(it))
        .collect();
    if !unknown.is_empty() {
        let detail = format!(
            "The query parameter is invalid: Unknown query parameter(s): '{}'. Valid parameters are: '{}'",
            unknown.join("', '"),
            known.join("', '"),
        );
        return error(400, 10005, "CF-BadQueryParameter", &detail);
    }
    let asked = |name: &str| query.get(name).filter(|_| !manner.lax);
    let include = asked("include").map_or("", String::as_str);
    let can_include = match path {
        "/v3/apps" => ["", "space", "space.organization"].contains(&include),
        "/v3/routes" => ["", "domain", "space", "space.organization"].contains(&include),
        _ => include.is_empty(),
    };
    let embed = asked("embed").map_or("", String::as_str);
    if !can_include || !["", "process_instances"].contains(&embed) {
        let detail = "The query parameter is invalid: Invalid included resource";
        return error(400, 10005, "CF-BadQueryParameter", detail);
    }
    if let (Some(status), "/v3/service_route_bindings") = (manner.no_route_bindings, path) {
        return error(status, 10000, "CF-NotFound", "Unknown request");
    }
    let number = |name: &str, default: usize| match query.get(name) {
        Some(text) => text.parse().ok().filter(|number| *number > 0),
        None => Some(default),
    };
    let (Some(page), Some(per_page)) = (number("page", 1), number("per_page", 50)) else {
        let detail = "The query parameter is invalid: Page must be greater than zero";
        return error(400, 10005, "CF-BadQueryParameter", detail);
    };
    if per_page > 5000 {
        let detail = "The query parameter is invalid: Per page must be between 1 and 5000";
        return error(400, 10005, "CF-BadQueryParameter", detail);
    }
    if manner.broken_page == Some((list_name(path), page)) {
        return error(500, 10001, "UnknownError", "An unknown error occurred.");
    }
    let mut objects = seen_objects(state, path, embed);
    objects.retain(|object| fits(object, &query));
    let per_page = per_page.min(manner.page);
    let total = objects.len();
    let pages = total.div_ceil(per_page).max(1);
    let here: Vec<Value> = objects
        .into_iter()
        .skip((page - 1) * per_page)
        .take(per_page)
        .map(|object| object.json)
        .collect();
    let href = |page: usize| {
        let url = format!(
            "{}{path}?page={page}&per_page={per_page}",
            state.controller_url
        );
        json!({ "href": url })
    };
    let mut body = json!({
        "pagination": {
            "total_results": total,
            "total_pages": pages,
            "first": href(1),
            "last": href(pages),
            "next": if page < pages { href(page + 1) } else { Value::Null },
            "previous": if page > 1 { href(page - 1) } else { Value::Null },
        },
        "resources": here,
    });
    if !include.is_empty() {
        body["included"] = included(state, include, &here);
    }
    json_answer(200, &body)
}

/// GUID of a binding by its number.
fn binding_guid(number: usize) -> String {
    format!("b1dd1b60-0000-4000-8000-{number:012}")
}

/// The content of a binding, which developers of its space may read.
fn binding_details(state: &State, guid: &str) -> Reply {
    if state.manner.auditor {
        let detail = "You are not authorized to perform the requested action";
        return error(403, 10003, "CF-NotAuthorized", detail);
    }
    let Some(number) = (0..state.bindings.len()).find(|it| binding_guid(*it) == guid) else {
        let detail = "Service credential binding not found";
        return error(404, 10010, "CF-ResourceNotFound", detail);
    };
    let credentials = state.credentials.get(&number).cloned();
    let body = json!({
        "credentials": credentials.unwrap_or_else(|| json!({})),
        "syslog_drain_url": null,
        "volume_mounts": [],
    });
    json_answer(200, &body)
}

/// The name under which a test breaks pages of the list.
fn list_name(path: &str) -> &'static str {
    let list = LISTS.iter().find(|(list, _)| *list == path);
    list.map_or("", |(list, _)| list)
}

fn fits(object: &Object, query: &Query) -> bool {
    query.iter().all(|(name, value)| {
        let wanted = || value.split(',').map(str::to_lowercase);
        match name.as_str() {
            "page" | "per_page" | "order_by" | "include" | "embed" => true,
            "label_selector" => selected(&object.labels, value),
            name => {
                let field = object.fields.get(name).map_or("", String::as_str);
                let mut has = field.split(',');
                has.any(|it| wanted().any(|value| value == it.to_lowercase()))
            }
        }
    })
}

/// Whether labels match a label selector.
fn selected(labels: &BTreeMap<String, Option<String>>, selector: &str) -> bool {
    // Commas within parentheses separate values, not requirements.
    let mut inside = false;
    let parts = selector.split(|c| {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        c == ',' && !inside
    });
    let parts: Vec<&str> = parts.collect();
    let of = |key: &str| labels.get(key).cloned().flatten().unwrap_or_default();
    parts.into_iter().all(|part| {
        if let Some((left, list)) = part.split_once('(') {
            let (key, word) = left.trim().split_once(' ').expect("KEY in (...)");
            let list = list.trim_end_matches(')').split(',');
            let listed = list.map(str::trim).any(|it| it == of(key));
            return (labels.contains_key(key) && listed) != (word == "notin");
        }
        match part.split_once("!=") {
            Some((key, value)) => of(key) != value,
            None => match part.split_once('=') {
                Some((key, value)) => of(key) == value,
                None => part.strip_prefix('!').map_or_else(
                    || labels.contains_key(part),
                    |key| !labels.contains_key(key),
                ),
            },
        }
    })
}

/// The objects of a list that the user sees.
fn seen_objects(state: &State, path: &str, embed: &str) -> Vec<Object> {
    match state.manner.blind || state.manner.blind_lists.contains(path) {
        true => Vec::new(),
        false => objects(state, path, embed),
    }
}

fn objects(state: &State, path: &str, embed: &str) -> Vec<Object> {
    let metadata = json!({ "labels": {}, "annotations": {} });
    let to = |guid: &str| json!({ "data": { "guid": guid } });
    let at = "2024-01-01T00:00:00Z";
    let place = |space: &str| {
        let organization = state.space(space).organization.clone();
        [
            ("space_guids", space.to_owned()),
            ("organization_guids", organization),
        ]
    };
    match path {
        "/v3/organizations" => {
            let each = state.organizations.iter();
            each.map(|it| Object {
                json: json!({
                    "guid": it.guid, "created_at": at, "name": it.name,
                    "metadata": metadata, "links": {},
                }),
                fields: [("names", it.name.clone()), ("guids", it.guid.clone())].into(),
                labels: BTreeMap::new(),
            })
            .collect()
        }
        "/v3/spaces" => {
            let each = state.spaces.iter();
            each.map(|it| Object {
                json: json!({
                    "guid": it.guid, "created_at": at, "name": it.name,
                    "relationships": { "organization": to(&it.organization) }, "links": {},
                }),
                fields: [
                    ("names", it.name.clone()),
                    ("guids", it.guid.clone()),
                    ("organization_guids", it.organization.clone()),
                ]
                .into(),
                labels: BTreeMap::new(),
            })
            .collect()
        }
        "/v3/apps" => {
            let each = state.apps.iter();
            each.map(|it| {
                let mut fields: BTreeMap<_, _> = place(&it.space).into();
                fields.extend([("names", it.name.clone()), ("guids", it.guid.clone())]);
                Object {
                    json: json!({
                        "guid": it.guid, "created_at": at, "name": it.name, "state": it.state,
                        "lifecycle": { "type": "buildpack", "data": {} },
                        "relationships": { "space": to(&it.space) },
                        "metadata": { "labels": it.labels, "annotations": it.annotations },
                        "links": {},
                    }),
                    fields,
                    labels: it.labels.clone(),
                }
            })
            .collect()
        }
        "/v3/processes" => {
            let each = state.processes.iter();
            each.map(|it| {
                let app = state.apps.iter().find(|app| app.guid == it.app);
                let app = app.expect("an application");
                let mut fields: BTreeMap<_, _> = place(&app.space).into();
                fields.extend([
                    ("guids", it.guid.clone()),
                    ("app_guids", it.app.clone()),
                    ("types", it.process_type.clone()),
                ]);
                let created = it.created;
                let created = format!(
                    "2024-01-{:02}T{:02}:{:02}:{:02}Z",
                    1 + created / 86400,
                    created / 3600 % 24,
                    created / 60 % 60,
                    created % 60
                );
                let mut json = json!({
                    "guid": it.guid, "created_at": created, "type": it.process_type,
                    "instances": it.desired, "command": "[PRIVATE DATA HIDDEN IN LISTS]",
                    "memory_in_mb": 64, "disk_in_mb": 64,
                    "health_check": { "type": "port", "data": {} },
                    "relationships": { "app": to(&it.app), "revision": to(&it.revision) },
                    "metadata": metadata, "links": {},
                });
                if embed == "process_instances" {
                    let instances = it.instances.iter();
                    let instances: Vec<_> = instances
                        .map(|it| json!({ "index": it.index, "state": it.state, "since": 12 }))
                        .collect();
                    json["process_instances"] = instances.into();
                }
                Object {
                    json,
                    fields,
                    labels: BTreeMap::new(),
                }
            })
            .collect()
        }
        "/v3/routes" => {
            let each = state.routes.iter();
            each.map(|it| {
                let mut fields: BTreeMap<_, _> = place(&it.space).into();
                let apps = it.destinations.iter().map(|(app, ..)| app.as_str());
                let apps: Vec<&str> = apps.collect();
                fields.extend([
                    ("app_guids", apps.join(",")),
                    ("domain_guids", it.domain.clone()),
                ]);
                let (host, path) = it.url.split_once('/').unwrap_or((&it.url, ""));
                let label = host.split('.').next().unwrap_or_default();
                let path = if path.is_empty() {
                    String::new()
                } else {
                    format!("/{path}")
                };
                let destinations = it.destinations.iter();
                let destinations: Vec<_> = destinations
                    .map(|(app, process_type, port)| {
                        json!({
                            "guid": format!("{}-{app}", it.guid),
                            "app": { "guid": app, "process": { "type": process_type } },
                            "port": port, "protocol": "http1", "weight": null,
                        })
                    })
                    .collect();
                Object {
                    json: json!({
                        "guid": it.guid, "created_at": at, "protocol": "http", "port": null,
                        "host": label, "path": path, "url": it.url,
                        "destinations": destinations,
                        "relationships": { "space": to(&it.space), "domain": to(&it.domain) },
                        "metadata": metadata, "links": {},
                    }),
                    fields,
                    labels: BTreeMap::new(),
                }
            })
            .collect()
        }
        "/v3/domains" => {
            let each = state.domains.iter();
            each.map(|it| Object {
                json: domain(it),
                fields: [("names", it.name.clone()), ("guids", it.guid.clone())].into(),
                labels: BTreeMap::new(),
            })
            .collect()
        }
        "/v3/service_route_bindings" => {
            let each = state.routes.iter().filter(|it| it.service);
            each.map(|it| Object {
                json: json!({
                    "guid": format!("{}-binding", it.guid), "created_at": at,
                    "route_service_url": "https://service.example.org",
                    "relationships": { "route": to(&it.guid), "service_instance": to("5e41ce") },
                    "metadata": metadata, "links": {},
                }),
                fields: [("route_guids", it.guid.clone())].into(),
                labels: BTreeMap::new(),
            })
            .collect()
        }
        _ => {
            let each = state.bindings.iter().enumerate();
            each.map(|(number, (service, app))| Object {
                json: json!({
                    "guid": binding_guid(number),
                    "created_at": at, "name": null, "type": "app",
                    "relationships": { "app": to(app), "service_instance": to("5e41ce") },
                    "metadata": metadata, "links": {},
                }),
                fields: [
                    ("type", "app".to_owned()),
                    ("app_guids", app.clone()),
                    ("service_instance_names", service.clone()),
                ]
                .into(),
                labels: BTreeMap::new(),
            })
            .collect()
        }
    }
}

fn domain(it: &super::state::Domain) -> Value {
    json!({
        "guid": it.guid, "created_at": "2024-01-01T00:00:00Z", "name": it.name,
        "internal": it.is_internal,
        "relationships": { "organization": { "data": null } }, "links": {},
    })
}

/// The `included` part of a page: each space, organization or domain of its objects once.
fn included(state: &State, include: &str, page: &[Value]) -> Value {
    let of = |name: &str| -> BTreeSet<&str> {
        let guids = page.iter();
        guids
            .filter_map(|it| it["relationships"][name]["data"]["guid"].as_str())
            .collect()
    };
    if include == "domain" {
        let used = of("domain");
        let domains = seen_objects(state, "/v3/domains", "").into_iter();
        let domains = domains.filter(|it| used.contains(it.fields["guids"].as_str()));
        return json!({ "domains": domains.map(|it| it.json).collect::<Vec<_>>() });
    }
    let used = of("space");
    let all = seen_objects(state, "/v3/spaces", "");
    let spaces: Vec<Value> = all
        .into_iter()
        .filter(|it| used.contains(it.fields["guids"].as_str()))
        .map(|it| it.json)
        .collect();
    let guid = |it: &Value| it["relationships"]["organization"]["data"]["guid"].clone();
    let used: Vec<Value> = spaces.iter().map(guid).collect();
    let mut body = json!({ "spaces": spaces });
    if include == "space.organization" {
        let all = seen_objects(state, "/v3/organizations", "").into_iter();
        let organizations = all
            .map(|it| it.json)
            .filter(|it| used.contains(&it["guid"]));
        body["organizations"] = organizations.collect();
    }
    body
}

fn stats(state: &State, guid: &str) -> Reply {
    match state.manner.broken_stats.get(guid) {
        Some(503) => {
            let detail = "Stats unavailable: Stats server temporarily unavailable.";
            return error(503, 200_002, "CF-StatsUnavailable", detail);
        }
        Some(status) => {
            let detail = "An unknown error occurred.";
            return error(*status, 10001, "UnknownError", detail);
        }
        None => {}
    }
    let Some(process) = state.processes.iter().find(|it| it.guid == guid) else {
        return error(404, 10010, "CF-ResourceNotFound", "Process not found");
    };
    let instances = process.instances.iter();
    let resources: Vec<Value> = instances
        .map(|it| {
            let usage = json!({ "cpu": 0.25, "mem": 1 << 20, "disk": 1 << 21, "log_rate": 7 });
            json!({
                "type": process.process_type, "index": it.index, "state": it.state,
                "routable": it.state == "RUNNING", "host": "10.0.0.1",
                "instance_internal_ip": "10.255.0.1", "uptime": 12,
                "usage": if it.state == "RUNNING" { usage } else { json!({}) },
            })
        })
        .collect();
    json_answer(200, &json!({ "resources": resources }))
}

/// Decodes percent-encoding.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8(digits).expect("two digits");
                u8::from_str_radix(&digits, 16).expect("two digits")
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).expect("text")
}
