-- Vectors of half precision.
SET extra_float_digits = 0;
\pset null NULL

-- text: rounded to the nearest, ties to even, by way of single precision as in pgvector
SELECT '[1,2,3]'::imghalf, ' [ 1 , 2.50 , -3e3 ] '::imghalf, '[-0,0x10,-0X1.8p+1]'::imghalf;
SELECT '[0.1,65504,-65504,65519,6e-8,5.9604645e-08,6.1035156e-05,2049,2051,1e-9,-1e-50]'::imghalf;
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
FROM unnest(ARRAY['', '[1,2', '[1,2]x', '[1,,2]', '[]', '[a]', '[nan]', '[-inf]', '[65520]', '[-1e6]', '[4e38]', '[0x1p16]'])
         WITH ORDINALITY AS t(literal, ord),
     LATERAL pg_temp.error_of(format('SELECT %L::imghalf', literal)) e
ORDER BY ord;
SELECT literal, e.*
FROM unnest(ARRAY['imghalf(0)', 'imghalf(16001)', 'imghalf(3,4)', 'imghalf(x)'])
         WITH ORDINALITY AS t(literal, ord),
     LATERAL pg_temp.error_of(format('CREATE TEMP TABLE bad (v %s)', literal)) e
ORDER BY ord;
SELECT e.* FROM pg_temp.error_of('SELECT (''['' || repeat(''1,'', 16000) || ''1]'')::imghalf') e;
SELECT e.* FROM pg_temp.error_of('SELECT ''[1,2,3]''::imghalf::imghalf(2)') e;
SELECT e.* FROM pg_temp.error_of('SELECT ''[1,2]''::imghalf(3)') e;
\x off
\pset format aligned
SELECT vector_dims(('[' || repeat('1,', 15999) || '1]')::imghalf);

-- binary: int16 dimensions, int16 zero, the 16 bits of each element, big-endian; on disk a header of 8 bytes, then 2 an element
SELECT imghalf_send('[1,-2,0.1]');
SELECT pg_column_size('[1,2,3]'::imghalf) AS bytes_of_3, pg_column_size(('[' || repeat('1,', 511) || '1]')::imghalf) AS bytes_of_512;
SELECT typname, typlen, typbyval, typalign, typstorage, typcategory FROM pg_type WHERE oid = 'imghalf'::regtype;

-- casts
SELECT '[1,2,3]'::imghalf::real[], '[1.5,2.5]'::imghalf::double precision[], '[1.4,2.6]'::imghalf::integer[], '[1.5,2]'::imghalf::numeric[];
SELECT ARRAY[1,2]::imghalf, ARRAY[1.5,2]::real[]::imghalf, ARRAY[1.5,2]::double precision[]::imghalf(2), ARRAY[1.25,2]::numeric[]::imghalf;
SELECT '[0.1,2049]'::imgvec::imghalf, '[0.1,2049]'::imghalf::imgvec, '[0.1]'::imghalf = '[0.1]'::imgvec AS rounded, '[0.5]'::imghalf = '[0.5]'::imgvec AS exact;
SELECT ARRAY[70000]::imghalf;
SELECT ARRAY[1e39]::double precision[]::imghalf;
SELECT ARRAY['NaN']::real[]::imghalf;
SELECT ARRAY[1,NULL]::real[]::imghalf;
SELECT ARRAY[[1,2],[3,4]]::real[]::imghalf;
SELECT '{}'::real[]::imghalf;
SELECT '[1,-70000]'::imgvec::imghalf;
SELECT '[1,2]'::imgvec::imghalf(3);
SELECT '[1,2]'::imghalf::imgvec(3);
SELECT castsource::regtype AS source, casttarget::regtype AS target, castcontext
FROM pg_cast WHERE 'imghalf'::regtype IN (castsource, casttarget) ORDER BY castsource::regtype::text, casttarget::regtype::text;

-- distances, of the type, of both types, and as functions
SELECT '[0,0]'::imghalf <-> '[3,4]' AS l2, '[1,2]'::imghalf <#> '[3,4]' AS negative_ip,
       '[1,0]'::imghalf <=> '[0,1]' AS cosine, '[1,2]'::imghalf <+> '[4,6]' AS l1;
SELECT '[0,0]'::imghalf <-> '[3,4]'::imgvec AS l2, '[1,2]'::imgvec <#> '[3,4]'::imghalf AS negative_ip,
       '[1,0]'::imghalf <=> '[0,1]'::imgvec AS cosine, '[1,2]'::imgvec <+> '[4,6]'::imghalf AS l1;
-- an imgvec is not rounded to be compared
SELECT '[2048]'::imghalf <-> '[2049]'::imgvec AS both, '[2048]'::imghalf <-> '[2049]' AS half, '[2049]'::imgvec <-> '[2048]'::imghalf AS other_way;
SELECT l2_distance('[0,0]'::imghalf, '[3,4]'), inner_product('[1,2]'::imghalf, '[3,4]'), cosine_distance('[1,1]'::imghalf, '[-1,-1]'),
       l1_distance('[1,2]'::imghalf, '[4,6]'), l2_distance('[0,0]'::imghalf, '[3,4]'::imgvec);
-- sums are those of single precision: beyond 65504, and below the least half
SELECT '[60000,60000]'::imghalf <-> '[-60000,-60000]' AS l2, '[6e-8]'::imghalf <#> '[6e-8]' AS ip, '[6e-8,0]'::imghalf <=> '[6e-8,0]' AS cosine,
       cosine_distance('[0,0]'::imghalf, '[1,1]') AS zero;
SELECT '[1]'::imghalf <-> '[1,2]';
SELECT '[1]'::imghalf <=> '[1,2]'::imgvec;
SELECT '[1]'::imgvec <=> '[1,2]'::imghalf;

-- functions and arithmetic
SELECT vector_dims('[1,2,3]'::imghalf), vector_norm('[3,4]'::imghalf), l2_norm('[30000,40000]'::imghalf), imgvec_dims('[1,2]'::imghalf),
       l2_normalize('[3,4]'::imghalf), pg_typeof(l2_normalize('[3,4]'::imghalf)), l2_normalize('[0,0]'::imghalf);
SELECT subvector('[1,2,3,4,5]'::imghalf, 2, 3), subvector('[1,2,3]'::imghalf, -1, 3), binary_quantize('[1,0,-1]'::imghalf);
SELECT subvector('[1,2,3]'::imghalf, 4, 1);
SELECT '[1,2]'::imghalf + '[3,4]', '[1,2]'::imghalf - '[3,5]', '[1,2]'::imghalf * '[3,4]', '[1,2]'::imghalf || '[3]',
       '[1,2]'::imghalf * 2, 0.5 * '[1,2]'::imghalf, pg_typeof('[1]'::imghalf + '[1]'::imgvec);
SELECT '[65504]'::imghalf + '[16]';
SELECT '[256]'::imghalf * '[256]';
SELECT '[1e-4]'::imghalf * '[1e-4]';
SELECT '[2]'::imghalf * 1e5;
SELECT 'NaN'::float8 * '[1]'::imghalf;
SELECT '[1]'::imghalf + '[1,2]';

-- aggregates; sums are kept in double precision
SELECT avg(v), sum(v), count(v), pg_typeof(avg(v)) FROM (VALUES ('[1,2]'::imghalf), ('[3,4]'), (NULL)) t(v);
SELECT avg(v), sum(v) FROM (VALUES ('[1,2]'::imghalf)) t(v) WHERE false;
SELECT avg(v) FROM (VALUES ('[65504]'::imghalf), ('[65504]')) t(v);
SELECT sum(v) FROM (VALUES ('[65504]'::imghalf), ('[65504]')) t(v);
SELECT avg(v) FROM (VALUES ('[1]'::imghalf), ('[1,2]')) t(v);
SELECT imghalf_avg('{}');

-- order, hash, joins
CREATE TABLE half_order (id serial, v imghalf);
INSERT INTO half_order(v) VALUES ('[1,2]'), ('[1]'), ('[1,2,0]'), ('[-1,5]'), (NULL), ('[0,0]'), ('[-0,0]'), ('[1,2]');
SELECT v FROM half_order ORDER BY v, id;
SELECT v, count(*) FROM half_order GROUP BY v ORDER BY v;
SELECT a.v AS a, b.v AS b, a.v < b.v AS lt, a.v <= b.v AS le, a.v = b.v AS eq, a.v <> b.v AS ne, a.v >= b.v AS ge, a.v > b.v AS gt
FROM half_order a, half_order b WHERE a.id IN (1, 2) AND b.id IN (1, 2, 3) ORDER BY a.id, b.id;
SELECT imghalf_hash('[0,1]') = imghalf_hash('[-0,1]') AS equal_zeroes, imghalf_hash('[1,2]') <> imghalf_hash('[2,1]') AS order_matters,
       imghalf_hash_extended('[1,2]', 0)::bit(64) & x'00000000ffffffff'::bit(64) = imghalf_hash('[1,2]')::bigint::bit(64) & x'00000000ffffffff'::bit(64) AS widths_agree;
CREATE INDEX half_order_v ON half_order (v);
SET enable_seqscan = off; SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM half_order WHERE v = '[1,2]';
SELECT id FROM half_order WHERE v = '[1,2]' ORDER BY id;
RESET enable_seqscan; RESET enable_bitmapscan;
DROP TABLE half_order;

-- the length is declared already: nothing to check, so no rewrite
CREATE TABLE half_kept (v imghalf(2), generated imghalf(2) GENERATED ALWAYS AS ('[0.1,3]'::imgvec) STORED);
INSERT INTO half_kept VALUES ('[1,2]'), ('[1,2]'::imgvec), (ARRAY[1,2]::real[]), (ARRAY[1,2]::integer[]), (ARRAY[1,2]::numeric[]), (ARRAY[1,2]::float8[]);
SELECT DISTINCT v, generated FROM half_kept;
INSERT INTO half_kept VALUES ('[1,2,3]'::imgvec);
SELECT pg_relation_filenode('half_kept') AS before \gset
ALTER TABLE half_kept ALTER COLUMN v TYPE imghalf;
ALTER TABLE half_kept ALTER COLUMN generated TYPE imghalf(2);
SELECT pg_relation_filenode('half_kept') = :before AS kept;
ALTER TABLE half_kept ALTER COLUMN v TYPE imgvec(2);
SELECT DISTINCT v FROM half_kept;
DROP TABLE half_kept;

-- what the planner knows of a column comes from ANALYZE
CREATE TABLE half (id integer PRIMARY KEY, embedding imghalf(8));
INSERT INTO half SELECT i, ARRAY(SELECT sin(i * sqrt(j + 1) * 12.9)::real FROM generate_series(1, 8) AS j) FROM generate_series(1, 2000) AS i;
INSERT INTO half VALUES (0, NULL);
ANALYZE half;
SELECT null_frac > 0 AS has_nulls, avg_width, n_distinct FROM pg_stats WHERE tablename = 'half' AND attname = 'embedding';

-- the index answers queries of both types, on either side, for each metric; the answers are the table's
SET enable_seqscan = off;
CREATE FUNCTION pg_temp.compare(operator text, query text) RETURNS TABLE (plan text, same boolean, first integer) LANGUAGE plpgsql AS $$
DECLARE
    statement text := format('SELECT id FROM half WHERE embedding IS NOT NULL ORDER BY %s LIMIT 5', replace(query, 'OP', operator));
    line text; by_index integer[]; by_table integer[];
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || statement LOOP
        IF line LIKE '%Index Scan%' OR line LIKE '%Seq Scan%' THEN plan := trim(line, ' ->'); END IF;
    END LOOP;
    EXECUTE format('SELECT array_agg(id) FROM (%s) AS s', statement) INTO by_index;
    SET LOCAL enable_indexscan = off;
    EXECUTE format('SELECT array_agg(id) FROM (%s) AS s', statement) INTO by_table;
    RESET enable_indexscan;
    same := by_index = by_table; first := by_index[1];
    RETURN NEXT;
END $$;
CREATE INDEX half_cosine ON half USING ann (embedding);
CREATE INDEX half_l2 ON half USING ann (embedding imghalf_l2_ops);
CREATE INDEX half_ip ON half USING ann (embedding imghalf_ip_ops);
SELECT operator, replace(query, '(SELECT embedding FROM half WHERE id = 42)', 'Q') AS query, c.plan, c.same
FROM unnest(ARRAY['<=>', '<->', '<#>']) AS operator,
    unnest(ARRAY['embedding OP (SELECT embedding FROM half WHERE id = 42)', 'embedding OP (SELECT embedding FROM half WHERE id = 42)::imgvec',
        '(SELECT embedding FROM half WHERE id = 42)::imgvec OP embedding', 'embedding OP ''[1,2,3,4,5,6,7,8]''']) AS query,
    pg_temp.compare(operator, query) AS c ORDER BY 1, 2;
SELECT count(*) FROM (SELECT FROM half ORDER BY embedding <=> NULL::imgvec LIMIT 10) AS s;
SELECT id FROM half ORDER BY embedding <=> '[1,2]'::imgvec LIMIT 1;
SELECT id FROM half ORDER BY embedding <=> '[1,2]' LIMIT 1;
SELECT metric, dims FROM ann_index_info('half_cosine');
SELECT rows FROM ann_index_check('half_cosine', true);
SELECT ann_index_recall('half_cosine') >= 0.99 AS rows_find_neighbors,
       ann_index_recall('half_l2', ARRAY(SELECT embedding FROM half WHERE id BETWEEN 1 AND 20)) >= 0.99 AS queries_of_the_type,
       ann_index_recall('half_l2', ARRAY(SELECT embedding::imgvec FROM half WHERE id BETWEEN 1 AND 20)) >= 0.99 AS of_the_other;
-- an index on single precision answers queries of half precision
CREATE TABLE single AS SELECT id, embedding::imgvec(8) FROM half;
CREATE INDEX ON single USING ann (embedding);
EXPLAIN (COSTS OFF) SELECT id FROM single ORDER BY embedding <=> '[1,2,3,4,5,6,7,8]'::imghalf LIMIT 1;
SELECT s.id = h.id AS same FROM (SELECT id FROM single ORDER BY embedding <=> '[1,2,3,4,5,6,7,8]'::imghalf LIMIT 1) AS s,
    (SELECT id FROM half ORDER BY embedding <=> '[1,2,3,4,5,6,7,8]' LIMIT 1) AS h;
DROP TABLE single;

-- jobs of a library: by the index, and window functions, which take an imghalf as an imgvec
INSERT INTO half SELECT 10000 + id, embedding FROM half WHERE id BETWEEN 1 AND 3;
SELECT count(*), max(distance) < 1e-6 AS equal FROM ann_pairs('half_cosine', 1e-6);
SELECT count(*), count(DISTINCT number) FROM ann_groups('half_cosine', 1e-6);
SELECT count(*) > 2000 AS each_row FROM ann_clusters('half_l2', 5);
SELECT count(DISTINCT n) FROM (SELECT duplicate_group(embedding, 1e-6) OVER () AS n FROM half) AS s;
SELECT count(*) = count(place) + 1 AS each_has_a_place FROM (SELECT embedding_map(embedding) OVER () AS place FROM half WHERE id < 100) AS s;
SELECT count(*) > 0 AS some FROM (SELECT cluster(embedding, 5) OVER () AS c FROM half WHERE id < 200) AS s;
SELECT count(DISTINCT r) FROM (SELECT diverse_rank(embedding, id, 0.5) OVER () AS r FROM half WHERE id BETWEEN 1 AND 20) AS s;
SELECT vector_dims(taste(embedding, 1)) AS dims FROM half WHERE id < 10;
RESET enable_seqscan;
DROP TABLE half;
