//! The prompts of both protocols, verbatim: every newline and space belongs to a prompt's name.
//!
//! Templates and how they are filled, as chat messages. Not here: chat templates, tokens and truncation. Mistakes
//! of the published prompts are kept.

use agrpo_spec::Protocol;

use crate::message::{Message, Role};
use crate::problem::Problem;

/// GSM8K, training.
const D1_TRAIN_GSM8K: &str = "\
\n\
Respond in the following format:\n\
<reasoning>\n\
...\n\
</reasoning>\n\
<answer>\n\
...\n\
</answer>\n\
\n\
\n\
«question»";

/// MATH, training.
const D1_TRAIN_MATH: &str = "\
\n\
Respond in the following format:\n\
<reasoning>\n\
...\n\
</reasoning>\n\
<answer>\n\
...\n\
</answer>\n\
\n\
\n\
You are a math expert. You will be given a question to solve. Solve it step by step. \
Wrap the final answer in a \\boxed{}. \n\
\n\
«problem»";

/// Countdown, training.
const D1_TRAIN_COUNTDOWN: &str = "\
\n\
Respond in the following format:\n\
<reasoning>\n\
...\n\
</reasoning>\n\
<answer>\n\
...\n\
</answer>\n\
\n\
Using only the numbers «numbers», create an arithmetic expression that evaluates to \
exactly «target». You must use all numbers from the list, and each number must be \
used exactly once. You may use the operations +, -, *, and / as needed. After \
reasoning, provide only your final expression inside <answer></answer> tags without \
including an equals sign or the target number. For example, if the numbers are [2, \
3, 4] and the target is 5, a valid answer is: <answer>\n\
2*4-3\n\
</answer>";

/// GSM8K, evaluation.
const D1_EVAL_GSM8K: &str = "\
You are a math expert. You will be given a question to solve. Solve it step by step. \
Wrap the final answer in a \\boxed{}. \n\
Respond in the following format:\n\
<reasoning>\n\
Your reasoning here\n\
</reasoning>\n\
<answer>\n\
\\boxed{...}\n\
</answer>\n\
\n\
«question»";

/// MATH-500, evaluation; the stray quote belongs to it.
const D1_EVAL_MATH: &str = "\
You are a math expert. You will be given a question to solve. Solve it step by step. \
Wrap the final answer in a \\boxed{}.\n\
Respond in the following format:\n\
<reasoning>\n\
Your reasoning here\n\
</reasoning>\n\
<answer>\n\
\\boxed{...}\n\
</answer>\" \n\
\n\
\n\
«problem»";

/// Countdown, evaluation; nothing stands between the example and "Respond".
const D1_EVAL_COUNTDOWN: &str = "\
Using only the provided numbers, create an arithmetic expression that evaluates to \
exactly the provided target number. You may use the operations +, -, *, and / as \
needed, but each number must be used exactly once. Think step-by-step. After \
reasoning, provide only your final expression inside \\boxed{} tags without \
including an equals sign or the target number. For example: \\boxed{a + b * \
c}Respond in the following format:\n\
<reasoning>\n\
Your reasoning here\n\
</reasoning>\n\
<answer>\n\
\\boxed{...}\n\
</answer>\n\
\n\
Numbers: «numbers»\n\
Target: «target»";

/// Sudoku, training and evaluation.
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
Solve the following Sudoku puzzle: «puzzle»\n\
";

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

/// System message of Sudoku, with three worked examples.
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
</answer>\n\
\n\
Puzzle: 3014002020004130\n\
\n\
<think>\n\
Interpret puzzle as 4 rows of 4:\n\
R1: 3 0 1 4\n\
R2: 0 0 2 0\n\
R3: 2 0 0 0\n\
R4: 4 1 3 0\n\
\n\
Fill easy singles:\n\
R1 missing 2 → R1C2=2.\n\
R4 missing 2 → R4C4=2.\n\
Box D (R3-4,C3-4) then needs {1,4}; column4 can only accept 1 → R3C4=1, R3C3=4.\n\
R3 now missing 3 → R3C2=3.\n\
Column1 missing 1 → R2C1=1.\n\
Column2 missing 4 → R2C2=4.\n\
Last cell R2C4=3.\n\
\n\
Final grid:\n\
R1: 3 2 1 4\n\
R2: 1 4 2 3\n\
R3: 2 3 4 1\n\
R4: 4 1 3 2\n\
</think>\n\
<answer>\n\
3214142323414132\n\
</answer>\n\
\n\
Puzzle: 0000100420013142\n\
\n\
<think>\n\
Interpret puzzle as 4 rows of 4:\n\
R1: 0 0 0 0\n\
R2: 1 0 0 4\n\
R3: 2 0 0 1\n\
R4: 3 1 4 2\n\
\n\
Fill easy singles:\n\
Col1 missing 4 → R1C1=4.\n\
Col4 missing 3 → R1C4=3.\n\
Box A (R1-2,C1-2) missing {2,3} and R1 now needs {1,2} → R1C2=2, R2C2=3.\n\
R1C3=1.\n\
R2 now missing 2 → R2C3=2.\n\
Col2 missing 4 → R3C2=4, then R3C3=3.\n\
\n\
Final grid:\n\
R1: 4 2 1 3\n\
R2: 1 3 2 4\n\
R3: 2 4 3 1\n\
R4: 3 1 4 2\n\
</think>\n\
<answer>\n\
4213132424313142\n\
</answer>\n\
\n\
Puzzle: 2001403002001420\n\
\n\
<think>\n\
Interpret puzzle as 4 rows of 4:\n\
R1: 2 0 0 1\n\
R2: 4 0 3 0\n\
R3: 0 2 0 0\n\
R4: 1 4 2 0\n\
\n\
Fill easy singles:\n\
R1 missing {3,4}; Col2 can't be 1 so R1C2=3 → R1C3=4.\n\
R4 missing 3 → R4C4=3.\n\
Col4 missing {2,4}; R2 must take 2 → R2C4=2 → R2C2=1.\n\
Col1 missing 3 → R3C1=3.\n\
Col3 missing 1 → R3C3=1 → R3C4=4.\n\
\n\
Final grid:\n\
R1: 2 3 4 1\n\
R2: 4 1 3 2\n\
R3: 3 2 1 4\n\
R4: 1 4 2 3\n\
</think>\n\
<answer>\n\
2341413232141423\n\
</answer>\n\
";

/// What a training rollout is asked, as chat messages.
#[must_use]
pub fn messages(problem: &Problem, protocol: Protocol) -> Vec<Message> {
    match protocol {
        Protocol::D1 => vec![user(match problem {
            Problem::Gsm8k { question, .. } => fill(D1_TRAIN_GSM8K, &[("question", question)]),
            Problem::Math { question, .. } => fill(D1_TRAIN_MATH, &[("problem", question)]),
            Problem::Countdown { numbers, target } => {
                countdown(D1_TRAIN_COUNTDOWN, numbers, *target)
            }
            Problem::Sudoku { puzzle, .. } => fill(D1_SUDOKU, &[("puzzle", puzzle)]),
        })],
        Protocol::Agrpo => {
            let (system, asked) = match problem {
                Problem::Gsm8k { question, .. } | Problem::Math { question, .. } => {
                    (AGRPO_MATH, question.clone())
                }
                Problem::Countdown { numbers, target } => (
                    AGRPO_COUNTDOWN,
                    countdown("Target: «target»\nNumbers: «numbers»", numbers, *target),
                ),
                Problem::Sudoku { puzzle, .. } => (AGRPO_SUDOKU, format!("Puzzle: {puzzle}")),
            };
            vec![Message { role: Role::System, content: system.to_owned() }, user(asked)]
        }
    }
}

/// What an evaluation asks. d1 has prompts of its own for it, AGRPO asks as in training.
#[must_use]
pub fn evaluation_messages(problem: &Problem, protocol: Protocol) -> Vec<Message> {
    match (protocol, problem) {
        (Protocol::D1, Problem::Gsm8k { question, .. }) => {
            vec![user(fill(D1_EVAL_GSM8K, &[("question", question)]))]
        }
        (Protocol::D1, Problem::Math { question, .. }) => {
            vec![user(fill(D1_EVAL_MATH, &[("problem", question)]))]
        }
        (Protocol::D1, Problem::Countdown { numbers, target }) => {
            vec![user(countdown(D1_EVAL_COUNTDOWN, numbers, *target))]
        }
        (Protocol::D1, Problem::Sudoku { .. }) | (Protocol::Agrpo, _) => {
            messages(problem, protocol)
        }
    }
}

/// Text that an evaluation writes behind the rendered chat, as the beginning of every answer: d1's
/// completions start inside the reasoning.
#[must_use]
pub fn evaluation_prefill(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::D1 => "<reasoning>",
        Protocol::Agrpo => "",
    }
}

fn user(content: String) -> Message {
    Message { role: Role::User, content }
}

fn countdown(template: &str, numbers: &[u32], target: u32) -> String {
    fill(template, &[("numbers", &list(numbers)), ("target", &target.to_string())])
}

/// A list as Python writes it: `[3, 7, 12]`.
fn list(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    format!("[{}]", numbers.join(", "))
}

/// The template with the first `«name»` of each field replaced, in the order of the fields.
fn fill(template: &str, fields: &[(&str, &str)]) -> String {
    fields.iter().fold(template.to_owned(), |text, (name, value)| {
        text.replacen(&format!("«{name}»"), value, 1)
    })
}

#[cfg(test)]
mod tests;
