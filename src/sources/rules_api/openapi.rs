//! The API's description of itself.

use serde_json::{Map, Value, json};

use super::RulesApiConfig;

/// The OpenAPI document of an API that is configured so.
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
                "group" => json!({ "type": "string", "minLength": 1 }),
                _ => json!({ "type": "string", "pattern": NAME, "maxLength": 150 }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        });
        item["parameters"] = parameters.collect();
        paths.insert(path, item);
    };
    let mut status = get("the rules of all files of the tenant, as one document");
    let flag = Flag("status", "whether it is asked how it goes with the rules");
    if let Some(parameters) = status["parameters"].as_array_mut() {
        parameters.push(flag.value());
    }
    let mut versions = get("a file, its history or a version of it");
    if let Some(parameters) = versions["parameters"].as_array_mut() {
        parameters.push(Flag("history", "whether its versions are asked for").value());
        let id = json!({ "type": "string", "description": "the id of a version" });
        parameters.push(json!({ "name": "version", "in": "query", "schema": id }));
    }
    let whole = json!({
        "get": status,
        "put": put("replaces the file `rules`", "RuleFile"),
        "delete": delete("removes all files of the tenant; their history stays"),
    });
    add(format!("{tenant}/rules"), whole.clone());
    let raw = json!({ "get": whole["get"], "put": whole["put"] });
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
        let all = json!({
            "summary": "the rules of all tenants, whose names go before those of the groups",
            "responses": { "200": yaml("the rules") },
        });
        add(path.clone(), json!({ "get": all }));
        add(format!("{path}/{{tenant}}"), raw);
    }
    if let Some(path) = &config.ruler_path {
        for (path, item) in ruler(path) {
            add(path, item);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Rules of tenants", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas(config.thanos) },
    })
}

/// The paths of the configuration API of rulers, which takes the tenant from a header.
fn ruler(path: &str) -> [(String, Value); 3] {
    let scope = json!({
        "name": "X-Scope-OrgID",
        "in": "header",
        "required": true,
        "description": "the tenant, unless the caller is known to be of one",
        "schema": { "type": "string", "pattern": NAME, "maxLength": 150 },
    });
    let read = |summary: &str| {
        json!({
            "summary": summary,
            "parameters": [scope],
            "responses": {
                "200": yaml("groups, by namespace, or the group alone"),
                "400": error("a name or parameter is wrong"),
                "401": error("nothing says which tenant is meant"),
                "404": error("there are none"),
                "503": error("the store does not answer: try again"),
            },
        })
    };
    let accepted = json!({
        "202": {
            "description": "it is stored, or gone",
            "content": { "application/json": {} },
        },
        "400": error("what was sent is wrong, and where"),
        "401": error("nothing says which tenant is meant"),
        "404": error("there is none"),
        "413": error("the tenant would have more than it may"),
        "503": error("the store does not answer: try again"),
    });
    let remove =
        |summary: &str| json!({ "summary": summary, "parameters": [scope], "responses": accepted });
    let schema = json!({ "schema": { "$ref": "#/components/schemas/Group" } });
    let write = json!({
        "summary": "writes a group of a namespace, which is a file",
        "parameters": [scope],
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
            format!("{path}/{{file}}"),
            json!({
                "get": read("the groups of a namespace"),
                "post": write,
                "delete": remove("removes a namespace"),
            }),
        ),
        (
            format!("{path}/{{file}}/{{group}}"),
            json!({
                "get": read("a group of a namespace"),
                "delete": remove("removes a group of a namespace"),
            }),
        ),
    ]
}

/// Durations; what is empty is none.
const DURATION: &str = "^(0|([0-9]{1,2}y)?([0-9]{1,3}w)?([0-9]{1,4}d)?([0-9]{1,4}h)?([0-9]{1,4}m)?([0-9]{1,4}s)?([0-9]{1,4}ms)?)$";

/// Names of tenants and files.
const NAME: &str = "^[A-Za-z0-9!_*'()-][A-Za-z0-9!_.*'()-]*$";

/// The parameter of changes that are only tried.
const DRY_RUN: Flag = Flag("dry_run", "whether nothing is changed, and all is checked");

/// A parameter that is true or false.
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
        "description": "an ETag, or *",
        "schema": { "type": "string", "pattern": "^(\\*|\"[0-9A-Za-z]{1,64}\")$" },
    })
}

/// What the caller has already; a text that names nothing is passed over.
fn known() -> Value {
    json!({
        "name": "If-None-Match",
        "in": "header",
        "description": "ETags of what the caller has, or *",
        "schema": {},
    })
}

/// The condition of a change that nothing is there.
fn absent() -> Value {
    json!({
        "name": "If-None-Match",
        "in": "header",
        "description": "only if nothing is there",
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
            // Of the listener, before a request comes here.
            "text/plain": { "schema": { "type": "string" } },
        },
    })
}

fn get(summary: &str) -> Value {
    json!({
        "summary": summary,
        "parameters": [known()],
        "responses": {
            "200": yaml("what was asked for"),
            "304": { "description": "the caller has it already" },
            "400": error("a name or parameter is wrong"),
            "404": error("there is none"),
            "500": error("the file is damaged"),
            "503": error("the store does not answer: try again"),
        },
    })
}

fn changed() -> Value {
    json!({
        "200": {
            "description": "it is stored, or would be",
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Changed" } } },
        },
        "400": error("what was sent is wrong, and where"),
        "404": error("there is no such version"),
        "412": error("it is not what If-Match or If-None-Match says"),
        "413": error("the tenant would have more than it may"),
        "503": error("the store does not answer: try again"),
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
            "204": { "description": "it is gone" },
            "400": error("a name or parameter is wrong"),
            "404": error("there is none"),
            "412": error("it is not what If-Match says"),
            "503": error("the store does not answer: try again"),
        },
    })
}

/// The schemas of documents; only a Thanos knows partial responses.
fn schemas(thanos: bool) -> Value {
    let labels = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let text = json!({ "type": "string" });
    let duration = json!({ "type": "string", "description": "as in 1h30m", "minLength": 1, "pattern": DURATION });
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
                "name": { "type": "string", "minLength": 1 },
                "interval": duration,
                "query_offset": duration,
                "limit": { "type": "integer" },
                "labels": labels,
                "rules": { "type": ["array", "null"], "items": { "$ref": "#/components/schemas/Rule" } },
            },
        },
        "Rule": {
            "type": "object",
            "oneOf": [{ "required": ["record", "expr"] }, { "required": ["alert", "expr"] }],
            "additionalProperties": false,
            "properties": {
                "record": text,
                "alert": text,
                "expr": text,
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
        let strategy = json!({ "enum": ["warn", "abort"] });
        schemas["Group"]["properties"]["partial_response_strategy"] = strategy;
    }
    schemas
}
