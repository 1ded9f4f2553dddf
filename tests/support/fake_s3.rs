//! An S3 server in this process, as far as the store uses one: it counts what it is asked, breaks
//! connections in the middle of bodies and, if asked to, overlooks conditions or answers as odd servers do.
//! Checks no signatures. Used by the unit tests of `jobs` and by the integration tests.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// An answer to some requests instead of the usual one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Odd {
    /// What the requests begin with, as they are counted.
    pub(crate) what: &'static str,
    /// A header that they have.
    pub(crate) header: &'static str,
    /// How many of them pass before.
    pub(crate) after: usize,
    /// How many of them are answered so.
    pub(crate) times: usize,
    /// Status, and what stands in the error's code.
    pub(crate) answer: (&'static str, &'static str),
}

impl Odd {
    /// Answers every request that begins like this.
    pub(crate) fn always(what: &'static str, answer: (&'static str, &'static str)) -> Self {
        Self { what, header: "", after: 0, times: usize::MAX, answer }
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Bytes>,
    pub(crate) uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    pub(crate) asked: Vec<String>,
    /// Beginnings of requests in `asked`, and how many of them are still to be cut.
    pub(crate) cuts: Vec<(&'static str, usize)>,
    pub(crate) odd: Vec<Odd>,
    pub(crate) overlooks_conditions: bool,
    /// Objects on a page of a listing; 0 for all.
    pub(crate) page: usize,
    /// Lists what is deeper as if no delimiter had been asked for.
    pub(crate) overlooks_delimiters: bool,
    /// Names no next page, though there is one.
    pub(crate) cuts_lists: bool,
    /// Names the first page as the next one.
    pub(crate) lists_again: bool,
    /// Odd answers that were given.
    pub(crate) oddities: usize,
}

/// A running server, gone with its handle.
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

struct Request {
    /// `METHOD name`, or what an upload in parts is asked.
    what: String,
    key: String,
    query: BTreeMap<String, String>,
    range: Option<(usize, usize)>,
    is_conditional: bool,
    headers: String,
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

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }

    /// Answers some requests oddly.
    pub(crate) fn odd(&self, odd: Odd) {
        self.with(|state| state.odd.push(odd));
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
    let headers = text.to_ascii_lowercase();
    Some(Request { what, key, query, range, is_conditional, headers, length })
}

/// The answer that an odd server gives instead, if this one does.
fn oddity(state: &mut State, request: &Request) -> Option<(String, Bytes)> {
    let mut odd = state.odd.iter_mut();
    let fits = |odd: &&mut Odd| {
        request.what.starts_with(odd.what) && request.headers.contains(odd.header) && odd.times > 0
    };
    if let Some(odd) = odd.find(fits) {
        if odd.after > 0 {
            odd.after -= 1;
        } else {
            let (status, code) = odd.answer;
            odd.times -= 1;
            state.oddities += 1;
            let body = match code {
                "" => String::new(),
                code => format!("<Error><Code>{code}</Code><Message>made up</Message></Error>"),
            };
            return Some(plain(status, body.into()));
        }
    }
    None
}

fn answer(state: &mut State, request: &Request, body: Bytes) -> (String, Bytes) {
    if let Some(odd) = oddity(state, request) {
        return odd;
    }
    let upload = request.query.get("uploadId").cloned().unwrap_or_default();
    let key = request.key.clone();
    match request.what.split(' ').next().unwrap() {
        "LIST" => plain("200 OK", list(state, &request.query).into()),
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

/// One page of a listing.
fn list(state: &mut State, query: &BTreeMap<String, String>) -> String {
    let field = |name: &str| {
        let text =
            query.get(name).map_or("", String::as_str).replace("%2F", "/").replace("%7E", "~");
        text.strip_prefix("agrpo/").unwrap_or(&text).to_owned()
    };
    let (prefix, delimiter) = (field("prefix"), field("delimiter"));
    let after = field("start-after").max(field("continuation-token"));
    let mut parts: Vec<(String, usize)> = vec![];
    for (name, bytes) in state.objects.iter().filter(|(name, _)| name.starts_with(&prefix)) {
        let is_cut = !delimiter.is_empty() && !state.overlooks_delimiters;
        let end = name[prefix.len()..].find('/').filter(|_| is_cut);
        let part = end.map_or(name.as_str(), |end| &name[..=prefix.len() + end]);
        if *name > after && parts.last().is_none_or(|(last, _)| last != part) {
            parts.push((part.to_owned(), bytes.len()));
        }
    }
    let page = if state.page == 0 { usize::MAX } else { state.page };
    let last = parts.get(page.wrapping_sub(1)).filter(|_| !state.cuts_lists && parts.len() > page);
    let token = last.map(|(last, _)| match state.lists_again {
        true => "-".to_owned(),
        // What is in a folder comes before this.
        false => format!("{last}{}", if last.ends_with('/') { "~" } else { "" }),
    });
    state.oddities += usize::from(parts.len() > page);
    let token =
        token.map(|token| format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    let shown = parts.iter().take(page).map(|(name, size)| match name.ends_with('/') {
        true => format!("<CommonPrefixes><Prefix>agrpo/{name}</Prefix></CommonPrefixes>"),
        false => format!(
            "<Contents><Key>agrpo/{name}</Key><Size>{size}</Size><ETag>e</ETag>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        ),
    });
    let shown: String = shown.collect();
    format!("<ListBucketResult>{shown}{}</ListBucketResult>", token.unwrap_or_default())
}

fn plain(status: &str, body: Bytes) -> (String, Bytes) {
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: \"e\"\r\nLast-Modified: {}\r\nContent-Length: {}\r\n\r\n",
        now(),
        body.len()
    );
    (head, body)
}

/// The time as HTTP writes it: doctor compares the server's clock with this machine's.
fn now() -> String {
    let date =
        Command::new("date").env("LC_ALL", "C").args(["-u", "+%a, %d %b %Y %T GMT"]).output();
    String::from_utf8(date.unwrap().stdout).unwrap().trim().to_owned()
}
