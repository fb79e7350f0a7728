//! What a request shows to prove who sends it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;

use metrifold_http::access::Head;

/// What a request shows.
pub(crate) struct Shown<'a> {
    pub(crate) head: Head<'a>,
    pub(crate) credentials: Credentials<'a>,
}

/// What is in `Authorization`.
pub(crate) enum Credentials<'a> {
    /// It is not there.
    None,
    /// A token.
    Bearer(&'a str),
    /// A user and a password.
    Basic(String, String),
    /// Something that nobody can read, or several.
    Unusable(&'static str),
}

impl<'a> Shown<'a> {
    pub(crate) fn of(head: Head<'a>) -> Self {
        Self {
            credentials: Credentials::of(&head),
            head,
        }
    }

    /// Whether there is anything that could prove something, besides what a proxy says.
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
            // Whoever is in front may have checked another one than is read here.
            _ => return Self::Unusable("authorization is given more than once"),
        };
        let Some((scheme, given)) = value.to_str().ok().and_then(|text| text.split_once(' '))
        else {
            return Self::Unusable("authorization is malformed");
        };
        let given = given.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("bearer") {
            return match given.is_empty() {
                true => Self::Unusable("authorization holds no token"),
                false => Self::Bearer(given),
            };
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::Unusable("authorization is of a scheme that is not taken");
        }
        let pair = STANDARD.decode(given).ok();
        let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
        match pair.as_deref().and_then(|pair| pair.split_once(':')) {
            Some((user, password)) => Self::Basic(user.to_owned(), password.to_owned()),
            None => Self::Unusable("authorization is malformed"),
        }
    }
}
