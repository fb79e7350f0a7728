//! The edit that gateways are measured with: the label `tenant_id` added, one metric family and one
//! label dropped.
#![allow(dead_code, reason = "each benchmark uses its part")]

use super::payload;

/// The family and the label that are dropped.
const FAMILY: &str = "go_gc_duration_seconds";
const LABEL: &str = "endpoint";

/// How many of a request's series are left.
pub fn kept() -> usize {
    let dropped = |series: &usize| payload::labels(0, *series)[0].1 == FAMILY;
    payload::SERIES - (0..payload::SERIES).filter(dropped).count()
}

/// Metrifold's transforms behind the source `ingest`; the last one is `clean`.
pub fn transforms() -> String {
    format!(
        "[transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         from = [{{ value = \"team-a\" }}]\nlabel = \"tenant_id\"\n\
         [transforms.clean]\ntype = \"relabel\"\ninputs = [\"tenant\"]\nrules = [\n\
         {{ source_labels = [\"__name__\"], regex = \"{FAMILY}\", action = \"drop\" }},\n\
         {{ regex = \"{LABEL}\", action = \"labeldrop\" }},\n]\n"
    )
}

/// The same as a file of vmagent's.
pub fn vmagent_rules() -> String {
    format!(
        "- target_label: tenant_id\n  replacement: team-a\n\
         - source_labels: [__name__]\n  regex: {FAMILY}\n  action: drop\n\
         - regex: {LABEL}\n  action: labeldrop\n"
    )
}
