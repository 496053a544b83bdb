//! The mirror pod's program.

use std::path::Path;

use crate::error::{ErrorKind, Side, UserError};

/// Runs the mirror pod until it is told to end.
pub async fn main(config: &Path) -> Result<(), UserError> {
    Err(UserError::new(ErrorKind::Missing, Side::Host, "the mirror pod's program is not built yet")
        .fact("config", config.display()))
}
