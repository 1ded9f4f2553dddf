//! What a failed request is about. The library shows status and code as text alone, and only this file reads it.
//!
//! What that means for the caller is in `errors.rs`.

use crate::JobsError;

/// Codes of answers that are about the moment, whatever their status: trying again helps.
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

/// What the library says of answers that report success and are no S3 server's.
const NO_S3: [&str; 7] = [
    "Unable to extract metadata from headers",
    "Header missing from response",
    "Got invalid list response",
    "Got invalid DeleteObjects response",
    "Got invalid multipart response",
    "Invalid last modified",
    "Invalid content length",
];
/// Codes of a server that has no room, whatever their status.
const OF_SPACE: [&str; 3] = ["QuotaExceeded", "StorageFull", "InsufficientStorage"];

/// How a server may word it that it does not know conditional writes, or something else about a write.
const UNKNOWN_CONDITION: [&str; 5] =
    ["answered 400", "answered 501", "NotImplemented", "not yet implemented", "If-None-Match"];

/// What an error of the library is about.
pub(crate) enum Said {
    /// The bucket is not there.
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

/// Reads an error of the library.
pub(crate) fn said(error: &(dyn std::error::Error + 'static)) -> Said {
    let text = error.to_string();
    let has = |words: &str| text.contains(words);
    let refused = |status, text: &str| Said::Refused(Answer { status, text: text.to_owned() });
    if has("NoSuchBucket") {
        Said::NoBucket
    } else if NO_S3.iter().any(|words| has(words)) {
        Said::NoS3
    } else if has("169.254.169.254") {
        Said::NoKeys
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
    } else if has("error sending request") {
        Said::Unreachable
    } else {
        Said::Other
    }
}

/// Whether a write was refused for its condition, as far as the words tell.
pub(crate) fn is_of_condition(error: &JobsError) -> bool {
    let text = error.to_string();
    UNKNOWN_CONDITION.iter().any(|words| text.contains(words))
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
        self.status == 507 || self.has(&OF_SPACE)
    }

    /// Whether the next try may be answered otherwise.
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
    use super::*;

    fn of(text: &str) -> Said {
        said(&std::io::Error::other(text.to_owned()))
    }

    #[test]
    fn the_words_of_the_library_are_sorted() {
        assert!(matches!(of("404: <Code>NoSuchBucket</Code>"), Said::NoBucket));
        assert!(matches!(of("Got invalid list response: x"), Said::NoS3));
        assert!(matches!(of("error sending request for http://169.254.169.254/x"), Said::NoKeys));
        assert!(matches!(of("HTTP error: error sending request"), Said::Unreachable));
        assert!(matches!(of("disk full"), Said::Other));
        for (text, status, shown) in [
            (
                "status code: 403 Forbidden: <Code>AccessDenied</Code>",
                403,
                "403 Forbidden (AccessDenied)",
            ),
            ("status code: 503 Busy", 503, "503 Busy"),
            ("error following redirect", 301, "redirects without end"),
        ] {
            let Said::Refused(answer) = of(text) else { panic!("{text}") };
            assert_eq!((answer.status, answer.to_string().as_str()), (status, shown));
            assert_eq!(answer.is_passing(), status == 503, "{text}");
        }
        let refused = |text: &str| is_of_condition(&JobsError::Invalid(text.to_owned()));
        assert!(refused("the server answered 501 Not Implemented") && !refused("no credentials"));
    }
}
