//! Finds what keeps a Redis from serving: its settings, keys of another type, and commands and keys that it refuses to
//! its user.
//!
//! Settings are judged by `INFO`. Redis names neither the key of a wrong type nor the command that a script may not
//! run, so types are read, for a second at most, and rights are tried by one script that runs every command on a key
//! of each type. Changes no setting and no right, and leaves no key behind.

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use agrpo_store::JobsError;
use redis::aio::{ConnectionLike, ConnectionManager};
use redis::{InfoDict, RedisResult, Script};
use tokio::time::{Instant, timeout};

use super::refusal::{REMEDY, Refusal, classify, command, plain, refusal};
use crate::coordination::keys::Keys;

/// The oldest version that has all commands.
const OLDEST: (u32, u32) = (6, 2);
/// The share of `maxmemory` or `maxclients` in use, in percent, from which a finding advises to raise it.
const NEARLY_FULL: u64 = 90;

/// One property of a Redis.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was found, in one line.
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

    fn bad(address: &str, found: &str, advice: &str, may_pass: bool) -> Self {
        let message = format!("Redis at {address} cannot serve: {found}; {advice}");
        Self {
            found: found.to_owned(),
            advice: advice.to_owned(),
            error: Some(JobsError::Misconfigured { message: message.into(), may_pass }),
        }
    }

    pub(crate) fn of(error: JobsError) -> Self {
        Self { found: error.to_string(), advice: String::new(), error: Some(error) }
    }
}

/// Judges a server by its `INFO`; `saves` is its setting `save`, where the user may read it.
pub(crate) fn judge(address: &str, info: &str, saves: Option<String>) -> Vec<Finding> {
    let info = InfoDict::new(info);
    let say = |name: &str| info.get::<String>(name).unwrap_or_default();
    let number = |name: &str| info.get::<u64>(name).unwrap_or(0);
    let version = say("redis_version");
    let policy = say("maxmemory_policy");
    let mut all = vec![Finding::note(format!("{address} answers: Redis {version}, {policy}"), "")];
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST {
        let found = format!("it has version {version:?}");
        all.push(Finding::bad(address, &found, "agrpo needs 6.2 or newer", false));
    }
    if say("role") == "slave" {
        let found = format!(
            "it is a replica of {}:{} and takes no writes",
            say("master_host"),
            say("master_port")
        );
        let advice =
            "name the master in AGRPO_REDIS, or end the replication with `REPLICAOF NO ONE`";
        all.push(Finding::bad(address, &found, advice, true));
    }
    if policy != "noeviction" {
        let found = format!("maxmemory-policy is {policy:?}, so it may drop what workers rely on");
        let advice = "`CONFIG SET maxmemory-policy noeviction`, and the same line in redis.conf";
        all.push(Finding::bad(address, &found, advice, false));
    }
    if say("cluster_enabled") == "1" {
        all.push(Finding::note(
            "Redis is in cluster mode; all keys of agrpo are in one slot of this node".to_owned(),
            "a Redis without cluster mode is enough, and does not move them to another node",
        ));
    }
    let (used, most) = (number("used_memory"), number("maxmemory"));
    if most > 0 && used >= most / 100 * NEARLY_FULL {
        all.push(Finding::note(
            format!("Redis uses {used} of its {most} bytes of memory"),
            "raise maxmemory: a full Redis takes no writes",
        ));
    }
    let (clients, most) = (number("connected_clients"), number("maxclients"));
    if most > 0 && clients * 100 >= most * NEARLY_FULL {
        all.push(Finding::note(
            format!("Redis has {clients} of at most {most} connections"),
            "raise maxclients: a worker has several, and Redis refuses those beyond the limit",
        ));
    }
    if say("aof_enabled") == "0" && saves.is_none_or(|points| points.is_empty()) {
        all.push(Finding::note(
            "Redis does not save its data to disk".to_owned(),
            "with `appendonly yes` a restart costs less time; results are safe in the store either way",
        ));
    }
    all
}

/// Judges the settings again, since they may change while a worker runs: the first error that does not pass by itself.
/// Another one is reported by the command that meets it.
pub(crate) async fn changed(
    address: &str,
    connection: &mut impl ConnectionLike,
) -> RedisResult<Option<JobsError>> {
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let mut errors = judge(address, &info, None).into_iter().filter_map(|found| found.error);
    Ok(errors.find(|error| !error.may_pass()))
}

/// How long a scan for keys of a wrong type may take.
const LOOK: Duration = Duration::from_secs(1);
/// Keys that Redis scans at a time.
const STEP: usize = 1000;

/// An error that names keys of a wrong type and the command that deletes them; `None` without such keys.
pub(crate) async fn wrong_types(
    keys: &Keys,
    address: &str,
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
        "Redis at {address} cannot serve: {}; delete it with `redis-cli DEL {}`: no \
         result is lost, and workers find in the store which stages are left",
        found.join(", "),
        named.join(" ")
    );
    Ok(Some(JobsError::Misconfigured { message: message.into(), may_pass: false }))
}

/// Those of the keys that have a wrong type: a description, and the name quoted for a shell.
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

/// The pattern of agrpo's keys in an ACL.
const KEYS: &str = "agrpo:*";

/// A refused command, and the reason.
pub(crate) type Refused = (String, String);

/// Runs every command on trial keys; returns those that Redis refuses.
pub(crate) async fn refused(
    connection: &mut ConnectionManager,
    keys: &Keys,
) -> RedisResult<Vec<Refused>> {
    let mut call = COMMANDS.prepare_invoke();
    for kind in ["string", "hash", "set", "zset"] {
        call.arg(keys.of(kind));
    }
    // Loads the script only if the server does not have it.
    call.load_async(connection).await?;
    call.invoke_async(connection).await
}

/// An error that names the rights that the user lacks and the `ACL SETUSER` that grants them; `text` is the refusal.
/// `None` where the trial meets no refusal and the text names no command.
pub(super) async fn lacking(
    connection: &mut ConnectionManager,
    user: &str,
    address: &str,
    text: &str,
) -> Option<JobsError> {
    let mut commands: BTreeSet<String> = command(text).into_iter().collect();
    let (mut is_key_refused, is_of_key) = (false, |why: &str| why.contains("access"));
    // Redis runs one script at a time, so processes can share these names.
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
        "Redis at {address} cannot serve: the user {user:?} may not {}; `ACL SETUSER {user} {}` grants it, or {REMEDY}",
        missing.join(", nor "),
        rules.join(" ")
    );
    Some(JobsError::Misconfigured { message: message.into(), may_pass: false })
}
