//! What becomes of a request's parts, judged by decoding the bytes with the generated messages.

use prost::Message as _;
use upbridge_proto::v1;

use super::super::json::{Json, parse};
use super::*;

fn id(name: &str) -> MessageId {
    Schema::get().message(&format!("upbridge.v1.{name}")).expect("known")
}

fn body(name: &str, text: &str) -> Result<Vec<u8>, Vec<(String, String)>> {
    let Ok(Json::Object(body)) = parse(text) else { panic!("{text} is no object") };
    named(message(id(name), &Input { body, takes_body: true, ..Default::default() }))
}

fn query(name: &str, query: &str) -> Result<Vec<u8>, Vec<(String, String)>> {
    named(message(id(name), &Input { query, ..Default::default() }))
}

fn named(result: Result<Vec<u8>, Vec<Violation>>) -> Result<Vec<u8>, Vec<(String, String)>> {
    result.map_err(|all| all.into_iter().map(|one| (one.field, one.description)).collect())
}

fn first_error(result: Result<Vec<u8>, Vec<(String, String)>>) -> (String, String) {
    result.expect_err("it was accepted").remove(0)
}

#[test]
fn a_body_becomes_the_message_it_spells_in_either_casing() {
    let snake = r#"{"usage_data":{"batch_name":"b","batch_type":"video","usage_type":"local_rendering","usage_amount":1,
        "month_year":"2024-01","completed_at":"2024-01-15T10:30:00.000Z",
        "metadata":{"video_count":5,"processing_time":"2 minutes","list":[null,true,{"x":-1.5}]}},"digiup_user_id":null}"#;
    let camel =
        snake.replace("usage_data", "usageData").replace("batch_name", "batchName").replace("month_year", "monthYear");
    for text in [snake, &camel] {
        let request = v1::RecordUsageRequest::decode(&*body("RecordUsageRequest", text).unwrap()).unwrap();
        assert_eq!(request.digiup_user_id, None);
        let data = request.usage_data.unwrap();
        assert_eq!(
            (data.batch_name.as_str(), data.usage_amount, data.month_year.as_deref()),
            ("b", Some(1), Some("2024-01"))
        );
        assert_eq!(data.completed_at.unwrap().seconds, 1705314600);
        let metadata = data.metadata.unwrap();
        assert_eq!(metadata.fields.len(), 3);
        assert_eq!(metadata.fields["video_count"].kind, Some(prost_types::value::Kind::NumberValue(5.0)));
    }
}

#[test]
fn large_messages_keep_their_lengths() {
    let long = "é".repeat(20_000);
    let text = format!(r#"{{"usage_data":{{"batch_name":"{long}","metadata":{{"k":["{long}"]}}}}}}"#);
    let request = v1::RecordUsageRequest::decode(&*body("RecordUsageRequest", &text).unwrap()).unwrap();
    assert_eq!(request.usage_data.unwrap().batch_name, long);
}

#[test]
fn an_unknown_member_is_named_by_its_path() {
    let wrong = first_error(body("RecordUsageRequest", r#"{"usage_data":{"colour":"red"}}"#));
    assert_eq!(wrong, ("usage_data.colour".into(), "is not a known field".into()));
    let wrong = first_error(query("ListUsageRequest", "colour=red"));
    assert_eq!(wrong, ("colour".into(), "is not a known parameter".into()));
    let name = "x".repeat(5000);
    assert_eq!(first_error(body("LoginRequest", &format!(r#"{{"{name}":1}}"#))).0.len(), 64);
}

#[test]
fn everything_wrong_is_named_at_once_and_up_to_a_limit() {
    let text = r#"{"name":5,"tier":"gold","price":"x","currency":["IDR"],
        "features":[{"feature":"a","monthly_limit":1e300},{"feature":null},7,null],"extra":1}"#;
    let wrong = body("CreatePlanRequest", text).unwrap_err();
    let expected = [
        ("name", "must be a string"),
        ("tier", "must be one of membership, reseller, pro_reseller"),
        ("price", "must be an integer"),
        ("currency", "must be a string"),
        ("features[0].monthly_limit", "must be a 64-bit integer"),
        ("features[2]", "must be an object"),
        ("features[3]", "must not be null"),
        ("extra", "is not a known field"),
    ];
    let wrong: Vec<_> = wrong.iter().map(|(field, what)| (field.as_str(), what.as_str())).collect();
    assert_eq!(wrong, expected);
    let many = (0..100).map(|index| format!("\"x{index}\":1")).collect::<Vec<_>>().join(",");
    assert_eq!(body("LoginRequest", &format!("{{{many}}}")).unwrap_err().len(), 32);
}

#[test]
fn a_member_given_twice_is_refused_whatever_its_spelling() {
    let twice = ("plan_id".to_owned(), "is given twice".to_owned());
    assert_eq!(first_error(body("SubscribeRequest", r#"{"plan_id":1,"planId":1}"#)), twice);
    assert_eq!(first_error(body("SubscribeRequest", r#"{"plan_id":1,"plan_id":2}"#)), twice);
    assert_eq!(first_error(query("ListUsersRequest", "role=admin&role=member")).1, "is given twice");
    let free = r#"{"usage_data":{"metadata":{"a":1,"a":2}}}"#;
    let wrong = ("usage_data.metadata.a".to_owned(), "is given twice".to_owned());
    assert_eq!(first_error(body("RecordUsageRequest", free)), wrong);
}

#[test]
fn the_path_and_the_body_must_agree() {
    let both = |text: &str| {
        let Ok(Json::Object(body)) = parse(text) else { panic!() };
        let input = Input { variables: vec![(0, "7".into())], body, takes_body: true, ..Default::default() };
        named(message(id("SubscribeRequest"), &input))
    };
    for text in ["{}", r#"{"plan_id":7}"#, r#"{"planId":7.0}"#, r#"{"plan_id":"7"}"#, r#"{"plan_id":null}"#] {
        assert_eq!(v1::SubscribeRequest::decode(&*both(text).unwrap()).unwrap().plan_id, Some(7), "{text}");
    }
    assert_eq!(first_error(both(r#"{"plan_id":8}"#)), ("plan_id".into(), "differs from the one in the path".into()));
    assert_eq!(first_error(both(r#"{"plan_id":"x"}"#)).1, "must be an integer");
}

#[test]
fn a_query_spells_strings_numbers_and_words() {
    let bytes = query("ListUsersRequest", "query=a%20b%2Bc+d&role=pro_reseller&pageSize=50&&status=USER_STATUS_ACTIVE")
        .unwrap();
    let request = v1::ListUsersRequest::decode(&*bytes).unwrap();
    assert_eq!(request.query.as_deref(), Some("a b+c d"));
    assert_eq!(
        (request.role(), request.status(), request.page_size),
        (v1::Role::ProReseller, v1::UserStatus::Active, Some(50))
    );
    assert_eq!(first_error(query("ListUsersRequest", "page_size=")), ("page_size".into(), "must be an integer".into()));
    assert_eq!(first_error(query("ListUsersRequest", "query=%ff")), ("query".into(), "must be valid UTF-8".into()));
    assert_eq!(first_error(query("CreateBatchRequest", "metadata=x")).1, "cannot be given in the query");
    assert!(query("CancelSubscriptionRequest", "immediately=true").is_ok());
    assert_eq!(first_error(query("CancelSubscriptionRequest", "immediately=1")).1, "must be true or false");
    let time = query("CreateBatchRequest", "completed_at=2024-01-15T10:30:00%2B07:00").unwrap();
    assert_eq!(v1::CreateBatchRequest::decode(&*time).unwrap().completed_at.unwrap().seconds, 1705289400);
}

#[test]
fn where_there_is_a_body_the_query_is_refused_and_the_other_way_round() {
    let input = Input { query: "email=a", takes_body: true, ..Default::default() };
    assert_eq!(first_error(named(message(id("LoginRequest"), &input))).0, "email");
    let Ok(Json::Object(body)) = parse(r#"{"session_id":"x"}"#) else { panic!() };
    let input = Input { body, ..Default::default() };
    assert_eq!(first_error(named(message(id("RevokeSessionRequest"), &input))).0, "session_id");
}

#[test]
fn a_number_that_would_change_is_named() {
    let text = r#"{"usage_data":{"metadata":{"ids":[1,9007199254740993]}}}"#;
    let (field, what) = first_error(body("RecordUsageRequest", text));
    assert_eq!(field, "usage_data.metadata.ids[1]");
    assert!(what.contains("as a string"), "{what}");
}

#[test]
fn whatever_depth_is_accepted_can_be_decoded() {
    let nested = |open: &str, close: &str, depth: usize| {
        let text = format!(r#"{{"usage_data":{{"metadata":{{"a":{}1{}}}}}}}"#, open.repeat(depth), close.repeat(depth));
        body("RecordUsageRequest", &text)
    };
    for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
        let deepest = (0..80).take_while(|depth| nested(open, close, *depth).is_ok()).last().unwrap();
        assert!(deepest >= 30, "{deepest}");
        let bytes = nested(open, close, deepest).unwrap();
        v1::RecordUsageRequest::decode(&*bytes).expect("what is accepted decodes");
        assert_eq!(first_error(nested(open, close, deepest + 1)).1, "is nested too deeply");
    }
}
