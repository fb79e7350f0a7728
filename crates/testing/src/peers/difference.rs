//! Compares the samples of two programs.

use super::Samples;
use crate::wait::Deadline;

/// The first difference between two sets of samples. Values may differ by the relative `tolerance`.
fn difference(found: &Samples, expected: &Samples, tolerance: f64) -> Option<String> {
    for labels in expected.keys() {
        if !found.contains_key(labels) {
            return Some(format!("{labels:?} is missing"));
        }
    }
    for (labels, found) in found {
        let Some(expected) = expected.get(labels) else {
            return Some(format!("{labels:?} came from nowhere"));
        };
        let times = |values: &[(i64, f64)]| values.iter().map(|v| v.0).collect::<Vec<_>>();
        if times(found) != times(expected) {
            return Some(format!(
                "{labels:?} has\n{found:?}\ninstead of\n{expected:?}"
            ));
        }
        let same = |found: f64, expected: f64| {
            found.to_bits() == expected.to_bits()
                || (found.is_nan() && expected.is_nan())
                || (found - expected).abs() <= tolerance * expected.abs()
                || (tolerance > 0.0 && found.abs().max(expected.abs()) < 1e-300)
        };
        if let Some((f, e)) = found.iter().zip(expected).find(|(f, e)| !same(f.1, e.1)) {
            return Some(format!("{labels:?} has {f:?} instead of {e:?}"));
        }
    }
    None
}

/// Waits until a set of samples is as expected.
#[track_caller]
pub fn until_same(
    what: &str,
    tolerance: f64,
    mut look: impl FnMut() -> (Samples, Samples),
) -> Samples {
    let deadline = Deadline::new(what);
    loop {
        let (found, expected) = look();
        let Some(difference) = difference(&found, &expected, tolerance) else {
            return found;
        };
        assert!(!deadline.left().is_zero(), "{what}: {difference}");
        deadline.pause();
    }
}
