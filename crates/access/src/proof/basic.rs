//! Users and passwords, in the format of Prometheus' `web.config.file`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use metrifold_base::read_text;
use metrifold_model::Proof;

use super::{Proven, Verdict};
use crate::cache::Cache;
use crate::digest;
use crate::shown::{Credentials, Shown};

/// The largest file.
const MAX_FILE: u64 = 16 << 20;

/// How many passwords are checked at once, in the whole process: each takes a processor for as long
/// as its cost says.
const AT_ONCE: usize = 2;

/// The longest that a caller waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// How long a password is known to be right, and how long to be wrong.
const RIGHT: Duration = Duration::from_secs(600);
const WRONG: Duration = Duration::from_secs(10);

/// How many answers are kept.
const CACHED: usize = 10_000;

/// The most expensive hash that is taken: the next would take more than a second.
const MAX_COST: u32 = 14;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Users with the hashes of their passwords.
pub(crate) struct Users {
    users: BTreeMap<Arc<str>, String>,
    known: Cache<bool>,
}

#[derive(Deserialize)]
struct WebConfig {
    #[serde(default)]
    basic_auth_users: BTreeMap<String, String>,
}

impl Users {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = read_text(file, MAX_FILE);
        let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The parser's words would quote the file.
        let config: WebConfig =
            serde_saphyr::from_str(text).map_err(|_| "is not a web.config.file in YAML")?;
        if config.basic_auth_users.is_empty() {
            return Err("has no basic_auth_users".to_owned());
        }
        let mut users = BTreeMap::new();
        for (name, hash) in config.basic_auth_users {
            let parts: Result<bcrypt::HashParts, _> = hash.parse();
            let cost = parts.map(|parts| parts.get_cost());
            match cost {
                Ok(cost) if cost <= MAX_COST => users.insert(name.into(), hash),
                Ok(cost) => {
                    return Err(format!(
                        "the hash of user {name:?} has the cost {cost}: the most is {MAX_COST}"
                    ));
                }
                Err(_) => {
                    return Err(format!(
                        "the password of user {name:?} is not hashed by bcrypt: make a hash with `htpasswd -nBC 10 \"\"`"
                    ));
                }
            };
        }
        Ok(Self {
            users,
            known: Cache::new(CACHED),
        })
    }

    /// The names of all users.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.users.keys()
    }

    pub(crate) async fn prove(&self, shown: &Shown<'_>) -> Verdict {
        let Credentials::Basic(user, password) = &shown.credentials else {
            return Verdict::Absent;
        };
        let key = digest::of([user.as_bytes(), password.as_bytes()]);
        let right = match self.known.get(&key) {
            Some(right) => right,
            None => {
                let Ok(Ok(turn)) = timeout(TURN, TURNS.acquire()).await else {
                    return Verdict::Unknown("too many passwords wait to be checked".into());
                };
                // A user that there is not takes as long as one that there is.
                let own = self.users.get(user.as_str());
                let hash = own.or(self.users.values().next()).cloned();
                let (hash, exists) = (hash.unwrap_or_default(), own.is_some());
                let password = password.clone();
                let check = move || {
                    let _turn = turn;
                    bcrypt::verify(password, &hash).unwrap_or(false)
                };
                let Ok(right) = tokio::task::spawn_blocking(check).await else {
                    return Verdict::Unknown("the password was not checked".into());
                };
                let right = right && exists;
                let time = if right { RIGHT } else { WRONG };
                self.known.put(key, right, Instant::now() + time);
                right
            }
        };
        if !right {
            return Verdict::wrong("user or password is wrong");
        }
        Verdict::Proven(Arc::new(Proven {
            subject: Some(user.as_str().into()),
            groups: Arc::default(),
            proof: Proof::Password,
            certificate: None,
        }))
    }
}
