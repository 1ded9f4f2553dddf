//! Servers and programs that tests start and stop, and the run files that they compute.

pub(crate) mod browser;
pub(crate) mod checkpoint;
pub(crate) mod exposition;
pub(crate) mod fake_s3;
pub(crate) mod http;
pub(crate) mod markdown;
pub(crate) mod not_run;
pub(crate) mod program;
pub(crate) mod redis;
pub(crate) mod run_file;
pub(crate) mod s3;
pub(crate) mod wait;
