// node-postgres with pgvector-node, through a pool. Called with the type of the column: imgvec, or pgvector's vector.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { pipeline } from 'node:stream/promises';

// The packages lie in NODE_PACKAGES, not beside this file.
const require = createRequire(`${process.env.NODE_PACKAGES}/package.json`);
const pg = require('pg');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');

const type = process.argv[2];
let register, toSql;
if (type === 'imgvec') {
  const pgvector = require('pgvector');

  register = async (client) => {
    const { rows } = await client.query("SELECT 'imgvec'::regtype::oid AS oid");
    client.setTypeParser(rows[0].oid, pgvector.fromSql);
  };
  toSql = pgvector.toSql;
} else {
  const pgvector = require('pgvector/pg');

  register = (client) => pgvector.registerTypes(client);
  toSql = pgvector.toSql;
}

// Numbers that look random and are the same in every run, in single precision as they are stored.
let state = 7;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.fround(state / 2 ** 32 - 0.5);
};
const dim = 256;
const randomVector = () => Array.from({ length: dim }, random);
const vectors = Array.from({ length: 2000 }, randomVector);
const query = randomVector();
const awkward = [0.1, 1e-45, -3.4028235e38, 16777216, 1 / 3, ...Array(dim - 5).fill(1)].map(Math.fround);
const singles = (vector) => vector.map(Math.fround);

const nearest = (count) => {
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const similarity = vectors.map((vector) => dot(vector, query) / Math.sqrt(dot(vector, vector)));
  return [...vectors.keys()].sort((a, b) => similarity[b] - similarity[a]).slice(0, count).map((row) => row + 1);
};
const assertUsesIndex = (plan) => {
  const text = plan.rows.map((row) => row['QUERY PLAN']).join('\n');
  assert.match(text, /Index Scan using items_embedding on items[^]*Order By/);
};
const ids = (result) => result.rows.map((row) => row.id);

const pool = new pg.Pool({ max: 2 });
const client = await pool.connect();
await register(client);
await client.query(`CREATE TABLE items (id serial PRIMARY KEY, embedding ${type}(${dim}))`);
const lines = vectors.map((vector, row) => `${row + 1}\t${toSql(vector)}\n`);
await pipeline(lines, client.query(copyFrom('COPY items FROM STDIN')));
await client.query(`CREATE INDEX items_embedding ON items USING ann (embedding ${type}_cosine_ops)`);
await client.query("ANALYZE items; SELECT setval('items_id_seq', 10000)");

// Out again exactly, and NULL; COPY gives the same bytes in text, and the wire format in binary.
const stored = await client.query('SELECT embedding FROM items ORDER BY id');
assert.deepEqual(stored.rows.map((row) => singles(row.embedding)), vectors);
const back = await client.query(`SELECT $1::${type} AS value, $2::${type} AS missing`, [toSql(awkward), null]);
assert.deepEqual(singles(back.rows[0].value), awkward);
assert.equal(back.rows[0].missing, null);
let chunks = [];
await pipeline(client.query(copyTo('COPY (SELECT embedding FROM items WHERE id = 1) TO STDOUT (FORMAT BINARY)')),
  async (stream) => { for await (const chunk of stream) chunks.push(chunk); });
const value = Buffer.concat(chunks).subarray(19 + 2 + 4);
assert.deepEqual([value.readInt16BE(0), value.readInt16BE(2)], [dim, 0]);
assert.deepEqual(vectors[0].map((_, i) => value.readFloatBE(4 + 4 * i)), vectors[0]);
await client.query('CREATE TABLE copied (LIKE items)');
chunks = [];
await pipeline(client.query(copyTo('COPY items TO STDOUT (FORMAT BINARY)')),
  async (stream) => { for await (const chunk of stream) chunks.push(chunk); });
await pipeline([Buffer.concat(chunks)], client.query(copyFrom('COPY copied FROM STDIN (FORMAT BINARY)')));
const differing = await client.query('SELECT count(*)::int AS n FROM items FULL JOIN copied USING (id) WHERE items.embedding IS DISTINCT FROM copied.embedding');
assert.equal(differing.rows[0].n, 0);

// A bound vector finds its neighbors by the index; by a prepared statement's generic plan, too.
const search = 'SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 5';
assert.deepEqual(ids(await client.query(search, [toSql(query)])), nearest(5));
assertUsesIndex(await client.query(`EXPLAIN ${search}`, [toSql(query)]));
for (let i = 0; i < 12; i++) {
  assert.deepEqual(ids(await client.query({ name: 'search', text: search, values: [toSql(query)] })), nearest(5));
}
const prepared = await client.query("SELECT generic_plans::int FROM pg_prepared_statements WHERE name = 'search'");
assert.ok(prepared.rows[0].generic_plans > 0);
await client.query('SET plan_cache_mode = force_generic_plan');
assertUsesIndex(await client.query(`EXPLAIN EXECUTE search('${toSql(query)}')`));
await client.query('RESET plan_cache_mode');

// The server's embeddings.
const embedded = await client.query(`SELECT embed_text($1)::${type} AS dog`, ['a dog']);
const dog = toSql(embedded.rows[0].dog);
await client.query('INSERT INTO items (embedding) VALUES ($1), (embed_text($2)), ($3)', [dog, 'a cat', null]);
const two = 'SELECT id FROM items WHERE id > 10000 ORDER BY embedding <=>';
assert.deepEqual(ids(await client.query(`${two} $1 LIMIT 2`, [dog])), [10001, 10002]);
assert.deepEqual(ids(await client.query(`${two} embed_text($1) LIMIT 2`, ['a dog'])), [10001, 10002]);
assert.deepEqual(ids(await client.query('SELECT id FROM items WHERE embedding IS NULL')), [10003]);

// Errors have their SQLSTATE.
await assert.rejects(client.query('INSERT INTO items (embedding) VALUES ($1)', ['[1,2,3]']), { code: '22000' });
await assert.rejects(client.query(`SELECT $1::${type}`, ['[1,']), { code: '22P02' });
await assert.rejects(client.query("SELECT embed_text('a dog', 'no-such-model')"), { code: '42704' });
client.release();

// Sessions of the pool at once.
const found = await Promise.all(Array.from({ length: 8 }, () => pool.query(search, [toSql(query)])));
found.forEach((result) => assert.deepEqual(ids(result), nearest(5)));
await pool.end();
