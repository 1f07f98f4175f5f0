-- Jobs of a picture library: groups of copies, clusters, taste, diverse ranks, a map.
\pset null NULL

-- a perceptual hash: 64 bits
SELECT image_hash(''), length(image_hash(NULL)) AS of_null;
SELECT image_hash('not a picture');
-- a picture of one color has none
SELECT image_hash(decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64'))
    = B'0000000000000000000000000000000000000000000000000000000000000000' AS plain;

-- taste: towards what is liked, away from what is not
SELECT taste(v, w) FROM (VALUES ('[2,0]'::imgvec, 1), ('[0,5]', 1)) t(v, w);
SELECT taste(v, w) FROM (VALUES ('[2,0]'::imgvec, 3), ('[0,5]', -4)) t(v, w);
SELECT taste(v, w) FROM (VALUES ('[2,0]'::imgvec, 1), (NULL, 1), ('[0,5]', NULL), ('[0,0]', 1)) t(v, w);
SELECT taste(v, 1) FROM (VALUES ('[1,0]'::imgvec)) t(v) WHERE false;
SELECT taste(v, w) AS of_nothing FROM (VALUES ('[1,0]'::imgvec, 0)) t(v, w);
SELECT taste(v, w) AS cancelled FROM (VALUES ('[1,0]'::imgvec, 1), ('[3,0]', -1)) t(v, w);
SELECT taste(v, 'NaN') FROM (VALUES ('[1,0]'::imgvec)) t(v);
SELECT taste(v, w) FROM (VALUES ('[1,0]'::imgvec, 1e308), ('[1,0]', 1e308)) t(v, w);
SELECT taste(v, 1) FROM (VALUES ('[1,0]'::imgvec), ('[1]')) t(v);
SELECT taste_final('{}');
SELECT taste_final('{-1,2}');
SELECT taste_accum(ARRAY[1, NULL]::float8[], '[1]', 1);
SELECT taste_combine('{0}', '{2,2,0}'), taste_combine('{2,2,0}', '{0}'), taste_combine('{2,2,0}', '{1,0,1}');
SELECT taste_combine('{2,2,0}', '{1,0}');

-- pictures on a circle, by their angle in degrees
CREATE TABLE picture (id integer, owner integer, embedding imgvec);
INSERT INTO picture SELECT id, owner, CASE WHEN degrees IS NOT NULL THEN ARRAY[cosd(degrees), sind(degrees)]::float8[]::imgvec END
FROM (VALUES (1, 1, 0.0), (2, 1, 90), (3, 1, 2), (4, 1, 4), (5, 1, 90), (6, 1, NULL), (7, 1, 200), (8, 1, 6),
    (9, 2, 0), (10, 2, 180)) t(id, owner, degrees);
INSERT INTO picture VALUES (11, 2, '[0,0]');

-- groups of copies; 2 degrees are a distance of 0.0006, 4 of 0.0024
SELECT id, duplicate_group(embedding, 0.001) OVER w AS pairs, duplicate_group(embedding, 0.003) OVER w AS within_4,
    duplicate_group(embedding, 0.001, 'single') OVER w AS chained, duplicate_group(embedding, 0) OVER w AS equal
FROM picture WINDOW w AS (PARTITION BY owner) ORDER BY id;
-- whatever the order of rows and the frame
SELECT id, duplicate_group(embedding, 0.001) OVER (PARTITION BY owner ORDER BY id DESC ROWS CURRENT ROW) AS pairs FROM picture ORDER BY id;
SELECT id, duplicate_group(embedding, 0.001) OVER () FROM picture WHERE id = 1;
SELECT id, duplicate_group(embedding, 0.001) OVER () FROM picture WHERE false;
SELECT duplicate_group(embedding, -0.1) OVER () FROM picture;
SELECT duplicate_group(embedding, 'NaN') OVER () FROM picture;
SELECT duplicate_group(embedding, NULL) OVER () FROM picture;
SELECT duplicate_group(embedding, 0.1, 'average') OVER () FROM picture;
SELECT duplicate_group(v, 0.1) OVER () FROM (VALUES ('[1]'::imgvec), ('[1,2]')) t(v);
SELECT duplicate_group(embedding, 0.1) FROM picture;
-- a bound on memory: what is asked for, and what to do
BEGIN;
SET LOCAL maintenance_work_mem = '1MB';
SET LOCAL work_mem = '64kB';
SET LOCAL hash_mem_multiplier = 1;
CREATE TEMP TABLE wide AS SELECT i, array_fill(1, ARRAY[500])::imgvec AS embedding FROM generate_series(1, 1000) AS i;
SAVEPOINT before;
SELECT duplicate_group(embedding, 0.1) OVER () FROM wide;
ROLLBACK TO before;
SELECT duplicate_group(embedding, 2) OVER () FROM (SELECT ARRAY[i, 1]::imgvec AS embedding FROM generate_series(1, 1000) AS i) t;
ROLLBACK;

-- clusters
CREATE TABLE shots AS
SELECT i AS id, ARRAY[cosd(degrees), sind(degrees)]::float8[]::imgvec AS embedding
FROM (SELECT i, CASE WHEN i <= 12 THEN i / 4.0 WHEN i <= 20 THEN 100 + i / 3.0 ELSE 200 + 30 * (i - 20) END AS degrees
    FROM generate_series(1, 23) AS i) t;
SELECT id, cluster(embedding, 5) OVER () FROM shots ORDER BY id;
SELECT cluster, count(*) FROM (SELECT cluster(embedding, 5) OVER (ORDER BY id DESC) FROM shots) t GROUP BY 1 ORDER BY 1;
SELECT cluster(embedding, 5) OVER () FROM shots WHERE id <= 2;
SELECT cluster(embedding, 5) OVER () FROM shots WHERE id <= 1;
SELECT DISTINCT cluster('[1,2]', 5) OVER () FROM shots;
SELECT id, cluster(embedding, 2) OVER (PARTITION BY owner) FROM picture ORDER BY id;
SELECT cluster(embedding, 1) OVER () FROM shots;
SELECT cluster(embedding, NULL) OVER () FROM shots;
-- a column may have the function's name, and a cursor reads answers in any direction
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id, cluster(embedding, 5) OVER (ORDER BY id) FROM shots ORDER BY id;
FETCH LAST FROM c;
FETCH FIRST FROM c;
ROLLBACK;

-- diverse ranks: without diversity those of the scores
CREATE TABLE found (id integer, embedding imgvec, score float8);
INSERT INTO found VALUES (1, '[1,0]', 0.9), (2, '[1,0.01]', 0.89), (3, '[0,1]', 0.8), (4, '[0.01,1]', 0.79), (5, NULL, 1), (6, '[1,1]', NULL),
    (7, '[0,0]', 1), (8, '[1,1]', 'NaN');
SELECT id, diverse_rank(embedding, score, 0) OVER w AS by_score, diverse_rank(embedding, score, 0.6) OVER w AS diverse
FROM found WINDOW w AS () ORDER BY id;
SELECT diverse_rank(embedding, score, 1.5) OVER () FROM found;
SELECT diverse_rank(embedding, score, 'NaN') OVER () FROM found;
SELECT diverse_rank(embedding, score, NULL) OVER () FROM found;

-- a map: few rows, equal rows, and neighbors
SELECT embedding_map(embedding) OVER () FROM picture WHERE id = 1;
SELECT id, embedding_map(embedding) OVER () FROM picture WHERE id IN (1, 6, 11) ORDER BY id;
SELECT embedding_map(embedding) OVER () ~= point(0, 0) AS in_the_middle FROM picture WHERE id IN (2, 5);
WITH map AS (SELECT id, embedding_map(embedding) OVER () AS place FROM shots WHERE id <= 20)
SELECT count(*) FILTER (WHERE (a.id <= 12) = (b.id <= 12)) AS of_the_same_kind, count(*)
FROM map a, LATERAL (SELECT id FROM map WHERE id <> a.id ORDER BY place <-> a.place LIMIT 1) b;
WITH map AS (SELECT id, embedding_map(embedding) OVER (ORDER BY id) AS one FROM shots),
    again AS (SELECT id, embedding_map(embedding) OVER (ORDER BY id DESC) AS other FROM shots)
SELECT count(*) FROM map JOIN again USING (id) WHERE one ~= other;

-- a window function declared as a plain one
CREATE FUNCTION pg_temp.plain(imgvec, integer) RETURNS integer AS '$libdir/imgvec', 'cluster_wrapper' LANGUAGE C;
SELECT pg_temp.plain('[1]', 2);
DROP TABLE picture, shots, found;
