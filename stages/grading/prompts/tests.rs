//! The roles, the inserted values, and the published text if it is available.

use crate::{Problem, Protocol, Role, tests::shared};

use super::*;

fn problems() -> [Problem; 4] {
    [
        Problem::Gsm8k { question: "How many «numbers»?".into(), answer: Some("3".into()) },
        Problem::Math { question: "Find $x$.".into(), answer: "3".into() },
        Problem::Countdown { numbers: vec![3, 7, 12], target: 29 },
        Problem::Sudoku { puzzle: "0204032001400402".into(), solution: "1234432121433412".into() },
    ]
}

#[test]
fn who_speaks_first() {
    for problem in &problems() {
        let roles = |messages: Vec<Message>| -> Vec<Role> {
            messages.iter().map(|message| message.role).collect()
        };
        assert_eq!(roles(messages(problem, Protocol::D1)), [Role::User]);
        assert_eq!(roles(evaluation_messages(problem, Protocol::D1)), [Role::User]);
        assert_eq!(roles(messages(problem, Protocol::Agrpo)), [Role::System, Role::User]);
    }
    assert_eq!(evaluation_prefill(Protocol::D1), "<reasoning>");
    assert_eq!(evaluation_prefill(Protocol::Agrpo), "");
}

#[test]
fn questions_are_put_in_as_they_are() {
    let last = |index: usize, protocol| {
        messages(&problems()[index], protocol).pop().map(|message| message.content).unwrap()
    };
    assert_eq!(last(0, Protocol::Agrpo), "How many «numbers»?");
    assert!(last(0, Protocol::D1).ends_with("</answer>\n\n\nHow many «numbers»?"));
    assert!(last(1, Protocol::D1).ends_with("in a \\boxed{}. \n\nFind $x$."));
    assert!(last(2, Protocol::D1).contains("the numbers [3, 7, 12], create"));
    assert!(last(2, Protocol::D1).contains("to exactly 29. You"));
    assert_eq!(last(2, Protocol::Agrpo), "Target: 29\nNumbers: [3, 7, 12]");
    assert_eq!(last(3, Protocol::Agrpo), "Puzzle: 0204032001400402");
    assert!(last(3, Protocol::D1).ends_with("puzzle: 0204032001400402\n"));
    let evaluated = evaluation_messages(&problems()[2], Protocol::D1).pop().unwrap().content;
    assert!(evaluated.contains("\\boxed{a + b * c}Respond in"));
    assert!(evaluated.ends_with("Numbers: [3, 7, 12]\nTarget: 29"));
}

/// The published prompts stand, as JSON, in the order of their protocols and tasks.
#[test]
fn prompts_are_the_published_ones_to_the_character() {
    let Some(path) = shared("facts/protocols.md", 11) else { return };
    let facts = std::fs::read_to_string(path).unwrap();
    let fields = [
        ("«numbers»", "[3, 7, 12]"),
        ("«target»", "29"),
        ("«puzzle»", "0204032001400402"),
        ("«problem»", "Find $x$."),
        ("«question»", "How many «numbers»?"),
    ];
    let filled = |text: String| {
        fields.iter().fold(text, |text, (name, value)| text.replacen(name, value, 1))
    };
    let published: Vec<String> = facts
        .split("```json\n")
        .skip(1)
        .map(|block| filled(serde_json::from_str(block.split("\n```").next().unwrap()).unwrap()))
        .collect();
    let problems = problems();
    let trained = problems.iter().map(|problem| messages(problem, Protocol::D1));
    let evaluated = problems.iter().map(|problem| evaluation_messages(problem, Protocol::D1));
    // GSM8K and MATH have one system message.
    let agrpo = problems[1..].iter().map(|problem| messages(problem, Protocol::Agrpo));
    let ours: Vec<String> =
        trained.chain(evaluated).chain(agrpo).map(|mut all| all.remove(0).content).collect();
    assert_eq!(published, ours);
}
