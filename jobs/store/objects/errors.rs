//! From an object store's errors to one clear line of the right kind.
//!
//! Answers are sorted by whether trying again can help, by their codes rather than their status: what is about the
//! moment is Unavailable; what would be answered alike is Invalid, unless the same kind of operation has worked
//! before. Server answers may quote keys and signatures: refusals are put in our own words, and the rest is stripped
//! of secrets.

use std::io::{self, ErrorKind};
use std::{error::Error as StdError, fmt::Display};

use object_store::Error;

use super::answer::{Answer, OF_CLOCK, OF_KEYS, OF_REGION, Said, said};
use crate::{JobsError, error::causes, redact, regular};

/// The setting that says by which checksum uploads are checked.
pub(crate) const CHECKSUM: &str = "AGRPO_S3_CHECKSUM";
/// Letters of a foreign error that are worth showing.
const SHOWN: usize = 300;

/// Which store an error came from.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) url: String,
    /// The bucket of an S3 server; `None` on this machine.
    pub(crate) bucket: Option<String>,
    pub(crate) endpoint: String,
    /// Values that must never be shown.
    pub(crate) secrets: Vec<String>,
    /// Whether the server is asked to check uploads.
    pub(crate) sends_checksums: bool,
}

impl Place {
    /// What a failed operation means; `is_trusted` where the same kind of operation worked not long ago.
    pub(crate) fn explain(&self, action: &str, error: &Error, is_trusted: bool) -> JobsError {
        let url = &self.url;
        if let Some(refusal) = regular::refusal_in(error) {
            return JobsError::Data(format!("{url}: cannot {action}: {refusal}; move it away"));
        }
        let refusal = match (&self.bucket, said(error)) {
            (Some(bucket), Said::NoBucket) => {
                return JobsError::Invalid(format!(
                    "{url}: there is no bucket `{bucket}`; create it with `aws s3 mb s3://{bucket}` (and \
                     --endpoint-url where the store is not AWS) or name another store"
                ));
            }
            (Some(_), Said::NoKeys) => {
                return JobsError::Invalid(format!(
                    "{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                ));
            }
            (Some(_), Said::Unreachable) => {
                return JobsError::Unavailable(format!(
                    "{url}: cannot {action}: no connection to {}; check AWS_ENDPOINT_URL and that \
                     the store is up",
                    self.hidden(&self.endpoint)
                ));
            }
            (Some(_), Said::NoS3) => {
                let why = "what answered is no S3 server, or one that leaves out what agrpo needs (ETag, \
                           Last-Modified, Content-Length, XML); check AWS_ENDPOINT and what stands before the server";
                let root = causes(error).last().map(|root| self.shown(root)).unwrap_or_default();
                Some((true, format!("{why}: {root}")))
            }
            (Some(_), Said::Refused(answer)) if action.starts_with("write") && answer.is_full() => {
                return self.full(action);
            }
            (Some(_), Said::Refused(answer)) if !answer.is_passing() => {
                Some(self.refusal(action, &answer))
            }
            _ => None,
        };
        match refusal {
            Some((true, why)) if is_trusted => JobsError::Unavailable(format!(
                "{url}: cannot {action}, which worked before: {why}"
            )),
            Some((_, why)) => JobsError::Invalid(format!("{url}: cannot {action}: {why}")),
            None => self.explain_cause(action, error),
        }
    }

    /// Why it is no use to ask again at once, and whether it may pass all the same where it worked before: keys are
    /// rotated, clocks set, gateways restarted.
    fn refusal(&self, action: &str, answer: &Answer) -> (bool, String) {
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
        } else if action.starts_with("write")
            && [400, 501].contains(&answer.status)
            && self.sends_checksums
        {
            let why = format!(
                "{}; it may not know checksums of uploads: {CHECKSUM}=none leaves them out (agrpo checks every blob \
                 that it reads by its name)",
                server_answered()
            );
            (false, why)
        } else {
            let why = "it will not answer otherwise: check AWS_ENDPOINT and what the server can do";
            (false, format!("{}; {why}", server_answered()))
        }
    }

    fn full(&self, action: &str) -> JobsError {
        JobsError::Unavailable(format!(
            "{}: cannot {action}: no space left; free some and start again, what is stored stays good",
            self.url
        ))
    }

    fn explain_cause(&self, action: &str, error: &Error) -> JobsError {
        let url = &self.url;
        match (error, io_kind(error)) {
            (
                Error::InvalidPath { .. }
                | Error::NotImplemented { .. }
                | Error::NotSupported { .. }
                | Error::JoinError { .. },
                _,
            ) => JobsError::Internal(format!("{url}: cannot {action}: {}", self.shown(error))),
            (_, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded)) => self.full(action),
            (_, Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
                if self.bucket.is_none() =>
            {
                JobsError::Invalid(format!(
                    "{url}: cannot {action}: permission denied; this user needs the right to read and \
                     write the folder and all in it"
                ))
            }
            _ => JobsError::Unavailable(format!("{url}: cannot {action}: {}", self.shown(error))),
        }
    }

    fn hidden(&self, text: &str) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(redact::text(text).into_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// A foreign error or answer in one line without secrets.
    fn shown(&self, text: impl Display) -> String {
        let text = text.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let text = self.hidden(&text);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{} ...", &text[..end]),
            None => text,
        }
    }
}

/// The operating system's word at the bottom of an error, if there is one.
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
        let place = Place { bucket: Some("bucket".into()), ..Place::default() };
        let refused = place.explain("delete probe/a", &error, false).to_string();
        assert!(refused.contains(": the credentials were refused"), "{refused}");
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let place = Place { url: "file:///s".into(), ..Place::default() };
        let error = place.explain("write cas/ab", &io_error(io::ErrorKind::StorageFull), false);
        assert!(matches!(error, JobsError::Unavailable(_)));
        insta::assert_snapshot!(error, @"file:///s: cannot write cas/ab: no space left; free some and start again, what is stored stays good");
        let error =
            place.explain("write cas/ab", &io_error(io::ErrorKind::ReadOnlyFilesystem), false);
        assert!(matches!(error, JobsError::Invalid(_)), "{error}");
    }

    #[test]
    fn secrets_and_line_breaks_do_not_come_through() {
        let (bucket, secrets) = (Some("b".into()), vec!["hunter2".into()]);
        let place = Place { bucket, secrets, ..Place::default() };
        let source = io::Error::other(format!("key hunter2\nrefused {}", "x".repeat(1000)));
        let error = Error::Generic { store: "S3", source: Box::new(source) };
        let text = place.explain("read x", &error, false).to_string();
        assert!(!text.contains("hunter2") && !text.contains('\n') && text.len() < 400, "{text}");
    }
}
