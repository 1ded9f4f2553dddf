//! A server's refusal: status and code, extracted from the library's words.
//!
//! Says what an answer is about. What that means for the caller is in `errors.rs`.

use object_store::Error;

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

/// Whether something answered that speaks another protocol.
pub(crate) fn is_no_s3(error: &Error) -> bool {
    let text = error.to_string();
    NO_S3.iter().any(|said| text.contains(said))
}

/// What a server answered that did not do what it was asked. The library has it as text alone.
pub(crate) struct Answer {
    pub(crate) status: u16,
    text: String,
}

impl Answer {
    pub(crate) fn of(error: &Error) -> Option<Self> {
        let text = error.to_string();
        if text.contains("error following redirect") {
            return Some(Self { status: 301, text: "redirects without end".to_owned() });
        }
        if text.contains("redirect without LOCATION") {
            return Some(Self { status: 301, text: "301 without a place".to_owned() });
        }
        // Deletions of several objects are answered by 200, with a code for each.
        if text.contains("DeleteObjects request failed") && text.contains("(code: AccessDenied)") {
            return Some(Self { status: 403, text: "403 Forbidden (AccessDenied)".to_owned() });
        }
        let (_, answer) = text.split_once("status code: ")?;
        let status = answer.get(..3)?.parse().ok()?;
        Some(Self { status, text: answer.to_owned() })
    }

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
