//! Supervised fine-tuning as masked diffusion (Nie et al., LLaDA, arXiv 2502.09992), in chunks.
//!
//! A step takes a batch of (prompt, solution) pairs, of a drawn task or of a dataset's rows. In each, n of the
//! C completion tokens are masked, n uniform over 1..=C and spread evenly over the micro-batch, and
//! ```text
//! loss = mean over sequences of (1/n) sum over masked j of -log p_theta(x_j | the rest)
//! ```
//! which bounds the negative log-likelihood per token from above. Example and mask are functions of
//! the run's seed and the example's number, so chunks can be cut anywhere.
//!
//! A model that attends in blocks learns block diffusion (Arriola et al., arXiv 2503.09573; SDAR, Cheng et al., arXiv
//! 2510.06303): of each sequence one block that the completion has a part of is drawn uniformly, and n of that part's
//! tokens are masked, n uniform over all numbers of them. Tokens before the block stand as they are; those behind it are
//! not seen. The published training computes all blocks in one pass over a masked and a plain copy; this is a sample of
//! its sum, in which every block counts alike.
//!
//! An autoregressive model learns each token of the solution and its end from those before it, the loss being their mean:
//! nothing is masked.

use std::{collections::BTreeMap, ops::Range};

use agrpo_spec::{Artifact, Inputs, Outputs, Purpose, SftSpec, SftStart, metrics};
use tch::{Kind, Tensor};

use crate::blocks::Blocks;
use crate::error::{Result, invalid};
use crate::model::{ModelConfig, Policy, Queries};
use crate::optimizer::{AdamW, StepTaken};
use crate::problems::{Example, Problems, prompt_tokens};
use crate::tasks::noisy_solution;
use crate::tensors::{self, NamedTensors};
use crate::text::tokenizer::TaskTokenizer;
use crate::{context::Context, device::Device, threads::Threads};

pub(crate) fn execute(
    spec: &SftSpec,
    inputs: &Inputs,
    Context { device, resources, .. }: Context<'_>,
) -> Result<Outputs> {
    let threads = &resources.passes;
    let problems = Problems::open(&spec.task, None, inputs)?;
    let tokenizer = problems.tokenizer().ok_or_else(|| invalid("the task has no tokenizer"))?;
    let (policy, mut optimizer) = start(spec, inputs, tokenizer, (device, threads))?;
    let mut losses = 0.0;
    let mut last = StepTaken { grad_norm: 0.0, learning_rate: 0.0 };
    for step in spec.first_step..spec.first_step + spec.steps {
        let mut gradients = NamedTensors::new();
        threads.in_order(
            (spec.batch / spec.micro_batch) as usize,
            || policy.handles(),
            |policy, micro| {
                // Leaves of its own on the same memory.
                let policy = policy.handles();
                policy.require_grad();
                let micro = u32::try_from(micro).expect("less than the batch");
                let loss = loss(spec, &policy, (&problems, tokenizer), (step, micro))?;
                loss.backward();
                Ok((policy.gradients(), loss.double_value(&[])))
            },
            |_, (gradient, loss)| {
                tensors::add(&mut gradients, gradient);
                losses += loss;
                Ok(())
            },
        )?;
        // They stand on the memory of the policy, which moves with them.
        let (mut parameters, when) = (policy.parameters(), (step + 1, spec.total_steps));
        last = optimizer.step(&mut parameters, &gradients, &spec.optimizer, when, threads)?;
    }
    let mut files = policy.to_files()?;
    files.insert("tokenizer.json".into(), tokenizer.file.clone().into());
    let tokens = f64::from(spec.steps) * f64::from(spec.batch) * f64::from(spec.completion_tokens);
    Ok(Outputs {
        artifacts: BTreeMap::from([
            ("policy", Artifact::Folder(files)),
            ("optimizer", Artifact::Blob(optimizer.to_bytes()?.into())),
        ]),
        metrics: BTreeMap::from([
            (metrics::LOSS.into(), losses / f64::from(spec.steps)),
            (metrics::GRAD_NORM.into(), last.grad_norm),
            (metrics::LEARNING_RATE.into(), last.learning_rate),
            (metrics::STEPS.into(), f64::from(spec.steps)),
            (metrics::TOKENS.into(), tokens),
        ]),
    })
}

fn start(
    spec: &SftSpec,
    inputs: &Inputs,
    tokenizer: &TaskTokenizer,
    (device, threads): (Device, &Threads),
) -> Result<(Policy, AdamW)> {
    match &spec.start {
        SftStart::Scratch(shape) => {
            let TaskTokenizer { vocabulary, end, mask, .. } = *tokenizer;
            let tokens = prompt_tokens(&spec.task) + u64::from(spec.completion_tokens);
            let tokens = i64::try_from(tokens).expect("sequences are short");
            let config = ModelConfig::new(shape, vocabulary, end, mask, tokens);
            let policy = Policy::draw(config, shape.init_std.get(), spec.seed)?.on(device);
            let optimizer = AdamW::new(&policy.parameters());
            Ok((policy, optimizer))
        }
        SftStart::Continue { policy, optimizer } => {
            let policy = Policy::from_folder(inputs.folder(*policy)?)?.on(device);
            let optimizer =
                AdamW::read(inputs.content(*optimizer)?, &policy.parameters(), threads)?;
            Ok((policy, optimizer))
        }
    }
}

/// The solution that the step learns; a wrong one for the share of hard problems whose demonstration is noisy.
fn demonstration(spec: &SftSpec, step: u32, index: u64, example: Example) -> String {
    let luck = spec.seed.child(Purpose::SftMask, index).child(Purpose::Sample, 0).uniform(0, 0);
    let is_noisy = step >= spec.noisy_from && luck < spec.noisy_share.get();
    let hard = example.problem.filter(|_| is_noisy);
    hard.as_ref().and_then(noisy_solution).unwrap_or(example.solution)
}

/// The positions of an example's completion that are masked: at least one of all, or, where the model attends in blocks
/// of this many tokens, of one block's. `stratum` is the example's part of the spread over the micro-batch.
fn masked_positions(
    (spec, index): (&SftSpec, u64),
    (prompt_tokens, block): (usize, Option<i64>),
    stratum: u32,
) -> Vec<usize> {
    let c = spec.completion_tokens as usize;
    let seed = spec.seed.child(Purpose::SftMask, index).child(Purpose::Position, 0);
    let part = block.map_or(0..c, |len| {
        let len = usize::try_from(len).expect("sizes are positive");
        let blocks: Vec<Range<usize>> = Blocks::new(prompt_tokens, len, c).all().collect();
        let drawn = seed.below(blocks.len() as u64, 1, u32::MAX);
        blocks[usize::try_from(drawn).expect("blocks are few")].clone()
    });
    let size = u32::try_from(part.len()).expect("completions are short");
    let u = (f64::from(stratum) + seed.uniform(0, u32::MAX)) / f64::from(spec.micro_batch);
    #[expect(clippy::cast_possible_truncation, reason = "less than the part's length")]
    let count = ((u * f64::from(size)) as usize).min(part.len() - 1) + 1;
    let order = seed.permutation(size);
    order[..count].iter().map(|&position| part.start + position as usize).collect()
}

/// The loss of one micro-batch, as its share of the step's.
fn loss(
    spec: &SftSpec,
    policy: &Policy,
    (problems, tokenizer): (&Problems, &TaskTokenizer),
    (step, micro): (u32, u32),
) -> Result<Tensor> {
    let c = spec.completion_tokens as usize;
    let first = u64::from(step) * u64::from(spec.batch) + u64::from(micro * spec.micro_batch);
    let block = policy.config().attention_block;
    // One even spread of mask counts over the micro-batch.
    let spread = spec.seed.child(Purpose::SftMask, first).permutation(spec.micro_batch);
    let (mut ids, mut targets, mut weights) = (vec![], vec![], vec![]);
    for (index, stratum) in (first..).zip(spread) {
        let example = problems.example(index)?;
        let prompt = tokenizer.ids(&example.prompt)?;
        let masked = masked_positions((spec, index), (prompt.len(), block), stratum);
        ids.extend(prompt);
        let text = demonstration(spec, step, index, example);
        let mut solution = tokenizer.ids(&text)?;
        if solution.len() > c {
            return Err(invalid(format!("{text:?} is longer than {c} tokens")));
        }
        // With its end.
        let content = c.min(solution.len() + 1);
        solution.resize(c, tokenizer.end);
        let mut weight = vec![0f32; c];
        let mut seen = solution.clone();
        if policy.config().is_causal() {
            weight[..content].fill(1.0 / content as f32);
        } else {
            for &position in &masked {
                weight[position] = 1.0 / masked.len() as f32;
                seen[position] = tokenizer.mask;
            }
        }
        ids.extend(seen);
        targets.extend(solution);
        weights.extend(weight);
    }
    let batch = i64::from(spec.micro_batch);
    let device = policy.device();
    let ids_BL = Tensor::from_slice(&ids).view([batch, -1]);
    let len = i64::from(spec.completion_tokens);
    let start = ids_BL.size()[1] - len;
    let logits_BCV = policy.head(&policy.hidden(&ids_BL, &Queries::Range { start, len })?);
    let target_BC1 = Tensor::from_slice(&targets).view([batch, len, 1]).to_device(device);
    let logp_BC =
        logits_BCV.log_softmax(-1, Kind::Float).gather(2, &target_BC1, false).view([batch, len]);
    let weight_BC = Tensor::from_slice(&weights).view([batch, len]).to_device(device);
    Ok((logp_BC * weight_BC).sum(Kind::Float) * (-1.0 / f64::from(spec.batch)))
}

#[cfg(test)]
mod tests;
