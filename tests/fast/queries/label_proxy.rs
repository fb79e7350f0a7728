//! Replays the requests of prom-label-proxy's tests (`oracle`): where both send a request upstream,
//! both send the same one, and the documentation gives a reason for every difference.

use serde_json::{Value, json};

use metrifold_promql::{Matcher, Options, parse_selector};
use metrifold_testing::{Endpoint, Metrifold, Reply, request};

/// Parameters of a query string, sorted.
fn parameters(text: &str) -> Value {
    let mut pairs: Vec<[String; 2]> = text
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            let [name, value] = [name, value].map(decoded);
            let value = match &*name {
                "match[]" => spelled(&value),
                _ => value,
            };
            [name, value]
        })
        .collect();
    pairs.sort_unstable();
    json!(pairs)
}

/// Normalizes a selector: the name of the metric becomes a matcher.
fn spelled(selector: &str) -> String {
    let expr = parse_selector(selector, &Options::default()).unwrap();
    let selector = expr.selectors().next().unwrap();
    let name = selector.name.iter().map(|name| format!("__name__={name}"));
    let matchers = selector.matchers.iter().map(|matcher| {
        let Matcher { name, op, value } = matcher;
        format!("{name}{}{value}", op.as_str())
    });
    let mut all: Vec<_> = name.chain(matchers).collect();
    all.sort_unstable();
    all.dedup();
    all.join(",")
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, behind)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let byte = behind
            .get(..2)
            .map(|digits| u8::from_str_radix(digits, 16).unwrap());
        // One request has a percent sign without digits.
        bytes.push(byte.unwrap_or(b'%'));
        rest = behind.get(2..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).unwrap()
}

/// Kinds of differences between the answers.
#[derive(Debug, PartialEq, Eq)]
enum Differs {
    Asked,
    RefusedHere,
    RefusedThere,
}

/// Intended differences, by a part of the request.
const ARGUED: [(Differs, &str); 19] = [
    // The caller's own matcher is kept here.
    (Differs::Asked, "tenant=\"b\""),
    (Differs::Asked, "tenant=~\".*\""),
    (Differs::Asked, "tenant!=\"a\""),
    // prom-label-proxy does not narrow the parameter of an aggregation, which then reads every
    // tenant's series.
    (Differs::Asked, "topk(scalar(a), b)"),
    // It adds a selector of everything to a form without one, beside that of the URL.
    (Differs::Asked, "?match[]=z start=1"),
    // And to a URL without one, beside that of the form.
    (Differs::Asked, "POST /api/v1/series match[]"),
    (Differs::Asked, "POST /api/v1/labels start=1"),
    // It keeps the first of two values.
    (Differs::Asked, "?query=x&query=y"),
    (Differs::RefusedHere, "GET /api/v1/series"),
    (Differs::RefusedHere, "GET /federate"),
    (Differs::RefusedHere, "&x=%"),
    (Differs::RefusedHere, "extra_filters"),
    (Differs::RefusedHere, "query=up&match[]=x"),
    (Differs::RefusedHere, "/api/v1/query/"),
    (Differs::RefusedHere, "/api/v1/label/a/b/values"),
    // Its parser does not know experimental functions.
    (Differs::RefusedThere, "info(up, "),
    (Differs::RefusedThere, "/api/v1/metadata"),
    (Differs::RefusedThere, "/api/v1/format_query"),
    (Differs::RefusedThere, "/api/v1/status/buildinfo"),
];

/// The parameters that prom-label-proxy sent, with selectors normalized.
fn respelled(theirs: &Value) -> Value {
    let Some(asked) = theirs.as_array() else {
        return Value::Null;
    };
    let parameters = |pairs: &Value| {
        let pairs = pairs.as_array().unwrap().iter().map(|pair| {
            let [name, value] = [0, 1].map(|at| pair[at].as_str().unwrap().to_owned());
            match &*name {
                "match[]" => [name, spelled(&value)],
                _ => [name, value],
            }
        });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        json!(pairs)
    };
    json!([asked[0], parameters(&asked[1]), parameters(&asked[2])])
}

#[test]
fn what_prom_label_proxy_asks_for_is_asked_for_here() {
    let upstream = Endpoint::new(|_| Reply::new(200).body(r#"{"data":{}}"#));
    let gateway = Metrifold::start(&format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"api\"]\n\
         from = [{{ header = \"X-Tenant\" }}]\nlabel = \"tenant\"\n\
         [sinks.upstream]\ntype = \"prometheus\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n",
        upstream.url_of("")
    ));
    let mut same = 0;
    let mut argued = [0; ARGUED.len()];
    for line in include_str!("oracle/label-proxy.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let [method, target, form] = [0, 1, 2].map(|at| line[0][at].as_str().unwrap());
        let mut headers = vec![("x-tenant", "a")];
        if method == "POST" {
            headers.push(("content-type", "application/x-www-form-urlencoded"));
        }
        let answer = request(method, gateway.ingest, target, &headers, form.as_bytes()).unwrap();
        let asked = upstream.take().into_iter().next().map(|seen| {
            let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
            let body = String::from_utf8(seen.body.clone()).unwrap();
            json!([path, parameters(query), parameters(&body)])
        });
        let theirs = respelled(&line[2]);
        let found = match (asked, theirs) {
            // Any refusal: some of prom-label-proxy's have status 200 and no body.
            (None, Value::Null) => {
                assert!(answer.status >= 400, "{line}: {}", answer.status);
                same += 1;
                continue;
            }
            (Some(asked), theirs) if asked == theirs => {
                same += 1;
                continue;
            }
            (None, _) => Differs::RefusedHere,
            (Some(_), Value::Null) => Differs::RefusedThere,
            (Some(_), _) => Differs::Asked,
        };
        let request = format!("{method} {} {}", decoded(target), decoded(form));
        let known = ARGUED
            .iter()
            .position(|(differs, part)| *differs == found && request.contains(part));
        let known = known.unwrap_or_else(|| panic!("{found:?}: {request}: {line}"));
        argued[known] += 1;
    }
    assert!(same > 190, "{same}");
    assert!(argued.iter().all(|times| *times > 0), "{argued:?}");
}
