//! Access control of the pages, and the security headers of every response.
//!
//! Without a token, a request has to name this server as its host, so that no page elsewhere reads this one through a
//! browser. With a token, a request has to bring it: once in the address, then in a cookie that no script and no
//! other site can use. A request never decides where a browser is redirected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use agrpo_spec::ArtifactDigest;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

/// Headers of every response: no sniffing of types, no framing, no referrer.
const SEAL: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "frame-ancestors 'none'"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The check of a request.
#[derive(Clone)]
pub struct Guard(Arc<Needs>);

enum Needs {
    /// The token's digest, as the time of comparing digests reveals nothing, and a cookie named after the port, as
    /// cookies do not distinguish the ports of a host.
    Token { digest: ArtifactDigest, cookie: String },
    /// Host names that a request may use. Unless bound to loopback, any numeric address too: a page cannot fake one.
    Name { names: Vec<String>, any_number: bool },
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has_token = matches!(*self.0, Needs::Token { .. });
        f.debug_struct("Guard").field("has_token", &has_token).finish_non_exhaustive()
    }
}

impl Guard {
    /// For a server without a token, that is called by its address or by one of these names.
    pub fn by_name(address: SocketAddr, names: impl IntoIterator<Item = String>) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let names = ["localhost".to_owned(), ip].into_iter().chain(names).collect();
        Self(Arc::new(Needs::Name { names, any_number: !address.ip().is_loopback() }))
    }

    /// For a server at this port that asks for a token.
    pub fn with_token(token: &str, port: u16) -> Self {
        let digest = ArtifactDigest::of(token.as_bytes());
        Self(Arc::new(Needs::Token { digest, cookie: format!("agrpo_token_{port}") }))
    }

    /// The pages behind this guard.
    pub fn protect(self, app: Router) -> Router {
        app.layer(middleware::from_fn_with_state(self, check)).layer(middleware::map_response(seal))
    }
}

async fn check(State(Guard(needs)): State<Guard>, request: Request, next: Next) -> Response {
    match &*needs {
        Needs::Name { names, any_number } => {
            if is_called(names, *any_number, request.headers(), request.uri()) {
                return next.run(request).await;
            }
            let why = "this server answers only to its own name; open the address it listens on";
            (StatusCode::MISDIRECTED_REQUEST, why).into_response()
        }
        Needs::Token { digest, cookie } => {
            let fits = |given: &str| *digest == ArtifactDigest::of(given.as_bytes());
            if cookie_value(request.headers(), cookie).is_some_and(fits) {
                return next.run(request).await;
            }
            let query = request.uri().query().unwrap_or_default();
            match query.split('&').find_map(|pair| pair.strip_prefix("token=")) {
                Some(given) if fits(given) => {
                    let set = format!("{cookie}={given}; Path=/; HttpOnly; SameSite=Strict");
                    let headers = [(header::SET_COOKIE, set), (header::LOCATION, "/".to_owned())];
                    (StatusCode::SEE_OTHER, headers).into_response()
                }
                _ => {
                    let why = "a token is needed: open the address that agrpo serve printed";
                    (StatusCode::UNAUTHORIZED, why).into_response()
                }
            }
        }
    }
}

async fn seal(mut answer: Response) -> Response {
    for (name, value) in SEAL {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Whether a request names this server as its host, and no other. A request to a proxy has a host in its target too.
fn is_called(names: &[String], any_number: bool, headers: &HeaderMap, uri: &Uri) -> bool {
    let is_own = |host: &str| {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        };
        let is_known = names.iter().any(|known| known.eq_ignore_ascii_case(name));
        is_known || (any_number && is_number(name))
    };
    let mut hosts = headers.get_all(header::HOST).iter().map(|host| host.to_str().ok());
    let target = uri.authority();
    (headers.contains_key(header::HOST) || target.is_some())
        && hosts.all(|host| host.is_some_and(is_own))
        && target.is_none_or(|target| is_own(target.as_str()))
}

fn is_number(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(six) => six.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

fn cookie_value<'a>(headers: &'a HeaderMap, cookie: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split("; "))
        .find_map(|pair| pair.strip_prefix(cookie)?.strip_prefix('='))
}
