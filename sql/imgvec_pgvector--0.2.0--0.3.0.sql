-- What 0.3.0 adds to 0.2.0. ALTER EXTENSION puts the schemas of imgvec and pgvector on the search_path of this script.
\echo Use "ALTER EXTENSION imgvec_pgvector UPDATE TO '0.3.0'" to load this file. \quit

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

-- An imgvec and a vector are the same bytes, so each type's index answers the other's operators: as members of its
-- family. `imgvec column <=> vector value` is pgvector's operator on the column cast to vector; and a column of type
-- vector that becomes imgvec keeps indexes of pgvector's classes, ann's by these names as well as hnsw and ivfflat,
-- while its operators are then imgvec's. Members of a family belong to no extension: they go with their operator or
-- their family, and those in families of imgvec and of pgvector stay when this extension is dropped.
DO $$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT a.amname, n.nspname, f.opfname, wanted.operator,
            pg_catalog.format('%I.%I', tn.nspname, t.typname) AS type, pg_catalog.quote_ident(onsp.nspname) AS operator_schema
        FROM (VALUES ('<=>', 'imgvec_cosine_ops', 'vector'), ('<->', 'imgvec_l2_ops', 'vector'), ('<#>', 'imgvec_ip_ops', 'vector'),
                ('<=>', 'vector_cosine_ops', 'imgvec'), ('<->', 'vector_l2_ops', 'imgvec'), ('<#>', 'vector_ip_ops', 'imgvec'),
                ('<+>', 'vector_l1_ops', 'imgvec')) AS wanted (operator, family, type)
        JOIN pg_catalog.pg_opfamily AS f ON f.opfname OPERATOR(pg_catalog.=) wanted.family::pg_catalog.name
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) f.opfnamespace
        JOIN pg_catalog.pg_am AS a ON a.oid OPERATOR(pg_catalog.=) f.opfmethod
        JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) wanted.type::pg_catalog.regtype
        JOIN pg_catalog.pg_namespace AS tn ON tn.oid OPERATOR(pg_catalog.=) t.typnamespace
        JOIN pg_catalog.pg_operator AS o ON o.oprname OPERATOR(pg_catalog.=) wanted.operator::pg_catalog.name
            AND o.oprleft OPERATOR(pg_catalog.=) t.oid AND o.oprright OPERATOR(pg_catalog.=) t.oid
        JOIN pg_catalog.pg_namespace AS onsp ON onsp.oid OPERATOR(pg_catalog.=) o.oprnamespace
        WHERE a.amname OPERATOR(pg_catalog.=) ANY (ARRAY['ann', 'hnsw', 'ivfflat']::pg_catalog.name[])
            -- A family of these extensions, not of somebody who took the same name.
            AND EXISTS (
                SELECT FROM pg_catalog.pg_opclass AS c
                WHERE c.opcfamily OPERATOR(pg_catalog.=) f.oid AND c.opcintype OPERATOR(pg_catalog.=) ANY (
                    ARRAY['imgvec'::pg_catalog.regtype::pg_catalog.oid, 'vector'::pg_catalog.regtype::pg_catalog.oid]))
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_amop AS m
                WHERE m.amopfamily OPERATOR(pg_catalog.=) f.oid AND m.amoplefttype OPERATOR(pg_catalog.=) t.oid
                    AND m.amoprighttype OPERATOR(pg_catalog.=) t.oid)
    LOOP
        EXECUTE pg_catalog.format(
            'ALTER OPERATOR FAMILY %I.%I USING %I ADD OPERATOR 1 %s.%s (%s, %s) FOR ORDER BY pg_catalog.float_ops',
            member.nspname, member.opfname, member.amname, member.operator_schema, member.operator, member.type, member.type);
    END LOOP;
END $$;
