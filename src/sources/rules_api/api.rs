//! Handling of a request: its tenant is determined, the whole request is checked, and then it is
//! executed.

mod file;
pub(super) mod group;
mod status;
pub(super) mod tenant;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::warn;

use metrifold_base::BoxFuture;
use metrifold_engine::planes::rules::{Output, Reports};
use metrifold_http::{Body, BodyError, Handler, Request, Response, answer, body};
use metrifold_model::{Rejection, RejectionKind};
use metrifold_rules::store::{Action, Change, Entry, Place, Text};
use metrifold_rules::{Group, RuleFile, Version, Warning};

use super::elsewhere::Elsewhere;
use super::reply::{self, Failure, absent};
use super::requests::Parameters;
use super::{RulesApiConfig, Shared, namespace, openapi, ruler_api};

/// Header that names the tenant, in the rulers' configuration API.
const SCOPE: &str = "x-scope-orgid";

/// Resource that a path serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// All files of a tenant.
    Tenant,
    /// All files of a tenant, at the path that Observatorium's API uses.
    Raw,
    File,
    Group,
    OpenApi,
    /// The rules of all tenants.
    All,
    /// All files of a tenant named in the path, for callers with access to all tenants.
    Backend,
    /// All files of a tenant, in the format of Mimir's ruler.
    Namespaces,
    Namespace,
    NamespaceGroup,
}

/// State of the API, shared by its paths.
pub(super) struct Api {
    pub(super) id: Arc<str>,
    pub(super) shared: Arc<Shared>,
    pub(super) out: Output,
    pub(super) reports: Reports,
    pub(super) elsewhere: Option<Elsewhere>,
    /// Permits for concurrent requests, `max_concurrent` of them.
    pub(super) slots: Arc<Semaphore>,
}

/// The API at one of its paths.
pub(super) struct Served {
    pub(super) api: Arc<Api>,
    pub(super) endpoint: Endpoint,
}

impl Handler for Served {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let api = self.api.clone();
            let answered = api.serve(self.endpoint, request).await;
            let answer = answered.unwrap_or_else(|failure| {
                if let Failure::Store(reason) = &failure {
                    self.api.out.metrics().error("store", reason);
                    warn!(source = %self.api.id, %reason, "a request failed at the store of rules");
                }
                failure.answer()
            });
            self.api.out.metrics().answered(answer.status());
            answer
        })
    }

    fn refused(&self, status: StatusCode) {
        self.api.out.metrics().answered(status);
    }
}

/// A request whose body was read.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) tenant: String,
    /// Name of the tenant in the path.
    pub(super) name: Option<String>,
    /// The parameters of the path.
    pub(super) file: Option<String>,
    pub(super) group: Option<String>,
    pub(super) parameters: Parameters,
    pub(super) body: Vec<u8>,
    /// Name of the caller, for the history.
    pub(super) by: String,
}

/// A tenant's file as it was read from the store.
pub(super) struct Kept {
    pub(super) text: Text,
    /// The rules of the file; none if it is damaged or too large.
    pub(super) file: Option<RuleFile>,
}

/// The files of a tenant, by name.
pub(super) type Files = BTreeMap<String, Kept>;

/// Outcome of a change that was checked and, unless it was a dry run, stored.
pub(super) struct Made {
    pub(super) version: Version,
    pub(super) changed: bool,
    pub(super) warnings: Vec<Warning>,
    /// Why the rules are not passed on, if others of the tenant are the cause.
    pub(super) held_up: Option<String>,
}

impl Made {
    /// The warnings in an answer.
    pub(super) fn all_warnings(&self) -> Vec<String> {
        let warnings = self.warnings.iter().map(ToString::to_string);
        warnings.chain(self.held_up.clone()).collect()
    }
}

impl Api {
    async fn serve(
        self: Arc<Self>,
        endpoint: Endpoint,
        request: Request,
    ) -> Result<Response, Failure> {
        if endpoint == Endpoint::OpenApi {
            let document = openapi::document(&self.shared.config);
            return Ok(reply::json(StatusCode::OK, &document));
        }
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            let most = self.shared.config.max_concurrent;
            return Err(Rejection::unavailable(format!(
                "max_concurrent = {most} requests are in progress"
            ))
            .into());
        };
        let asked = self.read(endpoint, request).await?;
        let done = spawn_blocking(move || {
            let done = self.answer(endpoint, &asked);
            drop(slot);
            done
        });
        done.await.unwrap_or_else(|_| {
            Err(Rejection::new(RejectionKind::Internal, "the request could not be handled").into())
        })
    }

    async fn read(&self, endpoint: Endpoint, request: Request) -> Result<Asked, Failure> {
        let (mut asked, body, length) = head(endpoint, request)?;
        let config = &self.shared.config;
        let max = config.max_body_bytes;
        let read = body::read(body, length, max.bytes(), config.body_timeout.0).await;
        let body = read.map_err(|error| match error {
            BodyError::TooLarge { .. } => {
                let reason = format!("body is larger than max_body_bytes = {max}");
                Rejection::new(RejectionKind::TooLarge, reason)
            }
            BodyError::Timeout | BodyError::NoRoom => Rejection::unavailable(error.to_string()),
            BodyError::Refused(rejection) => rejection,
            BodyError::Broken(reason) => Rejection::invalid(reason),
        })?;
        asked.body = body.to_vec();
        Ok(asked)
    }

    fn answer(&self, endpoint: Endpoint, asked: &Asked) -> Result<Response, Failure> {
        if asked.file.is_some() {
            place(asked).check()?;
        }
        let reads = matches!(asked.method, Method::GET | Method::HEAD);
        let _turn = match reads {
            true => None,
            false => Some(self.shared.turn(&asked.tenant)?),
        };
        match endpoint {
            Endpoint::All => self.all(asked),
            Endpoint::Tenant if reads && asked.parameters.status.is_some() => self.status(asked),
            Endpoint::Tenant | Endpoint::Raw | Endpoint::Backend => match asked.method {
                Method::PUT => self.put_tenant(asked),
                Method::DELETE => self.delete_tenant(asked),
                _ => self.get_tenant(asked),
            },
            Endpoint::File => match asked.method {
                Method::PUT => self.put_file(asked),
                Method::DELETE => self.delete_file(asked),
                Method::POST => self.rollback(asked),
                _ if asked.parameters.history => self.history(asked),
                _ => self.get_file(asked),
            },
            Endpoint::Group => match asked.method {
                Method::PUT => self.put_group(asked),
                Method::DELETE => self.delete_group(asked),
                _ => self.get_group(asked),
            },
            Endpoint::Namespaces | Endpoint::Namespace | Endpoint::NamespaceGroup => {
                ruler_api::answer(self, asked)
            }
            // Answered before, without reading a body.
            Endpoint::OpenApi => Ok(answer::empty(StatusCode::NO_CONTENT)),
        }
    }

    /// Reads a tenant's files from the store.
    pub(super) fn files(&self, tenant: &str) -> Result<Files, Failure> {
        let texts = self.texts(tenant)?.into_iter();
        let files = texts.map(|(name, text)| {
            let file = match text.is_too_large {
                true => None,
                false => {
                    let parsed = RuleFile::parse(&text.text, &self.shared.checks());
                    parsed.ok().map(|parsed| parsed.file)
                }
            };
            (name, Kept { text, file })
        });
        Ok(files.collect())
    }

    /// Reads the texts of a tenant's files from the store, sorted by name.
    fn texts(&self, tenant: &str) -> Result<Vec<(String, Text)>, Failure> {
        let mut texts = Vec::new();
        for name in self.shared.store.names(tenant)? {
            let place = Place::new(tenant, &*name);
            // A file may be removed between the listing and the read.
            if let Some(text) = self.shared.store.find(&place)? {
                texts.push((name, text));
            }
        }
        Ok(texts)
    }

    /// A file, without its text if it is too large; fails if there is no such file.
    fn found(&self, place: &Place) -> Result<Text, Failure> {
        let text = self.shared.store.find(place)?;
        text.ok_or_else(|| absent(format!("there is no file {:?}", place.file)))
    }

    /// The text of a file; fails if there is no such file, or if it is too large.
    fn text(&self, place: &Place) -> Result<Text, Failure> {
        let text = self.found(place)?;
        match text.is_too_large {
            true => Err(too_large(&self.shared.config, &place.file)),
            false => Ok(text),
        }
    }

    fn parse_stored(&self, place: &Place, text: &[u8]) -> Result<RuleFile, Failure> {
        let parsed = RuleFile::parse(text, &self.shared.checks());
        parsed
            .map(|parsed| parsed.file)
            .map_err(|_| damaged(&place.file))
    }
}

/// The parameters that a request to an endpoint may have.
fn parameters(endpoint: Endpoint, method: &Method) -> &'static [&'static str] {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match endpoint {
        Endpoint::Tenant if reads => &["status"],
        Endpoint::File if reads => &["history", "version"],
        Endpoint::File if method == Method::POST => &["dry_run", "rollback"],
        // Grafana names the kind of ruler by `subtype`, and passes it on.
        Endpoint::Namespaces | Endpoint::Namespace | Endpoint::NamespaceGroup => match reads {
            true => &["subtype"],
            false => &["dry_run", "subtype"],
        },
        _ if reads => &[],
        _ => &["dry_run"],
    }
}

/// Reads the head of a request; returns it with the body and the announced length of the body.
fn head(endpoint: Endpoint, request: Request) -> Result<(Asked, Body, Option<u64>), Failure> {
    let known = parameters(endpoint, &request.method);
    let parameters = Parameters::of(request.uri.query(), known)?;
    let param = |name| request.param(name).map(str::to_owned);
    let tenant = match endpoint {
        Endpoint::All | Endpoint::Backend | Endpoint::OpenApi => {
            param("tenant").unwrap_or_default()
        }
        // Rules are stored under the tenant's id, whichever name the request uses.
        _ if !request.caller.tenants().is_empty() => {
            let own = request.caller.tenant().ok_or_else(|| {
                let reason = "the caller belongs to several tenants: name one of them";
                Rejection::invalid(reason)
            })?;
            own.to_string()
        }
        Endpoint::Namespaces | Endpoint::Namespace | Endpoint::NamespaceGroup => {
            let scope = request.headers.get(SCOPE);
            let scope = scope.and_then(|value| value.to_str().ok());
            scope.map(str::to_owned).ok_or_else(|| {
                let reason = "no X-Scope-OrgID names a tenant";
                Rejection::new(RejectionKind::Unauthenticated, reason)
            })?
        }
        _ => param("tenant").unwrap_or_default(),
    };
    let subject = request.caller.subject().map(str::to_owned);
    let file = match endpoint {
        Endpoint::Namespace | Endpoint::NamespaceGroup => {
            request.param("namespace").map(namespace::to_file)
        }
        _ => param("file"),
    };
    let asked = Asked {
        tenant,
        name: param("tenant"),
        file,
        group: param("group"),
        parameters,
        body: Vec::new(),
        by: subject.unwrap_or_else(|| request.peer.ip().to_string()),
        method: request.method.clone(),
        headers: request.headers.clone(),
    };
    let length = request.content_length();
    Ok((asked, request.body, length))
}

/// The rules of all files of a tenant; fails if a file is damaged.
pub(super) fn sound(files: &Files) -> Result<Vec<(&str, &RuleFile)>, Failure> {
    let sound = files.iter().map(|(name, kept)| {
        let file = kept.file.as_ref().ok_or_else(|| damaged(name))?;
        Ok((&**name, file))
    });
    sound.collect()
}

fn too_large(config: &RulesApiConfig, name: &str) -> Failure {
    let max = config.max_body_bytes;
    let reason =
        format!("the file {name:?} is larger than max_body_bytes = {max}: replace or delete it");
    Rejection::new(RejectionKind::Internal, reason).into()
}

fn damaged(name: &str) -> Failure {
    let reason = format!("the file {name:?} is damaged: replace or delete it");
    Rejection::new(RejectionKind::Internal, reason).into()
}

fn position(groups: &[Group], name: &str) -> Option<usize> {
    groups.iter().position(|group| group.name == name)
}

pub(super) fn find<'f>(file: &'f RuleFile, asked: &Asked) -> Result<&'f Group, Failure> {
    let name = asked.group.as_deref().unwrap_or_default();
    let at = position(&file.groups, name);
    let at = at.ok_or_else(|| missing_group(asked))?;
    Ok(&file.groups[at])
}

fn missing_group(asked: &Asked) -> Failure {
    let name = asked.group.as_deref().unwrap_or_default();
    let file = asked.file.as_deref().unwrap_or_default();
    absent(format!("there is no group {name:?} in a file {file:?}"))
}

fn place(asked: &Asked) -> Place {
    Place::new(&*asked.tenant, asked.file.as_deref().unwrap_or_default())
}

/// The text to store for a body: YAML is stored unchanged, which keeps its comments.
fn stored_text(body: &[u8], file: &RuleFile) -> Vec<u8> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(b'{') => file.to_yaml().into_bytes(),
        _ => body.to_vec(),
    }
}

fn change(asked: &Asked, action: Action) -> Change<'_> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Change {
        by: &asked.by,
        // A clock before 1970 counts as 1970.
        at: now.map_or(0, |now| now.as_millis() as u64),
        action,
    }
}

fn entry_to_json(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "at": entry.at,
        "by": entry.by,
        "action": entry.action,
        "version": entry.version,
    })
}

pub(super) fn not_modified(version: Version) -> Response {
    reply::tagged(answer::empty(StatusCode::NOT_MODIFIED), version)
}

/// The answer to a change.
fn told(asked: &Asked, made: &Made, version: Version) -> Response {
    let body = json!({
        "status": "success",
        "changed": made.changed,
        "dry_run": asked.parameters.dry_run,
        "version": version.to_string(),
        "warnings": made.all_warnings(),
    });
    reply::tagged(reply::json(StatusCode::OK, &body), version)
}
