//! What an error of Redis means: gone for a while, busy, or answering and unwilling, and what to do.
//!
//! Errors are told apart by their words, since those of scripts, of old servers and of apalis carry no
//! code. Asks nobody and decides nothing about trying again.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::JobsError;

/// What to do about rights.
const RIGHTS: &str = "give the user the rights of infra/redis.acl.example (docs/operations.md)";

/// Why Redis does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another type is kept under one of our keys.
    WrongType,
    /// A setting or a right: no other try helps.
    Lasting(&'static str),
    /// A setting, or a moment between two masters.
    Standing(&'static str),
    /// It comes round by itself, or somebody has to make room.
    Passing(&'static str),
}

/// Words of an error, and what they mean; the first that fits counts.
const WORDS: [(&[&str], Refusal); 14] = [
    (&["WRONGTYPE"], Refusal::WrongType),
    (
        &["READONLY", "read only replica"],
        Refusal::Standing(
            "it is a replica and takes no writes: name its master in AGRPO_REDIS, or end the replication \
             with `REPLICAOF NO ONE`",
        ),
    ),
    (
        &["CLUSTERDOWN", "Hash slot not served"],
        Refusal::Standing(
            "it is in cluster mode and nobody serves the slot of agrpo's keys: give every slot to a node, or \
             use a Redis without cluster mode",
        ),
    ),
    (
        &["MOVED"],
        Refusal::Lasting(
            "it is in cluster mode and another node has agrpo's keys: name that node in AGRPO_REDIS, or use \
             a Redis without cluster mode",
        ),
    ),
    (
        &["CROSSSLOT", "do not hash to the same slot", "non local key"],
        Refusal::Lasting(
            "it is in cluster mode and spreads the keys: use a Redis without cluster mode",
        ),
    ),
    (
        &["OOM"],
        Refusal::Passing(
            "its memory is full: raise maxmemory, or find out what else fills it (`MEMORY STATS`)",
        ),
    ),
    (
        &["NOPERM", "ACL failure", "can't run this command", "can't access", "no permissions"],
        Refusal::Lasting(RIGHTS),
    ),
    (
        &["NOAUTH", "WRONGPASS", "unauthenticated", "DENIED", "invalid password"],
        Refusal::Lasting(
            "check the user in AGRPO_REDIS and the password in AGRPO_REDIS_PASSWORD or in the file that \
             AGRPO_REDIS_PASSWORD_FILE names",
        ),
    ),
    (
        &["SELECT is not allowed", "DB index is out of range"],
        Refusal::Lasting("name a database in AGRPO_REDIS that it has, or none"),
    ),
    (
        &["unknown command", "Unknown Redis command", "Unknown command", "unknown subcommand"],
        Refusal::Lasting("use a Redis from 6.2 that renames no command"),
    ),
    (
        &["NOSCRIPT"],
        Refusal::Lasting("it forgets scripts at once: use a Redis that keeps them (`SCRIPT LOAD`)"),
    ),
    (
        &["MISCONF"],
        Refusal::Passing("it cannot write its file and takes no writes: see its log and its disk"),
    ),
    (&["NOREPLICAS"], Refusal::Passing("it waits for its replicas (min-replicas-to-write)")),
    (
        &["LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "max number of clients"],
        Refusal::Passing("it is busy"),
    ),
];

/// What the words of an error mean; `None` where Redis did not answer, or said something else.
pub(crate) fn refusal(text: &str) -> Option<Refusal> {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    WORDS.iter().find(|(words, _)| says(words)).map(|(_, refusal)| *refusal)
}

/// An error on one line; of several commands that failed together, the first.
pub(crate) fn plain(error: &dyn std::error::Error) -> String {
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let several = text.strip_prefix("Pipeline failure").and_then(|rest| rest.split_once("error: "));
    match several.and_then(|(_, first)| first.split(')').next()) {
        Some(first) => first.to_owned(),
        None => text,
    }
}

/// What an error means to the caller; `None` where the refusal is none.
pub(crate) fn told(place: &str, text: &str) -> Option<JobsError> {
    let say = |what: &str| format!("Redis at {place} cannot serve ({text}): {what}");
    Some(match refusal(text)? {
        Refusal::WrongType => JobsError::Misconfigured {
            message: say("a key of agrpo's holds another type; `agrpo doctor` names it"),
            may_pass: false,
        },
        Refusal::Lasting(what) => JobsError::Misconfigured { message: say(what), may_pass: false },
        Refusal::Standing(what) => JobsError::Misconfigured { message: say(what), may_pass: true },
        Refusal::Passing(what) => JobsError::Unavailable(say(what)),
    })
}

/// Whether signing in was refused: trying again is no use.
pub(super) fn refuses(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed
            | ErrorKind::InvalidClientConfig
            | ErrorKind::Server(ServerErrorKind::NoPerm)
    ) || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "DENIED"))
        // What Redis says to a long request of somebody who has not signed in.
        || error.to_string().contains("unauthenticated")
}
