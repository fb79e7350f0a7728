//! Queries of tenants through the program: each tenant sees only its own series, whatever the
//! query.

use std::collections::BTreeMap;

use metrifold_testing::{Answer, Endpoint, Metrifold, Reply, Seen, expect, request};

use super::expect_error;

/// A gateway that takes the tenant from the path.
fn gateway(endpoint: &str, keys: &str) -> Metrifold {
    Metrifold::start(&format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\npath = \"/of/{{tenant}}\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"api\"]\n\
         from = [{{ path = \"tenant\" }}]\nlabel = \"tenant\"\n{keys}\n\
         [sinks.upstream]\ntype = \"prometheus\"\ninputs = [\"tenant\"]\nendpoint = \"{endpoint}\"\n"
    ))
}

/// Answers every list with items of several tenants.
fn answers(seen: &Seen) -> Reply {
    let path = seen.path.split('?').next().unwrap();
    Reply::new(200).body(match path {
        "/api/v1/rules" => {
            r#"{"status":"success","data":{"groups":[{"name":"g","rules":[{"labels":{"tenant":"a"}},{"labels":{"tenant":"b"}}]}]}}"#
        }
        "/api/v1/alerts" => {
            r#"{"status":"success","data":{"alerts":[{"labels":{"tenant":"b"}},{"labels":{"tenant":"a"}}]}}"#
        }
        "/api/v1/metadata" => r#"{"status":"success","data":{"up":[],"secret":[]}}"#,
        "/api/v1/label/__name__/values" => r#"{"status":"success","data":["up"]}"#,
        _ => "whole",
    })
}

fn ask(gateway: &Metrifold, target: &str) -> Answer {
    request(
        "GET",
        gateway.ingest,
        target,
        &[("accept-encoding", "gzip")],
        b"",
    )
    .unwrap()
}

#[test]
fn what_is_asked_is_narrowed_to_the_tenant_of_the_path() {
    let upstream = Endpoint::new(answers);
    let gateway = gateway(&upstream.url_of("/prom"), "");
    let answer = ask(&gateway, "/of/team-a/api/v1/query?query=up&time=1");
    expect(&answer, 200);
    assert_eq!(answer.body, b"whole");
    let seen = upstream.only();
    let narrowed = "/prom/api/v1/query?query=up%7Btenant%3D%22team-a%22%7D&time=1";
    assert_eq!(seen.path, narrowed);
    assert_eq!(seen.header("accept-encoding"), Some("gzip"));

    let form = [("content-type", "application/x-www-form-urlencoded")];
    let target = "/of/b/api/v1/query_range?query=x";
    let answer = request("POST", gateway.ingest, target, &form, b"query=y&step=1").unwrap();
    expect(&answer, 200);
    let seen = upstream.only();
    assert_eq!(
        seen.path,
        "/prom/api/v1/query_range?query=x%7Btenant%3D%22b%22%7D"
    );
    let body = b"query=y%7Btenant%3D%22b%22%7D&step=1";
    assert_eq!(seen.body, body);
    assert_eq!(
        seen.header("content-length"),
        Some(&*body.len().to_string())
    );
}

#[test]
fn lists_are_filtered_and_asked_for_uncompressed() {
    let upstream = Endpoint::new(answers);
    let gateway = gateway(&upstream.url_of(""), "");
    let rules = ask(&gateway, "/of/a/api/v1/rules");
    expect(&rules, 200);
    assert_eq!(upstream.only().header("accept-encoding"), Some("identity"));
    let groups = &rules.json()["data"]["groups"];
    assert_eq!(groups[0]["rules"].as_array().unwrap().len(), 1);
    let alerts = ask(&gateway, "/of/b/api/v1/alerts").json();
    let own = serde_json::json!([{"labels": {"tenant": "b"}}]);
    assert_eq!(alerts["data"]["alerts"], own);
    upstream.only();
    let metadata = ask(&gateway, "/of/a/api/v1/metadata").json();
    assert_eq!(metadata["data"], serde_json::json!({"up": []}));
    let head = request("HEAD", gateway.ingest, "/of/a/api/v1/rules", &[], b"").unwrap();
    expect(&head, 200);
    assert_ne!(head.header("content-length"), Some("121"));
}

#[test]
fn what_cannot_be_held_to_a_tenant_is_refused_in_the_form_of_the_api() {
    let upstream = Endpoint::new(answers);
    let gateway = gateway(&upstream.url_of(""), "max_body_bytes = \"30B\"");
    for (target, status, error) in [
        ("/of/a/api/v1/query?query=up%7B", 400, "bad_data"),
        ("/of/a/api/v1/query?query=up&extra_label=x", 400, "bad_data"),
        ("/of/a/api/v1/series", 400, "bad_data"),
        ("/of/a/api/v1/targets", 403, "forbidden"),
        ("/of/a/api/v1/status/tsdb", 403, "forbidden"),
        ("/of/a/api/v1/admin/tsdb/snapshot", 403, "forbidden"),
        ("/of/a/graph", 403, "forbidden"),
    ] {
        let answer = ask(&gateway, target);
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        expect_error(&answer, status, error);
    }
    // The listener refuses paths that other servers could read differently.
    for tenant in ["%2e%2e", "a%2Fb", ".."] {
        let answer = ask(&gateway, &format!("/of/{tenant}/api/v1/query?query=up"));
        assert!(
            [400, 404].contains(&answer.status),
            "{tenant}: {}",
            answer.status
        );
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let target = "/of/a/api/v1/query";
    let long = [b'x'; 40];
    let answer = request("POST", gateway.ingest, target, &form, &long).unwrap();
    expect_error(&answer, 413, "bad_data");
    assert_eq!(upstream.count(), 0);
}

/// The transform knows every endpoint that the documentation names, so that none is open or closed
/// by mistake.
#[test]
fn every_endpoint_of_the_api_is_open_narrowed_or_closed() {
    let upstream = Endpoint::new(answers);
    let gateway = gateway(&upstream.url_of(""), "");
    let mut statuses: BTreeMap<&str, u16> = BTreeMap::new();
    for path in [
        "query",
        "query_range",
        "query_exemplars",
        "query_cost",
        "query_range_cost",
        "series",
        "labels",
        "label/x/values",
        "search/metric_names",
        "search/label_names",
        "search/label_values",
        "format_query",
        "parse_query",
        "metadata",
        "features",
        "openapi.yaml",
        "rules",
        "alerts",
        "alertmanagers",
        "targets",
        "targets/metadata",
        "targets/relabel_steps",
        "scrape_pools",
        "scrape_pools/config",
        "status/config",
        "status/flags",
        "status/runtimeinfo",
        "status/buildinfo",
        "status/tsdb",
        "status/tsdb/blocks",
        "status/walreplay",
        "status/self_metrics",
        "notifications",
        "notifications/live",
    ] {
        let status = ask(&gateway, &format!("/of/a/api/v1/{path}")).status;
        assert!([200, 400, 403].contains(&status), "{path}: {status}");
        statuses.insert(path, status);
    }
    let with = |wanted| -> Vec<&str> {
        let found = statuses.iter().filter(|(_, status)| **status == wanted);
        found.map(|(path, _)| *path).collect()
    };
    assert_eq!(
        with(400),
        [
            "query",
            "query_cost",
            "query_exemplars",
            "query_range",
            "query_range_cost",
            "series"
        ]
    );
    let open = [
        "alerts",
        "features",
        "format_query",
        "label/x/values",
        "labels",
        "metadata",
        "openapi.yaml",
        "parse_query",
        "rules",
        "search/label_names",
        "search/label_values",
        "search/metric_names",
        "status/buildinfo",
    ];
    assert_eq!(with(200), open);
}
