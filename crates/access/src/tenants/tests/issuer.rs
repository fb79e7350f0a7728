//! Tokens of a fake issuer that is up, down, impersonates another one, or rotates its keys.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use metrifold_model::Retry;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;
use crate::testing::{Asked, serve};

/// A fake issuer on loopback.
pub(super) struct Fake {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    keys: Vec<Value>,
    down: bool,
    /// Issuer in the discovery document; none for the real URL.
    says: Option<String>,
    asked: usize,
}

/// A signing key and its id.
pub(super) struct Signer {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    public: Value,
}

impl Signer {
    pub(super) fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &PKCS_ECDSA_P384_SHA384,
            Algorithm::EdDSA => &PKCS_ED25519,
            other => panic!("{other:?}"),
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        let der = pair.serialize_der();
        let (key, public) = match algorithm {
            Algorithm::EdDSA => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
                let public = json!({
                    "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x, "kid": id,
                });
                (EncodingKey::from_ed_der(&der), public)
            }
            _ => {
                let key = EncodingKey::from_ec_der(&der);
                let mut public = Jwk::from_encoding_key(&key, algorithm).unwrap();
                public.common.key_id = Some(id.to_owned());
                (key, serde_json::to_value(public).unwrap())
            }
        };
        Self {
            id,
            algorithm,
            key,
            public,
        }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        encode(&header, claims, &self.key).unwrap()
    }

    /// The same key without an id, as issuers with one key may have it.
    fn without_id(mut self) -> Self {
        self.public.as_object_mut().unwrap().remove("kid");
        self
    }

    fn sign_without_id(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.key).unwrap()
    }
}

impl Fake {
    pub(super) fn new(signers: &[&Signer]) -> Self {
        let keys = signers.iter().map(|signer| signer.public.clone());
        let state = Arc::new(Mutex::new(State {
            keys: keys.collect(),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        let url = serve(move |asked| shared.lock().unwrap().answer(asked));
        Self { url, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.url, "aud": ["metrics", "other"], "sub": "jane",
            "exp": get_current_timestamp() + 60, "groups": ["a", "b"],
        })
    }

    fn with(&self, key: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[key] = value;
        claims
    }

    fn tenants(&self) -> Tenants {
        let text = format!(
            "[tenants.acme]\noidc = {{ issuer = \"{}\", audience = \"metrics\", clock_skew = \"10s\" }}\n",
            self.url
        );
        Files::new().tenants(&text).unwrap()
    }
}

impl State {
    fn answer(&mut self, asked: &Asked) -> (u16, String) {
        self.asked += 1;
        let host = asked.headers.iter().find(|(name, _)| name == "host");
        let own = format!("http://{}", host.unwrap().1);
        let body = match asked.line.contains("openid-configuration") {
            true => {
                let issuer = self.says.as_deref().unwrap_or(&own);
                json!({ "issuer": issuer, "jwks_uri": format!("{own}/keys") })
            }
            false => json!({ "keys": self.keys }),
        };
        match self.down {
            true => (503, String::new()),
            false => (200, body.to_string()),
        }
    }
}

async fn read(tenants: &Tenants, token: &str) -> Result<String, u16> {
    let (name, token) = bearer(token);
    let asked = Ask {
        path: Some("acme"),
        headers: vec![(name, token.as_str())],
        ..Ask::default()
    };
    ask(tenants, Permission::Read, &asked).await
}

/// Advances the paused clock.
pub(super) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A little more than the pause between two fetches of keys.
const PAUSE: Duration = Duration::from_secs(6);

const JANE: Result<&str, u16> = Ok("acme jane");

#[track_caller]
fn expect(found: Result<String, u16>, expected: Result<&str, u16>, what: &str) {
    assert_eq!(found, expected.map(str::to_owned), "{what}");
}

#[tokio::test]
async fn a_token_must_be_signed_by_its_issuer_for_this_audience_and_in_its_time() {
    let algorithms = [
        ("x", Algorithm::ES256),
        ("y", Algorithm::ES384),
        ("z", Algorithm::EdDSA),
    ];
    let signers = algorithms.map(|(id, algorithm)| Signer::new(id, algorithm));
    let fake = Fake::new(&signers.iter().collect::<Vec<_>>());
    let tenants = fake.tenants();
    for signer in &signers {
        let token = signer.sign(&fake.claims());
        for _ in 0..2 {
            expect(read(&tenants, &token).await, JANE, "good");
        }
    }
    let signer = &signers[0];
    let now = get_current_timestamp();
    for (what, claims, expected) in [
        ("one audience", fake.with("aud", json!("metrics")), JANE),
        ("other audience", fake.with("aud", json!("other")), Err(401)),
        ("no audience", fake.with("aud", Value::Null), Err(401)),
        (
            "other issuer",
            fake.with("iss", json!("http://127.0.0.1:1")),
            Err(401),
        ),
        ("no issuer", fake.with("iss", Value::Null), Err(401)),
        ("expired", fake.with("exp", json!(now - 60)), Err(401)),
        ("within the skew", fake.with("exp", json!(now - 3)), JANE),
        ("no end", fake.with("exp", Value::Null), Err(401)),
        ("not yet", fake.with("nbf", json!(now + 60)), Err(401)),
        ("almost", fake.with("nbf", json!(now + 3)), JANE),
        ("nobody", fake.with("sub", json!("")), Err(401)),
        ("a number", fake.with("sub", json!(7)), Err(401)),
    ] {
        expect(read(&tenants, &signer.sign(&claims)).await, expected, what);
    }
    let good = signer.sign(&fake.claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let encoded = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = encoded(json!({ "alg": "none", "typ": "JWT" }));
    // An attacker signs with the public key as the secret (algorithm confusion).
    let mut symmetric = Header::new(Algorithm::HS256);
    symmetric.kid = Some(signer.id.to_owned());
    let secret = EncodingKey::from_secret(signer.public.to_string().as_bytes());
    let other = Signer::new("x", Algorithm::ES256);
    let changed = encoded(fake.with("sub", json!("root")));
    let mut critical = Header::new(signer.algorithm);
    critical.kid = Some(signer.id.to_owned());
    critical.crit = Some(vec!["unknown".to_owned()]);
    for (what, token) in [
        ("none", format!("{none}.{claims}.")),
        (
            "none with a signature",
            format!("{none}.{claims}.{signature}"),
        ),
        (
            "symmetric",
            encode(&symmetric, &fake.claims(), &secret).unwrap(),
        ),
        (
            "an extension that must be understood",
            encode(&critical, &fake.claims(), &signer.key).unwrap(),
        ),
        ("other key of the same id", other.sign(&fake.claims())),
        ("changed", format!("{header}.{changed}.{signature}")),
        ("no signature", format!("{message}.")),
        ("two parts", message.to_owned()),
        ("four parts", format!("{good}.x")),
        ("nothing", "..".to_owned()),
    ] {
        // The keys may be fetched again, so that they are certainly those of the issuer.
        pass(PAUSE).await;
        expect(read(&tenants, &token).await, Err(401), what);
    }
}

#[tokio::test]
async fn while_an_issuer_was_never_reached_callers_are_told_to_come_again() {
    let signer = Signer::new("x", Algorithm::ES256);
    let fake = Fake::new(&[&signer]);
    fake.state().down = true;
    let tenants = fake.tenants();
    let token = signer.sign(&fake.claims());
    expect(read(&tenants, &token).await, Err(503), "down");
    let asked = fake.state().asked;
    expect(read(&tenants, &token).await, Err(503), "down");
    assert_eq!(fake.state().asked, asked, "not asked again at once");
    fake.state().down = false;
    pass(PAUSE).await;
    expect(read(&tenants, &token).await, JANE, "up");

    // A discovery document with another issuer is rejected.
    let other = Fake::new(&[&signer]);
    other.state().says = Some(fake.url.clone());
    let token = signer.sign(&other.claims());
    expect(
        read(&other.tenants(), &token).await,
        Err(503),
        "an impostor",
    );
}

#[tokio::test]
async fn keys_are_kept_while_the_issuer_is_down_and_followed_when_they_change() {
    let old = Signer::new("old", Algorithm::ES256);
    let new = Signer::new("new", Algorithm::EdDSA);
    let fake = Fake::new(&[&old]);
    let tenants = fake.tenants();
    let (first, second) = (old.sign(&fake.claims()), new.sign(&fake.claims()));
    expect(read(&tenants, &first).await, JANE, "old");
    fake.state().down = true;
    pass(Duration::from_secs(3600)).await;
    expect(read(&tenants, &first).await, JANE, "kept");
    let later = old.sign(&fake.with("jti", json!(2)));
    expect(
        read(&tenants, &later).await,
        JANE,
        "kept for tokens that are new",
    );
    // The issuer is down, so that its new key cannot be checked.
    pass(PAUSE).await;
    expect(read(&tenants, &second).await, Err(503), "a new key");
    *fake.state() = State {
        keys: vec![new.public.clone()],
        ..State::default()
    };
    pass(PAUSE).await;
    expect(read(&tenants, &second).await, JANE, "new");
    expect(read(&tenants, &first).await, Err(503), "perhaps newer");
    pass(PAUSE).await;
    expect(read(&tenants, &first).await, Err(401), "withdrawn");
    let asked = fake.state().asked;
    for _ in 0..3 {
        expect(read(&tenants, &first).await, Err(503), "withdrawn");
    }
    assert_eq!(
        fake.state().asked,
        asked,
        "keys that nobody has cost the issuer nothing"
    );
}

#[tokio::test]
async fn no_token_of_a_new_key_is_refused_however_the_issuer_replaces_its_keys() {
    type Signers = fn() -> [Signer; 2];
    let kinds: [(&str, Signers); 3] = [
        ("new id", || {
            ["old", "new"].map(|id| Signer::new(id, Algorithm::ES256))
        }),
        ("same id", || {
            [(); 2].map(|()| Signer::new("only", Algorithm::ES256))
        }),
        ("no id", || {
            [(); 2].map(|()| Signer::new("", Algorithm::ES256).without_id())
        }),
    ];
    for (what, signers) in kinds {
        let [old, new] = signers();
        let fake = Fake::new(&[&old]);
        let tenants = fake.tenants();
        let sign = |signer: &Signer, claims: &Value| match what {
            "no id" => signer.sign_without_id(claims),
            _ => signer.sign(claims),
        };
        expect(
            read(&tenants, &sign(&old, &fake.claims())).await,
            JANE,
            what,
        );
        fake.state().keys = vec![new.public.clone()];
        let token = sign(&new, &fake.claims());
        let asked = fake.state().asked;
        // Within the pause, nobody can tell whether the issuer has a new key.
        for _ in 0..3 {
            let (name, value) = bearer(&token);
            let refusal = strangers::refused(&tenants, Some("acme"), &[(name, &value)]).await;
            assert_eq!(refusal.answer().status(), 503, "{what}");
            let Retry::After(pause) = refusal.rejection.retry else {
                panic!("{what}: {:?}", refusal.rejection);
            };
            assert!(pause <= Duration::from_secs(5), "{what}: {pause:?}");
        }
        assert_eq!(fake.state().asked, asked, "{what}");
        pass(PAUSE).await;
        for _ in 0..3 {
            expect(read(&tenants, &token).await, JANE, what);
        }
        assert_eq!(
            fake.state().asked,
            asked + 2,
            "{what}: discovery and keys, once"
        );
    }
}
