//! `agrpo watch`: shows runs in the terminal until the user presses q. Takes over the terminal and restores it in
//! every case. Changes nothing in store or Redis.

use std::{io::IsTerminal, sync::Arc, time::Duration};

use agrpo_view::live::{Crew, Hub};
use agrpo_view::watch::Glance;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, poll, read};

use super::prelude::{Exit, Failure, Session, cannot};
use super::resolve;
use crate::args::WatchArgs;

/// Between two reads of the store, and the longest wait for a key.
const INTERVAL: Duration = Duration::from_secs(2);
const KEYS: Duration = Duration::from_millis(100);

/// What a key asks for.
enum Action {
    Quit,
    Choose(isize),
}

pub(super) fn watch(args: &WatchArgs, session: &Session) -> Result<Exit, Failure> {
    if !std::io::stdout().is_terminal() {
        return Err(Failure::usage("standard output is no terminal, which agrpo watch draws on")
            .hint("agrpo status lists runs as text"));
    }
    session.block_on(async {
        let store = session.existing_store().await?;
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
) -> Result<(), Failure> {
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
        if refreshed.elapsed() >= INTERVAL {
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
