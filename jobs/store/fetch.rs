//! Files that a run file names by address: a path, http(s) or s3.
//!
//! The caller checks the bytes against the SHA-256 in the run file. Caches nothing and retries nothing; an address is
//! never shown with its user and password.

use std::{path::Path, time::Duration};

use agrpo_spec::Message;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::{Client, StatusCode, Url};
use tokio::io::AsyncReadExt;

use crate::{JobsError, Result, objects::read_s3, redact, regular};

/// The timeout until a server answers, and between two pieces of its answer.
const SILENCE: Duration = Duration::from_secs(30);
/// The largest dataset: a larger one may not fit into memory twice.
const LARGEST: u64 = 4 << 30;

/// The bytes at an address. `options` are AWS_* names and values. Invalid where nothing is there.
pub async fn fetch(address: &str, options: &[(String, String)]) -> Result<Bytes> {
    match address.split_once("://") {
        Some(("http" | "https", _)) => over_http(address).await,
        Some(("s3", _)) => {
            let bytes = read_s3(address, options).await?.ok_or_else(|| {
                JobsError::invalid(format!("{address}: nothing is there; check the address"))
            })?;
            check_size(address, bytes.len() as u64).map(|()| bytes)
        }
        Some(("file", path)) => from_disk(Path::new(path)).await,
        Some((scheme, _)) => Err(JobsError::invalid(format!(
            "{scheme}:// is no address of a file: expected a path, https://, http:// or s3://"
        ))),
        None => from_disk(Path::new(address)).await,
    }
}

async fn from_disk(path: &Path) -> Result<Bytes> {
    let shown = path.display();
    let refuse = |error: std::io::Error| {
        let text = match regular::reason(&error).is_some() {
            true => error.to_string(),
            false => format!("{shown}: cannot be read: {}", error.kind()),
        };
        JobsError::Invalid(Message::caused_by(text, error))
    };
    let mut file = tokio::fs::File::from_std(regular::open(path).map_err(refuse)?);
    let size = file.metadata().await.map_err(refuse)?.len();
    check_size(&shown.to_string(), size)?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.read_to_end(&mut bytes).await.map_err(refuse)?;
    Ok(bytes.into())
}

async fn over_http(address: &str) -> Result<Bytes> {
    // The client takes user and password out of it.
    let url = Url::parse(address).map_err(|error| {
        let text = format!("the address of a file cannot be used: {error}");
        JobsError::Invalid(Message::caused_by(text, error))
    })?;
    let shown = redact::address(url.as_str());
    let unavailable = |error: reqwest::Error| {
        let error = error.without_url();
        let what = if error.is_timeout() { "did not answer in time" } else { "cannot be reached" };
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let text = format!("{shown}: {what}{}", cause.unwrap_or_default());
        JobsError::Unavailable(Message::caused_by(text, error))
    };
    let client = Client::builder().connect_timeout(SILENCE).read_timeout(SILENCE).build().map_err(
        |error| JobsError::Internal(Message::caused_by(format!("no HTTP client: {error}"), error)),
    )?;
    let answer = client.get(url).send().await.map_err(unavailable)?;
    let status = answer.status();
    if !status.is_success() {
        return Err(refusal(&shown, status));
    }
    let announced = answer.content_length().unwrap_or(0);
    check_size(&shown, announced)?;
    let mut bytes = BytesMut::new();
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.map_err(unavailable)?);
        check_size(&shown, bytes.len() as u64)?;
    }
    Ok(bytes.freeze())
}

fn refusal(shown: &str, status: StatusCode) -> JobsError {
    let answer = format!("{shown}: the server answered {status}");
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        JobsError::unavailable(format!("{answer}; try again later"))
    } else {
        JobsError::invalid(format!("{answer}; check the address and the right to read it"))
    }
}

fn check_size(shown: &str, size: u64) -> Result<()> {
    let text = || format!("{shown}: more than {} GiB, too large for a dataset", LARGEST >> 30);
    if size <= LARGEST { Ok(()) } else { Err(JobsError::invalid(text())) }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Starts a server that gives one answer to one request; returns its address.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a server of one request ends by itself")]
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            assert!(read > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        drop(serving);
        format!("http://{address}/rows.jsonl")
    }

    async fn refused(address: &str) -> (JobsError, String) {
        let error = fetch(address, &[]).await.unwrap_err();
        let text = error.to_string();
        (error, text)
    }

    #[tokio::test]
    async fn files_come_from_disk_and_over_http() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        assert_eq!(fetch(path.to_str().unwrap(), &[]).await.unwrap(), "{}\n");
        assert_eq!(fetch(&format!("file://{}", path.display()), &[]).await.unwrap(), "{}\n");
        let address = server("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}\n").await;
        assert_eq!(fetch(&address, &[]).await.unwrap(), "{}\n");
    }

    #[tokio::test]
    async fn a_missing_file_is_distinguished_from_an_unavailable_server() {
        for user in ["//me:secret@", "///me:secret@"] {
            let address = server("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
            let (error, said) = refused(&address.replace("//", user)).await;
            assert!(matches!(error, JobsError::Invalid(_)));
            let advice = "check the address and the right to read it";
            assert_eq!(said, format!("{address}: the server answered 404 Not Found; {advice}"));
        }
        let address = server("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(refused(&address).await.0, JobsError::Unavailable(_)));
        let address = server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}").await;
        let (error, _) = refused(&address).await;
        assert!(matches!(error, JobsError::Unavailable(_)), "an answer that breaks off is no file");
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (error, _) = refused(&format!("http://{closed}/x")).await;
        assert!(matches!(error, JobsError::Unavailable(_)));
        let (error, said) = refused("no/such/file").await;
        assert!(matches!(error, JobsError::Invalid(_)));
        assert_eq!(said, "no/such/file: cannot be read: entity not found");
        let (error, said) = refused("ftp://host/x").await;
        assert!(matches!(error, JobsError::Invalid(_)));
        assert!(said.contains("ftp:// is no address of a file"), "{said}");
    }
}
