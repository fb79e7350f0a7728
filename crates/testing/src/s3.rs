//! A fake S3 service on loopback, with the parts of the API that an object store needs: conditional
//! writes, paged lists, and `ETag`s that depend on the content. Faults are injected on demand.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::endpoint::{Does, Endpoint, Reply, Seen};

const MODIFIED: &str = "2026-01-01T00:00:00.000Z";
const MODIFIED_HTTP: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

type Fault = Arc<dyn Fn(&Seen) -> Option<Does> + Send + Sync>;

/// A service with one bucket.
pub struct S3 {
    state: Arc<Mutex<Bucket>>,
    pub endpoint: Endpoint,
}

/// Content of the bucket, and behaviour of the service.
pub struct Bucket {
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Maximum number of keys per page of a list.
    pub page: usize,
    /// Number of further writes that take effect but get no answer.
    pub unanswered: usize,
    /// Whether the conditions of writes are ignored.
    pub unconditional: bool,
    /// Fault injected in place of the answer.
    fault: Option<Fault>,
}

impl S3 {
    /// Starts a service with an empty bucket of this name.
    pub fn new(bucket: &str) -> Self {
        let state = Arc::new(Mutex::new(Bucket {
            objects: BTreeMap::new(),
            page: 1000,
            unanswered: 0,
            unconditional: false,
            fault: None,
        }));
        let (own, root) = (state.clone(), format!("/{bucket}"));
        let endpoint = Endpoint::new(move |seen: &Seen| {
            let fault = own.lock().unwrap().fault.clone();
            fault
                .and_then(|fault| fault(seen))
                .unwrap_or_else(|| answer(&mut own.lock().unwrap(), &root, seen))
        });
        Self { state, endpoint }
    }

    pub fn url(&self) -> String {
        self.endpoint.url_of("")
    }

    pub fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.state.lock().unwrap()
    }

    /// Injects faults: the answer of `fault`, if it returns one, replaces the real one.
    pub fn fail(&self, fault: impl Fn(&Seen) -> Option<Does> + Send + Sync + 'static) {
        self.bucket().fault = Some(Arc::new(fault));
    }

    /// Removes the faults.
    pub fn recover(&self) {
        self.bucket().fault = None;
    }

    /// Writes an object, as another program would.
    pub fn write(&self, key: &str, text: &str) {
        self.bucket().objects.insert(key.into(), text.into());
    }

    /// The content of an object.
    pub fn read(&self, key: &str) -> Option<String> {
        let bytes = self.bucket().objects.get(key).cloned()?;
        Some(String::from_utf8(bytes).unwrap())
    }
}

fn answer(bucket: &mut Bucket, root: &str, seen: &Seen) -> Does {
    let signed = seen.header("authorization").unwrap_or_default();
    if !signed.starts_with("AWS4-HMAC-SHA256 ") {
        return error(403, "AccessDenied").into();
    }
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let Some(key) = path.strip_prefix(root) else {
        return error(404, "NoSuchBucket").into();
    };
    let key = decode(key.trim_start_matches('/'));
    match (&*seen.method, &*key) {
        ("GET", "") => list(bucket, &parameters(query)).into(),
        ("GET", _) => match bucket.objects.get(&key) {
            Some(content) => Reply::new(200)
                .header("etag", tag(content))
                .header("last-modified", MODIFIED_HTTP)
                .body(content.clone())
                .into(),
            None => error(404, "NoSuchKey").into(),
        },
        ("HEAD", _) => head(bucket.objects.get(&key)),
        ("PUT", _) => write(bucket, &key, seen),
        ("DELETE", _) => {
            bucket.objects.remove(&key);
            204.into()
        }
        _ => error(405, "MethodNotAllowed").into(),
    }
}

/// Answers HEAD by hand: its `content-length` is that of a body that is not sent.
fn head(content: Option<&Vec<u8>>) -> Does {
    let head = match content {
        Some(content) => format!(
            "200 OK\r\netag: {}\r\nlast-modified: {MODIFIED_HTTP}\r\ncontent-length: {}",
            tag(content),
            content.len()
        ),
        None => "404 Not Found\r\ncontent-length: 0".to_owned(),
    };
    Does::Raw(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").into_bytes())
}

fn write(bucket: &mut Bucket, key: &str, seen: &Seen) -> Does {
    let current = bucket.objects.get(key).map(|content| tag(content));
    let condition = |name: &str| seen.header(name).filter(|_| !bucket.unconditional);
    if condition("if-none-match") == Some("*") && current.is_some() {
        return error(412, "PreconditionFailed").into();
    }
    if let Some(wanted) = condition("if-match") {
        match &current {
            None => return error(404, "NoSuchKey").into(),
            Some(current) if current != wanted => {
                return error(412, "PreconditionFailed").into();
            }
            Some(_) => {}
        }
    }
    bucket.objects.insert(key.to_owned(), seen.body.clone());
    if bucket.unanswered > 0 {
        bucket.unanswered -= 1;
        return Does::Close;
    }
    Reply::new(200).header("etag", tag(&seen.body)).into()
}

fn list(bucket: &Bucket, query: &BTreeMap<String, String>) -> Reply {
    let get = |name: &str| query.get(name).map(String::as_str);
    let prefix = get("prefix").unwrap_or_default();
    let after = get("continuation-token")
        .or(get("start-after"))
        .unwrap_or_default();
    let asked = get("max-keys").and_then(|most| most.parse().ok());
    let most = asked.unwrap_or(bucket.page).min(bucket.page);
    let mut keys = bucket
        .objects
        .iter()
        .filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
    let page: Vec<_> = keys.by_ref().take(most).collect();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
    for (key, content) in &page {
        xml.push_str(&format!(
            "<Contents><Key>{}</Key><LastModified>{MODIFIED}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            escape(key),
            escape(&tag(content)),
            content.len()
        ));
    }
    if let (Some(_), Some((last, _))) = (keys.next(), page.last()) {
        let token = escape(last);
        xml.push_str(&format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        ));
    }
    xml.push_str("</ListBucketResult>");
    Reply::new(200)
        .header("content-type", "application/xml")
        .body(xml)
}

fn error(status: u16, code: &str) -> Reply {
    let xml = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
    Reply::new(status)
        .header("content-type", "application/xml")
        .body(xml)
}

/// An `ETag`: equal for equal contents, as in S3.
fn tag(content: &[u8]) -> String {
    let mut hash = DefaultHasher::new();
    content.hash(&mut hash);
    format!("\"{:032x}\"", hash.finish())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (decode(key), decode(&value.replace('+', "%20"))))
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                let digits = String::from_utf8(digits).unwrap();
                out.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap()
}
