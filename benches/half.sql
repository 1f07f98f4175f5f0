-- What half precision costs and gains: the same vectors as imgvec and as imghalf. As a superuser of a server whose shared buffers hold
-- both tables:
--     psql -X -v rows=50000 -v dim=512 -f benches/half.sql
-- Each line: processor time of this session, in microseconds for each row or query, the least of three rounds that take the tables in
-- turn; then sizes, and how many of the ten nearest rows by single precision each finds.
\set ON_ERROR_STOP on
\set QUIET on
\pset tuples_only on
\pset format unaligned
\if :{?rows} \else \set rows 50000 \endif
\if :{?dim} \else \set dim 512 \endif
CREATE EXTENSION IF NOT EXISTS imgvec;
SET jit = off;
SET max_parallel_workers_per_gather = 0;
SET maintenance_work_mem = '1GB';
CREATE FUNCTION pg_temp.cpu() RETURNS float8 LANGUAGE sql VOLATILE AS
    $$ SELECT (f[1]::float8 + f[2]::float8) * 1e4 FROM regexp_matches(pg_read_file('/proc/self/stat'), '\) \S+(?: \S+){10} (\d+) (\d+)') f $$;
-- Overlapping clusters of unit vectors: a center, and half as much of its own for each row. The last 200 are for queries.
SELECT setseed(.5);
CREATE TEMP TABLE centers AS SELECT c, ARRAY(SELECT random()::real - .5 FROM generate_series(1, :dim) WHERE c > 0) AS v FROM generate_series(1, 200) c;
CREATE TABLE single (id int PRIMARY KEY, e imgvec(:dim));
INSERT INTO single
    SELECT i, l2_normalize(ARRAY(SELECT x + .5 * (random()::real - .5) FROM unnest(v) x WHERE i > 0)::imgvec)
    FROM generate_series(1, :rows + 200) i JOIN centers ON c = 1 + i % 200;
CREATE TEMP TABLE queries AS SELECT id - :rows AS number, e FROM single WHERE id > :rows;
DELETE FROM single WHERE id > :rows;
VACUUM FULL single;
CREATE TABLE half (id int PRIMARY KEY, e imghalf(:dim));
INSERT INTO half SELECT id, e FROM single ORDER BY id;
VACUUM ANALYZE single;
VACUUM ANALYZE half;
CREATE TEMP TABLE result (what text, relation text, us float8);
CREATE PROCEDURE pg_temp.measure(what text, times int, per int, statement text) LANGUAGE plpgsql AS $$
DECLARE began float8; name text;
BEGIN
    FOR round IN 1..3 LOOP
        FOREACH name IN ARRAY ARRAY['single', 'half'] LOOP
            began := pg_temp.cpu();
            FOR i IN 1..times LOOP
                EXECUTE replace(statement, 'TABLE', name) USING 1 + i % 200;
            END LOOP;
            INSERT INTO result VALUES (what, name, (pg_temp.cpu() - began) / times / per);
        END LOOP;
    END LOOP;
END $$;
CALL pg_temp.measure('read without a distance, a row', 10, :rows, 'SELECT count(e) FROM TABLE');
CALL pg_temp.measure('ten nearest by a scan, <=>, a row', 10, :rows,
    'SELECT count(*) FROM (SELECT id FROM TABLE ORDER BY e <=> (SELECT e FROM queries WHERE number = $1) LIMIT 10) x');
CALL pg_temp.measure('ten nearest by a scan, <#>, a row', 10, :rows,
    'SELECT count(*) FROM (SELECT id FROM TABLE ORDER BY e <#> (SELECT e FROM queries WHERE number = $1) LIMIT 10) x');
CREATE TEMP TABLE truth AS
    SELECT number, (SELECT array_agg(id) FROM (SELECT id FROM single ORDER BY single.e <=> queries.e LIMIT 10) x) AS ids FROM queries;
CREATE TEMP TABLE found AS
    SELECT 'half by a scan' AS what, number, (SELECT array_agg(id) FROM (SELECT id FROM half ORDER BY half.e <=> queries.e LIMIT 10) x) AS ids FROM queries;
CREATE INDEX ON single USING ann (e);
CREATE INDEX ON half USING ann (e);
VACUUM ANALYZE single;
VACUUM ANALYZE half;
SET enable_seqscan = off;
CALL pg_temp.measure('ten nearest by the index, a query', 2000, 1,
    'SELECT count(*) FROM (SELECT id FROM TABLE ORDER BY e <=> (SELECT e FROM queries WHERE number = $1) LIMIT 10) x');
INSERT INTO found
    SELECT 'single by the index', number, (SELECT array_agg(id) FROM (SELECT id FROM single ORDER BY single.e <=> queries.e LIMIT 10) x) FROM queries
    UNION ALL
    SELECT 'half by the index', number, (SELECT array_agg(id) FROM (SELECT id FROM half ORDER BY half.e <=> queries.e LIMIT 10) x) FROM queries;
SELECT format('%-36s %-8s %10s us', what, relation, min(us)::numeric(12, 2)) FROM result GROUP BY what, relation ORDER BY what, relation DESC;
SELECT format('%-36s %-8s %10s pages, index %s pages', 'size', relname, pg_relation_size(oid) / 8192, pg_relation_size(relname || '_e_idx') / 8192)
    FROM pg_class WHERE relname IN ('single', 'half') ORDER BY relname DESC;
SELECT format('%-36s %10s of the ten nearest', what, avg((SELECT count(*) FROM unnest(t.ids) AS id WHERE id = ANY (f.ids)))::numeric(6, 3))
    FROM found f JOIN truth t USING (number) GROUP BY what ORDER BY what;
DROP TABLE single, half;
