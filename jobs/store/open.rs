//! From a store's URL to its backend. The only place that knows which kinds of store there are.
//!
//! Reads no environment: the AWS_* settings are handed in. Creates the folder of a local store, but
//! never a bucket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::backend::Backend;
use super::errors::Place;
use crate::error::JobsError;

/// For one request of any size.
const REQUEST: Duration = Duration::from_secs(300);
/// For all tries of one request that fails quickly: long enough for a server to be restarted.
const RETRIES: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 15 });

pub(super) async fn open(url: &str, options: &[(String, String)]) -> Result<Backend, JobsError> {
    match url.split_once("://") {
        Some(("memory", "")) => {
            let place = Place::new(url.to_owned());
            let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            Ok(Backend::new(objects, None, place))
        }
        Some(("s3", rest)) => open_s3(url, rest, options),
        Some(("file", folder)) if folder.starts_with('/') => open_folder(folder).await,
        None if !url.is_empty() => open_folder(url).await,
        _ => Err(JobsError::Invalid(format!(
            "`{url}` is not a store: expected file:///folder, a plain folder, s3://bucket/prefix or \
             memory://"
        ))),
    }
}

/// The bytes of one object in any bucket; `None` where there is none.
pub(crate) async fn read_s3(
    address: &str,
    options: &[(String, String)],
) -> Result<Option<Bytes>, JobsError> {
    let rest = address.strip_prefix("s3://").unwrap_or(address);
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    open_s3(&format!("s3://{bucket}"), bucket, options)?.read(key).await
}

async fn open_folder(folder: &str) -> Result<Backend, JobsError> {
    let refuse = |error: &dyn std::fmt::Display| {
        JobsError::Invalid(format!("{folder}: cannot be opened as a store: {error}"))
    };
    tokio::fs::create_dir_all(folder).await.map_err(|error| refuse(&error))?;
    let folder = tokio::fs::canonicalize(folder).await.map_err(|error| refuse(&error))?;
    let files = LocalFileSystem::new_with_prefix(&folder).map_err(|error| refuse(&error))?;
    let place = Place::new(format!("file://{}", folder.display()));
    Ok(Backend::new(Arc::new(files), Some(folder), place))
}

fn open_s3(url: &str, rest: &str, options: &[(String, String)]) -> Result<Backend, JobsError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(JobsError::Invalid(format!(
            "`{url}` names no bucket: expected s3://bucket or s3://bucket/prefix"
        )));
    }
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(3), ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 100, retry_timeout: RETRIES };
    let mut builder = AmazonS3Builder::new()
        .with_client_options(ClientOptions::new().with_timeout(REQUEST))
        .with_checksum_algorithm(Checksum::SHA256)
        .with_retry(retry);
    let (mut secrets, mut endpoint) = (vec![], None);
    for (name, value) in options {
        // Settings of other tools (AWS_PROFILE and the like) are none of ours.
        let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
        match key {
            AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint => {
                builder = builder.with_allow_http(value.starts_with("http://"));
                endpoint = Some(value.clone());
            }
            AmazonS3ConfigKey::AccessKeyId
            | AmazonS3ConfigKey::SecretAccessKey
            | AmazonS3ConfigKey::Token => secrets.push(value.clone()),
            _ => {}
        }
        builder = builder.with_config(key, value);
    }
    // What the URL says goes before AWS_BUCKET.
    let s3 = builder
        .with_bucket_name(bucket)
        .build()
        .map_err(|error| JobsError::Invalid(format!("{url}: {error}")))?;
    let objects: Arc<dyn ObjectStore> = match prefix.trim_end_matches('/') {
        "" => Arc::new(s3),
        prefix => Arc::new(PrefixStore::new(s3, prefix)),
    };
    let endpoint = endpoint.unwrap_or_else(|| "AWS".to_owned());
    let place = Place::in_bucket(url, bucket, endpoint, secrets);
    Ok(Backend::new(objects, None, place))
}
