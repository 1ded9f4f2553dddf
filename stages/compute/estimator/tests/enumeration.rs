//! Every trajectory of a toy with its exact probability, as a differentiable function of the weights.
//!
//! Written against the sampler's description, not with the estimators' code: a step draws a token at
//! every masked position of the block, and its position rule chooses which are written. The chance of
//! an action is summed over all joint draws, also over the tokens that are thrown away.

use std::{collections::BTreeMap, ops::Range};

use agrpo_spec::{EstimatorConfig, Family, PositionRule, Sampler, Seed};
use tch::{Kind, Tensor};

use super::{MASK, PROMPT, estimator, gradient_of, take_gradient};
use crate::estimator::{Batch, Policies, Worth};
use crate::model::{Policy, Queries};
use crate::trajectories::{NEVER, Trajectories};

/// A step's outcome: the completion before it, and what it wrote where.
type Action = (Vec<i64>, Vec<(usize, i64)>);

/// All trajectories of a sampler.
pub(super) struct Enumeration {
    pub(super) trajectories: Trajectories,
    /// One a trajectory; they sum to 1.
    pub(super) probability_R: Tensor,
    /// An arbitrary reward for each.
    pub(super) rewards: Vec<f64>,
    pub(super) sampler: Sampler,
}

/// Log-probabilities of every real token at every position of every completion, masked or not.
struct Table {
    /// Differentiable, one row a completion, in the order of their numbers.
    logp_SCV: Tensor,
    values: Vec<f64>,
    tokens: usize,
}

/// The completion's number among all of them, and its place in the table.
fn number(completion: &[i64]) -> usize {
    completion.iter().fold(0, |n, &id| n * 4 + usize::try_from(id).unwrap())
}

impl Table {
    fn new(policy: &Policy, sampler: &Sampler) -> Self {
        let tokens = sampler.completion_tokens as usize;
        let all = (0..4usize.pow(sampler.completion_tokens)).flat_map(|n| {
            let digit = move |place: usize| {
                i64::try_from(n / 4usize.pow(u32::try_from(place).unwrap()) % 4)
            };
            PROMPT.into_iter().chain((0..tokens).rev().map(move |place| digit(place).unwrap()))
        });
        let ids: Vec<i64> = all.collect();
        let length = i64::try_from(PROMPT.len() + tokens).unwrap();
        let ids_SL = Tensor::from_slice(&ids).view([-1, length]);
        let logits_SLV = policy.head(&policy.hidden(&ids_SL, &Queries::All).unwrap());
        let prompt = i64::try_from(PROMPT.len()).unwrap();
        // The mask is the last id, and is never drawn.
        let real_SCV = logits_SLV.narrow(1, prompt, length - prompt).narrow(2, 0, MASK);
        let logp_SCV = (real_SCV / sampler.temperature.get()).log_softmax(-1, Kind::Double);
        let values = crate::tensors::numbers::<f64>(&logp_SCV).unwrap();
        Self { logp_SCV, values, tokens }
    }

    fn cell(&self, completion: &[i64], position: usize, token: i64) -> usize {
        (number(completion) * self.tokens + position) * 3 + usize::try_from(token).unwrap()
    }

    fn logp(&self, completion: &[i64], position: usize, token: i64) -> f64 {
        self.values[self.cell(completion, position, token)]
    }

    fn entropy(&self, completion: &[i64], position: usize) -> f64 {
        -(0..3).map(|v| self.logp(completion, position, v)).map(|p| p.exp() * p).sum::<f64>()
    }

    fn margin(&self, completion: &[i64], position: usize) -> f64 {
        let mut p = [0, 1, 2].map(|v| self.logp(completion, position, v).exp());
        p.sort_by(f64::total_cmp);
        p[2] - p[1]
    }
}

/// Every way to give each of `n` places one of three tokens.
fn joint_draws(n: usize) -> Vec<Vec<i64>> {
    (0..n).fold(vec![vec![]], |draws, _| {
        let longer = |draw: Vec<i64>| (0..3).map(move |v| [&draw[..], &[v]].concat());
        draws.into_iter().flat_map(longer).collect()
    })
}

/// Every set of `count` of the places 0..n.
fn subsets(n: usize, count: usize) -> Vec<Vec<usize>> {
    let members = |bits: usize| (0..n).filter(|place| bits >> place & 1 == 1).collect::<Vec<_>>();
    (0..1usize << n).map(members).filter(|set| set.len() == count).collect()
}

/// The places with the `count` highest scores; of equal scores the one further left.
fn highest(scores: &[f64], count: usize) -> Vec<usize> {
    let beats = |i: usize, j: usize| scores[i] > scores[j] || scores[i] == scores[j] && i < j;
    let rank = |j: usize| (0..scores.len()).filter(|&i| i != j && beats(i, j)).count();
    (0..scores.len()).filter(|&j| rank(j) < count).collect()
}

/// One way to come to an action: the chance of these positions given the draws, and the draws' cells.
struct Term {
    action: usize,
    chance: f64,
    cells: Vec<usize>,
}

/// The actions met so far, by number, and the terms that their chances are sums of.
struct Walk<'a> {
    table: Table,
    sampler: &'a Sampler,
    eos: i64,
    /// Whether one end-of-sequence ends a completion, and not a block of them.
    ends_at_any: bool,
    /// The block that each step writes in, and how many tokens.
    plan: Vec<(Range<usize>, usize)>,
    numbers: BTreeMap<Action, usize>,
    from_state: BTreeMap<Vec<i64>, Vec<Action>>,
    terms: Vec<Term>,
    found: Vec<Path>,
}

/// A trajectory under way.
#[derive(Clone)]
struct Path {
    completion: Vec<i64>,
    steps: Vec<i64>,
    entropies: Vec<f64>,
    logps: Vec<f64>,
    actions: Vec<usize>,
}

/// SDAR counts blocks from the prompt, and Dream spreads a block's tokens over a grid of times; others write equally many
/// tokens in every step.
fn plan(family: Family, sampler: &Sampler) -> Vec<(Range<usize>, usize)> {
    let [tokens, block, steps] =
        [sampler.completion_tokens, sampler.block_tokens, sampler.steps].map(|n| n as usize);
    let steps = steps / (tokens / block);
    let mut end = if family == Family::Sdar { block - PROMPT.len() % block } else { block };
    let (mut plan, mut start) = (vec![], 0);
    while start < tokens {
        end = end.min(tokens);
        let mut masked = end - start;
        for step in 0..steps {
            let time = |step: usize| 1.0 - 0.999 * step as f64 / steps as f64;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
            let count = match family {
                Family::Dream if step + 1 == steps => masked,
                Family::Dream => {
                    (masked as f64 * (1.0 - time(step + 1) / time(step))).floor() as usize
                }
                _ => (block / steps).min(masked),
            };
            if count > 0 {
                plan.push((start..end, count));
                masked -= count;
            }
        }
        (start, end) = (end, end + block);
    }
    plan
}

impl Walk<'_> {
    /// Every action that a step can take from a state, each with its terms.
    fn actions(
        &mut self,
        state: &[i64],
        block: std::ops::Range<usize>,
        count: usize,
    ) -> Vec<Action> {
        if let Some(known) = self.from_state.get(state) {
            return known.clone();
        }
        let masked: Vec<usize> = block.filter(|&position| state[position] == MASK).collect();
        let mut known = vec![];
        for draw in joint_draws(masked.len()) {
            let logp = |place: usize| self.table.logp(state, masked[place], draw[place]);
            let places = 0..masked.len();
            let sets = match self.sampler.position {
                PositionRule::Random => subsets(masked.len(), count),
                PositionRule::LowConfidence => {
                    vec![highest(&places.map(logp).collect::<Vec<_>>(), count)]
                }
                PositionRule::Entropy => {
                    let score = |place: usize| -self.table.entropy(state, masked[place]);
                    vec![highest(&places.map(score).collect::<Vec<_>>(), count)]
                }
                PositionRule::Margin => {
                    let score = |place: usize| self.table.margin(state, masked[place]);
                    vec![highest(&places.map(score).collect::<Vec<_>>(), count)]
                }
                PositionRule::LeftToRight => vec![places.take(count).collect()],
            };
            let chance = 1.0 / sets.len() as f64;
            let drawn = masked.iter().zip(&draw);
            let cells = drawn.map(|(&position, &token)| self.table.cell(state, position, token));
            let cells: Vec<usize> = cells.collect();
            for set in sets {
                let wrote = set.iter().map(|&place| (masked[place], draw[place])).collect();
                let action: Action = (state.to_vec(), wrote);
                let new = self.numbers.len();
                let number = *self.numbers.entry(action.clone()).or_insert_with(|| {
                    known.push(action);
                    new
                });
                self.terms.push(Term { action: number, chance, cells: cells.clone() });
            }
        }
        self.from_state.insert(state.to_vec(), known.clone());
        known
    }

    fn walk(&mut self, path: Path, step: usize) {
        let block_of = |step: usize| self.plan.get(step).map(|(block, _)| block.clone());
        let before =
            step.checked_sub(1).and_then(block_of).filter(|of| block_of(step).as_ref() != Some(of));
        let ended = before.is_some_and(|block| {
            let mut tokens = path.completion[block].iter().map(|&id| id == self.eos);
            if self.ends_at_any { tokens.any(|is_end| is_end) } else { tokens.all(|is_end| is_end) }
        });
        let Some((block, count)) = self.plan.get(step).cloned().filter(|_| !ended) else {
            return self.found.push(path);
        };
        for action in self.actions(&path.completion, block, count) {
            let mut next = path.clone();
            next.actions.push(self.numbers[&action]);
            for &(position, token) in &action.1 {
                next.completion[position] = token;
                next.steps[position] = i64::try_from(step).unwrap();
                next.entropies[position] = self.table.entropy(&path.completion, position);
                next.logps[position] = self.table.logp(&path.completion, position, token);
            }
            self.walk(next, step + 1);
        }
    }

    /// The probability of every action: the sum over its terms of the product of their draws'.
    fn probabilities(&self) -> Tensor {
        let tokens = self.table.tokens;
        let none = self.table.values.len();
        let padded = self.terms.iter().flat_map(|term| {
            term.cells.iter().copied().chain(std::iter::repeat(none)).take(tokens)
        });
        let cells: Vec<i64> = padded.map(|cell| i64::try_from(cell).unwrap()).collect();
        let actions: Vec<i64> =
            self.terms.iter().map(|term| i64::try_from(term.action).unwrap()).collect();
        let chances: Vec<f64> = self.terms.iter().map(|term| term.chance).collect();
        let certain = Tensor::from_slice(&[0.0]);
        let logp = Tensor::cat(&[self.table.logp_SCV.flatten(0, -1), certain], 0);
        let drawn_KC = logp.index_select(0, &Tensor::from_slice(&cells));
        let drawn_KC = drawn_KC.view([-1, i64::try_from(tokens).unwrap()]);
        let term_K = drawn_KC.sum_dim_intlist(-1, false, Kind::Double).exp();
        let none_A = vec![0.0; self.numbers.len()];
        Tensor::from_slice(&none_A).index_add(
            0,
            &Tensor::from_slice(&actions),
            &(term_K * Tensor::from_slice(&chances)),
        )
    }
}

impl Enumeration {
    pub(super) fn new(policy: &Policy, sampler: &Sampler) -> Self {
        policy.require_grad();
        let tokens = sampler.completion_tokens as usize;
        let mut walk = Walk {
            table: Table::new(policy, sampler),
            sampler,
            eos: policy.config().eos_token_id,
            ends_at_any: policy.config().family == Family::Sdar,
            plan: plan(policy.config().family, sampler),
            numbers: BTreeMap::new(),
            from_state: BTreeMap::new(),
            terms: vec![],
            found: vec![],
        };
        let start = Path {
            completion: vec![MASK; tokens],
            steps: vec![NEVER; tokens],
            entropies: vec![0.0; tokens],
            logps: vec![0.0; tokens],
            actions: vec![],
        };
        walk.walk(start, 0);
        let certain = Tensor::from_slice(&[1.0]);
        let probability = Tensor::cat(&[walk.probabilities(), certain], 0);
        let steps = walk.plan.len();
        let padded = walk.found.iter().flat_map(|path| {
            path.actions.iter().copied().chain(std::iter::repeat(walk.numbers.len())).take(steps)
        });
        let actions: Vec<i64> = padded.map(|action| i64::try_from(action).unwrap()).collect();
        let taken_RT = probability.index_select(0, &Tensor::from_slice(&actions));
        let taken_RT = taken_RT.view([-1, i64::try_from(steps).unwrap()]);
        let probability_R = taken_RT.prod_dim_int(1, false, Kind::Double);
        let trajectories = trajectories(&mut walk.found, walk.eos);
        let reward = |row| reward(trajectories.completion(row));
        let rewards = (0..trajectories.rows).map(reward).collect();
        Self { trajectories, probability_R, rewards, sampler: sampler.clone() }
    }

    /// The gradient of E[reward - baseline], by automatic differentiation of the sum itself.
    pub(super) fn exact_gradient(&self, policy: &Policy, baseline: f64) -> Tensor {
        // A graph serves one backward pass, so this one is made for it.
        let graph = Self::new(policy, &self.sampler);
        let value_R = Tensor::from_slice(&self.rewards) - baseline;
        policy.zero_grad();
        (graph.probability_R * value_R).sum(Kind::Double).backward();
        take_gradient(policy)
    }

    /// Worths that make one estimate from all trajectories the expectation of estimates from single
    /// ones: P(trajectory) (reward - baseline) R, R being what a mean over them divides by.
    pub(super) fn worths(&self, baseline: f64) -> Vec<Worth> {
        let probability = crate::tensors::numbers::<f64>(&self.probability_R).unwrap();
        let rows = self.trajectories.rows as f64;
        let worth =
            |(p, r): (f64, &f64)| Worth { advantage: p * (r - baseline) * rows, counted: true };
        probability.into_iter().zip(&self.rewards).map(worth).collect()
    }

    /// All trajectories with such worths, to be compared in f64: the records are f32.
    pub(super) fn batch<'a>(&'a self, policy: &'a Policy, worths: &[Worth]) -> Batch<'a> {
        let batch = Batch::new(&self.trajectories, worths, 1, &self.sampler, policy.config());
        batch.unwrap().without_records()
    }

    /// The probability of an event.
    pub(super) fn chance(&self, event: impl Fn(usize) -> bool) -> f64 {
        let probability = crate::tensors::numbers::<f64>(&self.probability_R).unwrap();
        (0..self.trajectories.rows).filter(|&row| event(row)).map(|row| probability[row]).sum()
    }

    /// The expected reward, which a group's mean estimates.
    pub(super) fn mean_reward(&self) -> f64 {
        let reward_R = Tensor::from_slice(&self.rewards);
        self.probability_R.detach().dot(&reward_R).double_value(&[])
    }

    /// The expectation of the configured estimator: the gradient that it would ascend.
    pub(super) fn expected_estimate(
        &self,
        policy: &Policy,
        config: &EstimatorConfig,
        baseline: f64,
    ) -> Tensor {
        self.expected_estimate_of(policy, config, baseline, Seed::new(1))
    }

    /// The same for kinds that draw masks, given what they draw.
    pub(super) fn expected_estimate_of(
        &self,
        policy: &Policy,
        config: &EstimatorConfig,
        baseline: f64,
        seed: Seed,
    ) -> Tensor {
        let worths = self.worths(baseline);
        let batch = self.batch(policy, &worths);
        let estimator = estimator(&batch, config, seed);
        let policies = Policies { policy, behaviour: None, reference: None };
        -gradient_of(&estimator, &policies, config)
    }
}

/// An arbitrary reward, the same for equal completions.
pub(super) fn reward(completion: &[i64]) -> f64 {
    Seed::new(2024).uniform(u32::try_from(number(completion)).unwrap(), 0)
}

fn trajectories(found: &mut [Path], eos: i64) -> Trajectories {
    let tokens = found[0].completion.len();
    for path in found.iter_mut() {
        // A row that stopped early is filled.
        let unwritten = path.completion.iter_mut().filter(|id| **id == MASK);
        unwritten.for_each(|id| *id = eos);
    }
    let prompts = PROMPT.repeat(found.len());
    #[expect(clippy::cast_possible_truncation, reason = "they are recorded as f32")]
    let singles =
        |of: fn(&Path) -> &Vec<f64>| found.iter().flat_map(of).map(|&x| x as f32).collect();
    Trajectories {
        completion_ids: found.iter().flat_map(|path| path.completion.clone()).collect(),
        unmask_steps: found.iter().flat_map(|path| path.steps.clone()).collect(),
        token_logps: singles(|path| &path.logps),
        token_entropies: singles(|path| &path.entropies),
        ..Trajectories::masked(prompts, found.len(), tokens, MASK)
    }
}
