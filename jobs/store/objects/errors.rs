//! From an object store's errors to one clear line of the right kind.
//!
//! Answers are sorted by whether trying again can help, by their codes rather than their status alone: what is about
//! the moment is Unavailable, what would be answered alike is Invalid, unless the same kind of operation has worked
//! before. Server answers may quote keys and signatures: refusals are put in our own words, and anything
//! else is stripped of the secrets that the store was opened with.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use object_store::Error;

use super::answer::{Answer, OF_CLOCK, OF_KEYS, OF_REGION, is_no_s3};
use crate::error::JobsError;
use crate::{redact, regular};

/// The setting that says by which checksum uploads are checked.
pub(crate) const CHECKSUM: &str = "AGRPO_S3_CHECKSUM";
/// Letters of a foreign error that are worth showing.
const SHOWN: usize = 300;

/// Which store an error came from.
pub(crate) struct Place {
    url: String,
    bucket: Option<String>,
    endpoint: String,
    /// Values that must never be shown.
    secrets: Vec<String>,
    sends_checksums: bool,
}

impl Place {
    /// A store on this machine.
    pub(crate) fn new(url: String) -> Self {
        let endpoint = String::new();
        Self { url, bucket: None, endpoint, secrets: vec![], sends_checksums: false }
    }

    /// A store behind an S3 endpoint.
    pub(crate) fn in_bucket(
        url: &str,
        bucket: &str,
        endpoint: String,
        secrets: Vec<String>,
    ) -> Self {
        let (url, bucket) = (url.to_owned(), Some(bucket.to_owned()));
        Self { url, bucket, endpoint, secrets, sends_checksums: false }
    }

    /// Whether it is asked to check uploads.
    pub(crate) fn with_checksums(self, sends_checksums: bool) -> Self {
        Self { sends_checksums, ..self }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn bucket(&self) -> Option<&str> {
        self.bucket.as_deref()
    }

    /// Whether something is missing because the whole bucket is.
    pub(crate) fn lacks_bucket(&self, error: &(dyn StdError + 'static)) -> bool {
        self.bucket.is_some() && error.to_string().contains("NoSuchBucket")
    }

    pub(crate) fn silent(&self, action: &str, limit: Duration) -> JobsError {
        JobsError::Unavailable(format!(
            "{}: cannot {action}: no answer within {} s; check that the store is up",
            self.url,
            limit.as_secs()
        ))
    }

    /// What a failed operation means; `is_trusted` where the same kind of operation has worked before, and has not
    /// been refused for too long since.
    pub(crate) fn explain(&self, action: &str, error: &Error, is_trusted: bool) -> JobsError {
        let url = &self.url;
        match error {
            _ if let Some(refusal) = regular::refusal_in(error) => {
                JobsError::Data(format!("{url}: cannot {action}: {refusal}; move it away"))
            }
            _ if self.lacks_bucket(error) => self.no_bucket(),
            _ if self.bucket.is_some()
                && action.starts_with("write")
                && Answer::of(error).is_some_and(|answer| answer.is_full()) =>
            {
                self.full(action)
            }
            _ if self.bucket.is_some()
                && let Some(refusal) = self.refusal(action, error) =>
            {
                match is_trusted && refusal.may_pass {
                    true => JobsError::Unavailable(format!(
                        "{url}: cannot {action}, which worked before: {}",
                        refusal.why
                    )),
                    false => JobsError::Invalid(format!("{url}: cannot {action}: {}", refusal.why)),
                }
            }
            Error::InvalidPath { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
            | Error::JoinError { .. } => {
                JobsError::Internal(format!("{url}: cannot {action}: {}", self.shown(error)))
            }
            _ => self.explain_cause(action, error),
        }
    }

    /// Why a server's answer is no use to try again on, if it is none.
    fn refusal(&self, action: &str, error: &Error) -> Option<Refusal> {
        if is_no_s3(error) {
            let why = "what answered is no S3 server, or one that leaves out what agrpo needs (ETag, \
                       Last-Modified, Content-Length, XML); check AWS_ENDPOINT and what stands before the server";
            return Some(Refusal { why: format!("{why}: {}", self.cause(error)), may_pass: true });
        }
        let answer = Answer::of(error).filter(|_| !is_of_machine(error))?;
        let message = || {
            let answer = answer.to_string();
            format!("the server answered {}", self.shown_text(&answer))
        };
        let passes = |why: String| Some(Refusal { why, may_pass: true });
        let never = |why: String| Some(Refusal { why, may_pass: false });
        if answer.is_passing() {
            return None;
        }
        if answer.has(&OF_CLOCK) {
            return passes(
                "the server's clock and this machine's differ too much; set both by NTP".to_owned(),
            );
        }
        if answer.has(&OF_REGION) || (300..400).contains(&answer.status) {
            return passes(format!(
                "{}: the bucket is in another region or behind another address; check AWS_REGION and AWS_ENDPOINT",
                message()
            ));
        }
        if [401, 403].contains(&answer.status) || answer.has(&OF_KEYS) {
            return passes(
                "the credentials were refused; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, what they may \
                 do, and this machine's clock"
                    .to_owned(),
            );
        }
        if answer.status == 404 {
            return passes(format!(
                "{}: check the bucket, and that AWS_ENDPOINT is the address of an S3 server",
                message()
            ));
        }
        if action.starts_with("write")
            && [400, 501].contains(&answer.status)
            && self.sends_checksums
        {
            return never(format!(
                "{}; it may not know checksums of uploads: {CHECKSUM}=none leaves them out (agrpo checks every \
                 blob that it reads by its name)",
                message()
            ));
        }
        never(format!(
            "{}; it will not answer otherwise: check AWS_ENDPOINT and what the server can do",
            message()
        ))
    }

    fn no_bucket(&self) -> JobsError {
        let (url, bucket) = (&self.url, self.bucket().unwrap_or_default());
        JobsError::Invalid(format!(
            "{url}: there is no bucket `{bucket}`; create it with `aws s3 mb s3://{bucket}` (and \
             --endpoint-url where the store is not AWS) or name another store"
        ))
    }

    fn full(&self, action: &str) -> JobsError {
        JobsError::Unavailable(format!(
            "{}: cannot {action}: no space left; free some and start again, what is stored stays good",
            self.url
        ))
    }

    fn explain_cause(&self, action: &str, error: &Error) -> JobsError {
        let url = &self.url;
        match io_kind(error) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => self.full(action),
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
                if self.bucket.is_none() =>
            {
                JobsError::Invalid(format!(
                    "{url}: cannot {action}: permission denied; this user needs the right to read and \
                     write the folder and all in it"
                ))
            }
            _ if is_of_machine(error) => JobsError::Invalid(format!(
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
        secrets.fold(redact::text(text).into_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// What stands at the bottom of a foreign error, in one line without secrets.
    fn cause(&self, error: &(dyn StdError + 'static)) -> String {
        let mut cause = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        self.shown(cause)
    }

    /// A foreign error in one line without secrets.
    fn shown(&self, error: &(dyn StdError + 'static)) -> String {
        self.shown_text(&error.to_string())
    }

    fn shown_text(&self, text: &str) -> String {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = self.hidden(&text);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{} ...", &text[..end]),
            None => text,
        }
    }
}

/// Why trying again at once is no use.
struct Refusal {
    why: String,
    /// Whether it may pass all the same where it worked before: keys are rotated, clocks set, gateways restarted.
    may_pass: bool,
}

/// Whether an error is about the keys that a machine of AWS has by its role.
fn is_of_machine(error: &Error) -> bool {
    error.to_string().contains("169.254.169.254")
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
    fn a_deletion_that_is_forbidden_is_refused_as_any_other_request_is() {
        let source = "DeleteObjects request failed for key probe/a: no (code: AccessDenied)".into();
        let error = Error::Generic { store: "S3", source };
        let refusal = Place::new("s3://bucket".into()).refusal("delete probe/a", &error).unwrap();
        assert!(refusal.why.starts_with("the credentials were refused"), "{}", refusal.why);
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let place = Place::new("file:///s".into());
        let error = place.explain("write cas/ab", &io_error(io::ErrorKind::StorageFull), false);
        assert!(matches!(error, JobsError::Unavailable(_)));
        insta::assert_snapshot!(error, @"file:///s: cannot write cas/ab: no space left; free some and start again, what is stored stays good");
        let error =
            place.explain("write cas/ab", &io_error(io::ErrorKind::ReadOnlyFilesystem), false);
        assert!(matches!(error, JobsError::Invalid(_)), "{error}");
    }

    #[test]
    fn secrets_and_line_breaks_do_not_come_through() {
        let secrets = vec!["hunter2".into()];
        let place = Place::in_bucket("s3://b", "b", "http://h".into(), secrets);
        let source = io::Error::other(format!("key hunter2\nrefused {}", "x".repeat(1000)));
        let error = Error::Generic { store: "S3", source: Box::new(source) };
        let text = place.explain("read x", &error, false).to_string();
        assert!(!text.contains("hunter2") && !text.contains('\n') && text.len() < 400, "{text}");
    }
}
