//! The decision on a request: authenticates the caller, and authorizes it for tenants.

use std::sync::Arc;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method as HttpMethod};

use metrifold_http::access::{Head, Permission};
use metrifold_http::{Refusal, is_cross_site};
use metrifold_model::{Caller, Identity, Membership, Proof, Rejection, RejectionKind};

use crate::login::{cross_site, entrance};
use crate::named::named;
use crate::proof::session::Login;
use crate::proof::{Method, Proven, Verdict, oidc};
use crate::shown::{Credentials, Shown};

use super::{One, Tenants};

/// Maximum number of tenants of a caller whose request names none.
const MOST_UNNAMED: usize = 1000;

impl Tenants {
    /// Authenticates the caller of a request, and checks its permission.
    pub(crate) async fn decide(
        &self,
        shown: &Shown<'_>,
        permission: Permission,
    ) -> Result<Caller, Refusal> {
        let names = match permission {
            // Admin requests belong to no tenant, whatever their path contains.
            Permission::Admin => Vec::new(),
            _ => named(&shown.head, &self.parameter, &self.headers)?,
        };
        if names.is_empty() {
            return self.of_all(shown, permission).await;
        }
        let mut memberships = Vec::with_capacity(names.len());
        let mut first: Option<Arc<Proven>> = None;
        let mut browser = Browser::default();
        for name in names {
            let (one, proven) = self.of_named(shown, name).await?;
            self.check(one, &proven, permission).await?;
            memberships.push(one.membership.clone());
            browser.add(proven.proof);
            first.get_or_insert(proven);
        }
        memberships.sort();
        memberships.dedup();
        match first {
            Some(proven) => {
                self.check_origin(shown, &memberships, browser, permission)?;
                caller(shown, memberships, &proven, permission)
            }
            None => Err(self.unauthenticated(None)),
        }
    }

    /// Authenticates the caller for a tenant that the request names.
    async fn of_named(
        &self,
        shown: &Shown<'_>,
        name: &str,
    ) -> Result<(&One, Arc<Proven>), Refusal> {
        let one = self.by_name.get(name).map(|&index| &self.tenants[index]);
        let own = one.map_or(&[][..], |one| one.ways.as_slice());
        let mut unknown = None;
        let mut wrong = None;
        for &way in own {
            let method = &self.ways[way].method;
            if matches!(**method, Method::Kubernetes(_)) && self.index.knows_token(shown) {
                continue;
            }
            match method.prove(shown).await {
                Verdict::Proven(proven) => {
                    if let Some(one) = one {
                        return Ok((one, proven));
                    }
                }
                Verdict::Unknown(reason) => unknown = unknown.or(Some(reason)),
                Verdict::Wrong(reason) => wrong = wrong.or(Some(reason)),
                Verdict::Absent => {}
            }
        }
        // Only callers that are authenticated for another tenant may learn whether this one exists.
        let others = self.index.ways(shown);
        for way in others.filter(|way| !own.contains(way)) {
            match self.ways[way].method.prove(shown).await {
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
                Verdict::Wrong(reason) => wrong = wrong.or(Some(reason)),
                Verdict::Absent => {}
            }
        }
        match unknown {
            Some(reason) => Err(Rejection::unavailable(&*reason).into()),
            None => Err(self.unauthenticated(self.wrong(shown, wrong.as_deref()))),
        }
    }

    /// Authenticates a caller whose request names no tenant. Returns all of its tenants for which it has
    /// the permission.
    async fn of_all(&self, shown: &Shown<'_>, permission: Permission) -> Result<Caller, Refusal> {
        let mut memberships = Vec::new();
        let mut first: Option<Arc<Proven>> = None;
        let mut browser = Browser::default();
        let mut unknown = None;
        let mut wrong = None;
        for way in self.index.ways(shown) {
            let way = &self.ways[way];
            match way.method.prove(shown).await {
                Verdict::Proven(proven) => {
                    let tenants = way.tenants.as_slice();
                    if tenants.len() > MOST_UNNAMED {
                        let reason = "the credentials are valid for too many tenants: name tenants in the path or in a header";
                        return Err(Rejection::invalid(reason).into());
                    }
                    for &tenant in tenants {
                        let one = &self.tenants[tenant];
                        match self.check(one, &proven, permission).await {
                            Ok(()) => memberships.push(one.membership.clone()),
                            Err(no) if no.kind == RejectionKind::Forbidden => {}
                            Err(no) => unknown = unknown.or(Some(no.reason.into())),
                        }
                    }
                    browser.add(proven.proof);
                    first.get_or_insert(proven);
                }
                Verdict::Unknown(reason) => unknown = unknown.or(Some(reason)),
                Verdict::Wrong(reason) => wrong = wrong.or(Some(reason)),
                Verdict::Absent => {}
            }
        }
        memberships.sort();
        memberships.dedup();
        match (first, unknown) {
            (Some(proven), _) if !memberships.is_empty() => {
                self.check_origin(shown, &memberships, browser, permission)?;
                caller(shown, memberships, &proven, permission)
            }
            // The method that cannot be checked now may be the one that has the permission.
            (_, Some(reason)) => Err(Rejection::unavailable(&*reason).into()),
            (Some(proven), None) => {
                let (who, permission) = (proven.who(), permission.as_str());
                let reason = format!("{who} has no role with the permission {permission}");
                Err(Rejection::new(RejectionKind::Forbidden, reason).into())
            }
            (None, None) => Err(self.unauthenticated(self.wrong(shown, wrong.as_deref()))),
        }
    }

    async fn check(
        &self,
        one: &One,
        proven: &Proven,
        permission: Permission,
    ) -> Result<(), Rejection> {
        let at = &one.membership;
        // A policy about a tenant's data must not grant rights on the process.
        if let Some(opa) = &one.opa
            && permission != Permission::Admin
        {
            return opa.check(at, proven, permission).await;
        }
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
