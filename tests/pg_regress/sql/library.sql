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
SELECT taste(v, w) FROM (VALUES ('[1,0]'::imgvec, 1), ('[0,0]', 1e10)) t(v, w);
-- states that taste does not make
SELECT taste_final('{1,inf,1}');
SELECT taste_final('{1,NaN}');
SELECT taste_final('{inf,1}');
SELECT taste_final('{1,1e308,1e308}');
SELECT taste_combine('{1,2}', '{1,1}');
SELECT taste_final('{0}'), taste_final('{2,1,-1}');
-- rows without a vector take memory, too
SET maintenance_work_mem = '1MB';
SET work_mem = '64kB';
SELECT count(c) FROM (SELECT cluster(NULL::imgvec, 5) OVER () AS c FROM generate_series(1, 200000)) AS n;
RESET maintenance_work_mem;
RESET work_mem;
SELECT taste(v, 1) FROM (VALUES ('[1,0]'::imgvec), ('[1]')) t(v);
SELECT taste_final('{}');
SELECT taste_final('{-1,2}');
SELECT taste_accum(ARRAY[1, NULL]::float8[], '[1]', 1);
SELECT taste_combine('{0}', '{2,2,0}'), taste_combine('{2,2,0}', '{0}'), taste_combine('{2,2,0}', '{1,0,1}');
SELECT taste_combine('{2,2,0}', '{1,0}');

-- pictures on a circle, by their angle in degrees
CREATE TABLE picture (id integer, owner integer, embedding imgvec);
INSERT INTO picture SELECT id, owner, CASE WHEN degrees IS NOT NULL THEN ARRAY[cosd(degrees), sind(degrees)]::float8[]::imgvec END
FROM (VALUES (1, 1, 0.0), (2, 1, 90), (3, 1, 2), (4, 1, 4.1), (5, 1, 90), (6, 1, NULL), (7, 1, 200), (8, 1, 5.9),
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

-- from an index: pairs and groups, joined by ctid
CREATE INDEX picture_embedding ON picture USING ann (embedding);
SELECT a.id, b.id, round(distance::numeric, 4) FROM ann_pairs('picture_embedding', 0.003) p
JOIN picture a ON a.ctid = p.a JOIN picture b ON b.ctid = p.b ORDER BY 1, 2;
SELECT id, c.number AS within_4, s.number AS chained FROM ann_groups('picture_embedding', 0.003) c
FULL JOIN ann_groups('picture_embedding', 0.001, 'single') s USING (tid) JOIN picture ON ctid = tid ORDER BY 1;
SELECT count(*) FROM ann_pairs('picture_embedding', 0);
-- what the statement sees: rows that were updated, deleted and inserted, also by a transaction that goes back
BEGIN;
UPDATE picture SET embedding = '[0,-1]' WHERE id = 3;
DELETE FROM picture WHERE id = 8;
INSERT INTO picture VALUES (12, 2, '[0,-3]');
UPDATE picture SET owner = 3 WHERE id = 9;
SELECT a.id, b.id FROM ann_pairs('picture_embedding', 0.003) p
JOIN picture a ON a.ctid = p.a JOIN picture b ON b.ctid = p.b ORDER BY 1, 2;
ROLLBACK;
SELECT count(*) FROM ann_pairs('picture_embedding', 0.003);
SELECT count(*) FROM ann_pairs('picture_embedding', NULL), ann_groups(NULL, 1);
SELECT * FROM ann_pairs('picture_embedding', -1);
SELECT * FROM ann_pairs('picture_embedding', 'NaN');
SELECT * FROM ann_groups('picture_embedding', 0.1, 'ward');
SELECT count(*) > 0 AS some FROM ann_pairs('picture_embedding', 'Infinity');
-- clusters from an index are those of the window function
CREATE INDEX shots_embedding ON shots USING ann (embedding);
SELECT id, c.cluster, strength > 0 AS is_member FROM ann_clusters('shots_embedding') c JOIN shots ON ctid = c.tid ORDER BY 1;
SELECT min(strength) >= 0 AND max(strength) = 1 AS within FROM ann_clusters('shots_embedding');
SELECT count(*) AS different FROM ann_clusters('shots_embedding', 5) c JOIN (SELECT ctid, cluster(embedding, 5) OVER () AS w FROM shots) s ON s.ctid = c.tid
WHERE c.cluster IS DISTINCT FROM w;
BEGIN;
DELETE FROM shots WHERE id > 12;
SELECT count(*), count(cluster) FROM ann_clusters('shots_embedding', 5);
ROLLBACK;
SELECT id, c.cluster FROM ann_clusters('picture_embedding', 2) c JOIN picture ON ctid = c.tid ORDER BY 1;
SELECT count(*) FROM ann_clusters('picture_embedding', 1000) WHERE cluster IS NULL;
SELECT * FROM ann_clusters('picture_embedding', 1);
-- few rows, equal rows, other metrics
CREATE TABLE few (embedding imgvec(2));
CREATE INDEX few_cosine ON few USING ann (embedding);
CREATE INDEX few_l2 ON few USING ann (embedding imgvec_l2_ops);
CREATE INDEX few_ip ON few USING ann (embedding imgvec_ip_ops);
CREATE INDEX few_tree ON few USING btree (embedding);
SELECT * FROM ann_pairs('few_cosine', 1);
INSERT INTO few VALUES ('[3,4]');
SELECT * FROM ann_pairs('few_cosine', 1);
INSERT INTO few VALUES ('[3,4]'), ('[6,8]'), ('[3,5]'), (NULL), ('[0,0]');
SELECT * FROM ann_pairs('few_cosine', 0) ORDER BY 1, 2;
SELECT * FROM ann_pairs('few_l2', 1) ORDER BY 1, 2;
SELECT * FROM ann_groups('few_l2', 1) ORDER BY 1;
SELECT * FROM ann_pairs('few_ip', 1);
SELECT * FROM ann_clusters('few_ip');
SELECT * FROM ann_clusters('few_l2', 2) ORDER BY 1;
SELECT * FROM ann_pairs('few_tree', 1);
SELECT * FROM ann_pairs('few', 1);
SELECT * FROM ann_pairs(0, 1);
-- a distance that holds half of all pairs, and more copies than pairs can be told of
BEGIN;
SET LOCAL maintenance_work_mem = '1MB';
SET LOCAL work_mem = '64kB';
SET LOCAL hash_mem_multiplier = 1;
INSERT INTO few SELECT ARRAY[1, 0]::imgvec FROM generate_series(1, 300);
SAVEPOINT before;
SELECT count(*) FROM ann_pairs('few_l2', 0);
ROLLBACK TO before;
SELECT count(*), count(DISTINCT number) FROM ann_groups('few_l2', 0);
-- vectors of one direction share a node, and are not equal
INSERT INTO few SELECT ARRAY[i, 2 * i]::imgvec FROM generate_series(1, 300) AS i;
SELECT count(*) FROM ann_groups('few_cosine', 1e-6);
ROLLBACK;
-- partitions have an index each
CREATE TABLE parts (id integer, embedding imgvec(2)) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE INDEX parts_embedding ON parts USING ann (embedding);
INSERT INTO parts VALUES (1, '[1,1]'), (2, '[2,2]');
SELECT * FROM ann_pairs('parts_embedding', 1);
SELECT * FROM ann_pairs('part_1_embedding_idx', 0);
-- rights: all rows, or none
CREATE ROLE library_reader;
SET ROLE library_reader;
SELECT * FROM ann_pairs('few_l2', 1);
RESET ROLE;
GRANT SELECT ON few TO library_reader;
ALTER TABLE few ENABLE ROW LEVEL SECURITY;
SET ROLE library_reader;
SELECT * FROM ann_groups('few_l2', 1);
RESET ROLE;
DROP TABLE few, parts;
DROP ROLE library_reader;
DROP TABLE picture, shots, found;
