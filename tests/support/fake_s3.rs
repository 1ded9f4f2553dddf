//! An S3 server in this process, as far as the store uses one: it counts what it is asked, breaks
//! connections in the middle of bodies and, where told so, overlooks conditions. Checks no signatures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Store;
use crate::store::open;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    asked: Vec<String>,
    /// Beginnings of requests in `asked`, and how many of them are still to be cut.
    cuts: Vec<(&'static str, usize)>,
    /// Beginnings of requests that are answered with this instead.
    answers: Vec<(&'static str, &'static str)>,
    overlooks_conditions: bool,
}

/// A running server, gone with its handle.
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    port: u16,
    _tasks: JoinSet<()>,
}

struct Request {
    /// `METHOD name`, or what an upload in parts is asked.
    what: String,
    key: String,
    query: BTreeMap<String, String>,
    range: Option<(usize, usize)>,
    is_conditional: bool,
    length: usize,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, mut tasks) = (Arc::clone(&state), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { state, port, _tasks: tasks }
    }

    /// A store in its bucket in which more than `large` bytes are large, as a new process opens it.
    pub(crate) async fn store(&self, large: u64) -> Store {
        let backend = open::open("s3://results/agrpo", &super::settings(self.port)).await.unwrap();
        Store::on(backend.with_large(large))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }

    /// Breaks the connection of the next requests that begin like this, halfway through their body.
    pub(crate) fn cut(&self, what: &'static str, times: usize) {
        self.with(|state| state.cuts.push((what, times)));
    }

    /// Answers requests that begin like this with a status.
    pub(crate) fn answer(&self, what: &'static str, status: &'static str) {
        self.with(|state| state.answers.push((what, status)));
    }

    pub(crate) fn overlook_conditions(&self) {
        self.with(|state| state.overlooks_conditions = true);
    }

    /// What was asked since the last look, sorted.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.with(|state| std::mem::take(&mut state.asked));
        asked.sort_unstable();
        asked
    }

    /// How many of the requests since the last look begin like this.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.asked().iter().filter(|asked| asked.starts_with(what)).count()
    }

    pub(crate) fn object(&self, name: &str) -> Option<Bytes> {
        self.with(|state| state.objects.get(name).cloned())
    }

    pub(crate) fn put(&self, name: &str, bytes: Bytes) {
        self.with(|state| state.objects.insert(name.to_owned(), bytes));
    }

    pub(crate) fn objects(&self) -> usize {
        self.with(|state| state.objects.len())
    }

    /// Uploads in parts that were neither completed nor aborted.
    pub(crate) fn open_uploads(&self) -> usize {
        self.with(|state| state.uploads.len())
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut buffer = vec![];
    while let Some(request) = head(&mut stream, &mut buffer).await {
        let is_cut = {
            let mut state = state.lock().unwrap();
            state.asked.push(request.what.clone());
            let mut cuts = state.cuts.iter_mut();
            let cut = cuts.find(|(what, left)| request.what.starts_with(what) && *left > 0);
            cut.map(|(_, left)| *left -= 1).is_some()
        };
        let wanted = if is_cut { request.length / 2 } else { request.length };
        while buffer.len() < wanted {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        if is_cut && request.length > 0 {
            return;
        }
        let rest = buffer.split_off(request.length);
        let body = Bytes::from(std::mem::replace(&mut buffer, rest));
        let (head, body) = answer(&mut state.lock().unwrap(), &request, body);
        let shown = if is_cut { body.len() / 2 } else { body.len() };
        if stream.write_all(head.as_bytes()).await.is_err()
            || stream.write_all(&body[..shown]).await.is_err()
            || is_cut
        {
            return;
        }
    }
}

/// Reads up to the end of a request's head.
async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let rest = buffer.split_off(end);
    let text = String::from_utf8(std::mem::replace(buffer, rest)).unwrap();
    let (method, address) = text.split_once(' ').unwrap();
    let (path, query) = address
        .split(' ')
        .next()
        .unwrap()
        .split_once('?')
        .unwrap_or((address.split(' ').next().unwrap(), ""));
    let key = path.strip_prefix("/results").unwrap().trim_start_matches('/');
    let key = key.strip_prefix("agrpo/").unwrap_or(key).to_owned();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    };
    let query: BTreeMap<_, _> = query.split('&').map(pair).collect();
    let header = |name: &str| {
        text.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let what = match method {
        "PUT" if query.contains_key("partNumber") => "part".to_owned(),
        "POST" if query.contains_key("uploads") => "begin".to_owned(),
        "POST" if query.contains_key("uploadId") => "complete".to_owned(),
        "DELETE" if query.contains_key("uploadId") => "abort".to_owned(),
        "GET" if query.contains_key("list-type") => "LIST".to_owned(),
        "POST" => "DELETE".to_owned(),
        _ => format!("{method} {key}"),
    };
    let range = header("range").map(|range| {
        let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (from.parse().unwrap(), to.parse::<usize>().unwrap() + 1)
    });
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    let is_conditional = header("if-none-match").is_some();
    Some(Request { what, key, query, range, is_conditional, length })
}

fn answer(state: &mut State, request: &Request, body: Bytes) -> (String, Bytes) {
    let told = state.answers.iter().find(|(what, _)| request.what.starts_with(what));
    if let Some((_, status)) = told {
        return plain(status, Bytes::new());
    }
    let upload = request.query.get("uploadId").cloned().unwrap_or_default();
    let key = request.key.clone();
    match request.what.split(' ').next().unwrap() {
        "LIST" => plain("200 OK", Bytes::from_static(b"<ListBucketResult></ListBucketResult>")),
        "DELETE" => {
            let text = String::from_utf8_lossy(&body).into_owned();
            state.objects.retain(|name, _| !text.contains(name.as_str()));
            let key = text.split_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>"));
            let key = key.map_or("", |(key, _)| key);
            let xml = format!("<DeleteResult><Deleted><Key>{key}</Key></Deleted></DeleteResult>");
            plain("200 OK", xml.into())
        }
        "begin" => {
            let id = format!("upload{}", state.asked.len());
            state.uploads.insert(id.clone(), BTreeMap::new());
            let xml = format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            plain("200 OK", xml.into())
        }
        "part" => {
            let number = request.query["partNumber"].parse().unwrap();
            state.uploads.get_mut(&upload).unwrap().insert(number, body);
            plain("200 OK", Bytes::new())
        }
        "complete" => {
            let parts = state.uploads.remove(&upload).unwrap();
            let whole: Vec<u8> = parts.into_values().flatten().collect();
            state.objects.insert(key, whole.into());
            let xml =
                "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
            plain("200 OK", xml.into())
        }
        "abort" => {
            state.uploads.remove(&upload);
            plain("204 No Content", Bytes::new())
        }
        "PUT" => {
            let is_there = state.objects.contains_key(&key);
            if request.is_conditional && is_there && !state.overlooks_conditions {
                return plain("412 Precondition Failed", Bytes::new());
            }
            state.objects.insert(key, body);
            plain("200 OK", Bytes::new())
        }
        method => match (state.objects.get(&key), request.range) {
            (None, _) => plain("404 Not Found", Bytes::new()),
            (Some(found), _) if method == "HEAD" => {
                let (head, _) = plain("200 OK", found.clone());
                (head, Bytes::new())
            }
            (Some(found), None) => plain("200 OK", found.clone()),
            (Some(found), Some((from, to))) => {
                let status = format!(
                    "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
                    to - 1,
                    found.len()
                );
                plain(&status, found.slice(from..to))
            }
        },
    }
}

fn plain(status: &str, body: Bytes) -> (String, Bytes) {
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: \"e\"\r\nLast-Modified: Wed, 21 Oct 2026 07:28:00 GMT\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head, body)
}
