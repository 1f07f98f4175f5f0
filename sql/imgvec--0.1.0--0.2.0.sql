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
