//! Checks the section `[reward]`: weights for every task, rules and a program for a dataset.
//!
//! Patterns and the program itself are tried later, where the program's files are available.

use crate::run::error::{positive, setting, within};
use crate::run::{PROGRAM_PART, RewardConfig, Rule, RunConfig, RunError, Task, is_part_name};

/// Checks that the weights name graded parts and one is not 0, and that only a dataset has rules or a program.
pub(super) fn reward(config: &RunConfig) -> Result<(), RunError> {
    let reward = &config.reward;
    match &config.task {
        Task::Dataset(task) => dataset(reward, task.answer.is_some())?,
        _ => setting("reward", "with rules or a program").ensure(
            !reward.grades(),
            "expected [task.dataset]: this task brings its own grades, and takes weights alone",
        )?,
    }
    let weights = &reward.weights;
    if let Some(parts) = config.task.reward_parts()
        && let Some(name) = weights.keys().find(|name| !parts.contains(&name.as_str()))
    {
        let expected = format!("expected one of {}", parts.join(", "));
        return Err(setting("reward.weights", name).refused(expected));
    }
    setting("reward.weights", "all 0").ensure(
        weights.is_empty() || weights.values().any(|weight| weight.get() != 0.0),
        "expected a weight other than 0: nothing is learned from rewards that are always 0",
    )
}

fn dataset(reward: &RewardConfig, has_answer: bool) -> Result<(), RunError> {
    setting("reward", "without rules and command").ensure(
        !reward.rules.is_empty() || !reward.command.is_empty(),
        "expected rules = { right = { kind = \"exact\" } }, or a program as in \
         command = [\"python3\", \"reward.py\"]: \
         nothing else says what a dataset's completions are worth",
    )?;
    for (name, rule) in &reward.rules {
        setting("reward.rules", format!("{name:?}"))
            .ensure(is_part_name(name), "expected a name of 1 to 32 letters, digits or '_'")?;
        setting("reward.rules", PROGRAM_PART).ensure(
            name != PROGRAM_PART || reward.command.is_empty(),
            "expected another name: this one is what reward.command answers",
        )?;
        setting("task.dataset.answer", "left out").ensure(
            has_answer || !rule.needs_answer(),
            format!("expected a template: the rule {name:?} compares completions with the answer"),
        )?;
        if let Rule::Numeric { tolerance } = rule {
            setting("reward.rules", format!("{name}, tolerance = {tolerance}"))
                .ensure(tolerance.get() >= 0.0, "expected a number of at least 0")?;
        }
    }
    let is_graded = |name: &&String| reward.rules.contains_key(*name);
    if reward.command.is_empty()
        && let Some(name) = reward.weights.keys().find(|name| !is_graded(name))
    {
        let names: Vec<_> = reward.rules.keys().map(String::as_str).collect();
        let expected = format!("expected one of reward.rules: {}", names.join(", "));
        return Err(setting("reward.weights", name).refused(expected));
    }
    program(reward)
}

fn program(reward: &RewardConfig) -> Result<(), RunError> {
    let lonely = [
        (!reward.files.is_empty(), "reward.files"),
        (reward.timeout_seconds.is_some(), "reward.timeout_seconds"),
        (reward.memory_mib.is_some(), "reward.memory_mib"),
    ];
    if let Some((_, key)) = lonely.iter().find(|(is_there, _)| *is_there)
        && reward.command.is_empty()
    {
        return Err(setting(*key, "given").refused("expected reward.command beside it"));
    }
    if let Some(word) = reward.command.iter().find(|word| word.contains('\0')) {
        return Err(setting("reward.command", format!("{word:?}")).refused("expected no NUL"));
    }
    setting("reward.command", "[\"\"]").ensure(
        reward.command.first().is_none_or(|program| !program.is_empty()),
        "expected a program, as in [\"python3\", \"reward.py\"]",
    )?;
    for name in reward.files.keys() {
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        setting("reward.files", format!("{name:?}")).ensure(
            name.len() <= 255 && !name.contains('\0') && name.split('/').all(is_plain),
            "expected a path within the program's folder, as in \"reward.py\"; \
             a file elsewhere is { \"reward.py\" = { from = \"../reward.py\" } }",
        )?;
    }
    if let Some(seconds) = reward.timeout_seconds {
        positive("reward.timeout_seconds", seconds)?;
        setting("reward.timeout_seconds", seconds)
            .ensure(seconds.get() <= 3600.0, "expected at most 3600 seconds for a row")?;
    }
    reward.memory_mib.map_or(Ok(()), |memory| within("reward.memory_mib", memory, 16..=1_048_576))
}
