-- What the names of this database's own functions and relations stand for. Catalogs only, no more than a reader of them
-- sees, and nothing of what stands in tables. `search_path` is pg_catalog.
WITH own AS (
    SELECT oid AS namespace FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema')
), functions AS (
    -- An aggregate is what its parts are. Whoever shares the name of one that may change something is one.
    SELECT p.proname AS name,
           bool_or(p.prokind IN ('p', 'w') OR 'v' IN (p.provolatile, step.provolatile, final.provolatile)) AS changes,
           bool_or('s' IN (p.provolatile, step.provolatile, final.provolatile)
                   AND p.pronamespace <> 'pg_catalog'::regnamespace) AS reads,
           bool_or(p.prokind = 'a') AS aggregates
      FROM pg_proc p
      LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
      LEFT JOIN pg_proc step ON step.oid = a.aggtransfn
      LEFT JOIN pg_proc final ON final.oid = a.aggfinalfn
     GROUP BY p.proname
    HAVING bool_or(p.pronamespace IN (SELECT namespace FROM own))
), views AS (
    -- A rule's tree names relations and functions by their numbers; what the system came with stands in no dependency.
    SELECT v.oid, v.relname AS name, r.ev_action::text AS action
      FROM pg_class v JOIN pg_rewrite r ON r.ev_class = v.oid AND r.ev_type = '1'
     WHERE v.relkind = 'v' AND v.relnamespace IN (SELECT namespace FROM own)
), named AS (
    SELECT DISTINCT views.name, t.relname, t.relnamespace IN (SELECT namespace FROM own) AS is_own
      FROM views
     CROSS JOIN LATERAL regexp_matches(views.action, ':relid ([0-9]+)', 'g') AS relation (number)
      JOIN pg_class t ON t.oid = relation.number[1]::oid
     WHERE t.oid <> views.oid
)
SELECT CASE WHEN reads THEN 'reads' WHEN aggregates THEN 'aggregates' ELSE 'computes' END, name::text, ''
  FROM functions WHERE NOT coalesce(changes, false)
UNION ALL
SELECT DISTINCT 'table', relname::text, ''
  FROM pg_class WHERE relkind IN ('r', 'p', 'm', 'f', 'v') AND relnamespace IN (SELECT namespace FROM own)
UNION ALL
-- Keys that are equal only where each of their bytes is.
SELECT 'exact', a.attname::text, t.relname::text
  FROM pg_attribute a
  JOIN pg_class t ON t.oid = a.attrelid AND t.relkind IN ('r', 'p', 'm', 'f')
  LEFT JOIN pg_collation c ON c.oid = a.attcollation
 WHERE t.relnamespace IN (SELECT namespace FROM own) AND a.attnum > 0 AND NOT a.attisdropped
 GROUP BY t.relname, a.attname
HAVING bool_and(a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND c.collisdeterministic)
   AND bool_or(EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND a.attnum = ANY (i.indkey)))
   AND NOT bool_or(EXISTS (SELECT FROM pg_index i JOIN pg_collation k ON k.oid = ANY (i.indcollation)
                            WHERE i.indrelid = t.oid AND a.attnum = ANY (i.indkey) AND NOT k.collisdeterministic))
UNION ALL
-- Rows that a trigger may change before they are added: FOR EACH ROW, BEFORE, INSERT.
SELECT DISTINCT 'rewrites', t.relname::text, ''
  FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid
 WHERE g.tgtype & 7 = 7 AND NOT g.tgisinternal AND g.tgenabled <> 'D'
UNION ALL
SELECT 'view', name::text, relname::text FROM named WHERE relname <> name
UNION ALL
SELECT DISTINCT 'calls', views.name::text, p.proname::text
  FROM views
 CROSS JOIN LATERAL regexp_matches(views.action, ':(?:funcid|aggfnoid|winfnoid) ([0-9]+)', 'g') AS called (number)
  JOIN pg_proc p ON p.oid = called.number[1]::oid
UNION ALL
-- Some rows of all, the clock, a sample, rows in the plan's order (ARRAY), columns of each server's own (ctid, xmin).
SELECT 'volatile', name::text, ''
  FROM views
 WHERE action ~ ':limit(?:Count|Offset) [{]|:hasDistinctOn true|[{]SQLVALUEFUNCTION |[{]TABLESAMPLECLAUSE |:subLinkType 6 |:varattno -[0-9]'
UNION ALL
-- It locks rows, which changes something: as if it called a function that nobody knows.
SELECT 'calls', name::text, '' FROM views WHERE action ~ ':rowMarks [(]'
UNION ALL
SELECT DISTINCT 'volatile', name::text, '' FROM named WHERE NOT is_own
UNION ALL
SELECT DISTINCT 'part', part.relname::text, whole.relname::text
  FROM pg_inherits i
  JOIN pg_class part ON part.oid = i.inhrelid AND part.relkind IN ('r', 'p', 'f')
  JOIN pg_class whole ON whole.oid = i.inhparent
 WHERE part.relname <> whole.relname
UNION ALL
SELECT DISTINCT CASE WHEN c.confdeltype IN ('c', 'n', 'd') THEN 'goes' ELSE 'keeps' END, referring.relname::text, referred.relname::text
  FROM pg_constraint c
  JOIN pg_class referring ON referring.oid = c.conrelid
  JOIN pg_class referred ON referred.oid = c.confrelid
 WHERE c.contype = 'f'
