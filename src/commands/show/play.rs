//! Shows one completion of a rollout: its final text, or with `--play` every step towards it.
//!
//! In a terminal each step replaces the one before; elsewhere the steps follow one another, without
//! colour. How a step is drawn is defined in `agrpo-view`.

use std::io::IsTerminal;
use std::time::Duration;

use agrpo_spec::StageDigest;
use agrpo_store::Store;
use agrpo_view::player::{Look, Piece, frame, shown, written};
use agrpo_view::samples;
use agrpo_view::trajectory::Trajectory;
use crossterm::cursor::MoveUp;
use crossterm::style::Stylize;
use crossterm::terminal::{Clear, ClearType};
use tokio::time::sleep;

use crate::exit::Failure;
use crate::output;

/// Between two steps.
const PAUSE: Duration = Duration::from_millis(300);
/// Columns where there is no terminal.
const WIDTH: usize = 80;

/// How steps are shown.
#[derive(Clone, Copy)]
struct Screen {
    is_terminal: bool,
    has_colour: bool,
    width: usize,
}

/// Shows a sample of a rollout.
pub(super) async fn show(
    store: &Store,
    stage: StageDigest,
    row: usize,
    (json, play, has_colour): (bool, bool, bool),
) -> Result<(), Failure> {
    let sample = samples::of_rollout(store, stage, row).await?.ok_or_else(|| {
        Failure::usage(format!("--sample {row}: the rollout {} has fewer", stage.short()))
    })?;
    if json {
        return output::json(&sample);
    }
    let trajectory = &sample.trajectory;
    let prompt: String =
        trajectory.prompt.trim().chars().map(|c| if c == '\n' { c } else { shown(c) }).collect();
    output::line(format!("{prompt}\n"))?;
    let is_terminal = std::io::stdout().is_terminal();
    let width = crossterm::terminal::size().map_or(WIDTH, |(columns, _)| usize::from(columns));
    let width = if is_terminal { width } else { WIDTH };
    let screen = Screen { is_terminal, has_colour: is_terminal && has_colour, width };
    if play { animate(trajectory, screen).await } else { still(trajectory, screen) }
}

fn still(trajectory: &Trajectory, screen: Screen) -> Result<(), Failure> {
    let steps = trajectory.steps;
    let lines = frame(trajectory, steps, screen.width);
    output::line(text(&lines, Screen { has_colour: false, ..screen }))?;
    output::line(format!("\n{steps} steps; --play shows them one by one"))
}

async fn animate(trajectory: &Trajectory, screen: Screen) -> Result<(), Failure> {
    let mut height = 0;
    for step in 0..=trajectory.steps {
        let lines = frame(trajectory, step, screen.width);
        let mut shown = String::new();
        if screen.is_terminal && height > 0 {
            shown = format!("{}{}", MoveUp(height), Clear(ClearType::FromCursorDown));
        }
        let tokens = written(trajectory, step);
        let tokens: String = tokens.chars().take(screen.width.saturating_sub(24)).collect();
        shown.push_str(&text(&lines, screen));
        shown = format!("{shown}\nstep {step} of {}  {tokens}", trajectory.steps);
        output::line(shown)?;
        height = u16::try_from(lines.len() + 1).unwrap_or(u16::MAX);
        if screen.is_terminal {
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

fn text(lines: &[Vec<Piece>], screen: Screen) -> String {
    let piece = |piece: &Piece| match (screen.has_colour, piece.look) {
        (true, Look::Masked) => piece.text.as_str().dark_grey().to_string(),
        (true, Look::Fresh) => piece.text.as_str().black().on_yellow().to_string(),
        _ => piece.text.clone(),
    };
    let lines = lines.iter().map(|line| line.iter().map(piece).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}
