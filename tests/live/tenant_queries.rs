//! Two tenants' series in one store: a tenant gets the answers that a store with its series alone would
//! give, and nothing of the other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use metrifold_promql::{MatchOp, Options, parse};
use metrifold_testing::peers::{Prometheus, TEXT, Target, now};
use metrifold_testing::{
    Answer, Metrifold, Sender, Series, body, encode, expect, request, until_so,
};

/// A gateway to a store that takes the tenant from the path.
fn gateway(store: &Prometheus) -> Metrifold {
    Metrifold::start(&format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\npath = \"/{{tenant}}\"\n\
         [transforms.own]\ntype = \"tenant\"\ninputs = [\"api\"]\nfrom = [{{ path = \"tenant\" }}]\n\
         label = \"tenant_id\"\n\
         [sinks.router]\ntype = \"replica_router\"\ninputs = [\"own\"]\n\
         replicas = [{{ endpoint = \"{}\" }}]\n",
        store.url()
    ))
}

/// The valid expressions of the parser's corpus: those of Prometheus' own tests, documentation and
/// well-known rules, generated ones and mutations.
fn corpus() -> Vec<String> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/crates/promql/tests/golden/expressions.jsonl"
    );
    let lines = std::fs::read_to_string(file).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str::<Vec<Value>>(line).unwrap());
    // The third value is null for an invalid one; the first is a mode of the parser.
    let valid = lines.filter(|line| line[0] == 0 && line.get(2) != Some(&Value::Null));
    valid
        .map(|line| line[1].as_str().unwrap().to_owned())
        .collect()
}

/// Names of the metrics that expressions select.
fn names(expressions: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for expression in expressions {
        let Ok(expr) = parse(expression, &Options::default()) else {
            continue;
        };
        for selector in expr.selectors() {
            let equal = selector.matchers.iter();
            let equal = equal.filter(|it| it.name == "__name__" && it.op == MatchOp::Equal);
            let written = selector.name.iter().chain(equal.map(|it| &it.value));
            names.extend(
                written
                    .map(ToString::to_string)
                    .filter(|name| !name.is_empty()),
            );
        }
    }
    names
}

const FEATURES: &str = "promql-experimental-functions,promql-binop-fill-modifiers";

#[test]
#[ignore = "needs a Prometheus 3, which `make live` builds"]
fn nothing_in_the_corpus_of_the_parser_crosses() {
    let [both, only] =
        [(); 2].map(|()| Prometheus::start_3_with(FEATURES, "global: { scrape_interval: 1h }"));
    let expressions = corpus();
    let names = names(&expressions);
    let end = now() as i64 / 30 * 30;
    for store in [&both, &only] {
        let mut sender = Sender::new(store.address);
        for number in 0..20i64 {
            let at = (end - 30 * (19 - number)) * 1000;
            let mut all = Vec::new();
            for (place, name) in names.iter().enumerate() {
                let tenants = [("a", 2i64), ("stranger", 3)];
                let tenants = tenants
                    .iter()
                    .filter(|(it, _)| *it == "a" || std::ptr::eq(store, &both));
                for (tenant, series) in tenants {
                    for n in 0..*series {
                        let value = (number * (n + 2) + place as i64 % 7) * series;
                        let one = Series::new(name, &[(at, value as f64)]).label("job", "j");
                        all.push(one.label("n", &n.to_string()).label("tenant_id", tenant));
                    }
                }
            }
            expect(&sender.post("/api/v1/write", &[], &body(&all)), 204);
        }
    }
    let gateway = gateway(&both);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let (mut same, mut series, mut refused, mut wrong) = (0, 0, 0, Vec::new());
    for (number, expression) in expressions.iter().enumerate() {
        let parameters = format!("query={}&time={end}", encode(expression));
        let target = "/api/v1/query";
        let ask = |address, prefix: &str| match number % 2 {
            0 => request(
                "GET",
                address,
                &format!("{prefix}{target}?{parameters}"),
                &[],
                b"",
            ),
            _ => request(
                "POST",
                address,
                &format!("{prefix}{target}"),
                &form,
                parameters.as_bytes(),
            ),
        };
        let answer = ask(gateway.ingest, "/a").unwrap();
        let expected = ask(only.address, "").unwrap();
        assert!(
            !answer.text().contains("stranger"),
            "{expression}: {}",
            answer.text()
        );
        if answer.status == 400 && answer.text().contains("target_info") {
            // A call of `info` without a selector cannot be narrowed.
            refused += 1;
            continue;
        }
        // `absent` shows the labels of the query, to which the tenant's is added. `info` with a selector
        // of any label keeps series without an info series, unless the selector has the tenant's, too.
        let may_differ = expression.contains("absent") || expression.contains("info(");
        let (found, wanted) = (content(&answer), content(&expected));
        if answer.status != expected.status || (!may_differ && found != wanted) {
            wrong.push(format!(
                "{expression}:\n  {}\n  {}",
                answer.text(),
                expected.text()
            ));
            continue;
        }
        same += 1;
        series += usize::from(wanted.as_array().is_some_and(|all| !all.is_empty()));
    }
    println!("{same} answers are the same, {series} with series; {refused} were refused");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    assert!(same > expressions.len() / 2 && series > expressions.len() / 5);
}

/// The result of an answer, in an order of its own.
fn content(answer: &Answer) -> Value {
    // Labels can hold halves of characters, which Prometheus writes as invalid JSON.
    let Ok(mut told) = serde_json::from_slice::<Value>(&answer.body) else {
        return answer.text().into();
    };
    let mut result = told["data"]["result"].take();
    if let Some(all) = result.as_array_mut() {
        all.sort_by_key(ToString::to_string);
    }
    result
}

#[test]
fn a_tenant_is_answered_what_a_store_of_its_own_answers() {
    let page = |tenants: &[&str]| -> String {
        let tenants: Vec<String> = tenants.iter().map(|it| (*it).to_owned()).collect();
        let mut page = String::new();
        for tenant in tenants {
            for n in 0..4 {
                let weight = tenant.len() * 10 + n;
                page += &format!("test_jobs{{tenant_id=\"{tenant}\",n=\"{n}\"}} {weight}\n");
                page += &format!(
                    "test_errors_total{{tenant_id=\"{tenant}\",n=\"{n}\"}} {}\n",
                    weight * 3
                );
            }
            page += &format!("target_info{{tenant_id=\"{tenant}\",version=\"{tenant}\"}} 1\n");
        }
        page
    };
    let both = store(page(&["a", "other"]));
    let only = store(page(&["a"]));
    let gateway = gateway(&both.0);
    let selectors = [
        "test_jobs",
        "{n=~\"1|2\"}",
        "{__name__=~\"test_.*\"}",
        "test_jobs{tenant_id!=\"x\"}",
        "test_jobs{tenant_id=\"other\"}",
    ];
    let forms = [
        "EXPR",
        "sum(EXPR)",
        "count by (tenant_id) (EXPR)",
        "topk(2, EXPR)",
        "EXPR == 11",
        "-EXPR",
        "EXPR and on (n) test_jobs",
        "EXPR unless on (n) test_jobs{n=\"1\"}",
        "max_over_time(EXPR[30s])",
        "absent(EXPR)",
        "label_replace(EXPR, \"x\", \"$1\", \"tenant_id\", \"(.*)\")",
        "EXPR or on (n) vector(1)",
        "count_over_time((EXPR)[20s:5s]) > 0",
        "EXPR offset 1s",
    ];
    let mut compared = 0;
    let time = now();
    for selector in selectors {
        for form in forms {
            // `absent` shows the labels of the query, which differ.
            if form.contains("absent") && selector.contains("tenant_id") {
                continue;
            }
            let expression = form.replace("EXPR", selector);
            let target = format!("/api/v1/query?query={}&time={time}", encode(&expression));
            let enforced =
                request("GET", gateway.ingest, &format!("/a{target}"), &[], b"").unwrap();
            let expected = request("GET", only.0.address, &target, &[], b"").unwrap();
            assert_eq!(
                enforced.status,
                expected.status,
                "{expression}: {}",
                enforced.text()
            );
            assert_eq!(series(&enforced), series(&expected), "{expression}");
            assert!(
                !enforced.text().contains("other\""),
                "{expression}: {}",
                enforced.text()
            );
            compared += usize::from(expected.status == 200);
        }
    }
    println!("{compared} answers are the same");
    assert!(compared > selectors.len() * forms.len() / 2);
}

/// A Prometheus that has scraped a constant page a few times.
fn store(page: String) -> (Prometheus, Target) {
    let target = Target::start(TEXT, move |_| page.clone().into());
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: test\n    \
         static_configs: [{{ targets: [\"{}\"], labels: {{ instance: same }} }}]\n",
        target.address
    );
    let store = Prometheus::start(&config);
    until_so("it has data", || {
        store.value("count_over_time(up[1m])", now()) > Some(35.0)
    });
    (store, target)
}

/// Series of an answer, unordered and without values that depend on the time of scrapes.
fn series(answer: &Answer) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for one in answer.json()["data"]["result"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let value = &one["value"][1];
        *found
            .entry(format!("{} {value}", one["metric"]))
            .or_default() += 1;
    }
    found
}
