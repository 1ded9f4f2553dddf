//! What most commands use. Holds nothing of its own.

pub(super) use agrpo_store::Store;
pub(super) use serde::Serialize;

pub(super) use crate::device::ComputeDevice;
pub(super) use crate::exit::{Exit, Failure, Result, cannot};
pub(super) use crate::session::Session;
pub(super) use crate::settings::Settings;
pub(super) use crate::{machine, output};
