//! `/api/openapi.json`, and `/api/docs`, which shows it with Swagger UI.
//!
//! The viewer's files come out of an archive that is part of the executable: nothing is fetched from elsewhere,
//! so the page works in a closed network and tells nobody who reads it. A content security policy holds it to
//! that. The viewer's own validator badge, which would call its maker, is off.

use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::sync::{LazyLock, OnceLock};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

use super::{Api, openapi};

const INDEX: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="/api/docs/swagger-ui.css">
<link rel="icon" type="image/png" sizes="32x32" href="/api/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/api/docs/swagger-ui-bundle.js"></script>
<script src="/api/docs/start.js"></script>
</body>
</html>
"#;

const START: &str = r##"SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
"##;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Files of the viewer that its page refers to, with their types.
const FILES: [(&str, &str); 3] = [
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("favicon-32x32.png", "image/png"),
];

/// What is shown of one API.
pub struct Docs {
    api: &'static Api,
    index: Bytes,
    /// Made at the first request for it.
    document: OnceLock<Bytes>,
}

impl Docs {
    /// The page of an API, and its document.
    pub fn of(api: &'static Api) -> Docs {
        Docs { api, index: INDEX.replace("{title}", api.title).into(), document: OnceLock::new() }
    }

    /// The page or file at `path`, when there is one.
    pub fn page(&self, path: &str) -> Option<Response> {
        const UNTIL_CHANGED: &str = "no-cache";
        if path == "/api/openapi.json" {
            let document = self.document.get_or_init(|| openapi::document(self.api).into());
            return Some(answer("application/json", UNTIL_CHANGED, document.clone()));
        }
        let name = path.strip_prefix("/api/docs")?;
        match name {
            "" | "/" => Some(answer("text/html; charset=utf-8", UNTIL_CHANGED, self.index.clone())),
            "/start.js" => {
                Some(answer("text/javascript; charset=utf-8", UNTIL_CHANGED, Bytes::from_static(START.as_bytes())))
            }
            name => {
                let name = name.strip_prefix('/')?;
                let index = FILES.iter().position(|(file, _)| *file == name)?;
                Some(answer(FILES[index].1, "public, max-age=86400", VIEWER[index].clone()))
            }
        }
    }
}

/// The viewer's files, unpacked at the first request for one.
static VIEWER: LazyLock<[Bytes; FILES.len()]> = LazyLock::new(|| {
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).expect("the embedded archive is readable");
    let names: Vec<String> = archive.file_names().filter_map(Result::ok).map(Cow::into_owned).collect();
    FILES.map(|(file, _)| {
        let end = format!("/dist/{file}");
        let name = names.iter().find(|name| name.ends_with(&end)).expect("the embedded archive has the file");
        let mut bytes = Vec::new();
        let mut entry = archive.by_name(name).expect("the name was just listed");
        entry.read_to_end(&mut bytes).expect("the embedded archive is intact");
        bytes.into()
    })
});

fn answer(kind: &'static str, caching: &'static str, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let headers: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, caching),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_page_is_served_by_the_server_itself() {
        let docs = Docs::of(&crate::http::api::TESTED);
        let references: Vec<&str> = INDEX
            .split(['"'])
            .filter(|text| text.starts_with('/') || text.contains("://"))
            .chain(["/api/openapi.json", "/api/docs", "/api/docs/"])
            .collect();
        assert_eq!(references.len(), 7);
        for reference in references {
            assert!(docs.page(reference).is_some(), "{reference}");
        }
        assert!(docs.page("/api/docs/../x").is_none() && docs.page("/api/docsx").is_none());
        assert!(docs.index.windows(13).any(|text| text == b">Upbridge API"));
    }

    #[test]
    fn the_viewer_is_unpacked_whole() {
        assert!(VIEWER[1].len() > 1_000_000);
        assert!(VIEWER[2].starts_with(b"\x89PNG"));
    }
}
