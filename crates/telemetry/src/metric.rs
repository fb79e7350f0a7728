//! The metrics of the process: the one table of their names, types, labels and meanings.
//!
//! Builds with debug assertions check every recorded series against it; a test checks the table in
//! `docs/operations.md`.

/// Type of a metric in the exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A count that only goes up.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// Owner of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A component, which adds the labels `component_id`, `component_kind` and `component_type`.
    Component,
    /// The process, which adds no labels.
    Process,
}

/// A metric's name, type, scope, labels and help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name, with the unit at its end.
    pub name: &'static str,
    /// Whether it is a counter, a gauge or a histogram.
    pub kind: Type,
    /// Its owner, which decides about further labels.
    pub scope: Scope,
    /// The labels that it has besides those of its scope.
    pub labels: &'static [&'static str],
    /// The help text on the metrics page.
    pub help: &'static str,
}

impl Type {
    /// Its name in the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    (@type counter) => { Type::Counter };
    (@type gauge) => { Type::Gauge };
    (@type histogram) => { Type::Histogram };
    (@scope component) => { Scope::Component };
    (@scope process) => { Scope::Process };
    ($(
        $(#[$doc:meta])+
        $variant:ident: $kind:ident of $scope:ident [$($label:literal),*]
            $name:literal, $help:literal;
    )+) => {
        /// The metrics of the process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Metric {
            $($(#[$doc])+ $variant,)+
        }

        impl Metric {
            /// All metrics.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name, type, scope, labels and help.
            pub const fn describe(self) -> Described {
                match self {
                    $(Self::$variant => Described {
                        name: $name,
                        kind: metrics!(@type $kind),
                        scope: metrics!(@scope $scope),
                        labels: &[$($label),*],
                        help: $help,
                    },)+
                }
            }
        }
    };
}

metrics! {
    /// Batches that came in.
    ReceivedBatches: counter of component []
        "metrifold_component_received_batches_total",
        "Total number of batches that a component received.";
    /// Samples (float and histogram) that came in, of batches that were decoded.
    ReceivedSamples: counter of component []
        "metrifold_component_received_samples_total",
        "Total number of samples, float and histogram, that a component received in decoded batches.";
    /// Encoded bytes that came in.
    ReceivedBytes: counter of component []
        "metrifold_component_received_bytes_total",
        "Total number of bytes that a component received: its share of the compressed request bodies.";
    /// Batches that went out.
    SentBatches: counter of component []
        "metrifold_component_sent_batches_total",
        "Total number of batches that a component sent; for a sink, delivered batches.";
    /// Samples that went out, of batches that were decoded.
    SentSamples: counter of component []
        "metrifold_component_sent_samples_total",
        "Total number of samples, float and histogram, that a component sent in decoded batches.";
    /// Encoded bytes that went out.
    SentBytes: counter of component []
        "metrifold_component_sent_bytes_total",
        "Total number of bytes that a component sent: as received, and for a sink as written to the network.";
    /// Discarded samples, by reason.
    DiscardedSamples: counter of component ["reason"]
        "metrifold_component_discarded_samples_total",
        "Total number of discarded samples, by reason.";
    /// Discarded batches, by reason.
    DiscardedBatches: counter of component ["reason"]
        "metrifold_component_discarded_batches_total",
        "Total number of batches that were discarded as a whole, by reason.";
    /// Discarded exemplars of series whose samples went on, by reason.
    DiscardedExemplars: counter of component ["reason"]
        "metrifold_component_discarded_exemplars_total",
        "Total number of discarded exemplars of series whose samples were forwarded, by reason.";
    /// Discarded metadata of metric families, by reason.
    DiscardedMetadata: counter of component ["reason"]
        "metrifold_component_discarded_metadata_total",
        "Total number of discarded metadata entries of metric families, by reason.";
    /// Requests and series over a limit of the transform `limit`, by limit.
    OverLimit: counter of component ["limit"]
        "metrifold_component_over_limit_total",
        "Total number of requests, or series, over a limit of the limit transform, by limit; with soft limits they were accepted.";
    /// Errors, by kind.
    Errors: counter of component ["error_type"]
        "metrifold_component_errors_total",
        "Total number of errors of a component, by type of error.";
    /// Times that a component was built anew after it had died.
    Restarts: counter of component []
        "metrifold_component_restarts_total",
        "Total number of times that a component failed and was rebuilt.";
    /// 1 while the component runs.
    Up: gauge of component []
        "metrifold_component_up",
        "Whether the component runs: 1 while it does, 0 while it waits to be rebuilt.";
    /// Bytes in a sink's queue.
    QueueBytes: gauge of component []
        "metrifold_queue_bytes",
        "Number of bytes in a sink's queue, including batches in flight.";
    /// The bound on the bytes in a sink's queue.
    QueueMaxBytes: gauge of component []
        "metrifold_queue_max_bytes",
        "Maximum size of a sink's queue in bytes.";
    /// Batches that wait in a sink's queue.
    QueueBatches: gauge of component []
        "metrifold_queue_batches",
        "Number of batches that wait in a sink's queue.";
    /// Samples in a queue on disk.
    DiskSamples: gauge of component []
        "metrifold_queue_disk_samples",
        "Number of samples in a queue on disk, of decoded batches.";
    /// Batches in a queue on disk.
    DiskBatches: gauge of component []
        "metrifold_queue_disk_batches",
        "Number of batches in a queue on disk.";
    /// Bytes that a queue takes on disk.
    DiskBytes: gauge of component []
        "metrifold_queue_disk_bytes",
        "Size of the files of a queue on disk in bytes.";
    /// The bound on the bytes that a queue takes on disk.
    DiskMaxBytes: gauge of component []
        "metrifold_queue_disk_max_bytes",
        "Maximum size of the files of a queue on disk in bytes.";
    /// Age of the oldest batch on disk, counted from when it was accepted.
    DiskOldest: gauge of component []
        "metrifold_queue_disk_oldest_seconds",
        "Time in seconds since the oldest batch in a queue on disk was accepted; 0 if the queue is empty.";
    /// Seconds until a queue on disk is drained at the present rate.
    DiskDrain: gauge of component []
        "metrifold_queue_disk_drain_seconds",
        "Time in seconds until a queue on disk is delivered at the present rate; infinite if nothing is delivered.";
    /// Times that segments of a queue on disk were synced.
    DiskSyncs: counter of component []
        "metrifold_queue_disk_fsyncs_total",
        "Total number of times that segments of a queue on disk were synced.";
    /// Batches on disk that were lost to damage.
    DiskCorrupt: counter of component []
        "metrifold_queue_disk_corrupt_batches_total",
        "Total number of batches in a queue on disk that were lost to damage.";
    /// Samples that came to a sink, by tenant.
    LedgerReceivedSamples: counter of component ["tenant"]
        "metrifold_ledger_received_samples_total",
        "Total number of samples that a sink received, by tenant, without batches whose samples were not counted.";
    /// Batches that came to a sink, by tenant.
    LedgerReceivedBatches: counter of component ["tenant"]
        "metrifold_ledger_received_batches_total",
        "Total number of batches that a sink received, by tenant.";
    /// Received batches whose samples were never counted, by tenant.
    LedgerUncountedBatches: counter of component ["tenant"]
        "metrifold_ledger_uncounted_batches_total",
        "Total number of batches that a sink received and whose samples were not counted, by tenant.";
    /// Samples that a sink has delivered, by tenant.
    LedgerDeliveredSamples: counter of component ["tenant"]
        "metrifold_ledger_delivered_samples_total",
        "Total number of samples that a sink delivered, by tenant, without batches whose samples were not counted.";
    /// Batches that a sink has delivered, by tenant.
    LedgerDeliveredBatches: counter of component ["tenant"]
        "metrifold_ledger_delivered_batches_total",
        "Total number of batches that a sink delivered, whole or in part, by tenant.";
    /// Samples that a sink has given up, by tenant and reason.
    LedgerDroppedSamples: counter of component ["tenant", "reason"]
        "metrifold_ledger_dropped_samples_total",
        "Total number of samples that a sink dropped, by tenant and reason, without batches whose samples were not counted.";
    /// Batches that a sink has given up, by tenant and reason.
    LedgerDroppedBatches: counter of component ["tenant", "reason"]
        "metrifold_ledger_dropped_batches_total",
        "Total number of batches that a sink dropped as a whole, by tenant and reason.";
    /// Samples that are queued in a sink or in flight, by tenant.
    LedgerQueuedSamples: gauge of component ["tenant"]
        "metrifold_ledger_queued_samples",
        "Number of samples queued in a sink or in flight, by tenant, without batches whose samples were not counted.";
    /// Batches that are queued in a sink or in flight, by tenant.
    LedgerQueuedBatches: gauge of component ["tenant"]
        "metrifold_ledger_queued_batches",
        "Number of batches queued in a sink or in flight, by tenant.";
    /// Bytes that are queued in a sink or in flight, by tenant.
    LedgerQueuedBytes: gauge of component ["tenant"]
        "metrifold_ledger_queued_bytes",
        "Number of encoded bytes queued in a sink or in flight, by tenant.";
    /// Age of the oldest batch that a sink has not settled.
    LedgerOldest: gauge of component []
        "metrifold_ledger_oldest_seconds",
        "Time in seconds since the oldest batch that is queued in a sink or in flight was received; 0 if there is none.";
    /// Seconds until everything queued in a sink is delivered at the present rate.
    LedgerDrain: gauge of component []
        "metrifold_ledger_drain_seconds",
        "Time in seconds until everything queued in a sink is delivered at the present rate; infinite if nothing is delivered.";
    /// Seconds from a batch's arrival in the queue to its outcome.
    DeliverySeconds: histogram of component []
        "metrifold_delivery_duration_seconds",
        "Time in seconds from a batch's arrival in a sink's queue to its delivery or drop.";
    /// Requests to a source, by status.
    SourceRequests: counter of component ["code"]
        "metrifold_source_requests_total",
        "Total number of requests to a source, by status code of the answer.";
    /// Requests that a source refused because memory is short, by reason.
    RefusedRequests: counter of component ["reason"]
        "metrifold_source_refused_requests_total",
        "Total number of requests that a source refused because memory is short, by reason.";
    /// The configured `memory_limit`.
    MemoryLimit: gauge of process []
        "metrifold_memory_limit_bytes",
        "Configured limit on the memory of the process in bytes; 0 without a limit.";
    /// The memory of the process, as the system measures it.
    MemoryResident: gauge of process []
        "metrifold_memory_resident_bytes",
        "Resident memory of the process in bytes, as the operating system measures it.";
    /// Memory that requests in flight may need.
    MemoryRequests: gauge of process []
        "metrifold_memory_requests_bytes",
        "Memory in bytes that requests in flight may need.";
    /// Bound on the memory of requests in flight.
    MemoryRequestsMax: gauge of process []
        "metrifold_memory_requests_max_bytes",
        "Memory in bytes that memory_limit leaves to requests in flight; 0 without a limit.";
    /// Bytes of all requests in flight.
    InFlight: gauge of process []
        "metrifold_in_flight_bytes",
        "Number of bytes of all requests in flight, compressed and decoded.";
    /// Bound on the bytes of all requests in flight.
    InFlightMax: gauge of process []
        "metrifold_in_flight_max_bytes",
        "Maximum number of bytes of all requests in flight; 0 without a limit.";
    /// Remote-write requests by endpoint and status, as the Observatorium proposal names them.
    RemoteWriteRequests: counter of process ["name", "code"]
        "remote_write_requests_count",
        "Total number of remote-write requests to an endpoint, by sink and status code; <error> without an answer.";
    /// The same count under the name that Observatorium's API uses today.
    RemoteWriteRequestsTotal: counter of process ["proxy", "code", "name"]
        "remote_write_requests_total",
        "Total number of remote-write requests to an endpoint, by sink and status code; <error> without an answer.";
    /// Attempts after the first.
    Retries: counter of component []
        "metrifold_component_retries_total",
        "Total number of attempts to deliver a batch after the first attempt.";
    /// Queues on disk that no sink reads.
    OrphanedQueues: gauge of process []
        "metrifold_orphaned_queues",
        "Number of queues on disk with batches that no sink reads.";
    /// Batches in queues on disk that no sink reads.
    OrphanedBatches: gauge of process []
        "metrifold_orphaned_queue_batches",
        "Number of batches in queues on disk that no sink reads.";
    /// Time for which a sink's requests have failed.
    FailingSeconds: gauge of component []
        "metrifold_sink_failing_seconds",
        "Time in seconds for which all requests to a sink's endpoint have failed; 0 if the last one succeeded.";
    /// Requests to a listener that were refused, by status.
    ListenerRefused: counter of process ["address", "code"]
        "metrifold_listener_refused_requests_total",
        "Total number of requests that Metrifold refused at a listener, by status code; <tls> for failed handshakes.";
    /// When a listener's certificate expires.
    CertificateExpiry: gauge of process ["address"]
        "metrifold_listener_certificate_expiry_timestamp_seconds",
        "Expiry time of a listener's certificate in use, in seconds since the Unix epoch.";
    /// When what a file holds expires.
    FileExpiry: gauge of process ["file", "content"]
        "metrifold_file_expiry_timestamp_seconds",
        "Expiry time of the certificates, authorities or revocation lists in a file that the configuration names, in seconds since the Unix epoch; for the 100 files that expire first.";
    /// Bound on a sink's requests in flight.
    Connections: gauge of component []
        "metrifold_sink_connections",
        "Current limit on the number of a sink's requests in flight.";
    /// Dead letters that a sink keeps.
    DeadLetters: gauge of component []
        "metrifold_dead_letters",
        "Number of dead letters that a sink keeps.";
    /// Bytes that a sink's dead letters take on disk.
    DeadLetterBytes: gauge of component []
        "metrifold_dead_letters_bytes",
        "Size of a sink's dead letters on disk in bytes.";
    /// Dead letters that were not stored, or were removed again, by reason.
    DeadLettersDropped: counter of component ["reason"]
        "metrifold_dead_letters_dropped_total",
        "Total number of dead letters that were not stored, or were removed again, by reason.";
    /// The running version.
    BuildInfo: gauge of process ["version"]
        "metrifold_build_info",
        "Always 1; the label version has the version of Metrifold.";
    /// Processor time. This and the next six have the names of Prometheus' client libraries.
    ProcessCpu: counter of process []
        "process_cpu_seconds_total",
        "Total user and system CPU time of the process in seconds.";
    /// Resident memory.
    ProcessResident: gauge of process []
        "process_resident_memory_bytes",
        "Resident memory size of the process in bytes.";
    /// Virtual memory.
    ProcessVirtual: gauge of process []
        "process_virtual_memory_bytes",
        "Virtual memory size of the process in bytes.";
    /// Open descriptors.
    ProcessOpenFds: gauge of process []
        "process_open_fds",
        "Number of open file descriptors, including connections and listeners.";
    /// Soft limit on open descriptors.
    ProcessMaxFds: gauge of process []
        "process_max_fds",
        "Maximum number of open file descriptors.";
    /// Threads.
    ProcessThreads: gauge of process []
        "process_threads",
        "Number of operating system threads in the process.";
    /// When the process started.
    ProcessStartTime: gauge of process []
        "process_start_time_seconds",
        "Start time of the process in seconds since the Unix epoch.";
    /// When the process started, in seconds since the epoch.
    StartTime: gauge of process []
        "metrifold_start_time_seconds",
        "Start time of the process in seconds since the Unix epoch.";
    /// Whether the last reload succeeded.
    ReloadSuccessful: gauge of process []
        "metrifold_config_last_reload_successful",
        "Whether the last reload of the configuration was successful: 1 if so, 0 if it was refused.";
    /// When a configuration was last loaded, in seconds since the epoch.
    ReloadTime: gauge of process []
        "metrifold_config_last_reload_success_timestamp_seconds",
        "Time when a configuration was last loaded successfully, at the start or later, in seconds since the Unix epoch.";
    /// Hash of the running configuration.
    ConfigHash: gauge of process []
        "metrifold_config_hash",
        "Last 48 bits of the hash of the running configuration.";
    /// Reloads, by outcome.
    Reloads: counter of process ["outcome"]
        "metrifold_config_reloads_total",
        "Total number of attempts to reload the configuration, by outcome.";
    /// Finished queries, by code.
    Queries: counter of component ["code"]
        "metrifold_component_queries_total",
        "Total number of queries that a component has finished, by status code of the answer; <error> without an answer, <passed> and <refused> for a transform.";
    /// From a query's arrival at a sink to the head of its answer, in seconds.
    QuerySeconds: histogram of component []
        "metrifold_component_query_duration_seconds",
        "Time in seconds from a query's arrival at a sink to the head of the answer.";
    /// Queries that a sink is answering.
    QueriesInFlight: gauge of component []
        "metrifold_component_queries_in_flight",
        "Number of queries that a sink is answering, including answers that are being streamed.";
    /// 1 while a replica may be queried.
    ReplicaUp: gauge of process ["sink", "replica"]
        "metrifold_replica_up",
        "Whether a replica may be queried: 1 if so, 0 while its probes or its requests fail.";
    /// 1 while the strategy selects a replica.
    ReplicaSelected: gauge of process ["sink", "replica"]
        "metrifold_replica_selected",
        "Whether the strategy selects a replica: 1 if so, 0 otherwise.";
    /// Requests to a replica, by outcome.
    ReplicaRequests: counter of process ["sink", "replica", "outcome"]
        "metrifold_replica_requests_total",
        "Total number of requests to a replica, by outcome: answered, failed by its fault, or cancelled.";
    /// Queries that were retried on another replica because this one failed.
    ReplicaRetries: counter of process ["sink", "replica"]
        "metrifold_replica_retries_total",
        "Total number of queries that were retried on another replica because this one failed.";
    /// Queries that were hedged with another replica because this one was slow.
    ReplicaHedges: counter of process ["sink", "replica"]
        "metrifold_replica_hedges_total",
        "Total number of queries that were hedged with another replica because this one was slow.";
    /// Rule sets that a component has published or taken over.
    RulesPublished: counter of component []
        "metrifold_component_rule_sets_total",
        "Total number of complete rule sets that a source has published or a sink has written.";
    /// Tenants in the newest rule set.
    RuleTenants: gauge of component []
        "metrifold_component_rule_tenants",
        "Number of tenants in the newest rule set of a component; rules without a tenant count as one.";
    /// 1 while a provider of targets runs.
    DiscoveryUp: gauge of process ["discovery", "type"]
        "metrifold_discovery_up",
        "Whether a discovery provider runs: 1 if so, 0 while it waits to be rebuilt.";
    /// Targets that a provider knows.
    DiscoveryTargets: gauge of process ["discovery", "type"]
        "metrifold_discovery_targets",
        "Number of targets of a discovery provider.";
    /// Whether some of a provider's targets are older than its last attempt.
    DiscoveryStale: gauge of process ["discovery", "type"]
        "metrifold_discovery_stale",
        "Whether some targets of a discovery provider are older than its last refresh: 1 if so, 0 otherwise.";
    /// When a provider last had an answer from all of its sources, in seconds since the epoch.
    DiscoveryAnswered: gauge of process ["discovery", "type"]
        "metrifold_discovery_last_success_time_seconds",
        "Time when all sources of a discovery provider last answered, in seconds since the Unix epoch; 0 if never.";
    /// Attempts of a provider to learn its targets.
    DiscoveryAttempts: counter of process ["discovery", "type"]
        "metrifold_discovery_refreshes_total",
        "Total number of attempts of a discovery provider to read its targets.";
    /// Sources that gave a provider no answer, by reason.
    DiscoveryFailures: counter of process ["discovery", "type", "reason"]
        "metrifold_discovery_failures_total",
        "Total number of sources that gave a discovery provider no usable answer, by reason.";
    /// Targets that a publisher publishes.
    PublishTargets: gauge of process ["publish"]
        "metrifold_publish_targets",
        "Number of published targets.";
    /// Targets that the rules of a publisher drop.
    PublishDropped: gauge of process ["publish"]
        "metrifold_publish_dropped_targets",
        "Number of targets that are not published, because of rules or for lack of an address.";
    /// When a publisher last wrote its file, in seconds since the epoch.
    PublishWritten: gauge of process ["publish"]
        "metrifold_publish_last_write_time_seconds",
        "Time when the published file was last written, in seconds since the Unix epoch; 0 if never.";
    /// Times that a published file was written.
    PublishWrites: counter of process ["publish"]
        "metrifold_publish_writes_total",
        "Total number of times that the published file was written, because its content had changed.";
    /// Attempts to write a published file that failed.
    PublishFailures: counter of process ["publish"]
        "metrifold_publish_failures_total",
        "Total number of failed attempts to write the published file.";
    /// Attempts to read a project.
    AivenFetches: counter of process ["discovery"]
        "metrifold_aiven_fetches_total",
        "Total number of attempts of an Aiven provider to read a project.";
    /// Attempts to read a project that failed.
    AivenFetchFailures: counter of process ["discovery"]
        "metrifold_aiven_fetch_failures_total",
        "Total number of failed attempts of an Aiven provider to read a project.";
    /// Integrations that were created.
    AivenCreated: counter of process ["discovery"]
        "metrifold_aiven_integrations_created_total",
        "Total number of Aiven services that were given the Prometheus integration.";
    /// Changes that failed.
    AivenChangeFailures: counter of process ["discovery"]
        "metrifold_aiven_change_failures_total",
        "Total number of failed changes at Aiven.";
    /// Names of services that were resolved.
    AivenResolves: counter of process ["discovery"]
        "metrifold_aiven_resolves_total",
        "Total number of attempts to resolve the name of an Aiven service.";
    /// Names of services that could not be resolved.
    AivenResolveFailures: counter of process ["discovery"]
        "metrifold_aiven_resolve_failures_total",
        "Total number of failed attempts to resolve the name of an Aiven service.";
    /// Changes that the plan has.
    AivenPlanned: gauge of process ["discovery"]
        "metrifold_aiven_planned_changes",
        "Number of changes in the newest plan of an Aiven provider.";
    /// Whether this instance makes the changes.
    AivenLeads: gauge of process ["discovery"]
        "metrifold_aiven_leader",
        "Whether this instance makes the changes at Aiven: 1 if so, 0 otherwise.";
    /// Targets of a pool, by health.
    ScrapeTargets: gauge of process ["pool", "health"]
        "metrifold_scrape_targets",
        "Number of targets that are scraped, by health: up, down, or unknown before the first scrape.";
    /// Targets that were discovered and are not scraped.
    ScrapeDroppedTargets: gauge of process ["pool"]
        "metrifold_scrape_dropped_targets",
        "Number of discovered targets that are not scraped, because rules drop them or they cannot be scraped.";
    /// Scrapes, by outcome.
    Scrapes: counter of process ["pool", "outcome"]
        "metrifold_scrapes_total",
        "Total number of scrapes, by outcome: success, or the reason of the failure.";
    /// Scrapes that were due while the previous one was in flight or undelivered.
    ScrapesMissed: counter of process ["pool"]
        "metrifold_scrapes_missed_total",
        "Total number of scrapes that were due while the previous one was in flight or not delivered.";
    /// Samples of pages that were left out, by reason.
    ScrapeSamplesLeftOut: counter of process ["pool", "reason"]
        "metrifold_scrape_samples_left_out_total",
        "Total number of scraped samples that were left out, by reason: duplicates, or too far in the future.";
    /// Requests and series over a limit of a tenant, by limit.
    TenantsOverLimit: counter of process ["limit"]
        "metrifold_tenants_over_limit_total",
        "Total number of requests, or series, over a limit of their tenant, by limit; with soft limits they were accepted.";
    /// Tenants of `tenants_file` that cannot be used.
    TenantsSetAside: gauge of process []
        "metrifold_tenants_set_aside",
        "Number of tenants of tenants_file that cannot be used, whose requests are answered 503.";
    /// Issuers whose keys cannot be fetched.
    IssuersFailing: gauge of process []
        "metrifold_issuers_failing",
        "Number of OpenID Connect issuers whose keys could not be fetched when this was last tried.";
    /// Age of the oldest keys that are used only because their issuer fails.
    IssuerKeysAge: gauge of process []
        "metrifold_issuer_keys_age_seconds",
        "Age of the oldest keys of an issuer that is failing, and +Inf if it was never reached; 0 while none is failing.";
}

impl Metric {
    pub(super) const fn name(self) -> &'static str {
        self.describe().name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one name that breaks the rules: the Observatorium proposal defines it.
    const EXCEPTION: &str = "remote_write_requests_count";

    #[test]
    fn names_end_in_their_unit_and_counters_in_total() {
        let units = ["_seconds", "_bytes", "_ratio", "_info"];
        for metric in Metric::ALL {
            let Described { name, kind, .. } = metric.describe();
            if name == EXCEPTION {
                continue;
            }
            assert_eq!(name.ends_with("_total"), kind == Type::Counter, "{name}");
            assert!(
                !name.ends_with("_count") && !name.ends_with("_sum"),
                "{name}"
            );
            for other in ["_ms", "_milliseconds", "_minutes", "_kb", "_mib"] {
                assert!(!name.contains(other), "{name}");
            }
            if kind == Type::Histogram {
                assert!(units.iter().any(|unit| name.ends_with(unit)), "{name}");
            }
        }
    }

    #[test]
    fn no_two_metrics_share_a_name() {
        let mut names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
