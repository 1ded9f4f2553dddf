//! The guarantees of a store, on each kind of store, and its errors where a disk or a server fails.

use std::{collections::BTreeMap, error::Error, time::Duration};

use agrpo_spec::{ArtifactDigest, Manifest, OutputRecord, Phases, Plan, StageDigest};
use bytes::Bytes;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::testing::{TestStore, environment, finished, run, run_named};
use crate::{JobsError, Store};

mod listing;
mod odd;
mod real;
pub(crate) mod server;

fn manifest(digest: ArtifactDigest, size: u64) -> Manifest {
    let plan = Plan::new(run());
    let spec = plan.pending().values().next().unwrap().clone();
    Manifest {
        stage: spec.digest(),
        spec,
        outputs: BTreeMap::from([("policy".to_owned(), OutputRecord { digest, size })]),
        metrics: BTreeMap::from([("loss".to_owned(), 0.1)]),
        environment: environment(),
        phases: Phases::default(),
    }
}

#[tokio::test]
async fn blobs_come_back_and_writing_twice_is_writing_once() {
    for test in TestStore::each().await {
        let store = &test.store;
        for size in [0, 1, 3 << 20] {
            let bytes = Bytes::from(vec![7; size]);
            let record = store.cas.put(bytes.clone()).await.unwrap();
            assert_eq!(record.size, size as u64);
            assert_eq!(record.digest, ArtifactDigest::of(&bytes));
            assert_eq!(store.cas.put(bytes.clone()).await.unwrap(), record);
            assert_eq!(test.reopened().cas.put(bytes.clone()).await.unwrap(), record);
            assert_eq!(test.reopened().cas.get(record.digest).await.unwrap(), bytes);
            assert!(store.cas.has(record.digest).await.unwrap());
        }
        store.objects.check().await.unwrap();
    }
}

#[tokio::test]
async fn damage_is_named_and_mended_by_the_next_writer() {
    let test = TestStore::file().await;
    let bytes = Bytes::from_static(b"twelve bytes");
    let digest = test.store.cas.put(bytes.clone()).await.unwrap().digest;
    let name = format!("cas/{digest}");
    for damage in [TestStore::flip, TestStore::truncate] {
        damage(&test, &name);
        let error = test.store.cas.get(digest).await.unwrap_err();
        assert!(matches!(&error, JobsError::Lost { digest: lost, .. } if *lost == digest));
        assert!(error.to_string().contains(&format!("{name} in file://")), "{error}");
        assert!(error.to_string().contains("is corrupt"), "{error}");
        test.reopened().cas.put(bytes.clone()).await.unwrap();
        assert_eq!(test.reopened().cas.get(digest).await.unwrap(), bytes);
    }
    test.remove(&name);
    let error = test.store.cas.get(digest).await.unwrap_err();
    assert!(matches!(error, JobsError::Lost { .. }) && error.to_string().contains("is missing"));
    test.store.cas.put(bytes).await.unwrap();
    assert!(
        test.store.cas.has(digest).await.unwrap(),
        "the cache in memory does not decide what exists"
    );
}

#[tokio::test]
async fn of_several_publishers_one_is_recorded_and_all_get_its_record() {
    for test in TestStore::each().await {
        let record = test.store.cas.put(Bytes::from_static(b"policy")).await.unwrap();
        let publishers = (0..16).map(|worker| {
            let mut manifest = manifest(record.digest, record.size);
            manifest.environment.worker = format!("worker {worker}");
            let store = test.store.clone();
            async move { store.records.publish(&manifest).await.unwrap() }
        });
        let published = join_all(publishers).await;
        assert!(published.iter().all(|manifest| *manifest == published[0]));
        let stage = published[0].stage;
        assert_eq!(
            test.store.records.complete_manifest(stage).await.unwrap(),
            Some(published[0].clone())
        );
    }
}

#[tokio::test]
async fn two_results_of_one_stage_are_an_error_that_names_both() {
    for test in TestStore::each().await {
        let one = test.store.cas.put(Bytes::from_static(b"one")).await.unwrap();
        let two = test.store.cas.put(Bytes::from_static(b"two")).await.unwrap();
        let first = manifest(one.digest, 3);
        test.store.records.publish(&first).await.unwrap();
        let error = test.store.records.publish(&manifest(two.digest, 3)).await.unwrap_err();
        assert!(matches!(error, JobsError::Data(_)));
        let text = error.to_string();
        for part in [first.stage.to_string(), one.digest.to_string(), two.digest.to_string()] {
            assert!(text.contains(&part), "{text}");
        }
        assert!(text.contains("output `policy`"), "{text}");
        assert_eq!(test.store.records.manifest(first.stage).await.unwrap(), Some(first));
    }
}

#[tokio::test]
async fn a_manifest_whose_blobs_are_missing_is_ignored_and_replaced() {
    for test in TestStore::each().await {
        let gone = manifest(ArtifactDigest::of(b"gone"), 4);
        test.store.records.publish(&gone).await.unwrap();
        assert_eq!(test.store.records.manifest(gone.stage).await.unwrap(), Some(gone.clone()));
        assert_eq!(test.store.records.complete_manifest(gone.stage).await.unwrap(), None);
        let here = test.store.cas.put(Bytes::from_static(b"here")).await.unwrap();
        let here = manifest(here.digest, 4);
        test.store.records.publish(&here).await.unwrap();
        assert_eq!(
            test.store.records.complete_manifest(here.stage).await.unwrap(),
            Some(here.clone())
        );
        let wrong_size =
            Manifest { outputs: manifest(here.output("policy").unwrap(), 5).outputs, ..here };
        let shop = TestStore::memory().await;
        shop.store.cas.put(Bytes::from_static(b"here")).await.unwrap();
        shop.store.records.publish(&wrong_size).await.unwrap();
        assert_eq!(shop.store.records.complete_manifest(wrong_size.stage).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_corrupt_record_is_a_data_error_that_names_it() {
    let test = TestStore::file().await;
    let record = test.store.cas.put(Bytes::from_static(b"policy")).await.unwrap();
    let manifest = test.store.records.publish(&manifest(record.digest, record.size)).await.unwrap();
    let name = format!("stages/{}", manifest.stage);
    test.truncate(&name);
    let error = test.store.records.complete_manifest(manifest.stage).await.unwrap_err();
    assert!(matches!(error, JobsError::Data(_)));
    assert!(error.to_string().starts_with(&name), "{error}");
    assert_eq!(test.store.records.publish(&manifest).await.unwrap(), manifest);
    assert_eq!(test.store.records.complete_manifest(manifest.stage).await.unwrap(), Some(manifest));
}

#[tokio::test]
async fn a_manifest_with_wrong_sizes_is_replaced_by_the_computed_one() {
    let test = TestStore::file().await;
    let record = test.store.cas.put(Bytes::from_static(b"policy")).await.unwrap();
    let manifest = test.store.records.publish(&manifest(record.digest, record.size)).await.unwrap();
    let mut wrong = manifest.clone();
    wrong.outputs.values_mut().for_each(|output| output.size += 1);
    std::fs::write(test.path(&format!("stages/{}", manifest.stage)), wrong.to_bytes()).unwrap();
    assert_eq!(test.store.records.complete_manifest(manifest.stage).await.unwrap(), None);
    assert_eq!(test.store.records.publish(&manifest).await.unwrap(), manifest);
    assert_eq!(test.store.records.complete_manifest(manifest.stage).await.unwrap(), Some(manifest));
}

#[tokio::test]
async fn runs_are_recorded_once_and_checked_by_name() {
    for test in TestStore::each().await {
        let (one, two) = (run_named("one", 1), run_named("two", 1));
        for run in [&one, &two, &one] {
            test.store.records.put_run(run).await.unwrap();
        }
        let mut ids = [one.id(), two.id()];
        ids.sort_unstable();
        assert_eq!(test.store.records.runs().await.unwrap(), ids);
        assert_eq!(test.store.records.run(one.id()).await.unwrap(), one);
        assert_eq!(test.store.records.resolve_run("two").await.unwrap(), two.id());
        assert_eq!(test.store.records.resolve_run(&one.id().to_string()).await.unwrap(), one.id());
        assert_eq!(test.store.records.resolve_run(&one.id().short()[..8]).await.unwrap(), one.id());
        let error = test.store.records.resolve_run("three").await.unwrap_err();
        assert!(matches!(error, JobsError::Invalid(_)) && error.to_string().contains("`three`"));
    }
    let test = TestStore::file().await;
    test.store.records.put_run(&run()).await.unwrap();
    let name = format!("runs/{}/run.json", run().id());
    let text = std::fs::read_to_string(test.path(&name)).unwrap();
    std::fs::write(test.path(&name), text.replace("\"seed\": 3", "\"seed\": 4")).unwrap();
    let error = test.store.records.run(run().id()).await.unwrap_err();
    assert!(matches!(error, JobsError::Data(_)) && error.to_string().starts_with(&name), "{error}");
    let error = test.store.records.resolve_run(&run().config().name).await.unwrap_err();
    assert!(matches!(error, JobsError::Data(_)) && error.to_string().contains(&name), "{error}");
}

#[tokio::test]
async fn beginnings_of_names_are_enough_unless_they_fit_several() {
    let test = TestStore::memory().await;
    finished(&test.store, run()).await;
    let stages: Vec<StageDigest> =
        test.store.records.recorded_stages(run().id()).await.unwrap().into_values().collect();
    for stage in &stages {
        assert_eq!(test.store.records.resolve_stage(&stage.to_string()).await.unwrap(), *stage);
        assert_eq!(test.store.records.resolve_stage(&stage.short()).await.unwrap(), *stage);
        let upper = stage.short().to_uppercase();
        assert_eq!(test.store.records.resolve_stage(&upper).await.unwrap(), *stage);
    }
    // More stages than digits: some digit begins several names.
    let mut digits: Vec<_> = stages.iter().map(|s| s.to_string()[..1].to_owned()).collect();
    digits.sort_unstable();
    let twice = digits.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0].clone();
    let error = test.store.records.resolve_stage(&twice).await.unwrap_err();
    assert!(matches!(error, JobsError::Ambiguous(_)));
    assert!(error.to_string().contains("fits several of the stages"), "{error}");
    insta::assert_snapshot!(test.store.records.resolve_stage("xyz").await.unwrap_err(), @"`xyz` names no stage: expected 1 to 64 hexadecimal digits");
    insta::assert_snapshot!(test.store.records.resolve_stage("").await.unwrap_err(), @"`` names no stage: expected 1 to 64 hexadecimal digits");
    insta::assert_snapshot!(test.store.records.resolve_blob("00000000000").await.unwrap_err(), @"no blob in memory:// begins with `00000000000`");
    let absent = "0".repeat(64);
    let error = test.store.records.resolve_stage(&absent).await.unwrap_err();
    assert!(matches!(error, JobsError::Data(_)), "{error}");
}

#[tokio::test]
async fn addresses_that_are_no_store_are_refused() {
    for url in ["", "ftp://x", "file://relative", "s3://", "memory://x"] {
        let error = Store::open(url, &[]).await.unwrap_err();
        assert!(matches!(error, JobsError::Invalid(_)), "{url}: {error}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(file.path().to_str().unwrap(), &[]).await.unwrap_err();
    assert!(matches!(error, JobsError::Invalid(_)), "{error}");
}

/// The AWS_* settings of a server on this port.
fn settings(port: u16) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ACCESS_KEY_ID", "visitor".into()),
        ("AWS_SECRET_ACCESS_KEY", "hunter2".into()),
        ("AWS_PROFILE", "other tool".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// A server that gives every request the same answer, or none.
async fn server(answer: Option<&'static str>) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = vec![];
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if let Some(answer) = answer {
                let mut request = [0; 4096];
                if stream.read(&mut request).await.unwrap_or(0) > 0 {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            } else {
                open.push(stream);
            }
        }
    });
    (port, tasks)
}

async fn refusal(answer: &'static str) -> JobsError {
    let (port, _server) = server(Some(answer)).await;
    Store::open("s3://results/agrpo", &settings(port)).await.unwrap_err()
}

#[tokio::test]
async fn a_refusal_of_the_server_is_one_clear_line() {
    let error = refusal("HTTP/1.1 404 Not Found\r\nContent-Length: 33\r\nConnection: close\r\n\r\n<Error><Code>NoSuchBucket</Code>x").await;
    assert!(matches!(error, JobsError::Invalid(_)), "{error}");
    insta::assert_snapshot!(error, @"s3://results/agrpo: there is no bucket `results`; create it with `aws s3 mb s3://results` (and --endpoint-url where the store is not AWS) or name another store");
    let error = refusal(
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\nConnection: close\r\n\r\nvisitor wrong",
    )
    .await;
    assert!(matches!(error, JobsError::Invalid(_)), "{error}");
    insta::assert_snapshot!(error, @"s3://results/agrpo: cannot list runs: the credentials were refused; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, what they may do, and this machine's clock");
}

#[tokio::test]
async fn a_server_that_is_down_or_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = Store::open("s3://results", &settings(port)).await.unwrap_err();
    assert!(matches!(error, JobsError::Unavailable(_)));
    assert!(
        error.to_string().contains(&format!("no connection to http://127.0.0.1:{port};")),
        "{error}"
    );
    assert!(error.source().is_some_and(|source| source.is::<object_store::Error>()), "{error}");

    let (port, _server) = server(None).await;
    let objects = open("s3://results", &settings(port)).await.unwrap();
    let answer = Duration::from_millis(200);
    let impatient = Store::on(objects).with_limits(|limits| limits.answer = answer);
    let error = impatient.objects.ping().await.unwrap_err();
    assert!(matches!(error, JobsError::Unavailable(_)));
    assert!(error.to_string().contains("no answer within"), "{error}");
}

/// Why a server is refused for the way it creates objects, and how many objects the check leaves.
async fn check_creates(prepare: impl FnOnce(&server::Server)) -> (Option<JobsError>, usize) {
    let server = server::Server::start().await;
    prepare(&server);
    let store = server.store(1 << 20).await;
    let error = store.objects.check_creates("probe-of-a-test").await.err();
    (error, server.objects())
}

#[tokio::test]
async fn a_server_that_does_not_create_once_is_refused_with_the_reason() {
    let (error, left) = check_creates(|_| ()).await;
    assert_eq!((error.map(|error| error.to_string()), left), (None, 0), "nothing is left behind");
    let (error, left) = check_creates(server::Server::overlook_conditions).await;
    let error = error.unwrap();
    assert!(
        matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }) && left == 0,
        "{error}"
    );
    insta::assert_snapshot!(error, @"s3://results/agrpo: the server overlooks conditional writes: it created an object that was there already; agrpo needs conditional writes (PUT with If-None-Match: *), so that of two workers with one stage a single record stands: AWS S3, Cloudflare R2, MinIO and SeaweedFS from 4.17 have them; use one of those, or a folder");
    let refuse = |server: &server::Server| server.answer("PUT probe/", "501 Not Implemented");
    let error = check_creates(refuse).await.0.unwrap();
    assert!(matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }));
    assert!(error.to_string().contains("the server refuses conditional writes;"), "{error}");
    let forbid = |server: &server::Server| server.answer("PUT probe/", "403 Forbidden");
    let error = check_creates(forbid).await.0.unwrap();
    assert!(error.to_string().contains("the credentials were refused"), "{error}");
    for test in TestStore::each().await {
        test.store.objects.check_creates("x").await.unwrap();
    }
}
