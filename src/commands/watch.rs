//! `agrpo watch`: runs at a glance in the terminal, until somebody presses q.
//!
//! Takes the terminal over and gives it back, whatever the end. Changes nothing in store or Redis.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use agrpo_view::live::{Crew, Hub};
use agrpo_view::watch::Glance;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, poll, read};

use crate::cli::WatchArgs;
use crate::commands::serve::connector;
use crate::commands::{block_on, open_store};
use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// From one look at the store to the next, and how long a key may wait for its answer.
const LOOK: Duration = Duration::from_secs(2);
const KEYS: Duration = Duration::from_millis(100);

/// What somebody wants.
enum Wish {
    Quit,
    Choose(isize),
}

/// Shows runs until somebody has seen enough.
pub(super) fn watch(args: &WatchArgs, settings: &Settings) -> Result<Exit, Failure> {
    if !std::io::stdout().is_terminal() {
        return Err(Failure::usage("standard output is no terminal, which agrpo watch draws on")
            .hint("agrpo status lists runs as text"));
    }
    block_on(async {
        let store = open_store(settings, args.store.store.as_deref()).await?;
        let chosen = match &args.run {
            Some(run) => Some(store.resolve_run(run).await?),
            None => None,
        };
        let hub = Arc::new(Hub::new(store, connector(settings, args.redis.redis.as_deref())));
        let mut glance = Glance { runs: Ok(vec![]), chosen: 0, story: None, crew: Crew::default() };
        refresh(&hub, &mut glance).await;
        if let (Some(run), Ok(runs)) = (chosen, &glance.runs) {
            glance.chosen = runs.iter().position(|one| one.run == run).unwrap_or(0);
        }
        let mut terminal = ratatui::try_init().map_err(|error| broken(&error))?;
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
    let mut looked = tokio::time::Instant::now();
    tell(hub, glance).await;
    loop {
        terminal.draw(|frame| glance.draw(frame)).map_err(|error| broken(&error))?;
        let pressed = tokio::task::spawn_blocking(wish).await;
        let pressed = pressed.map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
        match pressed.map_err(|error| broken(&error))? {
            Some(Wish::Quit) => return Ok(()),
            Some(Wish::Choose(by)) if glance.choose(by) => tell(hub, glance).await,
            Some(Wish::Choose(_)) | None => {}
        }
        if looked.elapsed() >= LOOK {
            refresh(hub, glance).await;
            tell(hub, glance).await;
            looked = tokio::time::Instant::now();
        }
    }
}

/// A key that means something, if one is pressed soon.
fn wish() -> std::io::Result<Option<Wish>> {
    if !poll(KEYS)? {
        return Ok(None);
    }
    let Event::Key(KeyEvent { code, modifiers, .. }) = read()? else { return Ok(None) };
    Ok(match code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Down | KeyCode::Char('j') => Some(Wish::Choose(1)),
        KeyCode::Up | KeyCode::Char('k') => Some(Wish::Choose(-1)),
        _ => None,
    })
}

async fn refresh(hub: &Hub, glance: &mut Glance) {
    hub.read_on().await;
    (glance.runs, glance.crew) = (hub.runs().await, hub.crew().await);
    glance.choose(0);
}

/// The story of the chosen run; where it cannot be read now, what was read of it before.
async fn tell(hub: &Hub, glance: &mut Glance) {
    let Some(run) = glance.runs.as_ref().ok().and_then(|runs| runs.get(glance.chosen)) else {
        return;
    };
    match hub.story(run.run).await {
        Ok(story) => glance.story = Some(story.read().await.clone()),
        Err(_) => glance.story = glance.story.take().filter(|story| story.run().id() == run.run),
    }
}

fn broken(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unexpected, format!("the terminal cannot be drawn on: {error}"))
}
