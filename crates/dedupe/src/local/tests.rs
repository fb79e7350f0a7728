//! Elections over simulated time, held against a plain model.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    failover: Duration::from_secs(30),
    forget: Duration::from_secs(1800),
    clusters: 3,
    total: 100,
};

struct Rig {
    local: Local,
    start: Instant,
}

impl Rig {
    fn new(bounds: Bounds) -> Self {
        Self {
            local: Local::new(bounds),
            start: Instant::now(),
        }
    }

    fn vote(&self, cluster: &str, replica: &str, secs: u64) -> Vote {
        self.vote_of("acme", cluster, replica, secs)
    }

    fn vote_of(&self, tenant: &str, cluster: &str, replica: &str, secs: u64) -> Vote {
        let at = self.start + Duration::from_secs(secs);
        self.local.vote(&tenant.into(), cluster, replica, at)
    }
}

#[test]
fn the_first_replica_is_elected_and_the_others_are_duplicates() {
    let rig = Rig::new(BOUNDS);
    for secs in 0..100 {
        assert_eq!(rig.vote("eu", "a", secs), Vote::Elected);
        assert_eq!(rig.vote("eu", "b", secs), Vote::Duplicate);
    }
}

#[test]
fn another_replica_takes_over_once_the_elected_one_is_silent_for_longer_than_the_timeout() {
    let rig = Rig::new(BOUNDS);
    assert_eq!(rig.vote("eu", "a", 0), Vote::Elected);
    for secs in 0..=30 {
        assert_eq!(rig.vote("eu", "b", secs), Vote::Duplicate);
    }
    assert_eq!(rig.vote("eu", "b", 31), Vote::Elected);
    assert_eq!(rig.vote("eu", "a", 32), Vote::Duplicate);
    assert_eq!(rig.local.elected("acme")[0].failovers, 1);
}

#[test]
fn what_arrived_earlier_than_what_was_seen_changes_nothing() {
    let rig = Rig::new(BOUNDS);
    assert_eq!(rig.vote("eu", "a", 100), Vote::Elected);
    assert_eq!(rig.vote("eu", "a", 50), Vote::Elected);
    assert_eq!(rig.vote("eu", "b", 130), Vote::Duplicate);
    assert_eq!(rig.vote("eu", "b", 131), Vote::Elected);
}

#[test]
fn clusters_and_tenants_have_elections_of_their_own() {
    let rig = Rig::new(BOUNDS);
    for (tenant, cluster) in [("acme", "eu"), ("acme", "us"), ("zeta", "eu")] {
        assert_eq!(rig.vote_of(tenant, cluster, cluster, 0), Vote::Elected);
    }
    assert_eq!(rig.vote_of("acme", "eu", "us", 1), Vote::Duplicate);
    assert_eq!(rig.local.elected("zeta").len(), 1);
}

#[test]
fn a_tenant_has_so_many_clusters_and_those_that_are_silent_make_room() {
    let rig = Rig::new(BOUNDS);
    for cluster in ["a", "b", "c"] {
        assert_eq!(rig.vote(cluster, "r", 0), Vote::Elected);
    }
    assert_eq!(rig.vote("d", "r", 1), Vote::TooManyClusters);
    assert_eq!(rig.vote_of("zeta", "d", "r", 1), Vote::Elected);
    // A duplicate keeps its cluster alive as well.
    assert_eq!(rig.vote("a", "s", 25), Vote::Duplicate);
    assert_eq!(rig.vote("d", "r", 1801), Vote::Elected);
    assert_eq!(rig.vote("a", "r", 1801), Vote::Elected);
    assert_eq!(rig.local.clusters(), 3);
}

#[test]
fn all_tenants_together_have_so_many_clusters() {
    let rig = Rig::new(Bounds { total: 5, ..BOUNDS });
    let votes = (0..10).map(|it| rig.vote_of(&format!("t{it}"), "eu", "a", 0));
    let elected = votes.filter(|vote| *vote == Vote::Elected).count();
    assert_eq!((elected, rig.local.clusters()), (5, 5));
}

#[test]
fn a_successor_goes_on_and_one_that_comes_later_begins_anew() {
    let registry = Registry::default();
    let name: Arc<str> = "dedupe".into();
    let (tenant, now) = ("acme".into(), Instant::now());
    let first = registry.make(&name, BOUNDS);
    assert_eq!(first.vote(&tenant, "eu", "a", now), Vote::Elected);
    // A successor that was built and dropped, as on a failed reload, changes nothing.
    drop(registry.make(&name, BOUNDS));
    let second = registry.make(&name, BOUNDS);
    drop(first);
    assert_eq!(second.vote(&tenant, "eu", "b", now), Vote::Duplicate);
    drop(second);
    let third = registry.make(&name, BOUNDS);
    assert_eq!(third.vote(&tenant, "eu", "b", now), Vote::Elected);
}

/// State of a cluster: elected replica, its last batch, last batch of any replica.
type Model = HashMap<(u8, u8), (u8, u64, u64)>;

proptest! {
    #[test]
    fn votes_are_those_of_a_plain_model(
        steps in prop::collection::vec((0u64..40, 0u8..3, 0u8..6, 0u8..3), 1..300),
    ) {
        let rig = Rig::new(BOUNDS);
        let mut model = Model::new();
        let (mut now, mut tidied) = (0, None);
        for (secs, tenant, cluster, replica) in steps {
            now += secs;
            let got = rig.vote_of(
                &tenant.to_string(),
                &cluster.to_string(),
                &replica.to_string(),
                now,
            );
            // Votes in unknown clusters remove clusters that were silent for half an hour, once a minute.
            let is_due = tidied.is_none_or(|at| now - at >= TIDY.as_secs());
            if is_due && !model.contains_key(&(tenant, cluster)) {
                tidied = Some(now);
                model.retain(|_, (_, _, alive)| now - *alive <= 1800);
            }
            let own = model.keys().filter(|(of, _)| *of == tenant).count();
            let expected = match model.get_mut(&(tenant, cluster)) {
                Some((elected, heard, alive)) => {
                    *alive = now;
                    if *elected == replica || now - *heard > 30 {
                        (*elected, *heard) = (replica, now);
                        Vote::Elected
                    } else {
                        Vote::Duplicate
                    }
                }
                None if own >= 3 => Vote::TooManyClusters,
                None => {
                    model.insert((tenant, cluster), (replica, now, now));
                    Vote::Elected
                }
            };
            prop_assert_eq!(got, expected);
        }
    }
}
