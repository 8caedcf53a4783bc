//! The protobuf codec of every stub: decodes with prost, after the contract's rules have been enforced.
//!
//! Because it is the codec, a request is checked on every face alike and no handler can forget to. Answers of
//! the hub carry no rules, so clients pay nothing for it.

use std::marker::PhantomData;

use bytes::Buf;
use prost::{Message, Name};
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::contract::Contract;
use crate::schema::Schema;
use crate::validate::{self, Refusal, Violation};

/// Encodes `T`, decodes and validates `U`.
#[derive(Debug)]
pub struct ValidatingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ValidatingCodec<T, U> {
    fn default() -> Self {
        ValidatingCodec(PhantomData)
    }
}

impl<T, U> Codec for ValidatingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = tonic_prost::ProstEncoder<T>;
    type Decoder = ValidatingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        tonic_prost::ProstEncoder::new(tonic::codec::BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatingDecoder(PhantomData)
    }
}

/// Decodes and validates `U`.
#[derive(Debug)]
pub struct ValidatingDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for ValidatingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        if let Some(message) = Schema::get().message(&U::full_name()) {
            validate::check(message, &bytes).map_err(|refusal| refused(refusal, domain::<U>()))?;
        }
        U::decode(bytes).map(Some).map_err(|error| malformed(&error.to_string(), domain::<U>()))
    }
}

/// Whose word a refusal of a message is: that of the server whose contract the message belongs to.
fn domain<M: Name>() -> &'static str {
    Contract::of_package(M::PACKAGE).map_or("", |contract| contract.error_domain)
}

/// The status of a refused message: INVALID_ARGUMENT with `BadRequest` and `ErrorInfo` details.
fn refused(refusal: Refusal, domain: &str) -> Status {
    match refusal {
        Refusal::Malformed(why) => malformed(&why, domain),
        Refusal::Violations(violations) => invalid(&violations, domain),
    }
}

/// The status of fields that break rules, in the name of the server of that error domain; the message names the first.
pub fn invalid(violations: &[Violation], domain: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("INVALID_FIELD", domain, std::collections::HashMap::new());
    for violation in violations {
        details.add_bad_request_violation(&violation.field, &violation.description);
    }
    let message = match violations {
        [] => "the request is not valid".to_owned(),
        [only] => format!("{} {}", only.field, only.description),
        [first, rest @ ..] => format!("{} {} (and {} more)", first.field, first.description, rest.len()),
    };
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn malformed(why: &str, domain: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("MALFORMED_REQUEST", domain, std::collections::HashMap::new());
    Status::with_error_details(Code::InvalidArgument, format!("the request is no valid message: {why}"), details)
}
