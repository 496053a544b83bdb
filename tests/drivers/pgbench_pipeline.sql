-- A transaction that is sent whole, and one by one statements that are. Run by pgbench.sh.
\set account random(1, 100000)
\set delta random(-5000, 5000)
\startpipeline
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :account;
SELECT abalance FROM pgbench_accounts WHERE aid = :account;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = 1;
END;
\endpipeline
\startpipeline
SELECT tbalance FROM pgbench_tellers WHERE tid = 1;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = 1;
SELECT tbalance FROM pgbench_tellers WHERE tid = 1;
\endpipeline
