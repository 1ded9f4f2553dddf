//! Classifies failed requests. The library shows status and code as text alone, and only this file parses that text.
//!
//! What a class means to the caller is in `errors.rs`.

use object_store::Error;

use crate::{JobsError, error::causes};

/// Codes of temporary refusals, whatever their status: another try helps.
const PASSING: [&str; 9] = [
    "SlowDown",
    "Throttl",
    "RequestLimitExceeded",
    "TooManyRequests",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout<",
    "BadDigest",
    "IncompleteBody",
];
pub(crate) const OF_CLOCK: [&str; 2] = ["RequestTimeTooSkewed", "RequestExpired"];
pub(crate) const OF_REGION: [&str; 5] = [
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
];
pub(crate) const OF_KEYS: [&str; 6] = [
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AccessDenied",
];

/// The library's words about answers that report success and do not come from an S3 server.
const NO_S3: [&str; 7] = [
    "Unable to extract metadata from headers",
    "Header missing from response",
    "Got invalid list response",
    "Got invalid DeleteObjects response",
    "Got invalid multipart response",
    "Invalid last modified",
    "Invalid content length",
];

/// A class of errors of the library.
pub(crate) enum Fault {
    /// The bucket does not exist.
    NoBucket,
    /// What answered speaks another protocol.
    NoS3,
    /// A machine of AWS has no role by which it would have keys.
    NoKeys,
    /// A server answered, and did not do what it was asked.
    Refused(Answer),
    /// No server was reached.
    Unreachable,
    /// Something else.
    Other,
}

/// Classifies an error of the library.
pub(crate) fn classify(error: &(dyn std::error::Error + 'static)) -> Fault {
    let text = error.to_string();
    let has = |words: &str| text.contains(words);
    let is_unsent = |error: &reqwest::Error| error.is_request();
    let refused = |status, text: &str| Fault::Refused(Answer { status, text: text.to_owned() });
    if has("NoSuchBucket") {
        Fault::NoBucket
    } else if NO_S3.iter().any(|words| has(words)) {
        Fault::NoS3
    } else if has("169.254.169.254") {
        Fault::NoKeys
    } else if has("error following redirect") {
        refused(301, "redirects without end")
    } else if has("redirect without LOCATION") {
        refused(301, "301 without a place")
    } else if has("DeleteObjects request failed") && has("(code: AccessDenied)") {
        // Deletions of several objects are answered by 200, with a code for each.
        refused(403, "403 Forbidden (AccessDenied)")
    } else if let Some((_, answer)) = text.split_once("status code: ")
        && let Some(Ok(status)) = answer.get(..3).map(str::parse)
    {
        refused(status, answer)
    } else if causes(error).filter_map(|cause| cause.downcast_ref()).any(is_unsent) {
        Fault::Unreachable
    } else {
        Fault::Other
    }
}

/// Whether a write may have been refused for its condition. Without a code (400 or 501) the reason may be another one:
/// the caller finds out by a write without a condition.
pub(crate) fn is_of_condition(error: &JobsError) -> bool {
    let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<Error>()) else {
        return false;
    };
    match classify(error) {
        Fault::Refused(answer) => {
            answer.has(&["NotImplemented", "If-None-Match"])
                || [400, 501].contains(&answer.status) && !answer.is_passing()
        }
        // The library does not send it where AWS_CONDITIONAL_PUT says so.
        _ => matches!(error, Error::NotImplemented { .. }),
    }
}

/// What a server answered that did not do what it was asked.
pub(crate) struct Answer {
    pub(crate) status: u16,
    text: String,
}

impl Answer {
    pub(crate) fn has(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| self.text.contains(code))
    }

    /// Whether the server has no room for more.
    pub(crate) fn is_full(&self) -> bool {
        self.status == 507 || self.has(&["QuotaExceeded", "StorageFull", "InsufficientStorage"])
    }

    /// Whether another try may succeed.
    pub(crate) fn is_passing(&self) -> bool {
        let is_of_moment = self.status >= 500 && ![501, 505].contains(&self.status);
        is_of_moment || [408, 409, 412, 425, 429].contains(&self.status) || self.has(&PASSING)
            // An upload in parts that was aborted elsewhere is started again.
            || self.text.contains("NoSuchUpload")
    }
}

impl std::fmt::Display for Answer {
    /// Status, and the code where the body holds one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tag = |name: &str| {
            let (_, rest) = self.text.split_once(&format!("<{name}>"))?;
            rest.split_once("</").map(|(value, _)| value)
        };
        let status = self.text.split(':').next().unwrap_or_default();
        match (tag("Code"), tag("Message")) {
            (Some(code), Some(message)) => write!(f, "{status} ({code}: {message})"),
            (Some(code), None) => write!(f, "{status} ({code})"),
            _ => write!(f, "{status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use agrpo_spec::Message;

    use super::*;

    fn of(text: &str) -> Fault {
        classify(&std::io::Error::other(text.to_owned()))
    }

    #[test]
    fn the_words_of_the_library_are_sorted() {
        assert!(matches!(of("404: <Code>NoSuchBucket</Code>"), Fault::NoBucket));
        assert!(matches!(of("Got invalid list response: x"), Fault::NoS3));
        assert!(matches!(of("error sending request for http://169.254.169.254/x"), Fault::NoKeys));
        assert!(matches!(of("disk full"), Fault::Other));
        for (text, status, shown) in [
            (
                "status code: 403 Forbidden: <Code>AccessDenied</Code>",
                403,
                "403 Forbidden (AccessDenied)",
            ),
            ("status code: 503 Busy", 503, "503 Busy"),
            ("error following redirect", 301, "redirects without end"),
        ] {
            let Fault::Refused(answer) = of(text) else { panic!("{text}") };
            assert_eq!((answer.status, answer.to_string().as_str()), (status, shown));
            assert_eq!(answer.is_passing(), status == 503, "{text}");
        }
        let refused = |text: &str| {
            let error = Error::Generic { store: "S3", source: text.into() };
            is_of_condition(&JobsError::Invalid(Message::caused_by("in our words", error)))
        };
        assert!(refused("status code: 501 Not Implemented") && !refused("no credentials"));
        assert!(refused("status code: 405: <Code>NotImplemented</Code>"));
        assert!(!refused("status code: 400: <Code>BadDigest</Code>"));
    }
}
