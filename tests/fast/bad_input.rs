//! For every kind of bad input the sender gets a clear status with a reason, and the program
//! survives.
//!
//! Bodies that are cut short or damaged at every place, false lengths, labels beyond every limit,
//! slow senders, broken connections, invalid HTTP, and ambiguous paths. Also checked: invalid input
//! costs nothing else, whatever passes the checks is valid for an independent decoder, nothing
//! panics, and memory does not grow.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message;

use metrifold_testing::messages::{v1, v2};
use metrifold_testing::{
    Answer, Endpoint, Metrifold, PATIENCE, Random, Reply, Sender, Series, body, body_v2, compress,
    one, protobuf, until_so,
};

const WRITE: &str = "/api/v1/write";
const V2: [(&str, &str); 2] = [
    (
        "content-type",
        "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    ),
    ("x-prometheus-remote-write-version", "2.0.0"),
];

/// A source with these keys and a sink to an endpoint.
fn start(keys: &str, endpoint: &Endpoint) -> Metrifold {
    Metrifold::start(&format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n{keys}\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\nendpoint = \"{}\"\n",
        endpoint.url()
    ))
}

/// An endpoint that accepts everything, in both versions.
fn sponge() -> Endpoint {
    Endpoint::new(
        |seen| match seen.header("x-prometheus-remote-write-version") {
            Some("2.0.0") => Reply::written(u64::MAX),
            _ => Reply::new(204),
        },
    )
}

/// Three series with every kind of content.
fn request() -> Vec<Series> {
    vec![
        Series::new("up", &[(1, 1.0), (2, f64::NAN)]).label("job", "node"),
        Series::new("http_requests_total", &[(-5, 1e300)])
            .label("job", "node")
            .label("path", "/ä/日本"),
        one("down", i64::MAX),
    ]
}

/// A sender that reconnects when its connection is closed.
struct Stubborn {
    address: SocketAddr,
    sender: Option<Sender>,
}

impl Stubborn {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sender: None,
        }
    }

    fn post(&mut self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let sender = self.sender.get_or_insert_with(|| Sender::new(self.address));
        let answer = sender.post(WRITE, headers, body);
        if answer.header("connection") == Some("close") {
            self.sender = None;
        }
        answer
    }
}

/// The reason of a refusal, which must not be empty.
#[track_caller]
fn reason(answer: &Answer) -> String {
    let text = answer.text();
    assert!(
        text.len() > 5 && text.len() < 4096,
        "{}: {text:?}",
        answer.status
    );
    assert!(
        !text.contains('\n') && !text.contains("panicked"),
        "{text:?}"
    );
    text
}

fn message(version: &str) -> Vec<u8> {
    match version {
        "1.0" => protobuf(&request()),
        _ => decompress(&body_v2(&request())),
    }
}

fn decompress(body: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).unwrap()
}

fn headers(version: &str) -> &'static [(&'static str, &'static str)] {
    if version == "1.0" { &[] } else { &V2 }
}

/// Whether prost can decode the message.
fn is_message(version: &str, bytes: &[u8]) -> bool {
    match version {
        "1.0" => v1::WriteRequest::decode(bytes).is_ok(),
        _ => v2::Request::decode(bytes).is_ok(),
    }
}

#[test]
fn a_body_cut_short_anywhere_is_refused() {
    let endpoint = sponge();
    let mut child = start("check_series = true", &endpoint);
    let mut sender = Stubborn::new(child.ingest);
    for version in ["1.0", "2.0"] {
        let message = message(version);
        let whole = compress(&message);
        for length in 0..whole.len() {
            let answer = sender.post(headers(version), &whole[..length]);
            assert_eq!(answer.status, 400, "{version} {length}: {}", answer.text());
            reason(&answer);
        }
        let mut boundaries = 0;
        for length in 0..message.len() {
            let cut = &message[..length];
            let answer = sender.post(headers(version), &compress(cut));
            if is_message(version, cut) {
                // Cut between two fields: the rest is valid, or a series lacks something.
                boundaries += 1;
                assert!([204, 400].contains(&answer.status), "{}", answer.text());
            } else {
                assert_eq!(answer.status, 400, "{version} {length}: {}", answer.text());
                reason(&answer);
            }
        }
        assert!(boundaries > 0 && boundaries < message.len());
        assert_eq!(sender.post(headers(version), &whole).status, 204);
    }
    assert!(child.is_alive());
    for seen in endpoint.seen() {
        assert!(seen.series.is_ok(), "{:?}", seen.series);
    }
}

/// Damages a request at random with a seed, sends it, and checks the answer.
fn damage(sender: &mut Stubborn, random: &mut Random, rounds: usize) -> (usize, usize) {
    let (mut taken, mut refused, mut ignored) = (0, 0, 0);
    for _ in 0..rounds {
        let version = if random.chance(50) { "1.0" } else { "2.0" };
        let mut bytes = message(version);
        let compressed = random.chance(30);
        if compressed {
            bytes = compress(&bytes);
        }
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.number() as u8,
                2 => bytes.insert(at, random.number() as u8),
                _ => drop(bytes.remove(at)),
            }
        }
        if !compressed {
            // Parts that are not needed are not read, so that an unused symbol, say, may be
            // damaged.
            ignored += usize::from(!is_message(version, &bytes));
            // Padding in an unknown field, which makes retained memory visible.
            bytes.extend_from_slice(&[0x7a, 0x80, 0x80, 0x02]);
            bytes.resize(bytes.len() + (32 << 10), b'x');
            bytes = compress(&bytes);
        }
        let answer = sender.post(headers(version), &bytes);
        match answer.status {
            204 => taken += 1,
            400 | 413 => {
                ignored -= usize::from(!compressed && !is_message(version, &decompress(&bytes)));
                refused += 1;
                reason(&answer);
            }
            status => panic!("{status} {}", answer.text()),
        }
    }
    assert!(ignored * 20 < refused, "{ignored} of {refused}");
    (taken, refused)
}

#[test]
fn damaged_bodies_are_refused_or_valid_and_memory_does_not_grow() {
    // Samples are passed on unread, so that the endpoint judges damaged ones.
    let endpoint = Endpoint::new(|seen| match &seen.series {
        Ok(series) => Reply::written(series.iter().map(|s| s.samples.len() as u64).sum()),
        Err(_) => Reply::new(400).body("cannot read it"),
    });
    let mut child = start("check_series = true", &endpoint);
    let mut sender = Stubborn::new(child.ingest);
    let mut random = Random(5);
    let (taken, refused) = damage(&mut sender, &mut random, 9000);
    assert!(taken > 300 && refused > 3000, "{taken} {refused}");
    // Some 200 MiB were decoded, and none of it is retained.
    let peak = child.memory("VmHWM");
    assert!(peak < 150 << 10, "{peak} KiB");
    assert!(child.is_alive());
    let unread = endpoint.seen().iter().filter(|seen| !seen.accepted).count();
    assert!(
        unread * 4 < refused,
        "most is found out at once: {unread} of {refused}"
    );
    for seen in endpoint.seen().iter().filter(|seen| seen.accepted) {
        for series in seen.series() {
            let names: Vec<_> = series.labels.iter().map(|(name, _)| name).collect();
            assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
            assert!(series.get("__name__").is_some());
        }
    }
}

#[test]
fn damaged_bodies_that_nobody_looks_into_are_for_the_endpoint_to_refuse() {
    let endpoint = Endpoint::new(|seen| match seen.series {
        Ok(_) => Reply::new(204),
        Err(_) => Reply::new(400).body("cannot read it"),
    });
    let mut child = start("count_samples = false", &endpoint);
    let mut sender = Stubborn::new(child.ingest);
    let message = message("1.0");
    for length in 0..message.len() {
        let cut = &message[..length];
        let answer = sender.post(&[], &compress(cut));
        let expected = if is_message("1.0", cut) { 204 } else { 400 };
        assert_eq!(answer.status, expected, "{length}");
        if expected == 400 {
            assert!(
                answer.text().contains("cannot read it"),
                "{}",
                answer.text()
            );
        }
    }
    assert_eq!(endpoint.count(), message.len());
    // The compression is passed on as well, except for the declared length.
    let mut whole = compress(&message);
    whole.truncate(whole.len() - 1);
    assert_eq!(sender.post(&[], &whole).status, 400);
    assert_eq!(endpoint.count(), message.len() + 1);
    assert_eq!(sender.post(&[], b"\xff\xff\xff\xff\x0f").status, 413);
    assert_eq!(sender.post(&[], b"").status, 400);
    assert_eq!(endpoint.count(), message.len() + 1);
    assert!(child.is_alive());

    // A batch is checked if no endpoint's answer would reach the sender.
    for keys in ["", "acknowledge = \"received\""] {
        let optional = if keys.is_empty() {
            "required = false"
        } else {
            ""
        };
        let out = format!("endpoint = \"{}\"\n{optional}", endpoint.url());
        let child = Metrifold::start(&format!(
            "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n{keys}\n\
             [sinks.out]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\n{out}\n"
        ));
        let mut sender = Stubborn::new(child.ingest);
        assert_eq!(sender.post(&[], &whole).status, 400, "{keys}");
        let cut = compress(&message[..message.len() - 1]);
        assert_eq!(sender.post(&[], &cut).status, 400, "{keys}");
        assert_eq!(sender.post(&[], &compress(&message)).status, 204, "{keys}");
    }
}

#[test]
fn a_length_that_lies_is_refused_before_anything_is_allocated() {
    let endpoint = sponge();
    // Room for the largest allowed request only.
    let keys = "check_series = true\nmax_in_flight_bytes = \"160MiB\"";
    let child = start(keys, &endpoint);
    let mut sender = Stubborn::new(child.ingest);
    let before = child.memory("VmHWM");
    for check in 0..20 {
        for (declared, status) in [
            (&[0xff, 0xff, 0xff, 0xff, 0x0f][..], 413),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                413,
            ),
            (
                &[
                    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
                ],
                400,
            ),
            // 128 MiB, which is allowed, but impossible in so few bytes.
            (&[0x80, 0x80, 0x80, 0x40], 400),
        ] {
            for content in [&b""[..], b"\x00a", &[0xfe; 64]] {
                let lie = [declared, content].concat();
                let headers = if check % 2 == 0 { &V2[..] } else { &[] };
                let answer = sender.post(headers, &lie);
                assert_eq!(answer.status, status, "{declared:?}");
                reason(&answer);
            }
        }
    }
    let grown = child.memory("VmHWM").saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
    assert_eq!(endpoint.count(), 0);
}

#[test]
fn a_sample_that_is_damaged_is_not_made_into_another_one() {
    let endpoint = Endpoint::new(|seen| match seen.series {
        Ok(_) => 204,
        Err(_) => 400,
    });
    // A conversion from 2.0 to 1.0 reads samples and encodes them anew.
    let child = Metrifold::start(&format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\nendpoint = \"{}\"\nprotocol = \"1.0\"\n",
        endpoint.url()
    ));
    let mut sender = Sender::new(child.ingest);
    let mut message = decompress(&body_v2(&[one("up", 5)]));
    assert_eq!(sender.post(WRITE, &V2, &compress(&message)).status, 204);
    let at = message.windows(2).position(|bytes| bytes == [0x10, 5]);
    // The timestamp continues, but the sample ends.
    message[at.unwrap() + 1] |= 0x80;
    let answer = sender.post(WRITE, &V2, &compress(&message));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(endpoint.accepted(), [("up".to_owned(), 5)]);
}

#[test]
fn a_label_cannot_be_hidden_behind_an_unusual_spelling() {
    let endpoint = Endpoint::healthy();
    let child = Metrifold::start(&format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nfrom = [{{ header = \"X-Tenant\" }}]\nlabel = \"tenant_id\"\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n",
        endpoint.url()
    ));
    let mut sender = Sender::new(child.ingest);
    let mut write = |message: &[u8]| {
        let answer = sender.post(WRITE, &[("x-tenant", "mine")], &compress(message));
        answer.status
    };
    // The label `tenant_id` before and after the sample.
    let entry = b"\x0a\x09tenant_id\x12\x06victim";
    let sample = b"\x12\x0b\x09\0\0\0\0\0\0\xf0\x3f\x10\x05";
    let name = b"\x0a\x0e\x0a\x08__name__\x12\x02up";
    let keys: [&[u8]; 4] = [
        b"\x0a",
        b"\x8a\x00",
        b"\x8a\x80\x80\x00",
        b"\x8a\x80\x80\x80\x80\x01",
    ];
    for (at, key) in keys.iter().enumerate() {
        let label = [key, &[entry.len() as u8][..], entry].concat();
        for series in [
            [&name[..], &label, sample].concat(),
            [&name[..], sample, &label].concat(),
        ] {
            let message = [b"\x0a", &[series.len() as u8][..], &series].concat();
            let status = write(&message);
            assert_eq!(status == 400, at > 0, "{key:?}");
            // A whole series can be spelled this way as well.
            let hidden = [key, &[series.len() as u8][..], &series].concat();
            let status = write(&[protobuf(&[one("up", 1)]), hidden].concat());
            assert_eq!(status == 400, at > 0, "{key:?}");
        }
    }
    for seen in endpoint.seen() {
        for series in seen.series() {
            let tenants = series.labels.iter().filter(|(name, _)| name == "tenant_id");
            let tenants: Vec<_> = tenants.map(|(_, value)| &**value).collect();
            assert_eq!(tenants, ["mine"]);
        }
    }
}

/// A hand-encoded series, with labels of any bytes.
fn raw_series(labels: &[(&[u8], &[u8])]) -> Vec<u8> {
    fn field(number: u8, content: &[u8], out: &mut Vec<u8>) {
        out.push(number << 3 | 2);
        prost::encoding::encode_varint(content.len() as u64, out);
        out.extend_from_slice(content);
    }
    let mut series = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        field(1, name, &mut label);
        field(2, value, &mut label);
        field(1, &label, &mut series);
    }
    let sample = v1::Sample {
        value: 1.0,
        timestamp: 7,
    };
    field(2, &sample.encode_to_vec(), &mut series);
    let mut out = Vec::new();
    field(1, &series, &mut out);
    out
}

#[test]
fn a_series_that_is_invalid_costs_only_itself() {
    let endpoint = sponge();
    let child = start("check_series = true", &endpoint);
    let mut sender = Stubborn::new(child.ingest);
    let name = (&b"__name__"[..], &b"bad"[..]);
    let many: Vec<_> = (0..10_000)
        .map(|n| format!("label_{n:05}").into_bytes())
        .collect();
    let many: Vec<(&[u8], &[u8])> = many.iter().map(|name| (&name[..], &b"x"[..])).collect();
    let long = vec![b'x'; 1 << 20];
    let with = |labels: &[(&[u8], &[u8])]| raw_series(&[&[name], labels].concat());
    let mut sent = 0;
    for (series, why) in [
        (with(&many), "too_many_labels"),
        (with(&[(b"big", &long)]), "label_value_too_long"),
        (with(&[(&long, b"big")]), "label_name_too_long"),
        (with(&[(b"a", b"1"), (b"a", b"2")]), "duplicate_label"),
        (
            with(&[(b"b", b"1"), (b"a", b"2"), (b"b", b"3")]),
            "duplicate_label",
        ),
        (with(&[name]), "duplicate_label"),
        (with(&[(b"", b"x")]), "empty_label_name"),
        (raw_series(&[(b"job", b"x")]), "missing_metric_name"),
        (raw_series(&[]), "missing_metric_name"),
        (with(&[(b"a", b"\xff\xfe")]), "invalid_utf8"),
        (with(&[(b"\xc3\x28", b"x")]), "invalid_utf8"),
        (with(&[(b"a", b"\xed\xa0\x80")]), "invalid_utf8"), // half of a surrogate pair
    ] {
        sent += 1;
        let good = protobuf(&[one("before", sent)]);
        let request = [good, series, protobuf(&[one("behind", sent)])].concat();
        let answer = sender.post(&[], &compress(&request));
        assert_eq!(answer.status, 400, "{why}");
        let text = reason(&answer);
        assert!(
            text.contains(why) && text.contains("1 invalid series"),
            "{why}: {text}"
        );
        let arrived = endpoint.arrived();
        let expected = [("before".to_owned(), sent), ("behind".to_owned(), sent)];
        assert_eq!(arrived[arrived.len() - 2..], expected, "{why}");
    }
    for (reason, times) in [
        ("too_many_labels", 1.0),
        ("duplicate_label", 3.0),
        ("invalid_utf8", 3.0),
    ] {
        let labels = [("component_id", "ingest"), ("reason", reason)];
        let discarded = "metrifold_component_discarded_samples_total";
        assert_eq!(child.metric(discarded, &labels), times, "{reason}");
    }
    // Unsorted labels and empty values are valid.
    let answer = sender.post(
        &[],
        &compress(&with(&[(b"z", b"1"), (b"a", b""), (b"m", b"2")])),
    );
    assert_eq!(answer.status, 204, "{}", answer.text());
    let seen = endpoint.seen();
    let labels: Vec<_> = seen.last().unwrap().series()[0].labels.iter().collect();
    assert!(labels.is_sorted(), "{labels:?}");
}

#[test]
fn a_great_many_tiny_series_stay_within_a_multiple_of_the_memory_they_claim() {
    let endpoint = sponge();
    let keys = "check_series = true\nmax_decoded_bytes = \"8MiB\"\nmax_body_bytes = \"8MiB\"\n\
        max_series_per_request = 10000000";
    let child = start(keys, &endpoint);
    let mut sender = Stubborn::new(child.ingest);
    let tiny = raw_series(&[(b"__name__", b"a")]);
    let labels: Vec<(&[u8], &[u8])> = vec![(b"", b""); 100];
    for series in [tiny, raw_series(&labels), vec![0x0a, 0x00]] {
        let message = series.repeat((7 << 20) / series.len());
        let answer = sender.post(&[], &compress(&message));
        assert!([204, 400].contains(&answer.status), "{}", answer.status);
    }
    let symbols = [0x22, 0x00].repeat(3 << 20);
    let answer = sender.post(&V2, &compress(&symbols));
    assert!([204, 400].contains(&answer.status), "{}", answer.status);
    let peak = child.memory("VmHWM");
    assert!(peak < 160 << 10, "{peak} KiB");
}

#[test]
fn types_and_encodings_that_are_not_remote_writes_are_refused_by_name() {
    let endpoint = sponge();
    let child = start("check_series = true", &endpoint);
    let mut sender = Stubborn::new(child.ingest);
    let request = body(&request());
    for (header, value) in [
        ("content-type", "application/json"),
        ("content-type", "image/png"),
        ("content-type", "text/plain"),
        ("content-type", ""),
        (
            "content-type",
            "application/x-protobuf;proto=prometheus.Nothing",
        ),
        ("content-encoding", "gzip"),
        ("content-encoding", "deflate"),
        ("content-encoding", "snappy, gzip"),
        ("content-encoding", "identity"),
    ] {
        let answer = sender.post(&[(header, value)], &request);
        assert_eq!(answer.status, 415, "{header}: {value}");
        let text = reason(&answer);
        assert!(
            text.contains("snappy") || text.contains("x-protobuf"),
            "{text}"
        );
    }
    assert_eq!(endpoint.count(), 0);
    for value in [
        "application/x-protobuf",
        "application/x-protobuf; proto=prometheus.WriteRequest",
    ] {
        assert_eq!(
            sender.post(&[("content-type", value)], &request).status,
            204
        );
    }
    assert_eq!(
        sender
            .post(&[("content-encoding", "Snappy")], &request)
            .status,
        204
    );
    // Snappy's frame format is not its block format.
    let mut framed = Vec::new();
    let mut writer = snap::write::FrameEncoder::new(&mut framed);
    writer.write_all(&protobuf(&self::request())).unwrap();
    drop(writer);
    let answer = sender.post(&[], &framed);
    assert!([400, 413].contains(&answer.status), "{}", answer.text());
    reason(&answer);
}

/// Sends bytes and reads one answer; `None` if the connection was closed without one.
fn raw(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut sender = Sender::new(address);
    sender.send(bytes).unwrap();
    sender.read().ok()
}

/// A complete request with a given head.
fn with_head(head: &str, body: &[u8]) -> Vec<u8> {
    [head.replace('\n', "\r\n").as_bytes(), b"\r\n\r\n", body].concat()
}

#[test]
fn methods_and_paths_that_are_not_there_are_refused() {
    let endpoint = sponge();
    let child = start("", &endpoint);
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let bytes = with_head(&format!("{method} {WRITE} HTTP/1.1\nhost: x"), b"");
        let answer = raw(child.ingest, &bytes).unwrap();
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST"));
        reason(&answer);
    }
    let request = body(&request());
    let mut sender = Sender::new(child.ingest);
    for path in [
        "/",
        "/api/v1/writes",
        "/api/v1/write/",
        "/API/v1/write",
        "/metrics",
        "/-/ready",
    ] {
        let answer = sender.post(path, &[], &request);
        assert_eq!(answer.status, 404, "{path}");
        reason(&answer);
    }
    assert_eq!(endpoint.count(), 0);
    assert_eq!(
        sender.post("/api/v1/write?x=/../y", &[], &request).status,
        204
    );
}

#[test]
fn a_tenant_in_the_path_means_one_thing_to_everybody() {
    let endpoint = sponge();
    let child = Metrifold::start(&format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\npath = \"/{{tenant}}/write\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nfrom = [{{ path = \"tenant\" }}]\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\ntenant_header = \"X-Tenant\"\n",
        endpoint.url()
    ));
    let request = body(&request());
    let mut sender = Stubborn::new(child.ingest);
    let mut post = |path: &str| {
        let sender = sender
            .sender
            .get_or_insert_with(|| Sender::new(child.ingest));
        sender.post(path, &[], &request)
    };
    for path in [
        "/a//write",
        "//write",
        "/./write",
        "/../write",
        "/a/../b/write",
        "/%2e%2e/write",
        "/%2E/write",
        "/a%2fb/write",
        "/a%2F..%2Fb/write",
        "/a\\b/write",
        "/a%5cb/write",
        "/a%00b/write",
        "/a%zz/write",
        "/a%/write",
        "/%ff/write",
        "/a/b/write",
        "/a/write/..",
        "/a/write/.",
    ] {
        let answer = post(path);
        assert!(
            [400, 404].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
        reason(&answer);
    }
    assert_eq!(endpoint.count(), 0);
    for (path, tenant) in [
        ("/team-a/write", "team-a"),
        ("/team%2Da/write", "team-a"),
        ("/a.b/write", "a.b"),
        ("/team-a/write?tenant=team-b", "team-a"),
    ] {
        let answer = post(path);
        if answer.status == 204 {
            let seen = endpoint.seen();
            assert_eq!(
                seen.last().unwrap().header("x-tenant"),
                Some(tenant),
                "{path}"
            );
        } else {
            assert_eq!((answer.status, path.contains('%')), (400, true), "{path}");
        }
    }
    assert!(endpoint.count() >= 3);
    // A name that decodes to invalid characters is refused, not repaired.
    for path in [
        "/a%0d%0aX-Evil:1/write",
        "/a%20b%7f/write",
        "/%250a/write",
        "/a%09/write",
    ] {
        let answer = post(path);
        if answer.status == 204 {
            let seen = endpoint.seen();
            let seen = seen.last().unwrap();
            assert_eq!(seen.header("x-evil"), None);
            assert!(!path.contains("0d"), "{path}");
        } else {
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        }
    }
}

#[test]
fn http_that_is_no_http_is_answered_or_cut_and_nobody_else_notices() {
    let endpoint = sponge();
    let mut child = start("", &endpoint);
    let ok = body(&request());
    let head = |extra: &str| format!("POST {WRITE} HTTP/1.1\nhost: x\n{extra}");
    let long = format!("x-long: {}", "y".repeat(100 << 10));
    let many: String = (0..200).map(|n| format!("x-{n}: y\n")).collect();
    for (what, bytes, statuses) in [
        (
            "garbage",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n".to_vec(),
            &[400][..],
        ),
        ("nonsense", b"hello world\r\n\r\n".to_vec(), &[400]),
        ("http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[]),
        ("a long header", with_head(&head(&long), b""), &[431]),
        (
            "many headers",
            with_head(&head(many.trim_end()), b""),
            &[431],
        ),
        (
            "a negative length",
            with_head(&head("content-length: -1"), &ok),
            &[400],
        ),
        (
            "no number",
            with_head(&head("content-length: many"), &ok),
            &[400],
        ),
        (
            "two lengths",
            with_head(&head("content-length: 4\ncontent-length: 5"), b"abcde"),
            &[400],
        ),
        (
            "a huge length",
            with_head(&head("content-length: 99999999999999"), b"abc"),
            &[413],
        ),
        (
            "an endless length",
            with_head(&head("content-length: 99999999999999999999999"), b"abc"),
            &[400],
        ),
        (
            "a bad chunk",
            with_head(&head("transfer-encoding: chunked"), b"zz\r\n"),
            &[400],
        ),
        (
            "a huge chunk",
            with_head(
                &head("transfer-encoding: chunked"),
                b"fffffffffffffffff\r\n",
            ),
            &[400, 413],
        ),
        (
            "an unknown coding",
            with_head(&head("transfer-encoding: braille"), b""),
            &[400, 501],
        ),
        (
            "a space in a name",
            with_head(&head("bad name: x"), b""),
            &[400],
        ),
        ("a nul", with_head(&head("bad: \0"), b""), &[400]),
        (
            "no host",
            with_head(
                &format!("POST {WRITE} HTTP/1.1\ncontent-length: {}", ok.len()),
                &ok,
            ),
            &[400],
        ),
        (
            "two hosts",
            with_head(
                &head(&format!("host: y\ncontent-length: {}", ok.len())),
                &ok,
            ),
            &[400],
        ),
    ] {
        let answer = raw(child.ingest, &bytes);
        let status = answer.as_ref().map(|answer| answer.status);
        match status {
            // A client of HTTP/2 could not read an answer.
            None => assert_eq!(what, "http/2"),
            Some(status) => assert!(statuses.contains(&status), "{what}: {status}"),
        }
    }
    // A length beside chunks allows request smuggling: the connection must be closed.
    let both = head("content-length: 4\ntransfer-encoding: chunked");
    let mut sender = Sender::new(child.ingest);
    sender
        .send(&with_head(&both, b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"))
        .unwrap();
    let first = sender.read();
    let second = sender.read();
    if first.is_ok_and(|first| first.status != 400) {
        assert!(
            second.is_err(),
            "what follows is another request: {second:?}"
        );
    }
    assert!(child.is_alive());
    assert_eq!(endpoint.count(), 0);
    assert_eq!(Sender::new(child.ingest).write(&ok).status, 204);
}

#[test]
fn bodies_in_chunks_are_read_and_bounded() {
    let endpoint = sponge();
    let child = start("max_body_bytes = \"1KiB\"", &endpoint);
    let chunked = format!("POST {WRITE} HTTP/1.1\nhost: x\ntransfer-encoding: chunked");
    let ok = body(&request());
    let mut chunks = Vec::new();
    for chunk in ok.chunks(7) {
        chunks.extend(format!("{:x};extension=\"y\"\r\n", chunk.len()).into_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\nx-trailer: z\r\n\r\n");
    let answer = raw(child.ingest, &with_head(&chunked, &chunks)).unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(endpoint.seen()[0].body, ok);

    let chunk = [b"400\r\n".as_slice(), &[b'x'; 0x400], b"\r\n"].concat();
    let answer = raw(child.ingest, &with_head(&chunked, &chunk.repeat(50))).unwrap();
    assert_eq!(answer.status, 413);
    assert!(reason(&answer).contains("max_body_bytes"));
    let announced = format!("POST {WRITE} HTTP/1.1\nhost: x\ncontent-length: 1025");
    let answer = raw(child.ingest, &with_head(&announced, &[b'x'; 1025])).unwrap();
    assert_eq!(answer.status, 413);
    assert_eq!(endpoint.count(), 1);
}

#[test]
fn senders_that_dawdle_are_told_so_or_cut_off() {
    let endpoint = sponge();
    let timeouts = "header_timeout = \"300ms\"\nbody_timeout = \"300ms\"\nidle_timeout = \"600ms\"";
    let mut child = start(timeouts, &endpoint);
    let head = format!("POST {WRITE} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n");

    // One byte now and then, as long as the connection is open.
    let trickle = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(child.ingest).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let mut answer = Vec::new();
        let mut sent = 0;
        until_so("the sender is cut off", || {
            if sent < bytes.len() && socket.write_all(&bytes[sent..=sent]).is_err() {
                return true;
            }
            sent += 1;
            let mut buffer = [0; 1024];
            match socket.read(&mut buffer) {
                Ok(0) => true,
                Ok(read) => {
                    answer.extend_from_slice(&buffer[..read]);
                    false
                }
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        });
        assert!(sent < bytes.len(), "it did not wait for all");
        String::from_utf8(answer).unwrap()
    };
    let answer = trickle(&[head.as_bytes(), &[b'x'; 1000]].concat());
    // The head takes longer than allowed. Not 408: senders would drop the batch.
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 503"),
        "{answer}"
    );

    let mut sender = Sender::new(child.ingest);
    sender.send(head.as_bytes()).unwrap();
    sender.send(b"the first of a thousand bytes").unwrap();
    let answer = sender.read().unwrap();
    // Not 408: senders would drop the batch.
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(reason(&answer).contains("body_timeout"));
    assert!(sender.is_closed());

    // An idle connection, before its first request and after one.
    assert!(Sender::new(child.ingest).is_closed());
    let mut sender = Sender::new(child.ingest);
    assert_eq!(sender.write(&body(&request())).status, 204);
    assert!(sender.is_closed());
    assert!(child.is_alive());
    assert_eq!(endpoint.count(), 1);
}

#[test]
fn connections_that_are_half_closed_or_broken_off_harm_nobody() {
    let endpoint = sponge();
    let mut child = start("", &endpoint);
    let ok = body(&request());
    let head = format!(
        "POST {WRITE} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        ok.len()
    );
    // The sender closes its half, and waits for the answer.
    let mut socket = TcpStream::connect(child.ingest).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&[head.as_bytes(), &ok].concat()).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(endpoint.count(), 1);

    // The connection breaks in the head, in the body, and right after the request.
    for length in [0, 10, head.len() - 1, head.len(), head.len() + ok.len() / 2] {
        let bytes = [head.as_bytes(), &ok].concat();
        let mut socket = TcpStream::connect(child.ingest).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&bytes[..length]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        // A refusal or a closed connection is fine, but not a hang.
        let _ = socket.read_to_string(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    assert_eq!(endpoint.count(), 1, "half a request is none");
    for _ in 0..50 {
        let mut socket = TcpStream::connect(child.ingest).unwrap();
        socket.write_all(&[head.as_bytes(), &ok].concat()).unwrap();
        drop(socket);
    }
    assert_eq!(Sender::new(child.ingest).write(&ok).status, 204);
    assert!(child.is_alive());
}

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    let endpoint = sponge();
    let child = start("check_series = true", &endpoint);
    let mut bytes = Vec::new();
    for time in 1..=5 {
        let ok = if time == 3 {
            b"broken".to_vec()
        } else {
            body(&[one("up", time)])
        };
        let head = format!(
            "POST {WRITE} HTTP/1.1\nhost: x\ncontent-length: {}",
            ok.len()
        );
        bytes.extend(with_head(&head, &ok));
    }
    let mut sender = Sender::new(child.ingest);
    sender.send(&bytes).unwrap();
    let statuses: Vec<_> = (0..5).map(|_| sender.read().unwrap().status).collect();
    assert_eq!(statuses, [204, 204, 400, 204, 204]);
    let times: Vec<_> = endpoint
        .accepted()
        .into_iter()
        .map(|(_, time)| time)
        .collect();
    assert_eq!(times, [1, 2, 4, 5]);
}

#[test]
fn two_hundred_idle_connections_do_not_keep_a_sender_out() {
    let endpoint = sponge();
    let mut child = start("max_connections = 300", &endpoint);
    let idle: Vec<_> = (0..200).map(|_| Sender::new(child.ingest)).collect();
    let mut sender = Sender::new(child.ingest);
    for time in 1..=10 {
        assert_eq!(sender.write(&body(&[one("up", time)])).status, 204);
    }
    drop(idle);
    assert!(child.is_alive());

    // Connections beyond the limit wait.
    let child = start(
        "max_connections = 3\nidle_timeout = \"500ms\"\nheader_timeout = \"500ms\"",
        &endpoint,
    );
    let _idle: Vec<_> = (0..20).map(|_| Sender::new(child.ingest)).collect();
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("up", 11)]))
            .status,
        204
    );
}

#[test]
fn three_thousand_idle_connections_delay_nobody() {
    let endpoint = sponge();
    // Nobody is let in because the time of another is over.
    let child = start(
        "header_timeout = \"10m\"\nidle_timeout = \"10m\"",
        &endpoint,
    );
    for address in [child.ingest, child.api] {
        let connect = |_| TcpStream::connect(address).unwrap();
        let idle: Vec<TcpStream> = (0..3000).map(connect).collect();
        for time in 1..=10 {
            let answer = Sender::new(child.ingest).write(&body(&[one("up", time)]));
            assert_eq!(answer.status, 204, "{}", answer.text());
            assert_eq!(child.get("/-/healthy").status, 200);
        }
        // On the admin address, whose times are fixed, an end of the newest would tell that all were
        // waited for.
        let newest = idle.last().unwrap();
        newest.set_nonblocking(true).unwrap();
        let error = newest.peek(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    }
}

#[test]
fn senders_that_announce_much_and_send_nothing_do_not_keep_others_out() {
    let endpoint = sponge();
    let child = start("body_timeout = \"60s\"", &endpoint);
    let head = format!(
        "POST {WRITE} HTTP/1.1\r\nhost: x\r\ncontent-length: 33554432\r\nexpect: 100-continue\r\n\r\n"
    );
    let idlers: Vec<_> = (0..20)
        .map(|_| {
            let mut sender = Sender::new(child.ingest);
            sender.send(head.as_bytes()).unwrap();
            // The program is waiting for the body.
            assert_eq!(sender.read().unwrap().status, 100);
            sender.send(b"the first of many bytes").unwrap();
            sender
        })
        .collect();
    let mut sender = Sender::new(child.ingest);
    for time in 1..=20 {
        let answer = sender.write(&body(&[one("up", time)]));
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    drop(idlers);
}
