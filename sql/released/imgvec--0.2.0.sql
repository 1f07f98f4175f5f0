-- imgvec: the objects of the extension. Installed as imgvec--VERSION.sql.
-- Everything is found without a search_path: casts, operators and functions name catalog objects, and
-- the bodies of SQL functions are parsed when they are created.

\echo Use "CREATE EXTENSION imgvec" to load this file. \quit

------------------------------------------------------------------------------------------------------
-- The type
------------------------------------------------------------------------------------------------------

CREATE TYPE imgvec;

CREATE FUNCTION imgvec_in(cstring, oid, integer) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_in_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_in(cstring, oid, integer) IS 'text input';

CREATE FUNCTION imgvec_out(imgvec) RETURNS cstring
    AS 'MODULE_PATHNAME', 'imgvec_out_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_out(imgvec) IS 'text output';

CREATE FUNCTION imgvec_typmod_in(cstring[]) RETURNS integer
    AS 'MODULE_PATHNAME', 'imgvec_typmod_in_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_typmod_in(cstring[]) IS 'type modifier input';

CREATE FUNCTION imgvec_recv(internal, oid, integer) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_recv_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_recv(internal, oid, integer) IS 'binary input';

CREATE FUNCTION imgvec_send(imgvec) RETURNS bytea
    AS 'MODULE_PATHNAME', 'imgvec_send_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_send(imgvec) IS 'binary output';

-- The layout is that of pgvector's vector, but not its STORAGE: main keeps vectors of up to about 2,000
-- dimensions in the row, where an exact scan takes half the time (1.8 against 3.4 us a row at 512
-- dimensions) and an index that rechecks rows need not fetch TOAST. Scans that do not touch the vector
-- read more pages, and so do rows of 1,000 dimensions, which fill a page by themselves: for such tables
-- ALTER TABLE ... ALTER COLUMN ... SET STORAGE EXTERNAL is the better choice.
CREATE TYPE imgvec (
    INPUT = imgvec_in,
    OUTPUT = imgvec_out,
    TYPMOD_IN = imgvec_typmod_in,
    RECEIVE = imgvec_recv,
    SEND = imgvec_send,
    STORAGE = main
);
COMMENT ON TYPE imgvec IS 'vector of single-precision numbers, such as the embedding of an image or a text';

------------------------------------------------------------------------------------------------------
-- Functions of vectors
------------------------------------------------------------------------------------------------------

CREATE FUNCTION l2_distance(imgvec, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_l2_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION l2_distance(imgvec, imgvec) IS 'Euclidean distance';

CREATE FUNCTION inner_product(imgvec, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_inner_product_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION inner_product(imgvec, imgvec) IS 'inner product, larger is nearer';

CREATE FUNCTION cosine_distance(imgvec, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_cosine_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION cosine_distance(imgvec, imgvec) IS 'cosine distance, 1 - cosine';

CREATE FUNCTION l1_distance(imgvec, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_l1_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION l1_distance(imgvec, imgvec) IS 'Manhattan distance';

CREATE FUNCTION imgvec_l2_squared_distance(imgvec, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_l2_squared_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_l2_squared_distance(imgvec, imgvec) IS 'squared Euclidean distance, for indexes';

CREATE FUNCTION imgvec_negative_inner_product(imgvec, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_negative_inner_product_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_negative_inner_product(imgvec, imgvec) IS 'implementation of <#> operator';

CREATE FUNCTION imgvec_spherical_distance(imgvec, imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_spherical_distance_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_spherical_distance(imgvec, imgvec) IS 'angle of two unit vectors divided by pi';

CREATE FUNCTION imgvec_dims(imgvec) RETURNS integer
    AS 'MODULE_PATHNAME', 'imgvec_dims_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_dims(imgvec) IS 'number of dimensions';

CREATE FUNCTION imgvec_norm(imgvec) RETURNS double precision
    AS 'MODULE_PATHNAME', 'imgvec_norm_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_norm(imgvec) IS 'Euclidean norm';

CREATE FUNCTION l2_normalize(imgvec) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_l2_normalize_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION l2_normalize(imgvec) IS 'the vector scaled to Euclidean norm 1; the zero vector stays';

CREATE FUNCTION subvector(vector imgvec, start integer, count integer) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_subvector_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION subvector(imgvec, integer, integer) IS 'count elements from the 1-based start on';

CREATE FUNCTION binary_quantize(imgvec) RETURNS bit
    AS 'MODULE_PATHNAME', 'imgvec_binary_quantize_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION binary_quantize(imgvec) IS 'one bit an element, 1 where it is positive';

CREATE FUNCTION imgvec_add(imgvec, imgvec) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_add_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_add(imgvec, imgvec) IS 'implementation of + operator';

CREATE FUNCTION imgvec_sub(imgvec, imgvec) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_sub_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_sub(imgvec, imgvec) IS 'implementation of - operator';

CREATE FUNCTION imgvec_mul(imgvec, imgvec) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_mul_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_mul(imgvec, imgvec) IS 'implementation of * operator';

CREATE FUNCTION imgvec_concat(imgvec, imgvec) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_concat_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_concat(imgvec, imgvec) IS 'implementation of || operator';

CREATE FUNCTION imgvec_lt(imgvec, imgvec) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imgvec_lt_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_lt(imgvec, imgvec) IS 'implementation of < operator';

CREATE FUNCTION imgvec_le(imgvec, imgvec) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imgvec_le_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_le(imgvec, imgvec) IS 'implementation of <= operator';

CREATE FUNCTION imgvec_eq(imgvec, imgvec) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imgvec_eq_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_eq(imgvec, imgvec) IS 'implementation of = operator';

CREATE FUNCTION imgvec_ne(imgvec, imgvec) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imgvec_ne_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_ne(imgvec, imgvec) IS 'implementation of <> operator';

CREATE FUNCTION imgvec_ge(imgvec, imgvec) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imgvec_ge_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_ge(imgvec, imgvec) IS 'implementation of >= operator';

CREATE FUNCTION imgvec_gt(imgvec, imgvec) RETURNS boolean
    AS 'MODULE_PATHNAME', 'imgvec_gt_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_gt(imgvec, imgvec) IS 'implementation of > operator';

CREATE FUNCTION imgvec_cmp(imgvec, imgvec) RETURNS integer
    AS 'MODULE_PATHNAME', 'imgvec_cmp_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_cmp(imgvec, imgvec) IS 'less-equal-greater';

CREATE FUNCTION imgvec_hash(imgvec) RETURNS integer
    AS 'MODULE_PATHNAME', 'imgvec_hash_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_hash(imgvec) IS 'hash';

CREATE FUNCTION imgvec_hash_extended(imgvec, bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'imgvec_hash_extended_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_hash_extended(imgvec, bigint) IS 'hash with a seed';

------------------------------------------------------------------------------------------------------
-- Aggregates
------------------------------------------------------------------------------------------------------

CREATE FUNCTION imgvec_accum(double precision[], imgvec) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'imgvec_accum_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_accum(double precision[], imgvec) IS 'aggregate transition function';

CREATE FUNCTION imgvec_combine(double precision[], double precision[]) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'imgvec_combine_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_combine(double precision[], double precision[]) IS 'aggregate combine function';

CREATE FUNCTION imgvec_avg(double precision[]) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_avg_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_avg(double precision[]) IS 'aggregate final function';

CREATE FUNCTION imgvec_sum(double precision[]) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_sum_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_sum(double precision[]) IS 'aggregate final function';

CREATE AGGREGATE avg(imgvec) (
    SFUNC = imgvec_accum,
    STYPE = double precision[],
    INITCOND = '{0}',
    FINALFUNC = imgvec_avg,
    COMBINEFUNC = imgvec_combine,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE avg(imgvec) IS 'the average vector; NULL of no rows';

CREATE AGGREGATE sum(imgvec) (
    SFUNC = imgvec_accum,
    STYPE = double precision[],
    INITCOND = '{0}',
    FINALFUNC = imgvec_sum,
    COMBINEFUNC = imgvec_combine,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE sum(imgvec) IS 'the sum of vectors; NULL of no rows';

------------------------------------------------------------------------------------------------------
-- Casts. One direction of a pair at most is implicit: two would make operators ambiguous.
------------------------------------------------------------------------------------------------------

CREATE FUNCTION imgvec_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'imgvec_support_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_support(internal) IS 'planner support of the check of the number of dimensions';

CREATE FUNCTION imgvec(imgvec, integer, boolean) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'imgvec_to_imgvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE SUPPORT imgvec_support;
COMMENT ON FUNCTION imgvec(imgvec, integer, boolean) IS 'check of the number of dimensions';

CREATE FUNCTION array_to_imgvec(integer[], integer, boolean) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'int4_array_to_imgvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION array_to_imgvec(integer[], integer, boolean) IS 'convert integer[] to imgvec';

CREATE FUNCTION array_to_imgvec(real[], integer, boolean) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'float4_array_to_imgvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION array_to_imgvec(real[], integer, boolean) IS 'convert real[] to imgvec';

CREATE FUNCTION array_to_imgvec(double precision[], integer, boolean) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'float8_array_to_imgvec_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION array_to_imgvec(double precision[], integer, boolean) IS 'convert double precision[] to imgvec';

CREATE FUNCTION array_to_imgvec(numeric[], integer, boolean) RETURNS imgvec
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN array_to_imgvec($1::double precision[], $2, $3);
COMMENT ON FUNCTION array_to_imgvec(numeric[], integer, boolean) IS 'convert numeric[] to imgvec';

CREATE FUNCTION imgvec_to_float4(imgvec, integer, boolean) RETURNS real[]
    AS 'MODULE_PATHNAME', 'imgvec_to_float4_array_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_to_float4(imgvec, integer, boolean) IS 'convert imgvec to real[]';

CREATE FUNCTION imgvec_to_float8(imgvec, integer, boolean) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'imgvec_to_float8_array_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgvec_to_float8(imgvec, integer, boolean) IS 'convert imgvec to double precision[]';

CREATE FUNCTION imgvec_to_int4(imgvec, integer, boolean) RETURNS integer[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN imgvec_to_float4($1, -1, true)::integer[];
COMMENT ON FUNCTION imgvec_to_int4(imgvec, integer, boolean) IS 'convert imgvec to integer[], rounding';

CREATE FUNCTION imgvec_to_numeric(imgvec, integer, boolean) RETURNS numeric[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN imgvec_to_float4($1, -1, true)::numeric[];
COMMENT ON FUNCTION imgvec_to_numeric(imgvec, integer, boolean) IS 'convert imgvec to numeric[]';

CREATE CAST (imgvec AS imgvec) WITH FUNCTION imgvec(imgvec, integer, boolean) AS IMPLICIT;
CREATE CAST (imgvec AS real[]) WITH FUNCTION imgvec_to_float4(imgvec, integer, boolean) AS IMPLICIT;
CREATE CAST (imgvec AS double precision[]) WITH FUNCTION imgvec_to_float8(imgvec, integer, boolean) AS ASSIGNMENT;
CREATE CAST (imgvec AS numeric[]) WITH FUNCTION imgvec_to_numeric(imgvec, integer, boolean) AS ASSIGNMENT;
CREATE CAST (imgvec AS integer[]) WITH FUNCTION imgvec_to_int4(imgvec, integer, boolean);
CREATE CAST (real[] AS imgvec) WITH FUNCTION array_to_imgvec(real[], integer, boolean) AS ASSIGNMENT;
CREATE CAST (integer[] AS imgvec) WITH FUNCTION array_to_imgvec(integer[], integer, boolean) AS ASSIGNMENT;
CREATE CAST (double precision[] AS imgvec)
    WITH FUNCTION array_to_imgvec(double precision[], integer, boolean) AS ASSIGNMENT;
CREATE CAST (numeric[] AS imgvec) WITH FUNCTION array_to_imgvec(numeric[], integer, boolean) AS ASSIGNMENT;

------------------------------------------------------------------------------------------------------
-- Operators
------------------------------------------------------------------------------------------------------

CREATE OPERATOR <-> (LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = l2_distance, COMMUTATOR = <->);
COMMENT ON OPERATOR <-> (imgvec, imgvec) IS 'Euclidean distance';

CREATE OPERATOR <#> (LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_negative_inner_product, COMMUTATOR = <#>);
COMMENT ON OPERATOR <#> (imgvec, imgvec) IS 'negative inner product';

CREATE OPERATOR <=> (LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = cosine_distance, COMMUTATOR = <=>);
COMMENT ON OPERATOR <=> (imgvec, imgvec) IS 'cosine distance';

CREATE OPERATOR <+> (LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = l1_distance, COMMUTATOR = <+>);
COMMENT ON OPERATOR <+> (imgvec, imgvec) IS 'Manhattan distance';

CREATE OPERATOR + (LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_add, COMMUTATOR = +);
COMMENT ON OPERATOR + (imgvec, imgvec) IS 'add element by element';

CREATE OPERATOR - (LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_sub);
COMMENT ON OPERATOR - (imgvec, imgvec) IS 'subtract element by element';

CREATE OPERATOR * (LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_mul, COMMUTATOR = *);
COMMENT ON OPERATOR * (imgvec, imgvec) IS 'multiply element by element';

CREATE OPERATOR || (LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_concat);
COMMENT ON OPERATOR || (imgvec, imgvec) IS 'concatenate';

CREATE OPERATOR < (
    LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_lt,
    COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR < (imgvec, imgvec) IS 'less than';

CREATE OPERATOR <= (
    LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_le,
    COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR <= (imgvec, imgvec) IS 'less than or equal';

CREATE OPERATOR = (
    LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_eq,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES
);
COMMENT ON OPERATOR = (imgvec, imgvec) IS 'equal';

CREATE OPERATOR <> (
    LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_ne,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR <> (imgvec, imgvec) IS 'not equal';

CREATE OPERATOR >= (
    LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_ge,
    COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel
);
COMMENT ON OPERATOR >= (imgvec, imgvec) IS 'greater than or equal';

CREATE OPERATOR > (
    LEFTARG = imgvec, RIGHTARG = imgvec, FUNCTION = imgvec_gt,
    COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR > (imgvec, imgvec) IS 'greater than';

------------------------------------------------------------------------------------------------------
-- Operator classes
------------------------------------------------------------------------------------------------------

CREATE OPERATOR CLASS imgvec_ops DEFAULT FOR TYPE imgvec USING btree AS
    OPERATOR 1 <,
    OPERATOR 2 <=,
    OPERATOR 3 =,
    OPERATOR 4 >=,
    OPERATOR 5 >,
    FUNCTION 1 imgvec_cmp(imgvec, imgvec);
COMMENT ON OPERATOR CLASS imgvec_ops USING btree IS 'lexicographic order of vectors';

CREATE OPERATOR CLASS imgvec_hash_ops DEFAULT FOR TYPE imgvec USING hash AS
    OPERATOR 1 =,
    FUNCTION 1 imgvec_hash(imgvec),
    FUNCTION 2 imgvec_hash_extended(imgvec, bigint);
COMMENT ON OPERATOR CLASS imgvec_hash_ops USING hash IS 'equality of vectors';

------------------------------------------------------------------------------------------------------
-- The index. Support function 1 of an operator class tells the access method the metric.
------------------------------------------------------------------------------------------------------

CREATE FUNCTION ann_handler(internal) RETURNS index_am_handler
    AS 'MODULE_PATHNAME', 'ann_handler_wrapper' LANGUAGE C;
COMMENT ON FUNCTION ann_handler(internal) IS 'handler of access method ann';

CREATE ACCESS METHOD ann TYPE INDEX HANDLER ann_handler;
COMMENT ON ACCESS METHOD ann IS 'approximate nearest neighbors in a graph of quantized vectors';

CREATE FUNCTION ann_imgvec_cosine(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_imgvec_cosine_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_imgvec_cosine(internal) IS 'support function of imgvec_cosine_ops';
CREATE FUNCTION ann_imgvec_l2(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_imgvec_l2_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_imgvec_l2(internal) IS 'support function of imgvec_l2_ops';
CREATE FUNCTION ann_imgvec_ip(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ann_imgvec_ip_wrapper' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION ann_imgvec_ip(internal) IS 'support function of imgvec_ip_ops';

CREATE OPERATOR CLASS imgvec_cosine_ops DEFAULT FOR TYPE imgvec USING ann AS
    OPERATOR 1 <=> (imgvec, imgvec) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_imgvec_cosine(internal);
COMMENT ON OPERATOR CLASS imgvec_cosine_ops USING ann IS 'nearest by cosine distance';
CREATE OPERATOR CLASS imgvec_l2_ops FOR TYPE imgvec USING ann AS
    OPERATOR 1 <-> (imgvec, imgvec) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_imgvec_l2(internal);
COMMENT ON OPERATOR CLASS imgvec_l2_ops USING ann IS 'nearest by Euclidean distance';
CREATE OPERATOR CLASS imgvec_ip_ops FOR TYPE imgvec USING ann AS
    OPERATOR 1 <#> (imgvec, imgvec) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 ann_imgvec_ip(internal);
COMMENT ON OPERATOR CLASS imgvec_ip_ops USING ann IS 'largest inner product first';

CREATE FUNCTION ann_index_info(index regclass, OUT metric text, OUT dims integer, OUT code_dims integer,
    OUT nodes_per_page integer, OUT pages bigint, OUT size_bytes bigint, OUT entries bigint, OUT built_rows bigint,
    OUT format_version integer)
    RETURNS record AS 'MODULE_PATHNAME', 'ann_index_info_wrapper' LANGUAGE C STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION ann_index_info(regclass) IS 'shape and size of an ann index, from its first pages';

CREATE FUNCTION ann_index_check(index regclass, heapallindexed boolean DEFAULT false, OUT live_nodes bigint,
    OUT dead_nodes bigint, OUT free_slots bigint, OUT rows bigint, OUT edges bigint, OUT stale_edges bigint,
    OUT unreachable bigint)
    RETURNS record AS 'MODULE_PATHNAME', 'ann_index_check_wrapper' LANGUAGE C STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION ann_index_check(regclass, boolean) IS
    'reads an ann index whole and fails if it is damaged; with heapallindexed also if a row of the table is missing';

CREATE FUNCTION ann_index_recall(index regclass, k integer DEFAULT 10, samples integer DEFAULT 100)
    RETURNS double precision AS 'MODULE_PATHNAME', 'ann_index_recall_wrapper'
    LANGUAGE C STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION ann_index_recall(regclass, integer, integer) IS
    'share of the k nearest rows that the index finds, measured against the exact answers for queries like some rows of the table';

CREATE FUNCTION ann_scan_counters(OUT index regclass, OUT scans bigint, OUT rows_fetched bigint, OUT pages_read bigint,
    OUT exact_distances bigint, OUT estimates bigint, OUT extra_hops bigint, OUT stale_links bigint,
    OUT limited_scans bigint)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'ann_scan_counters_wrapper'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION ann_scan_counters() IS 'what index scans cost in this session; see the view ann_scan_stats';
CREATE VIEW ann_scan_stats AS SELECT * FROM ann_scan_counters();
COMMENT ON VIEW ann_scan_stats IS
    'what index scans cost in this session, for each index: counters are added when a scan ends';
GRANT SELECT ON ann_scan_stats TO PUBLIC;

------------------------------------------------------------------------------------------------------
-- Encoders. A call that names its model is IMMUTABLE, as to_tsvector with a named configuration is: the
-- package that a name stands for must not change while values made by it are stored. The forms without
-- a model read imgvec.default_model and are STABLE. COST is in units of 0.0025: an image takes
-- milliseconds, a text is mostly answered by the cache after its first row.
------------------------------------------------------------------------------------------------------

CREATE FUNCTION embed_image(image bytea) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_image_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_image(bytea) IS 'embedding of an image by the default model';

CREATE FUNCTION embed_image(image bytea, model text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_image_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_image(bytea, text) IS 'embedding of an image by a named model';

CREATE FUNCTION embed_text(query text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_text_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION embed_text(text) IS 'embedding of a text by the default model';

CREATE FUNCTION embed_text(query text, model text) RETURNS imgvec
    AS 'MODULE_PATHNAME', 'embed_text_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION embed_text(text, text) IS 'embedding of a text by a named model';

CREATE FUNCTION embed_images(images bytea[]) RETURNS imgvec[]
    AS 'MODULE_PATHNAME', 'embed_images_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_images(bytea[]) IS 'embeddings of several images by the default model; NULL for NULL';

CREATE FUNCTION embed_images(images bytea[], model text) RETURNS imgvec[]
    AS 'MODULE_PATHNAME', 'embed_images_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION embed_images(bytea[], text) IS 'embeddings of several images by a named model; NULL for NULL';

CREATE FUNCTION embed_texts(queries text[]) RETURNS imgvec[]
    AS 'MODULE_PATHNAME', 'embed_texts_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION embed_texts(text[]) IS 'embeddings of several texts by the default model; NULL for NULL';

CREATE FUNCTION embed_texts(queries text[], model text) RETURNS imgvec[]
    AS 'MODULE_PATHNAME', 'embed_texts_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION embed_texts(text[], text) IS 'embeddings of several texts by a named model; NULL for NULL';

CREATE FUNCTION classify_image(image bytea, labels text[]) RETURNS TABLE (label text, score real)
    AS 'MODULE_PATHNAME', 'classify_image_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000 ROWS 10;
COMMENT ON FUNCTION classify_image(bytea, text[]) IS 'zero-shot classification of an image by the default model, best label first';

CREATE FUNCTION classify_image(image bytea, labels text[], model text) RETURNS TABLE (label text, score real)
    AS 'MODULE_PATHNAME', 'classify_image_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000 ROWS 10;
COMMENT ON FUNCTION classify_image(bytea, text[], text) IS 'zero-shot classification of an image by a named model, best label first';

CREATE FUNCTION classify_embedding(embedding imgvec, labels text[]) RETURNS TABLE (label text, score real)
    AS 'MODULE_PATHNAME', 'classify_embedding_wrapper' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000 ROWS 10;
COMMENT ON FUNCTION classify_embedding(imgvec, text[]) IS 'zero-shot classification of an image''s embedding by the default model, best label first';

CREATE FUNCTION classify_embedding(embedding imgvec, labels text[], model text) RETURNS TABLE (label text, score real)
    AS 'MODULE_PATHNAME', 'classify_embedding_with_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000 ROWS 10;
COMMENT ON FUNCTION classify_embedding(imgvec, text[], text) IS 'zero-shot classification of an image''s embedding by a named model, best label first';

CREATE FUNCTION image_info(image bytea, OUT format text, OUT width integer, OUT height integer, OUT frames integer,
    OUT orientation integer, OUT channels integer, OUT bits_per_channel integer)
    RETURNS record AS 'MODULE_PATHNAME', 'image_info_wrapper' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION image_info(bytea) IS
    'format and dimensions of an image as stored, from its header; frames is NULL where only decoding would tell';

------------------------------------------------------------------------------------------------------
-- What is there, and what it did
------------------------------------------------------------------------------------------------------

CREATE FUNCTION imgvec_model_list(OUT name text, OUT family text, OUT modalities text[], OUT dims integer,
    OUT "precision" text, OUT digest text, OUT path text, OUT license text, OUT state text, OUT detail text,
    OUT memory_bytes bigint)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'imgvec_model_list_wrapper'
    LANGUAGE C STABLE PARALLEL SAFE ROWS 10 COST 10000;
COMMENT ON FUNCTION imgvec_model_list() IS 'model packages on imgvec.model_path; see the view imgvec_models';

CREATE VIEW imgvec_models AS SELECT * FROM imgvec_model_list();
COMMENT ON VIEW imgvec_models IS
    'model packages on imgvec.model_path: state is loaded (in this backend), available or broken, and detail says why';
GRANT SELECT ON imgvec_models TO PUBLIC;

CREATE FUNCTION imgvec_backend_counters(OUT images_embedded bigint, OUT texts_embedded bigint, OUT model_runs bigint,
    OUT cache_hits bigint, OUT cache_misses bigint, OUT cache_entries bigint, OUT encoder_cpu_ms double precision,
    OUT inference_cpu_ms double precision)
    RETURNS record AS 'MODULE_PATHNAME', 'imgvec_backend_counters_wrapper' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION imgvec_backend_counters() IS 'what encoders did in this session; see the view imgvec_backend_stats';

CREATE VIEW imgvec_backend_stats AS SELECT * FROM imgvec_backend_counters();
COMMENT ON VIEW imgvec_backend_stats IS
    'what encoders did in this session: inputs through a model, answers from the embedding cache, and processor time, of which inference_cpu_ms is the bare model runs';
GRANT SELECT ON imgvec_backend_stats TO PUBLIC;
