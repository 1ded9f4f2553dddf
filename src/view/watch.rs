//! `agrpo watch`: the status of runs, the curves of one, and the workers, in a terminal.
//!
//! Draws what it is given; the caller owns the terminal, reads keys and refreshes.

use agrpo_fleet::status::RunStatus;
use agrpo_spec::StageKind;
use ratatui::layout::Constraint::{Fill, Length, Min};
use ratatui::layout::{Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{
    Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table, TableState, Wrap,
};
use ratatui::{Frame, symbols::Marker};

use crate::text::{self, duration, number, percent};
use crate::{history::RunHistory, live::Crew, sections, statistics::mean};

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
        let workers = u16::try_from(self.crew.workers.len()).unwrap_or(6).clamp(1, 6);
        let [runs, middle, crew, keys] =
            Layout::vertical([Length(listed), Min(8), Length(workers + 2), Length(1)])
                .areas(frame.area());
        self.draw_runs(frame, runs);
        match &self.history {
            Some(history) => draw_history(frame, middle, history),
            None => self.draw_unreadable(frame, middle),
        }
        self.draw_crew(frame, crew);
        let help = " up/down: another run   q: quit";
        frame.render_widget(Line::from(help).dim(), keys);
    }

    fn draw_runs(&self, frame: &mut Frame<'_>, area: Rect) {
        let block = Block::bordered().title(" runs ");
        let runs = match &self.runs {
            Ok(runs) => runs,
            Err(why) => return frame.render_widget(wrapped(why.as_str()).block(block), area),
        };
        let share = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), percent);
        let row = |run: &RunStatus| {
            Row::new([
                run.run.short(),
                match (&run.unreadable, run.unreadable_records.len()) {
                    (Some(why), _) if run.name.is_empty() => format!("unreadable: {why}"),
                    (Some(why), _) => format!("{} unreadable: {why}", run.name),
                    (None, 0) => run.name.clone(),
                    (None, lost) => format!("{} (records that cannot be read: {lost})", run.name),
                },
                text::state(run.state),
                format!("{} of {}", run.iteration, run.iterations),
                match run.accuracy.later() {
                    Some(later) => format!("{} -> {}", share(run.accuracy.base), percent(later)),
                    None => share(run.accuracy.base),
                },
            ])
        };
        let widths = [Length(12), Fill(1), Length(10), Length(14), Length(18)];
        let head = Row::new(["run", "name", "state", "iteration", "accuracy"]).dim();
        let table = Table::new(runs.iter().map(row), widths)
            .header(head)
            .row_highlight_style(Style::new().reversed())
            .block(block);
        let mut state = TableState::new().with_selected(Some(self.chosen));
        frame.render_stateful_widget(table, area, &mut state);
    }

    /// In place of a missing history: the reason, from the list of runs.
    fn draw_unreadable(&self, frame: &mut Frame<'_>, area: Rect) {
        let chosen = self.runs.as_ref().ok().and_then(|runs| runs.get(self.chosen));
        let title = chosen.map_or(" no run ".into(), |run| format!(" run {} ", run.run.short()));
        let why = chosen.and_then(|run| run.unreadable.as_deref()).unwrap_or_default();
        frame.render_widget(wrapped(why).block(Block::bordered().title(title)), area);
    }

    fn draw_crew(&self, frame: &mut Frame<'_>, area: Rect) {
        let waiting: u64 = self.crew.waiting.iter().map(|(_, stages)| stages).sum();
        let block = Block::bordered().title(format!(" workers, stages waiting: {waiting} "));
        if let Some(why) = &self.crew.error {
            return frame.render_widget(Paragraph::new(why.as_str()).block(block), area);
        }
        let row = |worker: &agrpo_fleet::WorkerInfo| {
            let stage = match &worker.computing {
                Some(stage) => format!("{} {}", stage.run.short(), stage.key),
                None => "-".to_owned(),
            };
            let (name, device) = (worker.name.clone(), worker.device.clone());
            Row::new([name, device, worker.stages_done.to_string(), stage])
        };
        let widths = [Fill(2), Length(8), Length(8), Fill(2)];
        let table = Table::new(self.crew.workers.iter().map(row), widths);
        frame.render_widget(table.block(block), area);
    }
}

fn draw_history(frame: &mut Frame<'_>, area: Rect, history: &RunHistory) {
    let block = Block::bordered().title(format!(" {} ", history.run().config().name));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let failures = u16::try_from(history.failures.len().min(2)).unwrap_or(0);
    let [head, failed, charts] =
        Layout::vertical([Length(1), Length(2 * failures), Min(4)]).areas(inner);
    let (iteration, of) = (history.iteration(), history.run().config().training.iterations);
    let stages = text::count(history.stages.len() as u64, "stage");
    let work = duration(history.work_s());
    let partial = history.partial_evaluations();
    let partial = partial
        .last()
        .map(|partial| format!(", evaluation of {}: {partial}", text::policy(partial.iteration)));
    let partial = partial.unwrap_or_default();
    let about = format!("  iteration {iteration} of {of}, {stages}, {work} of work{partial}");
    let about = Line::from(vec![Span::from(sections::state(history)).bold(), Span::from(about)]);
    frame.render_widget(about, head);
    let lines = history.failures.iter().take(2).map(|failure| {
        let error: String = failure.error.chars().map(crate::player::shown).collect();
        Line::from(format!("failed at {}: {error}", failure.key)).red()
    });
    frame.render_widget(wrapped(lines.collect::<Vec<_>>()), failed);
    let [left, right] = Layout::horizontal([Fill(1), Fill(1)]).areas(charts);
    let reward = history.metric(StageKind::Reward, agrpo_spec::metrics::REWARD);
    let reward = reward.iter().map(|(&iteration, shards)| (iteration.into(), mean(shards)));
    draw_curve(frame, left, "reward", &reward.collect::<Vec<_>>(), number);
    let accuracy = history.evaluations.iter().filter_map(|(&iteration, evaluation)| {
        Some((iteration.into(), evaluation.results.first()?.accuracy))
    });
    draw_curve(frame, right, "accuracy", &accuracy.collect::<Vec<_>>(), percent);
}

fn wrapped<'a>(text: impl Into<Text<'a>>) -> Paragraph<'a> {
    Paragraph::new(text).wrap(Wrap { trim: true })
}

fn draw_curve(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    points: &[(f64, f64)],
    label: impl Fn(f64) -> String,
) {
    let ends = |of: fn(&(f64, f64)) -> f64| {
        let all = || points.iter().map(of).filter(|value| value.is_finite());
        match all().min_by(f64::total_cmp).zip(all().max_by(f64::total_cmp)) {
            Some((low, high)) if low < high => [low, high],
            Some((low, high)) => [low - 0.5, high + 0.5],
            None => [0.0, 1.0],
        }
    };
    let (x, y) = (ends(|point| point.0), ends(|point| point.1));
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
