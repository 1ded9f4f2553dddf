//! Operations of our own in autograd's graph. The C++ half, `autograd.cpp`, is the smallest that `tch` lacks: a node
//! whose backward pass is a Rust closure. Knows no operation.

#![expect(unsafe_code, reason = "libtorch's graph is C++, which tch does not expose")]

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;

/// From the gradient of an output to those of the inputs; `None` where an input needs none.
type Backward = Box<dyn FnOnce(&Tensor) -> Vec<Option<Tensor>> + Send>;

unsafe extern "C-unwind" {
    fn agrpo_records_gradients() -> bool;
    fn agrpo_attach(
        inputs: *const *mut c_void,
        count: usize,
        output: *mut c_void,
        closure: *mut c_void,
        backward: unsafe extern "C" fn(
            *mut c_void,
            *mut c_void,
            *mut *mut c_void,
            usize,
            *mut u8,
        ) -> bool,
        destroy: unsafe extern "C" fn(*mut c_void),
    ) -> bool;
}

/// Whether this thread puts operations into the graph.
pub(crate) fn records_gradients() -> bool {
    // SAFETY: reads a flag of this thread.
    unsafe { agrpo_records_gradients() }
}

/// Whether the result of these inputs gets a place in the graph.
pub(crate) fn is_recorded(inputs: &[&Tensor]) -> bool {
    records_gradients() && inputs.iter().any(|input| input.requires_grad())
}

/// Makes `output`, computed from `inputs` without a graph, differentiable. `backward` gets the gradient of the output and
/// gives one for each input. It may hold tensors, but not `output` itself, which would never be freed.
pub(crate) fn differentiable(
    inputs: &[&Tensor],
    output: Tensor,
    backward: impl FnOnce(&Tensor) -> Vec<Option<Tensor>> + Send + 'static,
) -> Tensor {
    if !is_recorded(inputs) {
        return output;
    }
    let closure: Box<Backward> = Box::new(Box::new(backward));
    let handles: Vec<*mut c_void> =
        inputs.iter().map(|input| input.as_ptr().cast_mut().cast()).collect();
    let mut output = output;
    // SAFETY: the pointers are those of live tensors, which the callee does not keep; it takes the closure, and calls
    // `backward` once or `destroy`.
    let attached = unsafe {
        agrpo_attach(
            handles.as_ptr(),
            handles.len(),
            output.as_mut_ptr().cast(),
            Box::into_raw(closure).cast(),
            call,
            destroy,
        )
    };
    assert!(attached, "libtorch records an operation on floating numbers");
    output
}

/// Bytes of a panic's text, with a zero at the end.
const WHY: usize = 512;

/// Calls the closure and hands its gradients over. False if it panicked, with the text in `why`: a panic must not pass
/// through C++.
///
/// # Safety
/// `closure` is from [`differentiable`] and not used again; `gradient` is a live tensor; `gradients` has `inputs` places,
/// and `why` [`WHY`] bytes, all zero.
unsafe extern "C" fn call(
    closure: *mut c_void,
    gradient: *mut c_void,
    gradients: *mut *mut c_void,
    inputs: usize,
    why: *mut u8,
) -> bool {
    let run = || {
        // SAFETY: see above; the clone is a handle of its own on the gradient.
        let (closure, gradient) = unsafe {
            (Box::from_raw(closure.cast::<Backward>()), Tensor::clone_from_ptr(gradient.cast()))
        };
        let _no_grad = tch::no_grad_guard();
        let found = closure(&gradient);
        assert_eq!(found.len(), inputs, "one gradient for each input");
        for (n, tensor) in found.into_iter().enumerate() {
            let Some(tensor) = tensor else { continue };
            let pointer = ManuallyDrop::new(tensor).as_mut_ptr();
            // SAFETY: n < inputs. The callee deletes the tensor.
            unsafe { *gradients.add(n) = pointer.cast() };
        }
    };
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return true };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text =
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a kernel panicked");
    let length = text.len().min(WHY - 1);
    // SAFETY: see above; the last byte stays zero.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), why, length) };
    false
}

/// # Safety
/// `closure` is from [`differentiable`] and not used again.
unsafe extern "C" fn destroy(closure: *mut c_void) {
    // SAFETY: see above.
    drop(unsafe { Box::from_raw(closure.cast::<Backward>()) });
}
