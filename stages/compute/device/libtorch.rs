//! libtorch in this process: its version, and how many threads an operation uses.

/// The libtorch that this program was built for.
pub fn libtorch_version() -> &'static str {
    "2.11.0"
}

/// One thread inside an operation, so that its sums have one order; parallelism is several stages at once.
pub fn use_one_thread() {
    tch::set_num_threads(1);
}
