//! Classifies errors of Redis by what to do about them.
//!
//! The error's code decides. The text decides where the code is only `ERR`, as for a command that a script may not run
//! and, before version 7, for every error in a script. Asks no server, and does not retry.

use agrpo_spec::Message;
use agrpo_store::JobsError;
use redis::{ErrorKind, RedisError};

/// What to do about rights.
pub(super) const REMEDY: &str =
    "give the user the rights of infra/redis.acl.example (docs/operations.md)";

/// Why Redis refuses a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A key of agrpo holds another type.
    WrongType,
    /// The user lacks a right, often without a name: retries do not help.
    Rights,
    /// The user or the password is wrong: retries do not help.
    Credentials,
    /// A setting is wrong: retries do not help.
    Lasting,
    /// A setting is wrong, unless Redis changes its master at the moment.
    Standing,
    /// It passes by itself, or a person has to make room.
    Passing,
}

/// Why Redis refuses, and what to do.
pub(crate) type Meaning = (Refusal, &'static str);

/// Codes of errors, or words of those without a code of their own, and their meaning.
const MEANINGS: [(&[&str], Refusal, &str); 16] = [
    (
        &["WRONGTYPE"],
        Refusal::WrongType,
        "a key of agrpo's holds another type; `agrpo doctor` names it",
    ),
    (
        &["READONLY"],
        Refusal::Standing,
        "it is a replica and takes no writes: name its master in AGRPO_REDIS, or end the replication \
         with `REPLICAOF NO ONE`",
    ),
    (
        &["CLUSTERDOWN"],
        Refusal::Standing,
        "it is in cluster mode and no node serves the slot of agrpo's keys: give every slot to a node, or \
         use a Redis without cluster mode",
    ),
    (
        &["MOVED"],
        Refusal::Lasting,
        "it is in cluster mode and another node has agrpo's keys: name that node in AGRPO_REDIS, or use \
         a Redis without cluster mode",
    ),
    (
        &["CROSSSLOT", "do not hash to the same slot", "non local key"],
        Refusal::Lasting,
        "it is in cluster mode and spreads the keys: use a Redis without cluster mode",
    ),
    (
        &["OOM"],
        Refusal::Passing,
        "its memory is full: raise maxmemory, or find out what else fills it (`MEMORY STATS`)",
    ),
    (
        &["NOPERM", "ACL failure", "can't run this command", "can't access", "no permissions"],
        Refusal::Rights,
        REMEDY,
    ),
    (
        &["NOAUTH", "WRONGPASS", "DENIED", "invalid password", "unauthenticated"],
        Refusal::Credentials,
        "check the user in AGRPO_REDIS and the password in AGRPO_REDIS_PASSWORD or in the file that \
         AGRPO_REDIS_PASSWORD_FILE names",
    ),
    (
        &["SELECT is not allowed", "DB index is out of range"],
        Refusal::Lasting,
        "name a database in AGRPO_REDIS that it has, or none",
    ),
    (
        &["unknown command", "Unknown Redis command", "Unknown command", "unknown subcommand"],
        Refusal::Lasting,
        "use a Redis from 6.2 that renames no command",
    ),
    (
        &["NOSCRIPT"],
        Refusal::Lasting,
        "it forgets scripts at once: use a Redis that keeps them (`SCRIPT LOAD`)",
    ),
    (
        &["MISCONF"],
        Refusal::Passing,
        "it cannot write its file and takes no writes: see its log and its disk",
    ),
    (
        &["parsing multi response"],
        Refusal::Lasting,
        "it carries out no transactions: grant the user EXEC, as in `ACL SETUSER USER +exec`",
    ),
    (
        &["Cannot convert from UTF-8"],
        Refusal::Lasting,
        "another program wrote into a key of agrpo, which holds text alone: look for it among \
         `redis-cli --scan --pattern 'agrpo:*'` and delete it",
    ),
    (&["NOREPLICAS"], Refusal::Passing, "it waits for its replicas (min-replicas-to-write)"),
    (
        &["LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "max number of clients"],
        Refusal::Passing,
        "it is busy",
    ),
];

/// Words of TLS errors, and their meaning.
const CERTIFICATES: [(&[&str], &str); 3] = [
    (
        &["UnknownIssuer", "BadSignature"],
        "its certificate is signed by an authority that is not trusted here: name the authority's file in \
         AGRPO_REDIS_CA",
    ),
    (
        &["NotValidForName", "not valid for name"],
        "its certificate is for another host: use a name that it was made for",
    ),
    (
        &["Expired", "NotValidYet", "expired", "not valid yet"],
        "its certificate is not valid at this time: renew it, or set this machine's clock",
    ),
];

/// The error for a refusal; `met` is what Redis or the client said.
pub(crate) fn explain((refusal, remedy): Meaning, address: &str, met: Message) -> JobsError {
    let message = met.reworded(|met| format!("Redis at {address} cannot serve ({met}): {remedy}"));
    match refusal {
        Refusal::Passing => JobsError::Unavailable(message),
        _ => JobsError::Misconfigured { message, may_pass: refusal == Refusal::Standing },
    }
}

/// Classifies an error; `None` where Redis did not answer, or with an error that is not in the table.
pub(crate) fn refusal(error: &RedisError) -> Option<Meaning> {
    let several = error.clone().into_server_errors();
    let first = several.as_deref().and_then(|errors| errors.first());
    let code = first.map(|(_, error)| error.code()).or_else(|| error.code());
    classify(code.unwrap_or_default(), &plain(error))
}

/// The same by a code, empty where there is none, and a text.
pub(crate) fn classify(code: &str, words: &str) -> Option<Meaning> {
    let fits = |names: &[&str]| match code {
        "" | "ERR" => names.iter().any(|name| words.contains(name)),
        code => names.contains(&code),
    };
    let found = MEANINGS.iter().find(|(names, ..)| fits(names));
    found.map(|&(_, refusal, remedy)| (refusal, remedy))
}

/// The text of an error on one line, without the digest of a script; of several commands that failed together, the
/// first.
pub(crate) fn plain(error: &dyn std::error::Error) -> String {
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let several = text.strip_prefix("Pipeline failure").and_then(|rest| rest.split_once("error: "));
    let text = several.and_then(|(_, first)| first.split(')').next()).unwrap_or(&text);
    // `... script: <digest>, on @user_script:1.`; before Redis 7 the digest comes first.
    let text = text.split_once(" script: ").map_or(text, |(words, _)| words);
    match text.split_once("Error running script") {
        Some((before, rest)) => {
            let words = rest.rsplit("@user_script").next().unwrap_or_default();
            let is_position = |c: char| c.is_ascii_digit() || c == ':' || c == ' ';
            format!("{before}{}", words.trim_start_matches(is_position))
        }
        None => text.to_owned(),
    }
}

/// An error on one line, caused by itself.
pub(crate) fn met(error: &RedisError) -> Message {
    Message::caused_by(plain(error), error.clone())
}

/// The command that a refusal names, as in "no permissions to run the 'script|load' command".
pub(super) fn command(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("to run the '")?;
    rest.split_once('\'').map(|(name, _)| name.to_lowercase())
}

/// Why TLS rejects the server's certificate; `None` for another error. Retries do not help.
pub(super) fn distrust(error: &RedisError) -> Option<String> {
    let text = error.to_string();
    let fits = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match CERTIFICATES.iter().find(|(words, _)| fits(words)) {
        _ if error.kind() != ErrorKind::Io => None,
        Some((_, why)) => Some((*why).to_owned()),
        None => fits(&["invalid peer certificate"])
            .then(|| format!("its certificate cannot be used ({text})")),
    }
}

/// Whether the server rejected our credentials or rights: retries do not help.
pub(super) fn refuses(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig)
        || matches!(refusal(error), Some((Refusal::Credentials | Refusal::Rights, _)))
}

#[cfg(test)]
mod tests {
    use redis::ServerErrorKind;

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
            let (by_client, by_server) = (refusal(&error), classify(code, ""));
            assert!(by_client.is_some() && by_client == by_server, "{kind:?} {code}");
        }
    }

    #[test]
    fn an_answer_that_no_other_try_changes_is_no_loss_of_redis() {
        for words in [
            "Invalid response when parsing multi response - UnexpectedReturnType",
            "Incompatible type - Cannot convert from UTF-8",
        ] {
            assert!(matches!(classify("", words), Some((Refusal::Lasting, _))), "{words}");
        }
    }

    #[test]
    fn an_untrusted_certificate_is_not_taken_for_a_lost_connection() {
        let met =
            |words: &str| distrust(&RedisError::from(std::io::Error::other(words.to_owned())));
        let why = met("invalid peer certificate: UnknownIssuer").unwrap();
        assert!(why.contains("not trusted here"), "{why}");
        let why = met("invalid peer certificate: Other").unwrap();
        assert!(why.starts_with("its certificate cannot be used"), "{why}");
        assert_eq!(met("Connection reset by peer"), None);
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
        let first = plain(&std::io::Error::other(several));
        assert_eq!(first, "\"NOPERM\": to run the 'multi' command");
    }
}
