//! Credentials of service instances that Cloud Foundry has bound to this process.

use serde_json::{Map, Value};

use metrifold_cloud_foundry::Bound;

/// Variable in which the platform passes the bindings of an application.
const VARIABLE: &str = "VCAP_SERVICES";

/// Reads the credentials of a service instance. Errors do not quote them.
pub(super) fn credentials(name: &str) -> Result<Bound, String> {
    match std::env::var(VARIABLE) {
        Ok(text) => read(name, &text),
        Err(_) => Err(format!(
            "no service is bound to this process: {VARIABLE} is not set"
        )),
    }
}

fn read(name: &str, text: &str) -> Result<Bound, String> {
    let services: Map<String, Value> = serde_json::from_str(text)
        .map_err(|_| format!("{VARIABLE} is not a JSON object of bound services"))?;
    let mut bindings = services.values().filter_map(Value::as_array).flatten();
    let is_it = |it: &&Value| {
        let names = ["instance_name", "name", "binding_name"];
        names.iter().any(|key| it[*key] == name)
    };
    let binding = bindings.find(is_it);
    let binding =
        binding.ok_or_else(|| format!("no service {name:?} is bound: cf bind-service"))?;
    Bound::read(name, &binding["credentials"])
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
