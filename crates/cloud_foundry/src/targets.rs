//! The targets of a foundation: one for each running instance and path of a selected application.

use std::collections::HashSet;

use metrifold_discovery::exchange::label_part;
use metrifold_discovery::{Labels, LabelsBuilder, LeftOut};

use crate::foundation::{Foundation, Running};
use crate::how::How;
use crate::metadata::App;
use crate::resources::Instance;
use crate::route::{Chosen, choose};
use crate::select::Selector;

/// Result of a selector.
pub(crate) struct Found {
    pub(crate) targets: Vec<Labels>,
    /// Number of matching applications, running or not.
    pub(crate) apps: usize,
    /// Number of these that are started.
    pub(crate) started: usize,
}

/// Finds targets, selector by selector. A target that one selector has found, an instance at a URL, is
/// skipped by later ones.
pub(crate) struct Finder<'a> {
    api: &'a str,
    foundation: &'a Foundation,
    taken: HashSet<String>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// A process that becomes targets, with its application, settings and route.
struct Place<'a> {
    app: &'a App,
    process: &'a Running,
    how: &'a How,
    chosen: &'a Chosen<'a>,
    /// Whether the application has older processes of this type.
    newer: bool,
    /// Whether application and instance number are ambiguous, so that the process must be named.
    by_process: bool,
    /// GUID of the binding with the credentials for the application; may be empty.
    binding: &'a str,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(api: &'a str, foundation: &'a Foundation) -> Self {
        Self {
            api,
            foundation,
            taken: HashSet::new(),
            left_out: Vec::new(),
        }
    }

    /// Finds the targets of the selector with this index.
    pub(crate) fn find(&mut self, at: usize, selector: &Selector) -> Found {
        let mut found = Found {
            targets: Vec::new(),
            apps: 0,
            started: 0,
        };
        let foundation = self.foundation;
        for (app, verdict) in foundation.metadata.judged(at) {
            match verdict {
                Ok(how) => self.app(selector, app, how, &mut found.targets),
                Err(why) => self.leave(name(app), why),
            }
            found.apps += 1;
            found.started += usize::from(app.started);
        }
        found
    }

    /// Records something that is not a target.
    pub(crate) fn leave(&mut self, what: String, why: impl Into<String>) {
        let why = why.into();
        self.left_out.push(LeftOut { what, why });
    }

    fn app(&mut self, selector: &Selector, app: &App, how: &How, targets: &mut Vec<Labels>) {
        if !app.started {
            return self.leave(name(app), "it is stopped");
        }
        let foundation = self.foundation;
        let service = selector.service_credentials.as_ref();
        let binding = service.map(|it| foundation.metadata.binding(&app.guid, it).ok_or(it));
        let binding = match binding.transpose() {
            Ok(binding) => binding.unwrap_or_default(),
            Err(service) => {
                let why = format!("it is not bound to {service:?}, whose credentials it needs");
                return self.leave(name(app), why);
            }
        };
        for process_type in &selector.processes {
            let what = || format!("{} {process_type}", name(app));
            let mut processes = foundation.processes(&app.guid, process_type);
            let Some(oldest) = processes.first().map(|it| it.guid.clone()) else {
                self.leave(what(), "it has no process of this type");
                continue;
            };
            let metadata = &foundation.metadata;
            let chosen = match choose(selector, how, metadata, &app.guid, process_type) {
                Ok(chosen) => chosen,
                Err(why) => {
                    self.leave(what(), why);
                    continue;
                }
            };
            let several = processes.len() > 1;
            let instances = processes.iter().map(|it| it.instances.len());
            if chosen.route.has_service && instances.sum::<usize>() > 1 {
                let url = &chosen.route.url;
                let why = format!(
                    "its route {url} goes through a route service, which drops the header that selects an instance: map another route"
                );
                self.leave(what(), why);
                continue;
            }
            if chosen.route.is_internal {
                // An internal route leads to an instance number: only the newest process counts.
                processes.reverse();
            }
            for process in processes {
                let place = Place {
                    app,
                    process,
                    how,
                    chosen: &chosen,
                    newer: process.guid != oldest,
                    by_process: several
                        || process_type != "web"
                        || chosen.leads_to_others(&app.guid, process_type),
                    binding,
                };
                for instance in &process.instances {
                    self.instance(selector, &place, instance, targets);
                }
            }
        }
    }

    fn instance(
        &mut self,
        selector: &Selector,
        place: &Place<'_>,
        instance: &Instance,
        targets: &mut Vec<Labels>,
    ) {
        let what = || {
            let process_type = &place.process.process_type;
            format!("{} {process_type} {}", name(place.app), instance.index)
        };
        if !instance.runs() {
            let state = instance.state.to_lowercase();
            return self.leave(what(), format!("it is {state}"));
        }
        for path in &place.how.paths {
            let target = target(selector, place, instance, path, self.api);
            let [scheme, address, path] =
                ["__scheme__", "__address__", "__metrics_path__"].map(|it| target.get(it));
            let by = match place.chosen.route.is_internal {
                true => "",
                false => &place.process.guid,
            };
            let key = format!("{scheme:?}{address:?}{path:?} {by} {}", instance.index);
            if self.taken.insert(key) {
                targets.push(target);
            }
        }
    }
}

/// Name of an application for people.
fn name(app: &App) -> String {
    format!("{}/{}/{}", app.organization.name, app.space.name, app.name)
}

fn target(
    selector: &Selector,
    place: &Place<'_>,
    instance: &Instance,
    path: &str,
    api: &str,
) -> Labels {
    let Place {
        app,
        process,
        how,
        chosen,
        ..
    } = place;
    let index = instance.index.to_string();
    let id = format!("{}:{index}", app.guid);
    let (scheme, address) = chosen.address(selector, how, &app.guid, instance.index);
    let path = chosen.path(path);
    let mut labels = LabelsBuilder::default();
    for (name, value) in &selector.own_labels {
        labels.push(name, value);
    }
    // Identifying labels do not depend on the route.
    labels.push("instance", &id);
    labels.push("org_name", &app.organization.name);
    labels.push("space_name", &app.space.name);
    labels.push("app_name", &app.name);
    labels.push("cf_instance_id", &id);
    labels.push("cf_instance_number", &index);
    if process.process_type != "web" {
        labels.push("cf_process_type", &process.process_type);
    }
    if place.newer && !chosen.route.is_internal {
        labels.push("cf_process_id", &process.guid);
    }
    labels.push("__address__", address);
    labels.push("__scheme__", scheme);
    labels.push("__metrics_path__", path);
    for (name, period) in [
        ("__scrape_interval__", how.interval),
        ("__scrape_timeout__", how.timeout),
    ] {
        if let Some(period) = period {
            labels.push(name, period.to_string());
        }
    }
    let mut meta = |name: &str, value: &str| {
        labels.push(format!("__meta_cf_{name}"), value);
    };
    meta("api", api);
    meta("selector", &selector.name);
    meta("org_guid", &app.organization.guid);
    meta("org_name", &app.organization.name);
    meta("space_guid", &app.space.guid);
    meta("space_name", &app.space.name);
    meta("app_guid", &app.guid);
    meta("app_name", &app.name);
    meta("process_guid", &process.guid);
    meta("process_type", &process.process_type);
    meta(
        "revision_guid",
        process.revision.as_deref().unwrap_or_default(),
    );
    meta("instance_id", &id);
    meta("instance_number", &index);
    meta("route", &chosen.route.url);
    meta("route_guid", &chosen.route.guid);
    let yes = |is: bool| if is { "true" } else { "" };
    meta("route_internal", yes(chosen.route.is_internal));
    meta("by_process", yes(place.by_process));
    meta(
        "authenticator",
        selector.authenticator.as_deref().unwrap_or_default(),
    );
    meta("binding", place.binding);
    for (kind, pairs) in [("label", &app.labels), ("annotation", &app.annotations)] {
        for (name, value) in pairs {
            let value = value.as_deref().unwrap_or_default();
            meta(&format!("app_{kind}_{}", label_part(name)), value);
        }
    }
    labels.build()
}
