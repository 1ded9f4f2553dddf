//! Rules of `[reward]`: each pays a completion 0 or 1, by the row's answer or by a pattern.
//!
//! A completion that cannot be read earns 0. Patterns are matched in linear time, so no completion can stall a
//! rule.

use std::collections::BTreeMap;

use agrpo_mathematics::{parse_latex, same};
use agrpo_spec::{Message, Rule, one_line};
use regex::Regex;

use super::number;
use crate::boxes::last_answer;

/// The rules of a run, with their patterns compiled.
#[derive(Debug)]
pub struct Rules(Vec<(String, Rule, Option<Regex>)>);

impl Rules {
    /// Reads the patterns. Error: one line that names the rule whose pattern is invalid.
    pub fn new(rules: &BTreeMap<String, Rule>) -> Result<Self, Message> {
        let read = |(name, rule): (&String, &Rule)| {
            let Rule::Regex { pattern, .. } = rule else {
                return Ok((name.clone(), rule.clone(), None));
            };
            let compiled = Regex::new(pattern).map_err(|error| {
                let text = error.to_string();
                let last = text.lines().next_back().unwrap_or_default();
                let reason = one_line(last.trim_start_matches("error: "));
                let (name, shown) = (one_line(name), one_line(&format!("{pattern:?}")));
                let message = format!("reward.rules.{name}.pattern = {shown}: {reason}");
                Message::caused_by(message, error)
            })?;
            Ok((name.clone(), rule.clone(), Some(compiled)))
        };
        rules.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The reward of every rule. Without an answer, rules that compare with one pay nothing.
    pub fn grade(&self, completion: &str, answer: Option<&str>) -> BTreeMap<String, f64> {
        let (completion, answer) = (completion.trim(), answer.map(str::trim));
        let paid = |(name, rule, pattern): &(String, Rule, Option<Regex>)| {
            let holds = holds(rule, pattern.as_ref(), completion, answer);
            (name.clone(), f64::from(u8::from(holds)))
        };
        self.0.iter().map(paid).collect()
    }
}

fn holds(rule: &Rule, pattern: Option<&Regex>, completion: &str, answer: Option<&str>) -> bool {
    match rule {
        Rule::Exact { ignore_case: false } => answer == Some(completion),
        Rule::Exact { ignore_case: true } => {
            answer.is_some_and(|answer| answer.to_lowercase() == completion.to_lowercase())
        }
        Rule::Numeric { tolerance } => {
            answer.is_some_and(|answer| number::is_near(answer, completion, tolerance.get()))
        }
        Rule::Regex { is_answer, .. } => {
            let last = pattern.and_then(|pattern| pattern.captures_iter(completion).last());
            let Some(found) = last else { return false };
            // A group that did not take part in the match captured nothing.
            let captured = if found.len() > 1 { found.get(1) } else { found.get(0) };
            let captured = captured.map_or("", |found| found.as_str().trim());
            !is_answer || answer == Some(captured)
        }
        Rule::Boxed {} => {
            let has_box = completion.contains("\\boxed") || completion.contains("\\fbox");
            let found = last_answer(completion).filter(|_| has_box);
            answer.zip(found).is_some_and(|(answer, found)| {
                same(&parse_latex(last_answer(answer).unwrap_or(answer)), &parse_latex(found))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use agrpo_spec::Real;

    use super::*;

    fn pays(rule: Rule, answer: &str, completion: &str) -> bool {
        let rules = Rules::new(&BTreeMap::from([("part".to_owned(), rule)])).unwrap();
        let paid = rules.grade(completion, Some(answer))["part"];
        assert!(paid == 0.0 || paid == 1.0);
        paid == 1.0
    }

    #[test]
    fn exact_is_equal_but_for_spaces_around() {
        let exact = |ignore_case| Rule::Exact { ignore_case };
        assert!(pays(exact(false), "abc", " abc\n"));
        assert!(!pays(exact(false), "abc", "Abc"));
        assert!(pays(exact(true), "Ärger", "äRGER"));
        assert!(!pays(exact(true), "abc", "abcd"));
        assert!(!pays(exact(false), "abc", ""));
    }

    #[test]
    fn the_last_number_is_compared() {
        let within = |tolerance| Rule::Numeric { tolerance: Real::new(tolerance).unwrap() };
        assert!(pays(within(0.0), "so #### 1,234", "it is 1 or 1234.0"));
        assert!(!pays(within(0.0), "42", "42 or 43") && !pays(within(0.0), "none", "none"));
        assert!(pays(within(0.01), "3.14159", "3.15"));
        assert!(!pays(within(0.001), "3.14159", "3.15"));
    }

    #[test]
    fn a_pattern_asks_for_a_form_or_for_the_answer() {
        let form = |pattern: &str| Rule::Regex { pattern: pattern.to_owned(), is_answer: false };
        let answer = |pattern: &str| Rule::Regex { pattern: pattern.to_owned(), is_answer: true };
        assert!(pays(form("^[a-z]+$"), "", "abc"));
        assert!(!pays(form("^[a-z]+$"), "", "ab3"));
        let tag = "<answer>(.*?)</answer>";
        assert!(pays(answer(tag), "7", "<answer>6</answer> no <answer> 7 </answer>"));
        assert!(!pays(answer(tag), "6", "<answer>6</answer> no <answer>7</answer>"));
        assert!(!pays(answer(tag), "7", "7"));
        assert!(pays(answer("[0-9]+"), "7", "is 7"));
        assert!(!pays(answer("(a)|b"), "a", "b"));
    }

    #[test]
    fn mathematics_is_compared_by_value() {
        let boxed = || Rule::Boxed {};
        assert!(pays(boxed(), "\\frac{1}{2}", "thus \\boxed{0.5}"));
        assert!(pays(boxed(), "so \\boxed{\\sqrt{8}}", "\\boxed{1} no, \\boxed{2\\sqrt{2}}"));
        assert!(!pays(boxed(), "\\frac{1}{2}", "\\boxed{0.6}"));
        assert!(!pays(boxed(), "3", ""));
        assert!(!pays(boxed(), "72", "The answer is 72, in total."));
        assert!(!pays(boxed(), "5", "5"));
        assert!(!pays(boxed(), "5", "\\boxed{5"));
        assert!(pays(boxed(), "5", "\\fbox{5}"));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let rule = Rule::Regex { pattern: "(a".to_owned(), is_answer: false };
        let error = Rules::new(&BTreeMap::from([("form".to_owned(), rule)])).unwrap_err();
        assert_eq!(error.as_str(), "reward.rules.form.pattern = \"(a\": unclosed group");
    }

    #[test]
    fn without_an_answer_nothing_equals_it() {
        let rules = BTreeMap::from([("same".to_owned(), Rule::Exact { ignore_case: false })]);
        assert_eq!(Rules::new(&rules).unwrap().grade("", None)["same"], 0.0);
    }
}
