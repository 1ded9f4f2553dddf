//! Opens the objects of a store by its URL. The only place that knows which kinds of store there are.
//!
//! Reads no environment: the settings are passed in, by their names there. Creates the folder of a local store, but
//! never a bucket.

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use agrpo_spec::Message;
use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, local::LocalFileSystem,
    memory::InMemory, prefix::PrefixStore,
};

use super::errors::{Backend, CHECKSUM};
use super::{address::Address, client::Objects};
use crate::{JobsError, Result};

/// For one request of any size.
const REQUEST: Duration = Duration::from_secs(300);
/// For all tries of one request that fails quickly: long enough for a server to be restarted.
const RETRIES: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 15 });

pub(crate) async fn open(url: &str, options: &[(String, String)]) -> Result<Objects> {
    match Address::parse(url)? {
        Address::Memory => Ok(over(Arc::new(InMemory::new()))),
        Address::Bucket { bucket, prefix } => open_s3(&bucket, &prefix, options),
        Address::Folder(folder) => open_folder(&folder).await,
    }
}

/// Objects that live as long as the process.
pub(crate) fn over(objects: Arc<dyn ObjectStore>) -> Objects {
    Objects::new(objects, None, Backend { url: "memory://".to_owned(), ..Backend::default() })
}

/// The bytes of one object in any bucket; `None` where there is none.
pub(crate) async fn read_s3(address: &str, options: &[(String, String)]) -> Result<Option<Bytes>> {
    let rest = address.strip_prefix("s3://").unwrap_or(address);
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(JobsError::invalid(format!(
            "`{address}` names no bucket: expected s3://bucket/key"
        )));
    }
    open_s3(bucket, "", options)?.read(key).await
}

async fn open_folder(folder: &Path) -> Result<Objects> {
    tokio::fs::create_dir_all(folder).await.map_err(|error| cannot_open(folder, error))?;
    let root = tokio::fs::canonicalize(folder).await.map_err(|error| cannot_open(folder, error))?;
    let files =
        LocalFileSystem::new_with_prefix(&root).map_err(|error| cannot_open(folder, error))?;
    let backend = Backend { url: format!("file://{}", root.display()), ..Backend::default() };
    Ok(Objects::new(Arc::new(files), Some(root), backend))
}

fn cannot_open(folder: &Path, error: impl Error + Send + Sync + 'static) -> JobsError {
    let text = format!("{}: cannot be opened as a store: {error}", folder.display());
    JobsError::Invalid(Message::caused_by(text, error))
}

fn open_s3(bucket: &str, prefix: &str, options: &[(String, String)]) -> Result<Objects> {
    let url = format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned();
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(3), ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 100, retry_timeout: RETRIES };
    let mut builder = AmazonS3Builder::new()
        .with_client_options(ClientOptions::new().with_timeout(REQUEST))
        .with_retry(retry);
    let (mut secrets, mut endpoint) = (vec![], None);
    for (name, value) in options {
        // Settings of other tools (AWS_PROFILE and the like) are ignored.
        let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
        match key {
            AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint => {
                builder = builder.with_allow_http(value.starts_with("http://"));
                endpoint = Some(value.clone());
            }
            AmazonS3ConfigKey::Checksum => continue,
            AmazonS3ConfigKey::AccessKeyId
            | AmazonS3ConfigKey::SecretAccessKey
            | AmazonS3ConfigKey::Token => secrets.push(value.clone()),
            _ => {}
        }
        builder = builder.with_config(key, value);
    }
    let checksum = checksum(options)?;
    if let Some(checksum) = checksum {
        builder = builder.with_checksum_algorithm(checksum);
    }
    // The URL overrides AWS_BUCKET.
    let s3 = builder.with_bucket_name(bucket).build().map_err(|error| {
        JobsError::Invalid(Message::caused_by(format!("{url}: {error}"), error))
    })?;
    let objects: Arc<dyn ObjectStore> = match prefix {
        "" => Arc::new(s3),
        prefix => Arc::new(PrefixStore::new(s3, prefix)),
    };
    let endpoint = endpoint.unwrap_or_else(|| "AWS".to_owned());
    let (bucket, sends_checksums) = (Some(bucket.to_owned()), checksum.is_some());
    let backend = Backend { url, bucket, endpoint, secrets, sends_checksums };
    Ok(Objects::new(objects, None, backend))
}

/// The checksum by which the server checks uploads; `None` where it does not.
fn checksum(options: &[(String, String)]) -> Result<Option<Checksum>> {
    let set = |wanted: &str| options.iter().find(|(name, _)| name == wanted);
    // The second setting is the library's.
    let Some((name, text)) = set(CHECKSUM).or_else(|| set("AWS_CHECKSUM_ALGORITHM")) else {
        return Ok(Some(Checksum::SHA256));
    };
    match text.to_ascii_lowercase().as_str() {
        "none" => Ok(None),
        "sha256" => Ok(Some(Checksum::SHA256)),
        "crc64nvme" => Ok(Some(Checksum::CRC64NVME)),
        _ => Err(JobsError::invalid(format!("{name}={text}: expected sha256, crc64nvme or none"))),
    }
}
