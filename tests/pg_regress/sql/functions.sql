-- Distances, arithmetic, functions, aggregates.
SET extra_float_digits = 0;
\pset null NULL

SELECT '[0,0]'::imgvec <-> '[3,4]' AS l2, '[1,2]'::imgvec <#> '[3,4]' AS negative_ip,
       '[1,0]'::imgvec <=> '[0,1]' AS cosine, '[1,2]'::imgvec <+> '[4,6]' AS l1;
SELECT l2_distance('[0,0]'::imgvec, '[3,4]'), inner_product('[1,2]'::imgvec, '[3,4]'),
       cosine_distance('[1,1]'::imgvec, '[-1,-1]'), l1_distance('[1,2]'::imgvec, '[4,6]');
SELECT round(cosine_distance('[1,2]'::imgvec, '[2,4]')::numeric, 6) AS parallel,
       cosine_distance('[0,0]'::imgvec, '[1,1]') AS zero, cosine_distance('[0,0]'::imgvec, '[0,0]') AS both_zero;
-- beyond single precision
SELECT round((l2_distance('[3e38]'::imgvec, '[-3e38]') / 1e38)::numeric, 4) AS l2,
       round(cosine_distance('[3e38,3e38]'::imgvec, '[3e38,3e38]')::numeric, 6) AS large,
       round(cosine_distance('[1e-30,0]'::imgvec, '[0,1e-30]')::numeric, 6) AS small;
SELECT '[1]'::imgvec <-> '[1,2]';
SELECT '[1]'::imgvec <#> '[1,2]';
SELECT '[1]'::imgvec <=> '[1,2]';
SELECT '[1]'::imgvec <+> '[1,2]';
SELECT NULL::imgvec <-> '[1,2]' AS l2;

SELECT imgvec_dims('[1,2,3]'), imgvec_norm('[3,4]'), l2_normalize('[3,4]'::imgvec), l2_normalize('[0,0]'::imgvec);
SELECT '[1,2]'::imgvec + '[3,4]', '[1,2]'::imgvec - '[3,5]', '[1,2]'::imgvec * '[3,4]', '[1,2]'::imgvec || '[3]';
SELECT '[3e38]'::imgvec + '[3e38]';
SELECT '[3e38]'::imgvec - '[-3e38]';
SELECT '[1e30]'::imgvec * '[1e30]';
SELECT '[1e-30]'::imgvec * '[1e-30]';
SELECT '[1]'::imgvec + '[1,2]';
SELECT subvector('[1,2,3,4,5]'::imgvec, 2, 3), subvector('[1,2,3]'::imgvec, -1, 3), subvector('[1,2,3]'::imgvec, 2, 100),
       subvector('[1,2,3]'::imgvec, 3, 2147483647);
SELECT subvector('[1,2,3]'::imgvec, 4, 1);
SELECT subvector('[1,2,3]'::imgvec, 1, -1);
SELECT subvector('[1,2,3]'::imgvec, -2147483648, 2147483647);
SELECT binary_quantize('[1,0,-1,0.5,-0.5,7,8,9,10]'::imgvec), binary_quantize('[1]'::imgvec);

SELECT avg(v), sum(v), count(v) FROM (VALUES ('[1,2]'::imgvec), ('[3,4]'), (NULL)) t(v);
SELECT avg(v), sum(v) FROM (VALUES ('[1,2]'::imgvec)) t(v) WHERE false;
SELECT avg(v), sum(v) FROM (VALUES (NULL::imgvec)) t(v);
SELECT avg(v) FROM (VALUES ('[3e38]'::imgvec), ('[3e38]')) t(v);
SELECT sum(v) FROM (VALUES ('[3e38]'::imgvec), ('[3e38]')) t(v);
SELECT avg(v) FROM (VALUES ('[1]'::imgvec), ('[1,2]')) t(v);
SELECT imgvec_avg('{}');
SELECT imgvec_avg(ARRAY[1, NULL]::float8[]);
SELECT imgvec_accum('{-1}', '[1]');

-- parallel aggregation gives the same answer
CREATE TABLE many (v imgvec(2));
INSERT INTO many SELECT ARRAY[i, -i]::real[] FROM generate_series(1, 20000) i;
ANALYZE many;
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS OFF) SELECT avg(v) FROM many;
SELECT avg(v), sum(v) FROM many;
DROP TABLE many;

-- by pgvector's names
SELECT vector_dims('[3,4]'::imgvec), vector_norm('[3,4]'::imgvec), l2_norm('[3,4]'::imgvec);

-- parts of the aggregates refuse what is no state
SELECT imgvec_avg('{1}');
SELECT imgvec_sum('{}');
SELECT imgvec_avg('{{1,2},{3,4}}');
SELECT imgvec_avg('{1,NULL}');
SELECT imgvec_avg('{-1,2}');
SELECT imgvec_combine('{1}', array_fill(1::double precision, ARRAY[16002]));
SELECT imgvec_accum(array_fill(1::double precision, ARRAY[16002]), '[1]');
SELECT imgvec_combine('{1,2}', '{1,2,3}');
SELECT imgvec_combine('{1,1e308}', '{1,1e308}');
SELECT imgvec_avg('{0}'), imgvec_combine('{0}', '{2,6,8}'), imgvec_avg('{2,6,8}'), imgvec_combine('{1}', '{2,3}');
-- the sum of one vector is that vector
SELECT sum(v) FROM (VALUES ('[-0,1]'::imgvec)) AS t(v);
SELECT sum(v) FROM (VALUES ('[-0,1]'::imgvec), ('[-0,1]')) AS t(v);

-- a number times a vector, either way round; a literal of unknown type stays a vector
SELECT '[1,2]'::imgvec * 2, 0.5 * '[1,2]'::imgvec, -1::real * '[1,0]'::imgvec, '[1,2]'::imgvec * '[3,4]', '[1,2]'::imgvec * NULL::float8;
SELECT '[1e30]'::imgvec * 1e30;
SELECT '[1e-30]'::imgvec * 1e-30;
SELECT 'NaN'::float8 * '[1]'::imgvec;
SELECT '[1]'::imgvec * 'Infinity'::float8;

-- directions, mixed by weights; of several lengths, away from one, without one that is missing
SELECT embed_mix(ARRAY['[3,0]', '[0,7]']::imgvec[], '{3,4}'), embed_mix(ARRAY['[1,0]', '[0,1]']::imgvec[], '{0.6,-0.8}'),
       embed_mix(ARRAY['[2,0]', NULL]::imgvec[], '{1,5}'), embed_mix(ARRAY['[2,0]', '[0,0]']::imgvec[], '{1,5}');
SELECT embed_mix(ARRAY['[1e-40,0]', '[0,3e38]']::imgvec[], '{3e300,4e300}') AS extreme, embed_mix('{}', '{}') AS none,
       embed_mix(ARRAY[NULL]::imgvec[], '{1}') AS missing, embed_mix(NULL, '{1}') AS null;
SELECT embed_mix(ARRAY['[1,0]']::imgvec[], '{1,2}');
SELECT embed_mix(ARRAY['[1,0]']::imgvec[], '{NULL}');
SELECT embed_mix(ARRAY['[1,0]']::imgvec[], '{NaN}');
SELECT embed_mix(ARRAY['[1,0]', '[1]']::imgvec[], '{1,1}');
SELECT embed_mix(ARRAY['[1,0]', '[2,0]']::imgvec[], '{1,-1}');
SELECT embed_mix(ARRAY['[1,0]']::imgvec[], '{0}');
-- a zero vector has no direction, whatever its weight
SELECT embed_mix(ARRAY['[1,0]', '[0,0]']::imgvec[], '{1,1e10}');
SELECT embed_mix(ARRAY['[1,0]', '[1,0]']::imgvec[], '{1e308,1e308}');
