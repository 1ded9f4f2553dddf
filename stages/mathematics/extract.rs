//! Finds the part of a text that is its answer: boxes, LaTeX environments, then plain numbers and arithmetic.
//!
//! Rules come in tiers. In a tier the match that ends last is tried first; the first one that has a value wins, and the
//! text of the first one tried is kept beside it. Knows patterns only; `normalise` and `grammar` interpret what they
//! match.

use std::{cmp::Reverse, sync::LazyLock};

use fancy_regex::{Captures, Regex};

use super::value::{Node, Value};
use super::{grammar, normalise};
use crate::expression::{self, Grammar};
use crate::patterns::backtracking;

/// Bytes of the longest text that is searched; the reference times out long before.
const MAX_LENGTH: usize = 65_536;

/// LaTeX environments that may follow the first, joined by `and`, `or` or a comma.
const FOLLOWERS: usize = 5;

/// How to read the match of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Some of the groups hold LaTeX, see [`environment`].
    Latex,
    /// The first group holds all from the first box on.
    Box,
    /// Groups as in [`number`].
    Plain,
}

type Rule = (Reading, Regex);

/// The answer that was read from a text.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The answer's value, if it can be read.
    pub(super) value: Option<Value>,
    /// The answer's text: equal texts are equal answers even where no value is read.
    text: Option<String>,
}

impl Parsed {
    /// The text that was read as the answer, where there is one.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

/// Reads a text that is LaTeX as a whole.
pub fn parse_latex(text: &str) -> Parsed {
    parse(&format!("${text}$"))
}

/// Reads the answer out of a text, in which LaTeX stands between dollars.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    if text.len() > MAX_LENGTH {
        return parsed;
    }
    for tier in TIERS.iter() {
        let mut matches: Vec<(usize, usize, Reading, Captures<'_>)> = Vec::new();
        for (reading, pattern) in tier {
            // A pattern at its backtracking limit ends its matches, nothing more.
            for captures in pattern.captures_iter(text).map_while(Result::ok) {
                if let Some(all) = captures.get(0) {
                    matches.push((all.end(), all.start(), *reading, captures));
                }
            }
        }
        matches.sort_by_key(|(end, start, _, _)| (Reverse(*end), *start));
        for (_, _, reading, captures) in &matches {
            let (value, text) = match reading {
                Reading::Latex | Reading::Box => latex(captures, *reading),
                Reading::Plain => match number(captures) {
                    Some(read) => read,
                    None => return Parsed::default(),
                },
            };
            if parsed.text.is_none() && !text.is_empty() {
                parsed.text = Some(text);
            }
            if value.is_some() {
                parsed.value = value;
                return parsed;
            }
        }
    }
    parsed
}

/// One environment with its percent sign: six groups of content, of which one is set, and one of percent.
const GROUPS: usize = 7;

fn latex(captures: &Captures<'_>, reading: Reading) -> (Option<Value>, String) {
    if reading == Reading::Box {
        let text = captures.get(1).map_or("", |inside| inside.as_str());
        let text = normalise::normalise(text, normalise::Boxes::Last);
        return (grammar::parse(&text), text);
    }
    let (mut values, mut texts) = (Vec::new(), Vec::new());
    for first in (1..captures.len()).step_by(GROUPS) {
        let group = |index: usize| captures.get(index).filter(|found| !found.as_str().is_empty());
        let Some(content) = (first..first + GROUPS - 1).find_map(group) else { continue };
        let text = normalise::normalise(content.as_str(), normalise::Boxes::All);
        let value = grammar::parse(&text);
        values.push(match (value, group(first + GROUPS - 1)) {
            (Some(Value::Node(node)), Some(_)) => Some(Value::Node(node.percent())),
            (value, _) => value,
        });
        texts.push(text);
    }
    if values.len() > 1 && values.iter().all(Option::is_some) {
        let elements = values.into_iter().flatten().flat_map(|value| match value {
            Value::Set(elements) => elements,
            value => vec![value],
        });
        return (Some(Value::Set(elements.collect())), texts.join(" and "));
    }
    let mut texts = texts.into_iter();
    (values.into_iter().next().flatten(), texts.next().unwrap_or_default())
}

/// Groups: arithmetic, then (whole, decimals), (whole, decimals), decimals, whole, percent. Digits of another script
/// match and are no number, so the whole text is unreadable: `None`.
fn number(captures: &Captures<'_>) -> Option<(Option<Value>, String)> {
    let group = |index: usize| {
        captures.get(index).map(|found| found.as_str()).filter(|text| !text.is_empty())
    };
    let whole = [2, 4, 7].into_iter().find_map(group);
    let decimals = [3, 5, 6].into_iter().find_map(group);
    if whole.is_none() && decimals.is_none() {
        let Some(text) = group(1) else { return Some((None, String::new())) };
        let written = text.replace('\n', " ").replace('^', "**");
        let value = expression::evaluate(crate::python::strip(&written), Grammar::Exact);
        return Some((value.map(|value| Value::Node(Node::from(value))), text.to_owned()));
    }
    let whole = whole.unwrap_or_default().replace([',', ' '], "");
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let decimals = decimals.unwrap_or_default().replace(',', ".");
    let text = format!("{whole}{decimals}");
    let node = grammar::number(&text)?;
    let node = if group(8).is_some() { node.percent() } else { node };
    Some((Some(Value::Node(node)), text))
}

/// Rules in the order in which they are tried.
static TIERS: LazyLock<Vec<Vec<Rule>>> = LazyLock::new(|| {
    let environments = joined(&environment(false), "");
    let boxed = joined(&environment(true), r"\s*");
    let latex = |before: &str, after: &str| {
        (Reading::Latex, backtracking(&format!("(?s){before}(?:{environments}){after}")))
    };
    let plain = |before: &str, after: &str| {
        let either = format!("(?:{ARITHMETIC}|{NUMBER})");
        (Reading::Plain, backtracking(&format!("{before}{either}{after}")))
    };
    let anywhere = [ARITHMETIC.to_owned(), format!("(){NUMBER}")];
    let [arithmetic, number] = anywhere.map(|pattern| (Reading::Plain, backtracking(&pattern)));
    let distance = r"(?:.{0,100}=\s*|.{0,50}?)";
    vec![
        vec![
            latex(r"(?i:final answer is):?\s*", r"\.?\s?I hope"),
            plain(r"(?i:final answer is):?\s*", r"\.?\s?I hope"),
        ],
        vec![
            latex(r"(?i:final answer.{0,100}?)\s+is:?\s*", ""),
            (Reading::Latex, backtracking(&format!("(?s){boxed}"))),
            (Reading::Box, backtracking(r"(?s)(\\boxed\{.+\})")),
            plain(r"(?i:final answer.{0,100}?)\s+is:?", ""),
        ],
        vec![
            latex("(?i:answer):.{0,50}?", ""),
            plain(&format!("(?i:answer):{distance}"), r"(?!\s*=)"),
        ],
        vec![
            latex("(?i:answer).{0,50}?", ""),
            plain(&format!("(?i:answer){distance}"), r"(?!\s*=)"),
        ],
        vec![latex("", ""), arithmetic, number],
    ]
});

/// The six ways to mark LaTeX, and a percent sign behind it. `boxed` asks for a box inside.
fn environment(boxed: bool) -> String {
    let content = |one: &str| {
        if boxed { format!(r"({one}*?\\boxed\{{{one}+?\}}{one}*?)") } else { format!("({one}+?)") }
    };
    let number = r"-?\d+(?:[.,]\d+)?";
    // The plain fraction is no place for a box; its group stays, so that groups can be counted.
    let fraction = if boxed {
        "((?!))".to_owned()
    } else {
        format!(r"(-?\\frac\{{{number}\}}\{{{number}\}})")
    };
    let ways = [
        format!(r"(?<!\\)\$\${}(?<!\\)\$\$", content(r"(?:[^$]|\$(?!\$))")),
        format!(r"(?<!\\)\\\[{}(?<!\\)\\\]", content(r"(?:[^\\]|\\(?!\]))")),
        format!(r"(?<![\\\d])\${}(?<!\\)\$", content(r"(?:\\\$|[^\n$])")),
        format!(r"(?<!\\)\\\({}(?<!\\)\\\)", content(r"(?:[^\\\n]|\\(?!\)))")),
        format!(r"\s\[{}\]\s", content(r"[^\n\]\[]")),
        fraction,
    ];
    let percent = r"(\\?%|[Pp]ercent|[Pp]ercentage|[Pp]ct)";
    format!(r"(?:(?:{})\s*{percent}?)", ways.join("|"))
}

fn joined(environment: &str, before: &str) -> String {
    let follower = format!(r"{before}(?:\s*(?:,?and|,?or|,)\s*{environment})?");
    format!("{environment}{}", follower.repeat(FOLLOWERS))
}

/// Arithmetic behind a space, an equals sign or the beginning; it begins with a digit or a parenthesis.
const ARITHMETIC: &str = r"(?:(?:^|\s|=)(?:\*\*)?(-?\(?-?\d[\d.\s+\-*×/^()÷]*[+\-*×/^()÷][\d.\s+\-*×/^()÷]+\)?)(?:\*\*)?(?:\.|,|:|\s|\)|\$|$))";

/// A number behind the same, perhaps with a currency; thousands may be grouped.
const NUMBER: &str = r"(?:(?:^|\s|=)(?:\*\*)?[\$€£¥₹₽₪₩₫฿₡₢₣₤₥₦₧₨₭₮₯₰₱₲₳₴₵₶₷₸₺₻₼₾₿]?(?:(-?[1-9]\d{0,2}(?:[ ,]\d{3})+)(\.\d+)?|(-?\d+)([.,]\d+)|(\.\d+)|(-?\d+))(?:(\s*(?:%|[Pp]ercent|\s*[Pp]ercentage|\s*[Pp]ct)))?)";
