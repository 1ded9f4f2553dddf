//! What the models of a family have in common: names and conventions, as data. Knows no family.

/// What the models of a family have in common.
#[derive(Debug)]
pub struct FamilyTraits {
    /// As people write it.
    pub name: &'static str,
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The keys of `config.json`.
    pub keys: ConfigKeys,
    /// What else the family's own code wants in `config.json`: a JSON object.
    pub document: &'static str,
    /// Names in checkpoints.
    pub tensors: TensorNames,
    /// Whether queries, keys and values have a bias.
    pub has_qkv_bias: bool,
    /// Where the prediction of a position stands.
    pub predicts: Predicts,
    /// Which keys a query attends to.
    pub attends_to: AttendsTo,
    /// How completions are sampled, beside a run's settings.
    pub sampling: Conventions,
    /// How conversations are written.
    pub chat: ChatLayout,
    /// The class of its modelling code and the model that brings it on Hugging Face's hub; `None` where transformers has it.
    pub code: Option<[&'static str; 2]>,
}

/// The keys of `config.json` for what models of a family may differ in. `None` where they do not.
#[derive(Debug)]
pub struct ConfigKeys {
    /// Width of the residual stream.
    pub d_model: &'static str,
    /// Transformer blocks.
    pub n_layers: &'static str,
    /// Attention heads.
    pub n_heads: &'static str,
    /// Heads of keys and values; `None` where there are as many as of queries.
    pub n_kv_heads: Option<&'static str>,
    /// Size of a head; `None` where it is `d_model` / `n_heads`.
    pub head_size: Option<&'static str>,
    /// Width inside the SwiGLU, of each expert where there are some.
    pub mlp_hidden_size: &'static str,
    /// Experts of a block; `None` where a block has one SwiGLU.
    pub n_experts: Option<&'static str>,
    /// How many of them a token chooses.
    pub experts_per_token: Option<&'static str>,
    /// Rows of the embedding.
    pub embedding_size: &'static str,
    /// Longest sequence.
    pub max_sequence_length: &'static str,
    /// Tokens of a block of the model's attention; `None` where it has none.
    pub attention_block: Option<&'static str>,
}

/// The names of a checkpoint's tensors, without the `.weight` or `.bias` at their end.
#[derive(Debug)]
pub struct TensorNames {
    /// How all of them begin but the head, for messages.
    pub prefix: &'static str,
    /// The embedding.
    pub embedding: &'static str,
    /// The last norm.
    pub norm: &'static str,
    /// The language-model head.
    pub head: &'static str,
    /// Before the number of a block.
    pub blocks: &'static str,
    /// In a block: the norm before attention.
    pub attention_norm: &'static str,
    /// In a block: query, key, value and attention's output; and, in it or in each of its experts, gate, up and down.
    pub modules: [&'static str; 7],
    /// In a block: the norms of the heads of queries and of keys; `None` where they have none.
    pub qk_norms: Option<[&'static str; 2]>,
    /// In a block: the norm before the SwiGLU.
    pub mlp_norm: &'static str,
    /// In a block: its experts; `None` where it has one SwiGLU.
    pub experts: Option<ExpertNames>,
}

/// The names of a block's experts.
#[derive(Debug)]
pub struct ExpertNames {
    /// The matrix by which tokens choose.
    pub router: &'static str,
    /// Before the number of an expert.
    pub before: &'static str,
}

impl TensorNames {
    /// The last parts of the modules' names, in their order: what `lora.targets` lists.
    pub fn targets(&self) -> [&'static str; 7] {
        self.modules.map(|name| name.rsplit('.').next().unwrap_or(name))
    }
}

/// Where the prediction of a position stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predicts {
    /// Row i predicts position i.
    Itself,
    /// Row i predicts position i + 1.
    Next,
}

/// Which keys a query attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttendsTo {
    /// All of its sequence.
    All,
    /// Those of its own block of the sequence and of the blocks before it, counted from the sequence's first token.
    ItsBlockAndBefore,
    /// Itself and those before it.
    Before,
}

/// How a family's own sampler differs from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conventions {
    /// From where blocks are counted.
    pub blocks_from: BlocksFrom,
    /// How the tokens of a block are spread over its steps.
    pub spread: Spread,
    /// What a step writes under a threshold.
    pub threshold: ThresholdRule,
    /// After which block a completion has ended.
    pub ends_after: EndsAfter,
}

/// From where blocks are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlocksFrom {
    /// The completion's first token: all blocks are whole.
    Completion,
    /// The prompt's first token: the first and last block of a completion may be shorter.
    Prompt,
}

/// How the m tokens of a block are spread over its s steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// m div s, and one more in each of the first m mod s steps.
    Even,
    /// int(masked (1 - t'/t)) between times on a line from 1 to 0.001, the rest in the last step; in f32.
    TimeGrid,
}

/// What a step writes under a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdRule {
    /// The most probable token, and every other of at least the threshold (Fast-dLLM).
    AtLeastOne,
    /// Every token above the threshold if these are at least as many as the step writes without one, else that many.
    AtLeastTheStep,
}

/// After which block a completion has ended; the positions behind it are filled, not sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndsAfter {
    /// A block of nothing but end-of-sequence.
    BlockOfEnds,
    /// A block with an end-of-sequence.
    AnyEnd,
}

/// How a conversation is written: `begin`, then for each message `role_start` ROLE `role_end` content `turn_end`, then
/// `role_start` assistant `role_end`.
#[derive(Debug)]
pub struct ChatLayout {
    /// Before everything.
    pub begin: &'static str,
    /// The names of the system, the user and the assistant.
    pub roles: [&'static str; 3],
    /// Before a role.
    pub role_start: &'static str,
    /// Between a role and its content.
    pub role_end: &'static str,
    /// After a content.
    pub turn_end: &'static str,
    /// Whether whitespace around a content is left out.
    pub strips: bool,
    /// The system message of a conversation that has none.
    pub system: Option<&'static str>,
    /// The special tokens of these pieces, by their text.
    pub pieces: &'static [&'static str],
    /// The mask's text in the tokenizer.
    pub mask: &'static str,
}
