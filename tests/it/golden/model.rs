//! Logits against LLaDA's modelling code, and queried positions against the whole pass.

use agrpo_compute::model::Queries;
use tch::Tensor;

use super::{policy, tensors};

#[test]
fn logits_are_the_reference_s() {
    let expected = tensors("llada_tiny/expected.safetensors");
    let policy = policy();
    let hidden = policy.hidden(&expected["forward.input_ids"], &Queries::All).unwrap();
    let logits = policy.head(&hidden);
    let worst = (&logits - &expected["forward.logits"]).abs().max().double_value(&[]);
    assert!(worst < 1e-4, "largest difference {worst}");
}

/// What the last block and the head leave out must not change what they compute.
#[test]
fn queried_positions_are_those_of_the_whole_pass() {
    let input = &tensors("llada_tiny/expected.safetensors")["forward.input_ids"];
    let policy = policy();
    let whole = policy.hidden(input, &Queries::All).unwrap();
    let (rows, length) = input.size2().unwrap();
    let (start, len) = (length / 5, length / 4);
    let range = policy.hidden(input, &Queries::Range { start, len }).unwrap();
    let positions = [length / 3, length - 1, 0];
    let at = Tensor::from_slice(&positions).expand([rows, 3], false).contiguous();
    let picked = policy.hidden(input, &Queries::At(at.shallow_clone())).unwrap();
    let close = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-5;
    assert!(close(&range, &whole.narrow(1, start, len)));
    assert!(close(&picked, &whole.index_select(1, &Tensor::from_slice(&positions))));
}
