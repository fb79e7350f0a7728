//! A fake browser that logs in. It keeps the cookies of each server, and follows redirects only where
//! a method says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::http::{Answer, request};
use crate::sender::expect;

/// Maximum number of redirects at the issuer.
const STEPS: usize = 20;

/// A browser of a gateway. The gateway's external URL is `https`, as behind a proxy that terminates
/// TLS; requests are sent in plain text.
pub struct Browser {
    gateway: SocketAddr,
    url: String,
    /// The gateway's cookies.
    pub cookies: BTreeMap<String, String>,
    /// Attributes of all cookies that the gateway has set, in order.
    pub attributes: Vec<String>,
}

impl Browser {
    pub fn new(gateway: SocketAddr, url: &str) -> Self {
        Self {
            gateway,
            url: url.to_owned(),
            cookies: BTreeMap::new(),
            attributes: Vec::new(),
        }
    }

    /// Opens a page of the gateway.
    pub fn open(&mut self, path: &str) -> Answer {
        let own = ("sec-fetch-site", "none");
        let opens = ("sec-fetch-mode", "navigate");
        self.ask("GET", path, &[("accept", "text/html,*/*"), own, opens])
    }

    /// Sends a request to the gateway with these headers and the cookies.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = ask(self.gateway, method, path, headers, &self.cookies);
        self.attributes.extend(keep(&answer, &mut self.cookies));
        answer
    }

    /// Path of the gateway that an answer redirects to.
    #[track_caller]
    pub fn path(&self, answer: &Answer) -> String {
        expect(answer, 303);
        let place = answer.header("location").unwrap();
        place.strip_prefix(&*self.url).unwrap_or(place).to_owned()
    }

    /// Opens a login page and follows the redirects to the issuer. Returns the path of the gateway that
    /// the issuer redirects back to, unopened.
    #[track_caller]
    pub fn at_issuer(&mut self, login: &str) -> String {
        let away = self.open(login);
        expect(&away, 303);
        assert_eq!(away.header("cache-control"), Some("no-store"));
        let mut place = away.header("location").unwrap().to_owned();
        let mut cookies = BTreeMap::new();
        for _ in 0..STEPS {
            if let Some(back) = place.strip_prefix(&*self.url) {
                return back.to_owned();
            }
            let rest = place.strip_prefix("http://").expect("an issuer by http");
            let (address, path) = rest.split_at(rest.find('/').unwrap());
            let address: SocketAddr = address.parse().unwrap();
            let answer = ask(address, "GET", path, &[], &cookies);
            keep(&answer, &mut cookies);
            assert!(matches!(answer.status, 302 | 303), "{}", answer.text());
            place = answer.header("location").unwrap().to_owned();
            if place.starts_with('/') {
                place = format!("http://{address}{place}");
            }
        }
        panic!("the issuer does not come to an end: {place}");
    }

    /// Opens a page, logs in, and opens the page again.
    #[track_caller]
    pub fn log_in(&mut self, page: &str) -> Answer {
        let sent = self.open(page);
        let login = self.path(&sent);
        assert!(login.starts_with("/oidc/"), "{login}");
        let back = self.at_issuer(&login);
        let returned = self.open(&back);
        assert_eq!(self.path(&returned), page);
        self.open(page)
    }
}

fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    cookies: &BTreeMap<String, String>,
) -> Answer {
    let pairs = cookies.iter();
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let pairs = pairs.join("; ");
    let mut all = headers.to_vec();
    if !pairs.is_empty() {
        all.push(("cookie", &pairs));
    }
    request(method, address, path, &all, b"").unwrap()
}

/// Stores the cookies of an answer; returns their attributes.
fn keep(answer: &Answer, cookies: &mut BTreeMap<String, String>) -> Vec<String> {
    let set = answer.headers.iter();
    let set = set.filter(|(name, _)| name == "set-cookie");
    set.map(|(_, value)| {
        let (pair, attributes) = value.split_once(';').unwrap_or((value, ""));
        let (name, value) = pair.split_once('=').unwrap();
        let gone = attributes.contains("Max-Age=0;") || value.is_empty();
        match gone {
            true => cookies.remove(name),
            false => cookies.insert(name.into(), value.into()),
        };
        attributes.trim().to_owned()
    })
    .collect()
}
