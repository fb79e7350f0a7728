//! A target as it is scraped: discovered labels after defaults and rules.

use std::fmt::Write as _;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use siphasher::sip::SipHasher24;

use metrifold_base::{Period, scrub};
use metrifold_discovery::{Labels, LabelsBuilder, Target};
use metrifold_exposition::Options;
use metrifold_expr::relabel::Validation;
use metrifold_targets::Relabelled;

use crate::keys::INTERVAL_MIN;
use crate::particulars::{Own, Particulars};
use crate::settings::Settings;

const ADDRESS: &str = "__address__";
const CUSTOM_HISTOGRAMS: &str = "__convert_classic_histograms_to_nhcb__";
const CLASSIC_HISTOGRAMS: &str = "__always_scrape_classic_histograms__";
const INSTANCE: &str = "instance";
const JOB: &str = "job";
const METRICS_PATH: &str = "__metrics_path__";
const NATIVE_HISTOGRAMS: &str = "__scrape_native_histograms__";
const PARAM: &str = "__param_";
const SCHEME: &str = "__scheme__";
const SCRAPE_INTERVAL: &str = "__scrape_interval__";
const SCRAPE_TIMEOUT: &str = "__scrape_timeout__";

/// A target as it is scraped.
#[derive(Debug)]
pub(crate) struct ScrapeTarget {
    /// Labels as discovered, with defaults.
    pub(crate) discovered: Target,
    /// Labels of its series.
    pub(crate) labels: Labels,
    pub(crate) uri: Uri,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// How its page is read.
    pub(crate) options: Options,
    /// Hash of its labels and URL, which identifies the target.
    pub(crate) hash: u64,
    /// Hash of its labels, which identify its series. They decide which instance scrapes it, so that
    /// it stays there when it moves to another URL.
    pub(crate) labels_hash: u64,
    pub(crate) own: Own,
}

/// Reason why a discovered target is not scraped.
pub(crate) type Reason = String;

/// Reason for targets that a rule drops.
pub(crate) const BY_RULE: &str = "a rule drops it";

/// Makes targets from those that came from an inlet, in the same order.
pub(crate) fn make(
    settings: &Settings,
    particulars: &dyn Particulars,
    discovered: &[Target],
    inlet: usize,
) -> Vec<(Target, Result<Arc<ScrapeTarget>, Reason>)> {
    let with_defaults = discovered.iter().map(|target| populate(settings, target));
    let with_defaults: Vec<Target> = with_defaults.collect();
    let relabelled = settings.rules.apply(&with_defaults);
    let made = with_defaults.into_iter().zip(relabelled).zip(discovered);
    made.map(|((before, after), found)| {
        let target = match after {
            Relabelled::Dropped => Err(BY_RULE.to_owned()),
            Relabelled::WithoutAddress => Err("it has no address".to_owned()),
            Relabelled::Kept(labels) => particulars
                .of(found, inlet)
                .and_then(|own| finish(settings, found, before.clone(), &labels, own)),
        };
        (before, target.map(Arc::new))
    })
    .collect()
}

/// Adds the default labels of a target.
fn populate(settings: &Settings, found: &Target) -> Target {
    let keys = &settings.keys;
    let mut labels = LabelsBuilder::default();
    let interval = keys.scrape_interval.to_string();
    let timeout = keys.timeout().to_string();
    labels
        .push(JOB, settings.job.as_str())
        .push(SCRAPE_INTERVAL, interval)
        .push(SCRAPE_TIMEOUT, timeout)
        .push(METRICS_PATH, keys.metrics_path.as_str())
        .push(NATIVE_HISTOGRAMS, word(keys.scrape_native_histograms))
        .push(CLASSIC_HISTOGRAMS, word(keys.scrape_classic_histograms))
        .push(
            CUSTOM_HISTOGRAMS,
            word(keys.convert_classic_histograms_to_nhcb),
        )
        .push(SCHEME, keys.scheme.as_str());
    for (name, values) in &keys.params {
        if let Some(first) = values.0.first() {
            labels.push(format!("{PARAM}{name}"), first.as_str());
        }
    }
    for (name, value) in found.iter() {
        labels.push(name, value);
    }
    Arc::new(labels.build())
}

fn finish(
    settings: &Settings,
    found: &Labels,
    discovered: Target,
    labels: &Labels,
    own: Own,
) -> Result<ScrapeTarget, Reason> {
    let get = |name: &str| labels.get(name).unwrap_or_default();
    let address = get(ADDRESS);
    if address.contains('/') {
        return Err(format!(
            "{address:?} is not an address: it has a slash in it"
        ));
    }
    let scheme = get(SCHEME);
    if !["http", "https"].contains(&scheme) {
        return Err(format!("{SCHEME} is {scheme:?}: it must be http or https"));
    }
    let interval = duration(SCRAPE_INTERVAL, get(SCRAPE_INTERVAL))?;
    let timeout = duration(SCRAPE_TIMEOUT, get(SCRAPE_TIMEOUT))?;
    let timeout = match is_default(settings, found, timeout) {
        // A shorter interval than the source's bounds a timeout that nobody has set.
        true => timeout.min(interval),
        false => timeout,
    };
    if interval < INTERVAL_MIN {
        return Err(format!(
            "{SCRAPE_INTERVAL} is {interval}: it must be at least 100ms"
        ));
    }
    if timeout.0.is_zero() || timeout > interval {
        return Err(format!(
            "{SCRAPE_TIMEOUT} is {timeout}: it must be longer than 0s and at most {interval}"
        ));
    }
    let mut options = settings.options;
    for (name, option) in [
        (NATIVE_HISTOGRAMS, &mut options.native_histograms),
        (CLASSIC_HISTOGRAMS, &mut options.classic_histograms),
        (CUSTOM_HISTOGRAMS, &mut options.custom_histograms),
    ] {
        if !get(name).is_empty() {
            *option = truth(name, get(name))?;
        }
    }
    let uri = url(settings, labels);
    let uri: Uri = uri
        .parse()
        .map_err(|error| scrub(&format!("{uri:?} is not a URL: {error}")))?;
    if !has_usable_port(&uri) {
        return Err(format!(
            "the port of {address:?} is not a number up to 65535"
        ));
    }
    let public = labels.iter().filter(|(name, _)| !name.starts_with("__"));
    let mut with_instance = LabelsBuilder::default();
    with_instance.push(INSTANCE, address);
    let validation = settings.keys.metric_name_validation_scheme;
    for (name, value) in public {
        if !validation.is_name(name.as_bytes()) {
            let named = match validation {
                Validation::Legacy => "a legacy name",
                Validation::Utf8 => "a name",
            };
            return Err(format!("its label {name:?} is not {named}"));
        }
        with_instance.push(name, value);
    }
    let public = with_instance.build();
    Ok(ScrapeTarget {
        hash: hash(&public, Some(&uri)),
        labels_hash: hash(&public, None),
        discovered,
        labels: public,
        uri,
        interval: interval.0,
        timeout: timeout.0,
        options,
        own,
    })
}

/// Whether a URL has a port that exists, or none. The client would take the protocol's default in
/// place of another one.
fn has_usable_port(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (_, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let port = place.strip_prefix(uri.host().unwrap_or_default());
    uri.port_u16().is_some() || port.is_none_or(|port| port.len() <= 1)
}

/// Whether a timeout is the default: neither configured nor discovered nor set by a rule.
fn is_default(settings: &Settings, found: &Labels, timeout: Period) -> bool {
    let configured = settings.keys.scrape_timeout.is_some();
    !configured && found.get(SCRAPE_TIMEOUT).is_none() && timeout == settings.keys.timeout()
}

fn word(truth: bool) -> &'static str {
    match truth {
        true => "true",
        false => "false",
    }
}

/// Reads a truth value as Go does.
fn truth(name: &str, text: &str) -> Result<bool, Reason> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{name} is {text:?}: it must be true or false")),
    }
}

fn duration(name: &str, text: &str) -> Result<Period, Reason> {
    let period = text.parse::<Period>();
    period.map_err(|error| format!("{name}: {error}"))
}

/// URL of the target's page.
fn url(settings: &Settings, labels: &Labels) -> String {
    let get = |name: &str| labels.get(name).unwrap_or_default();
    let mut url = format!("{}://{}", get(SCHEME), get(ADDRESS));
    let path = get(METRICS_PATH);
    if !path.starts_with('/') {
        url.push('/');
    }
    escape(path, b"/:@!$&'()*+,;=-._~", &mut url);
    let mut params: Vec<(String, String)> = Vec::new();
    for (name, values) in &settings.keys.params {
        let others = values.0.iter().skip(1);
        params.extend(others.map(|value| (name.clone(), value.clone())));
    }
    // Placed before the other values of the same parameter.
    let own = labels.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix(PARAM)?;
        Some((name.to_owned(), value.to_owned()))
    });
    params.splice(0..0, own);
    params.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (at, (name, value)) in params.iter().enumerate() {
        url.push(if at == 0 { '?' } else { '&' });
        escape(name, b"-._~", &mut url);
        url.push('=');
        escape(value, b"-._~", &mut url);
    }
    url
}

/// Appends a text, percent-encoding all bytes but letters, digits and those in `plain`.
fn escape(text: &str, plain: &[u8], url: &mut String) {
    for byte in text.bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() || plain.contains(&byte) => url.push(byte.into()),
            // Writing to a string cannot fail.
            byte => {
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
}

/// Hash of a target's labels, and of its URL if given. It must be the same on every instance and in
/// every version, since it decides when and on which instance the target is scraped.
fn hash(labels: &Labels, uri: Option<&Uri>) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    let mut put = |text: &str| {
        hasher.write(&(text.len() as u64).to_le_bytes());
        hasher.write(text.as_bytes());
    };
    for (name, value) in labels.iter() {
        put(name);
        put(value);
    }
    if let Some(uri) = uri {
        put(uri.scheme_str().unwrap_or_default());
        put(uri.authority().map_or("", |authority| authority.as_str()));
        put(uri.path_and_query().map_or("", |path| path.as_str()));
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use crate::keys::ScrapeKeys;
    use crate::particulars::Plain;

    use super::*;

    fn made(keys: &str, labels: &[(&str, &str)]) -> Result<Arc<ScrapeTarget>, Reason> {
        let keys: ScrapeKeys = toml::from_str(keys).unwrap();
        let settings = Settings::new(&keys, "source").unwrap();
        let target = Arc::new(labels.iter().copied().collect::<Labels>());
        make(&settings, &Plain, &[target], 0).pop().unwrap().1
    }

    #[test]
    fn defaults_hold_unless_labels_or_rules_say_otherwise() {
        let target = made("", &[(ADDRESS, "a:1"), ("__meta_x", "y"), ("env", "prod")]).unwrap();
        assert_eq!(target.uri, "http://a:1/metrics");
        assert_eq!(
            target.labels.to_string(),
            r#"{env="prod", instance="a:1", job="source"}"#
        );
        assert_eq!(target.interval, Duration::from_secs(60));
        let labels = [
            (ADDRESS, "a:1"),
            (SCHEME, "https"),
            (METRICS_PATH, "/a b?c"),
            ("__param_module", "x&y"),
            (SCRAPE_INTERVAL, "5s"),
            (SCRAPE_TIMEOUT, "5s"),
            (JOB, "j"),
            (INSTANCE, "i"),
            (CLASSIC_HISTOGRAMS, "T"),
        ];
        let target = made("params = { module = ['1', '2'], a = 'b' }", &labels).unwrap();
        assert_eq!(
            target.uri,
            "https://a:1/a%20b%3Fc?a=b&module=x%26y&module=2"
        );
        assert_eq!(target.labels.to_string(), r#"{instance="i", job="j"}"#);
        assert_eq!(target.timeout, Duration::from_secs(5));
        let Options {
            native_histograms,
            classic_histograms,
            ..
        } = target.options;
        assert_eq!((native_histograms, classic_histograms), (false, true));
        for address in ["[::1]:1", "[::1]", "a:"] {
            let target = made("", &[(ADDRESS, address)]).unwrap();
            assert_eq!(target.uri.authority().unwrap(), address);
        }
        let rules = "relabel = [{ source_labels = ['__meta_p'], target_label = '__address__', replacement = 'b:$1' }]";
        let target = made(rules, &[(ADDRESS, "a:1"), ("__meta_p", "2")]).unwrap();
        assert_eq!(target.uri, "http://b:2/metrics");
    }

    #[test]
    fn a_timeout_that_nobody_has_set_is_at_most_the_interval() {
        let short = (SCRAPE_INTERVAL, "5s");
        let by_rule = "relabel = [{ target_label = '__scrape_interval__', replacement = '5s' }]";
        for (keys, labels) in [
            ("", &[(ADDRESS, "a"), short][..]),
            (by_rule, &[(ADDRESS, "a")]),
        ] {
            let target = made(keys, labels).unwrap();
            assert_eq!(target.timeout, Duration::from_secs(5), "{keys}");
        }
        // One that somebody has set is an error, as in Prometheus.
        let rule = "relabel = [{ target_label = '__scrape_timeout__', replacement = '9s' }]";
        for (keys, labels) in [
            ("scrape_timeout = '10s'", &[(ADDRESS, "a"), short][..]),
            ("", &[(ADDRESS, "a"), short, (SCRAPE_TIMEOUT, "10s")]),
            (rule, &[(ADDRESS, "a"), short]),
        ] {
            let found = made(keys, labels).unwrap_err();
            assert!(found.contains("at most 5s"), "{keys}: {found}");
        }
    }

    #[test]
    fn what_cannot_be_scraped_says_why() {
        let drop = "relabel = [{ action = 'drop' }]";
        for (keys, labels, reason) in [
            (drop, &[(ADDRESS, "a:1")][..], "a rule drops it"),
            ("", &[("x", "y")], "it has no address"),
            ("", &[(ADDRESS, "a/b")], "slash"),
            ("", &[(ADDRESS, "a"), (SCHEME, "ftp")], "http or https"),
            ("", &[(ADDRESS, "a"), (SCRAPE_TIMEOUT, "2m")], "at most 1m"),
            (
                "",
                &[(ADDRESS, "a"), (SCRAPE_INTERVAL, "1")],
                "not a duration",
            ),
            ("", &[(ADDRESS, "a b")], "not a URL"),
            ("", &[(ADDRESS, "a:99999")], "up to 65535"),
            ("", &[(ADDRESS, "[::1]:65536")], "up to 65535"),
            ("", &[(ADDRESS, "a"), (NATIVE_HISTOGRAMS, "yes")], "true or"),
            (
                "metric_name_validation_scheme = 'legacy'",
                &[(ADDRESS, "a"), ("b.c", "d")],
                "legacy",
            ),
        ] {
            let found = made(keys, labels).unwrap_err();
            assert!(found.contains(reason), "{found}");
        }
    }

    #[test]
    fn a_target_stays_the_same_when_only_its_interval_changes() {
        let of = |labels: &[(&str, &str)]| made("", labels).unwrap().hash;
        let hash = of(&[(ADDRESS, "a:1")]);
        // The hash decides which instance scrapes a target, in all versions.
        assert_eq!(hash, of(&[(ADDRESS, "a:1"), (SCRAPE_INTERVAL, "5m")]));
        assert_eq!(hash, of(&[(ADDRESS, "a:1"), ("__meta_x", "1")]));
        assert_ne!(hash, of(&[(ADDRESS, "a:2"), (INSTANCE, "a:1")]));
        assert_ne!(hash, of(&[(ADDRESS, "a:1"), ("env", "x")]));
        let labels_of = |labels: &[(&str, &str)]| made("", labels).unwrap().labels_hash;
        let labels = labels_of(&[(ADDRESS, "a:1")]);
        assert_eq!(labels, labels_of(&[(ADDRESS, "a:2"), (INSTANCE, "a:1")]));
        assert_ne!(labels, labels_of(&[(ADDRESS, "a:2")]));
    }
}
