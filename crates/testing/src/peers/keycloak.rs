//! A real Keycloak in development mode, with its database in memory.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::built;
use super::chromium::USER;
use crate::{Answer, Deadline, Process, fetch, request};

/// Time for the start, which optimizes Keycloak for its options first.
const START: Duration = Duration::from_secs(400);

/// A running Keycloak, which is stopped when this is dropped.
pub struct Keycloak {
    address: SocketAddr,
    process: Process,
}

impl Keycloak {
    /// Starts Keycloak without waiting for it, so that the test can see it down first.
    #[track_caller]
    pub fn spawn(address: SocketAddr) -> Self {
        let mut command = Command::new("bash");
        command
            .arg(built("keycloak").join("bin/kc.sh"))
            .args(["start-dev", "--db", "dev-mem", "--http-host", "127.0.0.1"])
            .args(["--http-port", &address.port().to_string()])
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", "admin")
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", "admin")
            .env("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m")
            .stdout(Stdio::null());
        Self {
            address,
            process: Process::spawn(&mut command),
        }
    }

    /// Waits until Keycloak answers.
    #[track_caller]
    pub fn started(mut self) -> Self {
        let deadline = Deadline::within(START, "Keycloak answers");
        let known = "/realms/master/.well-known/openid-configuration";
        while !fetch(self.address, known).is_ok_and(|answer| answer.status == 200) {
            assert!(self.process.is_alive(), "{}", self.process.log());
            deadline.pause();
        }
        self
    }

    /// The issuer's URL of a realm.
    pub fn issuer(&self, realm: &str) -> String {
        format!("http://{}/realms/{realm}", self.address)
    }

    /// Adds a realm whose access tokens are valid for `seconds`. Its clients `agent` and `other` get
    /// tokens for the audiences `metrics` and `others` by their secrets. Its only user logs in with a
    /// browser at the client `gateway`, whose redirect URI is `callback`.
    #[track_caller]
    pub fn add_realm(&self, realm: &str, seconds: u64, callback: &str) {
        let machine = |client: &str, audience: &str| {
            json!({
                "clientId": client, "secret": format!("{client}-secret"),
                "serviceAccountsEnabled": true, "standardFlowEnabled": false,
                "protocolMappers": [{
                    "name": "audience", "protocol": "openid-connect",
                    "protocolMapper": "oidc-audience-mapper",
                    "config": { "included.custom.audience": audience, "access.token.claim": "true" },
                }],
            })
        };
        let gateway = json!({
            "clientId": "gateway", "secret": "gateway-secret", "redirectUris": [callback],
            "attributes": { "pkce.code.challenge.method": "S256" },
        });
        let [name, password] = USER;
        let user = json!({
            "username": name, "enabled": true, "email": "jane@example.org",
            "emailVerified": true, "firstName": "Jane", "lastName": "Doe",
            "credentials": [{ "type": "password", "value": password, "temporary": false }],
        });
        let realm = json!({
            "realm": realm, "enabled": true, "accessTokenLifespan": seconds,
            "clients": [machine("agent", "metrics"), machine("other", "others"), gateway],
            "users": [user],
        });
        self.admin("POST", "", &realm);
    }

    /// Gets an access token for a client by its secret.
    #[track_caller]
    pub fn token(&self, realm: &str, client: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id={client}&client_secret={client}-secret"
        );
        self.ask_for_token(realm, &form)
    }

    /// The public key of a realm, in each encoding that an attacker could use as a secret of HS256.
    #[track_caller]
    pub fn public_key(&self, realm: &str) -> Vec<Vec<u8>> {
        let answer = fetch(self.address, &format!("/realms/{realm}")).unwrap();
        let realm = answer.json();
        let key = realm["public_key"].as_str().unwrap();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----");
        let texts = [key.to_owned(), format!("{pem}\n"), pem];
        let texts = texts.into_iter().map(String::into_bytes);
        texts.chain([STANDARD.decode(key).unwrap()]).collect()
    }

    /// Makes a realm sign with a new key, and removes the previous one from its key set.
    #[track_caller]
    pub fn rotate(&self, realm: &str) {
        let path = format!("/{realm}/components");
        let found = self.admin(
            "GET",
            &format!("{path}?type=org.keycloak.keys.KeyProvider"),
            &Value::Null,
        );
        let found = found.json();
        let keys = found.as_array().unwrap().iter();
        let old: Vec<_> = keys
            .filter(|it| it["providerId"] == "rsa-generated")
            .collect();
        assert_eq!(old.len(), 1, "{found}");
        let new = json!({
            "name": "rotated", "providerId": "rsa-generated", "parentId": old[0]["parentId"],
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": { "priority": ["200"], "enabled": ["true"], "active": ["true"] },
        });
        self.admin("POST", &path, &new);
        let old = old[0]["id"].as_str().unwrap();
        self.admin("DELETE", &format!("{path}/{old}"), &Value::Null);
    }

    /// Sends a request to the admin API, at a path below `/admin/realms`.
    #[track_caller]
    fn admin(&self, method: &str, path: &str, body: &Value) -> Answer {
        let form = "grant_type=password&client_id=admin-cli&username=admin&password=admin";
        let authorization = format!("Bearer {}", self.ask_for_token("master", form));
        let headers = [
            ("authorization", &*authorization),
            ("content-type", "application/json"),
            ("connection", "close"),
        ];
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let path = format!("/admin/realms{path}");
        let answer = request(method, self.address, &path, &headers, body.as_bytes()).unwrap();
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
        answer
    }

    /// Sends a form to the token endpoint of a realm. Returns the access token.
    #[track_caller]
    fn ask_for_token(&self, realm: &str, form: &str) -> String {
        let path = format!("/realms/{realm}/protocol/openid-connect/token");
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("connection", "close"),
        ];
        let answer = request("POST", self.address, &path, &headers, form.as_bytes()).unwrap();
        let token = answer.json()["access_token"].as_str().map(str::to_owned);
        token.unwrap_or_else(|| panic!("{}", answer.text()))
    }
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        // `kc.sh` passes SIGTERM on to the server, which would survive a kill of the script.
        if self.process.is_alive() {
            self.process.terminate();
        }
    }
}
