//! The README of an exported model, a Hugging Face model card: its origin, and how to reproduce, sample and load it.
//!
//! States recorded facts only.

use agrpo_spec::{
    ArtifactDigest, AttendsTo, BlocksFrom, Evaluation, EvaluationResult, Family, PositionRule,
    Predicts, RunId, Sampler,
};
use agrpo_view::statistics::{Interval, interval};
use agrpo_view::text::policy;

/// The files beside the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A whole model.
    Whole,
    /// A whole model with an adapter's matrices in it.
    Merged,
    /// An adapter alone.
    Adapter,
}

/// The run that the model came out of.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its id.
    pub run: RunId,
    /// Its name.
    pub name: String,
    /// Which of its policies.
    pub iteration: u32,
    /// How many iterations it takes.
    pub iterations: u32,
    /// How its policies are measured.
    pub sampler: Sampler,
    /// What the policy, and before it the base, achieved; by iteration.
    pub evaluations: Vec<(u32, Evaluation)>,
}

/// The contents of a card.
#[derive(Clone, Debug)]
pub struct Card {
    /// The family of the model.
    pub family: Family,
    /// The files beside it.
    pub model: Model,
    /// The policy.
    pub policy: ArtifactDigest,
    /// The name of the base, where the import recorded one.
    pub base: Option<String>,
    /// The mask token.
    pub mask: i64,
    /// The token that ends a completion.
    pub end: i64,
    /// The run that made it, if known.
    pub origin: Option<Origin>,
}

impl Card {
    /// The README.
    pub fn readme(&self) -> String {
        let title = match &self.origin {
            Some(origin) => format!("{}, {}", origin.name, policy(origin.iteration)),
            None => format!("policy {}", self.policy.short()),
        };
        let head = format!("\n# {title}\n\n{}\n\n{}", self.what(), self.table());
        let origin = self.origin.as_ref();
        let results = origin.map(|origin| accuracy(origin) + &rerun(origin)).unwrap_or_default();
        [self.front(), head, results, self.sampling(), self.loading()].concat()
    }

    /// The fields that Hugging Face's pages sort by.
    fn front(&self) -> String {
        let library = if self.model == Model::Adapter { "peft" } else { "transformers" };
        // A JSON string is valid YAML, whatever characters the name contains.
        let base = |name: &String| format!("base_model: {}\n", serde_json::json!(name));
        let base = self.base.as_ref().map(base).unwrap_or_default();
        let kind = if self.is_causal() { "autoregressive" } else { "masked-diffusion" };
        let family = self.family.key();
        format!("---\nlibrary_name: {library}\n{base}tags: [{family}, {kind}, agrpo]\n---\n")
    }

    fn is_causal(&self) -> bool {
        self.family.traits().attends_to == AttendsTo::Before
    }

    fn what(&self) -> String {
        let kind = if self.is_causal() { "n autoregressive" } else { " masked diffusion" };
        let model =
            format!("{kind} language model of {}'s architecture", self.family.traits().name);
        match self.model {
            Model::Whole => format!("A{model}, trained by agrpo."),
            Model::Merged => format!(
                "A{model}, trained by agrpo as a LoRA adapter. The adapter is merged: \
                 `W + alpha / r * B A`, computed in f32 and rounded to the base's type."
            ),
            Model::Adapter => {
                format!("A LoRA adapter for a{model}, trained by agrpo. It needs its base.")
            }
        }
    }

    fn table(&self) -> String {
        let origin =
            self.origin.as_ref().map(|Origin { run, name, iteration, iterations, .. }| {
                format!("| run | `{run}` ({name}) |\n| iteration | {iteration} of {iterations} |\n")
            });
        let origin = origin.unwrap_or_default();
        format!("| | |\n|---|---|\n{origin}| policy | `{}` |\n", self.policy)
    }

    fn sampling(&self) -> String {
        if self.is_causal() {
            return format!(
                "\n## Sampling\n\nFrom left to right, as `generate` of transformers does; it was measured greedily. Token {} \
                 ends a completion; the mask, token {}, is never written.\n",
                self.end, self.mask
            );
        }
        let text = format!(
            "\n## Sampling\n\nThe model is not autoregressive, so `generate` of transformers does not \
             fit. A completion begins as masks behind the prompt (token {}); every step replaces some of \
             them by what the model predicts {}. Token {} ends it.\n",
            self.mask,
            self.where_predicted(),
            self.end
        );
        let Some(origin) = &self.origin else { return text };
        let Sampler { completion_tokens, block_tokens, steps, position, .. } = &origin.sampler;
        let position = match position {
            PositionRule::Random => "at random positions",
            PositionRule::LowConfidence => "the most probable tokens first",
            PositionRule::Entropy => "the distributions of least entropy first",
            PositionRule::Margin => "the tokens furthest ahead of the second first",
            PositionRule::LeftToRight => "the leftmost positions first",
        };
        format!(
            "{text}\nIt was measured with completions of {completion_tokens} tokens in blocks of \
             {block_tokens}, from left to right, in {steps} steps, {position}, greedily.\n"
        )
    }

    fn where_predicted(&self) -> &'static str {
        let traits = self.family.traits();
        match (traits.predicts, traits.sampling.blocks_from) {
            (Predicts::Next, _) => "for their positions, which stands one row before them",
            (Predicts::Itself, BlocksFrom::Completion) => "at their positions",
            (Predicts::Itself, BlocksFrom::Prompt) => {
                "at their positions, block by block. Blocks are counted from the prompt's first token, and a position \
                 attends to its block and those before it"
            }
        }
    }

    fn loading(&self) -> String {
        let name = self.family.traits().name;
        // An identifier of Python.
        let class = name.replace('-', "");
        let python = match (self.model, self.family.traits().code) {
            (Model::Adapter, _) => {
                "from peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base, \".\")  # base: \
                 the model that the adapter was trained on"
                    .to_owned()
            }
            (Model::Whole | Model::Merged, Some([code, hub])) => format!(
                "from transformers.dynamic_module_utils import get_class_from_dynamic_module\n\n\
                 # {name}'s own code, which transformers does not include.\n\
                 {class} = get_class_from_dynamic_module(\"{code}\", \"{hub}\")\n\
                 model = {class}.from_pretrained(\".\")"
            ),
            (Model::Whole | Model::Merged, None) => {
                "from transformers import AutoModelForCausalLM\n\n\
                 model = AutoModelForCausalLM.from_pretrained(\".\")"
                    .to_owned()
            }
        };
        let files = "`agrpo.json` has the SHA-256 of every file.";
        format!("\n## Loading\n\n```python\n{python}\n```\n\n{files}\n")
    }
}

fn accuracy(origin: &Origin) -> String {
    if origin.evaluations.is_empty() {
        return String::new();
    }
    let head = String::from(
        "\n## Accuracy\n\nOn held-out problems, with intervals of 95 % where the task has right and \
         wrong answers alone.\n\n| policy | problems | steps | accuracy | interval |\n|---|---|---|---|---|\n",
    );
    let row = |(iteration, evaluation): &(u32, Evaluation), grades: &EvaluationResult| {
        let (name, problems) = (policy(*iteration), evaluation.problems);
        let (steps, accuracy) = (grades.label(), 100.0 * grades.accuracy);
        let shown = |Interval { low, high }| format!("{:.1} to {:.1} %", 100.0 * low, 100.0 * high);
        let interval = interval(grades).map(shown).unwrap_or_default();
        format!("| {name} | {problems} | {steps} | {accuracy:.1} % | {interval} |\n")
    };
    let rows = origin.evaluations.iter();
    let rows = rows.flat_map(|one| one.1.results.iter().map(move |grades| row(one, grades)));
    head + &rows.collect::<String>()
}

fn rerun(origin: &Origin) -> String {
    let run = origin.run.short();
    format!(
        "\n## Reproducing it\n\n    agrpo run run.toml            # the same bytes, on any number of \
         workers\n    agrpo replay --run {run}   # or: every stage of a run that is stored, compared\n\n\
         `run.toml` is the run with every default explicit. Files that it names by SHA-256 are read \
         from the store, or from the paths of `--source KEY=PATH`.\n"
    )
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{Cache, Confidence, Real};

    use super::*;

    fn card() -> Card {
        let digest = ArtifactDigest::of(b"abc");
        let real = |value| Real::new(value).unwrap();
        let evaluation = br#"{"problems": 100, "results": [
            {"accuracy": 0.6, "correct": 60, "solved_by": [40, 60], "steps": 8}
        ]}"#;
        let evaluations = vec![(10, Evaluation::from_bytes(evaluation).unwrap())];
        let sampler = Sampler {
            completion_tokens: 16,
            block_tokens: 8,
            steps: 8,
            temperature: real(0.0),
            top_k: 0,
            top_p: real(1.0),
            position: PositionRule::LowConfidence,
            confidence: Confidence::Sampling,
            guidance: real(0.0),
            cache: Cache::None,
            threshold: None,
        };
        let origin = Origin {
            run: digest.to_string().parse().unwrap(),
            name: "smoke".into(),
            iteration: 10,
            iterations: 10,
            sampler,
            evaluations,
        };
        let (policy, origin) = (digest, Some(origin));
        let family = Family::Llada;
        Card { family, model: Model::Whole, policy, base: None, mask: 23, end: 22, origin }
    }

    #[test]
    fn a_card_states_the_origin_and_how_to_reproduce_it() {
        insta::assert_snapshot!(card().readme(), @r#"
        ---
        library_name: transformers
        tags: [llada, masked-diffusion, agrpo]
        ---

        # smoke, iteration 10

        A masked diffusion language model of LLaDA's architecture, trained by agrpo.

        | | |
        |---|---|
        | run | `ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad` (smoke) |
        | iteration | 10 of 10 |
        | policy | `ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad` |

        ## Accuracy

        On held-out problems, with intervals of 95 % where the task has right and wrong answers alone.

        | policy | problems | steps | accuracy | interval |
        |---|---|---|---|---|
        | iteration 10 | 100 | 8 | 60.0 % | 50.2 to 69.1 % |

        ## Reproducing it

            agrpo run run.toml            # the same bytes, on any number of workers
            agrpo replay --run ba7816bf8f01   # or: every stage of a run that is stored, compared

        `run.toml` is the run with every default explicit. Files that it names by SHA-256 are read from the store, or from the paths of `--source KEY=PATH`.

        ## Sampling

        The model is not autoregressive, so `generate` of transformers does not fit. A completion begins as masks behind the prompt (token 23); every step replaces some of them by what the model predicts at their positions. Token 22 ends it.

        It was measured with completions of 16 tokens in blocks of 8, from left to right, in 8 steps, the most probable tokens first, greedily.

        ## Loading

        ```python
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        # LLaDA's own code, which transformers does not include.
        LLaDA = get_class_from_dynamic_module("modeling_llada.LLaDAModelLM", "GSAI-ML/LLaDA-8B-Instruct")
        model = LLaDA.from_pretrained(".")
        ```

        `agrpo.json` has the SHA-256 of every file.
        "#);
    }

    #[test]
    fn an_adapter_names_its_base_and_a_bare_policy_no_run() {
        let base = Some("a: \"b\"".to_owned());
        let text = Card { model: Model::Adapter, base, origin: None, ..card() }.readme();
        assert!(text.contains("library_name: peft\nbase_model: \"a: \\\"b\\\"\"\n"), "{text}");
        assert!(text.contains("PeftModel.from_pretrained") && !text.contains("run.toml"), "{text}");
    }
}
