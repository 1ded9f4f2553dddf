//! Thousands of connections that do nothing, or little, to a program that may open 256 files: the work goes on,
//! requests are answered, and the log stays short.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::http::free_address;
use crate::support::program::Program;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// Connections of each of two kinds: idle and slow.
const CROWD: usize = 2_000;
/// What the program may open, connections included.
const FILES: u32 = 256;

/// Ends a program of ours with its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The clients' side takes more files than a process usually may have.
fn make_room() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Some(3 * CROWD as u64);
    if limit.current < wanted {
        setrlimit(Resource::Nofile, Rlimit { current: wanted, ..limit })
            .expect("the hard limit of files allows 6,000");
    }
}

/// Holds a connection in one of several ways; returns whether it was accepted.
async fn hold(address: SocketAddr, kind: usize) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let host = format!("Host: {address}\r\n");
    let begin = match kind % 8 {
        // Half of them send nothing.
        0..4 => String::new(),
        4 => "GET / HTTP/1.1\r\n".to_owned(),
        5 => format!("POST / HTTP/1.1\r\n{host}Content-Length: 1000\r\n\r\nhalf"),
        6 => format!("GET / HTTP/1.1\r\n{host}\r\n").repeat(20),
        _ => format!("GET /events HTTP/1.1\r\n{host}\r\n"),
    };
    stream.write_all(begin.as_bytes()).await.ok();
    for _ in 0..120 {
        sleep(Duration::from_secs(1)).await;
        if kind % 8 == 4 && stream.write_all(b"x").await.is_err() {
            break;
        }
    }
    Some(())
}

/// An answer's status line, however many tries it takes.
async fn answered(address: SocketAddr, path: &str) -> String {
    for _ in 0..100 {
        let ask = async {
            let mut stream = TcpStream::connect(address).await.ok()?;
            let ask =
                format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream.write_all(ask.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            answer.lines().next().map(str::to_owned)
        };
        if let Ok(Some(line)) = timeout(Duration::from_secs(5), ask).await {
            return line;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} is not answered")
}

async fn until_listening(address: SocketAddr) {
    for _ in 0..1200 {
        if TcpStream::connect(address).await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("the program does not listen")
}

/// The crowd, in place.
async fn crowd(address: SocketAddr) -> JoinSet<Option<()>> {
    let mut clients = JoinSet::new();
    for kind in 0..2 * CROWD {
        clients.spawn(hold(address, kind));
        // Faster than this, the system's backlog overflows.
        if kind % 64 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    sleep(Duration::from_secs(1)).await;
    // Connections that were refused have ended.
    while let Some(ended) = clients.try_join_next() {
        ended.unwrap().expect("every client connects");
    }
    clients
}

fn log_of(program: &Program, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(program.folder().join(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stores_its_results_and_serves_metrics_in_a_crowd() {
    make_room();
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let program = Program::new(&[("AGRPO_REDIS", &url), ("RUST_LOG", "warn")]);
    let address = free_address();
    let at = address.to_string();
    let log = File::create(program.folder().join("log")).unwrap();
    let worker = program.start_within(FILES, &["worker", "--metrics", &at], log);
    let _worker = Running(worker);
    until_listening(address).await;
    let clients = crowd(address).await;
    program.json(&["enqueue", "run.toml", "--json"]);
    tokio::task::block_in_place(|| {
        wait_for("the end of the run", || (program.policy().1 == "done").then_some(()));
    });
    assert_eq!(answered(address, "/metrics").await, "HTTP/1.1 200 OK");
    let lines = log_of(&program, "log");
    assert!(lines.iter().any(|line| line.contains("the listener is at its limit of connections")));
    assert!(lines.len() < 100, "{}", lines[..100].join("\n"));
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_pages_are_shown_in_a_crowd() {
    make_room();
    let program = Program::new(&[]);
    program.json(&["run", "run.toml", "--json"]);
    let address = free_address();
    let at = address.to_string();
    let log = File::create(program.folder().join("log")).unwrap();
    let _served = Running(program.start_within(FILES, &["serve", "--listen", &at], log));
    until_listening(address).await;
    let clients = crowd(address).await;
    for path in ["/", "/runs/bytes", "/runs/bytes/samples"] {
        assert_eq!(answered(address, path).await, "HTTP/1.1 200 OK", "{path}");
    }
    let lines = log_of(&program, "log");
    assert!(lines.iter().any(|line| line.contains("the listener is at its limit of connections")));
    assert!(lines.len() < 100, "{}", lines[..100].join("\n"));
    drop(clients);
}

/// The table of files is full: nothing can be accepted, and the loop neither spins nor floods.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_table_of_files_is_waited_out() {
    let program = Program::new(&[]);
    std::fs::create_dir(program.store()).unwrap();
    let address = free_address();
    let at = address.to_string();
    let log = File::create(program.folder().join("log")).unwrap();
    let served = Running(program.start_within(FILES, &["serve", "--listen", &at], log));
    until_listening(address).await;
    sleep(Duration::from_secs(1)).await;
    let pid = Pid::from_child(&served.0);
    let open = std::fs::read_dir(format!("/proc/{}/fd", served.0.id())).unwrap().count() as u64;
    let limit = |current| Rlimit { current: Some(current), maximum: Some(u64::from(FILES)) };
    prlimit(Some(pid), Resource::Nofile, limit(open)).unwrap();
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        clients.spawn(hold(address, 0));
    }
    sleep(Duration::from_secs(4)).await;
    let time = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", served.0.id())).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = time();
    sleep(Duration::from_secs(2)).await;
    assert!(time() - before < 50, "half a second of two for nothing");
    let lines = log_of(&program, "log");
    assert!(lines.iter().any(|line| line.contains("a connection cannot be accepted")), "{lines:?}");
    assert!(lines.len() < 20, "{lines:?}");
    prlimit(Some(pid), Resource::Nofile, limit(u64::from(FILES))).unwrap();
    assert_eq!(answered(address, "/").await, "HTTP/1.1 200 OK");
    drop(clients);
}
