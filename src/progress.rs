//! Shows the progress of a run on stderr: bars in a terminal, short lines in a log.
//!
//! One bar for the sft chunks, then one for the iterations. Where stderr is no terminal: one line for
//! each chunk, evaluation and iteration. The numbers come from `run_summary.rs`.

use std::time::{Duration, Instant};

use agrpo_fleet::local::Event;
use agrpo_spec::{Manifest, Run, StageKey, StageKind};
use agrpo_store::Hold;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;
use crate::run_summary::{Iteration, RunSummary};

/// The display of one run.
pub(crate) struct Progress {
    summary: RunSummary,
    chunks: u32,
    iterations: u32,
    problems: u32,
    /// The current bar; none where lines are written instead.
    bar: Option<ProgressBar>,
    is_watched: bool,
    reused: u64,
    /// When this process began its first stage after sft, and when its newest update ended.
    first_stage: Option<Instant>,
    last_update: Option<Instant>,
    updates: u32,
}

impl Progress {
    /// An empty display; `summary` may hold numbers of earlier processes.
    pub(crate) fn new(run: &Run, summary: RunSummary) -> Self {
        let config = run.config();
        Self {
            summary,
            chunks: run.sft_chunks(),
            iterations: config.training.iterations,
            problems: config.evaluation.problems,
            bar: None,
            is_watched: output::is_watched(),
            reused: 0,
            first_stage: None,
            last_update: None,
            updates: 0,
        }
    }

    /// Shows what happened.
    pub(crate) fn handle(&mut self, event: &Event) {
        match event {
            Event::Opened { done, .. } => self.reused = *done,
            Event::Reused { key, manifest } => {
                self.reused += 1;
                let iteration = self.summary.add(*key, manifest, true);
                self.choose_bar(*key);
                if let Some(iteration) = iteration {
                    self.set_position(u64::from(iteration.number));
                }
            }
            Event::Started { key, .. } => {
                self.report_reused();
                if key.kind != StageKind::Sft {
                    self.first_stage.get_or_insert_with(Instant::now);
                }
                self.choose_bar(*key);
            }
            Event::Held { state, by } => {
                let rest = match state {
                    Hold::Paused => "; agrpo resume lets it go on",
                    Hold::Cancelled => "; the stages in hand are finished",
                };
                output::talk(format!("{state} by {by}{rest}"));
            }
            Event::Resumed => output::talk("resumed"),
            Event::Finished { key, manifest } => {
                let iteration = self.summary.add(*key, manifest, false);
                match key.kind {
                    StageKind::Sft => self.show_chunk(key.iteration + 1, manifest),
                    StageKind::Evaluation => self.show_evaluation(key.iteration, manifest),
                    _ => {}
                }
                if let Some(iteration) = iteration {
                    self.show_iteration(&iteration);
                }
            }
        }
    }

    /// Removes the bars and returns the numbers.
    pub(crate) fn finish(mut self) -> RunSummary {
        self.clear_bar();
        self.report_reused();
        self.summary
    }

    /// Reports once how many stages were computed before.
    fn report_reused(&mut self) {
        if self.reused > 0 {
            output::talk(format!("{} stages were computed before and are reused", self.reused));
            self.reused = 0;
        }
    }

    fn show_chunk(&mut self, chunk: u32, manifest: &Manifest) {
        let loss = number(manifest, "loss").unwrap_or(f64::NAN);
        if self.is_watched {
            self.set_position(u64::from(chunk));
            self.set_message(format!("loss {loss:.3}"));
        } else {
            output::talk(format!("sft {chunk}/{}  loss {loss:.4}", self.chunks));
        }
    }

    fn show_evaluation(&mut self, iteration: u32, manifest: &Manifest) {
        let Some(share) = number(manifest, "accuracy") else { return };
        let policy =
            if iteration == 0 { "base".to_owned() } else { format!("iteration {iteration}") };
        output::talk(format!(
            "evaluation of {policy}  accuracy {}",
            output::accuracy(share, self.problems)
        ));
    }

    fn show_iteration(&mut self, iteration: &Iteration) {
        let now = Instant::now();
        let began = self.last_update.or(self.first_stage).unwrap_or(now);
        let speed = iteration.tokens / now.duration_since(began).as_secs_f64().max(1e-3);
        self.last_update = Some(now);
        self.updates += 1;
        let spent = self.first_stage.map_or(Duration::ZERO, |first| now.duration_since(first));
        let left = self.iterations.saturating_sub(iteration.number);
        let left = spent / self.updates.max(1) * left;
        let text = self.describe(iteration, speed, left);
        if self.is_watched {
            self.set_position(u64::from(iteration.number));
            self.set_message(text);
        } else {
            output::talk(format!("iteration {}/{}  {text}", iteration.number, self.iterations));
        }
    }

    fn describe(&self, iteration: &Iteration, speed: f64, left: Duration) -> String {
        let mut parts = vec![];
        match (self.summary.base_accuracy(), self.summary.latest_accuracy()) {
            (Some(base), Some(latest)) => {
                parts.push(format!(
                    "accuracy {} -> {}",
                    output::percent(base),
                    output::percent(latest)
                ));
            }
            (None, Some(latest)) => parts.push(format!("accuracy {}", output::percent(latest))),
            (_, None) => {}
        }
        parts.extend(iteration.reward.map(|reward| format!("reward {reward:.3}")));
        parts.push(format!("{} left", output::short_duration(left)));
        if iteration.tokens > 0.0 {
            parts.push(format!("{speed:.0} tokens/s"));
        }
        parts.join("  ")
    }

    /// Replaces the bar when the run moves from sft to iterations.
    fn choose_bar(&mut self, key: StageKey) {
        if !self.is_watched {
            return;
        }
        let (prefix, length) = if key.kind == StageKind::Sft {
            ("sft", self.chunks)
        } else {
            ("iteration", self.iterations)
        };
        if self.bar.as_ref().is_none_or(|bar| bar.prefix() != prefix) {
            self.clear_bar();
            let bar = output::bars().add(ProgressBar::new(u64::from(length)));
            let style = ProgressStyle::with_template(
                "{spinner} {prefix} {pos}/{len} [{bar:10}] {wide_msg}",
            );
            bar.set_style(
                style.expect("a valid template").tick_chars("-\\|/ ").progress_chars("=> "),
            );
            bar.set_prefix(prefix);
            bar.enable_steady_tick(Duration::from_millis(200));
            self.bar = Some(bar);
        }
    }

    fn set_position(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
    }

    fn set_message(&self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        }
    }

    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn number(manifest: &Manifest, name: &str) -> Option<f64> {
    manifest.metrics.get(name).copied()
}
