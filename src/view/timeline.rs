//! The timeline of a run: a lane for each worker, a bar for each stage, marks on stages that were computed again.
//!
//! Stages that share a pixel are one bar, so the size does not grow with the run. Times are the workers' own.

use std::collections::BTreeSet;

use agrpo_spec::{StageDigest, StageKind};
use agrpo_store::Result;
use plotters::prelude::*;

use crate::history::RunHistory;
use crate::plot::{Area, Drawn, GRID, INK, canvas, colour, failed, pixel, pixels, write};

/// Pixels of all lanes together, from left to right.
const WIDTH: u32 = 960;
const LANE: i32 = 22;
const TEXT: u32 = 12;
/// Lanes at most; what other workers did is counted in a line below.
const MOST_LANES: usize = 64;
/// Pixels left of the lanes, for the workers' names.
const NAMES: i32 = 190;
/// Pixels above the lanes, for the kinds, and below them, for the hours.
const HEAD: i32 = 30;
const FOOT: i32 = 34;

/// Stages of one kind that follow each other without a visible gap.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    kind: StageKind,
    /// In pixels from the lanes' left end.
    from: f64,
    to: f64,
    /// Whether a stage among them took a second attempt, or its result was made again.
    again: bool,
}

/// The timeline as an SVG document; `None` where nothing was computed.
pub fn svg(history: &RunHistory) -> Result<Option<String>> {
    let Some((first, last)) = history.ends_ms() else { return Ok(None) };
    let span = (last - first).max(1.0);
    let right = f64::from(WIDTH) - f64::from(NAMES) - 12.0;
    let lanes = lanes(history, |unix_ms| (unix_ms - first) / span * right);
    let shown = lanes.len().min(MOST_LANES);
    let height = pixels(shown) * LANE;
    let size = (WIDTH, u32::try_from(HEAD + height + FOOT).unwrap_or(0));
    let drawn = canvas(size, |root| {
        draw_kinds(root, &lanes)?;
        draw_hours(root, span / 1e3, right, HEAD + height)?;
        let mut top = HEAD;
        for (lane, who) in lanes.iter().zip(&history.workers).take(shown) {
            write(root, &shortened(&who.worker), (8, top + 5), TEXT)?;
            lane.iter().try_for_each(|bar| draw_bar(root, bar, top))?;
            top += LANE;
        }
        Ok(())
    });
    drawn.map(Some)
}

/// The bars of every worker, in the workers' order; `at` gives pixels for a time.
fn lanes(history: &RunHistory, at: impl Fn(f64) -> f64) -> Vec<Vec<Bar>> {
    let again: BTreeSet<StageDigest> = history.recomputed.iter().map(|one| one.stage).collect();
    let mut lanes = vec![vec![]; history.workers.len()];
    for (key, done) in &history.stages {
        let began = done.started_unix_ms as f64;
        let (from, to) = (at(began), at(began + done.took_ms()));
        let again = done.attempt > 1 || again.contains(&done.stage);
        lanes[done.worker].push(Bar { kind: key.kind, from, to, again });
    }
    for lane in &mut lanes {
        lane.sort_by(|a, b| a.from.total_cmp(&b.from));
        *lane = joined(std::mem::take(lane));
    }
    lanes
}

/// Joins bars whose pixels touch. The kind that takes most of them gives the colour.
fn joined(bars: Vec<Bar>) -> Vec<Bar> {
    let mut joined: Vec<Bar> = vec![];
    for bar in bars {
        match joined.last_mut() {
            Some(last)
                if bar.from - last.to < 1.0 && bar.kind == last.kind
                    || bar.to - last.from < 1.0 =>
            {
                last.to = last.to.max(bar.to);
                last.again |= bar.again;
            }
            _ => joined.push(bar),
        }
    }
    joined
}

fn draw_bar(root: &Area<'_>, bar: &Bar, top: i32) -> Drawn {
    let (from, to) = (NAMES + pixel(bar.from), NAMES + pixel(bar.to).max(pixel(bar.from) + 1));
    let corners = [(from, top + 2), (to, top + 18)];
    root.draw(&Rectangle::new(corners, colour_of(bar.kind).filled())).map_err(failed)?;
    if bar.again {
        let middle = i32::midpoint(from, to);
        let mark = vec![(middle - 5, top), (middle + 5, top), (middle, top + 8)];
        root.draw(&Polygon::new(mark, INK.filled())).map_err(failed)?;
    }
    Ok(())
}

/// What the colours mean, for the kinds that there are.
fn draw_kinds(root: &Area<'_>, lanes: &[Vec<Bar>]) -> Drawn {
    let kinds: BTreeSet<StageKind> = lanes.iter().flatten().map(|bar| bar.kind).collect();
    let mut x = NAMES;
    for kind in kinds {
        let patch = Rectangle::new([(x, 8), (x + 12, 20)], colour_of(kind).filled());
        root.draw(&patch).map_err(failed)?;
        write(root, kind.name(), (x + 17, 9), TEXT)?;
        x += 34 + 7 * pixels(kind.name().len());
    }
    if lanes.iter().flatten().any(|bar| bar.again) {
        let mark = vec![(x, 8), (x + 10, 8), (x + 5, 16)];
        root.draw(&Polygon::new(mark, INK.filled())).map_err(failed)?;
        write(root, "a second time", (x + 16, 9), TEXT)?;
    }
    Ok(())
}

/// A line at every so many seconds, minutes or hours since the run began.
fn draw_hours(root: &Area<'_>, seconds: f64, right: f64, bottom: i32) -> Drawn {
    let (step, unit, name) = step(seconds);
    let mut at = 0.0;
    while at <= seconds {
        let x = NAMES + pixel(at / seconds * right);
        root.draw(&PathElement::new(vec![(x, HEAD - 4), (x, bottom)], GRID)).map_err(failed)?;
        write(root, &format!("{:.0} {name}", at / unit), (x - 6, bottom + 6), TEXT)?;
        at += step;
    }
    Ok(())
}

/// Seconds between two lines, seconds of the unit of their labels, and its name.
fn step(seconds: f64) -> (f64, f64, &'static str) {
    const UNITS: [(f64, &str, &[f64]); 4] = [
        (1.0, "s", &[1.0, 2.0, 5.0, 10.0, 30.0]),
        (60.0, "min", &[1.0, 2.0, 5.0, 10.0, 30.0]),
        (3600.0, "h", &[1.0, 2.0, 6.0, 12.0]),
        (86_400.0, "d", &[1.0, 3.0, 10.0]),
    ];
    let mut steps = UNITS.iter().flat_map(|&(unit, name, counts)| {
        counts.iter().map(move |count| (count * unit, unit, name))
    });
    let fits = steps.find(|(step, ..)| seconds / step <= 12.0);
    fits.unwrap_or((seconds / 10.0, 86_400.0, "d"))
}

fn colour_of(kind: StageKind) -> RGBColor {
    colour(StageKind::ALL.iter().position(|known| *known == kind).unwrap_or(0))
}

/// The end of a worker's name, which differs between workers of one host.
fn shortened(name: &str) -> String {
    const MOST: usize = 26;
    match name.chars().count() {
        ..=MOST => name.to_owned(),
        count => format!("…{}", name.chars().skip(count - MOST + 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(kind: StageKind, from: f64, to: f64) -> Bar {
        Bar { kind, from, to, again: false }
    }

    #[test]
    fn bars_that_share_pixels_are_one() {
        use StageKind::{Reward, Rollout};
        let many =
            (0..10_000).map(|n| bar(Rollout, f64::from(n) / 20.0, f64::from(n) / 20.0 + 0.04));
        assert_eq!(joined(many.collect()).len(), 1);
        let apart = vec![bar(Rollout, 0.0, 5.0), bar(Reward, 5.0, 9.0), bar(Rollout, 12.0, 13.0)];
        assert_eq!(joined(apart.clone()), apart);
        let mut marked = bar(Reward, 5.1, 5.2);
        marked.again = true;
        let both = joined(vec![bar(Rollout, 5.0, 5.1), marked]);
        assert!(both.len() == 1 && both[0].again, "a mark is never lost: {both:?}");
    }

    #[test]
    fn lines_are_round_times_and_few() {
        for seconds in [3.0, 59.0, 600.0, 86_399.0, 4e6] {
            let (step, ..) = step(seconds);
            assert!((1.0..=12.5).contains(&(seconds / step)), "{seconds}: every {step}");
        }
    }
}
