//! A name server on loopback, over UDP, with the records of a test.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A name server. Unknown names do not exist.
pub struct NameServer {
    address: SocketAddr,
    known: Arc<Mutex<Known>>,
    ended: Arc<AtomicBool>,
    answering: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Known {
    names: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Names for which it answers SERVFAIL.
    failing: Vec<String>,
}

/// Response codes of DNS: no error, server failure, no such name.
const OK: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

impl NameServer {
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let known: Arc<Mutex<Known>> = Arc::default();
        let ended = Arc::new(AtomicBool::new(false));
        let (knows, ends) = (known.clone(), ended.clone());
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(answer) = knows.lock().unwrap().answer(&buffer[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            address,
            known,
            ended,
            answering: Some(answering),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the addresses of a name.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        let mut known = self.known.lock().unwrap();
        known.names.insert(name.to_owned(), addresses);
        known.failing.retain(|it| it != name);
    }

    /// Makes queries for a name fail.
    pub fn fail(&self, name: &str) {
        self.known.lock().unwrap().failing.push(name.to_owned());
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the answering thread.
        let wake = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _ = wake.send_to(&[0], self.address);
        if let Some(answering) = self.answering.take() {
            let _ = answering.join();
        }
    }
}

impl Known {
    /// Answers a query for the A records of a name.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let (mut name, mut at) = (String::new(), 12);
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(&String::from_utf8_lossy(query.get(at..at + length)?));
            at += length;
        }
        let question = query.get(12..at + 4)?;
        let is_a = query.get(at..at + 2)? == [0, 1];
        let name = name.to_ascii_lowercase();
        let (code, found) = match self.names.get(&name) {
            _ if self.failing.contains(&name) => (SERVFAIL, &[][..]),
            None => (NXDOMAIN, &[][..]),
            Some(_) if !is_a => (OK, &[][..]),
            Some(addresses) => (OK, &addresses[..]),
        };
        let count = u16::try_from(found.len()).unwrap().to_be_bytes();
        let mut answer = query[..2].to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0]);
        answer.extend(question);
        for address in found {
            // Pointer to the name in the question, A, IN, TTL 0, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }
}
