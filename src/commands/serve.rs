//! `agrpo serve`: live pages about runs, until it is stopped.
//!
//! Listens, and says where; what the pages show is `agrpo-view`'s affair. Changes nothing in store or Redis.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agrpo_jobs::Fleet;
use agrpo_view::guard::Guard;
use agrpo_view::listener;
use agrpo_view::live::{Connect, Hub};
use agrpo_view::serve::router;
use tokio::net::TcpListener;

use crate::cli::ServeArgs;
use crate::commands::{block_on, open_store, plain, stop_signal};
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::output;
use crate::settings::Settings;

/// From one look at the store to the next, while somebody looks at a page.
const LOOK: Duration = Duration::from_secs(1);

/// Serves until stopped.
pub(super) fn serve(args: &ServeArgs, settings: &Settings) -> Result<Exit, Failure> {
    block_on(async {
        let store = open_store(settings, args.store.store.as_deref()).await?;
        let connect = connector(settings, args.redis.redis.as_deref());
        let socket = TcpListener::bind(args.listen).await.map_err(|error| {
            let (place, why) = (args.listen, plain(&error));
            Failure::usage(format!(
                "--listen {place}: cannot listen there: {why}; name another port"
            ))
        })?;
        let address = socket.local_addr().map_err(|error| {
            Failure::new(Exit::Unexpected, format!("cannot tell the address: {error}"))
        })?;
        let guard = guard_of(address, settings)?;
        let hub = Arc::new(Hub::new(store, connect));
        hub.read_on().await;
        let app = guard.protect(router(Arc::clone(&hub)));
        let mut stop = stop_signal(|| output::talk("stopping"))?;
        // Streams of events never end by themselves, so nothing waits for them.
        tokio::select! {
            never = listener::serve(socket, app, machine::listener_limits()) => match never {},
            () = hub.follow(LOOK) => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
        Ok(Exit::Done)
    })
}

/// How to reach the fleet, where anybody named its Redis: a run in one process has none.
pub(super) fn connector(settings: &Settings, flag: Option<&str>) -> Option<Connect> {
    let redis = settings.redis(flag);
    redis.given.then(|| {
        let access = redis.value;
        let connect = move || {
            let access = access.clone();
            let connecting = async move { Fleet::connect(access).await };
            Box::pin(connecting) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
        };
        Arc::new(connect) as Connect
    })
}

/// Who may look, and the line that says how.
fn guard_of(address: SocketAddr, settings: &Settings) -> Result<Guard, Failure> {
    let given = settings.serve_token();
    if address.ip().is_loopback() && given.is_none() {
        output::line(format!("http://{address}"))?;
        return Ok(Guard::by_name(address, []));
    }
    // Whoever listens everywhere is found by name.
    let port = address.port();
    let place = match address.ip().is_unspecified() {
        true => format!("{}:{port}", machine::environment().host),
        false => address.to_string(),
    };
    match given {
        // Whoever gave it knows it.
        Some(token) => {
            check_token(token)?;
            output::line(format!("http://{place}/?token=..."))?;
            Ok(Guard::with_token(token, port))
        }
        None => {
            let token = machine::random_token()?;
            output::line(format!("http://{place}/?token={token}"))?;
            output::talk(
                "whoever has this address sees all runs; put TLS in front of it where others could listen",
            );
            Ok(Guard::with_token(&token, port))
        }
    }
}

/// A token goes through addresses and cookies as it is, and is not to be guessed.
fn check_token(token: &str) -> Result<(), Failure> {
    const LEAST: usize = 16;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    if token.len() >= LEAST && token.chars().all(is_plain) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "AGRPO_SERVE_TOKEN: expected at least {LEAST} letters, digits and -._~ without a space; left out, a token \
         is drawn and shown"
    )))
}
