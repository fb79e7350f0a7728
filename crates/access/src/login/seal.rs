//! Sealed cookies: a browser cannot read or change them, or use them for another purpose.
//!
//! AES-256-GCM under a random key of this process. The key is rotated; cookies sealed under the
//! previous key can still be opened. After a restart none can, and browsers have to log in again.

use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use metrifold_base::locked;

/// Seals and opens cookies, and rotates the key.
pub(crate) struct Sealer {
    /// Time for which a key seals. It then opens cookies for the same time again.
    period: Duration,
    keys: Mutex<Keys>,
}

struct Keys {
    now: Option<Key>,
    before: Option<Key>,
    /// Number of keys made so far, wrapping. Prefixes every sealed text to identify its key.
    made: u8,
}

struct Key {
    number: u8,
    key: RandomizedNonceKey,
    since: Instant,
}

impl Sealer {
    pub(crate) fn new(period: Duration) -> Self {
        Self {
            period,
            keys: Mutex::new(Keys {
                now: None,
                before: None,
                made: 0,
            }),
        }
    }

    /// Seals a text for a purpose.
    ///
    /// # Errors
    ///
    /// Fails when the system has no random bytes.
    pub(crate) fn seal(&self, purpose: &str, text: &[u8]) -> Result<String, &'static str> {
        let mut keys = locked(&self.keys);
        keys.rotate(self.period)?;
        let key = keys.now.as_ref().ok_or("no key")?;
        let mut sealed = text.to_vec();
        let aad = Aad::from(purpose.as_bytes());
        let nonce = key
            .key
            .seal_in_place_append_tag(aad, &mut sealed)
            .map_err(|_| "sealing failed")?;
        let mut whole = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        whole.push(key.number);
        whole.extend_from_slice(nonce.as_ref());
        whole.extend_from_slice(&sealed);
        Ok(URL_SAFE_NO_PAD.encode(whole))
    }

    /// Opens a text that was sealed for the same purpose; none if it was forged, sealed for another
    /// purpose, or its key is gone.
    pub(crate) fn open(&self, purpose: &str, sealed: &str) -> Option<Vec<u8>> {
        let whole = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (number, rest) = whole.split_first()?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut keys = locked(&self.keys);
        keys.rotate(self.period).ok()?;
        let mut known = [&keys.now, &keys.before].into_iter().flatten();
        let key = known.find(|key| key.number == *number)?;
        let mut text = sealed.to_vec();
        let aad = Aad::from(purpose.as_bytes());
        let opened = key.key.open_in_place(nonce, aad, &mut text).ok()?;
        Some(opened.to_vec())
    }
}

impl Keys {
    /// Replaces the key if it is older than `period`.
    fn rotate(&mut self, period: Duration) -> Result<(), &'static str> {
        let age = self.now.as_ref().map(|key| key.since.elapsed());
        if age.is_some_and(|age| age < period) {
            return Ok(());
        }
        self.before = self
            .now
            .take()
            .filter(|key| key.since.elapsed() < period * 2);
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system has no random bytes")?;
        self.made = self.made.wrapping_add(1);
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes);
        bytes.fill(0);
        self.now = Some(Key {
            number: self.made,
            key: key.map_err(|_| "the key cannot be created")?,
            since: Instant::now(),
        });
        Ok(())
    }
}

/// `N` random bytes in URL-safe base64.
///
/// # Errors
///
/// Fails when the system has no random bytes.
pub(crate) fn random<const N: usize>() -> Result<String, &'static str> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system has no random bytes")?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn what_is_sealed_can_be_opened_for_its_purpose_alone_and_not_when_it_was_changed() {
        let sealer = Sealer::new(PERIOD);
        let sealed = sealer.seal("session", b"who").unwrap();
        assert_eq!(sealer.open("session", &sealed).unwrap(), b"who");
        assert_eq!(sealer.open("login", &sealed), None);
        assert_ne!(sealer.seal("session", b"who").unwrap(), sealed);
        assert_eq!(Sealer::new(PERIOD).open("session", &sealed), None);
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(&changed);
            assert_eq!(sealer.open("session", &changed), None, "{place}");
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..place]);
            assert_eq!(sealer.open("session", &cut), None, "{place}");
        }
        assert_eq!(sealer.open("session", "not base64!"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_change_and_those_of_the_period_before_still_open() {
        let sealer = Sealer::new(PERIOD);
        let first = sealer.seal("session", b"first").unwrap();
        tokio::time::advance(PERIOD).await;
        let second = sealer.seal("session", b"second").unwrap();
        assert_eq!(sealer.open("session", &first).unwrap(), b"first");
        tokio::time::advance(PERIOD).await;
        assert_eq!(sealer.open("session", &first), None);
        assert_eq!(sealer.open("session", &second).unwrap(), b"second");
        tokio::time::advance(PERIOD * 3).await;
        assert_eq!(sealer.open("session", &second), None);
    }
}
