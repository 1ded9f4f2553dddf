//! The prompts of both protocols, verbatim: results depend on every newline and space.
//!
//! Joins the texts to chat messages. Applies no chat template, and neither tokenizes nor truncates. Keeps the mistakes
//! of the published prompts.

use agrpo_spec::Protocol;

use crate::problem::Problem;

/// The author of a chat message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sets the rules.
    System,
    /// Asks.
    User,
    /// Answers: the model.
    Assistant,
}

impl Role {
    /// The role's name in chat templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a chat, before any chat template strips it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The author.
    pub role: Role,
    /// Its text.
    pub content: String,
}

/// The format in training prompts, except Sudoku's.
const D1_FORMAT: &str = "\
\n\
Respond in the following format:\n\
<reasoning>\n\
...\n\
</reasoning>\n\
<answer>\n\
...\n\
</answer>\n\
\n";

/// The beginning of MATH's prompts, and of GSM8K's in evaluations.
const D1_EXPERT: &str = "\
You are a math expert. You will be given a question to solve. Solve it step by step. \
Wrap the final answer in a \\boxed{}.";

/// Countdown's training prompt, behind the numbers and the target.
const D1_COUNTDOWN: &str = "\
You must use all numbers from the list, and each number must be \
used exactly once. You may use the operations +, -, *, and / as needed. After \
reasoning, provide only your final expression inside <answer></answer> tags without \
including an equals sign or the target number. For example, if the numbers are [2, \
3, 4] and the target is 5, a valid answer is: <answer>\n\
2*4-3\n\
</answer>";

/// The format in evaluation prompts, except Sudoku's.
const D1_BOXED_FORMAT: &str = "\
Respond in the following format:\n\
<reasoning>\n\
Your reasoning here\n\
</reasoning>\n\
<answer>\n\
\\boxed{...}\n\
</answer>";

/// Countdown's evaluation prompt; nothing separates the example from the format.
const D1_BOXED_COUNTDOWN: &str = "\
Using only the provided numbers, create an arithmetic expression that evaluates to \
exactly the provided target number. You may use the operations +, -, *, and / as \
needed, but each number must be used exactly once. Think step-by-step. After \
reasoning, provide only your final expression inside \\boxed{} tags without \
including an equals sign or the target number. For example: \\boxed{a + b * c}";

/// Sudoku's prompt in training and evaluations, before the puzzle.
const D1_SUDOKU: &str = "\
\n\
Please solve the following 4x4 Sudoku puzzle. The puzzle is provided as a \
16-character string reading left-to-right, top-to-bottom, where '0' represents empty \
cells.\n\
\n\
Rules:\n\
- Fill empty cells with digits 1-4\n\
- Each row must contain digits 1-4 exactly once\n\
- Each column must contain digits 1-4 exactly once\n\
- Each 2x2 box must contain digits 1-4 exactly once\n\
\n\
Important: Your solution must be a COMPLETE 16-character string with only the digits \
1-4, representing your final solved grid.\n\
\n\
Respond in this exact format:\n\
<reasoning>\n\
Your step-by-step solving process\n\
</reasoning>\n\
<answer>\n\
[16-character solution string with no spaces or separators]\n\
</answer>\n\
\n\
\n\
Solve the following Sudoku puzzle: ";

/// System message of GSM8K and MATH.
const AGRPO_MATH: &str = "\
You will be given a math problem.\n\
Think through the problem step by step, enclosing your reasoning process in <think> \
tags.\n\
Provide your final answer in <answer> tags, with only the number or expression \
enclosed in \\boxed{}, as follows:\n\
<think>\n\
...\n\
</think>\n\
<answer>\n\
\\boxed{...}\n\
</answer>\n\
";

/// System message of Countdown.
const AGRPO_COUNTDOWN: &str = "\
You will be given a target number and a list of numbers. Create a mathematical \
expression using each number exactly once and the operations +, -, *, / (with \
parentheses allowed) to reach the target.\n\
Think through different combinations systematically, exploring which operations \
might work. Enclose your reasoning process in <think> tags.\n\
Format your response as:\n\
<think>\n\
reasoning process here\n\
</think>\n\
<answer>\n\
final expression = target\n\
</answer>\n\
For example, if the target is 67 and the numbers are [17, 18, 5], a valid answer is:\n\
<answer>\n\
17 * 5 - 18 = 67\n\
</answer>\n\
";

/// System message of Sudoku, before its examples.
const AGRPO_SUDOKU: &str = "\
You will be given a 4x4 Sudoku puzzle, provided as a 16-character string from left \
to right, top to bottom, with 0s representing empty cells.\n\
Fill in the empty cells with the correct digits 1-4 such that each row, column, and \
2x2 subgrid contains each digit exactly once.\n\
Think through the puzzle step by step, enclosing your reasoning process in <think> \
tags.\n\
Your final answer should be a complete 16-character string with only the digits 1-4 \
representing the filled-in grid.\n\
Format your response as:\n\
<think>\n\
reasoning process here\n\
</think>\n\
<answer>\n\
[16-character string with no spaces]\n\
</answer>\n";

/// The examples of that message: a puzzle, how it is solved, and its solution.
const AGRPO_SUDOKU_EXAMPLES: [[&str; 3]; 3] = [
    [
        "3014002020004130",
        "\
R1 missing 2 → R1C2=2.\n\
R4 missing 2 → R4C4=2.\n\
Box D (R3-4,C3-4) then needs {1,4}; column4 can only accept 1 → R3C4=1, R3C3=4.\n\
R3 now missing 3 → R3C2=3.\n\
Column1 missing 1 → R2C1=1.\n\
Column2 missing 4 → R2C2=4.\n\
Last cell R2C4=3.",
        "3214142323414132",
    ],
    [
        "0000100420013142",
        "\
Col1 missing 4 → R1C1=4.\n\
Col4 missing 3 → R1C4=3.\n\
Box A (R1-2,C1-2) missing {2,3} and R1 now needs {1,2} → R1C2=2, R2C2=3.\n\
R1C3=1.\n\
R2 now missing 2 → R2C3=2.\n\
Col2 missing 4 → R3C2=4, then R3C3=3.",
        "4213132424313142",
    ],
    [
        "2001403002001420",
        "\
R1 missing {3,4}; Col2 can't be 1 so R1C2=3 → R1C3=4.\n\
R4 missing 3 → R4C4=3.\n\
Col4 missing {2,4}; R2 must take 2 → R2C4=2 → R2C2=1.\n\
Col1 missing 3 → R3C1=3.\n\
Col3 missing 1 → R3C3=1 → R3C4=4.",
        "2341413232141423",
    ],
];

/// System message of Sudoku.
fn agrpo_sudoku() -> String {
    let rows = |grid: &str| -> String {
        let cells = |n: usize| grid[4 * n..4 * n + 4].chars().flat_map(|cell| [' ', cell]);
        (0..4).map(|n| format!("R{}:{}\n", n + 1, cells(n).collect::<String>())).collect()
    };
    let example = |[puzzle, steps, solution]: [&str; 3]| {
        let (given, filled) = (rows(puzzle), rows(solution));
        format!(
            "\nPuzzle: {puzzle}\n\n<think>\nInterpret puzzle as 4 rows of 4:\n{given}\nFill easy singles:\n\
             {steps}\n\nFinal grid:\n{filled}</think>\n<answer>\n{solution}\n</answer>\n"
        )
    };
    AGRPO_SUDOKU.to_owned() + &AGRPO_SUDOKU_EXAMPLES.map(example).concat()
}

/// The prompt of a training rollout, as chat messages.
pub fn messages(problem: &Problem, protocol: Protocol) -> Vec<Message> {
    match protocol {
        Protocol::D1 => vec![user(match problem {
            Problem::Gsm8k { question, .. } => format!("{D1_FORMAT}\n{question}"),
            Problem::Math { question, .. } => {
                format!("{D1_FORMAT}\n{D1_EXPERT} \n\n{question}")
            }
            Problem::Countdown { numbers, target } => format!(
                "{D1_FORMAT}Using only the numbers {numbers:?}, create an arithmetic expression that evaluates to \
                 exactly {target}. {D1_COUNTDOWN}"
            ),
            Problem::Sudoku { puzzle, .. } => format!("{D1_SUDOKU}{puzzle}\n"),
        })],
        Protocol::Agrpo => {
            let (system, asked) = match problem {
                Problem::Gsm8k { question, .. } | Problem::Math { question, .. } => {
                    (AGRPO_MATH.to_owned(), question.clone())
                }
                Problem::Countdown { numbers, target } => {
                    (AGRPO_COUNTDOWN.to_owned(), format!("Target: {target}\nNumbers: {numbers:?}"))
                }
                Problem::Sudoku { puzzle, .. } => (agrpo_sudoku(), format!("Puzzle: {puzzle}")),
            };
            vec![Message { role: Role::System, content: system }, user(asked)]
        }
    }
}

/// The prompt of an evaluation. d1 has its own, AGRPO uses those of training. The stray quote in MATH-500's is
/// published.
pub fn evaluation_messages(problem: &Problem, protocol: Protocol) -> Vec<Message> {
    let asked = match (protocol, problem) {
        (Protocol::D1, Problem::Gsm8k { question, .. }) => {
            format!("{D1_EXPERT} \n{D1_BOXED_FORMAT}\n\n{question}")
        }
        (Protocol::D1, Problem::Math { question, .. }) => {
            format!("{D1_EXPERT}\n{D1_BOXED_FORMAT}\" \n\n\n{question}")
        }
        (Protocol::D1, Problem::Countdown { numbers, target }) => format!(
            "{D1_BOXED_COUNTDOWN}{D1_BOXED_FORMAT}\n\nNumbers: {numbers:?}\nTarget: {target}"
        ),
        (Protocol::D1, Problem::Sudoku { .. }) | (Protocol::Agrpo, _) => {
            return messages(problem, protocol);
        }
    };
    vec![user(asked)]
}

/// Text that an evaluation writes behind the rendered chat, as the beginning of every answer: d1's
/// completions start inside the reasoning.
pub fn evaluation_prefill(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::D1 => "<reasoning>",
        Protocol::Agrpo => "",
    }
}

fn user(content: String) -> Message {
    Message { role: Role::User, content }
}

#[cfg(test)]
mod tests;
