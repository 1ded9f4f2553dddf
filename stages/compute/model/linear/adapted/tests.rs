//! Tests against the formula in f64: exactly in f64, within the rounding of bf16 in half precision.

use agrpo_spec::Seed;
use tch::Device;

use super::*;
use crate::model::linear::of_kind;

const INPUTS: i64 = 24;
const OUTPUTS: [i64; 3] = [20, 12, 8];
const RANK: i64 = 5;

/// Numbers that bf16 holds, so that all kinds compute with the same.
fn noise(seed: u64, size: &[i64]) -> Tensor {
    let count = u32::try_from(size.iter().product::<i64>()).unwrap();
    let all: Vec<f64> = (0..count).map(|n| Seed::new(seed).uniform(n, 0) - 0.5).collect();
    Tensor::from_slice(&all).to_kind(Kind::BFloat16).to_kind(Kind::Double).view(size)
}

/// Three modules of unequal sizes, the second without an adapter, in a kind; masters are f32 at least.
fn modules(kind: Kind) -> (Tensor, Tensor, Vec<Module>) {
    let master = if kind == Kind::Double { kind } else { Kind::Float };
    let leaf = |seed, size: &[i64]| noise(seed, size).to_kind(master).set_requires_grad(true);
    let lora = |seed, outputs| Lora {
        a_RxI: leaf(seed, &[RANK, INPUTS]),
        b_OxR: leaf(seed + 1, &[outputs, RANK]),
        scale: 2.0,
    };
    let x = noise(1, &[3, 7, INPUTS]).to_kind(kind).set_requires_grad(true);
    let w = noise(2, &[OUTPUTS.iter().sum(), INPUTS]).to_kind(kind);
    let lora = [Some(lora(3, OUTPUTS[0])), None, Some(lora(5, OUTPUTS[2]))];
    let module = |(lora, outputs)| Module { name: String::new(), outputs, lora };
    (x, w, lora.into_iter().zip(OUTPUTS).map(module).collect())
}

/// y, and the gradients of x and of each A and B, of a sum of y weighted by noise.
fn computed(of: impl Fn(&Tensor, &Tensor, &[Module]) -> Tensor, kind: Kind) -> Vec<Tensor> {
    let (x, w, modules) = modules(kind);
    let y = of(&x, &w, &modules);
    (&y * noise(9, &y.size()).to_kind(kind)).sum(kind).backward();
    let lora = modules.iter().filter_map(|module| module.lora.as_ref());
    let leaves = lora.flat_map(|lora| [&lora.a_RxI, &lora.b_OxR]);
    let gradients = leaves.map(Tensor::grad);
    [y.detach(), x.grad()].into_iter().chain(gradients).collect()
}

/// y = x W' + s (x A') B', module by module.
fn formula(x: &Tensor, w: &Tensor, modules: &[Module]) -> Tensor {
    let of = |(w_OI, module): (Tensor, &Module)| match &module.lora {
        Some(lora) => {
            x.matmul(&w_OI.tr()) + x.matmul(&lora.a_RxI.tr()).matmul(&lora.b_OxR.tr()) * 2.0
        }
        None => x.matmul(&w_OI.tr()),
    };
    let all: Vec<Tensor> =
        w.split_with_sizes(OUTPUTS, 0).into_iter().zip(modules).map(of).collect();
    Tensor::cat(&all, -1)
}

/// The largest difference, as a share of the largest number.
fn apart(found: &Tensor, exact: &Tensor) -> f64 {
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    largest(&(found.to_kind(Kind::Double) - exact)) / largest(exact)
}

#[test]
fn outputs_and_gradients_are_those_of_the_formula() {
    let exact = computed(formula, Kind::Double);
    for (found, exact) in computed(adapted, Kind::Double).iter().zip(&exact) {
        assert!(apart(found, exact) < 1e-14, "{}", apart(found, exact));
    }
    let half = computed(adapted, Kind::BFloat16);
    for (n, (found, exact)) in half.iter().zip(&exact).enumerate() {
        let kind = if n < 2 { Kind::BFloat16 } else { Kind::Float };
        assert_eq!(
            (found.kind(), found.size()),
            (kind, exact.size()),
            "masters' gradients are f32"
        );
        assert!(apart(found, exact) < 0.02, "{n}: {}", apart(found, exact));
    }
}

/// A pass alone, or among others, and with or without a graph: the same bits.
#[test]
fn a_row_does_not_depend_on_its_neighbours_in_half_precision() {
    let (x, w, modules) = self::modules(Kind::BFloat16);
    let whole = adapted(&x, &w, &modules);
    let _no_grad = no_grad_guard();
    for (n, count) in [(0, 1), (1, 1), (1, 2), (0, 3)] {
        assert_eq!(adapted(&x.narrow(0, n, count), &w, &modules), whole.narrow(0, n, count));
    }
}

/// What is not asked for is not computed: no gradient of x, where x is not trained below.
#[test]
fn a_frozen_master_gets_no_gradient() {
    let (x, w, mut modules) = self::modules(Kind::BFloat16);
    let x = of_kind(&x, Kind::BFloat16);
    let frozen = of_kind(&modules[0].lora.as_ref().unwrap().a_RxI, Kind::Float);
    modules[0].lora.as_mut().unwrap().a_RxI = frozen;
    adapted(&x, &w, &modules).sum(Kind::BFloat16).backward();
    let of = |n: usize| modules[n].lora.as_ref().unwrap();
    assert!(!x.grad().defined() && !of(0).a_RxI.grad().defined());
    assert!(of(0).b_OxR.grad().defined() && of(2).a_RxI.grad().defined());
    assert_eq!(of(2).a_RxI.grad().device(), Device::Cpu);
}
