//! The arm pod's program.

use std::path::Path;

use crate::error::{ErrorKind, Side, UserError};

/// Runs the arm pod until it is told to end.
#[allow(clippy::unused_async, reason = "the program will wait for others")]
pub async fn main(config: &Path) -> Result<(), UserError> {
    Err(UserError::new(ErrorKind::Missing, Side::Host, "the arm pod's program is not built yet")
        .fact("config", config.display()))
}
