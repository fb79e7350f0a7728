//! Rules over HTTP: of each tenant by itself, or all in one document.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tokio::time::Instant;

use metrifold_base::BuildError;
use metrifold_engine::planes::rules::RuleSet;
use metrifold_http::{Client, Credentials, body};
use metrifold_model::Tenant;
use metrifold_rules::{RuleFile, StoredFile, TenantRules};

use super::{Looked, MAX_TOLD, RulesPollConfig, TENANT};

/// The name of the file that an answer is.
const FILE: &str = "rules";

/// A rules backend, or an Observatorium API.
pub(super) struct Backend {
    client: Client,
    credentials: Credentials,
    config: RulesPollConfig,
    asked: Vec<Asked>,
    timeout: Duration,
}

/// One URL, and what it answered last.
struct Asked {
    tenant: Tenant,
    uri: Uri,
    /// What tells the server which answer was taken last.
    validators: HeaderMap,
    /// The newest answer that could be used; none within says that there are no rules.
    good: Option<Option<Arc<TenantRules>>>,
    /// What is wrong with a newer answer that has these validators.
    problem: Option<String>,
}

/// What a URL answered.
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
            true => vec![asked("")?],
            false => {
                let all = config.tenants.iter().map(|tenant| asked(tenant));
                all.collect::<Result<_, BuildError>>()?
            }
        };
        Ok(Self {
            client: config.client.client(1)?,
            credentials: config.client.credentials()?,
            timeout: config.timeout.0,
            config: config.clone(),
            asked,
        })
    }

    /// Asks for everything, one after the other.
    pub(super) async fn look(&mut self) -> Looked {
        let mut problems = Vec::new();
        for at in 0..self.asked.len() {
            let answer = self.ask(at).await;
            let asked = &mut self.asked[at];
            match answer {
                Ok(Answer::Same) => {}
                Ok(Answer::Nothing) => {
                    asked.good = Some(None);
                    asked.problem = None;
                    asked.validators.clear();
                }
                Ok(Answer::Text(text, validators)) => {
                    asked.validators = validators;
                    match RuleFile::parse(&text, &self.config.checks()) {
                        Ok(parsed) => {
                            let file = Arc::new(StoredFile::new(parsed.file));
                            let rules = TenantRules::new([(Arc::from(FILE), file)]);
                            asked.good = Some(Some(Arc::new(rules)));
                            asked.problem = None;
                        }
                        Err(found) => {
                            let told = found.iter().take(MAX_TOLD).map(ToString::to_string);
                            asked.problem = Some(told.collect::<Vec<_>>().join("; "));
                        }
                    }
                }
                Err(reason) => problems.push(named(asked, &reason)),
            }
            if let Some(reason) = &asked.problem {
                problems.push(named(asked, reason));
            }
        }
        let known = self.asked.iter().all(|asked| asked.good.is_some());
        let set = known.then(|| {
            let rules = self
                .asked
                .iter()
                .filter_map(|asked| Some((asked.tenant.clone(), asked.good.clone()??)));
            rules.collect::<RuleSet>()
        });
        Looked { set, problems }
    }

    async fn ask(&self, at: usize) -> Result<Answer, String> {
        let asked = &self.asked[at];
        let deadline = Instant::now() + self.timeout;
        let mut headers = asked.validators.clone();
        let accepted = HeaderValue::from_static("application/yaml, */*;q=0.1");
        headers.insert(ACCEPT, accepted);
        let credentials = self.credentials.header().await;
        let credentials = credentials.map_err(|error| error.to_string())?;
        if let Some(value) = &credentials {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let sent =
            self.client
                .request(Method::GET, &asked.uri, headers, Bytes::new(), self.timeout);
        let answer = sent.await.map_err(|error| error.to_string())?;
        let (head, answer) = answer.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if !asked.validators.is_empty() => return Ok(Answer::Same),
            // What a backend says of a tenant without rules; of a whole document, that the path is
            // wrong.
            StatusCode::NOT_FOUND if !asked.tenant.is_empty() => return Ok(Answer::Nothing),
            status => {
                let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                if let Some(value) = credentials.filter(|_| refused.contains(&status)) {
                    self.credentials.refused(&value);
                }
                return Err(format!("server answered {status}"));
            }
        }
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let left = deadline.saturating_duration_since(Instant::now());
        let max = self.config.max_answer_bytes.bytes();
        let text = body::read(answer, length, max, left).await;
        let text = text.map_err(|error| format!("its answer cannot be read: {error}"))?;
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
