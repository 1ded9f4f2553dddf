//! The parts that factors are made of: groups, functions, fractions, matrices, symbols and numbers.

use super::{Parser, number};
use crate::lexer::{self, Token};
use crate::value::{Constant, Node};

/// The most rows of a matrix whose determinant is computed.
const LARGEST: usize = 6;

/// The most parts of its cells, which a determinant repeats.
const MOST_PARTS: usize = 200;

impl Parser<'_> {
    pub(super) fn component(&mut self, plain: bool) -> Option<Node> {
        self.attempt(Self::group)
            .or_else(|| if plain { None } else { self.attempt(Self::function) })
            .or_else(|| self.attempt(Self::atom))
            .or_else(|| self.attempt(Self::derivative))
            .or_else(|| self.attempt(Self::fraction))
            .or_else(|| self.attempt(Self::binomial))
            .or_else(|| self.attempt(Self::matrix))
    }

    fn group(&mut self) -> Option<Node> {
        const PAIRS: [(&str, &str, &str); 12] = [
            ("(", ")", ""),
            ("lgroup", "rgroup", ""),
            ("{", "}", ""),
            ("[", "]", ""),
            ("\\{", "\\}", ""),
            ("lbrace", "rbrace", ""),
            ("|", "|", "abs"),
            ("lvert", "rvert", "abs"),
            ("norm", "norm", "norm"),
            ("lfloor", "rfloor", "floor"),
            ("lceil", "rceil", "ceil"),
            ("boxed", "}", ""),
        ];
        let open = self.take(&PAIRS.map(|(open, _, _)| open))?;
        let (_, close, name) = PAIRS.into_iter().find(|(first, _, _)| *first == open)?;
        if open == "boxed" {
            self.take(&["{"])?;
        }
        let inside = self.expression()?;
        self.take(&[close])?;
        Some(if name.is_empty() { inside } else { Node::function(name, vec![inside]) })
    }

    fn fraction(&mut self) -> Option<Node> {
        self.take(&["frac"])?;
        let above = self.braced()?;
        Some(above.over(self.braced()?))
    }

    fn binomial(&mut self) -> Option<Node> {
        let (above, below) = if self.take(&["binom"]).is_some() {
            (self.braced()?, self.braced()?)
        } else {
            self.enclosed("{", "}", |parser| {
                let above = parser.expression()?;
                parser.take(&["choose"])?;
                Some((above, parser.expression()?))
            })?
        };
        Some(Node::function("binom", vec![above, below]))
    }

    fn matrix(&mut self) -> Option<Node> {
        let open = self.take(&["begin matrix", "begin det"])?;
        let end = if open == "begin det" { "end det" } else { "end matrix" };
        let mut rows = Vec::new();
        loop {
            rows.push(self.separated("&", Self::expression)?);
            let more = self.take(&["\\\\"]).is_some();
            if self.take(&[end]).is_some() {
                break;
            }
            if !more {
                return None;
            }
        }
        let even = rows.windows(2).all(|pair| pair[0].len() == pair[1].len());
        let matrix = even.then_some(Node::Matrix(rows))?;
        if open == "begin det" { determinant(&matrix) } else { Some(matrix) }
    }

    fn function(&mut self) -> Option<Node> {
        match self.peek()?.clone() {
            Token::Function(name) => {
                self.next += 1;
                match name {
                    "sqrt" => self.root(),
                    "gcd" | "lcm" | "max" | "min" => {
                        Some(Node::function(name, self.enclosed("(", ")", Self::arguments)?))
                    }
                    "det" => determinant(&self.argument()?),
                    name => self.of_one(name),
                }
            }
            Token::Euler => {
                self.next += 1;
                let exponent = self.attempt(Self::superscript);
                Some(Node::Constant(Constant::Euler).perhaps_raised(exponent))
            }
            Token::Sign("sum" | "prod" | "lim" | "int") => self.analysis(),
            _ => self.application(),
        }
    }

    fn root(&mut self) -> Option<Node> {
        let degree = self.attempt(|parser| parser.enclosed("[", "]", Self::expression));
        let degree = degree.unwrap_or_else(|| Node::whole(2));
        let inside = self.braced()?;
        Some(inside.raised_to(Node::whole(1).over(degree)))
    }

    /// A function of one argument, which may stand without parentheses.
    fn of_one(&mut self, name: &'static str) -> Option<Node> {
        let (mut base, mut power) = (None, None);
        for _ in 0..2 {
            if base.is_none() {
                base = self.attempt(|parser| parser.script("_"));
            }
            if power.is_none() {
                power = self.attempt(Self::superscript);
            }
        }
        let argument = self.argument()?;
        let inverse = power == Some(Node::whole(-1))
            && ["sin", "cos", "tan", "csc", "sec", "cot", "sinh", "cosh", "tanh"].contains(&name);
        if inverse {
            return Some(Node::function(&format!("arc{name}"), vec![argument]));
        }
        let node = match name {
            "ln" => {
                let base = base.unwrap_or(Node::Constant(Constant::Euler));
                Node::function("log", vec![argument, base])
            }
            "log" => Node::function("log", vec![argument, base.unwrap_or_else(|| Node::whole(10))]),
            "exp" => Node::Constant(Constant::Euler).raised_to(argument),
            name => Node::function(name, vec![argument]),
        };
        Some(node.perhaps_raised(power))
    }

    /// The argument of a function, in parentheses or not.
    fn argument(&mut self) -> Option<Node> {
        let argument = self.attempt(|parser| parser.enclosed("(", ")", Self::expression));
        argument.or_else(|| self.attempt(|parser| parser.product(true)))
    }

    /// `f(x)`: a name before one atom, or before several arguments, in parentheses.
    fn application(&mut self) -> Option<Node> {
        let name = self.name()?;
        let power = self.attempt(Self::superscript);
        let braced = self.take(&["{"]).is_some();
        let close = if self.take(&["(", "["])? == "(" { ")" } else { "]" };
        let single = self.attempt(|parser| {
            let atom = parser.atom()?;
            parser.take(&[close])?;
            Some(vec![atom])
        });
        let arguments = single.or_else(|| {
            self.attempt(|parser| {
                let mut arguments = vec![parser.expression()?];
                parser.take(&[","])?;
                if parser.take(&[close]).is_some() {
                    return Some(arguments);
                }
                arguments.extend(parser.arguments()?);
                parser.take(&[close])?;
                Some(arguments)
            })
        })?;
        if braced {
            self.take(&["}"])?;
        }
        Some(Node::function(&format!("of {name}"), arguments).perhaps_raised(power))
    }

    fn arguments(&mut self) -> Option<Vec<Node>> {
        self.separated(",", Self::expression)
    }

    pub(super) fn atom(&mut self) -> Option<Node> {
        let node = match self.peek()?.clone() {
            Token::Symbol(_) | Token::Accent(..) | Token::Imaginary => return self.symbol(),
            Token::Number(text) => {
                self.next += 1;
                // The base of a number system, which is ignored.
                self.attempt(Self::subscript);
                return number(&text);
            }
            Token::Percent(text) => number(&text)?.percent(),
            Token::Scientific(text) => number(&text)?,
            Token::Differential(letter) if self.differentials => {
                self.real_or_complex(format!("d{letter}"))
            }
            Token::Sign("infinity") => Node::Constant(Constant::Infinity),
            Token::Sign("E") => self.real_or_complex("e".to_owned()),
            _ => return None,
        };
        self.next += 1;
        Some(node)
    }

    /// A name with its subscript, and its power.
    pub(super) fn symbol(&mut self) -> Option<Node> {
        if self.peek() == Some(&Token::Imaginary) {
            // The reference passes over what stands below and above this letter: `I^4` is `I`.
            self.name()?;
            if self.attempt(Self::superscript).is_some() {
                self.attempt(Self::subscript);
            }
            return Some(Node::Constant(Constant::Imaginary));
        }
        let mut name = self.name()?;
        let power = self.attempt(Self::superscript);
        if power.is_some()
            && let Some(subscript) = self.attempt(Self::subscript)
        {
            name.push_str(&subscript);
        }
        let node = match name.as_str() {
            "pi" => Node::Constant(Constant::Pi),
            _ => self.real_or_complex(name),
        };
        Some(node.perhaps_raised(power))
    }

    fn real_or_complex(&self, name: String) -> Node {
        Node::Symbol { name: name.to_lowercase(), complex: self.complex }
    }

    /// A symbol's name, with its subscript.
    fn name(&mut self) -> Option<String> {
        let mut name = match self.peek()? {
            Token::Symbol(name) => name.clone(),
            Token::Imaginary => "i".to_owned(),
            Token::Accent(command, inside) => accented(command, inside),
            _ => return None,
        };
        self.next += 1;
        if let Some(subscript) = self.attempt(Self::subscript) {
            name.push_str(&subscript);
        }
        Some(name)
    }

    /// A subscript as text, braces or not.
    pub(super) fn subscript(&mut self) -> Option<String> {
        self.take(&["_"])?;
        let first = self.next;
        if self.attempt(Self::atom).is_some() {
            return Some(self.spelled(first, self.next));
        }
        self.take(&["{"])?;
        self.arguments()?;
        let text = self.spelled(first + 1, self.next);
        self.take(&["}"])?;
        Some(text)
    }

    fn spelled(&self, first: usize, end: usize) -> String {
        let mut text = "_".to_owned();
        for token in self.tokens.get(first..end).unwrap_or_default() {
            match token {
                Token::Percent(word) => text.extend([word.as_str(), "%"]),
                Token::Number(word)
                | Token::Scientific(word)
                | Token::Symbol(word)
                | Token::Accent(_, word)
                | Token::Differential(word) => text.push_str(word),
                Token::Imaginary => text.push('i'),
                Token::Euler => text.push('e'),
                Token::Sign(word) | Token::Function(word) => text.push_str(word),
            }
        }
        text
    }
}

/// The determinant of a square matrix that is not large, expanded by the first row.
fn determinant(node: &Node) -> Option<Node> {
    let Node::Matrix(rows) = node else { return None };
    let square = rows.iter().all(|row| row.len() == rows.len());
    if !square || rows.len() > LARGEST || node.size() > MOST_PARTS {
        return None;
    }
    let Some((first, rest)) = rows.split_first() else { return Some(Node::whole(1)) };
    let mut sum = Node::whole(0);
    for (column, factor) in first.iter().enumerate() {
        let minor = |row: &Vec<Node>| {
            let cells = row.iter().enumerate().filter(|(place, _)| *place != column);
            cells.map(|(_, cell)| cell.clone()).collect::<Vec<_>>()
        };
        let inside = determinant(&Node::Matrix(rest.iter().map(minor).collect()))?;
        let term = factor.clone().times(inside);
        sum = sum.plus(if column % 2 == 0 { term } else { term.negative() });
    }
    Some(sum)
}

/// A text is a name as it is, so that `\text{(C)}` is `C`; other accents belong to the name.
fn accented(command: &str, inside: &str) -> String {
    let inside = inside.replace(' ', "");
    match command {
        "text" | "textit" | "textbf" | "textnormal" | "mbox" => {
            let name = inside.replace(['(', ')'], "");
            // A letter by its command or by itself.
            lexer::letter(&name).unwrap_or(name)
        }
        "bar" | "overline" => format!("bar{{{inside}}}"),
        "vec" | "overrightarrow" => format!("vec{{{inside}}}"),
        "tilde" | "widetilde" => format!("tilde{{{inside}}}"),
        command if command.starts_with("math") => format!("math{{{inside}}}"),
        command => format!("{command}{{{inside}}}"),
    }
}
