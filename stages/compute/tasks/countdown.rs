//! Countdown: reach the target with each of the numbers once.
//!
//! A problem is drawn backwards, from a random expression to its value, so that each has a solution. A right
//! answer is an expression of [`Grammar::Countdown`] that uses each number as often as given and has the target as
//! its exact value; nothing may follow it, not even `= 22`.

use std::{fmt, ops::Range};

use agrpo_mathematics::expression::{Grammar, Value, evaluate};
use agrpo_mathematics::python::uses_exactly;
use agrpo_spec::{CountdownTask, Purpose, Seed};

use super::question::Question;

/// In the order in which draws number them.
const OPERATORS: [&str; 4] = ["+", "-", "*", "/"];

/// The coordinates of a seed's draws.
#[derive(Clone, Copy)]
enum Draw {
    Number = 0,
    Split = 1,
    Operator = 2,
}

/// One try at a problem and its solution; `None` where the expression's value is not a target of this task.
pub(super) fn draw(task: &CountdownTask, seed: Seed) -> Option<(Question, String)> {
    let drawn: Vec<u32> =
        (0..task.numbers).map(|i| 1 + below(seed, task.max_number, Draw::Number, i)).collect();
    let tree = Tree::draw(seed, &drawn, 0..task.numbers);
    let target = tree.value()?.to_u32().filter(|target| (1..=task.max_target).contains(target))?;
    let order = seed.child(Purpose::Permutation, 0).permutation(task.numbers);
    let numbers = order.into_iter().map(|i| drawn[i as usize]).collect();
    Some((Question::Countdown { numbers, target }, tree.to_string()))
}

/// Whether training never sees these numbers, in whatever order, with this target.
pub(super) fn is_held_out(task: &CountdownTask, numbers: &[u32], target: u32) -> bool {
    let root = Seed::new(task.seed).child(Purpose::Split, u64::from(target));
    let seed = sorted(numbers)
        .into_iter()
        .fold(root, |seed, number| seed.child(Purpose::Split, u64::from(number)));
    seed.uniform(0, 0) < task.held_out.get()
}

/// `3,5,7:22`.
pub(super) fn prompt(numbers: &[u32], target: u32) -> String {
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    format!("{}:{target}", numbers.join(","))
}

pub(super) fn is_correct(numbers: &[u32], target: u32, answer: &str) -> bool {
    uses_exactly(answer, numbers)
        && evaluate(answer, Grammar::Countdown).and_then(|value| value.to_u32()) == Some(target)
}

/// The noisy demonstration of a hard problem, whose target has two digits or more: the sum of its numbers.
pub(super) fn noisy(numbers: &[u32], target: u32) -> Option<String> {
    let sum = || numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
    (target >= 10).then(sum)
}

pub(super) fn sorted(numbers: &[u32]) -> Vec<u32> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers
}

fn below(seed: Seed, bound: u32, what: Draw, position: u32) -> u32 {
    u32::try_from(seed.below(u64::from(bound), what as u32, position)).expect("below a u32")
}

/// An expression as a tree. At most six numbers, so recursion needs no bound.
enum Tree {
    Number(u32),
    Node(&'static str, Box<Self>, Box<Self>),
}

impl Tree {
    /// A random tree over the numbers of a range: where to part them, then what joins the parts.
    fn draw(seed: Seed, numbers: &[u32], range: Range<u32>) -> Self {
        let Range { start, end } = range;
        if end - start == 1 {
            return Self::Number(numbers[start as usize]);
        }
        let middle = start + 1 + below(seed, end - start - 1, Draw::Split, start << 8 | end);
        // Each gap between two numbers is the middle of one node, so it names that node's draw.
        let operator = OPERATORS[below(seed, 4, Draw::Operator, middle) as usize];
        let left = Self::draw(seed, numbers, start..middle);
        let right = Self::draw(seed, numbers, middle..end);
        Self::Node(operator, Box::new(left), Box::new(right))
    }

    fn value(&self) -> Option<Value> {
        match self {
            Self::Number(number) => Some(Value::from(*number)),
            Self::Node(operator, left, right) => {
                Grammar::Countdown.apply(operator, left.value()?, right.value()?)
            }
        }
    }

    /// How strongly its outermost operator binds.
    fn precedence(&self) -> u8 {
        match self {
            Self::Node("+" | "-", ..) => 0,
            Self::Node(..) => 1,
            Self::Number(_) => 2,
        }
    }
}

/// With no parentheses but those that the value needs: `a-(b+c)` keeps them, `a+(b-c)` does not.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operator, left, right) = match self {
            Self::Number(number) => return write!(f, "{number}"),
            Self::Node(operator, left, right) => (operator, left, right),
        };
        let (outer, inner) = (self.precedence(), right.precedence());
        let undoes = matches!(*operator, "-" | "/");
        let write_operand = |f: &mut fmt::Formatter<'_>, operand: &Self, bracket: bool| {
            if bracket { write!(f, "({operand})") } else { write!(f, "{operand}") }
        };
        write_operand(f, left, left.precedence() < outer)?;
        f.write_str(operator)?;
        write_operand(f, right, inner < outer || (inner == outer && undoes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_answers() {
        for (numbers, target, answer) in [
            (&[3, 5, 7][..], 56, "(3+5)*7"),
            (&[3, 5, 7], 56, "7*(5+3)"),
            (&[3, 5, 7], 56, " 7 * ((5) + 3)"),
            (&[3, 3, 8, 8], 24, "8/(3-8/3)"),
            (&[7, 2, 2], 7, "7/2*2"),
            (&[1, 2, 3], 2, "3-2+1"),
            (&[4, 4], 1, "4/4"),
        ] {
            assert!(is_correct(numbers, target, answer), "{answer}");
        }
    }

    #[test]
    fn wrong_answers() {
        for (numbers, target, answer) in [
            (&[3, 5, 7][..], 56, "8*7"),
            (&[3, 5, 7], 56, "(3+5)*7+0"),
            (&[3, 5, 7], 56, "(3+5)*7=56"),
            (&[3, 5, 7], 56, "56"),
            (&[3, 5, 7], 8, "3+5"),
            (&[3, 5, 7], 42, "35+7"),
            (&[3, 5, 7], 28, "(3+5)*7/2"),
            (&[3, 5, 5], 40, "(3+5)*5+5-5"),
            (&[3, 5, 5], 13, "3+5"),
            (&[7, 2, 2], 6, "7/2*2"),
            (&[7, 2], 3, "7/2"),
            (&[7, 2], 4, "7/2"),
            (&[2, 3], 8, "2**3"),
            (&[7, 2], 3, "7//2"),
            (&[3, 5], 2, "-3+5"),
            (&[3, 5], 2, "3-5"),
            (&[3, 5], 8, "03+5"),
            (&[3, 5], 8, "3+5\n"),
            (&[3, 5], 15, "3(5)"),
            (&[1, 2, 2], 1, "1/(2-2)"),
            (&[3, 5], 8, ""),
        ] {
            assert!(!is_correct(numbers, target, answer), "{answer}");
        }
    }

    #[test]
    fn parentheses_stand_only_where_the_value_needs_them() {
        let number = |n| Box::new(Tree::Number(n));
        let node = |operator, left, right| Box::new(Tree::Node(operator, left, right));
        let [plus, minus, times, divide] = OPERATORS;
        for (tree, text) in [
            (node(times, node(plus, number(3), number(5)), number(7)), "(3+5)*7"),
            (node(plus, number(3), node(times, number(5), number(7))), "3+5*7"),
            (node(minus, number(9), node(minus, number(5), number(7))), "9-(5-7)"),
            (node(minus, node(minus, number(9), number(5)), number(7)), "9-5-7"),
            (node(plus, number(9), node(minus, number(5), number(7))), "9+5-7"),
            (node(divide, number(8), node(times, number(2), number(4))), "8/(2*4)"),
            (node(times, number(8), node(divide, number(6), number(4))), "8*6/4"),
            (node(minus, number(8), node(times, number(2), number(4))), "8-2*4"),
        ] {
            assert_eq!(tree.to_string(), text);
            assert_eq!(evaluate(text, Grammar::Countdown), tree.value(), "{text}");
        }
    }
}
