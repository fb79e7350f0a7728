//! The metrics of the process: the one table of their names, types, labels and meanings.
//!
//! What is recorded is held against it in builds with debug assertions, and the table in
//! `docs/operations.md` by a test.

/// What is recorded of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A count that only goes up.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// How long things took, by buckets.
    Histogram,
}

/// Whose a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A component's: it has the labels `component_id`, `component_kind` and `component_type`.
    Component,
    /// The process's: it has none of these.
    Process,
}

/// A metric's name, type, scope, labels and help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name, with the unit at its end.
    pub name: &'static str,
    /// Whether it is a counter, a gauge or a histogram.
    pub kind: Type,
    /// Whose it is.
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

            /// What there is to know of it.
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
        "Batches that a component received.";
    /// Samples (float and histogram) that came in, of batches that were decoded.
    ReceivedSamples: counter of component []
        "metrifold_component_received_samples_total",
        "Samples, float and histogram, that a component received in batches that were decoded.";
    /// Encoded bytes that came in.
    ReceivedBytes: counter of component []
        "metrifold_component_received_bytes_total",
        "Bytes that a component received: its share of the compressed bodies that came to a source.";
    /// Batches that went out.
    SentBatches: counter of component []
        "metrifold_component_sent_batches_total",
        "Batches that a component sent.";
    /// Samples that went out, of batches that were decoded.
    SentSamples: counter of component []
        "metrifold_component_sent_samples_total",
        "Samples, float and histogram, that a component sent in batches that were decoded.";
    /// Encoded bytes that went out.
    SentBytes: counter of component []
        "metrifold_component_sent_bytes_total",
        "Bytes that a component sent: as received, and for a sink those that went over the wire.";
    /// Samples that did not go on, by reason.
    DiscardedSamples: counter of component ["reason"]
        "metrifold_component_discarded_samples_total",
        "Samples that went no further, by reason.";
    /// Batches that did not go on, by reason.
    DiscardedBatches: counter of component ["reason"]
        "metrifold_component_discarded_batches_total",
        "Batches that went no further, by reason.";
    /// Exemplars that did not go on, by reason, though their series' samples did.
    DiscardedExemplars: counter of component ["reason"]
        "metrifold_component_discarded_exemplars_total",
        "Exemplars that went no further though the samples did, by reason.";
    /// Metadata of families that did not go on, by reason.
    DiscardedMetadata: counter of component ["reason"]
        "metrifold_component_discarded_metadata_total",
        "Metadata of metric families that went no further, by reason.";
    /// Requests and series over a limit of the transform `limit`, by limit.
    OverLimit: counter of component ["limit"]
        "metrifold_component_over_limit_total",
        "Requests, or series, that were over a limit of the transform limit, by limit; with soft limits they went on all the same.";
    /// Things that went wrong, by kind.
    Errors: counter of component ["error_type"]
        "metrifold_component_errors_total",
        "Errors of a component, by kind.";
    /// How often a component was built anew after it had died.
    Restarts: counter of component []
        "metrifold_component_restarts_total",
        "How often a component was built anew after it had died.";
    /// 1 while the component runs.
    Up: gauge of component []
        "metrifold_component_up",
        "1 while the component runs, 0 while it waits to be built anew.";
    /// Bytes in a sink's queue.
    QueueBytes: gauge of component []
        "metrifold_queue_bytes",
        "Bytes in a sink's queue, those of batches being sent included.";
    /// The bound on the bytes in a sink's queue.
    QueueMaxBytes: gauge of component []
        "metrifold_queue_max_bytes",
        "The bound on the bytes in a sink's queue.";
    /// Batches that wait in a sink's queue.
    QueueBatches: gauge of component []
        "metrifold_queue_batches",
        "Batches that wait in a sink's queue.";
    /// Samples in a queue on disk.
    DiskSamples: gauge of component []
        "metrifold_queue_disk_samples",
        "Samples in a queue on disk, of batches that were decoded.";
    /// Batches in a queue on disk.
    DiskBatches: gauge of component []
        "metrifold_queue_disk_batches",
        "Batches in a queue on disk.";
    /// Bytes that a queue takes on disk.
    DiskBytes: gauge of component []
        "metrifold_queue_disk_bytes",
        "Bytes that the files of a queue on disk take.";
    /// The bound on the bytes that a queue takes on disk.
    DiskMaxBytes: gauge of component []
        "metrifold_queue_disk_max_bytes",
        "The bound on the bytes that the files of a queue on disk take.";
    /// How long ago the oldest batch on disk was accepted.
    DiskOldest: gauge of component []
        "metrifold_queue_disk_oldest_seconds",
        "How long ago the oldest batch in a queue on disk was accepted; 0 if there is none.";
    /// How long draining a queue on disk takes at the present rate.
    DiskDrain: gauge of component []
        "metrifold_queue_disk_drain_seconds",
        "How long it takes to deliver what is on disk at the present rate; infinite if nothing goes.";
    /// How often a queue on disk was made durable.
    DiskSyncs: counter of component []
        "metrifold_queue_disk_fsyncs_total",
        "How often segments of a queue on disk were made durable.";
    /// Batches on disk that were lost to damage.
    DiskCorrupt: counter of component []
        "metrifold_queue_disk_corrupt_batches_total",
        "Batches in a queue on disk that were lost to damage.";
    /// Samples that came to a sink, by tenant.
    LedgerReceivedSamples: counter of component ["tenant"]
        "metrifold_ledger_received_samples_total",
        "Samples that came to a sink, in batches that were counted; by tenant.";
    /// Batches that came to a sink, by tenant.
    LedgerReceivedBatches: counter of component ["tenant"]
        "metrifold_ledger_received_batches_total",
        "Batches that came to a sink, by tenant.";
    /// Those of them whose samples nobody has counted.
    LedgerUncountedBatches: counter of component ["tenant"]
        "metrifold_ledger_uncounted_batches_total",
        "Batches that came to a sink and whose samples nobody has counted, by tenant.";
    /// Samples that a sink has delivered, by tenant.
    LedgerDeliveredSamples: counter of component ["tenant"]
        "metrifold_ledger_delivered_samples_total",
        "Samples that a sink has delivered, in batches that were counted; by tenant.";
    /// Batches that a sink has delivered, by tenant.
    LedgerDeliveredBatches: counter of component ["tenant"]
        "metrifold_ledger_delivered_batches_total",
        "Batches that a sink has delivered, by tenant.";
    /// Samples that a sink has given up, by tenant and reason.
    LedgerDroppedSamples: counter of component ["tenant", "reason"]
        "metrifold_ledger_dropped_samples_total",
        "Samples that a sink has given up, in batches that were counted; by tenant and reason.";
    /// Batches that a sink has given up, by tenant and reason.
    LedgerDroppedBatches: counter of component ["tenant", "reason"]
        "metrifold_ledger_dropped_batches_total",
        "Batches that a sink has given up, by tenant and reason.";
    /// Samples that a sink still has, by tenant.
    LedgerQueuedSamples: gauge of component ["tenant"]
        "metrifold_ledger_queued_samples",
        "Samples that a sink still has, in batches that were counted; by tenant.";
    /// Batches that a sink still has, by tenant.
    LedgerQueuedBatches: gauge of component ["tenant"]
        "metrifold_ledger_queued_batches",
        "Batches that a sink still has, by tenant.";
    /// Bytes that a sink still has, by tenant.
    LedgerQueuedBytes: gauge of component ["tenant"]
        "metrifold_ledger_queued_bytes",
        "Encoded bytes that a sink still has, by tenant.";
    /// How long ago the oldest of it came.
    LedgerOldest: gauge of component []
        "metrifold_ledger_oldest_seconds",
        "How long ago the oldest came that a sink still has; 0 if it has nothing.";
    /// How long delivering it takes at the present rate.
    LedgerDrain: gauge of component []
        "metrifold_ledger_drain_seconds",
        "How long it takes to deliver what a sink still has at the present rate; infinite if nothing goes.";
    /// From a batch's arrival in the queue to its end, in seconds.
    DeliverySeconds: histogram of component []
        "metrifold_delivery_duration_seconds",
        "From a batch's arrival in a sink's queue to its end.";
    /// Requests to a source, by status.
    SourceRequests: counter of component ["code"]
        "metrifold_source_requests_total",
        "Requests to a source, by status code.";
    /// Requests that a source refused since memory is short, by reason.
    RefusedRequests: counter of component ["reason"]
        "metrifold_source_refused_requests_total",
        "Requests that a source refused since memory is short, by reason.";
    /// `memory_limit`.
    MemoryLimit: gauge of process []
        "metrifold_memory_limit_bytes",
        "The memory that the process may take; 0 without a limit.";
    /// The memory of the process, as the system measures it.
    MemoryResident: gauge of process []
        "metrifold_memory_resident_bytes",
        "The memory that the process takes, as the system measures it.";
    /// What requests that are worked on may need.
    MemoryRequests: gauge of process []
        "metrifold_memory_requests_bytes",
        "The memory that requests may need that are being worked on.";
    /// The bound on that.
    MemoryRequestsMax: gauge of process []
        "metrifold_memory_requests_max_bytes",
        "What the limit leaves to requests; 0 without a limit.";
    /// Bytes of all requests in flight.
    InFlight: gauge of process []
        "metrifold_in_flight_bytes",
        "Bytes of all requests in flight, compressed and decoded.";
    /// The bound on that.
    InFlightMax: gauge of process []
        "metrifold_in_flight_max_bytes",
        "The bound on the bytes of all requests in flight; 0 without one.";
    /// Remote-write requests by endpoint and status, as the Observatorium proposal names them.
    RemoteWriteRequests: counter of process ["name", "code"]
        "remote_write_requests_count",
        "Remote-write requests to an endpoint, by status code; <error> when there was no answer.";
    /// The same, as the proxy of Observatorium names it that runs today.
    RemoteWriteRequestsTotal: counter of process ["proxy", "code", "name"]
        "remote_write_requests_total",
        "Remote-write requests to an endpoint, by status code; <error> when there was no answer.";
    /// Attempts after the first.
    Retries: counter of component []
        "metrifold_component_retries_total",
        "Attempts to deliver a batch after the first.";
    /// Queues on disk that no sink reads.
    OrphanedQueues: gauge of process []
        "metrifold_orphaned_queues",
        "Queues on disk that hold something and that no sink reads.";
    /// What is in them.
    OrphanedBatches: gauge of process []
        "metrifold_orphaned_queue_batches",
        "Batches in queues on disk that no sink reads.";
    /// For how long a sink's requests have failed.
    FailingSeconds: gauge of component []
        "metrifold_sink_failing_seconds",
        "For how long requests to a sink's endpoint have failed without one that did not; 0 if the last one did not.";
    /// Requests to a listener that were refused, by status.
    ListenerRefused: counter of process ["address", "code"]
        "metrifold_listener_refused_requests_total",
        "Requests to a listener that were refused by Metrifold, by status; <tls> for failed handshakes.";
    /// When a listener's certificate expires.
    CertificateExpiry: gauge of process ["address"]
        "metrifold_listener_certificate_expiry_timestamp_seconds",
        "When the certificate that a listener shows expires, in seconds since 1970.";
    /// Requests that may be under way at once.
    Connections: gauge of component []
        "metrifold_sink_connections",
        "Requests that a sink may have under way at once at present.";
    /// Dead letters that a sink keeps.
    DeadLetters: gauge of component []
        "metrifold_dead_letters",
        "Dead letters that a sink keeps.";
    /// What they take on disk.
    DeadLetterBytes: gauge of component []
        "metrifold_dead_letters_bytes",
        "What a sink's dead letters take on disk.";
    /// Dead letters that are not kept, or no more, by reason.
    DeadLettersDropped: counter of component ["reason"]
        "metrifold_dead_letters_dropped_total",
        "Dead letters that were not kept, or are kept no more, by reason.";
    /// The version that runs.
    BuildInfo: gauge of process ["version"]
        "metrifold_build_info",
        "Always 1; the version is a label.";
    /// Processor time, as Prometheus' clients name it, and so the next six.
    ProcessCpu: counter of process []
        "process_cpu_seconds_total",
        "Time that the process has had a processor, in user and in kernel mode.";
    /// Resident memory.
    ProcessResident: gauge of process []
        "process_resident_memory_bytes",
        "Resident memory of the process.";
    /// Virtual memory.
    ProcessVirtual: gauge of process []
        "process_virtual_memory_bytes",
        "Virtual memory of the process.";
    /// Open descriptors.
    ProcessOpenFds: gauge of process []
        "process_open_fds",
        "File descriptors that the process has open, connections among them.";
    /// The soft limit on them.
    ProcessMaxFds: gauge of process []
        "process_max_fds",
        "File descriptors that the process may have open.";
    /// Threads.
    ProcessThreads: gauge of process []
        "process_threads",
        "Threads of the process.";
    /// When the process started.
    ProcessStartTime: gauge of process []
        "process_start_time_seconds",
        "When the process started, in seconds since the epoch.";
    /// When the process started, in seconds since the epoch.
    StartTime: gauge of process []
        "metrifold_start_time_seconds",
        "When the process started, in seconds since the epoch.";
    /// Whether the last reload succeeded.
    ReloadSuccessful: gauge of process []
        "metrifold_config_last_reload_successful",
        "1 unless the last attempt to reload the configuration was refused.";
    /// When a configuration was last taken, in seconds since the epoch.
    ReloadTime: gauge of process []
        "metrifold_config_last_reload_success_timestamp_seconds",
        "When a configuration was last loaded with success, in seconds since the epoch.";
    /// The hash of the configuration.
    ConfigHash: gauge of process []
        "metrifold_config_hash",
        "The last 48 bits of the hash of the configuration that runs.";
    /// Reloads, by outcome.
    Reloads: counter of process ["outcome"]
        "metrifold_config_reloads_total",
        "Attempts to reload the configuration, by outcome.";
    /// Queries, by the code of what they came to.
    Queries: counter of component ["code"]
        "metrifold_component_queries_total",
        "Queries that a component has seen to their answer or refusal, by code.";
    /// From a query's arrival at a sink to the head of its answer, in seconds.
    QuerySeconds: histogram of component []
        "metrifold_component_query_duration_seconds",
        "From a query's arrival at a sink to the head of its answer.";
    /// Queries that a sink is answering.
    QueriesInFlight: gauge of component []
        "metrifold_component_queries_in_flight",
        "Queries that a sink is answering, streaming included.";
    /// 1 while a replica may be asked.
    ReplicaUp: gauge of process ["sink", "replica"]
        "metrifold_replica_up",
        "1 while a replica may be asked, 0 while its probes or its requests fail.";
    /// 1 while a replica is worth asking.
    ReplicaSelected: gauge of process ["sink", "replica"]
        "metrifold_replica_selected",
        "1 while the strategy finds a replica worth asking, 0 otherwise.";
    /// Requests to a replica, by what became of them.
    ReplicaRequests: counter of process ["sink", "replica", "outcome"]
        "metrifold_replica_requests_total",
        "Requests to a replica: answered, failed by its fault, or cancelled.";
    /// Queries that were sent to another replica since this one failed.
    ReplicaRetries: counter of process ["sink", "replica"]
        "metrifold_replica_retries_total",
        "Queries that were sent again since this replica failed.";
    /// Queries that were sent to another replica besides since this one was slow.
    ReplicaHedges: counter of process ["sink", "replica"]
        "metrifold_replica_hedges_total",
        "Queries that were sent to another replica besides since this one was slow.";
    /// Rule sets that a component has passed on.
    RulesPublished: counter of component []
        "metrifold_component_rule_sets_total",
        "Complete rule sets that a source has published, or a sink has taken over.";
    /// Tenants in the newest rule set.
    RuleTenants: gauge of component []
        "metrifold_component_rule_tenants",
        "Tenants in the newest rule set of a component.";
    /// 1 while a provider of targets runs.
    DiscoveryUp: gauge of process ["discovery", "type"]
        "metrifold_discovery_up",
        "1 while a provider of targets runs, 0 while it waits to be built anew.";
    /// Targets that a provider knows.
    DiscoveryTargets: gauge of process ["discovery", "type"]
        "metrifold_discovery_targets",
        "Targets that a provider knows.";
    /// Whether some of a provider's targets are older than its last attempt.
    DiscoveryStale: gauge of process ["discovery", "type"]
        "metrifold_discovery_stale",
        "1 while some of a provider's targets are those of an answer before the last attempt, 0 otherwise.";
    /// When a provider last had an answer from all of its sources, in seconds since the epoch.
    DiscoveryAnswered: gauge of process ["discovery", "type"]
        "metrifold_discovery_last_success_time_seconds",
        "When a provider last had an answer from all of its sources, in seconds since the epoch; 0 if never.";
    /// Attempts of a provider to learn its targets.
    DiscoveryAttempts: counter of process ["discovery", "type"]
        "metrifold_discovery_refreshes_total",
        "Attempts of a provider to learn its targets.";
    /// Sources that gave a provider no answer, by reason.
    DiscoveryFailures: counter of process ["discovery", "type", "reason"]
        "metrifold_discovery_failures_total",
        "Sources that gave a provider no answer that could be taken, by reason.";
    /// Targets that a publisher publishes.
    PublishTargets: gauge of process ["publish"]
        "metrifold_publish_targets",
        "Targets that are published.";
    /// Targets that the rules of a publisher drop.
    PublishDropped: gauge of process ["publish"]
        "metrifold_publish_dropped_targets",
        "Targets that are not published, since rules drop them or leave them without an address.";
    /// When a publisher last wrote its file, in seconds since the epoch.
    PublishWritten: gauge of process ["publish"]
        "metrifold_publish_last_write_time_seconds",
        "When the published file was last written, in seconds since the epoch; 0 if never.";
    /// Attempts to write a published file that failed.
    PublishFailures: counter of process ["publish"]
        "metrifold_publish_failures_total",
        "Attempts to write the published file that failed.";
    /// Attempts to read a project.
    AivenFetches: counter of process ["discovery"]
        "metrifold_aiven_fetches_total",
        "Attempts of a provider of Aiven's services to read a project.";
    /// Attempts to read a project that failed.
    AivenFetchFailures: counter of process ["discovery"]
        "metrifold_aiven_fetch_failures_total",
        "Attempts to read a project that failed.";
    /// Integrations that were created.
    AivenCreated: counter of process ["discovery"]
        "metrifold_aiven_integrations_created_total",
        "Services that were given the Prometheus integration.";
    /// Changes that failed.
    AivenChangeFailures: counter of process ["discovery"]
        "metrifold_aiven_change_failures_total",
        "Changes at Aiven that failed.";
    /// Names of services that were resolved.
    AivenResolves: counter of process ["discovery"]
        "metrifold_aiven_resolves_total",
        "Attempts to resolve the name of a service.";
    /// Names of services that could not be resolved.
    AivenResolveFailures: counter of process ["discovery"]
        "metrifold_aiven_resolve_failures_total",
        "Attempts to resolve the name of a service that failed.";
    /// Changes that the plan has.
    AivenPlanned: gauge of process ["discovery"]
        "metrifold_aiven_planned_changes",
        "Changes that the newest plan has.";
    /// Whether this instance makes the changes.
    AivenLeads: gauge of process ["discovery"]
        "metrifold_aiven_leader",
        "Whether this instance makes the changes: 1 if so, 0 otherwise.";
    /// Targets of a pool, by health.
    ScrapeTargets: gauge of process ["pool", "health"]
        "metrifold_scrape_targets",
        "Targets that are scraped, by health: up, down, or unknown before the first scrape.";
    /// Targets that were discovered and are not scraped.
    ScrapeDroppedTargets: gauge of process ["pool"]
        "metrifold_scrape_dropped_targets",
        "Targets that were discovered and are not scraped, since rules drop them or they cannot be.";
    /// Scrapes, by what came of them.
    Scrapes: counter of process ["pool", "outcome"]
        "metrifold_scrapes_total",
        "Scrapes by what came of them: success, or why they failed.";
    /// Scrapes that were due while the one before was not done.
    ScrapesMissed: counter of process ["pool"]
        "metrifold_scrapes_missed_total",
        "Scrapes that were due while the one before was not done, or its batch not delivered.";
    /// Samples of pages that were left out, by reason.
    ScrapeSamplesLeftOut: counter of process ["pool", "reason"]
        "metrifold_scrape_samples_left_out_total",
        "Samples of pages that were left out: duplicates, and those too far in the future.";
    /// Requests and series over a limit of a tenant, by limit.
    TenantsOverLimit: counter of process ["limit"]
        "metrifold_tenants_over_limit_total",
        "Requests, or series, that were over a limit of their tenant under [tenants.NAME.limits] or [access.limits], by limit; with soft limits they went on all the same.";
}

impl Metric {
    pub(super) const fn name(self) -> &'static str {
        self.describe().name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one metric that is named against the rules: by the Observatorium proposal.
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
