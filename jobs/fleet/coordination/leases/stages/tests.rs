//! Leases on a real Redis: which worker acquires one, and when.

use super::*;
use crate::coordination::redis::Fleet;
use crate::testing::RedisServer;

const TTL: Duration = Duration::from_millis(3000);
const KEY: &str = "agrpo:{q8130}:lease:x";

struct TestFleet {
    server: RedisServer,
    fleet: Fleet,
}

impl TestFleet {
    async fn new(extra: &[&str]) -> Self {
        let server = RedisServer::start(extra);
        let fleet = Fleet::connect(&server.url()).await.unwrap();
        Self { server, fleet }
    }

    async fn acquire(&self, holder: &str) -> Acquired {
        acquire(&self.fleet, TTL, KEY, holder, "run").await.unwrap()
    }

    async fn beat(&self, worker: &str, leases: &[(&str, &str)]) -> Vec<bool> {
        let connection = &mut self.fleet.connection();
        beat(&self.fleet, connection, TTL, worker, "{}", leases).await.unwrap().1
    }

    async fn says(&self, command: &[&str]) {
        let mut connection = self.fleet.connection();
        redis::cmd(command[0])
            .arg(&command[1..])
            .query_async::<redis::Value>(&mut connection)
            .await
            .unwrap();
    }
}

fn token(acquired: &Acquired) -> &str {
    match acquired {
        Acquired::Token(token) => token,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_run_handed_to_a_new_redis_does_not_wait() {
    let test = TestFleet::new(&[]).await;
    awaken(&test.fleet).await.unwrap();
    let first = test.acquire("a").await;
    assert_eq!(test.acquire("b").await, Acquired::Taken);
    assert_eq!(
        test.beat("a", &[(KEY, token(&first)), ("agrpo:{q8130}:lease:y", "7 z")]).await,
        [true, true]
    );
    assert_eq!(test.beat("b", &[(KEY, "9 b")]).await, [false], "another token stands there");
    test.says(&["HSET", &test.fleet.keys.of(HELD), "run", "paused"]).await;
    test.says(&["DEL", KEY]).await;
    assert_eq!(test.acquire("b").await, Acquired::Held);
}

#[tokio::test]
async fn after_a_loss_holders_renew_before_other_workers_acquire() {
    for (extra, lose) in
        [(&[][..], "flush"), (&[], "restart"), (&["--appendonly", "no"], "restart")]
    {
        let mut test = TestFleet::new(extra).await;
        awaken(&test.fleet).await.unwrap();
        let first = test.acquire("a").await;
        let (ours, key) = (token(&first).to_owned(), "agrpo:{q8130}:lease:gone");
        test.beat("a", &[(KEY, &ours), (key, "5 dead")]).await;
        test.beat("b", &[]).await;
        if lose == "flush" {
            test.says(&["FLUSHALL"]).await;
        } else {
            test.server.kill();
            // Longer than the lease lasts.
            tokio::time::sleep(TTL + Duration::from_millis(200)).await;
            test.server.start_again();
            test.fleet = Fleet::connect(&test.server.url()).await.unwrap();
        }
        let Acquired::Wait(pause) = test.acquire("b").await else { panic!("{lose}: no grace") };
        assert!(pause <= grace(TTL), "{pause:?}");
        assert_eq!(test.beat("a", &[(KEY, &ours)]).await, [true], "{lose} {extra:?}");
        tokio::time::sleep(pause).await;
        assert_eq!(test.acquire("b").await, Acquired::Taken, "{lose} {extra:?}");
        test.says(&["DEL", KEY]).await;
        token(&test.acquire("b").await);
    }
}

#[tokio::test]
async fn a_redis_that_stood_still_lets_holders_come_back() {
    let test = TestFleet::new(&[]).await;
    awaken(&test.fleet).await.unwrap();
    let first = test.acquire("a").await;
    test.beat("a", &[(KEY, token(&first))]).await;
    // No worker could renew: as in a stall, and unlike after the death of one of two.
    tokio::time::sleep(TTL + Duration::from_millis(200)).await;
    assert!(matches!(test.acquire("b").await, Acquired::Wait(_)));
    assert_eq!(test.beat("a", &[(KEY, token(&first))]).await, [true]);

    let other = TestFleet::new(&[]).await;
    awaken(&other.fleet).await.unwrap();
    let dead = other.acquire("a").await;
    other.beat("a", &[(KEY, token(&dead))]).await;
    for _ in 0..4 {
        other.beat("b", &[]).await;
        tokio::time::sleep(interval(TTL)).await;
    }
    token(&other.acquire("b").await);
}
