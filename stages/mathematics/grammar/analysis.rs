//! Sums, products, limits, integrals and derivatives.
//!
//! Derivatives are computed by rule, and so are integrals without bounds; without a rule, they are unreadable. The
//! others keep their shape and are evaluated as numbers (see `numerical.rs`).

use super::Parser;
use crate::calculus::{antiderivative, derivative};
use crate::lexer::Token;
use crate::value::{Kind, Node};

impl Parser<'_> {
    /// A sum, product, limit or integral.
    pub(super) fn analysis(&mut self) -> Option<Node> {
        match self.take(&["sum", "prod", "lim", "int"])? {
            "sum" => self.series(Kind::Sum),
            "prod" => self.series(Kind::Product),
            "lim" => self.limit(),
            _ => self.integral(),
        }
    }

    /// `_{k=1}^n`, or the other way round, and a product.
    fn series(&mut self, kind: Kind) -> Option<Node> {
        let to = self.attempt(Self::superscript);
        self.take(&["_"])?;
        let (name, from) = self.enclosed("{", "}", |parser| {
            let name = parser.bound_name()?;
            parser.take(&["="])?;
            Some((name, parser.expression()?))
        })?;
        let to = to.or_else(|| self.attempt(Self::superscript));
        Some(Node::bound(kind, name, self.product(false)?, from, to?))
    }

    fn bound_name(&mut self) -> Option<String> {
        match self.symbol()? {
            Node::Symbol { name, .. } => Some(name),
            _ => None,
        }
    }

    /// `_{x \to 0}`, perhaps from one side, and a product.
    fn limit(&mut self) -> Option<Node> {
        self.take(&["_"])?;
        let (name, place, side) = self.enclosed("{", "}", |parser| {
            let name = parser.bound_name()?;
            parser.take(&["to"])?;
            let place = parser.expression()?;
            let side = parser.attempt(|parser| {
                parser.take(&["^"])?;
                parser.enclosed("{", "}", |parser| parser.take(&["+", "-"]))
            });
            Some((name, place, side))
        })?;
        let side = if side == Some("-") { -1 } else { 1 };
        Some(Node::bound(Kind::Limit, name, self.product(false)?, place, Node::whole(side)))
    }

    fn integral(&mut self) -> Option<Node> {
        let above_first = self.attempt(Self::superscript);
        let below = self.attempt(|parser| parser.script("_"));
        let above = above_first.or_else(|| self.attempt(Self::superscript));
        if below.is_some() != above.is_some() {
            return None;
        }
        // The differential ends the integrand, or stands somewhere in it.
        let ended = self.attempt(|parser| {
            parser.differentials = false;
            let body = parser.attempt(Self::expression).unwrap_or_else(|| Node::whole(1));
            parser.differentials = true;
            let Some(Token::Differential(name)) = parser.peek().cloned() else { return None };
            parser.next += 1;
            Some((name.to_lowercase(), body))
        });
        self.differentials = true;
        let (name, body) = match ended {
            Some(ended) => ended,
            None => without_differential(self.expression()?),
        };
        match below.zip(above) {
            Some((from, to)) => Some(Node::bound(Kind::Integral, name, body, from, to)),
            None => antiderivative(&body, &name),
        }
    }

    /// `\frac{d}{dx}`, which derives what follows, or `\frac{dy}{dx}`.
    pub(super) fn derivative(&mut self) -> Option<Node> {
        self.take(&["frac"])?;
        self.take(&["{"])?;
        let first = self.peek().cloned()?;
        let start = self.next;
        self.next += 1;
        let upper = match first {
            Token::Symbol(name) if name == "d" && self.take(&["}"]).is_some() => None,
            Token::Symbol(name) if name == "d" => {
                let upper = self.expression()?;
                self.take(&["}"])?;
                Some(upper)
            }
            // In `dx^2` the letter stands behind the sign.
            Token::Differential(name) => {
                let mut tokens = self.tokens.to_vec();
                *tokens.get_mut(start)? = Token::Symbol(name.to_lowercase());
                let (next, depth, steps) = (start, self.depth + 1, self.steps);
                let new = Parser::new(&tokens, self.complex);
                let mut inside = Parser { next, depth, steps, ..new };
                let upper = inside.expression()?;
                (self.next, self.steps) = (inside.next, inside.steps);
                self.take(&["}"])?;
                Some(upper)
            }
            _ => return None,
        };
        self.take(&["{"])?;
        let Some(Token::Differential(name)) = self.peek().cloned() else { return None };
        self.next += 1;
        self.take(&["}"])?;
        let body = match upper {
            Some(upper) => upper,
            None => self.factors(false)?,
        };
        derivative(&body, &name.to_lowercase())
    }
}

/// The name that an integrand is integrated by, if its differential stands somewhere in it, and the rest.
fn without_differential(body: Node) -> (String, Node) {
    let mut names = body.symbols().into_iter();
    let Some(found) = names.find(|name| name.len() > 1 && name.starts_with('d')) else {
        return ("x".to_owned(), body);
    };
    let gone = |node: &Node| match node {
        Node::Symbol { name, .. } if *name == found => Some(Node::whole(1)),
        _ => None,
    };
    (found[1..].to_owned(), body.mapped(&gone))
}
