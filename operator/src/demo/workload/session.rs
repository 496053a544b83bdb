//! One client of the application: it serves its arrivals one after the other, and changes to another
//! address only between two transactions.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    action::choose,
    arrivals::{Arrival, Backlog},
    connection::{ActionError, Connection},
    ledger::{Keys, Ledger},
    meter::Meter,
    perform::perform,
    role::Role,
    route::{Moves, Route},
};

/// How long one arrival may take before its session gives up on it.
const ACTION_LIMIT: Duration = Duration::from_secs(20);
/// Pause before a connection that could not be opened is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What all sessions share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) route: watch::Receiver<Route>,
    pub(super) moves: Arc<Moves>,
    pub(super) meter: Arc<Meter>,
    pub(super) ledger: Arc<Ledger>,
}

/// What an action needs besides its connection.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) meter: Arc<Meter>,
    pub(super) ledger: Arc<Ledger>,
    /// The next key for an event: unique in the run, and not one of an earlier run.
    next_key: i64,
    /// A key that the server has acknowledged.
    pub(super) acknowledged: Option<i64>,
}

impl Context {
    fn new(number: u32, meter: Arc<Meter>, ledger: Arc<Ledger>) -> Self {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()) & 0x7fff_ffff;
        let next_key = ((second << 32) | (u64::from(number) << 24)).cast_signed();
        Self { meter, ledger, next_key, acknowledged: None }
    }

    /// The next `count` keys.
    pub(super) fn keys(&mut self, count: usize) -> Keys {
        let first = self.next_key;
        self.next_key += i64::try_from(count).unwrap_or(0);
        Keys { first, last: self.next_key - 1 }
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    number: u32,
    seed: u64,
    backlog: Backlog,
    connection: Connection,
    /// The change of the route that the connection belongs to.
    generation: u64,
    route: watch::Receiver<Route>,
    moves: Arc<Moves>,
    context: Context,
}

impl Session {
    /// Connects session `number`.
    pub(super) async fn open(
        number: u32,
        seed: u64,
        backlog: Backlog,
        shared: Shared,
    ) -> Result<Self, tokio_postgres::Error> {
        let Shared { mut route, moves, meter, ledger } = shared;
        let (config, generation) = {
            let route = route.borrow_and_update();
            (route.config.clone(), route.generation)
        };
        let connection = Connection::open(&config, Role::of(number)).await?;
        let context = Context::new(number, meter, ledger);
        Ok(Self { number, seed, backlog, connection, generation, route, moves, context })
    }

    /// Serves arrivals until the workload stops. `clock` is when the schedule began.
    pub(super) async fn run(mut self, clock: Instant) {
        loop {
            let (stopping, generation) = {
                let route = self.route.borrow_and_update();
                (route.stopping, route.generation)
            };
            if stopping {
                break;
            }
            if generation != self.generation || self.connection.client.is_closed() {
                self.connect_again().await;
                continue;
            }
            let now_us = u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.context.meter.dropped(self.backlog.admit(now_us));
            match self.backlog.serve() {
                Some(arrival) => self.serve(arrival).await,
                None => self.wait_until(clock + Duration::from_micros(self.backlog.next_us())).await,
            }
        }
        self.connection.close().await;
    }

    /// Waits for the next arrival, or for another route.
    async fn wait_until(&mut self, due: Instant) {
        tokio::select! {
            () = sleep_until(due) => {}
            changed = self.route.changed() => {
                if changed.is_err() {
                    // The workload's handle is gone and nobody will ever stop this session.
                    sleep_until(due).await;
                }
            }
        }
    }

    async fn serve(&mut self, arrival: Arrival) {
        let action = choose(self.seed, self.number, arrival.index);
        let name = action.name();
        let done = timeout(ACTION_LIMIT, perform(action, arrival.at_us, &mut self.connection, &mut self.context)).await;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.context.meter.unexpected_error(format!("{name}: {}", error.kind())),
            Err(_) => {
                self.context.meter.unexpected_error(format!("{name}: no answer within {} s", ACTION_LIMIT.as_secs()));
                // Whatever is still in flight ends with its connection.
                self.connect_again().await;
            }
        }
    }

    /// Opens a connection at the current route, then leaves the old one. Tried once; whoever calls
    /// comes back, so that a stop in between is seen.
    async fn connect_again(&mut self) {
        let (config, generation) = {
            let route = self.route.borrow();
            (route.config.clone(), route.generation)
        };
        match Connection::open(&config, Role::of(self.number)).await {
            Ok(connection) => {
                let moved = generation != self.generation;
                std::mem::replace(&mut self.connection, connection).close().await;
                self.generation = generation;
                if moved {
                    self.context.meter.moved();
                } else {
                    self.context.meter.reconnected();
                }
                self.moves.done(self.number, generation);
            }
            Err(error) => {
                self.context.meter.unexpected_error(format!("connect: {}", ActionError::from(error).kind()));
                sleep(RETRY_AFTER).await;
            }
        }
    }
}
