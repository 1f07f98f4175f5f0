-- btree order, hash, uniqueness, joins.
CREATE TABLE t (id serial, v imgvec);
INSERT INTO t(v) VALUES ('[1,2]'), ('[1]'), ('[1,2,0]'), ('[-1,5]'), (NULL), ('[0,0]'), ('[-0,0]'), ('[1,2]');
SELECT v FROM t ORDER BY v, id;
SELECT v FROM t ORDER BY v DESC NULLS LAST, id DESC;
SELECT a.v AS a, b.v AS b, a.v < b.v AS lt, a.v <= b.v AS le, a.v = b.v AS eq, a.v <> b.v AS ne, a.v >= b.v AS ge, a.v > b.v AS gt
FROM t a, t b WHERE a.id IN (1, 2) AND b.id IN (1, 2, 3) ORDER BY a.id, b.id;
SELECT v, count(*) FROM t GROUP BY v ORDER BY v;
SELECT imgvec_hash('[0,1]') = imgvec_hash('[-0,1]') AS equal_zeroes,
       imgvec_hash_extended('[1,2]', 0)::bit(64) & x'00000000ffffffff'::bit(64) = imgvec_hash('[1,2]')::bigint::bit(64) & x'00000000ffffffff'::bit(64) AS widths_agree,
       imgvec_hash('[1,2]') <> imgvec_hash('[2,1]') AS order_matters;
CREATE INDEX t_v ON t (v);
SET enable_seqscan = off; SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM t WHERE v = '[1,2]';
SELECT id FROM t WHERE v = '[1,2]' ORDER BY id;
SELECT id FROM t WHERE v > '[0,0]' ORDER BY v, id;
DROP INDEX t_v;
CREATE INDEX t_h ON t USING hash (v);
EXPLAIN (COSTS OFF) SELECT id FROM t WHERE v = '[-0,-0]';
SELECT id FROM t WHERE v = '[-0,-0]' ORDER BY id;
RESET enable_seqscan; RESET enable_bitmapscan;
CREATE TABLE u (v imgvec(2) UNIQUE, n int);
INSERT INTO u VALUES ('[1,2]', 1);
INSERT INTO u VALUES ('[1,2]', 2);
INSERT INTO u VALUES ('[1,2]', 2) ON CONFLICT (v) DO UPDATE SET n = excluded.n RETURNING *;
SET enable_nestloop = off; SET enable_mergejoin = off;
EXPLAIN (COSTS OFF) SELECT * FROM t JOIN u USING (v);
SELECT id FROM t JOIN u USING (v) ORDER BY id;
RESET enable_mergejoin; SET enable_hashjoin = off;
SELECT id FROM t JOIN u USING (v) ORDER BY id;
DROP TABLE t, u;
