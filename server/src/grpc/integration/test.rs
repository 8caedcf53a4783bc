//! TestConnection.

use tonic::{Request, Response, Status};
use upbridge_proto::v1::*;

use super::super::convert::number;
use super::super::{Door, convert, status};
use crate::domain::connection;

pub async fn test_connection(
    door: &Door,
    request: Request<TestConnectionRequest>,
) -> Result<Response<TestConnectionResponse>, Status> {
    let (ctx, message) = convert::open(request)?;
    let id = convert::uuid(&message.integration_id, "integration_id").map_err(status)?;
    let tested = door.hub.test_connection(&ctx, id).await.map_err(status)?;
    Ok(Response::new(answer(tested)))
}

fn answer(tested: connection::ConnectionTest) -> TestConnectionResponse {
    let connection::ConnectionTest { integration, status, message, tested_at, diagnosis } = tested;
    let latency_ms = diagnosis.millis();
    let fault = diagnosis.verdict.fault.as_ref();
    let diagnosis = ConnectionDiagnosis {
        error_class: fault.map(|fault| fault.code.class().as_str().to_owned()),
        error_code: fault.map(|fault| fault.code.as_str().to_owned()),
        latency_ms,
        provider_status: diagnosis.provider_status.map(i32::from),
        account: diagnosis.verdict.account,
        warnings: diagnosis.verdict.warnings,
    };
    let test = ConnectionTest {
        status: number!(status),
        message,
        details: Some(ConnectionTestDetails { environment: number!(integration.environment) }),
        tested_at: Some(convert::timestamp(tested_at)),
    };
    TestConnectionResponse { test: Some(test), diagnosis: Some(diagnosis) }
}
