//! The connections of an endpoint.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Instant, SystemTime};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::script::{Does, Seen};
use crate::http::{header, read_head};
use crate::series::decode;

type Script = Arc<dyn Fn(&Seen) -> Does + Send + Sync>;

/// State of an endpoint that its connections share.
pub(super) struct Shared {
    script: Mutex<Script>,
    pub(super) seen: Mutex<Vec<Seen>>,
    pub(super) streams: Mutex<HashMap<usize, TcpStream>>,
    pub(super) released: (Mutex<bool>, Condvar),
    now: AtomicUsize,
    pub(super) most: AtomicUsize,
    pub(super) connections: AtomicUsize,
    pub(super) resets: AtomicUsize,
    pub(super) taken: AtomicUsize,
    pub(super) ended: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Shared {
    pub(super) fn new(tls: Option<Arc<ServerConfig>>) -> Self {
        let counter = || AtomicUsize::new(0);
        Self {
            script: Mutex::new(Arc::new(|_| 204.into())),
            seen: Mutex::default(),
            streams: Mutex::default(),
            released: (Mutex::new(false), Condvar::new()),
            now: counter(),
            most: counter(),
            connections: counter(),
            resets: counter(),
            taken: counter(),
            ended: AtomicBool::new(false),
            tls,
        }
    }

    /// Replaces the script.
    pub(super) fn follow(&self, script: impl Fn(&Seen) -> Does + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// Accepts connections until the endpoint is dropped.
    pub(super) fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            let id = self.connections.fetch_add(1, Ordering::SeqCst);
            let clone = stream.try_clone().unwrap();
            self.streams.lock().unwrap().insert(id, clone);
            let shared = self.clone();
            std::thread::spawn(move || shared.connection(id, stream));
        }
    }

    fn connection(&self, id: usize, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let reset = |resets: usize| resets.checked_sub(1);
        if self
            .resets
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, reset)
            .is_ok()
        {
            // Closing a socket with unread bytes makes the kernel send a reset.
            let _ = stream.read(&mut [0]);
            self.streams.lock().unwrap().remove(&id);
            return;
        }
        // The test judges how a connection ends.
        let _ = match &self.tls {
            None => self.serve(&mut BufReader::new(stream)),
            Some(tls) => {
                let session = ServerConnection::new(tls.clone()).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(session, stream));
                let ended = self.serve(&mut stream);
                let stream = stream.get_mut();
                stream.conn.send_close_notify();
                let _ = stream.conn.write_tls(&mut stream.sock);
                ended
            }
        };
        if let Some(stream) = self.streams.lock().unwrap().remove(&id) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn serve<S: Stream>(&self, stream: &mut BufReader<S>) -> io::Result<()> {
        while let Some(seen) = self.read(stream)? {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            if !self.act(seen, stream.get_mut())? {
                break;
            }
        }
        Ok(())
    }

    fn read<S: Stream>(&self, stream: &mut BufReader<S>) -> io::Result<Option<Seen>> {
        let Some((line, headers)) = read_head(stream)? else {
            return Ok(None);
        };
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next(), words.next());
        let find = |name| header(&headers, name).unwrap_or_default();
        let length: usize = find("content-length").parse().unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let series = decode(find("x-prometheus-remote-write-version"), &body);
        Ok(Some(Seen {
            order: 0,
            method: method.unwrap_or_default(),
            path: path.unwrap_or_default(),
            series,
            headers,
            body,
            at: Instant::now(),
            time: SystemTime::now(),
            accepted: false,
        }))
    }

    /// Reacts as the script says; returns whether the connection stays open.
    fn act(&self, mut seen: Seen, stream: &mut impl Write) -> io::Result<bool> {
        let order = {
            let mut all = self.seen.lock().unwrap();
            seen.order = all.len();
            all.push(seen.clone());
            seen.order
        };
        let script = self.script.lock().unwrap().clone();
        let mut does = script(&seen);
        let end = loop {
            match does {
                Does::After(pause, then) => {
                    std::thread::sleep(pause);
                    does = *then;
                }
                Does::Hang(reply) => {
                    let (released, changed) = &self.released;
                    let mut released = released.lock().unwrap();
                    while !*released {
                        released = changed.wait(released).unwrap();
                    }
                    does = Does::Answer(reply);
                }
                end => break end,
            }
        };
        if let Does::Answer(reply) | Does::Trickle(reply, _) = &end {
            let accepted = (200..300).contains(&reply.status);
            self.seen.lock().unwrap()[order].accepted = accepted;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let (bytes, pause) = match end {
            Does::Answer(reply) => (reply.encode(), None),
            Does::Trickle(reply, pause) => (reply.encode(), Some(pause)),
            Does::Raw(bytes) => {
                stream.write_all(&bytes)?;
                stream.flush()?;
                return Ok(false);
            }
            Does::Close | Does::After(..) | Does::Hang(_) => return Ok(false),
        };
        let Some(pause) = pause else {
            stream.write_all(&bytes)?;
            stream.flush()?;
            return Ok(true);
        };
        for byte in bytes {
            if self.ended.load(Ordering::SeqCst) {
                return Ok(false);
            }
            stream.write_all(&[byte])?;
            stream.flush()?;
            std::thread::sleep(pause);
        }
        Ok(true)
    }
}
