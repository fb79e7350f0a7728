//! The edit that gateways are measured with: adds the label `tenant_id`, drops a metric family and
//! a label.
#![allow(dead_code, reason = "each benchmark uses its part")]

use super::payload;

/// Dropped family and dropped label.
const FAMILY: &str = "go_gc_duration_seconds";
const LABEL: &str = "endpoint";

/// Series of a request that remain.
pub fn kept() -> usize {
    let dropped = |series: &usize| payload::labels(0, *series)[0].1 == FAMILY;
    payload::SERIES - (0..payload::SERIES).filter(dropped).count()
}

/// Metrifold's transforms after the source `ingest`; the last one is `clean`.
pub fn transforms() -> String {
    format!(
        "[transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         from = [{{ value = \"team-a\" }}]\nlabel = \"tenant_id\"\n\
         [transforms.clean]\ntype = \"relabel\"\ninputs = [\"tenant\"]\nrules = [\n\
         {{ source_labels = [\"__name__\"], regex = \"{FAMILY}\", action = \"drop\" }},\n\
         {{ regex = \"{LABEL}\", action = \"labeldrop\" }},\n]\n"
    )
}

/// The edit as vmagent's file of rules.
pub fn vmagent_rules() -> String {
    format!(
        "- target_label: tenant_id\n  replacement: team-a\n\
         - source_labels: [__name__]\n  regex: {FAMILY}\n  action: drop\n\
         - regex: {LABEL}\n  action: labeldrop\n"
    )
}
