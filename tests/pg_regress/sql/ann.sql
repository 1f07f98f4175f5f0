-- Index access method ann: what it accepts, what it answers, what it refuses.
\set SHOW_CONTEXT never
SET client_min_messages = notice;
SET imgvec.ef_search = 0;

-- A grid: distances are known.
CREATE TABLE grid (id integer PRIMARY KEY, place imgvec(2));
INSERT INTO grid SELECT 100 * x + y, ARRAY[x, y]::integer[]::imgvec(2) FROM generate_series(1, 40) x, generate_series(1, 40) y;
CREATE INDEX grid_l2 ON grid USING ann (place imgvec_l2_ops);
CREATE INDEX grid_ip ON grid USING ann (place imgvec_ip_ops);
CREATE INDEX grid_cosine ON grid USING ann (place);
ANALYZE grid;
SET enable_seqscan = off;
SET enable_sort = off;

EXPLAIN (COSTS OFF) SELECT id FROM grid ORDER BY place <-> '[20.1,20.2]' LIMIT 4;
SELECT id FROM grid ORDER BY place <-> '[20.1,20.2]' LIMIT 5;
EXPLAIN (COSTS OFF) SELECT id FROM grid ORDER BY place <#> '[1,2.1]' LIMIT 3;
-- Norms differ by far, where few candidates may miss the longest vector: all are looked at.
SET imgvec.ef_search = 2000;
SELECT id, place <#> '[1,2.1]' AS distance FROM grid ORDER BY place <#> '[1,2.1]' LIMIT 3;
SET imgvec.ef_search = 0;
EXPLAIN (COSTS OFF) SELECT id FROM grid ORDER BY place <=> '[39,40]' LIMIT 3;
SELECT id, round((place <=> '[39,40]')::numeric, 6) AS distance FROM grid ORDER BY place <=> '[39,40]' LIMIT 3;

-- Every row comes, once, in order, also through filters, cursors and rescans.
SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM grid ORDER BY place <-> '[3,4]') AS scan;
SELECT bool_and(distance >= before OR before IS NULL) AS in_order
FROM (SELECT distance, lag(distance) OVER () AS before
      FROM (SELECT place <-> '[3,4]' AS distance FROM grid ORDER BY place <-> '[3,4]' LIMIT 200) AS scan) AS pairs;
SELECT id FROM grid WHERE id % 400 = 3 ORDER BY place <-> '[20.3,20]' LIMIT 20;
SELECT q.id, near.id FROM grid q, LATERAL (SELECT id FROM grid g WHERE g.id <> q.id ORDER BY g.place <-> (q.place + '[0.1,0.2]'::imgvec) LIMIT 2) near
WHERE q.id IN (101, 2020) ORDER BY q.id, near.id;
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM grid ORDER BY place <-> '[20.1,20.2]';
FETCH 2 FROM c;
FETCH 2 FROM c;
COMMIT;

-- NULL: no row without a vector is in the index, and a NULL query has all rows.
INSERT INTO grid VALUES (0, NULL), (1, '[0,0]');
SELECT count(*) FROM (SELECT id FROM grid ORDER BY place <-> '[0,0]') AS scan;
SELECT count(*) FROM (SELECT id FROM grid ORDER BY place <=> '[1,1]') AS zero_has_no_direction;
SELECT count(*) FROM (SELECT id FROM grid ORDER BY place <-> NULL) AS scan;
SELECT count(*) FROM (SELECT id FROM grid ORDER BY place <=> '[0,0]') AS zero_query;
SELECT id FROM grid ORDER BY place <-> '[0,0]' LIMIT 1;

-- Without ORDER BY the index is no way to read a table, not even where sequential scans are disabled.
CREATE TABLE lone (place imgvec(2));
INSERT INTO lone VALUES ('[1,2]'), (NULL);
CREATE INDEX ON lone USING ann (place);
SELECT count(*) FROM lone;
DROP TABLE lone;

-- A setting ends a scan, and says so.
SET imgvec.max_scan_rows = 20;
SELECT id FROM grid WHERE id = 4040 ORDER BY place <-> '[1,1]' LIMIT 1;
RESET imgvec.max_scan_rows;
SELECT id FROM grid WHERE id = 4040 ORDER BY place <-> '[1,1]' LIMIT 1;

-- Changes.
UPDATE grid SET place = '[100,100]' WHERE id = 101;
DELETE FROM grid WHERE id = 4040;
SELECT id FROM grid ORDER BY place <-> '[100,99]' LIMIT 2;
VACUUM grid;
SELECT live_nodes, dead_nodes, rows, unreachable FROM ann_index_check('grid_l2', true);
-- A node for each of 979 directions; rounding may part a few that are almost equal.
SELECT live_nodes BETWEEN 979 AND 990 AS shared, dead_nodes, rows, unreachable FROM ann_index_check('grid_cosine', true);
UPDATE grid SET id = id + 10000 WHERE id > 3000;
SELECT live_nodes, rows FROM ann_index_check('grid_l2', true);
REINDEX INDEX grid_l2;
SELECT id FROM grid ORDER BY place <-> '[100,99]' LIMIT 2;
TRUNCATE grid;
SELECT id FROM grid ORDER BY place <-> '[1,1]' LIMIT 1;
INSERT INTO grid VALUES (7, '[1,1]');
SELECT id FROM grid ORDER BY place <-> '[1,1]' LIMIT 1;
SELECT rows FROM ann_index_check('grid_l2', true);

-- What it looks like.
SELECT metric, dims, code_dims, nodes_per_page, format_version FROM ann_index_info('grid_cosine');
SELECT metric, dims FROM ann_index_info('grid_ip');
SELECT index, scans > 0 AS scanned, rows_fetched > 0 AS fetched FROM ann_scan_stats WHERE index = 'grid_l2'::regclass;
SELECT opcname, amvalidate(c.oid) FROM pg_opclass c JOIN pg_am a ON a.oid = c.opcmethod WHERE a.amname = 'ann' ORDER BY 1;
SELECT phase IS NULL AS done FROM pg_stat_progress_create_index;

-- Options.
CREATE INDEX grid_wide ON grid USING ann (place) WITH (ef_search = 200, max_scan_rows = 1000);
SELECT reloptions FROM pg_class WHERE relname = 'grid_wide';
ALTER INDEX grid_wide SET (ef_search = 300);
ALTER INDEX grid_wide SET (ef_search = -1);
\echo :LAST_ERROR_SQLSTATE
ALTER INDEX grid_wide SET (lists = 16);
\echo :LAST_ERROR_SQLSTATE
CREATE INDEX grid_of_hnsw ON grid USING ann (place imgvec_l2_ops) WITH (m = 16, ef_construction = 64);
DROP INDEX grid_of_hnsw;
SET imgvec.ef_search = 10001;
\echo :LAST_ERROR_SQLSTATE
DROP INDEX grid_wide;

-- Kinds of indexes.
CREATE INDEX grid_partial ON grid USING ann (place imgvec_l2_ops) WHERE id > 5;
CREATE INDEX grid_expression ON grid USING ann ((subvector(place, 1, 1)::imgvec(1)) imgvec_l2_ops);
SELECT dims FROM ann_index_info('grid_expression');
CREATE UNLOGGED TABLE loose (place imgvec(3));
CREATE INDEX loose_place ON loose USING ann (place);
INSERT INTO loose VALUES ('[1,2,3]');
SELECT rows FROM ann_index_check('loose_place', true);
CREATE TEMP TABLE own (place imgvec(3));
CREATE INDEX own_place ON own USING ann (place);
INSERT INTO own SELECT ARRAY[i, 1, 2]::integer[]::imgvec(3) FROM generate_series(1, 100) i;
SELECT rows FROM ann_index_check('own_place', true);
SELECT place FROM own ORDER BY place <=> '[100,1,2]' LIMIT 1;

-- What it refuses.
SELECT id FROM grid ORDER BY place <-> '[1,2,3]' LIMIT 1;
\echo :LAST_ERROR_SQLSTATE
CREATE UNIQUE INDEX ON grid USING ann (place);
CREATE INDEX ON grid USING ann (place, place);
CREATE INDEX ON grid USING ann (id);
CREATE TABLE free (place imgvec);
CREATE TABLE large (place imgvec(4001));
CREATE INDEX ON large USING ann (place);
\echo :LAST_ERROR_SQLSTATE
INSERT INTO free VALUES ('[1,2]'), ('[1,2,3]');
CREATE INDEX ON free USING ann (place);
\echo :LAST_ERROR_SQLSTATE
CREATE INDEX ON free USING ann ((place::imgvec(2)));
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE long (place imgvec(2));
INSERT INTO long VALUES ('[1e20,0]');
CREATE INDEX ON long USING ann (place imgvec_l2_ops);
\echo :LAST_ERROR_SQLSTATE
CREATE INDEX ON long USING ann (place);
SELECT * FROM ann_index_info('grid_pkey');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM ann_index_info('grid');
SELECT * FROM ann_index_check(0::regclass);
\echo :LAST_ERROR_SQLSTATE
SELECT ann_index_recall('grid_l2', 0);
\echo :LAST_ERROR_SQLSTATE
SELECT ann_index_recall('grid_l2', 10, 0);
\echo :LAST_ERROR_SQLSTATE
SELECT ann_index_recall('grid_l2');
CREATE OPERATOR CLASS no_ops FOR TYPE imgvec USING ann AS OPERATOR 1 <+> FOR ORDER BY pg_catalog.float_ops;
SELECT amvalidate(oid) FROM pg_opclass WHERE opcname = 'no_ops';
CREATE ROLE ann_stranger;
SET ROLE ann_stranger;
SELECT * FROM ann_index_check('grid_l2');
\echo :LAST_ERROR_SQLSTATE
SELECT ann_index_recall('grid_l2');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP ROLE ann_stranger;
DROP TABLE grid, loose, free, large, long;
DROP OPERATOR FAMILY no_ops USING ann;
