//! Leases of stages in Redis: acquired one by one, renewed all at once by their worker's heartbeat.
//!
//! Redis may lose everything at any moment. The hash `epoch` holds the run id of the Redis process (`redis`), the time
//! from which leases may be acquired (`from`), and when a worker was last seen (`seen`). After Redis was emptied,
//! restarted or stalled, leases are renewed at once and acquired only after a grace time, so that their holders come
//! first. Leases save work; the store decides which result counts.

use std::{sync::LazyLock, time::Duration};

use redis::{RedisResult, Script, ScriptInvocation, aio::ConnectionLike};

use super::{LEASE, millis};
use crate::Result;
use crate::coordination::keys::{ABOUT, EPOCH, FENCE, HELD, WORKERS};
use crate::coordination::redis::{Fleet, script};

/// The registry expires this long after the last heartbeat of any worker.
const REGISTRY_SECONDS: u64 = 3600;

/// From one renewal of a lease to the next.
pub(crate) fn interval(ttl: Duration) -> Duration {
    ttl / 3
}

/// How long holders have to renew their leases before others may acquire one.
fn grace(ttl: Duration) -> Duration {
    ttl * 2 / 5
}

/// The longest lease that a worker of the fleet takes, as far as this one knows.
fn longest(ttl: Duration) -> Duration {
    ttl.max(LEASE)
}

/// Comes first in each script: sets `from`, the time from which leases may be acquired.
/// KEYS 1 to 2: epoch, workers. ARGV 1 to 5: the worker, grace, gap, whether a new Redis is known to be without leases,
/// the longest grace of any worker.
const PREAMBLE: &str = "
    local life = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or 'unknown'
    local epoch = redis.call('HMGET', KEYS[1], 'redis', 'from', 'seen')
    local others = redis.call('ZCARD', KEYS[2])
    if redis.call('ZSCORE', KEYS[2], ARGV[1]) then others = others - 1 end
    local from, asleep = 0, false
    if epoch[1] then
        from = bounded(KEYS[1] .. ' from', epoch[2], now + tonumber(ARGV[5]), 1000)
        asleep = now - bounded(KEYS[1] .. ' seen', epoch[3], now, 1000) > tonumber(ARGV[3])
        if from ~= tonumber(epoch[2]) then redis.call('HSET', KEYS[1], 'from', from) end
    end
    if epoch[1] ~= life or asleep then
        local alone = others == 0 and (epoch[1] or ARGV[4] == '1')
        from = alone and now or now + tonumber(ARGV[2])
        redis.call('HSET', KEYS[1], 'redis', life, 'from', from, 'seen', now)
    end
";

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    script(&format!(
        "{PREAMBLE}
         if redis.call('HEXISTS', KEYS[5], ARGV[7]) == 1 then return answer('held') end
         if is_leased(KEYS[3], tonumber(ARGV[8])) then return answer('taken') end
         if from > now then return answer('wait ' .. (from - now)) end
         local token = count_on(KEYS[4]) .. ' ' .. ARGV[1]
         redis.call('SET', KEYS[3], token, 'PX', ARGV[6])
         return answer('token ' .. token)"
    ))
});

// Silent workers are removed only after the grace time: a worker that counts as alone needs none.
static BEAT: LazyLock<Script> = LazyLock::new(|| {
    script(&format!(
        "{PREAMBLE}
         bound_scores(KEYS[2], now, now, 1000)
         if from <= now then
             local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[7])
             for _, name in ipairs(gone) do
                 redis.call('ZREM', KEYS[2], name)
                 redis.call('HDEL', KEYS[3], name)
             end
         end
         redis.call('ZADD', KEYS[2], now, ARGV[1])
         redis.call('HSET', KEYS[3], ARGV[1], ARGV[8])
         redis.call('EXPIRE', KEYS[2], ARGV[9])
         redis.call('EXPIRE', KEYS[3], ARGV[9])
         redis.call('HSET', KEYS[1], 'seen', now)
         local beat = {{now}}
         for i = 4, #KEYS do
             local token, value = ARGV[i + 6], redis.call('GET', KEYS[i])
             local ours = not value or value == token
             if ours then redis.call('SET', KEYS[i], token, 'PX', ARGV[6]) end
             beat[#beat + 1] = ours and 1 or 0
         end
         return answer(beat)"
    ))
});

static AWAKEN: LazyLock<Script> =
    LazyLock::new(|| script(&format!("{PREAMBLE} return answer(from)")));

/// What came of asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// The lease was acquired, with this token.
    Token(String),
    /// Another worker holds it.
    Taken,
    /// The run is paused or cancelled.
    Held,
    /// The grace time is not over: ask again after this long.
    Wait(Duration),
}

/// A call with the keys and arguments of the preamble.
fn asked_by(
    fleet: &Fleet,
    script: &'static Script,
    ttl: Duration,
    who: &str,
    new: bool,
) -> ScriptInvocation<'static> {
    // Redis stalled if no worker was seen for this long, which is less than a renewed lease lasts.
    let gap = ttl * 3 / 5;
    let mut call = script.prepare_invoke();
    call.key(fleet.keys.of(EPOCH))
        .key(fleet.keys.of(WORKERS))
        .arg(who)
        .arg(millis(grace(ttl)))
        .arg(millis(gap))
        .arg(u8::from(new))
        .arg(millis(grace(longest(ttl))));
    call
}

/// Asks for a stage's lease.
pub(crate) async fn acquire(
    fleet: &Fleet,
    ttl: Duration,
    key: &str,
    holder: &str,
    run: &str,
) -> Result<Acquired> {
    let mut call = asked_by(fleet, &ACQUIRE, ttl, holder, false);
    call.key(key)
        .key(fleet.keys.of(FENCE))
        .key(fleet.keys.of(HELD))
        .arg(millis(ttl))
        .arg(run)
        .arg(millis(longest(ttl)));
    let answer: String = fleet.invoke(&call).await?;
    Ok(match answer.split_once(' ') {
        Some(("token", token)) => Acquired::Token(token.to_owned()),
        Some((_, wait)) => {
            let wait = wait.parse().map_or(interval(ttl), Duration::from_millis);
            Acquired::Wait(wait.min(grace(longest(ttl))))
        }
        None if answer == "held" => Acquired::Held,
        None => Acquired::Taken,
    })
}

/// One heartbeat: Redis' time in milliseconds since 1970, and for each lease whether it is still held.
pub(crate) async fn beat(
    fleet: &Fleet,
    connection: &mut impl ConnectionLike,
    ttl: Duration,
    worker: &str,
    about: &str,
    leases: &[(&str, &str)],
) -> RedisResult<(u64, Vec<bool>)> {
    // A worker is removed after this long without a heartbeat.
    let absence = ttl * 2;
    let mut call = asked_by(fleet, &BEAT, ttl, worker, false);
    call.key(fleet.keys.of(ABOUT))
        .arg(millis(ttl))
        .arg(millis(absence))
        .arg(about)
        .arg(REGISTRY_SECONDS);
    for (key, token) in leases {
        call.key(*key).arg(*token);
    }
    let answer: Vec<u64> = fleet.invoke_on(connection, &call).await?;
    let (now, ours) = answer.split_first().map_or((0, &[][..]), |(now, ours)| (*now, ours));
    Ok((now, ours.iter().map(|&ours| ours == 1).collect()))
}

/// Lets leases be acquired at once in a Redis that no worker has used before.
pub(crate) async fn awaken(fleet: &Fleet) -> Result<()> {
    fleet.invoke::<u64>(&asked_by(fleet, &AWAKEN, LEASE, "", true)).await.map(drop)
}

/// Removes a worker from the registry.
pub(crate) async fn sign_off(fleet: &Fleet, worker: &str) -> Result<()> {
    let (workers, about) = (fleet.keys.of(WORKERS), fleet.keys.of(ABOUT));
    let mut pipe = redis::pipe();
    pipe.zrem(workers, worker).ignore().hdel(about, worker).ignore();
    fleet.ask_all(&pipe).await
}

#[cfg(test)]
mod tests;
