//! Leases: which worker computes which stage, so that a stage is rarely computed twice.
//!
//! A lease is a key with an expiry and a unique fencing token, which renewing and releasing compare first. Results do
//! not depend on leases: if two workers compute a stage, the store keeps one of the results. This file has the lease
//! of the reconciler, which its holder renews; those of stages are in `leases/`.

mod stage_lease;
pub(crate) mod stages;

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use crate::coordination::redis::{Fleet, script};
use crate::{Result, coordination::keys::FENCE};
pub(crate) use stage_lease::{Gate, StageLease, State};

/// The usual time after which the lease of a dead worker expires.
pub(crate) const LEASE: Duration = Duration::from_secs(6);

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if is_leased(KEYS[1], tonumber(ARGV[2])) then return answer(false) end
         local value = count_on(KEYS[2]) .. ' ' .. ARGV[1]
         redis.call('SET', KEYS[1], value, 'PX', ARGV[2])
         return answer(value)",
    )
});

// After Redis was emptied the key is missing: its holder may set it again.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local value = redis.call('GET', KEYS[1])
         if value and value ~= ARGV[1] then return answer(0) end
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
         return answer(1)",
    )
});

static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return answer(0) end
         return answer(redis.call('DEL', KEYS[1]))",
    )
});

/// The lease of one task, held until it expires.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    fleet: Fleet,
    key: String,
    value: String,
    ttl: Duration,
}

impl Lease {
    /// Acquires the lease; `None` where another worker holds it.
    pub(crate) async fn acquire(
        fleet: &Fleet,
        key: String,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Self>> {
        let mut call = ACQUIRE.prepare_invoke();
        call.key(&key).key(fleet.keys.of(FENCE)).arg(holder).arg(millis(ttl));
        let value: Option<String> = fleet.invoke(&call).await?;
        Ok(value.map(|value| Self { fleet: fleet.clone(), key, value, ttl }))
    }

    /// Extends the lease; false where another worker holds it.
    pub(crate) async fn renew(&self) -> Result<bool> {
        self.fleet.invoke(RENEW.key(&self.key).arg(&self.value).arg(millis(self.ttl))).await
    }

    pub(crate) async fn release(self) -> Result<()> {
        release(&self.fleet, &self.key, &self.value).await
    }
}

/// Releases a lease, if this worker still holds it.
pub(crate) async fn release(fleet: &Fleet, key: &str, token: &str) -> Result<()> {
    fleet.invoke::<u64>(RELEASE.key(key).arg(token)).await.map(drop)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RedisServer;

    const TTL: Duration = Duration::from_millis(300);

    async fn acquire(fleet: &Fleet, holder: &str) -> Option<Lease> {
        Lease::acquire(fleet, "agrpo:{q8130}:lease:x".to_owned(), holder, TTL).await.unwrap()
    }

    #[tokio::test]
    async fn one_worker_holds_it_until_it_is_released_or_expires() {
        let server = RedisServer::start(&[]);
        let fleet = Fleet::connect(&server.url()).await.unwrap();
        let first = acquire(&fleet, "a").await.unwrap();
        assert!(acquire(&fleet, "b").await.is_none());
        first.release().await.unwrap();
        let second = acquire(&fleet, "b").await.unwrap();
        for _ in 0..6 {
            tokio::time::sleep(TTL / 2).await;
            assert!(second.renew().await.unwrap());
        }
        assert!(acquire(&fleet, "a").await.is_none(), "a renewed lease does not expire");
        tokio::time::sleep(TTL * 2).await;
        let third = acquire(&fleet, "b").await.unwrap();
        assert!(!second.renew().await.unwrap(), "the token tells two leases of one holder apart");
        second.release().await.unwrap();
        assert!(third.renew().await.unwrap(), "a stale holder cannot release another's lease");
    }

    #[tokio::test]
    async fn the_holder_takes_it_again_after_redis_was_emptied() {
        let server = RedisServer::start(&[]);
        let fleet = Fleet::connect(&server.url()).await.unwrap();
        let lease = acquire(&fleet, "a").await.unwrap();
        redis::cmd("FLUSHALL").query_async::<()>(&mut fleet.connection()).await.unwrap();
        assert!(lease.renew().await.unwrap());
        assert!(acquire(&fleet, "b").await.is_none());
    }
}
