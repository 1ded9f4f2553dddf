//! Who may look at live pages.
//!
//! Without a token, whoever reaches a loopback address by its own name: a request that names another host comes
//! from a page elsewhere that had its name point here, and is refused. With a token, who has it: it is given
//! once in the address and kept by the browser in a cookie that no script and no other site can use.

use std::sync::Arc;

use agrpo_spec::ArtifactDigest;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const COOKIE: &str = "agrpo_token";

/// What requests have to bring.
#[derive(Clone)]
pub struct Guard {
    /// The digest of the token, where there is one: equal digests say equal tokens, and how long it takes to
    /// compare them says nothing.
    token: Option<ArtifactDigest>,
    /// Names by which this server may be called where there is no token.
    hosts: Arc<[String]>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("has_token", &self.token.is_some()).finish_non_exhaustive()
    }
}

impl Guard {
    /// For a server at an address that is its own machine's alone.
    pub fn of_loopback(address: std::net::SocketAddr) -> Self {
        let ip = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self { token: None, hosts: ["localhost".to_owned(), ip].into() }
    }

    /// For a server that others can reach.
    pub fn with_token(token: &str) -> Self {
        Self { token: Some(ArtifactDigest::of(token.as_bytes())), hosts: [].into() }
    }

    fn fits(&self, given: &str) -> bool {
        self.token == Some(ArtifactDigest::of(given.as_bytes()))
    }

    fn knows_host(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = named.or_else(|| uri.authority().map(|authority| authority.as_str()));
        let name = host.map(|host| match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        });
        name.is_some_and(|name| self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }
}

/// Lets a request pass, or says what it lacks.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if guard.token.is_none() {
        if guard.knows_host(request.headers(), request.uri()) {
            return next.run(request).await;
        }
        let told =
            "this server answers to its own name alone; call it by the address that it listens on";
        return (StatusCode::MISDIRECTED_REQUEST, told).into_response();
    }
    if cookie(request.headers()).is_some_and(|given| guard.fits(given)) {
        return next.run(request).await;
    }
    let query = request.uri().query().unwrap_or_default();
    let given = query.split('&').find_map(|pair| pair.strip_prefix("token="));
    if given.is_some_and(|given| guard.fits(given)) {
        let cookie =
            format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", given.unwrap_or_default());
        let place = request.uri().path().to_owned();
        let headers = [(header::SET_COOKIE, cookie), (header::LOCATION, place)];
        return (StatusCode::SEE_OTHER, headers).into_response();
    }
    let told = "a token is needed: open the address that agrpo serve printed";
    (StatusCode::UNAUTHORIZED, told).into_response()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split("; "))
        .find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='))
}
