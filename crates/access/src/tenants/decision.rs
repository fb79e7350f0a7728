//! The decision on a request: authenticates the caller, and authorizes it for tenants.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method as HttpMethod};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use metrifold_http::access::{Head, Permission};
use metrifold_http::{Refusal, is_cross_site};
use metrifold_model::{Caller, Identity, Membership, Proof, Rejection, RejectionKind};

use crate::login::{cross_site, entrance};
use crate::named::named;
use crate::proof::session::Login;
use crate::proof::{Method, Proven, Unknown, Verdict, oidc};
use crate::shown::{Credentials, Shown};

use super::{One, Tenants, Way};

/// Maximum number of tenants of a caller whose request names none.
const MOST_UNNAMED: usize = 1000;

/// Maximum time for the decision on a request: for checking its credentials by all methods, and the
/// permission for all of its tenants.
const DEADLINE: Duration = Duration::from_secs(15);

/// Maximum number of policy agents that are asked concurrently for one request.
const AT_ONCE: usize = 8;

impl Tenants {
    /// Authenticates the caller of a request, and checks its permission.
    pub(crate) async fn decide(
        &self,
        shown: &Shown<'_>,
        permission: Permission,
    ) -> Result<Caller, Refusal> {
        self.decide_by(Instant::now() + DEADLINE, shown, permission)
            .await
    }

    pub(super) async fn decide_by(
        &self,
        deadline: Instant,
        shown: &Shown<'_>,
        permission: Permission,
    ) -> Result<Caller, Refusal> {
        let names = match permission {
            // Admin requests belong to no tenant, whatever their path contains.
            Permission::Admin => Vec::new(),
            _ => match named(&shown.head, &self.parameter, &self.headers) {
                Ok(names) => names,
                Err(reason) => return Err(self.misnamed(deadline, shown, reason).await),
            },
        };
        if names.is_empty() {
            return self.of_all(deadline, shown, permission).await;
        }
        let mut members = Vec::with_capacity(names.len());
        let mut browser = Browser::default();
        for name in names {
            let member = self.of_named(deadline, shown, name).await?;
            browser.add(member.1.proof);
            members.push(member);
        }
        let verdicts = self.check(deadline, &members, permission).await;
        let verdicts = verdicts.map_err(|(_, no)| no)?;
        verdicts.into_iter().collect::<Result<(), Rejection>>()?;
        let memberships = members.iter().map(|(one, _)| one.membership.clone());
        let mut memberships: Vec<Membership> = memberships.collect();
        memberships.sort();
        memberships.dedup();
        match members.first() {
            Some((_, proven)) => {
                self.check_origin(shown, &memberships, browser, permission)?;
                caller(shown, memberships, proven, permission)
            }
            None => Err(self.unauthenticated(None)),
        }
    }

    /// Authenticates the caller for a tenant that the request names.
    async fn of_named(
        &self,
        deadline: Instant,
        shown: &Shown<'_>,
        name: &str,
    ) -> Result<Member<'_>, Refusal> {
        if self.aside.contains(name) && !shown.nothing() {
            let reason = "the tenant cannot be used at the moment: see the log of the gateway";
            return Err(Rejection::unavailable(reason).into());
        }
        let one = self.by_name.get(name).map(|&index| &self.tenants[index]);
        let own = one.map_or(&[][..], |one| one.ways.as_slice());
        let mut unknown = None;
        let mut wrong: Vec<(usize, Arc<str>)> = Vec::new();
        for &way in own {
            let method = &self.ways[way].method;
            if matches!(**method, Method::Kubernetes(_)) && self.index.knows_token(shown) {
                continue;
            }
            match in_time(deadline, method.prove(shown)).await {
                Verdict::Proven(proven) => {
                    if let Some(one) = one {
                        return Ok((one, proven));
                    }
                }
                Verdict::Unknown(reason) => unknown = unknown.or(Some(reason)),
                Verdict::Wrong(reason) => {
                    debug!(
                        tenant = name,
                        reason = &*reason,
                        "credentials are not valid"
                    );
                    wrong.push((way, reason));
                }
                Verdict::Absent => {}
            }
        }
        if let Verdict::Unknown(reason) = self.pretend(shown, own).await {
            unknown = unknown.or(Some(reason));
        }
        // Only callers that are authenticated for another tenant may learn whether this one exists.
        let indexed: Vec<usize> = self.index.ways(shown).collect();
        for &way in &indexed {
            let method = &self.ways[way].method;
            if own.contains(&way) || method.is_for_named_only() {
                continue;
            }
            match in_time(deadline, method.prove(shown)).await {
                Verdict::Proven(_) => {
                    let rejection = match one {
                        Some(_) => {
                            let reason =
                                format!("the credentials are not valid for tenant {name:?}");
                            Rejection::new(RejectionKind::Forbidden, reason)
                        }
                        None => {
                            let reason = format!("there is no tenant {name:?}");
                            Rejection::new(RejectionKind::NotFound, reason)
                        }
                    };
                    return Err(rejection.into());
                }
                Verdict::Unknown(reason) => unknown = unknown.or(Some(reason)),
                Verdict::Wrong(reason) => wrong.push((way, reason)),
                Verdict::Absent => {}
            }
        }
        if let Some(reason) = unknown {
            return Err(Rejection::from(reason).into());
        }
        // A reason that depended on the tenant's own methods would reveal that the tenant exists.
        let mut indexed = indexed.iter();
        let wrong = indexed.find_map(|way| {
            let named_only = self.ways[*way].method.is_for_named_only();
            let mut wrong = wrong.iter().filter(|_| !named_only);
            wrong.find(|(other, _)| other == way).map(|(_, it)| &**it)
        });
        Err(self.unauthenticated(self.wrong(shown, wrong)))
    }

    /// Authenticates a caller whose request names no tenant. Returns all of its tenants for which it has
    /// the permission.
    async fn of_all(
        &self,
        deadline: Instant,
        shown: &Shown<'_>,
        permission: Permission,
    ) -> Result<Caller, Refusal> {
        let (accepted, doubts) = self.prove(deadline, shown).await;
        let mut members: Vec<Member<'_>> = Vec::new();
        let mut browser = Browser::default();
        for (way, proven) in &accepted {
            let tenants = way.tenants.as_slice();
            if tenants.len() > MOST_UNNAMED {
                let reason = "the credentials are valid for too many tenants: name tenants in the path or in a header";
                return Err(Rejection::invalid(reason).into());
            }
            let tenants = tenants.iter().map(|&tenant| &self.tenants[tenant]);
            members.extend(tenants.map(|one| (one, Arc::clone(proven))));
            browser.add(proven.proof);
        }
        let verdicts = self.check(deadline, &members, permission).await;
        // What is left would be taken for all of the caller's tenants.
        let verdicts = verdicts.map_err(|(one, no)| {
            let name = &one.membership.name;
            let reason = format!(
                "tenant {name:?}: {}: name other tenants in the path or in a header",
                no.reason
            );
            Rejection::unavailable(reason).with_retry(no.retry)
        })?;
        let allowed = members.iter().zip(verdicts);
        let allowed = allowed.filter_map(|((one, _), verdict)| verdict.is_ok().then_some(one));
        let mut memberships: Vec<Membership> = allowed.map(|it| it.membership.clone()).collect();
        memberships.sort();
        memberships.dedup();
        match accepted.first() {
            Some((_, proven)) if !memberships.is_empty() => {
                self.check_origin(shown, &memberships, browser, permission)?;
                caller(shown, memberships, proven, permission)
            }
            // The method that cannot be checked now may be the one that has the permission.
            Some((_, proven)) if doubts.unknown.is_none() => {
                let (who, permission) = (proven.who(), permission.as_str());
                let reason = format!("{who} has no role with the permission {permission}");
                Err(Rejection::new(RejectionKind::Forbidden, reason).into())
            }
            _ => Err(self.unproven(shown, doubts)),
        }
    }

    /// The answer to a request whose names of tenants are not valid, or contradict each other. Only
    /// authenticated callers learn the reason.
    async fn misnamed(&self, deadline: Instant, shown: &Shown<'_>, reason: Rejection) -> Refusal {
        let (accepted, doubts) = self.prove(deadline, shown).await;
        match accepted.is_empty() {
            true => self.unproven(shown, doubts),
            false => reason.into(),
        }
    }

    /// Checks the credentials of a request that names no tenant by all methods that may accept them.
    /// Returns the methods that do, and the reasons of the others.
    async fn prove(
        &self,
        deadline: Instant,
        shown: &Shown<'_>,
    ) -> (Vec<(&Way, Arc<Proven>)>, Doubts) {
        let mut accepted = Vec::new();
        let mut doubts = Doubts::default();
        let ways: Vec<usize> = self.index.ways(shown).collect();
        for way in &ways {
            let way = &self.ways[*way];
            match in_time(deadline, way.method.prove(shown)).await {
                Verdict::Proven(proven) => accepted.push((way, proven)),
                verdict => doubts.add(verdict),
            }
        }
        if accepted.is_empty() {
            doubts.add(self.pretend(shown, &ways).await);
        }
        (accepted, doubts)
    }

    /// Checks a password against none if none of `ways` has checked it, so that neither the names of
    /// users nor those of tenants show in the time until the answer.
    async fn pretend(&self, shown: &Shown<'_>, ways: &[usize]) -> Verdict {
        let mut ways = ways.iter().map(|way| &*self.ways[*way].method);
        match &self.decoy {
            Some(decoy) if !ways.any(|it| matches!(it, Method::Basic(_))) => {
                decoy.prove(shown).await
            }
            _ => Verdict::Absent,
        }
    }

    /// The answer to a request without a valid name of a tenant, whose caller is not authenticated.
    fn unproven(&self, shown: &Shown<'_>, doubts: Doubts) -> Refusal {
        if let Some(reason) = doubts.unknown {
            return Rejection::from(reason).into();
        }
        // The credentials may be those of a tenant that cannot be used.
        if !self.aside.is_empty() && !shown.nothing() {
            let reason = "the tenant may be one that cannot be used at the moment: see the log of the gateway";
            return Rejection::unavailable(reason).into();
        }
        let wrong = doubts.wrong.as_deref();
        let reason = match shown.credentials {
            Credentials::Basic(..) => Some(
                "user or password is wrong, or several tenants have the user: name one in the path or in a header",
            ),
            Credentials::Bearer(_) if wrong.is_none() && self.index.has_several_servers => Some(
                "the token is not valid here, or that of a service account: name its tenant in the path or in a header",
            ),
            _ => self.wrong(shown, wrong),
        };
        self.unauthenticated(reason)
    }

    /// Checks the permission for each of these tenants. Policy agents are asked concurrently.
    ///
    /// # Errors
    ///
    /// Fails with a tenant for which it is not decided, and the reason.
    async fn check<'t>(
        &self,
        deadline: Instant,
        members: &[Member<'t>],
        permission: Permission,
    ) -> Result<Vec<Result<(), Rejection>>, (&'t One, Rejection)> {
        let mut verdicts: Vec<Option<Result<(), Rejection>>> = Vec::with_capacity(members.len());
        let mut waiting = Vec::new();
        for (index, (one, proven)) in members.iter().enumerate() {
            let verdict = match &one.opa {
                // A policy about a tenant's data must not grant rights on the process.
                Some(opa) if permission != Permission::Admin => {
                    let known = opa.known(&one.membership, proven, permission);
                    if known.is_none() {
                        waiting.push((index, Arc::clone(opa)));
                    }
                    known
                }
                _ => Some(self.by_role(one, proven, permission)),
            };
            verdicts.push(verdict);
        }
        let mut waiting = waiting.into_iter();
        let mut asked = JoinSet::new();
        loop {
            let room = AT_ONCE - asked.len();
            for (index, opa) in waiting.by_ref().take(room) {
                let (one, proven) = &members[index];
                let (at, proven) = (one.membership.clone(), Arc::clone(proven));
                asked.spawn(async move { (index, opa.check(&at, &proven, permission).await) });
            }
            match timeout_at(deadline, asked.join_next()).await {
                Ok(Some(Ok((index, verdict)))) => match verdict {
                    Err(no) if no.kind != RejectionKind::Forbidden => {
                        return Err((members[index].0, no));
                    }
                    verdict => verdicts[index] = Some(verdict),
                },
                // A task that panicked has no verdict.
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let verdicts = verdicts.into_iter().zip(members);
        let verdicts = verdicts.map(|(verdict, (one, _))| {
            let late = "the permission could not be checked in time";
            verdict.ok_or_else(|| (*one, Rejection::unavailable(late)))
        });
        verdicts.collect()
    }

    fn by_role(&self, one: &One, proven: &Proven, permission: Permission) -> Result<(), Rejection> {
        let at = &one.membership;
        let subject = proven.subject.as_deref();
        if self
            .roles
            .allow(subject, &proven.groups, &at.name, permission)
        {
            return Ok(());
        }
        let (who, permission, name) = (proven.who(), permission.as_str(), &at.name);
        let reason =
            format!("{who} has no role with the permission {permission} for tenant {name:?}");
        Err(Rejection::new(RejectionKind::Forbidden, reason))
    }

    /// Rejects requests that a page of another origin caused (CSRF): with a session all but navigation
    /// that reads, and with other credentials that browsers add by themselves those that change
    /// something.
    fn check_origin(
        &self,
        shown: &Shown<'_>,
        at: &[Membership],
        browser: Browser,
        permission: Permission,
    ) -> Result<(), Rejection> {
        // The admin address, where links to pages require `admin` as well, refuses foreign changes itself.
        let changes = matches!(permission, Permission::Write | Permission::Rules);
        if browser.adds && changes && is_cross_site(shown.head.headers) {
            let reason = "a page of another origin cannot change anything with the credentials that a browser adds";
            return Err(Rejection::new(RejectionKind::Forbidden, reason));
        }
        if !browser.session {
            return Ok(());
        }
        let foreign = at.iter().any(|at| {
            let login = self.login(&at.name);
            login.is_none_or(|(_, _, login)| {
                let own = &login.config.external_url;
                cross_site(shown.head.headers, own, shown.head.method)
            })
        });
        match foreign {
            true => {
                let reason =
                    "requests that a page of another origin makes with a session are refused";
                Err(Rejection::new(RejectionKind::Forbidden, reason))
            }
            false => Ok(()),
        }
    }

    /// Login of the tenant of this name; none if there is no such tenant or it has no login.
    pub(crate) fn login(&self, name: &str) -> Option<(Membership, &oidc::Verifier, &Login)> {
        let one = &self.tenants[*self.by_name.get(name)?];
        let mut ways = one
            .ways
            .as_slice()
            .iter()
            .map(|way| &*self.ways[*way].method);
        ways.find_map(|method| match method {
            Method::Oidc(verifier) => {
                let login = verifier.login()?;
                Some((one.membership.clone(), &**verifier, login))
            }
            _ => None,
        })
    }

    /// Login URL for an unauthenticated browser that opens a page of exactly one tenant.
    pub(crate) fn entrance(&self, head: &Head<'_>) -> Option<HeaderValue> {
        let opens = *head.method == HttpMethod::GET && wants_page(head.headers);
        let names = opens.then(|| named(head, &self.parameter, &self.headers).ok())??;
        let [name] = names[..] else {
            return None;
        };
        let (at, _, _) = self.login(name)?;
        let back_to = head.uri.path_and_query().map_or("/", |it| it.as_str());
        entrance(&at.name, back_to)
    }

    /// Reason for which the caller is not authenticated, as the caller sees it.
    fn wrong<'a>(&self, shown: &Shown<'_>, wrong: Option<&'a str>) -> Option<&'a str> {
        match shown.credentials {
            Credentials::Unusable(reason) => Some(reason),
            // The same for all users.
            Credentials::Basic(..) => Some("user or password is wrong"),
            _ if shown.nothing() => None,
            _ => wrong.or(Some("the credentials are not valid here")),
        }
    }

    fn unauthenticated(&self, reason: Option<&str>) -> Refusal {
        let reason = match reason {
            _ if self.is_empty() => "there are no tenants: add one under [tenants.NAME]",
            Some(reason) => reason,
            None => "credentials are missing",
        };
        Refusal {
            rejection: Rejection::new(RejectionKind::Unauthenticated, reason),
            challenges: self.challenges.clone(),
            entrance: None,
        }
    }
}

/// A tenant, and the caller as its method has authenticated it.
type Member<'t> = (&'t One, Arc<Proven>);

/// Verdicts of the methods that have not accepted the credentials of a request.
#[derive(Default)]
struct Doubts {
    /// The first reason for which the credentials cannot be checked at the moment.
    unknown: Option<Unknown>,
    /// The first reason for which they are not valid.
    wrong: Option<Arc<str>>,
}

impl Doubts {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Unknown(reason) => {
                self.unknown.get_or_insert(reason);
            }
            Verdict::Wrong(reason) => {
                self.wrong.get_or_insert(reason);
            }
            Verdict::Proven(_) | Verdict::Absent => {}
        }
    }
}

/// The credentials of a request that its browser may have added without its page knowing them.
#[derive(Clone, Copy, Default)]
struct Browser {
    session: bool,
    /// A password, a client certificate, or those that a proxy in front took.
    adds: bool,
}

impl Browser {
    fn add(&mut self, proof: Proof) {
        match proof {
            Proof::Session => self.session = true,
            Proof::Password | Proof::Certificate | Proof::Header => self.adds = true,
            Proof::Token => {}
        }
    }
}

/// The verdict of a method, unless it takes too long.
async fn in_time(deadline: Instant, verdict: impl Future<Output = Verdict>) -> Verdict {
    let late = "the credentials could not be checked in time";
    let verdict = timeout_at(deadline, verdict).await;
    verdict.unwrap_or_else(|_| Verdict::Unknown(late.into()))
}

/// Whether the request accepts HTML, as browsers do when they open a page.
fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// The caller of a request, as a member of these tenants.
fn caller(
    shown: &Shown<'_>,
    memberships: Vec<Membership>,
    proven: &Proven,
    permission: Permission,
) -> Result<Caller, Refusal> {
    let one_only = matches!(permission, Permission::Write | Permission::Rules);
    if one_only && memberships.len() > 1 {
        let reason =
            "the credentials are valid for several tenants: name one in the path or in a header";
        return Err(Rejection::invalid(reason).into());
    }
    let certificate = proven.certificate.clone();
    Ok(Caller {
        identity: Some(Arc::new(Identity {
            tenants: memberships.into(),
            subject: proven.subject.clone(),
            groups: Arc::clone(&proven.groups),
            proof: proven.proof,
        })),
        certificate: certificate.or_else(|| shown.head.certificate.cloned()),
    })
}
