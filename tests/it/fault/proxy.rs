//! What lies between workers and their services: a gate that stalls or cuts connections, and before S3
//! one that also answers with errors, is slow, and breaks off in the middle of a body.
//!
//! The gate before Redis knows bytes alone. The one before S3 knows as much of HTTP as it needs: one
//! request a connection, bodies by their length.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agrpo_spec::Seed;

/// Whether bytes pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Open,
    /// Connections stand and nothing passes.
    Stalled,
    /// Connections are reset, new ones too.
    Cut,
}

/// What happens to requests to S3, each for a share of them in percent, until a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// 500 or 503; of half of them the server did what was asked before the answer was lost.
    Errors,
    /// Half a second before the request is passed on.
    Latency,
    /// The connection is reset in the middle of the request's body or of the answer's.
    Reset,
}

#[derive(Debug, Default)]
struct Weather {
    mood: Mood,
    closing: bool,
    troubles: Vec<(Trouble, u64, Instant)>,
    connections: BTreeMap<u32, TcpStream>,
    next: u32,
}

/// A gate before one server.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    http: bool,
    seed: Seed,
    weather: Mutex<Weather>,
    changed: Condvar,
}

impl Gate {
    /// Opens a gate; with `http` it understands S3's requests.
    pub(crate) fn open(server: SocketAddr, http: bool, seed: Seed) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (weather, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { server, http, seed, weather, changed });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.lock().closing {
                    return;
                }
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || shared.pass(client));
            }
        });
        Self { port, shared }
    }

    /// Stalls, cuts or opens.
    pub(crate) fn set(&self, mood: Mood) {
        let mut weather = self.shared.lock();
        weather.mood = mood;
        if mood == Mood::Cut {
            for stream in weather.connections.values() {
                stream.shutdown(Shutdown::Both).ok();
            }
        }
        self.shared.changed.notify_all();
    }

    /// Troubles a share of the requests for a while.
    pub(crate) fn trouble(&self, trouble: Trouble, percent: u64, lasting: Duration) {
        self.shared.lock().troubles.push((trouble, percent, Instant::now() + lasting));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.set(Mood::Cut);
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection to its end; its errors are the client's to bear.
    fn pass(self: Arc<Self>, client: TcpStream) {
        let Some(id) = self.admit(&client) else { return reset(client) };
        let Ok(server) = TcpStream::connect_timeout(&self.server, Duration::from_secs(5)) else {
            self.lock().connections.remove(&id);
            return reset(client);
        };
        client.set_nodelay(true).ok();
        server.set_nodelay(true).ok();
        if self.http {
            let whole = matches!(self.exchange(&client, &server, id), Ok(true));
            // The last handle decides how the connection ends.
            self.lock().connections.remove(&id);
            if !whole {
                reset(client);
            }
            return;
        }
        if let (Ok(from_server), Ok(to_client)) = (server.try_clone(), client.try_clone()) {
            let shared = Arc::clone(&self);
            let back = std::thread::spawn(move || shared.pump(from_server, to_client));
            self.pump(client, server);
            back.join().ok();
        }
        self.lock().connections.remove(&id);
    }

    /// Notes a connection, so that it can be cut.
    fn admit(&self, client: &TcpStream) -> Option<u32> {
        let mut weather = self.lock();
        if weather.mood == Mood::Cut {
            return None;
        }
        weather.next += 1;
        let id = weather.next;
        weather.connections.insert(id, client.try_clone().ok()?);
        Some(id)
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 << 10];
        while let Ok(count) = from.read(&mut buffer) {
            if count == 0 || !self.wait() || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }

    /// Waits while stalled; false once cut.
    fn wait(&self) -> bool {
        let stalled = |weather: &mut Weather| weather.mood == Mood::Stalled;
        let weather = self.changed.wait_while(self.lock(), stalled);
        weather.unwrap_or_else(PoisonError::into_inner).mood == Mood::Open
    }

    /// What happens to the request of this connection.
    fn draw(&self, id: u32) -> (Option<Trouble>, u64) {
        let now = Instant::now();
        let mut weather = self.lock();
        weather.troubles.retain(|&(_, _, until)| until > now);
        let hit = weather
            .troubles
            .iter()
            .zip(0..)
            .find(|((_, percent, _), n)| self.seed.below(100, id, *n) < *percent);
        (hit.map(|((trouble, ..), _)| *trouble), self.seed.below(4, id, 99))
    }

    /// One request and its answer. True where the answer is whole.
    fn exchange(&self, client: &TcpStream, server: &TcpStream, id: u32) -> io::Result<bool> {
        let (mut client, mut server) = (client, server);
        let Some((head, mut body)) = read_head(client)? else { return Ok(false) };
        let missing = length(&head).saturating_sub(body.len() as u64);
        client.take(missing).read_to_end(&mut body)?;
        if !self.wait() {
            return Ok(false);
        }
        let head = head.trim_end_matches("\r\n").to_owned() + "\r\nconnection: close\r\n\r\n";
        let (trouble, way) = self.draw(id);
        let fault = match way % 2 {
            0 => ("500 Internal Server Error", "InternalError"),
            _ => ("503 Slow Down", "SlowDown"),
        };
        match trouble {
            Some(Trouble::Errors) if way < 2 => return refuse(client, fault).map(|()| true),
            Some(Trouble::Latency) => std::thread::sleep(Duration::from_millis(500)),
            Some(Trouble::Reset) if !body.is_empty() => {
                server.write_all(head.as_bytes())?;
                server.write_all(&body[..body.len() / 2])?;
                return Ok(false);
            }
            _ => {}
        }
        server.write_all(head.as_bytes())?;
        server.write_all(&body)?;
        let mut answer = vec![];
        server.read_to_end(&mut answer)?;
        match trouble {
            Some(Trouble::Errors) => return refuse(client, fault).map(|()| true),
            Some(Trouble::Reset) => {
                client.write_all(&answer[..answer.len() * 3 / 4])?;
                return Ok(false);
            }
            _ => client.write_all(&answer)?,
        }
        client.shutdown(Shutdown::Write)?;
        Ok(true)
    }
}

/// The head of a request, and what was read beyond it.
fn read_head(mut client: &TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let (mut bytes, mut buffer) = (vec![], [0; 16 << 10]);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), body)));
        }
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn length(head: &str) -> u64 {
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(value).unwrap_or(0)
}

fn refuse(mut client: &TcpStream, (status, code): (&str, &str)) -> io::Result<()> {
    let body = format!("<Error><Code>{code}</Code><Message>made up</Message></Error>");
    let head = "content-type: application/xml\r\nconnection: close";
    let length = body.len();
    write!(client, "HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Ends a connection so that its client reads an error, not an end.
fn reset(client: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).ok();
    drop(client);
}
