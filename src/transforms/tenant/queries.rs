//! Queries of a tenant: each is narrowed to series with the tenant's label, or refused.
//!
//! Whatever is not known to be narrowed is refused: an endpoint ([`endpoint`]), a parameter, an
//! encoding of parameters ([`form`]), an expression. The tenant's matcher is added to the caller's
//! own matchers. Requests for rules, alerts and metadata cannot be narrowed; their answers are
//! filtered ([`answers`]).

mod answers;
pub(super) mod endpoint;
mod read;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap,
    HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderName, Method, Uri};

use metrifold_base::{BuildError, Problems};
use metrifold_engine::component::{BuildContext, BuildTransform};
use metrifold_engine::planes::queries::{Edit, Plan, Queries, Query, Transform};
use metrifold_http::Body;
use metrifold_http::form::{self, Form};
use metrifold_model::{Origin, Rejection, RejectionKind, Tenant, tenant_name as name};
use metrifold_promql::{
    Expr, ImplicitInfo, Matcher, Options, ParseError, enforce, parse, parse_selector,
};

use super::{Source, TenantConfig, TenantTransform};
use answers::Owner;
use endpoint::{Endpoint, Treatment};

/// Separates the names of several tenants.
const DIVIDER: char = '|';

/// Headers by which servers choose a tenant's store. One that the source forwards goes on only if it
/// names the tenant of the query, and so does one in which the caller names it.
const CHOOSING: [HeaderName; 2] = [
    HeaderName::from_static("x-scope-orgid"),
    HeaderName::from_static("thanos-tenant"),
];

/// Reports problems with the keys of queries; returns whether there are none.
pub(super) fn validate(config: &TenantConfig, problems: &mut Problems) -> bool {
    let mut sound = true;
    for (index, path) in config.allow.iter().enumerate() {
        if !endpoint::is_closed(path) {
            let message = format!("{path:?} is not an endpoint that is closed to tenants");
            let closed = endpoint::closed().collect::<Vec<_>>().join(", ");
            let help = format!("name one of {closed}");
            problems.at(format!("allow[{index}]"), message).help(help);
            sound = false;
        }
    }
    for (index, parameter) in config.parameters.iter().enumerate() {
        if parameter.is_empty() || endpoint::SELECTING.contains(&parameter.as_str()) {
            let message = format!("{parameter:?} cannot be passed on unchecked");
            let help = "remove the entry: parameters that select series are always restricted to the tenant";
            problems
                .at(format!("parameters[{index}]"), message)
                .help(help);
            sound = false;
        }
    }
    for (key, size) in [
        ("max_body_bytes", config.max_body_bytes),
        ("max_answer_bytes", config.max_answer_bytes),
    ] {
        if size.bytes() == 0 {
            problems.at(key, "must be larger than 0");
            sound = false;
        }
    }
    sound
}

impl BuildTransform<Queries> for TenantConfig {
    fn validate_for_plane(&self, problems: &mut Problems) {
        self.require_label("queries", problems);
    }

    fn build(&self, _cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        Ok(Arc::new(self.make_queries()?))
    }
}

impl TenantConfig {
    fn make_queries(&self) -> Result<TenantQueries, BuildError> {
        let label = self.restricting("queries");
        let label = label.map_err(|reason| BuildError::new("label", reason))?;
        Ok(TenantQueries {
            tenant: self.make()?,
            label: label.to_owned(),
            max_tenants: self.max_tenants_per_query.get(),
            allow: self.allow.clone(),
            parameters: self.parameters.clone(),
            max_body: self.max_body_bytes.bytes(),
            max_answer: self.max_answer_bytes.bytes(),
            promql: crate::promql::options(),
        })
    }
}

#[derive(Debug)]
struct TenantQueries {
    tenant: TenantTransform,
    label: String,
    max_tenants: usize,
    allow: Vec<String>,
    parameters: Vec<String>,
    max_body: usize,
    max_answer: usize,
    promql: Options,
}

impl Transform for TenantQueries {
    fn reads_body(&self, _: &Query) -> Option<usize> {
        Some(self.max_body)
    }

    fn apply(&self, query: &mut Query) -> Result<Plan, Rejection> {
        let url = self.take_naming(query)?;
        let tenant = self.whose(&query.origin, &url)?;
        let path = query.uri.path();
        let endpoint = Endpoint::of(path).map_err(Rejection::invalid)?;
        let (needed, what) = match endpoint.treatment {
            Treatment::Closed => (path, "returns data of all tenants"),
            Treatment::Ui => (endpoint::UI, "belongs to the user interface"),
            _ => ("", ""),
        };
        if !needed.is_empty() && !self.allow.iter().any(|allowed| allowed == needed) {
            let reason = format!(
                "{path} {what}: it is closed unless `allow` of the tenant transform has {needed:?}"
            );
            return Err(Rejection::new(RejectionKind::Forbidden, reason));
        }
        let named = self.tenant.sources.iter().filter_map(Source::header);
        for name in CHOOSING.iter().chain(named) {
            if query.headers.get(name).is_some_and(|it| it != &*tenant) {
                query.headers.remove(name);
            }
        }
        query.headers.remove(EXPECT);
        let names: Vec<&str> = tenant.split(DIVIDER).collect();
        let owner = Owner::new(&self.label, &names);
        let edit = match endpoint.treatment {
            Treatment::Read => {
                let sent = whole(query)?;
                let read = read::narrow(&sent, &self.label, &owner.pattern(), self.max_body);
                let read = read.map_err(Rejection::invalid)?;
                query.headers.remove(CONTENT_LENGTH);
                query.body = read.into();
                None
            }
            treatment => {
                let mut sent = Sent::of(query)?;
                self.check_naming(&sent)?;
                let edit = self.narrow(treatment, &endpoint, &mut sent, owner, query)?;
                sent.put(query)?;
                edit
            }
        };
        if edit.is_some() {
            plain(&mut query.headers);
        }
        query.tenant = Some(tenant);
        Ok(Plan { output: 0, edit })
    }
}

impl TenantQueries {
    /// The tenant or tenants of a query.
    fn whose(&self, origin: &Origin, url: &Form) -> Result<Tenant, Rejection> {
        let check = |names: &[u8]| {
            let several = names.split(|byte| *byte == DIVIDER as u8);
            let mut known = Vec::new();
            for name in several {
                let name = name::check(name)?;
                if !known.contains(&name) {
                    known.push(name);
                }
                if known.len() > self.max_tenants {
                    let most = self.max_tenants;
                    return Err(format!("it names more than max_tenants_per_query = {most}"));
                }
            }
            Ok(known.join("|").into())
        };
        let found = self.tenant.look(origin, url, &check)?;
        found.fixed.ok_or_else(|| self.tenant.none("query"))
    }

    /// Removes the parameters by which the caller names the tenant from the URL. Returns the URL's
    /// parameters as they were, if it may name the tenant.
    fn take_naming(&self, query: &mut Query) -> Result<Form, Rejection> {
        let naming = self.tenant.sources.iter().filter_map(Source::parameter);
        let mut naming = naming.peekable();
        if naming.peek().is_none() {
            return Ok(Form::default());
        }
        let given = parsed("query string", query.uri.query().unwrap_or_default())?;
        let mut left = given.clone();
        naming.for_each(|name| left.remove(name));
        query.uri = below(query.uri.path(), &left)?;
        Ok(given)
    }

    /// Refuses a tenant's name in a body: a proxy in front that checks names sees the URL only.
    fn check_naming(&self, sent: &Sent) -> Result<(), Rejection> {
        let mut naming = self.tenant.sources.iter().filter_map(Source::parameter);
        let body = sent.body.iter().flat_map(Form::names);
        let body: Vec<&str> = body.collect();
        match naming.find(|name| body.contains(name)) {
            None => Ok(()),
            Some(name) => Err(Rejection::invalid(format!(
                "parameter {name:?} names the tenant: send it in the url, not in the body"
            ))),
        }
    }

    /// Narrows the parameters, and returns the filter for the answer if there is one.
    fn narrow(
        &self,
        treatment: Treatment,
        endpoint: &Endpoint,
        sent: &mut Sent,
        owner: Owner,
        query: &Query,
    ) -> Result<Option<Edit>, Rejection> {
        if !matches!(
            treatment,
            Treatment::Open | Treatment::Closed | Treatment::Ui
        ) {
            self.check_parameters(endpoint, sent)?;
        }
        let matcher = owner.matcher();
        let edit = |beside, apply| {
            Some(Edit {
                beside,
                max_bytes: self.max_answer,
                apply,
            })
        };
        match treatment {
            Treatment::Expression => {
                self.narrow_each(sent, "query", parse, &matcher)?;
                Ok(None)
            }
            Treatment::Selectors => {
                self.narrow_each(sent, "match[]", parse_selector, &matcher)?;
                Ok(None)
            }
            Treatment::SelectorsOrAll | Treatment::Search => {
                if sent.values("match[]").next().is_none() {
                    sent.add("match[]", &selector(&matcher)?);
                } else {
                    self.narrow_each(sent, "match[]", parse_selector, &matcher)?;
                }
                Ok(None)
            }
            Treatment::Rules => Ok(edit(None, Box::new(move |answer, _| owner.rules(answer)))),
            Treatment::Alerts => Ok(edit(None, Box::new(move |answer, _| owner.alerts(answer)))),
            Treatment::Metadata => {
                let limit = sent.take_limit();
                let mut names = Form::default();
                names.add("match[]", &selector(&matcher)?);
                let beside = beside(query, &format!("/api/v1/label/__name__/values?{names}"))?;
                let apply =
                    move |answer: &[u8], names: &[u8]| answers::metadata(answer, names, limit);
                Ok(edit(Some(beside), Box::new(apply)))
            }
            Treatment::Open | Treatment::Closed | Treatment::Ui | Treatment::Read => Ok(None),
        }
    }

    /// Refuses unknown parameters: some servers select series by parameters that Prometheus does
    /// not have.
    fn check_parameters(&self, endpoint: &Endpoint, sent: &Sent) -> Result<(), Rejection> {
        for name in sent.names() {
            if !endpoint.takes(name) && !self.parameters.iter().any(|known| known == name) {
                let reason = format!(
                    "parameter {name:?} is not known and cannot be restricted to a tenant: remove it"
                );
                return Err(Rejection::invalid(reason));
            }
        }
        Ok(())
    }

    /// Narrows every value of a parameter, in URL and body: servers differ in which one they use.
    fn narrow_each(
        &self,
        sent: &mut Sent,
        name: &str,
        parse: fn(&str, &Options) -> Result<Expr, ParseError>,
        matcher: &Matcher,
    ) -> Result<(), Rejection> {
        let mut any = false;
        for value in sent.values_mut(name) {
            let invalid = |error: &dyn std::fmt::Display| {
                Rejection::invalid(format!("invalid parameter {name:?}: {error}"))
            };
            let mut expr = parse(value, &self.promql).map_err(|error| invalid(&error))?;
            enforce(
                &mut expr,
                std::slice::from_ref(matcher),
                ImplicitInfo::Refuse,
            )
            .map_err(|error| invalid(&error))?;
            *value = expr.to_query();
            any = true;
        }
        match any {
            true => Ok(()),
            false => Err(Rejection::invalid(format!("no {name} parameter provided"))),
        }
    }
}

/// Parameters of a query, from its URL and its body.
struct Sent {
    url: Form,
    /// `None` if the query has no body.
    body: Option<Form>,
}

impl Sent {
    fn of(query: &Query) -> Result<Self, Rejection> {
        let url = parsed("query string", query.uri.query().unwrap_or_default())?;
        let body = whole(query)?;
        if body.is_empty() {
            return Ok(Self { url, body: None });
        }
        if query.method != Method::POST {
            let reason = format!("a {} request has no body: send none", query.method);
            return Err(Rejection::invalid(reason));
        }
        if !form::is_form(&query.headers) {
            let reason = "the body is not a form: send it as application/x-www-form-urlencoded";
            return Err(Rejection::invalid(reason));
        }
        let text = std::str::from_utf8(&body);
        let text = text.map_err(|_| Rejection::invalid("body: it is not UTF-8"))?;
        Ok(Self {
            url,
            body: Some(parsed("body", text)?),
        })
    }

    fn forms(&self) -> impl Iterator<Item = &Form> {
        self.body.iter().chain([&self.url])
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.forms().flat_map(Form::names)
    }

    /// All values of a parameter, in the order of Go's `ParseForm`.
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.forms().flat_map(move |form| form.values(name))
    }

    fn values_mut<'a>(&'a mut self, name: &'a str) -> impl Iterator<Item = &'a mut String> {
        let forms = self.body.iter_mut().chain([&mut self.url]);
        forms.flat_map(move |form| form.values_mut(name))
    }

    fn add(&mut self, name: &str, value: &str) {
        self.url.add(name, value);
    }

    /// Removes the parameter `limit`, which would count metadata of other tenants, too. An invalid
    /// value stays, for the server to refuse.
    fn take_limit(&mut self) -> Option<usize> {
        let given = self.values("limit").next()?.parse::<i64>().ok()?;
        for form in self.body.iter_mut().chain([&mut self.url]) {
            form.remove("limit");
        }
        usize::try_from(given).ok()
    }

    /// Writes the parameters back, encoded anew.
    fn put(self, query: &mut Query) -> Result<(), Rejection> {
        query.uri = below(query.uri.path(), &self.url)?;
        query.headers.remove(CONTENT_LENGTH);
        query.body = match self.body {
            None => {
                query.headers.remove(CONTENT_TYPE);
                Body::empty()
            }
            Some(form) => {
                let form_type = HeaderValue::from_static(form::TYPE);
                query.headers.insert(CONTENT_TYPE, form_type);
                form.to_string().into()
            }
        };
        Ok(())
    }
}

/// The body of a query; the stage has read it whole.
fn whole(query: &Query) -> Result<Bytes, Rejection> {
    let body = query.body.whole().cloned();
    body.ok_or_else(|| Rejection::new(RejectionKind::Internal, "the body has not been read"))
}

fn parsed(place: &str, text: &str) -> Result<Form, Rejection> {
    Form::parse(text).map_err(|reason| Rejection::invalid(format!("{place}: {reason}")))
}

/// A path with these parameters.
fn below(path: &str, parameters: &Form) -> Result<Uri, Rejection> {
    match parameters.is_empty() {
        true => target(path),
        false => target(&format!("{path}?{parameters}")),
    }
}

fn target(text: &str) -> Result<Uri, Rejection> {
    text.parse()
        .map_err(|error| Rejection::invalid(format!("target is not valid: {error}")))
}

/// A selector with this matcher only.
fn selector(matcher: &Matcher) -> Result<String, Rejection> {
    let everything = parse_selector("{}", &Options::default());
    let internal =
        |error: &dyn std::fmt::Display| Rejection::new(RejectionKind::Internal, error.to_string());
    let mut expr = everything.map_err(|error| internal(&error))?;
    enforce(
        &mut expr,
        std::slice::from_ref(matcher),
        ImplicitInfo::Refuse,
    )
    .map_err(|error| internal(&error))?;
    Ok(expr.to_query())
}

/// An additional query for the same caller.
fn beside(query: &Query, text: &str) -> Result<Query, Rejection> {
    let mut headers = query.headers.clone();
    plain(&mut headers);
    for name in [CONTENT_LENGTH, CONTENT_TYPE] {
        headers.remove(name);
    }
    Ok(Query {
        method: Method::GET,
        uri: target(text)?,
        headers,
        cookies: query.cookies.clone(),
        // It shares the turn of the query that it belongs to.
        turns: None,
        asked_for: None,
        body: Body::empty(),
        origin: query.origin.clone(),
        tenant: query.tenant.clone(),
        deadline: query.deadline,
    })
}

/// Requests a complete, uncompressed answer.
fn plain(headers: &mut HeaderMap) {
    for name in [
        CONTENT_ENCODING,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_UNMODIFIED_SINCE,
        RANGE,
    ] {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}
