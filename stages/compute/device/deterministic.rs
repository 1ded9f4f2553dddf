//! libtorch's switches for results that a GPU repeats bit for bit. The only file that calls libtorch past
//! `tch`, which has no names for them; the C++ names are those of 2.11 (ATen/Context.h).
//!
//! For processes that compute on a GPU: what the processor computes must not depend on them. An operation
//! without a deterministic form then fails instead of giving different bits.

#![expect(unsafe_code, reason = "tch does not expose the switches of at::Context")]

use std::ffi::c_void;

unsafe extern "C-unwind" {
    #[link_name = "_ZN2at13globalContextEv"]
    fn global_context() -> *mut c_void;
    #[link_name = "_ZN2at7Context26setDeterministicAlgorithmsEbb"]
    fn set_deterministic_algorithms(context: *mut c_void, on: bool, warn_only: bool);
    #[link_name = "_ZN2at7Context39setDeterministicFillUninitializedMemoryEb"]
    fn set_fill_uninitialized(context: *mut c_void, on: bool);
    #[link_name = "_ZN2at7Context21setDeterministicCuDNNEb"]
    fn set_deterministic_cudnn(context: *mut c_void, on: bool);
    #[link_name = "_ZN2at7Context17setBenchmarkCuDNNEb"]
    fn set_benchmark_cudnn(context: *mut c_void, on: bool);
    #[link_name = "_ZN2at7Context18setAllowTF32CuBLASEb"]
    fn set_tf32_cublas(context: *mut c_void, on: bool);
    #[link_name = "_ZN2at7Context17setAllowTF32CuDNNEb"]
    fn set_tf32_cudnn(context: *mut c_void, on: bool);
    #[link_name = "_ZN2at7Context27setAllowBF16ReductionCuBLASEbb"]
    fn set_bf16_reduction(context: *mut c_void, on: bool, split_k: bool);
    #[link_name = "_ZN2at7Context27setAllowFP16ReductionCuBLASEbb"]
    fn set_fp16_reduction(context: *mut c_void, on: bool, split_k: bool);
    #[link_name = "_ZN2at7Context32setAllowFP16BF16ReductionMathSDPEb"]
    fn set_half_reduction_math_attention(context: *mut c_void, on: bool);
    #[link_name = "_ZN2at7Context14setSDPUseCuDNNEb"]
    fn set_cudnn_attention(context: *mut c_void, on: bool);
}

/// Makes the whole process compute results that the same GPU repeats. Call it before the first tensor on one.
///
/// Attention stays with its flash, memory-efficient and plain kernels, whose backward passes are deterministic
/// under the first switch; cuDNN's is not. Sums of products in half precision are kept in f32 throughout; with `split_k`,
/// they may be sums of parts, which cuBLAS needs and cuBLASLt can do without.
pub fn use_deterministic_algorithms(split_k: bool) {
    // SAFETY: the context is libtorch's own and lives as long as the process; the setters are ordinary
    // member functions of it, declared as their mangled names say, and this is called before any
    // other thread uses libtorch.
    unsafe {
        let context = global_context();
        set_deterministic_algorithms(context, true, false);
        // No operation reads memory that it has not written, and filling it costs time.
        set_fill_uninitialized(context, false);
        set_deterministic_cudnn(context, true);
        set_benchmark_cudnn(context, false);
        set_tf32_cublas(context, false);
        set_tf32_cudnn(context, false);
        // The split of products does not change from call to call; only the sum of their parts must be
        // exact.
        set_bf16_reduction(context, false, split_k);
        set_fp16_reduction(context, false, split_k);
        set_half_reduction_math_attention(context, false);
        set_cudnn_attention(context, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C-unwind" {
        #[link_name = "_ZNK2at7Context23deterministicAlgorithmsEv"]
        fn deterministic_algorithms(context: *const c_void) -> bool;
    }

    fn uses_deterministic_algorithms() -> bool {
        // SAFETY: as above; this only reads.
        unsafe { deterministic_algorithms(global_context()) }
    }

    /// Linking and running this shows that all names exist: every libtorch has the switches.
    #[test]
    fn the_switches_are_there_and_can_be_read_back() {
        assert!(!uses_deterministic_algorithms(), "the processor computes without");
        use_deterministic_algorithms(true);
        let on = uses_deterministic_algorithms();
        // SAFETY: as above. Other tests of this process run without them.
        unsafe { set_deterministic_algorithms(global_context(), false, false) };
        assert!(on && !uses_deterministic_algorithms());
    }
}
