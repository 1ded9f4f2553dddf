//! The kinds of estimators, and `estimator.token_mean`: what the token losses of diffu-grpo, coupled-grpo and merged-step
//! are a mean over.
//!
//! Records from before that key lack it and mean the iteration; run files that lack it mean what was published. Only readers
//! of run files fill it in, so that a record keeps its name.

use serde::{Deserialize, Serialize};

use crate::names::named;

/// The policy-gradient estimators; one file each in `stages/compute/estimator/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum EstimatorKind {
    /// Amortized GRPO (arXiv 2510.04019).
    #[default]
    Agrpo,
    /// diffu-GRPO (d1, arXiv 2504.12216): one fully masked pass.
    DiffuGrpo,
    /// coupled-GRPO (DiffuCoder, arXiv 2506.20639): complementary masks.
    CoupledGrpo,
    /// Neighbouring steps share a pass (d2-StepMerge, arXiv 2509.21474).
    MergedStep,
    /// GRPO in autoregressive order (JustGRPO, arXiv 2601.15165).
    ArGrpo,
}

named!(EstimatorKind {
    Agrpo: "agrpo",
    DiffuGrpo: "diffu-grpo",
    CoupledGrpo: "coupled-grpo",
    MergedStep: "merged-step",
    ArGrpo: "ar-grpo",
});

/// What token losses are a mean over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenMean {
    /// The tokens of all counted completions of an iteration.
    #[default]
    Iteration,
    /// The tokens of each prompt's counted completions; then over prompts, as published.
    Group,
}

impl EstimatorKind {
    /// Whether the kind's loss is a mean over tokens. Others do not read the key.
    pub fn has_token_mean(self) -> bool {
        matches!(self, Self::DiffuGrpo | Self::CoupledGrpo | Self::MergedStep)
    }

    /// The published mean; of kinds without one, what is not encoded.
    pub fn token_mean(self) -> TokenMean {
        if self.has_token_mean() { TokenMean::Group } else { TokenMean::Iteration }
    }
}

#[cfg(test)]
mod tests {
    use crate::{EstimatorKind, Run, encode};

    /// The smoke run with these keys of `[estimator]`.
    fn run(keys: &str) -> Result<Run, String> {
        let smoke = include_str!("../../../jobs/runs/smoke.toml");
        let (before, rest) = smoke.split_once("[estimator]").unwrap();
        let (_, after) = rest.split_once("[optimizer]").unwrap();
        let text =
            format!("{before}[estimator]\nk = 4\nmicro_batch = 8\n{keys}\n[optimizer]{after}");
        Run::parse(&text).map_err(|error| error.to_string())
    }

    fn last_byte(run: &Run) -> u8 {
        *encode(&run.config().estimator).last().unwrap()
    }

    #[test]
    fn the_published_mean_is_the_default_of_the_three_kinds_that_take_one() {
        for kind in EstimatorKind::ALL {
            // ar-grpo needs other rollouts; it is not what is checked here.
            if kind == EstimatorKind::ArGrpo {
                continue;
            }
            let of = |mean: &str| run(&format!("kind = \"{kind}\"\n{mean}")).unwrap();
            let (unset, group, iteration) =
                (of(""), of("token_mean = \"group\""), of("token_mean = \"iteration\""));
            assert_eq!(unset.id(), group.id(), "{kind}");
            assert_eq!(unset.id() != iteration.id(), kind.has_token_mean(), "{kind}");
            assert_eq!(last_byte(&iteration), 0);
            assert_eq!(last_byte(&group), if kind.has_token_mean() { 16 } else { 0 });
        }
    }

    #[test]
    fn a_record_from_before_the_key_keeps_its_name_and_its_mean() {
        let iteration = run("kind = \"diffu-grpo\"\ntoken_mean = \"iteration\"").unwrap();
        let mut record = serde_json::to_value(iteration.config()).unwrap();
        let written = record["estimator"].as_object_mut().unwrap().remove("token_mean");
        assert_eq!(written.unwrap(), "iteration");
        let read = Run::resolve(serde_json::from_value(record).unwrap()).unwrap();
        assert_eq!((&read, read.id()), (&iteration, iteration.id()));
        // As a run file it says what a file without the key would not mean.
        let file = toml::to_string(read.config()).unwrap();
        assert_eq!(Run::parse(&file).unwrap().id(), iteration.id());
        let group = run("kind = \"diffu-grpo\"").unwrap();
        let record = serde_json::to_value(group.config()).unwrap();
        assert_eq!(record["estimator"]["token_mean"], "group");
        assert_eq!(Run::resolve(serde_json::from_value(record).unwrap()).unwrap(), group);
    }

    #[test]
    fn another_word_is_refused_with_those_that_are_known() {
        let refused = run("token_mean = \"batch\"").unwrap_err();
        assert!(refused.contains("unknown value `batch` of `estimator.token_mean`"), "{refused}");
        assert!(refused.ends_with("expected one of iteration, group"), "{refused}");
    }
}
