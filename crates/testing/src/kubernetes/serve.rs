//! Requests and answers.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::Shared;
use super::selector::{Selection, fields, labels};
use super::state::{Expiry, State, find};
use crate::http::{Headers, Stream, header, read_head};

/// Default duration of a watch, in seconds.
const USUAL: u64 = 1800;

pub(super) fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    tls: Option<&Arc<ServerConfig>>,
) {
    for socket in listener.incoming() {
        let Ok(socket) = socket else { return };
        let state = shared.state.lock().unwrap();
        if state.stopped {
            return;
        }
        if state.down {
            continue;
        }
        drop(state);
        let _ = socket.set_nodelay(true);
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(socket),
            Some(tls) => {
                let session = ServerConnection::new(tls.clone()).unwrap();
                Box::new(StreamOwned::new(session, socket))
            }
        };
        let shared = shared.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            // A client may close its connection at any time.
            while let Ok(true) = exchange(&mut stream, &shared) {}
        });
    }
}

/// A parsed request.
struct Asked {
    method: String,
    query: Vec<(String, String)>,
    resource: &'static str,
    kind: &'static str,
    version: String,
    namespace: Option<String>,
    name: Option<String>,
    body: Value,
}

impl Asked {
    fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        matches!(self.query(name), Some("true" | "1"))
    }

    fn selection(&self) -> Option<Selection> {
        Some(Selection {
            namespace: self.namespace.clone(),
            labels: self
                .query("labelSelector")
                .map_or(Some(Vec::new()), labels)?,
            fields: self
                .query("fieldSelector")
                .map_or(Some(Vec::new()), fields)?,
        })
    }
}

/// Answers one request. Returns whether the connection stays open.
fn exchange(stream: &mut BufReader<Box<dyn Stream>>, shared: &Shared) -> io::Result<bool> {
    let Some((line, headers)) = read_head(stream)? else {
        return Ok(false);
    };
    let mut body = vec![0; header(&headers, "content-length").map_or(0, |it| it.parse().unwrap())];
    stream.read_exact(&mut body)?;
    let mut words = line.split(' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut state = shared.state.lock().unwrap();
    if state.down || state.stopped {
        return Ok(false);
    }
    state.asked.push(format!("{method} {}", decode(target)));
    if let Some(refused) = refuse(&state, &headers) {
        drop(state);
        return respond(stream, refused);
    }
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let asked = match understand(&state, method, target, body) {
        Ok(asked) => asked,
        Err(refused) => {
            drop(state);
            return respond(stream, refused);
        }
    };
    if asked.is_true("watch") {
        state.watches += 1;
        drop(state);
        let watched = watch(stream, shared, &asked);
        shared.state.lock().unwrap().watches -= 1;
        return watched;
    }
    let answer = match asked.method.as_str() {
        "GET" if asked.name.is_none() => list(&mut state, &asked),
        _ => single(&mut state, &asked),
    };
    drop(state);
    shared.changed.notify_all();
    respond(stream, answer)
}

type Answer = (u16, Value);

fn refuse(state: &State, headers: &Headers) -> Option<Answer> {
    let token = state.token.as_ref()?;
    let shown = header(headers, "authorization");
    let good = shown.is_some_and(|shown| *shown == format!("Bearer {token}"));
    (!good).then(|| status(401, "Unauthorized", "Unauthorized"))
}

fn understand(state: &State, method: &str, target: &str, body: Value) -> Result<Asked, Answer> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let unknown = || {
        status(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let prefix = if parts[0] == "api" { 2 } else { 3 };
    let (version, rest) = parts.split_at_checked(prefix).ok_or_else(unknown)?;
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let [resource, name @ ..] = rest else {
        return Err(unknown());
    };
    let (resource, at, kind, namespaced) = find(resource).ok_or_else(unknown)?;
    if at != version.join("/") || (namespace.is_some() && !namespaced) {
        return Err(unknown());
    }
    if state.forbidden.contains(resource) {
        let text = format!("{resource} is forbidden: User \"metrifold\" cannot list resource");
        return Err(status(403, "Forbidden", &text));
    }
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    });
    Ok(Asked {
        method: method.to_owned(),
        query: pairs.collect(),
        resource,
        kind,
        version: at
            .trim_start_matches("apis/")
            .trim_start_matches("api/")
            .to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.first().map(|name| (*name).to_owned()),
        body,
    })
}

/// Answers with a list, paged on request; all pages show one version.
fn list(state: &mut State, asked: &Asked) -> Answer {
    let Some(selection) = asked.selection() else {
        return status(400, "BadRequest", "unable to parse requirement");
    };
    let token = asked
        .query("continue")
        .and_then(|token| token.split_once('|'));
    let (version, after) = match token {
        None => (state.version, None),
        Some((version, after)) => (version.parse().unwrap(), Some(after.to_owned())),
    };
    let expires = after.is_some() && state.expiring_pages > 0;
    if expires {
        state.expiring_pages -= 1;
    }
    if expires || version < state.forgotten {
        return status(410, "Expired", "The provided continue parameter is too old");
    }
    let objects = state.at(asked.resource, version);
    let name = |key: &(String, String)| format!("{}/{}", key.0, key.1);
    let matching = objects.iter().filter(|(_, object)| selection.takes(object));
    let further = matching.filter(|(key, _)| after.as_ref().is_none_or(|after| name(key) > *after));
    let mut further: Vec<_> = further.collect();
    further.sort_by_cached_key(|(key, _)| name(key));
    let limit = asked
        .query("limit")
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    let mut meta = json!({ "resourceVersion": version.to_string() });
    if limit > 0 && further.len() > limit {
        // The API server counts the rest only where no selector filters it.
        if selection.labels.is_empty() && selection.fields.is_empty() {
            meta["remainingItemCount"] = json!(further.len() - limit);
        }
        further.truncate(limit);
        let last = further.last().map(|(key, _)| name(key)).unwrap_or_default();
        meta["continue"] = json!(format!("{version}|{last}"));
    }
    // Objects in a list do not name their kind.
    let items: Vec<&&Value> = further.into_iter().map(|(_, object)| object).collect();
    let list = json!({
        "kind": format!("{}List", asked.kind),
        "apiVersion": asked.version,
        "metadata": meta,
        "items": items,
    });
    (200, list)
}

/// Reads or writes one object.
fn single(state: &mut State, asked: &Asked) -> Answer {
    let namespace = asked.namespace.clone().unwrap_or_default();
    let mut object = asked.body.clone();
    let given = object["metadata"]["name"].as_str().map(str::to_owned);
    let Some(name) = asked.name.clone().or(given) else {
        return status(400, "BadRequest", "name is required");
    };
    let known = state
        .get(asked.resource, &(namespace.clone(), name.clone()))
        .cloned();
    let missing = || {
        status(
            404,
            "NotFound",
            &format!("{} {name:?} not found", asked.resource),
        )
    };
    let whole = |mut object: Value| {
        object["kind"] = json!(asked.kind);
        object["apiVersion"] = json!(asked.version);
        object
    };
    match (asked.method.as_str(), known) {
        ("GET", Some(known)) => (200, whole(known)),
        ("POST", Some(_)) => {
            let text = format!("{} {name:?} already exists", asked.resource);
            status(409, "AlreadyExists", &text)
        }
        ("POST", None) => {
            object["metadata"]["namespace"] = json!(namespace);
            state.put(asked.resource, object);
            let made = state.object(asked.resource, &namespace, &name);
            (201, whole(made.unwrap_or_default()))
        }
        ("PUT", Some(known)) => {
            let version = &object["metadata"]["resourceVersion"];
            if !version.is_null() && *version != known["metadata"]["resourceVersion"] {
                let text =
                    "the object has been modified; please apply your changes to the latest version";
                return status(409, "Conflict", text);
            }
            object["metadata"]["namespace"] = json!(namespace);
            state.put(asked.resource, object);
            let made = state.object(asked.resource, &namespace, &name);
            (200, whole(made.unwrap_or_default()))
        }
        ("DELETE", Some(known)) => {
            state.delete(asked.resource, &namespace, &name);
            (200, whole(known))
        }
        (_, None) => missing(),
        _ => status(
            405,
            "MethodNotAllowed",
            "the server does not allow this method",
        ),
    }
}

/// Serves a watch from a version until its time is up.
fn watch(
    stream: &mut BufReader<Box<dyn Stream>>,
    shared: &Shared,
    asked: &Asked,
) -> io::Result<bool> {
    let Some(selection) = asked.selection() else {
        return respond(
            stream,
            status(400, "BadRequest", "unable to parse requirement"),
        );
    };
    let seconds = asked.query("timeoutSeconds").and_then(|it| it.parse().ok());
    let ends = Instant::now() + Duration::from_secs(seconds.unwrap_or(USUAL));
    let bookmarks = asked.is_true("allowWatchBookmarks");
    let initial = asked.is_true("sendInitialEvents");
    if initial && asked.query("resourceVersionMatch") != Some("NotOlderThan") {
        let text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return respond(stream, status(422, "Invalid", text));
    }
    let from = asked.query("resourceVersion").unwrap_or("0");
    let from: u64 = from.parse().unwrap_or(0);
    let mut state = shared.state.lock().unwrap();
    let broken = state.breaks;
    let mut told = state.bookmarks;
    let mut lines = Vec::new();
    let whole = |mut object: Value| {
        object["kind"] = json!(asked.kind);
        object["apiVersion"] = json!(asked.version);
        object
    };
    let bookmark = |version: u64, last: bool| {
        let mut meta = json!({ "resourceVersion": version.to_string() });
        if last {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        ("BOOKMARK", json!({ "metadata": meta }))
    };
    let over = || status(410, "Expired", &format!("too old resource version: {from}")).1;
    let mut at = from;
    if initial || from == 0 {
        // All existing objects, as events of their creation.
        let objects = state.at(asked.resource, state.version);
        let objects = objects
            .into_values()
            .filter(|object| selection.takes(object));
        lines.extend(objects.map(|object| ("ADDED", object.clone())));
        if initial && bookmarks {
            lines.push(bookmark(state.version, true));
        }
        at = state.version;
    } else if from < state.forgotten {
        if state.expiry == Expiry::Status {
            drop(state);
            return respond(stream, (410, over()));
        }
        lines.push(("ERROR", over()));
    }
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.get_mut().write_all(head.as_bytes())?;
    stream.get_mut().flush()?;
    loop {
        let expired = lines.iter().any(|(kind, _)| *kind == "ERROR");
        if !expired {
            if at < state.forgotten {
                lines.push(("ERROR", over()));
            } else {
                lines.extend(state.events(asked.resource, at, &selection));
                at = state.version;
                if state.bookmarks > told {
                    told = state.bookmarks;
                    lines.extend(bookmarks.then(|| bookmark(at, false)));
                }
            }
        }
        let broken_off = state.down || state.stopped || state.breaks > broken;
        if broken_off {
            return Ok(false);
        }
        if !lines.is_empty() {
            drop(state);
            for (kind, object) in lines.drain(..) {
                let object = if kind == "ERROR" {
                    object
                } else {
                    whole(object)
                };
                let line = format!("{}\n", json!({ "type": kind, "object": object }));
                let stream = stream.get_mut();
                write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
                stream.flush()?;
                if kind == "ERROR" {
                    stream.write_all(b"0\r\n\r\n")?;
                    stream.flush()?;
                    return Ok(true);
                }
            }
            state = shared.state.lock().unwrap();
            continue;
        }
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            drop(state);
            stream.get_mut().write_all(b"0\r\n\r\n")?;
            stream.get_mut().flush()?;
            return Ok(true);
        }
        state = shared.changed.wait_timeout(state, left).unwrap().0;
    }
}

fn status(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    });
    (code, status)
}

fn respond(stream: &mut BufReader<Box<dyn Stream>>, (code, body): Answer) -> io::Result<bool> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()?;
    Ok(true)
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match (
            bytes[at],
            hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        ) {
            (_, Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', None) => decoded.push(b' '),
            (byte, None) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
