//! Credentials of service instances that Cloud Foundry has bound to this process.

use serde_json::{Map, Value};

use metrifold_base::Secret;
use metrifold_http::{BasicAuth, OAuth2};

/// Where the platform tells applications what is bound to them.
const VARIABLE: &str = "VCAP_SERVICES";

/// What a binding has.
#[derive(Debug)]
pub(super) enum Bound {
    Basic(BasicAuth),
    OAuth2(Box<OAuth2>),
}

/// The credentials of the service instance of this name. The error shows nothing of them.
pub(super) fn credentials(name: &str) -> Result<Bound, String> {
    match std::env::var(VARIABLE) {
        Ok(text) => read(name, &text),
        Err(_) => Err(format!(
            "no service is bound to this process: {VARIABLE} is not set"
        )),
    }
}

fn read(name: &str, text: &str) -> Result<Bound, String> {
    let services: Map<String, Value> =
        serde_json::from_str(text).map_err(|_| format!("{VARIABLE} is not what it should be"))?;
    let mut bindings = services.values().filter_map(Value::as_array).flatten();
    let is_it = |it: &&Value| {
        let names = ["instance_name", "name", "binding_name"];
        names.iter().any(|key| it[*key] == name)
    };
    let binding = bindings.find(is_it);
    let binding =
        binding.ok_or_else(|| format!("no service {name:?} is bound: cf bind-service"))?;
    let text = |names: [&str; 2]| {
        let found = names
            .iter()
            .find_map(|key| binding["credentials"][*key].as_str());
        found.map(str::to_owned)
    };
    let client = (
        text(["clientid", "client_id"]),
        text(["clientsecret", "client_secret"]),
    );
    if let ((Some(id), Some(secret)), Some(url)) = (client, text(["url", "uaa_url"])) {
        let mut keys = toml::Table::new();
        let place = format!("{}/oauth/token", url.trim_end_matches('/'));
        for (key, value) in [
            ("client_id", id),
            ("client_secret", secret),
            ("token_url", place),
        ] {
            keys.insert(key.to_owned(), value.into());
        }
        // What the error says could show the secret.
        let oauth2 = keys.try_into::<OAuth2>();
        let oauth2 =
            oauth2.map_err(|_| format!("the credentials of {name:?} hold no valid URL"))?;
        return Ok(Bound::OAuth2(Box::new(oauth2)));
    }
    if let (Some(username), Some(password)) =
        (text(["username", "user"]), text(["password", "pass"]))
    {
        return Ok(Bound::Basic(BasicAuth {
            username,
            password: Some(Secret::new(password)),
            password_file: None,
        }));
    }
    Err(format!(
        "the credentials of {name:?} are neither clientid, clientsecret and url nor username and password: write certificates to files, and name these under oauth2.tls"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = r#"{
        "xsuaa": [{ "name": "login", "credentials": {
            "clientid": "c", "clientsecret": "geheim", "url": "https://uaa.example", "verificationkey": "k" } }],
        "user-provided": [
            { "name": "pair", "credentials": { "username": "u", "password": "geheim" } },
            { "name": "other", "credentials": { "uri": "x://geheim" } }
        ]
    }"#;

    #[test]
    fn clients_and_users_are_found_by_the_name_of_their_service() {
        let Ok(Bound::OAuth2(oauth2)) = read("login", SERVICES) else {
            panic!("it is a client");
        };
        assert_eq!(oauth2.client_id, "c");
        let token_url = oauth2.token_url.uri().to_string();
        assert_eq!(token_url, "https://uaa.example/oauth/token");
        let Ok(Bound::Basic(basic)) = read("pair", SERVICES) else {
            panic!("it is a user");
        };
        assert_eq!(basic.username, "u");
    }

    #[test]
    fn what_is_not_found_is_explained_without_secrets() {
        for (name, text, expected) in [
            ("missing", SERVICES, "no service \"missing\" is bound"),
            ("other", SERVICES, "neither clientid"),
            ("login", "geheim", "VCAP_SERVICES is not"),
        ] {
            let error = read(name, text).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains("geheim"),
                "{error}"
            );
        }
    }
}
