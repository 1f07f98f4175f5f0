-- What STORAGE main, the type's default, and external cost: a table of vectors and a few other columns, once with each. As a superuser
-- of a server whose shared buffers hold both tables:
--     psql -X -v rows=100000 -v dim=512 -f benches/storage.sql
-- Each line: processor time of this session, in microseconds for each row or query, and pages or bytes where these are told.
\set ON_ERROR_STOP on
\set QUIET on
\pset tuples_only on
\pset format unaligned
\if :{?rows} \else \set rows 100000 \endif
\if :{?dim} \else \set dim 512 \endif
CREATE EXTENSION IF NOT EXISTS imgvec;
SET jit = off;
SET max_parallel_workers_per_gather = 0;
SET maintenance_work_mem = '1GB';
CREATE FUNCTION pg_temp.cpu() RETURNS float8 LANGUAGE sql VOLATILE AS
    $$ SELECT (f[1]::float8 + f[2]::float8) * 1e4 FROM regexp_matches(pg_read_file('/proc/self/stat'), '\) \S+(?: \S+){10} (\d+) (\d+)') f $$;
-- Overlapping clusters: a center, and half as much of its own for each row. The last 200 are for queries.
SELECT setseed(.5);
CREATE TABLE centers AS SELECT c, ARRAY(SELECT random()::real - .5 FROM generate_series(1, :dim) WHERE c > 0) AS v FROM generate_series(1, 200) c;
CREATE TABLE vectors (id int PRIMARY KEY, r float8, e imgvec(:dim));
INSERT INTO vectors
    SELECT i, random(), ARRAY(SELECT x + .5 * (random()::real - .5) FROM unnest(v) x WHERE i > 0)::imgvec
    FROM generate_series(1, :rows + 200) i JOIN centers ON c = 1 + i % 200;
CREATE TABLE in_row (id int, note text, r float8, e imgvec(:dim));
CREATE TABLE apart (LIKE in_row);
ALTER TABLE apart ALTER COLUMN e SET STORAGE external;
INSERT INTO in_row SELECT id, 'note ' || id, r, e FROM vectors WHERE id <= :rows;
INSERT INTO apart SELECT * FROM in_row;
ALTER TABLE in_row ADD PRIMARY KEY (id);
ALTER TABLE apart ADD PRIMARY KEY (id);
CREATE INDEX ON in_row USING ann (e);
CREATE INDEX ON apart USING ann (e);
VACUUM ANALYZE in_row;
VACUUM ANALYZE apart;
CREATE TEMP TABLE sizes AS
    SELECT relname, pg_relation_size(oid) / 8192 AS pages, pg_relation_size(reltoastrelid) / 8192 AS apart
    FROM pg_class WHERE relname IN ('in_row', 'apart');
CREATE TEMP TABLE result (what text, storage text, us float8, detail text);
CREATE PROCEDURE pg_temp.measure(what text, times int, per int, statement text) LANGUAGE plpgsql AS $$
DECLARE began float8; took float8; began_at pg_lsn; bytes numeric; name text;
BEGIN
    FOR round IN 1..3 LOOP
        FOREACH name IN ARRAY ARRAY['in_row', 'apart'] LOOP
            began_at := pg_current_wal_insert_lsn();
            began := pg_temp.cpu();
            FOR i IN 1..times LOOP
                EXECUTE replace(statement, 'TABLE', name) USING i;
            END LOOP;
            took := (pg_temp.cpu() - began) / times / per;
            bytes := (pg_current_wal_insert_lsn() - began_at) / times / per;
            INSERT INTO result VALUES (what, name, took, format('%s bytes of log', bytes::int));
        END LOOP;
    END LOOP;
END $$;
SET my.rows = :rows;
CALL pg_temp.measure('ten nearest by the index', 2000, 1,
    'SELECT count(*) FROM (SELECT id FROM TABLE ORDER BY e <=> (SELECT e FROM vectors WHERE id = current_setting(''my.rows'')::int + 1 + $1 % 200) LIMIT 10) x');
CALL pg_temp.measure('ten nearest by a scan, a row', 3, :rows,
    'SELECT count(*) FROM (SELECT id FROM TABLE ORDER BY (e <=> (SELECT e FROM vectors WHERE id = current_setting(''my.rows'')::int + $1)) + 0 LIMIT 10) x');
CALL pg_temp.measure('other columns of all rows, a row', 5, :rows, $$ SELECT sum(r) FROM TABLE WHERE note <> '' $$);
CALL pg_temp.measure('update of another column, a row', 1, :rows / 10, $$ UPDATE TABLE SET note = note || 'x' WHERE id % 10 = 0 $$);
SELECT format('%-36s %-8s %10s us  %s', what, storage, min(us)::numeric(12, 2), min(detail)) FROM result GROUP BY what, storage ORDER BY 1 DESC;
SELECT format('%-36s %-8s %10s pages, and %s apart', 'size before updates', relname, pages, apart) FROM sizes ORDER BY 1 DESC;
