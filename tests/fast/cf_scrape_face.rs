//! Promregator's paths: deployments, formats, errors, and what is asked of callers.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;

use metrifold_testing::peers::{OPENMETRICS, PROTOBUF, histogram_page};
use metrifold_testing::{
    Answer, CloudFoundry, Does, Endpoint, Manner, Metrifold, Reply, free_address, get, request,
    until, until_so,
};

use crate::cf_scrape::{config, expose, foundation, on_request, until_served};

/// The groups that `/discovery` lists, once there are so many.
fn listed(face: SocketAddr, count: usize) -> Vec<Value> {
    until("the instances are listed", || {
        let answer = get(&format!("http://{face}/discovery"));
        let list = (answer.status == 200).then(|| answer.json())?;
        let list = list.as_array()?.clone();
        (list.len() == count).then_some(list)
    })
}

#[test]
fn during_a_deployment_both_processes_are_listed_and_each_path_leads_to_its_own() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    let new = foundation.state().deploy(&app, "web", 1);
    let sink = Endpoint::speaking(Manner::Honest);
    let face = free_address();
    let source = on_request(face, "", "own_metrics = false");
    let _child = Metrifold::start(&config(&foundation, &sink, "", &source));
    let list = listed(face, 3);
    let all: BTreeSet<String> = list.iter().map(ToString::to_string).collect();
    assert_eq!(all.len(), 3, "their labels differ");
    for group in list {
        let labels = &group["labels"];
        let path = labels["__metrics_path__"].as_str().unwrap();
        let page = get(&format!("http://{face}{path}"));
        assert_eq!(page.status, 200, "{path}");
        let process = match &labels["cf_process_id"] {
            Value::Null => &app,
            Value::String(id) => id,
            other => panic!("{other}"),
        };
        assert!([&app, &new].contains(&process));
        let number = &labels["__meta_promregator_target_instanceNumber"];
        let text = page.text();
        let of = format!("process=\"{process}\",index={number}");
        assert!(text.contains(&of), "{of} {text}");
    }
}

#[test]
fn a_page_that_does_not_come_in_time_is_a_504() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    let sink = Endpoint::speaking(Manner::Honest);
    let face = free_address();
    let source = on_request(face, "", "timeout = \"2s\"");
    let _child = Metrifold::start(&config(&foundation, &sink, "", &source));
    until_served(face, &app, 0);
    foundation.router.now(|_| Does::Hang(Reply::new(200)));
    let path = format!("/singleTargetMetrics/{app}/0");
    let headers = [("x-prometheus-scrape-timeout-seconds", "0.2")];
    let late = request("GET", face, &path, &headers, b"").unwrap();
    assert_eq!(late.status, 504);
    let merged = request("GET", face, "/metrics", &headers, b"").unwrap();
    assert_eq!(merged.status, 200);
    assert_eq!(merged.text().matches("promregator_up{").count(), 2);
    assert!(!merged.text().contains("} 1"), "{}", merged.text());
}

/// A configuration of two foundations, the second of which is down.
fn with_one_down(expose_keys: &str) -> (CloudFoundry, CloudFoundry, SocketAddr, String) {
    let (up, down) = (foundation(), foundation());
    down.state().manner.down = true;
    let face = free_address();
    let source = on_request(face, "", expose_keys);
    let text = config(&up, &Endpoint::healthy(), "", &source);
    let other = format!(
        "[discovery.other]\ntype = \"cloud_foundry\"\napi = {:?}\nusername = \"admin\"\n\
         password = \"geheim\"\nrefresh_interval = \"150ms\"\n",
        down.api()
    );
    let both = "discovery = [\"cf\", \"other\"]";
    let text = text.replace("discovery = [\"cf\"]", both) + &other;
    (up, down, face, text)
}

#[test]
fn nothing_is_listed_while_nothing_is_known() {
    let foundation = foundation();
    foundation.state().manner.down = true;
    let sink = Endpoint::healthy();
    let face = free_address();
    let source = on_request(face, "", "discovery_grace = \"0s\"");
    let _child = Metrifold::start(&config(&foundation, &sink, "", &source));
    let answer = get(&format!("http://{face}/discovery"));
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(get(&format!("http://{face}/metrics")).status, 503);
    foundation.state().manner.down = false;
    listed(face, 3);
}

#[test]
fn a_foundation_that_is_down_hides_the_others_for_a_while_at_most() {
    let (_up, _down, face, text) = with_one_down("own_metrics = false\ndiscovery_grace = \"0s\"");
    let _child = Metrifold::start(&text);
    listed(face, 2);

    let (up, down, face, text) = with_one_down("own_metrics = false\ndiscovery_grace = \"10m\"");
    let app = up.state().apps[0].guid.clone();
    let _child = Metrifold::start(&text);
    until_served(face, &app, 0);
    assert_eq!(get(&format!("http://{face}/discovery")).status, 503);
    down.state().manner.down = false;
    listed(face, 4);
}

#[test]
fn endpoints_without_auth_ask_for_nothing_and_the_others_do() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    let sink = Endpoint::speaking(Manner::Honest);
    let face = free_address();
    let keys = "basic_auth = { username = \"u\", password = \"p\" }\n\
                without_auth = [\"discovery\", \"cache_invalidate\"]";
    let _child = Metrifold::start(&config(
        &foundation,
        &sink,
        "",
        &format!("{}{keys}\n", expose(face)),
    ));
    listed(face, 3);
    let status = |path: &str| get(&format!("http://{face}{path}")).status;
    assert_eq!(status("/cache/invalidate"), 204);
    for path in ["/metrics", "/promregatorMetrics"] {
        assert_eq!(status(path), 401, "{path}");
    }
    let path = format!("/singleTargetMetrics/{app}/0");
    assert_eq!(status(&path), 401);
    let headers = [("authorization", "Basic dTpw")];
    let answer = request("GET", face, &path, &headers, b"").unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn formats_are_negotiated_between_the_caller_and_the_instance() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    let sink = Endpoint::speaking(Manner::Honest);
    let face = free_address();
    let source = on_request(face, "", "");
    let _child = Metrifold::start(&config(&foundation, &sink, "", &source));
    until_served(face, &app, 0);
    let ask = |accept: &str| -> Answer {
        let path = format!("/singleTargetMetrics/{app}/0");
        request("GET", face, &path, &[("accept", accept)], b"").unwrap()
    };
    let proto = histogram_page("h", 3);
    let page = proto.clone();
    foundation.router.now(move |seen| {
        let accept = seen.header("accept").unwrap_or_default();
        let reply = Reply::new(200);
        if accept.contains("protobuf") {
            return reply.header("content-type", PROTOBUF).body(page.clone());
        }
        let text = "# TYPE a counter\na_total 1.0 # {trace_id=\"t\"} 0.5\n# EOF\n";
        reply.header("content-type", OPENMETRICS).body(text)
    });
    let answer = ask(PROTOBUF);
    assert_eq!(answer.header("content-type"), Some(PROTOBUF));
    assert_eq!(answer.body, proto);
    let answer = ask(OPENMETRICS);
    assert_eq!(answer.header("content-type"), Some(OPENMETRICS));
    let text = answer.text();
    // As it was, with reports in front of its end.
    let begin = "# TYPE a counter\na_total 1.0 # {trace_id=\"t\"} 0.5\n# HELP promregator_up";
    assert!(text.starts_with(begin), "{text}");
    assert!(text.contains("\npromregator_up 1\n"), "{text}");
    assert!(text.ends_with("\n# EOF"), "{text}");
    assert_eq!(text.matches("# EOF").count(), 1);
    // A page that breaks off.
    foundation.router.now(|_| {
        Reply::new(200)
            .header("content-type", OPENMETRICS)
            .body("# TYPE a counter\na_total 1.0\n")
    });
    until_so("it is told", || ask(OPENMETRICS).status == 502);
}
