//! Checks a batch against the limits of its tenant.

use std::sync::Arc;

use tokio::time::Instant;

use metrifold_codec::{Name, SeriesMut};
use metrifold_model::{Counts, Rejection, RejectionKind};

use crate::active::View;
use crate::keys::LimitKeys;
use crate::limit::Limit;
use crate::usage::{OverCounts, Usage, refusal};

/// Longest metric name that an answer quotes.
const LONGEST_QUOTE: usize = 100;

/// Limits that apply to a single series.
const OF_SERIES: [Limit; 4] = [
    Limit::ActiveSeries,
    Limit::LabelsPerSeries,
    Limit::LabelNameBytes,
    Limit::LabelValueBytes,
];

/// The check of one batch against the limits of its tenant.
#[derive(Debug)]
pub struct Check {
    limits: Arc<LimitKeys>,
    usage: Arc<Usage>,
    all: Arc<OverCounts>,
    tenant: Arc<str>,
    bounds: Bounds,
    /// The active series; `None` if they are not limited.
    view: Option<View>,
    series: u64,
    samples: u64,
    /// Series and samples over each limit of [`OF_SERIES`].
    over: [Counts; OF_SERIES.len()],
    /// Metric of the first series over a limit.
    first: Option<String>,
    metric: Name,
}

/// The limits on a series, unwrapped from their configuration.
#[derive(Debug)]
struct Bounds {
    /// Series per request. One with more is refused by [`Check::finish`].
    series: u64,
    labels: usize,
    name: usize,
    value: usize,
    active: u64,
    /// Whether the length of names or values is limited.
    lengths: bool,
    soft: bool,
}

/// The part of a batch that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// The reason, for the sender.
    pub rejection: Rejection,
    /// Counts of what was left out.
    pub lost: Counts,
}

impl Bounds {
    fn new(limits: &LimitKeys) -> Self {
        let most = |bound: Option<u64>| {
            bound.map_or(usize::MAX, |most| {
                usize::try_from(most).unwrap_or(usize::MAX)
            })
        };
        let name = most(limits.max_label_name_bytes.map(|size| size.0));
        let value = most(limits.max_label_value_bytes.map(|size| size.0));
        let series = limits.max_series_per_request.filter(|_| !limits.is_soft());
        Self {
            series: series.unwrap_or(u64::MAX),
            labels: most(limits.max_labels_per_series),
            lengths: name.min(value) < usize::MAX,
            name,
            value,
            active: limits.max_active_series.unwrap_or(u64::MAX),
            soft: limits.is_soft(),
        }
    }
}

impl Check {
    /// Begins the check of a batch that came at `now`; `None` if no limit needs the decoded batch.
    ///
    /// # Errors
    ///
    /// Fails with the answer when the tenant is over its rate of samples.
    pub fn begin(
        limits: &Arc<LimitKeys>,
        usage: &Arc<Usage>,
        all: &Arc<OverCounts>,
        tenant: &Arc<str>,
        now: Instant,
    ) -> Result<Option<Self>, Rejection> {
        if !limits.looks_inside() {
            return Ok(None);
        }
        let rate = limits.samples();
        if let Some(rate) = rate
            && let Some(pause) = usage.samples.pause(rate, now)
        {
            let per_second = rate.per_second;
            let reason = format!("tenant {tenant:?} is over {per_second} samples per second");
            usage.over(limits, all, tenant, (Limit::Samples, 1), &reason);
            if !limits.is_soft() {
                return Err(refusal(limits, reason, pause));
            }
        }
        let active = limits.max_active_series.map(|_| usage.active());
        Ok(Some(Self {
            bounds: Bounds::new(limits),
            view: active.map(|active| active.view(now, limits.idle().0)),
            limits: Arc::clone(limits),
            usage: Arc::clone(usage),
            all: Arc::clone(all),
            tenant: Arc::clone(tenant),
            series: 0,
            samples: 0,
            over: [Counts::default(); OF_SERIES.len()],
            first: None,
            metric: Name::new("__name__"),
        }))
    }

    /// Whether a series is within the limits.
    ///
    /// # Errors
    ///
    /// Fails with the exceeded limit if the series must be left out.
    #[inline]
    pub fn series(&mut self, series: &SeriesMut<'_>) -> Result<(), Limit> {
        self.series += 1;
        // The request will be refused, so that its further series must not become active.
        if self.series > self.bounds.series {
            return Err(Limit::SeriesPerRequest);
        }
        let limit = self.exceeded(series);
        if let Some(limit) = limit {
            self.note(limit, series);
            if !self.bounds.soft {
                return Err(limit);
            }
        }
        let counts = series.counts();
        self.samples += u64::from(counts.samples) + u64::from(counts.histograms);
        Ok(())
    }

    #[inline]
    fn exceeded(&mut self, series: &SeriesMut<'_>) -> Option<Limit> {
        let bounds = &self.bounds;
        if series.len() > bounds.labels {
            return Some(Limit::LabelsPerSeries);
        }
        if bounds.lengths {
            for index in 0..series.len() {
                if series.name_at(index).len() > bounds.name {
                    return Some(Limit::LabelNameBytes);
                }
                if series.value_at(index).len() > bounds.value {
                    return Some(Limit::LabelValueBytes);
                }
            }
        }
        let view = self.view.as_mut()?;
        let active = self.usage.active();
        (!active.admit(view, series, bounds.active)).then_some(Limit::ActiveSeries)
    }

    #[cold]
    fn note(&mut self, limit: Limit, series: &SeriesMut<'_>) {
        let place = OF_SERIES.iter().position(|it| *it == limit);
        if let Some(over) = place.and_then(|place| self.over.get_mut(place)) {
            over.add(series.counts());
        }
        if self.first.is_none() {
            let metric = series.get(&self.metric).unwrap_or_default();
            let metric = String::from_utf8_lossy(&metric[..metric.len().min(LONGEST_QUOTE)]);
            self.first = Some(metric.into_owned());
        }
    }

    /// Ends the check: takes the samples out of the rate and reports what was left out.
    ///
    /// # Errors
    ///
    /// Fails with the answer when the batch is refused as a whole.
    pub fn finish(&mut self) -> Result<Option<Excess>, Rejection> {
        let (limits, usage, all) = (&*self.limits, &*self.usage, &*self.all);
        let tenant = &*self.tenant;
        if let Some(most) = limits.max_series_per_request
            && self.series > most
        {
            let series = self.series;
            let reason = format!(
                "request holds {series} series, and tenant {tenant:?} may send {most} at a time: send fewer per request"
            );
            let limit = Limit::SeriesPerRequest;
            usage.over(limits, all, tenant, (limit, 1), &reason);
            if !limits.is_soft() {
                return Err(Rejection::new(RejectionKind::TooLarge, reason));
            }
        }
        if limits.samples_per_second.is_some() {
            usage.samples.take(self.samples as f64);
        }
        let mut lost = Counts::default();
        let mut reasons: Vec<String> = Vec::new();
        for (limit, over) in OF_SERIES.into_iter().zip(self.over) {
            if over.series == 0 {
                continue;
            }
            let reason = self.words(limit, over.series);
            usage.over(limits, all, tenant, (limit, over.series), &reason);
            reasons.push(reason);
            lost += over;
        }
        if reasons.is_empty() || limits.is_soft() {
            return Ok(None);
        }
        let first = self.first.as_deref().unwrap_or_default();
        let reasons = reasons.join("; ");
        let reason = format!("tenant {tenant:?}: {reasons} (first: {first:?})");
        Ok(Some(Excess {
            rejection: Rejection::invalid(reason),
            lost,
        }))
    }

    /// The message for the sender about `series` series over `limit`.
    fn words(&self, limit: Limit, series: u64) -> String {
        let limits = &*self.limits;
        let size = |size: Option<metrifold_base::Size>| size.map_or(0, |size| size.0);
        match limit {
            Limit::LabelsPerSeries => {
                let most = limits.max_labels_per_series.unwrap_or_default();
                format!("{series} series have more than {most} labels")
            }
            Limit::LabelNameBytes => {
                let most = size(limits.max_label_name_bytes);
                format!("{series} series have a label name of more than {most} bytes")
            }
            Limit::LabelValueBytes => {
                let most = size(limits.max_label_value_bytes);
                format!("{series} series have a label value of more than {most} bytes")
            }
            _ => {
                let most = limits.max_active_series.unwrap_or_default();
                format!("{series} series are more than the {most} that may be active")
            }
        }
    }
}

#[cfg(test)]
mod tests;
