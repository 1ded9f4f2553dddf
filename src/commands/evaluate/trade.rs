//! What fewer unmask steps cost: how few of them the newest policy needs to be as accurate as the base at its most.
//! Compares what was measured, and guesses nothing between or beyond.

use crate::commands::prelude::{Serialize, output};

/// How few steps the newest policy needs to be as accurate as the base.
#[derive(Debug, Serialize)]
pub(super) struct Trade {
    /// The base's most steps, and its share there.
    pub(super) base_steps: u32,
    pub(super) base_accuracy: f64,
    /// The fewest steps at which the newest policy is as accurate; none if it never is or the base is never right.
    newest_steps: Option<u32>,
    newest_accuracy: Option<f64>,
    /// The newest policy's most steps, and whether more are impossible.
    most_steps: u32,
    is_most_possible: bool,
}

impl Trade {
    /// Of the measured iterations, steps and shares. Compares point estimates, whose intervals stand beside them.
    /// `tokens` is the most steps of a completion. `None` without the base or a trained policy.
    pub(super) fn of(measured: &[(u32, u32, f64)], tokens: u32) -> Option<Self> {
        let of_policy = |wanted: u32| {
            let rows = measured.iter().filter(move |(iteration, ..)| *iteration == wanted);
            rows.map(|&(_, steps, share)| (steps, share))
        };
        let (base_steps, base_accuracy) = of_policy(0).max_by_key(|(steps, _)| *steps)?;
        let last = measured.iter().map(|(iteration, ..)| *iteration).max();
        let last = last.filter(|&last| last > 0)?;
        let most_steps = of_policy(last).map(|(steps, _)| steps).max()?;
        let enough = of_policy(last)
            .filter(|(_, share)| base_accuracy > 0.0 && *share >= base_accuracy)
            .min_by_key(|(steps, _)| *steps);
        Some(Self {
            base_steps,
            base_accuracy,
            newest_steps: enough.map(|(steps, _)| steps),
            newest_accuracy: enough.map(|(_, share)| share),
            most_steps,
            is_most_possible: most_steps == tokens,
        })
    }

    pub(super) fn describe(&self) -> String {
        let Self { base_steps, base_accuracy, most_steps, .. } = *self;
        if base_accuracy == 0.0 {
            let steps = output::count(base_steps.into(), "step");
            return format!("the base is right nowhere at {steps}: nothing to match");
        }
        let needs = match (self.newest_steps, self.newest_accuracy) {
            (Some(steps), Some(share)) => format!("{steps} ({})", output::percent(share)),
            _ if self.is_most_possible => {
                format!("it does not match it even at {most_steps}, the most that there can be")
            }
            _ => format!("more than {most_steps}, the most that were evaluated"),
        };
        let base = output::percent(base_accuracy);
        format!(
            "steps that the newest policy needs to match the base at {base_steps} ({base}): {needs}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line of the trade between shares by steps of the base and of the newest policy.
    fn line(base: &[(u32, f64)], newest: &[(u32, f64)]) -> String {
        let of = |iteration: u32, cells: &[(u32, f64)]| -> Vec<_> {
            cells.iter().map(|&(steps, share)| (iteration, steps, share)).collect()
        };
        // An earlier policy is not the newest.
        let earlier = if newest.is_empty() { vec![] } else { of(3, &[(1, 0.9)]) };
        let all = [of(0, base), earlier, of(9, newest)].concat();
        Trade::of(&all, 8).map(|trade| trade.describe()).unwrap_or_default()
    }

    #[test]
    fn the_trade_says_only_what_was_measured() {
        insta::assert_snapshot!(line(&[(8, 0.3), (4, 0.2)], &[(8, 0.6), (4, 0.4)]), @"steps that the newest policy needs to match the base at 8 (30.0%): 4 (40.0%)");
        insta::assert_snapshot!(line(&[(8, 0.3)], &[(8, 0.2)]), @"steps that the newest policy needs to match the base at 8 (30.0%): it does not match it even at 8, the most that there can be");
        insta::assert_snapshot!(line(&[(4, 0.3)], &[(4, 0.2)]), @"steps that the newest policy needs to match the base at 4 (30.0%): more than 4, the most that were evaluated");
        insta::assert_snapshot!(line(&[(8, 0.0)], &[(8, 0.2)]), @"the base is right nowhere at 8 steps: nothing to match");
        assert_eq!(line(&[(8, 0.3)], &[]), "", "no update, no trade");
    }
}
