-- What the catalogs say: labels, comments, no stray objects. In the manner of opr_sanity.
CREATE TEMP VIEW ours AS
SELECT classid, objid FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'imgvec') AND deptype = 'e';

-- every function, aggregate, type, operator, operator class and view has a comment
SELECT p.oid::regprocedure AS uncommented FROM pg_proc p JOIN ours ON classid = 'pg_proc'::regclass AND objid = p.oid
WHERE obj_description(p.oid, 'pg_proc') IS NULL ORDER BY 1;
SELECT o.oid::regoperator AS uncommented FROM pg_operator o JOIN ours ON classid = 'pg_operator'::regclass AND objid = o.oid
WHERE obj_description(o.oid, 'pg_operator') IS NULL ORDER BY 1;
SELECT opcname AS uncommented FROM pg_opclass c JOIN ours ON classid = 'pg_opclass'::regclass AND objid = c.oid
WHERE obj_description(c.oid, 'pg_opclass') IS NULL ORDER BY 1;
SELECT c.relname AS uncommented FROM pg_class c JOIN ours ON classid = 'pg_class'::regclass AND objid = c.oid
WHERE obj_description(c.oid, 'pg_class') IS NULL ORDER BY 1;

-- functions of values are immutable, strict and parallel safe; encoders with a named model too
SELECT p.oid::regprocedure, provolatile, proisstrict, proparallel, procost
FROM pg_proc p JOIN ours ON classid = 'pg_proc'::regclass AND objid = p.oid
WHERE prokind = 'f' AND (provolatile, proisstrict, proparallel) IS DISTINCT FROM ('i'::"char", true, 's'::"char")
ORDER BY 1::text;

-- a commutator commutes, an equality operator has both hash and btree behind it
SELECT o.oid::regoperator AS lopsided FROM pg_operator o JOIN ours ON classid = 'pg_operator'::regclass AND objid = o.oid
WHERE oprcom <> 0 AND (SELECT c.oprcom FROM pg_operator c WHERE c.oid = o.oprcom) IS DISTINCT FROM o.oid;
SELECT amname, opcname, opcdefault, amvalidate(c.oid) FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod
JOIN ours ON classid = 'pg_opclass'::regclass AND objid = c.oid ORDER BY 1, 2;

-- settings, which exist once the library is loaded: who may set them
SELECT '[1]'::imgvec;
SELECT name, context, vartype FROM pg_settings WHERE name LIKE 'imgvec.%' ORDER BY name;
SET imgvec.no_such_setting = 1;

-- an array type, and arrays work
SELECT ARRAY['[1,2]'::imgvec, NULL, '[3]'];
SELECT unnest('{"[1,2]","[3,4]"}'::imgvec[]);
