//! Which of our keys hold another type than we keep there.
//!
//! Redis says that a type is wrong and not of which key. Only looks, and not for long: in a Redis that is
//! shared with much else, the keys whose names depend on runs and stages are looked through in part.

use std::time::Duration;

use redis::RedisResult;
use tokio::time::{Instant, timeout};

use super::Fleet;

/// How long is looked for keys.
const LOOK: Duration = Duration::from_secs(1);
/// How many keys Redis looks through at a time.
const STEP: usize = 1000;

/// Keys of a wrong type and the way out, in one line; `None` where there are none.
pub(crate) async fn wrong(fleet: &Fleet) -> RedisResult<Option<String>> {
    let begin = Instant::now();
    let mut wrong = of_wrong_type(fleet, fleet.keys.fixed()).await?;
    let mut cursor = 0_u64;
    while wrong.is_empty() && begin.elapsed() < LOOK {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(fleet.keys.pattern()).arg("COUNT").arg(STEP);
        let mut connection = fleet.connection();
        let asked = scan.query_async::<(u64, Vec<String>)>(&mut connection);
        let Ok(found) = timeout(LOOK, asked).await else { break };
        let (next, keys) = found?;
        wrong = of_wrong_type(fleet, keys).await?;
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    if wrong.is_empty() {
        return Ok(None);
    }
    let told: Vec<String> = wrong
        .iter()
        .map(|(key, is, wanted)| {
            format!("{key} is a {} and has to be a {}", word(is), word(wanted))
        })
        .collect();
    let keys: Vec<String> = wrong.iter().map(|(key, ..)| format!("'{key}'")).collect();
    Ok(Some(format!(
        "Redis at {} cannot serve: {}; delete it with `redis-cli DEL {}`: no \
         result is lost, and workers find in the store which stages are left",
        fleet.place(),
        told.join(", "),
        keys.join(" ")
    )))
}

/// A key, its type, and the type that it has to have.
type Wrong = (String, String, &'static str);

async fn of_wrong_type(fleet: &Fleet, keys: Vec<String>) -> RedisResult<Vec<Wrong>> {
    if keys.is_empty() {
        return Ok(vec![]);
    }
    let mut ask = redis::pipe();
    for key in &keys {
        ask.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = ask.query_async(&mut fleet.connection()).await?;
    let wrong = keys.into_iter().zip(types).filter_map(|(key, is)| {
        let wanted = fleet.keys.kind(&key)?;
        (is != "none" && is != wanted).then_some((key, is, wanted))
    });
    Ok(wrong.collect())
}

/// How people call a type.
fn word(kind: &str) -> &str {
    match kind {
        "zset" => "sorted set",
        other => other,
    }
}
