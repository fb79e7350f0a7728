//! UAA: tokens for users, clients, passcodes and refresh tokens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::controller::decode;
use super::state::State;
use crate::endpoint::{Does, Reply, Seen};

/// `cf:` and `reader:client-geheim`.
const CLIENTS: [&str; 2] = ["Basic Y2Y6", "Basic cmVhZGVyOmNsaWVudC1nZWhlaW0="];

pub(super) fn answer(state: &mut State, seen: &Seen) -> Does {
    if state.manner.down {
        return Does::Close;
    }
    if seen.path != "/oauth/token" || seen.method != "POST" {
        return Reply::new(404).into();
    }
    let reply = match token(state, seen) {
        Ok(body) => Reply::new(200).body(body.to_string()),
        Err((error, why)) => {
            let body = json!({ "error": error, "error_description": why });
            Reply::new(401).body(body.to_string())
        }
    };
    let reply = reply.header("content-type", "application/json");
    match state.manner.uaa_hangs {
        true => Does::Hang(reply),
        false => reply.into(),
    }
}

fn token(state: &mut State, seen: &Seen) -> Result<Value, (&'static str, &'static str)> {
    let bad = ("unauthorized", "Bad credentials");
    let client = seen.header("authorization").unwrap_or_default();
    if !CLIENTS.contains(&client) {
        return Err(bad);
    }
    let text = String::from_utf8_lossy(&seen.body);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    let form: BTreeMap<&str, String> = pairs.map(|(name, it)| (name, decode(it))).collect();
    let value = |name: &str| form.get(name).map_or("", String::as_str);
    let hint = value("login_hint");
    let origin_fits = hint.is_empty() || hint == r#"{"origin":"ldap"}"#;
    let with_refresh = match value("grant_type") {
        "password" if !value("passcode").is_empty() => {
            if !state.tokens.passcodes.remove(value("passcode")) {
                return Err(("unauthorized", "Invalid passcode"));
            }
            true
        }
        "password" => {
            if value("username") != "admin" || value("password") != "geheim" || !origin_fits {
                return Err(bad);
            }
            true
        }
        "refresh_token" => {
            let shown = value("refresh_token");
            let good = match state.manner.single_use {
                true => state.tokens.refresh.remove(shown),
                false => state.tokens.refresh.contains(shown),
            };
            if !good {
                return Err((
                    "invalid_token",
                    "The token expired, was revoked, or is unknown",
                ));
            }
            true
        }
        "client_credentials" if client == CLIENTS[1] => false,
        _ => return Err(bad),
    };
    let access = format!("access-{}", state.number());
    let life = state.manner.token_life;
    let until = Instant::now() + Duration::from_secs_f64(life);
    state.tokens.access.insert(access.clone(), until);
    let mut body = json!({
        "access_token": access, "token_type": "bearer", "expires_in": life,
        "scope": "cloud_controller.read", "jti": "j",
    });
    if with_refresh {
        body["refresh_token"] = state.refresh_token().into();
    }
    Ok(body)
}
