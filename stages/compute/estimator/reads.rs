//! A pass's reads as tensors: computes each state once, the head once for each position and support, and picks
//! every event's log-probability from there: by the sampler's kernel (`picks.rs`), or from libtorch's distributions
//! in f64 and, where nothing is filtered, on a GPU. Knows no advantage and no ratio.

use std::collections::BTreeSet;

use tch::kind::Element;
use tch::{Kind, Tensor};

use super::picks::{self, place};
use super::unit::{Event, Read, Support, Unit};
use crate::dedup::Distinct;
use crate::error::Result;
use crate::kernels::rows::Rows;
use crate::model::{Policy, Queries, padding};
use crate::tensors::{length, numbers, upload};

/// How hidden states are computed from ids (B x L) at queried positions.
pub(super) type Forward<'a> = dyn FnMut(&Tensor, &Queries) -> Result<Tensor> + 'a;

/// Where a distribution is taken: state, position, support.
type Site = (usize, i64, Support);

/// One read as indices into tensors.
#[derive(Debug)]
struct Placed {
    factor: usize,
    site: usize,
    coefficient: f64,
    /// The token of the event; arbitrary if the event is not a token.
    token: i64,
    /// The position that loses, and the winners.
    loses: Option<(i64, Vec<Winner>)>,
}

/// Site, position and token.
type Winner = (usize, i64, i64);

/// The states of a pass and the reads from them.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) states: Distinct,
    sites: Distinct<Site>,
    reads: Vec<Placed>,
}

/// The results of the reads.
pub(super) struct Seen {
    /// The log-probability of each read's event, N.
    pub(super) value_N: Tensor,
    /// The logits at each site, in f32 or f64.
    logits_SV: Tensor,
}

impl Reads {
    /// The number of distinct states after adding this unit's.
    pub(super) fn states_with(&self, unit: &Unit) -> usize {
        let new: BTreeSet<_> =
            unit.states.iter().filter(|state| !self.states.contains(state)).collect();
        self.states() + new.len()
    }

    pub(super) fn states(&self) -> usize {
        self.states.all().len()
    }

    pub(super) fn add(&mut self, factor: usize, state: usize, read: &Read) {
        let site = self.site(state, read.position, &read.support);
        let (token, loses) = match &read.event {
            Event::Token(token) => (*token, None),
            Event::Loses(winners) => {
                let place = |&(position, token): &(i64, i64)| {
                    (self.site(state, position, &read.support), position, token)
                };
                (0, Some((read.position, winners.iter().map(place).collect())))
            }
        };
        self.reads.push(Placed { factor, site, coefficient: read.coefficient, token, loses });
    }

    fn site(&mut self, state: usize, position: i64, support: &Support) -> usize {
        self.sites.number((state, position, support.clone()))
    }

    /// Sums of the reads' values by factor, F.
    pub(super) fn sums(&self, value_N: &Tensor, factors: usize) -> Tensor {
        let factor: Vec<i64> = self.reads.iter().map(|read| length(read.factor)).collect();
        let coefficient: Vec<f64> = self.reads.iter().map(|read| read.coefficient).collect();
        let coefficient_N = on(value_N, &coefficient).to_kind(value_N.kind());
        let zero_F = Tensor::zeros([length(factors)], (value_N.kind(), value_N.device()));
        zero_F.index_add(0, &on(value_N, &factor), &(value_N * coefficient_N))
    }

    /// The log-probability of every read's event, from the policy's hidden states as `forward` gives them.
    pub(super) fn evaluate(
        &self,
        policy: &Policy,
        temperature: f64,
        forward: &mut Forward<'_>,
    ) -> Result<Seen> {
        let hidden_SD = self.hidden(policy.pads(), forward)?;
        let logits_SV = policy.head(&hidden_SD);
        let kind = if logits_SV.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        // Half precision ends at the head, as in the sampler.
        let logits_SV = logits_SV.to_kind(kind).contiguous();
        let picks: Vec<_> = self.reads.iter().map(|read| (read.site, read.token)).collect();
        let token_N = picks::logps(&logits_SV, &self.supports(), picks, temperature);
        let has_losses = self.reads.iter().any(|read| read.loses.is_some());
        let value_N = match token_N {
            Some(token_N) if !has_losses => token_N,
            token_N => {
                let logp_SV = self.distributions(&logits_SV, temperature).log_probabilities();
                self.with_losses(&logp_SV, token_N.unwrap_or_else(|| self.tokens(&logp_SV)))?
            }
        };
        Ok(Seen { value_N, logits_SV })
    }

    /// The entropy, in nats, of the distribution of each read, N.
    pub(super) fn entropy(&self, seen: &Seen, temperature: f64) -> Result<Vec<f64>> {
        let of_site = match picks::entropies(&seen.logits_SV, &self.supports(), temperature) {
            Some(entropies) => entropies,
            None => numbers(&self.distributions(&seen.logits_SV, temperature).entropies())?,
        };
        Ok(self.reads.iter().map(|read| of_site[read.site]).collect())
    }

    fn supports(&self) -> Vec<&Support> {
        self.sites.all().iter().map(|(_, _, support)| support).collect()
    }

    /// The distributions at each site, by libtorch.
    fn distributions(&self, logits_SV: &Tensor, temperature: f64) -> Rows {
        let impossible_SV = self.impossible(logits_SV.size()[1]);
        let impossible_SV = impossible_SV.map(|t| upload(&t, logits_SV.device()));
        Rows::new(logits_SV, temperature, impossible_SV.as_ref())
    }

    /// The log-probability of each read's token, N.
    fn tokens(&self, logp_SV: &Tensor) -> Tensor {
        let v = logp_SV.size()[1];
        let cell = |read: &Placed| length(read.site) * v + read.token;
        let picks: Vec<i64> = self.reads.iter().map(cell).collect();
        logp_SV.flatten(0, -1).index_select(0, &on(logp_SV, &picks))
    }

    /// The values with those of lost positions filled in:
    /// log F(kappa) = log sum over tokens v of p(v) with log p(v) < kappa (or = kappa, to the right of
    /// the holder of kappa), where kappa is the least log-probability among the winners. The set of
    /// tokens is held fixed in the derivative, which is exact but where two probabilities are equal.
    fn with_losses(&self, logp_SV: &Tensor, token_N: Tensor) -> Result<Tensor> {
        let losing = || {
            (0i64..).zip(&self.reads).filter_map(|(n, read)| Some((n, read, read.loses.as_ref()?)))
        };
        let all = || losing().flat_map(|(_, _, (_, to))| to);
        let v = logp_SV.size()[1];
        let cells: Vec<i64> = all().map(|&(site, _, token)| length(site) * v + token).collect();
        if losing().next().is_none() {
            return Ok(token_N);
        }
        // All winners are read at once.
        let winners = logp_SV.flatten(0, -1).index_select(0, &on(logp_SV, &cells));
        let mut winners = numbers::<f64>(&winners)?.into_iter();
        let (mut index, mut kappa, mut takes_ties, mut sites) = (vec![], vec![], vec![], vec![]);
        for (n, read, (position, to)) in losing() {
            let logp = |&(_, position, _): &Winner| (winners.next().unwrap_or(f64::NAN), position);
            // The weakest winner; of equals, the one furthest right.
            let weaker =
                |a: (f64, i64), b: (f64, i64)| if (b.0, -b.1) < (a.0, -a.1) { b } else { a };
            let weakest = to.iter().map(logp).reduce(weaker);
            let (least, holder) = weakest.unwrap_or((f64::INFINITY, 0));
            kappa.push(least);
            takes_ties.push(*position > holder);
            sites.push(length(read.site));
            index.push(n);
        }
        let logp_QV = logp_SV.index_select(0, &on(logp_SV, &sites));
        let kappa_Q1 = on(logp_SV, &kappa).to_kind(logp_SV.kind()).unsqueeze(-1);
        let ties_Q1 = on(logp_SV, &takes_ties).unsqueeze(-1);
        let tied_QV = logp_QV.eq_tensor(&kappa_Q1).logical_and(&ties_Q1);
        let drawable_QV = logp_QV.gt(f64::NEG_INFINITY);
        let below_QV = logp_QV.lt_tensor(&kappa_Q1).logical_or(&tied_QV).logical_and(&drawable_QV);
        // Under another policy than the one that sampled, there may be no token below.
        let possible_Q1 = below_QV.any_dim(-1, true);
        let outside_QV = below_QV.logical_not().logical_and(&possible_Q1);
        let mass_Q = logp_QV.masked_fill(&outside_QV, f64::NEG_INFINITY).logsumexp([-1], false);
        // In place of log 0: an exact 0 would make the ratio's derivative NaN.
        let mass_Q = mass_Q.masked_fill(&possible_Q1.squeeze_dim(-1).logical_not(), -80.0);
        Ok(token_N.index_copy(0, &on(logp_SV, &index), &mass_Q))
    }

    /// Hidden states at each site, S x D: every state is queried at its own positions, padded to the
    /// longest list, and each site picks its row.
    fn hidden(&self, may_pad: bool, forward: &mut Forward<'_>) -> Result<Tensor> {
        let mut queried = vec![BTreeSet::new(); self.states()];
        for (state, position, _) in self.sites.all() {
            queried[*state].insert(*position);
        }
        let widest = queried.iter().map(BTreeSet::len).max().unwrap_or(0);
        // All states have this many places without a token, where none may be in a pass.
        let all = self.states.all();
        let skip = if may_pad { 0 } else { all.first().map_or(0, |state| padding(state)) };
        let (mut ids, mut queries) = (vec![], vec![]);
        for (state, positions) in all.iter().zip(&queried) {
            ids.extend_from_slice(&state[skip..]);
            let last = positions.last().copied().unwrap_or(length(skip));
            let padded = positions.iter().copied().chain(std::iter::repeat(last));
            queries.extend(padded.take(widest).map(|position| position - length(skip)));
        }
        let picks: Vec<i64> = self
            .sites
            .all()
            .iter()
            .map(|(state, position, _)| {
                length(state * widest + queried[*state].range(..position).count())
            })
            .collect();
        let matrix = |ids: &[i64]| Tensor::from_slice(ids).view([length(all.len()), -1]);
        let hidden_BQD = forward(&matrix(&ids), &Queries::At(matrix(&queries)))?;
        Ok(hidden_BQD.flatten(0, 1).index_select(0, &on(&hidden_BQD, &picks)))
    }

    /// The tokens outside each site's support, broadcastable to S x V; `None` if there are none.
    fn impossible(&self, v: i64) -> Option<Tensor> {
        let vocabulary = usize::try_from(v).expect("sizes are positive");
        let fill = |support: &Support, row: &mut [bool]| match support {
            Support::Whole => {}
            Support::AllBut(id) => row[place(*id)] = true,
            Support::Kept(kept) => {
                row.fill(true);
                kept.iter().for_each(|&id| row[place(id)] = false);
            }
        };
        let mut sites = self.sites.all();
        let first = &sites.first()?.2;
        // One row serves all where there is no filter: memory does not grow with the vocabulary.
        if sites.iter().all(|(_, _, support)| support == first) {
            sites = &sites[..1];
            if *first == Support::Whole {
                return None;
            }
        }
        let mut cells = vec![false; sites.len() * vocabulary];
        for ((_, _, support), row) in sites.iter().zip(cells.chunks_mut(vocabulary)) {
            fill(support, row);
        }
        Some(Tensor::from_slice(&cells).view([-1, v]))
    }
}

/// Numbers on the device of `beside`.
fn on<T: Element>(beside: &Tensor, numbers: &[T]) -> Tensor {
    upload(&Tensor::from_slice(numbers), beside.device())
}
