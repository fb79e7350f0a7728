//! Small bodies that stand for much: every repeated field of both versions, on its way to every form
//! that a sink takes, is refused or stays within a multiple of the memory that it declares.

use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;

use metrifold_model::{Counts, Version};
use metrifold_queue::disk::{Append, DiskQueue, Options, SyncPolicy};
use metrifold_queue::{OrderedBy, now_millis};
use metrifold_testing::{Endpoint, Metrifold, Reply, Sender, cli, compress, run, until_so, up};

/// Decoded bytes that a request may have.
const MOST: usize = 1 << 20;
/// Bytes of the longest label value.
const LONG: usize = 8 << 10;

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// As many copies of these bytes as fit into a request.
fn many(unit: &[u8]) -> Vec<u8> {
    unit.repeat((MOST - (64 << 10)) / unit.len())
}

fn label(name: &[u8], value: &[u8]) -> Vec<u8> {
    field(1, &[field(1, name), field(2, value)].concat())
}

/// A series of 1.0 with these fields.
fn v1(fields: &[u8]) -> Vec<u8> {
    field(1, &[&label(b"__name__", b"m"), fields].concat())
}

/// Symbols of a request of 2.0: numbers 0 to 3 are nothing, the name's label, a name and a long text,
/// and a hundred names follow.
fn symbols() -> Vec<u8> {
    let mut texts = vec![
        String::new(),
        "__name__".into(),
        "m".into(),
        "x".repeat(LONG),
    ];
    texts.extend((0..100).map(|n| format!("n{n:02}")));
    texts
        .iter()
        .flat_map(|text| field(4, text.as_bytes()))
        .collect()
}

/// A series of 2.0 with these fields.
fn v2(fields: &[u8]) -> Vec<u8> {
    [symbols(), field(5, &[&field(1, &[1, 2]), fields].concat())].concat()
}

/// References to labels whose values are all long.
fn long_refs() -> Vec<u8> {
    let names = 4..104;
    names.flat_map(|name| [name, 3]).collect()
}

/// Bodies of 1.0 and 2.0, with what each has many of, and the status that each is answered with.
fn bodies() -> Vec<(&'static str, &'static str, u16, Vec<u8>)> {
    let sample = [0x12, 0];
    let with = |number, content: &[u8]| [&sample[..], &field(number, content)].concat();
    let long_series = |content: &[u8]| {
        let refs = field(1, &[&[1, 2][..], &long_refs()].concat());
        field(5, &[&refs, content].concat())
    };
    let of_long = |count, content: &[u8]| [symbols(), long_series(content).repeat(count)].concat();
    let long_metadata = [&sample[..], &field(5, &[3 << 3, 3])].concat();
    let with_metadata = field(5, &[&field(1, &[1, 2])[..], &long_metadata].concat());
    let long_label = label(b"long", &[b'x'; 256]);
    vec![
        ("1.0", "series", 413, many(&[0x0a, 0])),
        ("1.0", "metadata", 413, many(&[0x1a, 0])),
        ("1.0", "labels", 400, v1(&many(&[0x0a, 0]))),
        (
            "1.0",
            "labels with text",
            400,
            v1(&many(&label(b"a", b"b"))),
        ),
        ("1.0", "samples", 204, v1(&many(&sample))),
        (
            "1.0",
            "samples of a long series",
            204,
            v1(&[long_label, many(&sample)].concat()),
        ),
        ("1.0", "histograms", 204, v1(&many(&[0x22, 0]))),
        ("1.0", "spans", 204, v1(&with(4, &many(&[0x5a, 0])))),
        ("1.0", "deltas", 204, v1(&with(4, &field(12, &many(&[0]))))),
        (
            "1.0",
            "single deltas",
            204,
            v1(&with(4, &many(&[12 << 3, 0]))),
        ),
        (
            "1.0",
            "counts",
            204,
            v1(&with(4, &field(13, &many(&[0; 8])))),
        ),
        ("1.0", "exemplars", 413, v1(&many(&[0x1a, 0]))),
        (
            "1.0",
            "labels of an exemplar",
            400,
            v1(&with(3, &many(&[0x0a, 0]))),
        ),
        (
            "1.0",
            "unknown fields",
            204,
            v1(&[&sample[..], &many(&[9 << 3 | 2, 0])].concat()),
        ),
        (
            "2.0",
            "symbols",
            204,
            [v2(&sample), many(&[0x22, 0])].concat(),
        ),
        ("2.0", "series", 413, [symbols(), many(&[0x2a, 0])].concat()),
        (
            "2.0",
            "references",
            400,
            [symbols(), field(5, &field(1, &many(&[0])))].concat(),
        ),
        ("2.0", "single references", 400, v2(&many(&[0x08, 0]))),
        ("2.0", "series of long labels", 413, of_long(100, &sample)),
        ("2.0", "samples", 204, v2(&many(&sample))),
        ("2.0", "histograms", 204, v2(&many(&[0x1a, 0]))),
        ("2.0", "spans", 204, v2(&field(3, &many(&[0x5a, 0])))),
        ("2.0", "deltas", 204, v2(&field(3, &field(12, &many(&[0]))))),
        ("2.0", "exemplars", 413, v2(&many(&[0x22, 0]))),
        (
            "2.0",
            "references of an exemplar",
            400,
            v2(&with(4, &field(1, &many(&[2])))),
        ),
        (
            "2.0",
            "exemplars of long labels",
            413,
            v2(&[&sample[..], &field(4, &field(1, &long_refs())).repeat(100)].concat()),
        ),
        (
            "2.0",
            "lone exemplars of long series",
            204,
            of_long(1, &[0x22, 0]),
        ),
        ("2.0", "more of them", 413, of_long(100, &[0x22, 0])),
        (
            "2.0",
            "metadata",
            413,
            [symbols(), with_metadata.repeat(10_000)].concat(),
        ),
    ]
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

#[test]
fn no_field_of_a_small_body_takes_much_memory_in_any_form() {
    let sponge = sponge();
    let form = |name: &str, sink: &str| {
        format!(
            "[sources.{name}]\ntype = \"remote_write\"\naddress = \"INGEST\"\npath = \"/{name}\"\n\
             check_series = true\nmax_decoded_bytes = \"1MiB\"\nmax_series_per_request = 100000\n\
             [sinks.to_{name}]\ninputs = [\"{name}\"]\n{sink}\n"
        )
    };
    let send = |protocol| {
        format!(
            "type = \"remote_write\"\nendpoint = \"{}\"\nprotocol = \"{protocol}\"",
            sponge.url()
        )
    };
    let forms = ["v1", "v2", "page", "lines"];
    let config = form("v1", &send("1.0"))
        + &form(
            "v2",
            &(send("2.0") + "\nconversion = { exemplar_bytes = \"2MiB\" }"),
        )
        + &form(
            "page",
            "type = \"prometheus_exporter\"\naddress = \"127.0.0.1:0\"",
        )
        + &form("lines", "type = \"console\"");
    let child = Metrifold::start_writing(&config, Stdio::null());
    let started = child.memory("VmRSS");
    for (version, what, status, message) in bodies() {
        let compressed = compress(&message);
        assert!(
            message.len() <= MOST && compressed.len() < 1 << 20,
            "{what}"
        );
        let content = match version {
            "1.0" => "application/x-protobuf",
            _ => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        };
        for form in forms {
            let headers = [("content-type", content)];
            let answer = Sender::new(child.ingest).post(&format!("/{form}"), &headers, &compressed);
            // Exemplars that have to wait for a sample find no room.
            let waits = form == "v2" && what.starts_with("lone");
            let expected = if waits { 400 } else { status };
            let text = answer.text();
            assert_eq!(
                answer.status, expected,
                "{what} of {version} to {form}: {text}"
            );
            let grown = child.memory("VmHWM").saturating_sub(started) >> 10;
            assert!(grown < 64, "{what} of {version} to {form}: {grown} MiB");
        }
    }
}

/// Stores batches as an earlier process has, in order.
fn leave(folder: &Path, bodies: Vec<(Version, Counts, Vec<u8>)>) {
    let options = Options {
        max_bytes: 1 << 30,
        max_age: None,
        drop_oldest: false,
        sync: SyncPolicy::Batch,
    };
    let queue = DiskQueue::open(folder.to_path_buf(), options, |_| {}).unwrap();
    for (version, counts, body) in bodies {
        let append = Append {
            tenant: "".into(),
            lane: OrderedBy::Peer("127.0.0.1".parse().unwrap()).lane_id(None),
            accepted_at: now_millis(),
            version,
            counts: Some(counts),
            checked: true,
            body: Bytes::from(body),
        };
        let stored = queue.append(append, Box::new(|stored| drop(stored.unwrap())));
        assert!(stored.is_ok());
    }
    queue.close();
}

#[test]
fn what_was_stored_before_it_was_bounded_is_converted_in_little_memory_or_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let refs = field(4, &field(1, &long_refs()));
    let series = |samples: u64, exemplars| {
        let content = [[0x12, 0].repeat(samples as usize), refs.repeat(exemplars)].concat();
        let counts = Counts {
            series: 1,
            samples,
            exemplars: exemplars as u64,
            ..Counts::default()
        };
        (Version::V2, counts, compress(&v2(&content)))
    };
    let counts = Counts {
        series: 1,
        samples: 1,
        ..Counts::default()
    };
    // The first takes 156 MiB written out, the second more than offsets can tell apart.
    let last = (Version::V1, counts, up(7));
    leave(
        &folder.path().join("queues/z"),
        vec![series(2, 200), series(3, 2_800), last],
    );
    let healthy = Endpoint::healthy();
    let config = format!(
        "data_dir = {:?}\n[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [sinks.z]\ntype = \"remote_write\"\ninputs = [\"a\"]\nendpoint = \"{}\"\n\
         protocol = \"1.0\"\nqueue = {{ type = \"disk\", max_bytes = \"1GiB\" }}\n",
        folder.path(),
        healthy.url()
    );
    let child = Metrifold::start(&config);
    until_so("all of it is done", || {
        child.metric("metrifold_queue_disk_batches", &[]) == 0.0
    });
    let arrived = healthy.wait_accepted(3);
    assert_eq!(arrived.len(), 3, "{arrived:?}");
    let discarded = "metrifold_component_discarded_samples_total";
    let too_large = [("component_id", "z"), ("reason", "too_large")];
    assert_eq!(child.metric(discarded, &too_large), 3.0);
    let listed = run(&mut cli(&[
        "dead-letters",
        "list",
        "--address",
        &child.api.to_string(),
    ]));
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("written out") && listed.contains("z/"),
        "{listed}"
    );
    let peak = child.memory("VmHWM") >> 10;
    assert!(peak < 160, "{peak} MiB");
}
