//! Dispatches to the rules of d1 or AGRPO, which are in files of their own.

use agrpo_spec::Protocol;

use crate::grade::Grade;
use crate::problem::Problem;
use crate::verdict::Verdict;
use crate::{agrpo, d1};

/// What a completion earns in training under a protocol. Never fails: what cannot be read earns nothing.
#[must_use]
pub fn reward(problem: &Problem, protocol: Protocol, completion: &str) -> Grade {
    match protocol {
        Protocol::D1 => d1::reward(problem, completion),
        Protocol::Agrpo => agrpo::reward(problem, completion),
    }
}

/// What a protocol's evaluation says of a completion.
#[must_use]
pub fn verdict(problem: &Problem, protocol: Protocol, completion: &str) -> Verdict {
    match protocol {
        Protocol::D1 => d1::evaluation::verdict(problem, completion),
        Protocol::Agrpo => agrpo::verdict(problem, completion),
    }
}
