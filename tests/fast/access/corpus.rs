//! Callers of two tenants name the other one in thousands of spellings, at every source, over both
//! versions of HTTP. None reaches the other tenant, and every good spelling reaches its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use metrifold_base::keys::list;
use metrifold_engine::component::ComponentInfo;
use metrifold_model::Kind;
use metrifold_testing::series::{TYPE_1, TYPE_2};
use metrifold_testing::{
    Answer, Authority, Endpoint, Metrifold, Random, Reply, Seen, Series, body, body_v2, encode,
    expect, request,
};

use super::{AS_ACME, AS_ZETA, files, tenants};

type Headers = Vec<(String, String)>;

/// A caller's tenant, and the one that it tries to reach.
#[derive(Clone, Copy, Debug)]
struct Pair {
    own: &'static str,
    other: &'static str,
    proof: (&'static str, &'static str),
}

const PAIRS: [Pair; 2] = [
    Pair {
        own: "acme",
        other: "zeta",
        proof: AS_ACME,
    },
    Pair {
        own: "zeta",
        other: "acme",
        proof: AS_ZETA,
    },
];

impl Pair {
    /// The id of its own tenant.
    fn id(self) -> String {
        format!("id-{}", self.own)
    }

    /// A text in which `acme` stands for its own tenant, and `zeta` for the other one.
    fn say(self, text: &str) -> String {
        let [own, other] = [("acme", "\u{1}", self.own), ("zeta", "\u{2}", self.other)];
        let text = text.replace(own.0, own.1).replace(other.0, other.1);
        text.replace(own.1, own.2).replace(other.1, other.2)
    }

    /// Text that only the other tenant may see.
    fn secret(self) -> String {
        secret(self.other)
    }
}

fn secret(tenant: &str) -> String {
    format!("OnlyOf{}", tenant.to_uppercase())
}

/// A source that tenants share, with requests to it.
#[derive(Clone, Copy)]
struct Way {
    source: &'static str,
    /// Configuration of the source and of the components behind it.
    config: fn(&str, &Path) -> String,
    method: &'static str,
    /// Well-formed targets, with `TENANT` in place of the tenant.
    targets: &'static [&'static str],
    headers: &'static [(&'static str, &'static str)],
    body: fn() -> Vec<u8>,
    /// Requests with other bodies.
    bodies: fn(Pair) -> Vec<Case>,
    /// Whether a request at the endpoint has data of the tenant with this id only.
    is_own: fn(&Seen, &str) -> bool,
    /// Whether the tenants have a file of rules beforehand, at [`STORED`].
    stores: bool,
    /// Whether its own tenant's well-formed requests are let in.
    opens: bool,
}

/// One request.
#[derive(Clone, Debug)]
struct Case {
    kind: &'static str,
    method: &'static str,
    target: String,
    /// Without the proof.
    headers: Headers,
    body: Vec<u8>,
    /// Whether it must be let in; `None` if it may be.
    is_let_in: Option<bool>,
}

fn owned(headers: &[(&str, &str)]) -> Headers {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    headers.iter().map(owned).collect()
}

/// A source of rules with a sink.
fn rules(_: &str, folder: &Path) -> String {
    let (store, out) = (folder.join("store"), folder.join("out"));
    format!(
        "[sources.s]\ntype = \"rules_api\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         path = \"/of/{{tenant}}\"\ndirectory = {store:?}\n\
         ruler_path = \"/ruler/rules\"\nbackend_path = \"/backend/rules\"\n\
         [transforms.t]\ntype = \"tenant\"\ninputs = [\"s\"]\nlabel = \"tenant_id\"\n\
         [sinks.o]\ntype = \"rules_directory\"\ninputs = [\"t\"]\npath = {out:?}\n"
    )
}

/// Target of a tenant's rules.
const STORED: &str = "/of/TENANT/rules/secret";

const RULES: Way = Way {
    source: "rules_api",
    config: rules,
    method: "GET",
    targets: &[],
    headers: &[],
    body: Vec::new,
    bodies: |_| Vec::new(),
    is_own: |_, _| false,
    stores: true,
    opens: true,
};

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
        headers: &WRITE_1,
        body: || {
            let series = Series::of(&[("__name__", "up"), ("tenant_id", "id-zeta")]);
            body(&[series.sample(1.0, 1)])
        },
        bodies: labelled,
        is_own: |seen, id| {
            let is_own = |series: &Series| {
                let labels = series.labels.iter();
                let mut values = labels.filter(|(name, _)| name == "tenant_id");
                values.next().is_some_and(|(_, value)| value == id) && values.next().is_none()
            };
            seen.header("thanos-tenant") == Some(id) && seen.series().iter().all(is_own)
        },
        stores: false,
        opens: true,
    },
    Way {
        source: "prometheus_api",
        config: |endpoint, _| {
            format!(
                "[sources.s]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
                 path = \"/of/{{tenant}}\"\n\
                 [transforms.t]\ntype = \"tenant\"\ninputs = [\"s\"]\nlabel = \"tenant_id\"\n\
                 [sinks.o]\ntype = \"prometheus\"\ninputs = [\"t\"]\nendpoint = \"{endpoint}\"\n\
                 tenant_header = \"X-Scope-OrgID\"\n"
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
        bodies: forms,
        is_own: |seen, id| {
            let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
            let form = String::from_utf8_lossy(&seen.body);
            let mut texts = selecting(query).chain(selecting(&form)).peekable();
            texts.peek().is_some()
                && texts.all(|text| selects_only(&text, id))
                && seen.header("x-scope-orgid") == Some(id)
                && seen.header("thanos-tenant").is_none()
                && !path.contains("..")
                && !path.contains("//")
        },
        stores: false,
        opens: true,
    },
    Way {
        targets: &["/of/TENANT/rules", STORED, "/of/TENANT/api/v1/rules/raw"],
        ..RULES
    },
    Way {
        method: "PUT",
        targets: &["/of/TENANT/rules/other", "/of/TENANT/rules/other/g"],
        body: || b"groups: [{ name: g, rules: [{ record: r, expr: up }] }]".to_vec(),
        // A group is written without its list.
        bodies: |pair| {
            let group = b"name: g\nrules: [{ record: r, expr: up }]".to_vec();
            let case = |name: &str, is_let_in| Case {
                kind: "label",
                method: "PUT",
                target: format!("/of/{name}/rules/other/g"),
                headers: Headers::new(),
                body: group.clone(),
                is_let_in: Some(is_let_in),
            };
            vec![case(pair.own, true), case(pair.other, false)]
        },
        opens: false,
        ..RULES
    },
    // Mimir's API names the tenant in a header.
    Way {
        targets: &[
            "/ruler/rules",
            "/ruler/rules/secret",
            "/ruler/rules/secret/g",
        ],
        ..RULES
    },
    Way {
        method: "POST",
        targets: &["/ruler/rules/more"],
        body: || b"name: g\nrules: [{ record: r, expr: up }]".to_vec(),
        ..RULES
    },
    // The backend contract shows the rules of all tenants, and lets in no caller of one tenant.
    Way {
        targets: &["/backend/rules", "/backend/rules/TENANT"],
        opens: false,
        ..RULES
    },
    Way {
        method: "PUT",
        targets: &["/backend/rules/TENANT"],
        body: || b"groups: []".to_vec(),
        opens: false,
        ..RULES
    },
];

const WRITE_1: [(&str, &str); 3] = [
    ("content-type", TYPE_1),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

const WRITE_2: [(&str, &str); 3] = [
    ("content-type", TYPE_2),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "2.0.0"),
];

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Spellings of the label with the tenant, in both versions of remote write.
fn labelled(pair: Pair) -> Vec<Case> {
    let (own, other) = (pair.id(), format!("id-{}", pair.other));
    let (own, other) = (own.as_str(), other.as_str());
    let mut all: Vec<(Labels<'_>, Option<bool>)> = Vec::new();
    let name = ("__name__", "up");
    for (labels, is_let_in) in [
        (vec![name], Some(true)),
        (vec![name, ("tenant_id", own)], Some(true)),
        (vec![name, ("tenant_id", other)], Some(true)),
        (
            vec![name, ("a", "b"), ("tenant_id", other), ("z", "z")],
            Some(true),
        ),
        (vec![name, ("tenant_id", ""), ("z", "z")], None),
        (vec![name, ("tenant_id", other), ("tenant_id", other)], None),
        (vec![name, ("tenant_id", own), ("tenant_id", other)], None),
        (vec![name, ("tenant_id", other), ("tenant_id", own)], None),
        (vec![name, ("tenant_id", ""), ("tenant_id", other)], None),
        (vec![name, ("tenant_id", other), ("a", "b")], None),
        (vec![("tenant_id", other), name], None),
        (
            vec![
                name,
                ("z", "z"),
                ("tenant_id", other),
                ("a", "b"),
                ("tenant_id", other),
            ],
            None,
        ),
        (vec![("tenant_id", other)], None),
        (vec![name, ("", other), ("tenant_id", other)], None),
    ] {
        all.push((labels, is_let_in));
    }
    for alike in [
        "TENANT_ID",
        "Tenant_id",
        "tenant_id ",
        " tenant_id",
        "tenant_id\u{0}",
        "tenant-id",
        "tenant.id",
        "tenant\u{ff3f}id",
        "ten\u{430}nt_id",
        "tenant_id\u{200b}",
        "\u{feff}tenant_id",
        "tenant_\u{131}d",
        "U__tenant__id",
        "__tenant_id__",
        "{tenant_id}",
        "tenant_id=\"id-zeta\",x",
    ] {
        all.push((vec![name, (alike, other)], None));
        all.push((vec![name, ("tenant_id", other), (alike, other)], None));
        all.push((vec![name, (alike, other), ("tenant_id", other)], None));
    }
    for value in [
        "\u{0}",
        "id-zeta\u{0}",
        "\"",
        "id-zeta\",x=\"y",
        "id-acme|id-zeta",
        ".*",
        "\n",
        "\u{feff}id-zeta",
    ] {
        all.push((vec![name, ("tenant_id", value)], None));
    }
    let mut cases = Vec::new();
    for (labels, is_let_in) in all {
        let series = Series::of(&labels).sample(1.0, 1);
        // Beside others, which must not be taken for it either.
        let beside = Series::of(&[name, ("tenant_id", other), ("x", "y")]).sample(1.0, 1);
        for bodies in [
            vec![series.clone()],
            vec![beside.clone(), series.clone(), beside],
        ] {
            for (headers, body) in [(WRITE_1, body(&bodies)), (WRITE_2, body_v2(&bodies))] {
                for tenant in [pair.own.to_owned(), pair.id()] {
                    cases.push(Case {
                        kind: "label",
                        method: "POST",
                        target: format!("/of/{tenant}/api/v1/receive"),
                        headers: owned(&headers),
                        body: body.clone(),
                        is_let_in,
                    });
                }
            }
        }
    }
    cases
}

/// Spellings of a form, beside and without parameters in the URL.
fn forms(pair: Pair) -> Vec<Case> {
    let form = "application/x-www-form-urlencoded";
    let mut cases = Vec::new();
    for (path, key) in [
        ("query", "query"),
        ("query_range", "query"),
        ("series", "match[]"),
    ] {
        for (body, is_let_in) in [
            ("KEY=up", Some(true)),
            ("KEY=up%7Btenant_id%3D%22id-zeta%22%7D", Some(true)),
            (
                "KEY=%7Btenant_id%3D%22id-zeta%22%2C__name__%3D%22up%22%7D",
                Some(true),
            ),
            ("KEY=up&KEY=up%7Btenant_id%3D%22id-zeta%22%7D", None),
            ("KEY=up{tenant_id=\"id-zeta\"}", None),
            ("KEY=up%7Btenant_id%3D~%22id-.*%22%7D", Some(true)),
            ("KEY=up%7Btenant_id%21%3D%22id-acme%22%7D", Some(true)),
            (
                "KEY=%7B%22tenant_id%22%3D%22id-zeta%22%2C%22up%22%7D",
                Some(true),
            ),
            ("KEY=up;KEY=up", Some(false)),
            ("KEY=up%3BKEY%3Dup", None),
            ("KEY=up&tenant=zeta", None),
            ("KEY=up&tenant_id=id-zeta", None),
            ("KEY=up&THANOS-TENANT=zeta", None),
            ("KEY=up%00", None),
            ("KEY=up%zz", Some(false)),
            ("KEY=up%C0%AF", Some(false)),
            ("%4BEY=up", None),
            ("key=up", None),
            ("KEY=up&", None),
            ("&KEY=up", None),
            ("KEY", None),
            ("", None),
            ("KEY=up\r\n&KEY=up", None),
            ("KEY=+up+", Some(true)),
        ] {
            let body = pair.say(&body.replace("KEY", &encode(key)));
            for (in_url, url) in [
                ("", ""),
                ("?KEY=up", "url"),
                ("?KEY=up%7Btenant_id%3D%22id-zeta%22%7D", "url"),
            ] {
                let in_url = pair.say(&in_url.replace("KEY", &encode(key)));
                for content_type in [
                    form,
                    "application/x-www-form-urlencoded; charset=utf-8",
                    "APPLICATION/X-WWW-FORM-URLENCODED",
                    "application/x-www-form-urlencoded; charset=utf-16",
                    "multipart/form-data; boundary=x",
                    "application/json",
                    "text/plain",
                    "",
                ] {
                    let good = content_type == form && url.is_empty();
                    let bad = is_let_in == Some(false) && content_type == form;
                    let range = match path {
                        "query_range" if !body.is_empty() => "&start=1&end=2&step=1",
                        _ => "",
                    };
                    let headers = [("content-type", content_type)];
                    let headers = headers.iter().filter(|(_, value)| !value.is_empty());
                    cases.push(Case {
                        kind: "form",
                        method: "POST",
                        target: format!("/of/{}/api/v1/{path}{in_url}", pair.own),
                        headers: owned(&headers.copied().collect::<Vec<_>>()),
                        body: format!("{body}{range}").into_bytes(),
                        is_let_in: match is_let_in {
                            Some(true) if good => Some(true),
                            Some(false) if bad => Some(false),
                            _ => None,
                        },
                    });
                }
            }
        }
    }
    cases
}

/// Values of the parameters of a form or query string that select series.
fn selecting(form: &str) -> impl Iterator<Item = String> {
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(key, value)| (decode(key), decode(value)));
    let selecting = pairs.filter(|(key, _)| key == "query" || key == "match[]");
    selecting.map(|(_, value)| value)
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || (bytes.next().unwrap() as char).to_digit(16).unwrap() as u8;
                digit() << 4 | digit()
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).unwrap()
}

/// Whether an expression has selectors only of the tenant with this id. Each selector of the corpus is of the
/// metric `up` or in braces, and each is printed with braces.
fn selects_only(text: &str, id: &str) -> bool {
    let (mut outside, mut selectors) = (String::new(), Vec::<String>::new());
    let (mut quoted, mut inside) = (false, false);
    for letter in text.chars() {
        quoted ^= letter == '"';
        match letter {
            '{' if !quoted && !inside => {
                inside = true;
                outside.push('{');
                selectors.push(String::new());
            }
            '}' if !quoted => inside = false,
            _ if inside => selectors.last_mut().unwrap().push(letter),
            _ => outside.push(letter),
        }
    }
    let matcher = format!("tenant_id=\"{id}\"");
    !selectors.is_empty()
        && selectors.iter().all(|selector| selector.contains(&matcher))
        && outside.matches("up").count() == outside.matches("up{").count()
}

#[test]
fn the_check_of_selectors_finds_those_of_others() {
    for (text, own) in [
        ("up{tenant_id=\"id-acme\"}", true),
        (
            "up{a=\"}\",tenant_id=\"id-acme\"} or {tenant_id=\"id-acme\"}",
            true,
        ),
        ("up{tenant_id=\"id-acme\"} or up", false),
        (
            "up{tenant_id=\"id-acme\"} or up{tenant_id=\"id-zeta\"}",
            false,
        ),
        ("up{tenant_id=~\"id-acme\"}", false),
        ("up", false),
        ("", false),
    ] {
        assert_eq!(selects_only(text, "id-acme"), own, "{text}");
    }
}

/// Spellings of a tenant's name; only a few are equivalent to it.
fn names(name: &str, own: &str) -> Vec<String> {
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
        let [before, after] = [before, after].map(|text| text.replace("acme", own));
        names.push(format!("{before}{name}{after}"));
    }
    names
}

/// Combinations of headers that could name a tenant.
fn headers(pair: Pair) -> Vec<Headers> {
    let mut all: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
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
    all.push(vec![("authorization", "Bearer acme-token")]);
    all.push(vec![("authorization", "Bearer zeta-token")]);
    all.push(vec![("authorization", "Basic emV0YTp6ZXRhLXRva2Vu")]);
    all.push(vec![("cookie", "__Host-metrifold-session-zeta=x")]);
    all.push(vec![("x-forwarded-user", "zeta-agent")]);
    all.push(vec![("forwarded", "for=zeta;host=zeta")]);
    let said = |(name, value): (&str, &str)| (name.to_owned(), pair.say(value));
    let all = all.into_iter();
    all.map(|headers| headers.into_iter().map(said).collect())
        .collect()
}

/// Variations of the target around the tenant's name.
fn targets(target: &str, pair: Pair) -> Vec<String> {
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
        let more = pair.say(more);
        let divider = if query.is_empty() { '?' } else { '&' };
        all.push(format!("{target}{divider}{more}"));
        all.push(format!("{path}?{more}"));
    }
    all
}

/// Most combinations of names and headers at a way, spread evenly over all.
const COMBINED: usize = 500;

/// All requests of a tenant's caller at a way.
fn cases(way: &Way, pair: Pair) -> Vec<Case> {
    let mut all = (way.bodies)(pair);
    let body = (way.body)();
    let headers = headers(pair);
    let own = [pair.own.to_owned(), pair.id()];
    let mut spelled = names(pair.other, pair.own);
    spelled.push(format!("id-{}", pair.other));
    spelled.extend(names(pair.own, pair.other));
    spelled.push(pair.id());
    let mut combined = Vec::new();
    for target in way.targets {
        let case = |kind, target: String, headers: &Headers| Case {
            kind,
            method: way.method,
            target,
            headers: [&owned(way.headers)[..], headers].concat(),
            body: body.clone(),
            is_let_in: None,
        };
        for name in &own {
            let opens = way.opens.then_some(true);
            let named = ("x-scope-orgid".to_owned(), name.clone());
            for headers in [vec![], vec![named]] {
                let case = case("good", target.replace("TENANT", name), &headers);
                let is_let_in = opens;
                all.push(Case { is_let_in, ..case });
            }
        }
        if target.contains("TENANT") {
            for name in &spelled {
                let target = target.replace("TENANT", name);
                all.push(case("name", target.clone(), &Headers::new()));
                combined.extend(
                    headers
                        .iter()
                        .map(|it| case("name and header", target.clone(), it)),
                );
            }
        }
        for name in [pair.own, pair.other] {
            let target = target.replace("TENANT", name);
            all.extend(headers.iter().map(|it| case("header", target.clone(), it)));
            let spelled = targets(&target, pair).into_iter();
            all.extend(spelled.map(|target| case("target", target, &Headers::new())));
        }
    }
    for name in &spelled {
        for headers in [Headers::new(), owned(&[("x-scope-orgid", pair.other)])] {
            let is_own = own.contains(name) && headers.is_empty();
            all.push(Case {
                kind: "usage",
                method: "GET",
                target: format!("/api/v1/tenants/{name}/usage"),
                headers,
                body: Vec::new(),
                is_let_in: Some(is_own),
            });
        }
    }
    let mut random = Random(13);
    let every = combined.len().div_ceil(COMBINED).max(1);
    all.extend(combined.into_iter().filter(|_| random.below(every) == 0));
    all
}

/// Counts of a kind of requests.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    asked: usize,
    let_in: usize,
    refused: usize,
}

/// A way with its gateway and endpoint.
struct Rig<'a> {
    way: &'a Way,
    endpoint: Endpoint,
    gateway: Metrifold,
    _folder: tempfile::TempDir,
}

impl<'a> Rig<'a> {
    fn start(way: &'a Way, tokens: &Path, keys: &str) -> Self {
        let endpoint =
            Endpoint::new(|_| Reply::new(200).body("{\"status\":\"success\",\"data\":[]}"));
        let folder = tempfile::tempdir().unwrap();
        let config = (way.config)(&endpoint.url(), folder.path());
        let config = config.replace(
            "address = \"INGEST\"\n",
            &format!("address = \"INGEST\"\n{keys}"),
        );
        let gateway = Metrifold::start(&format!("{}{config}", tenants(tokens)));
        Self {
            way,
            endpoint,
            gateway,
            _folder: folder,
        }
    }

    /// Checks that nothing of a request has crossed, and counts its answer.
    fn check(&self, pair: Pair, case: &Case, answer: &Answer, count: &mut Count) {
        let what = format!(
            "{pair:?} {case:?} {}: {} {}",
            String::from_utf8_lossy(&case.body),
            answer.status,
            answer.text()
        );
        assert!(!answer.text().contains(&pair.secret()), "{what}");
        let seen = self.endpoint.take();
        for seen in &seen {
            let (path, body) = (&seen.path, String::from_utf8_lossy(&seen.body));
            let is_own = (self.way.is_own)(seen, &pair.id());
            assert!(is_own, "{what} became {path} {body} {:?}", seen.headers);
            for name in ["authorization", "cookie", "x-forwarded-user"] {
                assert_eq!(seen.header(name), None, "{what}");
            }
        }
        count.asked += 1;
        match answer.status {
            200..=204 => count.let_in += 1,
            400 | 401 | 403 | 404 | 405 | 413 | 415 | 422 => {
                count.refused += 1;
                // A series that is left out does not keep the others back.
                let partly = case.kind == "label" && answer.status == 400;
                assert!(seen.is_empty() || partly, "{what}");
            }
            _ => panic!("{what}"),
        }
        if let Some(is_let_in) = case.is_let_in {
            assert_eq!(answer.status < 300, is_let_in, "{what}");
        }
    }
}

/// The proof first, so that a second one is the case's own.
fn sent(pair: Pair, case: &Case) -> Vec<(&str, &str)> {
    let own = case
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    [pair.proof].into_iter().chain(own).collect()
}

/// Stores rules of both tenants.
fn store(ask: impl Fn(&str, &str, Pair, &[u8]) -> u16) {
    for pair in PAIRS {
        let target = STORED.replace("TENANT", pair.own);
        let alert = secret(pair.own);
        let text = format!("groups: [{{ name: g, rules: [{{ alert: {alert}, expr: up }}] }}]");
        assert_eq!(ask("PUT", &target, pair, text.as_bytes()), 200);
    }
}

fn over_http_1(way: &Way, tokens: &Path) -> BTreeMap<&'static str, Count> {
    let rig = Rig::start(way, tokens, "");
    let address = rig.gateway.ingest;
    let ask = |method: &str, target: &str, pair: Pair, text: &[u8]| {
        request(method, address, target, &[pair.proof], text).unwrap()
    };
    if way.stores {
        store(|method, target, pair, text| ask(method, target, pair, text).status);
    }
    let mut counts = BTreeMap::<_, Count>::new();
    for pair in PAIRS {
        for case in cases(way, pair) {
            let headers = sent(pair, &case);
            let answer = request(case.method, address, &case.target, &headers, &case.body);
            let answer = answer.unwrap_or_else(|error| panic!("{case:?}: {error}"));
            rig.check(pair, &case, &answer, counts.entry(case.kind).or_default());
        }
        if way.stores {
            let other = PAIRS.iter().find(|it| it.own == pair.other).unwrap();
            let target = STORED.replace("TENANT", pair.other);
            let answer = ask("GET", &target, *other, b"");
            expect(&answer, 200);
            assert!(answer.text().contains(&pair.secret()), "{}", answer.text());
        }
    }
    counts
}

type Http2 = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr, authority: &Authority) -> Http2 {
    let mut tls = (*authority.client(None)).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(tls)).connect(ServerName::from(address.ip()), stream);
    let made = handshake(TokioExecutor::new(), TokioIo::new(stream.await.unwrap())).await;
    let (sender, connection) = made.unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends a request, unless the client cannot express it.
async fn ask_2(sender: &mut Http2, address: SocketAddr, case: &Case, pair: Pair) -> Option<Answer> {
    if !case.target.starts_with('/') {
        return None;
    }
    let url: http::Uri = format!("https://{address}{}", case.target).parse().ok()?;
    let mut request = http::Request::builder().method(case.method).uri(url);
    for (name, value) in sent(pair, case) {
        // Those of a connection are no part of the version.
        if !name.eq_ignore_ascii_case("connection") {
            request = request.header(name, value);
        }
    }
    let request = request
        .body(Full::new(Bytes::from(case.body.clone())))
        .ok()?;
    sender.ready().await.unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec();
    Some(Answer {
        status,
        headers: Vec::new(),
        body,
    })
}

/// A part of the requests over one connection each tenant.
fn over_http_2(way: &Way, tokens: &Path) -> Count {
    let authority = Authority::new();
    let (cert, key) = authority.issue("server");
    let keys = format!("tls = {{ cert_file = {cert:?}, key_file = {key:?} }}\n");
    let rig = Rig::start(way, tokens, &keys);
    let address = rig.gateway.ingest;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let mut count = Count::default();
    runtime.unwrap().block_on(async {
        for pair in PAIRS {
            let mut sender = connect(address, &authority).await;
            let mut random = Random(2);
            for case in cases(way, pair) {
                // Rules are not stored before: there is nothing to read.
                let must = case.is_let_in == Some(true) && !way.stores;
                if !must && random.below(4) > 0 {
                    continue;
                }
                let is_let_in = case.is_let_in.filter(|is_let_in| must || !is_let_in);
                let case = Case { is_let_in, ..case };
                if let Some(answer) = ask_2(&mut sender, address, &case, pair).await {
                    rig.check(pair, &case, &answer, &mut count);
                }
            }
        }
    });
    count
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
fn a_gateway_that_does_not_confine_its_callers_is_found() {
    let folder = files();
    let way = Way {
        config: |endpoint, _| {
            format!(
                "[sources.s]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
                 path = \"/of/{{tenant}}/api/v1/receive\"\n\
                 [sinks.o]\ntype = \"thanos\"\ninputs = [\"s\"]\nendpoint = \"{endpoint}\"\n"
            )
        },
        ..WAYS[0]
    };
    let run = std::panic::catch_unwind(|| over_http_1(&way, folder.path()));
    let panic = run.err().and_then(|panic| panic.downcast::<String>().ok());
    assert!(panic.is_some_and(|why| why.contains("became")));
}

#[test]
fn no_spelling_leads_from_one_tenant_to_another() {
    let folder = files();
    let tokens = folder.path();
    let mut by_source = BTreeMap::<&str, usize>::new();
    thread::scope(|scope| {
        let runs = WAYS
            .iter()
            .map(|way| scope.spawn(move || (over_http_1(way, tokens), over_http_2(way, tokens))));
        let runs: Vec<_> = runs.collect();
        for (way, run) in WAYS.iter().zip(runs) {
            let (counts, two) = run.join().unwrap();
            let what = format!(
                "{} {} {:?}: {counts:?}, HTTP/2: {two:?}",
                way.method, way.source, way.targets
            );
            println!("{what}");
            let count = |kind: &str| counts.get(kind).copied().unwrap_or_default();
            // So that it can fail: each kind is asked, what is good is let in, and what is not is refused.
            for (kind, least) in [("good", 4), ("header", 100), ("target", 30), ("usage", 300)] {
                assert!(
                    count(kind).asked >= least * way.targets.len().min(1),
                    "{kind}: {what}"
                );
            }
            if way.targets.iter().any(|target| target.contains("TENANT")) {
                assert!(count("name").asked >= 160, "{what}");
                assert!(count("name and header").asked >= COMBINED, "{what}");
                assert!(count("name").refused > count("name").let_in, "{what}");
            }
            let further = (way.bodies)(PAIRS[0]).len();
            assert_eq!(
                count("label").asked + count("form").asked,
                2 * further,
                "{what}"
            );
            let good = count("good");
            assert_eq!(good.let_in == good.asked, way.opens, "{what}");
            assert!(count("usage").let_in >= 4, "{what}");
            assert!(two.asked >= 150 && two.refused > 0, "{what}");
            let asked = counts.values().map(|it| it.asked).sum::<usize>() + two.asked;
            *by_source.entry(way.source).or_default() += asked;
        }
    });
    for (source, asked) in by_source {
        assert!(asked >= 3000, "{source}: {asked}");
    }
}
