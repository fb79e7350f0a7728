use std::sync::Arc;
use std::time::Duration;

use snap::raw::{Decoder, Encoder};
use tokio::time::Instant;

use super::*;

const KEYS: &str = "from = [{ header = 'X-Tenant' }]\nlabel = 'tenant'";

fn transform(keys: &str) -> TenantQueries {
    let config: TenantConfig = toml::from_str(keys).unwrap();
    config.make_queries().unwrap()
}

/// A query of tenant `a`.
fn query(method: &str, target: &str, body: impl Into<Body>) -> Query {
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", "a".parse().unwrap());
    let mut origin = Origin::internal("test".into());
    origin.headers = headers.clone();
    if method == "POST" {
        headers.insert(CONTENT_TYPE, form::TYPE.parse().unwrap());
    }
    Query {
        method: method.parse().unwrap(),
        uri: target.parse().unwrap(),
        headers,
        cookies: Vec::new(),
        turns: None,
        asked_for: None,
        body: body.into(),
        origin: Arc::new(origin),
        tenant: None,
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

/// The target and the body of a narrowed query, both decoded.
fn narrowed(keys: &str, mut query: Query) -> Result<(String, String), String> {
    let applied = transform(keys).apply(&mut query);
    applied.map_err(|rejection| format!("{:?}: {}", rejection.kind, rejection.reason))?;
    assert_eq!(query.tenant.as_deref(), Some("a"));
    let body = String::from_utf8(query.body.whole().unwrap().to_vec()).unwrap();
    Ok((decoded(&query.uri.to_string()), decoded(&body)))
}

fn decoded(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('%') {
        let byte = u8::from_str_radix(&behind[..2], 16).unwrap();
        decoded.push_str(before);
        decoded.push(char::from(byte));
        rest = &behind[2..];
    }
    decoded + rest
}

fn get(target: &str) -> Result<String, String> {
    narrowed(KEYS, query("GET", target, Body::empty())).map(|(target, _)| target)
}

fn post(target: &str, body: &'static str) -> Result<(String, String), String> {
    narrowed(KEYS, query("POST", target, body))
}

#[test]
fn an_expression_is_narrowed_wherever_it_stands() {
    for endpoint in [
        "query",
        "query_range",
        "query_exemplars",
        "query_cost",
        "query_range_cost",
    ] {
        let path = format!("/api/v1/{endpoint}");
        let target = get(&format!("{path}?query=a+-%20b&time=1")).unwrap();
        let expected = r#"a{tenant="a"} - b{tenant="a"}"#;
        assert_eq!(target, format!("{path}?query={expected}&time=1"));
        let (target, body) = post(&path, "query=up&start=1&end=2&step=3").unwrap();
        assert_eq!(target, path);
        assert_eq!(body, r#"query=up{tenant="a"}&start=1&end=2&step=3"#);
        // Both are narrowed, since servers differ in which one they use.
        let (target, body) = post(&format!("{path}?query=x&query=y"), "query=up").unwrap();
        assert_eq!(
            target,
            format!(r#"{path}?query=x{{tenant="a"}}&query=y{{tenant="a"}}"#)
        );
        assert_eq!(body, r#"query=up{tenant="a"}"#);
        let (target, body) = post(&format!("{path}?query=up"), "time=1").unwrap();
        assert_eq!(target, format!(r#"{path}?query=up{{tenant="a"}}"#));
        assert_eq!(body, "time=1");
    }
}

#[test]
fn matchers_of_the_caller_are_kept_beside_the_tenants() {
    let target = get("/api/v1/query?query=up%7Btenant%3D%22b%22%7D").unwrap();
    assert_eq!(target, r#"/api/v1/query?query=up{tenant="a",tenant="b"}"#);
    let target = get("/api/v1/query?query=up%7Btenant%3D~%22.*%22%7D").unwrap();
    assert_eq!(target, r#"/api/v1/query?query=up{tenant="a",tenant=~".*"}"#);
}

#[test]
fn each_selector_is_narrowed_and_where_none_is_needed_one_is_added() {
    let target = get("/api/v1/series?match[]=up&match%5B%5D=%7Bx%3D%22y%22%7D&limit=1").unwrap();
    let expected = r#"/api/v1/series?match[]=up{tenant="a"}&match[]={tenant="a",x="y"}&limit=1"#;
    assert_eq!(target, expected);
    let target = get("/federate?match[]=%7B__name__%3D~%22.%2B%22%7D").unwrap();
    assert_eq!(target, r#"/federate?match[]={__name__=~".+",tenant="a"}"#);
    for path in [
        "/api/v1/labels",
        "/api/v1/label/job/values",
        "/api/v1/label/U__a_2e_b/values",
        "/api/v1/search/metric_names",
        "/api/v1/search/label_names",
        "/api/v1/search/label_values",
    ] {
        assert_eq!(
            get(path).unwrap(),
            format!(r#"{path}?match[]={{tenant="a"}}"#)
        );
        let target = get(&format!("{path}?match[]=up")).unwrap();
        assert_eq!(target, format!(r#"{path}?match[]=up{{tenant="a"}}"#));
    }
    let search = "/api/v1/search/label_values?label=job&search[]=x&sort_by=score&limit=3";
    let expected = format!(r#"{search}&match[]={{tenant="a"}}"#);
    assert_eq!(get(search).unwrap(), expected);
    // None is added beside one in the body or the URL: that would select more.
    let (target, body) = post("/api/v1/labels?match[]=up", "start=1").unwrap();
    assert_eq!(target, r#"/api/v1/labels?match[]=up{tenant="a"}"#);
    assert_eq!(body, "start=1");
    let (target, body) = post("/api/v1/labels?start=1", "match[]=up").unwrap();
    assert_eq!(target, "/api/v1/labels?start=1");
    assert_eq!(body, r#"match[]=up{tenant="a"}"#);
    for path in ["/api/v1/series", "/federate", "/api/v1/series?start=1"] {
        let error = get(path).unwrap_err();
        assert_eq!(error, "Invalid: no match[] parameter provided");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for (target, expected) in [
        ("/api/v1/query", "no query parameter provided"),
        ("/api/v1/query?query=", "no expression found"),
        ("/api/v1/query?query=up%7B", "parse error"),
        ("/api/v1/query?query=up&query=up%7B", "parse error"),
        (
            "/api/v1/query?query=up%7Ba%3D~%22(%22%7D",
            "regular expression",
        ),
        (
            "/api/v1/query?query=up%7Ba%3D%22b%22%20or%20c%3D%22d%22%7D",
            "parse error",
        ),
        ("/api/v1/query?query=WITH(x%3Dup)x", "parse error"),
        ("/api/v1/query?query=info(up)", "target_info"),
        ("/api/v1/query?query=up;x=y", "semicolon"),
        ("/api/v1/query?query=up%", "percent"),
        ("/api/v1/query?query=up%2", "percent"),
        ("/api/v1/query?query=up%zz", "percent"),
        ("/api/v1/query?query=up%+1", "percent"),
        ("/api/v1/query?query=up%ff", "UTF-8"),
        ("/api/v1/query?query=up&match[]=x", "\"match[]\""),
        (
            "/api/v1/query?query=up&extra_filters=x",
            "\"extra_filters\"",
        ),
        ("/api/v1/query?query=up&Query=x", "\"Query\""),
        ("/api/v1/series?match[]=up&match=x", "\"match\""),
        ("/api/v1/series?match[]=rate(up[1m])", "parse error"),
        (
            "/api/v1/series?match[]=up%7Ba%3D~%22(%22%7D",
            "regular expression",
        ),
        ("/api/v1/rules?tenant=b", "\"tenant\""),
        ("/api/v1/label/a%2F..%2Fb/values", "not known"),
        ("/api/v1/label/%2e%2e/values", "not known"),
        ("/api/v1/label/../values", "not known"),
        ("/api/v1/label/a/b/values", "not known"),
        ("/api/v1/label/a%252fb/values", "not known"),
        ("/assets/../api/v1/targets", "not known"),
        ("/assets/%2e%2e/api/v1/targets", "not known"),
        ("/assets/", "not known"),
        ("/api/v1/search/metric_names?query=up", "\"query\""),
        ("/api/v1/query_cost", "no query parameter provided"),
        ("/api/v1/nothing", "not known"),
        ("/api/v1/query/", "not known"),
    ] {
        let error = get(target).unwrap_err();
        assert!(error.starts_with("Invalid: "), "{target}: {error}");
        assert!(error.contains(expected), "{target}: {error}");
    }
}

#[test]
fn a_body_is_a_form_of_a_post_or_there_is_none() {
    let path = "/api/v1/query?query=up";
    let error = narrowed(KEYS, query("GET", path, "query=x")).unwrap_err();
    assert!(error.contains("has no body"), "{error}");
    for (name, value) in [
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-type", "application/json"),
        ("content-type", ""),
        ("content-encoding", "gzip"),
    ] {
        let mut sent = query("POST", path, "query=x");
        sent.headers.insert(name, value.parse().unwrap());
        let error = narrowed(KEYS, sent).unwrap_err();
        assert!(error.contains("the body is not a form"), "{name}: {error}");
    }
    let mut sent = query("POST", path, "query=x");
    sent.headers
        .append(CONTENT_TYPE, form::TYPE.parse().unwrap());
    assert!(narrowed(KEYS, sent).unwrap_err().contains("not a form"));
    let mut sent = query("POST", path, "query=x");
    let written = "Application/X-WWW-Form-Urlencoded ; charset=utf-8";
    sent.headers.insert(CONTENT_TYPE, written.parse().unwrap());
    assert!(narrowed(KEYS, sent).is_ok());
    let mut sent = query("POST", path, "");
    sent.headers.remove(CONTENT_TYPE);
    assert!(narrowed(KEYS, sent).is_ok());
    for body in ["a=%", "query=x;y", "q%ffery=x"] {
        assert!(post(path, body).unwrap_err().starts_with("Invalid: body: "));
    }
}

#[test]
fn what_tells_of_all_tenants_is_refused_unless_it_is_allowed() {
    for path in endpoint::closed().filter(|path| *path != endpoint::UI) {
        assert!(get(path).unwrap_err().starts_with("Forbidden: "), "{path}");
        let keys = format!("{KEYS}\nallow = ['{path}']");
        let passed = narrowed(&keys, query("GET", &format!("{path}?any=x"), Body::empty()));
        assert_eq!(passed.unwrap().0, format!("{path}?any=x"));
    }
    for path in [
        "/",
        "/query",
        "/assets/index-1a_b.js",
        "/static/js/main.1.js",
    ] {
        let error = get(path).unwrap_err();
        assert!(error.starts_with("Forbidden: "), "{path}: {error}");
        let keys = format!("{KEYS}\nallow = ['ui']");
        let passed = narrowed(&keys, query("GET", path, Body::empty()));
        assert_eq!(passed.unwrap().0, path);
        // Its word opens nothing else.
        let targets = query("GET", "/api/v1/targets", Body::empty());
        assert!(narrowed(&keys, targets).is_err());
    }
    for path in [
        "/api/v1/status/buildinfo",
        "/api/v1/openapi.yaml",
        "/-/ready",
        "/api/v1/format_query?query=x%20%2By",
    ] {
        assert_eq!(get(path).unwrap(), decoded(path));
    }
    let keys = format!("{KEYS}\nparameters = ['trace']");
    let passed = narrowed(
        &keys,
        query("GET", "/api/v1/query?query=1&trace=1", Body::empty()),
    );
    assert_eq!(passed.unwrap().0, "/api/v1/query?query=1&trace=1");
}

#[test]
fn without_a_tenant_nothing_is_asked() {
    let mut nobody = query("GET", "/api/v1/query?query=1", Body::empty());
    nobody.origin = Arc::new(Origin::internal("test".into()));
    let error = narrowed(KEYS, nobody).unwrap_err();
    assert_eq!(
        error,
        "Invalid: query has no tenant: it is looked for in header x-tenant"
    );
    for names in ["a|b", "a|", "|", "../a", "a,b"] {
        let mut several = query("GET", "/-/ready", Body::empty());
        let mut origin = Origin::internal("test".into());
        origin.headers.insert("x-tenant", names.parse().unwrap());
        several.origin = Arc::new(origin);
        let error = narrowed(KEYS, several).unwrap_err();
        assert!(
            error.starts_with("Invalid: header x-tenant: "),
            "{names}: {error}"
        );
    }
}

#[test]
fn several_tenants_are_exact_alternatives() {
    let keys = format!("{KEYS}\nmax_tenants_per_query = 2");
    let mut several = query("GET", "/api/v1/query?query=up", Body::empty());
    let mut origin = Origin::internal("test".into());
    origin
        .headers
        .insert("x-tenant", "a.b|c|a.b".parse().unwrap());
    several.origin = Arc::new(origin);
    several
        .headers
        .insert("x-scope-orgid", "other".parse().unwrap());
    several
        .headers
        .insert("thanos-tenant", "a.b|c".parse().unwrap());
    several
        .headers
        .insert("x-tenant", "a.b|c|a.b".parse().unwrap());
    transform(&keys).apply(&mut several).unwrap();
    let target = decoded(&several.uri.to_string());
    assert_eq!(target, r#"/api/v1/query?query=up{tenant=~"a\\.b|c"}"#);
    assert_eq!(several.tenant.as_deref(), Some("a.b|c"));
    assert!(!several.headers.contains_key("x-scope-orgid"));
    assert!(several.headers.contains_key("thanos-tenant"));
    // The header in which the caller named them: the server could read it in another way.
    assert!(!several.headers.contains_key("x-tenant"));
}

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, value.len() as u8], value].concat()
}

fn read(sent: &[u8]) -> Result<Vec<u8>, String> {
    let body = Encoder::new().compress_vec(sent).unwrap();
    let mut query = query("POST", "/api/v1/read", body);
    let applied = transform(KEYS).apply(&mut query);
    applied.map_err(|rejection| rejection.reason)?;
    let body = query.body.whole().unwrap().clone();
    Ok(Decoder::new().decompress_vec(&body).unwrap())
}

#[test]
fn each_query_of_remote_read_gets_the_matcher() {
    let matcher = |op: &[u8], name: &str, value: &str| {
        let rest = [field(2, name.as_bytes()), field(3, value.as_bytes())].concat();
        field(3, &[op, &rest].concat())
    };
    let times = [1 << 3, 5, 2 << 3, 9];
    let first = [&times[..], &matcher(&[], "__name__", "up")].concat();
    let second = [
        &matcher(&[1 << 3, 2], "x", ".*")[..],
        &field(4, &[1 << 3, 1]),
    ]
    .concat();
    let types = [2 << 3, 1];
    let sent = [field(1, &first), types.to_vec(), field(1, &second)].concat();
    let own = matcher(&[1 << 3, 2], "tenant", "a");
    let narrowed = [&first[..], &own].concat();
    let expected = [
        field(1, &narrowed),
        types.to_vec(),
        field(1, &[&second[..], &own].concat()),
    ];
    assert_eq!(read(&sent).unwrap(), expected.concat());
    let empty = read(&field(1, &[])).unwrap();
    assert_eq!(empty, field(1, &own));
    for unknown in [
        field(1, &field(5, b"or")),
        field(3, b"x"),
        vec![1 << 3, 1],
        vec![1 << 3 | 2, 5],
        vec![1 << 3 | 3],
        vec![0xff; 11],
        field(1, &[3 << 3, 1]),
    ] {
        let error = read(&unknown).unwrap_err();
        assert!(
            error.contains("not a remote-read request"),
            "{unknown:?}: {error}"
        );
    }
    let mut plain = query("POST", "/api/v1/read", vec![0xff; 100]);
    let error = transform(KEYS).apply(&mut plain).unwrap_err();
    assert!(error.reason.contains("not valid snappy"), "{error}");
    // A declared length is not trusted.
    let mut large = query("POST", "/api/v1/read", vec![0xff, 0xff, 0xff, 0xff, 0x0f]);
    let error = transform(KEYS).apply(&mut large).unwrap_err();
    assert!(error.reason.contains("more than"), "{error}");
}

/// Filters an answer.
fn edited(target: &str, answer: &str, beside: &str) -> Result<String, String> {
    let mut query = query("GET", target, Body::empty());
    let plan = transform(KEYS).apply(&mut query).unwrap();
    assert_eq!(query.headers[ACCEPT_ENCODING], "identity");
    let edit = plan.edit.unwrap();
    let edited = (edit.apply)(answer.as_bytes(), beside.as_bytes());
    edited
        .map(|edited| String::from_utf8(edited).unwrap())
        .map_err(|rejection| format!("{:?}", rejection.kind))
}

#[test]
fn rules_and_alerts_are_filtered_by_label_and_keep_their_fields() {
    let own = r#"{"name":"r","labels":{"tenant":"a","x":"\u00e9"},"health":"ok","value":1e-05}"#;
    let other = r#"{"name":"r","labels":{"tenant":"b"}}"#;
    let nobody = r#"{"name":"r","labels":{}}"#;
    let bare = r#"{"name":"r"}"#;
    let shared = r#"{"name":"s","labels":{"tenant":"{{ $labels.tenant }}"},"alerts":[{"labels":{"tenant":"a"}}]}"#;
    let mine = r#"{"name":"m","labels":{"tenant":"a"},"alerts":[{"labels":{"tenant":"a"},"n":1},{"labels":{"tenant":"b"}},{"labels":{}}],"state":"firing"}"#;
    let kept = r#"{"name":"m","labels":{"tenant":"a"},"alerts":[{"labels":{"tenant":"a"},"n":1}],"state":"firing"}"#;
    let answer = format!(
        r#"{{"status":"success","data":{{"groups":[{{"name":"g","rules":[{own},{other},{nobody},{mine}],"interval":60}},{{"name":"h","rules":[{other},{bare},{shared}]}},{{"name":"i","rules":[]}}],"groupNextToken":"t"}},"warnings":["w"]}}"#
    );
    let expected = format!(
        r#"{{"status":"success","data":{{"groups":[{{"name":"g","rules":[{own},{kept}],"interval":60}}],"groupNextToken":"t"}},"warnings":["w"]}}"#
    );
    let rules = edited("/api/v1/rules?type=alert", &answer, "");
    assert_eq!(rules.unwrap(), expected);
    let answer = format!(r#"{{"data":{{"alerts":[{other},{own},{nobody},{bare}]}}}}"#);
    let alerts = edited("/api/v1/alerts", &answer, "").unwrap();
    assert_eq!(alerts, format!(r#"{{"data":{{"alerts":[{own}]}}}}"#));
    for strange in [
        "",
        "[]",
        "{}",
        r#"{"data":null}"#,
        r#"{"data":{}}"#,
        r#"{"data":{"alerts":[{"labels":7}]}}"#,
        r#"{"data":{"alerts":[7]}}"#,
        "<html>",
    ] {
        let error = edited("/api/v1/alerts", strange, "").unwrap_err();
        assert_eq!(error, "Unreachable", "{strange}");
    }
}

#[test]
fn metadata_are_of_the_names_that_the_tenant_has() {
    let entry = |kind: &str| format!(r#"[{{"type":"{kind}","help":"h","unit":""}}]"#);
    let families = [
        ("up", "gauge"),
        ("other", "gauge"),
        ("h", "histogram"),
        ("foreign", "histogram"),
        ("c", "counter"),
        ("d", "gauge"),
    ];
    let list = |names: &[(&str, &str)]| {
        let written = names
            .iter()
            .map(|(name, kind)| format!("\"{name}\":{}", entry(kind)));
        format!(
            r#"{{"status":"success","data":{{{}}}}}"#,
            written.collect::<Vec<_>>().join(",")
        )
    };
    let names = r#"{"status":"success","data":["up","h_bucket","c_total","d_total"]}"#;
    let metadata = |target: &str| edited(target, &list(&families), names).unwrap();
    let own = [families[0], families[2], families[4]];
    assert_eq!(metadata("/api/v1/metadata"), list(&own));
    assert_eq!(metadata("/api/v1/metadata?limit=2"), list(&own[..2]));
    assert_eq!(metadata("/api/v1/metadata?limit=-1"), list(&own));
    assert_eq!(metadata("/api/v1/metadata?limit=0"), list(&[]));

    let mut query = query("GET", "/api/v1/metadata?limit=2&metric=up", Body::empty());
    let plan = transform(KEYS).apply(&mut query).unwrap();
    assert_eq!(query.uri, "/api/v1/metadata?metric=up");
    let beside = plan.edit.unwrap().beside.unwrap();
    let target = decoded(&beside.uri.to_string());
    assert_eq!(
        target,
        r#"/api/v1/label/__name__/values?match[]={tenant="a"}"#
    );
    assert_eq!(
        get("/api/v1/metadata?limit=x").unwrap(),
        "/api/v1/metadata?limit=x"
    );
}

#[test]
fn problems_of_queries_stand_at_their_keys() {
    for (keys, expected) in [
        ("allow = ['/api/v1/query']", "allow[0]"),
        ("allow = ['/api/v1/targets', '/x']", "allow[1]"),
        ("parameters = ['match[]']", "parameters[0]"),
        ("parameters = ['']", "parameters[0]"),
        ("max_body_bytes = '0B'", "max_body_bytes"),
        ("max_answer_bytes = '0B'", "max_answer_bytes"),
    ] {
        let mut problems = Problems::new(false);
        let config: TenantConfig = toml::from_str(&format!("{KEYS}\n{keys}")).unwrap();
        assert!(!validate(&config, &mut problems));
        let paths: Vec<_> = problems.into_list().into_iter().map(|p| p.path).collect();
        assert_eq!(paths, [expected], "{keys}");
    }
    let config: TenantConfig = toml::from_str("from = [{ value = 'a' }]").unwrap();
    assert!(config.make_queries().is_err(), "a label is needed");
}

const BY_PARAMETER: &str =
    "from = [{ parameter = 'tenant_id' }, { parameter = 'namespace' }]\nlabel = 'tenant'";

#[test]
fn a_parameter_of_the_url_names_the_tenant_and_goes_no_further() {
    let ask = |method: &str, target: &str, body: &'static str| {
        narrowed(BY_PARAMETER, query(method, target, body))
    };
    for (target, expected) in [
        (
            "/api/v1/query?tenant_id=a&query=up&namespace=b",
            r#"/api/v1/query?query=up{tenant="a"}"#,
        ),
        (
            "/api/v1/query?query=up&tenant_id=&namespace=%61",
            r#"/api/v1/query?query=up{tenant="a"}"#,
        ),
        ("/-/ready?tenant%5Fid=a", "/-/ready"),
        (
            "/api/v1/rules?type=alert&tenant_id=a",
            "/api/v1/rules?type=alert",
        ),
        ("/api/v1/metadata?tenant_id=a", "/api/v1/metadata"),
    ] {
        let (narrowed, _) = ask("GET", target, "").unwrap();
        assert_eq!(narrowed, expected, "{target}");
    }
    let posted = ask("POST", "/api/v1/query?tenant_id=a", "query=up").unwrap();
    assert_eq!(posted.0, "/api/v1/query");
    assert_eq!(posted.1, r#"query=up{tenant="a"}"#);
    // Remote read's URL is not looked at otherwise.
    let sent = Encoder::new().compress_vec(&[]).unwrap();
    let mut read = query("POST", "/api/v1/read?tenant_id=a&x=y", sent);
    transform(BY_PARAMETER).apply(&mut read).unwrap();
    assert_eq!(read.uri, "/api/v1/read?x=y");
}

#[test]
fn a_tenant_that_a_proxy_in_front_may_have_overlooked_is_refused() {
    for (target, body, expected) in [
        (
            "/api/v1/query?tenant_id=a&query=up&tenant_id=a",
            "",
            "parameter tenant_id of the url: it is given more than once",
        ),
        (
            "/api/v1/query?tenant_id=a",
            "query=up&tenant_id=b",
            "parameter \"tenant_id\" names the tenant: send it in the url, not in the body",
        ),
        (
            "/api/v1/query?tenant_id=a",
            "query=up&namespac%65=b",
            "parameter \"namespace\" names the tenant: send it in the url, not in the body",
        ),
        (
            "/api/v1/query?tenant_id=a;tenant_id=b&query=up",
            "",
            "query string: a semicolon is written %3B",
        ),
        (
            "/api/v1/query?query=up&Tenant_id=a",
            "",
            "query has no tenant: it is looked for in parameter tenant_id of the url, parameter namespace of the url",
        ),
        (
            "/api/v1/query?query=up&tenant_id=a%7Cb",
            "",
            "parameter tenant_id of the url: it names more than max_tenants_per_query = 1",
        ),
    ] {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let refused = narrowed(BY_PARAMETER, query(method, target, body));
        assert_eq!(refused.unwrap_err(), format!("Invalid: {expected}"));
    }
}

#[test]
fn a_parameter_with_another_meaning_names_no_tenant() {
    for name in ["query", "match[]", "limit", "metric", "file[]", ""] {
        let keys = format!("from = [{{ parameter = '{name}' }}]\nlabel = 'tenant'");
        let config: TenantConfig = toml::from_str(&keys).unwrap();
        let mut problems = Problems::new(false);
        assert!(config.compile(&mut problems).is_none(), "{name}");
        let paths: Vec<_> = problems.into_list().into_iter().map(|p| p.path).collect();
        assert_eq!(paths, ["from[0].parameter"], "{name}");
    }
}
