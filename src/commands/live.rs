//! `agrpo serve`: serves live pages about runs until it is stopped, and prints the address. `agrpo watch`: shows runs
//! in the terminal until the user presses q; takes over the terminal and restores it in every case. Pages and screen
//! are defined in `agrpo-view`. Changes nothing in store or Redis.

use std::{io::IsTerminal, net::SocketAddr, sync::Arc, time::Duration};

use agrpo_view::live::{Crew, Hub};
use agrpo_view::{guard::Guard, listener, serve::router, watch::Glance};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, poll, read};
use tokio::net::TcpListener;

use super::prelude::{Exit, Failure, Result, Session, cannot, machine, output};
use super::{files::plain, resolve};
use crate::args::{ServeArgs, WatchArgs};
use crate::settings::{SERVE_TOKEN, Settings};
use crate::signals::stop_signal;

/// Between two reads of the store, while a page is open, and while a terminal shows runs.
const OF_PAGES: Duration = Duration::from_secs(1);
const OF_TERMINAL: Duration = Duration::from_secs(2);
/// The longest wait for a key.
const KEYS: Duration = Duration::from_millis(100);

pub(super) fn serve(args: &ServeArgs, session: &Session) -> Result<Exit> {
    session.on_store(async |store| {
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
            () = hub.follow(OF_PAGES) => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
        Ok(Exit::Done)
    })
}

/// The guard of the pages; prints the address.
fn guard_of(address: SocketAddr, settings: &Settings) -> Result<Guard> {
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
fn check_token(token: &str) -> Result<()> {
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

enum Action {
    Quit,
    Choose(isize),
}

pub(super) fn watch(args: &WatchArgs, session: &Session) -> Result<Exit> {
    if !std::io::stdout().is_terminal() {
        return Err(Failure::usage("standard output is no terminal, which agrpo watch draws on")
            .hint("agrpo status lists runs as text"));
    }
    session.on_store(async |store| {
        let chosen = resolve::run(&store, args.run.as_deref()).await?;
        let hub = Arc::new(Hub::new(store, session.connector()));
        let mut glance =
            Glance { runs: Ok(vec![]), chosen: 0, history: None, crew: Crew::default() };
        refresh(&hub, &mut glance).await;
        if let (Some(run), Ok(runs)) = (chosen, &glance.runs) {
            glance.chosen = runs.iter().position(|one| one.run == run).unwrap_or(0);
        }
        let mut terminal = ratatui::try_init().map_err(cannot("draw on the terminal"))?;
        let ended = show(&hub, &mut glance, &mut terminal).await;
        ratatui::restore();
        ended.map(|()| Exit::Done)
    })
}

async fn show(
    hub: &Arc<Hub>,
    glance: &mut Glance,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<()> {
    let mut refreshed = tokio::time::Instant::now();
    load_history(hub, glance).await;
    loop {
        terminal.draw(|frame| glance.draw(frame)).map_err(cannot("draw on the terminal"))?;
        let pressed = tokio::task::spawn_blocking(action).await.map_err(cannot("read a key"))?;
        match pressed.map_err(cannot("read a key"))? {
            Some(Action::Quit) => return Ok(()),
            Some(Action::Choose(by)) if glance.choose(by) => load_history(hub, glance).await,
            Some(Action::Choose(_)) | None => {}
        }
        if refreshed.elapsed() >= OF_TERMINAL {
            refresh(hub, glance).await;
            load_history(hub, glance).await;
            refreshed = tokio::time::Instant::now();
        }
    }
}

/// The action of the next key, if one is pressed soon.
fn action() -> std::io::Result<Option<Action>> {
    if !poll(KEYS)? {
        return Ok(None);
    }
    let Event::Key(KeyEvent { code, modifiers, .. }) = read()? else { return Ok(None) };
    Ok(match code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Action::Quit),
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Action::Quit),
        KeyCode::Down | KeyCode::Char('j') => Some(Action::Choose(1)),
        KeyCode::Up | KeyCode::Char('k') => Some(Action::Choose(-1)),
        _ => None,
    })
}

async fn refresh(hub: &Hub, glance: &mut Glance) {
    hub.read_on().await;
    (glance.runs, glance.crew) = (hub.runs().await, hub.crew().await);
    glance.choose(0);
}

/// Loads the history of the chosen run; keeps the old one while it cannot be read.
async fn load_history(hub: &Hub, glance: &mut Glance) {
    let Some(run) = glance.runs.as_ref().ok().and_then(|runs| runs.get(glance.chosen)) else {
        return;
    };
    match hub.history(run.run).await {
        Ok(history) => glance.history = Some(history.read().await.clone()),
        Err(_) => {
            glance.history = glance.history.take().filter(|history| history.run().id() == run.run);
        }
    }
}
