//! Which databases' schemas are known, and since when not any more: what a statement defines makes forget what is known
//! of its database, until somebody has asked again. Shared by the ingest, which looks names up, and whoever asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Defines, Schema};
use crate::{capture::exchange::SessionInfo, shadow::arm::lock};

/// The worker is not asked about a database again sooner than this, ns: some make tables all the time.
const AGAIN_NS: u64 = 1_000_000_000;
/// Nor sooner than so many times as long as the last answer took.
const AGAIN_TIMES: u64 = 50;
/// The same of one that did not answer, ns.
const AFTER_FAILURE_NS: u64 = 60_000_000_000;

/// The schemas.
#[derive(Debug, Default)]
pub struct Schemas {
    databases: Mutex<BTreeMap<String, Database>>,
    /// Somebody tells of databases. Where nobody does, nothing is waited for.
    are_told: AtomicBool,
    /// Backends over which the worker is being asked.
    asking: Mutex<BTreeSet<i32>>,
}

#[derive(Debug, Default)]
struct Database {
    known: Arc<Schema>,
    /// All of it is.
    is_known: bool,
    /// It has been at some time.
    was_known: bool,
    /// Statements that define something and have not ended, and what they define together.
    defining: usize,
    defines: Defines,
    /// How often that has changed: an answer to a question from before is of no use.
    version: u64,
    /// It is not asked about before, ns.
    from_ns: u64,
}

/// A question that is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of this database.
    pub database: String,
    version: u64,
}

/// While it lasts, a backend is known to be one that asks.
#[derive(Debug)]
pub struct Asking<'a> {
    schemas: &'a Schemas,
    pid: i32,
}

/// The database that a session is in.
fn database(info: &SessionInfo) -> &str {
    let named = info.startup.get("database").filter(|name| !name.is_empty());
    named.or_else(|| info.startup.get("user")).unwrap_or_default()
}

impl Schemas {
    /// There is such a database, and somebody will tell of it.
    pub fn announce(&self, database: &str) {
        self.are_told.store(true, Ordering::Relaxed);
        lock(&self.databases).entry(database.to_owned()).or_insert_with(Database::untold);
    }

    /// What is known of a session's database; nothing where nobody tells.
    pub fn of(&self, info: &SessionInfo) -> Arc<Schema> {
        let mut databases = lock(&self.databases);
        let name = database(info);
        if let Some(database) = databases.get(name) {
            return Arc::clone(&database.known);
        }
        if !self.are_told.load(Ordering::Relaxed) {
            return Arc::default();
        }
        Arc::clone(&databases.entry(name.to_owned()).or_insert_with(Database::untold).known)
    }

    /// A statement has begun after whose end names may stand for something else.
    pub fn defines(&self, info: &SessionInfo, what: &Defines) {
        let mut databases = lock(&self.databases);
        let Some(database) = databases.get_mut(database(info)) else { return };
        database.defining += 1;
        database.defines.merge(what);
        database.is_known = false;
        database.version += 1;
        if !database.known.is_behind(what) {
            database.known = Arc::new(database.known.behind(what));
        }
    }

    /// It has ended.
    pub fn defined(&self, info: &SessionInfo) {
        if let Some(database) = lock(&self.databases).get_mut(database(info)) {
            database.defining = database.defining.saturating_sub(1);
            database.is_known = false;
            database.version += 1;
            if database.defining == 0 {
                database.defines = Defines::default();
            }
        }
    }

    /// What the worker is to be asked, now.
    pub fn wanted(&self, now_ns: u64) -> Vec<Wanted> {
        lock(&self.databases)
            .iter_mut()
            .filter(|(_, database)| !database.is_known && now_ns >= database.from_ns)
            .map(|(name, database)| {
                database.from_ns = now_ns.saturating_add(AGAIN_NS);
                Wanted { database: name.clone(), version: database.version }
            })
            .collect()
    }

    /// The answer, which took so long. What was defined since makes it useless; what is being defined makes it good for what stands in it.
    pub fn learn(&self, wanted: &Wanted, schema: Schema, took_ns: u64, now_ns: u64) {
        let mut databases = lock(&self.databases);
        let Some(database) = databases.get_mut(&wanted.database) else { return };
        database.from_ns = now_ns.saturating_add(AGAIN_NS.max(AGAIN_TIMES.saturating_mul(took_ns)));
        if database.version != wanted.version {
            return;
        }
        database.is_known = database.defining == 0;
        let schema = if database.is_known { schema } else { schema.behind(&database.defines) };
        database.was_known = true;
        let before = std::mem::replace(&mut database.known, Arc::new(schema));
        drop(databases);
        // It may be large, and sessions' exchanges wait for the lock.
        drop(before);
    }

    /// There was no answer: until the next time names are what they were, or what they look like.
    pub fn failed(&self, wanted: &Wanted, now_ns: u64) {
        if let Some(database) = lock(&self.databases).get_mut(&wanted.database) {
            database.from_ns = now_ns.saturating_add(AFTER_FAILURE_NS);
            if !database.was_known {
                database.known = Arc::default();
            }
        }
    }

    /// The worker is being asked over this backend.
    pub fn asking_by(&self, pid: i32) -> Asking<'_> {
        lock(&self.asking).insert(pid);
        Asking { schemas: self, pid }
    }

    /// Backends over which it is being asked.
    pub fn asking(&self) -> Vec<i32> {
        lock(&self.asking).iter().copied().collect()
    }
}

impl Database {
    fn untold() -> Self {
        Self { known: Arc::new(Schema::untold()), ..Self::default() }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.schemas.asking).remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{capture::exchange::SessionId, wire::startup::Startup};

    fn session(parameters: &[(&str, &str)]) -> SessionInfo {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        SessionInfo { id: SessionId(1), startup: Startup { protocol: 3 << 16, parameters }, backend_pid: 1 }
    }

    fn relation(name: &str) -> Defines {
        Defines { functions: false, relations: vec![name.into()] }
    }

    fn some() -> Schema {
        Schema::of([["computes", "f", ""]])
    }

    #[test]
    fn what_is_defined_makes_ask_again_and_what_was_asked_before_is_no_answer() {
        let (relations, functions) = (relation("t"), Defines { functions: true, ..Defines::default() });
        let (schemas, app) = (Schemas::default(), session(&[("user", "ann"), ("database", "app")]));
        schemas.announce("app");
        assert_eq!(*schemas.of(&app), Schema::untold());
        let first = schemas.wanted(0);
        assert_eq!(first.iter().map(|wanted| &*wanted.database).collect::<Vec<_>>(), ["app"]);
        assert_eq!(schemas.wanted(AGAIN_NS - 1), [], "it is being asked");
        schemas.learn(&first[0], some(), 0, 0);
        assert_eq!(*schemas.of(&app), some());
        assert_eq!(schemas.wanted(AGAIN_NS), [], "it is known");

        schemas.defines(&app, &relations);
        assert_eq!(*schemas.of(&app), some().behind(&relations));
        schemas.defined(&app);
        let second = schemas.wanted(AGAIN_NS);
        schemas.defines(&app, &functions);
        schemas.defined(&app);
        schemas.learn(&second[0], some(), 0, AGAIN_NS);
        assert_eq!(*schemas.of(&app), some().behind(&functions), "something has been defined since");
        assert_eq!(schemas.wanted(2 * AGAIN_NS - 1), [], "too soon");
        let third = schemas.wanted(2 * AGAIN_NS);
        schemas.learn(&third[0], some(), 0, 2 * AGAIN_NS);
        assert_eq!(*schemas.of(&app), some());
    }

    /// A table that is filled by a query takes as long as that does.
    #[test]
    fn while_something_is_defined_what_stands_in_an_answer_is_good() {
        let (schemas, app) = (Schemas::default(), session(&[("user", "app")]));
        schemas.announce("app");
        schemas.defines(&app, &relation("t"));
        let wanted = schemas.wanted(0);
        schemas.learn(&wanted[0], some(), 0, 0);
        assert_eq!(*schemas.of(&app), some().behind(&relation("t")));
        schemas.defined(&app);
        let wanted = schemas.wanted(AGAIN_NS);
        schemas.learn(&wanted[0], some(), 0, AGAIN_NS);
        assert_eq!(*schemas.of(&app), some());
    }

    #[test]
    fn whoever_takes_long_to_answer_is_asked_seldom() {
        let (schemas, app) = (Schemas::default(), session(&[("user", "app")]));
        schemas.announce("app");
        let wanted = schemas.wanted(0);
        schemas.learn(&wanted[0], some(), AGAIN_NS, AGAIN_NS);
        schemas.defines(&app, &relation("t"));
        schemas.defined(&app);
        assert_eq!(schemas.wanted(50 * AGAIN_NS), []);
        assert_eq!(schemas.wanted(51 * AGAIN_NS).len(), 1);
    }

    #[test]
    fn where_it_was_to_be_told_and_is_not_names_are_what_they_look_like() {
        let (schemas, app) = (Schemas::default(), session(&[("user", "app")]));
        schemas.announce("app");
        let wanted = schemas.wanted(0);
        schemas.failed(&wanted[0], 7);
        assert_eq!(*schemas.of(&app), Schema::default());
        assert_eq!(schemas.wanted(AFTER_FAILURE_NS), []);
        let wanted = schemas.wanted(AFTER_FAILURE_NS + 7);
        schemas.learn(&wanted[0], some(), 0, AFTER_FAILURE_NS);
        schemas.defines(&app, &relation("t"));
        schemas.failed(&wanted[0], AFTER_FAILURE_NS);
        assert_eq!(*schemas.of(&app), some().behind(&relation("t")), "what is new may be a view");
    }

    #[test]
    fn where_nobody_tells_nothing_is_waited_for() {
        let (schemas, app) = (Schemas::default(), session(&[("user", "app")]));
        schemas.defines(&app, &relation("t"));
        assert_eq!(*schemas.of(&app), Schema::default());
        schemas.defined(&app);
        assert_eq!((&*schemas.of(&app), schemas.wanted(0)), (&Schema::default(), Vec::new()));
    }

    #[test]
    fn a_session_is_in_the_database_of_its_user_unless_it_says_otherwise() {
        let schemas = Schemas::default();
        schemas.announce("app");
        for parameters in [&[("user", "ann")][..], &[("user", "ann"), ("database", "")]] {
            assert_eq!(*schemas.of(&session(parameters)), Schema::untold());
        }
        let wanted: Vec<_> = schemas.wanted(0).into_iter().map(|wanted| wanted.database).collect();
        assert_eq!(wanted, ["ann", "app"]);
    }

    #[test]
    fn who_asks_is_known_for_as_long_as_it_lasts() {
        let schemas = Schemas::default();
        {
            let _asking = schemas.asking_by(7);
            assert_eq!(schemas.asking(), [7]);
        }
        assert_eq!(schemas.asking(), Vec::<i32>::new());
    }
}
