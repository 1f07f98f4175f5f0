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
-- Casts. An imgvec has the same bytes as a vector, so columns change their type without a rewrite. Casts to
-- pgvector's types are implicit, so that its operators and indexes accept the result of embed_text(). Casts in
-- the other direction are not, because operators would be ambiguous.
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

-- pgvector's own functions, applied to values with the layout of its vector. A function with an SQL body that casts between the two would
-- break pg_upgrade: a cast without a function has no dependency in the dump, and may be created later.
CREATE FUNCTION imgvec_to_sparsevec(imgvec, integer, boolean) RETURNS sparsevec
    AS '$libdir/vector', 'vector_to_sparsevec' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_to_sparsevec(imgvec, integer, boolean) IS 'convert imgvec to sparsevec';

CREATE FUNCTION sparsevec_to_imgvec(sparsevec, integer, boolean) RETURNS imgvec
    AS '$libdir/vector', 'sparsevec_to_vector' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sparsevec_to_imgvec(sparsevec, integer, boolean) IS 'convert sparsevec to imgvec';

CREATE CAST (imgvec AS sparsevec) WITH FUNCTION imgvec_to_sparsevec(imgvec, integer, boolean) AS IMPLICIT;
CREATE CAST (sparsevec AS imgvec) WITH FUNCTION sparsevec_to_imgvec(sparsevec, integer, boolean) AS ASSIGNMENT;

-- An imghalf is a halfvec, byte for byte. It becomes no other type of pgvector by itself: halfvec is what an operator between
-- an imghalf and a vector is found for.
CREATE FUNCTION imghalf_to_vector(imghalf, integer, boolean) RETURNS vector
    AS 'MODULE_PATHNAME', 'halfvec_to_imgvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_to_vector(imghalf, integer, boolean) IS 'convert imghalf to vector';

CREATE FUNCTION vector_to_imghalf(vector, integer, boolean) RETURNS imghalf
    AS 'MODULE_PATHNAME', 'imgvec_to_halfvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION vector_to_imghalf(vector, integer, boolean) IS 'convert vector to imghalf, rounding';

CREATE FUNCTION imghalf_to_sparsevec(imghalf, integer, boolean) RETURNS sparsevec
    AS '$libdir/vector', 'halfvec_to_sparsevec' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imghalf_to_sparsevec(imghalf, integer, boolean) IS 'convert imghalf to sparsevec';

CREATE FUNCTION sparsevec_to_imghalf(sparsevec, integer, boolean) RETURNS imghalf
    AS '$libdir/vector', 'sparsevec_to_halfvec' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sparsevec_to_imghalf(sparsevec, integer, boolean) IS 'convert sparsevec to imghalf';

CREATE CAST (imghalf AS halfvec) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (halfvec AS imghalf) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (imghalf AS vector) WITH FUNCTION imghalf_to_vector(imghalf, integer, boolean) AS ASSIGNMENT;
CREATE CAST (vector AS imghalf) WITH FUNCTION vector_to_imghalf(vector, integer, boolean) AS ASSIGNMENT;
CREATE CAST (imghalf AS sparsevec) WITH FUNCTION imghalf_to_sparsevec(imghalf, integer, boolean) AS ASSIGNMENT;
CREATE CAST (sparsevec AS imghalf) WITH FUNCTION sparsevec_to_imghalf(sparsevec, integer, boolean) AS ASSIGNMENT;

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

-- An imgvec and a vector have the same bytes, and so have an imghalf and a halfvec. So each type's index can answer the other's
-- operators, which become members of its family. `imgvec column <=> vector value` is pgvector's operator on the column cast to vector. And when
-- a column of type vector becomes imgvec, it keeps its indexes of pgvector's classes (ann's of these names, hnsw and ivfflat), but
-- its operators are then imgvec's. Members of a family belong to no extension. They are dropped with their operator or
-- their family, so those in families of imgvec and of pgvector stay when this extension is dropped.
DO $$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT a.amname, n.nspname, f.opfname, w.operator, pg_catalog.quote_ident(onsp.nspname) AS operator_schema,
            pg_catalog.format('%I.%I, %I.%I', ln.nspname, l.typname, rn.nspname, r.typname) AS types
        FROM (VALUES ('imgvec', 'vector', 'vector'), ('vector', 'imgvec', 'imgvec'), ('vector', 'imgvec', 'imghalf'),
                ('imghalf', 'halfvec', 'halfvec'), ('halfvec', 'imghalf', 'imghalf'), ('halfvec', 'imghalf', 'imgvec')
            ) AS t (class_type, left_type, right_type)
        CROSS JOIN (VALUES ('<=>', 'cosine'), ('<->', 'l2'), ('<#>', 'ip'), ('<+>', 'l1')) AS w (operator, metric)
        JOIN pg_catalog.pg_opfamily AS f ON f.opfname OPERATOR(pg_catalog.=)
            pg_catalog.format('%s_%s_ops', t.class_type, w.metric)::pg_catalog.name
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) f.opfnamespace
        JOIN pg_catalog.pg_am AS a ON a.oid OPERATOR(pg_catalog.=) f.opfmethod
        JOIN pg_catalog.pg_type AS l ON l.oid OPERATOR(pg_catalog.=) t.left_type::pg_catalog.regtype
        JOIN pg_catalog.pg_namespace AS ln ON ln.oid OPERATOR(pg_catalog.=) l.typnamespace
        JOIN pg_catalog.pg_type AS r ON r.oid OPERATOR(pg_catalog.=) t.right_type::pg_catalog.regtype
        JOIN pg_catalog.pg_namespace AS rn ON rn.oid OPERATOR(pg_catalog.=) r.typnamespace
        JOIN pg_catalog.pg_operator AS o ON o.oprname OPERATOR(pg_catalog.=) w.operator::pg_catalog.name
            AND o.oprleft OPERATOR(pg_catalog.=) l.oid AND o.oprright OPERATOR(pg_catalog.=) r.oid
        JOIN pg_catalog.pg_namespace AS onsp ON onsp.oid OPERATOR(pg_catalog.=) o.oprnamespace
        WHERE a.amname OPERATOR(pg_catalog.=) ANY (ARRAY['ann', 'hnsw', 'ivfflat']::pg_catalog.name[])
            -- pgvector's indexes take a query for a value of their own type.
            AND (a.amname OPERATOR(pg_catalog.=) 'ann'::pg_catalog.name OR l.oid OPERATOR(pg_catalog.=) r.oid)
            -- A family of these extensions, not of somebody who took the same name.
            AND EXISTS (
                SELECT FROM pg_catalog.pg_opclass AS c
                WHERE c.opcfamily OPERATOR(pg_catalog.=) f.oid AND c.opcintype OPERATOR(pg_catalog.=) ANY (
                    ARRAY['imgvec', 'vector', 'imghalf', 'halfvec']::pg_catalog.regtype[]::pg_catalog.oid[]))
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_amop AS m
                WHERE m.amopfamily OPERATOR(pg_catalog.=) f.oid AND m.amoplefttype OPERATOR(pg_catalog.=) l.oid
                    AND m.amoprighttype OPERATOR(pg_catalog.=) r.oid)
    LOOP
        EXECUTE pg_catalog.format(
            'ALTER OPERATOR FAMILY %I.%I USING %I ADD OPERATOR 1 %s.%s (%s) FOR ORDER BY pg_catalog.float_ops',
            member.nspname, member.opfname, member.amname, member.operator_schema, member.operator, member.types);
    END LOOP;
END $$;
