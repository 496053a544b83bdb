//! The parts that sessions play in the application, and how busy each is. Pure.

/// What a session is in the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// Draws the panels of dashboards.
    Dashboard,
    /// Lists events and looks at some of them.
    DrillDown,
    /// Takes in new events.
    Ingest,
    /// Changes users and their reports.
    Profile,
    /// Imports, exports and retries.
    BackOffice,
}

impl Role {
    /// The role of session `number`, 0 to `SESSIONS` − 1.
    pub fn of(number: u32) -> Self {
        match number {
            0..16 => Self::Dashboard,
            16..24 => Self::DrillDown,
            24..32 => Self::Ingest,
            32..38 => Self::Profile,
            _ => Self::BackOffice,
        }
    }

    /// Arrivals per second of one session at rate 1.
    pub const fn per_second(self) -> f64 {
        match self {
            Self::Dashboard => 3.4,
            Self::DrillDown => 1.2,
            Self::Ingest => 2.0,
            Self::Profile => 3.0,
            Self::BackOffice => 0.6,
        }
    }

    /// The name under which the session shows up in `pg_stat_activity`.
    pub const fn application_name(self) -> &'static str {
        match self {
            Self::Dashboard => "analytics-dashboard",
            Self::DrillDown => "analytics-explorer",
            Self::Ingest => "analytics-ingest",
            Self::Profile => "analytics-accounts",
            Self::BackOffice => "analytics-backoffice",
        }
    }
}
