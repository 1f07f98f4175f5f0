-- Text and binary input and output, type modifiers.
\pset null NULL

SELECT '[1,2,3]'::imgvec;
SELECT ' [ 1 , 2.50 , -3e3 ] '::imgvec;
SELECT '[1.23456789,1e20,1e-20,-0,0.1,123456,1234567,0.0001,0.00001,3.4028235e38,1.4e-45]'::imgvec;
SELECT '[1e-50,-1e-50]'::imgvec;
SELECT '[0x10,-0X1.8p+1,0x.8]'::imgvec;

-- errors: SQLSTATE, detail and hint of each
CREATE FUNCTION pg_temp.error_of(statement text) RETURNS TABLE (code text, message text, detail text, hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN QUERY SELECT 'none', NULL::text, NULL::text, NULL::text;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN NEXT;
END $$;
\x on
\pset format unaligned
SELECT literal, e.*
FROM unnest(ARRAY['', '1,2', '[1,2', '[1,2]x', '[1,,2]', '[1,]', '[,]', '[]', '[ ]', '[a]', '[1 2]', '[0x]', '[0x1p200]', '[nan]', '[nan(1)]', '[inf]',
                  '[-Infinity]', '[4e38]', '[1,2][3]', '{1,2}'])
         WITH ORDINALITY AS t(literal, ord),
     LATERAL pg_temp.error_of(format('SELECT %L::imgvec', literal)) e
ORDER BY ord;
SELECT e.* FROM pg_temp.error_of('SELECT (''['' || repeat(''1,'', 16000) || ''1]'')::imgvec') e;
\x off
\pset format aligned
SELECT imgvec_dims(('[' || repeat('1,', 15999) || '1]')::imgvec);

-- type modifiers
SELECT '[1,2,3]'::imgvec(3);
CREATE TEMP TABLE t (v imgvec(3));
SELECT format_type(atttypid, atttypmod), atttypmod FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'v';
INSERT INTO t VALUES ('[1,2,3]');
\x on
\pset format unaligned
SELECT literal, e.*
FROM unnest(ARRAY['imgvec(0)', 'imgvec(-1)', 'imgvec(16001)', 'imgvec(3,4)', 'imgvec(x)', 'imgvec(''a'')', 'imgvec(2147483648)', 'imgvec(99999999999999999999)'])
         WITH ORDINALITY AS t(literal, ord),
     LATERAL pg_temp.error_of(format('CREATE TEMP TABLE bad (v %s)', literal)) e
ORDER BY ord;
SELECT e.* FROM pg_temp.error_of('INSERT INTO t VALUES (''[1,2]'')') e;
SELECT e.* FROM pg_temp.error_of('SELECT ''[1,2,3]''::imgvec::imgvec(2)') e;
\x off
\pset format aligned
ALTER TABLE t ALTER COLUMN v TYPE imgvec;
INSERT INTO t VALUES ('[1,2]');
SELECT * FROM t ORDER BY v;

-- binary wire format: int16 dimensions, int16 zero, big-endian float4
SELECT imgvec_send('[1,-2]');
SELECT imgvec_send('[0.5]') = '\x0001000000000000'::bytea AS wrong, imgvec_send('[0.5]') = '\x000100003f000000'::bytea AS right;

-- disk layout: varlena header, int16 dimensions, int16 zero, float4 each
SELECT pg_column_size('[1,2,3]'::imgvec) AS bytes_of_3, pg_column_size('[1]'::imgvec) AS bytes_of_1;
SELECT typname, typlen, typbyval, typalign, typstorage, typcategory FROM pg_type WHERE oid = 'imgvec'::regtype;
DROP TABLE t;
