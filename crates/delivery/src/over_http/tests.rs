//! The meaning of answers, by status.

use http::header::RETRY_AFTER;

use metrifold_base::Endpoint;
use metrifold_http::{ClientConfig, ClientTls};
use metrifold_model::Kind;
use metrifold_telemetry::Telemetry;

use super::*;

fn over_http(protocol: Protocol, conflict_is_partial: bool, statuses: Statuses) -> OverHttp {
    metrifold_http::install_crypto_provider();
    let endpoint: Endpoint = "http://127.0.0.1:9/write".parse().unwrap();
    let client = Client::new(&ClientConfig {
        tls: ClientTls::default(),
        proxy_url: None,
        proxy_basic_auth: None,
        connections: 1,
        connect_timeout: Duration::from_secs(1),
        max_age: Duration::from_secs(60),
    });
    OverHttp {
        endpoints: vec![endpoint.uri().clone()],
        current: AtomicUsize::new(0),
        client: client.unwrap(),
        credentials: Credentials::build(None, None, None).unwrap(),
        headers: HeaderMap::new(),
        tenant_header: None,
        protocol,
        conflict_is_partial,
        statuses,
        timeout: Duration::from_secs(1),
        metrics: Telemetry::new().component("z", Kind::Sink, "test"),
    }
}

fn usual() -> OverHttp {
    over_http(Protocol::Auto, false, Statuses::Usual)
}

fn reply(status: u16) -> Reply {
    Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        excerpt: "no".into(),
    }
}

fn wrote(status: u16, samples: u64) -> Reply {
    let mut reply = reply(status);
    let written = Written {
        samples,
        ..Written::default()
    };
    written.write(&mut reply.headers);
    reply
}

fn counts(samples: u64) -> Option<Counts> {
    Some(Counts {
        samples,
        ..Counts::default()
    })
}

/// Short name of an answer.
fn meaning(answer: &Answer) -> &'static str {
    match answer {
        Answer::Stored => "stored",
        Answer::LacksExemplars(_) => "lacks exemplars",
        Answer::Partly(..) => "partly",
        Answer::OtherVersion => "other version",
        Answer::Unwritten => "unwritten",
        Answer::Refused(refusal) => match refusal.class {
            RefusalClass::Content => "content",
            RefusalClass::ContentOrVersion => "content or version",
            RefusalClass::Size => "size",
            RefusalClass::Whole => "whole",
        },
        Answer::Unwanted(..) => "unwanted",
        Answer::Failed { failure, .. } => match failure {
            Failure::Unreachable => "unreachable",
            Failure::Broken | Failure::ServerError => "kept",
            Failure::TooMuch => "too much",
        },
    }
}

#[test]
fn only_an_answer_about_the_content_can_cost_a_batch() {
    let transport = usual();
    for status in (200..600).filter(|status| StatusCode::from_u16(*status).is_ok()) {
        let expected = match status {
            200..=299 => "stored",
            400 | 409 | 422 => "content",
            413 => "size",
            429 => "too much",
            _ => "kept",
        };
        let answer = transport.judge(Version::V1, None, &reply(status));
        assert_eq!(meaning(&answer), expected, "{status}: {answer:?}");
    }
}

#[test]
fn answers_to_2_0_tell_whether_it_is_understood() {
    let f = |protocol, reply: Reply, expected| {
        let transport = over_http(protocol, false, Statuses::Usual);
        let answer = transport.judge(Version::V2, counts(3), &reply);
        assert_eq!(meaning(&answer), expected, "{protocol:?} {reply:?}");
    };
    f(Protocol::Auto, wrote(204, 3), "stored");
    f(Protocol::Auto, wrote(200, 2), "partly");
    f(Protocol::Auto, reply(200), "unwritten");
    f(Protocol::V2, reply(200), "kept");
    f(Protocol::Auto, reply(415), "other version");
    f(Protocol::V2, reply(415), "kept");
    f(Protocol::Auto, reply(400), "content or version");
    f(Protocol::Auto, wrote(400, 0), "content");
    f(Protocol::Auto, wrote(400, 2), "partly");
    f(Protocol::V2, reply(400), "content");
}

#[test]
fn a_refused_exemplar_is_no_reason_to_look_for_a_refused_sample() {
    let transport = usual();
    let f = |samples, exemplars, reply: Reply, expected| {
        let counts = Counts {
            samples,
            exemplars,
            ..Counts::default()
        };
        let answer = transport.judge(Version::V2, Some(counts), &reply);
        assert_eq!(meaning(&answer), expected, "{reply:?}");
    };
    f(0, 2, wrote(400, 0), "partly");
    f(3, 2, wrote(400, 3), "partly");
    f(3, 2, wrote(400, 0), "content");
    f(3, 2, wrote(204, 3), "lacks exemplars");
    f(3, 0, wrote(204, 3), "stored");
}

#[test]
fn thanos_stores_the_rest_of_what_it_answers_409() {
    let transport = over_http(Protocol::Auto, true, Statuses::Usual);
    let answer = transport.judge(Version::V1, None, &reply(409));
    assert_eq!(meaning(&answer), "partly");
}

#[test]
fn to_the_letter_nothing_is_sent_again_that_is_answered_4xx_but_429() {
    let transport = over_http(Protocol::Auto, false, Statuses::Specification);
    for (status, expected) in [
        (400, "whole"),
        (401, "unwanted"),
        (404, "unwanted"),
        (408, "unwanted"),
        (413, "whole"),
        (429, "too much"),
        (500, "kept"),
        (503, "kept"),
    ] {
        for version in [Version::V1, Version::V2] {
            let answer = transport.judge(version, None, &reply(status));
            assert_eq!(meaning(&answer), expected, "{status} to {version}");
        }
    }
    let unauthorized = transport.judge(Version::V1, None, &reply(401));
    assert!(matches!(
        unauthorized,
        Answer::Unwanted(Reason::Unauthorized, _)
    ));
    let other = transport.judge(Version::V2, None, &reply(415));
    assert_eq!(meaning(&other), "other version");
}

#[test]
fn retry_after_is_heard_with_every_status_that_is_tried_again_and_bounded() {
    let transport = usual();
    for status in [302, 403, 408, 429, 503] {
        for (text, expected) in [
            ("70", Some(Duration::from_secs(70))),
            ("86400", Some(RETRY_AFTER_MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::ZERO)),
            ("soon", None),
        ] {
            let mut reply = reply(status);
            reply.headers.insert(RETRY_AFTER, text.parse().unwrap());
            let answer = transport.judge(Version::V1, None, &reply);
            let Answer::Failed { after, .. } = answer else {
                panic!("{status}: {answer:?}");
            };
            assert_eq!(after, expected, "{status}: {text}");
        }
    }
}

#[test]
fn what_does_not_pass_by_itself_is_told_with_what_to_look_at() {
    for (status, hint) in [
        (307, "redirects are not followed"),
        (401, "credentials"),
        (404, "path in endpoint"),
        (407, "proxy_url"),
    ] {
        let answer = usual().judge(Version::V1, None, &reply(status));
        let Answer::Failed { reason, .. } = answer else {
            panic!("{status}: {answer:?}");
        };
        assert!(reason.contains(hint), "{reason}");
    }
}
