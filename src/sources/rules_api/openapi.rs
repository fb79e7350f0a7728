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
    let whole = json!({
        "get": get("the rules of all files of the tenant, as one document"),
        "put": put("replaces the file `rules`", "RuleFile"),
        "delete": delete("removes all files of the tenant; their history stays"),
    });
    add(format!("{tenant}/rules"), whole.clone());
    let raw = json!({ "get": whole["get"], "put": whole["put"] });
    add(format!("{tenant}/api/v1/rules/raw"), raw.clone());
    add(
        format!("{tenant}/rules/{{file}}"),
        json!({
            "get": get("a file, its history or a version of it"),
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
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Rules of tenants", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

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
        "schema": { "type": "string" },
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
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
    })
}

fn get(summary: &str) -> Value {
    json!({
        "summary": summary,
        "parameters": [condition("If-None-Match")],
        "responses": {
            "200": yaml("what was asked for"),
            "304": { "description": "the caller has it already" },
            "400": error("a name or parameter is wrong"),
            "404": error("there is none"),
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
        "parameters": [DRY_RUN.value(), condition("If-Match"), condition("If-None-Match")],
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
        },
    })
}

fn schemas() -> Value {
    let labels = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let text = json!({ "type": "string" });
    let duration = json!({ "type": "string", "description": "as in 1h30m" });
    json!({
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
                "partial_response_strategy": { "enum": ["warn", "abort"] },
                "rules": { "type": "array", "items": { "$ref": "#/components/schemas/Rule" } },
            },
        },
        "Rule": {
            "type": "object",
            "required": ["expr"],
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
    })
}
