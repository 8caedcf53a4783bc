//! gRPC without types: any bytes to any path, as no generated stub would send them.

use std::str::FromStr;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

/// A connection that sends what it is told.
#[derive(Clone)]
pub struct RawClient {
    channel: Channel,
    bearer: Option<String>,
    packing: Option<CompressionEncoding>,
}

impl RawClient {
    pub async fn connect(url: String) -> RawClient {
        let channel = Endpoint::try_from(url).expect("a URL").connect().await.expect("a connection");
        RawClient { channel, bearer: None, packing: None }
    }

    pub fn with_bearer(&self, token: &str) -> RawClient {
        RawClient { bearer: Some(format!("Bearer {token}")), ..self.clone() }
    }

    /// The same, packing what it sends.
    pub fn packed(&self, packing: CompressionEncoding) -> RawClient {
        RawClient { packing: Some(packing), ..self.clone() }
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// One message, one answer.
    pub async fn call(&self, path: &str, message: impl Into<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
        let mut request = Request::new(message.into());
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.parse().expect("a header"));
        }
        self.send(path, request).await
    }

    pub async fn send(&self, path: &str, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        if let Some(packing) = self.packing {
            grpc = grpc.send_compressed(packing);
        }
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.unary(request, PathAndQuery::from_str(path).expect("a path"), Untyped).await
    }
}

/// The message as one gRPC frame, for hands that write HTTP/2 themselves.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

#[derive(Clone, Copy)]
struct Untyped;

impl Codec for Untyped {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Untyped;
    type Decoder = Untyped;

    fn encoder(&mut self) -> Untyped {
        Untyped
    }

    fn decoder(&mut self) -> Untyped {
        Untyped
    }
}

impl Encoder for Untyped {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Untyped {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
