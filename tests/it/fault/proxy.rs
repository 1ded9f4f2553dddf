//! Proxies between workers and their services: a gate that stalls or cuts connections, and before S3
//! one that also answers with errors, is slow, turns bits and breaks off in the middle of a body. Gates count
//! the connections that they hit, as evidence that a fault took place.
//!
//! The gate before Redis knows bytes alone. The one before S3 knows as much of HTTP as it needs: one
//! request a connection, bodies by their length.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
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
    /// The request is delayed by half a second.
    Latency,
    /// The connection is reset in the middle of the request's body or of the answer's.
    Reset,
    /// A bit of an object is turned on its way to its reader.
    BadReads,
    /// Creations that are conditional are answered with 409: ask again.
    Conflict,
    /// 400 to requests with a checksum, as from servers that know none.
    NoChecksums,
}

/// Something that goes wrong for a share of the requests, at least for so long and until it has hit one.
#[derive(Debug)]
struct Spell {
    trouble: Trouble,
    percent: u64,
    until: Instant,
    hits: Arc<AtomicU32>,
}

/// The connections that a gate has hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hits {
    /// Messages that waited while it was stalled.
    pub(crate) stalled: u32,
    /// Connections that were cut, and those refused meanwhile.
    pub(crate) cut: u32,
    /// Connections that found no server.
    pub(crate) alone: u32,
}

#[derive(Debug, Default)]
struct Weather {
    mood: Mood,
    closing: bool,
    troubles: Vec<Spell>,
    hits: Hits,
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
            weather.hits.cut += u32::try_from(weather.connections.len()).unwrap();
        }
        self.shared.changed.notify_all();
    }

    /// Troubles a share of the requests for a while, and counts them.
    pub(crate) fn trouble(
        &self,
        trouble: Trouble,
        percent: u64,
        lasting: Duration,
    ) -> Arc<AtomicU32> {
        let hits = Arc::<AtomicU32>::default();
        let until = Instant::now() + lasting;
        let spell = Spell { trouble, percent, until, hits: Arc::clone(&hits) };
        self.shared.lock().troubles.push(spell);
        hits
    }

    /// The connections that it has hit so far.
    pub(crate) fn hits(&self) -> Hits {
        self.shared.lock().hits
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
            let mut weather = self.lock();
            weather.connections.remove(&id);
            weather.hits.alone += 1;
            drop(weather);
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
            weather.hits.cut += 1;
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
        let mut weather = self.lock();
        weather.hits.stalled += u32::from(weather.mood == Mood::Stalled);
        let weather = self.changed.wait_while(weather, stalled);
        weather.unwrap_or_else(PoisonError::into_inner).mood == Mood::Open
    }

    /// The trouble of this connection's request, and a number that varies it.
    fn draw(&self, id: u32, head: &str) -> (Option<(Trouble, Arc<AtomicU32>)>, u64) {
        let now = Instant::now();
        let mut weather = self.lock();
        weather
            .troubles
            .retain(|spell| spell.until > now || spell.hits.load(Ordering::Relaxed) == 0);
        let met = |(spell, n): &(&Spell, u32)| {
            spell.trouble.is_met_by(head) && self.seed.below(100, id, *n) < spell.percent
        };
        let hit = weather.troubles.iter().zip(0..).find(met);
        let hit = hit.map(|(spell, _)| (spell.trouble, Arc::clone(&spell.hits)));
        (hit, self.seed.below(1 << 32, id, 99))
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
        let (hit, way) = self.draw(id, &head);
        // Counted when it takes effect: a request that never reached the server is not counted.
        let done = || hit.iter().for_each(|(_, hits)| _ = hits.fetch_add(1, Ordering::Relaxed));
        let trouble = hit.as_ref().map(|(trouble, _)| *trouble);
        let fault = match (trouble, way % 2) {
            (Some(Trouble::Conflict), _) => ("409 Conflict", "ConditionalRequestConflict"),
            (Some(Trouble::NoChecksums), _) => ("400 Bad Request", "InvalidArgument"),
            (_, 0) => ("500 Internal Server Error", "InternalError"),
            _ => ("503 Slow Down", "SlowDown"),
        };
        match trouble {
            Some(Trouble::Conflict | Trouble::NoChecksums) => {
                done();
                return refuse(client, fault).map(|()| true);
            }
            Some(Trouble::Errors) if way / 2 % 2 == 0 => {
                done();
                return refuse(client, fault).map(|()| true);
            }
            Some(Trouble::Latency) => {
                done();
                std::thread::sleep(Duration::from_millis(500));
            }
            Some(Trouble::Reset) if !body.is_empty() => {
                done();
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
            Some(Trouble::Errors) => {
                done();
                return refuse(client, fault).map(|()| true);
            }
            Some(Trouble::Reset) => {
                done();
                client.write_all(&answer[..answer.len() * 3 / 4])?;
                return Ok(false);
            }
            Some(Trouble::BadReads) if turn_a_bit(&mut answer, way) => done(),
            _ => {}
        }
        client.write_all(&answer)?;
        client.shutdown(Shutdown::Write)?;
        Ok(true)
    }
}

impl Trouble {
    /// Whether a request may meet it.
    fn is_met_by(self, head: &str) -> bool {
        let has = |name: &str| head.to_ascii_lowercase().contains(&format!("\r\n{name}"));
        let line = head.lines().next().unwrap_or_default();
        match self {
            Self::BadReads => line.starts_with("GET ") && !line.contains("list-type"),
            Self::Conflict => line.starts_with("PUT ") && has("if-none-match:"),
            Self::NoChecksums => has("x-amz-checksum-") || has("x-amz-sdk-checksum-"),
            Self::Errors | Self::Latency | Self::Reset => true,
        }
    }
}

/// Turns a bit of the object in an answer, if there is one.
fn turn_a_bit(answer: &mut [u8], way: u64) -> bool {
    let is_object = answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.1 206");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(body) = end.and_then(|end| answer.get_mut(end + 4..)) else { return false };
    if !is_object || body.is_empty() {
        return false;
    }
    // Any of them: two reads in a row that give the same other bytes are damage, and not two bad reads.
    let bit = usize::try_from(way).unwrap() % (body.len() * 8);
    body[bit / 8] ^= 1 << (bit % 8);
    true
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
