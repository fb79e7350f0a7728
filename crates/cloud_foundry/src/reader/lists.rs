//! Lists of organizations, applications and routes, from platforms of any age.

use std::collections::{BTreeSet, HashSet};

use tokio::time::Instant;
use tracing::debug;

use metrifold_discovery::{Failure, Reason, exchange::escape};

use crate::api::{ApiError, List};
use crate::metadata::Metadata;
use crate::resources::{App, Domain, Organization, Route, RouteBinding, Space};

use super::{GUIDS, Reader, still};

impl Reader {
    /// The organizations that the selectors name. `None` unless every selector names some.
    pub(super) async fn organizations(&self) -> Result<Option<Vec<String>>, ApiError> {
        let filters = || self.selectors.iter().map(|it| &it.organization);
        let narrow = |names: &BTreeSet<&String>, guids: &BTreeSet<&String>| {
            // The API separates names by commas and cannot escape one in a name.
            names.iter().all(|name| !name.contains(',')) && names.len() + guids.len() <= GUIDS / 2
        };
        let names: BTreeSet<&String> = filters().flat_map(|it| &it.names).collect();
        let given: BTreeSet<&String> = filters().flat_map(|it| &it.guids).collect();
        if !filters().all(|it| it.is_narrow()) || !narrow(&names, &given) {
            return Ok(None);
        }
        let mut guids: BTreeSet<String> = given.into_iter().cloned().collect();
        if !names.is_empty() {
            let names: Vec<_> = names.into_iter().map(|name| escape(name)).collect();
            let query = format!("&names={}", names.join(","));
            let list = self.api.list::<Organization>("/v3/organizations", &query);
            guids.extend(list.await?.resources.into_iter().map(|it| it.guid));
        }
        Ok(Some(guids.into_iter().collect()))
    }

    pub(super) async fn read_apps(&mut self, query: &str) -> Result<Metadata, ApiError> {
        let (apps, spaces, organizations) = self.list_apps(query).await?;
        if !apps.is_empty() {
            all_there("spaces", "application", &spaces)?;
            all_there("organizations", "application", &organizations)?;
        }
        Ok(Metadata::new(apps, spaces, organizations))
    }

    async fn list_apps(&mut self, query: &str) -> Result<Apps, ApiError> {
        if still(self.no_include) {
            return self.list_apps_apart(query).await;
        }
        let with = format!("&include=space.organization{query}");
        match self.api.list::<App>("/v3/apps", &with).await {
            // Other implementations of the API may ignore what they do not support.
            Ok(list) if list.included.spaces.is_empty() && !list.resources.is_empty() => {
                self.list_apps_apart(query).await
            }
            Ok(list) => {
                let List {
                    resources,
                    included,
                } = list;
                Ok((resources, included.spaces, included.organizations))
            }
            Err(error) if error.status == Some(400) => {
                let apps = self.list_apps_apart(query).await?;
                debug!(%error, "platform does not include spaces in its list of applications");
                self.no_include = Some(Instant::now());
                Ok(apps)
            }
            Err(error) => Err(error),
        }
    }

    async fn list_apps_apart(&self, query: &str) -> Result<Apps, ApiError> {
        let apps = self.api.list::<App>("/v3/apps", query).await?;
        let spaces = self.api.list::<Space>("/v3/spaces", "").await?;
        let organizations = self.api.list::<Organization>("/v3/organizations", "");
        let organizations = organizations.await?;
        Ok((apps.resources, spaces.resources, organizations.resources))
    }

    pub(super) async fn read_routes(
        &mut self,
        query: &str,
    ) -> Result<(Vec<Route>, Vec<Domain>), ApiError> {
        let (routes, domains) = self.list_routes(query).await?;
        if !routes.is_empty() {
            all_there("domains", "route", &domains)?;
        }
        Ok((routes, domains))
    }

    async fn list_routes(&mut self, query: &str) -> Result<(Vec<Route>, Vec<Domain>), ApiError> {
        if !still(self.no_include) {
            let with = format!("&include=domain{query}");
            match self.api.list::<Route>("/v3/routes", &with).await {
                Ok(list) if list.included.domains.is_empty() && !list.resources.is_empty() => {
                    let domains = self.api.list::<Domain>("/v3/domains", "").await?;
                    return Ok((list.resources, domains.resources));
                }
                Ok(list) => return Ok((list.resources, list.included.domains)),
                Err(error) if error.status == Some(400) => {}
                Err(error) => return Err(error),
            }
        }
        let routes = self.api.list::<Route>("/v3/routes", query).await?;
        let domains = self.api.list::<Domain>("/v3/domains", "").await?;
        self.no_include.get_or_insert_with(Instant::now);
        Ok((routes.resources, domains.resources))
    }

    /// GUIDs of the routes with a route service.
    pub(super) async fn list_route_services(&self) -> Result<HashSet<String>, ApiError> {
        let path = "/v3/service_route_bindings";
        match self.api.list::<RouteBinding>(path, "").await {
            Ok(list) => {
                let bindings = list.resources.into_iter();
                Ok(bindings
                    .map(|it| it.relationships.route.guid().to_owned())
                    .collect())
            }
            // Platforms before version 3.88 of the API have no such list, nor have other implementations.
            Err(error) if matches!(error.status, Some(400 | 404 | 405 | 501)) => Ok(HashSet::new()),
            Err(error) => Err(error),
        }
    }
}

/// Applications with the spaces and organizations of all of them.
type Apps = (Vec<App>, Vec<Space>, Vec<Organization>);

/// Fails if a list is empty although each object of another one belongs to one in it.
fn all_there<T>(what: &str, owner: &str, list: &[T]) -> Result<(), ApiError> {
    if list.is_empty() {
        let text = format!("no {what} are listed, although each {owner} has one");
        return Err(Failure::new(Reason::Invalid, text).into());
    }
    Ok(())
}
