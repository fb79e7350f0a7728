//! Words of Prometheus, Thanos, Vector and others, with their names in Metrifold.

/// Meanings of a word, the likeliest first: keys (below the table of the word), component types,
/// tables at the top.
pub(crate) fn of(word: &str) -> &'static [&'static str] {
    let found = SYNONYMS.iter().find(|(theirs, _)| *theirs == word);
    found.map_or(&[], |(_, ours)| ours)
}

/// Written with underscores, sorted.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("acknowledgements", &["acknowledge"]),
    ("admin", &["api"]),
    ("auth", &["basic_auth", "authorization"]),
    ("backoff_on_ratelimits", &["retry"]),
    ("batch", &["merge_bytes"]),
    ("bearer_token", &["authorization.credentials"]),
    ("bearer_token_file", &["authorization.credentials_file"]),
    ("bind", &["address"]),
    ("buffer", &["queue"]),
    ("ca", &["ca_file"]),
    ("cert", &["cert_file"]),
    ("client_ca", &["client_ca_file"]),
    ("concurrency", &["connections"]),
    ("condition", &["routes"]),
    ("consul_sd_configs", &["discovery"]),
    ("credentials", &["authorization.credentials"]),
    ("credentials_file", &["authorization.credentials_file"]),
    ("crt_file", &["cert_file"]),
    ("data_directory", &["data_dir"]),
    ("dlq", &["dead_letters"]),
    ("dns_sd_configs", &["discovery"]),
    ("enrichment_tables", &["tenants"]),
    ("external_labels", &["labels", "relabel", "rules"]),
    ("file_sd_configs", &["discovery"]),
    ("filter", &["relabel", "rules"]),
    ("host", &["address"]),
    ("http_sd_configs", &["discovery"]),
    ("input", &["inputs"]),
    (
        "insecure",
        &["insecure_skip_verify", "tls.insecure_skip_verify"],
    ),
    ("insecure_skip_verify", &["tls.insecure_skip_verify"]),
    ("job_name", &["job"]),
    ("key", &["key_file"]),
    ("kubernetes_sd_configs", &["discovery"]),
    ("listen", &["address"]),
    ("listen_address", &["address"]),
    ("marathon_sd_configs", &["discovery"]),
    ("max_concurrency", &["connections"]),
    ("max_samples_per_send", &["merge_bytes"]),
    ("max_shards", &["connections"]),
    ("max_size", &["max_bytes"]),
    (
        "metric_relabel_configs",
        &["metric_relabel", "relabel", "rules"],
    ),
    ("min_shards", &["min_connections"]),
    ("null", &["blackhole"]),
    ("output", &["inputs"]),
    ("outputs", &["inputs"]),
    ("password", &["basic_auth.password"]),
    ("password_file", &["basic_auth.password_file"]),
    ("pem_file", &["cert_file"]),
    ("port", &["address"]),
    ("processors", &["transforms"]),
    ("prometheus_remote_write", &["remote_write"]),
    ("prometheus_remotewrite", &["remote_write"]),
    ("prometheus_scrape", &["scrape"]),
    ("prometheusremotewrite", &["remote_write"]),
    ("protobuf_message", &["protocol"]),
    ("proxy", &["proxy_url"]),
    ("queue_config", &["queue"]),
    ("receive", &["remote_write"]),
    ("receivers", &["sources"]),
    ("relabel_config", &["relabel", "rules"]),
    ("relabel_configs", &["relabel", "rules"]),
    ("remap", &["relabel"]),
    ("remote_timeout", &["timeout"]),
    ("remote_write", &["sinks"]),
    ("request", &["timeout"]),
    ("retry_on_http_429", &["retry"]),
    ("scrape_configs", &["sources"]),
    ("server", &["address"]),
    ("server_ca", &["ca_file"]),
    ("sorted", &["check_series"]),
    ("ssl", &["tls"]),
    ("static_configs", &["targets"]),
    ("stdout", &["console"]),
    ("storage", &["data_dir"]),
    ("swimlanes", &["route"]),
    ("tenant_label_name", &["label"]),
    ("thanos_receive", &["thanos"]),
    ("tls_config", &["tls"]),
    ("tls_server_config", &["tls"]),
    ("token", &["authorization.credentials"]),
    ("token_file", &["authorization.credentials_file"]),
    ("uri", &["endpoint"]),
    ("url", &["endpoint"]),
    ("urls", &["endpoint"]),
    ("username", &["basic_auth.username"]),
    ("verify_certificate", &["insecure_skip_verify"]),
    ("verify_hostname", &["insecure_skip_verify"]),
    ("web", &["api"]),
    ("write_relabel_configs", &["metric_relabel", "relabel"]),
    ("x_scope_orgid", &["tenant_header"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted_and_there_once() {
        assert!(SYNONYMS.is_sorted_by(|(one, _), (next, _)| one < next));
    }
}
