//! `agrpo watch`: the status of runs, the curves of one, and the workers, in a terminal.
//!
//! Draws what it is given; the caller owns the terminal, reads keys and refreshes.

use agrpo_fleet::status::RunStatus;
use agrpo_spec::StageKind;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table, TableState, Wrap,
};

use crate::history::RunHistory;
use crate::live::Crew;
use crate::page::{duration, number, percent};
use crate::sections;

/// Lines of the list of runs at most.
const MOST_RUNS: u16 = 8;

/// The contents of the screen.
#[derive(Debug)]
pub struct Glance {
    /// The status of every run, or why it could not be read.
    pub runs: Result<Vec<RunStatus>, String>,
    /// The index of the chosen run in that list.
    pub chosen: usize,
    /// Its history.
    pub history: Option<RunHistory>,
    /// The workers and the queue.
    pub crew: Crew,
}

impl Glance {
    /// Chooses the next run, or the one before; returns whether it is another one.
    pub fn choose(&mut self, by: isize) -> bool {
        let count = self.runs.as_ref().map_or(0, Vec::len);
        let before = self.chosen;
        self.chosen = self.chosen.saturating_add_signed(by).min(count.saturating_sub(1));
        self.chosen != before
    }

    /// Draws all of it.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let count = self.runs.as_ref().map_or(1, Vec::len);
        let listed = u16::try_from(count).unwrap_or(MOST_RUNS).clamp(1, MOST_RUNS) + 3;
        let [runs, middle, crew, keys] = Layout::vertical([
            Constraint::Length(listed),
            Constraint::Min(8),
            Constraint::Length(u16::try_from(self.crew.workers.len()).unwrap_or(6).clamp(1, 6) + 2),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.draw_runs(frame, runs);
        match &self.history {
            Some(history) => draw_history(frame, middle, history),
            None => self.draw_unreadable(frame, middle),
        }
        self.draw_crew(frame, crew);
        let help = " up/down: another run   q: quit";
        frame.render_widget(Line::from(help).add_modifier(Modifier::DIM), keys);
    }

    fn draw_runs(&self, frame: &mut Frame<'_>, area: Rect) {
        let block = Block::bordered().title(" runs ");
        let runs = match &self.runs {
            Ok(runs) => runs,
            Err(why) => {
                let message = Paragraph::new(why.as_str()).wrap(Wrap { trim: true }).block(block);
                return frame.render_widget(message, area);
            }
        };
        let share = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), percent);
        let row = |run: &RunStatus| {
            Row::new([
                run.run.short(),
                match (&run.unreadable, run.unreadable_records.len()) {
                    (Some(why), _) => {
                        format!("{} unreadable: {why}", run.name).trim_start().to_owned()
                    }
                    (None, 0) => run.name.clone(),
                    (None, lost) => format!("{} (records that cannot be read: {lost})", run.name),
                },
                serde_json::to_value(run.state)
                    .ok()
                    .and_then(|state| state.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                format!("{} of {}", run.iteration, run.iterations),
                format!("{} -> {}", share(run.accuracy.base), share(run.accuracy.latest)),
            ])
        };
        let widths = [
            Constraint::Length(12),
            Constraint::Fill(1),
            Constraint::Length(10),
            Constraint::Length(14),
            Constraint::Length(18),
        ];
        let head =
            Row::new(["run", "name", "state", "iteration", "accuracy"]).add_modifier(Modifier::DIM);
        let table = Table::new(runs.iter().map(row), widths)
            .header(head)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .block(block);
        let mut state = TableState::new().with_selected(Some(self.chosen));
        frame.render_stateful_widget(table, area, &mut state);
    }

    /// In place of a missing history: the reason, from the list of runs.
    fn draw_unreadable(&self, frame: &mut Frame<'_>, area: Rect) {
        let chosen = self.runs.as_ref().ok().and_then(|runs| runs.get(self.chosen));
        let title =
            chosen.map_or(" no run ".to_owned(), |run| format!(" run {} ", run.run.short()));
        let why = chosen.and_then(|run| run.unreadable.as_deref()).unwrap_or_default();
        let message = Paragraph::new(why).wrap(Wrap { trim: true });
        frame.render_widget(message.block(Block::bordered().title(title)), area);
    }

    fn draw_crew(&self, frame: &mut Frame<'_>, area: Rect) {
        let waiting: u64 = self.crew.waiting.iter().map(|(_, stages)| stages).sum();
        let block = Block::bordered().title(format!(" workers, {waiting} stages wait "));
        if let Some(why) = &self.crew.away {
            return frame.render_widget(Paragraph::new(why.as_str()).block(block), area);
        }
        let row = |worker: &agrpo_fleet::WorkerInfo| {
            let in_hand = worker.in_hand.as_ref();
            let in_hand = in_hand.map_or_else(
                || "-".to_owned(),
                |stage| format!("{} {}", stage.run.short(), stage.key),
            );
            Row::new([
                worker.name.clone(),
                worker.device.clone(),
                worker.stages_done.to_string(),
                in_hand,
            ])
        };
        let widths = [
            Constraint::Fill(2),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Fill(2),
        ];
        frame.render_widget(
            Table::new(self.crew.workers.iter().map(row), widths).block(block),
            area,
        );
    }
}

fn draw_history(frame: &mut Frame<'_>, area: Rect, history: &RunHistory) {
    let block = Block::bordered().title(format!(" {} ", history.run().config().name));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let failures = u16::try_from(history.failures().len().min(2)).unwrap_or(0);
    let [head, failed, charts] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2 * failures),
        Constraint::Min(4),
    ])
    .areas(inner);
    frame.render_widget(Line::from(headline(history)), head);
    let lines = history.failures().iter().take(2).map(|failure| {
        let error: String = failure.error.chars().map(crate::player::shown).collect();
        Line::from(format!("failed at {}: {error}", failure.key)).red()
    });
    let failures = Paragraph::new(lines.collect::<Vec<_>>()).wrap(Wrap { trim: true });
    frame.render_widget(failures, failed);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(charts);
    let reward = history.metric(StageKind::Reward, "reward");
    let reward: Vec<(f64, f64)> = reward
        .iter()
        .filter(|(_, shards)| !shards.is_empty())
        .map(|(iteration, shards)| (f64::from(*iteration), mean(shards)))
        .collect();
    draw_curve(frame, left, "reward", &reward, number);
    let accuracy: Vec<(f64, f64)> = history
        .evaluations()
        .iter()
        .filter_map(|(iteration, one)| Some((f64::from(*iteration), one.results.first()?.accuracy)))
        .collect();
    draw_curve(frame, right, "accuracy", &accuracy, percent);
}

fn headline(history: &RunHistory) -> Vec<Span<'static>> {
    let config = history.run().config();
    let spent: f64 = history.stages().values().map(|done| done.took_ms() / 1e3).sum();
    vec![
        Span::from(sections::state(history)).add_modifier(Modifier::BOLD),
        Span::from(format!(
            "  iteration {} of {}, {} stages, {} of work",
            history.iteration(),
            config.training.iterations,
            history.stages().len(),
            duration(spent)
        )),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a count of shards")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn draw_curve(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    points: &[(f64, f64)],
    label: impl Fn(f64) -> String,
) {
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        let all: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        let low = all.iter().copied().min_by(f64::total_cmp)?;
        let high = all.iter().copied().max_by(f64::total_cmp)?;
        Some(if low < high { [low, high] } else { [low - 0.5, high + 0.5] })
    };
    let x = ends(&mut points.iter().map(|(x, _)| *x)).unwrap_or([0.0, 1.0]);
    let y = ends(&mut points.iter().map(|(_, y)| *y)).unwrap_or([0.0, 1.0]);
    let line = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(Style::new().cyan())
        .data(points);
    let last = points.last().map_or_else(String::new, |(_, y)| format!(" {}", label(*y)));
    let chart = Chart::new(vec![line])
        .block(Block::new().title(format!("{title}{last}")))
        .x_axis(Axis::default().bounds(x).labels(x.map(|x| format!("{x:.0}"))))
        .y_axis(Axis::default().bounds(y).labels(y.map(label)));
    frame.render_widget(chart, area);
}
