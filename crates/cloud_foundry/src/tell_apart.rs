//! Labels that tell the targets of one instance apart: without them, the series that report on their
//! scrapes, such as `up`, would be the same.

use std::collections::HashMap;

use metrifold_discovery::{Labels, LabelsBuilder};

use crate::targets::Found;

/// Adds the path to the targets of each instance that has several, whichever selectors found them,
/// and the URL where the path is not enough.
pub(crate) fn tell_apart(found: &mut [Found]) {
    let all = found.iter_mut().flat_map(|it| &mut it.targets).collect();
    let path = |it: &Labels| it.get("__metrics_path__").unwrap_or_default().to_owned();
    let several = mark(all, instance, "metrics_path", path);
    mark(several, shown, "metrics_url", url);
}

/// Adds a label to the targets for which `same` yields the same text as for another one. Returns
/// these.
fn mark<'a>(
    targets: Vec<&'a mut Labels>,
    same: fn(&Labels) -> String,
    name: &str,
    value: fn(&Labels) -> String,
) -> Vec<&'a mut Labels> {
    let texts: Vec<String> = targets.iter().map(|target| same(target)).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for text in &texts {
        *counts.entry(text).or_default() += 1;
    }
    let mut marked = Vec::new();
    for (target, text) in targets.into_iter().zip(&texts) {
        if counts.get(text.as_str()).is_some_and(|count| *count > 1) {
            let mut labels = LabelsBuilder::default();
            for (name, value) in target.iter() {
                labels.push(name, value);
            }
            labels.push(name, value(target));
            *target = labels.build();
            marked.push(target);
        }
    }
    marked
}

/// The labels that identify an instance, whatever a selector adds.
fn instance(target: &Labels) -> String {
    let names = ["cf_instance_id", "cf_process_type", "cf_process_id"];
    let parts = names.map(|name| target.get(name).unwrap_or_default());
    parts.join(" ")
}

/// The labels that its series get.
fn shown(target: &Labels) -> String {
    let shown = target.iter().filter(|(name, _)| !name.starts_with("__"));
    shown.collect::<Labels>().to_string()
}

fn url(target: &Labels) -> String {
    let get = |name: &str| target.get(name).unwrap_or_default();
    let (scheme, path) = (get("__scheme__"), get("__metrics_path__"));
    format!("{scheme}://{}{path}", target.address())
}
