//! Instances of Cloud Foundry, scraped: by header and credentials, and for those who pull.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use metrifold_testing::cloud_foundry::State;
use metrifold_testing::series::STALE;
use metrifold_testing::{
    Authority, CloudFoundry, Endpoint, Manner, Metrifold, Reply, Seen, free_address, get, request,
    until, until_so,
};

/// A foundation whose routes lie below one host, so that they are found without a name server.
fn foundation() -> CloudFoundry {
    let foundation = CloudFoundry::new();
    foundation.push("o/s/shop", &["127.0.0.1/shop"], 2);
    foundation
}

/// A configuration that scrapes the foundation often.
fn config(foundation: &CloudFoundry, sink: &Endpoint, select: &str, source: &str) -> String {
    let port = foundation.router.address().port();
    format!(
        "[discovery.cf]\ntype = \"cloud_foundry\"\napi = {:?}\nusername = \"admin\"\n\
         password = \"geheim\"\nrefresh_interval = \"150ms\"\nmetadata_interval = \"100ms\"\n\
         [[discovery.cf.select]]\nprotocol = \"http\"\nrouter_port = {port}\n{select}\n\
         [sources.apps]\ntype = \"cf_scrape\"\ndiscovery = [\"cf\"]\nscrape_interval = \"200ms\"\n\
         scrape_timeout = \"200ms\"\n{source}\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"apps\"]\nendpoint = {:?}\n",
        foundation.api(),
        sink.url()
    )
}

type Labels = BTreeMap<String, String>;

/// The last value of each series of a name, by its bits.
fn last(sink: &Endpoint, name: &str) -> Vec<(Labels, u64)> {
    let mut found: BTreeMap<Labels, u64> = BTreeMap::new();
    for seen in sink.seen() {
        for series in seen.series.as_deref().unwrap_or_default() {
            if series.name() != name {
                continue;
            }
            let labels: Labels = series.labels.iter().cloned().collect();
            if let Some(sample) = series.samples.last() {
                found.insert(labels, sample.bits);
            }
        }
    }
    found.into_iter().collect()
}

/// The instances that are scraped now: the numbers that targets have, and those that pages show.
fn live(sink: &Endpoint) -> Vec<(String, String)> {
    let info = last(sink, "instance_info").into_iter();
    let live = info.filter(|(_, bits)| *bits != STALE);
    live.map(|(labels, _)| {
        (
            labels["cf_instance_number"].clone(),
            labels["index"].clone(),
        )
    })
    .collect()
}

fn pairs(numbers: &[u32]) -> Vec<(String, String)> {
    let pair = |number: &u32| (number.to_string(), number.to_string());
    numbers.iter().map(pair).collect()
}

#[test]
fn each_instance_is_scraped_by_its_header_and_one_that_goes_becomes_stale() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    let sink = Endpoint::speaking(Manner::Honest);
    let _child = Metrifold::start(&config(&foundation, &sink, "", ""));
    until_so("both are scraped", || live(&sink) == pairs(&[0, 1]));
    let (labels, _) = last(&sink, "instance_info").remove(0);
    for (name, value) in [
        ("org_name", "o"),
        ("space_name", "s"),
        ("app_name", "shop"),
        ("cf_instance_id", &format!("{app}:0")),
        ("instance", &format!("{app}:0")),
        ("job", "apps"),
        ("path", "/metrics"),
    ] {
        assert_eq!(labels[name], value, "{name}");
    }
    foundation.state().process(&app).scale(4);
    until_so("four are scraped", || live(&sink) == pairs(&[0, 1, 2, 3]));
    foundation.state().process(&app).set(1, "CRASHED");
    foundation.state().process(&app).scale(3);
    until_so("two have become stale", || live(&sink) == pairs(&[0, 2]));
    let stale = ["1", "3"].map(str::to_owned).into();
    until_so("so has their up", || {
        let up = last(&sink, "up").into_iter();
        let markers = up.filter(|(_, bits)| *bits == STALE);
        let numbers = markers.map(|(labels, _)| labels["cf_instance_number"].clone());
        numbers.collect::<BTreeSet<String>>() == stale
    });
}

#[test]
fn during_a_deployment_each_process_is_scraped_by_its_own_header() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    let sink = Endpoint::speaking(Manner::Honest);
    let _child = Metrifold::start(&config(&foundation, &sink, "", ""));
    until_so("both are scraped", || live(&sink) == pairs(&[0, 1]));
    let new = foundation.state().deploy(&app, "web", 1);
    let of_new = |labels: &Labels| labels.get("cf_process_id") == Some(&new);
    until_so("the new one is scraped", || {
        let info = last(&sink, "instance_info").into_iter();
        let mut new_ones = info.filter(|(labels, bits)| of_new(labels) && *bits != STALE);
        new_ones
            .next()
            .is_some_and(|(labels, _)| labels["process"] == new)
    });
    // Before the new one was known, its like could be taken for the old one's.
    until_so("each shows itself", || {
        let info = last(&sink, "instance_info").into_iter();
        let mut live = info.filter(|(_, bits)| *bits != STALE);
        live.all(|(labels, _)| labels["process"] == *if of_new(&labels) { &new } else { &app })
    });
    foundation.state().retire(&app);
    foundation.state().process(&new).scale(2);
    until_so("the new ones have taken their places", || {
        let info = last(&sink, "instance_info").into_iter();
        let live = info.filter(|(_, bits)| *bits != STALE).map(|it| it.0);
        let live: Vec<Labels> = live.collect();
        live.len() == 2
            && live
                .iter()
                .all(|it| it["process"] == new && !it.contains_key("cf_process_id"))
    });
}

#[test]
fn credentials_are_those_that_a_selector_names_and_nothing_is_asked_for_without_them() {
    let foundation = foundation();
    let sink = Endpoint::speaking(Manner::Honest);
    let source =
        "[sources.apps.authenticators.mine]\nbasic_auth = { username = \"u\", password = \"p\" }\n";
    let select = "authenticator = \"mine\"";
    let child = Metrifold::start(&config(&foundation, &sink, select, source));
    until_so("both are scraped", || live(&sink) == pairs(&[0, 1]));
    let seen = foundation.router.seen();
    assert!(
        seen.iter()
            .all(|it| it.header("authorization") == Some("Basic dTpw"))
    );
    drop(child);

    foundation.router.take();
    let face = free_address();
    let select = "authenticator = \"other\"";
    let source = format!("[sources.apps.expose]\naddress = \"{face}\"\n");
    let _child = Metrifold::start(&config(&foundation, &sink, select, &source));
    let app = foundation.state().apps[0].guid.clone();
    let single = format!("http://{face}/singleTargetMetrics/{app}/0");
    until_so("the instance is known", || get(&single).status != 404);
    let answer = get(&single);
    assert_eq!(answer.status, 502);
    assert!(
        answer.text().contains("authenticators.other"),
        "{}",
        answer.text()
    );
    assert_eq!(foundation.router.take().len(), 0, "nothing was asked for");
}

fn expose(face: SocketAddr) -> String {
    format!("[sources.apps.expose]\naddress = \"{face}\"\n")
}

#[test]
fn those_who_pull_meet_what_they_knew() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    foundation.push("o/s/cart", &["127.0.0.1/cart"], 1);
    let sink = Endpoint::speaking(Manner::Honest);
    let face = free_address();
    let url = |path: &str| format!("http://{face}{path}");
    let _child = Metrifold::start(&config(&foundation, &sink, "", &expose(face)));
    let list = until("three instances and this process are listed", || {
        let answer = get(&url("/discovery"));
        let list = (answer.status == 200).then(|| answer.json())?;
        (list.as_array()?.len() == 4).then_some(list)
    });
    let first = list
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["labels"]["__meta_promregator_target_instanceId"] == format!("{app}:0"));
    let expected = serde_json::json!({ "targets": [face.to_string()], "labels": {
        "__meta_promregator_target_path": format!("/singleTargetMetrics/{app}/0"),
        "__meta_promregator_target_orgName": "o",
        "__meta_promregator_target_spaceName": "s",
        "__meta_promregator_target_applicationName": "shop",
        "__meta_promregator_target_applicationId": app,
        "__meta_promregator_target_instanceNumber": "0",
        "__meta_promregator_target_instanceId": format!("{app}:0"),
        "__metrics_path__": format!("/singleTargetMetrics/{app}/0"),
    } });
    assert_eq!(first, Some(&expected));
    let paths: Vec<Value> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["labels"]["__metrics_path__"].clone())
        .collect();
    assert_eq!(paths[3], "/promregatorMetrics");
    assert!(
        get(&url("/promregatorMetrics"))
            .text()
            .contains("metrifold_")
    );

    let second = get(&url(&format!("/singleTargetMetrics/{app}/1")));
    assert_eq!(second.status, 200);
    let text = second.text();
    assert!(
        text.contains("index=\"1\"") && text.contains("\npromregator_up 1\n"),
        "{text}"
    );
    for (path, status) in [
        (format!("/singleTargetMetrics/{app}/7"), 404),
        ("/singleTargetMetrics/0-0/0".to_owned(), 404),
        (format!("/singleTargetMetrics/{app}/x"), 400),
        ("/singleTargetMetrics/XYZ/0".to_owned(), 400),
    ] {
        assert_eq!(get(&url(&path)).status, status, "{path}");
    }

    // All of them as one page, each with its labels.
    let merged = get(&url("/metrics")).text();
    let of = |app: &str, number: &str| {
        let mut lines = merged.lines();
        lines.any(|line| {
            line.starts_with("instance_info{app=")
                && line.contains("org_name=\"o\"")
                && line.contains("space_name=\"s\"")
                && line.contains(&format!("app_name=\"{app}\""))
                && line.contains(&format!("cf_instance_number=\"{number}\""))
                && line.contains(&format!(",index=\"{number}\""))
        })
    };
    assert!(
        of("shop", "0") && of("shop", "1") && of("cart", "0"),
        "{merged}"
    );
    assert_eq!(merged.matches("# TYPE instance_info gauge").count(), 1);

    // A scrape of the process by itself goes no further.
    let own = foundation.router.seen();
    let id = own
        .iter()
        .find_map(|it| it.header("x-promregator-instance"))
        .unwrap();
    let path = format!("/singleTargetMetrics/{app}/0");
    let looped = request("GET", face, &path, &[("x-promregator-instance", id)], b"").unwrap();
    assert_eq!(looped.status, 500);
    assert_eq!(get(&url("/cache/invalidate?org=1")).status, 204);

    // What fails says so.
    foundation.router.now(|_| 503);
    let failed = get(&url(&path));
    assert_eq!(failed.status, 502);
    assert!(failed.text().contains("503"), "{}", failed.text());
    let merged = get(&url("/metrics")).text();
    assert_eq!(merged.matches("promregator_up{").count(), 3);
    assert!(!merged.contains("} 1"), "{merged}");
}

#[test]
fn the_face_asks_for_a_password_and_further_targets_of_an_instance_have_paths_of_their_own() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    let sink = Endpoint::speaking(Manner::Honest);
    let face = free_address();
    let source = format!(
        "{}basic_auth = {{ username = \"u\", password = \"p\" }}\ndiscovery_address = \"here:1\"\nown_metrics = false\n",
        expose(face)
    );
    let select = "path = [\"/a\", \"/b\"]";
    let _child = Metrifold::start(&config(&foundation, &sink, select, &source));
    let ask =
        |path: &str| request("GET", face, path, &[("authorization", "Basic dTpw")], b"").unwrap();
    assert_eq!(get(&format!("http://{face}/discovery")).status, 401);
    let list = until("four targets are listed", || {
        let answer = ask("/discovery");
        let list = (answer.status == 200).then(|| answer.json())?;
        (list.as_array()?.len() == 4).then_some(list)
    });
    let list = list.as_array().unwrap();
    assert!(list.iter().all(|it| it["targets"][0] == "here:1"));
    let mut pages = BTreeSet::new();
    for target in list {
        let path = target["labels"]["__metrics_path__"].as_str().unwrap();
        let page = ask(path);
        assert_eq!(page.status, 200, "{path}");
        let line = page.text().lines().nth(1).unwrap().to_owned();
        assert!(line.contains(&app));
        pages.insert(line);
    }
    assert_eq!(pages.len(), 4, "{pages:?}");
}

/// Whether the provider says that what it knows may be out of date.
fn stale(child: &Metrifold) -> bool {
    let found = child.get("/api/v1/discovery?provider=cf").json();
    found["providers"][0]["stale"] == true
}

/// Waits until both instances have been scraped again, and fails if one was ended.
fn still_scraped(sink: &Endpoint, what: &str) {
    sink.take();
    until_so(what, || {
        let up = last(sink, "up");
        assert!(up.iter().all(|(_, bits)| *bits != STALE), "{what}");
        let up = up.iter().filter(|(_, bits)| f64::from_bits(*bits) == 1.0);
        up.count() == 2
    });
}

#[test]
fn instances_stay_whatever_befalls_the_platform() {
    let foundation = foundation();
    foundation.push("o/s/idle", &[], 1);
    // It publishes none, so that the one of a second that it gets is not taken for one of minutes.
    foundation.state().manner.published_limit = None;
    let sink = Endpoint::speaking(Manner::Honest);
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data_dir = {:?}\n", folder.path());
    let config = data + &config(&foundation, &sink, "", "");
    let child = Metrifold::start(&config);
    until_so("both are scraped", || live(&sink) == pairs(&[0, 1]));
    let well = foundation.state().manner.clone();
    type Trouble = fn(&mut State);
    let troubles: [(&str, Trouble); 4] = [
        ("the platform is down", |it| it.manner.down = true),
        ("a second page fails", |it| {
            it.manner.page = 1;
            it.manner.broken_page = Some(("/v3/apps", 2));
        }),
        ("nothing can be seen any more", |it| it.manner.blind = true),
        ("the rate limit is exceeded", |it| {
            it.manner.rate_limit = Some(0);
            it.manner.window = Duration::from_secs(1);
        }),
    ];
    for (what, trouble) in troubles {
        trouble(&mut foundation.state());
        until_so(what, || stale(&child));
        still_scraped(&sink, what);
        foundation.state().manner = well.clone();
        until_so(&format!("{what}: it is over"), || !stale(&child));
    }
    // Of these nothing is to be noticed.
    let troubles: [(&str, Trouble); 2] = [
        ("all tokens are revoked", |it| {
            it.manner.revoked_in = Some(2)
        }),
        ("tokens end at once", |it| {
            it.manner.token_life = 0.2;
            it.manner.single_use = true;
        }),
    ];
    for (what, trouble) in troubles {
        trouble(&mut foundation.state());
        let before = foundation.requests();
        until_so(what, || foundation.requests() > before + 6);
        still_scraped(&sink, what);
        assert!(!stale(&child), "{what}");
        foundation.state().manner = well.clone();
    }
    // A restart finds the platform down, and knows what there was.
    until_so("what is known is on disk", || {
        let kept = std::fs::read_to_string(folder.path().join("discovery/cf.json"));
        kept.is_ok_and(|kept| kept.contains("shop"))
    });
    drop(child);
    foundation.state().manner.down = true;
    let child = Metrifold::start(&config);
    still_scraped(&sink, "a start without the platform");
    assert!(stale(&child));
}

#[test]
fn a_route_that_moves_is_followed_and_one_that_loses_the_header_is_not_used() {
    let foundation = foundation();
    let sink = Endpoint::speaking(Manner::Honest);
    let child = Metrifold::start(&config(&foundation, &sink, "", ""));
    until_so("both are scraped", || live(&sink) == pairs(&[0, 1]));
    foundation.state().routes[0].url = "127.0.0.1/moved".to_owned();
    let mut numbers: BTreeSet<String> = BTreeSet::new();
    until_so("both are asked at their new route", || {
        let seen = foundation.router.take();
        for seen in seen.iter().filter(|it| it.path.starts_with("/moved/")) {
            numbers.extend(seen.header("x-cf-app-instance").map(str::to_owned));
        }
        numbers.len() == 2
    });
    foundation.state().routes[0].service = true;
    until_so("the route is not used", || {
        let found = child.get("/api/v1/discovery?provider=cf").json();
        let left_out = found["providers"][0]["left_out"][0]["why"].to_string();
        left_out.contains("loses the header")
    });
    until_so("nobody is scraped", || live(&sink).is_empty());
}

#[test]
fn rules_of_a_selector_hold_for_what_is_pushed_and_for_those_who_pull() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    foundation.router.now(|_| {
        Reply::new(200)
            .header("content-type", "text/plain; version=0.0.4")
            .body("# HELP kept Some.\n# TYPE kept counter\nkept{app_name=\"own\"} 1\ndropped 2\n")
    });
    let sink = Endpoint::speaking(Manner::Honest);
    let face = free_address();
    let select = "name = \"spring\"\nlabels = { team = \"t\" }";
    let source = format!(
        "extra_labels = [\"process_type\"]\n\
         [sources.apps.selector_metric_relabel]\n\
         spring = [{{ source_labels = [\"__name__\"], regex = \"dropped\", action = \"drop\" }}]\n\
         [sources.apps.expose]\nlistener = \"face\"\nmax_page_bytes = \"2KiB\"\n\
         [listeners.face]\naddress = \"{face}\"\n"
    );
    let _child = Metrifold::start(&config(&foundation, &sink, select, &source));
    until_so("both are scraped", || last(&sink, "kept").len() == 2);
    let (labels, _) = last(&sink, "kept").remove(0);
    for (name, value) in [
        ("team", "t"),
        ("cf_process_type", "web"),
        ("app_name", "shop"),
        ("exported_app_name", "own"),
    ] {
        assert_eq!(labels[name], value, "{name}");
    }
    assert_eq!(last(&sink, "dropped"), []);
    let single = get(&format!("http://{face}/singleTargetMetrics/{app}/0")).text();
    let page = "# HELP kept Some.\n# TYPE kept counter\nkept{app_name=\"own\"} 1\n";
    assert!(single.starts_with(page), "{single}");
    assert!(!single.contains("dropped"), "{single}");
    assert!(single.contains("\npromregator_up 1"), "{single}");
    let merged = get(&format!("http://{face}/metrics"));
    assert_eq!(merged.status, 200);
    let text = merged.text();
    assert_eq!(text.matches("\nkept{").count(), 2, "{text}");
    assert!(text.contains("exported_app_name=\"own\""), "{text}");
    assert!(!text.contains("dropped"), "{text}");
    foundation.state().process(&app).scale(20);
    until_so("the page of all is too large", || {
        let merged = get(&format!("http://{face}/metrics"));
        merged.status == 503 && merged.text().contains("max_page_bytes")
    });
}

#[test]
fn what_instances_use_is_reported_and_ends_with_them() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    let sink = Endpoint::speaking(Manner::Honest);
    let config = config(&foundation, &sink, "", "").replace(
        "metadata_interval",
        "stats_interval = \"100ms\"\nmetadata_interval",
    );
    let _child = Metrifold::start(&config);
    let memory = || {
        let of_all = last(&sink, "cf_instance_memory_bytes").into_iter();
        let of_all = of_all.filter(|(_, bits)| *bits != STALE);
        let values = of_all
            .map(|(labels, bits)| (labels["cf_instance_number"].clone(), f64::from_bits(bits)));
        values.collect::<Vec<_>>()
    };
    let used = f64::from(1 << 20);
    until_so("both are measured", || {
        memory() == [("0".to_owned(), used), ("1".to_owned(), used)]
    });
    foundation.state().process(&app).scale(1);
    until_so("one is left", || memory() == [("0".to_owned(), used)]);
}

#[test]
fn a_client_gets_its_token_by_a_certificate_and_nothing_is_scraped_before() {
    let foundation = foundation();
    let sink = Endpoint::speaking(Manner::Honest);
    let (servers, clients) = (Authority::new(), Authority::new());
    let issuer = Endpoint::tls(servers.server(Some(&clients.ca())), |_| Reply::new(500));
    let (cert, key) = clients.issue("scraper");
    let source = format!(
        "[sources.apps.authenticators.mine.oauth2]\nclient_id = \"c\"\nscopes = [\"s\"]\n\
         token_url = {:?}\ntls = {{ ca_file = {:?}, cert_file = {cert:?}, key_file = {key:?} }}\n",
        issuer.url_of("/oauth/token").replace("http:", "https:"),
        servers.ca()
    );
    let select = "authenticator = \"mine\"";
    let _child = Metrifold::start(&config(&foundation, &sink, select, &source));
    until_so("both have failed", || {
        let up = last(&sink, "up");
        up.len() == 2 && up.iter().all(|(_, bits)| f64::from_bits(*bits) == 0.0)
    });
    assert_eq!(foundation.router.count(), 0);
    issuer.now(|_| {
        Reply::new(200)
            .header("content-type", "application/json")
            .body("{\"access_token\":\"t0ken\",\"token_type\":\"bearer\",\"expires_in\":600}")
    });
    until_so("both are scraped", || live(&sink) == pairs(&[0, 1]));
    let seen = foundation.router.seen();
    let shown = |it: &Seen| it.header("authorization") == Some("Bearer t0ken");
    assert!(seen.iter().all(shown));
    let asked = issuer.seen().remove(0);
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(
        String::from_utf8_lossy(&asked.body),
        "grant_type=client_credentials&scope=s&client_id=c"
    );
}
