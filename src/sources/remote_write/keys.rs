//! The source's keys, as the command line and the reference pages tell of them.

use metrifold_base::Key;

pub(super) const KEYS: &[Key] = &[
    Key::required(
        "address",
        "\"0.0.0.0:9201\"",
        "Address to listen on. Sources with the same address share one listener; they must agree on `tls`, `max_connections`, `header_timeout` and `idle_timeout`.",
    ),
    Key::value(
        "path",
        "\"/api/v1/write\"",
        "Path to receive on. `{name}` matches one segment, which the `tenant` transform can take.",
    ),
    Key::unset(
        "tls.cert_file",
        "\"/etc/metrifold/tls.crt\"",
        "Certificate chain in PEM. With it, callers must use TLS.",
    ),
    Key::unset(
        "tls.key_file",
        "\"/etc/metrifold/tls.key\"",
        "Private key in PEM.",
    ),
    Key::unset(
        "tls.client_ca_file",
        "\"/etc/metrifold/client-ca.crt\"",
        "Certificate authority in PEM. With it, callers must present a certificate that it signed.",
    ),
    Key::unset(
        "basic_auth.username",
        "\"prometheus\"",
        "User name that callers must send.",
    ),
    Key::unset(
        "basic_auth.password",
        "\"${WRITE_PASSWORD}\"",
        "Password that callers must send.",
    ),
    Key::unset(
        "basic_auth.password_file",
        "\"/etc/metrifold/password\"",
        "File with the password, instead of `password`.",
    ),
    Key::unset(
        "authorization.type",
        "\"Bearer\"",
        "Scheme of the `Authorization` header that callers must send.",
    ),
    Key::unset(
        "authorization.credentials",
        "\"${WRITE_TOKEN}\"",
        "Credentials that callers must send.",
    ),
    Key::unset(
        "authorization.credentials_file",
        "\"/etc/metrifold/token\"",
        "File with the credentials, instead of `credentials`.",
    ),
    Key::value(
        "acknowledge",
        "\"stored\"",
        "When a sender is told that all is well: `stored` (every required sink has delivered the batch or has it on disk), `delivered` (the far end of every required sink has it) or `received` (the request passed the checks and is queued).",
    ),
    Key::value(
        "acknowledge_timeout",
        "\"20s\"",
        "Longest wait for the acknowledgement. Then the sender is told to try again (503) and what is still queued for it is dropped.",
    ),
    Key::value(
        "check_series",
        "false",
        "Whether every request is decoded and each series checked. Otherwise that happens only where it is needed: something reads labels, the protocol version changes, the request is 2.0, or no required sink's endpoint would answer for it.",
    ),
    Key::value(
        "count_samples",
        "false",
        "Whether the samples of every request are counted, for the ledger and the metrics. Otherwise a request that nobody decodes is forwarded uncounted, unless a queue on disk stores it because its sink does not keep up. Counting costs less than decoding, and checks nothing.",
    ),
    Key::value(
        "max_body_bytes",
        "\"32MiB\"",
        "Largest compressed body; above it 413.",
    ),
    Key::value(
        "max_decoded_bytes",
        "\"128MiB\"",
        "Largest decoded body, at most 1GiB; above it 413, before anything is allocated.",
    ),
    Key::value(
        "max_labels_per_series",
        "128",
        "Most labels of a series; one with more is invalid.",
    ),
    Key::value(
        "max_label_name_bytes",
        "\"1KiB\"",
        "Longest label name; a series with a longer one is invalid.",
    ),
    Key::value(
        "max_label_value_bytes",
        "\"16KiB\"",
        "Longest label value; a series with a longer one is invalid.",
    ),
    Key::value(
        "max_in_flight_bytes",
        "\"256MiB\"",
        "Memory of all requests in flight, compressed and decoded, at least `max_body_bytes` and `max_decoded_bytes` together and below 4GiB; above it 503 with Retry-After.",
    ),
    Key::value(
        "max_connections",
        "1024",
        "Most connections of the listener; further ones wait to be accepted.",
    ),
    Key::value(
        "header_timeout",
        "\"10s\"",
        "Longest time for a TLS handshake and for the head of a request.",
    ),
    Key::value(
        "body_timeout",
        "\"30s\"",
        "Longest time for the body of a request; then 408.",
    ),
    Key::value(
        "idle_timeout",
        "\"5m\"",
        "Longest time that a connection may be idle between two requests.",
    ),
];
