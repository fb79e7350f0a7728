//! The metrics of the process, each with its name and what it means.

/// The metrics of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Batches that came in.
    ReceivedBatches,
    /// Samples (float and histogram) that came in, of batches that were decoded.
    ReceivedSamples,
    /// Encoded bytes that came in.
    ReceivedBytes,
    /// Batches that went out.
    SentBatches,
    /// Samples that went out, of batches that were decoded.
    SentSamples,
    /// Encoded bytes that went out.
    SentBytes,
    /// Samples that did not go on, by reason.
    DiscardedSamples,
    /// Batches that did not go on, by reason.
    DiscardedBatches,
    /// Things that went wrong, by kind.
    Errors,
    /// How often a component was built anew after it had died.
    Restarts,
    /// 1 while the component runs.
    Up,
    /// Bytes in a sink's queue.
    QueueBytes,
    /// The bound on the bytes in a sink's queue.
    QueueMaxBytes,
    /// Batches that wait in a sink's queue.
    QueueBatches,
    /// Samples in a queue on disk.
    DiskSamples,
    /// Batches in a queue on disk.
    DiskBatches,
    /// Bytes that a queue takes on disk.
    DiskBytes,
    /// The bound on the bytes that a queue takes on disk.
    DiskMaxBytes,
    /// How long ago the oldest batch on disk was accepted.
    DiskOldest,
    /// How long draining a queue on disk takes at the present rate.
    DiskDrain,
    /// How often a queue on disk was made durable.
    DiskSyncs,
    /// Batches on disk that were lost to damage.
    DiskCorrupt,
    /// Samples that came to a sink, by tenant.
    LedgerReceivedSamples,
    /// Batches that came to a sink, by tenant.
    LedgerReceivedBatches,
    /// Those of them whose samples nobody has counted.
    LedgerUncountedBatches,
    /// Samples that a sink has delivered, by tenant.
    LedgerDeliveredSamples,
    /// Batches that a sink has delivered, by tenant.
    LedgerDeliveredBatches,
    /// Samples that a sink has given up, by tenant and reason.
    LedgerDroppedSamples,
    /// Batches that a sink has given up, by tenant and reason.
    LedgerDroppedBatches,
    /// Samples that a sink still has, by tenant.
    LedgerQueuedSamples,
    /// Batches that a sink still has, by tenant.
    LedgerQueuedBatches,
    /// Bytes that a sink still has, by tenant.
    LedgerQueuedBytes,
    /// How long ago the oldest of it came.
    LedgerOldest,
    /// How long delivering it takes at the present rate.
    LedgerDrain,
    /// From a batch's arrival in the queue to its end, in seconds.
    DeliverySeconds,
    /// Requests to a source, by status.
    SourceRequests,
    /// Requests that a source refused since memory is short, by reason.
    RefusedRequests,
    /// `memory_limit`.
    MemoryLimit,
    /// The memory of the process, as the system measures it.
    MemoryResident,
    /// What requests that are worked on may need.
    MemoryRequests,
    /// The bound on that.
    MemoryRequestsMax,
    /// Bytes of all requests in flight.
    InFlight,
    /// The bound on that.
    InFlightMax,
    /// Remote-write requests by endpoint and status, as the Observatorium proposal names them.
    RemoteWriteRequests,
    /// Attempts after the first.
    Retries,
    /// Requests that may be under way at once.
    Connections,
    /// Dead letters that a sink keeps.
    DeadLetters,
    /// What they take on disk.
    DeadLetterBytes,
    /// Dead letters that are not kept, or no more, by reason.
    DeadLettersDropped,
    /// The version that runs.
    BuildInfo,
    /// When the process started, in seconds since the epoch.
    StartTime,
    /// Whether the last reload succeeded.
    ReloadSuccessful,
    /// When a configuration was last taken, in seconds since the epoch.
    ReloadTime,
    /// The hash of the configuration.
    ConfigHash,
    /// Reloads, by outcome.
    Reloads,
    /// Queries, by the code of what they came to.
    Queries,
    /// From a query's arrival at a sink to the head of its answer, in seconds.
    QuerySeconds,
    /// Queries that a sink is answering.
    QueriesInFlight,
    /// Rule sets that a component has passed on.
    RulesPublished,
    /// Tenants in the newest rule set.
    RuleTenants,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 60] = [
        Self::ReceivedBatches,
        Self::ReceivedSamples,
        Self::ReceivedBytes,
        Self::SentBatches,
        Self::SentSamples,
        Self::SentBytes,
        Self::DiscardedSamples,
        Self::DiscardedBatches,
        Self::Errors,
        Self::Restarts,
        Self::Up,
        Self::QueueBytes,
        Self::QueueMaxBytes,
        Self::QueueBatches,
        Self::DiskSamples,
        Self::DiskBatches,
        Self::DiskBytes,
        Self::DiskMaxBytes,
        Self::DiskOldest,
        Self::DiskDrain,
        Self::DiskSyncs,
        Self::DiskCorrupt,
        Self::LedgerReceivedSamples,
        Self::LedgerReceivedBatches,
        Self::LedgerUncountedBatches,
        Self::LedgerDeliveredSamples,
        Self::LedgerDeliveredBatches,
        Self::LedgerDroppedSamples,
        Self::LedgerDroppedBatches,
        Self::LedgerQueuedSamples,
        Self::LedgerQueuedBatches,
        Self::LedgerQueuedBytes,
        Self::LedgerOldest,
        Self::LedgerDrain,
        Self::DeliverySeconds,
        Self::SourceRequests,
        Self::RefusedRequests,
        Self::MemoryLimit,
        Self::MemoryResident,
        Self::MemoryRequests,
        Self::MemoryRequestsMax,
        Self::InFlight,
        Self::InFlightMax,
        Self::RemoteWriteRequests,
        Self::Retries,
        Self::Connections,
        Self::DeadLetters,
        Self::DeadLetterBytes,
        Self::DeadLettersDropped,
        Self::BuildInfo,
        Self::StartTime,
        Self::ReloadSuccessful,
        Self::ReloadTime,
        Self::ConfigHash,
        Self::Reloads,
        Self::Queries,
        Self::QuerySeconds,
        Self::QueriesInFlight,
        Self::RulesPublished,
        Self::RuleTenants,
    ];

    /// Its name and what it means.
    pub const fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::ReceivedBatches => (
                "metrifold_component_received_batches_total",
                "Batches that a component received.",
            ),
            Self::ReceivedSamples => (
                "metrifold_component_received_samples_total",
                "Samples, float and histogram, that a component received in batches that were decoded.",
            ),
            Self::ReceivedBytes => (
                "metrifold_component_received_bytes_total",
                "Encoded bytes that a component received.",
            ),
            Self::SentBatches => (
                "metrifold_component_sent_batches_total",
                "Batches that a component sent.",
            ),
            Self::SentSamples => (
                "metrifold_component_sent_samples_total",
                "Samples, float and histogram, that a component sent in batches that were decoded.",
            ),
            Self::SentBytes => (
                "metrifold_component_sent_bytes_total",
                "Encoded bytes that a component sent.",
            ),
            Self::DiscardedSamples => (
                "metrifold_component_discarded_samples_total",
                "Samples that went no further, by reason.",
            ),
            Self::DiscardedBatches => (
                "metrifold_component_discarded_batches_total",
                "Batches that went no further, by reason.",
            ),
            Self::Errors => (
                "metrifold_component_errors_total",
                "Errors of a component, by kind.",
            ),
            Self::Restarts => (
                "metrifold_component_restarts_total",
                "How often a component was built anew after it had died.",
            ),
            Self::Up => (
                "metrifold_component_up",
                "1 while the component runs, 0 while it waits to be built anew.",
            ),
            Self::QueueBytes => (
                "metrifold_queue_bytes",
                "Bytes in a sink's queue, those of batches being sent included.",
            ),
            Self::QueueMaxBytes => (
                "metrifold_queue_max_bytes",
                "The bound on the bytes in a sink's queue.",
            ),
            Self::QueueBatches => (
                "metrifold_queue_batches",
                "Batches that wait in a sink's queue.",
            ),
            Self::DiskSamples => (
                "metrifold_queue_disk_samples",
                "Samples in a queue on disk, of batches that were decoded.",
            ),
            Self::DiskBatches => (
                "metrifold_queue_disk_batches",
                "Batches in a queue on disk.",
            ),
            Self::DiskBytes => (
                "metrifold_queue_disk_bytes",
                "Bytes that the files of a queue on disk take.",
            ),
            Self::DiskMaxBytes => (
                "metrifold_queue_disk_max_bytes",
                "The bound on the bytes that the files of a queue on disk take.",
            ),
            Self::DiskOldest => (
                "metrifold_queue_disk_oldest_seconds",
                "How long ago the oldest batch in a queue on disk was accepted; 0 if there is none.",
            ),
            Self::DiskDrain => (
                "metrifold_queue_disk_drain_seconds",
                "How long it takes to deliver what is on disk at the present rate; infinite if nothing goes.",
            ),
            Self::DiskSyncs => (
                "metrifold_queue_disk_fsyncs_total",
                "How often segments of a queue on disk were made durable.",
            ),
            Self::DiskCorrupt => (
                "metrifold_queue_disk_corrupt_batches_total",
                "Batches in a queue on disk that were lost to damage.",
            ),
            Self::LedgerReceivedSamples => (
                "metrifold_ledger_received_samples_total",
                "Samples that came to a sink, in batches that were counted; by tenant.",
            ),
            Self::LedgerReceivedBatches => (
                "metrifold_ledger_received_batches_total",
                "Batches that came to a sink, by tenant.",
            ),
            Self::LedgerUncountedBatches => (
                "metrifold_ledger_uncounted_batches_total",
                "Batches that came to a sink and whose samples nobody has counted, by tenant.",
            ),
            Self::LedgerDeliveredSamples => (
                "metrifold_ledger_delivered_samples_total",
                "Samples that a sink has delivered, in batches that were counted; by tenant.",
            ),
            Self::LedgerDeliveredBatches => (
                "metrifold_ledger_delivered_batches_total",
                "Batches that a sink has delivered, by tenant.",
            ),
            Self::LedgerDroppedSamples => (
                "metrifold_ledger_dropped_samples_total",
                "Samples that a sink has given up, in batches that were counted; by tenant and reason.",
            ),
            Self::LedgerDroppedBatches => (
                "metrifold_ledger_dropped_batches_total",
                "Batches that a sink has given up, by tenant and reason.",
            ),
            Self::LedgerQueuedSamples => (
                "metrifold_ledger_queued_samples",
                "Samples that a sink still has, in batches that were counted; by tenant.",
            ),
            Self::LedgerQueuedBatches => (
                "metrifold_ledger_queued_batches",
                "Batches that a sink still has, by tenant.",
            ),
            Self::LedgerQueuedBytes => (
                "metrifold_ledger_queued_bytes",
                "Encoded bytes that a sink still has, by tenant.",
            ),
            Self::LedgerOldest => (
                "metrifold_ledger_oldest_seconds",
                "How long ago the oldest came that a sink still has; 0 if it has nothing.",
            ),
            Self::LedgerDrain => (
                "metrifold_ledger_drain_seconds",
                "How long it takes to deliver what a sink still has at the present rate; infinite if nothing goes.",
            ),
            Self::DeliverySeconds => (
                "metrifold_delivery_duration_seconds",
                "From a batch's arrival in a sink's queue to its end.",
            ),
            Self::SourceRequests => (
                "metrifold_source_requests_total",
                "Requests to a source, by status code.",
            ),
            Self::RefusedRequests => (
                "metrifold_source_refused_requests_total",
                "Requests that a source refused since memory is short, by reason.",
            ),
            Self::MemoryLimit => (
                "metrifold_memory_limit_bytes",
                "The memory that the process may take; 0 without a limit.",
            ),
            Self::MemoryResident => (
                "metrifold_memory_resident_bytes",
                "The memory that the process takes, as the system measures it.",
            ),
            Self::MemoryRequests => (
                "metrifold_memory_requests_bytes",
                "The memory that requests may need that are being worked on.",
            ),
            Self::MemoryRequestsMax => (
                "metrifold_memory_requests_max_bytes",
                "What the limit leaves to requests; 0 without a limit.",
            ),
            Self::InFlight => (
                "metrifold_in_flight_bytes",
                "Bytes of all requests in flight, compressed and decoded.",
            ),
            Self::InFlightMax => (
                "metrifold_in_flight_max_bytes",
                "The bound on the bytes of all requests in flight; 0 without one.",
            ),
            Self::RemoteWriteRequests => (
                "remote_write_requests_count",
                "Remote-write requests to an endpoint, by status code; <error> when there was no answer.",
            ),
            Self::Retries => (
                "metrifold_component_retries_total",
                "Attempts to deliver a batch after the first.",
            ),
            Self::Connections => (
                "metrifold_sink_connections",
                "Requests that a sink may have under way at once at present.",
            ),
            Self::DeadLetters => ("metrifold_dead_letters", "Dead letters that a sink keeps."),
            Self::DeadLetterBytes => (
                "metrifold_dead_letters_bytes",
                "What a sink's dead letters take on disk.",
            ),
            Self::DeadLettersDropped => (
                "metrifold_dead_letters_dropped_total",
                "Dead letters that were not kept, or are kept no more, by reason.",
            ),
            Self::BuildInfo => ("metrifold_build_info", "Always 1; the version is a label."),
            Self::StartTime => (
                "metrifold_start_time_seconds",
                "When the process started, in seconds since the epoch.",
            ),
            Self::ReloadSuccessful => (
                "metrifold_config_last_reload_successful",
                "1 unless the last attempt to reload the configuration was refused.",
            ),
            Self::ReloadTime => (
                "metrifold_config_last_reload_success_timestamp_seconds",
                "When a configuration was last loaded with success, in seconds since the epoch.",
            ),
            Self::ConfigHash => (
                "metrifold_config_hash",
                "The last 48 bits of the hash of the configuration that runs.",
            ),
            Self::Reloads => (
                "metrifold_config_reloads_total",
                "Attempts to reload the configuration, by outcome.",
            ),
            Self::Queries => (
                "metrifold_component_queries_total",
                "Queries that a component has seen to their answer or refusal, by code.",
            ),
            Self::QuerySeconds => (
                "metrifold_component_query_duration_seconds",
                "From a query's arrival at a sink to the head of its answer.",
            ),
            Self::QueriesInFlight => (
                "metrifold_component_queries_in_flight",
                "Queries that a sink is answering, streaming included.",
            ),
            Self::RulesPublished => (
                "metrifold_component_rule_sets_total",
                "Complete rule sets that a source has published, or a sink has taken over.",
            ),
            Self::RuleTenants => (
                "metrifold_component_rule_tenants",
                "Tenants in the newest rule set of a component.",
            ),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        self.describe().0
    }
}
