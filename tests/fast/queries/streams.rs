//! Streaming bodies: callers that disconnect, slow sides, timeouts.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrifold_testing::{Metrifold, until_so};

use super::gateway;
use super::upstream::{CHUNKED, Upstream, caller, read_until};

const SECOND: Duration = Duration::from_secs(1);

fn nothing_is_under_way(gateway: &Metrifold) {
    until_so("no query is under way", || {
        gateway.metric("metrifold_component_queries_in_flight", &[]) == 0.0
    });
}

#[test]
fn a_caller_that_hangs_up_before_the_answer_is_seen_upstream_within_a_second() {
    let upstream = Upstream::new();
    let gateway = Metrifold::start(&gateway("max_concurrent = 1", &upstream.url(), ""));
    for _ in 0..5 {
        let caller = caller(gateway.ingest);
        let mut asked = upstream.asked("\r\n\r\n");
        drop(caller);
        assert!(asked.ends_within(SECOND));
        // Its slot is free for the next query.
        nothing_is_under_way(&gateway);
    }
}

#[test]
fn a_caller_that_hangs_up_amid_the_answer_is_seen_upstream_within_a_second() {
    let upstream = Upstream::new();
    let gateway = Metrifold::start(&gateway("max_concurrent = 1", &upstream.url(), ""));
    for gone in [Shutdown::Both, Shutdown::Write] {
        let mut caller = caller(gateway.ingest);
        let mut asked = upstream.asked("\r\n\r\n");
        asked.send(&format!("{CHUNKED}5\r\nfirst\r\n"));
        read_until(&mut caller, "first\r\n");
        // The upstream is silent, so that no failed write reveals the disconnect.
        caller.shutdown(gone).unwrap();
        assert!(asked.ends_within(SECOND), "{gone:?}");
        nothing_is_under_way(&gateway);
    }
    // A caller that has not read what has arrived.
    let caller = caller(gateway.ingest);
    let mut asked = upstream.asked("\r\n\r\n");
    asked.send(CHUNKED);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    asked.stream.set_write_timeout(Some(SECOND / 4)).unwrap();
    while asked.stream.write_all(chunk.as_bytes()).is_ok() {}
    drop(caller);
    let started = Instant::now();
    asked.stream.set_write_timeout(Some(SECOND)).unwrap();
    while asked.stream.write_all(b"x").is_ok() {}
    assert!(started.elapsed() < SECOND);
    nothing_is_under_way(&gateway);
}

#[test]
fn an_answer_that_does_not_end_in_time_breaks_off_on_both_sides() {
    let upstream = Upstream::new();
    let gateway = Metrifold::start(&gateway("timeout = \"2s\"", &upstream.url(), ""));
    let mut caller = caller(gateway.ingest);
    let mut asked = upstream.asked("\r\n\r\n");
    asked.send(&format!("{CHUNKED}5\r\nfirst\r\n"));
    read_until(&mut caller, "first\r\n");
    let started = Instant::now();
    let mut rest = Vec::new();
    // However the connection ends, the last chunk is missing.
    let _ = caller.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    assert!(started.elapsed() < 4 * SECOND, "{:?}", started.elapsed());
    assert!(asked.ends_within(SECOND));
    nothing_is_under_way(&gateway);
}

#[test]
fn an_answer_that_the_upstream_breaks_off_is_not_taken_for_whole() {
    let upstream = Upstream::new();
    let gateway = Metrifold::start(&gateway("", &upstream.url(), ""));
    let mut caller = caller(gateway.ingest);
    let mut asked = upstream.asked("\r\n\r\n");
    asked.send(&format!("{CHUNKED}5\r\nfirst\r\n"));
    read_until(&mut caller, "first\r\n");
    drop(asked);
    let mut rest = Vec::new();
    let _ = caller.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

#[test]
fn a_body_in_chunks_passes_while_it_comes() {
    let upstream = Upstream::new();
    let gateway = Metrifold::start(&gateway("", &upstream.url(), ""));
    let mut caller = std::net::TcpStream::connect(gateway.ingest).unwrap();
    let head = "POST /api/v1/query HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    write!(caller, "{head}3\r\nque\r\n").unwrap();
    let mut asked = upstream.asked("que\r\n");
    assert!(asked.received.contains("transfer-encoding: chunked\r\n"));
    write!(caller, "5\r\nry=up\r\n0\r\n\r\n").unwrap();
    read_until(&mut asked.stream, "ry=up\r\n0\r\n\r\n");
    asked.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    read_until(&mut caller, "\r\n\r\nok");
}

#[test]
fn a_large_answer_takes_no_memory_and_waits_for_a_slow_reader() {
    const CHUNK: usize = 1 << 16;
    const CHUNKS: usize = 3200;
    /// Most bytes that the kernel buffers for both connections.
    const SOCKETS: usize = 48 << 20;
    /// Most memory of the whole process, in KiB.
    const MEMORY: u64 = 96 << 10;
    /// Most growth of memory during three quarters of the answer, in KiB.
    const GROWTH: u64 = 16 << 10;
    let upstream = Upstream::new();
    let gateway = Metrifold::start(&gateway("", &upstream.url(), ""));
    let mut caller = caller(gateway.ingest);
    let mut asked = upstream.asked("\r\n\r\n");
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    let writing = std::thread::spawn(move || {
        asked.send(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            CHUNK * CHUNKS
        ));
        for chunk in 0..CHUNKS {
            let bytes = vec![chunk as u8; CHUNK];
            asked.stream.write_all(&bytes).unwrap();
            counted.fetch_add(CHUNK, Ordering::SeqCst);
        }
    });
    read_until(&mut caller, "\r\n\r\n");
    // Nobody reads: after a while the upstream's writes block.
    let (mut last, mut since) = (0, Instant::now());
    until_so("the upstream stands still", || {
        let now = written.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        now > 0 && since.elapsed() > SECOND / 2
    });
    println!("stood still after {last} bytes");
    assert!(last < SOCKETS, "{last} of {}", CHUNK * CHUNKS);
    let mut bytes = vec![0; CHUNK];
    // By then the buffers of the connection and of the allocator have their full size.
    let mut settled = 0;
    for chunk in 0..CHUNKS {
        if chunk == CHUNKS / 4 {
            settled = gateway.memory("VmHWM");
        }
        caller.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == chunk as u8), "{chunk}");
    }
    writing.join().unwrap();
    let most = gateway.memory("VmHWM");
    println!("{settled} KiB after a quarter, {most} KiB after all");
    assert!(settled < MEMORY, "{settled} KiB");
    assert!(most < settled + GROWTH, "{settled} KiB, then {most} KiB");
}
