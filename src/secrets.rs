//! Refuses arguments that hold secrets, and reads secrets from files. Every user of a machine can see a program's
//! arguments, and shells keep them in their history, so a password is passed in the environment or in a file. No
//! message from here repeats what it refuses. What counts as a secret, and how an address is shown, is decided in
//! `agrpo_store::redact`.

use std::{ffi::OsString, io::Read, path::Path};

use agrpo_store::{redact::holds_secret, regular};

use crate::exit::Failure;

/// Longer than any key, password, token or bundle of certificates.
const LARGEST: u64 = 1 << 20;

/// Refuses arguments that hold a password, before any message can repeat them.
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
                "{which} holds a password: every user of this machine can read a program's arguments"
            ))
            .hint(instead(&name)));
        }
        option = if text.starts_with("--") && !text.contains('=') { text } else { String::new() };
    }
    Ok(())
}

/// What to do instead.
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
    let unreadable = |error: std::io::Error| {
        if regular::reason(&error).is_some() { refuse(&error) } else { refuse(&error.kind()) }
    };
    let file = regular::open(Path::new(path)).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() > LARGEST {
        return Err(refuse(&"it is larger than a secret"));
    }
    let mut bytes = vec![];
    file.take(LARGEST).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

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
