//! Who gets a lease when, against a real Redis.

use super::*;
use crate::coordination::redis::Fleet;
use crate::redis_server::RedisServer;

const TTL: Duration = Duration::from_millis(3000);
const KEY: &str = "agrpo:{q8130}:lease:x";

struct Place {
    server: RedisServer,
    fleet: Fleet,
}

impl Place {
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
    let place = Place::new(&[]).await;
    awaken(&place.fleet).await.unwrap();
    let first = place.acquire("a").await;
    assert_eq!(place.acquire("b").await, Acquired::Taken);
    assert_eq!(
        place.beat("a", &[(KEY, token(&first)), ("agrpo:{q8130}:lease:y", "7 z")]).await,
        [true, true]
    );
    assert_eq!(place.beat("b", &[(KEY, "9 b")]).await, [false], "another token stands there");
    place.says(&["HSET", &place.fleet.keys.of(HELD), "run", "paused"]).await;
    place.says(&["DEL", KEY]).await;
    assert_eq!(place.acquire("b").await, Acquired::Held);
}

#[tokio::test]
async fn after_a_loss_holders_come_back_before_anybody_else_takes_over() {
    for (extra, lose) in
        [(&[][..], "flush"), (&[], "restart"), (&["--appendonly", "no"], "restart")]
    {
        let mut place = Place::new(extra).await;
        awaken(&place.fleet).await.unwrap();
        let first = place.acquire("a").await;
        let (ours, key) = (token(&first).to_owned(), "agrpo:{q8130}:lease:gone");
        place.beat("a", &[(KEY, &ours), (key, "5 dead")]).await;
        place.beat("b", &[]).await;
        if lose == "flush" {
            place.says(&["FLUSHALL"]).await;
        } else {
            place.server.kill();
            // Longer than the lease lasts.
            tokio::time::sleep(TTL + Duration::from_millis(200)).await;
            place.server.start_again();
            place.fleet = Fleet::connect(&place.server.url()).await.unwrap();
        }
        let Acquired::Wait(pause) = place.acquire("b").await else { panic!("{lose}: no grace") };
        assert!(pause <= grace(TTL), "{pause:?}");
        assert_eq!(place.beat("a", &[(KEY, &ours)]).await, [true], "{lose} {extra:?}");
        tokio::time::sleep(pause).await;
        assert_eq!(place.acquire("b").await, Acquired::Taken, "{lose} {extra:?}");
        place.says(&["DEL", KEY]).await;
        token(&place.acquire("b").await);
    }
}

#[tokio::test]
async fn a_redis_that_stood_still_lets_holders_come_back() {
    let place = Place::new(&[]).await;
    awaken(&place.fleet).await.unwrap();
    let first = place.acquire("a").await;
    place.beat("a", &[(KEY, token(&first))]).await;
    // No worker could renew: as in a stall, and unlike after the death of one of two.
    tokio::time::sleep(TTL + Duration::from_millis(200)).await;
    assert!(matches!(place.acquire("b").await, Acquired::Wait(_)));
    assert_eq!(place.beat("a", &[(KEY, token(&first))]).await, [true]);

    let other = Place::new(&[]).await;
    awaken(&other.fleet).await.unwrap();
    let dead = other.acquire("a").await;
    other.beat("a", &[(KEY, token(&dead))]).await;
    for _ in 0..4 {
        other.beat("b", &[]).await;
        tokio::time::sleep(interval(TTL)).await;
    }
    token(&other.acquire("b").await);
}
