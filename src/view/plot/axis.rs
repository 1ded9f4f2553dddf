//! An axis: the numbers that it can show, their positions, and its labels.
//!
//! A log axis is a linear one of logarithms to the base 2, so that all charts have one type. Numbers
//! are the chart's, positions are numbers (or their logarithms) before they are scaled to pixels. Draws nothing.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// About how many labels an axis has.
const LABELS: f64 = 6.0;

/// An axis. Its range is that of the points and, with `from_zero`, zero.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// What is counted.
    pub title: String,
    /// Equal factors, not equal differences, are equally far apart.
    pub is_log: bool,
    /// Labels are per cent of the numbers.
    pub is_percent: bool,
    /// Zero is in the range, whatever the numbers are.
    pub from_zero: bool,
    /// Where labels stand; at round numbers if empty.
    pub ticks: Vec<f64>,
}

#[derive(Clone, Debug)]
pub(super) struct Scale<'a> {
    axis: &'a Axis,
    positions: Range<f64>,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis of any numbers.
    pub fn linear(title: &str) -> Self {
        Self { title: title.to_owned(), ..Self::default() }
    }

    /// An axis of factors.
    pub fn log(title: &str, ticks: Vec<f64>) -> Self {
        Self { is_log: true, ticks, ..Self::linear(title) }
    }

    /// An axis of shares, in per cent from zero.
    pub fn share(title: &str) -> Self {
        Self { is_percent: true, from_zero: true, ..Self::linear(title) }
    }

    pub(super) fn shows(&self, number: f64) -> bool {
        number.is_finite() && (!self.is_log || number > 0.0)
    }

    fn position(&self, number: f64) -> f64 {
        if self.is_log { number.log2() } else { number }
    }

    fn number(&self, position: f64) -> f64 {
        if self.is_log { position.exp2() } else { position }
    }

    fn label(&self, number: f64) -> String {
        let (number, unit) = if self.is_percent { (number * 100.0, " %") } else { (number, "") };
        let magnitude = number.abs().max(f64::MIN_POSITIVE).log10().floor();
        if number == 0.0 {
            format!("0{unit}")
        } else if (-3.0..6.0).contains(&magnitude) {
            // Round numbers have few digits, and what lies beyond them is noise.
            #[expect(clippy::cast_possible_truncation, reason = "a few digits")]
            let decimals = (2.0 - magnitude).max(0.0) as usize;
            let text = format!("{number:.decimals$}");
            let digits = if text.contains('.') { text.trim_end_matches('0') } else { &text };
            format!("{}{unit}", digits.trim_end_matches('.'))
        } else {
            format!("{number:.0e}{unit}")
        }
    }

    pub(super) fn scale(&self, numbers: &[f64]) -> Scale<'_> {
        let positions = numbers.iter().chain(&self.ticks).filter(|&&number| self.shows(number));
        let mut positions: Vec<f64> = positions.map(|&number| self.position(number)).collect();
        if self.from_zero && !self.is_log {
            positions.push(0.0);
        }
        let low = positions.iter().copied().fold(f64::INFINITY, f64::min);
        let high = positions.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = match high - low {
            span if span > 0.0 => (low, high),
            0.0 if self.is_percent && low >= 0.0 => ((low - 0.05).max(0.0), high + 0.05),
            0.0 if self.from_zero && !self.is_log => (low, high + 1.0),
            0.0 => (low - 0.5, high + 0.5),
            _ => (0.0, 1.0),
        };
        let margin = (high - low) * 0.06;
        let is_floor = (self.from_zero || self.is_percent) && !self.is_log && low == 0.0;
        let start = if is_floor { low } else { low - margin };
        let positions = start..high + margin;
        let ticks = if self.ticks.is_empty() {
            let round = round_positions(&positions, self.is_log).into_iter();
            round.map(|position| self.number(position)).collect()
        } else {
            self.ticks.iter().copied().filter(|&tick| self.shows(tick)).collect()
        };
        Scale { axis: self, positions, ticks }
    }
}

impl Ranged for Scale<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, number: &f64, (first, last): (i32, i32)) -> i32 {
        let Range { start, end } = self.positions;
        let share = (self.axis.position(*number) - start) / (end - start);
        first + pixel(f64::from(last - first) * share)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.axis.number(self.positions.start)..self.axis.number(self.positions.end)
    }
}

impl ValueFormatter<f64> for Scale<'_> {
    fn format_ext(&self, number: &f64) -> String {
        self.axis.label(*number)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten; on a log axis, whole powers of two.
fn round_positions(range: &Range<f64>, is_log: bool) -> Vec<f64> {
    let rough = (range.end - range.start) / LABELS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let step = step.into_iter().find(|&step| step >= rough).unwrap_or(rough);
    let step = if is_log { step.ceil() } else { step };
    let first = (range.start / step).ceil();
    (0..=20).map(|n| (first + f64::from(n)) * step).take_while(|&at| at <= range.end).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "screens are small")]
pub(crate) fn pixel(position: f64) -> i32 {
    position.round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(is_log: bool, is_percent: bool, from_zero: bool) -> Axis {
        Axis { is_log, is_percent, from_zero, ..Axis::default() }
    }

    fn labels(axis: &Axis, numbers: &[f64]) -> String {
        let scale = axis.scale(numbers);
        scale.ticks.iter().map(|&tick| axis.label(tick)).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn labels_are_round() {
        let (plain, percent) = (axis(false, false, false), axis(false, true, true));
        for (axis, numbers, expected) in [
            (&percent, &[0.23, 0.5][..], "0 %, 10 %, 20 %, 30 %, 40 %, 50 %"),
            (&plain, &[0.0012, 0.0051], "0.001, 0.002, 0.003, 0.004, 0.005"),
            (&plain, &[-3.0, 3.0], "-2, 0, 2"),
            (&plain, &[2e7, 9e7], "2e7, 4e7, 6e7, 8e7"),
            (&axis(true, false, false), &[1.0, 64.0], "1, 4, 16, 64"),
            (&plain, &[7.0], "6.6, 6.8, 7, 7.2, 7.4"),
            // No share is below 0.
            (&percent, &[0.0, 0.0], "0 %, 1 %, 2 %, 3 %, 4 %, 5 %"),
            (&axis(false, true, false), &[0.0, 0.0], "0 %, 1 %, 2 %, 3 %, 4 %, 5 %"),
            (&axis(false, false, true), &[0.0], "0, 0.2, 0.4, 0.6, 0.8, 1"),
            (&plain, &[], "0, 0.2, 0.4, 0.6, 0.8, 1"),
        ] {
            assert_eq!(labels(axis, numbers), expected);
        }
    }

    #[test]
    fn given_ticks_are_kept_and_shown() {
        let axis = Axis { ticks: vec![1.0, 2.0, 8.0, -1.0], ..axis(true, false, false) };
        assert_eq!(labels(&axis, &[2.0]), "1, 2, 8");
        assert!(!axis.shows(0.0) && !axis.shows(f64::NAN) && axis.shows(0.5));
    }
}
