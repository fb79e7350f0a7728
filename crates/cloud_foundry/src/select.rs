//! Selectors of applications.

use std::time::Duration;

use metrifold_base::{OneOrMany, Period, Problems};
use metrifold_regex::Regex;

use crate::config::{Annotation, Protocol, RouteKind, SelectKeys};
use crate::how::{How, Judged, Verdict};
use crate::label_selector::LabelSelector;
use crate::metadata::{App, Metadata, Named};

/// Port for an internal route without a port of its own.
pub(crate) const DEFAULT_PORT: u16 = 8080;

/// A compiled entry of `select`.
#[derive(Debug)]
pub(crate) struct Selector {
    /// Name, or index in the list.
    pub(crate) name: String,
    pub(crate) organization: Filter,
    space: Filter,
    application: Filter,
    /// The label selector: its text, and its parsed form.
    pub(crate) labels: Option<(String, LabelSelector)>,
    pub(crate) bound_service: Vec<String>,
    annotations: Vec<String>,
    ignored: Vec<Annotation>,
    opt_in: bool,
    pub(crate) processes: Vec<String>,
    pub(crate) how: How,
    pub(crate) routes: RouteKind,
    pub(crate) preferred_routes: Vec<Regex>,
    pub(crate) router_port: Option<u16>,
    pub(crate) authenticator: Option<String>,
    pub(crate) service_credentials: Option<String>,
    pub(crate) own_labels: Vec<(String, String)>,
}

/// A filter by names, a pattern and GUIDs: all parts that are given must match.
#[derive(Debug)]
pub(crate) struct Filter {
    /// Lower-case names.
    pub(crate) names: Vec<String>,
    regex: Option<Regex>,
    pub(crate) guids: Vec<String>,
}

/// The verdicts of selectors on the applications, once their bindings are known.
pub(crate) fn judge(selectors: &[Selector], metadata: &Metadata) -> Judged {
    let judged = selectors.iter().map(|selector| {
        let apps = metadata.apps.iter().enumerate();
        apps.filter_map(|(at, app)| Some((at, selector.judge(app, metadata)?)))
            .collect()
    });
    judged.collect()
}

impl Selector {
    /// Compiles an entry. Reports problems at its keys.
    pub(crate) fn compile(keys: &SelectKeys, at: usize, problems: &mut Problems) -> Option<Self> {
        let mut sound = true;
        let mut wrong = |key: &str, what: String| {
            problems.at(format!("select[{at}].{key}"), what);
            sound = false;
        };
        let mut filter = |key: &str, names: &OneOrMany<String>, regex: &Option<String>, guids| {
            let regex_key = format!("{key}_regex");
            if !names.0.is_empty() && regex.is_some() {
                wrong(&regex_key, format!("cannot be set together with {key}"));
            }
            let regex = regex.as_ref().map(|it| Regex::new(&format!("(?i:{it})")));
            let regex = regex.transpose().unwrap_or_else(|error| {
                wrong(&regex_key, error.to_string());
                None
            });
            let OneOrMany(guids): &OneOrMany<String> = guids;
            Filter {
                names: names.0.iter().map(|name| name.to_lowercase()).collect(),
                regex,
                guids: guids.clone(),
            }
        };
        let organization = filter(
            "organization",
            &keys.organization,
            &keys.organization_regex,
            &keys.organization_guid,
        );
        let space = filter("space", &keys.space, &keys.space_regex, &keys.space_guid);
        let application = filter(
            "application",
            &keys.application,
            &keys.application_regex,
            &keys.application_guid,
        );
        let labels = keys.label_selector.as_ref().map(|text| {
            let read = LabelSelector::parse(text).map_err(|error| wrong("label_selector", error));
            Some((text.clone(), read.ok()?))
        });
        let patterns = keys.preferred_routes.iter().enumerate();
        let preferred_routes = patterns.map(|(number, pattern)| {
            let key = format!("preferred_routes[{number}]");
            Regex::new(pattern).map_err(|error| wrong(&key, error.to_string()))
        });
        let preferred_routes: Vec<_> = preferred_routes.filter_map(Result::ok).collect();
        if !keys.ignore_annotations.is_empty() && keys.annotations.0.is_empty() {
            let what = "has no effect without annotations";
            wrong("ignore_annotations", what.to_owned());
        }
        if keys.opt_in && keys.annotations.0.is_empty() {
            let what = "needs annotations, such as \"prometheus.io/\"";
            wrong("opt_in", what.to_owned());
        }
        if keys.authenticator.is_some() && keys.service_credentials.is_some() {
            let what = "cannot be set together with authenticator";
            wrong("service_credentials", what.to_owned());
        }
        for (key, list) in [("processes", &keys.processes), ("path", &keys.path.0)] {
            if list.is_empty() {
                wrong(key, "must not be empty".to_owned());
            }
        }
        for (key, port) in [("port", keys.port), ("router_port", keys.router_port)] {
            if port == Some(0) {
                wrong(key, "must be from 1 to 65535".to_owned());
            }
        }
        for (key, value) in [
            ("interval", keys.interval),
            ("scrape_timeout", keys.scrape_timeout),
        ] {
            if value.is_some_and(|value| value.0.is_zero()) {
                wrong(key, "must be longer than 0s".to_owned());
            }
        }
        let own_labels = keys.labels.clone().into_iter().collect();
        sound.then(|| Self {
            name: keys.name.clone().unwrap_or_else(|| format!("select[{at}]")),
            organization,
            space,
            application,
            labels: labels.flatten(),
            bound_service: keys.bound_service.0.clone(),
            annotations: keys.annotations.0.clone(),
            ignored: keys.ignore_annotations.clone(),
            opt_in: keys.opt_in,
            processes: keys.processes.clone(),
            how: How {
                paths: keys.path.0.clone(),
                scheme: match keys.protocol {
                    Protocol::Https => "https",
                    Protocol::Http => "http",
                },
                port: keys.port,
                only_port: false,
                interval: keys.interval,
                timeout: keys.scrape_timeout,
            },
            routes: keys.routes,
            preferred_routes,
            router_port: keys.router_port,
            authenticator: keys.authenticator.clone(),
            service_credentials: keys.service_credentials.clone(),
            own_labels,
        })
    }

    /// Decides about an application. `None` if the selector does not match it.
    fn judge(&self, app: &App, metadata: &Metadata) -> Option<Verdict> {
        let bound = |service: &String| metadata.is_bound(&app.guid, service);
        let of = Named {
            guid: app.guid.clone(),
            name: app.name.clone(),
        };
        let matches = self.organization.matches(&app.organization)
            && self.space.matches(&app.space)
            && self.application.matches(&of)
            && self
                .labels
                .as_ref()
                .is_none_or(|(_, labels)| labels.matches(&app.labels))
            && (self.bound_service.is_empty() || self.bound_service.iter().any(bound));
        let scrape = self.value(app, "scrape").map(|(_, value)| value);
        let wanted = match scrape {
            Some("true") => true,
            Some("false") => false,
            _ => !self.opt_in,
        };
        (matches && wanted).then(|| self.how(app))
    }

    /// The settings for an application. An invalid annotation is an error.
    fn how(&self, app: &App) -> Result<How, String> {
        let mut how = self.how.clone();
        if let Some((_, path)) = self.annotation(app, Annotation::Path) {
            how.paths = vec![path.to_owned()];
        }
        if let Some((key, scheme)) = self.annotation(app, Annotation::Scheme) {
            how.scheme = match scheme {
                "http" => "http",
                "https" => "https",
                _ => return Err(format!("annotation {key} is neither http nor https")),
            };
        }
        if let Some((key, port)) = self.annotation(app, Annotation::Port) {
            let port = port.parse().ok().filter(|port| *port > 0);
            how.port = Some(port.ok_or_else(|| format!("annotation {key} is not a port"))?);
            how.only_port = true;
        }
        let period = |of| match self.annotation(app, of) {
            None => Ok(None),
            Some((key, text)) => match text.parse() {
                Ok(Period(Duration::ZERO)) | Err(_) => {
                    Err(format!("annotation {key} is not a duration"))
                }
                Ok(period) => Ok(Some(period)),
            },
        };
        how.interval = period(Annotation::ScrapeInterval)?.or(how.interval);
        how.timeout = period(Annotation::ScrapeTimeout)?.or(how.timeout);
        Ok(how)
    }

    /// An annotation and its key, unless it is ignored.
    fn annotation<'a>(&self, app: &'a App, it: Annotation) -> Option<(String, &'a str)> {
        match self.ignored.contains(&it) {
            true => None,
            false => self.value(app, it.as_str()),
        }
    }

    /// The value of an annotation and its key, from the first prefix with which the application has
    /// it.
    fn value<'a>(&self, app: &'a App, name: &str) -> Option<(String, &'a str)> {
        self.annotations.iter().find_map(|prefix| {
            let key = format!("{prefix}{name}");
            let value = app.annotations.get(&key)?.as_deref()?;
            Some((key, value))
        })
    }
}

impl Filter {
    fn matches(&self, it: &Named) -> bool {
        let named = |name: &String| *name == it.name.to_lowercase();
        (self.names.is_empty() || self.names.iter().any(named))
            && (self.guids.is_empty() || self.guids.contains(&it.guid))
            && self
                .regex
                .as_ref()
                .is_none_or(|regex| regex.is_match(it.name.as_bytes()))
    }

    /// Whether it names objects, so that requests can be restricted to them.
    pub(crate) fn is_narrow(&self) -> bool {
        !self.names.is_empty() || !self.guids.is_empty()
    }
}
