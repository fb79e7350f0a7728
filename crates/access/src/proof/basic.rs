//! Users and passwords, in the format of Prometheus' `web.config.file`.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{AcquireError, Semaphore};
use tokio::time::{Instant, timeout};

use metrifold_base::read_text;
use metrifold_model::Proof;

use super::{Proven, Verdict};
use crate::cache::Cache;
use crate::digest;
use crate::shown::{Credentials, Shown};

/// Maximum size of the file, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Maximum number of concurrent password checks in the whole process, as bcrypt occupies a core. Those
/// of one file wait for each other first, so that guesses at one tenant delay another's callers by
/// one check at most.
const AT_ONCE: usize = 2;

/// Maximum time that a caller waits for its password check to start.
const TURN: Duration = Duration::from_secs(5);

/// Time for which a correct and a wrong password are cached.
const RIGHT: Duration = Duration::from_secs(600);
const WRONG: Duration = Duration::from_secs(10);

/// Maximum number of cached verdicts per generation of the cache.
const CACHED: usize = 10_000;

/// Maximum bcrypt cost: a hash of the next higher one takes more than a second.
const MAX_COST: u32 = 14;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Key of the choice of a hash for an unknown user.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Users with the hashes of their passwords.
pub(crate) struct Users {
    users: BTreeMap<Arc<str>, String>,
    known: Cache<bool>,
    turns: Semaphore,
}

#[derive(Deserialize)]
struct WebConfig {
    #[serde(default)]
    basic_auth_users: BTreeMap<String, String>,
}

impl Users {
    /// Reads a `web.config.file`.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = read_text(file, MAX_FILE);
        let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The parser's message would quote the file.
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
                        "the hash of user {name:?} has the bcrypt cost {cost}: the maximum is {MAX_COST}"
                    ));
                }
                Err(_) => {
                    return Err(format!(
                        "the password of user {name:?} is not hashed by bcrypt: make a hash with `htpasswd -nBC 10 \"\"`"
                    ));
                }
            };
        }
        Ok(Self::of(users))
    }

    /// A method that accepts nobody, and whose checks take as long as those of this one.
    pub(crate) fn decoy(&self) -> Self {
        // No caller has such a name, as a colon ends the name of a user. The hashes stay in their order.
        let hashes = self.users.values().enumerate();
        let nobody = hashes.map(|(at, hash)| (format!(":{at:08}").into(), hash.clone()));
        Self::of(nobody.collect())
    }

    /// The hash that a user's password is checked against, and whether the user exists. An unknown user
    /// has always the same hash of another one, so that the cost of a check, which may differ between users, reveals no
    /// names.
    fn hash(&self, user: &str) -> (&str, bool) {
        if let Some(hash) = self.users.get(user) {
            return (hash, true);
        }
        let at = KEY.hash_one(user) % self.users.len().max(1) as u64;
        let mut hashes = self.users.values();
        let other = usize::try_from(at).ok().and_then(|at| hashes.nth(at));
        (other.map_or("", String::as_str), false)
    }

    fn of(users: BTreeMap<Arc<str>, String>) -> Self {
        Self {
            users,
            known: Cache::new(CACHED),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Lets all further checks wait for their turn in vain.
    #[cfg(test)]
    pub(crate) fn is_busy(&self) {
        self.turns.forget_permits(AT_ONCE);
    }

    /// Whether the method has checked this password.
    #[cfg(test)]
    pub(crate) fn has_checked(&self, user: &str, password: &str) -> bool {
        let key = digest::of([user.as_bytes(), password.as_bytes()]);
        self.known.get(&key).is_some()
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
                let turns = async { Ok((self.turns.acquire().await?, TURNS.acquire().await?)) };
                let turns: Result<Result<_, AcquireError>, _> = timeout(TURN, turns).await;
                let Ok(Ok((_own, turn))) = turns else {
                    return Verdict::Unknown("too many password checks are pending".into());
                };
                let (hash, exists) = self.hash(user);
                let hash = hash.to_owned();
                let password = password.clone();
                let check = move || {
                    let _turn = turn;
                    bcrypt::verify(password, &hash).unwrap_or(false)
                };
                let Ok(right) = tokio::task::spawn_blocking(check).await else {
                    return Verdict::Unknown("the password check failed".into());
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

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Uri};
    use metrifold_http::access::Head;

    use super::*;

    fn users(name: &str) -> Users {
        let hash = bcrypt::hash("right", 4).unwrap();
        Users::parse(&format!("basic_auth_users:\n  {name}: {hash}\n")).unwrap()
    }

    #[test]
    fn an_unknown_user_costs_what_some_known_one_costs_and_always_the_same() {
        let [cheap, dear] = [4, 6].map(|cost| bcrypt::hash("right", cost).unwrap());
        let text = format!("basic_auth_users:\n  anna: {cheap}\n  bert: {dear}\n");
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.hash("bert"), (&*dear, true));
        let decoy = users.decoy();
        let mut dears = 0;
        for number in 0..64 {
            let name = format!("user-{number}");
            let (hash, exists) = users.hash(&name);
            assert!(!exists);
            assert_eq!(users.hash(&name).0, hash);
            assert_eq!(
                decoy.hash(&name).0,
                hash,
                "an unknown tenant costs the same"
            );
            dears += usize::from(hash == dear);
        }
        assert!((1..64).contains(&dears), "{dears}");
    }

    async fn prove(users: &Users, user: &str, password: &str) -> bool {
        let (headers, uri) = (HeaderMap::new(), Uri::from_static("/"));
        let head = Head {
            method: &Method::GET,
            uri: &uri,
            headers: &headers,
            params: &[],
            peer: ([127, 0, 0, 1], 1).into(),
            certificate: None,
            presented: &[],
        };
        let shown = Shown {
            head,
            credentials: Credentials::Basic(user.to_owned(), password.to_owned()),
        };
        matches!(users.prove(&shown).await, Verdict::Proven(_))
    }

    #[tokio::test]
    async fn guesses_at_one_tenant_do_not_hold_up_another_tenants_callers() {
        const GUESSES: usize = 200;
        let (acme, zeta) = (Arc::new(users("acme")), users("zeta"));
        let mut guesses = tokio::task::JoinSet::new();
        for guess in 0..GUESSES {
            let acme = Arc::clone(&acme);
            guesses.spawn(async move { prove(&acme, "acme", &guess.to_string()).await });
        }
        while acme.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(prove(&zeta, "zeta", "right").await);
        let mut done = 0;
        while let Some(guessed) = guesses.try_join_next() {
            assert!(!guessed.unwrap());
            done += 1;
        }
        assert!(done < GUESSES / 2, "{done} guesses went first");
        while let Some(guessed) = guesses.join_next().await {
            assert!(!guessed.unwrap());
        }
    }
}
