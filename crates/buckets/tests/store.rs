//! A store of rules in a bucket: conditional writes of racing writers, foreign objects in the bucket,
//! and a failing service.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrifold_base::Secret;
use metrifold_buckets::{Bucket, BucketConfig, Credentials};
use metrifold_http::{ClientConfig, ClientTls};
use metrifold_rules::store::{
    Action, Change, Follower, ObjectError, Place, Store, StoreError, Wanted,
};
use metrifold_rules::{Checks, Version, any_expr};
use metrifold_testing::{Does, Reply, S3, Seen};
use tokio::runtime::Runtime;

const NOBODY: Change<'static> = Change {
    by: "somebody",
    at: 1_700_000_000_000,
    action: Action::Put,
};

struct Service {
    s3: S3,
    /// Whether stores rely on the service's conditional writes.
    conditional: bool,
    runtime: Runtime,
}

impl Service {
    fn new() -> Self {
        Self {
            s3: S3::new("rules"),
            conditional: true,
            runtime: Runtime::new().unwrap(),
        }
    }

    /// Opens the store in the bucket, as another process would.
    fn store(&self, timeout: Duration) -> Store {
        let config = BucketConfig {
            url: "s3://rules/here".parse().unwrap(),
            endpoint: Some(self.s3.url()),
            region: None,
            credentials: Credentials::Key("key".into(), Secret::new("s3-secret-key")),
            timeout,
            conditional_writes: self.conditional,
            max_answer: 16 << 20,
            client: ClientConfig {
                tls: ClientTls::default(),
                proxy_url: None,
                proxy_basic_auth: None,
                connections: 4,
                connect_timeout: Duration::from_secs(5),
                max_age: Duration::from_secs(60),
            },
        };
        let bucket = Bucket::open(&config, self.runtime.handle().clone()).unwrap();
        Store::new(Box::new(bucket), 1 << 20, 1000)
    }

    fn patient(&self) -> Store {
        self.store(Duration::from_secs(60))
    }
}

fn rule(name: &str) -> String {
    format!("groups: [{{name: g, rules: [{{record: {name}, expr: up}}]}}]\n")
}

fn tenants(follower: &Follower) -> BTreeSet<&str> {
    follower.set().iter().map(|(tenant, _)| &**tenant).collect()
}

#[test]
fn a_file_is_written_read_and_removed_on_its_conditions() {
    let service = Service::new();
    let (store, other) = (service.patient(), service.patient());
    let place = Place::new("team-a", "rules");
    assert_eq!(store.get(&place).unwrap(), None);
    let (one, changed) = store.put(&place, b"one", &Wanted::Absent, NOBODY).unwrap();
    assert!(changed);
    let key = "here/metrics/rules/team-a/rules.yaml";
    assert_eq!(service.s3.read(key).as_deref(), Some("one"));
    assert_eq!(other.get(&place).unwrap().unwrap().version, one);
    let is_refused = |wanted: Wanted| {
        let refused = other.put(&place, b"two", &wanted, NOBODY).unwrap_err();
        matches!(refused, StoreError::Precondition { current } if current == Some(one))
    };
    assert!(is_refused(Wanted::Absent));
    let is_one = Wanted::Version(vec![one]);
    other.put(&place, b"two", &is_one, NOBODY).unwrap();
    assert!(matches!(
        store.delete(&place, &is_one, NOBODY),
        Err(StoreError::Precondition { .. })
    ));
    store.delete(&place, &Wanted::Present, NOBODY).unwrap();
    assert_eq!(other.get(&place).unwrap(), None);
    assert_eq!(other.list(None).unwrap(), (vec![], vec![]));
    assert!(matches!(
        other.delete(&place, &Wanted::Any, NOBODY),
        Err(StoreError::Absent(_))
    ));
    other
        .put(&place, b"three", &Wanted::Absent, NOBODY)
        .unwrap();
    assert_eq!(store.get(&place).unwrap().unwrap().text, b"three");
    let history = store.history(&place).unwrap();
    let texts = [Some("three"), None, Some("two"), Some("one")];
    let version = |text: &str| Version::of(text.as_bytes());
    let versions = texts.map(|text| text.map(|text| version(text).to_string()));
    assert_eq!(
        history
            .iter()
            .map(|it| it.version.clone())
            .collect::<Vec<_>>(),
        versions
    );
    for text in texts.into_iter().flatten() {
        let entry = store.entry_of(&place, version(text)).unwrap().unwrap();
        assert_eq!(entry.text.as_deref(), Some(text));
    }
}

/// Adds a line to a file, or removes a file of several lines. Returns the number of removed lines, or
/// `None` after a conflict.
fn edit(store: &Store, place: &Place, line: usize) -> Option<usize> {
    let current = store.get(place).unwrap();
    let text = current.as_ref().map_or_else(String::new, |current| {
        String::from_utf8(current.text.clone()).unwrap()
    });
    let wanted = match &current {
        Some(current) => Wanted::Version(vec![current.version]),
        None => Wanted::Absent,
    };
    let lines = text.lines().count();
    let (edited, gone) = match lines {
        4.. => (store.delete(place, &wanted, NOBODY), lines),
        _ => {
            let text = format!("{text}{line}\n");
            (
                store.put(place, text.as_bytes(), &wanted, NOBODY).map(drop),
                0,
            )
        }
    };
    match edited {
        Ok(()) => Some(gone),
        Err(StoreError::Precondition { .. } | StoreError::Contended | StoreError::Absent(_)) => {
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Has writers race, each with its own store, and checks that no line is lost.
fn race(service: &Service) {
    let place = Place::new("a", "b");
    let (added, removed, names) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = service.patient();
                for _ in 0..25 {
                    let name = names.fetch_add(1, Ordering::Relaxed);
                    match edit(&store, &place, name) {
                        Some(0) => added.fetch_add(1, Ordering::Relaxed),
                        Some(gone) => removed.fetch_add(gone, Ordering::Relaxed),
                        None => 0,
                    };
                }
            });
        }
    });
    let left = service.patient().get(&place).unwrap();
    let left = left.map_or(0, |left| left.text.split(|byte| *byte == b'\n').count() - 1);
    assert_eq!(added.into_inner(), removed.into_inner() + left);
}

#[test]
fn of_writers_that_race_none_loses_what_another_wrote_or_removed() {
    race(&Service::new());
}

#[test]
fn a_service_without_conditions_is_found_out_before_anything_is_written() {
    let service = Service::new();
    service.s3.bucket().unconditional = true;
    let place = Place::new("a", "rules");
    let store = service.patient();
    for _ in 0..2 {
        let refused = store.put(&place, b"one", &Wanted::Any, NOBODY).unwrap_err();
        let told = refused.to_string();
        assert!(told.contains("conditional_writes = false"), "{told}");
    }
    assert_eq!(store.get(&place).unwrap(), None);
    // Reads work without conditions.
    service.s3.write("here/metrics/rules/b/rules.yaml", "two");
    let read = store.get(&Place::new("b", "rules")).unwrap().unwrap();
    assert_eq!(read.text, b"two");
    // Conditions work from now on, as after an upgrade of the service.
    service.s3.bucket().unconditional = false;
    store.put(&place, b"one", &Wanted::Any, NOBODY).unwrap();
}

#[test]
fn without_conditions_of_the_service_one_process_decides_races_by_itself() {
    let mut service = Service::new();
    service.conditional = false;
    service.s3.bucket().unconditional = true;
    race(&service);
    let (store, place) = (service.patient(), Place::new("c", "rules"));
    let (one, _) = store.put(&place, b"one", &Wanted::Absent, NOBODY).unwrap();
    let refused = store.put(&place, b"two", &Wanted::Absent, NOBODY);
    assert!(matches!(refused, Err(StoreError::Precondition { .. })));
    let is_one = Wanted::Version(vec![one]);
    store.delete(&place, &is_one, NOBODY).unwrap();
    assert_eq!(store.get(&place).unwrap(), None);
    store
        .put(&place, b"three", &Wanted::Absent, NOBODY)
        .unwrap();
    assert_eq!(store.get(&place).unwrap().unwrap().text, b"three");
}

#[test]
fn a_change_whose_answer_is_lost_is_made_once_and_stays_noted() {
    let service = Service::new();
    let store = service.patient();
    let place = Place::new("a", "rules");
    store.put(&place, b"one", &Wanted::Any, NOBODY).unwrap();
    // The answer is lost for the note, or for the file.
    for (at, text) in ["two", "three", "four"].into_iter().enumerate() {
        service.s3.bucket().unanswered = at;
        match store.put(&place, text.as_bytes(), &Wanted::Any, NOBODY) {
            Ok((_, changed)) => assert!(changed),
            Err(error) => assert!(matches!(error, StoreError::Objects(_)), "{error}"),
        }
        service.s3.bucket().unanswered = 0;
        let now = store.get(&place).unwrap().unwrap().text;
        let noted = store.entry_of(&place, Version::of(&now)).unwrap();
        let noted = noted.and_then(|entry| entry.text);
        let now = String::from_utf8(now).unwrap();
        assert_eq!(noted.as_ref(), Some(&now), "{now} has no note");
    }
}

#[test]
fn what_others_wrote_is_read_and_what_is_no_file_costs_only_itself() {
    let service = Service::new();
    let store = service.patient();
    let checks = Checks::new(&any_expr);
    service.s3.bucket().page = 7;
    for tenant in 0..40 {
        // The key that Observatorium's rules-objstore uses.
        let key = format!("here/metrics/rules/t{tenant:02}/rules.yaml");
        service.s3.write(&key, &rule("r"));
    }
    for (key, text) in [
        ("here/metrics/rules//odd", "x"),
        ("here/metrics/rules/t03//rules.yaml", "x"),
        ("here/metrics/rules/t04/../rules.yaml", "x"),
        ("here/metrics/rules/t05/deep/rules.yaml", "x"),
        ("here/metrics/rules/t06/", ""),
        ("here/metrics/rules/t07/rules.yaml", "groups: ["),
        ("here/metrics/rules/t08/rules.yaml", ""),
        ("elsewhere/metrics/rules/x/rules.yaml", "groups: []"),
    ] {
        service.s3.write(key, text);
    }
    let mut follower = Follower::default();
    follower.refresh(&store, &checks, None).unwrap();
    let all = tenants(&follower);
    assert_eq!(all.len(), 38, "{all:?}");
    assert!(!all.contains("t07") && !all.contains("t08") && all.contains("t39"));
    let quarantined = follower.quarantined();
    let told: BTreeSet<_> = quarantined
        .iter()
        .map(|it| (&*it.tenant, &*it.file))
        .collect();
    let expected = [
        ("", "metrics/rules//odd"),
        ("", "metrics/rules/t03//rules.yaml"),
        ("", "metrics/rules/t04/../rules.yaml"),
        ("", "metrics/rules/t05/deep/rules.yaml"),
        ("t07", "rules"),
    ];
    assert_eq!(told, BTreeSet::from(expected));
    service.s3.endpoint.take();
    let read = follower.refresh(&store, &checks, None).unwrap().read;
    assert_eq!(read, 0, "what did not change is not read again");
    service
        .s3
        .write("here/metrics/rules/t39/rules.yaml", &rule("s"));
    assert_eq!(
        follower.refresh(&store, &checks, Some("t39")).unwrap().read,
        1
    );
}

/// A fault of the service in place of an answer.
type Fault = fn() -> Does;

#[test]
fn a_service_that_is_down_slow_or_talks_nonsense_leaves_what_was_read() {
    let service = Service::new();
    let place = Place::new("a", "rules");
    let checks = Checks::new(&any_expr);
    let store = service.patient();
    store
        .put(&place, rule("r").as_bytes(), &Wanted::Any, NOBODY)
        .unwrap();
    let mut follower = Follower::default();
    follower.refresh(&store, &checks, None).unwrap();
    let before = follower.set().clone();
    assert_eq!(before.len(), 1);
    let store = service.store(Duration::from_secs(2));
    let faults: [(&str, Fault); 6] = [
        ("503", || {
            Reply::new(503)
                .body("<Error><Code>SlowDown</Code></Error>")
                .into()
        }),
        ("403", || {
            Reply::new(403)
                .body("<Error><Code>AccessDenied</Code></Error>")
                .into()
        }),
        ("close", || Does::Close),
        ("hang", || Does::Hang(Reply::new(200))),
        ("nonsense", || {
            Reply::new(200).body("<html>Welcome</html>").into()
        }),
        ("no HTTP", || Does::Raw(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec())),
    ];
    for (name, fault) in faults {
        service.s3.fail(move |_: &Seen| Some(fault()));
        let listed = follower.refresh(&store, &checks, None);
        let error = listed.unwrap_err().to_string();
        assert!(!error.contains("s3-secret-key"), "{name}: {error}");
        assert_eq!(*follower.set(), before, "{name}");
        let written = store.put(&place, b"groups: []", &Wanted::Any, NOBODY);
        let error = written.unwrap_err();
        assert!(
            matches!(error, StoreError::Objects(ObjectError::Store { .. })),
            "{name}: {error}"
        );
        service.s3.recover();
        follower.refresh(&store, &checks, None).unwrap();
        assert_eq!(*follower.set(), before, "{name}");
    }
    service.s3.endpoint.release();
}
