-- Peak memory of one backend: many texts, a scan to the end, many indexes. As a superuser of a server of its own with
-- small shared buffers, since those that a session has touched count:
--     psql -X -v rows=5000000 -v texts=2000000 -v indexes=64 -f benches/peaks.sql
-- Each line: kB that the session had before the statement, its peak (VmHWM, reset before), and what it holds afterwards.
\set ON_ERROR_STOP on
\set QUIET on
\pset tuples_only on
\pset format unaligned
-- What compiling a query takes would be counted.
ALTER DATABASE :DBNAME SET jit = off;
\if :{?rows} \else \set rows 5000000 \endif
\if :{?texts} \else \set texts 2000000 \endif
\if :{?indexes} \else \set indexes 64 \endif
CREATE EXTENSION IF NOT EXISTS imgvec;
CREATE TABLE peaks (what text, before bigint, peak bigint, after bigint);
CREATE FUNCTION kilobytes(field text) RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT substring(pg_read_file('/proc/self/status') FROM field || ':\s+(\d+) kB')::bigint $$;
-- Runs statements in this session and notes their peak.
CREATE PROCEDURE measure(label text, statement text) LANGUAGE plpgsql AS $$
DECLARE had bigint;
BEGIN
    EXECUTE $q$ COPY (SELECT 5) TO '/proc/self/clear_refs' $q$;
    had := kilobytes('VmRSS');
    BEGIN
        EXECUTE statement;
    EXCEPTION WHEN program_limit_exceeded THEN label := label || ' (refused)';
    END;
    INSERT INTO peaks VALUES (label, had, kilobytes('VmHWM'), kilobytes('VmRSS'));
    RAISE NOTICE '%: % kB, peak %, then %', label, had, kilobytes('VmHWM'), kilobytes('VmRSS');
END $$;

\c
SELECT imgvec_dims(embed_text('warm'));
CALL measure('one by one, texts', format('SELECT count(embed_text(''photo '' || i)) FROM generate_series(1, %s) i', :texts));
CALL measure('embed_texts of all', format('SELECT array_length(embed_texts(array_fill(''a''::text, ARRAY[%s])), 1)', :texts));
CALL measure('embed_texts of an eighth',
    format('SELECT array_length(embed_texts(ARRAY(SELECT ''photo '' || i FROM generate_series(1, %s) i)), 1)', :texts / 8));
CALL measure('classify_embedding, a tenth as labels',
    format('SELECT count(*) FROM classify_embedding(embed_text(''a''), ARRAY(SELECT ''photo '' || i FROM generate_series(1, %s) i))', :texts / 10));

\c
CREATE TABLE failed (id int PRIMARY KEY, caption text, embedding imgvec(256));
SELECT imgvec_maintain('failed', 'caption', 'embedding', 'starter');
INSERT INTO failed (id) SELECT generate_series(1, :rows / 5);
INSERT INTO failed_embedding_log (k1, kind, at, sqlstate, message, attempts)
    SELECT i, 'failed', now(), '22000', repeat('x', 100), 1 FROM generate_series(1, :rows / 5) i;
ANALYZE failed;
ANALYZE failed_embedding_log;
\c
SELECT count(*) FROM imgvec_progress;
CALL measure('imgvec_failures, a fifth as rows', 'SELECT count(message) FROM imgvec_failures');
DROP TABLE failed;

\c
SELECT setseed(0.5);
CREATE UNLOGGED TABLE scanned (id int, e imgvec(8));
INSERT INTO scanned SELECT i, ARRAY[random(), random(), random(), random(), random(), random(), random(), random()]::real[]::imgvec
    FROM generate_series(1, :rows) i;
SET maintenance_work_mem = '1GB';
CREATE INDEX scanned_e ON scanned USING ann (e imgvec_l2_ops);
VACUUM ANALYZE scanned;
\c
SET enable_seqscan = off;
SET enable_sort = off;
CALL measure('first 10 rows', $$ SELECT id FROM scanned ORDER BY e <-> '[.5,.5,.5,.5,.5,.5,.5,.5]' LIMIT 10 $$);
CALL measure('scan of all rows', $$ SELECT count(*) FROM (SELECT id FROM scanned ORDER BY e <-> '[.5,.5,.5,.5,.5,.5,.5,.5]' OFFSET 0) s $$);
DROP TABLE scanned;

\c
SELECT format('CREATE UNLOGGED TABLE wide_%1$s (e imgvec(2048));
    INSERT INTO wide_%1$s SELECT (SELECT array_agg(random() - .5) FROM generate_series(1, 2048) WHERE i > 0)::real[]::imgvec
        FROM generate_series(1, 1100) i;
    CREATE INDEX ON wide_%1$s USING ann (e)', k) FROM generate_series(1, :indexes) k \gexec
\c
SET enable_seqscan = off;
CALL measure(format('%s indexes of 2,048 dimensions', :indexes), format($$ DO $do$
DECLARE query imgvec; n bigint; BEGIN
    SELECT e INTO query FROM wide_1 LIMIT 1;
    FOR k IN 1..%s LOOP
        EXECUTE format('SELECT count(*) FROM (SELECT 1 FROM wide_%%s ORDER BY e <=> $1 LIMIT 10) s', k) INTO n USING query;
    END LOOP;
END $do$ $$, :indexes));
SELECT format('DROP TABLE wide_%s', k) FROM generate_series(1, :indexes) k \gexec
\pset tuples_only off
\pset format aligned
SELECT what, before AS "kB before", peak AS "kB peak", after AS "kB after", peak - before AS "kB more" FROM peaks;
ALTER DATABASE :DBNAME RESET jit;
DROP PROCEDURE measure;
DROP TABLE peaks;
