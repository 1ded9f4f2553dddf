//! The options of the verbs that measure: `evaluate`, `tune`, `score`, `compare`, and `bench-gpu`, which is for `make
//! gpu` and not listed. Checks what follows from a value alone; what depends on the run is checked in `commands/`.

use std::path::PathBuf;

use agrpo_spec::{
    Benchmark, Cache, EstimatorKind, GridCell, Numerics, ParseGridError, PositionRule, Protocol,
    Real,
};
use clap::{Args, ValueEnum, value_parser};

use super::options::{
    AnswerArgs, CACHES, ComputeArgs, DeviceArgs, ESTIMATORS, POSITIONS, PROTOCOLS, PolicyArg,
    RubricArg, StoreArgs, TASKS, ThreadsArgs, choice, numerics, whole,
};

/// Measure a run's policies by unmask steps, or by lengths and steps
///
/// Fewer steps write more tokens at once and save compute at the cost of accuracy; this measures how much.
/// Every evaluation is a stage: what the store holds is not computed again, and agrpo replay checks it.
/// Without --temperature decoding is greedy; with it, completions are sampled with the run's top_k and top_p,
/// and pass@n is the share of problems that at least one of n completions solves. With a threshold there is
/// no grid: steps are as many as the tokens need, and `passes` is their mean number per completion.
///
/// With --grid, each length of completions with each number of steps is a column of one table, as papers print
/// them, with the accuracy that the task's protocol reports; for Sudoku a share of blanks, which has no interval.
/// With several trained policies, or --iteration best, the row `best` has the most accurate one of each column. It
/// is chosen by the problems that it is measured on, as published tables often do.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo evaluate countdown
  agrpo evaluate 3f2a --steps 8,4,2 --problems 300 --temperature 1 --samples 8
  agrpo evaluate 3f2a --cache dual --threshold 0.9
  agrpo evaluate gsm8k --grid 128x64,256x128,512x256 --protocol d1 --iteration base,best
  agrpo evaluate 3f2a --plot steps.svg")]
pub(crate) struct EvaluateArgs {
    /// Run to measure, by the start of its id or by its name
    pub(crate) run: String,
    /// Numbers of unmask steps [default: all that fit the completion's tokens and blocks]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = steps)]
    pub(crate) steps: Vec<u32>,
    /// Tokens of a completion with unmask steps, as in 128x64,256x128; without steps, half as many as tokens
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = cell)]
    #[arg(conflicts_with_all = ["steps", "plot"])]
    pub(crate) grid: Vec<GridCell>,
    /// Tokens of a block, which are written before the next begins [default: as in the run's own evaluations]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=65_536))]
    pub(crate) block_tokens: Option<u32>,
    /// Policies to measure: base, latest, numbers of iterations, all that the store has, or the best of all for
    /// each column of a grid [default: base,latest]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = policy)]
    pub(crate) iteration: Vec<PolicyChoice>,
    /// Whose prompts and grades, for a run with [task.benchmark] [default: the run's own]
    #[arg(long, value_name = "PROTOCOL", value_parser = choice(PROTOCOLS))]
    pub(crate) protocol: Option<Protocol>,
    /// Held-out problems [default: as many as the run's own evaluations]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_048_576))]
    pub(crate) problems: Option<u32>,
    /// Stages that share the problems of each evaluation, so that more workers are busy; in cpu-portable no
    /// number depends on it [default: as in the run's own evaluations]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_048_576))]
    pub(crate) shards: Option<u32>,
    /// Sample at this temperature instead of decoding greedily
    #[arg(long, value_name = "T", requires = "samples", value_parser = temperature)]
    pub(crate) temperature: Option<Real>,
    /// Completions of a problem, where they are sampled
    #[arg(long, value_name = "N", requires = "temperature")]
    #[arg(value_parser = value_parser!(u32).range(1..=65_536))]
    pub(crate) samples: Option<u32>,
    /// Which positions a step unmasks [default: as in the run's own evaluations]
    #[arg(long, value_name = "RULE", value_parser = choice(POSITIONS))]
    pub(crate) position: Option<PositionRule>,
    /// Keys and values that later passes of a block reuse from its first [default: as in the run's own
    /// evaluations]
    #[arg(long, value_name = "CACHE", value_parser = choice(CACHES))]
    pub(crate) cache: Option<Cache>,
    /// Unmask every token of at least this probability, in as many steps as that takes [default: as in the
    /// run's own evaluations]
    #[arg(long, value_name = "P", conflicts_with = "steps", value_parser = threshold)]
    pub(crate) threshold: Option<Real>,
    /// Draw a chart of base and newest policy
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<StoreArgs>,
}

/// Policies of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PolicyChoice {
    /// The one before reinforcement learning.
    Base,
    /// The newest.
    Latest,
    /// The one after so many iterations; 0 is the base.
    Number(u32),
    /// The base and all trained ones that the store has.
    All,
    /// All trained ones that the store has, of which the best are shown.
    Best,
}

fn policy(text: &str) -> Result<PolicyChoice, &'static str> {
    let expected = "expected base, latest, all, best, or the number of an iteration";
    Ok(match text.trim() {
        "base" => PolicyChoice::Base,
        "latest" => PolicyChoice::Latest,
        "all" => PolicyChoice::All,
        "best" => PolicyChoice::Best,
        number => PolicyChoice::Number(number.parse().map_err(|_| expected)?),
    })
}

fn cell(text: &str) -> Result<GridCell, ParseGridError> {
    text.parse()
}

fn steps(text: &str) -> Result<u32, &'static str> {
    text.trim().parse().map_err(|_| "expected whole numbers with commas between, as in 8,4,2")
}

fn threshold(text: &str) -> Result<Real, &'static str> {
    let value = text.parse().ok().and_then(Real::new);
    let value = value.filter(|value| value.get() > 0.0 && value.get() <= 1.0);
    value.ok_or("expected a probability above 0 and up to 1")
}

fn temperature(text: &str) -> Result<Real, &'static str> {
    let value = text.parse().ok().and_then(Real::new).filter(|value| value.get() > 0.0);
    value.ok_or("expected a number above 0; without the option, decoding is greedy")
}

/// Measure estimators of the policy gradient, and recommend a number of samples
///
/// Samples a fresh batch of the run's training prompts and estimates its gradient again and again: for every
/// estimator and every k, with and without stratification (strata) and entropy weights (step_weights).
/// Reports how much the estimates vary, how far their mean is off the exact sum over all steps, and how long
/// they take; and which k gives the least variance times seconds, rollout included. A bias is reported if it
/// is 4 standard deviations above noise, as the table has many rows, and otherwise its upper bound; more
/// --repeats find smaller ones. Changes nothing in the store. Takes about a minute on one core for the runs
/// in jobs/runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo tune countdown
  agrpo tune 3f2a --k 1,2,4,8,24 --estimators agrpo,diffu-grpo --repeats 32
  agrpo tune 3f2a --iteration base --plot tune.svg")]
pub(crate) struct TuneArgs {
    /// Run to measure, by the start of its id or by its name
    pub(crate) run: String,
    /// Prompts of the batch [default: those of a shard, at most 8]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(2..=65_536))]
    pub(crate) prompts: Option<u32>,
    /// Estimates of each setting
    #[arg(long, value_name = "N", default_value_t = 12)]
    #[arg(value_parser = value_parser!(u32).range(4..=65_536))]
    pub(crate) repeats: u32,
    /// Numbers of samples [default: powers of two up to the run's steps or 32, and the run's own]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = samples)]
    pub(crate) k: Vec<u32>,
    /// Estimators to measure [default: all that the run's rollouts allow]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = choice(ESTIMATORS))]
    pub(crate) estimators: Vec<EstimatorKind>,
    /// Policy to measure on
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = PolicyArg::Latest)]
    pub(crate) iteration: PolicyArg,
    /// Other completions of the same prompts, and other draws
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadsArgs,
    /// Draw a chart of variance by seconds, and of what strata and weights save
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<StoreArgs>,
}

fn samples(text: &str) -> Result<u32, &'static str> {
    let k = text.trim().parse().ok().filter(|k| (1..=65_536).contains(k));
    k.ok_or("expected numbers from 1 to 65536 with commas between, as in 1,2,4,8,24")
}

/// Grade your own completions with a task's reward
///
/// Reads one JSON object a line and writes it back with `reward`, `parts`, `extracted` and `correct`
/// added; the mean goes to stderr. A row has a `completion` and a `ground_truth`: for countdown
/// {"numbers": [3, 7, 8], "target": 29} or [[3, 7, 8], 29], for sudoku the solution as 16 digits, and
/// a `question` that holds the puzzle as 16 digits with 0 for a blank; for gsm8k a number, or a text with
/// one, and for math LaTeX. Other keys are kept.
///
/// Without --rubric countdown and sudoku are graded by the rule of this project's runs. With it, all tasks
/// are graded as their authors grade, quirks included (docs/grading.md); by d1-eval and agrpo-eval, sudoku
/// also has `correct_cells` and `empty_cells`. Its accuracy is that of all cells by d1-eval, and by agrpo-eval
/// the mean of the puzzles' shares, which is the mean `reward`.
///
/// With --run, rows are those of a run file's own dataset with a `completion` added, and its rewards
/// grade them: rules, program and weights, before anything is trained by them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo '{\"ground_truth\": [[3, 7, 8], 29], \"completion\": \"7*3+8\"}' | agrpo score --task countdown -
  agrpo score --task gsm8k --rubric d1-eval completions.jsonl > graded.jsonl
  echo '{\"word\": \"cab\", \"completion\": \"abc\"}' | agrpo score --run jobs/runs/word-puzzle/word-puzzle.toml -")]
pub(crate) struct ScoreArgs {
    /// Task whose reward grades
    #[arg(long, required_unless_present = "run", value_parser = choice(TASKS))]
    pub(crate) task: Option<Benchmark>,
    /// Run file with a task of its own, whose rewards grade
    #[arg(long, value_name = "RUN.toml", conflicts_with_all = ["task", "rubric"])]
    pub(crate) run: Option<PathBuf>,
    /// Published rules to grade by
    #[arg(long, value_enum, value_name = "RUBRIC")]
    pub(crate) rubric: Option<RubricArg>,
    /// File of JSON rows; - reads standard input
    pub(crate) file: PathBuf,
}

/// Compute variants of a run over several seeds and lay them side by side
///
/// The file names a run file, seeds, and what each variant changes. What the store lacks is computed, run
/// after run; then NAME.md, NAME.svg and NAME.json are written, NAME being the file's.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agrpo compare jobs/runs/compare/countdown.toml --output docs/comparison")]
pub(crate) struct CompareArgs {
    /// Comparison file in TOML
    pub(crate) file: PathBuf,
    /// Folder that the page, the curves and the numbers are written to
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// What `agrpo bench-gpu` measures, each in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SectionArg {
    /// The checks of agrpo doctor
    Doctor,
    /// Every operation twice, under strict determinism
    Operations,
    /// Logits and gradients beside the processor's, f32 and bf16
    Parity,
    /// A tiny run, and every stage of it again
    Replay,
    /// Ratios of fresh trajectories, by settings of the libraries
    Ratio,
    /// A model of 8 billion weights: forward, rollout, gradient, memory
    Model,
    /// The same shape in PyTorch
    Reference,
    /// An update of its adapters, on the processor
    Update,
}

/// Measure a device: determinism, parity with the processor, replay, and the speed of an 8B model
///
/// Speed is that of LLaDA-8B's sizes in bfloat16, with arbitrary weights, beside PyTorch's. Every section is a process of its own with a limit of its own: one that fails, crashes or takes too long is
/// reported, and the others go on. A section that would take longer than what is left of --budget is skipped.
/// Writes one JSON document, and a page of Markdown beside it. The store is not touched.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo bench-gpu --device cuda:0 --output docs/bench/gpu.json
  agrpo bench-gpu --device cuda:0 --only model,reference --budget 120
  agrpo bench-gpu --device cpu --tiny")]
pub(crate) struct BenchGpuArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Numerics class to assume if the driver does not report the GPU's compute capability [default: cuda:90]
    #[arg(long, value_name = "CLASS", value_parser = numerics)]
    pub(crate) numerics: Option<Numerics>,
    /// Measure tiny models in f32 instead
    #[arg(long)]
    pub(crate) tiny: bool,
    /// Sections to measure [default: all]
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    pub(crate) only: Vec<SectionArg>,
    /// Seconds that all sections together may take
    #[arg(long, value_name = "SECONDS", default_value_t = 340)]
    #[arg(value_parser = value_parser!(u32).range(1..=86_400))]
    pub(crate) budget: u32,
    /// Folder of the model whose logits and gradients are compared
    #[arg(long, value_name = "DIR", default_value = "tests/golden/llada_tiny")]
    pub(crate) golden: PathBuf,
    /// Python that has PyTorch
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Script that computes the same shape in PyTorch
    #[arg(long, value_name = "FILE.py", default_value = "infra/gpu_reference.py")]
    pub(crate) reference: PathBuf,
    /// Completions sampled side by side
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=4096))]
    pub(crate) sequences: Option<u32>,
    /// Transformer blocks of the model
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024))]
    pub(crate) layers: Option<u32>,
    /// States differentiated by the clock; at most as many as completions
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=4096))]
    pub(crate) gradient_samples: Option<u32>,
    /// States of one forward and backward pass
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=4096))]
    pub(crate) gradient_states: Option<u32>,
    /// Relate operations per second to this peak instead of the device's known one
    #[arg(long, value_name = "TFLOPS", value_parser = peak)]
    pub(crate) peak: Option<f64>,
    /// File to write, and a page with the ending .md beside it; standard output without
    #[arg(long, value_name = "FILE.json", value_parser = json_name)]
    pub(crate) output: Option<PathBuf>,
    /// Measure this section in this process, and print its rows
    #[arg(long, hide = true, value_enum)]
    pub(crate) section: Option<SectionArg>,
    /// How libtorch multiplies matrices on a GPU
    #[arg(long, hide = true, default_value = "cublas")]
    pub(crate) products: String,
    /// Process that started this section, and with which it ends
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) parent: Option<u32>,
}

fn json_name(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    is_json.then_some(path).ok_or("expected a name that ends in .json")
}

fn peak(text: &str) -> Result<f64, &'static str> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    value.ok_or("expected a number above 0")
}
