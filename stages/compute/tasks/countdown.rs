//! Countdown: reach the target with each of the numbers once.
//!
//! A problem is drawn backwards, from a random expression to its value, so that each has a solution;
//! the prompt shows the numbers in an order that says nothing about it. A right answer is any
//! expression of `expression.rs` whose numbers are the given ones, each as often as given, and whose
//! exact value is the target. Nothing after it is accepted, not even `= 22`.

use std::fmt;
use std::ops::Range;

use agrpo_spec::{CountdownTask, Purpose, Seed};

use super::expression::{Operator, Value, evaluate, whole};

/// The coordinates of a seed's draws.
mod draws {
    pub(super) const NUMBER: u32 = 0;
    pub(super) const SPLIT: u32 = 1;
    pub(super) const OPERATOR: u32 = 2;
}

/// A problem and an answer to it.
#[derive(Debug)]
pub(super) struct Draw {
    pub(super) numbers: Vec<u32>,
    pub(super) target: u32,
    pub(super) solution: String,
}

/// One try; `None` where the expression's value is not a target of this task.
pub(super) fn draw(task: &CountdownTask, seed: Seed) -> Option<Draw> {
    let drawn: Vec<u32> =
        (0..task.numbers).map(|i| 1 + below(seed, task.max_number, draws::NUMBER, i)).collect();
    let tree = Tree::draw(seed, &drawn, 0..task.numbers);
    let target = whole(tree.value()?).filter(|target| (1..=task.max_target).contains(target))?;
    let order = seed.child(Purpose::Permutation, 0).permutation(task.numbers);
    let numbers = order.into_iter().map(|i| drawn[i as usize]).collect();
    Some(Draw { numbers, target, solution: tree.to_string() })
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

/// Whether the answer is right.
pub(super) fn is_correct(numbers: &[u32], target: u32, answer: &str) -> bool {
    evaluate(answer).is_some_and(|found| {
        sorted(&found.numbers) == sorted(numbers) && whole(found.value) == Some(target)
    })
}

/// Targets from here on are hard.
const HARD: u32 = 10;

/// The noisy demonstration of a hard problem: the sum of its numbers.
pub(super) fn noisy(numbers: &[u32], target: u32) -> Option<String> {
    let sum = || numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
    (target >= HARD).then(sum)
}

pub(super) fn sorted(numbers: &[u32]) -> Vec<u32> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers
}

fn below(seed: Seed, bound: u32, what: u32, position: u32) -> u32 {
    u32::try_from(seed.below(u64::from(bound), what, position)).expect("below a u32")
}

/// An expression as a tree. At most six numbers, so recursion needs no bound.
enum Tree {
    Number(u32),
    Node(Operator, Box<Self>, Box<Self>),
}

impl Tree {
    /// A random tree over the numbers of a range: where to part them, then what joins the parts.
    fn draw(seed: Seed, numbers: &[u32], range: Range<u32>) -> Self {
        let Range { start, end } = range;
        if end - start == 1 {
            return Self::Number(numbers[start as usize]);
        }
        let middle = start + 1 + below(seed, end - start - 1, draws::SPLIT, start << 8 | end);
        // Each gap between two numbers is the middle of one node, so it names that node's draw.
        let operator = Operator::ALL[below(seed, 4, draws::OPERATOR, middle) as usize];
        let left = Self::draw(seed, numbers, start..middle);
        let right = Self::draw(seed, numbers, middle..end);
        Self::Node(operator, Box::new(left), Box::new(right))
    }

    fn value(&self) -> Option<Value> {
        match self {
            Self::Number(number) => Some(Value::from_integer(i128::from(*number))),
            Self::Node(operator, left, right) => operator.apply(left.value()?, right.value()?),
        }
    }

    fn precedence(&self) -> u8 {
        match self {
            Self::Number(_) => Operator::TIGHTEST,
            Self::Node(operator, ..) => operator.precedence(),
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
        let outer = operator.precedence();
        let undoes = matches!(operator, Operator::Minus | Operator::Divide);
        let write_operand = |f: &mut fmt::Formatter<'_>, operand: &Self, bracket: bool| {
            if bracket { write!(f, "({operand})") } else { write!(f, "{operand}") }
        };
        write_operand(f, left, left.precedence() < outer)?;
        write!(f, "{}", operator.symbol())?;
        let inner = right.precedence();
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
        use Operator::{Divide, Minus, Plus, Times};
        for (tree, text) in [
            (node(Times, node(Plus, number(3), number(5)), number(7)), "(3+5)*7"),
            (node(Plus, number(3), node(Times, number(5), number(7))), "3+5*7"),
            (node(Minus, number(9), node(Minus, number(5), number(7))), "9-(5-7)"),
            (node(Minus, node(Minus, number(9), number(5)), number(7)), "9-5-7"),
            (node(Plus, number(9), node(Minus, number(5), number(7))), "9+5-7"),
            (node(Divide, number(8), node(Times, number(2), number(4))), "8/(2*4)"),
            (node(Times, number(8), node(Divide, number(6), number(4))), "8*6/4"),
            (node(Minus, number(8), node(Times, number(2), number(4))), "8-2*4"),
        ] {
            assert_eq!(tree.to_string(), text);
            assert_eq!(evaluate(text).unwrap().value, tree.value().unwrap(), "{text}");
        }
    }
}
