//! The mirror pod's program.

use std::path::Path;

use crate::error::{ErrorKind, Side, UserError};

/// Runs the mirror pod until it is told to end.
#[allow(clippy::unused_async, reason = "the program will wait for others")]
pub async fn main(config: &Path) -> Result<(), UserError> {
    Err(UserError::new(ErrorKind::Missing, Side::Host, "the mirror pod's program is not built yet")
        .fact("config", config.display()))
}
