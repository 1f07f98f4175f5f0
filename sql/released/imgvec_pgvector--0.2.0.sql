-- imgvec_pgvector: imgvec for tables with columns of pgvector. Installed as imgvec_pgvector--VERSION.sql.
-- CREATE EXTENSION puts the schemas of both extensions on the search_path of this script.

\echo Use "CREATE EXTENSION imgvec_pgvector" to load this file. \quit

DO $$
BEGIN
    IF pg_catalog.to_regtype('halfvec') IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'feature_not_supported',
            MESSAGE = 'extension "imgvec_pgvector" needs pgvector 0.7.0 or newer',
            DETAIL = 'The installed version has no type "halfvec".',
            HINT = 'Install a newer pgvector, then run ALTER EXTENSION vector UPDATE.';
    END IF;
END $$;

------------------------------------------------------------------------------------------------------
-- Casts. An imgvec is a vector, byte for byte, so columns change their type without a rewrite. Towards
-- pgvector casts are implicit, so that its operators and its indexes take what embed_text() returns; in
-- the other direction none is, or operators would be ambiguous.
------------------------------------------------------------------------------------------------------

CREATE FUNCTION imgvec_to_halfvec(imgvec, integer, boolean) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'imgvec_to_halfvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_to_halfvec(imgvec, integer, boolean) IS 'convert imgvec to halfvec, rounding';

CREATE FUNCTION halfvec_to_imgvec(halfvec, integer, boolean) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'halfvec_to_imgvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION halfvec_to_imgvec(halfvec, integer, boolean) IS 'convert halfvec to imgvec';

CREATE CAST (imgvec AS vector) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (vector AS imgvec) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (imgvec AS halfvec) WITH FUNCTION imgvec_to_halfvec(imgvec, integer, boolean) AS IMPLICIT;
CREATE CAST (halfvec AS imgvec) WITH FUNCTION halfvec_to_imgvec(halfvec, integer, boolean) AS ASSIGNMENT;

-- pgvector has this one for vector and for halfvec; for an imgvec it would not know which.
CREATE FUNCTION vector_dims(imgvec) RETURNS integer
    AS 'MODULE_PATHNAME', 'imgvec_dims_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION vector_dims(imgvec) IS 'number of dimensions';

------------------------------------------------------------------------------------------------------
-- Operator classes of ann, by pgvector's names: a column keeps its type, and USING hnsw becomes USING ann.
------------------------------------------------------------------------------------------------------

CREATE FUNCTION ann_halfvec_cosine(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_halfvec_cosine_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_halfvec_cosine(internal) IS 'support function of halfvec_cosine_ops';
CREATE FUNCTION ann_halfvec_l2(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_halfvec_l2_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_halfvec_l2(internal) IS 'support function of halfvec_l2_ops';
CREATE FUNCTION ann_halfvec_ip(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_halfvec_ip_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_halfvec_ip(internal) IS 'support function of halfvec_ip_ops';

CREATE OPERATOR CLASS vector_cosine_ops DEFAULT FOR TYPE vector USING ann AS
    OPERATOR 1 <=> (vector, vector) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_imgvec_cosine(internal);
COMMENT ON OPERATOR CLASS vector_cosine_ops USING ann IS 'nearest by cosine distance';
CREATE OPERATOR CLASS vector_l2_ops FOR TYPE vector USING ann AS
    OPERATOR 1 <-> (vector, vector) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_imgvec_l2(internal);
COMMENT ON OPERATOR CLASS vector_l2_ops USING ann IS 'nearest by Euclidean distance';
CREATE OPERATOR CLASS vector_ip_ops FOR TYPE vector USING ann AS
    OPERATOR 1 <#> (vector, vector) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_imgvec_ip(internal);
COMMENT ON OPERATOR CLASS vector_ip_ops USING ann IS 'largest inner product first';

CREATE OPERATOR CLASS halfvec_cosine_ops DEFAULT FOR TYPE halfvec USING ann AS
    OPERATOR 1 <=> (halfvec, halfvec) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_halfvec_cosine(internal);
COMMENT ON OPERATOR CLASS halfvec_cosine_ops USING ann IS 'nearest by cosine distance';
CREATE OPERATOR CLASS halfvec_l2_ops FOR TYPE halfvec USING ann AS
    OPERATOR 1 <-> (halfvec, halfvec) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_halfvec_l2(internal);
COMMENT ON OPERATOR CLASS halfvec_l2_ops USING ann IS 'nearest by Euclidean distance';
CREATE OPERATOR CLASS halfvec_ip_ops FOR TYPE halfvec USING ann AS
    OPERATOR 1 <#> (halfvec, halfvec) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_halfvec_ip(internal);
COMMENT ON OPERATOR CLASS halfvec_ip_ops USING ann IS 'largest inner product first';

-- `imgvec column <=> vector value` is pgvector's operator on the column cast to vector. As a member of the
-- column's family it is answered by the column's index. Members of a family belong to no extension: they stay
-- when this one is dropped, and go when pgvector does.
DO $$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT family, operator
        FROM (VALUES ('imgvec_cosine_ops', '<=>'), ('imgvec_l2_ops', '<->'), ('imgvec_ip_ops', '<#>')) AS wanted (family, operator)
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_amop AS o
            JOIN pg_catalog.pg_opfamily AS f ON f.oid OPERATOR(pg_catalog.=) o.amopfamily
            JOIN pg_catalog.pg_am AS a ON a.oid OPERATOR(pg_catalog.=) f.opfmethod
            WHERE a.amname OPERATOR(pg_catalog.=) 'ann' AND f.opfname OPERATOR(pg_catalog.=) wanted.family::pg_catalog.name
                AND o.amoplefttype OPERATOR(pg_catalog.=) 'vector'::pg_catalog.regtype)
    LOOP
        EXECUTE pg_catalog.format(
            'ALTER OPERATOR FAMILY %I USING ann ADD OPERATOR 1 %s (vector, vector) FOR ORDER BY pg_catalog.float_ops',
            member.family, member.operator);
    END LOOP;
END $$;
