//! Carries out what a client has chosen to do, on its connection.

use super::{
    action::Action,
    connection::{ActionError, Connection},
    reads,
    session::Context,
    writes,
};

/// Performs `action`, which arrived `at_us` microseconds after the workload began.
pub(super) async fn perform(
    action: Action,
    at_us: u64,
    connection: &mut Connection,
    context: &mut Context,
) -> Result<(), ActionError> {
    let meter = context.meter.clone();
    match action {
        Action::Panel { panel, question, protocol } => {
            reads::panel(connection, &meter, panel, &question, protocol).await
        }
        Action::TwoPanels { question } => reads::two_panels(connection, &meter, &question).await,
        Action::Breakdown { user, event_types, window } => {
            reads::breakdown(connection, &meter, user, event_types, window).await
        }
        Action::Trend { event_type, window } => reads::trend(connection, &meter, event_type, window).await,
        Action::DrillDown { question, details, protocol } => {
            reads::drill_down(connection, &meter, &question, details, protocol).await
        }
        Action::Page { question, rows, pages } => reads::page(connection, &meter, &question, rows, pages).await,
        Action::Cursor { question, rows, pages } => reads::cursor(connection, &meter, &question, rows, pages).await,
        Action::Ingest { events, account, protocol } => {
            let batch = writes::Batch::new(events, at_us, context);
            writes::ingest(connection, context, batch, account, protocol).await
        }
        Action::IngestAndRollBack { events, account } => {
            let batch = writes::Batch::new(events, at_us, context);
            writes::ingest_and_roll_back(connection, context, batch, account).await
        }
        Action::Import { events } => {
            let batch = writes::Batch::new(events, at_us, context);
            writes::import(connection, context, batch).await
        }
        Action::Retry { event } => writes::retry(connection, context, event, at_us).await,
        Action::ChangePlan { user, plan, protocol } => {
            writes::change_plan(connection, context, user, plan, protocol).await
        }
        Action::ChangeTheme { user, theme } => writes::change_theme(connection, context, user, theme).await,
        Action::SaveReport { user, slug } => writes::save_report(connection, context, user, slug, at_us).await,
    }
}
