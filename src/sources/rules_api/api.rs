//! Requests, one by one: found out whose they are, checked whole, then done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use metrifold_base::{BoxFuture, locked};
use metrifold_engine::planes::rules::{Output, Reports};
use metrifold_http::{Body, BodyError, Handler, Request, Response, answer, body};
use metrifold_model::{Rejection, RejectionKind, Tenant};
use metrifold_rules::store::{Action, Change, Entry, Place, StoreError, Text, Wanted};
use metrifold_rules::{Group, Lint, Problem, RuleFile, StoredFile, TenantRules, Version, Warning};

use super::document::{self, MAIN};
use super::reply::{self, Failure, absent, invalid};
use super::requests::{Parameters, is_known, wanted, wants_json};
use super::{Shared, openapi, ruler_api};

/// The header that says whose rules are meant, for the rulers' configuration API.
const SCOPE: &str = "x-scope-orgid";
/// How often a change within a file is tried again that others change meanwhile.
const ATTEMPTS: usize = 50;

/// What is served at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// All files of a tenant.
    Tenant,
    /// The same, as an Observatorium API serves it.
    Raw,
    File,
    Group,
    OpenApi,
    /// The rules of all tenants.
    All,
    /// All files of a tenant, for those who may see all tenants.
    Backend,
    /// All files of a tenant, as Mimir has them.
    Namespaces,
    Namespace,
    NamespaceGroup,
}

/// The API.
pub(super) struct Api {
    pub(super) shared: Arc<Shared>,
    pub(super) out: Output,
    pub(super) reports: Reports,
    /// One for each request that may be under way.
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
            let answer = answered.unwrap_or_else(|failure| failure.answer());
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
    /// The parameters of the path.
    pub(super) file: Option<String>,
    pub(super) group: Option<String>,
    pub(super) parameters: Parameters,
    pub(super) body: Vec<u8>,
    /// Who asks.
    pub(super) by: String,
}

/// A tenant's file.
pub(super) struct Kept {
    pub(super) text: Text,
    /// The rules of the file; none if it is damaged.
    pub(super) file: Option<RuleFile>,
}

/// The files of a tenant, by name.
pub(super) type Files = BTreeMap<String, Kept>;

/// A change of a file that was checked.
pub(super) struct Made {
    pub(super) version: Version,
    pub(super) changed: bool,
    pub(super) warnings: Vec<Warning>,
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
            return Err(Rejection::unavailable(format!("{most} requests are under way")).into());
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
            BodyError::Broken(reason) => Rejection::invalid(reason),
        })?;
        asked.body = body.to_vec();
        Ok(asked)
    }

    fn answer(&self, endpoint: Endpoint, asked: &Asked) -> Result<Response, Failure> {
        let reads = matches!(asked.method, Method::GET | Method::HEAD);
        let _turn = (!reads).then(|| self.shared.turn(&asked.tenant));
        match endpoint {
            Endpoint::All => Ok(self.all()),
            Endpoint::Tenant if reads && asked.parameters.status => self.status(asked),
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
            // Answered without a body.
            Endpoint::OpenApi => Ok(answer::empty(StatusCode::NO_CONTENT)),
        }
    }

    /// The rules of all tenants, whose names go before those of the groups.
    fn all(&self) -> Response {
        let set = locked(&self.shared.newest).clone();
        let mut tenants: Vec<_> = set.iter().collect();
        tenants.sort_by(|a, b| a.0.cmp(b.0));
        let groups = tenants.into_iter().flat_map(|(tenant, rules)| {
            let files = rules.files().map(|(name, stored)| (&**name, stored.file()));
            let joined = document::join(files).groups.into_iter();
            joined.map(move |group| Group {
                name: format!("{tenant}/{}", group.name),
                ..group
            })
        });
        let groups = groups.collect();
        reply::yaml(RuleFile { groups }.to_yaml())
    }

    /// The files of a tenant as they are in the store.
    pub(super) fn files(&self, tenant: &str) -> Result<Files, Failure> {
        let mut files = Files::new();
        for name in self.shared.store.names(tenant)? {
            let place = Place::new(tenant, &*name);
            // One that goes meanwhile is gone.
            if let Some(text) = self.shared.store.get(&place)? {
                let parsed = RuleFile::parse(&text.text, &self.shared.checks());
                let file = parsed.ok().map(|parsed| parsed.file);
                files.insert(name, Kept { text, file });
            }
        }
        Ok(files)
    }

    fn get_tenant(&self, asked: &Asked) -> Result<Response, Failure> {
        let files = self.files(&asked.tenant)?;
        if files.is_empty() {
            return Err(absent(format!("tenant {:?} has no rules", asked.tenant)));
        }
        let version = version_of(&files);
        if is_known(&asked.headers, version) {
            return Ok(not_modified(version));
        }
        let json = wants_json(&asked.headers);
        let answer = match files.get(MAIN) {
            Some(main) if files.len() == 1 && !json => reply::yaml(main.text.text.clone()),
            _ => {
                let joined = document::join(sound(&files)?);
                match json {
                    true => reply::json(StatusCode::OK, &document::to_json(&joined)),
                    false => reply::yaml(joined.to_yaml()),
                }
            }
        };
        Ok(reply::tagged(answer, version))
    }

    fn put_tenant(&self, asked: &Asked) -> Result<Response, Failure> {
        let mut files = self.files(&asked.tenant)?;
        let before = (!files.is_empty()).then(|| version_of(&files));
        let condition = wanted(&asked.headers)?;
        if !condition.holds(before) {
            return Err(StoreError::Precondition { current: before }.into());
        }
        let main = files.remove(MAIN);
        let (parsed, warnings) = self.parse(&asked.body)?;
        let others = files
            .iter()
            .filter_map(|(name, kept)| Some((name.clone(), kept.file.clone()?)));
        let file = document::split(parsed.clone(), &others.collect()).map_err(invalid)?;
        let text = match file == parsed {
            true => stored_text(&asked.body, &file),
            false => file.to_yaml().into_bytes(),
        };
        let wanted = match (condition, &main) {
            (Wanted::Any, _) => Wanted::Any,
            (_, Some(main)) => Wanted::Version(vec![main.text.version]),
            (_, None) => Wanted::Absent,
        };
        let made = self.write(asked, MAIN, &text, file, &wanted, Action::Put, files)?;
        let made = Made { warnings, ..made };
        let version = self.version_now(&asked.tenant)?.unwrap_or(made.version);
        Ok(told(asked, &made, version))
    }

    fn delete_tenant(&self, asked: &Asked) -> Result<Response, Failure> {
        let files = self.files(&asked.tenant)?;
        if files.is_empty() {
            return Err(absent(format!("tenant {:?} has no rules", asked.tenant)));
        }
        let before = Some(version_of(&files));
        if !wanted(&asked.headers)?.holds(before) {
            return Err(StoreError::Precondition { current: before }.into());
        }
        if !asked.parameters.dry_run {
            for (name, kept) in &files {
                let place = Place::new(&*asked.tenant, &**name);
                let wanted = Wanted::Version(vec![kept.text.version]);
                self.shared
                    .store
                    .delete(&place, &wanted, change(asked, Action::Delete))?;
                self.shared.touch(&asked.tenant);
            }
        }
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    fn get_file(&self, asked: &Asked) -> Result<Response, Failure> {
        let place = place(asked);
        if let Some(id) = &asked.parameters.version {
            let entry = self.shared.store.entry(&place, id)?;
            let text = entry
                .text
                .ok_or_else(|| absent("the file was removed in that version"))?;
            return Ok(reply::yaml(text));
        }
        let text = self.text(&place)?;
        if is_known(&asked.headers, text.version) {
            return Ok(not_modified(text.version));
        }
        let answer = match wants_json(&asked.headers) {
            true => {
                let file = self.parse_stored(&place, &text)?;
                reply::json(StatusCode::OK, &document::to_json(&file))
            }
            false => reply::yaml(text.text),
        };
        Ok(reply::tagged(answer, text.version))
    }

    fn put_file(&self, asked: &Asked) -> Result<Response, Failure> {
        let name = asked.file.as_deref().unwrap_or_default();
        let (file, warnings) = self.parse(&asked.body)?;
        let text = stored_text(&asked.body, &file);
        let others = self.others(&asked.tenant, name)?;
        let wanted = wanted(&asked.headers)?;
        let made = self.write(asked, name, &text, file, &wanted, Action::Put, others)?;
        let made = Made { warnings, ..made };
        Ok(told(asked, &made, made.version))
    }

    fn delete_file(&self, asked: &Asked) -> Result<Response, Failure> {
        let (place, wanted) = (place(asked), wanted(&asked.headers)?);
        if asked.parameters.dry_run {
            let text = self.text(&place)?;
            if !wanted.holds(Some(text.version)) {
                let current = Some(text.version);
                return Err(StoreError::Precondition { current }.into());
            }
        } else {
            self.shared
                .store
                .delete(&place, &wanted, change(asked, Action::Delete))?;
            self.shared.touch(&asked.tenant);
        }
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    fn history(&self, asked: &Asked) -> Result<Response, Failure> {
        let entries = self.shared.store.history(&place(asked))?;
        if entries.is_empty() {
            return Err(absent("nothing is known of such a file"));
        }
        let entries: Vec<_> = entries.iter().map(entry_to_json).collect();
        Ok(reply::json(StatusCode::OK, &json!({ "versions": entries })))
    }

    fn rollback(&self, asked: &Asked) -> Result<Response, Failure> {
        let Some(id) = &asked.parameters.rollback else {
            return Err(invalid("name the version to go back to: ?rollback=ID"));
        };
        let name = asked.file.as_deref().unwrap_or_default();
        let entry = self.shared.store.entry(&place(asked), id)?;
        let text = entry.text.ok_or_else(|| {
            invalid("the file was removed in that version: delete it, or name another version")
        })?;
        let (file, warnings) = self.parse(text.as_bytes())?;
        let others = self.others(&asked.tenant, name)?;
        let wanted = wanted(&asked.headers)?;
        let action = Action::Rollback;
        let made = self.write(asked, name, text.as_bytes(), file, &wanted, action, others)?;
        let made = Made { warnings, ..made };
        Ok(told(asked, &made, made.version))
    }

    fn get_group(&self, asked: &Asked) -> Result<Response, Failure> {
        let place = place(asked);
        let text = self.text(&place)?;
        let file = self.parse_stored(&place, &text)?;
        let group = find(&file, asked)?;
        let version = group_version(group);
        if is_known(&asked.headers, version) {
            return Ok(not_modified(version));
        }
        let answer = match wants_json(&asked.headers) {
            true => reply::json(StatusCode::OK, &document::group_to_json(group)),
            false => reply::yaml(document::group_to_yaml(group)),
        };
        Ok(reply::tagged(answer, version))
    }

    fn put_group(&self, asked: &Asked) -> Result<Response, Failure> {
        let (group, warnings) = self.parse_group(&asked.body)?;
        let name = asked.group.as_deref().unwrap_or_default();
        if group.name != name {
            let reason = format!(
                "the group is called {:?}, and its path says {name:?}",
                group.name
            );
            return Err(invalid(reason));
        }
        let version = group_version(&group);
        let made = self.edit(asked, &mut |groups| match position(groups, name) {
            Some(at) => groups[at] = group.clone(),
            None => groups.push(group.clone()),
        })?;
        Ok(told(asked, &Made { warnings, ..made }, version))
    }

    fn delete_group(&self, asked: &Asked) -> Result<Response, Failure> {
        let name = asked.group.as_deref().unwrap_or_default();
        let text = self.text(&place(asked))?;
        find(&self.parse_stored(&place(asked), &text)?, asked)?;
        self.edit(asked, &mut |groups| {
            groups.retain(|group| group.name != name)
        })?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    /// Changes the groups of a file, if the one of the path is what is wanted.
    pub(super) fn edit(
        &self,
        asked: &Asked,
        edit: &mut dyn FnMut(&mut Vec<Group>),
    ) -> Result<Made, Failure> {
        let (name, place) = (asked.file.as_deref().unwrap_or_default(), place(asked));
        let condition = wanted(&asked.headers)?;
        let group = asked.group.as_deref();
        for _ in 0..ATTEMPTS {
            let current = self.shared.store.get(&place)?;
            let mut file = match &current {
                Some(text) => self.parse_stored(&place, text)?,
                None => RuleFile::default(),
            };
            let at = group.and_then(|group| position(&file.groups, group));
            let before = at.map(|at| group_version(&file.groups[at]));
            if !condition.holds(before) {
                return Err(StoreError::Precondition { current: before }.into());
            }
            let old = file.clone();
            edit(&mut file.groups);
            // What is not changed keeps its comments.
            let text = match &current {
                Some(current) if old == file => current.text.clone(),
                _ => file.to_yaml().into_bytes(),
            };
            let wanted = match &current {
                Some(current) => Wanted::Version(vec![current.version]),
                None => Wanted::Absent,
            };
            let others = self.others(&asked.tenant, name)?;
            match self.write(asked, name, &text, file, &wanted, Action::Put, others) {
                Err(Failure::Changed(_)) => {}
                made => return made,
            }
        }
        Err(StoreError::Contended.into())
    }

    /// How it goes with each group: what was stored, who has loaded it, and who refuses it why.
    fn status(&self, asked: &Asked) -> Result<Response, Failure> {
        let files = self.files(&asked.tenant)?;
        if files.is_empty() {
            return Err(absent(format!("tenant {:?} has no rules", asked.tenant)));
        }
        let reports = self.reports.of(&asked.tenant);
        let mut listed = Vec::new();
        for (name, kept) in &files {
            let place = Place::new(&*asked.tenant, &**name);
            let stored = self.shared.store.history(&place)?.into_iter().next();
            let groups = kept.file.iter().flat_map(|file| &file.groups).map(|group| {
                let of_group = reports
                    .iter()
                    .filter(|(_, report)| *report.file == **name && report.group == group.name);
                let rulers = of_group.map(|(sink, report)| {
                    json!({
                        "sink": sink,
                        "ruler": report.ruler,
                        "state": report.state,
                        "since": report.since,
                        "last_evaluation": report.last_evaluation,
                        "error": report.error,
                    })
                });
                json!({ "group": group.name, "rulers": rulers.collect::<Vec<_>>() })
            });
            listed.push(json!({
                "file": name,
                "version": kept.text.version.to_string(),
                "damaged": kept.file.is_none(),
                "stored": stored.as_ref().map(entry_to_json),
                "groups": groups.collect::<Vec<_>>(),
            }));
        }
        let refused = self.out.refused(&asked.tenant);
        let body = json!({ "tenant": asked.tenant, "files": listed, "refused": refused });
        Ok(reply::json(StatusCode::OK, &body))
    }

    /// Reads what was sent as a file.
    pub(super) fn parse(&self, body: &[u8]) -> Result<(RuleFile, Vec<Warning>), Failure> {
        let parsed = RuleFile::parse(body, &self.shared.checks()).map_err(Failure::Problems)?;
        if !parsed.has_groups {
            return Err(invalid(
                "body has no `groups`: write `groups: []` to have none, or use DELETE",
            ));
        }
        // Nothing that was sent may be lost without a word.
        let ignored = |warning: &Warning| warning.lint == Lint::Ignored;
        let (ignored, warnings): (Vec<_>, Vec<_>) = parsed.warnings.into_iter().partition(ignored);
        match ignored.is_empty() {
            true => Ok((parsed.file, warnings)),
            false => {
                let problems = ignored.into_iter().map(|warning| warning.problem);
                Err(Failure::Problems(problems.collect()))
            }
        }
    }

    /// Reads what was sent as one group.
    pub(super) fn parse_group(&self, body: &[u8]) -> Result<(Group, Vec<Warning>), Failure> {
        let Ok(text) = std::str::from_utf8(body) else {
            return Err(invalid("body is not UTF-8"));
        };
        let placed = |problem: Problem| Problem {
            line: problem.line.saturating_sub(1).max(1),
            column: problem.column.saturating_sub(4).max(1),
            key: problem
                .key
                .trim_start_matches("groups[0]")
                .trim_start_matches('.')
                .to_owned(),
            ..problem
        };
        let (file, warnings) = match self.parse(document::wrap_group(text).as_bytes()) {
            Err(Failure::Problems(problems)) => {
                let problems = problems.into_iter().map(placed);
                return Err(Failure::Problems(problems.collect()));
            }
            parsed => parsed?,
        };
        let warnings = warnings.into_iter().map(|warning| Warning {
            problem: placed(warning.problem),
            ..warning
        });
        let mut groups = file.groups.into_iter();
        match (groups.next(), groups.next()) {
            (Some(group), None) => Ok((group, warnings.collect())),
            _ => Err(invalid("body is not one group")),
        }
    }

    /// The files of a tenant but for one.
    fn others(&self, tenant: &str, name: &str) -> Result<Files, Failure> {
        let mut files = self.files(tenant)?;
        files.remove(name);
        Ok(files)
    }

    /// Writes a file, once its tenant's bounds and the transforms behind allow it.
    #[expect(clippy::too_many_arguments, reason = "each of them is of another kind")]
    pub(super) fn write(
        &self,
        asked: &Asked,
        name: &str,
        text: &[u8],
        file: RuleFile,
        wanted: &Wanted,
        action: Action,
        others: Files,
    ) -> Result<Made, Failure> {
        self.check_bounds(text, &file, &others)?;
        let sound = others
            .into_iter()
            .filter_map(|(name, kept)| Some((name, kept.file?)));
        let files = sound
            .chain([(name.to_owned(), file)])
            .map(|(name, file)| (Arc::from(name), Arc::new(StoredFile::new(file))));
        let rules = Arc::new(TenantRules::new(files));
        self.out.check(&Tenant::from(&*asked.tenant), &rules)?;
        let place = Place::new(&*asked.tenant, name);
        let (version, changed) = if asked.parameters.dry_run {
            let current = self.shared.store.get(&place)?.map(|text| text.version);
            if !wanted.holds(current) {
                return Err(StoreError::Precondition { current }.into());
            }
            let version = Version::of(text);
            (version, current != Some(version))
        } else {
            let made = self
                .shared
                .store
                .put(&place, text, wanted, change(asked, action))?;
            self.shared.touch(&asked.tenant);
            made
        };
        Ok(Made {
            version,
            changed,
            warnings: Vec::new(),
        })
    }

    fn check_bounds(&self, text: &[u8], file: &RuleFile, others: &Files) -> Result<(), Failure> {
        let config = &self.shared.config;
        let count = |of: fn(&RuleFile) -> usize| {
            let others = others.values().filter_map(|kept| kept.file.as_ref());
            others.map(of).sum::<usize>() + of(file)
        };
        let bytes = others
            .values()
            .map(|kept| kept.text.text.len())
            .sum::<usize>()
            + text.len();
        for (key, what, count, most) in [
            (
                "max_files_per_tenant",
                "files",
                others.len() + 1,
                config.max_files_per_tenant,
            ),
            (
                "max_groups_per_tenant",
                "groups",
                count(|file| file.groups.len()),
                config.max_groups_per_tenant,
            ),
            (
                "max_rules_per_tenant",
                "rules",
                count(RuleFile::rules),
                config.max_rules_per_tenant,
            ),
            (
                "max_bytes_per_tenant",
                "bytes",
                bytes,
                config.max_bytes_per_tenant.bytes(),
            ),
        ] {
            if count > most {
                let reason = format!("the tenant would have {count} {what}: {key} is {most}");
                return Err(Rejection::new(RejectionKind::TooLarge, reason).into());
            }
        }
        Ok(())
    }

    /// The text of a file, which has to be there.
    fn text(&self, place: &Place) -> Result<Text, Failure> {
        let text = self.shared.store.get(place)?;
        text.ok_or_else(|| absent(format!("there is no file {:?}", place.file)))
    }

    fn parse_stored(&self, place: &Place, text: &Text) -> Result<RuleFile, Failure> {
        let parsed = RuleFile::parse(&text.text, &self.shared.checks());
        parsed
            .map(|parsed| parsed.file)
            .map_err(|_| damaged(&place.file))
    }

    fn version_now(&self, tenant: &str) -> Result<Option<Version>, Failure> {
        let files = self.files(tenant)?;
        Ok((!files.is_empty()).then(|| version_of(&files)))
    }
}

/// What the head of a request asks for, and its body with the length that it announces.
fn head(endpoint: Endpoint, request: Request) -> Result<(Asked, Body, Option<u64>), Failure> {
    let parameters = Parameters::of(request.uri.query())?;
    let param = |name| request.param(name).map(str::to_owned);
    let tenant = match endpoint {
        Endpoint::All | Endpoint::Backend | Endpoint::OpenApi => {
            param("tenant").unwrap_or_default()
        }
        // Whatever the request calls it: rules are kept by the tenant's id.
        _ if !request.caller.tenants().is_empty() => {
            let own = request.caller.tenant().ok_or_else(|| {
                let reason = "you are of several tenants: name the one whose rules are meant";
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
    let asked = Asked {
        tenant,
        file: param("file"),
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

/// The files of a tenant that hold rules, all of them.
pub(super) fn sound(files: &Files) -> Result<Vec<(&str, &RuleFile)>, Failure> {
    let sound = files.iter().map(|(name, kept)| {
        let file = kept.file.as_ref().ok_or_else(|| damaged(name))?;
        Ok((&**name, file))
    });
    sound.collect()
}

fn damaged(name: &str) -> Failure {
    let reason = format!("the file {name:?} is damaged: replace or delete it");
    Rejection::new(RejectionKind::Internal, reason).into()
}

/// The version of all files of a tenant.
fn version_of(files: &Files) -> Version {
    if let (Some(main), 1) = (files.get(MAIN), files.len()) {
        return main.text.version;
    }
    let parts = files
        .iter()
        .flat_map(|(name, kept)| [name.as_bytes(), &kept.text.version.as_bytes()[..]]);
    Version::of_parts(parts)
}

pub(super) fn group_version(group: &Group) -> Version {
    Version::of(document::group_to_yaml(group).as_bytes())
}

pub(super) fn position(groups: &[Group], name: &str) -> Option<usize> {
    groups.iter().position(|group| group.name == name)
}

pub(super) fn find<'f>(file: &'f RuleFile, asked: &Asked) -> Result<&'f Group, Failure> {
    let name = asked.group.as_deref().unwrap_or_default();
    let at = position(&file.groups, name);
    let at = at.ok_or_else(|| absent(format!("there is no group {name:?} in the file")))?;
    Ok(&file.groups[at])
}

pub(super) fn place(asked: &Asked) -> Place {
    Place::new(&*asked.tenant, asked.file.as_deref().unwrap_or_default())
}

/// What is stored of a body: itself if it is YAML, so that its comments stay.
fn stored_text(body: &[u8], file: &RuleFile) -> Vec<u8> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(b'{') => file.to_yaml().into_bytes(),
        _ => body.to_vec(),
    }
}

pub(super) fn change(asked: &Asked, action: Action) -> Change<'_> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Change {
        by: &asked.by,
        // Before 1970 there was no API.
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

fn not_modified(version: Version) -> Response {
    reply::tagged(answer::empty(StatusCode::NOT_MODIFIED), version)
}

/// The answer to a change.
fn told(asked: &Asked, made: &Made, version: Version) -> Response {
    let warnings: Vec<_> = made.warnings.iter().map(ToString::to_string).collect();
    let body = json!({
        "status": "success",
        "changed": made.changed,
        "dry_run": asked.parameters.dry_run,
        "version": version.to_string(),
        "warnings": warnings,
    });
    reply::tagged(reply::json(StatusCode::OK, &body), version)
}
