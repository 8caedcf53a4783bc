//! The description of an HTTP face as OpenAPI 3.1, read out of the contract: its bindings, rules, policies and
//! comments. Nothing is written by hand but the frame, so the description cannot lag behind.

mod comment;
mod component;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use upbridge_proto::schema::{Binding, Kind, Method, Policy, Schema, Shape, path_variables};

use self::comment::Comments;
use self::component::{Components, Way, short};
use super::Api;
use super::casing::Casing;

/// What is said of every API after what it is for.
const MANNERS: &str = "Every endpoint is also an rpc of the gRPC services named in the tags.\n\nAnswers are `{\"success\": true, \"data\": …}`, refusals \
`{\"success\": false, \"error\": …}`. Member names are understood in snake_case and in lowerCamelCase; answers \
under `/api/admin` and `/api/payments` use lowerCamelCase, all others snake_case. A member the contract does not \
know is an error.";

/// Refusals that an operation may name, with the HTTP status and the component they refer to.
const REFUSALS: [(&str, &str, &str); 7] = [
    ("400", "BadRequest", "The request breaks a rule; `details` names the fields."),
    ("401", "Unauthenticated", "No credential was sent, or it is not good."),
    ("403", "Forbidden", "The caller may not do this."),
    ("404", "NotFound", "The named thing does not exist, or the caller may not see it."),
    ("409", "Conflict", "A unique value is taken."),
    ("429", "TooManyRequests", "A rate limit or the plan's monthly limit is reached."),
    ("503", "Unavailable", "The {server} cannot do it now; try again."),
];

/// The document of an API, as text.
pub fn document(api: &Api) -> String {
    format!("{:#}\n", describe(api))
}

fn describe(api: &Api) -> Value {
    let comments = Comments::of(api.contract);
    let mut components = Components::new(api.contract, &comments);
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut tags: Vec<&str> = Vec::new();
    for method in api.contract.methods().iter().filter(|method| !method.client_streaming) {
        for (index, binding) in method.bindings.iter().enumerate() {
            if !tags.contains(&&*method.service) {
                tags.push(&method.service);
            }
            let operation = operation(api, method, binding, index, &comments, &mut components);
            paths.entry(&binding.template).or_default().insert(binding.verb.to_lowercase(), operation);
        }
    }
    let tags = tags.into_iter().map(|service| json!({"name": short(service), "description": comments.get(service)}));
    let mut schemas = components.finish();
    schemas.insert("Error".into(), error(api));
    let responses: Map<String, Value> = REFUSALS
        .iter()
        .map(|(_, name, text)| ((*name).into(), refusal(&text.replace("{server}", api.server))))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": api.title,
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!("{} {MANNERS}", api.about),
        },
        "servers": [{"url": "/"}],
        "tags": tags.collect::<Vec<_>>(),
        "paths": paths,
        "components": {"schemas": schemas, "responses": responses, "securitySchemes": schemes(api)},
    })
}

fn operation(
    api: &Api,
    method: &Method,
    binding: &Binding,
    index: usize,
    comments: &Comments,
    components: &mut Components<'_>,
) -> Value {
    let (service, casing) = (short(&method.service), Casing::of(&binding.template));
    let id = format!("{service}_{}", method.name);
    let (summary, description) = comments.parts(&format!("{}.{}", method.service, method.name));
    let mut out = json!({
        "tags": [service],
        "operationId": if index == 0 { id } else { format!("{id}_{}", index + 1) },
        "summary": summary,
    });
    if !description.is_empty() {
        out["description"] = json!(description);
    }
    let parameters = parameters(method, binding, casing, components);
    if !parameters.is_empty() {
        out["parameters"] = json!(parameters);
    }
    if is_raw(method) {
        let what = "Whatever the caller sends, byte for byte.";
        out["requestBody"] = json!({"description": what, "required": true, "content": {"*/*": {"schema": {}}}});
    } else if binding.body {
        out["requestBody"] = body(method, binding, casing, components);
    }
    let mut responses = Map::new();
    responses.insert(method.success_status.to_string(), success(method, binding, casing, components));
    for (status, name, _) in REFUSALS.iter().filter(|(status, ..)| may_answer(status, method, binding, comments)) {
        responses.insert((*status).into(), json!({"$ref": format!("#/components/responses/{name}")}));
    }
    out["responses"] = Value::Object(responses);
    out["security"] = security(api, method.policy.as_ref(), &binding.template);
    out
}

/// Whether the body is nothing the contract describes.
fn is_raw(method: &Method) -> bool {
    method.policy.as_ref().is_some_and(|policy| policy.raw_body)
}

/// Indexes of the request fields that the path gives.
fn in_path(method: &Method, binding: &Binding) -> Vec<usize> {
    let input = &Schema::get().messages[method.input];
    path_variables(&binding.template).filter_map(|name| Some(input.field_by_json(name)?.0)).collect()
}

fn parameters(method: &Method, binding: &Binding, casing: Casing, components: &mut Components<'_>) -> Vec<Value> {
    let input = &Schema::get().messages[method.input];
    let mut out = Vec::new();
    for name in path_variables(&binding.template) {
        let Some((_, field)) = input.field_by_json(name) else { continue };
        let schema = components.field(field, casing, Way::Request);
        let description = components.describe(input, field);
        out.push(json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema}));
    }
    let given = in_path(method, binding);
    let in_query = !binding.body && !is_raw(method);
    let rest = input.fields.iter().enumerate().filter(|(index, _)| in_query && !given.contains(index));
    for (_, field) in rest {
        // A query carries single values and lists of them.
        if matches!(field.kind, Kind::Message(id) if Schema::get().messages[id].shape != Shape::Timestamp) {
            continue;
        }
        let schema = components.field(field, casing, Way::Request);
        let mut parameter = json!({"name": casing.name(field), "in": "query", "required": field.rules.required});
        parameter["description"] = json!(components.describe(input, field));
        parameter["schema"] = schema;
        out.push(parameter);
    }
    out
}

fn body(method: &Method, binding: &Binding, casing: Casing, components: &mut Components<'_>) -> Value {
    let given = in_path(method, binding);
    let input = &Schema::get().messages[method.input];
    let schema = if given.is_empty() {
        components.message(method.input, casing, Way::Request)
    } else {
        components.object(input, casing, Way::Request, &given)
    };
    let needed = input.fields.iter().enumerate().any(|(index, field)| field.rules.required && !given.contains(&index));
    let mut content = json!({"schema": schema});
    if method.name == "RecordUsage" {
        content["example"] = json!({"usage_data": {
            "batch_name": "my-video-batch-001",
            "batch_type": "video",
            "usage_type": "local_rendering",
            "usage_amount": 1,
            "month_year": "2024-01",
            "completed_at": "2024-01-15T10:30:00.000Z",
            "metadata": {"video_count": 5, "processing_time": "2 minutes"},
        }});
    }
    json!({"required": needed, "content": {"application/json": content}})
}

fn success(method: &Method, binding: &Binding, casing: Casing, components: &mut Components<'_>) -> Value {
    let output = &Schema::get().messages[method.output];
    if method.server_streaming {
        let schema = components.message(method.output, casing, Way::Answer);
        let text = "Server-sent events: the data of each is this, as JSON.";
        return json!({"description": text, "content": {"text/event-stream": {"schema": schema}}});
    }
    let mut properties = Map::new();
    properties.insert("success".into(), json!({"const": true}));
    match binding.response_body.as_deref().and_then(|name| output.field_by_json(name)) {
        None => {
            properties.insert("data".into(), components.message(method.output, casing, Way::Answer));
        }
        Some((data, field)) => {
            properties.insert("data".into(), components.property(output, field, casing, Way::Answer));
            for (_, field) in output.fields.iter().enumerate().filter(|(index, _)| *index != data) {
                let name = casing.name(field).to_owned();
                properties.insert(name, components.property(output, field, casing, Way::Answer));
            }
        }
    }
    let required: Vec<String> = properties.keys().cloned().collect();
    let schema = json!({"type": "object", "required": required, "properties": properties});
    json!({"description": "Done.", "content": {"application/json": {"schema": schema}}})
}

/// Whether the operation can end so. What the comment of the rpc says of its errors is followed to the rpc it
/// refers to (`Errors: as RecordUsage`).
fn may_answer(status: &str, method: &Method, binding: &Binding, comments: &Comments) -> bool {
    let says = |word: &str| {
        let own = comments.get(&format!("{}.{}", method.service, method.name));
        let other = own.split_once("rrors: as ").map(|(_, rest)| rest.trim_end_matches('.'));
        let other = other.map_or("", |name| comments.get(&format!("{}.{name}", method.service)));
        own.contains(word) || other.contains(word)
    };
    match status {
        // Who proves nothing is told nothing, not even whether the thing exists.
        "403" | "404" if is_raw(method) => false,
        "403" => method.policy.as_ref().is_some_and(|policy| !policy.public) || says("PERMISSION_DENIED"),
        "404" => binding.template.contains('{') || says("NOT_FOUND"),
        "409" => says("ALREADY_EXISTS") || says("ABORTED"),
        _ => true,
    }
}

fn security(api: &Api, policy: Option<&Policy>, template: &str) -> Value {
    let Some(policy) = policy else { return json!([]) };
    let mut out = Vec::new();
    if policy.public && (policy.user || policy.admin || policy.service) {
        out.push(json!({}));
    }
    if policy.user || policy.admin {
        out.push(json!({"bearerAuth": []}));
    }
    if policy.admin && template.starts_with("/api/admin/") && api.session_cookie.is_some() {
        out.push(json!({"sessionCookie": []}));
    }
    if policy.service {
        out.push(json!({"serviceKey": []}));
    }
    // A proof of the caller's own making is no scheme of ours.
    if policy.webhook.is_some() && !policy.raw_body {
        out.push(json!({"webhookSignature": []}));
    }
    json!(out)
}

fn schemes(api: &Api) -> Value {
    let mut schemes = json!({
        "bearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": api.token},
    });
    if let Some(cookie) = api.session_cookie {
        schemes["sessionCookie"] = json!({
            "type": "apiKey", "in": "cookie", "name": cookie,
            "description": "An administrator's session in the browser; only under `/api/admin`.",
        });
    }
    schemes["serviceKey"] =
        json!({"type": "apiKey", "in": "header", "name": "x-api-key", "description": api.service_key});
    if api.contract.methods().iter().any(|method| method.policy.as_ref().is_some_and(|one| one.webhook.is_some())) {
        schemes["webhookSignature"] = json!({
            "type": "apiKey", "in": "header", "name": "X-Webhook-Signature",
            "description": "Hex HMAC-SHA256 of the raw body with WEBHOOK_SECRET; with `X-Webhook-Timestamp`, of `timestamp.body`. The headers of Standard Webhooks and a `signature` in the body serve as well.",
        });
    }
    schemes
}

fn refusal(text: &str) -> Value {
    let schema = json!({"$ref": "#/components/schemas/Error"});
    json!({"description": text, "content": {"application/json": {"schema": schema}}})
}

fn error(api: &Api) -> Value {
    let detail = json!({
        "type": "object",
        "required": ["field", "description"],
        "properties": {
            "field": {"type": "string", "description": "Path of the field, such as `usage_data.month_year`."},
            "description": {"type": "string", "description": "What is wrong with it, for people."},
        },
    });
    let error = json!({
        "type": "object",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {"type": "string", "description": "The gRPC code, such as `INVALID_ARGUMENT`."},
            "message": {"type": "string", "description": "What is wrong, for people."},
            "reason": {"type": "string", "description": "Why, for programs, such as `INVALID_FIELD`."},
            "details": {"type": "array", "items": detail, "description": "Every field at fault; may be empty."},
            "metadata": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "What belongs to the reason, such as the limit that was reached.",
            },
        },
    });
    json!({
        "type": "object",
        "description": "A refusal.",
        "required": ["success", "error"],
        "properties": {
            "success": {"const": false},
            "error": error,
            "request_id": {"type": "string", "description": format!("Finds the request in the {}'s log.", api.server)},
        },
    })
}

#[cfg(test)]
mod tests;
