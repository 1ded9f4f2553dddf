//! Log-probabilities of picked tokens from logits of f32, by the sampler's kernel, and their derivatives: on the processor
//! under every support; on a GPU of kept sets, whose logits alone come to the host. Makes no distribution of V numbers for
//! the values, and one row of V for the gradient of each site.

use std::borrow::Cow;

use tch::{Device, Kind, Tensor};

use super::unit::Support;
use crate::kernels::memory::{filled, in_one_piece, numbers};
use crate::kernels::phases::{Phase, measured};
use crate::kernels::row::{Row, largest};
use crate::kernels::softmax::Softmax;
use crate::kernels::{compute, differentiable};
use crate::tensors::{length, upload};

/// A token at a site: the site's row of the logits and the token's id.
pub(super) type Pick = (usize, i64);

/// log p of every pick, N, differentiable by the logits, S x V; `None` where libtorch computes it.
pub(super) fn logps(
    logits_SV: &Tensor,
    supports: &[&Support],
    picks: Vec<Pick>,
    temperature: f64,
) -> Option<Tensor> {
    if compute(logits_SV) {
        return Some(by_kernel(logits_SV, supports, picks, temperature));
    }
    let is_single = logits_SV.kind() == Kind::Float;
    is_single.then(|| from_device(logits_SV, supports, picks, temperature)).flatten()
}

/// The same of logits on a device, where all supports are kept sets. Their logits come to the host, S x the size of the
/// largest set, and their gradients go back.
fn from_device(
    logits_SV: &Tensor,
    supports: &[&Support],
    mut picks: Vec<Pick>,
    temperature: f64,
) -> Option<Tensor> {
    let kept = |support: &&Support| match *support {
        Support::Kept(ids) => Some(ids.clone()),
        Support::Whole | Support::AllBut(_) => None,
    };
    let kept: Vec<Vec<i64>> = supports.iter().map(kept).collect::<Option<_>>()?;
    // In a kept set a token is at its place; one outside it has none.
    let place = |(site, token): &Pick| kept[*site].iter().position(|id| id == token);
    let places: Vec<i64> = picks.iter().map(|pick| place(pick).map_or(-1, length)).collect();
    picks.iter_mut().zip(places).for_each(|((_, token), place)| *token = place);
    let widest = kept.iter().map(Vec::len).max()?;
    let mut ids = vec![];
    for set in &kept {
        ids.extend(set.iter().copied().chain(std::iter::repeat(0)).take(widest));
    }
    let ids_SK = Tensor::from_slice(&ids).view([length(kept.len()), length(widest)]);
    let kept_SK = logits_SV.gather(1, &upload(&ids_SK, logits_SV.device()), false);
    let own: Vec<Support> =
        kept.iter().map(|ids| Support::Kept((0..length(ids.len())).collect())).collect();
    let own: Vec<&Support> = own.iter().collect();
    let logp_N = by_kernel(&kept_SK.to_device(Device::Cpu), &own, picks, temperature);
    Some(logp_N.to_device(logits_SV.device()))
}

fn by_kernel(
    logits_SV: &Tensor,
    supports: &[&Support],
    picks: Vec<Pick>,
    temperature: f64,
) -> Tensor {
    let sites = sites(numbers(logits_SV), supports);
    let softmaxes: Vec<Softmax> =
        measured(Phase::Choice, || sites.iter().map(|site| site.softmax(temperature)).collect());
    let logp = |&(site, token): &Pick| match sites[site].place(token) {
        Some(place) => softmaxes[site].logp(sites[site].values[place]),
        None => f32::NEG_INFINITY,
    };
    let logp_N = Tensor::from_slice(&picks.iter().map(logp).collect::<Vec<f32>>());
    let supports: Vec<Support> = supports.iter().map(|&support| support.clone()).collect();
    let saved_SV = logits_SV.detach();
    let backward = move |grad_N: &Tensor| {
        let softmaxes = (&supports[..], &softmaxes[..]);
        vec![Some(measured(Phase::Choice, || gradient(grad_N, &saved_SV, softmaxes, &picks)))]
    };
    differentiable(&[logits_SV], logp_N, backward)
}

/// The entropy, in nats, of each site's distribution, S; `None` where the logits are not on the processor in f32.
pub(super) fn entropies(
    logits_SV: &Tensor,
    supports: &[&Support],
    temperature: f64,
) -> Option<Vec<f64>> {
    let entropy = |site: Site<'_>| site.softmax(temperature).entropy();
    compute(logits_SV)
        .then(|| sites(numbers(logits_SV), supports).into_iter().map(entropy).collect())
}

/// The gradient of the logits, S x V.
fn gradient(
    grad_N: &Tensor,
    logits_SV: &Tensor,
    (supports, softmaxes): (&[Support], &[Softmax]),
    picks: &[Pick],
) -> Tensor {
    let grad_N = in_one_piece(grad_N);
    let (grads, logits) = (numbers(&grad_N), numbers(logits_SV));
    let supports: Vec<&Support> = supports.iter().collect();
    let sites = sites(logits, &supports);
    let mut of_site = vec![vec![]; sites.len()];
    for (&(site, token), &grad) in picks.iter().zip(grads) {
        of_site[site].extend(sites[site].place(token).map(|place| (place, f64::from(grad))));
    }
    filled(&logits_SV.size(), |all| {
        all.fill(0.0);
        let rows = all.chunks_mut((logits.len() / sites.len().max(1)).max(1));
        for (((site, softmax), picks), row) in sites.iter().zip(softmaxes).zip(&of_site).zip(rows) {
            if !picks.is_empty() {
                site.add_gradient(softmax, picks, row);
            }
        }
    })
}

/// The logits of one site's support.
struct Site<'a> {
    values: Cow<'a, [f32]>,
    excluded: Option<usize>,
    /// The ids of the values, where they are those of a kept set.
    kept: Option<&'a [i64]>,
}

fn sites<'a>(logits: &'a [f32], supports: &[&'a Support]) -> Vec<Site<'a>> {
    let rows = logits.chunks((logits.len() / supports.len().max(1)).max(1));
    let site = |(row, support): (&'a [f32], &&'a Support)| match support {
        Support::Whole => Site { values: row.into(), excluded: None, kept: None },
        Support::AllBut(id) => Site { values: row.into(), excluded: Some(place(*id)), kept: None },
        Support::Kept(ids) => {
            let values = ids.iter().map(|&id| row[place(id)]).collect();
            Site { values: Cow::Owned(values), excluded: None, kept: Some(ids) }
        }
    };
    rows.zip(supports).map(site).collect()
}

impl Site<'_> {
    fn row(&self) -> Row<'_> {
        Row { values: &self.values, excluded: self.excluded }
    }

    fn softmax(&self, temperature: f64) -> Softmax {
        let row = self.row();
        Softmax::new(&row, largest(&row.maxima()), temperature)
    }

    /// Where among the values a token is, if it is in the support.
    fn place(&self, token: i64) -> Option<usize> {
        match self.kept {
            Some(kept) => kept.iter().position(|id| *id == token),
            None => Some(place(token)).filter(|place| self.excluded != Some(*place)),
        }
    }

    fn add_gradient(&self, softmax: &Softmax, picks: &[(usize, f64)], gradient: &mut [f32]) {
        let Some(kept) = self.kept else {
            return softmax.add_gradient(&self.row(), picks, gradient);
        };
        let mut of_kept = vec![0.0; kept.len()];
        softmax.add_gradient(&self.row(), picks, &mut of_kept);
        for (&id, value) in kept.iter().zip(of_kept) {
            gradient[place(id)] += value;
        }
    }
}

/// The place of an id in a row of the whole vocabulary.
pub(super) fn place(id: i64) -> usize {
    usize::try_from(id).expect("ids were checked with the batch")
}

#[cfg(test)]
mod tests {
    use agrpo_spec::Seed;
    use tch::Kind;

    use super::*;

    const SITES: i64 = 4;
    const VOCABULARY: i64 = 1100;

    fn logits(kind: Kind) -> Tensor {
        let seed = Seed::new(3);
        let uniform = |n| 8.0 * seed.uniform(n, 0) - 4.0;
        let all: Vec<f64> = (0..u32::try_from(SITES * VOCABULARY).unwrap()).map(uniform).collect();
        // One set of numbers for both kinds: those of f32.
        let all = Tensor::from_slice(&all).to_kind(Kind::Float).to_kind(kind);
        all.view([SITES, VOCABULARY]).set_requires_grad(true)
    }

    /// Values and gradients are those of libtorch in f64, under every support; a token that is picked twice counts
    /// twice, and one outside the support has no probability.
    #[test]
    fn picks_and_their_gradients_are_those_of_the_distribution() {
        let kept = Support::Kept(vec![2, 3, 500, 1024, 1099]);
        let supports = [&Support::Whole, &Support::AllBut(7), &kept, &kept];
        let picks = vec![(0, 7), (1, 1099), (1, 1099), (2, 500), (1, 0), (2, 2)];
        let temperature = 0.7;

        let ours = logits(Kind::Float);
        let found = logps(&ours, &supports, picks.clone(), temperature).unwrap();
        let theirs = logits(Kind::Double);
        assert!(logps(&theirs, &supports, picks.clone(), temperature).is_none());
        let mut outside = vec![false; usize::try_from(SITES * VOCABULARY).unwrap()];
        for (row, support) in outside.chunks_mut(1100).zip(supports) {
            match support {
                Support::Whole => {}
                Support::AllBut(id) => row[place(*id)] = true,
                Support::Kept(ids) => {
                    row.fill(true);
                    ids.iter().for_each(|&id| row[place(id)] = false);
                }
            }
        }
        let outside = Tensor::from_slice(&outside).view([SITES, VOCABULARY]);
        let scaled = (&theirs / temperature).masked_fill(&outside, f64::NEG_INFINITY);
        let cell = |&(site, token): &Pick| i64::try_from(site).unwrap() * VOCABULARY + token;
        let cells: Vec<i64> = picks.iter().map(cell).collect();
        let all = scaled.log_softmax(-1, Kind::Double).flatten(0, 1);
        let expected = all.index_select(0, &Tensor::from_slice(&cells));
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(apart(&found, &expected) < 2e-6, "{}", apart(&found, &expected));

        let weight_N = Tensor::from_slice(&[0.5, -1.0, 0.25, 2.0, 1.5, -0.75]);
        (&found * &weight_N.to_kind(Kind::Float)).sum(Kind::Float).backward();
        (&expected * &weight_N).sum(Kind::Double).backward();
        let gradients = (ours.grad(), theirs.grad());
        assert!(apart(&gradients.0, &gradients.1) < 2e-6);
        assert_eq!(gradients.0.get(3).abs().max().double_value(&[]), 0.0, "nothing was picked");

        let outside = logps(&ours, &supports, vec![(1, 7), (2, 4)], temperature).unwrap();
        assert!(outside.eq(f64::NEG_INFINITY).all().int64_value(&[]) == 1);
    }

    /// On a device kept logits alone are read, and nothing else differs: the same bits, gradients included.
    #[test]
    fn kept_sets_give_on_a_device_what_they_give_on_the_processor() {
        let (few, many) = (Support::Kept(vec![2, 3, 500]), Support::Kept((5..705).collect()));
        let supports = [&few, &many, &few, &many];
        let picks = vec![(0, 3), (1, 5), (1, 704), (1, 704), (2, 2), (3, 100)];
        let computed = |of: fn(&Tensor, &[&Support], Vec<Pick>, f64) -> Tensor| {
            let logits = logits(Kind::Float);
            let found = of(&logits, &supports, picks.clone(), 0.7);
            (&found * Tensor::from_slice(&[0.5f32, -1.0, 0.25, 2.0, 1.5, -0.75]))
                .sum(Kind::Float)
                .backward();
            (found.detach(), logits.grad())
        };
        let on_device = computed(|logits, supports, picks, temperature| {
            from_device(logits, supports, picks, temperature).unwrap()
        });
        assert_eq!(on_device, computed(by_kernel));
        let logits = logits(Kind::Float);
        let outside = from_device(&logits, &supports, vec![(0, 4)], 1.0).unwrap();
        assert_eq!(outside.double_value(&[0]), f64::NEG_INFINITY);
        assert!(from_device(&logits, &[&few, &Support::AllBut(7)], vec![], 1.0).is_none());
    }
}
