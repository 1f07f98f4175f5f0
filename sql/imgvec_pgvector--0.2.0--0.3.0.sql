-- What 0.3.0 adds to 0.2.0. ALTER EXTENSION puts the schemas of imgvec and pgvector on the search_path of this script.
\echo Use "ALTER EXTENSION imgvec_pgvector UPDATE TO '0.3.0'" to load this file. \quit

DO $$
BEGIN
    IF pg_catalog.to_regtype('imghalf') IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'extension "imgvec_pgvector" 0.3.0 needs extension "imgvec" 0.3.0',
            DETAIL = 'The installed version of imgvec has no type "imghalf".',
            HINT = 'Run ALTER EXTENSION imgvec UPDATE first.';
    END IF;
END $$;

-- pgvector's own functions, on values that have the layout of its vector. An SQL body that casts between the two would not
-- survive pg_upgrade: its dump knows of no dependency on a cast without a function, and may create that later.
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

-- An imgvec and a vector are the same bytes, and so are an imghalf and a halfvec: each type's index answers the other's
-- operators, as members of its family. `imgvec column <=> vector value` is pgvector's operator on the column cast to vector; and a column of type
-- vector that becomes imgvec keeps indexes of pgvector's classes, ann's by these names as well as hnsw and ivfflat,
-- while its operators are then imgvec's. Members of a family belong to no extension: they go with their operator or
-- their family, and those in families of imgvec and of pgvector stay when this extension is dropped.
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
