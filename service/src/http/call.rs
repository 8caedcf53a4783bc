//! Asks the server's own gRPC services, in process.
//!
//! The services sit behind the same gate for every face, so the face hands on what the gate judges by (headers,
//! and extensions such as the peer's address) and adds one thing: the [`HttpCall`] it came from.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use http_body_util::BodyExt;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use super::HttpCall;
use super::error::Failure;

/// A successful answer of a service.
#[derive(Debug)]
pub struct Answer {
    /// The encoded message.
    pub message: Bytes,
    /// What the service wants sent to the HTTP client: cookies and the like.
    pub headers: HeaderMap,
}

/// Calls an rpc whose answer streams: the body of its frames, once it has begun, and headers for the HTTP client.
pub async fn streaming<S>(grpc: S, uri: &Uri, parts: Parts, message: &[u8]) -> Result<(Body, HeaderMap), Failure>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    let response = match grpc.oneshot(request(uri, parts, message)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (parts, body) = response.into_parts();
    let headers = forwarded(&parts.headers);
    match Status::from_header_map(&parts.headers).filter(|status| status.code() != Code::Ok) {
        Some(status) => Err(Failure::of(&status).with_headers(headers)),
        None => Ok((body, headers)),
    }
}

/// Calls the rpc at `uri` with the encoded `message`, in the name of the HTTP request that `parts` came from.
pub async fn unary<S>(grpc: S, uri: &Uri, parts: Parts, message: &[u8]) -> Result<Answer, Failure>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    let response = match grpc.oneshot(request(uri, parts, message)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (parts, body) = response.into_parts();
    let mut headers = forwarded(&parts.headers);
    if let Some(status) = Status::from_header_map(&parts.headers).filter(|status| status.code() != Code::Ok) {
        return Err(Failure::of(&status).with_headers(headers));
    }
    let body = body.collect().await.map_err(|_| Failure::internal("the answer broke off"))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    headers.extend(forwarded(&trailers));
    match Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&parts.headers)) {
        Some(status) if status.code() == Code::Ok => {}
        Some(status) => return Err(Failure::of(&status).with_headers(headers)),
        None => return Err(Failure::internal("the answer has no status")),
    }
    let message = unframed(body.to_bytes()).ok_or_else(|| Failure::internal("the answer is not one message"))?;
    Ok(Answer { message, headers })
}

fn request(uri: &Uri, mut parts: Parts, message: &[u8]) -> Request<Body> {
    let path = parts.uri.path().to_owned();
    let verb = std::mem::replace(&mut parts.method, Method::POST);
    // HTTP/1.1 names the host in a header, HTTP/2 in the request's target.
    let header = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let host = header.or_else(|| parts.uri.authority().map(|authority| authority.as_str().to_owned()));
    parts.extensions.insert(HttpCall { verb, path, host });
    parts.uri = uri.clone();
    parts.version = Version::HTTP_2;
    strip(&mut parts.headers);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let mut framed = Vec::with_capacity(5 + message.len());
    framed.push(0);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    Request::from_parts(parts, Body::from(framed))
}

/// Removes what belongs to the HTTP message or its connection and would mean something else on the new one.
fn strip(headers: &mut HeaderMap) {
    const ALWAYS: [&str; 13] = [
        "connection",
        "expect",
        "grpc-accept-encoding",
        "grpc-encoding",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let unwanted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let text = name.as_str();
            ALWAYS.contains(&text) || text.starts_with("content-") || text.starts_with("accept") || named.contains(name)
        })
        .cloned()
        .collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// The response metadata that HTTP clients get to see.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let shown = |name: &HeaderName| {
        *name == header::SET_COOKIE || *name == header::RETRY_AFTER || name.as_str().starts_with("x-")
    };
    headers.iter().filter(|(name, _)| shown(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The message inside one uncompressed gRPC frame.
fn unframed(body: Bytes) -> Option<Bytes> {
    let (prefix, message) = body.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = *prefix;
    let whole = compressed == 0 && u32::from_be_bytes(length) as usize == message.len();
    whole.then(|| body.slice(5..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        let request = Request::get("/x")
            .header("connection", "keep-alive, x-hop")
            .header("x-hop", "1")
            .header("content-length", "5")
            .header("accept-encoding", "gzip")
            .header("host", "h")
            .header("authorization", "Bearer t")
            .header("x-api-key", "k")
            .header("cookie", "a=b")
            .body(())
            .expect("valid");
        let made = super::request(&Uri::from_static("/s/M"), request.into_parts().0, b"abc");
        let mut names: Vec<_> = made.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-type", "cookie", "te", "x-api-key"]);
        let call = made.extensions().get::<HttpCall>().expect("it is marked");
        assert_eq!((call.verb.as_str(), call.path.as_str()), ("GET", "/x"));
    }

    #[test]
    fn an_answer_is_one_whole_frame() {
        assert_eq!(unframed(Bytes::from_static(&[0, 0, 0, 0, 1, 9])).as_deref(), Some(&[9][..]));
        for wrong in [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 2, 9], &[0, 0, 0, 0, 0, 9]] {
            assert_eq!(unframed(Bytes::copy_from_slice(wrong)), None);
        }
    }
}
