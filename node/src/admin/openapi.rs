//! `GET /openapi.json`: what the API can be asked.

use serde_json::{Value, json};

/// Paths that are read: path, what it answers, and whether it is paged.
const READS: &[(&str, &str, bool)] = &[
    ("/healthz", "The process runs", false),
    ("/readyz", "The node serves", false),
    ("/metrics", "Prometheus's text format", false),
    ("/api/v1/node", "This node", false),
    ("/api/v1/members", "Nodes of the mesh, this one included", true),
    ("/api/v1/clients", "Connected clients", true),
    ("/api/v1/sessions", "Sessions of this node", true),
    ("/api/v1/handovers", "Sessions being handed over, to this node or from it", true),
    ("/api/v1/subscriptions", "Subscriptions of this node's sessions", true),
    ("/api/v1/routes", "Filters that nodes want", true),
    ("/api/v1/retained", "Retained messages", true),
    ("/api/v1/delayed", "Messages that wait to be published, the next first", true),
    ("/api/v1/topic-metrics", "Counts of registered topics", true),
    (
        "/api/v1/ledger",
        "Messages owed by class: opened, settled, held and by whom; the balance is 0",
        false,
    ),
    (
        "/api/v1/storage",
        "What lies on the disk: families, logs, free space, what was written",
        false,
    ),
    ("/api/v1/nearest", "Nodes that serve clients, nearest first", false),
];

/// The description.
#[must_use]
pub fn document() -> Value {
    let mut paths = serde_json::Map::new();
    for (path, summary, paged) in READS {
        let number = |name: &str, required: bool, kind: &str| json!({"name": name, "in": "query", "required": required, "schema": {"type": kind}});
        let parameters = match (*paged, *path) {
            (true, _) => vec![number("page", false, "integer"), number("limit", false, "integer")],
            (false, "/api/v1/nearest") => {
                vec![number("lat", true, "number"), number("lon", true, "number")]
            }
            (false, "/api/v1/ledger") => vec![json!({
                "name": "scope", "in": "query", "required": false,
                "schema": {"type": "string", "enum": ["node", "mesh"], "default": "node"},
            })],
            (false, _) => Vec::new(),
        };
        let operation = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": {"200": {"description": summary}},
        });
        paths.insert((*path).to_owned(), json!({ "get": operation }));
    }
    let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}});
    let kick = json!({
        "summary": "End a client's connection",
        "parameters": [id],
        "responses": {"200": {"description": "Done"}},
    });
    paths.insert("/api/v1/clients/{id}/kick".to_owned(), json!({ "post": kick }));
    let drain = json!({
        "summary": "Stop accepting, flush, and end the node",
        "responses": {"200": {"description": "Begun"}},
    });
    let one = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let answers = |status: &str, summary: &str, parameters: Value| {
        json!({
            "summary": summary,
            "parameters": parameters,
            "responses": {status: {"description": summary}},
        })
    };
    let topic = || json!([one("topic")]);
    paths.insert(
        "/api/v1/topic-metrics/{topic}".to_owned(),
        json!({
            "get": answers("200", "Counts of one topic", topic()),
            "delete": answers("200", "Count a topic no more", topic()),
        }),
    );
    let mut register = answers("201", "Count a topic from now on", json!([]));
    register["requestBody"] = json!({"content": {"application/json": {"schema": {
        "type": "object",
        "required": ["topic"],
        "properties": {"topic": {"type": "string"}},
    }}}});
    paths["/api/v1/topic-metrics"]["post"] = register;
    paths.insert("/api/v1/drain".to_owned(), json!({ "post": drain }));
    let reload = json!({
        "summary": "Read the configuration again: listeners, certificates and who needs credentials \
            take effect, what else has changed is named",
        "responses": {
            "200": {"description": "Done"},
            "422": {"description": "The configuration is wrong, and everything as before"},
        },
    });
    paths.insert("/api/v1/reload".to_owned(), json!({ "post": reload }));
    let backup = json!({
        "summary": "Copy all that the node keeps, as it is now, into a new directory of its machine",
        "requestBody": {"content": {"application/json": {"schema": {
            "type": "object",
            "required": ["dir"],
            "properties": {"dir": {"type": "string"}},
        }}}},
        "responses": {
            "200": {"description": "The backup's manifest"},
            "409": {"description": "The directory is not empty, or another backup is being taken"},
        },
    });
    paths.insert("/api/v1/backup".to_owned(), json!({ "post": backup }));
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Verge admin API", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    })
}
