-- What each function is declared to be, and why. A function that is not in this list, or is otherwise than it says,
-- shows below.
CREATE TEMP TABLE labels (function text, volatility text, strictness text, parallel text, cost real, reason text);
INSERT INTO labels VALUES
    ('imgvec_in(cstring,oid,integer)', 'immutable', 'strict', 'safe', 1, 'input and output: the same bytes give the same value, whatever the settings'),
    ('imgvec_out(imgvec)', 'immutable', 'strict', 'safe', 1, 'input and output: the same bytes give the same value, whatever the settings'),
    ('imgvec_typmod_in(cstring[])', 'immutable', 'strict', 'safe', 1, 'input and output: the same bytes give the same value, whatever the settings'),
    ('imgvec_recv(internal,oid,integer)', 'immutable', 'strict', 'safe', 1, 'input and output: the same bytes give the same value, whatever the settings'),
    ('imgvec_send(imgvec)', 'immutable', 'strict', 'safe', 1, 'input and output: the same bytes give the same value, whatever the settings'),
    ('l2_distance(imgvec,imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('inner_product(imgvec,imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('cosine_distance(imgvec,imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('l1_distance(imgvec,imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('imgvec_negative_inner_product(imgvec,imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('imgvec_dims(imgvec)', 'immutable', 'strict', 'safe', 1, 'reads the header of a value'),
    ('imgvec_norm(imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('vector_dims(imgvec)', 'immutable', 'strict', 'safe', 1, 'reads the header of a value'),
    ('vector_norm(imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('l2_norm(imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('l2_normalize(imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('subvector(imgvec,integer,integer)', 'immutable', 'strict', 'safe', 1, 'copies or converts a value; may fail, so not leakproof'),
    ('binary_quantize(imgvec)', 'immutable', 'strict', 'safe', 1, 'copies or converts a value; may fail, so not leakproof'),
    ('imgvec_add(imgvec,imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('imgvec_sub(imgvec,imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('imgvec_mul(imgvec,imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('imgvec_concat(imgvec,imgvec)', 'immutable', 'strict', 'safe', 1, 'copies or converts a value; may fail, so not leakproof'),
    ('imgvec_lt(imgvec,imgvec)', 'immutable', 'strict', 'safe', 1, 'mostly decided by the first elements; fails for a damaged value, and says its length, so not leakproof'),
    ('imgvec_le(imgvec,imgvec)', 'immutable', 'strict', 'safe', 1, 'mostly decided by the first elements; fails for a damaged value, and says its length, so not leakproof'),
    ('imgvec_eq(imgvec,imgvec)', 'immutable', 'strict', 'safe', 1, 'mostly decided by the first elements; fails for a damaged value, and says its length, so not leakproof'),
    ('imgvec_ne(imgvec,imgvec)', 'immutable', 'strict', 'safe', 1, 'mostly decided by the first elements; fails for a damaged value, and says its length, so not leakproof'),
    ('imgvec_ge(imgvec,imgvec)', 'immutable', 'strict', 'safe', 1, 'mostly decided by the first elements; fails for a damaged value, and says its length, so not leakproof'),
    ('imgvec_gt(imgvec,imgvec)', 'immutable', 'strict', 'safe', 1, 'mostly decided by the first elements; fails for a damaged value, and says its length, so not leakproof'),
    ('imgvec_cmp(imgvec,imgvec)', 'immutable', 'strict', 'safe', 1, 'mostly decided by the first elements; fails for a damaged value, and says its length, so not leakproof'),
    ('imgvec_hash(imgvec)', 'immutable', 'strict', 'safe', 1, 'a function of the value; as the comparison it goes with'),
    ('imgvec_hash_extended(imgvec,bigint)', 'immutable', 'strict', 'safe', 1, 'a function of the value; as the comparison it goes with'),
    ('imgvec_accum(double precision[],imgvec)', 'immutable', 'strict', 'safe', 10, 'computes with every element'),
    ('imgvec_combine(double precision[],double precision[])', 'immutable', 'strict', 'safe', 1, 'part of an aggregate, called once a group or worker'),
    ('imgvec_avg(double precision[])', 'immutable', 'strict', 'safe', 1, 'part of an aggregate, called once a group or worker'),
    ('imgvec_sum(double precision[])', 'immutable', 'strict', 'safe', 1, 'part of an aggregate, called once a group or worker'),
    ('imgvec_distance_support(internal)', 'immutable', 'strict', 'safe', 1, 'reads the expression that the planner hands over'),
    ('imgvec_support(internal)', 'immutable', 'strict', 'safe', 1, 'reads the expression that the planner hands over'),
    ('imgvec(imgvec,integer,boolean)', 'immutable', 'strict', 'safe', 1, 'copies or converts a value; may fail, so not leakproof'),
    ('array_to_imgvec(integer[],integer,boolean)', 'immutable', 'strict', 'safe', 1, 'copies or converts a value; may fail, so not leakproof'),
    ('array_to_imgvec(real[],integer,boolean)', 'immutable', 'strict', 'safe', 1, 'copies or converts a value; may fail, so not leakproof'),
    ('array_to_imgvec(double precision[],integer,boolean)', 'immutable', 'strict', 'safe', 1, 'copies or converts a value; may fail, so not leakproof'),
    ('array_to_imgvec(numeric[],integer,boolean)', 'immutable', 'strict', 'safe', 100, 'written in SQL, whose functions have COST 100; it is inlined'),
    ('imgvec_to_float4(imgvec,integer,boolean)', 'immutable', 'strict', 'safe', 1, 'copies or converts a value; may fail, so not leakproof'),
    ('imgvec_to_float8(imgvec,integer,boolean)', 'immutable', 'strict', 'safe', 1, 'copies or converts a value; may fail, so not leakproof'),
    ('imgvec_to_int4(imgvec,integer,boolean)', 'immutable', 'strict', 'safe', 100, 'written in SQL, whose functions have COST 100; it is inlined'),
    ('imgvec_to_numeric(imgvec,integer,boolean)', 'immutable', 'strict', 'safe', 100, 'written in SQL, whose functions have COST 100; it is inlined'),
    ('ann_handler(internal)', 'volatile', 'not strict', 'unsafe', 1, 'only the server calls it, with an argument of its own, as its own handlers are declared'),
    ('ann_imgvec_cosine(internal)', 'immutable', 'not strict', 'safe', 1, 'answers a constant; the server calls it with NULL'),
    ('ann_imgvec_l2(internal)', 'immutable', 'not strict', 'safe', 1, 'answers a constant; the server calls it with NULL'),
    ('ann_imgvec_ip(internal)', 'immutable', 'not strict', 'safe', 1, 'answers a constant; the server calls it with NULL'),
    ('ann_key_hashed(internal)', 'immutable', 'not strict', 'safe', 1, 'answers a constant; the server calls it with NULL'),
    ('ann_key_ordered(internal)', 'immutable', 'not strict', 'safe', 1, 'answers a constant; the server calls it with NULL'),
    ('ann_key_set(internal)', 'immutable', 'not strict', 'safe', 1, 'answers a constant; the server calls it with NULL'),
    ('ann_index_info(regclass)', 'volatile', 'strict', 'restricted', 1, 'reads pages that change under it, and takes locks that a worker should not'),
    ('ann_index_check(regclass,boolean)', 'volatile', 'strict', 'restricted', 1, 'reads pages that change under it, and takes locks that a worker should not'),
    ('ann_index_recall(regclass,imgvec[],integer)', 'volatile', 'strict', 'restricted', 1, 'reads pages that change under it, and takes locks that a worker should not'),
    ('ann_index_recall(regclass,integer,integer)', 'volatile', 'strict', 'restricted', 1, 'reads pages that change under it, and takes locks that a worker should not'),
    ('ann_scan_counters()', 'volatile', 'not strict', 'restricted', 1, 'counters of this session: they change within a statement, and a worker has others'),
    ('embed_image(bytea)', 'stable', 'strict', 'safe', 100000, 'default model: a setting, which may change between statements'),
    ('embed_image(bytea,text)', 'immutable', 'strict', 'safe', 100000, 'named model: its package does not change while its name stands for stored values; each worker loads the model'),
    ('embed_parts(bytea[],text[])', 'stable', 'strict', 'safe', 100000, 'default model: a setting, which may change between statements'),
    ('embed_parts(bytea[],text[],text)', 'immutable', 'strict', 'safe', 100000, 'named model: its package does not change while its name stands for stored values; each worker loads the model'),
    ('embed_query(bytea,text)', 'stable', 'not strict', 'safe', 100000, 'default model: a setting, which may change between statements; one of image and text may be NULL'),
    ('embed_query(bytea,text,text)', 'immutable', 'not strict', 'safe', 100000, 'named model, as above; one of image and text may be NULL'),
    ('embed_text(text)', 'stable', 'strict', 'safe', 1000, 'default model: a setting, which may change between statements'),
    ('embed_text(text,text)', 'immutable', 'strict', 'safe', 1000, 'named model, as of an image; a text is mostly answered by the cache'),
    ('embed_images(bytea[])', 'stable', 'strict', 'safe', 100000, 'default model: a setting, which may change between statements'),
    ('embed_images(bytea[],text)', 'immutable', 'strict', 'safe', 100000, 'named model: its package does not change while its name stands for stored values; each worker loads the model'),
    ('embed_texts(text[])', 'stable', 'strict', 'safe', 1000, 'default model: a setting, which may change between statements'),
    ('embed_texts(text[],text)', 'immutable', 'strict', 'safe', 1000, 'named model, as of an image; a text is mostly answered by the cache'),
    ('classify_image(bytea,text[])', 'stable', 'strict', 'safe', 100000, 'default model: a setting, which may change between statements'),
    ('classify_image(bytea,text[],text)', 'immutable', 'strict', 'safe', 100000, 'named model: its package does not change while its name stands for stored values; each worker loads the model'),
    ('classify_embedding(imgvec,text[])', 'stable', 'strict', 'safe', 1000, 'default model: a setting, which may change between statements'),
    ('classify_embedding(imgvec,text[],text)', 'immutable', 'strict', 'safe', 1000, 'named model, as of an image; a text is mostly answered by the cache'),
    ('image_info(bytea)', 'immutable', 'strict', 'safe', 100, 'reads the header of an image'),
    ('imgvec_prepare(text)', 'volatile', 'strict', 'unsafe', 10000, 'writes files and starts a process, whatever the query''s plan; seconds of work'),
    ('imgvec_model_list()', 'stable', 'not strict', 'restricted', 10000, 'says what this session has loaded, which a worker does not know; reads and checks files'),
    ('imgvec_backend_counters()', 'volatile', 'not strict', 'restricted', 1, 'counters of this session: they change within a statement, and a worker has others'),
    ('imgvec_enqueue()', 'volatile', 'not strict', 'unsafe', 1, 'only triggers call it; it writes'),
    ('imgvec_maintain(regclass,text,text,text,text,boolean)', 'volatile', 'not strict', 'unsafe', 10000, 'creates tables and triggers; NULL has meanings of its own'),
    ('imgvec_outdated_list()', 'volatile', 'not strict', 'unsafe', 10000, 'reads tables and files'),
    ('imgvec_retry(regclass,text,text)', 'volatile', 'not strict', 'unsafe', 10000, 'writes; NULL stands for all'),
    ('imgvec_progress_list()', 'volatile', 'not strict', 'unsafe', 10000, 'counts tables in subtransactions, which a worker may not start'),
    ('imgvec_failure_list()', 'volatile', 'not strict', 'unsafe', 10000, 'reads tables in subtransactions, which a worker may not start'),
    ('imgvec_start_workers(integer)', 'volatile', 'strict', 'unsafe', 10000, 'starts processes, and waits for them'),
    ('imgvec_stop_workers()', 'volatile', 'strict', 'unsafe', 10000, 'ends processes'),
    ('embed_text_for(regclass,text,text)', 'stable', 'strict', 'restricted', 1000, 'the column''s model: a declaration, which may change between statements; runs SQL of its own'),
    ('embed_image_for(regclass,text,bytea)', 'stable', 'strict', 'restricted', 100000, 'the column''s model: a declaration, which may change between statements; runs SQL of its own');

CREATE TEMP VIEW declared AS
SELECT p.oid::regprocedure::text AS function,
    CASE provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END AS volatility,
    CASE WHEN proisstrict THEN 'strict' ELSE 'not strict' END AS strictness,
    CASE proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END AS parallel,
    procost AS cost, proleakproof, prosecdef
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
WHERE e.extname = 'imgvec' AND prokind = 'f';

SELECT function, volatility, strictness, parallel, cost FROM declared
EXCEPT SELECT function, volatility, strictness, parallel, cost FROM labels ORDER BY 1;
SELECT function, volatility, strictness, parallel, cost FROM labels
EXCEPT SELECT function, volatility, strictness, parallel, cost FROM declared ORDER BY 1;
SELECT count(*) AS without_a_reason FROM labels WHERE reason IS NULL OR reason = '';
-- Each may fail and tell of its arguments then, so none is leakproof; and none runs with its owner's rights.
SELECT function FROM declared WHERE proleakproof OR prosecdef;
-- What an aggregate is follows from its parts.
SELECT p.oid::regprocedure, proparallel FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'imgvec' AND prokind = 'a' ORDER BY 1::text;
DROP VIEW declared;
DROP TABLE labels;
