//! Preflight checks on real Redis servers with wrong settings, rights and keys.

use std::time::Duration;

use agrpo_store::JobsError;
use futures::StreamExt;

use super::*;
use crate::coordination::redis::{Access, diagnosis::judge, refusal::classify};
use crate::testing::{RedisServer, real_clock};

async fn fleet(server: &RedisServer) -> Fleet {
    Fleet::connect(&server.url()).await.unwrap()
}

async fn says<T: redis::FromRedisValue>(fleet: &Fleet, command: &[&str]) -> T {
    let mut connection = fleet.connection();
    redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await.unwrap()
}

async fn keys(fleet: &Fleet) -> Vec<String> {
    says(fleet, &["KEYS", "*"]).await
}

/// The error of a refused Redis, and its text.
async fn refusal(fleet: &Fleet) -> (JobsError, String) {
    let error = require(fleet, "trial-1").await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("Redis at {}", fleet.address())), "{text}");
    assert!(!text.contains('\n'), "{text}");
    (error, text)
}

#[tokio::test]
async fn a_redis_that_can_serve_is_left_as_it_was() {
    let server = RedisServer::start(&[]);
    let fleet = fleet(&server).await;
    let found = inspect(&fleet, "trial-1").await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].found.contains("answers: Redis") && found[0].found.ends_with("noeviction"));
    assert_eq!(keys(&fleet).await, [""; 0]);
    // Keys of a working fleet stay as they are.
    for key in ["epoch", "attempts"] {
        says::<()>(&fleet, &["HSET", &fleet.keys.of(key), "from", "7"]).await;
    }
    require(&fleet, "trial-1").await.unwrap();
    assert_eq!(keys(&fleet).await.len(), 2);
}

/// What a worker is refused first should be told before it works.
#[tokio::test]
async fn the_trial_writes_every_key_of_a_fleet_by_commands_whose_rights_were_tried() {
    let server = RedisServer::start(&[]);
    let fleet = fleet(&server).await;
    let client = redis::Client::open(server.url()).unwrap();
    let monitor = client.get_async_monitor().await.unwrap().into_on_message::<String>();
    require(&fleet, "trial-1").await.unwrap();
    says::<String>(&fleet, &["ECHO", "this is the end"]).await;
    let is_within = |line: &String| std::future::ready(!line.contains("this is the end"));
    let lines: Vec<String> = monitor.take_while(is_within).collect().await;

    let trial = fleet.on_trial("trial-1").keys;
    let queue = trial.queue(agrpo_spec::Numerics::CpuPortable, &agrpo_store::Versions::own());
    let mut keys = trial.fixed();
    keys.extend([format!("{queue}:ready:"), format!("{queue}:joins:"), trial.of("lease:")]);
    for key in keys {
        let is_write = |line: &String| {
            let writes = ["SET", "INCR", "HSET", "SADD", "ZADD"];
            writes.iter().any(|command| line.contains(&format!("\"{command}\" \"{key}")))
        };
        assert!(lines.iter().any(is_write), "{key} is not written");
    }
    let rights = include_str!("../coordination/redis/rights.lua");
    for line in lines.iter().filter(|line| line.contains(" lua] ")) {
        let command = line.split('"').nth(1).unwrap();
        assert!(rights.contains(&format!("{{ '{command}'")), "{command} is not tried");
    }
}

#[tokio::test]
async fn unusable_settings_are_refused_with_the_remedy() {
    for (arguments, words) in [
        (&["--maxmemory-policy", "allkeys-lru"][..], "CONFIG SET maxmemory-policy noeviction"),
        (&["--maxmemory-policy", "volatile-ttl"], "CONFIG SET maxmemory-policy noeviction"),
        (&["--replicaof", "127.0.0.1", "1"], "REPLICAOF NO ONE"),
        (&["--cluster-enabled", "yes"], "serves the slot"),
        (&["--rename-command", "ZPOPMIN", "", "--rename-command", "SREM", ""], "SREM, ZPOPMIN"),
        (&["--rename-command", "EVALSHA", ""], "renames no command"),
    ] {
        let server = RedisServer::start(arguments);
        let fleet = fleet(&server).await;
        let (error, text) = refusal(&fleet).await;
        assert!(
            matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
            "{arguments:?}: {text}"
        );
        assert!(text.contains(words), "{arguments:?}: {text}");
        assert_eq!(keys(&fleet).await, [""; 0], "{arguments:?}");
    }
}

#[tokio::test]
async fn a_replica_of_a_running_master_is_refused() {
    let master = RedisServer::start(&[]);
    let port = master.url().rsplit(':').next().unwrap().to_owned();
    let server = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    let (error, text) = refusal(&fleet(&server).await).await;
    assert!(matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }), "{text}");
    assert!(text.contains(&format!("a replica of 127.0.0.1:{port}")), "{text}");
}

#[tokio::test]
async fn a_cluster_of_one_node_serves_and_one_that_has_the_keys_elsewhere_does_not() {
    let server = RedisServer::start(&["--cluster-enabled", "yes"]);
    let fleet = fleet(&server).await;
    let slots: Vec<String> = (0..16_384).map(|slot: u32| slot.to_string()).collect();
    let mut add = redis::cmd("CLUSTER");
    add.arg("ADDSLOTS").arg(&slots).query_async::<()>(&mut fleet.connection()).await.unwrap();
    let mut found = inspect(&fleet, "trial-1").await;
    for _ in 0..100 {
        if found.iter().all(|finding| finding.error.is_none()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        found = inspect(&fleet, "trial-1").await;
    }
    assert!(found.iter().all(|finding| finding.error.is_none()), "{found:?}");
    assert!(found.iter().any(|finding| finding.found.contains("cluster mode")), "{found:?}");
    assert_eq!(keys(&fleet).await, [""; 0]);

    let text = "MOVED 2813 127.0.0.1:7001";
    let error = fleet.meaning(classify("", text), text.into()).await;
    assert!(matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }));
    assert!(error.to_string().contains("127.0.0.1:7001"), "{error}");
}

#[tokio::test]
async fn nearly_exhausted_connections_are_reported() {
    let server = RedisServer::start(&["--maxclients", "10"]);
    let fleet = fleet(&server).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut held = vec![];
    let reported = |found: &[Finding]| {
        found.iter().any(|one| one.found.ends_with("of at most 10 connections"))
    };
    assert!(!reported(&inspect(&fleet, "trial-1").await));
    while held.len() < 8 {
        held.push(client.get_multiplexed_async_connection().await.unwrap());
    }
    assert!(reported(&inspect(&fleet, "trial-1").await));
}

#[tokio::test]
async fn a_full_redis_is_unavailable_and_says_why() {
    let server = RedisServer::start(&["--maxmemory", "100kb"]);
    let fleet = fleet(&server).await;
    let (error, text) = refusal(&fleet).await;
    assert!(matches!(error, JobsError::Unavailable(_)), "{text}");
    assert!(text.contains("OOM") && text.contains("raise maxmemory"), "{text}");
    says::<()>(&fleet, &["CONFIG", "SET", "maxmemory", "0"]).await;
    require(&fleet, "trial-1").await.unwrap();
    let used: String = says(&fleet, &["INFO", "memory"]).await;
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let most = used.trim().parse::<u64>().unwrap() * 103 / 100;
    says::<()>(&fleet, &["CONFIG", "SET", "maxmemory", &most.to_string()]).await;
    let found = inspect(&fleet, "trial-1").await;
    assert!(found.iter().any(|finding| finding.found.contains("bytes of memory")), "{found:?}");
}

#[tokio::test]
async fn every_right_that_is_missing_is_named() {
    let server = RedisServer::start(&[]);
    let admin = fleet(&server).await;
    let rules = include_str!("../../../infra/redis.acl.example").replace("PASSWORD", "right");
    let rules: Vec<&str> = rules.split_whitespace().skip(2).collect();
    let user = async |changes: &[&str]| {
        let command = [&["ACL", "SETUSER", "agrpo", "reset"], &rules[..], changes].concat();
        says::<()>(&admin, &command).await;
        let url = server.url().replace("://", "://agrpo@");
        let access = Access { password: Some("right".to_owned()), ..Access::from(&url) };
        Fleet::connect(access).await
    };
    let documented = user(&[]).await.unwrap();
    require(&documented, "trial-1").await.unwrap();
    for (changes, words) in [
        (&["-eval", "-evalsha"][..], "run EVALSHA; `ACL SETUSER agrpo +evalsha`"),
        (&["-@scripting"], "`ACL SETUSER agrpo +script"),
        (&["-srem"], "run SREM; `ACL SETUSER agrpo +srem`"),
        (&["-zadd", "-hset"], "run HSET, ZADD; `ACL SETUSER agrpo +hset +zadd`"),
        (&["-time"], "run TIME; `ACL SETUSER agrpo +time`"),
        (&["-info"], "run INFO; `ACL SETUSER agrpo +info`"),
        (&["-info", "-zadd"], "run INFO, ZADD; `ACL SETUSER agrpo +info +zadd`"),
        (&["-script"], "`ACL SETUSER agrpo +script"),
        (&["-multi"], "run MULTI; `ACL SETUSER agrpo +multi`"),
        (&["resetkeys", "~other:*"], "named agrpo:*; `ACL SETUSER agrpo ~agrpo:*`"),
        (&["resetkeys", "%R~agrpo:*"], "named agrpo:*; `ACL SETUSER agrpo ~agrpo:*`"),
        (
            &["-zadd", "resetkeys", "%R~agrpo:*"],
            "run ZADD, nor use keys named agrpo:*; `ACL SETUSER agrpo +zadd ~agrpo:*`",
        ),
    ] {
        let (error, text) = refusal(&user(changes).await.unwrap()).await;
        assert!(
            matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
            "{changes:?}: {text}"
        );
        assert!(text.contains(words), "{changes:?}: {text}");
        assert!(text.contains("infra/redis.acl.example"), "{changes:?}: {text}");
        assert!(!text.contains("script:"), "no digest of a script: {text}");
        assert_eq!(keys(&admin).await, [""; 0], "{changes:?}");
    }
    let error = user(&["-@all"]).await.unwrap_err();
    assert!(matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }), "{error}");
}

#[tokio::test]
async fn a_key_of_another_type_is_named_with_both_types() {
    let server = RedisServer::start(&[]);
    let fleet = fleet(&server).await;
    let queue = fleet.keys.queue(agrpo_spec::Numerics::CpuPortable, &agrpo_store::Versions::own());
    let mut all = fleet.keys.fixed();
    for part in ["ready:r", "joins:r:u"] {
        all.push(format!("{queue}:{part}"));
    }
    all.push(fleet.keys.of("lease:s"));
    for key in all {
        // No key of agrpo is a stream.
        says::<String>(&fleet, &["XADD", &key, "*", "a", "1"]).await;
        let (error, text) = refusal(&fleet).await;
        assert!(matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }), "{text}");
        assert!(text.contains(&format!("{key} is a stream and has to be a ")), "{text}");
        assert!(text.contains(&format!("redis-cli DEL '{key}'")), "{text}");
        says::<()>(&fleet, &["DEL", &key]).await;
    }
    require(&fleet, "trial-1").await.unwrap();
}

#[tokio::test]
async fn advice_is_no_refusal() {
    let server = RedisServer::start(&["--appendonly", "no"]);
    let found = inspect(&fleet(&server).await, "trial-1").await;
    assert!(found.iter().all(|finding| finding.error.is_none()), "{found:?}");
    assert!(found[1].found.contains("does not save its data"), "{found:?}");
    let server = RedisServer::start(&["--appendonly", "no", "--save", "60", "1"]);
    assert_eq!(inspect(&fleet(&server).await, "trial-1").await.len(), 1);
}

#[test]
fn an_old_version_is_refused_and_a_new_one_is_not() {
    for (version, good) in [
        ("5.0.14", false),
        ("6.0.16", false),
        ("", false),
        ("6.2.0", true),
        ("7.0.15", true),
        ("10.1.0", true),
    ] {
        let info =
            format!("redis_version:{version}\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n");
        let found = judge("here:1", &info, None);
        assert_eq!(
            found.iter().all(|finding| finding.error.is_none()),
            good,
            "{version}: {found:?}"
        );
    }
}

#[tokio::test]
async fn clocks_are_compared_to_the_four_seconds_that_workers_refuse() {
    assert!(!Skew::between(5_000, 1_000, 5_000, 0).is_too_much);
    assert_eq!(Skew::between(5_001, 1_000, 5_001, 0), Skew { ahead_ms: 4_001, is_too_much: true });
    assert_eq!(Skew::between(1_000, 9_000, 2_000, 0), Skew { ahead_ms: -7_000, is_too_much: true });
    assert_eq!(
        Skew::between(5_900, 1_000, 5_900, 1000),
        Skew { ahead_ms: 3_900, is_too_much: false }
    );
    assert_eq!(Skew::between(0, u64::MAX, 0, 1000).ahead_ms, -i64::MAX);

    let server = RedisServer::start(&[]);
    let fleet = fleet(&server).await;
    let real = real_clock();
    assert!(!clock_skew(&fleet, &real).await.unwrap().is_too_much);
    let late: Clock = std::sync::Arc::new(move || real() - 7_200_000);
    let skew = clock_skew(&fleet, &late).await.unwrap();
    assert!(skew.is_too_much && (skew.ahead_ms + 7_200_000).abs() < 60_000, "{skew:?}");
}
