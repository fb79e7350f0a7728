use metrifold_codec::testing::{arena_v1, arena_v2, leaves_v1};
use metrifold_model::{
    AlternativeName, ClientCertificate, Identity, Origin, Proof, RejectionKind, Version,
};

use super::super::testing::{Labels, Outcome, apply, batch, labels, origin};
use super::*;

fn transform(text: &str) -> TenantTransform {
    let config = toml::from_str::<TenantConfig>(text).unwrap();
    config
        .make()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn series(namespaces: &[&str]) -> Vec<Labels> {
    let series = namespaces.iter().map(|namespace| match *namespace {
        "" => labels(&[("__name__", "up")]),
        _ => labels(&[("__name__", "up"), ("namespace", namespace)]),
    });
    series.collect()
}

fn run(text: &str, namespaces: &[&str], metadata: &[&str]) -> Result<Outcome, String> {
    let batch = batch(&series(namespaces), metadata, origin());
    let result = apply(&transform(text), batch);
    result
        .map(|(_, outcome)| outcome)
        .map_err(|rejection| rejection.reason)
}

/// Per emitted batch: tenant, indexes of the series, count of metadata.
fn parts(outcome: &Outcome) -> Vec<(&str, Vec<usize>, usize)> {
    outcome
        .emitted
        .iter()
        .map(|(_, tenant, series, metadata)| {
            let numbers = series.iter().map(|(_, number)| *number).collect();
            (tenant.as_deref().unwrap(), numbers, *metadata)
        })
        .collect()
}

fn whose(text: &str, origin: Origin) -> Result<String, String> {
    let result = apply(&transform(text), batch(&series(&["x"]), &[], origin));
    let (batches, _) = result.map_err(|rejection| rejection.reason)?;
    Ok(batches[0].tenant().unwrap().to_string())
}

#[test]
fn the_first_source_that_yields_a_name_wins() {
    let text = "from = [{ path = 't' }, { header = 'X-Tenant' }, { client_cert = 'common_name' }, { client_cert = 'organizational_unit' }, { client_cert = 'dns' }]\ndefault = 'nobody'";
    assert_eq!(whose(text, origin()).unwrap(), "nobody");
    let mut from = origin();
    let certificate = |common_name: Option<&str>, units: &[&str]| {
        Some(Arc::new(ClientCertificate {
            common_name: common_name.map(Into::into),
            organizational_units: units.iter().map(|unit| unit.to_string()).collect(),
            // Alternative names of other types yield no tenant.
            alternative_names: vec![
                AlternativeName::Uri("spiffe://test/uri".into()),
                AlternativeName::Email("mail@san.example".into()),
                AlternativeName::Ip([10, 0, 0, 1].into()),
                AlternativeName::Dns("san.example".into()),
                AlternativeName::Dns("other.example".into()),
            ],
            ..ClientCertificate::default()
        }))
    };
    from.caller.certificate = certificate(None, &[]);
    assert_eq!(whose(text, from).unwrap(), "san.example");
    let mut from = origin();
    from.caller.certificate = certificate(None, &["unit", "other"]);
    assert_eq!(whose(text, from).unwrap(), "unit");
    let mut from = origin();
    from.caller.certificate = certificate(Some("cn"), &["unit"]);
    assert_eq!(whose(text, from).unwrap(), "cn");
    let mut from = origin();
    from.caller.certificate = certificate(Some("cn"), &[]);
    from.headers.insert("x-tenant", "header".parse().unwrap());
    assert_eq!(whose(text, from).unwrap(), "header");
    let mut from = origin();
    from.headers.insert("x-tenant", "header".parse().unwrap());
    from.params.push(("t".into(), "path".into()));
    assert_eq!(whose(text, from).unwrap(), "path");
    let mut from = origin();
    from.headers.insert("x-tenant", "".parse().unwrap());
    from.params.push(("t".into(), "".into()));
    assert_eq!(whose(text, from).unwrap(), "nobody");
}

#[test]
fn names_that_are_no_names_are_refused() {
    let long = "a".repeat(151);
    for name in [
        ".", "..", "../a", "a/b", "/", "a\\b", "a b", "a|b", "a%2fb", "é", "a\0", "a\nb", "a:b",
        "a;b", "a,b", "a\"b", "a{b}", "a?b", "a#b", "a@b", "a&b", &long,
    ] {
        let mut from = origin();
        from.params.push(("t".into(), name.into()));
        let error = whose("from = [{ path = 't' }]\ndefault = 'd'", from).unwrap_err();
        assert!(error.starts_with("path parameter t: "), "{name:?}: {error}");
        // A label's value passes the same check.
        let error = run(
            "from = [{ label = 'namespace' }]\ndefault = 'd'",
            &["ok", name],
            &[],
        );
        assert!(
            error.unwrap_err().starts_with("series \"up\": "),
            "{name:?}"
        );
    }
    for name in ["a", "...", "A-1_b.c!*'()", &"a".repeat(150)] {
        let mut from = origin();
        from.params.push(("t".into(), name.into()));
        assert_eq!(whose("from = [{ path = 't' }]", from).unwrap(), name);
    }
    let mut from = origin();
    from.headers.append("x-tenant", "a".parse().unwrap());
    from.headers.append("x-tenant", "b".parse().unwrap());
    let error = whose("from = [{ header = 'X-Tenant' }]", from).unwrap_err();
    assert_eq!(error, "header x-tenant: it is given more than once");
}

#[test]
fn a_batch_is_split_by_label_and_falls_back_series_by_series() {
    let text = "from = [{ label = 'namespace' }, { value = 'other' }]";
    let outcome = run(text, &["b", "a", "", "b"], &[]).unwrap();
    let expected = [
        ("b", vec![0, 3], 0),
        ("a", vec![1], 0),
        ("other", vec![2], 0),
    ];
    assert_eq!(parts(&outcome), expected);
    // A fallback and a label with the same name yield one tenant.
    let outcome = run(text, &["other", "", "a"], &[]).unwrap();
    assert_eq!(
        parts(&outcome),
        [("other", vec![0, 1], 0), ("a", vec![2], 0)]
    );
    let error = run("from = [{ label = 'namespace' }]", &["a", ""], &[]).unwrap_err();
    assert_eq!(
        error,
        "series \"up\" has no tenant: it is looked for in label namespace"
    );
}

#[test]
fn a_source_before_the_label_decides_for_all() {
    let text = "from = [{ value = 'v' }, { label = 'namespace', remove = true }]";
    let outcome = run(text, &["a", "b"], &[]).unwrap();
    assert_eq!(parts(&outcome), [("v", vec![0, 1], 0)]);
    assert_eq!(outcome.emitted[0].2[0].0["namespace"], "a");
}

#[test]
fn metadata_goes_with_the_tenant_of_the_batch_or_else_with_every_part() {
    let label = "from = [{ label = 'namespace' }]";
    let outcome = run(label, &["a", "b"], &["f", "g"]).unwrap();
    assert_eq!(parts(&outcome), [("a", vec![0], 2), ("b", vec![1], 2)]);
    let default = "from = [{ label = 'namespace' }]\ndefault = 'd'";
    let outcome = run(default, &["a", "b"], &["f"]).unwrap();
    assert_eq!(
        parts(&outcome),
        [("a", vec![0], 0), ("b", vec![1], 0), ("d", vec![], 1)]
    );
    let outcome = run(default, &["a", ""], &["f"]).unwrap();
    assert_eq!(parts(&outcome), [("a", vec![0], 0), ("d", vec![1], 1)]);
    let outcome = run(default, &["a"], &["f"]).unwrap();
    assert_eq!(parts(&outcome), [("a", vec![0], 0), ("d", vec![], 1)]);
    let outcome = run(default, &[], &["f"]).unwrap();
    assert_eq!(parts(&outcome), [("d", vec![], 1)]);
    let outcome = run(label, &[], &["f"]).unwrap();
    assert_eq!(
        (outcome.emitted.len(), outcome.dropped),
        (0, vec![("metadata_without_tenant", 1)])
    );
    let outcome = run(label, &[], &[]).unwrap();
    assert_eq!(outcome, Outcome::default());
}

#[test]
fn the_label_overwrites_what_the_sender_claims() {
    let text = "from = [{ value = 'real' }]\nlabel = 'tenant'";
    let claimed = [
        labels(&[("__name__", "up"), ("tenant", "victim"), ("z", "1")]),
        labels(&[("__name__", "up"), ("z", "2")]),
    ];
    let (_, outcome) = apply(&transform(text), batch(&claimed, &[], origin())).unwrap();
    let written = |z| labels(&[("__name__", "up"), ("tenant", "real"), ("z", z)]);
    let expected = [(
        0,
        Some("real".to_owned()),
        vec![(written("1"), 0), (written("2"), 1)],
        0,
    )];
    assert_eq!(outcome.emitted, expected);
    // Each series loses the label that its tenant came from, and no other.
    let text =
        "from = [{ label = 'namespace', remove = true }, { label = 'team' }]\nlabel = 'tenant'";
    let series = [
        labels(&[
            ("__name__", "up"),
            ("namespace", "n"),
            ("team", "t"),
            ("tenant", "victim"),
        ]),
        labels(&[("__name__", "up"), ("team", "n"), ("tenant", "victim")]),
    ];
    let (_, outcome) = apply(&transform(text), batch(&series, &[], origin())).unwrap();
    let first = labels(&[("__name__", "up"), ("team", "t"), ("tenant", "n")]);
    let second = labels(&[("__name__", "up"), ("team", "n"), ("tenant", "n")]);
    let expected = [(0, Some("n".to_owned()), vec![(first, 0), (second, 1)], 0)];
    assert_eq!(outcome.emitted, expected);
    // The same label is read and written.
    let text = "from = [{ label = 'namespace', remove = true }]\nlabel = 'namespace'";
    let outcome = run(text, &["a", "b"], &[]).unwrap();
    assert_eq!(outcome.emitted[1].2, [(series_of("b"), 1)]);
}

fn series_of(namespace: &str) -> Labels {
    series(&[namespace]).remove(0)
}

#[test]
fn a_batch_that_nobody_has_to_read_stays_encoded() {
    let unread = transform("from = [{ value = 'v' }]");
    assert!(!unread.reads_labels());
    assert!(transform("from = [{ value = 'v' }]\nlabel = 'x'").reads_labels());
    assert!(transform("from = [{ label = 'x' }]").reads_labels());
    let mut whole = batch(&series(&["a"]), &[], origin());
    let body = whole.body(Version::V1).unwrap();
    let (mut batches, _) = apply(&unread, whole.clone()).unwrap();
    assert!(batches[0].counts().is_none());
    // A single tenant, or a label that is already right, needs no copy.
    let same = transform("from = [{ label = 'namespace' }]\nlabel = 'namespace'");
    batches.extend(apply(&same, whole).unwrap().0);
    for batch in &mut batches {
        assert_eq!(batch.body(Version::V1).unwrap().as_ptr(), body.as_ptr());
    }
}

#[test]
fn too_many_tenants_are_refused() {
    let text = "from = [{ label = 'namespace' }]\nmax_tenants_per_batch = 2";
    assert!(run(text, &["a", "b", "a"], &[]).is_ok());
    let error = run(text, &["a", "b", "c"], &[]).unwrap_err();
    assert!(
        error.starts_with("batch holds more than 2 tenants"),
        "{error}"
    );
}

/// An origin whose caller is a member of tenants, by name and id.
fn called_by(tenants: &[(&str, &str)]) -> Origin {
    let membership = |&(name, id): &(&str, &str)| Membership {
        name: name.into(),
        tenant: id.into(),
    };
    let mut origin = origin();
    origin.caller.identity = Some(Arc::new(Identity {
        tenants: tenants.iter().map(membership).collect(),
        subject: None,
        groups: Arc::default(),
        proof: Proof::Token,
    }));
    origin.params = vec![("t".into(), "acme".into())];
    origin
}

#[test]
fn a_caller_is_held_to_its_tenants_whatever_else_yields_a_name() {
    let acme = || called_by(&[("acme", "id-a")]);
    for (text, expected) in [
        ("", Ok("id-a")),
        ("from = [{ caller = true }, { value = 'z' }]", Ok("id-a")),
        ("from = [{ path = 't' }]", Ok("id-a")),
        ("from = [{ path = 'other' }]\ndefault = 'id-a'", Ok("id-a")),
        (
            "from = [{ path = 'other' }]\ndefault = 'z'",
            Err(RejectionKind::Forbidden),
        ),
        ("from = [{ value = 'z' }]", Err(RejectionKind::Forbidden)),
        ("from = [{ path = 'other' }]", Err(RejectionKind::Invalid)),
        // The label's value is x.
        (
            "from = [{ label = 'namespace' }]",
            Err(RejectionKind::Forbidden),
        ),
    ] {
        let applied = apply(&transform(text), batch(&series(&["x"]), &[], acme()));
        let found = applied.map(|(batches, _)| batches[0].tenant().unwrap().to_string());
        let found = found.map_err(|rejection| rejection.kind);
        assert_eq!(found, expected.map(str::to_owned), "{text}");
    }
    let both = called_by(&[("a", "id-a"), ("b", "id-b")]);
    let labelled = "from = [{ label = 'namespace' }]";
    let applied = apply(
        &transform(labelled),
        batch(&series(&["a", "id-b"]), &[], both),
    );
    let (batches, _) = applied.unwrap();
    let tenants: Vec<_> = batches
        .iter()
        .map(|batch| &**batch.tenant().unwrap())
        .collect();
    assert_eq!(tenants, ["id-a", "id-b"]);
    // The caller proved no membership.
    assert!(
        whose("", origin())
            .unwrap_err()
            .contains("the caller's proof")
    );
}

#[test]
fn problems_stand_at_their_keys() {
    for (text, expected) in [
        ("from = [{ caller = false }]", "from[0].caller"),
        ("from = [{}]", "from[0]"),
        ("from = [{ path = 'a', header = 'b' }]", "from[0]"),
        ("from = [{ path = 'a' }, { path = '' }]", "from[1].path"),
        ("from = [{ header = 'a b' }]", "from[0].header"),
        ("from = [{ label = '' }]", "from[0].label"),
        ("from = [{ path = 'a', remove = true }]", "from[0].remove"),
        (
            "from = [{ label = '__name__', remove = true }]",
            "from[0].remove",
        ),
        ("from = [{ value = '../a' }]", "from[0].value"),
        ("from = [{ path = 'a' }]\ndefault = ''", "default"),
        ("from = [{ path = 'a' }]\nlabel = ''", "label"),
        ("from = [{ path = 'a' }]\nlabel = '__name__'", "label"),
    ] {
        let mut problems = Problems::new(false);
        let config: TenantConfig = toml::from_str(text).unwrap();
        TransformConfig::validate(&config, &mut problems);
        let paths: Vec<_> = problems.into_list().into_iter().map(|p| p.path).collect();
        assert_eq!(paths, [expected], "{text}");
    }
    for text in [
        "from = [{ client_cert = 'email' }]",
        "from = [{ paht = 'a' }]",
        "from = [{ path = 'a' }]\nmax_tenants_per_batch = 0",
    ] {
        assert!(toml::from_str::<TenantConfig>(text).is_err(), "{text}");
    }
}

/// Series of several tenants, edited before and after the split, in both versions.
#[test]
fn parts_hold_what_earlier_transforms_made_of_the_batch() {
    let names = ["a", "b", "c"];
    let all: Vec<_> = (0..40)
        .map(|number| {
            let namespace = names[number * 7 % 3];
            let mut labels = labels(&[("__name__", "up"), ("namespace", namespace), ("z", "1")]);
            labels.insert("n".into(), number.to_string());
            labels
        })
        .collect();
    let rules = "rules = [{ source_labels = ['n'], regex = '.*3', action = 'drop' }, { source_labels = ['n'], regex = '[0-7]', target_label = 'new', replacement = 'x$0' }]";
    let config: super::super::relabel::RelabelConfig = toml::from_str(rules).unwrap();
    let first = config.make().unwrap();
    let second = transform("from = [{ label = 'namespace', remove = true }]\nlabel = 'tenant'");
    let third = toml::from_str::<super::super::relabel::RelabelConfig>(
        "rules = [{ target_label = 'last', replacement = 'y' }]",
    );
    let third = third.unwrap().make().unwrap();
    for arena in [arena_v1(&all), arena_v2(&all)] {
        let version = arena.version();
        let batch = Batch::from_arena(arena, Arc::new(origin()));
        let (mut batches, _) = apply(&first, batch).unwrap();
        let (parts, _) = apply(&second, batches.remove(0)).unwrap();
        assert_eq!(parts.len(), 3);
        let mut seen = 0;
        for part in parts {
            let tenant = part.tenant().unwrap().to_string();
            let (mut batches, outcome) = apply(&third, part).unwrap();
            let counts = batches[0].counts().unwrap();
            let series = &outcome.emitted[0].2;
            assert_eq!(
                (counts.series, counts.samples),
                (series.len() as u64, series.len() as u64)
            );
            for (found, number) in series {
                let mut expected = all[*number].clone();
                assert_eq!(expected.remove("namespace").as_ref(), Some(&tenant));
                assert!(!expected["n"].ends_with('3'));
                if *number < 8 {
                    expected.insert("new".into(), format!("x{number}"));
                }
                expected.insert("tenant".into(), tenant.clone());
                expected.insert("last".into(), "y".into());
                assert_eq!(*found, expected, "{version}");
            }
            seen += series.len();
            // The encoder of the other version reads the same series.
            let body = batches[0].body(Version::V2).unwrap();
            let limits = metrifold_codec::remote_write::Limits::default();
            let (arena, invalid) =
                metrifold_codec::remote_write::decode(Version::V2, &body, &limits).unwrap();
            assert_eq!((invalid.series(), leaves_v1(&arena)), (0, series.clone()));
        }
        assert_eq!(seen, 36);
    }
}
