//! Rules over HTTP: one request per tenant, or one document with all rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};

use metrifold_base::BuildError;
use metrifold_engine::planes::rules::RuleSet;
use metrifold_model::Tenant;
use metrifold_rules::{Checks, RuleFile, StoredFile, TenantRules};

use super::{Looked, MAX_TOLD, RulesPollConfig, TENANT};
use crate::rules::{Asker, Requests};

/// File name under which an answer is published.
const FILE: &str = "rules";

/// A rules backend, or an Observatorium API.
pub(super) struct Backend {
    requester: Requester,
    requests: Requests<Result<Answer, String>>,
    config: RulesPollConfig,
    /// The URLs, by tenant.
    asked: BTreeMap<String, Asked>,
}

/// Sends the requests. Clones share the connections.
#[derive(Clone)]
struct Requester {
    asker: Asker,
    max_answer: usize,
}

/// A URL with its last answer.
struct Asked {
    tenant: Tenant,
    uri: Uri,
    /// Conditional headers (`If-None-Match`, `If-Modified-Since`) made from the last answer.
    validators: HeaderMap,
    /// The last valid answer; `Some(None)` means that the tenant has no rules.
    good: Option<Option<Arc<TenantRules>>>,
    /// Why the answer of these validators is invalid, if it is; `good` is then an older one.
    problem: Option<String>,
}

/// Answer of a URL.
enum Answer {
    Same,
    Nothing,
    Text(Bytes, HeaderMap),
}

impl Backend {
    pub(super) fn build(config: &RulesPollConfig, endpoint: &str) -> Result<Self, BuildError> {
        let asked = |tenant: &str| -> Result<Asked, BuildError> {
            let uri = endpoint.replace(TENANT, tenant).parse();
            Ok(Asked {
                tenant: tenant.into(),
                uri: uri.map_err(|error: http::uri::InvalidUri| {
                    BuildError::new("endpoint", error.to_string())
                })?,
                validators: HeaderMap::new(),
                good: None,
                problem: None,
            })
        };
        let asked = match config.tenants.is_empty() {
            true => BTreeMap::from([(String::new(), asked("")?)]),
            false => {
                let all = config.tenants.iter();
                let all = all.map(|tenant| Ok((tenant.clone(), asked(tenant)?)));
                all.collect::<Result<_, BuildError>>()?
            }
        };
        Ok(Self {
            requester: Requester {
                asker: Asker {
                    client: config.client.client(config.max_requests)?,
                    credentials: config.client.credentials()?,
                    timeout: config.timeout.0,
                },
                max_answer: config.max_answer_bytes.bytes(),
            },
            requests: Requests::default(),
            config: config.clone(),
            asked,
        })
    }

    /// Requests all URLs, at most `max_requests` at once.
    pub(super) async fn look(&mut self) -> Looked {
        let ask = |tenant: &str| {
            let asked = &self.asked[tenant];
            let (uri, validators) = (asked.uri.clone(), asked.validators.clone());
            self.requester
                .clone()
                .ask(asked.tenant.clone(), uri, validators)
        };
        let tenants = self.asked.keys().cloned();
        let sent = self.requests.send(self.config.max_requests, tenants, ask);
        let mut answers = sent.await;
        let expr = self.config.checker();
        let checks = self.config.checks(&expr);
        let mut failed = BTreeMap::new();
        for (name, asked) in &mut self.asked {
            match answers.remove(name) {
                Some(Ok(answer)) => asked.take(answer, &checks),
                Some(Err(reason)) => drop(failed.insert(name.clone(), reason)),
                None => drop(failed.insert(name.clone(), "server does not answer".to_owned())),
            }
        }
        let told = self.asked.iter().flat_map(|(name, asked)| {
            let reasons = failed.get(name).into_iter().chain(&asked.problem);
            reasons.map(|reason| named(asked, reason))
        });
        let problems = told.collect();
        let is_read = |asked: &Asked| asked.good.is_some() || asked.problem.is_some();
        let is_complete = self.asked.values().all(is_read);
        let is_known = self.asked.values().any(|asked| asked.good.is_some());
        let set = is_known.then(|| {
            let rules = self
                .asked
                .values()
                .filter_map(|asked| Some((asked.tenant.clone(), asked.good.clone()??)));
            rules.collect::<RuleSet>()
        });
        Looked {
            set,
            is_complete,
            problems,
        }
    }
}

impl Asked {
    fn take(&mut self, answer: Answer, checks: &Checks<'_>) {
        match answer {
            Answer::Same => {}
            Answer::Nothing => {
                self.good = Some(None);
                self.problem = None;
                self.validators.clear();
            }
            Answer::Text(text, validators) => {
                self.validators = validators;
                match RuleFile::parse(&text, checks) {
                    // An answer without content is hardly meant to remove all rules.
                    Ok(parsed) if !parsed.names_groups => {
                        self.problem = Some("the answer has no `groups`".to_owned());
                    }
                    Ok(parsed) => {
                        let file = Arc::new(StoredFile::new(parsed.file));
                        let rules = TenantRules::new([(Arc::from(FILE), file)]);
                        self.good = Some(Some(Arc::new(rules)));
                        self.problem = None;
                    }
                    Err(found) => {
                        let told = found.iter().take(MAX_TOLD).map(ToString::to_string);
                        self.problem = Some(told.collect::<Vec<_>>().join("; "));
                    }
                }
            }
        }
    }
}

impl Requester {
    async fn ask(self, tenant: Tenant, uri: Uri, validators: HeaderMap) -> Result<Answer, String> {
        let is_conditional = !validators.is_empty();
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri;
        *request.headers_mut() = validators;
        let accepted = HeaderValue::from_static("application/yaml, */*;q=0.1");
        request.headers_mut().insert(ACCEPT, accepted);
        let answer = self.asker.ask(request, self.max_answer).await?;
        let (head, text) = answer.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if is_conditional => return Ok(Answer::Same),
            // A backend answers 404 for a tenant without rules. For a whole document, 404 means that
            // the path is wrong.
            StatusCode::NOT_FOUND if !tenant.is_empty() => return Ok(Answer::Nothing),
            status => return Err(format!("server answered {status}")),
        }
        let text = text.map_err(|error| format!("the answer cannot be read: {error}"))?;
        let mut validators = HeaderMap::new();
        for (has, asks) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
            if let Some(value) = head.headers.get(has) {
                validators.insert(asks, value.clone());
            }
        }
        Ok(Answer::Text(text, validators))
    }
}

fn named(asked: &Asked, reason: &str) -> String {
    match &*asked.tenant {
        "" => reason.to_owned(),
        tenant => format!("tenant {tenant:?}: {reason}"),
    }
}
