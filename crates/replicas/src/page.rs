//! Metrics under the names of mpp, the proxy that this router can replace, and a status page.

use std::fmt::Write;
use std::time::Duration;

use metrifold_base::Period;

use crate::fleet::{View, ViewOf, ago};
use crate::signals::Span;

/// Facts for the status page besides the state of the replicas.
pub(crate) struct Facts<'a> {
    pub(crate) name: &'a str,
    pub(crate) up: Duration,
    pub(crate) interval: Period,
    pub(crate) affinity: Vec<&'static str>,
    pub(crate) retries_left: f64,
    pub(crate) slow: Option<Duration>,
}

/// The metrics of mpp, under mpp's names.
pub(crate) fn metrics(
    view: &View,
    selected: usize,
    hits: impl Iterator<Item = (&'static str, u64)>,
) -> String {
    let mut page = String::new();
    let version = env!("CARGO_PKG_VERSION");
    family(
        &mut page,
        "mpp_build_info",
        "gauge",
        "Always 1; the label version has the version of Metrifold.",
    );
    let _ = writeln!(page, "mpp_build_info{{version=\"{version}\"}} 1");
    family(
        &mut page,
        "mpp_selected_backends",
        "gauge",
        "Number of replicas that the strategy selects.",
    );
    let _ = writeln!(page, "mpp_selected_backends {selected}");
    family(
        &mut page,
        "mpp_selection_events",
        "counter",
        "Total number of updates of the selection.",
    );
    let _ = writeln!(page, "mpp_selection_events {}", view.selections);
    type Read = fn(&ViewOf) -> u64;
    let counts: [(&str, &str, Read); 3] = [
        (
            "mpp_requests",
            "Total number of requests to a replica.",
            |it| it.counts.requests,
        ),
        (
            "mpp_retries",
            "Total number of queries retried because the replica failed.",
            |it| it.counts.retries,
        ),
        (
            "mpp_response_milliseconds",
            "Total time in milliseconds until the replica answered.",
            |it| it.counts.milliseconds,
        ),
    ];
    for (name, help, read) in counts {
        family(&mut page, name, "counter", help);
        for replica in &view.replicas {
            let _ = writeln!(
                page,
                "{name}{{backend={:?}}} {}",
                replica.url,
                read(replica)
            );
        }
    }
    family(
        &mut page,
        "mpp_affinity_hits",
        "counter",
        "Total number of queries sent to a replica by affinity.",
    );
    for (kind, hits) in hits {
        let _ = writeln!(page, "mpp_affinity_hits{{type=\"{kind}\"}} {hits}");
    }
    page
}

fn family(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ok:#1a7f37;--bad:#cf222e;--dim:#8888;--bar:#4a90d9}\
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.5rem}dd{margin:0}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.45rem .6rem;\
border-bottom:1px solid var(--dim);vertical-align:top}th{font-weight:600}\
.ok{color:var(--ok);font-weight:600}.bad{color:var(--bad);font-weight:600}small{opacity:.75}\
svg{display:block;width:100%;height:14px;background:#8882;border-radius:3px}rect{fill:var(--bar)}\
.probe{display:inline-block;width:4px;height:14px;margin-right:1px;background:var(--ok)}\
.probe.no{background:var(--bad)}.note{border-left:4px solid var(--bad);padding:.4rem .8rem}";

/// The status page: the selection with its reasons, the results of probes, and the coverage of each
/// replica.
pub(crate) fn status(facts: &Facts<'_>, view: &View, wall: i64) -> String {
    let mut page = String::with_capacity(8 << 10);
    let title = escape(facts.name);
    let _ = write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=10>\
         <meta name=viewport content=\"width=device-width\"><title>{title} - replicas</title>\
         <style>{STYLE}</style><h1>Replicas of {title}</h1>"
    );
    if view.stale {
        let text = match view.selected.is_empty() {
            true => "No replica can be queried.",
            false => "No replica can be queried now; this is the last selection.",
        };
        let _ = write!(page, "<p class=note>{text}</p>");
    }
    if let Some(remark) = view.remark {
        let _ = write!(page, "<p class=note>{}</p>", escape(remark));
    }
    let affinity = match facts.affinity.is_empty() {
        true => "off".to_owned(),
        false => facts.affinity.join(", "),
    };
    let slow = facts
        .slow
        .map_or("not known yet".to_owned(), |it| format!("{it:.1?}"));
    page.push_str("<dl>");
    for (name, value) in [
        ("strategy", view.strategy.to_owned()),
        ("up", ago(facts.up.as_millis() as i64)),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("selection interval", facts.interval.to_string()),
        ("affinity", affinity),
        ("retries left", format!("{:.0}", facts.retries_left)),
        ("slow answers take", slow),
    ] {
        let _ = write!(page, "<dt>{name}<dd>{}", escape(&value));
    }
    page.push_str("</dl><table><tr><th>replica<th>state<th>compared<th>probes<th>queries");
    for replica in &view.replicas {
        row(&mut page, replica);
    }
    page.push_str("</table>");
    coverage(&mut page, view, wall);
    if !view.events.is_empty() {
        page.push_str("<h2>Changes</h2><table>");
        for event in view.events.iter().rev() {
            let when = ago(event.seconds_ago as i64 * 1000);
            let _ = write!(page, "<tr><td>{when} ago<td>{}", escape(&event.text));
        }
        page.push_str("</table>");
    }
    page.push_str("</html>\n");
    page
}

fn row(page: &mut String, replica: &ViewOf) {
    let url = escape(&replica.url);
    let (class, state) = match (replica.available, replica.selected) {
        (true, true) => ("ok", "selected"),
        (true, false) => ("", "available"),
        (false, _) => ("bad", "not available"),
    };
    let labels: Vec<String> = replica
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let reason = replica.reason.as_deref().unwrap_or_default();
    let version = replica
        .signals
        .as_ref()
        .and_then(|it| it.version.as_deref());
    let version = version.map_or(String::new(), |it| format!("Prometheus {it}"));
    let _ = write!(
        page,
        "<tr><td><a href=\"{url}/status\">{url}</a><br><small>{} weight {} {}</small>\
         <td><span class=\"{class}\">{state}</span><br><small>{}</small><td>{}<td>",
        escape(&version),
        replica.weight,
        escape(&labels.join(" ")),
        escape(reason),
        escape(&replica.compared),
    );
    for probe in &replica.probes {
        let class = if probe.error.is_some() {
            "probe no"
        } else {
            "probe"
        };
        let text = probe.error.as_deref().unwrap_or("ok");
        let _ = write!(
            page,
            "<span class=\"{class}\" title=\"{} ms: {}\"></span>",
            probe.milliseconds,
            escape(text)
        );
    }
    let counts = replica.counts;
    let _ = write!(
        page,
        "<td>{} sent, {} in flight<br><small>{} failed, {} retried, {} hedged</small>",
        counts.requests, counts.in_flight, counts.failures, counts.retries, counts.hedges
    );
}

/// Draws the coverage of each replica, as bars over a common time axis.
fn coverage(page: &mut String, view: &View, wall: i64) {
    let spans = view.replicas.iter().flat_map(|it| &it.coverage);
    let Some(first) = spans.map(|span| span.start).min() else {
        return;
    };
    let whole = wall.saturating_sub(first).max(1) as f64;
    let place = |time: i64| (time.clamp(first, wall) - first) as f64 / whole * 1000.0;
    let _ = write!(
        page,
        "<h2>Coverage</h2><p><small>from {} ago until now</small><table>",
        ago(wall - first)
    );
    for replica in &view.replicas {
        let _ = write!(
            page,
            "<tr><td style=\"width:20rem\">{}<td><svg viewBox=\"0 0 1000 14\" preserveAspectRatio=none>",
            escape(&replica.url)
        );
        for Span { start, end } in &replica.coverage {
            let (from, to) = (place(*start), place(*end));
            let width = (to - from).max(1.0);
            let _ = write!(page, "<rect x={from:.1} y=0 width={width:.1} height=14 />");
        }
        page.push_str("</svg>");
    }
    page.push_str("</table>");
}

/// Escapes a text for HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_text_and_no_markup() {
        assert_eq!(
            escape("<a href=\"x\">'&"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;"
        );
    }
}
