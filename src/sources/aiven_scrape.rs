//! Scrapes the nodes of Aiven's services, each at its own address.
//!
//! Targets come from a provider, usually of type `aiven`, which also supplies the credentials: the
//! user of the integration endpoint, and the project's certificate authority. Connections go to a
//! node's address; its certificate must bear the name of its service. Delivery and limits are those
//! of the source `scrape`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use metrifold_aiven::{Access, Accessing, Accounts};
use metrifold_base::keys::Keys;
use metrifold_base::{
    BoxFuture, BuildError, Problems, RunError, Shutdown, ShutdownTrigger, keys, locked,
};
use metrifold_discovery::Target;
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, SourceConfig, SourcePort,
};
use metrifold_engine::planes::Source;
use metrifold_engine::planes::metrics::{Metrics, Output};
use metrifold_http::tls::Pem;
use metrifold_http::{BasicAuth, Client, ClientConfig, Credentials};
use metrifold_model::Kind;
use metrifold_scrape::{Inlet, Own, Particulars, Pool, ScrapeKeys, Settings};

/// Idle connections that a client keeps to its node.
const IDLE: usize = 1;

keys! {
    /// Configuration of the `aiven_scrape` source.
    #[derive(Clone, Debug)]
    pub struct AivenScrapeConfig {
        /// Provider of targets, a table `[discovery.NAME]`. A provider of type `aiven` also supplies the credentials and certificate authorities; with another type, the keys of this source configure them.
        discovery: String = required("aiven"),
        keys: ScrapeKeys = include,
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "aiven_scrape",
        summary: "Scrapes the nodes of Aiven's services.",
        keys: AivenScrapeConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "aiven_scrape")]
impl SourceConfig for AivenScrapeConfig {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Metrics(self)
    }

    fn files(&self) -> Vec<&Path> {
        self.keys.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.keys.validate(problems);
        if self.discovery.is_empty() {
            problems.at("discovery", "must not be empty");
        }
    }
}

impl BuildSource<Metrics> for AivenScrapeConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Metrics>>, BuildError> {
        // Unreadable certificates fail the build, not the run.
        self.keys.client().client(IDLE)?;
        cx.discovery.targets(&self.discovery)?;
        let accounts: Arc<Accounts> = cx.shared.get();
        Ok(Box::new(AivenScrape {
            access: accounts.access(&self.discovery),
            config: self.clone(),
            cx: cx.clone(),
        }))
    }
}

struct AivenScrape {
    config: AivenScrapeConfig,
    /// Credentials from the provider; None if it is of another type.
    access: Option<Accessing>,
    cx: BuildContext,
}

impl Source<Metrics> for AivenScrape {
    fn run(self: Box<Self>, out: Output, shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        Box::pin(self.scrape(out, shutdown))
    }
}

impl AivenScrape {
    /// Scrapes with the current credentials; when they change, a new pool takes over.
    async fn scrape(mut self, out: Output, mut shutdown: Shutdown) -> Result<(), RunError> {
        let Some(mut accessing) = self.access.take() else {
            return self.pool(Access::default())?.run(out, shutdown).await;
        };
        let mut access = accessing.now();
        while !access.complete {
            tokio::select! {
                () = accessing.changed() => access = accessing.now(),
                () = shutdown.wait() => return Ok(()),
            }
        }
        let mut pool = self.pool(access)?;
        loop {
            let (stop, told) = ShutdownTrigger::new();
            let mut running = Box::pin(pool.run(out.clone(), told));
            tokio::select! {
                ended = &mut running => return ended,
                () = accessing.changed() => {}
                () = shutdown.wait() => {
                    stop.fire();
                    return running.await;
                }
            }
            // The new pool is built before the current one stops, which hands its targets over to
            // it.
            pool = self.pool(accessing.now())?;
            stop.fire();
            running.await?;
        }
    }

    fn pool(&self, access: Access) -> Result<Pool, RunError> {
        let failed = |error: BuildError| RunError(error.to_string());
        let settings = Settings::new(&self.config.keys, &self.cx.id).map_err(failed)?;
        let targets = self.cx.discovery.targets(&self.config.discovery);
        let inlets = vec![Inlet::Discovered(targets.map_err(failed)?)];
        let nodes = Nodes {
            client: self.config.keys.client().client_config(IDLE),
            own_credentials: self.config.keys.client().authenticates(),
            access,
            clients: Mutex::default(),
        };
        Pool::build(Arc::new(settings), Arc::new(nodes), inlets, &self.cx).map_err(failed)
    }
}

/// Settings of individual nodes.
struct Nodes {
    client: ClientConfig,
    /// Whether the source has credentials of its own, which take precedence over the endpoints'.
    own_credentials: bool,
    access: Access,
    /// Clients by project and by the name that certificates are verified against.
    clients: Mutex<HashMap<(String, String), Client>>,
}

impl Particulars for Nodes {
    fn of(&self, discovered: &Target, _inlet: usize) -> Result<Own, String> {
        let get = |name: &str| discovered.get(name).unwrap_or_default();
        let project = get("__meta_aiven_project");
        let host = get("__meta_aiven_host");
        let credentials = match self.own_credentials {
            true => None,
            false => self.credentials(get("__meta_aiven_endpoint_id"))?,
        };
        Ok(Own {
            credentials,
            client: Some(self.client(project, host)?),
            ..Own::default()
        })
    }
}

impl Nodes {
    /// Credentials of an endpoint; None if its nodes require none.
    fn credentials(&self, endpoint: &str) -> Result<Option<Credentials>, String> {
        let Some(user) = self.access.users.get(endpoint) else {
            return Ok(None);
        };
        let basic_auth = BasicAuth {
            username: user.name.clone(),
            password: Some(user.password.clone()),
            password_file: None,
        };
        let credentials = Credentials::build(Some(&basic_auth), None, None);
        credentials.map(Some).map_err(|error| error.to_string())
    }

    /// Client for the nodes of a service.
    fn client(&self, project: &str, host: &str) -> Result<Client, String> {
        let key = (project.to_owned(), host.to_owned());
        let mut clients = locked(&self.clients);
        if let Some(known) = clients.get(&key) {
            return Ok(known.clone());
        }
        let mut config = self.client.clone();
        if config.tls.server_name.is_none() && !host.is_empty() {
            config.tls.server_name = Some(host.to_owned());
        }
        let authority = self.access.authorities.get(project);
        let authority = authority.filter(|_| config.tls.ca_file.is_none());
        let pem = Pem {
            ca: authority.map(|pem| pem.clone().into_bytes()),
            ..Pem::default()
        };
        let client = Client::with_pem(&config, &pem);
        let client = client.map_err(|error| error.to_string())?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}
