//! Turns an object store's error into one clear line of the right kind.
//!
//! Answers are sorted by whether another try can help, by their codes rather than their status: temporary ones are
//! Unavailable; those that would be repeated are Invalid, unless the same kind of operation has worked before. Server
//! answers may quote keys and signatures: refusals are reworded, and the rest is stripped of secrets.

use std::io::{self, ErrorKind};
use std::{error::Error as StdError, fmt::Display};

use agrpo_spec::Message;
use object_store::Error;

use super::action::{Action, Operation};
use super::answer::{Answer, Fault, OF_CLOCK, OF_KEYS, OF_REGION, classify};
use crate::{JobsError, error::causes, redact, regular};

/// The setting that says by which checksum uploads are checked.
pub(crate) const CHECKSUM: &str = "AGRPO_S3_CHECKSUM";
/// Letters of a library's error that are shown at most.
const SHOWN: usize = 300;

/// Which store an error came from.
#[derive(Default)]
pub(crate) struct Backend {
    pub(crate) url: String,
    /// The bucket of an S3 server; `None` on this machine.
    pub(crate) bucket: Option<String>,
    pub(crate) endpoint: String,
    /// Values that must never be shown.
    pub(crate) secrets: Vec<String>,
    /// Whether the server is asked to check uploads.
    pub(crate) sends_checksums: bool,
}

/// The kind of an error, and its text without the store's address.
type Meaning = (fn(Message) -> JobsError, String);

impl Backend {
    /// What a failed operation means; `is_trusted` where the same kind of operation worked not long ago.
    pub(crate) fn explain(
        &self,
        operation: Operation<'_>,
        error: Error,
        is_trusted: bool,
    ) -> JobsError {
        let (kind, text) = self.meaning(operation, &error, is_trusted);
        kind(Message::caused_by(format!("{}: {text}", self.url), error))
    }

    fn meaning(&self, operation: Operation<'_>, error: &Error, is_trusted: bool) -> Meaning {
        if let Some(refusal) = regular::refusal_in(error) {
            return (JobsError::Data, format!("cannot {operation}: {refusal}; move it away"));
        }
        let is_write = operation.0 == Action::Write;
        let refusal = match (&self.bucket, classify(error)) {
            (Some(bucket), Fault::NoBucket) => {
                let text = format!(
                    "there is no bucket `{bucket}`; create it with `aws s3 mb s3://{bucket}` (and \
                     --endpoint-url where the store is not AWS) or name another store"
                );
                return (JobsError::Invalid, text);
            }
            (Some(_), Fault::NoKeys) => {
                let why = "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
                return (JobsError::Invalid, why.to_owned());
            }
            (Some(_), Fault::Unreachable) => {
                let text = format!(
                    "cannot {operation}: no connection to {}; check AWS_ENDPOINT_URL and that \
                     the store is up",
                    self.hidden(&self.endpoint)
                );
                return (JobsError::Unavailable, text);
            }
            (Some(_), Fault::NoS3) => {
                let why = "what answered is no S3 server, or one that leaves out what agrpo needs (ETag, \
                           Last-Modified, Content-Length, XML); check AWS_ENDPOINT and any proxy before the server";
                let root = causes(error).last().map(|root| self.shown(root)).unwrap_or_default();
                Some((true, format!("{why}: {root}")))
            }
            (Some(_), Fault::Refused(answer)) if is_write && answer.is_full() => {
                return full(operation);
            }
            (Some(_), Fault::Refused(answer)) if !answer.is_passing() => {
                Some(self.refusal(is_write, &answer))
            }
            _ => None,
        };
        match refusal {
            Some((true, why)) if is_trusted => {
                (JobsError::Unavailable, format!("cannot {operation}, which worked before: {why}"))
            }
            Some((_, why)) => (JobsError::Invalid, format!("cannot {operation}: {why}")),
            None => self.of_cause(operation, error),
        }
    }

    /// Why another try at once does not help, and whether the refusal may be temporary where the same operation worked
    /// before: keys are rotated, clocks set, gateways restarted.
    fn refusal(&self, is_write: bool, answer: &Answer) -> (bool, String) {
        let server_answered = || format!("the server answered {}", self.shown(answer));
        if answer.has(&OF_CLOCK) {
            let why = "the server's clock and this machine's differ too much; set both by NTP";
            (true, why.to_owned())
        } else if answer.has(&OF_REGION) || (300..400).contains(&answer.status) {
            let why = "the bucket is in another region or behind another address; check AWS_REGION and AWS_ENDPOINT";
            (true, format!("{}: {why}", server_answered()))
        } else if [401, 403].contains(&answer.status) || answer.has(&OF_KEYS) {
            let why = "the credentials were refused; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, what they may \
                       do, and this machine's clock";
            (true, why.to_owned())
        } else if answer.status == 404 {
            let why = "check the bucket, and that AWS_ENDPOINT is the address of an S3 server";
            (true, format!("{}: {why}", server_answered()))
        } else if is_write && [400, 501].contains(&answer.status) && self.sends_checksums {
            let why = format!(
                "{}; it may not know checksums of uploads: {CHECKSUM}=none leaves them out (agrpo checks every blob \
                 that it reads by its name)",
                server_answered()
            );
            (false, why)
        } else {
            let why = "another try does not help: check AWS_ENDPOINT and what the server supports";
            (false, format!("{}; {why}", server_answered()))
        }
    }

    fn of_cause(&self, operation: Operation<'_>, error: &Error) -> Meaning {
        let shown = || format!("cannot {operation}: {}", self.shown(error));
        match (error, io_kind(error)) {
            (
                Error::InvalidPath { .. }
                | Error::NotImplemented { .. }
                | Error::NotSupported { .. }
                | Error::JoinError { .. },
                _,
            ) => (JobsError::Internal, shown()),
            (_, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded)) => full(operation),
            (_, Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
                if self.bucket.is_none() =>
            {
                let text = format!(
                    "cannot {operation}: permission denied; this user needs the right to read and \
                     write the folder and all in it"
                );
                (JobsError::Invalid, text)
            }
            _ => (JobsError::Unavailable, shown()),
        }
    }

    fn hidden(&self, text: &str) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(redact::text(text).into_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// A library's error or a server's answer in one line without secrets.
    fn shown(&self, text: impl Display) -> String {
        let text = text.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let text = self.hidden(&text);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{} ...", &text[..end]),
            None => text,
        }
    }
}

fn full(operation: Operation<'_>) -> Meaning {
    let why = "no space left; free some and start again: stored results are intact";
    (JobsError::Unavailable, format!("cannot {operation}: {why}"))
}

/// The kind of the innermost I/O error among the causes of an error.
fn io_kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last().map(io::Error::kind)
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
        let backend = Backend { bucket: Some("bucket".into()), ..Backend::default() };
        let operation = Operation(Action::Delete, "probe/a");
        let refused = backend.explain(operation, error, false).to_string();
        assert!(refused.contains(": the credentials were refused"), "{refused}");
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let backend = Backend { url: "file:///s".into(), ..Backend::default() };
        let write = Operation(Action::Write, "cas/ab");
        let error = backend.explain(write, io_error(io::ErrorKind::StorageFull), false);
        assert!(matches!(error, JobsError::Unavailable(_)));
        insta::assert_snapshot!(error, @"file:///s: cannot write cas/ab: no space left; free some and start again: stored results are intact");
        let error = backend.explain(write, io_error(io::ErrorKind::ReadOnlyFilesystem), false);
        assert!(matches!(error, JobsError::Invalid(_)), "{error}");
    }

    #[test]
    fn secrets_and_line_breaks_do_not_come_through() {
        let (bucket, secrets) = (Some("b".into()), vec!["hunter2".into()]);
        let backend = Backend { bucket, secrets, ..Backend::default() };
        let source = io::Error::other(format!("key hunter2\nrefused {}", "x".repeat(1000)));
        let error = Error::Generic { store: "S3", source: Box::new(source) };
        let error = backend.explain(Operation(Action::Read, "x"), error, false);
        let text = error.to_string();
        assert!(!text.contains("hunter2") && !text.contains('\n') && text.len() < 400, "{text}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(error.source().is_some_and(|source| source.is::<Error>()));
    }
}
