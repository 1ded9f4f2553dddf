//! Folds log lines that repeat, so that no loop can flood the log. In a window of half a minute, the same line and the
//! lines from one place in the code pass a limited number of times; the rest are counted and reported as one line when
//! the window ends. Errors and warnings have the lowest limits: lines that a user asked for have higher ones. Drops no
//! line without counting it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use agrpo_store::Clock;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::format;

/// The target of lines about folded lines, which are never folded.
pub(super) const TARGET: &str = "agrpo::folded";
/// Milliseconds of a window.
const WINDOW: u64 = 30_000;
/// Different lines that are counted separately in a window; more are bounded by the limit of their call site.
const LINES: usize = 4096;
/// Most characters of a folded line that are repeated; no word of it is cut.
const SHOWN: usize = 120;

/// How often the same line, and any line from one call site, passes in a window.
fn limits(level: Level) -> (u32, u32) {
    match level {
        Level::ERROR | Level::WARN => (5, 50),
        Level::INFO => (20, 1000),
        _ => (1000, 10_000),
    }
}

/// The layer. Clones share their counts.
#[derive(Clone)]
pub(super) struct Fold {
    clock: Clock,
    window: Arc<Mutex<Window>>,
}

impl Fold {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, window: Arc::default() }
    }

    /// Reports what was folded up to now.
    pub(super) fn end(&self) {
        report(&self.with(|window| window.turn((self.clock)())));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Window) -> T) -> T {
        act(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn report(folded: &[String]) {
    for line in folded {
        tracing::warn!(target: TARGET, "{line}");
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Fold {
    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if metadata.target() == TARGET {
            return true;
        }
        let mut text = String::new();
        // A value that cannot be formatted is left out.
        let _written = format::for_people().format_fields(Writer::new(&mut text), event);
        let span = context.event_span(event).map(|span| span.id().into_u64());
        let callsite = hash(&metadata.callsite());
        let (passes, folded) = self.with(|window| {
            window.note((self.clock)(), limits(*metadata.level()), callsite, (span, &text))
        });
        // Without the lock: these lines pass through this layer too.
        report(&folded);
        passes
    }
}

fn hash(of: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The lines since the window began.
#[derive(Default)]
struct Window {
    begin: u64,
    lines: BTreeMap<u64, u32>,
    callsites: BTreeMap<u64, Callsite>,
}

#[derive(Default)]
struct Callsite {
    passed: u32,
    folded: u64,
    /// The first line that was folded.
    text: String,
}

impl Window {
    /// Whether a line passes, and the reports that come before it.
    fn note(
        &mut self,
        now: u64,
        (same, any): (u32, u32),
        callsite: u64,
        line: (Option<u64>, &str),
    ) -> (bool, Vec<String>) {
        // A clock that was set back also begins a window.
        let is_over = now < self.begin || now - self.begin >= WINDOW;
        let folded = if is_over { self.turn(now) } else { vec![] };
        let key = hash(&(callsite, line));
        let is_known = self.lines.len() < LINES || self.lines.contains_key(&key);
        let repeats = if is_known { self.lines.entry(key).or_default() } else { &mut 0 };
        let callsite = self.callsites.entry(callsite).or_default();
        if *repeats < same && callsite.passed < any {
            *repeats += 1;
            callsite.passed += 1;
            return (true, folded);
        }
        if callsite.folded == 0 {
            callsite.text = beginning(line.1);
        }
        callsite.folded += 1;
        (false, folded)
    }

    /// Ends the window and begins the next.
    fn turn(&mut self, now: u64) -> Vec<String> {
        let seconds = now.saturating_sub(self.begin).div_ceil(1000);
        self.begin = now;
        self.lines.clear();
        let callsites = std::mem::take(&mut self.callsites).into_values();
        let report = |Callsite { folded, text, .. }: Callsite| {
            format!("... {} more like this in the last {seconds} s: {text}", grouped(folded))
        };
        callsites.filter(|callsite| callsite.folded > 0).map(report).collect()
    }
}

/// The first words of a line, with digests cut short.
fn beginning(line: &str) -> String {
    let mut text = String::new();
    for word in line.split_whitespace() {
        let word = format::short(word);
        let space = if text.is_empty() { "" } else { " " };
        if text.chars().count() + space.len() + word.chars().count() > SHOWN {
            text.push_str(" ...");
            break;
        }
        text.extend([space, &word]);
    }
    text
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let (head, tail) = digits.split_at(digits.len() % 3);
    let groups = tail.as_bytes().chunks(3).map(String::from_utf8_lossy);
    let head = (!head.is_empty()).then_some(head.into());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARN: (u32, u32) = (5, 50);

    fn passed(window: &mut Window, now: u64, lines: impl IntoIterator<Item = String>) -> usize {
        lines.into_iter().filter(|line| window.note(now, WARN, 1, (None, line)).0).count()
    }

    #[test]
    fn a_line_that_repeats_is_counted_and_reported_once_a_window() {
        let mut window = Window::default();
        let flood = || (0..1_239).map(|_| "the table is full error=\"x\"".to_owned());
        assert_eq!(passed(&mut window, 100_000, flood()), 5);
        assert!(window.note(100_001, WARN, 2, (None, "another place")).0);
        let (passes, folded) =
            window.note(130_000, WARN, 1, (None, "the table is full error=\"x\""));
        assert!(passes);
        assert_eq!(
            folded,
            ["... 1,234 more like this in the last 30 s: the table is full error=\"x\""]
        );
        assert!(window.turn(160_000).is_empty(), "what passed is not reported again");
    }

    #[test]
    fn a_folded_line_is_cut_between_words_and_never_in_a_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let line =
            format!("not stored run={digest} stage=\"{digest}\": the store of {}", "x".repeat(80));
        assert_eq!(
            beginning(&line),
            "not stored run=0123456789ab stage=\"0123456789ab\": the store of ..."
        );
        assert_eq!(beginning("a  line\nof words"), "a line of words");
    }

    #[test]
    fn lines_that_differ_are_bounded_by_their_call_site() {
        let mut window = Window::default();
        let varied = |n: u32| (0..n).map(|n| format!("trying again pause={n}"));
        assert_eq!(passed(&mut window, 1_000_000, varied(10_000)), 50);
        assert_eq!(window.turn(1_030_000).len(), 1);
        let (lines, callsites) = (window.lines.len(), window.callsites.len());
        assert_eq!((lines, callsites), (0, 0), "a window ends empty");
        passed(&mut window, 1_030_001, varied(100_000));
        assert!(window.lines.len() <= LINES);
    }

    #[test]
    fn one_line_in_many_spans_is_many_lines() {
        let mut window = Window::default();
        let passes = (0..40).filter(|span| window.note(1, WARN, 1, (Some(*span), "computing")).0);
        assert_eq!(passes.count(), 40);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_hold_lines_for_ever() {
        let mut window = Window::default();
        let flood = || (0..100).map(|_| "full".to_owned());
        assert_eq!(passed(&mut window, 90_000_000, flood()), 5);
        let (passes, folded) = window.note(1_000, WARN, 1, (None, "full"));
        assert!(passes);
        assert_eq!(folded, ["... 95 more like this in the last 0 s: full"]);
    }
}
