//! Replicas from the targets of providers.

use std::cmp::Ordering;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tracing::warn;

use metrifold_discovery::{Labels, Targets};
use metrifold_replicas::{Replica, Router, Upstream};

use super::Scheme;

/// Label with the scheme of a target.
const SCHEME: &str = "__scheme__";

/// Label with the share of queries of a target.
const WEIGHT: &str = "__replica_weight__";

/// Settings by which a target becomes a replica.
pub(super) struct Reading {
    pub(super) scheme: Scheme,
    pub(super) order_label: Option<String>,
    pub(super) upstream: Arc<Upstream>,
}

impl Reading {
    /// All replicas: the listed ones, followed by those of the providers.
    pub(super) fn all(&self, listed: &[Replica], found: &mut [Targets]) -> Vec<Replica> {
        let mut replicas = listed.to_vec();
        for targets in found {
            let snapshot = targets.snapshot();
            let mut targets = snapshot.targets().to_vec();
            if let Some(label) = &self.order_label {
                // A stable sort: targets with equal values stay in the order of their addresses.
                targets.sort_by(|a, b| ordered(a.get(label), b.get(label)));
            }
            replicas.extend(targets.iter().filter_map(|target| self.replica(target)));
        }
        replicas
    }

    /// Updates the router whenever the targets change. Runs until it is dropped.
    pub(super) async fn follow(&self, listed: &[Replica], found: &mut [Targets], router: &Router) {
        loop {
            changed(found).await;
            router.set(self.all(listed, found));
        }
    }

    fn replica(&self, target: &Labels) -> Option<Replica> {
        let address = target.address();
        let scheme = target.get(SCHEME).unwrap_or(match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        });
        let url = match address.contains("://") {
            true => address.to_owned(),
            false => format!("{scheme}://{address}"),
        };
        let weight = target.get(WEIGHT).map_or(Ok(1), str::parse::<u32>);
        let weight = weight.map_err(|_| format!("{WEIGHT} is not a number"));
        let replica = weight.and_then(|weight| Replica::new(&url, weight, self.upstream.clone()));
        match replica {
            Ok(mut replica) => {
                let shown = target.iter().filter(|(name, _)| !name.starts_with("__"));
                let shown = shown.map(|(name, value)| (name.to_owned(), value.to_owned()));
                replica.labels = shown.collect();
                Some(replica)
            }
            Err(error) => {
                warn!(%address, %error, "target is not usable as a replica");
                None
            }
        }
    }
}

/// Orders label values: numbers by value, then words, then targets without the label.
fn ordered(a: Option<&str>, b: Option<&str>) -> Ordering {
    let key = |text: Option<&str>| {
        let number = text.and_then(|text| text.parse::<f64>().ok());
        (text.is_none(), number.is_none(), number.unwrap_or(0.0))
    };
    let (x, y) = (key(a), key(b));
    let numbers = (x.0, x.1).cmp(&(y.0, y.1)).then(x.2.total_cmp(&y.2));
    numbers.then_with(|| a.cmp(&b))
}

/// Waits for a change of any provider's targets; for ever without providers.
async fn changed(found: &mut [Targets]) {
    let mut waiting: Vec<Pin<Box<_>>> = found
        .iter_mut()
        .map(|targets| Box::pin(targets.changed()))
        .collect();
    std::future::poll_fn(|cx| {
        let ready = waiting.iter_mut().any(|it| it.as_mut().poll(cx).is_ready());
        if ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_as_numbers_and_before_words() {
        let mut values = [Some("10"), None, Some("b"), Some("9"), Some("a")];
        values.sort_by(|a, b| ordered(*a, *b));
        assert_eq!(values, [Some("9"), Some("10"), Some("a"), Some("b"), None]);
    }
}
