-- Casts to and from arrays; which are implicit.
SELECT '[1,2,3]'::imgvec::real[], '[1.5,2.5]'::imgvec::double precision[], '[1.4,2.6]'::imgvec::integer[],
       '[1.5,2]'::imgvec::numeric[];
SELECT ARRAY[1,2]::imgvec, ARRAY[1.5,2]::real[]::imgvec, ARRAY[1.5,2]::double precision[]::imgvec, ARRAY[1.25,2]::numeric[]::imgvec;
SELECT ARRAY[1,2,3]::imgvec(3), ARRAY[1,2,3]::numeric[]::imgvec(3);
SELECT ARRAY[1,2,3]::imgvec(2);
SELECT ARRAY[1,2]::numeric[]::imgvec(3);
SELECT '{}'::real[]::imgvec;
SELECT ARRAY[1,NULL]::real[]::imgvec;
SELECT ARRAY['NaN']::real[]::imgvec;
SELECT ARRAY['NaN']::numeric[]::imgvec;
SELECT ARRAY['Infinity']::double precision[]::imgvec;
SELECT ARRAY[1e39]::double precision[]::imgvec;
SELECT ARRAY[1e39]::numeric[]::imgvec;
SELECT array_agg(1.0::real)::imgvec IS NOT NULL AS fits FROM generate_series(1, 16000);
SELECT array_agg(1.0::real)::imgvec FROM generate_series(1, 16001);
-- an array of arrays is no vector, whatever its elements and wherever it is converted
SELECT ARRAY[[1,2],[3,4]]::real[]::imgvec;
SELECT ARRAY[[1,2],[3,4]]::imgvec(4);
SELECT ARRAY[[1,2],[3,4]]::double precision[]::imgvec;
SELECT ARRAY[[1,2],[3,4]]::numeric[]::imgvec;
SELECT ARRAY[[1]]::real[]::imgvec;
SELECT ARRAY[[[1,2]],[[3,4]]]::real[]::imgvec;
SELECT '[0:1][5:6]={{1,2},{3,NULL}}'::real[]::imgvec(3);
SELECT '{{1,2},{3,4}}'::text[]::real[]::imgvec;
SELECT '{{1,2},{3,4}}'::text[]::imgvec;
SELECT ('[2:3]={7,8}'::real[])::imgvec, '{7,8}'::text[]::real[]::imgvec;
-- in the order of pgvector: shape, nulls, length, elements
SELECT ARRAY['NaN',NULL]::real[]::imgvec;
SELECT ARRAY[NULL,1]::real[]::imgvec(3);
SELECT ARRAY[1e-60]::numeric[]::imgvec;
SELECT ARRAY[1e-60]::double precision[]::imgvec;

-- assignment both ways; implicit only towards real[]
CREATE TEMP TABLE t (v imgvec(2), a real[], d double precision[]);
INSERT INTO t(v) VALUES (ARRAY[[1],[2]]::real[]);
INSERT INTO t VALUES (ARRAY[1,2]::real[], '[3,4]'::imgvec, '[5,6]'::imgvec);
INSERT INTO t(v) VALUES (ARRAY[1,2]::integer[]), (ARRAY[1,2]::numeric[]), (ARRAY[1,2]::double precision[]);
SELECT * FROM t;
SELECT castsource::regtype AS source, casttarget::regtype AS target, castcontext
FROM pg_cast WHERE 'imgvec'::regtype IN (castsource, casttarget) ORDER BY castsource::regtype::text, casttarget::regtype::text;

-- the type can change in place
ALTER TABLE t ALTER COLUMN v TYPE real[];
ALTER TABLE t ALTER COLUMN v TYPE imgvec(2) USING v::imgvec(2);
SELECT v FROM t ORDER BY v LIMIT 1;
