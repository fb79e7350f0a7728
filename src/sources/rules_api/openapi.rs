//! The OpenAPI document of the API.

use serde_json::{Map, Value, json};

use super::RulesApiConfig;

/// Builds the OpenAPI document for a configuration.
pub(super) fn document(config: &RulesApiConfig) -> Value {
    let tenant = config.path.trim_end_matches('/');
    let mut paths = Map::new();
    let mut add = |path: String, item: Value| {
        let mut item = item;
        let names = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters = names.map(|name| {
            let schema = match name {
                "group" | "namespace" => json!({ "type": "string", "minLength": 1 }),
                _ => json!({ "type": "string", "pattern": NAME, "maxLength": 150 }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        });
        item["parameters"] = parameters.collect();
        may_fail(&mut item, config);
        paths.insert(path, item);
    };
    let joined = get("the rules of all files of the tenant, as one document");
    let mut status = joined.clone();
    if let Some(parameters) = status["parameters"].as_array_mut() {
        parameters.push(json!({
            "name": "status",
            "in": "query",
            "description": "whether the delivery state of the rules is returned; `local`: at the rulers behind this process alone",
            "schema": { "enum": ["true", "false", "local"] },
        }));
    }
    let mut versions = get("a file, its history or a version of it");
    if let Some(parameters) = versions["parameters"].as_array_mut() {
        parameters.push(Flag("history", "whether the versions of the file are returned").value());
        let id = json!({ "type": "string", "description": "the id of a version" });
        parameters.push(json!({ "name": "version", "in": "query", "schema": id }));
    }
    let whole = json!({
        "get": status,
        "put": put("replaces the file `rules`", "RuleFile"),
        "delete": delete("removes all files of the tenant; their history stays"),
    });
    add(format!("{tenant}/rules"), whole.clone());
    let raw = json!({ "get": joined, "put": whole["put"] });
    add(format!("{tenant}/api/v1/rules/raw"), raw.clone());
    add(
        format!("{tenant}/rules/{{file}}"),
        json!({
            "get": versions,
            "put": put("writes a file", "RuleFile"),
            "delete": delete("removes a file; its history stays"),
            "post": {
                "summary": "gives a file the text of an earlier version",
                "parameters": [
                    { "name": "rollback", "in": "query", "required": true, "schema": { "type": "string" } },
                    DRY_RUN.value(), condition("If-Match"),
                ],
                "responses": changed(),
            },
        }),
    );
    add(
        format!("{tenant}/rules/{{file}}/{{group}}"),
        json!({
            "get": get("a group of a file"),
            "put": put("writes a group of a file", "Group"),
            "delete": delete("removes a group of a file"),
        }),
    );
    if let Some(path) = &config.backend_path {
        let all = get("the rules of all tenants; names of groups are prefixed with the tenant");
        add(path.clone(), json!({ "get": all }));
        add(format!("{path}/{{tenant}}"), raw);
    }
    if let Some(path) = &config.ruler_path {
        for (path, item) in ruler(path) {
            add(path, item);
        }
    }
    let mut components = json!({ "schemas": schemas(config.thanos) });
    let schemes = schemes(config);
    let security: Vec<Value> = schemes.keys().map(|name| json!({ name: [] })).collect();
    if !schemes.is_empty() {
        components["securitySchemes"] = Value::Object(schemes);
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Rules of tenants", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": components,
    });
    if !security.is_empty() {
        document["security"] = json!(security);
    }
    document
}

/// The ways to authenticate, of which each is enough.
fn schemes(config: &RulesApiConfig) -> Map<String, Value> {
    let mut schemes = Map::new();
    let mut add = |name: &str, scheme: Value| drop(schemes.insert(name.to_owned(), scheme));
    let basic = json!({ "type": "http", "scheme": "basic" });
    let bearer = json!({ "type": "http", "scheme": "bearer" });
    let server = &config.server;
    if server.basic_auth.is_some() {
        add("basic", basic.clone());
    }
    if let Some(authorization) = &server.authorization {
        let scheme = authorization.scheme.to_ascii_lowercase();
        add("authorization", json!({ "type": "http", "scheme": scheme }));
    }
    // Which of them a tenant has is its own matter.
    if server.by_tenants() {
        add("basic", basic);
        add("bearer", bearer);
        add("certificate", json!({ "type": "mutualTLS" }));
    }
    schemes
}

/// Adds the answers that any request can get to the operations of a path.
fn may_fail(item: &mut Value, config: &RulesApiConfig) {
    let server = &config.server;
    let mut answers = vec![
        ("400", "a name, a parameter or the body is invalid"),
        (
            "413",
            "the body is too large, or a limit of the tenant is exceeded",
        ),
        (
            "500",
            "the stored file is damaged, or the request could not be handled",
        ),
        (
            "503",
            "the store fails, or too much is in progress: try again",
        ),
    ];
    if server.by_tenants() || server.basic_auth.is_some() || server.authorization.is_some() {
        answers.push(("401", "credentials are missing or wrong"));
    }
    if server.by_tenants() {
        answers.push(("403", "the caller may not do this"));
        answers.push(("404", "the tenant or the resource does not exist"));
        answers.push(("429", "a limit of the tenant is reached: try again"));
    }
    for method in ["get", "put", "post", "delete"] {
        let responses = item.pointer_mut(&format!("/{method}/responses"));
        let Some(responses) = responses.and_then(Value::as_object_mut) else {
            continue;
        };
        for (status, description) in &answers {
            let answer = responses.entry((*status).to_owned());
            answer.or_insert_with(|| error(description));
        }
    }
}

/// The paths of the configuration API of rulers, which takes the tenant from a header.
fn ruler(path: &str) -> [(String, Value); 3] {
    let scope = json!({
        "name": "X-Scope-OrgID",
        "in": "header",
        "required": true,
        "description": "the tenant; not needed if the caller's credentials determine it",
        "schema": { "type": "string", "pattern": NAME, "maxLength": 150 },
    });
    let read = |summary: &str| {
        json!({
            "summary": summary,
            "parameters": [scope, known()],
            "responses": {
                "200": yaml("groups, by namespace, or the group alone"),
                "304": { "description": "the caller has this version" },
                    "401": error("no header names a tenant"),
                "404": error("there are no groups"),
                },
        })
    };
    let accepted = json!({
        "202": {
            "description": "the change is stored",
            "content": { "application/json": {} },
        },
        "400": error("the request is invalid; the problems have positions"),
        "401": error("no header names a tenant"),
        "404": error("the resource does not exist"),
        "412": error("the condition of If-Match or If-None-Match is not met"),
    });
    let remove = |summary: &str| {
        json!({
            "summary": summary,
            "parameters": [scope, DRY_RUN.value(), condition("If-Match")],
            "responses": accepted,
        })
    };
    let schema = json!({ "schema": { "$ref": "#/components/schemas/Group" } });
    let write = json!({
        "summary": "writes a group of a namespace, which is a file",
        "parameters": [scope, DRY_RUN.value(), condition("If-Match"), absent()],
        "requestBody": {
            "required": true,
            "content": { "application/yaml": schema, "application/json": schema },
        },
        "responses": accepted,
    });
    [
        (
            path.to_owned(),
            json!({ "get": read("the groups of all namespaces of the tenant") }),
        ),
        (
            format!("{path}/{{namespace}}"),
            json!({
                "get": read("the groups of a namespace"),
                "post": write,
                "delete": remove("removes a namespace"),
            }),
        ),
        (
            format!("{path}/{{namespace}}/{{group}}"),
            json!({
                "get": read("a group of a namespace"),
                "delete": remove("removes a group of a namespace"),
            }),
        ),
    ]
}

/// Pattern of durations; an empty one is unset.
const DURATION: &str = "^(0|([0-9]{1,2}y)?([0-9]{1,3}w)?([0-9]{1,4}d)?([0-9]{1,4}h)?([0-9]{1,4}m)?([0-9]{1,4}s)?([0-9]{1,4}ms)?)$";

/// Pattern of a list of ETags without commas, or `*`.
const TAGS: &str = r#"^(\*|"[!#-+\--~]*"([ \t]*,[ \t]*"[!#-+\--~]*")*)$"#;

/// Pattern of the names of tenants and files.
const NAME: &str = "^[A-Za-z0-9!_*'()-][A-Za-z0-9!_.*'()-]*$";

/// Parameter that makes a change a dry run.
const DRY_RUN: Flag = Flag("dry_run", "whether the request is only checked");

/// Name and description of a boolean parameter.
struct Flag(&'static str, &'static str);

impl Flag {
    fn value(&self) -> Value {
        let Self(name, description) = self;
        json!({
            "name": name,
            "in": "query",
            "description": description,
            "schema": { "type": "boolean" },
        })
    }
}

fn condition(name: &str) -> Value {
    json!({
        "name": name,
        "in": "header",
        "description": "ETags, one of which the resource must have, or *",
        "schema": { "type": "string", "pattern": TAGS },
    })
}

/// The `If-None-Match` header of a read, with the versions that the caller has; malformed tags are
/// ignored.
fn known() -> Value {
    json!({
        "name": "If-None-Match",
        "in": "header",
        "description": "ETags of the versions that the caller has, or *",
        "schema": {},
    })
}

/// The `If-None-Match` header of a change: the resource must not exist.
fn absent() -> Value {
    json!({
        "name": "If-None-Match",
        "in": "header",
        "description": "change only if the resource does not exist",
        "schema": { "type": "string", "enum": ["*"] },
    })
}

fn yaml(description: &str) -> Value {
    json!({
        "description": description,
        "content": { "application/yaml": {}, "application/json": {} },
    })
}

fn error(description: &str) -> Value {
    json!({
        "description": description,
        "content": {
            "application/json": { "schema": { "$ref": "#/components/schemas/Error" } },
            // Plain text comes from the listener, which may refuse a request before this API sees it.
            "text/plain": { "schema": { "type": "string" } },
        },
    })
}

fn get(summary: &str) -> Value {
    json!({
        "summary": summary,
        "parameters": [known()],
        "responses": {
            "200": yaml("the resource"),
            "304": { "description": "the caller has this version" },
            "404": error("the resource does not exist"),
        },
    })
}

fn changed() -> Value {
    json!({
        "200": {
            "description": "the change is stored, or would be",
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Changed" } } },
        },
        "400": error("the request is invalid; the problems have positions"),
        "404": error("there is no such version"),
        "412": error("the condition of If-Match or If-None-Match is not met"),
    })
}

fn put(summary: &str, schema: &str) -> Value {
    let schema = json!({ "schema": { "$ref": format!("#/components/schemas/{schema}") } });
    json!({
        "summary": summary,
        "parameters": [DRY_RUN.value(), condition("If-Match"), absent()],
        "requestBody": {
            "required": true,
            "content": { "application/yaml": schema, "application/json": schema },
        },
        "responses": changed(),
    })
}

fn delete(summary: &str) -> Value {
    json!({
        "summary": summary,
        "parameters": [DRY_RUN.value(), condition("If-Match")],
        "responses": {
            "204": { "description": "the resource was removed" },
            "404": error("the resource does not exist"),
            "412": error("the condition of If-Match is not met"),
        },
    })
}

/// Schemas of documents; `thanos` adds the strategy for partial responses.
fn schemas(thanos: bool) -> Value {
    // Prometheus treats a key without a value as absent.
    let labels = json!({
        "type": ["object", "null"],
        "additionalProperties": { "type": ["string", "number", "boolean", "null"] },
    });
    // Any YAML scalar is read as text where text is expected.
    let scalar = json!({ "type": ["string", "number", "boolean"] });
    let name = json!({ "type": ["string", "number", "boolean", "null"] });
    let text = json!({ "type": "string" });
    let duration = json!({
        "description": "as in 1h30m",
        "anyOf": [
            { "type": "string", "minLength": 1, "pattern": DURATION },
            { "type": "null" },
            { "const": 0 },
        ],
    });
    let mut schemas = json!({
        "RuleFile": {
            "type": "object",
            "required": ["groups"],
            "additionalProperties": false,
            "properties": {
                "groups": { "type": "array", "items": { "$ref": "#/components/schemas/Group" } },
            },
        },
        "Group": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": false,
            "properties": {
                "name": { "type": ["string", "number", "boolean"], "minLength": 1 },
                "interval": duration,
                "query_offset": duration,
                "limit": { "type": ["number", "null"] },
                "labels": labels,
                "rules": { "type": ["array", "null"], "items": { "$ref": "#/components/schemas/Rule" } },
            },
        },
        "Rule": {
            "type": "object",
            // Exactly one of `record` and `alert` has a value; the other may be present without one.
            "anyOf": [{ "required": ["record", "expr"] }, { "required": ["alert", "expr"] }],
            "additionalProperties": false,
            "properties": {
                "record": name,
                "alert": name,
                "expr": scalar,
                "for": duration,
                "keep_firing_for": duration,
                "labels": labels,
                "annotations": labels,
            },
        },
        "Changed": {
            "type": "object",
            "properties": {
                "status": { "const": "success" },
                "changed": { "type": "boolean" },
                "dry_run": { "type": "boolean" },
                "version": text,
                "warnings": { "type": "array", "items": text },
            },
        },
        "Error": {
            "type": "object",
            "properties": {
                "status": { "const": "error" },
                "errorType": text,
                "error": text,
                "problems": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "line": { "type": "integer" },
                            "column": { "type": "integer" },
                            "key": text,
                            "message": text,
                        },
                    },
                },
            },
        },
    });
    if thanos {
        let strategy = json!({ "enum": ["warn", "abort", null] });
        schemas["Group"]["properties"]["partial_response_strategy"] = strategy;
    }
    schemas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: &str) -> Value {
        let config = format!(
            "address = \"127.0.0.1:0\"\ndirectory = \"/x\"\nbackend_path = \"/all\"\nruler_path = \"/ruler\"\n{keys}"
        );
        document(&toml::from_str(&config).unwrap())
    }

    fn answers(document: &Value, path: &str, method: &str) -> Vec<String> {
        let answers = &document["paths"][path][method]["responses"];
        answers.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn each_operation_tells_the_answers_that_it_can_get() {
        let file = "/api/metrics/v1/{tenant}/rules/{file}";
        let open = of("");
        assert_eq!(open["security"], Value::Null);
        let of_reads = ["200", "304", "400", "404", "413", "500", "503"];
        assert_eq!(answers(&open, file, "get"), of_reads);
        let of_changes = ["200", "400", "404", "412", "413", "500", "503"];
        assert_eq!(answers(&open, file, "put"), of_changes);
        let basic = of("basic_auth = { username = \"ann\", password = \"topsecret\" }");
        assert_eq!(basic["security"], json!([{ "basic": [] }]));
        let scheme = &basic["components"]["securitySchemes"]["basic"];
        assert_eq!(*scheme, json!({ "type": "http", "scheme": "basic" }));
        let tenants = of("access = \"tenants\"");
        assert_eq!(tenants["security"].as_array().unwrap().len(), 3);
        for (path, item) in tenants["paths"].as_object().unwrap() {
            for method in ["get", "put", "post", "delete"] {
                if item[method].is_null() {
                    continue;
                }
                let answers = answers(&tenants, path, method);
                for status in ["400", "401", "403", "404", "413", "429", "500", "503"] {
                    assert!(answers.contains(&status.to_owned()), "{method} {path}");
                }
                let is_change = method != "get";
                assert_eq!(answers.contains(&"412".to_owned()), is_change, "{path}");
            }
        }
        assert!(answers(&basic, file, "delete").contains(&"401".to_owned()));
        assert!(!answers(&basic, file, "delete").contains(&"429".to_owned()));
    }
}
