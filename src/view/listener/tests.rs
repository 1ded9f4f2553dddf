//! A listener among clients that do nothing, little, or everything at once.

use std::net::SocketAddr;

use axum::response::sse::{Event, Sse};
use axum::routing::{any, get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::guard::Guard;

/// More than every buffer between a server and a client that does not read.
const LARGE: usize = 64 << 20;

fn limits() -> Limits {
    Limits {
        connections: 4,
        request: Duration::from_secs(1),
        answer: Duration::from_secs(1),
        stall: Duration::from_secs(1),
        transfer: Duration::from_secs(20),
    }
}

fn app() -> Router {
    let events =
        || std::future::ready(Sse::new(futures::stream::pending::<Result<Event, Infallible>>()));
    Router::new()
        .route("/", any(|| std::future::ready("here")))
        .route("/large", get(|| std::future::ready(vec![7; LARGE])))
        .route("/never", get(std::future::pending::<&'static str>))
        .route("/events", get(events))
}

struct Server(SocketAddr, #[expect(dead_code, reason = "gone with its handle")] JoinSet<()>);

impl Server {
    async fn start(app: Router, limits: Limits) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { match serve(socket, app, limits).await {} });
        Self(address, tasks)
    }

    async fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    /// Everything that the server sends until it closes; `None` if it does not close, or resets the connection.
    async fn ask(&self, bytes: &str) -> Option<String> {
        end_of(self.send(bytes).await).await
    }

    async fn get(&self, path: &str) -> Option<String> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await
    }
}

async fn end_of(mut stream: TcpStream) -> Option<String> {
    let mut answer = vec![];
    let read = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer));
    read.await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// Every kind of client that holds its connection is disconnected in time.
#[tokio::test]
async fn no_connection_stays_that_does_nothing() {
    let limits = Limits { connections: 64, ..limits() };
    let server = Server::start(app(), limits).await;
    for (name, bytes) in [
        ("idle", ""),
        ("half a head", "GET / HTTP/1.1\r\nHost"),
        ("an idle connection", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("half a body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nhalf"),
        ("an answer that never comes", "GET /never HTTP/1.1\r\nHost: h\r\n\r\n"),
    ] {
        let closed = server.ask(bytes).await;
        assert!(closed.is_some(), "{name}");
    }

    // Bytes that trickle in are no request: the server closes, though its client goes on.
    let mut dribble = server.send("GET / HTTP/1.1\r\n").await;
    while dribble.write_all(b"x: y\r\n").await.is_ok() {
        sleep(Duration::from_millis(100)).await;
    }
    // A client that reads nothing is cut off; a client that reads slowly gets the whole response.
    let deaf = server.send("GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let mut slow = server.send("GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let mut taken = 0;
    let mut piece = vec![0; 8 << 20];
    loop {
        sleep(Duration::from_millis(200)).await;
        match slow.read(&mut piece).await.unwrap() {
            0 => break,
            bytes => taken += bytes,
        }
    }
    assert!(taken > LARGE, "{taken}");
    let mut all = vec![];
    let cut = { deaf }.read_to_end(&mut all).await;
    assert!(cut.is_err() || all.len() < LARGE, "the whole answer waited for its reader");
}

/// Many more connections than the limit, of every kind: a newcomer is answered, and the limit holds.
#[tokio::test]
async fn idle_connections_do_not_lock_out_a_newcomer() {
    // No connection of the crowd ends by itself while the newcomer waits.
    let limits = Limits { request: Duration::from_secs(60), ..limits() };
    let server = Server::start(app(), limits).await;
    for crowd in ["", "GET / HTTP/1.1\r\nHost", "GET /events HTTP/1.1\r\nHost: h\r\n\r\n"] {
        let mut streams = vec![];
        for _ in 0..100 {
            streams.push(server.send(crowd).await);
        }
        sleep(Duration::from_millis(300)).await;
        let answer = server.get("/").await;
        assert!(answer.is_some_and(|answer| answer.ends_with("here")), "{crowd:?}");
        let mut open = 0;
        for stream in &streams {
            let mut byte = [0; 4096];
            // Behind an answer that came is the end, or nothing yet.
            open += usize::from(loop {
                match stream.try_read(&mut byte) {
                    Ok(0) => break false,
                    Ok(_) => {}
                    Err(error) => break error.kind() == std::io::ErrorKind::WouldBlock,
                }
            });
        }
        assert!(open <= limits.connections, "{open} of {crowd:?} are open");
    }
}

#[tokio::test]
async fn who_is_being_answered_keeps_its_place() {
    let limits = Limits { answer: Duration::from_secs(3), ..limits() };
    let server = Server::start(app(), limits).await;
    let mut busy = vec![];
    for _ in 0..limits.connections {
        busy.push(server.send("GET /never HTTP/1.1\r\nHost: h\r\n\r\n").await);
    }
    sleep(Duration::from_millis(200)).await;
    assert!(server.get("/").await.is_none_or(|answer| answer.is_empty()), "the newest gives way");
    sleep(limits.answer + Duration::from_millis(500)).await;
    assert!(server.get("/").await.is_some_and(|answer| answer.ends_with("here")));
}

#[tokio::test]
async fn a_head_is_bounded() {
    let server = Server::start(app(), Limits { connections: 64, ..limits() }).await;
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(BUFFER));
    let answer = server.ask(&long).await.unwrap_or_default();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "x: y\r\n".repeat(200));
    let answer = server.ask(&many).await.unwrap_or_default();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[test]
fn a_listener_takes_few_of_the_files() {
    let limit = |files| Limits::of_files(files).connections;
    assert_eq!([0, 32, 256, 1024, u64::MAX].map(limit), [4, 4, 32, 64, 64]);
}

async fn status(server: &Server, target: &str, headers: &str) -> (u16, String) {
    let ask = format!("GET {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    let answer = server.ask(&ask).await.unwrap();
    (answer[9..12].parse().unwrap(), answer.to_ascii_lowercase())
}

#[tokio::test]
async fn only_its_own_names_reach_a_server_and_every_answer_is_sealed() {
    let (loopback, open) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
    let own = || ["worker-1".to_owned(), "fleet.example".to_owned()];
    let at_home = Server::start(Guard::by_name(loopback, own()).protect(app()), limits()).await;
    let abroad = Server::start(Guard::by_name(open, own()).protect(app()), limits()).await;
    for (target, headers, here, there) in [
        ("/", "Host: 127.0.0.1:9\r\n", 200, 200),
        ("/", "Host: LOCALHOST\r\n", 200, 200),
        ("/", "Host: worker-1:9180\r\n", 200, 200),
        ("/", "Host: fleet.example\r\n", 200, 200),
        ("/", "Host: 10.1.2.3:9180\r\n", 421, 200),
        ("/", "Host: [fe80::1]:9180\r\n", 421, 200),
        ("/", "Host: evil.example\r\n", 421, 421),
        ("/", "Host: 127.0.0.1.evil.example\r\n", 421, 421),
        ("/", "Host: fleet.example.evil.example\r\n", 421, 421),
        ("/", "Host: 127.0.0.1@evil.example\r\n", 421, 421),
        ("/", "Host: \r\n", 421, 421),
        ("/", "", 421, 421),
        ("/", "Host: 127.0.0.1\r\nHost: evil.example\r\n", 421, 421),
        ("http://evil.example/", "Host: 127.0.0.1\r\n", 421, 421),
        ("http://127.0.0.1/", "Host: evil.example\r\n", 421, 421),
        ("http://127.0.0.1/", "Host: 127.0.0.1\r\n", 200, 200),
        ("/nowhere", "Host: 127.0.0.1\r\n", 404, 404),
    ] {
        for (server, expected) in [(&at_home, here), (&abroad, there)] {
            let (found, answer) = status(server, target, headers).await;
            assert_eq!(found, expected, "{target} {headers}: {answer}");
            for line in [
                "x-content-type-options: nosniff\r\n",
                "content-security-policy: frame-ancestors 'none'\r\n",
                "x-frame-options: deny\r\n",
                "referrer-policy: no-referrer\r\n",
            ] {
                assert!(answer.contains(line), "{line} is missing: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_kept_by_port_and_leads_nowhere_else() {
    let token = "correct-horse-battery-staple";
    let server = Server::start(Guard::with_token(token, 8437).protect(app()), limits()).await;
    for path in [
        "/",
        "//evil.example/",
        "/\\evil.example/",
        "//%2fevil.example/",
        "/%0d%0aset-cookie:%20a=b",
        "/runs/x",
        "http://evil.example/",
    ] {
        let (found, answer) =
            status(&server, &format!("{path}?token={token}"), "Host: h\r\n").await;
        assert_eq!(found, 303, "{path}: {answer}");
        assert!(answer.contains("\r\nlocation: /\r\n"), "{path}: {answer}");
        let cookie = format!("agrpo_token_8437={token}; path=/; httponly; samesite=strict\r\n");
        assert!(answer.contains(&cookie), "{path}: {answer}");
        assert!(!answer.contains("evil"), "{path}: {answer}");
    }
    for (cookie, expected) in [
        (format!("agrpo_token_8437={token}"), 200),
        (format!("agrpo_token_9000=other; agrpo_token_8437={token}"), 200),
        (format!("agrpo_token={token}"), 401),
        (format!("agrpo_token_9000={token}"), 401),
        ("agrpo_token_8437=other".to_owned(), 401),
    ] {
        let headers = format!("Host: h\r\nCookie: {cookie}\r\n");
        assert_eq!(status(&server, "/", &headers).await.0, expected, "{cookie}");
    }
}
