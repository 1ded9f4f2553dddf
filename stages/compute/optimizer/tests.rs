//! Tests of the optimizer: AdamW's arithmetic, a clip, a schedule, and a state that goes on.

use std::num::NonZeroUsize;

use agrpo_spec::Real;

use super::*;

fn config(schedule: Schedule, warmup: u32) -> OptimizerConfig {
    let real = |x| Real::new(x).unwrap();
    OptimizerConfig {
        learning_rate: real(0.1),
        beta1: real(0.9),
        beta2: real(0.99),
        eps: real(1e-8),
        weight_decay: real(0.5),
        max_grad_norm: real(1.0),
        warmup,
        starts_at_zero: false,
        schedule,
        final_ratio: real(0.0),
    }
}

fn one(name: &str, values: &[f32]) -> NamedTensors {
    NamedTensors::from([(name.to_owned(), Tensor::from_slice(values))])
}

#[test]
fn the_first_step_moves_by_the_learning_rate_against_the_sign() {
    let mut parameters = one("w.weight", &[1.0, 1.0]);
    let mut adam = AdamW::new(&parameters);
    let gradients = one("w.weight", &[0.3, -0.4]);
    let taken = adam
        .step(&mut parameters, &gradients, &config(Schedule::Constant, 0), (1, 10), &Threads::one())
        .unwrap();
    assert!((taken.grad_norm - 0.5).abs() < 1e-7);
    let moved = tensors::numbers::<f32>(&parameters["w.weight"]).unwrap();
    // 1 * (1 - 0.1 * 0.5) -+ 0.1
    assert!((moved[0] - 0.85).abs() < 1e-5 && (moved[1] - 1.05).abs() < 1e-5, "{moved:?}");
}

#[test]
fn norms_do_not_decay_and_large_gradients_are_clipped() {
    let mut parameters = one("ln_f.weight", &[1.0]);
    let mut adam = AdamW::new(&parameters);
    let taken = adam
        .step(
            &mut parameters,
            &one("ln_f.weight", &[30.0]),
            &config(Schedule::Constant, 0),
            (1, 10),
            &Threads::one(),
        )
        .unwrap();
    assert!((taken.grad_norm - 30.0).abs() < 1e-5);
    let first = tensors::numbers::<f32>(&adam.moments["ln_f.weight"][0]).unwrap()[0];
    assert!((first - 0.1).abs() < 1e-5, "0.1 of a gradient clipped to norm 1, not {first}");
    let moved = tensors::numbers::<f32>(&parameters["ln_f.weight"]).unwrap()[0];
    assert!((moved - 0.9).abs() < 1e-5, "{moved}");
}

#[test]
fn warm_up_rises_and_the_cosine_falls() {
    let rate = |n| learning_rate(&config(Schedule::Cosine, 4), n, 12);
    assert!((rate(1) - 0.025).abs() < 1e-12 && (rate(4) - 0.1).abs() < 1e-12);
    assert!((rate(5) - 0.1).abs() < 1e-12 && (rate(9) - 0.05).abs() < 1e-12);
    assert!(rate(12) > 0.0 && rate(12) < 0.01);
}

/// The closed form of transformers' `get_cosine_schedule_with_warmup`, which counts steps from 0, and of its
/// `get_constant_schedule_with_warmup`; with GSM8K's published lengths among them.
#[test]
fn a_warm_up_that_starts_at_zero_is_that_of_transformers() {
    for (warmup, total) in [(24, 2335), (13, 1250), (1, 5), (0, 7), (5, 5)] {
        for schedule in [Schedule::Cosine, Schedule::Constant] {
            let config = OptimizerConfig { starts_at_zero: true, ..config(schedule, warmup) };
            for step in 0..total {
                let after = f64::from(step) - f64::from(warmup);
                let share = if step < warmup {
                    f64::from(step) / f64::from(warmup)
                } else if schedule == Schedule::Constant {
                    1.0
                } else {
                    0.5 * (1.0 + (std::f64::consts::PI * after / f64::from(total - warmup)).cos())
                };
                let found = learning_rate(&config, step + 1, total);
                assert!((found - 0.1 * share).abs() < 1e-15, "{warmup}, {total}, {step}: {found}");
            }
        }
    }
    let published = OptimizerConfig { starts_at_zero: true, ..config(Schedule::Cosine, 24) };
    assert_eq!(learning_rate(&published, 1, 2335), 0.0);
}

#[test]
fn saved_state_goes_on_to_the_bit() {
    let gradients = [one("w.weight", &[0.3, -0.4]), one("w.weight", &[-0.1, 0.2])];
    let settings = config(Schedule::Cosine, 1);
    let start = || one("w.weight", &[1.0, -2.0]);
    let (mut whole, mut parameters) = (AdamW::new(&start()), start());
    whole.step(&mut parameters, &gradients[0], &settings, (1, 2), &Threads::one()).unwrap();
    let saved = whole.to_bytes().unwrap();
    let mut copy = NamedTensors::from([("w.weight".into(), parameters["w.weight"].copy())]);
    let mut resumed = AdamW::read(&saved.into(), &copy, &Threads::one()).unwrap();
    whole.step(&mut parameters, &gradients[1], &settings, (2, 2), &Threads::one()).unwrap();
    resumed.step(&mut copy, &gradients[1], &settings, (2, 2), &Threads::one()).unwrap();
    assert_eq!(whole.to_bytes().unwrap(), resumed.to_bytes().unwrap());
    assert_eq!(
        tensors::numbers::<f32>(&parameters["w.weight"]).unwrap(),
        tensors::numbers::<f32>(&copy["w.weight"]).unwrap()
    );
}

/// More numbers than one thread takes at a time, and none.
#[test]
fn a_step_is_the_same_for_any_number_of_threads_and_as_one_by_one() {
    let wave = |step: f32| -> Vec<f32> { (0..200_000).map(|n| (n as f32 * step).sin()).collect() };
    let named = |step| {
        NamedTensors::from([
            ("empty.weight".to_owned(), Tensor::from_slice::<f32>(&[])),
            ("w.weight".to_owned(), Tensor::from_slice(&wave(step))),
        ])
    };
    let settings = config(Schedule::Constant, 0);
    let after = |threads| {
        let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
        let (mut adam, mut parameters) = (AdamW::new(&named(0.1)), named(0.1));
        let taken = [0.3, 0.7].map(|step| {
            adam.step(&mut parameters, &named(step), &settings, (1, 2), &threads).unwrap()
        });
        (tensors::numbers::<f32>(&parameters["w.weight"]).unwrap(), taken[1].grad_norm)
    };
    let (one, norm) = after(1);
    assert!((2..5).all(|threads| after(threads) == (one.clone(), norm)));
    let square: f64 = wave(0.7).iter().map(|x| f64::from(*x).powi(2)).sum();
    assert!((norm - square.sqrt()).abs() < 1e-9 * norm);
    // Number 70,000 in f64, by the formula.
    let (mut p, mut m, mut v) = (f64::from(wave(0.1)[70_000]), 0.0, 0.0);
    for (t, step) in [(1, 0.3f32), (2, 0.7)] {
        let square: f64 = wave(step).iter().map(|x| f64::from(*x).powi(2)).sum();
        let g = f64::from(wave(step)[70_000]) / square.sqrt();
        m = 0.9 * m + 0.1 * g;
        v = 0.99 * v + 0.01 * g * g;
        let root = (v / (1.0 - 0.99f64.powi(t))).sqrt();
        p = p * (1.0 - 0.1 * 0.5) - 0.1 * m / (1.0 - 0.9f64.powi(t)) / (root + 1e-8);
    }
    assert!((f64::from(one[70_000]) - p).abs() < 1e-6, "{} {p}", one[70_000]);
}

#[test]
fn a_diverged_gradient_is_refused_and_changes_nothing() {
    let mut parameters = one("w.weight", &[1.0]);
    let mut adam = AdamW::new(&parameters);
    let bad = one("w.weight", &[f32::NAN]);
    let error = adam
        .step(&mut parameters, &bad, &config(Schedule::Constant, 0), (3, 9), &Threads::one())
        .unwrap_err();
    assert!(error.to_string().contains("step 3"), "{error}");
    assert_eq!(tensors::numbers::<f32>(&parameters["w.weight"]).unwrap(), [1.0]);
}
