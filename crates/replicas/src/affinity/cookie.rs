//! A signed cookie that names a replica. The signature keeps callers from choosing one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128, SipHasher24 as SipHasher128};

use metrifold_base::{BuildError, Problems, Secret, keys, read_text};

keys! {
    /// The cookie that keeps a caller at a replica.
    #[derive(Clone, Debug)]
    pub struct CookieKeys {
        /// Name of the cookie.
        pub name: String = default("metrifold_replica"),
        /// Key that signs the cookie. Several Metrifold processes behind one address must share it. Unset, each process generates a key at start.
        pub secret: Option<Secret> = unset("a long secret"),
        /// File with the key, instead of `secret`. Trailing white space is ignored.
        pub secret_file: Option<PathBuf> = unset("/etc/metrifold/cookie"),
        /// Set the `Secure` attribute, so that browsers send the cookie over HTTPS only.
        pub secure: bool = default(false),
    }
}

/// The most bytes of a secret file that are read.
const MAX_SECRET: u64 = 64 << 10;

impl CookieKeys {
    /// The files that the keys name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.secret_file.iter().map(PathBuf::as_path)
    }

    pub(crate) fn validate(&self, problems: &mut Problems) {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
        if self.name.is_empty() || !self.name.bytes().all(token) {
            problems.at("name", "is not a valid name of a cookie");
        }
        if self.secret.is_some() && self.secret_file.is_some() {
            problems.at("secret_file", "cannot be set together with `secret`");
        }
        if self
            .secret
            .as_ref()
            .is_some_and(|it| it.expose().is_empty())
        {
            problems.at("secret", "must not be empty");
        }
    }
}

/// Makes cookies and checks them.
#[derive(Debug)]
pub(crate) struct Jar {
    name: String,
    secure: bool,
    key: [u8; 16],
}

impl Jar {
    pub(crate) fn build(keys: &CookieKeys) -> Result<Self, BuildError> {
        let secret = match (&keys.secret, &keys.secret_file) {
            (Some(secret), _) => secret.expose().as_bytes().to_vec(),
            (None, Some(file)) => {
                let text = read_text(file, MAX_SECRET)
                    .map_err(|error| BuildError::new("cookie.secret_file", error))?;
                // Registered as a secret, so that logs and messages do not show it.
                Secret::new(text.trim_end()).expose().as_bytes().to_vec()
            }
            (None, None) => {
                let draw = |n: u64| RandomState::new().hash_one(n).to_le_bytes();
                [draw(0), draw(1), draw(2), draw(3)].concat()
            }
        };
        let digest = Sha256::digest(&secret);
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Ok(Self {
            name: keys.name.clone(),
            secure: keys.secure,
            key,
        })
    }

    /// Identifier of a replica in the cookie, which hides its address.
    fn id(&self, replica: &str) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(b"replica");
        hasher.write(replica.as_bytes());
        hasher.finish()
    }

    fn tag(&self, id: u64) -> [u8; 16] {
        let mut hasher = SipHasher128::new_with_key(&self.key);
        hasher.write(b"tag");
        hasher.write_u64(id);
        hasher.finish128().as_bytes()
    }

    /// The `Set-Cookie` header for a replica. The cookie lives as long as the browser's session and
    /// covers all paths.
    pub(crate) fn set(&self, replica: &str) -> Option<HeaderValue> {
        let id = self.id(replica);
        let mut value = id.to_le_bytes().to_vec();
        value.extend_from_slice(&self.tag(id));
        let value = URL_SAFE_NO_PAD.encode(value);
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!(
            "{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}",
            self.name
        );
        HeaderValue::try_from(text).ok()
    }

    /// The replica that the caller's cookies name. `None` without a cookie with a valid signature.
    pub(crate) fn named<'a>(
        &self,
        cookies: &[HeaderValue],
        mut replicas: impl Iterator<Item = &'a str>,
    ) -> Option<&'a str> {
        let lines = cookies.iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';'));
        let value = pairs.find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.name).then_some(value)
        })?;
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (id, tag) = bytes.split_first_chunk::<8>()?;
        let id = u64::from_le_bytes(*id);
        // Compared in constant time.
        let expected = self.tag(id);
        let differs = tag.len() != expected.len()
            || tag
                .iter()
                .zip(&expected)
                .fold(0, |all, (a, b)| all | (a ^ b))
                != 0;
        match differs {
            true => None,
            false => replicas.find(|replica| self.id(replica) == id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jar(secret: Option<&str>) -> Jar {
        Jar::build(&CookieKeys {
            name: "r".to_owned(),
            secret: secret.map(Secret::new),
            secret_file: None,
            secure: true,
        })
        .unwrap()
    }

    fn value(jar: &Jar, replica: &str) -> HeaderValue {
        let set = jar.set(replica).unwrap();
        let set = set.to_str().unwrap();
        assert!(
            set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"),
            "{set}"
        );
        assert!(!set.contains(replica), "{set}");
        let (pair, _) = set.split_once(';').unwrap();
        HeaderValue::from_str(&format!("other=1; {pair}")).unwrap()
    }

    #[test]
    fn a_cookie_names_its_replica_as_long_as_that_is_there() {
        let jar = jar(Some("secret"));
        let all = ["http://a:1", "http://b:1"];
        let cookie = [value(&jar, all[1])];
        assert_eq!(jar.named(&cookie, all.into_iter()), Some(all[1]));
        assert_eq!(jar.named(&cookie, all[..1].iter().copied()), None);
        assert_eq!(jar.named(&[], all.into_iter()), None);
        let same = super::tests::jar(Some("secret"));
        assert_eq!(same.named(&cookie, all.into_iter()), Some(all[1]));
    }

    #[test]
    fn what_was_not_signed_here_names_nothing() {
        let jar = jar(Some("secret"));
        let all = ["http://a:1"];
        let good = value(&jar, all[0]);
        let text = good.to_str().unwrap();
        let mut wrong: Vec<HeaderValue> = vec![
            value(&super::tests::jar(Some("other")), all[0]),
            value(&super::tests::jar(None), all[0]),
            HeaderValue::from_static("r="),
            HeaderValue::from_static("r=AAAA"),
            HeaderValue::from_static("r"),
        ];
        wrong.push(HeaderValue::from_str(&format!("{text}AAAA")).unwrap());
        let start = text.find("; r=").unwrap() + 4;
        // The last character is left out: some of its bits are padding.
        for at in start..text.len() - 1 {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            wrong.push(HeaderValue::from_bytes(&changed).unwrap());
        }
        for cookie in wrong {
            let named = jar.named(std::slice::from_ref(&cookie), all.into_iter());
            assert_eq!(named, None, "{cookie:?}");
        }
    }
}
