//! Shows the progress of a run on stderr: bars in a terminal, short lines in a log. One bar for the sft chunks, then
//! one for the iterations. Where stderr is no terminal: one line for each chunk, evaluation and iteration. The numbers
//! come from `run_summary.rs`.

use std::time::{Duration, Instant};

use agrpo_fleet::Event;
use agrpo_spec::metrics::LOSS;
use agrpo_spec::{Manifest, Run, StageKey, StageKind};
use agrpo_store::Hold;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;
use crate::run_summary::{Iteration, RunSummary};

pub(crate) struct Progress<'r> {
    run: &'r Run,
    summary: RunSummary,
    /// The current bar; hidden where lines are written instead.
    bar: ProgressBar,
    reused: u64,
    /// When this process began its first stage after sft, and when its newest update ended.
    first_stage: Option<Instant>,
    last_update: Option<Instant>,
    updates: u32,
}

impl<'r> Progress<'r> {
    /// An empty display; `summary` may hold numbers of earlier processes.
    pub(crate) fn new(run: &'r Run, summary: RunSummary) -> Self {
        Self {
            run,
            summary,
            bar: ProgressBar::hidden(),
            reused: 0,
            first_stage: None,
            last_update: None,
            updates: 0,
        }
    }

    pub(crate) fn handle(&mut self, event: &Event) {
        match event {
            Event::Opened { done, .. } => self.reused = *done,
            Event::Started { key, .. } => {
                self.report_reused();
                if key.kind != StageKind::Sft {
                    self.first_stage.get_or_insert_with(Instant::now);
                }
                self.choose_bar(*key);
            }
            Event::Held { state, by } => {
                let rest = match state {
                    Hold::Paused => "; agrpo resume continues it",
                    Hold::Cancelled => "; the stages in hand are finished",
                };
                output::talk(format!("{state} by {by}{rest}"));
            }
            Event::Resumed => output::talk("resumed"),
            Event::Settled { key, manifest, is_reused, .. } => {
                let iteration = self.summary.add(*key, manifest, *is_reused);
                if *is_reused {
                    self.reused += 1;
                    self.choose_bar(*key);
                } else {
                    self.show_stage(*key, manifest);
                }
                match iteration {
                    Some(one) if *is_reused => self.bar.set_position(one.number.into()),
                    Some(one) => self.show_iteration(&one),
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// Removes the bars and returns the numbers.
    pub(crate) fn finish(mut self) -> RunSummary {
        self.bar.finish_and_clear();
        self.report_reused();
        self.summary
    }

    /// Reports once how many stages were computed before.
    fn report_reused(&mut self) {
        if self.reused > 0 {
            let (was, is) = if self.reused == 1 { ("was", "is") } else { ("were", "are") };
            let stages = output::count(self.reused, "stage");
            output::talk(format!("{stages} {was} computed before and {is} reused"));
            self.reused = 0;
        }
    }

    /// Shows how far the run is: in the bar, or as a line.
    fn show(&self, name: &str, (position, all): (u32, u32), text: String) {
        if output::is_watched() {
            self.bar.set_position(position.into());
            self.bar.set_message(text);
        } else {
            output::talk(format!("{name} {position}/{all}  {text}"));
        }
    }

    /// Shows a chunk of sft or an evaluation.
    fn show_stage(&self, key: StageKey, manifest: &Manifest) {
        let metric = |name: &str| manifest.metrics.get(name).copied();
        if key.kind == StageKind::Sft {
            let loss = metric(LOSS).unwrap_or(f64::NAN);
            self.show("sft", (key.iteration + 1, self.run.sft_chunks()), format!("loss {loss:.4}"));
        } else if key.kind == StageKind::Evaluation {
            let policy = output::policy(key.iteration);
            let share = self.summary.accuracy.get(&key.iteration);
            if let Some(partial) = self.summary.partial_evaluation(key.iteration) {
                output::talk(format!("evaluation of {policy}  {partial}"));
            } else if let Some(share) = share {
                let accuracy = output::accuracy(*share, self.run.config().evaluation.problems);
                output::talk(format!("evaluation of {policy}  accuracy {accuracy}"));
            }
        }
    }

    fn show_iteration(&mut self, iteration: &Iteration) {
        let now = Instant::now();
        let began = self.last_update.or(self.first_stage).unwrap_or(now);
        let speed = iteration.tokens / now.duration_since(began).as_secs_f64().max(1e-3);
        self.last_update = Some(now);
        self.updates += 1;
        let spent = self.first_stage.map_or(Duration::ZERO, |first| now.duration_since(first));
        let iterations = self.run.config().training.iterations;
        let left = spent / self.updates * iterations.saturating_sub(iteration.number);
        let accuracy = &self.summary.accuracy;
        let base = accuracy.get(&0).map(|share| output::percent(*share));
        let latest = accuracy.range(1..).next_back().map(|(_, share)| output::percent(*share));
        let accuracy = output::change(base, latest);
        let mut parts = vec![];
        parts.extend(accuracy.map(|accuracy| format!("accuracy {accuracy}")));
        parts.extend(iteration.reward.map(|reward| format!("reward {reward:.3}")));
        parts.push(format!("{} left", output::short_duration(left)));
        if iteration.tokens > 0.0 {
            parts.push(format!("{speed:.0} tokens/s"));
        }
        self.show("iteration", (iteration.number, iterations), parts.join("  "));
    }

    /// Replaces the bar when the run moves from sft to iterations.
    fn choose_bar(&mut self, key: StageKey) {
        if !output::is_watched() {
            return;
        }
        let (prefix, length) = match key.kind {
            StageKind::Sft => ("sft", self.run.sft_chunks()),
            _ => ("iteration", self.run.config().training.iterations),
        };
        if self.bar.prefix() != prefix {
            self.bar.finish_and_clear();
            let style = "{spinner} {prefix} {pos}/{len} [{bar:10}] {wide_msg}";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            self.bar = output::bars().add(ProgressBar::new(length.into()));
            self.bar.set_style(style.tick_chars("-\\|/ ").progress_chars("=> "));
            self.bar.set_prefix(prefix);
            self.bar.enable_steady_tick(Duration::from_millis(200));
        }
    }
}
