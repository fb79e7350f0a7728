//! A real Prometheus 3 scrapes Cloud Foundry through Promregator's paths.

use metrifold_testing::peers::{Prometheus, now};
use metrifold_testing::{CloudFoundry, Metrifold, Reply, free_address, until_so};

/// Relabelling from Promregator's documentation: part of the target's name, and label.
const RULES: [(&str, &str); 7] = [
    ("path", "__metrics_path__"),
    ("instanceId", "instance"),
    ("orgName", "org_name"),
    ("spaceName", "space_name"),
    ("applicationName", "app_name"),
    ("instanceId", "cf_instance_id"),
    ("instanceNumber", "cf_instance_number"),
];

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn a_prometheus_that_was_configured_for_promregator_goes_on_as_before() {
    let foundation = CloudFoundry::new();
    let shop = foundation.push("o/s/shop", &["127.0.0.1/shop"], 3);
    foundation.push("o/s/cart", &["127.0.0.1/cart"], 1);
    let face = free_address();
    let _child = Metrifold::start(&format!(
        "[discovery.cf]\ntype = \"cloud_foundry\"\napi = {:?}\nusername = \"admin\"\n\
         password = \"geheim\"\nrefresh_interval = \"200ms\"\n\
         [[discovery.cf.select]]\nprotocol = \"http\"\nrouter_port = {}\n\
         [sources.apps]\ntype = \"cf_scrape\"\ndiscovery = \"cf\"\npush = false\n\
         expose = {{ address = \"{face}\" }}\n\
         [sinks.nowhere]\ntype = \"blackhole\"\ninputs = [\"apps\"]\n",
        foundation.api(),
        foundation.router.address().port()
    ));
    let rules = RULES.iter().map(|(from, to)| {
        format!("  - {{source_labels: [__meta_promregator_target_{from}], target_label: {to}}}\n")
    });
    let rules: String = rules.collect();
    let prometheus = Prometheus::start_3(&format!(
        "scrape_configs:\n\
         - job_name: cf\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
         http_sd_configs: [{{url: 'http://{face}/discovery', refresh_interval: 1s}}]\n  \
         relabel_configs:\n{rules}\
         - job_name: merged\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
         static_configs: [{{targets: ['{face}']}}]\n"
    ));
    let until_is = |expression: &str, expected: Option<f64>| {
        until_so(&format!("{expression} is {expected:?}"), || {
            prometheus.value(expression, now()) == expected
        });
    };
    let shops = "sum(up{job=\"cf\",app_name=\"shop\",org_name=\"o\",space_name=\"s\"})";
    until_is(shops, Some(3.0));
    until_is(
        "sum(up{app_name=\"cart\",cf_instance_number=\"0\"})",
        Some(1.0),
    );
    for number in 0..3 {
        // Each instance shows itself twice: on its own page and on the page of all.
        let own = format!(
            "sum(instance_info{{app_name=\"shop\",cf_instance_number=\"{number}\",index=\"{number}\"}})"
        );
        until_is(&own, Some(2.0));
    }
    // No instance has shown another's page.
    until_is(
        "count(instance_info{job=\"cf\",app_name=\"shop\"})",
        Some(3.0),
    );
    until_is("sum(promregator_up{job=\"merged\"})", Some(4.0));
    // Metrifold's own metrics are a target as well.
    until_is("count(metrifold_build_info{job=\"cf\"})", Some(1.0));

    foundation.state().process(&shop).scale(4);
    until_is(shops, Some(4.0));
    foundation.state().process(&shop).set(2, "CRASHED");
    until_is("count(up{job=\"cf\",app_name=\"shop\"})", Some(3.0));
    foundation.router.now(|_| Reply::new(503));
    until_is("sum(up{job=\"cf\",app_name=~\"shop|cart\"})", Some(0.0));
}
