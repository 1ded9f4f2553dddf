//! What an error of Redis means: gone for a while, busy, or answering and unwilling, and what to do.
//!
//! Errors are recognised by their words, since those of scripts, of old servers and of apalis carry no
//! code. Asks no server and decides nothing about retries.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use agrpo_store::JobsError;

/// What to do about rights.
pub(super) const REMEDY: &str =
    "give the user the rights of infra/redis.acl.example (docs/operations.md)";

/// Why Redis does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another type is kept under one of our keys.
    WrongType,
    /// The user may not: no other try helps, and Redis often does not say what.
    Rights,
    /// A setting: no other try helps.
    Lasting(&'static str),
    /// A setting, or a moment between two masters.
    Standing(&'static str),
    /// It passes by itself, or a person has to make room.
    Passing(&'static str),
}

/// Words of an error, and what they mean; the first that fits counts. Codes come as the server writes them and
/// as the client does.
const WORDS: [(&[&str], Refusal); 16] = [
    (&["WRONGTYPE"], Refusal::WrongType),
    (
        &["READONLY", "ReadOnly", "read only replica"],
        Refusal::Standing(
            "it is a replica and takes no writes: name its master in AGRPO_REDIS, or end the replication \
             with `REPLICAOF NO ONE`",
        ),
    ),
    (
        &["CLUSTERDOWN", "ClusterDown", "Hash slot not served"],
        Refusal::Standing(
            "it is in cluster mode and no node serves the slot of agrpo's keys: give every slot to a node, or \
             use a Redis without cluster mode",
        ),
    ),
    (
        &["MOVED", "Moved"],
        Refusal::Lasting(
            "it is in cluster mode and another node has agrpo's keys: name that node in AGRPO_REDIS, or use \
             a Redis without cluster mode",
        ),
    ),
    (
        &["CROSSSLOT", "CrossSlot", "do not hash to the same slot", "non local key"],
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
        &[
            "NOPERM",
            "NoPerm",
            "ACL failure",
            "can't run this command",
            "can't access",
            "no permissions",
        ],
        Refusal::Rights,
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
        &["NOSCRIPT", "NoScript"],
        Refusal::Lasting("it forgets scripts at once: use a Redis that keeps them (`SCRIPT LOAD`)"),
    ),
    (
        &["MISCONF"],
        Refusal::Passing("it cannot write its file and takes no writes: see its log and its disk"),
    ),
    (
        &["parsing multi response"],
        Refusal::Lasting(
            "it carries out no transactions: grant the user EXEC, as in `ACL SETUSER USER +exec`",
        ),
    ),
    (
        &["Cannot convert from UTF-8"],
        Refusal::Lasting(
            "another program wrote into a key of agrpo, which holds text alone: look for it among              `redis-cli --scan --pattern 'agrpo:*'` and delete it",
        ),
    ),
    (&["NOREPLICAS"], Refusal::Passing("it waits for its replicas (min-replicas-to-write)")),
    (
        &[
            "LOADING",
            "BUSY",
            "Busy",
            "TRYAGAIN",
            "TryAgain",
            "MASTERDOWN",
            "MasterDown",
            "max number of clients",
        ],
        Refusal::Passing("it is busy"),
    ),
];

/// What the words of an error mean; `None` where Redis did not answer, or said something else.
pub(crate) fn refusal(text: &str) -> Option<Refusal> {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    WORDS.iter().find(|(words, _)| says(words)).map(|(_, refusal)| *refusal)
}

/// An error on one line; of several commands that failed together, the first. Without the digest by which Redis
/// names a script.
pub(crate) fn plain(error: &dyn std::error::Error) -> String {
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let several = text.strip_prefix("Pipeline failure").and_then(|rest| rest.split_once("error: "));
    let text = several.and_then(|(_, first)| first.split(')').next()).unwrap_or(&text);
    // `... script: <digest>, on @user_script:1.`; before Redis 7 it stands in front of the words.
    let text = text.split_once(" script: ").map_or(text, |(words, _)| words);
    match text.split_once("Error running script") {
        Some((before, rest)) => {
            let words = rest.rsplit("@user_script").next().unwrap_or_default();
            let is_place = |c: char| c.is_ascii_digit() || c == ':' || c == ' ';
            format!("{before}{}", words.trim_start_matches(is_place))
        }
        None => text.to_owned(),
    }
}

/// What an error means to the caller; `None` where the refusal is none.
pub(crate) fn explained(place: &str, text: &str) -> Option<JobsError> {
    let say = |what: &str| format!("Redis at {place} cannot serve ({text}): {what}");
    Some(match refusal(text)? {
        Refusal::WrongType => JobsError::Misconfigured {
            message: say("a key of agrpo's holds another type; `agrpo doctor` names it"),
            may_pass: false,
        },
        Refusal::Rights => JobsError::Misconfigured { message: say(REMEDY), may_pass: false },
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
        // What Redis says to a long request of a client that has not signed in.
        || error.to_string().contains("unauthenticated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_however_its_code_is_written() {
        for kind in [
            ServerErrorKind::BusyLoading,
            ServerErrorKind::NoScript,
            ServerErrorKind::Moved,
            ServerErrorKind::TryAgain,
            ServerErrorKind::ClusterDown,
            ServerErrorKind::CrossSlot,
            ServerErrorKind::MasterDown,
            ServerErrorKind::ReadOnly,
            ServerErrorKind::NoPerm,
        ] {
            let error = RedisError::from((ErrorKind::Server(kind), "refused"));
            let code = error.code().unwrap();
            let (by_client, by_server) = (refusal(&plain(&error)), refusal(code));
            assert!(by_client.is_some() && by_client == by_server, "{kind:?} {code}");
        }
    }

    #[test]
    fn an_answer_that_no_other_try_changes_is_no_loss_of_redis() {
        for words in [
            "Invalid response when parsing multi response - UnexpectedReturnType",
            "Incompatible type - Cannot convert from UTF-8",
        ] {
            assert!(matches!(refusal(words), Some(Refusal::Lasting(_))), "{words}");
        }
    }

    #[test]
    fn no_error_shows_the_digest_of_a_script() {
        let digest = "7db1f0a9ce024c2d76d27d823777cef4ff264529";
        let words = "ERR The user executing the script can't run this command or subcommand";
        for text in [
            format!("{words} script: {digest}, on @user_script:1."),
            format!(
                "ERR Error running script (call to f_{digest}): @user_script:9: @user_script: 9: {}",
                &words[4..]
            ),
            words.to_owned(),
        ] {
            let error = std::io::Error::other(text);
            assert_eq!(plain(&error), words);
        }
        let several = "Pipeline failure: [(Index 1, error: \"NOPERM\": to run the 'multi' command), (Index 2,";
        assert_eq!(
            plain(&std::io::Error::other(several)),
            "\"NOPERM\": to run the 'multi' command"
        );
    }
}
