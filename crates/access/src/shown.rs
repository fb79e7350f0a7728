//! Credentials of a request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;

use metrifold_http::access::Head;

/// Head and credentials of a request.
pub(crate) struct Shown<'a> {
    pub(crate) head: Head<'a>,
    pub(crate) credentials: Credentials<'a>,
}

/// Content of the `Authorization` header.
pub(crate) enum Credentials<'a> {
    /// The request has no such header.
    None,
    /// A bearer token.
    Bearer(&'a str),
    /// A user and a password (basic authentication).
    Basic(String, String),
    /// A malformed or repeated header, with the reason.
    Unusable(&'static str),
}

impl<'a> Shown<'a> {
    pub(crate) fn of(head: Head<'a>) -> Self {
        Self {
            credentials: Credentials::of(&head),
            head,
        }
    }

    /// Whether the request has no credentials, apart from the headers of a proxy.
    pub(crate) fn nothing(&self) -> bool {
        matches!(self.credentials, Credentials::None) && self.head.presented.is_empty()
    }
}

impl<'a> Credentials<'a> {
    fn of(head: &Head<'a>) -> Self {
        let mut values = head.headers.get_all(AUTHORIZATION).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Self::None,
            (Some(value), None) => value,
            // A proxy in front may have checked a different value than the one read here.
            _ => return Self::Unusable("the Authorization header is repeated"),
        };
        let Some((scheme, given)) = value.to_str().ok().and_then(|text| text.split_once(' '))
        else {
            return Self::Unusable("the Authorization header is malformed");
        };
        let given = given.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("bearer") {
            return match given.is_empty() {
                true => Self::Unusable("the Authorization header has no token"),
                false => Self::Bearer(given),
            };
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::Unusable("the Authorization header has an unsupported scheme");
        }
        let pair = STANDARD.decode(given).ok();
        let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
        match pair.as_deref().and_then(|pair| pair.split_once(':')) {
            Some((user, password)) => Self::Basic(user.to_owned(), password.to_owned()),
            None => Self::Unusable("the Authorization header is malformed"),
        }
    }
}
