use std::net::UdpSocket;
use std::sync::Mutex;

use hickory_resolver::proto::op::{Message, OpCode};
use hickory_resolver::proto::rr::Record as Answer;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, SRV};

use metrifold_base::locked;
use metrifold_telemetry::Telemetry;

use crate::slot::{Slot, SlotOptions};

use super::*;

/// Answers of a name server: a code and records for a name and type.
type Script = Box<dyn Fn(&str, RecordType) -> (ResponseCode, Vec<RData>) + Send>;

/// A name server on loopback, over UDP.
struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Server {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let script: Script = Box::new(|_, _| (ResponseCode::ServFail, Vec::new()));
        let script = Arc::new(Mutex::new(script));
        let says = script.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let question = query.queries[0].clone();
                let name = question.name().to_utf8();
                let (code, records) = locked(&says)(&name, question.query_type());
                let mut answer = Message::response(query.metadata.id, OpCode::Query);
                answer.metadata.response_code = code;
                answer.metadata.recursion_available = true;
                for data in records {
                    answer.add_answer(Answer::from_rdata(question.name().clone(), 60, data));
                }
                answer.add_query(question);
                socket.send_to(&answer.to_vec().unwrap(), peer).unwrap();
            }
        });
        Self { address, script }
    }

    fn says(
        &self,
        script: impl Fn(&str, RecordType) -> (ResponseCode, Vec<RData>) + Send + 'static,
    ) {
        *locked(&self.script) = Box::new(script);
    }
}

fn config(server: &Server, keys: &str) -> DnsConfig {
    let text = format!(
        "servers = [\"{}\"]\ntimeout = \"500ms\"\n{keys}",
        server.address
    );
    toml::from_str(&text).unwrap()
}

/// A provider that the test polls.
struct Asked {
    dns: Dns,
    feed: Feed,
    slot: Arc<Slot>,
}

impl Asked {
    fn new(config: DnsConfig) -> Self {
        let options = SlotOptions {
            type_name: "dns".into(),
            question: config.question(),
            limits: config.limits(),
            on_empty: config.on_empty(),
            folder: None,
        };
        let slot = Slot::new("d".into(), options.clone(), &Telemetry::new());
        Self {
            feed: slot.take_over(options),
            dns: Dns(Arc::new(config)),
            slot,
        }
    }

    async fn ask(&mut self) -> Vec<String> {
        self.dns.ask(&self.feed).await.unwrap();
        let snapshot = self.slot.snapshot();
        snapshot.targets().iter().map(|it| it.to_string()).collect()
    }
}

fn name(text: &str) -> Name {
    Name::from_utf8(text).unwrap()
}

#[tokio::test]
async fn records_become_targets_with_prometheus_labels() {
    let server = Server::new();
    server.says(|_, kind| {
        let data = match kind {
            RecordType::SRV => vec![RData::SRV(SRV::new(1, 2, 9100, name("a.example.")))],
            RecordType::A => vec![
                RData::CNAME(CNAME(name("other.example."))),
                RData::A(A::new(10, 0, 0, 1)),
            ],
            RecordType::AAAA => vec![RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))],
            RecordType::MX => vec![RData::MX(MX::new(10, name("mx.example.")))],
            _ => Vec::new(),
        };
        (ResponseCode::NoError, data)
    });
    for (keys, expected) in [
        (
            "names = ['_m._tcp.example.']",
            r#"{__address__="a.example:9100", __meta_dns_name="_m._tcp.example.", __meta_dns_srv_record_port="9100", __meta_dns_srv_record_target="a.example."}"#,
        ),
        (
            "names = ['x.example.']\nrecord_type = 'A'\nport = 80",
            r#"{__address__="10.0.0.1:80", __meta_dns_name="x.example."}"#,
        ),
        (
            "names = ['x.example.']\nrecord_type = 'AAAA'\nport = 80",
            r#"{__address__="[fd00::1]:80", __meta_dns_name="x.example."}"#,
        ),
        (
            "names = ['x.example.']\nrecord_type = 'MX'\nport = 25",
            r#"{__address__="mx.example:25", __meta_dns_mx_record_target="mx.example.", __meta_dns_name="x.example."}"#,
        ),
    ] {
        assert_eq!(Asked::new(config(&server, keys)).ask().await, [expected]);
    }
}

#[tokio::test]
async fn each_name_keeps_its_own_answer_and_a_name_that_is_gone_is_told_from_a_failure() {
    let server = Server::new();
    let good = |_: &str, _| (ResponseCode::NoError, vec![RData::A(A::new(10, 0, 0, 1))]);
    server.says(good);
    let keys = "names = ['a.example.', 'b.example.']\nrecord_type = 'A'\nport = 80";
    let mut asked = Asked::new(config(&server, keys));
    assert_eq!(asked.ask().await.len(), 2);

    server.says(move |name, kind| match name {
        "a.example." => (ResponseCode::ServFail, Vec::new()),
        _ => good(name, kind),
    });
    assert_eq!(asked.ask().await.len(), 2);
    let status = asked.slot.status();
    assert!(status.stale);
    assert_eq!(&*status.failing[0].source, "a.example.");
    assert_eq!(status.failing[0].reason, Reason::Refused);

    // Answers without records keep the targets, too, by default.
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        server.says(move |_, _| (code, Vec::new()));
        assert_eq!(asked.ask().await.len(), 2);
        assert_eq!(asked.slot.status().failing[1].reason, Reason::Empty);
    }
    let keys = format!("{keys}\non_empty = 'take'");
    let mut taking = Asked::new(config(&server, &keys));
    server.says(good);
    assert_eq!(taking.ask().await.len(), 2);
    server.says(|_, _| (ResponseCode::NXDomain, Vec::new()));
    assert!(taking.ask().await.is_empty());
    assert!(!taking.slot.status().stale);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_a_failure_in_time() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let text = format!(
        "servers = [\"{address}\"]\ntimeout = \"10ms\"\nnames = ['a.example.']\nrecord_type = 'A'\nport = 1"
    );
    let mut asked = Asked::new(toml::from_str(&text).unwrap());
    assert!(asked.ask().await.is_empty());
    assert_eq!(asked.slot.status().failing[0].reason, Reason::Unreachable);
}
