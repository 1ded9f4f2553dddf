//! Which of our keys hold another type than we keep there.
//!
//! Redis says that a type is wrong and not of which key. Only looks, and not for long: in a Redis that is
//! shared with much else, the keys whose names depend on runs and stages are looked through in part.

use std::time::Duration;

use redis::RedisResult;
use redis::aio::ConnectionManager;
use tokio::time::{Instant, timeout};

use crate::coordination::keys::Keys;

/// How long is looked for keys.
const LOOK: Duration = Duration::from_secs(1);
/// How many keys Redis looks through at a time.
const STEP: usize = 1000;

/// Keys of a wrong type and the way out, in one line; `None` where there are none.
pub(crate) async fn wrong(
    keys: &Keys,
    place: &str,
    connection: &mut ConnectionManager,
) -> RedisResult<Option<String>> {
    let begin = Instant::now();
    let mut wrong = of_wrong_type(keys, keys.fixed(), connection).await?;
    let mut cursor = 0_u64;
    while wrong.is_empty() && begin.elapsed() < LOOK {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(keys.pattern()).arg("COUNT").arg(STEP);
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
    let found: Vec<String> = wrong
        .iter()
        .map(|(key, is, wanted)| {
            format!("{key} is a {} and has to be a {}", word(is), word(wanted))
        })
        .collect();
    let named: Vec<String> = wrong.iter().map(|(key, ..)| format!("'{key}'")).collect();
    Ok(Some(format!(
        "Redis at {} cannot serve: {}; delete it with `redis-cli DEL {}`: no \
         result is lost, and workers find in the store which stages are left",
        place,
        found.join(", "),
        named.join(" ")
    )))
}

/// A key, its type, and the type that it has to have.
type Wrong = (String, String, &'static str);

async fn of_wrong_type(
    keys: &Keys,
    names: Vec<String>,
    connection: &mut ConnectionManager,
) -> RedisResult<Vec<Wrong>> {
    if names.is_empty() {
        return Ok(vec![]);
    }
    let mut ask = redis::pipe();
    for key in &names {
        ask.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = ask.query_async(connection).await?;
    let wrong = names.into_iter().zip(types).filter_map(|(key, is)| {
        let wanted = keys.kind(&key)?;
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
