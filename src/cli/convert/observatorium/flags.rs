//! Flags of the Observatorium API that have no place in the configuration.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// The flags of this kind that were given.
#[derive(Debug, Default)]
pub(super) struct OtherFlags(Vec<&'static str>);

const ONLY_METRICS: &str = "only metrics are served";
const NO_ALERTMANAGER: &str = "the API of Alertmanager is not served";
const OWN_LIMITS: &str = "each process counts limits of its own, see `limits` of tenants";
const HEALTH: &str = "health is served at /-/healthy and /-/ready of [api]";
const LISTENER: &str = "see the keys of [listeners.public]";
const FOLLOWED: &str = "certificates are followed anyway";
const LOG: &str = "use the flags --log-level and --log-format of metrifold";
const RUNTIME: &str = "it belongs to the other program's runtime";
const STORE: &str = "see `timeout` of the sinks and of the source `read`";

/// Names of the flags, each with the reason why it is not converted.
const FLAGS: [(&str, &str); 63] = [
    ("debug.block-profile-rate", RUNTIME),
    ("debug.mutex-profile-fraction", RUNTIME),
    ("debug.name", RUNTIME),
    ("experimental.traces.read.endpoint-template", ONLY_METRICS),
    ("grpc.listen", ONLY_METRICS),
    ("internal.tracing.endpoint", RUNTIME),
    ("internal.tracing.endpoint-type", RUNTIME),
    ("internal.tracing.otlp-http-endpoint", RUNTIME),
    ("internal.tracing.sampling-fraction", RUNTIME),
    ("internal.tracing.service-name", RUNTIME),
    ("log.format", LOG),
    ("log.level", LOG),
    ("logs.auth.extract-selectors", ONLY_METRICS),
    ("logs.read.endpoint", ONLY_METRICS),
    ("logs.rules.endpoint", ONLY_METRICS),
    ("logs.rules.label-filters", ONLY_METRICS),
    ("logs.rules.read-only", ONLY_METRICS),
    ("logs.rules.tenant-label", ONLY_METRICS),
    ("logs.tail.endpoint", ONLY_METRICS),
    ("logs.tenant-header", ONLY_METRICS),
    ("logs.tls.ca-file", ONLY_METRICS),
    ("logs.tls.cert-file", ONLY_METRICS),
    ("logs.tls.key-file", ONLY_METRICS),
    ("logs.tls.watch-certs", ONLY_METRICS),
    ("logs.write-timeout", ONLY_METRICS),
    ("logs.write.endpoint", ONLY_METRICS),
    ("metrics.alertmanager.endpoint", NO_ALERTMANAGER),
    ("metrics.tls.watch-certs", FOLLOWED),
    ("metrics.write-timeout", STORE),
    (
        "middleware.backlog-duration-concurrent-requests",
        OWN_LIMITS,
    ),
    ("middleware.backlog-limit-concurrent-requests", OWN_LIMITS),
    ("middleware.concurrent-request-limit", OWN_LIMITS),
    ("middleware.rate-limiter.address", OWN_LIMITS),
    ("middleware.rate-limiter.grpc-address", OWN_LIMITS),
    ("middleware.rate-limiter.type", OWN_LIMITS),
    ("probes.endpoint", ONLY_METRICS),
    ("probes.tls.ca-file", ONLY_METRICS),
    ("probes.tls.cert-file", ONLY_METRICS),
    ("probes.tls.key-file", ONLY_METRICS),
    ("probes.tls.watch-certs", ONLY_METRICS),
    ("server.read-header-timeout", LISTENER),
    ("server.read-timeout", LISTENER),
    ("server.write-timeout", LISTENER),
    ("tls.cipher-suites", LISTENER),
    ("tls.client-auth-type", LISTENER),
    ("tls.healthchecks.server-ca-file", HEALTH),
    ("tls.healthchecks.server-name", HEALTH),
    (
        "tls.internal.server.cert-file",
        "[api] is served without TLS",
    ),
    (
        "tls.internal.server.key-file",
        "[api] is served without TLS",
    ),
    ("tls.max-version", LISTENER),
    ("tls.reload-interval", FOLLOWED),
    ("traces.query-rbac", ONLY_METRICS),
    ("traces.read.endpoint", ONLY_METRICS),
    ("traces.tempo.endpoint", ONLY_METRICS),
    ("traces.tenant-header", ONLY_METRICS),
    ("traces.tls.ca-file", ONLY_METRICS),
    ("traces.tls.cert-file", ONLY_METRICS),
    ("traces.tls.key-file", ONLY_METRICS),
    ("traces.tls.watch-certs", ONLY_METRICS),
    ("traces.write-timeout", ONLY_METRICS),
    ("traces.write.otlpgrpc.endpoint", ONLY_METRICS),
    ("traces.write.otlphttp.endpoint", ONLY_METRICS),
    ("web.healthchecks.url", HEALTH),
];

impl OtherFlags {
    /// A note for each of the flags.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let given = FLAGS.iter().filter(|(name, _)| self.0.contains(name));
        given.map(|(name, reason)| format!("--{name} is not converted: {reason}"))
    }
}

impl Args for OtherFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, (name, _)| {
            // Flags that are true or false may stand without a value.
            let flag = Arg::new(*name).long(*name).num_args(0..=1);
            command.arg(flag.action(ArgAction::Append).hide(true))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OtherFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        let names = FLAGS.iter().map(|(name, _)| *name);
        Ok(Self(names.filter(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
