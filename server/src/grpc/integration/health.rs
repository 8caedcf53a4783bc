//! IntegrationService: how an integration is.

use chrono::SubsecRound;
use tonic::{Request, Response, Status};
use upbridge_proto::v1::*;

use crate::grpc::{Door, convert, status};
use crate::model::Instant;
use crate::model::integration_health::{self as model, FORMULA};

pub async fn get(
    door: &Door,
    request: Request<GetIntegrationHealthRequest>,
) -> Result<Response<GetIntegrationHealthResponse>, Status> {
    let (_, message) = convert::open(request)?;
    let id = convert::uuid(&message.integration_id, "integration_id").map_err(status)?;
    let health = door.hub.integration_health(id, message.hours).await.map_err(status)?;
    Ok(Response::new(GetIntegrationHealthResponse {
        formula_version: FORMULA,
        window_start: Some(convert::timestamp(health.window.start)),
        window_end: Some(convert::timestamp(health.window.end)),
        health: Some(answer(health)),
    }))
}

fn answer(health: model::IntegrationHealth) -> IntegrationHealth {
    let requests = health.counted.requests;
    let test = health.last_test.as_ref();
    let count =
        |(label, count): &(&'static str, i64)| IntegrationErrorCount { r#type: (*label).to_owned(), count: *count };
    IntegrationHealth {
        integration_id: health.integration_id.to_string(),
        health_status: convert::number!(health.figures.status),
        health_score: health.figures.score,
        metrics: Some(IntegrationHealthMetrics {
            total_requests: requests.total(),
            success_count: requests.success,
            failed_count: requests.failed,
            success_rate: health.figures.success_rate.map(percent),
            avg_response_time: health.figures.avg_response_time,
            uptime: health.figures.uptime.map(percent),
        }),
        last_test: Some(IntegrationLastTest {
            tested_at: test.map(|test| second(test.at)),
            status: test.map(|test| convert::number!(test.status)),
            message: test.map(|test| test.message.clone()),
            days_since_last_test: health.days_since_last_test,
        }),
        error_distribution: health.errors.iter().map(count).collect(),
        recommendations: health.recommendations,
        checked_at: Some(second(health.window.end)),
    }
}

/// Tenths of a per cent.
fn percent(tenths: i64) -> f64 {
    tenths as f64 / 10.0
}

/// A time to the second, as the answer has it.
fn second(at: Instant) -> prost_types::Timestamp {
    convert::timestamp(at.trunc_subsecs(0))
}
