//! A caller of one tenant names another one in thousands of spellings, at every source. None reaches
//! the other tenant.

use std::path::Path;

use metrifold_base::keys::list;
use metrifold_engine::component::ComponentInfo;
use metrifold_model::Kind;
use metrifold_testing::{Endpoint, Metrifold, Random, Reply, Seen, Series, body, expect, request};

use super::{AS_ACME, AS_ZETA, files, tenants};

/// A source that tenants share, with requests to it.
struct Way {
    source: &'static str,
    /// Configuration of the source and of the components behind it.
    config: fn(&str, &Path) -> String,
    method: &'static str,
    /// Well-formed targets, with `TENANT` in place of the tenant.
    targets: &'static [&'static str],
    headers: &'static [(&'static str, &'static str)],
    body: fn() -> Vec<u8>,
    /// Whether a request at the endpoint has data of the caller's tenant only.
    is_own: fn(&Seen) -> bool,
    /// Target and body of a request that stores data of the other tenant beforehand.
    others: Option<(&'static str, &'static str)>,
}

/// Text that only its own tenant may see.
const SECRET: &str = "OnlyOfZeta";

/// A source of rules with a sink.
fn rules(_: &str, folder: &Path) -> String {
    let (store, out) = (folder.join("store"), folder.join("out"));
    format!(
        "[sources.s]\ntype = \"rules_api\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         path = \"/of/{{tenant}}\"\ndirectory = {store:?}\n\
         [transforms.t]\ntype = \"tenant\"\ninputs = [\"s\"]\nlabel = \"tenant_id\"\n\
         [sinks.o]\ntype = \"rules_directory\"\ninputs = [\"t\"]\npath = {out:?}\n"
    )
}

/// Target and body that store rules of the other tenant.
const OF_ZETA: (&str, &str) = (
    "/of/zeta/rules/secret",
    "groups: [{ name: g, rules: [{ alert: OnlyOfZeta, expr: up }] }]",
);

const WAYS: &[Way] = &[
    Way {
        source: "remote_write",
        config: |endpoint, _| {
            format!(
                "[sources.s]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
                 path = \"/of/{{tenant}}/api/v1/receive\"\n\
                 [transforms.t]\ntype = \"tenant\"\ninputs = [\"s\"]\nlabel = \"tenant_id\"\n\
                 [sinks.o]\ntype = \"thanos\"\ninputs = [\"t\"]\nendpoint = \"{endpoint}\"\n"
            )
        },
        method: "POST",
        targets: &["/of/TENANT/api/v1/receive"],
        headers: &[
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ],
        body: || {
            let series = Series::of(&[("__name__", "up"), ("tenant_id", "id-zeta")]);
            body(&[series.sample(1.0, 1)])
        },
        is_own: |seen| {
            seen.header("thanos-tenant") == Some("id-acme")
                && seen
                    .series()
                    .iter()
                    .all(|series| series.get("tenant_id") == Some("id-acme"))
        },
        others: None,
    },
    Way {
        source: "prometheus_api",
        config: |endpoint, _| {
            format!(
                "[sources.s]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
                 path = \"/of/{{tenant}}\"\n\
                 [transforms.t]\ntype = \"tenant\"\ninputs = [\"s\"]\nlabel = \"tenant_id\"\n\
                 [sinks.o]\ntype = \"prometheus\"\ninputs = [\"t\"]\nendpoint = \"{endpoint}\"\n"
            )
        },
        method: "GET",
        targets: &[
            "/of/TENANT/api/v1/query?query=up",
            "/of/TENANT/api/v1/query_range?query=up&start=1&end=2&step=1",
            "/of/TENANT/api/v1/series?match[]=up",
            "/of/TENANT/api/v1/labels",
            "/of/TENANT/api/v1/label/job/values",
            "/of/TENANT/federate?match[]=up",
        ],
        headers: &[],
        body: Vec::new,
        is_own: |seen| {
            let headers = ["thanos-tenant", "x-scope-orgid"];
            let mut headers = headers.iter().filter_map(|name| seen.header(name));
            headers.all(|value| value == "id-acme")
                && seen.path.contains("tenant_id%3D%22id-acme%22")
                && !seen.path.contains("..")
                && !seen.path.contains("//")
        },
        others: None,
    },
    Way {
        source: "rules_api",
        config: rules,
        method: "GET",
        targets: &[
            "/of/TENANT/rules",
            "/of/TENANT/rules/secret",
            "/of/TENANT/api/v1/rules/raw",
        ],
        headers: &[],
        body: Vec::new,
        is_own: |_| false,
        others: Some(OF_ZETA),
    },
    Way {
        source: "rules_api",
        config: rules,
        method: "PUT",
        targets: &["/of/TENANT/rules/secret", "/of/TENANT/rules/secret/g"],
        headers: &[],
        body: || b"groups: []".to_vec(),
        is_own: |_| false,
        others: Some(OF_ZETA),
    },
];

/// Spellings of a tenant's name; only a few are equivalent to it.
fn names(name: &str) -> Vec<String> {
    let first = name.as_bytes()[0];
    let escaped = format!("%{first:02X}{}", &name[1..]);
    let mut names = vec![
        name.to_owned(),
        escaped.to_lowercase(),
        escaped,
        name.to_uppercase(),
        format!("%25{first:02X}{}", &name[1..]),
    ];
    for (before, after) in [
        ("", "/"),
        ("/", ""),
        ("./", ""),
        ("", "/."),
        ("../", ""),
        ("x/../", ""),
        ("", "/../acme"),
        ("acme/../", ""),
        ("acme%2F..%2F", ""),
        ("acme%2f..%2f", ""),
        ("acme/%2E%2E/", ""),
        ("acme/%2e%2e/", ""),
        ("acme\\..\\", ""),
        ("acme%5C..%5C", ""),
        ("acme;", ""),
        ("", ";acme"),
        ("acme%3B", ""),
        ("acme|", ""),
        ("acme%7C", ""),
        ("acme,", ""),
        ("acme%2C", ""),
        ("", "%00"),
        ("acme%00", ""),
        ("", "%20"),
        ("%20", ""),
        ("", "%0A"),
        ("", "%0d%0aX-Scope-OrgID:%20id-zeta"),
        ("acme%C0%AF", ""),
        ("acme%E0%80%AF..%E0%80%AF", ""),
        ("acme%EF%BC%8F..%EF%BC%8F", ""),
        ("%EF%BB%BF", ""),
        ("acme%23", ""),
        ("acme%3F", ""),
        ("acme@", ""),
        ("acme:", ""),
        ("acme*", ""),
        (".*", ""),
    ] {
        names.push(format!("{before}{name}{after}"));
    }
    names
}

/// Combinations of headers that could name a tenant.
fn headers() -> Vec<Vec<(&'static str, &'static str)>> {
    let mut all = vec![Vec::new()];
    for name in ["THANOS-TENANT", "X-Scope-OrgID", "x-scope-orgid"] {
        for value in [
            "zeta",
            "id-zeta",
            "acme|zeta",
            "zeta|acme",
            "acme, zeta",
            "zeta,acme",
            "acme",
            "",
            "*",
            ".*",
            "acme\tzeta",
            "ZETA",
            "%7Aeta",
            "acme;zeta",
        ] {
            all.push(vec![(name, value)]);
        }
        all.push(vec![(name, "acme"), (name, "zeta")]);
        all.push(vec![(name, "zeta"), (name, "acme")]);
    }
    all.push(vec![("THANOS-TENANT", "acme"), ("X-Scope-OrgID", "zeta")]);
    all.push(vec![
        ("Connection", "authorization"),
        ("X-Scope-OrgID", "zeta"),
    ]);
    all.push(vec![
        ("Connection", "x-scope-orgid"),
        ("X-Scope-OrgID", "zeta"),
    ]);
    all.push(vec![
        ("X-Forwarded-Prefix", "/of/zeta"),
        ("X-Original-URL", "/of/zeta/x"),
    ]);
    all.push(vec![
        ("X-Rewrite-URL", "/of/zeta"),
        ("X-HTTP-Method-Override", "PUT"),
    ]);
    all.push(vec![AS_ACME, ("authorization", "Bearer zeta-token")]);
    all
}

/// Variations of the target around the tenant's name.
fn targets(target: &str) -> Vec<String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let with = |path: &str| match query {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    };
    let mut all = vec![target.to_owned()];
    for (from, to) in [
        ("/api/", "//api/"),
        ("/api/", "/./api/"),
        ("/api/", "/x/../api/"),
        ("/api/v1/", "/api/v1//"),
        ("/api/v1/", "/api/v1/./"),
        ("/api/v1/", "/api/v1/%2E/"),
        ("/api/v1/", "/api%2Fv1/"),
        ("/api/v1/", "/api/v1/..;/v1/"),
        ("/api/v1/q", "/api/v1/%71"),
        ("/api/v1/r", "/api/v1/%72"),
        ("/of/", "/of//"),
        ("/of/", "//of/"),
        ("/of/", "/%6Ff/"),
        ("/of/", "/OF/"),
        ("/of/", "http://127.0.0.1/of/"),
    ] {
        if path.contains(from) {
            all.push(with(&path.replacen(from, to, 1)));
        }
    }
    for more in [
        "query=up{tenant_id=\"id-zeta\"}",
        "query=up%7Btenant_id%3D%22id-zeta%22%7D+or+up",
        "match[]={tenant_id=\"id-zeta\"}",
        "match%5B%5D=%7Btenant_id%3D%22id-zeta%22%7D",
        "tenant=zeta",
        "THANOS-TENANT=zeta",
        "x;query=up",
        "query=up;match[]=up",
        "%71uery=up",
    ] {
        let divider = if query.is_empty() { '?' } else { '&' };
        all.push(format!("{target}{divider}{more}"));
        all.push(format!("{path}?{more}"));
    }
    all
}

#[test]
fn every_source_that_tenants_reach_is_in_the_corpus() {
    let infos = inventory::iter::<ComponentInfo>.into_iter();
    let sources = infos.filter(|info| info.kind == Kind::Source);
    let reached = sources.filter(|info| list(info.keys).iter().any(|key| key.name == "access"));
    for info in reached {
        let known = WAYS.iter().any(|way| way.source == info.name);
        assert!(known, "add a way for the source {:?}", info.name);
    }
}

#[test]
fn no_spelling_leads_from_one_tenant_to_another() {
    let folder = files();
    for way in WAYS {
        let endpoint =
            Endpoint::new(|_| Reply::new(200).body("{\"status\":\"success\",\"data\":[]}"));
        let own = tempfile::tempdir().unwrap();
        let config = (way.config)(&endpoint.url(), own.path());
        let gateway = Metrifold::start(&format!("{}{config}", tenants(folder.path())));
        if let Some((target, text)) = way.others {
            for (target, caller, text) in [
                (target.to_owned(), AS_ZETA, text.to_owned()),
                (
                    target.replace("zeta", "acme"),
                    AS_ACME,
                    text.replace(SECRET, "OfAcme"),
                ),
            ] {
                let text = text.as_bytes();
                let answer = request("PUT", gateway.ingest, &target, &[caller], text);
                expect(&answer.unwrap(), 200);
            }
        }
        let sent = (way.body)();
        let mut requests: Vec<(String, Vec<(&str, &str)>)> = Vec::new();
        let mut names: Vec<String> = names("zeta");
        names.extend(["id-zeta", "acme", "id-acme", "%61cme"].map(str::to_owned));
        for target in way.targets {
            for name in &names {
                for headers in headers() {
                    requests.push((target.replace("TENANT", name), headers));
                }
            }
            for spelled in targets(target) {
                for name in ["zeta", "acme"] {
                    requests.push((spelled.replace("TENANT", name), Vec::new()));
                }
            }
        }
        // A sixteenth of all combinations of targets and headers, spread evenly.
        let mut random = Random(13);
        let mut asked = 0;
        let (mut let_in, mut refused) = (0, 0);
        for (target, headers) in requests {
            if !headers.is_empty() && random.below(16) > 0 {
                continue;
            }
            asked += 1;
            let headers: Vec<_> = headers.iter().chain(way.headers).copied().collect();
            let headers: Vec<_> = [AS_ACME].into_iter().chain(headers).collect();
            let address = gateway.ingest;
            let answer = request(way.method, address, &target, &headers, &sent);
            let answer = answer.unwrap_or_else(|error| panic!("{target}: {error}"));
            assert!(!answer.text().contains(SECRET), "{target} {headers:?}");
            let seen = endpoint.take();
            for seen in &seen {
                assert!(
                    (way.is_own)(seen),
                    "{target} {headers:?} became {} {:?}",
                    seen.path,
                    seen.headers
                );
                let leaked = ["authorization", "cookie"]
                    .iter()
                    .any(|name| seen.header(name).is_some());
                assert!(!leaked, "{target} {headers:?}");
            }
            match answer.status {
                200..=204 => let_in += 1,
                400 | 401 | 403 | 404 | 405 => {
                    refused += 1;
                    assert!(seen.is_empty(), "{target} {headers:?}: {}", answer.text());
                }
                status => panic!("{target} {headers:?}: {status} {}", answer.text()),
            }
        }
        if let Some((target, _)) = way.others {
            let answer = request("GET", gateway.ingest, target, &[AS_ZETA], b"").unwrap();
            assert!(answer.text().contains(SECRET), "{}", answer.text());
        }
        assert!(asked >= 100, "{}: {asked}", way.source);
        assert!(
            let_in > 0 && refused > let_in,
            "{}: {let_in} {refused}",
            way.source
        );
    }
}
