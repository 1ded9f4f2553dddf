//! What a Redis says of itself, and whether a fleet can live with that.
//!
//! Judges the words of `INFO`. Changes no setting, and tries no command: that is the trial's.

use redis::RedisResult;
use redis::aio::ConnectionLike;

use agrpo_store::JobsError;

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
    let say = |name: &str| {
        let lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        lines.filter(|(key, _)| *key == name).map(|(_, value)| value).next().unwrap_or_default()
    };
    let number = |name: &str| say(name).parse::<u64>().unwrap_or(0);
    let version = say("redis_version");
    let policy = say("maxmemory_policy");
    let mut all = vec![Finding {
        found: format!("{place} answers: Redis {version}, {policy}"),
        advice: String::new(),
        error: None,
    }];
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
