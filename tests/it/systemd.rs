//! The notifications of a worker to a service manager, on a real socket.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::program::Program;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// Messages until one is `wanted`, or until the limit.
fn heard(socket: &UnixDatagram, wanted: &str, limit: Duration) -> Vec<String> {
    let (end, mut all) = (Instant::now() + limit, vec![]);
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while Instant::now() < end {
        let mut bytes = [0; 512];
        let Ok(size) = socket.recv(&mut bytes) else { continue };
        all.extend(String::from_utf8_lossy(&bytes[..size]).lines().map(str::to_owned));
        if all.iter().any(|line| line == wanted) {
            break;
        }
    }
    all
}

#[test]
fn systemd_is_notified_of_ready_alive_busy_and_stopping() {
    let redis = RedisServer::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let url = redis.url();
    let program = Program::new(&[
        ("AGRPO_REDIS", &url),
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        // Longer than a turn of the heartbeat, which comes every other second.
        ("WATCHDOG_USEC", "3000000"),
    ]);
    program.json(&["enqueue", "run.toml", "--json"]);
    let long = Duration::from_secs(60);
    let mut worker = program.start(&["worker"]);
    let first = heard(&socket, "READY=1", long);
    assert!(first.contains(&"READY=1".to_owned()), "{first:?}");
    let mut alive = heard(&socket, "WATCHDOG=1", long);
    assert!(alive.contains(&"WATCHDOG=1".to_owned()), "{alive:?}");
    wait_for("the end of the run", || {
        alive.extend(heard(&socket, "never", Duration::from_millis(200)));
        (program.policy().1 == "done").then_some(())
    });
    assert!(alive.iter().any(|line| line.starts_with("STATUS=computing rollout")), "{alive:?}");

    // A worker that waits for its Redis is alive, and notifies systemd of it: restarting it would not help.
    let mut connection = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
    let pause = redis::cmd("CLIENT").arg("PAUSE").arg(8000).query::<()>(&mut connection);
    pause.unwrap();
    heard(&socket, "never", Duration::from_secs(4));
    let meanwhile = heard(&socket, "WATCHDOG=1", Duration::from_secs(3));
    assert!(meanwhile.contains(&"WATCHDOG=1".to_owned()), "{meanwhile:?}");
    heard(&socket, "never", Duration::from_secs(2));

    let killed = Command::new("kill").args(["-TERM", &worker.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let last = heard(&socket, "STOPPING=1", long);
    assert!(last.contains(&"STOPPING=1".to_owned()), "{last:?}");
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}
