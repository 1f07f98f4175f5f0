-- What 0.2.0 adds to 0.1.0: a column vector(n) becomes imgvec(n) without a rewrite.
\echo Use "ALTER EXTENSION imgvec UPDATE TO '0.2.0'" to load this file. \quit

CREATE FUNCTION imgvec_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'imgvec_support_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_support(internal) IS 'planner support of the check of the number of dimensions';

ALTER FUNCTION imgvec(imgvec, integer, boolean) SUPPORT imgvec_support;

-- Searches have no hops beyond a beam any more; rows that come late are counted instead.
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
CREATE FUNCTION vector_dims(imgvec) RETURNS integer
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

-- Said to be of use for indexes, which have none.
DROP FUNCTION imgvec_l2_squared_distance(imgvec, imgvec);
DROP FUNCTION imgvec_spherical_distance(imgvec, imgvec);

-- Labels that tell the truth: it says which models this session has loaded, which a parallel worker does not know.
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

-- Models prepared ahead of use.
CREATE FUNCTION imgvec_prepare(model text) RETURNS void
    AS 'MODULE_PATHNAME', 'imgvec_prepare_wrapper' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION imgvec_prepare(text) IS
    'makes the form of a model that sessions share, before its first use needs it';
