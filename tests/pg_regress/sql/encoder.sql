-- Encoders by the starter model: results, errors, NULLs, and how often the model runs.
-- The numbers themselves are held by the golden tests of crates/encoder.
\pset null NULL
SET imgvec.default_model = 'starter';
CREATE TABLE pictures (name text PRIMARY KEY, data bytea);
INSERT INTO pictures VALUES
    ('png', '\x89504e470d0a1a0a0000000d4948445200000008000000060802000000716748ac0000001849444154789c63646068506060c0442c0c1a0c58013d2400017f023e1d2f55830000000049454e44ae426082'),
    ('gif', '\x47494638376108000600820000c0b48070b480a0788020a080705080c014807014802014802c0000000008000600000827000f083460a080418107081a2c2090804301020a0c98480022c48903020400c011a3468e000202003b'),
    ('bmp', '\x424dc60000000000000036000000280000000800000006000000010018000000000090000000c40e0000c40e0000000000000000000080c80080c82080c84080c86080c88080c8a080c8c080c8e080a00080a02080a04080a06080a08080a0a080a0c080a0e08078008078208078408078608078808078a08078c08078e08050008050208050408050608050808050a08050c08050e08028008028208028408028608028808028a08028c08028e08000008000208000408000608000808000a08000c08000e0'),
    ('webp', '\x524946462a000000574542505650384c1e0000002f07400100b98ce87fec22a2ff012101618eff1b250b0664006302905a36'),
    ('tiff', '\x49492a0008000000090000010400010000000800000001010400010000000600000002010300010000000800000003010300010000000100000006010300010000000100000011010400010000007a0000001601040001000000060000001701040001000000300000001c0103000100000001000000000000000f18222b353e4852263039434c565f693e47515a646d7781555f68727b858e986d768089939ca6af848e97a1aab4bdc7'),
    ('jpeg', '\xffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffdb0043011112121815182f1a1a2f634238426363636363636363636363636363636363636363636363636363636363636363636363636363636363636363636363636363ffc00011080006000803012200021101031101ffc4001f0000010501010101010100000000000000000102030405060708090a0bffc400b5100002010303020403050504040000017d01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9faffc4001f0100030101010101010101010000000000000102030405060708090a0bffc400b51100020102040403040705040400010277000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a262728292a35363738393a434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9faffda000c03010002110311003f00669fa1c5c74a28a2b0ab5a7cdb9ae02bd4f62b53ffd9'),
    ('jpeg turned', '\xffd8ffe000104a46494600010100000100010000ffe100224578696600004d4d002a00000008000101120003000000010006000000000000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffdb0043011112121815182f1a1a2f634238426363636363636363636363636363636363636363636363636363636363636363636363636363636363636363636363636363ffc00011080006000803012200021101031101ffc4001f0000010501010101010100000000000000000102030405060708090a0bffc400b5100002010303020403050504040000017d01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9faffc4001f0100030101010101010101010000000000000102030405060708090a0bffc400b51100020102040403040705040400010277000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a262728292a35363738393a434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9faffda000c03010002110311003f00669fa1c5c74a28a2b0ab5a7cdb9ae02bd4f62b53ffd9');

SELECT name, i.* FROM pictures, image_info(data) i ORDER BY name;
SELECT image_info(NULL);

-- unit vectors of the model's dimension, the same for the same pixels whatever the file format
SELECT name, imgvec_dims(e) AS dims, round(imgvec_norm(e)::numeric, 5) AS norm
FROM pictures, embed_image(data, 'starter') e ORDER BY name;
SELECT count(*) AS equal_pairs FROM pictures a, pictures b
WHERE a.name IN ('png', 'bmp', 'webp') AND b.name IN ('png', 'bmp', 'webp')
  AND embed_image(a.data) = embed_image(b.data);
SELECT imgvec_dims(embed_text('dog')), round(imgvec_norm(embed_text('dog'))::numeric, 5) AS norm,
       embed_text('dog') = embed_text('dog', 'starter') AS same_model, embed_text('dog') = embed_text('cat') AS same_word;
SELECT imgvec_dims(embed_text('')) AS empty, imgvec_dims(embed_text(E'\u00e9\U0001f436 \\x00 [PAD] <|endoftext|>')) AS odd,
       imgvec_dims(embed_text(repeat('dog ', 1000000))) AS megabytes;
SELECT embed_image(NULL), embed_text(NULL), embed_text('dog', NULL);

-- batches: NULL in, NULL out; equal to one by one
SELECT embed_texts(ARRAY['dog', NULL, 'cat', 'dog']) = ARRAY[embed_text('dog'), NULL, embed_text('cat'), embed_text('dog')] AS equal;
SELECT embed_texts('{}'), embed_images('{}', 'starter'), embed_texts(NULL), array_length(embed_texts(ARRAY[NULL]), 1);
SELECT bool_and(e = embed_image(data)) AS equal
FROM (SELECT unnest(array_agg(data ORDER BY name)) AS data, unnest(embed_images(array_agg(data ORDER BY name))) AS e FROM pictures) s;
SELECT array_length(embed_texts(ARRAY(SELECT 'word ' || i FROM generate_series(1, 100) i)), 1);

-- classification
SELECT count(*), round(sum(score)::numeric, 4), bool_and(score BETWEEN 0 AND 1) AS probabilities
FROM pictures, classify_image(data, ARRAY['cat', 'dog', 'car']) WHERE name = 'png';
SELECT label, score >= 0.5 AS likely FROM classify_embedding(embed_text('dog'), ARRAY['cat', 'dog', 'airplane']);
SELECT * FROM classify_embedding(embed_text('dog'), '{}');
SELECT label, round(score::numeric, 3) FROM classify_embedding(embed_text('dog'), ARRAY['dog', 'dog']);

-- each label by itself: those that are there, or a row without a label
SELECT label, score >= 0.5 AS likely FROM classify_embedding(embed_text('dog'), '{cat,dog,puppy,airplane}', threshold => 0.5) WHERE label IN ('dog', 'airplane');
SELECT label, score > 0.5 AS sure FROM classify_embedding(embed_text('dog'), '{airplane,ship}', 0.5, 'starter');
SELECT count(*), count(label), bool_and(score BETWEEN 0 AND 1) AS probabilities FROM pictures, classify_image(data, '{cat,dog,car}', 0) WHERE name = 'png';
SELECT label, round(score::numeric, 3) FROM classify_embedding(embed_text('dog'), '{}', 0.5);
SELECT a.label = b.label AND a.score = b.score AS same
FROM pictures, classify_image(data, '{dog,dog}', 0) a, classify_image(data, '{dog}', 0, 'starter') b WHERE name = 'png';

-- answers to questions
SELECT bool_and(a.score = c.score) AS same_as_labels
FROM pictures, answer_image(data, 'What is this?', '{cat,dog,car}') a, classify_image(data, '{cat,dog,car}') c WHERE name = 'png' AND a.answer = c.label;
SELECT bool_and(a.score = c.score) AS same_as_labels
FROM pictures, answer_image(data, 'What color is the ball?', '{red,blue}', 'starter') a, classify_image(data, '{red ball,blue ball}') c
WHERE name = 'png' AND a.answer || ' ball' = c.label;
SELECT round(sum(score)::numeric, 5) AS sum, bool_and(abs(score - CASE answer WHEN 'yes' THEN c.yes ELSE 1 - c.yes END) < 1e-6) AS as_threshold
FROM pictures, answer_image(data, 'Is there a dog in the picture?', '{yes,no}') a,
    LATERAL (SELECT score AS yes FROM classify_image(data, '{dog}', 0)) c WHERE name = 'png';
SELECT answer, count(*) FROM pictures, answer_image(data, 'Who is it?', '{Ann,Ann}') WHERE name = 'png' GROUP BY 1;
SELECT count(*) FROM pictures, answer_image(data, 'What is this?', '{}') WHERE name = 'png';
SELECT bool_and(a.score = b.score) AS literal_as_array
FROM pictures, answer_image(data, 'What is this?', ' {cat,"a dog"}') a, answer_image(data, 'What is this?', ARRAY['cat', 'a dog']) b
WHERE name = 'png' AND a.answer = b.answer;
SELECT * FROM answer_image('', NULL, '{a}');

-- a query of a picture and a word: of a model of two towers the direction between their vectors
SELECT round((embed_query(data, 'dog') <=> embed_mix(ARRAY[embed_image(data), embed_text('dog')], '{0.5,0.5}'))::numeric, 6) AS between,
       embed_query(data, 'dog') = embed_query(data, 'dog', 0.5) AS alike, embed_query(data, 'dog') = embed_query(data, 'dog', 'starter') AS named,
       round((embed_query(data, 'dog', weight => 0, model => 'starter') <=> embed_image(data))::numeric, 6) AS image,
       round((embed_query(data, 'dog', 1) <=> embed_text('dog'))::numeric, 6) AS text,
       embed_query(data, NULL, 0.9) = embed_image(data) AS image_alone, embed_query(NULL, 'dog', 0.1) = embed_text('dog') AS text_alone
FROM pictures WHERE name = 'png';
SELECT embed_query(NULL, NULL, 0.5), embed_query(NULL, 'dog', NULL::float8), embed_query(NULL, 'dog', 0.5, NULL);

-- parts of a picture: the upright picture's pixels, 8 to the right and 6 down, and 6 and 8 of the one that lies on its side
SELECT name, embed_image(data, region => box '((0,0),(8,8))') = embed_image(data) AS whole,
       embed_image(data, box '((0,0),(4,4))', 'starter') = embed_image(data) AS part,
       embed_image(data, region => box '((4,4),(0,0))') = embed_image(data, region => box '((3.5,3.5),(-9,0.5))') AS same
FROM pictures WHERE name IN ('png', 'jpeg turned') ORDER BY name;
SELECT embed_image(NULL, NULL::box), embed_image('', NULL::box, 'starter');
SELECT region, embedding <=> embed_image(data, region => region) < 1e-5 AS same FROM pictures, image_tiles(data) WHERE name = 'png';
SELECT region FROM pictures, image_tiles(data, 1, 0) WHERE name = 'jpeg turned';
SELECT region FROM pictures, image_tiles(data, grid => 2, overlap => 0, model => 'starter') WHERE name = 'jpeg turned';
SELECT count(*) FROM pictures, image_tiles(data, 16, 0.9) WHERE name = 'png';
SELECT count(*) FROM image_tiles(NULL);
-- a second literal is a model's name, as before
SELECT embed_image(data, 'starter') = embed_image(data) AS model FROM pictures WHERE name = 'png';

-- a frame of an animation; a picture of one frame has its first
SELECT embed_image(data, frame => 1) = embed_image(data) AS first, embed_image(data, 1, 'starter') = embed_image(data) AS named
FROM pictures WHERE name = 'png';
SELECT embed_image(animation, frame => 1) = embed_image(animation) AS first, embed_image(animation, 2) = embed_image(second) AS second,
       embed_image(animation, frame => 2, model => 'starter') = embed_image(animation) AS alike
FROM (VALUES ('\x47494638376108000600810000c81e280000000000000000002c000000000800060000080e0001081c48b0a0c18308130e0c080021f90401000002002c000000000800060081fafa001482f000000000000008150003081c4810804182010c0240a810a1c387010202003b'::bytea,
    '\x89504e470d0a1a0a0000000d4948445200000008000000060802000000716748ac0000002549444154789c631469fac0800db040a867150210865407541d1356e5f8241871d9815307007ebe0619457430210000000049454e44ae426082'::bytea)) v (animation, second);
SELECT embed_image(data, NULL::integer), embed_image(data, NULL::integer, 'starter') FROM pictures WHERE name = 'png';

-- fewer dimensions: those of the whole vector, at unit length again
SELECT imgvec_dims(embed_text('dog', 'starter', dims => 64)) AS dims,
       embed_text('dog', 'starter', 64) <=> l2_normalize(subvector(embed_text('dog'), 1, 64)) < 1e-6 AS first,
       embed_text('dog', 'starter', 256) = embed_text('dog') AS all_of_them,
       round(imgvec_norm(embed_image(data, 'starter', dims => 10))::numeric, 5) AS norm
FROM pictures WHERE name = 'png';

-- errors
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
SELECT statement, e.* FROM unnest(ARRAY[
    $$SELECT embed_image('')$$,
    $$SELECT embed_image('\x00010203')$$,
    $$SELECT embed_image('just text')$$,
    $$SELECT embed_image(substr(data, 1, length(data) / 2)) FROM pictures WHERE name = 'jpeg'$$,
    $$SELECT embed_image(substr(data, 1, length(data) - 20)) FROM pictures WHERE name = 'png'$$,
    $$SELECT embed_image('\x474946383961384a384a800000000000ffffff2c00000000384a384a0002024401003b')$$,
    $$SELECT embed_image('\xffd8ffc0001108ffdcffdc03012200021101031101')$$,
    $$SELECT embed_image('\x0000001c6674797061766966')$$,
    $$SELECT embed_image('\x0000000c6a5020200d0a870a')$$,
    $$SELECT image_info('\x')$$,
    $$SELECT image_info('\x89504e470d0a1a0a')$$,
    $$SELECT embed_images(ARRAY['\x'::bytea], 'starter')$$,
    $$SELECT embed_query(NULL, 'dog', -0.1)$$,
    $$SELECT embed_query(NULL, 'dog', 'NaN'::float8)$$,
    $$SELECT embed_query('', 'dog', 0.3, 'starter')$$,
    $$SELECT embed_image(data, region => '((8,0),(9,9))') FROM pictures WHERE name = 'png'$$,
    $$SELECT embed_image(data, region => '((2,2),(2,3))') FROM pictures WHERE name = 'png'$$,
    $$SELECT embed_image(data, region => '((0,0),(NaN,3))') FROM pictures WHERE name = 'png'$$,
    $$SELECT embed_image('\x00', region => '((0,0),(1,1))')$$,
    $$SELECT embed_image(data, frame => 2) FROM pictures WHERE name = 'png'$$,
    $$SELECT embed_image(data, frame => 0) FROM pictures WHERE name = 'gif'$$,
    $$SELECT embed_image(data, -2147483648, 'starter') FROM pictures WHERE name = 'tiff'$$,
    $$SELECT embed_image('\x00', frame => 0)$$,
    $$SELECT count(*) FROM pictures, image_tiles(data, 17) WHERE name = 'png'$$,
    $$SELECT count(*) FROM pictures, image_tiles(data, 0) WHERE name = 'png'$$,
    $$SELECT count(*) FROM pictures, image_tiles(data, 3, 0.95) WHERE name = 'png'$$,
    $$SELECT count(*) FROM pictures, image_tiles(data, 3, 'NaN') WHERE name = 'png'$$,
    $$SELECT count(*) FROM image_tiles('', 3, 0, 'starter')$$,
    $$SELECT embed_text('dog', 'starter', dims => 0)$$,
    $$SELECT embed_text('dog', 'starter', dims => 257)$$,
    $$SELECT embed_image(data, 'starter', dims => -1) FROM pictures WHERE name = 'png'$$,
    $$SELECT embed_text('dog', 'starter', prompt => 'query')$$,
    $$SELECT embed_texts('{}', 'starter', prompt => 'document')$$,
    $$SELECT embed_text('dog', 'no-such-model')$$,
    $$SELECT embed_text('dog', 'startr')$$,
    $$SELECT embed_text('dog', '')$$,
    $$SELECT embed_text('dog', '../starter')$$,
    $$SELECT embed_text('dog', '/etc/passwd')$$,
    $$SELECT embed_text('dog', repeat('x', 201))$$,
    $$SELECT * FROM classify_embedding('[1,2]', ARRAY['cat'])$$,
    $$SELECT * FROM classify_embedding(embed_text('dog') - embed_text('dog'), ARRAY['cat'])$$,
    $$SELECT * FROM classify_image('', ARRAY['cat'])$$,
    $$SELECT * FROM classify_embedding(embed_text('dog'), ARRAY['cat', NULL])$$,
    $$SELECT * FROM classify_embedding(embed_text('dog'), '{cat}', 1.5)$$,
    $$SELECT * FROM classify_embedding(embed_text('dog'), '{cat}', 'NaN'::float8)$$,
    $$SELECT * FROM classify_embedding('[1,2]', '{cat}', 0.5)$$,
    $$SELECT * FROM classify_embedding(embed_text('dog') - embed_text('dog'), '{cat}', 0.5, 'starter')$$,
    $$SELECT * FROM answer_image('', 'what is this', '{cat}')$$,
    $$SELECT * FROM answer_image('', 'what is this', '{cat,NULL}', 'starter')$$,
    $$SELECT * FROM answer_image('', repeat('what ', 200000), '{cat}')$$,
    $$SELECT * FROM answer_image('', repeat('what ', 200000), 'starter')$$,
    $$SELECT * FROM answer_image('', 'what is this', 'starter')$$,
    $$SELECT * FROM answer_image('', 'what is this', '{cat')$$,
    $$SELECT * FROM answer_image('', 'what is this', 'no such model')$$,
    $$SET imgvec.threads = 0$$,
    $$SET imgvec.embedding_cache_entries = -1$$,
    $$SET imgvec.max_image_pixels = 0$$
]) WITH ORDINALITY AS t(statement, ord), LATERAL pg_temp.error_of(statement) e ORDER BY ord;
SET imgvec.max_image_bytes = 50;
SELECT e.* FROM pg_temp.error_of($$SELECT embed_image(data) FROM pictures WHERE name = 'bmp'$$) e;
RESET imgvec.max_image_bytes;
SET imgvec.max_image_pixels = 40;
SELECT e.* FROM pg_temp.error_of($$SELECT image_info(data) FROM pictures WHERE name = 'bmp'$$) e;
RESET imgvec.max_image_pixels;
SET imgvec.default_model = '';
SELECT e.* FROM pg_temp.error_of($$SELECT embed_text('dog')$$) e;
RESET imgvec.default_model;
\x off
\pset format aligned

-- a generated column, checked against the column's dimension
CREATE TABLE photos (id serial PRIMARY KEY, data bytea, embedding imgvec(256) GENERATED ALWAYS AS (embed_image(data, 'starter')) STORED);
INSERT INTO photos (data) SELECT data FROM pictures ORDER BY name;
SELECT count(embedding) FROM photos;
INSERT INTO photos (data) VALUES ('not a picture');
INSERT INTO photos (data) VALUES (NULL) RETURNING embedding;
CREATE TABLE bad (data bytea, embedding imgvec(256) GENERATED ALWAYS AS (embed_image(data)) STORED);
CREATE TABLE narrow (e imgvec(3));
INSERT INTO narrow VALUES (embed_text('dog'));

-- the model runs once for each distinct input, whatever the plan
\c -
CREATE TABLE many AS SELECT i AS id, embed_text('word ' || (i % 50)) AS embedding FROM generate_series(1, 10000) i;
SELECT texts_embedded, cache_misses FROM imgvec_backend_stats;
\c -
SET max_parallel_workers_per_gather = 0;
SELECT count(*) FROM (SELECT id FROM many ORDER BY embedding <=> embed_text('dog') LIMIT 10) s;
SELECT texts_embedded, model_runs FROM imgvec_backend_stats;
PREPARE search(text) AS SELECT count(*) FROM (SELECT id FROM many ORDER BY embedding <=> embed_text($1) LIMIT 10) s;
SET plan_cache_mode = force_generic_plan;
EXECUTE search('cat');
SELECT texts_embedded, model_runs FROM imgvec_backend_stats;
SELECT count(*) FROM (VALUES ('cat'), ('dog'), ('bird')) q(word),
    LATERAL (SELECT id FROM many ORDER BY embedding <=> embed_text(word) LIMIT 5) s;
SELECT texts_embedded, model_runs FROM imgvec_backend_stats;
BEGIN;
DECLARE c CURSOR FOR SELECT id > 0 AS found FROM many ORDER BY embedding <=> embed_text('ship') LIMIT 3;
FETCH 1 FROM c;
FETCH 2 FROM c;
COMMIT;
SELECT texts_embedded, model_runs, cache_entries FROM imgvec_backend_stats;
-- with the cache off, the model runs for each row
SET imgvec.embedding_cache_entries = 0;
SELECT count(*) FROM (SELECT id FROM many WHERE id <= 20 ORDER BY embedding <=> embed_text('tree')) s;
SELECT cache_entries FROM imgvec_backend_stats;
RESET imgvec.embedding_cache_entries;

-- what is there
SELECT name, family, modalities, dims, length(digest) AS digest_length, state, detail FROM imgvec_models WHERE name = 'starter';
SELECT path IS NOT NULL AS superuser_sees_paths, memory_bytes > 0 AS in_memory FROM imgvec_models WHERE name = 'starter';
CREATE ROLE regress_imgvec_plain;
SET ROLE regress_imgvec_plain;
SELECT imgvec_dims(embed_text('dog')), path FROM imgvec_models WHERE name = 'starter';
-- The server's versions word it differently.
\set VERBOSITY sqlstate
SHOW imgvec.model_path;
\set VERBOSITY default
SET imgvec.model_path = '/tmp';
SET imgvec.onnxruntime_library = '/tmp/evil.so';
SET imgvec.cache_directory = '/tmp';
SET imgvec.threads = 64;
SET imgvec.max_image_pixels = 1000000000;
SET imgvec.embedding_cache_entries = 10;
RESET ROLE;
DROP ROLE regress_imgvec_plain;
DROP TABLE pictures, photos, many, narrow;
