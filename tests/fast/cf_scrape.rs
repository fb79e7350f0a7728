//! Instances of Cloud Foundry: scraped by header and with credentials, and served to scrapers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use metrifold_testing::cloud_foundry::State;
use metrifold_testing::series::STALE;
use metrifold_testing::{
    Authority, CloudFoundry, Does, Endpoint, Manner, Metrifold, Reply, Seen, free_address, get,
    request, until, until_so,
};

/// A foundation with all routes below one host, so that no name server is needed.
pub(crate) fn foundation() -> CloudFoundry {
    let foundation = CloudFoundry::new();
    foundation.push("o/s/shop", &["127.0.0.1/shop"], 2);
    foundation
}

/// A configuration that scrapes the foundation often.
pub(crate) fn config(
    foundation: &CloudFoundry,
    sink: &Endpoint,
    select: &str,
    source: &str,
) -> String {
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

pub(crate) type Labels = BTreeMap<String, String>;

/// The last value of each series of a metric, as bits.
pub(crate) fn last(sink: &Endpoint, name: &str) -> Vec<(Labels, u64)> {
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

/// Instances scraped now: the numbers in the targets' labels, and those on the pages.
pub(crate) fn live(sink: &Endpoint) -> Vec<(String, String)> {
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

pub(crate) fn pairs(numbers: &[u32]) -> Vec<(String, String)> {
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
    // Before the new process was known, its instances could be scraped as the old one's.
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
fn a_router_that_does_not_know_processes_is_asked_by_the_application() {
    let foundation = foundation();
    foundation.state().manner.process_header = false;
    let app = foundation.state().apps[0].guid.clone();
    let sink = Endpoint::speaking(Manner::Honest);
    let child = Metrifold::start(&config(&foundation, &sink, "", ""));
    until_so("both are scraped", || live(&sink) == pairs(&[0, 1]));
    let new = foundation.state().deploy(&app, "web", 2);
    let scrapes = |process: &str| {
        let seen = sink.seen();
        let series = seen.iter().flat_map(|seen| seen.series());
        let info = series.filter(|series| series.name() == "instance_info");
        info.filter(|series| series.get("cf_process_id") == Some(process))
            .count()
    };
    until_so("the new ones are scraped often", || scrapes(&new) >= 20);
    // Any instance would answer a header that the router does not know.
    for seen in sink.seen() {
        for series in seen
            .series()
            .iter()
            .filter(|it| it.name() == "instance_info")
        {
            assert_eq!(
                series.get("cf_instance_number"),
                series.get("index"),
                "{series:?}"
            );
        }
    }
    let log = child.log();
    let told = log.matches("does not know X-CF-PROCESS-INSTANCE").count();
    assert!((1..=4).contains(&told), "{log}");
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

pub(crate) fn expose(face: SocketAddr) -> String {
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

    // All instances on one page, each with its labels.
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

    // A scrape of the process itself is not forwarded.
    let own = foundation.router.seen();
    let id = own
        .iter()
        .find_map(|it| it.header("x-promregator-instance"))
        .unwrap();
    let path = format!("/singleTargetMetrics/{app}/0");
    let looped = request("GET", face, &path, &[("x-promregator-instance", id)], b"").unwrap();
    assert_eq!(looped.status, 500);
    // Nor is one that has come back by way of another process.
    let ask = |through: &str| {
        let headers = [("x-promregator-instance", through)];
        request("GET", face, &path, &headers, b"").unwrap()
    };
    assert_eq!(ask("other").status, 200);
    let through = format!("other, {id}");
    let mut asked = foundation.router.seen().into_iter();
    assert!(asked.any(|it| it.header("x-promregator-instance") == Some(&through)));
    assert_eq!(ask(&format!("{through}, third")).status, 500);
    assert_eq!(get(&url("/cache/invalidate?org=1")).status, 204);

    // A failed scrape is answered as such.
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

/// Whether the provider reports its targets as stale.
fn stale(child: &Metrifold) -> bool {
    let found = child.get("/api/v1/discovery?provider=cf").json();
    found["providers"][0]["stale"] == true
}

/// Waits until both instances were scraped again, and fails if a series was ended.
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
    // Nothing is published: the limit of this test is per second, a published one per minute.
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
    // Failures without a visible effect.
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
    // The platform is down at a restart; the instances are known from disk.
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
        left_out.contains("drops the header")
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
fn what_an_instance_uses_is_what_its_own_foundation_measures() {
    // Both give the same GUIDs, and only one is measured.
    let [measured, other] = [foundation(), foundation()];
    assert_eq!(measured.state().apps[0].guid, other.state().apps[0].guid);
    let sink = Endpoint::speaking(Manner::Honest);
    let here = config(&measured, &sink, "labels = { at = \"measured\" }", "");
    let here = here.replace("[\"cf\"]", "[\"cf\", \"other\"]").replace(
        "metadata_interval",
        "stats_interval = \"100ms\"\nmetadata_interval",
    );
    let there = config(&other, &sink, "labels = { at = \"other\" }", "");
    let (there, _) = there.split_once("[sources").unwrap();
    let there = there.replace("discovery.cf", "discovery.other");
    let _child = Metrifold::start(&format!("{here}{there}"));
    let count = |name: &str, at: &str| {
        let seen = sink.seen();
        let series = seen.iter().flat_map(Seen::series);
        let is = |label: &(String, String)| label.0 == "at" && label.1 == at;
        let of = series.filter(|it| it.name() == name && it.labels.iter().any(is));
        of.count()
    };
    let name = "cf_instance_memory_bytes";
    until_so("one is measured", || count(name, "measured") >= 2);
    let before = count("up", "other");
    until_so("the other is scraped", || {
        count("up", "other") >= before + 4
    });
    assert_eq!(count(name, "other"), 0);
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

#[test]
fn each_application_gets_the_credentials_of_its_own_service_binding_and_no_request_without() {
    let foundation = foundation();
    foundation.push("o/s/cart", &["127.0.0.1/cart"], 1);
    foundation.push("o/s/free", &["127.0.0.1/free"], 1);
    {
        let mut state = foundation.state();
        let [shop, cart] = [0, 1].map(|at| state.apps[at].guid.clone());
        state.bindings.push(("login".to_owned(), shop));
        state.bindings.push(("login".to_owned(), cart));
        let pair = |name: &str| serde_json::json!({ "username": name, "password": "p" });
        state.credentials = [(0, pair("shop")), (1, pair("cart"))].into();
        state.manner.auditor = true;
    }
    let sink = Endpoint::speaking(Manner::Honest);
    let select = "service_credentials = \"login\"";
    let child = Metrifold::start(&config(&foundation, &sink, select, ""));
    let ups = |expected: f64| {
        let up = last(&sink, "up");
        up.len() == 3 && up.iter().all(|(_, bits)| f64::from_bits(*bits) == expected)
    };
    until_so("the credentials cannot be read", || ups(0.0));
    assert_eq!(foundation.router.count(), 0);
    let shown = child.get("/api/v1/targets").text();
    assert!(
        shown.contains("service binding have not been read"),
        "{shown}"
    );
    foundation.state().manner.auditor = false;
    until_so("all are scraped", || ups(1.0));
    let basic = |it: &Seen| it.header("authorization").map(str::to_owned);
    for seen in foundation.router.seen() {
        // shop:p and cart:p
        let expected = match seen.path.starts_with("/shop") {
            true => "Basic c2hvcDpw",
            false => "Basic Y2FydDpw",
        };
        assert_eq!(basic(&seen).as_deref(), Some(expected), "{}", seen.path);
    }
    let found = child.get("/api/v1/discovery?provider=cf").json();
    let left_out = &found["providers"][0]["left_out"][0];
    assert_eq!(left_out["what"], "o/s/free");
    let why = left_out["why"].as_str().unwrap();
    assert!(why.contains("is not bound to \"login\""), "{why}");
    // A new binding has new credentials.
    {
        let mut state = foundation.state();
        let cart = state.apps[1].guid.clone();
        state.bindings.push(("login".to_owned(), cart));
        let new = serde_json::json!({ "user": "new", "pass": "p" });
        state.credentials.insert(2, new);
    }
    until_so("the new ones are sent", || {
        let mut seen = foundation.router.take().into_iter();
        seen.any(|it| basic(&it).as_deref() == Some("Basic bmV3OnA="))
    });
}

/// A source that scrapes on request only.
pub(crate) fn on_request(face: SocketAddr, keys: &str, expose_keys: &str) -> String {
    format!("push = false\n{keys}\n{}{expose_keys}\n", expose(face))
}

/// Waits until the instance with this number can be requested.
pub(crate) fn until_served(face: SocketAddr, app: &str, number: u32) {
    let path = format!("http://{face}/singleTargetMetrics/{app}/{number}");
    until_so("the instance is served", || get(&path).status == 200);
}

#[test]
fn one_page_of_all_instances_is_merged_at_a_time() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    let sink = Endpoint::speaking(Manner::Honest);
    let face = free_address();
    let source = on_request(face, "", "timeout = \"30s\"");
    let _child = Metrifold::start(&config(&foundation, &sink, "", &source));
    until_served(face, &app, 1);
    foundation
        .router
        .now(|_| Does::Hang(Reply::new(200).body("a 1\n")));
    let before = foundation.router.count();
    let page = format!("http://{face}/metrics");
    let first = std::thread::spawn(move || get(&page));
    foundation.router.wait_requests(before + 2);
    let headers = [("x-prometheus-scrape-timeout-seconds", "0.2")];
    let second = request("GET", face, "/metrics", &headers, b"").unwrap();
    assert_eq!(second.status, 503);
    assert_eq!(second.header("retry-after"), Some("5"));
    assert_eq!(foundation.router.count(), before + 2);
    foundation.router.release();
    let first = first.join().unwrap().text();
    let lines = first.lines().filter(|it| it.starts_with("a{"));
    assert_eq!(lines.count(), 2, "{first}");
    assert_eq!(get(&format!("http://{face}/metrics")).status, 200);
}

#[test]
fn pages_that_do_not_fit_into_memory_together_are_merged_one_after_another() {
    let foundation = foundation();
    let app = foundation.state().apps[0].guid.clone();
    foundation.state().process(&app).scale(8);
    foundation.router.now(|_| {
        let text = format!("# {}\na 1\n", "x".repeat(3000));
        Reply::new(200).body(text)
    });
    let sink = Endpoint::speaking(Manner::Honest);
    let face = free_address();
    let keys = "body_size_limit = \"4KiB\"\nmax_in_flight_bytes = \"4KiB\"";
    let source = on_request(face, keys, "timeout = \"30s\"");
    let _child = Metrifold::start(&config(&foundation, &sink, "", &source));
    until_served(face, &app, 7);
    // The page that was served last may still take its room at first.
    let text = until("all pages in one", || {
        let text = get(&format!("http://{face}/metrics")).text();
        let lines = text.lines().filter(|it| it.starts_with("a{"));
        (lines.count() == 8).then_some(text)
    });
    let ups = text.lines().filter(|it| it.starts_with("promregator_up{"));
    assert!(ups.clone().all(|it| it.ends_with(" 1")), "{text}");
    assert_eq!(ups.count(), 8);
}

#[test]
fn two_selectors_of_one_application_give_reports_of_their_own() {
    let foundation = foundation();
    let port = foundation.router.address().port();
    let sink = Endpoint::speaking(Manner::Honest);
    let select = format!(
        "path = \"/a\"\n[[discovery.cf.select]]\nprotocol = \"http\"\nrouter_port = {port}\npath = \"/b\""
    );
    let _child = Metrifold::start(&config(&foundation, &sink, &select, ""));
    until_so("each of four targets reports", || {
        let up = last(&sink, "up").into_iter();
        let ones = up.filter(|(_, bits)| f64::from_bits(*bits) == 1.0);
        let paths = ones.filter_map(|(labels, _)| labels.get("metrics_path").cloned());
        let mut paths: Vec<String> = paths.collect();
        paths.sort_unstable();
        paths == ["/shop/a", "/shop/a", "/shop/b", "/shop/b"]
    });
}
