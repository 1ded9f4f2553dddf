//! Keeps secrets out of sight: an argument that holds one is refused, a file that holds one is read.
//!
//! Arguments are seen by everybody on a machine and stay in a shell's history, so a password comes by
//! the environment or from a file. No message from here repeats what it refuses.

use std::ffi::OsString;

use crate::exit::Failure;

/// No key, password or token is longer, nor is a bundle of authorities.
const LARGEST: u64 = 1 << 20;
/// What the name of a parameter contains whose value is a secret.
const SECRET: [&str; 6] = ["pass", "secret", "token", "signature", "credential", "accesskey"];

/// Refuses arguments that hold a password, before anything can repeat them.
pub(crate) fn refuse_in_arguments(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(), Failure> {
    let mut option = String::new();
    for argument in arguments {
        let Ok(text) = argument.into_string() else { continue };
        let name = match text.strip_prefix("--").and_then(|rest| rest.split_once('=')) {
            Some((name, _)) => format!("--{name}"),
            None => option,
        };
        if holds_secret(&text) {
            let which = if name.is_empty() { "an argument" } else { &name };
            return Err(Failure::usage(format!(
                "{which} holds a password: everybody on this machine can read a program's arguments"
            ))
            .hint(instead(&name)));
        }
        option = if text.starts_with("--") && !text.contains('=') { text } else { String::new() };
    }
    Ok(())
}

/// The way to do it right.
fn instead(option: &str) -> &'static str {
    match option {
        "--redis" => {
            "name the user alone, as in --redis rediss://user@host:6379, and put the password into \
             AGRPO_REDIS_PASSWORD or into a file that AGRPO_REDIS_PASSWORD_FILE names"
        }
        "--store" => {
            "name the bucket alone, as in --store s3://bucket/prefix, and put the keys into \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or into files that AWS_ACCESS_KEY_ID_FILE and \
             AWS_SECRET_ACCESS_KEY_FILE name"
        }
        "--source" => "put the address into the run file, which no digest and no record repeats",
        _ => "put it into the environment or into a file; docs/operations.md says which",
    }
}

/// Whether an address in this text carries a password or a key.
pub(crate) fn holds_secret(text: &str) -> bool {
    let Some((before, rest)) = text.split_once("://") else { return false };
    let (place, parameters) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let named = |parameter: &str| {
        let name = parameter.split_once('=').map_or("", |(name, _)| name).to_ascii_lowercase();
        SECRET.iter().any(|secret| name.replace(['-', '_'], "").contains(secret))
    };
    let in_host = place.split('/').next().is_some_and(has_password);
    // A password may hold a slash that nobody escaped, or a mark that looks like parameters.
    let is_redis =
        ["redis", "rediss", "valkey", "valkeys"].iter().any(|kind| before.ends_with(kind));
    in_host || (is_redis && has_password(rest)) || parameters.split(['?', '&', '#', ';']).any(named)
}

/// An address as it may be shown: without its user, password and parameters.
pub(crate) fn shown(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://").filter(|_| holds_secret(address)) else {
        return address.to_owned();
    };
    let place = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", place.rsplit_once('@').map_or(place, |(_, place)| place))
}

fn has_password(text: &str) -> bool {
    let user = text.rsplit_once('@').map(|(user, _)| user);
    user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
}

/// The secret in a file: its text without the line break at its end.
pub(crate) fn read(variable: &str, path: &str) -> Result<String, Failure> {
    let text = String::from_utf8(read_bytes(variable, path)?)
        .map_err(|_| Failure::usage(format!("{variable}: {path} holds no UTF-8 text")))?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() || secret.contains('\n') {
        return Err(Failure::usage(format!("{variable}: {path} has to hold one line")));
    }
    Ok(secret.to_owned())
}

/// A file that a variable names.
pub(crate) fn read_bytes(variable: &str, path: &str) -> Result<Vec<u8>, Failure> {
    let refuse = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("{variable}: {path} cannot be read: {why}"))
    };
    let size = std::fs::metadata(path).map_err(|error| refuse(&error.kind()))?.len();
    if size > LARGEST {
        return Err(refuse(&"it is larger than a secret"));
    }
    std::fs::read(path).map_err(|error| refuse(&error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_and_a_host_is_none() {
        for text in [
            "redis://:s3cret@host",
            "--redis=rediss://user:s3cret@host:6379/0",
            "redis://user:s3/cr#et@host",
            "redis://:a?b@host",
            "s3://key:s3cret@bucket/prefix",
            "task.train=https://u:s3cret@host/rows",
            "https://host/rows?X-Amz-Signature=ab",
            "s3://bucket?aws_secret_access_key=s3cret",
            "redis+unix:///run/redis.sock?pass=s3cret",
        ] {
            assert!(holds_secret(text), "{text}");
        }
        for text in [
            "redis://host:6379",
            "rediss://user@host:6379/1",
            "s3://bucket/prefix",
            "https://host:8080/a@b",
            "file:///data/a:b@c",
            "run.toml",
            "user:word@host",
        ] {
            assert!(!holds_secret(text), "{text}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(shown("https://me:s3cret@host/rows?v=1"), "https://host/rows");
        assert_eq!(shown("https://host/rows?X-Amz-Signature=ab"), "https://host/rows");
        assert_eq!(shown("https://host/rows?v=1"), "https://host/rows?v=1");
    }

    #[test]
    fn the_refusal_names_the_option_and_no_secret() {
        for arguments in [vec!["--redis", "redis://:s3cret@h"], vec!["--redis=redis://:s3cret@h"]] {
            let failure = refuse_in_arguments(arguments.into_iter().map(OsString::from));
            let text = failure.unwrap_err().to_string();
            assert!(text.contains("--redis holds") && text.contains("AGRPO_REDIS_PASSWORD_FILE"));
            assert!(!text.contains("s3cret"), "{text}");
        }
    }
}
