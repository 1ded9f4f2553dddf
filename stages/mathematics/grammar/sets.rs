//! Lists, tuples, intervals and sets.
//!
//! `(1,2)` is an interval before it is a tuple; `compare` also tries it as a tuple.

use super::{MAX_DEPTH, Parser};
use crate::evaluate::{is_constant, real};
use crate::lexer::Token;
use crate::value::{Node, Relation, Value};

/// Elements between semicolons, each a list between commas.
type Groups = Vec<Vec<Value>>;

impl Parser<'_> {
    /// `x = 5`, `x \in [1, 2]`, `x = 1, 2`: a name and a list without relations.
    pub(super) fn assignment(&mut self) -> Option<Value> {
        let name = self.names()?;
        self.take(&["in", "="])?;
        let groups = self.groups(false)?;
        Some(Value::Relations(vec![(name, Relation::Equal, collected(groups))]))
    }

    /// A list; of one element, the element.
    pub(super) fn elements(&mut self) -> Option<Value> {
        self.groups(true).map(collected)
    }

    /// A set built of others, perhaps with a name.
    pub(super) fn set_assignment(&mut self) -> Option<Value> {
        let named = self.attempt(|parser| {
            let name = parser.names()?;
            parser.take(&["in", "="])?;
            let set = parser.attempt(Self::set_assignment)?;
            Some(Value::Relations(vec![(name, Relation::Equal, set)]))
        });
        named.or_else(|| self.set_difference())
    }

    /// A symbol, or several in parentheses.
    fn names(&mut self) -> Option<Value> {
        let symbol = |parser: &mut Self| parser.symbol().map(Value::Node);
        let several = self
            .attempt(|parser| parser.enclosed("(", ")", |parser| parser.separated(",", symbol)));
        match several {
            Some(mut names) if names.len() == 1 => names.pop(),
            Some(names) => Some(Value::Tuple(names)),
            None => symbol(self),
        }
    }

    fn groups(&mut self, relations: bool) -> Option<Groups> {
        self.separated(";", |parser| {
            let elements = parser.separated(",", |parser| parser.element(relations))?;
            Some(elements.into_iter().flatten().collect())
        })
    }

    /// One element, or two where it has a `\pm`.
    fn element(&mut self, relations: bool) -> Option<Vec<Value>> {
        self.ended(|parser| {
            let left = parser.attempt(Self::expression);
            parser.take(&["pm"])?;
            let right = parser.expression()?;
            // The order counts if a tuple is answered by a list.
            let pair = match left {
                Some(left) => [left.clone().plus(right.clone()), left.plus(right.negative())],
                None => [right.clone().negative(), right],
            };
            Some(pair.map(Value::Node).to_vec())
        })
        .or_else(|| self.ended(|parser| Some(vec![parser.set_atom()?])))
        .or_else(|| {
            self.ended(|parser| match relations {
                true => Some(vec![parser.relation()?]),
                false => Some(vec![Value::Node(parser.expression()?)]),
            })
        })
    }

    /// The result of a rule, if an element can end behind it.
    fn ended<T>(&mut self, rule: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.attempt(|parser| {
            let read = rule(parser)?;
            let Some(next) = parser.peek() else { return Some(read) };
            let ends = matches!(next, Token::Sign("," | ";" | ")" | "]" | "}" | "\\}" | "\\)"));
            ends.then_some(read)
        })
    }

    fn set_difference(&mut self) -> Option<Value> {
        self.joined("without", |parser| parser.joined("union", Self::set_intersection))
    }

    fn set_intersection(&mut self) -> Option<Value> {
        self.joined("intersection", |parser| {
            let inside = parser.attempt(|parser| parser.enclosed("(", ")", Self::set_difference));
            inside.or_else(|| parser.set_atom())
        })
    }

    fn joined(
        &mut self,
        sign: &'static str,
        operand: impl Fn(&mut Self) -> Option<Value>,
    ) -> Option<Value> {
        let mut left = operand(self)?;
        let mut nested = 0;
        while self.take(&[sign]).is_some() {
            nested += 1;
            if nested > MAX_DEPTH {
                return None;
            }
            let (first, second) = (Box::new(left), Box::new(operand(self)?));
            left = match sign {
                "union" => Value::Union(first, second),
                "intersection" => Value::Intersection(first, second),
                _ => Value::Without(first, second),
            };
        }
        Some(left)
    }

    fn set_atom(&mut self) -> Option<Value> {
        self.attempt(Self::interval)
            .or_else(|| self.attempt(Self::named_set))
            .or_else(|| self.attempt(Self::tuple))
            .or_else(|| self.attempt(Self::finite_set))
    }

    fn interval(&mut self) -> Option<Value> {
        let open = self.take(&["[", "(", "\\(", "lgroup"])?;
        let start = self.expression()?;
        self.take(&[","])?;
        let end = self.expression()?;
        let close = self.take(&["]", ")", "\\)", "rgroup"])?;
        // If an end is known to be no real number, the text is unreadable.
        let is_real = |node: &Node| !is_constant(node) || real(node).is_some();
        if !(is_real(&start) && is_real(&end)) {
            self.broken = true;
            return None;
        }
        Some(interval(start, end, (open != "[", close != "]")))
    }

    fn named_set(&mut self) -> Option<Value> {
        if self.take(&["{"]).is_some() {
            self.take(&["}"])?;
            return Some(Value::Named('∅'));
        }
        let name = self.take(&["N", "Z", "Q", "R", "C", "empty"])?;
        Some(Value::Named(if name == "empty" { '∅' } else { name.chars().next()? }))
    }

    fn tuple(&mut self) -> Option<Value> {
        let close = match self.take(&["(", "\\(", "["])? {
            "(" => ")",
            "[" => "]",
            _ => "\\)",
        };
        let groups = self.groups(true)?;
        self.take(&[close])?;
        let mut elements: Vec<Value> = groups.into_iter().flatten().collect();
        if elements.len() == 1 { elements.pop() } else { Some(Value::Tuple(elements)) }
    }

    fn finite_set(&mut self) -> Option<Value> {
        let boxed = self.take(&["boxed"]).is_some();
        let close = match self.take(if boxed { &["{"] } else { &["{", "\\{"] })? {
            "{" => "}",
            _ => "\\}",
        };
        let groups = self.groups(true)?;
        self.take(&[close])?;
        // A box is drawn around numbers, too.
        Some(if boxed {
            collected(groups)
        } else {
            Value::Set(groups.into_iter().flatten().collect())
        })
    }
}

/// One element as itself, one list as a set, lists between semicolons as a set of tuples.
fn collected(mut groups: Groups) -> Value {
    if groups.len() == 1 {
        let mut only = groups.remove(0);
        return if only.len() == 1 { only.remove(0) } else { Value::Set(only) };
    }
    if groups.iter().all(|group| group.len() == 1) {
        return Value::Set(groups.into_iter().flatten().collect());
    }
    Value::Set(groups.into_iter().map(Value::Tuple).collect())
}

/// An interval, or a tuple where it would be empty: `(3, 1)` is a point.
fn interval(start: Node, end: Node, open: (bool, bool)) -> Value {
    let empty = real(&start).zip(real(&end)).is_some_and(|(start, end)| match open {
        (true, true) => end <= start,
        (false, false) => end < start,
        _ => false,
    });
    if empty {
        return Value::Tuple(vec![Value::Node(start), Value::Node(end)]);
    }
    let open = (open.0 || start.is_infinite(), open.1 || end.is_infinite());
    Value::Interval { start, end, open }
}
