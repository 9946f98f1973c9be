//! The page about the server API: its methods, out of the document that the code makes of itself.

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::pages::escaped;
use super::{Answer, api, json, text, with_type};
use crate::config::Settings;

/// What the page may load: its own style, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const STYLE: &str = include_str!("../../ui/reference.css");

/// What is below the page's path: the page, the document, and the page's style.
pub(super) fn answer(settings: &Settings, method: &Method, rest: &str) -> Option<Answer> {
    if !matches!(rest, "" | "/" | "/openapi.json" | "/style.css") {
        return None;
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "the page is read with GET\n");
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(answer);
    }
    if rest == "/style.css" {
        return Some(with_type(StatusCode::OK, "text/css; charset=utf-8", STYLE.into()));
    }
    // A bug of ours, were it an error; the document has a test.
    let mut document = api::openapi().ok()?;
    document["servers"] = serde_json::json!([{ "url": settings.http_api.path }]);
    if rest == "/openapi.json" {
        return Some(json(StatusCode::OK, document.to_string()));
    }
    let page = page(&document, &settings.swagger_path, &settings.http_api.path);
    let mut answer = with_type(StatusCode::OK, "text/html; charset=utf-8", page.into());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(answer)
}

fn page(document: &Value, at: &str, api: &str) -> String {
    let (at, api) = (escaped(at), escaped(api));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Server API</title>\n\
         <link rel=\"stylesheet\" href=\"{at}/style.css\">\n<main>\n<h1>Server API</h1>\n\
         <p>Every call is a POST with a JSON object, and the key (<code>http_api.key</code>) in the header \
         <code>X-API-Key</code>. The answer is <code>{{\"result\": …}}</code> or \
         <code>{{\"error\": {{\"code\": …, \"message\": …}}}}</code>. The same as an OpenAPI document, for \
         generators of clients: <a href=\"{at}/openapi.json\">openapi.json</a>.</p>\n"
    );
    for (path, operation) in document["paths"].as_object().into_iter().flatten() {
        let operation = &operation["post"];
        let word = |value: &Value| escaped(value.as_str().unwrap_or_default());
        let name = escaped(path.trim_start_matches('/'));
        page.push_str(&format!(
            "<section id=\"{name}\">\n<h2><a href=\"#{name}\">{api}{}</a></h2>\n<p>{}.</p>\n",
            escaped(path),
            word(&operation["summary"]),
        ));
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let required = schema["required"].as_array();
        let fields = schema["properties"].as_object().filter(|fields| !fields.is_empty());
        if let Some(fields) = fields {
            page.push_str("<table>\n");
            for (field, shape) in fields {
                let is_required =
                    required.is_some_and(|required| required.iter().any(|one| one == field));
                page.push_str(&format!(
                    "<tr><td><code>{}</code></td><td>{}{}</td><td>{}</td></tr>\n",
                    escaped(field),
                    escaped(&type_of(shape)),
                    if is_required { ", required" } else { "" },
                    word(&shape["description"]),
                ));
            }
            page.push_str("</table>\n");
        }
        page.push_str("</section>\n");
    }
    page.push_str("</main>\n");
    page
}

/// The type of a field, for people: null is what may be left out anyway.
fn type_of(shape: &Value) -> String {
    let names = match &shape["type"] {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let named: Vec<&str> = names.into_iter().filter(|name| *name != "null").collect();
    if named.is_empty() { "any JSON".to_owned() } else { named.join(" or ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_and_field_of_the_document_is_on_the_page() {
        let document = api::openapi().unwrap();
        let page = page(&document, "/swagger", "/api");
        for (path, operation) in document["paths"].as_object().unwrap() {
            assert!(page.contains(&format!(">/api{path}</a>")), "{path}");
            let schema = &operation["post"]["requestBody"]["content"]["application/json"]["schema"];
            for field in schema["properties"].as_object().into_iter().flat_map(|all| all.keys()) {
                assert!(page.contains(&format!("<code>{field}</code>")), "{path}: {field}");
            }
        }
        assert_eq!(page.matches('<').count(), page.matches('>').count());
    }

    #[test]
    fn what_is_configured_cannot_break_out_of_the_page() {
        let page = page(&api::openapi().unwrap(), "/a\"><script>", "/<b>");
        assert!(!page.contains("<script>") && !page.contains("/<b>"));
    }
}
