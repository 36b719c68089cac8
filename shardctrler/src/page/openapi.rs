//! The description of the routes (OpenAPI 3.1). A test compares it with the routes that there are.

use serde_json::{Value, json};

/// A route that is only read.
fn read(what: &str, kind: &str) -> Value {
    json!({"get": {"summary": what, "responses": {"200": {"description": what, "content": {kind: {}}}}}})
}

/// A route that takes a change; `codes`: how it may be refused.
fn change(what: &str, needs_token: bool, codes: &[(&str, &str)]) -> Value {
    let body = json!({"required": true, "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/Change"}}}});
    let refused = |why: &str| {
        json!({"description": why,
               "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}})
    };
    let mut responses: serde_json::Map<String, Value> =
        codes.iter().map(|(code, why)| ((*code).to_owned(), refused(why))).collect();
    responses.insert("200".to_owned(), json!({"description": what, "content": {"application/json": {}}}));
    let security = if needs_token { json!([{"token": []}]) } else { json!([]) };
    json!({"post": {"summary": what, "requestBody": body, "responses": responses, "security": security}})
}

/// The whole description.
pub(super) fn document() -> Value {
    let refusals = [
        ("400", "not a change"),
        ("403", "a page of another origin"),
        ("408", "the body came too late"),
        ("409", "refused by the controllers"),
        ("413", "more than 16 KiB"),
        ("415", "not JSON"),
        ("503", "not available, or its outcome is not known"),
    ];
    let mut of_act = refusals.to_vec();
    of_act.push(("401", "no token, or a wrong one"));
    let group = json!({"type": "integer", "minimum": 1});
    json!({
        "openapi": "3.1.0",
        "info": {"title": "A controller", "version": env!("CARGO_PKG_VERSION")},
        "paths": {
            "/": read("The page.", "text/html"),
            "/metrics": read("Metrics in Prometheus' text format.", "text/plain"),
            "/livez": read("Whether the process should go on.", "text/plain"),
            "/readyz": read("Whether requests may be sent here.", "text/plain"),
            "/v1/server": read("The status of this server.", "application/json"),
            "/v1/state": read("Everything that is known of the cluster now.", "application/json"),
            "/v1/slow": read("The slow requests of all servers.", "application/json"),
            "/v1/events": read("The same each second, as server-sent events.", "text/event-stream"),
            "/v1/openapi.json": read("This description.", "application/json"),
            "/v1/plan": change("What a change would make.", false, &refusals),
            "/v1/act": change("Makes a change.", true, &of_act),
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {"type": "object", "properties": {"error": {"type": "object", "properties": {
                    "code": {"type": "string"}, "message": {"type": "string"}, "next": {"type": "string"}}}}},
                "Change": {"type": "object", "required": ["verb"], "properties": {
                    "verb": {"enum": ["join", "leave", "move", "weight", "balance", "pin", "unpin"]},
                    "groups": {"type": "array", "maxItems": 64},
                    "group": group,
                    "shard": {"type": "integer", "minimum": 0},
                    "weight": {"type": "integer", "minimum": 0},
                    "by": {"enum": ["count", "bytes", "load"]},
                    "force": {"type": "boolean"},
                    "partial": {"type": "boolean"}}},
            },
        },
    })
}
