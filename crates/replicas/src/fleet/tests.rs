use super::*;
use crate::replica::Upstream;
use crate::strategy::Kind;

use metrifold_http::{Client, ClientConfig, ClientTls, Credentials};

const WALL: i64 = 1_700_000_000_000;

fn upstream() -> Arc<Upstream> {
    metrifold_http::install_crypto_provider();
    let config = ClientConfig {
        tls: ClientTls::default(),
        proxy_url: None,
        proxy_basic_auth: None,
        connections: 1,
        connect_timeout: Duration::from_secs(1),
        max_age: Duration::from_secs(60),
    };
    Arc::new(Upstream {
        client: Client::new(&config).unwrap(),
        credentials: Credentials::build(None, None, None).unwrap(),
        headers: http::HeaderMap::new(),
    })
}

fn replicas(names: &[&str]) -> Vec<Replica> {
    let upstream = upstream();
    let replica = |name: &&str| Replica::new(name, 1, upstream.clone()).unwrap();
    names.iter().map(replica).collect()
}

const NAMES: [&str; 3] = ["http://a:1", "http://b:1", "http://c:1"];

fn options(kind: Kind) -> FleetOptions {
    FleetOptions {
        strategy: Strategy::plain(kind),
        health: HealthOptions::probes_alone(),
        when_none: WhenNone::Refuse,
    }
}

fn fleet(options: FleetOptions, start: Instant) -> Fleet {
    let mut fleet = Fleet::new(options);
    fleet.set(replicas(&NAMES), WALL, start);
    fleet
}

fn wish(draw: u64) -> Wish<'static> {
    Wish {
        draw: draw.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        wall: WALL,
        ..Wish::default()
    }
}

fn chosen(fleet: &mut Fleet, wish: &Wish<'_>, now: Instant) -> String {
    match fleet.choose(wish, now) {
        Ok(choice) => choice.replica.name.to_string(),
        Err(none) => none.to_string(),
    }
}

fn up(fleet: &mut Fleet, name: &str, signals: Signals, now: Instant) {
    fleet.probed(name, Ok(Some(signals)), Duration::ZERO, WALL, now);
}

fn down(fleet: &mut Fleet, name: &str, now: Instant) {
    fleet.probed(name, Err("503".to_owned()), Duration::ZERO, WALL, now);
}

/// The failover that Caddy's configuration describes, rule by rule.
#[test]
fn the_first_that_is_available_is_asked_and_takes_its_place_back_at_once() {
    let start = Instant::now();
    let at = |secs: f64| start + Duration::from_secs_f64(secs);
    let mut options = options(Kind::First);
    options.health.max_fails = 5;
    options.health.fail_timeout = Duration::from_secs(10);
    let mut fleet = fleet(options, start);
    let asked = |fleet: &mut Fleet, secs| chosen(fleet, &wish(0), at(secs));
    assert_eq!(asked(&mut fleet, 0.0), NAMES[0], "before any check");
    down(&mut fleet, NAMES[0], at(1.0));
    assert_eq!(asked(&mut fleet, 1.0), NAMES[1], "one check flips");
    up(&mut fleet, NAMES[0], Signals::default(), at(11.0));
    assert_eq!(asked(&mut fleet, 11.0), NAMES[0], "and flips back");
    // The fifth failed request makes it unavailable, until the first failure expires.
    for n in 0..5 {
        assert_eq!(asked(&mut fleet, 20.0 + f64::from(n)), NAMES[0], "{n}");
        let era = fleet.sent(NAMES[0], at(20.0 + f64::from(n)));
        fleet.head_after(
            NAMES[0],
            era,
            Duration::ZERO,
            Outcome::Failed,
            at(20.0 + f64::from(n)),
        );
        fleet.over(NAMES[0], 0);
    }
    assert_eq!(asked(&mut fleet, 24.0), NAMES[1]);
    assert_eq!(asked(&mut fleet, 29.9), NAMES[1]);
    assert_eq!(asked(&mut fleet, 30.0), NAMES[0]);
    for name in NAMES {
        down(&mut fleet, name, at(40.0));
    }
    let none = asked(&mut fleet, 40.0);
    assert_eq!(
        none,
        "no replica can be queried: http://a:1: 503; http://b:1: 503; http://c:1: 503"
    );
}

#[test]
fn a_replica_that_failed_the_query_is_asked_again_by_first_and_by_no_other() {
    let start = Instant::now();
    let tried: Vec<Arc<str>> = vec![NAMES[0].into()];
    let again = Wish {
        tried: &tried,
        ..wish(0)
    };
    let mut first = fleet(options(Kind::First), start);
    assert_eq!(chosen(&mut first, &again, start), NAMES[0]);
    for kind in [
        Kind::Random,
        Kind::MostData,
        Kind::LeastLoaded,
        Kind::Covering,
    ] {
        let mut fleet = fleet(options(kind), start);
        for draw in 0..20 {
            let wish = Wish {
                tried: &tried,
                ..wish(draw)
            };
            assert_ne!(chosen(&mut fleet, &wish, start), NAMES[0], "{kind:?}");
        }
        let all: Vec<Arc<str>> = NAMES.map(Arc::from).to_vec();
        let wish = Wish {
            tried: &all,
            ..wish(0)
        };
        assert!(fleet.choose(&wish, start).is_err());
    }
}

#[test]
fn most_data_is_kept_when_counters_begin_anew_and_blocks_are_known() {
    let start = Instant::now();
    let mut fleet = fleet(options(Kind::MostData), start);
    for (name, samples) in NAMES.iter().zip([100.0, 300.0, 200.0]) {
        let signals = Signals {
            samples: Some(samples),
            ..Signals::default()
        };
        up(&mut fleet, name, signals, start);
    }
    for draw in 0..10 {
        assert_eq!(chosen(&mut fleet, &wish(draw), start), NAMES[1]);
    }
    // A retry goes to the next best.
    let tried = [Arc::from(NAMES[1])];
    let retry = Wish {
        tried: &tried,
        ..wish(0)
    };
    assert_eq!(chosen(&mut fleet, &retry, start), NAMES[2]);
    down(&mut fleet, NAMES[1], start);
    assert_eq!(chosen(&mut fleet, &wish(0), start), NAMES[2]);
    let view = fleet.view(WALL, start);
    assert_eq!(
        view.replicas[0].reason.as_deref(),
        Some("another replica has more data")
    );
    assert_eq!(view.replicas[1].reason.as_deref(), Some("503"));
}

#[test]
fn an_old_selection_is_asked_only_if_that_is_wanted() {
    let start = Instant::now();
    let mut options = options(Kind::Random);
    for when_none in [WhenNone::Refuse, WhenNone::LastSelection] {
        options.when_none = when_none;
        let mut fleet = fleet(options, start);
        down(&mut fleet, NAMES[0], start);
        down(&mut fleet, NAMES[1], start);
        down(&mut fleet, NAMES[2], start);
        let view = fleet.view(WALL, start);
        assert!(view.stale);
        assert_eq!(view.selected, [NAMES[2].into()]);
        assert_eq!(fleet.selection().len(), 0);
        let asked = chosen(&mut fleet, &wish(0), start);
        match when_none {
            WhenNone::Refuse => assert!(asked.starts_with("no replica can be queried"), "{asked}"),
            WhenNone::LastSelection => assert_eq!(asked, NAMES[2]),
        }
    }
}

#[test]
fn random_goes_by_weight_and_slow_start() {
    let start = Instant::now();
    let mut options = options(Kind::Random);
    options.health.slow_start = Duration::from_secs(10);
    let mut fleet = Fleet::new(options);
    let mut all = replicas(&NAMES);
    all[1].weight = 3;
    all[2].weight = 0;
    fleet.set(all, WALL, start);
    let count = |fleet: &mut Fleet, now| {
        let of_first = |draw: &u64| chosen(fleet, &wish(*draw), now) == NAMES[0];
        (0..1000).filter(of_first).count()
    };
    assert!((200..300).contains(&count(&mut fleet, start)));
    down(&mut fleet, NAMES[0], start);
    up(&mut fleet, NAMES[0], Signals::default(), start);
    let after = |secs| start + Duration::from_secs(secs);
    assert!((10..60).contains(&count(&mut fleet, after(1))));
    assert!((200..300).contains(&count(&mut fleet, after(10))));
    down(&mut fleet, NAMES[1], start);
    assert_eq!(count(&mut fleet, start), 1000);
    down(&mut fleet, NAMES[0], start);
    let none = chosen(&mut fleet, &wish(0), start);
    assert!(none.ends_with("http://c:1: has the weight 0"), "{none}");
}

#[test]
fn the_least_loaded_has_fewest_queries_under_way() {
    let start = Instant::now();
    let mut fleet = fleet(options(Kind::LeastLoaded), start);
    for _ in 0..30 {
        let name = chosen(&mut fleet, &wish(7), start);
        fleet.sent(&name, start);
    }
    let in_flight: Vec<u64> = fleet.members.iter().map(|it| it.counts.in_flight).collect();
    assert_eq!(in_flight, [10, 10, 10]);
    fleet.over(NAMES[2], 5);
    assert_eq!(chosen(&mut fleet, &wish(1), start), NAMES[2]);
}

#[test]
fn a_key_stays_with_its_replica_until_that_is_not_worth_asking() {
    let start = Instant::now();
    let mut fleet = fleet(options(Kind::Random), start);
    let owner = |fleet: &mut Fleet, n: u32| {
        let wish = Wish {
            key: Some(Key::of("test", &n.to_le_bytes())),
            ..wish(n.into())
        };
        chosen(fleet, &wish, start)
    };
    let before: Vec<String> = (0..300).map(|n| owner(&mut fleet, n)).collect();
    down(&mut fleet, NAMES[1], start);
    for (n, before) in before.iter().enumerate() {
        let after = owner(&mut fleet, n as u32);
        assert_ne!(after, NAMES[1]);
        assert!(*before == NAMES[1] || after == *before);
    }
    // A cookie for a replica that is not eligible has no effect.
    for (bound, bound_to) in [(NAMES[0], true), (NAMES[1], false)] {
        let wish = Wish {
            bound: Some(bound),
            ..wish(3)
        };
        let choice = fleet.choose(&wish, start).unwrap();
        assert_eq!(*choice.replica.name == *bound, bound_to);
        assert_eq!(choice.by_affinity, bound_to);
    }
}

#[test]
fn covering_asks_whom_the_query_finds_whole() {
    let start = Instant::now();
    let mut fleet = fleet(options(Kind::Covering), start);
    let hour = 3_600_000;
    for (name, from) in NAMES.iter().zip([10, 5, 1]) {
        let signals = Signals {
            oldest: Some(WALL - from * hour),
            ..Signals::default()
        };
        up(&mut fleet, name, signals, start);
    }
    // The first had an outage two hours ago.
    let minutes = |minutes: i64| WALL - minutes * 60_000;
    fleet.probed(
        NAMES[0],
        Err("away".to_owned()),
        Duration::ZERO,
        minutes(120),
        start,
    );
    fleet.probed(NAMES[0], Ok(None), Duration::ZERO, minutes(110), start);
    let asked = |fleet: &mut Fleet, from: i64, to: i64| -> Vec<String> {
        let range = Some((minutes(from), minutes(to)));
        let mut all: Vec<_> = (0..50)
            .map(|draw| {
                chosen(
                    fleet,
                    &Wish {
                        range,
                        ..wish(draw)
                    },
                    start,
                )
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    assert_eq!(asked(&mut fleet, 30, 0), NAMES, "all have it");
    assert_eq!(asked(&mut fleet, 100, 0), NAMES[..2]);
    assert_eq!(
        asked(&mut fleet, 200, 0),
        NAMES[1..2],
        "the first has a gap"
    );
    assert_eq!(asked(&mut fleet, 590, 400), NAMES[..1]);
}

#[test]
fn what_is_known_of_a_replica_outlives_a_change_of_the_list() {
    let start = Instant::now();
    let mut fleet = fleet(options(Kind::First), start);
    down(&mut fleet, NAMES[0], start);
    fleet.set(replicas(&[NAMES[2], NAMES[0], NAMES[0]]), WALL, start);
    assert_eq!(fleet.members.len(), 2);
    assert!(!fleet.is_up(NAMES[0]) && !fleet.is_up(NAMES[1]));
    assert_eq!(chosen(&mut fleet, &wish(0), start), NAMES[2]);
    fleet.set(Vec::new(), WALL, start);
    assert_eq!(chosen(&mut fleet, &wish(0), start), "no replica is known");
}

#[test]
fn a_restart_is_seen_and_told() {
    let start = Instant::now();
    let mut fleet = fleet(options(Kind::Random), start);
    let since = |started| Signals {
        started: Some(started),
        ..Signals::default()
    };
    up(&mut fleet, NAMES[0], since(1.0), start);
    up(&mut fleet, NAMES[0], since(1.0), start);
    up(&mut fleet, NAMES[0], since(2.0), start);
    let view = fleet.view(WALL, start);
    let told = view.events.iter().map(|event| event.text.as_str());
    let told: Vec<&str> = told.filter(|text| !text.starts_with("selected")).collect();
    assert_eq!(told, ["http://a:1 was restarted"]);
}
