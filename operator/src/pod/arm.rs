//! The arm pod's program.

use std::path::Path;

use crate::error::{ErrorKind, Side, UserError};

/// Runs the arm pod until it is told to end.
pub async fn main(config: &Path) -> Result<(), UserError> {
    Err(UserError::new(ErrorKind::Missing, Side::Host, "the arm pod's program is not built yet")
        .fact("config", config.display()))
}
