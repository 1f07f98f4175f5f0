-- What 0.3.0 adds to 0.2.0.
\echo Use "ALTER EXTENSION imgvec UPDATE TO '0.3.0'" to load this file. \quit

-- Searches no longer have hops beyond a beam. The view counts rows found out of order instead.
DROP VIEW ann_scan_stats;
DROP FUNCTION ann_scan_counters();
CREATE FUNCTION ann_scan_counters(OUT index regclass, OUT scans bigint, OUT rows_fetched bigint, OUT pages_read bigint,
    OUT exact_distances bigint, OUT estimates bigint, OUT late_rows bigint, OUT stale_links bigint,
    OUT limited_scans bigint)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'ann_scan_counters_wrapper'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION ann_scan_counters() IS 'what index scans cost in this session; see the view ann_scan_stats';
CREATE VIEW ann_scan_stats AS
    SELECT index, scans, rows_fetched, pages_read, exact_distances, estimates, late_rows, stale_links, limited_scans
    FROM ann_scan_counters();
COMMENT ON VIEW ann_scan_stats IS
    'what index scans cost in this session, for each index: counters are added when a scan ends';
GRANT SELECT ON ann_scan_stats TO PUBLIC;

-- Names that applications of pgvector call.
-- imgvec_pgvector 0.2.0 had vector_dims(imgvec), which now belongs to imgvec. It moves there, so that what uses it stays.
DO $$
DECLARE
    place pg_catalog.name;
    home pg_catalog.name;
BEGIN
    SELECT pn.nspname, en.nspname INTO place, home
    FROM pg_catalog.pg_proc AS p
        JOIN pg_catalog.pg_namespace AS pn ON pn.oid OPERATOR(pg_catalog.=) p.pronamespace
        JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
        JOIN pg_catalog.pg_extension AS b ON b.oid OPERATOR(pg_catalog.=) d.refobjid
        CROSS JOIN pg_catalog.pg_extension AS e
        JOIN pg_catalog.pg_namespace AS en ON en.oid OPERATOR(pg_catalog.=) e.extnamespace
    WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
        AND b.extname OPERATOR(pg_catalog.=) 'imgvec_pgvector' AND e.extname OPERATOR(pg_catalog.=) 'imgvec'
        AND p.proname OPERATOR(pg_catalog.=) 'vector_dims';
    IF FOUND THEN
        EXECUTE pg_catalog.format('ALTER EXTENSION imgvec_pgvector DROP FUNCTION %I.vector_dims(%I.imgvec)', place, home);
        IF place OPERATOR(pg_catalog.<>) home THEN
            EXECUTE pg_catalog.format('ALTER FUNCTION %I.vector_dims(%I.imgvec) SET SCHEMA %I', place, home, home);
        END IF;
        EXECUTE pg_catalog.format('ALTER EXTENSION imgvec ADD FUNCTION %I.vector_dims(%I.imgvec)', home, home);
    END IF;
END $$;
CREATE OR REPLACE FUNCTION vector_dims(imgvec) RETURNS integer
    AS 'MODULE_PATHNAME', 'imgvec_dims_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION vector_dims(imgvec) IS 'number of dimensions';
CREATE FUNCTION vector_norm(imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_norm_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION vector_norm(imgvec) IS 'Euclidean norm';
CREATE FUNCTION l2_norm(imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_norm_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION l2_norm(imgvec) IS 'Euclidean norm';

-- A numeric is rounded once, and one that is too small is an error, as in pgvector.
CREATE OR REPLACE FUNCTION array_to_imgvec(numeric[], integer, boolean) RETURNS imgvec
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN array_to_imgvec($1::real[], $2, $3);

-- Functions that were meant for indexes, which do not use them.
DROP FUNCTION imgvec_l2_squared_distance(imgvec, imgvec);
DROP FUNCTION imgvec_spherical_distance(imgvec, imgvec);

-- Correct labels: imgvec_model_list shows which models this session has loaded, which a parallel worker does not know.
ALTER FUNCTION imgvec_model_list() PARALLEL RESTRICTED;
ALTER FUNCTION l2_distance(imgvec, imgvec) COST 10;
ALTER FUNCTION inner_product(imgvec, imgvec) COST 10;
ALTER FUNCTION cosine_distance(imgvec, imgvec) COST 10;
ALTER FUNCTION l1_distance(imgvec, imgvec) COST 10;
ALTER FUNCTION imgvec_negative_inner_product(imgvec, imgvec) COST 10;
ALTER FUNCTION imgvec_norm(imgvec) COST 10;
ALTER FUNCTION l2_normalize(imgvec) COST 10;
ALTER FUNCTION imgvec_add(imgvec, imgvec) COST 10;
ALTER FUNCTION imgvec_sub(imgvec, imgvec) COST 10;
ALTER FUNCTION imgvec_mul(imgvec, imgvec) COST 10;
ALTER FUNCTION imgvec_accum(double precision[], imgvec) COST 10;

-- Images and texts as one input, and models prepared ahead of use.
CREATE FUNCTION embed_parts(images bytea[], texts text[]) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_parts_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_parts(bytea[], text[]) IS 'embedding of images and texts as one input of the default model; at each place, one of the arrays has NULL';

CREATE FUNCTION embed_parts(images bytea[], texts text[], model text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_parts_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_parts(bytea[], text[], text) IS 'embedding of images and texts as one input of a named model; at each place, one of the arrays has NULL';

CREATE FUNCTION embed_query(image bytea, query text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_query_wrapper' LANGUAGE C STABLE PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_query(bytea, text) IS 'embedding of a query of an image, a text or both by the default model';

CREATE FUNCTION embed_query(image bytea, query text, model text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_query_with_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_query(bytea, text, text) IS 'embedding of a query of an image, a text or both by a named model';

CREATE FUNCTION imgvec_prepare(model text) RETURNS void
    AS 'MODULE_PATHNAME', 'imgvec_prepare_wrapper' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION imgvec_prepare(text) IS
    'prepares the form of a model that sessions share, ahead of its first use';

-- Columns that keep their embeddings.
CREATE FUNCTION imgvec_enqueue() RETURNS trigger
    AS 'MODULE_PATHNAME', 'imgvec_enqueue_wrapper' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION imgvec_enqueue() IS 'trigger function of imgvec_maintain: queues rows whose source is new or changed';

CREATE FUNCTION imgvec_maintain(relation regclass, source text DEFAULT NULL, target text DEFAULT NULL,
    model text DEFAULT NULL, backfill text DEFAULT 'missing', stop boolean DEFAULT false) RETURNS void
    AS 'MODULE_PATHNAME', 'imgvec_maintain_wrapper' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION imgvec_maintain(regclass, text, text, text, text, boolean) IS
    'keeps column target up to date as the embedding of expression source by a model; stop => true ends that';

CREATE PROCEDURE imgvec_work(relation regclass DEFAULT NULL, target text DEFAULT NULL, max_seconds double precision DEFAULT NULL)
    AS 'MODULE_PATHNAME', 'imgvec_work_wrapper' LANGUAGE C;
COMMENT ON PROCEDURE imgvec_work(regclass, text, double precision) IS
    'embeds waiting rows of a table, or of all own tables, until the queue is empty or the time is up; rows whose next try is later stay in the queue';

CREATE PROCEDURE imgvec_migrate(relation regclass, target text, model text DEFAULT NULL, min_recall double precision DEFAULT 0.8,
    accept_failures boolean DEFAULT false, give_up boolean DEFAULT false)
    AS 'MODULE_PATHNAME', 'imgvec_migrate_wrapper' LANGUAGE C;
COMMENT ON PROCEDURE imgvec_migrate(regclass, text, text, double precision, boolean, boolean) IS
    'changes the model of a maintained column while it answers queries; continues where an earlier call stopped';

CREATE FUNCTION imgvec_retry(relation regclass, target text DEFAULT NULL, sqlstate text DEFAULT NULL) RETURNS bigint
    AS 'MODULE_PATHNAME', 'imgvec_retry_wrapper' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION imgvec_retry(regclass, text, text) IS
    'queues failed rows again, all or those of one SQLSTATE, and returns how many';

CREATE FUNCTION imgvec_progress_list(OUT relation regclass, OUT target text, OUT source text, OUT model text, OUT rows bigint,
    OUT embedded bigint, OUT waiting bigint, OUT failed bigint, OUT is_exact boolean, OUT rows_per_second double precision,
    OUT oldest_waiting double precision, OUT last_error text, OUT outdated bigint)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'imgvec_progress_list_wrapper'
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10 COST 10000;
COMMENT ON FUNCTION imgvec_progress_list() IS 'maintained columns; see the view imgvec_progress';

CREATE VIEW imgvec_progress AS
    SELECT relation, target, source, model, rows, embedded, waiting, failed, is_exact, rows_per_second,
        CASE WHEN waiting OPERATOR(pg_catalog.=) 0 THEN interval '0'
            WHEN rows_per_second OPERATOR(pg_catalog.>) 0 AND (waiting OPERATOR(pg_catalog./) rows_per_second) OPERATOR(pg_catalog.<) 1e9
            THEN pg_catalog.make_interval(secs => pg_catalog.round(waiting OPERATOR(pg_catalog./) rows_per_second)) END AS time_left,
        pg_catalog.to_timestamp(oldest_waiting) AS oldest_waiting, last_error, outdated
    FROM imgvec_progress_list();
COMMENT ON VIEW imgvec_progress IS
    'maintained columns: progress, speed and last error; where is_exact is false, counts of large tables are estimates, and counts of long queues are lower bounds; outdated is an upper bound of the rows that earlier files of the model embedded';
GRANT SELECT ON imgvec_progress TO PUBLIC;

CREATE FUNCTION imgvec_outdated_list(OUT relation regclass, OUT target text, OUT model text, OUT rows bigint)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'imgvec_outdated_list_wrapper'
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10 COST 10000;
COMMENT ON FUNCTION imgvec_outdated_list() IS 'columns with embeddings by earlier files of their model; see the view imgvec_models';

CREATE OR REPLACE VIEW imgvec_models AS
    SELECT m.name, m.family, m.modalities, m.dims, m."precision", m.digest, m.path, m.license, m.state, m.detail, m.memory_bytes,
        (SELECT pg_catalog.sum(o.rows)::bigint FROM imgvec_outdated_list() AS o WHERE o.model OPERATOR(pg_catalog.=) m.name) AS outdated
    FROM imgvec_model_list() AS m;
COMMENT ON VIEW imgvec_models IS
    'model packages on imgvec.model_path: state is loaded (in this session), available or broken, and detail explains it; outdated is an upper bound of the rows in maintained columns that earlier files of the model embedded';

CREATE FUNCTION imgvec_failure_list(OUT relation regclass, OUT target text, OUT key text, OUT sqlstate text, OUT message text,
    OUT attempts integer, OUT at double precision)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'imgvec_failure_list_wrapper'
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100 COST 10000;
COMMENT ON FUNCTION imgvec_failure_list() IS 'rows that could not be embedded; see the view imgvec_failures';

CREATE VIEW imgvec_failures AS
    SELECT relation, target, key::jsonb AS key, sqlstate, message, attempts, pg_catalog.to_timestamp(at) AS at
    FROM imgvec_failure_list();
COMMENT ON VIEW imgvec_failures IS 'rows that could not be embedded, by their key, with the error; imgvec_retry tries them again';
GRANT SELECT ON imgvec_failures TO PUBLIC;

CREATE FUNCTION imgvec_start_workers(count integer DEFAULT 1) RETURNS integer
    AS 'MODULE_PATHNAME', 'imgvec_start_workers_wrapper' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION imgvec_start_workers(integer) IS
    'starts background workers that embed waiting rows of this database, and returns how many';

CREATE FUNCTION imgvec_stop_workers() RETURNS integer
    AS 'MODULE_PATHNAME', 'imgvec_stop_workers_wrapper' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION imgvec_stop_workers() IS 'ends the background workers of this database, and returns how many';

CREATE FUNCTION embed_text_for(relation regclass, target text, query text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_text_for_wrapper' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION embed_text_for(regclass, text, text) IS 'embedding of a text by the model of a maintained column';

CREATE FUNCTION embed_image_for(relation regclass, target text, image bytea) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_image_for_wrapper' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION embed_image_for(regclass, text, bytea) IS 'embedding of an image by the model of a maintained column';

-- The planner learns the cost of distances from the width of the vectors.
CREATE FUNCTION imgvec_distance_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'imgvec_distance_support_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_distance_support(internal) IS 'planner support of distances: their cost by the width of the vectors';
ALTER FUNCTION l2_distance(imgvec, imgvec) SUPPORT imgvec_distance_support;
ALTER FUNCTION inner_product(imgvec, imgvec) SUPPORT imgvec_distance_support;
ALTER FUNCTION cosine_distance(imgvec, imgvec) SUPPORT imgvec_distance_support;
ALTER FUNCTION l1_distance(imgvec, imgvec) SUPPORT imgvec_distance_support;
ALTER FUNCTION imgvec_negative_inner_product(imgvec, imgvec) SUPPORT imgvec_distance_support;

------------------------------------------------------------------------------------------------------
-- Key columns of the index, after the vector. Support function 1 determines how values become keys.
------------------------------------------------------------------------------------------------------

CREATE FUNCTION ann_key_ordered(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_key_ordered_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_key_ordered(internal) IS 'support function of key columns whose values have an order';
CREATE FUNCTION ann_key_hashed(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_key_hashed_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_key_hashed(internal) IS 'support function of key columns that are compared for equality';
CREATE FUNCTION ann_key_set(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_key_set_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_key_set(internal) IS 'support function of key columns that are arrays';


CREATE OPERATOR FAMILY ann_integer_ops USING ann;
COMMENT ON OPERATOR FAMILY ann_integer_ops USING ann IS 'key columns whose types compare with each other';
CREATE OPERATOR CLASS ann_int2_ops DEFAULT FOR TYPE smallint USING ann FAMILY ann_integer_ops AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_int2_ops USING ann IS 'key column: smallint';
CREATE OPERATOR CLASS ann_int4_ops DEFAULT FOR TYPE integer USING ann FAMILY ann_integer_ops AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_int4_ops USING ann IS 'key column: integer';
CREATE OPERATOR CLASS ann_int8_ops DEFAULT FOR TYPE bigint USING ann FAMILY ann_integer_ops AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_int8_ops USING ann IS 'key column: bigint';
ALTER OPERATOR FAMILY ann_integer_ops USING ann ADD
    OPERATOR 1 pg_catalog.< (smallint, integer), OPERATOR 2 pg_catalog.<= (smallint, integer), OPERATOR 3 pg_catalog.= (smallint, integer), OPERATOR 4 pg_catalog.>= (smallint, integer), OPERATOR 5 pg_catalog.> (smallint, integer),
    OPERATOR 1 pg_catalog.< (smallint, bigint), OPERATOR 2 pg_catalog.<= (smallint, bigint), OPERATOR 3 pg_catalog.= (smallint, bigint), OPERATOR 4 pg_catalog.>= (smallint, bigint), OPERATOR 5 pg_catalog.> (smallint, bigint),
    OPERATOR 1 pg_catalog.< (integer, smallint), OPERATOR 2 pg_catalog.<= (integer, smallint), OPERATOR 3 pg_catalog.= (integer, smallint), OPERATOR 4 pg_catalog.>= (integer, smallint), OPERATOR 5 pg_catalog.> (integer, smallint),
    OPERATOR 1 pg_catalog.< (integer, bigint), OPERATOR 2 pg_catalog.<= (integer, bigint), OPERATOR 3 pg_catalog.= (integer, bigint), OPERATOR 4 pg_catalog.>= (integer, bigint), OPERATOR 5 pg_catalog.> (integer, bigint),
    OPERATOR 1 pg_catalog.< (bigint, smallint), OPERATOR 2 pg_catalog.<= (bigint, smallint), OPERATOR 3 pg_catalog.= (bigint, smallint), OPERATOR 4 pg_catalog.>= (bigint, smallint), OPERATOR 5 pg_catalog.> (bigint, smallint),
    OPERATOR 1 pg_catalog.< (bigint, integer), OPERATOR 2 pg_catalog.<= (bigint, integer), OPERATOR 3 pg_catalog.= (bigint, integer), OPERATOR 4 pg_catalog.>= (bigint, integer), OPERATOR 5 pg_catalog.> (bigint, integer);

CREATE OPERATOR FAMILY ann_float_ops USING ann;
COMMENT ON OPERATOR FAMILY ann_float_ops USING ann IS 'key columns whose types compare with each other';
CREATE OPERATOR CLASS ann_float4_ops DEFAULT FOR TYPE real USING ann FAMILY ann_float_ops AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_float4_ops USING ann IS 'key column: real';
CREATE OPERATOR CLASS ann_float8_ops DEFAULT FOR TYPE double precision USING ann FAMILY ann_float_ops AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_float8_ops USING ann IS 'key column: double precision';
ALTER OPERATOR FAMILY ann_float_ops USING ann ADD
    OPERATOR 1 pg_catalog.< (real, double precision), OPERATOR 2 pg_catalog.<= (real, double precision), OPERATOR 3 pg_catalog.= (real, double precision), OPERATOR 4 pg_catalog.>= (real, double precision), OPERATOR 5 pg_catalog.> (real, double precision),
    OPERATOR 1 pg_catalog.< (double precision, real), OPERATOR 2 pg_catalog.<= (double precision, real), OPERATOR 3 pg_catalog.= (double precision, real), OPERATOR 4 pg_catalog.>= (double precision, real), OPERATOR 5 pg_catalog.> (double precision, real);

CREATE OPERATOR FAMILY ann_datetime_ops USING ann;
COMMENT ON OPERATOR FAMILY ann_datetime_ops USING ann IS 'key columns whose types compare with each other';
CREATE OPERATOR CLASS ann_date_ops DEFAULT FOR TYPE date USING ann FAMILY ann_datetime_ops AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_date_ops USING ann IS 'key column: date';
CREATE OPERATOR CLASS ann_timestamp_ops DEFAULT FOR TYPE timestamp USING ann FAMILY ann_datetime_ops AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_timestamp_ops USING ann IS 'key column: timestamp';
CREATE OPERATOR CLASS ann_timestamptz_ops DEFAULT FOR TYPE timestamptz USING ann FAMILY ann_datetime_ops AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_timestamptz_ops USING ann IS 'key column: timestamptz';
ALTER OPERATOR FAMILY ann_datetime_ops USING ann ADD
    OPERATOR 1 pg_catalog.< (date, timestamp), OPERATOR 2 pg_catalog.<= (date, timestamp), OPERATOR 3 pg_catalog.= (date, timestamp), OPERATOR 4 pg_catalog.>= (date, timestamp), OPERATOR 5 pg_catalog.> (date, timestamp),
    OPERATOR 1 pg_catalog.< (date, timestamptz), OPERATOR 2 pg_catalog.<= (date, timestamptz), OPERATOR 3 pg_catalog.= (date, timestamptz), OPERATOR 4 pg_catalog.>= (date, timestamptz), OPERATOR 5 pg_catalog.> (date, timestamptz),
    OPERATOR 1 pg_catalog.< (timestamp, date), OPERATOR 2 pg_catalog.<= (timestamp, date), OPERATOR 3 pg_catalog.= (timestamp, date), OPERATOR 4 pg_catalog.>= (timestamp, date), OPERATOR 5 pg_catalog.> (timestamp, date),
    OPERATOR 1 pg_catalog.< (timestamp, timestamptz), OPERATOR 2 pg_catalog.<= (timestamp, timestamptz), OPERATOR 3 pg_catalog.= (timestamp, timestamptz), OPERATOR 4 pg_catalog.>= (timestamp, timestamptz), OPERATOR 5 pg_catalog.> (timestamp, timestamptz),
    OPERATOR 1 pg_catalog.< (timestamptz, date), OPERATOR 2 pg_catalog.<= (timestamptz, date), OPERATOR 3 pg_catalog.= (timestamptz, date), OPERATOR 4 pg_catalog.>= (timestamptz, date), OPERATOR 5 pg_catalog.> (timestamptz, date),
    OPERATOR 1 pg_catalog.< (timestamptz, timestamp), OPERATOR 2 pg_catalog.<= (timestamptz, timestamp), OPERATOR 3 pg_catalog.= (timestamptz, timestamp), OPERATOR 4 pg_catalog.>= (timestamptz, timestamp), OPERATOR 5 pg_catalog.> (timestamptz, timestamp);
CREATE OPERATOR CLASS ann_bool_ops DEFAULT FOR TYPE boolean USING ann AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_bool_ops USING ann IS 'key column: boolean';
CREATE OPERATOR CLASS ann_oid_ops DEFAULT FOR TYPE oid USING ann AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_oid_ops USING ann IS 'key column: oid';
CREATE OPERATOR CLASS ann_numeric_ops DEFAULT FOR TYPE numeric USING ann AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_numeric_ops USING ann IS 'key column: numeric';
CREATE OPERATOR CLASS ann_uuid_ops DEFAULT FOR TYPE uuid USING ann AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_uuid_ops USING ann IS 'key column: uuid';
CREATE OPERATOR CLASS ann_time_ops DEFAULT FOR TYPE time USING ann AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_time_ops USING ann IS 'key column: time';

CREATE OPERATOR CLASS ann_text_ops DEFAULT FOR TYPE text USING ann AS
    OPERATOR 3 pg_catalog.=,
    FUNCTION 1 ann_key_hashed(internal);
COMMENT ON OPERATOR CLASS ann_text_ops USING ann IS 'key column: text, by equality';
CREATE OPERATOR CLASS ann_text_order_ops FOR TYPE text USING ann AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 ann_key_ordered(internal);
COMMENT ON OPERATOR CLASS ann_text_order_ops USING ann IS 'key column: text in the order of collation "C"';
CREATE OPERATOR CLASS ann_bpchar_ops DEFAULT FOR TYPE bpchar USING ann AS
    OPERATOR 3 pg_catalog.=,
    FUNCTION 1 ann_key_hashed(internal);
COMMENT ON OPERATOR CLASS ann_bpchar_ops USING ann IS 'key column: bpchar, by equality';
CREATE OPERATOR CLASS ann_inet_ops DEFAULT FOR TYPE inet USING ann AS
    OPERATOR 3 pg_catalog.=,
    FUNCTION 1 ann_key_hashed(internal);
COMMENT ON OPERATOR CLASS ann_inet_ops USING ann IS 'key column: inet, by equality';
CREATE OPERATOR CLASS ann_enum_ops DEFAULT FOR TYPE anyenum USING ann AS
    OPERATOR 3 pg_catalog.=,
    FUNCTION 1 ann_key_hashed(internal);
COMMENT ON OPERATOR CLASS ann_enum_ops USING ann IS 'key column: anyenum, by equality';
CREATE OPERATOR CLASS ann_array_ops DEFAULT FOR TYPE anyarray USING ann AS
    OPERATOR 6 pg_catalog.&&, OPERATOR 7 pg_catalog.@>,
    FUNCTION 1 ann_key_set(internal);
COMMENT ON OPERATOR CLASS ann_array_ops USING ann IS 'key column: arrays, by && and @>';

-- Two columns more.
DROP FUNCTION ann_index_info(regclass);
CREATE FUNCTION ann_index_info(index regclass, OUT metric text, OUT dims integer, OUT code_dims integer,
    OUT nodes_per_page integer, OUT pages bigint, OUT size_bytes bigint, OUT entries bigint, OUT built_rows bigint,
    OUT format_version integer, OUT key_columns integer, OUT key_bytes integer,
    OUT code_bits integer, OUT lookahead integer[])
    RETURNS record AS 'MODULE_PATHNAME', 'ann_index_info_wrapper' LANGUAGE C STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION ann_index_info(regclass) IS 'shape and size of an ann index, from its first pages; key_bytes is per row, and lookahead has the values that find .90, .95, .98 and .99 of the nearest rows';

CREATE FUNCTION ann_index_recall(index regclass, queries imgvec[], k integer DEFAULT 10)
    RETURNS double precision AS 'MODULE_PATHNAME', 'ann_index_recall_of_queries_wrapper'
    LANGUAGE C STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION ann_index_recall(regclass, imgvec[], integer) IS
    'share of the k nearest rows that the index finds for the given queries, such as embedded texts';
CREATE FUNCTION ann_index_recall(index regclass, recalibrate boolean, k integer DEFAULT 10, samples integer DEFAULT 100)
    RETURNS double precision AS 'MODULE_PATHNAME', 'ann_index_recalibrate_wrapper'
    LANGUAGE C STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION ann_index_recall(regclass, boolean, integer, integer) IS
    'measures how far searches must look ahead, stores that in the index, then does the same as ann_index_recall(regclass, integer, integer)';
CREATE FUNCTION ann_index_recall(index regclass, queries imgvec[], recalibrate boolean, k integer DEFAULT 10)
    RETURNS double precision AS 'MODULE_PATHNAME', 'ann_index_recalibrate_for_wrapper'
    LANGUAGE C STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION ann_index_recall(regclass, imgvec[], boolean, integer) IS
    'measures how far searches for these queries must look ahead, stores that in the index, then does the same as ann_index_recall(regclass, imgvec[], integer)';

-- All indexes at a glance, on this server or on those of a cluster.
CREATE FUNCTION ann_index_state(index regclass, OUT metric text, OUT dims integer, OUT size_bytes bigint, OUT format_version integer,
    OUT recall double precision, OUT recall_k integer, OUT recall_at double precision)
    RETURNS record AS 'MODULE_PATHNAME', 'ann_index_state_wrapper' LANGUAGE C STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION ann_index_state(regclass) IS 'state of an ann index, as far as it can be read now; see the view ann_indexes';
CREATE VIEW ann_indexes AS
    SELECT n.nspname AS schema, x.indrelid::regclass AS relation, x.indexrelid::regclass AS index,
        pg_catalog.pg_partition_root(x.indrelid::regclass) AS partition_of, x.indisvalid AS is_valid, s.metric, s.dims, s.size_bytes,
        CASE WHEN c.reltuples OPERATOR(pg_catalog.>=) 0::real THEN c.reltuples::bigint END AS rows,
        s.format_version, s.recall, s.recall_k, pg_catalog.to_timestamp(s.recall_at) AS recall_at
    FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_am AS a ON a.oid OPERATOR(pg_catalog.=) c.relam
        JOIN pg_catalog.pg_index AS x ON x.indexrelid OPERATOR(pg_catalog.=) c.oid
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        CROSS JOIN LATERAL ann_index_state(c.oid::regclass) AS s
    WHERE a.amname OPERATOR(pg_catalog.=) 'ann'::name AND c.relkind OPERATOR(pg_catalog.=) 'i'::"char";
COMMENT ON VIEW ann_indexes IS
    'ann indexes of this database, one per partition: rows as counted by the last VACUUM, ANALYZE or build, and the recall that the owner measured last; NULL where the index cannot be read now';
GRANT SELECT ON ann_indexes TO PUBLIC;

-- Queries of several parts.
CREATE FUNCTION imgvec_mul(imgvec, double precision) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_mul_scalar_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION imgvec_mul(imgvec, double precision) IS 'implementation of * operator';

CREATE FUNCTION imgvec_mul(double precision, imgvec) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_scalar_mul_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION imgvec_mul(double precision, imgvec) IS 'implementation of * operator';

CREATE OPERATOR * (LEFTARG = imgvec, RIGHTARG = double precision, FUNCTION = imgvec_mul, COMMUTATOR = *);
COMMENT ON OPERATOR * (imgvec, double precision) IS 'multiply each element';

CREATE OPERATOR * (LEFTARG = double precision, RIGHTARG = imgvec, FUNCTION = imgvec_mul, COMMUTATOR = *);
COMMENT ON OPERATOR * (double precision, imgvec) IS 'multiply each element';

CREATE FUNCTION embed_query(image bytea, query text, weight double precision) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_query_weighted_wrapper' LANGUAGE C STABLE PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_query(bytea, text, double precision) IS 'embedding of a query of an image and a text by the default model; the weight, 0 to 1, is the share of the text';

CREATE FUNCTION embed_query(image bytea, query text, weight double precision, model text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_query_weighted_with_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_query(bytea, text, double precision, text) IS 'embedding of a query of an image and a text by a named model; the weight, 0 to 1, is the share of the text';

CREATE FUNCTION embed_mix(vectors imgvec[], weights double precision[]) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_mix_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION embed_mix(imgvec[], double precision[]) IS 'unit vector of the weighted sum of directions; weights may be negative, and NULL vectors are left out';

CREATE FUNCTION embed_text(query text, model text, prompt text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_text_prompt_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION embed_text(text, text, text) IS 'embedding of a text by a named model, after the prompt of that name in its package';

CREATE FUNCTION embed_text(query text, model text, dims integer) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_text_dims_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION embed_text(text, text, integer) IS 'first dimensions of the embedding of a text by a named Matryoshka model';

CREATE FUNCTION embed_text(query text, model text, prompt text, dims integer) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_text_prompt_dims_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION embed_text(text, text, text, integer) IS 'first dimensions of the embedding of a text, after a named prompt, by a named Matryoshka model';

CREATE FUNCTION embed_texts(queries text[], model text, prompt text) RETURNS imgvec[]
    AS 'MODULE_PATHNAME', 'embed_texts_prompt_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION embed_texts(text[], text, text) IS 'embeddings of several texts by a named model, after the prompt of that name in its package; NULL for NULL';

CREATE FUNCTION embed_image(image bytea, model text, dims integer) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_image_dims_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_image(bytea, text, integer) IS 'first dimensions of the embedding of an image by a named Matryoshka model';

CREATE FUNCTION embed_image(image bytea, region box) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_image_region_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_image(bytea, box) IS 'embedding of a part of an image, in pixels from its top left, by the default model';

CREATE FUNCTION embed_image(image bytea, region box, model text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_image_region_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_image(bytea, box, text) IS 'embedding of a part of an image, in pixels from its top left, by a named model';

CREATE FUNCTION embed_image(image bytea, frame integer) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_image_frame_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_image(bytea, integer) IS 'embedding of a frame of an animation, or a page of a TIFF, from 1, by the default model';

CREATE FUNCTION embed_image(image bytea, frame integer, model text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_image_frame_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_image(bytea, integer, text) IS 'embedding of a frame of an animation, or a page of a TIFF, from 1, by a named model';

CREATE FUNCTION image_tiles(image bytea, grid integer DEFAULT 3, overlap double precision DEFAULT 0)
    RETURNS TABLE (region box, embedding imgvec)
    AS 'MODULE_PATHNAME', 'image_tiles_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000000 ROWS 10;
COMMENT ON FUNCTION image_tiles(bytea, integer, double precision) IS
    'regions and embeddings of an image and of tiles that cover it, by the default model; grid is the number of tiles along the shorter side';

CREATE FUNCTION image_tiles(image bytea, grid integer, overlap double precision, model text)
    RETURNS TABLE (region box, embedding imgvec)
    AS 'MODULE_PATHNAME', 'image_tiles_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000000 ROWS 10;
COMMENT ON FUNCTION image_tiles(bytea, integer, double precision, text) IS
    'regions and embeddings of an image and of tiles that cover it, by a named model; grid is the number of tiles along the shorter side';

CREATE FUNCTION classify_image(image bytea, labels text[], threshold double precision) RETURNS TABLE (label text, score real)
    AS 'MODULE_PATHNAME', 'classify_image_threshold_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000 ROWS 3;
COMMENT ON FUNCTION classify_image(bytea, text[], double precision) IS
    'labels of an image that score at least the threshold, each scored separately by the default model; one row without a label if there is none';

CREATE FUNCTION classify_image(image bytea, labels text[], threshold double precision, model text) RETURNS TABLE (label text, score real)
    AS 'MODULE_PATHNAME', 'classify_image_threshold_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000 ROWS 3;
COMMENT ON FUNCTION classify_image(bytea, text[], double precision, text) IS
    'labels of an image that score at least the threshold, each scored separately by a named model; one row without a label if there is none';

CREATE FUNCTION classify_embedding(embedding imgvec, labels text[], threshold double precision) RETURNS TABLE (label text, score real)
    AS 'MODULE_PATHNAME', 'classify_embedding_threshold_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000 ROWS 3;
COMMENT ON FUNCTION classify_embedding(imgvec, text[], double precision) IS
    'labels of an image''s embedding that score at least the threshold, each scored separately by the default model; one row without a label if there is none';

CREATE FUNCTION classify_embedding(embedding imgvec, labels text[], threshold double precision, model text) RETURNS TABLE (label text, score real)
    AS 'MODULE_PATHNAME', 'classify_embedding_threshold_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000 ROWS 3;
COMMENT ON FUNCTION classify_embedding(imgvec, text[], double precision, text) IS
    'labels of an image''s embedding that score at least the threshold, each scored separately by a named model; one row without a label if there is none';

CREATE FUNCTION answer_image(image bytea, question text, answers text[]) RETURNS TABLE (answer text, score real)
    AS 'MODULE_PATHNAME', 'answer_image_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000 ROWS 3;
COMMENT ON FUNCTION answer_image(bytea, text, text[]) IS
    'the given answers to a question about an image, scored by the default model, best first';

CREATE FUNCTION answer_image(image bytea, question text, answers text[], model text) RETURNS TABLE (answer text, score real)
    AS 'MODULE_PATHNAME', 'answer_image_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000 ROWS 3;
COMMENT ON FUNCTION answer_image(bytea, text, text[], text) IS
    'the given answers to a question about an image, scored by a named model, best first';

CREATE FUNCTION answer_image(image bytea, question text, model text) RETURNS TABLE (answer text, score real)
    AS 'MODULE_PATHNAME', 'answer_image_model_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000 ROWS 1000;
COMMENT ON FUNCTION answer_image(bytea, text, text) IS
    'all answers of a model that has its own, such as ViLT, to a question about an image, best first; a text {a,b} is read as answers for the default model';

-- Jobs of a picture library.

CREATE FUNCTION image_hash(image bytea) RETURNS bit
    AS 'MODULE_PATHNAME', 'image_hash_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION image_hash(bytea) IS
    'perceptual hash of 64 bits; a copy that was encoded again, resized or brightened differs in few bits, which bit_count(a # b) counts';

CREATE FUNCTION taste_accum(double precision[], imgvec, double precision) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'taste_accum_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION taste_accum(double precision[], imgvec, double precision) IS 'aggregate transition function';

CREATE FUNCTION taste_combine(double precision[], double precision[]) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'taste_combine_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION taste_combine(double precision[], double precision[]) IS 'aggregate combine function';

CREATE FUNCTION taste_final(double precision[]) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'taste_final_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION taste_final(double precision[]) IS 'aggregate final function';

CREATE AGGREGATE taste(embedding imgvec, weight double precision) (
    SFUNC = taste_accum,
    STYPE = double precision[],
    INITCOND = '{0}',
    FINALFUNC = taste_final,
    COMBINEFUNC = taste_combine,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE taste(imgvec, double precision) IS
    'unit vector towards embeddings with a positive weight and away from those with a negative one; NULL without rows, or if they cancel each other';

CREATE FUNCTION duplicate_group(embedding imgvec, max_distance double precision) RETURNS integer
    AS 'MODULE_PATHNAME', 'duplicate_group_wrapper' LANGUAGE C WINDOW IMMUTABLE PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION duplicate_group(imgvec, double precision) IS
    'number of the row''s group, in which all rows are within a cosine distance of each other; NULL for a row in no group';

CREATE FUNCTION duplicate_group(embedding imgvec, max_distance double precision, linkage text) RETURNS integer
    AS 'MODULE_PATHNAME', 'duplicate_group_linked_wrapper' LANGUAGE C WINDOW IMMUTABLE PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION duplicate_group(imgvec, double precision, text) IS
    'number of the row''s group: with complete linkage every two rows are within a cosine distance, with single linkage each row is near another one; NULL for a row in no group';

CREATE FUNCTION cluster(embedding imgvec, min_size integer) RETURNS integer
    AS 'MODULE_PATHNAME', 'cluster_wrapper' LANGUAGE C WINDOW IMMUTABLE PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION cluster(imgvec, integer) IS
    'number of the row''s cluster (HDBSCAN) of at least min_size rows, the largest first; NULL for a row in no cluster';

CREATE FUNCTION diverse_rank(embedding imgvec, score double precision, diversity double precision) RETURNS bigint
    AS 'MODULE_PATHNAME', 'diverse_rank_wrapper' LANGUAGE C WINDOW IMMUTABLE PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION diverse_rank(imgvec, double precision, double precision) IS
    'rank by score, greatest first, that moves rows back if they are similar to earlier ones (maximal marginal relevance); diversity is 0 to 1';

CREATE FUNCTION embedding_map(embedding imgvec) RETURNS point
    AS 'MODULE_PATHNAME', 'embedding_map_wrapper' LANGUAGE C WINDOW IMMUTABLE PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION embedding_map(imgvec) IS 'place of each row on a map of its partition, with coordinates from -1 to 1; similar rows are near each other';

CREATE FUNCTION ann_pairs(index regclass, max_distance double precision)
    RETURNS TABLE (a tid, b tid, distance double precision)
    AS 'MODULE_PATHNAME', 'ann_pairs_wrapper' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000000 ROWS 1000;
COMMENT ON FUNCTION ann_pairs(regclass, double precision) IS
    'pairs of rows of an index within a distance, each once, by their ctid';

CREATE FUNCTION ann_groups(index regclass, max_distance double precision, linkage text DEFAULT 'complete')
    RETURNS TABLE (tid tid, number integer)
    AS 'MODULE_PATHNAME', 'ann_groups_wrapper' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000000 ROWS 1000;
COMMENT ON FUNCTION ann_groups(regclass, double precision, text) IS
    'groups of rows of an index, by their ctid: with complete linkage every two rows are within a distance, with single linkage each row is near another one; rows in no group are left out';

CREATE FUNCTION ann_clusters(index regclass, min_size integer DEFAULT 5)
    RETURNS TABLE (tid tid, cluster integer, strength real)
    AS 'MODULE_PATHNAME', 'ann_clusters_wrapper' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000000 ROWS 100000;
COMMENT ON FUNCTION ann_clusters(regclass, integer) IS
    'rows of an index, by their ctid, with their cluster (HDBSCAN) of at least min_size rows, the largest first, and their strength in it, 0 to 1; NULL for rows in no cluster';

------------------------------------------------------------------------------------------------------
-- Vectors of half precision: byte for byte pgvector's halfvec, at half the size of imgvec. An imghalf becomes an imgvec by itself, which is
-- exact, so every function of imgvec takes it. The other way rounds, and happens on assignment alone. Functions by pgvector's names have a
-- form of their own, or they would be ambiguous beside pgvector, whose halfvec an imghalf becomes, too.
-- Distances between the two are operators of their own, so that an index on a column of either type answers queries of both.
------------------------------------------------------------------------------------------------------

CREATE TYPE imghalf;

CREATE FUNCTION imghalf_in(cstring, oid, integer) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_in_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_in(cstring, oid, integer) IS 'text input';

CREATE FUNCTION imghalf_out(imghalf) RETURNS cstring
    AS 'MODULE_PATHNAME', 'imghalf_out_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_out(imghalf) IS 'text output';

CREATE FUNCTION imghalf_typmod_in(cstring[]) RETURNS integer
    AS 'MODULE_PATHNAME', 'imghalf_typmod_in_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_typmod_in(cstring[]) IS 'type modifier input';

CREATE FUNCTION imghalf_recv(internal, oid, integer) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_recv_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_recv(internal, oid, integer) IS 'binary input';

CREATE FUNCTION imghalf_send(imghalf) RETURNS bytea
    AS 'MODULE_PATHNAME', 'imghalf_send_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_send(imghalf) IS 'binary output';

-- In the row, as an imgvec: 512 dimensions take 1,032 bytes.
CREATE TYPE imghalf (
    INPUT = imghalf_in,
    OUTPUT = imghalf_out,
    TYPMOD_IN = imghalf_typmod_in,
    RECEIVE = imghalf_recv,
    SEND = imghalf_send,
    STORAGE = main
);
COMMENT ON TYPE imghalf IS 'vector of half-precision numbers, which takes half the space of an imgvec';

CREATE FUNCTION inner_product(imghalf, imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_inner_product_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION inner_product(imghalf, imghalf) IS 'inner product, larger is nearer';

CREATE FUNCTION l2_distance(imghalf, imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_l2_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION l2_distance(imghalf, imghalf) IS 'Euclidean distance';

CREATE FUNCTION imghalf_imgvec_l2_distance(imghalf, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_imgvec_l2_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION imghalf_imgvec_l2_distance(imghalf, imgvec) IS 'implementation of <-> operator';

CREATE FUNCTION imgvec_imghalf_l2_distance(imgvec, imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_imghalf_l2_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION imgvec_imghalf_l2_distance(imgvec, imghalf) IS 'implementation of <-> operator';

CREATE FUNCTION imghalf_negative_inner_product(imghalf, imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_negative_inner_product_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION imghalf_negative_inner_product(imghalf, imghalf) IS 'implementation of <#> operator';

CREATE FUNCTION imghalf_imgvec_negative_inner_product(imghalf, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_imgvec_negative_inner_product_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION imghalf_imgvec_negative_inner_product(imghalf, imgvec) IS 'implementation of <#> operator';

CREATE FUNCTION imgvec_imghalf_negative_inner_product(imgvec, imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_imghalf_negative_inner_product_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION imgvec_imghalf_negative_inner_product(imgvec, imghalf) IS 'implementation of <#> operator';

CREATE FUNCTION cosine_distance(imghalf, imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_cosine_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION cosine_distance(imghalf, imghalf) IS 'cosine distance, 1 - cosine';

CREATE FUNCTION imghalf_imgvec_cosine_distance(imghalf, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_imgvec_cosine_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION imghalf_imgvec_cosine_distance(imghalf, imgvec) IS 'implementation of <=> operator';

CREATE FUNCTION imgvec_imghalf_cosine_distance(imgvec, imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_imghalf_cosine_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION imgvec_imghalf_cosine_distance(imgvec, imghalf) IS 'implementation of <=> operator';

CREATE FUNCTION l1_distance(imghalf, imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_l1_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION l1_distance(imghalf, imghalf) IS 'Manhattan distance';

CREATE FUNCTION imghalf_imgvec_l1_distance(imghalf, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_imgvec_l1_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION imghalf_imgvec_l1_distance(imghalf, imgvec) IS 'implementation of <+> operator';

CREATE FUNCTION imgvec_imghalf_l1_distance(imgvec, imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_imghalf_l1_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
    SUPPORT imgvec_distance_support;
COMMENT ON FUNCTION imgvec_imghalf_l1_distance(imgvec, imghalf) IS 'implementation of <+> operator';

CREATE FUNCTION vector_dims(imghalf) RETURNS integer
    AS 'MODULE_PATHNAME', 'imghalf_dims_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION vector_dims(imghalf) IS 'number of dimensions';

CREATE FUNCTION vector_norm(imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_norm_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION vector_norm(imghalf) IS 'Euclidean norm';

CREATE FUNCTION l2_norm(imghalf) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imghalf_norm_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION l2_norm(imghalf) IS 'Euclidean norm';

CREATE FUNCTION binary_quantize(imghalf) RETURNS bit
    AS 'MODULE_PATHNAME', 'imghalf_binary_quantize_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION binary_quantize(imghalf) IS 'one bit an element, 1 where it is positive';

CREATE FUNCTION l2_normalize(imghalf) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_l2_normalize_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION l2_normalize(imghalf) IS 'the vector scaled to Euclidean norm 1; the zero vector stays';

CREATE FUNCTION subvector(vector imghalf, start integer, count integer) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_subvector_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION subvector(imghalf, integer, integer) IS 'count elements from the 1-based start on';

CREATE FUNCTION imghalf_add(imghalf, imghalf) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_add_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION imghalf_add(imghalf, imghalf) IS 'implementation of + operator';

CREATE FUNCTION imghalf_sub(imghalf, imghalf) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_sub_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION imghalf_sub(imghalf, imghalf) IS 'implementation of - operator';

CREATE FUNCTION imghalf_mul(imghalf, imghalf) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_mul_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION imghalf_mul(imghalf, imghalf) IS 'implementation of * operator';

CREATE FUNCTION imghalf_mul(imghalf, double precision) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_mul_scalar_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION imghalf_mul(imghalf, double precision) IS 'implementation of * operator';

CREATE FUNCTION imghalf_mul(double precision, imghalf) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_scalar_mul_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION imghalf_mul(double precision, imghalf) IS 'implementation of * operator';

CREATE FUNCTION imghalf_concat(imghalf, imghalf) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_concat_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_concat(imghalf, imghalf) IS 'implementation of || operator';

CREATE FUNCTION imghalf_lt(imghalf, imghalf) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imghalf_lt_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_lt(imghalf, imghalf) IS 'implementation of < operator';

CREATE FUNCTION imghalf_le(imghalf, imghalf) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imghalf_le_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_le(imghalf, imghalf) IS 'implementation of <= operator';

CREATE FUNCTION imghalf_eq(imghalf, imghalf) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imghalf_eq_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_eq(imghalf, imghalf) IS 'implementation of = operator';

CREATE FUNCTION imghalf_ne(imghalf, imghalf) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imghalf_ne_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_ne(imghalf, imghalf) IS 'implementation of <> operator';

CREATE FUNCTION imghalf_ge(imghalf, imghalf) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imghalf_ge_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_ge(imghalf, imghalf) IS 'implementation of >= operator';

CREATE FUNCTION imghalf_gt(imghalf, imghalf) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imghalf_gt_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_gt(imghalf, imghalf) IS 'implementation of > operator';

CREATE FUNCTION imghalf_cmp(imghalf, imghalf) RETURNS integer
    AS 'MODULE_PATHNAME', 'imghalf_cmp_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_cmp(imghalf, imghalf) IS 'less-equal-greater';

CREATE FUNCTION imghalf_hash(imghalf) RETURNS integer
    AS 'MODULE_PATHNAME', 'imghalf_hash_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_hash(imghalf) IS 'hash';

CREATE FUNCTION imghalf_hash_extended(imghalf, bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'imghalf_hash_extended_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_hash_extended(imghalf, bigint) IS 'hash with a seed';

CREATE FUNCTION imghalf_accum(double precision[], imghalf) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'imghalf_accum_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION imghalf_accum(double precision[], imghalf) IS 'aggregate transition function';

CREATE FUNCTION imghalf_avg(double precision[]) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_avg_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_avg(double precision[]) IS 'aggregate final function';

CREATE FUNCTION imghalf_sum(double precision[]) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_sum_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_sum(double precision[]) IS 'aggregate final function';

CREATE AGGREGATE avg(imghalf) (
    SFUNC = imghalf_accum,
    STYPE = double precision[],
    INITCOND = '{0}',
    FINALFUNC = imghalf_avg,
    COMBINEFUNC = imgvec_combine,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE avg(imghalf) IS 'the average vector; NULL of no rows';

CREATE AGGREGATE sum(imghalf) (
    SFUNC = imghalf_accum,
    STYPE = double precision[],
    INITCOND = '{0}',
    FINALFUNC = imghalf_sum,
    COMBINEFUNC = imgvec_combine,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE sum(imghalf) IS 'the sum of vectors; NULL of no rows';

CREATE FUNCTION imghalf(imghalf, integer, boolean) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imghalf_to_imghalf_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE SUPPORT imgvec_support;
COMMENT ON FUNCTION imghalf(imghalf, integer, boolean) IS 'check of the number of dimensions';

-- Their C functions are also those of imgvec_pgvector's casts: an imghalf is a halfvec.
CREATE FUNCTION imgvec_to_imghalf(imgvec, integer, boolean) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imgvec_to_halfvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_to_imghalf(imgvec, integer, boolean) IS 'convert imgvec to imghalf, rounding';

CREATE FUNCTION imghalf_to_imgvec(imghalf, integer, boolean) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'halfvec_to_imgvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_to_imgvec(imghalf, integer, boolean) IS 'convert imghalf to imgvec';

CREATE FUNCTION array_to_imghalf(integer[], integer, boolean) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'int4_array_to_imghalf_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION array_to_imghalf(integer[], integer, boolean) IS 'convert integer[] to imghalf';

CREATE FUNCTION array_to_imghalf(real[], integer, boolean) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'float4_array_to_imghalf_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION array_to_imghalf(real[], integer, boolean) IS 'convert real[] to imghalf';

CREATE FUNCTION array_to_imghalf(double precision[], integer, boolean) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'float8_array_to_imghalf_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION array_to_imghalf(double precision[], integer, boolean) IS 'convert double precision[] to imghalf';

CREATE FUNCTION array_to_imghalf(numeric[], integer, boolean) RETURNS imghalf
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN array_to_imghalf($1::real[], $2, $3);
COMMENT ON FUNCTION array_to_imghalf(numeric[], integer, boolean) IS 'convert numeric[] to imghalf';

CREATE FUNCTION imghalf_to_float4(imghalf, integer, boolean) RETURNS real[]
    AS 'MODULE_PATHNAME', 'imghalf_to_float4_array_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_to_float4(imghalf, integer, boolean) IS 'convert imghalf to real[]';

CREATE FUNCTION imghalf_to_float8(imghalf, integer, boolean) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'imghalf_to_float8_array_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_to_float8(imghalf, integer, boolean) IS 'convert imghalf to double precision[]';

CREATE FUNCTION imghalf_to_int4(imghalf, integer, boolean) RETURNS integer[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN imghalf_to_float4($1, -1, true)::integer[];
COMMENT ON FUNCTION imghalf_to_int4(imghalf, integer, boolean) IS 'convert imghalf to integer[], rounding';

CREATE FUNCTION imghalf_to_numeric(imghalf, integer, boolean) RETURNS numeric[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN imghalf_to_float4($1, -1, true)::numeric[];
COMMENT ON FUNCTION imghalf_to_numeric(imghalf, integer, boolean) IS 'convert imghalf to numeric[]';

CREATE CAST (imghalf AS imghalf) WITH FUNCTION imghalf(imghalf, integer, boolean) AS IMPLICIT;
CREATE CAST (imghalf AS imgvec) WITH FUNCTION imghalf_to_imgvec(imghalf, integer, boolean) AS IMPLICIT;
CREATE CAST (imgvec AS imghalf) WITH FUNCTION imgvec_to_imghalf(imgvec, integer, boolean) AS ASSIGNMENT;
CREATE CAST (imghalf AS real[]) WITH FUNCTION imghalf_to_float4(imghalf, integer, boolean) AS ASSIGNMENT;
CREATE CAST (imghalf AS double precision[]) WITH FUNCTION imghalf_to_float8(imghalf, integer, boolean) AS ASSIGNMENT;
CREATE CAST (imghalf AS numeric[]) WITH FUNCTION imghalf_to_numeric(imghalf, integer, boolean) AS ASSIGNMENT;
CREATE CAST (imghalf AS integer[]) WITH FUNCTION imghalf_to_int4(imghalf, integer, boolean);
CREATE CAST (real[] AS imghalf) WITH FUNCTION array_to_imghalf(real[], integer, boolean) AS ASSIGNMENT;
CREATE CAST (integer[] AS imghalf) WITH FUNCTION array_to_imghalf(integer[], integer, boolean) AS ASSIGNMENT;
CREATE CAST (double precision[] AS imghalf)
    WITH FUNCTION array_to_imghalf(double precision[], integer, boolean) AS ASSIGNMENT;
CREATE CAST (numeric[] AS imghalf) WITH FUNCTION array_to_imghalf(numeric[], integer, boolean) AS ASSIGNMENT;

CREATE OPERATOR <-> (LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = l2_distance, COMMUTATOR = <->);
COMMENT ON OPERATOR <-> (imghalf, imghalf) IS 'Euclidean distance';

CREATE OPERATOR <-> (LEFTARG = imghalf, RIGHTARG = imgvec, FUNCTION = imghalf_imgvec_l2_distance, COMMUTATOR = <->);
COMMENT ON OPERATOR <-> (imghalf, imgvec) IS 'Euclidean distance';

CREATE OPERATOR <-> (LEFTARG = imgvec, RIGHTARG = imghalf, FUNCTION = imgvec_imghalf_l2_distance, COMMUTATOR = <->);
COMMENT ON OPERATOR <-> (imgvec, imghalf) IS 'Euclidean distance';

CREATE OPERATOR <#> (LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_negative_inner_product, COMMUTATOR = <#>);
COMMENT ON OPERATOR <#> (imghalf, imghalf) IS 'negative inner product';

CREATE OPERATOR <#> (LEFTARG = imghalf, RIGHTARG = imgvec, FUNCTION = imghalf_imgvec_negative_inner_product, COMMUTATOR = <#>);
COMMENT ON OPERATOR <#> (imghalf, imgvec) IS 'negative inner product';

CREATE OPERATOR <#> (LEFTARG = imgvec, RIGHTARG = imghalf, FUNCTION = imgvec_imghalf_negative_inner_product, COMMUTATOR = <#>);
COMMENT ON OPERATOR <#> (imgvec, imghalf) IS 'negative inner product';

CREATE OPERATOR <=> (LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = cosine_distance, COMMUTATOR = <=>);
COMMENT ON OPERATOR <=> (imghalf, imghalf) IS 'cosine distance';

CREATE OPERATOR <=> (LEFTARG = imghalf, RIGHTARG = imgvec, FUNCTION = imghalf_imgvec_cosine_distance, COMMUTATOR = <=>);
COMMENT ON OPERATOR <=> (imghalf, imgvec) IS 'cosine distance';

CREATE OPERATOR <=> (LEFTARG = imgvec, RIGHTARG = imghalf, FUNCTION = imgvec_imghalf_cosine_distance, COMMUTATOR = <=>);
COMMENT ON OPERATOR <=> (imgvec, imghalf) IS 'cosine distance';

CREATE OPERATOR <+> (LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = l1_distance, COMMUTATOR = <+>);
COMMENT ON OPERATOR <+> (imghalf, imghalf) IS 'Manhattan distance';

CREATE OPERATOR <+> (LEFTARG = imghalf, RIGHTARG = imgvec, FUNCTION = imghalf_imgvec_l1_distance, COMMUTATOR = <+>);
COMMENT ON OPERATOR <+> (imghalf, imgvec) IS 'Manhattan distance';

CREATE OPERATOR <+> (LEFTARG = imgvec, RIGHTARG = imghalf, FUNCTION = imgvec_imghalf_l1_distance, COMMUTATOR = <+>);
COMMENT ON OPERATOR <+> (imgvec, imghalf) IS 'Manhattan distance';

CREATE OPERATOR + (LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_add, COMMUTATOR = +);
COMMENT ON OPERATOR + (imghalf, imghalf) IS 'add element by element';

CREATE OPERATOR - (LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_sub);
COMMENT ON OPERATOR - (imghalf, imghalf) IS 'subtract element by element';

CREATE OPERATOR * (LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_mul, COMMUTATOR = *);
COMMENT ON OPERATOR * (imghalf, imghalf) IS 'multiply element by element';

CREATE OPERATOR * (LEFTARG = imghalf, RIGHTARG = double precision, FUNCTION = imghalf_mul, COMMUTATOR = *);
COMMENT ON OPERATOR * (imghalf, double precision) IS 'multiply each element';

CREATE OPERATOR * (LEFTARG = double precision, RIGHTARG = imghalf, FUNCTION = imghalf_mul, COMMUTATOR = *);
COMMENT ON OPERATOR * (double precision, imghalf) IS 'multiply each element';

CREATE OPERATOR || (LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_concat);
COMMENT ON OPERATOR || (imghalf, imghalf) IS 'concatenate';

CREATE OPERATOR < (
    LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_lt,
    COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR < (imghalf, imghalf) IS 'less than';

CREATE OPERATOR <= (
    LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_le,
    COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR <= (imghalf, imghalf) IS 'less than or equal';

CREATE OPERATOR = (
    LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_eq,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES
);
COMMENT ON OPERATOR = (imghalf, imghalf) IS 'equal';

CREATE OPERATOR <> (
    LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_ne,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR <> (imghalf, imghalf) IS 'not equal';

CREATE OPERATOR >= (
    LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_ge,
    COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel
);
COMMENT ON OPERATOR >= (imghalf, imghalf) IS 'greater than or equal';

CREATE OPERATOR > (
    LEFTARG = imghalf, RIGHTARG = imghalf, FUNCTION = imghalf_gt,
    COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR > (imghalf, imghalf) IS 'greater than';

CREATE OPERATOR CLASS imghalf_ops DEFAULT FOR TYPE imghalf USING btree AS
    OPERATOR 1 <,
    OPERATOR 2 <=,
    OPERATOR 3 =,
    OPERATOR 4 >=,
    OPERATOR 5 >,
    FUNCTION 1 imghalf_cmp(imghalf, imghalf);
COMMENT ON OPERATOR CLASS imghalf_ops USING btree IS 'lexicographic order of vectors';

CREATE OPERATOR CLASS imghalf_hash_ops DEFAULT FOR TYPE imghalf USING hash AS
    OPERATOR 1 =,
    FUNCTION 1 imghalf_hash(imghalf),
    FUNCTION 2 imghalf_hash_extended(imghalf, bigint);
COMMENT ON OPERATOR CLASS imghalf_hash_ops USING hash IS 'equality of vectors';

-- Their C functions are also those of imgvec_pgvector's classes.
CREATE FUNCTION ann_imghalf_cosine(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_halfvec_cosine_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_imghalf_cosine(internal) IS 'support function of imghalf_cosine_ops';
CREATE FUNCTION ann_imghalf_l2(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_halfvec_l2_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_imghalf_l2(internal) IS 'support function of imghalf_l2_ops';
CREATE FUNCTION ann_imghalf_ip(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_halfvec_ip_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_imghalf_ip(internal) IS 'support function of imghalf_ip_ops';

CREATE OPERATOR CLASS imghalf_cosine_ops DEFAULT FOR TYPE imghalf USING ann AS
    OPERATOR 1 <=> (imghalf, imghalf) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_imghalf_cosine(internal);
COMMENT ON OPERATOR CLASS imghalf_cosine_ops USING ann IS 'nearest by cosine distance';
CREATE OPERATOR CLASS imghalf_l2_ops FOR TYPE imghalf USING ann AS
    OPERATOR 1 <-> (imghalf, imghalf) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_imghalf_l2(internal);
COMMENT ON OPERATOR CLASS imghalf_l2_ops USING ann IS 'nearest by Euclidean distance';
CREATE OPERATOR CLASS imghalf_ip_ops FOR TYPE imghalf USING ann AS
    OPERATOR 1 <#> (imghalf, imghalf) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_imghalf_ip(internal);
COMMENT ON OPERATOR CLASS imghalf_ip_ops USING ann IS 'largest inner product first';
ALTER OPERATOR FAMILY imghalf_cosine_ops USING ann ADD OPERATOR 1 <=> (imghalf, imgvec) FOR ORDER BY pg_catalog.float_ops;
ALTER OPERATOR FAMILY imgvec_cosine_ops USING ann ADD OPERATOR 1 <=> (imgvec, imghalf) FOR ORDER BY pg_catalog.float_ops;
ALTER OPERATOR FAMILY imghalf_l2_ops USING ann ADD OPERATOR 1 <-> (imghalf, imgvec) FOR ORDER BY pg_catalog.float_ops;
ALTER OPERATOR FAMILY imgvec_l2_ops USING ann ADD OPERATOR 1 <-> (imgvec, imghalf) FOR ORDER BY pg_catalog.float_ops;
ALTER OPERATOR FAMILY imghalf_ip_ops USING ann ADD OPERATOR 1 <#> (imghalf, imgvec) FOR ORDER BY pg_catalog.float_ops;
ALTER OPERATOR FAMILY imgvec_ip_ops USING ann ADD OPERATOR 1 <#> (imgvec, imghalf) FOR ORDER BY pg_catalog.float_ops;
