//! What becomes of answers made of the generated messages.

use std::collections::BTreeMap;

use prost::{Message as _, Name};
use prost_types::{ListValue, Struct, Timestamp, Value, value::Kind as Free};
use upbridge_proto::v1;

use super::super::decode;
use super::super::json::{Json, parse};
use super::*;

fn print<M: prost::Message + Name>(message: &M, data: Option<&str>, casing: Casing) -> String {
    let id = Schema::get().message(&M::full_name()).expect("known");
    let data = data.map(|name| Schema::get().messages[id].field_by_json(name).expect("a field").0);
    let text = String::from_utf8(envelope(id, data, &message.encode_to_vec(), casing).expect("valid")).expect("UTF-8");
    serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON");
    text
}

fn free(kind: Free) -> Value {
    Value { kind: Some(kind) }
}

#[test]
fn every_field_is_printed_in_the_order_of_the_contract() {
    assert_eq!(
        print(&v1::User::default(), None, Casing::Snake),
        concat!(
            r#"{"success":true,"data":{"id":"","email":"","name":"","username":null,"role":"unspecified","#,
            r#""status":"unspecified","sync_status":"unspecified","creatorup_user_id":null,"creatorup_synced_at":null,"#,
            r#""last_creatorup_access":null,"creatorup_metadata":null,"created_at":null,"updated_at":null}}"#
        )
    );
    assert_eq!(print(&v1::LogoutResponse {}, None, Casing::Snake), r#"{"success":true,"data":{}}"#);
}

#[test]
fn numbers_words_times_and_nested_messages() {
    let plan = v1::Plan {
        id: -3,
        tier: v1::Tier::ProReseller.into(),
        price: i64::MAX,
        is_active: true,
        features: vec![v1::PlanFeature { feature: "a\"\n".into(), monthly_limit: Some(0) }, v1::PlanFeature::default()],
        created_at: Some(Timestamp { seconds: 1705314600, nanos: 0 }),
        updated_at: Some(Timestamp { seconds: -1, nanos: 500_000_000 }),
        ..Default::default()
    };
    let text = print(&plan, None, Casing::Camel);
    let expected = concat!(
        r#"{"success":true,"data":{"id":-3,"name":"","tier":"pro_reseller","price":9223372036854775807,"currency":"","#,
        r#""interval":"","features":[{"feature":"a\"\n","monthlyLimit":0},{"feature":"","monthlyLimit":null}],"#,
        r#""isActive":true,"createdAt":"2024-01-15T10:30:00Z","updatedAt":"1969-12-31T23:59:59.500Z"}}"#
    );
    assert_eq!(text, expected);
}

#[test]
fn a_second_has_as_many_digits_as_it_needs() {
    let at = |nanos| {
        let message = v1::GetUserStatsResponse { as_of: Some(Timestamp { seconds: 0, nanos }), ..Default::default() };
        let text = print(&message, Some("as_of"), Casing::Snake);
        text[r#"{"success":true,"data":"#.len()..].split(',').next().unwrap().to_owned()
    };
    assert_eq!(at(0), r#""1970-01-01T00:00:00Z""#);
    assert_eq!(at(120_000_000), r#""1970-01-01T00:00:00.120Z""#);
    assert_eq!(at(1_000), r#""1970-01-01T00:00:00.000001Z""#);
    assert_eq!(at(7), r#""1970-01-01T00:00:00.000000007Z""#);
}

#[test]
fn the_data_may_be_one_field_with_the_others_beside_it() {
    let page = v1::ListUsageResponse { usage: vec![], next_page_token: "t".into() };
    assert_eq!(print(&page, Some("usage"), Casing::Camel), r#"{"success":true,"data":[],"nextPageToken":"t"}"#);
    let page = v1::ListUsageResponse::default();
    assert_eq!(print(&page, Some("next_page_token"), Casing::Snake), r#"{"success":true,"data":"","usage":[]}"#);
}

#[test]
fn keys_of_maps_stay_as_they_are() {
    let counts = BTreeMap::from([("pro_reseller".to_owned(), 2), ("zero".to_owned(), 0)]);
    let stats = v1::GetUserStatsResponse { users_by_role: counts, ..Default::default() };
    let text = print(&stats, None, Casing::Camel);
    assert!(text.contains(r#""usersByRole":{"pro_reseller":2,"zero":0},"usersByStatus":{}"#), "{text}");
}

#[test]
fn free_form_json_passes_through_unchanged() {
    let list = ListValue { values: vec![free(Free::NullValue(0)), free(Free::BoolValue(false)), Value { kind: None }] };
    let fields = BTreeMap::from([
        ("a_b".to_owned(), free(Free::NumberValue(5.0))),
        ("b".to_owned(), free(Free::NumberValue(-1.5))),
        ("c".to_owned(), free(Free::StringValue("é".into()))),
        ("d".to_owned(), free(Free::ListValue(list))),
        ("e".to_owned(), free(Free::StructValue(Struct::default()))),
        ("f".to_owned(), free(Free::NumberValue(1e21))),
    ]);
    let user = v1::User { creatorup_metadata: Some(Struct { fields }), ..Default::default() };
    let text = print(&user, Some("creatorup_metadata"), Casing::Camel);
    let expected = r#"{"success":true,"data":{"a_b":5,"b":-1.5,"c":"é","d":[null,false,null],"e":{},"f":1e+21},"#;
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn what_was_read_is_printed_again() {
    let id = Schema::get().message("upbridge.v1.RecordUsageRequest").expect("known");
    let text = concat!(
        r#"{"usage_data":{"batch_name":"b","batch_type":"video","usage_type":"local_rendering","usage_amount":1,"#,
        r#""month_year":"2024-01","completed_at":"2024-01-15T10:30:00Z","metadata":{"z":5,"a":[1.5,"x",{"k":null}],"m":"2 minutes"},"#,
        r#""usage_id":null},"digiup_user_id":null,"idempotency_key":"k"}"#
    );
    let Ok(Json::Object(body)) = parse(text) else { panic!() };
    let bytes = decode::message(id, &decode::Input { body, takes_body: true, ..Default::default() }).expect("valid");
    let printed = String::from_utf8(envelope(id, None, &bytes, Casing::Snake).expect("valid")).expect("UTF-8");
    assert_eq!(printed, format!(r#"{{"success":true,"data":{text}}}"#));
}

#[test]
fn bytes_that_are_no_message_are_a_fault_and_no_panic() {
    let id = Schema::get().message("upbridge.v1.ListUsageResponse").expect("known");
    let record = v1::UsageRecord { id: "x".into(), completed_at: Some(Timestamp::default()), ..Default::default() };
    let whole = v1::ListUsageResponse { usage: vec![record], next_page_token: "é".into() }.encode_to_vec();
    for end in 0..whole.len() {
        let _ = envelope(id, None, &whole[..end], Casing::Snake);
    }
    assert!(envelope(id, None, &[2 << 3 | 2, 1, 0xff], Casing::Snake).is_err());
    assert!(envelope(id, None, &[2 << 3, 1], Casing::Snake).is_err());
}
