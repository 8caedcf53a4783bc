//! The client against a real server on a real port: what is repeated, what is not, and how long it may take.
//! Nobody sleeps; pauses between attempts are a millisecond at most.

mod hub;

use std::time::{Duration, Instant};

use hub::{Hub, Trouble};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tonic_types::{ErrorDetails, StatusExt};
use upbridge_client::{Client, Code, Credentials, Request, RetryPolicy, Status, reason, v1};

fn impatient() -> RetryPolicy {
    RetryPolicy { base_delay: Duration::from_millis(1), max_delay: Duration::from_millis(1), ..Default::default() }
}

async fn client_of(hub: &Hub) -> Client {
    Client::builder(hub.serve().await).retry(impatient()).connect().await.unwrap()
}

async fn list_plans(client: &Client) -> Result<v1::ListPlansResponse, Status> {
    client.membership().list_plans(v1::ListPlansRequest {}).await.map(tonic::Response::into_inner)
}

fn limited(reason: &str, retry_delay: Option<Duration>) -> Trouble {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "upbridge", std::collections::HashMap::new());
    if retry_delay.is_some() {
        details.set_retry_info(retry_delay);
    }
    Trouble::Fail(Status::with_error_details(Code::ResourceExhausted, "no more", details))
}

#[tokio::test]
async fn an_unavailable_hub_is_asked_again() {
    let hub = Hub::unavailable(3);
    let plans = list_plans(&client_of(&hub).await).await.unwrap().plans;
    assert_eq!((plans[0].name.as_str(), hub.calls().len()), ("Pro", 4));
}

#[tokio::test]
async fn a_call_is_sent_four_times_at_most() {
    let hub = Hub::unavailable(10);
    let status = list_plans(&client_of(&hub).await).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the database is locked"));
    assert_eq!(hub.calls().len(), 4);
}

#[tokio::test]
async fn each_repetition_says_how_many_attempts_came_before() {
    let hub = Hub::unavailable(2);
    list_plans(&client_of(&hub).await).await.unwrap();
    let before = |metadata: &tonic::metadata::MetadataMap| {
        metadata.get("grpc-previous-rpc-attempts").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(hub.calls().iter().map(before).collect::<Vec<_>>(), [None, Some("1".into()), Some("2".into())]);
}

#[tokio::test]
async fn what_is_not_idempotent_is_sent_once() {
    let hub = Hub::unavailable(1);
    let client = client_of(&hub).await;
    let status = client.membership().cancel_subscription(v1::CancelSubscriptionRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), hub.calls().len()), (Code::Unavailable, 1));
}

#[tokio::test]
async fn usage_without_a_key_is_sent_again_unchanged() {
    let hub = Hub::unavailable(2);
    let data = v1::UsageData {
        batch_name: "wedding".into(),
        batch_type: "video".into(),
        usage_type: "local_rendering".into(),
        ..Default::default()
    };
    let request = v1::RecordUsageRequest { usage_data: Some(data), ..Default::default() };
    let answer = client_of(&hub).await.usage().record_usage(request).await.unwrap().into_inner();
    assert_eq!((answer.usage_id.as_str(), hub.calls().len()), ("wedding", 3));
}

#[tokio::test]
async fn a_stream_is_sent_once() {
    let hub = Hub::unavailable(1);
    let client = client_of(&hub).await;
    let messages = || tokio_stream::iter([v1::RecordUsageStreamRequest { reports: vec![Default::default(); 3] }]);
    let status = client.usage().record_usage_stream(messages()).await.unwrap_err();
    assert_eq!((status.code(), hub.calls().len()), (Code::Unavailable, 1));
    assert_eq!(client.usage().record_usage_stream(messages()).await.unwrap().into_inner().created, 3);
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_keeps_its_details() {
    let mut details = ErrorDetails::new();
    details.set_error_info("NOT_FOUND", "upbridge", std::collections::HashMap::new());
    let refusal = Status::with_error_details(Code::NotFound, "no such plan", details);
    let hub = Hub::with([Trouble::Fail(refusal)]);
    let status = list_plans(&client_of(&hub).await).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_deref()), (Code::NotFound, Some("NOT_FOUND")));
    assert_eq!(hub.calls().len(), 1);
}

#[tokio::test]
async fn a_spent_quota_is_an_answer() {
    let hub = Hub::with([limited("QUOTA_EXCEEDED", None)]);
    let status = list_plans(&client_of(&hub).await).await.unwrap_err();
    assert_eq!((reason(&status).as_deref(), hub.calls().len()), (Some("QUOTA_EXCEEDED"), 1));
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_for_as_long_as_the_hub_says() {
    let asked = Duration::from_millis(30);
    let hub = Hub::with([limited("RATE_LIMITED", Some(asked))]);
    let client = client_of(&hub).await;
    let begin = Instant::now();
    list_plans(&client).await.unwrap();
    assert!(begin.elapsed() >= asked, "it came back after {:?}", begin.elapsed());
    assert_eq!(hub.calls().len(), 2);
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let hub = Hub::with([limited("RATE_LIMITED", Some(Duration::from_secs(60)))]);
    let client = client_of(&hub).await;
    let begin = Instant::now();
    let status = list_plans(&client).await.unwrap_err();
    assert_eq!((status.code(), hub.calls().len()), (Code::ResourceExhausted, 1));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_hub_that_never_answers_is_given_up_at_the_deadline() {
    let hub = Hub::with([Trouble::Hang, Trouble::Hang]);
    // Long enough for each call to reach the hub, however slow the machine is.
    let timeout = Duration::from_secs(1);
    let builder = Client::builder(hub.serve().await).retry(impatient()).call_timeout(timeout);
    let client = builder.connect().await.unwrap();
    assert_eq!(list_plans(&client).await.unwrap_err().code(), Code::DeadlineExceeded);
    let once = client.membership().cancel_subscription(v1::CancelSubscriptionRequest::default()).await;
    assert_eq!((once.unwrap_err().code(), hub.calls().len()), (Code::DeadlineExceeded, 2));
}

#[tokio::test]
async fn all_attempts_share_one_deadline() {
    let failures = (0..3).map(|_| Trouble::Fail(Status::unavailable("")));
    let hub = Hub::with(failures.chain([Trouble::Hang]));
    let builder = Client::builder(hub.serve().await).retry(impatient()).call_timeout(Duration::from_secs(2));
    assert_eq!(list_plans(&builder.connect().await.unwrap()).await.unwrap_err().code(), Code::DeadlineExceeded);
    let told_us = |metadata: &tonic::metadata::MetadataMap| {
        let text = metadata.get("grpc-timeout").expect("the hub is told").to_str().unwrap();
        text.strip_suffix('u').expect("in microseconds").parse::<u64>().unwrap()
    };
    let told_us: Vec<_> = hub.calls().iter().map(told_us).collect();
    assert_eq!(told_us.len(), 4);
    assert!(told_us[0] <= 2_000_000 && told_us.windows(2).all(|pair| pair[1] < pair[0]), "{told_us:?}");
}

#[tokio::test]
async fn the_timeout_of_a_request_takes_the_place_of_the_clients() {
    let hub = Hub::with([Trouble::Hang]);
    let client = client_of(&hub).await;
    let mut request = Request::new(v1::ListPlansRequest {});
    request.set_timeout(Duration::from_millis(50));
    let begin = Instant::now();
    let status = client.membership().list_plans(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_call_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hub = Hub::default();
    let broken = tokio::spawn({
        let hub = hub.clone();
        async move {
            let (connection, _) = listener.accept().await.unwrap();
            // Not before the client's bytes are there, or it would be a connection that was never made.
            connection.readable().await.unwrap();
            drop(connection);
            hub.serve_on(listener);
        }
    });
    let client = Client::builder(format!("http://{address}")).retry(impatient()).connect_lazily().unwrap();
    list_plans(&client).await.unwrap();
    broken.await.unwrap();
    assert_eq!(hub.calls().len(), 1);
}

#[tokio::test]
async fn a_connection_that_dies_while_the_hub_works_is_made_again_for_what_is_idempotent() {
    let hub = Hub::with([Trouble::Hang, Trouble::Hang]);
    let behind = hub.serve().await.strip_prefix("http://").unwrap().to_owned();
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", between.local_addr().unwrap());
    tokio::spawn({
        let hub = hub.clone();
        async move {
            // The first two connections die as soon as the hub has their call.
            for calls in 1..=3 {
                let (mut near, _) = between.accept().await.unwrap();
                let mut far = TcpStream::connect(&behind).await.unwrap();
                let received = async {
                    while calls == 3 || hub.calls().len() < calls {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = received => {}
                }
            }
        }
    });
    let client = Client::builder(url).retry(impatient()).connect_lazily().unwrap();
    let once = client.membership().cancel_subscription(v1::CancelSubscriptionRequest::default()).await.unwrap_err();
    assert_eq!((once.code(), hub.calls().len()), (Code::Unavailable, 1), "{once}");
    list_plans(&client).await.unwrap();
    assert_eq!(hub.calls().len(), 3);
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_unavailable() {
    // Taken, so that nobody else comes there, and nobody listens.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let unused = nobody.local_addr().unwrap();
    let client = Client::builder(format!("http://{unused}")).retry(impatient()).connect_lazily().unwrap();
    let status = list_plans(&client).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unavailable, None));
}

#[tokio::test]
async fn callers_share_a_connection_and_keep_their_credentials_apart() {
    let hub = Hub::default();
    let client = client_of(&hub).await;
    let callers = [
        client.with_bearer("ana"),
        client.with_credentials(Credentials::ApiKey("creatorup".into())),
        client.with_bearer("ana").without_credentials(),
    ];
    for caller in &callers {
        list_plans(caller).await.unwrap();
    }
    let sent = |metadata: &tonic::metadata::MetadataMap| {
        ["authorization", "x-api-key"].map(|name| metadata.get(name).map(|value| value.to_str().unwrap().to_owned()))
    };
    assert_eq!(
        hub.calls().iter().map(sent).collect::<Vec<_>>(),
        [[Some("Bearer ana".into()), None], [None, Some("creatorup".into())], [None, None]]
    );
    let agent = hub.calls()[0].get("user-agent").unwrap().to_str().unwrap().to_owned();
    assert!(agent.starts_with(concat!("upbridge-client/", env!("CARGO_PKG_VERSION"))), "{agent}");
    assert!(!format!("{callers:?}").contains("ana"));
}

#[tokio::test]
async fn an_answer_larger_than_the_limit_is_refused_and_not_asked_for_again() {
    let hub = Hub::default();
    let builder = Client::builder(hub.serve().await).retry(impatient()).message_limit_bytes(4);
    let status = list_plans(&builder.connect().await.unwrap()).await.unwrap_err();
    assert_eq!((status.code(), hub.calls().len()), (Code::OutOfRange, 1));
}

#[tokio::test]
async fn a_hub_is_trusted_over_tls_by_its_own_authority_and_by_no_other() {
    let certificate = rcgen::generate_simple_self_signed(["hub.digiup.example".to_owned()]).unwrap();
    let hub = Hub::default();
    let address = hub.serve_tls(certificate.cert.pem(), certificate.signing_key.serialize_pem()).await;
    let builder = Client::builder(format!("https://{address}")).tls_server_name("hub.digiup.example");
    let trusting = builder.clone().ca_pem(certificate.cert.pem()).connect().await.unwrap();
    list_plans(&trusting).await.unwrap();
    assert!(builder.connect().await.is_err(), "a certificate that no root vouches for was trusted");
}
