//! Which commands and keys a Redis refuses to its user, found out by trying each.
//!
//! Of a script that is refused Redis names neither the command nor the key. Here is one script that tries every
//! command on a key of each type, and the `ACL` line that grants what is missing. Changes no right, and leaves
//! no key behind.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use redis::aio::ConnectionManager;
use redis::{RedisResult, Script};

use super::refusal::{REMEDY, Refusal, plain, refusal};
use crate::coordination::keys::{APALIS_QUEUES, Keys};
use agrpo_store::JobsError;

static COMMANDS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("rights.lua")));

/// Patterns of keys, as an ACL has them: ours, and those that apalis names itself.
const PATTERNS: [&str; 2] = ["agrpo:*", "core:apalis*"];

/// A command that was refused, its key, and why.
pub(crate) type Refused = (String, String, String);

/// Tries every command on keys of these names.
pub(crate) async fn refused(
    connection: &mut ConnectionManager,
    keys: &Keys,
) -> RedisResult<Vec<Refused>> {
    let mut call = COMMANDS.prepare_invoke();
    for kind in ["string", "hash", "list", "set", "zset"] {
        call.key(keys.of(kind));
    }
    // A script that is known is not loaded again, until the server forgets it.
    call.load_async(connection).await?;
    call.invoke_async(connection).await
}

/// What the user of a Redis may not do, and the line that grants it; `text` is the refusal that was met. `None`
/// where the trial meets no refusal and the text names no command.
pub(super) async fn lacking(
    connection: &mut ConnectionManager,
    user: &str,
    place: &str,
    text: &str,
) -> Option<JobsError> {
    let (mut commands, mut patterns) = (BTreeSet::new(), BTreeSet::new());
    commands.extend(command(text));
    // One script has no other's turn, so every process may use these names.
    match refused(connection, &Keys::of_trial("rights")).await {
        Ok(refused) => {
            let refused =
                refused.into_iter().filter(|(.., why)| refusal(why) == Some(Refusal::Rights));
            for (command, key, why) in refused {
                if !is_of_key(&why) {
                    commands.insert(command.to_lowercase());
                } else {
                    patterns.insert(PATTERNS[usize::from(key == APALIS_QUEUES)]);
                }
            }
        }
        Err(error) => {
            let why = plain(&error);
            commands.extend(command(&why));
            // Only ours are keys of the script as a whole.
            if refusal(&why) == Some(Refusal::Rights) && is_of_key(&why) {
                patterns.insert(PATTERNS[0]);
            }
        }
    }
    let mut missing = Vec::new();
    if !commands.is_empty() {
        let names = commands.iter().map(|name| name.to_uppercase().replace('|', " "));
        missing.push(format!("run {}", names.collect::<Vec<_>>().join(", ")));
    }
    if !patterns.is_empty() {
        let patterns = patterns.iter().copied().collect::<Vec<_>>().join(", ");
        missing.push(format!("use keys named {patterns}"));
    }
    if missing.is_empty() {
        return None;
    }
    let rules = commands.iter().map(|name| format!("+{name}"));
    let rules: Vec<_> = rules.chain(patterns.iter().map(|keys| format!("~{keys}"))).collect();
    let message = format!(
        "Redis at {place} cannot serve: the user {user:?} may not {}; `ACL SETUSER {user} {}` grants it, or {REMEDY}",
        missing.join(", nor "),
        rules.join(" ")
    );
    Some(JobsError::Misconfigured { message, may_pass: false })
}

/// The command that a refusal names, as in "no permissions to run the 'script|load' command".
fn command(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("to run the '")?;
    rest.split_once('\'').map(|(name, _)| name.to_lowercase())
}

/// Whether a refusal is about a key, not a command.
fn is_of_key(text: &str) -> bool {
    text.contains("access")
}
