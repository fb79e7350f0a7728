//! Which series of a batch are kept, and with which labels.

use std::time::Duration;

use metrifold_dedupe::Local;

use super::super::testing::{apply, batch, labels, origin};
use super::*;

const BOUNDS: Bounds = Bounds {
    failover: Duration::from_secs(30),
    forget: Duration::from_secs(1800),
    clusters: 2,
    total: 10,
};

fn transform(text: &str) -> DedupeTransform {
    let config: DedupeConfig = toml::from_str(text).unwrap();
    config.make(Arc::new(Local::new(BOUNDS)))
}

fn of(cluster: &str, replica: &str) -> super::super::testing::Labels {
    labels(&[
        ("__name__", "up"),
        ("__replica__", replica),
        ("cluster", cluster),
    ])
}

/// The series that remain of a tenant's batch, and those dropped.
fn send(
    transform: &DedupeTransform,
    tenant: &str,
    series: &[super::super::testing::Labels],
) -> (Vec<super::super::testing::Labels>, Vec<(&'static str, u64)>) {
    let mut batch = batch(series, &[], origin());
    batch.set_tenant(tenant.into());
    let (_, outcome) = apply(transform, batch).unwrap();
    let emitted = outcome.emitted.into_iter().next();
    let series = emitted.map(|(_, _, series, _)| series).unwrap_or_default();
    let series = series.into_iter().map(|(labels, _)| labels).collect();
    (series, outcome.dropped)
}

#[test]
fn the_elected_replica_loses_its_label_and_the_other_is_left_out() {
    let transform = transform("");
    let kept = labels(&[("__name__", "up"), ("cluster", "eu")]);
    for _ in 0..3 {
        let (series, dropped) = send(&transform, "t", &[of("eu", "a")]);
        assert_eq!((series, dropped), (vec![kept.clone()], vec![]));
        let (series, dropped) = send(&transform, "t", &[of("eu", "b")]);
        assert_eq!((series.len(), dropped), (0, vec![("duplicate", 1)]));
    }
}

#[test]
fn every_series_of_a_batch_is_decided_about_by_itself() {
    let transform = transform("");
    send(&transform, "t", &[of("eu", "a"), of("us", "b")]);
    let plain = labels(&[("__name__", "up"), ("cluster", "eu")]);
    let lonely = labels(&[("__name__", "up"), ("__replica__", "b")]);
    let mixed = [
        of("eu", "b"),
        of("us", "b"),
        plain.clone(),
        lonely.clone(),
        of("eu", "a"),
    ];
    let (series, dropped) = send(&transform, "t", &mixed);
    let us = labels(&[("__name__", "up"), ("cluster", "us")]);
    let expected = vec![us, plain.clone(), lonely, plain];
    assert_eq!((series, dropped), (expected, vec![("duplicate", 1)]));
}

#[test]
fn tenants_have_elections_and_labels_of_their_own() {
    let transform = transform("[tenants.own]\nreplica_label = 'replica'\ncluster_label = 'prom'");
    send(&transform, "t", &[of("eu", "a")]);
    assert_eq!(send(&transform, "u", &[of("eu", "b")]).0.len(), 1);
    let (series, _) = send(&transform, "own", &[of("eu", "a")]);
    assert_eq!(series, [of("eu", "a")]);
    let own = labels(&[("__name__", "up"), ("prom", "eu"), ("replica", "a")]);
    let (series, _) = send(&transform, "own", &[own]);
    assert_eq!(series, [labels(&[("__name__", "up"), ("prom", "eu")])]);
}

#[test]
fn clusters_beyond_the_most_are_refused_and_the_rest_goes_on() {
    let transform = transform("max_clusters = 2");
    let (series, dropped) = send(&transform, "t", &[of("a", "r"), of("b", "r"), of("c", "r")]);
    assert_eq!(
        (series.len(), dropped),
        (2, vec![("too_many_ha_clusters", 1)])
    );
    let long = "x".repeat(LONGEST_NAME + 1);
    let (series, dropped) = send(&transform, "t", &[of("a", "r"), of("a", &long)]);
    assert_eq!((series.len(), dropped), (1, vec![("ha_name_too_long", 1)]));
}

#[test]
fn what_is_refused_and_what_is_a_duplicate_is_told() {
    let transform = transform("");
    let mut batch = batch(
        &[of("a", "r"), of("a", "s"), of("b", "r"), of("c", "r")],
        &[],
        origin(),
    );
    let Ok(Plan::Pass(mut pass)) = transform.plan(&mut batch) else {
        panic!("plans a pass");
    };
    batch
        .edit(|arena| arena.retain(|series| pass.series(series)))
        .unwrap();
    let told = pass.finish().unwrap();
    assert!(told.duplicates);
    let Some(Outcome::Rejected { rejection, lost }) = told.refused else {
        panic!("refuses a series");
    };
    assert!(!rejection.may_retry());
    assert_eq!(lost.unwrap().samples, 1);
}

#[test]
fn labels_and_times_that_make_no_sense_are_problems() {
    let problems = |text: &str| {
        let config: DedupeConfig = toml::from_str(text).unwrap();
        let mut problems = Problems::new(true);
        TransformConfig::validate(&config, &mut problems);
        let list = problems.into_list().into_iter();
        list.map(|it| it.path).collect::<Vec<_>>()
    };
    assert_eq!(problems(""), [""; 0]);
    assert_eq!(problems("cluster_label = ''"), ["cluster_label"]);
    assert_eq!(problems("cluster_label = '__replica__'"), ["replica_label"]);
    assert_eq!(
        problems("[tenants.t]\nreplica_label = '__name__'"),
        ["tenants.t.replica_label"]
    );
    assert_eq!(
        problems("failover_timeout = '0s'\nforget_after = '0s'"),
        ["failover_timeout"]
    );
    assert_eq!(problems("forget_after = '10s'"), ["forget_after"]);
}
