//! Scrapes the instances of applications on Cloud Foundry, each selected by the header that the
//! router understands and with its application's credentials, and serves Promregator's paths to
//! programs that pull.
//!
//! Delivery and limits are those of `scrape`: a scrape that cannot be delivered in time is dropped
//! and counted. A target without its credentials is not scraped.

mod authenticators;
mod bound;
mod expose;
mod extra_labels;
mod face;
mod instances;
mod routers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, OneOrMany, Problems, RunError, Shutdown, keys};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, Resource, SourceConfig, SourcePort,
};
use metrifold_engine::planes::Source;
use metrifold_engine::planes::metrics::{Metrics, Output};
use metrifold_expr::relabel::{Program, RuleConfig, Validation};
use metrifold_http::{Access, Everybody, Handler, Permission, Route, Serving};
use metrifold_model::Kind;
use metrifold_scrape::{Inlet, OnRequest, Particulars, Pool, ScrapeKeys, Settings};

use authenticators::{AuthenticatorKeys, Authenticators};
use expose::{ExposeKeys, PATHS};
use extra_labels::ExtraLabel;
use face::{Face, FaceParts};
use instances::{InstanceHeader, Instances};

keys! {
    /// Configuration of the `cf_scrape` source.
    #[derive(Clone, Debug)]
    pub struct CfScrapeConfig {
        /// Names of providers under `[discovery.NAME]`, of the type `cloud_foundry`, one for each foundation.
        discovery: OneOrMany<String> = required("cloud_foundry"),
        /// Credentials for applications, by the name that a selector gives as `authenticator`. Each has at most one of `basic_auth`, `authorization`, `oauth2` and `service`, and can have `tls`.
        authenticators: BTreeMap<String, AuthenticatorKeys> = unset({ xsuaa = { basic_auth = { username = "u", password = "${PASSWORD}" } } }),
        /// Relabel rules for the series of the instances that a selector finds, by the selector's `name`. They are applied before `metric_relabel`.
        selector_metric_relabel: BTreeMap<String, Vec<RuleConfig>> = unset({ spring = [{ source_labels = ["__name__"], regex = "jvm_.*", action = "keep" }] }),
        /// Header that selects the instance behind the router: `app` (`X-CF-APP-INSTANCE`), `process` (`X-CF-PROCESS-INSTANCE`, supported by routers since March 2025) or `auto`. `auto` uses `process` if an application has several processes of a type or the process is not of the type `web`, and the router is found to support it, and `app` otherwise.
        instance_header: InstanceHeader = default("auto"),
        /// Additional labels for all series: `process_type` (`cf_process_type`), `revision` (`cf_revision_id`) and `app_labels` (each label of the application as `app_label_NAME`).
        extra_labels: Vec<ExtraLabel> = unset(["process_type"]),
        /// Scrape instances at the interval and deliver the samples to sinks. Otherwise, instances are scraped only on request, under `expose`.
        push: bool = default(true),
        /// HTTP endpoint for Promregator's paths, for programs that pull.
        expose: Option<ExposeKeys> = optional,
        scrape: ScrapeKeys = include,
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "cf_scrape",
        summary: "Scrapes the instances of Cloud Foundry applications.",
        keys: CfScrapeConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "cf_scrape")]
impl SourceConfig for CfScrapeConfig {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Metrics(self)
    }

    fn resources(&self) -> Vec<Resource> {
        let expose = self.expose.iter().flat_map(ExposeKeys::listen);
        expose.map(Resource::Route).collect()
    }

    fn files(&self) -> Vec<&Path> {
        let mut files = self.scrape.files();
        let authenticators = self.authenticators.values();
        files.extend(authenticators.flat_map(AuthenticatorKeys::files));
        files.extend(self.expose.iter().flat_map(ExposeKeys::files));
        files
    }

    fn validate(&self, problems: &mut Problems) {
        if self.discovery.0.is_empty() {
            problems.at("discovery", "must name at least one provider");
        }
        for (at, name) in self.discovery.0.iter().enumerate() {
            if self.discovery.0[..at].contains(name) {
                problems.at(format!("discovery[{at}]"), "is listed twice");
            }
        }
        for (name, keys) in &self.authenticators {
            keys.validate(&format!("authenticators.{name}"), problems);
        }
        let validation = self.scrape.metric_name_validation_scheme;
        for (name, rules) in &self.selector_metric_relabel {
            let path = format!("selector_metric_relabel.{name}");
            Program::compile(rules, validation, &path, problems);
        }
        for (at, label) in self.extra_labels.iter().enumerate() {
            if self.extra_labels[..at].contains(label) {
                problems.at(format!("extra_labels[{at}]"), "is listed twice");
            }
        }
        match &self.expose {
            Some(expose) => problems.within("expose", |problems| expose.validate(problems)),
            None if !self.push => {
                let problem = problems.at("push", "without push or expose, nothing is scraped");
                problem.help("add expose = { address = \"0.0.0.0:8080\" }, or remove push");
            }
            None => {}
        }
        self.scrape.validate(problems);
    }
}

impl CfScrapeConfig {
    /// The keys of scraping, with the rules for further labels placed first.
    fn scrape_keys(&self) -> ScrapeKeys {
        let mut keys = self.scrape.clone();
        let more = self.extra_labels.iter().map(|label| label.rule());
        keys.target_relabel.splice(0..0, more);
        keys
    }

    /// Compiled rules of the selectors that have some.
    fn selector_rules(&self) -> Result<BTreeMap<String, Arc<Program>>, BuildError> {
        let validation: Validation = self.scrape.metric_name_validation_scheme;
        let compiled = self.selector_metric_relabel.iter().map(|(name, rules)| {
            let path = format!("selector_metric_relabel.{name}");
            let mut problems = Problems::new(true);
            let program = Program::compile(rules, validation, &path, &mut problems);
            let program = program.ok_or_else(|| BuildError::new(path, "a rule is not valid"))?;
            Ok((name.clone(), Arc::new(program)))
        });
        compiled.collect()
    }
}

impl BuildSource<Metrics> for CfScrapeConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Metrics>>, BuildError> {
        let settings = Arc::new(Settings::new(&self.scrape_keys(), &cx.id)?);
        let config = self
            .scrape
            .client()
            .client_config(metrifold_scrape::IDLE_PER_SERVER);
        let targets = self
            .discovery
            .0
            .iter()
            .map(|name| cx.discovery.targets(name));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let instances: Arc<dyn Particulars> = Arc::new(Instances {
            authenticators: Authenticators::build(&self.authenticators, &config)?,
            by: self.instance_header,
            rules: self.selector_rules()?,
            providers: targets.clone().into(),
            routers: Arc::default(),
        });
        let expose = self.expose.as_ref().map(|keys| -> Result<_, BuildError> {
            let telemetry = cx.telemetry.clone();
            // With limits of their own: pages for one caller must not make pushed scrapes fail.
            let settings = Arc::new(Settings::new(&self.scrape_keys(), &cx.id)?);
            let parts = FaceParts {
                targets: targets.clone(),
                scrapes: OnRequest::build(settings, instances.clone())?,
                own: Box::new(move || telemetry.render()),
                metrics: cx.metrics.clone(),
            };
            let listens = keys.listen();
            let routes = listens.map(|listen| cx.listeners.route(&listen, &cx.id));
            // The instances belong to all tenants: a caller needs the right to see everything.
            let access = keys.server().access(&cx.access, |_| Permission::Admin)?;
            let access = PATHS.map(|(_, endpoint)| -> Arc<dyn Access> {
                match keys.without_auth.contains(&endpoint) {
                    true => Arc::new(Everybody),
                    false => access.clone(),
                }
            });
            Ok(Exposed {
                routes: routes.collect::<Result<_, _>>()?,
                access,
                face: Face::new(keys.clone(), parts),
            })
        });
        let inlets = targets.iter().cloned().map(Inlet::Discovered).collect();
        let pool = self
            .push
            .then(|| Pool::build(settings.clone(), instances.clone(), inlets, cx));
        Ok(Box::new(CfScrape {
            expose: expose.transpose()?,
            pool: pool.transpose()?,
        }))
    }
}

struct CfScrape {
    /// `None` without push: then instances are scraped only on request.
    pool: Option<Pool>,
    expose: Option<Exposed>,
}

/// Promregator's paths, claimed and not served yet.
struct Exposed {
    routes: Vec<Route>,
    /// The access check of each path.
    access: [Arc<dyn Access>; PATHS.len()],
    face: Arc<Face>,
}

impl Exposed {
    fn serve(self) -> Vec<(Serving, Route)> {
        let handlers: Vec<Arc<dyn Handler>> = self.face.handlers().collect();
        let served = self.routes.into_iter().zip(self.access).zip(handlers);
        served
            .map(|((route, access), handler)| (route.serve(access, handler), route))
            .collect()
    }
}

impl Source<Metrics> for CfScrape {
    fn run(
        self: Box<Self>,
        out: Output,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        // Attached before the first poll, so that a predecessor's paths are taken over without a
        // gap.
        let serving = self.expose.map(Exposed::serve);
        let pool = self.pool;
        Box::pin(async move {
            let outcome = match pool {
                Some(pool) => pool.run(out, shutdown).await,
                None => {
                    shutdown.wait().await;
                    Ok(())
                }
            };
            drop(serving);
            outcome
        })
    }
}
