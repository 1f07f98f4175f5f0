-- What 0.2.0 adds to 0.1.0: a column vector(n) becomes imgvec(n) without a rewrite.
\echo Use "ALTER EXTENSION imgvec UPDATE TO '0.2.0'" to load this file. \quit

CREATE FUNCTION imgvec_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'imgvec_support_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_support(internal) IS 'planner support of the check of the number of dimensions';

ALTER FUNCTION imgvec(imgvec, integer, boolean) SUPPORT imgvec_support;
