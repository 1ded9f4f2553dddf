//! Servers and programs that tests start and stop.

pub(crate) mod checkpoint;
pub(crate) mod program;
pub(crate) mod redis;
pub(crate) mod s3;
