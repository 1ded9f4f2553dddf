//! Leases of stages in Redis: taken one by one, renewed all at once by their worker's heartbeat.
//!
//! Redis may lose everything at any moment. `agrpo:epoch` says which life of Redis this is, from when on
//! leases may be taken in it, and when a worker was last seen. A Redis that was emptied, was started
//! again or stood still lets the holders come back first: leases are renewed at once and taken only
//! after a grace time. These leases save work; the store decides what is right.

use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{RedisResult, Script};

use super::millis;

/// The stage's lease is this and its digest.
pub(crate) const STAGE: &str = "agrpo:lease:";
/// Runs that nobody may take stages of, and why.
pub(crate) const HELD: &str = "agrpo:held";
/// Workers by when they were last seen, in milliseconds of Redis' clock.
pub(crate) const WORKERS: &str = "agrpo:workers";
/// What workers say about themselves, by name.
pub(crate) const ABOUT: &str = "agrpo:workers:about";
const EPOCH: &str = "agrpo:epoch";
const FENCE: &str = "agrpo:fence";
/// The registry of a fleet that is gone goes as well.
const REGISTRY_SECONDS: u64 = 3600;

/// How leases are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Until a lease that nobody renews expires.
    pub(crate) ttl: Duration,
}

impl Terms {
    /// From one renewal to the next.
    pub(crate) fn interval(self) -> Duration {
        self.ttl / 3
    }

    /// How long holders have to come back.
    fn grace(self) -> Duration {
        self.ttl * 2 / 5
    }

    /// If no worker was seen for so long, nobody could renew: less than a lease has left then.
    fn gap(self) -> Duration {
        self.ttl * 3 / 5
    }

    /// When a silent worker counts as gone.
    pub(crate) fn absence(self) -> Duration {
        self.ttl * 2
    }
}

/// Begins each script: the time, and from when on leases may be taken.
/// KEYS 1 to 2: epoch, workers. ARGV 1 to 4: who asks, grace, gap, whether a new Redis is known to be
/// nobody's.
const PREAMBLE: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local life = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or 'unknown'
    local epoch = redis.call('HMGET', KEYS[1], 'redis', 'from', 'seen')
    local others = redis.call('ZCARD', KEYS[2])
    if redis.call('ZSCORE', KEYS[2], ARGV[1]) then others = others - 1 end
    local from = tonumber(epoch[2] or '0')
    local asleep = epoch[1] and now - tonumber(epoch[3]) > tonumber(ARGV[3])
    if epoch[1] ~= life or asleep then
        local alone = others == 0 and (epoch[1] or ARGV[4] == '1')
        from = alone and now or now + tonumber(ARGV[2])
        redis.call('HSET', KEYS[1], 'redis', life, 'from', from, 'seen', now)
    end
";

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{PREAMBLE}
         if redis.call('HEXISTS', KEYS[5], ARGV[6]) == 1 then return 'held' end
         if redis.call('EXISTS', KEYS[3]) == 1 then return 'taken' end
         if from > now then return 'wait ' .. (from - now) end
         local token = redis.call('INCR', KEYS[4]) .. ' ' .. ARGV[1]
         redis.call('SET', KEYS[3], token, 'PX', ARGV[5])
         return 'token ' .. token"
    ))
});

// Workers are forgotten only while Redis is awake for all: else the grace time would be cut short.
static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{PREAMBLE}
         if from <= now then
             local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[6])
             for _, name in ipairs(gone) do
                 redis.call('ZREM', KEYS[2], name)
                 redis.call('HDEL', KEYS[3], name)
             end
         end
         redis.call('ZADD', KEYS[2], now, ARGV[1])
         redis.call('HSET', KEYS[3], ARGV[1], ARGV[7])
         redis.call('EXPIRE', KEYS[2], ARGV[8])
         redis.call('EXPIRE', KEYS[3], ARGV[8])
         redis.call('HSET', KEYS[1], 'seen', now)
         local answer = {{now}}
         for i = 4, #KEYS do
             local token, value = ARGV[i + 5], redis.call('GET', KEYS[i])
             local ours = not value or value == token
             if ours then redis.call('SET', KEYS[i], token, 'PX', ARGV[5]) end
             answer[#answer + 1] = ours and 1 or 0
         end
         return answer"
    ))
});

static AWAKEN: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{PREAMBLE} return from")));

static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         return redis.call('DEL', KEYS[1])",
    )
});

/// What came of asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// It is ours, under this value.
    Token(String),
    /// Somebody holds it.
    Taken,
    /// The run is paused or cancelled.
    Held,
    /// Holders may still come back: ask again after this time.
    Wait(Duration),
}

/// Asks for a stage's lease.
pub(crate) async fn acquire(
    connection: &mut impl ConnectionLike,
    terms: Terms,
    key: &str,
    holder: &str,
    run: &str,
) -> RedisResult<Acquired> {
    let answer: String = ACQUIRE
        .key(EPOCH)
        .key(WORKERS)
        .key(key)
        .key(FENCE)
        .key(HELD)
        .arg(holder)
        .arg(millis(terms.grace()))
        .arg(millis(terms.gap()))
        .arg(0)
        .arg(millis(terms.ttl))
        .arg(run)
        .invoke_async(connection)
        .await?;
    Ok(match answer.split_once(' ') {
        Some(("token", token)) => Acquired::Token(token.to_owned()),
        Some((_, wait)) => Acquired::Wait(Duration::from_millis(wait.parse().unwrap_or(100))),
        None if answer == "held" => Acquired::Held,
        None => Acquired::Taken,
    })
}

/// One sign of life: Redis' time in milliseconds since 1970, and for each lease whether it is still ours.
pub(crate) async fn beat(
    connection: &mut impl ConnectionLike,
    terms: Terms,
    worker: &str,
    about: &str,
    leases: &[(&str, &str)],
) -> RedisResult<(u64, Vec<bool>)> {
    let mut call = BEAT.prepare_invoke();
    call.key(EPOCH).key(WORKERS).key(ABOUT);
    call.arg(worker)
        .arg(millis(terms.grace()))
        .arg(millis(terms.gap()))
        .arg(0)
        .arg(millis(terms.ttl))
        .arg(millis(terms.absence()))
        .arg(about)
        .arg(REGISTRY_SECONDS);
    for (key, token) in leases {
        call.key(*key).arg(*token);
    }
    let answer: Vec<u64> = call.invoke_async(connection).await?;
    let (now, ours) = answer.split_first().map_or((0, &[][..]), |(now, ours)| (*now, ours));
    Ok((now, ours.iter().map(|&ours| ours == 1).collect()))
}

/// Lets leases be taken at once in a Redis that no worker has ever seen.
pub(crate) async fn awaken(connection: &mut impl ConnectionLike) -> RedisResult<()> {
    let terms = Terms { ttl: crate::worker::LEASE };
    let call = AWAKEN
        .key(EPOCH)
        .key(WORKERS)
        .arg("")
        .arg(millis(terms.grace()))
        .arg(millis(terms.gap()))
        .arg(1)
        .invoke_async::<u64>(connection)
        .await;
    call.map(drop)
}

/// Gives a lease back, if it is still ours.
pub(crate) async fn release(
    connection: &mut impl ConnectionLike,
    key: &str,
    token: &str,
) -> RedisResult<()> {
    RELEASE.key(key).arg(token).invoke_async(connection).await
}

/// Takes a worker off the registry.
pub(crate) async fn sign_off(
    connection: &mut impl ConnectionLike,
    worker: &str,
) -> RedisResult<()> {
    redis::pipe()
        .zrem(WORKERS, worker)
        .ignore()
        .hdel(ABOUT, worker)
        .ignore()
        .query_async(connection)
        .await
}

#[cfg(test)]
mod tests;
