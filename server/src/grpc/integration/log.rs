//! IntegrationService: what happened to an integration.

use tonic::{Request, Response, Status};
use upbridge_proto::v1::*;

use crate::grpc::{Door, convert, status};
use crate::model::Result as HubResult;
use crate::model::integration::{Action, LogStatus};
use crate::model::integration_log::dates::Dates;
use crate::model::integration_log::{LogEntry, LogFilter, LogList, LogPage};

pub async fn list(
    door: &Door,
    request: Request<ListIntegrationLogsRequest>,
) -> Result<Response<ListIntegrationLogsResponse>, Status> {
    let (_, message) = convert::open(request)?;
    let id = convert::uuid(&message.integration_id, "integration_id").map_err(status)?;
    let filter = filter(&message).map_err(status)?;
    let page = LogPage::new(message.page, message.limit);
    let listed = door.hub.list_integration_logs(id, &filter, page).await.map_err(status)?;
    Ok(Response::new(answer(listed, page)))
}

fn filter(message: &ListIntegrationLogsRequest) -> HubResult<LogFilter> {
    let action = message.action.map(|number| convert::known(Action::ALL, number, "action")).transpose()?;
    let status = message.status.map(|number| convert::known(LogStatus::ALL, number, "status")).transpose()?;
    let dates = Dates::parse(message.start_date.as_deref(), message.end_date.as_deref())?;
    Ok(LogFilter { action, status, dates })
}

fn answer(listed: LogList, page: LogPage) -> ListIntegrationLogsResponse {
    let stats = listed.counts.iter().map(|((action, status), count)| IntegrationLogStat {
        action: convert::number!(action),
        status: convert::number!(status),
        count: *count,
    });
    ListIntegrationLogsResponse {
        stats: stats.collect(),
        pagination: Some(IntegrationLogPagination {
            total: listed.total,
            page: page.number.cast_signed(),
            limit: page.size.cast_signed(),
            total_pages: i32::try_from(page.of(listed.total)).unwrap_or(i32::MAX),
        }),
        logs: listed.entries.into_iter().map(entry).collect(),
    }
}

fn entry(entry: LogEntry) -> IntegrationLog {
    let object = |json: Option<crate::model::Json>| json.as_ref().and_then(convert::structure);
    IntegrationLog {
        id: entry.id.to_string(),
        integration_id: entry.integration_id.to_string(),
        action: convert::number!(entry.action),
        status: convert::number!(entry.status),
        message: entry.message,
        request_data: object(entry.request),
        response_data: object(entry.response),
        error_details: object(entry.error),
        duration: entry.duration,
        ip_address: entry.ip,
        user_agent: entry.user_agent,
        user_id: entry.user_id.map(|id| id.to_string()),
        created_at: Some(convert::timestamp(entry.at)),
    }
}
