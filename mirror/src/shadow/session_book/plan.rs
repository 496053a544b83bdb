//! What a request will execute, what that touches, and what it means for the session. Read from its text alone: what
//! comes of it is not known yet.

use std::sync::Arc;

use bytes::Bytes;
use understudy_crds::experiment::StatementClass;

use super::{SessionBook, portals::Portal};
use crate::{
    capture::exchange::Exchange,
    shadow::{
        entry::{Answer, PlannedStatement, Skip},
        prologue::{Change, Cursor, Settled, State, Unnamed},
        schema::{Defines, Schema},
        statement::{
            catalog::{Analysed, Catalog},
            execution::Execution,
            footprint::Footprint,
            isolation::{Isolation, Scope},
            template::{Kind, Statement, Variable},
        },
    },
    wire::{
        frame,
        frontend::{self, Request},
    },
};

/// What an exchange is, as far as its request tells.
#[derive(Debug)]
pub struct Plan {
    /// Its statements.
    pub statements: Vec<PlannedStatement>,
    /// It may write or lock.
    pub writes: bool,
    /// What it touches.
    pub touches: Footprint,
    /// What becomes visible when it ends.
    pub publishes: Footprint,
    /// When it ends, sessions may begin with something else: roles, databases, or what is set for either.
    pub beginnings: bool,
    /// What names may stand for something else when it ends, and for its own session at once.
    pub defines: Option<Defines>,
    /// Why it is not played.
    pub skip: Option<Skip>,
    /// What it means for the prologue.
    pub settled: Settled,
}

/// What is known of the open transaction.
#[derive(Debug, Default)]
pub(super) struct OpenTransaction {
    pub open: bool,
    /// Beside locks and what is not played.
    changed: bool,
    /// What it wrote or locked, if anything.
    touched: Option<Footprint>,
    /// Of what sessions begin with.
    beginnings: bool,
    /// Of what names stand for.
    defines: Option<Defines>,
    /// What its statements see.
    sees: Sees,
}

/// What the statements of a transaction see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sees {
    /// Each what is there when it begins.
    #[default]
    Now,
    /// All of them what will be there when the first begins.
    Once,
    /// What was there when the first began.
    Before,
}

/// How much of an answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of it.
    All,
    /// So many rows at most.
    Some,
    /// What is left of a portal that an exchange before has bound: it shows what was there then.
    Rest,
}

/// All that a text executes.
fn all(analysed: &Analysed, values: Option<&[u8]>, schema: &Schema) -> Vec<Execution> {
    analysed.template.statements.iter().map(|s| Execution::of(s, &analysed.literals, values, schema)).collect()
}

impl SessionBook {
    /// Reads a request: what will be executed, and what that touches.
    pub fn plan(&mut self, exchange: &Exchange, catalog: &mut Catalog, schema: &Schema) -> Plan {
        let mut plan = Plan {
            statements: Vec::new(),
            writes: false,
            touches: Footprint::NOTHING,
            publishes: Footprint::NOTHING,
            beginnings: false,
            defines: None,
            skip: None,
            settled: Settled::default(),
        };
        // What its own transaction has defined, nobody else can tell of yet.
        let untold = Schema::untold();
        let (mut parses, mut changes) = (0, false);
        for message in frame::messages(&exchange.request) {
            let settled = &mut plan.settled;
            let schema = if self.transaction.defines.is_some() { &untold } else { schema };
            match frontend::request(message.tag, message.payload) {
                Request::Query(sql) => {
                    settled.unnamed = Unnamed::Gone;
                    for executed in all(&catalog.analyse(sql), None, schema) {
                        self.execute(&executed, Extent::All, &mut plan, &mut changes, schema);
                    }
                }
                Request::Parse { statement, sql } => {
                    let parse = exchange.request.slice_ref(message.bytes);
                    let name = Bytes::copy_from_slice(statement);
                    if statement.is_empty() {
                        settled.unnamed = Unnamed::Made { parse, parses };
                    } else {
                        settled.statements.push(Change::Prepare { name: name.clone(), parse, parses });
                    }
                    parses += 1;
                    self.prepared.insert(name, catalog.analyse(sql));
                }
                Request::Bind { portal, statement, values } => {
                    if statement.is_empty() {
                        match settled.unnamed {
                            Unnamed::Untouched => settled.borrows = true,
                            Unnamed::Made { .. } | Unnamed::Gone => settled.unnamed = Unnamed::Gone,
                        }
                    }
                    let executed = self.bind(statement, values, schema);
                    self.portals.insert(portal, Portal { by: exchange.sequence, executed });
                }
                // Without its Bind it is a cursor that SQL declared, perhaps.
                Request::Execute { portal, limited } => match self.portals.take(portal) {
                    Some(bound) => {
                        let is_older = bound.by != exchange.sequence;
                        let extent = match limited {
                            _ if is_older => Extent::Rest,
                            true => Extent::Some,
                            false => Extent::All,
                        };
                        for executed in &bound.executed {
                            self.execute(executed, extent, &mut plan, &mut changes, schema);
                        }
                        self.portals.insert(portal, bound);
                    }
                    None => self.unknown(&mut plan, &mut changes),
                },
                Request::CloseStatement(name) => {
                    self.prepared.remove(name);
                    if name.is_empty() {
                        settled.unnamed = Unnamed::Gone;
                    } else {
                        let executes = plan.statements.len();
                        settled.statements.push(Change::Close { name: Bytes::copy_from_slice(name), executes });
                    }
                }
                Request::ClosePortal(name) => {
                    self.portals.take(name);
                }
                Request::FunctionCall => self.unknown(&mut plan, &mut changes),
                Request::Other => {}
            }
        }
        if let Some(skip) = &mut plan.skip {
            skip.changes = changes;
        }
        plan
    }

    /// What a portal executes. SQL's PREPARE and the protocol's Parse share their names.
    fn bind(&self, statement: &[u8], values: &[u8], schema: &Schema) -> Vec<Execution> {
        if let Some(analysed) = self.prepared.get(statement) {
            return all(analysed, Some(values), schema);
        }
        let by_sql = std::str::from_utf8(statement).ok().and_then(|name| self.sql_prepared.get(name));
        vec![by_sql.map_or_else(Execution::unknown, |inner| Execution::of(inner, &[], Some(values), schema))]
    }

    /// Plans one statement, of whose answer a part may be all that is asked for. EXECUTE is to the session what it
    /// executes.
    fn execute(&mut self, executed: &Execution, extent: Extent, plan: &mut Plan, changes: &mut bool, schema: &Schema) {
        plan.touches.merge(&executed.touches);
        let inner = match &executed.statement.kind {
            Kind::ExecutePrepared(name) => {
                self.sql_prepared.get(name).map(|inner| Execution::of(inner, &[], None, schema))
            }
            _ => None,
        };
        self.step(inner.as_ref().unwrap_or(executed), extent, plan, changes);
    }

    fn unknown(&mut self, plan: &mut Plan, changes: &mut bool) {
        self.execute(&Execution::unknown(), Extent::All, plan, changes, &Schema::default());
    }

    /// One statement's effect on the transaction and the session.
    fn step(&mut self, executed: &Execution, extent: Extent, plan: &mut Plan, changes: &mut bool) {
        let Execution { statement, touches, answer, sets } = executed;
        let (mut class, mut writes, mut changed) = (statement.class, statement.writes, statement.changes);
        match &statement.kind {
            Kind::Begin => {
                self.transaction.open = true;
                self.transaction.sees = if self.sees_one_moment { Sees::Once } else { Sees::Now };
            }
            Kind::Commit => {
                let OpenTransaction { open: _, changed: did, touched, beginnings, defines, sees: _ } =
                    std::mem::take(&mut self.transaction);
                (writes, changed) = (touched.is_some(), did);
                if let Some(defines) = defines {
                    plan.defines.get_or_insert_default().merge(&defines);
                }
                if let Some(touched) = touched {
                    plan.publishes.merge(&touched.writes());
                    plan.beginnings |= beginnings;
                } else {
                    class = StatementClass::Utility;
                }
            }
            // It lets go of locks, which others may not have waited for: NOWAIT, SKIP LOCKED.
            Kind::Rollback => writes = std::mem::take(&mut self.transaction).touched.is_some(),
            Kind::Prepare(name, inner) => {
                self.sql_prepared.insert(Arc::clone(name), Arc::clone(inner));
            }
            _ => self.touched(statement, touches, plan),
        }
        self.take_away(&statement.kind);
        let is_late = self.sees(statement);
        let answer = match extent {
            // What others have changed since, it does not see on production; on an arm its first statement may have come
            // later among them.
            _ if is_late => Answer::Volatile,
            Extent::All => *answer,
            // Which rows come first, nobody says.
            Extent::Some => answer.of_some(),
            Extent::Rest => Answer::Volatile,
        };
        plan.statements.push(PlannedStatement { class, fingerprint: statement.fingerprint, answer });
        plan.writes |= writes;
        *changes |= changed;
        plan.skip = plan.skip.or(statement.skip.map(|reason| Skip { reason, changes: false }));
        let executes = plan.statements.len();
        settle(&mut plan.settled, statement, sets.as_ref(), executes);
    }

    /// Whether a statement sees what was there before it began, for one that came before it in its transaction.
    fn sees(&mut self, statement: &Statement) -> bool {
        match statement.isolation {
            Some(Isolation { of: Scope::Session, one_moment }) => self.sees_one_moment = one_moment,
            Some(Isolation { of: Scope::Transaction, one_moment }) if self.transaction.open => {
                self.transaction.sees = if one_moment { Sees::Once } else { Sees::Now };
            }
            _ if matches!(statement.kind, Kind::DiscardAll) => self.sees_one_moment = false,
            _ => {}
        }
        let looks =
            self.transaction.open && !matches!(statement.class, StatementClass::Utility | StatementClass::Commit);
        let is_late = looks && self.transaction.sees == Sees::Before;
        if looks && self.transaction.sees == Sees::Once {
            self.transaction.sees = Sees::Before;
        }
        is_late
    }

    /// What DEALLOCATE and DISCARD ALL take away.
    fn take_away(&mut self, kind: &Kind) {
        match kind {
            Kind::Deallocate(Some(name)) => {
                self.sql_prepared.remove(name);
                self.prepared.remove(name.as_bytes());
            }
            Kind::Deallocate(None) => {
                self.prepared.clear();
                self.sql_prepared.clear();
            }
            Kind::DiscardAll => {
                self.prepared.clear();
                self.sql_prepared.clear();
                self.portals.clear();
            }
            _ => {}
        }
    }

    fn touched(&mut self, statement: &Statement, footprint: &Footprint, plan: &mut Plan) {
        if !statement.writes {
            return;
        }
        if let Some(defines) = &statement.defines {
            plan.defines.get_or_insert_default().merge(defines);
            if self.transaction.open {
                self.transaction.defines.get_or_insert_default().merge(defines);
            }
        }
        if self.transaction.open {
            self.transaction.changed |= statement.changes;
            self.transaction.touched.get_or_insert(Footprint::NOTHING).merge(footprint);
            self.transaction.beginnings |= statement.beginnings;
        } else {
            plan.publishes.merge(&footprint.writes());
            plan.beginnings |= statement.beginnings;
        }
    }
}

/// What a statement, the `executes`th of its exchange, means for the prologue.
fn settle(settled: &mut Settled, statement: &Statement, sets: Option<&Variable>, executes: usize) {
    let other = State::Other { prepares: false };
    let state = match &statement.kind {
        Kind::Sets(_) => sets.cloned().map_or(other, State::Sets),
        Kind::SessionState => other,
        Kind::Prepare(name, _) => State::Prepares(Arc::clone(name)),
        Kind::Deallocate(Some(name)) => State::Deallocates(Arc::clone(name)),
        Kind::Deallocate(None) => {
            settled.statements.push(Change::CloseAll { executes });
            other
        }
        _ => State::Nothing,
    };
    settled.state.add(state);
    settled.cursors.extend(match &statement.kind {
        Kind::HoldsCursor(name) => Some(Cursor::Held(Arc::clone(name))),
        Kind::ClosesCursor(Some(name)) => Some(Cursor::Closed(Arc::clone(name))),
        Kind::ClosesCursor(None) => Some(Cursor::AllClosed),
        _ => None,
    });
    settled.discards |= matches!(statement.kind, Kind::DiscardAll);
    settled.bound |= matches!(statement.kind, Kind::SessionBound);
    settled.locks |= matches!(statement.kind, Kind::SessionLocked);
    settled.unlocks_all |= matches!(statement.kind, Kind::Unlocks { all: true });
    settled.commits |= matches!(statement.kind, Kind::Commit);
    settled.rolls_back |= matches!(statement.kind, Kind::Rollback);
    settled.rolls_back_to |= matches!(statement.kind, Kind::RollbackTo);
    settled.writes |= statement.writes && !matches!(statement.kind, Kind::Commit | Kind::Unlocks { .. });
}
