//! From an object store's errors to one clear line of the right kind.
//!
//! Server answers may quote keys and signatures: refusals are told in our own words, and anything
//! else is stripped of the secrets that the store was opened with.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use object_store::Error;

use crate::error::JobsError;

/// Letters of a foreign error that are worth showing.
const SHOWN: usize = 300;

/// Which store an error came from.
pub(super) struct Place {
    url: String,
    bucket: Option<String>,
    endpoint: String,
    /// Values that must never be shown.
    secrets: Vec<String>,
}

impl Place {
    /// A store on this machine.
    pub(super) fn new(url: String) -> Self {
        Self { url, bucket: None, endpoint: String::new(), secrets: vec![] }
    }

    /// A store behind an S3 endpoint.
    pub(super) fn in_bucket(
        url: &str,
        bucket: &str,
        endpoint: String,
        secrets: Vec<String>,
    ) -> Self {
        Self { url: url.to_owned(), bucket: Some(bucket.to_owned()), endpoint, secrets }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn bucket(&self) -> Option<&str> {
        self.bucket.as_deref()
    }

    /// Whether something is missing because the whole bucket is.
    pub(super) fn lacks_bucket(&self, error: &(dyn StdError + 'static)) -> bool {
        self.bucket.is_some() && error.to_string().contains("NoSuchBucket")
    }

    pub(super) fn silent(&self, action: &str, limit: Duration) -> JobsError {
        JobsError::Unavailable(format!(
            "{}: cannot {action}: no answer within {} s; check that the store is up",
            self.url,
            limit.as_secs()
        ))
    }

    pub(super) fn explain(&self, action: &str, error: &Error) -> JobsError {
        let url = &self.url;
        match error {
            _ if self.lacks_bucket(error) => self.no_bucket(),
            _ if self.bucket.is_some() && is_refusal(error) => JobsError::Invalid(format!(
                "{url}: cannot {action}: the credentials were refused; check AWS_ACCESS_KEY_ID, \
                 AWS_SECRET_ACCESS_KEY, what they may do, and this machine's clock"
            )),
            Error::InvalidPath { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
            | Error::JoinError { .. } => {
                JobsError::Internal(format!("{url}: cannot {action}: {}", self.shown(error)))
            }
            _ => self.explain_cause(action, error),
        }
    }

    fn no_bucket(&self) -> JobsError {
        let (url, bucket) = (&self.url, self.bucket().unwrap_or_default());
        JobsError::Invalid(format!(
            "{url}: there is no bucket `{bucket}`; create it with `aws s3 mb s3://{bucket}` (and \
             --endpoint-url where the store is not AWS) or name another store"
        ))
    }

    fn explain_cause(&self, action: &str, error: &Error) -> JobsError {
        let url = &self.url;
        match io_kind(error) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                JobsError::Unavailable(format!(
                    "{url}: cannot {action}: no space left; free some and start again, what is \
                     stored stays good"
                ))
            }
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
                if self.bucket.is_none() =>
            {
                JobsError::Invalid(format!(
                    "{url}: cannot {action}: permission denied; make the folder writable for this \
                     user or name another store"
                ))
            }
            _ if error.to_string().contains("169.254.169.254") => JobsError::Invalid(format!(
                "{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )),
            _ if error.to_string().contains("error sending request") => {
                JobsError::Unavailable(format!(
                    "{url}: cannot {action}: no connection to {}; check AWS_ENDPOINT_URL and that \
                     the store is up",
                    self.hidden(&self.endpoint)
                ))
            }
            _ => JobsError::Unavailable(format!("{url}: cannot {action}: {}", self.shown(error))),
        }
    }

    fn hidden(&self, text: &str) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// A foreign error in one line without secrets.
    fn shown(&self, error: &(dyn StdError + 'static)) -> String {
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let text = self.hidden(&text);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{} ...", &text[..end]),
            None => text,
        }
    }
}

/// Whether a server knows us not, or lets us not. Some requests say so in their text only.
fn is_refusal(error: &Error) -> bool {
    let text = error.to_string();
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
        || ["401", "403"].iter().any(|status| text.contains(&format!("status code: {status}")))
}

/// The operating system's word at the bottom of an error, if there is one.
fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    let mut kind = None;
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            kind = Some(io.kind());
        }
        next = error.source();
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io_error(kind: io::ErrorKind) -> Error {
        Error::Generic { store: "LocalFileSystem", source: Box::new(io::Error::from(kind)) }
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let place = Place::new("file:///s".into());
        let error = place.explain("write cas/ab", &io_error(io::ErrorKind::StorageFull));
        assert!(matches!(error, JobsError::Unavailable(_)));
        insta::assert_snapshot!(error, @"file:///s: cannot write cas/ab: no space left; free some and start again, what is stored stays good");
        let error = place.explain("write cas/ab", &io_error(io::ErrorKind::ReadOnlyFilesystem));
        assert!(matches!(error, JobsError::Invalid(_)), "{error}");
    }

    #[test]
    fn secrets_and_line_breaks_do_not_come_through() {
        let secrets = vec!["hunter2".into()];
        let place = Place::in_bucket("s3://b", "b", "http://h".into(), secrets);
        let source = io::Error::other(format!("key hunter2\nrefused {}", "x".repeat(1000)));
        let error = Error::Generic { store: "S3", source: Box::new(source) };
        let text = place.explain("read x", &error).to_string();
        assert!(!text.contains("hunter2") && !text.contains('\n') && text.len() < 400, "{text}");
    }
}
