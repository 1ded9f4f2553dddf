//! `agrpo serve`: serves live pages about runs until it is stopped. Listens and prints the address. The pages are
//! defined in `agrpo-view`. Changes nothing in store or Redis.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use agrpo_view::{guard::Guard, listener, live::Hub, serve::router};
use tokio::net::TcpListener;

use super::files::plain;
use super::prelude::{Exit, Failure, Session, cannot, machine, output};
use crate::args::ServeArgs;
use crate::settings::{SERVE_TOKEN, Settings};
use crate::signals::stop_signal;

/// Between two reads of the store, while a page is open.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn serve(args: &ServeArgs, session: &Session) -> Result<Exit, Failure> {
    session.block_on(async {
        let store = session.existing_store().await?;
        let connect = session.connector();
        let socket = TcpListener::bind(args.listen).await.map_err(|error| {
            let (place, why) = (args.listen, plain(&error));
            Failure::usage(format!(
                "--listen {place}: cannot listen there: {why}; name another port"
            ))
        })?;
        let address = socket.local_addr().map_err(cannot("read the address"))?;
        let guard = guard_of(address, &session.settings)?;
        let hub = Arc::new(Hub::new(store, connect));
        hub.read_on().await;
        let app = guard.protect(router(Arc::clone(&hub)));
        let mut stop = stop_signal(|| output::talk("stopping"))?;
        // Streams of events never end by themselves, so the end does not wait for them.
        tokio::select! {
            never = listener::serve(socket, app, machine::listener_limits()) => match never {},
            () = hub.follow(INTERVAL) => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
        Ok(Exit::Done)
    })
}

/// The guard of the pages; prints the address.
fn guard_of(address: SocketAddr, settings: &Settings) -> Result<Guard, Failure> {
    let given = settings.variable(SERVE_TOKEN);
    if address.ip().is_loopback() && given.is_none() {
        output::line(format!("http://{address}"))?;
        return Ok(Guard::by_name(address, []));
    }
    // A socket on all addresses is reached by the machine's name.
    let port = address.port();
    let place = match address.ip().is_unspecified() {
        true => format!("{}:{port}", machine::environment().host),
        false => address.to_string(),
    };
    let Some(token) = given else {
        let token = machine::random_token()?;
        output::line(format!("http://{place}/?token={token}"))?;
        output::talk(
            "this address shows all runs; put TLS in front of it where the network is not trusted",
        );
        return Ok(Guard::with_token(&token, port));
    };
    // The user who set the token knows it.
    check_token(token)?;
    output::line(format!("http://{place}/?token=..."))?;
    Ok(Guard::with_token(token, port))
}

/// Refuses a token that URLs and cookies would change, or that can be guessed.
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
