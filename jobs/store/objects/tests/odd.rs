//! Servers that are not AWS: how a store classifies their answers, and whether it retries.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::server::{Odd, Server};
use crate::objects::open;
use crate::{JobsError, Result, RetryPolicy, Store};

const SWITCH: (&str, &str) = ("AGRPO_S3_CHECKSUM", "none");

async fn with(server: &Server, also: &[(&str, &str)]) -> Result<Store> {
    let mut settings = super::settings(server.port);
    settings.extend(also.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    open("s3://results/agrpo", &settings).await.map(Store::on)
}

/// The error of a store when a process begins to use it, or of its first write; and how often `odd` was answered.
async fn begin(odd: &[Odd], also: &[(&str, &str)]) -> (Result<()>, usize) {
    let server = Server::start().await;
    odd.iter().for_each(|odd| server.odd(*odd));
    let begun = async {
        let store = with(&server, also).await?;
        store.objects.ping().await?;
        store.objects.check_creates("w").await?;
        store.cas.put(Bytes::from_static(b"blob")).await.map(drop)
    };
    (begun.await, server.with(|state| state.oddities))
}

#[tokio::test]
async fn a_temporary_conflict_refuses_no_server() {
    let conflict = ("409 Conflict", "ConditionalRequestConflict");
    for (after, times) in [(0, 1), (1, 1), (0, 3)] {
        let odd = Odd { after, times, ..Odd::always("PUT probe/", conflict) };
        let (begun, oddities) = begin(&[odd], &[]).await;
        assert!(begun.is_ok(), "{after} {times}: {begun:?}");
        assert_eq!(oddities, times, "{after} {times}");
    }
    let (begun, oddities) = begin(&[Odd::always("PUT probe/", conflict)], &[]).await;
    let error = begun.unwrap_err();
    assert!(
        matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }) && oddities == 6,
        "{error}"
    );
    assert!(error.to_string().contains("with a conflict each time"), "{error}");
}

#[tokio::test]
async fn the_error_of_a_server_without_checksums_names_the_setting() {
    for answer in [
        ("400 Bad Request", "InvalidArgument"),
        ("400 Bad Request", ""),
        ("501 Not Implemented", "NotImplemented"),
    ] {
        let odd = [Odd { header: "x-amz-checksum-sha256", ..Odd::always("PUT", answer) }];
        let (begun, oddities) = begin(&odd, &[]).await;
        let error = begun.unwrap_err();
        assert!(
            matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("AGRPO_S3_CHECKSUM=none"), "{error}");
        assert!(oddities > 0);
        let (begun, oddities) = begin(&odd, &[SWITCH]).await;
        assert!(begun.is_ok() && oddities == 0, "{begun:?}");
    }
    let odd = [Odd { header: "if-none-match", ..Odd::always("PUT", ("400 Bad Request", "")) }];
    let error = begin(&odd, &[]).await.0.unwrap_err().to_string();
    assert!(error.contains("the server refuses conditional writes"), "{error}");
    let (begun, _) = begin(&[], &[("AGRPO_S3_CHECKSUM", "md5")]).await;
    let error = begun.unwrap_err();
    assert!(matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }));
    assert!(error.to_string().contains("=md5: expected sha256, crc64nvme or none"), "{error}");
    for also in [("AGRPO_S3_CHECKSUM", "crc64nvme"), ("AWS_CHECKSUM_ALGORITHM", "CRC64NVME")] {
        let odd = [Odd { header: "x-amz-checksum-crc64nvme", times: 0, ..odd[0] }];
        assert!(begin(&odd, &[also]).await.0.is_ok());
    }
}

/// Answers to a first write, and whether they count as unavailable.
#[tokio::test]
async fn answers_are_sorted_by_whether_another_try_helps() {
    for (status, code, is_unavailable, part) in [
        ("400 Bad Request", "AuthorizationHeaderMalformed", false, "check AWS_REGION"),
        ("301 Moved Permanently", "PermanentRedirect", false, "check AWS_REGION"),
        ("307 Temporary Redirect", "", false, "check AWS_REGION"),
        ("400 Bad Request", "ExpiredToken", false, "the credentials were refused"),
        ("400 Bad Request", "InvalidBucketName", false, "InvalidBucketName: made up"),
        ("401 Unauthorized", "", false, "the credentials were refused"),
        ("403 Forbidden", "AccessDenied", false, "the credentials were refused"),
        ("403 Forbidden", "RequestTimeTooSkewed", false, "set both by NTP"),
        ("404 Not Found", "NoSuchBucket", false, "there is no bucket `results`"),
        ("404 Not Found", "", false, "the address of an S3 server"),
        ("405 Method Not Allowed", "MethodNotAllowed", false, "another try does not help"),
        ("501 Not Implemented", "NotImplemented", false, "501 Not Implemented"),
        ("400 Bad Request", "BadDigest", true, "BadDigest"),
        ("400 Bad Request", "RequestTimeout", true, "RequestTimeout"),
        ("403 Forbidden", "SlowDown", true, "SlowDown"),
        ("403 Forbidden", "ThrottlingException", true, "Throttling"),
        ("429 Too Many Requests", "", true, "429"),
        ("503 Service Unavailable", "SlowDown", true, "503"),
        ("507 Insufficient Storage", "", true, "no space left"),
        ("403 Forbidden", "QuotaExceeded", true, "no space left"),
        ("507 Insufficient Storage", "XMinioStorageFull", true, "no space left"),
    ] {
        let (begun, oddities) = begin(&[Odd::always("PUT cas/", (status, code))], &[]).await;
        // The probe has been written by then: writes are what this server did before.
        let error = begun.unwrap_err();
        let (first, _) = begin(&[Odd::always("PUT", (status, code))], &[]).await;
        let first = first.unwrap_err();
        let is_refused = matches!(first, JobsError::Invalid(_) | JobsError::Misconfigured { .. });
        let sorted = (matches!(first, JobsError::Unavailable(_)), is_refused);
        assert_eq!(sorted, (is_unavailable, !is_unavailable), "{status} {code}: {first}");
        assert!(first.to_string().contains(part), "{status} {code}: {first}");
        assert!(
            oddities > 0 && error.to_string().contains("cannot write cas/")
                || code == "NoSuchBucket"
        );
    }
}

/// Successful answers to a first request that no S3 server gives.
#[tokio::test]
async fn what_is_no_s3_server_is_reported_as_such() {
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nETag: e\r\nLast-Modified: yesterday\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nETag: e\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ] {
        let (port, _server) = super::server(Some(raw)).await;
        let opened = open("s3://results/agrpo", &super::settings(port)).await.unwrap();
        let store = Store::on(opened);
        let listed = store.objects.ping().await.map(drop);
        let looked = store.objects.entry("runs/a").await.map(drop);
        let read = store.objects.read("runs/a").await.map(drop);
        let written = store.objects.replace("runs/a", Bytes::new()).await;
        assert!(listed.is_err(), "{raw}");
        for error in [listed, looked, read, written].into_iter().filter_map(Result::err) {
            assert!(
                matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
                "{raw}: {error}"
            );
            assert!(error.to_string().contains("AWS_ENDPOINT"), "{raw}: {error}");
        }
    }
}

#[tokio::test]
async fn one_refusal_after_success_is_retried() {
    let forbidden = ("403 Forbidden", "InvalidAccessKeyId");
    for (times, is_served) in [(1, true), (5, true), (usize::MAX, false)] {
        let server = Server::start().await;
        let (stop, stopped) = watch::channel(false);
        let store = with(&server, &[]).await.unwrap();
        store.objects.check_creates("w").await.unwrap();
        server.odd(Odd { times, ..Odd::always("PUT cas/", forbidden) });
        let limit = Duration::from_secs(if is_served { 60 } else { 2 });
        let policy = RetryPolicy { limit, stop: stopped };
        let store = store.with_limits(|limits| limits.retry = Some(policy));
        let put = store.cas.put(Bytes::from_static(b"blob")).await;
        assert_eq!(put.is_ok(), is_served, "{times}: {put:?}");
        assert!(server.with(|state| state.oddities) >= times.min(3));
        drop(stop);
    }
    // Without an end of it, and without a retry policy, the refusal is the error.
    let server = Server::start().await;
    let store = with(&server, &[]).await.unwrap();
    store.objects.check_creates("w").await.unwrap();
    server.odd(Odd::always("PUT cas/", forbidden));
    let mut unavailable = vec![];
    for _ in 0..22 {
        let error = store.cas.put(Bytes::from_static(b"blob")).await.unwrap_err();
        assert!(error.to_string().contains("the credentials were refused"), "{error}");
        unavailable.push(matches!(error, JobsError::Unavailable(_)));
    }
    assert_eq!(unavailable, [[true; 20].as_slice(), &[false; 2]].concat());
}

#[tokio::test]
async fn a_store_waits_for_its_server_as_long_as_its_retry_policy_says() {
    let busy = ("503 Service Unavailable", "SlowDown");
    let server = Server::start().await;
    let store = with(&server, &[]).await.unwrap();
    store.objects.check_creates("w").await.unwrap();
    // More than the library's own tries, which take two seconds in tests.
    server.odd(Odd::always("PUT cas/", busy));
    let (stop, stopped) = watch::channel(false);
    // No test takes so long: what ends the waiting is the server, and then the stop.
    let policy = RetryPolicy { limit: Duration::from_secs(3600), stop: stopped };
    let patient = store.with_limits(|limits| limits.retry = Some(policy));
    let writing = patient.cas.put(Bytes::from_static(b"blob"));
    let healing = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        server.with(|state| state.odd.clear());
    };
    let (written, ()) = tokio::join!(writing, healing);
    written.unwrap();
    server.odd(Odd::always("GET cas/", busy));
    let digest = agrpo_spec::ArtifactDigest::of(b"blob");
    let fresh = patient.fresh();
    let reading = fresh.cas.get(digest);
    let ending = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.send_replace(true);
    };
    let (read, ()) = tokio::join!(reading, ending);
    assert!(matches!(read.unwrap_err(), JobsError::Unavailable(_)));
}
