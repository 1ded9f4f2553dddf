//! The blocks of a row's completion, and how many tokens a step of one writes: the law by which the sampler writes and
//! by which trajectories are checked, under the conventions of the policy's family. Ranks no position, knows no
//! threshold.
//!
//! Blocks counted from the prompt's first token (SDAR) cut a completion at the multiples of a block's length, so its first
//! block has the rest of the prompt's last one, and its last block ends with it. SDAR's own `block_diffusion_generate`
//! (Gen-Verse/dLLM-RL, 10b4fd1) goes on to the end of that block; here a completion has exactly `completion_tokens`. There
//! a step of more tokens than are masked writes over the prompt; here it writes those that are left.
//! ```text
//! even       of a whole block's m positions, step i of s writes m div s, and one more if i < m mod s; of a shorter block
//!            as many, until none is left
//! time grid  of the m_i positions still masked, step i < s - 1 writes int(m_i (1 - t_{i+1} / t_i)), the last one all;
//!            t_i = torch.linspace(1, 0.001, s + 1), in f32
//! ```
//! Sources: `get_num_transfer_tokens` (ML-GSAI/LLaDA, b7e6c35; the same in SDAR's code); `_sample` of Dream
//! (Dream-org/Dream-v0-Instruct-7B), which has one block. A step that writes nothing changes nothing: it is passed over.

use std::ops::Range;

use agrpo_spec::{BlocksFrom, Conventions, Family, Sampler, Spread};

/// The blocks of one row's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Positions of the first block that lie before the completion.
    offset: usize,
    /// Of a whole block.
    len: usize,
    /// Of the completion.
    tokens: usize,
}

impl Blocks {
    /// Those of a completion of so many tokens, where `before` tokens lie between it and the point from which blocks
    /// are counted.
    pub(crate) fn new(before: usize, len: usize, tokens: usize) -> Self {
        let len = len.max(1);
        Self { offset: before % len, len, tokens }
    }

    /// The block of a position of the completion.
    pub(crate) fn of(self, position: usize) -> Range<usize> {
        self.range((position + self.offset) / self.len)
    }

    /// The block of this number, from 0; `None` behind the last one.
    pub(crate) fn get(self, n: usize) -> Option<Range<usize>> {
        Some(self.range(n)).filter(|block| !block.is_empty())
    }

    /// All of them, from left to right.
    pub(crate) fn all(self) -> impl Iterator<Item = Range<usize>> {
        (0..).map_while(move |n| self.get(n))
    }

    fn range(self, n: usize) -> Range<usize> {
        let first = (n * self.len).saturating_sub(self.offset);
        first..((n + 1) * self.len - self.offset).min(self.tokens)
    }
}

/// A sampler under the conventions of a family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnmaskSchedule<'a> {
    pub(crate) sampler: &'a Sampler,
    pub(crate) conventions: Conventions,
}

impl<'a> UnmaskSchedule<'a> {
    pub(crate) fn new(sampler: &'a Sampler, family: Family) -> Self {
        Self { sampler, conventions: family.traits().sampling }
    }

    /// The blocks of a completion after a prompt of so many tokens, without padding.
    pub(crate) fn blocks(&self, prompt_tokens: usize) -> Blocks {
        let before = match self.conventions.blocks_from {
            BlocksFrom::Completion => 0,
            BlocksFrom::Prompt => prompt_tokens,
        };
        let Sampler { block_tokens, completion_tokens, .. } = *self.sampler;
        Blocks::new(before, block_tokens as usize, completion_tokens as usize)
    }

    /// Steps of a whole block.
    pub(crate) fn steps_of_block(&self) -> usize {
        let Sampler { completion_tokens, block_tokens, steps, .. } = *self.sampler;
        let blocks = (completion_tokens / block_tokens.max(1)).max(1);
        (steps / blocks).max(1) as usize
    }

    /// How many tokens the step of this number in its block writes of so many that are masked, without a threshold.
    pub(crate) fn count(&self, step_of_block: usize, masked: usize) -> usize {
        let (block, steps) = (self.sampler.block_tokens as usize, self.steps_of_block());
        match self.conventions.spread {
            Spread::Even => {
                // The remainder goes to the first steps.
                let uneven = usize::from(step_of_block < block % steps);
                (block / steps + uneven).min(masked)
            }
            Spread::TimeGrid if step_of_block + 1 < steps => {
                let share = 1.0 - time(step_of_block + 1, steps) / time(step_of_block, steps);
                #[expect(clippy::cast_possible_truncation, reason = "a share of the masked ones")]
                let count = (masked as f32 * share) as usize;
                count
            }
            Spread::TimeGrid => masked,
        }
    }

    /// The block that each step of a row writes in, and how many tokens, without a threshold.
    pub(crate) fn steps(&self, blocks: Blocks) -> Vec<(Range<usize>, usize)> {
        let mut all = vec![];
        for block in blocks.all() {
            let mut masked = block.len();
            for step in 0..self.steps_of_block() {
                let count = self.count(step, masked);
                if count > 0 {
                    all.push((block.clone(), count));
                    masked -= count;
                }
            }
        }
        all
    }
}

/// t_i of s + 1 numbers from 1 to 0.001 as libtorch spaces them: the second half is counted from the end.
fn time(i: usize, s: usize) -> f32 {
    let (first, last) = (1.0, 1e-3);
    let step = (last - first) / s as f32;
    if i < s.div_ceil(2) { first + step * i as f32 } else { last - step * (s - i) as f32 }
}

#[cfg(test)]
mod tests;
