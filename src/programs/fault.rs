//! Why a row has no score, and the texts of programs as errors show them: shortened, between quotes, on one line.
//! Control characters are escaped. Starts and reads nothing.

use agrpo_grading::AnswerError;
use agrpo_spec::{Program, excerpt};

pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", excerpt(text))
}

#[derive(Debug)]
pub(crate) enum Fault {
    /// A line that is not a valid answer.
    Answer(AnswerError),
    /// More than one line for a row.
    Surplus(Vec<u8>),
    /// A line without end.
    Flood(usize),
    /// The program closed its output; how it ended, if it did.
    Ended(String),
    /// No answer in time.
    Late,
    /// The system refused.
    System(String),
}

impl Fault {
    /// Whether a new process may succeed. Wrong answers are not retried: a program is a function of its rows.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Late | Self::System(_))
    }

    /// What the program did, as the predicate of a sentence.
    pub(crate) fn describe(&self, program: &Program) -> String {
        match self {
            Self::Answer(error) => error.to_string(),
            Self::Surplus(bytes) => format!(
                "wrote {} beside its answer: expected one line for each row, and everything else on stderr",
                quoted(String::from_utf8_lossy(bytes).trim_end())
            ),
            Self::Flood(bytes) => format!(
                "wrote {bytes} bytes without the end of a line: expected one line of JSON for each row"
            ),
            Self::Ended(how) => format!(
                "{how} before it answered (it may take {} MiB of memory, reward.memory_mib)",
                program.memory >> 20
            ),
            Self::Late => format!(
                "gave no answer within {} s (reward.timeout_seconds): expected a line for each row, flushed",
                program.timeout_seconds
            ),
            Self::System(why) => format!("cannot be written to or read from: {why}"),
        }
    }
}
