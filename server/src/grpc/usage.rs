//! UsageService.

use prost::{Message, Name};
use tonic::{Request, Response, Status, Streaming};
use upbridge_proto::schema::Schema;
use upbridge_proto::v1::usage_service_server::UsageService;
use upbridge_proto::v1::*;
use upbridge_proto::validate::{self, Refusal};

use super::{Door, convert, status};
use crate::model::page::Page;
use crate::model::usage::{Outcome, Record, Recorded, Report, Source, UsageFilter};
use crate::model::{Ctx, Error, Instant, Result as HubResult};

/// Reports of one message, and of one stream.
const MESSAGE_REPORTS: usize = 1_000;
const STREAM_REPORTS: usize = 20_000;
/// The header that may carry the key, as HTTP APIs have it.
const KEY_HEADER: &str = "idempotency-key";

#[tonic::async_trait]
impl UsageService for Door {
    async fn record_usage(
        &self,
        request: Request<RecordUsageRequest>,
    ) -> Result<Response<RecordUsageResponse>, Status> {
        let header = key_header(&request)?;
        let (ctx, message) = convert::open(request)?;
        let report = UsageReport {
            usage_data: message.usage_data,
            digiup_user_id: message.digiup_user_id,
            idempotency_key: message.idempotency_key.or(header),
        };
        let report = read(&ctx, report, Source::RecordUsage, self.hub.now()).map_err(status)?;
        let recorded = self.hub.record_usage(report).await.map_err(status)?;
        Ok(Response::new(RecordUsageResponse {
            usage_id: recorded.record.id.to_string(),
            duplicate: recorded.outcome == Outcome::Duplicate,
            outcome: outcome(recorded.outcome).into(),
            usage: Some(record(&recorded.record)),
        }))
    }

    async fn record_usage_stream(
        &self,
        request: Request<Streaming<RecordUsageStreamRequest>>,
    ) -> Result<Response<RecordUsageStreamResponse>, Status> {
        let (ctx, mut messages) = convert::open(request)?;
        let mut answer = RecordUsageStreamResponse::default();
        while let Some(message) = messages.message().await? {
            let total = answer.results.len() + message.reports.len();
            if message.reports.len() > MESSAGE_REPORTS || total > STREAM_REPORTS {
                let most = format!("must be {MESSAGE_REPORTS} in a message and {STREAM_REPORTS} in a stream at most");
                return Err(status(Error::invalid("reports", most)));
            }
            let now = self.hub.now();
            let read: Vec<HubResult<Report>> =
                message.reports.into_iter().map(|report| checked(&ctx, report, now)).collect();
            let good: Vec<Report> = read.iter().filter_map(|report| report.as_ref().ok().cloned()).collect();
            let mut recorded = self.hub.record_many(good).await.map_err(status)?.into_iter();
            for report in read {
                let result = report.and_then(|_| recorded.next().unwrap_or_else(|| Err(Error::internal("no answer"))));
                count(&mut answer, result);
            }
        }
        Ok(Response::new(answer))
    }

    async fn create_batch(
        &self,
        request: Request<CreateBatchRequest>,
    ) -> Result<Response<CreateBatchResponse>, Status> {
        let header = key_header(&request)?;
        let (ctx, message) = convert::open(request)?;
        let report = UsageReport {
            usage_data: Some(UsageData {
                batch_name: message.batch_name,
                batch_type: message.batch_type,
                usage_type: message.usage_type,
                usage_amount: message.usage_amount,
                month_year: message.month_year,
                completed_at: message.completed_at,
                metadata: message.metadata,
                usage_id: message.usage_id,
            }),
            digiup_user_id: message.digiup_user_id,
            idempotency_key: message.idempotency_key.or(header),
        };
        let report = read(&ctx, report, Source::CreateBatch, self.hub.now()).map_err(status)?;
        let recorded = self.hub.record_usage(report).await.map_err(status)?;
        Ok(Response::new(CreateBatchResponse {
            usage_id: recorded.record.id.to_string(),
            duplicate: recorded.outcome == Outcome::Duplicate,
            outcome: outcome(recorded.outcome).into(),
            usage: Some(record(&recorded.record)),
        }))
    }

    async fn get_monthly_usage(
        &self,
        request: Request<GetMonthlyUsageRequest>,
    ) -> Result<Response<GetMonthlyUsageResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let subject = convert::uuid_or_none(message.digiup_user_id.as_deref(), "digiup_user_id").map_err(status)?;
        let month = convert::month_or_none(message.month_year.as_deref(), "month_year").map_err(status)?;
        let usage = self.hub.get_monthly_usage(&ctx, subject, month).await.map_err(status)?;
        let total = |key: fn(&crate::model::usage::MonthlySum) -> &str| {
            let mut totals: Vec<UsageTotal> = Vec::new();
            for sum in &usage.sums {
                let at = totals.iter().position(|total| total.r#type == key(sum)).unwrap_or_else(|| {
                    totals.push(UsageTotal { r#type: key(sum).to_owned(), total: 0, batches: 0 });
                    totals.len() - 1
                });
                totals[at].total += sum.amount;
                totals[at].batches += sum.batches;
            }
            totals.sort_by(|one, other| one.r#type.cmp(&other.r#type));
            totals
        };
        Ok(Response::new(GetMonthlyUsageResponse {
            user_id: usage.user_id.to_string(),
            month_year: usage.month.to_string(),
            total: usage.total(),
            batches: usage.sums.iter().map(|sum| sum.batches).sum(),
            by_type: total(|sum| &sum.usage_type),
            by_batch_type: total(|sum| &sum.batch_type),
            is_partial: usage.month.end() > usage.as_of,
            as_of: Some(convert::timestamp(usage.as_of)),
        }))
    }

    async fn list_usage(&self, request: Request<ListUsageRequest>) -> Result<Response<ListUsageResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let subject = convert::uuid_or_none(message.digiup_user_id.as_deref(), "digiup_user_id").map_err(status)?;
        let filter = UsageFilter {
            month: convert::month_or_none(message.month_year.as_deref(), "month_year").map_err(status)?,
            usage_type: message.usage_type,
            batch_type: message.batch_type,
        };
        let bound = format!("usage {:?} {filter:?}", ctx.subject(subject, "digiup_user_id").map_err(status)?);
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &bound).map_err(status)?;
        let listed = self.hub.list_usage(&ctx, subject, &filter, &page).await.map_err(status)?;
        let usage = listed.items.iter().map(record).collect();
        Ok(Response::new(ListUsageResponse { usage, next_page_token: listed.next }))
    }
}

/// The key of the header, 255 characters at most like the field's.
fn key_header<T>(request: &Request<T>) -> Result<Option<String>, Status> {
    let Some(value) = request.metadata().get(KEY_HEADER) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            Err(status(Error::invalid("idempotency_key", "must have 1 to 255 visible ASCII characters in the header")))
        }
    }
}

/// One report of a stream: the codec let it pass unread, so that a bad one is answered and not the end of all.
fn checked(ctx: &Ctx, report: UsageReport, now: Instant) -> HubResult<Report> {
    if let Some(message) = Schema::get().message(&UsageReport::full_name()) {
        validate::check(message, &report.encode_to_vec()).map_err(|refusal| match refusal {
            Refusal::Malformed(why) => Error::invalid("reports", why),
            Refusal::Violations(mut all) => {
                let first = all.swap_remove(0);
                Error::invalid(first.field, first.description)
            }
        })?;
    }
    read(ctx, report, Source::Stream, now)
}

/// What a message reports, for the user it is about.
pub(super) fn read(ctx: &Ctx, report: UsageReport, source: Source, now: Instant) -> HubResult<Report> {
    let data = report.usage_data.ok_or_else(|| Error::invalid("usage_data", "is required"))?;
    let named = convert::uuid_or_none(report.digiup_user_id.as_deref(), "digiup_user_id")?;
    Ok(Report {
        user_id: ctx.subject(named, "digiup_user_id")?,
        key: report.idempotency_key.or(data.usage_id),
        month: convert::month_or_none(data.month_year.as_deref(), "usage_data.month_year")?,
        completed_at: data.completed_at.map(|at| convert::instant(at, "usage_data.completed_at")).transpose()?,
        metadata: data.metadata.map(|object| convert::json(object, "usage_data.metadata")).transpose()?,
        batch_name: data.batch_name,
        batch_type: data.batch_type,
        usage_type: data.usage_type,
        amount: data.usage_amount,
        source,
        received_at: now,
    })
}

fn count(answer: &mut RecordUsageStreamResponse, result: HubResult<Recorded>) {
    let result = match result {
        Ok(recorded) => {
            match recorded.outcome {
                Outcome::Created => answer.created += 1,
                Outcome::Duplicate => answer.duplicates += 1,
                Outcome::Amended => answer.amended += 1,
            }
            let outcome = outcome(recorded.outcome).into();
            UsageResult { outcome, usage_id: recorded.record.id.to_string(), ..UsageResult::default() }
        }
        Err(error) => {
            answer.rejected += 1;
            let field = match &error {
                Error::Invalid { field, .. } => field.clone(),
                _ => String::new(),
            };
            UsageResult {
                outcome: UsageOutcome::Rejected.into(),
                usage_id: String::new(),
                reason: error.reason().as_str().to_owned(),
                field,
                message: error.to_string(),
            }
        }
    };
    answer.results.push(result);
}

fn outcome(outcome: Outcome) -> UsageOutcome {
    match outcome {
        Outcome::Created => UsageOutcome::Created,
        Outcome::Duplicate => UsageOutcome::Duplicate,
        Outcome::Amended => UsageOutcome::Amended,
    }
}

fn record(record: &Record) -> UsageRecord {
    UsageRecord {
        id: record.id.to_string(),
        user_id: record.user_id.to_string(),
        creatorup_user_id: record.creatorup_user_id.clone(),
        batch_name: record.batch_name.clone(),
        batch_type: record.batch_type.clone(),
        usage_type: record.usage_type.clone(),
        usage_amount: record.amount,
        month_year: record.month.to_string(),
        completed_at: Some(convert::timestamp(record.completed_at)),
        completion_reported: record.completion_reported,
        metadata: record.metadata.as_ref().and_then(convert::structure),
        idempotency_key: record.key.clone(),
        source: record.source.clone(),
        revision: record.revision,
        synced_at: Some(convert::timestamp(record.synced_at)),
        created_at: Some(convert::timestamp(record.created_at)),
    }
}
