//! What keeps a Redis from serving: its settings, keys of another type, and commands and keys that it refuses to its
//! user.
//!
//! Settings are judged by the words of `INFO`. Redis names neither the key of a wrong type nor what a script may not
//! do, so types are looked at, for a second at most, and rights are tried by one script that runs every command on a
//! key of each type. Changes no setting and no right, and leaves no key behind.

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use agrpo_store::JobsError;
use redis::aio::{ConnectionLike, ConnectionManager};
use redis::{InfoDict, RedisResult, Script};
use tokio::time::{Instant, timeout};

use super::refusal::{REMEDY, Refusal, classify, command, is_of_key, plain, refusal};
use crate::coordination::keys::Keys;

/// The oldest version whose commands are enough.
const OLDEST: (u32, u32) = (6, 2);
/// A share of `maxmemory` or `maxclients` from which on it is worth a word, in percent.
const NEARLY_FULL: u64 = 90;

/// One thing that was found out about a Redis.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What there is, in one line.
    pub found: String,
    /// What to do; empty where nothing has to be done.
    pub advice: String,
    /// Why it cannot serve, if so.
    pub error: Option<JobsError>,
}

impl Finding {
    fn note(found: String, advice: &str) -> Self {
        Self { found, advice: advice.to_owned(), error: None }
    }

    fn bad(place: &str, found: &str, advice: &str, may_pass: bool) -> Self {
        let message = format!("Redis at {place} cannot serve: {found}; {advice}");
        Self {
            found: found.to_owned(),
            advice: advice.to_owned(),
            error: Some(JobsError::Misconfigured { message, may_pass }),
        }
    }

    pub(crate) fn of(error: JobsError) -> Self {
        Self { found: error.to_string(), advice: String::new(), error: Some(error) }
    }
}

/// What a server's own words come to; `saves` are its points of saving, where it gave them.
pub(crate) fn judge(place: &str, info: &str, saves: Option<String>) -> Vec<Finding> {
    let info = InfoDict::new(info);
    let say = |name: &str| info.get::<String>(name).unwrap_or_default();
    let number = |name: &str| info.get::<u64>(name).unwrap_or(0);
    let version = say("redis_version");
    let policy = say("maxmemory_policy");
    let mut all = vec![Finding::note(format!("{place} answers: Redis {version}, {policy}"), "")];
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST {
        let found = format!("it has version {version:?}");
        all.push(Finding::bad(place, &found, "6.2 is the oldest that will do", false));
    }
    if say("role") == "slave" {
        let found = format!(
            "it is a replica of {}:{} and takes no writes",
            say("master_host"),
            say("master_port")
        );
        let advice =
            "name the master in AGRPO_REDIS, or end the replication with `REPLICAOF NO ONE`";
        all.push(Finding::bad(place, &found, advice, true));
    }
    if policy != "noeviction" {
        let found = format!("maxmemory-policy is {policy:?}, so it may drop what workers rely on");
        let advice = "`CONFIG SET maxmemory-policy noeviction`, and the same line in redis.conf";
        all.push(Finding::bad(place, &found, advice, false));
    }
    if say("cluster_enabled") == "1" {
        all.push(Finding::note(
            "it is in cluster mode; all keys of agrpo are in one slot of this node".to_owned(),
            "a Redis without cluster mode is enough, and does not move them to another node",
        ));
    }
    let (used, most) = (number("used_memory"), number("maxmemory"));
    if most > 0 && used >= most / 100 * NEARLY_FULL {
        all.push(Finding::note(
            format!("{used} of {most} bytes of memory are used"),
            "raise maxmemory: a full Redis takes no writes",
        ));
    }
    let (clients, most) = (number("connected_clients"), number("maxclients"));
    if most > 0 && clients * 100 >= most * NEARLY_FULL {
        all.push(Finding::note(
            format!("{clients} of {most} connections are taken"),
            "raise maxclients: a worker has several, and those beyond it are turned away",
        ));
    }
    if say("aof_enabled") == "0" && saves.is_none_or(|points| points.is_empty()) {
        all.push(Finding::note(
            "it does not save its data to disk".to_owned(),
            "with `appendonly yes` a restart costs less time; results are safe in the store either way",
        ));
    }
    all
}

/// Why a Redis that served can serve no more, in settings that were changed since; `None` where it can, and
/// where that may pass: what it keeps a worker from, the worker meets by itself.
pub(crate) async fn changed(
    place: &str,
    connection: &mut impl ConnectionLike,
) -> RedisResult<Option<JobsError>> {
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let mut errors = judge(place, &info, None).into_iter().filter_map(|found| found.error);
    Ok(errors.find(|error| !error.may_pass()))
}

/// How long is looked for keys.
const LOOK: Duration = Duration::from_secs(1);
/// How many keys Redis looks through at a time.
const STEP: usize = 1000;

/// Keys of a wrong type and the way out, in one line; `None` where there are none.
pub(crate) async fn wrong_types(
    keys: &Keys,
    place: &str,
    connection: &mut ConnectionManager,
) -> RedisResult<Option<JobsError>> {
    let begin = Instant::now();
    let mut wrong = of_wrong_type(keys, keys.fixed(), connection).await?;
    let mut cursor = 0_u64;
    while wrong.is_empty() && begin.elapsed() < LOOK {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(keys.of("*")).arg("COUNT").arg(STEP);
        let asked = scan.query_async::<(u64, Vec<String>)>(connection);
        let Ok(found) = timeout(LOOK, asked).await else { break };
        let (next, found) = found?;
        wrong = of_wrong_type(keys, found, connection).await?;
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    if wrong.is_empty() {
        return Ok(None);
    }
    let (found, named): (Vec<String>, Vec<String>) = wrong.into_iter().unzip();
    let message = format!(
        "Redis at {place} cannot serve: {}; delete it with `redis-cli DEL {}`: no \
         result is lost, and workers find in the store which stages are left",
        found.join(", "),
        named.join(" ")
    );
    Ok(Some(JobsError::Misconfigured { message, may_pass: false }))
}

/// What is wrong with each key, and its name for a shell.
async fn of_wrong_type(
    keys: &Keys,
    names: Vec<String>,
    connection: &mut ConnectionManager,
) -> RedisResult<Vec<(String, String)>> {
    if names.is_empty() {
        return Ok(vec![]);
    }
    let mut ask = redis::pipe();
    for key in &names {
        ask.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = ask.query_async(connection).await?;
    let word = |kind: &str| kind.replace("zset", "sorted set");
    let wrong = names.into_iter().zip(types).filter_map(|(key, is)| {
        let wanted = keys.kind(&key)?;
        let found = format!("{key} is a {} and has to be a {}", word(&is), word(wanted));
        (is != "none" && is != wanted).then(|| (found, format!("'{key}'")))
    });
    Ok(wrong.collect())
}

static COMMANDS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("rights.lua")));

/// Our keys, as an ACL names them.
const KEYS: &str = "agrpo:*";

/// A command that was refused, and why.
pub(crate) type Refused = (String, String);

/// Tries every command on keys of these names.
pub(crate) async fn refused(
    connection: &mut ConnectionManager,
    keys: &Keys,
) -> RedisResult<Vec<Refused>> {
    let mut call = COMMANDS.prepare_invoke();
    for kind in ["string", "hash", "set", "zset"] {
        call.arg(keys.of(kind));
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
    let mut commands: BTreeSet<String> = command(text).into_iter().collect();
    let mut is_key_refused = false;
    // One script has no other's turn, so every process may use these names.
    match refused(connection, &Keys::of_trial("rights")).await {
        Ok(refused) => {
            let is_right =
                |(_, why): &Refused| matches!(classify("", why), Some((Refusal::Rights, _)));
            for (command, why) in refused.into_iter().filter(is_right) {
                if is_of_key(&why) {
                    is_key_refused = true;
                } else {
                    commands.insert(command.to_lowercase());
                }
            }
        }
        Err(error) => {
            let why = plain(&error);
            commands.extend(command(&why));
            is_key_refused =
                matches!(refusal(&error), Some((Refusal::Rights, _))) && is_of_key(&why);
        }
    }
    let mut missing = Vec::new();
    if !commands.is_empty() {
        let names = commands.iter().map(|name| name.to_uppercase().replace('|', " "));
        missing.push(format!("run {}", names.collect::<Vec<_>>().join(", ")));
    }
    let mut rules: Vec<_> = commands.iter().map(|name| format!("+{name}")).collect();
    if is_key_refused {
        missing.push(format!("use keys named {KEYS}"));
        rules.push(format!("~{KEYS}"));
    }
    if missing.is_empty() {
        return None;
    }
    let message = format!(
        "Redis at {place} cannot serve: the user {user:?} may not {}; `ACL SETUSER {user} {}` grants it, or {REMEDY}",
        missing.join(", nor "),
        rules.join(" ")
    );
    Some(JobsError::Misconfigured { message, may_pass: false })
}
